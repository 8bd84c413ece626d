#include "proxy/io/socket.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "proxy/io/sockaddr.h"

enum {
    READ_MIN = 16 * 1024,   /* a block with less room is not read into */
    TURN_BYTES = 64 * 1024, /* read from one connection before the next */
    LAST_BYTES = 8 << 20,   /* read from a connection that has failed */
    IOV_COUNT = 128,        /* slices in one writev() */
    READ_RETRY_MS = 10,
};

static_assert(sizeof(struct socket) <= 200, "one for each idle client");

static void on_poll(uv_poll_t *poll, int status, int events);

/* Wait for what the socket's state asks for, and nothing else: no end or reset
 * that is known may spin the loop. Of a paused client only its end matters: a
 * command may be waiting at the server for it (redis.md §8). */
static void socket_watch(struct socket *s)
{
    unsigned want = 0;
    if (s->connecting || s->unsent.bytes > 0) {
        want |= UV_WRITABLE;
    }
    if (!s->connecting && !s->paused && !s->starved && !s->ended) {
        want |= UV_READABLE;
    }
    if (s->client && s->paused && !s->ended && !s->left) {
        want |= UV_DISCONNECT;
    }
    if (want == s->watched) {
        return;
    }
    int rc = want == 0 ? uv_poll_stop(&s->poll)
                       : uv_poll_start(&s->poll, (int)want, on_poll);
    assert(rc == 0); /* only a closing handle or a stolen fd could fail */
    (void)rc;
    s->watched = (uint8_t)want;
}

static void on_handle_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void socket_close(struct worker *w, struct socket *s)
{
    chain_clear(w->memory, &s->unsent);
    worker_leave(w, s->id);
    uv_close((uv_handle_t *)&s->poll, on_handle_closed);
    (void)close(s->fd);
    if (w->n_spares < w->spares_max) {
        worker_refill(w);
    }
}

/* The connection is gone: tell the core why. */
static void socket_lost(struct worker *w, struct socket *s, enum io_error why)
{
    struct event e = { .type = s->connecting ? EVENT_CONNECTED : EVENT_CLOSED,
                       .conn = s->id,
                       .error = 1 + (int)why };
    worker_step(w, &e);
    socket_close(w, s);
}

/* The block to read into. One whose bytes nobody holds any more starts again,
 * which also keeps it in the cache. */
static struct buf *read_block(struct worker *w)
{
    struct buf *b = w->block;
    if (b != NULL) {
        if (b->refs == 1) {
            b->len = 0;
            return b;
        }
        if (b->cap - b->len >= READ_MIN) {
            return b;
        }
        buf_unref(w->memory, b);
    }
    w->block = buf_new(w->memory, 0);
    return w->block;
}

static void on_read_timer(uv_timer_t *timer)
{
    struct worker *w = worker_of((uv_handle_t *)timer);
    for (uint32_t i = 0; i < w->n_sockets; i++) {
        if (w->sockets[i] != NULL && w->sockets[i]->starved) {
            socket_feed(w->sockets[i]);
        }
    }
}

static void socket_starve(struct worker *w, struct socket *s)
{
    w->counters.read_stalls++;
    s->starved = true;
    socket_watch(s);
    if (!uv_is_active((uv_handle_t *)&w->read_timer)) {
        uv_timer_start(&w->read_timer, on_read_timer, READ_RETRY_MS, 0);
    }
}

void socket_feed(struct socket *s)
{
    s->starved = false;
    socket_watch(s);
}

static void deliver(struct worker *w,
                    struct socket *s,
                    struct buf *b,
                    uint32_t len)
{
    struct event e = { .type = EVENT_BYTES,
                       .conn = s->id,
                       .bytes = { .buf = b, .offset = b->len, .len = len } };
    buf_ref(b);
    b->len += len;
    worker_step(w, &e);
}

/* The peer has sent its last byte; what it asked for may still be answered.
 * There is nothing to read any more, so the core's wish to read means
 * nothing. Returns whether the connection is still open. */
static bool socket_ended(struct worker *w, struct socket *s)
{
    conn_id id = s->id;
    s->ended = true;
    socket_watch(s);
    struct event e = { .type = EVENT_ENDED, .conn = id };
    worker_step(w, &e);
    return worker_find(w, id) == s;
}

static void socket_left(struct worker *w, struct socket *s)
{
    s->left = true;
    socket_watch(s);
    struct event e = { .type = EVENT_LEFT, .conn = s->id };
    worker_step(w, &e);
}

/* Read at most limit bytes. Within one turn, a read that did not fill what was
 * offered is the last: it saves asking for the EAGAIN. Returns false when the
 * connection turned out to be gone. */
static bool socket_read(struct worker *w, struct socket *s, uint32_t limit)
{
    bool one_turn = limit == TURN_BYTES;
    uint32_t total = 0;
    while (total == 0 || limit - total >= READ_MIN) {
        struct buf *b = read_block(w);
        if (b == NULL) {
            socket_starve(w, s);
            return true;
        }
        uint32_t room = b->cap - b->len;
        if (room > limit - total) {
            room = limit - total;
        }
        ssize_t n = read(s->fd, b->data + b->len, room);
        if (n > 0) {
            deliver(w, s, b, (uint32_t)n);
            total += (uint32_t)n;
            if ((uint32_t)n < room && one_turn) {
                return true; /* probably all; if not, we are called again */
            }
        } else if (n == 0) {
            return socket_ended(w, s);
        } else if (errno == EAGAIN) {
            return true;
        } else if (errno != EINTR) {
            socket_lost(w, s, io_error_of(errno));
            return false;
        }
    }
    return true;
}

/* The connection has failed in the other direction. What the peer said before
 * may still be here, and a reply in it settles more than any guess. */
static void socket_broken(struct worker *w, struct socket *s, int error)
{
    if (socket_read(w, s, LAST_BYTES)) {
        socket_lost(w, s, io_error_of(error));
    }
}

static ssize_t write_many(int fd, const struct chain *c)
{
    struct iovec iov[IOV_COUNT];
    int n = 0;
    for (const struct segment *g = c->head; g != NULL && n < IOV_COUNT;
         g = g->next) {
        iov[n].iov_base = g->slice.buf->data + g->slice.offset;
        iov[n].iov_len = g->slice.len;
        n++;
    }
    return writev(fd, iov, n);
}

static ssize_t write_some(int fd, const struct chain *c)
{
    const struct segment *first = c->head;
    return first->next != NULL
               ? write_many(fd, c)
               : write(fd, slice_data(&first->slice), first->slice.len);
}

/* Write until all is gone or the kernel has enough, telling the core each
 * count. Returns 0, or the errno value of a connection that has failed; it is
 * still open then. */
static int write_chain(struct worker *w, struct socket *s, struct chain *c)
{
    while (c->bytes > 0) {
        ssize_t n = write_some(s->fd, c);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            bool later = errno == EAGAIN || errno == ENOBUFS || errno == ENOMEM;
            return later ? 0 : errno;
        }
        chain_consume(w->memory, c, (size_t)n);
        struct event e = { .type = EVENT_WRITTEN,
                           .conn = s->id,
                           .count = (uint64_t)n };
        worker_step(w, &e);
    }
    return 0;
}

void socket_write(struct worker *w, struct socket *s, struct chain *bytes)
{
    if (s->connecting || s->unsent.bytes > 0) {
        chain_move(&s->unsent, bytes); /* its turn comes when it is writable */
        return;
    }
    int error = write_chain(w, s, bytes);
    if (error != 0) {
        chain_clear(w->memory, bytes);
        socket_broken(w, s, error);
    } else if (bytes->bytes > 0) {
        chain_move(&s->unsent, bytes);
        socket_watch(s);
    }
}

void socket_pause(struct socket *s, bool paused)
{
    s->paused = paused;
    socket_watch(s);
}

/* A connection to a local port where nobody listens may, by chance, get that
 * very port as its own and so connect to itself. */
static bool is_own_peer(int fd)
{
    struct sockaddr_any own = { .len = sizeof(own.storage) };
    struct sockaddr_any peer = { .len = sizeof(peer.storage) };
    if (getsockname(fd, (struct sockaddr *)&own.storage, &own.len) != 0 ||
        getpeername(fd, (struct sockaddr *)&peer.storage, &peer.len) != 0) {
        return false;
    }
    return own.storage.ss_family != AF_UNIX && own.len == peer.len &&
           memcmp(&own.storage, &peer.storage, own.len) == 0;
}

static void socket_connected(struct worker *w,
                             struct socket *s,
                             int connect_error)
{
    if (connect_error != 0) {
        socket_lost(w, s, io_error_of(connect_error));
        return;
    }
    if (is_own_peer(s->fd)) {
        socket_lost(w, s, IO_REFUSED);
        return;
    }
    s->connecting = false;
    socket_watch(s);
    struct event e = { .type = EVENT_CONNECTED, .conn = s->id };
    worker_step(w, &e);
}

static int pending_error(int fd)
{
    int error = 0;
    socklen_t len = sizeof(error);
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) != 0) {
        return errno;
    }
    return error;
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct socket *s = poll->data;
    struct worker *w = poll->loop->data;
    if (status < 0) {
        s->watched = 0; /* libuv has stopped watching a failed handle */
    }
    if (s->connecting) {
        int error = pending_error(s->fd);
        socket_connected(w, s, status < 0 && error == 0 ? ECONNRESET : error);
        return;
    }
    if (status < 0) {
        /* The error is asked for by reading, which clears it: only when
         * reading knows of none is this a reset. */
        socket_broken(w, s, ECONNRESET);
        return;
    }
    if ((events & UV_WRITABLE) != 0) {
        int error = write_chain(w, s, &s->unsent);
        if (error != 0) {
            socket_broken(w, s, error);
            return;
        }
        socket_watch(s);
    }
    if ((events & UV_READABLE) != 0) {
        (void)socket_read(w, s, TURN_BYTES);
    } else if ((events & UV_DISCONNECT) != 0) {
        socket_left(w, s);
    }
}

/* Returns NULL, with fd closed, when memory or the kernel's tables are full. */
static struct socket *socket_new(struct worker *w,
                                 conn_id id,
                                 int fd,
                                 bool connecting)
{
    struct socket *s = calloc(1, sizeof(*s));
    if (s == NULL) {
        goto close_fd;
    }
    s->id = id;
    s->fd = fd;
    s->connecting = connecting;
    s->client = !connecting;
    if (!worker_enter(w, id, s)) {
        goto free_socket;
    }
    if (uv_poll_init(&w->loop, &s->poll, fd) != 0) {
        goto leave;
    }
    s->poll.data = s;
    socket_watch(s);
    return s;

leave:
    worker_leave(w, id);
free_socket:
    free(s);
close_fd:
    (void)close(fd);
    return NULL;
}

bool socket_adopt(struct worker *w, conn_id id, int fd)
{
    return socket_new(w, id, fd, false) != NULL;
}

/* A client may have eaten the last handle; connections to servers come out of
 * the reserve then. */
static int open_fd(struct worker *w, int family)
{
    int type = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
    int fd = socket(family, type, 0);
    if (fd < 0 && (errno == EMFILE || errno == ENFILE) && worker_spare(w)) {
        fd = socket(family, type, 0);
    }
    return fd;
}

static void connect_failed(struct worker *w, conn_id id, enum io_error why)
{
    struct event e = { .type = EVENT_CONNECTED,
                       .conn = id,
                       .error = 1 + (int)why };
    worker_step(w, &e);
}

void socket_connect(struct worker *w, conn_id id, const struct address *address)
{
    struct sockaddr_any to;
    if (!sockaddr_from(address, &to)) {
        connect_failed(w, id, IO_NO_NAME);
        return;
    }
    int fd = open_fd(w, to.storage.ss_family);
    if (fd < 0) {
        connect_failed(w, id, io_error_of(errno));
        return;
    }
    if (!address->is_unix) {
        const struct process_config *process = &w->config->process;
        sockaddr_tune_tcp(fd, process, process->user_timeout_us);
    }
    int rc = 0;
    do {
        rc = connect(fd, (const struct sockaddr *)&to.storage, to.len);
    } while (rc != 0 && errno == EINTR);
    if (rc != 0 && errno != EINPROGRESS) {
        int error = errno;
        (void)close(fd);
        connect_failed(w, id, io_error_of(error));
        return;
    }
    struct socket *s = socket_new(w, id, fd, true);
    if (s == NULL) {
        connect_failed(w, id, IO_NO_RESOURCES);
    } else if (rc == 0) {
        socket_connected(w, s, 0);
    }
}
