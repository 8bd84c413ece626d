/* Addresses survive the way to the system's form and back. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/io/sockaddr.h"

static struct address tcp(const char *host, uint16_t port)
{
    struct address a = { .port = port };
    (void)snprintf(a.host, sizeof(a.host), "%s", host);
    return a;
}

static void assert_survives(struct address a)
{
    struct sockaddr_any any;
    assert_true(sockaddr_from(&a, &any));
    struct address back;
    sockaddr_to((struct sockaddr *)&any.storage, any.len, &back);
    assert_int_equal(back.is_unix, a.is_unix);
    assert_int_equal(back.port, a.port);
    assert_string_equal(back.host, a.host);
}

static void numeric_and_unix_addresses_survive(void **state)
{
    (void)state;
    assert_survives(tcp("127.0.0.1", 6379));
    assert_survives(tcp("0.0.0.0", 65535));
    assert_survives(tcp("::1", 1));
    assert_survives(tcp("2001:db8::17", 6400));
    struct address path = tcp("/run/redis.sock", 0);
    path.is_unix = true;
    assert_survives(path);
}

static void names_are_not_addresses(void **state)
{
    (void)state;
    const char *names[] = { "localhost", "",      "127.0.0.1.",
                            "1.2.3",     "[::1]", "::1%lo" };
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct address a = tcp(names[i], 1);
        struct sockaddr_any any;
        assert_false(sockaddr_from(&a, &any));
    }
}

static void a_path_must_fit(void **state)
{
    (void)state;
    struct sockaddr_any any;
    struct address a = { .is_unix = true };
    assert_false(sockaddr_from(&a, &any)); /* no path at all */
    memset(a.host, 'p', 107);
    assert_true(sockaddr_from(&a, &any));
    a.host[107] = 'p';
    assert_false(sockaddr_from(&a, &any));
}

static void a_unix_client_has_no_name(void **state)
{
    (void)state;
    struct sockaddr sa = { .sa_family = AF_UNIX };
    struct address a = tcp("left over", 7);
    sockaddr_to(&sa, sizeof(sa.sa_family), &a);
    assert_true(a.is_unix);
    assert_string_equal(a.host, "");
    assert_int_equal(a.port, 0);
}

static void errors_become_what_the_core_decides_by(void **state)
{
    (void)state;
    assert_int_equal(io_error_of(ECONNRESET), IO_RESET);
    assert_int_equal(io_error_of(EPIPE), IO_RESET);
    assert_int_equal(io_error_of(ECONNREFUSED), IO_REFUSED);
    assert_int_equal(io_error_of(ENOENT), IO_REFUSED);
    assert_int_equal(io_error_of(ETIMEDOUT), IO_TIMED_OUT);
    assert_int_equal(io_error_of(EHOSTUNREACH), IO_UNREACHABLE);
    assert_int_equal(io_error_of(ENETUNREACH), IO_UNREACHABLE);
    assert_int_equal(io_error_of(EMFILE), IO_NO_RESOURCES);
    assert_int_equal(io_error_of(EADDRNOTAVAIL), IO_NO_RESOURCES);
    assert_int_equal(io_error_of(EPROTO), IO_OTHER);
}

static void only_literal_hosts_pass(void **state)
{
    (void)state;
    const char *good[] = { "127.0.0.1",    "10.1.2.3:9100", "localhost",
                           "LocalHost:80", "[::1]",         "[fe80::1]:9100" };
    const char *bad[] = { "evil.example",
                          "localhost.evil.example",
                          "127.0.0.1.evil.x",
                          "",
                          ":80",
                          "localhost:80x",
                          "localhost:",
                          "[::1]x",
                          "[::1",
                          "[evil]:80",
                          "::1",
                          "127.0.0.1:80:80",
                          "127.0.0.1 evil" };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_true(host_is_literal(good[i]));
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(host_is_literal(bad[i]));
    }
    char longer[300];
    memset(longer, '1', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    assert_false(host_is_literal(longer));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numeric_and_unix_addresses_survive),
        cmocka_unit_test(names_are_not_addresses),
        cmocka_unit_test(a_path_must_fit),
        cmocka_unit_test(a_unix_client_has_no_name),
        cmocka_unit_test(errors_become_what_the_core_decides_by),
        cmocka_unit_test(only_literal_hosts_pass),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
