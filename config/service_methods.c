#include <stdlib.h>
#include <string.h>

#include "config/arena.h"
#include "config/codes.h"
#include "config/problem.h"
#include "config/service_reader.h"

/* Policies --- */

/* One code, by name or number. */
static bool read_code(struct reader *r,
                      const struct json_t *value,
                      unsigned *code)
{
    int64_t i = 0;
    const char *name = reader_string(value);
    if (name != NULL && code_find_name(name, code)) {
        return true;
    }
    if (reader_integer(value, &i) && i >= 0 && i <= CODES_MAX) {
        *code = (unsigned)i;
        return true;
    }
    if (name != NULL) {
        reader_wrong(r, "\"%.100s\" is not a status code", name);
        return false;
    }
    char text[128];
    reader_show(value, text, sizeof(text));
    reader_wrong(r, "\"%s\" is not a status code", text);
    return false;
}

/* AIP-194: after these a retry rarely helps, or may do harm (E3). */
static void warn_of_codes(struct reader *r, uint32_t codes)
{
    char text[CODES_TEXT_MAX];
    if ((codes & CODES_DOUBTFUL) != 0) {
        codes_format(codes & CODES_DOUBTFUL, text);
        problem_add(r->rules->warnings, r->rules->file,
                    "%s: AIP-194 advises against retries after %s", r->path,
                    text);
    }
}

/* An array of codes, empty only if that is allowed. */
static void read_codes(struct reader *r,
                       const struct json_t *object,
                       const char *key,
                       bool may_be_empty,
                       uint32_t *out)
{
    const struct json_t *value = reader_get(object, key);
    size_t before = reader_enter_key(r, key);
    bool is_short = reader_size(value) == 0 && !may_be_empty;
    if (value == NULL && !may_be_empty) {
        reader_wrong(r, "is required");
    } else if (value != NULL && (!reader_is_array(value) || is_short)) {
        reader_wrong(r, may_be_empty ? "must be an array"
                                     : "must be a non-empty array");
    }
    for (size_t i = 0; i < reader_size(value); i++) {
        unsigned code = 0;
        if (!read_code(r, reader_item(value, i), &code)) {
            continue;
        }
        if (code == 0) {
            reader_wrong(r, "OK cannot be retried");
        }
        *out |= 1u << code;
    }
    if (!may_be_empty) {
        warn_of_codes(r, *out);
    }
    reader_leave(r, before);
}

static void read_max_attempts(struct reader *r,
                              const struct json_t *object,
                              bool may_be_absent,
                              uint32_t *out)
{
    uint32_t cap = r->rules->max_attempts_cap;
    int64_t i = 0;
    const struct json_t *value = reader_get(object, "maxAttempts");
    size_t before = reader_enter_key(r, "maxAttempts");
    *out = cap;
    if (value == NULL && may_be_absent) {
        problem_add(r->rules->warnings, r->rules->file,
                    "%s: is missing; it is max_attempts_cap, %u", r->path,
                    (unsigned)cap);
    } else if (value == NULL) {
        reader_wrong(r, "is required");
    } else if (!reader_integer(value, &i) || i < 2) {
        reader_wrong(r, "must be an integer of at least 2");
    } else if (i > cap) {
        problem_add(r->rules->warnings, r->rules->file,
                    "%s: %lld is above max_attempts_cap; it is %u", r->path,
                    (long long)i, (unsigned)cap);
    } else {
        *out = (uint32_t)i;
    }
    reader_leave(r, before);
}

static void read_retry(struct reader *r,
                       const struct json_t *retry,
                       struct service_policy *p)
{
    size_t before = reader_enter_key(r, "retryPolicy");
    p->has_retry = true;
    read_max_attempts(r, retry, r->rules->gapic, &p->max_attempts);
    reader_backoff(r, retry, "initialBackoff", &p->initial_backoff_us);
    reader_backoff(r, retry, "maxBackoff", &p->max_backoff_us);
    const struct json_t *multiplier = reader_get(retry, "backoffMultiplier");
    p->multiplier = reader_number(multiplier);
    if (multiplier == NULL) {
        reader_wrong_at(r, "backoffMultiplier", "is required");
    } else if (!(p->multiplier > 0)) {
        reader_wrong_at(r, "backoffMultiplier",
                        "must be a number greater than 0");
    }
    read_codes(r, retry, "retryableStatusCodes", false, &p->codes);
    reader_leave(r, before);
}

/* Hedging is judged, but not done. */
static void read_hedging(struct reader *r,
                         const struct json_t *hedging,
                         struct service_policy *p)
{
    uint32_t attempts = 0;
    uint64_t delay = 0;
    uint32_t codes = 0;
    size_t before = reader_enter_key(r, "hedgingPolicy");
    p->has_retry = true;
    p->hedging = true;
    read_max_attempts(r, hedging, false, &attempts);
    reader_timeout(r, hedging, "hedgingDelay", &delay);
    read_codes(r, hedging, "nonFatalStatusCodes", true, &codes);
    problem_add(r->rules->warnings, r->rules->file,
                "%s: is not supported by this version; these methods have no "
                "retries",
                r->path);
    reader_leave(r, before);
}

static void read_policy(struct reader *r,
                        const struct json_t *method,
                        struct service_policy *p)
{
    *p = (struct service_policy){ .timeout_us = GRPC_NO_LIMIT,
                                  .request_message_max = GRPC_NO_LIMIT,
                                  .response_message_max = GRPC_NO_LIMIT };
    reader_timeout(r, method, "timeout", &p->timeout_us);
    p->has_wait_for_ready =
        reader_bool(r, method, "waitForReady", &p->wait_for_ready);
    (void)reader_uint32(r, method, "maxRequestMessageBytes",
                        &p->request_message_max);
    (void)reader_uint32(r, method, "maxResponseMessageBytes",
                        &p->response_message_max);
    if (reader_get(method, "retryPolicy") != NULL &&
        reader_get(method, "hedgingPolicy") != NULL) {
        reader_wrong(r, "retryPolicy and hedgingPolicy exclude each other");
        return;
    }
    const struct json_t *retry = reader_object(r, method, "retryPolicy");
    const struct json_t *hedging = reader_object(r, method, "hedgingPolicy");
    if (retry != NULL) {
        read_retry(r, retry, p);
    } else if (hedging != NULL) {
        read_hedging(r, hedging, p);
    }
}

/* Names --- */

/* The number of names in an array of methodConfigs. */
static size_t count_names(const struct json_t *methods)
{
    size_t count = 0;
    for (size_t i = 0; i < reader_size(methods); i++) {
        count += reader_size(reader_get(reader_item(methods, i), "name"));
    }
    return count;
}

/* "" and absent are equal. Returns false without memory. */
static bool copy_part(const char *text, char **part)
{
    *part = NULL;
    if (text == NULL || text[0] == '\0') {
        return true;
    }
    *part = text_copy(text, strlen(text));
    return *part != NULL;
}

static void read_name(struct reader *r,
                      const struct json_t *name,
                      struct service_place place,
                      const struct service_policy *policy)
{
    struct service_method *m = &r->out->methods[r->out->n_methods];
    const char *service = reader_text(r, name, "service");
    const char *method = reader_text(r, name, "method");
    bool has_service = service != NULL && service[0] != '\0';
    if (!has_service && method != NULL && method[0] != '\0') {
        reader_wrong(r, "method without service");
        return;
    }
    *m = (struct service_method){ .place = place, .policy = *policy };
    r->out->n_methods++;
    if (!copy_part(service, &m->service) || !copy_part(method, &m->method)) {
        reader_no_memory(r);
    }
}

static void read_method(struct reader *r,
                        const struct json_t *method,
                        size_t entry)
{
    struct service_policy policy;
    const struct json_t *names = reader_get(method, "name");
    size_t before = reader_enter(r, "[%zu]", entry);
    read_policy(r, method, &policy);
    if (names != NULL && !reader_is_objects(names)) {
        reader_wrong_at(r, "name", "must be an array of objects");
    } else if (reader_size(names) == 0) {
        problem_add(r->rules->warnings, r->rules->file,
                    "%s: has no name, so it is for no method", r->path);
    }
    size_t n = reader_is_objects(names) ? reader_size(names) : 0;
    for (size_t i = 0; i < n; i++) {
        size_t here = reader_enter(r, ".name[%zu]", i);
        read_name(r, reader_item(names, i),
                  (struct service_place){ .entry = entry, .name = i }, &policy);
        reader_leave(r, here);
    }
    reader_leave(r, before);
}

void service_methods_read(struct reader *r, const struct json_t *document)
{
    const struct json_t *methods = reader_get(document, "methodConfig");
    if (methods == NULL) {
        return;
    }
    size_t before = reader_enter_key(r, "methodConfig");
    if (!reader_is_objects(methods)) {
        reader_wrong(r, "must be an array of objects");
        reader_leave(r, before);
        return;
    }
    r->out->methods =
        calloc(count_names(methods) + 1, sizeof(*r->out->methods));
    if (r->out->methods == NULL) {
        reader_no_memory(r);
        return;
    }
    for (size_t i = 0; i < reader_size(methods); i++) {
        read_method(r, reader_item(methods, i), i);
    }
    reader_leave(r, before);
}
