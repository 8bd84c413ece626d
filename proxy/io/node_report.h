/* What the workers know of the servers: added up, as JSON and as metrics. */
#ifndef IO_NODE_REPORT_H
#define IO_NODE_REPORT_H

#include "proxy/core/node_state.h"
#include "proxy/io/text.h"

enum {
    NODES_LABELLED_MAX = 256 /* of one upstream; the others are one label */
};

/* Room for what is known of each upstream: an array of config->n_upstreams, or
 * NULL without memory. */
struct cluster_state *node_report_new(const struct config *config);
void node_report_free(const struct config *config,
                      struct cluster_state *states);

/* Add another worker's numbers to those of the first one, whose view counts: a
 * node that only the other one knows is left out. */
void node_report_add(struct cluster_state *sum,
                     const struct cluster_state *one,
                     size_t n_upstreams);

/* The page /topology. */
void node_report_json(const struct config *config,
                      const struct cluster_state *states,
                      uint64_t workers,
                      struct text *out);

/* The metrics redial_node_*. */
void node_report_metrics(const struct config *config,
                         const struct cluster_state *states,
                         struct text *out);

#endif
