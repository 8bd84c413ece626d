/* Numbers of one gRPC upstream in one worker (grpc.md §6.1); the shell asks for
 * a copy. */
#ifndef CORE_GRPC_STATS_H
#define CORE_GRPC_STATS_H

#include <stdint.h>

#include "proxy/core/grpc_retry.h"

enum {
    /* Bucket i counts durations up to GRPC_BUCKET_US[i], the last all longer
     * ones (A66). */
    GRPC_DURATION_BUCKETS = 20,
    GRPC_SIZE_BUCKETS = 17,
    GRPC_COUNT_BUCKETS = 6, /* 1 to 5, and more */
    GRPC_HELD_RESULTS = 4,
};

struct grpc_durations {
    uint64_t bucket[GRPC_DURATION_BUCKETS];
    uint64_t sum_us;
    uint64_t count;
};

struct grpc_sizes {
    uint64_t bucket[GRPC_SIZE_BUCKETS];
    uint64_t sum;
    uint64_t count;
};

struct grpc_counts {
    uint64_t bucket[GRPC_COUNT_BUCKETS];
    uint64_t sum;
    uint64_t count;
};

/* Of one method label. */
struct grpc_method_stats {
    uint64_t calls_started;
    uint64_t calls[GRPC_STATUS_COUNT]; /* ended, by status */
    struct grpc_durations call_duration;
    uint64_t attempts_started;
    uint64_t attempts[GRPC_STATUS_COUNT];
    struct grpc_durations attempt_duration;
    struct grpc_sizes request_bytes, reply_bytes; /* content of a call */
    struct grpc_counts retries, transparent_retries;
    struct grpc_durations retry_delay;
};

enum grpc_held {
    GRPC_HELD_RELEASED_DATA,
    GRPC_HELD_RELEASED_TIMER,
    GRPC_HELD_DISCARDED,
    GRPC_HELD_FINAL
};

enum grpc_abuse {
    GRPC_ABUSE_RESETS,
    GRPC_ABUSE_FRAMES,
    GRPC_ABUSE_EMPTY,
    GRPC_ABUSE_PINGS,
    GRPC_ABUSE_PREFACE,
    GRPC_ABUSE_STALLED,
    GRPC_ABUSE_COUNT
};

struct grpc_stats {
#define GRPC_COUNTER(name, help) uint64_t name;
#define GRPC_GAUGE(name, help)   uint64_t name;
#include "proxy/core/grpc_stats.def"
#undef GRPC_COUNTER
#undef GRPC_GAUGE
    uint64_t attempt_outcomes[GRPC_CLASS_COUNT];
    uint64_t not_retried[GRPC_REASON_COUNT];
    uint64_t held_headers[GRPC_HELD_RESULTS];
    uint64_t local_status[GRPC_STATUS_COUNT];
    uint64_t abuse[GRPC_ABUSE_COUNT];
    struct grpc_method_stats *methods; /* n_methods + 1, by label; in an
                                          engine owned, else the reader's */
};

extern const uint64_t grpc_bucket_us[GRPC_DURATION_BUCKETS - 1];
extern const uint64_t grpc_bucket_bytes[GRPC_SIZE_BUCKETS - 1];

void grpc_durations_add(struct grpc_durations *d, uint64_t us);
void grpc_sizes_add(struct grpc_sizes *s, uint64_t bytes);
void grpc_counts_add(struct grpc_counts *c, uint64_t n);

#endif
