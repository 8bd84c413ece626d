/* The rule book of retries over its whole domain: every combination of the
 * facts, with numbers at and around each boundary. What is expected is stated
 * as properties, not as a second copy of the code.
 *
 * How each property fails when the code is broken on purpose (each was tried):
 *
 * - retry_exactly_when_nothing_speaks_against_it: a condition dropped, turned
 *   round or asked of another outcome; `>` for `>=` at the replays or at the
 *   deadline; retries cut to 32 bits; now + delay that overflows.
 * - the_reason_told_is_true_and_no_earlier_one_is: the budget asked before the
 *   class; GIVE_UP_BUDGET told when the replays are used up.
 * - outcomes_ask_only_what_concerns_them: NOT_SENT that needs to be listed;
 *   NOT_APPLIED that pays from the budget.
 * - more_permission_never_takes_a_retry_away: the budget turned round.
 * - retry_off_disables_everything: NOT_SENT that is tried again all the same.
 * - retries_0_disables_replays_and_nothing_else: `> 0` for `>= 0`, which makes
 *   0 mean no limit.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/core/retry.h"

static const uint32_t replays[] = { 0, 1, 2, 3, 4, UINT32_MAX - 1, UINT32_MAX };
static const int64_t replays_max[] = {
    -1, 0, 1, 3, UINT32_MAX - 1, UINT32_MAX, (int64_t)UINT32_MAX + 1, INT64_MAX
};
static const uint64_t times[] = { 0,
                                  1,
                                  999,
                                  1000,
                                  1001,
                                  UINT64_MAX / 2,
                                  UINT64_MAX / 2 + 1,
                                  UINT64_MAX - 1,
                                  UINT64_MAX };

enum {
    FLAGS = 16,
    REPLAYS = sizeof replays / sizeof *replays,
    MAXES = sizeof replays_max / sizeof *replays_max,
    TIMES = sizeof times / sizeof *times,
    DOMAIN_SIZE =
        OUTCOME_COUNT * FLAGS * REPLAYS * MAXES * TIMES * TIMES * TIMES
};

/* The last digit of *i in this base; *i loses it. */
static size_t digit(size_t *i, size_t base)
{
    size_t d = *i % base;
    *i /= base;
    return d;
}

/* The ith input of the domain. */
static struct retry_input input_at(size_t i)
{
    struct retry_input in = { 0 };
    in.outcome = (enum outcome)digit(&i, OUTCOME_COUNT);
    in.retry_enabled = digit(&i, 2) == 1;
    in.replay_allowed = digit(&i, 2) == 1;
    in.listed = digit(&i, 2) == 1;
    in.budget_left = digit(&i, 2) == 1;
    in.replays = replays[digit(&i, REPLAYS)];
    in.replays_max = replays_max[digit(&i, MAXES)];
    in.now_us = times[digit(&i, TIMES)];
    in.deadline_us = times[digit(&i, TIMES)];
    in.backoff_us = times[digit(&i, TIMES)];
    return in;
}

/* The facts of the rule book, one for each reason to give up. */

static bool is_switched_off(const struct retry_input *in)
{
    return !in->retry_enabled ||
           (in->outcome != OUTCOME_NOT_SENT && !in->listed);
}

static bool is_unsafe(const struct retry_input *in)
{
    return in->outcome == OUTCOME_AMBIGUOUS && !in->replay_allowed;
}

static bool is_tried_enough(const struct retry_input *in)
{
    bool is_limited = in->replays_max != -1;
    return in->outcome == OUTCOME_AMBIGUOUS && is_limited &&
           !(in->replays < in->replays_max);
}

static bool is_too_expensive(const struct retry_input *in)
{
    return in->outcome == OUTCOME_AMBIGUOUS && !in->budget_left;
}

static bool is_too_late(const struct retry_input *in)
{
    uint64_t end_us = in->now_us + in->backoff_us;
    bool is_beyond_all_time = end_us < in->now_us;
    return is_beyond_all_time || end_us >= in->deadline_us;
}

/* In the order in which they are told. */
static const struct {
    enum verdict verdict;
    bool (*is_true)(const struct retry_input *in);
} reasons[] = {
    { GIVE_UP_POLICY, is_switched_off },   { GIVE_UP_UNSAFE, is_unsafe },
    { GIVE_UP_ATTEMPTS, is_tried_enough }, { GIVE_UP_BUDGET, is_too_expensive },
    { GIVE_UP_DEADLINE, is_too_late },
};

enum {
    REASONS = sizeof reasons / sizeof *reasons
};

static void retry_exactly_when_nothing_speaks_against_it(void **state)
{
    (void)state;
    for (size_t i = 0; i < DOMAIN_SIZE; i++) {
        struct retry_input in = input_at(i);
        bool is_against = false;
        for (size_t r = 0; r < REASONS; r++) {
            is_against |= reasons[r].is_true(&in);
        }
        enum verdict verdict = retry_decide(&in);
        assert_int_equal(verdict_is_retry(verdict), !is_against);
        if (!is_against) {
            assert_int_equal(verdict == RETRY_NOW, in.backoff_us == 0);
        }
    }
}

static void the_reason_told_is_true_and_no_earlier_one_is(void **state)
{
    (void)state;
    for (size_t i = 0; i < DOMAIN_SIZE; i++) {
        struct retry_input in = input_at(i);
        enum verdict verdict = retry_decide(&in);
        if (verdict_is_retry(verdict)) {
            continue;
        }
        size_t r = 0;
        while (r < REASONS && reasons[r].verdict != verdict) {
            assert_false(reasons[r].is_true(&in));
            r++;
        }
        assert_true(r < REASONS && reasons[r].is_true(&in));
    }
}

static void outcomes_ask_only_what_concerns_them(void **state)
{
    (void)state;
    for (size_t i = 0; i < DOMAIN_SIZE; i++) {
        struct retry_input in = input_at(i);
        struct retry_input other = in;
        if (in.outcome == OUTCOME_AMBIGUOUS) {
            continue;
        }
        other.replay_allowed = !in.replay_allowed;
        other.budget_left = !in.budget_left;
        other.replays = ~in.replays;
        other.replays_max = in.replays_max == -1 ? 0 : -1;
        if (in.outcome == OUTCOME_NOT_SENT) {
            other.listed = !in.listed;
        }
        assert_int_equal(retry_decide(&in), retry_decide(&other));
    }
}

static void more_permission_never_takes_a_retry_away(void **state)
{
    (void)state;
    for (size_t i = 0; i < DOMAIN_SIZE; i++) {
        struct retry_input in = input_at(i);
        if (!verdict_is_retry(retry_decide(&in))) {
            continue;
        }
        in.replay_allowed = true;
        in.listed = true;
        in.budget_left = true;
        in.deadline_us = UINT64_MAX;
        in.replays /= 2;
        in.now_us /= 2;
        in.backoff_us /= 2;
        assert_true(verdict_is_retry(retry_decide(&in)));
        in.replays_max = -1;
        assert_true(verdict_is_retry(retry_decide(&in)));
    }
}

static void retry_off_disables_everything(void **state)
{
    (void)state;
    for (size_t i = 0; i < DOMAIN_SIZE; i++) {
        struct retry_input in = input_at(i);
        in.retry_enabled = false;
        assert_int_equal(retry_decide(&in), GIVE_UP_POLICY);
    }
}

static void retries_0_disables_replays_and_nothing_else(void **state)
{
    (void)state;
    for (size_t i = 0; i < DOMAIN_SIZE; i++) {
        struct retry_input in = input_at(i);
        in.replays_max = 0;
        enum verdict verdict = retry_decide(&in);
        if (in.outcome == OUTCOME_AMBIGUOUS) {
            assert_false(verdict_is_retry(verdict));
        } else {
            assert_int_not_equal(verdict, GIVE_UP_ATTEMPTS);
        }
    }
}

static void retries_minus_1_never_gives_up_for_their_number(void **state)
{
    (void)state;
    for (size_t i = 0; i < DOMAIN_SIZE; i++) {
        struct retry_input in = input_at(i);
        in.replays_max = -1;
        assert_int_not_equal(retry_decide(&in), GIVE_UP_ATTEMPTS);
    }
}

/* The default policy, told as a story. */
static void three_replays_are_paid_for_and_the_fourth_is_refused(void **state)
{
    (void)state;
    struct retry_input in = {
        .outcome = OUTCOME_AMBIGUOUS,
        .retry_enabled = true,
        .replay_allowed = true,
        .listed = true,
        .budget_left = true,
        .replays_max = 3,
        .now_us = 5000,
        .deadline_us = 10005000,
    };
    assert_int_equal(retry_decide(&in), RETRY_NOW);
    in.backoff_us = 9999999;
    in.replays = 2;
    assert_int_equal(retry_decide(&in), RETRY_LATER);
    in.backoff_us = 10000000; /* the deadline itself is too late */
    assert_int_equal(retry_decide(&in), GIVE_UP_DEADLINE);
    in.replays = 3;
    assert_int_equal(retry_decide(&in), GIVE_UP_ATTEMPTS);
    in.outcome = OUTCOME_NOT_APPLIED; /* a restart outlives three quick tries */
    in.backoff_us = 512000;
    assert_int_equal(retry_decide(&in), RETRY_LATER);
}

/* So that no property above is true only because its case never comes. */
static void the_domain_has_every_verdict_an_outcome_can_get(void **state)
{
    (void)state;
    size_t seen[OUTCOME_COUNT][VERDICT_COUNT] = { { 0 } };
    for (size_t i = 0; i < DOMAIN_SIZE; i++) {
        struct retry_input in = input_at(i);
        seen[in.outcome][retry_decide(&in)]++;
    }
    for (size_t v = 0; v < VERDICT_COUNT; v++) {
        bool is_of_replays =
            v == GIVE_UP_UNSAFE || v == GIVE_UP_ATTEMPTS || v == GIVE_UP_BUDGET;
        assert_true(seen[OUTCOME_AMBIGUOUS][v] > 0);
        assert_int_equal(seen[OUTCOME_NOT_SENT][v] > 0, !is_of_replays);
        assert_int_equal(seen[OUTCOME_NOT_APPLIED][v] > 0, !is_of_replays);
    }
}

static void every_name_is_its_own(void **state)
{
    (void)state;
    for (size_t a = 0; a < VERDICT_COUNT; a++) {
        const char *name = verdict_name((enum verdict)a);
        bool says_retry = strncmp(name, "retry_", 6) == 0;
        bool says_give_up = strncmp(name, "give_up_", 8) == 0;
        assert_int_equal(says_retry, verdict_is_retry((enum verdict)a));
        assert_int_equal(says_give_up, !says_retry);
        for (size_t b = 0; b < a; b++) {
            assert_string_not_equal(name, verdict_name((enum verdict)b));
        }
    }
    assert_string_equal(outcome_name(OUTCOME_NOT_SENT), "not_sent");
    assert_string_equal(outcome_name(OUTCOME_NOT_APPLIED), "not_applied");
    assert_string_equal(outcome_name(OUTCOME_AMBIGUOUS), "ambiguous");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(retry_exactly_when_nothing_speaks_against_it),
        cmocka_unit_test(the_reason_told_is_true_and_no_earlier_one_is),
        cmocka_unit_test(outcomes_ask_only_what_concerns_them),
        cmocka_unit_test(more_permission_never_takes_a_retry_away),
        cmocka_unit_test(retry_off_disables_everything),
        cmocka_unit_test(retries_0_disables_replays_and_nothing_else),
        cmocka_unit_test(retries_minus_1_never_gives_up_for_their_number),
        cmocka_unit_test(three_replays_are_paid_for_and_the_fourth_is_refused),
        cmocka_unit_test(the_domain_has_every_verdict_an_outcome_can_get),
        cmocka_unit_test(every_name_is_its_own),
    };
    return cmocka_run_group_tests_name("retry", tests, NULL, NULL);
}
