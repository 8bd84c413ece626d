/* Client-side caching (redis.md §2): what a client is told of, and that it has to
 * forget what it has cached when a connection was lost, for it may have missed a
 * change. A cache that is not told of one is wrong for good. */
#ifndef CORE_REDIS_TRACKING_H
#define CORE_REDIS_TRACKING_H

#include <stdbool.h>

struct downstream;
struct engine;
struct ledger_line;
struct request;
struct upstream;

/* CLIENT CACHING, which is about the next command. */
enum caching {
    CACHING_NONE,
    CACHING_YES,
    CACHING_NO,
};

/* r is a CLIENT TRACKING: let REDIRECT say the id that the other client's
 * connection has now. False: r has been answered. */
bool tracking_aim(struct engine *e, struct downstream *d, struct request *r);
/* r, such a command, is about to be sent: if it was lost before, that id may be
 * another one by now. False: r has been answered. */
bool tracking_send(struct engine *e, struct request *r);

/* r, a CLIENT TRACKING of d, was accepted; it is in the ledger. */
void tracking_accepted(struct engine *e,
                       struct downstream *d,
                       const struct request *r);

/* In the handshake of u, its owner's lane: say a CLIENT TRACKING again. False: u
 * is lost. */
bool tracking_establish(struct engine *e,
                        struct upstream *u,
                        const struct ledger_line *line);

/* u, a client's own lane, was lost, or is up again: those who may have missed
 * something are told to forget all. */
void tracking_lost(struct engine *e, struct upstream *u);
void tracking_up(struct engine *e, struct upstream *u);

/* Send r, a CLIENT CACHING, over its client's own lane. */
void tracking_caching(struct engine *e,
                      struct downstream *d,
                      struct request *r);
/* r, such a command or the one it is about, goes over u now: say it again in front
 * of it if that was another connection. False: no memory. */
bool tracking_prepare(struct engine *e, struct upstream *u, struct request *r);

#endif
