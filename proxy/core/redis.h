/* What the redis_*.c files offer each other and the two sides. */
#ifndef CORE_REDIS_H
#define CORE_REDIS_H

#include "parser/redis_error.h"
#include "proxy/core/request.h"
#include "proxy/core/retry.h"

struct cluster;
struct downstream;
struct endpoint;
struct engine;
struct request;
struct upstream;

/* Take a whole command apart and see that it is answered (redis_request.c).
 * Returns false when it must wait for its turn. */
bool redis_dispatch(struct engine *e, struct downstream *d, struct request *r);

enum lane_answer {
    LANE_READY,
    LANE_LATER,   /* something of the client is still in flight, or it waits
                     for its turn */
    LANE_REFUSED, /* the request has been answered */
};

/* redis_private.c: give d a lane of its own, for r. Only with nothing in
 * flight, so that order is kept (DESIGN.md §5). With private_lanes_max in use d
 * waits for its turn. */
enum lane_answer redis_want_private(struct engine *e,
                                    struct downstream *d,
                                    struct request *r);

enum redirect {
    REDIRECT_NONE,      /* the error is about something else */
    REDIRECT_FOLLOW,    /* r knows where to go; settle it */
    REDIRECT_CROSSSLOT, /* answer redis_crossslot */
    REDIRECT_REFUSE,    /* give up, with *why */
};

/* redis_redirect.c: what an error reply on a lane of a cluster with a topology
 * means for r. head is the beginning of its text. */
enum redirect redis_redirect(struct engine *e,
                             struct upstream *u,
                             struct request *r,
                             const struct redis_error *error,
                             struct span head,
                             const char **why);
/* MOVED, ASK, TRYAGAIN, CLUSTERDOWN: said before a command, or a script, runs. */
bool redis_is_redirect(enum redis_error_kind kind);
extern const char redis_crossslot[]; /* the error reply */

/* redis_request.c: r can't be done, for a reason of redial's own. */
void redis_refuse(struct engine *e,
                  struct downstream *d,
                  struct request *r,
                  const char *why);

/* redis_request.c: r has no arguments. */
bool redis_is_bare(struct engine *e, const struct request *r);

/* redis_private.c: give d's own lane back, if nothing needs it any more. */
void redis_private_done(struct engine *e, struct downstream *d);

/* redis_private.c: as redis_want_private(), for r's place among the lanes of its
 * client that carry subscriptions alone, in front of a cluster. */
enum lane_answer redis_want_listener(struct engine *e,
                                     struct downstream *d,
                                     struct request *r);

/* redis_transaction.c: r comes while a block is open, broken or sham. */
bool redis_in_block(struct engine *e, struct downstream *d, struct request *r);
/* redis_transaction.c: a MULTI outside of a block. False: not yet. */
bool redis_multi(struct engine *e, struct downstream *d, struct request *r);

/* redis_session.c: r waited for a lane with the session its client wants. */
void redis_session_accepted(struct engine *e,
                            struct upstream *u,
                            struct request *r);
/* r, of no lane, asks for an identity, and its client's lane to p cannot tell now
 * because of a script: another connection to the same server can. */
void redis_session_aside(struct engine *e,
                         struct endpoint *p,
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
/* A command about the connection was accepted on a private lane. */
void redis_ledger_reply(struct engine *e,
                        struct upstream *u,
                        struct request *r);

/* redis_transaction.c: r was answered with an error: if it was a MULTI, no block has
 * begun. */
void redis_multi_refused(struct downstream *d, const struct request *r);
/* Whether another MULTI of the same client follows r. */
bool redis_later_multi(const struct request *r);

/* redis_transaction.c: answer r, an EXEC in whose place DISCARD was sent, as the
 * server would if somebody had changed a watched key. */
void redis_block_aborted(struct engine *e, struct request *r);

/* redis_block_session.c: whether r, once a transaction has run it, is about its
 * client's connection: SELECT and the like. */
bool redis_changes_session(const struct request *r);
/* redis_block_session.c: exec may have run, and such commands with it. */
void redis_block_session_in_doubt(struct downstream *d,
                                  const struct request *exec);
/* redis_block_session.c: EXEC was answered by reply (NULL: it is not known): what
 * the commands of its block have changed about the connection. */
void redis_block_session(struct engine *e,
                         struct upstream *u,
                         struct downstream *d,
                         struct span reply);

/* redis_error_reply.c: the name that retry_on_error has for it, as RETRY_ERROR_...; 0:
 * none. */
unsigned redis_retry_error_of(enum redis_error_kind kind);

/* redis_push.c: a push, or a message, that no server has said. False: no
 * memory. */
bool redis_push_own(struct engine *e, struct downstream *d, struct span text);
/* redis_push.c: pushes that had to wait may be able to leave. d has a ledger. */
void redis_push_late(struct engine *e, struct downstream *d);

/* redis_reply.c: read u no further if its client does not keep up. */
void redis_slow_down(struct engine *e,
                     struct upstream *u,
                     struct downstream *d);
/* redis_reply.c: r, in flight on u, is answered. */
void redis_take_from_flight(struct engine *e,
                            struct upstream *u,
                            struct request *r);

/* redis_request.c: give r, whose turn has come, to the client's lane. */
void redis_submit(struct engine *e, struct downstream *d, struct request *r);

/* redis_route.c: let d join the shared lanes of its session. False: no
 * memory. */
bool redis_bind_shared(struct engine *e, struct downstream *d);

/* redis_route.c: where r goes now, and over which lane: its client's own one or
 * a shared one, created if need be (NULL: no memory). Never NULL without slots
 * and with a lane of its own. */
struct endpoint *redis_endpoint(struct engine *e,
                                struct downstream *d,
                                struct request *r);
/* redis_replica.c: whether r, of a client whose reads may go to replicas, can be
 * sent now; false: something in front of it is still on the other side. */
bool redis_choose_side(struct downstream *d, struct request *r);
/* Whether a replica can be reached and is near enough (replica_max_lag). */
bool redis_replica_is_fit(const struct endpoint *p);
/* The endpoint that answers a read of what primary owns. */
struct endpoint *redis_reader(const struct downstream *d,
                              struct endpoint *primary);

/* Every primary of a cluster answers it: it is never sent as it is. */
static inline bool redis_wants_all_nodes(const struct request *r)
{
    return r->command != NULL && r->command->route >= ROUTE_ALL_SUM &&
           r->command->route <= ROUTE_RANDOM;
}

/* For what any server can answer. */
struct endpoint *redis_any_endpoint(const struct downstream *d);
struct upstream *redis_lane(struct engine *e,
                            struct downstream *d,
                            struct request *r);
/* What a server refused r with is not to be shown. */
void redis_forget_refusal(struct engine *e, struct request *r);

/* r, which was refused or taken back and goes by its client's own lane, is
 * tried again: let the lane lead where r goes now. False: r has been answered.
 */
bool redis_follow(struct engine *e, struct downstream *d, struct request *r);
/* Submit r to that lane. */
void redis_send(struct engine *e, struct downstream *d, struct request *r);
/* Find the slot of r's first key, if that has not been done. */
void redis_find_slot(struct engine *e, struct request *r);
/* Something of d lives in its own lane and cannot be had from another one: a
 * block, a watch, a subscription. d has one. */
bool redis_lane_is_held(const struct downstream *d);
/* The server wants a password, and nobody has given one. */
bool redis_unauthenticated(const struct downstream *d);

/* redis_cluster_view.c: answer r if it asks a cluster for its topology, or would
 * change one of its nodes. False: pass it on. */
bool redis_cluster_view(struct engine *e,
                        struct downstream *d,
                        struct request *r);

/* redis_script.c (redis.md §3 "Scripts"). r, with a command from
 * COMMAND_SCRIPT_CALL on, is about to be sent: what goes before it. False: no
 * memory. */
bool redis_script_send(struct engine *e, struct upstream *u, struct request *r);
/* The same, answered with success. */
void redis_script_accepted(struct engine *e,
                           struct upstream *u,
                           const struct request *r);
/* The server has said NOSCRIPT. True: r can be mended; let it settle. */
bool redis_script_missing(struct engine *e, struct request *r);
/* The answer to TASK_FUNCTIONS, with its step. */
void redis_functions_reply(struct engine *e,
                           struct upstream *u,
                           uint8_t mark,
                           struct span reply);
/* Whether r, a script call, is known to write nothing. */
bool redis_script_reads(struct engine *e,
                        const struct request *r,
                        const struct request_args *args);
/* Whether r executes the script of that name (40 digits). */
bool redis_script_is(const struct request *r,
                     const struct request_args *args,
                     struct span name);

/* redis_refused.c: look at the requests that servers have refused as not applied
 * (rule 6 of redis.md §4): those that need not wait any more are tried again, or
 * end with the refusal. */
void redis_refused_settle(struct engine *e, struct downstream *d);
/* r has just been refused: something behind it may have been answered already,
 * by another server. */
void redis_refused_begin(struct downstream *d, struct request *r);
/* Whether a later request of d that is out, if it is refused, must wait for r. */
bool redis_refused_minds(const struct downstream *d, const struct request *r);
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
