#include "parser/h2_sieve.h"

#include <stddef.h>
#include <string.h>

enum {
    MAGIC_LEN = 24,
    TYPE_HEADERS = 1,
    TYPE_RST_STREAM = 3,
    RST_STREAM_LEN = 4,
};

void h2_sieve_init(struct h2_sieve *s)
{
    *s = (struct h2_sieve){ .left = MAGIC_LEN };
}

static uint32_t length_of(const uint8_t *head)
{
    return (uint32_t)head[0] << 16 | (uint32_t)head[1] << 8 | head[2];
}

static uint32_t stream_of(const uint8_t *head)
{
    return ((uint32_t)head[5] & 0x7f) << 24 | (uint32_t)head[6] << 16 |
           (uint32_t)head[7] << 8 | head[8];
}

/* Of an odd stream, as a client's are, that has had no HEADERS. All else that
 * is wrong with the frame is for the library to find. */
static bool is_left_out(const struct h2_sieve *s, const uint8_t *head)
{
    const uint32_t stream = stream_of(head);
    return head[3] == TYPE_RST_STREAM && length_of(head) == RST_STREAM_LEN &&
           stream % 2 == 1 && stream > s->last_open;
}

static void begin(struct h2_sieve *s, const uint8_t *head)
{
    s->leaves_out = is_left_out(s, head);
    s->left = length_of(head);
    if (head[3] == TYPE_HEADERS && stream_of(head) > s->last_open) {
        s->last_open = stream_of(head);
    }
}

static void skip(struct span *bytes, size_t n)
{
    bytes->data += n;
    bytes->len -= n;
}

/* How much of the payload is there. */
static size_t take_payload(struct h2_sieve *s, size_t room)
{
    const size_t n = s->left < room ? s->left : room;
    s->left -= (uint32_t)n;
    return n;
}

/* A head that comes in parts is kept until the frame can be judged. */
static bool next_of_parts(struct h2_sieve *s,
                          struct span *bytes,
                          struct span *piece)
{
    const size_t missing = (size_t)H2_FRAME_HEAD - s->head_len;
    const size_t n = missing < bytes->len ? missing : bytes->len;
    memcpy(s->head + s->head_len, bytes->data, n);
    s->head_len = (uint8_t)(s->head_len + n);
    skip(bytes, n);
    if (s->head_len < H2_FRAME_HEAD) {
        return false;
    }
    begin(s, s->head);
    s->head_len = 0;
    *piece = (struct span){ s->head, s->leaves_out ? 0 : H2_FRAME_HEAD };
    return true;
}

/* Frames in a row that are shown, the last one perhaps in part. */
static size_t run_of_frames(struct h2_sieve *s, struct span bytes)
{
    size_t n = take_payload(s, bytes.len);
    while (bytes.len - n >= H2_FRAME_HEAD && !is_left_out(s, bytes.data + n)) {
        begin(s, bytes.data + n);
        n += H2_FRAME_HEAD;
        n += take_payload(s, bytes.len - n);
    }
    return n;
}

bool h2_sieve_next(struct h2_sieve *s, struct span *bytes, struct span *piece)
{
    if (s->leaves_out) {
        skip(bytes, take_payload(s, bytes->len));
        s->leaves_out = s->left > 0;
    }
    if (bytes->len == 0) {
        return false;
    }
    if (s->left == 0 && (s->head_len > 0 || bytes->len < H2_FRAME_HEAD)) {
        return next_of_parts(s, bytes, piece);
    }
    *piece = (struct span){ bytes->data, run_of_frames(s, *bytes) };
    if (piece->len > 0) {
        skip(bytes, piece->len);
    } else {
        begin(s, bytes->data); /* it is left out */
        skip(bytes, H2_FRAME_HEAD);
    }
    return true;
}
