/* The words of gRPC over HTTP/2: statuses, timeouts, pushback, message
 * prefixes. Pure functions. */
#ifndef PARSER_GRPC_H
#define PARSER_GRPC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "parser/span.h"

enum grpc_status {
    GRPC_OK,
    GRPC_CANCELLED,
    GRPC_UNKNOWN,
    GRPC_INVALID_ARGUMENT,
    GRPC_DEADLINE_EXCEEDED,
    GRPC_NOT_FOUND,
    GRPC_ALREADY_EXISTS,
    GRPC_PERMISSION_DENIED,
    GRPC_RESOURCE_EXHAUSTED,
    GRPC_FAILED_PRECONDITION,
    GRPC_ABORTED,
    GRPC_OUT_OF_RANGE,
    GRPC_UNIMPLEMENTED,
    GRPC_INTERNAL,
    GRPC_UNAVAILABLE,
    GRPC_DATA_LOSS,
    GRPC_UNAUTHENTICATED,
    GRPC_STATUS_COUNT
};

/* "UNAVAILABLE". Static. */
const char *grpc_status_name(enum grpc_status s);
/* A name in any case. Returns false when there is none. */
bool grpc_status_find(struct span name, enum grpc_status *out);
/* The value of grpc-status; GRPC_UNKNOWN for what is not 0 to 16 in decimal
 * without leading zeros (F-f). */
enum grpc_status grpc_status_parse(struct span value);
/* What an HTTP status without grpc-status means (§1.17). */
enum grpc_status grpc_status_of_http(unsigned http);
/* What RST_STREAM by an endpoint means (§1.17); code as in RFC 9113. */
enum grpc_status grpc_status_of_reset(uint32_t code);

/* grpc-timeout (L1). Returns false when malformed. */
bool grpc_timeout_parse(struct span value, uint64_t *us);

enum {
    GRPC_TIMEOUT_TEXT = 10,
    GRPC_STATUS_TEXT = 3
};
/* Write us > 0 (L3): the finest of u m S M H whose value, rounded up, has at
 * most 8 digits. Returns the length; no final NUL. */
size_t grpc_timeout_format(uint64_t us, char text[GRPC_TIMEOUT_TEXT]);

/* grpc-retry-pushback-ms (P1). Absent is a span without data, as from
 * h2_block_value(); that there are two is the caller's to see, and means NO. */
enum grpc_pushback {
    GRPC_PUSHBACK_NONE, /* absent */
    GRPC_PUSHBACK_MS,
    GRPC_PUSHBACK_NO /* do not retry */
};
enum grpc_pushback grpc_pushback_parse(struct span value, uint32_t *ms);

/* grpc-previous-rpc-attempts (S1); 0 when absent or not a number of at most
 * nine digits. */
uint32_t grpc_attempts_parse(struct span value);

/* "/service/method" (V3). */
bool grpc_path_is_valid(struct span path);
/* "application/grpc" followed by its end, '+' or ';' (V2). */
bool grpc_content_type_is_valid(struct span value);

/* Percent-encode for grpc-message: at most size bytes are written, cut between
 * characters (of UTF-8); returns how many. No final NUL. */
size_t grpc_message_encode(const char *text, char *out, size_t size);

/* Where messages end in a stream of bytes; all zero at its start. */
struct grpc_messages {
    uint32_t count;    /* messages that have begun (their prefix is complete) */
    uint32_t whole;    /* of these, complete */
    uint64_t left;     /* bytes of the present message still to come */
    uint8_t prefix[5]; /* half a prefix */
    uint8_t n_prefix;
};

/* Look at the next bytes. Returns false when a message is longer than max;
 * *size is then its length, and m has ended there. Numbers stop at their
 * maximum. */
bool grpc_messages_scan(struct grpc_messages *m,
                        struct span bytes,
                        uint64_t max,
                        uint64_t *size);
/* Exactly one message, complete, and nothing behind it. */
static inline bool grpc_messages_single(const struct grpc_messages *m)
{
    return m->whole == 1 && m->count == 1 && m->n_prefix == 0;
}

#endif
