#include "proxy/core/lane_set.h"

#include <assert.h>

#include "proxy/core/state.h"

static uint32_t index_for(const struct cluster *c, const struct downstream *d)
{
    if (d == NULL) {
        return 0;
    }
    if (c->slots != NULL && c->config->lanes == LANES_PRIVATE) {
        return 1 + conn_index(d->conn.id); /* a set of its own */
    }
    uint32_t lanes = c->config->shared_lanes;
    return lanes <= 1 ? 0 : conn_index(d->conn.id) % lanes;
}

static struct lane_set *set_new(struct engine *e,
                                struct cluster *c,
                                const struct session *session,
                                uint32_t index)
{
    struct lane_set *set = memory_take(e->memory, sizeof(*set));
    if (set == NULL) {
        return NULL;
    }
    set->session = session_copy(e, session);
    if (set->session == NULL) {
        memory_give(e->memory, set);
        return NULL;
    }
    set->cluster = c;
    set->index = index;
    list_append(&c->lane_sets, &set->node);
    return set;
}

struct lane_set *lane_set_get(struct engine *e,
                              struct cluster *c,
                              const struct session *session,
                              const struct downstream *d)
{
    uint32_t index = index_for(c, d);
    LIST_FOR_EACH (node, &c->lane_sets) {
        struct lane_set *set = CONTAINER_OF(node, struct lane_set, node);
        if (set->index == index && session_same_lane(set->session, session)) {
            return set;
        }
    }
    return set_new(e, c, session, index);
}

static const uint32_t index_apart = UINT32_MAX; /* of no client */
static const uint32_t index_aside = UINT32_MAX - 1;

bool lane_set_is_aside(const struct lane_set *set)
{
    return set->index == index_aside;
}

struct lane_set *lane_set_aside(struct engine *e,
                                struct cluster *c,
                                const struct session *session)
{
    LIST_FOR_EACH (node, &c->lane_sets) {
        struct lane_set *set = CONTAINER_OF(node, struct lane_set, node);
        if (lane_set_is_aside(set) &&
            session_same_lane(set->session, session)) {
            return set;
        }
    }
    return set_new(e, c, session, index_aside);
}

struct lane_set *lane_set_new_apart(struct engine *e,
                                    struct cluster *c,
                                    const struct session *session)
{
    return set_new(e, c, session, index_apart);
}

static void free_if_unused(struct engine *e, struct lane_set *set)
{
    if (lane_set_is_used(set) || set->n_open > 0) {
        return;
    }
    list_remove(&set->node);
    session_free(e, set->session);
    memory_give(e->memory, set->lanes);
    memory_give(e->memory, set);
}

struct upstream *lane_set_add(struct engine *e,
                              struct lane_set *set,
                              struct endpoint *p)
{
    if (p->index >= set->n_lanes) {
        uint32_t n = set->cluster->n_endpoints;
        struct upstream **lanes =
            memory_take(e->memory, n * sizeof(struct upstream *));
        if (lanes == NULL) {
            return NULL;
        }
        if (set->n_lanes > 0) {
            memcpy(lanes, set->lanes, set->n_lanes * sizeof(struct upstream *));
        }
        memory_give(e->memory, set->lanes);
        set->lanes = lanes;
        set->n_lanes = n;
    }
    struct upstream *u = upstream_new(e, p, set->session, NULL);
    if (u != NULL) {
        u->set = set;
        u->copies = set->cluster->slots != NULL;
        set->lanes[p->index] = u;
        set->n_open++;
    }
    return u;
}

void lane_set_drop(struct engine *e, struct lane_set *set, uint32_t index)
{
    assert(set->lanes[index] != NULL);
    set->lanes[index] = NULL;
    set->n_open--;
    free_if_unused(e, set);
}

void lane_set_join(struct lane_set *set)
{
    set->n_clients++;
}

enum {
    LANE_LINGER_US = 30 * 1000 * 1000
};

void lane_set_leave(struct engine *e, struct lane_set *set)
{
    set->n_clients--;
    if (lane_set_is_used(set)) {
        return;
    }
    set->n_clients++; /* it must not go while we look at its lanes */
    for (uint32_t i = 0; i < set->n_lanes; i++) {
        struct upstream *u = set->lanes[i];
        if (u != NULL && u->state == UPSTREAM_IDLE && list_empty(&u->waiting)) {
            upstream_free(e, u, NULL);
        } else if (u != NULL) {
            upstream_wake_at(e, u, e->now_us + LANE_LINGER_US);
        }
    }
    set->n_clients--;
    free_if_unused(e, set);
}
