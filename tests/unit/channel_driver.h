/* A gRPC channel with everything around it made up: an engine that has nothing
 * else, calls that only take streams, servers that speak just enough HTTP/2 --
 * or too much --, and a clock that is moved by hand. */
#ifndef UNIT_CHANNEL_DRIVER_H
#define UNIT_CHANNEL_DRIVER_H

#include "config/config.h"
#include "failing_allocator.h"
#include "proxy/core/grpc_endpoint.h"
#include "proxy/core/state.h"
#include "tests/sim/bytes.h"

enum {
    SERVERS_MAX = 8,
    WIRES_MAX = 512,
    TICKETS_MAX = 2048,
    FRAMES_KEPT = 64,
    STREAMS_KEPT = 1024,
    PORT_FIRST = 1000,
    LOOKUPS_MAX = 64,
};
#define ALL_STREAMS UINT32_MAX
#define SECOND      UINT64_C(1000000)
#define MINUTE      (60 * SECOND)
#define MS          UINT64_C(1000)

/* Configurations: one of the upstreams and more keys of it behind LISTENER. */
#define ONE "[upstream u]\ntype = grpc\nnodes = 127.0.0.1:1000\n"
#define TWO \
    "[upstream u]\ntype = grpc\nnodes = 127.0.0.1:1000, 127.0.0.1:1001\n"
#define THREE                                             \
    "[upstream u]\ntype = grpc\nnodes = 127.0.0.1:1000, " \
    "127.0.0.1:1001, 127.0.0.1:1002\n"
#define NAMED "[upstream u]\ntype = grpc\nnodes = backend.test:1000\n"
#define LISTENER                                                \
    "[listener l]\naddress = 127.0.0.1:7000\nprotocol = grpc\n" \
    "upstream = u\n"

/* Frame types of RFC 9113. */
enum frame {
    FRAME_DATA,
    FRAME_HEADERS,
    FRAME_PRIORITY,
    FRAME_RST_STREAM,
    FRAME_SETTINGS,
    FRAME_PUSH_PROMISE,
    FRAME_PING,
    FRAME_GOAWAY,
    FRAME_WINDOW_UPDATE,
    FRAME_CONTINUATION
};

/* Who listens on port PORT_FIRST + its index, on any address. */
struct server {
    bool refuses;         /* connections, at once */
    bool black_hole;      /* nothing is ever heard */
    bool closes;          /* right after accepting */
    bool mute;            /* accepts, and says nothing */
    bool frozen;          /* as after SIGSTOP: the kernel still accepts */
    bool holds;           /* does not answer calls by itself */
    bool no_ack;          /* never acknowledges SETTINGS */
    uint32_t max_streams; /* that its SETTINGS allow; ALL_STREAMS: not told */
    unsigned calls;       /* it has been sent, ever */
    unsigned connects;    /* attempts, ever */
    uint64_t connect_us[256];
};

/* One connection, as the server sees it. */
struct wire {
    conn_id id;
    struct server *server;
    bool open;
    bool connecting;      /* its result is not told yet */
    bool begun;           /* our SETTINGS have been sent */
    bool stalled;         /* the engine's bytes are not taken */
    struct bytes in, out; /* from the engine; to it, not read yet */
    size_t first_write;   /* bytes in the first write of the engine */
    uint64_t untold;      /* written, and not reported as taken */
    bool preface;         /* the 24 bytes have come */
    unsigned pings;       /* that arrived */
    unsigned n_frames;    /* that arrived; their types: */
    uint8_t frames[FRAMES_KEPT];
    int32_t streams[STREAMS_KEPT]; /* open and not answered */
    unsigned n_streams;
    int32_t last_stream;
    bool said_goodbye; /* GOAWAY has come, with */
    uint32_t goaway_code;
    uint64_t credit; /* WINDOW_UPDATEs for the connection, in all */
};

/* A call. */
struct ticket {
    struct grpc_call call;
    struct grpc_policy policy;
    size_t upload; /* bytes of content still to be sent */
    unsigned starts;
    unsigned losses;
    char reason[128]; /* of the last loss */
    bool again;       /* after a loss it is submitted again */
    bool stubborn;    /* after an attempt that did not leave, too */
    bool waiting;
    bool done;    /* answered */
    bool refused; /* closed with REFUSED_STREAM */
    bool unsent;  /* headers_unsent() */
    bool failed;  /* no link */
    bool forced;
    uint32_t code;                /* its stream was closed with */
    unsigned port;                /* of its last endpoint */
    char text[GRPC_TEXT_MAX * 2]; /* of no link */
    uint64_t end_us;
};

struct driver {
    struct engine engine;
    struct failing memory;
    struct config *config;
    struct grpc_channel channel;
    struct server servers[SERVERS_MAX];
    struct wire *wires[WIRES_MAX]; /* owned */
    unsigned n_wires;
    struct ticket *tickets[TICKETS_MAX]; /* owned */
    unsigned n_tickets;
    uint64_t now_us;

    /* The resolver. */
    const char *answer[8]; /* hosts; the port is the name's */
    uint16_t answer_port[8];
    unsigned n_answers;
    bool resolver_fails;
    bool resolver_hangs;
    unsigned n_lookups;
    uint64_t lookup_us[LOOKUPS_MAX];
    conn_id lookup; /* not answered yet; 0: none */

    unsigned n_ready, n_lost, n_doubled; /* trace records */
    char last_lost[128];
};

/* A driver for the first upstream of an INI text; nothing has happened yet, so
 * that the test may change the configuration and the servers. */
struct driver *driver_new(const char *ini);
/* The channel begins. */
void driver_start(struct driver *d);
/* Frees everything; fails when something is left. */
void driver_free(struct driver *d);
struct grpc_config *driver_grpc(struct driver *d);

/* What has been done to the engine was an event: it ends. */
void driver_settle(struct driver *d);
/* Let everything happen that needs no time. */
void driver_run(struct driver *d);
/* And that happens in that time. */
void driver_pass(struct driver *d, uint64_t us);

struct ticket *driver_call(struct driver *d);
/* The same with content. */
struct ticket *driver_upload(struct driver *d, size_t bytes);
/* The same with a policy that retries UNAVAILABLE. */
struct ticket *driver_safe_call(struct driver *d);
void driver_cancel(struct driver *d, struct ticket *t);
/* How many of the calls have an attempt that runs. */
unsigned driver_running(struct ticket *const t[], unsigned n);

/* The resolver answers with the addresses of these servers from now on. */
void driver_resolve(struct driver *d, unsigned n, const unsigned *servers);

/* The newest connection to a server that is open; fails if there is none. */
struct wire *driver_wire(struct driver *d, unsigned server);
unsigned driver_open_wires(const struct driver *d, unsigned server);

/* Let the server read what it was sent, and answer. */
void wire_serve(struct wire *w);
/* What a server sends. */
void wire_frame(struct wire *w,
                enum frame type,
                unsigned flags,
                int32_t stream,
                const void *payload,
                size_t size);
void wire_settings(struct wire *w, uint32_t max_streams);
void wire_goaway(struct wire *w, int32_t last, uint32_t code, const char *text);
void wire_answer(struct wire *w); /* all open streams */
void wire_reset(struct wire *w, int32_t stream, uint32_t code);
/* It closes. */
void wire_end(struct driver *d, struct wire *w, enum io_error why);
/* The place of the first frame of that type that came, from the at-th on. */
unsigned wire_place(const struct wire *w, enum frame type, unsigned at);

/* The next request of the connection has that stream id. */
void driver_skip_ids(struct driver *d, const struct wire *w, int32_t id);

#endif
