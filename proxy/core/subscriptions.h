/* A set of names that a client has subscribed to, in the order in which it
 * did (redis.md §7). */
#ifndef CORE_SUBSCRIPTIONS_H
#define CORE_SUBSCRIPTIONS_H

#include "parser/span.h"
#include "proxy/core/list.h"
#include "proxy/core/memory.h"

struct upstream;

struct subscription {
    struct list_node node;     /* in subscriptions->all */
    struct subscription *next; /* of the same bucket */
    struct upstream *lane; /* borrowed: of a shard channel; NULL: not known */
    uint64_t hash;
    bool adrift;    /* a shard channel that has lost its lane */
    bool confirmed; /* by the server, since it was last said there */
    uint32_t len;
    uint8_t name[]; /* any bytes */
};

struct subscriptions {
    struct list_node all;          /* the oldest first */
    struct subscription **buckets; /* owned */
    uint32_t n_buckets;            /* a power of two, or 0 */
    uint32_t n;
    uint64_t bytes; /* of names */
    uint64_t seed;  /* so that nobody can choose names of one bucket */
};

void subscriptions_init(struct subscriptions *s, uint64_t seed);
void subscriptions_clear(struct memory *m, struct subscriptions *s);

/* NULL: it is not there. */
struct subscription *subscriptions_find(const struct subscriptions *s,
                                        struct span name);
/* Add a copy of name, if it is not there. False: no memory. */
bool subscriptions_add(struct memory *m,
                       struct subscriptions *s,
                       struct span name);
/* False: it was not there. */
bool subscriptions_remove(struct memory *m,
                          struct subscriptions *s,
                          struct span name);

static inline struct subscription *subscription_of(struct list_node *node)
{
    return CONTAINER_OF(node, struct subscription, node);
}

static inline struct span subscription_name(const struct subscription *s)
{
    return (struct span){ s->name, s->len };
}

#endif
