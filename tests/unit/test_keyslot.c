/* Cluster slots: known answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "parser/keyslot.h"

static void crc16_of_the_check_string_is_31c3(void **state)
{
    (void)state;
    assert_int_equal(crc16((const uint8_t *)"123456789", 9), 0x31c3);
    assert_int_equal(crc16(NULL, 0), 0);
}

/* The answers of CLUSTER KEYSLOT. */
static void keys_have_the_slots_a_server_says(void **state)
{
    (void)state;
    static const struct {
        const char *key;
        uint16_t slot;
    } known[] = {
        { "", 0 },
        { "foo", 12182 },
        { "bar", 5061 },
        { "hello", 866 },
        { "123456789", 12739 },
        { "{user1000}.following", 3443 },
        { "user1000", 3443 },
        { "foo{bar}{zap}", 5061 },
    };
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        assert_int_equal(keyslot(span_of(known[i].key)), known[i].slot);
    }
}

static uint16_t plain(const char *key)
{
    return (uint16_t)(crc16((const uint8_t *)key, strlen(key)) % KEYSLOT_COUNT);
}

static void an_empty_or_open_tag_is_no_tag(void **state)
{
    (void)state;
    assert_int_equal(keyslot(span_of("foo{}{bar}")), plain("foo{}{bar}"));
    assert_int_equal(keyslot(span_of("foo{bar")), plain("foo{bar"));
    assert_int_equal(keyslot(span_of("foo}bar{")), plain("foo}bar{"));
    assert_int_equal(keyslot(span_of("foo{{bar}}zap")), plain("{bar"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crc16_of_the_check_string_is_31c3),
        cmocka_unit_test(keys_have_the_slots_a_server_says),
        cmocka_unit_test(an_empty_or_open_tag_is_no_tag),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
