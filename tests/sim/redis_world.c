/* A world with Redis at the other ends: what its phases are and what is
 * checked. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/client.h"
#include "tests/sim/cluster_model.h"
#include "tests/sim/outside.h"
#include "tests/sim/server.h"

enum {
    PHASE_MAX_US = 900000000, /* of virtual time for phase 1 */
    BLOCKED_MAX_US = 3000000, /* what a BLPOP may add */
    REST_US = 1000000,        /* until the last push has arrived */
    PROBES = 8,               /* requests per client when all is well again */
    MEMORY_MAX = 256 * 1024 * 1024,
};

static void check_limits(struct world *w)
{
    struct engine_stats e;
    struct upstream_stats u;
    engine_stats(w->engine, &e, &u);
    if (u.reply_mismatch + u.ledger_mismatch > 0) {
        world_violate(w,
                      "a counter that must stay 0 rose: late_attempts %" PRIu64
                      " reply_mismatch %" PRIu64 " ledger_mismatch %" PRIu64,
                      u.late_attempts, u.reply_mismatch, u.ledger_mismatch);
    }
    /* What was in flight and lost waits in front of it, whatever the limit. */
    uint64_t held_max =
        w->upstream->held_requests_max +
        (uint64_t)w->settings.clients * w->listener->pipeline_max;
    if (u.requests_held > held_max) {
        world_violate(w, "I11: %" PRIu64 " requests are held", u.requests_held);
    }
    /* What follows a redirect gets its lane at the other node in any case. */
    uint64_t beyond = w->cluster != NULL ? w->settings.clients : 0;
    if (u.lanes_private > w->upstream->private_lanes_max + beyond) {
        world_violate(w, "I11: %" PRIu64 " private lanes", u.lanes_private);
    }
    if (e.clients > w->listener->clients_max) {
        world_violate(w, "I11: %" PRIu64 " clients", e.clients);
    }
    if (w->memory_bytes > MEMORY_MAX) {
        world_violate(w, "I11: the engine holds %zu bytes", w->memory_bytes);
    }
}

static void tick(struct world *w)
{
    struct server *s = w->server;
    if (w->cluster != NULL) {
        cluster_strike(w);
        s = &w->cluster->nodes[pick(w, 0, w->cluster->n_nodes - 1)]->server;
    }
    if (strikes(w, FAULT_KILL)) {
        server_kill(w, s, pick(w, 1000, w->cluster == NULL ? 500000 : 1500000));
    }
    if (strikes(w, FAULT_STOP)) {
        server_stop(w, s, pick(w, 1000, 1500000));
    }
    if (strikes(w, FAULT_CLIENT_KILL)) {
        server_kick(w, s);
    }
    if (strikes(w, FAULT_LOADING)) {
        server_load(w, s, pick(w, 1000, 300000));
    }
    if (strikes(w, FAULT_READONLY)) {
        server_readonly(w, s, pick(w, 1000, 300000));
    }
}

static void wake(struct world *w, const struct sleeper *s)
{
    switch (s->why) {
    case WAKE_CLIENT: client_act(w, s->who); break;
    case WAKE_READ: client_read(w, s->who); break;
    case WAKE_CONTINUE: server_continue(w, s->who, s->number); break;
    case WAKE_RESTART: server_restart(w, s->who); break;
    case WAKE_UNBLOCK: server_unblock(w, s->who, s->number); break;
    case WAKE_OUTSIDE: outside_act(w); break;
    case WAKE_CLUSTER: cluster_wake(w, s->who, s->number); break;
    default: abort();
    }
}

static bool lanes_are_scarce(const struct world *w)
{
    return w->upstream->private_lanes_max < w->settings.clients;
}

static bool everybody_idle(const struct world *w)
{
    for (unsigned i = 0; i < w->n_clients; i++) {
        const struct client *c = w->clients[i];
        if (!client_idle(c) && !c->never_reads) {
            return false;
        }
    }
    return true;
}

/* Who keeps all the lanes there are may keep them for ever. */
static bool some_may_wait(const struct world *w)
{
    return w->settings.stateful && lanes_are_scarce(w);
}

/* Who still waits, for the report. */
static void note_waiting(struct world *w)
{
    for (unsigned i = 0; i < w->n_clients; i++) {
        const struct client *c = w->clients[i];
        if (!client_idle(c) && !c->never_reads) {
            world_note(w,
                       c->link != NULL && c->link->paused ? "waits, paused"
                                                          : "waits",
                       c->link, c->n_waiting, (struct span){ 0 });
        }
    }
}

static void phase_safety(struct world *w)
{
    uint64_t until_us = w->now_us + PHASE_MAX_US;
    while (w->sent < w->settings.requests && !w->draining &&
           world_turn(w, until_us)) {
    }
}

static void heal(struct world *w)
{
    if (w->cluster != NULL) {
        cluster_heal(w);
    } else {
        server_heal(w, w->server);
    }
}

/* Where clients keep all private lanes there are, each request that needs one
 * may wait its time, one after the other. */
static uint64_t turns_us(const struct world *w)
{
    uint64_t most = 0;
    for (unsigned i = 0; i < w->n_clients; i++) {
        uint64_t n = w->clients[i]->n_waiting;
        most = n > most ? n : most;
    }
    return lanes_are_scarce(w) ? most * w->upstream->deadline_us : 0;
}

/* All is well again: everything open is answered in time. */
static void phase_liveness(struct world *w)
{
    uint64_t grace_us = w->upstream->deadline_us + 1000000 + BLOCKED_MAX_US +
                        20 * w->settings.latency_us + turns_us(w);
    w->finished = true;
    world_heal(w);
    while (!everybody_idle(w) && world_turn(w, w->healed_us + grace_us)) {
    }
    if (!everybody_idle(w) && !some_may_wait(w)) {
        note_waiting(w);
        world_violate(w,
                      "I14: requests are open %" PRIu64 "us after the healing",
                      w->now_us - w->healed_us);
    }
}

/* A limit drawn small may refuse a request at any time. */
static bool limits_may_refuse(const struct world *w)
{
    return w->settings.never_reads || w->upstream->held_requests_max < 1000 ||
           w->upstream->private_lanes_max < 1000;
}

/* In a cluster a request that is too large to be kept cannot be split, nor
 * follow a redirect; nor may one that a later one has passed by. */
static bool redirect_may_end(const struct world *w,
                             const struct request_record *r)
{
    const struct request_record *told =
        r->whole == 0 ? r : history_at(w->history, r->whole - 1);
    return w->cluster != NULL && told->answer == ANSWER_NOT_APPLIED &&
           (r->size > w->upstream->replay_bytes_max || told->passed_by);
}

/* New requests succeed. */
static void phase_probe(struct world *w)
{
    uint64_t until_us = w->now_us + w->upstream->deadline_us + 2000000;
    uint64_t from = history_count(w->history);
    if (world_broken(w)) {
        return;
    }
    while (world_turn(w, until_us)) {
    }
    w->settings.requests = w->sent + (uint64_t)PROBES * w->n_clients;
    w->finished = false;
    until_us = w->now_us + 30000000;
    while (w->sent < w->settings.requests && world_turn(w, until_us)) {
    }
    w->finished = true;
    until_us += BLOCKED_MAX_US + turns_us(w);
    while (!everybody_idle(w) && world_turn(w, until_us)) {
    }
    if (!everybody_idle(w) && !some_may_wait(w)) {
        note_waiting(w);
        world_violate(w,
                      "I14: new requests are not answered after the healing");
    }
    for (uint64_t i = from; i < history_count(w->history); i++) {
        const struct request_record *r = history_at(w->history, (uint32_t)i);
        bool failed =
            r->answer == ANSWER_NOT_APPLIED || r->answer == ANSWER_UNKNOWN;
        if (failed && r->block == 0 && !limits_may_refuse(w) &&
            !redirect_may_end(w, r)) {
            world_violate(w,
                          "I14: request %" PRIu32 " of client %" PRIu64
                          " failed although all is well",
                          r->index, r->client);
        }
    }
}

/* Told to finish, it does. */
static void phase_drain(struct world *w)
{
    uint64_t until_us =
        w->now_us + w->config->process.drain_timeout_us + 1000000;
    bool healthy = !w->draining && !w->settings.never_reads &&
                   (everybody_idle(w) || !some_may_wait(w));
    if (!w->draining) {
        world_finish(w);
    }
    while (!world_broken(w) && !engine_drained(w->engine) &&
           world_turn(w, until_us)) {
    }
    if (healthy && !world_broken(w) && !engine_drained(w->engine)) {
        world_violate(w, "I15: not drained in drain_timeout");
    }
}

static void check_rest(struct world *w)
{
    struct engine_stats e;
    struct upstream_stats u;
    engine_stats(w->engine, &e, &u);
    if (!w->settings.never_reads && !w->draining && everybody_idle(w) &&
        u.requests_in_flight + u.requests_held > 0) {
        world_violate(w,
                      "I13: %" PRIu64 " requests in flight and %" PRIu64
                      " held at rest",
                      u.requests_in_flight, u.requests_held);
    }
    check_limits(w);
    if (w->settings.stateful && !w->draining) {
        uint64_t until_us = w->now_us + REST_US + 20 * w->settings.latency_us;
        w->at_rest = true; /* nobody changes anything any more */
        while (world_turn(w, until_us)) {
        }
        rest_check(w);
    }
}

static bool load_config(struct world *w)
{
    char url[256];
    const char *user = w->settings.own_auth ? "alice:a1@" : "";
    if (w->cluster != NULL) {
        char seeds[160];
        cluster_seeds(w, seeds, sizeof seeds);
        snprintf(url, sizeof url, "redis+cluster://%s%s", user, seeds);
    } else {
        snprintf(url, sizeof url, "redis://%s%s:6379", user,
                 w->settings.by_name ? "redis.test" : "10.0.0.1");
    }
    return world_load(w, url);
}

static bool open(struct world *w, const struct run_options *options)
{
    settings_draw(w, options);
    if (w->settings.cluster) {
        cluster_new(w);
    }
    if (!load_config(w)) {
        cluster_free(w->cluster);
        return false;
    }
    w->history = history_new();
    w->server =
        w->cluster == NULL ? server_new(w) : &w->cluster->nodes[0]->server;
    server_deny_fence(w->server, w->settings.rate[FAULT_NO_FENCE] > 0);
    for (unsigned i = 0; w->cluster != NULL && i < w->cluster->n_nodes; i++) {
        server_deny_fence(&w->cluster->nodes[i]->server,
                          w->settings.rate[FAULT_NO_FENCE] > 0);
    }
    w->fired[FAULT_NO_FENCE] += w->settings.rate[FAULT_NO_FENCE] > 0;
    return true;
}

static void begin(struct world *w)
{
    w->n_clients = w->settings.clients;
    w->clients = must_alloc(w->n_clients * sizeof(struct client *));
    for (unsigned i = 0; i < w->n_clients; i++) {
        w->clients[i] = client_new(w, i);
    }
    outside_begin(w);
}

static void lose_the_rest(struct world *w)
{
    for (unsigned i = 0; i < w->n_clients; i++) {
        client_give_up(w, w->clients[i]);
    }
}

static void play(struct world *w)
{
    phase_safety(w);
    if (!w->draining && !world_broken(w)) {
        phase_liveness(w);
        if (!world_broken(w)) {
            phase_probe(w);
        }
        check_rest(w);
    }
    phase_drain(w);
    lose_the_rest(w);
    history_end(w);
}

static void close(struct world *w)
{
    for (unsigned i = 0; i < w->n_clients; i++) {
        client_free(w->clients[i]);
    }
    for (size_t i = 0; i < w->n_retired; i++) {
        client_free(w->retired[i]);
    }
    free(w->clients);
    free(w->retired);
    free(w->multis);
    free(w->link_of_client);
    if (w->cluster == NULL) {
        server_free(w->server);
    }
    cluster_free(w->cluster);
    history_free(w->history);
}

/* --- the other ends ---------------------------------------------------- */

static void find(struct world *w, struct link *l, const struct address *address)
{
    l->server = world_server(w, address);
}

static bool listens(const struct link *l)
{
    return l->server != NULL && server_up(l->server);
}

static size_t addresses(struct world *w,
                        const struct link *l,
                        struct address *list,
                        size_t max)
{
    if (l->server == NULL || max == 0) {
        return 0;
    }
    world_address(w, l->server, &list[0]);
    return 1;
}

static void accept(struct world *w, struct link *l)
{
    server_accept(w, l->server, l);
}

static void receive(struct world *w, struct link *l, struct span bytes)
{
    if (l->upstream) {
        server_receive(w, l, bytes);
    } else {
        client_receive(w, l->client, bytes);
    }
}

static void hangup(struct world *w, struct link *l, bool reset)
{
    if (l->upstream) {
        server_hangup(w, l, reset);
    } else {
        client_closed(w, l->client);
    }
}

static bool full(const struct link *l)
{
    if (l->upstream) {
        return server_stopped(l->server) && l->session != NULL &&
               l->session->in.size > UNREAD_MAX;
    }
    return l->client != NULL && l->client->unread.size > UNREAD_MAX;
}

/* Read along what the engine says to a server. */
static void listen_in(struct world *w, struct link *l, struct span fresh)
{
    struct model_command c;
    if (!l->upstream) {
        return;
    }
    bytes_add(&l->said, fresh.data, fresh.len);
    while (l->said.size > 0 &&
           model_command_read(bytes_span(&l->said), &c) == MODEL_DONE) {
        struct span raw = { .data = bytes_front(&l->said), .len = c.size };
        uint32_t request = history_find(w->history, raw);
        l->said_offset += c.size;
        if (request != NO_REQUEST) {
            uint64_t timeout_us;
            history_attempt(w, request, l->session);
            if (model_blocks(&c, &timeout_us) &&
                history_at(w->history, request)->block == 0) {
                history_told_to_wait(w, request, timeout_us);
            }
            if (l->n_marks == l->marks_cap) {
                l->marks_cap = l->marks_cap * 2 + 32;
                l->marks =
                    must_grow(l->marks, l->marks_cap * sizeof l->marks[0]);
            }
            l->marks[l->n_marks++] =
                (struct attempt_mark){ .end = l->said_offset,
                                       .request = request };
        }
        bytes_drop(&l->said, c.size);
    }
}

static void taken(struct world *w, struct link *l)
{
    while (l->marks_at < l->n_marks &&
           l->marks[l->marks_at].end <= l->taken_offset) {
        history_sent(w, l->marks[l->marks_at].request);
        l->marks_at++;
    }
}

static void arriving(struct world *w, struct link *l)
{
    history_served(w, l->last_client); /* its reply may be a long one */
    if (l->upstream && l->in.stuck_until > 0) {
        client_served_all(w); /* replies that were stuck until now */
    }
}

static void arrives(struct world *w, struct link *l, size_t n)
{
    if (l->client != NULL) {
        client_arrived(w, l->client, n);
    }
    news_arrive(w, l);
}

static void dropped(struct link *l)
{
    if (!l->upstream && l->client != NULL) {
        l->client->engine_closed = true;
    }
}

const struct model redis_model = {
    .open = open,
    .begin = begin,
    .play = play,
    .sum = history_sum,
    .close = close,
    .tick = tick,
    .wake = wake,
    .heal = heal,
    .check_limits = check_limits,
    .find = find,
    .listens = listens,
    .addresses = addresses,
    .accept = accept,
    .receive = receive,
    .hangup = hangup,
    .full = full,
    .wrote = listen_in,
    .taken = taken,
    .arriving = arriving,
    .arrives = arrives,
    .dropped = dropped,
};
