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

/* ---- calls, as far as a channel needs them -------------------------------- */

static struct ticket *ticket_of(struct grpc_call *call)
{
    return CONTAINER_OF(call, struct ticket, call);
}

static struct grpc_call *call_of(struct h2_stream *s)
{
    return s->user;
}

static void submit(struct engine *e, struct ticket *t)
{
    t->waiting = true;
    t->call.state = GRPC_CALL_WAITING;
    grpc_channel_submit(e, t->call.channel, &t->call);
}

bool grpc_call_start(struct engine *e,
                     struct grpc_call *call,
                     struct grpc_link *link)
{
    static const struct h2_field fields[] = {
        { .name = { (const uint8_t *)":method", 7 },
          .value = { (const uint8_t *)"POST", 4 },
          .id = H2_METHOD,
          .flags = H2_FIELD_COPY },
        { .name = { (const uint8_t *)":scheme", 7 },
          .value = { (const uint8_t *)"http", 4 },
          .id = H2_SCHEME,
          .flags = H2_FIELD_COPY },
        { .name = { (const uint8_t *)":path", 5 },
          .value = { (const uint8_t *)"/a.B/C", 6 },
          .id = H2_PATH,
          .flags = H2_FIELD_COPY },
        { .name = { (const uint8_t *)":authority", 10 },
          .value = { (const uint8_t *)"localhost", 9 },
          .id = H2_AUTHORITY,
          .flags = H2_FIELD_COPY },
        { .name = { (const uint8_t *)"te", 2 },
          .value = { (const uint8_t *)"trailers", 8 },
          .id = H2_TE,
          .flags = H2_FIELD_COPY },
    };
    struct ticket *t = ticket_of(call);
    assert_int_equal(link->state, GRPC_LINK_READY);
    assert_false(link->suspect);
    assert_int_equal(call->state, GRPC_CALL_WAITING);
    bool no_ids = false;
    struct h2_stream *s =
        h2_request(link->h2, fields, sizeof(fields) / sizeof(fields[0]), NULL,
                   t->upload == 0, call, &no_ids);
    if (s == NULL) {
        grpc_link_drain(e, link, "no stream ids");
        return false;
    }
    t->starts++;
    t->waiting = false;
    t->port = link->address.port;
    call->state = GRPC_CALL_ACTIVE;
    call->up = s;
    call->link = link;
    call->attempt_us = e->now_us;
    call->headers_end = 0;
    list_append(&link->calls, &call->place);
    grpc_link_stream_opened(e, link);
    grpc_touch(e, &link->conn);
    return true;
}

void grpc_call_no_link(struct engine *e,
                       struct grpc_call *call,
                       bool forced,
                       const char *text)
{
    struct ticket *t = ticket_of(call);
    assert_true(t->waiting);
    call->state = GRPC_CALL_DONE;
    t->waiting = false;
    t->failed = true;
    t->forced = forced;
    t->end_us = e->now_us;
    snprintf(t->text, sizeof(t->text), "%s", text);
}

static void leave_link(struct grpc_call *call)
{
    call->last_endpoint = grpc_link_number(call->link);
    list_remove(&call->place);
    if (call->up != NULL) {
        call->up->user = NULL;
    }
    call->up = NULL;
    call->link = NULL;
}

void grpc_call_link_lost(struct engine *e,
                         struct grpc_call *call,
                         const char *reason)
{
    struct ticket *t = ticket_of(call);
    bool left = call->headers_end != 0 &&
                call->headers_end <= call->link->output.written;
    t->losses++;
    snprintf(t->reason, sizeof(t->reason), "%s", reason);
    leave_link(call);
    if (t->again || (t->stubborn && !left)) {
        submit(e, t);
    } else {
        call->state = GRPC_CALL_DONE;
        t->end_us = e->now_us;
    }
}

void grpc_attempt_headers(struct h2 *h,
                          struct h2_stream *s,
                          enum h2_headers kind,
                          struct h2_block *block,
                          bool end)
{
    (void)h;
    (void)kind;
    h2_block_unref(block);
    if (end && call_of(s) != NULL) {
        ticket_of(call_of(s))->done = true;
    }
}

void grpc_attempt_data(struct h2 *h, struct h2_stream *s, struct span bytes)
{
    struct grpc_link *l = h2_owner(h);
    grpc_link_credit(l->channel->engine, l, bytes.len);
    h2_credit_stream(h, s, bytes.len);
}

void grpc_attempt_ended(struct h2 *h, struct h2_stream *s)
{
    (void)h;
    if (call_of(s) != NULL) {
        ticket_of(call_of(s))->done = true;
    }
}

void grpc_attempt_closed(struct h2 *h, struct h2_stream *s, uint32_t code)
{
    struct grpc_link *l = h2_owner(h);
    struct engine *e = l->channel->engine;
    struct grpc_call *call = call_of(s);
    grpc_link_stream_closed(e, l);
    if (call == NULL) {
        return;
    }
    struct ticket *t = ticket_of(call);
    t->code = code;
    t->refused = t->refused || (code == H2_REFUSED_STREAM && !t->unsent);
    leave_link(call);
    t->end_us = e->now_us;
    call->state = GRPC_CALL_DONE;
    bool free_retry = t->stubborn && (t->unsent || t->refused);
    if (!t->done && (t->again || free_retry)) {
        t->unsent = false;
        submit(e, t);
    }
}

void grpc_attempt_headers_sent(struct h2 *h,
                               struct h2_stream *s,
                               uint64_t offset,
                               bool end)
{
    (void)h;
    (void)end;
    if (call_of(s) != NULL) {
        call_of(s)->headers_end = offset;
    }
}

void grpc_attempt_end_sent(struct h2 *h, struct h2_stream *s)
{
    (void)h;
    (void)s;
}

void grpc_attempt_headers_unsent(struct h2 *h,
                                 struct h2_stream *s,
                                 enum h2_unsent why)
{
    (void)h;
    (void)why;
    if (call_of(s) != NULL) {
        ticket_of(call_of(s))->unsent = true;
    }
}

size_t grpc_attempt_pull(struct h2 *h,
                         struct h2_stream *s,
                         size_t max,
                         unsigned *flags)
{
    (void)h;
    struct grpc_call *call = call_of(s);
    if (call == NULL) {
        *flags = H2_PULL_END;
        return 0;
    }
    struct ticket *t = ticket_of(call);
    size_t n = t->upload < max ? t->upload : max;
    t->upload -= n;
    *flags = t->upload == 0 ? H2_PULL_END : 0;
    return n;
}

void grpc_attempt_copy(struct h2 *h,
                       struct h2_stream *s,
                       uint8_t *out,
                       size_t n)
{
    (void)h;
    (void)s;
    memset(out, 0, n);
}

bool grpc_attempt_pass(struct h2 *h, struct h2_stream *s, size_t n)
{
    struct grpc_link *l = h2_owner(h);
    struct engine *e = l->channel->engine;
    (void)s;
    struct buf *b = buf_new(e->memory, (uint32_t)n);
    if (b == NULL) {
        return false;
    }
    memset(b->data, 0, n);
    b->len = (uint32_t)n;
    return chain_push(e->memory, &l->conn.out,
                      (struct slice){ .buf = b, .len = (uint32_t)n });
}

static struct ticket *ticket_new(struct driver *d)
{
    assert_true(d->n_tickets < TICKETS_MAX);
    struct ticket *t = must_alloc(sizeof(*t));
    d->tickets[d->n_tickets++] = t;
    t->policy = d->config->upstreams[0].grpc.others;
    t->call.method.policy = &t->policy;
    t->call.channel = &d->channel;
    t->call.half_closed = true;
    t->call.asked.count = 1;
    t->call.asked.whole = 1;
    t->call.attempts.configured = 1;
    t->call.deadline_us = UINT64_MAX;
    t->policy.wait_for_ready = d->config->upstreams[0].grpc.wait_for_ready;
    t->stubborn = true;
    return t;
}

struct ticket *driver_call(struct driver *d)
{
    struct ticket *t = ticket_new(d);
    submit(&d->engine, t);
    driver_settle(d);
    driver_run(d);
    return t;
}

struct ticket *driver_upload(struct driver *d, size_t bytes)
{
    struct ticket *t = ticket_new(d);
    t->upload = bytes;
    submit(&d->engine, t);
    driver_settle(d);
    driver_run(d);
    return t;
}

struct ticket *driver_safe_call(struct driver *d)
{
    struct ticket *t = ticket_new(d);
    t->policy.retry = true;
    t->policy.is_explicit = true;
    t->policy.max_attempts = 3;
    t->policy.initial_backoff_us = 100 * MS;
    t->policy.max_backoff_us = SECOND;
    t->policy.multiplier = 2;
    t->policy.codes = 1u << GRPC_UNAVAILABLE;
    t->again = true;
    submit(&d->engine, t);
    driver_settle(d);
    driver_run(d);
    return t;
}

void driver_cancel(struct driver *d, struct ticket *t)
{
    struct grpc_call *call = &t->call;
    if (t->waiting) {
        grpc_channel_withdraw(&d->engine, &d->channel, call);
        t->waiting = false;
    } else if (call->link != NULL) {
        struct grpc_link *l = call->link;
        h2_reset(l->h2, call->up, H2_CANCEL);
        grpc_touch(&d->engine, &l->conn);
        leave_link(call);
    }
    call->state = GRPC_CALL_DONE;
    driver_settle(d);
    driver_run(d);
}

/* ---- servers --------------------------------------------------------------- */

static void put_number(struct bytes *b, uint32_t n, unsigned bytes)
{
    for (unsigned i = bytes; i > 0; i--) {
        uint8_t byte = (uint8_t)(n >> (8 * (i - 1)));
        bytes_add(b, &byte, 1);
    }
}

void wire_frame(struct wire *w,
                enum frame type,
                unsigned flags,
                int32_t stream,
                const void *payload,
                size_t size)
{
    put_number(&w->out, (uint32_t)size, 3);
    put_number(&w->out, (uint32_t)type, 1);
    put_number(&w->out, flags, 1);
    put_number(&w->out, (uint32_t)stream, 4);
    bytes_add(&w->out, payload, size);
}

void wire_settings(struct wire *w, uint32_t max_streams)
{
    struct bytes b = { 0 };
    if (max_streams != ALL_STREAMS) {
        put_number(&b, 3, 2); /* MAX_CONCURRENT_STREAMS */
        put_number(&b, max_streams, 4);
    }
    wire_frame(w, FRAME_SETTINGS, 0, 0, bytes_front(&b), b.size);
    bytes_fini(&b);
}

void wire_goaway(struct wire *w, int32_t last, uint32_t code, const char *text)
{
    struct bytes b = { 0 };
    put_number(&b, (uint32_t)last, 4);
    put_number(&b, code, 4);
    bytes_add_text(&b, text);
    wire_frame(w, FRAME_GOAWAY, 0, 0, bytes_front(&b), b.size);
    bytes_fini(&b);
}

void wire_reset(struct wire *w, int32_t stream, uint32_t code)
{
    struct bytes b = { 0 };
    put_number(&b, code, 4);
    wire_frame(w, FRAME_RST_STREAM, 0, stream, bytes_front(&b), b.size);
    bytes_fini(&b);
}

/* Trailers-Only with grpc-status 0. */
static void answer(struct wire *w, int32_t stream)
{
    static const char block[] = "\x88"
                                "\x00\x0c"
                                "content-type"
                                "\x10"
                                "application/grpc"
                                "\x00\x0b"
                                "grpc-status"
                                "\x01"
                                "0";
    wire_frame(w, FRAME_HEADERS, 4 | 1, stream, block, sizeof(block) - 1);
}

void wire_answer(struct wire *w)
{
    for (unsigned i = 0; i < w->n_streams; i++) {
        answer(w, w->streams[i]);
    }
    w->n_streams = 0;
}

bool wire_got(const struct wire *w, enum frame type)
{
    unsigned n = w->n_frames < FRAMES_KEPT ? w->n_frames : FRAMES_KEPT;
    return memchr(w->frames, (int)type, n) != NULL;
}

static void forget_stream(struct wire *w, int32_t stream)
{
    for (unsigned i = 0; i < w->n_streams; i++) {
        if (w->streams[i] == stream) {
            w->streams[i] = w->streams[--w->n_streams];
            return;
        }
    }
}

static uint32_t number_at(const uint8_t *p, unsigned bytes)
{
    uint32_t n = 0;
    for (unsigned i = 0; i < bytes; i++) {
        n = n << 8 | p[i];
    }
    return n;
}

static void take_frame(struct wire *w, const uint8_t *f, size_t size)
{
    enum frame type = f[3];
    unsigned flags = f[4];
    int32_t stream = (int32_t)(number_at(f + 5, 4) & INT32_MAX);
    const uint8_t *payload = f + 9;
    if (w->n_frames < FRAMES_KEPT) {
        w->frames[w->n_frames] = (uint8_t)type;
    }
    w->n_frames++;
    switch (type) {
    case FRAME_HEADERS:
        assert_true(stream > w->last_stream);
        w->last_stream = stream;
        w->server->calls++;
        if (w->server->holds) {
            assert_true(w->n_streams < STREAMS_KEPT);
            w->streams[w->n_streams++] = stream;
        } else {
            answer(w, stream);
        }
        break;
    case FRAME_RST_STREAM: forget_stream(w, stream); break;
    case FRAME_SETTINGS:
        if ((flags & 1) == 0 && !w->server->no_ack) {
            wire_frame(w, FRAME_SETTINGS, 1, 0, NULL, 0);
        }
        break;
    case FRAME_PING:
        if ((flags & 1) == 0) {
            w->pings++;
            wire_frame(w, FRAME_PING, 1, 0, payload, 8);
        }
        break;
    case FRAME_GOAWAY:
        w->said_goodbye = true;
        w->goaway_code = number_at(payload + 4, 4);
        break;
    case FRAME_WINDOW_UPDATE:
        w->credit += stream == 0 ? number_at(payload, 4) : 0;
        break;
    case FRAME_DATA:
    case FRAME_PRIORITY:
    case FRAME_PUSH_PROMISE:
    case FRAME_CONTINUATION: break;
    }
    (void)size;
}

static void serve(struct wire *w)
{
    enum {
        PREFACE = 24,
        HEAD = 9
    };
    struct server *s = w->server;
    if (s->frozen || s->mute || s->black_hole || w->stalled) {
        return;
    }
    if (!w->begun) {
        w->begun = true;
        wire_settings(w, s->max_streams);
    }
    if (!w->preface && w->in.size >= PREFACE) {
        assert_memory_equal(bytes_front(&w->in),
                            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", PREFACE);
        bytes_drop(&w->in, PREFACE);
        w->preface = true;
    }
    while (w->preface && w->in.size >= HEAD) {
        size_t size = number_at(bytes_front(&w->in), 3);
        if (w->in.size < HEAD + size) {
            return;
        }
        take_frame(w, bytes_front(&w->in), size);
        bytes_drop(&w->in, HEAD + size);
    }
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
                serve(w); /* the last words */
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
            serve(w);
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
