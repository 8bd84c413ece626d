/* The heap of timers against a plain list, and with memory running out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "failing_allocator.h"
#include "proxy/core/rng.h"
#include "proxy/core/timers.h"

enum {
    NODES = 60
};

struct fixture {
    struct failing failing;
    struct memory *memory;
    struct timers timers;
    struct timer nodes[NODES];
};

static void fixture_init(struct fixture *f)
{
    *f = (struct fixture){ .failing = { .left = SIZE_MAX } };
    struct allocator allocator = failing_allocator(&f->failing);
    f->memory = memory_new(&allocator);
    assert_non_null(f->memory);
    timers_init(&f->timers, f->memory);
    for (uint32_t i = 0; i < NODES; i++) {
        f->nodes[i].kind = i;
    }
}

static void fixture_fini(struct fixture *f)
{
    timers_fini(&f->timers);
    memory_free(f->memory);
    assert_int_equal(f->failing.live, 0);
}

/* Each node knows its place, and no node is earlier than its parent. */
static void assert_heap(const struct timers *t)
{
    for (uint32_t i = 0; i < t->n; i++) {
        assert_int_equal(t->heap[i]->place, i + 1);
        assert_true(i == 0 || t->heap[(i - 1) / 2]->at_us <= t->heap[i]->at_us);
    }
}

static void without_timers_there_is_nothing_to_wait_for(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    assert_true(timers_next_us(&f.timers) == UINT64_MAX);
    assert_null(timers_pop(&f.timers, UINT64_MAX));
    timer_clear(&f.timers, &f.nodes[0]); /* not set: nothing happens */
    fixture_fini(&f);
}

static void a_timer_comes_at_its_time_and_is_off_then(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    assert_true(timers_reserve(&f.timers, 1));

    timer_set(&f.timers, &f.nodes[0], 1000);
    assert_true(timers_next_us(&f.timers) == 1000);
    assert_null(timers_pop(&f.timers, 999));
    assert_ptr_equal(timers_pop(&f.timers, 1000), &f.nodes[0]);
    assert_int_equal(f.nodes[0].place, TIMER_OFF);
    assert_null(timers_pop(&f.timers, UINT64_MAX));

    timer_set(&f.timers, &f.nodes[0], 0);
    assert_ptr_equal(timers_pop(&f.timers, 0), &f.nodes[0]);
    fixture_fini(&f);
}

static void a_timer_that_is_set_again_moves(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    assert_true(timers_reserve(&f.timers, 3));

    for (uint32_t i = 0; i < 3; i++) {
        timer_set(&f.timers, &f.nodes[i], 10 + i);
    }
    timer_set(&f.timers, &f.nodes[0], 100);
    timer_set(&f.timers, &f.nodes[2], 5);
    assert_int_equal(f.timers.n, 3);
    assert_ptr_equal(timers_pop(&f.timers, 200), &f.nodes[2]);
    assert_ptr_equal(timers_pop(&f.timers, 200), &f.nodes[1]);
    assert_ptr_equal(timers_pop(&f.timers, 200), &f.nodes[0]);
    fixture_fini(&f);
}

/* Reference: times[i] is when node i is due, UINT64_MAX when it is off. */
static uint64_t earliest(const uint64_t *times)
{
    uint64_t least = UINT64_MAX;
    for (size_t i = 0; i < NODES; i++) {
        least = times[i] < least ? times[i] : least;
    }
    return least;
}

static void any_sequence_of_calls_does_what_a_plain_list_does(void **state)
{
    (void)state;
    struct fixture f;
    struct rng r;
    rng_init(&r, 1);

    for (unsigned round = 0; round < 50; round++) {
        fixture_init(&f);
        assert_true(timers_reserve(&f.timers, NODES));
        uint64_t times[NODES];
        for (size_t i = 0; i < NODES; i++) {
            times[i] = UINT64_MAX;
        }
        uint64_t span_us = 1 + rng_upto(&r, 1000); /* few: many ties */
        for (unsigned n = 0; n < 2000; n++) {
            size_t i = rng_upto(&r, NODES - 1);
            switch (rng_upto(&r, 5)) {
            case 0:
            case 1:
            case 2:
                times[i] = rng_upto(&r, span_us);
                timer_set(&f.timers, &f.nodes[i], times[i]);
                break;
            case 3:
                times[i] = UINT64_MAX;
                timer_clear(&f.timers, &f.nodes[i]);
                break;
            default: {
                uint64_t now_us = rng_upto(&r, span_us);
                struct timer *due = timers_pop(&f.timers, now_us);
                assert_int_equal(due != NULL, earliest(times) <= now_us);
                if (due != NULL) {
                    assert_true(times[due->kind] == earliest(times));
                    times[due->kind] = UINT64_MAX;
                }
                break;
            }
            }
            assert_true(timers_next_us(&f.timers) == earliest(times));
            for (size_t k = 0; k < NODES; k++) {
                assert_int_equal(f.nodes[k].place != TIMER_OFF,
                                 times[k] != UINT64_MAX);
            }
            assert_heap(&f.timers);
        }
        fixture_fini(&f);
    }
}

/* The same calls for nodes that lie the other way round in memory: if ties
 * were broken by addresses, a simulation could not be repeated. */
static void ties_do_not_depend_on_where_the_nodes_are(void **state)
{
    (void)state;
    struct fixture a, b;
    fixture_init(&a);
    fixture_init(&b);
    assert_true(timers_reserve(&a.timers, NODES));
    assert_true(timers_reserve(&b.timers, NODES));
    struct rng r;
    rng_init(&r, 5);

    for (uint32_t i = 0; i < NODES; i++) {
        b.nodes[NODES - 1 - i].kind = i;
    }
    for (unsigned n = 0; n < 20000; n++) {
        uint32_t i = (uint32_t)rng_upto(&r, NODES - 1);
        uint64_t at_us = rng_upto(&r, 3);
        if (rng_upto(&r, 2) > 0) {
            timer_set(&a.timers, &a.nodes[i], at_us);
            timer_set(&b.timers, &b.nodes[NODES - 1 - i], at_us);
            continue;
        }
        struct timer *due_a = timers_pop(&a.timers, at_us);
        struct timer *due_b = timers_pop(&b.timers, at_us);
        assert_int_equal(due_a != NULL, due_b != NULL);
        if (due_a != NULL) {
            assert_int_equal(due_a->kind, due_b->kind);
        }
    }
    fixture_fini(&a);
    fixture_fini(&b);
}

static void room_that_is_reserved_needs_no_memory_later(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    assert_true(timers_reserve(&f.timers, NODES));
    f.failing.left = 0;

    assert_true(timers_reserve(&f.timers, NODES));
    for (uint32_t i = 0; i < NODES; i++) {
        timer_set(&f.timers, &f.nodes[i], NODES - i);
    }
    for (uint32_t i = NODES; i > 0; i--) {
        assert_ptr_equal(timers_pop(&f.timers, NODES), &f.nodes[i - 1]);
    }
    fixture_fini(&f);
}

static void timers_survive_when_there_is_no_room_for_more(void **state)
{
    (void)state;
    /* Growing one by one, with every allocation failing once in turn. */
    for (size_t nth = 0;; nth++) {
        struct fixture f;
        fixture_init(&f);
        f.failing.left = nth;
        bool failed = false;
        for (uint32_t i = 0; i < NODES; i++) {
            if (!timers_reserve(&f.timers, i + 1)) {
                failed = true;
                assert_int_equal(f.timers.n, i);
                assert_heap(&f.timers);
                f.failing.left = SIZE_MAX;
                assert_true(timers_reserve(&f.timers, i + 1));
            }
            timer_set(&f.timers, &f.nodes[i], NODES - i);
        }
        for (uint32_t i = NODES; i > 0; i--) {
            assert_ptr_equal(timers_pop(&f.timers, NODES), &f.nodes[i - 1]);
        }
        fixture_fini(&f);
        if (!failed) {
            /* It grew more than once, but not for each timer. */
            assert_in_range(nth, 2, 6);
            return;
        }
    }
}

static void absurd_numbers_of_timers_are_refused(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    assert_false(timers_reserve(&f.timers, UINT32_MAX));
    assert_false(timers_reserve(&f.timers, UINT32_MAX / 2));
    assert_true(timers_reserve(&f.timers, 1));
    fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_timers_there_is_nothing_to_wait_for),
        cmocka_unit_test(a_timer_comes_at_its_time_and_is_off_then),
        cmocka_unit_test(a_timer_that_is_set_again_moves),
        cmocka_unit_test(any_sequence_of_calls_does_what_a_plain_list_does),
        cmocka_unit_test(ties_do_not_depend_on_where_the_nodes_are),
        cmocka_unit_test(room_that_is_reserved_needs_no_memory_later),
        cmocka_unit_test(timers_survive_when_there_is_no_room_for_more),
        cmocka_unit_test(absurd_numbers_of_timers_are_refused),
    };
    return cmocka_run_group_tests_name("timers", tests, NULL, NULL);
}
