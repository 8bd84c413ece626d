/* What is made of the answers of several nodes (redis.md §9). */
#ifndef CORE_TOPOLOGY_ADOPT_H
#define CORE_TOPOLOGY_ADOPT_H

#include "proxy/core/topology.h"

/* Resolve what the nodes have said and let it count. Returns NULL, or why there
 * is nothing in it. */
const char *topology_adopt(struct engine *e, struct topology *t);

/* Whether the primary of that shard cannot be reached. */
bool topology_shard_is_down(const struct cluster *c, uint32_t shard);
/* Whether some primary cannot be reached, or a slot has none. */
bool topology_lacks_primary(const struct cluster *c);

#endif
