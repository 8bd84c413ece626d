/* What is made of the answers of several nodes, and of redirects (redis.md
 * §9): the slot map and the endpoints in force. */
#include "proxy/core/topology_adopt.h"

#include <assert.h>
#include <stdio.h>

#include "proxy/core/allow_nodes.h"
#include "proxy/core/lane_set.h"
#include "proxy/core/state.h"

/* ---- endpoints ---------------------------------------------------------------- */

void topology_trace(struct engine *e,
                    const struct cluster *c,
                    const struct endpoint *p,
                    const char *from,
                    const char *to,
                    const char *why)
{
    engine_trace(e, &(struct trace_record){ .type = TRACE_TOPOLOGY,
                                            .upstream = c->config->name,
                                            .address =
                                                p != NULL ? &p->address : NULL,
                                            .from = from,
                                            .to = to,
                                            .reason = why });
}

static const char *role_name(const struct endpoint *p)
{
    return p->role == NODE_PRIMARY   ? "primary"
           : p->role == NODE_REPLICA ? "replica"
                                     : "unknown";
}

struct endpoint *topology_endpoint(struct engine *e,
                                   struct cluster *c,
                                   const struct address *address)
{
    struct endpoint *p = cluster_find(c, address);
    if (p != NULL) {
        return p;
    }
    const char *why = allow_nodes_refusal(e->config, c, address);
    if (why == NULL) {
        p = cluster_add(e, c, address);
        why = "too many nodes, or out of memory";
    } else {
        c->stats.nodes_refused++;
    }
    if (p == NULL) {
        engine_trace(e, &(struct trace_record){ .type = TRACE_TOPOLOGY,
                                                .upstream = c->config->name,
                                                .address = address,
                                                .to = "refused",
                                                .reason = why });
        endpoint_failed(e, c->endpoints[0], why);
    }
    return p;
}

bool topology_shard_is_down(const struct cluster *c, uint32_t shard)
{
    const struct topology *t = c->topology;
    for (uint32_t i = 0; i < t->n_primaries; i++) {
        const struct endpoint *p = c->endpoints[t->primaries[i]];
        if (p->shard == shard) {
            return p->down_since_us != 0;
        }
    }
    return true;
}

bool topology_lacks_primary(const struct cluster *c)
{
    const struct topology *t = c->topology;
    for (uint32_t i = 0; i < t->n_primaries; i++) {
        if (c->endpoints[t->primaries[i]]->down_since_us != 0) {
            return true;
        }
    }
    return c->endpoints[0]->n_slots > 0;
}

static struct upstream *some_lane_up(const struct endpoint *p)
{
    LIST_FOR_EACH (node, &p->lanes) {
        struct upstream *u = CONTAINER_OF(node, struct upstream, endpoint_node);
        if (u->state == UPSTREAM_UP) {
            return u;
        }
    }
    return NULL;
}

void topology_leave(struct engine *e,
                    struct endpoint *p,
                    bool at_once,
                    const char *why)
{
    struct upstream *u;
    p->wanted = false;
    while (at_once && (u = some_lane_up(p)) != NULL) {
        upstream_lost(e, u,
                      &(struct upstream_loss){ .why = why, .tell = true });
    }
    for (struct list_node *node = p->lanes.next, *next; node != &p->lanes;
         node = next) {
        next = node->next;
        u = CONTAINER_OF(node, struct upstream, endpoint_node);
        if (u->owner != NULL) {
            continue;
        }
        if (list_empty(&u->waiting) && list_empty(&u->in_flight)) {
            upstream_free(e, u, why);
        } else if (u->state == UPSTREAM_UP) {
            upstream_wake_at(e, u, e->now_us);
        }
    }
}

void topology_join(struct engine *e, struct endpoint *p)
{
    p->wanted = true;
    cluster_open_lane(e, p);
}

/* ---- resolving ------------------------------------------------------------------ */

/* The nodes' answers become one map, by Redis' own rule as far as it can be
 * seen from outside: the latest configuration wins. A node's word on its own
 * slots counts by its configuration epoch; hearsay counts by majority. */
struct resolved {
    const struct view_node *owner; /* NULL: nobody serves it */
    const struct topology_answer *by;
    uint64_t epoch; /* of a node's own word */
    uint8_t votes;  /* of others */
    bool own_word;
};

enum {
    SETTLED_US = 10 * 1000 * 1000
};

/* Views that are behind, or from nodes that are cut off, do not count. */
static void drop_stale(const struct engine *e, struct topology *t)
{
    bool any_ok = false;
    for (uint32_t i = 0; i < t->n_answers; i++) {
        any_ok =
            any_ok || (t->answers[i].view != NULL && t->answers[i].info.ok);
    }
    /* The epoch of a living cluster never falls; one that was made anew is
     * believed after a while. */
    bool recent = e->now_us < t->adopted_us + SETTLED_US;
    uint64_t epoch = recent ? t->epoch : 0;
    for (uint32_t i = 0; i < t->n_answers; i++) {
        struct topology_answer *a = &t->answers[i];
        if (a->view != NULL && a->info.ok == any_ok &&
            a->info.current_epoch > epoch) {
            epoch = a->info.current_epoch;
        }
    }
    for (uint32_t i = 0; i < t->n_answers; i++) {
        struct topology_answer *a = &t->answers[i];
        if (a->view != NULL &&
            (a->info.ok != any_ok || a->info.current_epoch < epoch)) {
            view_free(a->view);
            a->view = NULL;
        }
    }
    t->epoch = epoch;
}

static bool same_node(const struct view_node *a, const struct view_node *b)
{
    if (a->id[0] != '\0' && b->id[0] != '\0') {
        return strcmp(a->id, b->id) == 0;
    }
    return a->port == b->port && strcmp(a->host, b->host) == 0;
}

/* What each node has said, slot by slot: 1 + the number of the owner among the
 * nodes of its view. */
struct laid_out {
    uint16_t owner[TOPOLOGY_ASKED_MAX][KEYSLOT_COUNT];
};

static void lay_out(const struct topology *t, struct laid_out *l)
{
    for (uint32_t i = 0; i < t->n_answers; i++) {
        const struct view *v = t->answers[i].view;
        for (uint32_t k = 0; v != NULL && k < v->n_ranges; k++) {
            for (uint32_t s = v->ranges[k].first; s <= v->ranges[k].last; s++) {
                l->owner[i][s] = (uint16_t)(1 + v->ranges[k].node);
            }
        }
    }
}

/* How many of the answers name that owner for that slot. */
static uint8_t count_votes(const struct topology *t,
                           const struct laid_out *l,
                           uint32_t slot,
                           const struct view_node *owner)
{
    uint8_t votes = 0;
    for (uint32_t i = 0; i < t->n_answers; i++) {
        uint16_t node = l->owner[i][slot];
        if (node != 0 &&
            same_node(&t->answers[i].view->nodes[node - 1], owner)) {
            votes++;
        }
    }
    return votes;
}

static void vote(const struct topology *t,
                 const struct laid_out *l,
                 const struct topology_answer *a,
                 const struct view_node *owner,
                 uint32_t slot,
                 struct resolved *r)
{
    bool own = a->id[0] != '\0' && strcmp(a->id, owner->id) == 0;
    struct resolved next = { .owner = owner,
                             .by = a,
                             .own_word = own,
                             .epoch = own ? a->info.my_epoch : 0 };
    if (r->owner == NULL) {
        *r = next;
        return;
    }
    if (same_node(r->owner, owner)) {
        if (own && !r->own_word) {
            *r = next;
        }
        return;
    }
    if (own != r->own_word) {
        if (own) {
            *r = next;
        }
        return;
    }
    if (own) {
        if (next.epoch > r->epoch) {
            *r = next;
        }
        return;
    }
    if (r->votes == 0) {
        r->votes = count_votes(t, l, slot, r->owner);
    }
    next.votes = count_votes(t, l, slot, owner);
    if (next.votes > r->votes) {
        *r = next;
    }
}

/* Fill in map (KEYSLOT_COUNT entries, zeroed). Returns whether any slot is
 * served. */
static bool resolve(const struct topology *t,
                    const struct laid_out *l,
                    struct resolved *map)
{
    bool any = false;
    for (uint32_t i = 0; i < t->n_answers; i++) {
        const struct topology_answer *a = &t->answers[i];
        for (uint32_t s = 0; a->view != NULL && s < KEYSLOT_COUNT; s++) {
            uint16_t node = l->owner[i][s];
            if (node != 0) {
                vote(t, l, a, &a->view->nodes[node - 1], s, &map[s]);
                any = true;
            }
        }
    }
    return any;
}

/* ---- adopting ------------------------------------------------------------------- */

static struct endpoint *endpoint_of(struct engine *e,
                                    struct cluster *c,
                                    const struct topology_answer *by,
                                    const struct view_node *node)
{
    struct address address = { .port = node->port };
    const char *host =
        node->host[0] != '\0' ? node->host : by->from->address.host;
    snprintf(address.host, sizeof(address.host), "%s", host);
    return topology_endpoint(e, c, &address);
}

/* A number for the shard of node that does not depend on the view: a hash of
 * its primary's name. */
static uint32_t shard_name(const struct view *v, const struct view_node *node)
{
    const struct view_node *primary = node;
    for (uint32_t i = 0; i < v->n_nodes; i++) {
        if (v->nodes[i].shard == node->shard &&
            v->nodes[i].role == NODE_PRIMARY && v->nodes[i].online) {
            primary = &v->nodes[i];
            break;
        }
    }
    return node_hash(primary->id, primary->host, primary->port);
}

/* Take over what one view says of its nodes. */
static void note_nodes(struct engine *e,
                       struct cluster *c,
                       const struct topology_answer *a)
{
    for (uint32_t i = 0; i < a->view->n_nodes; i++) {
        const struct view_node *node = &a->view->nodes[i];
        struct endpoint *p = endpoint_of(e, c, a, node);
        if (p == NULL || p->known) {
            continue; /* refused, or another view has spoken of it */
        }
        p->known = true;
        memcpy(p->id, node->id, sizeof(p->id));
        memcpy(p->zone, node->zone, sizeof(p->zone));
        p->near = endpoint_zone_is_near(c, &p->address, p->zone);
        p->online = node->online;
        p->shard = shard_name(a->view, node);
        p->said_role = (uint8_t)node->role;
    }
}

/* Nodes nobody has heard of, and primaries whose slots went elsewhere. */
void topology_set_role(struct engine *e,
                       struct cluster *c,
                       struct endpoint *p,
                       uint8_t role)
{
    const char *before = role_name(p);
    if (p->role == role) {
        return;
    }
    p->role = role;
    cluster_reroute_later(e, c);
    if (role == NODE_REPLICA && c->slots != NULL) {
        LIST_FOR_EACH (node, &p->lanes) {
            struct upstream *u =
                CONTAINER_OF(node, struct upstream, endpoint_node);
            if (u->state == UPSTREAM_UP && u->set != NULL) {
                upstream_read_only(e, u);
            }
        }
    }
    topology_trace(e, c, p, before, role_name(p), NULL);
}

/* The map becomes that of the cluster. Returns whether it is another one. */
static bool take_slots(struct engine *e,
                       struct topology *t,
                       const struct resolved *map)
{
    struct cluster *c = t->cluster;
    const struct view_node *last = NULL; /* neighbours mostly agree */
    struct endpoint *p = NULL;
    uint32_t moved = 0;
    for (uint32_t s = 0; s < KEYSLOT_COUNT; s++) {
        if (t->patched[s / 8] & (1u << (s % 8))) {
            continue; /* a redirect is younger than these answers */
        }
        const struct resolved *r = &map[s];
        if (r->owner == NULL) {
            p = c->endpoints[0];
        } else if (r->owner != last) {
            p = endpoint_of(e, c, r->by, r->owner);
            p = p == NULL ? c->endpoints[0] : p;
        }
        last = r->owner;
        moved += c->slots[s] != p->index;
        c->slots[s] = (uint16_t)p->index;
    }
    c->stats.slots_moved += t->adopted_us != 0 ? moved : 0;
    return moved > 0;
}

static bool list_primaries(struct engine *e, struct topology *t)
{
    struct cluster *c = t->cluster;
    uint16_t *list =
        memory_take(e->memory, (c->n_endpoints + 1) * sizeof(*list));
    if (list == NULL) {
        return false;
    }
    for (uint32_t i = 0; i < c->n_endpoints; i++) {
        if (c->endpoints[i] != NULL) {
            c->endpoints[i]->n_slots = 0;
        }
    }
    for (uint32_t s = 0; s < KEYSLOT_COUNT; s++) {
        c->endpoints[c->slots[s]]->n_slots++;
    }
    t->n_primaries = 0;
    for (uint32_t i = 1; i < c->n_endpoints; i++) {
        struct endpoint *p = c->endpoints[i];
        if (p != NULL && p->n_slots > 0) {
            list[t->n_primaries++] = (uint16_t)i;
        }
    }
    memory_give(e->memory, t->primaries);
    t->primaries = list;
    return true;
}

void topology_forget_strangers(struct engine *e, struct cluster *c)
{
    for (uint32_t i = 1; i < c->n_endpoints; i++) {
        struct endpoint *p = c->endpoints[i];
        if (p == NULL || p->known || p->seed || p->n_slots > 0 ||
            !list_empty(&p->lanes)) {
            continue;
        }
        topology_trace(e, c, p, role_name(p), "removed", NULL);
        endpoint_fini(e, p);
        memory_give(e->memory, p);
        c->endpoints[i] = NULL;
    }
}

/* Whether p's node serves slots, but is called by another address now. */
static bool serves_elsewhere(const struct cluster *c, const struct endpoint *p)
{
    for (uint32_t i = 1; p->id[0] != '\0' && i < c->n_endpoints; i++) {
        const struct endpoint *q = c->endpoints[i];
        if (q != NULL && q != p && q->n_slots > 0 &&
            strcmp(q->id, p->id) == 0) {
            return true;
        }
    }
    return false;
}

/* Whether p was a primary and has lost its place to another node. Giving its
 * last slot away, or having another name, is not that. */
static bool has_fallen(const struct cluster *c, const struct endpoint *p)
{
    bool was_primary = p->role == NODE_PRIMARY || p->fallen;
    return was_primary && p->n_slots == 0 &&
           (p->said_role == NODE_REPLICA || !p->online) &&
           !serves_elsewhere(c, p);
}

/* Open lanes to those who serve slots, and let go of the others: at once when
 * somebody took over, for what they still execute will be lost. */
static void settle_lanes(struct engine *e, struct cluster *c)
{
    bool replicas = c->config->read_from != READ_PRIMARY;
    for (uint32_t i = 1; i < c->n_endpoints; i++) {
        struct endpoint *p = c->endpoints[i];
        if (p == NULL) {
            continue;
        }
        bool serves = p->n_slots > 0;
        bool was_fallen = p->fallen;
        p->fallen = has_fallen(c, p);
        bool falls = p->fallen && !was_fallen;
        topology_set_role(e, c, p,
                          !p->known && !serves ? NODE_UNKNOWN
                          : serves             ? NODE_PRIMARY
                                               : p->said_role);
        bool candidate =
            p->role == NODE_REPLICA && topology_shard_is_down(c, p->shard);
        if (serves || candidate || (replicas && p->role == NODE_REPLICA)) {
            if (!p->wanted || p->lanes_up + p->lanes_connecting == 0) {
                topology_join(e, p);
            }
        } else {
            topology_leave(e, p, falls,
                           falls ? "another node has taken over"
                                 : "the node serves no slots");
        }
    }
}

/* The map has changed: what waits may have to go elsewhere. */
static void map_changed(struct engine *e, struct cluster *c)
{
    c->version++;
    cluster_reroute_later(e, c);
}

const char *topology_adopt(struct engine *e, struct topology *t)
{
    struct cluster *c = t->cluster;
    struct resolved *map = memory_take(e->memory, KEYSLOT_COUNT * sizeof(*map));
    struct laid_out *said = memory_take(e->memory, sizeof(*said));
    if (map == NULL || said == NULL) {
        e->stats.limit_memory++;
        memory_give(e->memory, map);
        memory_give(e->memory, said);
        return "out of memory";
    }
    bool answered = false;
    for (uint32_t i = 0; i < t->n_answers; i++) {
        answered = answered || t->answers[i].view != NULL;
    }
    drop_stale(e, t);
    lay_out(t, said);
    bool any = resolve(t, said, map);
    memory_give(e->memory, said);
    if (!any) {
        memory_give(e->memory, map);
        return answered                   ? "no node serves any slots"
               : t->last_error[0] != '\0' ? t->last_error
                                          : "no node has answered";
    }
    for (uint32_t i = 0; i < c->n_endpoints; i++) {
        if (c->endpoints[i] != NULL) {
            c->endpoints[i]->known = false;
            c->endpoints[i]->online = false;
            c->endpoints[i]->said_role = NODE_UNKNOWN;
        }
    }
    for (uint32_t i = 0; i < t->n_answers; i++) {
        if (t->answers[i].view != NULL) {
            note_nodes(e, c, &t->answers[i]);
        }
    }
    bool changed = take_slots(e, t, map);
    memory_give(e->memory, map);
    if (changed) {
        map_changed(e, c);
    }
    if (!list_primaries(e, t)) {
        e->stats.limit_memory++;
        return "out of memory";
    }
    settle_lanes(e, c);
    topology_forget_strangers(e, c);
    if (c->endpoints[0]->n_slots == 0) {
        endpoint_reached(e, c->endpoints[0]);
    } else {
        endpoint_failed(e, c->endpoints[0], "no node serves the slot");
    }
    if (changed) {
        topology_trace(e, c, NULL, NULL, "adopted", t->why);
    }
    if (c->held > 0) {
        cluster_reroute_later(e, c); /* a replica may be fit now */
    }
    return NULL;
}

/* ---- redirects ------------------------------------------------------------------ */

struct endpoint *topology_redirect(struct engine *e,
                                   struct upstream *from,
                                   const struct redis_error *error,
                                   const char **why)
{
    struct cluster *c = from->endpoint->cluster;
    struct topology *t = c->topology;
    struct address address = { .port = error->port };
    struct span host = error->host;
    *why =
        "the server redirects to an address that allow_nodes does not permit";
    if (host.len == 0 || span_equal(host, span_of("?"))) {
        host = span_of(from->endpoint->address.host); /* who says it */
    }
    if (host.len >= sizeof(address.host)) {
        return NULL;
    }
    memcpy(address.host, host.data, host.len);
    struct endpoint *p = topology_endpoint(e, c, &address);
    bool moved = error->kind == REDIS_ERROR_MOVED;
    if (moved) {
        topology_want(e, c, "a server answered MOVED");
    }
    if (p == NULL || !moved) {
        return p;
    }
    uint32_t s = error->slot;
    t->patched[s / 8] |= (uint8_t)(1u << (s % 8));
    if (c->slots[s] != p->index) {
        c->endpoints[c->slots[s]]->n_slots--;
        c->slots[s] = (uint16_t)p->index;
        p->n_slots++;
        c->stats.slots_moved++;
        p->wanted = true;
        map_changed(e, c);
    }
    return p;
}

/* ---- without slots ----------------------------------------------------------------- */

void topology_set_primary(struct engine *e,
                          struct cluster *c,
                          struct endpoint *p,
                          bool at_once,
                          const char *why)
{
    struct endpoint *before = c->primary;
    if (before == p) {
        return;
    }
    c->primary = p;
    topology_set_role(e, c, p, p->limbo ? NODE_UNKNOWN : NODE_PRIMARY);
    topology_trace(e, c, p, NULL, "primary", why);
    if (!before->limbo) {
        topology_set_role(e, c, before, NODE_REPLICA);
        topology_leave(e, before, at_once, "another server is the primary");
    }
    if (!p->limbo) {
        endpoint_reached(e, c->endpoints[0]);
        topology_join(e, p);
    }
    map_changed(e, c);
}
