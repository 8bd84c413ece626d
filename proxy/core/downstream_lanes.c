/* The lanes of a client: those it joins, its own one, and those that are not
 * read on because of it. */
#include <assert.h>

#include "proxy/core/lane_pool.h"
#include "proxy/core/lane_set.h"
#include "proxy/core/redis_pubsub.h"
#include "proxy/core/state.h"

struct upstream *downstream_stalled(const struct downstream *d, uint32_t *at)
{
    if (*at == 0) {
        (*at)++;
        if (d->lane != NULL && d->lane->stalled_by == d) {
            return d->lane;
        }
    }
    uint32_t n = d->shared != NULL ? d->shared->n_lanes : 0;
    while (*at <= n) {
        struct upstream *u = d->shared->lanes[*at - 1];
        (*at)++;
        if (u != NULL && u->stalled_by == d) {
            return u;
        }
    }
    uint32_t k = n + 1;
    for (struct upstream *u = subscriber_lanes(d); u != NULL;
         u = u->next_listener, k++) {
        if (k >= *at && u->stalled_by == d) {
            *at = k + 1;
            return u;
        }
    }
    return NULL;
}

void downstream_stall(struct engine *e,
                      struct downstream *d,
                      struct upstream *u)
{
    assert(u->stalled_by == NULL && u->link != NULL);
    u->stalled_by = d;
    d->n_stalled++;
    d->stalled_us = e->now_us;
    conn_pause(e, &u->link->conn, true);
    downstream_mind_stall(e, d);
}

void downstream_resume(struct engine *e, struct upstream *u)
{
    if (u->stalled_by == NULL) {
        return;
    }
    u->stalled_by->n_stalled--;
    u->stalled_by = NULL;
    if (u->link != NULL) {
        conn_pause(e, &u->link->conn, false);
    }
}

void downstream_resume_all(struct engine *e, struct downstream *d)
{
    uint32_t at = 0;
    struct upstream *u;
    while (d->n_stalled > 0 && (u = downstream_stalled(d, &at)) != NULL) {
        downstream_resume(e, u);
    }
}

struct upstream *downstream_head_lane(const struct downstream *d)
{
    if (list_empty(&d->requests)) {
        return NULL;
    }
    const struct request *r =
        CONTAINER_OF(d->requests.next, struct request, arrival);
    bool sent = r->state == REQUEST_SENT || r->state == REQUEST_COMMITTED;
    return sent ? r->upstream : NULL;
}

static void leave_shared(struct engine *e, struct downstream *d)
{
    struct lane_set *set = d->shared;
    if (set == NULL) {
        return;
    }
    downstream_resume_all(e, d);
    d->shared = NULL;
    lane_set_leave(e, set);
}

void downstream_disown(struct engine *e, struct downstream *d)
{
    struct upstream *u = d->lane;
    if (u == NULL) {
        return;
    }
    u->dirty = u->dirty || u->in_multi || u->in_watch || redis_lane_is_held(d);
    u->spoilt = u->spoilt || d->session_unknown;
    d->lane = NULL;
    downstream_resume(e, u);
    if (upstream_is_idle(u)) {
        lane_pool_give(e, u);
    } else {
        upstream_free(e, u, "its client needs it no more");
    }
}

void downstream_unbind(struct engine *e, struct downstream *d)
{
    downstream_disown(e, d);
    leave_shared(e, d);
}

void downstream_join(struct engine *e,
                     struct downstream *d,
                     struct lane_set *set)
{
    if (d->shared == set) {
        return;
    }
    lane_set_join(set);
    leave_shared(e, d);
    d->shared = set;
}

void downstream_own(struct downstream *d, struct upstream *lane)
{
    assert(d->lane == NULL && lane->owner == d);
    d->lane = lane;
}
