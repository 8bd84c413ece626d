#include "tests/sim/bytes.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

void *must_alloc(size_t size)
{
    void *block = calloc(1, size);
    if (block == NULL) {
        abort();
    }
    return block;
}

void *must_grow(void *block, size_t size)
{
    void *grown = realloc(block, size);
    if (grown == NULL) {
        abort();
    }
    return grown;
}

void bytes_fini(struct bytes *b)
{
    free(b->data);
    *b = (struct bytes){ 0 };
}

static void make_room(struct bytes *b, size_t size)
{
    if (b->at + b->size + size <= b->cap) {
        return;
    }
    if (b->at > 0) {
        memmove(b->data, b->data + b->at, b->size);
        b->at = 0;
    }
    if (b->size + size > b->cap) {
        b->cap = (b->size + size) * 2;
        b->data = must_grow(b->data, b->cap);
    }
}

void bytes_add(struct bytes *b, const void *data, size_t size)
{
    if (size == 0) {
        return;
    }
    make_room(b, size);
    memcpy(b->data + b->at + b->size, data, size);
    b->size += size;
}

void bytes_add_text(struct bytes *b, const char *text)
{
    bytes_add(b, text, strlen(text));
}

void bytes_printf(struct bytes *b, const char *format, ...)
{
    char text[512];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    assert(length >= 0 && (size_t)length < sizeof text);
    bytes_add(b, text, (size_t)length);
}

void bytes_drop(struct bytes *b, size_t count)
{
    assert(count <= b->size);
    b->at += count;
    b->size -= count;
    if (b->size == 0) {
        b->at = 0;
    }
}

void bytes_clear(struct bytes *b)
{
    bytes_drop(b, b->size);
}

uint64_t hash_bytes(uint64_t hash, const void *data, size_t size)
{
    const uint8_t *byte = data;
    hash ^= size * 0x9e3779b97f4a7c15u;
    while (size > 0) {
        uint64_t word = 0;
        size_t n = size < sizeof word ? size : sizeof word;
        memcpy(&word, byte, n);
        hash = (hash ^ word) * 0xff51afd7ed558ccdu;
        hash ^= hash >> 32;
        byte += n;
        size -= n;
    }
    return hash;
}
