/* What happens inside the cluster: slots that move, failovers, nodes that come
 * and go, views that differ. */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/core/node_state.h"
#include "tests/sim/cluster_model.h"
#include "tests/sim/draft.h"
#include "tests/sim/pubsub.h"

enum happening {
    HEAR,      /* a node hears of a change */
    MOVE_KEYS, /* some keys of a slot move on */
    TAKE_OVER, /* a replica of this node stands for election */
    KNOW_SLOT, /* a node knows the owner of a slot again */
    RELINK,    /* a replica reaches its master again */
};

enum {
    GOSSIP_US = 60000,
    SPLIT_US = 2500000,  /* how long views may differ */
    ZOMBIE_US = 1500000, /* how long an old primary does not know */
    NODE_TIMEOUT_US = 200000,
    MOVE_STEP_US = 30000,
    KEYS_A_STEP = 2,
    HEAR_AGAIN_US = 20000,
    DOWN_US = 400000,
    HOSTILE_US = 300000,
    SLOTS_A_JOIN = 3000,
    HOSTILITIES = 7,
};

static void cluster_later(struct world *w,
                          uint64_t after_us,
                          enum happening what,
                          struct node *n,
                          uint64_t number)
{
    world_wake(w, after_us, WAKE_CLUSTER, n, (uint64_t)what << 32 | number);
}

static void note(struct world *w, const char *what, const struct node *n)
{
    world_note(w, what, NULL, n->index, span_of(n->id));
}

/* --- who owns what ----------------------------------------------------- */

static bool has_slot(const struct change *change, unsigned slot)
{
    return change->slots[slot / 8] >> slot % 8 & 1;
}

/* No node still has to hear of a change: only then a new one begins, so that
 * epochs alone tell which view is right. */
static bool settled(const struct cluster_model *cl)
{
    for (size_t i = 0; i < cl->n_changes; i++) {
        for (unsigned k = 0; k < cl->n_nodes; k++) {
            if (cl->changes[i].unheard[k]) {
                return false;
            }
        }
    }
    return true;
}

static bool is_moving(const struct cluster_model *cl)
{
    for (int i = 0; i < MOVES_MAX; i++) {
        if (cl->moves[i].active) {
            return true;
        }
    }
    return false;
}

static struct change *change_new(struct world *w, uint8_t from, uint8_t to)
{
    struct cluster_model *cl = w->cluster;
    cl->changes =
        must_grow(cl->changes, (cl->n_changes + 1) * sizeof cl->changes[0]);
    struct change *change = &cl->changes[cl->n_changes++];
    *change = (struct change){ .from = from, .to = to, .epoch = ++cl->epoch };
    cl->upheavals++;
    return change;
}

static void change_add(struct cluster_model *cl,
                       struct change *change,
                       unsigned slot)
{
    change->slots[slot / 8] |= (uint8_t)(1u << slot % 8);
    cl->owner[slot] = change->to;
}

/* What a node does when it hears of new owners. */
static void hear(struct world *w, struct node *n, struct change *change)
{
    struct cluster_model *cl = w->cluster;
    struct node *to = cl->nodes[change->to];
    change->unheard[n->index] = false;
    for (unsigned slot = 0; slot < CLUSTER_SLOTS; slot++) {
        if (has_slot(change, slot)) {
            bool owned = n->owner[slot] == n->index;
            view_set(n, (uint16_t)slot, change->to, change->epoch);
            if (owned && n != to) {
                shards_leave(w, &n->server, (int)slot);
            }
        }
    }
    note(w, "hears", n);
    if (n == to) {
        n->config_epoch = change->epoch;
        return;
    }
    bool demoted = change->failover && n->index == change->from;
    bool orphan = n->replica && n->master == change->from &&
                  (change->failover || !cl->nodes[change->from]->member);
    if (demoted) {
        note(w, "demoted", n);
        server_force_unblock(
            w, &n->server, -1,
            "-UNBLOCKED force unblock from blocking operation, instance state "
            "changed (master -> replica?)\r\n");
    }
    if (demoted || orphan) {
        node_follow(w, n, to);
    }
}

/* Tell everybody, one after the other; first at once. */
static void spread(struct world *w,
                   struct change *change,
                   const struct node *first)
{
    struct cluster_model *cl = w->cluster;
    uint64_t index = (uint64_t)(change - cl->changes);
    for (unsigned i = 0; i < cl->n_nodes; i++) {
        struct node *n = cl->nodes[i];
        uint64_t after_us = pick(w, 1000, GOSSIP_US);
        change->unheard[i] = true;
        if (n->index == change->to || n == first) {
            hear(w, n, change);
            continue;
        }
        if (change->failover && n->index == change->from) {
            after_us = pick(w, 1000, ZOMBIE_US);
        } else if (strikes(w, FAULT_SPLIT_VIEW)) {
            after_us = pick(w, GOSSIP_US, SPLIT_US);
        }
        cluster_later(w, w->healed ? 0 : after_us, HEAR, n, index);
    }
}

static void heard(struct world *w, struct node *n, uint64_t index)
{
    struct change *change = &w->cluster->changes[index];
    bool deaf = !n->server.up || n->server.stopped;
    if (deaf && !w->healed && n->member) {
        cluster_later(w, HEAR_AGAIN_US, HEAR, n, index);
        return;
    }
    if (change->unheard[n->index]) {
        hear(w, n, change);
    }
}

/* --- failover ---------------------------------------------------------- */

/* The replica that has the most of its master's data. */
static struct node *best_replica(struct world *w, const struct node *n)
{
    struct cluster_model *cl = w->cluster;
    struct node *best = NULL;
    for (unsigned i = 0; i < cl->n_nodes; i++) {
        struct node *r = cl->nodes[i];
        if (!replicates(r, n) || !r->server.up || r->server.stopped) {
            continue;
        }
        replica_catch_up(w, r);
        if (best == NULL || r->applied > best->applied) {
            best = r;
        }
    }
    return best;
}

bool cluster_is_quiet(const struct cluster_model *cl)
{
    return settled(cl) && !is_moving(cl);
}

static bool may_fail_over(const struct cluster_model *cl, const struct node *n)
{
    return n->member && !n->replica && !n->doomed && settled(cl) &&
           !is_moving(cl);
}

static void fail_over(struct world *w, struct node *n, bool graceful)
{
    struct cluster_model *cl = w->cluster;
    struct node *r = may_fail_over(cl, n) ? best_replica(w, n) : NULL;
    if (r == NULL || (graceful && (!n->server.up || n->server.stopped))) {
        return;
    }
    if (graceful) {
        replica_sync(w, r);
    }
    note(w, graceful ? "takeover" : "failover", r);
    w->counts.failovers++;
    node_promote(w, r);
    struct change *change = change_new(w, (uint8_t)n->index, (uint8_t)r->index);
    change->failover = true;
    for (unsigned slot = 0; slot < CLUSTER_SLOTS; slot++) {
        if (cl->owner[slot] == n->index) {
            change_add(cl, change, slot);
        }
    }
    n->doomed = true;
    spread(w, change, graceful ? n : NULL);
}

void cluster_killed(struct world *w, struct node *n)
{
    if (n->member && !n->replica) {
        cluster_later(w, pick(w, NODE_TIMEOUT_US / 2, NODE_TIMEOUT_US * 2),
                      TAKE_OVER, n, 0);
    }
}

/* Its peers have not heard of it for too long. */
static void missed(struct world *w, struct node *n)
{
    struct cluster_model *cl = w->cluster;
    if (n->server.up && !n->server.stopped) {
        return;
    }
    if (best_replica(w, n) != NULL) {
        fail_over(w, n, false);
        if (!n->doomed && !n->replica) {
            cluster_later(w, HEAR_AGAIN_US, TAKE_OVER, n, 0); /* not now */
        }
        return;
    }
    for (unsigned i = 0; i < cl->n_nodes && chance(w, 1, 2); i++) {
        cl->nodes[i]->down_until = w->now_us + pick(w, 1000, DOWN_US);
    }
}

/* --- slots that move --------------------------------------------------- */

static struct node *some_primary(struct world *w, const struct node *but)
{
    struct cluster_model *cl = w->cluster;
    struct node *found[NODES_MAX];
    unsigned n = 0;
    for (unsigned i = 0; i < cl->n_nodes; i++) {
        struct node *p = cl->nodes[i];
        if (p->member && !p->replica && !p->doomed && p != but &&
            p->server.up && !p->server.stopped) {
            found[n++] = p;
        }
    }
    return n == 0 ? NULL : found[pick(w, 0, n - 1)];
}

/* A slot of that node with a key in it; -1: none. */
static int slot_in_use(struct world *w, struct node *n)
{
    uint64_t skip = pick(w, 0, 30);
    int slot = -1;
    for (struct value *v = data_next(n->server.data, NULL); v != NULL;
         v = data_next(n->server.data, v)) {
        int s = model_slot(data_key(v));
        if (w->cluster->owner[s] == n->index) {
            slot = s;
            if (skip-- == 0) {
                break;
            }
        }
    }
    return slot;
}

/* The slot of a key that a client uses now. */
static int slot_in_demand(struct world *w)
{
    char key[64];
    const struct client *c = w->clients[pick(w, 0, w->n_clients - 1)];
    draft_key_name(w, c, (unsigned)pick(w, 0, CLIENT_KEYS - 1), chance(w, 1, 3),
                   key, sizeof key);
    return model_slot(span_of(key));
}

static void move_begin(struct world *w)
{
    struct cluster_model *cl = w->cluster;
    struct node *from = some_primary(w, NULL);
    int slot = from == NULL || !settled(cl) ? -1 : slot_in_use(w, from);
    if (slot >= 0 && chance(w, 2, 3)) {
        slot = slot_in_demand(w);
        from = cl->nodes[cl->owner[slot]];
    }
    struct node *to = slot < 0 ? NULL : some_primary(w, from);
    if (to == NULL || !from->server.up || from->doomed) {
        return;
    }
    for (int i = 0; i < MOVES_MAX; i++) {
        struct move *move = &cl->moves[i];
        if (move->active || move_of(cl, (unsigned)slot) != NULL) {
            continue;
        }
        *move = (struct move){ .active = true,
                               .slot = (uint16_t)slot,
                               .from = (uint8_t)from->index,
                               .to = (uint8_t)to->index };
        cl->upheavals++;
        w->counts.migrations++;
        world_note(w, "migrate", NULL, (uint64_t)slot, span_of(to->id));
        cluster_later(w, pick(w, 0, MOVE_STEP_US), MOVE_KEYS, from,
                      (uint64_t)i);
        return;
    }
}

/* All keys have moved: the new owner knows first, then the old one, then the
 * rest. */
static void move_end(struct world *w, struct move *move)
{
    struct cluster_model *cl = w->cluster;
    struct node *from = cl->nodes[move->from];
    char error[ADDRESS_TEXT_MAX + 32];
    const struct node *to = cl->nodes[move->to];
    struct change *change = change_new(w, move->from, move->to);
    change_add(cl, change, move->slot);
    move->active = false;
    spread(w, change, from);
    snprintf(error, sizeof error, "-MOVED %u %s:%u\r\n", move->slot,
             node_host(cl, to), to->address.port);
    server_force_unblock(w, &from->server, move->slot, error);
}

static void move_on(struct world *w, uint64_t index)
{
    struct cluster_model *cl = w->cluster;
    struct move *move = &cl->moves[index];
    struct node *from = cl->nodes[move->from];
    struct node *to = cl->nodes[move->to];
    bool awake = from->server.up && to->server.up && !from->server.stopped &&
                 !to->server.stopped;
    bool left = !awake;
    uint64_t keys = pick(w, 0, KEYS_A_STEP);
    if (!move->active) {
        return;
    }
    for (struct value *v = data_next(from->server.data, NULL);
         v != NULL && awake; v = data_next(from->server.data, v)) {
        if (!data_has(v) || model_slot(data_key(v)) != move->slot) {
            continue;
        }
        if (keys == 0 && !w->healed) {
            left = true;
            break;
        }
        keys -= keys > 0;
        key_move(w, from, to, v);
    }
    if (left || (!w->healed && chance(w, 3, 4))) {
        cluster_later(w, pick(w, 0, MOVE_STEP_US), MOVE_KEYS, from, index);
    } else {
        move_end(w, move);
    }
}

/* Many slots at once, keys and all, while nobody looks. */
static void slots_move(struct world *w,
                       struct node *from,
                       struct node *to,
                       unsigned most)
{
    struct cluster_model *cl = w->cluster;
    struct change *change =
        change_new(w, (uint8_t)from->index, (uint8_t)to->index);
    for (unsigned slot = 0; slot < CLUSTER_SLOTS && most > 0; slot++) {
        if (cl->owner[slot] == from->index) {
            change_add(cl, change, slot);
            most--;
        }
    }
    for (struct value *v = data_next(from->server.data, NULL); v != NULL;
         v = data_next(from->server.data, v)) {
        unsigned slot = model_slot(data_key(v));
        if (data_has(v) && has_slot(change, slot)) {
            key_move(w, from, to, v);
        }
    }
    spread(w, change, from);
    server_force_unblock(w, &from->server, -1,
                         "-CLUSTERDOWN The cluster is down\r\n");
}

static void join(struct world *w)
{
    struct cluster_model *cl = w->cluster;
    struct node *from = some_primary(w, NULL);
    for (unsigned i = 0; i < cl->n_nodes; i++) {
        struct node *n = cl->nodes[i];
        if (!n->member && n->server.up && from != NULL && settled(cl) &&
            !is_moving(cl)) {
            n->member = true;
            memcpy(n->owner, cl->owner, sizeof n->owner);
            note(w, "joins", n);
            slots_move(w, from, n, (unsigned)pick(w, 1, SLOTS_A_JOIN));
            return;
        }
    }
}

/* Whether the engine could find the cluster without n: it is told of the nodes
 * it does not know by those that it knows. */
static bool engine_knows_another(struct world *w, const struct node *n)
{
    struct node_state known[SERVERS_SHOWN];
    struct cluster_state state = { .nodes = known, .nodes_max = SERVERS_SHOWN };
    engine_cluster_state(w->engine, 0, &state);
    for (uint32_t i = 0; i < state.n_nodes; i++) {
        const struct server *s = world_server(w, &known[i].address);
        const struct node *other = (const struct node *)s;
        if (other != NULL && other != n && other->member) {
            return true;
        }
    }
    return false;
}

static void part(struct world *w)
{
    struct cluster_model *cl = w->cluster;
    struct node *n = some_primary(w, NULL);
    struct node *to = n == NULL ? NULL : some_primary(w, n);
    if (to == NULL || !settled(cl) || is_moving(cl) ||
        !engine_knows_another(w, n)) {
        return;
    }
    note(w, "leaves", n);
    n->member = false;
    n->left = true;
    slots_move(w, n, to, CLUSTER_SLOTS);
    server_kill(w, &n->server, 0);
}

/* --- trouble ----------------------------------------------------------- */

static void go_down(struct world *w, struct node *n)
{
    if (chance(w, 1, 2)) {
        n->down_until = w->now_us + pick(w, 1000, DOWN_US);
        return;
    }
    uint16_t slot = (uint16_t)pick(w, 0, CLUSTER_SLOTS - 1);
    int used = slot_in_use(w, n);
    slot = used >= 0 ? (uint16_t)used : slot;
    if (n->owner[slot] == NOBODY) {
        return;
    }
    n->owner[slot] = NOBODY;
    cluster_later(w, pick(w, 1000, DOWN_US), KNOW_SLOT, n, slot);
}

/* It learns the truth, unless that is still on its way to it. */
static void know_slot(struct world *w, struct node *n, uint64_t slot)
{
    struct cluster_model *cl = w->cluster;
    if (!settled(cl)) {
        cluster_later(w, HEAR_AGAIN_US, KNOW_SLOT, n, slot);
    } else if (n->owner[slot] == NOBODY) {
        n->owner[slot] = cl->owner[slot];
    }
}

void cluster_strike(struct world *w)
{
    struct cluster_model *cl = w->cluster;
    struct node *n = cl->nodes[pick(w, 0, cl->n_nodes - 1)];
    if (strikes(w, FAULT_MIGRATE)) {
        move_begin(w);
    }
    if (strikes(w, FAULT_FAILOVER)) {
        fail_over(w, n, false);
    }
    if (strikes(w, FAULT_GRACEFUL)) {
        fail_over(w, n, true);
    }
    if (strikes(w, FAULT_JOIN)) {
        join(w);
    }
    if (strikes(w, FAULT_LEAVE)) {
        part(w);
    }
    if (strikes(w, FAULT_DOWN)) {
        go_down(w, n);
    }
    if (strikes(w, FAULT_HOSTILE)) {
        n->hostility = (unsigned)pick(w, 0, HOSTILITIES - 1);
        n->hostile_until = w->now_us + pick(w, 1000, HOSTILE_US);
    }
    if (n->replica && n->cut_since == 0 && strikes(w, FAULT_SPLIT_VIEW)) {
        n->cut_since = w->now_us;
        cluster_later(w, pick(w, 1000, SPLIT_US), RELINK, n, 0);
    }
}

void cluster_wake(struct world *w, struct node *n, uint64_t number)
{
    uint64_t what = number >> 32;
    number &= UINT32_MAX;
    switch ((enum happening)what) {
    case HEAR: heard(w, n, number); break;
    case MOVE_KEYS: move_on(w, number); break;
    case TAKE_OVER: missed(w, n); break;
    case KNOW_SLOT: know_slot(w, n, number); break;
    case RELINK: n->cut_since = 0; break;
    }
}

/* All is well: what is under way comes to its end soon. */
void cluster_heal(struct world *w)
{
    struct cluster_model *cl = w->cluster;
    for (unsigned i = 0; i < cl->n_nodes; i++) {
        struct node *n = cl->nodes[i];
        n->hostile_until = 0;
        n->down_until = 0;
        n->cut_since = 0;
        if (!n->left) {
            server_heal(w, &n->server);
        }
    }
    for (size_t i = 0; i < cl->n_changes; i++) {
        for (unsigned k = 0; k < cl->n_nodes; k++) {
            if (cl->changes[i].unheard[k]) {
                hear(w, cl->nodes[k], &cl->changes[i]);
            }
        }
    }
    for (unsigned i = 0; i < cl->n_nodes; i++) {
        memcpy(cl->nodes[i]->owner, cl->owner, sizeof cl->owner);
    }
}
