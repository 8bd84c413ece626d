#include "tests/unit/h2_raw.h"

#include <assert.h>
#include <string.h>

static const char magic[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

enum {
    MAGIC_LEN = sizeof magic - 1,
    HEAD_LEN = 9
};

void raw_bytes(struct raw *r, const void *data, size_t len)
{
    assert(r->len + len <= RAW_BYTES);
    if (len > 0) {
        memcpy(r->bytes + r->len, data, len);
    }
    r->len += len;
}

static void put(struct raw *r, uint32_t value, size_t bytes)
{
    for (size_t i = bytes; i-- > 0;) {
        const uint8_t byte = (uint8_t)(value >> (8 * i));
        raw_bytes(r, &byte, 1);
    }
}

void raw_frame(struct raw *r,
               unsigned type,
               unsigned flags,
               uint32_t stream,
               const void *payload,
               size_t len)
{
    put(r, (uint32_t)len, 3);
    put(r, type, 1);
    put(r, flags, 1);
    put(r, stream, 4);
    raw_bytes(r, payload, len);
}

void raw_client_hello(struct raw *r)
{
    raw_bytes(r, magic, MAGIC_LEN);
    raw_server_hello(r);
}

void raw_server_hello(struct raw *r)
{
    raw_frame(r, RAW_SETTINGS, 0, 0, NULL, 0);
}

/* A string without Huffman coding. */
static void put_string(struct raw *r, const void *data, size_t len)
{
    if (len < 127) {
        put(r, (uint32_t)len, 1);
    } else {
        size_t rest = len - 127;
        put(r, 127, 1);
        for (; rest >= 128; rest /= 128) {
            put(r, (uint32_t)(rest % 128 + 128), 1);
        }
        put(r, (uint32_t)rest, 1);
    }
    raw_bytes(r, data, len);
}

void raw_field(struct raw *r,
               const void *name,
               size_t name_len,
               const void *value,
               size_t value_len)
{
    put(r, 0, 1);
    put_string(r, name, name_len);
    put_string(r, value, value_len);
}

void raw_block(struct raw *r, const char *text)
{
    while (*text != '\0') {
        const char *colon = strchr(text + 1, ':');
        const char *end = strchr(colon, '\n');
        raw_field(r, text, (size_t)(colon - text), colon + 2,
                  (size_t)(end - colon - 2));
        text = end + 1;
    }
}

void raw_headers(struct raw *r, uint32_t stream, const char *text, bool end)
{
    const size_t start = r->len;
    raw_frame(r, RAW_HEADERS, RAW_END_HEADERS | (end ? RAW_END_STREAM : 0U),
              stream, NULL, 0);
    raw_block(r, text);
    const size_t len = r->len - start - HEAD_LEN;
    assert(len <= 16384);
    r->bytes[start + 1] = (uint8_t)(len >> 8);
    r->bytes[start + 2] = (uint8_t)len;
}

void raw_u32(struct raw *r,
             unsigned type,
             unsigned flags,
             uint32_t stream,
             uint32_t value)
{
    raw_frame(r, type, flags, stream, NULL, 0);
    r->bytes[r->len - HEAD_LEN + 2] = 4;
    put(r, value, 4);
}

void raw_setting(struct raw *r, uint16_t id, uint32_t value)
{
    raw_frame(r, RAW_SETTINGS, 0, 0, NULL, 0);
    r->bytes[r->len - HEAD_LEN + 2] = 6;
    put(r, id, 2);
    put(r, value, 4);
}

static uint32_t get(const uint8_t *at, size_t bytes)
{
    uint32_t value = 0;
    for (size_t i = 0; i < bytes; i++) {
        value = value << 8 | at[i];
    }
    return value;
}

bool raw_next(const uint8_t *bytes,
              size_t size,
              size_t *at,
              struct raw_seen *seen)
{
    if (size - *at >= MAGIC_LEN && memcmp(bytes + *at, magic, MAGIC_LEN) == 0) {
        *at += MAGIC_LEN;
    }
    if (size - *at < HEAD_LEN) {
        return false;
    }
    const uint8_t *head = bytes + *at;
    *seen = (struct raw_seen){ .len = get(head, 3),
                               .type = head[3],
                               .flags = head[4],
                               .stream = get(head + 5, 4),
                               .payload = head + HEAD_LEN };
    if (size - *at - HEAD_LEN < seen->len) {
        return false;
    }
    *at += HEAD_LEN + seen->len;
    seen->end = *at;
    return true;
}

size_t raw_count(const uint8_t *bytes,
                 size_t size,
                 unsigned type,
                 uint32_t stream)
{
    struct raw_seen seen;
    size_t n = 0;
    for (size_t at = 0; raw_next(bytes, size, &at, &seen);) {
        n += seen.type == type && (stream == 0 || seen.stream == stream);
    }
    return n;
}

int64_t raw_code(const uint8_t *bytes, size_t size, uint32_t stream)
{
    struct raw_seen seen;
    for (size_t at = 0; raw_next(bytes, size, &at, &seen);) {
        if (stream == 0 && seen.type == RAW_GOAWAY) {
            return get(seen.payload + 4, 4);
        }
        if (stream != 0 && seen.type == RAW_RST_STREAM &&
            seen.stream == stream) {
            return get(seen.payload, 4);
        }
    }
    return -1;
}
