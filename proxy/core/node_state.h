/* What a worker knows of the servers of an upstream, copied for others to
 * show. */
#ifndef CORE_NODE_STATE_H
#define CORE_NODE_STATE_H

#include "proxy/core/endpoint.h"
#include "proxy/core/slot_ranges.h"

struct node_state {
    struct address address;
    const char *role; /* static: primary, replica, sentinel or unknown */
    char id[NODE_ID_MAX + 1];
    char zone[NODE_ZONE_MAX + 1];
    char last_error[ENDPOINT_ERROR_MAX];
    uint32_t version; /* 70015 is 7.0.15; 0: not known */
    uint32_t n_slots;
    uint16_t first_range; /* 1 + its place in ranges; 0: none */
    bool configured;
    bool known;  /* part of the topology in force */
    bool online; /* the other nodes think so */
    bool lag_known;
    uint64_t lag_us; /* of a replica */
    uint64_t lanes_up;
    uint64_t lanes_connecting;
    uint64_t lanes_private;
    uint64_t in_flight;
    uint64_t failures_total;
    uint64_t latency_us; /* 0: not measured */
    uint64_t down_us;    /* for how long; 0: it can be reached, as far as is
                            known */
};

struct cluster_state {
    struct node_state *nodes; /* room for nodes_max */
    uint32_t nodes_max, n_nodes;
    struct slot_range *ranges; /* room for ranges_max; their owners mean
                                  nothing here */
    uint32_t ranges_max, n_ranges;
    uint64_t epoch;    /* of the cluster's or the sentinels' configuration */
    uint64_t changes;  /* of the map or the primary, so far */
    uint64_t age_us;   /* of the last answer that made sense */
    bool adopted;      /* there was one */
    uint32_t failures; /* questions without one since then */
    uint32_t slots_unserved;
    char last_error[ENDPOINT_ERROR_MAX];
};

#endif
