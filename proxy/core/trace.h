/* What happened, for people: the core hands records to a tracer, the shell
 * turns them into log lines and /events. Keys and values never appear. */
#ifndef CORE_TRACE_H
#define CORE_TRACE_H

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
};

/* Receives every record. emit may be NULL: nobody listens. */
struct tracer {
    void (*emit)(void *context, const struct trace_record *record);
    void *context;
};

const char *trace_type_name(enum trace_type type);

#endif
