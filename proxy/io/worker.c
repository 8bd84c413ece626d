#include "proxy/io/worker.h"

#include <assert.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "proxy/core/channel_state.h"
#include "proxy/core/grpc_stats.h"
#include "proxy/core/node_state.h"
#include "proxy/io/listener.h"
#include "proxy/io/resolver.h"
#include "proxy/io/sockaddr.h"
#include "proxy/io/socket.h"

enum {
    ANSWER_TIMEOUT_MS = 1000, /* worker_ask() */
    FAREWELL_MS = 500,        /* how long worker_free() waits for resolvers */
    SOCKETS_MIN = 64,
    LAST_WORDS_MS = 1000, /* for clients to take them */
};

uint64_t worker_now(struct worker *w)
{
    if (w->now_us == 0) {
        w->now_us = uv_hrtime() / 1000;
    }
    return w->now_us;
}

void worker_step(struct worker *w, struct event *event)
{
    event->now_us = worker_now(w);
    w->has_work = true;
    engine_step(w->engine, event);
}

/* ---- connections by id ---- */

struct socket *worker_find(const struct worker *w, conn_id id)
{
    uint32_t i = conn_index(id);
    struct socket *s = i < w->n_sockets ? w->sockets[i] : NULL;
    return s != NULL && s->id == id ? s : NULL;
}

bool worker_enter(struct worker *w, conn_id id, struct socket *s)
{
    uint32_t i = conn_index(id);
    if (i >= w->n_sockets) {
        size_t n = w->n_sockets < SOCKETS_MIN ? SOCKETS_MIN : w->n_sockets;
        while (n <= i) {
            n *= 2;
        }
        assert(n <= UINT32_MAX);
        struct socket **sockets =
            realloc(w->sockets, n * sizeof(struct socket *));
        if (sockets == NULL) {
            return false;
        }
        memset(sockets + w->n_sockets, 0,
               (n - w->n_sockets) * sizeof(struct socket *));
        w->sockets = sockets;
        w->n_sockets = (uint32_t)n;
    }
    assert(w->sockets[i] == NULL); /* the core gives an index out once */
    w->sockets[i] = s;
    return true;
}

void worker_leave(struct worker *w, conn_id id)
{
    assert(worker_find(w, id) != NULL);
    w->sockets[conn_index(id)] = NULL;
}

/* ---- reserve of handles ---- */

bool worker_spare(struct worker *w)
{
    if (w->n_spares == 0) {
        return false;
    }
    (void)close(w->spares[--w->n_spares]);
    return true;
}

void worker_refill(struct worker *w)
{
    while (w->n_spares < w->spares_max) {
        int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (fd < 0) {
            return;
        }
        w->spares[w->n_spares++] = fd;
    }
}

/* ---- actions ---- */

static void perform(struct worker *w, struct action *a)
{
    struct socket *s = worker_find(w, a->conn);
    switch (a->type) {
    case ACTION_RESOLVE: resolver_start(w, a->conn, a->address); break;
    case ACTION_CONNECT: socket_connect(w, a->conn, a->address); break;
    case ACTION_WRITE:
        if (s != NULL) {
            socket_write(w, s, &a->bytes);
        } else {
            chain_clear(w->memory, &a->bytes);
        }
        break;
    case ACTION_PAUSE:
    case ACTION_RESUME:
        if (s != NULL) {
            socket_pause(s, a->type == ACTION_PAUSE);
        }
        break;
    case ACTION_CLOSE:
        if (s != NULL) {
            socket_close(w, s);
        } else {
            resolver_cancel(w, a->conn);
        }
        break;
    }
}

static void on_timer(uv_timer_t *timer);

/* The timer may be early: then it is set again when it fires, which is cheaper
 * than moving it with every request. */
static void set_timer(struct worker *w)
{
    uint64_t at_us = engine_deadline(w->engine);
    if (at_us >= w->timer_at_us) {
        return;
    }
    w->timer_at_us = at_us;
    uint64_t at_ms = at_us / 1000 + 1, now_ms = uv_now(&w->loop);
    uv_timer_start(&w->timer, on_timer, at_ms > now_ms ? at_ms - now_ms : 0, 0);
}

static void worker_stop(struct worker *w)
{
    w->stopping = true;
    uv_stop(&w->loop);
}

/* Do all that the engine wants done. Called once for each loop iteration, so
 * that all bytes for one connection leave in one write. */
static void carry_out(struct worker *w)
{
    if (w->has_work) {
        struct action a;
        while (engine_next(w->engine, &a)) {
            perform(w, &a);
        }
        w->has_work = false;
        set_timer(w);
        if (w->draining && !w->stopping && engine_drained(w->engine)) {
            worker_stop(w);
        }
    }
    w->now_us = 0;
}

static void on_check(uv_check_t *check)
{
    carry_out(worker_of((uv_handle_t *)check));
}

/* Before the loop sleeps: what timers have caused. */
static void on_prepare(uv_prepare_t *prepare)
{
    carry_out(worker_of((uv_handle_t *)prepare));
}

static void on_timer(uv_timer_t *timer)
{
    struct worker *w = worker_of((uv_handle_t *)timer);
    w->timer_at_us = UINT64_MAX;
    w->has_work = true; /* sets the timer again */
    if (engine_deadline(w->engine) <= worker_now(w)) {
        struct event e = { .type = EVENT_TIMEOUT };
        worker_step(w, &e);
    }
}

/* ---- what the engine reports ---- */

static void on_trace(void *context, const struct trace_record *record)
{
    struct worker *w = context;
    char text[ADDRESS_TEXT_MAX];
    const char *client = NULL;
    const struct socket *s = worker_find(w, record->client);
    struct address peer;
    if (s != NULL && sockaddr_of_peer(s->fd, &peer) && peer.host[0] != '\0') {
        address_format(&peer, text);
        client = text;
    }
    log_trace(w->log, record, client);
}

/* ---- messages from other threads ---- */

static void on_last_timer(uv_timer_t *timer)
{
    worker_stop(worker_of((uv_handle_t *)timer));
}

/* No more time to finish: what is open is answered truthfully, and the clients
 * get a moment to take it. */
static void end_drain(struct worker *w)
{
    w->hurried = true;
    struct event e = { .type = EVENT_DRAIN }; /* the second */
    worker_step(w, &e);
    uv_timer_start(&w->drain_timer, on_last_timer, LAST_WORDS_MS, 0);
}

static void on_drain_timer(uv_timer_t *timer)
{
    struct worker *w = worker_of((uv_handle_t *)timer);
    log_text(w->log, LOG_WARN, "drain",
             "drain_timeout has passed; closing what is left");
    end_drain(w);
}

static void begin_drain(struct worker *w)
{
    w->draining = true;
    listeners_close(w);
    struct event e = { .type = EVENT_DRAIN };
    worker_step(w, &e);
    uv_timer_start(&w->drain_timer, on_drain_timer,
                   w->config->process.drain_timeout_us / 1000, 0);
}

static void answer(struct worker *w)
{
    struct worker_snapshot *q = w->question;
    engine_stats(w->engine, &q->engine, q->upstreams);
    for (size_t i = 0; i < w->config->n_upstreams; i++) {
        q->ready[i] = engine_upstream_ready(w->engine, i);
        if (q->states != NULL) {
            engine_cluster_state(w->engine, i, &q->states[i]);
        }
        if (q->grpc != NULL) {
            engine_grpc_stats(w->engine, i, &q->grpc[i]);
        }
        if (q->channels != NULL) {
            engine_channel_state(w->engine, i, &q->channels[i]);
        }
    }
    q->counters = w->counters;
    w->question = NULL;
    uv_cond_signal(&w->answered);
}

static void on_async(uv_async_t *async)
{
    struct worker *w = worker_of((uv_handle_t *)async);
    uv_mutex_lock(&w->mutex);
    if (w->question != NULL) {
        answer(w);
    }
    bool drain = w->drain_asked, hurry = w->hurry_asked;
    uv_mutex_unlock(&w->mutex);
    if (drain && !w->draining) {
        begin_drain(w);
    }
    if (hurry && !w->hurried) {
        end_drain(w);
    }
}

void worker_drain(struct worker *w)
{
    uv_mutex_lock(&w->mutex);
    w->drain_asked = true;
    uv_mutex_unlock(&w->mutex);
    uv_async_send(&w->async);
}

void worker_hurry(struct worker *w)
{
    uv_mutex_lock(&w->mutex);
    w->drain_asked = true;
    w->hurry_asked = true;
    uv_mutex_unlock(&w->mutex);
    uv_async_send(&w->async);
}

bool worker_ask(struct worker *w, struct worker_snapshot *snapshot)
{
    uint64_t end = uv_hrtime() + (uint64_t)ANSWER_TIMEOUT_MS * 1000000;
    uv_mutex_lock(&w->mutex);
    assert(w->question == NULL);
    w->question = snapshot;
    uv_async_send(&w->async);
    uint64_t now = uv_hrtime();
    while (w->question != NULL && now < end) {
        (void)uv_cond_timedwait(&w->answered, &w->mutex, end - now);
        now = uv_hrtime();
    }
    bool answered = w->question == NULL;
    w->question = NULL;
    uv_mutex_unlock(&w->mutex);
    return answered;
}

/* ---- life ---- */

/* Wall clock minus monotonic clock. */
static int64_t wall_offset_us(void)
{
    struct timespec wall;
    (void)clock_gettime(CLOCK_REALTIME, &wall);
    return (int64_t)wall.tv_sec * 1000000 + wall.tv_nsec / 1000 -
           (int64_t)(uv_hrtime() / 1000);
}

static bool open_engine(struct worker *w)
{
    struct engine_options options = {
        .config = w->config,
        .tracer = { .emit = on_trace,
                    .context = w,
                    .debug = w->config->process.log_level == LOG_DEBUG },
        .wall_offset_us = wall_offset_us(),
        .now_us = uv_hrtime() / 1000,
        .workers = w->config->process.workers,
    };
    if (getrandom(&options.seed, sizeof(options.seed), 0) !=
        (ssize_t)sizeof(options.seed)) {
        return false;
    }
    w->engine = engine_new(&options);
    if (w->engine == NULL) {
        return false;
    }
    w->memory = engine_memory(w->engine);
    w->has_work = true;
    return true;
}

static void open_handles(struct worker *w)
{
    w->loop.data = w;
    uv_prepare_init(&w->loop, &w->prepare);
    uv_check_init(&w->loop, &w->check);
    uv_timer_init(&w->loop, &w->timer);
    uv_timer_init(&w->loop, &w->read_timer);
    uv_timer_init(&w->loop, &w->accept_timer);
    uv_timer_init(&w->loop, &w->drain_timer);
    uv_prepare_start(&w->prepare, on_prepare);
    uv_check_start(&w->check, on_check);
    w->timer_at_us = UINT64_MAX;
}

static bool open_listeners(struct worker *w, const int *fds, size_t *fds_taken)
{
    size_t n = w->config->n_listeners;
    w->listeners = calloc(n + 1, sizeof(*w->listeners));
    if (w->listeners == NULL) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        w->listeners[i].fd = -1;
    }
    for (size_t i = 0; i < n; i++) {
        *fds_taken = i + 1;
        if (listener_start(w, &w->listeners[i], (unsigned)i, fds[i]) != 0) {
            return false;
        }
    }
    return true;
}

static bool open_spares(struct worker *w)
{
    const struct process_config *p = &w->config->process;
    uint32_t workers = p->workers == 0 ? 1 : p->workers;
    w->spares_max = (p->fd_reserve + workers - 1) / workers;
    w->spares = calloc((size_t)w->spares_max + 1, sizeof(*w->spares));
    if (w->spares == NULL) {
        return false;
    }
    worker_refill(w);
    return true;
}

struct worker *worker_new(const struct config *config,
                          struct log *log,
                          const int *fds)
{
    size_t fds_taken = 0;
    struct worker *w = calloc(1, sizeof(*w));
    if (w == NULL) {
        goto close_fds;
    }
    w->config = config;
    w->log = log;
    if (uv_loop_init(&w->loop) != 0) {
        goto free_worker;
    }
    open_handles(w);
    uv_mutex_init(&w->mutex);
    uv_cond_init(&w->answered);
    if (uv_async_init(&w->loop, &w->async, on_async) != 0 || !open_spares(w) ||
        !open_listeners(w, fds, &fds_taken) || !open_engine(w)) {
        goto free_all;
    }
    return w;

free_all:
    (void)worker_free(w);
    w = NULL;
free_worker:
    free(w);
close_fds:
    for (size_t i = fds_taken; i < config->n_listeners; i++) {
        (void)close(fds[i]);
    }
    return NULL;
}

void worker_run(struct worker *w)
{
    (void)uv_run(&w->loop, UV_RUN_DEFAULT);
}

static void close_handle(uv_handle_t *handle, void *context)
{
    (void)context;
    if (!uv_is_closing(handle)) {
        uv_close(handle, NULL);
    }
}

/* Give back all that lives in the loop. Returns false when a resolver thread
 * does not come back in time. */
static bool close_loop(struct worker *w)
{
    for (uint32_t i = 0; i < w->n_sockets; i++) {
        if (w->sockets[i] != NULL) {
            socket_close(w, w->sockets[i]);
        }
    }
    if (w->listeners != NULL) {
        listeners_close(w);
    }
    resolver_stop(w);
    uv_walk(&w->loop, close_handle, NULL);
    for (int ms = 0; uv_run(&w->loop, UV_RUN_NOWAIT) != 0; ms++) {
        if (ms == FAREWELL_MS) {
            return false;
        }
        uv_sleep(1);
    }
    return uv_loop_close(&w->loop) == 0;
}

bool worker_free(struct worker *w)
{
    if (w == NULL) {
        return true;
    }
    w->spares_max = 0; /* nothing is refilled any more */
    if (!close_loop(w)) {
        return false;
    }
    while (worker_spare(w)) {
    }
    if (w->block != NULL) {
        buf_unref(w->memory, w->block);
    }
    if (w->engine != NULL) {
        engine_free(w->engine);
    }
    uv_mutex_destroy(&w->mutex);
    uv_cond_destroy(&w->answered);
    free(w->listeners);
    free(w->spares);
    free(w->sockets);
    free(w);
    return true;
}
