/* Whether, and when, to try again (DESIGN.md §4). Pure: no state, no clock, no
 * allocation. */
#ifndef CORE_RETRY_H
#define CORE_RETRY_H

#include <stdbool.h>
#include <stdint.h>

/* What is known about an attempt that has ended without an answer. */
enum outcome {
    OUTCOME_NOT_SENT,    /* never left, or not completely: not executed */
    OUTCOME_NOT_APPLIED, /* the server says it did not execute it */
    OUTCOME_AMBIGUOUS,   /* sent, no answer: it may have been executed */
    OUTCOME_COUNT
};

enum verdict {
    RETRY_NOW,
    RETRY_LATER,
    GIVE_UP_UNSAFE, /* a replay could do it twice, or out of order */
    GIVE_UP_ATTEMPTS,
    GIVE_UP_BUDGET,
    GIVE_UP_DEADLINE,
    GIVE_UP_POLICY, /* retries are off, or not for this error */
    VERDICT_COUNT
};

struct retry_input {
    enum outcome outcome;
    bool retry_enabled;  /* retry = on */
    bool replay_allowed; /* class, level and ordering rules permit a second
                            execution (only AMBIGUOUS asks) */
    bool listed;         /* retry_on_error and retry_on_timeout name this kind
                            of failure (not asked of NOT_SENT) */
    bool budget_left;    /* only AMBIGUOUS asks */
    uint32_t replays;    /* of this request after AMBIGUOUS, so far */
    int64_t replays_max; /* retries; -1: no limit */
    uint64_t now_us;
    uint64_t deadline_us;
    uint64_t backoff_us; /* already jittered */
};

/* The rule book of redis.md §5: NOT_SENT and NOT_APPLIED are bounded by the
 * deadline alone; AMBIGUOUS also by class, retries and budget. */
enum verdict retry_decide(const struct retry_input *in);

bool verdict_is_retry(enum verdict v);
const char *outcome_name(enum outcome o);
const char *verdict_name(enum verdict v);

#endif
