/* The memory of HTTP/2 sessions, for h2.c alone; made by h2_memory_new(). */
#ifndef PARSER_H2_MEMORY_H
#define PARSER_H2_MEMORY_H

#include <stddef.h>

struct h2_memory;

/* Undefined content; NULL: there is none. */
void *h2_memory_take(struct h2_memory *m, size_t size);
/* piece may be NULL. */
void h2_memory_give(struct h2_memory *m, void *piece);
/* Like realloc(). */
void *h2_memory_resize(struct h2_memory *m, void *piece, size_t size);
/* Pieces in use. h2_memory_free() takes them, too. */
size_t h2_memory_used(const struct h2_memory *m);
/* How often h2_memory_resize() has found no memory. */
size_t h2_memory_resizes_failed(const struct h2_memory *m);

#endif
