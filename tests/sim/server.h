/* A model of redis-server: strict, single-threaded, loses nothing it executed
 * (as with appendfsync always). */
#ifndef SIM_SERVER_H
#define SIM_SERVER_H

#include "tests/sim/history.h"
#include "tests/sim/resp_model.h"

enum {
    SERVER_DBS = 16,
    SERVER_USERS = 3,
    QUEUED_MAX = 64,
    WATCHED_MAX = 16,
    NAME_MAX = 40
};

/* Index 0 is the user default. */
extern const char *const server_users[SERVER_USERS];
extern const char *const server_passwords[SERVER_USERS];

struct watched {
    struct value *value; /* borrowed */
    uint64_t version;
    uint32_t request; /* the WATCH, or NO_REQUEST */
};

enum sub_kind {
    SUB_CHANNEL,
    SUB_PATTERN,
    SUB_SHARD,
    SUB_KINDS
};

struct subscription {
    enum sub_kind kind;
    char name[NAME_MAX];
};

/* A key that a connection with CLIENT TRACKING has read. */
struct tracked_key {
    struct value *value; /* borrowed */
    uint64_t version;
};

/* One connection as the server sees it. */
struct session {
    struct session *next;
    struct server *server; /* borrowed */
    struct link *link;     /* borrowed; NULL when the connection is gone */
    uint64_t id;
    bool dead;
    bool ended; /* the end of stream stands behind in */
    bool authenticated;
    struct ledger ledger;
    struct bytes in;
    bool in_multi, multi_failed, close_after;
    struct bytes queued; /* commands, one behind the other */
    unsigned n_queued;
    struct watched watched[WATCHED_MAX];
    unsigned n_watched;
    struct subscription *subs; /* owned, in the order they were made */
    size_t n_subs, subs_cap;
    struct tracked_key *tracked; /* owned */
    size_t n_tracked, tracked_cap;
    char name[NAME_MAX];
    bool blocked;
    uint64_t blocked_turn; /* which wait the wake is for; the older the lower */
    uint32_t blocked_request;
    struct bytes blocked_words; /* the command it waits with */
    bool readonly, asking;      /* of a cluster */
    uint64_t last_client;       /* whose request it served last; 0: nobody's */
};

struct server;

struct server *server_new(struct world *w);
void server_init(struct server *s, struct world *w);
void server_fini(struct server *s);
void server_free(struct server *s);
bool server_up(const struct server *s);
bool server_stopped(const struct server *s);

void server_accept(struct world *w, struct server *s, struct link *l);
/* Bytes of a connection have arrived. */
void server_receive(struct world *w, struct link *l, struct span bytes);
/* The engine's end of stream has arrived behind its bytes, or a reset: then
 * what was not read yet is lost. */
void server_hangup(struct world *w, struct link *l, bool reset);

void server_kill(struct world *w, struct server *s, uint64_t down_us);
void server_restart(struct world *w, struct server *s);
void server_stop(struct world *w, struct server *s, uint64_t us);
/* End that stop; an older one has ended before. */
void server_continue(struct world *w, struct server *s, uint64_t stop);
void server_load(struct world *w, struct server *s, uint64_t us);
void server_readonly(struct world *w, struct server *s, uint64_t us);
void server_kick(struct world *w, struct server *s);
void server_unblock(struct world *w, struct session *c, uint64_t turn);
/* Every command that waits there ends with that error; slot: of keys of that
 * slot only, or -1. UNBLOCKED also ends the connection. */
void server_force_unblock(struct world *w,
                          struct server *s,
                          int slot,
                          const char *error);
/* What others did to the data directly may serve who waits, and concern who
 * reads along. */
void server_changed(struct world *w, struct server *s);
void server_deny_fence(struct server *s, bool deny);
void server_heal(struct world *w, struct server *s);

#endif
