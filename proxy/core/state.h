/* The whole of one worker's core. Only for modules of the core. */
#ifndef CORE_STATE_H
#define CORE_STATE_H

#include "parser/resp_command.h"
#include "proxy/core/conn.h"
#include "proxy/core/downstream.h"
#include "proxy/core/endpoint.h"
#include "proxy/core/engine.h"
#include "proxy/core/pool.h"
#include "proxy/core/rng.h"
#include "proxy/core/session.h"
#include "proxy/core/timers.h"
#include "proxy/core/upstream.h"

/* A configured local address. */
struct listener {
    const struct listener_config *config; /* borrowed */
    struct cluster *cluster;              /* borrowed */
    uint32_t n_clients;
};

enum timer_kind {
    TIMER_DOWNSTREAM = 1,
    TIMER_UPSTREAM
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
    struct listener *listeners;     /* owned, config->n_listeners */
    struct cluster *clusters;       /* owned, config->n_upstreams */
    struct command_scanner scanner; /* for commands that arrive whole */
    struct engine_stats stats;
    uint32_t n_downstreams;
    uint32_t n_upstreams;
    bool draining;
    bool ending; /* engine_free() is at work: nothing is opened any more */
};

/* Make a trace record, if anybody listens. Fills in the time. */
void engine_trace(struct engine *e, struct trace_record *record);
void engine_trace_limit(struct engine *e,
                        const struct cluster *c,
                        const char *name);

/* redis_session.c: r waited for a lane with the session its client wants. */
void redis_session_accepted(struct engine *e,
                            struct upstream *u,
                            struct request *r);
void redis_session_refused(struct engine *e,
                           struct request *r,
                           struct span text);

/* Also redis_session.c: the commands it implements. They return false when
 * they must wait until everything before them is answered. */
bool redis_auth(struct engine *e, struct downstream *d, struct request *r);
bool redis_hello(struct engine *e, struct downstream *d, struct request *r);
bool redis_select(struct engine *e, struct downstream *d, struct request *r);
bool redis_setname(struct engine *e, struct downstream *d, struct request *r);
bool redis_getname(struct engine *e, struct downstream *d, struct request *r);
bool redis_setinfo(struct engine *e, struct downstream *d, struct request *r);
/* The change a client asked for will not happen. */
void redis_session_dropped(struct engine *e, struct downstream *d);
/* A session command on a private lane was accepted. */
void redis_ledger_reply(struct engine *e,
                        struct upstream *u,
                        struct request *r);

/* redis_request.c: r was answered with an error: if it was a MULTI, no block has
 * begun. */
void redis_multi_refused(struct downstream *d, const struct request *r);
/* Whether another MULTI of the same client follows r. */
bool redis_later_multi(const struct request *r);

/* redis_request.c: answer r, an EXEC or DISCARD of a block that was broken: the
 * server is not inside of it any more. */
void redis_block_aborted(struct engine *e, struct request *r);

/* redis_request.c: answer r, of a block that must not run because its WATCH
 * was lost, as the server would if somebody had changed a watched key. */
void redis_answer_sham(struct engine *e, struct request *r);

/* redis_request.c: give r, whose turn has come, to the client's lane. */
void redis_submit(struct engine *e, struct downstream *d, struct request *r);

/* redis_request.c: bind d to the shared lane of its session. False: no
 * memory. */
bool redis_bind_shared(struct engine *e, struct downstream *d);

/* redis_reply.c: requests the server refused as not applied (rule 6 of
 * redis.md §4). Everything behind them is answered: retry, or pass the refusal
 * on. */
void redis_refused_settle(struct engine *e, struct downstream *d);
/* Their time has come. */
void redis_refused_retry(struct engine *e, struct downstream *d);

/* What redial says when it gives a request up (redis_give_up.c). */
void request_give_up(struct engine *e,
                     struct request *r,
                     struct cluster *cluster,
                     enum outcome outcome,
                     enum verdict verdict,
                     const char *cause);

/* A line for the log: r will be tried again. */
void request_trace_retry(struct engine *e,
                         const struct request *r,
                         enum outcome outcome,
                         enum verdict verdict,
                         const char *why,
                         uint64_t delay_us);

#endif
