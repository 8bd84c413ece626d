/* The session ledger: what is copied, what may share a lane, and what happens
 * when memory is short. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "failing_allocator.h"
#include "proxy/core/state.h"

enum {
    TEXTS = 5 /* of a session */
};

static struct text *text_at(struct session *s, size_t i)
{
    struct text *texts[TEXTS] = { &s->username, &s->password, &s->name,
                                  &s->lib_name, &s->lib_version };
    return texts[i];
}

/* An engine that has nothing but memory. */
struct fixture {
    struct failing failing;
    struct engine engine;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->failing.left = SIZE_MAX;
    struct allocator allocator = failing_allocator(&f->failing);
    f->engine.memory = memory_new(&allocator);
    *state = f;
    return f->engine.memory == NULL;
}

/* memory_free() asserts that everything was given back. */
static int tear_down(void **state)
{
    struct fixture *f = *state;
    memory_free(f->engine.memory);
    bool leaked = f->failing.live != 0;
    free(f);
    return leaked;
}

/* A session with everything said. */
static struct session *full(struct fixture *f)
{
    struct session *s = session_copy(&f->engine, NULL);
    assert_non_null(s);
    for (size_t i = 0; i < TEXTS; i++) {
        char word[] = { 'w', (char)('0' + i), '\0' };
        assert_true(text_set(&f->engine, text_at(s, i), span_of(word)));
    }
    s->db = 3;
    s->resp = 3;
    s->authenticated = true;
    return s;
}

static void a_fresh_session_has_said_nothing(void **state)
{
    struct fixture *f = *state;
    struct session *s = session_copy(&f->engine, NULL);
    assert_non_null(s);
    for (size_t i = 0; i < TEXTS; i++) {
        assert_null(text_at(s, i)->data);
    }
    assert_int_equal(s->resp, 2);
    assert_int_equal(s->db, 0);
    assert_false(s->authenticated);
    session_free(&f->engine, s);
    session_free(&f->engine, NULL);
}

static void a_copy_is_equal_and_independent(void **state)
{
    struct fixture *f = *state;
    struct session *s = full(f);
    struct session *copy = session_copy(&f->engine, s);
    assert_non_null(copy);
    assert_int_equal(copy->db, 3);
    assert_int_equal(copy->resp, 3);
    assert_true(copy->authenticated);
    for (size_t i = 0; i < TEXTS; i++) {
        struct span a = text_span(text_at(s, i));
        struct span b = text_span(text_at(copy, i));
        assert_true(span_equal(a, b) && a.data != b.data);
        assert_int_equal(text_at(copy, i)->data[b.len], '\0');
    }
    session_free(&f->engine, s);
    for (size_t i = 0; i < TEXTS; i++) {
        assert_int_equal(text_at(copy, i)->data[1], '0' + (int)i);
    }
    session_free(&f->engine, copy);
}

static void a_copy_is_whole_or_not_there(void **state)
{
    struct fixture *f = *state;
    struct session *s = full(f);
    size_t live = f->failing.live;
    size_t n = 0;
    struct session *copy = NULL;
    while (copy == NULL) {
        f->failing.left = n++;
        copy = session_copy(&f->engine, s);
        assert_true(copy != NULL || f->failing.live == live);
    }
    assert_int_equal(n, 1 + 1 + TEXTS); /* itself and its texts must be had */
    f->failing.left = SIZE_MAX;
    session_free(&f->engine, copy);
    session_free(&f->engine, s);
}

static void a_text_without_memory_stays_as_it_was(void **state)
{
    struct fixture *f = *state;
    struct session *s = full(f);
    const char *before = s->password.data;
    f->failing.left = 0;
    assert_false(text_set(&f->engine, &s->password, span_of("other")));
    assert_ptr_equal(s->password.data, before);
    assert_true(span_equal(text_span(&s->password), span_of("w1")));
    f->failing.left = SIZE_MAX;
    session_free(&f->engine, s);
}

static void a_text_may_be_set_to_a_part_of_itself(void **state)
{
    struct fixture *f = *state;
    struct text t = { 0 };
    assert_true(text_set(&f->engine, &t, span_of("abcdef")));
    struct span part = { (const uint8_t *)t.data + 2, 3 };
    assert_true(text_set(&f->engine, &t, part));
    assert_true(span_equal(text_span(&t), span_of("cde")));
    text_clear(&f->engine, &t);
    assert_null(t.data);
    text_clear(&f->engine, &t);
}

static void an_empty_text_is_not_a_missing_one(void **state)
{
    struct fixture *f = *state;
    struct session *a = session_copy(&f->engine, NULL);
    struct session *b = session_copy(&f->engine, NULL);
    assert_true(session_same_lane(a, b));
    assert_true(text_set(&f->engine, &a->username, (struct span){ NULL, 0 }));
    assert_non_null(a->username.data);
    assert_false(session_same_lane(a, b));
    assert_false(session_same_lane(b, a));
    session_free(&f->engine, a);
    session_free(&f->engine, b);
}

/* Identity, database and protocol make a lane; labels do not (redis.md §2). */
static void a_lane_is_shared_by_those_who_are_the_same_to_the_server(
    void **state)
{
    struct fixture *f = *state;
    struct session *a = full(f);
    for (size_t i = 0; i < TEXTS; i++) {
        struct session *b = session_copy(&f->engine, a);
        assert_true(session_same_lane(a, b));
        bool label =
            text_at(b, i) != &b->username && text_at(b, i) != &b->password;
        assert_true(text_set(&f->engine, text_at(b, i), span_of("other")));
        assert_int_equal(session_same_lane(a, b), label);
        text_clear(&f->engine, text_at(b, i));
        assert_int_equal(session_same_lane(a, b), label);
        session_free(&f->engine, b);
    }
    struct session *b = session_copy(&f->engine, a);
    b->db = 4;
    assert_false(session_same_lane(a, b));
    b->db = a->db;
    b->resp = 2;
    assert_false(session_same_lane(a, b));
    b->resp = a->resp;
    b->authenticated = false; /* towards redial, not towards the server */
    assert_true(session_same_lane(a, b));
    session_free(&f->engine, b);
    session_free(&f->engine, a);
}

/* A block that is given back is looked at first. */
static void free_of_secret(void *context, void *block)
{
    struct failing *f = context;
    assert_memory_not_equal(block, "!!!!!!", 6);
    failing_free(f, block);
}

static void a_password_is_wiped_before_it_is_given_back(void **state)
{
    (void)state;
    struct failing failing = { .left = SIZE_MAX };
    struct allocator allocator = failing_allocator(&failing);
    allocator.free = free_of_secret;
    struct engine e = { .memory = memory_new(&allocator) };
    assert_non_null(e.memory);
    struct text t = { 0 };
    assert_true(text_set(&e, &t, span_of("!!!!!!")));
    assert_true(text_set(&e, &t, span_of("!!!!!!")));
    text_clear(&e, &t);
    memory_free(e.memory);
    assert_int_equal(failing.live, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_fresh_session_has_said_nothing),
        TEST(a_copy_is_equal_and_independent),
        TEST(a_copy_is_whole_or_not_there),
        TEST(a_text_without_memory_stays_as_it_was),
        TEST(a_text_may_be_set_to_a_part_of_itself),
        TEST(an_empty_text_is_not_a_missing_one),
        TEST(a_lane_is_shared_by_those_who_are_the_same_to_the_server),
        TEST(a_password_is_wiped_before_it_is_given_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
