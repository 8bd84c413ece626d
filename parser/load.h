/* Bytes as words of eight, the first byte lowest whatever the machine. Private
 * to the parser. */
#ifndef PARSER_LOAD_H
#define PARSER_LOAD_H

#include <stddef.h>
#include <stdint.h>

/* Compilers make one load of each. */
static inline uint64_t load_u32(const uint8_t *p)
{
    return (uint64_t)p[0] | (uint64_t)p[1] << 8 | (uint64_t)p[2] << 16 |
           (uint64_t)p[3] << 24;
}

static inline uint64_t load_u64(const uint8_t *p)
{
    return load_u32(p) | load_u32(p + 4) << 32;
}

/* The up to eight bytes at p, without touching a byte beyond them. */
static inline uint64_t load_part(const uint8_t *p, size_t len)
{
    if (len >= 8) {
        return load_u64(p);
    }
    if (len >= 4) { /* two loads that overlap */
        return load_u32(p) | load_u32(p + len - 4) << (8 * (len - 4));
    }
    if (len == 0) {
        return 0;
    }
    size_t middle = len / 2;
    return (uint64_t)p[0] | (uint64_t)p[middle] << (8 * middle) |
           (uint64_t)p[len - 1] << (8 * (len - 1));
}

#endif
