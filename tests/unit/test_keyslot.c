/* Cluster slots: known answers, and the definition. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

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

/* The definition, bit by bit. */
static uint16_t crc16_defined(const uint8_t *data, size_t len)
{
    unsigned crc = 0;

    for (size_t i = 0; i < len; i++) {
        crc ^= (unsigned)data[i] << 8;
        for (int bit = 0; bit < 8; bit++) {
            crc = crc << 1 ^ ((crc & 0x8000) != 0 ? 0x1021 : 0);
        }
        crc &= 0xffff;
    }
    return (uint16_t)crc;
}

/* Cluster specification: the first '{', the first '}' behind it, and something
 * between them. */
static uint16_t keyslot_defined(const uint8_t *key, size_t len)
{
    size_t open = 0;

    while (open < len && key[open] != '{') {
        open++;
    }
    size_t close = open + 1;
    while (close < len && key[close] != '}') {
        close++;
    }
    if (close < len && close > open + 1) {
        key += open + 1;
        len = close - open - 1;
    }
    return crc16_defined(key, len) % KEYSLOT_COUNT;
}

static void each_byte_at_each_place_counts_as_defined(void **state)
{
    (void)state;
    for (size_t len = 1; len <= 40; len++) {
        for (size_t at = 0; at < len; at++) {
            for (unsigned byte = 0; byte < 256; byte++) {
                uint8_t *key = calloc(1, len); /* its bounds are watched */
                assert_non_null(key);
                key[at] = (uint8_t)byte;
                assert_int_equal(crc16(key, len), crc16_defined(key, len));
                assert_int_equal(keyslot((struct span){ key, len }),
                                 keyslot_defined(key, len));
                free(key);
            }
        }
    }
}

/* Keys of few letters, so that braces come in all orders. */
static void any_key_has_the_slot_of_the_definition(void **state)
{
    (void)state;
    static const uint8_t letters[] = "{}{}|z\xfb\x7b\x7c\x00ab";
    uint32_t seed = 1;

    for (unsigned i = 0; i < 200000; i++) {
        uint8_t room[64];
        seed = seed * 1664525u + 1013904223u;
        size_t len = (seed >> 16) % sizeof room;
        bool any = (seed >> 8) % 2 == 0;
        uint8_t *key = room + sizeof room - len;
        for (size_t at = 0; at < len; at++) {
            seed = seed * 1664525u + 1013904223u;
            uint32_t by_chance = seed >> 16;
            key[at] = any ? (uint8_t)by_chance
                          : letters[by_chance % (sizeof letters - 1)];
        }
        assert_int_equal(crc16(key, len), crc16_defined(key, len));
        assert_int_equal(keyslot((struct span){ key, len }),
                         keyslot_defined(key, len));
    }
    assert_int_equal(keyslot((struct span){ NULL, 0 }), 0);
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
        cmocka_unit_test(each_byte_at_each_place_counts_as_defined),
        cmocka_unit_test(any_key_has_the_slot_of_the_definition),
        cmocka_unit_test(an_empty_or_open_tag_is_no_tag),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
