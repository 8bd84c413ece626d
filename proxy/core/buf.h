/* Received bytes, shared without copying (DESIGN.md §7). */
#ifndef CORE_BUF_H
#define CORE_BUF_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "parser/span.h"
#include "proxy/core/memory.h"

/* A reference-counted block the shell reads into. Freed with its last
 * reference. */
struct buf {
    uint32_t refs;
    uint32_t len; /* bytes filled, at most cap */
    uint32_t cap;
    uint8_t data[];
};

enum {
    BUF_READ_CAP = BLOCK_BYTES - (int)sizeof(struct buf), /* of a read block */
};

/* A view of part of a buf. A slice owns one reference to its buf. */
struct slice {
    struct buf *buf;
    uint32_t offset;
    uint32_t len;
};

/* One slice in a chain. */
struct segment {
    struct segment *next;
    struct slice slice;
};

/* Slices in order: bytes to send. An empty chain is all zero. */
struct chain {
    struct segment *head;
    struct segment *tail;
    size_t bytes; /* sum of the lengths */
};

/* A buf with room for at least cap bytes and one reference, or NULL. A cap of
 * 0 asks for a read block: BUF_READ_CAP. */
struct buf *buf_new(struct memory *m, uint32_t cap);

static inline void buf_ref(struct buf *b)
{
    assert(b->refs > 0 && b->refs < UINT32_MAX);
    b->refs++;
}

static inline void buf_unref(struct memory *m, struct buf *b)
{
    assert(b->refs > 0);
    if (--b->refs == 0) {
        memory_give_buf(m, b);
    }
}

static inline const uint8_t *slice_data(const struct slice *s)
{
    return s->buf->data + s->offset;
}

/* Make the last slice longer when b's bytes at offset continue it; false when
 * they do not. The reference of the last slice covers them. */
static inline bool chain_extend(struct chain *c,
                                const struct buf *b,
                                uint32_t offset,
                                uint32_t len)
{
    struct segment *tail = c->tail;
    assert((uint64_t)offset + len <= b->len);
    if (tail == NULL || tail->slice.buf != b ||
        tail->slice.offset + tail->slice.len != offset) {
        return false;
    }
    tail->slice.len += len;
    c->bytes += len;
    return true;
}

/* As chain_push(), for a slice that does not continue the last one. */
bool chain_push_apart(struct memory *m, struct chain *c, struct slice s);

/* Append s; the chain takes over its reference. A slice that continues the
 * last one is merged into it. When memory is short the reference is dropped
 * and false returned. */
static inline bool chain_push(struct memory *m, struct chain *c, struct slice s)
{
    if (chain_extend(c, s.buf, s.offset, s.len)) {
        buf_unref(m, s.buf);
        return true;
    }
    return chain_push_apart(m, c, s);
}

/* As chain_push() for a part of a buf that stays the caller's. */
static inline bool chain_push_part(struct memory *m,
                                   struct chain *c,
                                   struct buf *b,
                                   uint32_t offset,
                                   uint32_t len)
{
    if (chain_extend(c, b, offset, len)) {
        return true;
    }
    buf_ref(b);
    struct slice s = { .buf = b, .offset = offset, .len = len };
    return chain_push_apart(m, c, s);
}

/* Append a copy of bytes, in a small buf of its own. */
bool chain_push_copy(struct memory *m, struct chain *c, struct span bytes);

/* Move all of from to the end of c; from is empty afterwards. */
void chain_move(struct chain *c, struct chain *from);

/* Append the same slices as those of from, sharing their bufs. On failure c is
 * as before and false is returned. */
bool chain_share(struct memory *m, struct chain *c, const struct chain *from);

/* Move the first count bytes (at most from->bytes) to the end of c. Returns
 * false when memory is short: part of them may have been moved. */
bool chain_split(struct memory *m,
                 struct chain *c,
                 struct chain *from,
                 size_t count);

/* Drop the first count bytes (at most c->bytes). */
void chain_consume(struct memory *m, struct chain *c, size_t count);

/* Drop everything. */
void chain_clear(struct memory *m, struct chain *c);

/* Copy at most max bytes from the beginning; returns how many. */
size_t chain_copy(const struct chain *c, uint8_t *out, size_t max);

#endif
