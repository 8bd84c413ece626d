/* What `./run bench grpc` puts behind the proxies: a gRPC server whose one
 * method answers the message it was sent. It does as little as nghttp2 allows,
 * so that the figures are those of the proxy in front.
 *
 * Usage: grpc_echo PORT, on 127.0.0.1. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <nghttp2/nghttp2.h>

enum {
    READ_BYTES = 64 * 1024,
    BODY_MAX = 4096, /* of a request; a longer one is refused */
    STREAMS_MAX = 1000,
    EVENTS_MAX = 64,
    BACKLOG = 1024,
    PORT_MAX = 65535
};

/* One request and its answer, as long as its stream. */
struct call {
    struct call *next; /* in the list of the free ones */
    size_t received;
    size_t sent;
    uint8_t body[BODY_MAX];
};

struct server {
    int poll;
    int listener;
    nghttp2_session_callbacks *callbacks;
    struct call *free;
    uint8_t block[READ_BYTES]; /* every read goes here */
};

struct peer {
    struct server *server; /* borrowed */
    nghttp2_session *session;
    int fd;
    size_t out_from; /* what the kernel has taken */
    size_t out_size;
    size_t out_room;
    uint8_t *out; /* owned */
};

/* nghttp2 wants them writable, and leaves them alone. */
static uint8_t status_name[] = ":status";
static uint8_t status_value[] = "200";
static uint8_t type_name[] = "content-type";
static uint8_t type_value[] = "application/grpc";
static uint8_t code_name[] = "grpc-status";
static uint8_t code_value[] = "0";

#define FIELD(text)                                                      \
    {                                                                    \
        text##_name, text##_value, sizeof text##_name - 1,               \
            sizeof text##_value - 1,                                     \
            NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE \
    }

static const nghttp2_nv answer_fields[] = { FIELD(status), FIELD(type) };
static const nghttp2_nv trailer_fields[] = { FIELD(code) };

/* --- calls ---------------------------------------------------------------- */

static int on_begin_headers(nghttp2_session *session,
                            const nghttp2_frame *frame,
                            void *user)
{
    struct server *s = ((struct peer *)user)->server;
    if (frame->headers.cat != NGHTTP2_HCAT_REQUEST) {
        return 0;
    }
    struct call *call = s->free;
    if (call != NULL) {
        s->free = call->next;
    } else {
        call = malloc(sizeof *call);
        if (call == NULL) {
            return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        }
    }
    call->received = 0;
    call->sent = 0;
    return nghttp2_session_set_stream_user_data(session, frame->hd.stream_id,
                                                call);
}

static int on_data(nghttp2_session *session,
                   uint8_t flags,
                   int32_t stream,
                   const uint8_t *data,
                   size_t size,
                   void *user)
{
    struct call *call = nghttp2_session_get_stream_user_data(session, stream);
    (void)flags;
    (void)user;
    if (call == NULL) {
        return 0;
    }
    if (size > BODY_MAX - call->received) {
        return nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, stream,
                                         NGHTTP2_INTERNAL_ERROR);
    }
    memcpy(call->body + call->received, data, size);
    call->received += size;
    return 0;
}

/* NOLINTNEXTLINE(readability-function-size): as nghttp2 wants it */
static ssize_t on_read_body(nghttp2_session *session,
                            int32_t stream,
                            uint8_t *to,
                            size_t room,
                            uint32_t *flags,
                            nghttp2_data_source *source,
                            void *user)
{
    struct call *call = source->ptr;
    (void)user;
    size_t left = call->received - call->sent;
    size_t size = left < room ? left : room;
    memcpy(to, call->body + call->sent, size);
    call->sent += size;
    if (size == left) {
        *flags = NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
        int rc = nghttp2_submit_trailer(session, stream, trailer_fields, 1);
        if (rc != 0) {
            return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        }
    }
    return (ssize_t)size;
}

static int on_frame(nghttp2_session *session,
                    const nghttp2_frame *frame,
                    void *user)
{
    bool may_end =
        frame->hd.type == NGHTTP2_DATA || frame->hd.type == NGHTTP2_HEADERS;
    (void)user;
    if (!may_end || (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) == 0) {
        return 0;
    }
    int32_t stream = frame->hd.stream_id;
    nghttp2_data_provider body = {
        .source.ptr = nghttp2_session_get_stream_user_data(session, stream),
        .read_callback = on_read_body,
    };
    if (body.source.ptr == NULL) {
        return 0;
    }
    return nghttp2_submit_response(session, stream, answer_fields,
                                   sizeof answer_fields /
                                       sizeof answer_fields[0],
                                   &body);
}

static int on_stream_close(nghttp2_session *session,
                           int32_t stream,
                           uint32_t error,
                           void *user)
{
    struct server *s = ((struct peer *)user)->server;
    struct call *call = nghttp2_session_get_stream_user_data(session, stream);
    (void)error;
    if (call != NULL) {
        call->next = s->free;
        s->free = call;
    }
    return 0;
}

/* --- connections ---------------------------------------------------------- */

static void peer_close(struct peer *p)
{
    nghttp2_session_del(p->session); /* its open calls are lost with it */
    (void)close(p->fd);
    free(p->out);
    free(p);
}

static bool out_append(struct peer *p, const uint8_t *data, size_t size)
{
    if (size > p->out_room - p->out_size) {
        size_t room = 2 * (p->out_size + size);
        uint8_t *out = realloc(p->out, room);
        if (out == NULL) {
            return false;
        }
        p->out = out;
        p->out_room = room;
    }
    memcpy(p->out + p->out_size, data, size);
    p->out_size += size;
    return true;
}

/* Write what there is. Returns false when the connection is lost. */
static bool peer_write(struct peer *p)
{
    for (;;) {
        const uint8_t *data = NULL;
        ssize_t size = nghttp2_session_mem_send(p->session, &data);
        if (size < 0 || (size > 0 && !out_append(p, data, (size_t)size))) {
            return false;
        }
        if (size == 0) {
            break;
        }
    }
    while (p->out_from < p->out_size) {
        ssize_t n = send(p->fd, p->out + p->out_from, p->out_size - p->out_from,
                         MSG_NOSIGNAL);
        if (n < 0) {
            return errno == EAGAIN; /* epoll tells when it goes on */
        }
        p->out_from += (size_t)n;
    }
    p->out_from = 0;
    p->out_size = 0;
    return true;
}

/* epoll tells of what comes next only once nothing is left here. */
static bool peer_read(struct peer *p)
{
    struct server *s = p->server;
    for (;;) {
        ssize_t n = recv(p->fd, s->block, sizeof s->block, 0);
        if (n <= 0) {
            return n < 0 && errno == EAGAIN;
        }
        if (nghttp2_session_mem_recv(p->session, s->block, (size_t)n) != n) {
            return false;
        }
        if ((size_t)n < sizeof s->block) {
            return true;
        }
    }
}

static bool peer_start(struct peer *p)
{
    static const nghttp2_settings_entry settings[] = {
        { NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, STREAMS_MAX },
    };
    int on = 1;
    struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLET,
                                 .data.ptr = p };
    return setsockopt(p->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) == 0 &&
           nghttp2_session_server_new(&p->session, p->server->callbacks, p) ==
               0 &&
           nghttp2_submit_settings(p->session, NGHTTP2_FLAG_NONE, settings,
                                   1) == 0 &&
           epoll_ctl(p->server->poll, EPOLL_CTL_ADD, p->fd, &event) == 0;
}

static void server_accept(struct server *s)
{
    int fd = accept4(s->listener, NULL, NULL, SOCK_NONBLOCK);
    if (fd < 0) {
        return;
    }
    struct peer *p = calloc(1, sizeof *p);
    if (p == NULL) {
        (void)close(fd);
        return;
    }
    p->server = s;
    p->fd = fd;
    if (!peer_start(p)) {
        peer_close(p);
    }
}

/* --- the server ----------------------------------------------------------- */

static bool server_listen(struct server *s, uint16_t port)
{
    struct sockaddr_in address = { .sin_family = AF_INET };
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int on = 1;
    struct epoll_event event = { .events = EPOLLIN, .data.ptr = NULL };
    s->poll = epoll_create1(0);
    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    return s->poll >= 0 && s->listener >= 0 &&
           setsockopt(s->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) ==
               0 &&
           bind(s->listener, (const struct sockaddr *)&address,
                sizeof address) == 0 &&
           listen(s->listener, BACKLOG) == 0 &&
           epoll_ctl(s->poll, EPOLL_CTL_ADD, s->listener, &event) == 0;
}

static bool server_prepare(struct server *s)
{
    if (nghttp2_session_callbacks_new(&s->callbacks) != 0) {
        return false;
    }
    nghttp2_session_callbacks_set_on_begin_headers_callback(s->callbacks,
                                                            on_begin_headers);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(s->callbacks,
                                                              on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(s->callbacks,
                                                         on_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(s->callbacks,
                                                           on_stream_close);
    return true;
}

static void server_run(struct server *s)
{
    struct epoll_event events[EVENTS_MAX];
    for (;;) {
        int n = epoll_wait(s->poll, events, EVENTS_MAX, -1);
        for (int i = 0; i < n; i++) {
            struct peer *p = events[i].data.ptr;
            if (p == NULL) {
                server_accept(s);
                continue;
            }
            bool alive = (events[i].events & EPOLLIN) == 0 || peer_read(p);
            if (!alive || !peer_write(p)) {
                peer_close(p);
            }
        }
    }
}

int main(int argc, char **argv)
{
    unsigned long port = argc == 2 ? strtoul(argv[1], NULL, 10) : 0;
    if (port == 0 || port > PORT_MAX) {
        (void)fprintf(stderr, "usage: grpc_echo PORT\n");
        return 2;
    }
    struct server *s = calloc(1, sizeof *s);
    if (s == NULL || !server_prepare(s) || !server_listen(s, (uint16_t)port)) {
        perror("grpc_echo");
        free(s);
        return 1;
    }
    server_run(s);
    return 0;
}
