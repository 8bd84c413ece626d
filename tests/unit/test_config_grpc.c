/* What gRPC adds to the configuration: each key and its range, how keys, the
 * section [grpc] and listeners fit together, and what follows for a method. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "config/option.h"
#include "config/value.h"
#include "config_loading.h"

static struct loaded_text told;

static void tell(const struct config_problems *p)
{
    told.len = 0;
    told.text[0] = '\0';
    for (size_t i = 0; i < p->n; i++) {
        loaded_write(&told, p->list[i].place, strlen(p->list[i].place));
        loaded_write(&told, ": ", 2);
        loaded_write(&told, p->list[i].text, strlen(p->list[i].text));
        loaded_write(&told, "\n", 1);
    }
}

/* Returns NULL, with the problems in told, when it is refused; else the
 * warnings are there. The caller frees. */
static struct config *load(const struct config_source *source)
{
    struct config_problems p = { 0 };
    struct config *c = config_load(source, &p);
    tell(c != NULL ? &c->warnings : &p);
    config_problems_fini(&p);
    return c;
}

/* In front of one server of gRPC, with one key set. */
static struct config *load_set(const char *set)
{
    struct config_source source = { .url = "grpc://h:1",
                                    .sets = &set,
                                    .n_sets = set != NULL ? 1 : 0,
                                    .read_file = loaded_file };
    return load(&source);
}

static void refuse_set(const char *set, const char *expected)
{
    assert_null(load_set(set));
    assert_string_equal(told.text, expected);
}

static struct config *load_file(const char *text)
{
    struct config_source source = loaded_source(text);
    struct config *c = load(&source);
    if (c == NULL) {
        fail_msg("%s", told.text);
    }
    return c;
}

static void refuse_file(const char *text, const char *expected)
{
    struct config_source source = loaded_source(text);
    assert_null(load(&source));
    assert_string_equal(told.text, expected);
}

/* Keys --- */

/* grpc.md §2.1, once more and by hand: the least and the largest value, their
 * neighbours outside, and something of another type. NULL: there is none. */
struct range {
    const char *key; /* "upstream.lb" */
    const char *fallback;
    const char *low;
    const char *high;
    const char *below;
    const char *above;
    const char *allowed; /* in words */
    const char *alien;
};

static const struct range ranges[] = {
    { "upstream.max_retry_attempts", "unset", "0", "99", NULL, "100",
      "unset, or 0 to 99", "-1" },
    { "upstream.initial_backoff", "100ms", "1ms", "1h", "999us", "3600001ms",
      "1ms to 1h", "100" },
    { "upstream.max_backoff", "2s", "1ms", "1h", "999us", "61m", "1ms to 1h",
      "infinite" },
    { "upstream.backoff_multiplier", "2", "0.000001", "100", "0", "100.000001",
      "0.000001 to 100", "x" },
    { "upstream.per_attempt_timeout", "off", "1ms", "1h", "999us", "61m",
      "off, or 1ms to 1h", "soon" },
    { "upstream.hold_headers_max", "1s", "0s", "1h", NULL, "61m", "0s to 1h",
      "1" },
    { "upstream.refused_transparent_max", "1", "0", "5", NULL, "6", "0 to 5",
      "-1" },
    { "upstream.max_attempts_cap", "5", "2", "100", "1", "101", "2 to 100",
      "2.5" },
    { "upstream.max_pushback", "1m", "0s", "1d", NULL, "25h", "0s to 1d",
      "60" },
    { "upstream.throttle_max_tokens", "100", "0", "1000", NULL, "1000.001",
      "0 to 1000", "-1" },
    { "upstream.throttle_token_ratio", "0.1", "0.001", "1000", "0.0009",
      "1000.001", "0.001 to 1000", "10%" },
    { "upstream.max_concurrent_retries", "10", "0", "100000", NULL, "100001",
      "0 to 100000", "ten" },
    { "upstream.max_concurrent_retry_percent", "20", "0", "100", NULL, "101",
      "0 to 100", "20%" },
    { "upstream.retry_buffer_per_call", "256KiB", "16KiB", "16MiB", "16383",
      "16777217", "16KiB to 16MiB", "1k" },
    { "upstream.max_call_duration", "off", "1ms", "1d", "999us", "25h",
      "off, or 1ms to 1d", "5" },
    { "upstream.max_wait_for_ready", "30s", "1ms", "1h", "0", "61m",
      "1ms to 1h", "off" },
    { "upstream.max_queued_calls", "1000", "0", "1000000", NULL, "1000001",
      "0 to 1000000", "many" },
    { "upstream.max_request_message_bytes", "infinite", "0", "4GiB", NULL,
      "4294967297", "infinite, or 0 to 4GiB", "off" },
    { "upstream.max_response_message_bytes", "infinite", "0", "4GiB", NULL,
      "5GiB", "infinite, or 0 to 4GiB", "-1" },
    { "upstream.lb_choices", "2", "2", "10", "1", "11", "2 to 10", "a" },
    { "upstream.connect_timeout", "5s", "10ms", "5m", "9999us", "301s",
      "10ms to 5m", "5" },
    { "upstream.reconnect_initial_backoff", "200ms", "1ms", "1h", "0", "61m",
      "1ms to 1h", "x" },
    { "upstream.reconnect_max_backoff", "5s", "1ms", "1h", "999us", "2h",
      "1ms to 1h", "x" },
    { "upstream.reconnect_multiplier", "1.6", "1", "100", "0.999999", "101",
      "1 to 100", "1.6x" },
    { "upstream.reconnect_jitter", "0.2", "0", "1", NULL, "1.000001", "0 to 1",
      "20%" },
    { "upstream.dns_refresh", "30s", "1s", "10000d", "999ms", "10001d",
      "off, or 1s to 10000d", "30" },
    { "upstream.dns_min_interval", "5s", "1s", "10000d", "0", "10001d",
      "1s to 10000d", "off" },
    { "upstream.max_connections_per_endpoint", "4", "1", "10", "0", "11",
      "1 to 10", "x" },
    { "upstream.max_streams_per_connection", "1000", "1", "1000000", "0",
      "1000001", "1 to 1000000", "x" },
    { "upstream.keepalive_time", "infinite", "10s", "10000d", NULL, "10001d",
      "infinite, or 0s to 10000d", "off" },
    { "upstream.keepalive_timeout", "20s", "100ms", "10m", "99ms", "601s",
      "100ms to 10m", "infinite" },
    { "upstream.idle_probe", "10s", "1s", "10000d", "999ms", "10001d",
      "off, or 1s to 10000d", "10" },
    { "upstream.idle_probe_timeout", "1s", "10ms", "1m", "9ms", "61s",
      "10ms to 1m", "off" },
    { "upstream.upstream_max_connection_age", "infinite", "1s", "10000d", "0",
      "10001d", "infinite, or 1s to 10000d", "never" },
    { "upstream.drain_timeout", "30s", "0s", "1h", NULL, "61m", "0s to 1h",
      "30" },
    { "upstream.upstream_stream_window", "256KiB", "64KiB", "16MiB", "65535",
      "17MiB", "64KiB to 16MiB", "x" },
    { "upstream.upstream_connection_window", "16MiB", "64KiB", "1GiB", "1KiB",
      "2GiB", "64KiB to 1GiB", "x" },
    { "upstream.max_header_list_size", "16KiB", "4KiB", "1MiB", "4095",
      "1048577", "4KiB to 1MiB", "x" },
    { "grpc.retry_buffer_total", "64MiB", "1MiB", "64GiB", "1048575", "65GiB",
      "1MiB to 64GiB", "infinite" },
    { "grpc.max_calls", "10000", "1", "1000000", "0", "1000001", "1 to 1000000",
      "x" },
    { "grpc.memory_high", "512MiB", "16MiB", "64GiB", "15MiB", "65GiB",
      "16MiB to 64GiB", "x" },
    { "listener.max_connections", "1024", "1", "1000000", "0", "1000001",
      "1 to 1000000", "x" },
    { "listener.max_concurrent_streams", "256", "1", "100000", "0", "100001",
      "1 to 100000", "x" },
    { "listener.max_header_list_size", "16KiB", "4KiB", "1MiB", "4095", "2MiB",
      "4KiB to 1MiB", "x" },
    { "listener.min_recv_ping_interval", "10s", "0s", "10000d", NULL, "10001d",
      "0s to 10000d", "infinite" },
    { "listener.max_ping_strikes", "2", "0", "100", NULL, "101", "0 to 100",
      "x" },
    { "listener.max_connection_idle", "infinite", "1ms", "10000d", "0",
      "10001d", "infinite, or 1ms to 10000d", "off" },
    { "listener.max_connection_age", "infinite", "1ms", "10000d", "999us",
      "10001d", "infinite, or 1ms to 10000d", "off" },
    { "listener.max_connection_age_grace", "infinite", "1ms", "10000d", "1us",
      "10001d", "infinite, or 1ms to 10000d", "off" },
    { "listener.server_keepalive_time", "2h", "1ms", "10000d", "0", "10001d",
      "infinite, or 1ms to 10000d", "off" },
    { "listener.server_keepalive_timeout", "20s", "1ms", "1d", "0", "25h",
      "1ms to 1d", "infinite" },
    { "listener.early_close_burst", "10000", "1", "1000000000", "0",
      "1000000001", "1 to 1000000000", "x" },
    { "listener.early_close_rate", "2000", "1", "1000000000", "0", "1000000001",
      "1 to 1000000000", "x" },
};

/* Keys that are words, lists or texts. */
static const struct {
    const char *key;
    const char *fallback; /* NULL: none */
    const char *values[5];
    const char *wrong;
    const char *why;
} texts[] = {
    { "upstream.retries",
      "full",
      { "full", "transparent", "off" },
      "3",
      "allowed is full, transparent or off" },
    { "upstream.ambiguous",
      "auto",
      { "auto", "policy", "idempotent", "never" },
      "yes",
      "allowed is auto, policy, idempotent or never" },
    { "upstream.hold_headers",
      "auto",
      { "auto", "off" },
      "on",
      "allowed is auto or off" },
    { "upstream.stop_client_retries",
      "auto",
      { "auto", "always", "never" },
      "always!",
      "allowed is auto, always or never; did you mean 'always'?" },
    { "upstream.stacked_attempts",
      "share",
      { "share", "ignore" },
      "x",
      "allowed is share or ignore" },
    { "upstream.lb",
      "pick_first",
      { "pick_first", "round_robin", "least_request" },
      "roundrobin",
      "allowed is pick_first, round_robin or least_request; did you mean "
      "'round_robin'?" },
    { "upstream.reconnect_profile",
      "fast",
      { "fast", "grpc" },
      "slow",
      "allowed is fast or grpc" },
    { "upstream.service_config_mode",
      "strict",
      { "strict", "gapic" },
      "lax",
      "allowed is strict or gapic" },
    { "upstream.wait_for_ready",
      "yes",
      { "yes", "no" },
      "maybe",
      "write yes or no (on, off, true and false will do)" },
    { "upstream.shuffle_addresses",
      "no",
      { "yes", "no" },
      "2",
      "write yes or no (on, off, true and false will do)" },
    { "upstream.keepalive_permit_without_calls",
      "no",
      { "yes", "no" },
      "y",
      "write yes or no (on, off, true and false will do)" },
    { "listener.permit_ping_without_calls",
      "yes",
      { "yes", "no" },
      "",
      "write yes or no (on, off, true and false will do)" },
    { "upstream.authority",
      "auto",
      { "auto", "pass", "a.b:443", "[::1]:1" },
      "a/b",
      "not an authority; write auto, pass, or a text such as "
      "calls.example.net:443" },
    { "upstream.retryable_status_codes",
      "UNAVAILABLE",
      { "UNAVAILABLE", "CANCELLED, ABORTED" },
      "UNAVAILABLE,17",
      "\"17\" is not a status code" },
    { "upstream.idempotent_methods",
      NULL,
      { "/a/b", "/a.b/*, /*/Get*" },
      "/a",
      "entry 1: it is not of the form /service/method" },
    { "upstream.no_retry_methods",
      NULL,
      { "/a/b, /c/d" },
      "/a/b, c/d",
      "entry 2: it is not of the form /service/method" },
};

/* The rows that have tests of their own. */
static const char *const elsewhere[] = { "upstream.nodes", "upstream.target",
                                         "upstream.service_config",
                                         "listener.address",
                                         "listener.grpc_upstream" };

static const char *key_of(const char *full)
{
    return strchr(full, '.') + 1;
}

/* Whether a line "key = value" is in the section of the printed text. */
static void check_printed(const struct config *c,
                          const char *full,
                          const char *value)
{
    static struct loaded_text printed;
    char section[64];
    char line[256];
    printed.len = 0;
    config_print(c, loaded_write, &printed);
    (void)snprintf(section, sizeof(section), "[%.*s", (int)strcspn(full, "."),
                   full);
    (void)snprintf(line, sizeof(line), "\n%s = %s\n", key_of(full), value);
    const char *start = strstr(printed.text, section);
    assert_non_null(start);
    const char *end = strstr(start, "\n[");
    const char *found = strstr(start, line);
    if (found == NULL || (end != NULL && found > end)) {
        fail_msg("there is no %s = %s", full, value);
    }
}

static void take(const char *full, const char *value, const char *printed)
{
    char set[256];
    (void)snprintf(set, sizeof(set), "%s=%s", full, value);
    struct config *c = load_set(set);
    if (c == NULL) {
        fail_msg("%s", told.text);
    }
    check_printed(c, full, printed);
    config_free(c);
}

static void refuse(const char *full, const char *value, const char *why)
{
    char set[256];
    char expected[512];
    (void)snprintf(set, sizeof(set), "%s=%s", full, value);
    (void)snprintf(expected, sizeof(expected), "--set %s: %s = %s: %s\n", full,
                   key_of(full), value, why);
    refuse_set(set, expected);
}

static void each_number_has_its_default_and_its_range(void **state)
{
    (void)state;
    struct config *c = load_set(NULL);
    assert_non_null(c);
    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        const struct range *r = &ranges[i];
        char why[256];
        (void)snprintf(why, sizeof(why), "out of range; allowed is %s",
                       r->allowed);
        check_printed(c, r->key, r->fallback);
        take(r->key, r->fallback, r->fallback);
        take(r->key, r->low, r->low);
        take(r->key, r->high, r->high);
        if (r->below != NULL) {
            refuse(r->key, r->below, why);
        }
        refuse(r->key, r->above, why);
    }
    config_free(c);
}

static void each_number_refuses_other_things(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        char set[256];
        char start[256];
        (void)snprintf(set, sizeof(set), "%s=%s", ranges[i].key,
                       ranges[i].alien);
        assert_null(load_set(set));
        (void)snprintf(start, sizeof(start),
                       "--set %s: %s = %s: ", ranges[i].key,
                       key_of(ranges[i].key), ranges[i].alien);
        assert_int_equal(strncmp(told.text, start, strlen(start)), 0);
        const char *why = told.text + strlen(start);
        if (strncmp(why, "not a", 5) != 0 &&
            strncmp(why, "a duration needs a unit", 23) != 0) {
            fail_msg("%s", told.text);
        }
    }
}

static void each_word_and_list_is_taken_or_refused(void **state)
{
    (void)state;
    struct config *c = load_set(NULL);
    assert_non_null(c);
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        if (texts[i].fallback != NULL) {
            check_printed(c, texts[i].key, texts[i].fallback);
        }
        for (size_t k = 0; texts[i].values[k] != NULL; k++) {
            take(texts[i].key, texts[i].values[k], texts[i].values[k]);
        }
        refuse(texts[i].key, texts[i].wrong, texts[i].why);
    }
    config_free(c);
}

static bool is_tested(const char *full)
{
    for (size_t i = 0; i < sizeof(ranges) / sizeof(ranges[0]); i++) {
        if (strcmp(ranges[i].key, full) == 0) {
            return true;
        }
    }
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        if (strcmp(texts[i].key, full) == 0) {
            return true;
        }
    }
    for (size_t i = 0; i < sizeof(elsewhere) / sizeof(elsewhere[0]); i++) {
        if (strcmp(elsewhere[i], full) == 0) {
            return true;
        }
    }
    return false;
}

static void no_key_is_forgotten_here(void **state)
{
    (void)state;
    for (size_t i = 0; i < option_count(); i++) {
        const struct option *o = option_get(i);
        char full[128];
        (void)snprintf(full, sizeof(full), "%s.%s",
                       section_get(o->section)->name, o->key);
        if ((option_is_only_grpc(o) || o->section == SECTION_ALL_GRPC) &&
            !is_tested(full)) {
            fail_msg("%s has no test", full);
        }
    }
}

static void zero_and_words_mean_what_they_say(void **state)
{
    (void)state;
    static const char *const sets[] = {
        "upstream.keepalive_time=0",
        "upstream.dns_refresh=0",
        "upstream.idle_probe=off",
        "upstream.max_call_duration=0",
        "upstream.per_attempt_timeout=0",
        "upstream.throttle_max_tokens=0",
        "upstream.max_request_message_bytes=0",
        "listener.server_keepalive_time=infinite",
    };
    struct config_source source = { .url = "grpc://h:1",
                                    .sets = sets,
                                    .n_sets = sizeof(sets) / sizeof(sets[0]) };
    struct config *c = load(&source);
    assert_non_null(c);
    const struct grpc_config *g = &c->upstreams[0].grpc;
    assert_true(g->keepalive_time_us == GRPC_NO_LIMIT);
    assert_int_equal(g->dns_refresh_us, 0);
    assert_int_equal(g->idle_probe_us, 0);
    assert_int_equal(g->max_call_duration_us, 0);
    assert_int_equal(g->per_attempt_timeout_us, 0);
    assert_int_equal(g->throttle_max_millitokens, 0);
    assert_int_equal(g->max_request_message_bytes, 0);
    assert_true(g->max_response_message_bytes == GRPC_NO_LIMIT);
    assert_true(g->upstream_max_connection_age_us == GRPC_NO_LIMIT);
    assert_int_equal(g->max_retry_attempts, -1);
    assert_true(c->listeners[0].grpc.server_keepalive_time_us == GRPC_NO_LIMIT);
    assert_string_equal(told.text, "");
    config_free(c);
}

static void tokens_are_cut_to_thousandths(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint32_t milli;
    } cases[] = {
        { "0.5466", 546 },           { "1", 1000 },   { "0.0019999999", 1 },
        { "999.9999", 999999 },      { "0.57", 570 }, { "0.001", 1 },
        { "12.000000000001", 12000 }
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char set[128];
        (void)snprintf(set, sizeof(set), "upstream.throttle_token_ratio=%s",
                       cases[i].text);
        struct config *c = load_set(set);
        assert_non_null(c);
        assert_int_equal(c->upstreams[0].grpc.throttle_ratio_millitokens,
                         cases[i].milli);
        config_free(c);
    }
}

/* All 17 codes, by name, in any case, and by number. */
static void codes_are_names_or_numbers(void **state)
{
    (void)state;
    for (unsigned code = 0; code <= 17; code++) {
        char name[64];
        char forms[3][128];
        (void)snprintf(name, sizeof(name), "%s",
                       code <= 16 ? word_text(words_status, code) : "17");
        (void)snprintf(forms[0], sizeof(forms[0]), "%s", name);
        (void)snprintf(forms[2], sizeof(forms[2]), "%u", code);
        for (char *c = name; *c != '\0'; c++) {
            *c = (char)(*c >= 'A' && *c <= 'Z' ? *c + 32 : *c);
        }
        (void)snprintf(forms[1], sizeof(forms[1]), "%s", name);
        for (size_t i = 0; i < 3; i++) {
            char set[256];
            if (code == 0) {
                refuse("upstream.retryable_status_codes", forms[i],
                       "OK cannot be retried");
            } else if (code == 17) {
                refuse("upstream.retryable_status_codes", forms[i],
                       "\"17\" is not a status code");
            } else {
                (void)snprintf(set, sizeof(set),
                               "upstream.retryable_status_codes=%s", forms[i]);
                struct config *c = load_set(set);
                assert_non_null(c);
                assert_int_equal(c->upstreams[0].grpc.retryable_status_codes,
                                 1u << code);
                config_free(c);
            }
        }
    }
    take("upstream.retryable_status_codes", "unavailable\t,  10 ,14",
         "ABORTED, UNAVAILABLE");
    refuse("upstream.retryable_status_codes", "14,,10",
           "the list has an empty item");
    refuse("upstream.retryable_status_codes", "14,",
           "the list has an empty item");
    refuse("upstream.retryable_status_codes", "", "the list has an empty item");
    refuse("upstream.retryable_status_codes", "014",
           "\"014\" is not a status code");
    refuse("upstream.retryable_status_codes", "UNAVAILABLE ABORTED",
           "\"UNAVAILABLE ABORTED\" is not a status code");
}

static void keys_of_later_versions_are_told(void **state)
{
    (void)state;
    static const char *const keys[] = {
        "upstream.tls",
        "upstream.tls_ca",
        "upstream.tls_server_name",
        "upstream.tls_insecure_skip_verify",
        "upstream.response_buffer",
        "upstream.dns_txt",
        "upstream.dns_txt_language",
        "upstream.remote_allow_hedging",
        "upstream.method_table",
        "upstream.descriptor_set",
        "upstream.http_rules",
        "upstream.health_check_service",
        "upstream.outlier_detection",
        "upstream.outlier_success_volume",
        "grpc.tls",
        "grpc.outlier_interval",
        "listener.tls",
        "listener.tls_cert",
        "listener.tls_key",
        "listener.tls_client_ca",
    };
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        char set[128];
        char expected[256];
        (void)snprintf(set, sizeof(set), "%s=x", keys[i]);
        (void)snprintf(expected, sizeof(expected),
                       "--set %s: %s is not supported by this version\n",
                       keys[i], key_of(keys[i]));
        refuse_set(set, expected);
    }
    refuse_set("upstream.idempotent_method=/a/b",
               "--set upstream.idempotent_method: unknown key "
               "'idempotent_method' in section [upstream]; did you mean "
               "'idempotent_methods'?\n");
    refuse_set("grpc.round_robin=1", "--set grpc.round_robin: unknown key "
                                     "'round_robin' in section [grpc]\n");
    refuse_set("grpc.nodes=a:1",
               "--set grpc.nodes: nodes is allowed only in [upstream]\n");
    refuse_set("upstream.max_calls=1",
               "--set upstream.max_calls: max_calls is allowed only in "
               "[grpc]\n");
    refuse_set("grpc.address=:1", "--set grpc.address: address is allowed only "
                                  "in [admin], [listener], [upstream]\n");
    refuse_set("listener.lb=x",
               "--set listener.lb: lb is allowed only in [upstream], [grpc]\n");
}

static void keys_of_redis_and_grpc_do_not_mix(void **state)
{
    (void)state;
    refuse_set("upstream.deadline=1s",
               "--set upstream.deadline: deadline is only for type = "
               "standalone or cluster or sentinel; [upstream default] has type "
               "= grpc: take it out\n");
    refuse_set("listener.pipeline_max=5",
               "--set listener.pipeline_max: pipeline_max is only for protocol "
               "= redis or auto; [listener default] has protocol = grpc: take "
               "it out\n");
    refuse_set("listener.announce=a:1",
               "--set listener.announce: announce is only for clients of a "
               "cluster; [upstream default] has type = grpc; take it out\n");
    refuse_file("[upstream default]\naddress = h:1\nlb = round_robin\n"
                "initial_backoff = 1\n[listener default]\n"
                "max_concurrent_streams = 3\n",
                "f:4: initial_backoff = 1: a duration needs a unit: us, ms, s, "
                "m, h or d\n"
                "f:6: max_concurrent_streams is only for protocol = grpc or "
                "auto; [listener default] has protocol = redis: take it out\n"
                "f:3: lb is only for type = grpc; [upstream default] has type "
                "= standalone: say which type it is\n"
                "f:4: initial_backoff is only for type = grpc; [upstream "
                "default] has type = standalone: say which type it is\n");
    refuse_file("[upstream default]\ntype = grpc\naddress = h:1\n",
                "f:3: address is only for type = standalone; [upstream "
                "default] has type = grpc: its servers stand in nodes = "
                "host:port, host:port\n");
}

/* A key with a row for each: the type decides, wherever it stands. */
static void one_key_may_mean_two_things(void **state)
{
    (void)state;
    struct config *c = load_file("[upstream r]\naddress = h:1\nretries = 7\n"
                                 "connect_timeout = 1ms\n"
                                 "[upstream g]\nretries = off\n"
                                 "connect_timeout = 5m\n"
                                 "url = grpc://${HOST}:1\n"
                                 "[listener r]\nupstream = r\n"
                                 "[listener g]\nupstream = g\n");
    assert_int_equal(c->upstreams[0].retries, 7);
    assert_int_equal(c->upstreams[0].connect_timeout_us, 1000);
    assert_int_equal(c->upstreams[1].grpc.retries, GRPC_RETRIES_OFF);
    assert_int_equal(c->upstreams[1].connect_timeout_us, 300000000);
    assert_string_equal(c->upstreams[1].nodes[0].host, "redis.internal");
    config_free(c);
    /* Without a type nobody knows what they mean. */
    refuse_file("[upstream g]\ntype = gprc\nretries = off\nlb = x\n",
                "f:2: type = gprc: allowed is standalone, cluster, sentinel or "
                "grpc; did you mean 'grpc'?\n"
                "f:4: lb = x: allowed is pick_first, round_robin or "
                "least_request\n");
}

/* Says another thing each time that it is asked. */
static char *change(void *context, const char *name)
{
    unsigned *times = context;
    (void)name;
    return loaded_copy((*times)++ % 2 == 0 ? "redis://a" : "grpc://a:1");
}

static void a_url_that_changes_while_it_is_read_is_refused(void **state)
{
    (void)state;
    unsigned times = 0;
    struct config_source source =
        loaded_source("[upstream default]\nurl = ${URL}\n");
    source.get_env = change;
    source.context = &times;
    assert_null(load(&source));
    assert_string_equal(told.text,
                        "f:1: [upstream default]: its type or url has changed "
                        "while it was read\n");
}

/* Places --- */

/* The upstream's servers, with commas between. */
static void check_nodes(const struct config *c, const char *expected)
{
    const struct upstream_config *u = &c->upstreams[0];
    char list[1024] = "";
    for (size_t i = 0; i < u->n_nodes; i++) {
        char text[ADDRESS_TEXT_MAX];
        size_t used = strlen(list);
        address_format(&u->nodes[i], text);
        (void)snprintf(list + used, sizeof(list) - used, "%s%s",
                       i > 0 ? "," : "", text);
    }
    assert_int_equal(u->type, UPSTREAM_GRPC);
    assert_string_equal(list, expected);
}

static void urls_name_all_servers(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        { "grpc://h:50051", "h:50051" },
        { "GRPC://a:1,[::1]:2,10.0.0.1:65535/", "a:1,[::1]:2,10.0.0.1:65535" },
        { "grpc+unix:///run/a%20b", NULL },
        { "grpc+unix:///run/a.sock", "unix:/run/a.sock" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct config_source source = { .url = cases[i][0] };
        struct config *c = load(&source);
        if (cases[i][1] == NULL) {
            assert_null(c);
            assert_string_equal(told.text,
                                "command line: url: the path of a Unix socket "
                                "has no commas or spaces here\n");
            continue;
        }
        assert_non_null(c);
        check_nodes(c, cases[i][1]);
        assert_string_equal(c->listeners[0].address.host, "127.0.0.1");
        assert_int_equal(c->listeners[0].address.port, 50050);
        assert_int_equal(c->listeners[0].protocol, LISTENER_GRPC);
        assert_ptr_equal(c->listeners[0].upstream, &c->upstreams[0]);
        assert_ptr_equal(c->listeners[0].grpc_upstream, &c->upstreams[0]);
        assert_string_equal(c->upstreams[0].grpc.authority, "auto");
        config_free(c);
    }
}

static void wrong_urls_are_told(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        { "grpc://h", "entry 1: there is no port; write host:port, as gRPC has "
                      "no usual one" },
        { "grpc://a:1,b", "entry 2: there is no port; write host:port, as gRPC "
                          "has no usual one" },
        { "grpc://", "the URL has no host, or one comma too many" },
        { "grpc://a:1,", "the URL has no host, or one comma too many" },
        { "grpc://a:0", "entry 1: a port is a number from 1 to 65535" },
        { "grpc://u:p@a:1", "a grpc:// URL has only hosts and ports: "
                            "grpc://host:50051,host:50051" },
        { "grpc://a:1/x", "a grpc:// URL has only hosts and ports: "
                          "grpc://host:50051,host:50051" },
        { "grpc://a:1?lb=x", "a grpc:// URL has only hosts and ports: "
                             "grpc://host:50051,host:50051" },
        { "grpc://a:1,a:1", "" },
        { "grpc+unix://a", "the URL of a Unix socket has three slashes: "
                           "grpc+unix:///path" },
        { "grpcs://a:1", "TLS to the servers is not built yet; use grpc:// on "
                         "a trusted network" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct config_source source = { .url = cases[i][0] };
        char expected[512];
        assert_null(load(&source));
        (void)snprintf(expected, sizeof(expected), "command line: url: %s\n",
                       cases[i][1]);
        if (cases[i][1][0] == '\0') {
            (void)snprintf(expected, sizeof(expected),
                           "command line: a:1 is listed twice in the nodes\n");
        }
        assert_string_equal(told.text, expected);
    }
}

static void targets_are_those_of_grpc(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        { "dns:///h.example:443", "h.example:443" },
        { "dns:h:1", "h:1" },
        { "h:1", "h:1" },
        { "[::1]:1", "[::1]:1" },
        { "ipv4:10.0.0.1:1,10.0.0.2:2", "10.0.0.1:1,10.0.0.2:2" },
        { "ipv6:[::1]:1,[2001:db8::1]:2", "[::1]:1,[2001:db8::1]:2" },
        { "unix:/run/a", "unix:/run/a" },
        { "unix:///run/a", "unix:/run/a" },
        { "", NULL },
        { "h", NULL },
        { "dns:///h", NULL },
        { "dns://8.8.8.8/h:1", NULL },
        { "dns:///a:1,b:1", NULL },
        { "a:1,b:1", NULL },
        { "ipv4:h:1", NULL },
        { "ipv4:[::1]:1", NULL },
        { "ipv6:10.0.0.1:1", NULL },
        { "ipv4:10.0.0.1", NULL },
        { "ipv4:10.0.0.1:1,", NULL },
        { "ipv4:,10.0.0.1:1", NULL },
        { "ipv4:", NULL },
        { "unix:a", NULL },
        { "unix:/a,/b", NULL },
        { "xds:///a:1", NULL },
        { "a:1 b:1", NULL },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[256];
        (void)snprintf(text, sizeof(text),
                       "[upstream default]\ntype = grpc\ntarget = %s\n",
                       cases[i][0]);
        if (cases[i][1] != NULL) {
            struct config *c = load_file(text);
            check_nodes(c, cases[i][1]);
            config_free(c);
            continue;
        }
        char expected[256];
        (void)snprintf(expected, sizeof(expected),
                       "f:3: target = %s: not a target such as "
                       "dns:///host:443\n",
                       cases[i][0]);
        refuse_file(text, expected);
    }
}

static void nodes_may_be_unix_sockets_and_need_ports(void **state)
{
    (void)state;
    struct config *c = load_file("[upstream default]\ntype = grpc\n"
                                 "nodes = a:1, unix:/run/A\n"
                                 "nodes = /run/a, [::1]:2\n");
    check_nodes(c, "a:1,unix:/run/A,unix:/run/a,[::1]:2");
    config_free(c);
    refuse_file("[upstream default]\ntype = grpc\nnodes = a\n",
                "f:3: nodes = a: entry 1: there is no port; write host:port, "
                "as gRPC has no usual one\n");
    refuse_file("[upstream default]\ntype = grpc\n",
                "f:1: [upstream default] has no nodes; write nodes = "
                "host:port, host:port or url = grpc://host:port,host:port\n");
    refuse_file("[upstream default]\ntype = grpc\nnodes = a:1\n"
                "target = a:1\n",
                "f:4: target and nodes say the same; keep one of them\n"
                "f:3: a:1 is listed twice in the nodes\n");
    refuse_file("[upstream default]\ntype = grpc\nnodes = /a, unix:/a\n",
                "f:3: unix:/a is listed twice in the nodes\n");
    refuse_file("[upstream default]\nnodes = a:1\nurl = grpc://b:1\n",
                "f:2: nodes is also in the url at f:3; keep one of them\n");
    refuse_file("[upstream default]\ntarget = a:1\nurl = grpc://b:1\n",
                "f:2: target is also in the url at f:3; keep one of them\n");
    refuse_file("[upstream default]\ntype = cluster\ntarget = a:1\n",
                "f:3: target is only for type = grpc; [upstream default] has "
                "type = cluster: take it out\n");
    refuse_file("[upstream default]\ntype = grpc\nurl = redis://a\n",
                "f:2: type = grpc, but the url at f:3 is one for standalone; "
                "take the type out, or begin the url with grpc://\n");
}

static void a_later_place_replaces_an_earlier_one(void **state)
{
    (void)state;
    static const char *const sets[] = { "upstream.target=dns:///t:3" };
    struct config_source source = loaded_source(
        "[upstream default]\ntype = grpc\nnodes = a:1\nlb = round_robin\n");
    source.url = "grpc://b:2";
    struct config *c = load(&source);
    assert_non_null(c);
    check_nodes(c, "b:2");
    assert_int_equal(c->upstreams[0].grpc.lb, GRPC_ROUND_ROBIN);
    config_free(c);
    source.sets = sets;
    source.n_sets = 1;
    c = load(&source);
    assert_non_null(c);
    check_nodes(c, "t:3");
    config_free(c);
    source.url = NULL;
    c = load(&source);
    assert_non_null(c);
    check_nodes(c, "t:3");
    config_free(c);
}

/* Sections --- */

static void the_section_grpc_has_defaults_for_all(void **state)
{
    (void)state;
    struct config *c =
        load_file("[upstream a]\nurl = grpc://a:1\nlb = pick_first\n"
                  "idempotent_methods = /own/*\n"
                  "[grpc]\nlb = round_robin\nkeepalive_time = 1m\n"
                  "max_calls = 5\nretries = off\nconnect_timeout = 1s\n"
                  "idempotent_methods = /x/*, /y/*\n"
                  "[upstream b]\nurl = grpc://b:1\n"
                  "[upstream r]\nurl = redis://r\n"
                  "[listener l]\nupstream = a\n");
    const struct upstream_config *a = &c->upstreams[0];
    const struct upstream_config *b = &c->upstreams[1];
    const struct upstream_config *r = &c->upstreams[2];
    assert_int_equal(c->process.grpc.max_calls, 5);
    assert_int_equal(a->grpc.lb, GRPC_PICK_FIRST);
    assert_int_equal(b->grpc.lb, GRPC_ROUND_ROBIN);
    assert_int_equal(a->grpc.keepalive_time_us, 60000000);
    assert_int_equal(b->grpc.keepalive_time_us, 60000000);
    assert_int_equal(a->grpc.retries, GRPC_RETRIES_OFF);
    assert_int_equal(a->connect_timeout_us, 1000000);
    assert_int_equal(a->grpc.n_idempotent_methods, 1);
    assert_string_equal(a->grpc.idempotent_methods[0].text, "/own/*");
    assert_int_equal(b->grpc.n_idempotent_methods, 2);
    assert_string_equal(b->grpc.idempotent_methods[1].text, "/y/*");
    assert_int_equal(r->retries, 3);
    assert_int_equal(r->connect_timeout_us, 1000000);
    config_free(c);
    /* Wrong values are told once, and also when nobody needs them. */
    refuse_file("[grpc]\nlb = x\n[upstream a]\nurl = grpc://a:1\n"
                "[upstream default]\nurl = grpc://b:1\n",
                "f:2: lb = x: allowed is pick_first, round_robin or "
                "least_request\n");
    refuse_file("[grpc]\nlb = x\n[upstream a]\nurl = redis://a\n",
                "f:2: lb = x: allowed is pick_first, round_robin or "
                "least_request\n");
}

static void a_listener_speaks_what_its_upstream_does(void **state)
{
    (void)state;
    struct config *c = load_file(
        "[upstream default]\naddress = r:1\n[upstream g]\nurl = grpc://g:1\n"
        "[listener a]\nprotocol = auto\naddress = 127.0.0.1:1\n"
        "max_connections = 7\npipeline_max = 9\nmax_ping_strikes = 4\n"
        "[listener g]\nprotocol = grpc\n"
        "[listener r]\n[listener n]\nupstream = g\naddress = 127.0.0.1:3\n");
    const struct listener_config *l = c->listeners;
    const struct upstream_config *r = &c->upstreams[0];
    const struct upstream_config *g = &c->upstreams[1];
    assert_int_equal(l[0].protocol, LISTENER_AUTO);
    assert_ptr_equal(l[0].upstream, r);
    assert_ptr_equal(l[0].grpc_upstream, g);
    assert_int_equal(l[0].clients_max, 7);
    assert_int_equal(l[0].pipeline_max, 9);
    assert_int_equal(l[0].grpc.max_ping_strikes, 4);
    assert_int_equal(l[1].protocol, LISTENER_GRPC);
    assert_ptr_equal(l[1].upstream, g);
    assert_ptr_equal(l[1].grpc_upstream, g);
    assert_int_equal(l[1].address.port, 50050);
    assert_int_equal(l[1].clients_max, 1024);
    assert_int_equal(l[2].protocol, LISTENER_REDIS);
    assert_ptr_equal(l[2].upstream, r);
    assert_null(l[2].grpc_upstream);
    assert_int_equal(l[2].address.port, 6400);
    assert_int_equal(l[2].clients_max, 10000);
    assert_int_equal(l[3].protocol, LISTENER_GRPC);
    assert_int_equal(l[3].address.port, 3);
    config_free(c);
}

static void a_listener_needs_upstreams_of_its_protocol(void **state)
{
    (void)state;
    static const char redis[] = "[upstream default]\naddress = r:1\n";
    static const char grpc[] = "[upstream default]\nurl = grpc://g:1\n";
    static const struct {
        const char *upstreams;
        const char *listener;
        const char *expected;
    } cases[] = {
        { redis, "protocol = grpc\n",
          "f:4: with protocol = grpc, [listener l] needs an upstream of type "
          "grpc, and there is none\n" },
        { redis, "protocol = auto\n",
          "f:4: with protocol = auto, [listener l] needs an upstream of type "
          "grpc, and there is none\n" },
        { grpc, "protocol = auto\n",
          "f:4: with protocol = auto, [listener l] needs an upstream of type "
          "standalone, cluster or sentinel, and there is none\n" },
        { grpc, "protocol = redis\nupstream = default\n",
          "f:5: with protocol = redis, upstream must be one of type "
          "standalone, cluster or sentinel; [upstream default] has type = "
          "grpc\n" },
        { redis, "protocol = auto\ngrpc_upstream = default\n",
          "f:5: with protocol = auto, grpc_upstream must be one of type grpc; "
          "[upstream default] has type = standalone\n" },
        { redis, "protocol = auto\ngrpc_upstream = defalt\n",
          "f:5: there is no section [upstream defalt]; did you mean "
          "'default'?\n" },
        { grpc, "grpc_upstream = default\n",
          "f:4: grpc_upstream is only for protocol = auto; [listener l] has "
          "protocol = grpc\n" },
        { redis, "grpc_upstream = default\n",
          "f:4: grpc_upstream is only for protocol = auto; [listener l] has "
          "protocol = redis\n" },
        { grpc, "clients_max = 3\nmax_connections = 3\n",
          "f:4: clients_max is only for protocol = redis or auto; [listener "
          "l] has protocol = grpc: take it out\n"
          "f:5: max_connections and clients_max are one limit; keep one of "
          "them\n" },
        { "[upstream a]\nurl = grpc://a:1\n[upstream b]\nurl = grpc://b:1\n"
          "[upstream c]\naddress = c:1\n",
          "protocol = auto\n",
          "f:7: [listener l] must say which of the upstreams it means: "
          "grpc_upstream = a\n" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[512];
        (void)snprintf(text, sizeof(text), "%s[listener l]\n%s",
                       cases[i].upstreams, cases[i].listener);
        refuse_file(text, cases[i].expected);
    }
}

static void clients_from_elsewhere_may_break_off_less(void **state)
{
    (void)state;
    struct config *c =
        load_file("[upstream default]\nurl = grpc://g:1\n"
                  "[listener a]\naddress = 10.0.0.1:1\nbind_public = yes\n"
                  "[listener b]\naddress = 10.0.0.1:2\nbind_public = yes\n"
                  "early_close_burst = 5\n[listener c]\naddress = unix:/c\n");
    const struct listener_config *l = c->listeners;
    assert_int_equal(l[0].grpc.early_close_burst, 1000);
    assert_int_equal(l[0].grpc.early_close_rate, 100);
    assert_int_equal(l[1].grpc.early_close_burst, 5);
    assert_int_equal(l[1].grpc.early_close_rate, 100);
    assert_int_equal(l[2].grpc.early_close_burst, 10000);
    assert_int_equal(l[2].grpc.early_close_rate, 2000);
    config_free(c);
}

static void a_profile_sets_what_is_not_given(void **state)
{
    (void)state;
    struct config *c = load_file(
        "[grpc]\nreconnect_profile = grpc\nreconnect_jitter = 0.5\n"
        "[upstream default]\nurl = grpc://a:1\nreconnect_multiplier = 3\n"
        "[upstream b]\nurl = grpc://b:1\nreconnect_profile = fast\n"
        "[upstream c]\nurl = grpc://c:1\nreconnect_initial_backoff = 2s\n"
        "reconnect_max_backoff = 3s\nconnect_timeout = 4s\n");
    const struct upstream_config *u = c->upstreams;
    assert_int_equal(u[0].grpc.reconnect_initial_backoff_us, 1000000);
    assert_int_equal(u[0].grpc.reconnect_max_backoff_us, 120000000);
    assert_true(u[0].grpc.reconnect_multiplier == 3);
    assert_true(u[0].grpc.reconnect_jitter == 0.5);
    assert_int_equal(u[0].connect_timeout_us, 20000000);
    assert_int_equal(u[1].grpc.reconnect_initial_backoff_us, 200000);
    assert_int_equal(u[1].grpc.reconnect_max_backoff_us, 5000000);
    assert_true(u[1].grpc.reconnect_multiplier == 1.6);
    assert_int_equal(u[1].connect_timeout_us, 5000000);
    assert_int_equal(u[2].grpc.reconnect_initial_backoff_us, 2000000);
    assert_int_equal(u[2].grpc.reconnect_max_backoff_us, 3000000);
    assert_int_equal(u[2].connect_timeout_us, 4000000);
    config_free(c);
}

/* Warnings --- */

static void warn_file(const char *text, const char *expected)
{
    config_free(load_file(text));
    assert_string_equal(told.text, expected);
}

static void what_is_hardly_meant_is_a_warning(void **state)
{
    (void)state;
    warn_file("[upstream default]\nurl = grpc://a:1\n", "");
    warn_file("[upstream default]\nurl = grpc://a:1\nkeepalive_time = 9s\n",
              "f:3: keepalive_time is raised to 10s, the least that gRPC "
              "allows\n");
    warn_file("[upstream default]\nurl = grpc://a:1\nmax_backoff = 1s\n"
              "retryable_status_codes = 10\ninitial_backoff = 2s\n"
              "backoff_multiplier = 3\n",
              "f:5: initial_backoff has no effect without "
              "max_retry_attempts\n"
              "f:3: max_backoff has no effect without max_retry_attempts\n"
              "f:6: backoff_multiplier has no effect without "
              "max_retry_attempts\n"
              "f:4: retryable_status_codes has no effect without "
              "max_retry_attempts\n");
    warn_file("[upstream default]\nurl = grpc://a:1\nmax_retry_attempts = 1\n"
              "initial_backoff = 3s\nretryable_status_codes = 14, 10, 2\n",
              "f:4: initial_backoff is longer than max_backoff, which every "
              "wait is cut to\n"
              "f:5: retryable_status_codes: AIP-194 advises against retries "
              "after UNKNOWN, ABORTED\n");
    warn_file("[upstream default]\nurl = grpc://a:1\nambiguous = policy\n",
              "f:3: ambiguous = policy: calls that may have run are sent "
              "again, and some will run twice\n");
    /* Said for two, told once. */
    warn_file("[grpc]\nkeepalive_time = 1s\n[upstream default]\n"
              "url = grpc://a:1\n[upstream b]\nurl = grpc://b:1\n",
              "f:2: keepalive_time is raised to 10s, the least that gRPC "
              "allows\n");
    /* Nobody uses it. */
    warn_file("[grpc]\nkeepalive_time = 1s\n[upstream default]\n"
              "url = redis://a\n",
              "");
    struct config *c = load_file("[upstream default]\nurl = grpc://a:1\n"
                                 "keepalive_time = 1us\n");
    assert_int_equal(c->upstreams[0].grpc.keepalive_time_us, 10000000);
    config_free(c);
}

/* Which codes AIP-194 is against: of all 16, these. */
static void every_doubtful_code_is_warned_of(void **state)
{
    (void)state;
    static const bool doubtful[17] = {
        [1] = true, [2] = true,  [3] = true,  [4] = true,
        [8] = true, [10] = true, [13] = true, [15] = true
    };
    for (unsigned code = 1; code <= 16; code++) {
        char text[256];
        char expected[256] = "";
        (void)snprintf(text, sizeof(text),
                       "[upstream default]\nurl = grpc://a:1\n"
                       "max_retry_attempts = 1\nretryable_status_codes = %u\n",
                       code);
        if (doubtful[code]) {
            (void)snprintf(expected, sizeof(expected),
                           "f:4: retryable_status_codes: AIP-194 advises "
                           "against retries after %s\n",
                           word_text(words_status, code));
        }
        warn_file(text, expected);
    }
}

/* What is printed loads to the same. */
static void what_is_printed_loads_to_the_same(void **state)
{
    (void)state;
    static struct loaded_text first;
    static struct loaded_text second;
    struct config *c = load_file(
        "[upstream default]\naddress = r:1\n"
        "[upstream g]\ntarget = unix:///run/g\ntype = grpc\n"
        "idempotent_methods = /a/*, /b/Get*\nno_retry_methods = /c/$${d}\n"
        "max_retry_attempts = 0\nbackoff_multiplier = 1.000001\n"
        "throttle_token_ratio = 0.123\nauthority = x:1\n"
        "reconnect_profile = grpc\nservice_config = /empty.json\n"
        "[listener a]\nprotocol = auto\n"
        "[listener g]\nupstream = g\nmax_connections = 3\n");
    first.len = 0;
    config_print(c, loaded_write, &first);
    config_free(c);
    c = load_file(first.text);
    second.len = 0;
    config_print(c, loaded_write, &second);
    config_free(c);
    assert_string_equal(first.text, second.text);
    assert_non_null(strstr(first.text, "\ngrpc_upstream = g\n"));
    assert_non_null(strstr(first.text, "\nservice_config = /empty.json\n"));
    assert_non_null(
        strstr(first.text, "\nidempotent_methods = /a/*, /b/Get*\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_number_has_its_default_and_its_range),
        cmocka_unit_test(each_number_refuses_other_things),
        cmocka_unit_test(each_word_and_list_is_taken_or_refused),
        cmocka_unit_test(no_key_is_forgotten_here),
        cmocka_unit_test(zero_and_words_mean_what_they_say),
        cmocka_unit_test(tokens_are_cut_to_thousandths),
        cmocka_unit_test(codes_are_names_or_numbers),
        cmocka_unit_test(keys_of_later_versions_are_told),
        cmocka_unit_test(keys_of_redis_and_grpc_do_not_mix),
        cmocka_unit_test(one_key_may_mean_two_things),
        cmocka_unit_test(a_url_that_changes_while_it_is_read_is_refused),
        cmocka_unit_test(urls_name_all_servers),
        cmocka_unit_test(wrong_urls_are_told),
        cmocka_unit_test(targets_are_those_of_grpc),
        cmocka_unit_test(nodes_may_be_unix_sockets_and_need_ports),
        cmocka_unit_test(a_later_place_replaces_an_earlier_one),
        cmocka_unit_test(the_section_grpc_has_defaults_for_all),
        cmocka_unit_test(a_listener_speaks_what_its_upstream_does),
        cmocka_unit_test(a_listener_needs_upstreams_of_its_protocol),
        cmocka_unit_test(clients_from_elsewhere_may_break_off_less),
        cmocka_unit_test(a_profile_sets_what_is_not_given),
        cmocka_unit_test(what_is_hardly_meant_is_a_warning),
        cmocka_unit_test(every_doubtful_code_is_warned_of),
        cmocka_unit_test(what_is_printed_loads_to_the_same),
    };
    return cmocka_run_group_tests_name("config of gRPC", tests, NULL, NULL);
}
