/* A model of a gRPC server: every way in which a call may end. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/grpc_model.h"

enum {
    MAGIC = 24, /* the bytes in front of a client's frames */
    LONG_GOAWAY_US = 500000,
};

/* How a run ends. */
enum manner {
    MANNER_STATUS, /* OK, mostly */
    MANNER_RESET,
    MANNER_CLOSE,     /* the connection goes in the middle */
    MANNER_HANG,      /* until all is well again */
    MANNER_NOT_GRPC,  /* an HTML page */
    MANNER_NO_STATUS, /* END_STREAM without trailers */
};

struct run {
    struct run *next; /* in port->runs */
    struct world *w;
    struct port *port;        /* borrowed; NULL: over */
    struct h2_stream *stream; /* NULL: over */
    struct call *call;        /* borrowed */
    unsigned number;          /* its record is call->runs[number - 1] */
    enum manner manner;
    int status;
    unsigned stage;    /* before the end: 0 headers, then messages */
    unsigned end_at;   /* the stage at which RESET and CLOSE happen */
    unsigned released; /* messages that may leave */
    bool finished;     /* trailers may leave */
    bool ended;        /* ... have left */
    bool early;        /* does not wait for the end of the request */
    bool slow;         /* gives credit late */
    uint64_t owed;
    uint64_t got;
    bool half_closed;
};

static struct run_record *record_of(const struct run *r)
{
    return &r->call->runs[r->number - 1];
}

static struct run *run_of(const struct h2_stream *s)
{
    return s->user;
}

static struct world *world_of(const struct h2 *h)
{
    const struct port *p = h2_owner(h);
    return p->w;
}

/* ---- ports ---- */

static void run_over(struct port *p, struct run *r)
{
    if (p->runs == r) {
        p->runs = r->next;
    }
    for (struct run *at = p->runs; at != NULL; at = at->next) {
        if (at->next == r) {
            at->next = r->next;
        }
    }
    if (r->stream != NULL) {
        r->stream->user = NULL;
    }
    r->stream = NULL;
    r->port = NULL;
}

/* The connection is of no more use to the host. */
static void port_over(struct port *p)
{
    p->over = true;
    while (p->runs != NULL) {
        run_over(p, p->runs);
    }
    if (p->link != NULL) {
        p->link->end = NULL;
    }
    p->link = NULL;
    p->n_streams = 0;
}

static void port_end(struct world *w, struct port *p, bool reset)
{
    struct link *l = p->link;
    if (p->over) {
        return;
    }
    port_over(p);
    if (l != NULL && l->peer_open) {
        link_end(w, l, reset);
    }
}

static void flush(struct world *w, struct port *p)
{
    if (p->over) {
        return;
    }
    const char *error = h2_send(p->h2, SIZE_MAX / 2);
    if (error != NULL) {
        world_violate(w, "the session of a host is lost: %s", error);
    }
    if (p->kicked || h2_is_over(p->h2)) {
        port_end(w, p, false);
    }
}

/* ---- a run ---- */

static void draw_body(struct world *w, struct run *r)
{
    struct body *b = &record_of(r)->body;
    enum shape shape = r->call->shape;
    bool many = shape == SHAPE_SERVER_STREAM || shape == SHAPE_BIDI;
    b->n = many ? (unsigned)pick(w, 0, MESSAGES_MAX) : 1;
    if (r->call->ping_pong) {
        b->n = r->call->body.n;
    }
    for (unsigned i = 0; i < b->n; i++) {
        b->size[i] = message_size(w);
    }
}

static void draw_pushback(struct world *w, struct run_record *rec)
{
    rec->pushback = GRPC_PUSHBACK_NONE;
    rec->split_end = rec->trailers_only && chance(w, 1, 4);
    if (chance(w, 1, 6)) {
        rec->pushback = chance(w, 1, 3) ? GRPC_PUSHBACK_NO : GRPC_PUSHBACK_MS;
        rec->pushback_ms = (uint32_t)pick(w, 0, 300);
    }
}

static void draw_manner(struct world *w, struct run *r)
{
    struct run_record *rec = record_of(r);
    static const uint8_t usual[] = { 14, 14, 14, 10, 13, 2, 8, 1 };
    unsigned draw = (unsigned)pick(w, 0, 99);
    r->status = GRPC_OK;
    r->manner = MANNER_STATUS;
    r->early = false;
    if (w->healed || draw < 50) {
        return;
    }
    rec->pad = chance(w, 1, 30) ? (uint32_t)pick(w, 0, PAD_MAX) : 0;
    r->end_at = (unsigned)pick(w, 0, 3);
    r->early = chance(w, 1, 4);
    if (draw < 80) {
        r->status = chance(w, 1, 2) ? usual[pick(w, 0, sizeof usual - 1)]
                                    : (int)pick(w, 0, 16);
        rec->trailers_only = r->status != GRPC_OK && chance(w, 2, 3);
        draw_pushback(w, rec);
    } else if (draw < 87) {
        r->manner = MANNER_RESET;
    } else if (draw < 92) {
        r->manner = MANNER_CLOSE;
    } else if (draw < 95) {
        r->manner = MANNER_HANG;
    } else if (draw < 98) {
        r->manner = MANNER_NOT_GRPC;
    } else {
        r->manner = MANNER_NO_STATUS;
    }
}

static struct h2_field field(const char *name, const char *value)
{
    return (struct h2_field){ .name = span_of(name),
                              .value = span_of(value),
                              .flags = H2_FIELD_COPY };
}

struct words {
    char run[16], meta[48], status[16], pushback[16];
};

static size_t add_run(const struct run *r, struct h2_field *f, struct words *t)
{
    snprintf(t->run, sizeof t->run, "%u", r->number);
    meta_text((uint64_t)r->call->id * 100 + r->number, t->meta, sizeof t->meta);
    f[0] = field("x-run", t->run);
    f[1] = field("x-meta-bin", t->meta);
    f[2] = field("x-pad", "");
    f[2].value = meta_pad(record_of(r)->pad);
    return 3;
}

static size_t add_status(const struct run *r,
                         struct h2_field *f,
                         struct words *t)
{
    const struct run_record *rec = record_of(r);
    size_t n = 0;
    snprintf(t->status, sizeof t->status, "%d", r->status);
    f[n++] = field("grpc-status", t->status);
    f[n++] = field("grpc-message", "of the model 100%25");
    if (rec->pushback == GRPC_PUSHBACK_MS) {
        snprintf(t->pushback, sizeof t->pushback, "%" PRIu32, rec->pushback_ms);
        f[n++] = field("grpc-retry-pushback-ms", t->pushback);
    } else if (rec->pushback == GRPC_PUSHBACK_NO) {
        f[n++] = field("grpc-retry-pushback-ms", "-1");
    }
    return n;
}

static void say_headers(struct run *r, bool end)
{
    struct h2_field f[FIELDS_MAX];
    struct words t;
    size_t n = 0;
    record_of(r)->headers = !end;
    f[n++] = field(":status", "200");
    f[n++] = field("content-type", "application/grpc+sim");
    n += add_run(r, f + n, &t);
    bool split = end && record_of(r)->split_end;
    if (end) {
        n += add_status(r, f + n, &t);
        record_of(r)->said = r->status;
        r->ended = true;
    }
    if (!h2_respond(r->port->h2, r->stream, f, n, NULL, end && !split)) {
        abort();
    }
}

static void say_html(struct world *w, struct run *r)
{
    static const char *const codes[] = { "503", "404", "200", "429" };
    static const unsigned numbers[] = { 503, 404, 200, 429 };
    size_t i = (size_t)pick(w, 0, 3);
    struct h2_field f[] = { field(":status", codes[i]),
                            field("content-type", "text/html") };
    record_of(r)->not_grpc = true;
    record_of(r)->http = numbers[i];
    r->ended = true;
    if (!h2_respond(r->port->h2, r->stream, f, 2, NULL, true)) {
        abort();
    }
}

static void reset(struct world *w, struct run *r)
{
    static const enum h2_code codes[] = {
        H2_NO_ERROR,          H2_INTERNAL_ERROR, H2_CANCEL,
        H2_ENHANCE_YOUR_CALM, H2_REFUSED_STREAM, H2_PROTOCOL_ERROR
    };
    enum h2_code code = codes[pick(w, 0, 5)];
    if (code == H2_REFUSED_STREAM) {
        code = H2_CANCEL; /* it has run: only a liar would say so */
    }
    record_of(r)->was_reset = true;
    record_of(r)->reset_code = (uint32_t)code;
    h2_reset(r->port->h2, r->stream, code);
}

/* Whether this is where a run that does not end well ends. Does it. */
static bool end_badly(struct world *w, struct run *r)
{
    if (r->manner == MANNER_HANG && !w->healed) {
        return true;
    }
    if (r->manner == MANNER_NOT_GRPC) {
        say_html(w, r);
        return true;
    }
    if (r->stage < r->end_at) {
        return false;
    }
    if (r->manner == MANNER_RESET) {
        reset(w, r);
        return true;
    }
    if (r->manner == MANNER_CLOSE) {
        port_end(w, r->port, chance(w, 1, 2));
        return true;
    }
    return false;
}

/* The next thing that it does. Returns whether there is one after it. */
static bool run_step(struct world *w, struct run *r)
{
    const struct run_record *rec = record_of(r);
    if (end_badly(w, r)) {
        return false;
    }
    bool may_end = r->half_closed || r->early;
    if (rec->trailers_only) {
        may_end |= r->call->ping_pong; /* its client waits for an answer */
        if (may_end) {
            say_headers(r, true);
        }
        return !may_end;
    }
    if (r->stage == 0) {
        bool waits = !r->early && !r->half_closed && !r->call->ping_pong;
        if (!waits) {
            say_headers(r, false);
            r->stage++;
        }
        return true;
    }
    unsigned whole = body_whole(&r->call->body, r->got);
    if (r->released < rec->body.n &&
        (!r->call->ping_pong || whole > r->released || r->early)) {
        r->released++;
        r->stage++;
        h2_resume(r->port->h2, r->stream);
        return true;
    }
    if (r->released == rec->body.n && may_end) {
        r->finished = true;
        h2_resume(r->port->h2, r->stream);
        return false;
    }
    return true;
}

void run_wake(struct world *w, struct run *r, enum grpc_wake why)
{
    struct port *p = r->port;
    if (p == NULL || r->stream == NULL) {
        return;
    }
    if (p->host->stopped) {
        grpc_wake(w, 10000, why, r);
        return;
    }
    if (why == GW_RUN_CREDIT) {
        h2_credit_stream(p->h2, r->stream, r->owed);
        r->owed = 0;
    } else if (!r->ended && !r->finished && run_step(w, r)) {
        uint64_t most = w->healed || chance(w, 3, 4) ? 2000 : 100000;
        grpc_wake(w, pick(w, 100, most), GW_RUN, r);
    }
    flush(w, p);
}

void run_free(struct run *r)
{
    free(r);
}

static struct run *run_new(struct world *w,
                           struct port *p,
                           struct h2_stream *s,
                           struct call *call,
                           uint32_t attempts)
{
    struct grpc_world *g = w->grpc;
    struct run *r = must_alloc(sizeof *r);
    if (g->n_runs == g->runs_cap) {
        g->runs_cap = g->runs_cap * 2 + 64;
        g->runs = must_grow(g->runs, g->runs_cap * sizeof(struct run *));
    }
    g->runs[g->n_runs++] = r;
    *r = (struct run){
        .w = w, .port = p, .stream = s, .call = call, .next = p->runs
    };
    p->runs = r;
    s->user = r;
    ledger_run(w, call, attempts);
    r->number = call->n_runs;
    draw_body(w, r);
    draw_manner(w, r);
    r->slow = !w->healed && chance(w, 1, 10);
    grpc_wake(w, pick(w, 100, chance(w, 1, 4) ? 50000 : 2000), GW_RUN, r);
    return r;
}

/* ---- what the session tells ---- */

static struct span field_of(const struct h2_block *b, const char *name)
{
    for (uint16_t i = 0; i < b->n; i++) {
        if (span_equal(b->fields[i].name, span_of(name))) {
            return b->fields[i].value;
        }
    }
    return (struct span){ NULL, 0 };
}

/* L3: what the header says is left of the deadline, since it was written. */
static void check_timeout(struct world *w,
                          const struct port *p,
                          uint32_t stream,
                          const struct call *call,
                          const struct h2_block *b)
{
    uint64_t timeout_us = UINT64_MAX;
    uint64_t since_us = call->arrived_us;
    if (call->arrived_us == 0) {
        return; /* given up by its client while it was on its way */
    }
    for (unsigned i = 0; i < WRITTEN_KEPT; i++) {
        if (p->written[i].stream == stream && p->written[i].us > since_us) {
            since_us = p->written[i].us;
        }
    }
    struct span timeout = field_of(b, "grpc-timeout");
    bool has = timeout.data != NULL && grpc_timeout_parse(timeout, &timeout_us);
    if (has != (call->deadline_us != 0)) {
        world_violate(w, "L3: grpc-timeout of call %" PRIu32 " is %.*s",
                      call->id, (int)timeout.len,
                      timeout.data == NULL ? "" : (const char *)timeout.data);
    } else if (has && since_us + timeout_us >
                          call->deadline_us + timeout_us / 20000 + 1) {
        world_violate(w, "L3: call %" PRIu32 " is given more time than it has",
                      call->id);
    }
}

/* The call that a request says it is; NULL: an invariant is broken. */
static struct call *call_of_block(struct world *w,
                                  const struct port *p,
                                  uint32_t stream,
                                  const struct h2_block *b)
{
    const struct grpc_world *g = w->grpc;
    char meta[48];
    struct span id = field_of(b, "x-call");
    uint32_t number = grpc_attempts_parse(id);
    if (id.data == NULL || number >= g->n_calls) {
        world_violate(w, "I3: a request that nobody made");
        return NULL;
    }
    struct call *call = g->calls[number];
    meta_text(call->id, meta, sizeof meta);
    if (!span_equal(field_of(b, "x-meta-bin"), span_of(meta)) ||
        !span_equal(field_of(b, ":path"),
                    span_of(methods[call->method].path)) ||
        !span_equal(field_of(b, "te"), span_of("trailers"))) {
        world_violate(w, "I3: metadata of call %" PRIu32 " has changed",
                      call->id);
        return NULL;
    }
    check_timeout(w, p, stream, call, b);
    return call;
}

/* Refuse the stream, or have never seen it and those behind it. */
static bool unseen(struct world *w, struct port *p, struct h2_stream *s)
{
    if (p->blind_from != 0) {
        return true;
    }
    if (w->healed || !chance(w, 1, 25)) {
        return false;
    }
    if (chance(w, 1, 2)) {
        world_note(w, "refuse", p->link, (uint64_t)s->id, (struct span){ 0 });
        h2_reset(p->h2, s, H2_REFUSED_STREAM);
        return true;
    }
    p->blind_from = (uint32_t)s->id;
    grpc_wake(w, pick(w, 100, 20000), GW_GOAWAY, p);
    return true;
}

static void on_headers(struct h2 *h,
                       struct h2_stream *s,
                       enum h2_headers kind,
                       struct h2_block *block,
                       bool end)
{
    struct world *w = world_of(h);
    struct port *p = h2_owner(h);
    s->user = NULL;
    if (kind == H2_REQUEST && !unseen(w, p, s)) {
        struct call *call = call_of_block(w, p, (uint32_t)s->id, block);
        if (call != NULL) {
            world_note(w, "runs", p->link, call->id,
                       field_of(block, "grpc-previous-rpc-attempts"));
            struct run *r =
                run_new(w, p, s, call,
                        grpc_attempts_parse(
                            field_of(block, "grpc-previous-rpc-attempts")));
            r->half_closed = end;
        }
        if (!w->healed && chance(w, 1, 60)) {
            grpc_wake(w, pick(w, 0, 5000), GW_GOAWAY, p);
        }
    }
    p->n_streams++;
    h2_block_unref(block);
}

static void on_data(struct h2 *h, struct h2_stream *s, struct span bytes)
{
    struct world *w = world_of(h);
    struct run *r = run_of(s);
    h2_credit_connection(h, bytes.len);
    if (r == NULL) {
        h2_credit_stream(h, s, bytes.len);
        return;
    }
    if (!body_has(&r->call->body, r->got, bytes)) {
        world_violate(w, "I3: wrong bytes from call %" PRIu32 " at %" PRIu64,
                      r->call->id, r->got);
    }
    r->got += bytes.len;
    if (r->slow && !w->healed) {
        if (r->owed == 0) {
            grpc_wake(w, pick(w, 1000, 300000), GW_RUN_CREDIT, r);
        }
        r->owed += bytes.len;
    } else {
        h2_credit_stream(h, s, bytes.len);
    }
}

static void on_ended(struct h2 *h, struct h2_stream *s)
{
    struct run *r = run_of(s);
    if (r == NULL) {
        return;
    }
    r->half_closed = true;
    if (r->got != body_total(&r->call->body)) {
        world_violate(world_of(h),
                      "I3: the request of call %" PRIu32 " is cut: %" PRIu64
                      " bytes",
                      r->call->id, r->got);
    }
}

static void on_closed(struct h2 *h, struct h2_stream *s, uint32_t code)
{
    struct port *p = h2_owner(h);
    struct run *r = run_of(s);
    (void)code;
    p->n_streams--;
    if (s->is_invalid) {
        world_violate(p->w, "redial breaks HTTP/2 towards a host");
    }
    if (r != NULL) {
        r->stream = NULL;
        run_over(p, r);
    }
}

static void on_headers_sent(struct h2 *h,
                            struct h2_stream *s,
                            uint64_t offset,
                            bool end)
{
    (void)h;
    (void)s;
    (void)offset;
    (void)end;
}

/* ---- what it has to say ---- */

static size_t on_pull(struct h2 *h,
                      struct h2_stream *s,
                      size_t max,
                      unsigned *flags)
{
    struct run *r = run_of(s);
    if (r == NULL) {
        return 0;
    }
    struct run_record *rec = record_of(r);
    uint64_t left = body_until(&rec->body, r->released) - rec->sent;
    size_t n = left < max ? (size_t)left : max;
    if (rec->split_end && r->ended) {
        *flags = H2_PULL_END;
        return 0;
    }
    if (n < left || !r->finished) {
        return n;
    }
    r->ended = true;
    if (r->manner == MANNER_NO_STATUS) {
        rec->no_status = true;
        *flags = H2_PULL_END;
        return n;
    }
    struct h2_field f[FIELDS_MAX];
    struct words t;
    size_t fields = add_run(r, f, &t);
    fields += add_status(r, f + fields, &t);
    rec->said = r->status;
    if (!h2_trailers(h, s, f, fields, NULL)) {
        abort();
    }
    *flags = H2_PULL_TRAILERS;
    return n;
}

static void sent(struct h2 *h, const struct run *r, size_t n)
{
    struct port *p = h2_owner(h);
    record_of(r)->sent += n;
    p->data_sent += n;
}

static void on_copy(struct h2 *h, struct h2_stream *s, uint8_t *out, size_t n)
{
    struct run *r = run_of(s);
    if (r != NULL && n > 0) {
        body_fill(&record_of(r)->body, record_of(r)->sent, out, n);
        sent(h, r, n);
    }
}

static bool on_pass(struct h2 *h, struct h2_stream *s, size_t n)
{
    struct run *r = run_of(s);
    struct port *p = h2_owner(h);
    uint8_t *piece = must_alloc(n);
    body_fill(&record_of(r)->body, record_of(r)->sent, piece, n);
    link_send(p->w, p->link, piece, n);
    sent(h, r, n);
    free(piece);
    return true;
}

static void on_end_sent(struct h2 *h, struct h2_stream *s)
{
    struct run *r = run_of(s);
    /* As many servers do when the client has not half-closed. */
    if (r != NULL && !r->half_closed && chance(r->w, 1, 2)) {
        h2_reset(h, s, H2_NO_ERROR);
    }
}

static bool on_write(struct h2 *h, struct span bytes)
{
    struct port *p = h2_owner(h);
    if (p->link != NULL) {
        link_send(p->w, p->link, bytes.data, bytes.len);
    }
    return true;
}

static void on_headers_unsent(struct h2 *h,
                              struct h2_stream *s,
                              enum h2_unsent why)
{
    (void)h;
    (void)s;
    (void)why;
}

static void on_nothing(struct h2 *h)
{
    (void)h;
}

static void on_pong(struct h2 *h, uint64_t opaque)
{
    (void)h;
    (void)opaque;
}

static void on_goaway(struct h2 *h,
                      int32_t last_stream,
                      uint32_t code,
                      struct span debug)
{
    struct port *p = h2_owner(h);
    (void)last_stream;
    if (code != H2_NO_ERROR && code != H2_SETTINGS_TIMEOUT &&
        !p->w->memory_failed) {
        world_violate(p->w, "a host is sent away: %s %.*s", h2_code_name(code),
                      (int)debug.len, (const char *)debug.data);
    }
}

static void on_control(struct h2 *h, bool empty_data)
{
    (void)h;
    (void)empty_data;
}

static const struct h2_handler handler = {
    .headers = on_headers,
    .data = on_data,
    .ended = on_ended,
    .closed = on_closed,
    .headers_sent = on_headers_sent,
    .end_sent = on_end_sent,
    .headers_unsent = on_headers_unsent,
    .pull = on_pull,
    .copy = on_copy,
    .pass = on_pass,
    .write = on_write,
    .settings = on_nothing,
    .settings_acked = on_nothing,
    .ping = on_nothing,
    .pong = on_pong,
    .goaway = on_goaway,
    .control = on_control,
};

/* ---- its connections ---- */

void host_init(struct world *w, struct host *h, unsigned index)
{
    *h = (struct host){ .w = w, .index = index, .up = true };
    h->window = window_draw(w);
    h->max_streams = chance(w, 1, 3) ? (uint32_t)pick(w, 1, 6) : 100;
}

void host_fini(struct host *h)
{
    struct port *p = h->ports;
    while (p != NULL) {
        struct port *next = p->next;
        h2_free(p->h2);
        bytes_fini(&p->unread);
        free(p);
        p = next;
    }
}

void host_accept(struct world *w, struct host *h, struct link *l)
{
    struct port *p = must_alloc(sizeof *p);
    *p = (struct port){ .next = h->ports, .w = w, .host = h, .link = l };
    p->frames.skip = MAGIC;
    h->ports = p;
    l->end = p;
    const struct h2_options options = {
        .role = H2_SERVER,
        .handler = &handler,
        .owner = p,
        .memory = w->grpc->memory,
        .max_streams = h->max_streams,
        .stream_window = h->window,
        .connection_window = 1 << 20,
        .max_header_list_size = chance(w, 1, 4) ? 2000 : 30000,
    };
    p->h2 = h2_new(&options);
    if (!h->stopped) {
        flush(w, p);
    }
}

static void serve(struct world *w, struct port *p, struct span bytes)
{
    const char *error = h2_receive(p->h2, bytes);
    if (error != NULL) {
        world_violate(w, "redial breaks HTTP/2 towards a host: %s", error);
        return;
    }
    flush(w, p);
    if (h2_complaint(p->h2) != NULL) {
        world_violate(w, "redial breaks HTTP/2 towards a host: %s",
                      h2_complaint(p->h2));
    }
}

void port_receive(struct world *w, struct port *p, struct span bytes)
{
    if (p->over) {
        return;
    }
    if (p->host->stopped) {
        bytes_add(&p->unread, bytes.data, bytes.len);
    } else {
        serve(w, p, bytes);
    }
}

void port_hangup(struct world *w, struct port *p, bool reset)
{
    (void)w;
    if (p->over) {
        return;
    }
    if (p->host->stopped && !reset) {
        p->ended = true; /* it reads on later */
        return;
    }
    p->link->peer_open = false;
    port_over(p);
}

bool port_full(const struct port *p)
{
    return p->host->stopped && p->unread.size > UNREAD_MAX;
}

static void on_stream_seen(void *who, uint32_t stream, bool end)
{
    struct port *p = who;
    const struct written *last = &p->written[(p->n_written - 1) % WRITTEN_KEPT];
    if (!end && (p->n_written == 0 || last->stream < stream)) {
        p->written[p->n_written++ % WRITTEN_KEPT] =
            (struct written){ stream, p->w->now_us };
    }
}

/* fresh is the end of the link's queue. */
void port_wrote(struct port *p, struct span bytes)
{
    bool waited = p->link->queue.size > bytes.len;
    uint64_t from = p->n_written;
    frames_read(&p->frames, bytes, on_stream_seen, p);
    for (uint64_t i = from; waited && i < p->n_written; i++) {
        p->written[i % WRITTEN_KEPT].us = 0;
    }
}

/* GOAWAY: of streams that were never seen with a last id below them; else in
 * one step or in two. */
void port_goaway(struct world *w, struct port *p)
{
    if (p->over) {
        return;
    }
    if (p->host->stopped) {
        grpc_wake(w, 10000, GW_GOAWAY, p);
        return;
    }
    world_note(w, "goaway", p->link, p->blind_from, (struct span){ 0 });
    if (p->blind_from != 0) {
        uint32_t last = p->blind_from - 2;
        uint8_t frame[17] = { 0, 0, 8, 7 };
        last = p->blind_from == 1 ? 0 : last;
        for (unsigned i = 0; i < 4; i++) {
            frame[9 + i] = (uint8_t)(last >> (24 - 8 * i));
        }
        link_send(w, p->link, frame, sizeof frame);
        p->kicked = p->runs == NULL || chance(w, 1, 3);
    } else if (chance(w, 1, 2)) {
        h2_shutdown_notice(p->h2);
        if (!p->ended && chance(w, 1, 2)) {
            grpc_wake(w, pick(w, 1000, LONG_GOAWAY_US), GW_GOAWAY, p);
        }
    } else {
        h2_goaway(p->h2, H2_NO_ERROR, "max_age");
        p->kicked = chance(w, 1, 4); /* and FIN in one segment */
    }
    flush(w, p);
}

/* ---- what happens to it ---- */

static void host_kill(struct world *w, struct host *h, uint64_t down_us)
{
    if (!h->up) {
        return;
    }
    bool reset = chance(w, 1, 2);
    h->up = false;
    h->stopped = false;
    h->stops++;
    world_note(w, "kill", NULL, h->index, (struct span){ 0 });
    for (struct port *p = h->ports; p != NULL; p = p->next) {
        port_end(w, p, reset);
    }
    grpc_wake(w, down_us, GW_RESTART, h);
}

void host_restart(struct world *w, struct host *h)
{
    (void)w;
    h->up = true;
}

static void host_stop(struct world *w, struct host *h, uint64_t us)
{
    if (h->up && !h->stopped) {
        h->stopped = true;
        h->stops++;
        world_note(w, "stop", NULL, h->index, (struct span){ 0 });
        world_wake(w, us, WAKE_GRPC, h, GW_CONTINUE | h->stops << 8);
    }
}

void host_continue(struct world *w, struct host *h, uint64_t stop)
{
    if (!h->stopped || stop != h->stops) {
        return;
    }
    h->stopped = false;
    for (struct port *p = h->ports; p != NULL; p = p->next) {
        struct bytes unread = p->unread;
        p->unread = (struct bytes){ 0 };
        if (!p->over) {
            serve(w, p, bytes_span(&unread));
        }
        bytes_fini(&unread);
        if (p->ended && !p->over) {
            p->link->peer_open = false;
            port_over(p);
        } else if (!p->over) {
            link_pump(w, p->link);
        }
    }
}

static void host_kick(struct world *w, struct host *h)
{
    uint64_t skip = pick(w, 0, 3);
    struct port *p = h->ports;
    while (p != NULL && (p->over || skip-- > 0)) {
        p = p->next;
    }
    if (p != NULL && !h->stopped) {
        port_end(w, p, chance(w, 1, 2));
    }
}

void host_strike(struct world *w, struct host *h)
{
    if (strikes(w, FAULT_KILL)) {
        host_kill(w, h, pick(w, 1000, 1500000));
    }
    if (strikes(w, FAULT_STOP)) {
        host_stop(w, h, pick(w, 1000, 1500000));
    }
    if (strikes(w, FAULT_CLIENT_KILL)) {
        host_kick(w, h);
    }
}

void host_heal(struct world *w, struct host *h)
{
    host_restart(w, h);
    host_continue(w, h, h->stops);
    for (struct port *p = h->ports; p != NULL; p = p->next) {
        for (struct run *r = p->runs; r != NULL; r = r->next) {
            if (r->manner == MANNER_HANG) {
                r->manner = MANNER_STATUS;
                grpc_wake(w, pick(w, 0, 2000), GW_RUN, r);
            }
        }
        if (!p->over && p->blind_from != 0) {
            grpc_wake(w, 0, GW_GOAWAY, p);
        }
    }
}
