#include "proxy/core/grpc_stats.h"

#include <assert.h>
#include <stddef.h>

#include "parser/h2.h"

const uint64_t grpc_bucket_us[GRPC_DURATION_BUCKETS - 1] = {
    0,       10,      50,       100,      300,      600,       800,
    1000,    2000,    3000,     4000,     5000,     6000,      8000,
    10000,   13000,   16000,    20000,    25000,    30000,     40000,
    50000,   65000,   80000,    100000,   130000,   160000,    200000,
    250000,  300000,  400000,   500000,   650000,   800000,    1000000,
    2000000, 5000000, 10000000, 20000000, 50000000, 100000000,
};

const uint64_t grpc_bucket_bytes[GRPC_SIZE_BUCKETS - 1] = {
    0,
    UINT64_C(1) << 10,
    UINT64_C(1) << 11,
    UINT64_C(1) << 12,
    UINT64_C(1) << 14,
    UINT64_C(1) << 16,
    UINT64_C(1) << 18,
    UINT64_C(1) << 20,
    UINT64_C(1) << 22,
    UINT64_C(1) << 24,
    UINT64_C(1) << 26,
    UINT64_C(1) << 28,
    UINT64_C(1) << 30,
    UINT64_C(1) << 32,
};

const uint64_t grpc_bucket_counts[GRPC_COUNT_BUCKETS - 1] = {
    1, 2, 3, 4, 5, 10,
};

/* The first bucket that value fits into. */
static size_t bucket_of(const uint64_t *bounds, size_t n, uint64_t value)
{
    size_t low = 0;
    while (n > 0) {
        size_t half = n / 2;
        if (bounds[low + half] < value) {
            low += half + 1;
            n -= half + 1;
        } else {
            n = half;
        }
    }
    return low;
}

void grpc_durations_add(struct grpc_durations *d, uint64_t us)
{
    d->bucket[bucket_of(grpc_bucket_us, GRPC_DURATION_BUCKETS - 1, us)]++;
    d->sum_us += us;
    d->count++;
}

void grpc_sizes_add(struct grpc_sizes *s, uint64_t bytes)
{
    s->bucket[bucket_of(grpc_bucket_bytes, GRPC_SIZE_BUCKETS - 1, bytes)]++;
    s->sum += bytes;
    s->count++;
}

void grpc_counts_add(struct grpc_counts *c, uint64_t n)
{
    c->bucket[bucket_of(grpc_bucket_counts, GRPC_COUNT_BUCKETS - 1, n)]++;
    c->sum += n;
    c->count++;
}

void grpc_ended_add(struct grpc_ended_stats *ended,
                    uint64_t us,
                    uint64_t request_bytes,
                    uint64_t reply_bytes)
{
    grpc_durations_add(&ended->duration, us);
    grpc_sizes_add(&ended->request_bytes, request_bytes);
    grpc_sizes_add(&ended->reply_bytes, reply_bytes);
}

void grpc_retries_add(struct grpc_method_stats *m,
                      uint64_t retries,
                      uint64_t transparent,
                      uint64_t delay_us)
{
    if (retries > 0) {
        grpc_counts_add(&m->retries, retries);
    }
    if (transparent > 0) {
        grpc_counts_add(&m->transparent_retries, transparent);
    }
    if (delay_us > 0) {
        grpc_durations_add(&m->retry_delay, delay_us);
    }
}

/* ---- readers -------------------------------------------------------------- */

size_t grpc_methods_shown(const struct grpc_config *c)
{
    return 1 + (c->n_methods < GRPC_METHODS_SHOWN ? c->n_methods
                                                  : GRPC_METHODS_SHOWN);
}

static void add_numbers(void *to, const void *from, size_t size)
{
    uint64_t *t = to;
    const uint64_t *f = from;
    for (size_t i = 0; i < size / sizeof(*t); i++) {
        t[i] += f[i];
    }
}

/* Most statuses never happen: their pages are left alone. */
static void add_ended(struct grpc_ended_stats *to,
                      const struct grpc_ended_stats *from)
{
    static_assert(sizeof(*to) % sizeof(uint64_t) == 0, "counters only");
    for (unsigned i = 0; i < GRPC_STATUS_COUNT; i++) {
        if (from[i].duration.count != 0) {
            add_numbers(&to[i], &from[i], sizeof(to[i]));
        }
    }
}

void grpc_method_add(struct grpc_method_stats *to,
                     const struct grpc_method_stats *from)
{
    if (from->calls_started != 0) {
        add_numbers(to, from, offsetof(struct grpc_method_stats, calls));
        add_ended(to->calls, from->calls);
        add_ended(to->attempts, from->attempts);
    }
}

/* ---- labels --------------------------------------------------------------- */

enum grpc_disconnect grpc_disconnect_of(uint32_t goaway_code)
{
    uint32_t last = GRPC_DISCONNECT_COUNT - GRPC_DISCONNECT_GOAWAY - 1;
    return (enum grpc_disconnect)(GRPC_DISCONNECT_GOAWAY +
                                  (goaway_code < last ? goaway_code : last));
}

const char *grpc_disconnect_name(enum grpc_disconnect d)
{
    static_assert(GRPC_DISCONNECT_COUNT - GRPC_DISCONNECT_GOAWAY ==
                      H2_HTTP_1_1_REQUIRED + 2,
                  "one name for each code, and one for others");
    static const char *const names[GRPC_DISCONNECT_COUNT] = {
        [GRPC_DISCONNECT_SHUTDOWN] = "subchannel shutdown",
        [GRPC_DISCONNECT_RESET] = "connection reset",
        [GRPC_DISCONNECT_TIMED_OUT] = "connection timed out",
        [GRPC_DISCONNECT_SOCKET_ERROR] = "socket error",
        [GRPC_DISCONNECT_UNKNOWN] = "unknown",
#define GOAWAY(code) [GRPC_DISCONNECT_GOAWAY + H2_##code] = "GOAWAY " #code
        GOAWAY(NO_ERROR),
        GOAWAY(PROTOCOL_ERROR),
        GOAWAY(INTERNAL_ERROR),
        GOAWAY(FLOW_CONTROL_ERROR),
        GOAWAY(SETTINGS_TIMEOUT),
        GOAWAY(STREAM_CLOSED),
        GOAWAY(FRAME_SIZE_ERROR),
        GOAWAY(REFUSED_STREAM),
        GOAWAY(CANCEL),
        GOAWAY(COMPRESSION_ERROR),
        GOAWAY(CONNECT_ERROR),
        GOAWAY(ENHANCE_YOUR_CALM),
        GOAWAY(INADEQUATE_SECURITY),
        GOAWAY(HTTP_1_1_REQUIRED),
#undef GOAWAY
        [GRPC_DISCONNECT_COUNT - 1] = "GOAWAY unknown",
    };
    assert((unsigned)d < GRPC_DISCONNECT_COUNT);
    return names[d];
}

const char *grpc_held_name(enum grpc_held result)
{
    switch (result) {
    case GRPC_HELD_RELEASED_DATA: return "released_data";
    case GRPC_HELD_RELEASED_TIMER: return "released_timer";
    case GRPC_HELD_DISCARDED: return "discarded";
    case GRPC_HELD_FINAL: return "final";
    case GRPC_HELD_RESULTS: break;
    }
    assert(0 && "not a grpc_held");
    return NULL;
}

const char *grpc_cause_name(int cause)
{
    static const char *const names[GRPC_CAUSE_COUNT] = {
        [GRPC_F0_NO_CONNECTION] = "no_connection",
        [GRPC_F1_UNSENT] = "unsent",
        [GRPC_F2_UNPROCESSED] = "refused",
        [GRPC_F3_AMBIGUOUS] = "ambiguous",
        [GRPC_F4_TRAILERS_ONLY] = "status",
        [GRPC_F5_LATE_STATUS] = "late_status",
        [GRPC_F6_COMMITTED] = "committed",
        [GRPC_F7_LOCAL] = "local",
        [GRPC_F8_NOT_GRPC] = "not_grpc",
        [GRPC_CAUSE_REQUEST] = "request",
    };
    assert(cause >= 0 && cause < GRPC_CAUSE_COUNT);
    return names[cause];
}

const char *grpc_abuse_name(enum grpc_abuse kind)
{
    switch (kind) {
    case GRPC_ABUSE_RESETS: return "resets";
    case GRPC_ABUSE_FRAMES: return "frames";
    case GRPC_ABUSE_EMPTY: return "empty_frames";
    case GRPC_ABUSE_PINGS: return "pings";
    case GRPC_ABUSE_PREFACE: return "bad_preface";
    case GRPC_ABUSE_STALLED: return "write_stalled";
    case GRPC_ABUSE_COUNT: break;
    }
    assert(0 && "not a grpc_abuse");
    return NULL;
}
