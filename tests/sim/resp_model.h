/* RESP as the tests see it. Written apart from parser/, so that a mistake there
 * is not made twice. */
#ifndef SIM_RESP_MODEL_H
#define SIM_RESP_MODEL_H

#include "tests/sim/bytes.h"

enum {
    MODEL_ARGS_MAX = 64
};

/* One command; the spans are borrowed from the bytes it was read from. */
struct model_command {
    struct span arg[MODEL_ARGS_MAX];
    size_t argc;
    size_t size; /* of the whole command, in bytes */
};

enum model_scan {
    MODEL_DONE,
    MODEL_MORE,
    MODEL_BROKEN
};

/* Read the multibulk command at the beginning of data. */
enum model_scan model_command_read(struct span data, struct model_command *c);

/* Find the end of the reply at the beginning of data. */
enum model_scan model_reply_end(struct span data, size_t *size);

/* Append words as a multibulk command. */
void model_command_add(struct bytes *out, const struct span *arg, size_t argc);

void model_bulk_add(struct bytes *out, struct span text);
/* The null of RESP2 or RESP3. */
void model_null_add(struct bytes *out, int resp);
void model_null_array_add(struct bytes *out, int resp);
/* A map's head: an array of twice the length in RESP2. */
void model_map_add(struct bytes *out, int resp, unsigned pairs);

/* Case does not matter; word is in upper case. */
bool model_arg_is(const struct model_command *c, size_t i, const char *word);
/* The number an argument says; fallback when it says none. */
int64_t model_arg_number(const struct model_command *c,
                         size_t i,
                         int64_t fallback);
/* "0.25" as microseconds; 0 when it is no such number. */
uint64_t model_seconds(struct span text);

/* A reply or push that is an array of texts and numbers: its parts, without
 * their types. Nulls have no data. Returns how many, 0: it is no such thing. */
size_t model_parts(struct span reply, struct span *part, size_t max);

#endif
