/* Header blocks: how one is put together while it arrives. For the files of
 * HTTP/2 sessions alone. */
#ifndef PARSER_H2_BLOCK_H
#define PARSER_H2_BLOCK_H

#include <stdbool.h>
#include <stdint.h>

#include <nghttp2/nghttp2.h>

#include "parser/h2.h"
#include "parser/h2_field.h"

struct h2_memory;

/* A block of a kind that kept all rules, and what they said of it. Most calls
 * of a client have the same fields, so the next block is compared with it, and
 * is the same block when it has the same fields. */
struct h2_pattern {
    struct h2_block *block; /* shared; NULL: none yet */
    struct h2_rules rules;
};

/* The block that is arriving. */
struct h2_reading {
    struct h2_memory *memory; /* borrowed */
    uint32_t size_max;        /* max_header_list_size */
    bool keep;                /* otherwise it is only checked */
    bool same;                /* so far: nothing but fields of the pattern */
    uint16_t at;              /* the field of the pattern that comes next */
    struct h2_block *block;   /* owned; NULL while same, or not kept */
    struct h2_rules rules;    /* not yet valid while same */
    struct h2_pattern patterns[H2_TRAILERS + 1];
};

void h2_reading_init(struct h2_reading *r,
                     struct h2_memory *memory,
                     uint32_t size_max);
void h2_reading_fini(struct h2_reading *r);
void h2_reading_begin(struct h2_reading *r, enum h2_headers kind, bool keep);
/* Returns false when there is no memory. */
bool h2_reading_field(struct h2_reading *r,
                      nghttp2_rcbuf *name,
                      nghttp2_rcbuf *value,
                      uint8_t flags);
/* The block is whole; end: END_STREAM. */
enum h2_reading_result {
    H2_READ_OK,
    H2_READ_INVALID,
    H2_READ_NO_MEMORY
};
/* block is the caller's; NULL when it was not kept. r->rules are valid. */
enum h2_reading_result h2_reading_end(struct h2_reading *r,
                                      bool end,
                                      struct h2_block **block);

#endif
