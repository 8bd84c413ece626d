/* Points in time that connections wait for: a binary heap of nodes that live
 * inside their owners. Nothing on the hot path touches it. */
#ifndef CORE_TIMERS_H
#define CORE_TIMERS_H

#include <stdbool.h>
#include <stdint.h>

#include "proxy/core/memory.h"

enum {
    TIMER_OFF = 0
};

struct timer {
    uint64_t at_us;
    uint32_t place; /* 1 + index in the heap; TIMER_OFF when not set */
    uint32_t kind;  /* what the owner is; the owner's own numbering */
};

struct timers {
    struct timer **heap; /* owned array of borrowed nodes */
    uint32_t n, cap;
    struct memory *memory;
};

void timers_init(struct timers *t, struct memory *m);
void timers_fini(struct timers *t);

/* Make room so that n timers can be set without failing. Call when an owner is
 * created. Returns false when memory is short. */
bool timers_reserve(struct timers *t, uint32_t n);

/* Set or move a timer. Never fails: room was reserved. */
void timer_set(struct timers *t, struct timer *timer, uint64_t at_us);
void timer_clear(struct timers *t, struct timer *timer);

/* The earliest time, or UINT64_MAX. */
uint64_t timers_next_us(const struct timers *t);

/* Take a timer whose time has come, or NULL. It is off afterwards. */
struct timer *timers_pop(struct timers *t, uint64_t now_us);

#endif
