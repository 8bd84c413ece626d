#include "proxy/io/server.h"

#include <assert.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proxy/io/admin.h"
#include "proxy/io/listener.h"
#include "proxy/io/sockaddr.h"
#include "proxy/io/worker.h"

enum {
    SIGNAL_COUNT = 3,
    HANDLES_BESIDE_CLIENTS = 64, /* loops, log, admin pages */
    NODES_TEXT_MAX = 512,
};

/* A Unix socket that this process has made, and so removes. */
struct own_path {
    const char *path; /* borrowed from config; NULL: none */
    dev_t device;
    ino_t inode;
};

struct server {
    const struct config *config; /* borrowed */
    struct log *log;             /* owned */
    size_t n_workers;
    struct worker **workers; /* owned, n_workers */
    uv_thread_t *threads;    /* owned, n_workers; 0 is not used: main */
    size_t n_threads;        /* started, the main thread included */
    int *fds;                /* owned, n_workers * n_listeners; -1: moved on */
    int admin_fd;
    struct admin *admin; /* owned */
    atomic_bool draining;
    unsigned n_signals;                /* that ask for the end */
    uv_signal_t signals[SIGNAL_COUNT]; /* on the loop of worker 0 */
    struct own_path *paths;            /* owned, n_listeners + 1 */
    char *error;                       /* borrowed */
};

static int fail(struct server *s, const char *text)
{
    (void)snprintf(s->error, SERVER_ERROR_MAX, "%s", text);
    return -1;
}

/* ---- listening sockets ---- */

static void remember_path(struct own_path *p, const struct address *address)
{
    struct stat st;
    if (address->is_unix && lstat(address->host, &st) == 0) {
        *p = (struct own_path){ .path = address->host,
                                .device = st.st_dev,
                                .inode = st.st_ino };
    }
}

/* Remove our Unix sockets, unless another process has put its own there. */
static void remove_paths(struct server *s)
{
    for (size_t i = 0; i <= s->config->n_listeners; i++) {
        const struct own_path *p = &s->paths[i];
        struct stat st;
        if (p->path != NULL && lstat(p->path, &st) == 0 &&
            st.st_dev == p->device && st.st_ino == p->inode) {
            (void)unlink(p->path);
        }
    }
}

/* The port the system chose where the configuration says 0. */
static struct address own_address(int fd, const struct address *asked)
{
    struct address own;
    bool chosen = !asked->is_unix && asked->port == 0;
    return chosen && sockaddr_of_self(fd, &own) ? own : *asked;
}

/* With SO_REUSEPORT a second redial would silently take half of the clients:
 * see first whether the address is free. */
static int probe(struct server *s, struct listener_options options)
{
    options.reuse_port = false;
    if (options.address->is_unix || options.address->port == 0) {
        return 0;
    }
    int fd = listener_open(&options, s->error);
    if (fd >= 0) {
        (void)close(fd);
    }
    return fd < 0 ? -1 : 0;
}

/* The kernel counts a client that does not read as one that confirms nothing.
 * Such a client has its stall_timeout first, so that the core decides, and
 * says so. */
static uint64_t unconfirmed_us(const struct process_config *p,
                               const struct listener_config *l)
{
    if (p->user_timeout_us == 0 || l->stall_timeout_us == 0) {
        return 0;
    }
    return p->user_timeout_us + l->stall_timeout_us;
}

/* Open listener i for every worker: TCP once each, a Unix socket once. */
static int open_listener(struct server *s, size_t i)
{
    const struct listener_config *l = &s->config->listeners[i];
    struct address address = l->address;
    struct listener_options options = {
        .address = &address,
        .process = &s->config->process,
        .backlog = l->accept_backlog,
        .unix_mode = l->unix_mode,
        .unconfirmed_us = unconfirmed_us(&s->config->process, l),
        .reuse_port = s->n_workers > 1,
        .option = "--listen",
    };
    if (options.reuse_port && probe(s, options) != 0) {
        return -1;
    }
    int *fds = s->fds + i;
    for (size_t w = 0; w < s->n_workers; w++) {
        int *fd = fds + w * s->config->n_listeners;
        *fd = w > 0 && address.is_unix ? fcntl(*fds, F_DUPFD_CLOEXEC, 0)
                                       : listener_open(&options, s->error);
        if (*fd < 0) {
            return -1;
        }
        if (w == 0) {
            remember_path(&s->paths[i], &l->address);
            address = own_address(*fd, &address);
        }
    }
    return 0;
}

static int open_admin(struct server *s)
{
    const struct process_config *p = &s->config->process;
    if (!p->admin) {
        return 0;
    }
    struct listener_options options = { .address = &p->admin_address,
                                        .process = p,
                                        .backlog = 64,
                                        .unix_mode = 0600,
                                        .unconfirmed_us = p->user_timeout_us,
                                        .option = "--admin" };
    s->admin_fd = listener_open(&options, s->error);
    if (s->admin_fd < 0) {
        return -1;
    }
    remember_path(&s->paths[s->config->n_listeners], &p->admin_address);
    return 0;
}

static int open_all(struct server *s)
{
    for (size_t i = 0; i < s->config->n_listeners; i++) {
        if (open_listener(s, i) != 0) {
            return -1;
        }
    }
    return open_admin(s);
}

/* "host:port,host:port": as many as fit. */
static void list_nodes(const struct upstream_config *u, char *text, size_t size)
{
    size_t len = 0;
    text[0] = '\0';
    for (size_t i = 0; i < u->n_nodes; i++) {
        char node[ADDRESS_TEXT_MAX];
        address_format(&u->nodes[i], node);
        size_t n = strlen(node) + (i > 0);
        if (len + n >= size) {
            return;
        }
        (void)snprintf(text + len, size - len, "%s%s", i > 0 ? "," : "", node);
        len += n;
    }
}

/* What of the configuration is hardly meant. */
static void say_warnings(const struct server *s)
{
    const struct config_problems *p = &s->config->warnings;
    for (size_t i = 0; i < p->n; i++) {
        const struct log_field fields[] = {
            { .key = "place", .text = p->list[i].place },
            { .key = "text", .text = p->list[i].text },
        };
        log_write(s->log, LOG_WARN, "config_warning", fields,
                  sizeof(fields) / sizeof(fields[0]));
    }
}

static void say_listening(const struct server *s)
{
    for (size_t i = 0; i < s->config->n_listeners; i++) {
        const struct listener_config *l = &s->config->listeners[i];
        struct address a = own_address(s->fds[i], &l->address);
        char from[ADDRESS_TEXT_MAX], to[NODES_TEXT_MAX];
        const struct upstream_config *u = l->upstream;
        const struct upstream_config *grpc = l->grpc_upstream;
        bool one = u->type == UPSTREAM_STANDALONE;
        address_format(&a, from);
        if (one) {
            address_format(&u->address, to);
        } else {
            list_nodes(u, to, sizeof(to));
        }
        const struct log_field fields[] = {
            { .key = "listener", .text = l->name },
            { .key = "address", .text = from },
            { .key = "upstream", .text = u->name },
            { .key = one                            ? "server"
                     : u->type == UPSTREAM_SENTINEL ? "sentinels"
                                                    : "nodes",
              .text = to },
            { .key = "master_name",
              .text = u->master_name,
              .skip = u->master_name == NULL },
            { .key = "grpc_upstream",
              .text = grpc == NULL ? NULL : grpc->name,
              .skip = grpc == NULL || grpc == u },
        };
        log_write(s->log, LOG_INFO, "listening", fields,
                  sizeof(fields) / sizeof(fields[0]));
    }
    if (s->admin_fd >= 0) {
        struct address a =
            own_address(s->admin_fd, &s->config->process.admin_address);
        char at[ADDRESS_TEXT_MAX];
        address_format(&a, at);
        log_write(s->log, LOG_INFO, "admin",
                  &(struct log_field){ .key = "address", .text = at }, 1);
    }
}

/* File handles that would be in use with all clients there and none of them
 * in need of a private lane. */
static uint64_t handles_wanted(const struct config *c)
{
    uint64_t n = HANDLES_BESIDE_CLIENTS + c->process.fd_reserve;
    for (size_t i = 0; i < c->n_listeners; i++) {
        n += c->listeners[i].clients_max;
    }
    for (size_t i = 0; i < c->n_upstreams; i++) {
        n += (uint64_t)c->upstreams[i].shared_lanes * c->process.workers;
    }
    return n;
}

static void raise_handle_limit(const struct server *s)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) {
        return;
    }
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
    uint64_t wanted = handles_wanted(s->config);
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < wanted) {
        log_text(s->log, LOG_WARN, "handles",
                 "the limit of open files is %llu, clients_max and "
                 "max_connections need %llu, and private lanes more: raise "
                 "ulimit -n or lower them",
                 (unsigned long long)limit.rlim_cur,
                 (unsigned long long)wanted);
    }
}

/* ---- signals ---- */

static void on_signal(uv_signal_t *handle, int signum)
{
    struct server *s = handle->data;
    if (signum == SIGHUP) {
        log_text(s->log, LOG_WARN, "signal",
                 "SIGHUP ignored: reloading is not supported; restart to "
                 "change the configuration");
        return;
    }
    s->n_signals++;
    if (s->n_signals > 2) {
        log_text(s->log, LOG_WARN, "signal", "third signal: leaving at once");
        remove_paths(s);
        _exit(128 + signum);
    }
    atomic_store(&s->draining, true);
    log_text(s->log, LOG_INFO, "drain", "SIG%s: %s",
             signum == SIGTERM ? "TERM" : "INT",
             s->n_signals == 1 ? "finishing what is in flight"
                               : "answering what is left, then leaving");
    for (size_t i = 0; i < s->n_workers; i++) {
        if (s->n_signals == 1) {
            worker_drain(s->workers[i]);
        } else {
            worker_hurry(s->workers[i]);
        }
    }
}

static int open_signals(struct server *s)
{
    static const int numbers[SIGNAL_COUNT] = { SIGTERM, SIGINT, SIGHUP };
    for (size_t i = 0; i < SIGNAL_COUNT; i++) {
        s->signals[i].data = s;
        if (uv_signal_init(&s->workers[0]->loop, &s->signals[i]) != 0 ||
            uv_signal_start(&s->signals[i], on_signal, numbers[i]) != 0) {
            return fail(s, "cannot watch for signals");
        }
    }
    return 0;
}

/* ---- life ---- */

static int open_workers(struct server *s)
{
    for (size_t w = 0; w < s->n_workers; w++) {
        int *fds = s->fds + w * s->config->n_listeners;
        s->workers[w] = worker_new(s->config, s->log, fds);
        for (size_t i = 0; i < s->config->n_listeners; i++) {
            fds[i] = -1; /* moved on, or closed */
        }
        if (s->workers[w] == NULL) {
            return fail(s, "cannot start a worker: no memory or no file "
                           "handles left (see ulimit -n)");
        }
    }
    return 0;
}

static int start_admin(struct server *s, const char *version)
{
    if (s->admin_fd < 0) {
        return 0;
    }
    struct admin_options options = { .config = s->config,
                                     .log = s->log,
                                     .workers = s->workers,
                                     .n_workers = s->n_workers,
                                     .draining = &s->draining,
                                     .version = version };
    int fd = s->admin_fd;
    s->admin_fd = -1;
    s->admin = admin_start(&options, fd);
    return s->admin == NULL ? fail(s, "cannot start the admin pages") : 0;
}

static void thread_main(void *worker)
{
    worker_run(worker);
}

static int start_threads(struct server *s)
{
    for (s->n_threads = 1; s->n_threads < s->n_workers; s->n_threads++) {
        if (uv_thread_create(&s->threads[s->n_threads], thread_main,
                             s->workers[s->n_threads]) != 0) {
            return fail(s, "cannot start a thread");
        }
    }
    return 0;
}

static void join_threads(struct server *s)
{
    for (size_t i = 1; i < s->n_threads; i++) {
        worker_drain(s->workers[i]);
        uv_thread_join(&s->threads[i]);
    }
}

static int server_init(struct server *s)
{
    s->log = log_new(&s->config->process, STDERR_FILENO);
    s->workers = calloc(s->n_workers, sizeof(struct worker *));
    s->threads = calloc(s->n_workers, sizeof(*s->threads));
    size_t n_fds = s->n_workers * s->config->n_listeners;
    s->fds = calloc(n_fds + 1, sizeof(*s->fds));
    s->paths = calloc(s->config->n_listeners + 1, sizeof(*s->paths));
    if (s->log == NULL || s->workers == NULL || s->threads == NULL ||
        s->fds == NULL || s->paths == NULL) {
        return fail(s, "out of memory");
    }
    for (size_t i = 0; i < n_fds; i++) {
        s->fds[i] = -1;
    }
    return 0;
}

static void close_fds(struct server *s)
{
    size_t n = s->fds == NULL ? 0 : s->n_workers * s->config->n_listeners;
    for (size_t i = 0; i < n; i++) {
        if (s->fds[i] >= 0) {
            (void)close(s->fds[i]);
        }
    }
    if (s->admin_fd >= 0) {
        (void)close(s->admin_fd);
    }
}

static void server_fini(struct server *s)
{
    bool all_back = true;
    admin_stop(s->admin);
    for (size_t i = 0; s->workers != NULL && i < s->n_workers; i++) {
        all_back = worker_free(s->workers[i]) && all_back;
    }
    close_fds(s);
    if (s->paths != NULL) {
        remove_paths(s);
    }
    if (!all_back) {
        /* A thread is stuck in the system's resolver; it has nothing left to
         * say, and exit() would wait for it. */
        _exit(EXIT_SUCCESS);
    }
    log_free(s->log);
    free(s->workers);
    free(s->threads);
    free(s->fds);
    free(s->paths);
}

int server_run(const struct config *config,
               const char *version,
               char error[SERVER_ERROR_MAX])
{
    static_assert((int)SERVER_ERROR_MAX >= (int)LISTENER_ERROR_MAX, "shared");
    uint32_t workers = config->process.workers;
    struct server s = { .config = config,
                        .n_workers = workers == 0 ? 1 : workers,
                        .admin_fd = -1,
                        .error = error };
    error[0] = '\0';
    int rc = server_init(&s);
    if (rc == 0) {
        raise_handle_limit(&s);
        rc = open_all(&s);
    }
    if (rc == 0) {
        say_warnings(&s);
        say_listening(&s);
        rc = open_workers(&s);
    }
    if (rc == 0 && open_signals(&s) == 0 && start_threads(&s) == 0 &&
        start_admin(&s, version) == 0) {
        worker_run(s.workers[0]);
    } else {
        rc = -1;
    }
    join_threads(&s);
    if (rc == 0) {
        log_text(s.log, LOG_INFO, "exit", "all workers have stopped");
    }
    server_fini(&s);
    return rc;
}
