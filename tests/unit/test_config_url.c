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
        assert_int_equal(url.type, UPSTREAM_STANDALONE);
        assert_string_equal(url.nodes, "");
        assert_string_equal(url.username, cases[i].username);
        assert_string_equal(url.password, cases[i].password);
        assert_int_equal(url.has_db ? (int)url.db : -1, cases[i].db);
    }
}

static void urls_of_several_servers_are_taken_apart(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum upstream_type type;
        const char *nodes;
        const char *username;
        const char *password;
        const char *master_name;
        const char *sentinel_username;
        const char *sentinel_password;
        int db; /* -1: none */
    } cases[] = {
        { "redis+cluster://h", UPSTREAM_CLUSTER, "h", "", "", "", "", "", -1 },
        { "Redis+Cluster://a:1,b,[::1]:3/", UPSTREAM_CLUSTER, "a:1,b,[::1]:3",
          "", "", "", "", "", -1 },
        { "redis+cluster://u:p%40@a:1,b:2/0", UPSTREAM_CLUSTER, "a:1,b:2", "u",
          "p@", "", "", "", 0 },
        { "redis+cluster://:a/b?c@d@a:1?db=0", UPSTREAM_CLUSTER, "a:1", "",
          "a/b?c@d", "", "", "", 0 },
        { "redis+sentinel://a/mymaster", UPSTREAM_SENTINEL, "a", "", "",
          "mymaster", "", "", -1 },
        { "sentinel://a:1,[::1],c:3/m?db=2", UPSTREAM_SENTINEL, "a:1,[::1],c:3",
          "", "", "m", "", "", 2 },
        { "redis+sentinel://u:p@a,b/m/3", UPSTREAM_SENTINEL, "a,b", "u", "p",
          "m", "", "", 3 },
        { "redis+sentinel://a/m/", UPSTREAM_SENTINEL, "a", "", "", "m", "", "",
          -1 },
        { "redis+sentinel://a", UPSTREAM_SENTINEL, "a", "", "", "", "", "",
          -1 },
        { "redis+sentinel://u:p@a:1/m?sentinel_username=s%26&db=4"
          "&sentinel_password=q%3D=%40",
          UPSTREAM_SENTINEL, "a:1", "u", "p", "m", "s&", "q==@", 4 },
        { "redis+sentinel://a/m%2Dn?sentinel_password=q", UPSTREAM_SENTINEL,
          "a", "", "", "m-n", "", "q", -1 },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct url url;
        const char *wrong = url_parse(cases[i].text, &url);
        if (wrong != NULL) {
            fail_msg("'%s' was refused: %s", cases[i].text, wrong);
        }
        assert_int_equal(url.type, cases[i].type);
        assert_string_equal(url.address.host, "");
        assert_string_equal(url.nodes, cases[i].nodes);
        assert_string_equal(url.username, cases[i].username);
        assert_string_equal(url.password, cases[i].password);
        assert_string_equal(url.master_name, cases[i].master_name);
        assert_string_equal(url.sentinel_username, cases[i].sentinel_username);
        assert_string_equal(url.sentinel_password, cases[i].sentinel_password);
        assert_int_equal(url.has_db ? (int)url.db : -1, cases[i].db);
    }
}

struct bad_url {
    const char *text;
    const char *hint;
};

static void refuse(const struct bad_url *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct url url;
        const char *wrong = url_parse(cases[i].text, &url);
        if (wrong == NULL || strstr(wrong, cases[i].hint) == NULL) {
            fail_msg("'%s' says '%s', not '%s'", cases[i].text,
                     wrong != NULL ? wrong : "(taken)", cases[i].hint);
        }
    }
}

static void bad_urls_are_refused_with_the_reason(void **state)
{
    (void)state;
    static const struct bad_url cases[] = {
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
    refuse(cases, sizeof(cases) / sizeof(cases[0]));
}

static void bad_urls_of_several_servers_are_refused(void **state)
{
    (void)state;
    static const struct bad_url cases[] = {
        { "redis://a,b", "not a host name" },
        { "redis://a:1,b:2", "IPv6 address in the URL" },
        { "redis://h/0?sentinel_password=x", "only db=N;" },
        { "redis+cluster://", "no host" },
        { "redis+cluster:///0", "no host" },
        { "redis+cluster://a,,b", "one comma too many" },
        { "redis+cluster://a,", "one comma too many" },
        { "redis+cluster://,a", "one comma too many" },
        { "redis+cluster://a, b", "and no spaces" },
        { "redis+cluster://a/x", "the database is a number" },
        { "redis+cluster://a?sentinel_password=x", "only db=N;" },
        { "redis+cluster://u@a,b", "a user in the URL needs a password" },
        { "redis+sentinel:///m", "no host" },
        { "redis+sentinel://a/m/x", "the database is a number" },
        { "redis+sentinel://a/m/1?db=1", "names the database twice" },
        { "redis+sentinel://a/m?", "sentinel_username=U and" },
        { "redis+sentinel://a/m?db=1&", "sentinel_username=U and" },
        { "redis+sentinel://a/m?password=x", "sentinel_username=U and" },
        { "redis+sentinel://a/m?sentinel_password=", "is empty in the URL" },
        { "redis+sentinel://a/m?sentinel_password=a&sentinel_password=b",
          "the same key twice" },
        { "redis+sentinel://a/%zz", "two hexadecimal digits" },
        { "redis+other://h", "begins with redis://" },
        { "rediss+cluster://a,b", "TLS to the servers is not built yet; use "
                                  "redis+cluster://" },
        { "rediss+cluster://a,,b", "one comma too many" },
        { "rediss+sentinel://a/m", "TLS to the servers is not built yet; use "
                                   "redis+sentinel://" },
    };
    refuse(cases, sizeof(cases) / sizeof(cases[0]));
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

static void the_hosts_of_a_url_have_a_longest_length(void **state)
{
    (void)state;
    static const char scheme[] = "redis+cluster://";
    struct url url;
    char text[sizeof(scheme) + URL_NODES_MAX + 1];
    size_t head = strlen(scheme);
    memcpy(text, scheme, head);
    memset(text + head, 'x', URL_NODES_MAX + 1);
    text[head + URL_NODES_MAX] = '\0';
    assert_null(url_parse(text, &url));
    assert_string_equal(url.nodes, text + head);

    text[head + URL_NODES_MAX] = 'x';
    text[head + URL_NODES_MAX + 1] = '\0';
    assert_string_equal(url_parse(text, &url),
                        "the hosts of the URL are longer than 16 KiB");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_urls_are_taken_apart),
        cmocka_unit_test(urls_of_several_servers_are_taken_apart),
        cmocka_unit_test(the_hosts_of_a_url_have_a_longest_length),
        cmocka_unit_test(bad_urls_are_refused_with_the_reason),
        cmocka_unit_test(bad_urls_of_several_servers_are_refused),
        cmocka_unit_test(a_part_that_is_too_long_is_refused),
    };
    return cmocka_run_group_tests_name("config URLs", tests, NULL, NULL);
}
