/* What happened, for people: the core hands records to a tracer, the shell
 * turns them into log lines and /events. Keys and values, metadata and messages
 * never appear. */
#ifndef CORE_TRACE_H
#define CORE_TRACE_H

#include "parser/span.h"
#include "proxy/core/event.h"

enum trace_type {
    TRACE_LANE,    /* a server connection changed its state: from, to, reason */
    TRACE_RETRY,   /* a request will be tried again: reason, attempt, delay */
    TRACE_GIVE_UP, /* a request was answered with an error of redial's own */
    TRACE_CLIENT,  /* a client connection was closed by redial: reason */
    TRACE_UPSTREAM, /* an upstream became reachable or unreachable */
    TRACE_LIMIT,    /* a named limit was reached: reason is its name */
    TRACE_DRAIN,    /* draining began or ended */
    TRACE_TOPOLOGY, /* a node came, went or changed its role; the map of slots
                       changed; an address was refused: from, to, reason */
    TRACE_PUBSUB, /* a client's subscriptions lost their connection (to: gap, or
                     closed), or have it again */

    TRACE_COMMANDS, /* what a server told of its commands: to, reason */

    /* gRPC (grpc.md §6.2); made by grpc_trace.c. */
    TRACE_CALL_DONE,      /* a call has its status */
    TRACE_ATTEMPT_DONE,   /* one attempt of it has ended */
    TRACE_CALL_COMMITTED, /* no retry can follow: reason */
    TRACE_CONNECT_FAILED, /* to an endpoint */
    TRACE_CONNECTION_READY,
    TRACE_CONNECTION_LOST,
    TRACE_GOAWAY_RECEIVED,
    TRACE_KEEPALIVE_DOUBLED,
    TRACE_ENDPOINT_REMOVED, /* no name gives it any more */
    TRACE_RESOLVE_FAILED,
    TRACE_THROTTLE_CLOSED,
    TRACE_THROTTLE_OPENED,
    TRACE_ABUSE, /* a client was closed for what it did: reason */
    TRACE_BAD_PREFACE,
    TRACE_WRITE_STALLED,
    TRACE_TYPE_COUNT
};

/* Text fields are borrowed for the call; NULL or 0 where they say nothing. */
struct trace_record {
    enum trace_type type;
    uint64_t now_us;
    const char *upstream;          /* section name */
    const char *listener;          /* section name */
    const struct address *address; /* of the server */
    conn_id client;
    conn_id lane;
    const char *command; /* name only */
    const char *class;
    const char *outcome; /* not_sent, not_applied, ambiguous */
    const char *verdict; /* retry_now, give_up_deadline, ... */
    const char *from;    /* states */
    const char *to;
    const char *reason; /* in words; text from peers is already escaped */
    unsigned attempt;
    uint64_t delay_us;   /* until the next attempt */
    uint64_t elapsed_us; /* since the request arrived */

    /* Of gRPC. Spans are what a peer has sent, byte for byte: the shell escapes
     * and cuts them. */
    struct span method;      /* "/pkg.Svc/Method" */
    struct span said;        /* by a peer: debug data of a GOAWAY */
    const char *status;      /* "UNAVAILABLE" */
    const char *h2_error;    /* "REFUSED_STREAM" */
    const char *pushback;    /* milliseconds, or "no" */
    unsigned unsent;         /* attempts that cost nothing: F1 */
    unsigned refused;        /* F2 */
    uint32_t stream;         /* of the client's connection */
    const char *last_stream; /* that an endpoint's GOAWAY lets go on */
    bool debug;              /* one of very many: only while debugging */
};

/* Receives every record. emit may be NULL: nobody listens. */
struct tracer {
    void (*emit)(void *context, const struct trace_record *record);
    void *context;
    bool debug; /* records that are made for each call are wanted, too */
};

const char *trace_type_name(enum trace_type type);

#endif
