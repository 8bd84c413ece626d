#include "tests/sim/world.h"

#include <ctype.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    BEGIN_US = 1000000,
    FAULT_TICK_US = 5000,
    LIMITS_EVERY = 64,         /* events between two looks at the limits */
    STEPS_WITHOUT_TIME = 2000, /* more of them: it spins */
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

void world_drain(struct world *w)
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

/* --- things that happen ------------------------------------------------ */

static void tick(struct world *w)
{
    if (w->healed) {
        return;
    }
    world_wake(w, FAULT_TICK_US, WAKE_FAULT, NULL, 0);
    net_strike(w);
    w->model->tick(w);
    if (strikes(w, FAULT_MEMORY)) {
        w->memory_fails = true;
        world_wake(w, pick(w, 100, 20000), WAKE_MEMORY, NULL, 0);
    }
    if (!w->draining && strikes(w, FAULT_DRAIN)) {
        world_finish(w);
    }
}

void world_finish(struct world *w)
{
    w->draining = true;
    world_note(w, "drain", NULL, 0, (struct span){ 0 });
    world_step(w, (struct event){ .type = EVENT_DRAIN });
}

void world_heal(struct world *w)
{
    w->healed = true;
    w->healed_us = w->now_us;
    w->memory_fails = false;
    world_note(w, "healed", NULL, 0, (struct span){ 0 });
    net_heal(w);
    w->model->heal(w);
    world_drain(w);
}

static void happen(struct world *w, const struct sleeper *s)
{
    switch (s->why) {
    case WAKE_CONNECT:
    case WAKE_RESOLVE:
    case WAKE_OUT:
    case WAKE_IN:
    case WAKE_CLOSED: net_wake(w, s); break;
    case WAKE_FAULT: tick(w); break;
    case WAKE_MEMORY: w->memory_fails = false; break;
    default: w->model->wake(w, s); break;
    }
}

bool world_turn(struct world *w, uint64_t until_us)
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
        world_drain(w);
    }
    if (w->events % LIMITS_EVERY == 0) {
        w->model->check_limits(w);
    }
    return !world_broken(w);
}

/* --- one run ----------------------------------------------------------- */

bool world_load(struct world *w, const char *url)
{
    struct config_problems problems = { 0 };
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

/* An engine, and whatever stands at the other ends of its connections. */
static bool world_open(struct world *w, const struct run_options *options)
{
    w->seed = options->seed;
    w->now_us = BEGIN_US;
    w->begin_us = BEGIN_US;
    w->trace = options->trace;
    w->model = options->grpc ? &grpc_model : &redis_model;
    rng_init(&w->rng, options->seed);
    if (!w->model->open(w, options)) {
        return false;
    }
    struct engine_options engine = {
        .config = w->config,
        .seed = rng_next(&w->rng),
        .allocator = { .alloc = sim_alloc, .free = sim_free, .context = w },
        .now_us = w->now_us,
        .wall_offset_us = INT64_C(1700000000) * 1000000,
    };
    w->engine = engine_new(&engine);
    world_drain(w);
    w->model->begin(w);
    world_wake(w, FAULT_TICK_US, WAKE_FAULT, NULL, 0);
    return true;
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
    w->model->close(w);
    for (size_t i = 0; i < w->n_links; i++) {
        link_free(w->links[i]);
    }
    free(w->links);
    free(w->dirty);
    free(w->heap);
    config_free(w->config);
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
    w->model->play(w);
    w->model->sum(w, &result);
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
