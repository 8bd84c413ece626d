#include "proxy/core/grpc_retry.h"

#include <assert.h>
#include <stddef.h>

enum {
    UNSENT_MAX = 1000, /* free retries of F1 in one call (T1) */
    TOKEN = 1000,      /* thousandths */
    BACKOFF_MIN_US = 1000
};

const char *grpc_class_name(enum grpc_class c)
{
    switch (c) {
    case GRPC_F0_NO_CONNECTION: return "F0";
    case GRPC_F1_UNSENT: return "F1";
    case GRPC_F2_UNPROCESSED: return "F2";
    case GRPC_F3_AMBIGUOUS: return "F3";
    case GRPC_F4_TRAILERS_ONLY: return "F4";
    case GRPC_F5_LATE_STATUS: return "F5";
    case GRPC_F6_COMMITTED: return "F6";
    case GRPC_F7_LOCAL: return "F7";
    case GRPC_F8_NOT_GRPC: return "F8";
    case GRPC_CLASS_COUNT: break;
    }
    assert(0 && "not a class");
    return NULL;
}

const char *grpc_reason_name(enum grpc_reason r)
{
    switch (r) {
    case GRPC_REASON_OK: return "ok";
    case GRPC_REASON_LOCAL: return "local";
    case GRPC_REASON_NO_CONNECTION: return "no_connection";
    case GRPC_REASON_COMMITTED: return "committed";
    case GRPC_REASON_NO_POLICY: return "no_policy";
    case GRPC_REASON_DISABLED: return "disabled";
    case GRPC_REASON_PUSHBACK: return "pushback";
    case GRPC_REASON_CODE: return "code";
    case GRPC_REASON_UNSAFE: return "unsafe";
    case GRPC_REASON_ATTEMPTS: return "attempts";
    case GRPC_REASON_THROTTLED: return "throttled";
    case GRPC_REASON_RETRY_OVERFLOW: return "retry_overflow";
    case GRPC_REASON_PUSHBACK_TOO_LONG: return "pushback_too_long";
    case GRPC_REASON_DEADLINE: return "deadline";
    case GRPC_REASON_COUNT: break;
    }
    assert(0 && "not a reason");
    return NULL;
}

/* Arithmetic that stops at the largest number instead of starting again. */

static uint64_t sum(uint64_t a, uint64_t b)
{
    return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static uint64_t product(uint64_t a, uint64_t b)
{
    return b != 0 && a > UINT64_MAX / b ? UINT64_MAX : a * b;
}

/* n · num / den, rounded down. */
static uint64_t scaled(uint64_t n, uint64_t num, uint64_t den)
{
    uint64_t whole = product(n / den, num);
    uint64_t rest = product(n % den, num) / den;
    return sum(whole, rest);
}

static uint32_t one_more(uint32_t n)
{
    return n == UINT32_MAX ? n : n + 1;
}

/* The budget (§1.12) */

void grpc_budget_init(struct grpc_budget *b,
                      uint32_t max_millitokens,
                      uint32_t ratio_millitokens)
{
    *b = (struct grpc_budget){ .tokens = max_millitokens,
                               .max = max_millitokens,
                               .ratio = ratio_millitokens };
}

void grpc_budget_change(struct grpc_budget *b,
                        uint32_t max_millitokens,
                        uint32_t ratio_millitokens)
{
    b->tokens = b->max == 0 ? max_millitokens
                            : scaled(b->tokens, max_millitokens, b->max);
    b->max = max_millitokens;
    b->ratio = ratio_millitokens;
}

void grpc_budget_success(struct grpc_budget *b)
{
    uint64_t tokens = sum(b->tokens, b->ratio);
    b->tokens = tokens < b->max ? tokens : b->max;
}

bool grpc_budget_failure(struct grpc_budget *b)
{
    if (b->max == 0) {
        return true;
    }
    b->tokens = b->tokens > TOKEN ? b->tokens - TOKEN : 0;
    return b->tokens > b->max / 2;
}

/* Whether one more configured retry would exceed the cap of Q7. */
static bool budget_is_full(const struct grpc_budget *b,
                           const struct grpc_config *config)
{
    uint64_t share = (uint64_t)b->calls * config->max_concurrent_retry_percent;
    return b->retries >= config->max_concurrent_retries + share / 100;
}

static void unit_take(struct grpc_attempts *a, struct grpc_budget *b)
{
    assert(!a->holds_unit);
    a->holds_unit = true;
    b->retries++;
}

void grpc_release_unit(struct grpc_attempts *a, struct grpc_budget *b)
{
    if (a->holds_unit) {
        assert(b->retries > 0);
        a->holds_unit = false;
        b->retries--;
    }
}

/* Delays */

/* x^n, by squaring. */
static double power(double x, uint32_t n)
{
    double result = 1;

    for (; n > 0; n >>= 1) {
        if (n & 1) {
            result *= x;
        }
        x *= x;
    }
    return result;
}

/* min(initial · multiplier^k, max) */
static uint64_t grown(uint64_t initial_us,
                      double multiplier,
                      uint32_t k,
                      uint64_t max_us)
{
    double us = (double)initial_us * power(multiplier, k);
    return us < (double)max_us ? (uint64_t)us : max_us;
}

uint64_t grpc_backoff(const struct grpc_policy *policy,
                      uint32_t k,
                      struct rng *rng)
{
    uint64_t base_us = grown(policy->initial_backoff_us, policy->multiplier, k,
                             policy->max_backoff_us);
    uint64_t us = scaled(base_us, 800 + rng_upto(rng, 400), 1000);
    return us > BACKOFF_MIN_US ? us : BACKOFF_MIN_US;
}

uint64_t grpc_reconnect_delay(const struct grpc_config *config,
                              uint32_t i,
                              struct rng *rng)
{
    const uint64_t one = 1000000;
    uint64_t jitter = (uint64_t)(config->reconnect_jitter * (double)one + 0.5);

    assert(i >= 1 && jitter <= one);
    uint64_t base_us = grown(config->reconnect_initial_backoff_us,
                             config->reconnect_multiplier, i - 1,
                             config->reconnect_max_backoff_us);
    return scaled(base_us, one - jitter + rng_upto(rng, 2 * jitter), one);
}

/* The decision (§1.8) */

static bool has_policy(const struct grpc_method_view *method)
{
    return method->policy->retry && !method->no_retry;
}

static bool is_disabled(const struct grpc_config *config)
{
    return config->retries != GRPC_RETRIES_FULL ||
           config->max_retry_attempts == 0;
}

/* How many attempts a policy allows, the first included (S1). */
static uint32_t attempts_max(const struct grpc_config *config,
                             const struct grpc_method_view *method,
                             const struct grpc_attempts *attempts)
{
    uint32_t max = method->policy->max_attempts;
    bool is_shared = config->stacked_attempts == GRPC_STACKED_SHARE;
    uint32_t before = is_shared ? attempts->before : 0;
    return max > before ? max - before : 1;
}

bool grpc_may_retry(const struct grpc_config *config,
                    const struct grpc_method_view *method,
                    const struct grpc_attempts *attempts)
{
    return has_policy(method) && !is_disabled(config) &&
           attempts->configured < attempts_max(config, method, attempts);
}

/* What grpc_decide() was asked, and what it has found so far. */
struct question {
    const struct grpc_config *config;
    const struct grpc_method_view *method;
    const struct grpc_ended *ended;
    struct grpc_attempts *attempts;
    struct grpc_budget *budget;
    struct rng *rng;
    bool is_listed; /* the policy names this status */
    bool is_paid;   /* the throttle lets retries pass */
};

static struct grpc_decision finish(enum grpc_reason reason)
{
    return (struct grpc_decision){ .step = GRPC_FINISH, .reason = reason };
}

/* A retry that is free, because the endpoint has done nothing (§1.9). Counts
 * it. */
static bool retry_transparently(const struct question *q)
{
    struct grpc_attempts *a = q->attempts;

    if (q->config->retries == GRPC_RETRIES_OFF) {
        return false;
    }
    if (q->ended->class == GRPC_F1_UNSENT && a->unsent < UNSENT_MAX) {
        a->unsent++;
        return true;
    }
    if (q->ended->class == GRPC_F2_UNPROCESSED && a->processed == 0 &&
        a->refused < q->config->refused_transparent_max) {
        a->refused++;
        return true;
    }
    return false;
}

/* Count a failure, and charge it first, then ask (Q3). */
static void failure_charge(struct question *q)
{
    const struct grpc_ended *ended = q->ended;
    uint32_t codes = q->method->policy->codes;

    q->attempts->processed = one_more(q->attempts->processed);
    q->is_listed = has_policy(q->method) && (codes >> ended->status & 1) != 0;
    q->is_paid = true;
    if (q->is_listed || ended->pushback == GRPC_PUSHBACK_NO) {
        q->is_paid = grpc_budget_failure(q->budget);
    }
}

/* Whether what may have run may run again: columns F3 and F8 of §1.7. */
static bool may_run_twice(const struct question *q)
{
    const struct grpc_method_view *method = q->method;
    bool is_explicit = method->policy->is_explicit;

    switch (q->config->ambiguous) {
    case GRPC_AMBIGUOUS_AUTO: return method->safe || is_explicit;
    case GRPC_AMBIGUOUS_POLICY:
        return method->safe || is_explicit || q->ended->single;
    case GRPC_AMBIGUOUS_IDEMPOTENT: return method->safe;
    case GRPC_AMBIGUOUS_NEVER: return false;
    }
    assert(0 && "not a grpc_ambiguous");
    return false;
}

/* The table of §1.7, for a status that the policy lists. */
static bool is_eligible(const struct question *q)
{
    switch (q->ended->class) {
    case GRPC_F0_NO_CONNECTION:
    case GRPC_F1_UNSENT:
    case GRPC_F2_UNPROCESSED: return true; /* nothing ran */
    case GRPC_F4_TRAILERS_ONLY:
    case GRPC_F5_LATE_STATUS:
        return q->method->safe || q->method->policy->is_explicit ||
               q->ended->single;
    case GRPC_F3_AMBIGUOUS:
    case GRPC_F8_NOT_GRPC: return may_run_twice(q);
    case GRPC_F6_COMMITTED:
    case GRPC_F7_LOCAL:
    case GRPC_CLASS_COUNT: break;
    }
    assert(0 && "decided before");
    return false;
}

/* Never in time: a pushback that is longer than we would wait. */
static bool pushback_is_too_long(const struct question *q)
{
    return q->ended->pushback == GRPC_PUSHBACK_MS &&
           q->ended->pushback_ms > q->config->max_pushback_us / 1000;
}

static uint64_t retry_delay(const struct question *q)
{
    if (pushback_is_too_long(q)) {
        return UINT64_MAX;
    }
    return q->ended->pushback == GRPC_PUSHBACK_MS
               ? product(q->ended->pushback_ms, 1000)
               : grpc_backoff(q->method->policy, q->attempts->k, q->rng);
}

/* The questions, and their order, are those of a Redis command that may have
 * been executed: a policy counts and pays for whatever has been processed. */
static enum verdict retry_ask(const struct question *q, uint64_t delay_us)
{
    const struct retry_input in = {
        .outcome = OUTCOME_AMBIGUOUS,
        .retry_enabled = true,
        .listed = q->is_listed,
        .replay_allowed = is_eligible(q),
        .replays = q->attempts->configured - 1,
        .replays_max =
            (int64_t)attempts_max(q->config, q->method, q->attempts) - 1,
        .budget_left = q->is_paid && !budget_is_full(q->budget, q->config),
        .now_us = q->ended->now_us,
        .deadline_us = q->ended->deadline_us,
        .backoff_us = delay_us,
    };
    return retry_decide(&in);
}

/* One more attempt of the policy, if it, the budget and the time allow it. */
static struct grpc_decision retry_by_policy(const struct question *q)
{
    struct grpc_attempts *a = q->attempts;
    uint64_t delay_us = retry_delay(q);

    switch (retry_ask(q, delay_us)) {
    case GIVE_UP_POLICY: return finish(GRPC_REASON_CODE);
    case GIVE_UP_UNSAFE: return finish(GRPC_REASON_UNSAFE);
    case GIVE_UP_ATTEMPTS: return finish(GRPC_REASON_ATTEMPTS);
    case GIVE_UP_BUDGET:
        return finish(q->is_paid ? GRPC_REASON_RETRY_OVERFLOW
                                 : GRPC_REASON_THROTTLED);
    case GIVE_UP_DEADLINE:
        return finish(pushback_is_too_long(q) ? GRPC_REASON_PUSHBACK_TOO_LONG
                                              : GRPC_REASON_DEADLINE);
    case RETRY_NOW:
    case RETRY_LATER: break;
    case VERDICT_COUNT: assert(0 && "not a verdict"); break;
    }
    a->k = q->ended->pushback == GRPC_PUSHBACK_MS ? 0 : one_more(a->k);
    a->configured = one_more(a->configured);
    unit_take(a, q->budget);
    return (struct grpc_decision){ .step = GRPC_AGAIN_AFTER,
                                   .delay_us = delay_us };
}

struct grpc_decision grpc_decide(const struct grpc_config *config,
                                 const struct grpc_method_view *method,
                                 const struct grpc_ended *ended,
                                 struct grpc_attempts *attempts,
                                 struct grpc_budget *budget,
                                 struct rng *rng)
{
    struct question q = { .config = config,
                          .method = method,
                          .ended = ended,
                          .attempts = attempts,
                          .budget = budget,
                          .rng = rng };
    bool is_replayable = !ended->committed && ended->log_intact &&
                         ended->class != GRPC_F6_COMMITTED;

    assert(attempts->configured >= 1);
    grpc_release_unit(attempts, budget);
    if (ended->class == GRPC_F7_LOCAL) {
        return finish(GRPC_REASON_LOCAL);
    }
    if (ended->status == GRPC_OK) {
        grpc_budget_success(budget);
        return finish(GRPC_REASON_OK);
    }
    if (is_replayable && retry_transparently(&q)) {
        return (struct grpc_decision){ .step = GRPC_AGAIN_NOW };
    }
    failure_charge(&q);
    if (ended->forced) {
        return finish(GRPC_REASON_NO_CONNECTION); /* the wait was long enough */
    }
    if (!is_replayable) {
        return finish(GRPC_REASON_COMMITTED);
    }
    if (!has_policy(method)) {
        return finish(GRPC_REASON_NO_POLICY);
    }
    if (is_disabled(config)) {
        return finish(GRPC_REASON_DISABLED);
    }
    if (ended->pushback == GRPC_PUSHBACK_NO) {
        return finish(GRPC_REASON_PUSHBACK);
    }
    return retry_by_policy(&q);
}
