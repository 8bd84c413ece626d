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

/* Whether a request of that class may run twice at this level, overrides
 * included (redis.md §3). */
bool replay_permitted(struct engine *e,
                      const struct upstream_config *config,
                      const struct request *r,
                      enum command_class class);

#endif
