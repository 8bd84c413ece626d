/* Subscriptions survive the connection they were made on (redis.md §7): what
 * the server has confirmed is kept, and said again on the next connection
 * without its client's knowledge. */
#include "proxy/core/redis_pubsub.h"

#include <assert.h>
#include <stdio.h>

#include "parser/keyslot.h"
#include "parser/pubsub.h"
#include "proxy/core/state.h"
#include "proxy/core/subscriptions.h"

struct subscriber {
    struct subscriptions names[SUBSCRIPTION_KINDS];
    uint32_t n[SUBSCRIPTION_KINDS]; /* at the server, kept or not */
    bool monitors;                  /* MONITOR */
    bool too_many; /* more than is kept: they could not be had again */
    /* Its command in flight, one at a time. */
    uint8_t type;  /* of its confirmations: enum pubsub_type; OTHER: MONITOR */
    uint8_t kind;  /* enum subscription_kind */
    uint64_t due;  /* confirmations; 0: until nothing is left to leave */
    uint64_t seen; /* of this attempt */
    uint64_t passed;  /* to the client, of all attempts */
    uint64_t lost_us; /* when its connection was lost; 0: it has one */
};

/* ---- what is kept ---------------------------------------------------------- */

static struct subscriber *subscriber_of(const struct downstream *d)
{
    return d->ledger != NULL ? d->ledger->subscriber : NULL;
}

static struct subscriber *subscriber_get(struct engine *e, struct downstream *d)
{
    struct ledger *l = ledger_get(e, d);
    if (l != NULL && l->subscriber == NULL) {
        l->subscriber = memory_take(e->memory, sizeof(*l->subscriber));
        for (int i = 0; l->subscriber != NULL && i < SUBSCRIPTION_KINDS; i++) {
            subscriptions_init(&l->subscriber->names[i], rng_next(&e->rng));
        }
    }
    return l != NULL ? l->subscriber : NULL;
}

void subscriber_free(struct engine *e, struct ledger *l)
{
    if (l->subscriber == NULL) {
        return;
    }
    for (int i = 0; i < SUBSCRIPTION_KINDS; i++) {
        subscriptions_clear(e->memory, &l->subscriber->names[i]);
    }
    memory_give(e->memory, l->subscriber);
    l->subscriber = NULL;
    l->owner->subscribed = false;
}

static uint64_t count_of(const struct subscriber *s)
{
    return (uint64_t)s->n[SUBSCRIPTION_CHANNEL] + s->n[SUBSCRIPTION_PATTERN] +
           s->n[SUBSCRIPTION_SHARD];
}

bool subscriber_is_active(const struct ledger *l)
{
    const struct subscriber *s = l->subscriber;
    return s != NULL && (count_of(s) > 0 || s->monitors);
}

bool subscriber_hears(const struct ledger *l, struct span channel)
{
    const struct subscriber *s = l->subscriber;
    return s != NULL &&
           subscriptions_has(&s->names[SUBSCRIPTION_CHANNEL], channel);
}

enum {
    KEPT_BYTES_MAX = 64 * 1024 * 1024 /* names of one client */
};

/* d is subscribed to name from now on. */
static void keep(struct engine *e,
                 struct downstream *d,
                 struct subscriptions *names,
                 struct span name)
{
    struct subscriber *s = subscriber_of(d);
    uint64_t n = 0;
    uint64_t bytes = name.len;
    for (int i = 0; i < SUBSCRIPTION_KINDS; i++) {
        n += s->names[i].n;
        bytes += s->names[i].bytes;
    }
    if (s->too_many || subscriptions_has(names, name)) {
        return;
    }
    bool room =
        n < d->listener->config->subscriptions_max && bytes <= KEPT_BYTES_MAX;
    if (room && subscriptions_add(e->memory, names, name)) {
        return;
    }
    s->too_many = true;
    e->stats.limit_memory += room;
    e->stats.limit_subscriptions_max += !room;
    if (!room) {
        engine_trace_limit(e, d->listener->cluster, "subscriptions_max");
    }
}

void subscriber_mind(struct downstream *d)
{
    const struct subscriber *s = subscriber_of(d);
    if (s == NULL) {
        return;
    }
    struct upstream *u = d->lane;
    uint8_t resp = u != NULL ? u->session->resp : 2;
    d->subscribed = resp == 2 && count_of(s) > 0;
    if (u != NULL && u->link != NULL) {
        u->listens = s->monitors || d->alone || d->subscribed;
    }
}

/* The server has said it. */
static void note(struct engine *e,
                 struct downstream *d,
                 struct pubsub_word word,
                 const struct pubsub_confirmation *c)
{
    struct subscriber *s = subscriber_of(d);
    struct subscriptions *names = &s->names[word.kind];
    if (word.type == PUBSUB_SUBSCRIBED) {
        keep(e, d, names, c->name);
    } else if (c->name.data != NULL) {
        subscriptions_remove(e->memory, names, c->name);
    }
    uint32_t others = word.kind == SUBSCRIPTION_SHARD ? 0
                      : word.kind == SUBSCRIPTION_CHANNEL
                          ? s->n[SUBSCRIPTION_PATTERN]
                          : s->n[SUBSCRIPTION_CHANNEL];
    s->n[word.kind] = c->count > others ? (uint32_t)(c->count - others) : 0;
    if (s->n[word.kind] == 0) {
        subscriptions_clear(e->memory, names);
    }
    s->too_many = s->too_many && count_of(s) > 0;
}

/* ---- from the client -------------------------------------------------------- */

/* What r asks for. False: no memory. */
static bool describe(struct engine *e,
                     struct subscriber *s,
                     const struct request *r)
{
    const char *name = r->command->name;
    struct request_args args;
    request_args_init(e, &args, r);
    size_t argc = args.argc;
    request_args_fini(e, &args);
    bool shard = strncmp(name, "SSUB", 4) == 0 || strncmp(name, "SUNS", 4) == 0;
    s->kind = shard            ? SUBSCRIPTION_SHARD
              : name[0] == 'P' ? SUBSCRIPTION_PATTERN
                               : SUBSCRIPTION_CHANNEL;
    s->type = r->command->id == COMMAND_SUBSCRIBE     ? PUBSUB_SUBSCRIBED
              : r->command->id == COMMAND_UNSUBSCRIBE ? PUBSUB_UNSUBSCRIBED
                                                      : PUBSUB_OTHER;
    s->due = argc > 0 ? argc - 1 : 0;
    s->seen = 0;
    s->passed = 0;
    return argc > 0;
}

bool redis_subscribe(struct engine *e, struct downstream *d, struct request *r)
{
    if (d->n_open > 0) {
        return false; /* so that there is one of them at a time */
    }
    if (r->streaming) {
        redis_refuse(e, d, r, "it is larger than replay_bytes_max");
        return true;
    }
    enum lane_answer lane = redis_want_private(e, d, r);
    if (lane != LANE_READY) {
        return lane == LANE_REFUSED;
    }
    struct subscriber *s = subscriber_get(e, d);
    bool monitor = r->command->id == COMMAND_MONITOR;
    if (s == NULL || !describe(e, s, r)) {
        e->stats.limit_memory++;
        redis_refuse(e, d, r, "out of memory");
        return true;
    }
    if (monitor && s->monitors && s->due == 0) {
        d->listener->cluster->stats.local_replies++;
        r->quiet = true; /* the server does not answer to it a second time */
        downstream_answer_text(e, r, "");
        return true;
    }
    r->task = TASK_SUBSCRIBE;
    d->alone = monitor || d->lane->session->resp == 2;
    redis_submit(e, d, r);
    return true;
}

void subscriber_sent(struct engine *e,
                     struct upstream *u,
                     const struct request *r)
{
    (void)e;
    struct subscriber *s = subscriber_of(r->downstream);
    s->seen = 0;
    s->passed = s->due > 0 ? s->passed : 0; /* what it left is not left again */
    u->listens = u->listens || r->downstream->alone;
}

void subscriber_answered(struct engine *e,
                         struct upstream *u,
                         const struct request *r,
                         bool success)
{
    (void)e;
    (void)u;
    struct downstream *d = r->downstream;
    struct subscriber *s = subscriber_of(d);
    s->monitors = s->monitors || (success && r->command->id == COMMAND_MONITOR);
    d->alone = false;
    subscriber_mind(d);
}

/* ---- from the server -------------------------------------------------------- */

static struct request *first_in_flight(const struct upstream *u)
{
    return list_empty(&u->in_flight)
               ? NULL
               : CONTAINER_OF(u->in_flight.next, struct request, place);
}

static void break_lane(struct engine *e, struct upstream *u, const char *why)
{
    upstream_lost(e, u, &(struct upstream_loss){ .why = why, .tell = true });
}

/* One of redial's own subscriptions is confirmed: the client has heard of it
 * before. */
static void take_hidden(struct engine *e,
                        struct upstream *u,
                        struct request *r,
                        struct pubsub_word word,
                        const struct pubsub_confirmation *c)
{
    const struct subscriber *s = subscriber_of(u->owner);
    chain_clear(e->memory, &u->partial);
    if (word.type != PUBSUB_SUBSCRIBED || c->name.data == NULL ||
        !subscriptions_has(&s->names[word.kind], c->name)) {
        u->endpoint->cluster->stats.ledger_mismatch++;
        break_lane(e, u, "the server confirms what nobody has subscribed to");
        return;
    }
    if (r->pieces_more > 0) {
        r->pieces_more--;
        return;
    }
    list_remove(&r->place);
    request_free(e, r);
    handshake_goes_on(e, u);
}

static bool is_due(const struct upstream *u,
                   const struct subscriber *s,
                   const struct request *r,
                   struct pubsub_word word)
{
    return r != NULL && r->task == TASK_SUBSCRIBE && r->downstream != NULL &&
           r->sent_end <= u->taken && s->type == (uint8_t)word.type &&
           s->kind == (uint8_t)word.kind;
}

/* A confirmation that answers r, or a part of it. */
static void take_due(struct engine *e,
                     struct upstream *u,
                     struct request *r,
                     const struct message *m)
{
    struct downstream *d = r->downstream;
    struct subscriber *s = subscriber_of(d);
    u->answered = true;
    s->seen++;
    if (s->due > 0 && s->seen <= s->passed) {
        chain_clear(e->memory, &u->partial); /* it has had it */
    } else {
        s->passed++;
        redis_push(e, u, m);
    }
    if (s->due > 0 ? s->seen < s->due : s->n[s->kind] > 0) {
        return;
    }
    d->served_us = e->now_us;
    redis_take_from_flight(e, u, r);
    redis_forget_refusal(e, r);
    downstream_answer(e, r);
}

static bool take_confirmation(struct engine *e,
                              struct upstream *u,
                              const struct message *m,
                              struct pubsub_word word)
{
    struct pubsub_confirmation c;
    struct span whole;
    void *copy = NULL;
    if (!message_whole(e, u, m, &whole, &copy)) {
        e->stats.limit_memory++;
        break_lane(e, u, "out of memory");
        return true;
    }
    bool taken = pubsub_confirmation_parse(whole, &c) &&
                 (c.name.data != NULL || word.type == PUBSUB_UNSUBSCRIBED);
    struct request *r = first_in_flight(u);
    if (taken && r != NULL && handshake_subscribes(r)) {
        take_hidden(e, u, r, word, &c);
    } else if (taken) {
        note(e, u->owner, word, &c);
        if (is_due(u, subscriber_of(u->owner), r, word)) {
            take_due(e, u, r, m);
        } else {
            redis_push(e, u, m);
        }
        subscriber_mind(u->owner);
        downstream_later(e, u->owner); /* it may need the lane no more */
    }
    memory_give(e->memory, copy);
    return taken;
}

bool pubsub_message(struct engine *e,
                    struct upstream *u,
                    const struct message *m)
{
    uint8_t scratch[MESSAGE_HEAD_MAX];
    struct subscriber *s = u->owner != NULL ? subscriber_of(u->owner) : NULL;
    if (s == NULL) {
        return false;
    }
    struct span head = message_head(u, m, scratch);
    if (m->type == '+') {
        if (!s->monitors || !pubsub_is_monitor_line(head)) {
            return false;
        }
        redis_push(e, u, m);
        return true;
    }
    struct pubsub_word word = pubsub_look(head);
    switch (word.type) {
    case PUBSUB_OTHER: break;
    case PUBSUB_MESSAGE: redis_push(e, u, m); return true;
    case PUBSUB_SUBSCRIBED:
    case PUBSUB_UNSUBSCRIBED: return take_confirmation(e, u, m, word);
    }
    return false;
}

/* ---- lost and found ---------------------------------------------------------- */

static void tell(struct engine *e,
                 const struct upstream *u,
                 const char *to,
                 const char *why,
                 uint64_t since_us)
{
    const struct downstream *d = u->owner;
    engine_trace(e, &(struct trace_record){
                        .type = TRACE_PUBSUB,
                        .upstream = d->listener->cluster->config->name,
                        .listener = d->listener->config->name,
                        .address = &u->endpoint->address,
                        .client = d->conn.id,
                        .to = to,
                        .reason = why,
                        .elapsed_us = since_us });
}

bool subscriber_lost(struct engine *e,
                     struct upstream *u,
                     const struct upstream_loss *loss)
{
    const struct downstream *d = u->owner;
    struct subscriber *s = subscriber_of(d);
    if (u != d->lane || s == NULL || !subscriber_is_active(d->ledger)) {
        return false;
    }
    const struct cluster *c = d->listener->cluster;
    bool closes = s->too_many || !c->config->retry ||
                  d->listener->config->on_pubsub_gap == PUBSUB_GAP_CLOSE;
    if (!d->closing) {
        u->endpoint->cluster->stats.pubsub_gaps++;
        tell(e, u, closes ? "closed" : "gap", loss->why, 0);
    }
    s->lost_us = e->now_us;
    return closes;
}

void subscriber_up(struct engine *e, struct upstream *u)
{
    struct subscriber *s = subscriber_of(u->owner);
    if (u == u->owner->lane && s != NULL && s->lost_us != 0) {
        if (subscriber_is_active(u->owner->ledger)) {
            tell(e, u, "subscribed again", NULL, e->now_us - s->lost_us);
        }
        s->lost_us = 0;
    }
}

struct endpoint *subscriber_endpoint(const struct downstream *d)
{
    const struct cluster *c = d->listener->cluster;
    const struct subscriber *s = subscriber_of(d);
    if (s == NULL || c->slots == NULL || s->names[SUBSCRIPTION_SHARD].n == 0) {
        return NULL;
    }
    const struct subscription *first =
        subscription_of(s->names[SUBSCRIPTION_SHARD].all.next);
    return c->endpoints[c->slots[keyslot(subscription_name(first))]];
}

enum {
    BATCH_NAMES = 256,
    BATCH_BYTES = 16 * 1024
};

static size_t put_word(uint8_t *out, struct span word)
{
    size_t len = (size_t)snprintf((char *)out, 24, "$%zu\r\n", word.len);
    if (word.len > 0) {
        memcpy(out + len, word.data, word.len);
    }
    len += word.len;
    out[len++] = '\r';
    out[len++] = '\n';
    return len;
}

/* Subscribe to the names from *at on, as many as one command is good for. */
static bool say_batch(struct engine *e,
                      struct upstream *u,
                      const struct subscriptions *names,
                      struct span word,
                      struct list_node **at)
{
    uint32_t n = 0;
    size_t bytes = 0;
    struct list_node *end = *at;
    while (end != &names->all && n < BATCH_NAMES &&
           (n == 0 || bytes < BATCH_BYTES)) {
        bytes += subscription_of(end)->len + 26;
        n++;
        end = end->next;
    }
    uint8_t *text = memory_take_raw(e->memory, bytes + 64);
    if (text == NULL) {
        e->stats.limit_memory++;
        break_lane(e, u, "out of memory");
        return false;
    }
    size_t len = (size_t)snprintf((char *)text, 24, "*%u\r\n", (unsigned)n + 1);
    len += put_word(text + len, word);
    for (; *at != end; *at = (*at)->next) {
        len += put_word(text + len, subscription_name(subscription_of(*at)));
    }
    bool said = handshake_subscribe(e, u, (struct span){ text, len }, n);
    memory_give(e->memory, text);
    return said;
}

bool subscriber_establish(struct engine *e, struct upstream *u)
{
    static const char *const words[SUBSCRIPTION_KINDS] = { "SUBSCRIBE",
                                                           "PSUBSCRIBE",
                                                           "SSUBSCRIBE" };
    const struct ledger *l = u->owner->ledger;
    const struct subscriber *s = l->subscriber;
    if (!subscriber_is_active(l)) {
        return true;
    }
    u->dirty = true;
    u->listens = s->monitors || u->session->resp == 2;
    for (int i = 0; i < SUBSCRIPTION_KINDS; i++) {
        struct list_node *at = s->names[i].all.next;
        while (at != &s->names[i].all) {
            if (!say_batch(e, u, &s->names[i], span_of(words[i]), &at)) {
                return false;
            }
        }
    }
    return !s->monitors ||
           handshake_subscribe(e, u, span_of("*1\r\n$7\r\nMONITOR\r\n"), 1);
}

void subscriber_reply(struct engine *e, struct upstream *u, struct span reply)
{
    if (reply.data[0] != '-') {
        return; /* MONITOR */
    }
    u->endpoint->cluster->stats.ledger_refused++;
    tell(e, u, "refused", "the server refuses to subscribe it again", 0);
    downstream_close(e, u->owner,
                     "its server connection was lost, and the server refuses "
                     "to subscribe it again");
}
