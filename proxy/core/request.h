/* One thing a client asked for, and the attempts to get it answered
 * (DESIGN.md §4). */
#ifndef CORE_REQUEST_H
#define CORE_REQUEST_H

#include "parser/commands.h"
#include "proxy/core/buf.h"
#include "proxy/core/list.h"
#include "proxy/core/retry.h"

struct engine;
struct blocking;
struct downstream;
struct gather;
struct upstream;

enum request_state {
    REQUEST_NEW,       /* parsed; waits for its client's turn */
    REQUEST_SPLIT,     /* its fragments are being answered (redis_gather.h) */
    REQUEST_READY,     /* in upstream->waiting */
    REQUEST_SENT,      /* in upstream->in_flight, unanswered */
    REQUEST_SETTLING,  /* refused as not applied; waits for what is behind it */
    REQUEST_BACKOFF,   /* waits for its next attempt */
    REQUEST_COMMITTED, /* its reply has begun to reach the client */
    REQUEST_DONE,      /* answered; waits for its turn to leave */
    REQUEST_STATE_COUNT
};

/* What redial itself does with a request when its lane is up, instead of
 * sending it as it came. */
enum request_task {
    TASK_FORWARD, /* send the bytes */
    TASK_SESSION, /* HELLO, AUTH, SELECT on a new shared lane: the lane being
                     up is the answer */
    TASK_SETINFO, /* CLIENT SETINFO: the server's version decides */
    TASK_LEDGER,  /* session command on a private lane: sent; on success the
                     ledger is updated */
    TASK_ABORT,   /* EXEC whose WATCH is lost: DISCARD is sent in its place */
    TASK_LINE,    /* CLIENT NO-EVICT and the like: sent; on success kept in the
                     ledger word by word */
    TASK_ID,      /* CLIENT ID: on success the lane has to stay its client's */
    TASK_SUBSCRIBE, /* SUBSCRIBE, MONITOR and their relatives: what the server
                       confirms is kept (redis_pubsub.h) */
    TASK_CACHING,   /* CLIENT CACHING: sent; about the next command, wherever
                       that is sent (redis_tracking.h) */
    TASK_RAW,       /* SYNC and all behind it: sent, and its replies are not
                       told apart */
    /* The lane's own, without a client. */
    TASK_PING, /* its liveness check */
    TASK_HANDSHAKE,
    TASK_ASIDE,     /* ASKING, READONLY: the answer does not matter */
    TASK_ASK,       /* for the client's request behind it (redis_blocking.h) */
    TASK_TOPOLOGY,  /* step says which question */
    TASK_FUNCTIONS, /* FUNCTION LIST */
    TASK_COMMANDS,  /* the same as TASK_TOPOLOGY: learn.h */
};

enum {
    SLOT_NOT_LOOKED_FOR = 0,
    SLOT_NONE = UINT16_MAX
};

static inline uint16_t slot_plus(uint16_t slot)
{
    return (uint16_t)(slot + 1);
}

struct request {
    struct list_node arrival;      /* in downstream->requests */
    struct list_node place;        /* in the one list its state says it is in */
    struct downstream *downstream; /* borrowed; NULL: nobody waits for it */
    struct upstream *upstream;     /* borrowed; of the current attempt */
    const struct command *command; /* of a table that outlives it; NULL: not
                                       known */
    struct slice part;  /* the bytes, or their beginning; owns a reference */
    struct chain more;  /* the rest of a large request */
    struct chain reply; /* held until it is this request's turn */
    uint64_t sent_end;  /* position in the lane's stream behind its last byte */
    uint64_t sent_us;
    uint64_t arrived_us;
    uint64_t deadline_us;      /* no attempt starts after it */
    uint64_t patience_us;      /* for its reply, once sent; 0: no limit */
    uint64_t size;             /* bytes of the request */
    struct gather *gather;     /* SPLIT: owned; fragment: borrowed; else NULL */
    struct blocking *blocking; /* owned; NULL: it does not wait at the server */
    uint32_t piece;            /* fragment: the first one that is unanswered */
    uint32_t pieces_more;      /* replies that come besides one */
    uint16_t slot;             /* 1 + that of its first key (cluster), or one of
                             the names below */
    uint16_t node;     /* index of the endpoint it is redirected to; 0: by
                             its slot */
    uint16_t server;   /* index of the endpoint it was last given to */
    uint8_t hops;      /* redirects in a row */
    uint32_t replays;  /* after AMBIGUOUS, so far */
    uint32_t attempts; /* times it was sent */
    union {
        struct {
            uint8_t task;     /* enum request_task */
            uint8_t caching;  /* enum caching: was said in front of it */
            bool asking;      /* ASKING goes before it */
            bool load_script; /* SCRIPT LOAD goes before it */
            bool own_lane;    /* goes over its client's own lane */
            bool in_block;    /* between MULTI and EXEC, these included */
            bool watches;     /* a WATCH outside of a block */
            bool streaming;   /* too large to be kept: sent as it arrives */
        };
        uint64_t uncommon; /* 0: none of these, as nearly always */
    };
    uint8_t state;       /* enum request_state */
    uint8_t step;        /* TASK_HANDSHAKE: which */
    uint8_t block_class; /* EXEC, once in doubt: 1 + the strongest class of
                            its block */
    bool fragment;       /* of another request, which waits behind it */
    bool by_subscriber;  /* a cluster: over one for its subscriptions */
    bool from_replica;   /* a replica may answer it */
    bool avoid_replica;  /* one has refused it */
    bool mended;         /* SETTLING, BACKOFF: what it was refused for needs no
                            waiting */
    bool aside;          /* goes over a lane that carries no scripts */
    bool open;           /* counted in downstream->n_open */
    bool quiet;          /* CLIENT REPLY OFF or SKIP: no reply to the client */
    bool ambiguous;      /* an attempt was sent and never answered */
    bool overtaken;      /* SETTLING: a later one on the same key took effect */
    bool opens_block;    /* the MULTI that began it */
    bool owed;           /* a MULTI that its client has had the answer to */
    bool ends_block;     /* its EXEC or DISCARD */
    bool refused_block;  /* a MULTI that was given up */
    bool judged;         /* its way was chosen; only READY ones come back */
    bool first_watch;    /* a WATCH before which nothing was watched */
    bool watched;        /* MULTI, EXEC: keys were watched when it was passed
                           on */
    bool incomplete;     /* streaming, and its end has not arrived */
    bool write_replay;   /* waits for the fence of its lane */
    bool has_error;      /* reply holds the server's refusal */
};

/* No client's, but of the lane's own making. */
static inline bool request_is_own(const struct request *r)
{
    return r->task >= TASK_PING;
}

/* A zeroed request of d (may be NULL) in state NEW, or NULL without memory. */
struct request *request_new(struct engine *e, struct downstream *d);

/* Change the state. Nothing else does. The lists are the callers': a request
 * must be in none but `arrival` when it is moved. */
void request_move(struct request *r, enum request_state next);

/* Drop the bytes and free. r must be in no list. */
void request_free(struct engine *e, struct request *r);

/* Drop the bytes to send: no replay is possible any more. */
void request_drop_bytes(struct engine *e, struct request *r);

/* Copy a small request out of its read block, so that a long wait does not pin
 * 64 KiB (DESIGN.md §7). */
void request_compact(struct engine *e, struct request *r);

enum {
    REQUEST_ARGS_MAX = 64
};

/* The arguments of a request, for those who need more than its name. */
struct request_args {
    struct span list[REQUEST_ARGS_MAX]; /* the first ones */
    size_t argc;                        /* all of them; 0: cannot be told */
    void *copy;                         /* private: linear copy, or NULL */
};

/* Split a request again. Pair with request_args_fini(). Never fails: argc is 0
 * when memory is short or the request is still incomplete. */
void request_args_init(struct engine *e,
                       struct request_args *args,
                       const struct request *r);
void request_args_fini(struct engine *e, struct request_args *args);

/* Let r say other words. False: no memory, and nothing has happened. */
bool request_write(struct engine *e,
                   struct request *r,
                   const struct span *words,
                   size_t n);

/* The class after argument rules. */
enum command_class request_class(struct engine *e, const struct request *r);

/* "GET", or "unknown command". */
const char *request_name(const struct request *r);

#endif
