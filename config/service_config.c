#include "config/service_config.h"

#include <assert.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/problem.h"
#include "config/service_names.h"
#include "config/service_reader.h"

enum {
    CHOICES_MIN = 2,
    CHOICES_MAX = 10,
    CONNECTIONS_MAX = 10, /* A105 */
    TOKENS_MAX = 1000
};

/* Paths --- */

/* Go down by a part such as ".name" or "[3]". Returns where to go back to. */
size_t reader_enter(struct reader *r, const char *format, ...)
{
    size_t before = r->path_len;
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(r->path + before, sizeof(r->path) - before, format,
                      arguments);
    va_end(arguments);
    /* Only our own words are in it, never those of the document. */
    assert(n >= 0 && (size_t)n < sizeof(r->path) - before);
    r->path_len += (size_t)n;
    return before;
}

void reader_leave(struct reader *r, size_t before)
{
    r->path_len = before;
    r->path[before] = '\0';
}

size_t reader_enter_key(struct reader *r, const char *key)
{
    return reader_enter(r, "%s%s", r->path_len > 0 ? "." : "", key);
}

void reader_wrong(struct reader *r, const char *format, ...)
{
    char text[PROBLEM_TEXT_MAX / 2];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    problem_add(r->rules->problems, r->rules->file, "%s%s%s", r->path,
                r->path_len > 0 ? ": " : "", text);
    r->broken = true;
}

void reader_wrong_at(struct reader *r, const char *key, const char *text)
{
    size_t before = reader_enter_key(r, key);
    reader_wrong(r, "%s", text);
    reader_leave(r, before);
}

void reader_no_memory(struct reader *r)
{
    problem_no_memory(r->rules->problems);
    r->broken = true;
}

/* Values --- */

/* NULL when it is absent; null counts as absent. */
const json_t *reader_get(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_null(value) ? NULL : value;
}

/* An integer, also one that is written as 5.0. */
bool reader_integer(const json_t *value, int64_t *i)
{
    static const double limit = 9e18; /* fits an int64_t */
    if (json_is_integer(value)) {
        *i = json_integer_value(value);
        return true;
    }
    if (!json_is_real(value)) {
        return false;
    }
    double d = json_real_value(value);
    if (d >= limit || d <= -limit) {
        *i = d > 0 ? INT64_MAX : INT64_MIN;
        return true; /* doubles of that size have no fraction */
    }
    *i = (int64_t)d;
    return (double)*i == d;
}

/* 0.5466 as 546: what is less than a thousandth is cut off. */
static uint32_t as_milli(double value)
{
    static const double rounding = 1e-9; /* 0.57 * 1000 may be 569.99… */
    return (uint32_t)(value * 1000 + rounding);
}

static const char *digits(const char *text, size_t max, int64_t *value)
{
    size_t n = 0;
    for (; *text >= '0' && *text <= '9' && n <= max; text++, n++) {
        *value = *value * 10 + (*text - '0');
    }
    return n > 0 && n <= max ? text : NULL;
}

/* google.protobuf.Duration as JSON: "1.5s". In microseconds; what is less
 * counts as one. */
static bool as_duration(const json_t *value, int64_t *us)
{
    static const int64_t seconds_max = 315576000000; /* of protobuf */
    const char *text = json_string_value(value);
    int64_t seconds = 0;
    int64_t nanos = 0;
    bool negative = text != NULL && text[0] == '-';
    if (text == NULL) {
        return false;
    }
    text += negative ? 1 : 0;
    bool leading_zero = text[0] == '0' && text[1] >= '0' && text[1] <= '9';
    text = leading_zero ? NULL : digits(text, 12, &seconds);
    if (text != NULL && *text == '.') {
        const char *fraction = text + 1;
        text = digits(fraction, 9, &nanos);
        for (ptrdiff_t n = text != NULL ? text - fraction : 9; n < 9; n++) {
            nanos *= 10;
        }
    }
    if (text == NULL || strcmp(text, "s") != 0 || seconds > seconds_max ||
        (seconds == seconds_max && nanos > 0)) {
        return false;
    }
    *us = seconds * 1000000 + (nanos + 999) / 1000;
    *us = negative ? -*us : *us;
    return true;
}

/* Whether value is an array of objects only. */
bool reader_is_objects(const json_t *value)
{
    if (!json_is_array(value)) {
        return false;
    }
    for (size_t i = 0; i < json_array_size(value); i++) {
        if (!json_is_object(json_array_get(value, i))) {
            return false;
        }
    }
    return true;
}

bool reader_bool(struct reader *r,
                 const json_t *object,
                 const char *key,
                 bool *out)
{
    const json_t *value = reader_get(object, key);
    if (value != NULL && !json_is_boolean(value)) {
        reader_wrong_at(r, key, "must be true or false");
        return false;
    }
    if (value != NULL) {
        *out = json_is_true(value);
    }
    return value != NULL;
}

/* Returns NULL when it is absent or wrong. */
const char *reader_text(struct reader *r, const json_t *object, const char *key)
{
    const json_t *value = reader_get(object, key);
    if (value != NULL && !json_is_string(value)) {
        reader_wrong_at(r, key, "must be a string");
        return NULL;
    }
    return json_string_value(value);
}

const json_t *reader_object(struct reader *r,
                            const json_t *object,
                            const char *key)
{
    const json_t *value = reader_get(object, key);
    if (value != NULL && !json_is_object(value)) {
        reader_wrong_at(r, key, "must be an object");
        return NULL;
    }
    return value;
}

/* 0 to 2^32 - 1. Returns false when it is absent or wrong. */
bool reader_uint32(struct reader *r,
                   const json_t *object,
                   const char *key,
                   uint64_t *out)
{
    int64_t i = 0;
    const json_t *value = reader_get(object, key);
    if (value == NULL) {
        return false;
    }
    if (!reader_integer(value, &i) || i < 0 || i > UINT32_MAX) {
        reader_wrong_at(r, key, "must be an integer from 0 to 4294967295");
        return false;
    }
    *out = (uint64_t)i;
    return true;
}

/* A duration of at least 0. */
void reader_timeout(struct reader *r,
                    const json_t *object,
                    const char *key,
                    uint64_t *out)
{
    int64_t us = 0;
    const json_t *value = reader_get(object, key);
    if (value == NULL) {
        return;
    }
    if (!as_duration(value, &us)) {
        reader_wrong_at(r, key, "must be a duration such as \"1.5s\"");
    } else if (us < 0) {
        reader_wrong_at(r, key, "must not be negative");
    } else {
        *out = (uint64_t)us;
    }
}

void reader_backoff(struct reader *r,
                    const json_t *object,
                    const char *key,
                    uint64_t *out)
{
    int64_t us = 0;
    const json_t *value = reader_get(object, key);
    if (value == NULL) {
        reader_wrong_at(r, key, "is required");
    } else if (!as_duration(value, &us)) {
        reader_wrong_at(r, key, "must be a duration such as \"0.1s\"");
    } else if (us <= 0) {
        reader_wrong_at(r, key, "must be greater than 0");
    } else {
        *out = (uint64_t)us;
    }
}

bool reader_is_array(const json_t *value)
{
    return json_is_array(value);
}

size_t reader_size(const json_t *array)
{
    return json_array_size(array);
}

const json_t *reader_item(const json_t *array, size_t i)
{
    return json_array_get(array, i);
}

const char *reader_string(const json_t *value)
{
    return json_string_value(value);
}

double reader_number(const json_t *value)
{
    return json_number_value(value);
}

void reader_show(const json_t *value, char *text, size_t size)
{
    size_t len = json_dumpb(value, text, size - 1, JSON_ENCODE_ANY);
    text[len < size ? len : size - 1] = '\0';
}

/* Parts of the document --- */

static void read_throttle(struct reader *r, const json_t *document)
{
    const json_t *throttle = reader_object(r, document, "retryThrottling");
    if (throttle == NULL) {
        return;
    }
    size_t before = reader_enter_key(r, "retryThrottling");
    const json_t *tokens = reader_get(throttle, "maxTokens");
    const json_t *ratio = reader_get(throttle, "tokenRatio");
    double max = json_number_value(tokens);
    double each = json_number_value(ratio);
    if (tokens == NULL) {
        reader_wrong_at(r, "maxTokens", "is required");
    } else if (!(max > 0 && max <= TOKENS_MAX)) {
        reader_wrong_at(r, "maxTokens",
                        "must be greater than 0 and at most 1000");
    }
    /* More than all tokens at once is no more than all. */
    each = each > TOKENS_MAX ? TOKENS_MAX : each;
    if (ratio == NULL) {
        reader_wrong_at(r, "tokenRatio", "is required");
    } else if (!(each > 0) || as_milli(each) == 0) {
        reader_wrong_at(r, "tokenRatio", "must be at least 0.001");
    }
    reader_leave(r, before);
    if (!r->broken) {
        uint32_t milli = as_milli(max);
        r->out->has_throttle = true;
        r->out->throttle_max_millitokens = milli > 0 ? milli : 1;
        r->out->throttle_ratio_millitokens = as_milli(each);
    }
}

/* What a known policy of loadBalancingConfig says. */
static void read_lb_policy(struct reader *r,
                           enum grpc_lb lb,
                           const json_t *policy)
{
    struct service_config *out = r->out;
    int64_t i = 0;
    out->has_lb = true;
    out->lb = lb;
    if (lb == GRPC_PICK_FIRST) {
        (void)reader_bool(r, policy, "shuffleAddressList",
                          &out->shuffle_addresses);
    }
    const json_t *choices = reader_get(policy, "choiceCount");
    if (lb != GRPC_LEAST_REQUEST || choices == NULL) {
        return;
    }
    if (!reader_integer(choices, &i) || i < CHOICES_MIN || i > CHOICES_MAX) {
        reader_wrong_at(r, "choiceCount", "must be an integer from 2 to 10");
    } else {
        out->lb_choices = (uint32_t)i;
    }
}

static bool find_lb(const char *name, enum grpc_lb *lb)
{
    static const struct {
        const char *name;
        enum grpc_lb lb;
    } known[] = {
        { "pick_first", GRPC_PICK_FIRST },
        { "round_robin", GRPC_ROUND_ROBIN },
        { "least_request", GRPC_LEAST_REQUEST },
        { "least_request_experimental", GRPC_LEAST_REQUEST },
    };
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        if (strcmp(known[i].name, name) == 0) {
            *lb = known[i].lb;
            return true;
        }
    }
    return false;
}

/* Whether each is { "name": { … } }. */
static bool is_lb_config(const json_t *value)
{
    if (!reader_is_objects(value)) {
        return false;
    }
    for (size_t i = 0; i < json_array_size(value); i++) {
        json_t *item = json_array_get(value, i);
        json_t *policy =
            json_object_iter_value(json_object_iter(item)); /* the first */
        if (json_object_size(item) != 1 ||
            !(json_is_object(policy) || json_is_null(policy))) {
            return false;
        }
    }
    return true;
}

/* The first policy that is known counts. */
static void read_lb_config(struct reader *r, const json_t *value)
{
    size_t before = reader_enter_key(r, "loadBalancingConfig");
    enum grpc_lb lb = GRPC_PICK_FIRST;
    if (!is_lb_config(value)) {
        reader_wrong(r, "must be an array of objects with one key");
        reader_leave(r, before);
        return;
    }
    for (size_t i = 0; i < json_array_size(value); i++) {
        json_t *item = json_array_get(value, i);
        void *first = json_object_iter(item);
        const char *name = json_object_iter_key(first);
        if (find_lb(name, &lb)) {
            (void)reader_enter(r, "[%zu]", i);
            (void)reader_enter_key(r, name);
            read_lb_policy(r, lb, json_object_iter_value(first));
            reader_leave(r, before);
            return;
        }
    }
    reader_wrong(r, "no known policy");
    reader_leave(r, before);
}

static void read_lb(struct reader *r, const json_t *document)
{
    const json_t *config = reader_get(document, "loadBalancingConfig");
    if (config != NULL) {
        read_lb_config(r, config);
        return;
    }
    const char *name = reader_text(r, document, "loadBalancingPolicy");
    if (name == NULL) {
        return;
    }
    r->out->has_lb = true;
    if (strcmp(name, "round_robin") == 0) {
        r->out->lb = GRPC_ROUND_ROBIN;
    } else if (strcmp(name, "pick_first") != 0) {
        size_t before = reader_enter_key(r, "loadBalancingPolicy");
        reader_wrong(r, "unknown policy \"%.100s\"", name);
        reader_leave(r, before);
    }
}

static void read_health(struct reader *r, const json_t *document)
{
    const json_t *health = reader_object(r, document, "healthCheckConfig");
    if (health != NULL) {
        size_t before = reader_enter_key(r, "healthCheckConfig");
        (void)reader_text(r, health, "serviceName");
        reader_leave(r, before);
    }
}

static void read_scaling(struct reader *r, const json_t *document)
{
    uint64_t max = 0;
    const json_t *scaling = reader_object(r, document, "connectionScaling");
    if (scaling == NULL) {
        return;
    }
    size_t before = reader_enter_key(r, "connectionScaling");
    if (reader_uint32(r, scaling, "maxConnectionsPerSubchannel", &max)) {
        max = max == 0 ? 1 : max;
        max = max > CONNECTIONS_MAX ? CONNECTIONS_MAX : max;
        r->out->max_connections_per_endpoint = (uint32_t)max;
    }
    reader_leave(r, before);
}

/* The document --- */

static void read_document(struct reader *r, const json_t *document)
{
    if (!json_is_object(document)) {
        reader_wrong(r, "must be an object");
        return;
    }
    service_methods_read(r, document);
    if (!service_names_check(r->out, r->rules)) {
        r->broken = true;
    }
    read_throttle(r, document);
    read_lb(r, document);
    read_health(r, document);
    read_scaling(r, document);
}

/* What jansson says of a text that is no JSON. Where it finds no memory for a
 * string, it says that there was none; the document is refused all the same. */
static void report_syntax(struct reader *r, const json_error_t *error)
{
    char place[PROBLEM_TEXT_MAX / 2];
    if (json_error_code(error) == json_error_out_of_memory ||
        error->text[0] == '\0') {
        reader_no_memory(r);
        return;
    }
    (void)snprintf(place, sizeof(place), "%.400s:%d:%d", r->rules->file,
                   error->line, error->column);
    problem_add(r->rules->problems, place, "%s", error->text);
    r->broken = true;
}

bool service_config_read(const char *text,
                         size_t len,
                         const struct service_config_rules *rules,
                         struct service_config *out)
{
    json_error_t error;
    struct reader r = { .rules = rules, .out = out };
    *out = (struct service_config){ 0 };
    if (len > SERVICE_CONFIG_MAX) {
        reader_wrong(&r, "file is larger than 1 MiB");
        return false;
    }
    json_t *document =
        json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    if (document == NULL) {
        report_syntax(&r, &error);
    } else {
        read_document(&r, document);
    }
    json_decref(document);
    if (r.broken) {
        service_config_fini(out);
    }
    return !r.broken;
}

void service_config_fini(struct service_config *c)
{
    for (size_t i = 0; i < c->n_methods; i++) {
        free(c->methods[i].service);
        free(c->methods[i].method);
    }
    free(c->methods);
    *c = (struct service_config){ 0 };
}
