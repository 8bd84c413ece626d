#include "proxy/core/cluster.h"

#include <assert.h>

#include "proxy/core/lane_set.h"
#include "proxy/core/learnt.h"
#include "proxy/core/redis_block.h"
#include "proxy/core/redis_gather.h"
#include "proxy/core/redis_pubsub.h"
#include "proxy/core/state.h"

static uint32_t share_of_process(uint32_t value, unsigned workers)
{
    return value == 0 ? 0 : (value + workers - 1) / workers;
}

static bool init_session(struct engine *e, struct cluster *c)
{
    const struct upstream_config *config = c->config;
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

bool cluster_init(struct engine *e,
                  struct cluster *c,
                  const struct upstream_config *config)
{
    *c = (struct cluster){ .config = config };
    list_init(&c->lane_sets);
    list_init(&c->spare_lanes);
    list_init(&c->lane_waiters);
    scripts_init(&c->scripts, config->script_cache_bytes);
    budget_init(&c->budget, config->budget_ratio_permille,
                share_of_process(config->budget_min_per_s, e->workers),
                share_of_process(config->budget_burst, e->workers), e->now_us);
    if (!init_session(e, c)) {
        return false;
    }
    if (config->type != UPSTREAM_STANDALONE) {
        return topology_init(e, c);
    }
    c->primary = cluster_add(e, c, &config->address);
    if (c->primary == NULL) {
        return false;
    }
    c->primary->wanted = true;
    return true;
}

void cluster_start(struct engine *e, struct cluster *c)
{
    if (c->topology != NULL) {
        topology_start(e, c);
    } else {
        cluster_open_lane(e, c->primary);
    }
}

void cluster_open_lane(struct engine *e, struct endpoint *p)
{
    struct cluster *c = p->cluster;
    if (c->base == NULL) {
        c->base = lane_set_get(e, c, c->fresh, NULL);
        if (c->base == NULL) {
            return;
        }
        c->base->pinned = true;
    }
    struct upstream *u = lane_set_lane(e, c->base, p);
    if (u != NULL) {
        upstream_want(e, u);
    }
}

static void drop_unused_sets(struct engine *e, struct cluster *c)
{
    while (c->lane_sets.next != NULL && !list_empty(&c->lane_sets)) {
        struct lane_set *set =
            CONTAINER_OF(c->lane_sets.next, struct lane_set, node);
        set->pinned = false;
        set->n_clients = 1;
        lane_set_leave(e, set);
    }
}

void cluster_fini(struct engine *e, struct cluster *c)
{
    for (uint32_t i = 0; i < c->n_endpoints; i++) {
        if (c->endpoints[i] != NULL) {
            endpoint_fini(e, c->endpoints[i]);
        }
    }
    drop_unused_sets(e, c);
    topology_fini(e, c);
    for (uint32_t i = 0; i < c->n_endpoints; i++) {
        memory_give(e->memory, c->endpoints[i]);
    }
    memory_give(e->memory, c->endpoints);
    memory_give(e->memory, c->slots);
    learnt_free(e, c->learnt);
    session_free(e, c->fresh);
    scripts_fini(e->memory, &c->scripts);
    *c = (struct cluster){ 0 };
}

/* A place in c->endpoints: a free one, or one more. */
static struct endpoint **free_place(struct engine *e, struct cluster *c)
{
    for (uint32_t i = 0; i < c->n_endpoints; i++) {
        if (c->endpoints[i] == NULL) {
            return &c->endpoints[i];
        }
    }
    enum {
        STEP = 8
    };
    if (c->n_endpoints >= CLUSTER_ENDPOINTS_MAX) {
        return NULL;
    }
    if (c->n_endpoints % STEP == 0) {
        struct endpoint **more =
            memory_take(e->memory,
                        (c->n_endpoints + STEP) * sizeof(struct endpoint *));
        if (more == NULL) {
            return NULL;
        }
        if (c->n_endpoints > 0) {
            memcpy(more, c->endpoints,
                   c->n_endpoints * sizeof(struct endpoint *));
        }
        memory_give(e->memory, c->endpoints);
        c->endpoints = more;
    }
    return &c->endpoints[c->n_endpoints++];
}

struct endpoint *cluster_add(struct engine *e,
                             struct cluster *c,
                             const struct address *address)
{
    struct endpoint **place = free_place(e, c);
    if (place == NULL) {
        return NULL;
    }
    struct endpoint *p = memory_take(e->memory, sizeof(*p));
    if (p == NULL) {
        return NULL;
    }
    endpoint_init(p, c, address);
    p->index = (uint32_t)(place - c->endpoints);
    p->near = endpoint_zone_is_near(c, address, NULL);
    *place = p;
    return p;
}

struct endpoint *cluster_find(const struct cluster *c,
                              const struct address *address)
{
    for (uint32_t i = 0; i < c->n_endpoints; i++) {
        struct endpoint *p = c->endpoints[i];
        if (p != NULL && !p->limbo && !p->sentinel &&
            p->address.port == address->port &&
            strcmp(p->address.host, address->host) == 0) {
            return p;
        }
    }
    return NULL;
}

uint32_t cluster_in_flight(const struct cluster *c)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < c->n_endpoints; i++) {
        n += c->endpoints[i] != NULL ? c->endpoints[i]->in_flight : 0;
    }
    return n;
}

/* ---- what waits in the wrong place -------------------------------------- */

void cluster_reroute_later(struct engine *e, struct cluster *c)
{
    c->reroute = true;
    e->reroute = true;
}

/* A request that waits for the topology as a whole, and need not any more; or
 * NULL. */
static struct request *whole_one(const struct upstream *u)
{
    const struct cluster *c = u->endpoint->cluster;
    if (!u->endpoint->limbo || c->slots == NULL ||
        c->topology->n_primaries == 0) {
        return NULL;
    }
    LIST_FOR_EACH (node, &u->waiting) {
        struct request *r = CONTAINER_OF(node, struct request, place);
        if (redis_wants_all_nodes(r) && !r->fragment) {
            return r;
        }
    }
    return NULL;
}

/* What u lost with its connection may still arrive there. As long as u's node
 * has its place in the cluster it would take effect, at the latest when the
 * slot comes back: a replay waits for the fence (redis.md §4 rule 5). */
static bool awaits_fence(const struct upstream *u, const struct request *r)
{
    return r->write_replay && r->upstream == u && u->fence_needed &&
           !u->endpoint->fallen && u->endpoint->cluster->slots != NULL;
}

static bool has_slot(const struct request *r)
{
    return r->slot != SLOT_NONE && r->slot != SLOT_NOT_LOOKED_FOR;
}

/* Whether r would overtake what its client has in front of it and leaves on u
 * (rule 7). */
static bool would_overtake(const struct upstream *u, const struct request *r)
{
    LIST_FOR_EACH (node, &r->downstream->requests) {
        const struct request *q = CONTAINER_OF(node, struct request, arrival);
        if (q == r) {
            break;
        }
        if (q->upstream == u && q->slot == r->slot && has_slot(r)) {
            return true;
        }
    }
    return false;
}

/* Move what waits on u for another lane there, in its order. */
static void reroute_lane(struct engine *e, struct upstream *u)
{
    struct request *whole;
    while ((whole = whole_one(u)) != NULL) {
        struct downstream *d = whole->downstream;
        downstream_recall(e, d, NULL); /* it can be taken apart now */
        downstream_later(e, d);
        if (downstream_gone(d)) {
            break; /* without memory */
        }
    }
    bool some_stay = !list_empty(&u->in_flight);
    for (struct list_node *node = u->waiting.next, *next; node != &u->waiting;
         node = next) {
        struct request *r = CONTAINER_OF(node, struct request, place);
        if (downstream_gone(r->downstream) || !gather_explode_waiting(e, r)) {
            next = node->next;
            continue;
        }
        next = node->next;
        struct upstream *to = redis_lane(e, r->downstream, r);
        if (to == NULL || to == u || awaits_fence(u, r) ||
            (some_stay && would_overtake(u, r))) {
            some_stay = true;
            continue;
        }
        upstream_unhold(e, u, r);
        request_move(r, REQUEST_NEW);
        r->write_replay = false; /* the old server has lost its role: what it
                                    may still get is refused, or lost with it */
        upstream_hold(e, to, r, &to->waiting);
    }
}

static bool serves(const struct endpoint *p)
{
    const struct cluster *c = p->cluster;
    return c->slots != NULL ? p->n_slots > 0 && !p->limbo : p == c->primary;
}

/* The first request that goes over its client's own lane wherever that leads. */
static struct request *first_own(const struct upstream *u)
{
    LIST_FOR_EACH (node, &u->waiting) {
        struct request *r = CONTAINER_OF(node, struct request, place);
        if (r->own_lane || r->in_block) {
            return r;
        }
    }
    return NULL;
}

static bool any_awaits_fence(const struct upstream *u)
{
    LIST_FOR_EACH (node, &u->waiting) {
        if (awaits_fence(u, CONTAINER_OF(node, struct request, place))) {
            return true;
        }
    }
    return false;
}

/* A lane of a client's own goes where what needs it goes now, or away from a
 * server that has no part in the cluster any more. */
static void rehome(struct engine *e, struct upstream *u)
{
    struct downstream *d = u->owner;
    struct request *r = first_own(u);
    bool lost = !serves(u->endpoint);
    if (u->owner_takes_all) {
        r = NULL; /* wherever the primary is */
    }
    uint16_t slot = block_log_slot(d); /* begun again in front of what waits */
    struct cluster *c = u->endpoint->cluster;
    struct endpoint *to = c->slots != NULL && slot != SLOT_NONE
                              ? c->endpoints[c->slots[slot - 1]]
                          : r != NULL ? redis_endpoint(e, d, r)
                          : lost      ? redis_any_endpoint(d)
                                      : u->endpoint;
    if (to != u->endpoint && !any_awaits_fence(u)) {
        upstream_rehome(e, u, to);
    }
}

/* A lane on which something waits that could go, or NULL. */
static struct upstream *lane_with_work(const struct cluster *c)
{
    for (uint32_t i = 0; i < c->n_endpoints; i++) {
        const struct endpoint *p = c->endpoints[i];
        if (p == NULL || p->limbo) {
            continue;
        }
        LIST_FOR_EACH (node, &p->lanes) {
            struct upstream *u =
                CONTAINER_OF(node, struct upstream, endpoint_node);
            bool open = u->state == UPSTREAM_UP && upstream_has_room(u);
            if (!list_empty(&u->waiting) &&
                (open || u->state == UPSTREAM_IDLE)) {
                return u;
            }
        }
    }
    return NULL;
}

static void move_waiting(struct engine *e, struct cluster *c)
{
    for (uint32_t i = 0; i < c->n_endpoints; i++) {
        struct endpoint *p = c->endpoints[i];
        if (p == NULL) {
            continue;
        }
        for (struct list_node *node = p->lanes.next, *next; node != &p->lanes;
             node = next) {
            next = node->next;
            struct upstream *u =
                CONTAINER_OF(node, struct upstream, endpoint_node);
            if (u->subscribes && u->state != UPSTREAM_UP) {
                subscriber_rehome(e, u);
            } else if (u->owner != NULL && u->state != UPSTREAM_UP) {
                rehome(e, u);
            }
            if (!list_empty(&u->waiting)) {
                reroute_lane(e, u);
            }
        }
    }
}

/* Requests for which no server is fit: perhaps one is soon. */
static bool limbo_is_used(const struct cluster *c)
{
    LIST_FOR_EACH (node, &c->endpoints[0]->lanes) {
        const struct upstream *u =
            CONTAINER_OF(node, struct upstream, endpoint_node);
        if (!list_empty(&u->waiting)) {
            return true;
        }
    }
    return false;
}

static void reroute(struct engine *e, struct cluster *c)
{
    struct upstream *u;
    c->reroute = false;
    move_waiting(e, c);
    if (c->topology != NULL && limbo_is_used(c)) {
        topology_want(e, c, "requests wait for a server");
    }
    /* Sending may end other lanes, so that each is looked for anew. */
    while (!e->ending && (u = lane_with_work(c)) != NULL) {
        upstream_want(e, u);
        upstream_flush(e, u);
    }
}

void clusters_reroute(struct engine *e)
{
    e->reroute = false;
    for (size_t i = 0; i < e->config->n_upstreams; i++) {
        if (e->clusters[i].reroute) {
            reroute(e, &e->clusters[i]);
        }
    }
}
