/* Which functions write nothing: read from FUNCTION LIST, believed for a while,
 * and not when somebody may have changed them.
 *
 * How it fails when broken on purpose (each was tried): an answer from before a
 * change is believed, at once, when the next question is asked, or when it
 * arrives behind that; the age of an answer is not asked; a question is asked
 * while a change is on its way; a prefix of a name is taken for it; a full list
 * of names overflows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "failing_allocator.h"
#include "proxy/core/functions.h"

static const char resp2[] =
    "*1\r\n*6\r\n$12\r\nlibrary_name\r\n$3\r\nlib\r\n$6\r\nengine\r\n$3\r\n"
    "LUA\r\n$9\r\nfunctions\r\n*2\r\n"
    "*6\r\n$4\r\nname\r\n$5\r\nwrite\r\n$11\r\ndescription\r\n$-1\r\n"
    "$5\r\nflags\r\n*0\r\n"
    "*6\r\n$4\r\nname\r\n$4\r\nread\r\n$11\r\ndescription\r\n$1\r\nx\r\n"
    "$5\r\nflags\r\n*2\r\n$11\r\nallow-stale\r\n$9\r\nno-writes\r\n";
static const char resp3[] =
    "*1\r\n%3\r\n$12\r\nlibrary_name\r\n$3\r\nlib\r\n$6\r\nengine\r\n$3\r\n"
    "LUA\r\n$9\r\nfunctions\r\n*2\r\n"
    "%3\r\n$4\r\nname\r\n$5\r\nwrite\r\n$11\r\ndescription\r\n_\r\n"
    "$5\r\nflags\r\n~0\r\n"
    "%3\r\n$4\r\nname\r\n$4\r\nread\r\n$11\r\ndescription\r\n$1\r\nx\r\n"
    "$5\r\nflags\r\n~2\r\n+allow-stale\r\n+no-writes\r\n";

static const uint64_t second_us = 1000000;

struct server {
    struct failing failing;
    struct memory *memory;
    struct functions *functions;
    struct function_changes changes;
    uint64_t now_us;
    uint8_t mark;
};

static int set_up(void **state)
{
    struct server *s = calloc(1, sizeof(*s));
    assert_non_null(s);
    s->failing.left = SIZE_MAX;
    struct allocator a = failing_allocator(&s->failing);
    s->memory = memory_new(&a);
    assert_non_null(s->memory);
    s->functions = memory_take(s->memory, sizeof(*s->functions));
    assert_non_null(s->functions);
    s->now_us = 100 * second_us;
    *state = s;
    return 0;
}

static int tear_down(void **state)
{
    struct server *s = *state;
    functions_free(s->memory, s->functions);
    functions_free(s->memory, NULL);
    memory_free(s->memory);
    assert_int_equal(s->failing.live, 0);
    free(s);
    return 0;
}

static void ask(struct server *s)
{
    functions_asked(s->functions, &s->changes, s->now_us, ++s->mark);
}

static void answer(struct server *s, const char *reply)
{
    functions_answered(s->memory, s->functions, s->mark, span_of(reply));
}

static bool reads(const struct server *s, const char *name)
{
    return functions_read_only(s->functions, &s->changes, span_of(name),
                               s->now_us);
}

static bool is_due(const struct server *s)
{
    return functions_are_due(s->functions, &s->changes, s->now_us,
                             10 * second_us);
}

static void both_protocols_are_read(void **state)
{
    struct server *s = *state;
    const char *const replies[] = { resp2, resp3 };
    for (size_t i = 0; i < 2; i++) {
        ask(s);
        answer(s, "*0\r\n");
        assert_false(reads(s, "read"));
        answer(s, replies[i]);
        assert_true(reads(s, "read"));
        assert_false(reads(s, "write"));
        assert_false(reads(s, "rea"));
        assert_false(reads(s, "reads"));
        assert_false(reads(s, ""));
    }
    assert_false(functions_read_only(NULL, &s->changes, span_of("read"), 1));
}

static void what_is_no_list_tells_nothing(void **state)
{
    struct server *s = *state;
    static const char *const wrong[] = {
        "-NOPERM this user has no permissions\r\n",
        "-ERR unknown command\r\n",
        ":1\r\n",
        "*1\r\n:1\r\n",
        "*1\r\n*2\r\n$9\r\nfunctions\r\n:1\r\n",
        "*1\r\n*2\r\n$9\r\nfunctions\r\n*1\r\n*2\r\n$4\r\nname\r\n$4\r\nread\r"
        "\n",
        "*1\r\n",
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        ask(s);
        answer(s, resp2);
        answer(s, wrong[i]);
        assert_false(reads(s, "read"));
        assert_false(is_due(s)); /* it is not asked again at once */
    }
}

static void an_answer_is_believed_for_a_while(void **state)
{
    struct server *s = *state;
    assert_true(is_due(s));
    ask(s);
    answer(s, resp2);
    assert_false(is_due(s));
    s->now_us += FUNCTIONS_ASK_US;
    assert_true(is_due(s));
    assert_true(reads(s, "read"));
    s->now_us += FUNCTIONS_BELIEVED_US - FUNCTIONS_ASK_US - 1;
    assert_true(reads(s, "read"));
    s->now_us++;
    assert_false(reads(s, "read"));
}

static void a_new_connection_asks_again(void **state)
{
    struct server *s = *state;
    ask(s);
    answer(s, resp2);
    assert_true(
        functions_are_due(s->functions, &s->changes, s->now_us, s->now_us + 1));
}

static void a_change_is_forgotten_knowledge(void **state)
{
    struct server *s = *state;
    ask(s);
    answer(s, resp2);
    functions_changing(&s->changes, s->now_us, s->now_us);
    assert_false(reads(s, "read"));
    assert_false(is_due(s)); /* the server may not have it yet */
    functions_changed(&s->changes, s->now_us, false);
    assert_false(reads(s, "read"));
    assert_true(is_due(s));
    ask(s);
    assert_false(reads(s, "read")); /* by the answer of before */
    answer(s, resp2);
    assert_true(reads(s, "read"));
}

static void an_answer_from_before_the_change_does_not_count(void **state)
{
    struct server *s = *state;
    ask(s);
    functions_changing(&s->changes, s->now_us, s->now_us);
    functions_changed(&s->changes, s->now_us, false);
    answer(s, resp2);
    assert_false(reads(s, "read"));
    assert_true(is_due(s));
    /* Also when it comes behind the next question. */
    uint8_t before = s->mark;
    ask(s);
    functions_answered(s->memory, s->functions, before, span_of(resp2));
    assert_false(reads(s, "read"));
    answer(s, resp2);
    assert_true(reads(s, "read"));
}

static void a_change_in_a_transaction_or_without_an_answer_is_waited_out(
    void **state)
{
    struct server *s = *state;
    functions_changing(&s->changes, s->now_us, s->now_us);
    functions_changed(&s->changes, s->now_us, true);
    assert_false(is_due(s));
    s->now_us += FUNCTIONS_BELIEVED_US - 1;
    assert_false(is_due(s));
    s->now_us++;
    assert_true(is_due(s));
    /* Of two, the answer to the first says nothing of the second. */
    functions_changing(&s->changes, s->now_us, s->now_us);
    functions_changing(&s->changes, s->now_us + 1, s->now_us + 1);
    functions_changed(&s->changes, s->now_us, false);
    assert_false(is_due(s));
    functions_changed(&s->changes, s->now_us + 1, false);
    assert_true(is_due(s));
}

static void names_are_bounded(void **state)
{
    struct server *s = *state;
    enum {
        N = 400,
        ROOM = 200 * 1024
    };
    char *reply = malloc(ROOM);
    assert_non_null(reply);
    size_t len = (size_t)snprintf(reply, ROOM,
                                  "*1\r\n*2\r\n$9\r\nfunctions\r\n*%d\r\n", N);
    for (int i = 0; i < N; i++) {
        len += (size_t)
            snprintf(reply + len, ROOM - len,
                     "*4\r\n$4\r\nname\r\n$200\r\n%0200d\r\n$5\r\nflags\r\n"
                     "*1\r\n$9\r\nno-writes\r\n",
                     i);
    }
    ask(s);
    answer(s, reply);
    assert_true(s->functions->names_len <= FUNCTION_NAMES_MAX);
    char name[201];
    snprintf(name, sizeof(name), "%0200d", 0);
    assert_true(reads(s, name));
    snprintf(name, sizeof(name), "%0200d", FUNCTION_NAMES_MAX / 201 - 1);
    assert_true(reads(s, name));
    snprintf(name, sizeof(name), "%0200d", N - 1);
    assert_false(reads(s, name));
    free(reply);
}

static void without_memory_nothing_is_known(void **state)
{
    struct server *s = *state;
    ask(s);
    answer(s, resp2);
    s->failing.left = 0;
    answer(s, resp2);
    assert_false(reads(s, "read"));
    s->failing.left = SIZE_MAX;
    answer(s, resp2);
    assert_true(reads(s, "read"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(both_protocols_are_read),
        TEST(what_is_no_list_tells_nothing),
        TEST(an_answer_is_believed_for_a_while),
        TEST(a_new_connection_asks_again),
        TEST(a_change_is_forgotten_knowledge),
        TEST(an_answer_from_before_the_change_does_not_count),
        TEST(a_change_in_a_transaction_or_without_an_answer_is_waited_out),
        TEST(names_are_bounded),
        TEST(without_memory_nothing_is_known),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
