#include "grpc_driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "config_loading.h"
#include "proxy/core/state.h"

enum {
    READ = 16384,
    TURNS_MAX = 200000,
    BODY_MAX = 4 << 20,
};

/* ---- messages ---------------------------------------------------------------- */

/* One message of n bytes in all, prefix included, for each n: made once. */
static const char *message_of(size_t n)
{
    static char body[BODY_MAX];
    static size_t made;
    assert_true(n >= 5 && n <= BODY_MAX);
    if (made == 0) {
        for (size_t i = 0; i < BODY_MAX; i++) {
            body[i] = (char)('a' + i % 23);
        }
        made = 1;
    }
    body[0] = 0;
    for (unsigned i = 1; i < 5; i++) {
        body[i] = (char)((n - 5) >> (32 - 8 * i));
    }
    return body;
}

static void fields_text(char *out,
                        size_t size,
                        const char *path,
                        const char *more)
{
    snprintf(out, size,
             ":method: POST\n:scheme: http\n:path: %s\n:authority: db.test\n"
             "te: trailers\ncontent-type: application/grpc\n%s",
             path, more == NULL ? "" : more);
}

struct talk *call_open(struct peer *client, const char *path, const char *more)
{
    char text[4096];
    fields_text(text, sizeof(text), path, more);
    struct talk *t = talk_request(&client->side, text, false);
    if (t != NULL) {
        t->content = message_of(5);
        t->paused = true;
    }
    return t;
}

void call_send(struct peer *client, struct talk *t, size_t n, bool end)
{
    if (n > 0) {
        t->content = message_of(n);
        t->length = n;
        t->at = 0;
    }
    t->paused = false;
    t->end = end;
    h2_resume(client->side.h, t->stream);
}

struct talk *call_unary(struct peer *client,
                        const char *path,
                        size_t n,
                        const char *more)
{
    struct talk *t = call_open(client, path, more);
    if (t != NULL) {
        call_send(client, t, n + 5, true);
    }
    return t;
}

void reply_only(struct side *s, struct talk *t, const char *status)
{
    char text[512];
    snprintf(text, sizeof(text),
             ":status: 200\ncontent-type: application/grpc\n%s", status);
    (void)talk_respond(s, t, text, true);
}

void reply_head(struct side *s, struct talk *t)
{
    t->paused = true;
    (void)talk_respond(s, t, ":status: 200\ncontent-type: application/grpc\n",
                       false);
}

void reply_data(struct side *s, struct talk *t, size_t n)
{
    t->content = message_of(n);
    t->length = n;
    t->at = 0;
    t->paused = false;
    h2_resume(s->h, t->stream);
}

void reply_trailers(struct side *s, struct talk *t, const char *trailers)
{
    t->trailers = trailers;
    t->end = true;
    t->paused = false;
    h2_resume(s->h, t->stream);
}

void reply_ok(struct side *s, struct talk *t)
{
    reply_head(s, t);
    reply_data(s, t, 10);
    reply_trailers(s, t, "grpc-status: 0\n");
}

bool said(const struct peer *p, const char *words)
{
    return strstr(p->side.log, words) != NULL;
}

/* ---- the shell ----------------------------------------------------------------- */

static void act(struct driver *d);

static void step(struct driver *d, struct event *event)
{
    event->now_us = d->now_us;
    engine_step(d->engine, event);
}

static struct peer *peer_find(struct driver *d, conn_id id)
{
    for (size_t i = d->n_peers; i > 0; i--) {
        if (d->peers[i - 1]->id == id && d->peers[i - 1]->open) {
            return d->peers[i - 1];
        }
    }
    return NULL;
}

static struct peer *peer_new(struct driver *d, conn_id id, bool client)
{
    assert_true(d->n_peers < PEERS_MAX);
    struct peer *p = must_alloc(sizeof(*p));
    memset(p, 0, sizeof(*p));
    p->driver = d;
    p->id = id;
    p->client = client;
    p->open = true;
    p->takes = UINT64_MAX;
    struct h2_options options = pair_options(client ? H2_CLIENT : H2_SERVER);
    options.max_streams = d->server_streams;
    options.connection_window = 16 << 20;
    options.stream_window = client ? d->client_window : d->server_window;
    if (client) {
        options.max_header_list_size = d->client_headers;
    }
    assert_true(side_open(&p->side, &options));
    p->side.quiet = d->quiet;
    if (!client) {
        p->side.on_request = d->on_request;
        p->side.on_ended = d->on_ended;
    }
    d->peers[d->n_peers++] = p;
    return p;
}

struct peer *driver_client(struct driver *d, unsigned listener)
{
    conn_id id = engine_reserve(d->engine, listener);
    if (id == 0) {
        return NULL;
    }
    struct peer *p = peer_new(d, id, true);
    step(d, &(struct event){ .type = EVENT_ACCEPTED, .conn = id });
    act(d);
    return p;
}

struct peer *driver_last(struct driver *d, unsigned port)
{
    for (size_t i = d->n_peers; i > 0; i--) {
        struct peer *p = d->peers[i - 1];
        if (!p->client && p->port == port) {
            return p;
        }
    }
    return NULL;
}

struct peer *driver_server(struct driver *d, unsigned port)
{
    struct peer *p = driver_last(d, port);
    return p != NULL && p->open ? p : NULL;
}

static void act(struct driver *d)
{
    struct action a;
    while (engine_next(d->engine, &a)) {
        struct peer *p = peer_find(d, a.conn);
        switch (a.type) {
        case ACTION_CONNECT:
            p = peer_new(d, a.conn, false);
            p->connecting = true;
            p->port = a.address->port;
            d->connects++;
            break;
        case ACTION_WRITE:
            for (struct segment *s = a.bytes.head; s != NULL; s = s->next) {
                assert_non_null(p);
                bytes_add(&p->untaken, slice_data(&s->slice), s->slice.len);
            }
            chain_clear(engine_memory(d->engine), &a.bytes);
            break;
        case ACTION_CLOSE:
            if (p != NULL) { /* else a name was asked for */
                p->open = false;
            }
            break;
        case ACTION_RESOLVE:
        case ACTION_PAUSE:
        case ACTION_RESUME: break;
        }
    }
}

static bool give_connect(struct driver *d, struct peer *p)
{
    if (!p->connecting) {
        return false;
    }
    p->connecting = false;
    struct event event = { .type = EVENT_CONNECTED, .conn = p->id };
    unsigned i = p->port - PORT_FIRST;
    if (i < PORTS_MAX && d->refuses[i]) {
        event.error = 1 + IO_REFUSED;
        p->open = false;
    }
    step(d, &event);
    return true;
}

/* The kernel takes what it may, and the peer gets it. */
static bool give_written(struct driver *d, struct peer *p)
{
    uint64_t n = p->untaken.size < p->takes ? p->untaken.size : p->takes;
    if (n == 0) {
        return false;
    }
    if (p->takes != UINT64_MAX) {
        p->takes -= n;
    }
    side_receive(&p->side, bytes_front(&p->untaken), (size_t)n);
    bytes_drop(&p->untaken, (size_t)n);
    step(d,
         &(struct event){ .type = EVENT_WRITTEN, .conn = p->id, .count = n });
    return true;
}

void peer_flush(struct peer *p)
{
    side_send(&p->side, 0);
    if (p->side.out_len > 0) {
        bytes_add(&p->arriving, p->side.out, p->side.out_len);
        side_discard(&p->side);
    }
}

void peer_raw(struct peer *p, const void *data, size_t len)
{
    peer_flush(p);
    bytes_add(&p->arriving, data, len);
}

static bool give_bytes(struct driver *d, struct peer *p)
{
    if (p->arriving.size == 0 || p->silent) {
        return false;
    }
    size_t most = d->piece == 0 ? READ : d->piece;
    size_t n = p->arriving.size < most ? p->arriving.size : most;
    struct buf *b = buf_new(engine_memory(d->engine), (uint32_t)n);
    if (b == NULL) {
        return false; /* the shell tries again later */
    }
    memcpy(b->data, bytes_front(&p->arriving), n);
    b->len = (uint32_t)n;
    bytes_drop(&p->arriving, n);
    step(d, &(struct event){ .type = EVENT_BYTES,
                             .conn = p->id,
                             .bytes = { .buf = b, .len = (uint32_t)n } });
    return true;
}

void peer_end(struct peer *p, enum io_error error)
{
    struct driver *d = p->driver;
    peer_flush(p);
    while (p->open && give_bytes(d, p)) {
        act(d);
    }
    if (!p->open) {
        return;
    }
    if (error == IO_END) {
        step(d, &(struct event){ .type = EVENT_ENDED, .conn = p->id });
        act(d);
        return;
    }
    p->open = false;
    step(d, &(struct event){
                .type = EVENT_CLOSED, .conn = p->id, .error = 1 + (int)error });
    act(d);
}

static bool advance(struct driver *d)
{
    bool any = false;
    act(d);
    for (size_t i = 0; i < d->n_peers; i++) {
        struct peer *p = d->peers[i];
        if (p->open) {
            any = give_connect(d, p) || any;
            act(d);
        }
        if (p->open) {
            any = give_written(d, p) || any;
            act(d);
        }
        if (p->open && !p->connecting) {
            peer_flush(p);
            any = give_bytes(d, p) || any;
            act(d);
        }
    }
    if (engine_deadline(d->engine) <= d->now_us) {
        step(d, &(struct event){ .type = EVENT_TIMEOUT });
        act(d);
        any = true;
    }
    return any;
}

void driver_run(struct driver *d)
{
    unsigned turns = 0;
    while (advance(d)) {
        if (++turns > TURNS_MAX) {
            fail_msg("it never comes to rest");
        }
    }
}

void driver_pass(struct driver *d, uint64_t us)
{
    uint64_t end_us = d->now_us + us;
    driver_run(d);
    while (engine_deadline(d->engine) <= end_us) {
        d->now_us = engine_deadline(d->engine);
        driver_run(d);
    }
    d->now_us = end_us;
}

void driver_drain(struct driver *d)
{
    step(d, &(struct event){ .type = EVENT_DRAIN });
    act(d);
}

struct grpc_stats driver_stats(struct driver *d)
{
    struct grpc_stats stats = { 0 };
    engine_grpc_stats(d->engine, 0, &stats);
    return stats;
}

/* ---- begin and end -------------------------------------------------------------- */

static void *driver_alloc(void *context, size_t size)
{
    struct driver *d = context;
    if (d->fail_at != 0 && d->memory.calls + 1 == d->fail_at) {
        d->memory.calls++;
        return NULL;
    }
    return failing_alloc(&d->memory, size);
}

static void driver_give(void *context, void *block)
{
    struct driver *d = context;
    failing_free(&d->memory, block);
}

struct driver *driver_new(const char *ini, size_t fail_at)
{
    struct driver *d = must_alloc(sizeof(*d));
    memset(d, 0, sizeof(*d));
    struct config_problems problems = { 0 };
    struct config_source source = loaded_source(ini);
    d->config = config_load(&source, &problems);
    if (d->config == NULL) {
        fail_msg("%s: %s", problems.list[0].place, problems.list[0].text);
    }
    config_problems_fini(&problems);
    d->memory.left = SIZE_MAX;
    d->fail_at = fail_at;
    d->now_us = SECOND;
    d->server_streams = 100;
    d->server_window = 256 * 1024;
    d->client_window = 256 * 1024;
    d->client_headers = 16 * 1024;
    struct engine_options options = {
        .config = d->config,
        .seed = 42,
        .now_us = d->now_us,
        .allocator = { .alloc = driver_alloc,
                       .free = driver_give,
                       .context = d },
    };
    d->engine = engine_new(&options);
    if (d->engine != NULL) {
        act(d);
    } else {
        assert_true(fail_at != 0);
        assert_int_equal(d->memory.live, 0);
        config_free(d->config);
        free(d);
        return NULL;
    }
    return d;
}

void driver_free(struct driver *d)
{
    d->fail_at = 0;
    for (size_t i = 0; i < d->n_peers; i++) {
        struct peer *p = d->peers[i];
        if (p->open && p->client) {
            p->silent = true;
            p->open = false;
            step(d, &(struct event){ .type = EVENT_CLOSED, .conn = p->id });
            act(d);
        }
    }
    for (size_t i = 0; i < d->n_peers; i++) {
        d->peers[i]->takes = UINT64_MAX;
    }
    driver_run(d);
    struct engine *e = d->engine;
    assert_int_equal(e->grpc.calls, 0); /* I4 */
    assert_int_equal(e->grpc.bytes, 0);
    assert_int_equal(e->grpc.log_bytes, 0);
    assert_int_equal(e->n_grpc_clients, 0);
    for (size_t i = 0; i < e->config->n_upstreams; i++) {
        assert_int_equal(e->channels[i].budget.calls, 0);
        assert_int_equal(e->channels[i].budget.retries, 0);
        assert_int_equal(e->channels[i].n_waiting, 0);
    }
    engine_free(e);
    assert_int_equal(d->memory.live, 0);
    for (size_t i = 0; i < d->n_peers; i++) {
        bytes_fini(&d->peers[i]->untaken);
        bytes_fini(&d->peers[i]->arriving);
        side_close(&d->peers[i]->side);
        free(d->peers[i]);
    }
    config_free(d->config);
    free(d);
}
