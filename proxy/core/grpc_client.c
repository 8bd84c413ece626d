#include "proxy/core/grpc_client.h"

#include <assert.h>

#include "proxy/core/grpc_bucket.h"
#include "proxy/core/grpc_reply.h"
#include "proxy/core/grpc_trace.h"
#include "proxy/core/state.h"

enum {
    S_US = 1000 * 1000,
    CONNECTION_WINDOW = 16 << 20, /* FL9 */
    DRAIN_PING_US = S_US,         /* the second GOAWAY does not wait longer */
};

static struct grpc_client *client_of(struct conn *c)
{
    return CONTAINER_OF(c, struct grpc_client, conn);
}

/* ---- life ---------------------------------------------------------------- */

struct grpc_client *grpc_client_new(struct engine *e, struct listener *l)
{
    struct grpc_client *c = memory_take(e->memory, sizeof(*c));
    if (c == NULL) {
        return NULL;
    }
    e->n_grpc_timers++;
    if (!engine_reserve_timer(e) || !conn_open(e, &c->conn, CONN_GRPC_CLIENT)) {
        e->n_grpc_timers--;
        memory_give(e->memory, c);
        return NULL;
    }
    c->listener = l;
    c->timer.kind = TIMER_GRPC_CLIENT;
    list_init(&c->calls);
    l->n_clients++;
    e->n_grpc_clients++;
    return c;
}

static void wake_at(struct engine *e, struct grpc_client *c, uint64_t at_us)
{
    if (at_us != GRPC_NO_LIMIT &&
        (c->timer.place == TIMER_OFF || c->timer.at_us > at_us)) {
        timer_set(&e->timers, &c->timer, at_us);
    }
}

static uint64_t after(const struct engine *e, uint64_t us)
{
    return us == GRPC_NO_LIMIT ? GRPC_NO_LIMIT : e->now_us + us;
}

/* max_connection_age, a tenth more or less, so that the clients of one moment
 * do not all come back in one moment (K13). */
static uint64_t age_limit(struct engine *e, const struct grpc_client *c)
{
    uint64_t age = grpc_client_rules(c)->max_connection_age_us;
    if (age == GRPC_NO_LIMIT) {
        return GRPC_NO_LIMIT;
    }
    return e->now_us + age - age / 10 + rng_upto(&e->rng, age / 5);
}

void grpc_client_accepted(struct engine *e, struct grpc_client *c)
{
    const struct grpc_listener_config *rules = grpc_client_rules(c);
    const struct grpc_config *config = &c->listener->channel->config->grpc;
    struct h2_options options = {
        .role = H2_SERVER,
        .handler = &grpc_client_handler,
        .owner = c,
        .memory = e->h2_memory,
        .max_streams = rules->max_concurrent_streams,
        .stream_window = (uint32_t)config->retry_buffer_per_call,
        .connection_window = CONNECTION_WINDOW,
        .max_header_list_size = (uint32_t)rules->max_header_list_size,
        .reset_burst = 2 * rules->early_close_burst,
        .reset_rate = 2 * rules->early_close_rate,
    };
    e->stats.clients_accepted++;
    c->accepted_us = e->now_us;
    c->read_us = e->now_us;
    c->idle_us = e->now_us;
    c->output.progress_us = e->now_us;
    c->age_us = age_limit(e, c);
    c->resets = rules->early_close_burst;
    c->resets_us = e->now_us;
    c->controls = GRPC_CONTROLS_BURST;
    c->controls_us = e->now_us;
    c->h2 = h2_new(&options);
    if (c->h2 == NULL) {
        e->stats.limit_memory++;
        grpc_client_close(e, c, "out of memory");
        return;
    }
    grpc_touch(e, &c->conn);
    wake_at(e, c, e->now_us + GRPC_PREFACE_US);
    wake_at(e, c, c->age_us);
    wake_at(e, c, after(e, rules->max_connection_idle_us));
}

static void end_calls(struct engine *e, struct grpc_client *c)
{
    while (!list_empty(&c->calls)) {
        struct grpc_call *call =
            CONTAINER_OF(c->calls.next, struct grpc_call, client_node);
        grpc_call_client_gone(e, call);
    }
}

/* The connection ends; tell: the shell does not know yet. */
static void close_conn(struct engine *e, struct grpc_client *c, bool tell)
{
    end_calls(e, c);
    if (c->h2 != NULL) { /* no memory: it has never been */
        assert(h2_uncredited(c->h2) == c->withheld); /* FL2 */
        h2_free(c->h2);
        c->h2 = NULL;
    }
    grpc_credit_fini(e, &c->withheld);
    grpc_output_fini(e, &c->output);
    c->listener->n_clients--;
    e->n_grpc_clients--;
    timer_clear(&e->timers, &c->timer);
    conn_close(e, &c->conn, tell);
}

static void trace_client(struct engine *e,
                         const struct grpc_client *c,
                         const char *to,
                         const char *reason)
{
    engine_trace(e, &(struct trace_record){
                        .type = TRACE_CLIENT,
                        .upstream = c->listener->channel->config->name,
                        .listener = c->listener->config->name,
                        .client = c->conn.id,
                        .to = to,
                        .reason = reason });
}

void grpc_client_close(struct engine *e,
                       struct grpc_client *c,
                       const char *reason)
{
    if (c->conn.dead) {
        return;
    }
    if (reason != NULL) {
        trace_client(e, c, "closed", reason);
    }
    if (c->in_h2) {
        c->broken = true; /* the session is in the middle of something */
        return;
    }
    close_conn(e, c, true);
}

static void client_release(struct engine *e, struct conn *conn)
{
    e->n_grpc_timers--;
    memory_give(e->memory, client_of(conn));
}

void grpc_client_forget(struct engine *e,
                        struct grpc_client *c,
                        struct grpc_call *call)
{
    list_remove(&call->client_node);
    c->n_calls--;
    if (c->n_calls == 0) {
        c->idle_us = e->now_us;
        wake_at(e, c, after(e, grpc_client_rules(c)->max_connection_idle_us));
        if (c->drained) {
            grpc_touch(e, &c->conn); /* it may close now */
        }
    }
}

/* ---- bytes --------------------------------------------------------------- */

void grpc_client_close_before(struct engine *e,
                              struct grpc_client *c,
                              uint64_t us)
{
    uint64_t at_us = e->now_us + us;
    if (c->close_us == 0 || c->close_us > at_us) {
        c->close_us = at_us;
        wake_at(e, c, at_us);
    }
}

/* It has not begun with the preface of HTTP/2 (K11). */
static void bad_preface(struct engine *e,
                        struct grpc_client *c,
                        struct span first)
{
    c->listener->channel->stats.abuse[GRPC_ABUSE_PREFACE]++;
    grpc_trace_bad_preface(e, c, first);
    grpc_client_close(e, c, NULL);
}

static void client_bytes(struct engine *e, struct conn *conn, struct slice s)
{
    struct grpc_client *c = client_of(conn);
    c->read_us = e->now_us;
    c->pinged_us = 0;
    if (c->doomed) {
        buf_unref(e->memory, s.buf);
        return;
    }
    struct span bytes = { slice_data(&s), s.len };
    buf_ref(s.buf); /* what it began with may have to be told */
    c->in_h2 = true;
    const char *error = grpc_receive(e, c->h2, s);
    c->in_h2 = false;
    grpc_touch(e, conn);
    if (c->broken) {
        close_conn(e, c, true);
    } else if (error != NULL && !c->doomed) {
        e->stats.protocol_error_client++;
        if (c->spoke) {
            grpc_client_close(e, c, error);
        } else {
            bad_preface(e, c, bytes);
        }
    }
    buf_unref(e->memory, s.buf);
}

/* Both sides of the session have ended, or nobody listens any more. */
static bool is_over(const struct grpc_client *c)
{
    return h2_is_over(c->h2) || c->doomed ||
           (c->drained && list_empty(&c->calls));
}

static void client_written(struct engine *e, struct conn *conn, uint64_t count)
{
    struct grpc_client *c = client_of(conn);
    grpc_output_written(e, conn, &c->output, count);
    if (is_over(c)) {
        grpc_touch(e, conn); /* it may close now */
    }
}

/* The session has ended by itself, for what the client has sent. */
static void note_complaint(struct engine *e, struct grpc_client *c)
{
    const char *complaint = h2_complaint(c->h2);
    if (complaint == NULL || c->doomed) {
        return;
    }
    c->doomed = true;
    e->stats.protocol_error_client++;
    trace_client(e, c, "closing", complaint);
    grpc_client_close_before(e, c, GRPC_LINGER_US);
}

static void client_flush(struct engine *e, struct conn *conn)
{
    struct grpc_client *c = client_of(conn);
    if (conn->dead) {
        return;
    }
    c->in_h2 = true;
    const char *error = grpc_output_make(e, conn, &c->output, c->h2);
    c->in_h2 = false;
    if (error != NULL || c->broken) {
        grpc_client_close(e, c, error);
        return;
    }
    note_complaint(e, c);
    uint64_t waiting = grpc_output_waiting(&c->output, conn);
    if (waiting > 0) {
        wake_at(e, c, e->now_us + GRPC_STALL_US);
    } else if (is_over(c) && !h2_wants_send(c->h2)) {
        /* To close with bytes of the client unread would make the kernel send
         * RST, which destroys what the client has not read yet: it is its turn
         * to leave. */
        grpc_client_close_before(e, c, GRPC_LINGER_US);
    }
}

static void client_ended(struct engine *e, struct conn *conn)
{
    grpc_client_close(e, client_of(conn), NULL); /* A4: a FIN is the end */
}

static void client_closed(struct engine *e, struct conn *conn, int error)
{
    (void)error;
    close_conn(e, client_of(conn), false);
}

static void client_handed(struct conn *conn, size_t n)
{
    client_of(conn)->output.handed += n;
}

/* ---- times ---------------------------------------------------------------- */

/* GOAWAY 2^31-1, then the one that counts (§3.9). */
static void begin_drain(struct engine *e,
                        struct grpc_client *c,
                        uint64_t grace_us)
{
    if (c->draining || c->h2 == NULL) {
        return;
    }
    c->draining = true;
    h2_shutdown_notice(c->h2);
    h2_ping(c->h2, GRPC_DRAIN_PING);
    c->goaway_us = e->now_us + DRAIN_PING_US;
    if (grace_us != GRPC_NO_LIMIT) {
        c->close_us = c->goaway_us + grace_us;
        wake_at(e, c, c->close_us);
    }
    wake_at(e, c, c->goaway_us);
    grpc_touch(e, &c->conn);
}

void grpc_client_finish_drain(struct engine *e, struct grpc_client *c)
{
    if (!c->drained) {
        c->drained = true;
        h2_goaway(c->h2, H2_NO_ERROR, c->goodbye == NULL ? "" : c->goodbye);
        grpc_touch(e, &c->conn);
    }
}

static void client_drain(struct engine *e, struct conn *conn, bool again)
{
    struct grpc_client *c = client_of(conn);
    if (c->h2 == NULL || conn->dead) {
        return;
    }
    begin_drain(e, c, GRPC_NO_LIMIT);
    if (again) {
        LIST_FOR_EACH (node, &c->calls) {
            grpc_call_fail(e, CONTAINER_OF(node, struct grpc_call, client_node),
                           GRPC_UNAVAILABLE, "shutting down");
        }
        grpc_client_finish_drain(e, c);
        grpc_client_close_before(e, c, GRPC_LINGER_US);
    }
}

static void client_end(struct engine *e, struct conn *conn)
{
    close_conn(e, client_of(conn), true);
}

void grpc_client_check_alive(struct engine *e, struct grpc_client *c)
{
    const struct grpc_listener_config *rules = grpc_client_rules(c);
    if (rules->server_keepalive_time_us == GRPC_NO_LIMIT) {
        return;
    }
    if (c->pinged_us != 0) {
        wake_at(e, c, c->pinged_us + rules->server_keepalive_timeout_us);
        return;
    }
    uint64_t due = c->read_us + rules->server_keepalive_time_us;
    if (e->now_us >= due) {
        h2_ping(c->h2, GRPC_ALIVE_PING);
        c->pinged_us = e->now_us;
        grpc_touch(e, &c->conn);
        due = e->now_us + rules->server_keepalive_timeout_us;
    }
    wake_at(e, c, due);
}

static bool is_stalled(const struct engine *e, const struct grpc_client *c)
{
    return grpc_output_waiting(&c->output, &c->conn) > 0 &&
           e->now_us >= c->output.progress_us + GRPC_STALL_US;
}

/* Close it if it has been waited for long enough. */
static bool close_if_late(struct engine *e, struct grpc_client *c)
{
    const struct grpc_listener_config *rules = grpc_client_rules(c);
    if (!c->spoke && e->now_us >= c->accepted_us + GRPC_PREFACE_US) {
        bad_preface(e, c, (struct span){ NULL, 0 });
    } else if (c->close_us != 0 && e->now_us >= c->close_us) {
        grpc_client_close(e, c,
                          c->doomed || list_empty(&c->calls)
                              ? NULL
                              : "its calls took too long");
    } else if (c->pinged_us != 0 &&
               e->now_us >= c->pinged_us + rules->server_keepalive_timeout_us) {
        grpc_client_close(e, c, "no reply to PING");
    } else if (is_stalled(e, c)) {
        c->listener->channel->stats.abuse[GRPC_ABUSE_STALLED]++;
        grpc_trace_abuse(e, c, GRPC_ABUSE_STALLED);
        grpc_client_close(e, c, NULL);
    }
    return c->conn.dead;
}

void grpc_client_timeout(struct engine *e, struct grpc_client *c)
{
    const struct grpc_listener_config *rules = grpc_client_rules(c);
    if (close_if_late(e, c)) {
        return;
    }
    if (c->goaway_us != 0 && e->now_us >= c->goaway_us) {
        grpc_client_finish_drain(e, c);
    }
    if (e->now_us >= c->age_us) {
        c->goodbye = "max_age";
        begin_drain(e, c, rules->max_connection_age_grace_us);
    } else if (c->n_calls == 0 &&
               rules->max_connection_idle_us != GRPC_NO_LIMIT &&
               e->now_us >= c->idle_us + rules->max_connection_idle_us) {
        c->goodbye = "max_idle";
        begin_drain(e, c, rules->max_connection_age_grace_us);
    }
    grpc_client_check_alive(e, c);
    /* What is still to come. */
    if (!c->spoke) {
        wake_at(e, c, c->accepted_us + GRPC_PREFACE_US);
    }
    if (!c->draining) {
        wake_at(e, c, c->age_us);
        if (c->n_calls == 0 && rules->max_connection_idle_us != GRPC_NO_LIMIT) {
            wake_at(e, c, c->idle_us + rules->max_connection_idle_us);
        }
    } else if (!c->drained) {
        wake_at(e, c, c->goaway_us);
    }
    if (c->close_us != 0) {
        wake_at(e, c, c->close_us);
    }
    if (grpc_output_waiting(&c->output, &c->conn) > 0) {
        wake_at(e, c, c->output.progress_us + GRPC_STALL_US);
    }
}

/* ---- as a connection -------------------------------------------------------- */

static void client_accepted(struct engine *e,
                            struct conn *conn,
                            const struct event *event)
{
    (void)event;
    grpc_client_accepted(e, client_of(conn));
}

const struct conn_class grpc_client_class = {
    .accepted = client_accepted,
    .bytes = client_bytes,
    .written = client_written,
    .ended = client_ended,
    .closed = client_closed,
    .flush = client_flush,
    .handed = client_handed,
    .drain = client_drain,
    .end = client_end,
    .release = client_release,
};
