#include "proxy/core/timers.h"

#include <assert.h>
#include <stddef.h>
#include <string.h>

enum {
    TIMERS_CAP_FIRST = 16,
    TIMERS_MAX = 1 << 24, /* more than there can be connections */
};

void timers_init(struct timers *t, struct memory *m)
{
    *t = (struct timers){ .memory = m };
}

void timers_fini(struct timers *t)
{
    memory_give(t->memory, t->heap);
    *t = (struct timers){ 0 };
}

bool timers_reserve(struct timers *t, uint32_t n)
{
    if (n <= t->cap) {
        return true;
    }
    if (n > TIMERS_MAX) {
        return false;
    }
    uint32_t cap = t->cap < TIMERS_CAP_FIRST ? TIMERS_CAP_FIRST : t->cap;
    while (cap < n) {
        cap *= 2;
    }

    struct timer **heap = memory_take(t->memory, cap * sizeof *heap);
    if (heap == NULL) {
        return false;
    }
    if (t->n > 0) {
        memcpy(heap, t->heap, t->n * sizeof *heap);
    }
    memory_give(t->memory, t->heap);
    t->heap = heap;
    t->cap = cap;
    return true;
}

static void put(struct timers *t, uint32_t i, struct timer *timer)
{
    t->heap[i] = timer;
    timer->place = i + 1;
}

/* Put timer where it belongs on the way from the hole at i to the root. Equal
 * times stay as they are: the order is decided by the calls alone, so that a
 * run can be repeated. */
static void sift_up(struct timers *t, uint32_t i, struct timer *timer)
{
    while (i > 0) {
        uint32_t parent = (i - 1) / 2;
        if (t->heap[parent]->at_us <= timer->at_us) {
            break;
        }
        put(t, i, t->heap[parent]);
        i = parent;
    }
    put(t, i, timer);
}

/* The same from the hole at i towards the leaves. */
static void sift_down(struct timers *t, uint32_t i, struct timer *timer)
{
    while (i < t->n / 2) {
        uint32_t child = 2 * i + 1;
        if (child + 1 < t->n &&
            t->heap[child + 1]->at_us < t->heap[child]->at_us) {
            child++;
        }
        if (timer->at_us <= t->heap[child]->at_us) {
            break;
        }
        put(t, i, t->heap[child]);
        i = child;
    }
    put(t, i, timer);
}

/* Fill the hole at i with timer. */
static void settle(struct timers *t, uint32_t i, struct timer *timer)
{
    if (i > 0 && timer->at_us < t->heap[(i - 1) / 2]->at_us) {
        sift_up(t, i, timer);
    } else {
        sift_down(t, i, timer);
    }
}

static bool is_ours(const struct timers *t, const struct timer *timer)
{
    return timer->place <= t->n && t->heap[timer->place - 1] == timer;
}

void timer_set(struct timers *t, struct timer *timer, uint64_t at_us)
{
    timer->at_us = at_us;
    if (timer->place == TIMER_OFF) {
        assert(t->n < t->cap);
        t->n++;
        sift_up(t, t->n - 1, timer);
    } else {
        assert(is_ours(t, timer));
        settle(t, timer->place - 1, timer);
    }
}

void timer_clear(struct timers *t, struct timer *timer)
{
    if (timer->place == TIMER_OFF) {
        return;
    }
    assert(is_ours(t, timer));
    uint32_t hole = timer->place - 1;
    struct timer *last = t->heap[--t->n];
    timer->place = TIMER_OFF;
    if (last != timer) {
        settle(t, hole, last);
    }
}

uint64_t timers_next_us(const struct timers *t)
{
    return t->n == 0 ? UINT64_MAX : t->heap[0]->at_us;
}

struct timer *timers_pop(struct timers *t, uint64_t now_us)
{
    if (t->n == 0 || t->heap[0]->at_us > now_us) {
        return NULL;
    }
    struct timer *due = t->heap[0];
    timer_clear(t, due);
    return due;
}
