#include "config/policies.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/codes.h"
#include "config/option.h"
#include "config/problem.h"
#include "config/service_config.h"

/* One upstream of type grpc. Everything borrowed. */
struct builder {
    struct grpc_config *g;
    struct upstream_config *upstream;
    const struct draft_section *section;
    const struct draft_section *shared; /* [grpc], or NULL */
    const struct config_source *source;
    struct config_problems *problems;
    struct config_problems *warnings;
    bool is_told; /* what is wrong with the service config */
};

/* The entry of a key, in the section itself or in [grpc]; NULL: the default
 * holds. */
static const struct draft_entry *find(const struct builder *b, const char *key)
{
    const struct draft_entry *e = draft_find(b->section, key);
    if (e == NULL && b->shared != NULL) {
        e = draft_find(b->shared, key);
    }
    return e;
}

static const char *place(const struct builder *b, const char *key)
{
    const struct draft_entry *e = find(b, key);
    return e != NULL ? e->place : b->section->place;
}

/* The defaults of gRPC libraries, as far as the keys are not given. */
static void apply_profile(const struct builder *b)
{
    struct grpc_config *g = b->g;
    if (g->reconnect_profile != GRPC_RECONNECT_GRPC) {
        return;
    }
    if (find(b, "reconnect_initial_backoff") == NULL) {
        g->reconnect_initial_backoff_us = 1000000;
    }
    if (find(b, "reconnect_max_backoff") == NULL) {
        g->reconnect_max_backoff_us = 120000000;
    }
    if (find(b, "reconnect_multiplier") == NULL) {
        g->reconnect_multiplier = 1.6;
    }
    if (find(b, "reconnect_jitter") == NULL) {
        g->reconnect_jitter = 0.2;
    }
    if (find(b, "connect_timeout") == NULL) {
        b->upstream->connect_timeout_us = 20000000;
    }
}

/* The policy of the keys alone. */
static struct grpc_policy policy_of_keys(const struct grpc_config *g)
{
    struct grpc_policy p = {
        .timeout_us = g->max_call_duration_us > 0 ? g->max_call_duration_us
                                                  : GRPC_NO_LIMIT,
        .wait_for_ready = g->wait_for_ready,
        .request_message_max = g->max_request_message_bytes,
        .response_message_max = g->max_response_message_bytes,
    };
    if (g->max_retry_attempts >= 1) {
        p.retry = true;
        p.max_attempts = (uint32_t)g->max_retry_attempts + 1;
        p.initial_backoff_us = g->initial_backoff_us;
        p.max_backoff_us = g->max_backoff_us;
        p.multiplier = g->backoff_multiplier;
        p.codes = g->retryable_status_codes;
    }
    return p;
}

enum {
    KEEPALIVE_LEAST_US = 10000000 /* A8 */
};

/* What is said of a key of [grpc] holds for all upstreams, and is said once. */
static void warn(const struct builder *b, const char *key, const char *text)
{
    const char *at = place(b, key);
    for (size_t i = 0; i < b->warnings->n; i++) {
        if (strcmp(b->warnings->list[i].place, at) == 0 &&
            strcmp(b->warnings->list[i].text, text) == 0) {
            return;
        }
    }
    problem_add(b->warnings, at, "%s", text);
}

static void raise_keepalive(const struct builder *b)
{
    if (b->g->keepalive_time_us < KEEPALIVE_LEAST_US) {
        warn(b, "keepalive_time",
             "keepalive_time is raised to 10s, the least that gRPC allows");
        b->g->keepalive_time_us = KEEPALIVE_LEAST_US;
    }
}

/* Keys that say nothing without another one. */
static void warn_of_idle_keys(const struct builder *b)
{
    static const struct {
        const char *key;
        const char *text;
    } keys[] = {
        { "initial_backoff",
          "initial_backoff has no effect without max_retry_attempts" },
        { "max_backoff",
          "max_backoff has no effect without max_retry_attempts" },
        { "backoff_multiplier",
          "backoff_multiplier has no effect without max_retry_attempts" },
        { "retryable_status_codes",
          "retryable_status_codes has no effect without max_retry_attempts" },
    };
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        if (find(b, keys[i].key) != NULL) {
            warn(b, keys[i].key, keys[i].text);
        }
    }
}

static void warn_of_keys(const struct builder *b)
{
    const struct grpc_config *g = b->g;
    char codes[CODES_TEXT_MAX];
    char text[CODES_TEXT_MAX + 128];
    if (g->max_retry_attempts < 0) {
        warn_of_idle_keys(b);
    }
    if (g->max_retry_attempts >= 1 &&
        g->initial_backoff_us > g->max_backoff_us) {
        warn(b, "initial_backoff",
             "initial_backoff is longer than max_backoff, which every wait "
             "is cut to");
    }
    if (g->max_retry_attempts >= 1 &&
        (g->retryable_status_codes & CODES_DOUBTFUL) != 0) {
        codes_format(g->retryable_status_codes & CODES_DOUBTFUL, codes);
        (void)snprintf(text, sizeof(text),
                       "retryable_status_codes: AIP-194 advises against "
                       "retries after %s",
                       codes);
        warn(b, "retryable_status_codes", text);
    }
    if (g->ambiguous == GRPC_AMBIGUOUS_POLICY) {
        warn(b, "ambiguous",
             "ambiguous = policy: calls that may have run are sent again, and "
             "some will run twice");
    }
}

/* The service config --- */

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* What an entry says, and for the groups that it does not say, the keys
 * (grpc.md §2.3). */
static struct grpc_policy merge(const struct grpc_config *g,
                                const struct service_method *m)
{
    const struct service_policy *said = &m->policy;
    struct grpc_policy p = policy_of_keys(g);
    if (said->has_retry) {
        p.retry = !said->hedging;
        p.is_explicit = p.retry && m->service != NULL;
        p.max_attempts = p.retry ? said->max_attempts : 0;
        p.initial_backoff_us = said->initial_backoff_us;
        p.max_backoff_us = said->max_backoff_us;
        p.multiplier = said->multiplier;
        p.codes = said->codes;
    }
    if (said->has_retry && g->max_retry_attempts == 0) {
        p.retry = false; /* the user can always switch it off */
    }
    if (!p.retry) {
        p.is_explicit = false;
        p.max_attempts = 0;
        p.initial_backoff_us = 0;
        p.max_backoff_us = 0;
        p.multiplier = 0;
        p.codes = 0;
    }
    if (said->has_wait_for_ready) {
        p.wait_for_ready = said->wait_for_ready;
    }
    p.timeout_us = least(p.timeout_us, said->timeout_us);
    p.request_message_max =
        least(p.request_message_max, said->request_message_max);
    p.response_message_max =
        least(p.response_message_max, said->response_message_max);
    return p;
}

/* "/service/method", or "/service/". Returns NULL without memory. */
static char *path_of(const struct service_method *m)
{
    size_t service_len = strlen(m->service);
    size_t method_len = m->method != NULL ? strlen(m->method) : 0;
    char *path = malloc(service_len + method_len + 3);
    if (path == NULL) {
        return NULL;
    }
    path[0] = '/';
    memcpy(path + 1, m->service, service_len);
    path[service_len + 1] = '/';
    if (method_len > 0) {
        memcpy(path + service_len + 2, m->method, method_len);
    }
    path[service_len + method_len + 2] = '\0';
    return path;
}

/* Make m, whose strings become ours, the next of the methods. */
static bool add_method(struct grpc_config *g, struct service_method *m)
{
    char *path = path_of(m);
    if (path == NULL) {
        return false;
    }
    g->methods[g->n_methods++] = (struct grpc_method){
        .service = m->service,
        .method = m->method,
        .path = path,
        .path_hash = grpc_method_hash(span_of(path)),
        .policy = merge(g, m),
    };
    m->service = NULL;
    m->method = NULL;
    return true;
}

/* By hash. Where a service has a slash in its name, two may have one path; that
 * with the longer service comes first, as a path is split at its last slash. */
static int compare_methods(const void *left, const void *right)
{
    const struct grpc_method *a = left;
    const struct grpc_method *b = right;
    if (a->path_hash != b->path_hash) {
        return a->path_hash < b->path_hash ? -1 : 1;
    }
    int order = strcmp(a->path, b->path);
    return order != 0 ? order : strcmp(b->service, a->service);
}

/* Returns false without memory. */
static bool add_methods(struct grpc_config *g, struct service_config *s)
{
    g->methods = calloc(s->n_methods + 1, sizeof(*g->methods));
    if (g->methods == NULL) {
        return false;
    }
    for (size_t i = 0; i < s->n_methods; i++) {
        if (s->methods[i].service == NULL) {
            g->others = merge(g, &s->methods[i]);
        } else if (!add_method(g, &s->methods[i])) {
            return false;
        }
    }
    qsort(g->methods, g->n_methods, sizeof(*g->methods), compare_methods);
    return true;
}

/* What it says of the upstream as a whole. */
static void apply_whole(struct grpc_config *g, const struct service_config *s)
{
    if (s->has_throttle) {
        g->throttle_max_millitokens = s->throttle_max_millitokens;
        g->throttle_ratio_millitokens = s->throttle_ratio_millitokens;
    }
    if (s->has_lb) {
        g->lb = s->lb;
        g->shuffle_addresses = s->shuffle_addresses;
        g->lb_choices = s->lb_choices > 0 ? s->lb_choices : 2;
    }
    if (s->max_connections_per_endpoint > 0) {
        g->max_connections_per_endpoint = s->max_connections_per_endpoint;
    }
}

static void take_service_config(const struct builder *b,
                                struct config_problems *problems,
                                struct config_problems *warnings)
{
    const char *file = b->g->service_config;
    struct service_config s;
    struct service_config_rules rules = {
        .file = file,
        .gapic = b->g->gapic,
        .max_attempts_cap = b->g->max_attempts_cap,
        .problems = problems,
        .warnings = warnings,
    };
    char *text = b->source->read_file != NULL
                     ? b->source->read_file(b->source->context, file)
                     : NULL;
    if (text == NULL) {
        problem_add(problems, place(b, "service_config"),
                    "cannot read the file '%.200s'", file);
        return;
    }
    if (service_config_read(text, strlen(text), &rules, &s)) {
        apply_whole(b->g, &s);
        if (!add_methods(b->g, &s)) {
            problem_no_memory(problems);
        }
        service_config_fini(&s);
    }
    free(text);
}

/* What is wrong with a file is told once, however many upstreams have it. */
static void read_service_config(const struct builder *b)
{
    struct config_problems told = { 0 };
    struct config_problems told_warnings = { 0 };
    if (!b->is_told) {
        take_service_config(b, b->problems, b->warnings);
        return;
    }
    take_service_config(b, &told, &told_warnings);
    if (told.n > 0 && b->problems->n == 0) { /* this time, only */
        problem_add(b->problems, told.list[0].place, "%s", told.list[0].text);
    }
    if (problems_lack_memory(&told) || problems_lack_memory(&told_warnings)) {
        problem_no_memory(b->problems);
    }
    config_problems_fini(&told);
    config_problems_fini(&told_warnings);
}

static void build(const struct builder *b)
{
    apply_profile(b);
    raise_keepalive(b);
    warn_of_keys(b);
    b->g->others = policy_of_keys(b->g);
    if (b->g->service_config != NULL) {
        read_service_config(b);
    }
}

/* Whether an upstream before this one has the same service config: then what
 * is wrong with it is told already. */
static bool is_told(const struct config *c, size_t i)
{
    const struct grpc_config *g = &c->upstreams[i].grpc;
    for (size_t k = 0; k < i && g->service_config != NULL; k++) {
        const struct grpc_config *other = &c->upstreams[k].grpc;
        if (other->service_config != NULL && other->gapic == g->gapic &&
            other->max_attempts_cap == g->max_attempts_cap &&
            strcmp(other->service_config, g->service_config) == 0) {
            return true;
        }
    }
    return false;
}

void policies_build(struct config *c, const struct draft *d)
{
    for (size_t i = 0; i < c->n_upstreams; i++) {
        struct upstream_config *u = &c->upstreams[i];
        struct builder b = {
            .g = &u->grpc,
            .upstream = u,
            .section = draft_section_of(d, SECTION_UPSTREAM, u->name),
            .shared = draft_find_section(d, SECTION_ALL_GRPC, ""),
            .source = d->source,
            .problems = d->problems,
            .warnings = &c->warnings,
            .is_told = is_told(c, i),
        };
        if (u->type == UPSTREAM_GRPC) {
            build(&b);
        }
    }
}
