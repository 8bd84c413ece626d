/* The log events of gRPC (grpc.md §6.2): one function for each. Those that
 * come with every call cost nothing unless somebody is debugging. Names of
 * methods and endpoints appear, metadata and messages never do. */
#ifndef CORE_GRPC_TRACE_H
#define CORE_GRPC_TRACE_H

#include "proxy/core/grpc.h"

/* A call is DONE: its status, reason and counters are set. A warning if it
 * failed although it was tried again, else for debugging. */
void grpc_trace_call_done(struct engine *e, const struct grpc_call *call);

/* An attempt has ended, and this is what follows. For debugging. */
void grpc_trace_attempt_done(struct engine *e,
                             const struct grpc_call *call,
                             const struct grpc_outcome *outcome,
                             const struct grpc_ended *ended,
                             const struct grpc_decision *decision);

/* No retry can follow. cause in words: "headers", "data", "log is full". For
 * debugging. */
void grpc_trace_committed(struct engine *e,
                          const struct grpc_call *call,
                          const char *cause);

/* The failures-th attempt in a row to connect has failed: told of the first and
 * then of each tenth. delay_us: until the next one. */
void grpc_trace_connect_failed(struct engine *e,
                               const struct grpc_channel *ch,
                               const struct address *address,
                               const char *reason,
                               unsigned failures,
                               uint64_t delay_us);
void grpc_trace_connection_ready(struct engine *e,
                                 const struct grpc_channel *ch,
                                 const struct grpc_link *l);
/* It was READY or DRAINING. */
void grpc_trace_connection_lost(struct engine *e,
                                const struct grpc_channel *ch,
                                const struct grpc_link *l,
                                const char *reason);
/* debug is what the endpoint adds in its own words; borrowed. */
void grpc_trace_goaway(struct engine *e,
                       const struct grpc_channel *ch,
                       const struct grpc_link *l,
                       int32_t last_stream,
                       uint32_t code,
                       struct span debug);
/* to_us is what holds for new connections (K4). */
void grpc_trace_keepalive_doubled(struct engine *e,
                                  const struct grpc_channel *ch,
                                  const struct grpc_link *l,
                                  uint64_t to_us);
void grpc_trace_endpoint_removed(struct engine *e,
                                 const struct grpc_channel *ch,
                                 const struct address *address);
/* address is the name as configured. */
void grpc_trace_resolve_failed(struct engine *e,
                               const struct grpc_channel *ch,
                               const struct address *address,
                               const char *reason);
/* The retry budget has shut (tokens at or below half), or opened again. */
void grpc_trace_throttle(struct engine *e,
                         const struct grpc_channel *ch,
                         bool closed);

/* A client is closed, or told to go, for what it did (§5.5). */
void grpc_trace_abuse(struct engine *e,
                      const struct grpc_client *c,
                      enum grpc_abuse kind);
/* Its first bytes are no preface of HTTP/2 (K11): what they look like. first
 * is what arrived; empty: nothing did, in time. */
void grpc_trace_bad_preface(struct engine *e,
                            const struct grpc_client *c,
                            struct span first);
const char *grpc_preface_hint(struct span first);

#endif
