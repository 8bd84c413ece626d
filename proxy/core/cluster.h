/* A cluster is a named set of servers with their policy, retry budget and
 * numbers, and the knowledge which of them a command goes to. A standalone
 * upstream is a cluster with one endpoint. */
#ifndef CORE_CLUSTER_H
#define CORE_CLUSTER_H

#include "config/config.h"
#include "proxy/core/budget.h"
#include "proxy/core/functions.h"
#include "proxy/core/list.h"
#include "proxy/core/scripts.h"
#include "proxy/core/stats.h"

struct downstream;
struct endpoint;
struct engine;
struct lane_set;
struct learnt;
struct session;
struct topology;

enum {
    CLUSTER_ENDPOINTS_MAX = 4000, /* of one cluster, those that are leaving
                                     included */
};

struct cluster {
    const struct upstream_config *config; /* borrowed */
    struct endpoint *
        *endpoints; /* owned, n_endpoints; a place may be NULL. With
                                    a topology the first one is the limbo:
                                    what has no server yet waits there */
    uint32_t n_endpoints;
    struct endpoint *primary;  /* without slots: where commands go */
    uint16_t *slots;           /* Redis Cluster: owned; the index of each slot's
                                   endpoint; NULL: commands go to primary */
    uint32_t version;          /* rises when a slot or the primary moves */
    struct topology *topology; /* owned; NULL: standalone */
    struct list_node lane_sets; /* all */
    struct lane_set *base;      /* of clients that have said nothing; pinned.
                                   NULL until there is memory for it */
    struct learnt *learnt;      /* owned: commands that servers have told of;
                                   NULL: none */
    bool commands_told;         /* a server has answered that question */
    uint8_t questions_lost;     /* in a row, with their connections */
    uint64_t commands_next_us;  /* it is not asked again before */
    struct budget budget;
    struct scripts scripts;
    struct function_changes function_changes;
    struct upstream_stats stats;
    struct session *fresh;  /* owned: a client that has said nothing yet */
    uint32_t lanes_private; /* spare ones included */
    uint32_t n_spare;
    struct list_node spare_lanes;  /* the oldest first */
    struct list_node lane_waiters; /* ledgers, in turn; n_lane_waiters */
    uint32_t n_lane_waiters;
    uint32_t held; /* requests waiting for a lane */
    bool reroute;  /* what waits may belong to another endpoint now */
};

/* Returns false when memory is short; cluster_fini() is safe then too. */
bool cluster_init(struct engine *e,
                  struct cluster *c,
                  const struct upstream_config *config);
/* Open what stays open as long as the process. */
void cluster_start(struct engine *e, struct cluster *c);
/* Open p's lane of clients that have said nothing, if there is memory. */
void cluster_open_lane(struct engine *e, struct endpoint *p);
/* Frees every lane. */
void cluster_fini(struct engine *e, struct cluster *c);

/* A new endpoint with that address (copied), or NULL: no memory, or
 * CLUSTER_ENDPOINTS_MAX. */
struct endpoint *cluster_add(struct engine *e,
                             struct cluster *c,
                             const struct address *address);
/* The endpoint with that address, or NULL. */
struct endpoint *cluster_find(const struct cluster *c,
                              const struct address *address);

/* Requests sent and not answered. */
uint32_t cluster_in_flight(const struct cluster *c);

/* What waits for lanes is looked at again before the step ends: it may have to
 * go elsewhere. */
void cluster_reroute_later(struct engine *e, struct cluster *c);
/* Do it, for all clusters. */
void clusters_reroute(struct engine *e);

#endif
