/* The retry budget: exact, driftless, bounded (redis.md §5, "Budget"). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proxy/core/budget.h"
#include "proxy/core/rng.h"

enum {
    S_US = 1000000,
    DRAIN_MAX = 1000000, /* more than any budget here can pay */
};

/* How many retries b pays for at now_us. */
static unsigned drain(struct budget *b, uint64_t now_us)
{
    unsigned n = 0;
    while (n < DRAIN_MAX && budget_withdraw(b, now_us)) {
        n++;
    }
    assert_true(n < DRAIN_MAX);
    return n;
}

static void it_starts_with_the_whole_burst(void **state)
{
    (void)state;
    struct budget b;
    budget_init(&b, 200, 0, 7, 42);
    assert_int_equal(drain(&b, 42), 7);
}

static void a_ratio_of_20_percent_pays_for_one_retry_in_five_requests(
    void **state)
{
    (void)state;
    struct budget b;
    budget_init(&b, 200, 0, 10, 0);
    drain(&b, 0);

    for (unsigned round = 0; round < 1000; round++) {
        for (unsigned i = 0; i < 4; i++) {
            budget_deposit(&b);
            assert_false(budget_withdraw(&b, 0));
        }
        budget_deposit(&b);
        assert_true(budget_withdraw(&b, 0));
    }
}

static void a_ratio_is_exact_to_a_thousandth(void **state)
{
    (void)state;
    for (uint32_t permille = 0; permille <= 3000; permille += 7) {
        struct budget b;
        budget_init(&b, permille, 0, 10, 0);
        drain(&b, 0);

        uint64_t paid = 0;
        for (uint64_t requests = 1; requests <= 1000; requests++) {
            budget_deposit(&b);
            paid += drain(&b, 0);
            assert_int_equal(paid, requests * permille / 1000);
        }
    }
}

static void what_is_refused_costs_nothing(void **state)
{
    (void)state;
    struct budget b;
    budget_init(&b, 999, 0, 1, 0);
    assert_true(budget_withdraw(&b, 0));
    budget_deposit(&b);

    for (unsigned i = 0; i < 10; i++) {
        assert_false(budget_left(&b, 0));
        assert_false(budget_withdraw(&b, 0));
    }
    assert_int_equal(b.tokens, 999);
}

static void asking_says_what_withdrawing_would_and_takes_nothing(void **state)
{
    (void)state;
    struct budget b;
    budget_init(&b, 100, 3, 4, 0);
    struct rng r;
    rng_init(&r, 1);
    uint64_t now_us = 0;

    for (unsigned i = 0; i < 20000; i++) {
        now_us += rng_upto(&r, 300000);
        struct budget other = b;
        bool left = budget_left(&b, now_us);
        bool again = budget_left(&b, now_us);
        assert_int_equal(left, again);
        assert_int_equal(left, budget_withdraw(&other, now_us));
        if (rng_upto(&r, 1) == 0) {
            assert_int_equal(left, budget_withdraw(&b, now_us));
        }
    }
}

static void the_share_of_time_does_not_depend_on_how_often_it_is_asked(
    void **state)
{
    (void)state;
    static const uint64_t gaps_us[] = { 0, 1, 7, 99, 999, 1000, 1001, 33333 };
    struct rng r;
    rng_init(&r, 2);

    for (size_t i = 0; i < sizeof gaps_us / sizeof *gaps_us; i++) {
        for (uint32_t per_s = 1; per_s <= 1000; per_s = per_s * 3 + 1) {
            struct budget b;
            const uint64_t start_us = 123456789;
            budget_init(&b, 0, per_s, 1000, start_us);
            drain(&b, start_us);

            uint64_t now_us = start_us;
            uint64_t paid = 0;
            for (unsigned n = 0; n < 3000; n++) {
                now_us += gaps_us[i] + rng_upto(&r, gaps_us[i]);
                paid += drain(&b, now_us);
                uint64_t ms = (now_us - start_us) / 1000;
                assert_int_equal(paid, ms * per_s / 1000);
            }
        }
    }
}

static void it_is_never_fuller_than_the_burst(void **state)
{
    (void)state;
    struct budget b;
    budget_init(&b, 3000, 10, 5, 0);

    for (unsigned i = 0; i < 100; i++) {
        budget_deposit(&b);
    }
    assert_int_equal(b.tokens, 5000);
    assert_true(budget_left(&b, 3600 * (uint64_t)S_US));
    assert_int_equal(drain(&b, 3600 * (uint64_t)S_US), 5);
}

static void the_end_of_time_and_the_largest_numbers_do_not_overflow(
    void **state)
{
    (void)state;
    struct budget b;
    budget_init(&b, UINT32_MAX, UINT32_MAX, UINT32_MAX, 0);
    const uint64_t full = (uint64_t)UINT32_MAX * 1000;
    assert_true(b.tokens == full);

    assert_true(budget_withdraw(&b, UINT64_MAX));
    assert_true(b.tokens == full - 1000);
    budget_deposit(&b);
    assert_true(b.tokens == full);

    b.tokens = 0;
    b.filled_us = 0;
    assert_true(budget_withdraw(&b, UINT64_MAX));
    assert_true(b.tokens == full - 1000);

    /* 2^33 ms of 2^31 thousandths each: 64 bits would be all zero. */
    budget_init(&b, 0, UINT32_C(1) << 31, 5, 0);
    drain(&b, 0);
    assert_int_equal(drain(&b, (UINT64_C(1) << 33) * 1000), 5);
}

static void without_burst_or_income_there_is_no_retry(void **state)
{
    (void)state;
    struct budget b;
    budget_init(&b, 1000, 1000, 0, 0);
    budget_deposit(&b);
    assert_false(budget_withdraw(&b, 10 * (uint64_t)S_US));

    budget_init(&b, 0, 0, 1, 0);
    assert_true(budget_withdraw(&b, 0));
    budget_deposit(&b);
    assert_false(budget_withdraw(&b, UINT64_MAX));
}

static void it_does_what_a_bucket_filled_each_millisecond_does(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 3);

    for (unsigned round = 0; round < 200; round++) {
        uint64_t now_us = rng_upto(&r, UINT32_MAX);
        uint32_t ratio = (uint32_t)rng_upto(&r, 1500);
        uint32_t per_s = (uint32_t)rng_upto(&r, 50);
        uint32_t burst = (uint32_t)rng_upto(&r, 20);
        struct budget b;
        budget_init(&b, ratio, per_s, burst, now_us);

        const uint64_t tokens_max = burst * UINT64_C(1000);
        uint64_t model = tokens_max;
        uint64_t next_ms_us = now_us + 1000;
        for (unsigned i = 0; i < 300; i++) {
            now_us += rng_upto(&r, 40000);
            for (; next_ms_us <= now_us; next_ms_us += 1000) {
                model += per_s;
                model = model > tokens_max ? tokens_max : model;
            }
            if (rng_upto(&r, 2) > 0) {
                budget_deposit(&b);
                model += ratio;
                model = model > tokens_max ? tokens_max : model;
            } else {
                bool paid = model >= 1000;
                model -= paid ? 1000 : 0;
                assert_int_equal(budget_withdraw(&b, now_us), paid);
                assert_int_equal(b.tokens, model);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_starts_with_the_whole_burst),
        cmocka_unit_test(
            a_ratio_of_20_percent_pays_for_one_retry_in_five_requests),
        cmocka_unit_test(a_ratio_is_exact_to_a_thousandth),
        cmocka_unit_test(what_is_refused_costs_nothing),
        cmocka_unit_test(asking_says_what_withdrawing_would_and_takes_nothing),
        cmocka_unit_test(
            the_share_of_time_does_not_depend_on_how_often_it_is_asked),
        cmocka_unit_test(it_is_never_fuller_than_the_burst),
        cmocka_unit_test(
            the_end_of_time_and_the_largest_numbers_do_not_overflow),
        cmocka_unit_test(without_burst_or_income_there_is_no_retry),
        cmocka_unit_test(it_does_what_a_bucket_filled_each_millisecond_does),
    };
    return cmocka_run_group_tests_name("budget", tests, NULL, NULL);
}
