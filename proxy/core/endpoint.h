/* An endpoint is one server address, its health and its lanes. */
#ifndef CORE_ENDPOINT_H
#define CORE_ENDPOINT_H

#include "parser/topology.h"
#include "proxy/core/backoff.h"
#include "proxy/core/cluster.h"

enum {
    ENDPOINT_ADDRESSES_MAX = 64, /* of one name (S12) */
    ENDPOINT_ERROR_MAX = 200,    /* text of the last failure */
};

struct endpoint {
    struct cluster *cluster;  /* borrowed: owns this endpoint */
    uint32_t index;           /* in cluster->endpoints */
    struct address address;   /* as configured or learnt */
    struct address *resolved; /* owned: last good answer, n_resolved */
    unsigned n_resolved;
    struct list_node lanes; /* all upstreams, shared and private */
    unsigned lanes_up;
    unsigned lanes_connecting;
    unsigned lanes_private;
    uint32_t in_flight;  /* requests of clients, sent and not answered */
    bool wants_primary;  /* standalone: a write was refused by a replica; lanes
                            go to a primary if its name has one */
    uint64_t seek_us;    /* one is not looked for again before */
    struct backoff seek; /* paces that */
    uint64_t down_since_us;              /* 0: reachable as far as known */
    uint32_t failures;                   /* connection attempts since then */
    uint64_t failures_total;             /* and lanes lost, ever */
    uint32_t version;                    /* of the server: 7*10000 + 0*100 + 15;
                                            0: not known */
    char last_error[ENDPOINT_ERROR_MAX]; /* words; empty: none yet */
    bool commands_asked;     /* it was asked for its commands (learn.h) since
                                 it was last out of reach */
    bool commands_out;       /* and the answer is awaited */
    uint8_t commands_denied; /* so many users may not ask */

    /* What the topology says of it (redis.md §9, §10). */
    char id[NODE_ID_MAX + 1]; /* of the node; empty: not known */
    char zone[64];            /* empty: not known */
    uint8_t role;             /* enum node_role */
    uint8_t said_role;        /* in the answers being looked at */
    bool wanted;              /* shared lanes to it stay open */
    bool limbo;               /* no server: requests wait here for one */
    bool seed;                /* configured: stays known */
    bool sentinel;            /* asked who the primary is; serves nobody */
    bool known;               /* part of the topology in force */
    bool online;              /* the other nodes think so */
    bool fallen;              /* was a primary until another node took over */
    uint32_t n_slots;         /* it owns */
    uint32_t shard;           /* nodes of one shard have the same number */
    struct functions *functions; /* owned; NULL: nobody has called one */
    bool near;                   /* in redial's own zone */
    bool link_up;                /* a replica's, to its primary */
    bool lag_known;              /* link_up and lag_us have been told */
    uint64_t lag_us;             /* since it heard of its primary */
    uint64_t latency_us;         /* smoothed, of redial's own questions;
                                   0: not measured */
};

/* A number for a node that every worker and every run makes alike: of its id,
 * or of its address while that is not known. */
uint32_t node_hash(const char *id, const char *host, uint16_t port);

void endpoint_init(struct endpoint *p,
                   struct cluster *c,
                   const struct address *address);
/* Frees its lanes. */
void endpoint_fini(struct engine *e, struct endpoint *p);

/* Whether an endpoint is in redial's zone: by what it has told (NULL or empty:
 * nothing), else by node_zones. */
bool endpoint_zone_is_near(const struct cluster *c,
                           const struct address *address,
                           const char *told);

/* A connection attempt failed, or the last lane was lost. */
void endpoint_failed(struct engine *e, struct endpoint *p, const char *why);
/* It took so long to answer a question of redial's own. */
void endpoint_measured(struct endpoint *p, uint64_t us);
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
