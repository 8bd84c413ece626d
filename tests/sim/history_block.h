/* Transactions: what became of each as a whole. */
#ifndef SIM_HISTORY_BLOCK_H
#define SIM_HISTORY_BLOCK_H

#include "tests/sim/server.h"

enum {
    WATCHES_MAX = 4 /* WATCH commands before a transaction */
};

/* One transaction of a client. */
struct block {
    uint64_t client;
    uint32_t begin; /* its MULTI */
    uint32_t end;   /* EXEC, DISCARD or RESET; NO_REQUEST: not sent yet */
    uint32_t watch[WATCHES_MAX]; /* what was watched when it began */
    unsigned n_watches;
    bool may_watch; /* something older may still be watched */
    uint32_t runs;
    uint64_t hashes[HASHES_KEPT]; /* of the replies of EXEC */
};

/* Begin one; returns its number, which is not 0. */
uint32_t block_new(struct world *w, uint64_t client);
struct block *block_at(struct world *w, uint32_t block);

/* A server has executed those commands in one go, and so was EXEC answered. */
void block_ran(struct world *w,
               const uint32_t *request,
               unsigned n,
               const struct watched *watched,
               unsigned n_watched,
               struct span reply);
/* The request that ends a block was answered: what that says about all of
 * it. */
void block_answered(struct world *w, uint32_t request, struct span reply);

#endif
