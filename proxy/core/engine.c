#include "proxy/core/engine.h"

#include <assert.h>

#include "proxy/core/learnt.h"
#include "proxy/core/newcomer.h"
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
    [CONN_GRPC_CLIENT] = &grpc_client_class,
    [CONN_GRPC_LINK] = &grpc_link_class,
    [CONN_NEWCOMER] = &newcomer_class,
};

const struct conn_class *conn_class_of(const struct conn *c)
{
    return conn_classes[c->kind];
}

static bool is_grpc(const struct upstream_config *u)
{
    return u->type == UPSTREAM_GRPC;
}

static void *h2_alloc(void *context, size_t size)
{
    return memory_take_raw(context, size);
}

static void h2_give(void *context, void *block)
{
    memory_give(context, block);
}

/* What only upstreams of gRPC need. */
static bool create_channels(struct engine *e)
{
    const struct config *config = e->config;
    struct h2_allocator allocator = { .alloc = h2_alloc,
                                      .free = h2_give,
                                      .context = e->memory };
    bool any = false;
    for (size_t i = 0; i < config->n_upstreams; i++) {
        any = any || is_grpc(&config->upstreams[i]);
    }
    if (!any) {
        return true;
    }
    e->channels =
        memory_take(e->memory, config->n_upstreams * sizeof(*e->channels));
    e->h2_memory = h2_memory_new(&allocator);
    return e->channels != NULL && e->h2_memory != NULL;
}

static bool create_upstream(struct engine *e, size_t i)
{
    const struct upstream_config *u = &e->config->upstreams[i];
    return is_grpc(u) ? grpc_channel_init(e, &e->channels[i], u)
                      : cluster_init(e, &e->clusters[i], u);
}

static void create_listener(struct engine *e, size_t i)
{
    const struct config *config = e->config;
    const struct listener_config *l = &config->listeners[i];
    e->listeners[i].config = l;
    if (!is_grpc(l->upstream)) {
        e->listeners[i].cluster = &e->clusters[l->upstream - config->upstreams];
    }
    if (l->grpc_upstream != NULL) {
        e->listeners[i].channel =
            &e->channels[l->grpc_upstream - config->upstreams];
    }
}

static bool create_upstreams(struct engine *e)
{
    const struct config *config = e->config;
    e->clusters = memory_take(e->memory,
                              (config->n_upstreams + 1) * sizeof(*e->clusters));
    e->listeners = memory_take(e->memory, (config->n_listeners + 1) *
                                              sizeof(*e->listeners));
    if (e->clusters == NULL || e->listeners == NULL || !create_channels(e)) {
        return false;
    }
    for (size_t i = 0; i < config->n_upstreams; i++) {
        if (!create_upstream(e, i)) {
            return false;
        }
    }
    for (size_t i = 0; i < config->n_listeners; i++) {
        create_listener(e, i);
    }
    return true;
}

static void start_upstreams(struct engine *e)
{
    for (size_t i = 0; i < e->config->n_upstreams; i++) {
        if (is_grpc(&e->config->upstreams[i])) {
            grpc_channel_start(e, &e->channels[i]);
        } else {
            cluster_start(e, &e->clusters[i]);
        }
    }
}

static void end_upstreams(struct engine *e)
{
    for (size_t i = 0; i < e->config->n_upstreams; i++) {
        if (!is_grpc(&e->config->upstreams[i])) {
            cluster_fini(e, &e->clusters[i]);
        } else if (e->channels != NULL) {
            grpc_channel_fini(e, &e->channels[i]);
        }
    }
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
    pool_init(&e->requests, memory, sizeof(struct request));
    pool_init(&e->calls, memory, sizeof(struct grpc_call));
    command_scanner_init(&e->scanner);
    if (!create_upstreams(e)) {
        engine_free(e);
        return NULL;
    }
    start_upstreams(e);
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
        end_upstreams(e);
    }
    upstreams_release(e);
    struct action ignored;
    while (conn_next_action(e, &ignored)) {
        assert(ignored.type != ACTION_WRITE);
    }
    memory_give(memory, e->gather_tables);
    memory_give(memory, e->conns.entries);
    memory_give(memory, e->clusters);
    memory_give(memory, e->channels);
    memory_give(memory, e->listeners);
    timers_fini(&e->timers);
    pool_fini(&e->requests);
    pool_fini(&e->calls);
    if (e->grpc_packed != NULL) {
        buf_unref(memory, e->grpc_packed);
    }
    if (e->h2_memory != NULL) {
        h2_memory_free(e->h2_memory);
    }
    memory_give(memory, e);
    memory_free(memory);
}

struct memory *engine_memory(struct engine *e)
{
    return e->memory;
}

/* The conn of a new client of that listener, or NULL: no memory. */
static struct conn *new_client(struct engine *e, struct listener *l)
{
    switch (l->config->protocol) {
    case LISTENER_REDIS: {
        struct downstream *d = downstream_new(e, l);
        return d == NULL ? NULL : &d->conn;
    }
    case LISTENER_GRPC: {
        struct grpc_client *c = grpc_client_new(e, l);
        return c == NULL ? NULL : &c->conn;
    }
    case LISTENER_AUTO: {
        struct newcomer *n = newcomer_new(e, l);
        return n == NULL ? NULL : &n->conn;
    }
    }
    assert(0 && "not a protocol");
    return NULL;
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
    struct conn *c = new_client(e, l);
    if (c == NULL) {
        e->stats.clients_refused++;
        e->stats.limit_memory++;
        return 0;
    }
    return c->id;
}

const char *engine_refusal(const struct engine *e, unsigned listener)
{
    return e->listeners[listener].config->protocol == LISTENER_REDIS
               ? "-ERR max number of clients reached\r\n"
               : NULL;
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
    } else if (event->type == EVENT_LEFT && class->left != NULL) {
        class->left(e, c);
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
        switch ((enum timer_kind)t->kind) {
        case TIMER_DOWNSTREAM:
            downstream_timeout(e, CONTAINER_OF(t, struct downstream, timer));
            break;
        case TIMER_UPSTREAM:
            upstream_timeout(e, CONTAINER_OF(t, struct upstream, timer));
            break;
        case TIMER_TOPOLOGY:
            topology_timeout(e, CONTAINER_OF(t, struct topology, timer));
            break;
        case TIMER_GRPC_CLIENT:
            grpc_client_timeout(e, CONTAINER_OF(t, struct grpc_client, timer));
            break;
        case TIMER_GRPC_CALL:
            grpc_call_timeout(e, CONTAINER_OF(t, struct grpc_call, timer));
            break;
        case TIMER_GRPC_LINK:
            grpc_link_timeout(e, CONTAINER_OF(t, struct grpc_link, timer));
            break;
        case TIMER_GRPC_CHANNEL:
            grpc_channel_timeout(e,
                                 CONTAINER_OF(t, struct grpc_channel, timer));
            break;
        case TIMER_NEWCOMER:
            newcomer_timeout(e, CONTAINER_OF(t, struct newcomer, timer));
            break;
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
    case EVENT_LEFT:
    case EVENT_CLOSED: on_change(e, event); break;
    case EVENT_TIMEOUT: run_timers(e); break;
    case EVENT_CONFIG: break; /* a configuration lasts as long as the engine */
    case EVENT_DRAIN: drain(e); break;
    }
    while (e->work != NULL || e->reroute || e->pump) {
        if (e->pump) {
            grpc_channels_pump(e);
        }
        if (e->reroute) {
            clusters_reroute(e);
        }
        downstream_work(e);
    }
    if (e->grpc.withheld > 0) {
        grpc_credit_return(e);
    }
    if (e->draining && e->n_grpc_clients == 0 && e->channels != NULL) {
        grpc_channels_shut(e);
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
    return e->draining && e->n_downstreams == 0 && e->n_grpc_clients == 0;
}

bool engine_upstream_ready(const struct engine *e, size_t i)
{
    if (is_grpc(&e->config->upstreams[i])) {
        return grpc_channel_serves(&e->channels[i]);
    }
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
    engine->clients = e->n_downstreams + e->n_grpc_clients;
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
        out->scripts = c->scripts.n;
        out->script_bytes = c->scripts.kept_bytes + c->scripts.once_bytes;
        out->scripts_evicted = c->scripts.evicted;
        out->lanes_private = c->lanes_private;
        out->lanes_spare = c->n_spare;
        out->lane_waiters = c->n_lane_waiters;
        out->learnt_commands = learnt_count(c->learnt);
        out->requests_held = c->held;
        out->requests_in_flight = cluster_in_flight(c);
        out->budget_tokens = c->budget.tokens / 1000;
    }
}
