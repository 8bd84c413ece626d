/* What servers say of who serves what: CLUSTER SHARDS, SLOTS and INFO, ROLE,
 * INFO replication, and the answers of sentinels (redis.md §9, §10). Control
 * plane only: results come from the heap. Nothing here is believed yet: whether
 * an address may be used is decided by the core. */
#ifndef PARSER_TOPOLOGY_H
#define PARSER_TOPOLOGY_H

#include <stdbool.h>

#include "parser/span.h"

enum {
    NODE_ID_MAX = 40,
    NODE_HOST_MAX = 255,
    NODE_ZONE_MAX = 63,
    VIEW_NODES_MAX = 2000,   /* more is an error, with words */
    VIEW_RANGES_MAX = 16384, /* of slots */
};

enum node_role {
    NODE_UNKNOWN,
    NODE_PRIMARY,
    NODE_REPLICA
};

struct view_node {
    char id[NODE_ID_MAX + 1];     /* empty: not told (SLOTS of old servers) */
    char host[NODE_HOST_MAX + 1]; /* preferred name or IP, no brackets; empty:
                                     nil or "", or "?" without an IP: the host
                                     that was asked */
    char zone[NODE_ZONE_MAX + 1]; /* availability-zone; empty: not told */
    uint16_t port;                /* 1 to 65535 */
    uint16_t tls_port;            /* 0: none told */
    enum node_role role;
    bool online;    /* SHARDS: health "online", or no health told; SLOTS:
                       always */
    uint32_t shard; /* nodes of one shard have the same number */
    int64_t offset; /* replication offset; 0: not told */
};

struct view_range {
    uint16_t first, last; /* slots, both included; first <= last < 16384 */
    uint32_t node;        /* index of the primary */
};

/* One node's answer. A node whose port is out of range, or whose host is longer
 * than NODE_HOST_MAX or has bytes that no host name has, is left out together
 * with its ranges, and counted, each time it is named. A node that is named
 * again (by its id, or without ids by host and port) is the same node. */
struct view {
    struct view_node *nodes; /* owned, n_nodes */
    uint32_t n_nodes;
    struct view_range *ranges; /* owned, n_ranges; sorted, not overlapping: of
                                  two that overlap the later one loses */
    uint32_t n_ranges;
    uint32_t n_left_out; /* times such a node was named */
};

/* Read the reply to CLUSTER SHARDS or CLUSTER SLOTS, RESP2 or RESP3. Unknown
 * fields and extra elements are skipped. With SHARDS the primary of a shard is
 * the node with role "master" that is online, else the one with that role;
 * a shard without one owns nothing. tls: take tls-port for port where there is
 * one. Returns NULL with *error (static words) when it is malformed (also in
 * one range of slots that cannot be), an error reply, too large, or memory is
 * short. */
struct view *view_from_shards(struct span reply, bool tls, const char **error);
struct view *view_from_slots(struct span reply, const char **error);
void view_free(struct view *v);

struct cluster_info {
    bool ok; /* cluster_state:ok */
    uint64_t current_epoch;
    uint64_t my_epoch;
    uint32_t slots_assigned;
    uint32_t known_nodes;
    uint32_t size;
};

/* Read the reply to CLUSTER INFO. False: not one. */
bool cluster_info_parse(struct span reply, struct cluster_info *info);

/* The reply to ROLE: NODE_PRIMARY, NODE_REPLICA, or NODE_UNKNOWN (sentinel,
 * error). *connected: of a replica, whether its link to the primary is up. */
enum node_role role_parse(struct span reply, bool *connected);

struct replication_info {
    enum node_role role;
    bool link_up;      /* replica: master_link_status:up */
    int64_t last_io_s; /* replica: master_last_io_seconds_ago; -1: none */
    int64_t offset;    /* slave_repl_offset or master_repl_offset */
    char zone[NODE_ZONE_MAX + 1]; /* availability_zone of INFO server, if the
                                     reply has it; empty: not told */
};

/* Read the reply to INFO replication (or plain INFO). False: not one. */
bool replication_info_parse(struct span reply, struct replication_info *info);

/* SENTINEL GET-MASTER-ADDR-BY-NAME: fills host and port. False: unknown name
 * (nil), an error reply or malformed. */
bool sentinel_master_parse(struct span reply, struct view_node *node);

/* SENTINEL REPLICAS name, SENTINEL SENTINELS name: the nodes, with role REPLICA
 * or UNKNOWN. online: none of the flags s_down, o_down, disconnected, and for
 * replicas master-link-status ok. Takes SENTINEL MASTERS as well: role
 * PRIMARY. A server without an address is left out. */
struct view *sentinel_list_parse(struct span reply, const char **error);

/* A push or message of a sentinel: "+switch-master" with payload "name old-ip
 * old-port new-ip new-port". False: something else. Fills name (borrowed from
 * payload), from and to. */
bool sentinel_switch_parse(struct span payload,
                           struct span *name,
                           struct view_node *from,
                           struct view_node *to);

#endif
