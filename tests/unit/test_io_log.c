/* Log lines: escaping, both formats, the rate, and what /events keeps. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "proxy/io/log.h"

enum {
    OUTPUT_MAX = 65536
};

/* A log that writes into a pipe. */
struct scene {
    struct log *log;
    int in, out;
    char output[OUTPUT_MAX];
};

static void scene_open(struct scene *s, struct process_config process)
{
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    s->in = ends[0];
    s->out = ends[1];
    assert_int_equal(fcntl(s->in, F_SETFL, O_NONBLOCK), 0);
    s->log = log_new(&process, s->out);
    assert_non_null(s->log);
}

/* All that was written since the last call. */
static const char *scene_read(struct scene *s)
{
    ssize_t n = read(s->in, s->output, sizeof(s->output) - 1);
    s->output[n < 0 ? 0 : n] = '\0';
    return s->output;
}

static void scene_close(struct scene *s)
{
    log_free(s->log);
    (void)close(s->in);
    (void)close(s->out);
}

static struct process_config process_of(enum log_format format)
{
    return (struct process_config){ .log_format = format,
                                    .log_level = LOG_INFO,
                                    .log_rate = 1000,
                                    .events_kept = 3 };
}

static unsigned count(const char *text, const char *word)
{
    unsigned n = 0;
    for (text = strstr(text, word); text != NULL;
         text = strstr(text + 1, word)) {
        n++;
    }
    return n;
}

static void text_from_strangers_is_escaped(void **state)
{
    (void)state;
    char out[64];
    (void)text_escape(out, sizeof(out), "a\n\x01\"\\\xff z", false);
    assert_string_equal(out, "a\\n\\x01\\\"\\\\\\xff z");
    (void)text_escape(out, sizeof(out), "a\n\x01\"\\\xff z", true);
    assert_string_equal(out, "a\\n\\u0001\\\"\\\\\\u00ff z");
}

static void what_does_not_fit_is_cut_between_escapes(void **state)
{
    (void)state;
    char out[8];
    assert_int_equal(text_escape(out, sizeof(out), "abcde\x01", false), 5);
    assert_string_equal(out, "abcde");
    assert_int_equal(text_escape(out, 1, "abc", false), 0);
    assert_string_equal(out, "");
}

static void logfmt_quotes_only_what_needs_it(void **state)
{
    (void)state;
    struct scene s;
    scene_open(&s, process_of(LOG_LOGFMT));
    const struct log_field fields[] = {
        { .key = "plain", .text = "127.0.0.1:6379" },
        { .key = "spaced", .text = "two words" },
        { .key = "empty", .text = "" },
        { .key = "n", .number = 42 },
        { .key = "absent", .skip = true },
    };
    log_write(s.log, LOG_WARN, "test", fields, 5);
    const char *line = strstr(scene_read(&s), " level=");
    assert_string_equal(line, " level=warn event=test plain=127.0.0.1:6379 "
                              "spaced=\"two words\" empty=\"\" n=42\n");
    scene_close(&s);
}

static void json_says_the_same(void **state)
{
    (void)state;
    struct scene s;
    scene_open(&s, process_of(LOG_JSON));
    const struct log_field fields[] = { { .key = "a", .text = "x\"y" },
                                        { .key = "n", .number = 0 } };
    log_write(s.log, LOG_ERROR, "test", fields, 2);
    const char *line = scene_read(&s);
    assert_memory_equal(line, "{\"time\":\"2", 10);
    assert_string_equal(
        strstr(line, ",\"level\""),
        ",\"level\":\"error\",\"event\":\"test\",\"a\":\"x\\\"y\",\"n\":0}\n");
    scene_close(&s);
}

static void a_trace_names_only_what_it_knows(void **state)
{
    (void)state;
    struct scene s;
    scene_open(&s, process_of(LOG_LOGFMT));
    struct trace_record r = { .type = TRACE_RETRY,
                              .upstream = "default",
                              .command = "GET",
                              .attempt = 2,
                              .client = (conn_id)1 << 32 };
    log_trace(s.log, &r, NULL);
    assert_string_equal(strstr(scene_read(&s), " level="),
                        " level=info event=retry upstream=default client_id=0 "
                        "command=GET attempt=2\n");
    scene_close(&s);
}

static void lines_below_the_level_are_not_written(void **state)
{
    (void)state;
    struct scene s;
    scene_open(&s, process_of(LOG_LOGFMT));
    log_text(s.log, LOG_DEBUG, "test", "nobody wants to know");
    assert_string_equal(scene_read(&s), "");
    scene_close(&s);
}

static void lines_beyond_the_rate_are_counted(void **state)
{
    (void)state;
    struct process_config p = process_of(LOG_LOGFMT);
    p.log_rate = 5;
    struct scene s;
    scene_open(&s, p);
    for (unsigned i = 0; i < 100; i++) {
        log_text(s.log, LOG_INFO, "test", "line %u", i);
    }
    struct log_counters c = log_counters(s.log);
    assert_int_equal(c.lines + c.suppressed - count(scene_read(&s), "log_rate"),
                     100);
    assert_true(c.suppressed >= 85); /* a second may have ended meanwhile */
    log_free(s.log);
    assert_int_equal(count(scene_read(&s), "suppressed="), 1);
    (void)close(s.in);
    (void)close(s.out);
}

static void a_limit_warns_once_in_a_second(void **state)
{
    (void)state;
    struct scene s;
    scene_open(&s, process_of(LOG_LOGFMT));
    struct trace_record r = { .type = TRACE_LIMIT, .reason = "pipeline_max" };
    for (unsigned i = 0; i < 50; i++) {
        log_trace(s.log, &r, NULL);
    }
    unsigned n = count(scene_read(&s), "pipeline_max");
    assert_in_range(n, 1, 2);
    scene_close(&s);
}

/* Servers tell the same each time they are asked. */
static void a_refused_address_warns_once(void **state)
{
    (void)state;
    struct scene s;
    scene_open(&s, process_of(LOG_LOGFMT));
    struct address address = { .host = "10.0.0.9", .port = 6379 };
    struct trace_record r = { .type = TRACE_TOPOLOGY,
                              .upstream = "u",
                              .address = &address,
                              .to = "refused",
                              .reason = "allow_nodes does not permit it" };
    for (unsigned i = 0; i < 50; i++) {
        log_trace(s.log, &r, NULL);
    }
    assert_string_equal(strstr(scene_read(&s), "level="),
                        "level=warn event=topology upstream=u "
                        "address=10.0.0.9:6379 to=refused "
                        "reason=\"allow_nodes does not permit it\"\n");
    address.port = 6380;
    log_trace(s.log, &r, NULL);
    r.reason = "its port is 0";
    log_trace(s.log, &r, NULL);
    r.upstream = "v";
    log_trace(s.log, &r, NULL);
    log_trace(s.log, &r, NULL);
    assert_int_equal(count(scene_read(&s), "to=refused"), 3);
    uint64_t lines = log_counters(s.log).lines;
    for (uint16_t port = 1; port <= 200; port++) { /* more than it remembers */
        address.port = port;
        log_trace(s.log, &r, NULL);
        (void)scene_read(&s);
    }
    assert_int_equal(log_counters(s.log).lines - lines, 200);
    r.to = "primary"; /* changes are told each time */
    log_trace(s.log, &r, NULL);
    log_trace(s.log, &r, NULL);
    const char *changes = scene_read(&s);
    assert_int_equal(count(changes, "level=info"), 2);
    assert_int_equal(count(changes, "to=primary"), 2);
    scene_close(&s);
}

/* conf-13: what peers send reaches the log escaped, and not without end. */
static void words_of_peers_are_escaped_and_cut(void **state)
{
    (void)state;
    struct scene s;
    scene_open(&s, process_of(LOG_LOGFMT));
    static const uint8_t method[] = "/a.B/C\n level=error";
    static const uint8_t said[] = "too_many\0pings\x1b[31m\"";
    struct trace_record r = {
        .type = TRACE_GOAWAY_RECEIVED,
        .upstream = "u",
        .h2_error = "ENHANCE_YOUR_CALM",
        .last_stream = "7",
        .method = { method, sizeof(method) - 1 },
        .said = { said, sizeof(said) - 1 },
    };
    log_trace(s.log, &r, NULL);
    assert_string_equal(
        strstr(scene_read(&s), " level="),
        " level=info event=goaway_received upstream=u "
        "method=\"/a.B/C\\n level=error\" h2_error=ENHANCE_YOUR_CALM "
        "last_stream=7 said=\"too_many\\x00pings\\x1b[31m\\\"\"\n");
    uint8_t lots[1000];
    memset(lots, 'x', sizeof(lots));
    r.said = (struct span){ lots, sizeof(lots) };
    log_trace(s.log, &r, NULL);
    assert_int_equal(count(scene_read(&s), "x"), 200);
    scene_close(&s);
}

static void a_call_tells_what_became_of_it(void **state)
{
    (void)state;
    struct scene s;
    scene_open(&s, process_of(LOG_LOGFMT));
    struct address address = { .host = "10.0.0.9", .port = 50051 };
    struct trace_record r = { .type = TRACE_CALL_DONE,
                              .upstream = "u",
                              .listener = "l",
                              .address = &address,
                              .client = (conn_id)1 << 32 | 4,
                              .stream = 5,
                              .method = span_of("/a.B/C"),
                              .class = "F3",
                              .status = "UNAVAILABLE",
                              .reason = "attempts",
                              .attempt = 3,
                              .refused = 1,
                              .elapsed_us = 1500 };
    log_trace(s.log, &r, "127.0.0.1:5");
    assert_string_equal(
        strstr(scene_read(&s), " level="),
        " level=warn event=call_done upstream=u listener=l "
        "address=10.0.0.9:50051 client=127.0.0.1:5 client_id=4 stream=5 "
        "method=/a.B/C class=F3 status=UNAVAILABLE reason=attempts attempt=3 "
        "refused=1 elapsed_us=1500\n");
    scene_close(&s);
}

/* With every call some of these come: they must not push out what /events is
 * for. */
static void what_is_for_debugging_is_not_an_event(void **state)
{
    (void)state;
    struct process_config p = process_of(LOG_LOGFMT);
    p.log_level = LOG_DEBUG;
    struct scene s;
    scene_open(&s, p);
    struct trace_record r = { .type = TRACE_ATTEMPT_DONE, .debug = true };
    log_trace(s.log, &(struct trace_record){ .type = TRACE_LANE }, NULL);
    for (unsigned i = 0; i < 5; i++) {
        log_trace(s.log, &r, NULL);
    }
    assert_int_equal(count(scene_read(&s), "level=debug event=attempt_done"),
                     5);
    struct text t = { .data = NULL };
    log_events(s.log, &t);
    assert_int_equal(count(t.data, "\"event\":\"lane\""), 1);
    assert_null(strstr(t.data, "attempt_done"));
    text_fini(&t);
    scene_close(&s);
}

/* conf: each event of gRPC has its level, and none is forgotten. */
static void trouble_is_a_warning(void **state)
{
    (void)state;
    static const enum trace_type warnings[] = {
        TRACE_CONNECT_FAILED, TRACE_KEEPALIVE_DOUBLED,
        TRACE_RESOLVE_FAILED, TRACE_THROTTLE_CLOSED,
        TRACE_ABUSE,          TRACE_BAD_PREFACE,
        TRACE_WRITE_STALLED,  TRACE_CALL_DONE,
    };
    struct scene s;
    scene_open(&s, process_of(LOG_LOGFMT));
    for (int type = TRACE_CALL_DONE; type < TRACE_TYPE_COUNT; type++) {
        bool warns = false;
        for (size_t i = 0; i < sizeof(warnings) / sizeof(warnings[0]); i++) {
            warns = warns || warnings[i] == (enum trace_type)type;
        }
        if (type == TRACE_ATTEMPT_DONE || type == TRACE_CALL_COMMITTED) {
            continue; /* only ever for debugging */
        }
        struct trace_record r = { .type = (enum trace_type)type };
        log_trace(s.log, &r, NULL);
        char expected[100];
        (void)snprintf(expected, sizeof(expected), " level=%s event=%s\n",
                       warns ? "warn" : "info", trace_type_name(r.type));
        assert_string_equal(strstr(scene_read(&s), " level="), expected);
    }
    scene_close(&s);
}

static void the_last_events_are_kept_in_order(void **state)
{
    (void)state;
    struct scene s;
    scene_open(&s, process_of(LOG_LOGFMT));
    struct text t = { .data = NULL };
    log_events(s.log, &t);
    assert_string_equal(t.data, "[\n]\n");
    text_fini(&t);
    for (unsigned i = 1; i <= 5; i++) {
        log_trace(s.log,
                  &(struct trace_record){ .type = TRACE_LANE, .attempt = i },
                  NULL);
    }
    log_events(s.log, &t);
    assert_null(strstr(t.data, "\"attempt\":2"));
    const char *third = strstr(t.data, "\"attempt\":3");
    assert_non_null(third);
    const char *fourth = strstr(third, "\"attempt\":4");
    assert_non_null(fourth);
    assert_non_null(strstr(fourth, "\"attempt\":5"));
    assert_int_equal(count(t.data, "{"), 3);
    text_fini(&t);
    scene_close(&s);
}

static void a_full_pipe_does_not_block(void **state)
{
    (void)state;
    struct process_config p = process_of(LOG_LOGFMT);
    p.log_rate = 1000000;
    struct scene s;
    scene_open(&s, p);
    char filler[200];
    memset(filler, 'x', sizeof(filler) - 1);
    filler[sizeof(filler) - 1] = '\0';
    for (unsigned i = 0; i < 2000; i++) {
        log_text(s.log, LOG_INFO, "test", "%s", filler);
    }
    struct log_counters c = log_counters(s.log);
    assert_true(c.lines > 0);
    assert_true(c.failed > 0);
    assert_int_equal(c.lines + c.failed, 2000);
    scene_close(&s);
}

static void endless_values_are_cut(void **state)
{
    (void)state;
    struct scene s;
    scene_open(&s, process_of(LOG_JSON));
    char *value = malloc(100001);
    assert_non_null(value);
    memset(value, '\x01', 100000);
    value[100000] = '\0';
    struct log_field fields[LOG_FIELDS_MAX];
    for (size_t i = 0; i < LOG_FIELDS_MAX; i++) {
        fields[i] = (struct log_field){ .key = "k", .text = value };
    }
    log_write(s.log, LOG_INFO, "test", fields, LOG_FIELDS_MAX);
    const char *line = scene_read(&s);
    size_t len = strlen(line);
    assert_in_range(len, 100, 2048);
    assert_string_equal(line + len - 3, "\"}\n");
    free(value);
    scene_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(text_from_strangers_is_escaped),
        cmocka_unit_test(what_does_not_fit_is_cut_between_escapes),
        cmocka_unit_test(logfmt_quotes_only_what_needs_it),
        cmocka_unit_test(json_says_the_same),
        cmocka_unit_test(a_trace_names_only_what_it_knows),
        cmocka_unit_test(lines_below_the_level_are_not_written),
        cmocka_unit_test(lines_beyond_the_rate_are_counted),
        cmocka_unit_test(a_limit_warns_once_in_a_second),
        cmocka_unit_test(a_refused_address_warns_once),
        cmocka_unit_test(words_of_peers_are_escaped_and_cut),
        cmocka_unit_test(a_call_tells_what_became_of_it),
        cmocka_unit_test(what_is_for_debugging_is_not_an_event),
        cmocka_unit_test(trouble_is_a_warning),
        cmocka_unit_test(the_last_events_are_kept_in_order),
        cmocka_unit_test(a_full_pipe_does_not_block),
        cmocka_unit_test(endless_values_are_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
