/* Buckets of gRPC's numbers, and the words of their labels. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "parser/h2.h"
#include "proxy/core/grpc_stats.h"

static size_t only_bucket(const uint64_t *bucket, size_t n)
{
    size_t found = n;
    for (size_t i = 0; i < n; i++) {
        if (bucket[i] != 0) {
            assert_int_equal(found, n);
            assert_int_equal(bucket[i], 1);
            found = i;
        }
    }
    assert_true(found < n);
    return found;
}

static size_t duration_bucket(uint64_t us)
{
    struct grpc_durations d = { .count = 0 };
    grpc_durations_add(&d, us);
    assert_int_equal(d.count, 1);
    assert_int_equal(d.sum_us, us);
    return only_bucket(d.bucket, GRPC_DURATION_BUCKETS);
}

static size_t size_bucket(uint64_t bytes)
{
    struct grpc_sizes s = { .count = 0 };
    grpc_sizes_add(&s, bytes);
    assert_int_equal(s.count, 1);
    assert_int_equal(s.sum, bytes);
    return only_bucket(s.bucket, GRPC_SIZE_BUCKETS);
}

static size_t count_bucket(uint64_t n)
{
    struct grpc_counts c = { .count = 0 };
    grpc_counts_add(&c, n);
    return only_bucket(c.bucket, GRPC_COUNT_BUCKETS);
}

/* A bound belongs to the bucket it ends; one more is the next one's. */
static void every_bound_ends_its_bucket(void **state)
{
    (void)state;
    for (size_t i = 0; i + 1 < GRPC_DURATION_BUCKETS; i++) {
        assert_int_equal(duration_bucket(grpc_bucket_us[i]), i);
        assert_int_equal(duration_bucket(grpc_bucket_us[i] + 1), i + 1);
    }
    for (size_t i = 0; i + 1 < GRPC_SIZE_BUCKETS; i++) {
        assert_int_equal(size_bucket(grpc_bucket_bytes[i]), i);
        assert_int_equal(size_bucket(grpc_bucket_bytes[i] + 1), i + 1);
    }
    for (size_t i = 0; i + 1 < GRPC_COUNT_BUCKETS; i++) {
        assert_int_equal(count_bucket(grpc_bucket_counts[i]), i);
        assert_int_equal(count_bucket(grpc_bucket_counts[i] + 1), i + 1);
    }
    assert_int_equal(duration_bucket(UINT64_MAX), GRPC_DURATION_BUCKETS - 1);
    assert_int_equal(size_bucket(UINT64_MAX), GRPC_SIZE_BUCKETS - 1);
}

/* The dashboards of gRPC expect these (A66); written in seconds there. */
static void the_bounds_are_those_of_grpc(void **state)
{
    (void)state;
    static const double seconds[] = {
        0,     0.00001, 0.00005, 0.0001, 0.0003, 0.0006, 0.0008, 0.001, 0.002,
        0.003, 0.004,   0.005,   0.006,  0.008,  0.01,   0.013,  0.016, 0.02,
        0.025, 0.03,    0.04,    0.05,   0.065,  0.08,   0.1,    0.13,  0.16,
        0.2,   0.25,    0.3,     0.4,    0.5,    0.65,   0.8,    1,     2,
        5,     10,      20,      50,     100
    };
    static const uint64_t bytes[] = {
        0,       1024,    2048,     4096,     16384,     65536,      262144,
        1048576, 4194304, 16777216, 67108864, 268435456, 1073741824, 4294967296
    };
    assert_int_equal(sizeof(seconds) / sizeof(seconds[0]),
                     GRPC_DURATION_BUCKETS - 1);
    for (size_t i = 0; i < sizeof(seconds) / sizeof(seconds[0]); i++) {
        assert_int_equal(grpc_bucket_us[i], (uint64_t)(seconds[i] * 1e6 + 0.5));
    }
    assert_int_equal(sizeof(bytes), sizeof(grpc_bucket_bytes));
    assert_memory_equal(bytes, grpc_bucket_bytes, sizeof(bytes));
}

static void an_end_is_counted_in_all_three(void **state)
{
    (void)state;
    struct grpc_ended_stats e = { .duration = { .count = 0 } };
    grpc_ended_add(&e, 20, 5, 2000);
    grpc_ended_add(&e, 30, 5, 0);
    assert_int_equal(e.duration.count, 2);
    assert_int_equal(e.duration.sum_us, 50);
    assert_int_equal(e.request_bytes.count, 2);
    assert_int_equal(e.request_bytes.sum, 10);
    assert_int_equal(e.reply_bytes.count, 2);
    assert_int_equal(e.reply_bytes.sum, 2000);
    assert_int_equal(e.reply_bytes.bucket[0], 1);
    assert_int_equal(e.reply_bytes.bucket[2], 1);
}

/* conf-11: zero is not reported. */
static void calls_without_retries_count_nowhere(void **state)
{
    (void)state;
    struct grpc_method_stats m;
    memset(&m, 0, sizeof(m));
    grpc_retries_add(&m, 0, 0, 0);
    assert_int_equal(m.retries.count, 0);
    assert_int_equal(m.transparent_retries.count, 0);
    assert_int_equal(m.retry_delay.count, 0);
    grpc_retries_add(&m, 2, 1, 150000);
    assert_int_equal(m.retries.count, 1);
    assert_int_equal(m.retries.sum, 2);
    assert_int_equal(m.retries.bucket[1], 1);
    assert_int_equal(m.transparent_retries.sum, 1);
    assert_int_equal(m.retry_delay.sum_us, 150000);
}

static void every_label_has_a_name_of_its_own(void **state)
{
    (void)state;
    for (int a = 0; a < GRPC_DISCONNECT_COUNT; a++) {
        const char *name = grpc_disconnect_name((enum grpc_disconnect)a);
        assert_non_null(name);
        for (int b = 0; b < a; b++) {
            assert_string_not_equal(name, grpc_disconnect_name(
                                              (enum grpc_disconnect)b));
        }
    }
    for (int i = 0; i < GRPC_CAUSE_COUNT; i++) {
        assert_non_null(grpc_cause_name(i));
    }
    for (int i = 0; i < GRPC_HELD_RESULTS; i++) {
        assert_non_null(grpc_held_name((enum grpc_held)i));
    }
    for (int i = 0; i < GRPC_ABUSE_COUNT; i++) {
        assert_non_null(grpc_abuse_name((enum grpc_abuse)i));
    }
}

static void a_goaway_is_named_by_its_code(void **state)
{
    (void)state;
    assert_string_equal(grpc_disconnect_name(grpc_disconnect_of(H2_NO_ERROR)),
                        "GOAWAY NO_ERROR");
    assert_string_equal(grpc_disconnect_name(
                            grpc_disconnect_of(H2_ENHANCE_YOUR_CALM)),
                        "GOAWAY ENHANCE_YOUR_CALM");
    assert_string_equal(grpc_disconnect_name(
                            grpc_disconnect_of(H2_HTTP_1_1_REQUIRED)),
                        "GOAWAY HTTP_1_1_REQUIRED");
    assert_string_equal(grpc_disconnect_name(grpc_disconnect_of(14)),
                        "GOAWAY unknown");
    assert_string_equal(grpc_disconnect_name(grpc_disconnect_of(UINT32_MAX)),
                        "GOAWAY unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_bound_ends_its_bucket),
        cmocka_unit_test(the_bounds_are_those_of_grpc),
        cmocka_unit_test(an_end_is_counted_in_all_three),
        cmocka_unit_test(calls_without_retries_count_nowhere),
        cmocka_unit_test(every_label_has_a_name_of_its_own),
        cmocka_unit_test(a_goaway_is_named_by_its_code),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
