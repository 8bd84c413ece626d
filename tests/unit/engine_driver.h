/* A scripted shell around an engine: a network without faults but those that
 * are asked for, a server that shakes hands and answers, and clients that know
 * which replies are due. Its memory fails when told to. Whatever breaks a
 * promise fails the test at once. */
#ifndef UNIT_ENGINE_DRIVER_H
#define UNIT_ENGINE_DRIVER_H

#include "config/config.h"
#include "failing_allocator.h"
#include "proxy/core/engine.h"
#include "tests/sim/bytes.h"

enum {
    ASKS_MAX = 32,
    ASK_ARGS_MAX = 4,
    PEERS_MAX = 64,
    NAME_MAX_BYTES = 32,
    CHANNELS_MAX = 8,
};

/* One command of a client. */
struct ask {
    struct bytes raw; /* multibulk; no two are the same in one play */
    struct span argv[ASK_ARGS_MAX];
    size_t argc;
    unsigned executed;  /* by the server, so far */
    bool denied;        /* answered -NOTAPPLIED */
    bool queued;        /* answered +QUEUED */
    unsigned confirmed; /* of its channels */
};

/* What the server, or a client, believes the connection to be. */
struct identity {
    char user[NAME_MAX_BYTES];
    unsigned db;
    unsigned resp;
    bool multi;
    bool watch_failed;           /* a WATCH was given up */
    bool block_failed;           /* a command of the block was refused */
    struct ask *block[ASKS_MAX]; /* queued */
    size_t n_block;
    char channels[CHANNELS_MAX][NAME_MAX_BYTES]; /* subscribed to */
    size_t n_channels;
};

/* One connection, of a client or to the server. */
struct peer {
    conn_id id;
    bool client;
    bool open;
    bool connected;
    struct identity identity;
    struct bytes unread;   /* written by the engine, not yet looked at */
    uint64_t untaken;      /* written by the engine, not yet told as taken */
    struct bytes arriving; /* not yet read by the engine */
    bool paused;
    struct ask asks[ASKS_MAX]; /* of a client */
    size_t n_asks;
    size_t n_answers;
    size_t n_messages; /* that were published */
};

/* A free request that the engine shall not have. */
struct starved {
    struct starved *next;
};

struct driver {
    struct failing memory;
    size_t fail_at;           /* which allocation fails, from 1 on; 0: none */
    bool fail_on;             /* and all behind it */
    bool starving;            /* every allocation fails, and does not count */
    struct segment *segments; /* taken from the engine's free list */
    struct starved *requests; /* the same */
    struct engine *engine;
    uint64_t now_us;
    struct peer *peers[PEERS_MAX]; /* owned */
    size_t n_peers;
    size_t slice;   /* bytes the engine is given at once; 0: all */
    bool blocks;    /* they lie in whole read blocks */
    unsigned spare; /* segments left in the engine's free list at each step */
    uint64_t clients_id; /* of server connections, so far */

    bool down;  /* the server refuses connections */
    bool mute;  /* it executes, but its replies do not arrive */
    bool brief; /* only reply_bytes more of them arrive */
    size_t reply_bytes;
    bool deaf;               /* nothing it is sent leaves our kernel */
    bool slow;               /* clients take nothing */
    bool switched;           /* sentinels name another primary */
    bool knows_script;       /* the one script there is */
    bool waits;              /* XREAD is not answered */
    bool push;               /* a sentinel will tell of a promotion, once */
    unsigned refuse_writes;  /* the next commands are answered -READONLY */
    unsigned refuse;         /* the next commands are answered -LOADING */
    unsigned refuse_session; /* the next AUTH or SELECT are refused */
};

/* Start an engine. False when it had no memory. */
bool driver_open(struct driver *d, const struct config *config);
/* Free everything; fails the test when anything is left. */
void driver_close(struct driver *d);
/* Free what is the driver's own, after a failure. */
void driver_forget(struct driver *d);

/* A client connects; NULL when it is refused, or memory is short. */
struct peer *driver_client(struct driver *d);
/* A client sends a command of words between spaces. c may be NULL or closed:
 * then nothing happens. Nothing is answered before driver_run(). */
void driver_say(struct driver *d, struct peer *c, const char *words);
/* The same, as people type it. */
void driver_type(struct driver *d, struct peer *c, const char *words);
/* The same with a last word of size bytes. */
void driver_say_large(struct driver *d,
                      struct peer *c,
                      const char *words,
                      size_t size);

/* Let everything happen that needs no time, or that happens in that time. */
void driver_run(struct driver *d);
void driver_pass(struct driver *d, uint64_t us);

/* Every connection to the server breaks. */
void driver_cut(struct driver *d, enum io_error error);
/* The client sends no more, or goes away. */
void driver_end(struct driver *d, struct peer *c);
void driver_leave(struct driver *d, struct peer *c);
void driver_drain(struct driver *d);

/* Every client that is still connected has all its replies. */
void driver_check_answered(const struct driver *d);

#endif
