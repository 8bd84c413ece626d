/* A retry budget: a token bucket that limits how much extra load retries may
 * add (redis.md §5). One token is a thousandth of a retry, so that a ratio of
 * 0.2 stays exact. */
#ifndef CORE_BUDGET_H
#define CORE_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

struct budget {
    uint64_t tokens;     /* available now, in thousandths */
    uint64_t tokens_max; /* burst */
    uint64_t deposit;    /* added by each request: 200 means 20 % */
    uint64_t per_s;      /* added each second, in thousandths */
    uint64_t filled_us;  /* up to when the time's share was added */
};

/* Start full. */
void budget_init(struct budget *b,
                 uint32_t ratio_permille,
                 uint32_t min_per_s,
                 uint32_t burst,
                 uint64_t now_us);

/* A request was sent for the first time. */
static inline void budget_deposit(struct budget *b)
{
    b->tokens += b->deposit;
    if (b->tokens > b->tokens_max) {
        b->tokens = b->tokens_max;
    }
}

/* Pay for one retry. Return false, and take nothing, when the budget is too
 * low; the caller then gives up with GIVE_UP_BUDGET. */
bool budget_withdraw(struct budget *b, uint64_t now_us);

/* Whether budget_withdraw() would succeed. */
bool budget_left(struct budget *b, uint64_t now_us);

#endif
