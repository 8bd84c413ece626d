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
/* The RESP version of d's own lane has changed. */
void subscriber_mind(struct downstream *d);

/* u, a client's own lane, was lost. True: its client must be closed, for its
 * subscriptions cannot be had again, or it wishes to know (on_pubsub_gap). */
bool subscriber_lost(struct engine *e,
                     struct upstream *u,
                     const struct upstream_loss *loss);
/* In the handshake of u, its owner's lane: subscribe again. False: u is lost. */
bool subscriber_establish(struct engine *e, struct upstream *u);
/* A reply came where confirmations were expected. */
void subscriber_reply(struct engine *e, struct upstream *u, struct span reply);
/* The node that has d's shard channels; NULL: d has none, or any will do. */
struct endpoint *subscriber_endpoint(const struct downstream *d);
/* u is up again. */
void subscriber_up(struct engine *e, struct upstream *u);

/* A push, or on a lane that listens any message: true if it was one for a
 * subscriber, and is dealt with. */
bool pubsub_message(struct engine *e,
                    struct upstream *u,
                    const struct message *m);

#endif
