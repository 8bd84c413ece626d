/* Where the core's memory comes from. One per worker; the shell borrows it for
 * the blocks it reads into. Tests and the simulator pass an allocator that
 * fails on purpose. */
#ifndef CORE_MEMORY_H
#define CORE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

/* alloc returns NULL when there is none. free accepts what alloc gave. */
struct allocator {
    void *(*alloc)(void *context, size_t size);
    void (*free)(void *context, void *block);
    void *context;
};

enum {
    BLOCK_BYTES = 64 * 1024, /* one read block, header included */
    BLOCKS_KEPT = 32,        /* free blocks kept for the next read */
};

struct memory;
struct buf;
struct segment;

/* allocator is copied; NULL means malloc and free. Returns NULL when out of
 * memory. */
struct memory *memory_new(const struct allocator *allocator);
/* Everything taken from m must have been given back. */
void memory_free(struct memory *m);

/* Zeroed memory, or NULL. */
void *memory_take(struct memory *m, size_t size);
/* The same with undefined content, for what is written as a whole anyway. */
void *memory_take_raw(struct memory *m, size_t size);
/* block may be NULL. */
void memory_give(struct memory *m, void *block);

/* Bytes in blocks that are in use now: received data that something holds. */
size_t memory_block_bytes(const struct memory *m);

/* For buf.c alone: where bufs and the segments of chains come from. What they
 * return is not zeroed, since clearing 64 KiB for each read would cost more
 * than the read. NULL when memory is short. */

/* A buf of cap bytes; only its cap is set. One with the cap of a read block is
 * kept for the next read when it comes back, up to BLOCKS_KEPT of them. */
struct buf *memory_take_buf(struct memory *m, uint32_t cap);
void memory_give_buf(struct memory *m, struct buf *b);

/* From a free list that grows in slabs; the slabs stay until memory_free(). */
struct segment *memory_take_segment(struct memory *m);
void memory_give_segment(struct memory *m, struct segment *s);

#endif
