/* Chains of shared bytes: against plain arrays, and with memory running out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "failing_allocator.h"
#include "proxy/core/buf.h"
#include "proxy/core/rng.h"

struct fixture {
    struct failing failing;
    struct memory *memory;
};

static void fixture_init(struct fixture *f)
{
    *f = (struct fixture){ .failing = { .left = SIZE_MAX } };
    struct allocator allocator = failing_allocator(&f->failing);
    f->memory = memory_new(&allocator);
    assert_non_null(f->memory);
}

/* memory_free() itself asserts that every buf and segment came back. */
static void fixture_fini(struct fixture *f)
{
    assert_int_equal(memory_block_bytes(f->memory), 0);
    memory_free(f->memory);
    assert_int_equal(f->failing.live, 0);
}

/* A filled buf: bytes 0, 1, 2 ... */
static struct buf *filled(struct fixture *f, uint32_t len)
{
    struct buf *b = buf_new(f->memory, len);
    assert_non_null(b);
    for (uint32_t i = 0; i < len; i++) {
        b->data[i] = (uint8_t)i;
    }
    b->len = len;
    return b;
}

static size_t count_segments(const struct chain *c)
{
    size_t n = 0;
    for (const struct segment *s = c->head; s != NULL; s = s->next) {
        n++;
    }
    return n;
}

/* What must be true of a chain whatever happened to it. */
static void assert_chain(const struct chain *c)
{
    size_t bytes = 0;
    const struct segment *last = NULL;
    for (const struct segment *s = c->head; s != NULL; s = s->next) {
        assert_true(s->slice.len > 0);
        assert_true(s->slice.buf->refs > 0);
        assert_true(s->slice.offset + s->slice.len <= s->slice.buf->len);
        bytes += s->slice.len;
        last = s;
    }
    assert_true(c->bytes == bytes);
    assert_ptr_equal(c->tail, last);
}

static void assert_bytes(const struct chain *c,
                         const void *expected,
                         size_t len)
{
    static const size_t slack = 1;
    uint8_t *copy = malloc(len + slack);
    assert_non_null(copy);
    assert_chain(c);
    assert_true(chain_copy(c, copy, len + slack) == len);
    assert_memory_equal(copy, expected, len);
    free(copy);
}

static void slices_that_follow_each_other_become_one(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    struct buf *b = filled(&f, 30);
    struct chain c = { 0 };

    for (uint32_t i = 0; i < 3; i++) {
        buf_ref(b);
        struct slice s = { .buf = b, .offset = 10 * i, .len = 10 };
        assert_true(chain_push(f.memory, &c, s));
    }
    assert_int_equal(count_segments(&c), 1);
    assert_int_equal(b->refs, 2); /* the chain's and ours */
    assert_bytes(&c, b->data, 30);

    chain_clear(f.memory, &c);
    assert_int_equal(b->refs, 1);
    buf_unref(f.memory, b);
    fixture_fini(&f);
}

static void slices_that_do_not_follow_stay_apart(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    struct buf *a = filled(&f, 30);
    struct buf *b = filled(&f, 30);
    struct chain c = { 0 };

    assert_true(chain_push_part(f.memory, &c, a, 0, 10));
    assert_true(chain_push_part(f.memory, &c, a, 11, 9));  /* a gap */
    assert_true(chain_push_part(f.memory, &c, a, 11, 9));  /* again */
    assert_true(chain_push_part(f.memory, &c, b, 20, 10)); /* another buf */
    assert_int_equal(count_segments(&c), 4);
    assert_int_equal(c.bytes, 38);
    assert_int_equal(a->refs, 4);
    assert_int_equal(b->refs, 2);

    buf_unref(f.memory, a);
    buf_unref(f.memory, b);
    chain_clear(f.memory, &c);
    assert_true(c.head == NULL && c.tail == NULL && c.bytes == 0);
    fixture_fini(&f);
}

static void nothing_is_appended_for_no_bytes(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    struct buf *b = filled(&f, 3);
    struct chain c = { 0 };

    assert_true(chain_push_part(f.memory, &c, b, 3, 0));
    assert_int_equal(b->refs, 1);
    assert_true(chain_push_copy(f.memory, &c, span_of("")));
    assert_true(chain_push(f.memory, &c, (struct slice){ .buf = b }));
    assert_null(c.head);
    fixture_fini(&f); /* the empty slice gave its reference back */
}

static void a_chain_keeps_its_bytes_when_the_reader_lets_go(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    struct buf *b = buf_new(f.memory, 0);
    memcpy(b->data, "+OK\r\n", 5);
    b->len = 5;
    struct chain c = { 0 };

    assert_true(chain_push_part(f.memory, &c, b, 0, 5));
    buf_unref(f.memory, b);
    assert_int_equal(memory_block_bytes(f.memory), BLOCK_BYTES);
    assert_bytes(&c, "+OK\r\n", 5);
    chain_consume(f.memory, &c, 5);
    assert_int_equal(memory_block_bytes(f.memory), 0);
    fixture_fini(&f);
}

static void a_copy_does_not_hold_what_it_was_copied_from(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    char text[] = "-ERR no";
    struct chain c = { 0 };

    assert_true(chain_push_copy(f.memory, &c, span_of(text)));
    memset(text, 'x', sizeof text - 1);
    assert_bytes(&c, "-ERR no", 7);
    chain_clear(f.memory, &c);
    fixture_fini(&f);
}

static void a_chain_can_be_consumed_at_any_place(void **state)
{
    (void)state;
    for (size_t count = 0; count <= 12; count++) {
        struct fixture f;
        fixture_init(&f);
        struct chain c = { 0 };
        assert_true(chain_push_copy(f.memory, &c, span_of("abcd")));
        assert_true(chain_push_copy(f.memory, &c, span_of("efgh")));
        assert_true(chain_push_copy(f.memory, &c, span_of("ijkl")));

        chain_consume(f.memory, &c, count);
        assert_bytes(&c, &"abcdefghijkl"[count], 12 - count);
        chain_clear(f.memory, &c);
        fixture_fini(&f);
    }
}

static void a_chain_is_copied_up_to_the_room_there_is(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    struct chain c = { 0 };
    assert_true(chain_push_copy(f.memory, &c, span_of("abc")));
    assert_true(chain_push_copy(f.memory, &c, span_of("def")));

    for (size_t max = 0; max <= 8; max++) {
        uint8_t out[] = "........";
        size_t n = chain_copy(&c, out, max);
        assert_int_equal(n, max < 6 ? max : 6);
        assert_memory_equal(out, "abcdef", n);
        for (size_t i = n; i < 8; i++) {
            assert_int_equal(out[i], '.');
        }
    }
    chain_clear(f.memory, &c);
    fixture_fini(&f);
}

static void moving_leaves_nothing_behind(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    struct chain a = { 0 }, b = { 0 };

    chain_move(&a, &b);
    assert_null(a.head);
    assert_true(chain_push_copy(f.memory, &b, span_of("one")));
    chain_move(&a, &b);
    assert_true(chain_push_copy(f.memory, &b, span_of("two")));
    chain_move(&a, &b);
    chain_move(&a, &b);
    assert_bytes(&a, "onetwo", 6);
    assert_true(b.head == NULL && b.tail == NULL && b.bytes == 0);
    chain_clear(f.memory, &a);
    fixture_fini(&f);
}

static void shared_requests_of_one_read_are_one_slice_again(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    struct buf *b = filled(&f, 100);
    struct chain out = { 0 };

    for (uint32_t i = 0; i < 10; i++) {
        struct chain request = { 0 };
        assert_true(chain_push_part(f.memory, &request, b, 10 * i, 10));
        assert_true(chain_share(f.memory, &out, &request));
        assert_int_equal(request.bytes, 10);
        chain_clear(f.memory, &request);
    }
    assert_int_equal(count_segments(&out), 1);
    assert_bytes(&out, b->data, 100);
    chain_clear(f.memory, &out);
    buf_unref(f.memory, b);
    fixture_fini(&f);
}

/* c ends where from begins, so sharing first makes c's last slice longer; then
 * memory ends, after each possible number of segments. */
static void sharing_that_fails_leaves_the_chain_as_it_was(void **state)
{
    (void)state;
    enum {
        SLICES = 400
    };
    bool failed_somewhere = false;

    for (uint32_t before = 1; before <= 200; before++) {
        struct fixture f;
        fixture_init(&f);
        struct buf *b = filled(&f, 2 * SLICES + 2);
        struct chain c = { 0 }, from = { 0 };
        for (uint32_t i = 0; i < before; i++) {
            assert_true(chain_push_part(f.memory, &c, b, 2 * i, 1));
        }
        assert_true(chain_push_part(f.memory, &from, b, 2 * before - 1, 2));
        for (uint32_t i = before; i < SLICES; i++) {
            assert_true(chain_push_part(f.memory, &from, b, 2 * i + 2, 1));
        }
        uint8_t expected[SLICES];
        assert_int_equal(chain_copy(&c, expected, SLICES), before);
        uint32_t refs = b->refs;
        size_t segments = count_segments(&c);

        f.failing.left = 0;
        if (!chain_share(f.memory, &c, &from)) {
            failed_somewhere = true;
            assert_int_equal(b->refs, refs);
            assert_int_equal(count_segments(&c), segments);
            assert_bytes(&c, expected, before);
        }
        chain_clear(f.memory, &c);
        chain_clear(f.memory, &from);
        buf_unref(f.memory, b);
        fixture_fini(&f);
    }
    assert_true(failed_somewhere);
}

static void a_push_without_memory_gives_the_reference_back(void **state)
{
    (void)state;
    struct fixture f;
    fixture_init(&f);
    struct buf *b = filled(&f, 3);
    struct chain c = { 0 };
    f.failing.left = 0;

    assert_false(chain_push_part(f.memory, &c, b, 0, 3));
    assert_int_equal(b->refs, 1);
    assert_false(chain_push_copy(f.memory, &c, span_of("abc")));
    assert_false(
        chain_push(f.memory, &c, (struct slice){ .buf = b, .len = 3 }));
    assert_true(c.head == NULL && c.tail == NULL && c.bytes == 0);

    f.failing.left = 1; /* the buf of a copy, but no segment for it */
    assert_false(chain_push_copy(f.memory, &c, span_of("abc")));
    assert_null(c.head);
    fixture_fini(&f);
}

/* Chains and what they should contain. */
enum {
    CHAINS = 3,
    MODEL_MAX = 4096
};

struct model {
    struct chain chain;
    uint8_t bytes[MODEL_MAX];
    size_t len;
};

static void model_append(struct model *m, const uint8_t *bytes, size_t len)
{
    memcpy(m->bytes + m->len, bytes, len);
    m->len += len;
}

static void model_consume(struct model *m, size_t count)
{
    m->len -= count;
    memmove(m->bytes, m->bytes + count, m->len);
}

/* One random call on a; other is another chain, b the buf now filled. */
static void random_call(struct fixture *f,
                        struct rng *r,
                        struct model *a,
                        struct model *other,
                        struct buf *b)
{
    uint32_t offset = (uint32_t)rng_upto(r, b->len);
    uint32_t len = (uint32_t)rng_upto(r, b->len - offset);
    /* Often go on where the chain ends, as a reader does. */
    if (a->chain.tail != NULL && a->chain.tail->slice.buf == b &&
        rng_upto(r, 1) == 0) {
        offset = a->chain.tail->slice.offset + a->chain.tail->slice.len;
        len = (uint32_t)rng_upto(r, b->len - offset);
    }
    len = len > 40 ? 40 : len;
    struct slice slice = { .buf = b, .offset = offset, .len = len };
    bool has_room = a->len + other->len + len <= MODEL_MAX;

    switch (has_room ? rng_upto(r, 9) : 8) {
    case 0:
    case 1:
        buf_ref(b);
        if (chain_push(f->memory, &a->chain, slice)) {
            model_append(a, slice_data(&slice), len);
        }
        break;
    case 2:
    case 3:
        if (chain_push_part(f->memory, &a->chain, b, offset, len)) {
            model_append(a, slice_data(&slice), len);
        }
        break;
    case 4: {
        struct span bytes = { slice_data(&slice), len };
        if (chain_push_copy(f->memory, &a->chain, bytes)) {
            model_append(a, bytes.data, len);
        }
        break;
    }
    case 5:
        chain_move(&a->chain, &other->chain);
        model_append(a, other->bytes, other->len);
        other->len = 0;
        break;
    case 6:
        if (chain_share(f->memory, &a->chain, &other->chain)) {
            model_append(a, other->bytes, other->len);
        }
        break;
    case 7: {
        size_t count = rng_upto(r, a->len);
        chain_consume(f->memory, &a->chain, count);
        model_consume(a, count);
        break;
    }
    case 8:
        chain_clear(f->memory, &a->chain);
        a->len = 0;
        break;
    default: {
        size_t max = rng_upto(r, a->len);
        uint8_t out[MODEL_MAX];
        assert_true(chain_copy(&a->chain, out, max) == max);
        assert_memory_equal(out, a->bytes, max);
        break;
    }
    }
}

static void any_sequence_of_calls_keeps_the_bytes_and_their_order(void **state)
{
    (void)state;
    enum {
        BUFS = 4
    };
    for (uint64_t seed = 0; seed < 60; seed++) {
        struct fixture f;
        fixture_init(&f);
        struct rng r;
        rng_init(&r, seed);
        struct buf *bufs[BUFS];
        for (size_t i = 0; i < BUFS; i++) {
            bufs[i] = filled(&f, 256);
            for (uint32_t k = 0; k < 256; k++) {
                bufs[i]->data[k] = (uint8_t)rng_next(&r);
            }
        }
        static struct model models[CHAINS];
        memset(models, 0, sizeof models);

        for (unsigned n = 0; n < 3000; n++) {
            /* Odd seeds: memory comes and goes. */
            bool is_short = seed % 2 == 1 && rng_upto(&r, 2) > 0;
            f.failing.left = is_short ? rng_upto(&r, 1) : SIZE_MAX;
            size_t a = rng_upto(&r, CHAINS - 1);
            size_t other = (a + 1 + rng_upto(&r, CHAINS - 2)) % CHAINS;
            struct buf *b = bufs[rng_upto(&r, BUFS - 1)];

            random_call(&f, &r, &models[a], &models[other], b);
            assert_bytes(&models[a].chain, models[a].bytes, models[a].len);
            assert_bytes(&models[other].chain, models[other].bytes,
                         models[other].len);
        }
        for (size_t i = 0; i < CHAINS; i++) {
            chain_clear(f.memory, &models[i].chain);
        }
        for (size_t i = 0; i < BUFS; i++) {
            assert_int_equal(bufs[i]->refs, 1);
            buf_unref(f.memory, bufs[i]);
        }
        fixture_fini(&f);
    }
}

/* Copy, share, move and consume; false as soon as memory is short. */
static bool scenario(struct fixture *f, struct chain *a, struct chain *b)
{
    enum {
        PIECES = 300
    }; /* several slabs of segments */
    for (size_t i = 0; i < PIECES; i++) {
        if (!chain_push_copy(f->memory, a, span_of("ab"))) {
            return false;
        }
    }
    if (!chain_share(f->memory, b, a)) {
        return false;
    }
    chain_consume(f->memory, a, 301);
    chain_move(b, a);
    return chain_push_copy(f->memory, b, span_of("end"));
}

static void nothing_is_lost_whichever_allocation_fails(void **state)
{
    (void)state;
    bool done = false;
    size_t nth = 0;
    for (; !done; nth++) {
        struct fixture f;
        fixture_init(&f);
        f.failing.left = nth;
        struct chain a = { 0 }, b = { 0 };
        done = scenario(&f, &a, &b);
        assert_chain(&a);
        assert_chain(&b);
        if (done) {
            assert_int_equal(b.bytes, 600 + 299 + 3);
        }
        chain_clear(f.memory, &a);
        chain_clear(f.memory, &b);
        fixture_fini(&f);
    }
    assert_true(nth > 300);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slices_that_follow_each_other_become_one),
        cmocka_unit_test(slices_that_do_not_follow_stay_apart),
        cmocka_unit_test(nothing_is_appended_for_no_bytes),
        cmocka_unit_test(a_chain_keeps_its_bytes_when_the_reader_lets_go),
        cmocka_unit_test(a_copy_does_not_hold_what_it_was_copied_from),
        cmocka_unit_test(a_chain_can_be_consumed_at_any_place),
        cmocka_unit_test(a_chain_is_copied_up_to_the_room_there_is),
        cmocka_unit_test(moving_leaves_nothing_behind),
        cmocka_unit_test(shared_requests_of_one_read_are_one_slice_again),
        cmocka_unit_test(sharing_that_fails_leaves_the_chain_as_it_was),
        cmocka_unit_test(a_push_without_memory_gives_the_reference_back),
        cmocka_unit_test(any_sequence_of_calls_keeps_the_bytes_and_their_order),
        cmocka_unit_test(nothing_is_lost_whichever_allocation_fails),
    };
    return cmocka_run_group_tests_name("buf", tests, NULL, NULL);
}
