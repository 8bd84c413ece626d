#include "proxy/core/downstream.h"

#include <assert.h>
#include <stdio.h>

#include "proxy/core/input.h"
#include "proxy/core/lane_pool.h"
#include "proxy/core/lane_set.h"
#include "proxy/core/ledger.h"
#include "proxy/core/redis_gather.h"
#include "proxy/core/redis_pubsub.h"
#include "proxy/core/state.h"

const struct session *downstream_session(const struct engine *e,
                                         const struct downstream *d)
{
    (void)e;
    return d->session != NULL ? d->session : d->listener->cluster->fresh;
}

struct downstream *downstream_new(struct engine *e, struct listener *l)
{
    if (!engine_reserve_timer(e)) {
        return NULL;
    }
    struct downstream *d = memory_take(e->memory, sizeof(*d));
    if (d == NULL) {
        return NULL;
    }
    if (!conn_open(e, &d->conn, CONN_DOWNSTREAM)) {
        memory_give(e->memory, d);
        return NULL;
    }
    d->listener = l;
    d->timer.kind = TIMER_DOWNSTREAM;
    list_init(&d->requests);
    l->n_clients++;
    e->n_downstreams++;
    return d;
}

void downstream_accepted(struct engine *e, struct downstream *d)
{
    e->stats.clients_accepted++;
    d->progress_us = e->now_us;
    if (d->listener->config->idle_timeout_us > 0) {
        downstream_wake_at(e, d,
                           e->now_us + d->listener->config->idle_timeout_us);
    }
}

void downstream_wake_at(struct engine *e, struct downstream *d, uint64_t at_us)
{
    if (at_us == UINT64_MAX) {
        return; /* a deadline of what may wait for ever */
    }
    if (d->timer.place == TIMER_OFF || d->timer.at_us > at_us) {
        timer_set(&e->timers, &d->timer, at_us);
    }
}

/* ---- the end ----------------------------------------------------------- */

/* The client has gone: what was not sent is dropped, the reply of what was
 * sent has nobody to go to (redis.md §2). */
static void drop_requests(struct engine *e, struct downstream *d)
{
    while (!list_empty(&d->requests)) {
        struct request *r =
            CONTAINER_OF(d->requests.next, struct request, arrival);
        list_remove(&r->arrival);
        if (r->gather != NULL) {
            gather_orphan(e, r);
        }
        r->downstream = NULL;
        switch ((enum request_state)r->state) {
        case REQUEST_SENT:
        case REQUEST_COMMITTED:
            if (r->upstream != NULL) {
                request_drop_bytes(e, r);
                continue; /* stays in flight, for the order of replies */
            }
            break;
        case REQUEST_READY:
            if (r->upstream != NULL) {
                upstream_unhold(e, r->upstream, r);
            }
            break;
        case REQUEST_NEW:
        case REQUEST_SPLIT:
        case REQUEST_SETTLING:
        case REQUEST_BACKOFF:
        case REQUEST_DONE:
        case REQUEST_STATE_COUNT: break;
        }
        request_free(e, r);
    }
}

static void end(struct engine *e, struct downstream *d, bool tell)
{
    d->closing = true;
    drop_requests(e, d);
    downstream_resume_all(e, d);
    input_drop(e, d);
    downstream_unbind(e, d);
    ledger_free(e, d);
    session_free(e, d->session);
    session_free(e, d->session_next);
    d->session = NULL;
    d->session_next = NULL;
    timer_clear(&e->timers, &d->timer);
    conn_close(e, &d->conn, tell);
    d->listener->n_clients--;
    e->n_downstreams--;
}

void downstream_close(struct engine *e, struct downstream *d, const char *why)
{
    if (downstream_gone(d)) {
        return;
    }
    if (why != NULL) {
        engine_trace(e, &(struct trace_record){
                            .type = TRACE_CLIENT,
                            .upstream = d->listener->cluster->config->name,
                            .listener = d->listener->config->name,
                            .client = d->conn.id,
                            .to = "closed",
                            .reason = why });
    }
    d->doomed = true;
    d->closing = true;
    downstream_later(e, d);
}

void downstream_closed(struct engine *e, struct downstream *d)
{
    end(e, d, false);
}

/* A command that waits at the server, or will, perhaps for ever, and would take
 * something for a client that may be gone. */
static bool is_blocked(const struct downstream *d)
{
    LIST_FOR_EACH (node, &d->requests) {
        const struct request *r = CONTAINER_OF(node, struct request, arrival);
        bool waits = r->blocking != NULL || r->streaming;
        if (waits && r->state != REQUEST_NEW && r->state != REQUEST_DONE &&
            r->command != NULL && (r->command->flags & COMMAND_BLOCKING) != 0) {
            return true;
        }
    }
    return false;
}

bool downstream_listens(const struct downstream *d)
{
    return (d->lane != NULL && d->lane->raw) ||
           (d->ledger != NULL && subscriber_is_active(d->ledger));
}

void downstream_ended(struct engine *e, struct downstream *d)
{
    if (downstream_listens(d) || is_blocked(d)) {
        end(e, d, true);
        return;
    }
    d->ended = true;
    d->ended_us = e->now_us;
    downstream_wake_at(e, d, e->now_us + END_GRACE_US);
    downstream_later(e, d);
}

void downstream_left(struct engine *e, struct downstream *d)
{
    d->left = true;
    if (downstream_listens(d) || is_blocked(d)) {
        end(e, d, true);
    }
}

static bool is_finished(const struct downstream *d)
{
    return d->closing && d->unwritten == 0 && list_empty(&d->requests);
}

void downstream_finish(struct engine *e, struct downstream *d)
{
    if (downstream_gone(d)) {
        return;
    }
    d->closing = true;
    conn_pause(e, &d->conn, true);
    downstream_later(e, d);
}

/* ---- replies ----------------------------------------------------------- */

bool downstream_write(struct engine *e,
                      struct downstream *d,
                      struct buf *b,
                      uint32_t offset,
                      uint32_t len)
{
    if (!chain_push_part(e->memory, &d->conn.out, b, offset, len)) {
        e->stats.limit_memory++;
        downstream_close(e, d, "out of memory for its reply");
        return false;
    }
    if (d->unwritten == 0) {
        d->progress_us = e->now_us;
    }
    d->unwritten += len;
    conn_touch(e, &d->conn);
    return true;
}

bool downstream_is_full(const struct downstream *d)
{
    const struct listener_config *config = d->listener->config;
    return d->n_requests >= config->pipeline_max ||
           d->unwritten + d->held + d->gathered >= config->client_buffer_max;
}

static void count_reply(struct engine *e, const struct request *r)
{
    struct cluster *c = r->downstream->listener->cluster;
    c->stats.replies++;
    latency_add(&c->stats.request, e->now_us - r->arrived_us);
}

static void forget(struct engine *e, struct downstream *d, struct request *r)
{
    assert(d->undispatched != r);
    list_remove(&r->arrival);
    d->n_requests--;
    request_free(e, r);
}

/* The first request is DONE: its reply leaves. */
static void send_reply(struct engine *e,
                       struct downstream *d,
                       struct request *r)
{
    if (r->refused_block && d->block == BLOCK_BROKEN) {
        d->block_until_us = e->now_us + REFUSED_BLOCK_US;
    }
    d->held -= r->reply.bytes;
    if (!r->quiet && r->reply.head != NULL) {
        if (d->unwritten == 0) {
            d->progress_us = e->now_us;
        }
        d->unwritten += r->reply.bytes;
        chain_move(&d->conn.out, &r->reply);
        conn_touch(e, &d->conn);
    }
    forget(e, d, r);
}

void downstream_flush(struct engine *e, struct downstream *d)
{
    while (!list_empty(&d->requests)) {
        struct request *r =
            CONTAINER_OF(d->requests.next, struct request, arrival);
        if (r->state != REQUEST_DONE) {
            break;
        }
        send_reply(e, d, r);
    }
}

/* Send the replies whose turn has come, also parts of them. */
static void flush(struct engine *e, struct downstream *d)
{
    downstream_flush(e, d);
    if (d->ledger != NULL) {
        redis_push_late(e, d);
    }
    if (list_empty(&d->requests)) {
        return;
    }
    struct request *r = CONTAINER_OF(d->requests.next, struct request, arrival);
    if (r->fragment) {
        gather_turn(e, r);
    }
}

void downstream_later(struct engine *e, struct downstream *d)
{
    if (!d->has_work) {
        d->has_work = true;
        d->work_next = e->work;
        e->work = d;
    }
}

/* The lane whose reply is due next must be read: nothing else lets go of what
 * is held behind it. */
static void resume_head(struct engine *e, struct downstream *d)
{
    struct upstream *u = downstream_head_lane(d);
    if (u != NULL && u->stalled_by == d &&
        d->unwritten < d->listener->config->client_buffer_max / 2) {
        downstream_resume(e, u);
    }
}

/* What has waited for an answer may go on now. */
static void go_on(struct engine *e, struct downstream *d)
{
    flush(e, d);
    if (d->n_settling > 0) {
        redis_refused_settle(e, d);
    }
    if (d->lane != NULL && !d->doomed) {
        redis_private_done(e, d);
    }
    if (d->ledger != NULL && !d->doomed) {
        subscriber_work(e, d);
    }
    if (d->undispatched != NULL && !d->doomed) {
        downstream_dispatch(e, d);
    }
    if (d->ledger != NULL) {
        lane_pool_pass_on(e, d);
    }
    flush(e, d);
    if (d->n_stalled > 0) {
        resume_head(e, d);
    }
    if (!d->closing && (d->input != NULL || d->conn.paused)) {
        input_read_on(e, d);
    }
    if (d->ended && (d->input == NULL || d->input->unread.head == NULL)) {
        d->closing = true; /* there is no more to come */
    }
    if (d->doomed || is_finished(d)) {
        end(e, d, true);
    }
}

void downstream_work(struct engine *e)
{
    while (e->work != NULL) {
        struct downstream *d = e->work;
        e->work = d->work_next;
        d->has_work = false;
        if (d->doomed && !d->conn.dead) {
            end(e, d, true);
        } else if (!d->conn.dead) {
            go_on(e, d);
        }
    }
}

/* Bookkeeping of an answer; the reply itself is the caller's matter. */
static void mark_answered(struct engine *e,
                          struct downstream *d,
                          struct request *r)
{
    if (r->state == REQUEST_SETTLING || r->state == REQUEST_BACKOFF) {
        d->n_settling--;
    }
    if (r->task == TASK_RAW || r->task == TASK_SUBSCRIBE) {
        d->alone = false;
    }
    if (r->open) {
        d->n_open--;
        d->n_replica_open -= r->from_replica;
        r->open = false;
    }
    request_move(r, REQUEST_DONE);
    if (!r->owed) {
        count_reply(e, r);
    }
    if (d->input != NULL && d->input->streaming == r) {
        d->input->streaming = NULL;
        d->input->discard = r->incomplete;
    }
}

void downstream_answer(struct engine *e, struct request *r)
{
    struct downstream *d = r->downstream;
    if (r->fragment) {
        gather_answer(e, r, NULL, 0, 0);
        return;
    }
    mark_answered(e, d, r);
    request_drop_bytes(e, r);
    d->held += r->reply.bytes;
    downstream_later(e, d);
}

void downstream_reply(struct engine *e,
                      struct request *r,
                      struct buf *b,
                      uint32_t offset,
                      uint32_t len)
{
    struct downstream *d = r->downstream;
    if (r->fragment) {
        gather_answer(e, r, b, offset, len);
        return;
    }
    mark_answered(e, d, r);
    if (d->requests.next == &r->arrival) {
        bool quiet = r->quiet;
        forget(e, d, r);
        if (!quiet && !downstream_write(e, d, b, offset, len)) {
            return;
        }
        if (!list_empty(&d->requests) || d->input != NULL || d->closing ||
            d->conn.paused || d->lane != NULL) {
            downstream_later(e, d); /* else nothing waits for this */
        }
        return;
    }
    request_drop_bytes(e, r);
    if (!r->quiet && !chain_push_part(e->memory, &r->reply, b, offset, len)) {
        e->stats.limit_memory++;
        downstream_close(e, d, "out of memory for its reply");
        return;
    }
    d->held += r->reply.bytes;
    downstream_later(e, d);
}

void downstream_answer_span(struct engine *e,
                            struct request *r,
                            struct span text)
{
    chain_clear(e->memory, &r->reply);
    if (!r->quiet && !chain_push_copy(e->memory, &r->reply, text)) {
        e->stats.limit_memory++;
        downstream_close(e, r->downstream, "out of memory for its reply");
        return;
    }
    downstream_answer(e, r);
}

void downstream_answer_text(struct engine *e,
                            struct request *r,
                            const char *text)
{
    downstream_answer_span(e, r, span_of(text));
}

void downstream_end_stream(struct engine *e, struct request *r)
{
    struct downstream *d = r->downstream;
    mark_answered(e, d, r);
    request_drop_bytes(e, r);
    downstream_later(e, d);
}

void downstream_give_up_all(struct engine *e,
                            struct downstream *d,
                            const char *why)
{
    struct cluster *c = d->listener->cluster;
    d->undispatched = NULL;
    for (struct list_node *node = d->requests.next; node != &d->requests;) {
        struct request *r = CONTAINER_OF(node, struct request, arrival);
        enum outcome outcome = OUTCOME_NOT_SENT;
        if (r->state == REQUEST_DONE || r->state == REQUEST_SPLIT) {
            node = node->next; /* split: its fragments were in front of it */
            continue;
        }
        if (r->state == REQUEST_COMMITTED) {
            downstream_close(e, d, why);
            return;
        }
        if (r->state == REQUEST_READY) {
            upstream_unhold(e, r->upstream, r);
        } else if (r->state == REQUEST_SENT) {
            outcome = OUTCOME_AMBIGUOUS;
            if (!upstream_abandon(e, r)) {
                downstream_close(e, d, why);
                return;
            }
        }
        request_give_up(e, r, c, outcome, GIVE_UP_DEADLINE, why);
        if (downstream_gone(d)) {
            return;
        }
        node = d->requests.next;
    }
}

/* ---- requests ---------------------------------------------------------- */

void downstream_dispatch(struct engine *e, struct downstream *d)
{
    while (d->undispatched != NULL && !d->doomed) {
        struct request *r = d->undispatched;
        struct list_node *next = r->arrival.next;
        bool is_new = r->state == REQUEST_NEW; /* of what was taken back, some
                                                  in between may be out */
        if (is_new && (d->n_settling > 0 || d->session_next != NULL)) {
            break; /* what came before is not settled */
        }
        d->undispatched = next == &d->requests
                              ? NULL
                              : CONTAINER_OF(next, struct request, arrival);
        if (is_new && !redis_dispatch(e, d, r)) {
            d->undispatched = r;
            break;
        }
    }
}

void downstream_drop_new(struct engine *e, struct downstream *d)
{
    d->undispatched = NULL;
    for (struct list_node *node = d->requests.next, *next; node != &d->requests;
         node = next) {
        next = node->next;
        struct request *r = CONTAINER_OF(node, struct request, arrival);
        if (r->state == REQUEST_NEW) {
            list_remove(node);
            d->n_requests--;
            request_free(e, r);
        }
    }
}

static bool can_be_recalled(const struct request *r)
{
    return r->state == REQUEST_READY &&
           !(r->write_replay && r->upstream->fence_needed);
}

/* r is NEW again. But where a later one is out, which would have to wait for r
 * if it is refused, r stays in front of that one and waits as a refused one. */
static void recall_one(struct engine *e,
                       struct downstream *d,
                       struct request *r,
                       bool later_ones_out)
{
    upstream_unhold(e, r->upstream, r);
    if (later_ones_out && redis_refused_minds(d, r)) {
        request_move(r, REQUEST_BACKOFF);
        d->n_settling++;
        return;
    }
    request_move(r, REQUEST_NEW);
    r->open = false;
    d->n_open--;
    d->n_replica_open -= r->from_replica;
}

void downstream_recall(struct engine *e,
                       struct downstream *d,
                       const struct request *behind)
{
    const struct list_node *front =
        behind != NULL ? &behind->arrival : &d->requests;
    for (struct list_node *node = front->next; node != &d->requests;
         node = node->next) {
        struct request *r = CONTAINER_OF(node, struct request, arrival);
        if (can_be_recalled(r) && !gather_explode_waiting(e, r)) {
            return; /* d is closed */
        }
    }
    /* The last one first: what becomes of one depends on those behind it. */
    bool out = false;
    for (struct list_node *node = d->requests.prev; node != front;
         node = node->prev) {
        struct request *r = CONTAINER_OF(node, struct request, arrival);
        if (can_be_recalled(r)) {
            recall_one(e, d, r, out);
        }
        out = out || r->open;
    }
    LIST_FOR_EACH (node, &d->requests) {
        struct request *r = CONTAINER_OF(node, struct request, arrival);
        if (r->state == REQUEST_NEW) {
            d->undispatched = r; /* perhaps it waited for its turn before */
            break;
        }
    }
}

void downstream_take(struct engine *e, struct downstream *d, struct request *r)
{
    struct cluster *c = d->listener->cluster;
    c->stats.requests++;
    c->stats.request_bytes += r->size;
    list_append(&d->requests, &r->arrival);
    d->n_requests++;
    if (d->undispatched != NULL) {
        return;
    }
    if (d->n_settling > 0 || d->session_next != NULL ||
        !redis_dispatch(e, d, r)) {
        d->undispatched = r;
    }
}

/* ---- as a connection ---------------------------------------------------- */

static struct downstream *downstream_of(struct conn *c)
{
    return CONTAINER_OF(c, struct downstream, conn);
}

static void conn_accepted(struct engine *e,
                          struct conn *c,
                          const struct event *event)
{
    struct downstream *d = downstream_of(c);
    d->local_port = event->local_port;
    memcpy(d->local_ip, event->local_ip, sizeof(d->local_ip));
    downstream_accepted(e, d);
}

static void conn_bytes(struct engine *e, struct conn *c, struct slice s)
{
    input_bytes(e, downstream_of(c), s);
}

static void conn_written(struct engine *e, struct conn *c, uint64_t count)
{
    downstream_written(e, downstream_of(c), count);
}

static void conn_ended(struct engine *e, struct conn *c)
{
    downstream_ended(e, downstream_of(c));
}

static void conn_left(struct engine *e, struct conn *c)
{
    downstream_left(e, downstream_of(c));
}

static void conn_closed(struct engine *e, struct conn *c, int error)
{
    (void)error;
    downstream_closed(e, downstream_of(c));
}

static void conn_drain(struct engine *e, struct conn *c, bool again)
{
    struct downstream *d = downstream_of(c);
    if (again) {
        downstream_give_up_all(e, d, "redial is shutting down");
    }
    downstream_finish(e, d);
}

static void conn_end(struct engine *e, struct conn *c)
{
    downstream_close(e, downstream_of(c), NULL);
}

static void conn_release(struct engine *e, struct conn *c)
{
    memory_give(e->memory, downstream_of(c));
}

const struct conn_class downstream_class = {
    .accepted = conn_accepted,
    .bytes = conn_bytes,
    .written = conn_written,
    .ended = conn_ended,
    .left = conn_left,
    .closed = conn_closed,
    .drain = conn_drain,
    .end = conn_end,
    .release = conn_release,
};
