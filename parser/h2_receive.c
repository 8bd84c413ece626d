#include "parser/h2_session.h"

/* The peer broke a rule that nghttp2 is not asked to look at. */
static void reset_invalid(struct h2 *h, struct h2_stream *s)
{
    s->is_invalid = true;
    h2_reset(h, s, H2_PROTOCOL_ERROR);
    if (!s->is_shown) {
        h->handler->control(h, false);
        if (h->handler->rejected != NULL) {
            h->handler->rejected(h);
        }
    }
}

/* What a callback returns: after h2_terminate() nothing more is to be heard of
 * the bytes that are being taken. */
static int go_on(const struct h2 *h)
{
    return h->is_terminating ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

/* ---- header blocks ---- */

static enum h2_headers kind_of(const struct h2 *h, const struct h2_stream *s)
{
    return s->got_final           ? H2_TRAILERS
           : h->role == H2_SERVER ? H2_REQUEST
                                  : H2_RESPONSE;
}

static int on_begin_headers(nghttp2_session *session,
                            const nghttp2_frame *frame,
                            void *context)
{
    struct h2 *h = context;
    struct h2_stream *s = NULL;
    h->reading_of = NULL;
    if (frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
        /* The library refuses new streams only once the GOAWAY has left. */
        if (frame->hd.stream_id > h->last_request) {
            return 0;
        }
        s = h2_stream_new(h, NULL);
        if (s == NULL) {
            return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        }
        s->id = frame->hd.stream_id;
        nghttp2_session_set_stream_user_data(session, s->id, s);
        h->recent = s;
    } else {
        s = h2_stream_find(h, frame->hd.stream_id);
        if (s == NULL) {
            return 0;
        }
    }
    const enum h2_headers kind = kind_of(h, s);
    h->reading_of = s;
    /* Fields of a request's trailers are dropped (V8), but looked at. */
    h2_reading_begin(&h->reading, kind,
                     kind != H2_TRAILERS || h->role == H2_CLIENT);
    return 0;
}

static int on_header(nghttp2_session *session,
                     const nghttp2_frame *frame,
                     nghttp2_rcbuf *name,
                     nghttp2_rcbuf *value,
                     uint8_t flags,
                     void *context)
{
    struct h2 *h = context;
    (void)session;
    (void)frame;
    /* Out of memory: the library resets the stream with INTERNAL_ERROR. */
    return h->reading_of == NULL ||
                   h2_reading_field(&h->reading, name, value, flags)
               ? 0
               : NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

static void block_taken(struct h2 *h,
                        struct h2_stream *s,
                        struct h2_block *block,
                        bool end)
{
    const struct h2_rules *rules = &h->reading.rules;
    if (rules->kind == H2_TRAILERS && s->length_left > 0) {
        if (block != NULL) {
            h2_block_unref(block);
        }
        reset_invalid(h, s);
        return;
    }
    if (rules->kind == H2_RESPONSE && rules->status < 200) {
        h2_block_unref(block);
        h->handler->control(h, false); /* there may be any number of them */
        return;
    }
    s->remote_end = end;
    if (block == NULL) {
        h->handler->ended(h, s);
        return;
    }
    if (rules->kind != H2_TRAILERS) {
        s->length_left = h2_rules_length(rules);
        s->got_final = true;
        s->is_shown = true;
    }
    h->handler->headers(h, s, rules->kind, block, end);
}

static void headers_end(struct h2 *h, bool end)
{
    struct h2_stream *s = h->reading_of;
    struct h2_block *block = NULL;
    h->reading_of = NULL;
    if (s == NULL || s->is_reset) {
        return;
    }
    switch (h2_reading_end(&h->reading, end, &block)) {
    case H2_READ_OK: block_taken(h, s, block, end); break;
    case H2_READ_INVALID: reset_invalid(h, s); break;
    case H2_READ_NO_MEMORY: h2_reset(h, s, H2_INTERNAL_ERROR); break;
    }
}

/* ---- other frames ---- */

static int on_begin_frame(nghttp2_session *session,
                          const nghttp2_frame_hd *hd,
                          void *context)
{
    struct h2 *h = context;
    (void)session;
    switch (hd->type) {
    case NGHTTP2_DATA:
        if (hd->length == 0 && (hd->flags & NGHTTP2_FLAG_END_STREAM) == 0) {
            h->handler->control(h, true);
        }
        break;
    case NGHTTP2_PUSH_PROMISE:
        /* The library would take some until our SETTINGS are acknowledged. */
        h->complaint = "PUSH_PROMISE";
        h2_terminate(h, H2_PROTOCOL_ERROR, h->complaint);
        break;
    case NGHTTP2_HEADERS:
    case NGHTTP2_CONTINUATION:
    case NGHTTP2_GOAWAY: break;
    default: h->handler->control(h, false); break;
    }
    return go_on(h);
}

/* Frames of unknown types are skipped; without this callback
 * on_begin_frame() would not hear of them. */
static int on_unknown_frame(nghttp2_session *session,
                            void **payload,
                            const nghttp2_frame_hd *hd,
                            void *context)
{
    (void)session;
    (void)payload;
    (void)hd;
    (void)context;
    return NGHTTP2_ERR_CANCEL;
}

static int on_data_chunk(nghttp2_session *session,
                         uint8_t flags,
                         int32_t id,
                         const uint8_t *data,
                         size_t len,
                         void *context)
{
    struct h2 *h = context;
    struct h2_stream *s = h2_stream_find(h, id);
    (void)session;
    (void)flags;
    h->uncredited += len;
    if (s == NULL || s->is_reset || !s->got_final ||
        (s->length_left >= 0 && (uint64_t)s->length_left < len)) {
        if (s != NULL && !s->is_reset) {
            reset_invalid(h, s);
        }
        h2_credit_connection(h, len);
        return go_on(h);
    }
    if (s->length_left >= 0) {
        s->length_left -= (int64_t)len;
    }
    h->handler->data(h, s, (struct span){ data, len });
    return go_on(h);
}

static void data_end(struct h2 *h, const nghttp2_frame *frame)
{
    const bool end = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    if (!end) {
        if (frame->hd.length > 0 && frame->hd.length == frame->data.padlen) {
            h->handler->control(h, true); /* nothing but padding */
        }
        return;
    }
    struct h2_stream *s = h2_stream_find(h, frame->hd.stream_id);
    if (s == NULL || s->is_reset) {
        return;
    }
    if (s->length_left > 0 || !s->got_final) {
        reset_invalid(h, s);
        return;
    }
    s->remote_end = true;
    h->handler->ended(h, s);
}

static void got_ping(struct h2 *h, const nghttp2_frame *frame)
{
    uint64_t opaque = 0;
    if ((frame->hd.flags & NGHTTP2_FLAG_ACK) == 0) {
        h->handler->ping(h);
        return;
    }
    for (size_t i = 0; i < sizeof frame->ping.opaque_data; i++) {
        opaque = opaque << 8 | frame->ping.opaque_data[i];
    }
    h->handler->pong(h, opaque);
}

static int on_frame_recv(nghttp2_session *session,
                         const nghttp2_frame *frame,
                         void *context)
{
    struct h2 *h = context;
    (void)session;
    switch (frame->hd.type) {
    case NGHTTP2_DATA: data_end(h, frame); break;
    case NGHTTP2_HEADERS:
        headers_end(h, (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0);
        break;
    case NGHTTP2_SETTINGS:
        if ((frame->hd.flags & NGHTTP2_FLAG_ACK) != 0) {
            h->handler->settings_acked(h);
        } else {
            h->handler->settings(h);
        }
        break;
    case NGHTTP2_PING: got_ping(h, frame); break;
    case NGHTTP2_GOAWAY:
        h->handler->goaway(h, frame->goaway.last_stream_id,
                           frame->goaway.error_code,
                           (struct span){ frame->goaway.opaque_data,
                                          frame->goaway.opaque_data_len });
        break;
    default: break;
    }
    return go_on(h);
}

static int on_invalid_frame(nghttp2_session *session,
                            const nghttp2_frame *frame,
                            int error,
                            void *context)
{
    struct h2 *h = context;
    (void)session;
    (void)error;
    struct h2_stream *s = h2_stream_find(h, frame->hd.stream_id);
    if (s != NULL) {
        s->is_invalid = true;
    }
    h->handler->control(h, false);
    return go_on(h);
}

static int on_stream_close(nghttp2_session *session,
                           int32_t id,
                           uint32_t code,
                           void *context)
{
    struct h2 *h = context;
    struct h2_stream *s = h2_stream_find(h, id);
    (void)session;
    if (s == NULL) {
        return 0;
    }
    if (h->leaving.stream == s) {
        h->leaving.is_closed = true; /* after headers_sent() */
        h->leaving.code = code;
    } else {
        h2_stream_close(h, s, code);
    }
    return 0;
}

void h2_receive_callbacks(nghttp2_session_callbacks *c)
{
    nghttp2_session_callbacks_set_on_begin_headers_callback(c,
                                                            on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback2(c, on_header);
    nghttp2_session_callbacks_set_on_begin_frame_callback(c, on_begin_frame);
    nghttp2_session_callbacks_set_unpack_extension_callback(c,
                                                            on_unknown_frame);
    nghttp2_session_callbacks_set_on_frame_recv_callback(c, on_frame_recv);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(
        c, on_invalid_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(c, on_data_chunk);
    nghttp2_session_callbacks_set_on_stream_close_callback(c, on_stream_close);
}

static void receive(struct h2 *h, struct span bytes)
{
    const lib_ssize n = lib_receive(h->session, bytes);
    if (n < 0 && !h->is_terminating) {
        h2_lib_ok(h, (int)n);
    }
}

static void receive_sieved(struct h2 *h, struct span bytes)
{
    struct span piece;
    while (h->error == NULL && !h->is_terminating &&
           h2_sieve_next(&h->sieve, &bytes, &piece)) {
        if (piece.len > 0) {
            receive(h, piece);
        } else {
            h->handler->control(h, false);
        }
    }
}

const char *h2_receive(struct h2 *h, struct span bytes)
{
    if (h->error != NULL || h->is_terminating) {
        return h->error;
    }
    h2_enter(h);
    if (h->role == H2_SERVER) {
        receive_sieved(h, bytes);
    } else {
        receive(h, bytes);
    }
    h2_leave(h);
    return h->error;
}
