/* What is known of a client's subscriptions, for redis_pubsub.c and
 * redis_pubsub_lanes.c (redis.md §7). */
#ifndef CORE_SUBSCRIBER_H
#define CORE_SUBSCRIBER_H

#include "parser/pubsub.h"
#include "proxy/core/subscriptions.h"

struct downstream;
struct engine;
struct request;
struct upstream;

struct subscriber {
    struct subscriptions names[SUBSCRIPTION_KINDS];
    uint32_t n[SUBSCRIPTION_KINDS]; /* at the servers, kept or not */
    bool monitors;                  /* MONITOR */
    bool too_many; /* more than is kept: they could not be had again */
    /* Its command in flight, one at a time. */
    uint8_t type;  /* of its confirmations: enum pubsub_type; OTHER: MONITOR */
    uint8_t kind;  /* enum subscription_kind */
    uint64_t due;  /* confirmations; 0: until nothing is left to leave */
    uint64_t seen; /* of this attempt */
    uint64_t passed;  /* to the client, of all attempts */
    uint64_t lost_us; /* when its connection was lost; 0: it has one */
    /* In front of a cluster, where its own lane goes elsewhere. */
    struct upstream *lanes; /* for subscriptions alone; by next_listener */
    struct upstream *plain; /* of these, that for all but shard channels */
    uint32_t n_adrift;      /* shard channels without a lane */
    uint32_t hops;          /* MOVED in a row */
    uint64_t retry_us;      /* they are placed then; 0: now */
};

/* redis_pubsub.c */
struct subscriber *subscriber_of(const struct downstream *d);

/* ---- redis_pubsub_lanes.c ---- */

/* Shard channel name is on u (NULL: adrift). It is in the set. */
void subscriber_put(struct subscriber *s,
                    struct subscription *name,
                    struct upstream *u);

/* The lane for r, TASK_SUBSCRIBE or PING of a subscriber, if there is one; p is
 * where it would have to lead. */
struct upstream *subscriber_find_lane(struct engine *e,
                                      struct downstream *d,
                                      struct request *r,
                                      struct endpoint **p);
/* u, just taken, is for subscriptions of its owner, or for r. */
void subscriber_add_lane(struct upstream *u, const struct request *r);

/* SUNSUBSCRIBE of everything, on several nodes: answered here. */
bool subscriber_leave_shards(struct engine *e,
                             struct downstream *d,
                             struct request *r);

/* Which names are said on a lane. */
enum say_mode {
    SAY_PLAIN,      /* all there are */
    SAY_SHARDS,     /* the shard channels that are there */
    SAY_UNCONFIRMED /* of these, those that are not confirmed */
};

/* Say the shard channels of u. False: u is lost. */
bool subscriber_say_shards(struct engine *e,
                           struct upstream *u,
                           enum say_mode mode);

/* The server has taken a shard channel away, as its slot has moved. */
void subscriber_follow(struct engine *e,
                       struct upstream *u,
                       struct subscription *name);
/* It refused redial's own SSUBSCRIBE. False: for good. */
bool subscriber_refused(struct engine *e,
                        struct upstream *u,
                        struct span reply);

/* Give all lanes back. */
void subscriber_leave_lanes(struct engine *e, struct subscriber *s);

/* redis_pubsub.c: say one command for names from *at on. False: u is lost. */
bool subscriber_say_batch(struct engine *e,
                          struct upstream *u,
                          const struct subscriptions *names,
                          struct span word,
                          struct list_node **at,
                          enum say_mode mode);

#endif
