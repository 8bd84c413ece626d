#include "proxy/io/resolver.h"

#include <netdb.h>
#include <stdlib.h>

#include "proxy/io/sockaddr.h"

enum {
    ADDRESSES_MAX = 64
};

struct resolution {
    uv_getaddrinfo_t request;
    struct resolution *next;
    conn_id id; /* 0: nobody waits any more */
    uint16_t port;
};

static void resolution_unlink(struct worker *w, struct resolution *r)
{
    struct resolution **at = &w->resolutions;
    while (*at != r) {
        at = &(*at)->next;
    }
    *at = r->next;
}

static void resolve_failed(struct worker *w, conn_id id, enum io_error why)
{
    struct event e = { .type = EVENT_RESOLVED,
                       .conn = id,
                       .error = 1 + (int)why };
    worker_step(w, &e);
}

static unsigned take_addresses(const struct addrinfo *info,
                               uint16_t port,
                               struct address *list)
{
    unsigned n = 0;
    for (; info != NULL && n < ADDRESSES_MAX; info = info->ai_next) {
        if (info->ai_family == AF_INET || info->ai_family == AF_INET6) {
            sockaddr_to(info->ai_addr, info->ai_addrlen, &list[n]);
            list[n].port = port;
            n++;
        }
    }
    return n;
}

static void resolved(struct worker *w,
                     const struct resolution *r,
                     const struct addrinfo *info)
{
    struct address *list = calloc(ADDRESSES_MAX, sizeof(*list));
    if (list == NULL) {
        resolve_failed(w, r->id, IO_NO_RESOURCES);
        return;
    }
    unsigned n = take_addresses(info, r->port, list);
    if (n == 0) {
        resolve_failed(w, r->id, IO_NO_NAME);
    } else {
        struct event e = { .type = EVENT_RESOLVED,
                           .conn = r->id,
                           .resolved = { .list = list, .n = n } };
        worker_step(w, &e);
    }
    free(list);
}

static void on_resolved(uv_getaddrinfo_t *request,
                        int status,
                        struct addrinfo *info)
{
    struct worker *w = request->loop->data;
    struct resolution *r = request->data;
    resolution_unlink(w, r);
    if (r->id != 0 && status == 0) {
        resolved(w, r, info);
    } else if (r->id != 0) {
        resolve_failed(w, r->id,
                       status == UV_EAI_MEMORY || status == UV_ENOMEM
                           ? IO_NO_RESOURCES
                           : IO_NO_NAME);
    }
    uv_freeaddrinfo(info);
    free(r);
}

void resolver_start(struct worker *w, conn_id id, const struct address *address)
{
    struct sockaddr_any ignored;
    if (sockaddr_from(address, &ignored)) {
        struct address numeric = *address; /* the step ends the borrowing */
        struct event e = { .type = EVENT_RESOLVED,
                           .conn = id,
                           .resolved = { .list = &numeric, .n = 1 } };
        worker_step(w, &e);
        return;
    }
    struct resolution *r = calloc(1, sizeof(*r));
    if (r == NULL) {
        resolve_failed(w, id, IO_NO_RESOURCES);
        return;
    }
    r->id = id;
    r->port = address->port;
    r->request.data = r;
    const struct addrinfo hints = { .ai_family = AF_UNSPEC,
                                    .ai_socktype = SOCK_STREAM };
    int rc = uv_getaddrinfo(&w->loop, &r->request, on_resolved, address->host,
                            NULL, &hints);
    if (rc != 0) {
        free(r);
        resolve_failed(w, id, rc == UV_ENOMEM ? IO_NO_RESOURCES : IO_NO_NAME);
        return;
    }
    r->next = w->resolutions;
    w->resolutions = r;
}

void resolver_cancel(struct worker *w, conn_id id)
{
    for (struct resolution *r = w->resolutions; r != NULL; r = r->next) {
        if (r->id == id) {
            r->id = 0;
            (void)uv_cancel((uv_req_t *)&r->request); /* if not begun yet */
            return;
        }
    }
}

void resolver_stop(struct worker *w)
{
    for (struct resolution *r = w->resolutions; r != NULL; r = r->next) {
        r->id = 0;
        (void)uv_cancel((uv_req_t *)&r->request);
    }
}
