/* IP addresses: what is one, and how it is written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "config/ip.h"

static void ip_addresses_are_read_and_written(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *written;
    } cases[] = {
        { "0.0.0.0", "0.0.0.0" },
        { "10.20.30.255", "10.20.30.255" },
        { "::", "::" },
        { "::1", "::1" },
        { "1::", "1::" },
        { "2001:DB8:0:0:0:0:0:1", "2001:db8::1" },
        { "2001:db8::0:1", "2001:db8::1" },
        { "1:0:2:3:4:5:6:7", "1:0:2:3:4:5:6:7" },
        { "1:0:0:2:0:0:0:3", "1:0:0:2::3" },
        { "1:0:0:2:3:0:0:4", "1::2:3:0:0:4" },
        { "0:0:1:2:3:4:5:6", "::1:2:3:4:5:6" },
        { "1:2:3:4:5:6:0:0", "1:2:3:4:5:6::" },
        { "1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0" },
        { "::ffff:1.2.3.4", "1.2.3.4" },
        { "::FFFF:102:304", "1.2.3.4" },
        { "64:ff9b::1.2.3.4", "64:ff9b::102:304" },
        { "1:2:3:4:5:6:1.2.3.4", "1:2:3:4:5:6:102:304" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        uint8_t ip[IP_BYTES];
        char text[IP_TEXT_MAX];
        if (!ip_parse(cases[i].text, strlen(cases[i].text), ip)) {
            fail_msg("'%s' was refused", cases[i].text);
        }
        ip_format(ip, text);
        assert_string_equal(text, cases[i].written);
    }
}

static void what_is_no_ip_address_is_not_taken_for_one(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "",
        "1",
        "1.2.3",
        "1.2.3.",
        "1.2.3.4.",
        "1.2.3.4.5",
        "1.2.3.256",
        "1.2.3.04",
        "1.2.3.1000",
        ".1.2.3",
        "1..2.3",
        "a.b.c.d",
        "1.2.3.4a",
        "1.2.3.4 ",
        ":",
        ":::",
        "1:2:3:4:5:6:7",
        "1:2:3:4:5:6:7:8:9",
        "1:2:3:4:5:6:7:8::",
        "1::2::3",
        "12345::",
        "g::",
        ":1",
        "1:",
        "::1:",
        "1:2:3:4:5:6:7:1.2.3.4",
        "1.2.3.4::",
        "::1.2.3",
        "::1.2.3.4:1",
        "fe80::1%eth0",
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        /* No more than the text, so that a read behind it is found. */
        size_t len = strlen(cases[i]);
        char *text = malloc(len + (len == 0 ? 1 : 0));
        uint8_t ip[IP_BYTES] = { 7 };
        assert_non_null(text);
        memcpy(text, cases[i], len);
        if (ip_parse(text, len, ip)) {
            fail_msg("'%s' was taken", cases[i]);
        }
        assert_int_equal(ip[0], 7);
        free(text);
    }
}

/* Every address is written so that it is read as the same. */
static void ip_addresses_are_written_as_they_are_read(void **state)
{
    (void)state;
    uint64_t seed = 7;
    for (unsigned round = 0; round < 20000; round++) {
        uint8_t ip[IP_BYTES];
        uint8_t again[IP_BYTES];
        char text[IP_TEXT_MAX];
        for (size_t i = 0; i < IP_BYTES; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            ip[i] = (seed >> 33) % 3 == 0 ? (uint8_t)(seed >> 40) : 0;
        }
        ip_format(ip, text);
        assert_true(ip_parse(text, strlen(text), again));
        assert_memory_equal(ip, again, IP_BYTES);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ip_addresses_are_read_and_written),
        cmocka_unit_test(what_is_no_ip_address_is_not_taken_for_one),
        cmocka_unit_test(ip_addresses_are_written_as_they_are_read),
    };
    return cmocka_run_group_tests_name("config IP addresses", tests, NULL,
                                       NULL);
}
