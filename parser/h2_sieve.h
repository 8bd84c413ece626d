/* Frames of clients that the library is not shown.
 *
 * When a call ends before its HEADERS have left, gRPC's C core says RST_STREAM
 * for it all the same. A reset of a stream that never was ends a connection by
 * RFC 9113 5.1, and nghttp2 ends it, with all other calls on it. Servers of
 * gRPC take no notice, and neither do we: such frames are left out. */
#ifndef PARSER_H2_SIEVE_H
#define PARSER_H2_SIEVE_H

#include <stdbool.h>
#include <stdint.h>

#include "parser/span.h"

enum {
    H2_FRAME_HEAD = 9
};

struct h2_sieve {
    uint8_t head[H2_FRAME_HEAD]; /* of a frame whose head is not complete */
    uint8_t head_len;
    bool leaves_out;    /* the frame that payload_left belongs to */
    uint32_t left;      /* bytes until the next head */
    uint32_t last_open; /* highest stream that had HEADERS */
};

/* Before the client's first byte. */
void h2_sieve_init(struct h2_sieve *s);
/* Take the next piece for the library from *bytes. An empty one: a frame has
 * been left out. Returns false when nothing is left. The piece lies in *bytes
 * or in s, and holds until the next call. */
bool h2_sieve_next(struct h2_sieve *s, struct span *bytes, struct span *piece);

#endif
