/* What a client makes of messages, confirmations and invalidations. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/client.h"
#include "tests/sim/cluster_model.h"
#include "tests/sim/pubsub.h"

enum {
    PARTS_OF_MESSAGE = 4
};

static bool has_subs(const struct client *c)
{
    return c->subs[SUB_CHANNEL] != 0 || c->subs[SUB_PATTERN] != 0 ||
           c->subs[SUB_SHARD] != 0;
}

static enum sub_kind kind_of_message(struct span word)
{
    for (int kind = 0; kind < SUB_KINDS; kind++) {
        if (span_equal(word, span_of(message_word((enum sub_kind)kind)))) {
            return (enum sub_kind)kind;
        }
    }
    return SUB_KINDS;
}

bool is_message(const struct client *c, struct span reply)
{
    struct span part[PARTS_OF_MESSAGE];
    if (reply.data[0] != '>' && (reply.data[0] != '*' || !has_subs(c))) {
        return false;
    }
    size_t n = model_parts(reply, part, PARTS_OF_MESSAGE);
    if (reply.data[0] == '>' && n != 3) {
        return true; /* an invalidation, say; not a confirmation */
    }
    return n >= 3 && part[0].data != NULL &&
           kind_of_message(part[0]) < SUB_KINDS;
}

/* --- messages ------------------------------------------------------------- */

void news_arrive(struct world *w, struct link *l)
{
    while (l->news_at < l->n_news &&
           l->news[l->news_at].end <= l->in.delivered) {
        const struct news *n = &l->news[l->news_at++];
        for (unsigned i = 0; i < w->n_clients; i++) {
            struct client *c = w->clients[i];
            if (c->id != n->client) {
                continue;
            }
            if (c->n_due == c->due_cap) {
                c->due_cap = c->due_cap * 2 + 32;
                c->due = must_grow(c->due, c->due_cap * sizeof c->due[0]);
            }
            c->due[c->n_due++] = *n;
        }
    }
}

static void on_message(struct world *w,
                       struct client *c,
                       enum sub_kind kind,
                       struct span name,
                       struct span message)
{
    uint64_t client;
    unsigned n;
    if (!channel_read(name, &client, &n) || client != c->id ||
        (c->subs[kind] >> n & 1) == 0) {
        world_violate(w,
                      "I30: client %" PRIu64
                      " got a message of %.*s, to which it has not subscribed",
                      c->id, (int)name.len, (const char *)name.data);
        return;
    }
    while (c->was_reset && c->due_at + 1 < c->n_due &&
           c->due[c->due_at].hash != hash_bytes(0, message.data, message.len)) {
        c->due_at++; /* of the connection before RESET */
    }
    if (c->due_at == c->n_due ||
        c->due[c->due_at].hash != hash_bytes(0, message.data, message.len)) {
        world_violate(w,
                      "I30: client %" PRIu64
                      " got a message of %.*s which is not the next one",
                      c->id, (int)name.len, (const char *)name.data);
        return;
    }
    uint64_t published = c->due[c->due_at++].published;
    if (published <= c->last_heard[kind][n]) {
        world_violate(w,
                      "I30: client %" PRIu64
                      " got a message of %.*s twice, or after a later one",
                      c->id, (int)name.len, (const char *)name.data);
    }
    c->last_heard[kind][n] = published;
    w->state.messages++;
}

/* --- invalidations -------------------------------------------------------- */

static void forget_key(struct client *c, struct span key)
{
    char name[24];
    for (unsigned i = 0; i < CACHED_MAX; i++) {
        snprintf(name, sizeof name, "s%u", c->cached[i].slot);
        if (key.data == NULL || span_equal(key, span_of(name))) {
            c->cached[i].known = false;
        }
    }
}

static bool asks_for_tracking(const struct world *w, const struct client *c)
{
    for (uint32_t i = 0; i < c->n_waiting; i++) {
        uint32_t request = c->waiting[(c->first + i) % CLIENT_WINDOW];
        if (history_at(w->history, request)->sets & SETS_TRACKING) {
            return true;
        }
    }
    return false;
}

/* ">2 invalidate [key...]", or null for all of them. */
static void on_invalidate(struct world *w, struct client *c, struct span push)
{
    static const char head[] = ">2\r\n$10\r\ninvalidate\r\n";
    struct span part[1];
    size_t n = sizeof head - 1;
    if (push.len < n || memcmp(push.data, head, n) != 0) {
        world_violate(w, "I30: client %" PRIu64 " got a push of another kind",
                      c->id);
        return;
    }
    if (!c->session.tracking && !c->session.unsure &&
        !asks_for_tracking(w, c)) {
        world_violate(w,
                      "I31: client %" PRIu64
                      " is told of keys although it has not asked",
                      c->id);
        return;
    }
    struct span list = { push.data + n, push.len - n };
    if (list.data[0] == '_') {
        w->state.flushes++;
        forget_key(c, (struct span){ 0 });
        return;
    }
    w->state.invalidations++;
    if (model_parts(list, part, 1) == 1) {
        forget_key(c, part[0]);
    }
}

void client_message(struct world *w, struct client *c, struct span message)
{
    struct span part[PARTS_OF_MESSAGE];
    size_t n = model_parts(message, part, PARTS_OF_MESSAGE);
    enum sub_kind kind = n < 3 ? SUB_KINDS : kind_of_message(part[0]);
    world_note(w, "message", c->link, 0, message);
    if (kind < SUB_KINDS) {
        on_message(w, c, kind, part[1], message);
    } else {
        on_invalidate(w, c, message);
    }
}

/* What a read of a whole value said. */
void client_caches(struct client *c,
                   const struct request_record *r,
                   struct span reply)
{
    unsigned slot = r->keys[0] & (SHARED_KEY - 1);
    if (!r->caches || !c->session.tracking || c->session.resp != 3 ||
        reply.data[0] != '$' || slot >= CACHED_MAX) {
        return;
    }
    c->cached[slot] = (struct cached){
        .known = true,
        .slot = (uint8_t)slot,
        .db = c->session.db,
        .hash = hash_bytes(0, reply.data, reply.len),
    };
}

/* --- confirmations -------------------------------------------------------- */

static unsigned count_bits(unsigned set)
{
    unsigned n = 0;
    for (; set != 0; set &= set - 1) {
        n++;
    }
    return n;
}

static unsigned count_for(const struct client *c, enum sub_kind kind)
{
    return kind == SUB_SHARD ? count_bits(c->subs[SUB_SHARD])
                             : count_bits(c->subs[SUB_CHANNEL]) +
                                   count_bits(c->subs[SUB_PATTERN]);
}

/* The channel that must be confirmed next: the i-th of the set. */
static unsigned nth(unsigned set, unsigned i)
{
    unsigned n = 0;
    while (i > 0 || (set >> n & 1) == 0) {
        i -= set >> n & 1;
        n++;
    }
    return n;
}

static void wrong(struct world *w, const struct client *c, const char *what)
{
    world_violate(w, "I30: client %" PRIu64 " got a confirmation %s", c->id,
                  what);
}

/* Whether the confirmation is for that channel; sets *n. NULL stands for none,
 * when there is nothing to unsubscribe from. */
static bool names_next(const struct client *c,
                       const struct request_record *r,
                       struct span name,
                       unsigned *n)
{
    char text[NAME_MAX];
    uint64_t client;
    enum sub_kind kind = (enum sub_kind)r->sub_kind;
    if (r->channels != 0) {
        *n = nth(r->channels, c->confirmed);
        channel_name(kind, c->id, *n, text, sizeof text);
        return span_equal(name, span_of(text));
    }
    if (c->subs[kind] == 0) {
        return name.data == NULL;
    }
    return name.data != NULL && channel_read(name, &client, n) &&
           client == c->id && (c->subs[kind] >> *n & 1) != 0;
}

bool client_confirmed(struct world *w,
                      struct client *c,
                      uint32_t request,
                      struct span reply)
{
    static const char *const words[SUB_KINDS] = { "subscribe", "psubscribe",
                                                  "ssubscribe" };
    static const char *const unwords[SUB_KINDS] = { "unsubscribe",
                                                    "punsubscribe",
                                                    "sunsubscribe" };
    const struct request_record *r = history_at(w->history, request);
    enum sub_kind kind = (enum sub_kind)r->sub_kind;
    struct span part[PARTS_OF_MESSAGE];
    unsigned n = CHANNELS;
    const char *word = r->unsubscribes ? unwords[kind] : words[kind];
    if ((reply.data[0] == '>') != (c->session.resp == 3)) {
        wrong(w, c, "of the wrong RESP version");
        return true;
    }
    if (model_parts(reply, part, PARTS_OF_MESSAGE) != 3 ||
        !span_equal(part[0], span_of(word)) || !names_next(c, r, part[1], &n)) {
        wrong(w, c, "that is not its next one");
        return true;
    }
    if (n < CHANNELS && r->unsubscribes) {
        c->subs[kind] &= (uint8_t) ~(1u << n);
    } else if (n < CHANNELS) {
        c->subs[kind] |= (uint8_t)(1u << n);
    }
    c->session.subscribed = has_subs(c);
    char count[16];
    snprintf(count, sizeof count, "%u", count_for(c, kind));
    /* Of shard channels the number is of one node, and slots may move. */
    bool counts = w->cluster == NULL || kind != SUB_SHARD;
    if (counts && !span_equal(part[2], span_of(count))) {
        wrong(w, c, "with another number of subscriptions");
    }
    c->confirmed++;
    bool last = r->channels != 0 ? c->confirmed == count_bits(r->channels)
                                 : c->subs[kind] == 0;
    c->confirmed = last ? 0 : c->confirmed;
    return last;
}

void client_unsubscribed(struct client *c)
{
    memset(c->subs, 0, sizeof c->subs);
    c->was_reset = true;
    forget_key(c, (struct span){ 0 });
}
