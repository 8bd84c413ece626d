/* A cluster is a named set of server addresses with its policy, retry budget
 * and numbers; an endpoint is one address, its health and its lanes. A
 * standalone upstream is a cluster with one endpoint. */
#ifndef CORE_ENDPOINT_H
#define CORE_ENDPOINT_H

#include "config/config.h"
#include "proxy/core/budget.h"
#include "proxy/core/list.h"
#include "proxy/core/stats.h"

struct engine;
struct upstream;
struct session;
struct downstream;

enum {
    ENDPOINT_ADDRESSES_MAX = 64, /* of one name (S12) */
    ENDPOINT_ERROR_MAX = 200,    /* text of the last failure */
};

struct endpoint {
    struct cluster *cluster;       /* borrowed: owns this endpoint */
    const struct address *address; /* as configured; borrowed */
    struct address *resolved;      /* owned: last good answer, n_resolved */
    unsigned n_resolved;
    struct list_node lanes; /* all upstreams, shared and private */
    unsigned lanes_up;
    unsigned lanes_connecting;
    unsigned lanes_private;
    uint64_t down_since_us;              /* 0: reachable as far as known */
    uint32_t failures;                   /* connection attempts since then */
    uint32_t version;                    /* of the server: 7*10000 + 0*100 + 15;
                                         0: not known */
    char last_error[ENDPOINT_ERROR_MAX]; /* words; empty: none yet */
};

struct cluster {
    const struct upstream_config *config; /* borrowed */
    struct endpoint endpoint;
    struct budget budget;
    struct upstream_stats stats;
    struct session *fresh; /* owned: a client that has said nothing yet */
    uint32_t held;         /* requests waiting for a lane */
    uint32_t in_flight;    /* requests sent and not answered */
};

/* Returns false when memory is short; cluster_fini() is safe then too. */
bool cluster_init(struct engine *e,
                  struct cluster *c,
                  const struct upstream_config *config);
/* Open the default lane, which stays open as long as the process. */
void cluster_start(struct engine *e, struct cluster *c);
/* Frees every lane. */
void cluster_fini(struct engine *e, struct cluster *c);

/* The shared lane for clients like d with that session: found or created.
 * Returns NULL when memory is short. */
struct upstream *endpoint_shared_lane(struct engine *e,
                                      struct endpoint *p,
                                      const struct session *session,
                                      const struct downstream *d);

/* A connection attempt failed, or the last lane was lost. */
void endpoint_failed(struct engine *e, struct endpoint *p, const char *why);
/* A lane came up. */
void endpoint_reached(struct engine *e, struct endpoint *p);
/* Requests are refused at once (redis.md §5 fail_fast_after). */
bool endpoint_fails_fast(const struct engine *e, const struct endpoint *p);

/* Keep a resolver's answer; returns false, and keeps the old one, without
 * memory. */
bool endpoint_set_addresses(struct engine *e,
                            struct endpoint *p,
                            const struct address *list,
                            unsigned n);

#endif
