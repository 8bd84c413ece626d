/* The primary of a group that sentinels watch (redis.md §10): when they are
 * asked, and what they push. What is made of it is in sentinel_adopt.c. */
#ifndef CORE_SENTINEL_H
#define CORE_SENTINEL_H

#include "proxy/core/topology.h"

struct lane_set;

enum {
    SENTINELS_MAX = 64 /* of one group */
};

/* One sentinel, and what it has said. */
struct watcher {
    struct endpoint *endpoint; /* borrowed */
    struct address primary;    /* port 0: none that may be used */
    uint64_t epoch;            /* of its configuration; 0: not told */
    uint64_t asked_us;
    uint64_t listed_us; /* when another one last called it alive */
    uint8_t open;       /* its answers that are still to come */
    bool said;          /* it has answered this time */
    bool refused;       /* what it names is not permitted */
    bool pushes;        /* it tells of switches by itself */
};

struct sentinel {
    struct lane_set *lanes; /* to the sentinels; the cluster's */
    struct watcher watchers[SENTINELS_MAX];
    uint32_t n_watchers;
    uint64_t epoch;      /* of the primary in force, at least */
    uint64_t adopted_us; /* when it came into force */
    bool confirmed;      /* it was, by the end of a failover or by answers */
    uint64_t lists_us;   /* replicas and other sentinels are asked for then */
};

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

/* ---- between sentinel.c and sentinel_adopt.c ---- */

/* The lane to a sentinel if it is up, or NULL. */
struct upstream *sentinel_lane(const struct sentinel *s,
                               const struct watcher *w);
/* One more sentinel to ask; false: no room, or no memory. */
bool sentinel_add(struct engine *e, struct topology *t, struct endpoint *p);

/* The primary's address as a sentinel tells it. False, with a line in the log:
 * it may not be used. */
bool sentinel_address(struct engine *e,
                      struct topology *t,
                      const struct view_node *node,
                      struct address *address);

/* Let the answers count, if enough of them agree; with final all there will be.
 * Returns NULL, or why there is no primary in them (static words). */
const char *sentinel_judge(struct engine *e, struct topology *t, bool final);

/* A sentinel tells that the primary has changed, or is about to. */
enum turn {
    TURN_BEGINS, /* to is told to be the primary */
    TURN_IS_DONE
};
void sentinel_turned(struct engine *e,
                     struct topology *t,
                     enum turn turn,
                     const struct view_node *from,
                     const struct view_node *to);
/* A lane to the primary is up: it has said that it is the primary. */
void sentinel_primary_up(struct engine *e, struct cluster *c);

/* Answers to SENTINEL SENTINELS and SENTINEL REPLICAS. */
void sentinel_take_sentinels(struct engine *e,
                             struct topology *t,
                             struct span reply);
void sentinel_take_replicas(struct engine *e,
                            struct topology *t,
                            const struct watcher *from,
                            struct span reply);
/* Sentinels that nobody has called alive for long, and those known twice, are
 * forgotten. */
void sentinel_forget(struct engine *e, struct topology *t);

#endif
