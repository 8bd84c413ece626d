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

/* allocator is copied; NULL means malloc and free. Returns NULL when out of
 * memory. */
struct memory *memory_new(const struct allocator *allocator);
/* Everything taken from m must have been given back. */
void memory_free(struct memory *m);

/* Zeroed memory, or NULL. */
void *memory_take(struct memory *m, size_t size);
void memory_give(struct memory *m, void *block);

/* Bytes in blocks that are in use now: received data that something holds. */
size_t memory_block_bytes(const struct memory *m);

#endif
