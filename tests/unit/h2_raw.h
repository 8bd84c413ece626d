/* HTTP/2 frames made by hand, and looked at: what a peer may send that no
 * library would. */
#ifndef UNIT_H2_RAW_H
#define UNIT_H2_RAW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    RAW_DATA,
    RAW_HEADERS,
    RAW_PRIORITY,
    RAW_RST_STREAM,
    RAW_SETTINGS,
    RAW_PUSH_PROMISE,
    RAW_PING,
    RAW_GOAWAY,
    RAW_WINDOW_UPDATE,
    RAW_CONTINUATION
};
enum {
    RAW_END_STREAM = 1,
    RAW_ACK = 1,
    RAW_END_HEADERS = 4,
    RAW_PADDED = 8
};
enum {
    RAW_BYTES = 512 * 1024
};

struct raw {
    uint8_t bytes[RAW_BYTES];
    size_t len;
};

/* All of them append. */
void raw_bytes(struct raw *r, const void *data, size_t len);
void raw_frame(struct raw *r,
               unsigned type,
               unsigned flags,
               uint32_t stream,
               const void *payload,
               size_t len);
/* A client's first bytes: the magic and empty SETTINGS; a server's: SETTINGS.*/
void raw_client_hello(struct raw *r);
void raw_server_hello(struct raw *r);
/* "name: value\n..." as literals that are not indexed, in one HEADERS frame. */
void raw_headers(struct raw *r, uint32_t stream, const char *text, bool end);
/* The same, as HPACK only. */
void raw_block(struct raw *r, const char *text);
void raw_field(struct raw *r,
               const void *name,
               size_t name_len,
               const void *value,
               size_t value_len);
void raw_u32(struct raw *r,
             unsigned type,
             unsigned flags,
             uint32_t stream,
             uint32_t value);
/* One SETTINGS entry. */
void raw_setting(struct raw *r, uint16_t id, uint32_t value);

struct raw_seen {
    unsigned type, flags;
    uint32_t stream;
    const uint8_t *payload;
    size_t len;
    size_t end; /* offset behind it */
};
/* The frame at *at of size bytes; *at moves behind it. A client's magic is
 * skipped. Returns false at the end. */
bool raw_next(const uint8_t *bytes,
              size_t size,
              size_t *at,
              struct raw_seen *seen);
/* How many frames of the type are there; stream 0: of any stream. */
size_t raw_count(const uint8_t *bytes,
                 size_t size,
                 unsigned type,
                 uint32_t stream);
/* The error code of the first RST_STREAM of that stream, or of the first
 * GOAWAY (stream 0); -1: there is none. */
int64_t raw_code(const uint8_t *bytes, size_t size, uint32_t stream);

#endif
