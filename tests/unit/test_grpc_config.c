/* What holds for a method of gRPC: where it comes from, and how it is found. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

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

/* There is one file, and context is what it holds. */
static char *read_json(void *context, const char *path)
{
    return strcmp(path, "/s.json") == 0 ? loaded_copy(context) : NULL;
}

/* A file with the upstream g, whose section goes on with keys, and the service
 * config json (NULL: none). Returns NULL, with the problems in told, when it is
 * refused; else the warnings are there. */
static struct config *load(const char *keys, const char *json)
{
    static char text[2048];
    static char content[16 * 1024];
    struct config_problems p = { 0 };
    (void)snprintf(text, sizeof(text), "[upstream g]\nurl = grpc://a:1\n%s%s",
                   json != NULL ? "service_config = /s.json\n" : "", keys);
    (void)snprintf(content, sizeof(content), "%s", json != NULL ? json : "");
    struct config_source source = loaded_source(text);
    source.read_file = read_json;
    source.context = content;
    struct config *c = config_load(&source, &p);
    tell(c != NULL ? &c->warnings : &p);
    config_problems_fini(&p);
    return c;
}

static struct config *must_load(const char *keys, const char *json)
{
    struct config *c = load(keys, json);
    if (c == NULL) {
        fail_msg("%s", told.text);
    }
    return c;
}

static struct grpc_method_view find(const struct config *c, const char *path)
{
    struct grpc_method_view view;
    grpc_method_find(&c->upstreams[0].grpc, span_of(path), &view);
    return view;
}

static void check_no_retry(const struct grpc_policy *p)
{
    assert_false(p->retry);
    assert_false(p->is_explicit);
    assert_int_equal(p->max_attempts, 0);
    assert_int_equal(p->initial_backoff_us, 0);
    assert_int_equal(p->max_backoff_us, 0);
    assert_true(p->multiplier == 0);
    assert_int_equal(p->codes, 0);
}

/* A retryPolicy of so many attempts. */
#define RETRY(attempts)                                       \
    "\"retryPolicy\":{\"maxAttempts\":" #attempts             \
    ",\"initialBackoff\":\"0.01s\",\"maxBackoff\":\"0.02s\"," \
    "\"backoffMultiplier\":1.5,\"retryableStatusCodes\":[\"ABORTED\"]}"

/* Keys alone --- */

static void without_keys_nothing_is_retried(void **state)
{
    (void)state;
    struct config *c = must_load("", NULL);
    struct grpc_method_view v = find(c, "/a.B/C");
    check_no_retry(v.policy);
    assert_true(v.policy->timeout_us == GRPC_NO_LIMIT);
    assert_true(v.policy->wait_for_ready);
    assert_true(v.policy->request_message_max == GRPC_NO_LIMIT);
    assert_true(v.policy->response_message_max == GRPC_NO_LIMIT);
    assert_false(v.safe);
    assert_false(v.no_retry);
    assert_int_equal(v.label, GRPC_LABEL_OTHER);
    assert_int_equal(c->upstreams[0].grpc.n_methods, 0);
    config_free(c);
}

static void keys_make_a_policy_for_all_methods(void **state)
{
    (void)state;
    struct config *c = must_load(
        "max_retry_attempts = 3\ninitial_backoff = 5ms\nmax_backoff = 50ms\n"
        "backoff_multiplier = 2.5\nretryable_status_codes = 14, ABORTED\n"
        "max_call_duration = 7s\nwait_for_ready = no\n"
        "max_request_message_bytes = 1KiB\nmax_response_message_bytes = 2KiB\n",
        NULL);
    const struct grpc_policy *p = find(c, "/a.B/C").policy;
    assert_true(p->retry);
    assert_false(p->is_explicit);
    assert_int_equal(p->max_attempts, 4);
    assert_int_equal(p->initial_backoff_us, 5000);
    assert_int_equal(p->max_backoff_us, 50000);
    assert_true(p->multiplier == 2.5);
    assert_int_equal(p->codes, 1 << 14 | 1 << 10);
    assert_int_equal(p->timeout_us, 7000000);
    assert_false(p->wait_for_ready);
    assert_int_equal(p->request_message_max, 1024);
    assert_int_equal(p->response_message_max, 2048);
    config_free(c);
}

static void retries_of_the_keys_are_counted_after_the_first_attempt(
    void **state)
{
    (void)state;
    static const struct {
        const char *keys;
        uint32_t attempts; /* 0: no policy */
    } cases[] = {
        { "max_retry_attempts = unset\n", 0 },
        { "max_retry_attempts = 0\n", 0 },
        { "max_retry_attempts = 1\n", 2 },
        { "max_retry_attempts = 3\n", 4 },
        { "max_retry_attempts = 99\nmax_attempts_cap = 2\n", 100 },
        { "retryable_status_codes = 14\n", 0 },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct config *c = must_load(cases[i].keys, NULL);
        const struct grpc_policy *p = find(c, "/a/b").policy;
        assert_int_equal(p->retry, cases[i].attempts > 0);
        assert_int_equal(p->max_attempts, cases[i].attempts);
        config_free(c);
    }
}

/* Service configs --- */

static void the_most_specific_entry_is_used_whole(void **state)
{
    (void)state;
    struct config *c = must_load(
        "",
        "{\"methodConfig\":["
        "{\"name\":[{}],\"timeout\":\"1s\"," RETRY(
            2) "},"
               "{\"name\":[{\"service\":\"a.B\"}],\"timeout\":\"2s\"," RETRY(
                   3) "},"
                      "{\"name\":[{\"service\":\"a.B\",\"method\":\"C\"}],"
                      "\"waitForReady\":false},"
                      "{\"name\":[{\"service\":\"a.B\",\"method\":\"D\"}]"
                      "," RETRY(4) "}]}");
    static const struct {
        const char *path;
        const char *name; /* of its label; NULL: other */
        uint64_t timeout_us;
        uint32_t attempts;
        bool is_explicit;
        bool wait_for_ready;
    } cases[] = {
        { "/a.B/C", "/a.B/C", GRPC_NO_LIMIT, 0, false, false },
        { "/a.B/D", "/a.B/D", GRPC_NO_LIMIT, 4, true, true },
        { "/a.B/E", "/a.B/", 2000000, 3, true, true },
        { "/a.B/CC", "/a.B/", 2000000, 3, true, true },
        { "/a.B/c", "/a.B/", 2000000, 3, true, true },
        { "/a.BB/C", NULL, 1000000, 2, false, true },
        { "/x/a.B/C", NULL, 1000000, 2, false, true },
        { "/a/B/C", NULL, 1000000, 2, false, true },
    };
    const struct grpc_config *g = &c->upstreams[0].grpc;
    assert_int_equal(g->n_methods, 3);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct grpc_method_view v = find(c, cases[i].path);
        assert_int_equal(v.label != GRPC_LABEL_OTHER, cases[i].name != NULL);
        if (cases[i].name != NULL) {
            assert_string_equal(g->methods[v.label - 1].path, cases[i].name);
            assert_ptr_equal(v.policy, &g->methods[v.label - 1].policy);
        }
        assert_true(v.policy->timeout_us == cases[i].timeout_us);
        assert_int_equal(v.policy->retry, cases[i].attempts > 0);
        assert_int_equal(v.policy->max_attempts, cases[i].attempts);
        assert_int_equal(v.policy->is_explicit, cases[i].is_explicit);
        assert_int_equal(v.policy->wait_for_ready, cases[i].wait_for_ready);
    }
    config_free(c);
}

static void the_service_config_wins_over_keys_group_by_group(void **state)
{
    (void)state;
    struct config *c = must_load(
        "max_retry_attempts = 8\nmax_call_duration = 3s\nwait_for_ready = no\n"
        "max_request_message_bytes = 100\nmax_response_message_bytes = 100\n"
        "lb = least_request\nlb_choices = 7\nshuffle_addresses = yes\n"
        "throttle_max_tokens = 3\nthrottle_token_ratio = 3\n"
        "max_connections_per_endpoint = 2\n",
        "{\"loadBalancingConfig\":[{\"round_robin\":{}}],"
        "\"retryThrottling\":{\"maxTokens\":10,\"tokenRatio\":0.5466},"
        "\"connectionScaling\":{\"maxConnectionsPerSubchannel\":99},"
        "\"methodConfig\":["
        "{\"name\":[{\"service\":\"a\",\"method\":\"retry\"}]," RETRY(
            3) "},"
               "{\"name\":[{\"service\":\"a\",\"method\":\"wait\"}],"
               "\"waitForReady\":true},"
               "{\"name\":[{\"service\":\"a\",\"method\":\"short\"}],"
               "\"timeout\":\"1s\",\"maxRequestMessageBytes\":5,"
               "\"maxResponseMessageBytes\":0},"
               "{\"name\":[{\"service\":\"a\",\"method\":\"long\"}],"
               "\"timeout\":\"5s\",\"maxRequestMessageBytes\":500,"
               "\"maxResponseMessageBytes\":500}]}");
    const struct grpc_config *g = &c->upstreams[0].grpc;
    assert_int_equal(g->lb, GRPC_ROUND_ROBIN);
    assert_false(g->shuffle_addresses);
    assert_int_equal(g->lb_choices, 2);
    assert_int_equal(g->throttle_max_millitokens, 10000);
    assert_int_equal(g->throttle_ratio_millitokens, 546);
    assert_int_equal(g->max_connections_per_endpoint, 10);

    const struct grpc_policy *p = find(c, "/a/retry").policy;
    assert_true(p->retry && p->is_explicit);
    assert_int_equal(p->max_attempts, 3);
    assert_int_equal(p->initial_backoff_us, 10000);
    assert_int_equal(p->max_backoff_us, 20000);
    assert_true(p->multiplier == 1.5);
    assert_int_equal(p->codes, 1 << 10);
    assert_int_equal(p->timeout_us, 3000000);
    assert_false(p->wait_for_ready);

    /* Without a retryPolicy, that of the keys; the owner did not state it. */
    p = find(c, "/a/wait").policy;
    assert_true(p->retry && !p->is_explicit);
    assert_int_equal(p->max_attempts, 9);
    assert_true(p->wait_for_ready);

    /* Of timeouts and limits, the smaller. */
    p = find(c, "/a/short").policy;
    assert_int_equal(p->timeout_us, 1000000);
    assert_int_equal(p->request_message_max, 5);
    assert_int_equal(p->response_message_max, 0);
    p = find(c, "/a/long").policy;
    assert_int_equal(p->timeout_us, 3000000);
    assert_int_equal(p->request_message_max, 100);
    assert_int_equal(p->response_message_max, 100);
    config_free(c);
}

static void what_the_service_config_does_not_say_stays(void **state)
{
    (void)state;
    struct config *c = must_load("lb = least_request\nlb_choices = 7\n"
                                 "throttle_max_tokens = 3\n"
                                 "max_connections_per_endpoint = 2\n",
                                 "{}");
    const struct grpc_config *g = &c->upstreams[0].grpc;
    assert_int_equal(g->lb, GRPC_LEAST_REQUEST);
    assert_int_equal(g->lb_choices, 7);
    assert_int_equal(g->throttle_max_millitokens, 3000);
    assert_int_equal(g->max_connections_per_endpoint, 2);
    config_free(c);
}

static void a_balancer_brings_its_own_choices(void **state)
{
    (void)state;
    static const struct {
        const char *json;
        uint32_t choices;
    } cases[] = {
        { "{\"loadBalancingConfig\":[{\"least_request\":{\"choiceCount\":4}}]}",
          4 },
        { "{\"loadBalancingConfig\":[{\"least_request\":{}}]}", 2 },
        { "{}", 7 },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct config *c =
            must_load("lb = least_request\nlb_choices = 7\n", cases[i].json);
        assert_int_equal(c->upstreams[0].grpc.lb, GRPC_LEAST_REQUEST);
        assert_int_equal(c->upstreams[0].grpc.lb_choices, cases[i].choices);
        config_free(c);
    }
}

/* A service may have a slash in its name, and then two names have one path. It
 * is split at its last slash. */
static void of_two_names_with_one_path_the_longer_service_counts(void **state)
{
    (void)state;
    static const char first[] = "{\"name\":[{\"service\":\"a/b\",\"method\":"
                                "\"c\"}],\"timeout\":\"1s\"}";
    static const char second[] = "{\"name\":[{\"service\":\"a\",\"method\":"
                                 "\"b/c\"}],\"timeout\":\"2s\"}";
    for (int turn = 0; turn < 2; turn++) {
        char json[512];
        (void)snprintf(json, sizeof(json), "{\"methodConfig\":[%s,%s]}",
                       turn == 0 ? first : second, turn == 0 ? second : first);
        struct config *c = must_load("", json);
        assert_int_equal(c->upstreams[0].grpc.n_methods, 2);
        assert_int_equal(find(c, "/a/b/c").policy->timeout_us, 1000000);
        config_free(c);
    }
}

static void the_user_can_always_switch_retries_off(void **state)
{
    (void)state;
    static const char json[] =
        "{\"methodConfig\":[{\"name\":[{}],\"timeout\":\"1s\"," RETRY(
            3) "},"
               "{\"name\":[{\"service\":\"a\"}],\"timeout\":\"2s\"," RETRY(
                   4) "}]}";
    struct config *c = must_load("max_retry_attempts = 0\n", json);
    check_no_retry(find(c, "/a/b").policy);
    check_no_retry(find(c, "/x/y").policy);
    assert_int_equal(find(c, "/a/b").policy->timeout_us, 2000000);
    config_free(c);

    c = must_load("no_retry_methods = /a/*\nidempotent_methods = /*/Get*\n",
                  json);
    struct grpc_method_view v = find(c, "/a/GetX");
    assert_true(v.no_retry);
    assert_true(v.safe);
    v = find(c, "/b/Get");
    assert_false(v.no_retry);
    assert_true(v.safe);
    v = find(c, "/b/Put");
    assert_false(v.no_retry);
    assert_false(v.safe);
    config_free(c);

    /* That retries is not full, the core sees by itself, and says so. */
    c = must_load("retries = transparent\n", json);
    assert_int_equal(c->upstreams[0].grpc.retries, GRPC_RETRIES_TRANSPARENT);
    assert_true(find(c, "/a/b").policy->retry);
    config_free(c);
}

static void attempts_of_a_service_config_are_capped(void **state)
{
    (void)state;
    static const char json[] =
        "{\"methodConfig\":[{\"name\":[{}]," RETRY(10) "}]}";
    static const struct {
        const char *keys;
        uint32_t attempts;
        const char *warning;
    } cases[] = {
        { "", 5,
          "/s.json: methodConfig[0].retryPolicy.maxAttempts: 10 is above "
          "max_attempts_cap; it is 5\n" },
        { "max_attempts_cap = 2\n", 2,
          "/s.json: methodConfig[0].retryPolicy.maxAttempts: 10 is above "
          "max_attempts_cap; it is 2\n" },
        { "max_attempts_cap = 10\n", 10, "" },
        { "max_attempts_cap = 100\n", 10, "" },
    };
    static const char doubt[] =
        "/s.json: methodConfig[0].retryPolicy.retryableStatusCodes: AIP-194 "
        "advises against retries after ABORTED\n";
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char expected[512];
        struct config *c = must_load(cases[i].keys, json);
        assert_int_equal(find(c, "/a/b").policy->max_attempts,
                         cases[i].attempts);
        (void)snprintf(expected, sizeof(expected), "%s%s", cases[i].warning,
                       doubt);
        assert_string_equal(told.text, expected);
        config_free(c);
    }
}

static void hedged_methods_have_no_retries(void **state)
{
    (void)state;
    struct config *c =
        must_load("max_retry_attempts = 3\n",
                  "{\"methodConfig\":[{\"name\":[{\"service\":\"a\"}],"
                  "\"hedgingPolicy\":{\"maxAttempts\":3}}]}");
    check_no_retry(find(c, "/a/b").policy);
    assert_true(find(c, "/b/b").policy->retry);
    config_free(c);
}

static void a_broken_service_config_is_refused_with_its_file(void **state)
{
    (void)state;
    assert_null(load("lb = x\n", "{\"methodConfig\":5,\"retryThrottling\":5}"));
    assert_string_equal(
        told.text,
        "f:4: lb = x: allowed is pick_first, round_robin or least_request\n"
        "/s.json: methodConfig: must be an array of objects\n"
        "/s.json: retryThrottling: must be an object\n");
    assert_null(load("", "{\"a\" 1}"));
    assert_string_equal(told.text, "/s.json:1:6: ':' expected near '1'\n");
    assert_null(load("service_config = /none.json\n", NULL));
    assert_string_equal(told.text, "f:3: cannot read the file '/none.json'\n");
    assert_null(load("service_config_mode = gapic\n",
                     "{\"methodConfig\":[{\"name\":[{}],\"retryPolicy\":5}]}"));
    assert_string_equal(
        told.text, "/s.json: methodConfig[0].retryPolicy: must be an object\n");
}

static void what_is_wrong_with_a_file_is_told_once(void **state)
{
    (void)state;
    static const char two[] = "[upstream h]\nurl = grpc://h:1\n"
                              "service_config = /s.json\n"
                              "[listener l]\nupstream = h\n";
    assert_null(load(two, "{\"methodConfig\":5}"));
    assert_string_equal(told.text,
                        "/s.json: methodConfig: must be an array of objects\n");
    struct config *c =
        must_load(two, "{\"methodConfig\":[{},{\"name\":[{\"service\":\"a\"}],"
                       "\"timeout\":\"1s\"}]}");
    assert_string_equal(
        told.text,
        "/s.json: methodConfig[0]: has no name, so it is for no method\n");
    assert_int_equal(c->upstreams[0].grpc.n_methods, 1);
    assert_int_equal(c->upstreams[1].grpc.n_methods, 1);
    config_free(c);
}

static void gapic_mode_is_a_key(void **state)
{
    (void)state;
    static const char json[] =
        "{\"methodConfig\":[{\"name\":[{\"service\":\"a\"}],\"retryPolicy\":{"
        "\"initialBackoff\":\"0.1s\",\"maxBackoff\":\"60s\","
        "\"backoffMultiplier\":1.3,\"retryableStatusCodes\":[\"UNAVAILABLE\"]"
        "}}]}";
    assert_null(load("", json));
    struct config *c =
        must_load("service_config_mode = gapic\nmax_attempts_cap = 7\n", json);
    assert_int_equal(find(c, "/a/b").policy->max_attempts, 7);
    assert_string_equal(told.text,
                        "/s.json: methodConfig[0].retryPolicy.maxAttempts: is "
                        "missing; it is max_attempts_cap, 7\n");
    config_free(c);
}

/* Finding --- */

static void methods_are_sorted_by_their_hash(void **state)
{
    (void)state;
    static char json[16 * 1024];
    size_t used = (size_t)snprintf(json, sizeof(json),
                                   "{\"methodConfig\":[{\"name\":[{}]},{"
                                   "\"name\":[");
    for (unsigned i = 0; i < 200; i++) {
        used +=
            (size_t)snprintf(json + used, sizeof(json) - used,
                             "%s{\"service\":\"pkg.Svc%u\",\"method\":\"M%u\"}",
                             i == 0 ? "" : ",", i % 20, i);
    }
    (void)snprintf(json + used, sizeof(json) - used, "],\"timeout\":\"1s\"}]}");
    struct config *c = must_load("", json);
    const struct grpc_config *g = &c->upstreams[0].grpc;
    assert_int_equal(g->n_methods, 200);
    for (size_t i = 0; i < g->n_methods; i++) {
        assert_int_equal(g->methods[i].path_hash,
                         grpc_method_hash(span_of(g->methods[i].path)));
        assert_true(i == 0 ||
                    g->methods[i - 1].path_hash <= g->methods[i].path_hash);
        assert_int_equal(find(c, g->methods[i].path).label, i + 1);
    }
    for (unsigned i = 0; i < 200; i++) {
        char path[64];
        (void)snprintf(path, sizeof(path), "/pkg.Svc%u/M%u", i % 20, i);
        assert_int_not_equal(find(c, path).label, GRPC_LABEL_OTHER);
        (void)snprintf(path, sizeof(path), "/pkg.Svc%u/M%u", i % 20 + 1, i);
        assert_int_equal(find(c, path).label, GRPC_LABEL_OTHER);
    }
    config_free(c);
}

/* All have one hash here, as names may by chance. */
static void names_with_one_hash_are_told_apart(void **state)
{
    (void)state;
    static char paths[][8] = { "/b/", "/a/x", "/a/y" };
    struct grpc_method methods[3] = { { .path = paths[0] },
                                      { .path = paths[1] },
                                      { .path = paths[2] } };
    struct grpc_config g = { .methods = methods, .n_methods = 3 };
    uint32_t hash = grpc_method_hash(span_of("/a/y"));
    for (size_t i = 0; i < 3; i++) {
        methods[i].path_hash = hash; /* as if all had it */
    }
    struct grpc_method_view v;
    grpc_method_find(&g, span_of("/a/y"), &v);
    assert_int_equal(v.label, 3);
    grpc_method_find(&g, span_of("/a/z"), &v);
    assert_int_equal(v.label, GRPC_LABEL_OTHER);
    assert_ptr_equal(v.policy, &g.others);
}

static void the_hash_is_fnv_1a(void **state)
{
    (void)state;
    assert_int_equal(grpc_method_hash(span_of("")), 0x811c9dc5);
    assert_int_equal(grpc_method_hash(span_of("a")), 0xe40c292c);
    assert_int_equal(grpc_method_hash(span_of("foobar")), 0xbf9cf968);
}

/* Globs --- */

static void globs_have_the_form_of_a_method(void **state)
{
    (void)state;
    static const char *const good[] = { "/a/b",   "/pkg.Svc/Get*", "/*/*",
                                        "/a/b/c", "/a//b",         "/**/x" };
    static const char *const bad[] = { "",       "/",       "//",
                                       "/a",     "/a/",     "a/b",
                                       "//b",    "//b/c",   "/a/b c",
                                       "/a/b\n", "/a/\x7f", "/\xc3\xa4/b" };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_true(grpc_glob_is_valid(span_of(good[i])));
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_false(grpc_glob_is_valid(span_of(bad[i])));
    }
}

enum {
    GLOB_MAX = 5,
    PATH_MAX_LEN = 6
};

/* What a glob means, slowly: can[j] says whether what was read of the glob
 * matches the first j bytes. */
static bool matches(const char *glob, const char *path)
{
    size_t len = strlen(path);
    bool can[PATH_MAX_LEN + 1] = { true };
    for (; *glob != '\0'; glob++) {
        bool next[PATH_MAX_LEN + 1] = { false };
        for (size_t j = 0; j <= len; j++) {
            if (*glob == '*') {
                next[j] =
                    can[j] || (j > 0 && next[j - 1] && path[j - 1] != '/');
            } else {
                next[j] = j > 0 && can[j - 1] && path[j - 1] == *glob;
            }
        }
        memcpy(can, next, sizeof(can));
    }
    return can[len];
}

/* The n-th text over an alphabet, of at most max letters; NULL: there is
 * none. */
static const char *nth(size_t n, const char *letters, size_t max, char *text)
{
    size_t base = strlen(letters);
    size_t count = 1;
    for (size_t len = 0; len <= max; len++, count *= base) {
        if (n < count) {
            text[len] = '\0';
            for (size_t i = 0; i < len; i++, n /= base) {
                text[i] = letters[n % base];
            }
            return text;
        }
        n -= count;
    }
    return NULL;
}

/* Returns the number of paths that match. */
static size_t match_all(const char *glob)
{
    char path[PATH_MAX_LEN + 1];
    size_t matching = 0;
    for (size_t i = 0; nth(i, "ab/", PATH_MAX_LEN, path) != NULL; i++) {
        bool expected = matches(glob, path);
        if (grpc_glob_matches(glob, span_of(path)) != expected) {
            fail_msg("'%s' and '%s'", glob, path);
        }
        matching += expected ? 1 : 0;
    }
    return matching;
}

static void each_short_glob_matches_what_it_means(void **state)
{
    (void)state;
    char glob[GLOB_MAX + 1];
    size_t matching = 0;
    for (size_t i = 0; nth(i, "ab*/", GLOB_MAX, glob) != NULL; i++) {
        matching += match_all(glob);
    }
    assert_true(matching > 5000);
}

static void a_glob_reads_no_more_than_the_path(void **state)
{
    (void)state;
    static const uint8_t path[] = { '/', 'a', '/', 'b', 'c' };
    assert_true(grpc_glob_matches("/a/b", (struct span){ path, 4 }));
    assert_false(grpc_glob_matches("/a/b", (struct span){ path, 5 }));
    assert_false(grpc_glob_matches("/a/b", (struct span){ path, 3 }));
    assert_false(grpc_glob_matches("/a/b", (struct span){ NULL, 0 }));
    assert_true(grpc_glob_matches("**", (struct span){ NULL, 0 }));
    static const uint8_t zero[] = { 'a', '\0' };
    assert_false(grpc_glob_matches("a", (struct span){ zero, 2 }));
    assert_true(grpc_glob_matches("a*", (struct span){ zero, 2 }));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_keys_nothing_is_retried),
        cmocka_unit_test(keys_make_a_policy_for_all_methods),
        cmocka_unit_test(
            retries_of_the_keys_are_counted_after_the_first_attempt),
        cmocka_unit_test(the_most_specific_entry_is_used_whole),
        cmocka_unit_test(the_service_config_wins_over_keys_group_by_group),
        cmocka_unit_test(what_the_service_config_does_not_say_stays),
        cmocka_unit_test(a_balancer_brings_its_own_choices),
        cmocka_unit_test(of_two_names_with_one_path_the_longer_service_counts),
        cmocka_unit_test(the_user_can_always_switch_retries_off),
        cmocka_unit_test(attempts_of_a_service_config_are_capped),
        cmocka_unit_test(hedged_methods_have_no_retries),
        cmocka_unit_test(a_broken_service_config_is_refused_with_its_file),
        cmocka_unit_test(what_is_wrong_with_a_file_is_told_once),
        cmocka_unit_test(gapic_mode_is_a_key),
        cmocka_unit_test(methods_are_sorted_by_their_hash),
        cmocka_unit_test(names_with_one_hash_are_told_apart),
        cmocka_unit_test(the_hash_is_fnv_1a),
        cmocka_unit_test(globs_have_the_form_of_a_method),
        cmocka_unit_test(each_short_glob_matches_what_it_means),
        cmocka_unit_test(a_glob_reads_no_more_than_the_path),
    };
    return cmocka_run_group_tests_name("policies of gRPC", tests, NULL, NULL);
}
