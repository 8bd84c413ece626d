/* What a client's clock is about: requests that wait, retries, replies that are
 * not taken, and silence. */
#include <assert.h>

#include "proxy/core/lane_pool.h"
#include "proxy/core/ledger.h"
#include "proxy/core/redis_pubsub.h"
#include "proxy/core/state.h"

static uint64_t earliest(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

void downstream_written(struct engine *e, struct downstream *d, uint64_t count)
{
    assert(count <= d->unwritten);
    d->unwritten -= count;
    d->progress_us = e->now_us;
    if (d->n_stalled > 0) {
        /* Over several servers what is held waits for one of them. */
        bool several = d->listener->cluster->slots != NULL;
        uint64_t owed = d->unwritten + (several ? 0 : d->held);
        if (owed < d->listener->config->client_buffer_max / 2) {
            downstream_resume_all(e, d);
        }
    }
    if (d->closing || d->conn.paused) {
        downstream_later(e, d);
    }
}

/* End what has waited too long; returns when the next one is due. */
static uint64_t check_held(struct engine *e, struct downstream *d)
{
    struct cluster *c = d->listener->cluster;
    uint64_t next_us = UINT64_MAX;
    for (struct list_node *node = d->requests.next; node != &d->requests;) {
        struct request *r = CONTAINER_OF(node, struct request, arrival);
        node = node->next;
        bool refused = c->topology != NULL && (r->state == REQUEST_SETTLING ||
                                               r->state == REQUEST_BACKOFF);
        if (r->state != REQUEST_READY && !refused) {
            continue;
        }
        if (e->now_us < r->deadline_us) {
            next_us = earliest(next_us, r->deadline_us);
            continue;
        }
        const char *why = r->attempts > 0 ? "refused by the server"
                                          : "waited for what came before it";
        if (!refused) {
            why = r->upstream->endpoint->last_error;
            upstream_unhold(e, r->upstream, r);
        }
        request_give_up(e, r, c,
                        refused && r->attempts > 0 ? OUTCOME_NOT_APPLIED
                                                   : OUTCOME_NOT_SENT,
                        GIVE_UP_DEADLINE, why);
        if (downstream_gone(d)) {
            return UINT64_MAX;
        }
        node = d->requests.next; /* the answer may have changed much */
        next_us = UINT64_MAX;
    }
    return next_us;
}

enum {
    SHARED_STALL_US = 1000 * 1000,
    SHARED_LOOK_US = 50 * 1000, /* whether others wait by now */
};

bool downstream_holds_up_others(const struct downstream *d,
                                const struct upstream *u)
{
    if (u == NULL || u->owner != NULL) {
        return false;
    }
    LIST_FOR_EACH (node, &u->in_flight) {
        const struct request *r = CONTAINER_OF(node, struct request, place);
        if (r->downstream != NULL && r->downstream != d) {
            return true;
        }
    }
    return false;
}

/* Whether others wait behind its replies on shared lanes, and whether one of
 * these is a reply that is being streamed. */
static bool holds_up_others(const struct downstream *d, bool *streaming)
{
    uint32_t at = 0;
    bool any = false;
    const struct upstream *u;
    while ((u = downstream_stalled(d, &at)) != NULL) {
        bool others = downstream_holds_up_others(d, u);
        any = any || others;
        *streaming = *streaming || (others && u->streaming);
    }
    return any;
}

/* A client whose replies keep a shared lane from being read: while nobody else
 * waits it has stall_timeout; while others do, more is held for it, and beyond
 * that it has a second. Returns when to look again. */
static uint64_t check_shared_stall(struct engine *e, struct downstream *d)
{
    const struct listener_config *config = d->listener->config;
    bool streaming = false;
    if (!holds_up_others(d, &streaming)) {
        d->stalled_us = e->now_us;
        return e->now_us + SHARED_LOOK_US;
    }
    if (!streaming && d->unwritten + d->held < config->client_overflow_max) {
        downstream_resume_all(e, d);
        return UINT64_MAX;
    }
    uint64_t due_us = d->stalled_us + SHARED_STALL_US;
    if (e->now_us < due_us) {
        return due_us;
    }
    e->stats.clients_stalled++;
    downstream_close(e, d,
                     "it takes its replies too slowly, or waits for another "
                     "server, and others wait behind them on a shared lane "
                     "(client_overflow_max)");
    return UINT64_MAX;
}

static bool stalls_shared_lane(const struct downstream *d)
{
    uint32_t at = 0;
    const struct upstream *u;
    while (d->n_stalled > 0 && (u = downstream_stalled(d, &at)) != NULL) {
        if (u->owner == NULL) {
            return true;
        }
    }
    return false;
}

/* Close a client that takes nothing. Returns when to look again. */
static uint64_t check_stall(struct engine *e, struct downstream *d)
{
    uint64_t due_us = UINT64_MAX;
    if (stalls_shared_lane(d)) {
        due_us = check_shared_stall(e, d);
    }
    uint64_t limit_us = d->listener->config->stall_timeout_us;
    bool waits = downstream_is_full(d) || d->n_stalled > 0;
    if (downstream_gone(d) || d->unwritten == 0 || limit_us == 0 || !waits) {
        return due_us;
    }
    if (e->now_us < d->progress_us + limit_us) {
        return earliest(due_us, d->progress_us + limit_us);
    }
    e->stats.clients_stalled++;
    downstream_close(e, d, "it took none of its replies in stall_timeout");
    return UINT64_MAX;
}

void downstream_mind_stall(struct engine *e, struct downstream *d)
{
    uint64_t due_us = check_stall(e, d);
    if (due_us != UINT64_MAX) {
        downstream_wake_at(e, d, due_us);
    }
}

static uint64_t check_idle(struct engine *e, struct downstream *d)
{
    uint64_t limit_us = d->listener->config->idle_timeout_us;
    if (limit_us == 0) {
        return UINT64_MAX;
    }
    bool busy = !list_empty(&d->requests) || downstream_listens(d);
    uint64_t due_us = (busy ? e->now_us : d->progress_us) + limit_us;
    if (e->now_us < due_us) {
        return due_us;
    }
    e->stats.clients_idle_closed++;
    downstream_close(e, d, "idle_timeout");
    return UINT64_MAX;
}

/* Drop what the lane has not taken from a client that may be gone. Returns when
 * to look again. */
static uint64_t check_ended(struct engine *e, struct downstream *d)
{
    if (!d->ended) {
        return UINT64_MAX;
    }
    if (e->now_us < d->ended_us + END_GRACE_US) {
        return d->ended_us + END_GRACE_US;
    }
    LIST_FOR_EACH (node, &d->requests) {
        const struct request *r = CONTAINER_OF(node, struct request, arrival);
        if (r->state != REQUEST_SENT && r->state != REQUEST_COMMITTED &&
            r->state != REQUEST_SPLIT && r->state != REQUEST_DONE) {
            downstream_close(e, d, NULL);
            return UINT64_MAX;
        }
    }
    return UINT64_MAX;
}

void downstream_timeout(struct engine *e, struct downstream *d)
{
    uint64_t next_us = check_ended(e, d);
    if (downstream_gone(d)) {
        return;
    }
    next_us = earliest(next_us, check_held(e, d));
    if (!downstream_gone(d) && d->ledger != NULL && d->ledger->waits) {
        if (e->now_us >= d->ledger->wait_until_us) {
            lane_pool_leave(e, d);
            downstream_later(e, d); /* its turn did not come */
        } else {
            next_us = earliest(next_us, d->ledger->wait_until_us);
        }
    }
    if (!downstream_gone(d) && d->ledger != NULL) {
        next_us = earliest(next_us, subscriber_retry_at(e, d));
    }
    if (!downstream_gone(d) && d->retry_at_us != 0) {
        if (e->now_us >= d->retry_at_us) {
            redis_refused_retry(e, d);
        } else {
            next_us = earliest(next_us, d->retry_at_us);
        }
    }
    if (!downstream_gone(d)) {
        next_us = earliest(next_us, check_stall(e, d));
    }
    if (!downstream_gone(d)) {
        next_us = earliest(next_us, check_idle(e, d));
    }
    if (!downstream_gone(d) && next_us != UINT64_MAX) {
        downstream_wake_at(e, d, next_us);
    }
}
