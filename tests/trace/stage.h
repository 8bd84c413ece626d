/* The stage on which a trace is played: an engine, its clients (c1, c2, ...)
 * and its server connections: A1, A2, ... to the scripted server A, and u1, u2,
 * ... to others, in the order of its asking. */
#ifndef TRACE_STAGE_H
#define TRACE_STAGE_H

#include "config/config.h"
#include "proxy/core/engine.h"
#include "tests/sim/bytes.h"
#include "tests/trace/grpc_peer.h"
#include "tests/trace/servers.h"

enum {
    PLAYERS_MAX = 64,
    PENDING_MAX = 256
};

struct player {
    char side; /* 'c', 'u', or the letter of a scripted server; 0: a place to
                  be used again */
    unsigned number;
    conn_id id;
    bool open;
    bool connecting;        /* asked for, not yet connected */
    bool holds;             /* the kernel takes nothing of what is written */
    struct bytes written;   /* by the engine, not yet expected by a line */
    uint64_t untaken;       /* written, not yet taken by the kernel */
    struct grpc_peer *peer; /* owned: it speaks HTTP/2; else NULL */

    /* Of a connection to a scripted server: */
    bool up;       /* the handshake's PING was answered */
    bool greeted;  /* it has come */
    bool in_multi; /* MULTI was the last to be said of MULTI, EXEC, DISCARD */
    int resp;      /* as HELLO said */
    struct bytes unread;    /* written by the engine, not yet looked at */
    uint8_t owed[OWED_MAX]; /* enum owed, in order, n_owed */
    size_t n_owed;
};

/* Something the engine did, other than writing. */
struct pending {
    struct player *player;
    enum action_type type;
    char address[ADDRESS_TEXT_MAX];
};

struct stage {
    struct engine *engine;
    struct servers *servers; /* borrowed */
    bool serving;            /* the scripted servers are at it */
    uint64_t now_us;
    struct player players[PLAYERS_MAX];
    size_t n_players;
    struct pending pending[PENDING_MAX];
    size_t n_pending;
    bool split;                  /* deliver every byte on its own */
    long blocks;                 /* of memory the engine holds */
    struct h2_memory *h2_memory; /* owned: of the peers; NULL: none yet */
    char error[256]; /* why the play cannot go on; empty while it can */
};

/* Start the engine and collect what it wants at once. */
bool stage_open(struct stage *s,
                const struct config *config,
                struct servers *servers,
                bool split);
/* Free everything; false, with s->error, when the engine leaked. */
bool stage_close(struct stage *s);

/* Let time pass up to a moment; stops early, and returns true, as soon as the
 * engine does something. */
bool stage_advance(struct stage *s, uint64_t until_us);

/* Number 0: the newest one that is open, else the newest. */
struct player *stage_find(struct stage *s, char side, unsigned number);
/* A client connects. */
struct player *stage_connect(struct stage *s,
                             unsigned number,
                             unsigned listener);

/* Give the engine one event of a player; the rest of the event is the
 * caller's. */
void stage_step(struct stage *s, struct event event);
void stage_bytes(struct stage *s, struct player *p, struct span bytes);
void stage_taken(struct stage *s, struct player *p, uint64_t count);

/* Let the scripted servers do what they have to do. */
void stage_serve(struct stage *s);

/* Take the first pending action of that kind off the list. */
bool stage_take(struct stage *s,
                const struct player *p,
                enum action_type type,
                char address[ADDRESS_TEXT_MAX]);

/* Describe what the engine did and no line has expected; false when nothing. */
bool stage_unexpected(struct stage *s, struct bytes *text);
/* Write bytes readably. */
void text_escape(struct bytes *out, struct span raw);

#endif
