#include "tests/sim/world.h"

#include <ctype.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/client.h"
#include "tests/sim/cluster_model.h"
#include "tests/sim/server.h"

enum {
    BEGIN_US = 1000000,
    FAULT_TICK_US = 5000,
    LIMITS_EVERY = 64,         /* events between two looks at the limits */
    STEPS_WITHOUT_TIME = 2000, /* more of them: it spins */
    PHASE_MAX_US = 900000000,  /* of virtual time for phase 1 */
    BLOCKED_MAX_US = 3000000,  /* what a BLPOP may add */
    LARGE = 100000, /* no request is: it could not follow a redirect */
    PROBES = 8,     /* requests per client when all is well again */
    MEMORY_MAX = 256 * 1024 * 1024,
    ALLOC_HEADER = 16,
};

static const char *const fault_names[FAULT_COUNT] = {
    [FAULT_REFUSE] = "refuse",
    [FAULT_SYN_LOST] = "syn_lost",
    [FAULT_DNS] = "dns",
    [FAULT_RESET_OUT] = "reset_out",
    [FAULT_RESET_IN] = "reset_in",
    [FAULT_HOLE_OUT] = "hole_out",
    [FAULT_HOLE_IN] = "hole_in",
    [FAULT_HOLE_BOTH] = "hole_both",
    [FAULT_HALF_CLOSE] = "half_close",
    [FAULT_SLICES] = "slices",
    [FAULT_SHORT_WRITE] = "short_write",
    [FAULT_SLOW_READER] = "slow_reader",
    [FAULT_LEAVER] = "leaver",
    [FAULT_KILL] = "kill",
    [FAULT_STOP] = "stop",
    [FAULT_CLIENT_KILL] = "client_kill",
    [FAULT_LOADING] = "loading",
    [FAULT_READONLY] = "readonly",
    [FAULT_NO_FENCE] = "no_fence",
    [FAULT_MEMORY] = "memory",
    [FAULT_DRAIN] = "drain",
    [FAULT_MIGRATE] = "migrate",
    [FAULT_FAILOVER] = "failover",
    [FAULT_GRACEFUL] = "graceful",
    [FAULT_SPLIT_VIEW] = "split_view",
    [FAULT_JOIN] = "join",
    [FAULT_LEAVE] = "leave",
    [FAULT_DOWN] = "down",
    [FAULT_NO_HOST] = "no_host",
    [FAULT_HOSTNAMES] = "hostnames",
    [FAULT_HOSTILE] = "hostile",
};

const char *fault_name(enum fault fault)
{
    return fault_names[fault];
}

/* --- chance ------------------------------------------------------------ */

uint64_t pick(struct world *w, uint64_t low, uint64_t high)
{
    return low + rng_upto(&w->rng, high > low ? high - low : 0);
}

bool chance(struct world *w, uint64_t in, uint64_t of)
{
    return rng_upto(&w->rng, of - 1) < in;
}

bool strikes(struct world *w, enum fault fault)
{
    uint32_t rate = w->settings.rate[fault];
    if (rate == 0 || w->healed || !chance(w, rate, 10000)) {
        return false;
    }
    w->fired[fault]++;
    return true;
}

/* --- what is written down ---------------------------------------------- */

static void record_print(const struct world *w, const struct record *r)
{
    fprintf(stderr, "%12.6f  %-6s %-9s %" PRIu64,
            (double)(r->now_us - w->begin_us) / 1e6, r->who, r->what,
            r->number);
    if (r->size > 0) {
        fprintf(stderr, "  [%" PRIu32 "] ", r->size);
        for (unsigned i = 0; i < r->kept; i++) {
            uint8_t c = r->data[i];
            if (c == '\r') {
                fputs("\\r", stderr);
            } else if (c == '\n') {
                fputs("\\n", stderr);
            } else {
                fputc(c < 128 && isprint(c) ? c : '.', stderr);
            }
        }
    }
    fputc('\n', stderr);
}

static void record_keep(struct record *r, struct span data)
{
    r->size = (uint32_t)data.len;
    r->kept = (uint16_t)(data.len < KEPT_BYTES ? data.len : KEPT_BYTES);
    if (r->kept > 0) {
        memcpy(r->data, data.data, r->kept);
    }
}

void world_tell(const struct world *w,
                const char *what,
                uint64_t number,
                struct span data)
{
    struct record r = { .now_us = w->now_us, .what = what, .number = number };
    if (w->trace) {
        record_keep(&r, data);
        record_print(w, &r);
    }
}

void world_note(struct world *w,
                const char *what,
                const struct link *l,
                uint64_t number,
                struct span data)
{
    struct record *r = &w->records[w->n_records++ % RECORDS_KEPT];
    *r = (struct record){ .now_us = w->now_us, .what = what, .number = number };
    record_keep(r, data);
    if (l != NULL) {
        snprintf(r->who, sizeof r->who, "%c%u", l->upstream ? 'u' : 'c',
                 l->number);
    }
    w->hash = hash_number(w->hash, w->now_us);
    w->hash = hash_bytes(w->hash, what, strlen(what));
    w->hash = hash_bytes(w->hash, r->who, strlen(r->who));
    w->hash = hash_number(w->hash, number);
    w->hash = hash_bytes(w->hash, data.data, data.len);
    if (w->trace) {
        record_print(w, r);
    }
}

void world_violate(struct world *w, const char *format, ...)
{
    if (world_broken(w)) {
        return;
    }
    va_list args;
    va_start(args, format);
    vsnprintf(w->violation, sizeof w->violation, format, args);
    va_end(args);
}

static void report(const struct world *w)
{
    fprintf(stderr, "\nseed %" PRIu64 ": %s\n", w->seed, w->violation);
    fprintf(stderr, "settings:");
    for (size_t i = 0; i < w->settings.n_drawn; i++) {
        fprintf(stderr, " %s", w->settings.drawn[i]);
    }
    fprintf(stderr, "\nfired:");
    for (unsigned i = 0; i < FAULT_COUNT; i++) {
        if (w->fired[i] > 0) {
            fprintf(stderr, " %s=%" PRIu64, fault_names[i], w->fired[i]);
        }
    }
    fprintf(stderr, "\nlast events:\n");
    uint64_t from =
        w->n_records > RECORDS_KEPT ? w->n_records - RECORDS_KEPT : 0;
    for (uint64_t i = from; i < w->n_records && !w->trace; i++) {
        record_print(w, &w->records[i % RECORDS_KEPT]);
    }
}

/* An assertion of the core must be reported like a broken invariant; a signal
 * handler has no other way to the world. */
static struct world *aborting;

static void on_abort(int signal_number)
{
    (void)signal_number;
    if (aborting != NULL) {
        world_violate(aborting, "an assertion failed");
        report(aborting);
        aborting = NULL;
    }
}

/* --- memory ------------------------------------------------------------ */

static void *sim_alloc(void *context, size_t size)
{
    struct world *w = context;
    if (w->memory_fails && chance(w, 1, 3)) {
        w->memory_failed = true;
        return NULL;
    }
    char *block = must_alloc(size + ALLOC_HEADER);
    memcpy(block, &size, sizeof size);
    w->blocks++;
    w->memory_bytes += size;
    if (w->memory_bytes > w->memory_peak) {
        w->memory_peak = w->memory_bytes;
    }
    return block + ALLOC_HEADER;
}

static void sim_free(void *context, void *block)
{
    struct world *w = context;
    size_t size;
    if (block == NULL) {
        return;
    }
    memcpy(&size, (char *)block - ALLOC_HEADER, sizeof size);
    w->memory_bytes -= size;
    w->blocks--;
    free((char *)block - ALLOC_HEADER);
}

/* --- time -------------------------------------------------------------- */

static bool earlier(const struct sleeper *a, const struct sleeper *b)
{
    return a->at_us != b->at_us ? a->at_us < b->at_us : a->order < b->order;
}

void world_wake(struct world *w,
                uint64_t after_us,
                enum wake why,
                void *who,
                uint64_t number)
{
    if (w->n_heap == w->heap_cap) {
        w->heap_cap = w->heap_cap * 2 + 64;
        w->heap = must_grow(w->heap, w->heap_cap * sizeof w->heap[0]);
    }
    struct sleeper s = { .at_us = w->now_us + after_us,
                         .order = ++w->order,
                         .why = why,
                         .who = who,
                         .number = number };
    size_t i = w->n_heap++;
    while (i > 0 && earlier(&s, &w->heap[(i - 1) / 2])) {
        w->heap[i] = w->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    w->heap[i] = s;
}

static struct sleeper heap_take(struct world *w)
{
    struct sleeper first = w->heap[0];
    struct sleeper last = w->heap[--w->n_heap];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= w->n_heap) {
            break;
        }
        if (child + 1 < w->n_heap &&
            earlier(&w->heap[child + 1], &w->heap[child])) {
            child++;
        }
        if (!earlier(&w->heap[child], &last)) {
            break;
        }
        w->heap[i] = w->heap[child];
        i = child;
    }
    w->heap[i] = last;
    return first;
}

/* --- the engine -------------------------------------------------------- */

void world_step(struct world *w, struct event event)
{
    event.now_us = w->now_us;
    w->events++;
    engine_step(w->engine, &event);
}

static void drain(struct world *w)
{
    struct action action;
    do {
        while (engine_next(w->engine, &action)) {
            net_action(w, &action);
        }
        w->offered = w->n_dirty > 0; /* then it may want more */
        net_offer(w);
    } while (w->offered && !world_broken(w));
    w->turn++;
}

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
    if (u.lanes_private > w->upstream->private_lanes_max) {
        world_violate(w, "I11: %" PRIu64 " private lanes", u.lanes_private);
    }
    if (e.clients > w->listener->clients_max) {
        world_violate(w, "I11: %" PRIu64 " clients", e.clients);
    }
    if (w->memory_bytes > MEMORY_MAX) {
        world_violate(w, "I11: the engine holds %zu bytes", w->memory_bytes);
    }
}

/* --- things that happen ------------------------------------------------ */

static void tick(struct world *w)
{
    if (w->healed) {
        return;
    }
    world_wake(w, FAULT_TICK_US, WAKE_FAULT, NULL, 0);
    net_strike(w);
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
    if (strikes(w, FAULT_MEMORY)) {
        w->memory_fails = true;
        world_wake(w, pick(w, 100, 20000), WAKE_MEMORY, NULL, 0);
    }
    if (!w->draining && strikes(w, FAULT_DRAIN)) {
        w->draining = true;
        world_note(w, "drain", NULL, 0, (struct span){ 0 });
        world_step(w, (struct event){ .type = EVENT_DRAIN });
    }
}

static void happen(struct world *w, const struct sleeper *s)
{
    switch (s->why) {
    case WAKE_CONNECT:
    case WAKE_RESOLVE:
    case WAKE_OUT:
    case WAKE_IN:
    case WAKE_CLOSED: net_wake(w, s); break;
    case WAKE_CLIENT: client_act(w, s->who); break;
    case WAKE_READ: client_read(w, s->who); break;
    case WAKE_FAULT: tick(w); break;
    case WAKE_CONTINUE: server_continue(w, s->who, s->number); break;
    case WAKE_RESTART: server_restart(w, s->who); break;
    case WAKE_UNBLOCK: server_unblock(w, s->who, s->number); break;
    case WAKE_MEMORY: w->memory_fails = false; break;
    case WAKE_CLUSTER: cluster_wake(w, s->who, s->number); break;
    }
}

/* Let the next thing happen, or the engine's timeout, unless that is later
 * than until_us. */
static bool turn(struct world *w, uint64_t until_us)
{
    uint64_t deadline_us = engine_deadline(w->engine);
    uint64_t next_us = w->n_heap > 0 ? w->heap[0].at_us : UINT64_MAX;
    uint64_t at_us = deadline_us < next_us ? deadline_us : next_us;

    if (at_us > until_us) {
        w->now_us = until_us > w->now_us ? until_us : w->now_us;
        return false;
    }
    if (at_us > w->now_us) {
        w->now_us = at_us;
        w->still = 0;
    } else if (++w->still > STEPS_WITHOUT_TIME * (1 + w->settings.clients)) {
        world_violate(
            w, "the engine spins: it asks for the same moment again and again");
    }
    if (deadline_us <= next_us) {
        world_note(w, "timeout", NULL, 0, (struct span){ 0 });
        world_step(w, (struct event){ .type = EVENT_TIMEOUT });
    } else {
        struct sleeper s = heap_take(w);
        happen(w, &s);
    }
    bool more = w->n_heap > 0 && w->heap[0].at_us <= w->now_us;
    if (!w->settings.lazy_drain || !more || chance(w, 1, 4)) {
        drain(w);
    }
    if (w->events % LIMITS_EVERY == 0) {
        check_limits(w);
    }
    return !world_broken(w);
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
           turn(w, until_us)) {
    }
}

static void heal(struct world *w)
{
    w->healed = true;
    w->healed_us = w->now_us;
    w->memory_fails = false;
    world_note(w, "healed", NULL, 0, (struct span){ 0 });
    net_heal(w);
    if (w->cluster != NULL) {
        cluster_heal(w);
    } else {
        server_heal(w, w->server);
    }
    drain(w);
}

/* All is well again: everything open is answered in time. */
static void phase_liveness(struct world *w)
{
    uint64_t grace_us = w->upstream->deadline_us + 1000000 + BLOCKED_MAX_US +
                        20 * w->settings.latency_us;
    w->finished = true;
    heal(w);
    while (!everybody_idle(w) && turn(w, w->healed_us + grace_us)) {
    }
    if (!everybody_idle(w)) {
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
           w->upstream->private_lanes_max < 1000 ||
           (w->cluster != NULL && w->cluster->upheavals > 0 &&
            w->upstream->replay_bytes_max < LARGE);
}

/* New requests succeed. */
static void phase_probe(struct world *w)
{
    uint64_t until_us = w->now_us + w->upstream->deadline_us + 2000000;
    uint64_t from = history_count(w->history);
    if (world_broken(w)) {
        return;
    }
    while (turn(w, until_us)) {
    }
    w->settings.requests = w->sent + PROBES * w->n_clients;
    w->finished = false;
    until_us = w->now_us + 30000000;
    while (w->sent < w->settings.requests && turn(w, until_us)) {
    }
    w->finished = true;
    while (!everybody_idle(w) && turn(w, until_us + BLOCKED_MAX_US)) {
    }
    if (!everybody_idle(w)) {
        note_waiting(w);
        world_violate(w,
                      "I14: new requests are not answered after the healing");
    }
    for (uint64_t i = from; i < history_count(w->history); i++) {
        const struct request_record *r = history_at(w->history, (uint32_t)i);
        bool failed =
            r->answer == ANSWER_NOT_APPLIED || r->answer == ANSWER_UNKNOWN;
        if (failed && r->block == 0 && !limits_may_refuse(w)) {
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
    bool healthy = !w->draining && !w->settings.never_reads;
    if (!w->draining) {
        w->draining = true;
        world_note(w, "drain", NULL, 0, (struct span){ 0 });
        world_step(w, (struct event){ .type = EVENT_DRAIN });
    }
    while (!world_broken(w) && !engine_drained(w->engine) &&
           turn(w, until_us)) {
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
    if (!w->settings.never_reads && !w->draining &&
        u.requests_in_flight + u.requests_held > 0) {
        world_violate(w,
                      "I13: %" PRIu64 " requests in flight and %" PRIu64
                      " held at rest",
                      u.requests_in_flight, u.requests_held);
    }
    check_limits(w);
}

/* --- one run ----------------------------------------------------------- */

static bool load_config(struct world *w)
{
    char url[256];
    struct config_problems problems = { 0 };
    const char *user = w->settings.own_auth ? "alice:a1@" : "";
    if (w->cluster != NULL) {
        char seeds[160];
        cluster_seeds(w, seeds, sizeof seeds);
        snprintf(url, sizeof url, "redis+cluster://%s%s", user, seeds);
    } else {
        snprintf(url, sizeof url, "redis://%s%s:6379", user,
                 w->settings.by_name ? "redis.test" : "10.0.0.1");
    }
    struct config_source source = {
        .url = url,
        .sets = (const char *const *)w->settings.drawn,
        .n_sets = w->settings.n_drawn,
    };
    w->config = config_load(&source, &problems);
    for (size_t i = 0; i < problems.n; i++) {
        fprintf(stderr, "%s: %s\n", problems.list[i].place,
                problems.list[i].text);
    }
    config_problems_fini(&problems);
    if (w->config == NULL) {
        return false;
    }
    w->upstream = &w->config->upstreams[0];
    w->listener = &w->config->listeners[0];
    return true;
}

static bool world_open(struct world *w, const struct run_options *options)
{
    w->seed = options->seed;
    w->now_us = BEGIN_US;
    w->begin_us = BEGIN_US;
    w->trace = options->trace;
    rng_init(&w->rng, options->seed);
    settings_draw(w, options);
    if (w->settings.cluster) {
        cluster_new(w);
    }
    if (!load_config(w)) {
        cluster_free(w->cluster);
        return false;
    }
    struct engine_options engine = {
        .config = w->config,
        .seed = rng_next(&w->rng),
        .allocator = { .alloc = sim_alloc, .free = sim_free, .context = w },
        .now_us = w->now_us,
        .wall_offset_us = INT64_C(1700000000) * 1000000,
    };
    w->history = history_new();
    w->server =
        w->cluster == NULL ? server_new(w) : &w->cluster->nodes[0]->server;
    server_deny_fence(w->server, w->settings.rate[FAULT_NO_FENCE] > 0);
    for (unsigned i = 0; w->cluster != NULL && i < w->cluster->n_nodes; i++) {
        server_deny_fence(&w->cluster->nodes[i]->server,
                          w->settings.rate[FAULT_NO_FENCE] > 0);
    }
    w->fired[FAULT_NO_FENCE] += w->settings.rate[FAULT_NO_FENCE] > 0;
    w->engine = engine_new(&engine);
    drain(w);
    w->n_clients = w->settings.clients;
    w->clients = must_alloc(w->n_clients * sizeof(struct client *));
    for (unsigned i = 0; i < w->n_clients; i++) {
        w->clients[i] = client_new(w, i);
    }
    world_wake(w, FAULT_TICK_US, WAKE_FAULT, NULL, 0);
    return true;
}

static void lose_the_rest(struct world *w)
{
    for (unsigned i = 0; i < w->n_clients; i++) {
        client_give_up(w, w->clients[i]);
    }
}

static void world_close(struct world *w)
{
    if (w->block != NULL) {
        buf_unref(engine_memory(w->engine), w->block);
    }
    engine_free(w->engine);
    if (w->blocks != 0) {
        world_violate(w, "I13: %ld blocks of memory are left", w->blocks);
    }
    for (unsigned i = 0; i < w->n_clients; i++) {
        client_free(w->clients[i]);
    }
    for (size_t i = 0; i < w->n_retired; i++) {
        client_free(w->retired[i]);
    }
    for (size_t i = 0; i < w->n_links; i++) {
        link_free(w->links[i]);
    }
    free(w->clients);
    free(w->retired);
    free(w->links);
    free(w->dirty);
    free(w->heap);
    if (w->cluster == NULL) {
        server_free(w->server);
    }
    cluster_free(w->cluster);
    history_free(w->history);
    config_free(w->config);
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

struct run_result world_run(const struct run_options *options)
{
    struct world *w = must_alloc(sizeof *w);
    struct run_result result = { 0 };
    if (!world_open(w, options)) {
        result.broken = true;
        settings_free(&w->settings);
        free(w);
        return result;
    }
    aborting = w;
    signal(SIGABRT, on_abort);
    play(w);
    history_sum(w, &result);
    memcpy(result.fired, w->fired, sizeof result.fired);
    result.hash = w->hash;
    result.events = w->events;
    result.virtual_us = w->now_us - w->begin_us;
    result.memory_peak = w->memory_peak;
    world_close(w);
    aborting = NULL;
    result.broken = world_broken(w);
    if (result.broken) {
        report(w);
    }
    settings_free(&w->settings);
    free(w);
    return result;
}
