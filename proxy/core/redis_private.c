/* When a client gets a connection of its own, and when it gives it back
 * (DESIGN.md §5): the first command that needs one moves it there, and it goes
 * back when what lived there has ended; both only with nothing in flight. */
#include "proxy/core/lane_pool.h"
#include "proxy/core/ledger.h"
#include "proxy/core/redis_blocking.h"
#include "proxy/core/state.h"
#include "proxy/core/subscriber.h"

static struct cluster *cluster_of(const struct downstream *d)
{
    return d->listener->cluster;
}

bool redis_lane_is_held(const struct downstream *d)
{
    return (d->block != BLOCK_NONE && !d->multi_owed) || d->watching ||
           d->session_unknown || d->alone || d->lane->raw ||
           (d->ledger != NULL && ledger_holds_lane(d->ledger));
}

/* Whether the client's lane is its own from its first command to its last. */
static bool keeps_lane(const struct cluster *c)
{
    return c->config->lanes == LANES_PRIVATE && c->slots == NULL;
}

void redis_private_done(struct engine *e, struct downstream *d)
{
    if (d->n_open > 0 || d->session_next != NULL || keeps_lane(cluster_of(d)) ||
        redis_lane_is_held(d)) {
        return;
    }
    downstream_disown(e, d);
}

/* How long r may wait for a lane: as long as for a server, and a command that
 * blocks as long as it would there. */
static uint64_t patience_until(const struct downstream *d,
                               const struct request *r)
{
    uint64_t deadline_us = cluster_of(d)->config->deadline_us;
    uint64_t from_us =
        r->arrived_us > d->served_us ? r->arrived_us : d->served_us;
    return r->blocking == NULL ? from_us + deadline_us
                               : blocking_deadline_us(r, from_us, deadline_us);
}

/* private_lanes_max is reached. */
static enum lane_answer wait_for_lane(struct engine *e,
                                      struct downstream *d,
                                      struct request *r)
{
    struct cluster *c = cluster_of(d);
    bool first = d->ledger == NULL || d->ledger->wait_until_us == 0;
    if (!c->config->retry || c->config->private_lanes_max == 0) {
        e->stats.limit_private_lanes_max++;
        engine_trace_limit(e, c, "private_lanes_max");
        redis_refuse(e, d, r, "private_lanes_max connections are in use");
        return LANE_REFUSED;
    }
    uint64_t until_us = first ? patience_until(d, r) : d->ledger->wait_until_us;
    if (e->now_us >= until_us) {
        if (!first) {
            lane_pool_leave(e, d);
            d->ledger->wait_until_us = 0;
        }
        request_give_up(e, r, c, OUTCOME_NOT_SENT, GIVE_UP_DEADLINE,
                        "private_lanes_max connections are in use");
        return LANE_REFUSED;
    }
    if (first) {
        e->stats.limit_private_lanes_max++;
        engine_trace_limit(e, c, "private_lanes_max");
    }
    if (!lane_pool_wait(e, d, until_us)) {
        redis_refuse(e, d, r, "out of memory");
        return LANE_REFUSED;
    }
    return LANE_LATER;
}

/* A lane for d alone to p; must: also beyond the limit. */
static enum lane_answer take_lane(struct engine *e,
                                  struct downstream *d,
                                  struct request *r,
                                  struct endpoint *p,
                                  bool must,
                                  struct upstream **lane)
{
    bool full = false;
    struct upstream *u = lane_pool_take(e, d, p, must, &full);
    if (full) {
        return wait_for_lane(e, d, r);
    }
    if (d->ledger != NULL && d->ledger->wait_until_us != 0) {
        lane_pool_leave(e, d);
        d->ledger->wait_until_us = 0;
        if (r->blocking != NULL) {
            d->served_us = e->now_us; /* that wait had its own limit */
        }
    }
    if (u == NULL) {
        e->stats.limit_memory++;
        redis_refuse(e, d, r, "out of memory");
        return LANE_REFUSED;
    }
    *lane = u;
    return LANE_READY;
}

/* The same as d's own one. */
static enum lane_answer open_private(struct engine *e,
                                     struct downstream *d,
                                     struct request *r,
                                     struct endpoint *p,
                                     bool must)
{
    struct upstream *u = NULL;
    enum lane_answer answer = take_lane(e, d, r, p, must, &u);
    if (answer == LANE_READY) {
        u->owner_takes_all = cluster_of(d)->slots == NULL;
        downstream_own(d, u);
        r->own_lane = true;
    }
    return answer;
}

enum lane_answer redis_want_listener(struct engine *e,
                                     struct downstream *d,
                                     struct request *r)
{
    struct endpoint *p = NULL;
    struct upstream *u = NULL;
    enum lane_answer answer = LANE_READY;
    r->from_replica = false;
    if (subscriber_find_lane(e, d, r, &p) == NULL) {
        answer = take_lane(e, d, r, p, false, &u);
    }
    if (u != NULL) {
        subscriber_add_lane(u, r);
    }
    r->by_subscriber = answer == LANE_READY;
    return answer;
}

static bool carries_requests(const struct upstream *u)
{
    LIST_FOR_EACH (node, &u->in_flight) {
        const struct request *r = CONTAINER_OF(node, struct request, place);
        if (r->downstream != NULL) {
            return true;
        }
    }
    return !list_empty(&u->waiting);
}

bool redis_follow(struct engine *e, struct downstream *d, struct request *r)
{
    const struct cluster *c = cluster_of(d);
    bool stays = c->slots == NULL || r->in_block;
    if (!r->own_lane || (d->lane != NULL && stays)) {
        return true;
    }
    if (r->first_watch) {
        d->watching = false; /* it was refused: nothing is watched */
    }
    struct endpoint *p = redis_endpoint(e, d, r);
    bool moved = true;
    if (d->lane == NULL || (d->lane->endpoint != p && !redis_lane_is_held(d) &&
                            !carries_requests(d->lane))) {
        downstream_disown(e, d);
        moved = open_private(e, d, r, p, true) == LANE_READY;
    }
    d->watching = d->watching || (moved && r->first_watch);
    return moved;
}

enum lane_answer redis_want_private(struct engine *e,
                                    struct downstream *d,
                                    struct request *r)
{
    struct cluster *c = cluster_of(d);
    r->from_replica = r->from_replica && c->slots != NULL;
    struct endpoint *p = redis_endpoint(e, d, r);
    if (c->slots != NULL && d->n_open > 0 && d->lane != NULL &&
        !redis_lane_is_held(d)) {
        return LANE_LATER; /* what is tried again would come behind it there */
    }
    if (d->lane != NULL && (c->slots == NULL || d->lane->endpoint == p ||
                            r->slot == SLOT_NONE || redis_lane_is_held(d))) {
        r->own_lane = true;
        return LANE_READY;
    }
    if (d->n_open > 0) {
        return LANE_LATER;
    }
    downstream_disown(e, d); /* to have one at the right node */
    return open_private(e, d, r, p, false);
}
