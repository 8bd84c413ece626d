/* The commands of an open transaction, so that it can be begun again on another
 * connection (redis.md §6). */
#ifndef CORE_REDIS_BLOCK_H
#define CORE_REDIS_BLOCK_H

#include "proxy/core/ledger.h"

/* Free what l keeps of a block; there may be nothing. */
void block_log_free(struct engine *e, struct ledger *l);

/* In the handshake of u, its owner's lane, when all else is established: begin
 * the open block again, if it has one that can be. Replies come to
 * block_log_reply(). False: u is lost. */
bool block_log_establish(struct engine *e, struct upstream *u);
void block_log_reply(struct engine *e, struct upstream *u, struct span reply);

#endif
