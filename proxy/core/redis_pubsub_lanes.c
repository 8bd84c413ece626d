/* Subscriptions in front of a cluster (redis.md §7): they have connections of
 * their own, one for shard channels to each node that has some, and one more for
 * all else to any primary. So the client can do at other nodes what it likes,
 * and sees one server that has all channels. */
#include <assert.h>
#include <stdio.h>

#include "parser/keyslot.h"
#include "proxy/core/lane_pool.h"
#include "proxy/core/redis_pubsub.h"
#include "proxy/core/state.h"
#include "proxy/core/subscriber.h"

enum {
    PLACE_AGAIN_US = 100 * 1000 /* what no node would have is tried again */
};

static struct cluster *cluster_of(const struct downstream *d)
{
    return d->listener->cluster;
}

void subscriber_put(struct subscriber *s,
                    struct subscription *name,
                    struct upstream *u)
{
    if (name->lane != NULL) {
        name->lane->n_subscribed--;
    } else if (name->adrift) {
        s->n_adrift--;
    }
    name->lane = u;
    name->adrift = u == NULL;
    if (u != NULL) {
        u->n_subscribed++;
    } else {
        s->n_adrift++;
    }
}

/* ---- lanes ----------------------------------------------------------------- */

static struct upstream *shard_lane(const struct subscriber *s,
                                   const struct endpoint *p)
{
    for (struct upstream *u = s->lanes; u != NULL; u = u->next_listener) {
        if (u != s->plain && u->endpoint == p) {
            return u;
        }
    }
    return NULL;
}

static struct upstream *any_shard_lane(const struct subscriber *s)
{
    return s->lanes != NULL && s->lanes == s->plain ? s->plain->next_listener
                                                    : s->lanes;
}

struct upstream *subscriber_lanes(const struct downstream *d)
{
    const struct subscriber *s = subscriber_of(d);
    return s != NULL ? s->lanes : NULL;
}

static bool is_for_shards(const struct subscriber *s, const struct request *r)
{
    return r != NULL && r->task == TASK_SUBSCRIBE &&
           s->kind == SUBSCRIPTION_SHARD;
}

struct upstream *subscriber_find_lane(struct engine *e,
                                      struct downstream *d,
                                      struct request *r,
                                      struct endpoint **p)
{
    struct subscriber *s = subscriber_of(d);
    *p = redis_endpoint(e, d, r);
    if (!is_for_shards(s, r)) {
        bool ping = r->task != TASK_SUBSCRIBE && s->plain == NULL;
        return ping ? s->lanes : s->plain;
    }
    return r->slot == SLOT_NONE ? any_shard_lane(s) : shard_lane(s, *p);
}

void subscriber_add_lane(struct upstream *u, const struct request *r)
{
    struct subscriber *s = subscriber_of(u->owner);
    u->subscribes = true;
    u->n_subscribed = 0;
    u->next_listener = s->lanes;
    s->lanes = u;
    if (r != NULL && !is_for_shards(s, r)) {
        s->plain = u;
    }
}

struct upstream *subscriber_lane(struct engine *e,
                                 struct downstream *d,
                                 struct request *r)
{
    struct endpoint *p = NULL;
    struct upstream *u = subscriber_find_lane(e, d, r, &p);
    bool full = false;
    if (u == NULL && (u = lane_pool_take(e, d, p, true, &full)) != NULL) {
        subscriber_add_lane(u, r);
    }
    return u;
}

static void leave_lane(struct engine *e,
                       struct subscriber *s,
                       struct upstream *u)
{
    struct upstream **at = &s->lanes;
    while (*at != u) {
        at = &(*at)->next_listener;
    }
    *at = u->next_listener;
    u->next_listener = NULL;
    u->subscribes = false;
    s->plain = s->plain == u ? NULL : s->plain;
    downstream_resume(e, u);
    if (upstream_is_idle(u)) {
        lane_pool_give(e, u);
    } else {
        u->owner = NULL;
        upstream_free(e, u, "its client needs it no more");
    }
}

void subscriber_leave_lanes(struct engine *e, struct subscriber *s)
{
    while (s->lanes != NULL) {
        s->lanes->dirty = true;
        leave_lane(e, s, s->lanes);
    }
}

bool subscriber_pong(struct engine *e,
                     struct upstream *u,
                     struct request *r,
                     const struct message *m)
{
    static const char pong[] = "*2\r\n$4\r\npong\r\n";
    bool plain = m->type == '+';
    if (r->task != TASK_FORWARD || (!plain && m->type != '$')) {
        return false;
    }
    struct chain rest = { 0 };
    chain_move(&rest, &u->partial);
    bool made = chain_push_copy(e->memory, &r->reply, span_of(pong));
    if (plain) {
        made = made &&
               chain_push_copy(e->memory, &r->reply, span_of("$0\r\n\r\n"));
    } else if (made) {
        chain_move(&r->reply, &rest);
        made = chain_push_part(e->memory, &r->reply, m->buf, m->offset, m->len);
    }
    chain_clear(e->memory, &rest);
    if (made) {
        downstream_answer(e, r);
    } else {
        e->stats.limit_memory++;
        downstream_close(e, r->downstream, "out of memory for its reply");
    }
    return true;
}

/* ---- shard channels find their node ------------------------------------------ */

static uint16_t slot_of(const struct subscription *name)
{
    return keyslot(subscription_name(name));
}

bool subscriber_say_shards(struct engine *e,
                           struct upstream *u,
                           enum say_mode mode)
{
    const struct subscriptions *names =
        &subscriber_of(u->owner)->names[SUBSCRIPTION_SHARD];
    struct list_node *at = names->all.next;
    while (at != &names->all) {
        if (!subscriber_say_batch(e, u, names, span_of("SSUBSCRIBE"), &at,
                                  mode)) {
            return false;
        }
    }
    return true;
}

static void place_later(struct engine *e, struct downstream *d)
{
    struct subscriber *s = subscriber_of(d);
    s->hops = 0;
    s->retry_us = e->now_us + PLACE_AGAIN_US;
    downstream_wake_at(e, d, s->retry_us);
}

/* Put name where its slot is. */
static struct upstream *place(struct engine *e,
                              struct downstream *d,
                              struct subscription *name)
{
    struct cluster *c = cluster_of(d);
    struct subscriber *s = subscriber_of(d);
    struct endpoint *p = c->endpoints[c->slots[slot_of(name)]];
    if (p->limbo) {
        return NULL; /* nobody has it, or that is not known */
    }
    struct upstream *u = shard_lane(s, p);
    bool full = false;
    if (u == NULL && (u = lane_pool_take(e, d, p, true, &full)) != NULL) {
        subscriber_add_lane(u, NULL);
    }
    if (u != NULL) {
        subscriber_put(s, name, u);
        name->confirmed = false;
    }
    return u;
}

static void place_adrift(struct engine *e, struct downstream *d)
{
    struct subscriber *s = subscriber_of(d);
    s->retry_us = 0;
    LIST_FOR_EACH (node, &s->names[SUBSCRIPTION_SHARD].all) {
        struct subscription *name = subscription_of(node);
        if (name->adrift && place(e, d, name) == NULL) {
            topology_want(e, cluster_of(d), "a channel's node is not known");
            place_later(e, d);
            break;
        }
    }
    for (struct upstream *u = s->lanes, *next; u != NULL; u = next) {
        next = u->next_listener;
        if (u != s->plain && u->state == UPSTREAM_UP) {
            u->listens = u->listens || u->session->resp == 2;
            subscriber_say_shards(e, u, SAY_UNCONFIRMED);
        } else {
            upstream_want(e, u);
        }
    }
}

/* The session of its client is another one now. */
static void renew_session(struct engine *e, struct upstream *u)
{
    struct session *session = session_copy(e, downstream_session(e, u->owner));
    if (session == NULL) {
        e->stats.limit_memory++;
        downstream_close(e, u->owner, "out of memory for its session");
        return;
    }
    session_free(e, u->session);
    u->session = session;
    if (u->link != NULL) {
        upstream_lost(e, u,
                      &(struct upstream_loss){
                          .why = "its client's session has changed",
                          .tell = true });
    }
}

static bool is_used(const struct subscriber *s, const struct upstream *u)
{
    /* With too many of them it is not known where each is. */
    return !upstream_is_idle(u) || u->n_subscribed > 0 || s->too_many ||
           (u == s->plain && (s->monitors || s->n[SUBSCRIPTION_CHANNEL] > 0 ||
                              s->n[SUBSCRIPTION_PATTERN] > 0));
}

void subscriber_work(struct engine *e, struct downstream *d)
{
    struct subscriber *s = subscriber_of(d);
    if (s == NULL || cluster_of(d)->slots == NULL || d->closing) {
        return;
    }
    if (s->n_adrift > 0 && e->now_us >= s->retry_us) {
        place_adrift(e, d);
    }
    const struct session *session = downstream_session(e, d);
    for (struct upstream *u = s->lanes, *next; u != NULL; u = next) {
        next = u->next_listener;
        if (!is_used(s, u) && !d->alone) {
            leave_lane(e, s, u);
        } else if (!session_same_lane(u->session, session)) {
            renew_session(e, u);
        }
    }
}

uint64_t subscriber_retry_at(struct engine *e, struct downstream *d)
{
    const struct subscriber *s = subscriber_of(d);
    if (s == NULL || s->retry_us == 0) {
        return UINT64_MAX;
    }
    if (e->now_us >= s->retry_us) {
        downstream_later(e, d);
        return UINT64_MAX;
    }
    return s->retry_us;
}

void subscriber_follow(struct engine *e,
                       struct upstream *u,
                       struct subscription *name)
{
    struct downstream *d = u->owner;
    subscriber_put(subscriber_of(d), name, NULL);
    topology_want(e, cluster_of(d), "a shard channel has moved");
    downstream_later(e, d);
}

bool subscriber_refused(struct engine *e, struct upstream *u, struct span reply)
{
    struct downstream *d = u->owner;
    struct subscriber *s = subscriber_of(d);
    struct redis_error error = redis_error_parse(reply);
    bool moved = error.kind == REDIS_ERROR_MOVED;
    const char *why = NULL;
    if (!u->subscribes || !redis_is_redirect(error.kind)) {
        return false;
    }
    LIST_FOR_EACH (node, &s->names[SUBSCRIPTION_SHARD].all) {
        struct subscription *name = subscription_of(node);
        if (name->lane == u && !name->confirmed &&
            (!moved || slot_of(name) == error.slot)) {
            subscriber_put(s, name, NULL);
        }
    }
    s->hops++;
    if (!moved || topology_redirect(e, u, &error, &why) == NULL ||
        s->hops > cluster_of(d)->config->redirects_max) {
        topology_want(e, cluster_of(d), "a node refused a shard channel");
        place_later(e, d);
    }
    downstream_later(e, d);
    return true;
}

void subscriber_rehome(struct engine *e, struct upstream *u)
{
    struct downstream *d = u->owner;
    struct cluster *c = cluster_of(d);
    struct subscriber *s = subscriber_of(d);
    if (u == s->plain) {
        bool serves = u->endpoint->n_slots > 0 && !u->endpoint->limbo &&
                      u->endpoint->down_since_us == 0;
        struct endpoint *to = redis_any_endpoint(d);
        if (!serves && to != u->endpoint) {
            upstream_rehome(e, u, to);
        }
        return;
    }
    LIST_FOR_EACH (node, &s->names[SUBSCRIPTION_SHARD].all) {
        struct subscription *name = subscription_of(node);
        if (name->lane == u && c->slots[slot_of(name)] != u->endpoint->index) {
            subscriber_put(s, name, NULL);
        }
    }
    downstream_later(e, d); /* it places them, or gives the lane up */
}

/* ---- SUNSUBSCRIBE of all ------------------------------------------------------- */

bool subscriber_leave_shards(struct engine *e,
                             struct downstream *d,
                             struct request *r)
{
    struct subscriber *s = subscriber_of(d);
    struct subscriptions *names = &s->names[SUBSCRIPTION_SHARD];
    struct upstream *first = any_shard_lane(s);
    bool several =
        s->n_adrift > 0 || (first != NULL && first->n_subscribed != names->n);
    if (!several) {
        return false;
    }
    bool resp3 = downstream_session(e, d)->resp == 3;
    uint32_t left = names->n;
    LIST_FOR_EACH (node, &names->all) {
        struct span name = subscription_name(subscription_of(node));
        char head[64];
        char tail[32];
        snprintf(head, sizeof(head), "%c3\r\n$12\r\nsunsubscribe\r\n$%zu\r\n",
                 resp3 ? '>' : '*', name.len);
        snprintf(tail, sizeof(tail), "\r\n:%u\r\n", (unsigned)--left);
        if (!chain_push_copy(e->memory, &r->reply, span_of(head)) ||
            !chain_push_copy(e->memory, &r->reply, name) ||
            !chain_push_copy(e->memory, &r->reply, span_of(tail))) {
            e->stats.limit_memory++;
            downstream_close(e, d, "out of memory for its reply");
            return true;
        }
    }
    for (struct upstream *u = s->lanes, *next; u != NULL; u = next) {
        next = u->next_listener;
        if (u != s->plain) {
            u->dirty = true;
            u->listens = true; /* messages may still be on their way */
            leave_lane(e, s, u);
        }
    }
    subscriptions_clear(e->memory, names);
    s->n[SUBSCRIPTION_SHARD] = 0;
    s->n_adrift = 0;
    subscriber_mind(e, d);
    cluster_of(d)->stats.local_replies++;
    r->quiet = false;
    downstream_answer(e, r);
    return true;
}
