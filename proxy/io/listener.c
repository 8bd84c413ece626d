#include "proxy/io/listener.h"

#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "config/ip.h"
#include "proxy/io/sockaddr.h"
#include "proxy/io/socket.h"

enum {
    ACCEPTS_PER_TURN = 64,
    ACCEPT_PAUSE_MS = 100,
};

static void on_connection(uv_poll_t *poll, int status, int events);

static const char *cause(int error)
{
    switch (error) {
    case EADDRINUSE:
        return "address already in use: another process listens there";
    case EACCES:
    case EPERM: return "not permitted: ports below 1024 need a privilege";
    case EADDRNOTAVAIL: return "this host does not have that address";
    default: return strerror(error);
    }
}

static int fail(const struct listener_options *o, char *error, const char *why)
{
    char address[ADDRESS_TEXT_MAX];
    address_format(o->address, address);
    (void)snprintf(error, LISTENER_ERROR_MAX,
                   "cannot listen on %s: %s; choose another with %s", address,
                   why, o->option);
    return -1;
}

/* Make room for a Unix socket: what an earlier process left behind may go,
 * what somebody listens on or what is no socket may not. */
static const char *clear_path(const char *path,
                              const struct sockaddr_any *address)
{
    struct stat st;
    if (lstat(path, &st) != 0) {
        return errno == ENOENT ? NULL : strerror(errno);
    }
    if (!S_ISSOCK(st.st_mode)) {
        return "a file that is not a socket is in the way";
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return strerror(errno);
    }
    int rc =
        connect(fd, (const struct sockaddr *)&address->storage, address->len);
    int error = errno;
    (void)close(fd);
    if (rc == 0 || error != ECONNREFUSED) {
        return cause(EADDRINUSE);
    }
    return unlink(path) == 0 ? NULL : strerror(errno);
}

/* As sockaddr_from(), but a name such as localhost may be looked up: nothing
 * runs yet that could wait for it. */
static bool find_address(const struct address *a, struct sockaddr_any *out)
{
    if (sockaddr_from(a, out)) {
        return true;
    }
    const struct addrinfo hints = { .ai_family = AF_UNSPEC,
                                    .ai_socktype = SOCK_STREAM };
    struct addrinfo *info = NULL;
    if (a->is_unix || getaddrinfo(a->host, NULL, &hints, &info) != 0) {
        return false;
    }
    struct address numeric;
    sockaddr_to(info->ai_addr, info->ai_addrlen, &numeric);
    numeric.port = a->port;
    freeaddrinfo(info);
    return sockaddr_from(&numeric, out);
}

static void set_flag(int fd, int level, int option)
{
    int on = 1;
    (void)setsockopt(fd, level, option, &on, sizeof(on));
}

static int open_unix(const struct listener_options *o,
                     const struct sockaddr_any *to,
                     int fd)
{
    /* Before bind(): the socket must never be there with wider permissions
     * than asked for. After it: the umask may have taken some away. */
    if (fchmod(fd, o->unix_mode) != 0 ||
        bind(fd, (const struct sockaddr *)&to->storage, to->len) != 0 ||
        chmod(o->address->host, o->unix_mode) != 0) {
        return -1;
    }
    return 0;
}

static int open_tcp(const struct listener_options *o,
                    const struct sockaddr_any *to,
                    int fd)
{
    set_flag(fd, SOL_SOCKET, SO_REUSEADDR);
    if (o->reuse_port) {
        set_flag(fd, SOL_SOCKET, SO_REUSEPORT);
    }
    sockaddr_tune_tcp(fd, o->process, o->unconfirmed_us);
    return bind(fd, (const struct sockaddr *)&to->storage, to->len);
}

int listener_open(const struct listener_options *o,
                  char error[LISTENER_ERROR_MAX])
{
    struct sockaddr_any to;
    if (!find_address(o->address, &to)) {
        return fail(o, error,
                    o->address->is_unix ? "the path is too long"
                                        : "the name does not resolve");
    }
    if (o->address->is_unix) {
        const char *why = clear_path(o->address->host, &to);
        if (why != NULL) {
            return fail(o, error, why);
        }
    }
    int fd = socket(to.storage.ss_family,
                    SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return fail(o, error, strerror(errno));
    }
    int rc = o->address->is_unix ? open_unix(o, &to, fd) : open_tcp(o, &to, fd);
    if (rc != 0 || listen(fd, (int)(o->backlog & 0xffff)) != 0) {
        int why = errno;
        (void)close(fd);
        return fail(o, error, cause(why));
    }
    return fd;
}

/* A client came in that cannot be served: say so by closing, at once. */
static void refuse(struct worker *w, int fd)
{
    w->counters.accept_failures++;
    (void)close(fd);
}

/* The address a client has come to: what clients that know clusters are told
 * (redis.md §9) unless the configuration says it. */
static void note_local(const struct worker *w, int fd, struct event *e)
{
    const struct listener_config *l = &w->config->listeners[e->listener];
    struct address local;
    if (l->upstream->type == UPSTREAM_CLUSTER && !l->address.is_unix &&
        l->announce.host[0] == '\0' && sockaddr_of_self(fd, &local) &&
        ip_parse(local.host, strlen(local.host), e->local_ip)) {
        e->local_port = local.port;
    }
}

static void admit(struct worker *w, struct listener *l, int fd)
{
    conn_id id = engine_reserve(w->engine, l->index);
    if (id == 0) { /* the core has counted and reported it */
        const char *text = engine_refusal(w->engine, l->index);
        if (text != NULL) {
            (void)send(fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT);
        }
        (void)close(fd);
        return;
    }
    struct event e = { .type = EVENT_ACCEPTED,
                       .conn = id,
                       .listener = l->index };
    note_local(w, fd, &e);
    bool adopted = socket_adopt(w, id, fd);
    worker_step(w, &e);
    if (!adopted) {
        w->counters.accept_failures++;
        struct event gone = { .type = EVENT_CLOSED,
                              .conn = id,
                              .error = 1 + IO_NO_RESOURCES };
        worker_step(w, &gone);
    }
}

static void on_accept_timer(uv_timer_t *timer)
{
    struct worker *w = worker_of((uv_handle_t *)timer);
    worker_refill(w);
    for (size_t i = 0; i < w->config->n_listeners; i++) {
        if (w->listeners[i].fd >= 0) {
            uv_poll_start(&w->listeners[i].poll, UV_READABLE, on_connection);
        }
    }
}

/* No handle is left. Take one of the reserve to turn the client away, instead
 * of leaving it in a queue where it waits for nothing; then let others
 * finish. */
static void pause_accepting(struct worker *w, struct listener *l, bool handles)
{
    if (handles && worker_spare(w)) {
        int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0) {
            refuse(w, fd);
        }
        worker_refill(w);
    } else {
        w->counters.accept_failures++;
    }
    for (size_t i = 0; i < w->config->n_listeners; i++) {
        uv_poll_stop(&w->listeners[i].poll);
    }
    uv_timer_start(&w->accept_timer, on_accept_timer, ACCEPT_PAUSE_MS, 0);
}

static void on_connection(uv_poll_t *poll, int status, int events)
{
    (void)status; /* accept4() knows better */
    (void)events;
    struct worker *w = poll->loop->data;
    struct listener *l = poll->data;
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd = accept4(l->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            admit(w, l, fd);
        } else if (errno == EMFILE || errno == ENFILE) {
            pause_accepting(w, l, true);
            return;
        } else if (errno == ENOBUFS || errno == ENOMEM) {
            pause_accepting(w, l, false);
            return;
        } else if (errno == EAGAIN) {
            return;
        }
        /* Anything else concerns one client that is gone already. */
    }
}

int listener_start(struct worker *w, struct listener *l, unsigned index, int fd)
{
    l->index = index;
    l->fd = -1;
    if (uv_poll_init(&w->loop, &l->poll, fd) != 0) {
        (void)close(fd);
        return -1;
    }
    l->fd = fd;
    l->poll.data = l;
    return uv_poll_start(&l->poll, UV_READABLE, on_connection);
}

void listeners_close(struct worker *w)
{
    uv_timer_stop(&w->accept_timer);
    for (size_t i = 0; i < w->config->n_listeners; i++) {
        struct listener *l = &w->listeners[i];
        if (l->fd >= 0) {
            uv_close((uv_handle_t *)&l->poll, NULL);
            (void)close(l->fd);
            l->fd = -1;
        }
    }
}
