/* Service configs: each rule of grpc.md §2.2, kept and broken. */
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "config/option.h"
#include "config/service_config.h"
#include "config_loading.h"

static struct loaded_text told;
static struct loaded_text warned;

static void tell(const struct config_problems *p, struct loaded_text *text)
{
    text->len = 0;
    text->text[0] = '\0';
    for (size_t i = 0; i < p->n; i++) {
        loaded_write(text, p->list[i].place, strlen(p->list[i].place));
        loaded_write(text, ": ", 2);
        loaded_write(text, p->list[i].text, strlen(p->list[i].text));
        loaded_write(text, "\n", 1);
    }
}

/* The problems and warnings are in told and warned. Free with
 * service_config_fini(). */
static bool read_len(const char *text,
                     size_t len,
                     bool gapic,
                     struct service_config *out)
{
    struct config_problems p = { 0 };
    struct config_problems w = { 0 };
    struct service_config_rules rules = { .file = "f",
                                          .gapic = gapic,
                                          .max_attempts_cap = 5,
                                          .problems = &p,
                                          .warnings = &w };
    bool good = service_config_read(text, len, &rules, out);
    tell(&p, &told);
    tell(&w, &warned);
    assert_true(good == (p.n == 0));
    assert_true(good || (out->n_methods == 0 && out->methods == NULL));
    config_problems_fini(&p);
    config_problems_fini(&w);
    return good;
}

static void take(const char *text, struct service_config *out)
{
    if (!read_len(text, strlen(text), false, out)) {
        fail_msg("%s was refused: %s", text, told.text);
    }
}

static void take_only(const char *text)
{
    struct service_config c;
    take(text, &c);
    service_config_fini(&c);
}

/* Refused with exactly these problems, each behind "f: ". */
static void refuse(const char *text, const char *expected)
{
    struct service_config c;
    if (read_len(text, strlen(text), false, &c)) {
        fail_msg("%s was taken", text);
    }
    if (strcmp(told.text, expected) != 0) {
        fail_msg("%s:\n%s is not\n%s", text, told.text, expected);
    }
}

/* The document with one methodConfig for all methods, which has this. */
static const char *method_with(const char *rest)
{
    static char text[4096];
    int n =
        snprintf(text, sizeof(text), "{\"methodConfig\":[{\"name\":[{}]%s%s}]}",
                 rest[0] != '\0' ? "," : "", rest);
    assert_in_range(n, 1, sizeof(text) - 1);
    return text;
}

/* The same with a retryPolicy in which one member is replaced; NULL: it is
 * missing. */
static const char *retry_with(const char *key, const char *value)
{
    static const char *const members[][2] = {
        { "maxAttempts", "3" },
        { "initialBackoff", "\"0.1s\"" },
        { "maxBackoff", "\"1s\"" },
        { "backoffMultiplier", "2" },
        { "retryableStatusCodes", "[\"UNAVAILABLE\"]" },
    };
    static char text[4096];
    size_t used = (size_t)snprintf(text, sizeof(text), "\"retryPolicy\":{");
    const char *glue = "";
    for (size_t i = 0; i < 5; i++) {
        bool replaced = strcmp(members[i][0], key) == 0;
        const char *said = replaced ? value : members[i][1];
        if (said != NULL) {
            int n = snprintf(text + used, sizeof(text) - used, "%s\"%s\":%s",
                             glue, members[i][0], said);
            assert_in_range(n, 1, sizeof(text) - used - 1);
            used += (size_t)n;
            glue = ",";
        }
    }
    (void)snprintf(text + used, sizeof(text) - used, "}");
    return method_with(text);
}

/* A member of the only methodConfig is wrong. */
static void refuse_member(const char *key, const char *value, const char *why)
{
    char member[1024];
    char expected[1024];
    (void)snprintf(member, sizeof(member), "\"%s\":%s", key, value);
    (void)snprintf(expected, sizeof(expected), "f: methodConfig[0].%s: %s\n",
                   key, why);
    refuse(method_with(member), expected);
}

static void refuse_retry(const char *key, const char *value, const char *why)
{
    char expected[1024];
    (void)snprintf(expected, sizeof(expected),
                   "f: methodConfig[0].retryPolicy.%s: %s\n", key, why);
    refuse(retry_with(key, value), expected);
}

static struct service_policy policy_of(const char *text)
{
    struct service_config c;
    take(text, &c);
    assert_int_equal(c.n_methods, 1);
    struct service_policy p = c.methods[0].policy;
    service_config_fini(&c);
    return p;
}

/* Documents --- */

static void a_document_is_an_object_that_may_be_empty(void **state)
{
    (void)state;
    struct service_config c;
    take("{}", &c);
    assert_int_equal(c.n_methods, 0);
    assert_false(c.has_throttle);
    assert_false(c.has_lb);
    assert_int_equal(c.max_connections_per_endpoint, 0);
    service_config_fini(&c);
    take_only(" {\"methodConfig\":null,\"retryThrottling\":null,"
              "\"loadBalancingConfig\":null,\"loadBalancingPolicy\":null,"
              "\"healthCheckConfig\":null,\"connectionScaling\":null}\n");
    static const char *const others[] = { "[]",   "5",    "\"x\"", "true",
                                          "null", "[{}]", "1.5" };
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        refuse(others[i], "f: must be an object\n");
    }
}

static void syntax_errors_have_a_line_and_a_column(void **state)
{
    (void)state;
    refuse("", "f:1:0: unexpected token near end of file\n");
    refuse("{", "f:1:1: string or '}' expected near end of file\n");
    refuse("{}x", "f:1:3: end of file expected near 'x'\n");
    refuse("{\n \"a\": 1,\n}", "f:3:1: string or '}' expected near '}'\n");
    refuse("{\"a\":1,\"a\":2}", "f:1:10: duplicate object key near '\"a\"'\n");
    refuse("{\"a\":99999999999999999999}",
           "f:1:25: too big integer near '99999999999999999999'\n");
    refuse("{\"a\":\"\xff\"}", "f:1:6: unable to decode byte 0xff near "
                               "'\"'\n");
}

static void unknown_members_are_ignored(void **state)
{
    (void)state;
    take_only("{\"x\":{\"y\":[1,2,{}]},\"methodConfig\":[{\"name\":[{\"z\":5,"
              "\"service\":\"a\"}],\"w\":[]}]}");
    assert_string_equal(warned.text, "");
    refuse("{\"x\":{\"a\":1,\"a\":1}}", /* also there */
           "f:1:15: duplicate object key near '\"a\"'\n");
}

static void a_document_has_at_most_a_mebibyte(void **state)
{
    (void)state;
    struct service_config c;
    size_t max = (size_t)1024 * 1024;
    char *text = malloc(max + 1);
    assert_non_null(text);
    memset(text, ' ', max + 1);
    text[0] = '{';
    text[1] = '}';
    assert_true(read_len(text, max, false, &c));
    service_config_fini(&c);
    assert_false(read_len(text, max + 1, false, &c));
    assert_string_equal(told.text, "f: file is larger than 1 MiB\n");
    free(text);
}

static void depth_and_width_do_no_harm(void **state)
{
    (void)state;
    struct service_config c;
    size_t size = (size_t)900 * 1024;
    char *text = malloc(size);
    assert_non_null(text);
    memset(text, '[', size);
    assert_false(read_len(text, size, false, &c));
    assert_string_equal(told.text,
                        "f:1:2049: maximum parsing depth reached near '['\n");
    /* As many names as fit, all the same but the last. */
    size_t used =
        (size_t)snprintf(text, size, "{\"methodConfig\":[{\"name\":[");
    unsigned count = 0;
    while (size - used > 64) {
        used += (size_t)snprintf(text + used, size - used,
                                 "{\"service\":\"s%u\"},", count++);
    }
    used +=
        (size_t)snprintf(text + used, size - used, "{\"service\":\"s7\"}]}]}");
    assert_false(read_len(text, used, false, &c));
    char expected[256];
    (void)snprintf(expected, sizeof(expected),
                   "f: methodConfig[0].name[%u]: duplicate name \"/s7/\", "
                   "first used in methodConfig[0]\n",
                   count);
    assert_string_equal(told.text, expected);
    free(text);
}

static void all_that_is_wrong_is_told(void **state)
{
    (void)state;
    refuse("{\"loadBalancingConfig\":[],\"connectionScaling\":5,"
           "\"healthCheckConfig\":{\"serviceName\":1},"
           "\"retryThrottling\":{\"maxTokens\":0},"
           "\"methodConfig\":[{\"name\":5},{\"name\":[{\"method\":\"m\"}],"
           "\"timeout\":1,\"retryPolicy\":{\"retryableStatusCodes\":"
           "[\"x\",0,17]}}]}",
           "f: methodConfig[0].name: must be an array of objects\n"
           "f: methodConfig[1].timeout: must be a duration such as \"1.5s\"\n"
           "f: methodConfig[1].retryPolicy.maxAttempts: is required\n"
           "f: methodConfig[1].retryPolicy.initialBackoff: is required\n"
           "f: methodConfig[1].retryPolicy.maxBackoff: is required\n"
           "f: methodConfig[1].retryPolicy.backoffMultiplier: is required\n"
           "f: methodConfig[1].retryPolicy.retryableStatusCodes: \"x\" is not "
           "a status code\n"
           "f: methodConfig[1].retryPolicy.retryableStatusCodes: OK cannot be "
           "retried\n"
           "f: methodConfig[1].retryPolicy.retryableStatusCodes: \"17\" is not "
           "a status code\n"
           "f: methodConfig[1].name[0]: method without service\n"
           "f: retryThrottling.maxTokens: must be greater than 0 and at most "
           "1000\n"
           "f: retryThrottling.tokenRatio: is required\n"
           "f: loadBalancingConfig: no known policy\n"
           "f: healthCheckConfig.serviceName: must be a string\n"
           "f: connectionScaling: must be an object\n");
}

static void more_problems_than_the_list_holds_are_cut(void **state)
{
    (void)state;
    char text[8192];
    size_t used = (size_t)snprintf(text, sizeof(text), "{\"methodConfig\":[");
    for (size_t i = 0; i < 200; i++) {
        used += (size_t)snprintf(text + used, sizeof(text) - used,
                                 "{\"name\":[{}],\"timeout\":1},");
    }
    (void)snprintf(text + used, sizeof(text) - used, "{}]}");
    struct config_problems p = { 0 };
    struct config_problems w = { 0 };
    struct service_config c;
    struct service_config_rules rules = {
        .file = "f", .max_attempts_cap = 5, .problems = &p, .warnings = &w
    };
    assert_false(service_config_read(text, strlen(text), &rules, &c));
    assert_int_equal(p.n, CONFIG_PROBLEMS_MAX);
    config_problems_fini(&p);
    config_problems_fini(&w);
}

/* Names --- */

static void names_are_services_methods_or_all(void **state)
{
    (void)state;
    struct service_config c;
    take("{\"methodConfig\":[{\"name\":[{\"service\":\"a.B\",\"method\":\"C\"},"
         "{\"service\":\"a.B\"}]},{\"name\":[{\"service\":\"\",\"method\":"
         "null}]},{\"name\":[{\"service\":\"d\",\"method\":\"\"}]}]}",
         &c);
    assert_int_equal(c.n_methods, 4);
    assert_string_equal(c.methods[0].service, "a.B");
    assert_string_equal(c.methods[0].method, "C");
    assert_string_equal(c.methods[1].service, "a.B");
    assert_null(c.methods[1].method);
    assert_null(c.methods[2].service);
    assert_null(c.methods[2].method);
    assert_string_equal(c.methods[3].service, "d");
    assert_null(c.methods[3].method);
    assert_int_equal(c.methods[3].place.entry, 2);
    service_config_fini(&c);
}

static void names_of_another_form_are_refused(void **state)
{
    (void)state;
    static const char *const no_objects[] = { "5",   "{}",         "\"x\"",
                                              "[5]", "[{},\"x\"]", "[null]",
                                              "true" };
    for (size_t i = 0; i < sizeof(no_objects) / sizeof(no_objects[0]); i++) {
        char text[256];
        (void)snprintf(text, sizeof(text), "{\"methodConfig\":[{\"name\":%s}]}",
                       no_objects[i]);
        refuse(text, "f: methodConfig[0].name: must be an array of objects\n");
        (void)snprintf(text, sizeof(text), "{\"methodConfig\":%s}",
                       no_objects[i]);
        refuse(text, "f: methodConfig: must be an array of objects\n");
    }
    refuse("{\"methodConfig\":[{\"name\":[{\"service\":5}]}]}",
           "f: methodConfig[0].name[0].service: must be a string\n");
    refuse("{\"methodConfig\":[{\"name\":[{},{\"service\":\"a\",\"method\":"
           "false}]}]}",
           "f: methodConfig[0].name[1].method: must be a string\n");
    refuse("{\"methodConfig\":[{\"name\":[{\"method\":\"m\"}]}]}",
           "f: methodConfig[0].name[0]: method without service\n");
    refuse("{\"methodConfig\":[{\"name\":[{\"service\":\"\",\"method\":"
           "\"m\"}]}]}",
           "f: methodConfig[0].name[0]: method without service\n");
}

static void an_entry_without_names_is_skipped_with_a_warning(void **state)
{
    (void)state;
    static const char *const entries[] = { "{}", "{\"name\":[]}",
                                           "{\"name\":null}" };
    for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++) {
        char text[256];
        struct service_config c;
        (void)snprintf(text, sizeof(text),
                       "{\"methodConfig\":[{\"name\":[{}]},%s]}", entries[i]);
        take(text, &c);
        assert_int_equal(c.n_methods, 1);
        assert_string_equal(
            warned.text,
            "f: methodConfig[1]: has no name, so it is for no method\n");
        service_config_fini(&c);
    }
    refuse("{\"methodConfig\":[{\"timeout\":\"x\"}]}", /* but it is judged */
           "f: methodConfig[0].timeout: must be a duration such as "
           "\"1.5s\"\n");
}

static void a_name_is_there_once(void **state)
{
    (void)state;
    refuse("{\"methodConfig\":[{\"name\":[{\"service\":\"S\",\"method\":\"M\"}]"
           "},{\"name\":[{\"service\":\"T\"},{\"service\":\"S\",\"method\":"
           "\"M\"}]},{\"name\":[{\"service\":\"S\",\"method\":\"M\"}]}]}",
           "f: methodConfig[1].name[1]: duplicate name \"/S/M\", first used in "
           "methodConfig[0]\n"
           "f: methodConfig[2].name[0]: duplicate name \"/S/M\", first used in "
           "methodConfig[0]\n");
    refuse("{\"methodConfig\":[{\"name\":[{\"service\":\"S\"}]},{\"name\":[{"
           "\"service\":\"S\",\"method\":\"\"}]}]}",
           "f: methodConfig[1].name[0]: duplicate name \"/S/\", first used in "
           "methodConfig[0]\n");
    refuse("{\"methodConfig\":[{\"name\":[{},{}]}]}",
           "f: methodConfig[0].name[1]: duplicate name \"{}\", first used in "
           "methodConfig[0]\n");
    take_only("{\"methodConfig\":[{\"name\":[{\"service\":\"S\",\"method\":"
              "\"m\"},{\"service\":\"S\",\"method\":\"M\"},{\"service\":\"s\","
              "\"method\":\"M\"},{\"service\":\"S\"},{}]}]}");
}

/* Members of an entry --- */

static void durations_are_those_of_protobuf(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint64_t us;
    } good[] = {
        { "0s", 0 },
        { "-0s", 0 },
        { "1s", 1000000 },
        { "1.5s", 1500000 },
        { "0.000001s", 1 },
        { "0.000000001s", 1 }, /* rounded up */
        { "0.1000001s", 100001 },
        { "10.999999999s", 11000000 },
        { "315576000000s", 315576000000000000 },
        { "315576000000.000000000s", 315576000000000000 },
    };
    static const char *const bad[] = {
        "\"\"",
        "\"1\"",
        "\"s\"",
        "\"1.s\"",
        "\".5s\"",
        "\"01s\"",
        "\"00s\"",
        "\"1S\"",
        "\"1ms\"",
        "\"1 s\"",
        "\" 1s\"",
        "\"1s \"",
        "\"+1s\"",
        "\"--1s\"",
        "\"1.1234567890s\"",
        "\"1e3s\"",
        "\"1,5s\"",
        "\"315576000001s\"",
        "\"315576000000.000000001s\"",
        "\"1234567890123s\"",
        "1",
        "1.5",
        "true",
        "{}",
        "[\"1s\"]",
        "\"-\"",
        "\"-s\"",
    };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        char member[256];
        (void)snprintf(member, sizeof(member), "\"timeout\":\"%s\"",
                       good[i].text);
        assert_true(policy_of(method_with(member)).timeout_us == good[i].us);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        refuse_member("timeout", bad[i], "must be a duration such as \"1.5s\"");
        refuse_retry("initialBackoff", bad[i],
                     "must be a duration such as \"0.1s\"");
        refuse_retry("maxBackoff", bad[i],
                     "must be a duration such as \"0.1s\"");
    }
    refuse_member("timeout", "\"-1s\"", "must not be negative");
    refuse_member("timeout", "\"-0.000000001s\"", "must not be negative");
    refuse_member("timeout", "\"-315576000000s\"", "must not be negative");
    assert_true(policy_of(method_with("\"timeout\":null")).timeout_us ==
                GRPC_NO_LIMIT);
    assert_true(policy_of(method_with("")).timeout_us == GRPC_NO_LIMIT);
}

static void wait_for_ready_is_true_or_false(void **state)
{
    (void)state;
    struct service_policy p = policy_of(method_with("\"waitForReady\":true"));
    assert_true(p.has_wait_for_ready && p.wait_for_ready);
    p = policy_of(method_with("\"waitForReady\":false"));
    assert_true(p.has_wait_for_ready && !p.wait_for_ready);
    p = policy_of(method_with("\"waitForReady\":null"));
    assert_false(p.has_wait_for_ready);
    static const char *const bad[] = { "1", "\"true\"", "{}", "[]", "0.0" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        refuse_member("waitForReady", bad[i], "must be true or false");
    }
}

static void message_limits_are_32_bit_integers(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "-1", "4294967296", "1.5", "\"5\"", "true", "{}", "1e300", "-1e300"
    };
    struct service_policy p = policy_of(method_with(
        "\"maxRequestMessageBytes\":0,\"maxResponseMessageBytes\":4294967295"));
    assert_int_equal(p.request_message_max, 0);
    assert_int_equal(p.response_message_max, 4294967295);
    p = policy_of(method_with("\"maxRequestMessageBytes\":5.0"));
    assert_int_equal(p.request_message_max, 5);
    assert_true(p.response_message_max == GRPC_NO_LIMIT);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        refuse_member("maxRequestMessageBytes", bad[i],
                      "must be an integer from 0 to 4294967295");
        refuse_member("maxResponseMessageBytes", bad[i],
                      "must be an integer from 0 to 4294967295");
    }
}

/* Retries --- */

static void a_retry_policy_is_read(void **state)
{
    (void)state;
    struct service_policy p = policy_of(method_with(
        "\"retryPolicy\":{\"maxAttempts\":4,\"initialBackoff\":\"2s\","
        "\"maxBackoff\":\"0.5s\",\"backoffMultiplier\":0.25,"
        "\"retryableStatusCodes\":[14,\"resource_exhausted\",5.0]}"));
    assert_true(p.has_retry);
    assert_false(p.hedging);
    assert_int_equal(p.max_attempts, 4);
    assert_int_equal(p.initial_backoff_us, 2000000);
    assert_int_equal(p.max_backoff_us, 500000);
    assert_true(p.multiplier == 0.25);
    assert_int_equal(p.codes, 1 << 14 | 1 << 8 | 1 << 5);
    p = policy_of(method_with("\"retryPolicy\":null"));
    assert_false(p.has_retry);
    static const char *const bad[] = { "5", "[]", "\"x\"", "true" };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        refuse_member("retryPolicy", bad[i], "must be an object");
        refuse_member("hedgingPolicy", bad[i], "must be an object");
    }
}

static void max_attempts_is_an_integer_up_to_the_cap(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        uint32_t attempts;
        const char *warning;
    } good[] = {
        { "2", 2, "" },
        { "5", 5, "" },
        { "5.0", 5, "" },
        { "6", 5,
          "f: methodConfig[0].retryPolicy.maxAttempts: 6 is above "
          "max_attempts_cap; it is 5\n" },
        { "9223372036854775807", 5,
          "f: methodConfig[0].retryPolicy.maxAttempts: 9223372036854775807 is "
          "above max_attempts_cap; it is 5\n" },
        { "1e300", 5,
          "f: methodConfig[0].retryPolicy.maxAttempts: 9223372036854775807 is "
          "above max_attempts_cap; it is 5\n" },
    };
    static const char *const bad[] = { "1",     "0",    "-2",  "2.5",
                                       "\"3\"", "true", "[3]", "1.999999" };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct service_policy p =
            policy_of(retry_with("maxAttempts", good[i].text));
        assert_int_equal(p.max_attempts, good[i].attempts);
        assert_string_equal(warned.text, good[i].warning);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        refuse_retry("maxAttempts", bad[i], "must be an integer of at least 2");
    }
    refuse_retry("maxAttempts", NULL, "is required");
    refuse_retry("maxAttempts", "null", "is required");
}

static void backoffs_are_longer_than_nothing(void **state)
{
    (void)state;
    static const char *const keys[] = { "initialBackoff", "maxBackoff" };
    for (size_t i = 0; i < 2; i++) {
        refuse_retry(keys[i], NULL, "is required");
        refuse_retry(keys[i], "null", "is required");
        refuse_retry(keys[i], "\"0s\"", "must be greater than 0");
        refuse_retry(keys[i], "\"-1s\"", "must be greater than 0");
        refuse_retry(keys[i], "\"0.000000000s\"", "must be greater than 0");
    }
    struct service_policy p =
        policy_of(retry_with("initialBackoff", "\"0.000000001s\""));
    assert_int_equal(p.initial_backoff_us, 1);
}

static void the_multiplier_is_a_positive_number(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "0", "-1", "0.0", "\"2\"", "true", "[]"
    };
    refuse_retry("backoffMultiplier", NULL, "is required");
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        refuse_retry("backoffMultiplier", bad[i],
                     "must be a number greater than 0");
    }
    assert_true(policy_of(retry_with("backoffMultiplier", "1e-9")).multiplier ==
                1e-9);
}

static void codes_are_names_in_any_case_or_integers(void **state)
{
    (void)state;
    for (unsigned code = 0; code <= 16; code++) {
        char name[64];
        char lower[64];
        char forms[3][128];
        (void)snprintf(name, sizeof(name), "%s", word_text(words_status, code));
        for (size_t i = 0; i <= strlen(name); i++) {
            bool letter = name[i] >= 'A' && name[i] <= 'Z';
            lower[i] = (char)(letter ? name[i] + 32 : name[i]);
        }
        (void)snprintf(forms[0], sizeof(forms[0]), "[\"%s\"]", name);
        (void)snprintf(forms[1], sizeof(forms[1]), "[\"%s\"]", lower);
        (void)snprintf(forms[2], sizeof(forms[2]), "[%u]", code);
        for (size_t i = 0; i < 3; i++) {
            if (code == 0) {
                refuse_retry("retryableStatusCodes", forms[i],
                             "OK cannot be retried");
            } else {
                struct service_policy p =
                    policy_of(retry_with("retryableStatusCodes", forms[i]));
                assert_int_equal(p.codes, 1u << code);
            }
        }
    }
    static const char *const bad[][2] = {
        { "[17]", "\"17\" is not a status code" },
        { "[-1]", "\"-1\" is not a status code" },
        { "[14.5]", "\"14.5\" is not a status code" },
        { "[\"14\"]", "\"14\" is not a status code" },
        { "[\"\"]", "\"\" is not a status code" },
        { "[\"UNAVAILABLE \"]", "\"UNAVAILABLE \" is not a status code" },
        { "[true]", "\"true\" is not a status code" },
        { "[null]", "\"null\" is not a status code" },
        { "[{}]", "\"{}\" is not a status code" },
        { "[]", "must be a non-empty array" },
        { "{}", "must be a non-empty array" },
        { "\"UNAVAILABLE\"", "must be a non-empty array" },
        { "14", "must be a non-empty array" },
        { NULL, "is required" },
        { "null", "is required" },
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        refuse_retry("retryableStatusCodes", bad[i][0], bad[i][1]);
    }
    take_only(retry_with("retryableStatusCodes", "[14,13,\"ABORTED\"]"));
    assert_string_equal(warned.text,
                        "f: methodConfig[0].retryPolicy.retryableStatusCodes: "
                        "AIP-194 advises against retries after ABORTED, "
                        "INTERNAL\n");
}

static void gapic_mode_fills_in_max_attempts(void **state)
{
    (void)state;
    struct service_config c;
    const char *text = retry_with("maxAttempts", NULL);
    assert_true(read_len(text, strlen(text), true, &c));
    assert_int_equal(c.methods[0].policy.max_attempts, 5);
    assert_string_equal(warned.text,
                        "f: methodConfig[0].retryPolicy.maxAttempts: is "
                        "missing; it is max_attempts_cap, 5\n");
    service_config_fini(&c);
    text = retry_with("maxAttempts", "1"); /* nothing else is different */
    assert_false(read_len(text, strlen(text), true, &c));
    text = retry_with("maxBackoff", NULL);
    assert_false(read_len(text, strlen(text), true, &c));
    text = method_with("\"hedgingPolicy\":{}");
    assert_false(read_len(text, strlen(text), true, &c));
    assert_string_equal(
        told.text,
        "f: methodConfig[0].hedgingPolicy.maxAttempts: is required\n");
}

/* As Google publishes them: no maxAttempts, several services. */
static void published_configs_are_taken_in_gapic_mode_only(void **state)
{
    (void)state;
    static const char text[] =
        "{\"methodConfig\":[{\"name\":[{\"service\":\"google.x.v1.Publisher\","
        "\"method\":\"Publish\"},{\"service\":\"google.x.v1.Publisher\","
        "\"method\":\"List\"}],\"timeout\":\"60s\",\"retryPolicy\":{"
        "\"initialBackoff\":\"0.100s\",\"maxBackoff\":\"60s\","
        "\"backoffMultiplier\":1.3,\"retryableStatusCodes\":[\"UNAVAILABLE\"]}}"
        "]}";
    struct service_config c;
    assert_false(read_len(text, sizeof(text) - 1, false, &c));
    assert_string_equal(
        told.text, "f: methodConfig[0].retryPolicy.maxAttempts: is required\n");
    assert_true(read_len(text, sizeof(text) - 1, true, &c));
    assert_int_equal(c.n_methods, 2);
    assert_int_equal(c.methods[1].policy.initial_backoff_us, 100000);
    service_config_fini(&c);
}

static void hedging_is_judged_but_not_done(void **state)
{
    (void)state;
    struct service_policy p = policy_of(
        method_with("\"hedgingPolicy\":{\"maxAttempts\":3,\"hedgingDelay\":"
                    "\"0s\",\"nonFatalStatusCodes\":[]}"));
    assert_true(p.has_retry);
    assert_true(p.hedging);
    assert_string_equal(warned.text,
                        "f: methodConfig[0].hedgingPolicy: is not supported by "
                        "this version; these methods have no retries\n");
    (void)policy_of(method_with("\"hedgingPolicy\":{\"maxAttempts\":2}"));
    static const struct {
        const char *members;
        const char *expected;
    } bad[] = {
        { "", "maxAttempts: is required" },
        { "\"maxAttempts\":1",
          "maxAttempts: must be an integer of at least 2" },
        { "\"maxAttempts\":2,\"hedgingDelay\":5",
          "hedgingDelay: must be a duration such as \"1.5s\"" },
        { "\"maxAttempts\":2,\"hedgingDelay\":\"-1s\"",
          "hedgingDelay: must not be negative" },
        { "\"maxAttempts\":2,\"nonFatalStatusCodes\":[0]",
          "nonFatalStatusCodes: OK cannot be retried" },
        { "\"maxAttempts\":2,\"nonFatalStatusCodes\":[\"X\"]",
          "nonFatalStatusCodes: \"X\" is not a status code" },
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char member[256];
        char expected[256];
        (void)snprintf(member, sizeof(member), "\"hedgingPolicy\":{%s}",
                       bad[i].members);
        (void)snprintf(expected, sizeof(expected),
                       "f: methodConfig[0].hedgingPolicy.%s\n",
                       bad[i].expected);
        refuse(method_with(member), expected);
    }
    refuse(method_with("\"hedgingPolicy\":{},\"retryPolicy\":{}"),
           "f: methodConfig[0]: retryPolicy and hedgingPolicy exclude each "
           "other\n");
    refuse(method_with("\"hedgingPolicy\":{\"maxAttempts\":2,"
                       "\"nonFatalStatusCodes\":5}"),
           "f: methodConfig[0].hedgingPolicy.nonFatalStatusCodes: must be an "
           "array\n");
}

/* The upstream as a whole --- */

static void tokens_are_kept_to_three_decimals(void **state)
{
    (void)state;
    static const struct {
        const char *max;
        const char *ratio;
        uint32_t max_milli;
        uint32_t ratio_milli;
    } good[] = {
        { "10", "0.1", 10000, 100 },         { "0.5", "0.5466", 500, 546 },
        { "1000", "1", 1000000, 1000 },      { "1.0", "0.001", 1000, 1 },
        { "999.9999", "0.57", 999999, 570 }, { "0.0001", "0.0019", 1, 1 },
        { "1", "5000", 1000, 1000000 },      { "1", "1e300", 1000, 1000000 },
    };
    static const struct {
        const char *members;
        const char *expected;
    } bad[] = {
        { "\"tokenRatio\":1", "maxTokens: is required" },
        { "\"maxTokens\":null,\"tokenRatio\":1", "maxTokens: is required" },
        { "\"maxTokens\":0,\"tokenRatio\":1",
          "maxTokens: must be greater than 0 and at most 1000" },
        { "\"maxTokens\":-1,\"tokenRatio\":1",
          "maxTokens: must be greater than 0 and at most 1000" },
        { "\"maxTokens\":1000.001,\"tokenRatio\":1",
          "maxTokens: must be greater than 0 and at most 1000" },
        { "\"maxTokens\":\"5\",\"tokenRatio\":1",
          "maxTokens: must be greater than 0 and at most 1000" },
        { "\"maxTokens\":10", "tokenRatio: is required" },
        { "\"maxTokens\":10,\"tokenRatio\":0",
          "tokenRatio: must be at least 0.001" },
        { "\"maxTokens\":10,\"tokenRatio\":0.0004",
          "tokenRatio: must be at least 0.001" },
        { "\"maxTokens\":10,\"tokenRatio\":0.0009999",
          "tokenRatio: must be at least 0.001" },
        { "\"maxTokens\":10,\"tokenRatio\":-1",
          "tokenRatio: must be at least 0.001" },
        { "\"maxTokens\":10,\"tokenRatio\":\"1\"",
          "tokenRatio: must be at least 0.001" },
    };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        char text[256];
        struct service_config c;
        (void)snprintf(text, sizeof(text),
                       "{\"retryThrottling\":{\"maxTokens\":%s,\"tokenRatio\":"
                       "%s}}",
                       good[i].max, good[i].ratio);
        take(text, &c);
        assert_true(c.has_throttle);
        assert_int_equal(c.throttle_max_millitokens, good[i].max_milli);
        assert_int_equal(c.throttle_ratio_millitokens, good[i].ratio_milli);
        service_config_fini(&c);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char text[256];
        char expected[256];
        (void)snprintf(text, sizeof(text), "{\"retryThrottling\":{%s}}",
                       bad[i].members);
        (void)snprintf(expected, sizeof(expected), "f: retryThrottling.%s\n",
                       bad[i].expected);
        refuse(text, expected);
    }
    refuse("{\"retryThrottling\":5}", "f: retryThrottling: must be an "
                                      "object\n");
}

/* Each whole number of thousandths, written with three decimals, is that
 * number. */
static void every_thousandth_is_exact(void **state)
{
    (void)state;
    for (uint32_t milli = 1; milli <= 1000000;
         milli += milli < 20000 ? 1 : 97) {
        char text[256];
        struct service_config c;
        (void)snprintf(text, sizeof(text),
                       "{\"retryThrottling\":{\"maxTokens\":%u.%03u,"
                       "\"tokenRatio\":%u.%03u}}",
                       milli / 1000, milli % 1000, milli / 1000, milli % 1000);
        take(text, &c);
        assert_int_equal(c.throttle_max_millitokens, milli);
        assert_int_equal(c.throttle_ratio_millitokens, milli);
        service_config_fini(&c);
    }
}

static void the_first_known_balancer_counts(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum grpc_lb lb;
        bool shuffle;
        uint32_t choices;
    } good[] = {
        { "\"loadBalancingConfig\":[{\"pick_first\":{}}]", GRPC_PICK_FIRST,
          false, 0 },
        { "\"loadBalancingConfig\":[{\"pick_first\":null}]", GRPC_PICK_FIRST,
          false, 0 },
        { "\"loadBalancingConfig\":[{\"pick_first\":{\"shuffleAddressList\":"
          "true}}]",
          GRPC_PICK_FIRST, true, 0 },
        { "\"loadBalancingConfig\":[{\"xds\":{\"a\":1}},{\"round_robin\":{}},{"
          "\"pick_first\":{}}]",
          GRPC_ROUND_ROBIN, false, 0 },
        { "\"loadBalancingConfig\":[{\"least_request\":{}}]",
          GRPC_LEAST_REQUEST, false, 0 },
        { "\"loadBalancingConfig\":[{\"least_request_experimental\":{"
          "\"choiceCount\":10.0}}]",
          GRPC_LEAST_REQUEST, false, 10 },
        { "\"loadBalancingConfig\":[{\"least_request\":{\"choiceCount\":2}}]",
          GRPC_LEAST_REQUEST, false, 2 },
        { "\"loadBalancingPolicy\":\"round_robin\"", GRPC_ROUND_ROBIN, false,
          0 },
        { "\"loadBalancingPolicy\":\"pick_first\"", GRPC_PICK_FIRST, false, 0 },
        { "\"loadBalancingPolicy\":\"x\",\"loadBalancingConfig\":[{"
          "\"round_robin\":{}}]",
          GRPC_ROUND_ROBIN, false, 0 },
        { "\"loadBalancingConfig\":[{\"round_robin\":{}},{\"least_request\":{"
          "\"choiceCount\":1}}]",
          GRPC_ROUND_ROBIN, false, 0 },
    };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        char text[256];
        struct service_config c;
        (void)snprintf(text, sizeof(text), "{%s}", good[i].text);
        take(text, &c);
        assert_true(c.has_lb);
        assert_int_equal(c.lb, good[i].lb);
        assert_int_equal(c.shuffle_addresses, good[i].shuffle);
        assert_int_equal(c.lb_choices, good[i].choices);
        service_config_fini(&c);
    }
}

static void balancers_of_another_form_are_refused(void **state)
{
    (void)state;
    static const char *const forms[] = { "5",
                                         "{\"round_robin\":{}}",
                                         "[5]",
                                         "[{}]",
                                         "[null]",
                                         "[{\"a\":{},\"b\":{}}]",
                                         "[{\"round_robin\":5}]",
                                         "[{\"round_robin\":{}},\"x\"]" };
    for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        char text[256];
        (void)snprintf(text, sizeof(text), "{\"loadBalancingConfig\":%s}",
                       forms[i]);
        refuse(text, "f: loadBalancingConfig: must be an array of objects with "
                     "one key\n");
    }
    refuse("{\"loadBalancingConfig\":[]}",
           "f: loadBalancingConfig: no known policy\n");
    refuse("{\"loadBalancingConfig\":[{\"x\":{}}]}",
           "f: loadBalancingConfig: no known policy\n");
    refuse("{\"loadBalancingConfig\":[{\"pick_first\":{\"shuffleAddressList\":"
           "1}}]}",
           "f: loadBalancingConfig[0].pick_first.shuffleAddressList: must be "
           "true or false\n");
    static const char *const choices[] = { "1", "11", "2.5", "\"2\"", "true" };
    for (size_t i = 0; i < sizeof(choices) / sizeof(choices[0]); i++) {
        char text[256];
        (void)
            snprintf(text, sizeof(text),
                     "{\"loadBalancingConfig\":[{\"x\":{}},{\"least_request\":"
                     "{\"choiceCount\":%s}}]}",
                     choices[i]);
        refuse(text, "f: loadBalancingConfig[1].least_request.choiceCount: "
                     "must be an integer from 2 to 10\n");
    }
    refuse("{\"loadBalancingPolicy\":\"grpclb\"}",
           "f: loadBalancingPolicy: unknown policy \"grpclb\"\n");
    refuse("{\"loadBalancingPolicy\":\"\"}",
           "f: loadBalancingPolicy: unknown policy \"\"\n");
    refuse("{\"loadBalancingPolicy\":5}",
           "f: loadBalancingPolicy: must be a string\n");
}

static void health_and_scaling_are_judged(void **state)
{
    (void)state;
    take_only("{\"healthCheckConfig\":{\"serviceName\":\"\"}}");
    take_only("{\"healthCheckConfig\":{}}");
    refuse("{\"healthCheckConfig\":{\"serviceName\":[]}}",
           "f: healthCheckConfig.serviceName: must be a string\n");
    refuse("{\"healthCheckConfig\":5}",
           "f: healthCheckConfig: must be an object\n");
    static const struct {
        const char *text;
        uint32_t max; /* 99: refused */
    } cases[] = { { "0", 1 },    { "1", 1 },           { "10", 10 },
                  { "11", 10 },  { "4294967295", 10 }, { "3.0", 3 },
                  { "null", 0 }, { "-1", 99 },         { "4294967296", 99 },
                  { "1.5", 99 }, { "\"1\"", 99 } };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[256];
        struct service_config c;
        (void)snprintf(text, sizeof(text),
                       "{\"connectionScaling\":{"
                       "\"maxConnectionsPerSubchannel\":%s}}",
                       cases[i].text);
        if (cases[i].max == 99) {
            refuse(text, "f: connectionScaling.maxConnectionsPerSubchannel: "
                         "must be an integer from 0 to 4294967295\n");
            continue;
        }
        take(text, &c);
        assert_int_equal(c.max_connections_per_endpoint, cases[i].max);
        service_config_fini(&c);
    }
}

/* Memory --- */

static size_t left; /* allocations of the library before all others fail */

static void *scarce_malloc(size_t size)
{
    if (left == 0) {
        return NULL;
    }
    left--;
    return malloc(size);
}

static void the_library_may_find_no_memory(void **state)
{
    (void)state;
    static const char text[] =
        "{\"methodConfig\":[{\"name\":[{\"service\":\"a.B\",\"method\":\"C\"}],"
        "\"timeout\":\"1.5s\",\"waitForReady\":true,\"x\":1.5,\"retryPolicy\":{"
        "\"maxAttempts\":3,\"initialBackoff\":\"0.1s\",\"maxBackoff\":\"1s\","
        "\"backoffMultiplier\":2,\"retryableStatusCodes\":[14,null]}}]}";
    static const char expected[] =
        "f: methodConfig[0].retryPolicy.retryableStatusCodes: \"null\" is not "
        "a "
        "status code\n";
    struct service_config c;
    size_t needed = 0;
    size_t told_so = 0;
    json_set_alloc_funcs(scarce_malloc, free);
    for (; needed < 1000; needed++) {
        left = needed;
        assert_false(read_len(text, sizeof(text) - 1, false, &c));
        if (strcmp(told.text, expected) == 0) {
            break; /* with enough of it, the mistake is found */
        }
        told_so += strcmp(told.text, "memory: out of memory\n") == 0 ? 1 : 0;
    }
    json_set_alloc_funcs(malloc, free);
    assert_in_range(needed, 30, 999);
    assert_true(told_so > needed / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_document_is_an_object_that_may_be_empty),
        cmocka_unit_test(syntax_errors_have_a_line_and_a_column),
        cmocka_unit_test(unknown_members_are_ignored),
        cmocka_unit_test(a_document_has_at_most_a_mebibyte),
        cmocka_unit_test(depth_and_width_do_no_harm),
        cmocka_unit_test(all_that_is_wrong_is_told),
        cmocka_unit_test(more_problems_than_the_list_holds_are_cut),
        cmocka_unit_test(names_are_services_methods_or_all),
        cmocka_unit_test(names_of_another_form_are_refused),
        cmocka_unit_test(an_entry_without_names_is_skipped_with_a_warning),
        cmocka_unit_test(a_name_is_there_once),
        cmocka_unit_test(durations_are_those_of_protobuf),
        cmocka_unit_test(wait_for_ready_is_true_or_false),
        cmocka_unit_test(message_limits_are_32_bit_integers),
        cmocka_unit_test(a_retry_policy_is_read),
        cmocka_unit_test(max_attempts_is_an_integer_up_to_the_cap),
        cmocka_unit_test(backoffs_are_longer_than_nothing),
        cmocka_unit_test(the_multiplier_is_a_positive_number),
        cmocka_unit_test(codes_are_names_in_any_case_or_integers),
        cmocka_unit_test(gapic_mode_fills_in_max_attempts),
        cmocka_unit_test(published_configs_are_taken_in_gapic_mode_only),
        cmocka_unit_test(hedging_is_judged_but_not_done),
        cmocka_unit_test(tokens_are_kept_to_three_decimals),
        cmocka_unit_test(every_thousandth_is_exact),
        cmocka_unit_test(the_first_known_balancer_counts),
        cmocka_unit_test(balancers_of_another_form_are_refused),
        cmocka_unit_test(health_and_scaling_are_judged),
        cmocka_unit_test(the_library_may_find_no_memory),
    };
    return cmocka_run_group_tests_name("service config", tests, NULL, NULL);
}
