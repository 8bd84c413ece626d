/* What the peer of a link says, other than about a call. */
#include <assert.h>

#include "proxy/core/grpc_endpoint.h"
#include "proxy/core/grpc_trace.h"
#include "proxy/core/state.h"

static struct grpc_link *link_of(struct h2 *h)
{
    return h2_owner(h);
}

static struct engine *engine_of(const struct grpc_link *l)
{
    return l->channel->engine;
}

void grpc_link_heard(struct engine *e, struct grpc_link *l)
{
    if (l->pinged_us != 0) {
        l->pinged_us = 0;
        grpc_link_schedule(e, l); /* the next PING may come before the answer
                                     to this one was due */
    }
    if (l->probed_us != 0) {
        l->probed_us = 0;
        l->channel->n_probing--;
        grpc_channel_pump_later(e, l->channel);
    }
    if (l->suspect) {
        l->suspect = false;
        grpc_endpoint_count(l->endpoint);
        grpc_channel_changed(e, l->channel);
    }
}

static void on_settings(struct h2 *h)
{
    struct grpc_link *l = link_of(h);
    struct engine *e = engine_of(l);
    if (l->state == GRPC_LINK_CONNECTING && l->doom == NULL) {
        grpc_link_ready(e, l);
    } else if (l->channel->n_waiting > 0) {
        grpc_channel_pump_later(e, l->channel); /* more streams, perhaps */
    }
}

static void on_settings_acked(struct h2 *h)
{
    link_of(h)->settings_us = 0;
}

static void on_ping(struct h2 *h)
{
    (void)h; /* counted as a frame without content */
}

static void on_pong(struct h2 *h, uint64_t opaque)
{
    (void)h; /* any byte is a sign of life */
    (void)opaque;
}

/* K4: this interval is too short for the servers of this upstream. */
static void double_keepalive(struct engine *e, struct grpc_link *l)
{
    struct grpc_channel *ch = l->channel;
    if (ch->keepalive_us == GRPC_NO_LIMIT ||
        l->keepalive_us < ch->keepalive_us) {
        return; /* it has been doubled since this link was opened */
    }
    ch->keepalive_us = ch->keepalive_us > GRPC_KEEPALIVE_MAX_US / 2
                           ? GRPC_KEEPALIVE_MAX_US
                           : ch->keepalive_us * 2;
    grpc_trace_keepalive_doubled(e, ch, l, ch->keepalive_us);
}

static void on_goaway(struct h2 *h,
                      int32_t last_stream,
                      uint32_t code,
                      struct span debug)
{
    struct grpc_link *l = link_of(h);
    struct engine *e = engine_of(l);
    l->channel->stats.goaways++;
    grpc_link_blame(l, grpc_disconnect_of(code));
    grpc_trace_goaway(e, l->channel, l, last_stream, code, debug);
    if (code == H2_ENHANCE_YOUR_CALM &&
        span_equal(debug, span_of("too_many_pings"))) {
        double_keepalive(e, l);
    }
    if (l->state == GRPC_LINK_CONNECTING) {
        grpc_link_doom(e, l, "GOAWAY before SETTINGS");
    } else if (l->state == GRPC_LINK_READY) {
        l->channel->wanted = true;
        grpc_link_drain(e, l, "GOAWAY");
    } else if (l->state == GRPC_LINK_DRAINING) {
        l->drain_us = e->now_us + l->channel->config->grpc.drain_timeout_us;
        grpc_link_wake_at(e, l, l->drain_us);
    }
}

/* A bucket: floods end the link (§5.5). */
static void on_control(struct h2 *h, bool empty_data)
{
    struct grpc_link *l = link_of(h);
    struct engine *e = engine_of(l);
    (void)empty_data; /* costs the same */
    if (!grpc_bucket_take(&l->controls, &l->controls_us, GRPC_CONTROLS_BURST,
                          GRPC_CONTROLS_RATE, e->now_us) &&
        l->doom == NULL) {
        h2_terminate(h, H2_ENHANCE_YOUR_CALM, "too_many_frames");
        grpc_link_doom(e, l, "too_many_frames");
    }
}

/* Each DATA frame of ours permits the peer two frames of its own. */
static void data_sent(struct h2 *h)
{
    link_of(h)->controls += 2;
}

static void on_copy(struct h2 *h, struct h2_stream *s, uint8_t *out, size_t n)
{
    data_sent(h);
    grpc_attempt_copy(h, s, out, n);
}

static bool on_pass(struct h2 *h, struct h2_stream *s, size_t n)
{
    data_sent(h);
    return grpc_attempt_pass(h, s, n);
}

static bool on_write(struct h2 *h, struct span bytes)
{
    struct grpc_link *l = link_of(h);
    return grpc_output_write(engine_of(l), &l->conn, bytes);
}

const struct h2_handler grpc_link_handler = {
    .headers = grpc_attempt_headers,
    .data = grpc_attempt_data,
    .ended = grpc_attempt_ended,
    .closed = grpc_attempt_closed,
    .headers_sent = grpc_attempt_headers_sent,
    .end_sent = grpc_attempt_end_sent,
    .headers_unsent = grpc_attempt_headers_unsent,
    .pull = grpc_attempt_pull,
    .copy = on_copy,
    .pass = on_pass,
    .write = on_write,
    .settings = on_settings,
    .settings_acked = on_settings_acked,
    .ping = on_ping,
    .pong = on_pong,
    .goaway = on_goaway,
    .control = on_control,
};

/* ---- its streams -------------------------------------------------------------- */

uint32_t grpc_link_room(const struct grpc_link *l)
{
    uint32_t limit = l->channel->config->grpc.max_streams_per_connection;
    uint32_t peer = h2_peer_max_streams(l->h2);
    limit = peer < limit ? peer : limit;
    return l->n_streams < limit ? limit - l->n_streams : 0;
}

void grpc_link_stream_opened(struct engine *e, struct grpc_link *l)
{
    l->endpoint->n_streams++;
    if (l->n_streams++ == 0) {
        l->idle_us = 0;
        grpc_link_schedule(e, l); /* keepalive */
    }
    if (!l->retiring && h2_next_id(l->h2) >= GRPC_LAST_ID) {
        grpc_link_retire(e, l);
    }
}

void grpc_link_stream_closed(struct engine *e, struct grpc_link *l)
{
    if (l->state == GRPC_LINK_CLOSED) {
        return;
    }
    assert(l->n_streams > 0 && l->endpoint->n_streams > 0);
    l->endpoint->n_streams--;
    l->n_streams--;
    if (l->n_streams == 0) {
        l->idle_us = e->now_us;
        bool over = l->state == GRPC_LINK_DRAINING || l->suspect;
        if (over) {
            grpc_link_wake_at(e, l, e->now_us);
        } else {
            grpc_link_schedule(e, l); /* nobody may need it any more (U8) */
        }
    }
    if (l->channel->n_waiting > 0) {
        grpc_channel_pump_later(e, l->channel);
    }
}

void grpc_link_credit(struct engine *e, struct grpc_link *l, size_t n)
{
    if (l->h2 != NULL) {
        grpc_credit(e, &l->conn, l->h2, &l->withheld, n);
    }
}
