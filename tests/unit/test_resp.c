/* The framer: every type, every split, every limit, and hiredis beside it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <hiredis/hiredis.h>

#include "parser/resp.h"

static const struct resp_limits wide = { .bulk_max = 512 * 1024 * 1024,
                                         .elements_max = 1024 * 1024 };

/* Messages, each with the type that its scanner must tell. */
static const struct {
    const char *text;
    char type;
    bool attribute;
} messages[] = {
    { "+OK\r\n", '+', false },
    { "+\r\n", '+', false },
    { "-ERR a b c\r\n", '-', false },
    { ":0\r\n", ':', false },
    { ":-9223372036854775808\r\n", ':', false },
    { "$0\r\n\r\n", '$', false },
    { "$5\r\nhello\r\n", '$', false },
    { "$6\r\n\r\n+a\r\n\r\n", '$', false },
    { "$12\r\n0123456789ab\r\n", '$', false },
    { "$-1\r\n", '$', false },
    { "*-1\r\n", '*', false },
    { "*0\r\n", '*', false },
    { "*2\r\n$1\r\na\r\n$-1\r\n", '*', false },
    { "*2\r\n*2\r\n:1\r\n*0\r\n*1\r\n*1\r\n*-1\r\n", '*', false },
    { "_\r\n", '_', false },
    { "#t\r\n", '#', false },
    { ",1.23e-5\r\n", ',', false },
    { ",inf\r\n", ',', false },
    { "(3492890328409238509324850943850943825024385\r\n", '(', false },
    { "!21\r\nSYNTAX invalid syntax\r\n", '!', false },
    { "=15\r\ntxt:Some string\r\n", '=', false },
    { "%2\r\n+a\r\n:1\r\n+b\r\n%1\r\n_\r\n#f\r\n", '%', false },
    { "%0\r\n", '%', false },
    { "~3\r\n+a\r\n~0\r\n,1\r\n", '~', false },
    { ">3\r\n+message\r\n+channel\r\n$2\r\nhi\r\n", '>', false },
    { "*2\r\n>3\r\n+message\r\n+channel\r\n$2\r\nhi\r\n:1\r\n$1\r\n1\r\n", '*',
      false },
    { "*1\r\n>1\r\n+a\r\n>2\r\n+b\r\n+c\r\n:1\r\n", '*', false },
    { "|1\r\n+ttl\r\n:3600\r\n$1\r\nx\r\n", '$', true },
    { "|0\r\n+x\r\n", '+', true },
    { "|2\r\n+a\r\n*2\r\n:1\r\n:2\r\n+b\r\n%1\r\n+c\r\n+d\r\n*1\r\n:9\r\n", '*',
      true },
    { "|1\r\n+a\r\n|1\r\n+b\r\n+c\r\n+d\r\n_\r\n", '_', true },
    { "*2\r\n:1\r\n|1\r\n+k\r\n+v\r\n:2\r\n", '*', false },
    { "*1\r\n|1\r\n+k\r\n*0\r\n|0\r\n$-1\r\n", '*', false },
};

enum {
    MESSAGES = sizeof messages / sizeof messages[0]
};

/* Scan bytes that lie in memory of exactly their size. */
static enum scan scan_exact(struct resp_scanner *s,
                            const struct resp_limits *limits,
                            const char *text,
                            size_t size,
                            size_t *used)
{
    uint8_t *copy = malloc(size == 0 ? 1 : size);
    assert_non_null(copy);
    memcpy(copy, text, size);
    enum scan scan = resp_scan(s, limits, copy, size, used);
    free(copy);
    return scan;
}

static void assert_done(const struct resp_scanner *s,
                        size_t message,
                        uint64_t bytes)
{
    assert_int_equal(s->type, messages[message].type);
    assert_int_equal(s->attribute, messages[message].attribute);
    assert_int_equal(s->bytes, bytes);
    assert_null(s->error);
}

static void a_message_ends_where_it_ends_at_every_split(void **state)
{
    (void)state;
    struct resp_scanner s;
    size_t used = 0;

    resp_scanner_init(&s);
    for (size_t m = 0; m < MESSAGES; m++) {
        const char *text = messages[m].text;
        size_t len = strlen(text);
        for (size_t cut = 0; cut < len; cut++) {
            assert_int_equal(scan_exact(&s, &wide, text, cut, &used),
                             SCAN_MORE);
            assert_int_equal(used, cut);
            assert_int_equal(scan_exact(&s, &wide, text + cut, len - cut,
                                        &used),
                             SCAN_DONE);
            assert_int_equal(used, len - cut);
            assert_done(&s, m, len);
        }
    }
}

static void a_message_ends_where_it_ends_byte_by_byte(void **state)
{
    (void)state;
    struct resp_scanner s;
    size_t used = 0;

    resp_scanner_init(&s);
    for (size_t m = 0; m < MESSAGES; m++) {
        size_t len = strlen(messages[m].text);
        for (size_t i = 0; i < len; i++) {
            enum scan scan =
                scan_exact(&s, &wide, messages[m].text + i, 1, &used);
            assert_int_equal(scan, i + 1 < len ? SCAN_MORE : SCAN_DONE);
            assert_int_equal(used, 1);
        }
        assert_done(&s, m, len);
    }
}

static void of_two_messages_only_the_first_is_taken(void **state)
{
    (void)state;
    struct resp_scanner s;
    char text[256];
    size_t used = 0;

    resp_scanner_init(&s);
    for (size_t m = 0; m < MESSAGES; m++) {
        size_t len = strlen(messages[m].text);
        (void)snprintf(text, sizeof text, "%s*1\r\n:1\r\n", messages[m].text);
        assert_int_equal(scan_exact(&s, &wide, text, strlen(text), &used),
                         SCAN_DONE);
        assert_int_equal(used, len);
        assert_done(&s, m, len);
    }
}

/* What cannot be followed is refused with words, whole and byte by byte, and
 * stays refused. */
static void check_refused(const struct resp_limits *limits, const char *text)
{
    struct resp_scanner whole;
    struct resp_scanner bytes;
    size_t used = 0;

    resp_scanner_init(&whole);
    assert_int_equal(scan_exact(&whole, limits, text, strlen(text), &used),
                     SCAN_INVALID);
    assert_non_null(whole.error);
    assert_int_equal(scan_exact(&whole, limits, "+OK\r\n", 5, &used),
                     SCAN_INVALID);
    assert_int_equal(used, 0);

    resp_scanner_init(&bytes);
    enum scan scan = SCAN_MORE;
    for (size_t i = 0; text[i] != '\0' && scan == SCAN_MORE; i++) {
        scan = scan_exact(&bytes, limits, text + i, 1, &used);
    }
    assert_int_equal(scan, SCAN_INVALID);
    assert_string_equal(bytes.error, whole.error);
}

static void what_no_server_may_send_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "$?\r\n",
        "*?\r\n",
        "%?\r\n",
        "~?\r\n",
        ">?\r\n",
        ";4\r\n",
        ".\r\n",
        "$-2\r\n",
        "*-2\r\n",
        "%-1\r\n",
        "~-1\r\n",
        ">-1\r\n",
        "|-1\r\n",
        "!-1\r\n",
        "=-1\r\n",
        "$-0\r\n",
        "$+1\r\n",
        "*+1\r\n",
        "$01\r\n",
        "*00\r\n",
        "$--1\r\n",
        "$-\r\n",
        "$\r\n",
        "*\r\n",
        "$1a\r\n",
        "$ 1\r\n",
        "$1 \r\n",
        "$-1a\r\n",
        "$1\rx",
        "*1\rx",
        "+a\rb\r\n",
        "+a\r\r\n",
        ":1\r:",
        "$1\r\naxy",
        "$1\r\na\rx",
        "$1\r\nab",
        "$1\n",
        "GET a\r\n",
        "\r\n",
        " ",
        "*1\r\nx",
        "*1\r\n\r\n",
        "*1\r\n$?",
        "%1\r\n+a\r\n/",
        "*9223372036854775808\r\n",
        "$99999999999999999999\r\n",
        "*99999999999999999999\r\n",
        "$18446744073709551617\r\n",
        "%9223372036854775807\r\n",
        "|9223372036854775807\r\n",
        "*123456789012345678901234567890\r\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        check_refused(&wide, bad[i]);
    }
}

static void limits_hold_to_the_last_unit(void **state)
{
    (void)state;
    const struct resp_limits narrow = { .bulk_max = 3, .elements_max = 4 };
    static const char *const fits[] = {
        "$3\r\nabc\r\n",
        "=3\r\nabc\r\n",
        "*4\r\n:1\r\n:1\r\n:1\r\n:1\r\n",
        "*2\r\n*2\r\n:1\r\n:1\r\n:1\r\n",
        "%2\r\n:1\r\n:1\r\n:1\r\n:1\r\n",
        "|1\r\n:1\r\n:1\r\n+x\r\n",
    };
    struct resp_scanner s;
    size_t used = 0;

    resp_scanner_init(&s);
    for (size_t i = 0; i < sizeof fits / sizeof fits[0]; i++) {
        assert_int_equal(scan_exact(&s, &narrow, fits[i], strlen(fits[i]),
                                    &used),
                         SCAN_DONE);
    }
    check_refused(&narrow, "$4\r\nabcd\r\n");
    check_refused(&narrow, "!4\r\n");
    check_refused(&narrow, "*5\r\n");
    check_refused(&narrow, "%3\r\n");
    check_refused(&narrow, "*2\r\n*3\r\n");
    check_refused(&narrow, "*1\r\n|2\r\n");
    check_refused(&narrow, "|0\r\n|0\r\n|0\r\n|0\r\n|0\r\n");
}

static void unlimited_limits_do_not_overflow(void **state)
{
    (void)state;
    const struct resp_limits none = { .bulk_max = UINT64_MAX,
                                      .elements_max = UINT64_MAX };

    check_refused(&none, "*9223372036854775807\r\n*9223372036854775807\r\n");
    check_refused(&none, "%4611686018427387904\r\n");
    struct resp_scanner s;
    size_t used = 0;
    resp_scanner_init(&s);
    assert_int_equal(scan_exact(&s, &none, "*9223372036854775807\r\n", 22,
                                &used),
                     SCAN_MORE);
    resp_scanner_init(&s);
    assert_int_equal(scan_exact(&s, &none, "$9223372036854775807\r\na", 23,
                                &used),
                     SCAN_MORE);
}

static void a_line_has_a_limit(void **state)
{
    (void)state;
    const size_t max = 64 * 1024;
    char *line = malloc(max + 8);
    struct resp_scanner s;
    size_t used = 0;

    assert_non_null(line);
    memset(line, 'a', max + 8);
    line[0] = '+';
    memcpy(line + 1 + max, "\r\n", 2);
    resp_scanner_init(&s);
    assert_int_equal(scan_exact(&s, &wide, line, max + 3, &used), SCAN_DONE);
    memset(line + 1, 'a', max + 7);
    resp_scanner_init(&s);
    assert_int_equal(scan_exact(&s, &wide, line, max + 1, &used), SCAN_MORE);
    assert_int_equal(scan_exact(&s, &wide, "a", 1, &used), SCAN_INVALID);
    free(line);
}

static void nesting_costs_nothing(void **state)
{
    (void)state;
    struct resp_scanner s;
    size_t used = 0;

    resp_scanner_init(&s);
    for (size_t i = 0; i < 1000000; i++) {
        assert_int_equal(resp_scan(&s, &wide, (const uint8_t *)"*1\r\n", 4,
                                   &used),
                         SCAN_MORE);
    }
    assert_int_equal(resp_scan(&s, &wide, (const uint8_t *)":1\r\n", 4, &used),
                     SCAN_DONE);
    assert_int_equal(s.bytes, 4000004);
    assert_int_equal(s.type, '*');
}

/* ---- beside hiredis ---- */

struct random {
    uint64_t state;
};

static uint32_t random_below(struct random *r, uint32_t n)
{
    r->state = r->state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(r->state >> 33) % n;
}

struct text {
    char data[8192];
    size_t len;
};

static void text_add(struct text *t, const char *before, uint32_t number)
{
    int len =
        snprintf(t->data + t->len, 32, "%s%u\r\n", before, (unsigned)number);
    assert_true(len > 0 && len < 32);
    t->len += (size_t)len;
}

/* Write a random message of RESP2; open counts the values still missing. */
static void random_message(struct random *r, struct text *t)
{
    uint32_t open = 1;
    uint32_t depth = 0;

    t->len = 0;
    while (open > 0) {
        open--;
        uint32_t kind = random_below(r, depth < 5 && t->len < 2000 ? 8 : 6);
        if (kind < 2) {
            text_add(t, kind == 0 ? "+ok" : "-ERR ", kind);
        } else if (kind == 2) {
            text_add(t, ":", random_below(r, 1000000));
        } else if (kind == 3) {
            text_add(t, random_below(r, 2) == 0 ? "$-" : "*-", 1);
        } else if (kind < 6) {
            uint32_t len = random_below(r, 30);
            text_add(t, "$", len);
            for (uint32_t i = 0; i < len; i++) {
                t->data[t->len++] = "a\r\n$*:+-\0x"[random_below(r, 10)];
            }
            memcpy(t->data + t->len, "\r\n", 2);
            t->len += 2;
        } else {
            uint32_t n = random_below(r, 5);
            text_add(t, "*", n);
            open += n;
            depth++;
        }
    }
}

/* What hiredis makes of a text: -1 refused, 0 not whole, else the bytes of its
 * first message. */
static long hiredis_scan(const char *data, size_t size)
{
    redisReader *reader = redisReaderCreate();
    void *reply = NULL;
    long taken = 0;

    assert_non_null(reader);
    assert_int_equal(redisReaderFeed(reader, data, size), REDIS_OK);
    if (redisReaderGetReply(reader, &reply) != REDIS_OK) {
        taken = -1;
    } else if (reply != NULL) {
        taken = (long)(size - (reader->len - reader->pos));
        freeReplyObject(reply);
    }
    redisReaderFree(reader);
    return taken;
}

static void a_random_message_ends_where_hiredis_says(void **state)
{
    (void)state;
    struct random r = { 1 };
    struct text t;
    struct resp_scanner s;
    size_t used = 0;

    for (int i = 0; i < 50000; i++) {
        random_message(&r, &t);
        size_t given = random_below(&r, 4) == 0
                           ? random_below(&r, (uint32_t)t.len)
                           : t.len;
        resp_scanner_init(&s);
        enum scan scan = scan_exact(&s, &wide, t.data, given, &used);
        long taken = hiredis_scan(t.data, given);
        assert_int_equal(scan, taken > 0 ? SCAN_DONE : SCAN_MORE);
        assert_int_equal(used, taken > 0 ? (size_t)taken : given);
    }
}

/* hiredis believes a few things that we do not: a lone CR in a line, any two
 * bytes behind a bulk. It must never be the other way round, except for its
 * own limit of nesting and the text of integers, which framing does not need. */
static void a_broken_message_is_never_ended_elsewhere_than_by_hiredis(
    void **state)
{
    (void)state;
    struct random r = { 2 };
    struct text t;
    struct resp_scanner s;
    size_t used = 0;
    int ended = 0;
    int refused = 0;

    for (int i = 0; i < 100000; i++) {
        random_message(&r, &t);
        for (uint32_t n = 1 + random_below(&r, 3); n > 0; n--) {
            t.data[random_below(&r, (uint32_t)t.len)] =
                "0123456789-+$*:\r\nx"[random_below(&r, 18)];
        }
        long taken = hiredis_scan(t.data, t.len);
        resp_scanner_init(&s);
        enum scan scan = scan_exact(&s, &wide, t.data, t.len, &used);
        if (taken > 0 && scan == SCAN_DONE) {
            assert_int_equal(used, (size_t)taken);
            ended++;
        }
        if (taken > 0) {
            assert_true(scan != SCAN_MORE);
        }
        refused += scan == SCAN_INVALID ? 1 : 0;
    }
    assert_true(ended > 10000);
    assert_true(refused > 10000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_message_ends_where_it_ends_at_every_split),
        cmocka_unit_test(a_message_ends_where_it_ends_byte_by_byte),
        cmocka_unit_test(of_two_messages_only_the_first_is_taken),
        cmocka_unit_test(what_no_server_may_send_is_refused),
        cmocka_unit_test(limits_hold_to_the_last_unit),
        cmocka_unit_test(unlimited_limits_do_not_overflow),
        cmocka_unit_test(a_line_has_a_limit),
        cmocka_unit_test(nesting_costs_nothing),
        cmocka_unit_test(a_random_message_ends_where_hiredis_says),
        cmocka_unit_test(
            a_broken_message_is_never_ended_elsewhere_than_by_hiredis),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
