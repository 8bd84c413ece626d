/* What a client keeps at the server besides its session: what it has said to
 * its own connection and what lives there. It is established again whenever
 * that connection is (redis.md §2, §6, §7). */
#ifndef CORE_LEDGER_H
#define CORE_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

#include "parser/span.h"
#include "proxy/core/buf.h"
#include "proxy/core/event.h"
#include "proxy/core/list.h"

struct block_log;
struct command;
struct downstream;
struct engine;
struct request;
struct subscriber;
struct upstream;

/* A command that is said again word by word: CLIENT NO-EVICT ON, CLIENT
 * TRACKING ON ... */
struct ledger_line {
    struct ledger_line *next; /* in the order in which they were said */
    const struct command *command;
    uint32_t len;
    uint8_t bytes[];
};

/* Of a client that has needed a connection of its own. */
struct ledger {
    struct downstream *owner;  /* borrowed */
    struct list_node wait;     /* in cluster->lane_waiters, if it waits */
    bool waits;                /* for a place among private_lanes_max */
    bool woken;                /* there is one */
    bool id_told;              /* it knows its lane by CLIENT ID */
    bool tracked;              /* the server knows what it has read there */
    bool is_told_for;          /* others redirect CLIENT TRACKING to it */
    bool redirects;            /* CLIENT TRACKING ... REDIRECT */
    bool waits_here;           /* WAIT is about what goes over its lane */
    uint64_t wait_until_us;    /* no longer than that */
    uint64_t told_id;          /* what CLIENT ID has answered last */
    uint64_t redirect_id;      /* what REDIRECT says at the server */
    conn_id redirect_to;       /* whose that is; 0: not known here */
    conn_id aims_at;           /* the same of the last CLIENT TRACKING */
    conn_id caching_conn;      /* where CLIENT CACHING was the last command */
    uint32_t lines_bytes;      /* of all lines */
    struct ledger_line *lines; /* owned */
    struct block_log *block;   /* owned; NULL: no block is open */
    struct subscriber *subscriber; /* owned; NULL: never subscribed */
    struct chain late;             /* pushes that wait for the end of a reply */
};

enum {
    LEDGER_LINES_BYTES_MAX = 64 * 1024
};

/* d's, made when it needs one; NULL without memory. */
struct ledger *ledger_get(struct engine *e, struct downstream *d);
/* d ends, or has said RESET: nothing of it is left at the server. */
void ledger_free(struct engine *e, struct downstream *d);

/* Whether something in it lives in the lane and cannot be had from another. */
bool ledger_holds_lane(const struct ledger *l);

/* r, a command that is kept word by word, was accepted. False: there is no room
 * (LEDGER_LINES_BYTES_MAX, memory): a new connection would not be the same. */
bool ledger_note(struct engine *e,
                 struct downstream *d,
                 const struct request *r);

/* u, its owner's lane, is connected and idle: say all that is in the ledger.
 * The replies come as STEP_LINE and so on. False: u is lost. */
bool ledger_establish(struct engine *e, struct upstream *u);

#endif
