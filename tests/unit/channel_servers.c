/* Servers that speak HTTP/2 byte by byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "channel_driver.h"

static void put_number(struct bytes *b, uint32_t n, unsigned bytes)
{
    for (unsigned i = bytes; i > 0; i--) {
        uint8_t byte = (uint8_t)(n >> (8 * (i - 1)));
        bytes_add(b, &byte, 1);
    }
}

void wire_frame(struct wire *w,
                enum frame type,
                unsigned flags,
                int32_t stream,
                const void *payload,
                size_t size)
{
    put_number(&w->out, (uint32_t)size, 3);
    put_number(&w->out, (uint32_t)type, 1);
    put_number(&w->out, flags, 1);
    put_number(&w->out, (uint32_t)stream, 4);
    bytes_add(&w->out, payload, size);
}

void wire_settings(struct wire *w, uint32_t max_streams)
{
    struct bytes b = { 0 };
    if (max_streams != ALL_STREAMS) {
        put_number(&b, 3, 2); /* MAX_CONCURRENT_STREAMS */
        put_number(&b, max_streams, 4);
    }
    wire_frame(w, FRAME_SETTINGS, 0, 0, bytes_front(&b), b.size);
    bytes_fini(&b);
}

void wire_goaway(struct wire *w, int32_t last, uint32_t code, const char *text)
{
    struct bytes b = { 0 };
    put_number(&b, (uint32_t)last, 4);
    put_number(&b, code, 4);
    bytes_add_text(&b, text);
    wire_frame(w, FRAME_GOAWAY, 0, 0, bytes_front(&b), b.size);
    bytes_fini(&b);
}

void wire_reset(struct wire *w, int32_t stream, uint32_t code)
{
    struct bytes b = { 0 };
    put_number(&b, code, 4);
    wire_frame(w, FRAME_RST_STREAM, 0, stream, bytes_front(&b), b.size);
    bytes_fini(&b);
}

/* Trailers-Only with grpc-status 0. */
static void answer(struct wire *w, int32_t stream)
{
    static const char block[] = "\x88"
                                "\x00\x0c"
                                "content-type"
                                "\x10"
                                "application/grpc"
                                "\x00\x0b"
                                "grpc-status"
                                "\x01"
                                "0";
    wire_frame(w, FRAME_HEADERS, 4 | 1, stream, block, sizeof(block) - 1);
}

void wire_answer(struct wire *w)
{
    for (unsigned i = 0; i < w->n_streams; i++) {
        answer(w, w->streams[i]);
    }
    w->n_streams = 0;
}

unsigned wire_place(const struct wire *w, enum frame type, unsigned at)
{
    for (; at < w->n_frames && at < FRAMES_KEPT; at++) {
        if (w->frames[at] == (uint8_t)type) {
            return at;
        }
    }
    fail_msg("no frame of type %u", type);
    return 0;
}

static void forget_stream(struct wire *w, int32_t stream)
{
    for (unsigned i = 0; i < w->n_streams; i++) {
        if (w->streams[i] == stream) {
            w->streams[i] = w->streams[--w->n_streams];
            return;
        }
    }
}

static uint32_t number_at(const uint8_t *p, unsigned bytes)
{
    uint32_t n = 0;
    for (unsigned i = 0; i < bytes; i++) {
        n = n << 8 | p[i];
    }
    return n;
}

static void take_frame(struct wire *w, const uint8_t *f, size_t size)
{
    enum frame type = f[3];
    unsigned flags = f[4];
    int32_t stream = (int32_t)(number_at(f + 5, 4) & INT32_MAX);
    const uint8_t *payload = f + 9;
    if (w->n_frames < FRAMES_KEPT) {
        w->frames[w->n_frames] = (uint8_t)type;
    }
    w->n_frames++;
    switch (type) {
    case FRAME_HEADERS:
        assert_true(stream > w->last_stream);
        w->last_stream = stream;
        w->server->calls++;
        if (w->server->holds) {
            assert_true(w->n_streams < STREAMS_KEPT);
            w->streams[w->n_streams++] = stream;
        } else {
            answer(w, stream);
        }
        break;
    case FRAME_RST_STREAM: forget_stream(w, stream); break;
    case FRAME_SETTINGS:
        if ((flags & 1) == 0 && !w->server->no_ack) {
            wire_frame(w, FRAME_SETTINGS, 1, 0, NULL, 0);
        }
        break;
    case FRAME_PING:
        if ((flags & 1) == 0) {
            w->pings++;
            wire_frame(w, FRAME_PING, 1, 0, payload, 8);
        }
        break;
    case FRAME_GOAWAY:
        w->said_goodbye = true;
        w->goaway_code = number_at(payload + 4, 4);
        break;
    case FRAME_WINDOW_UPDATE:
        w->credit += stream == 0 ? number_at(payload, 4) : 0;
        break;
    case FRAME_DATA:
    case FRAME_PRIORITY:
    case FRAME_PUSH_PROMISE:
    case FRAME_CONTINUATION: break;
    }
    (void)size;
}

void wire_serve(struct wire *w)
{
    enum {
        PREFACE = 24,
        HEAD = 9
    };
    struct server *s = w->server;
    if (s->frozen || s->mute || s->black_hole || w->stalled) {
        return;
    }
    if (!w->begun) {
        w->begun = true;
        wire_settings(w, s->max_streams);
    }
    if (!w->preface && w->in.size >= PREFACE) {
        assert_memory_equal(bytes_front(&w->in),
                            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", PREFACE);
        bytes_drop(&w->in, PREFACE);
        w->preface = true;
    }
    while (w->preface && w->in.size >= HEAD) {
        size_t size = number_at(bytes_front(&w->in), 3);
        if (w->in.size < HEAD + size) {
            return;
        }
        take_frame(w, bytes_front(&w->in), size);
        bytes_drop(&w->in, HEAD + size);
    }
}
