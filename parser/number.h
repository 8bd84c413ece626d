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

/* An unsigned number and where the '\r' behind it is; NULL: there is no such
 * number in the buffer, and the careful, resumable way decides what it is.
 * Returned in two registers. */
struct number_line {
    const uint8_t *end;
    uint64_t number;
};

/* Out of line: few lengths have more than two digits. */
__attribute__((noinline, unused)) static struct number_line number_line_long(
    const uint8_t *p,
    const uint8_t *end)
{
    const struct number_line none = { NULL, 0 };
    const uint8_t *first = p;
    uint64_t n = 0;

    if (end - first > NUMBER_DIGITS_SAFE) {
        end = first + NUMBER_DIGITS_SAFE;
    }
    for (; p < end; p++) {
        unsigned digit = (unsigned)*p - '0';
        if (digit > 9) {
            break;
        }
        n = n * 10 + digit;
    }
    if (p == end || *p != '\r' || p == first ||
        (*first == '0' && p > first + 1)) {
        return none;
    }
    return (struct number_line){ p, n };
}

/* Read a number that begins at p and ends with '\r', wholly in [p, end). Meant
 * for the fast path. */
static inline struct number_line number_line(const uint8_t *p,
                                             const uint8_t *end)
{
    if (end - p >= 3) {
        unsigned tens = (unsigned)p[0] - '0';
        if (p[1] == '\r' && tens <= 9) {
            return (struct number_line){ p + 1, tens };
        }
        unsigned ones = (unsigned)p[1] - '0';
        if (p[2] == '\r' && tens - 1 <= 8 && ones <= 9) {
            return (struct number_line){ p + 2, tens * 10 + ones };
        }
    }
    return number_line_long(p, end);
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
