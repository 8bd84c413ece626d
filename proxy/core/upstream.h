/* One lane: a server connection that is opened again when it is lost, its
 * handshake, its unanswered requests in order, and its liveness (redis.md
 * §5). */
#ifndef CORE_UPSTREAM_H
#define CORE_UPSTREAM_H

#include "parser/resp.h"
#include "proxy/core/backoff.h"
#include "proxy/core/conn.h"
#include "proxy/core/list.h"
#include "proxy/core/request.h"
#include "proxy/core/timers.h"

struct downstream;
struct endpoint;
struct lane_set;
struct session;

enum upstream_state {
    UPSTREAM_IDLE,    /* not open, and nobody needs it */
    UPSTREAM_WAITING, /* backoff before the next attempt */
    UPSTREAM_RESOLVING,
    UPSTREAM_CONNECTING,
    UPSTREAM_HANDSHAKE,
    UPSTREAM_UP,
    UPSTREAM_CLOSED, /* will be freed */
    UPSTREAM_STATE_COUNT
};

/* The border's side of one connection of a lane. A lane that reconnects gets a
 * new one, so that the old name can be told to the shell in peace. */
struct upstream_conn {
    struct conn conn;
    const struct address *address; /* borrowed: what to resolve or connect to */
    struct upstream *upstream;     /* borrowed; NULL: given up */
};

struct upstream {
    struct list_node endpoint_node; /* in endpoint->lanes */
    struct endpoint *endpoint;      /* borrowed */
    struct upstream_conn *link;     /* owned until given up; NULL: not open */
    struct session *session;        /* owned: identity, db, RESP version */
    struct downstream *owner;       /* private lane: whose; NULL: shared */
    struct lane_set *set;           /* shared lane: where it belongs; NULL:
                                       private */
    struct upstream *next_listener; /* subscribes: the next one of its owner */
    struct list_node spare_node;    /* in cluster->spare_lanes, if spare */
    uint64_t spare_us;              /* since when */

    uint8_t state;        /* enum upstream_state */
    bool owner_takes_all; /* private: its client uses no other one */
    bool copies;          /* shared, of a cluster: see outbuf */
    bool raw;             /* private: replies are passed on unread (SYNC) */
    bool listens;    /* private: messages come between replies that only their
                       words tell from them (RESP2 SUBSCRIBE, MONITOR) */
    bool subscribes; /* private, of a cluster: for subscriptions alone */
    bool counted;    /* private: in private_lanes_max */
    bool spare;      /* private: waits for a client (lane_pool.h) */
    bool dirty;    /* private: a client has changed what it is at the server */
    bool spoilt;   /* private: RESET would not undo what a client has made of
                          it, or a client knows it by CLIENT ID */
    bool in_multi; /* private: behind what was sent, the server is inside
                      MULTI, or may be */
    bool in_watch; /* private: behind what was sent, it watches keys */
    bool establishing; /* in the handshake: its owner's ledger is being said */
    bool streaming;    /* the head request's reply is being passed on */
    bool refused;      /* the server refuses its session: it is not opened again
                       until somebody needs it */
    bool untold;       /* its user may not ask for the topology */
    bool unauthenticated; /* the server wants AUTH, and nobody gave us one */
    bool answered;        /* this connection has answered a client's request */
    bool ping_sent;       /* a liveness PING is out */
    bool awaits_commands; /* in the handshake: learn.h */
    bool renew;           /* opened anew as soon as nothing is in flight */
    bool fence_needed; /* the lost connection may still deliver what it got */
    bool fence_done;   /* and has been killed by the server */

    struct list_node waiting;   /* READY requests, in order */
    struct list_node in_flight; /* SENT requests, in order */
    uint64_t queued_end;        /* bytes queued on this connection so far */
    uint64_t taken;             /* of these, taken by the kernel */

    struct resp_scanner scanner;
    struct downstream *stalled_by; /* slow client it is paused for, or NULL */
    struct buf *outbuf;    /* owned: where small requests are copied; NULL: none
                              yet */
    struct chain partial;  /* of a reply that is not complete */
    unsigned address_next; /* which resolved address is tried next */
    struct backoff backoff;
    struct timer timer;
    uint32_t n_subscribed;  /* shard channels of its owner that are here */
    uint64_t deadline_us;   /* of connect or handshake; of a PING */
    uint64_t active_us;     /* last byte from the server */
    uint64_t up_us;         /* when this connection came up */
    uint64_t killed_us;     /* when a client has asked the server to end it */
    uint64_t client_id;     /* the server's id of this connection; 0: unknown */
    uint64_t fence_id;      /* an old connection to be killed first; 0: none */
    struct chain hello;     /* the server's reply to our HELLO */
    struct address address; /* the one in use */
};

/* A lane for that session; copies it. owner NULL: it will be part of a set. It
 * is IDLE. Returns NULL when memory is short. */
struct upstream *upstream_new(struct engine *e,
                              struct endpoint *p,
                              const struct session *session,
                              struct downstream *owner);
/* End a lane for good: it is CLOSED. It must have no clients, and no requests
 * that a client waits for. */
void upstream_free(struct engine *e, struct upstream *u, const char *why);
/* Free the memory of lanes that have ended. */
void upstreams_release(struct engine *e);

/* A lane that is not UP belongs to another endpoint from now on, and is opened
 * there. */
void upstream_rehome(struct engine *e, struct upstream *u, struct endpoint *p);

/* Open the connection if it is IDLE. */
void upstream_want(struct engine *e, struct upstream *u);

/* Send r now if the lane is up and has room, else let it wait. r is NEW or
 * BACKOFF; it may be answered with an error at once (limits, fail fast). */
void upstream_submit(struct engine *e, struct upstream *u, struct request *r);

/* Put r on the wire. The lane is UP. */
void upstream_send(struct engine *e, struct upstream *u, struct request *r);

/* Take r out of u->waiting: its state is to be changed next. */
void upstream_unhold(struct engine *e, struct upstream *u, struct request *r);
/* Let r wait, in front of a node of u->waiting. */
void upstream_hold(struct engine *e,
                   struct upstream *u,
                   struct request *r,
                   struct list_node *before);

/* Whether more bytes may be queued (lane_buffer_max). */
bool upstream_has_room(const struct upstream *u);

/* Answer a request in flight without waiting for its reply: its client will
 * not be there. Always leaves a stand-in for the order of replies; false
 * without memory for it. */
bool upstream_abandon(struct engine *e, struct request *r);

/* Forget a request in flight that nobody waits for. */
void upstream_drop_orphan(struct engine *e,
                          struct upstream *u,
                          struct request *r);

/* Send what waits, as far as the lane allows. */
void upstream_flush(struct engine *e, struct upstream *u);

/* Whether nothing waits for u, and nothing is in flight there but requests of
 * the lane's own. */
bool upstream_is_idle(const struct upstream *u);

/* The last request on u is still arriving from its client, and is sent in parts:
 * nothing may be said behind it yet. */
bool upstream_is_inside_request(const struct upstream *u);

/* Queue a request of the lane's own (PING, handshake). False: no memory. */
bool upstream_send_own(struct engine *e,
                       struct upstream *u,
                       enum request_task task,
                       uint8_t step,
                       struct span bytes);
/* As upstream_send_own(), with n replies that come one by one. bytes is taken
 * over, and empty afterwards. */
bool upstream_send_own_list(struct engine *e,
                            struct upstream *u,
                            enum request_task task,
                            uint8_t step,
                            struct chain *bytes,
                            uint32_t n);

/* Why a connection was lost. */
struct upstream_loss {
    const char *why; /* words */
    bool peer_ended; /* FIN or RST was seen: nothing can run any more */
    bool timeout;    /* no reply in attempt_timeout, or no PONG */
    bool tell;       /* the shell must be asked to close it */
    bool refused;    /* it is given up because the server has refused the block
                        that is in flight, and nothing else is */
};

/* The connection is gone, or is given up now. Its requests are settled; the
 * lane is opened again if anybody needs it. */
void upstream_lost(struct engine *e,
                   struct upstream *u,
                   const struct upstream_loss *loss);

/* u's server has refused its client's transaction for now, and nothing else of a
 * client is in flight: open the lane anew, where the block belongs now, and
 * begin it again (redis.md §6). Paced by the backoff. */
void upstream_begin_again(struct engine *e,
                          struct upstream *u,
                          const char *why);

/* The node at the other end is a replica: ask it to answer reads. */
void upstream_read_only(struct engine *e, struct upstream *u);

/* Standalone: u's server answered READONLY. Open the lanes to its name anew, and
 * this time to a primary, if there is one. */
void upstream_seek_primary(struct engine *e, struct upstream *u);
/* u was to be renewed, and nothing is in flight any more. */
void upstream_renew(struct engine *e, struct upstream *u);
/* In the handshake: the server is the primary, or a replica while a primary is
 * wanted. */
void upstream_is_primary(struct engine *e, struct upstream *u);
void upstream_is_replica(struct engine *e, struct upstream *u);

/* The handshake is complete: use the lane. */
void upstream_up(struct engine *e, struct upstream *u);

/* The server refuses this session: answer those who asked for it, and those who
 * had it before. text is the server's error reply. */
void upstream_refused(struct engine *e, struct upstream *u, struct span text);

void upstream_resolved(struct engine *e,
                       struct upstream *u,
                       const struct event *event);
void upstream_connected(struct engine *e, struct upstream *u, int error);
void upstream_ended(struct engine *e, struct upstream *u);
void upstream_closed(struct engine *e, struct upstream *u, int error);
void upstream_written(struct engine *e, struct upstream *u, uint64_t count);
/* The oldest request in flight was answered; was_blocked: it had kept the
 * others behind it from running. */
void upstream_next_due(struct engine *e, struct upstream *u, bool was_blocked);
void upstream_timeout(struct engine *e, struct upstream *u);
/* redis_reply.c: s is owned. */
void upstream_bytes(struct engine *e, struct upstream *u, struct slice s);

/* lane_pool.c: u is spare and stays so for a while. */
bool upstream_stays_spare(struct engine *e, struct upstream *u);

/* Wait for the next event at that time at the latest. */
void upstream_wake_at(struct engine *e, struct upstream *u, uint64_t at_us);

/* ---- between upstream.c, upstream_open.c and upstream_send.c ---- */

/* The policy of the lane's cluster. */
const struct upstream_config *upstream_policy(const struct upstream *u);

/* Change the state. Nothing else does. */
void upstream_move(struct engine *e,
                   struct upstream *u,
                   enum upstream_state next,
                   const char *why,
                   uint64_t delay_us);

/* Give the connection up, and all that is known of it. */
void upstream_close_link(struct engine *e, struct upstream *u, bool tell);

/* Forget requests of the lane's own, and those whose client has gone. */
void upstream_drop_unwanted(struct engine *e, struct upstream *u);

/* Whether somebody needs the lane to be open. */
bool upstream_is_needed(const struct engine *e, const struct upstream *u);

/* Wait for the backoff, or not at all, and open the lane again if it is needed;
 * a shared one that nobody needs ends. */
void upstream_wait_and_retry(struct engine *e,
                             struct upstream *u,
                             const char *why,
                             bool at_once);

/* Answer all that waits for u. */
void upstream_give_up_waiting(struct engine *e,
                              struct upstream *u,
                              enum verdict verdict,
                              const char *why);

/* Open the lane now. */
void upstream_begin_attempt(struct engine *e, struct upstream *u);

/* An attempt to open the lane has failed. */
void upstream_attempt_failed(struct engine *e,
                             struct upstream *u,
                             const char *why,
                             bool tell);

/* Resolving, connecting or the handshake took too long. */
void upstream_opening_too_late(struct engine *e, struct upstream *u);

const char *upstream_state_name(enum upstream_state s);

/* redis_handshake.c (redis.md §5 "HANDSHAKE"). */
void handshake_begin(struct engine *e, struct upstream *u);
void handshake_reply(struct engine *e,
                     struct upstream *u,
                     uint8_t step,
                     struct span reply);
void handshake_again(struct engine *e, struct upstream *u);

enum {
    VERSION_WITH_RESET = 60200,
    VERSION_WITH_SETINFO = 70200,
    VERSION_NO_MULTI = 70000 /* MONITOR and SYNC are errors inside of MULTI */
};

/* u, spare, was changed by its last client: RESET, and all anew. */
void handshake_reset(struct engine *e, struct upstream *u);
/* Tell the server what u is called; renamed: it may have been called otherwise.
 * False: no memory. */
bool handshake_introduce(struct engine *e, struct upstream *u, bool renamed);
/* Say a line of the ledger, or a part of what is established with it; step is one
 * of enum ledger_step. False: u is lost. */
bool handshake_say_line(struct engine *e, struct upstream *u, struct span line);
/* Say a command that is answered by n confirmations, or an error, which comes to
 * subscriber_reply(). False: u is lost. */
bool handshake_subscribe(struct engine *e,
                         struct upstream *u,
                         struct span line,
                         uint32_t n);
/* Whether r is such a command. */
bool handshake_subscribes(const struct request *r);
/* One of them has been confirmed. */
void handshake_goes_on(struct engine *e, struct upstream *u);
bool handshake_say_words(struct engine *e,
                         struct upstream *u,
                         const struct span *words,
                         size_t n);
/* Say the n commands of a block; takes bytes over. n 0: there was no memory for
 * them. False: u is lost. */
bool handshake_say_block(struct engine *e,
                         struct upstream *u,
                         struct chain *bytes,
                         uint32_t n);

#endif
