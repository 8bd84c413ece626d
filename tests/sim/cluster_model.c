#include "tests/sim/cluster_model.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/client.h"

enum {
    LAG_MAX_US = 60000,
    SPARES = 2, /* nodes that may join */
    NODE_KEYS_MAX = 256,
};

/* --- slots ------------------------------------------------------------- */

/* CRC16 bit by bit, apart from parser/keyslot.c. */
uint16_t model_slot(struct span key)
{
    size_t from = 0;
    size_t to = key.len;
    for (size_t i = 0; i < key.len; i++) {
        if (key.data[i] != '{') {
            continue;
        }
        for (size_t k = i + 1; k < key.len; k++) {
            if (key.data[k] == '}') {
                from = k > i + 1 ? i + 1 : from;
                to = k > i + 1 ? k : to;
                break;
            }
        }
        break;
    }
    unsigned crc = 0;
    for (size_t i = from; i < to; i++) {
        crc ^= (unsigned)key.data[i] << 8;
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc & 0x8000 ? crc << 1 ^ 0x1021 : crc << 1) & 0xffff;
        }
    }
    return crc % CLUSTER_SLOTS;
}

void view_set(struct node *n, uint16_t slot, uint8_t owner, uint32_t epoch)
{
    if (epoch >= n->epoch[slot]) {
        n->owner[slot] = owner;
        n->epoch[slot] = epoch;
    }
}

struct move *move_of(struct cluster_model *cl, unsigned slot)
{
    for (int i = 0; i < MOVES_MAX; i++) {
        if (cl->moves[i].active && cl->moves[i].slot == slot) {
            return &cl->moves[i];
        }
    }
    return NULL;
}

/* --- making one -------------------------------------------------------- */

static struct node *node_new(struct world *w, struct cluster_model *cl)
{
    struct node *n = must_alloc(sizeof *n);
    n->index = cl->n_nodes;
    cl->nodes[cl->n_nodes++] = n;
    server_init(&n->server, w);
    for (int i = 0; i < 40; i++) {
        n->id[i] = "0123456789abcdef"[pick(w, 0, 15)];
    }
    n->address.port = (uint16_t)(NODE_PORT + n->index);
    snprintf(n->address.host, sizeof n->address.host, "10.0.0.%u",
             cl->no_host ? 1 : 1 + n->index);
    snprintf(n->hostname, sizeof n->hostname, "node%u.redis.test", n->index);
    n->old = chance(w, 1, 4);
    n->strict = chance(w, 1, 6);
    n->scan_seed = pick(w, 1, UINT32_MAX);
    n->lag_us = chance(w, 1, 3) ? 0 : pick(w, 0, LAG_MAX_US);
    n->master = NOBODY;
    memset(n->owner, NOBODY, sizeof n->owner);
    return n;
}

static void fixture_put(struct cluster_model *cl, unsigned i)
{
    char name[16];
    struct bytes reply = { 0 };
    snprintf(name, sizeof name, "fix%u", i);
    struct model_command m = {
        .argc = 3, .arg = { span_of("SET"), span_of(name), span_of("x") }
    };
    uint8_t owner = cl->owner[model_slot(span_of(name))];
    for (unsigned k = 0; k < cl->n_nodes; k++) {
        struct node *n = cl->nodes[k];
        if (n->index == owner || (n->replica && n->master == owner)) {
            data_command(n->server.data, (struct ledger){ .resp = 2 }, &m,
                         &reply);
        }
    }
    bytes_fini(&reply);
}

struct cluster_model *cluster_new(struct world *w)
{
    struct cluster_model *cl = must_alloc(sizeof *cl);
    unsigned primaries = w->settings.primaries;
    cl->no_host = w->settings.rate[FAULT_NO_HOST] > 0;
    cl->hostnames = !cl->no_host && w->settings.rate[FAULT_HOSTNAMES] > 0;
    w->fired[FAULT_NO_HOST] += cl->no_host;
    w->fired[FAULT_HOSTNAMES] += cl->hostnames;
    w->cluster = cl;
    for (unsigned i = 0; i < primaries; i++) {
        node_new(w, cl)->member = true;
    }
    for (unsigned i = 0; i < primaries; i++) {
        uint64_t n_replicas =
            pick(w, w->settings.replica_each ? 1 : 0, w->settings.replicas);
        for (uint64_t k = 0; k < n_replicas; k++) {
            struct node *n = node_new(w, cl);
            n->member = true;
            n->replica = true;
            n->master = (uint8_t)i;
        }
    }
    for (int i = 0; i < SPARES; i++) {
        node_new(w, cl);
    }
    for (unsigned slot = 0; slot < CLUSTER_SLOTS; slot++) {
        cl->owner[slot] = (uint8_t)(slot * primaries / CLUSTER_SLOTS);
    }
    cl->epoch = primaries;
    for (unsigned i = 0; i < cl->n_nodes; i++) {
        memcpy(cl->nodes[i]->owner, cl->owner, sizeof cl->owner);
        cl->nodes[i]->config_epoch = i < primaries ? i + 1 : 0;
    }
    for (unsigned i = 0; i < FIXTURES; i++) {
        fixture_put(cl, i);
    }
    return cl;
}

static void effects_drop(struct node *n)
{
    for (size_t i = 0; i < n->n_effects; i++) {
        bytes_fini(&n->effects[i].words);
    }
    n->n_effects = 0;
}

void cluster_free(struct cluster_model *cl)
{
    if (cl == NULL) {
        return;
    }
    for (unsigned i = 0; i < cl->n_nodes; i++) {
        effects_drop(cl->nodes[i]);
        free(cl->nodes[i]->effects);
        server_fini(&cl->nodes[i]->server);
        free(cl->nodes[i]);
    }
    free(cl->changes);
    free(cl);
}

const char *node_host(const struct cluster_model *cl, const struct node *n)
{
    return cl->no_host ? "" : cl->hostnames ? n->hostname : n->address.host;
}

void cluster_seeds(struct world *w, char *text, size_t size)
{
    struct cluster_model *cl = w->cluster;
    uint64_t n = pick(w, 1, 3);
    uint64_t first = pick(w, 0, w->settings.primaries - 1);
    size_t length = 0;
    for (uint64_t i = 0; i < n; i++) {
        const struct node *node =
            cl->nodes[(first + i) % w->settings.primaries];
        const char *host =
            w->settings.by_name ? node->hostname : node->address.host;
        length += (size_t)snprintf(text + length, size - length, "%s%s:%u",
                                   i > 0 ? "," : "", host, node->address.port);
    }
}

struct server *world_server(struct world *w, const struct address *address)
{
    struct cluster_model *cl = w->cluster;
    if (cl == NULL) {
        return w->server;
    }
    for (unsigned i = 0; i < cl->n_nodes; i++) {
        const struct node *n = cl->nodes[i];
        if (n->address.port == address->port &&
            (cl->no_host || strcmp(n->address.host, address->host) == 0 ||
             strcmp(n->hostname, address->host) == 0)) {
            return &cl->nodes[i]->server;
        }
    }
    return NULL;
}

void world_address(struct world *w,
                   const struct server *s,
                   struct address *address)
{
    *address = (struct address){ .port = 6379, .host = "10.0.0.1" };
    if (w->cluster != NULL) {
        *address = ((const struct node *)s)->address;
    }
}

/* --- replication ------------------------------------------------------- */

/* Run commands that lie one behind the other, for nobody. */
static void replay(struct node *n, struct span words)
{
    struct model_command m;
    while (words.len > 0) {
        struct bytes reply = { 0 };
        if (model_command_read(words, &m) != MODEL_DONE) {
            abort();
        }
        data_command(n->server.data, (struct ledger){ .resp = 2 }, &m, &reply);
        bytes_fini(&reply);
        words.data += m.size;
        words.len -= m.size;
    }
}

void effect_add(struct world *w,
                struct node *n,
                uint32_t request,
                struct span words)
{
    if (n->n_effects == n->effects_cap) {
        n->effects_cap = n->effects_cap * 2 + 64;
        n->effects =
            must_grow(n->effects, n->effects_cap * sizeof n->effects[0]);
    }
    struct effect *e = &n->effects[n->n_effects++];
    *e = (struct effect){ .at_us = w->now_us, .request = request };
    bytes_add(&e->words, words.data, words.len);
}

static struct node *master_of(struct world *w, const struct node *n)
{
    struct node *master =
        n->master == NOBODY ? NULL : w->cluster->nodes[n->master];
    return master == NULL || master->replica ? NULL : master;
}

static void apply_until(struct world *w, struct node *n, uint64_t until_us)
{
    struct node *master = master_of(w, n);
    while (master != NULL && n->applied < master->n_effects &&
           master->effects[n->applied].at_us <= until_us) {
        replay(n, bytes_span(&master->effects[n->applied++].words));
    }
}

void replica_catch_up(struct world *w, struct node *n)
{
    uint64_t now_us = n->cut_since > 0 ? n->cut_since : w->now_us;
    if (now_us > n->lag_us) {
        apply_until(w, n, now_us - n->lag_us);
    }
}

void replica_sync(struct world *w, struct node *n)
{
    apply_until(w, n, UINT64_MAX);
}

void node_follow(struct world *w, struct node *n, struct node *master)
{
    (void)w;
    effects_drop(n);
    data_copy(n->server.data, master->server.data);
    n->replica = true;
    n->doomed = false;
    n->master = (uint8_t)master->index;
    n->applied = master->n_effects;
    n->cut_since = 0;
}

void node_promote(struct world *w, struct node *n)
{
    struct node *master = master_of(w, n);
    for (size_t i = n->applied; master != NULL && i < master->n_effects; i++) {
        history_lose(w, master->effects[i].request);
    }
    n->replica = false;
    n->master = NOBODY;
    n->applied = 0;
    n->cut_since = 0;
    effects_drop(n);
}

void cluster_wrote(struct world *w,
                   struct session *c,
                   uint32_t request,
                   struct span words)
{
    if (w->cluster == NULL) {
        return;
    }
    struct node *n = node_of(c);
    if (n->doomed && request != NO_REQUEST) {
        history_lose(w, request);
    } else {
        effect_add(w, n, request, words);
    }
}

void key_move(struct world *w,
              struct node *from,
              struct node *to,
              struct value *v)
{
    struct cluster_model *cl = w->cluster;
    struct span del[] = { span_of("DEL"), data_key(v) };
    struct bytes leave = { 0 };
    struct bytes arrive = { 0 };
    model_command_add(&leave, del, 2);
    model_command_add(&arrive, del, 2);
    data_dump(v, &arrive);
    replay(to, bytes_span(&arrive));
    effect_add(w, to, NO_REQUEST, bytes_span(&arrive));
    replay(from, bytes_span(&leave));
    effect_add(w, from, NO_REQUEST, bytes_span(&leave));
    for (unsigned i = 0; i < cl->n_nodes; i++) {
        if (replicates(cl->nodes[i], from) || replicates(cl->nodes[i], to)) {
            replica_sync(w, cl->nodes[i]);
        }
    }
    cl->upheavals++;
    bytes_fini(&leave);
    bytes_fini(&arrive);
}

/* --- redirects --------------------------------------------------------- */

unsigned model_keys(const struct model_command *m, uint8_t *index)
{
    static const char *const none[] = {
        "ECHO",    "NOSUCH",  "PING",      "MULTI",        "EXEC",
        "UNWATCH", "DISCARD", "SUBSCRIBE", "UNSUBSCRIBE",  "PSUBSCRIBE",
        "PUBLISH", "CLIENT",  "AUTH",      "PUNSUBSCRIBE", "HELLO",
        "SELECT",  "RESET",   "SCAN",      "KEYS",
    };
    static const char *const many[] = { "MGET",       "DEL",         "EXISTS",
                                        "UNLINK",     "TOUCH",       "WATCH",
                                        "SSUBSCRIBE", "SUNSUBSCRIBE" };
    uint64_t timeout_us;
    size_t first = 1;
    size_t last = 1;
    size_t step = 1;
    unsigned n = 0;
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        if (model_arg_is(m, 0, none[i])) {
            return 0;
        }
    }
    for (size_t i = 0; i < sizeof many / sizeof many[0]; i++) {
        if (model_arg_is(m, 0, many[i])) {
            last = m->argc - 1;
        }
    }
    if (model_arg_is(m, 0, "MSET")) {
        last = m->argc - 1;
        step = 2;
    } else if (model_arg_is(m, 0, "BLMOVE")) {
        last = 2;
    } else if (model_arg_is(m, 0, "XINFO")) {
        first = last = 2;
    } else if (model_arg_is(m, 0, "XREAD")) {
        while (first < m->argc && !model_arg_is(m, first, "STREAMS")) {
            first++;
        }
        last = first + (m->argc - 1 - first) / 2;
        first++;
    } else if (model_blocks(m, &timeout_us)) {
        last = m->argc - 2;
    }
    for (size_t i = first; i <= last && i < m->argc; i += step) {
        index[n++] = (uint8_t)i;
    }
    return n;
}

/* What a command, or EXEC, would touch. */
struct touched {
    struct node *node;
    unsigned slot;
    unsigned n, missing;
    bool crosses, multiple, writes;
    struct span first;
};

static void touch(struct touched *t, const struct model_command *m)
{
    uint8_t index[MODEL_ARGS_MAX];
    unsigned n = model_keys(m, index);
    bool channel = model_arg_is(m, 0, "SSUBSCRIBE") ||
                   model_arg_is(m, 0, "SUNSUBSCRIBE") ||
                   model_arg_is(m, 0, "SPUBLISH");
    t->writes |= data_writes(m);
    for (unsigned i = 0; i < n; i++) {
        struct span key = m->arg[index[i]];
        if (t->n++ == 0) {
            t->slot = model_slot(key);
            t->first = key;
        }
        t->crosses |= t->slot != model_slot(key);
        t->multiple |= !span_equal(t->first, key);
        t->missing +=
            !channel && !data_has(data_at(t->node->server.data, 0, key));
    }
}

static void touch_queued(struct touched *t, struct session *c)
{
    struct span rest = bytes_span(&c->queued);
    struct model_command m;
    while (rest.len > 0 && model_command_read(rest, &m) == MODEL_DONE) {
        touch(t, &m);
        rest.data += m.size;
        rest.len -= m.size;
    }
}

static void redirect(struct world *w,
                     const char *word,
                     unsigned slot,
                     unsigned to,
                     struct bytes *out)
{
    const struct node *n = w->cluster->nodes[to];
    bytes_printf(out, "-%s %u %s:%u\r\n", word, slot, node_host(w->cluster, n),
                 n->address.port);
}

static void try_again(struct world *w, struct bytes *out)
{
    w->counts.tryagain++;
    bytes_add_text(out, "-TRYAGAIN Multiple keys request during rehashing of "
                        "slot\r\n");
}

/* Nonsense, and never the same for long. */
static void nonsense(struct world *w,
                     const struct touched *t,
                     struct bytes *out)
{
    const struct node *n = t->node;
    w->counts.hostile++;
    switch (n->hostility) {
    case 0: bytes_printf(out, "-MOVED %u 10.0.0.2:65536\r\n", t->slot); break;
    case 1:
        bytes_printf(out, "-MOVED %u 192.168.77.1:7000\r\n", t->slot);
        break;
    case 2:
        bytes_printf(out, "-MOVED %u %s:%u\r\n", t->slot,
                     node_host(w->cluster, n), n->address.port);
        break;
    case 3: bytes_printf(out, "-ASK %u 169.254.0.1:7000\r\n", t->slot); break;
    case 4: bytes_printf(out, "-MOVED 99999 10.0.0.1:7000\r\n"); break;
    case 5: bytes_printf(out, "-MOVED\r\n"); break;
    default: {
        /* A loop: to a node that is not it, either. */
        unsigned to = (unsigned)pick(w, 0, w->settings.primaries - 1);
        redirect(w, chance(w, 1, 2) ? "MOVED" : "ASK", t->slot, to, out);
        break;
    }
    }
}

/* A read of a replica; false: it does not answer it. */
static bool replica_serves(struct world *w,
                           struct session *c,
                           const struct touched *t,
                           struct bytes *out)
{
    struct node *n = t->node;
    if (!n->replica || !c->readonly || t->writes ||
        n->owner[t->slot] != n->master) {
        return false;
    }
    if (n->strict && n->cut_since > 0) {
        w->counts.masterdown++;
        bytes_add_text(out, "-MASTERDOWN Link with MASTER is down and "
                            "replica-serve-stale-data is set to 'no'.\r\n");
        return true;
    }
    replica_catch_up(w, n);
    w->counts.from_replica++;
    return true;
}

/* The slot is on its way; true: said why it does not run here. */
static bool on_the_way(struct world *w,
                       struct session *c,
                       const struct touched *t,
                       bool *serves,
                       struct bytes *out)
{
    struct node *n = t->node;
    const struct move *move = move_of(w->cluster, t->slot);
    bool mine = !n->replica && n->owner[t->slot] == n->index;
    if (move == NULL) {
        return false;
    }
    if (mine && move->from == n->index && t->missing > 0) {
        if (t->missing < t->n && !n->old) {
            try_again(w, out);
        } else {
            w->counts.ask++;
            redirect(w, "ASK", t->slot, move->to, out);
        }
        return true;
    }
    if (move->to == n->index && !move->taken && c->asking) {
        if (t->multiple && t->missing > 0) {
            try_again(w, out);
            return true;
        }
        w->counts.asked++;
        *serves = true;
    }
    return false;
}

bool cluster_refuses(struct world *w,
                     struct session *c,
                     const struct model_command *m,
                     struct bytes *out)
{
    struct node *n = node_of(c);
    struct touched t = { .node = n };
    bool serves = false;
    if (model_arg_is(m, 0, "EXEC")) {
        touch_queued(&t, c);
    } else {
        touch(&t, m);
    }
    if (t.n == 0) {
        return false;
    }
    uint8_t owner = n->owner[t.slot];
    if (t.crosses) {
        bytes_add_text(
            out, "-CROSSSLOT Keys in request don't hash to the same slot\r\n");
    } else if (n->hostile_until > w->now_us) {
        nonsense(w, &t, out);
    } else if (owner == NOBODY || !n->member) {
        w->counts.down++;
        bytes_add_text(out, "-CLUSTERDOWN Hash slot not served\r\n");
    } else if (n->down_until > w->now_us) {
        w->counts.down++;
        bytes_add_text(out, "-CLUSTERDOWN The cluster is down\r\n");
    } else if (on_the_way(w, c, &t, &serves, out) ||
               replica_serves(w, c, &t, out)) {
        return out->size > 0;
    } else if (!serves && (n->replica || owner != n->index)) {
        const struct move *move = move_of(w->cluster, t.slot);
        w->counts.unasked += move != NULL && move->to == n->index;
        w->counts.moved++;
        redirect(w, "MOVED", t.slot, owner, out);
    }
    return out->size > 0;
}
