/* A pointer and a length: bytes that somebody else owns. */
#ifndef PARSER_SPAN_H
#define PARSER_SPAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* data is borrowed, for as long as the owner says. data may be NULL when len
 * is 0. */
struct span {
    const uint8_t *data;
    size_t len;
};

/* The span of a C string, without its final NUL. */
static inline struct span span_of(const char *text)
{
    return (struct span){ .data = (const uint8_t *)text, .len = strlen(text) };
}

static inline bool span_equal(struct span a, struct span b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

/* Compare with a word in upper case, ignoring the case of a (ASCII only). */
static inline bool span_is_word(struct span a, const char *upper)
{
    for (size_t i = 0; i < a.len; i++) {
        uint8_t c = a.data[i];
        if (c >= 'a' && c <= 'z') {
            c = (uint8_t)(c - 'a' + 'A');
        }
        if (upper[i] == '\0' || c != (uint8_t)upper[i]) {
            return false;
        }
    }
    return upper[a.len] == '\0';
}

#endif
