#include "proxy/core/subscriptions.h"

enum {
    BUCKETS_MIN = 16
};

void subscriptions_init(struct subscriptions *s, uint64_t seed)
{
    *s = (struct subscriptions){ .seed = seed };
    list_init(&s->all);
}

void subscriptions_clear(struct memory *m, struct subscriptions *s)
{
    while (!list_empty(&s->all)) {
        struct subscription *one = subscription_of(s->all.next);
        list_remove(&one->node);
        memory_give(m, one);
    }
    memory_give(m, s->buckets);
    subscriptions_init(s, s->seed);
}

static uint64_t hash_name(const struct subscriptions *s, struct span name)
{
    uint64_t hash = 0xcbf29ce484222325u ^ s->seed; /* FNV-1a */
    for (size_t i = 0; i < name.len; i++) {
        hash = (hash ^ name.data[i]) * 0x100000001b3u;
    }
    return hash ^ (hash >> 32);
}

static struct subscription **bucket_of(const struct subscriptions *s,
                                       uint64_t hash)
{
    return &s->buckets[hash & (s->n_buckets - 1)];
}

/* Where the pointer to it is; NULL: it is not there. */
static struct subscription **find(const struct subscriptions *s,
                                  struct span name,
                                  uint64_t hash)
{
    if (s->n_buckets == 0) {
        return NULL;
    }
    for (struct subscription **at = bucket_of(s, hash); *at != NULL;
         at = &(*at)->next) {
        if ((*at)->hash == hash && span_equal(subscription_name(*at), name)) {
            return at;
        }
    }
    return NULL;
}

struct subscription *subscriptions_find(const struct subscriptions *s,
                                        struct span name)
{
    struct subscription **at = find(s, name, hash_name(s, name));
    return at != NULL ? *at : NULL;
}

/* Twice as many buckets. Without memory it goes on with those it has; false:
 * it has none. */
static bool grow(struct memory *m, struct subscriptions *s)
{
    uint32_t n = s->n_buckets == 0 ? BUCKETS_MIN : s->n_buckets * 2;
    struct subscription **buckets = memory_take(m, n * sizeof(*buckets));
    if (buckets == NULL) {
        return s->n_buckets > 0;
    }
    memory_give(m, s->buckets);
    s->buckets = buckets;
    s->n_buckets = n;
    LIST_FOR_EACH (node, &s->all) {
        struct subscription *one = subscription_of(node);
        struct subscription **at = bucket_of(s, one->hash);
        one->next = *at;
        *at = one;
    }
    return true;
}

bool subscriptions_add(struct memory *m,
                       struct subscriptions *s,
                       struct span name)
{
    uint64_t hash = hash_name(s, name);
    if (find(s, name, hash) != NULL) {
        return true;
    }
    if (s->n >= s->n_buckets && !grow(m, s)) {
        return false;
    }
    struct subscription *one = memory_take_raw(m, sizeof(*one) + name.len);
    if (one == NULL) {
        return false;
    }
    one->lane = NULL;
    one->hash = hash;
    one->adrift = false;
    one->confirmed = true;
    one->len = (uint32_t)name.len;
    if (name.len > 0) {
        memcpy(one->name, name.data, name.len);
    }
    struct subscription **at = bucket_of(s, hash);
    one->next = *at;
    *at = one;
    list_append(&s->all, &one->node);
    s->n++;
    s->bytes += name.len;
    return true;
}

bool subscriptions_remove(struct memory *m,
                          struct subscriptions *s,
                          struct span name)
{
    struct subscription **at = find(s, name, hash_name(s, name));
    if (at == NULL) {
        return false;
    }
    struct subscription *one = *at;
    *at = one->next;
    list_remove(&one->node);
    s->n--;
    s->bytes -= one->len;
    memory_give(m, one);
    return true;
}
