/* The pools: what is kept, what is given back, what is counted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "failing_allocator.h"
#include "proxy/core/buf.h"
#include "proxy/core/memory.h"

static void memory_is_zeroed_although_the_allocator_gives_dirt(void **state)
{
    (void)state;
    struct failing failing = { .left = SIZE_MAX };
    struct allocator allocator = failing_allocator(&failing);
    struct memory *m = memory_new(&allocator);

    uint8_t *bytes = memory_take(m, 1000);
    for (size_t i = 0; i < 1000; i++) {
        assert_int_equal(bytes[i], 0);
    }
    memory_give(m, bytes);
    memory_give(m, NULL);
    memory_free(m);
    assert_int_equal(failing.live, 0);
}

static void malloc_is_used_when_no_allocator_is_given(void **state)
{
    (void)state;
    struct memory *m = memory_new(NULL);
    struct buf *b = buf_new(m, 0);
    void *block = memory_take(m, 10);
    assert_non_null(b);
    assert_non_null(block);
    memory_give(m, block);
    buf_unref(m, b);
    memory_free(m);
}

static void nothing_is_made_without_memory(void **state)
{
    (void)state;
    struct failing failing = { .left = 0 };
    struct allocator allocator = failing_allocator(&failing);
    assert_null(memory_new(&allocator));

    failing.left = 1;
    struct memory *m = memory_new(&allocator);
    assert_null(memory_take(m, 1));
    assert_null(buf_new(m, 0));
    assert_null(buf_new(m, 1));
    assert_int_equal(memory_block_bytes(m), 0);
    memory_free(m);
    assert_int_equal(failing.live, 0);
}

static void a_read_block_is_used_again_and_not_cleared(void **state)
{
    (void)state;
    struct failing failing = { .left = SIZE_MAX };
    struct allocator allocator = failing_allocator(&failing);
    struct memory *m = memory_new(&allocator);

    struct buf *first = buf_new(m, 0);
    assert_int_equal(first->cap, BUF_READ_CAP);
    memset(first->data, 'x', first->cap);
    first->len = first->cap;
    buf_unref(m, first);

    size_t calls = failing.calls;
    struct buf *second = buf_new(m, 0);
    assert_ptr_equal(second, first);
    assert_int_equal(failing.calls, calls);
    assert_int_equal(second->len, 0);
    assert_int_equal(second->refs, 1);
    assert_int_equal(second->data[second->cap - 1], 'x');
    buf_unref(m, second);
    memory_free(m);
    assert_int_equal(failing.live, 0);
}

static void no_more_than_blocks_kept_are_kept(void **state)
{
    (void)state;
    enum {
        BLOCKS = BLOCKS_KEPT + 10
    };
    struct failing failing = { .left = SIZE_MAX };
    struct allocator allocator = failing_allocator(&failing);
    struct memory *m = memory_new(&allocator);
    struct buf *blocks[BLOCKS];

    for (size_t i = 0; i < BLOCKS; i++) {
        blocks[i] = buf_new(m, 0);
        assert_int_equal(memory_block_bytes(m), (i + 1) * BLOCK_BYTES);
    }
    for (size_t i = 0; i < BLOCKS; i++) {
        buf_unref(m, blocks[i]);
    }
    assert_int_equal(memory_block_bytes(m), 0);
    assert_int_equal(failing.live, 1 + BLOCKS_KEPT);

    memory_free(m);
    assert_int_equal(failing.live, 0);
}

static void a_buf_of_another_size_is_not_kept(void **state)
{
    (void)state;
    static const uint32_t caps[] = { 1, 100, BUF_READ_CAP - 1,
                                     BUF_READ_CAP + 1 };
    struct failing failing = { .left = SIZE_MAX };
    struct allocator allocator = failing_allocator(&failing);
    struct memory *m = memory_new(&allocator);

    for (size_t i = 0; i < sizeof caps / sizeof *caps; i++) {
        struct buf *b = buf_new(m, caps[i]);
        assert_true(b->cap >= caps[i]);
        buf_unref(m, b);
        assert_int_equal(failing.live, 1);
    }
    memory_free(m);
    assert_int_equal(failing.live, 0);
}

static void bytes_are_counted_until_the_last_reference_goes(void **state)
{
    (void)state;
    struct memory *m = memory_new(NULL);
    struct buf *small = buf_new(m, 100);
    struct buf *large = buf_new(m, 1 << 20);
    size_t both = memory_block_bytes(m);
    assert_in_range(both, 100 + (1 << 20), 100 + (1 << 20) + 64);

    buf_ref(large);
    buf_unref(m, large);
    assert_int_equal(memory_block_bytes(m), both);
    buf_unref(m, large);
    assert_in_range(memory_block_bytes(m), 100, 132);
    buf_unref(m, small);
    assert_int_equal(memory_block_bytes(m), 0);
    memory_free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_zeroed_although_the_allocator_gives_dirt),
        cmocka_unit_test(malloc_is_used_when_no_allocator_is_given),
        cmocka_unit_test(nothing_is_made_without_memory),
        cmocka_unit_test(a_read_block_is_used_again_and_not_cleared),
        cmocka_unit_test(no_more_than_blocks_kept_are_kept),
        cmocka_unit_test(a_buf_of_another_size_is_not_kept),
        cmocka_unit_test(bytes_are_counted_until_the_last_reference_goes),
    };
    return cmocka_run_group_tests_name("memory", tests, NULL, NULL);
}
