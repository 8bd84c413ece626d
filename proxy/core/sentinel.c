#include "proxy/core/sentinel.h"

#include <stdio.h>

#include "config/value.h"
#include "parser/number.h"
#include "parser/reply.h"
#include "proxy/core/lane_set.h"
#include "proxy/core/state.h"
#include "proxy/core/topology_adopt.h"

enum {
    ANSWER_TIMEOUT_US = 500 * 1000,
    SILENCE_US = 2000 * 1000, /* without an answer: its connection is dead */
    POLL_US = 10 * 1000 * 1000,
    HASTE_INTERVALS = 2 /* topology_min_intervals at most between two questions
                           while requests wait */
};

enum step {
    STEP_MASTER,
    STEP_ADDRESS,
    STEP_SENTINELS,
    STEP_REPLICAS,
    STEP_SUBSCRIBE
};

/* ---- beginning and end ------------------------------------------------------ */

bool sentinel_add(struct engine *e, struct topology *t, struct endpoint *p)
{
    struct sentinel *s = t->sentinel;
    if (s->n_watchers == SENTINELS_MAX) {
        return false;
    }
    s->watchers[s->n_watchers++] =
        (struct watcher){ .endpoint = p, .listed_us = e->now_us };
    p->sentinel = true;
    p->wanted = true;
    p->known = true;
    p->online = true;
    return true;
}

static struct lane_set *new_lanes(struct engine *e, struct cluster *c)
{
    const struct upstream_config *config = c->config;
    struct session *session = session_copy(e, NULL);
    struct lane_set *set = NULL;
    if (session == NULL) {
        return NULL;
    }
    session->resp = 3; /* so that pushes and replies can be told apart */
    if ((config->sentinel_username == NULL ||
         text_set(e, &session->username, span_of(config->sentinel_username))) &&
        (config->sentinel_password == NULL ||
         text_set(e, &session->password, span_of(config->sentinel_password)))) {
        set = lane_set_new_apart(e, c, session);
    }
    session_free(e, session);
    return set;
}

bool sentinel_init(struct engine *e, struct cluster *c)
{
    struct topology *t = c->topology;
    struct sentinel *s = memory_take(e->memory, sizeof(*s));
    if (s == NULL) {
        return false;
    }
    t->sentinel = s;
    s->lanes = new_lanes(e, c);
    if (s->lanes == NULL) {
        return false;
    }
    s->lanes->pinned = true;
    for (uint32_t i = 1; i < c->n_endpoints; i++) {
        if (c->endpoints[i] != NULL && !sentinel_add(e, t, c->endpoints[i])) {
            break; /* so many are enough */
        }
    }
    return true;
}

void sentinel_fini(struct engine *e, struct topology *t)
{
    memory_give(e->memory, t->sentinel);
    t->sentinel = NULL;
}

/* ---- lanes ------------------------------------------------------------------- */

static struct watcher *watcher_of(struct sentinel *s, const struct endpoint *p)
{
    for (uint32_t i = 0; i < s->n_watchers; i++) {
        if (s->watchers[i].endpoint == p) {
            return &s->watchers[i];
        }
    }
    return NULL;
}

struct upstream *sentinel_lane(const struct sentinel *s,
                               const struct watcher *w)
{
    const struct lane_set *set = s->lanes;
    uint32_t at = w->endpoint->index;
    struct upstream *u = at < set->n_lanes ? set->lanes[at] : NULL;
    return u != NULL && u->state == UPSTREAM_UP ? u : NULL;
}

static void open_lanes(struct engine *e, struct sentinel *s)
{
    for (uint32_t i = 0; i < s->n_watchers; i++) {
        struct upstream *u =
            lane_set_lane(e, s->lanes, s->watchers[i].endpoint);
        if (u != NULL) {
            upstream_want(e, u);
        }
    }
}

static void wake_at(struct engine *e, struct topology *t, uint64_t at_us)
{
    if (t->timer.place == TIMER_OFF || t->timer.at_us > at_us) {
        timer_set(&e->timers, &t->timer, at_us);
    }
}

void sentinel_start(struct engine *e, struct topology *t)
{
    struct cluster *c = t->cluster;
    endpoint_failed(e, c->endpoints[0], "the primary is not known yet");
    open_lanes(e, t->sentinel);
    t->wanted = true; /* as soon as somebody can be asked */
    t->why = "the primary is not known yet";
    t->next_us = e->now_us + ANSWER_TIMEOUT_US;
    wake_at(e, t, t->next_us);
}

/* ---- asking ------------------------------------------------------------------ */

/* "SENTINEL what master_name" */
static bool say(struct engine *e,
                struct upstream *u,
                enum step step,
                const char *what)
{
    char text[VALUE_NAME_MAX + 128];
    const char *name = u->endpoint->cluster->config->master_name;
    int len = snprintf(text, sizeof(text),
                       "*3\r\n$8\r\nSENTINEL\r\n$%zu\r\n%s\r\n$%zu\r\n%s\r\n",
                       strlen(what), what, strlen(name), name);
    if (len < 0 || (size_t)len >= sizeof(text)) {
        return false;
    }
    return upstream_send_own(e, u, TASK_TOPOLOGY, (uint8_t)step, span_of(text));
}

/* The epoch is asked for first: an answer may then look older than it is, which
 * does no harm, but never newer. */
static void ask(struct engine *e, struct watcher *w, struct upstream *u)
{
    w->asked_us = e->now_us;
    w->epoch = 0;
    w->open += say(e, u, STEP_MASTER, "MASTER");
    w->open += say(e, u, STEP_ADDRESS, "GET-MASTER-ADDR-BY-NAME");
}

/* Ask the others for more sentinels, and for replicas: one of those that know
 * the primary in force. */
static void ask_for_lists(struct engine *e, struct topology *t)
{
    struct sentinel *s = t->sentinel;
    const struct endpoint *primary = t->cluster->primary;
    uint32_t first = (uint32_t)rng_upto(&e->rng, s->n_watchers - 1);
    for (uint32_t i = 0; i < s->n_watchers; i++) {
        struct watcher *w = &s->watchers[(first + i) % s->n_watchers];
        struct upstream *u = sentinel_lane(s, w);
        if (u != NULL && w->said && w->open == 0 && w->primary.port != 0 &&
            cluster_find(t->cluster, &w->primary) == primary) {
            s->lists_us = e->now_us + POLL_US;
            say(e, u, STEP_SENTINELS, "SENTINELS");
            say(e, u, STEP_REPLICAS, "REPLICAS");
            return;
        }
    }
}

/* Not before that is it asked again: soon at first, and not so soon when that
 * has brought nothing. */
static uint64_t pace_us(const struct topology *t)
{
    const struct cluster *c = t->cluster;
    uint64_t interval_us = c->config->topology_min_interval_us;
    uint64_t cap_us = c->held > 0 || cluster_in_flight(c) > 0
                          ? interval_us * HASTE_INTERVALS
                          : c->config->backoff_cap_us * HASTE_INTERVALS;
    for (uint32_t i = 1; i < t->failures && interval_us < cap_us; i++) {
        interval_us *= 2;
    }
    return interval_us < cap_us ? interval_us : cap_us;
}

static void failed(struct engine *e, struct topology *t, const char *why)
{
    struct cluster *c = t->cluster;
    snprintf(t->last_error, sizeof(t->last_error), "%s", why);
    endpoint_failed(e, c->endpoints[0], why);
    c->stats.topology_failures++;
    t->failures++;
    t->wanted = true;
    t->next_us = e->now_us + pace_us(t);
    wake_at(e, t, t->next_us);
}

static void begin(struct engine *e, struct topology *t)
{
    struct sentinel *s = t->sentinel;
    uint32_t asked = 0;
    t->wanted = false;
    t->asked_us = e->now_us;
    for (uint32_t i = 0; i < s->n_watchers; i++) {
        struct watcher *w = &s->watchers[i];
        struct upstream *u = sentinel_lane(s, w);
        w->said = false;
        if (u != NULL && w->open > 0 && e->now_us - w->asked_us >= SILENCE_US) {
            upstream_lost(e, u,
                          &(struct upstream_loss){
                              .why = "the sentinel does not answer",
                              .timeout = true,
                              .tell = true });
        } else if (u != NULL && w->open == 0) {
            ask(e, w, u);
        }
        asked += w->open > 0;
    }
    t->wanted = false; /* also what a lost lane has asked for */
    if (asked == 0) {
        open_lanes(e, s);
        failed(e, t, "no sentinel can be reached");
        return;
    }
    t->cluster->stats.topology_queries++;
    t->deadline_us = e->now_us + ANSWER_TIMEOUT_US;
    wake_at(e, t, t->deadline_us);
}

/* ---- answers ------------------------------------------------------------------- */

static void conclude(struct engine *e, struct topology *t)
{
    struct sentinel *s = t->sentinel;
    struct cluster *c = t->cluster;
    const char *error = sentinel_judge(e, t, true);
    t->deadline_us = 0;
    t->refresh_us = e->now_us + (c->config->topology_refresh_us < POLL_US
                                     ? c->config->topology_refresh_us
                                     : POLL_US);
    if (error != NULL) {
        failed(e, t, error);
        return;
    }
    t->adopted_us = e->now_us;
    t->epoch = s->epoch;
    t->last_error[0] = '\0';
    if (c->primary->down_since_us != 0) {
        t->failures++;
        t->wanted = true; /* another one is about to take over */
        t->why = "the primary is out of reach";
    } else {
        t->failures = 0;
    }
    t->next_us = e->now_us + pace_us(t);
    if (e->now_us >= s->lists_us) {
        ask_for_lists(e, t);
    }
    sentinel_forget(e, t);
    wake_at(e, t, t->wanted ? t->next_us : t->refresh_us);
}

/* Whether more answers may still come. A lost lane brings none. */
static bool is_complete(const struct topology *t)
{
    struct sentinel *s = t->sentinel;
    bool starting = t->cluster->primary->limbo; /* hear them all, then */
    bool complete = true;
    bool any = false;
    for (uint32_t i = 0; i < s->n_watchers; i++) {
        struct watcher *w = &s->watchers[i];
        if (sentinel_lane(s, w) == NULL) {
            w->open = 0;
        }
        any = any || w->said;
        complete = complete && w->open == 0 &&
                   !(starting && w->endpoint->lanes_connecting > 0);
    }
    return complete && any;
}

static void take_answer(struct engine *e, struct topology *t)
{
    if (t->deadline_us == 0) {
        return; /* too late; it counts the next time */
    }
    if (is_complete(t)) {
        conclude(e, t);
    } else {
        sentinel_judge(e, t, false);
    }
}

static uint64_t epoch_of(struct span reply)
{
    int64_t epoch = 0;
    struct reply *tree = reply_parse(reply);
    const struct reply *value =
        tree != NULL ? reply_get(tree, "config-epoch") : NULL;
    if (value == NULL || !number_parse(reply_text(value), &epoch) ||
        epoch < 0) {
        epoch = 0;
    }
    reply_free(tree);
    return (uint64_t)epoch;
}

static void take_address(struct engine *e,
                         struct topology *t,
                         struct watcher *w,
                         struct span reply)
{
    struct cluster *c = t->cluster;
    struct view_node node;
    w->said = true;
    w->refused = false;
    w->primary = (struct address){ 0 };
    if (!sentinel_master_parse(reply, &node)) {
        c->stats.topology_bad_answers++;
        topology_trace(e, c, w->endpoint, "sentinel", "refused",
                       "it knows no usable primary by master_name");
    } else if (!sentinel_address(e, t, &node, &w->primary)) {
        w->primary = (struct address){ 0 };
        w->refused = true;
    }
}

static void answered(struct watcher *w)
{
    if (w->open > 0) {
        w->open--;
    }
}

void sentinel_reply(struct engine *e,
                    struct topology *t,
                    struct upstream *u,
                    uint8_t step,
                    struct span reply)
{
    struct watcher *w = watcher_of(t->sentinel, u->endpoint);
    if (w == NULL) {
        return; /* forgotten meanwhile */
    }
    switch ((enum step)step) {
    case STEP_MASTER:
        answered(w);
        w->epoch = epoch_of(reply);
        break;
    case STEP_ADDRESS:
        answered(w);
        take_address(e, t, w, reply);
        take_answer(e, t);
        break;
    case STEP_SENTINELS: sentinel_take_sentinels(e, t, reply); break;
    case STEP_REPLICAS: sentinel_take_replicas(e, t, w, reply); break;
    case STEP_SUBSCRIBE: /* not permitted: it is asked now and then */
        topology_trace(e, t->cluster, w->endpoint, "sentinel", "polled",
                       "it permits no SUBSCRIBE");
        break;
    }
}

/* The next step of a failover makes a replica a primary, and whatever the old
 * one still takes will be lost. */
static const char promotion_channel[] = "+failover-state-send-slaveof-noone";
/* The failover is done, or has become known. */
static const char switch_channel[] = "+switch-master";

enum {
    PROMOTION_WORDS = 8,
    PROMOTION_MAX = 2 * (NODE_HOST_MAX + 8) + VALUE_NAME_MAX + 8
};

/* ---- pushes ----------------------------------------------------------------------- */

/* The reply to SUBSCRIBE is a push: it ends the request. */
static void subscribed(struct engine *e, struct watcher *w, struct upstream *u)
{
    struct request *r =
        list_empty(&u->in_flight)
            ? NULL
            : CONTAINER_OF(u->in_flight.next, struct request, place);
    if (r != NULL && r->task == TASK_TOPOLOGY && r->step == STEP_SUBSCRIBE) {
        w->pushes = true;
        upstream_drop_orphan(e, u, r);
    }
}

/* "slave NAME TO-IP TO-PORT @ GROUP FROM-IP FROM-PORT" as "GROUP FROM-IP
 * FROM-PORT TO-IP TO-PORT"; text has PROMOTION_MAX bytes. */
static struct span promotion_as_switch(struct span payload, char *text)
{
    struct span words[PROMOTION_WORDS] = { { 0 } };
    size_t n = 0;
    for (size_t i = 0; i < payload.len; i++) {
        bool blank = payload.data[i] == ' ';
        if (!blank && (i == 0 || payload.data[i - 1] == ' ')) {
            if (n == PROMOTION_WORDS) {
                return (struct span){ 0 };
            }
            words[n++].data = payload.data + i;
        }
        if (!blank) {
            words[n - 1].len++;
        }
    }
    static const uint8_t order[] = { 5, 6, 7, 2, 3 };
    size_t len = 0;
    for (size_t i = 0; n == PROMOTION_WORDS && i < sizeof(order); i++) {
        struct span w = words[order[i]];
        if (len + w.len + 1 >= PROMOTION_MAX) {
            return (struct span){ 0 };
        }
        memcpy(text + len, w.data, w.len);
        len += w.len;
        text[len++] = ' ';
    }
    return (struct span){ (const uint8_t *)text, len == 0 ? 0 : len - 1 };
}

static void subscribe(struct engine *e, struct upstream *u, const char *channel)
{
    char text[128];
    snprintf(text, sizeof(text), "*2\r\n$9\r\nSUBSCRIBE\r\n$%zu\r\n%s\r\n",
             strlen(channel), channel);
    upstream_send_own(e, u, TASK_TOPOLOGY, STEP_SUBSCRIBE, span_of(text));
}

static void on_message(struct engine *e,
                       struct topology *t,
                       struct span channel,
                       struct span payload)
{
    struct view_node from;
    struct view_node to;
    struct span name;
    char text[PROMOTION_MAX];
    struct cluster *c = t->cluster;
    enum turn turn = TURN_IS_DONE;
    if (span_equal(channel, span_of(promotion_channel))) {
        payload = promotion_as_switch(payload, text);
        turn = TURN_BEGINS;
    } else if (!span_equal(channel, span_of(switch_channel))) {
        return;
    }
    if (!sentinel_switch_parse(payload, &name, &from, &to)) {
        c->stats.topology_bad_answers++;
        topology_want(e, c, "a sentinel tells of a switch");
    } else if (span_equal(name, span_of(c->config->master_name))) {
        sentinel_turned(e, t, turn, &from, &to);
    }
}

void sentinel_push(struct engine *e,
                   struct topology *t,
                   struct upstream *u,
                   struct span message)
{
    struct watcher *w = watcher_of(t->sentinel, u->endpoint);
    struct reply *tree = reply_parse(message);
    if (w == NULL || tree == NULL || reply_count(tree) != 3) {
        reply_free(tree);
        return;
    }
    struct span kind = reply_text(reply_at(tree, 0));
    if (span_equal(kind, span_of("subscribe"))) {
        subscribed(e, w, u);
    } else if (span_equal(kind, span_of("message"))) {
        on_message(e, t, reply_text(reply_at(tree, 1)),
                   reply_text(reply_at(tree, 2)));
    }
    reply_free(tree);
}

/* ---- what lanes and the clock tell ------------------------------------------------ */

void sentinel_lane_up(struct engine *e, struct topology *t, struct upstream *u)
{
    struct watcher *w = watcher_of(t->sentinel, u->endpoint);
    if (w == NULL) {
        if (u->endpoint == t->cluster->primary) {
            sentinel_primary_up(e, t->cluster);
        }
        return;
    }
    w->open = 0;
    w->pushes = false;
    w->listed_us = e->now_us;
    if (u->session->resp == 3) { /* else it is asked now and then */
        subscribe(e, u, switch_channel);
        subscribe(e, u, promotion_channel);
    }
    if (t->deadline_us != 0) {
        ask(e, w, u);
        return;
    }
    if (t->cluster->primary->limbo || t->failures > 0) {
        t->next_us = e->now_us; /* now there is somebody to ask */
    }
    topology_want(e, t->cluster, "a sentinel can be asked");
}

void sentinel_timeout(struct engine *e, struct topology *t)
{
    if (t->deadline_us != 0) {
        if (e->now_us >= t->deadline_us || is_complete(t)) {
            conclude(e, t);
        }
    } else if ((t->wanted && e->now_us >= t->next_us) ||
               (t->refresh_us != 0 && e->now_us >= t->refresh_us)) {
        begin(e, t);
    }
}
