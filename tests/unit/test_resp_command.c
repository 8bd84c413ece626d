/* What clients send: multibulk and inline, with Redis' own words for what is
 * wrong. The errors and splittings here were compared with a server 7.0. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "parser/resp_command.h"

static const struct command_limits limits = { .bulk_max = 512 * 1024 * 1024,
                                              .args_max = 1024 * 1024 };

/* Scan bytes that lie in memory of exactly their size. */
static enum scan scan_exact(struct command_scanner *s,
                            const char *text,
                            size_t size,
                            size_t *used)
{
    uint8_t *copy = malloc(size == 0 ? 1 : size);
    assert_non_null(copy);
    memcpy(copy, text, size);
    enum scan scan = command_scan(s, &limits, copy, size, used);
    free(copy);
    return scan;
}

static const struct {
    const char *text;
    uint32_t argc;
    bool is_inline;
} commands[] = {
    { "*1\r\n$4\r\nPING\r\n", 1, false },
    { "*2\r\n$3\r\nGET\r\n$0\r\n\r\n", 2, false },
    { "*3\r\n$3\r\nSET\r\n$12\r\n*1\r\n$1\r\na\r\n.\r\n$1\r\nv\r\n", 3, false },
    { "*5\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n$1\r\ne\r\n", 5,
      false },
    /* a server does not look at the line ends it knows the place of */
    { "*1\rX$4\rYPINGab", 1, false },
    { "*0\r\n", 0, false },
    { "*-1\r\n", 0, false },
    { "*-7\r\n", 0, false },
    { "PING\r\n", 1, true },
    { "set a \"b c\"\n", 1, true },
    { "\r\n", 0, true },
    { "\n", 0, true },
    { "  \r\n", 1, true },
    { "x\n", 1, true },
};

enum {
    COMMANDS = sizeof commands / sizeof commands[0]
};

static void check_done(const struct command_scanner *s, size_t i)
{
    assert_int_equal(s->argc, commands[i].argc);
    assert_int_equal(s->seen, commands[i].argc);
    assert_int_equal(s->is_inline, commands[i].is_inline);
    assert_int_equal(s->bytes, strlen(commands[i].text));
    assert_null(s->error);
}

/* The arguments that a scanner has placed are the splitter's. */
static void check_arguments(const struct command_scanner *s, const char *text)
{
    struct span args[8] = { { 0 } };
    size_t argc = command_split(span_of(text), args, 8);

    if (argc == 0) {
        return; /* inline, or nothing to do */
    }
    assert_int_equal(argc, s->argc);
    for (uint32_t i = 0; i < argc && i < COMMAND_ARGS_KEPT; i++) {
        assert_int_equal(s->arg[i].len, args[i].len);
        assert_ptr_equal(text + s->arg[i].offset, args[i].data);
    }
}

static void a_command_ends_where_it_ends_at_every_split(void **state)
{
    (void)state;
    struct command_scanner s;
    size_t used = 0;

    command_scanner_init(&s);
    for (size_t i = 0; i < COMMANDS; i++) {
        const char *text = commands[i].text;
        size_t len = strlen(text);
        for (size_t cut = 0; cut < len; cut++) {
            assert_int_equal(scan_exact(&s, text, cut, &used), SCAN_MORE);
            assert_int_equal(used, cut);
            assert_int_equal(scan_exact(&s, text + cut, len - cut, &used),
                             SCAN_DONE);
            assert_int_equal(used, len - cut);
            check_done(&s, i);
            check_arguments(&s, text);
        }
    }
}

static void a_command_ends_where_it_ends_byte_by_byte(void **state)
{
    (void)state;
    struct command_scanner s;
    size_t used = 0;

    command_scanner_init(&s);
    for (size_t i = 0; i < COMMANDS; i++) {
        size_t len = strlen(commands[i].text);
        for (size_t b = 0; b < len; b++) {
            assert_int_equal(scan_exact(&s, commands[i].text + b, 1, &used),
                             b + 1 < len ? SCAN_MORE : SCAN_DONE);
        }
        check_done(&s, i);
        check_arguments(&s, commands[i].text);
    }
}

static void of_two_commands_only_the_first_is_taken(void **state)
{
    (void)state;
    struct command_scanner s;
    char text[256];
    size_t used = 0;

    command_scanner_init(&s);
    for (size_t i = 0; i < COMMANDS; i++) {
        (void)snprintf(text, sizeof text, "%s*1\r\n$4\r\nPING\r\n",
                       commands[i].text);
        assert_int_equal(scan_exact(&s, text, strlen(text), &used), SCAN_DONE);
        check_done(&s, i);
        assert_int_equal(used, strlen(commands[i].text));
    }
}

static void check_error(const char *text, size_t len, const char *error)
{
    struct command_scanner s;
    size_t used = 0;

    command_scanner_init(&s);
    assert_int_equal(scan_exact(&s, text, len, &used), SCAN_INVALID);
    assert_string_equal(s.error, error);
    assert_int_equal(scan_exact(&s, "PING\r\n", 6, &used), SCAN_INVALID);
    assert_int_equal(used, 0);

    command_scanner_init(&s);
    enum scan scan = SCAN_MORE;
    for (size_t i = 0; i < len && scan == SCAN_MORE; i++) {
        scan = scan_exact(&s, text + i, 1, &used);
    }
    assert_int_equal(scan, SCAN_INVALID);
    assert_string_equal(s.error, error);
}

static void protocol_errors_have_the_words_of_redis(void **state)
{
    (void)state;
    static const char count[] = "Protocol error: invalid multibulk length";
    static const char length[] = "Protocol error: invalid bulk length";
    static const struct {
        const char *text;
        const char *error;
    } bad[] = {
        { "*x\r\n", count },
        { "*\r\n", count },
        { "*01\r\n", count },
        { "*-0\r\n", count },
        { "*--1\r\n", count },
        { "*+1\r\n", count },
        { "* 1\r\n", count },
        { "*1 \r\n", count },
        { "*1048577\r\n", count },
        { "*2147483648\r\n", count },
        { "*9223372036854775808\r\n", count },
        { "*99999999999999999999999\r\n", count },
        { "*1\r\nfoo\r\n", "Protocol error: expected '$', got 'f'" },
        { "*1\r\n*1\r\n", "Protocol error: expected '$', got '*'" },
        { "*1\r\n\r\n", "Protocol error: expected '$', got ' '" },
        { "*1\r\n\n\r\n", "Protocol error: expected '$', got ' '" },
        { "*1\r\n$-1\r\n", length },
        { "*1\r\n$x\r\n", length },
        { "*1\r\n$\r\n", length },
        { "*1\r\n$01\r\n", length },
        { "*1\r\n$4 \r\nPING\r\n", length },
        { "*1\r\n$536870913\r\n", length },
        { "*2\r\n$1\r\na\r\n$999999999999999999999\r\n", length },
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        check_error(bad[i].text, strlen(bad[i].text), bad[i].error);
    }
}

static void a_line_is_refused_only_when_it_has_ended(void **state)
{
    (void)state;
    static const char *const waiting[] = { "*x", "*x\r", "*1\r\nfoo",
                                           "*1\r\nfoo\r", "*1\r\n$x\r" };
    struct command_scanner s;
    size_t used = 0;

    for (size_t i = 0; i < sizeof waiting / sizeof waiting[0]; i++) {
        command_scanner_init(&s);
        assert_int_equal(scan_exact(&s, waiting[i], strlen(waiting[i]), &used),
                         SCAN_MORE);
    }
}

/* A line that begins so, at line_begin, and goes on with digits. */
static void check_long_line(const char *prefix,
                            size_t line_begin,
                            const char *error)
{
    const size_t max = 64 * 1024;
    char *text = malloc(line_begin + max + 1);
    struct command_scanner s;
    size_t used = 0;

    assert_non_null(text);
    memset(text, '1', line_begin + max + 1);
    memcpy(text, prefix, strlen(prefix));
    command_scanner_init(&s);
    assert_int_equal(scan_exact(&s, text, line_begin + max, &used), SCAN_MORE);
    assert_int_equal(scan_exact(&s, "1", 1, &used), SCAN_INVALID);
    assert_string_equal(s.error, error);
    check_error(text, line_begin + max + 1, error);
    free(text);
}

static void endless_lines_meet_their_limit(void **state)
{
    (void)state;
    check_long_line("*", 0, "Protocol error: too big mbulk count string");
    check_long_line("*1\r\n$", 4, "Protocol error: too big bulk count string");
    check_long_line("1", 0, "Protocol error: too big inline request");
}

static void a_nul_hides_the_end_of_an_inline_command(void **state)
{
    (void)state;
    struct command_scanner s;
    size_t used = 0;

    command_scanner_init(&s);
    assert_int_equal(scan_exact(&s, "get a\0b\r\n", 9, &used), SCAN_MORE);
    assert_int_equal(scan_exact(&s, "get a\r\n", 7, &used), SCAN_MORE);
}

static void limits_hold_to_the_last_unit(void **state)
{
    (void)state;
    const struct command_limits narrow = { .bulk_max = 3, .args_max = 2 };
    static const struct {
        const char *text;
        enum scan scan;
    } cases[] = {
        { "*2\r\n$3\r\nabc\r\n$0\r\n\r\n", SCAN_DONE },
        { "*3\r\n$1\r\na\r\n$1\r\na\r\n$1\r\na\r\n", SCAN_INVALID },
        { "*1\r\n$4\r\nabcd\r\n", SCAN_INVALID },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct command_scanner s;
        size_t used = 0;
        command_scanner_init(&s);
        assert_int_equal(command_scan(&s, &narrow,
                                      (const uint8_t *)cases[i].text,
                                      strlen(cases[i].text), &used),
                         cases[i].scan);
    }
}

static void splitting_wants_exactly_one_command(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "*",
        "*1",
        "*1\r\n",
        "*1\r\n$1\r\na\r",
        "*1\r\n$1\r\na\r\n*",
        "*2\r\n$1\r\na\r\n",
        "*1\r\n+a\r\n..",
        "*1\r\n$999999999999999999\r\na\r\n",
        "*-1\r\n",
        "*0\r\n",
        "PING\r\n",
        "*1\r\n$-1\r\n..",
    };
    struct span args[2];

    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(command_split(span_of(bad[i]), args, 2), 0);
    }
    assert_int_equal(command_split((struct span){ 0 }, args, 2), 0);
    const struct span three =
        span_of("*3\r\n$1\r\na\r\n$2\r\nbc\r\n$1\r\nd\r\n");
    assert_int_equal(command_split(three, args, 2), 3);
    assert_true(span_equal(args[1], span_of("bc")));
    assert_int_equal(command_split(three, NULL, 0), 3);
}

/* ---- inline ---- */

static void check_inline(const char *line, const char *expected)
{
    size_t len = strlen(line);
    size_t max = 16 * len + 64;
    uint8_t *copy = malloc(len + 1);
    uint8_t *out = malloc(max);

    assert_non_null(copy);
    assert_non_null(out);
    memcpy(copy, line, len);
    int64_t written =
        command_from_inline((struct span){ .data = copy, .len = len }, out,
                            max);
    if (expected == NULL) {
        assert_int_equal(written, -1);
    } else {
        assert_int_equal(written, strlen(expected));
        assert_memory_equal(out, expected, strlen(expected));
    }
    free(copy);
    free(out);
}

static void inline_commands_split_as_redis_splits_them(void **state)
{
    (void)state;
    check_inline("PING\r\n", "*1\r\n$4\r\nPING\r\n");
    check_inline("PING\n", "*1\r\n$4\r\nPING\r\n");
    check_inline("  get\t a \r\n", "*2\r\n$3\r\nget\r\n$1\r\na\r\n");
    check_inline("\r\n", "");
    check_inline(" \t \n", "");
    check_inline("", "");
    check_inline("a \"b c\" 'd e'\r\n",
                 "*3\r\n$1\r\na\r\n$3\r\nb c\r\n$3\r\nd e\r\n");
    check_inline("\"\" ''\r\n", "*2\r\n$0\r\n\r\n$0\r\n\r\n");
    check_inline("\"\\x41\\n\\r\\t\\a\\b\\\"\\\\\\q\"\r\n",
                 "*1\r\n$9\r\nA\n\r\t\a\b\"\\q\r\n");
    check_inline("\"\\xZZ\\x4\"\r\n", "*1\r\n$5\r\nxZZx4\r\n");
    check_inline("'it\\'s \\n'\r\n", "*1\r\n$7\r\nit's \\n\r\n");
    check_inline("a\"b c\"\r\n", "*1\r\n$4\r\nab c\r\n");
    check_inline("\\x41\r\n", "*1\r\n$4\r\n\\x41\r\n");
    check_inline("\v\f a\vb\r\n", "*1\r\n$3\r\na\vb\r\n");
    check_inline("a\rb\r\n", "*2\r\n$1\r\na\r\n$1\r\nb\r\n");
    check_inline("\"a\"\vb\r\n", "*2\r\n$1\r\na\r\n$1\r\nb\r\n");
    /* a header longer than its word, many times */
    check_inline("a b c d e f g h i j\n",
                 "*10\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n$1\r\nd\r\n"
                 "$1\r\ne\r\n$1\r\nf\r\n$1\r\ng\r\n$1\r\nh\r\n$1\r\ni\r\n"
                 "$1\r\nj\r\n");
}

static void unbalanced_quotes_are_refused(void **state)
{
    (void)state;
    check_inline("\"a\r\n", NULL);
    check_inline("'a\r\n", NULL);
    check_inline("\"\r\n", NULL);
    check_inline("\"a\\\"\r\n", NULL);
    check_inline("'a\\'\r\n", NULL);
    check_inline("\"a\"b\r\n", NULL);
    check_inline("'a''b'\r\n", NULL);
    check_inline("ok \"a\\\r\n", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_command_ends_where_it_ends_at_every_split),
        cmocka_unit_test(a_command_ends_where_it_ends_byte_by_byte),
        cmocka_unit_test(of_two_commands_only_the_first_is_taken),
        cmocka_unit_test(protocol_errors_have_the_words_of_redis),
        cmocka_unit_test(a_line_is_refused_only_when_it_has_ended),
        cmocka_unit_test(endless_lines_meet_their_limit),
        cmocka_unit_test(a_nul_hides_the_end_of_an_inline_command),
        cmocka_unit_test(limits_hold_to_the_last_unit),
        cmocka_unit_test(splitting_wants_exactly_one_command),
        cmocka_unit_test(inline_commands_split_as_redis_splits_them),
        cmocka_unit_test(unbalanced_quotes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
