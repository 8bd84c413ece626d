/* The words of a trace line (README.md). */
#ifndef TRACE_SCRIPT_H
#define TRACE_SCRIPT_H

#include "tests/sim/bytes.h"

enum {
    WORD_MAX = 256,
    ANYTHING = 0xff, /* in a pattern: any bytes up to the next CR */
};

/* Take the next word off the line; false at its end. */
bool word_next(const char **line, char word[WORD_MAX]);

/* "12ms", "3s", "250us". */
bool time_read(const char *word, uint64_t *us);

/* Quoted text with escapes: "a\r\n" "x"*1000. */
bool quoted_read(const char **line, struct bytes *out);

/* Words or quoted text as one multibulk command. */
bool command_read(const char **line, struct bytes *out);

/* Replies in short: +OK -ERR text :1 'bulk' nil null nilarray *2 %1 >3; "..."
 * in an error and ":..." stand for anything. */
bool reply_read(const char **line, struct bytes *out);

/* Whether bytes begin with what the pattern says; *size is how many do. */
bool pattern_match(struct span pattern, struct span bytes, size_t *size);

#endif
