/* Values that are numbers: counts, durations, sizes, shares. */
#ifndef CONFIG_VALUE_NUMBER_H
#define CONFIG_VALUE_NUMBER_H

#include <stdbool.h>
#include <stdint.h>

#include "config/option.h"
#include "config/value.h"

/* Numbers pass through here as int64_t in the base unit of their type; this
 * stands for "infinite" and "unset". */
enum {
    NUMBER_NONE = -1
};

bool number_is_type(enum option_type type);

/* Read text. With VALUE_BAD, why says what is allowed. */
enum value_result number_parse(const struct option *o,
                               const char *text,
                               int64_t *v,
                               char *why);
/* Write v as number_parse() reads it. text has VALUE_TEXT_MAX bytes. */
void number_format(enum option_type type, int64_t v, char *text);
/* Write what is allowed: "off, or 1ms to 1h". */
void number_range(const struct option *o, char *text);

void number_store(const struct option *o, int64_t v, void *field);
int64_t number_load(const struct option *o, const void *field);

#endif
