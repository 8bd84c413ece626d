/* Whole numbers in decimal, as Redis writes and accepts them: an optional
 * minus, no plus, no leading zero, nothing around them. */
#ifndef PARSER_NUMBER_H
#define PARSER_NUMBER_H

#include "parser/span.h"

/* Any number of so many digits fits in 64 bits. */
enum {
    NUMBER_DIGITS_MAX = 19,
    NUMBER_DIGITS_SAFE = 18
};

/* Read an unsigned number that ends with '\r', wholly in [p, end). Returns
 * where the '\r' is, or NULL when there is no such number: then the careful,
 * resumable way decides what it is. Meant for the fast path. */
static inline const uint8_t *number_line_long(const uint8_t *p,
                                              const uint8_t *end,
                                              uint64_t *number)
{
    const uint8_t *first = p;
    uint64_t n = 0;

    if (end - first > NUMBER_DIGITS_SAFE) {
        end = first + NUMBER_DIGITS_SAFE;
    }
    for (; p < end; p++) {
        unsigned digit = (unsigned)*p - '0';
        if (digit > 9) {
            *number = n;
            return *p == '\r' && p > first && (*first != '0' || p == first + 1)
                       ? p
                       : NULL;
        }
        n = n * 10 + digit;
    }
    return NULL;
}

/* The same, quickest for the one or two digits that most lengths have. */
static inline const uint8_t *number_line(const uint8_t *p,
                                         const uint8_t *end,
                                         uint64_t *number)
{
    if (end - p >= 3) {
        unsigned tens = (unsigned)p[0] - '0';
        unsigned ones = (unsigned)p[1] - '0';
        if (p[1] == '\r' && tens <= 9) {
            *number = tens;
            return p + 1;
        }
        if (p[2] == '\r' && tens - 1 <= 8 && ones <= 9) {
            *number = tens * 10 + ones;
            return p + 2;
        }
    }
    return number_line_long(p, end, number);
}

/* Read a whole span as a signed 64-bit number. Returns false when it is
 * anything else. */
static inline bool number_parse(struct span text, int64_t *number)
{
    bool negative = text.len > 0 && text.data[0] == '-';
    size_t i = negative ? 1 : 0;
    size_t digits = text.len - i;
    uint64_t n = 0;

    if (digits == 0 || digits > NUMBER_DIGITS_MAX ||
        (text.data[i] == '0' && text.len > 1)) {
        return false;
    }
    for (; i < text.len; i++) {
        unsigned digit = (unsigned)text.data[i] - '0';
        if (digit > 9) {
            return false;
        }
        n = n * 10 + digit;
    }
    if (n > (uint64_t)INT64_MAX + (negative ? 1 : 0)) {
        return false;
    }
    *number = negative ? -(int64_t)(n - 1) - 1 : (int64_t)n;
    return true;
}

#endif
