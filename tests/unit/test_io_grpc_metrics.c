/* The numbers of gRPC for Prometheus: names, labels, buckets, sums. */
#include <ctype.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/io/grpc_metrics.h"

enum {
    UPSTREAMS = 3,
    REDIS = 0, /* which of them is what */
    CALLS = 1,
    OTHER = 2,
    METHODS = 2
};

struct scene {
    struct upstream_config upstreams[UPSTREAMS];
    struct grpc_method methods[METHODS];
    struct config config;
    struct grpc_stats *stats;
    struct text out;
};

static char redis[] = "cache", calls[] = "ca\"lls", other[] = "more";
static char one[] = "/pkg.Svc/One", service[] = "/odd\\.Svc/";

static void open_scene(struct scene *s)
{
    memset(s, 0, sizeof(*s));
    s->upstreams[REDIS].name = redis;
    s->upstreams[CALLS].name = calls;
    s->upstreams[CALLS].type = UPSTREAM_GRPC;
    s->upstreams[OTHER].name = other;
    s->upstreams[OTHER].type = UPSTREAM_GRPC;
    s->methods[0].path = one;
    s->methods[1].path = service;
    s->upstreams[CALLS].grpc.methods = s->methods;
    s->upstreams[CALLS].grpc.n_methods = METHODS;
    s->config.upstreams = s->upstreams;
    s->config.n_upstreams = UPSTREAMS;
    s->stats = grpc_metrics_new(&s->config);
    assert_non_null(s->stats);
}

static void close_scene(struct scene *s)
{
    grpc_metrics_free(&s->config, s->stats);
    text_fini(&s->out);
}

static void write_scene(struct scene *s)
{
    grpc_metrics_write(&s->config, s->stats, &s->out);
    assert_false(s->out.failed);
}

static const char *find(const struct scene *s, const char *text)
{
    return s->out.data == NULL ? NULL : strstr(s->out.data, text);
}

static void expect(const struct scene *s, const char *text)
{
    if (find(s, text) == NULL) {
        fail_msg("missing: %s", text);
    }
}

static unsigned count(const char *text, const char *word)
{
    unsigned n = 0;
    for (text = text == NULL ? NULL : strstr(text, word); text != NULL;
         text = strstr(text + 1, word)) {
        n++;
    }
    return n;
}

static void without_grpc_there_is_nothing(void **state)
{
    (void)state;
    struct scene s;
    open_scene(&s);
    s.config.n_upstreams = 1;
    grpc_metrics_write(&s.config, s.stats, &s.out);
    assert_int_equal(s.out.len, 0);
    s.config.n_upstreams = UPSTREAMS;
    close_scene(&s);
}

static void a_call_shows_method_target_and_status(void **state)
{
    (void)state;
    struct scene s;
    open_scene(&s);
    struct grpc_method_stats *m = &s.stats[CALLS].methods[1];
    m->calls_started = 3;
    m->attempts_started = 5;
    grpc_ended_add(&m->calls[GRPC_OK], 1500, 7, 1025);
    grpc_ended_add(&m->calls[GRPC_OK], 2500000, 0, 0);
    grpc_ended_add(&m->attempts[GRPC_UNAVAILABLE], 40, 7, 0);
    write_scene(&s);
#define LABELS "{grpc_method=\"pkg.Svc/One\",grpc_target=\"ca\\\"lls\""
    expect(&s, "# TYPE grpc_server_call_started_total counter\n");
    expect(&s, "\ngrpc_server_call_started_total" LABELS "} 3\n");
    expect(&s, "\ngrpc_client_attempt_started_total" LABELS "} 5\n");
    expect(&s, "# TYPE grpc_client_call_duration histogram\n"
               "grpc_client_call_duration_bucket" LABELS
               ",grpc_status=\"OK\",le=\"0\"} 0\n");
    static const char *const buckets[] = {
        "le=\"1e-05\"} 0", "le=\"0.001\"} 0", "le=\"0.002\"} 1", "le=\"2\"} 1",
        "le=\"5\"} 2",     "le=\"100\"} 2",   "le=\"+Inf\"} 2",
    };
    char line[300];
    for (size_t i = 0; i < sizeof(buckets) / sizeof(buckets[0]); i++) {
        static const char *const names[] = { "server_call", "client_call" };
        for (size_t k = 0; k < 2; k++) {
            (void)snprintf(line, sizeof(line),
                           "\ngrpc_%s_duration_bucket" LABELS
                           ",grpc_status=\"OK\",%s\n",
                           names[k], buckets[i]);
            expect(&s, line);
        }
    }
    expect(&s, "\ngrpc_client_call_duration_sum" LABELS
               ",grpc_status=\"OK\"} 2.501500\n");
    expect(&s, "\ngrpc_client_call_duration_count" LABELS
               ",grpc_status=\"OK\"} 2\n");
    expect(&s,
           "\ngrpc_server_call_sent_total_compressed_message_size_sum" LABELS
           ",grpc_status=\"OK\"} 1025\n");
    expect(&s,
           "\ngrpc_server_call_sent_total_compressed_message_size_bucket" LABELS
           ",grpc_status=\"OK\",le=\"1024\"} 1\n");
    expect(&s,
           "\ngrpc_server_call_rcvd_total_compressed_message_size_sum" LABELS
           ",grpc_status=\"OK\"} 7\n");
    expect(&s, "\ngrpc_client_attempt_duration_count" LABELS
               ",grpc_status=\"UNAVAILABLE\"} 1\n");
    expect(&s,
           "\ngrpc_client_attempt_sent_total_compressed_message_size_sum" LABELS
           ",grpc_status=\"UNAVAILABLE\"} 7\n");
    /* What never happened is not listed. */
    assert_null(find(&s, "grpc_status=\"ABORTED\",le"));
    close_scene(&s);
}

/* conf-11, A96: zero is not reported. */
static void retries_are_reported_for_calls_that_had_any(void **state)
{
    (void)state;
    struct scene s;
    open_scene(&s);
    write_scene(&s);
    assert_null(find(&s, "grpc_client_call_retries_bucket"));
    assert_null(find(&s, "grpc_client_call_retry_delay_count"));
    text_fini(&s.out);
    grpc_retries_add(&s.stats[CALLS].methods[2], 2, 7, 150000);
    write_scene(&s);
#undef LABELS
#define LABELS "{grpc_method=\"odd\\\\.Svc/\",grpc_target=\"ca\\\"lls\""
    expect(&s, "\ngrpc_client_call_retries_bucket" LABELS ",le=\"1\"} 0\n"
               "grpc_client_call_retries_bucket" LABELS ",le=\"2\"} 1\n");
    expect(&s, "\ngrpc_client_call_retries_bucket" LABELS ",le=\"5\"} 1\n"
               "grpc_client_call_retries_bucket" LABELS ",le=\"+Inf\"} 1\n");
    expect(&s, "\ngrpc_client_call_transparent_retries_bucket" LABELS
               ",le=\"5\"} 0\n"
               "grpc_client_call_transparent_retries_bucket" LABELS
               ",le=\"10\"} 1\n");
    expect(&s, "\ngrpc_client_call_retry_delay_sum" LABELS "} 0.150000\n");
    close_scene(&s);
}

static void each_number_of_an_upstream_is_there(void **state)
{
    (void)state;
    struct scene s;
    open_scene(&s);
    struct grpc_stats *c = &s.stats[CALLS];
    c->connections = 4;
    c->connections_opened = 5;
    c->connections_failed = 6;
    c->disconnections[grpc_disconnect_of(11)] = 2;
    c->attempt_outcomes[GRPC_F2_UNPROCESSED] = 8;
    c->not_retried[GRPC_REASON_RETRY_OVERFLOW] = 9;
    c->held_headers[GRPC_HELD_FINAL] = 10;
    c->log_overflow_call = 11;
    c->log_overflow_total = 12;
    c->local_status[GRPC_DEADLINE_EXCEEDED][GRPC_F7_LOCAL] = 13;
    c->local_status[GRPC_UNAUTHENTICATED][GRPC_CAUSE_REQUEST] = 18;
    c->abuse[GRPC_ABUSE_STALLED] = 14;
    c->pings_bad = 15;
    c->calls_waiting = 16;
    c->log_bytes = 17;
    c->budget_tokens = 97200;
    write_scene(&s);
#define TARGET "grpc_target=\"ca\\\"lls\""
    expect(&s, "\ngrpc_subchannel_open_connections{" TARGET "} 4\n"
               "grpc_subchannel_open_connections{grpc_target=\"more\"} 0\n");
    expect(&s, "\ngrpc_subchannel_connection_attempts_succeeded_total{" TARGET
               "} 5\n");
    expect(&s, "\ngrpc_subchannel_connection_attempts_failed_total{" TARGET
               "} 6\n");
    expect(&s, "\ngrpc_subchannel_disconnections_total{" TARGET
               ",grpc_disconnect_error=\"GOAWAY ENHANCE_YOUR_CALM\"} 2\n");
    expect(&s,
           "\nredial_grpc_attempt_outcomes_total{" TARGET ",class=\"F2\"} 8\n");
    expect(&s, "\nredial_grpc_not_retried_total{" TARGET
               ",reason=\"retry_overflow\"} 9\n");
    expect(&s, "\nredial_grpc_held_headers_total{" TARGET
               ",result=\"final\"} 10\n");
    expect(&s,
           "\nredial_grpc_log_overflow_total{" TARGET ",scope=\"call\"} 11\n"
           "redial_grpc_log_overflow_total{" TARGET ",scope=\"total\"} 12\n");
    expect(&s, "\nredial_grpc_local_status_total{" TARGET
               ",grpc_status=\"DEADLINE_EXCEEDED\",cause=\"local\"} 13\n"
               "redial_grpc_local_status_total{" TARGET
               ",grpc_status=\"UNAUTHENTICATED\",cause=\"request\"} 18\n");
    expect(&s,
           "\nredial_grpc_abuse_total{" TARGET ",kind=\"write_stalled\"} 14\n");
    expect(&s, "\nredial_grpc_pings_bad_total{" TARGET "} 15\n");
    expect(&s, "# TYPE redial_grpc_calls_waiting gauge\n"
               "redial_grpc_calls_waiting{" TARGET "} 16\n");
    expect(&s, "\nredial_grpc_log_bytes 17\n");
    expect(&s, "\nredial_grpc_budget_tokens{" TARGET "} 97.200\n");
    assert_null(find(&s, "cache")); /* the upstream of Redis */
    close_scene(&s);
}

/* conf-12 */
static void the_number_of_methods_is_limited(void **state)
{
    (void)state;
    struct scene s;
    open_scene(&s);
    struct grpc_config lots = { .n_methods = 100000 };
    assert_int_equal(grpc_methods_shown(&lots), GRPC_METHODS_SHOWN + 1);
    lots.n_methods = 0;
    assert_int_equal(grpc_methods_shown(&lots), 1);
    s.stats[OTHER].methods[GRPC_LABEL_OTHER].calls_started = 5;
    write_scene(&s);
    expect(&s, "\ngrpc_server_call_started_total{grpc_method=\"other\","
               "grpc_target=\"more\"} 5\n");
    assert_int_equal(count(s.out.data, "\ngrpc_server_call_started_total{"), 4);
    close_scene(&s);
}

static void workers_are_added_up(void **state)
{
    (void)state;
    struct scene s, b;
    open_scene(&s);
    open_scene(&b);
    s.stats[CALLS].goaways = 1;
    b.stats[CALLS].goaways = 2;
    b.stats[CALLS].abuse[GRPC_ABUSE_COUNT - 1] = 3;
    b.stats[CALLS].disconnections[GRPC_DISCONNECT_COUNT - 1] = 4;
    struct grpc_method_stats *m = &s.stats[CALLS].methods[2];
    struct grpc_method_stats *n = &b.stats[CALLS].methods[2];
    m->calls_started = 1;
    n->calls_started = 2;
    grpc_ended_add(&m->calls[GRPC_OK], 10, 1, 1);
    grpc_ended_add(&n->calls[GRPC_OK], 20, 1, 1);
    grpc_ended_add(&n->calls[GRPC_ABORTED], 20, 1, 1);
    grpc_ended_add(&n->attempts[GRPC_UNAUTHENTICATED], 20, 1, 5);
    grpc_retries_add(n, 1, 1, 1);
    grpc_metrics_add(&s.config, s.stats, b.stats);
    assert_int_equal(s.stats[CALLS].goaways, 3);
    assert_int_equal(s.stats[CALLS].abuse[GRPC_ABUSE_COUNT - 1], 3);
    assert_int_equal(s.stats[CALLS].disconnections[GRPC_DISCONNECT_COUNT - 1],
                     4);
    assert_int_equal(m->calls_started, 3);
    assert_int_equal(m->calls[GRPC_OK].duration.count, 2);
    assert_int_equal(m->calls[GRPC_OK].duration.sum_us, 30);
    assert_int_equal(m->calls[GRPC_ABORTED].duration.count, 1);
    assert_int_equal(m->attempts[GRPC_UNAUTHENTICATED].reply_bytes.sum, 5);
    assert_int_equal(m->retries.count, 1);
    assert_int_equal(m->retry_delay.sum_us, 1);
    close_scene(&s);
    close_scene(&b);
}

/* ---- the format ----------------------------------------------------------- */

/* "name", "name_bucket" and the like of a histogram. */
static bool belongs_to(const char *line, const char *family)
{
    static const char *const endings[] = { "", "_bucket", "_sum", "_count" };
    size_t len = strlen(family);
    for (size_t i = 0; i < sizeof(endings) / sizeof(endings[0]); i++) {
        size_t more = strlen(endings[i]);
        if (strncmp(line, family, len) == 0 &&
            strncmp(line + len, endings[i], more) == 0 &&
            strchr("{ ", line[len + more]) != NULL) {
            return true;
        }
    }
    return false;
}

/* name{label="value",...} number: returns what follows, or NULL. */
static const char *skip_labels(const char *at)
{
    if (*at != '{') {
        return at;
    }
    do {
        at++;
        size_t name = strspn(at, "abcdefghijklmnopqrstuvwxyz_");
        if (name == 0 || at[name] != '=' || at[name + 1] != '"') {
            return NULL;
        }
        for (at += name + 2; *at != '"'; at++) {
            if (*at == '\0' || *at == '\n' ||
                (*at == '\\' && strchr("\\\"n", *++at) == NULL)) {
                return NULL;
            }
        }
        at++;
    } while (*at == ',');
    return *at == '}' ? at + 1 : NULL;
}

/* Each family is described once, before its first sample; each sample parses;
 * none comes twice; counters end with _total, and nothing else does. */
static void the_text_is_what_prometheus_reads(void **state)
{
    (void)state;
    struct scene s;
    open_scene(&s);
    for (size_t i = 0; i <= METHODS; i++) {
        struct grpc_method_stats *m = &s.stats[CALLS].methods[i];
        for (int k = 0; k < GRPC_STATUS_COUNT; k++) {
            grpc_ended_add(&m->calls[k], 77, 1, 1);
            grpc_ended_add(&m->attempts[k], 77, 1, 1);
        }
        grpc_retries_add(m, 1, 1, 1);
    }
    write_scene(&s);
    char *copy = strdup(s.out.data);
    assert_non_null(copy);
    char family[100] = "", type[20] = "", line[400];
    for (char *at = strtok(copy, "\n"); at != NULL; at = strtok(NULL, "\n")) {
        if (sscanf(at, "# HELP %99s", family) == 1) {
            (void)snprintf(line, sizeof(line), "# HELP %s ", family);
            assert_int_equal(count(s.out.data, line), 1);
        } else if (sscanf(at, "# TYPE %99s %19s", line, type) == 2) {
            assert_string_equal(line, family);
            size_t len = strlen(family);
            bool total = len > 6 && strcmp(family + len - 6, "_total") == 0;
            assert_true(total == (strcmp(type, "counter") == 0));
        } else {
            assert_true(belongs_to(at, family));
            const char *rest = skip_labels(at + strcspn(at, "{ "));
            assert_non_null(rest);
            char *end = NULL;
            (void)strtod(rest, &end);
            assert_true(*rest == ' ' && *end == '\0');
            (void)snprintf(line, sizeof(line), "\n%.*s ", (int)(rest - at), at);
            assert_int_equal(count(s.out.data, line), 1);
        }
    }
    free(copy);
    close_scene(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_grpc_there_is_nothing),
        cmocka_unit_test(a_call_shows_method_target_and_status),
        cmocka_unit_test(retries_are_reported_for_calls_that_had_any),
        cmocka_unit_test(each_number_of_an_upstream_is_there),
        cmocka_unit_test(the_number_of_methods_is_limited),
        cmocka_unit_test(workers_are_added_up),
        cmocka_unit_test(the_text_is_what_prometheus_reads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
