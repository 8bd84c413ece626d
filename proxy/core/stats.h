/* Counters of one worker. Plain numbers, written by one thread; the shell asks
 * the worker for a copy. */
#ifndef CORE_STATS_H
#define CORE_STATS_H

#include <stdint.h>

#include "parser/commands.h"
#include "proxy/core/retry.h"

enum {
    /* Bucket i counts latencies below 2^(i+1) microseconds; the last one all
     * longer ones. */
    LATENCY_BUCKETS = 28,
};

struct latency_histogram {
    uint64_t bucket[LATENCY_BUCKETS];
    uint64_t sum_us;
    uint64_t count;
};

struct upstream_stats {
#define COUNTER(name, help) uint64_t name;
#define GAUGE(name, help)   uint64_t name;
#define ENGINE_COUNTER(name, help)
#define ENGINE_GAUGE(name, help)
#include "proxy/core/stats.def"
#undef COUNTER
#undef GAUGE
#undef ENGINE_COUNTER
#undef ENGINE_GAUGE
    /* What retry_decide said, by what was known and what the command is. */
    uint64_t retries[OUTCOME_COUNT][CLASS_COUNT][VERDICT_COUNT];
    uint64_t replayed[CLASS_COUNT];   /* sent a second time after AMBIGUOUS */
    struct latency_histogram request; /* arrival of the request to its reply */
};

struct engine_stats {
#define COUNTER(name, help)
#define GAUGE(name, help)
#define ENGINE_COUNTER(name, help) uint64_t name;
#define ENGINE_GAUGE(name, help)   uint64_t name;
#include "proxy/core/stats.def"
#undef COUNTER
#undef GAUGE
#undef ENGINE_COUNTER
#undef ENGINE_GAUGE
};

static inline void latency_add(struct latency_histogram *h, uint64_t us)
{
    unsigned i = us == 0 ? 0 : 63 - (unsigned)__builtin_clzll(us);
    h->bucket[i < LATENCY_BUCKETS ? i : LATENCY_BUCKETS - 1]++;
    h->sum_us += us;
    h->count++;
}

#endif
