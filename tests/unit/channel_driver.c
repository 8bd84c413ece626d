#include "channel_driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "config_loading.h"
#include "parser/h2_session.h"
#include "proxy/core/grpc_trace.h"

static struct driver *the; /* one at a time */

/* ---- the engine, as far as a channel needs one ---------------------------- */

void engine_trace(struct engine *e, struct trace_record *record)
{
    (void)e;
    the->n_ready += record->type == TRACE_CONNECTION_READY;
    the->n_doubled += record->type == TRACE_KEEPALIVE_DOUBLED;
    if (record->type == TRACE_CONNECTION_LOST) {
        the->n_lost++;
        snprintf(the->last_lost, sizeof(the->last_lost), "%s", record->reason);
    }
}

bool engine_reserve_timer(struct engine *e)
{
    return timers_reserve(&e->timers, e->n_grpc_timers + 1);
}

const struct conn_class *conn_class_of(const struct conn *c)
{
    assert_int_equal(c->kind, CONN_GRPC_LINK);
    return &grpc_link_class;
}

/* ---- the shell ------------------------------------------------------------- */

static struct wire *find_wire(struct driver *d, conn_id id)
{
    for (unsigned i = d->n_wires; i > 0; i--) {
        if (d->wires[i - 1]->id == id && d->wires[i - 1]->open) {
            return d->wires[i - 1];
        }
    }
    return NULL;
}

struct wire *driver_wire(struct driver *d, unsigned server)
{
    for (unsigned i = d->n_wires; i > 0; i--) {
        struct wire *w = d->wires[i - 1];
        if (w->open && w->server == &d->servers[server]) {
            return w;
        }
    }
    fail_msg("no connection to server %u", server);
    return NULL;
}

unsigned driver_open_wires(const struct driver *d, unsigned server)
{
    unsigned n = 0;
    for (unsigned i = 0; i < d->n_wires; i++) {
        n += d->wires[i]->open && d->wires[i]->server == &d->servers[server];
    }
    return n;
}

void driver_settle(struct driver *d)
{
    while (d->engine.pump) {
        grpc_channels_pump(&d->engine);
    }
}

static void step(struct driver *d, struct event *event)
{
    struct engine *e = &d->engine;
    e->now_us = d->now_us;
    struct conn *c = conn_find(e, event->conn);
    if (c == NULL) {
        if (event->type == EVENT_BYTES) {
            buf_unref(e->memory, event->bytes.buf);
        }
        return;
    }
    const struct conn_class *class = conn_class_of(c);
    switch (event->type) {
    case EVENT_BYTES: class->bytes(e, c, event->bytes); break;
    case EVENT_WRITTEN: class->written(e, c, event->count); break;
    case EVENT_CONNECTED: class->connected(e, c, event->error); break;
    case EVENT_RESOLVED: class->resolved(e, c, event); break;
    case EVENT_ENDED: class->ended(e, c); break;
    case EVENT_CLOSED: class->closed(e, c, event->error); break;
    case EVENT_ACCEPTED:
    case EVENT_LEFT:
    case EVENT_TIMEOUT:
    case EVENT_CONFIG:
    case EVENT_DRAIN: fail_msg("not an event of a link");
    }
    driver_settle(d);
}

static void on_connect(struct driver *d, const struct action *a)
{
    unsigned index = a->address->port - PORT_FIRST;
    assert_true(index < SERVERS_MAX && d->n_wires < WIRES_MAX);
    struct server *s = &d->servers[index];
    struct wire *w = must_alloc(sizeof(*w));
    *w = (struct wire){
        .id = a->conn, .server = s, .open = true, .connecting = true
    };
    d->wires[d->n_wires++] = w;
    s->connect_us[s->connects % 256] = d->now_us;
    s->connects++;
}

static void on_resolve(struct driver *d, const struct action *a)
{
    assert_true(d->lookup == 0);
    d->lookup_us[d->n_lookups % LOOKUPS_MAX] = d->now_us;
    d->n_lookups++;
    d->lookup = a->conn;
}

static void on_write(struct driver *d, struct action *a)
{
    struct wire *w = find_wire(d, a->conn);
    assert_non_null(w);
    assert_false(w->connecting);
    if (w->first_write == 0) {
        w->first_write = a->bytes.bytes;
    }
    for (const struct segment *s = a->bytes.head; s != NULL; s = s->next) {
        bytes_add(&w->in, slice_data(&s->slice), s->slice.len);
    }
    w->untold += a->bytes.bytes;
    chain_clear(d->engine.memory, &a->bytes);
}

static void act(struct driver *d)
{
    struct action a;
    while (conn_next_action(&d->engine, &a)) {
        struct wire *w = find_wire(d, a.conn);
        switch (a.type) {
        case ACTION_RESOLVE: on_resolve(d, &a); break;
        case ACTION_CONNECT: on_connect(d, &a); break;
        case ACTION_WRITE: on_write(d, &a); break;
        case ACTION_CLOSE:
            if (w != NULL) {
                wire_serve(w); /* the last words */
                w->open = false;
            } else if (d->lookup == a.conn) {
                d->lookup = 0;
            }
            break;
        case ACTION_PAUSE:
        case ACTION_RESUME: fail_msg("links are never paused");
        }
    }
}

void driver_resolve(struct driver *d, unsigned n, const unsigned *servers)
{
    static const char *const hosts[] = { "10.0.0.1", "10.0.0.2", "10.0.0.3" };
    d->n_answers = n;
    for (unsigned i = 0; i < n; i++) {
        d->answer[i] = hosts[servers[i]];
        d->answer_port[i] = (uint16_t)(PORT_FIRST + servers[i]);
    }
}

static bool give_lookup(struct driver *d)
{
    if (d->lookup == 0 || d->resolver_hangs) {
        return false;
    }
    struct address list[8];
    memset(list, 0, sizeof(list));
    for (unsigned i = 0; i < d->n_answers; i++) {
        snprintf(list[i].host, sizeof(list[i].host), "%s", d->answer[i]);
        list[i].port = d->answer_port[i];
    }
    struct event event = { .type = EVENT_RESOLVED, .conn = d->lookup };
    if (d->resolver_fails) {
        event.error = 1 + IO_NO_NAME;
    } else {
        event.resolved.list = list;
        event.resolved.n = d->n_answers;
    }
    d->lookup = 0;
    step(d, &event);
    return true;
}

static bool give_connect(struct driver *d, struct wire *w)
{
    struct server *s = w->server;
    if (!w->connecting || s->black_hole) {
        return false;
    }
    w->connecting = false;
    struct event event = { .type = EVENT_CONNECTED, .conn = w->id };
    if (s->refuses) {
        event.error = 1 + IO_REFUSED;
        w->open = false;
    }
    step(d, &event);
    if (s->closes && w->open) {
        act(d);
        wire_end(d, w, IO_END);
    }
    return true;
}

static bool give_written(struct driver *d, struct wire *w)
{
    if (w->untold == 0 || w->stalled) {
        return false;
    }
    struct event event = { .type = EVENT_WRITTEN,
                           .conn = w->id,
                           .count = w->untold };
    w->untold = 0;
    step(d, &event);
    return true;
}

static bool give_bytes(struct driver *d, struct wire *w)
{
    enum {
        READ = 16384
    };
    if (w->out.size == 0 || w->server->frozen) {
        return false;
    }
    size_t n = w->out.size < READ ? w->out.size : READ;
    struct buf *b = buf_new(d->engine.memory, READ);
    if (b == NULL) {
        return false; /* the shell tries again later */
    }
    memcpy(b->data, bytes_front(&w->out), n);
    b->len = (uint32_t)n;
    bytes_drop(&w->out, n);
    step(d, &(struct event){ .type = EVENT_BYTES,
                             .conn = w->id,
                             .bytes = { .buf = b, .len = (uint32_t)n } });
    return true;
}

void wire_end(struct driver *d, struct wire *w, enum io_error why)
{
    while (w->open && give_bytes(d, w)) {
        act(d);
    }
    if (!w->open) {
        return;
    }
    if (why == IO_END) {
        step(d, &(struct event){ .type = EVENT_ENDED, .conn = w->id });
        act(d);
        assert_false(w->open); /* the engine must have asked for that */
    } else {
        w->open = false;
        step(d, &(struct event){ .type = EVENT_CLOSED,
                                 .conn = w->id,
                                 .error = 1 + (int)why });
    }
}

/* One thing for each connection. */
static bool advance(struct driver *d)
{
    bool any = give_lookup(d);
    act(d);
    for (unsigned i = 0; i < d->n_wires; i++) {
        struct wire *w = d->wires[i];
        if (w->open) {
            any = give_connect(d, w) || any;
        }
        act(d);
        if (w->open && !w->connecting) {
            wire_serve(w);
            any = give_written(d, w) || any;
        }
        act(d);
        if (w->open && !w->connecting) {
            any = give_bytes(d, w) || any;
        }
        act(d);
    }
    return any;
}

static bool run_timers(struct driver *d)
{
    struct engine *e = &d->engine;
    struct timer *t = timers_pop(&e->timers, d->now_us);
    if (t == NULL) {
        return false;
    }
    e->now_us = d->now_us;
    if (t->kind == TIMER_GRPC_LINK) {
        grpc_link_timeout(e, CONTAINER_OF(t, struct grpc_link, timer));
    } else {
        assert_int_equal(t->kind, TIMER_GRPC_CHANNEL);
        grpc_channel_timeout(e, &d->channel);
    }
    driver_settle(d);
    return true;
}

void driver_run(struct driver *d)
{
    d->engine.now_us = d->now_us;
    act(d);
    unsigned turns = 0;
    while (advance(d) || run_timers(d)) {
        act(d);
        if (++turns > 100000) {
            fail_msg("it never comes to rest");
        }
    }
}

void driver_pass(struct driver *d, uint64_t us)
{
    uint64_t end_us = d->now_us + us;
    driver_run(d);
    while (timers_next_us(&d->engine.timers) <= end_us) {
        uint64_t next_us = timers_next_us(&d->engine.timers);
        d->now_us = next_us > d->now_us ? next_us : d->now_us;
        driver_run(d);
    }
    d->now_us = end_us;
    d->engine.now_us = end_us;
}

void driver_skip_ids(struct driver *d, const struct wire *w, int32_t id)
{
    struct conn *c = conn_find(&d->engine, w->id);
    assert_non_null(c);
    struct grpc_link *l = CONTAINER_OF(c, struct grpc_link, conn);
    assert_int_equal(nghttp2_session_set_next_stream_id(l->h2->session, id), 0);
}

/* ---- begin and end --------------------------------------------------------- */

struct driver *driver_new(const char *ini)
{
    struct driver *d = must_alloc(sizeof(*d));
    the = d;
    struct config_problems problems = { 0 };
    struct config_source source = loaded_source(ini);
    d->config = config_load(&source, &problems);
    if (d->config == NULL) {
        fail_msg("%s: %s", problems.list[0].place, problems.list[0].text);
    }
    config_problems_fini(&problems);
    d->memory.left = SIZE_MAX;
    struct allocator allocator = failing_allocator(&d->memory);
    struct engine *e = &d->engine;
    e->memory = memory_new(&allocator);
    e->config = d->config;
    e->workers = 1;
    e->channels = &d->channel;
    e->h2_memory = h2_memory_new(&(struct h2_allocator){
        .alloc = failing_alloc, .free = failing_free, .context = &d->memory });
    d->now_us = SECOND;
    e->now_us = SECOND;
    rng_init(&e->rng, 42);
    timers_init(&e->timers, e->memory);
    for (unsigned i = 0; i < SERVERS_MAX; i++) {
        d->servers[i].max_streams = ALL_STREAMS;
    }
    return d;
}

struct grpc_config *driver_grpc(struct driver *d)
{
    return &d->config->upstreams[0].grpc;
}

void driver_start(struct driver *d)
{
    assert_true(
        grpc_channel_init(&d->engine, &d->channel, &d->config->upstreams[0]));
    grpc_channel_start(&d->engine, &d->channel);
    driver_settle(d);
    driver_run(d);
}

void driver_free(struct driver *d)
{
    struct engine *e = &d->engine;
    d->memory.left = SIZE_MAX;
    for (unsigned i = 0; i < d->n_tickets; i++) {
        driver_cancel(d, d->tickets[i]);
    }
    e->ending = true;
    grpc_channel_fini(e, &d->channel);
    act(d);
    assert_int_equal(e->n_grpc_timers, 0);
    assert_int_equal(e->timers.n, 0);
    assert_int_equal(e->grpc.withheld, 0);
    timers_fini(&e->timers);
    if (e->grpc_packed != NULL) {
        buf_unref(e->memory, e->grpc_packed);
    }
    memory_give(e->memory, e->conns.entries);
    h2_memory_free(e->h2_memory);
    memory_free(e->memory); /* asserts that nothing is left */
    assert_int_equal(d->memory.live, 0);
    for (unsigned i = 0; i < d->n_wires; i++) {
        assert_false(d->wires[i]->open);
        bytes_fini(&d->wires[i]->in);
        bytes_fini(&d->wires[i]->out);
        free(d->wires[i]);
    }
    for (unsigned i = 0; i < d->n_tickets; i++) {
        free(d->tickets[i]);
    }
    config_free(d->config);
    free(d);
    the = NULL;
}
