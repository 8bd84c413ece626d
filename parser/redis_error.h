/* What an error reply says (redis.md §3 "Error replies that prove
 * NOT_APPLIED"). */
#ifndef PARSER_REDIS_ERROR_H
#define PARSER_REDIS_ERROR_H

#include "parser/span.h"

enum redis_error_kind {
    REDIS_ERROR_OTHER, /* an answer like any other */
    REDIS_ERROR_LOADING,
    REDIS_ERROR_READONLY,
    REDIS_ERROR_MASTERDOWN,
    REDIS_ERROR_MISCONF,
    REDIS_ERROR_NOREPLICAS,
    REDIS_ERROR_BUSY,
    REDIS_ERROR_CLUSTERDOWN,
    REDIS_ERROR_TRYAGAIN,
    REDIS_ERROR_MOVED,
    REDIS_ERROR_ASK,
    REDIS_ERROR_UNBLOCKED, /* only "... instance state changed ..." */
    REDIS_ERROR_NOSCRIPT,
    REDIS_ERROR_EXECABORT,
    REDIS_ERROR_NOAUTH,
    REDIS_ERROR_NOPERM,
    REDIS_ERROR_WRONGPASS,
    REDIS_ERROR_NOPROTO,
    REDIS_ERROR_MAXCLIENTS,      /* "ERR max number of clients reached" */
    REDIS_ERROR_UNKNOWN_COMMAND, /* "ERR unknown command ..." */
    REDIS_ERROR_OOM,
    REDIS_ERROR_COUNT
};

/* kind and own_words are always set. */
struct redis_error {
    enum redis_error_kind kind;
    bool own_words;   /* LOADING, BUSY, NOSCRIPT: the text is the server's, not
                         something that a script has made up */
    uint16_t slot;    /* MOVED, ASK: 0 to 16383 */
    uint16_t port;    /* MOVED, ASK: 1 to 65535 */
    struct span host; /* MOVED, ASK: may be empty; borrowed from the reply */
};

/* Read a whole error reply, "-...\r\n" or RESP3's "!n\r\n...\r\n". A MOVED or
 * ASK that is malformed (slot or port out of range) is REDIS_ERROR_OTHER. IPv6
 * hosts come without brackets. */
struct redis_error redis_error_parse(struct span reply);

/* "LOADING", "MOVED", ...; "ERR" for OTHER. */
const char *redis_error_name(enum redis_error_kind kind);

/* Whether a top-level reply of this kind proves that the command was not
 * executed. True also for OOM, NOPERM, WRONGPASS, NOPROTO and UNKNOWN_COMMAND,
 * which are not retried. */
bool redis_error_not_applied(enum redis_error_kind kind);

#endif
