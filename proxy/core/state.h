/* The whole of one worker's core. Only for modules of the core. */
#ifndef CORE_STATE_H
#define CORE_STATE_H

#include "parser/resp_command.h"
#include "proxy/core/conn.h"
#include "proxy/core/downstream.h"
#include "proxy/core/endpoint.h"
#include "proxy/core/engine.h"
#include "proxy/core/grpc.h"
#include "proxy/core/pool.h"
#include "proxy/core/redis.h"
#include "proxy/core/redis_gather.h"
#include "proxy/core/rng.h"
#include "proxy/core/session.h"
#include "proxy/core/timers.h"
#include "proxy/core/topology.h"
#include "proxy/core/upstream.h"

/* A configured local address. */
struct listener {
    const struct listener_config *config; /* borrowed */
    struct cluster *cluster;              /* borrowed; of Redis clients */
    struct grpc_channel *channel; /* borrowed; of gRPC clients; or NULL */
    uint32_t n_clients;
};

enum timer_kind {
    TIMER_DOWNSTREAM = 1,
    TIMER_UPSTREAM,
    TIMER_TOPOLOGY,
    TIMER_GRPC_CLIENT,
    TIMER_GRPC_CALL,
    TIMER_GRPC_LINK,
    TIMER_GRPC_CHANNEL,
    TIMER_NEWCOMER
};

struct engine {
    const struct config *config; /* borrowed */
    uint64_t now_us;
    int64_t wall_offset_us;
    unsigned workers;
    struct memory *memory; /* owned */
    struct rng rng;
    struct tracer tracer;
    struct conn_table conns;
    struct conn *busy, *busy_tail; /* connections with something to do */
    struct timers timers;
    struct downstream *work; /* clients with something to do before the step
                                ends; linked by work_next */
    struct list_node closed_lanes; /* freed once all actions are taken */
    struct pool requests;
    struct gather_tables *gather_tables; /* owned; NULL: not needed yet */
    struct listener *listeners;          /* owned, config->n_listeners */
    struct cluster *clusters;            /* owned, config->n_upstreams */
    struct grpc_channel *channels;       /* the same; those of other types are
                                            all zero */
    struct h2_memory *h2_memory; /* owned; of all sessions; NULL: no gRPC */
    struct buf *grpc_packed;  /* owned: where frames are copied to; or NULL */
    struct buf *grpc_reading; /* borrowed: what a session is given; or NULL */
    struct grpc_memory_use grpc;
    struct pool calls;              /* struct grpc_call */
    struct command_scanner scanner; /* for commands that arrive whole */
    struct engine_stats stats;
    uint32_t n_downstreams;
    uint32_t n_upstreams;
    uint32_t n_grpc_clients; /* newcomers included */
    uint32_t n_grpc_timers;  /* of everything of gRPC that has one */
    bool pump;               /* a channel has */
    bool reroute;            /* a cluster has */
    bool draining;
    bool ending; /* engine_free() is at work: nothing is opened any more */
};

/* Room for the timers of everything there is, and of one more. False: no
 * memory. */
bool engine_reserve_timer(struct engine *e);

/* Make a trace record, if anybody listens. Fills in the time. */
void engine_trace(struct engine *e, struct trace_record *record);
void engine_trace_limit(struct engine *e,
                        const struct cluster *c,
                        const char *name);

#endif
