#include "proxy/core/newcomer.h"

#include "proxy/core/state.h"

static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

enum {
    /* No Redis command begins so: the rest need not be waited for. */
    TELLING = 4, /* "PRI " */
};

static struct newcomer *newcomer_of(struct conn *c)
{
    return CONTAINER_OF(c, struct newcomer, conn);
}

struct newcomer *newcomer_new(struct engine *e, struct listener *l)
{
    struct newcomer *n = memory_take(e->memory, sizeof(*n));
    if (n == NULL) {
        return NULL;
    }
    e->n_grpc_timers++;
    if (!engine_reserve_timer(e) || !conn_open(e, &n->conn, CONN_NEWCOMER)) {
        e->n_grpc_timers--;
        memory_give(e->memory, n);
        return NULL;
    }
    n->listener = l;
    n->timer.kind = TIMER_NEWCOMER;
    l->n_clients++;
    e->n_grpc_clients++;
    return n;
}

/* It is a client no more: either gone, or somebody else's. */
static void leave(struct engine *e, struct newcomer *n)
{
    n->listener->n_clients--;
    e->n_grpc_clients--;
    chain_clear(e->memory, &n->bytes);
    timer_clear(&e->timers, &n->timer);
}

static void end(struct engine *e, struct newcomer *n, bool tell)
{
    leave(e, n);
    conn_close(e, &n->conn, tell);
}

static void release(struct engine *e, struct conn *c)
{
    e->n_grpc_timers--;
    memory_give(e->memory, newcomer_of(c));
}

/* The conn of a new client of that kind, or NULL. */
static struct conn *become(struct engine *e, struct listener *l, bool grpc)
{
    if (grpc) {
        struct grpc_client *c = grpc_client_new(e, l);
        return c == NULL ? NULL : &c->conn;
    }
    struct downstream *d = downstream_new(e, l);
    return d == NULL ? NULL : &d->conn;
}

/* It has shown what it speaks. */
static void decide(struct engine *e, struct newcomer *n, bool grpc)
{
    struct conn *to = become(e, n->listener, grpc);
    if (to == NULL) {
        e->stats.limit_memory++;
        end(e, n, true);
        return;
    }
    conn_take_over(e, to, &n->conn);
    const struct conn_class *class = conn_class_of(to);
    struct chain bytes = n->bytes;
    n->bytes = (struct chain){ 0 };
    class->accepted(e, to, &n->accepted);
    while (bytes.head != NULL) {
        struct slice s = bytes.head->slice;
        buf_ref(s.buf);
        chain_consume(e->memory, &bytes, s.len);
        if (to->dead) {
            buf_unref(e->memory, s.buf);
        } else {
            class->bytes(e, to, s);
        }
    }
    leave(e, n);
    release(e, &n->conn);
}

static void on_accepted(struct engine *e,
                        struct conn *c,
                        const struct event *event)
{
    struct newcomer *n = newcomer_of(c);
    uint64_t idle = n->listener->config->idle_timeout_us;
    n->accepted = *event;
    if (idle > 0) {
        timer_set(&e->timers, &n->timer, e->now_us + idle);
    }
}

static void on_bytes(struct engine *e, struct conn *c, struct slice s)
{
    struct newcomer *n = newcomer_of(c);
    if (!chain_push(e->memory, &n->bytes, s)) {
        e->stats.limit_memory++;
        end(e, n, true);
        return;
    }
    uint8_t first[sizeof(preface) - 1];
    size_t len = chain_copy(&n->bytes, first, sizeof(first));
    if (memcmp(first, preface, len) != 0) {
        decide(e, n, len >= TELLING && memcmp(first, preface, TELLING) == 0);
    } else if (len >= TELLING) {
        decide(e, n, true);
    } else {
        timer_set(&e->timers, &n->timer, e->now_us + GRPC_PREFACE_US);
    }
}

static void on_written(struct engine *e, struct conn *c, uint64_t count)
{
    (void)e;
    (void)c;
    (void)count; /* nothing was written */
}

static void on_ended(struct engine *e, struct conn *c)
{
    end(e, newcomer_of(c), true);
}

static void on_closed(struct engine *e, struct conn *c, int error)
{
    (void)error;
    end(e, newcomer_of(c), false);
}

static void on_drain(struct engine *e, struct conn *c, bool again)
{
    (void)again; /* it has asked for nothing */
    end(e, newcomer_of(c), true);
}

void newcomer_timeout(struct engine *e, struct newcomer *n)
{
    end(e, n, true);
}

const struct conn_class newcomer_class = {
    .accepted = on_accepted,
    .bytes = on_bytes,
    .written = on_written,
    .ended = on_ended,
    .closed = on_closed,
    .drain = on_drain,
    .end = on_ended,
    .release = release,
};
