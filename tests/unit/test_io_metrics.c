/* The text for Prometheus: sums, labels and cumulative buckets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/io/metrics.h"

enum {
    UPSTREAMS = 2
};

struct scene {
    struct upstream_config upstreams[UPSTREAMS];
    struct config config;
    struct upstream_stats stats[UPSTREAMS];
    bool ready[UPSTREAMS];
    struct metrics m;
    struct text out;
};

static char first[] = "default", second[] = "od\"d";

static struct scene *scene_new(void)
{
    struct scene *s = calloc(1, sizeof(*s));
    assert_non_null(s);
    s->upstreams[0].name = first;
    s->upstreams[1].name = second;
    s->config.upstreams = s->upstreams;
    s->config.n_upstreams = UPSTREAMS;
    s->m.config = &s->config;
    s->m.version = "1.2.3";
    s->m.sum.upstreams = s->stats;
    s->m.sum.ready = s->ready;
    return s;
}

static void assert_line(const struct scene *s, const char *line)
{
    if (strstr(s->out.data, line) == NULL) {
        fail_msg("missing: %s", line);
    }
}

static void scene_free(struct scene *s)
{
    text_fini(&s->out);
    free(s);
}

static void numbers_carry_name_and_upstream(void **state)
{
    (void)state;
    struct scene *s = scene_new();
    s->stats[0].requests = 12;
    s->stats[1].lanes_up = 3;
    s->stats[0].retries[OUTCOME_AMBIGUOUS][CLASS_R][RETRY_NOW] = 5;
    s->stats[0].replayed[CLASS_T] = 9;
    s->ready[1] = true;
    s->m.sum.engine.clients = 7;
    metrics_write(&s->m, &s->out);
    assert_false(s->out.failed);
    assert_line(s, "# TYPE redial_requests_total counter\n"
                   "redial_requests_total{upstream=\"default\"} 12\n"
                   "redial_requests_total{upstream=\"od\\\"d\"} 0\n");
    assert_line(s, "\nredial_lanes_up{upstream=\"od\\\"d\"} 3\n");
    assert_line(s, "\nredial_retries_total{upstream=\"default\",outcome="
                   "\"ambiguous\",class=\"R\",verdict=\"retry_now\"} 5\n");
    assert_line(s, "\nredial_replayed_total{upstream=\"default\",class=\"T\"} "
                   "9\n");
    assert_line(s, "\nredial_clients 7\n");
    assert_line(s, "\nredial_upstream_ready{upstream=\"default\"} 0\n"
                   "redial_upstream_ready{upstream=\"od\\\"d\"} 1\n");
    assert_line(s, "\nredial_build_info{version=\"1.2.3\"} 1\n");
    scene_free(s);
}

static void buckets_are_cumulative(void **state)
{
    (void)state;
    struct scene *s = scene_new();
    const uint64_t us[] = { 0, 1, 2, 3, 1000000, UINT64_C(1) << 40 };
    for (size_t i = 0; i < sizeof(us) / sizeof(us[0]); i++) {
        latency_add(&s->stats[0].request, us[i]);
    }
    metrics_write(&s->m, &s->out);
    const char *name = "redial_request_seconds_bucket{upstream=\"default\",le=";
    char line[200];
    const struct {
        const char *le;
        int count;
    } expected[] = { { "2e-06", 2 },
                     { "4e-06", 4 },
                     { "0.524288", 4 },
                     { "1.048576", 5 },
                     { "+Inf", 6 } };
    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        (void)snprintf(line, sizeof(line), "\n%s\"%s\"} %d\n", name,
                       expected[i].le, expected[i].count);
        assert_line(s, line);
    }
    assert_line(s, "\nredial_request_seconds_count{upstream=\"default\"} 6\n");
    scene_free(s);
}

static void workers_are_added_up(void **state)
{
    (void)state;
    struct scene *s = scene_new();
    struct upstream_stats stats[UPSTREAMS] = { { .requests = 2 },
                                               { .pubsub_gaps = 1 } };
    bool ready[UPSTREAMS] = { false, true };
    struct worker_snapshot one = { .upstreams = stats,
                                   .ready = ready,
                                   .engine = { .clients = 4 },
                                   .counters = { .read_stalls = 1 } };
    metrics_add(&s->config, &s->m.sum, &one);
    ready[1] = false;
    metrics_add(&s->config, &s->m.sum, &one);
    assert_int_equal(s->stats[0].requests, 4);
    assert_int_equal(s->stats[1].pubsub_gaps, 2);
    assert_int_equal(s->m.sum.engine.clients, 8);
    assert_int_equal(s->m.sum.counters.read_stalls, 2);
    assert_false(s->ready[0]);
    assert_true(s->ready[1]); /* one worker with a connection is enough */
    scene_free(s);
}

static void the_system_is_asked(void **state)
{
    (void)state;
    struct scene *s = scene_new();
    metrics_look(&s->m);
    assert_true(s->m.resident_bytes > 100000);
    assert_in_range(s->m.open_handles, 1, 10000);
    scene_free(s);
}

/* Each metric has HELP and TYPE before its first number, and only once. */
static void each_metric_is_described_once(void **state)
{
    (void)state;
    struct scene *s = scene_new();
    metrics_write(&s->m, &s->out);
    char current[100] = "";
    unsigned described = 0;
    for (char *line = strtok(s->out.data, "\n"); line != NULL;
         line = strtok(NULL, "\n")) {
        if (strncmp(line, "# HELP ", 7) == 0) {
            size_t n = strcspn(line + 7, " ");
            assert_true(n < sizeof(current));
            memcpy(current, line + 7, n);
            current[n] = '\0';
            described++;
        } else {
            const char *name =
                strncmp(line, "# TYPE ", 7) == 0 ? line + 7 : line;
            assert_memory_equal(name, current, strlen(current));
        }
    }
    assert_true(described > 40);
    scene_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_carry_name_and_upstream),
        cmocka_unit_test(buckets_are_cumulative),
        cmocka_unit_test(workers_are_added_up),
        cmocka_unit_test(the_system_is_asked),
        cmocka_unit_test(each_metric_is_described_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
