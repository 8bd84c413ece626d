/* What clients that know clusters are told when they ask for the topology
 * (redis.md §9): one node that owns all slots, redial itself; or, with
 * cluster_view = real, the cluster's nodes, all at redial's address. */
#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>

#include "config/ip.h"
#include "parser/keyslot.h"
#include "proxy/core/slot_ranges.h"
#include "proxy/core/state.h"

enum {
    PIECE_MAX = 512, /* of one call of put() */
    BUS_PORT_OFFSET = 10000,
    ASKED_MAX = 80 /* of a node's id, in an error */
};

/* One node as clients are shown it. */
struct shown {
    char id[NODE_ID_MAX + 1];
    const char *primary; /* id of its primary; NULL: it is one */
    bool myself;
};

/* A question, and the reply while it is being made. */
struct view_reply {
    struct engine *e;
    struct downstream *d;
    struct cluster *c;
    const struct request_args *args;
    char host[ADDRESS_HOST_MAX + 1]; /* where clients shall connect to */
    uint16_t port;
    bool resp3;
    struct slot_range *ranges; /* owned: real only, n_ranges */
    uint32_t n_ranges;
    uint16_t *heads; /* owned: real only */
    char *data;      /* owned: the reply */
    size_t len, cap;
    bool failed; /* no memory */
};

/* ---- writing -------------------------------------------------------------- */

static bool grow(struct view_reply *v, size_t more)
{
    if (v->failed || v->len + more <= v->cap) {
        return !v->failed;
    }
    size_t cap = v->cap == 0 ? 1024 : v->cap * 2;
    while (cap < v->len + more) {
        cap *= 2;
    }
    char *data = memory_take(v->e->memory, cap);
    if (data == NULL) {
        v->failed = true;
        return false;
    }
    if (v->len > 0) {
        memcpy(data, v->data, v->len);
    }
    memory_give(v->e->memory, v->data);
    v->data = data;
    v->cap = cap;
    return true;
}

static void put(struct view_reply *v, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static void put(struct view_reply *v, const char *format, ...)
{
    if (!grow(v, PIECE_MAX)) {
        return;
    }
    va_list args;
    va_start(args, format);
    int n = vsnprintf(v->data + v->len, PIECE_MAX, format, args);
    va_end(args);
    assert(n >= 0 && n < PIECE_MAX);
    v->len += (size_t)n;
}

static void put_array(struct view_reply *v, uint32_t n)
{
    put(v, "*%" PRIu32 "\r\n", n);
}

static void put_map(struct view_reply *v, uint32_t n)
{
    if (v->resp3) {
        put(v, "%%%" PRIu32 "\r\n", n);
    } else {
        put_array(v, n * 2);
    }
}

static void put_number(struct view_reply *v, uint32_t n)
{
    put(v, ":%" PRIu32 "\r\n", n);
}

static void put_bulk(struct view_reply *v, const char *text)
{
    put(v, "$%zu\r\n%s\r\n", strlen(text), text);
}

/* What was written since start becomes one long string. */
static void put_around(struct view_reply *v, size_t start, bool verbatim)
{
    char head[32];
    size_t size = v->len - start;
    int n = verbatim && v->resp3
                ? snprintf(head, sizeof(head), "=%zu\r\ntxt:", size + 4)
                : snprintf(head, sizeof(head), "$%zu\r\n", size);
    if (!grow(v, sizeof(head) + 2)) {
        return;
    }
    memmove(v->data + start + n, v->data + start, size);
    memcpy(v->data + start, head, (size_t)n);
    v->len += (size_t)n;
    put(v, "\r\n");
}

/* ---- who is shown ----------------------------------------------------------- */

/* An id that is the same in all workers and after a restart. */
static void make_id(const struct view_reply *v, const char *what, char *id)
{
    char text[PIECE_MAX * 2];
    int n = snprintf(text, sizeof(text), "%s %s %s %u", what,
                     v->c->config->name, v->host, v->port);
    uint64_t hash = UINT64_C(14695981039346656037); /* FNV-1a */
    for (int i = 0; i < n && text[i] != '\0'; i++) {
        hash = (hash ^ (uint8_t)text[i]) * UINT64_C(1099511628211);
    }
    struct rng rng;
    rng_init(&rng, hash);
    for (size_t i = 0; i < NODE_ID_MAX; i += 8) {
        snprintf(id + i, 9, "%08" PRIx32, (uint32_t)(rng_next(&rng) >> 32));
    }
}

static bool is_wildcard(const char *host)
{
    static const uint8_t v4[IP_BYTES] = { [10] = 0xff, 0xff };
    static const uint8_t v6[IP_BYTES] = { 0 };
    uint8_t ip[IP_BYTES];
    return ip_parse(host, strlen(host), ip) &&
           (memcmp(ip, v4, IP_BYTES) == 0 || memcmp(ip, v6, IP_BYTES) == 0);
}

/* The address at which this client finds redial: as configured, else as it has
 * come. An empty host means to clients: where you are connected to. */
static void find_self(struct view_reply *v)
{
    const struct listener_config *l = v->d->listener->config;
    if (l->announce.host[0] != '\0') {
        memcpy(v->host, l->announce.host, sizeof(v->host));
        v->port = l->announce.port;
    } else if (v->d->local_port != 0) {
        ip_format(v->d->local_ip, v->host);
        v->port = v->d->local_port;
    } else if (!l->address.is_unix && !is_wildcard(l->address.host)) {
        memcpy(v->host, l->address.host, sizeof(v->host));
        v->port = l->address.port;
    }
}

static struct shown self(const struct view_reply *v)
{
    struct shown s = { .myself = true };
    make_id(v, "node", s.id);
    return s;
}

static struct shown show(const struct view_reply *v, const struct endpoint *p)
{
    struct shown s = { .myself = p == redis_any_endpoint(v->d) };
    memcpy(s.id, p->id, sizeof(s.id));
    if (s.id[0] == '\0') { /* servers before 4.0 tell none with the slots */
        char what[ADDRESS_TEXT_MAX];
        address_format(&p->address, what);
        make_id(v, what, s.id);
    }
    return s;
}

/* Whether p is shown as a replica of that primary. */
static bool is_replica_of(const struct view_reply *v,
                          const struct endpoint *p,
                          const struct endpoint *primary)
{
    return v->c->config->read_from != READ_PRIMARY && p != NULL && p->known &&
           p->role == NODE_REPLICA && p->shard == primary->shard;
}

static uint32_t count_replicas(const struct view_reply *v,
                               const struct endpoint *primary)
{
    uint32_t n = 0;
    for (uint32_t i = 1; i < v->c->n_endpoints; i++) {
        n += is_replica_of(v, v->c->endpoints[i], primary);
    }
    return n;
}

static struct endpoint *primary_at(const struct view_reply *v, uint32_t i)
{
    return v->c->endpoints[v->c->topology->primaries[i]];
}

/* ---- CLUSTER SLOTS ------------------------------------------------------------ */

static void put_slots_node(struct view_reply *v, const struct shown *s)
{
    put_array(v, 4);
    if (v->host[0] != '\0') {
        put_bulk(v, v->host);
    } else {
        put(v, v->resp3 ? "_\r\n" : "$-1\r\n");
    }
    put_number(v, v->port);
    put_bulk(v, s->id);
    put(v, v->resp3 ? "%%0\r\n" : "*0\r\n"); /* metadata */
}

static void slots_single(struct view_reply *v)
{
    struct shown s = self(v);
    put(v, "*1\r\n*3\r\n:0\r\n:%d\r\n", KEYSLOT_COUNT - 1);
    put_slots_node(v, &s);
}

static void slots_range(struct view_reply *v, const struct slot_range *range)
{
    const struct endpoint *p = v->c->endpoints[range->owner];
    struct shown s = show(v, p);
    put_array(v, 3 + count_replicas(v, p));
    put_number(v, range->first);
    put_number(v, range->last);
    put_slots_node(v, &s);
    for (uint32_t i = 1; i < v->c->n_endpoints; i++) {
        const struct endpoint *replica = v->c->endpoints[i];
        if (is_replica_of(v, replica, p)) {
            struct shown other = show(v, replica);
            put_slots_node(v, &other);
        }
    }
}

static void slots_real(struct view_reply *v)
{
    uint32_t served = 0;
    for (uint32_t i = 0; i < v->n_ranges; i++) {
        served += v->ranges[i].owner != 0;
    }
    put_array(v, served);
    for (uint32_t i = 0; i < v->n_ranges; i++) {
        if (v->ranges[i].owner != 0) { /* 0 is the limbo */
            slots_range(v, &v->ranges[i]);
        }
    }
}

/* ---- CLUSTER SHARDS ----------------------------------------------------------- */

static void put_shards_node(struct view_reply *v, const struct shown *s)
{
    put_map(v, 7);
    put_bulk(v, "id");
    put_bulk(v, s->id);
    put_bulk(v, "port");
    put_number(v, v->port);
    put_bulk(v, "ip");
    put_bulk(v, v->host);
    put_bulk(v, "endpoint");
    put_bulk(v, v->host);
    put_bulk(v, "role");
    put_bulk(v, s->primary == NULL ? "master" : "replica");
    put_bulk(v, "replication-offset");
    put_number(v, 0);
    put_bulk(v, "health"); /* what is not waits here, not at the client */
    put_bulk(v, "online");
}

static void shards_single(struct view_reply *v)
{
    struct shown s = self(v);
    put_array(v, 1);
    put_map(v, 2);
    put_bulk(v, "slots");
    put(v, "*2\r\n:0\r\n:%d\r\n", KEYSLOT_COUNT - 1);
    put_bulk(v, "nodes");
    put_array(v, 1);
    put_shards_node(v, &s);
}

static void shards_shard(struct view_reply *v, const struct endpoint *p)
{
    struct shown s = show(v, p);
    uint32_t n = 0;
    for (uint32_t k = v->heads[p->index]; k != 0; k = v->ranges[k - 1].next) {
        n++;
    }
    put_map(v, 2);
    put_bulk(v, "slots");
    put_array(v, n * 2);
    for (uint32_t k = v->heads[p->index]; k != 0; k = v->ranges[k - 1].next) {
        put_number(v, v->ranges[k - 1].first);
        put_number(v, v->ranges[k - 1].last);
    }
    put_bulk(v, "nodes");
    put_array(v, 1 + count_replicas(v, p));
    put_shards_node(v, &s);
    for (uint32_t i = 1; i < v->c->n_endpoints; i++) {
        const struct endpoint *replica = v->c->endpoints[i];
        if (is_replica_of(v, replica, p)) {
            struct shown other = show(v, replica);
            other.primary = s.id;
            put_shards_node(v, &other);
        }
    }
}

static void shards_real(struct view_reply *v)
{
    uint32_t n = v->c->topology->n_primaries;
    put_array(v, n);
    for (uint32_t i = 0; i < n; i++) {
        shards_shard(v, primary_at(v, i));
    }
}

/* ---- CLUSTER NODES, REPLICAS ---------------------------------------------------- */

/* "id host:port@bus flags primary 0 0 epoch connected", without slots. */
static void put_line(struct view_reply *v, const struct shown *s)
{
    unsigned bus = v->port + BUS_PORT_OFFSET;
    put(v, "%s %s:%u@%u %s%s %s 0 0 %" PRIu64 " connected", s->id, v->host,
        v->port, v->port == 0 || bus > UINT16_MAX ? 0 : bus,
        s->myself ? "myself," : "", s->primary == NULL ? "master" : "slave",
        s->primary == NULL ? "-" : s->primary, v->c->topology->epoch);
}

static void nodes_single(struct view_reply *v)
{
    struct shown s = self(v);
    size_t start = v->len;
    put_line(v, &s);
    put(v, " 0-%d\n", KEYSLOT_COUNT - 1);
    put_around(v, start, true);
}

static void nodes_shard(struct view_reply *v, const struct endpoint *p)
{
    struct shown s = show(v, p);
    put_line(v, &s);
    for (uint32_t k = v->heads[p->index]; k != 0; k = v->ranges[k - 1].next) {
        const struct slot_range *range = &v->ranges[k - 1];
        put(v, range->first == range->last ? " %u" : " %u-%u", range->first,
            range->last);
    }
    put(v, "\n");
    for (uint32_t i = 1; i < v->c->n_endpoints; i++) {
        const struct endpoint *replica = v->c->endpoints[i];
        if (is_replica_of(v, replica, p)) {
            struct shown other = show(v, replica);
            other.primary = s.id;
            put_line(v, &other);
            put(v, "\n");
        }
    }
}

static void nodes_real(struct view_reply *v)
{
    size_t start = v->len;
    for (uint32_t i = 0; i < v->c->topology->n_primaries; i++) {
        nodes_shard(v, primary_at(v, i));
    }
    put_around(v, start, true);
}

static bool is_id(struct span asked, const struct shown *s)
{
    return span_equal(asked, span_of(s->id));
}

static void unknown_node(struct view_reply *v, struct span asked)
{
    put(v, "-ERR Unknown node ");
    for (size_t i = 0; i < asked.len && i < ASKED_MAX; i++) {
        uint8_t c = asked.data[i];
        put(v, "%c", c > ' ' && c < 0x7f ? c : '?');
    }
    put(v, "\r\n");
}

static void replicas_single(struct view_reply *v)
{
    struct shown s = self(v);
    if (is_id(v->args->list[2], &s)) {
        put_array(v, 0);
    } else {
        unknown_node(v, v->args->list[2]);
    }
}

static void replicas_of(struct view_reply *v, const struct endpoint *primary)
{
    struct shown s = show(v, primary);
    put_array(v, count_replicas(v, primary));
    for (uint32_t i = 1; i < v->c->n_endpoints; i++) {
        const struct endpoint *p = v->c->endpoints[i];
        if (is_replica_of(v, p, primary)) {
            struct shown other = show(v, p);
            other.primary = s.id;
            size_t start = v->len;
            put_line(v, &other);
            put_around(v, start, false);
        }
    }
}

static void replicas_real(struct view_reply *v)
{
    struct span asked = v->args->list[2];
    for (uint32_t i = 1; i < v->c->n_endpoints; i++) {
        const struct endpoint *p = v->c->endpoints[i];
        if (p == NULL || p->role == NODE_UNKNOWN) {
            continue;
        }
        struct shown s = show(v, p);
        if (is_id(asked, &s) && p->role == NODE_PRIMARY) {
            replicas_of(v, p);
            return;
        }
        if (is_id(asked, &s)) {
            put(v, "-ERR The specified node is not a master\r\n");
            return;
        }
    }
    unknown_node(v, asked);
}

/* ---- the small ones -------------------------------------------------------------- */

static void info_single(struct view_reply *v)
{
    /* Some slots without a node are the cluster's trouble: what needs them
     * waits here. */
    bool served = v->c->endpoints[0]->n_slots < KEYSLOT_COUNT &&
                  v->c->topology->n_primaries > 0;
    int slots = served ? KEYSLOT_COUNT : 0;
    size_t start = v->len;
    put(v,
        "cluster_state:%s\r\ncluster_slots_assigned:%d\r\n"
        "cluster_slots_ok:%d\r\ncluster_slots_pfail:0\r\n"
        "cluster_slots_fail:0\r\ncluster_known_nodes:1\r\n"
        "cluster_size:%d\r\n",
        served ? "ok" : "fail", slots, slots, served ? 1 : 0);
    put(v,
        "cluster_current_epoch:%" PRIu64 "\r\ncluster_my_epoch:%" PRIu64 "\r\n"
        "cluster_stats_messages_sent:0\r\n"
        "cluster_stats_messages_received:0\r\n",
        v->c->topology->epoch, v->c->topology->epoch);
    put_around(v, start, true);
}

static void my_id(struct view_reply *v)
{
    struct shown s = self(v);
    put_bulk(v, s.id);
}

static void my_shard_id(struct view_reply *v)
{
    char id[NODE_ID_MAX + 1];
    make_id(v, "shard", id);
    put_bulk(v, id);
}

static void no_links(struct view_reply *v)
{
    put_array(v, 0);
}

static void slot_of_key(struct view_reply *v)
{
    put_number(v, keyslot(v->args->list[2]));
}

/* ---- the table --------------------------------------------------------------- */

static const struct answer {
    const char *name;
    size_t argc;
    void (*single)(struct view_reply *v);
    void (*real)(
        struct view_reply *v); /* NULL: a node's own answer is passed on */
} answers[] = {
    { "CLUSTER INFO", 2, info_single, NULL },
    { "CLUSTER KEYSLOT", 3, slot_of_key, slot_of_key },
    { "CLUSTER LINKS", 2, no_links, NULL },
    { "CLUSTER MYID", 2, my_id, NULL },
    { "CLUSTER MYSHARDID", 2, my_shard_id, NULL },
    { "CLUSTER NODES", 2, nodes_single, nodes_real },
    { "CLUSTER REPLICAS", 3, replicas_single, replicas_real },
    { "CLUSTER SHARDS", 2, shards_single, shards_real },
    { "CLUSTER SLAVES", 3, replicas_single, replicas_real },
    { "CLUSTER SLOTS", 2, slots_single, slots_real },
};

static const struct answer *answer_to(const struct command *command)
{
    for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        if (strcmp(answers[i].name, command->name) == 0) {
            return &answers[i];
        }
    }
    return NULL;
}

/* "-ERR wrong number of arguments for 'cluster|slots' command" */
static void put_wrong_number(struct view_reply *v, const char *name)
{
    put(v, "-ERR wrong number of arguments for '");
    for (; *name != '\0'; name++) {
        bool upper = *name >= 'A' && *name <= 'Z';
        put(v, "%c", *name == ' ' ? '|' : upper ? *name - 'A' + 'a' : *name);
    }
    put(v, "' command\r\n");
}

static void put_real(struct view_reply *v, const struct answer *a)
{
    struct cluster *c = v->c;
    if (c->topology->n_primaries == 0 && a->real != slot_of_key) {
        put(v, "-CLUSTERDOWN redial does not know the topology yet\r\n");
        return;
    }
    v->n_ranges = slot_ranges_count(c);
    v->ranges = memory_take(v->e->memory, v->n_ranges * sizeof(*v->ranges));
    v->heads = memory_take(v->e->memory, c->n_endpoints * sizeof(*v->heads));
    v->failed = v->ranges == NULL || v->heads == NULL;
    if (!v->failed) {
        slot_ranges_list(c, v->ranges, v->n_ranges, v->heads);
        a->real(v);
    }
    memory_give(v->e->memory, v->ranges);
    memory_give(v->e->memory, v->heads);
}

static void send_reply(struct view_reply *v, struct request *r)
{
    if (v->failed) {
        v->e->stats.limit_memory++;
        redis_refuse(v->e, v->d, r, "out of memory");
    } else {
        v->c->stats.local_replies++;
        downstream_answer_span(v->e, r,
                               (struct span){ (uint8_t *)v->data, v->len });
    }
    memory_give(v->e->memory, v->data);
}

bool redis_cluster_view(struct engine *e,
                        struct downstream *d,
                        struct request *r)
{
    struct cluster *c = d->listener->cluster;
    bool refused = r->command->route == ROUTE_REFUSED;
    bool asks = r->command->route == ROUTE_VIEW;
    if (c->slots == NULL || !(asks || refused) || redis_unauthenticated(d)) {
        return false;
    }
    const struct answer *a = answer_to(r->command);
    bool single = c->config->cluster_view == CLUSTER_VIEW_SINGLE;
    struct view_reply v = {
        .e = e, .d = d, .c = c, .resp3 = downstream_session(e, d)->resp == 3
    };
    if (refused) {
        put(&v,
            "-ERR %s is not passed on through redial: speak to the node "
            "itself\r\n",
            r->command->name);
        send_reply(&v, r);
        return true;
    }
    if (a == NULL || (!single && a->real == NULL)) {
        return false;
    }
    struct request_args args;
    request_args_init(e, &args, r);
    v.args = &args;
    find_self(&v);
    if (args.argc == 0) {
        v.failed = true;
    } else if (args.argc != a->argc) {
        put_wrong_number(&v, a->name);
    } else if (single) {
        a->single(&v);
    } else {
        put_real(&v, a);
    }
    request_args_fini(e, &args);
    send_reply(&v, r);
    return true;
}
