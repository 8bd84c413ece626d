/* Random numbers: the right generator, the right bounds, no bias. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proxy/core/rng.h"

static void the_sequence_is_that_of_xoroshiro128starstar(void **state)
{
    (void)state;
    /* Reference values of the published generator, from the state 1, 2. */
    static const uint64_t expected[] = {
        UINT64_C(5760),
        UINT64_C(97769243520),
        UINT64_C(9706862127477703552),
        UINT64_C(9223447511460779954),
        UINT64_C(8358291023205304566),
        UINT64_C(15695619998649302768),
        UINT64_C(8517900938696309774),
        UINT64_C(16586480348202605369),
        UINT64_C(6959129367028440372),
        UINT64_C(16822147227405758281),
    };
    struct rng r = { .state = { 1, 2 } };

    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        assert_true(rng_next(&r) == expected[i]);
    }
}

static void the_state_is_seeded_by_splitmix64(void **state)
{
    (void)state;
    /* Reference values of the published generator for the seed 1234567. */
    struct rng r;
    rng_init(&r, 1234567);
    assert_true(r.state[0] == UINT64_C(6457827717110365317));
    assert_true(r.state[1] == UINT64_C(3203168211198807973));
}

static void a_seed_always_gives_the_same_numbers_and_another_seed_others(
    void **state)
{
    (void)state;
    struct rng a, b, c;
    rng_init(&a, 0);
    rng_init(&b, 0);
    rng_init(&c, 1);

    unsigned equal = 0;
    for (unsigned i = 0; i < 1000; i++) {
        uint64_t x = rng_next(&a);
        assert_true(x == rng_next(&b));
        equal += x == rng_next(&c);
    }
    assert_int_equal(equal, 0);
}

static void a_number_is_never_beyond_its_bound(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 7);

    assert_true(rng_upto(&r, 0) == 0);
    for (unsigned bits = 0; bits < 64; bits++) {
        uint64_t power = UINT64_C(1) << bits;
        const uint64_t bounds[] = { power - 1, power, power + power / 3 };
        for (size_t i = 0; i < 3; i++) {
            for (unsigned n = 0; n < 100; n++) {
                assert_true(rng_upto(&r, bounds[i]) <= bounds[i]);
            }
        }
    }
}

static void every_bit_below_the_bound_is_set_sometimes(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 8);

    for (unsigned bits = 1; bits < 64; bits++) {
        uint64_t power = UINT64_C(1) << bits;
        uint64_t seen = 0;
        for (unsigned n = 0; n < 200; n++) {
            seen |= rng_upto(&r, power);
        }
        assert_true((seen | power) == 2 * power - 1);
    }
}

static void every_number_up_to_the_bound_comes_equally_often(void **state)
{
    (void)state;
    enum {
        BOUND_MAX = 12,
        ROUNDS = 20000
    };

    for (uint64_t bound = 1; bound <= BOUND_MAX; bound++) {
        struct rng r;
        rng_init(&r, bound);
        unsigned seen[BOUND_MAX + 1] = { 0 };
        for (uint64_t i = 0; i < ROUNDS * (bound + 1); i++) {
            seen[rng_upto(&r, bound)]++;
        }
        /* The deviation of each count is about 141; a modulo of three bits
         * would be off by at least 5000. */
        for (uint64_t x = 0; x <= bound; x++) {
            assert_in_range(seen[x], ROUNDS - 1000, ROUNDS + 1000);
        }
    }
}

static void a_huge_bound_has_no_bias_either(void **state)
{
    (void)state;
    enum {
        ROUNDS = 90000
    };
    struct rng r;
    rng_init(&r, 3);

    /* Three quarters of the range: taking the remainder would give the lowest
     * third half of all numbers. */
    const uint64_t quarter = UINT64_C(1) << 62;
    unsigned lowest = 0;
    for (unsigned i = 0; i < ROUNDS; i++) {
        lowest += rng_upto(&r, 3 * quarter - 1) < quarter;
    }
    assert_in_range(lowest, ROUNDS / 3 - 1000, ROUNDS / 3 + 1000);

    /* The whole range: every bit is set about half of the time. */
    unsigned set[64] = { 0 };
    for (unsigned i = 0; i < ROUNDS; i++) {
        uint64_t x = rng_upto(&r, UINT64_MAX);
        for (unsigned bit = 0; bit < 64; bit++) {
            set[bit] += (unsigned)(x >> bit) & 1;
        }
    }
    for (unsigned bit = 0; bit < 64; bit++) {
        assert_in_range(set[bit], ROUNDS / 2 - 1000, ROUNDS / 2 + 1000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_sequence_is_that_of_xoroshiro128starstar),
        cmocka_unit_test(the_state_is_seeded_by_splitmix64),
        cmocka_unit_test(
            a_seed_always_gives_the_same_numbers_and_another_seed_others),
        cmocka_unit_test(a_number_is_never_beyond_its_bound),
        cmocka_unit_test(every_bit_below_the_bound_is_set_sometimes),
        cmocka_unit_test(every_number_up_to_the_bound_comes_equally_often),
        cmocka_unit_test(a_huge_bound_has_no_bias_either),
    };
    return cmocka_run_group_tests_name("rng", tests, NULL, NULL);
}
