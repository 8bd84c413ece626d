#include "proxy/core/rng.h"

/* The generator is xoroshiro128** and the seeding splitmix64, both published
 * by D. Blackman and S. Vigna. */

static uint64_t rotate_left(uint64_t x, unsigned bits)
{
    return (x << bits) | (x >> (64 - bits));
}

static uint64_t splitmix(uint64_t *state)
{
    *state += UINT64_C(0x9e3779b97f4a7c15);
    uint64_t z = *state;
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

void rng_init(struct rng *r, uint64_t seed)
{
    /* Never both 0, which would be a fixed point: splitmix gives each value
     * once in its period. */
    r->state[0] = splitmix(&seed);
    r->state[1] = splitmix(&seed);
}

uint64_t rng_next(struct rng *r)
{
    uint64_t a = r->state[0];
    uint64_t b = r->state[1] ^ a;
    uint64_t result = rotate_left(a * 5, 7) * 9;

    r->state[0] = rotate_left(a, 24) ^ b ^ (b << 16);
    r->state[1] = rotate_left(b, 37);
    return result;
}

uint64_t rng_upto(struct rng *r, uint64_t bound)
{
    /* All ones, as many as bound has bits. Numbers beyond bound are thrown
     * away: less than half of them are, and what is left has no bias. */
    uint64_t mask = bound;
    for (unsigned shift = 1; shift < 64; shift *= 2) {
        mask |= mask >> shift;
    }

    uint64_t x = rng_next(r) & mask;
    while (x > bound) {
        x = rng_next(r) & mask;
    }
    return x;
}
