#include "proxy/core/grpc_reply.h"

#include <assert.h>

#include "proxy/core/grpc_fields.h"
#include "proxy/core/grpc_request.h"
#include "proxy/core/state.h"

static struct span text(const char *s)
{
    return span_of(s);
}

static void add_head(struct grpc_fields *f, const char *http)
{
    grpc_fields_init(f);
    grpc_fields_add(f, H2_STATUS, text(":status"), text(http));
    grpc_fields_add(f, H2_CONTENT_TYPE, text("content-type"),
                    text("application/grpc"));
}

/* Z1: all in one HEADERS frame. */
static void add_local(struct grpc_fields *f,
                      const char *http,
                      enum grpc_status status,
                      const char *words,
                      bool stop)
{
    add_head(f, http);
    grpc_fields_add_status(f, status, words);
    if (stop) {
        grpc_fields_add_stop(f);
    }
}

void grpc_reply_refuse(struct engine *e,
                       struct grpc_client *c,
                       struct h2_stream *s,
                       const struct grpc_refusal *refusal)
{
    struct grpc_stats *stats = &c->listener->channel->stats;
    if (refusal->reset) {
        h2_reset(c->h2, s, H2_PROTOCOL_ERROR);
        return;
    }
    struct grpc_fields f;
    add_local(&f, refusal->http, refusal->status, refusal->text, refusal->stop);
    stats->local_status[refusal->status][GRPC_CAUSE_REQUEST]++;
    if (!h2_respond(c->h2, s, f.list, f.n, NULL, true)) {
        stats->limit_memory++;
        h2_reset(c->h2, s, H2_INTERNAL_ERROR);
    }
    grpc_touch(e, &c->conn);
}

/* X6: whether the client would take the block. */
static bool fits(const struct grpc_call *call, const struct grpc_fields *f)
{
    return f->size <= h2_peer_header_list_max(call->client->h2);
}

bool grpc_reply_headers(struct engine *e, struct grpc_call *call)
{
    struct grpc_fields f;
    grpc_fields_init(&f);
    grpc_fields_reply(&f, call->head);
    if (call->down == NULL || !fits(call, &f) ||
        !h2_respond(call->client->h2, call->down, f.list, f.n, call->head,
                    false)) {
        return false;
    }
    call->forwarded = true;
    grpc_touch(e, &call->client->conn);
    return true;
}

void grpc_reply_more(struct engine *e, struct grpc_call *call)
{
    if (call->down != NULL && call->forwarded) {
        h2_resume(call->client->h2, call->down);
        grpc_touch(e, &call->client->conn);
    }
}

static void drop_content(struct engine *e, struct grpc_call *call)
{
    e->grpc.bytes -= call->reply.bytes;
    chain_clear(e->memory, &call->reply);
}

bool grpc_reply_stops_client(const struct grpc_call *call)
{
    switch (call->channel->config->grpc.stop_client_retries) {
    case GRPC_STOP_NEVER: return false;
    case GRPC_STOP_ALWAYS: break;
    case GRPC_STOP_AUTO:
        if (call->attempts.configured <= 1) {
            return false;
        }
        break;
    }
    return call->local || call->trailers == NULL ||
           call->trailers->first[H2_GRPC_PUSHBACK] == 0; /* P3 */
}

static const char too_large[] = "response headers exceed the client's limit";

/* What the endpoint says does not fit: redial's own words instead (X6). */
static void add_too_large(struct grpc_fields *f, struct grpc_call *call)
{
    call->local = true;
    call->status = GRPC_RESOURCE_EXHAUSTED;
    grpc_fields_add_status(f, call->status, too_large);
    if (call->stop || grpc_reply_stops_client(call)) {
        grpc_fields_add_stop(f);
    }
}

/* One HEADERS frame with END_STREAM. */
static bool send_only(struct engine *e, struct grpc_call *call, bool head_fits)
{
    struct grpc_fields f;
    bool local = call->local;
    if (local) {
        add_local(&f, "200", call->status, call->text, call->stop);
    } else {
        grpc_fields_init(&f);
        grpc_fields_reply(&f, call->trailers);
        if (call->stop) {
            grpc_fields_add_stop(&f);
        }
    }
    if (!head_fits || (!local && !fits(call, &f))) {
        add_head(&f, "200");
        add_too_large(&f, call);
    }
    grpc_touch(e, &call->client->conn);
    return h2_respond(call->client->h2, call->down, f.list, f.n,
                      local ? NULL : call->trailers, true);
}

static bool send_trailers(struct grpc_call *call)
{
    struct grpc_fields f;
    bool local = call->local;
    grpc_fields_init(&f);
    if (local) {
        grpc_fields_add_status(&f, call->status, call->text);
    } else {
        grpc_fields_reply(&f, call->trailers);
    }
    if (call->stop) {
        grpc_fields_add_stop(&f);
    }
    if (!fits(call, &f)) {
        grpc_fields_init(&f);
        add_too_large(&f, call);
    }
    return h2_trailers(call->client->h2, call->down, f.list, f.n,
                       local ? NULL : call->trailers);
}

void grpc_reply_finish(struct engine *e, struct grpc_call *call)
{
    assert(call->state == GRPC_CALL_DONE);
    if (call->down == NULL) {
        return;
    }
    if (call->local) {
        drop_content(e, call); /* Z3 */
    }
    bool has_head = !call->forwarded && !call->local && call->head != NULL;
    bool head_fits = !has_head || grpc_reply_headers(e, call);
    bool done = true;
    if (call->forwarded && !call->local) {
        grpc_reply_more(e, call); /* the trailers follow the content */
    } else if (call->forwarded) {
        done = send_trailers(call); /* instead of it */
        grpc_touch(e, &call->client->conn);
    } else {
        done = send_only(e, call, head_fits);
    }
    if (!done) {
        call->channel->stats.limit_memory++;
        h2_reset(call->client->h2, call->down, H2_INTERNAL_ERROR);
    }
}

/* ---- asked by the session ---------------------------------------------------- */

static struct engine *engine_of(const struct grpc_call *call)
{
    return call->channel->engine;
}

size_t grpc_reply_pull(struct h2 *h,
                       struct h2_stream *s,
                       size_t max,
                       unsigned *flags)
{
    struct grpc_call *call = s->user;
    if (call == NULL) {
        return 0;
    }
    size_t n = call->reply.bytes < max ? call->reply.bytes : max;
    if (call->state == GRPC_CALL_DONE && n == call->reply.bytes) {
        if (send_trailers(call)) {
            *flags |= H2_PULL_TRAILERS;
        } else {
            h2_reset(h, s, H2_INTERNAL_ERROR);
        }
    }
    return n;
}

static void given(struct grpc_call *call, size_t n)
{
    struct engine *e = engine_of(call);
    e->grpc.bytes -= n;
    call->reply_bytes += n;
    call->client->ping_strikes = 0; /* K12 */
    call->client->ping_valid_us = 0;
    call->client->controls += 2; /* a frame of ours permits two (§5.5) */
    grpc_attempt_credit(e, call, n);
}

void grpc_reply_copy(struct h2 *h, struct h2_stream *s, uint8_t *out, size_t n)
{
    (void)h;
    struct grpc_call *call = s->user;
    (void)chain_copy(&call->reply, out, n);
    chain_consume(engine_of(call)->memory, &call->reply, n);
    given(call, n);
}

bool grpc_reply_pass(struct h2 *h, struct h2_stream *s, size_t n)
{
    (void)h;
    struct grpc_call *call = s->user;
    struct engine *e = engine_of(call);
    if (!chain_split(e->memory, &call->client->conn.out, &call->reply, n)) {
        return false;
    }
    given(call, n);
    return true;
}
