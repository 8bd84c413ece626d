/* The yardstick: a plain byte relay, one server connection per client, that
 * understands nothing. What redial costs more than this is the price of
 * understanding; what it costs less is earned by sharing connections.
 *
 * Usage: relay LISTEN-PORT SERVER-PORT, both on 127.0.0.1. */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <uv.h>

enum {
    READ_BYTES = 64 * 1024,
    BACKLOG = 1024
};

struct relay {
    struct sockaddr_in server;
    uv_tcp_t listener;
    uv_signal_t stop;
    char block[READ_BYTES]; /* every read goes here and leaves at once */
};

/* A client connection and its server connection. The data of both handles is
 * the pair. */
struct pair {
    uv_tcp_t client;
    uv_tcp_t server;
    unsigned open; /* handles not yet closed; the last one frees the pair */
};

/* Bytes the kernel did not take at once. */
struct rest {
    uv_write_t write;
    uv_stream_t *from; /* not read until the rest is gone */
    char bytes[];
};

static void on_closed(uv_handle_t *handle)
{
    struct pair *pair = handle->data;
    if (--pair->open == 0) {
        free(pair);
    }
}

static void pair_close(struct pair *pair)
{
    if (!uv_is_closing((uv_handle_t *)&pair->client)) {
        uv_close((uv_handle_t *)&pair->client, on_closed);
        uv_close((uv_handle_t *)&pair->server, on_closed);
    }
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    struct relay *relay = handle->loop->data;
    (void)suggested;
    *buf = uv_buf_init(relay->block, sizeof relay->block);
}

static void on_read(uv_stream_t *from, ssize_t size, const uv_buf_t *buf);

static void on_rest_written(uv_write_t *write, int status)
{
    struct rest *rest = write->data;
    struct pair *pair = rest->from->data;
    if (status < 0) {
        pair_close(pair);
    } else if (!uv_is_closing((uv_handle_t *)rest->from)) {
        (void)uv_read_start(rest->from, on_alloc, on_read);
    }
    free(rest);
}

/* The other side is slower than this one: wait for it. */
static int write_rest(uv_stream_t *from,
                      uv_stream_t *to,
                      const char *bytes,
                      size_t size)
{
    struct rest *rest = malloc(sizeof *rest + size);
    if (rest == NULL) {
        return UV_ENOMEM;
    }
    rest->write.data = rest;
    rest->from = from;
    memcpy(rest->bytes, bytes, size);
    (void)uv_read_stop(from);

    uv_buf_t buf = uv_buf_init(rest->bytes, (unsigned)size);
    int rc = uv_write(&rest->write, to, &buf, 1, on_rest_written);
    if (rc != 0) {
        free(rest);
    }
    return rc;
}

static void on_read(uv_stream_t *from, ssize_t size, const uv_buf_t *buf)
{
    struct pair *pair = from->data;
    uv_stream_t *to = from == (uv_stream_t *)&pair->client
                          ? (uv_stream_t *)&pair->server
                          : (uv_stream_t *)&pair->client;
    if (size < 0) {
        pair_close(pair);
        return;
    }
    if (size == 0) {
        return;
    }
    uv_buf_t out = uv_buf_init(buf->base, (unsigned)size);
    int sent = uv_try_write(to, &out, 1);
    if (sent == UV_EAGAIN) {
        sent = 0;
    }
    if (sent < 0 || (sent < size && write_rest(from, to, buf->base + sent,
                                               (size_t)(size - sent)) != 0)) {
        pair_close(pair);
    }
}

static void on_connected(uv_connect_t *connect, int status)
{
    struct pair *pair = connect->data;
    free(connect);
    if (status != 0) {
        pair_close(pair);
        return;
    }
    (void)uv_tcp_nodelay(&pair->server, 1);
    (void)uv_read_start((uv_stream_t *)&pair->client, on_alloc, on_read);
    (void)uv_read_start((uv_stream_t *)&pair->server, on_alloc, on_read);
}

static int pair_connect(struct pair *pair, const struct sockaddr_in *server)
{
    uv_connect_t *connect = malloc(sizeof *connect);
    if (connect == NULL) {
        return UV_ENOMEM;
    }
    connect->data = pair;
    int rc = uv_tcp_connect(connect, &pair->server,
                            (const struct sockaddr *)server, on_connected);
    if (rc != 0) {
        free(connect);
    }
    return rc;
}

static void on_client(uv_stream_t *listener, int status)
{
    const struct relay *relay = listener->data;
    struct pair *pair = status == 0 ? malloc(sizeof *pair) : NULL;
    if (pair == NULL) {
        return;
    }
    (void)uv_tcp_init(listener->loop, &pair->client);
    (void)uv_tcp_init(listener->loop, &pair->server);
    pair->client.data = pair;
    pair->server.data = pair;
    pair->open = 2;
    if (uv_accept(listener, (uv_stream_t *)&pair->client) != 0 ||
        uv_tcp_nodelay(&pair->client, 1) != 0 ||
        pair_connect(pair, &relay->server) != 0) {
        pair_close(pair);
    }
}

static void on_signal(uv_signal_t *stop, int number)
{
    (void)number;
    uv_stop(stop->loop);
}

static int relay_run(struct relay *relay, uv_loop_t *loop, int port)
{
    struct sockaddr_in address;
    int rc = uv_ip4_addr("127.0.0.1", port, &address);
    if (rc != 0) {
        return rc;
    }
    loop->data = relay;
    relay->listener.data = relay;
    (void)uv_signal_init(loop, &relay->stop);
    (void)uv_signal_start(&relay->stop, on_signal, SIGTERM);
    (void)uv_tcp_init(loop, &relay->listener);
    rc = uv_tcp_bind(&relay->listener, (const struct sockaddr *)&address, 0);
    if (rc == 0) {
        rc = uv_listen((uv_stream_t *)&relay->listener, BACKLOG, on_client);
    }
    return rc != 0 ? rc : uv_run(loop, UV_RUN_DEFAULT);
}

static int port_parse(const char *text)
{
    char *end = NULL;
    long port = strtol(text, &end, 10);
    return *end == '\0' && port > 0 && port <= UINT16_MAX ? (int)port : -1;
}

int main(int argc, char **argv)
{
    int listen_port = argc == 3 ? port_parse(argv[1]) : -1;
    int server_port = argc == 3 ? port_parse(argv[2]) : -1;
    if (listen_port < 0 || server_port < 0) {
        (void)fprintf(stderr, "usage: relay LISTEN-PORT SERVER-PORT\n");
        return 2;
    }
    (void)signal(SIGPIPE, SIG_IGN);

    struct relay *relay = calloc(1, sizeof *relay);
    if (relay == NULL ||
        uv_ip4_addr("127.0.0.1", server_port, &relay->server) != 0) {
        free(relay);
        return 1;
    }
    int rc = relay_run(relay, uv_default_loop(), listen_port);
    if (rc < 0) {
        (void)fprintf(stderr, "relay: %s\n", uv_strerror(rc));
    }
    free(relay); /* the connections end with the process */
    return rc < 0;
}
