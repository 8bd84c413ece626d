/* A model world around one engine: virtual time, a network, a Redis server,
 * clients, and what goes wrong between them. All from one seed. */
#ifndef SIM_WORLD_H
#define SIM_WORLD_H

#include "config/config.h"
#include "proxy/core/engine.h"
#include "proxy/core/grpc_stats.h"
#include "proxy/core/rng.h"
#include "tests/sim/bytes.h"

enum fault {
    FAULT_REFUSE,    /* a connection attempt is refused */
    FAULT_SYN_LOST,  /* ... is never answered */
    FAULT_DNS,       /* a name does not resolve */
    FAULT_RESET_OUT, /* reset after k bytes towards the server */
    FAULT_RESET_IN,  /* reset after k bytes towards redial: k = 0 is "after
                           execution, before the reply" */
    FAULT_HOLE_OUT,  /* bytes towards the server get stuck for a while */
    FAULT_HOLE_IN,   /* bytes towards redial do */
    FAULT_HOLE_BOTH,
    FAULT_HALF_CLOSE,  /* the server's FIN arrives, the rest is lost */
    FAULT_SLICES,      /* 1..n bytes at a time */
    FAULT_SHORT_WRITE, /* the kernel takes a part */
    FAULT_SLOW_READER, /* a client takes its replies slowly */
    FAULT_LEAVER,      /* a client goes in the middle of things */
    FAULT_KILL,        /* the server dies and comes back */
    FAULT_STOP,        /* the server is stopped and continued: SIGSTOP */
    FAULT_CLIENT_KILL, /* the server closes one connection */
    FAULT_LOADING,
    FAULT_READONLY,
    FAULT_NO_FENCE, /* the user may not CLIENT KILL */
    FAULT_MEMORY,   /* allocations fail */
    FAULT_DRAIN,    /* redial is told to finish early */
    /* of a cluster */
    FAULT_MIGRATE,    /* a slot moves, key by key */
    FAULT_FAILOVER,   /* a replica takes over; what it had not got is lost */
    FAULT_GRACEFUL,   /* CLUSTER FAILOVER: nothing is lost */
    FAULT_SPLIT_VIEW, /* a node hears of a change late */
    FAULT_JOIN,       /* a node joins and gets slots */
    FAULT_LEAVE,      /* a node goes, its slots before it */
    FAULT_DOWN,       /* a node says CLUSTERDOWN, or knows no owner of a slot */
    FAULT_NO_HOST,    /* nodes do not say their host */
    FAULT_HOSTNAMES,  /* nodes say names */
    FAULT_HOSTILE,    /* a node says nonsense instead of answering */
    FAULT_COUNT
};

const char *fault_name(enum fault fault);

enum {
    LINKS_INDEX_MAX = 1 << 16,
    RECORDS_KEPT = 50,
    KEPT_BYTES = 400,
    UNREAD_MAX = 64 * 1024, /* what a stopped peer's kernel keeps for it */
    SETS_MAX = 64
};

/* What happened, for the report of a failure. */
struct record {
    uint64_t now_us;
    const char *what;
    char who[16];
    uint64_t number;
    uint32_t size;
    uint16_t kept; /* bytes kept of data */
    uint8_t data[KEPT_BYTES];
};

/* One direction of a connection: what the kernel has and the other end has not
 * got yet. */
struct pipe {
    struct bytes data;
    uint64_t delivered;
    uint64_t cut_at; /* reset after so many bytes */
    uint64_t stuck_until;
    uint64_t stuck_since;
    bool scheduled;
    bool fin; /* the end of stream stands behind data */
};

struct attempt_mark {
    uint64_t end; /* offset behind the command's last byte */
    uint32_t request;
};

/* A connection of the engine: to a client or to the server. */
struct link {
    conn_id id;
    bool upstream;
    unsigned number;  /* of its kind, for the report */
    bool engine_open; /* the engine may hear of it */
    bool connected;
    bool syn_lost;  /* of the attempt to connect; never answered by itself */
    bool peer_open; /* the model at the other end may */
    bool paused;    /* the engine does not want to read */
    uint64_t closed_turn; /* when the engine heard that it is gone */
    bool dirty;           /* has bytes the kernel was not offered yet */
    bool closing;         /* the engine's CLOSED event is on its way */
    struct bytes queue; /* written by the engine, not yet taken by the kernel */
    struct pipe out;    /* from the engine */
    struct pipe in;     /* to the engine */
    uint64_t kernel_room;
    uint64_t last_client; /* whose request the server answered last */
    struct host *host;    /* of gRPC: where it leads; borrowed */
    void *end; /* of gRPC: the port or caller at the other end; borrowed */
    struct server *server;   /* where it leads; borrowed */
    struct session *session; /* the server's side; borrowed */
    struct client *client;   /* or the client's; borrowed */

    /* The commands the engine wrote here, for I9 and I10. */
    struct bytes said;
    uint64_t said_offset;  /* of the first byte of said */
    uint64_t taken_offset; /* what the kernel has taken in all */
    struct attempt_mark *marks;
    size_t n_marks, marks_cap, marks_at;

    struct news *news; /* owned: messages the server has sent here */
    size_t n_news, news_cap, news_at;
    uint64_t heard_turn; /* when the engine heard that its peer is gone */
};

enum wake {
    WAKE_CONNECT, /* a connection attempt ends */
    WAKE_RESOLVE,
    WAKE_OUT,      /* deliver from the engine */
    WAKE_IN,       /* deliver to the engine */
    WAKE_CLOSED,   /* the engine hears that a connection is gone */
    WAKE_CLIENT,   /* a client acts */
    WAKE_READ,     /* a slow client reads */
    WAKE_FAULT,    /* something may go wrong */
    WAKE_CONTINUE, /* the server is continued */
    WAKE_RESTART,  /* the server starts again */
    WAKE_UNBLOCK,  /* a BLPOP ends */
    WAKE_MEMORY,   /* allocations work again */
    WAKE_CLUSTER,  /* something happens inside the cluster */
    WAKE_OUTSIDE,  /* somebody speaks to a server directly */
    WAKE_GRPC,     /* something of the gRPC model; number says what */
};

struct sleeper {
    uint64_t at_us;
    uint64_t order; /* ties are broken by age */
    enum wake why;
    void *who;
    uint64_t number;
};

/* What happened to a cluster and what redial was told about it. */
struct cluster_counts {
    uint64_t moved, ask, tryagain, down, masterdown, hostile;
    uint64_t unasked;    /* MOVED from a node a slot is on its way to */
    uint64_t asked;      /* commands served behind ASKING */
    uint64_t failovers;  /* of both kinds */
    uint64_t migrations; /* slots that moved key by key */
    uint64_t lost;       /* acknowledged writes a failover lost */
    uint64_t split;      /* requests over several slots */
    uint64_t from_replica;
    uint64_t scanned; /* SCAN loops that were checked at their end */
};

/* What clients did with what lives in a connection. */
struct state_counts {
    uint64_t blocks;   /* transactions that ran */
    uint64_t null;     /* EXEC that was null */
    uint64_t rebuilt;  /* queued commands that were sent again */
    uint64_t messages; /* that were delivered */
    uint64_t waits;    /* commands that had to wait */
    uint64_t served;   /* ... and were served */
    uint64_t gone;     /* of these, to a client that was gone */
    uint64_t invalidations, flushes;
    uint64_t resets;
};

/* How calls of gRPC ended. */
struct call_counts {
    uint64_t outcome[GRPC_CLASS_COUNT]; /* of attempts */
    uint64_t reason[GRPC_REASON_COUNT]; /* why there was no other */
    uint64_t held[GRPC_HELD_RESULTS];
    uint64_t overflow; /* logs that became too long */
};

struct world;
struct host;
struct grpc_world;
struct run_options;
struct run_result;

/* What stands at the other ends of the network. */
struct model {
    /* Draw the settings, load the config, make the servers. False: what was
     * drawn is no valid config. */
    bool (*open)(struct world *w, const struct run_options *options);
    void (*begin)(struct world *w); /* the engine runs: make the clients */
    void (*play)(struct world *w);
    void (*sum)(struct world *w, struct run_result *result);
    void (*close)(struct world *w); /* the engine is gone */
    void (*tick)(struct world *w);  /* something may go wrong */
    void (*wake)(struct world *w, const struct sleeper *s);
    void (*heal)(struct world *w);
    void (*check_limits)(struct world *w);

    /* Connections of the engine to a server. */
    void (*find)(struct world *w,
                 struct link *l,
                 const struct address *address);
    bool (*listens)(const struct link *l);
    /* Where it listens: numeric. Returns how many, 0: there is no such name. */
    size_t (*addresses)(struct world *w,
                        const struct link *l,
                        struct address *list,
                        size_t max);
    void (*accept)(struct world *w, struct link *l);

    /* All connections. */
    void (*receive)(struct world *w, struct link *l, struct span bytes);
    /* The engine's end of stream has arrived behind its bytes, or a reset:
     * then what was not read yet is lost. */
    void (*hangup)(struct world *w, struct link *l, bool reset);
    bool (*full)(const struct link *l); /* reads nothing more for now */
    /* The engine has written, the kernel has taken. */
    void (*wrote)(struct world *w, struct link *l, struct span fresh);
    void (*taken)(struct world *w, struct link *l);
    /* Bytes are about to be handed to the engine: before that is noted, and
     * after. */
    void (*arriving)(struct world *w, struct link *l);
    void (*arrives)(struct world *w, struct link *l, size_t n);
    void (*dropped)(struct link *l); /* the engine has closed it */
};
extern const struct model redis_model, grpc_model;

/* What was drawn for this seed. */
struct settings {
    uint64_t requests;
    uint32_t rate[FAULT_COUNT]; /* per ten thousand; 0: never */
    unsigned clients;
    unsigned depth_max;
    uint64_t latency_us;
    uint64_t think_us;
    bool big_values;
    bool sessions; /* clients use AUTH, HELLO and SELECT */
    bool transactions;
    bool stateful;   /* clients use all that lives in a connection */
    bool newer;      /* servers are 7.2, else 7.0 */
    bool frozen_ids; /* XREAD with "$" */
    uint32_t habits; /* set of enum habit */
    bool own_auth;   /* redial has the credentials */
    bool password;   /* the server wants a password */
    bool by_name;
    bool lazy_drain;  /* several events before the actions are taken */
    bool never_reads; /* one client never reads */
    bool cluster;
    unsigned primaries, replicas; /* of each primary at most */
    bool reads_replicas;          /* redial may read from replicas */
    bool replica_each;            /* each primary has one at least */
    bool splits;                  /* several keys in several slots */
    bool scans;                   /* clients walk over all keys */
    char *drawn[SETS_MAX];        /* "upstream.retries=3"; owned */
    size_t n_drawn;
};

struct world {
    const struct model *model;
    struct grpc_world *grpc; /* of grpc_model */
    uint64_t seed;
    uint64_t now_us;
    uint64_t begin_us;
    struct rng rng;
    struct settings settings;
    struct config *config;
    const struct upstream_config *upstream;
    const struct listener_config *listener;
    struct engine *engine;
    struct sleeper *heap;
    size_t n_heap, heap_cap;
    uint64_t order;
    struct link **links; /* owned, every one of the run */
    size_t n_links, links_cap;
    struct link *by_index[LINKS_INDEX_MAX];
    struct link **dirty; /* borrowed */
    size_t n_dirty, dirty_cap;
    unsigned upstream_links, client_links;
    struct buf *block; /* what reads are packed into */

    struct server *server;         /* of a cluster: the first */
    struct cluster_model *cluster; /* NULL: one server */
    struct cluster_counts counts;
    struct history *history;
    struct client **clients; /* owned: present ones */
    unsigned n_clients;
    struct client **retired; /* owned: those before them */
    size_t n_retired;
    struct block *multis; /* owned: transactions */
    uint32_t n_multis, multis_cap;
    struct link **link_of_client; /* owned: by the client's id */
    size_t links_of_clients;
    uint64_t published; /* messages, so far */
    uint64_t outside;   /* texts of those who speak to servers directly */
    struct state_counts state;
    uint64_t next_client;
    uint64_t sent; /* requests made */
    bool healed;
    uint64_t healed_us;
    bool draining;
    bool finished; /* clients make no new requests */
    bool at_rest;  /* nor does anybody else change anything */

    long blocks; /* allocations the engine holds */
    size_t memory_bytes, memory_peak;
    bool memory_fails;
    bool memory_failed; /* once, in this run */

    uint64_t fired[FAULT_COUNT];
    uint64_t turn; /* drains so far */
    bool offered;
    uint64_t still; /* events since time last moved */
    uint64_t hash;
    uint64_t events;
    bool trace;
    struct record records[RECORDS_KEPT];
    uint64_t n_records;
    char violation[512]; /* the first invariant broken; empty while none is */
};

/* Note what happened: it becomes part of the hash. */
void world_note(struct world *w,
                const char *what,
                const struct link *l,
                uint64_t number,
                struct span data);

/* Only print it, with --trace. */
void world_tell(const struct world *w,
                const char *what,
                uint64_t number,
                struct span data);

/* An invariant is broken. Only the first is kept. */
void world_violate(struct world *w, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static inline bool world_broken(const struct world *w)
{
    return w->violation[0] != '\0';
}

/* Random choices. */
uint64_t pick(struct world *w, uint64_t low, uint64_t high);
bool chance(struct world *w, uint64_t in, uint64_t of);
/* Whether a fault happens now; counts it. Never after the healing. */
bool strikes(struct world *w, enum fault fault);

void world_wake(struct world *w,
                uint64_t after_us,
                enum wake why,
                void *who,
                uint64_t number);

/* The server at an address or with that name; NULL: nobody is there. */
struct server *world_server(struct world *w, const struct address *address);
/* Where a server listens: numeric. */
void world_address(struct world *w,
                   const struct server *s,
                   struct address *address);

/* Let the engine hear of something. */
void world_step(struct world *w, struct event event);
/* Do what the engine wants. */
void world_drain(struct world *w);
/* Let the next thing happen, or the engine's timeout, unless that is later
 * than until_us. False: it is later, or an invariant is broken. */
bool world_turn(struct world *w, uint64_t until_us);
/* Load what was drawn; false: it is not valid. */
bool world_load(struct world *w, const char *url);
/* From now on nothing goes wrong any more. */
void world_heal(struct world *w);
/* Tell the engine to finish. */
void world_finish(struct world *w);

/* What a run was. */
struct run_result {
    uint64_t hash;
    uint64_t events;
    uint64_t requests;
    uint64_t answered;
    uint64_t not_applied;
    uint64_t unknown;
    uint64_t refused; /* errors of the server */
    uint64_t lost;    /* requests whose client connection ended first */
    uint64_t replays;
    uint64_t virtual_us;
    size_t memory_peak;
    uint64_t fired[FAULT_COUNT];
    bool cluster;
    struct cluster_counts counts;
    bool stateful;
    struct state_counts state;
    bool grpc;
    struct call_counts calls;
    bool broken;
};

struct run_options {
    uint64_t seed;
    uint64_t requests;
    uint32_t faults; /* set of 1 << enum fault */
    uint32_t habits; /* set of enum habit: what clients may have */
    bool trace;
    bool quiet;
    bool cluster;  /* else a single server */
    bool stateful; /* clients subscribe, block, watch, track */
    bool grpc;     /* else Redis */
};

/* Play one seed. A failure is reported on standard error. */
struct run_result world_run(const struct run_options *options);

/* net.c */
void net_action(struct world *w, struct action *action);
void net_offer(struct world *w);
void net_wake(struct world *w, const struct sleeper *s);
void net_strike(struct world *w);
void net_heal(struct world *w);
struct link *net_accept(struct world *w, struct client *client);
void link_send(struct world *w, struct link *l, const void *data, size_t size);
/* The other end goes: after what it has sent (FIN) or at once (RST). */
void link_end(struct world *w, struct link *l, bool reset);
/* Offer the bytes behind a stop again: room was made, or the engine resumed. */
void link_pump(struct world *w, struct link *l);
void link_free(struct link *l);

/* settings.c */
void settings_draw(struct world *w, const struct run_options *options);
/* Draw "key=value"; returns number. */
void settings_set_text(struct world *w, const char *key, const char *value);
uint64_t settings_set(struct world *w,
                      const char *key,
                      uint64_t number,
                      const char *unit);
void settings_free(struct settings *s);

#endif
