#include "proxy/core/upstream.h"

#include <assert.h>
#include <stdio.h>

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

static const struct upstream_config *config_of(const struct upstream *u)
{
    return u->endpoint->cluster->config;
}

static unsigned is_connecting(enum upstream_state state)
{
    return state == UPSTREAM_RESOLVING || state == UPSTREAM_CONNECTING ||
           state == UPSTREAM_HANDSHAKE;
}

/* Change the state. Nothing else does. */
static void upstream_move(struct engine *e,
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
                        .upstream = config_of(u)->name,
                        .address = u->address.host[0] != '\0' ? &u->address
                                                              : p->address,
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
    if (!timers_reserve(&e->timers, e->n_downstreams + e->n_upstreams + 1)) {
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
    p->lanes_private += owner != NULL;
    e->n_upstreams++;
    return u;
}

static void close_link(struct engine *e, struct upstream *u, bool tell)
{
    if (u->link != NULL) {
        u->link->upstream = NULL;
        conn_close(e, &u->link->conn, tell);
        u->link = NULL;
    }
    chain_clear(e->memory, &u->partial);
    chain_clear(e->memory, &u->hello);
    resp_scanner_init(&u->scanner);
    u->queued_end = 0;
    u->taken = 0;
    u->raw = false;
    u->streaming = false;
    u->unauthenticated = false;
    u->ping_sent = false;
    u->client_id = 0;
}

void upstream_conn_release(struct engine *e, struct conn *c)
{
    struct upstream_conn *link = CONTAINER_OF(c, struct upstream_conn, conn);
    assert(link->upstream == NULL);
    memory_give(e->memory, link);
}

void upstream_drop_orphan(struct engine *e,
                          struct upstream *u,
                          struct request *r)
{
    assert(r->downstream == NULL);
    list_remove(&r->place);
    u->endpoint->cluster->in_flight -=
        r->task != TASK_PING && r->task != TASK_HANDSHAKE;
    request_free(e, r);
}

/* Requests of the lane's own, and those whose client has gone, end with the
 * connection. */
static void drop_unwanted(struct engine *e, struct upstream *u)
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
    drop_unwanted(e, u);
    assert(list_empty(&u->waiting) && list_empty(&u->in_flight));
    assert(u->n_clients == 0);
    upstream_move(e, u, UPSTREAM_CLOSED, why, 0);
    close_link(e, u, true);
    timer_clear(&e->timers, &u->timer);
    list_remove(&u->endpoint_node);
    u->endpoint->lanes_private -= u->owner != NULL;
    e->n_upstreams--;
    /* Callers further up may still look at its state. */
    list_append(&e->closed_lanes, &u->endpoint_node);
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

/* ---- opening ---------------------------------------------------------- */

static bool is_needed(const struct engine *e, const struct upstream *u)
{
    if (e->ending || (e->draining && e->n_downstreams == 0)) {
        return false;
    }
    bool owned = u->owner != NULL &&
                 !(u->owner->closing && list_empty(&u->owner->requests));
    return u->pinned || u->n_clients > 0 || owned || !list_empty(&u->waiting);
}

static void give_up_waiting(struct engine *e,
                            struct upstream *u,
                            enum verdict verdict)
{
    while (!list_empty(&u->waiting)) {
        struct request *r =
            CONTAINER_OF(u->waiting.next, struct request, place);
        upstream_unhold(e, u, r);
        request_give_up(e, r, u->endpoint->cluster, OUTCOME_NOT_SENT, verdict,
                        u->endpoint->last_error);
    }
}

static void wait_and_retry(struct engine *e,
                           struct upstream *u,
                           const char *why,
                           bool at_once)
{
    if (!is_needed(e, u)) {
        bool unused = u->owner == NULL && !u->pinned && u->n_clients == 0;
        if (unused && list_empty(&u->waiting) && !e->ending) {
            upstream_free(e, u, why);
            return;
        }
        upstream_move(e, u, UPSTREAM_IDLE, why, 0);
        timer_clear(&e->timers, &u->timer);
        return;
    }
    const struct upstream_config *config = config_of(u);
    uint64_t delay_us = at_once ? 0
                                : backoff_next(&u->backoff, config->backoff,
                                               config->backoff_base_us,
                                               config->backoff_cap_us, &e->rng);
    upstream_move(e, u, UPSTREAM_WAITING, why, delay_us);
    timer_set(&e->timers, &u->timer, e->now_us + delay_us);
    if (!config->retry) {
        give_up_waiting(e, u, GIVE_UP_POLICY);
    }
}

/* This attempt to open the lane has failed. */
static void attempt_failed(struct engine *e,
                           struct upstream *u,
                           const char *why,
                           bool tell)
{
    u->endpoint->cluster->stats.connect_failures++;
    endpoint_failed(e, u->endpoint, why);
    drop_unwanted(e, u);
    assert(list_empty(&u->in_flight));
    close_link(e, u, tell);
    wait_and_retry(e, u, why, false);
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
    u->deadline_us = e->now_us + config_of(u)->connect_timeout_us;
    timer_set(&e->timers, &u->timer, u->deadline_us);
}

static void begin_attempt(struct engine *e, struct upstream *u)
{
    u->answered = false;
    u->address_next = 0;
    if (!open_link(e, u)) {
        e->stats.limit_memory++;
        attempt_failed(e, u, "out of memory", false);
        return;
    }
    if (u->endpoint->address->is_unix) {
        connect_to(e, u, u->endpoint->address);
        return;
    }
    upstream_move(e, u, UPSTREAM_RESOLVING, NULL, 0);
    u->link->address = u->endpoint->address;
    u->link->conn.resolve = true;
    conn_touch(e, &u->link->conn);
    u->deadline_us = e->now_us + config_of(u)->connect_timeout_us;
    timer_set(&e->timers, &u->timer, u->deadline_us);
}

void upstream_want(struct engine *e, struct upstream *u)
{
    if (u->state == UPSTREAM_IDLE && !e->ending) {
        begin_attempt(e, u);
    }
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
        attempt_failed(e, u, io_error_text(IO_NO_NAME), true);
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
        u->deadline_us = e->now_us + config_of(u)->handshake_timeout_us;
        timer_set(&e->timers, &u->timer, u->deadline_us);
        handshake_begin(e, u);
        return;
    }
    if (u->endpoint->address->is_unix ||
        u->address_next >= u->endpoint->n_resolved) {
        attempt_failed(e, u, io_error_text((enum io_error)(error - 1)), false);
        return;
    }
    endpoint_failed(e, u->endpoint, io_error_text((enum io_error)(error - 1)));
    close_link(e, u, false);
    if (!open_link(e, u)) {
        attempt_failed(e, u, "out of memory", false);
        return;
    }
    connect_next(e, u);
}

/* ---- sending ---------------------------------------------------------- */

bool upstream_has_room(const struct upstream *u)
{
    return u->queued_end - u->taken < config_of(u)->lane_buffer_max;
}

static bool push_bytes(struct engine *e, struct upstream *u, struct request *r)
{
    struct chain *out = &u->link->conn.out;
    if (r->more.head == NULL) {
        return chain_push_part(e->memory, out, r->part.buf, r->part.offset,
                               r->part.len);
    }
    struct chain whole = { 0 };
    if (!chain_push_part(e->memory, &whole, r->part.buf, r->part.offset,
                         r->part.len) ||
        !chain_share(e->memory, &whole, &r->more)) {
        chain_clear(e->memory, &whole);
        return false;
    }
    chain_move(out, &whole);
    return true;
}

static bool deadline_passed(const struct engine *e, const struct request *r)
{
    return e->now_us >= r->deadline_us;
}

/* Behind this one the server's bytes are not told apart any more. */
static void sent_raw(struct engine *e, struct upstream *u, struct request *r)
{
    u->raw = true;
    u->queued_end += r->size;
    conn_touch(e, &u->link->conn);
    downstream_answer(e, r); /* with nothing: the server's words follow */
}

void upstream_send(struct engine *e, struct upstream *u, struct request *r)
{
    struct cluster *c = u->endpoint->cluster;
    if (!push_bytes(e, u, r)) {
        e->stats.limit_memory++;
        request_give_up(e, r, c, OUTCOME_NOT_SENT, GIVE_UP_POLICY,
                        "out of memory");
        return;
    }
    if (r->task == TASK_RAW) {
        sent_raw(e, u, r);
        return;
    }
    if (r->attempts == 0) {
        budget_deposit(&c->budget);
    }
    r->attempts++;
    r->upstream = u;
    r->sent_us = e->now_us;
    u->queued_end += r->size;
    r->sent_end = r->incomplete ? UINT64_MAX : u->queued_end;
    c->stats.late_attempts += deadline_passed(e, r);
    request_move(r, REQUEST_SENT);
    list_append(&u->in_flight, &r->place);
    c->in_flight++;
    conn_touch(e, &u->link->conn);
    if (r->patience_us > 0) {
        upstream_wake_at(e, u, e->now_us + r->patience_us);
    }
    if (r->streaming) {
        request_drop_bytes(e, r); /* too large to keep */
    }
}

bool upstream_abandon(struct engine *e, struct request *r)
{
    struct request *stand_in = request_new(e, NULL);
    if (stand_in == NULL) {
        return false;
    }
    stand_in->upstream = r->upstream;
    stand_in->sent_us = r->sent_us;
    stand_in->sent_end = r->sent_end;
    stand_in->size = r->size;
    request_move(stand_in, REQUEST_SENT);
    list_insert_before(&r->place, &stand_in->place);
    list_remove(&r->place);
    r->upstream = NULL;
    return true;
}

bool upstream_send_own(struct engine *e,
                       struct upstream *u,
                       enum request_task task,
                       uint8_t step,
                       struct span bytes)
{
    struct request *r = request_new(e, NULL);
    if (r == NULL) {
        return false;
    }
    if (!chain_push_copy(e->memory, &u->link->conn.out, bytes)) {
        request_free(e, r);
        return false;
    }
    r->task = (uint8_t)task;
    r->step = step;
    r->size = bytes.len;
    r->upstream = u;
    r->sent_us = e->now_us;
    u->queued_end += bytes.len;
    r->sent_end = u->queued_end;
    request_move(r, REQUEST_SENT);
    list_append(&u->in_flight, &r->place);
    conn_touch(e, &u->link->conn);
    return true;
}

void upstream_unhold(struct engine *e, struct upstream *u, struct request *r)
{
    (void)e;
    assert(r->state == REQUEST_READY && r->upstream == u);
    list_remove(&r->place);
    r->upstream = NULL;
    u->endpoint->cluster->held--;
}

void upstream_hold(struct engine *e,
                   struct upstream *u,
                   struct request *r,
                   struct list_node *before)
{
    request_compact(e, r);
    request_move(r, REQUEST_READY);
    r->upstream = u;
    list_insert_before(before, &r->place);
    u->endpoint->cluster->held++;
    downstream_wake_at(e, r->downstream, r->deadline_us);
}

/* What comes behind a MULTI that was taken: without its EXEC the block would
 * stay open at the server, and swallow what follows. */
static bool is_rest_of_block(const struct request *r)
{
    return r->in_block &&
           (r->command == NULL || r->command->id != COMMAND_MULTI);
}

/* Why r can't wait for the lane, or NULL. */
static const char *refusal_to_hold(struct engine *e,
                                   struct upstream *u,
                                   const struct request *r)
{
    struct cluster *c = u->endpoint->cluster;
    const struct upstream_config *config = c->config;
    if (is_rest_of_block(r)) {
        return NULL;
    }
    if (u->state != UPSTREAM_UP && !r->ambiguous &&
        endpoint_fails_fast(e, u->endpoint)) {
        c->stats.fail_fast++;
        return u->endpoint->last_error;
    }
    if (!config->retry && u->state == UPSTREAM_WAITING) {
        return u->endpoint->last_error;
    }
    if (c->held >= config->held_requests_max) {
        e->stats.limit_held_requests_max++;
        engine_trace_limit(e, c, "held_requests_max");
        return "held_requests_max requests wait already";
    }
    return NULL;
}

static void hold_new(struct engine *e, struct upstream *u, struct request *r)
{
    struct cluster *c = u->endpoint->cluster;
    const char *why = refusal_to_hold(e, u, r);
    if (why != NULL) {
        request_give_up(e, r, c, OUTCOME_NOT_SENT, GIVE_UP_POLICY, why);
        return;
    }
    e->stats.limit_lane_buffer_max +=
        u->state == UPSTREAM_UP && list_empty(&u->waiting);
    upstream_hold(e, u, r, &u->waiting);
    upstream_want(e, u);
}

void upstream_submit(struct engine *e, struct upstream *u, struct request *r)
{
    if (deadline_passed(e, r)) {
        request_give_up(e, r, u->endpoint->cluster, OUTCOME_NOT_SENT,
                        GIVE_UP_DEADLINE, "waited for what came before it");
        return;
    }
    if (u->state != UPSTREAM_UP || !list_empty(&u->waiting) ||
        !upstream_has_room(u)) {
        hold_new(e, u, r);
    } else if (r->task != TASK_SESSION && r->task != TASK_SETINFO) {
        upstream_send(e, u, r);
    } else {
        upstream_hold(e, u, r, &u->waiting);
        upstream_flush(e, u);
    }
}

/* The lane has the database, user and protocol of r's client (reliability.md
 * I8). */
static bool lane_fits(const struct engine *e,
                      const struct upstream *u,
                      const struct request *r)
{
    const struct downstream *d = r->downstream;
    const struct session *s =
        r->task == TASK_SESSION ? d->session_next : downstream_session(e, d);
    return session_same_lane(u->session, s);
}

/* Send one that has waited, or end it. */
static void send_held(struct engine *e, struct upstream *u, struct request *r)
{
    struct cluster *c = u->endpoint->cluster;
    upstream_unhold(e, u, r);
    if (deadline_passed(e, r)) {
        request_give_up(e, r, c, OUTCOME_NOT_SENT, GIVE_UP_DEADLINE,
                        u->endpoint->last_error);
        return;
    }
    if (r->write_replay && u->fence_needed && !u->fence_done) {
        c->stats.fence_failed++;
        request_give_up(e, r, c, OUTCOME_AMBIGUOUS, GIVE_UP_UNSAFE,
                        "the server would not close the old connection "
                        "(CLIENT KILL), which may still deliver it");
        return;
    }
    r->write_replay = false;
    if (!lane_fits(e, u, r)) {
        c->stats.ledger_mismatch++;
        request_give_up(e, r, c, OUTCOME_NOT_SENT, GIVE_UP_POLICY,
                        "its lane has another session");
        return;
    }
    if (r->task == TASK_SESSION || r->task == TASK_SETINFO) {
        redis_session_accepted(e, u, r);
        return;
    }
    upstream_send(e, u, r);
}

void upstream_flush(struct engine *e, struct upstream *u)
{
    while (u->state == UPSTREAM_UP && !list_empty(&u->waiting) &&
           upstream_has_room(u)) {
        send_held(e, u, CONTAINER_OF(u->waiting.next, struct request, place));
    }
}

/* ---- up, lost, refused ------------------------------------------------- */

/* A connection that lasted so long was a success, even if nobody used it. */
enum {
    STEADY_US = 1000 * 1000
};

void upstream_up(struct engine *e, struct upstream *u)
{
    u->up_us = e->now_us;
    struct cluster *c = u->endpoint->cluster;
    u->deadline_us = 0;
    upstream_move(e, u, UPSTREAM_UP, NULL, 0);
    endpoint_reached(e, u->endpoint);
    c->stats.lanes_opened++;
    c->stats.fences += u->fence_needed && u->fence_done;
    timer_clear(&e->timers, &u->timer);
    if (config_of(u)->ping_idle_us > 0) {
        upstream_wake_at(e, u, e->now_us + config_of(u)->ping_idle_us);
    }
    if (!is_needed(e, u)) {
        upstream_wake_at(e, u, e->now_us + STEADY_US);
    }
    upstream_flush(e, u);
    if (u->fence_done) {
        u->fence_needed = false;
        u->fence_id = 0;
    }
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
    if (!loss->peer_ended && !list_empty(&u->in_flight)) {
        u->fence_needed = true;
        u->fence_done = false;
        u->fence_id = u->client_id;
    }
}

void upstream_lost(struct engine *e,
                   struct upstream *u,
                   const struct upstream_loss *loss)
{
    if (u->state != UPSTREAM_UP) {
        attempt_failed(e, u, loss->why, loss->tell);
        return;
    }
    struct downstream *owner = u->owner;
    bool was_raw = u->raw;
    bool quick = u->answered && loss->peer_ended;
    uint64_t taken = u->taken;
    u->endpoint->cluster->stats.lanes_lost++;
    if (u->answered || e->now_us - u->up_us >= STEADY_US) {
        backoff_reset(&u->backoff);
    }
    remember_fence(u, loss);
    close_link(e, u, loss->tell);
    /* Not UP any more before anybody is answered: what that sets off must
     * wait for the next connection. The log hears of it with the delay. */
    u->endpoint->lanes_up--;
    u->state = UPSTREAM_WAITING;
    timer_clear(&e->timers, &u->timer);
    endpoint_failed(e, u->endpoint, loss->why);
    if (owner != NULL && was_raw) {
        u->endpoint->cluster->stats.pubsub_gaps += !owner->closing;
        downstream_drop_new(e, owner);
        downstream_finish(e, owner); /* what the server said last still goes */
        wait_and_retry(e, u, loss->why, quick);
        return;
    }
    close_cut_client(e, u);
    if (u->state == UPSTREAM_CLOSED) {
        return;
    }
    drop_unwanted(e, u);
    settle_lane(e, u, loss, taken);
    if (owner != NULL && !downstream_gone(owner) && owner->session_unknown) {
        downstream_close(e, owner,
                         "its own server connection was lost with state that "
                         "cannot be established again");
    }
    if (u->state == UPSTREAM_WAITING) {
        wait_and_retry(e, u, loss->why, quick);
    }
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
    if (u->state == UPSTREAM_HANDSHAKE) {
        attempt_failed(e, u, why, true);
    }
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
            CONTAINER_OF(node, struct request, place)->sent_us = e->now_us;
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
    const struct upstream_config *config = config_of(u);
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
    if (e->now_us >= due_us && list_empty(&u->in_flight) && !u->raw) {
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
    if (!is_needed(e, u) && u->owner == NULL && list_empty(&u->in_flight)) {
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

static void opening_too_late(struct engine *e, struct upstream *u)
{
    struct endpoint *p = u->endpoint;
    if (u->state == UPSTREAM_RESOLVING && p->n_resolved > 0) {
        connect_next(e, u); /* the last good answer */
        return;
    }
    if (u->state == UPSTREAM_CONNECTING && !p->address->is_unix &&
        u->address_next < p->n_resolved) {
        endpoint_failed(e, p, "connection timed out");
        close_link(e, u, true);
        if (open_link(e, u)) {
            connect_next(e, u);
            return;
        }
    }
    const char *why = u->state == UPSTREAM_RESOLVING ? "name lookup timed out"
                      : u->state == UPSTREAM_CONNECTING
                          ? "connection timed out"
                          : "no answer to the handshake (is the server hung?)";
    attempt_failed(e, u, why, true);
}

void upstream_timeout(struct engine *e, struct upstream *u)
{
    switch ((enum upstream_state)u->state) {
    case UPSTREAM_WAITING:
        if (is_needed(e, u)) {
            begin_attempt(e, u);
        } else {
            wait_and_retry(e, u, "nobody needs it any more", false);
        }
        break;
    case UPSTREAM_HANDSHAKE:
        if (e->now_us < u->deadline_us) {
            handshake_again(e, u);
            break;
        }
        opening_too_late(e, u);
        break;
    case UPSTREAM_RESOLVING:
    case UPSTREAM_CONNECTING: opening_too_late(e, u); break;
    case UPSTREAM_UP: check_up(e, u); break;
    case UPSTREAM_IDLE:
    case UPSTREAM_CLOSED:
    case UPSTREAM_STATE_COUNT: break;
    }
}
