/* A model of gRPC around the engine: callers, which are HTTP/2 clients, hosts,
 * which are HTTP/2 servers, and a ledger of every call (README.md). */
#ifndef SIM_GRPC_MODEL_H
#define SIM_GRPC_MODEL_H

#include "parser/grpc.h"
#include "parser/h2.h"
#include "proxy/core/grpc_retry.h"
#include "proxy/core/grpc_stats.h"
#include "tests/sim/world.h"

enum {
    MESSAGES_MAX = 6,
    HOSTS_MAX = 4,
    METHODS = 4,
    FIELDS_MAX = 16,
    WRITTEN_KEPT = 64,
    PAD_MAX = 20000,
    NEVER_SAID = -1,
};

/* ---- bodies: their bytes follow from a key ---- */

struct body {
    uint64_t key;
    unsigned n; /* messages */
    uint32_t size[MESSAGES_MAX];
};

/* How long the first n messages are, with their prefixes. */
uint64_t body_until(const struct body *b, unsigned n);
uint64_t body_total(const struct body *b);
/* How many messages are whole within so many bytes. */
unsigned body_whole(const struct body *b, uint64_t size);
void body_fill(const struct body *b, uint64_t offset, uint8_t *out, size_t n);
bool body_has(const struct body *b, uint64_t offset, struct span bytes);

/* A field of metadata that follows from a key, to be found again unchanged. */
void meta_text(uint64_t key, char *text, size_t size);
/* Metadata of that length, which is only there to be long. */
struct span meta_pad(uint32_t size);

/* ---- frames as they are written, read without a session ---- */

struct frames {
    uint8_t head[9];
    uint8_t n_head;
    uint32_t left; /* of the payload */
    uint8_t payload[4];
    uint8_t n_payload;
    uint64_t skip;    /* the client's magic */
    uint64_t granted; /* by WINDOW_UPDATE for the connection */
    bool goaway;
    uint32_t last_stream; /* of the last GOAWAY */
};

/* What whoever writes did to a stream: HEADERS, or its end, by END_STREAM or
 * RST_STREAM. */
typedef void stream_seen(void *who, uint32_t stream, bool end);
void frames_read(struct frames *f,
                 struct span bytes,
                 stream_seen *seen,
                 void *who);

/* ---- the ledger ---- */

enum shape {
    SHAPE_UNARY,
    SHAPE_CLIENT_STREAM,
    SHAPE_SERVER_STREAM,
    SHAPE_BIDI,
    SHAPE_COUNT
};

/* One execution of a call by a host. */
struct run_record {
    struct body body;
    uint32_t attempts; /* before this one, says its header */
    uint64_t sent;     /* bytes of the body given to the session */
    int said;          /* grpc-status; NEVER_SAID */
    bool said_all;     /* ... has been given to the network */
    bool trailers_only, headers;
    bool was_reset, not_grpc, no_status;
    uint32_t reset_code;
    unsigned http;
    uint32_t pad;   /* of its metadata */
    bool split_end; /* Trailers-Only whose end stands in an empty DATA frame */
    enum grpc_pushback pushback;
    uint32_t pushback_ms;
};

enum ending {
    CALL_OPEN,
    CALL_STATUS,    /* the client has got a status */
    CALL_CANCELLED, /* the client reset it */
    CALL_LOST,      /* the client's connection ended */
    CALL_REFUSED    /* never seen by redial, says HTTP/2 */
};

struct caller;

struct call {
    uint32_t id;
    enum shape shape;
    unsigned method;
    uint32_t before;     /* grpc-previous-rpc-attempts */
    uint64_t timeout_us; /* 0: none */
    struct body body;
    uint32_t pad; /* of its metadata */

    /* At the client. */
    struct caller *caller; /* borrowed; NULL: over */
    struct h2_stream *stream;
    uint32_t stream_id;
    unsigned released; /* messages that may be sent */
    bool half_closed, half_sent;
    bool ping_pong;
    bool lazy; /* gives credit late */
    uint64_t owed;
    uint64_t sent; /* bytes of body */
    bool got_headers;
    unsigned run_seen; /* that answers; 0: none, or redial itself */
    uint64_t got;
    enum ending ending;
    int status;
    bool from_redial;
    bool told_to_stop; /* pushback -1 */
    uint64_t headers_offset;
    uint64_t arrived_us; /* at redial; 0: not yet */
    uint64_t deadline_us;
    bool engine_ended; /* redial has written its end */

    /* At the hosts. */
    struct run_record *runs; /* owned */
    unsigned n_runs, runs_cap;
    uint32_t attempts_seen; /* the highest grpc-previous-rpc-attempts */
    bool never_runs;        /* a run would be an error from now on */
};

/* What was drawn for one method. */
struct method {
    const char *path;
    bool safe, is_explicit, no_retry;
};
extern const struct method methods[METHODS];

struct host;
struct run;

/* When redial wrote the headers of a request. */
struct written {
    uint32_t stream;
    uint64_t us; /* 0: they may have waited in the session before */
};

/* A connection as a host sees it. */
struct port {
    struct port *next; /* owned */
    struct world *w;
    struct host *host; /* borrowed */
    struct link *link; /* borrowed; NULL: gone */
    struct h2 *h2;     /* owned */
    struct bytes unread;
    struct frames frames;
    struct written written[WRITTEN_KEPT]; /* a ring */
    uint64_t n_written;
    uint64_t data_sent;
    uint32_t blind_from; /* streams from here on were never seen; 0: none */
    bool over;           /* no more bytes are taken */
    bool ended;          /* the end of stream stands behind unread */
    bool kicked;         /* closes when its output has left */
    struct run *runs;    /* live ones */
    uint64_t n_streams;
};

struct host {
    struct world *w;
    unsigned index;
    bool up, stopped;
    uint64_t stops;
    uint32_t max_streams, window;
    struct port *ports; /* owned */
};

struct caller {
    struct world *w;
    unsigned place;
    struct link *link;   /* borrowed; NULL: none yet */
    struct h2 *h2;       /* owned */
    struct call **calls; /* borrowed: open ones */
    unsigned n_calls, calls_cap;
    struct bytes unread;
    struct frames frames;
    uint64_t arrived; /* bytes of it at the engine */
    uint64_t data_sent;
    bool ready; /* SETTINGS have arrived */
    bool goaway;
    bool slow, reading;
    bool gone;
    bool engine_closed;
};

/* Whom a WAKE_GRPC is for. */
enum grpc_wake {
    GW_CALLER,
    GW_READ,     /* a slow caller reads */
    GW_CALL,     /* the next message */
    GW_CREDIT,   /* late credit */
    GW_CANCEL,   /* the client has lost interest */
    GW_DEADLINE, /* the call has ended by now */
    GW_RUN,
    GW_RUN_CREDIT,
    GW_GOAWAY, /* of a port */
    GW_CONTINUE,
    GW_RESTART
};

struct grpc_settings {
    bool blanket, has_explicit;
    bool by_name;
    bool huge; /* messages larger than any window */
    enum grpc_retries retries;
    bool disabled; /* max_retry_attempts = 0 */
    enum grpc_ambiguous ambiguous;
    uint32_t codes, own_codes; /* of the blanket and of the explicit policy */
    uint32_t attempts, own_attempts;
    bool share;
    enum grpc_stop_client stop;
    uint64_t own_timeout_us; /* of the explicit method config; 0: none */
    uint64_t longest_call_us;
    uint32_t message_max_in, message_max_out; /* 0: any */
    bool small_limits; /* calls may be refused though all is well */
    bool age_grace;    /* client connections may be cut */
    bool attempt_timeout;
    uint64_t settle_us; /* until all connections stand again */
    uint64_t connection_window;
};

struct grpc_world {
    struct h2_memory *memory; /* of the model's sessions; owned */
    struct grpc_settings s;
    struct call **calls; /* owned, by id */
    uint32_t n_calls, calls_cap;
    struct host hosts[HOSTS_MAX];
    unsigned n_hosts;
    struct caller **callers; /* owned: present ones */
    unsigned n_callers;
    struct caller **retired; /* owned */
    size_t n_retired;
    struct run **runs; /* owned: all of them */
    size_t n_runs, runs_cap;
    bool probing;
};

struct call *ledger_call_new(struct world *w);
void grpc_ledger_free(struct grpc_world *g);
/* A host begins to execute the call. attempts: what its header says. NULL: an
 * invariant is broken. */
struct run_record *ledger_run(struct world *w,
                              struct call *c,
                              uint32_t attempts);
/* The client has got a status; message is borrowed. */
void ledger_status(struct world *w, struct call *c, struct span message);
/* Sums and what can be told only at the end. */
void ledger_end(struct world *w);

/* grpc_settings.c */
uint32_t message_size(struct world *w);
uint32_t window_draw(struct world *w);
void grpc_settings_draw(struct world *w, const struct run_options *options);
/* The explicit policy, which no option can say. */
void grpc_settings_policy(struct world *w);

/* grpc_caller.c */
struct caller *caller_new(struct world *w, unsigned place);
void caller_free(struct caller *c);
void caller_act(struct world *w, struct caller *c);
void caller_read(struct world *w, struct caller *c);
void caller_receive(struct world *w, struct caller *c, struct span bytes);
void caller_closed(struct world *w, struct caller *c);
void caller_arrives(struct world *w, struct caller *c, size_t n);
void caller_wrote(struct caller *c, struct span bytes);
void caller_wake_call(struct world *w, struct call *c, enum grpc_wake why);
void caller_give_up(struct world *w, struct caller *c);
bool caller_idle(const struct caller *c);
/* Take a call out of the open ones. */
void caller_forget(struct call *c);

/* grpc_host.c */
void host_init(struct world *w, struct host *h, unsigned index);
void host_fini(struct host *h);
void host_accept(struct world *w, struct host *h, struct link *l);
void port_receive(struct world *w, struct port *p, struct span bytes);
void port_hangup(struct world *w, struct port *p, bool reset);
void port_wrote(struct port *p, struct span bytes);
bool port_full(const struct port *p);
void host_strike(struct world *w, struct host *h);
void host_continue(struct world *w, struct host *h, uint64_t stop);
void host_restart(struct world *w, struct host *h);
void host_heal(struct world *w, struct host *h);
void port_goaway(struct world *w, struct port *p);
void run_wake(struct world *w, struct run *r, enum grpc_wake why);
void run_free(struct run *r);

static inline void grpc_wake(struct world *w,
                             uint64_t after_us,
                             enum grpc_wake why,
                             void *who)
{
    world_wake(w, after_us, WAKE_GRPC, who, (uint64_t)why);
}

#endif
