/* Control-plane replies as trees; each allocation fails in turn. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "parser/reply.h"

static void resp2_becomes_a_tree(void **state)
{
    (void)state;
    struct reply *r = reply_parse(span_of(
        "*6\r\n+OK\r\n:-5\r\n$3\r\na\r\n\r\n$-1\r\n*-1\r\n*1\r\n:1\r\n"));

    assert_non_null(r);
    assert_int_equal(reply_type(r), REPLY_ARRAY);
    assert_int_equal(reply_count(r), 6);
    assert_int_equal(reply_type(reply_at(r, 0)), REPLY_STRING);
    assert_true(span_equal(reply_text(reply_at(r, 0)), span_of("OK")));
    assert_int_equal(reply_integer(reply_at(r, 1)), -5);
    assert_true(span_equal(reply_text(reply_at(r, 2)), span_of("a\r\n")));
    assert_int_equal(reply_type(reply_at(r, 3)), REPLY_NIL);
    assert_int_equal(reply_type(reply_at(r, 4)), REPLY_NIL);
    assert_int_equal(reply_integer(reply_at(reply_at(r, 5), 0)), 1);
    assert_null(reply_at(r, 6));
    assert_null(reply_at(reply_at(r, 0), 0));
    reply_free(r);
}

static void resp3_becomes_the_same_tree_as_its_resp2_form(void **state)
{
    (void)state;
    struct reply *r = reply_parse(
        span_of("|1\r\n+ttl\r\n%1\r\n+x\r\n:1\r\n"
                "%7\r\n+null\r\n_\r\n+true\r\n#t\r\n+false\r\n#f\r\n"
                "+double\r\n,1.5\r\n+text\r\n=7\r\ntxt:abc\r\n"
                "+set\r\n~2\r\n(123\r\n|0\r\n!7\r\nERR a\r\n\r\n"
                "+none\r\n~0\r\n"));

    assert_non_null(r);
    assert_int_equal(reply_type(r), REPLY_ARRAY);
    assert_int_equal(reply_count(r), 14);
    assert_int_equal(reply_type(reply_get(r, "null")), REPLY_NIL);
    assert_int_equal(reply_integer(reply_get(r, "true")), 1);
    assert_int_equal(reply_type(reply_get(r, "false")), REPLY_INTEGER);
    assert_int_equal(reply_integer(reply_get(r, "false")), 0);
    assert_true(span_equal(reply_text(reply_get(r, "double")), span_of("1.5")));
    assert_true(span_equal(reply_text(reply_get(r, "text")), span_of("abc")));
    const struct reply *set = reply_get(r, "set");
    assert_int_equal(reply_count(set), 2);
    assert_true(span_equal(reply_text(reply_at(set, 0)), span_of("123")));
    assert_int_equal(reply_type(reply_at(set, 1)), REPLY_ERROR);
    assert_true(span_equal(reply_text(reply_at(set, 1)), span_of("ERR a  ")));
    assert_int_equal(reply_count(reply_get(r, "none")), 0);
    assert_null(reply_get(r, "missing"));
    assert_null(reply_get(set, "double"));
    reply_free(r);
}

static void accessors_of_another_type_are_empty(void **state)
{
    (void)state;
    struct reply *r = reply_parse(span_of(":7\r\n"));

    assert_non_null(r);
    assert_int_equal(reply_text(r).len, 0);
    assert_int_equal(reply_count(r), 0);
    assert_null(reply_get(r, "x"));
    reply_free(r);
    r = reply_parse(span_of("$0\r\n\r\n"));
    assert_int_equal(reply_integer(r), 0);
    assert_int_equal(reply_type(r), REPLY_STRING);
    reply_free(r);
    reply_free(NULL);
}

static void what_is_not_exactly_one_message_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "+OK",
        "+OK\r\n+OK\r\n",
        "$3\r\nab\r\n",
        "hello\r\n",
        "*2\r\n:1\r\n",
        ":x\r\n",
        "*?\r\n",
        "*1000001\r\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_null(reply_parse(span_of(bad[i])));
    }
}

/* levels aggregates of type, around one number */
static struct reply *nested(char type, size_t levels)
{
    char text[64 * 7 + 8] = { 0 };
    size_t len = 0;

    for (size_t i = 0; i < levels; i++) {
        text[len++] = type;
        memcpy(text + len, "1\r\n", 3);
        len += 3;
        if (type == '%') {
            text[len++] = '_';
            memcpy(text + len, "\r\n", 2);
            len += 2;
        }
    }
    memcpy(text + len, ":1\r\n", 4);
    return reply_parse((struct span){ (uint8_t *)text, len + 4 });
}

static void nesting_ends_at_the_limit(void **state)
{
    (void)state;
    static const char types[] = { '*', '%', '~', '>' };

    for (size_t i = 0; i < sizeof types; i++) {
        struct reply *r = nested(types[i], REPLY_DEPTH_MAX);
        assert_non_null(r);
        reply_free(r);
        assert_null(nested(types[i], REPLY_DEPTH_MAX + 1));
        assert_null(nested(types[i], 60));
    }
}

static void elements_end_at_the_limit(void **state)
{
    (void)state;
    const size_t head = 10;
    size_t len = head + 4 * (size_t)REPLY_ELEMENTS_MAX;
    char *text = malloc(len);

    assert_non_null(text);
    memcpy(text, "*1000000\r\n", head);
    for (size_t i = head; i < len; i += 4) {
        memcpy(text + i, ":1\r\n", 4);
    }
    struct reply *r = reply_parse((struct span){ (uint8_t *)text, len });
    assert_non_null(r);
    assert_int_equal(reply_count(r), REPLY_ELEMENTS_MAX);
    reply_free(r);
    free(text);
}

#ifdef REPLACE_MALLOC
/* glibc lets a program bring its own allocator; the shared hiredis calls it
 * too. This one fails once, at the allocation told. */
void *__libc_malloc(size_t size);             /* NOLINT */
void *__libc_calloc(size_t n, size_t size);   /* NOLINT */
void *__libc_realloc(void *old, size_t size); /* NOLINT */

static size_t fail_in; /* 0: never */

static bool fails(void)
{
    return fail_in > 0 && --fail_in == 0;
}

void *malloc(size_t size)
{
    return fails() ? NULL : __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    return fails() ? NULL : __libc_calloc(n, size);
}

void *realloc(void *old, size_t size)
{
    return fails() ? NULL : __libc_realloc(old, size);
}

static void a_failing_allocation_gives_null_and_nothing_worse(void **state)
{
    (void)state;
    const struct span text =
        span_of("%2\r\n+a\r\n*3\r\n:1\r\n$3\r\nabc\r\n-x\r\n+b\r\n_\r\n");
    size_t failures = 0;

    for (size_t n = 1;; n++) {
        fail_in = n;
        struct reply *r = reply_parse(text);
        bool all_used = fail_in > 0;
        fail_in = 0;
        if (all_used) { /* more were granted than it needs */
            assert_non_null(r);
            assert_int_equal(reply_count(r), 4);
            reply_free(r);
            break;
        }
        if (r == NULL) {
            failures++;
        } else {
            reply_free(r); /* a growth it could do without */
        }
        assert_true(n < 100);
    }
    assert_true(failures >= 10);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resp2_becomes_a_tree),
        cmocka_unit_test(resp3_becomes_the_same_tree_as_its_resp2_form),
        cmocka_unit_test(accessors_of_another_type_are_empty),
        cmocka_unit_test(what_is_not_exactly_one_message_is_refused),
        cmocka_unit_test(nesting_ends_at_the_limit),
        cmocka_unit_test(elements_end_at_the_limit),
#ifdef REPLACE_MALLOC
        cmocka_unit_test(a_failing_allocation_gives_null_and_nothing_worse),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
