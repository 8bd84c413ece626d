/* Where a RESP2 or RESP3 message ends: an incremental framer that copies
 * nothing and allocates nothing (redis.md §2 "Framing"). */
#ifndef PARSER_RESP_H
#define PARSER_RESP_H

#include "parser/span.h"

enum scan {
    SCAN_DONE,    /* a whole message */
    SCAN_MORE,    /* everything given was taken; the message goes on */
    SCAN_INVALID, /* the stream cannot be followed any more */
};

struct resp_limits {
    uint64_t bulk_max;     /* bytes of one bulk string */
    uint64_t elements_max; /* elements of one message, all levels together */
};

/* The state of one stream of replies between two calls. Fields are read-only
 * outside resp.c. */
struct resp_scanner {
    uint64_t pending;  /* values still missing until the message ends */
    uint64_t skip;     /* bytes of a bulk body, with its CRLF, still to pass */
    uint64_t number;   /* length being read */
    uint64_t elements; /* values announced so far in this message */
    uint64_t bytes;    /* bytes of this message taken so far */
    const char *error; /* why SCAN_INVALID, static text, else NULL */
    uint8_t state;     /* private */
    uint8_t line_type; /* type byte of the line being read */
    uint8_t type;      /* type byte of the message, after its attributes;
                           0 while not known */
    bool negative;     /* private */
    uint8_t digits;    /* private */
    bool attribute;    /* the message began with an attribute */
};

/* Begin at a message's first byte. */
void resp_scanner_init(struct resp_scanner *s);

/* Take bytes until the current message ends (RESP3 specification; RESP2 is a
 * subset). data is the continuation of what was given before and borrowed for
 * the call. *used is what was taken: all of size with SCAN_MORE, the bytes up
 * to the message's end with SCAN_DONE, and then s is ready for the next one
 * with s->type, s->bytes and s->attribute still telling of the ended message
 * (they start anew with the next call). Nesting costs no recursion and no
 * memory. Streamed strings and aggregates ("$?", "*?") are refused. Never
 * reads past size. */
enum scan resp_scan(struct resp_scanner *s,
                    const struct resp_limits *limits,
                    const uint8_t *data,
                    size_t size,
                    size_t *used);

#endif
