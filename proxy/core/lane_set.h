/* The shared lanes of clients that may share them: same RESP version, user and
 * database (redis.md §2); at most one lane to each endpoint. */
#ifndef CORE_LANE_SET_H
#define CORE_LANE_SET_H

#include "proxy/core/endpoint.h"

struct upstream;

struct lane_set {
    struct list_node node;   /* in cluster->lane_sets */
    struct cluster *cluster; /* borrowed */
    struct session *session; /* owned */
    struct upstream **lanes; /* owned, n_lanes, by endpoint index; the upstreams
                                 are their endpoints' */
    uint32_t n_lanes;
    uint32_t index; /* among the sets of one session (shared_lanes) */
    uint32_t n_clients;
    uint32_t n_open; /* upstreams in lanes */
    bool pinned;     /* stays without clients */
};

/* The set for clients like d (NULL: nobody yet) with that session: found or
 * created. Returns NULL when memory is short. */
struct lane_set *lane_set_get(struct engine *e,
                              struct cluster *c,
                              const struct session *session,
                              const struct downstream *d);

/* A set that lane_set_get() does not find: of lanes that serve no clients.
 * Returns NULL when memory is short. */
struct lane_set *lane_set_new_apart(struct engine *e,
                                    struct cluster *c,
                                    const struct session *session);

/* The set whose lanes carry what a server in a long script still takes, for
 * clients with that session. They live while they are needed; nothing but the
 * identity is established on them. NULL without memory. */
struct lane_set *lane_set_aside(struct engine *e,
                                struct cluster *c,
                                const struct session *session);
bool lane_set_is_aside(const struct lane_set *set);

/* A client comes, or goes. The set may be gone afterwards. */
void lane_set_join(struct lane_set *set);
void lane_set_leave(struct engine *e, struct lane_set *set);

/* A new upstream for an endpoint that has none in this set; NULL without
 * memory. Use lane_set_lane(). */
struct upstream *lane_set_add(struct engine *e,
                              struct lane_set *set,
                              struct endpoint *p);

/* The set's lane to p, created if need be; NULL without memory. */
static inline struct upstream *lane_set_lane(struct engine *e,
                                             struct lane_set *set,
                                             struct endpoint *p)
{
    if (p->index < set->n_lanes && set->lanes[p->index] != NULL) {
        return set->lanes[p->index];
    }
    return lane_set_add(e, set, p);
}

/* An upstream of the set ends. */
void lane_set_drop(struct engine *e, struct lane_set *set, uint32_t index);

/* Whether somebody uses the set. */
static inline bool lane_set_is_used(const struct lane_set *set)
{
    return set->pinned || set->n_clients > 0;
}

#endif
