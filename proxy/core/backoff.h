/* How long to wait before the next try (redis.md §5). */
#ifndef CORE_BACKOFF_H
#define CORE_BACKOFF_H

#include "config/config.h"
#include "proxy/core/rng.h"

/* One operation's run of failures. All zero at its start. */
struct backoff {
    uint32_t failures;
    uint64_t previous_us; /* decorrelated_jitter */
};

/* Count one more failure and return the delay before the next try, in
 * microseconds; at most cap_us. */
uint64_t backoff_next(struct backoff *b,
                      enum backoff_kind kind,
                      uint64_t base_us,
                      uint64_t cap_us,
                      struct rng *rng);

/* A success: the next failure is the first again. */
void backoff_reset(struct backoff *b);

#endif
