/* URLs of servers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "config/url.h"

static void good_urls_are_taken_apart(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *address;
        const char *username;
        const char *password;
        int db; /* -1: none */
    } cases[] = {
        { "redis://h", "h:6379", "", "", -1 },
        { "redis://h/", "h:6379", "", "", -1 },
        { "REDIS://h:1", "h:1", "", "", -1 },
        { "redis://127.0.0.1:6380/3", "127.0.0.1:6380", "", "", 3 },
        { "redis://h?db=4", "h:6379", "", "", 4 },
        { "redis://h:1/?db=4", "h:1", "", "", 4 },
        { "redis://[::1]", "[::1]:6379", "", "", -1 },
        { "redis://[::1]:6380/15", "[::1]:6380", "", "", 15 },
        { "redis://u:p@h:1/2", "h:1", "u", "p", 2 },
        { "redis://:p@h", "h:6379", "", "p", -1 },
        { "redis://:%2f@h", "h:6379", "", "/", -1 },
        { "redis://u%40x:a%2Fb%25@h", "h:6379", "u@x", "a/b%", -1 },
        { "redis://:a/b?c@d:e@h:1/2", "h:1", "", "a/b?c@d:e", 2 },
        { "redis+unix:///run/r.sock", "unix:/run/r.sock", "", "", -1 },
        { "unix:///run/r.sock?db=7", "unix:/run/r.sock", "", "", 7 },
        { "unix:///a%20b", "unix:/a b", "", "", -1 },
        { "unix://u:p@/a@b", "unix:/a@b", "u", "p", -1 },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct url url;
        char text[ADDRESS_TEXT_MAX];
        const char *wrong = url_parse(cases[i].text, &url);
        if (wrong != NULL) {
            fail_msg("'%s' was refused: %s", cases[i].text, wrong);
        }
        address_format(&url.address, text);
        assert_string_equal(text, cases[i].address);
        assert_string_equal(url.username, cases[i].username);
        assert_string_equal(url.password, cases[i].password);
        assert_int_equal(url.has_db ? (int)url.db : -1, cases[i].db);
    }
}

static void bad_urls_are_refused_with_the_reason(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *hint;
    } cases[] = {
        { "", "begins with redis://" },
        { "h:6379", "begins with redis://" },
        { "http://h", "begins with redis://" },
        { "redis:/h", "begins with redis://" },
        { "redis://", "no host" },
        { "redis://:6379", "no host" },
        { "redis://h:0", "from 1 to 65535" },
        { "redis://h:", "from 1 to 65535" },
        { "redis://h:99999", "from 1 to 65535" },
        { "redis://h:1/x", "the database is a number" },
        { "redis://h:1/0/1", "the database is a number" },
        { "redis://h/9999999999", "the database is a number" },
        { "redis://h/1?db=2", "names the database twice" },
        { "redis://h?ssl=true", "only db=N" },
        { "redis://h?db=", "the database is a number" },
        { "redis://u@h", "a user in the URL needs a password" },
        { "redis://u:@h", "password in the URL is empty" },
        { "redis://:%4@h", "two hexadecimal digits" },
        { "redis://:%zz@h", "two hexadecimal digits" },
        { "redis://:100%@h", "two hexadecimal digits" },
        { "redis://:a%00b@h", "zero byte" },
        { "redis://::1:6379", "[::1]:6379" },
        { "redis://[::1:6379", "[::1]:6379" },
        { "redis://[::1]x", "[::1]:6379" },
        { "redis://[h]:1", "[::1]:6379" },
        { "redis://a b", "not a host name" },
        { "unix://run/r.sock", "three slashes" },
        { "unix://", "begins with /" },
        { "unix:///", "begins with /" },
        { "rediss://h", "TLS to the server is not built yet" },
        { "rediss://h:x", "from 1 to 65535" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct url url;
        const char *wrong = url_parse(cases[i].text, &url);
        if (wrong == NULL || strstr(wrong, cases[i].hint) == NULL) {
            fail_msg("'%s' says '%s', not '%s'", cases[i].text,
                     wrong != NULL ? wrong : "(taken)", cases[i].hint);
        }
    }
}

static void a_part_that_is_too_long_is_refused(void **state)
{
    (void)state;
    struct url url;
    char password[URL_PART_MAX + 2];
    char text[2 * URL_PART_MAX];
    memset(password, 'x', sizeof(password));

    password[URL_PART_MAX] = '\0';
    (void)snprintf(text, sizeof(text), "redis://:%s@h", password);
    assert_null(url_parse(text, &url));
    assert_string_equal(url.password, password);

    password[URL_PART_MAX] = 'x';
    password[URL_PART_MAX + 1] = '\0';
    (void)snprintf(text, sizeof(text), "redis://:%s@h", password);
    assert_string_equal(url_parse(text, &url),
                        "a part of the URL is longer than 1024 bytes");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_urls_are_taken_apart),
        cmocka_unit_test(bad_urls_are_refused_with_the_reason),
        cmocka_unit_test(a_part_that_is_too_long_is_refused),
    };
    return cmocka_run_group_tests_name("config URLs", tests, NULL, NULL);
}
