/* The primary of a group that sentinels watch (redis.md §10). */
#ifndef CORE_SENTINEL_H
#define CORE_SENTINEL_H

#include "proxy/core/topology.h"

struct sentinel;

bool sentinel_init(struct engine *e, struct cluster *c);
void sentinel_start(struct engine *e, struct topology *t);
void sentinel_fini(struct engine *e, struct topology *t);
void sentinel_timeout(struct engine *e, struct topology *t);
/* A lane came up: to a sentinel, or to a server. */
void sentinel_lane_up(struct engine *e, struct topology *t, struct upstream *u);
void sentinel_reply(struct engine *e,
                    struct topology *t,
                    struct upstream *u,
                    uint8_t step,
                    struct span reply);
/* A push on a lane to a sentinel, as it came. */
void sentinel_push(struct engine *e,
                   struct topology *t,
                   struct upstream *u,
                   struct span message);

#endif
