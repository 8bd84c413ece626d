/* Subscriptions of a client: what it is subscribed to, and messages between
 * replies (redis.md §7). */
#ifndef CORE_REDIS_PUBSUB_H
#define CORE_REDIS_PUBSUB_H

#include "proxy/core/ledger.h"
#include "proxy/core/message.h"

struct upstream_loss;

/* Free what l keeps of subscriptions; there may be nothing. */
void subscriber_free(struct engine *e, struct ledger *l);

/* Subscribed to anything, or watching by MONITOR. */
bool subscriber_is_active(const struct ledger *l);
/* Subscribed to that channel, by its name. */
bool subscriber_hears(const struct ledger *l, struct span channel);
/* The same, on its client's own lane. */
bool subscriber_holds_lane(const struct ledger *l);

/* r, SUBSCRIBE, UNSUBSCRIBE, their relatives or MONITOR: send it over its
 * client's own lane. False: not yet. */
bool redis_subscribe(struct engine *e, struct downstream *d, struct request *r);

/* r, such a command, has been put on the wire of u. */
void subscriber_sent(struct engine *e,
                     struct upstream *u,
                     const struct request *r);
/* It was answered by a reply instead of confirmations. */
void subscriber_answered(struct engine *e,
                         struct upstream *u,
                         const struct request *r,
                         bool success);
/* PING of a RESP2 subscriber in front of a cluster, answered by a node that has
 * none of its subscriptions at the moment: answer as one that has. False: there is
 * nothing to do. */
bool subscriber_pong(struct engine *e,
                     struct upstream *u,
                     struct request *r,
                     const struct message *m);
/* The RESP version of d, or what it is subscribed to, has changed. */
void subscriber_mind(struct engine *e, struct downstream *d);

/* u, a client's own lane, was lost. True: its client must be closed, for its
 * subscriptions cannot be had again, or it wishes to know (on_pubsub_gap). */
bool subscriber_lost(struct engine *e,
                     struct upstream *u,
                     const struct upstream_loss *loss);
/* In the handshake of u, its owner's lane: subscribe again. False: u is lost. */
bool subscriber_establish(struct engine *e, struct upstream *u);
/* A reply came where confirmations were expected. */
void subscriber_reply(struct engine *e, struct upstream *u, struct span reply);
/* A cluster: u, which subscribes and is not up, may belong elsewhere. */
void subscriber_rehome(struct engine *e, struct upstream *u);
/* d has been answered, or its time has come: its subscriptions are put where
 * they belong now, and lanes they need no more are left. */
void subscriber_work(struct engine *e, struct downstream *d);
/* When that must be called again; UINT64_MAX: not by the clock. */
uint64_t subscriber_retry_at(struct engine *e, struct downstream *d);
/* The lanes of d that carry subscriptions alone: by next_listener. */
struct upstream *subscriber_lanes(const struct downstream *d);
/* The one for r, which is by_subscriber; NULL: no memory. */
struct upstream *subscriber_lane(struct engine *e,
                                 struct downstream *d,
                                 struct request *r);
/* u is up again. */
void subscriber_up(struct engine *e, struct upstream *u);

/* A push, or on a lane that listens any message: true if it was one for a
 * subscriber, and is dealt with. */
bool pubsub_message(struct engine *e,
                    struct upstream *u,
                    const struct message *m);

#endif
