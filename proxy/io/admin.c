#include "proxy/io/admin.h"

#include <microhttpd.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "proxy/io/channel_report.h"
#include "proxy/io/grpc_metrics.h"
#include "proxy/io/metrics.h"
#include "proxy/io/node_report.h"
#include "proxy/io/sockaddr.h"

enum {
    CONNECTIONS_MAX = 32,
    IDLE_TIMEOUT_S = 10,
    REQUEST_MEMORY = 16 * 1024,
    STACK_BYTES = 256 * 1024,
};

struct admin {
    struct admin_options options;
    struct MHD_Daemon *daemon; /* owned */
    uint64_t started_s;
};

/* A page that is being made. */
struct page {
    unsigned status;
    const char *type;
    struct text body;
};

/* ---- asking the workers ---- */

/* What a page needs beyond the numbers of Redis. */
enum ask {
    ASK_NODES = 1,    /* of each server */
    ASK_GRPC = 2,     /* numbers of gRPC */
    ASK_CHANNELS = 4, /* of each endpoint */
};

/* The arrays of a snapshot, zeroed. Returns false when out of memory. */
static bool snapshot_init(const struct admin *a,
                          unsigned ask,
                          struct worker_snapshot *s)
{
    const struct config *config = a->options.config;
    size_t n = config->n_upstreams;
    *s = (struct worker_snapshot){
        .upstreams = calloc(n + 1, sizeof(*s->upstreams)),
        .ready = calloc(n + 1, sizeof(*s->ready)),
        .states = (ask & ASK_NODES) != 0 ? node_report_new(config) : NULL,
        .grpc = (ask & ASK_GRPC) != 0 ? grpc_metrics_new(config) : NULL,
        .channels =
            (ask & ASK_CHANNELS) != 0 ? channel_report_new(config) : NULL,
    };
    return s->upstreams != NULL && s->ready != NULL &&
           (s->states != NULL || (ask & ASK_NODES) == 0) &&
           (s->grpc != NULL || (ask & ASK_GRPC) == 0) &&
           (s->channels != NULL || (ask & ASK_CHANNELS) == 0);
}

static void snapshot_fini(const struct admin *a, struct worker_snapshot *s)
{
    free(s->upstreams);
    free(s->ready);
    node_report_free(a->options.config, s->states);
    grpc_metrics_free(a->options.config, s->grpc);
    channel_report_free(a->options.config, s->channels);
}

/* Ask every worker and add up; ask is a set of enum ask. Returns how many
 * answered. End sum with snapshot_fini() in any case. */
static size_t gather(const struct admin *a,
                     unsigned ask,
                     struct worker_snapshot *sum)
{
    size_t n = a->options.n_workers, answered = 0;
    struct worker_snapshot one;
    /* The first one that answers is where the sum begins. */
    bool fine = snapshot_init(a, ask, sum);
    fine = snapshot_init(a, ask, &one) && fine;
    for (size_t i = 0; i < n && fine; i++) {
        struct worker_snapshot *to = answered == 0 ? sum : &one;
        if (!worker_ask(a->options.workers[i], to)) {
            continue;
        }
        if (answered > 0) {
            metrics_add(a->options.config, sum, &one);
        }
        answered++;
    }
    snapshot_fini(a, &one);
    return answered;
}

/* ---- pages ---- */

static void page_live(struct admin *a, struct page *p)
{
    struct worker_snapshot sum;
    size_t answered = gather(a, 0, &sum);
    snapshot_fini(a, &sum);
    if (answered == a->options.n_workers) {
        text_addf(&p->body, "live\n");
    } else {
        p->status = MHD_HTTP_SERVICE_UNAVAILABLE;
        text_addf(&p->body, "%zu of %zu workers did not answer within 1s\n",
                  a->options.n_workers - answered, a->options.n_workers);
    }
}

static void page_ready(struct admin *a, struct page *p)
{
    if (atomic_load(a->options.draining)) {
        p->status = MHD_HTTP_SERVICE_UNAVAILABLE;
        text_addf(&p->body, "draining\n");
        return;
    }
    const struct config *config = a->options.config;
    struct worker_snapshot sum;
    bool ready = gather(a, 0, &sum) > 0;
    if (!ready) {
        text_addf(&p->body, "no worker answered within 1s\n");
    }
    for (size_t i = 0; ready && i < config->n_upstreams; i++) {
        if (!sum.ready[i]) {
            ready = false;
            text_addf(&p->body, "upstream %s has no server connection\n",
                      config->upstreams[i].name);
        }
    }
    snapshot_fini(a, &sum);
    if (ready) {
        text_addf(&p->body, "ready\n");
    } else {
        p->status = MHD_HTTP_SERVICE_UNAVAILABLE;
    }
}

static void page_metrics(struct admin *a, struct page *p)
{
    struct metrics m = { .config = a->options.config,
                         .version = a->options.version,
                         .log = log_counters(a->options.log),
                         .started_s = a->started_s,
                         .workers = a->options.n_workers };
    metrics_look(&m);
    if (gather(a, ASK_NODES | ASK_GRPC, &m.sum) == a->options.n_workers) {
        p->type = "text/plain; version=0.0.4; charset=utf-8";
        metrics_write(&m, &p->body);
    } else {
        /* Part of the numbers would look as if counters had fallen. */
        p->status = MHD_HTTP_SERVICE_UNAVAILABLE;
        text_addf(&p->body, "a worker did not answer within 1s\n");
    }
    snapshot_fini(a, &m.sum);
}

static void page_topology(struct admin *a, struct page *p)
{
    struct worker_snapshot sum;
    size_t answered = gather(a, ASK_NODES, &sum);
    if (answered == a->options.n_workers) {
        p->type = "application/json";
        node_report_json(a->options.config, sum.states, answered, &p->body);
    } else {
        p->status = MHD_HTTP_SERVICE_UNAVAILABLE;
        text_addf(&p->body, "a worker did not answer within 1s\n");
    }
    snapshot_fini(a, &sum);
}

static void page_channels(struct admin *a, struct page *p)
{
    struct worker_snapshot sum;
    size_t answered = gather(a, ASK_CHANNELS, &sum);
    if (answered == a->options.n_workers) {
        p->type = "application/json";
        channel_report_json(a->options.config, sum.channels, answered,
                            &p->body);
    } else {
        p->status = MHD_HTTP_SERVICE_UNAVAILABLE;
        text_addf(&p->body, "a worker did not answer within 1s\n");
    }
    snapshot_fini(a, &sum);
}

static void page_config(struct admin *a, struct page *p)
{
    config_print(a->options.config, text_write, &p->body);
}

static void page_events(struct admin *a, struct page *p)
{
    p->type = "application/json";
    log_events(a->options.log, &p->body);
}

static void page_index(struct admin *a, struct page *p)
{
    (void)a;
    text_addf(&p->body, "/live\n/ready\n/metrics\n/topology\n/channels\n"
                        "/config\n/events\n");
}

static const struct route {
    const char *path;
    void (*make)(struct admin *a, struct page *p);
} routes[] = {
    { "/", page_index },
    { "/live", page_live },
    { "/ready", page_ready },
    { "/metrics", page_metrics },
    { "/topology", page_topology },
    { "/channels", page_channels },
    { "/config", page_config },
    { "/events", page_events },
};

/* ---- HTTP ---- */

static const struct route *route_find(const char *path)
{
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        if (strcmp(routes[i].path, path) == 0) {
            return &routes[i];
        }
    }
    return NULL;
}

static bool host_is_fine(const struct admin *a, struct MHD_Connection *c)
{
    if (a->options.config->process.admin_address.is_unix) {
        return true; /* no browser gets here */
    }
    const char *host =
        MHD_lookup_connection_value(c, MHD_HEADER_KIND, MHD_HTTP_HEADER_HOST);
    return host == NULL || host_is_literal(host);
}

static void page_make(struct admin *a,
                      struct MHD_Connection *c,
                      const char *path,
                      const char *method,
                      struct page *p)
{
    bool is_get = strcmp(method, MHD_HTTP_METHOD_GET) == 0 ||
                  strcmp(method, MHD_HTTP_METHOD_HEAD) == 0;
    const struct route *route = route_find(path);
    if (!host_is_fine(a, c)) {
        p->status = MHD_HTTP_FORBIDDEN;
        text_addf(&p->body,
                  "the Host header must be an IP address or localhost\n");
    } else if (!is_get) {
        p->status = MHD_HTTP_METHOD_NOT_ALLOWED;
        text_addf(&p->body, "only GET and HEAD\n");
    } else if (route == NULL) {
        p->status = MHD_HTTP_NOT_FOUND;
        text_addf(&p->body, "no such page; see /\n");
    } else {
        route->make(a, p);
    }
    if (p->body.failed) {
        text_fini(&p->body);
        p->status = MHD_HTTP_INTERNAL_SERVER_ERROR;
    }
}

static enum MHD_Result page_send(struct page *p, struct MHD_Connection *c)
{
    struct MHD_Response *r =
        MHD_create_response_from_buffer(p->body.len, p->body.data,
                                        MHD_RESPMEM_MUST_FREE);
    if (r == NULL) {
        text_fini(&p->body);
        return MHD_NO;
    }
    (void)MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, p->type);
    (void)MHD_add_response_header(r, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    (void)MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    if (p->status == MHD_HTTP_METHOD_NOT_ALLOWED) {
        (void)MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, "GET, HEAD");
    }
    enum MHD_Result rc = MHD_queue_response(c, p->status, r);
    MHD_destroy_response(r);
    return rc;
}

/* NOLINTNEXTLINE(readability-function-size): the library's signature */
static enum MHD_Result on_request(void *context,
                                  struct MHD_Connection *c,
                                  const char *path,
                                  const char *method,
                                  const char *version,
                                  const char *upload,
                                  size_t *upload_size,
                                  void **state)
{
    (void)version;
    (void)upload;
    if (*state == NULL) { /* the first call comes before any body */
        *state = context; /* anything that is not NULL */
        return MHD_YES;
    }
    if (*upload_size > 0) {
        *upload_size = 0; /* nobody reads bodies */
        return MHD_YES;
    }
    struct page p = { .status = MHD_HTTP_OK,
                      .type = "text/plain; charset=utf-8" };
    page_make(context, c, path, method, &p);
    return page_send(&p, c);
}

struct admin *admin_start(const struct admin_options *options, int fd)
{
    struct admin *a = calloc(1, sizeof(*a));
    if (a == NULL) {
        (void)close(fd);
        return NULL;
    }
    a->options = *options;
    a->started_s = (uint64_t)time(NULL);
    a->daemon = MHD_start_daemon(
        MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_EPOLL | MHD_USE_ITC, 0, NULL,
        NULL, on_request, a, MHD_OPTION_LISTEN_SOCKET, fd,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_TIMEOUT_S,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)REQUEST_MEMORY,
        MHD_OPTION_THREAD_STACK_SIZE, (size_t)STACK_BYTES, MHD_OPTION_END);
    if (a->daemon == NULL) {
        (void)close(fd);
        free(a);
        return NULL;
    }
    return a;
}

void admin_stop(struct admin *a)
{
    if (a != NULL) {
        MHD_stop_daemon(a->daemon); /* closes its socket too */
        free(a);
    }
}
