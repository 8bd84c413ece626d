/* What of an interrupted pipeline may be replayed (redis.md §4). */
#ifndef CORE_SETTLE_H
#define CORE_SETTLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proxy/core/upstream.h"

enum {
    SETTLE_KEYS_MAX = 8
};

/* One request of a client that was sent and not answered. */
struct settle_item {
    bool permitted; /* class, level and limits allow a second execution */
    bool writes;    /* may write its keys */
    bool constant;  /* its reply is the same whatever ran in between */
    bool any_key;   /* its keys are not known: it meets every other */
    uint8_t n_keys;
    uint64_t keys[SETTLE_KEYS_MAX]; /* hashes */
    const struct gather *gather;    /* a fragment of it: no other fragment has
                                       its keys; or NULL */
    bool replay;                    /* the answer */
};

/* Decide for one client's requests, in their order (rule 3). Pure. */
void settle_decide(struct settle_item *items, size_t n);

/* Whether two requests may touch the same key. */
bool settle_keys_meet(const struct settle_item *a, const struct settle_item *b);

/* A request of the lost lane and what becomes of it. */
struct settle_case {
    struct request *request;
    enum outcome outcome;
    enum verdict verdict;
    enum command_class class;
    bool writes;  /* a replay does */
    bool in_vain; /* it cannot be sent again: it is part of a block that cannot
                     be begun again */
};

/* Fill in everything of an item but permitted and replay. */
void settle_describe(struct engine *e,
                     const struct request *r,
                     struct settle_item *item);

/* later has, or may have, taken effect: what its client has waiting in front
 * of it on the same key must not be retried any more (rule 6). */
void settle_overtake(struct engine *e,
                     struct downstream *d,
                     const struct request *later);

/* A lane was lost after the kernel took `taken` bytes: its requests go back to
 * its waiting list, in front, or are answered with the truth. */
void settle_lane(struct engine *e,
                 struct upstream *u,
                 const struct upstream_loss *loss,
                 uint64_t taken);

/* The level that a class needs to run twice; more than REPLAY_ALL: never. */
unsigned replay_level_needed(enum command_class class);

/* Whether a request of that class may run twice at this level, overrides
 * included (redis.md §3). */
bool replay_permitted(struct engine *e,
                      const struct upstream_config *config,
                      const struct request *r,
                      enum command_class class);

/* ---- settle_block.c: transactions (redis.md §6) ---- */

/* What of d's lost requests cannot have run whether they were sent or not:
 * NOT_SENT. That is all of a block but its EXEC; and the EXEC, too, if the
 * server has refused the block (loss->refused). */
void settle_block_outcomes(struct downstream *d,
                           const struct upstream_loss *loss,
                           struct settle_case *cases,
                           size_t n);

/* cases[exec] is an EXEC that may have run: judge the whole block by it. Fills
 * in the item but for permitted and replay, the case's class and writes.
 * Returns whether every command of the block may run again, and would answer
 * the same. */
bool settle_block_describe(struct engine *e,
                           struct downstream *d,
                           struct settle_case *cases,
                           size_t exec,
                           struct settle_item *item);

/* The rest of a block goes as its EXEC goes. */
void settle_block_follow(struct settle_case *cases, size_t n);

/* What is watched and queued at the server is gone with d's lane, also when
 * nothing was in flight. */
void settle_block_state(struct engine *e, struct downstream *d);

/* When all lost requests are settled: a block that cannot be begun again is
 * broken. */
void settle_block_end(struct engine *e,
                      struct downstream *d,
                      const struct upstream_loss *loss);

#endif
