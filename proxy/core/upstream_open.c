/* How a lane is opened: backoff, name, addresses, handshake begun (redis.md §5).
 */
#include <assert.h>

#include "proxy/core/lane_set.h"
#include "proxy/core/redis_pubsub.h"
#include "proxy/core/state.h"

bool upstream_is_needed(const struct engine *e, const struct upstream *u)
{
    if (e->ending || (e->draining && e->n_downstreams == 0)) {
        return false;
    }
    bool owned = u->owner != NULL &&
                 !(u->owner->closing && list_empty(&u->owner->requests));
    if (u->refused && list_empty(&u->waiting)) {
        return false;
    }
    bool shared =
        u->set != NULL && lane_set_is_used(u->set) && u->endpoint->wanted;
    return shared || owned || !list_empty(&u->waiting);
}

void upstream_give_up_waiting(struct engine *e,
                              struct upstream *u,
                              enum verdict verdict,
                              const char *why)
{
    while (!list_empty(&u->waiting)) {
        struct request *r =
            CONTAINER_OF(u->waiting.next, struct request, place);
        upstream_unhold(e, u, r);
        request_give_up(e, r, u->endpoint->cluster, OUTCOME_NOT_SENT, verdict,
                        why);
    }
}

void upstream_wait_and_retry(struct engine *e,
                             struct upstream *u,
                             const char *why,
                             bool at_once)
{
    if (!upstream_is_needed(e, u)) {
        bool unused =
            u->owner == NULL && (u->set == NULL || !u->endpoint->wanted ||
                                 !lane_set_is_used(u->set));
        if (unused && list_empty(&u->waiting) && !e->ending) {
            upstream_free(e, u, why);
            return;
        }
        upstream_move(e, u, UPSTREAM_IDLE, why, 0);
        timer_clear(&e->timers, &u->timer);
        return;
    }
    const struct upstream_config *config = upstream_policy(u);
    uint64_t delay_us = at_once ? 0
                                : backoff_next(&u->backoff, config->backoff,
                                               config->backoff_base_us,
                                               config->backoff_cap_us, &e->rng);
    upstream_move(e, u, UPSTREAM_WAITING, why, delay_us);
    timer_set(&e->timers, &u->timer, e->now_us + delay_us);
    if (!config->retry) {
        upstream_give_up_waiting(e, u, GIVE_UP_POLICY, u->endpoint->last_error);
    }
}

/* node_retries attempts are a round; after so many rounds nothing waits for
 * this node any more (redis.md §9 "Rounds"). */
static void end_round(struct engine *e, struct upstream *u)
{
    const struct upstream_config *config = upstream_policy(u);
    int64_t rounds = u->endpoint->failures / config->node_retries;
    if (config->cluster_error_retry_attempts >= 0 &&
        rounds > config->cluster_error_retry_attempts) {
        upstream_give_up_waiting(e, u, GIVE_UP_ATTEMPTS,
                                 u->endpoint->last_error);
    }
}

/* What waits may be served by others by now; a redirect to a server that cannot
 * be reached leads nowhere. */
static void look_elsewhere(struct engine *e, struct upstream *u)
{
    LIST_FOR_EACH (node, &u->waiting) {
        struct request *r = CONTAINER_OF(node, struct request, place);
        r->asking = false;
        r->node = 0;
    }
    if (!list_empty(&u->waiting) || u->subscribes) {
        cluster_reroute_later(e, u->endpoint->cluster);
    }
}

/* This attempt to open the lane has failed. */
void upstream_attempt_failed(struct engine *e,
                             struct upstream *u,
                             const char *why,
                             bool tell)
{
    u->endpoint->cluster->stats.connect_failures++;
    endpoint_failed(e, u->endpoint, why);
    upstream_drop_unwanted(e, u);
    assert(list_empty(&u->in_flight));
    upstream_close_link(e, u, tell);
    if (u->endpoint->cluster->topology != NULL) {
        topology_lane_down(e, u);
        end_round(e, u);
        look_elsewhere(e, u);
    }
    upstream_wait_and_retry(e, u, why, false);
}

static bool open_link(struct engine *e, struct upstream *u)
{
    struct upstream_conn *link = memory_take(e->memory, sizeof(*link));
    if (link == NULL) {
        return false;
    }
    if (!conn_open(e, &link->conn, CONN_UPSTREAM)) {
        memory_give(e->memory, link);
        return false;
    }
    link->upstream = u;
    u->link = link;
    return true;
}

static void connect_to(struct engine *e,
                       struct upstream *u,
                       const struct address *address)
{
    u->address = *address;
    upstream_move(e, u, UPSTREAM_CONNECTING, NULL, 0);
    u->link->address = &u->address;
    u->link->conn.connect = true;
    conn_touch(e, &u->link->conn);
    u->deadline_us = e->now_us + upstream_policy(u)->connect_timeout_us;
    timer_set(&e->timers, &u->timer, u->deadline_us);
}

void upstream_begin_attempt(struct engine *e, struct upstream *u)
{
    u->answered = false;
    u->refused = false;
    u->address_next = 0;
    if (!open_link(e, u)) {
        e->stats.limit_memory++;
        upstream_attempt_failed(e, u, "out of memory", false);
        return;
    }
    if (u->endpoint->address.is_unix) {
        connect_to(e, u, &u->endpoint->address);
        return;
    }
    upstream_move(e, u, UPSTREAM_RESOLVING, NULL, 0);
    u->link->address = &u->endpoint->address;
    u->link->conn.resolve = true;
    conn_touch(e, &u->link->conn);
    u->deadline_us = e->now_us + upstream_policy(u)->connect_timeout_us;
    timer_set(&e->timers, &u->timer, u->deadline_us);
}

void upstream_want(struct engine *e, struct upstream *u)
{
    if (u->state != UPSTREAM_IDLE || e->ending) {
        return;
    }
    if (u->endpoint->limbo) {
        topology_want(e, u->endpoint->cluster, "requests wait for a server");
        return;
    }
    upstream_begin_attempt(e, u);
}

/* Try the next address of the name on a connection not used yet. */
static void connect_next(struct engine *e, struct upstream *u)
{
    connect_to(e, u, &u->endpoint->resolved[u->address_next++]);
}

void upstream_resolved(struct engine *e,
                       struct upstream *u,
                       const struct event *event)
{
    if (u->state != UPSTREAM_RESOLVING) {
        return;
    }
    struct endpoint *p = u->endpoint;
    if (event->error == 0 && event->resolved.n > 0 &&
        !endpoint_set_addresses(e, p, event->resolved.list,
                                event->resolved.n)) {
        e->stats.limit_memory++;
    }
    if (p->n_resolved == 0) {
        upstream_attempt_failed(e, u, io_error_text(IO_NO_NAME), true);
        return;
    }
    connect_next(e, u); /* the last good answer, if this one was none */
}

void upstream_connected(struct engine *e, struct upstream *u, int error)
{
    if (u->state != UPSTREAM_CONNECTING) {
        return;
    }
    if (error == 0) {
        upstream_move(e, u, UPSTREAM_HANDSHAKE, NULL, 0);
        u->active_us = e->now_us;
        u->deadline_us = e->now_us + upstream_policy(u)->handshake_timeout_us;
        timer_set(&e->timers, &u->timer, u->deadline_us);
        handshake_begin(e, u);
        return;
    }
    if (u->endpoint->address.is_unix ||
        u->address_next >= u->endpoint->n_resolved) {
        upstream_attempt_failed(e, u, io_error_text((enum io_error)(error - 1)),
                                false);
        return;
    }
    endpoint_failed(e, u->endpoint, io_error_text((enum io_error)(error - 1)));
    upstream_close_link(e, u, false);
    if (!open_link(e, u)) {
        upstream_attempt_failed(e, u, "out of memory", false);
        return;
    }
    connect_next(e, u);
}

/* ---- a primary behind the name ------------------------------------------------- */

/* Parts of a transaction, whose other parts may be at the server already. */
static bool has_block(const struct list_node *list)
{
    LIST_FOR_EACH (node, list) {
        const struct request *r = CONTAINER_OF(node, struct request, place);
        if (r->in_block) {
            return true;
        }
    }
    return false;
}

/* What lives in a client's own lane cannot be had from another connection. */
static bool holds_state(const struct upstream *u)
{
    const struct downstream *d = u->owner;
    return d != NULL && (redis_lane_is_held(d) || has_block(&u->in_flight) ||
                         has_block(&u->waiting));
}

void upstream_seek_primary(struct engine *e, struct upstream *u)
{
    struct endpoint *p = u->endpoint;
    const struct upstream_config *config = upstream_policy(u);
    bool permitted =
        config->retry && (config->retry_on_error & RETRY_ERROR_READONLY) != 0;
    if (!permitted || e->now_us < p->seek_us) {
        return;
    }
    p->wants_primary = true;
    p->seek_us = e->now_us + backoff_next(&p->seek, config->backoff,
                                          config->backoff_base_us,
                                          config->backoff_cap_us, &e->rng);
    p->cluster->stats.primary_searches++;
    topology_trace(e, p->cluster, p, "replica", "primary wanted",
                   "the server answered READONLY");
    for (struct list_node *node = p->lanes.next, *next; node != &p->lanes;
         node = next) {
        next = node->next;
        struct upstream *lane =
            CONTAINER_OF(node, struct upstream, endpoint_node);
        if (lane->state != UPSTREAM_UP || holds_state(lane)) {
            continue;
        }
        if (lane->spare) { /* nobody is waiting for it */
            upstream_free(e, lane, "its server is no primary");
            continue;
        }
        lane->renew = true;
        if (list_empty(&lane->in_flight)) {
            upstream_renew(e, lane);
        }
    }
}

void upstream_renew(struct engine *e, struct upstream *u)
{
    const struct upstream_loss loss = { .why = "it is opened anew" };
    assert(u->state == UPSTREAM_UP && list_empty(&u->in_flight));
    if (u->owner != NULL && subscriber_lost(e, u, &loss)) {
        downstream_close(e, u->owner, "its subscriptions have a gap");
    }
    upstream_close_link(e, u, true);
    timer_clear(&e->timers, &u->timer);
    upstream_move(e, u, UPSTREAM_WAITING, "it is opened anew", 0);
    upstream_begin_attempt(e, u);
}

void upstream_is_primary(struct engine *e, struct upstream *u)
{
    struct endpoint *p = u->endpoint;
    if (p->seek_us == 0) {
        return;
    }
    p->seek_us = 0;
    backoff_reset(&p->seek);
    topology_trace(e, p->cluster, p, "primary wanted", "primary", NULL);
}

/* The last address is used also when it is a replica's: what only reads must go
 * on. */
void upstream_is_replica(struct engine *e, struct upstream *u)
{
    struct endpoint *p = u->endpoint;
    if (p->address.is_unix || u->address_next >= p->n_resolved) {
        return;
    }
    upstream_drop_unwanted(e, u); /* the handshake */
    upstream_close_link(e, u, true);
    if (!open_link(e, u)) {
        upstream_attempt_failed(e, u, "out of memory", false);
        return;
    }
    connect_next(e, u);
}

void upstream_opening_too_late(struct engine *e, struct upstream *u)
{
    struct endpoint *p = u->endpoint;
    if (u->state == UPSTREAM_RESOLVING && p->n_resolved > 0) {
        connect_next(e, u); /* the last good answer */
        return;
    }
    if (u->state == UPSTREAM_CONNECTING && !p->address.is_unix &&
        u->address_next < p->n_resolved) {
        endpoint_failed(e, p, "connection timed out");
        upstream_close_link(e, u, true);
        if (open_link(e, u)) {
            connect_next(e, u);
            return;
        }
    }
    const char *why = u->state == UPSTREAM_RESOLVING ? "name lookup timed out"
                      : u->state == UPSTREAM_CONNECTING
                          ? "connection timed out"
                          : "no answer to the handshake (is the server hung?)";
    upstream_attempt_failed(e, u, why, true);
}

/* ---- as a connection ---------------------------------------------------- */

static struct upstream *upstream_of(struct conn *c)
{
    return CONTAINER_OF(c, struct upstream_conn, conn)->upstream;
}

static void conn_bytes(struct engine *e, struct conn *c, struct slice s)
{
    upstream_bytes(e, upstream_of(c), s);
}

static void conn_written(struct engine *e, struct conn *c, uint64_t count)
{
    upstream_written(e, upstream_of(c), count);
}

static void conn_ended(struct engine *e, struct conn *c)
{
    upstream_ended(e, upstream_of(c));
}

static void conn_closed(struct engine *e, struct conn *c, int error)
{
    upstream_closed(e, upstream_of(c), error);
}

static void conn_resolved(struct engine *e,
                          struct conn *c,
                          const struct event *event)
{
    upstream_resolved(e, upstream_of(c), event);
}

static void conn_connected(struct engine *e, struct conn *c, int error)
{
    upstream_connected(e, upstream_of(c), error);
}

static const struct address *conn_address(struct conn *c)
{
    return CONTAINER_OF(c, struct upstream_conn, conn)->address;
}

static void conn_release(struct engine *e, struct conn *c)
{
    struct upstream_conn *link = CONTAINER_OF(c, struct upstream_conn, conn);
    assert(link->upstream == NULL);
    memory_give(e->memory, link);
}

const struct conn_class upstream_class = {
    .bytes = conn_bytes,
    .written = conn_written,
    .ended = conn_ended,
    .closed = conn_closed,
    .resolved = conn_resolved,
    .connected = conn_connected,
    .address = conn_address,
    .release = conn_release,
};
