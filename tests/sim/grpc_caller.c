/* A model of an application with a gRPC client: one HTTP/2 connection, several
 * calls at the same time. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/grpc_model.h"

enum {
    AGAIN_US = 20000,
    READ_US = 3000,
    READ_MAX = 700,
    STEP_US = 1000, /* a deadline may be kept so late */
    LOOK_AGAIN_US = 5000,
};

static struct call *call_of(const struct h2_stream *s)
{
    return s->user;
}

static struct world *world_of(const struct h2 *h)
{
    const struct caller *c = h2_owner(h);
    return c->w;
}

void caller_forget(struct call *call)
{
    struct caller *c = call->caller;
    for (unsigned i = 0; c != NULL && i < c->n_calls; i++) {
        if (c->calls[i] == call) {
            c->calls[i] = c->calls[--c->n_calls];
            break;
        }
    }
    if (call->stream != NULL) {
        call->stream->user = NULL;
    }
    call->stream = NULL;
    call->caller = NULL;
}

/* Let the session say what it has to say. */
static void flush(struct world *w, struct caller *c)
{
    if (c->h2 == NULL) {
        return;
    }
    const char *error = h2_send(c->h2, SIZE_MAX / 2);
    if (error != NULL) {
        world_violate(w, "the session of a client is lost: %s", error);
    }
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

/* The run that a block is from: 0 when it is from redial. */
static unsigned run_of(struct world *w,
                       const struct call *call,
                       const struct h2_block *b)
{
    char meta[48];
    uint32_t run = grpc_attempts_parse(field_of(b, "x-run"));
    if (run == 0) {
        return 0;
    }
    meta_text((uint64_t)call->id * 100 + run, meta, sizeof meta);
    if (run > call->n_runs) {
        world_violate(w,
                      "call %" PRIu32 " is answered by run %" PRIu32
                      ", of which there is none",
                      call->id, run);
    } else if (!span_equal(field_of(b, "x-meta-bin"), span_of(meta))) {
        world_violate(w, "I3: metadata of call %" PRIu32 " has changed",
                      call->id);
    } else if (call->run_seen != 0 && call->run_seen != run) {
        world_violate(w,
                      "call %" PRIu32 " is answered by run %u and run %" PRIu32,
                      call->id, call->run_seen, run);
    }
    return run;
}

static void got_status(struct world *w,
                       struct call *call,
                       const struct h2_block *b)
{
    struct span status = field_of(b, "grpc-status");
    uint32_t ms = 0;
    unsigned run = run_of(w, call, b);
    if (world_broken(w)) {
        return;
    }
    if (status.data == NULL) {
        world_violate(w, "call %" PRIu32 " ends without grpc-status", call->id);
        return;
    }
    call->status = (int)grpc_status_parse(status);
    call->from_redial = run == 0;
    if (run != 0) {
        call->run_seen = run;
    }
    call->told_to_stop =
        grpc_pushback_parse(field_of(b, "grpc-retry-pushback-ms"), &ms) ==
        GRPC_PUSHBACK_NO;
    world_note(w, "status", call->caller->link,
               (uint64_t)call->id * 100 + (uint64_t)call->status,
               field_of(b, "grpc-message"));
    ledger_status(w, call, field_of(b, "grpc-message"));
}

static void on_headers(struct h2 *h,
                       struct h2_stream *s,
                       enum h2_headers kind,
                       struct h2_block *block,
                       bool end)
{
    struct world *w = world_of(h);
    struct call *call = call_of(s);
    if (call != NULL && kind == H2_RESPONSE && !end) {
        unsigned run = run_of(w, call, block);
        if (run == 0) {
            world_violate(w, "call %" PRIu32 " gets headers from nobody",
                          call->id);
        }
        call->run_seen = run;
        call->got_headers = true;
    } else if (call != NULL) {
        got_status(w, call, block);
        if (!end) {
            world_violate(w, "trailers of call %" PRIu32 " do not end it",
                          call->id);
        }
    }
    h2_block_unref(block);
}

static void on_data(struct h2 *h, struct h2_stream *s, struct span bytes)
{
    struct world *w = world_of(h);
    struct call *call = call_of(s);
    h2_credit_connection(h, bytes.len);
    if (call == NULL) {
        h2_credit_stream(h, s, bytes.len);
        return;
    }
    if (call->run_seen == 0 ||
        !body_has(&call->runs[call->run_seen - 1].body, call->got, bytes)) {
        world_violate(w, "I3: wrong bytes for call %" PRIu32 " at %" PRIu64,
                      call->id, call->got);
    }
    call->got += bytes.len;
    if (call->lazy && !w->healed) {
        if (call->owed == 0) {
            grpc_wake(w, pick(w, 1000, 200000), GW_CREDIT, call);
        }
        call->owed += bytes.len;
    } else {
        h2_credit_stream(h, s, bytes.len);
    }
}

static void on_ended(struct h2 *h, struct h2_stream *s)
{
    struct call *call = call_of(s);
    if (call != NULL) {
        world_violate(world_of(h), "call %" PRIu32 " ends without trailers",
                      call->id);
    }
}

/* Nobody has seen the call, says the stream's end. */
static void refused(struct world *w, struct call *call)
{
    const struct caller *c = call->caller;
    if (!c->goaway) {
        world_violate(w, "S3: call %" PRIu32 " is refused", call->id);
    }
    if (call->n_runs > 0) {
        world_violate(w,
                      "S3: call %" PRIu32 " is refused, but has reached a host",
                      call->id);
    }
    call->never_runs = true;
    call->ending = CALL_REFUSED;
}

static void on_closed(struct h2 *h, struct h2_stream *s, uint32_t code)
{
    struct world *w = world_of(h);
    struct call *call = call_of(s);
    if (call == NULL) {
        return;
    }
    if (s->is_invalid) {
        world_violate(w, "call %" PRIu32 ": redial breaks HTTP/2", call->id);
    } else if (call->ending == CALL_OPEN && code == H2_REFUSED_STREAM) {
        refused(w, call);
    } else if (call->ending == CALL_OPEN && w->memory_failed) {
        call->ending = CALL_LOST;
    } else if (call->ending == CALL_OPEN) {
        world_violate(w, "I1: call %" PRIu32 " is reset with %s", call->id,
                      h2_code_name(code));
    } else if (call->ending == CALL_STATUS && code != H2_NO_ERROR) {
        world_violate(w, "Z4: call %" PRIu32 " is reset with %s at its end",
                      call->id, h2_code_name(code));
    }
    s->user = NULL;
    call->stream = NULL;
    caller_forget(call);
}

/* ---- what it has to say ---- */

static void on_headers_sent(struct h2 *h,
                            struct h2_stream *s,
                            uint64_t offset,
                            bool end)
{
    struct call *call = call_of(s);
    (void)h;
    if (call != NULL) {
        call->headers_offset = offset;
        call->half_sent |= end;
    }
}

static size_t on_pull(struct h2 *h,
                      struct h2_stream *s,
                      size_t max,
                      unsigned *flags)
{
    const struct call *call = call_of(s);
    (void)h;
    if (call == NULL) {
        return 0;
    }
    uint64_t left = body_until(&call->body, call->released) - call->sent;
    size_t n = left < max ? (size_t)left : max;
    bool all = n == left && call->released == call->body.n;
    *flags = all && call->half_closed ? H2_PULL_END : 0;
    return n;
}

static void sent(struct h2 *h, struct call *call, size_t n)
{
    struct caller *c = h2_owner(h);
    call->sent += n;
    c->data_sent += n;
}

static void on_copy(struct h2 *h, struct h2_stream *s, uint8_t *out, size_t n)
{
    struct call *call = call_of(s);
    if (call != NULL && n > 0) {
        body_fill(&call->body, call->sent, out, n);
        sent(h, call, n);
    }
}

static bool on_pass(struct h2 *h, struct h2_stream *s, size_t n)
{
    struct call *call = call_of(s);
    struct caller *c = h2_owner(h);
    uint8_t *piece = must_alloc(n);
    body_fill(&call->body, call->sent, piece, n);
    link_send(c->w, c->link, piece, n);
    sent(h, call, n);
    free(piece);
    return true;
}

static void on_end_sent(struct h2 *h, struct h2_stream *s)
{
    struct call *call = call_of(s);
    (void)h;
    if (call != NULL) {
        call->half_sent = true;
    }
}

static bool on_write(struct h2 *h, struct span bytes)
{
    struct caller *c = h2_owner(h);
    if (c->link != NULL) {
        link_send(c->w, c->link, bytes.data, bytes.len);
    }
    return true;
}

static void on_headers_unsent(struct h2 *h,
                              struct h2_stream *s,
                              enum h2_unsent why)
{
    struct call *call = call_of(s);
    (void)h;
    if (call != NULL && why == H2_UNSENT_GONE) {
        call->never_runs = true;
        call->ending = CALL_REFUSED;
    }
}

static void on_settings(struct h2 *h)
{
    struct caller *c = h2_owner(h);
    c->ready = true;
}

static void on_goaway(struct h2 *h,
                      int32_t last_stream,
                      uint32_t code,
                      struct span debug)
{
    struct caller *c = h2_owner(h);
    (void)last_stream;
    c->goaway = true;
    if (code != H2_NO_ERROR && !c->w->memory_failed) {
        world_violate(c->w, "a client is sent away: %s %.*s",
                      h2_code_name(code), (int)debug.len,
                      (const char *)debug.data);
    }
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
    .settings = on_settings,
    .settings_acked = on_nothing,
    .ping = on_nothing,
    .pong = on_pong,
    .goaway = on_goaway,
    .control = on_control,
};

/* ---- calls ---- */

static void draw_call(struct world *w, struct call *call)
{
    call->shape = (enum shape)pick(w, 0, SHAPE_COUNT - 1);
    call->method = (unsigned)pick(w, 0, METHODS - 1);
    call->body.key = call->id;
    call->body.n = 1;
    call->released = 1;
    call->half_closed = true;
    call->lazy = chance(w, 1, 10);
    if (call->shape == SHAPE_CLIENT_STREAM || call->shape == SHAPE_BIDI) {
        call->body.n = (unsigned)pick(w, 0, MESSAGES_MAX);
        call->released = 0;
        call->half_closed = false;
        call->ping_pong = call->shape == SHAPE_BIDI && chance(w, 1, 2);
    } else if (chance(w, 1, 10)) {
        call->half_closed = false;
    }
    for (unsigned i = 0; i < call->body.n; i++) {
        call->body.size[i] = message_size(w);
    }
    if (chance(w, 1, 30) && !w->grpc->probing) {
        call->pad = (uint32_t)pick(w, 0, PAD_MAX);
    }
    if (chance(w, 1, 3) && !w->grpc->probing) {
        call->timeout_us = 1000 * pick(w, 5, chance(w, 1, 2) ? 300 : 4000);
    }
    if (chance(w, 1, 8) && !w->grpc->probing) {
        call->before = (uint32_t)pick(w, 1, 6);
    }
}

static struct h2_field field(const char *name, const char *value)
{
    return (struct h2_field){ .name = span_of(name),
                              .value = span_of(value),
                              .flags = H2_FIELD_COPY };
}

static void submit(struct world *w, struct caller *c, struct call *call)
{
    char id[16], meta[48], timeout[32], before[16];
    struct h2_field f[FIELDS_MAX];
    size_t n = 0;
    bool no_ids = false;
    snprintf(id, sizeof id, "%" PRIu32, call->id);
    snprintf(timeout, sizeof timeout, "%" PRIu64 "m", call->timeout_us / 1000);
    snprintf(before, sizeof before, "%" PRIu32, call->before);
    meta_text(call->id, meta, sizeof meta);
    f[n++] = field(":method", "POST");
    f[n++] = field(":scheme", "http");
    f[n++] = field(":path", methods[call->method].path);
    f[n++] = field(":authority", "sim.test");
    f[n++] = field("te", "trailers");
    f[n++] = field("content-type", "application/grpc+sim");
    f[n++] = field("x-call", id);
    f[n++] = field("x-meta-bin", meta);
    f[n] = field("x-pad", "");
    f[n++].value = meta_pad(call->pad);
    if (call->timeout_us > 0) {
        f[n++] = field("grpc-timeout", timeout);
    }
    if (call->before > 0) {
        f[n++] = field("grpc-previous-rpc-attempts", before);
    }
    call->caller = c;
    call->stream = h2_request(c->h2, f, n, NULL, false, call, &no_ids);
    if (call->stream == NULL) {
        abort();
    }
    call->stream_id = (uint32_t)call->stream->id;
    world_note(w, "call", c->link, call->id,
               span_of(methods[call->method].path));
}

static void call_make(struct world *w, struct caller *c)
{
    struct call *call = ledger_call_new(w);
    draw_call(w, call);
    if (c->n_calls == c->calls_cap) {
        c->calls_cap = c->calls_cap * 2 + 8;
        c->calls = must_grow(c->calls, c->calls_cap * sizeof(struct call *));
    }
    c->calls[c->n_calls++] = call;
    submit(w, c, call);
    w->sent++;
    if (!call->half_closed) {
        grpc_wake(w, pick(w, 0, 5000), GW_CALL, call);
    }
    if (!w->grpc->probing && chance(w, 1, 15)) {
        grpc_wake(w, pick(w, 0, 400000), GW_CANCEL, call);
    }
}

/* The next message, or the end of the request. */
static void call_go_on(struct world *w, struct call *call)
{
    const struct run_record *r =
        call->run_seen == 0 ? NULL : &call->runs[call->run_seen - 1];
    if (call->half_closed) {
        return;
    }
    if (call->released == call->body.n) {
        call->half_closed = true;
    } else if (!call->ping_pong || call->released == 0 ||
               (r != NULL &&
                body_whole(&r->body, call->got) >= call->released)) {
        call->released++;
    }
    h2_resume(call->caller->h2, call->stream);
    flush(w, call->caller);
    uint64_t most = w->healed ? 2000 : 30000;
    grpc_wake(w, pick(w, 0, most), GW_CALL, call);
}

static void call_cancel(struct world *w, struct call *call)
{
    struct caller *c = call->caller;
    if (call->ending == CALL_OPEN && !w->healed) {
        world_note(w, "cancel", c->link, call->id, (struct span){ 0 });
        call->ending = CALL_CANCELLED;
        h2_reset(c->h2, call->stream, H2_CANCEL);
        flush(w, c);
    }
}

static void call_credit(struct world *w, struct call *call)
{
    h2_credit_stream(call->caller->h2, call->stream, call->owed);
    call->owed = 0;
    flush(w, call->caller);
}

/* I5: redial has written the end of the call, unless the client's kernel or the
 * client itself does not take it. */
static void call_is_over(struct world *w, struct call *call)
{
    const struct caller *c = call->caller;
    const struct link *l = c->link;
    bool ignored = c->frames.goaway && c->frames.last_stream < call->stream_id;
    if (call->engine_ended || ignored || call->ending != CALL_OPEN ||
        l == NULL || !l->engine_open || l->closing || w->memory_failed) {
        return;
    }
    if (l->queue.size > 0 || w->now_us < call->deadline_us + STEP_US) {
        grpc_wake(w, LOOK_AGAIN_US, GW_DEADLINE, call);
        return;
    }
    world_violate(w,
                  "I5: call %" PRIu32 " goes on %" PRIu64
                  "us after its deadline",
                  call->id, w->now_us - call->deadline_us);
}

void caller_wake_call(struct world *w, struct call *call, enum grpc_wake why)
{
    if (call->caller == NULL || call->stream == NULL) {
        return;
    }
    switch (why) {
    case GW_CALL: call_go_on(w, call); break;
    case GW_CREDIT: call_credit(w, call); break;
    case GW_CANCEL: call_cancel(w, call); break;
    case GW_DEADLINE: call_is_over(w, call); break;
    default: abort();
    }
}

/* ---- its connection ---- */

struct caller *caller_new(struct world *w, unsigned place)
{
    struct caller *c = must_alloc(sizeof *c);
    c->w = w;
    c->place = place;
    c->slow = strikes(w, FAULT_SLOW_READER);
    grpc_wake(w, pick(w, 0, 2000), GW_CALLER, c);
    return c;
}

void caller_free(struct caller *c)
{
    if (c->h2 != NULL) {
        h2_free(c->h2);
    }
    bytes_fini(&c->unread);
    free(c->calls);
    free(c);
}

void caller_give_up(struct world *w, struct caller *c)
{
    (void)w;
    while (c->n_calls > 0) {
        struct call *call = c->calls[0];
        if (call->ending == CALL_OPEN) {
            call->ending = CALL_LOST;
        }
        caller_forget(call);
    }
}

bool caller_idle(const struct caller *c)
{
    return c->n_calls == 0;
}

/* It is gone; another one takes its place. */
static void leave(struct world *w, struct caller *c)
{
    struct grpc_world *g = w->grpc;
    c->gone = true;
    caller_give_up(w, c);
    if (c->link != NULL) {
        c->link->end = NULL;
        c->link = NULL;
    }
    g->retired =
        must_grow(g->retired, (g->n_retired + 1) * sizeof(struct caller *));
    g->retired[g->n_retired++] = c;
    g->callers[c->place] = caller_new(w, c->place);
}

void caller_closed(struct world *w, struct caller *c)
{
    if (c->gone) {
        return;
    }
    bool excused = w->draining || w->memory_failed || c->slow ||
                   w->grpc->s.age_grace || c->unread.size > 0;
    if (c->engine_closed && c->n_calls > 0 && !excused) {
        world_violate(w, "redial drops a client with %u calls", c->n_calls);
    }
    c->link->peer_open = false;
    leave(w, c);
}

static void walk_away(struct world *w, struct caller *c)
{
    struct link *l = c->link;
    world_note(w, "leaves", l, c->n_calls, (struct span){ 0 });
    leave(w, c);
    if (l != NULL && l->peer_open) {
        link_end(w, l, chance(w, 1, 2));
    }
}

static bool connect_first(struct world *w, struct caller *c)
{
    if (c->link != NULL) {
        return true;
    }
    c->link = net_accept(w, NULL);
    if (c->link == NULL) {
        grpc_wake(w, AGAIN_US, GW_CALLER, c);
        return false;
    }
    c->link->end = c;
    const struct h2_options options = {
        .role = H2_CLIENT,
        .handler = &handler,
        .owner = c,
        .memory = w->grpc->memory,
        .stream_window = window_draw(w),
        .connection_window = 1 << 20,
        .max_header_list_size = chance(w, 1, 4) ? 2000 : 30000,
    };
    c->h2 = h2_new(&options);
    flush(w, c);
    return true;
}

/* As many calls as it may have now. */
static void make_calls(struct world *w, struct caller *c)
{
    uint64_t most = w->settings.depth_max;
    if (!c->ready || c->goaway || w->finished) {
        return;
    }
    if (most > h2_peer_max_streams(c->h2)) {
        most = h2_peer_max_streams(c->h2);
    }
    uint64_t burst = c->n_calls < most ? pick(w, 1, most - c->n_calls) : 0;
    for (uint64_t i = 0; i < burst && w->sent < w->settings.requests; i++) {
        call_make(w, c);
        if (chance(w, 1, 2)) {
            flush(w, c);
        }
    }
    flush(w, c);
}

void caller_act(struct world *w, struct caller *c)
{
    if (c->gone || w->draining || !connect_first(w, c) || c->gone) {
        return;
    }
    if (!w->finished && strikes(w, FAULT_LEAVER)) {
        make_calls(w, c);
        walk_away(w, c);
        return;
    }
    if (c->goaway && c->n_calls == 0) {
        walk_away(w, c);
        return;
    }
    make_calls(w, c);
    uint64_t rest = chance(w, 1, 4) ? 0 : w->settings.think_us;
    grpc_wake(w, pick(w, rest / 2, rest + 1), GW_CALLER, c);
}

/* ---- bytes ---- */

static void consume(struct world *w, struct caller *c, struct span bytes)
{
    const char *error = h2_receive(c->h2, bytes);
    if (error != NULL) {
        world_violate(w, "redial breaks HTTP/2: %s", error);
    } else if (!c->gone) {
        flush(w, c);
    }
    if (!c->gone && h2_complaint(c->h2) != NULL) {
        world_violate(w, "redial breaks HTTP/2: %s", h2_complaint(c->h2));
    }
}

void caller_receive(struct world *w, struct caller *c, struct span bytes)
{
    if (c->gone || c->h2 == NULL) {
        return;
    }
    if ((c->slow && !w->healed) || c->unread.size > 0) {
        bytes_add(&c->unread, bytes.data, bytes.len);
        if (!c->reading) {
            c->reading = true;
            grpc_wake(w, READ_US, GW_READ, c);
        }
        return;
    }
    consume(w, c, bytes);
}

void caller_read(struct world *w, struct caller *c)
{
    struct bytes piece = { 0 };
    c->reading = false;
    if (c->gone) {
        return;
    }
    size_t n = w->healed ? c->unread.size : (size_t)pick(w, 1, READ_MAX);
    n = n < c->unread.size ? n : c->unread.size;
    bytes_add(&piece, bytes_front(&c->unread), n);
    bytes_drop(&c->unread, n);
    consume(w, c, bytes_span(&piece));
    bytes_fini(&piece);
    if (c->unread.size > 0) {
        c->reading = true;
        grpc_wake(w, READ_US, GW_READ, c);
    }
    if (c->unread.size < UNREAD_MAX && c->link != NULL) {
        link_pump(w, c->link);
    }
}

static uint64_t smaller(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* From when a call's deadline counts: its headers are at redial. */
static void call_arrived(struct world *w, struct call *call)
{
    const struct grpc_settings *s = &w->grpc->s;
    bool own = methods[call->method].is_explicit && s->has_explicit;
    uint64_t us = call->timeout_us > 0 ? call->timeout_us : UINT64_MAX;
    us = s->longest_call_us > 0 ? smaller(us, s->longest_call_us) : us;
    us = own && s->own_timeout_us > 0 ? smaller(us, s->own_timeout_us) : us;
    call->arrived_us = w->now_us;
    if (us != UINT64_MAX) {
        call->deadline_us = w->now_us + us;
        grpc_wake(w, us + STEP_US, GW_DEADLINE, call);
    }
}

void caller_arrives(struct world *w, struct caller *c, size_t n)
{
    c->arrived += n;
    for (unsigned i = 0; i < c->n_calls; i++) {
        struct call *call = c->calls[i];
        if (call->arrived_us == 0 && call->headers_offset > 0 &&
            call->headers_offset <= c->arrived) {
            call_arrived(w, call);
        }
    }
}

static void on_stream_seen(void *who, uint32_t stream, bool end)
{
    struct caller *c = who;
    for (unsigned i = 0; end && i < c->n_calls; i++) {
        if (c->calls[i]->stream_id == stream) {
            c->calls[i]->engine_ended = true;
        }
    }
}

void caller_wrote(struct caller *c, struct span bytes)
{
    frames_read(&c->frames, bytes, on_stream_seen, c);
}
