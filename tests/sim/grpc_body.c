/* Bytes that follow from a key, and a reader of frames. */
#include <stdio.h>

#include "tests/sim/grpc_model.h"

enum {
    PREFIX = 5,
    PIECE = 4096
};

static uint64_t mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

uint64_t body_until(const struct body *b, unsigned n)
{
    uint64_t size = 0;
    for (unsigned i = 0; i < n; i++) {
        size += PREFIX + b->size[i];
    }
    return size;
}

uint64_t body_total(const struct body *b)
{
    return body_until(b, b->n);
}

unsigned body_whole(const struct body *b, uint64_t size)
{
    unsigned n = 0;
    while (n < b->n && body_until(b, n + 1) <= size) {
        n++;
    }
    return n;
}

static uint8_t prefix_byte(const struct body *b, unsigned message, uint64_t at)
{
    uint64_t byte = at == 0 ? mix(b->key + message) & 1
                            : b->size[message] >> (8 * (PREFIX - 1 - at));
    return (uint8_t)byte;
}

void body_fill(const struct body *b, uint64_t offset, uint8_t *out, size_t n)
{
    unsigned message = body_whole(b, offset);
    uint64_t begin = body_until(b, message);
    uint64_t word = 0;
    for (size_t i = 0; i < n; i++, offset++) {
        while (offset - begin >= PREFIX + (uint64_t)b->size[message]) {
            begin += PREFIX + (uint64_t)b->size[message++];
        }
        if (offset - begin < PREFIX) {
            out[i] = prefix_byte(b, message, offset - begin);
            continue;
        }
        if (i == 0 || offset % 8 == 0 || offset - begin == PREFIX) {
            word =
                mix(b->key ^ (offset / 8 + 1) * UINT64_C(0x9e3779b97f4a7c15));
        }
        out[i] = (uint8_t)(word >> (8 * (offset % 8)));
    }
}

bool body_has(const struct body *b, uint64_t offset, struct span bytes)
{
    uint8_t expected[PIECE];
    if (offset + bytes.len > body_total(b)) {
        return false;
    }
    while (bytes.len > 0) {
        size_t n = bytes.len < PIECE ? bytes.len : PIECE;
        body_fill(b, offset, expected, n);
        if (memcmp(expected, bytes.data, n) != 0) {
            return false;
        }
        offset += n;
        bytes.data += n;
        bytes.len -= n;
    }
    return true;
}

void meta_text(uint64_t key, char *text, size_t size)
{
    snprintf(text, size, "%016llx=, %llu", (unsigned long long)mix(key),
             (unsigned long long)(mix(key + 1) % 1000));
}

struct span meta_pad(uint32_t size)
{
    static uint8_t pad[PAD_MAX];
    memset(pad, 'p', sizeof pad);
    return (struct span){ pad, size < PAD_MAX ? size : PAD_MAX };
}

/* ---- frames ---- */

enum {
    FRAME_DATA = 0,
    FRAME_HEADERS = 1,
    FRAME_RESET = 3,
    FRAME_GOAWAY = 7,
    FRAME_WINDOW_UPDATE = 8,
    FLAG_END_STREAM = 1
};

static uint32_t read_32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 |
           p[3];
}

static void frame_ends(struct frames *f, stream_seen *seen, void *who)
{
    uint8_t type = f->head[3];
    uint32_t stream = read_32(f->head + 5) & INT32_MAX;
    bool end = (type == FRAME_DATA || type == FRAME_HEADERS) &&
               (f->head[4] & FLAG_END_STREAM) != 0;
    if (end || type == FRAME_RESET || type == FRAME_HEADERS) {
        seen(who, stream, end || type == FRAME_RESET);
    }
    if (type == FRAME_WINDOW_UPDATE && stream == 0) {
        f->granted += read_32(f->payload) & INT32_MAX;
    }
    if (type == FRAME_GOAWAY) {
        f->goaway = true;
        f->last_stream = read_32(f->payload) & INT32_MAX;
    }
    f->n_head = 0;
    f->n_payload = 0;
}

void frames_read(struct frames *f,
                 struct span bytes,
                 stream_seen *seen,
                 void *who)
{
    for (size_t i = 0; i < bytes.len;) {
        if (f->skip > 0) {
            f->skip--;
            i++;
        } else if (f->n_head < sizeof f->head) {
            f->head[f->n_head++] = bytes.data[i++];
            if (f->n_head == sizeof f->head) {
                f->left = read_32(f->head) >> 8;
            }
        } else if (f->n_payload < sizeof f->payload && f->left > 0) {
            f->payload[f->n_payload++] = bytes.data[i++];
            f->left--;
        } else {
            size_t n = bytes.len - i < f->left ? bytes.len - i : f->left;
            f->left -= (uint32_t)n;
            i += n;
        }
        if (f->n_head == sizeof f->head && f->left == 0) {
            frame_ends(f, seen, who);
        }
    }
}
