#include "proxy/core/lane_pool.h"

#include <assert.h>

#include "proxy/core/ledger.h"
#include "proxy/core/state.h"

enum {
    SPARE_LINGER_US = 30 * 1000 * 1000 /* how long a spare lane stays open */
};

/* ---- spare lanes ----------------------------------------------------------- */

void lane_pool_forget(struct upstream *u)
{
    assert(u->spare);
    list_remove(&u->spare_node);
    u->spare = false;
    u->endpoint->cluster->n_spare--;
}

static struct upstream *find_spare(const struct cluster *c,
                                   const struct endpoint *p,
                                   const struct session *session)
{
    struct upstream *soon = NULL; /* it is being reset */
    for (struct list_node *node = c->spare_lanes.prev; node != &c->spare_lanes;
         node = node->prev) {
        struct upstream *u = CONTAINER_OF(node, struct upstream, spare_node);
        if (u->endpoint != p || u->renew ||
            !session_same_lane(u->session, session)) {
            continue;
        }
        if (u->state == UPSTREAM_UP) {
            return u;
        }
        soon = u->state == UPSTREAM_HANDSHAKE ? u : soon;
    }
    return soon;
}

static void drop_oldest(struct engine *e, struct cluster *c, const char *why)
{
    upstream_free(
        e, CONTAINER_OF(c->spare_lanes.next, struct upstream, spare_node), why);
}

/* Make u d's. False: it had to be closed. */
static bool hand_over(struct engine *e,
                      struct upstream *u,
                      struct downstream *d)
{
    lane_pool_forget(u);
    struct session *session = session_copy(e, downstream_session(e, d));
    if (session == NULL) {
        upstream_free(e, u, "out of memory");
        return false;
    }
    bool same_name = session_same_name(u->session, session);
    session_free(e, u->session);
    u->session = session;
    u->owner = d;
    if (!same_name && !handshake_introduce(e, u, true)) {
        u->owner = NULL;
        upstream_free(e, u, "out of memory");
        return false;
    }
    return true;
}

bool lane_pool_has_room(const struct cluster *c)
{
    return c->lanes_private < c->config->private_lanes_max || c->n_spare > 0;
}

struct upstream *lane_pool_take(struct engine *e,
                                struct downstream *d,
                                struct endpoint *p,
                                bool must,
                                bool *full)
{
    struct cluster *c = p->cluster;
    const struct session *session = downstream_session(e, d);
    struct upstream *u = find_spare(c, p, session);
    *full = false;
    if (u != NULL && hand_over(e, u, d)) {
        c->stats.private_lanes_reused++;
        return u;
    }
    if (c->lanes_private >= c->config->private_lanes_max && c->n_spare > 0) {
        drop_oldest(e, c, "another client needs a connection of its own");
    }
    if (c->lanes_private >= c->config->private_lanes_max && !must) {
        *full = true;
        return NULL;
    }
    return upstream_new(e, p, session, d);
}

/* Whether u can serve another client as it is, or after a RESET. */
static bool is_fit(const struct engine *e, const struct upstream *u)
{
    const struct upstream_config *config = upstream_policy(u);
    return u->state == UPSTREAM_UP && !u->renew && !u->raw && !u->streaming &&
           !u->listens && !u->spoilt && !u->unauthenticated && !e->ending &&
           !e->draining && config->private_lanes_idle > 0 &&
           config->lanes != LANES_PRIVATE && u->endpoint->wanted &&
           (!u->dirty || u->endpoint->version >= VERSION_WITH_RESET);
}

void lane_pool_give(struct engine *e, struct upstream *u)
{
    struct cluster *c = u->endpoint->cluster;
    assert(list_empty(&u->waiting));
    u->owner = NULL;
    if (!is_fit(e, u)) {
        upstream_free(e, u, "its client needs it no more");
        return;
    }
    if (c->n_spare >= c->config->private_lanes_idle) {
        drop_oldest(e, c, "nobody has needed it for long");
    }
    u->spare = true;
    u->spare_us = e->now_us;
    list_append(&c->spare_lanes, &u->spare_node);
    c->n_spare++;
    upstream_wake_at(e, u, e->now_us + SPARE_LINGER_US);
    if (u->dirty) {
        c->stats.private_lanes_reset++;
        handshake_reset(e, u);
    }
    lane_pool_wake(e, c);
}

bool upstream_stays_spare(struct engine *e, struct upstream *u)
{
    if (!u->spare || e->now_us >= u->spare_us + SPARE_LINGER_US) {
        return false;
    }
    upstream_wake_at(e, u, u->spare_us + SPARE_LINGER_US);
    return true;
}

/* ---- clients that wait ------------------------------------------------------ */

bool lane_pool_wait(struct engine *e, struct downstream *d, uint64_t until_us)
{
    struct cluster *c = d->listener->cluster;
    struct ledger *l = ledger_get(e, d);
    if (l == NULL) {
        return false;
    }
    if (!l->waits) {
        l->waits = true;
        l->wait_until_us = until_us;
        c->n_lane_waiters++;
        if (l->woken) { /* somebody was quicker */
            list_insert_before(c->lane_waiters.next, &l->wait);
        } else {
            list_append(&c->lane_waiters, &l->wait);
        }
    }
    l->woken = false;
    if (l->wait_until_us != UINT64_MAX) {
        downstream_wake_at(e, d, l->wait_until_us);
    }
    return true;
}

static void take_from_queue(struct cluster *c, struct ledger *l)
{
    list_remove(&l->wait);
    l->waits = false;
    c->n_lane_waiters--;
}

void lane_pool_leave(struct engine *e, struct downstream *d)
{
    struct ledger *l = d->ledger;
    if (l == NULL) {
        return;
    }
    bool woken = l->woken;
    l->woken = false;
    if (l->waits) {
        take_from_queue(d->listener->cluster, l);
    }
    if (woken) {
        lane_pool_wake(e,
                       d->listener->cluster); /* it is somebody else's turn */
    }
}

void lane_pool_pass_on(struct engine *e, struct downstream *d)
{
    struct ledger *l = d->ledger;
    if (l->woken || (l->waits && d->undispatched == NULL)) {
        lane_pool_leave(e, d);
        l->wait_until_us = 0;
    }
}

void lane_pool_wake(struct engine *e, struct cluster *c)
{
    if (c->n_lane_waiters == 0 || !lane_pool_has_room(c)) {
        return;
    }
    struct ledger *l = CONTAINER_OF(c->lane_waiters.next, struct ledger, wait);
    take_from_queue(c, l);
    l->woken = true;
    downstream_later(e, l->owner);
}
