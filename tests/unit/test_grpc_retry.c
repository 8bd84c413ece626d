/* Whether a gRPC call is tried again, over its whole domain: every class,
 * policy, shape and switch, with counters, tokens and times at and around each
 * border. What is expected is stated as tables: the one of what may run twice,
 * and the list of reasons in their order.
 *
 * Broken on purpose, the code fails here (each was tried): two reasons
 * exchanged, the charge left out or made after the question, a transparent
 * retry after the commit or after a processed attempt, `>` for `>=` at the
 * attempts, at the cap and at the deadline, a cell of the table turned round,
 * the unit not given back, the exponent not restarted by a pushback.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/core/grpc_retry.h"

enum {
    INITIAL_US = 100000,
    MAX_US = 1000000,
    NOW_US = 5000000,
    CALLS = 7,
    CAP = 11 /* 10 and a fifth of the calls */
};

#define COUNT(array) (sizeof(array) / sizeof *(array))

/* The policy lists UNAVAILABLE and nothing else. */
#define LISTED     GRPC_UNAVAILABLE
#define NOT_LISTED GRPC_INTERNAL

/* The domain */

static const enum grpc_status statuses[] = { GRPC_OK, LISTED, NOT_LISTED };

static const struct {
    bool retry, is_explicit, no_retry;
} policies[] = {
    { false, false, false },
    { true, false, false },
    { true, true, false },
    { true, true, true },
};

static const struct {
    enum grpc_pushback kind;
    uint32_t ms;
} pushbacks[] = {
    { GRPC_PUSHBACK_NONE, 0 },
    { GRPC_PUSHBACK_MS, 60000 },
    { GRPC_PUSHBACK_MS, 60001 },
    { GRPC_PUSHBACK_NO, 0 },
};

/* The policy has 3 attempts, one refusal is free. */
static const struct {
    struct grpc_attempts attempts;
    enum grpc_stacked stacked;
    bool used_up; /* no further attempt */
} counters[] = {
    { { .configured = 1 }, GRPC_STACKED_SHARE, false },
    { { .configured = 2, .unsent = 999, .refused = 1, .processed = 1, .k = 1 },
      GRPC_STACKED_SHARE,
      false },
    { { .configured = 3, .unsent = 1000, .k = 2 }, GRPC_STACKED_SHARE, true },
    { { .configured = 1, .before = 1, .refused = 1 },
      GRPC_STACKED_SHARE,
      false },
    { { .configured = 2, .before = 1, .processed = 1 },
      GRPC_STACKED_SHARE,
      true },
    { { .configured = 1, .before = 5 }, GRPC_STACKED_SHARE, true },
    { { .configured = 2, .before = 5, .k = 40 }, GRPC_STACKED_IGNORE, false },
};

static const struct {
    uint64_t tokens, max; /* before the charge */
    bool throttled;       /* after it */
    bool full, held;
    bool has_deadline, late;
} loads[] = {
    { 10000, 10000, false, false, false, false, false },
    { 0, 0, false, false, false, true, false }, /* no throttle */
    { 6000, 10000, true, false, false, false, false },
    { 6001, 10000, false, false, true, true, false },
    { 10000, 10000, false, true, false, true, false },
    { 10000, 10000, false, false, false, true, true },
    { 10000, 10000, false, true, false, true, true },
    { 500, 10000, true, true, false, true, true },
};

/* One input, and where it came from. */
struct given {
    struct grpc_config config;
    struct grpc_policy policy;
    struct grpc_method_view method;
    struct grpc_ended ended;
    struct grpc_attempts attempts;
    struct grpc_budget budget;
    struct rng rng;
    uint64_t delay_us; /* of a retry */
    size_t at, load, counter;
};

static void given_reset(struct given *g)
{
    *g = (struct given){
        .config = { .max_retry_attempts = -1,
                    .refused_transparent_max = 1,
                    .max_pushback_us = 60000000,
                    .max_concurrent_retries = 10,
                    .max_concurrent_retry_percent = 20 },
        .policy = { .retry = true,
                    .max_attempts = 3,
                    .initial_backoff_us = INITIAL_US,
                    .max_backoff_us = MAX_US,
                    .multiplier = 2,
                    .codes = 1u << LISTED },
        .ended = { .class = GRPC_F4_TRAILERS_ONLY,
                   .status = LISTED,
                   .log_intact = true,
                   .single = true,
                   .now_us = NOW_US,
                   .deadline_us = UINT64_MAX },
        .attempts = { .configured = 1 },
        .budget = { .tokens = 10000,
                    .max = 10000,
                    .ratio = 100,
                    .calls = CALLS },
    };
    rng_init(&g->rng, 1);
    g->method.policy = &g->policy;
}

static struct grpc_decision decide(struct given *g)
{
    return grpc_decide(&g->config, &g->method, &g->ended, &g->attempts,
                       &g->budget, &g->rng);
}

/* The last digit of *i in this base; *i loses it. */
static size_t digit(size_t *i, size_t base)
{
    size_t d = *i % base;
    *i /= base;
    return d;
}

enum {
    DOMAIN_SIZE = GRPC_CLASS_COUNT * COUNT(statuses) * COUNT(policies) *
                  COUNT(pushbacks) * COUNT(counters) * COUNT(loads) * 4 * 3 *
                  2 * 2 * 2 * 2 * 2
};

static void given_load(struct given *g, size_t load)
{
    g->load = load;
    g->budget.tokens = loads[load].tokens;
    g->budget.max = loads[load].max;
    g->attempts.holds_unit = loads[load].held;
    g->budget.retries = loads[load].full || loads[load].held ? CAP : CAP - 1;

    /* The draw that the decision will make. */
    struct rng rng = g->rng;
    g->delay_us = g->ended.pushback == GRPC_PUSHBACK_MS
                      ? g->ended.pushback_ms * UINT64_C(1000)
                      : grpc_backoff(&g->policy, g->attempts.k, &rng);
    if (loads[load].has_deadline) {
        g->ended.deadline_us =
            NOW_US + g->delay_us + (loads[load].late ? 0 : 1);
    }
}

/* The ith input of the domain. */
static void given_at(struct given *g, size_t i)
{
    given_reset(g);
    g->at = i;
    g->ended.class = (enum grpc_class)digit(&i, GRPC_CLASS_COUNT);
    g->ended.status = statuses[digit(&i, COUNT(statuses))];
    size_t policy = digit(&i, COUNT(policies));
    g->policy.retry = policies[policy].retry;
    g->policy.is_explicit = policies[policy].is_explicit;
    g->method.no_retry = policies[policy].no_retry;
    size_t pushback = digit(&i, COUNT(pushbacks));
    g->ended.pushback = pushbacks[pushback].kind;
    g->ended.pushback_ms = pushbacks[pushback].ms;
    g->counter = digit(&i, COUNT(counters));
    g->attempts = counters[g->counter].attempts;
    g->config.stacked_attempts = counters[g->counter].stacked;
    size_t load = digit(&i, COUNT(loads));
    g->config.ambiguous = (enum grpc_ambiguous)digit(&i, 4);
    g->config.retries = (enum grpc_retries)digit(&i, 3);
    g->method.safe = digit(&i, 2) == 1;
    g->ended.single = digit(&i, 2) == 1;
    g->ended.committed = digit(&i, 2) == 1;
    g->ended.log_intact = digit(&i, 2) == 1;
    /* Two that exclude each other nearly always. */
    bool is_odd = digit(&i, 2) == 1;
    g->ended.forced = is_odd && g->ended.class == GRPC_F0_NO_CONNECTION;
    g->config.max_retry_attempts = is_odd && !g->ended.forced ? 0 : -1;
    given_load(g, load);
}

/* What may be retried: the rows and columns of grpc.md §1.7 */

enum column {
    NOTHING_RAN, /* F0, F1, F2 */
    STATUS,      /* F4, F5 */
    MAY_HAVE_RUN /* F3, F8 */
};

/* Each cell: the values of `ambiguous` (auto, policy, idempotent, never) under
 * which a listed code is retried. */
static const struct {
    bool safe, single, is_explicit;
    const char *cell[3];
} table[] = {
    { true, true, true, { "apin", "apin", "api" } },
    { true, true, false, { "apin", "apin", "api" } },
    { true, false, true, { "apin", "apin", "api" } },
    { true, false, false, { "apin", "apin", "api" } },
    { false, true, true, { "apin", "apin", "ap" } },
    { false, true, false, { "apin", "apin", "p" } },
    { false, false, true, { "apin", "apin", "ap" } },
    { false, false, false, { "apin", "", "" } },
};

static enum column column_of(enum grpc_class class)
{
    if (class == GRPC_F4_TRAILERS_ONLY || class == GRPC_F5_LATE_STATUS) {
        return STATUS;
    }
    return class == GRPC_F3_AMBIGUOUS || class == GRPC_F8_NOT_GRPC
               ? MAY_HAVE_RUN
               : NOTHING_RAN;
}

static bool is_permitted(const struct given *g)
{
    char ambiguous = "apin"[g->config.ambiguous];
    for (size_t i = 0; i < COUNT(table); i++) {
        if (table[i].safe == g->method.safe &&
            table[i].single == g->ended.single &&
            table[i].is_explicit == g->policy.is_explicit) {
            const char *cell = table[i].cell[column_of(g->ended.class)];
            return strchr(cell, ambiguous) != NULL;
        }
    }
    fail();
    return false;
}

/* The facts, one for each reason. */

static bool is_local(const struct given *g)
{
    return g->ended.class == GRPC_F7_LOCAL;
}

static bool is_ok(const struct given *g)
{
    return g->ended.status == GRPC_OK;
}

static bool is_committed(const struct given *g)
{
    return g->ended.committed || !g->ended.log_intact ||
           g->ended.class == GRPC_F6_COMMITTED;
}

/* F1 or F2, and not yet too many of them. The reason is none: it is tried
 * again for free. */
static bool is_transparent(const struct given *g)
{
    if (is_committed(g) || g->config.retries == GRPC_RETRIES_OFF) {
        return false;
    }
    if (g->ended.class == GRPC_F1_UNSENT) {
        return g->counter != 2;
    }
    return g->ended.class == GRPC_F2_UNPROCESSED &&
           (g->counter == 0 || g->counter == 2 || g->counter == 5 ||
            g->counter == 6);
}

static bool is_forced(const struct given *g)
{
    return g->ended.forced;
}

static bool has_no_policy(const struct given *g)
{
    return !g->policy.retry || g->method.no_retry;
}

static bool is_disabled(const struct given *g)
{
    return g->config.retries != GRPC_RETRIES_FULL ||
           g->config.max_retry_attempts == 0;
}

static bool is_told_not_to(const struct given *g)
{
    return g->ended.pushback == GRPC_PUSHBACK_NO;
}

static bool is_not_listed(const struct given *g)
{
    return has_no_policy(g) || g->ended.status != LISTED;
}

static bool is_unsafe(const struct given *g)
{
    return !is_permitted(g);
}

static bool is_used_up(const struct given *g)
{
    return counters[g->counter].used_up;
}

static bool is_throttled(const struct given *g)
{
    return loads[g->load].throttled;
}

static bool is_full(const struct given *g)
{
    return loads[g->load].full;
}

static bool is_told_to_wait_long(const struct given *g)
{
    return g->ended.pushback == GRPC_PUSHBACK_MS &&
           g->ended.pushback_ms > 60000;
}

static bool is_late(const struct given *g)
{
    return loads[g->load].late;
}

/* In the order in which they are told; -1: it is tried again at once. */
static const struct {
    int reason;
    bool (*is_true)(const struct given *g);
} reasons[] = {
    { GRPC_REASON_LOCAL, is_local },
    { GRPC_REASON_OK, is_ok },
    { -1, is_transparent },
    { GRPC_REASON_NO_CONNECTION, is_forced },
    { GRPC_REASON_COMMITTED, is_committed },
    { GRPC_REASON_NO_POLICY, has_no_policy },
    { GRPC_REASON_DISABLED, is_disabled },
    { GRPC_REASON_PUSHBACK, is_told_not_to },
    { GRPC_REASON_CODE, is_not_listed },
    { GRPC_REASON_UNSAFE, is_unsafe },
    { GRPC_REASON_ATTEMPTS, is_used_up },
    { GRPC_REASON_THROTTLED, is_throttled },
    { GRPC_REASON_RETRY_OVERFLOW, is_full },
    { GRPC_REASON_PUSHBACK_TOO_LONG, is_told_to_wait_long },
    { GRPC_REASON_DEADLINE, is_late },
};

/* The first fact that is true, or COUNT(reasons). */
static size_t first_reason(const struct given *g)
{
    size_t r = 0;
    while (r < COUNT(reasons) && !reasons[r].is_true(g)) {
        r++;
    }
    return r;
}

/* cmocka's assertions are slow, and these are asked millions of times. */
static void require(bool fact, size_t at, const char *words)
{
    if (!fact) {
        fail_msg("input %zu: %s", at, words);
    }
}

#define REQUIRE(fact) require(fact, after->at, #fact)

/* Facts about one decision: what was asked, what was left behind, what was
 * said. */

static void the_first_reason_against_it_is_told(const struct given *g,
                                                const struct given *after,
                                                struct grpc_decision d)
{
    size_t r = first_reason(g);

    if (r == COUNT(reasons)) {
        REQUIRE(d.step == GRPC_AGAIN_AFTER);
        REQUIRE(d.delay_us == g->delay_us);
    } else if (reasons[r].reason == -1) {
        REQUIRE(d.step == GRPC_AGAIN_NOW);
    } else {
        REQUIRE(d.step == GRPC_FINISH);
        REQUIRE((int)d.reason == reasons[r].reason);
    }
}

static void only_what_happened_is_counted(const struct given *g,
                                          const struct given *after,
                                          struct grpc_decision d)
{
    const struct grpc_attempts *a = &after->attempts;
    bool is_free = d.step == GRPC_AGAIN_NOW;
    bool is_retry = d.step == GRPC_AGAIN_AFTER;
    bool is_f1 = g->ended.class == GRPC_F1_UNSENT;
    bool is_failure = !is_free && !is_local(g) && !is_ok(g);

    REQUIRE(a->configured == g->attempts.configured + is_retry);
    REQUIRE(a->unsent == g->attempts.unsent + (is_free && is_f1));
    REQUIRE(a->refused == g->attempts.refused + (is_free && !is_f1));
    REQUIRE(a->processed == g->attempts.processed + is_failure);
    REQUIRE(a->before == g->attempts.before);
    if (is_retry && g->ended.pushback == GRPC_PUSHBACK_MS) {
        REQUIRE(a->k == 0);
    } else {
        REQUIRE(a->k == g->attempts.k + is_retry);
    }
}

/* Q2, Q3, Q7 */
static void tokens_and_units_are_charged_and_given_back(
    const struct given *g,
    const struct given *after,
    struct grpc_decision d)
{
    const struct grpc_budget *b = &after->budget;
    bool is_failure = d.step != GRPC_AGAIN_NOW && !is_local(g) && !is_ok(g);
    bool is_charged = is_failure && (!is_not_listed(g) || is_told_not_to(g));
    uint64_t tokens = g->budget.tokens;

    if (is_charged) {
        tokens = tokens < 1000 ? 0 : tokens - 1000;
    } else if (is_ok(g) && !is_local(g)) {
        tokens = tokens + 100 > g->budget.max ? g->budget.max : tokens + 100;
    }
    REQUIRE(b->tokens == tokens);
    REQUIRE(after->attempts.holds_unit == (d.step == GRPC_AGAIN_AFTER));
    REQUIRE(b->retries == g->budget.retries - g->attempts.holds_unit +
                              after->attempts.holds_unit);
    REQUIRE(b->retries <= CAP);
    REQUIRE(b->max == g->budget.max && b->calls == CALLS);
}

/* What must never happen, said once more and without the table. */
static void nothing_runs_twice_without_permission(const struct given *g,
                                                  const struct given *after,
                                                  struct grpc_decision d)
{
    enum grpc_class class = g->ended.class;
    enum grpc_ambiguous ambiguous = g->config.ambiguous;

    if (d.step == GRPC_FINISH) {
        return;
    }
    REQUIRE(!g->ended.committed && g->ended.log_intact);
    REQUIRE(class != GRPC_F6_COMMITTED && class != GRPC_F7_LOCAL);
    REQUIRE(g->config.retries != GRPC_RETRIES_OFF);
    REQUIRE(g->ended.status != GRPC_OK && !g->ended.forced);
    if (class == GRPC_F1_UNSENT || class == GRPC_F2_UNPROCESSED) {
        return;
    }
    REQUIRE(g->policy.retry && !g->method.no_retry);
    REQUIRE(g->config.max_retry_attempts != 0);
    REQUIRE(g->ended.pushback != GRPC_PUSHBACK_NO);
    REQUIRE(after->attempts.configured <= 3);
    if (class == GRPC_F3_AMBIGUOUS || class == GRPC_F8_NOT_GRPC) {
        REQUIRE(ambiguous != GRPC_AMBIGUOUS_NEVER);
        REQUIRE(g->method.safe || ambiguous != GRPC_AMBIGUOUS_IDEMPOTENT);
        REQUIRE(g->method.safe || g->policy.is_explicit ||
                ambiguous == GRPC_AMBIGUOUS_POLICY);
    }
}

/* C3: headers are held exactly as long as the counters leave an attempt. */
static void headers_may_be_held_while_an_attempt_is_left(
    const struct given *g,
    const struct given *after,
    struct grpc_decision d)
{
    bool is_left = !has_no_policy(g) && !is_disabled(g) && !is_used_up(g);
    (void)d;
    REQUIRE(grpc_may_retry(&g->config, &g->method, &g->attempts) == is_left);
}

static void (*const facts[])(const struct given *g,
                             const struct given *after,
                             struct grpc_decision d) = {
    the_first_reason_against_it_is_told,
    only_what_happened_is_counted,
    tokens_and_units_are_charged_and_given_back,
    nothing_runs_twice_without_permission,
    headers_may_be_held_while_an_attempt_is_left,
};

/* retry-22 */
static void each_decision_is_as_the_tables_say(void **state)
{
    (void)state;
    size_t seen[GRPC_REASON_COUNT] = { 0 };
    size_t again[GRPC_CLASS_COUNT] = { 0 };

    for (size_t i = 0; i < DOMAIN_SIZE; i++) {
        struct given g;
        given_at(&g, i);
        struct given after = g;
        struct grpc_decision d = decide(&after);
        for (size_t f = 0; f < COUNT(facts); f++) {
            facts[f](&g, &after, d);
        }
        if (d.step == GRPC_FINISH) {
            seen[d.reason]++;
        } else {
            again[g.ended.class]++;
        }
    }
    /* No row of the domain is there in vain. */
    for (size_t r = 0; r < GRPC_REASON_COUNT; r++) {
        assert_true(seen[r] > 0);
    }
    for (size_t c = 0; c < GRPC_CLASS_COUNT; c++) {
        bool never = c == GRPC_F6_COMMITTED || c == GRPC_F7_LOCAL;
        assert_int_equal(again[c] == 0, never);
    }
}

/* Stories, by the numbers of grpc.md §7 */

/* How many attempts a call makes when each ends like this. */
static uint32_t attempts_of(struct given *g)
{
    uint32_t n = 1;
    while (decide(g).step != GRPC_FINISH) {
        n++;
        assert_true(n < 100000);
    }
    return n;
}

/* retry-05 */
static void retry_attempts_come_after_the_first(void **state)
{
    (void)state;
    static const struct {
        int64_t retries;
        uint32_t attempts;
    } rows[] = { { 0, 1 }, { 1, 2 }, { 3, 4 } };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct given g;
        given_reset(&g);
        g.budget = (struct grpc_budget){ .calls = CALLS };
        g.config.max_retry_attempts = rows[i].retries;
        g.policy.max_attempts = (uint32_t)rows[i].retries + 1;
        assert_int_equal(attempts_of(&g), rows[i].attempts);
    }
    struct given g;
    given_reset(&g); /* 0, beside the policy of a service config */
    g.config.max_retry_attempts = 0;
    g.policy.is_explicit = true;
    assert_int_equal(attempts_of(&g), 1);
}

/* retry-07 */
static void backoff_is_a_fifth_around_the_exponential(void **state)
{
    (void)state;
    static const double multipliers[] = { 2, 0.5 };
    static const uint64_t bases[2][6] = {
        { 100000, 200000, 400000, 800000, 1000000, 1000000 },
        { 100000, 50000, 25000, 12500, 6250, 3125 },
    };
    struct given g;
    given_reset(&g);

    for (size_t m = 0; m < 2; m++) {
        g.policy.multiplier = multipliers[m];
        for (uint32_t n = 1; n <= 6; n++) {
            uint64_t base = bases[m][n - 1];
            uint64_t low = UINT64_MAX;
            uint64_t high = 0;
            uint64_t sum = 0;
            for (unsigned draw = 0; draw < 10000; draw++) {
                uint64_t us = grpc_backoff(&g.policy, n - 1, &g.rng);
                low = us < low ? us : low;
                high = us > high ? us : high;
                sum += us;
            }
            assert_int_equal(low, base * 8 / 10);
            assert_int_equal(high, base * 12 / 10);
            assert_in_range(sum / 10000, base * 99 / 100, base * 101 / 100);
        }
    }
}

/* B1: at least a millisecond, and no number is too large. */
static void backoff_has_two_ends(void **state)
{
    (void)state;
    struct given g;
    given_reset(&g);

    g.policy.multiplier = 0.001;
    assert_int_equal(grpc_backoff(&g.policy, 50, &g.rng), 1000);
    assert_int_equal(grpc_backoff(&g.policy, UINT32_MAX, &g.rng), 1000);
    g.policy.multiplier = 100;
    for (uint32_t k = 1; k < 2000; k += 7) {
        assert_in_range(grpc_backoff(&g.policy, k, &g.rng), MAX_US * 8 / 10,
                        MAX_US * 12 / 10);
    }
    g.policy.multiplier = 1;
    assert_in_range(grpc_backoff(&g.policy, UINT32_MAX, &g.rng),
                    INITIAL_US * 8 / 10, INITIAL_US * 12 / 10);
    g.policy.initial_backoff_us = UINT64_C(2) * MAX_US; /* above max is legal */
    assert_in_range(grpc_backoff(&g.policy, 0, &g.rng), MAX_US * 8 / 10,
                    MAX_US * 12 / 10);
    g.policy.initial_backoff_us = UINT64_MAX;
    g.policy.max_backoff_us = UINT64_MAX;
    assert_true(grpc_backoff(&g.policy, 3, &g.rng) >= UINT64_MAX / 10 * 7);
}

/* retry-08, retry-09 */
static void pushback_is_the_exact_delay_and_restarts_the_backoff(void **state)
{
    (void)state;
    struct given g;
    given_reset(&g);
    g.attempts.k = 3;
    g.ended.pushback = GRPC_PUSHBACK_MS;
    g.ended.pushback_ms = 150;
    struct grpc_decision d = decide(&g);
    assert_int_equal(d.step, GRPC_AGAIN_AFTER);
    assert_int_equal(d.delay_us, 150000);

    g.ended.pushback = GRPC_PUSHBACK_NONE;
    d = decide(&g);
    assert_int_equal(d.step, GRPC_AGAIN_AFTER);
    assert_in_range(d.delay_us, INITIAL_US * 8 / 10, INITIAL_US * 12 / 10);

    given_reset(&g);
    g.ended.pushback = GRPC_PUSHBACK_MS;
    d = decide(&g); /* 0 ms: without delay, but as a retry */
    assert_int_equal(d.step, GRPC_AGAIN_AFTER);
    assert_int_equal(d.delay_us, 0);
    assert_int_equal(g.attempts.configured, 2);

    given_reset(&g);
    g.ended.pushback = GRPC_PUSHBACK_NO;
    g.ended.status = NOT_LISTED;
    d = decide(&g);
    assert_int_equal(d.reason, GRPC_REASON_PUSHBACK);
    assert_int_equal(g.budget.tokens, 9000); /* charged all the same */
}

/* retry-10 */
static void pushback_overrides_nothing(void **state)
{
    (void)state;
    struct given g;
    given_reset(&g);
    g.ended.pushback = GRPC_PUSHBACK_MS;
    g.ended.pushback_ms = 150;
    g.ended.status = NOT_LISTED;
    assert_int_equal(decide(&g).reason, GRPC_REASON_CODE);

    g.ended.status = LISTED;
    g.attempts.configured = 3;
    assert_int_equal(decide(&g).reason, GRPC_REASON_ATTEMPTS);

    g.attempts.configured = 1;
    g.ended.pushback_ms = 61000;
    assert_int_equal(decide(&g).reason, GRPC_REASON_PUSHBACK_TOO_LONG);
    g.ended.pushback_ms = INT32_MAX;
    assert_int_equal(decide(&g).reason, GRPC_REASON_PUSHBACK_TOO_LONG);
}

/* retry-11 */
static void half_of_the_tokens_must_be_left(void **state)
{
    (void)state;
    struct grpc_budget b;
    grpc_budget_init(&b, 10000, 100);
    for (unsigned failure = 1; failure <= 6; failure++) {
        struct given g;
        given_reset(&g);
        g.budget = b;
        struct grpc_decision d = decide(&g);
        assert_int_equal(d.step == GRPC_AGAIN_AFTER, failure <= 4);
        if (failure > 4) {
            assert_int_equal(d.reason, GRPC_REASON_THROTTLED);
        }
        grpc_release_unit(&g.attempts, &g.budget);
        b = g.budget;
    }
    assert_int_equal(b.tokens, 4000);
    for (unsigned i = 0; i < 20; i++) {
        grpc_budget_success(&b);
    }
    assert_int_equal(b.tokens, 6000);
    assert_false(grpc_budget_failure(&b)); /* 5000 is not more than a half */
    grpc_budget_success(&b);
    assert_int_equal(b.tokens, 5100);
}

/* retry-12 (what the fractions of the configuration become) */
static void tokens_stay_between_none_and_all(void **state)
{
    (void)state;
    struct grpc_budget b;
    grpc_budget_init(&b, 10000, 546);
    grpc_budget_success(&b);
    assert_int_equal(b.tokens, 10000);
    for (unsigned i = 0; i < 12; i++) {
        (void)grpc_budget_failure(&b);
    }
    assert_int_equal(b.tokens, 0);
    grpc_budget_success(&b);
    assert_int_equal(b.tokens, 546);

    grpc_budget_init(&b, 500, 1000); /* less than one failure */
    assert_false(grpc_budget_failure(&b));
    assert_int_equal(b.tokens, 0);
    grpc_budget_success(&b);
    assert_int_equal(b.tokens, 500);

    grpc_budget_init(&b, 0, 100); /* no throttle */
    for (unsigned i = 0; i < 5; i++) {
        assert_true(grpc_budget_failure(&b));
        grpc_budget_success(&b);
    }
    assert_int_equal(b.tokens, 0);
}

/* retry-13 */
static void a_committed_failure_is_charged(void **state)
{
    (void)state;
    struct given g;
    given_reset(&g);
    g.ended.committed = true;
    assert_int_equal(decide(&g).reason, GRPC_REASON_COMMITTED);
    assert_int_equal(g.budget.tokens, 9000);
}

/* retry-14 */
static void new_parameters_neither_open_nor_shut_the_gate(void **state)
{
    (void)state;
    struct grpc_budget b;
    grpc_budget_init(&b, 100000, 100);
    b.tokens = 60000;
    b.retries = 3;
    grpc_budget_change(&b, 10000, 50);
    assert_int_equal(b.tokens, 6000);
    assert_int_equal(b.max, 10000);
    assert_int_equal(b.ratio, 50);
    assert_int_equal(b.retries, 3);
    b.tokens = 3333;
    grpc_budget_change(&b, 1000, 50);
    assert_int_equal(b.tokens, 333); /* rounded down */
    grpc_budget_change(&b, 0, 50);
    assert_int_equal(b.tokens, 0);
    grpc_budget_change(&b, 7000, 50); /* there was no throttle: full */
    assert_int_equal(b.tokens, 7000);
}

/* retry-15 */
static void only_so_many_retries_at_once(void **state)
{
    (void)state;
    struct given g[20];
    struct grpc_budget shared;
    unsigned overflow = 0;

    grpc_budget_init(&shared, 0, 0);
    shared.calls = 20;
    for (size_t i = 0; i < 20; i++) {
        given_reset(&g[i]);
        g[i].budget = shared;
        struct grpc_decision d = decide(&g[i]);
        shared = g[i].budget;
        if (d.step == GRPC_FINISH) {
            assert_int_equal(d.reason, GRPC_REASON_RETRY_OVERFLOW);
            overflow++;
        }
    }
    assert_int_equal(shared.retries, 14);
    assert_int_equal(overflow, 6);
    for (size_t i = 0; i < 20; i++) {
        grpc_release_unit(&g[i].attempts, &shared);
        grpc_release_unit(&g[i].attempts, &shared); /* once is enough */
    }
    assert_int_equal(shared.retries, 0);
}

/* retry-16, retry-17 */
static void attempts_of_the_client_take_from_ours(void **state)
{
    (void)state;
    static const struct {
        uint32_t before, attempts;
    } rows[] = { { 0, 5 }, { 2, 3 }, { 4, 1 },
                 { 5, 1 }, { 7, 1 }, { 999999999, 1 } };

    for (size_t i = 0; i < COUNT(rows); i++) {
        struct given g;
        given_reset(&g);
        g.budget = (struct grpc_budget){ .calls = CALLS };
        g.policy.max_attempts = 5;
        g.attempts.before = rows[i].before;
        assert_int_equal(attempts_of(&g), rows[i].attempts);
        g.attempts =
            (struct grpc_attempts){ .configured = 1, .before = rows[i].before };
        g.config.stacked_attempts = GRPC_STACKED_IGNORE;
        assert_int_equal(attempts_of(&g), 5);
    }
}

/* safe-14 */
static void a_thousand_unsent_attempts_are_free(void **state)
{
    (void)state;
    struct given g;
    given_reset(&g);
    g.policy.retry = false;
    g.ended.class = GRPC_F1_UNSENT;
    assert_int_equal(attempts_of(&g), 1001);
    assert_int_equal(g.attempts.configured, 1);
    assert_int_equal(g.budget.tokens, 10000);
}

/* safe-04, safe-05 */
static void one_refusal_is_free_before_anything_was_processed(void **state)
{
    (void)state;
    struct given g;
    given_reset(&g);
    g.ended.class = GRPC_F2_UNPROCESSED;
    assert_int_equal(decide(&g).step, GRPC_AGAIN_NOW);
    assert_int_equal(g.attempts.configured, 1);
    assert_int_equal(decide(&g).step, GRPC_AGAIN_AFTER);
    assert_int_equal(g.attempts.configured, 2);

    given_reset(&g);
    assert_int_equal(decide(&g).step, GRPC_AGAIN_AFTER); /* F4 */
    g.ended.class = GRPC_F2_UNPROCESSED;
    assert_int_equal(decide(&g).step, GRPC_AGAIN_AFTER);
    assert_int_equal(g.budget.tokens, 8000);
    assert_int_equal(g.attempts.configured, 3);
}

/* safe-15 */
static void retries_can_be_off_or_transparent_only(void **state)
{
    (void)state;
    struct given g;
    given_reset(&g);
    g.policy.is_explicit = true;
    g.config.retries = GRPC_RETRIES_OFF;
    g.ended.class = GRPC_F2_UNPROCESSED;
    assert_int_equal(decide(&g).step, GRPC_FINISH);

    given_reset(&g);
    g.policy.is_explicit = true;
    g.config.retries = GRPC_RETRIES_TRANSPARENT;
    assert_int_equal(decide(&g).reason, GRPC_REASON_DISABLED);
}

/* conn-01: U7 */
static void reconnects_are_paced_by_both_profiles(void **state)
{
    (void)state;
    static const struct {
        uint64_t initial_us, max_us;
        uint64_t bases[9];
    } profiles[] = {
        { 200000,
          5000000,
          { 200000, 320000, 512000, 819200, 1310720, 2097152, 3355443, 5000000,
            5000000 } },
        { 1000000,
          120000000,
          { 1000000, 1600000, 2560000, 4096000, 6553600, 10485760, 16777216,
            26843545, 42949672 } },
    };
    for (size_t p = 0; p < COUNT(profiles); p++) {
        struct grpc_config config = {
            .reconnect_initial_backoff_us = profiles[p].initial_us,
            .reconnect_max_backoff_us = profiles[p].max_us,
            .reconnect_multiplier = 1.6,
            .reconnect_jitter = 0.2,
        };
        struct rng rng;
        rng_init(&rng, p);
        for (uint32_t i = 1; i <= 9; i++) {
            uint64_t base = profiles[p].bases[i - 1];
            for (unsigned draw = 0; draw < 1000; draw++) {
                uint64_t us = grpc_reconnect_delay(&config, i, &rng);
                assert_in_range(us, base * 8 / 10 - 1, base * 12 / 10 + 1);
            }
        }
        config.reconnect_jitter = 0;
        for (uint32_t i = 1; i <= 9; i++) {
            assert_in_range(grpc_reconnect_delay(&config, i, &rng),
                            profiles[p].bases[i - 1] - 1,
                            profiles[p].bases[i - 1] + 1);
        }
        assert_int_equal(grpc_reconnect_delay(&config, UINT32_MAX, &rng),
                         profiles[p].max_us);
    }
}

static void jitter_of_1_is_anything_up_to_twice(void **state)
{
    (void)state;
    struct grpc_config config = { .reconnect_initial_backoff_us = 1000000,
                                  .reconnect_max_backoff_us = 1000000,
                                  .reconnect_multiplier = 1,
                                  .reconnect_jitter = 1 };
    struct rng rng;
    uint64_t low = UINT64_MAX;
    uint64_t high = 0;

    rng_init(&rng, 3);
    for (unsigned i = 1; i <= 10000; i++) {
        uint64_t us = grpc_reconnect_delay(&config, i, &rng);
        low = us < low ? us : low;
        high = us > high ? us : high;
    }
    assert_in_range(low, 0, 2000);
    assert_in_range(high, 1998000, 2000000);
}

static void names_are_those_of_the_metrics(void **state)
{
    (void)state;
    static const char *const names[GRPC_REASON_COUNT] = {
        "ok",
        "local",
        "no_connection",
        "committed",
        "no_policy",
        "disabled",
        "pushback",
        "code",
        "unsafe",
        "attempts",
        "throttled",
        "retry_overflow",
        "pushback_too_long",
        "deadline",
    };
    for (size_t i = 0; i < GRPC_REASON_COUNT; i++) {
        assert_string_equal(grpc_reason_name((enum grpc_reason)i), names[i]);
    }
    for (size_t i = 0; i < GRPC_CLASS_COUNT; i++) {
        const char *name = grpc_class_name((enum grpc_class)i);
        assert_int_equal(name[0], 'F');
        assert_int_equal(name[1], '0' + (int)i);
        assert_int_equal(name[2], '\0');
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_decision_is_as_the_tables_say),
        cmocka_unit_test(retry_attempts_come_after_the_first),
        cmocka_unit_test(backoff_is_a_fifth_around_the_exponential),
        cmocka_unit_test(backoff_has_two_ends),
        cmocka_unit_test(pushback_is_the_exact_delay_and_restarts_the_backoff),
        cmocka_unit_test(pushback_overrides_nothing),
        cmocka_unit_test(half_of_the_tokens_must_be_left),
        cmocka_unit_test(tokens_stay_between_none_and_all),
        cmocka_unit_test(a_committed_failure_is_charged),
        cmocka_unit_test(new_parameters_neither_open_nor_shut_the_gate),
        cmocka_unit_test(only_so_many_retries_at_once),
        cmocka_unit_test(attempts_of_the_client_take_from_ours),
        cmocka_unit_test(a_thousand_unsent_attempts_are_free),
        cmocka_unit_test(one_refusal_is_free_before_anything_was_processed),
        cmocka_unit_test(retries_can_be_off_or_transparent_only),
        cmocka_unit_test(reconnects_are_paced_by_both_profiles),
        cmocka_unit_test(jitter_of_1_is_anything_up_to_twice),
        cmocka_unit_test(names_are_those_of_the_metrics),
    };
    return cmocka_run_group_tests_name("grpc_retry", tests, NULL, NULL);
}
