#include <assert.h>
#include <stdio.h>

#include "proxy/core/grpc_endpoint.h"
#include "proxy/core/grpc_trace.h"
#include "proxy/core/state.h"

/* How a link begins and ends, and the events of the border. What happens in
 * between is in grpc_link_session.c and grpc_link_time.c. */

static struct grpc_link *link_of(struct conn *c)
{
    return CONTAINER_OF(c, struct grpc_link, conn);
}

static const char *state_name(enum grpc_link_state s)
{
    static const char *const names[GRPC_LINK_STATE_COUNT] = {
        "resolving", "connecting", "ready", "draining", "closed",
    };
    return names[s];
}

const char *grpc_link_name(const struct grpc_link *l)
{
    return l->endpoint != NULL ? l->endpoint->name : "";
}

uint32_t grpc_link_number(const struct grpc_link *l)
{
    return l->endpoint != NULL ? l->endpoint->number : 0;
}

struct span grpc_link_authority(const struct grpc_link *l)
{
    return span_of(l->endpoint->from->authority);
}

/* Change the state, and with it what the endpoint and the channel can do.
 * Nothing else does. */
static void move(struct engine *e,
                 struct grpc_link *l,
                 enum grpc_link_state next)
{
    l->state = (uint8_t)next;
    grpc_endpoint_count(l->endpoint);
    grpc_channel_changed(e, l->channel);
}

/* Of a move that redial itself has decided. */
static void trace_move(struct engine *e,
                       const struct grpc_link *l,
                       enum grpc_link_state next,
                       const char *why)
{
    engine_trace(e, &(struct trace_record){
                        .type = TRACE_LANE,
                        .upstream = l->channel->config->name,
                        .address = &l->address,
                        .lane = l->conn.id,
                        .from = state_name((enum grpc_link_state)l->state),
                        .to = state_name(next),
                        .reason = why });
}

/* ---- how it begins ------------------------------------------------------------ */

static struct grpc_link *link_new(struct engine *e, struct grpc_channel *ch)
{
    e->n_grpc_timers++;
    struct grpc_link *l = NULL;
    if (engine_reserve_timer(e)) {
        l = memory_take(e->memory, sizeof(*l));
    }
    if (l == NULL || !conn_open(e, &l->conn, CONN_GRPC_LINK)) {
        e->n_grpc_timers--;
        memory_give(e->memory, l);
        ch->stats.limit_memory++;
        return NULL;
    }
    l->channel = ch;
    l->timer.kind = TIMER_GRPC_LINK;
    l->started_us = e->now_us;
    list_init(&l->calls);
    return l;
}

struct grpc_link *grpc_link_lookup(struct engine *e,
                                   struct grpc_channel *ch,
                                   struct grpc_name *name)
{
    struct grpc_link *l = link_new(e, ch);
    if (l == NULL) {
        return NULL;
    }
    l->state = GRPC_LINK_RESOLVING;
    l->name = name;
    l->address = name->address;
    l->conn.resolve = true;
    conn_touch(e, &l->conn);
    timer_set(&e->timers, &l->timer, e->now_us + GRPC_LOOKUP_US);
    return l;
}

bool grpc_link_open(struct engine *e, struct grpc_endpoint *p)
{
    struct grpc_link *l = link_new(e, p->channel);
    if (l == NULL) {
        return false;
    }
    l->endpoint = p;
    l->address = p->address;
    l->keepalive_us = p->channel->keepalive_us;
    l->connect_deadline_us = e->now_us + p->channel->config->connect_timeout_us;
    list_append(&p->links, &l->node);
    move(e, l, GRPC_LINK_CONNECTING);
    l->conn.connect = true;
    conn_touch(e, &l->conn);
    timer_set(&e->timers, &l->timer, l->connect_deadline_us);
    return true;
}

static void on_connected(struct engine *e, struct conn *c, int error)
{
    struct grpc_link *l = link_of(c);
    if (l->state != GRPC_LINK_CONNECTING || l->h2 != NULL) {
        return;
    }
    if (error != 0) {
        grpc_link_lost(e, l, GRPC_DISCONNECT_SOCKET_ERROR,
                       io_error_text((enum io_error)(error - 1)), false);
        return;
    }
    const struct grpc_config *config = &l->channel->config->grpc;
    l->h2 = h2_new(&(struct h2_options){
        .role = H2_CLIENT,
        .handler = &grpc_link_handler,
        .owner = l,
        .memory = e->h2_memory,
        .stream_window = (uint32_t)config->upstream_stream_window,
        .connection_window = (uint32_t)config->upstream_connection_window,
        .max_header_list_size = (uint32_t)config->max_header_list_size,
    });
    if (l->h2 == NULL) {
        l->channel->stats.limit_memory++;
        grpc_link_lost(e, l, GRPC_DISCONNECT_UNKNOWN, "out of memory", true);
        return;
    }
    l->settings_us = e->now_us;
    l->read_us = e->now_us;
    l->output.progress_us = e->now_us;
    l->controls = GRPC_CONTROLS_BURST;
    l->controls_us = e->now_us;
    grpc_touch(e, c);
    grpc_link_schedule(e, l);
}

void grpc_link_ready(struct engine *e, struct grpc_link *l)
{
    assert(l->state == GRPC_LINK_CONNECTING);
    struct grpc_endpoint *p = l->endpoint;
    l->ready_us = e->now_us;
    l->idle_us = e->now_us;
    uint64_t age_us = l->channel->config->grpc.upstream_max_connection_age_us;
    l->age_us = age_us == GRPC_NO_LIMIT
                    ? UINT64_MAX
                    : e->now_us + age_us - age_us / 10 +
                          rng_upto(&e->rng, age_us / 5); /* 10 % more or less */
    l->channel->stats.connections_opened++;
    grpc_endpoint_reached(e, p, l->started_us);
    move(e, l, GRPC_LINK_READY);
    grpc_trace_connection_ready(e, l->channel, l);
    LIST_FOR_EACH (node, &p->links) {
        struct grpc_link *other = CONTAINER_OF(node, struct grpc_link, node);
        if (other->retiring) {
            grpc_link_drain(e, other, "a new connection takes over");
        }
    }
    grpc_link_schedule(e, l);
}

/* ---- how it ends -------------------------------------------------------------- */

void grpc_link_drain(struct engine *e, struct grpc_link *l, const char *why)
{
    if (l->state != GRPC_LINK_READY) {
        return;
    }
    l->drain_us = e->now_us + l->channel->config->grpc.drain_timeout_us;
    trace_move(e, l, GRPC_LINK_DRAINING, why);
    move(e, l, GRPC_LINK_DRAINING);
    grpc_link_wake_at(e, l, l->n_streams == 0 ? e->now_us : l->drain_us);
}

void grpc_link_doom(struct engine *e, struct grpc_link *l, const char *why)
{
    if (l->doom == NULL) {
        l->doom = why;
        grpc_link_wake_at(e, l, e->now_us);
    }
}

/* The shell is asked to close it, or has: nothing but its memory is left. */
static void dispose(struct engine *e, struct grpc_link *l, bool tell)
{
    if (l->node.next != NULL) {
        list_remove(&l->node); /* from channel->closing */
    }
    timer_clear(&e->timers, &l->timer);
    grpc_output_fini(e, &l->output); /* its last words counted until now */
    conn_close(e, &l->conn, tell);
}

void grpc_link_blame(struct grpc_link *l, enum grpc_disconnect what)
{
    if (l->disconnect == 0) {
        l->disconnect = (uint8_t)(1 + (unsigned)what);
    }
}

/* Take l from its endpoint and end its calls. Its last output stays. */
static void detach(struct engine *e, struct grpc_link *l, const char *why)
{
    struct grpc_endpoint *p = l->endpoint;
    list_remove(&l->node);
    p->n_streams -= l->n_streams;
    if (l->ready_us != 0) {
        grpc_link_blame(l, GRPC_DISCONNECT_SHUTDOWN);
        l->channel->stats.disconnections[l->disconnect - 1]++;
    }
    l->channel->n_probing -= l->probed_us != 0;
    l->probed_us = 0;
    move(e, l, GRPC_LINK_CLOSED); /* calls that go on find others */
    while (!list_empty(&l->calls)) {
        struct grpc_call *call =
            CONTAINER_OF(l->calls.next, struct grpc_call, place);
        grpc_call_link_lost(e, call, why);
        assert(call->link != l);
    }
    l->n_streams = 0;
    l->endpoint = NULL;
    if (l->h2 != NULL) {
        assert(h2_uncredited(l->h2) == l->withheld); /* FL2 */
        h2_free(l->h2);
        l->h2 = NULL;
    }
    grpc_credit_fini(e, &l->withheld);
    timer_clear(&e->timers, &l->timer);
}

void grpc_link_end(struct engine *e,
                   struct grpc_link *l,
                   const char *why,
                   bool tell)
{
    if (l->state == GRPC_LINK_RESOLVING) {
        l->state = GRPC_LINK_CLOSED;
    } else if (l->state != GRPC_LINK_CLOSED) {
        trace_move(e, l, GRPC_LINK_CLOSED, why);
        detach(e, l, why);
    }
    dispose(e, l, tell);
}

/* A call of l has not been sent yet: it will go out on another link, so not a
 * byte more of it may leave on this one (F1). */
static bool has_unsent_calls(const struct grpc_link *l)
{
    LIST_FOR_EACH (node, &l->calls) {
        const struct grpc_call *call =
            CONTAINER_OF(node, struct grpc_call, place);
        if (call->headers_end == 0 || call->headers_end > l->output.written) {
            return true;
        }
    }
    return false;
}

/* Let what there is to say leave before l is closed. */
static void end_politely(struct engine *e, struct grpc_link *l, const char *why)
{
    bool silent = has_unsent_calls(l);
    if (l->h2 != NULL && !silent) {
        (void)grpc_output_make(e, &l->conn, &l->output, l->h2);
    }
    detach(e, l, why);
    if (silent || grpc_output_waiting(&l->output, &l->conn) == 0) {
        dispose(e, l, true);
        return;
    }
    list_append(&l->channel->closing, &l->node);
    conn_touch(e, &l->conn);
    timer_set(&e->timers, &l->timer, e->now_us + GRPC_FAREWELL_US);
}

void grpc_link_leave(struct engine *e,
                     struct grpc_link *l,
                     enum h2_code code,
                     const char *why)
{
    if (l->h2 != NULL && code == H2_NO_ERROR) {
        h2_goaway(l->h2, code, "");
    } else if (l->h2 != NULL) {
        h2_terminate(l->h2, code, why);
    }
    trace_move(e, l, GRPC_LINK_CLOSED, why);
    end_politely(e, l, why);
}

/* Tell of the end of l, and what the endpoint learns from it. */
static void count_loss(struct engine *e,
                       struct grpc_link *l,
                       enum grpc_disconnect kind,
                       const char *why)
{
    struct grpc_channel *ch = l->channel;
    if (l->state == GRPC_LINK_CONNECTING) {
        grpc_endpoint_failed(e, l->endpoint, l->started_us, l->h2 == NULL, why);
        return;
    }
    ch->stats.connections_lost++;
    grpc_link_blame(l, kind);
    grpc_trace_connection_lost(e, ch, l, why);
    grpc_endpoint_note(l->endpoint, why);
    grpc_names_refresh(e, ch);
}

void grpc_link_lost(struct engine *e,
                    struct grpc_link *l,
                    enum grpc_disconnect kind,
                    const char *why,
                    bool tell)
{
    count_loss(e, l, kind, why);
    detach(e, l, why);
    dispose(e, l, tell);
}

void grpc_link_give_up(struct engine *e,
                       struct grpc_link *l,
                       enum grpc_disconnect kind,
                       const char *why)
{
    count_loss(e, l, kind, why);
    end_politely(e, l, why);
}

/* ---- events of the border ----------------------------------------------------- */

static void on_resolved(struct engine *e,
                        struct conn *c,
                        const struct event *event)
{
    if (link_of(c)->state == GRPC_LINK_RESOLVING) {
        grpc_name_resolved(e, link_of(c), event);
    }
}

/* The first bytes of an endpoint: NULL, or what they are instead of HTTP/2. */
static const char *foreign_tongue(struct span first)
{
    enum {
        TLS_ALERT = 0x15,
        TLS_HANDSHAKE = 0x16,
        TYPE_AT = 3,
        SETTINGS = 4
    };
    const uint8_t *p = first.data;
    if (first.len <= TYPE_AT || p[TYPE_AT] == SETTINGS) {
        return NULL;
    }
    if (memcmp(p, "HTTP", 4) == 0) {
        return "the endpoint speaks HTTP/1, not HTTP/2";
    }
    if ((p[0] == TLS_ALERT || p[0] == TLS_HANDSHAKE) && p[1] == 3) {
        return "the endpoint speaks TLS";
    }
    return "the endpoint does not speak HTTP/2";
}

static void on_bytes(struct engine *e, struct conn *c, struct slice s)
{
    struct grpc_link *l = link_of(c);
    if (l->h2 == NULL) {
        buf_unref(e->memory, s.buf);
        return;
    }
    l->read_us = e->now_us;
    grpc_link_heard(e, l);
    if (!l->spoke) {
        l->spoke = true;
        l->doom = foreign_tongue(
            (struct span){ .data = slice_data(&s), .len = s.len });
    }
    const char *error = grpc_receive(e, l->h2, s);
    if (error != NULL && l->doom == NULL) {
        l->doom = error;
    }
    if (l->doom != NULL) {
        grpc_link_give_up(e, l, GRPC_DISCONNECT_UNKNOWN, l->doom);
        return;
    }
    if (h2_wants_send(l->h2)) {
        grpc_touch(e, c);
    }
}

static void on_written(struct engine *e, struct conn *c, uint64_t count)
{
    struct grpc_link *l = link_of(c);
    bool was_blocked = l->output.blocked;
    grpc_output_written(e, c, &l->output, count);
    if (l->state == GRPC_LINK_CLOSED) {
        if (grpc_output_waiting(&l->output, c) == 0) {
            dispose(e, l, true);
        }
    } else if (was_blocked && !l->output.blocked) {
        grpc_channel_pump_later(e, l->channel);
    }
}

static const char *end_text(const struct grpc_link *l)
{
    return l->state == GRPC_LINK_CONNECTING ? "closed before SETTINGS"
                                            : "closed";
}

static void on_ended(struct engine *e, struct conn *c)
{
    struct grpc_link *l = link_of(c);
    if (l->state == GRPC_LINK_CLOSED) {
        dispose(e, l, true);
        return;
    }
    grpc_link_lost(e, l, GRPC_DISCONNECT_UNKNOWN, end_text(l), true);
}

static void on_closed(struct engine *e, struct conn *c, int error)
{
    struct grpc_link *l = link_of(c);
    if (l->state == GRPC_LINK_CLOSED) {
        dispose(e, l, false);
        return;
    }
    enum io_error what = error > 0 ? (enum io_error)(error - 1) : IO_END;
    if (what == IO_END) {
        grpc_link_lost(e, l, GRPC_DISCONNECT_UNKNOWN, end_text(l), false);
    } else if (what == IO_RESET) {
        grpc_link_lost(e, l, GRPC_DISCONNECT_RESET, "reset", false);
    } else if (what == IO_TIMED_OUT) {
        grpc_link_lost(e, l, GRPC_DISCONNECT_TIMED_OUT, "timed out", false);
    } else {
        grpc_link_lost(e, l, GRPC_DISCONNECT_SOCKET_ERROR, io_error_text(what),
                       false);
    }
}

static const struct address *wanted_address(struct conn *c)
{
    return &link_of(c)->address;
}

static void on_handed(struct conn *c, size_t n)
{
    link_of(c)->output.handed += n;
}

/* It has done what it was there for. */
static bool is_drained(const struct grpc_link *l)
{
    return l->state == GRPC_LINK_DRAINING && l->n_streams == 0;
}

static void flush(struct engine *e, struct conn *c)
{
    struct grpc_link *l = link_of(c);
    if (l->h2 == NULL) {
        return;
    }
    const char *error = grpc_output_make(e, c, &l->output, l->h2);
    if (error != NULL) {
        grpc_link_doom(e, l, error);
    } else if (h2_is_over(l->h2) && !is_drained(l)) {
        grpc_link_doom(e, l, "invalid frames");
    }
    if (grpc_output_waiting(&l->output, c) > 0) {
        grpc_link_wake_at(e, l, e->now_us + GRPC_STALL_US);
    }
    if (l->channel->pump) { /* this is no step, whose end could do it */
        timer_set(&e->timers, &l->channel->timer, e->now_us);
    }
}

static void on_release(struct engine *e, struct conn *c)
{
    memory_give(e->memory, link_of(c));
    e->n_grpc_timers--;
}

const struct conn_class grpc_link_class = {
    .bytes = on_bytes,
    .written = on_written,
    .ended = on_ended,
    .closed = on_closed,
    .resolved = on_resolved,
    .connected = on_connected,
    .address = wanted_address,
    .flush = flush,
    .handed = on_handed,
    .release = on_release,
};
