/* Connections that belong to one client at a time (DESIGN.md §5): a few are kept
 * for the next one that needs some, and who comes when there are
 * private_lanes_max waits for its turn. */
#ifndef CORE_LANE_POOL_H
#define CORE_LANE_POOL_H

#include <stdbool.h>
#include <stdint.h>

struct cluster;
struct downstream;
struct endpoint;
struct engine;
struct upstream;

/* A lane to p for d, with d's session: a spare one, or a new one. NULL: there are
 * private_lanes_max (unless d must have one), or no memory: *full tells. */
struct upstream *lane_pool_take(struct engine *e,
                                struct downstream *d,
                                struct endpoint *p,
                                bool must,
                                bool *full);

/* Its client needs u no more, and nothing of any client is waiting or in flight
 * there. u may be gone afterwards. */
void lane_pool_give(struct engine *e, struct upstream *u);

/* u, spare, ends. */
void lane_pool_forget(struct upstream *u);

/* d waits until it can be given a lane, in turn; false without memory. It is
 * dispatched again then. */
bool lane_pool_wait(struct engine *e, struct downstream *d, uint64_t until_us);
/* d waits no more. */
void lane_pool_leave(struct engine *e, struct downstream *d);

/* d, which has a ledger, has had its turn: if it needed none, or needs to wait no
 * more, it is the next one's. */
void lane_pool_pass_on(struct engine *e, struct downstream *d);

/* A private lane has ended or become spare: the next one who waits can go on. */
void lane_pool_wake(struct engine *e, struct cluster *c);

/* Whether d could have a lane now. */
bool lane_pool_has_room(const struct cluster *c);

#endif
