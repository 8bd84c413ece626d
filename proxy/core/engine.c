#include "proxy/core/engine.h"

#include <assert.h>

#include "proxy/core/input.h"
#include "proxy/core/state.h"

void engine_trace(struct engine *e, struct trace_record *record)
{
    if (e->tracer.emit != NULL) {
        record->now_us = e->now_us;
        e->tracer.emit(e->tracer.context, record);
    }
}

bool engine_reserve_timer(struct engine *e)
{
    uint32_t topologies = (uint32_t)e->config->n_upstreams;
    return timers_reserve(&e->timers, e->n_downstreams + e->n_upstreams +
                                          topologies + e->n_grpc_timers + 1);
}

void engine_trace_limit(struct engine *e,
                        const struct cluster *c,
                        const char *name)
{
    engine_trace(e, &(struct trace_record){
                        .type = TRACE_LIMIT,
                        .upstream = c != NULL ? c->config->name : NULL,
                        .reason = name });
}

static const struct conn_class *const conn_classes[CONN_KIND_COUNT] = {
    [CONN_DOWNSTREAM] = &downstream_class,
    [CONN_UPSTREAM] = &upstream_class,
};

const struct conn_class *conn_class_of(const struct conn *c)
{
    return conn_classes[c->kind];
}

static bool create_clusters(struct engine *e)
{
    const struct config *config = e->config;
    e->clusters = memory_take(e->memory,
                              (config->n_upstreams + 1) * sizeof(*e->clusters));
    e->listeners = memory_take(e->memory, (config->n_listeners + 1) *
                                              sizeof(*e->listeners));
    if (e->clusters == NULL || e->listeners == NULL) {
        return false;
    }
    for (size_t i = 0; i < config->n_upstreams; i++) {
        if (!cluster_init(e, &e->clusters[i], &config->upstreams[i])) {
            return false;
        }
    }
    for (size_t i = 0; i < config->n_listeners; i++) {
        const struct listener_config *l = &config->listeners[i];
        e->listeners[i].config = l;
        e->listeners[i].cluster = &e->clusters[l->upstream - config->upstreams];
    }
    return true;
}

struct engine *engine_new(const struct engine_options *options)
{
    const struct allocator *allocator =
        options->allocator.alloc != NULL ? &options->allocator : NULL;
    struct memory *memory = memory_new(allocator);
    if (memory == NULL) {
        return NULL;
    }
    struct engine *e = memory_take(memory, sizeof(*e));
    if (e == NULL) {
        memory_free(memory);
        return NULL;
    }
    e->memory = memory;
    e->config = options->config;
    e->now_us = options->now_us;
    e->wall_offset_us = options->wall_offset_us;
    e->workers = options->workers == 0 ? 1 : options->workers;
    e->tracer = options->tracer;
    rng_init(&e->rng, options->seed);
    timers_init(&e->timers, memory);
    list_init(&e->closed_lanes);
    list_init(&e->closed_links);
    pool_init(&e->requests, memory, sizeof(struct request));
    command_scanner_init(&e->scanner);
    if (!create_clusters(e)) {
        engine_free(e);
        return NULL;
    }
    for (size_t i = 0; i < e->config->n_upstreams; i++) {
        cluster_start(e, &e->clusters[i]);
    }
    return e;
}

/* Every open client, in the order of their places in the table. */
static void for_each_client(struct engine *e,
                            void (*what)(struct engine *e,
                                         struct conn *c,
                                         const struct conn_class *class))
{
    for (uint32_t i = 0; i < e->conns.n; i++) {
        struct conn *c = e->conns.entries[i].conn;
        if (c != NULL && conn_class_of(c)->accepted != NULL) {
            what(e, c, conn_class_of(c));
        }
    }
}

static void end_client(struct engine *e,
                       struct conn *c,
                       const struct conn_class *class)
{
    class->end(e, c);
}

void engine_free(struct engine *e)
{
    if (e == NULL) {
        return;
    }
    struct memory *memory = e->memory;
    e->ending = true;
    e->tracer.emit = NULL;
    for_each_client(e, end_client);
    downstream_work(e);
    if (e->clusters != NULL) {
        for (size_t i = 0; i < e->config->n_upstreams; i++) {
            cluster_fini(e, &e->clusters[i]);
        }
    }
    upstreams_release(e);
    struct action ignored;
    while (conn_next_action(e, &ignored)) {
        assert(ignored.type != ACTION_WRITE);
    }
    memory_give(memory, e->gather_tables);
    memory_give(memory, e->conns.entries);
    memory_give(memory, e->clusters);
    memory_give(memory, e->listeners);
    timers_fini(&e->timers);
    pool_fini(&e->requests);
    memory_give(memory, e);
    memory_free(memory);
}

struct memory *engine_memory(struct engine *e)
{
    return e->memory;
}

conn_id engine_reserve(struct engine *e, unsigned listener)
{
    struct listener *l = &e->listeners[listener];
    uint32_t limit = (l->config->clients_max + e->workers - 1) / e->workers;
    if (e->draining || l->n_clients >= limit) {
        e->stats.clients_refused++;
        e->stats.limit_clients_max += !e->draining;
        engine_trace_limit(e, l->cluster, "clients_max");
        return 0;
    }
    struct downstream *d = downstream_new(e, l);
    if (d == NULL) {
        e->stats.clients_refused++;
        e->stats.limit_memory++;
        return 0;
    }
    return d->conn.id;
}

const char *engine_refusal(void)
{
    return "-ERR max number of clients reached\r\n";
}

static void on_bytes(struct engine *e, const struct event *event)
{
    struct conn *c = conn_find(e, event->conn);
    if (c == NULL) {
        buf_unref(e->memory, event->bytes.buf);
    } else {
        conn_class_of(c)->bytes(e, c, event->bytes);
    }
}

static void on_written(struct engine *e, const struct event *event)
{
    struct conn *c = conn_find(e, event->conn);
    if (c != NULL) {
        conn_class_of(c)->written(e, c, event->count);
    }
}

/* What is rare in the life of a connection. */
static void on_change(struct engine *e, const struct event *event)
{
    struct conn *c = conn_find(e, event->conn);
    if (c == NULL) {
        return;
    }
    const struct conn_class *class = conn_class_of(c);
    if (event->type == EVENT_ACCEPTED && class->accepted != NULL) {
        class->accepted(e, c, event);
    } else if (event->type == EVENT_RESOLVED && class->resolved != NULL) {
        class->resolved(e, c, event);
    } else if (event->type == EVENT_CONNECTED && class->connected != NULL) {
        class->connected(e, c, event->error);
    } else if (event->type == EVENT_ENDED) {
        class->ended(e, c);
    } else if (event->type == EVENT_CLOSED) {
        class->closed(e, c, event->error);
    }
}

static void run_timers(struct engine *e)
{
    for (;;) {
        struct timer *t = timers_pop(&e->timers, e->now_us);
        if (t == NULL) {
            return;
        }
        if (t->kind == TIMER_DOWNSTREAM) {
            downstream_timeout(e, CONTAINER_OF(t, struct downstream, timer));
        } else if (t->kind == TIMER_UPSTREAM) {
            upstream_timeout(e, CONTAINER_OF(t, struct upstream, timer));
        } else {
            topology_timeout(e, CONTAINER_OF(t, struct topology, timer));
        }
    }
}

static void finish_client(struct engine *e,
                          struct conn *c,
                          const struct conn_class *class)
{
    class->drain(e, c, false);
}

static void give_up_client(struct engine *e,
                           struct conn *c,
                           const struct conn_class *class)
{
    class->drain(e, c, true);
}

/* The first EVENT_DRAIN lets clients finish what is in flight; a second one
 * answers what is still open truthfully (reliability.md I15). */
static void drain(struct engine *e)
{
    bool again = e->draining;
    e->draining = true;
    engine_trace(e, &(struct trace_record){ .type = TRACE_DRAIN,
                                            .reason = again ? "time is up"
                                                            : "begins" });
    for_each_client(e, again ? give_up_client : finish_client);
}

void engine_step(struct engine *e, const struct event *event)
{
    assert(event->now_us >= e->now_us);
    e->now_us = event->now_us;

    switch (event->type) {
    case EVENT_BYTES: on_bytes(e, event); break;
    case EVENT_WRITTEN: on_written(e, event); break;
    case EVENT_ACCEPTED:
    case EVENT_RESOLVED:
    case EVENT_CONNECTED:
    case EVENT_ENDED:
    case EVENT_CLOSED: on_change(e, event); break;
    case EVENT_TIMEOUT: run_timers(e); break;
    case EVENT_CONFIG: break; /* a configuration lasts as long as the engine */
    case EVENT_DRAIN: drain(e); break;
    }
    while (e->work != NULL || e->reroute) {
        if (e->reroute) {
            clusters_reroute(e);
        }
        downstream_work(e);
    }
}

bool engine_next(struct engine *e, struct action *action)
{
    if (conn_next_action(e, action)) {
        return true;
    }
    upstreams_release(e);
    return false;
}

uint64_t engine_deadline(const struct engine *e)
{
    return timers_next_us(&e->timers);
}

bool engine_drained(const struct engine *e)
{
    return e->draining && e->n_downstreams == 0;
}

bool engine_upstream_ready(const struct engine *e, size_t i)
{
    const struct cluster *c = &e->clusters[i];
    for (uint32_t k = 0; k < c->n_endpoints; k++) {
        const struct endpoint *p = c->endpoints[k];
        bool serves =
            p != NULL && (c->slots == NULL ? p == c->primary : p->n_slots > 0);
        if (serves && p->lanes_up > 0) {
            return true;
        }
    }
    return false;
}

void engine_stats(const struct engine *e,
                  struct engine_stats *engine,
                  struct upstream_stats *upstreams)
{
    *engine = e->stats;
    engine->clients = e->n_downstreams;
    engine->block_bytes = memory_block_bytes(e->memory);
    for (size_t i = 0; i < e->config->n_upstreams; i++) {
        const struct cluster *c = &e->clusters[i];
        struct upstream_stats *out = &upstreams[i];
        *out = c->stats;
        for (uint32_t k = 0; k < c->n_endpoints; k++) {
            const struct endpoint *p = c->endpoints[k];
            out->lanes_up += p != NULL ? p->lanes_up : 0;
            out->lanes_connecting += p != NULL ? p->lanes_connecting : 0;
        }
        out->lanes_private = c->lanes_private;
        out->requests_held = c->held;
        out->requests_in_flight = cluster_in_flight(c);
        out->budget_tokens = c->budget.tokens / 1000;
    }
}
