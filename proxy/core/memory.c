#include "proxy/core/memory.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/core/buf.h"

enum {
    SLAB_SEGMENTS = 128
};

/* Segments that were allocated together. */
struct slab {
    struct slab *next;
    struct segment segments[SLAB_SEGMENTS];
};

struct memory {
    struct allocator allocator;
    size_t taken;       /* memory_take() less memory_give() */
    size_t block_bytes; /* in bufs that are in use */

    struct buf *blocks[BLOCKS_KEPT]; /* owned: free read blocks */
    uint32_t n_blocks;

    struct segment *segments; /* free ones */
    size_t segments_used;
    struct slab *slabs; /* owned */
};

static void *default_alloc(void *context, size_t size)
{
    (void)context;
    return malloc(size);
}

static void default_free(void *context, void *block)
{
    (void)context;
    free(block);
}

static void *raw_alloc(struct memory *m, size_t size)
{
    return m->allocator.alloc(m->allocator.context, size);
}

static void raw_free(struct memory *m, void *block)
{
    m->allocator.free(m->allocator.context, block);
}

struct memory *memory_new(const struct allocator *allocator)
{
    struct allocator chosen = { .alloc = default_alloc, .free = default_free };
    if (allocator != NULL) {
        chosen = *allocator;
    }

    struct memory *m = chosen.alloc(chosen.context, sizeof *m);
    if (m != NULL) {
        *m = (struct memory){ .allocator = chosen };
    }
    return m;
}

void memory_free(struct memory *m)
{
    assert(m->taken == 0);
    assert(m->block_bytes == 0);
    assert(m->segments_used == 0);

    while (m->n_blocks > 0) {
        raw_free(m, m->blocks[--m->n_blocks]);
    }
    while (m->slabs != NULL) {
        struct slab *slab = m->slabs;
        m->slabs = slab->next;
        raw_free(m, slab);
    }
    m->allocator.free(m->allocator.context, m);
}

void *memory_take_raw(struct memory *m, size_t size)
{
    void *block = raw_alloc(m, size);
    m->taken += block != NULL;
    return block;
}

void *memory_take(struct memory *m, size_t size)
{
    void *block = memory_take_raw(m, size);
    if (block != NULL) {
        memset(block, 0, size);
    }
    return block;
}

void memory_give(struct memory *m, void *block)
{
    if (block == NULL) {
        return;
    }
    assert(m->taken > 0);
    m->taken--;
    raw_free(m, block);
}

size_t memory_block_bytes(const struct memory *m)
{
    return m->block_bytes;
}

struct buf *memory_take_buf(struct memory *m, uint32_t cap)
{
    size_t size = sizeof(struct buf) + cap;
    if (size < cap) {
        return NULL; /* where size_t has 32 bits */
    }

    struct buf *b = NULL;
    if (cap == BUF_READ_CAP && m->n_blocks > 0) {
        b = m->blocks[--m->n_blocks];
    } else {
        b = raw_alloc(m, size);
    }
    if (b != NULL) {
        b->cap = cap;
        m->block_bytes += size;
    }
    return b;
}

void memory_give_buf(struct memory *m, struct buf *b)
{
    size_t size = sizeof(struct buf) + b->cap;
    assert(m->block_bytes >= size);
    m->block_bytes -= size;

    if (b->cap == BUF_READ_CAP && m->n_blocks < BLOCKS_KEPT) {
        m->blocks[m->n_blocks++] = b;
    } else {
        raw_free(m, b);
    }
}

/* Put a slab of new segments on the free list. */
static bool segments_grow(struct memory *m)
{
    struct slab *slab = raw_alloc(m, sizeof *slab);
    if (slab == NULL) {
        return false;
    }
    slab->next = m->slabs;
    m->slabs = slab;
    for (size_t i = SLAB_SEGMENTS; i > 0; i--) {
        slab->segments[i - 1].next = m->segments;
        m->segments = &slab->segments[i - 1];
    }
    return true;
}

struct segment *memory_take_segment(struct memory *m)
{
    if (m->segments == NULL && !segments_grow(m)) {
        return NULL;
    }
    struct segment *s = m->segments;
    m->segments = s->next;
    m->segments_used++;
    return s;
}

void memory_give_segment(struct memory *m, struct segment *s)
{
    assert(m->segments_used > 0);
    m->segments_used--;
    s->next = m->segments;
    m->segments = s;
}
