/* SHA1, by which Redis names scripts. The only user of libnettle. */
#ifndef PARSER_SHA1_H
#define PARSER_SHA1_H

#include "parser/span.h"

enum {
    SHA1_BYTES = 20,
    SHA1_HEX = 40
};

struct sha1 {
    uint8_t byte[SHA1_BYTES];
};

/* The digest of data. */
struct sha1 sha1_of(struct span data);

/* Read 40 hexadecimal digits; their case does not matter, as for EVALSHA.
 * False: text is something else. */
bool sha1_parse(struct span text, struct sha1 *sha1);

static inline bool sha1_equal(const struct sha1 *a, const struct sha1 *b)
{
    return memcmp(a->byte, b->byte, SHA1_BYTES) == 0;
}

#endif
