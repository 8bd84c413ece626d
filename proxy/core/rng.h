/* Random numbers from a seed. */
#ifndef CORE_RNG_H
#define CORE_RNG_H

#include <stdint.h>

struct rng {
    uint64_t state[2];
};

void rng_init(struct rng *r, uint64_t seed);
uint64_t rng_next(struct rng *r);
/* Uniform in [0, bound]; 0 for bound 0. Never biased. */
uint64_t rng_upto(struct rng *r, uint64_t bound);

#endif
