/* The topology of a Redis Cluster: when it is asked for, and of whom
 * (redis.md §9). What is made of the answers is in topology_adopt.c. */
#include "proxy/core/topology.h"

#include <assert.h>
#include <stdio.h>

#include "proxy/core/lane_set.h"
#include "proxy/core/sentinel.h"
#include "proxy/core/state.h"
#include "proxy/core/topology_adopt.h"

enum {
    ANSWER_TIMEOUT_US = 500 * 1000,
    HASTE_INTERVALS = 2 /* topology_min_intervals at most between two questions
                           while requests wait */
};

enum step {
    STEP_ID,
    STEP_INFO,
    STEP_SHARDS,
    STEP_SLOTS,
    STEP_COUNT,
    STEP_LAG = UINT8_MAX /* of a replica; not part of a question */
};

/* ---- beginning and end ----------------------------------------------------- */

static bool add_seeds(struct engine *e, struct cluster *c)
{
    for (size_t i = 0; i < c->config->n_nodes; i++) {
        struct endpoint *p = cluster_add(e, c, &c->config->nodes[i]);
        if (p == NULL) {
            return false;
        }
        p->seed = true;
        p->wanted = true;
        p->sentinel = c->config->type == UPSTREAM_SENTINEL;
    }
    return true;
}

bool topology_init(struct engine *e, struct cluster *c)
{
    struct topology *t = memory_take(e->memory, sizeof(*t));
    if (t == NULL) {
        return false;
    }
    c->topology = t;
    t->cluster = c;
    t->timer.kind = TIMER_TOPOLOGY;
    struct address nowhere = { 0 };
    struct endpoint *limbo = cluster_add(e, c, &nowhere);
    if (limbo == NULL || !engine_reserve_timer(e)) {
        return false;
    }
    assert(limbo->index == 0);
    limbo->limbo = true;
    snprintf(limbo->address.host, sizeof(limbo->address.host), "%s",
             c->config->type == UPSTREAM_CLUSTER ? "cluster" : "sentinel");
    if (c->config->type == UPSTREAM_CLUSTER) {
        c->slots = memory_take(e->memory, KEYSLOT_COUNT * sizeof(*c->slots));
        return c->slots != NULL && add_seeds(e, c);
    }
    c->primary = limbo;
    return add_seeds(e, c) && sentinel_init(e, c);
}

static void drop_answers(struct topology *t)
{
    for (uint32_t i = 0; i < t->n_answers; i++) {
        view_free(t->answers[i].view);
    }
    memset(t->answers, 0, sizeof(t->answers));
    t->n_answers = 0;
    t->deadline_us = 0;
}

void topology_fini(struct engine *e, struct cluster *c)
{
    struct topology *t = c->topology;
    if (t == NULL) {
        return;
    }
    timer_clear(&e->timers, &t->timer);
    drop_answers(t);
    sentinel_fini(e, t);
    memory_give(e->memory, t->primaries);
    memory_give(e->memory, t);
    c->topology = NULL;
}

static void wake_at(struct engine *e, struct topology *t, uint64_t at_us)
{
    if (t->timer.place == TIMER_OFF || t->timer.at_us > at_us) {
        timer_set(&e->timers, &t->timer, at_us);
    }
}

void topology_start(struct engine *e, struct cluster *c)
{
    if (c->topology->sentinel != NULL) {
        sentinel_start(e, c->topology);
        return;
    }
    endpoint_failed(e, c->endpoints[0], "the topology is not known yet");
    for (uint32_t i = 1; i < c->n_endpoints; i++) {
        cluster_open_lane(e, c->endpoints[i]);
    }
    topology_want(e, c, "it is not known yet");
}

/* ---- asking ----------------------------------------------------------------- */

void topology_want(struct engine *e, struct cluster *c, const char *why)
{
    struct topology *t = c->topology;
    if (t == NULL || e->ending) {
        return;
    }
    if (!t->wanted) {
        t->wanted = true;
        t->why = why;
    }
    if (t->deadline_us == 0) {
        wake_at(e, t, t->next_us > e->now_us ? t->next_us : e->now_us);
    }
}

/* Whether u has had something in flight and heard nothing for so long. */
static bool is_silent(const struct engine *e,
                      const struct upstream *u,
                      uint64_t limit_us)
{
    if (u->state != UPSTREAM_UP || list_empty(&u->in_flight)) {
        return false;
    }
    const struct request *r =
        CONTAINER_OF(u->in_flight.next, struct request, place);
    bool blocks =
        r->command != NULL && (r->command->flags & COMMAND_BLOCKING) != 0;
    return !blocks && e->now_us - r->sent_us >= limit_us &&
           e->now_us - u->active_us >= limit_us;
}

/* A lane to p that can be asked, or NULL. */
static struct upstream *lane_to_ask(const struct engine *e,
                                    const struct endpoint *p)
{
    struct upstream *other = NULL;
    LIST_FOR_EACH (node, &p->lanes) {
        struct upstream *u = CONTAINER_OF(node, struct upstream, endpoint_node);
        if (u->state != UPSTREAM_UP || u->owner != NULL || u->unauthenticated ||
            !upstream_has_room(u) || is_silent(e, u, ANSWER_TIMEOUT_US / 2)) {
            continue;
        }
        if (u->set == p->cluster->base && !u->untold) {
            return u;
        }
        /* Others are of clients, whose user may be permitted less. */
        other = other == NULL || (other->untold && !u->untold) ? u : other;
    }
    return other;
}

static bool say(struct engine *e,
                const struct topology *t,
                struct upstream *u,
                uint32_t answer,
                enum step step,
                const char *bytes)
{
    if (!upstream_send_own(e, u, TASK_TOPOLOGY,
                           (uint8_t)(answer * STEP_COUNT + step),
                           span_of(bytes))) {
        return false;
    }
    /* The reply belongs to what was begun then, also that to a second try. */
    CONTAINER_OF(u->in_flight.prev, struct request, place)->arrived_us =
        t->asked_us;
    return true;
}

static const char my_id[] = "*2\r\n$7\r\nCLUSTER\r\n$4\r\nMYID\r\n";
static const char get_info[] = "*2\r\n$7\r\nCLUSTER\r\n$4\r\nINFO\r\n";
static const char get_shards[] = "*2\r\n$7\r\nCLUSTER\r\n$6\r\nSHARDS\r\n";
static const char get_slots[] = "*2\r\n$7\r\nCLUSTER\r\n$5\r\nSLOTS\r\n";

static void ask(struct engine *e, struct topology *t, struct upstream *u)
{
    enum {
        VERSION_WITH_SHARDS = 70000
    };
    uint32_t i = t->n_answers;
    bool old =
        u->endpoint->version != 0 && u->endpoint->version < VERSION_WITH_SHARDS;
    t->answers[i] = (struct topology_answer){ .from = u->endpoint };
    t->n_answers++;
    t->answers[i].open = say(e, t, u, i, STEP_ID, my_id) &&
                         say(e, t, u, i, STEP_INFO, get_info) &&
                         say(e, t, u, i, old ? STEP_SLOTS : STEP_SHARDS,
                             old ? get_slots : get_shards);
}

/* What follows a question that brought nothing. */
static void failed(struct engine *e, struct topology *t, const char *why)
{
    struct cluster *c = t->cluster;
    const struct upstream_config *config = c->config;
    snprintf(t->last_error, sizeof(t->last_error), "%s", why);
    endpoint_failed(e, c->endpoints[0], why);
    c->stats.topology_failures++;
    t->failures++;
    uint64_t interval_us = config->topology_min_interval_us;
    uint64_t cap_us = c->held > 0 || cluster_in_flight(c) > 0
                          ? interval_us * HASTE_INTERVALS
                          : config->backoff_cap_us * 2;
    for (uint32_t i = 1; i < t->failures && interval_us < cap_us; i++) {
        interval_us *= 2;
    }
    t->next_us = e->now_us + (interval_us < cap_us ? interval_us : cap_us);
    t->wanted = true;
    wake_at(e, t, t->next_us);
}

static void ask_some(struct engine *e, struct topology *t)
{
    struct cluster *c = t->cluster;
    uint32_t n = c->n_endpoints;
    uint32_t first = (uint32_t)rng_upto(&e->rng, n - 1);
    drop_answers(t);
    t->asked_us = e->now_us;
    memset(t->patched, 0, sizeof(t->patched));
    for (uint32_t i = 0; i < n && t->n_answers < TOPOLOGY_ASKED_MAX; i++) {
        struct endpoint *p = c->endpoints[(first + i) % n];
        struct upstream *u = p == NULL || p->limbo ? NULL : lane_to_ask(e, p);
        if (u != NULL) {
            ask(e, t, u);
        }
    }
}

/* Open lanes where there are none: to everybody when nobody can be asked, else
 * to the replicas of primaries that are out of reach, one of which may be about
 * to take over. */
static void open_lanes(struct engine *e, struct cluster *c, bool all)
{
    for (uint32_t i = 1; i < c->n_endpoints; i++) {
        struct endpoint *p = c->endpoints[i];
        if (p == NULL || p->lanes_up > 0) {
            continue;
        }
        bool candidate = p->role == NODE_REPLICA && p->known;
        if (all || (candidate && topology_shard_is_down(c, p->shard))) {
            cluster_open_lane(e, p);
        }
    }
}

static const char *nobody_to_ask(const struct cluster *c)
{
    for (uint32_t i = 1; i < c->n_endpoints; i++) {
        if (c->endpoints[i] != NULL && c->endpoints[i]->lanes_up > 0) {
            return "the nodes want a password, and none is configured";
        }
    }
    return "no node can be reached";
}

static void begin(struct engine *e, struct topology *t)
{
    struct cluster *c = t->cluster;
    t->wanted = false;
    ask_some(e, t);
    open_lanes(e, c, t->n_answers == 0);
    if (t->n_answers == 0) {
        failed(e, t, nobody_to_ask(c));
        return;
    }
    c->stats.topology_queries++;
    t->deadline_us = e->now_us + ANSWER_TIMEOUT_US;
    wake_at(e, t, t->deadline_us);
}

/* ---- answers ------------------------------------------------------------------ */

/* Everybody has answered, or will not any more. */
static void conclude(struct engine *e, struct topology *t)
{
    const struct upstream_config *config = t->cluster->config;
    const char *error = topology_adopt(e, t);
    drop_answers(t);
    t->next_us = e->now_us + config->topology_min_interval_us;
    t->refresh_us = e->now_us + config->topology_refresh_us;
    if (error != NULL) {
        failed(e, t, error);
        return;
    }
    t->failures = 0;
    t->adopted_us = e->now_us;
    if (t->cluster->held > 0 && topology_lacks_primary(t->cluster)) {
        t->wanted = true; /* somebody is about to take over */
        t->why = "a primary is out of reach and requests wait";
        t->next_us += config->topology_min_interval_us;
    }
    wake_at(e, t, t->wanted ? t->next_us : t->refresh_us);
}

static void conclude_if_complete(struct engine *e, struct topology *t)
{
    for (uint32_t i = 0; i < t->n_answers; i++) {
        if (t->answers[i].open) {
            return;
        }
    }
    conclude(e, t);
}

static struct topology_answer *answer_of(struct topology *t,
                                         uint64_t asked_us,
                                         uint8_t step)
{
    uint32_t i = step / STEP_COUNT;
    bool current = t->deadline_us != 0 && asked_us == t->asked_us;
    return current && i < t->n_answers ? &t->answers[i] : NULL;
}

static void take_id(struct topology_answer *a, struct span reply)
{
    size_t at = 0;
    while (at < reply.len && reply.data[at] != '\n') {
        at++; /* "$40\r\n" */
    }
    at++;
    if (reply.data[0] == '$' && at + NODE_ID_MAX <= reply.len) {
        memcpy(a->id, reply.data + at, NODE_ID_MAX);
    }
}

static void take_view(struct engine *e,
                      struct topology *t,
                      struct topology_answer *a,
                      struct view *view,
                      const char *error)
{
    struct cluster *c = t->cluster;
    a->view = view;
    a->open = false;
    if (view == NULL) {
        c->stats.topology_bad_answers++;
        snprintf(t->last_error, sizeof(t->last_error), "%s", error);
        topology_trace(e, c, a->from, "topology", "refused", error);
    }
    conclude_if_complete(e, t);
}

static void take_lag(struct engine *e, struct endpoint *p, struct span reply)
{
    struct replication_info info;
    if (!replication_info_parse(reply, &info) || info.role != NODE_REPLICA) {
        return;
    }
    bool before = redis_replica_is_fit(p);
    p->lag_known = true;
    p->link_up = info.link_up;
    p->lag_us = info.last_io_s < 0 ? 0 : (uint64_t)info.last_io_s * 1000000;
    if (!before && redis_replica_is_fit(p)) {
        cluster_reroute_later(e, p->cluster); /* reads may wait for it */
    }
}

void topology_reply(struct engine *e,
                    struct upstream *u,
                    uint64_t asked_us,
                    uint8_t step,
                    struct span reply)
{
    struct topology *t = u->endpoint->cluster->topology;
    if (step == STEP_LAG) {
        take_lag(e, u->endpoint, reply);
        return;
    }
    if (t->sentinel != NULL) {
        sentinel_reply(e, t, u, step, reply);
        return;
    }
    struct topology_answer *a = answer_of(t, asked_us, step);
    const char *error = "malformed";
    if (a == NULL || !a->open) {
        return; /* too late */
    }
    switch ((enum step)(step % STEP_COUNT)) {
    case STEP_ID: take_id(a, reply); break;
    case STEP_INFO: cluster_info_parse(reply, &a->info); break;
    case STEP_SHARDS:
        if (reply.data[0] == '-') { /* before 7.0 */
            a->open =
                say(e, t, u, (uint32_t)(a - t->answers), STEP_SLOTS, get_slots);
            if (!a->open) {
                conclude_if_complete(e, t);
            }
            break;
        }
        take_view(e, t, a, view_from_shards(reply, false, &error), error);
        break;
    case STEP_SLOTS:
        u->untold = redis_error_parse(reply).kind == REDIS_ERROR_NOPERM;
        take_view(e, t, a, view_from_slots(reply, &error), error);
        break;
    case STEP_COUNT:
    case STEP_LAG: break;
    }
}

void topology_no_reply(struct engine *e,
                       struct upstream *u,
                       uint64_t asked_us,
                       uint8_t step)
{
    struct topology *t = u->endpoint->cluster->topology;
    if (t == NULL || t->sentinel != NULL) {
        return; /* sentinels are asked again soon anyway */
    }
    struct topology_answer *a = answer_of(t, asked_us, step);
    if (a == NULL || !a->open) {
        return;
    }
    a->open = false;
    wake_at(e, t, e->now_us); /* not in the middle of a lane's end */
}

/* ---- what lanes and the clock tell ------------------------------------------ */

void topology_lane_up(struct engine *e, struct upstream *u)
{
    struct topology *t = u->endpoint->cluster->topology;
    if (t == NULL) {
        return;
    }
    if (t->sentinel != NULL) {
        sentinel_lane_up(e, t, u);
    } else if (t->wanted && t->deadline_us == 0) {
        if (t->n_primaries == 0 || t->failures > 0) {
            t->next_us = e->now_us; /* now there is somebody to ask */
        }
        wake_at(e, t, t->next_us);
    }
}

void topology_lane_down(struct engine *e, struct upstream *u)
{
    struct cluster *c = u->endpoint->cluster;
    if (c->topology != NULL) {
        topology_want(e, c, "a connection was lost or could not be opened");
    }
}

/* Whether a server hangs, as it seems: another one may have taken over. */
static bool has_silent_lane(const struct engine *e, const struct endpoint *p)
{
    uint64_t limit_us = p->cluster->config->silence_probe_us;
    LIST_FOR_EACH (node, &p->lanes) {
        if (is_silent(e, CONTAINER_OF(node, struct upstream, endpoint_node),
                      limit_us)) {
            return true;
        }
    }
    return false;
}

static void look_for_silence(struct engine *e, struct topology *t)
{
    struct cluster *c = t->cluster;
    uint64_t limit_us = c->config->silence_probe_us;
    if (limit_us == 0 || e->now_us < t->silence_us) {
        return;
    }
    t->silence_us = e->now_us + limit_us / 2;
    for (uint32_t i = 1; i < c->n_endpoints; i++) {
        if (c->endpoints[i] != NULL && has_silent_lane(e, c->endpoints[i])) {
            topology_want(e, c, "a server does not answer (silence_probe)");
        }
    }
}

enum {
    LAG_INTERVAL_US = 1000 * 1000
};

static void ask_for_lag(struct engine *e, struct topology *t)
{
    static const char get_replication[] =
        "*2\r\n$4\r\nINFO\r\n$11\r\nreplication\r\n";
    struct cluster *c = t->cluster;
    if (c->config->read_from == READ_PRIMARY ||
        c->config->replica_max_lag_us == 0 || e->now_us < t->lag_us) {
        return;
    }
    t->lag_us = e->now_us + LAG_INTERVAL_US;
    for (uint32_t i = 1; i < c->n_endpoints; i++) {
        struct endpoint *p = c->endpoints[i];
        struct upstream *u =
            p != NULL && p->role == NODE_REPLICA ? lane_to_ask(e, p) : NULL;
        if (u != NULL) {
            upstream_send_own(e, u, TASK_TOPOLOGY, STEP_LAG,
                              span_of(get_replication));
        }
    }
}

void topology_timeout(struct engine *e, struct topology *t)
{
    look_for_silence(e, t);
    ask_for_lag(e, t);
    if (t->sentinel != NULL) {
        sentinel_timeout(e, t);
    } else if (t->deadline_us != 0) {
        if (e->now_us >= t->deadline_us) {
            conclude(e, t);
        } else {
            conclude_if_complete(e, t);
        }
    } else if ((t->wanted && e->now_us >= t->next_us) ||
               (t->refresh_us != 0 && e->now_us >= t->refresh_us)) {
        begin(e, t);
    }
    if (t->deadline_us != 0) {
        wake_at(e, t, t->deadline_us);
    } else if (t->wanted) {
        wake_at(e, t, t->next_us);
    } else if (t->refresh_us != 0) {
        wake_at(e, t, t->refresh_us);
    }
    if (t->lag_us != 0) {
        wake_at(e, t, t->lag_us);
    }
    if (t->cluster->config->silence_probe_us != 0) {
        wake_at(e, t, t->silence_us);
    }
}
