/* A shell around an engine with three cluster nodes that are scripted: they
 * know their slots, count what they execute, and fail when told to. */
#ifndef UNIT_GATHER_DRIVER_H
#define UNIT_GATHER_DRIVER_H

#include "config/config.h"
#include "failing_allocator.h"
#include "proxy/core/engine.h"
#include "tests/sim/bytes.h"

enum {
    NODES = 3,
    LINKS_MAX = 64,
    KEYS_MAX = 64, /* "k0" to "k63" */
    BIG_BYTES = 20000,
};

/* One connection of redial to a node. */
struct link {
    conn_id id;
    int node;
    bool open;
    bool asking;
    bool used;            /* a client's command arrived */
    struct bytes written; /* by redial, not taken by its kernel */
    struct bytes taken;   /* not looked at by the node */
    struct bytes replies; /* not read by redial */
};

struct world {
    struct failing memory;
    size_t fail_at; /* which allocation fails, from 1 on; 0: none */
    bool fail_on;   /* and all behind it */
    bool starving;
    void *segments; /* taken from the engine's free lists */
    void *requests;
    struct config *config;
    struct engine *engine;
    uint64_t now_us;
    struct link links[LINKS_MAX];
    size_t n_links;
    conn_id client;   /* 0: none */
    struct bytes got; /* by the client */

    int slot_moved; /* 1 + slot that another node owns than the map says */
    int moved_to;
    bool moves; /* that slot is on its way: ASK instead of MOVED */

    int error_node;       /* the node that answers an error; -1: none */
    unsigned errors;      /* so many times */
    unsigned error_after; /* so many commands of clients */
    const char *error;

    int cut_node;        /* whose connection breaks; -1: none */
    size_t cut_after;    /* after so many bytes were taken */
    size_t cut_replies;  /* and so many replies were read */
    size_t cut_executed; /* commands that node has executed by then */
    size_t cut_bytes;    /* that were written in all */

    size_t slice;  /* redial reads so many bytes at once; 0: all */
    int deaf_node; /* takes nothing; -1: none */
    unsigned executed[KEYS_MAX]; /* writes of each key */
    unsigned flushed[NODES];     /* commands for all nodes */
};

/* file NULL: nothing but the nodes is configured. False without memory. */
bool world_open(struct world *w, const char *more);
/* Fails the test when anything is left. */
void world_close(struct world *w);

/* The client comes; leaves; says words between spaces. */
void world_client(struct world *w);
void world_leave(struct world *w);
void world_say(struct world *w, const char *words);
/* Let everything happen that needs no time, or that happens in that time. */
void world_run(struct world *w);
void world_pass(struct world *w, uint64_t us);

/* What the client has got, as text. */
const char *world_got(struct world *w);
void world_forget(struct world *w);

/* Numbers of the upstream. */
struct upstream_stats world_stats(const struct world *w);

/* The node that owns a key by the map. */
int node_of(const char *key);
uint16_t slot_of(const char *key);

#endif
