/* One command of a client that several nodes answer (redis.md §9 "Commands over
 * several nodes"): its fragments, and the one reply that is made of theirs.
 *
 * Fragments are requests of the same client, directly in front of the one they
 * belong to, their parent. Each has its own deadline, class and retries; its
 * answer goes to the gather instead of to the client. Commands for several
 * slots of one node travel as one fragment, a group, that is answered in as
 * many pieces. Whatever is not plain success makes single fragments of it
 * first. */
#ifndef CORE_REDIS_GATHER_H
#define CORE_REDIS_GATHER_H

#include "parser/keyslot.h"
#include "proxy/core/cluster.h"
#include "proxy/core/request.h"

/* What goes to one slot, or to one node. */
struct gather_piece {
    struct slice reply; /* owned: a reply in one part; buf NULL: none */
    struct chain rest;  /* or in several */
    uint32_t offset;    /* its bytes within those of its group */
    uint32_t len;
    uint32_t n_keys;
    uint16_t slot;   /* 1 + slot */
    uint16_t server; /* index of the endpoint that answered */
    bool answered;   /* with success */
};

struct gather {
    struct request *parent; /* borrowed: owns this */
    struct gather_piece *pieces;
    uint32_t n_pieces;
    uint32_t n_answered;    /* of them */
    uint32_t n_open;        /* fragments that are not answered for good */
    uint64_t held;          /* bytes of replies that are kept here */
    struct chain error;     /* owned: what the parent is answered */
    uint8_t error_rank;     /* 0: no error */
    int64_t sum;            /* of counts */
    uint16_t *piece_of_key; /* SPLIT_VALUES: in the order of arguments */
    uint32_t n_keys;
    uint32_t next_key; /* the first that has not left */
    uint64_t cursor;   /* SCAN: what the node was given */
    uint32_t tries;    /* RANDOMKEY: nodes that were asked */
    uint16_t node_hash;
    uint8_t layout; /* SCAN: of the slots when the walk began; 0: has changed */
    bool begun;     /* the first line of the values has been made */
};

/* A reply: what was kept of it before, and a part of a block. */
struct gather_message {
    struct chain *head;
    struct buf *buf; /* borrowed; NULL: head is all of it */
    uint32_t offset;
    uint32_t len;
};

enum {
    GATHER_KEYS_KEPT = 1024
};

/* A key, with its value if it has one, among the bytes of a request. */
struct gather_key {
    uint32_t offset;
    uint32_t len;
    uint32_t found; /* number of its slot among those found */
};

/* A slot some keys of which were found, or a node that owns some of these. */
struct gather_found {
    uint32_t n;     /* keys, or slots */
    uint32_t bytes; /* of the keys; of all that goes to the node */
    uint32_t at;    /* where the next key is written; the next piece is put */
    uint16_t which; /* slot; index of the endpoint */
    uint16_t place; /* of a slot: number of its piece */
    uint16_t node;  /* of a slot: number of its node among the found */
};

/* Tables that are used for a moment, one of each per engine. All of slots and
 * nodes are 0 between two uses. */
struct gather_tables {
    uint16_t slots[KEYSLOT_COUNT];         /* 1 + number among the found */
    uint16_t nodes[CLUSTER_ENDPOINTS_MAX]; /* the same */
    struct gather_found found_slots[KEYSLOT_COUNT];
    struct gather_found found_nodes[CLUSTER_ENDPOINTS_MAX];
    struct gather_key keys[GATHER_KEYS_KEPT];
    uint16_t first_slots[CLUSTER_ENDPOINTS_MAX]; /* of primaries, n_primaries */
    uint32_t n_primaries;
    uint8_t layout;                /* of the slots among them; never 0 */
    const struct cluster *cluster; /* whose, and by which map */
    uint32_t version;
};

/* Create them if need be; NULL without memory. */
struct gather_tables *gather_tables(struct engine *e);

/* ---- commands: redis_split.c, redis_everywhere.c ---- */

/* Answer r, whose route says that several nodes are asked. */
bool redis_gather(struct engine *e, struct downstream *d, struct request *r);
bool redis_split(struct engine *e, struct downstream *d, struct request *r);
bool redis_everywhere(struct engine *e,
                      struct downstream *d,
                      struct request *r);

enum gather_take {
    TAKE_DONE,
    TAKE_WRONG, /* not what the command answers */
    TAKE_NO_MEMORY,
};

/* A node has answered piece i, not with an error. */
enum gather_take split_take(struct engine *e,
                            struct gather *g,
                            uint32_t i,
                            struct gather_message *m);
enum gather_take everywhere_take(struct engine *e,
                                 struct gather *g,
                                 uint32_t i,
                                 struct gather_message *m);
/* The same for piece i of MGET, if its reply lies in a part of a block as a
 * whole and is what is expected. Returns its bytes; 0: look at it closely. */
size_t split_quick(struct gather *g,
                   uint32_t i,
                   struct buf *b,
                   uint32_t offset,
                   uint32_t len);
/* Every piece is answered: make the parent's reply. False: no memory. */
bool split_merge(struct engine *e, struct gather *g, struct chain *out);
bool everywhere_merge(struct engine *e, struct gather *g, struct chain *out);
/* The values that can leave now, in the order of arguments. */
bool split_values(struct engine *e, struct gather *g, struct chain *out);
/* RANDOMKEY: ask another node instead of answering. */
bool everywhere_goes_on(struct engine *e, struct gather *g);

/* ---- the mechanism: redis_gather.c ---- */

/* r becomes the parent of n_pieces pieces, all of which the caller has to fill
 * in; NULL without memory. */
struct gather *gather_new(struct engine *e,
                          struct request *r,
                          uint32_t n_pieces,
                          uint32_t n_keys);
/* Frees what it holds. The fragments must not refer to it any more. */
void gather_free(struct engine *e, struct gather *g);

/* A fragment for n pieces from the first one on, in front of the parent; its
 * bytes are the caller's matter. It is submitted by gather_start(). NULL
 * without memory. */
struct request *gather_add(struct engine *e,
                           struct gather *g,
                           uint32_t first,
                           uint32_t n);
/* All fragments are there: submit those from the given one up to the parent. g
 * may be gone afterwards. */
void gather_start(struct engine *e, struct request *first);
/* Take the fragments back; the parent is as before gather_new(). */
void gather_undo(struct engine *e, struct gather *g);

/* Keep a reply. False: no memory. */
bool gather_keep(struct engine *e,
                 struct gather *g,
                 struct gather_piece *p,
                 struct gather_message *m);
/* Drop what is kept of one piece. */
void gather_drop(struct engine *e, struct gather *g, struct gather_piece *p);
/* Copy the first max bytes of a message; returns how many there are. */
size_t gather_copy(const struct gather_message *m, uint8_t *out, size_t max);
/* The beginning of a message in one part; scratch has max bytes for it. */
struct span gather_head(const struct gather_message *m,
                        uint8_t *scratch,
                        size_t max);
/* Append bytes [at, end) of a kept reply to out, sharing them. */
bool gather_share(struct engine *e,
                  const struct gather_piece *p,
                  size_t at,
                  struct chain *out);

/* ---- for the two sides ---- */

/* A fragment has its final answer: in r->reply, or a part of a block behind
 * it. r is gone afterwards. */
void gather_answer(struct engine *e,
                   struct request *r,
                   struct buf *b,
                   uint32_t offset,
                   uint32_t len);

/* One of several replies to r, a group, has arrived: head and a part of a
 * block. True: it is taken. False: it is no success, r is that piece alone now,
 * and what follows is as for any request. */
bool gather_piece(struct engine *e,
                  struct request *r,
                  bool success,
                  struct gather_message *m);
/* Take the plain replies to the group that is at the head of u's in-flight list,
 * if there is one, up to its last but one. s is borrowed and begins with a
 * message. Returns how many bytes were taken. */
uint32_t gather_quick(struct engine *e, struct upstream *u, struct slice s);
/* Whether the piece of r that is answered next has left completely. */
bool gather_piece_is_sent(const struct upstream *u, const struct request *r);

/* r waits, and the map has changed: if it is a group, make single fragments of
 * it, which may go to different nodes now. False: no memory, and its client is
 * closed. */
bool gather_explode_waiting(struct engine *e, struct request *r);

/* Make single fragments of the groups in flight on a lane that was lost. */
void gather_explode_lane(struct engine *e, struct upstream *u);

/* r, the first request of its client, is a fragment: what its parent has may
 * begin to leave. */
void gather_turn(struct engine *e, struct request *r);

/* The client of r has gone. */
void gather_orphan(struct engine *e, struct request *r);

#endif
