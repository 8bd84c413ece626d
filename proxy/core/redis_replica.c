/* Reads from replicas (redis.md §9 "read_from"): which requests may, and which
 * replica answers them. */
#include "proxy/core/state.h"

static bool only_reads(const struct command *c)
{
    bool keys = c != NULL &&
                (c->route == ROUTE_NODE || c->route == ROUTE_SPLIT_VALUES ||
                 c->route == ROUTE_SPLIT_COUNT);
    return keys && c->class == CLASS_R &&
           !(c->flags & (COMMAND_PRIVATE | COMMAND_BLOCKING | COMMAND_WRITES));
}

bool redis_choose_side(struct downstream *d, struct request *r)
{
    /* A write that is not answered yet must be seen by the reads behind it, and
     * must not be seen by those before it. */
    bool replica = only_reads(r->command) && !r->avoid_replica &&
                   d->block == BLOCK_NONE && !d->watching &&
                   d->n_open == d->n_replica_open;
    if (!replica && d->n_replica_open > 0) {
        return false;
    }
    r->from_replica = replica;
    return true;
}

bool redis_replica_is_fit(const struct endpoint *p)
{
    uint64_t limit_us = p->cluster->config->replica_max_lag_us;
    bool behind =
        limit_us != 0 && p->lag_known && (p->lag_us > limit_us || !p->link_up);
    return p->down_since_us == 0 && p->online && !behind;
}

/* How good p is as a place to read; 0: not at all. */
static unsigned rank(const struct endpoint *p)
{
    return !redis_replica_is_fit(p) ? 0 : p->near ? 2 : 1;
}

/* Whether p may answer reads of what primary owns. */
static bool is_candidate(const struct endpoint *p,
                         const struct endpoint *primary)
{
    if (p == primary) {
        return p->cluster->config->read_from == READ_ANY;
    }
    return p->role == NODE_REPLICA && p->known && !p->sentinel &&
           p->shard == primary->shard;
}

struct endpoint *redis_reader(const struct downstream *d,
                              struct endpoint *primary)
{
    struct cluster *c = primary->cluster;
    struct endpoint *last = NULL; /* one that is not fit */
    unsigned best = 0;
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->n_endpoints; i++) {
        struct endpoint *p = c->endpoints[i];
        if (p != NULL && is_candidate(p, primary)) {
            unsigned r = rank(p);
            n = r > best ? 1 : n + (r == best);
            best = r > best ? r : best;
            last = p;
        }
    }
    if (best == 0) {
        c->stats.reads_without_replica++;
        if (c->config->read_from != READ_REPLICA) {
            return primary;
        }
        bool gone = last != NULL && last->down_since_us != 0;
        return gone ? last : c->endpoints[0]; /* wait for one that is fit */
    }
    /* One client stays with one of them as long as it is fit: its reads do not
     * jump back in time. */
    uint32_t pick = conn_index(d->conn.id) % n;
    for (uint32_t i = 0; i < c->n_endpoints; i++) {
        struct endpoint *p = c->endpoints[i];
        if (p != NULL && is_candidate(p, primary) && rank(p) == best &&
            pick-- == 0) {
            c->stats.reads_from_replicas += p != primary;
            return p;
        }
    }
    return primary;
}

bool endpoint_zone_is_near(const struct cluster *c,
                           const struct address *address,
                           const char *told)
{
    const struct upstream_config *config = c->config;
    if (config->zone == NULL) {
        return false;
    }
    if (told != NULL && told[0] != '\0') {
        return strcmp(told, config->zone) == 0;
    }
    for (size_t i = 0; i < config->n_node_zones; i++) {
        const struct node_zone *z = &config->node_zones[i];
        if (strcmp(z->node.host, address->host) == 0 &&
            (z->node.port == 0 || z->node.port == address->port)) {
            return strcmp(z->zone, config->zone) == 0;
        }
    }
    return false;
}
