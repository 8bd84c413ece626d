/* Values: text to what a field holds, and back. */
#ifndef CONFIG_VALUE_H
#define CONFIG_VALUE_H

#include <stddef.h>

#include "config/option.h"

enum value_result {
    VALUE_OK,
    VALUE_BAD,
    VALUE_NO_MEMORY
};

/* Big enough for every text that value_parse(), value_format() and
 * value_range() write. */
enum {
    VALUE_TEXT_MAX = 512
};
enum {
    VALUE_STRING_MAX = 1024
}; /* user names and passwords, bytes */

enum {
    VALUE_NAME_MAX = 127
}; /* names and zones, bytes */

/* Read text into field, which has the type that o says. A string is allocated;
 * the one before is freed. With VALUE_BAD, why says what is allowed, and the
 * field is as it was. The types without a field are not for here. */
enum value_result value_parse(const struct option *o,
                              const char *text,
                              void *field,
                              char why[VALUE_TEXT_MAX]);

/* Write a field as text that value_parse() reads to the same value. Not for
 * strings. */
void value_format(const struct option *o,
                  const void *field,
                  char text[VALUE_TEXT_MAX]);

/* What is allowed: "1ms to 1h", "pass, own or none", or "". */
void value_range(const struct option *o, char text[VALUE_TEXT_MAX]);

/* What is wrong with a name of a master or a zone, or NULL. */
const char *value_name_wrong(const char *text, size_t len);

/* Read the word of an enum. */
enum value_result value_word(const struct option *o,
                             const char *text,
                             unsigned *value,
                             char why[VALUE_TEXT_MAX]);

#endif
