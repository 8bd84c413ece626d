/* A model of Redis Cluster: nodes with a view of their own, slots that move key
 * by key, replicas that lag, failovers that lose what was not replicated. Each
 * node's data and connections are a struct server. */
#ifndef SIM_CLUSTER_MODEL_H
#define SIM_CLUSTER_MODEL_H

#include "tests/sim/server_data.h"

enum {
    NODES_MAX = 24,
    SERVERS_SHOWN = 64, /* of what the engine tells */
    CLUSTER_SLOTS = 16384,
    MOVES_MAX = 4,
    NOBODY = 255,
    NODE_PORT = 7000,
    FIXTURES = 24 /* keys that are there all the time and never written */
};

/* One effect on a primary's data, on its way to its replicas. */
struct effect {
    uint64_t at_us;
    uint32_t request;   /* NO_REQUEST: none, a key that moved */
    struct bytes words; /* the command */
};

struct node {
    struct server server; /* first: a server of a cluster is a node */
    unsigned index;
    char id[41];
    char hostname[32];
    struct address address;
    bool member;
    bool left;    /* it will not come back */
    bool old;     /* a version that knows no CLUSTER SHARDS */
    bool strict;  /* replica-serve-stale-data no */
    bool replica; /* by its own view */
    uint8_t master;
    bool doomed; /* somebody took its slots over and it does not know yet */
    uint64_t down_until;    /* it says CLUSTERDOWN */
    uint64_t hostile_until; /* it says nonsense */
    unsigned hostility;
    uint64_t scan_seed;
    uint32_t config_epoch;
    uint8_t owner[CLUSTER_SLOTS]; /* its view */
    uint32_t epoch[CLUSTER_SLOTS];
    struct effect *effects; /* owned: of a primary */
    size_t n_effects, effects_cap;
    size_t applied; /* of a replica: how many of its master's effects */
    uint64_t lag_us;
    uint64_t cut_since; /* its link to the master is down; 0: it is up */
};

/* A slot on its way from one node to another. */
struct move {
    bool active;
    bool taken; /* the new owner knows that it owns the slot */
    uint16_t slot;
    uint8_t from, to;
};

/* New owners of slots; each node hears of it at its own time. */
struct change {
    bool used;
    bool failover;
    uint8_t from, to;
    uint32_t epoch;
    bool unheard[NODES_MAX]; /* who has still to hear of it */
    uint8_t slots[CLUSTER_SLOTS / 8];
};

struct cluster_model {
    struct node *nodes[NODES_MAX]; /* owned */
    unsigned n_nodes;
    uint8_t owner[CLUSTER_SLOTS]; /* the truth */
    uint32_t epoch;
    struct move moves[MOVES_MAX];
    struct change *changes; /* owned */
    size_t n_changes;
    uint64_t upheavals; /* slots that changed their owner or place, so far */
    bool no_host, hostnames;
};

static inline struct node *node_of(const struct session *c)
{
    return (struct node *)c->server;
}

struct cluster_model *cluster_new(struct world *w);
void cluster_free(struct cluster_model *cl);

/* The nodes redial is configured with, "host:port,host:port". */
void cluster_seeds(struct world *w, char *text, size_t size);

/* --- one command ------------------------------------------------------- */

/* Redirect or refuse a command as a node does; false: it may run here. */
bool cluster_refuses(struct world *w,
                     struct session *c,
                     const struct model_command *m,
                     struct bytes *out);
/* CLUSTER, ROLE, INFO, READONLY and others that have no keys; false for any
 * other command. */
bool cluster_command(struct world *w,
                     struct session *c,
                     const struct model_command *m,
                     struct bytes *out);
/* A command has changed the data of that node. */
void cluster_wrote(struct world *w,
                   struct session *c,
                   uint32_t request,
                   struct span words);
/* Whether what runs there is lost already. */
static inline bool node_is_doomed(const struct node *n)
{
    return n->doomed;
}

/* Let a replica's data be as old as its lag says. */
void replica_catch_up(struct world *w, struct node *n);

/* --- what happens in it (cluster_faults.c) ------------------------------ */

void cluster_strike(struct world *w);
void cluster_wake(struct world *w, struct node *n, uint64_t number);
/* A node died: somebody may take over. */
void cluster_killed(struct world *w, struct node *n);
void cluster_heal(struct world *w);

/* --- pieces of it ------------------------------------------------------- */

/* The keys of a command the model knows, as argument numbers. */
unsigned model_keys(const struct model_command *m, uint8_t *index);
void view_set(struct node *n, uint16_t slot, uint8_t owner, uint32_t epoch);
/* Who is n's replica, by its own view. */
static inline bool replicates(const struct node *r, const struct node *n)
{
    return r->member && r->replica && r->master == n->index;
}
void effect_add(struct world *w,
                struct node *n,
                uint32_t request,
                struct span words);
/* A replica gets all there is. */
void replica_sync(struct world *w, struct node *n);
/* Become a replica of another with all its data. */
void node_follow(struct world *w, struct node *n, struct node *master);
/* Become a primary with the data it has; the rest of its master's is lost. */
void node_promote(struct world *w, struct node *n);
struct move *move_of(struct cluster_model *cl, unsigned slot);
/* Move a key with its value; a primary's replicas have it at once, as with
 * WAIT: no failover loses what was moved. */
void key_move(struct world *w,
              struct node *from,
              struct node *to,
              struct value *v);
uint16_t model_slot(struct span key);
/* As it is said in MOVED and by CLUSTER: host, or nothing. */
const char *node_host(const struct cluster_model *cl, const struct node *n);

/* cluster_faults.c: all nodes know the same, and no slot is moving. */
bool cluster_is_quiet(const struct cluster_model *cl);

#endif
