#include "config/policies.h"

#include <string.h>

#include "config/option.h"
#include "config/problem.h"

/* One upstream of type grpc. Everything borrowed. */
struct builder {
    struct grpc_config *g;
    struct upstream_config *upstream;
    const struct draft_section *section;
    const struct draft_section *shared; /* [grpc], or NULL */
    struct config_problems *warnings;
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

static void raise_keepalive(const struct builder *b)
{
    if (b->g->keepalive_time_us < KEEPALIVE_LEAST_US) {
        problem_add(b->warnings, place(b, "keepalive_time"),
                    "keepalive_time is raised to 10s, the least that gRPC "
                    "allows");
        b->g->keepalive_time_us = KEEPALIVE_LEAST_US;
    }
}

static void build(const struct builder *b)
{
    apply_profile(b);
    raise_keepalive(b);
    b->g->others = policy_of_keys(b->g);
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
            .warnings = &c->warnings,
        };
        if (u->type == UPSTREAM_GRPC) {
            build(&b);
        }
    }
}
