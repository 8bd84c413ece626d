/* Numbers of one gRPC upstream in one worker (grpc.md §6.1); the shell asks for
 * a copy. */
#ifndef CORE_GRPC_STATS_H
#define CORE_GRPC_STATS_H

#include <stdint.h>

#include "proxy/core/grpc_retry.h"

enum {
    /* Bucket i counts what is at most grpc_bucket_us[i], the last all that is
     * longer (A66). */
    GRPC_DURATION_BUCKETS = 42,
    GRPC_SIZE_BUCKETS = 15,   /* the same with grpc_bucket_bytes */
    GRPC_COUNT_BUCKETS = 7,   /* 1 to 5, up to 10, and more (A96) */
    GRPC_METHODS_SHOWN = 256, /* of one upstream; others are added up */
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

/* What ended with one status: calls, or attempts. */
struct grpc_ended_stats {
    struct grpc_durations duration;  /* duration.count is their number */
    struct grpc_sizes request_bytes; /* content, prefixes included */
    struct grpc_sizes reply_bytes;
};

/* Of one method label. Large (21 KB) and mostly zero: one more reason for
 * GRPC_METHODS_SHOWN. */
struct grpc_method_stats {
    uint64_t calls_started;
    uint64_t attempts_started;
    struct grpc_counts retries, transparent_retries; /* of calls that had any */
    struct grpc_durations retry_delay; /* of calls that had to wait */
    struct grpc_ended_stats calls[GRPC_STATUS_COUNT];    /* by status */
    struct grpc_ended_stats attempts[GRPC_STATUS_COUNT]; /* the same */
};

/* What became of response headers that were held (C4). */
enum grpc_held {
    GRPC_HELD_RELEASED_DATA,
    GRPC_HELD_RELEASED_TIMER,
    GRPC_HELD_DISCARDED, /* the attempt was retried */
    GRPC_HELD_FINAL,     /* its status was the call's */
    GRPC_HELD_RESULTS
};

/* Why a status is redial's own: how the last attempt ended (enum grpc_class), or
 * there was none. */
enum {
    GRPC_CAUSE_REQUEST = GRPC_CLASS_COUNT, /* the request was refused (§1.3) */
    GRPC_CAUSE_COUNT
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

/* Why a connection that was ready is no more (A94): the first reason that was
 * seen. GOAWAYs come last, with their code added: see grpc_disconnect_of(). */
enum grpc_disconnect {
    GRPC_DISCONNECT_SHUTDOWN, /* redial's own doing: idle, age, drain, names */
    GRPC_DISCONNECT_RESET,
    GRPC_DISCONNECT_TIMED_OUT, /* keepalive included */
    GRPC_DISCONNECT_SOCKET_ERROR,
    GRPC_DISCONNECT_UNKNOWN, /* also a plain end of stream */
    GRPC_DISCONNECT_GOAWAY,
    GRPC_DISCONNECT_COUNT = GRPC_DISCONNECT_GOAWAY + 15 /* 14 codes; others */
};

struct grpc_stats {
#define GRPC_COUNTER(name, help) uint64_t name;
#define GRPC_GAUGE(name, help)   uint64_t name;
#define GRPC_FIELD(name)         uint64_t name;
#include "proxy/core/grpc_stats.def"
#undef GRPC_COUNTER
#undef GRPC_GAUGE
#undef GRPC_FIELD
    uint64_t attempt_outcomes[GRPC_CLASS_COUNT];
    uint64_t not_retried[GRPC_REASON_COUNT];
    uint64_t held_headers[GRPC_HELD_RESULTS];
    uint64_t local_status[GRPC_STATUS_COUNT][GRPC_CAUSE_COUNT];
    uint64_t abuse[GRPC_ABUSE_COUNT];
    uint64_t disconnections[GRPC_DISCONNECT_COUNT];
    struct grpc_method_stats *methods; /* grpc_methods_shown(), see
                                          grpc_stats_of(); in an engine owned,
                                          else the reader's */
};

extern const uint64_t grpc_bucket_us[GRPC_DURATION_BUCKETS - 1];
extern const uint64_t grpc_bucket_bytes[GRPC_SIZE_BUCKETS - 1];
extern const uint64_t grpc_bucket_counts[GRPC_COUNT_BUCKETS - 1];

void grpc_durations_add(struct grpc_durations *d, uint64_t us);
void grpc_sizes_add(struct grpc_sizes *s, uint64_t bytes);
void grpc_counts_add(struct grpc_counts *c, uint64_t n);

/* A call, or an attempt, has ended: m->calls or m->attempts at its status. */
void grpc_ended_add(struct grpc_ended_stats *ended,
                    uint64_t us,
                    uint64_t request_bytes,
                    uint64_t reply_bytes);
/* And, of a call: how often it was tried again, for which calls without any do
 * not count, and for how long it had no attempt. */
void grpc_retries_add(struct grpc_method_stats *m,
                      uint64_t retries,
                      uint64_t transparent,
                      uint64_t delay_us);

/* How many entries methods has: at most GRPC_METHODS_SHOWN with a label of
 * their own, and one for all others. */
size_t grpc_methods_shown(const struct grpc_config *c);
static inline struct grpc_method_stats *grpc_stats_of(struct grpc_stats *s,
                                                      uint32_t label)
{
    return &s->methods[label <= GRPC_METHODS_SHOWN ? label : GRPC_LABEL_OTHER];
}
/* Add numbers of another worker, or of another method. */
void grpc_method_add(struct grpc_method_stats *to,
                     const struct grpc_method_stats *from);

/* Which one a GOAWAY with that code of RFC 9113 is. */
enum grpc_disconnect grpc_disconnect_of(uint32_t goaway_code);
/* The labels. Static. */
const char *grpc_disconnect_name(enum grpc_disconnect d); /* "socket error" */
const char *grpc_held_name(enum grpc_held result);        /* "released_data" */
const char *grpc_cause_name(int cause);                   /* "connection" */
const char *grpc_abuse_name(enum grpc_abuse kind);        /* "resets" */

#endif
