/* Commands that wait at the server for something to happen (redis.md §8): each
 * has a connection of its own, and is asked again with the time that is left
 * when nothing can have been taken. */
#ifndef CORE_REDIS_BLOCKING_H
#define CORE_REDIS_BLOCKING_H

#include <stdbool.h>
#include <stdint.h>

#include "parser/span.h"

struct downstream;
struct engine;
struct request;
struct upstream;

enum {
    BLOCKING_STREAMS_MAX = 64, /* "$" that are frozen in one XREAD */
    BLOCKING_ID_MAX = 42       /* bytes of "18446744073709551615-..." */
};

/* What is known of a "$": which id it stands for. */
enum frozen_state {
    FROZEN_NOT,     /* nobody was asked, or there was no answer */
    FROZEN_ASKED,   /* XINFO is on its way, in front of the XREAD */
    FROZEN_LEARNT,  /* id */
    FROZEN_REFUSED, /* the server does not tell */
};

struct frozen_id {
    uint32_t arg;  /* the number of the argument that is "$" */
    uint8_t state; /* enum frozen_state */
    uint8_t len;
    uint8_t id[BLOCKING_ID_MAX];
};

/* Of a request that blocks; owned by it. */
struct blocking {
    uint64_t timeout_us; /* what its client has asked for; 0: no end, or it
                             cannot be told */
    uint64_t since_us;   /* when it began to wait at a server, the first time */
    uint64_t written_us; /* the timeout that its bytes say */
    uint32_t timeout_arg; /* where they say it; 0: not known */
    uint8_t class;        /* enum command_class */
    bool for_ever;        /* the timeout is 0 */
    bool in_ms;
    bool reads;    /* changes nothing: XREAD */
    bool reached;  /* a server may have had it: the time runs */
    bool doubtful; /* its answer would not be about its client's writes */
    uint8_t n_ids;
    struct frozen_id ids[];
};

/* r may block. Hand it to a connection of its client's own, if it does. False: its
 * turn has not come. */
bool redis_blocking(struct engine *e, struct downstream *d, struct request *r);

void blocking_free(struct engine *e, struct request *r);

/* How long r may be held unsent, if it came, or was let go, at from_us: as long
 * as it would have waited at the server, if that is more than the deadline. */
uint64_t blocking_deadline_us(const struct request *r,
                              uint64_t from_us,
                              uint64_t deadline_us);

/* How long its reply may take where requests have an attempt_timeout: its own
 * and a second; 0: for ever. */
uint64_t blocking_patience_us(const struct request *r);

/* r is about to be sent over u: its bytes say what is left of its time, and what
 * belongs in front of it has been sent. False: it has been answered. */
bool blocking_prepare(struct engine *e, struct upstream *u, struct request *r);

/* What was in front of r on its connection has been answered just now. */
void blocking_begins(const struct engine *e, struct request *r);

/* Its connection was lost; it may have reached the server. */
void blocking_lost(const struct engine *e, struct request *r);
/* A server has refused it as not applied. */
void blocking_refused(struct request *r);

/* Nothing more is tried for r because its time is over: answer as the server
 * does when that is the truth. */
bool blocking_time_out(struct engine *e, struct request *r);

/* The reply to what blocking_prepare() has said in front of a request. */
void blocking_told(struct upstream *u, uint8_t index, struct span reply);

#endif
