/* What is drawn for a seed: rates of faults, the load, and options of redial,
 * whose limits are small so that they are met often. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/world.h"

/* Time limits leave room for so many times the way of a byte. */
enum {
    ROUNDS = 12
};

static const struct {
    enum fault fault;
    uint32_t rate_max; /* per ten thousand decisions */
} rates[] = {
    { FAULT_REFUSE, 3000 },      { FAULT_SYN_LOST, 1000 },
    { FAULT_DNS, 2000 },         { FAULT_RESET_OUT, 4000 },
    { FAULT_RESET_IN, 4000 },    { FAULT_HOLE_OUT, 300 },
    { FAULT_HOLE_IN, 300 },      { FAULT_HOLE_BOTH, 200 },
    { FAULT_HALF_CLOSE, 300 },   { FAULT_SLICES, 9000 },
    { FAULT_SHORT_WRITE, 5000 }, { FAULT_SLOW_READER, 3000 },
    { FAULT_LEAVER, 100 },       { FAULT_KILL, 150 },
    { FAULT_STOP, 150 },         { FAULT_CLIENT_KILL, 300 },
    { FAULT_LOADING, 200 },      { FAULT_READONLY, 200 },
    { FAULT_MEMORY, 60 },
};

static void draw_rates(struct world *w, uint32_t faults)
{
    for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++) {
        bool on = chance(w, 1, 2);
        uint32_t rate = (uint32_t)pick(w, 1, rates[i].rate_max);
        bool allowed = faults & 1u << rates[i].fault;
        w->settings.rate[rates[i].fault] = on && allowed ? rate : 0;
    }
    if (w->settings.rate[FAULT_KILL] > 0 && (faults & 1u << FAULT_LOADING)) {
        w->settings.rate[FAULT_LOADING] += 20;
    }
    if (faults & 1u << FAULT_MEMORY && chance(w, 2, 3)) {
        w->settings.rate[FAULT_MEMORY] = 0;
    }
    if (faults & 1u << FAULT_NO_FENCE && chance(w, 1, 6)) {
        w->settings.rate[FAULT_NO_FENCE] = 10000;
    }
    if (faults & 1u << FAULT_DRAIN && chance(w, 1, 10)) {
        w->settings.rate[FAULT_DRAIN] = 30;
    }
}

static const struct {
    enum fault fault;
    uint32_t rate_max;
} cluster_rates[] = {
    { FAULT_MIGRATE, 1500 },   { FAULT_FAILOVER, 150 }, { FAULT_GRACEFUL, 150 },
    { FAULT_SPLIT_VIEW, 900 }, { FAULT_JOIN, 40 },      { FAULT_LEAVE, 30 },
    { FAULT_DOWN, 150 },       { FAULT_HOSTILE, 120 },
};

static void draw_cluster_rates(struct world *w, uint32_t faults)
{
    uint32_t *rate = w->settings.rate;
    for (size_t i = 0; i < sizeof cluster_rates / sizeof cluster_rates[0];
         i++) {
        enum fault fault = cluster_rates[i].fault;
        bool on = chance(w, 2, 3) && faults & 1u << fault;
        uint32_t drawn = (uint32_t)pick(w, 1, cluster_rates[i].rate_max);
        rate[fault] = on ? drawn : 0;
    }
    if (faults & 1u << FAULT_NO_HOST && chance(w, 1, 8)) {
        rate[FAULT_NO_HOST] = 10000;
    } else if (faults & 1u << FAULT_HOSTNAMES && chance(w, 1, 6)) {
        rate[FAULT_HOSTNAMES] = 10000;
    }
    rate[FAULT_READONLY] = 0; /* a node of a cluster says MOVED */
}

void settings_set_text(struct world *w, const char *key, const char *value)
{
    struct settings *s = &w->settings;
    size_t size = strlen(key) + strlen(value) + 2;
    char *text = must_alloc(size);
    if (s->n_drawn == SETS_MAX) {
        abort();
    }
    snprintf(text, size, "%s=%s", key, value);
    s->drawn[s->n_drawn++] = text;
}

uint64_t settings_set(struct world *w,
                      const char *key,
                      uint64_t number,
                      const char *unit)
{
    char value[48];
    snprintf(value, sizeof value, "%" PRIu64 "%s", number, unit);
    settings_set_text(w, key, value);
    return number;
}

static void set_word(struct world *w,
                     const char *key,
                     const char *const *words,
                     size_t n)
{
    settings_set_text(w, key, words[pick(w, 0, n - 1)]);
}

#define WORDS(...)                        \
    (const char *const[]){ __VA_ARGS__ }, \
        sizeof((const char *const[]){ __VA_ARGS__ }) / sizeof(char *)

static void draw_retry(struct world *w)
{
    uint64_t slow_ms = w->settings.latency_us * ROUNDS / 1000;
    set_word(w, "upstream.replay",
             WORDS("none", "read", "idempotent", "idempotent", "idempotent",
                   "convergent", "all"));
    set_word(w, "upstream.backoff",
             WORDS("constant", "none", "exponential", "full_jitter",
                   "equal_jitter", "decorrelated_jitter",
                   "exponential_with_jitter"));
    settings_set(w, "upstream.backoff_base", pick(w, 100, 20000), "us");
    settings_set(w, "upstream.backoff_cap", pick(w, 20, 500), "ms");
    set_word(w, "upstream.retries", WORDS("3", "3", "0", "1", "10", "-1"));
    set_word(w, "upstream.deadline", WORDS("10s", "10s", "2s", "300ms"));
    if (chance(w, 1, 2)) {
        settings_set(w, "upstream.attempt_timeout", slow_ms + pick(w, 20, 800),
                     "ms");
    }
    if (chance(w, 1, 3)) {
        settings_set(w, "upstream.budget_ratio", pick(w, 0, 50), "%");
        settings_set(w, "upstream.budget_min", pick(w, 0, 20), "");
        settings_set(w, "upstream.budget_burst", pick(w, 1, 30), "");
    }
    if (chance(w, 1, 8)) {
        set_word(w, "upstream.retry_on_timeout", WORDS("no"));
    }
    if (chance(w, 1, 12)) {
        set_word(w, "upstream.retry", WORDS("off"));
    }
    if (chance(w, 1, 6)) {
        settings_set(w, "upstream.fail_fast_after", pick(w, 50, 3000), "ms");
    }
}

static void draw_limits(struct world *w)
{
    uint64_t slow_ms = w->settings.latency_us * ROUNDS / 1000;
    settings_set(w, "upstream.shared_lanes", pick(w, 1, 3), "");
    if (chance(w, 1, 8)) {
        set_word(w, "upstream.lanes", WORDS("private"));
    }
    if (chance(w, 1, 2)) {
        settings_set(w, "listener.pipeline_max", pick(w, 1, 8), "");
    }
    if (chance(w, 1, 3)) {
        settings_set(w, "upstream.replay_bytes_max", pick(w, 30, 4000), "");
    }
    if (chance(w, 1, 3)) {
        settings_set(w, "upstream.reply_hold_max", pick(w, 100, 4000), "");
    }
    if (chance(w, 1, 4)) {
        settings_set(w, "upstream.lane_buffer_max", pick(w, 16, 64), "KiB");
    }
    if (chance(w, 1, 4)) {
        settings_set(w, "listener.client_buffer_max", pick(w, 16, 64), "KiB");
    }
    if (chance(w, 1, 8)) {
        settings_set(w, "upstream.held_requests_max", pick(w, 1, 50), "");
    }
    if (chance(w, 1, 8)) {
        settings_set(w, "upstream.private_lanes_max", pick(w, 0, 5), "");
    }
    settings_set(w, "upstream.connect_timeout", slow_ms + pick(w, 50, 1000),
                 "ms");
    settings_set(w, "upstream.handshake_timeout", slow_ms + pick(w, 100, 2000),
                 "ms");
    settings_set(w, "upstream.ping_idle", pick(w, 50, 30000), "ms");
    settings_set(w, "upstream.ping_timeout", slow_ms + pick(w, 50, 1000), "ms");
}

static void draw_load(struct world *w)
{
    struct settings *s = &w->settings;
    s->clients = (unsigned)pick(w, 1, 12);
    s->depth_max = (unsigned)(chance(w, 1, 3) ? 1 : pick(w, 2, 40));
    s->latency_us = pick(w, 20, chance(w, 1, 4) ? 20000 : 1000);
    s->think_us = pick(w, 500, 30000);
    s->big_values = chance(w, 1, 3);
    s->sessions = chance(w, 1, 2);
    s->transactions = chance(w, 1, 2);
    s->own_auth = chance(w, 1, 4);
    s->password = s->own_auth ? chance(w, 1, 2) : chance(w, 1, 10);
    s->by_name = chance(w, 1, 4);
    s->lazy_drain = chance(w, 1, 2);
    s->never_reads = chance(w, 1, 6) && s->clients > 1;
}

static void draw_cluster(struct world *w, const struct run_options *options)
{
    struct settings *s = &w->settings;
    s->cluster = true;
    s->primaries = (unsigned)pick(w, 3, 6);
    s->replicas = (unsigned)pick(w, 0, 2);
    draw_cluster_rates(w, options->faults);
    s->password = s->password && s->own_auth; /* else nobody may ask */
    s->splits = chance(w, 9, 10);
    s->scans = chance(w, 1, 2);
    s->reads_replicas = s->replicas > 0 && chance(w, 1, 4);
    s->replica_each = s->reads_replicas && chance(w, 1, 4);
    if (s->replica_each) { /* else reads would wait for ever */
        s->rate[FAULT_JOIN] = 0;
        set_word(w, "upstream.read_from", WORDS("replica"));
    } else if (s->reads_replicas) {
        set_word(w, "upstream.read_from", WORDS("prefer_replica", "any"));
    }
    if (s->rate[FAULT_HOSTNAMES] > 0 || s->by_name) {
        set_word(w, "upstream.allow_nodes", WORDS("10.0.0.0/16, *.redis.test"));
    }
    settings_set(w, "upstream.topology_min_interval", pick(w, 5, 200), "ms");
    settings_set(w, "upstream.topology_refresh", pick(w, 1, 30), "s");
    if (chance(w, 1, 3)) {
        settings_set(w, "upstream.silence_probe", pick(w, 100, 1500), "ms");
    }
    if (chance(w, 1, 4)) {
        settings_set(w, "upstream.node_retries", pick(w, 1, 5), "");
    }
}

void settings_draw(struct world *w, const struct run_options *options)
{
    w->settings.requests = options->requests;
    draw_rates(w, options->faults);
    draw_load(w);
    draw_retry(w);
    draw_limits(w);
    if (options->cluster) {
        draw_cluster(w, options);
    }
    if (options->stateful) {
        w->settings.stateful = true;
        w->settings.frozen_ids = true;
        w->settings.habits = options->habits;
        w->settings.newer = chance(w, 1, 3);
        if (chance(w, 1, 8)) {
            set_word(w, "listener.on_pubsub_gap", WORDS("close"));
        }
    }
}

void settings_free(struct settings *s)
{
    for (size_t i = 0; i < s->n_drawn; i++) {
        free(s->drawn[i]);
    }
}
