#include "proxy/core/backoff.h"

#include <assert.h>

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* min(limit, base·2^f), whatever f is. */
static uint64_t grown(uint64_t base, uint32_t f, uint64_t limit)
{
    if (base == 0) {
        return 0;
    }
    if (f >= 64 || base > limit >> f) {
        return limit;
    }
    return base << f;
}

/* t = U(base, max(base, prev·3)); prev = min(cap, t) */
static uint64_t decorrelated(struct backoff *b,
                             uint64_t base_us,
                             uint64_t cap_us,
                             struct rng *rng)
{
    uint64_t high = b->previous_us;
    high = high > UINT64_MAX / 3 ? UINT64_MAX : high * 3;
    if (high < base_us) {
        high = base_us;
    }
    uint64_t t = base_us + rng_upto(rng, high - base_us);
    b->previous_us = smaller(cap_us, t);
    return b->previous_us;
}

uint64_t backoff_next(struct backoff *b,
                      enum backoff_kind kind,
                      uint64_t base_us,
                      uint64_t cap_us,
                      struct rng *rng)
{
    if (b->failures < UINT32_MAX) {
        b->failures++;
    }
    uint64_t capped = grown(base_us, b->failures, cap_us);

    switch (kind) {
    case BACKOFF_CONSTANT: return smaller(cap_us, base_us);
    case BACKOFF_NONE: return 0;
    case BACKOFF_EXPONENTIAL: return capped;
    case BACKOFF_FULL_JITTER: return rng_upto(rng, capped);
    case BACKOFF_EQUAL_JITTER: return capped / 2 + rng_upto(rng, capped / 2);
    case BACKOFF_DECORRELATED_JITTER:
        return decorrelated(b, base_us, cap_us, rng);
    case BACKOFF_EXPONENTIAL_WITH_JITTER:
        /* The jitter is below the uncapped delay: after many failures nearly
         * every delay is the cap itself. */
        return smaller(cap_us,
                       rng_upto(rng, grown(base_us, b->failures, UINT64_MAX)));
    }
    assert(0 && "not a backoff_kind");
    return 0;
}

void backoff_reset(struct backoff *b)
{
    *b = (struct backoff){ 0 };
}
