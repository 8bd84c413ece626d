#include "proxy/core/grpc_trace.h"

#include <inttypes.h>
#include <stdio.h>

#include "proxy/core/state.h"

enum {
    NUMBER_TEXT = 24,
    CONNECT_FAILED_EACH = 10, /* one line for so many */
    TLS_HANDSHAKE = 0x16,     /* the first byte of a ClientHello's record */
};

/* What is known of a call, whatever is told of it. */
static struct trace_record about_call(enum trace_type type,
                                      const struct engine *e,
                                      const struct grpc_call *call)
{
    struct trace_record r = {
        .type = type,
        .attempt = call->n_attempts,
        .unsent = call->attempts.unsent,
        .refused = call->attempts.refused,
        .elapsed_us = e->now_us - call->begun_us,
    };
    if (call->channel != NULL) {
        r.upstream = call->channel->config->name;
    }
    if (call->client != NULL) {
        r.client = call->client->conn.id;
        r.listener = call->client->listener->config->name;
    }
    if (call->down != NULL) {
        r.stream = (uint32_t)call->down->id;
    }
    if (call->link != NULL) {
        r.address = &call->link->address;
    }
    if (call->request != NULL) {
        r.method = h2_block_value(call->request, H2_PATH);
    }
    return r;
}

void grpc_trace_call_done(struct engine *e, const struct grpc_call *call)
{
    bool failed_after_retries =
        call->status != GRPC_OK && call->attempts.configured > 1;
    if (!failed_after_retries && !e->tracer.debug) {
        return;
    }
    struct trace_record r = about_call(TRACE_CALL_DONE, e, call);
    r.status = grpc_status_name((enum grpc_status)call->status);
    r.class = grpc_class_name((enum grpc_class)call->last_class);
    r.reason = grpc_reason_name((enum grpc_reason)call->reason);
    r.debug = !failed_after_retries;
    engine_trace(e, &r);
}

static const char *verdict_of(const struct grpc_decision *d)
{
    switch (d->step) {
    case GRPC_FINISH: return "finish";
    case GRPC_AGAIN_NOW: return "again_now";
    case GRPC_AGAIN_AFTER: return "again_after";
    }
    return NULL;
}

void grpc_trace_attempt_done(struct engine *e,
                             const struct grpc_call *call,
                             const struct grpc_outcome *outcome,
                             const struct grpc_ended *ended,
                             const struct grpc_decision *decision)
{
    if (!e->tracer.debug) {
        return;
    }
    char pushback[NUMBER_TEXT] = "no";
    if (ended->pushback == GRPC_PUSHBACK_MS) {
        (void)snprintf(pushback, sizeof(pushback), "%" PRIu32,
                       ended->pushback_ms);
    }
    struct trace_record r = about_call(TRACE_ATTEMPT_DONE, e, call);
    r.class = grpc_class_name(ended->class);
    r.status = grpc_status_name(ended->status);
    r.h2_error = outcome->h2_error == H2_NO_ERROR
                     ? NULL
                     : h2_code_name(outcome->h2_error);
    r.address = outcome->link == NULL ? NULL : &outcome->link->address;
    r.pushback = ended->pushback == GRPC_PUSHBACK_NONE ? NULL : pushback;
    r.verdict = verdict_of(decision);
    if (decision->step == GRPC_FINISH) {
        r.reason = grpc_reason_name(decision->reason);
    } else {
        r.delay_us = decision->delay_us;
    }
    r.debug = true;
    engine_trace(e, &r);
}

void grpc_trace_committed(struct engine *e,
                          const struct grpc_call *call,
                          const char *cause)
{
    if (!e->tracer.debug) {
        return;
    }
    struct trace_record r = about_call(TRACE_CALL_COMMITTED, e, call);
    r.reason = cause;
    r.debug = true;
    engine_trace(e, &r);
}

/* ---- endpoints ------------------------------------------------------------ */

static struct trace_record about_link(enum trace_type type,
                                      const struct grpc_channel *ch,
                                      const struct grpc_link *l)
{
    return (struct trace_record){ .type = type,
                                  .upstream = ch->config->name,
                                  .address = &l->address,
                                  .lane = l->conn.id };
}

void grpc_trace_connect_failed(struct engine *e,
                               const struct grpc_channel *ch,
                               const struct address *address,
                               const char *reason,
                               unsigned failures,
                               uint64_t delay_us)
{
    if (failures != 1 && failures % CONNECT_FAILED_EACH != 0) {
        return;
    }
    engine_trace(e, &(struct trace_record){ .type = TRACE_CONNECT_FAILED,
                                            .upstream = ch->config->name,
                                            .address = address,
                                            .reason = reason,
                                            .attempt = failures,
                                            .delay_us = delay_us });
}

void grpc_trace_connection_ready(struct engine *e,
                                 const struct grpc_channel *ch,
                                 const struct grpc_link *l)
{
    struct trace_record r = about_link(TRACE_CONNECTION_READY, ch, l);
    r.elapsed_us = e->now_us - l->started_us;
    engine_trace(e, &r);
}

void grpc_trace_connection_lost(struct engine *e,
                                const struct grpc_channel *ch,
                                const struct grpc_link *l,
                                const char *reason)
{
    struct trace_record r = about_link(TRACE_CONNECTION_LOST, ch, l);
    r.reason = reason;
    r.elapsed_us = e->now_us - l->started_us;
    engine_trace(e, &r);
}

void grpc_trace_goaway(struct engine *e,
                       const struct grpc_channel *ch,
                       const struct grpc_link *l,
                       int32_t last_stream,
                       uint32_t code,
                       struct span debug)
{
    char last[NUMBER_TEXT];
    (void)snprintf(last, sizeof(last), "%" PRId32, last_stream);
    struct trace_record r = about_link(TRACE_GOAWAY_RECEIVED, ch, l);
    r.h2_error = h2_code_name(code);
    r.last_stream = last;
    r.said = debug;
    engine_trace(e, &r);
}

void grpc_trace_keepalive_doubled(struct engine *e,
                                  const struct grpc_channel *ch,
                                  const struct grpc_link *l,
                                  uint64_t to_us)
{
    struct trace_record r = about_link(TRACE_KEEPALIVE_DOUBLED, ch, l);
    r.reason = "the endpoint says too_many_pings";
    r.delay_us = to_us;
    engine_trace(e, &r);
}

void grpc_trace_endpoint_removed(struct engine *e,
                                 const struct grpc_channel *ch,
                                 const struct address *address)
{
    engine_trace(e, &(struct trace_record){ .type = TRACE_ENDPOINT_REMOVED,
                                            .upstream = ch->config->name,
                                            .address = address });
}

void grpc_trace_resolve_failed(struct engine *e,
                               const struct grpc_channel *ch,
                               const struct address *address,
                               const char *reason)
{
    engine_trace(e, &(struct trace_record){ .type = TRACE_RESOLVE_FAILED,
                                            .upstream = ch->config->name,
                                            .address = address,
                                            .reason = reason });
}

void grpc_trace_throttle(struct engine *e,
                         const struct grpc_channel *ch,
                         bool closed)
{
    engine_trace(e,
                 &(struct trace_record){ .type = closed ? TRACE_THROTTLE_CLOSED
                                                        : TRACE_THROTTLE_OPENED,
                                         .upstream = ch->config->name });
}

/* ---- clients -------------------------------------------------------------- */

static void trace_client(struct engine *e,
                         const struct grpc_client *c,
                         enum trace_type type,
                         const char *reason)
{
    engine_trace(e,
                 &(struct trace_record){ .type = type,
                                         .listener = c->listener->config->name,
                                         .client = c->conn.id,
                                         .reason = reason });
}

void grpc_trace_abuse(struct engine *e,
                      const struct grpc_client *c,
                      enum grpc_abuse kind)
{
    switch (kind) {
    case GRPC_ABUSE_PREFACE: trace_client(e, c, TRACE_BAD_PREFACE, NULL); break;
    case GRPC_ABUSE_STALLED:
        trace_client(e, c, TRACE_WRITE_STALLED,
                     "it took nothing of its replies");
        break;
    case GRPC_ABUSE_RESETS:
    case GRPC_ABUSE_FRAMES:
    case GRPC_ABUSE_EMPTY:
    case GRPC_ABUSE_PINGS:
        trace_client(e, c, TRACE_ABUSE, grpc_abuse_name(kind));
        break;
    case GRPC_ABUSE_COUNT: break;
    }
}

static bool begins_with(struct span text, const char *word)
{
    size_t len = strlen(word);
    return text.len >= len && memcmp(text.data, word, len) == 0;
}

const char *grpc_preface_hint(struct span first)
{
    static const char *const methods[] = {
        "GET ",    "HEAD ",    "POST ",  "PUT ",
        "DELETE ", "OPTIONS ", "PATCH ", "CONNECT ",
    };
    if (first.len == 0) {
        return "nothing was said in time";
    }
    if (first.data[0] == TLS_HANDSHAKE) {
        return "this is TLS; the listener speaks cleartext HTTP/2";
    }
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        if (begins_with(first, methods[i])) {
            return "this is HTTP/1; gRPC needs HTTP/2 with prior knowledge";
        }
    }
    if (first.data[0] == '*' || first.data[0] == '$') {
        return "this looks like Redis; see protocol = auto";
    }
    return "this is not HTTP/2";
}

void grpc_trace_bad_preface(struct engine *e,
                            const struct grpc_client *c,
                            struct span first)
{
    trace_client(e, c, TRACE_BAD_PREFACE, grpc_preface_hint(first));
}
