/* SHA1: the examples of FIPS 180 and lengths around a block, and how names of
 * scripts are read. How it fails when broken on purpose: a digest of one byte
 * less, digits in the other order, upper case refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "parser/sha1.h"

static void assert_sha1(struct span data, const char *expected)
{
    struct sha1 wanted;
    assert_true(sha1_parse(span_of(expected), &wanted));
    struct sha1 got = sha1_of(data);
    assert_memory_equal(got.byte, wanted.byte, SHA1_BYTES);
    assert_true(sha1_equal(&got, &wanted));
}

static void known_digests(void **state)
{
    (void)state;
    assert_sha1((struct span){ 0 }, "da39a3ee5e6b4b0d3255bfef95601890afd80709");
    assert_sha1(span_of("abc"), "a9993e364706816aba3e25717850c26c9cd0d89d");
    assert_sha1(span_of(
                    "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
                "84983e441c3bd26ebaae4aa1f95129e5e54670f1");
    assert_sha1(span_of("return 1"),
                "e0e1f9fabfc9d4800c877a703b823ac0578ff8db");
    uint8_t *a = malloc(1000000);
    assert_non_null(a);
    memset(a, 'a', 1000000);
    assert_sha1((struct span){ a, 1000000 },
                "34aa973cd4c4daa4f61eeb2bdbad27316534016f");
    free(a);
}

static void a_name_is_read_whatever_the_case_of_its_digits(void **state)
{
    (void)state;
    struct sha1 lower;
    struct sha1 upper;
    assert_true(sha1_parse(span_of("a9993e364706816aba3e25717850c26c9cd0d89d"),
                           &lower));
    assert_true(sha1_parse(span_of("A9993E364706816ABA3E25717850C26C9CD0D89D"),
                           &upper));
    assert_true(sha1_equal(&lower, &upper));
    assert_int_equal(lower.byte[0], 0xa9);
    assert_int_equal(lower.byte[19], 0x9d);
}

static void what_is_no_name_is_refused(void **state)
{
    (void)state;
    static const char *const wrong[] = {
        "",
        "a9993e364706816aba3e25717850c26c9cd0d89",
        "a9993e364706816aba3e25717850c26c9cd0d89dd",
        "a9993e364706816aba3e25717850c26c9cd0d89g",
        "/9993e364706816aba3e25717850c26c9cd0d89d",
        "a:993e364706816aba3e25717850c26c9cd0d89d",
        "a@993e364706816aba3e25717850c26c9cd0d89d",
        "a`993e364706816aba3e25717850c26c9cd0d89d",
        " 9993e364706816aba3e25717850c26c9cd0d89d",
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct sha1 sha1;
        assert_false(sha1_parse(span_of(wrong[i]), &sha1));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_digests),
        cmocka_unit_test(a_name_is_read_whatever_the_case_of_its_digits),
        cmocka_unit_test(what_is_no_name_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
