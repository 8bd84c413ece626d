/* A queue of bytes that grows at its end and is taken from its front. */
#ifndef SIM_BYTES_H
#define SIM_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "parser/span.h"

/* Start with { 0 }. What is queued lies from data + at on, size bytes. */
struct bytes {
    uint8_t *data;
    size_t at;
    size_t size;
    size_t cap;
};

void bytes_fini(struct bytes *b);

static inline const uint8_t *bytes_front(const struct bytes *b)
{
    return b->data == NULL ? NULL : b->data + b->at;
}

static inline struct span bytes_span(const struct bytes *b)
{
    return (struct span){ .data = bytes_front(b), .len = b->size };
}

/* Running out of memory ends the program: this is a test. */
void bytes_add(struct bytes *b, const void *data, size_t size);
void bytes_add_text(struct bytes *b, const char *text);
void bytes_printf(struct bytes *b, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* Take away from the front; count is at most b->size. */
void bytes_drop(struct bytes *b, size_t count);
void bytes_clear(struct bytes *b);

/* malloc and realloc that end the program instead of failing. */
void *must_alloc(size_t size);
void *must_grow(void *block, size_t size);

/* Good enough to tell runs and replies apart. Start with 0. */
uint64_t hash_bytes(uint64_t hash, const void *data, size_t size);
static inline uint64_t hash_number(uint64_t hash, uint64_t number)
{
    return hash_bytes(hash, &number, sizeof number);
}

#endif
