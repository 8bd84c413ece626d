/* Subscriptions of a client: what it is subscribed to, and messages between
 * replies (redis.md §7). */
#ifndef CORE_REDIS_PUBSUB_H
#define CORE_REDIS_PUBSUB_H

#include "proxy/core/ledger.h"

/* Free what l keeps of subscriptions; there may be nothing. */
void subscriber_free(struct engine *e, struct ledger *l);

/* Subscribed to anything, or about to be. */
bool subscriber_is_active(const struct ledger *l);

/* In the handshake of u, its owner's lane: subscribe again. Replies come to
 * subscriber_reply(), one for each channel. False: u is lost. */
bool subscriber_establish(struct engine *e, struct upstream *u);
void subscriber_reply(struct engine *e, struct upstream *u, struct span reply);

#endif
