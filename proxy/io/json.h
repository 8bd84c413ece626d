/* Members of JSON objects. Text is escaped, so that it may be anything. */
#ifndef IO_JSON_H
#define IO_JSON_H

#include <stdint.h>

#include "proxy/io/text.h"

/* "key":"value" */
void json_string(struct text *out, const char *key, const char *value);
/* The same, or null when value is empty. */
void json_words(struct text *out, const char *key, const char *value);
/* Microseconds as "key":1.500000, or null when they are not known. */
void json_seconds(struct text *out, const char *key, bool known, uint64_t us);

#endif
