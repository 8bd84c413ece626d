/* The slot map of a cluster as ranges. */
#ifndef CORE_SLOT_RANGES_H
#define CORE_SLOT_RANGES_H

#include <stdint.h>

struct cluster;

struct slot_range {
    uint16_t first, last;
    uint16_t owner; /* index of its endpoint */
    uint16_t next;  /* 1 + place of the owner's next range; 0: none */
};

/* How many there are. c has slots. */
uint32_t slot_ranges_count(const struct cluster *c);

/* Write the last max of them, in order of the slots, and into heads
 * (c->n_endpoints entries) 1 + the place of each endpoint's first range, or 0.
 * Returns how many were written. */
uint32_t slot_ranges_list(const struct cluster *c,
                          struct slot_range *ranges,
                          uint32_t max,
                          uint16_t *heads);

#endif
