/* The header blocks that redial sends: what it copies, what it replaces
 * (grpc.md §1.4). */
#ifndef CORE_GRPC_FIELDS_H
#define CORE_GRPC_FIELDS_H

#include "parser/grpc.h"
#include "parser/h2.h"

struct grpc_call;
struct grpc_link;

enum {
    GRPC_FIELDS_ADDED = 8, /* at most so many are not of the block */
    GRPC_FIELDS_SCRATCH = 640,
};

/* A block in the making. Texts that are made for it lie in scratch. */
struct grpc_fields {
    struct h2_field list[H2_FIELDS_MAX + GRPC_FIELDS_ADDED];
    size_t n;
    size_t size; /* sum of name + value + 32 */
    char scratch[GRPC_FIELDS_SCRATCH];
    size_t used;
};

void grpc_fields_init(struct grpc_fields *f);

/* The request of a call as the endpoint of that link gets it (X1). */
void grpc_fields_request(struct grpc_fields *f,
                         const struct grpc_call *call,
                         const struct grpc_link *link,
                         uint64_t now_us);

/* A received block as the client gets it: all but content-length (X5). */
void grpc_fields_reply(struct grpc_fields *f, const struct h2_block *block);

/* One more field, whose value is static or in a block. */
void grpc_fields_add(struct grpc_fields *f,
                     enum h2_name id,
                     struct span name,
                     struct span value);
/* The same with a value that is copied: at most what is left of scratch. */
void grpc_fields_add_copy(struct grpc_fields *f,
                          enum h2_name id,
                          struct span name,
                          struct span value);
/* grpc-status and, percent-encoded behind "redial: ", grpc-message. */
void grpc_fields_add_status(struct grpc_fields *f,
                            enum grpc_status status,
                            const char *text);

/* grpc-retry-pushback-ms: -1. */
void grpc_fields_add_stop(struct grpc_fields *f);

#endif
