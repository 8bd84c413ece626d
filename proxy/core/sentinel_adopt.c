/* What is made of the words of sentinels (redis.md §10): the primary, its
 * replicas, and more sentinels. */
#include <stdio.h>

#include "config/nodes.h"
#include "proxy/core/allow_nodes.h"
#include "proxy/core/lane_set.h"
#include "proxy/core/sentinel.h"
#include "proxy/core/state.h"
#include "proxy/core/topology_adopt.h"

enum {
    SETTLED_US = 10 * 1000 * 1000,  /* until all sentinels know of a switch */
    PROMOTION_US = 3 * 1000 * 1000, /* until a failover is done, or failed */
    UNHEARD_US = 60 * 1000 * 1000,  /* a sentinel nobody has called alive for so
                                      long is forgotten */
    REPLICAS_MAX = 256
};

static struct address address_of(const struct view_node *node)
{
    struct address a = { .port = node->port };
    snprintf(a.host, sizeof(a.host), "%s", node->host);
    return a;
}

static void trace_refused(struct engine *e,
                          struct cluster *c,
                          const struct address *address,
                          const char *why)
{
    engine_trace(e, &(struct trace_record){ .type = TRACE_TOPOLOGY,
                                            .upstream = c->config->name,
                                            .address = address,
                                            .to = "refused",
                                            .reason = why });
}

bool sentinel_address(struct engine *e,
                      struct topology *t,
                      const struct view_node *node,
                      struct address *address)
{
    struct cluster *c = t->cluster;
    *address = address_of(node);
    if (cluster_find(c, address) != NULL) {
        return true;
    }
    const char *why = allow_nodes_refusal(e->config, c, address);
    if (why != NULL) {
        c->stats.nodes_refused++;
        trace_refused(e, c, address, why);
    }
    return why == NULL;
}

/* ---- the primary ---------------------------------------------------------------- */

/* Lanes that were opened to a replica were not asked for its role. */
static void close_unverified(struct engine *e, struct endpoint *p)
{
    for (struct list_node *node = p->lanes.next, *next; node != &p->lanes;
         node = next) {
        next = node->next;
        struct upstream *u = CONTAINER_OF(node, struct upstream, endpoint_node);
        if (u->state == UPSTREAM_UP || u->state == UPSTREAM_HANDSHAKE) {
            upstream_lost(e, u,
                          &(struct upstream_loss){
                              .why = "the server has become the primary",
                              .tell = true });
        }
    }
}

/* No more is sent to the server that is about to be replaced. What its shared
 * lanes have in flight may still be answered. */
static void close_private(struct engine *e, struct endpoint *p)
{
    for (struct list_node *node = p->lanes.next, *next; node != &p->lanes;
         node = next) {
        next = node->next;
        struct upstream *u = CONTAINER_OF(node, struct upstream, endpoint_node);
        if (u->owner != NULL && u->state == UPSTREAM_UP) {
            upstream_lost(e, u,
                          &(struct upstream_loss){
                              .why = "another server is the primary",
                              .tell = true });
        }
    }
}

static const char *adopt(struct engine *e,
                         struct topology *t,
                         const struct address *address,
                         uint64_t epoch,
                         enum turn turn,
                         const char *why)
{
    struct cluster *c = t->cluster;
    struct sentinel *s = t->sentinel;
    struct endpoint *before = c->primary;
    struct endpoint *p = topology_endpoint(e, c, address);
    if (p == NULL) {
        return "the primary's address can't be used";
    }
    p->known = true;
    p->online = true;
    p->near = endpoint_zone_is_near(c, &p->address, NULL);
    if (p == before) {
        s->confirmed = s->confirmed || epoch >= s->epoch;
        s->epoch = epoch > s->epoch ? epoch : s->epoch;
        return NULL;
    }
    s->epoch = epoch;
    s->adopted_us = e->now_us;
    s->confirmed = turn == TURN_IS_DONE;
    s->lists_us = 0;
    before->online = false; /* until it is called so again */
    c->stats.primary_changes += !before->limbo;
    close_unverified(e, p);
    topology_set_primary(e, c, p, turn == TURN_IS_DONE, why);
    if (turn == TURN_BEGINS && !before->limbo) {
        close_private(e, before);
    }
    return NULL;
}

/* What several sentinels have said alike. */
struct opinion {
    const struct address *primary; /* NULL: none */
    uint64_t epoch;
    uint32_t votes;
};

/* The latest configuration wins, as it does among the sentinels; of several
 * opinions that are equally new the one of most of them. */
static struct opinion best_opinion(const struct topology *t)
{
    const struct sentinel *s = t->sentinel;
    struct opinion best = { 0 };
    for (uint32_t i = 0; i < s->n_watchers; i++) {
        const struct watcher *w = &s->watchers[i];
        struct opinion o = { .primary = &w->primary, .epoch = w->epoch };
        if (!w->said || w->primary.port == 0) {
            continue;
        }
        for (uint32_t k = 0; k < s->n_watchers; k++) {
            const struct watcher *other = &s->watchers[k];
            o.votes += other->said && other->epoch == w->epoch &&
                       node_equal(&other->primary, &w->primary);
        }
        bool in_force =
            cluster_find(t->cluster, o.primary) == t->cluster->primary;
        if (best.primary == NULL || o.epoch > best.epoch ||
            (o.epoch == best.epoch &&
             (o.votes > best.votes || (o.votes == best.votes && in_force)))) {
            best = o;
        }
    }
    return best;
}

/* Whether an opinion is from before the last switch: not every sentinel learns
 * of it at once, and the server that was the primary still says it is. */
static bool is_behind(const struct engine *e,
                      const struct topology *t,
                      const struct opinion *o)
{
    const struct sentinel *s = t->sentinel;
    const struct endpoint *primary = t->cluster->primary;
    uint64_t limit_us =
        s->confirmed && primary->down_since_us == 0 ? SETTLED_US : PROMOTION_US;
    return o->epoch < s->epoch && !primary->limbo &&
           e->now_us - s->adopted_us < limit_us;
}

/* Why nobody is the primary. */
static const char *nobody(const struct sentinel *s)
{
    for (uint32_t i = 0; i < s->n_watchers; i++) {
        if (s->watchers[i].said && s->watchers[i].refused) {
            return "allow_nodes does not permit the primary that the sentinels "
                   "name";
        }
    }
    return "no sentinel knows a primary by master_name";
}

const char *sentinel_judge(struct engine *e, struct topology *t, bool final)
{
    struct opinion best = best_opinion(t);
    if (best.primary == NULL) {
        return nobody(t->sentinel);
    }
    bool agreed = best.votes >= 2;
    if ((!agreed && !final) || is_behind(e, t, &best)) {
        return NULL;
    }
    struct address address = *best.primary;
    return adopt(e, t, &address, best.epoch, TURN_IS_DONE,
                 "the sentinels say so");
}

void sentinel_turned(struct engine *e,
                     struct topology *t,
                     enum turn turn,
                     const struct view_node *from,
                     const struct view_node *to)
{
    struct cluster *c = t->cluster;
    struct sentinel *s = t->sentinel;
    struct address before = address_of(from);
    struct address after = address_of(to);
    topology_want(e, c, "a sentinel tells of a switch");
    if (cluster_find(c, &after) == c->primary) {
        s->confirmed = s->confirmed || turn == TURN_IS_DONE;
        return;
    }
    /* From another server than ours: an old story, or part of a new one. */
    if (cluster_find(c, &before) == c->primary &&
        sentinel_address(e, t, to, &after)) {
        adopt(e, t, &after, s->epoch + 1, turn,
              turn == TURN_BEGINS ? "a sentinel tells it to be the primary"
                                  : "a sentinel tells of a switch");
    }
}

void sentinel_primary_up(struct engine *e, struct cluster *c)
{
    for (uint32_t i = 1; i < c->n_endpoints; i++) {
        struct endpoint *p = c->endpoints[i];
        if (p != NULL && p != c->primary && !p->sentinel && !p->wanted &&
            p->lanes_up > 0) {
            topology_leave(e, p, true, "another server is the primary");
        }
    }
}

/* ---- replicas --------------------------------------------------------------------- */

static bool is_other_server(const struct cluster *c, const struct endpoint *p)
{
    return p != NULL && !p->limbo && !p->sentinel && p != c->primary;
}

/* Those that may be read from get lanes, if reads may go there at all. */
static void settle_replicas(struct engine *e, struct cluster *c)
{
    bool used = c->config->read_from != READ_PRIMARY;
    for (uint32_t i = 1; i < c->n_endpoints; i++) {
        struct endpoint *p = c->endpoints[i];
        if (!is_other_server(c, p)) {
            continue;
        }
        topology_set_role(e, c, p, p->known ? NODE_REPLICA : NODE_UNKNOWN);
        if (used && p->known && p->online) {
            if (!p->wanted || p->lanes_up + p->lanes_connecting == 0) {
                topology_join(e, p);
            }
        } else if (p->wanted) {
            topology_leave(e, p, false,
                           "the sentinels do not call it a replica "
                           "that can be reached");
            cluster_reroute_later(e, c);
        }
    }
    topology_forget_strangers(e, c);
}

void sentinel_take_replicas(struct engine *e,
                            struct topology *t,
                            const struct watcher *from,
                            struct span reply)
{
    struct cluster *c = t->cluster;
    const char *error = "malformed";
    struct view *v = sentinel_list_parse(reply, &error);
    if (v == NULL) {
        c->stats.topology_bad_answers++;
        topology_trace(e, c, from->endpoint, "replicas", "refused", error);
        return;
    }
    if (cluster_find(c, &from->primary) != c->primary) {
        view_free(v); /* it is not of this primary that it speaks */
        return;
    }
    for (uint32_t i = 1; i < c->n_endpoints; i++) {
        if (is_other_server(c, c->endpoints[i])) {
            c->endpoints[i]->known = false;
        }
    }
    for (uint32_t i = 0; i < v->n_nodes && i < REPLICAS_MAX; i++) {
        struct address address = address_of(&v->nodes[i]);
        struct endpoint *p = topology_endpoint(e, c, &address);
        if (is_other_server(c, p) && v->nodes[i].role == NODE_REPLICA) {
            p->known = true;
            p->online = v->nodes[i].online;
            p->near = endpoint_zone_is_near(c, &p->address, NULL);
            memcpy(p->id, v->nodes[i].id, sizeof(p->id));
        }
    }
    view_free(v);
    settle_replicas(e, c);
}

/* ---- more sentinels ---------------------------------------------------------------- */

/* Whether an endpoint is at that address, by the name of it or by its IP. */
static bool is_at(const struct endpoint *p, const struct address *address)
{
    if (node_equal(&p->address, address)) {
        return true;
    }
    for (unsigned i = 0; i < p->n_resolved; i++) {
        if (node_equal(&p->resolved[i], address)) {
            return true;
        }
    }
    return false;
}

static struct watcher *find_watcher(struct sentinel *s,
                                    const struct address *address)
{
    for (uint32_t i = 0; i < s->n_watchers; i++) {
        if (is_at(s->watchers[i].endpoint, address)) {
            return &s->watchers[i];
        }
    }
    return NULL;
}

static void learn_sentinel(struct engine *e,
                           struct topology *t,
                           const struct address *address)
{
    struct cluster *c = t->cluster;
    struct sentinel *s = t->sentinel;
    const char *why = allow_nodes_refusal(e->config, c, address);
    if (why != NULL) {
        c->stats.nodes_refused++;
        trace_refused(e, c, address, why);
        return;
    }
    struct endpoint *p =
        s->n_watchers < SENTINELS_MAX ? cluster_add(e, c, address) : NULL;
    if (p == NULL || !sentinel_add(e, t, p)) {
        trace_refused(e, c, address, "too many sentinels, or out of memory");
        return;
    }
    topology_trace(e, c, p, NULL, "sentinel", "another sentinel tells of it");
    struct upstream *u = lane_set_lane(e, s->lanes, p);
    if (u != NULL) {
        upstream_want(e, u);
    }
}

void sentinel_take_sentinels(struct engine *e,
                             struct topology *t,
                             struct span reply)
{
    const char *error = "malformed";
    struct view *v = sentinel_list_parse(reply, &error);
    if (v == NULL) {
        t->cluster->stats.topology_bad_answers++;
        topology_trace(e, t->cluster, NULL, "sentinels", "refused", error);
        return;
    }
    for (uint32_t i = 0; i < v->n_nodes && i < SENTINELS_MAX; i++) {
        struct address address = address_of(&v->nodes[i]);
        struct watcher *w = find_watcher(t->sentinel, &address);
        if (w != NULL) {
            w->listed_us = v->nodes[i].online ? e->now_us : w->listed_us;
        } else if (v->nodes[i].online) {
            learn_sentinel(e, t, &address);
        }
    }
    view_free(v);
}

/* A sentinel that was learnt by its IP, and is configured by its name, which
 * could not be resolved then. */
static bool is_double(const struct sentinel *s, const struct endpoint *p)
{
    for (uint32_t i = 0; i < s->n_watchers; i++) {
        const struct endpoint *other = s->watchers[i].endpoint;
        if (other != p && other->seed && is_at(other, &p->address)) {
            return true;
        }
    }
    return false;
}

void sentinel_forget(struct engine *e, struct topology *t)
{
    struct sentinel *s = t->sentinel;
    for (uint32_t i = 0; i < s->n_watchers;) {
        struct watcher *w = &s->watchers[i];
        struct endpoint *p = w->endpoint;
        bool dead = p->lanes_up == 0 && e->now_us - w->listed_us >= UNHEARD_US;
        if (p->seed || !(dead || is_double(s, p))) {
            i++;
            continue;
        }
        p->known = false;
        topology_leave(e, p, true, "the sentinel is not needed any more");
        *w = s->watchers[--s->n_watchers];
    }
    topology_forget_strangers(e, t->cluster);
}
