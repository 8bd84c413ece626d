/* A scripted shell around an engine that serves gRPC: a network in memory, and
 * at its ends HTTP/2 sessions that write down what happens to them. What the
 * kernel takes, and when, is the test's to say. */
#ifndef UNIT_GRPC_DRIVER_H
#define UNIT_GRPC_DRIVER_H

#include "config/config.h"
#include "failing_allocator.h"
#include "h2_pair.h"
#include "proxy/core/engine.h"
#include "proxy/core/grpc_stats.h"
#include "tests/sim/bytes.h"

enum {
    PEERS_MAX = 64,
    PORT_FIRST = 1000,
    PORTS_MAX = 4,
};
#define SECOND UINT64_C(1000000)
#define MS     UINT64_C(1000)

/* One connection, of a client or to an endpoint. */
struct peer {
    struct side side; /* first */
    struct driver *driver;
    conn_id id;
    unsigned port; /* of an endpoint */
    bool client, open, connecting;
    struct bytes untaken;  /* written by the engine, not taken by the kernel */
    uint64_t takes;        /* bytes the kernel still takes; UINT64_MAX: all */
    struct bytes arriving; /* from the peer, not read by the engine */
    bool silent;           /* nothing of the peer arrives */
};

struct driver {
    struct config *config;
    struct failing memory;
    size_t fail_at; /* which allocation fails, from 1 on; 0: none */
    struct engine *engine;
    uint64_t now_us;
    struct peer *peers[PEERS_MAX]; /* owned */
    size_t n_peers;
    bool refuses[PORTS_MAX];
    size_t piece; /* bytes the engine reads at once; 0: all */
    unsigned connects;
    /* What each new endpoint connection does. */
    void (*on_request)(struct side *, struct talk *);
    void (*on_ended)(struct side *, struct talk *);
    uint32_t server_streams; /* that an endpoint allows */
    uint32_t server_window;  /* of a stream of an endpoint */
    uint32_t client_window;
    uint32_t client_headers; /* bytes that a client takes */
    bool quiet;
};

/* NULL: the engine could not be made (only with fail_at). */
struct driver *driver_new(const char *ini, size_t fail_at);
/* Ends everything; fails when something is left. */
void driver_free(struct driver *d);
/* Let everything happen that needs no time; and that happens in that time. */
void driver_run(struct driver *d);
void driver_pass(struct driver *d, uint64_t us);
void driver_drain(struct driver *d);
struct grpc_stats driver_stats(struct driver *d);

/* A client of listener number `listener`, or NULL: refused. */
struct peer *driver_client(struct driver *d, unsigned listener);
/* The newest open connection to that port, or NULL. */
struct peer *driver_server(struct driver *d, unsigned port);
/* The newest connection to it, open or not. */
struct peer *driver_last(struct driver *d, unsigned port);
/* Bytes of the peer that no session has made. */
void peer_raw(struct peer *p, const void *data, size_t len);
/* What its session has to say is on its way to the engine. */
void peer_flush(struct peer *p);
/* It closes: error 0: FIN. What it said before is read first. */
void peer_end(struct peer *p, enum io_error error);

/* A request with one message of n bytes behind its prefix; more: lines of
 * further fields. */
struct talk *call_unary(struct peer *client,
                        const char *path,
                        size_t n,
                        const char *more);
/* The same without END_STREAM and content. */
struct talk *call_open(struct peer *client, const char *path, const char *more);
/* So many bytes of messages, then perhaps the end. */
void call_send(struct peer *client, struct talk *t, size_t n, bool end);
/* What an endpoint may do. */
void reply_only(struct side *s, struct talk *t, const char *status);
void reply_head(struct side *s, struct talk *t);
void reply_data(struct side *s, struct talk *t, size_t n);
void reply_trailers(struct side *s, struct talk *t, const char *trailers);
void reply_ok(struct side *s, struct talk *t);
/* The text of an engine's status, or NULL, of the stream in a client's log. */
bool said(const struct peer *p, const char *words);

#endif
