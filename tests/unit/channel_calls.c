/* Calls, as far as a channel needs them: they take streams. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "channel_driver.h"

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

unsigned driver_running(struct ticket *const t[], unsigned n)
{
    unsigned count = 0;
    for (unsigned i = 0; i < n; i++) {
        count += t[i]->call.link != NULL;
    }
    return count;
}
