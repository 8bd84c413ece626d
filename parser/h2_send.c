#include <assert.h>

#include "parser/h2_session.h"

enum {
    COPY_MAX = 2048,       /* larger pieces of content leave by reference */
    TURN_BYTES = 64 * 1024 /* of a stream before others have their turn */
};

static bool put(struct h2 *h, const uint8_t *data, size_t len)
{
    h->produced += len;
    return h->handler->write(h, (struct span){ data, len });
}

/* Let other streams go first. nghttp2 would send the oldest one until its
 * window is used up. */
static lib_ssize pass_turn(struct h2 *h, struct h2_stream *s)
{
    s->turn_bytes = 0;
    s->is_deferred = true;
    s->in_turn = true;
    s->next_turn = NULL;
    *(h->turn_last == NULL ? &h->turn_first : &h->turn_last->next_turn) = s;
    h->turn_last = s;
    return NGHTTP2_ERR_DEFERRED;
}

void h2_turn_leave(struct h2 *h, struct h2_stream *s)
{
    struct h2_stream *before = NULL;
    for (struct h2_stream *at = h->turn_first; at != s; at = at->next_turn) {
        before = at;
    }
    *(before == NULL ? &h->turn_first : &before->next_turn) = s->next_turn;
    if (h->turn_last == s) {
        h->turn_last = before;
    }
    s->in_turn = false;
}

static void next_turn(struct h2 *h)
{
    while (h->turn_first != NULL) {
        struct h2_stream *s = h->turn_first;
        h2_turn_leave(h, s);
        h2_resume(h, s);
    }
}

/* nghttp2 says what it is called with. */
/* NOLINTNEXTLINE(readability-function-size) */
lib_ssize h2_read_content(nghttp2_session *session,
                          int32_t id,
                          uint8_t *out,
                          size_t max,
                          uint32_t *data_flags,
                          nghttp2_data_source *source,
                          void *context)
{
    struct h2 *h = context;
    struct h2_stream *s = source->ptr;
    unsigned flags = 0;
    (void)session;
    (void)id;
    if (s->local_end) {
        return NGHTTP2_ERR_DEFERRED; /* trailers took its place */
    }
    if (s->turn_bytes >= TURN_BYTES && !s->in_turn) {
        return pass_turn(h, s);
    }
    const size_t n = h->handler->pull(h, s, max, &flags);
    assert(n <= max);
    s->local_end = flags != 0;
    if (n == 0 && flags == 0) {
        s->is_deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    if (flags != 0) {
        *data_flags |= NGHTTP2_DATA_FLAG_EOF;
    }
    if ((flags & H2_PULL_TRAILERS) != 0) {
        *data_flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
    }
    s->turn_bytes += (uint32_t)n;
    if (n <= COPY_MAX) {
        h->handler->copy(h, s, out, n);
    } else {
        *data_flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    }
    return (lib_ssize)n;
}

static int on_send_data(nghttp2_session *session,
                        nghttp2_frame *frame,
                        const uint8_t *head,
                        size_t length,
                        nghttp2_data_source *source,
                        void *context)
{
    enum {
        HEAD_BYTES = 9
    };
    struct h2 *h = context;
    (void)session;
    assert(frame->data.padlen == 0);
    if (!put(h, head, HEAD_BYTES) ||
        !h->handler->pass(h, source->ptr, length)) {
        h->error = "NOMEM";
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    h->produced += length;
    return h->produced >= h->limit ? NGHTTP2_ERR_PAUSE : 0;
}

static void goaway_sent(struct h2 *h, uint32_t code)
{
    if (h->notice_waits) {
        h->notice_waits = false;
        if (h->notice_ping != 0) {
            h2_ping(h, h->notice_ping);
        }
    }
    if (code == h->own_code) {
        h->is_over |= h->is_terminating;
    } else if (code != H2_NO_ERROR) {
        h->complaint = h2_code_name(code);
    }
}

static int on_frame_send(nghttp2_session *session,
                         const nghttp2_frame *frame,
                         void *context)
{
    struct h2 *h = context;
    struct h2_stream *s = NULL;
    const bool end = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    (void)session;
    switch (frame->hd.type) {
    case NGHTTP2_DATA:
        s = end ? h2_stream_find(h, frame->hd.stream_id) : NULL;
        if (s != NULL) {
            h->handler->end_sent(h, s);
        }
        break;
    case NGHTTP2_HEADERS:
        s = h2_stream_find(h, frame->hd.stream_id);
        if (s != NULL) {
            h2_stream_release(s);
            h->leaving = (struct h2_leaving){ .stream = s, .end = end };
        }
        break;
    case NGHTTP2_GOAWAY: goaway_sent(h, frame->goaway.error_code); break;
    default: break;
    }
    return 0;
}

static int on_frame_not_send(nghttp2_session *session,
                             const nghttp2_frame *frame,
                             int error,
                             void *context)
{
    struct h2 *h = context;
    (void)session;
    if (frame->hd.type != NGHTTP2_HEADERS) {
        return 0;
    }
    struct h2_stream *s = h2_stream_find(h, frame->hd.stream_id);
    if (s == NULL) {
        return 0;
    }
    h2_stream_release(s);
    h->handler->headers_unsent(h, s,
                               error == NGHTTP2_ERR_FRAME_SIZE_ERROR
                                   ? H2_UNSENT_TOO_LARGE
                               : error == NGHTTP2_ERR_HEADER_COMP
                                   ? H2_UNSENT_BROKEN
                                   : H2_UNSENT_GONE);
    return 0;
}

/* Tell of the HEADERS frame whose last bytes have been counted. */
static void report_leaving(struct h2 *h)
{
    const struct h2_leaving l = h->leaving;
    if (l.stream == NULL) {
        return;
    }
    h->leaving.stream = NULL;
    h->handler->headers_sent(h, l.stream, h->produced, l.end);
    if (l.end) {
        h->handler->end_sent(h, l.stream);
    }
    if (l.is_closed) {
        h2_stream_close(h, l.stream, l.code);
    }
}

void h2_send_callbacks(nghttp2_session_callbacks *c)
{
    nghttp2_session_callbacks_set_send_data_callback(c, on_send_data);
    nghttp2_session_callbacks_set_on_frame_send_callback(c, on_frame_send);
    nghttp2_session_callbacks_set_on_frame_not_send_callback(c,
                                                             on_frame_not_send);
}

const char *h2_send(struct h2 *h, size_t limit)
{
    h2_enter(h);
    h->limit = h->produced + limit;
    while (h->error == NULL && !h->is_over && h->produced < h->limit) {
        const uint8_t *data = NULL;
        const lib_ssize n = lib_send(h->session, &data);
        if (n < 0) {
            h2_lib_ok(h, (int)n);
        } else if (n > 0) {
            if (!put(h, data, (size_t)n)) {
                h->error = "NOMEM";
            }
            report_leaving(h);
        } else if (h->turn_first == NULL) {
            break;
        } else if (h->produced < h->limit) {
            next_turn(h);
        }
    }
    h2_leave(h);
    return h->error;
}
