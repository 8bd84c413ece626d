/* Status codes of gRPC, by name or number. */
#ifndef CONFIG_CODES_H
#define CONFIG_CODES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CODES_MAX = 16, /* the largest code */
    CODES_TEXT_MAX = 512,
    /* AIP-194 never or hardly ever retries after CANCELLED, UNKNOWN,
     * INVALID_ARGUMENT, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, ABORTED, INTERNAL
     * and DATA_LOSS. */
    CODES_DOUBTFUL =
        1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 8 | 1 << 10 | 1 << 13 | 1 << 15
};

/* The code that text names, in any case. False: it names none. */
bool code_find(const char *text, size_t len, unsigned *code);
/* The same by name alone. */
bool code_find_name(const char *text, unsigned *code);
/* Its name. */
const char *code_name(unsigned code);

/* Read "UNAVAILABLE, 10" as a set (1 << code). Returns NULL, or what is wrong
 * with the list, in words that hold until the next call has the same why.
 * why has CODES_TEXT_MAX bytes. */
const char *codes_parse(const char *text, uint32_t *set, char *why);
/* Write a set as codes_parse() reads it. text has CODES_TEXT_MAX bytes. */
void codes_format(uint32_t set, char *text);

#endif
