#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#include "proxy/core/grpc_fields.h"
#include "proxy/core/grpc_reply.h"
#include "proxy/core/state.h"

static struct engine *engine_of(const struct grpc_call *call)
{
    return call->channel->engine;
}

/* ---- beginning ---------------------------------------------------------------- */

/* Forget what an attempt before has left. */
static void attempt_reset(struct engine *e, struct grpc_call *call)
{
    if (call->head != NULL) {
        h2_block_unref(call->head);
        call->head = NULL;
        call->channel->stats.held_headers[GRPC_HELD_DISCARDED]++;
    }
    if (call->trailers != NULL) {
        h2_block_unref(call->trailers);
        call->trailers = NULL;
    }
    assert(call->reply.bytes == 0);
    call->answered = (struct grpc_messages){ 0 };
    call->headers_end = 0;
    call->hold_us = 0;
    call->got_headers = false;
    call->got_data = false;
    grpc_log_restart(&call->log);
    call->attempt_us = e->now_us;
}

bool grpc_call_start(struct engine *e,
                     struct grpc_call *call,
                     struct grpc_link *link)
{
    assert(call->state == GRPC_CALL_WAITING && call->up == NULL);
    if (e->now_us >= call->deadline_us) {
        grpc_call_timeout(e, call); /* its timer is a moment behind */
        return true;
    }
    struct grpc_fields f;
    grpc_fields_init(&f);
    grpc_fields_request(&f, call, link, e->now_us);
    if (f.size > h2_peer_header_list_max(link->h2)) { /* X6 */
        grpc_call_fail(e, call, GRPC_RESOURCE_EXHAUSTED,
                       "request headers exceed the endpoint's limit");
        return true;
    }
    attempt_reset(e, call);
    bool end = call->half_closed && grpc_log_unsent(&call->log) == 0;
    bool no_ids = false;
    struct h2_stream *s =
        h2_request(link->h2, f.list, f.n, call->request, end, call, &no_ids);
    if (s == NULL) {
        return false;
    }
    call->up = s;
    call->link = link;
    call->state = GRPC_CALL_ACTIVE;
    call->delay_us += e->now_us - call->idle_since_us;
    call->n_attempts++;
    grpc_stats_of(&call->channel->stats, call->method.label)
        ->attempts_started++;
    list_append(&link->calls, &call->place);
    grpc_link_stream_opened(e, link);
    grpc_touch(e, &link->conn);
    if (call->overflow) {
        grpc_call_commit(e, call);
    }
    uint64_t limit = call->channel->config->grpc.per_attempt_timeout_us;
    if (limit > 0) {
        grpc_call_wake_at(e, call, e->now_us + limit);
    }
    return true;
}

/* ---- ending ---------------------------------------------------------------------- */

/* The attempt is no longer the call's; its stream may live on for a while. */
static void detach(struct engine *e, struct grpc_call *call)
{
    struct grpc_link *link = call->link;
    if (call->up != NULL) {
        call->up->user = NULL;
        call->up = NULL;
    }
    if (link != NULL) {
        list_remove(&call->place);
        call->link = NULL;
        call->idle_since_us = e->now_us;
    }
    call->hold_us = 0;
}

void grpc_attempt_cancel(struct engine *e,
                         struct grpc_call *call,
                         enum h2_code code)
{
    struct grpc_link *link = call->link;
    if (call->up != NULL) {
        h2_reset(link->h2, call->up, code);
        grpc_touch(e, &link->conn);
    }
    detach(e, call);
}

void grpc_attempt_credit(struct engine *e, struct grpc_call *call, size_t n)
{
    if (call->up != NULL && h2_credit_stream(call->link->h2, call->up, n)) {
        grpc_touch(e, &call->link->conn);
    }
}

/* The attempt has ended with words of redial's own. The status of F3 counts
 * the endpoint as one that failed the call (D2). */
static void attempt_failed(struct engine *e,
                           struct grpc_call *call,
                           enum grpc_class class,
                           enum grpc_status status,
                           const char *text,
                           uint32_t h2_error)
{
    struct grpc_outcome outcome = { .class = call->forwarded &&
                                                     class != GRPC_F7_LOCAL
                                                 ? GRPC_F6_COMMITTED
                                                 : class,
                                    .status = status,
                                    .text = text,
                                    .link = call->link,
                                    .h2_error = h2_error };
    detach(e, call);
    grpc_call_attempt_over(e, call, &outcome);
}

static void remember_endpoint(struct grpc_call *call)
{
    call->last_endpoint = grpc_link_number(call->link);
}

/* Give it up for what it has sent. */
static void attempt_refused(struct engine *e,
                            struct grpc_call *call,
                            enum grpc_class class,
                            enum grpc_status status,
                            const char *text)
{
    struct grpc_link *link = call->link;
    remember_endpoint(call);
    h2_reset(link->h2, call->up, H2_CANCEL);
    grpc_touch(e, &link->conn);
    attempt_failed(e, call, class, status, text, H2_CANCEL);
}

/* OK, behind content that was not passed on: it is not the whole answer. */
static void content_missing(struct engine *e, struct grpc_call *call)
{
    char text[GRPC_TEXT_MAX];
    (void)snprintf(text, sizeof(text), "invalid response from %s",
                   grpc_link_name(call->link));
    attempt_refused(e, call, GRPC_F3_AMBIGUOUS, GRPC_INTERNAL, text);
}

/* The response is complete: its status stands in call->trailers. What the
 * request still had to say is not wanted any more (C8). */
static void attempt_answered(struct engine *e,
                             struct grpc_call *call,
                             enum grpc_class class)
{
    struct span status = h2_block_value(call->trailers, H2_GRPC_STATUS);
    struct grpc_outcome outcome = { .class = call->forwarded ? GRPC_F6_COMMITTED
                                                             : class,
                                    .status = status.data == NULL
                                                  ? GRPC_UNKNOWN
                                                  : grpc_status_parse(status),
                                    .received = true,
                                    .link = call->link };
    if (outcome.status != GRPC_OK) {
        remember_endpoint(call);
    } else if (call->got_data && !call->forwarded) {
        content_missing(e, call);
        return;
    }
    if (call->up != NULL && !call->up->local_end) {
        grpc_attempt_cancel(e, call, H2_NO_ERROR);
    } else {
        detach(e, call);
    }
    grpc_call_attempt_over(e, call, &outcome);
}

void grpc_call_link_lost(struct engine *e,
                         struct grpc_call *call,
                         const char *reason)
{
    struct grpc_link *link = call->link;
    char text[GRPC_TEXT_MAX];
    (void)snprintf(text, sizeof(text), "connection to %s lost: %s",
                   grpc_link_name(link), reason);
    bool sent =
        call->headers_end != 0 && call->headers_end <= link->output.written;
    remember_endpoint(call);
    attempt_failed(e, call, sent ? GRPC_F3_AMBIGUOUS : GRPC_F1_UNSENT,
                   GRPC_UNAVAILABLE, text, H2_NO_ERROR);
}

/* ---- what the endpoint says --------------------------------------------------------- */

/* Hand the response headers on: from now on this attempt is the one (C1). */
static void release_headers(struct engine *e, struct grpc_call *call)
{
    call->hold_us = 0;
    if (grpc_reply_headers(e, call)) {
        grpc_call_commit(e, call);
        return;
    }
    grpc_call_fail(e, call, GRPC_RESOURCE_EXHAUSTED,
                   "response headers exceed the client's limit");
}

/* Per-attempt timeout (L5), and the hold of its headers (C4). */
void grpc_attempt_timeout(struct engine *e, struct grpc_call *call)
{
    uint64_t limit = call->channel->config->grpc.per_attempt_timeout_us;
    if (call->hold_us != 0 && e->now_us >= call->hold_us) {
        call->channel->stats.held_headers[GRPC_HELD_RELEASED_TIMER]++;
        release_headers(e, call);
    } else if (limit > 0 && !call->committed &&
               e->now_us >= call->attempt_us + limit) {
        char text[64];
        (void)snprintf(text, sizeof(text),
                       "attempt timed out after %" PRIu64 " ms", limit / 1000);
        attempt_refused(e, call, GRPC_F3_AMBIGUOUS, GRPC_UNAVAILABLE, text);
    }
}

/* C3: whether another attempt could still follow, and would be allowed. */
static bool may_hold(const struct grpc_call *call)
{
    const struct grpc_config *config = &call->channel->config->grpc;
    return config->hold_headers == GRPC_HOLD_AUTO && !call->committed &&
           call->half_closed && grpc_messages_single(&call->asked) &&
           grpc_may_retry(config, &call->method, &call->attempts);
}

static unsigned http_status(const struct h2_block *b)
{
    struct span s = h2_block_value(b, H2_STATUS);
    unsigned status = 0;
    for (size_t i = 0; i < s.len && i < 3; i++) {
        status = status * 10 + (unsigned)(s.data[i] - '0');
    }
    return status;
}

static void printable(struct span s, char *out, size_t size)
{
    size_t n = 0;
    for (size_t i = 0; i < s.len && n + 1 < size; i++) {
        out[n++] =
            s.data[i] >= 0x20 && s.data[i] < 0x7f ? (char)s.data[i] : '?';
    }
    out[n] = '\0';
}

/* F8: what came back is not gRPC. */
static void not_grpc(struct engine *e, struct grpc_call *call)
{
    unsigned http = http_status(call->head);
    struct span type = h2_block_value(call->head, H2_CONTENT_TYPE);
    const char *name = grpc_link_name(call->link);
    char text[GRPC_TEXT_MAX];
    if (http != 200) {
        (void)snprintf(text, sizeof(text), "HTTP status %u from %s", http,
                       name);
    } else if (!grpc_content_type_is_valid(type)) {
        char shown[64];
        printable(type, shown, sizeof(shown));
        (void)snprintf(text, sizeof(text), "content-type \"%s\" from %s", shown,
                       name);
    } else {
        (void)snprintf(text, sizeof(text),
                       "response without grpc-status from %s", name);
        attempt_refused(e, call, GRPC_F3_AMBIGUOUS, GRPC_UNKNOWN, text);
        return;
    }
    attempt_refused(e, call, GRPC_F8_NOT_GRPC, grpc_status_of_http(http), text);
}

/* X7. */
static bool size_is_right(struct engine *e,
                          struct grpc_call *call,
                          const struct h2_block *b)
{
    if (!b->too_large && !b->too_many) {
        return true;
    }
    char text[64];
    if (b->too_many) {
        (void)snprintf(text, sizeof(text),
                       "response headers exceed 256 fields");
    } else {
        (void)snprintf(text, sizeof(text),
                       "response headers exceed %" PRIu64 " bytes",
                       call->channel->config->grpc.max_header_list_size);
    }
    attempt_refused(e, call, GRPC_F3_AMBIGUOUS, GRPC_RESOURCE_EXHAUSTED, text);
    return false;
}

static void on_response(struct engine *e, struct grpc_call *call, bool end)
{
    struct h2_block *head = call->head;
    call->got_headers = true;
    bool has_status = head->first[H2_GRPC_STATUS] != 0;
    if (end && has_status) {
        call->trailers = head;
        call->head = NULL;
        attempt_answered(e, call, GRPC_F4_TRAILERS_ONLY);
        return;
    }
    bool foreign =
        !grpc_content_type_is_valid(h2_block_value(head, H2_CONTENT_TYPE));
    if (end || (foreign && !has_status)) {
        not_grpc(e, call);
        return;
    }
    if (has_status || http_status(head) != 200) {
        return; /* the end of the response tells what it is */
    }
    if (may_hold(call)) {
        uint64_t hold = call->channel->config->grpc.hold_headers_max_us;
        call->hold_us = e->now_us + hold;
        grpc_call_wake_at(e, call, call->hold_us);
        return;
    }
    release_headers(e, call);
}

void grpc_attempt_headers(struct h2 *h,
                          struct h2_stream *s,
                          enum h2_headers kind,
                          struct h2_block *block,
                          bool end)
{
    (void)h;
    struct grpc_call *call = s->user;
    if (call == NULL) {
        h2_block_unref(block);
        return;
    }
    struct engine *e = engine_of(call);
    call->channel->stats.dropped_fields += block->n_dropped;
    if (!size_is_right(e, call, block)) {
        h2_block_unref(block);
    } else if (kind == H2_TRAILERS) {
        call->trailers = block;
        if (block->first[H2_GRPC_STATUS] != 0) {
            attempt_answered(e, call, GRPC_F5_LATE_STATUS);
        } else if (call->head->first[H2_GRPC_STATUS] != 0) {
            grpc_attempt_ended(h, s); /* the one in the headers counts */
        } else {
            not_grpc(e, call);
        }
    } else {
        call->head = block;
        on_response(e, call, end);
    }
}

/* J3: a message of the response is larger than allowed. */
static void too_long(struct engine *e, struct grpc_call *call, uint64_t size)
{
    char text[96];
    (void)snprintf(text, sizeof(text),
                   "response message of %" PRIu64 " bytes exceeds %" PRIu64,
                   size, call->method.policy->response_message_max);
    grpc_call_fail(e, call, GRPC_RESOURCE_EXHAUSTED, text);
}

void grpc_attempt_data(struct h2 *h, struct h2_stream *s, struct span bytes)
{
    struct grpc_call *call = s->user;
    if (call == NULL) {
        h2_credit_connection(h, bytes.len); /* nobody wants it any more */
        return;
    }
    struct engine *e = engine_of(call);
    grpc_link_credit(e, call->link, bytes.len);
    call->got_data = true;
    if (!call->forwarded) {
        if (call->hold_us == 0) {
            h2_credit_stream(h, s, bytes.len);
            return; /* headers that are no gRPC: the body leaks to nobody */
        }
        call->channel->stats.held_headers[GRPC_HELD_RELEASED_DATA]++;
        release_headers(e, call);
        if (call->state == GRPC_CALL_DONE) {
            return;
        }
    }
    uint64_t size;
    if (!grpc_messages_scan(&call->answered, bytes,
                            call->method.policy->response_message_max, &size)) {
        too_long(e, call, size);
        return;
    }
    if (!grpc_content_add(e, &call->reply, bytes)) {
        call->channel->stats.limit_memory++;
        grpc_call_fail(e, call, GRPC_RESOURCE_EXHAUSTED, "out of memory");
        return;
    }
    e->grpc.bytes += bytes.len;
    grpc_reply_more(e, call);
}

void grpc_attempt_ended(struct h2 *h, struct h2_stream *s)
{
    (void)h;
    struct grpc_call *call = s->user;
    if (call == NULL) {
        return;
    }
    struct engine *e = engine_of(call);
    /* No trailers: the status of the headers counts (F-f). */
    if (!call->forwarded && call->head->first[H2_GRPC_STATUS] != 0) {
        if (call->trailers != NULL) {
            h2_block_unref(call->trailers);
        }
        call->trailers = call->head;
        call->head = NULL;
        attempt_answered(e, call,
                         call->got_data ? GRPC_F3_AMBIGUOUS
                                        : GRPC_F4_TRAILERS_ONLY);
    } else {
        not_grpc(e, call);
    }
}

/* The endpoint's RST_STREAM, or the library's. */
void grpc_attempt_closed(struct h2 *h, struct h2_stream *s, uint32_t code)
{
    struct grpc_link *link = h2_owner(h);
    struct engine *e = link->channel->engine;
    struct grpc_call *call = s->user;
    if (call != NULL) {
        char text[GRPC_TEXT_MAX];
        const char *name = grpc_link_name(link);
        enum grpc_class class = GRPC_F3_AMBIGUOUS;
        enum grpc_status status = grpc_status_of_reset(code);
        if (s->is_invalid) {
            status = GRPC_INTERNAL;
            (void)snprintf(text, sizeof(text), "invalid response from %s",
                           name);
        } else if (code == H2_REFUSED_STREAM) {
            class = call->got_headers ? class : GRPC_F2_UNPROCESSED;
            status = GRPC_UNAVAILABLE;
            (void)snprintf(text, sizeof(text), "stream refused by %s", name);
        } else {
            (void)snprintf(text, sizeof(text), "stream reset by %s: %s", name,
                           h2_code_name(code));
        }
        remember_endpoint(call);
        attempt_failed(e, call, class, status, text, code);
    }
    grpc_link_stream_closed(e, link);
}

void grpc_attempt_headers_sent(struct h2 *h,
                               struct h2_stream *s,
                               uint64_t offset,
                               bool end)
{
    (void)h;
    (void)end;
    struct grpc_call *call = s->user;
    if (call != NULL) {
        call->headers_end = offset;
    }
}

void grpc_attempt_end_sent(struct h2 *h, struct h2_stream *s)
{
    (void)h;
    (void)s;
}

void grpc_attempt_headers_unsent(struct h2 *h,
                                 struct h2_stream *s,
                                 enum h2_unsent why)
{
    (void)h;
    struct grpc_call *call = s->user;
    if (call == NULL) {
        return;
    }
    struct engine *e = engine_of(call);
    switch (why) {
    case H2_UNSENT_GONE:
        /* Also the library may have ended the session: nothing must be tried
         * on it again. */
        grpc_link_drain(e, call->link, "it takes no more calls");
        attempt_failed(e, call, GRPC_F1_UNSENT, GRPC_UNAVAILABLE,
                       "the connection is closing", H2_NO_ERROR);
        break;
    case H2_UNSENT_TOO_LARGE:
        detach(e, call);
        grpc_call_fail(e, call, GRPC_RESOURCE_EXHAUSTED,
                       "request headers are too large to be sent");
        break;
    case H2_UNSENT_BROKEN:
        detach(e, call);
        grpc_call_fail(e, call, GRPC_INTERNAL,
                       "request headers cannot be encoded");
        break;
    }
}

/* ---- the request's content ------------------------------------------------------------ */

size_t grpc_attempt_pull(struct h2 *h,
                         struct h2_stream *s,
                         size_t max,
                         unsigned *flags)
{
    (void)h;
    struct grpc_call *call = s->user;
    if (call == NULL) {
        return 0;
    }
    uint64_t unsent = grpc_log_unsent(&call->log);
    size_t n = unsent < max ? (size_t)unsent : max;
    if (call->half_closed && n == unsent) {
        *flags |= H2_PULL_END;
    }
    return n;
}

/* The client gets back what an endpoint's session has taken, once (C5). */
static void credit_client(struct engine *e,
                          struct grpc_call *call,
                          uint64_t credit)
{
    if (credit > 0 && call->down != NULL &&
        h2_credit_stream(call->client->h2, call->down, (size_t)credit)) {
        grpc_touch(e, &call->client->conn);
    }
    const struct grpc_process_config *p = &e->config->process.grpc;
    if (!call->committed && call->log.replayable > 0 &&
        e->grpc.log_bytes > p->retry_buffer_total / e->workers) {
        call->channel->stats.log_overflow_total++;
        grpc_call_commit(e, call);
    }
}

void grpc_attempt_copy(struct h2 *h,
                       struct h2_stream *s,
                       uint8_t *out,
                       size_t n)
{
    (void)h;
    struct grpc_call *call = s->user;
    struct engine *e = engine_of(call);
    credit_client(e, call, grpc_log_copy(e, &call->log, out, n));
}

bool grpc_attempt_pass(struct h2 *h, struct h2_stream *s, size_t n)
{
    struct grpc_link *link = h2_owner(h);
    struct grpc_call *call = s->user;
    struct engine *e = engine_of(call);
    uint64_t credit = 0;
    if (!grpc_log_pass(e, &call->log, &link->conn.out, n, &credit)) {
        return false;
    }
    credit_client(e, call, credit);
    return true;
}
