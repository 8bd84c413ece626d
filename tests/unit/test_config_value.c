/* Values: what each kind takes, refuses and prints. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "config/address.h"
#include "config/config.h"
#include "config/option.h"
#include "config/value.h"

static const struct option *row(const char *section, const char *key)
{
    const struct option *o =
        option_find(section_find(section, strlen(section)), key);
    assert_non_null(o);
    return o;
}

/* Parse into a fresh field; fails the test when it is refused. */
static uint64_t number(const struct option *o, const char *text)
{
    char why[VALUE_TEXT_MAX];
    uint64_t wide = 0;
    uint32_t narrow = 0;
    void *field = o->size == sizeof(narrow) ? (void *)&narrow : (void *)&wide;
    if (value_parse(o, text, field, why) != VALUE_OK) {
        fail_msg("'%s' was refused: %s", text, why);
    }
    return o->size == sizeof(narrow) ? narrow : wide;
}

static void refused(const struct option *o, const char *text, const char *hint)
{
    char why[VALUE_TEXT_MAX];
    char before[sizeof(struct address)];
    char field[sizeof(struct address)];
    memset(before, 0x5a, sizeof(before));
    memset(field, 0x5a, sizeof(field));
    if (value_parse(o, text, field, why) != VALUE_BAD) {
        fail_msg("'%s' was taken for %s", text, o->key);
    }
    assert_memory_equal(before, field, sizeof(field));
    if (strstr(why, hint) == NULL) {
        fail_msg("'%s': '%s' does not say '%s'", text, why, hint);
    }
}

static void each_field_has_the_size_of_its_type(void **state)
{
    (void)state;
    for (size_t i = 0; i < option_count(); i++) {
        const struct option *o = option_get(i);
        size_t size = 0;
        switch (o->type) {
        case OPTION_COUNT32:
        case OPTION_PERCENT:
        case OPTION_MILLI:
        case OPTION_MODE:
        case OPTION_CODES:
        case OPTION_SET: size = sizeof(uint32_t); break;
        case OPTION_COUNT64:
        case OPTION_DURATION:
        case OPTION_DURATION_OFF:
        case OPTION_DURATION_INFINITE:
        case OPTION_SIZE_INFINITE:
        case OPTION_SIZE: size = sizeof(uint64_t); break;
        case OPTION_NUMBER: size = sizeof(double); break;
        case OPTION_COUNT_UNSET:
        case OPTION_SIGNED: size = sizeof(int64_t); break;
        case OPTION_EITHER:
        case OPTION_BOOL:
        case OPTION_SWITCH: size = sizeof(bool); break;
        case OPTION_ENUM: size = sizeof(unsigned); break;
        case OPTION_LISTEN_ADDRESS:
        case OPTION_LISTEN_ADDRESS_OFF:
        case OPTION_CONNECT_ADDRESS: size = sizeof(struct address); break;
        case OPTION_USERNAME:
        case OPTION_SECRET:
        case OPTION_NAME:
        case OPTION_AUTHORITY:
        case OPTION_FILE_NAME:
        case OPTION_GLOBS:
        case OPTION_REFERENCE: size = sizeof(char *); break;
        case OPTION_NODES:
        case OPTION_NODE_ZONES:
        case OPTION_ALLOW_NODES:
        case OPTION_TARGET:
        case OPTION_URL:
        case OPTION_OVERRIDE_BY_PREFIX:
        case OPTION_OVERRIDE_BY_SCRIPT:
        case OPTION_OVERRIDE_BY_COMMAND: size = 0; break;
        }
        assert_int_equal(o->size, size);
    }
}

static void each_default_is_a_value_of_its_option(void **state)
{
    (void)state;
    size_t checked = 0;
    for (size_t i = 0; i < option_count(); i++) {
        const struct option *o = option_get(i);
        char why[VALUE_TEXT_MAX];
        _Alignas(max_align_t) char field[sizeof(struct address)] = { 0 };
        if (o->fallback == NULL) {
            continue;
        }
        assert_in_range(o->size, 1, sizeof(field));
        assert_int_equal(value_parse(o, o->fallback, field, why), VALUE_OK);
        if (option_is_string(o)) {
            char *text = NULL;
            memcpy(&text, field, sizeof(text));
            free(text);
        }
        checked++;
    }
    assert_true(checked > 50);
}

static void durations_have_a_unit_and_a_range(void **state)
{
    (void)state;
    const struct option *o = row("upstream", "deadline");
    assert_int_equal(number(o, "250ms"), 250000);
    assert_int_equal(number(o, "10s"), 10000000);
    assert_int_equal(number(o, "1.5s"), 1500000);
    assert_int_equal(number(o, "0.25s"), 250000);
    assert_int_equal(number(o, "1m"), 60000000);
    assert_int_equal(number(o, "1h"), 3600000000);
    assert_int_equal(number(row("upstream", "backoff_base"), "500us"), 500);
    assert_int_equal(number(row("upstream", "ping_idle"), "1d"), 86400000000);

    refused(o, "10", "needs a unit: us, ms, s, m, h or d");
    refused(o, "0", "out of range; allowed is 1ms to 1h");
    refused(o, "off", "not a duration");
    refused(o, "999us", "1ms to 1h");
    refused(o, "61m", "1ms to 1h");
    refused(o, "1.0000001s", "not a duration");
    refused(o, "0.5us", "not a duration");
    refused(o, "-1s", "not a duration; write 250ms");
    refused(o, "1S", "not a duration");
    refused(o, "1 s", "not a duration");
    refused(o, ".5s", "not a duration");
    refused(o, "1.s", "not a duration");
    refused(o, "s", "not a duration");
    refused(o, "", "not a duration");
    refused(o, "999999999999999d", "not a duration");
    refused(o, "99999999999999999999s", "not a duration");
}

static void a_duration_that_can_be_off_says_so(void **state)
{
    (void)state;
    const struct option *o = row("upstream", "attempt_timeout");
    assert_int_equal(number(o, "off"), 0);
    assert_int_equal(number(o, "0"), 0);
    assert_int_equal(number(o, "0s"), 0);
    assert_int_equal(number(o, "500ms"), 500000);
    refused(o, "1us", "allowed is off, or 1ms to 1h");
    assert_int_equal(number(row("redial", "drain_timeout"), "0"), 0);
}

static void sizes_are_bytes_or_have_a_unit(void **state)
{
    (void)state;
    const struct option *o = row("upstream", "reply_bulk_max");
    assert_int_equal(number(o, "2048"), 2048);
    assert_int_equal(number(o, "2048B"), 2048);
    assert_int_equal(number(o, "64KiB"), 65536);
    assert_int_equal(number(o, "8MiB"), 8388608);
    assert_int_equal(number(o, "1GiB"), 1073741824);
    assert_int_equal(number(o, "1.5MiB"), 1572864);
    assert_int_equal(number(o, "2kB"), 2000);
    assert_int_equal(number(o, "2KB"), 2000);
    assert_int_equal(number(o, "5MB"), 5000000);
    assert_int_equal(number(o, "1GB"), 1000000000);
    refused(o, "1k", "not a size; write 512 (bytes), 64KiB");
    refused(o, "1.5", "not a size");
    refused(o, "0.3KiB", "not a size");
    refused(o, "-1", "not a size");
    refused(o, "1TiB", "1KiB to 64GiB");
    refused(o, "999999999999999TiB", "not a size");
}

static void shares_are_exact_to_a_tenth_of_a_percent(void **state)
{
    (void)state;
    const struct option *o = row("upstream", "budget_ratio");
    assert_int_equal(number(o, "20%"), 200);
    assert_int_equal(number(o, "12.5%"), 125);
    assert_int_equal(number(o, "0.2"), 200);
    assert_int_equal(number(o, "0"), 0);
    assert_int_equal(number(o, "1"), 1000);
    assert_int_equal(number(o, "1000%"), 10000);
    refused(o, "12.55%", "not a share; write 20% or 0.2");
    refused(o, "0.0001", "not a share");
    refused(o, "1001%", "0% to 1000%");
    refused(o, "a", "not a share");
}

static void counts_are_whole_numbers_in_a_range(void **state)
{
    (void)state;
    assert_int_equal(number(row("redial", "workers"), "256"), 256);
    refused(row("redial", "workers"), "0", "allowed is 1 to 256");
    refused(row("redial", "workers"), "257", "allowed is 1 to 256");
    refused(row("redial", "workers"), "-1", "not a whole number");
    refused(row("redial", "workers"), "1.5", "not a whole number");
    refused(row("redial", "workers"), "0x10", "not a whole number");
    refused(row("redial", "workers"), "", "not a whole number");
    refused(row("upstream", "retries"), "-2", "allowed is -1 to 1000");
    refused(row("upstream", "retries"), "--1", "not a whole number");

    int64_t retries = 0;
    char why[VALUE_TEXT_MAX];
    assert_int_equal(value_parse(row("upstream", "retries"), "-1", &retries,
                                 why),
                     VALUE_OK);
    assert_int_equal(retries, -1);
}

static void permissions_are_octal(void **state)
{
    (void)state;
    const struct option *o = row("listener", "unix_mode");
    assert_int_equal(number(o, "0600"), 0600);
    assert_int_equal(number(o, "777"), 0777);
    refused(o, "0800", "not octal");
    refused(o, "1777", "0000 to 0777");
    refused(o, "rw-", "not octal");
}

static void yes_and_no_have_six_words(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool value;
    } cases[] = { { "yes", true }, { "on", true },   { "true", true },
                  { "no", false }, { "off", false }, { "false", false } };
    const struct option *o = row("listener", "bind_public");
    for (size_t i = 0; i < 6; i++) {
        char why[VALUE_TEXT_MAX];
        bool value = !cases[i].value;
        assert_int_equal(value_parse(o, cases[i].text, &value, why), VALUE_OK);
        assert_int_equal(value, cases[i].value);
    }
    refused(o, "1", "yes or no");
    refused(o, "Yes", "yes or no");
}

static void words_are_suggested(void **state)
{
    (void)state;
    const struct option *o = row("upstream", "replay");
    unsigned level = 0;
    char why[VALUE_TEXT_MAX];
    assert_int_equal(value_parse(o, "convergent", &level, why), VALUE_OK);
    assert_int_equal(level, REPLAY_CONVERGENT);
    refused(o, "idempotant",
            "allowed is none, read, idempotent, convergent or all; did you "
            "mean 'idempotent'?");
    refused(o, "ALL", "did you mean 'all'?");
    refused(o, "", "allowed is");
    refused(row("upstream", "type"), "cluser",
            "allowed is standalone, cluster, sentinel or grpc; did you mean "
            "'cluster'?");
}

static void a_set_is_a_list_of_words(void **state)
{
    (void)state;
    const struct option *o = row("upstream", "retry_on_error");
    assert_int_equal(number(o, "loading,busy"),
                     RETRY_ERROR_LOADING | RETRY_ERROR_BUSY);
    assert_int_equal(number(o, " timeout ,, connection"),
                     RETRY_ERROR_TIMEOUT | RETRY_ERROR_CONNECTION);
    assert_int_equal(number(o, "none"), 0);
    refused(o, "loading, busi", "'busi' is not one of");
    refused(o, "loading, busi", "did you mean 'busy'?");
    refused(o, "none, busy", "none alone");
    refused(o, "", "a list of words");
}

static void strings_are_kept_and_replaced(void **state)
{
    (void)state;
    const struct option *user = row("upstream", "username");
    const struct option *secret = row("upstream", "password");
    char why[VALUE_TEXT_MAX];
    char *text = NULL;
    assert_int_equal(value_parse(secret, "a b\n;c", &text, why), VALUE_OK);
    assert_string_equal(text, "a b\n;c");
    assert_int_equal(value_parse(secret, "other", &text, why), VALUE_OK);
    assert_string_equal(text, "other");
    free(text);

    char longest[VALUE_STRING_MAX + 2];
    memset(longest, 'x', sizeof(longest));
    longest[sizeof(longest) - 1] = '\0';
    refused(secret, longest, "longer than 1024 bytes");
    refused(secret, "", "empty");
    refused(secret, "***", "stands for a secret");
    refused(user, "a b", "no spaces");
    refused(user, "a\tb", "no spaces");
}

static void names_are_plain_words(void **state)
{
    (void)state;
    const struct option *zone = row("upstream", "zone");
    char why[VALUE_TEXT_MAX];
    char *text = NULL;
    assert_int_equal(value_parse(zone, "eu-West_1a.b:c/d", &text, why),
                     VALUE_OK);
    assert_string_equal(text, "eu-West_1a.b:c/d");

    char longest[VALUE_NAME_MAX + 2];
    memset(longest, 'x', sizeof(longest));
    longest[VALUE_NAME_MAX] = '\0';
    assert_int_equal(value_parse(zone, longest, &text, why), VALUE_OK);
    free(text);
    longest[VALUE_NAME_MAX] = 'x';
    longest[VALUE_NAME_MAX + 1] = '\0';
    refused(zone, longest, "at most 127 bytes");
    refused(zone, "", "empty");
    refused(row("upstream", "master_name"), "my master", "a name has letters");
    refused(zone, "a=b", "a name has letters");
    refused(zone, "a,b", "a name has letters");
    refused(zone, "a$b", "a name has letters");
    refused(zone, "a\xc3\xa4", "a name has letters");
}

static void addresses_have_four_forms(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *host;
        uint16_t port;
        bool is_unix;
        const char *printed;
    } cases[] = {
        { "127.0.0.1:6379", "127.0.0.1", 6379, false, "127.0.0.1:6379" },
        { "redis_1.a-b.c:1", "redis_1.a-b.c", 1, false, "redis_1.a-b.c:1" },
        { "[::1]:65535", "::1", 65535, false, "[::1]:65535" },
        { "[fe80::1%eth0]:6379", "fe80::1%eth0", 6379, false, NULL },
        { "unix:/a b", "/a b", 0, true, "unix:/a b" },
        { "/run/r.sock", "/run/r.sock", 0, true, "unix:/run/r.sock" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct address a;
        char text[ADDRESS_TEXT_MAX];
        assert_null(address_parse(cases[i].text, false, &a));
        assert_string_equal(a.host, cases[i].host);
        assert_int_equal(a.port, cases[i].port);
        assert_int_equal(a.is_unix, cases[i].is_unix);
        address_format(&a, text);
        assert_string_equal(text, cases[i].printed != NULL ? cases[i].printed
                                                           : cases[i].text);
    }
}

static void bad_addresses_are_refused(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "",          "host",       ":6379",      "host:",         "host:0",
        "host:-1",   "host:65536", "host:6379x", "::1:6379",      "[::1]",
        "[::1]6379", "[host]:1",   "[::1:6379",  "a b:1",         "unix:",
        "unix:rel",  "/",          "-h:1",       "redis://h:1/0", "h/x:1",
        "[]:1",      "[::1%]:1",   "*:1",        "unix:/a\nb",
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct address a;
        const char *wrong = address_parse(cases[i], false, &a);
        if (wrong == NULL || wrong[0] == '\0') {
            fail_msg("'%s' was taken", cases[i]);
        }
    }
}

static void the_longest_path_of_a_unix_socket_is_107_bytes(void **state)
{
    (void)state;
    struct address a;
    char path[109];
    memset(path, 'x', sizeof(path));
    path[0] = '/';
    path[107] = '\0';
    assert_null(address_parse(path, true, &a));
    path[107] = 'x';
    path[108] = '\0';
    assert_string_equal(address_parse(path, true, &a),
                        "the path of a Unix socket has at most 107 bytes");
}

static void the_longest_host_name_has_255_characters(void **state)
{
    (void)state;
    struct address a;
    char text[300];
    memset(text, 'x', sizeof(text));
    memcpy(text + 255, ":1", 3);
    assert_null(address_parse(text, false, &a));
    assert_int_equal(strlen(a.host), 255);
    char printed[ADDRESS_TEXT_MAX];
    address_format(&a, printed);
    assert_string_equal(printed, text);

    memcpy(text + 255, "x:1", 4);
    assert_string_equal(address_parse(text, false, &a),
                        "a host name has at most 255 characters");
}

static void words_have_names(void **state)
{
    (void)state;
    assert_string_equal(backoff_kind_name(BACKOFF_EQUAL_JITTER),
                        "equal_jitter");
    assert_string_equal(replay_level_name(REPLAY_CONVERGENT), "convergent");
}

static void only_listeners_take_every_address(void **state)
{
    (void)state;
    struct address a;
    assert_null(address_parse(":6400", true, &a));
    assert_string_equal(a.host, "0.0.0.0");
    assert_null(address_parse("*:6400", true, &a));
    assert_string_equal(a.host, "0.0.0.0");
    assert_null(address_parse("127.0.0.1:0", true, &a));
    assert_int_equal(a.port, 0);
}

static void only_loopback_and_unix_are_local(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool local;
    } cases[] = {
        { "127.0.0.1:1", true },
        { "127.9.9.9:1", true },
        { "localhost:1", true },
        { "LocalHost:1", true },
        { "[::1]:1", true },
        { "/x", true },
        { "0.0.0.0:1", false },
        { "10.0.0.1:1", false },
        { "127.example.org:1", false },
        { "[::]:1", false },
        { "localhost.example:1", false },
        { "128.0.0.1:1", false },
        { "[::ffff:10.0.0.1]:1", false },
        { "localhos:1", false },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct address a;
        assert_null(address_parse(cases[i].text, true, &a));
        if (address_is_local(&a) != cases[i].local) {
            fail_msg("%s", cases[i].text);
        }
    }
}

/* Whatever the range allows is printed so that it reads the same. */
static void numbers_print_as_they_read(void **state)
{
    (void)state;
    uint64_t seed = 42;
    size_t checked = 0;
    for (size_t i = 0; i < option_count(); i++) {
        const struct option *o = option_get(i);
        if (o->size == 0 || o->max <= o->min) {
            continue;
        }
        for (unsigned round = 0; round < 300; round++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            uint64_t span = (uint64_t)(o->max - o->min) + 1;
            int64_t v = o->min + (int64_t)((seed >> 11) % span);
            if (round % 3 == 0) {
                v -= v % 1000; /* so that larger units come up, too */
                v = v < o->min ? o->min : v;
            }
            if (o->type == OPTION_DURATION_INFINITE && v == 0) {
                v = 1; /* zero means infinite */
            }
            uint64_t wide = (uint64_t)v;
            double real = (double)v / 1e6;
            if (o->type == OPTION_NUMBER) {
                memcpy(&wide, &real, sizeof(wide));
            }
            uint32_t narrow = (uint32_t)v;
            uint64_t wide_again = 0;
            uint32_t narrow_again = 0;
            bool is_narrow = o->size == sizeof(narrow);
            char text[VALUE_TEXT_MAX];
            char why[VALUE_TEXT_MAX];
            value_format(o, is_narrow ? (void *)&narrow : (void *)&wide, text);
            void *again =
                is_narrow ? (void *)&narrow_again : (void *)&wide_again;
            assert_int_equal(value_parse(o, text, again, why), VALUE_OK);
            assert_true(is_narrow ? narrow == narrow_again
                                  : wide == wide_again);
            checked++;
        }
    }
    assert_true(checked > 9000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_field_has_the_size_of_its_type),
        cmocka_unit_test(each_default_is_a_value_of_its_option),
        cmocka_unit_test(durations_have_a_unit_and_a_range),
        cmocka_unit_test(a_duration_that_can_be_off_says_so),
        cmocka_unit_test(sizes_are_bytes_or_have_a_unit),
        cmocka_unit_test(shares_are_exact_to_a_tenth_of_a_percent),
        cmocka_unit_test(counts_are_whole_numbers_in_a_range),
        cmocka_unit_test(permissions_are_octal),
        cmocka_unit_test(yes_and_no_have_six_words),
        cmocka_unit_test(words_are_suggested),
        cmocka_unit_test(a_set_is_a_list_of_words),
        cmocka_unit_test(strings_are_kept_and_replaced),
        cmocka_unit_test(names_are_plain_words),
        cmocka_unit_test(addresses_have_four_forms),
        cmocka_unit_test(bad_addresses_are_refused),
        cmocka_unit_test(the_longest_path_of_a_unix_socket_is_107_bytes),
        cmocka_unit_test(the_longest_host_name_has_255_characters),
        cmocka_unit_test(words_have_names),
        cmocka_unit_test(only_listeners_take_every_address),
        cmocka_unit_test(only_loopback_and_unix_are_local),
        cmocka_unit_test(numbers_print_as_they_read),
    };
    return cmocka_run_group_tests_name("config values", tests, NULL, NULL);
}
