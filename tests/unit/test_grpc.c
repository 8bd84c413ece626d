/* The words of gRPC: each table whole, each border from both sides. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "parser/grpc.h"

static const struct span absent = { NULL, 0 };

/* Statuses */

static const char *const names[] = {
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
};

static void statuses_have_the_numbers_and_names_of_grpc(void **state)
{
    (void)state;
    assert_int_equal(sizeof names / sizeof *names, GRPC_STATUS_COUNT);
    for (unsigned i = 0; i < GRPC_STATUS_COUNT; i++) {
        enum grpc_status found = GRPC_STATUS_COUNT;
        char mixed[32];
        char number[12];

        assert_string_equal(grpc_status_name((enum grpc_status)i), names[i]);
        (void)snprintf(mixed, sizeof mixed, "%s", names[i]);
        mixed[0] = (char)(mixed[0] - 'A' + 'a');
        assert_true(grpc_status_find(span_of(mixed), &found));
        assert_int_equal(found, i);
        (void)snprintf(number, sizeof number, "%u", i);
        assert_int_equal(grpc_status_parse(span_of(number)), i);
    }
}

static void what_is_no_status_name_is_not_found(void **state)
{
    (void)state;
    static const char *const wrong[] = { "",    "O",           "OKAY",
                                         "14",  "UNAVAILABL",  "UNAVAILABLE ",
                                         " OK", "CANCELLED_X", "CANCELED" };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        enum grpc_status found = GRPC_STATUS_COUNT;
        assert_false(grpc_status_find(span_of(wrong[i]), &found));
        assert_int_equal(found, GRPC_STATUS_COUNT);
    }
}

/* pass-14 */
static void a_status_that_is_no_number_from_0_to_16_is_unknown(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "",   "00", "01", "014", "17",  "99",  "x",   "1x",        "-1",
        "+1", " 1", "1 ", "1.0", "0x1", "256", "272", "4294967296"
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(grpc_status_parse(span_of(wrong[i])), GRPC_UNKNOWN);
    }
    assert_int_equal(grpc_status_parse(absent), GRPC_UNKNOWN);
}

/* pass-17 */
static void http_statuses_are_told_as_those_of_grpc(void **state)
{
    (void)state;
    static const struct {
        unsigned http;
        enum grpc_status status;
    } told[] = {
        { 400, GRPC_INTERNAL },          { 401, GRPC_UNAUTHENTICATED },
        { 403, GRPC_PERMISSION_DENIED }, { 404, GRPC_UNIMPLEMENTED },
        { 429, GRPC_UNAVAILABLE },       { 431, GRPC_INTERNAL },
        { 502, GRPC_UNAVAILABLE },       { 503, GRPC_UNAVAILABLE },
        { 504, GRPC_UNAVAILABLE },
    };
    for (unsigned http = 0; http <= 1000; http++) {
        enum grpc_status expected = GRPC_UNKNOWN;
        for (size_t i = 0; i < sizeof told / sizeof *told; i++) {
            if (told[i].http == http) {
                expected = told[i].status;
            }
        }
        assert_int_equal(grpc_status_of_http(http), expected);
    }
}

/* pass-18 */
static void resets_are_told_as_statuses(void **state)
{
    (void)state;
    static const enum grpc_status told[] = {
        /* NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR */
        13, 13, 13, 13,
        /* SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM */
        13, 13, 13, 14,
        /* CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM */
        1, 13, 13, 8,
        /* INADEQUATE_SECURITY, HTTP_1_1_REQUIRED, not known */
        7, 13, 13
    };
    for (uint32_t code = 0; code < sizeof told / sizeof *told; code++) {
        assert_int_equal(grpc_status_of_reset(code), told[code]);
    }
    assert_int_equal(grpc_status_of_reset(UINT32_MAX), GRPC_INTERNAL);
    assert_int_equal(grpc_status_of_reset(0x107), GRPC_INTERNAL);
}

/* Timeouts */

/* time-01 */
static void timeouts_are_read_in_microseconds(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t us;
    } read[] = {
        { "1S", 1000000 },
        { "100m", 100000 },
        { "1u", 1 },
        { "1n", 1 },
        { "1000n", 1 },
        { "1001n", 2 },
        { "99999999n", 100000 },
        { "99999999H", UINT64_C(359999996400000000) },
        { "00000001S", 1000000 },
        { "2M", 120000000 },
        { "1H", 3600000000 },
        { "0S", 0 },
        { "00000000n", 0 },
        { "0H", 0 },
    };
    for (size_t i = 0; i < sizeof read / sizeof *read; i++) {
        uint64_t us = 42;
        assert_true(grpc_timeout_parse(span_of(read[i].text), &us));
        assert_int_equal(us, read[i].us);
    }
}

/* time-02 */
static void malformed_timeouts_are_told(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "",  "1x", "S",  "123456789S", " 1S",  "1 S", "1S ", "-1S",      "+1S",
        "1", "1s", "1h", "1M1",        "1.5S", "1mS", "0",   "12345678", "0x1S"
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        uint64_t us = 42;
        assert_false(grpc_timeout_parse(span_of(wrong[i]), &us));
        assert_int_equal(us, 42);
    }
    uint64_t us = 0;
    assert_false(grpc_timeout_parse(absent, &us));
    for (unsigned c = 0; c <= 0xff; c++) {
        const uint8_t text[2] = { '1', (uint8_t)c };
        bool is_unit = c != 0 && strchr("HMSmun", (int)c) != NULL;
        assert_int_equal(grpc_timeout_parse((struct span){ text, 2 }, &us),
                         is_unit);
    }
}

static void assert_written(uint64_t us, const char *expected)
{
    char text[GRPC_TIMEOUT_TEXT + 1] = "..........";
    size_t n = grpc_timeout_format(us, text);

    assert_in_range(n, 2, GRPC_TIMEOUT_TEXT);
    text[n] = '\0';
    assert_string_equal(text, expected);
}

/* Up to the last value that fits a unit, and one more. */
static void timeouts_are_written_in_the_finest_unit_that_fits(void **state)
{
    (void)state;
    assert_written(1, "1u");
    assert_written(1000, "1000u");
    assert_written(99999999, "99999999u");
    assert_written(100000000, "100000m");
    assert_written(100000001, "100001m"); /* rounded up */
    assert_written(UINT64_C(99999998999), "99999999m");
    assert_written(UINT64_C(99999999000), "99999999m");
    assert_written(UINT64_C(99999999001), "100000S");
    assert_written(UINT64_C(99999999000000), "99999999S");
    assert_written(UINT64_C(99999999000001), "1666667M");
    assert_written(UINT64_C(5999999940000000), "99999999M");
    assert_written(UINT64_C(5999999940000001), "1666667H");
    assert_written(UINT64_C(359999996400000000), "99999999H");
    assert_written(UINT64_C(359999996400000001), "99999999H");
    assert_written(UINT64_MAX, "99999999H");
}

/* What a server reads is what is left, and less than one unit more. */
static void a_timeout_that_is_written_is_read_again(void **state)
{
    (void)state;
    const uint64_t readable = UINT64_C(359999996400000000);

    for (uint64_t us = 1; us < readable; us += us / 977 + 1) {
        char text[GRPC_TIMEOUT_TEXT];
        uint64_t again = 0;
        size_t n = grpc_timeout_format(us, text);
        struct span value = { (const uint8_t *)text, n };

        assert_true(grpc_timeout_parse(value, &again));
        assert_true(again >= us);
        /* A coarser unit is used for more than 99999999 of a finer one, so
         * what it adds is less than a hundredth of a per mille times 60. */
        assert_true(again - us <= us / 20000);
    }
}

/* What retries are told */

/* retry-08 */
static void pushback_is_a_plain_number_or_no(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint32_t ms;
    } numbers[] = {
        { "0", 0 }, { "1", 1 }, { "150", 150 }, { "2147483647", INT32_MAX }
    };
    static const char *const no[] = { "",
                                      "-1",
                                      "-0",
                                      "01",
                                      "00",
                                      "+5",
                                      " 5",
                                      "5 ",
                                      "abc",
                                      "2147483648",
                                      "1.5",
                                      "-",
                                      "-2147483649",
                                      "4294967296",
                                      "9999999999",
                                      "10000000000",
                                      "0x5",
                                      "5,6" };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        uint32_t ms = 42;
        assert_int_equal(grpc_pushback_parse(span_of(numbers[i].text), &ms),
                         GRPC_PUSHBACK_MS);
        assert_int_equal(ms, numbers[i].ms);
    }
    for (size_t i = 0; i < sizeof no / sizeof *no; i++) {
        uint32_t ms = 42;
        assert_int_equal(grpc_pushback_parse(span_of(no[i]), &ms),
                         GRPC_PUSHBACK_NO);
        assert_int_equal(ms, 42);
    }
    uint32_t ms = 42;
    assert_int_equal(grpc_pushback_parse(absent, &ms), GRPC_PUSHBACK_NONE);
}

/* retry-16, retry-17 */
static void attempts_of_the_client_are_at_most_nine_digits(void **state)
{
    (void)state;
    assert_int_equal(grpc_attempts_parse(span_of("2")), 2);
    assert_int_equal(grpc_attempts_parse(span_of("007")), 7);
    assert_int_equal(grpc_attempts_parse(span_of("999999999")), 999999999);
    assert_int_equal(grpc_attempts_parse(span_of("1000000000")), 0);
    assert_int_equal(grpc_attempts_parse(span_of("x")), 0);
    assert_int_equal(grpc_attempts_parse(span_of("1x")), 0);
    assert_int_equal(grpc_attempts_parse(span_of("-1")), 0);
    assert_int_equal(grpc_attempts_parse(span_of(" 1")), 0);
    assert_int_equal(grpc_attempts_parse(span_of("")), 0);
    assert_int_equal(grpc_attempts_parse(absent), 0);
}

/* What is valid */

/* pass-07 */
static void a_path_is_service_and_method(void **state)
{
    (void)state;
    static const char *const valid[] = { "/a/b", "/a/b/m", "/pkg.Svc/Get",
                                         "/a//b", "/a/b//c" };
    static const char *const wrong[] = { "",      "/",    "//",  "///", "/a",
                                         "/a/",   "a/b",  "//b", "a",   "//a/b",
                                         "/a/b/", "/a//", "*" };
    for (size_t i = 0; i < sizeof valid / sizeof *valid; i++) {
        assert_true(grpc_path_is_valid(span_of(valid[i])));
    }
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_false(grpc_path_is_valid(span_of(wrong[i])));
    }
    assert_false(grpc_path_is_valid(absent));
}

/* pass-06 */
static void a_content_type_is_that_of_grpc(void **state)
{
    (void)state;
    static const char *const valid[] = {
        "application/grpc", "application/grpc+proto", "application/grpc+json",
        "application/grpc;charset=utf-8", "application/grpc+"
    };
    static const char *const wrong[] = { "",
                                         "text/plain",
                                         "application/grp",
                                         "application/grpc-web",
                                         "application/grpc-web+proto",
                                         "application/grpcx",
                                         "application/grpc ",
                                         " application/grpc",
                                         "application/json" };
    for (size_t i = 0; i < sizeof valid / sizeof *valid; i++) {
        assert_true(grpc_content_type_is_valid(span_of(valid[i])));
    }
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_false(grpc_content_type_is_valid(span_of(wrong[i])));
    }
    assert_false(grpc_content_type_is_valid(absent));
}

/* Messages of a status */

static void assert_encoded(const char *text, size_t size, const char *expected)
{
    char out[64];
    const size_t len = strlen(expected);

    memset(out, '!', sizeof out);
    assert_int_equal(grpc_message_encode(text, out, size), len);
    assert_memory_equal(out, expected, len);
    for (size_t i = size; i < sizeof out; i++) {
        assert_int_equal(out[i], '!');
    }
}

static void messages_are_percent_encoded(void **state)
{
    (void)state;
    assert_encoded("", 64, "");
    assert_encoded(" plain~text ", 64, " plain~text ");
    assert_encoded("100%", 64, "100%25");
    assert_encoded("a\r\nb\x7f\x1f", 64, "a%0D%0Ab%7F%1F");
    assert_encoded("\xc3\xa4\xff", 64, "%C3%A4%FF");
    for (int c = 1; c <= 0xff; c++) {
        const char text[2] = { (char)c, '\0' };
        char out[3];
        size_t n = grpc_message_encode(text, out, sizeof out);
        assert_int_equal(n, c < 0x20 || c > 0x7e || c == '%' ? 3 : 1);
    }
}

/* Neither an escape nor a character of UTF-8 is cut. */
static void messages_are_cut_between_characters(void **state)
{
    (void)state;
    assert_encoded("abc", 0, "");
    assert_encoded("abc", 2, "ab");
    assert_encoded("abc", 3, "abc");
    assert_encoded("a%b", 1, "a");
    assert_encoded("a%b", 3, "a");
    assert_encoded("a%b", 4, "a%25");
    assert_encoded("a\xc3\xa4"
                   "b",
                   4, "a");
    assert_encoded("a\xc3\xa4"
                   "b",
                   6, "a");
    assert_encoded("a\xc3\xa4"
                   "b",
                   7, "a%C3%A4");
    assert_encoded("\xe2\x82\xac\xe2\x82\xac", 17, "%E2%82%AC");
    assert_encoded("\xe2\x82\xac\xe2\x82\xac", 18, "%E2%82%AC%E2%82%AC");
}

/* Messages of a stream */

/* Messages of 0, 1, 300 and 5 bytes; compressed or not is of no matter. */
static size_t stream_fill(uint8_t *out)
{
    static const uint32_t lengths[] = { 0, 1, 300, 5 };
    size_t n = 0;

    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        out[n++] = (uint8_t)(i % 2);
        out[n++] = 0;
        out[n++] = 0;
        out[n++] = (uint8_t)(lengths[i] >> 8);
        out[n++] = (uint8_t)lengths[i];
        memset(out + n, 0xff, lengths[i]);
        n += lengths[i];
    }
    return n;
}

static bool scan(struct grpc_messages *m, const uint8_t *data, size_t len)
{
    uint64_t size = 0;
    uint8_t copy[400]; /* so that nothing is read twice */

    memcpy(copy, data, len);
    return grpc_messages_scan(m, (struct span){ copy, len }, 300, &size);
}

static void messages_are_counted_however_they_are_cut(void **state)
{
    (void)state;
    uint8_t data[400];
    size_t len = stream_fill(data);
    struct grpc_messages bytewise = { 0 };

    for (size_t cut = 0; cut <= len; cut++) {
        struct grpc_messages m = { 0 };
        assert_true(scan(&m, data, cut));
        /* ends: 5, 11, 316, 326 */
        assert_int_equal(m.count,
                         (cut >= 5) + (cut >= 10) + (cut >= 16) + (cut >= 321));
        assert_int_equal(m.whole, (cut >= 5) + (cut >= 11) + (cut >= 316) +
                                      (cut >= 326));
        assert_int_equal(grpc_messages_single(&m), cut == 5);
        assert_true(m.count == bytewise.count && m.whole == bytewise.whole &&
                    m.left == bytewise.left && m.n_prefix == bytewise.n_prefix);
        assert_true(scan(&m, data + cut, len - cut));
        assert_int_equal(m.count, 4);
        assert_int_equal(m.whole, 4);
        assert_int_equal(m.left, 0);
        assert_int_equal(m.n_prefix, 0);
        if (cut < len) {
            assert_true(scan(&bytewise, data + cut, 1));
        }
    }
}

static void a_message_over_the_limit_is_told_with_its_length(void **state)
{
    (void)state;
    static const uint8_t huge[5] = { 0, 0xff, 0xff, 0xff, 0xff };
    static const uint8_t three[5] = { 0, 0, 0, 0, 3 };
    static const uint8_t none[5] = { 0, 0, 0, 0, 0 };
    static const struct {
        const uint8_t *prefix;
        uint64_t max;
        uint64_t size; /* 0: it fits */
    } rows[] = {
        { three, 3, 0 },
        { three, 2, 3 },
        { three, 0, 3 },
        { none, 0, 0 },
        { huge, UINT32_MAX, 0 },
        { huge, UINT64_MAX, 0 },
        { huge, UINT32_MAX - 1, UINT32_MAX },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        for (size_t cut = 0; cut < 5; cut++) {
            struct grpc_messages m = { 0 };
            uint64_t size = 0;
            assert_true(grpc_messages_scan(&m,
                                           (struct span){ rows[i].prefix, cut },
                                           rows[i].max, &size));
            bool fits = grpc_messages_scan(&m,
                                           (struct span){ rows[i].prefix + cut,
                                                          5 - cut },
                                           rows[i].max, &size);
            assert_int_equal(fits, rows[i].size == 0);
            assert_int_equal(size, rows[i].size);
            assert_int_equal(m.count, 1);
        }
    }
}

static void a_single_message_is_one_and_whole(void **state)
{
    (void)state;
    static const uint8_t data[9] = { 0, 0, 0, 0, 3, 'a', 'b', 'c', 0 };
    struct grpc_messages m = { 0 };

    for (size_t i = 0; i < sizeof data; i++) {
        assert_int_equal(grpc_messages_single(&m), i == 8);
        assert_true(scan(&m, data + i, 1));
    }
    assert_false(grpc_messages_single(&m)); /* another has begun */
}

/* So that a very long stream is never taken for a single message again. */
static void numbers_of_messages_do_not_start_again(void **state)
{
    (void)state;
    static const uint8_t two[10] = { 0 };
    struct grpc_messages m = { .count = UINT32_MAX - 1,
                               .whole = UINT32_MAX - 1 };
    assert_true(scan(&m, two, sizeof two));
    assert_int_equal(m.count, UINT32_MAX);
    assert_int_equal(m.whole, UINT32_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(statuses_have_the_numbers_and_names_of_grpc),
        cmocka_unit_test(what_is_no_status_name_is_not_found),
        cmocka_unit_test(a_status_that_is_no_number_from_0_to_16_is_unknown),
        cmocka_unit_test(http_statuses_are_told_as_those_of_grpc),
        cmocka_unit_test(resets_are_told_as_statuses),
        cmocka_unit_test(timeouts_are_read_in_microseconds),
        cmocka_unit_test(malformed_timeouts_are_told),
        cmocka_unit_test(timeouts_are_written_in_the_finest_unit_that_fits),
        cmocka_unit_test(a_timeout_that_is_written_is_read_again),
        cmocka_unit_test(pushback_is_a_plain_number_or_no),
        cmocka_unit_test(attempts_of_the_client_are_at_most_nine_digits),
        cmocka_unit_test(a_path_is_service_and_method),
        cmocka_unit_test(a_content_type_is_that_of_grpc),
        cmocka_unit_test(messages_are_percent_encoded),
        cmocka_unit_test(messages_are_cut_between_characters),
        cmocka_unit_test(messages_are_counted_however_they_are_cut),
        cmocka_unit_test(a_message_over_the_limit_is_told_with_its_length),
        cmocka_unit_test(a_single_message_is_one_and_whole),
        cmocka_unit_test(numbers_of_messages_do_not_start_again),
    };
    return cmocka_run_group_tests_name("grpc", tests, NULL, NULL);
}
