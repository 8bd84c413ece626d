#include "proxy/core/pool.h"

#include <assert.h>
#include <stdalign.h>

enum {
    SLAB_HEADER = alignof(max_align_t)
};

void pool_init(struct pool *p, struct memory *m, size_t size)
{
    size_t align = alignof(max_align_t);
    *p = (struct pool){ .memory = m,
                        .size = (size + align - 1) / align * align };
}

void pool_fini(struct pool *p)
{
    assert(p->used == 0);
    while (p->slabs != NULL) {
        struct pool_node *slab = p->slabs;
        p->slabs = slab->next;
        memory_give(p->memory, slab);
    }
    p->free = NULL;
}

bool pool_grow(struct pool *p)
{
    char *slab =
        memory_take(p->memory, SLAB_HEADER + POOL_SLAB_OBJECTS * p->size);
    if (slab == NULL) {
        return false;
    }
    struct pool_node *head = (struct pool_node *)(void *)slab;
    head->next = p->slabs;
    p->slabs = head;
    for (size_t i = POOL_SLAB_OBJECTS; i-- > 0;) {
        char *object = slab + SLAB_HEADER + i * p->size;
        struct pool_node *node = (struct pool_node *)(void *)object;
        node->next = p->free;
        p->free = node;
    }
    return true;
}
