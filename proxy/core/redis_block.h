/* The commands of an open transaction, so that it can be begun again on another
 * connection (redis.md §6). */
#ifndef CORE_REDIS_BLOCK_H
#define CORE_REDIS_BLOCK_H

#include "proxy/core/buf.h"
#include "proxy/core/ledger.h"

struct redis_error;

enum {
    BLOCK_REFUSALS_MAX = 8 /* refused commands of a block that can be begun
                              again */
};

struct block_command {
    const struct command *command; /* static; NULL: not in the table */
    struct slice bytes;            /* owns a reference */
};

/* The block at the front of what its client has open: what the server has
 * taken of it, MULTI included, in order. */
struct block_log {
    struct block_command *commands; /* owned: n, of room */
    uint32_t n;
    uint32_t room;
    size_t bytes;     /* of all of them, their places included */
    struct buf *tail; /* owned: where the next one is copied to; or NULL */
    uint32_t refused[BLOCK_REFUSALS_MAX]; /* n_refused: which of them got an
                                             error */
    uint32_t n_refused;
    uint32_t said;      /* in a handshake: how many have been answered again */
    uint16_t slot;      /* 1 + that of its first key, or SLOT_... */
    uint8_t caching;    /* enum caching: was said in front of MULTI */
    uint8_t moves;      /* to other nodes, since a command was taken */
    bool incomplete;    /* it cannot be begun again */
    bool aborts;        /* a command was refused: EXEC will be, too */
    bool about_session; /* one of them is SELECT, CLIENT SETNAME ... */
};

/* Free what l keeps of a block; there may be nothing. */
void block_log_free(struct engine *e, struct ledger *l);

/* Whether the block of d that the server has begun can be begun again. */
bool block_log_is_whole(const struct downstream *d);

/* 1 + the slot of that block, SLOT_NONE if it has no key yet or there is no
 * block. */
uint16_t block_log_slot(const struct downstream *d);

/* In the handshake of u, its owner's lane, when all else is established: begin
 * the open block again, if it has one that can be. Replies come to
 * block_log_reply(). False: u is lost. */
bool block_log_establish(struct engine *e, struct upstream *u);
void block_log_reply(struct engine *e, struct upstream *u, struct span reply);

/* r, which goes by its client's own lane, was answered by the server, with an
 * error or not: keep what becomes of its block, and of what it watches. reply
 * is the whole of it if it is short. */
void redis_block_reply(struct engine *e,
                       struct upstream *u,
                       struct request *r,
                       bool success,
                       struct span reply);

/* r, of a block, was refused on u, by head. Whether the server has only said
 * that it cannot now, or not here, and the block may begin again, elsewhere if
 * need be: upstream_begin_again(). */
bool redis_block_may_begin_again(struct engine *e,
                                 struct upstream *u,
                                 struct request *r,
                                 const struct redis_error *error,
                                 struct span head);

/* The block of d that the server has begun cannot go on: what waits of it is
 * answered, nothing of it is executed. */
void redis_block_break(struct engine *e, struct downstream *d, const char *why);

/* The server would not execute the EXEC r any more: a watch is lost. DISCARD is
 * sent in its place, and it is answered null. False: no memory. */
bool redis_block_abort(struct engine *e, struct request *r);

/* The WATCH r is given up: the EXEC it is for is null. */
void redis_watch_given_up(struct engine *e, struct request *r);

/* Whether r is part of the block that block_log is about: its MULTI has been
 * answered. */
bool redis_is_in_front(const struct request *r);

/* The EXEC that ends the block of r, which is a part of it, as far as it has
 * come; or NULL. */
struct request *redis_exec_of(const struct request *r);

#endif
