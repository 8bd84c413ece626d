/* What two HTTP/2 sessions cost per unary call: the one of a client and the one
 * to an endpoint, joined as a proxy joins them. No socket and no core.
 *
 *   h2_bench [h2load | typical [CALLS [STREAMS]]]
 *
 * Prints the time per call inside proxy_turn(). Instructions:
 *
 *   valgrind --tool=callgrind --toggle-collect=proxy_turn h2_bench typical 2000
 *
 * divided by the calls. h2load sends the fields of h2load; typical is what a
 * gRPC library and its application send: 12 fields, two of them new each
 * time. */
#include <assert.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "parser/h2.h"

enum {
    CALLS_MAX = 128,
    PIPE_BYTES = 256 * 1024,
    MESSAGE_BYTES = 69,
    FIELDS_MAX = 24,
    NANO = 1000 * 1000 * 1000
};

/* Bytes on their way from one session to another. */
struct pipe {
    uint8_t bytes[PIPE_BYTES];
    size_t len;
};

struct party {
    struct h2 *h;
    struct pipe *out;
};

/* A call in the proxy; in the peers, only content and left count. */
struct call {
    struct h2_stream *down, *up;
    struct h2_block *request, *response, *trailers;
    uint8_t content[2][MESSAGE_BYTES]; /* to the endpoint, to the client */
    size_t left[2];
    bool request_end;
};

static struct h2_memory *memory;
static struct pipe from_client, to_client, from_endpoint, to_endpoint;
static struct party client = { .out = &from_client };
static struct party endpoint = { .out = &from_endpoint };
static struct party down = { .out = &to_client };
static struct party up = { .out = &to_endpoint };
static struct call calls[CALLS_MAX];
static struct call *free_calls[CALLS_MAX];
static size_t free_count;
static uint64_t finished;
static bool is_typical;
static uint64_t trace_id;

void proxy_turn(void);

/* ---- what all have in common ---- */

static bool on_write(struct h2 *h, struct span bytes)
{
    struct pipe *out = ((struct party *)h2_owner(h))->out;
    assert(out->len + bytes.len <= PIPE_BYTES);
    memcpy(out->bytes + out->len, bytes.data, bytes.len);
    out->len += bytes.len;
    return true;
}

static void nothing(struct h2 *h)
{
    (void)h;
}

static void on_pong(struct h2 *h, uint64_t opaque)
{
    (void)h;
    (void)opaque;
}

static void on_goaway(struct h2 *h, int32_t last, uint32_t code, struct span d)
{
    (void)h;
    (void)last;
    (void)code;
    (void)d;
}

static void on_control(struct h2 *h, bool empty)
{
    (void)h;
    (void)empty;
}

static void on_headers_sent(struct h2 *h,
                            struct h2_stream *s,
                            uint64_t offset,
                            bool end)
{
    (void)h;
    (void)s;
    (void)offset;
    (void)end;
}

static void on_end_sent(struct h2 *h, struct h2_stream *s)
{
    (void)h;
    (void)s;
}

static void on_unsent(struct h2 *h, struct h2_stream *s, enum h2_unsent why)
{
    (void)h;
    (void)s;
    (void)why;
    abort();
}

static bool on_pass(struct h2 *h, struct h2_stream *s, size_t n)
{
    (void)h;
    (void)s;
    (void)n;
    abort(); /* messages are small */
}

static struct h2_field field(const char *name, const char *value, uint8_t id)
{
    return (struct h2_field){ .name = span_of(name),
                              .value = span_of(value),
                              .id = id,
                              .flags = H2_FIELD_COPY };
}

/* ---- the peers: a client and an endpoint ---- */

static void peer_headers(struct h2 *h,
                         struct h2_stream *s,
                         enum h2_headers kind,
                         struct h2_block *block,
                         bool end)
{
    (void)h;
    (void)s;
    (void)end;
    finished += kind == H2_TRAILERS;
    h2_block_unref(block);
}

static void peer_data(struct h2 *h, struct h2_stream *s, struct span bytes)
{
    h2_credit_stream(h, s, bytes.len);
    h2_credit_connection(h, bytes.len);
}

static void endpoint_ended(struct h2 *h, struct h2_stream *s)
{
    const struct h2_field fields[] = {
        field(":status", "200", H2_STATUS),
        field("content-type", "application/grpc", H2_CONTENT_TYPE),
        field("grpc-accept-encoding", "identity, deflate, gzip", H2_OTHER),
    };
    const bool ok = h2_respond(h, s, fields, 3, NULL, false);
    assert(ok);
    (void)ok;
}

static void client_ended(struct h2 *h, struct h2_stream *s)
{
    (void)h;
    (void)s;
}

static void peer_closed(struct h2 *h, struct h2_stream *s, uint32_t code)
{
    (void)h;
    (void)s;
    assert(code == H2_NO_ERROR);
    (void)code;
}

static size_t client_pull(struct h2 *h,
                          struct h2_stream *s,
                          size_t max,
                          unsigned *flags)
{
    (void)h;
    (void)s;
    assert(max >= MESSAGE_BYTES);
    (void)max;
    *flags = H2_PULL_END;
    return MESSAGE_BYTES;
}

static size_t endpoint_pull(struct h2 *h,
                            struct h2_stream *s,
                            size_t max,
                            unsigned *flags)
{
    const struct h2_field fields[] = {
        field("grpc-status", "0", H2_GRPC_STATUS),
        field("grpc-message", "", H2_GRPC_MESSAGE),
    };
    assert(max >= MESSAGE_BYTES);
    (void)max;
    if (h2_trailers(h, s, fields, 2, NULL)) {
        *flags = H2_PULL_TRAILERS;
    }
    return MESSAGE_BYTES;
}

static void peer_copy(struct h2 *h, struct h2_stream *s, uint8_t *out, size_t n)
{
    (void)h;
    (void)s;
    memset(out, 'm', n);
}

static void client_call(void)
{
    char timeout[16];
    char trace[64];
    struct h2_field fields[FIELDS_MAX] = {
        field(":method", "POST", H2_METHOD),
        field(":scheme", "http", H2_SCHEME),
        field(":path", "/echo.Echo/Unary", H2_PATH),
        field(":authority", "127.0.0.1:50050", H2_AUTHORITY),
        field("te", "trailers", H2_TE),
        field("content-type", "application/grpc", H2_CONTENT_TYPE),
        field("user-agent", "grpc-c++/1.51.1 grpc-c/29.0.0 (linux; chttp2)",
              H2_OTHER),
    };
    size_t n = 7;
    trace_id++;
    snprintf(timeout, sizeof timeout, "%um", 900 + (unsigned)trace_id % 100);
    snprintf(trace, sizeof trace,
             "00-%016" PRIx64 "%016" PRIx64 "-%016" PRIx64 "-01",
             trace_id * UINT64_C(0x9e3779b97f4a7c15),
             trace_id * UINT64_C(0xbf58476d1ce4e5b9),
             trace_id * UINT64_C(0x94d049bb133111eb));
    if (is_typical) {
        fields[n++] =
            field("grpc-accept-encoding", "identity, deflate, gzip", H2_OTHER);
        fields[n++] = field("accept-encoding", "identity, gzip", H2_OTHER);
        fields[n++] = field("grpc-timeout", timeout, H2_GRPC_TIMEOUT);
        fields[n - 1].flags |= H2_FIELD_NO_INDEX;
        fields[n++] = field("authorization",
                            "Bearer eyJhbGciOiJIUzI1NiJ9.e30.ZRrHA1JJJW8opsbCG",
                            H2_OTHER);
        fields[n++] = field("traceparent", trace, H2_OTHER);
        fields[n - 1].flags |= H2_FIELD_NO_INDEX;
    }
    bool no_ids = false;
    struct h2_stream *s =
        h2_request(client.h, fields, n, NULL, false, NULL, &no_ids);
    assert(s != NULL);
    (void)s;
}

/* ---- the proxy ---- */

static void call_free(struct call *c)
{
    if (c->down != NULL || c->up != NULL) {
        return;
    }
    if (c->request != NULL) {
        h2_block_unref(c->request);
    }
    if (c->response != NULL) {
        h2_block_unref(c->response);
    }
    if (c->trailers != NULL) {
        h2_block_unref(c->trailers);
    }
    free_calls[free_count++] = c;
}

static void send_request(struct call *c)
{
    struct h2_field fields[FIELDS_MAX];
    const struct h2_block *b = c->request;
    size_t n = 0;
    for (size_t id = H2_METHOD; id <= H2_AUTHORITY; id++) {
        fields[n++] = b->fields[b->first[id] - 1];
    }
    fields[n++] = field("te", "trailers", H2_TE);
    fields[n - 1].flags = 0;
    if (b->first[H2_GRPC_TIMEOUT] != 0) {
        fields[n++] = field("grpc-timeout", "899987u", H2_GRPC_TIMEOUT);
        fields[n - 1].flags = H2_FIELD_COPY | H2_FIELD_NO_INDEX;
    }
    for (size_t i = 0; i < b->n; i++) {
        const struct h2_field *f = &b->fields[i];
        if (f->id == H2_OTHER || f->id == H2_CONTENT_TYPE) {
            fields[n++] = *f;
        }
    }
    bool no_ids = false;
    c->up = h2_request(up.h, fields, n, c->request, false, c, &no_ids);
    assert(c->up != NULL);
}

static void down_headers(struct h2 *h,
                         struct h2_stream *s,
                         enum h2_headers kind,
                         struct h2_block *block,
                         bool end)
{
    (void)h;
    (void)kind;
    assert(!end && free_count > 0);
    (void)end;
    struct call *c = free_calls[--free_count];
    memset(c, 0, sizeof *c);
    c->down = s;
    c->request = block;
    s->user = c;
    send_request(c);
}

static void down_data(struct h2 *h, struct h2_stream *s, struct span bytes)
{
    struct call *c = s->user;
    memcpy(c->content[0] + c->left[0], bytes.data, bytes.len);
    c->left[0] += bytes.len;
    h2_credit_stream(h, s, bytes.len);
    h2_credit_connection(h, bytes.len);
}

static void down_ended(struct h2 *h, struct h2_stream *s)
{
    struct call *c = s->user;
    (void)h;
    c->request_end = true;
    h2_resume(up.h, c->up);
}

static void down_closed(struct h2 *h, struct h2_stream *s, uint32_t code)
{
    struct call *c = s->user;
    (void)h;
    assert(code == H2_NO_ERROR);
    (void)code;
    c->down = NULL;
    call_free(c);
}

static size_t down_pull(struct h2 *h,
                        struct h2_stream *s,
                        size_t max,
                        unsigned *flags)
{
    struct call *c = s->user;
    (void)max;
    if (c->trailers != NULL &&
        h2_trailers(h, s, c->trailers->fields, c->trailers->n, c->trailers)) {
        *flags = H2_PULL_TRAILERS;
    }
    return c->left[1];
}

static void down_copy(struct h2 *h, struct h2_stream *s, uint8_t *out, size_t n)
{
    struct call *c = s->user;
    (void)h;
    memcpy(out, c->content[1], n);
    c->left[1] = 0;
}

static void up_headers(struct h2 *h,
                       struct h2_stream *s,
                       enum h2_headers kind,
                       struct h2_block *block,
                       bool end)
{
    struct call *c = s->user;
    (void)h;
    (void)end;
    if (kind == H2_RESPONSE) {
        c->response = block;
        const bool ok =
            h2_respond(down.h, c->down, block->fields, block->n, block, false);
        assert(ok);
        (void)ok;
        return;
    }
    c->trailers = block;
    h2_resume(down.h, c->down);
}

static void up_data(struct h2 *h, struct h2_stream *s, struct span bytes)
{
    struct call *c = s->user;
    memcpy(c->content[1] + c->left[1], bytes.data, bytes.len);
    c->left[1] += bytes.len;
    h2_credit_stream(h, s, bytes.len);
    h2_credit_connection(h, bytes.len);
}

static void up_closed(struct h2 *h, struct h2_stream *s, uint32_t code)
{
    struct call *c = s->user;
    (void)h;
    assert(code == H2_NO_ERROR);
    (void)code;
    c->up = NULL;
    call_free(c);
}

static size_t up_pull(struct h2 *h,
                      struct h2_stream *s,
                      size_t max,
                      unsigned *flags)
{
    const struct call *c = s->user;
    (void)h;
    (void)max;
    *flags = c->request_end ? H2_PULL_END : 0;
    return c->left[0];
}

static void up_copy(struct h2 *h, struct h2_stream *s, uint8_t *out, size_t n)
{
    struct call *c = s->user;
    (void)h;
    memcpy(out, c->content[0], n);
    c->left[0] = 0;
}

/* ---- the run ---- */

#define COMMON                                                       \
    .headers_sent = on_headers_sent, .end_sent = on_end_sent,        \
    .headers_unsent = on_unsent, .pass = on_pass, .write = on_write, \
    .settings = nothing, .settings_acked = nothing, .ping = nothing, \
    .pong = on_pong, .goaway = on_goaway, .control = on_control

static const struct h2_handler client_handler = {
    COMMON,
    .headers = peer_headers,
    .data = peer_data,
    .ended = client_ended,
    .closed = peer_closed,
    .pull = client_pull,
    .copy = peer_copy,
};
static const struct h2_handler endpoint_handler = {
    COMMON,
    .headers = peer_headers,
    .data = peer_data,
    .ended = endpoint_ended,
    .closed = peer_closed,
    .pull = endpoint_pull,
    .copy = peer_copy,
};
static const struct h2_handler down_handler = {
    COMMON,
    .headers = down_headers,
    .data = down_data,
    .ended = down_ended,
    .closed = down_closed,
    .pull = down_pull,
    .copy = down_copy,
};
static const struct h2_handler up_handler = {
    COMMON,
    .headers = up_headers,
    .data = up_data,
    .ended = client_ended,
    .closed = up_closed,
    .pull = up_pull,
    .copy = up_copy,
};

static void party_open(struct party *p,
                       enum h2_role role,
                       const struct h2_handler *handler)
{
    p->h = h2_new(&(struct h2_options){ .role = role,
                                        .handler = handler,
                                        .owner = p,
                                        .memory = memory,
                                        .max_streams = CALLS_MAX,
                                        .stream_window = 256 * 1024,
                                        .connection_window = 1024 * 1024,
                                        .max_header_list_size = 16 * 1024 });
    assert(p->h != NULL);
}

static void take(struct party *p, struct pipe *in)
{
    const char *error =
        in->len == 0 ? NULL
                     : h2_receive(p->h, (struct span){ in->bytes, in->len });
    assert(error == NULL);
    (void)error;
    in->len = 0;
}

static void send(struct party *p)
{
    const char *error =
        h2_wants_send(p->h) ? h2_send(p->h, PIPE_BYTES / 2) : NULL;
    assert(error == NULL);
    (void)error;
}

/* All that is measured. */
__attribute__((noinline)) void proxy_turn(void)
{
    take(&down, &from_client);
    take(&up, &from_endpoint);
    send(&up);
    send(&down);
}

static uint64_t now(void)
{
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (uint64_t)t.tv_sec * NANO + (uint64_t)t.tv_nsec;
}

static uint64_t play(uint64_t count, uint64_t streams)
{
    uint64_t begun = 0;
    uint64_t spent = 0;
    finished = 0;
    while (finished < count) {
        while (begun < count && begun - finished < streams) {
            client_call();
            begun++;
        }
        send(&client);
        send(&endpoint);
        const uint64_t start = now();
        proxy_turn();
        spent += now() - start;
        take(&client, &to_client);
        take(&endpoint, &to_endpoint);
    }
    return spent;
}

int main(int argc, char **argv)
{
    is_typical = argc < 2 || strcmp(argv[1], "typical") == 0;
    const uint64_t count = argc < 3 ? 100000 : strtoull(argv[2], NULL, 10);
    const uint64_t streams = argc < 4 ? 10 : strtoull(argv[3], NULL, 10);
    if (count == 0 || streams == 0 || streams > CALLS_MAX) {
        fprintf(stderr, "usage: h2_bench [h2load | typical [CALLS "
                        "[STREAMS]]]\n");
        return 2;
    }
    for (size_t i = 0; i < CALLS_MAX; i++) {
        free_calls[free_count++] = &calls[i];
    }
    memory = h2_memory_new(NULL);
    assert(memory != NULL);
    party_open(&client, H2_CLIENT, &client_handler);
    party_open(&endpoint, H2_SERVER, &endpoint_handler);
    party_open(&down, H2_SERVER, &down_handler);
    party_open(&up, H2_CLIENT, &up_handler);
    const uint64_t spent = play(count, streams);
    printf("%s, %" PRIu64 " streams: %" PRIu64 " ns per call\n",
           is_typical ? "typical" : "h2load", streams, spent / count);
    h2_free(client.h);
    h2_free(endpoint.h);
    h2_free(down.h);
    h2_free(up.h);
    h2_memory_free(memory);
    return 0;
}
