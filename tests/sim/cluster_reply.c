/* What a node of the model answers about the cluster, and about all its keys. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tests/sim/cluster_model.h"

enum {
    SCAN_COUNT = 40,
    SCAN_BITS = 40,
    OFFSET_BASE = 1000, /* replication offsets look like real ones */
};

/* --- who owns what ----------------------------------------------------- */

static void text_add(struct bytes *out, const char *text)
{
    model_bulk_add(out, span_of(text));
}

static void number_add(struct bytes *out, uint64_t number)
{
    bytes_printf(out, ":%" PRIu64 "\r\n", number);
}

/* The end of the range of n's view that begins at a slot. */
static unsigned range_end(const struct node *n, unsigned slot)
{
    unsigned end = slot;
    while (end + 1 < CLUSTER_SLOTS && n->owner[end + 1] == n->owner[slot]) {
        end++;
    }
    return end;
}

static unsigned ranges_count(const struct node *n, uint8_t owner)
{
    unsigned count = 0;
    for (unsigned slot = 0; slot < CLUSTER_SLOTS;
         slot = range_end(n, slot) + 1) {
        count += n->owner[slot] == owner;
    }
    return count;
}

static void host_add(const struct cluster_model *cl,
                     const struct node *n,
                     int resp,
                     struct bytes *out)
{
    const char *host = node_host(cl, n);
    if (host[0] == '\0') {
        model_null_add(out, resp);
    } else {
        text_add(out, host);
    }
}

/* Whether n takes r for a replica of that primary. */
static bool seems_replica(const struct node *r, const struct node *primary)
{
    return r != primary && replicates(r, primary);
}

static uint64_t offset_of(const struct cluster_model *cl, const struct node *n)
{
    (void)cl;
    return OFFSET_BASE + (n->replica ? n->applied : n->n_effects);
}

static void shard_node(const struct cluster_model *cl,
                       const struct node *n,
                       bool primary,
                       int resp,
                       struct bytes *out)
{
    model_map_add(out, resp, cl->hostnames ? 8 : 7);
    text_add(out, "id");
    text_add(out, n->id);
    text_add(out, "port");
    number_add(out, n->address.port);
    text_add(out, "ip");
    text_add(out, n->address.host);
    text_add(out, "endpoint");
    host_add(cl, n, resp, out);
    if (cl->hostnames) {
        text_add(out, "hostname");
        text_add(out, n->hostname);
    }
    text_add(out, "role");
    text_add(out, primary ? "master" : "replica");
    text_add(out, "replication-offset");
    number_add(out, offset_of(cl, n));
    text_add(out, "health");
    text_add(out, n->server.up ? "online" : "fail");
}

static void on_shards(const struct cluster_model *cl,
                      const struct node *n,
                      int resp,
                      struct bytes *out)
{
    unsigned shards = 0;
    for (unsigned i = 0; i < cl->n_nodes; i++) {
        shards += ranges_count(n, (uint8_t)i) > 0;
    }
    bytes_printf(out, "*%u\r\n", shards);
    for (unsigned i = 0; i < cl->n_nodes; i++) {
        const struct node *primary = cl->nodes[i];
        unsigned ranges = ranges_count(n, (uint8_t)i);
        unsigned members = 1;
        if (ranges == 0) {
            continue;
        }
        for (unsigned k = 0; k < cl->n_nodes; k++) {
            members += seems_replica(cl->nodes[k], primary);
        }
        model_map_add(out, resp, 2);
        text_add(out, "slots");
        bytes_printf(out, "*%u\r\n", ranges * 2);
        for (unsigned slot = 0; slot < CLUSTER_SLOTS;
             slot = range_end(n, slot) + 1) {
            if (n->owner[slot] == i) {
                number_add(out, slot);
                number_add(out, range_end(n, slot));
            }
        }
        text_add(out, "nodes");
        bytes_printf(out, "*%u\r\n", members);
        shard_node(cl, primary, true, resp, out);
        for (unsigned k = 0; k < cl->n_nodes; k++) {
            if (seems_replica(cl->nodes[k], primary)) {
                shard_node(cl, cl->nodes[k], false, resp, out);
            }
        }
    }
}

static void slots_node(const struct cluster_model *cl,
                       const struct node *of,
                       const struct node *n,
                       int resp,
                       struct bytes *out)
{
    bytes_printf(out, "*%d\r\n", of->old ? 3 : 4);
    host_add(cl, n, resp, out);
    number_add(out, n->address.port);
    text_add(out, n->id);
    if (!of->old) {
        bytes_add_text(out, "*0\r\n");
    }
}

static void on_slots(const struct cluster_model *cl,
                     const struct node *n,
                     int resp,
                     struct bytes *out)
{
    unsigned ranges = 0;
    for (unsigned slot = 0; slot < CLUSTER_SLOTS;
         slot = range_end(n, slot) + 1) {
        ranges += n->owner[slot] != NOBODY;
    }
    bytes_printf(out, "*%u\r\n", ranges);
    for (unsigned slot = 0; slot < CLUSTER_SLOTS;
         slot = range_end(n, slot) + 1) {
        if (n->owner[slot] == NOBODY) {
            continue;
        }
        const struct node *primary = cl->nodes[n->owner[slot]];
        unsigned members = 1;
        for (unsigned k = 0; k < cl->n_nodes; k++) {
            members += seems_replica(cl->nodes[k], primary);
        }
        bytes_printf(out, "*%u\r\n", 2 + members);
        number_add(out, slot);
        number_add(out, range_end(n, slot));
        slots_node(cl, n, primary, resp, out);
        for (unsigned k = 0; k < cl->n_nodes; k++) {
            if (seems_replica(cl->nodes[k], primary)) {
                slots_node(cl, n, cl->nodes[k], resp, out);
            }
        }
    }
}

/* A list of slots that nobody should believe. */
static void garbage(struct world *w, struct bytes *out)
{
    w->counts.hostile++;
    switch (pick(w, 0, 5)) {
    case 0: bytes_add_text(out, "*0\r\n"); break;
    case 1: bytes_add_text(out, "+OK\r\n"); break;
    case 2:
        bytes_add_text(out, "*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$8\r\n10.0.0.2"
                            "\r\n:65536\r\n");
        break;
    case 3:
        bytes_add_text(out, "*1\r\n*3\r\n:0\r\n:99999\r\n*2\r\n$8\r\n10.0.0.2"
                            "\r\n:7000\r\n");
        break;
    case 4:
        bytes_add_text(out, "*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$12\r\n"
                            "192.168.77.1\r\n:7000\r\n");
        break;
    default:
        bytes_add_text(out, "*1\r\n*2\r\n$5\r\nslots\r\n*1\r\n:0\r\n");
        break;
    }
}

static void on_cluster_info(const struct node *n,
                            uint64_t now_us,
                            const struct cluster_model *cl,
                            struct bytes *out)
{
    char text[400];
    unsigned assigned = 0;
    unsigned known = 0;
    unsigned size = 0;
    uint32_t epoch = n->config_epoch;
    for (unsigned slot = 0; slot < CLUSTER_SLOTS; slot++) {
        assigned += n->owner[slot] != NOBODY;
        epoch = n->epoch[slot] > epoch ? n->epoch[slot] : epoch;
    }
    for (unsigned i = 0; i < cl->n_nodes; i++) {
        known += cl->nodes[i]->member;
        size += ranges_count(n, (uint8_t)i) > 0;
    }
    snprintf(text, sizeof text,
             "cluster_enabled:1\r\ncluster_state:%s\r\n"
             "cluster_slots_assigned:%u\r\ncluster_slots_ok:%u\r\n"
             "cluster_slots_pfail:0\r\ncluster_slots_fail:0\r\n"
             "cluster_known_nodes:%u\r\ncluster_size:%u\r\n"
             "cluster_current_epoch:%" PRIu32 "\r\n"
             "cluster_my_epoch:%" PRIu32 "\r\n",
             n->down_until > now_us || assigned < CLUSTER_SLOTS ? "fail" : "ok",
             assigned, assigned, known, size, epoch, n->config_epoch);
    text_add(out, text);
}

static void on_cluster(struct world *w,
                       struct session *c,
                       const struct model_command *m,
                       struct bytes *out)
{
    struct node *n = node_of(c);
    int resp = c->ledger.resp;
    bool topology = model_arg_is(m, 1, "SLOTS") || model_arg_is(m, 1, "SHARDS");
    if (topology && n->hostile_until > w->now_us) {
        garbage(w, out);
    } else if (model_arg_is(m, 1, "SHARDS") && !n->old) {
        on_shards(w->cluster, n, resp, out);
    } else if (model_arg_is(m, 1, "SLOTS")) {
        on_slots(w->cluster, n, resp, out);
    } else if (model_arg_is(m, 1, "INFO")) {
        on_cluster_info(n, w->now_us, w->cluster, out);
    } else if (model_arg_is(m, 1, "MYID")) {
        text_add(out, n->id);
    } else {
        bytes_printf(out,
                     "-ERR Unknown subcommand or wrong number of arguments for "
                     "'%.*s'. Try CLUSTER HELP.\r\n",
                     m->argc > 1 ? (int)m->arg[1].len : 0,
                     m->argc > 1 ? (const char *)m->arg[1].data : "");
    }
}

/* --- roles ------------------------------------------------------------- */

static void on_role(const struct cluster_model *cl,
                    const struct node *n,
                    struct bytes *out)
{
    if (!n->replica) {
        bytes_add_text(out, "*3\r\n$6\r\nmaster\r\n");
        number_add(out, offset_of(cl, n));
        bytes_add_text(out, "*0\r\n");
        return;
    }
    const struct node *master = cl->nodes[n->master];
    bytes_add_text(out, "*5\r\n$5\r\nslave\r\n");
    text_add(out, master->address.host);
    number_add(out, master->address.port);
    text_add(out, n->cut_since > 0 ? "connect" : "connected");
    number_add(out, offset_of(cl, n));
}

static void on_info(struct world *w,
                    const struct cluster_model *cl,
                    const struct node *n,
                    struct bytes *out)
{
    char text[500];
    if (!n->replica) {
        snprintf(text, sizeof text,
                 "# Replication\r\nrole:master\r\nconnected_slaves:0\r\n"
                 "master_repl_offset:%" PRIu64 "\r\n",
                 offset_of(cl, n));
    } else {
        const struct node *master = cl->nodes[n->master];
        bool cut = n->cut_since > 0;
        uint64_t quiet_us = cut ? w->now_us - n->cut_since : 0;
        snprintf(text, sizeof text,
                 "# Replication\r\nrole:slave\r\nmaster_host:%s\r\n"
                 "master_port:%u\r\nmaster_link_status:%s\r\n"
                 "master_last_io_seconds_ago:%" PRId64 "\r\n"
                 "slave_repl_offset:%" PRIu64 "\r\n",
                 master->address.host, master->address.port,
                 cut ? "down" : "up",
                 cut ? INT64_C(-1) : (int64_t)(quiet_us / 1000000),
                 offset_of(cl, n));
    }
    text_add(out, text);
}

/* --- all keys ---------------------------------------------------------- */

static uint64_t scan_place(const struct node *n, const struct value *v)
{
    struct span key = data_key(v);
    return 1 +
           (hash_bytes(n->scan_seed, key.data, key.len) >> (64 - SCAN_BITS));
}

static void on_dbsize(struct node *n, struct bytes *out)
{
    uint64_t count = 0;
    for (struct value *v = data_next(n->server.data, NULL); v != NULL;
         v = data_next(n->server.data, v)) {
        count += data_has(v);
    }
    number_add(out, count);
}

static void on_keys(struct node *n, struct bytes *out)
{
    unsigned count = 0;
    struct bytes keys = { 0 };
    for (struct value *v = data_next(n->server.data, NULL); v != NULL;
         v = data_next(n->server.data, v)) {
        if (data_has(v)) {
            model_bulk_add(&keys, data_key(v));
            count++;
        }
    }
    bytes_printf(out, "*%u\r\n", count);
    bytes_add(out, bytes_front(&keys), keys.size);
    bytes_fini(&keys);
}

/* The key that comes first from a place on; NULL: none. */
static struct value *scan_next(struct node *n, uint64_t from)
{
    struct value *first = NULL;
    uint64_t best = UINT64_MAX;
    for (struct value *v = data_next(n->server.data, NULL); v != NULL;
         v = data_next(n->server.data, v)) {
        uint64_t place = scan_place(n, v);
        if (data_has(v) && place >= from && place < best) {
            first = v;
            best = place;
        }
    }
    return first;
}

static void on_scan(struct node *n,
                    const struct model_command *m,
                    struct bytes *out)
{
    int64_t cursor = model_arg_number(m, 1, -1);
    unsigned count = 0;
    struct bytes keys = { 0 };
    char next[24];
    if (cursor < 0) {
        bytes_add_text(out, "-ERR invalid cursor\r\n");
        return;
    }
    uint64_t place = (uint64_t)cursor;
    struct value *v = scan_next(n, place);
    while (v != NULL && count < SCAN_COUNT) {
        model_bulk_add(&keys, data_key(v));
        count++;
        place = scan_place(n, v) + 1;
        v = scan_next(n, place);
    }
    snprintf(next, sizeof next, "%" PRIu64, v == NULL ? 0 : place);
    bytes_add_text(out, "*2\r\n");
    text_add(out, next);
    bytes_printf(out, "*%u\r\n", count);
    bytes_add(out, bytes_front(&keys), keys.size);
    bytes_fini(&keys);
}

/* Those that LOADING refuses. */
static bool reads_everything(struct node *n,
                             const struct model_command *m,
                             struct bytes *out)
{
    if (model_arg_is(m, 0, "DBSIZE")) {
        on_dbsize(n, out);
    } else if (model_arg_is(m, 0, "KEYS")) {
        on_keys(n, out);
    } else if (model_arg_is(m, 0, "SCAN")) {
        on_scan(n, m, out);
    } else {
        return false;
    }
    return true;
}

bool cluster_command(struct world *w,
                     struct session *c,
                     const struct model_command *m,
                     struct bytes *out)
{
    struct node *n = node_of(c);
    if (model_arg_is(m, 0, "CLUSTER")) {
        on_cluster(w, c, m, out);
    } else if (model_arg_is(m, 0, "ROLE")) {
        on_role(w->cluster, n, out);
    } else if (model_arg_is(m, 0, "INFO")) {
        on_info(w, w->cluster, n, out);
    } else if (model_arg_is(m, 0, "ASKING") || model_arg_is(m, 0, "READONLY") ||
               model_arg_is(m, 0, "READWRITE")) {
        /* serve() takes ASKING back behind the next command. */
        c->readonly = model_arg_is(m, 0, "ASKING")
                          ? c->readonly
                          : model_arg_is(m, 0, "READONLY");
        bytes_add_text(out, "+OK\r\n");
    } else if (n->server.loading_until > w->now_us) {
        return false;
    } else {
        return reads_everything(n, m, out);
    }
    return true;
}
