/* An allocator for tests: it counts what is alive, hands out dirty memory and
 * fails when told to. */
#ifndef UNIT_FAILING_ALLOCATOR_H
#define UNIT_FAILING_ALLOCATOR_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/core/memory.h"

struct failing {
    size_t left;  /* allocations before the next ones fail; SIZE_MAX: never */
    size_t live;  /* blocks not yet given back */
    size_t calls; /* allocations asked for */
};

static inline void *failing_alloc(void *context, size_t size)
{
    struct failing *f = context;
    f->calls++;
    if (f->left == 0) {
        return NULL;
    }
    if (f->left != SIZE_MAX) {
        f->left--;
    }
    void *block = malloc(size);
    assert(block != NULL);
    memset(block, 0xa5, size);
    f->live++;
    return block;
}

static inline void failing_free(void *context, void *block)
{
    struct failing *f = context;
    assert(block != NULL && f->live > 0);
    f->live--;
    free(block);
}

static inline struct allocator failing_allocator(struct failing *f)
{
    return (struct allocator){ .alloc = failing_alloc,
                               .free = failing_free,
                               .context = f };
}

#endif
