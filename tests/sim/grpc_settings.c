/* What is drawn for a seed of gRPC: options with small limits, so that they are
 * met often, and the load. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/grpc_model.h"

enum {
    LONG_WAIT_MS = 3000
};

/* Faults of the network and of hosts; the others are those of Redis. */
static const struct {
    enum fault fault;
    uint32_t rate_max;
} rates[] = {
    { FAULT_REFUSE, 3000 },      { FAULT_SYN_LOST, 1000 },
    { FAULT_DNS, 2000 },         { FAULT_RESET_OUT, 3000 },
    { FAULT_RESET_IN, 3000 },    { FAULT_HOLE_OUT, 200 },
    { FAULT_HOLE_IN, 200 },      { FAULT_HOLE_BOTH, 100 },
    { FAULT_HALF_CLOSE, 200 },   { FAULT_SLICES, 8000 },
    { FAULT_SHORT_WRITE, 5000 }, { FAULT_SLOW_READER, 2000 },
    { FAULT_LEAVER, 100 },       { FAULT_KILL, 100 },
    { FAULT_STOP, 100 },         { FAULT_CLIENT_KILL, 200 },
    { FAULT_MEMORY, 60 },
};

static void draw_rates(struct world *w, uint32_t faults)
{
    for (size_t i = 0; i < sizeof rates / sizeof rates[0]; i++) {
        bool on = chance(w, 1, 2) && (faults & 1u << rates[i].fault) != 0;
        uint32_t rate = (uint32_t)pick(w, 1, rates[i].rate_max);
        w->settings.rate[rates[i].fault] = on ? rate : 0;
    }
    if (chance(w, 2, 3)) {
        w->settings.rate[FAULT_MEMORY] = 0;
    }
    if ((faults & 1u << FAULT_DRAIN) != 0 && chance(w, 1, 10)) {
        w->settings.rate[FAULT_DRAIN] = 30;
    }
}

static size_t set_word(struct world *w,
                       const char *key,
                       const char *const *words,
                       size_t n)
{
    size_t i = (size_t)pick(w, 0, n - 1);
    settings_set_text(w, key, words[i]);
    return i;
}

#define WORDS(...)                        \
    (const char *const[]){ __VA_ARGS__ }, \
        sizeof((const char *const[]){ __VA_ARGS__ }) / sizeof(char *)

static void draw_retries(struct world *w, struct grpc_settings *s)
{
    static const uint32_t codes[] = {
        1 << GRPC_UNAVAILABLE, 1 << GRPC_UNAVAILABLE | 1 << GRPC_ABORTED,
        1 << GRPC_INTERNAL | 1 << GRPC_UNKNOWN | 1 << GRPC_CANCELLED,
        1 << GRPC_UNAVAILABLE | 1 << GRPC_RESOURCE_EXHAUSTED
    };
    static const uint32_t attempts[] = { 0, 1, 2, 4, 4, 3, 5 };
    s->blanket = chance(w, 2, 3);
    if (s->blanket) {
        uint64_t retries = pick(w, 1, 4);
        settings_set(w, "upstream.max_retry_attempts", retries, "");
        s->attempts = (uint32_t)retries + 1;
        s->codes = codes[set_word(w, "upstream.retryable_status_codes",
                                  WORDS("UNAVAILABLE", "UNAVAILABLE,ABORTED",
                                        "INTERNAL,unknown,1",
                                        "14,RESOURCE_EXHAUSTED"))];
    } else if (chance(w, 1, 4)) {
        settings_set(w, "upstream.max_retry_attempts", 0, "");
        s->disabled = true;
    }
    s->has_explicit = chance(w, 3, 4);
    s->own_codes = codes[pick(w, 0, 3)];
    s->own_attempts = attempts[pick(w, 2, 6)];
    s->own_timeout_us = chance(w, 1, 4) ? pick(w, 50000, 2000000) : 0;
    s->ambiguous = (enum grpc_ambiguous)pick(w, 0, 3);
    settings_set_text(w, "upstream.ambiguous",
                      (const char *const[]){ "auto", "policy", "idempotent",
                                             "never" }[s->ambiguous]);
    s->retries =
        chance(w, 5, 6) ? GRPC_RETRIES_FULL : (enum grpc_retries)pick(w, 1, 2);
    settings_set_text(w, "upstream.retries",
                      (const char *const[]){ "full", "transparent",
                                             "off" }[s->retries]);
    s->share = chance(w, 1, 2);
    settings_set_text(w, "upstream.stacked_attempts",
                      s->share ? "share" : "ignore");
    s->stop = (enum grpc_stop_client)pick(w, 0, 2);
    settings_set_text(w, "upstream.stop_client_retries",
                      (const char *const[]){ "auto", "always",
                                             "never" }[s->stop]);
    settings_set_text(w, "upstream.idempotent_methods", "/sim.Safe/*");
    settings_set_text(w, "upstream.no_retry_methods", "/sim.Never/Do");
}

static void draw_pace(struct world *w, struct grpc_settings *s)
{
    settings_set(w, "upstream.initial_backoff", pick(w, 1, 60), "ms");
    settings_set(w, "upstream.max_backoff", pick(w, 60, 300), "ms");
    set_word(w, "upstream.backoff_multiplier", WORDS("2", "1", "0.5", "3.7"));
    settings_set(w, "upstream.refused_transparent_max", pick(w, 0, 3), "");
    settings_set(w, "upstream.max_pushback", pick(w, 1, 400), "ms");
    if (chance(w, 1, 3)) {
        settings_set(w, "upstream.throttle_max_tokens", pick(w, 0, 20), "");
        set_word(w, "upstream.throttle_token_ratio", WORDS("0.1", "1", "5"));
    }
    if (chance(w, 1, 3)) {
        settings_set(w, "upstream.max_concurrent_retries", pick(w, 0, 6), "");
        settings_set(w, "upstream.max_concurrent_retry_percent", pick(w, 0, 40),
                     "");
    }
    s->attempt_timeout = chance(w, 1, 4);
    if (s->attempt_timeout) {
        settings_set(w, "upstream.per_attempt_timeout",
                     pick(w, 20, 500) + w->settings.latency_us * 6 / 1000,
                     "ms");
    }
    if (chance(w, 1, 4)) {
        s->longest_call_us =
            1000 * settings_set(w, "upstream.max_call_duration",
                                pick(w, 100, 3000), "ms");
    }
}

static void draw_buffers(struct world *w, struct grpc_settings *s)
{
    if (chance(w, 1, 4)) {
        settings_set_text(w, "upstream.hold_headers", "off");
    }
    if (chance(w, 1, 2)) {
        settings_set(w, "upstream.hold_headers_max", pick(w, 0, 100), "ms");
    }
    if (chance(w, 2, 3)) {
        settings_set(w, "upstream.retry_buffer_per_call", pick(w, 16, 80),
                     "KiB");
    }
    if (chance(w, 1, 3)) {
        settings_set(w, "grpc.retry_buffer_total", 1, "MiB");
    }
    s->connection_window = 16 << 20;
    if (chance(w, 2, 3)) {
        settings_set(w, "upstream.upstream_stream_window", pick(w, 64, 100),
                     "KiB");
        s->connection_window =
            1024 * settings_set(w, "upstream.upstream_connection_window",
                                pick(w, 64, 200), "KiB");
    }
    if (chance(w, 1, 6)) {
        s->message_max_in =
            (uint32_t)settings_set(w, "upstream.max_request_message_bytes",
                                   pick(w, 0, 20000), "");
    }
    if (chance(w, 1, 6)) {
        s->message_max_out =
            (uint32_t)settings_set(w, "upstream.max_response_message_bytes",
                                   pick(w, 0, 20000), "");
    }
    if (s->huge) {
        settings_set(w, "grpc.memory_high", 16, "MiB");
        s->small_limits = true;
    }
    if (chance(w, 1, 3)) {
        settings_set(w, "listener.max_header_list_size", pick(w, 4, 16), "KiB");
        settings_set(w, "upstream.max_header_list_size", pick(w, 4, 16), "KiB");
    }
    if (chance(w, 1, 8)) {
        settings_set(w, "grpc.max_calls", pick(w, 1, 10), "");
        s->small_limits = true;
    }
    if (chance(w, 1, 8)) {
        settings_set(w, "upstream.max_queued_calls", pick(w, 0, 5), "");
        s->small_limits = true;
    }
}

static void draw_connections(struct world *w, struct grpc_settings *s)
{
    uint64_t slow_ms = w->settings.latency_us * 12 / 1000;
    uint64_t connect_ms = slow_ms + pick(w, 50, 1000);
    uint64_t max_ms = pick(w, 200, 1500);
    set_word(w, "upstream.lb",
             WORDS("pick_first", "round_robin", "least_request"));
    if (chance(w, 1, 3)) {
        settings_set_text(w, "upstream.shuffle_addresses", "yes");
    }
    if (chance(w, 1, 3)) {
        settings_set_text(w, "upstream.wait_for_ready", "no");
    }
    if (chance(w, 1, 3)) {
        s->small_limits |=
            settings_set(w, "upstream.max_wait_for_ready", pick(w, 50, 5000),
                         "ms") <
            LONG_WAIT_MS; /* it may be all that busy hosts leave */
    }
    settings_set(w, "upstream.connect_timeout", connect_ms, "ms");
    settings_set(w, "upstream.reconnect_initial_backoff", pick(w, 5, 200),
                 "ms");
    settings_set(w, "upstream.reconnect_max_backoff", max_ms, "ms");
    settings_set(w, "upstream.dns_refresh", pick(w, 1, 10), "s");
    settings_set(w, "upstream.dns_min_interval", 1, "s");
    settings_set(w, "upstream.max_connections_per_endpoint", pick(w, 1, 4), "");
    if (chance(w, 1, 3)) {
        settings_set(w, "upstream.max_streams_per_connection", pick(w, 1, 8),
                     "");
    }
    if (chance(w, 1, 3)) {
        settings_set(w, "upstream.keepalive_time", 10, "s");
        settings_set(w, "upstream.keepalive_timeout",
                     slow_ms + pick(w, 100, 5000), "ms");
        set_word(w, "upstream.keepalive_permit_without_calls",
                 WORDS("yes", "no"));
    }
    if (chance(w, 1, 2)) {
        settings_set(w, "upstream.idle_probe", pick(w, 1, 3), "s");
        settings_set(w, "upstream.idle_probe_timeout",
                     slow_ms + pick(w, 10, 500), "ms");
    }
    if (chance(w, 1, 4)) {
        settings_set(w, "upstream.upstream_max_connection_age", pick(w, 1, 4),
                     "s");
    }
    settings_set(w, "upstream.drain_timeout", pick(w, 0, 4000), "ms");
    s->settle_us = 1000 * (max_ms * 2 + connect_ms * 2) + 12000000;
}

static void draw_listener(struct world *w, struct grpc_settings *s)
{
    if (chance(w, 1, 2)) {
        settings_set(w, "listener.max_concurrent_streams", pick(w, 1, 12), "");
    }
    if (chance(w, 1, 6)) {
        settings_set(w, "listener.max_connection_idle", pick(w, 20, 2000),
                     "ms");
    }
    if (chance(w, 1, 4)) {
        settings_set(w, "listener.max_connection_age", pick(w, 100, 3000),
                     "ms");
        if (chance(w, 1, 2)) {
            settings_set(w, "listener.max_connection_age_grace",
                         pick(w, 1, 2000), "ms");
            s->age_grace = true;
        }
    }
    if (chance(w, 1, 6)) {
        settings_set(w, "listener.server_keepalive_time", pick(w, 500, 5000),
                     "ms");
    }
}

void grpc_settings_draw(struct world *w, const struct run_options *options)
{
    struct settings *s = &w->settings;
    struct grpc_settings *g = &w->grpc->s;
    s->requests = options->requests;
    draw_rates(w, options->faults);
    s->clients = (unsigned)pick(w, 1, 6);
    s->depth_max = (unsigned)(chance(w, 1, 3) ? 1 : pick(w, 2, 12));
    s->latency_us = pick(w, 20, chance(w, 1, 4) ? 20000 : 1000);
    s->think_us = pick(w, 500, 30000);
    s->big_values = chance(w, 1, 3);
    s->lazy_drain = chance(w, 1, 2);
    w->grpc->n_hosts = (unsigned)pick(w, 1, HOSTS_MAX);
    g->by_name = chance(w, 1, 3);
    g->huge = chance(w, 1, 16);
    draw_retries(w, g);
    draw_pace(w, g);
    draw_buffers(w, g);
    draw_connections(w, g);
    draw_listener(w, g);
}

uint32_t message_size(struct world *w)
{
    uint64_t most = w->settings.big_values && chance(w, 1, 4) ? 60000 : 800;
    if (w->grpc->s.huge && chance(w, 1, 8)) {
        most = 400000;
    }
    return chance(w, 1, 8) ? 0 : (uint32_t)pick(w, 0, most);
}

/* The window of a peer's streams: mostly that of HTTP/2. */
uint32_t window_draw(struct world *w)
{
    static const uint32_t windows[] = { 65535, 65535, 65535, 1000, 20000 };
    return windows[pick(w, 0, 4)];
}

static char *copied(const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = must_alloc(size);
    memcpy(copy, text, size);
    return copy;
}

void grpc_settings_policy(struct world *w)
{
    const struct grpc_settings *s = &w->grpc->s;
    struct grpc_config *c = &w->config->upstreams[0].grpc;
    static const char path[] = "/sim.Own/";
    if (!s->has_explicit) {
        return;
    }
    c->methods = must_alloc(sizeof *c->methods);
    c->n_methods = 1;
    c->methods[0] = (struct grpc_method){
        .service = copied("sim.Own"),
        .path = copied(path),
        .path_hash = grpc_method_hash(span_of(path)),
        .policy = c->others,
    };
    struct grpc_policy *p = &c->methods[0].policy;
    p->retry = true;
    p->is_explicit = true;
    p->max_attempts = s->own_attempts;
    p->initial_backoff_us = 20000;
    p->max_backoff_us = 200000;
    p->multiplier = 1.5;
    p->codes = s->own_codes;
    if (s->own_timeout_us > 0) {
        p->timeout_us = s->own_timeout_us;
    }
}
