/* The session ledger: what a client has told its connection (redis.md §2,
 * DESIGN.md §5). It chooses the lane, and is established on each new one. */
#ifndef CORE_SESSION_H
#define CORE_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "parser/span.h"

struct engine;

/* All fields NULL, 0 or false: a client that has said nothing. resp is 2 or
 * 3. Strings are owned, NUL-terminated copies with their length. */
struct text {
    char *data; /* owned; NULL: not given */
    size_t len;
};

struct session {
    struct text username; /* as sent to the server */
    struct text password;
    struct text name;     /* CLIENT SETNAME */
    struct text lib_name; /* CLIENT SETINFO */
    struct text lib_version;
    uint32_t db;
    uint8_t resp;
    bool authenticated; /* auth = own: the password was right */
};

/* A copy of from (NULL: a fresh session with the cluster's own identity
 * unknown). Returns NULL when memory is short. */
struct session *session_copy(struct engine *e, const struct session *from);
void session_free(struct engine *e, struct session *s);

/* Replace a text. Returns false, and changes nothing, without memory. */
bool text_set(struct engine *e, struct text *t, struct span value);
void text_clear(struct engine *e, struct text *t);

static inline struct span text_span(const struct text *t)
{
    return (struct span){ (const uint8_t *)t->data, t->len };
}

/* Whether two sessions may share a lane: same RESP version, user and db. */
bool session_same_lane(const struct session *a, const struct session *b);

/* Whether what they call themselves (CLIENT SETNAME, SETINFO) is the same. */
bool session_same_name(const struct session *a, const struct session *b);

#endif
