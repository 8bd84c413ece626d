/* Subscriptions survive the connection they were made on (redis.md §7): what
 * the server has confirmed is kept, and said again on the next connection
 * without its client's knowledge. */
#include "proxy/core/redis_pubsub.h"

#include <assert.h>
#include <stdio.h>

#include "parser/keyslot.h"
#include "proxy/core/state.h"
#include "proxy/core/subscriber.h"

/* ---- what is kept ---------------------------------------------------------- */

struct subscriber *subscriber_of(const struct downstream *d)
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
    subscriber_leave_lanes(e, l->subscriber);
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
           subscriptions_find(&s->names[SUBSCRIPTION_CHANNEL], channel) != NULL;
}

bool subscriber_holds_lane(const struct ledger *l)
{
    return l->owner->listener->cluster->slots == NULL &&
           subscriber_is_active(l);
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
    if (s->too_many || subscriptions_find(names, name) != NULL) {
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

static void mind_lane(const struct subscriber *s, struct upstream *u)
{
    const struct downstream *d = u->owner;
    if (u->link != NULL) {
        u->listens = s->monitors || d->alone || d->subscribed;
    }
}

void subscriber_mind(struct engine *e, struct downstream *d)
{
    const struct subscriber *s = subscriber_of(d);
    if (s == NULL) {
        return;
    }
    d->subscribed = downstream_session(e, d)->resp == 2 && count_of(s) > 0;
    if (d->lane != NULL && d->listener->cluster->slots == NULL) {
        mind_lane(s, d->lane);
    }
    for (struct upstream *u = s->lanes; u != NULL; u = u->next_listener) {
        mind_lane(s, u);
    }
}

/* A shard channel, in front of a cluster. */
static void note_shard(struct engine *e,
                       struct upstream *u,
                       struct pubsub_word word,
                       const struct pubsub_confirmation *c)
{
    struct downstream *d = u->owner;
    struct subscriber *s = subscriber_of(d);
    struct subscriptions *names = &s->names[SUBSCRIPTION_SHARD];
    if (word.type == PUBSUB_SUBSCRIBED) {
        keep(e, d, names, c->name);
    }
    struct subscription *name =
        c->name.data != NULL ? subscriptions_find(names, c->name) : NULL;
    if (name != NULL) {
        subscriber_put(s, name, u);
        name->confirmed = true;
    }
    if (name != NULL && word.type == PUBSUB_UNSUBSCRIBED) {
        u->n_subscribed--;
        subscriptions_remove(e->memory, names, c->name);
    }
    s->n[SUBSCRIPTION_SHARD] = s->too_many ? (uint32_t)c->count : names->n;
}

/* The server has said it. */
static void note(struct engine *e,
                 struct upstream *u,
                 struct pubsub_word word,
                 const struct pubsub_confirmation *c)
{
    struct downstream *d = u->owner;
    struct subscriber *s = subscriber_of(d);
    struct subscriptions *names = &s->names[word.kind];
    if (u->subscribes && word.kind == SUBSCRIPTION_SHARD) {
        note_shard(e, u, word, c);
        s->too_many = s->too_many && count_of(s) > 0;
        return;
    }
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

/* Answered here, as far as the servers would have nothing to say. */
static bool is_answered(struct engine *e,
                        struct downstream *d,
                        struct request *r)
{
    struct subscriber *s = subscriber_of(d);
    if (s->type == PUBSUB_OTHER && s->monitors && s->due == 0) {
        d->listener->cluster->stats.local_replies++;
        r->quiet = true; /* the server does not answer to it a second time */
        downstream_answer_text(e, r, "");
        return true;
    }
    return d->listener->cluster->slots != NULL && s->due == 0 &&
           s->type == PUBSUB_UNSUBSCRIBED && s->kind == SUBSCRIPTION_SHARD &&
           subscriber_leave_shards(e, d, r);
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
    struct subscriber *s = subscriber_get(e, d);
    if (s == NULL || !describe(e, s, r)) {
        e->stats.limit_memory++;
        redis_refuse(e, d, r, "out of memory");
        return true;
    }
    if (is_answered(e, d, r)) {
        return true;
    }
    r->task = TASK_SUBSCRIBE;
    enum lane_answer lane = d->listener->cluster->slots != NULL
                                ? redis_want_listener(e, d, r)
                                : redis_want_private(e, d, r);
    if (lane == LANE_LATER) {
        r->task = TASK_FORWARD;
    }
    if (lane != LANE_READY) {
        return lane == LANE_REFUSED;
    }
    d->alone = r->command->id == COMMAND_MONITOR ||
               downstream_session(e, d)->resp == 2;
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
    (void)u;
    struct downstream *d = r->downstream;
    struct subscriber *s = subscriber_of(d);
    s->monitors = s->monitors || (success && r->command->id == COMMAND_MONITOR);
    d->alone = false;
    subscriber_mind(e, d);
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
    struct subscriber *s = subscriber_of(u->owner);
    struct subscription *name =
        word.type == PUBSUB_SUBSCRIBED && c->name.data != NULL
            ? subscriptions_find(&s->names[word.kind], c->name)
            : NULL;
    chain_clear(e->memory, &u->partial);
    if (name == NULL && !u->subscribes) {
        u->endpoint->cluster->stats.ledger_mismatch++;
        break_lane(e, u, "the server confirms what nobody has subscribed to");
        return;
    }
    if (name != NULL) {
        name->confirmed = true;
        s->hops = 0;
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

/* Whether r, whose turn it is, may have asked for that: of shard channels also
 * those are confirmed that their slot takes away. With very many names that is not
 * looked at. */
static bool names_it(struct engine *e,
                     const struct upstream *u,
                     const struct request *r,
                     const struct pubsub_confirmation *c)
{
    const struct subscriber *s = subscriber_of(u->owner);
    if (!u->subscribes || s->kind != SUBSCRIPTION_SHARD ||
        c->name.data == NULL || s->due == 0 || s->due >= REQUEST_ARGS_MAX) {
        return true;
    }
    struct request_args args;
    request_args_init(e, &args, r);
    bool found = args.argc == 0;
    for (size_t i = 1; !found && i < args.argc; i++) {
        found = span_equal(args.list[i], c->name);
    }
    request_args_fini(e, &args);
    return found;
}

/* A confirmation that has arrived. */
struct arrival {
    const struct message *message;
    struct pubsub_word word;
    struct span whole;
    struct pubsub_confirmation what;
};

/* Pass it on. Of shard channels on several nodes the client sees one number. */
static void pass(struct engine *e, struct upstream *u, const struct arrival *a)
{
    const struct subscriber *s = subscriber_of(u->owner);
    uint32_t n = s->n[SUBSCRIPTION_SHARD];
    if (!u->subscribes || a->word.kind != SUBSCRIPTION_SHARD ||
        a->what.count == n) {
        redis_push(e, u, a->message);
        return;
    }
    size_t keep = a->whole.len;
    while (a->whole.data[keep - 1] != ':') {
        keep--;
    }
    struct buf *b = buf_new(e->memory, (uint32_t)keep + 16);
    if (b == NULL) {
        e->stats.limit_memory++;
        downstream_close(e, u->owner, "out of memory for a message");
        return;
    }
    memcpy(b->data, a->whole.data, keep);
    b->len = (uint32_t)keep + (uint32_t)snprintf((char *)b->data + keep, 16,
                                                 "%u\r\n", (unsigned)n);
    chain_clear(e->memory, &u->partial);
    redis_push(e, u, &(struct message){ .buf = b, .len = b->len });
    buf_unref(e->memory, b);
}

/* A confirmation that answers r, or a part of it. */
static void take_due(struct engine *e,
                     struct upstream *u,
                     struct request *r,
                     const struct arrival *a)
{
    struct downstream *d = r->downstream;
    struct subscriber *s = subscriber_of(d);
    u->answered = true;
    s->seen++;
    if (s->due > 0 && s->seen <= s->passed) {
        chain_clear(e->memory, &u->partial); /* it has had it */
    } else {
        s->passed++;
        pass(e, u, a);
    }
    if (s->due > 0 ? s->seen < s->due : s->n[s->kind] > 0) {
        return;
    }
    d->served_us = e->now_us;
    redis_take_from_flight(e, u, r);
    redis_forget_refusal(e, r);
    downstream_answer(e, r);
}

/* Of redial's own doing, or nobody's. */
static void take_unasked(struct engine *e,
                         struct upstream *u,
                         const struct arrival *a)
{
    if (!u->subscribes || a->word.kind != SUBSCRIPTION_SHARD) {
        note(e, u, a->word, &a->what);
        redis_push(e, u, a->message);
        return;
    }
    struct subscription *name =
        subscriptions_find(&subscriber_of(u->owner)->names[SUBSCRIPTION_SHARD],
                           a->what.name);
    if (a->word.type == PUBSUB_UNSUBSCRIBED && name != NULL &&
        name->lane == u) {
        subscriber_follow(e, u, name);
    }
    chain_clear(e->memory, &u->partial);
}

static bool take_confirmation(struct engine *e,
                              struct upstream *u,
                              const struct message *m,
                              struct pubsub_word word)
{
    struct arrival a = { .message = m, .word = word };
    void *copy = NULL;
    if (!message_whole(e, u, m, &a.whole, &copy)) {
        e->stats.limit_memory++;
        break_lane(e, u, "out of memory");
        return true;
    }
    bool taken = pubsub_confirmation_parse(a.whole, &a.what) &&
                 (a.what.name.data != NULL || word.type == PUBSUB_UNSUBSCRIBED);
    struct downstream *d = u->owner;
    struct request *r = first_in_flight(u);
    if (taken && r != NULL && handshake_subscribes(r)) {
        take_hidden(e, u, r, word, &a.what);
    } else if (taken) {
        if (is_due(u, subscriber_of(d), r, word) &&
            names_it(e, u, r, &a.what)) {
            note(e, u, word, &a.what);
            take_due(e, u, r, &a);
        } else {
            take_unasked(e, u, &a);
        }
        subscriber_mind(e, d);
        downstream_later(e, d); /* it may need the lane no more */
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

/* Whether what s is subscribed to is on u. */
static bool carries(const struct subscriber *s, const struct upstream *u)
{
    if (s == NULL || (!u->subscribes && u != u->owner->lane)) {
        return false;
    }
    if (!u->subscribes) {
        return subscriber_holds_lane(u->owner->ledger);
    }
    return u == s->plain ? s->monitors || s->n[SUBSCRIPTION_CHANNEL] > 0 ||
                               s->n[SUBSCRIPTION_PATTERN] > 0
                         : u->n_subscribed > 0;
}

bool subscriber_lost(struct engine *e,
                     struct upstream *u,
                     const struct upstream_loss *loss)
{
    const struct downstream *d = u->owner;
    struct subscriber *s = subscriber_of(d);
    if (!carries(s, u)) {
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
    if (s != NULL && s->lost_us != 0 && carries(s, u)) {
        if (!u->owner->closing) { /* it may have been refused */
            tell(e, u, "subscribed again", NULL, e->now_us - s->lost_us);
        }
        s->lost_us = 0;
    }
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

/* Whether it is to be said on u. */
static bool is_wanted(const struct subscription *name,
                      const struct upstream *u,
                      enum say_mode mode)
{
    return mode == SAY_PLAIN ||
           (name->lane == u && (mode == SAY_SHARDS || !name->confirmed));
}

/* The names from *at on that one command is good for: in front of a cluster shard
 * channels of one slot. Returns where the next one begins. */
static struct list_node *measure(const struct upstream *u,
                                 const struct subscriptions *names,
                                 struct list_node *at,
                                 enum say_mode mode,
                                 uint32_t *n,
                                 size_t *bytes)
{
    uint16_t slot = 0;
    *n = 0;
    *bytes = 64;
    for (; at != &names->all && *n < BATCH_NAMES && *bytes < BATCH_BYTES;
         at = at->next) {
        const struct subscription *name = subscription_of(at);
        if (!is_wanted(name, u, mode)) {
            continue;
        }
        uint16_t own = mode == SAY_PLAIN ? 0 : keyslot(subscription_name(name));
        if (*n > 0 && own != slot) {
            break;
        }
        slot = own;
        *bytes += name->len + 26;
        (*n)++;
    }
    return at;
}

bool subscriber_say_batch(struct engine *e,
                          struct upstream *u,
                          const struct subscriptions *names,
                          struct span word,
                          struct list_node **at,
                          enum say_mode mode)
{
    uint32_t n = 0;
    size_t bytes = 0;
    struct list_node *end = measure(u, names, *at, mode, &n, &bytes);
    if (n == 0) {
        *at = end;
        return true;
    }
    uint8_t *text = memory_take_raw(e->memory, bytes);
    if (text == NULL) {
        e->stats.limit_memory++;
        break_lane(e, u, "out of memory");
        return false;
    }
    size_t len = (size_t)snprintf((char *)text, 24, "*%u\r\n", (unsigned)n + 1);
    len += put_word(text + len, word);
    for (; *at != end; *at = (*at)->next) {
        struct subscription *name = subscription_of(*at);
        if (is_wanted(name, u, mode)) {
            len += put_word(text + len, subscription_name(name));
            name->confirmed = mode == SAY_PLAIN;
        }
    }
    bool said = handshake_subscribe(e, u, (struct span){ text, len }, n);
    memory_give(e->memory, text);
    return said;
}

static bool say_all(struct engine *e,
                    struct upstream *u,
                    enum subscription_kind kind)
{
    static const char *const words[SUBSCRIPTION_KINDS] = { "SUBSCRIBE",
                                                           "PSUBSCRIBE",
                                                           "SSUBSCRIBE" };
    const struct subscriptions *names = &subscriber_of(u->owner)->names[kind];
    struct list_node *at = names->all.next;
    while (at != &names->all) {
        if (!subscriber_say_batch(e, u, names, span_of(words[kind]), &at,
                                  SAY_PLAIN)) {
            return false;
        }
    }
    return true;
}

bool subscriber_establish(struct engine *e, struct upstream *u)
{
    const struct subscriber *s = subscriber_of(u->owner);
    if (!carries(s, u)) {
        return true;
    }
    u->dirty = true;
    u->listens = s->monitors || u->session->resp == 2;
    if (u->subscribes && u != s->plain) {
        return subscriber_say_shards(e, u, SAY_SHARDS);
    }
    return say_all(e, u, SUBSCRIPTION_CHANNEL) &&
           say_all(e, u, SUBSCRIPTION_PATTERN) &&
           (u->subscribes || say_all(e, u, SUBSCRIPTION_SHARD)) &&
           (!s->monitors ||
            handshake_subscribe(e, u, span_of("*1\r\n$7\r\nMONITOR\r\n"), 1));
}

void subscriber_reply(struct engine *e, struct upstream *u, struct span reply)
{
    if (reply.data[0] != '-') {
        return; /* MONITOR */
    }
    if (subscriber_refused(e, u, reply)) {
        return;
    }
    u->endpoint->cluster->stats.ledger_refused++;
    tell(e, u, "refused", "the server refuses to subscribe it again", 0);
    downstream_close(e, u->owner,
                     "its server connection was lost, and the server refuses "
                     "to subscribe it again");
}
