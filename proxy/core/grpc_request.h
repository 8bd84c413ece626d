/* What the headers of a gRPC request say, and whether it can be a call at all
 * (grpc.md §1.3). */
#ifndef CORE_GRPC_REQUEST_H
#define CORE_GRPC_REQUEST_H

#include "proxy/core/grpc.h"

/* An answer that needs no endpoint. */
struct grpc_refusal {
    const char *http; /* :status */
    enum grpc_status status;
    char text[GRPC_TEXT_MAX]; /* what follows "redial: " */
    bool stop;                /* with grpc-retry-pushback-ms: -1 */
    bool reset;               /* no answer: RST_STREAM(PROTOCOL_ERROR) */
};

/* Look at a request of that client. Returns false, and why, when it cannot be a
 * call; else *timeout_us is what the client asked for (GRPC_NO_LIMIT: nothing).
 */
bool grpc_request_check(const struct engine *e,
                        const struct grpc_client *c,
                        const struct h2_block *block,
                        uint64_t *timeout_us,
                        struct grpc_refusal *refusal);

#endif
