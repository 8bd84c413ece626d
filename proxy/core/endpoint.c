#include "proxy/core/endpoint.h"

#include <assert.h>
#include <stdio.h>

#include "proxy/core/state.h"

static uint32_t share_of_process(uint32_t value, unsigned workers)
{
    return value == 0 ? 0 : (value + workers - 1) / workers;
}

bool cluster_init(struct engine *e,
                  struct cluster *c,
                  const struct upstream_config *config)
{
    *c = (struct cluster){ .config = config };
    c->endpoint.cluster = c;
    c->endpoint.address = &config->address;
    list_init(&c->endpoint.lanes);
    budget_init(&c->budget, config->budget_ratio_permille,
                share_of_process(config->budget_min_per_s, e->workers),
                share_of_process(config->budget_burst, e->workers), e->now_us);
    c->fresh = session_copy(e, NULL);
    if (c->fresh == NULL) {
        return false;
    }
    c->fresh->db = config->db;
    return (config->username == NULL ||
            text_set(e, &c->fresh->username, span_of(config->username))) &&
           (config->password == NULL ||
            text_set(e, &c->fresh->password, span_of(config->password)));
}

void cluster_start(struct engine *e, struct cluster *c)
{
    struct upstream *u = endpoint_shared_lane(e, &c->endpoint, c->fresh, NULL);
    if (u != NULL) {
        u->pinned = true;
        upstream_want(e, u);
    }
}

void cluster_fini(struct engine *e, struct cluster *c)
{
    struct endpoint *p = &c->endpoint;
    while (p->lanes.next != NULL && !list_empty(&p->lanes)) {
        struct upstream *u =
            CONTAINER_OF(p->lanes.next, struct upstream, endpoint_node);
        upstream_free(e, u, NULL);
    }
    memory_give(e->memory, p->resolved);
    session_free(e, c->fresh);
    *c = (struct cluster){ 0 };
}

struct upstream *endpoint_shared_lane(struct engine *e,
                                      struct endpoint *p,
                                      const struct session *session,
                                      const struct downstream *d)
{
    uint32_t lanes = p->cluster->config->shared_lanes;
    unsigned index =
        d == NULL || lanes <= 1 ? 0 : conn_index(d->conn.id) % lanes;
    LIST_FOR_EACH (node, &p->lanes) {
        struct upstream *u = CONTAINER_OF(node, struct upstream, endpoint_node);
        if (u->owner == NULL && u->index == index &&
            u->state != UPSTREAM_CLOSED &&
            session_same_lane(u->session, session)) {
            return u;
        }
    }
    struct upstream *u = upstream_new(e, p, session, NULL);
    if (u != NULL) {
        u->index = index;
    }
    return u;
}

static void trace_health(struct engine *e,
                         struct endpoint *p,
                         const char *to,
                         const char *why)
{
    engine_trace(e,
                 &(struct trace_record){ .type = TRACE_UPSTREAM,
                                         .upstream = p->cluster->config->name,
                                         .address = p->address,
                                         .to = to,
                                         .reason = why });
}

void endpoint_failed(struct engine *e, struct endpoint *p, const char *why)
{
    if (why != p->last_error) {
        snprintf(p->last_error, sizeof(p->last_error), "%s", why);
    }
    if (p->lanes_up > 0) {
        return;
    }
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
