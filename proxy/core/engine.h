/* The proxy without its sockets: events in, actions out (DESIGN.md §1). */
#ifndef CORE_ENGINE_H
#define CORE_ENGINE_H

#include "proxy/core/event.h"
#include "proxy/core/stats.h"
#include "proxy/core/trace.h"

struct engine;

struct engine_options {
    const struct config *config; /* borrowed; outlives the engine */
    uint64_t seed;               /* decides every random choice */
    struct tracer tracer;
    struct allocator allocator; /* all NULL: malloc and free */
    int64_t wall_offset_us;     /* wall clock minus monotonic clock */
    uint64_t now_us;            /* monotonic time at the start */
    unsigned workers;           /* among how many engines budgets and limits
                                    of the process are divided; 0 means 1 */
};

/* Create an engine: same options and events give the same actions. It at once
 * wants to connect to its upstreams: drain its actions. Returns NULL when out
 * of memory. */
struct engine *engine_new(const struct engine_options *options);
/* Also frees what is still open. Chains that the shell was given must be freed
 * by the shell before. */
void engine_free(struct engine *e);

/* The memory blocks and chains of this engine come from. */
struct memory *engine_memory(struct engine *e);

/* Reserve the id under which a just accepted client will be known. Returns 0
 * when there is no memory or the listener has clients_max clients: close it. */
conn_id engine_reserve(struct engine *e, unsigned listener);

/* What to tell a client of that listener that could not be admitted. Static;
 * NULL: nothing that it would understand. */
const char *engine_refusal(const struct engine *e, unsigned listener);

/* Let one thing happen. Never blocks, never fails: whatever goes wrong becomes
 * an action, a reply to a client, or a counter. Events for a connection that
 * the core has closed are ignored. */
void engine_step(struct engine *e, const struct event *event);

/* Take the next thing to do. Return false when there is nothing left. */
bool engine_next(struct engine *e, struct action *action);

/* When the core next wants EVENT_TIMEOUT, in microseconds, or UINT64_MAX. */
uint64_t engine_deadline(const struct engine *e);

/* After EVENT_DRAIN: true once nothing is left to finish. */
bool engine_drained(const struct engine *e);

/* Copy the numbers. upstreams has room for config->n_upstreams. */
void engine_stats(const struct engine *e,
                  struct engine_stats *engine,
                  struct upstream_stats *upstreams);

struct cluster_state; /* node_state.h */

/* Copy what is known of the servers of upstream i. out has room, and the sizes
 * of it; the rest is overwritten. */
void engine_cluster_state(const struct engine *e,
                          size_t i,
                          struct cluster_state *out);

/* Whether upstream i has a server connection that is up. */
bool engine_upstream_ready(const struct engine *e, size_t i);

struct grpc_stats;    /* grpc_stats.h */
struct channel_state; /* channel_state.h */

/* Of upstreams of gRPC: of others nothing is written but what counts entries.
 * Copy the numbers; out->methods has room for grpc_methods_shown() entries, all
 * zero or from another call of this function for the same upstream; NULL: not
 * asked for. */
void engine_grpc_stats(const struct engine *e,
                       size_t upstream,
                       struct grpc_stats *out);
/* Copy what is known of the endpoints of the upstream. out has room, and the
 * size of it; the rest is overwritten. */
void engine_channel_state(const struct engine *e,
                          size_t upstream,
                          struct channel_state *out);

#endif
