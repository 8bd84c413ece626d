#include "parser/h2_memory.h"

#include <stdalign.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "parser/h2.h"

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define IS_WATCHED 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define IS_WATCHED 1
#endif
/* AddressSanitizer sees what happens to memory only when each piece comes from
 * the heap by itself. */
#ifndef IS_WATCHED
#define IS_WATCHED 0
#endif

enum {
    FINE_STEP = 32, /* classes of small pieces are that far apart... */
    FINE_MAX = 1024,
    COARSE_STEP = 1024, /* ...and of larger ones */
    PIECE_MAX = 4096,
    FINE_CLASSES = FINE_MAX / FINE_STEP,
    CLASSES = FINE_CLASSES + (PIECE_MAX - FINE_MAX) / COARSE_STEP,
    LARGE = CLASSES, /* from the allocator itself */
    SLAB_BYTES = 8192,
    SLAB_PIECES_MIN = 4
};

/* In front of each piece. */
struct head {
    alignas(max_align_t) size_t size; /* of the piece, as a whole */
    union {
        size_t class; /* in use */
        struct head *next;
    } u;
};

struct slab {
    alignas(max_align_t) struct slab *next;
};

/* A large piece; those in use are linked. */
struct large {
    struct large *next, **link;
    struct head head;
};

struct h2_memory {
    struct h2_allocator allocator;
    struct head *free[CLASSES];
    struct slab *slabs;
    struct large *larges;
    size_t used;
    size_t resizes_failed;
};

static void *heap_alloc(void *context, size_t size)
{
    (void)context;
    return malloc(size);
}

static void heap_free(void *context, void *block)
{
    (void)context;
    free(block);
}

static const struct h2_allocator heap = { heap_alloc, heap_free, NULL };

struct h2_memory *h2_memory_new(const struct h2_allocator *allocator)
{
    if (allocator == NULL) {
        allocator = &heap;
    }
    struct h2_memory *m = allocator->alloc(allocator->context, sizeof *m);
    if (m != NULL) {
        *m = (struct h2_memory){ .allocator = *allocator };
    }
    return m;
}

void h2_memory_free(struct h2_memory *m)
{
    const struct h2_allocator a = m->allocator;
    while (m->larges != NULL) {
        struct large *large = m->larges;
        m->larges = large->next;
        a.free(a.context, large);
    }
    while (m->slabs != NULL) {
        struct slab *slab = m->slabs;
        m->slabs = slab->next;
        a.free(a.context, slab);
    }
    a.free(a.context, m);
}

static size_t class_of(size_t size)
{
    if (IS_WATCHED || size > PIECE_MAX) {
        return LARGE;
    }
    if (size <= FINE_MAX) {
        return size == 0 ? 0 : (size - 1) / FINE_STEP;
    }
    return FINE_CLASSES + (size - FINE_MAX - 1) / COARSE_STEP;
}

static size_t size_of_class(size_t class)
{
    return class < FINE_CLASSES
               ? (class + 1) * FINE_STEP
               : FINE_MAX + (class - FINE_CLASSES + 1) * COARSE_STEP;
}

static bool add_slab(struct h2_memory *m, size_t class)
{
    const size_t size = size_of_class(class);
    const size_t step = sizeof(struct head) + size;
    size_t n = SLAB_BYTES / step;
    if (n < SLAB_PIECES_MIN) {
        n = SLAB_PIECES_MIN;
    }
    struct slab *slab =
        m->allocator.alloc(m->allocator.context, sizeof *slab + n * step);
    if (slab == NULL) {
        return false;
    }
    slab->next = m->slabs;
    m->slabs = slab;

    unsigned char *at = (unsigned char *)(slab + 1);
    for (size_t i = 0; i < n; i++, at += step) {
        struct head *head = (void *)at;
        head->size = size;
        head->u.next = m->free[class];
        m->free[class] = head;
    }
    return true;
}

static void *take_large(struct h2_memory *m, size_t size)
{
    if (size > SIZE_MAX - sizeof(struct large)) {
        return NULL;
    }
    struct large *large =
        m->allocator.alloc(m->allocator.context, sizeof *large + size);
    if (large == NULL) {
        return NULL;
    }
    *large = (struct large){ .next = m->larges, .link = &m->larges };
    if (large->next != NULL) {
        large->next->link = &large->next;
    }
    m->larges = large;
    large->head.size = size;
    large->head.u.class = LARGE;
    m->used++;
    return &large->head + 1;
}

static void give_large(struct h2_memory *m, struct head *head)
{
    struct large *large =
        (void *)((unsigned char *)head - offsetof(struct large, head));
    *large->link = large->next;
    if (large->next != NULL) {
        large->next->link = large->link;
    }
    m->allocator.free(m->allocator.context, large);
}

void *h2_memory_take(struct h2_memory *m, size_t size)
{
    const size_t class = class_of(size);
    if (class == LARGE) {
        return take_large(m, size);
    }
    struct head *head = m->free[class];
    if (head == NULL) {
        if (!add_slab(m, class)) {
            return NULL;
        }
        head = m->free[class];
    }
    m->free[class] = head->u.next;
    head->u.class = class;
    m->used++;
    return head + 1;
}

void h2_memory_give(struct h2_memory *m, void *piece)
{
    if (piece == NULL) {
        return;
    }
    struct head *head = (struct head *)piece - 1;
    const size_t class = head->u.class;
    m->used--;
    if (class == LARGE) {
        give_large(m, head);
        return;
    }
    head->u.next = m->free[class];
    m->free[class] = head;
}

void *h2_memory_resize(struct h2_memory *m, void *piece, size_t size)
{
    if (piece != NULL && !IS_WATCHED) {
        const size_t old = ((struct head *)piece - 1)->size;
        if (size <= old && class_of(size) == class_of(old)) {
            return piece;
        }
    }
    void *resized = h2_memory_take(m, size);
    if (resized == NULL) {
        m->resizes_failed++;
        return NULL;
    }
    if (piece != NULL) {
        const size_t old = ((struct head *)piece - 1)->size;
        memcpy(resized, piece, old < size ? old : size);
        h2_memory_give(m, piece);
    }
    return resized;
}

size_t h2_memory_used(const struct h2_memory *m)
{
    return m->used;
}

size_t h2_memory_resizes_failed(const struct h2_memory *m)
{
    return m->resizes_failed;
}
