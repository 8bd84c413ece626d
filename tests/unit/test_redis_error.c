/* What an error reply says: the whole table, and what only looks like it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "parser/redis_error.h"

static enum redis_error_kind kind_of(const char *reply)
{
    return redis_error_parse(span_of(reply)).kind;
}

/* One line as servers write them, for each kind. */
static const struct {
    enum redis_error_kind kind;
    const char *name;
    const char *text;
} table[] = {
    { REDIS_ERROR_OTHER, "ERR", "ERR value is not an integer" },
    { REDIS_ERROR_OTHER, "ERR", "WRONGTYPE Operation against a key" },
    { REDIS_ERROR_LOADING, "LOADING",
      "LOADING Redis is loading the dataset in memory" },
    { REDIS_ERROR_READONLY, "READONLY",
      "READONLY You can't write against a read only replica." },
    { REDIS_ERROR_MASTERDOWN, "MASTERDOWN",
      "MASTERDOWN Link with MASTER is down" },
    { REDIS_ERROR_MISCONF, "MISCONF", "MISCONF Redis is configured to save" },
    { REDIS_ERROR_NOREPLICAS, "NOREPLICAS",
      "NOREPLICAS Not enough good replicas to write." },
    { REDIS_ERROR_BUSY, "BUSY", "BUSY Redis is busy running a script." },
    { REDIS_ERROR_CLUSTERDOWN, "CLUSTERDOWN",
      "CLUSTERDOWN The cluster is down" },
    { REDIS_ERROR_TRYAGAIN, "TRYAGAIN", "TRYAGAIN Multiple keys request" },
    { REDIS_ERROR_MOVED, "MOVED", "MOVED 3999 127.0.0.1:6381" },
    { REDIS_ERROR_ASK, "ASK", "ASK 16383 127.0.0.1:65535" },
    { REDIS_ERROR_UNBLOCKED, "UNBLOCKED",
      "UNBLOCKED force unblock from blocking operation, instance state "
      "changed (master -> replica?)" },
    { REDIS_ERROR_OTHER, "ERR",
      "UNBLOCKED client unblocked via CLIENT "
      "UNBLOCK" },
    { REDIS_ERROR_OTHER, "ERR", "UNBLOCKED the stream key no longer exists" },
    { REDIS_ERROR_NOSCRIPT, "NOSCRIPT", "NOSCRIPT No matching script." },
    { REDIS_ERROR_EXECABORT, "EXECABORT", "EXECABORT Transaction discarded" },
    { REDIS_ERROR_NOAUTH, "NOAUTH", "NOAUTH Authentication required." },
    { REDIS_ERROR_NOPERM, "NOPERM", "NOPERM this user has no permissions" },
    { REDIS_ERROR_WRONGPASS, "WRONGPASS", "WRONGPASS invalid username" },
    { REDIS_ERROR_NOPROTO, "NOPROTO", "NOPROTO unsupported protocol version" },
    { REDIS_ERROR_MAXCLIENTS, "MAXCLIENTS",
      "ERR max number of clients reached" },
    { REDIS_ERROR_UNKNOWN_COMMAND, "UNKNOWN_COMMAND",
      "ERR unknown command 'FOO', with args beginning with: " },
    { REDIS_ERROR_OOM, "OOM", "OOM command not allowed when used memory" },
};

static void each_error_has_its_kind_in_both_protocols(void **state)
{
    (void)state;
    bool seen[REDIS_ERROR_COUNT] = { 0 };

    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        char reply[256];
        (void)snprintf(reply, sizeof reply, "-%s\r\n", table[i].text);
        assert_int_equal(kind_of(reply), table[i].kind);
        (void)snprintf(reply, sizeof reply, "!%zu\r\n%s\r\n",
                       strlen(table[i].text), table[i].text);
        assert_int_equal(kind_of(reply), table[i].kind);
        assert_string_equal(redis_error_name(table[i].kind), table[i].name);
        assert_int_equal(redis_error_not_applied(table[i].kind),
                         table[i].kind != REDIS_ERROR_OTHER);
        seen[table[i].kind] = true;
    }
    for (size_t i = 0; i < REDIS_ERROR_COUNT; i++) {
        assert_true(seen[i]);
    }
}

static void a_word_that_only_begins_like_one_is_another(void **state)
{
    (void)state;
    static const char *const others[] = {
        "-BUSYGROUP Consumer Group name already exists\r\n",
        "-BUSYKEY Target key name already exists.\r\n",
        "-LOADIN x\r\n",
        "-loading x\r\n",
        "-ERR LOADING x\r\n",
        "-ERRmax number of clients reached\r\n",
        "-ERR maximum\r\n",
        "- LOADING\r\n",
        "-\r\n",
        "+LOADING\r\n",
        "-LOADING",
        "!0\r\n\r\n",
        "!5\r\n",
        "",
    };
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        assert_int_equal(kind_of(others[i]), REDIS_ERROR_OTHER);
    }
    assert_int_equal(kind_of("-LOADING\r\n"), REDIS_ERROR_LOADING);
}

static void check_redirection(const char *reply,
                              enum redis_error_kind kind,
                              uint16_t slot,
                              const char *host,
                              uint16_t port)
{
    struct redis_error e = redis_error_parse(span_of(reply));

    assert_int_equal(e.kind, kind);
    if (kind != REDIS_ERROR_OTHER) {
        assert_int_equal(e.slot, slot);
        assert_int_equal(e.port, port);
        assert_true(span_equal(e.host, span_of(host)));
    }
}

static void redirections_are_read_and_ranges_are_checked(void **state)
{
    (void)state;
    const enum redis_error_kind moved = REDIS_ERROR_MOVED;
    const enum redis_error_kind other = REDIS_ERROR_OTHER;

    check_redirection("-MOVED 0 h:1\r\n", moved, 0, "h", 1);
    check_redirection("-MOVED 16383 ::1:65535\r\n", moved, 16383, "::1", 65535);
    check_redirection("-MOVED 5 [::1]:7\r\n", moved, 5, "::1", 7);
    check_redirection("-MOVED 5 :7000\r\n", moved, 5, "", 7000);
    check_redirection("-ASK 5 a.b:7000\r\n", REDIS_ERROR_ASK, 5, "a.b", 7000);
    check_redirection("-MOVED 16384 h:1\r\n", other, 0, "", 0);
    check_redirection("-MOVED -1 h:1\r\n", other, 0, "", 0);
    check_redirection("-MOVED x h:1\r\n", other, 0, "", 0);
    check_redirection("-MOVED 5 h:0\r\n", other, 0, "", 0);
    check_redirection("-MOVED 5 h:65536\r\n", other, 0, "", 0);
    check_redirection("-MOVED 5 h:-1\r\n", other, 0, "", 0);
    check_redirection("-MOVED 5 h:\r\n", other, 0, "", 0);
    check_redirection("-MOVED 5 h\r\n", other, 0, "", 0);
    check_redirection("-MOVED 5\r\n", other, 0, "", 0);
    check_redirection("-MOVED\r\n", other, 0, "", 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_error_has_its_kind_in_both_protocols),
        cmocka_unit_test(a_word_that_only_begins_like_one_is_another),
        cmocka_unit_test(redirections_are_read_and_ranges_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
