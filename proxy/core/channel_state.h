/* What a worker knows of a gRPC upstream and its endpoints, copied for others
 * to show. */
#ifndef CORE_CHANNEL_STATE_H
#define CORE_CHANNEL_STATE_H

#include "config/config.h"

enum {
    CHANNEL_ENDPOINTS_MAX = 2048, /* those of the names, and as many that are
                                     leaving */
    CHANNEL_ERROR_MAX = 256,
};

struct channel_endpoint {
    struct address address;
    const char *state; /* static: ready, connecting, backoff or idle */
    bool leaving;      /* no name gives it any more */
    uint64_t links_ready, links_connecting, links_draining;
    uint64_t streams;      /* of all its connections */
    uint64_t stream_limit; /* of one connection, as the endpoint says;
                              UINT32_MAX: any. 0: not known */
    uint64_t failures;     /* connection attempts in a row */
    uint64_t backoff_us;   /* until the next one may begin; 0: now */
    uint64_t age_us;       /* of its oldest connection that is ready */
    char last_error[CHANNEL_ERROR_MAX]; /* words; empty: none yet */
};

struct channel_state {
    struct channel_endpoint *endpoints; /* room for endpoints_max */
    uint32_t endpoints_max, n_endpoints;
    uint32_t n_left_out;              /* for lack of room */
    const char *state;                /* static: ready, connecting or failing */
    uint64_t calls, waiting, retries; /* active; of these: see grpc_stats.def */
    uint64_t tokens, tokens_max;      /* of the throttle, in thousandths; max
                                           0: there is none */
    char last_error[CHANNEL_ERROR_MAX];
};

#endif
