#include "proxy/core/retry.h"

#include <assert.h>
#include <stddef.h>

/* Without computing now + delay, which may overflow. */
static bool is_too_late(uint64_t now_us,
                        uint64_t delay_us,
                        uint64_t deadline_us)
{
    return now_us >= deadline_us || delay_us >= deadline_us - now_us;
}

/* What only a second execution must be asked: may it be, and has this request,
 * or all of them together, had enough? GIVE_UP_..., or RETRY_NOW. */
static enum verdict replay_decide(const struct retry_input *in)
{
    if (!in->replay_allowed) {
        return GIVE_UP_UNSAFE; /* the client hears of it, and decides */
    }
    if (in->replays_max >= 0 && in->replays >= in->replays_max) {
        return GIVE_UP_ATTEMPTS;
    }
    if (!in->budget_left) {
        return GIVE_UP_BUDGET;
    }
    return RETRY_NOW;
}

enum verdict retry_decide(const struct retry_input *in)
{
    assert(in->outcome < OUTCOME_COUNT);
    assert(in->replays_max >= -1);

    if (!in->retry_enabled) {
        return GIVE_UP_POLICY; /* a plain proxy */
    }
    if (in->outcome != OUTCOME_NOT_SENT && !in->listed) {
        return GIVE_UP_POLICY;
    }
    if (in->outcome == OUTCOME_AMBIGUOUS) {
        enum verdict verdict = replay_decide(in);
        if (!verdict_is_retry(verdict)) {
            return verdict;
        }
    }
    if (is_too_late(in->now_us, in->backoff_us, in->deadline_us)) {
        return GIVE_UP_DEADLINE;
    }
    return in->backoff_us == 0 ? RETRY_NOW : RETRY_LATER;
}

bool verdict_is_retry(enum verdict v)
{
    return v == RETRY_NOW || v == RETRY_LATER;
}

const char *outcome_name(enum outcome o)
{
    switch (o) {
    case OUTCOME_NOT_SENT: return "not_sent";
    case OUTCOME_NOT_APPLIED: return "not_applied";
    case OUTCOME_AMBIGUOUS: return "ambiguous";
    case OUTCOME_COUNT: break;
    }
    assert(0 && "not an outcome");
    return NULL;
}

const char *verdict_name(enum verdict v)
{
    switch (v) {
    case RETRY_NOW: return "retry_now";
    case RETRY_LATER: return "retry_later";
    case GIVE_UP_UNSAFE: return "give_up_unsafe";
    case GIVE_UP_ATTEMPTS: return "give_up_attempts";
    case GIVE_UP_BUDGET: return "give_up_budget";
    case GIVE_UP_DEADLINE: return "give_up_deadline";
    case GIVE_UP_POLICY: return "give_up_policy";
    case VERDICT_COUNT: break;
    }
    assert(0 && "not a verdict");
    return NULL;
}
