/* Token buckets against floods, on both kinds of connections (grpc.md §5.5). */
#ifndef CORE_GRPC_BUCKET_H
#define CORE_GRPC_BUCKET_H

#include <stdbool.h>
#include <stdint.h>

enum {
    GRPC_CONTROLS_BURST = 10000, /* frames without content */
    GRPC_CONTROLS_RATE = 1000,   /* of these, per second */
};

/* Take a token of a bucket that time fills, per_s tokens a second up to burst.
 * False: it is empty. */
bool grpc_bucket_take(uint64_t *tokens,
                      uint64_t *filled_us,
                      uint64_t burst,
                      uint64_t per_s,
                      uint64_t now_us);

#endif
