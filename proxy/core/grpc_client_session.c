#include <assert.h>

#include "proxy/core/grpc_bucket.h"
#include "proxy/core/grpc_client.h"
#include "proxy/core/grpc_reply.h"
#include "proxy/core/grpc_trace.h"

/* What a client's session tells of, and what is not suffered (§5.5). */

enum {
    S_US = 1000 * 1000,
    EMPTY_MAX = 100, /* empty DATA frames in EMPTY_US */
    EMPTY_US = 10 * S_US,
};

static const uint64_t PING_WITHOUT_CALLS_US = 2 * 3600 * (uint64_t)S_US;

static struct grpc_client *owner_of(const struct h2 *h)
{
    return h2_owner(h);
}

/* GOAWAY with words, then the end (§5.5). */
static void punish(struct engine *e,
                   struct grpc_client *c,
                   enum grpc_abuse kind,
                   const char *text)
{
    if (c->doomed) {
        return;
    }
    c->listener->channel->stats.abuse[kind]++;
    grpc_trace_abuse(e, c, kind);
    c->doomed = true;
    h2_terminate(c->h2, H2_ENHANCE_YOUR_CALM, text);
    grpc_touch(e, &c->conn);
    grpc_client_close_before(e, c, GRPC_LINGER_US);
}

static void on_headers(struct h2 *h,
                       struct h2_stream *s,
                       enum h2_headers kind,
                       struct h2_block *block,
                       bool end)
{
    struct grpc_client *c = owner_of(h);
    assert(kind == H2_REQUEST);
    (void)kind;
    grpc_call_begin(grpc_client_engine(c), c, s, block, end);
}

static void on_data(struct h2 *h, struct h2_stream *s, struct span bytes)
{
    struct grpc_client *c = owner_of(h);
    if (s->user == NULL) {
        h2_credit_connection(h, bytes.len); /* it has its answer already */
    } else {
        grpc_call_data(grpc_client_engine(c), s->user, bytes);
    }
}

static void on_ended(struct h2 *h, struct h2_stream *s)
{
    if (s->user != NULL) {
        grpc_call_half_closed(grpc_client_engine(owner_of(h)), s->user);
    }
}

/* A stream has ended before its response had: by the client's will, or by what
 * the client made the session do (§5.5). */
static void charge_reset(struct engine *e, struct grpc_client *c)
{
    const struct grpc_listener_config *rules = grpc_client_rules(c);
    if (!grpc_bucket_take(&c->resets, &c->resets_us, rules->early_close_burst,
                          rules->early_close_rate, e->now_us)) {
        punish(e, c, GRPC_ABUSE_RESETS, "too_many_resets");
    }
}

static void on_closed(struct h2 *h, struct h2_stream *s, uint32_t code)
{
    struct grpc_client *c = owner_of(h);
    struct engine *e = grpc_client_engine(c);
    if (s->user == NULL) {
        if (s->is_invalid) {
            charge_reset(e, c);
        }
        return;
    }
    struct grpc_call *call = s->user;
    s->user = NULL;
    bool answered = call->state == GRPC_CALL_DONE && call->local;
    if (!call->down_ended && !answered) {
        charge_reset(e, c);
    }
    grpc_call_stream_closed(e, call, code);
}

static void on_rejected(struct h2 *h)
{
    struct grpc_client *c = owner_of(h);
    charge_reset(grpc_client_engine(c), c);
}

static void on_headers_sent(struct h2 *h,
                            struct h2_stream *s,
                            uint64_t offset,
                            bool end)
{
    (void)s;
    (void)offset;
    (void)end;
    struct grpc_client *c = owner_of(h);
    c->ping_strikes = 0;
    c->ping_valid_us = 0;
}

static void on_end_sent(struct h2 *h, struct h2_stream *s)
{
    if (s->user != NULL) {
        ((struct grpc_call *)s->user)->down_ended = true;
    }
    if (!s->remote_end) {
        h2_reset(h, s, H2_NO_ERROR); /* Z4 */
    }
}

static void on_headers_unsent(struct h2 *h,
                              struct h2_stream *s,
                              enum h2_unsent why)
{
    if (why != H2_UNSENT_GONE) {
        h2_reset(h, s, H2_INTERNAL_ERROR);
    }
}

static bool on_write(struct h2 *h, struct span bytes)
{
    struct grpc_client *c = owner_of(h);
    return grpc_output_write(grpc_client_engine(c), &c->conn, bytes);
}

static void on_settings(struct h2 *h)
{
    struct grpc_client *c = owner_of(h);
    c->spoke = true;
    grpc_client_check_alive(grpc_client_engine(c), c);
}

static void on_settings_acked(struct h2 *h)
{
    (void)h;
}

/* K12: the algorithm of A8. */
static void on_ping(struct h2 *h)
{
    struct grpc_client *c = owner_of(h);
    struct engine *e = grpc_client_engine(c);
    const struct grpc_listener_config *rules = grpc_client_rules(c);
    uint64_t interval = c->n_calls == 0 && !rules->permit_ping_without_calls
                            ? PING_WITHOUT_CALLS_US
                            : rules->min_recv_ping_interval_us;
    if (c->ping_valid_us == 0 || e->now_us >= c->ping_valid_us + interval) {
        c->ping_valid_us = e->now_us;
        return;
    }
    c->listener->channel->stats.pings_bad++;
    if (++c->ping_strikes > rules->max_ping_strikes) {
        punish(e, c, GRPC_ABUSE_PINGS, "too_many_pings");
    }
}

static void on_pong(struct h2 *h, uint64_t opaque)
{
    struct grpc_client *c = owner_of(h);
    if (opaque == GRPC_DRAIN_PING && c->draining) {
        grpc_client_finish_drain(grpc_client_engine(c), c);
    }
}

static void on_goaway(struct h2 *h,
                      int32_t last_stream,
                      uint32_t code,
                      struct span debug)
{
    (void)h;
    (void)last_stream;
    (void)code;
    (void)debug; /* it will open no more streams, and close when it likes */
}

static void on_control(struct h2 *h, bool empty_data)
{
    struct grpc_client *c = owner_of(h);
    struct engine *e = grpc_client_engine(c);
    if (empty_data) {
        if (e->now_us >= c->empties_us + EMPTY_US) {
            c->empties_us = e->now_us;
            c->empties = 0;
        }
        if (++c->empties > EMPTY_MAX) {
            punish(e, c, GRPC_ABUSE_EMPTY, "empty_frames");
        }
    } else if (!grpc_bucket_take(&c->controls, &c->controls_us,
                                 GRPC_CONTROLS_BURST, GRPC_CONTROLS_RATE,
                                 e->now_us)) {
        punish(e, c, GRPC_ABUSE_FRAMES, "too_many_frames");
    }
}

const struct h2_handler grpc_client_handler = {
    .headers = on_headers,
    .data = on_data,
    .ended = on_ended,
    .closed = on_closed,
    .rejected = on_rejected,
    .headers_sent = on_headers_sent,
    .end_sent = on_end_sent,
    .headers_unsent = on_headers_unsent,
    .pull = grpc_reply_pull,
    .copy = grpc_reply_copy,
    .pass = grpc_reply_pass,
    .write = on_write,
    .settings = on_settings,
    .settings_acked = on_settings_acked,
    .ping = on_ping,
    .pong = on_pong,
    .goaway = on_goaway,
    .control = on_control,
};
