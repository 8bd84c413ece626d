/* What the workers know of gRPC upstreams and their endpoints: added up, and
 * as JSON. */
#ifndef IO_CHANNEL_REPORT_H
#define IO_CHANNEL_REPORT_H

#include "proxy/core/channel_state.h"
#include "proxy/io/text.h"

/* Room for what is known of each upstream: an array of config->n_upstreams, or
 * NULL without memory. Only those of gRPC have endpoints. */
struct channel_state *channel_report_new(const struct config *config);
void channel_report_free(const struct config *config,
                         struct channel_state *states);

/* Add another worker's numbers to those of the first one, whose view counts:
 * an endpoint that only the other one knows is left out. */
void channel_report_add(struct channel_state *sum,
                        const struct channel_state *one,
                        size_t n_upstreams);

/* The page /channels. */
void channel_report_json(const struct config *config,
                         const struct channel_state *states,
                         uint64_t workers,
                         struct text *out);

#endif
