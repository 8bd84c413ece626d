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

/* Keep shared lanes to p open, those of clients that have said nothing before
 * anybody needs them. */
void topology_join(struct engine *e, struct endpoint *p);
/* Shared lanes to p are not kept open any more. They end when what they carry
 * is answered; with at_once they are given up, and p's private ones too
 * (redis.md §10). */
void topology_leave(struct engine *e,
                    struct endpoint *p,
                    bool at_once,
                    const char *why);
/* role is an enum node_role. */
void topology_set_role(struct engine *e,
                       struct cluster *c,
                       struct endpoint *p,
                       uint8_t role);
/* Endpoints that are not known any more, and that nothing refers to, go. */
void topology_forget_strangers(struct engine *e, struct cluster *c);

#endif
