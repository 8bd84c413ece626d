/* Reading the values of a service config, each with its path. Part of
 * service_config.c, which alone knows the library behind struct json_t. */
#ifndef CONFIG_SERVICE_READER_H
#define CONFIG_SERVICE_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/service_config.h"

enum {
    READER_PATH_MAX = 192
};

struct json_t; /* a value of the document, borrowed from it */

/* One document. */
struct reader {
    const struct service_config_rules *rules; /* borrowed */
    struct service_config *out;               /* borrowed */
    bool broken;
    char path[READER_PATH_MAX]; /* of what is being read */
    size_t path_len;
};

/* Go down by a part such as "[3]", or by a key. Returns where to go back
 * to. */
size_t reader_enter(struct reader *r, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
size_t reader_enter_key(struct reader *r, const char *key);
void reader_leave(struct reader *r, size_t before);

/* Report a problem here, or at a key of the object that is here. */
void reader_wrong(struct reader *r, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void reader_wrong_at(struct reader *r, const char *key, const char *text);
void reader_no_memory(struct reader *r);

/* NULL when it is absent; null counts as absent. */
const struct json_t *reader_get(const struct json_t *object, const char *key);
bool reader_is_array(const struct json_t *value);
/* Whether it is an array of objects only. */
bool reader_is_objects(const struct json_t *value);
/* 0 for what is no array. */
size_t reader_size(const struct json_t *array);
const struct json_t *reader_item(const struct json_t *array, size_t i);
/* NULL for what is no string. */
const char *reader_string(const struct json_t *value);
/* 0 for what is no number. */
double reader_number(const struct json_t *value);
/* An integer, also one that is written as 5.0. */
bool reader_integer(const struct json_t *value, int64_t *i);
/* Write a value as JSON; a longer one is cut. */
void reader_show(const struct json_t *value, char *text, size_t size);

/* Read a key of the object that is here. They report what is wrong, and leave
 * *out as it is when the key is absent or wrong; the first two return whether
 * it is there and right. */
bool reader_bool(struct reader *r,
                 const struct json_t *object,
                 const char *key,
                 bool *out);
bool reader_uint32(struct reader *r,
                   const struct json_t *object,
                   const char *key,
                   uint64_t *out);
void reader_timeout(struct reader *r,
                    const struct json_t *object,
                    const char *key,
                    uint64_t *out);
void reader_backoff(struct reader *r,
                    const struct json_t *object,
                    const char *key,
                    uint64_t *out);
/* NULL when it is absent or wrong. */
const char *reader_text(struct reader *r,
                        const struct json_t *object,
                        const char *key);
const struct json_t *reader_object(struct reader *r,
                                   const struct json_t *object,
                                   const char *key);

/* Read methodConfig of the document. */
void service_methods_read(struct reader *r, const struct json_t *document);

#endif
