/* Messages of Pub/Sub, and the set of names that a client has subscribed to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "failing_allocator.h"
#include "parser/pubsub.h"
#include "proxy/core/subscriptions.h"

static void words_are_told_apart(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum pubsub_type type;
        enum subscription_kind kind;
    } cases[] = {
        { "*3\r\n$7\r\nmessage\r\n", PUBSUB_MESSAGE, SUBSCRIPTION_CHANNEL },
        { ">3\r\n$7\r\nmessage\r\n", PUBSUB_MESSAGE, SUBSCRIPTION_CHANNEL },
        { ">4\r\n$8\r\npmessage\r\n", PUBSUB_MESSAGE, SUBSCRIPTION_PATTERN },
        { "*3\r\n$8\r\nsmessage\r\n", PUBSUB_MESSAGE, SUBSCRIPTION_SHARD },
        { "*3\r\n$9\r\nsubscribe\r\n", PUBSUB_SUBSCRIBED,
          SUBSCRIPTION_CHANNEL },
        { "*3\r\n$10\r\npsubscribe\r\n", PUBSUB_SUBSCRIBED,
          SUBSCRIPTION_PATTERN },
        { ">3\r\n$10\r\nssubscribe\r\n", PUBSUB_SUBSCRIBED,
          SUBSCRIPTION_SHARD },
        { "*3\r\n$11\r\nunsubscribe\r\n", PUBSUB_UNSUBSCRIBED,
          SUBSCRIPTION_CHANNEL },
        { ">3\r\n$12\r\npunsubscribe\r\n", PUBSUB_UNSUBSCRIBED,
          SUBSCRIPTION_PATTERN },
        { "*3\r\n$12\r\nsunsubscribe\r\n", PUBSUB_UNSUBSCRIBED,
          SUBSCRIPTION_SHARD },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct span whole = span_of(cases[i].text);
        assert_true(whole.len <= PUBSUB_HEAD_MAX);
        struct pubsub_word word = pubsub_look(whole);
        assert_int_equal(word.type, cases[i].type);
        assert_int_equal(word.kind, cases[i].kind);
        for (size_t n = 0; n < whole.len; n++) {
            word = pubsub_look((struct span){ whole.data, n });
            assert_int_equal(word.type, PUBSUB_OTHER);
        }
    }
}

static void replies_are_no_messages(void **state)
{
    (void)state;
    static const char *const others[] = {
        "*2\r\n$4\r\npong\r\n$0\r\n\r\n",
        "*2\r\n$7\r\nmessage\r\n", /* too short for one */
        "*4\r\n$9\r\nsubscribe\r\n",
        "*3\r\n$7\r\nMESSAGE\r\n",
        "*3\r\n$8\r\nmessages\r\n",
        "*3\r\n+message\r\n",
        ">2\r\n$10\r\ninvalidate\r\n",
        "$7\r\nmessage\r\n",
        "*-1\r\n",
        "*0\r\n",
        "+OK\r\n",
        "*3\r\n$-1\r\n",
        "*99999999999999999999\r\n$7\r\nmessage\r\n",
        "*3\r\n$99999999999999999999\r\nmessage\r\n",
    };
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        assert_int_equal(pubsub_look(span_of(others[i])).type, PUBSUB_OTHER);
    }
}

static void confirmations_are_taken_apart(void **state)
{
    (void)state;
    struct pubsub_confirmation c;
    static const char text[] =
        "*3\r\n$9\r\nsubscribe\r\n$6\r\na\r\n$b*\r\n:12\r\n";
    assert_true(pubsub_confirmation_parse(span_of(text), &c));
    assert_true(span_equal(c.name, span_of("a\r\n$b*")));
    assert_int_equal(c.count, 12);
    for (size_t n = 0; n < sizeof(text) - 1; n++) {
        struct span part = { (const uint8_t *)text, n };
        assert_false(pubsub_confirmation_parse(part, &c));
    }
    assert_true(pubsub_confirmation_parse(
        span_of(">3\r\n$11\r\nunsubscribe\r\n_\r\n:0\r\n"), &c));
    assert_null(c.name.data);
    assert_true(pubsub_confirmation_parse(
        span_of("*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:7\r\n"), &c));
    assert_null(c.name.data);
    assert_int_equal(c.count, 7);
    assert_true(pubsub_confirmation_parse(
        span_of("*3\r\n$9\r\nsubscribe\r\n$0\r\n\r\n:1\r\n"), &c));
    assert_non_null(c.name.data);
    assert_int_equal(c.name.len, 0);
    assert_false(pubsub_confirmation_parse(
        span_of("*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n+"), &c));
    assert_false(pubsub_confirmation_parse(
        span_of("*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n$1\r\n1\r\n"), &c));
    assert_false(pubsub_confirmation_parse(
        span_of("*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:-1\r\n"), &c));
}

static void lines_of_monitor_are_known(void **state)
{
    (void)state;
    assert_true(pubsub_is_monitor_line(
        span_of("+1339518083.107412 [0 127.0.0.1:60866] \"keys\" \"*\"\r\n")));
    assert_true(pubsub_is_monitor_line(span_of("+1.5 [0 lua] \"get\"\r\n")));
    static const char *const others[] = { "",
                                          "+OK\r\n",
                                          "+1339518083\r\n",
                                          "+1339518083.107412\r\n",
                                          "+1339518083.107412 0\r\n",
                                          "+.1 [0",
                                          "+1. [0",
                                          "$3\r\n1.5\r\n" };
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        assert_false(pubsub_is_monitor_line(span_of(others[i])));
    }
}

/* ---- the set ---------------------------------------------------------------- */

static struct span name_of(char *text, size_t max, unsigned i)
{
    int len = snprintf(text, max, "channel-%u", i);
    return (struct span){ (const uint8_t *)text, (size_t)len };
}

static void a_set_keeps_names_in_order(void **state)
{
    (void)state;
    struct memory *m = memory_new(NULL);
    struct subscriptions s;
    subscriptions_init(&s, 42);
    struct span empty = { (const uint8_t *)"", 0 };
    struct span odd = { (const uint8_t *)"a\0b", 3 };
    assert_null(subscriptions_find(&s, empty));
    assert_true(subscriptions_add(m, &s, odd));
    assert_true(subscriptions_add(m, &s, empty));
    assert_true(subscriptions_add(m, &s, odd));
    assert_int_equal(s.n, 2);
    assert_int_equal(s.bytes, 3);
    assert_null(subscriptions_find(&s, span_of("a")));
    assert_true(
        span_equal(subscription_name(subscription_of(s.all.next)), odd));
    assert_true(subscriptions_remove(m, &s, odd));
    assert_false(subscriptions_remove(m, &s, odd));
    assert_true(
        span_equal(subscription_name(subscription_of(s.all.next)), empty));
    subscriptions_clear(m, &s);
    assert_int_equal(s.n, 0);
    assert_null(subscriptions_find(&s, empty));
    subscriptions_clear(m, &s);
    memory_free(m);
}

enum {
    MANY = 100000
};

static void a_set_of_many_names_is_quick(void **state)
{
    (void)state;
    char text[32];
    struct memory *m = memory_new(NULL);
    struct subscriptions s;
    subscriptions_init(&s, 7);
    for (unsigned i = 0; i < MANY; i++) {
        assert_true(subscriptions_add(m, &s, name_of(text, sizeof(text), i)));
    }
    assert_int_equal(s.n, MANY);
    size_t longest = 0;
    for (uint32_t i = 0; i < s.n_buckets; i++) {
        size_t n = 0;
        for (const struct subscription *one = s.buckets[i]; one != NULL;
             one = one->next) {
            n++;
        }
        longest = n > longest ? n : longest;
    }
    assert_in_range(longest, 1, 16); /* else it would be a list */
    for (unsigned i = 0; i < MANY; i += 2) {
        assert_true(
            subscriptions_remove(m, &s, name_of(text, sizeof(text), i)));
    }
    for (unsigned i = 0; i < MANY; i++) {
        bool there =
            subscriptions_find(&s, name_of(text, sizeof(text), i)) != NULL;
        assert_int_equal(there, i % 2);
    }
    unsigned i = 1;
    LIST_FOR_EACH (node, &s.all) {
        assert_true(span_equal(subscription_name(subscription_of(node)),
                               name_of(text, sizeof(text), i)));
        i += 2;
    }
    subscriptions_clear(m, &s);
    memory_free(m);
}

static void a_set_without_memory_stays_whole(void **state)
{
    (void)state;
    char text[32];
    for (size_t fail_at = 0; fail_at < 80; fail_at++) {
        struct failing f = { .left = SIZE_MAX };
        struct allocator allocator = failing_allocator(&f);
        struct memory *m = memory_new(&allocator);
        struct subscriptions s;
        subscriptions_init(&s, 1);
        f.left = fail_at;
        unsigned n = 0;
        while (n < 70 &&
               subscriptions_add(m, &s, name_of(text, sizeof(text), n))) {
            n++;
        }
        f.left = SIZE_MAX;
        assert_int_equal(s.n, n);
        for (unsigned i = 0; i < 70; i++) {
            bool there =
                subscriptions_find(&s, name_of(text, sizeof(text), i)) != NULL;
            assert_int_equal(there, i < n);
        }
        assert_true(subscriptions_add(m, &s, name_of(text, sizeof(text), 99)));
        subscriptions_clear(m, &s);
        memory_free(m);
        assert_int_equal(f.live, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_are_told_apart),
        cmocka_unit_test(replies_are_no_messages),
        cmocka_unit_test(confirmations_are_taken_apart),
        cmocka_unit_test(lines_of_monitor_are_known),
        cmocka_unit_test(a_set_keeps_names_in_order),
        cmocka_unit_test(a_set_of_many_names_is_quick),
        cmocka_unit_test(a_set_without_memory_stays_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
