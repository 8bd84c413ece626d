/* Every request of a run: what was sent, how often it was executed, what its
 * client was told; and the invariants that follow (reliability.md §1). */
#ifndef SIM_HISTORY_H
#define SIM_HISTORY_H

#include "parser/commands.h"
#include "tests/sim/world.h"

enum {
    KEYS_PER_REQUEST = 6,
    PARTS_MAX = 4,
    SPLIT_KEYS_MAX = 12,
    NO_KEY = 0,
    HASHES_KEPT = 4,
    REFUSALS_KEPT = 16
};
#define NO_REQUEST UINT32_MAX

/* What reply a request may get besides errors of redial. */
enum expect {
    EXPECT_SERVER, /* the very bytes the server answered */
    EXPECT_QUEUED, /* +QUEUED; the rest comes with EXEC */
    EXPECT_OK,     /* +OK, or an error; changes the session */
    EXPECT_PONG,
    EXPECT_HELLO, /* a map or an array */
    EXPECT_INTEGER,
    EXPECT_NAME, /* of CLIENT GETNAME */
    EXPECT_RESET,
    EXPECT_CONFIRM, /* of SUBSCRIBE and the like, one for each channel */
    EXPECT_ANY,     /* what the server says of a wrong order */
    EXPECT_BLOCK,   /* of EXEC, DISCARD: an array, null, +OK or an error */
    EXPECT_ARRAY,   /* of KEYS */
    EXPECT_SCAN,
    /* merged from the replies to its parts */
    EXPECT_VALUES, /* MGET */
    EXPECT_ALL_OK, /* MSET */
    EXPECT_COUNT,  /* DEL, UNLINK, EXISTS, TOUCH */
};

enum sets {
    SETS_DB = 1,
    SETS_USER = 2,
    SETS_RESP = 4,
    SETS_NAME = 8,
    SETS_NO_EVICT = 16,
    SETS_NO_TOUCH = 32,
    SETS_TRACKING = 64,
};

enum hint {
    HINT_OFF,
    HINT_ON,
    HINT_EITHER /* RESET leaves it to the version of the server */
};

/* What lives in a client's connection. */
struct ledger {
    uint8_t db;
    uint8_t user; /* index into server_users */
    uint8_t resp;
    uint8_t no_evict, no_touch; /* enum hint */
    bool tracking;
    bool unsure; /* whether it tracks: nobody knows if that took effect */
    bool subscribed;
    uint32_t name; /* a hash; 0: none, or a lane's own */
};

/* Whether what ran at a server ran as this client's. A lane that others share
 * has a name of its own, and one that is subscribed may not be the one that
 * commands go over. */
static inline bool ledger_fits(struct ledger ran, struct ledger client)
{
    bool evict =
        client.no_evict == HINT_EITHER || ran.no_evict == client.no_evict;
    bool touch =
        client.no_touch == HINT_EITHER || ran.no_touch == client.no_touch;
    return ran.db == client.db && ran.user == client.user &&
           ran.resp == client.resp &&
           (client.unsure || ran.tracking == client.tracking) && evict &&
           touch && (ran.name == 0 || ran.name == client.name);
}

enum answer {
    ANSWER_NONE,
    ANSWER_REPLY,
    ANSWER_NOT_APPLIED,
    ANSWER_UNKNOWN,
    ANSWER_REFUSED,   /* an error of the server that proves: not applied */
    ANSWER_DISCARDED, /* its block was not executed */
    ANSWER_LOST,      /* its client connection ended */
};

/* One request of a client. */
struct request_record {
    uint64_t client;
    uint32_t index; /* among the client's requests */
    uint8_t class;  /* enum command_class */
    uint8_t expect; /* enum expect */
    uint8_t answer; /* enum answer */
    bool tracked;   /* its bytes are unique: the server knows it again */
    bool writes;
    bool private_keys;  /* nobody else uses its keys */
    bool behind_others; /* made while something untracked was unanswered */
    bool overtaken;     /* first ran after a later one on the same key */
    bool passed_by;     /* NOTAPPLIED when a later one may have run */
    bool settled;       /* of a block: EXEC was answered */
    bool arrived;
    uint32_t block;       /* the transaction it belongs to, or 0 */
    uint32_t block_first; /* of EXEC and DISCARD: where the block begins */
    bool begins_block, ends_block, executes_block;
    uint32_t keys[KEYS_PER_REQUEST];
    uint64_t end;        /* offset in the client's stream */
    uint64_t size;       /* bytes of it there; of a part: of the whole */
    uint64_t arrived_us; /* UINT64_MAX: it may still wait at pipeline_max */
    uint32_t executions;
    uint32_t effects; /* of these, what changed something */
    uint64_t wait_us; /* how long it may wait at the server; 0: for ever */
    uint64_t waits_since_us; /* when it was sent to wait; 0: not yet */
    uint64_t waits_at_us;    /* a server lets it wait; 0: not yet */
    bool reached;            /* a server has said no, or lets it wait */
    bool in_block; /* sent between MULTI and EXEC, and not to be queued */
    bool is_watch, unwatches;
    bool ends_watch;  /* EXEC or DISCARD ended more than its client knew of */
    uint8_t channels; /* of (UN)SUBSCRIBE: a set; 0: all of them */
    uint8_t sub_kind; /* enum sub_kind */
    bool unsubscribes;
    bool caches;         /* a read of a whole value that others may change */
    uint32_t sent_whole; /* copies whose last byte a kernel took */
    uint32_t refusals;   /* copies the server answered as not applied */
    uint64_t hashes[HASHES_KEPT];           /* of the replies, a ring */
    uint64_t refusal_hashes[REFUSALS_KEPT]; /* a ring */
    struct ledger ledger;                   /* of its executions */
    uint8_t sets; /* what of next it changes: set of enum sets */
    struct ledger next;
    /* Of a cluster. A request over several slots is never executed itself; its
     * parts, one for each slot, are, and stand right behind it. */
    uint32_t whole;               /* of a part: 1 + the request it belongs to */
    uint8_t n_parts;              /* of the request */
    uint8_t n_split;              /* its keys */
    uint8_t part[SPLIT_KEYS_MAX]; /* for each key, the part it is in */
    int64_t numbers[HASHES_KEPT]; /* of a part: replies that are numbers */
    uint32_t lost_runs;           /* executions a failover lost */
    uint32_t at_replica;          /* executions there */
};

struct history;

struct history *history_new(void);
void history_free(struct history *h);

/* Enter a request. words is its canonical form, whose hash names it when it is
 * tracked. Returns NO_REQUEST when these bytes were used before. */
uint32_t history_add(struct history *h,
                     const struct request_record *r,
                     struct span words);
struct request_record *history_at(struct history *h, uint32_t request);
size_t history_count(const struct history *h);
/* The request with these bytes, or NO_REQUEST. */
uint32_t history_find(const struct history *h, struct span words);

/* The server executed it, and what it answered. */
void history_executed(struct world *w,
                      uint32_t request,
                      const struct session *c,
                      struct span reply);
/* What it did is lost: a failover took place. */
void history_lose(struct world *w, uint32_t request);
/* It waits at a server. */
void history_waits(struct world *w, uint32_t request);
/* The engine has written it, to wait so long; 0: for ever. */
void history_told_to_wait(struct world *w,
                          uint32_t request,
                          uint64_t timeout_us);
/* Whether the engine has known for a while that its client is gone. */
bool history_taker_gone(struct world *w, uint32_t request);
/* Whether every replay must answer what the first execution answered. */
bool history_hides_replay(struct world *w, const struct request_record *r);
/* The server has answered that client, whatever it was. */
void history_served(struct world *w, uint64_t client);
/* The server answered that it did not. */
void history_refused(struct world *w, uint32_t request, struct span reply);
/* The engine wrote it to a server; a kernel took its last byte. */
void history_attempt(struct world *w,
                     uint32_t request,
                     const struct session *session);
void history_sent(struct world *w, uint32_t request);
/* Its client was answered. */
void history_answered(struct world *w,
                      uint32_t request,
                      struct span reply,
                      struct ledger session);
/* Its client is gone. */
void history_lost(struct world *w, uint32_t request);
/* At the end of a run. */
void history_end(struct world *w);
void history_sum(struct world *w, struct run_result *o);

/* history_split.c: requests that were split over slots. */
void split_answered(struct world *w,
                    uint32_t request,
                    struct span reply,
                    struct ledger session);

/* For those. */
void history_part_answered(struct world *w,
                           uint32_t part,
                           struct span reply,
                           struct ledger session);
bool history_has_reply(const struct request_record *r, uint64_t hash);
bool history_has_refusal(const struct request_record *r, uint64_t hash);

#endif
