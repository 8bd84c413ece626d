/* A world with gRPC at the other ends: what its phases are and what is
 * checked. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/grpc_model.h"

enum {
    PHASE_MAX_US = 900000000,
    GRACE_US = 20000000, /* for all that was open when it healed */
    REST_US = 40000000,  /* longer than any stall and keepalive */
    PROBES = 6,
    PORT = 50051,
    MEMORY_MAX = 256 * 1024 * 1024,
    UNGRANTED = 3, /* at least a third stays */
};

/* ---- phases ---- */

static bool everybody_idle(const struct world *w)
{
    const struct grpc_world *g = w->grpc;
    for (unsigned i = 0; i < g->n_callers; i++) {
        if (!caller_idle(g->callers[i])) {
            return false;
        }
    }
    return true;
}

static void note_waiting(struct world *w)
{
    const struct grpc_world *g = w->grpc;
    for (unsigned i = 0; i < g->n_callers; i++) {
        const struct caller *c = g->callers[i];
        for (unsigned k = 0; k < c->n_calls; k++) {
            world_note(w, "waits", c->link, c->calls[k]->id,
                       (struct span){ 0 });
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

/* All is well again: every call that is open ends. */
static void phase_liveness(struct world *w)
{
    uint64_t until_us = w->now_us + GRACE_US + w->grpc->s.settle_us +
                        400 * w->settings.latency_us;
    w->finished = true;
    world_heal(w);
    while (!everybody_idle(w) && world_turn(w, until_us)) {
    }
    if (!everybody_idle(w) && !world_broken(w)) {
        note_waiting(w);
        world_violate(w, "I14: calls are open %" PRIu64 "us after the healing",
                      w->now_us - w->healed_us);
    }
}

/* Why a call that is made when all is well may end otherwise than with OK. */
static bool is_excused(const struct world *w, const struct call *c)
{
    const struct grpc_settings *s = &w->grpc->s;
    bool too_large = (s->message_max_in | s->message_max_out) != 0;
    bool too_long = c->deadline_us != 0 || s->attempt_timeout;
    return s->small_limits || too_large || too_long || s->age_grace ||
           c->ending == CALL_REFUSED;
}

/* New calls succeed. */
static void phase_probe(struct world *w)
{
    struct grpc_world *g = w->grpc;
    uint64_t until_us = w->now_us + g->s.settle_us;
    while (world_turn(w, until_us)) {
    }
    uint32_t from = g->n_calls;
    g->probing = true;
    w->settings.requests = w->sent + (uint64_t)PROBES * g->n_callers;
    w->finished = false;
    until_us = w->now_us + 30000000;
    while (w->sent < w->settings.requests && world_turn(w, until_us)) {
    }
    w->finished = true;
    until_us += GRACE_US;
    while (!everybody_idle(w) && world_turn(w, until_us)) {
    }
    if (!everybody_idle(w) && !world_broken(w)) {
        note_waiting(w);
        world_violate(w, "I14: new calls do not end after the healing");
    }
    for (uint32_t i = from; i < g->n_calls; i++) {
        const struct call *c = g->calls[i];
        if (c->status != GRPC_OK && !is_excused(w, c)) {
            world_violate(w,
                          "I14: call %" PRIu32 " ends with %d although all is "
                          "well",
                          c->id, c->status);
        }
    }
}

static void phase_drain(struct world *w)
{
    uint64_t until_us =
        w->now_us + w->config->process.drain_timeout_us + 5000000;
    bool healthy = !w->draining;
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

/* ---- what must be true ---- */

static void check_limits(struct world *w)
{
    struct grpc_stats s = { 0 };
    engine_grpc_stats(w->engine, 0, &s);
    if (s.log_bytes > w->config->process.grpc.retry_buffer_total) {
        world_violate(w, "FL4: %" PRIu64 " bytes are kept for replay",
                      s.log_bytes);
    }
    if (s.calls_active > w->config->process.grpc.max_calls) {
        world_violate(w, "V7: %" PRIu64 " calls", s.calls_active);
    }
    if (s.calls_waiting > w->upstream->grpc.max_queued_calls) {
        world_violate(w, "W4: %" PRIu64 " calls wait", s.calls_waiting);
    }
    uint64_t retries = w->upstream->grpc.max_concurrent_retries +
                       w->upstream->grpc.max_concurrent_retry_percent *
                           w->config->process.grpc.max_calls / 100;
    if (s.retries_active > retries) {
        world_violate(w, "Q7: %" PRIu64 " retries", s.retries_active);
    }
    if (w->memory_bytes > MEMORY_MAX) {
        world_violate(w, "I11: the engine holds %zu bytes", w->memory_bytes);
    }
}

/* A connection's window at rest: what was sent has been given back, but for
 * what is not worth a frame yet: half of it to the library, some to h2.c. */
static void check_window(struct world *w,
                         const char *whose,
                         uint64_t window,
                         uint64_t granted,
                         uint64_t sent)
{
    uint64_t left = 65535 + granted - sent;
    if (left < window / UNGRANTED) {
        world_violate(w,
                      "FL2: at rest a %s may send %" PRIu64
                      " bytes of %" PRIu64,
                      whose, left, window);
    }
}

static void check_ports(struct world *w)
{
    struct grpc_world *g = w->grpc;
    for (unsigned i = 0; i < g->n_hosts; i++) {
        for (const struct port *p = g->hosts[i].ports; p != NULL; p = p->next) {
            if (p->over || p->link == NULL || !p->link->engine_open ||
                p->blind_from != 0) {
                continue;
            }
            if (p->n_streams > 0) {
                world_violate(w, "I4: %" PRIu64 " streams are left at host %u",
                              p->n_streams, i);
            }
            check_window(w, "host", g->s.connection_window, p->frames.granted,
                         p->data_sent);
        }
    }
}

/* I4 */
static void check_rest(struct world *w)
{
    struct grpc_world *g = w->grpc;
    struct grpc_stats s = { 0 };
    uint64_t until_us = w->now_us + REST_US;
    while (world_turn(w, until_us)) {
    }
    if (world_broken(w)) {
        return;
    }
    engine_grpc_stats(w->engine, 0, &s);
    uint64_t left = s.calls_active + s.calls_waiting + s.retries_active +
                    s.log_bytes + s.memory_bytes;
    if (left > 0) {
        world_violate(w,
                      "I4: at rest %" PRIu64 " calls, %" PRIu64
                      " waiting, %" PRIu64 " retries, %" PRIu64
                      " bytes in logs, %" PRIu64 " in all",
                      s.calls_active, s.calls_waiting, s.retries_active,
                      s.log_bytes, s.memory_bytes);
    }
    check_ports(w);
    for (unsigned i = 0; i < g->n_callers; i++) {
        const struct caller *c = g->callers[i];
        if (c->link != NULL && c->ready && !c->gone && !c->goaway) {
            check_window(w, "client", 16 << 20, c->frames.granted,
                         c->data_sent);
        }
    }
    check_limits(w);
}

static void play(struct world *w)
{
    phase_safety(w);
    if (!w->draining && !world_broken(w)) {
        phase_liveness(w);
        if (!world_broken(w)) {
            phase_probe(w);
        }
        if (!world_broken(w)) {
            check_rest(w);
        }
    }
    phase_drain(w);
    for (unsigned i = 0; i < w->grpc->n_callers; i++) {
        caller_give_up(w, w->grpc->callers[i]);
    }
    if (!world_broken(w)) {
        ledger_end(w);
    }
}

/* ---- sums ---- */

static void sum(struct world *w, struct run_result *result)
{
    const struct grpc_world *g = w->grpc;
    struct grpc_stats s = { 0 };
    engine_grpc_stats(w->engine, 0, &s);
    result->grpc = true;
    for (size_t i = 0; i < GRPC_CLASS_COUNT; i++) {
        result->calls.outcome[i] = s.attempt_outcomes[i];
    }
    for (size_t i = 0; i < GRPC_REASON_COUNT; i++) {
        result->calls.reason[i] = s.not_retried[i];
    }
    result->calls.overflow = s.log_overflow_call + s.log_overflow_total;
    for (size_t i = 0; i < GRPC_HELD_RESULTS; i++) {
        result->calls.held[i] = s.held_headers[i];
    }
    result->requests = g->n_calls;
    for (uint32_t i = 0; i < g->n_calls; i++) {
        const struct call *c = g->calls[i];
        bool ended = c->ending == CALL_STATUS;
        result->answered += ended && c->status == GRPC_OK;
        result->refused += ended && c->status != GRPC_OK && !c->from_redial;
        result->not_applied += ended && c->from_redial;
        result->lost += !ended;
        result->replays += c->n_runs > 1 ? c->n_runs - 1 : 0;
    }
}

/* ---- one run ---- */

static void begin(struct world *w)
{
    struct grpc_world *g = w->grpc;
    g->n_callers = w->settings.clients;
    g->callers = must_alloc(g->n_callers * sizeof(struct caller *));
    for (unsigned i = 0; i < g->n_callers; i++) {
        g->callers[i] = caller_new(w, i);
    }
}

static void close(struct world *w)
{
    struct grpc_world *g = w->grpc;
    for (unsigned i = 0; i < g->n_callers; i++) {
        caller_free(g->callers[i]);
    }
    for (size_t i = 0; i < g->n_retired; i++) {
        caller_free(g->retired[i]);
    }
    for (unsigned i = 0; i < g->n_hosts; i++) {
        host_fini(&g->hosts[i]);
    }
    for (size_t i = 0; i < g->n_runs; i++) {
        run_free(g->runs[i]);
    }
    grpc_ledger_free(g);
    free(g->callers);
    free(g->retired);
    free(g->runs);
    h2_memory_free(g->memory);
    free(g);
    w->grpc = NULL;
}

static bool open(struct world *w, const struct run_options *options)
{
    struct grpc_world *g = must_alloc(sizeof *g);
    char url[256] = "grpc://";
    w->grpc = g;
    g->memory = h2_memory_new(NULL);
    grpc_settings_draw(w, options);
    for (unsigned i = 0; i < g->n_hosts; i++) {
        size_t n = strlen(url);
        host_init(w, &g->hosts[i], i);
        snprintf(url + n, sizeof url - n, "%s10.0.0.%u:%u", i > 0 ? "," : "",
                 i + 1, (unsigned)PORT);
    }
    if (g->s.by_name) {
        snprintf(url, sizeof url, "grpc://grpc.test:%u", (unsigned)PORT);
    }
    if (!world_load(w, url)) {
        close(w);
        return false;
    }
    grpc_settings_policy(w);
    return true;
}

static void tick(struct world *w)
{
    struct grpc_world *g = w->grpc;
    host_strike(w, &g->hosts[pick(w, 0, g->n_hosts - 1)]);
}

static void wake(struct world *w, const struct sleeper *s)
{
    enum grpc_wake why = (enum grpc_wake)(s->number & 0xff);
    switch (why) {
    case GW_CALLER: caller_act(w, s->who); break;
    case GW_READ: caller_read(w, s->who); break;
    case GW_CALL:
    case GW_CREDIT:
    case GW_CANCEL:
    case GW_DEADLINE: caller_wake_call(w, s->who, why); break;
    case GW_RUN:
    case GW_RUN_CREDIT: run_wake(w, s->who, why); break;
    case GW_GOAWAY: port_goaway(w, s->who); break;
    case GW_CONTINUE: host_continue(w, s->who, s->number >> 8); break;
    case GW_RESTART: host_restart(w, s->who); break;
    }
}

static void heal(struct world *w)
{
    struct grpc_world *g = w->grpc;
    for (unsigned i = 0; i < g->n_hosts; i++) {
        host_heal(w, &g->hosts[i]);
    }
}

/* ---- the other ends ---- */

static void find(struct world *w, struct link *l, const struct address *address)
{
    static const char net[] = "10.0.0.";
    struct grpc_world *g = w->grpc;
    l->host = NULL;
    if (strncmp(address->host, net, sizeof net - 1) != 0) {
        return;
    }
    unsigned long host = strtoul(address->host + sizeof net - 1, NULL, 10);
    if (host >= 1 && host <= g->n_hosts && address->port == PORT) {
        l->host = &g->hosts[host - 1];
    }
}

static bool listens(const struct link *l)
{
    return l->host != NULL && l->host->up;
}

/* A name is any of the hosts, and in the end all of them. */
static size_t addresses(struct world *w,
                        const struct link *l,
                        struct address *list,
                        size_t max)
{
    const struct grpc_world *g = w->grpc;
    size_t n = 0;
    (void)l;
    unsigned first = (unsigned)pick(w, 0, g->n_hosts - 1);
    for (unsigned i = 0; i < g->n_hosts && n < max; i++) {
        if (w->healed || n == 0 || chance(w, 2, 3)) {
            list[n] = (struct address){ .port = PORT };
            snprintf(list[n].host, sizeof list[n].host, "10.0.0.%u",
                     (first + i) % g->n_hosts + 1);
            n++;
        }
    }
    return n;
}

static void accept(struct world *w, struct link *l)
{
    host_accept(w, l->host, l);
}

static void receive(struct world *w, struct link *l, struct span bytes)
{
    if (l->end == NULL) {
        return;
    }
    if (l->upstream) {
        port_receive(w, l->end, bytes);
    } else {
        caller_receive(w, l->end, bytes);
    }
}

static void hangup(struct world *w, struct link *l, bool reset)
{
    if (l->end == NULL) {
        return;
    }
    if (l->upstream) {
        port_hangup(w, l->end, reset);
    } else {
        caller_closed(w, l->end);
    }
}

static bool full(const struct link *l)
{
    if (l->end == NULL) {
        return false;
    }
    return l->upstream
               ? port_full(l->end)
               : ((const struct caller *)l->end)->unread.size > UNREAD_MAX;
}

static void wrote(struct world *w, struct link *l, struct span fresh)
{
    (void)w;
    if (l->end != NULL && l->upstream) {
        port_wrote(l->end, fresh);
    } else if (l->end != NULL) {
        caller_wrote(l->end, fresh);
    }
}

static void taken(struct world *w, struct link *l)
{
    (void)w;
    (void)l;
}

static void arrives(struct world *w, struct link *l, size_t n)
{
    if (l->end != NULL && !l->upstream) {
        caller_arrives(w, l->end, n);
    }
}

static void dropped(struct link *l)
{
    if (l->end != NULL && !l->upstream) {
        ((struct caller *)l->end)->engine_closed = true;
    }
}

const struct model grpc_model = {
    .open = open,
    .begin = begin,
    .play = play,
    .sum = sum,
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
    .wrote = wrote,
    .taken = taken,
    .arriving = taken,
    .arrives = arrives,
    .dropped = dropped,
};
