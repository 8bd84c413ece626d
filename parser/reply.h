/* Whole control-plane replies as trees: HELLO, CLIENT ID, ROLE, COMMAND. The
 * only user of hiredis. Data-path replies never come here. */
#ifndef PARSER_REPLY_H
#define PARSER_REPLY_H

#include "parser/span.h"

enum reply_type {
    REPLY_STRING, /* bulk, simple, verbatim, double, big number */
    REPLY_ERROR,
    REPLY_INTEGER, /* and booleans */
    REPLY_NIL,
    REPLY_ARRAY, /* and sets, pushes; a map is an array of 2n */
};

enum {
    REPLY_ELEMENTS_MAX = 1000000,
    REPLY_DEPTH_MAX = 8, /* aggregates within each other: as far as hiredis
                            follows them; COMMAND needs all 8 */
    REPLY_BYTES_MAX = 64 * 1024 * 1024,
};

struct reply;

/* Parse one whole message, RESP2 or RESP3 (RESP3 types are first written as
 * RESP2: hiredis 0.14 knows no others). Checks size, element count and depth
 * before hiredis sees a byte. Returns NULL when data is not exactly one whole
 * message, is beyond a limit, or memory is short. The caller owns the tree. */
struct reply *reply_parse(struct span data);
void reply_free(struct reply *r);

enum reply_type reply_type(const struct reply *r);
/* The text of a string or error; empty for other types. Borrowed from r. */
struct span reply_text(const struct reply *r);
int64_t reply_integer(const struct reply *r);
size_t reply_count(const struct reply *r);
/* Element i, or NULL when there is none. Borrowed from r. */
const struct reply *reply_at(const struct reply *r, size_t i);
/* The value behind a text key in a map or flat array; NULL when missing. */
const struct reply *reply_get(const struct reply *r, const char *key);

#endif
