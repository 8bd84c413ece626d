#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#include "proxy/core/grpc_reply.h"
#include "proxy/core/grpc_request.h"
#include "proxy/core/grpc_trace.h"
#include "proxy/core/state.h"

/* ---- life ------------------------------------------------------------------- */

enum {
    WAIT_GOES_ON_US = 1000 * 1000, /* an attempt that was never sent and took
                                      less is part of the wait */
};

static struct grpc_method_stats *stats_of(const struct grpc_call *call)
{
    return grpc_stats_of(&call->channel->stats, call->method.label);
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static struct grpc_call *call_new(struct engine *e,
                                  struct grpc_client *c,
                                  struct h2_stream *s)
{
    e->n_grpc_timers++;
    if (!engine_reserve_timer(e)) {
        e->n_grpc_timers--;
        return NULL;
    }
    struct grpc_call *call = pool_take(&e->calls);
    if (call == NULL) {
        e->n_grpc_timers--;
        return NULL;
    }
    *call = (struct grpc_call){
        .client = c,
        .channel = c->listener->channel,
        .down = s,
        .timer = { .kind = TIMER_GRPC_CALL },
        .begun_us = e->now_us,
        .idle_since_us = e->now_us,
        .attempts = { .configured = 1 },
    };
    s->user = call;
    list_append(&c->calls, &call->client_node);
    c->n_calls++;
    e->grpc.calls++;
    return call;
}

/* Both its client's stream and its attempt are over. */
static void call_free(struct engine *e, struct grpc_call *call)
{
    assert(call->state == GRPC_CALL_DONE && call->down == NULL);
    assert(call->up == NULL);
    timer_clear(&e->timers, &call->timer);
    grpc_client_forget(e, call->client, call);
    e->grpc.bytes -= call->reply.bytes;
    chain_clear(e->memory, &call->reply);
    if (call->head != NULL) {
        h2_block_unref(call->head);
    }
    if (call->trailers != NULL) {
        h2_block_unref(call->trailers);
    }
    h2_block_unref(call->request);
    memory_give(e->memory, call->text);
    e->grpc.calls--;
    e->n_grpc_timers--;
    pool_give(&e->calls, call);
}

void grpc_call_wake_at(struct engine *e, struct grpc_call *call, uint64_t at_us)
{
    if (call->timer.place == TIMER_OFF || call->timer.at_us > at_us) {
        timer_set(&e->timers, &call->timer, at_us);
    }
}

/* Words of a failure: for the client if it is the last one, else for the
 * message of the deadline. Without memory there are none. */
static void note(struct engine *e, struct grpc_call *call, struct span words)
{
    if (call->text == NULL) {
        call->text = memory_take(e->memory, GRPC_TEXT_MAX);
        if (call->text == NULL) {
            return;
        }
    }
    size_t n = smaller(words.len, GRPC_TEXT_MAX - 1);
    if (n > 0 && (const char *)words.data != call->text) {
        memmove(call->text, words.data, n);
    }
    call->text[n] = '\0';
}

/* ---- its end ------------------------------------------------------------------- */

static void leave_waiting(struct engine *e, struct grpc_call *call)
{
    /* One that the channel is just starting stands in no line. */
    if (call->state == GRPC_CALL_WAITING && call->place.next != NULL) {
        grpc_channel_withdraw(e, call->channel, call);
    }
}

static void count_done(struct engine *e, struct grpc_call *call)
{
    struct grpc_channel *ch = call->channel;
    struct grpc_method_stats *m = stats_of(call);
    ch->stats.not_retried[call->reason]++;
    ch->stats.local_status[call->status][call->last_class] += call->local;
    grpc_ended_add(&m->calls[call->status], e->now_us - call->begun_us,
                   call->log.received, call->reply_bytes + call->reply.bytes);
    grpc_retries_add(m, call->attempts.configured - 1, call->transparent,
                     call->delay_us);
}

/* The status is decided. */
static void call_done(struct engine *e,
                      struct grpc_call *call,
                      enum grpc_status status,
                      enum grpc_reason reason)
{
    assert(call->up == NULL && call->state != GRPC_CALL_DONE);
    call->state = GRPC_CALL_DONE;
    call->committed = true;
    call->status = (uint8_t)status;
    call->reason = (uint8_t)reason;
    if (call->head != NULL && !call->forwarded) {
        call->channel->stats.held_headers[GRPC_HELD_FINAL]++;
    }
    if (status != GRPC_OK) {
        call->stop = call->stop || grpc_reply_stops_client(call);
    }
    timer_clear(&e->timers, &call->timer);
    grpc_log_clear(e, &call->log);
    grpc_release_unit(&call->attempts, &call->channel->budget);
    call->channel->budget.calls--;
    count_done(e, call);
    grpc_trace_call_done(e, call);
    grpc_reply_finish(e, call);
    if (call->reply.bytes > 0 && call->deadline_us != UINT64_MAX) {
        grpc_call_wake_at(e, call, call->deadline_us);
    }
}

/* The status was decided in time, but the client has not taken what comes
 * before it (L4: in any state). The call has been counted. */
static void reply_expired(struct engine *e,
                          struct grpc_call *call,
                          const char *text)
{
    if (call->down == NULL || call->local || call->reply.bytes == 0) {
        return;
    }
    call->local = true;
    call->status = GRPC_DEADLINE_EXCEEDED;
    call->stop = call->stop || grpc_reply_stops_client(call);
    note(e, call, span_of(text));
    grpc_reply_finish(e, call);
}

static void count_attempt(struct engine *e,
                          struct grpc_call *call,
                          const struct grpc_outcome *o)
{
    struct grpc_method_stats *m = stats_of(call);
    call->channel->stats.attempt_outcomes[o->class]++;
    if (o->class != GRPC_F0_NO_CONNECTION) {
        grpc_ended_add(&m->attempts[o->status], e->now_us - call->attempt_us,
                       call->log.sent, call->reply_bytes + call->reply.bytes);
    }
}

/* The last failure, for the words of the deadline. */
static void remember(struct engine *e,
                     struct grpc_call *call,
                     const struct grpc_outcome *o)
{
    call->last_class = (uint8_t)o->class;
    call->status = (uint8_t)o->status;
    if (!o->received) {
        note(e, call, span_of(o->text));
    } else if (o->status != GRPC_OK) {
        note(e, call, h2_block_value(call->trailers, H2_GRPC_MESSAGE));
    }
}

void grpc_call_fail(struct engine *e,
                    struct grpc_call *call,
                    enum grpc_status status,
                    const char *text)
{
    if (call->state == GRPC_CALL_DONE) {
        return;
    }
    const struct grpc_outcome outcome = { .class = GRPC_F7_LOCAL,
                                          .status = status,
                                          .text = text };
    leave_waiting(e, call);
    if (call->link != NULL) {
        count_attempt(e, call, &outcome);
        grpc_attempt_cancel(e, call, H2_CANCEL);
    }
    remember(e, call, &outcome);
    call->local = true;
    call_done(e, call, status, GRPC_REASON_LOCAL);
}

/* L4. */
static void deadline_passed(struct engine *e, struct grpc_call *call)
{
    char text[GRPC_TEXT_MAX + 96];
    int n = snprintf(text, sizeof(text),
                     "deadline exceeded after %" PRIu32 " attempt%s",
                     call->n_attempts, call->n_attempts == 1 ? "" : "s");
    if (call->status != GRPC_OK) {
        (void)snprintf(text + n, sizeof(text) - (size_t)n, "; last: %s: %s",
                       grpc_status_name(call->status),
                       call->text == NULL ? "" : call->text);
    }
    if (call->state == GRPC_CALL_DONE) {
        reply_expired(e, call, text);
    } else {
        grpc_call_fail(e, call, GRPC_DEADLINE_EXCEEDED, text);
    }
}

/* The client wants it no more (A1). */
static void cancel(struct engine *e, struct grpc_call *call)
{
    call->down = NULL;
    if (call->state != GRPC_CALL_DONE) {
        grpc_call_fail(e, call, GRPC_CANCELLED, "cancelled by the client");
    }
    call_free(e, call);
}

void grpc_call_stream_closed(struct engine *e,
                             struct grpc_call *call,
                             uint32_t code)
{
    (void)code;
    cancel(e, call);
}

void grpc_call_client_gone(struct engine *e, struct grpc_call *call)
{
    call->down->user = NULL;
    cancel(e, call);
}

/* ---- its beginning --------------------------------------------------------------- */

static void submit(struct engine *e, struct grpc_call *call)
{
    call->state = GRPC_CALL_WAITING;
    grpc_channel_submit(e, call->channel, call);
}

static void set_deadline(struct engine *e,
                         struct grpc_call *call,
                         uint64_t timeout_us)
{
    uint64_t own = call->channel->config->grpc.max_call_duration_us;
    timeout_us = smaller(timeout_us, call->method.policy->timeout_us);
    timeout_us = smaller(timeout_us, own == 0 ? GRPC_NO_LIMIT : own);
    call->deadline_us = timeout_us > UINT64_MAX - 1 - e->now_us
                            ? UINT64_MAX
                            : e->now_us + timeout_us;
    if (call->deadline_us != UINT64_MAX) {
        grpc_call_wake_at(e, call, call->deadline_us);
    }
}

void grpc_call_begin(struct engine *e,
                     struct grpc_client *c,
                     struct h2_stream *s,
                     struct h2_block *block,
                     bool end)
{
    struct grpc_channel *ch = c->listener->channel;
    struct grpc_refusal refusal;
    uint64_t timeout_us;
    ch->stats.dropped_fields += block->n_dropped;
    bool valid = grpc_request_check(e, c, block, &timeout_us, &refusal);
    struct grpc_call *call = valid ? call_new(e, c, s) : NULL;
    if (call == NULL) {
        if (valid) {
            ch->stats.limit_memory++;
            refusal = (struct grpc_refusal){ .http = "200",
                                             .status = GRPC_RESOURCE_EXHAUSTED,
                                             .text = "out of memory" };
        }
        ch->stats.limit_max_calls += refusal.stop;
        grpc_reply_refuse(e, c, s, &refusal);
        h2_block_unref(block);
        return;
    }
    call->request = block;
    call->half_closed = end;
    grpc_method_find(&ch->config->grpc, h2_block_value(block, H2_PATH),
                     &call->method);
    stats_of(call)->calls_started++;
    ch->budget.calls++;
    if (block->first[H2_GRPC_ATTEMPTS] != 0 &&
        block->twice[H2_GRPC_ATTEMPTS] == 0) {
        call->attempts.before =
            grpc_attempts_parse(h2_block_value(block, H2_GRPC_ATTEMPTS));
    }
    set_deadline(e, call, timeout_us);
    submit(e, call);
}

/* ---- its content ------------------------------------------------------------------ */

void grpc_call_commit(struct engine *e, struct grpc_call *call)
{
    if (!call->committed) {
        call->committed = true;
        grpc_release_unit(&call->attempts, &call->channel->budget);
        grpc_trace_committed(e, call,
                             call->forwarded ? "headers" : "log is full");
    }
    grpc_log_pass_through(e, &call->log);
}

/* More was received than may be kept for a replay (C5). */
static void overflow(struct engine *e, struct grpc_call *call)
{
    call->channel->stats.log_overflow_call++;
    call->overflow = true;
    if (call->state == GRPC_CALL_ACTIVE) {
        grpc_call_commit(e, call);
    }
}

/* There is more to send, or its end. */
static void wake_attempt(struct engine *e, struct grpc_call *call)
{
    if (call->up != NULL) {
        h2_resume(call->link->h2, call->up);
        grpc_touch(e, &call->link->conn);
    }
}

void grpc_call_data(struct engine *e, struct grpc_call *call, struct span bytes)
{
    struct grpc_client *c = call->client;
    grpc_credit(e, &c->conn, c->h2, &c->withheld, bytes.len);
    if (call->state == GRPC_CALL_DONE) {
        return;
    }
    uint64_t size;
    uint64_t max = call->method.policy->request_message_max;
    if (!grpc_messages_scan(&call->asked, bytes, max, &size)) {
        char text[96];
        (void)snprintf(text, sizeof(text),
                       "request message of %" PRIu64 " bytes exceeds %" PRIu64,
                       size, max);
        grpc_call_fail(e, call, GRPC_RESOURCE_EXHAUSTED, text);
        return;
    }
    if (!grpc_log_add(e, &call->log, bytes)) {
        call->channel->stats.limit_memory++;
        grpc_call_fail(e, call, GRPC_RESOURCE_EXHAUSTED, "out of memory");
        return;
    }
    if (!call->committed && !call->overflow &&
        (grpc_log_kept(&call->log) >
             call->channel->config->grpc.retry_buffer_per_call ||
         grpc_memory_is_high(e))) {
        overflow(e, call);
    }
    wake_attempt(e, call);
}

void grpc_call_half_closed(struct engine *e, struct grpc_call *call)
{
    call->half_closed = true;
    wake_attempt(e, call);
}

/* ---- what follows from an ending ----------------------------------------------------- */

/* The end of an attempt is the end of the call. */
static void finish(struct engine *e,
                   struct grpc_call *call,
                   const struct grpc_outcome *o,
                   enum grpc_reason reason)
{
    if (o->status == GRPC_CANCELLED && e->now_us >= call->deadline_us) {
        deadline_passed(e, call); /* L6 */
        return;
    }
    call->local = !o->received;
    call_done(e, call, o->status, reason);
}

static struct grpc_ended ended_of(const struct engine *e,
                                  const struct grpc_call *call,
                                  const struct grpc_outcome *o)
{
    struct grpc_ended ended = {
        .class = o->class,
        .status = o->status,
        .committed = call->committed,
        .log_intact = call->log.base == 0,
        .single = call->half_closed && grpc_messages_single(&call->asked),
        .forced = o->forced,
        .now_us = e->now_us,
        .deadline_us = call->deadline_us,
    };
    const struct h2_block *t = o->received ? call->trailers : NULL;
    if (t != NULL && t->twice[H2_GRPC_PUSHBACK] > 0) {
        ended.pushback = GRPC_PUSHBACK_NO; /* P1: two values */
    } else if (t != NULL && t->first[H2_GRPC_PUSHBACK] != 0) {
        ended.pushback =
            grpc_pushback_parse(h2_block_value(t, H2_GRPC_PUSHBACK),
                                &ended.pushback_ms);
    }
    return ended;
}

static bool throttle_is_shut(const struct grpc_budget *b)
{
    return b->max > 0 && b->tokens <= b->max / 2;
}

void grpc_call_attempt_over(struct engine *e,
                            struct grpc_call *call,
                            const struct grpc_outcome *outcome)
{
    if (call->state == GRPC_CALL_DONE) {
        return; /* a late event */
    }
    struct grpc_channel *ch = call->channel;
    struct grpc_ended ended = ended_of(e, call, outcome);
    bool was_shut = throttle_is_shut(&ch->budget);
    count_attempt(e, call, outcome);
    remember(e, call, outcome);
    struct grpc_decision d =
        grpc_decide(&ch->config->grpc, &call->method, &ended, &call->attempts,
                    &ch->budget, &e->rng);
    grpc_trace_attempt_done(e, call, outcome, &ended, &d);
    if (throttle_is_shut(&ch->budget) != was_shut) {
        ch->stats.throttled += !was_shut;
        grpc_trace_throttle(e, ch, !was_shut);
    }
    switch (d.step) {
    case GRPC_FINISH: finish(e, call, outcome, d.reason); break;
    case GRPC_AGAIN_NOW:
        /* A link that is lost as soon as a call wants it ends no wait: else an
         * endpoint that says hello and then nonsense would prolong it for
         * ever. */
        if (outcome->class != GRPC_F1_UNSENT ||
            e->now_us >= call->attempt_us + WAIT_GOES_ON_US) {
            call->wait_us = 0;
        }
        call->transparent++;
        submit(e, call);
        break;
    case GRPC_AGAIN_AFTER:
        call->wait_us = 0;
        call->state = GRPC_CALL_BACKOFF;
        call->retry_us = e->now_us + d.delay_us;
        grpc_call_wake_at(e, call, call->retry_us);
        break;
    }
}

void grpc_call_no_link(struct engine *e,
                       struct grpc_call *call,
                       bool forced,
                       const char *text)
{
    struct grpc_outcome outcome = { .class = GRPC_F0_NO_CONNECTION,
                                    .status = GRPC_UNAVAILABLE,
                                    .text = text,
                                    .forced = forced };
    grpc_call_attempt_over(e, call, &outcome);
}

/* ---- times ---------------------------------------------------------------------------- */

/* What may happen next while nothing else does. */
static void wake_next(struct engine *e, struct grpc_call *call)
{
    if (call->state == GRPC_CALL_DONE) {
        return;
    }
    if (call->deadline_us != UINT64_MAX) {
        grpc_call_wake_at(e, call, call->deadline_us);
    }
    if (call->state == GRPC_CALL_BACKOFF) {
        grpc_call_wake_at(e, call, call->retry_us);
    } else if (call->state == GRPC_CALL_ACTIVE) {
        uint64_t limit = call->channel->config->grpc.per_attempt_timeout_us;
        if (call->hold_us != 0) {
            grpc_call_wake_at(e, call, call->hold_us);
        }
        if (limit > 0 && !call->committed) {
            grpc_call_wake_at(e, call, call->attempt_us + limit);
        }
    }
}

void grpc_call_timeout(struct engine *e, struct grpc_call *call)
{
    if (e->now_us >= call->deadline_us) {
        deadline_passed(e, call);
    } else if (call->state == GRPC_CALL_BACKOFF &&
               e->now_us >= call->retry_us) {
        submit(e, call);
    } else if (call->state == GRPC_CALL_ACTIVE) {
        grpc_attempt_timeout(e, call);
    }
    wake_next(e, call);
}
