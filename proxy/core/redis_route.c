/* Which lane a request takes (DESIGN.md §5, redis.md §9). */
#include <assert.h>

#include "parser/keyslot.h"
#include "parser/number.h"
#include "proxy/core/lane_set.h"
#include "proxy/core/redis_pubsub.h"
#include "proxy/core/state.h"

static struct cluster *cluster_of(const struct downstream *d)
{
    return d->listener->cluster;
}

/* ---- slots and nodes ------------------------------------------------------ */

void redis_find_slot(struct engine *e, struct request *r)
{
    if (r->slot != SLOT_NOT_LOOKED_FOR) {
        return;
    }
    r->slot = SLOT_NONE;
    if (r->command == NULL) {
        return;
    }
    struct request_args args;
    request_args_init(e, &args, r);
    size_t argc = args.argc < REQUEST_ARGS_MAX ? args.argc : REQUEST_ARGS_MAX;
    uint32_t key =
        argc == 0 ? 0 : command_first_key(r->command, args.list, argc);
    if (r->command->route == ROUTE_CHANNEL && argc > 1) {
        key = 1;
    }
    int64_t number = 0;
    if (key > 0 && key < argc) {
        r->slot = slot_plus(keyslot(args.list[key]));
    } else if (r->command->route == ROUTE_SLOT && argc > 2 &&
               number_parse(args.list[2], &number) && number >= 0 &&
               number < KEYSLOT_COUNT) {
        r->slot = slot_plus((uint16_t)number);
    }
    request_args_fini(e, &args);
}

/* Some primary, for what any of them can answer: for one client always the
 * same while it can be reached. */
static struct endpoint *any_primary(const struct cluster *c,
                                    const struct downstream *d)
{
    const struct topology *t = c->topology;
    struct endpoint *first = c->endpoints[0];
    for (uint32_t i = 0; i < t->n_primaries; i++) {
        uint32_t at = (conn_index(d->conn.id) + i) % t->n_primaries;
        struct endpoint *p = c->endpoints[t->primaries[at]];
        if (p->down_since_us == 0) {
            return p;
        }
        first = i == 0 ? p : first;
    }
    return first;
}

struct endpoint *redis_any_endpoint(const struct downstream *d)
{
    const struct cluster *c = cluster_of(d);
    return c->slots == NULL ? c->primary : any_primary(c, d);
}

/* Nobody knows who serves what. Servers that want a password tell nobody, and
 * a client that has one must be able to say it; one that has not must hear of
 * it. */
static struct endpoint *without_topology(const struct cluster *c,
                                         const struct downstream *d,
                                         bool keyless)
{
    bool ask = c->topology->n_primaries == 0 && !c->topology->sentinel &&
               (keyless || redis_unauthenticated(d));
    for (uint32_t i = 1; ask && i < c->n_endpoints; i++) {
        struct endpoint *p = c->endpoints[i];
        if (p != NULL && p->seed && p->lanes_up > 0) {
            return p;
        }
    }
    return c->endpoints[0];
}

/* The side of a shard that answers r. */
static struct endpoint *side(const struct downstream *d,
                             const struct request *r,
                             struct endpoint *primary)
{
    bool replica = r->from_replica && !r->avoid_replica && !primary->limbo;
    return replica ? redis_reader(d, primary) : primary;
}

/* Where its last write went, as long as that node serves anything; else that of
 * its last key. */
static struct endpoint *last_written(const struct cluster *c,
                                     const struct downstream *d)
{
    struct endpoint *p =
        d->wrote_us != 0 ? c->endpoints[d->wrote_server] : NULL;
    if (p != NULL && p->n_slots > 0 && !p->limbo) {
        return p;
    }
    return d->last_slot != SLOT_NOT_LOOKED_FOR
               ? c->endpoints[c->slots[d->last_slot - 1]]
               : NULL;
}

struct endpoint *redis_endpoint(struct engine *e,
                                struct downstream *d,
                                struct request *r)
{
    const struct cluster *c = cluster_of(d);
    if (c->slots == NULL) {
        return side(d, r, c->primary);
    }
    if (r->node != 0 && c->endpoints[r->node] != NULL) {
        return c->endpoints[r->node];
    }
    if (r->slot == SLOT_NOT_LOOKED_FOR) {
        redis_find_slot(e, r);
    }
    if (c->topology->n_primaries == 0) {
        if (redis_wants_all_nodes(r) && !r->fragment) {
            return c->endpoints[0]; /* it waits until they are known */
        }
        return without_topology(c, d, r->slot == SLOT_NONE);
    }
    if (r->slot != SLOT_NONE) {
        return side(d, r, c->endpoints[c->slots[r->slot - 1]]);
    }
    if (r->command != NULL && r->command->route == ROUTE_LAST) {
        struct endpoint *p = last_written(c, d);
        if (p != NULL) {
            return p;
        }
    }
    return any_primary(c, d);
}

/* ---- lanes ---------------------------------------------------------------- */

bool redis_bind_shared(struct engine *e, struct downstream *d)
{
    struct cluster *c = cluster_of(d);
    if (c->topology == NULL && (c->base == NULL || c->base->n_open == 0)) {
        cluster_open_lane(e,
                          c->primary); /* there was no memory for it before */
    }
    struct lane_set *set = lane_set_get(e, c, downstream_session(e, d), d);
    if (set == NULL) {
        e->stats.limit_memory++;
        return false;
    }
    downstream_join(e, d, set);
    return true;
}

struct upstream *redis_lane(struct engine *e,
                            struct downstream *d,
                            struct request *r)
{
    if (r->aside) {
        struct lane_set *set =
            lane_set_aside(e, cluster_of(d), downstream_session(e, d));
        return set == NULL ? NULL
                           : lane_set_lane(e, set, redis_endpoint(e, d, r));
    }
    if (d->lane != NULL && (r->own_lane || d->lane->owner_takes_all)) {
        return d->lane;
    }
    if (r->by_subscriber) {
        return subscriber_lane(e, d, r);
    }
    struct endpoint *p = redis_endpoint(e, d, r);
    bool whole = p->limbo && redis_wants_all_nodes(r) && !r->fragment;
    if (d->lane != NULL && d->lane->endpoint == p && !whole) {
        return d->lane; /* in order with what it says there */
    }
    if (d->shared == NULL && !redis_bind_shared(e, d)) {
        return NULL;
    }
    return lane_set_lane(e, d->shared, p);
}

/* The common case: a lane that is there, to the primary or to the node of the
 * slot. NULL: look closer. */
static struct upstream *quick_lane(const struct downstream *d,
                                   const struct request *r)
{
    const struct cluster *c = cluster_of(d);
    const struct lane_set *set = d->shared;
    if (r->aside) {
        return NULL;
    }
    if (d->lane != NULL || set == NULL || r->from_replica || r->by_subscriber) {
        return d->lane != NULL && d->lane->owner_takes_all ? d->lane : NULL;
    }
    uint32_t index = 0;
    if (c->slots == NULL) {
        index = c->primary->index;
    } else if (r->node == 0 && r->slot != SLOT_NOT_LOOKED_FOR &&
               r->slot != SLOT_NONE) {
        index = c->slots[r->slot - 1];
    } else {
        return NULL;
    }
    return index < set->n_lanes ? set->lanes[index] : NULL;
}

void redis_send(struct engine *e, struct downstream *d, struct request *r)
{
    struct upstream *u = quick_lane(d, r);
    if (u == NULL) {
        u = redis_lane(e, d, r);
    }
    if (u == NULL) {
        e->stats.limit_memory++;
        request_give_up(e, r, cluster_of(d), OUTCOME_NOT_SENT, GIVE_UP_POLICY,
                        "out of memory");
        return;
    }
    if (r->slot != SLOT_NONE) {
        d->last_slot = r->slot;
    }
    upstream_submit(e, u, r);
}

bool redis_unauthenticated(const struct downstream *d)
{
    if (d->lane != NULL) {
        return d->lane->unauthenticated;
    }
    const struct lane_set *set = d->shared;
    for (uint32_t i = 0; set != NULL && i < set->n_lanes; i++) {
        if (set->lanes[i] != NULL && set->lanes[i]->unauthenticated) {
            return true;
        }
    }
    return false;
}
