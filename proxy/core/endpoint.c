#include "proxy/core/endpoint.h"

#include <assert.h>
#include <stdio.h>

#include "proxy/core/state.h"

uint32_t node_hash(const char *id, const char *host, uint16_t port)
{
    bool known = id[0] != '\0';
    const char *name = known ? id : host;
    uint32_t hash = 0x811c9dc5u ^ (known ? 0 : port); /* FNV-1a */
    for (; *name != '\0'; name++) {
        hash = (hash ^ (uint8_t)*name) * 0x01000193u;
    }
    return hash;
}

void endpoint_init(struct endpoint *p,
                   struct cluster *c,
                   const struct address *address)
{
    *p = (struct endpoint){ .cluster = c, .address = *address };
    list_init(&p->lanes);
}

void endpoint_fini(struct engine *e, struct endpoint *p)
{
    while (!list_empty(&p->lanes)) {
        struct upstream *u =
            CONTAINER_OF(p->lanes.next, struct upstream, endpoint_node);
        upstream_free(e, u, NULL);
    }
    memory_give(e->memory, p->resolved);
    p->resolved = NULL;
    functions_free(e->memory, p->functions);
    p->functions = NULL;
}

static void trace_health(struct engine *e,
                         struct endpoint *p,
                         const char *to,
                         const char *why)
{
    engine_trace(e, &(struct trace_record){
                        .type = TRACE_UPSTREAM,
                        .upstream = p->cluster->config->name,
                        .address = p->limbo ? NULL : &p->address,
                        .to = to,
                        .reason = why });
}

void endpoint_measured(struct endpoint *p, uint64_t us)
{
    enum {
        SHARE = 8 /* of the new one in the average */
    };
    us = us == 0 ? 1 : us;
    p->latency_us =
        p->latency_us == 0 ? us : (p->latency_us * (SHARE - 1) + us) / SHARE;
}

void endpoint_failed(struct engine *e, struct endpoint *p, const char *why)
{
    p->failures_total++;
    if (why != p->last_error) {
        snprintf(p->last_error, sizeof(p->last_error), "%s", why);
    }
    if (p->lanes_up > 0) {
        return;
    }
    p->commands_asked = false; /* it may be another server from now on */
    p->commands_denied = 0;
    p->failures++;
    if (p->down_since_us == 0) {
        p->down_since_us = e->now_us == 0 ? 1 : e->now_us;
        trace_health(e, p, "unreachable", p->last_error);
    }
}

void endpoint_reached(struct engine *e, struct endpoint *p)
{
    if (p->down_since_us != 0) {
        trace_health(e, p, "reachable", NULL);
    }
    p->down_since_us = 0;
    p->failures = 0;
}

bool endpoint_fails_fast(const struct engine *e, const struct endpoint *p)
{
    uint64_t limit_us = p->cluster->config->fail_fast_after_us;
    return limit_us > 0 && p->down_since_us > 0 &&
           e->now_us - p->down_since_us >= limit_us;
}

bool endpoint_set_addresses(struct engine *e,
                            struct endpoint *p,
                            const struct address *list,
                            unsigned n)
{
    assert(n > 0);
    if (n > ENDPOINT_ADDRESSES_MAX) {
        n = ENDPOINT_ADDRESSES_MAX;
    }
    struct address *copy = memory_take(e->memory, n * sizeof(*copy));
    if (copy == NULL) {
        return false;
    }
    memcpy(copy, list, n * sizeof(*copy));
    memory_give(e->memory, p->resolved);
    p->resolved = copy;
    p->n_resolved = n;
    return true;
}
