#include "proxy/core/budget.h"

#include <assert.h>

enum {
    RETRY_TOKENS = 1000,
    MS_US = 1000,
    S_MS = 1000
};

void budget_init(struct budget *b,
                 uint32_t ratio_permille,
                 uint32_t min_per_s,
                 uint32_t burst,
                 uint64_t now_us)
{
    uint64_t tokens_max = (uint64_t)burst * RETRY_TOKENS;

    *b = (struct budget){
        .tokens = tokens_max,
        .tokens_max = tokens_max,
        .deposit = ratio_permille,
        .per_s = (uint64_t)min_per_s * RETRY_TOKENS,
        .filled_us = now_us,
    };
}

/* Add the share of the time that has passed. Only whole milliseconds count, for
 * which the share is a whole number; the rest of the time waits for the next
 * call, so nothing is lost however often this is called. */
static void budget_fill(struct budget *b, uint64_t now_us)
{
    assert(now_us >= b->filled_us);
    uint64_t ms = (now_us - b->filled_us) / MS_US;
    uint64_t per_ms = b->per_s / S_MS;
    uint64_t room = b->tokens_max - b->tokens;

    b->filled_us += ms * MS_US;
    if (per_ms == 0) {
        return;
    }
    b->tokens += ms > room / per_ms ? room : ms * per_ms;
}

bool budget_withdraw(struct budget *b, uint64_t now_us)
{
    if (!budget_left(b, now_us)) {
        return false;
    }
    b->tokens -= RETRY_TOKENS;
    return true;
}

bool budget_left(struct budget *b, uint64_t now_us)
{
    budget_fill(b, now_us);
    return b->tokens >= RETRY_TOKENS;
}
