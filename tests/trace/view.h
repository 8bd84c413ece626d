/* What a scripted server says of its cluster: a line of a trace becomes the
 * replies to CLUSTER SHARDS, SLOTS and INFO, or to SENTINEL and ROLE
 * (README.md). */
#ifndef TRACE_VIEW_H
#define TRACE_VIEW_H

#include "config/config.h"
#include "tests/sim/bytes.h"

enum {
    SHARDS_MAX = 16,
    RANGES_MAX = 8,   /* of one shard */
    REPLICAS_MAX = 4, /* of one shard */
    NODE_NAMES = 26,  /* 'A' to 'Z' */
};

/* Where the servers are, by their letters; port 0: there is none. */
struct node_map {
    struct address of[NODE_NAMES];
};

struct view_shard {
    char primary;
    bool failed; /* its health is "fail" */
    struct {
        unsigned first, last;
    } ranges[RANGES_MAX];
    size_t n_ranges;
    char replicas[REPLICAS_MAX];
    bool replica_failed[REPLICAS_MAX];
    size_t n_replicas;
};

struct node_view {
    unsigned epoch;    /* cluster_current_epoch */
    unsigned my_epoch; /* cluster_my_epoch */
    bool fail;         /* cluster_state:fail */
    unsigned crowd;    /* so many more nodes without slots */
    struct view_shard shards[SHARDS_MAX];
    size_t n_shards;
};

/* "epoch 7 my 3 fail crowd 9 A 0-100 200 +B -C ..."; false when it cannot be
 * read. */
bool view_read_text(const char *text, struct node_view *v);

/* The id of a node: its letter in lower case, 40 times. */
void view_id_add(struct bytes *out, char node);
void view_shards_add(struct bytes *out,
                     const struct node_view *v,
                     const struct node_map *map,
                     int resp);
void view_slots_add(struct bytes *out,
                    const struct node_view *v,
                    const struct node_map *map);
void view_info_add(struct bytes *out, const struct node_view *v);

/* For servers that sentinels watch the first shard is all there is. What
 * sentinels say of it, whose group is "mymaster": */
void view_master_add(struct bytes *out,
                     const struct node_view *v,
                     const struct node_map *map,
                     int resp);
void view_master_address_add(struct bytes *out,
                             const struct node_view *v,
                             const struct node_map *map,
                             int resp);
void view_replicas_add(struct bytes *out,
                       const struct node_view *v,
                       const struct node_map *map,
                       int resp);
/* One of the list of SENTINEL SENTINELS. */
void view_sentinel_add(struct bytes *out, const struct address *at, int resp);
/* What a node says of itself: ROLE, INFO replication. */
void view_role_add(struct bytes *out,
                   const struct node_view *v,
                   const struct node_map *map,
                   char node);
void view_replication_add(struct bytes *out,
                          const struct node_view *v,
                          char node);

#endif
