/* What holds for each method of gRPC: what the file says, merged with the
 * service config (grpc.md §2.3). */
#ifndef CONFIG_POLICIES_H
#define CONFIG_POLICIES_H

#include "config/config.h"
#include "config/draft.h"

/* Complete all upstreams of type grpc. Problems go to the draft's list,
 * warnings to c->warnings. */
void policies_build(struct config *c, const struct draft *d);

#endif
