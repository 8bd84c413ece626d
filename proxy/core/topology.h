/* Who serves what (redis.md §9, §10): asked of the servers, checked, adopted;
 * and corrected by what redirects tell. */
#ifndef CORE_TOPOLOGY_H
#define CORE_TOPOLOGY_H

#include "parser/keyslot.h"
#include "parser/redis_error.h"
#include "proxy/core/endpoint.h"
#include "proxy/core/timers.h"

struct request;
struct upstream;

enum {
    TOPOLOGY_ASKED_MAX = 3 /* nodes asked at a time */
};

/* One node that was asked, and what it said. */
struct topology_answer {
    struct endpoint *from; /* borrowed; NULL: has gone */
    char id[NODE_ID_MAX + 1];
    struct cluster_info info;
    struct view *view; /* owned; NULL: none yet */
    bool open;         /* its last answer is still to come */
};

struct topology {
    struct cluster *cluster; /* borrowed: owns this */
    struct timer timer;
    uint16_t *primaries; /* owned: indexes of endpoints, n_primaries */
    uint32_t n_primaries;
    struct topology_answer answers[TOPOLOGY_ASKED_MAX];
    uint32_t n_answers;
    uint64_t asked_us;    /* when; replies to earlier questions are void */
    uint64_t deadline_us; /* of the answers; 0: nobody is being asked */
    uint64_t next_us;     /* not asked again before */
    uint64_t refresh_us;  /* asked again then at the latest */
    uint64_t lag_us;      /* replicas are asked how far behind they are then */
    uint64_t silence_us;  /* lanes are looked at then */
    uint64_t adopted_us;  /* the last time; 0: never */
    uint64_t epoch;       /* of what was adopted */
    uint32_t failures;    /* questions without an answer in a row */
    bool wanted;          /* as soon as it is permitted */
    const char *why;      /* it is wanted; static */
    char last_error[ENDPOINT_ERROR_MAX];
    uint8_t patched[KEYSLOT_COUNT / 8]; /* slots redirects have corrected since
                                        asked_us */
    struct sentinel *sentinel;          /* owned; NULL: a Redis Cluster */
};

/* Endpoints for the limbo and the configured nodes. Returns false when memory
 * is short; topology_fini() is safe then too. */
bool topology_init(struct engine *e, struct cluster *c);
void topology_start(struct engine *e, struct cluster *c);
void topology_fini(struct engine *e, struct cluster *c);

/* Something suggests that what is known is not true any more. why is static.
 * Does nothing without a topology. */
void topology_want(struct engine *e, struct cluster *c, const char *why);

void topology_timeout(struct engine *e, struct topology *t);
/* A lane came up, or was lost, or could not be opened. */
void topology_lane_up(struct engine *e, struct upstream *u);
void topology_lane_down(struct engine *e, struct upstream *u);
/* The answer to a TASK_TOPOLOGY request, or that there will be none. */
void topology_reply(struct engine *e,
                    struct upstream *u,
                    uint64_t asked_us,
                    uint8_t step,
                    struct span reply);
void topology_no_reply(struct engine *e,
                       struct upstream *u,
                       uint64_t asked_us,
                       uint8_t step);

/* A server answered MOVED or ASK: the endpoint to go to, known or new; MOVED
 * also corrects the slot. NULL with *why (static words): it must not be
 * followed. */
struct endpoint *topology_redirect(struct engine *e,
                                   struct upstream *from,
                                   const struct redis_error *error,
                                   const char **why);

/* Without slots: commands go to p from now on. Lanes to the one before are
 * closed at once (redis.md §10), or not kept open any more. */
void topology_set_primary(struct engine *e,
                          struct cluster *c,
                          struct endpoint *p,
                          bool at_once,
                          const char *why);

/* The endpoint that a server calls by this address: known, or new. NULL: not
 * permitted (allow_nodes), or no memory; that is counted and logged. */
struct endpoint *topology_endpoint(struct engine *e,
                                   struct cluster *c,
                                   const struct address *address);

/* A log event about p; from, to and why as in trace.h. */
void topology_trace(struct engine *e,
                    const struct cluster *c,
                    const struct endpoint *p,
                    const char *from,
                    const char *to,
                    const char *why);

#endif
