/* One command that several nodes answer (redis.md §9 "Commands over several
 * nodes"): with every place a connection can break at, with errors of every
 * kind from one node and from two, and with each allocation failing in turn.
 *
 * How it fails when the core is broken on purpose (each was tried): see
 * the sentences of the tests. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "gather_driver.h"
#include "proxy/core/state.h"

enum {
    KEYS_USED = 12,
    TEXT_MAX = 8000,
    ALLOCATIONS_MAX = 3000,
};

static const uint64_t second_us = 1000000;

/* ---- words ---------------------------------------------------------------------- */

/* "MGET k0 k1 ... k11", over all nodes. With values: for MSET. */
static const char *over_keys(const char *name, bool values)
{
    static char text[TEXT_MAX];
    size_t n = (size_t)snprintf(text, sizeof(text), "%s", name);
    for (int k = 0; k < KEYS_USED; k++) {
        n += (size_t)snprintf(text + n, sizeof(text) - n, " k%d%s", k,
                              values ? " 1" : "");
    }
    return text;
}

static const char *values_of_keys(void)
{
    static char text[TEXT_MAX];
    size_t n = (size_t)snprintf(text, sizeof(text), "*%d\r\n", (int)KEYS_USED);
    for (int k = 0; k < KEYS_USED; k++) {
        n += (size_t)snprintf(text + n, sizeof(text) - n, "$%d\r\nv-k%d\r\n",
                              k < 10 ? 4 : 5, k);
    }
    return text;
}

static void open_with_client(struct world *w, const char *more)
{
    *w = (struct world){ 0 };
    assert_true(world_open(w, more));
    world_client(w);
    assert_true(w->client != 0);
}

static void expect(struct world *w, const char *reply)
{
    assert_string_equal(world_got(w), reply);
    world_forget(w);
}

static void expect_begin(struct world *w, const char *begin)
{
    const char *got = world_got(w);
    if (strncmp(got, begin, strlen(begin)) != 0) {
        fail_msg("%.300s instead of %s", got, begin);
    }
    const char *end = strstr(got, "\r\n");
    assert_non_null(end);
    assert_true(end[2] == '\0'); /* one reply */
    world_forget(w);
}

static void expect_executed(const struct world *w, unsigned times)
{
    for (int k = 0; k < KEYS_USED; k++) {
        assert_int_equal(w->executed[k], times);
    }
}

/* ---- all is well ------------------------------------------------------------------ */

static void each_command_is_answered_once_and_in_order(void **state)
{
    (void)state;
    struct world w;
    for (size_t slice = 0; slice < 40; slice++) {
        open_with_client(&w, NULL);
        w.slice = slice;
        world_say(&w, over_keys("MGET", false));
        world_say(&w, "GET k1");
        world_say(&w, over_keys("MSET", true));
        world_say(&w, over_keys("DEL", false));
        world_say(&w, "MGET k3 n4 k3 k5");
        world_say(&w, "EXISTS k3 n4 k3 k5");
        world_run(&w);
        char all[TEXT_MAX];
        snprintf(all, sizeof(all),
                 "%s$4\r\nv-k1\r\n+OK\r\n:12\r\n"
                 "*4\r\n$4\r\nv-k3\r\n$-1\r\n$4\r\nv-k3\r\n$4\r\nv-k5\r\n"
                 ":4\r\n",
                 values_of_keys());
        expect(&w, all);
        struct upstream_stats s = world_stats(&w);
        assert_int_equal(s.requests, 6);
        assert_int_equal(s.replies, 6);
        assert_int_equal(s.request.count, 6);
        assert_true(s.splits >= 4);
        assert_int_equal(s.groups_exploded, 0);
        assert_int_equal(s.requests_in_flight, 0);
        world_close(&w);
    }
}

static void keys_of_one_slot_travel_as_they_came(void **state)
{
    (void)state;
    struct world w;
    open_with_client(&w, NULL);
    world_say(&w, "MGET {t}1 {t}2");
    world_run(&w);
    expect(&w, "*2\r\n$6\r\nv-{t}1\r\n$6\r\nv-{t}2\r\n");
    assert_int_equal(world_stats(&w).splits, 0);
    world_close(&w);
}

static void a_client_without_replies_gets_none(void **state)
{
    (void)state;
    struct world w;
    open_with_client(&w, NULL);
    world_say(&w, "CLIENT REPLY SKIP");
    world_say(&w, over_keys("MGET", false));
    world_say(&w, "CLIENT REPLY OFF");
    world_say(&w, over_keys("DEL", false));
    world_say(&w, "KEYS *");
    world_say(&w, "CLIENT REPLY ON");
    world_run(&w);
    expect(&w, "+OK\r\n");
    world_close(&w);
}

static void large_values_leave_before_all_are_there(void **state)
{
    (void)state;
    struct world w;
    for (size_t slice = 0; slice < 30000; slice += 9999) {
        open_with_client(&w, "reply_hold_max = 16KiB\n");
        w.slice = slice;
        w.deaf_node = node_of("k0");
        char words[200];
        const char *first = NULL;
        const char *last = "k0";
        for (int k = 0; k < 9; k++) { /* big ones on the other nodes */
            static char name[9][8];
            snprintf(name[k], sizeof(name[k]), "b%d", k);
            first = first == NULL && node_of(name[k]) != w.deaf_node ? name[k]
                                                                     : first;
        }
        snprintf(words, sizeof(words), "MGET %s %s k1 k2", first, last);
        world_say(&w, words);
        world_run(&w);
        size_t early = w.got.size;
        assert_true(early > BIG_BYTES); /* while one node says nothing */
        w.deaf_node = -1;
        world_run(&w);
        assert_int_equal(world_stats(&w).replies_streamed, 1);
        assert_int_equal(world_stats(&w).replies, 1);
        const char *end = "\r\n$4\r\nv-k0\r\n$4\r\nv-k1\r\n$4\r\nv-k2\r\n";
        const char *got = world_got(&w);
        assert_true(strncmp(got, "*4\r\n$", 5) == 0);
        assert_string_equal(got + strlen(got) - strlen(end), end);
        assert_true(strlen(got) < early + strlen(end) + 10);
        world_close(&w);
    }
}

static void a_client_that_leaves_takes_nobody_with_it(void **state)
{
    (void)state;
    struct world w;
    for (size_t slice = 1; slice < 120; slice++) {
        open_with_client(&w, NULL);
        world_say(&w, over_keys("MGET", false));
        w.slice = slice;
        struct link *l = &w.links[0];
        /* one node answers in part */
        for (size_t i = 0; i < w.n_links; i++) {
            l = w.links[i].open && w.links[i].node == 0 ? &w.links[i] : l;
        }
        w.deaf_node = -1;
        world_leave(&w);
        world_client(&w);
        world_say(&w, over_keys("MGET", false));
        world_run(&w);
        expect(&w, values_of_keys());
        assert_int_equal(world_stats(&w).requests_in_flight, 0);
        world_close(&w);
    }
}

/* ---- a connection that breaks ------------------------------------------------------ */

/* What is said to a cluster one of whose connections breaks: after so many
 * bytes, with so many replies read. Returns false when nothing of the request is
 * left that could break later. */
static bool break_once(int node,
                       const char *name,
                       size_t after,
                       size_t replies,
                       bool *more_replies)
{
    struct world w;
    open_with_client(&w, NULL);
    bool pairs = strcmp(name, "MSET") == 0;
    bool counts = strcmp(name, "DEL") == 0;
    world_say(&w, over_keys(name, pairs));
    w.cut_node = node;
    w.cut_after = after;
    w.cut_replies = replies;
    world_pass(&w, second_us);
    assert_int_equal(w.cut_node, -1);
    bool ambiguous = w.cut_executed > replies;
    if (counts && ambiguous) {
        expect_begin(&w, "-UNKNOWNOUTCOME DEL may have been executed: ");
    } else {
        expect(&w, counts ? ":12\r\n" : pairs ? "+OK\r\n" : values_of_keys());
    }
    if (counts) {
        expect_executed(&w, 1); /* never twice, and all of it */
    }
    *more_replies = replies < w.cut_executed;
    bool more = after < w.cut_bytes;
    assert_int_equal(world_stats(&w).requests_in_flight, 0);
    assert_int_equal(world_stats(&w).requests_held, 0);
    assert_int_equal(world_stats(&w).reply_mismatch, 0);
    world_say(&w, "GET k1"); /* and it goes on */
    world_pass(&w, second_us);
    expect(&w, "$4\r\nv-k1\r\n");
    world_close(&w);
    return more;
}

static void a_connection_breaks_at_every_byte(void **state)
{
    (void)state;
    static const char *const names[] = { "MGET", "MSET", "DEL" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        bool more = true;
        for (size_t after = 0; more; after++) {
            bool more_replies = true;
            for (size_t replies = 0; more_replies; replies++) {
                more = break_once(node_of("k0"), names[i], after, replies,
                                  &more_replies);
            }
        }
    }
}

/* ---- errors ------------------------------------------------------------------------- */

static const char *key_name(int k)
{
    static char key[8];
    snprintf(key, sizeof(key), "k%d", k);
    return key;
}

/* Any key of that node. */
static const char *key_of_node(int node, unsigned skip)
{
    static char key[8];
    for (int k = 0; k < KEYS_USED; k++) {
        snprintf(key, sizeof(key), "k%d", k);
        if (node_of(key) == node && skip-- == 0) {
            return key;
        }
    }
    return NULL;
}

static void redirects_of_one_key_are_followed(void **state)
{
    (void)state;
    struct world w;
    for (unsigned i = 0; i < 3 * KEYS_USED; i++) {
        char key[8];
        snprintf(key, sizeof(key), "k%u", i % KEYS_USED);
        for (int moves = 0; moves < 2; moves++) {
            open_with_client(&w, NULL);
            w.slot_moved = 1 + slot_of(key);
            w.moved_to = (node_of(key) + 1) % NODES;
            w.moves = moves == 1;
            const char *name = i < KEYS_USED       ? "MGET"
                               : i < 2 * KEYS_USED ? "MSET"
                                                   : "DEL";
            world_say(&w, over_keys(name, name[1] == 'S'));
            world_pass(&w, second_us);
            expect(&w, name[1] == 'G'   ? values_of_keys()
                       : name[1] == 'S' ? "+OK\r\n"
                                        : ":12\r\n");
            expect_executed(&w, name[1] == 'G' ? 0 : 1);
            struct upstream_stats s = world_stats(&w);
            assert_int_equal(moves == 1 ? s.redirects_ask : s.redirects_moved,
                             1);
            assert_int_equal(s.requests_in_flight, 0);
            world_close(&w);
        }
    }
}

static void a_piece_that_is_refused_is_tried_again(void **state)
{
    (void)state;
    static const char *const errors[] = {
        "-TRYAGAIN Multiple keys request during rehashing of slot\r\n",
        "-LOADING Redis is loading the dataset in memory\r\n",
        "-CLUSTERDOWN The cluster is down\r\n",
    };
    struct world w;
    for (size_t i = 0; i < sizeof errors / sizeof *errors; i++) {
        for (unsigned after = 0; after < 4; after++) {
            for (unsigned times = 1; times < 4; times++) {
                open_with_client(&w, NULL);
                w.error = errors[i];
                w.error_node = node_of("k0");
                w.error_after = after;
                w.errors = times;
                world_say(&w, over_keys("DEL", false));
                world_pass(&w, 5 * second_us);
                world_say(&w, over_keys("MGET", false));
                world_pass(&w, 5 * second_us);
                char both[TEXT_MAX];
                snprintf(both, sizeof(both), ":12\r\n%s", values_of_keys());
                expect(&w, both);
                expect_executed(&w, 1);
                world_close(&w);
            }
        }
    }
}

/* redis.md §4 rule 6: a key that was read meanwhile is not written any more. */
static void a_piece_is_not_tried_again_behind_a_later_one(void **state)
{
    (void)state;
    struct world w;
    open_with_client(&w, NULL);
    w.error = "-TRYAGAIN not now\r\n";
    w.error_node = node_of("k0");
    w.errors = 1;
    world_say(&w, over_keys("DEL", false));
    world_say(&w, over_keys("MGET", false));
    world_pass(&w, 5 * second_us);
    char both[TEXT_MAX];
    snprintf(both, sizeof(both), "%s%s", w.error, values_of_keys());
    expect(&w, both);
    for (int k = 0; k < KEYS_USED; k++) {
        assert_int_equal(w.executed[k],
                         strcmp(key_of_node(w.error_node, 0), key_name(k)) == 0
                             ? 0
                             : 1);
    }
    world_close(&w);
}

/* So many keys of one slot that it is not told apart which they are. */
static void pieces_of_one_request_do_not_overtake_each_other(void **state)
{
    (void)state;
    struct world w;
    char words[TEXT_MAX] = "MSET";
    for (int k = 0; k < 20; k++) {
        size_t n = strlen(words);
        snprintf(words + n, sizeof(words) - n, " {k0}%d 1 {k4}%d 1", k, k);
    }
    for (unsigned after = 0; after < 2; after++) {
        open_with_client(&w, NULL);
        w.error = "-TRYAGAIN not now\r\n";
        w.error_node = node_of("k0");
        w.error_after = after;
        w.errors = 1;
        assert_int_equal(node_of("k0"), node_of("k4"));
        world_say(&w, words);
        world_pass(&w, 5 * second_us);
        expect(&w, "+OK\r\n");
        world_close(&w);
    }
}

static void an_error_of_one_node_is_the_whole_reply(void **state)
{
    (void)state;
    static const char error[] = "-OOM command not allowed\r\n";
    static const char *const names[] = { "MGET", "MSET", "DEL" };
    struct world w;
    for (unsigned i = 0; i < 3; i++) {
        for (int node = 0; node < NODES; node++) {
            for (unsigned after = 0; key_of_node(node, after) != NULL;
                 after++) {
                open_with_client(&w, NULL);
                w.error = error;
                w.error_node = node;
                w.error_after = after;
                w.errors = 1;
                world_say(&w, over_keys(names[i], i == 1));
                world_pass(&w, second_us);
                expect(&w, error);
                world_close(&w);
            }
        }
    }
}

static void the_worst_of_two_errors_is_told(void **state)
{
    (void)state;
    struct world w;
    for (int i = 0; i < 2 * NODES; i++) {
        int node = i % NODES;
        int other = (node + 1) % NODES;
        /* a server's error here, a reply that is lost there; in both orders */
        open_with_client(&w, NULL);
        w.error = "-ERR no\r\n";
        w.error_node = node;
        w.errors = 1;
        w.cut_node = other;
        w.cut_after = SIZE_MAX;
        world_say(&w, over_keys("DEL", false));
        w.deaf_node = i < NODES ? other : node;
        world_run(&w);
        w.deaf_node = -1;
        world_pass(&w, second_us);
        expect_begin(&w, "-UNKNOWNOUTCOME DEL may have been executed: ");
        assert_int_equal(world_stats(&w).unknown_outcome, 1);
        world_close(&w);
    }
}

static void what_was_done_in_part_is_not_called_not_applied(void **state)
{
    (void)state;
    struct world w;
    for (int node = 0; node < NODES; node++) {
        open_with_client(&w, "deadline = 2s\n");
        w.deaf_node = node;
        for (size_t i = 0; i < w.n_links; i++) {
            if (w.links[i].open && w.links[i].node == node) {
                w.links[i].open = false;
                struct event event = { .type = EVENT_CLOSED,
                                       .now_us = w.now_us,
                                       .conn = w.links[i].id,
                                       .error = 1 + IO_RESET };
                engine_step(w.engine, &event);
            }
        }
        world_say(&w, over_keys("DEL", false));
        world_say(&w, over_keys("MGET", false));
        world_pass(&w, 10 * second_us);
        const char *second = strstr(world_got(&w), "\r\n");
        assert_non_null(second);
        assert_true(strncmp(world_got(&w),
                            "-UNKNOWNOUTCOME DEL was executed in part; ",
                            42) == 0);
        assert_true(strncmp(second + 2,
                            "-NOTAPPLIED MGET was not executed: ", 35) == 0);
        assert_int_equal(world_stats(&w).not_applied, 1);
        assert_int_equal(world_stats(&w).unknown_outcome, 1);
        world_forget(&w);
        world_close(&w);
    }
}

/* ---- all nodes ------------------------------------------------------------------------ */

static void commands_for_all_nodes_reach_each_once(void **state)
{
    (void)state;
    static const struct {
        const char *words;
        const char *reply;
    } calls[] = {
        { "DBSIZE", ":33\r\n" },
        { "KEYS *", "*6\r\n$2\r\nx0\r\n$2\r\ny0\r\n$2\r\nx1\r\n$2\r\ny1\r\n"
                    "$2\r\nx2\r\n$2\r\ny2\r\n" },
        { "FLUSHALL", "+OK\r\n" },
        { "SCRIPT EXISTS a b", "*2\r\n:0\r\n:1\r\n" },
    };
    struct world w;
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        for (size_t slice = 0; slice < 20; slice++) {
            open_with_client(&w, NULL);
            w.slice = slice;
            world_say(&w, calls[i].words);
            world_run(&w);
            expect(&w, calls[i].reply);
            for (int node = 0; node < NODES; node++) {
                assert_int_equal(w.flushed[node], 1);
            }
            world_close(&w);
        }
    }
}

static void an_error_of_one_node_is_that_of_all(void **state)
{
    (void)state;
    static const char *const calls[] = { "DBSIZE", "KEYS *", "FLUSHALL",
                                         "SCRIPT EXISTS a b" };
    struct world w;
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        for (int node = 0; node < NODES; node++) {
            open_with_client(&w, NULL);
            w.error = "-NOPERM this user has no permissions\r\n";
            w.error_node = node;
            w.errors = 1;
            world_say(&w, calls[i]);
            world_run(&w);
            expect(&w, w.error);
            world_close(&w);
        }
    }
}

static void a_random_key_is_found_wherever_it_is(void **state)
{
    (void)state;
    struct world w;
    open_with_client(&w, NULL);
    for (int i = 0; i < 20; i++) {
        world_say(&w, "RANDOMKEY");
        world_run(&w);
        expect(&w, "$2\r\nrk\r\n");
    }
    world_close(&w);
}

/* The cursor of the page that the client has got. */
static void take_page(struct world *w, char *cursor, size_t max, char *key)
{
    const char *got = world_got(w);
    unsigned len = 0;
    assert_int_equal(sscanf(got, "*2\r\n$%u\r\n", &len), 1);
    const char *at = strchr(got, '$');
    at = strstr(at, "\r\n") + 2;
    assert_true(len < max);
    memcpy(cursor, at, len);
    cursor[len] = '\0';
    at = strstr(at, "$2\r\n") + 4;
    memcpy(key, at, 2);
    key[2] = '\0';
    world_forget(w);
}

static void a_scan_visits_every_page_of_every_node(void **state)
{
    (void)state;
    static const char *const pages[] = { "s0", "t0", "s1", "t1", "s2", "t2" };
    struct world w;
    open_with_client(&w, NULL);
    char cursor[32] = "0";
    for (int i = 0; i < 6; i++) {
        char words[64];
        char key[3];
        snprintf(words, sizeof(words), "SCAN %s COUNT 10", cursor);
        world_say(&w, words);
        world_run(&w);
        take_page(&w, cursor, sizeof(cursor), key);
        assert_string_equal(key, pages[i]);
        assert_true((strcmp(cursor, "0") == 0) == (i == 5));
    }
    /* A cursor of a node that begins elsewhere now: the one that has its lowest
     * slot is walked as a whole. */
    char key[3];
    world_say(&w, "SCAN 7777777777777");
    world_run(&w);
    take_page(&w, cursor, sizeof(cursor), key);
    assert_int_equal(key[0], 's');
    assert_string_not_equal(cursor, "0");
    world_close(&w);
}

/* ---- memory ----------------------------------------------------------------------------- */

static void talk_well(struct world *w)
{
    world_say(w, over_keys("MGET", false));
    world_say(w, over_keys("DEL", false));
    world_say(w, "KEYS *");
    world_run(w);
    world_say(w, "SCAN 0");
    world_say(w, "RANDOMKEY");
    world_say(w, "SCRIPT EXISTS a b");
    world_say(w, "MGET b1 b2 b3 b4 b5");
    world_run(w);
}

static void talk_with_a_break(struct world *w)
{
    world_say(w, over_keys("MGET", false));
    world_say(w, over_keys("DEL", false));
    w->cut_node = node_of("k0");
    w->cut_after = 90;
    w->cut_replies = 1;
    world_pass(w, second_us);
}

static void talk_with_redirects(struct world *w)
{
    w->slot_moved = 1 + slot_of("k0");
    w->moved_to = (node_of("k0") + 1) % NODES;
    w->moves = true;
    world_say(w, over_keys("MGET", false));
    world_say(w, over_keys("DEL", false));
    world_pass(w, second_us);
}

static void talk_in_pieces(struct world *w)
{
    w->slice = 11;
    world_say(w, over_keys("MGET", false));
    world_say(w, "SCAN 0");
    world_say(w, "KEYS *");
    world_run(w);
}

static void whatever_allocation_fails_nothing_is_lost(void **state)
{
    (void)state;
    static void (*const talks[])(struct world *) = {
        talk_well, talk_with_a_break, talk_with_redirects, talk_in_pieces
    };
    for (size_t i = 0; i < 2 * (sizeof talks / sizeof *talks); i++) {
        size_t calls = 0;
        size_t n = 1;
        for (;; n++) {
            struct world w;
            assert_true(n < ALLOCATIONS_MAX);
            open_with_client(&w, "reply_hold_max = 16KiB\n");
            size_t before = w.memory.calls;
            w.fail_at = before + n;
            w.fail_on = i % 2 == 1;
            talks[i / 2](&w);
            calls = w.memory.calls - before;
            w.fail_at = 0;
            for (int k = 0; k < KEYS_USED; k++) {
                assert_true(w.executed[k] <= 1);
            }
            world_pass(&w, 20 * second_us); /* there is memory again */
            assert_int_equal(world_stats(&w).reply_mismatch, 0);
            if (w.client != 0) {
                struct upstream_stats s = world_stats(&w);
                assert_int_equal(s.requests, s.replies);
                world_leave(&w);
            }
            assert_int_equal(world_stats(&w).requests_in_flight, 0);
            world_forget(&w);
            w.slice = 0;
            w.slot_moved = 0;
            world_client(&w);
            world_say(&w, over_keys("MGET", false));
            world_pass(&w, 5 * second_us);
            expect(&w, values_of_keys());
            world_close(&w);
            if (n > calls) {
                break; /* nothing has failed any more */
            }
        }
        assert_true(n > 20);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_command_is_answered_once_and_in_order),
        cmocka_unit_test(keys_of_one_slot_travel_as_they_came),
        cmocka_unit_test(a_client_without_replies_gets_none),
        cmocka_unit_test(large_values_leave_before_all_are_there),
        cmocka_unit_test(a_client_that_leaves_takes_nobody_with_it),
        cmocka_unit_test(a_connection_breaks_at_every_byte),
        cmocka_unit_test(redirects_of_one_key_are_followed),
        cmocka_unit_test(a_piece_that_is_refused_is_tried_again),
        cmocka_unit_test(a_piece_is_not_tried_again_behind_a_later_one),
        cmocka_unit_test(pieces_of_one_request_do_not_overtake_each_other),
        cmocka_unit_test(an_error_of_one_node_is_the_whole_reply),
        cmocka_unit_test(the_worst_of_two_errors_is_told),
        cmocka_unit_test(what_was_done_in_part_is_not_called_not_applied),
        cmocka_unit_test(commands_for_all_nodes_reach_each_once),
        cmocka_unit_test(an_error_of_one_node_is_that_of_all),
        cmocka_unit_test(a_random_key_is_found_wherever_it_is),
        cmocka_unit_test(a_scan_visits_every_page_of_every_node),
        cmocka_unit_test(whatever_allocation_fails_nothing_is_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
