/* Objects of one size from a free list, taken from the heap in slabs. */
#ifndef CORE_POOL_H
#define CORE_POOL_H

#include <stdbool.h>

#include "proxy/core/memory.h"

enum {
    POOL_SLAB_OBJECTS = 32
};

struct pool_node {
    struct pool_node *next;
};

struct pool {
    struct memory *memory;
    struct pool_node *free;
    struct pool_node *slabs;
    size_t size;
    size_t used; /* objects taken and not given back */
};

void pool_init(struct pool *p, struct memory *m, size_t size);
/* Every object must have been given back. */
void pool_fini(struct pool *p);

/* One more slab. Returns false when memory is short. */
bool pool_grow(struct pool *p);

/* An object with undefined content, or NULL. */
static inline void *pool_take(struct pool *p)
{
    if (p->free == NULL && !pool_grow(p)) {
        return NULL;
    }
    struct pool_node *node = p->free;
    p->free = node->next;
    p->used++;
    return node;
}

static inline void pool_give(struct pool *p, void *object)
{
    struct pool_node *node = object;
    node->next = p->free;
    p->free = node;
    p->used--;
}

#endif
