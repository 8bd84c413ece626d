/* The nouns of gRPC in the core and what they ask of each other (grpc.md).
 *
 *   grpc_client.c    a client's connection: an HTTP/2 server session
 *   grpc_client_session.c   what that session tells of
 *   grpc_request.c   what a client's headers say: checks, deadline, policy
 *   grpc_call.c      a call: its states, its log, what follows from an ending
 *   grpc_attempt.c   one attempt: a stream of a link
 *   grpc_reply.c     what the client receives
 *   grpc_channel.c   an upstream: its endpoints, who waits
 *   grpc_pick.c      who is picked for a call
 *   grpc_names.c     which addresses the names give
 *   grpc_endpoint.c  one address: its links, when the next one is opened
 *   grpc_link.c      a connection to an endpoint: an HTTP/2 client session
 *   grpc_credit.c    connection credit while memory is short
 *
 * Calls never touch a session's bytes: sessions that have something to say are
 * marked (conn_touch()) and asked for their output when the shell takes its
 * actions, so that all output of one loop iteration leaves in one write. */
#ifndef CORE_GRPC_H
#define CORE_GRPC_H

#include "config/config.h"
#include "parser/grpc.h"
#include "parser/h2.h"
#include "proxy/core/conn.h"
#include "proxy/core/grpc_log.h"
#include "proxy/core/grpc_output.h"
#include "proxy/core/grpc_retry.h"
#include "proxy/core/grpc_stats.h"
#include "proxy/core/list.h"
#include "proxy/core/timers.h"

struct engine;
struct listener;
struct grpc_call;
struct grpc_channel;
struct grpc_client;
struct grpc_endpoint;
struct grpc_link;

enum {
    GRPC_TEXT_MAX = 256,    /* of a message of redial's own */
    GRPC_COPY_BELOW = 2048, /* smaller pieces of content are copied (FL5) */
    GRPC_STALL_US = 20 * 1000 * 1000,   /* output without progress (FL8) */
    GRPC_PREFACE_US = 10 * 1000 * 1000, /* for a client's first bytes (K11) */
};

/* ---- a client's connection (grpc_client.c) ---- */

struct grpc_client {
    struct conn conn;
    struct listener *listener; /* borrowed */
    struct h2 *h2;             /* owned */
    struct grpc_output output;
    struct list_node calls; /* of struct grpc_call, client_node */
    uint32_t n_calls;
    struct timer timer;
    uint64_t accepted_us, read_us; /* read_us: last byte from it */
    uint64_t idle_us;              /* since when it has no calls; 0: has some */
    uint64_t age_us;        /* max_connection_age with jitter, as a time */
    uint64_t goaway_us;     /* when the second GOAWAY goes out; 0: none */
    uint64_t close_us;      /* when what is left is cut; 0: never */
    uint64_t ping_valid_us; /* of the last PING that was no strike */
    uint64_t pinged_us;     /* our own PING is out; 0: none */
    uint32_t ping_strikes;
    uint64_t resets, resets_us; /* buckets of §5.5: tokens, filled when */
    uint64_t controls, controls_us;
    uint32_t empties;
    uint64_t empties_us;
    uint64_t withheld;   /* connection credit kept back (FL3) */
    bool spoke;          /* its preface is complete */
    bool draining;       /* GOAWAY 2^31-1 has been sent */
    bool drained;        /* the last GOAWAY has */
    bool doomed;         /* closes as soon as its output has left */
    bool in_h2;          /* its session is at work: it must not be freed */
    bool broken;         /* it will be, as soon as that is over */
    const char *goodbye; /* static: words of the last GOAWAY; NULL: none */
};

/* Create one for the listener, or NULL. Its conn has a name. */
struct grpc_client *grpc_client_new(struct engine *e, struct listener *l);
void grpc_client_accepted(struct engine *e, struct grpc_client *c);
void grpc_client_timeout(struct engine *e, struct grpc_client *c);
/* Close at once; its calls are cancelled. reason is for the log; static. */
void grpc_client_close(struct engine *e,
                       struct grpc_client *c,
                       const char *reason);
extern const struct conn_class grpc_client_class;
/* A call of it has ended. */
void grpc_client_forget(struct engine *e,
                        struct grpc_client *c,
                        struct grpc_call *call);

/* ---- a call ---- */

enum grpc_call_state {
    GRPC_CALL_NEW,
    GRPC_CALL_WAITING, /* for a link: in channel->waiting */
    GRPC_CALL_ACTIVE,  /* an attempt runs: in link->calls */
    GRPC_CALL_BACKOFF,
    GRPC_CALL_DONE, /* its status is decided; the client may still have to
                       take it */
    GRPC_CALL_STATE_COUNT
};

struct grpc_call {
    struct list_node client_node; /* in client->calls */
    struct list_node place;       /* in channel->waiting or link->calls */
    struct grpc_client *client;   /* borrowed */
    struct h2_stream *down;       /* the client's stream; NULL: over */
    struct grpc_channel *channel; /* borrowed */
    struct timer timer;           /* the next of its times */
    uint8_t state;                /* enum grpc_call_state */

    /* What was asked. */
    struct h2_block *request; /* owned reference */
    struct grpc_method_view method;
    struct grpc_log log;
    struct grpc_messages asked; /* messages of the request */
    bool half_closed;

    /* Times. */
    uint64_t begun_us;
    uint64_t deadline_us;   /* UINT64_MAX: none */
    uint64_t retry_us;      /* BACKOFF ends */
    uint64_t wait_us;       /* WAITING ends (W2); 0: a new wait begins */
    uint64_t idle_since_us; /* no attempt runs since then */
    uint64_t delay_us;      /* none ran so long, in all */

    /* The present attempt. */
    struct grpc_link *link; /* borrowed; NULL: none */
    struct h2_stream *up;   /* NULL: none */
    uint64_t headers_end;   /* of its HEADERS, in the link's output; 0: not
                               there yet (F-b) */
    uint64_t attempt_us;    /* when it began */
    uint64_t hold_us;       /* held headers are released then; 0: not held */
    bool got_headers;       /* final response headers */
    bool got_data;

    /* What came back. */
    struct h2_block *head;     /* response headers: held, or on their way */
    struct h2_block *trailers; /* or Trailers-Only */
    struct chain reply;        /* content the client has not been given */
    struct grpc_messages answered;
    uint64_t reply_bytes; /* content given to the client */

    struct grpc_attempts attempts;
    uint32_t n_attempts;    /* that were started, transparent ones included */
    uint32_t transparent;   /* retries that were free */
    uint32_t last_endpoint; /* grpc_link_number() of one that failed it; 0:
                               none (D2) */
    char *text;             /* owned: words of the last failure; NULL: none */
    uint8_t status;         /* enum grpc_status, once DONE; of the last failure
                               before */
    uint8_t reason;         /* enum grpc_reason, once DONE */
    uint8_t last_class;     /* enum grpc_class of the last ended attempt */
    bool committed;
    bool overflow;   /* the next attempt will be the last: more was received
                        than may be kept */
    bool forwarded;  /* response headers were handed to the client (C1) */
    bool local;      /* DONE: the status is redial's own, words in text */
    bool down_ended; /* END_STREAM is in the output to the client */
    bool stop;       /* the status says grpc-retry-pushback-ms: -1 (S2) */
};

/* grpc_call.c. A request's headers are complete; block is owned. May end the
 * call at once. */
void grpc_call_begin(struct engine *e,
                     struct grpc_client *c,
                     struct h2_stream *s,
                     struct h2_block *block,
                     bool end);
void grpc_call_data(struct engine *e,
                    struct grpc_call *call,
                    struct span bytes);
void grpc_call_half_closed(struct engine *e, struct grpc_call *call);
/* The client's stream is over: reset, closed, or complete. */
void grpc_call_stream_closed(struct engine *e,
                             struct grpc_call *call,
                             uint32_t code);
void grpc_call_timeout(struct engine *e, struct grpc_call *call);
/* The client's connection is gone, and its session: cancel (A1). */
void grpc_call_client_gone(struct engine *e, struct grpc_call *call);
/* End it with a status of redial's own (F7): attempts are cancelled. text is
 * what follows "redial: "; copied. */
void grpc_call_fail(struct engine *e,
                    struct grpc_call *call,
                    enum grpc_status status,
                    const char *text);

/* Told by the channel: the call has left channel->waiting and goes out on
 * link, which is READY and has a free stream. It becomes ACTIVE, or stays
 * WAITING (false) without memory or stream ids: the link is then draining. */
bool grpc_call_start(struct engine *e,
                     struct grpc_call *call,
                     struct grpc_link *link);
/* How its present attempt has ended. The attempt is gone already. */
struct grpc_outcome {
    enum grpc_class class;
    enum grpc_status status;
    bool received;    /* the status stands in call->trailers; else: */
    const char *text; /* what follows "redial: " */
    bool forced;      /* F0: no retry follows */
    const struct grpc_link *link; /* it ran on; borrowed; NULL: none */
    uint32_t h2_error;            /* the code its stream was closed with */
};
void grpc_call_attempt_over(struct engine *e,
                            struct grpc_call *call,
                            const struct grpc_outcome *outcome);
/* One attempt is the only one whose result can reach the client (C1). */
void grpc_call_commit(struct engine *e, struct grpc_call *call);
/* Its next time may be earlier than it was. */
void grpc_call_wake_at(struct engine *e,
                       struct grpc_call *call,
                       uint64_t at_us);

/* Told by the channel: no link in sight (F0). forced: it has waited
 * max_wait_for_ready, or the queue is full: no retry. text as above. */
void grpc_call_no_link(struct engine *e,
                       struct grpc_call *call,
                       bool forced,
                       const char *text);

/* Told by the link, for each of its calls, when it is lost or given up; reason
 * such as "reset", "closed", "no reply to PING in 20s". call->link is NULL
 * afterwards. Before, the link's session has been fed all bytes (F-d). */
void grpc_call_link_lost(struct engine *e,
                         struct grpc_call *call,
                         const char *reason);

/* grpc_attempt.c. Give the present attempt up: its stream is reset, nothing of
 * it is heard any more. Does nothing without one. */
void grpc_attempt_cancel(struct engine *e,
                         struct grpc_call *call,
                         enum h2_code code);
/* Its time, or that of its held headers, may have come. */
void grpc_attempt_timeout(struct engine *e, struct grpc_call *call);
/* The client has been given n bytes of the reply. */
void grpc_attempt_credit(struct engine *e, struct grpc_call *call, size_t n);

/* The stream events of a link's session; the link puts them
 * into its h2_handler. */
void grpc_attempt_headers(struct h2 *h,
                          struct h2_stream *s,
                          enum h2_headers kind,
                          struct h2_block *block,
                          bool end);
void grpc_attempt_data(struct h2 *h, struct h2_stream *s, struct span bytes);
void grpc_attempt_ended(struct h2 *h, struct h2_stream *s);
void grpc_attempt_closed(struct h2 *h, struct h2_stream *s, uint32_t code);
void grpc_attempt_headers_sent(struct h2 *h,
                               struct h2_stream *s,
                               uint64_t offset,
                               bool end);
void grpc_attempt_end_sent(struct h2 *h, struct h2_stream *s);
void grpc_attempt_headers_unsent(struct h2 *h,
                                 struct h2_stream *s,
                                 enum h2_unsent why);
size_t grpc_attempt_pull(struct h2 *h,
                         struct h2_stream *s,
                         size_t max,
                         unsigned *flags);
void grpc_attempt_copy(struct h2 *h,
                       struct h2_stream *s,
                       uint8_t *out,
                       size_t n);
bool grpc_attempt_pass(struct h2 *h, struct h2_stream *s, size_t n);

/* ---- a channel: an upstream of type grpc (grpc_channel.c) ---- */

enum grpc_channel_state {
    GRPC_CHANNEL_READY,
    GRPC_CHANNEL_CONNECTING,
    GRPC_CHANNEL_FAILING /* TRANSIENT_FAILURE (Y1) */
};

struct grpc_channel {
    const struct upstream_config *config; /* borrowed */
    struct engine *engine;                /* borrowed */
    uint32_t index;                       /* in engine->channels */
    struct grpc_endpoint **endpoints;     /* owned, n_endpoints; in the order of
                                         the names */
    uint32_t n_endpoints;
    struct list_node leaving; /* endpoints no name gives any more */
    struct list_node waiting; /* calls, in order (W4) */
    uint32_t n_waiting;
    struct grpc_budget budget;
    struct grpc_stats stats;
    uint8_t state;                  /* enum grpc_channel_state */
    char last_error[GRPC_TEXT_MAX]; /* of connecting; empty: none yet */
    /* The rest belongs to grpc_channel.c, grpc_pick.c and grpc_names.c. */
    struct timer timer;
    struct grpc_names *names;     /* owned: what is resolved */
    struct grpc_endpoint **ready; /* owned, room for n_endpoints: those with a
                                      link that takes calls, n_ready */
    struct grpc_endpoint *chosen; /* pick_first: who serves; NULL: nobody */
    struct list_node closing;     /* links whose last words are on their way */
    uint32_t n_ready, n_resting, n_probing;
    uint32_t next;         /* round_robin: whose turn it is */
    uint32_t n_numbers;    /* given to endpoints */
    uint32_t n_failures;   /* of connecting, since names were asked for */
    uint32_t pass_at;      /* pick_first: the endpoint that is tried next */
    uint64_t pass_us;      /* and when (Y2) */
    uint64_t keepalive_us; /* of new links: it may have been doubled (K4) */
    bool passing;          /* pick_first: they are tried one after the other */
    bool wanted; /* pick_first: a link is, although no call waits (K7) */
    bool pump;   /* to be looked at before the step ends */
    bool turned; /* FAILING has just begun (W3) */
    bool shut;   /* nothing is opened any more */
};

bool grpc_channel_init(struct engine *e,
                       struct grpc_channel *ch,
                       const struct upstream_config *config);
/* Resolve, and connect if the balancer does that eagerly (U8). */
void grpc_channel_start(struct engine *e, struct grpc_channel *ch);
void grpc_channel_fini(struct engine *e, struct grpc_channel *ch);
void grpc_channel_timeout(struct engine *e, struct grpc_channel *ch);

/* A call wants a link: it is started (grpc_call_start()) at once, or waits, or
 * is told that there is none (grpc_call_no_link()) -- in this call or later.
 * Sets call->wait_us when it waits. Keeps off call->last_endpoint if it can
 * (D2). */
void grpc_channel_submit(struct engine *e,
                         struct grpc_channel *ch,
                         struct grpc_call *call);
/* A waiting call waits no more. */
void grpc_channel_withdraw(struct engine *e,
                           struct grpc_channel *ch,
                           struct grpc_call *call);
/* Waiting calls may have somewhere to go: they are looked at before the step
 * ends. */
void grpc_channel_pump_later(struct engine *e, struct grpc_channel *ch);
void grpc_channels_pump(struct engine *e);
/* Draining, and no client is left: every link says GOAWAY and closes. */
void grpc_channels_shut(struct engine *e);
/* A connection is ready, or none is there because nobody has needed one: as far
 * as is known a call would be served. */
bool grpc_channel_serves(const struct grpc_channel *ch);
/* Fill in the gauges of connections, endpoints and waiting calls. */
void grpc_channel_gauges(const struct grpc_channel *ch, struct grpc_stats *out);

/* ---- a connection to an endpoint (grpc_link.c) ---- */

enum grpc_link_state {
    GRPC_LINK_RESOLVING,  /* asks for the addresses of a name, nothing else */
    GRPC_LINK_CONNECTING, /* TCP, then the peer's first SETTINGS (U5) */
    GRPC_LINK_READY,
    GRPC_LINK_DRAINING,
    GRPC_LINK_CLOSED, /* its last words may still be on their way */
    GRPC_LINK_STATE_COUNT
};

struct grpc_link {
    struct conn conn;
    struct list_node node;          /* in endpoint->links or channel->closing */
    struct grpc_channel *channel;   /* borrowed */
    struct grpc_endpoint *endpoint; /* borrowed; NULL: RESOLVING or CLOSED */
    struct grpc_name *name;         /* borrowed; RESOLVING: which */
    struct h2 *h2;                  /* owned; NULL: not connected */
    struct grpc_output output;
    struct list_node calls; /* with an attempt on it: call->place */
    uint32_t n_streams;     /* from submit to closed (U9, A3) */
    uint8_t state;          /* enum grpc_link_state */
    struct address address; /* in use */
    struct timer timer;
    uint64_t started_us, ready_us, read_us;
    uint64_t connect_deadline_us;
    uint64_t settings_us; /* ours were sent; 0: acknowledged (U6) */
    uint64_t pinged_us;   /* keepalive PING is out; 0: none */
    uint64_t probed_us;   /* idle probe is out; 0: none (K5) */
    uint64_t ping_number;
    uint64_t idle_us;      /* without calls since; 0: has some */
    uint64_t drain_us;     /* what is left is cut then */
    uint64_t age_us;       /* upstream_max_connection_age, as a time */
    uint64_t keepalive_us; /* in force: it may have been doubled (K4) */
    uint64_t controls, controls_us; /* bucket of §5.5 */
    uint64_t withheld;              /* connection credit kept back (FL3) */
    const char *doom;   /* static: why it ends at the next step; NULL: it does
                           not */
    uint8_t disconnect; /* 1 + enum grpc_disconnect, the first that was seen; 0:
                           none */
    bool spoke;         /* a byte has come from it */
    bool suspect;       /* a probe went unanswered: no new calls */
    bool retiring;      /* is drained as soon as another one is READY (U10) */
};

/* Its events of the border: grpc_link.c. */
extern const struct conn_class grpc_link_class;
void grpc_link_timeout(struct engine *e, struct grpc_link *l);

/* A stream of it is used from now on, or free again. Streams that are open when
 * the link is lost are not told of. */
void grpc_link_stream_opened(struct engine *e, struct grpc_link *l);
void grpc_link_stream_closed(struct engine *e, struct grpc_link *l);
/* Content that arrived on it is stored or dropped (FL1, FL2). */
void grpc_link_credit(struct engine *e, struct grpc_link *l, size_t n);
/* It takes no new calls, and closes when its calls have ended (K7). */
void grpc_link_drain(struct engine *e, struct grpc_link *l, const char *why);
/* "10.0.0.1:50051": for messages. Lives as long as the link has calls. */
const char *grpc_link_name(const struct grpc_link *l);
/* Of its endpoint: for call->last_endpoint (D2). */
uint32_t grpc_link_number(const struct grpc_link *l);
/* What its requests say as :authority with authority = auto (X2): the name of
 * the endpoint as configured, with its port unless that is 80 or 443. */
struct span grpc_link_authority(const struct grpc_link *l);

/* Memory of gRPC in one engine (FL3). */
struct grpc_memory_use {
    uint64_t log_bytes; /* kept only for replay (FL4) */
    uint64_t bytes;     /* logs, replies, output, held headers */
    uint64_t withheld;  /* connection credit kept back, of all connections */
    uint32_t calls;
};

/* More than this engine's share of memory_high is in use. */
bool grpc_memory_is_high(const struct engine *e);
/* n bytes of content that arrived on conn have been stored or dropped: give the
 * connection credit, or keep it back in *withheld while memory is short. It is
 * returned at the end of a step, once less than 90 % are in use. */
void grpc_credit(struct engine *e,
                 struct conn *conn,
                 struct h2 *h2,
                 uint64_t *withheld,
                 size_t n);
/* The session is given up: what is withheld is forgotten. */
void grpc_credit_fini(struct engine *e, uint64_t *withheld);
/* Called by grpc_channels_pump(). */
void grpc_credit_return(struct engine *e);

#endif
