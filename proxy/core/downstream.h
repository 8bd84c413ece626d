/* A client connection: its requests in order of arrival, its replies in turn,
 * and back-pressure in both directions. */
#ifndef CORE_DOWNSTREAM_H
#define CORE_DOWNSTREAM_H

#include "proxy/core/backoff.h"
#include "proxy/core/conn.h"
#include "proxy/core/list.h"
#include "proxy/core/timers.h"

struct engine;
struct input;
struct lane_set;
struct ledger;
struct listener;
struct request;
struct session;
struct upstream;

/* How long after the error of a refused MULTI has left the rest of its block may
 * still arrive. */
enum {
    REFUSED_BLOCK_US = 1000 * 1000
};

/* redis.md §6, as far as redial must know it. */
enum block_state {
    BLOCK_NONE,
    BLOCK_OPEN,   /* MULTI was passed on */
    BLOCK_BROKEN, /* its MULTI was refused, or its connection is lost and it
                     cannot be begun again: nothing of it was or will be
                     executed */
};

struct downstream {
    struct conn conn;
    struct listener *listener;    /* borrowed */
    struct downstream *work_next; /* in engine->work */
    struct list_node requests;    /* in order of arrival */
    struct request *undispatched; /* the first that waits for its turn: NEW, as
                                      nearly all behind it; NULL: none */
    struct upstream *lane;        /* its own one; NULL: none */
    struct lane_set *shared;      /* borrowed; NULL: none joined yet */
    struct session *session;      /* owned; NULL: has said nothing */
    struct session *session_next; /* owned; asked for, not yet accepted */
    struct ledger *ledger;        /* owned; NULL: shared lanes were enough */
    struct input *input;          /* owned; NULL: nothing half read */
    uint64_t unwritten; /* bytes of replies the kernel has not taken */
    uint64_t held;      /* bytes of replies that wait for their turn */
    uint64_t gathered;  /* bytes of replies to fragments */
    uint64_t
        progress_us; /* last time it took or, owed nothing, sent something */
    uint64_t stalled_us; /* when a lane was last paused because of it */
    uint64_t ended_us;   /* when it ended */
    struct timer timer;
    struct backoff backoff;  /* of requests refused as not applied */
    uint64_t served_us;      /* last reply of a server */
    uint64_t wrote_us;       /* its last write was sent; 0: none was */
    conn_id wrote_conn;      /* over this connection */
    uint64_t retry_at_us;    /* when they are tried again; 0: not waiting */
    uint64_t block_until_us; /* BLOCK_BROKEN ends then at the latest */
    uint32_t n_requests;     /* in requests, without fragments */
    uint32_t n_fragments;    /* in requests */
    uint32_t n_open;         /* dispatched and not answered */
    uint32_t n_replica_open; /* of these, reads that a replica may answer */
    uint32_t n_settling;     /* SETTLING or BACKOFF */
    uint32_t n_stalled;      /* lanes that are paused because of it */
    uint32_t map_version;    /* cluster->version when what is open was sent */
    uint16_t local_port;     /* where it connected to; 0: not known */
    uint8_t local_ip[16];    /* as of ip_parse() */
    uint16_t last_slot;      /* of its last command with a key; see request */
    uint16_t wrote_server;   /* index of the endpoint of its last write */
    uint16_t watch_slot;     /* of what is watched, if watch_held */
    union {
        struct {
            uint8_t block;      /* enum block_state */
            uint8_t caching;    /* enum caching: of its next command */
            bool reply_off;     /* CLIENT REPLY OFF */
            bool reply_skip;    /* CLIENT REPLY SKIP: the next one */
            bool alone;         /* nothing may follow its request that is out */
            bool subscribed;    /* RESP2: the server takes few commands */
            bool large_replies; /* prefers its own lane */
            bool session_unknown; /* state was changed inside a transaction */
        };
        uint64_t uncommon; /* 0: none of these, as nearly always */
    };
    bool asked;      /* a request went elsewhere by ASK: until all that is
                             open is answered, nothing follows it */
    bool multi_owed; /* MULTI was answered here; the node it goes to will
                             be that of the block's first key */
    bool watching;   /* WATCH was passed on */
    bool watch_held; /* and the server has accepted it */
    bool watch_lost; /* the connection that watched is lost */
    bool ended;      /* sends no more; perhaps it is gone */
    bool left;       /* the same, behind bytes that are not read yet */
    bool closing;    /* takes no more requests; ends when all is out */
    bool has_work;   /* is in engine->work */
    bool doomed;     /* ends before the step does */
};

/* Create one for the listener, or NULL. Its conn has a name. */
struct downstream *downstream_new(struct engine *e, struct listener *l);
void downstream_accepted(struct engine *e, struct downstream *d);

void downstream_written(struct engine *e, struct downstream *d, uint64_t count);
enum {
    END_GRACE_US = 1000 * 1000
};

/* It sends no more but may still wait for replies, as in `printf ... | nc`. What
 * was sent is answered; what could not be sent in END_GRACE_US is dropped, and
 * nothing is replayed, for it looks the same when a client has died. */
void downstream_ended(struct engine *e, struct downstream *d);

/* Its end was seen while it is not read (EVENT_LEFT). Nothing may wait, or be
 * taken, for it any more; what else it has asked for is done. */
void downstream_left(struct engine *e, struct downstream *d);
void downstream_closed(struct engine *e, struct downstream *d);
void downstream_timeout(struct engine *e, struct downstream *d);

/* Answers may come in the middle of anything. What they set off - replies that
 * leave, requests that may go on, a lane that is left - is done when the step
 * is nearly over, by downstream_work(), so that nothing is pulled away under
 * the feet of those who answer. */
void downstream_later(struct engine *e, struct downstream *d);
void downstream_work(struct engine *e);

/* It may be silent for ever, and hears what it has not asked for: subscribers,
 * MONITOR, SYNC. */
bool downstream_listens(const struct downstream *d);

/* The client has gone, or will have before the step ends. */
static inline bool downstream_gone(const struct downstream *d)
{
    return d->conn.dead || d->doomed;
}

/* Send the replies that are due and have not left yet. */
void downstream_flush(struct engine *e, struct downstream *d);

/* End the connection in this step. why NULL: without a word in the log. */
void downstream_close(struct engine *e, struct downstream *d, const char *why);
/* End it once everything due has been written. */
void downstream_finish(struct engine *e, struct downstream *d);

/* Answer everything that is still open with the truth: -NOTAPPLIED or
 * -UNKNOWNOUTCOME. */
void downstream_give_up_all(struct engine *e,
                            struct downstream *d,
                            const char *why);

/* Hand on the requests whose turn has come. */
void downstream_dispatch(struct engine *e, struct downstream *d);

/* Forget the requests that have not had their turn. */
void downstream_drop_new(struct engine *e, struct downstream *d);

/* Put bytes on the way to the client. False: no memory, and d is closed. */
bool downstream_write(struct engine *e,
                      struct downstream *d,
                      struct buf *b,
                      uint32_t offset,
                      uint32_t len);

/* r, a request of d, is answered. Its reply is in r->reply (moved there by the
 * caller) or text is copied. r is DONE afterwards and may be gone. */
void downstream_answer(struct engine *e, struct request *r);
void downstream_answer_text(struct engine *e,
                            struct request *r,
                            const char *text);
void downstream_answer_span(struct engine *e,
                            struct request *r,
                            struct span text);
/* r is answered by a part of a received block. */
void downstream_reply(struct engine *e,
                      struct request *r,
                      struct buf *b,
                      uint32_t offset,
                      uint32_t len);
/* r, COMMITTED, has had the last byte of its reply. */
void downstream_end_stream(struct engine *e, struct request *r);

/* Take back what waits for a lane behind a request that must be tried again
 * first (NULL: all of it). What needs a fence on its lane stays there. */
void downstream_recall(struct engine *e,
                       struct downstream *d,
                       const struct request *behind);

/* Whether anybody else's replies are due on u, a shared lane, behind those of
 * d. */
bool downstream_holds_up_others(const struct downstream *d,
                                const struct upstream *u);

/* Read u no further until d has taken its replies. */
void downstream_stall(struct engine *e,
                      struct downstream *d,
                      struct upstream *u);
/* Read u again, if it was paused because of a client. */
void downstream_resume(struct engine *e, struct upstream *u);
void downstream_resume_all(struct engine *e, struct downstream *d);
/* The lanes that are paused because of d, one after the other; *at begins as 0.
 */
struct upstream *downstream_stalled(const struct downstream *d, uint32_t *at);
/* The lane its next reply comes from; NULL: none, or that is not known. */
struct upstream *downstream_head_lane(const struct downstream *d);
/* A lane has just been paused: mind how long that lasts. */
void downstream_mind_stall(struct engine *e, struct downstream *d);

/* A command is complete, or large enough to be passed on as it arrives. */
void downstream_take(struct engine *e, struct downstream *d, struct request *r);
/* pipeline_max or client_buffer_max is reached. */
bool downstream_is_full(const struct downstream *d);

/* Join a set of shared lanes (leaving the one before). */
void downstream_join(struct engine *e,
                     struct downstream *d,
                     struct lane_set *set);
/* Take a new lane of its own. */
void downstream_own(struct downstream *d, struct upstream *lane);
/* Leave its own lane, if it has one: to the next client, or for good. */
void downstream_disown(struct engine *e, struct downstream *d);
/* Leave all lanes. The next command finds the right one. */
void downstream_unbind(struct engine *e, struct downstream *d);

/* Let the timer fire at that time at the latest. */
void downstream_wake_at(struct engine *e, struct downstream *d, uint64_t at_us);

/* Read-only view of the session: never NULL. */
const struct session *downstream_session(const struct engine *e,
                                         const struct downstream *d);

#endif
