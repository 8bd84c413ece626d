/* The numbers of gRPC upstreams: added up, and as Prometheus text (grpc.md
 * §6.1). */
#ifndef IO_GRPC_METRICS_H
#define IO_GRPC_METRICS_H

#include "config/config.h"
#include "proxy/core/grpc_stats.h"
#include "proxy/io/text.h"

/* Room for the numbers of each upstream, all zero: an array of
 * config->n_upstreams, or NULL without memory. Only those of gRPC have
 * methods. */
struct grpc_stats *grpc_metrics_new(const struct config *config);
void grpc_metrics_free(const struct config *config, struct grpc_stats *stats);

/* Add another worker's numbers. */
void grpc_metrics_add(const struct config *config,
                      struct grpc_stats *sum,
                      const struct grpc_stats *one);

/* The metrics grpc_* and redial_grpc_*. Nothing, if no upstream is of gRPC. */
void grpc_metrics_write(const struct config *config,
                        const struct grpc_stats *stats,
                        struct text *out);

#endif
