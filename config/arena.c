#include "config/arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

struct arena_piece {
    struct arena_piece *next;
    max_align_t memory[];
};

void *arena_get(struct arena *a, size_t size)
{
    if (size > SIZE_MAX - sizeof(struct arena_piece)) {
        return NULL;
    }
    struct arena_piece *piece = calloc(1, sizeof(*piece) + size);
    if (piece == NULL) {
        return NULL;
    }
    piece->next = a->pieces;
    a->pieces = piece;
    return piece->memory;
}

char *arena_copy(struct arena *a, const char *text, size_t len)
{
    char *copy = arena_get(a, len + 1);
    if (copy != NULL && len > 0) {
        memcpy(copy, text, len);
    }
    return copy;
}

void arena_fini(struct arena *a)
{
    while (a->pieces != NULL) {
        struct arena_piece *piece = a->pieces;
        a->pieces = piece->next;
        free(piece);
    }
}

char *text_copy(const char *text, size_t len)
{
    char *copy = malloc(len + 1);
    if (copy != NULL) {
        memcpy(copy, text, len);
        copy[len] = '\0';
    }
    return copy;
}
