/* The bodies of scripts that are remembered: found by their SHA1, bounded, and
 * forgotten in the right order.
 *
 * How each property fails when the core is broken on purpose (each was tried):
 *
 * - a_body_is_found_by_its_sha1: names not computed before the search; bytes of
 *   SCRIPT LOAD in front of the body hashed, too.
 * - bodies_that_change_push_out_only_each_other: one list for all.
 * - what_was_seen_twice_stays: a body found again left where it is.
 * - what_a_client_missed_stays: is_wanted() not asked.
 * - it_never_takes_more_than_its_share: eviction by the number of bodies alone.
 * - their_number_is_bounded_too: eviction by bytes alone.
 * - a_name_that_nobody_brings_is_not_looked_for_for_ever: tries not counted.
 * - without_memory_nothing_is_remembered: a failed allocation taken for one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "failing_allocator.h"
#include "proxy/core/scripts.h"

enum {
    SMALL = 16 * 1024
};

struct store {
    struct failing failing;
    struct memory *memory;
    struct scripts scripts;
};

static int set_up(void **state)
{
    struct store *s = calloc(1, sizeof(*s));
    assert_non_null(s);
    s->failing.left = SIZE_MAX;
    struct allocator a = failing_allocator(&s->failing);
    s->memory = memory_new(&a);
    assert_non_null(s->memory);
    scripts_init(&s->scripts, SMALL);
    *state = s;
    return 0;
}

static int tear_down(void **state)
{
    struct store *s = *state;
    scripts_fini(s->memory, &s->scripts);
    memory_free(s->memory);
    assert_int_equal(s->failing.live, 0);
    free(s);
    return 0;
}

static void add(struct store *s, const char *body, bool loaded)
{
    scripts_add(s->memory, &s->scripts, span_of(body), loaded);
}

static void name_of(const char *body, char name[SHA1_HEX + 1])
{
    struct sha1 sha1 = sha1_of(span_of(body));
    for (size_t i = 0; i < SHA1_BYTES; i++) {
        snprintf(name + 2 * i, 3, "%02x", sha1.byte[i]);
    }
}

static const struct script *find(struct store *s, const char *body)
{
    char name[SHA1_HEX + 1];
    name_of(body, name);
    return scripts_find(&s->scripts, span_of(name));
}

static void add_numbered(struct store *s, unsigned from, unsigned n)
{
    char body[100];
    for (unsigned i = from; i < from + n; i++) {
        snprintf(body, sizeof(body), "return %u -- once", i);
        add(s, body, false);
    }
}

static void assert_bounded(const struct scripts *s)
{
    assert_true(s->kept_bytes + s->once_bytes <= s->bytes_max);
    assert_true(s->n <= SCRIPTS_MAX);
}

static void a_body_is_found_by_its_sha1(void **state)
{
    struct store *s = *state;
    add(s, "return 1", false);
    add(s, "return 2", true);
    add(s, "", true);
    const struct script *one = find(s, "return 1");
    assert_non_null(one);
    assert_true(span_equal(
        script_load(one),
        span_of("*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n$8\r\nreturn 1\r\n")));
    assert_non_null(find(s, "return 2"));
    assert_non_null(find(s, ""));
    assert_null(find(s, "return 3"));
    assert_non_null(
        scripts_find(&s->scripts,
                     span_of("E0E1F9FABFC9D4800C877A703B823AC0578FF8DB")));
    assert_null(scripts_find(&s->scripts, span_of("e0e1")));
    assert_int_equal(s->scripts.n, 3);
}

static void the_same_body_is_kept_once(void **state)
{
    struct store *s = *state;
    add(s, "return 1", false);
    add(s, "return 1", false);
    add(s, "return 1", true);
    assert_int_equal(s->scripts.n, 1);
    assert_non_null(find(s, "return 1"));
    add(s, "return 1", false); /* also when it has its name */
    assert_int_equal(s->scripts.n, 1);
}

static void what_it_may_do_is_known(void **state)
{
    struct store *s = *state;
    const char reads[] = "#!lua flags=no-writes\nreturn 1";
    const char says[] = "return redis.error_reply('NOSCRIPT No')";
    add(s, reads, true);
    add(s, says, true);
    add(s, "return NO_SCRIPT", true);
    assert_true(find(s, reads)->no_writes);
    assert_false(find(s, reads)->says_itself);
    assert_true(find(s, says)->says_itself);
    assert_false(find(s, says)->no_writes);
    assert_false(find(s, "return NO_SCRIPT")->says_itself);
}

static void bodies_that_change_push_out_only_each_other(void **state)
{
    struct store *s = *state;
    add(s, "return 'loaded'", true);
    add(s, "return 'twice'", false);
    add(s, "return 'twice'", false);
    add_numbered(s, 0, 2000);
    assert_bounded(&s->scripts);
    assert_true(s->scripts.evicted > 1900);
    assert_non_null(find(s, "return 'loaded'"));
    assert_non_null(find(s, "return 'twice'"));
    assert_null(find(s, "return 0 -- once"));
    assert_non_null(find(s, "return 1999 -- once"));
}

static void what_was_seen_twice_stays(void **state)
{
    struct store *s = *state;
    add(s, "return 'a'", false);
    add_numbered(s, 0, 5);
    add(s, "return 'a'", false);
    add_numbered(s, 5, 500);
    assert_non_null(find(s, "return 'a'"));
}

static void what_was_used_last_stays_longest(void **state)
{
    struct store *s = *state;
    char body[100];
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(body, sizeof(body), "return %u -- loaded", i);
        add(s, body, true);
        add(s, "return 'a'", true);
    }
    assert_bounded(&s->scripts);
    assert_non_null(find(s, "return 'a'"));
    assert_null(find(s, "return 0 -- loaded"));
    assert_non_null(find(s, "return 999 -- loaded"));
}

static void what_a_client_missed_stays(void **state)
{
    struct store *s = *state;
    char name[SHA1_HEX + 1];
    name_of("return 'wanted'", name);
    scripts_want(&s->scripts, span_of(name));
    scripts_want(&s->scripts, span_of(name));
    scripts_want(&s->scripts, span_of("no name"));
    add_numbered(s, 0, 10);
    add(s, "return 'wanted'", false);
    add_numbered(s, 10, 500);
    assert_non_null(find(s, "return 'wanted'"));
    assert_int_equal(s->scripts.n_wanted, 0);
}

static void a_name_that_nobody_brings_is_not_looked_for_for_ever(void **state)
{
    struct store *s = *state;
    for (unsigned i = 0; i < 3 * SCRIPTS_WANTED_MAX; i++) {
        char name[SHA1_HEX + 1];
        char body[32];
        snprintf(body, sizeof(body), "return 'missing %u'", i);
        name_of(body, name);
        scripts_want(&s->scripts, span_of(name));
        assert_true(s->scripts.n_wanted <= SCRIPTS_WANTED_MAX);
    }
    assert_int_equal(s->scripts.n_wanted, SCRIPTS_WANTED_MAX);
    add_numbered(s, 0, SCRIPTS_WANTED_TRIES);
    assert_int_equal(s->scripts.n_wanted, 0);
    scripts_clear(s->memory, &s->scripts);
    add_numbered(s, 1000, 1);
    const struct script *newest =
        CONTAINER_OF(s->scripts.once.prev, struct script, use);
    assert_false(newest->named); /* no SHA1 is computed any more */
}

static void it_never_takes_more_than_its_share(void **state)
{
    struct store *s = *state;
    char *body = malloc(SMALL + 1);
    assert_non_null(body);
    for (unsigned i = 0; i < 3000; i++) {
        size_t len = (size_t)(i * 7919u) % SMALL;
        memset(body, 'a' + (int)(i % 26), len);
        body[len] = '\0';
        add(s, body, i % 3 == 0);
        assert_bounded(&s->scripts);
    }
    /* What is too large for its part is not kept, and makes no room. */
    scripts_clear(s->memory, &s->scripts);
    add(s, "return 'a'", true);
    memset(body, 'x', SMALL);
    body[SMALL] = '\0';
    add(s, body, true);
    body[SMALL / 4] = '\0';
    add(s, body, false);
    assert_int_equal(s->scripts.n, 1);
    add(s, body, true);
    assert_int_equal(s->scripts.n, 2);
    free(body);
}

static void their_number_is_bounded_too(void **state)
{
    struct store *s = *state;
    s->scripts.bytes_max = 1u << 30;
    add(s, "return 'a'", true);
    add_numbered(s, 0, SCRIPTS_MAX + 100);
    assert_int_equal(s->scripts.n, SCRIPTS_MAX);
    assert_non_null(find(s, "return 'a'"));
    assert_null(find(s, "return 0 -- once"));
}

static void clear_forgets_all(void **state)
{
    struct store *s = *state;
    add(s, "return 1", true);
    assert_non_null(find(s, "return 1"));
    add(s, "return 2", false);
    scripts_clear(s->memory, &s->scripts);
    assert_null(find(s, "return 1"));
    assert_null(find(s, "return 2"));
    assert_int_equal(s->scripts.kept_bytes + s->scripts.once_bytes, 0);
    add(s, "return 1", true);
    assert_non_null(find(s, "return 1"));
}

static void of_no_bytes_nothing_is_remembered(void **state)
{
    struct store *s = *state;
    scripts_init(&s->scripts, 0);
    add(s, "return 1", true);
    scripts_want(&s->scripts,
                 span_of("e0e1f9fabfc9d4800c877a703b823ac0578ff8db"));
    assert_null(find(s, "return 1"));
    assert_int_equal(s->scripts.n_wanted, 0);
}

static void without_memory_nothing_is_remembered(void **state)
{
    struct store *s = *state;
    for (size_t left = 0; left < 3; left++) {
        scripts_fini(s->memory, &s->scripts);
        scripts_init(&s->scripts, SMALL);
        s->failing.left = left;
        add(s, "return 1", true);
        s->failing.left = SIZE_MAX;
        assert_int_equal(find(s, "return 1") != NULL, left >= 2);
        assert_bounded(&s->scripts);
        add(s, "return 2", false);
        assert_non_null(find(s, "return 2"));
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(a_body_is_found_by_its_sha1),
        TEST(the_same_body_is_kept_once),
        TEST(what_it_may_do_is_known),
        TEST(bodies_that_change_push_out_only_each_other),
        TEST(what_was_seen_twice_stays),
        TEST(what_was_used_last_stays_longest),
        TEST(what_a_client_missed_stays),
        TEST(a_name_that_nobody_brings_is_not_looked_for_for_ever),
        TEST(it_never_takes_more_than_its_share),
        TEST(their_number_is_bounded_too),
        TEST(clear_forgets_all),
        TEST(of_no_bytes_nothing_is_remembered),
        TEST(without_memory_nothing_is_remembered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
