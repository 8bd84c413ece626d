/* The seven kinds of backoff against the table of redis.md §5. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proxy/core/backoff.h"

enum {
    BASE_US = 8000,
    CAP_US = 512000,
    KINDS = 7,
    ROUNDS = 20000
};

/* One delay after f failures, with base and cap as they are by default. */
static uint64_t delay(enum backoff_kind kind, uint32_t f, struct rng *r)
{
    struct backoff b = { .failures = f - 1 };
    return backoff_next(&b, kind, BASE_US, CAP_US, r);
}

/* min(cap, base·2^f), by doubling. */
static uint64_t exponential(uint32_t f)
{
    uint64_t us = BASE_US;
    for (uint32_t i = 0; i < f && us < CAP_US; i++) {
        us += us;
    }
    return us < CAP_US ? us : CAP_US;
}

static void constant_waits_the_base_each_time(void **state)
{
    (void)state;
    struct rng r = { { 1, 2 } };
    struct backoff b = { 0 };
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(backoff_next(&b, BACKOFF_CONSTANT, BASE_US, CAP_US,
                                      &r),
                         BASE_US);
    }
    assert_int_equal(b.failures, 100);
}

static void none_does_not_wait(void **state)
{
    (void)state;
    struct rng r = { { 1, 2 } };
    struct backoff b = { 0 };
    for (unsigned i = 0; i < 100; i++) {
        assert_int_equal(backoff_next(&b, BACKOFF_NONE, BASE_US, CAP_US, &r),
                         0);
    }
}

static void exponential_doubles_from_twice_the_base_to_the_cap(void **state)
{
    (void)state;
    static const uint64_t expected_us[] = {
        16000, 32000, 64000, 128000, 256000, 512000, 512000, 512000,
    };
    struct rng r = { { 1, 2 } };
    struct backoff b = { 0 };
    for (size_t i = 0; i < sizeof expected_us / sizeof *expected_us; i++) {
        assert_int_equal(backoff_next(&b, BACKOFF_EXPONENTIAL, BASE_US, CAP_US,
                                      &r),
                         expected_us[i]);
    }
}

static void a_success_starts_the_run_again(void **state)
{
    (void)state;
    struct rng r = { { 1, 2 } };
    struct backoff b = { 0 };
    for (unsigned i = 0; i < 5; i++) {
        backoff_next(&b, BACKOFF_EXPONENTIAL, BASE_US, CAP_US, &r);
        backoff_next(&b, BACKOFF_DECORRELATED_JITTER, BASE_US, CAP_US, &r);
    }
    backoff_reset(&b);
    assert_int_equal(b.previous_us, 0);
    assert_int_equal(backoff_next(&b, BACKOFF_EXPONENTIAL, BASE_US, CAP_US, &r),
                     2 * BASE_US);
}

/* Draw many delays of one kind and compare their least, mean and greatest with
 * those of a uniform distribution, to a hundredth of its width. */
static void assert_uniform(enum backoff_kind kind,
                           uint32_t f,
                           uint64_t low,
                           uint64_t high)
{
    struct rng r;
    rng_init(&r, f);
    uint64_t least = UINT64_MAX, greatest = 0, sum = 0;
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t us = delay(kind, f, &r);
        least = us < least ? us : least;
        greatest = us > greatest ? us : greatest;
        sum += us;
    }
    uint64_t slack = (high - low) / 100;
    uint64_t middle = low + (high - low) / 2;
    assert_in_range(least, low, low + slack);
    assert_in_range(greatest, high - slack, high);
    assert_in_range(sum / ROUNDS, middle - slack, middle + slack);
}

static void full_jitter_is_uniform_from_0_to_the_exponential(void **state)
{
    (void)state;
    for (uint32_t f = 1; f <= 10; f++) {
        assert_uniform(BACKOFF_FULL_JITTER, f, 0, exponential(f));
    }
}

static void equal_jitter_is_uniform_over_the_upper_half(void **state)
{
    (void)state;
    for (uint32_t f = 1; f <= 10; f++) {
        assert_uniform(BACKOFF_EQUAL_JITTER, f, exponential(f) / 2,
                       exponential(f));
    }
}

static void the_default_is_uniform_while_below_the_cap(void **state)
{
    (void)state;
    for (uint32_t f = 1; f <= 6; f++) {
        assert_uniform(BACKOFF_EXPONENTIAL_WITH_JITTER, f, 0, exponential(f));
    }
}

/* min(cap, U(0,1)·base·2^f) is not U(0,1)·min(cap, base·2^f): with base·2^f
 * four times the cap, three of four delays are the cap. */
static void the_default_cuts_after_the_jitter(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 1);
    unsigned at_cap = 0;
    for (unsigned i = 0; i < ROUNDS; i++) {
        at_cap += delay(BACKOFF_EXPONENTIAL_WITH_JITTER, 8, &r) == CAP_US;
    }
    assert_in_range(at_cap, ROUNDS * 74 / 100, ROUNDS * 76 / 100);
}

static void decorrelated_jitter_goes_from_the_base_to_three_times_the_last(
    void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 1);
    bool reached_cap = false;

    for (unsigned run = 0; run < 1000; run++) {
        struct backoff b = { 0 };
        uint64_t previous = 0;
        for (unsigned i = 0; i < 30; i++) {
            uint64_t us = backoff_next(&b, BACKOFF_DECORRELATED_JITTER, BASE_US,
                                       CAP_US, &r);
            uint64_t high = 3 * previous > BASE_US ? 3 * previous : BASE_US;
            high = high < CAP_US ? high : CAP_US;
            assert_in_range(us, BASE_US, high);
            assert_int_equal(us, b.previous_us);
            reached_cap |= us == CAP_US;
            previous = us;
        }
    }
    assert_true(reached_cap);

    /* And it is spread over all of that. */
    uint64_t sum = 0;
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct backoff b = { .failures = 1, .previous_us = 100000 };
        sum +=
            backoff_next(&b, BACKOFF_DECORRELATED_JITTER, BASE_US, CAP_US, &r);
    }
    uint64_t middle = (BASE_US + 300000) / 2;
    assert_in_range(sum / ROUNDS, middle - 3000, middle + 3000);
}

static void no_number_overflows_and_no_delay_is_beyond_the_cap(void **state)
{
    (void)state;
    static const uint64_t sizes[] = { 0,
                                      1,
                                      2,
                                      3,
                                      8000,
                                      512000,
                                      UINT32_MAX,
                                      UINT64_C(1) << 62,
                                      UINT64_C(1) << 63,
                                      UINT64_MAX - 1,
                                      UINT64_MAX };
    static const uint32_t failures[] = {
        0, 1, 2, 30, 31, 32, 61, 62, 63, 64, 65, UINT32_MAX - 1, UINT32_MAX
    };
    enum {
        SIZES = sizeof sizes / sizeof *sizes
    };
    struct rng r;
    rng_init(&r, 1);

    for (size_t i = 0; i < (size_t)KINDS * SIZES * SIZES * SIZES; i++) {
        enum backoff_kind kind = (enum backoff_kind)(i % KINDS);
        uint64_t base = sizes[i / KINDS % SIZES];
        uint64_t cap = sizes[i / KINDS / SIZES % SIZES];
        uint64_t previous = sizes[i / KINDS / SIZES / SIZES];
        for (size_t f = 0; f < sizeof failures / sizeof *failures; f++) {
            struct backoff b = { .failures = failures[f],
                                 .previous_us = previous };
            uint64_t us = backoff_next(&b, kind, base, cap, &r);
            assert_true(us <= cap);
            assert_true(b.previous_us <= cap || b.previous_us == previous);
            assert_true(b.failures > failures[f] || b.failures == UINT32_MAX);
        }
    }
}

/* For any f the exact value is that of long doubling, not of a shift that lost
 * its upper bits. */
static void the_exponential_is_exact_for_every_count_of_failures(void **state)
{
    (void)state;
    struct rng r = { { 1, 2 } };
    static const uint64_t bases[] = { 1, 3, 8000, (UINT64_C(1) << 40) + 1 };
    static const uint64_t caps[] = { 1, 512000, UINT64_MAX / 2, UINT64_MAX };

    for (size_t i = 0; i < 16; i++) {
        uint64_t base = bases[i % 4];
        uint64_t cap = caps[i / 4];
        struct backoff b = { 0 };
        uint64_t expected = base;
        for (unsigned f = 1; f <= 200; f++) {
            expected = expected > UINT64_MAX / 2 ? UINT64_MAX : expected * 2;
            uint64_t us = backoff_next(&b, BACKOFF_EXPONENTIAL, base, cap, &r);
            assert_true(us == (expected < cap ? expected : cap));
        }
    }
}

static void three_times_the_last_delay_does_not_overflow(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 1);

    /* 3·2^63 is 2^63 in 64 bits: half of all delays are beyond that. */
    const uint64_t half = UINT64_C(1) << 63;
    unsigned beyond = 0;
    for (unsigned i = 0; i < ROUNDS; i++) {
        struct backoff b = { .failures = 1, .previous_us = half };
        beyond += backoff_next(&b, BACKOFF_DECORRELATED_JITTER, 1, UINT64_MAX,
                               &r) > half;
    }
    assert_in_range(beyond, ROUNDS * 48 / 100, ROUNDS * 52 / 100);
}

static void after_very_many_failures_the_default_waits_the_cap(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 1);
    for (unsigned i = 0; i < 1000; i++) {
        assert_int_equal(delay(BACKOFF_EXPONENTIAL_WITH_JITTER, UINT32_MAX, &r),
                         CAP_US);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(constant_waits_the_base_each_time),
        cmocka_unit_test(none_does_not_wait),
        cmocka_unit_test(exponential_doubles_from_twice_the_base_to_the_cap),
        cmocka_unit_test(a_success_starts_the_run_again),
        cmocka_unit_test(full_jitter_is_uniform_from_0_to_the_exponential),
        cmocka_unit_test(equal_jitter_is_uniform_over_the_upper_half),
        cmocka_unit_test(the_default_is_uniform_while_below_the_cap),
        cmocka_unit_test(the_default_cuts_after_the_jitter),
        cmocka_unit_test(
            decorrelated_jitter_goes_from_the_base_to_three_times_the_last),
        cmocka_unit_test(no_number_overflows_and_no_delay_is_beyond_the_cap),
        cmocka_unit_test(the_exponential_is_exact_for_every_count_of_failures),
        cmocka_unit_test(three_times_the_last_delay_does_not_overflow),
        cmocka_unit_test(after_very_many_failures_the_default_waits_the_cap),
    };
    return cmocka_run_group_tests_name("backoff", tests, NULL, NULL);
}
