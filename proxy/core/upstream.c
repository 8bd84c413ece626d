#include "proxy/core/upstream.h"

#include <assert.h>
#include <stdio.h>

#include "proxy/core/lane_pool.h"
#include "proxy/core/lane_set.h"
#include "proxy/core/learn.h"
#include "proxy/core/redis_blocking.h"
#include "proxy/core/redis_pubsub.h"
#include "proxy/core/redis_tracking.h"
#include "proxy/core/settle.h"
#include "proxy/core/state.h"

const char *upstream_state_name(enum upstream_state s)
{
    static const char *const names[UPSTREAM_STATE_COUNT] = {
        "idle",      "waiting", "resolving", "connecting",
        "handshake", "up",      "closed",
    };
    return names[s];
}

const struct upstream_config *upstream_policy(const struct upstream *u)
{
    return u->endpoint->cluster->config;
}

static unsigned is_connecting(enum upstream_state state)
{
    return state == UPSTREAM_RESOLVING || state == UPSTREAM_CONNECTING ||
           state == UPSTREAM_HANDSHAKE;
}

void upstream_move(struct engine *e,
                   struct upstream *u,
                   enum upstream_state next,
                   const char *why,
                   uint64_t delay_us)
{
    struct endpoint *p = u->endpoint;
    enum upstream_state before = u->state;
    p->lanes_up -= before == UPSTREAM_UP;
    p->lanes_connecting -= is_connecting(before);
    p->lanes_up += next == UPSTREAM_UP;
    p->lanes_connecting += is_connecting(next);
    u->state = (uint8_t)next;
    if (before == next) {
        before = UPSTREAM_UP; /* WAITING was entered when it was lost */
    }
    engine_trace(e, &(struct trace_record){
                        .type = TRACE_LANE,
                        .upstream = upstream_policy(u)->name,
                        .address = u->address.host[0] != '\0' ? &u->address
                                                              : &p->address,
                        .lane = u->link != NULL ? u->link->conn.id : 0,
                        .client = u->owner != NULL ? u->owner->conn.id : 0,
                        .from = upstream_state_name(before),
                        .to = upstream_state_name(next),
                        .reason = why,
                        .attempt = u->backoff.failures,
                        .delay_us = delay_us });
}

struct upstream *upstream_new(struct engine *e,
                              struct endpoint *p,
                              const struct session *session,
                              struct downstream *owner)
{
    if (!engine_reserve_timer(e)) {
        return NULL;
    }
    struct upstream *u = memory_take(e->memory, sizeof(*u));
    if (u == NULL) {
        return NULL;
    }
    u->session = session_copy(e, session);
    if (u->session == NULL) {
        memory_give(e->memory, u);
        return NULL;
    }
    u->endpoint = p;
    u->owner = owner;
    u->timer.kind = TIMER_UPSTREAM;
    list_init(&u->waiting);
    list_init(&u->in_flight);
    list_append(&p->lanes, &u->endpoint_node);
    u->counted = owner != NULL;
    p->lanes_private += u->counted;
    p->cluster->lanes_private += u->counted;
    e->n_upstreams++;
    return u;
}

void upstream_close_link(struct engine *e, struct upstream *u, bool tell)
{
    downstream_resume(e, u); /* the next connection is not paused */
    if (u->link != NULL) {
        u->link->upstream = NULL;
        conn_close(e, &u->link->conn, tell);
        u->link = NULL;
    }
    chain_clear(e->memory, &u->partial);
    chain_clear(e->memory, &u->hello);
    if (u->outbuf != NULL) {
        buf_unref(e->memory, u->outbuf);
        u->outbuf = NULL;
    }
    resp_scanner_init(&u->scanner);
    u->queued_end = 0;
    u->taken = 0;
    u->raw = false;
    u->listens = false;
    u->establishing = false;
    u->dirty = false;
    u->spoilt = false;
    u->in_multi = false;
    u->in_watch = false;
    u->streaming = false;
    u->unauthenticated = false;
    u->untold = false;
    u->ping_sent = false;
    u->awaits_commands = false;
    u->renew = false;
    u->client_id = 0;
    u->killed_us = 0;
}

void upstream_drop_orphan(struct engine *e,
                          struct upstream *u,
                          struct request *r)
{
    assert(r->downstream == NULL);
    list_remove(&r->place);
    u->endpoint->in_flight -= !request_is_own(r);
    if (r->task == TASK_TOPOLOGY) {
        topology_no_reply(e, u, r->arrived_us, r->step);
    } else if (r->task == TASK_COMMANDS) {
        learn_no_reply(e, u);
    }
    request_free(e, r);
}

/* Requests of the lane's own, and those whose client has gone, end with the
 * connection. */
void upstream_drop_unwanted(struct engine *e, struct upstream *u)
{
    for (struct list_node *node = u->in_flight.next, *next;
         node != &u->in_flight; node = next) {
        next = node->next;
        struct request *r = CONTAINER_OF(node, struct request, place);
        if (r->downstream == NULL) {
            upstream_drop_orphan(e, u, r);
        }
    }
}

void upstream_free(struct engine *e, struct upstream *u, const char *why)
{
    upstream_drop_unwanted(e, u);
    assert(list_empty(&u->waiting) && list_empty(&u->in_flight));
    if (u->spare) {
        lane_pool_forget(u);
    }
    upstream_move(e, u, UPSTREAM_CLOSED, why, 0);
    upstream_close_link(e, u, true);
    timer_clear(&e->timers, &u->timer);
    list_remove(&u->endpoint_node);
    e->n_upstreams--;
    if (u->set != NULL) {
        lane_set_drop(e, u->set, u->endpoint->index);
        u->set = NULL;
    } else if (u->counted) {
        u->endpoint->lanes_private--;
        u->endpoint->cluster->lanes_private--;
        lane_pool_wake(e, u->endpoint->cluster);
    }
    /* Callers further up may still look at its state. */
    list_append(&e->closed_lanes, &u->endpoint_node);
}

void upstream_rehome(struct engine *e, struct upstream *u, struct endpoint *p)
{
    assert(u->owner != NULL && u->state != UPSTREAM_UP);
    upstream_drop_unwanted(e, u); /* the handshake */
    upstream_close_link(e, u, true);
    timer_clear(&e->timers, &u->timer);
    upstream_move(e, u, UPSTREAM_IDLE, "its requests go to another node", 0);
    u->endpoint->lanes_private--;
    list_remove(&u->endpoint_node);
    u->endpoint = p;
    list_append(&p->lanes, &u->endpoint_node);
    p->lanes_private++;
    u->fence_needed = false; /* the old connection leads elsewhere */
    u->fence_id = 0;
    LIST_FOR_EACH (node, &u->waiting) {
        struct request *r = CONTAINER_OF(node, struct request, place);
        r->write_replay = false;
        r->server = (uint16_t)p->index;
    }
    upstream_want(e, u);
}

void upstreams_release(struct engine *e)
{
    while (!list_empty(&e->closed_lanes)) {
        struct upstream *u =
            CONTAINER_OF(e->closed_lanes.next, struct upstream, endpoint_node);
        list_remove(&u->endpoint_node);
        session_free(e, u->session);
        memory_give(e->memory, u);
    }
}

void upstream_wake_at(struct engine *e, struct upstream *u, uint64_t at_us)
{
    if (u->timer.place == TIMER_OFF || u->timer.at_us > at_us) {
        timer_set(&e->timers, &u->timer, at_us);
    }
}

/* A connection that lasted so long was a success, even if nobody used it. */
enum {
    STEADY_US = 1000 * 1000
};

/* Let a replica of a cluster answer reads. Without memory it answers MOVED, and
 * the primary is asked. */
void upstream_read_only(struct engine *e, struct upstream *u)
{
    upstream_send_own(e, u, TASK_ASIDE, 0, span_of("*1\r\n$8\r\nREADONLY\r\n"));
}

void upstream_up(struct engine *e, struct upstream *u)
{
    u->up_us = e->now_us;
    struct cluster *c = u->endpoint->cluster;
    u->deadline_us = 0;
    u->establishing = false;
    upstream_move(e, u, UPSTREAM_UP, NULL, 0);
    endpoint_reached(e, u->endpoint);
    c->stats.lanes_opened++;
    c->stats.fences += u->fence_needed && u->fence_done;
    timer_clear(&e->timers, &u->timer);
    if (upstream_policy(u)->ping_idle_us > 0) {
        upstream_wake_at(e, u, e->now_us + upstream_policy(u)->ping_idle_us);
    }
    if (!upstream_is_needed(e, u) && !upstream_stays_spare(e, u)) {
        upstream_wake_at(e, u, e->now_us + STEADY_US);
    }
    if (u->endpoint->role == NODE_REPLICA && c->slots != NULL &&
        u->set != NULL) {
        upstream_read_only(e, u); /* inside of a block it would be queued */
    }
    if (u->owner != NULL) {
        subscriber_up(e, u);
        tracking_up(e, u);
    }
    upstream_flush(e, u);
    if (u->fence_done) {
        u->fence_needed = false;
        u->fence_id = 0;
    }
    topology_lane_up(e, u);
}

/* A reply that has begun to reach its client cannot be finished: the client
 * must notice (reliability.md 2.1 "lost inside a reply that is being
 * streamed"). */
static void close_cut_client(struct engine *e, struct upstream *u)
{
    if (list_empty(&u->in_flight)) {
        return;
    }
    struct request *r = CONTAINER_OF(u->in_flight.next, struct request, place);
    if (r->state == REQUEST_COMMITTED && r->downstream != NULL) {
        downstream_close(e, r->downstream,
                         "the server connection was lost inside a reply that "
                         "had begun to leave");
    }
}

static void remember_fence(struct upstream *u, const struct upstream_loss *loss)
{
    if (!loss->peer_ended && !list_empty(&u->in_flight) &&
        !u->endpoint->sentinel) {
        u->fence_needed = true;
        u->fence_done = false;
        u->fence_id = u->client_id;
    }
}

/* CLIENT KILL: what was answered still leaves, as it would at the server. */
static void end_killed(struct engine *e, struct downstream *d)
{
    downstream_drop_new(e, d);
    if (d->n_open == 0) {
        downstream_finish(e, d);
    } else {
        downstream_close(e, d, "CLIENT KILL");
    }
}

enum {
    KILL_US = 1000 * 1000 /* a CLIENT KILL takes effect within */
};

/* Its client cannot, or does not want to, go on without it. */
static void end_with_lane(struct engine *e,
                          struct upstream *u,
                          const struct upstream_loss *loss)
{
    struct downstream *d = u->owner;
    downstream_drop_new(e, d);
    downstream_give_up_all(e, d, loss->why);
    upstream_drop_unwanted(e, u);
    downstream_finish(e, d); /* what the server said last still goes */
}

void upstream_lost(struct engine *e,
                   struct upstream *u,
                   const struct upstream_loss *loss)
{
    if (u->state != UPSTREAM_UP) {
        upstream_attempt_failed(e, u, loss->why, loss->tell);
        return;
    }
    struct downstream *owner = u->owner;
    bool killed = u->killed_us != 0 && loss->peer_ended &&
                  e->now_us - u->killed_us < KILL_US;
    bool was_raw = u->raw;
    bool quick = u->answered && loss->peer_ended;
    uint64_t taken = u->taken;
    u->endpoint->cluster->stats.lanes_lost++;
    if (u->answered || e->now_us - u->up_us >= STEADY_US) {
        backoff_reset(&u->backoff);
    }
    remember_fence(u, loss);
    upstream_close_link(e, u, loss->tell);
    /* Not UP any more before anybody is answered: what that sets off must
     * wait for the next connection. The log hears of it with the delay. */
    u->endpoint->lanes_up--;
    u->state = UPSTREAM_WAITING;
    timer_clear(&e->timers, &u->timer);
    endpoint_failed(e, u->endpoint, loss->why);
    if (owner != NULL && killed) {
        end_killed(e, owner);
    }
    if (owner != NULL && (was_raw || subscriber_lost(e, u, loss))) {
        end_with_lane(e, u, loss);
        upstream_wait_and_retry(e, u, loss->why, quick);
        return;
    }
    close_cut_client(e, u);
    if (u->state == UPSTREAM_CLOSED) {
        return;
    }
    upstream_drop_unwanted(e, u);
    if (owner != NULL) {
        tracking_lost(e, u);
    }
    settle_lane(e, u, loss, taken);
    if (u->endpoint->cluster->topology != NULL) {
        topology_lane_down(e, u);
        cluster_reroute_later(e, u->endpoint->cluster);
    }
    if (owner != NULL && !downstream_gone(owner) && owner->session_unknown &&
        u == owner->lane) {
        downstream_close(e, owner,
                         "its own server connection was lost with state that "
                         "cannot be established again");
    }
    if (u->state == UPSTREAM_WAITING) {
        upstream_wait_and_retry(e, u, loss->why, quick);
    }
}

void upstream_begin_again(struct engine *e, struct upstream *u, const char *why)
{
    assert(u->owner != NULL && u->link != NULL);
    bool up = u->state == UPSTREAM_UP;
    uint64_t taken = u->taken;
    upstream_drop_unwanted(e, u);
    upstream_close_link(e, u, true);
    timer_clear(&e->timers, &u->timer);
    if (up) {
        u->endpoint->lanes_up--;
        u->state = UPSTREAM_WAITING;
        settle_lane(e, u,
                    &(struct upstream_loss){ .why = why, .refused = true },
                    taken);
    }
    if (u->fence_done) { /* the block may go to another node */
        u->fence_needed = false;
        u->fence_id = 0;
    }
    if (u->endpoint->cluster->topology != NULL) {
        topology_lane_down(e, u);
        cluster_reroute_later(e, u->endpoint->cluster);
    }
    upstream_wait_and_retry(e, u, why, false);
}

void upstream_refused(struct engine *e, struct upstream *u, struct span text)
{
    struct list_node refused;
    list_init(&refused);
    for (struct list_node *node = u->waiting.next, *next; node != &u->waiting;
         node = next) {
        next = node->next;
        struct request *r = CONTAINER_OF(node, struct request, place);
        if (r->task == TASK_SESSION) {
            upstream_unhold(e, u, r);
            list_append(&refused, &r->place);
        }
    }
    char why[ENDPOINT_ERROR_MAX];
    snprintf(why, sizeof(why), "the server refused the session: %.*s",
             (int)(text.len < 120 ? text.len : 120), (const char *)text.data);
    for (char *c = why; *c != '\0'; c++) {
        if ((unsigned char)*c < ' ') {
            *c = ' ';
        }
    }
    while (!list_empty(&refused)) {
        struct request *r = CONTAINER_OF(refused.next, struct request, place);
        list_remove(&r->place);
        redis_session_refused(e, r, text);
    }
    if (u->state != UPSTREAM_HANDSHAKE) {
        return;
    }
    if (u->set == NULL || !u->set->pinned) {
        /* Trying the same words again would not help; the next request tries
         * once more. */
        u->refused = true;
        upstream_give_up_waiting(e, u, GIVE_UP_POLICY, why);
    }
    upstream_attempt_failed(e, u, why, true);
}

/* ---- what the shell and the clock report ------------------------------- */

void upstream_ended(struct engine *e, struct upstream *u)
{
    upstream_lost(e, u,
                  &(struct upstream_loss){
                      .why = "the server closed the connection",
                      .peer_ended = true,
                      .tell = true });
}

void upstream_closed(struct engine *e, struct upstream *u, int error)
{
    enum io_error what = error > 0 ? (enum io_error)(error - 1) : IO_END;
    const char *why = what == IO_END ? "the server closed the connection"
                                     : io_error_text(what);
    upstream_lost(e, u,
                  &(struct upstream_loss){ .why = why,
                                           .peer_ended = what == IO_END ||
                                                         what == IO_RESET });
}

void upstream_written(struct engine *e, struct upstream *u, uint64_t count)
{
    u->taken += count;
    assert(u->taken <= u->queued_end || u->raw || u->owner != NULL);
    if (!list_empty(&u->waiting)) {
        upstream_flush(e, u);
    }
    struct downstream *owner = u->owner;
    if (owner != NULL &&
        (owner->input != NULL || owner->undispatched != NULL)) {
        downstream_later(e, owner); /* a streamed request may go on */
    }
}

/* How long the oldest unanswered request may take; UINT64_MAX: for ever. */
static uint64_t reply_due_us(const struct upstream *u)
{
    if (list_empty(&u->in_flight) || u->streaming) {
        return UINT64_MAX;
    }
    const struct request *r =
        CONTAINER_OF(u->in_flight.next, struct request, place);
    return r->patience_us == 0 ? UINT64_MAX : r->sent_us + r->patience_us;
}

void upstream_next_due(struct engine *e, struct upstream *u, bool was_blocked)
{
    if (list_empty(&u->in_flight)) {
        return;
    }
    if (was_blocked) {
        LIST_FOR_EACH (node, &u->in_flight) { /* none could begin before */
            struct request *r = CONTAINER_OF(node, struct request, place);
            r->sent_us = e->now_us;
            if (r->blocking != NULL) {
                blocking_begins(e, r);
            }
        }
    }
    const struct request *r =
        CONTAINER_OF(u->in_flight.next, struct request, place);
    if (r->patience_us > 0) {
        upstream_wake_at(e, u, r->sent_us + r->patience_us);
    }
}

static void reply_too_late(struct engine *e, struct upstream *u)
{
    char why[80];
    const struct request *r =
        CONTAINER_OF(u->in_flight.next, struct request, place);
    snprintf(why, sizeof(why), "no reply in %.3f s (attempt_timeout)",
             (double)r->patience_us / 1e6);
    u->endpoint->cluster->stats.attempt_timeouts++;
    upstream_lost(e, u,
                  &(struct upstream_loss){
                      .why = why, .timeout = true, .tell = true });
}

static void check_ping(struct engine *e, struct upstream *u)
{
    const struct upstream_config *config = upstream_policy(u);
    if (u->ping_sent) {
        if (e->now_us < u->deadline_us) {
            upstream_wake_at(e, u, u->deadline_us);
            return;
        }
        u->endpoint->cluster->stats.ping_timeouts++;
        upstream_lost(e, u,
                      &(struct upstream_loss){ .why = "no reply to PING",
                                               .timeout = true,
                                               .tell = true });
        return;
    }
    if (config->ping_idle_us == 0) {
        return;
    }
    uint64_t due_us = u->active_us + config->ping_idle_us;
    /* Inside of a transaction it would be queued, and be a part of it. */
    bool can_ask = list_empty(&u->in_flight) && !u->raw && !u->in_multi;
    if (e->now_us >= due_us && can_ask) {
        if (upstream_send_own(e, u, TASK_PING, 0,
                              span_of("*1\r\n$4\r\nPING\r\n"))) {
            u->ping_sent = true;
            u->deadline_us = e->now_us + config->ping_timeout_us;
            upstream_wake_at(e, u, u->deadline_us);
            return;
        }
    }
    if (due_us <= e->now_us) {
        due_us = e->now_us + config->ping_idle_us;
    }
    upstream_wake_at(e, u, due_us);
}

static void check_up(struct engine *e, struct upstream *u)
{
    if (!upstream_is_needed(e, u) && u->owner == NULL &&
        list_empty(&u->in_flight) && !upstream_stays_spare(e, u)) {
        upstream_free(e, u, "nobody needs it any more");
        return;
    }
    uint64_t due_us = reply_due_us(u);
    if (e->now_us >= due_us) {
        reply_too_late(e, u);
        return;
    }
    if (due_us != UINT64_MAX) {
        upstream_wake_at(e, u, due_us);
    }
    check_ping(e, u);
}

void upstream_timeout(struct engine *e, struct upstream *u)
{
    switch ((enum upstream_state)u->state) {
    case UPSTREAM_WAITING:
        if (upstream_is_needed(e, u)) {
            upstream_begin_attempt(e, u);
        } else {
            upstream_wait_and_retry(e, u, "nobody needs it any more", false);
        }
        break;
    case UPSTREAM_HANDSHAKE:
        if (e->now_us < u->deadline_us) {
            handshake_again(e, u);
            break;
        }
        upstream_opening_too_late(e, u);
        break;
    case UPSTREAM_RESOLVING:
    case UPSTREAM_CONNECTING: upstream_opening_too_late(e, u); break;
    case UPSTREAM_UP: check_up(e, u); break;
    case UPSTREAM_IDLE:
    case UPSTREAM_CLOSED:
    case UPSTREAM_STATE_COUNT: break;
    }
}
