/* Channels at the model server. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/client.h"
#include "tests/sim/cluster_model.h"
#include "tests/sim/pubsub.h"
#include "tests/sim/server_parts.h"

/* --- names --------------------------------------------------------------- */

void channel_name(enum sub_kind kind,
                  uint64_t client,
                  unsigned n,
                  char *text,
                  size_t size)
{
    if (kind == SUB_SHARD) {
        snprintf(text, size, "{s%" PRIu64 "}.%u", client, n);
    } else if (kind == SUB_PATTERN && n == 0) {
        snprintf(text, size, "ch%" PRIu64 ".*", client);
    } else {
        snprintf(text, size,
                 kind == SUB_PATTERN ? "ch%" PRIu64 ".%u*" : "ch%" PRIu64 ".%u",
                 client, n);
    }
}

bool channel_read(struct span name, uint64_t *client, unsigned *n)
{
    char text[NAME_MAX];
    if (name.len < 5 || name.len >= sizeof text) {
        return false;
    }
    memcpy(text, name.data, name.len);
    text[name.len] = '\0';
    char *dot;
    if (strncmp(text, "ch", 2) != 0 && strncmp(text, "{s", 2) != 0) {
        return false;
    }
    *client = strtoull(text + 2, &dot, 10);
    dot += *dot == '}';
    *n = dot[1] == '*' ? 0 : (unsigned)(dot[1] - '0');
    return *dot == '.' && *n < CHANNELS;
}

const char *message_word(enum sub_kind kind)
{
    return kind == SUB_CHANNEL   ? "message"
           : kind == SUB_PATTERN ? "pmessage"
                                 : "smessage";
}

/* --- subscriptions -------------------------------------------------------- */

static unsigned subs_count(const struct session *c, bool shards)
{
    unsigned n = 0;
    for (size_t i = 0; i < c->n_subs; i++) {
        n += (c->subs[i].kind == SUB_SHARD) == shards;
    }
    return n;
}

static size_t sub_find(const struct session *c,
                       enum sub_kind kind,
                       struct span name)
{
    size_t i = 0;
    while (i < c->n_subs && (c->subs[i].kind != kind ||
                             !span_equal(span_of(c->subs[i].name), name))) {
        i++;
    }
    return i;
}

static void confirm(const struct session *c,
                    enum sub_kind kind,
                    bool on,
                    struct span name,
                    struct bytes *out)
{
    static const char *const letter[SUB_KINDS] = { "", "p", "s" };
    char word[24];
    snprintf(word, sizeof word, "%s%ssubscribe", letter[kind], on ? "" : "un");
    bytes_add_text(out, c->ledger.resp == 3 ? ">3\r\n" : "*3\r\n");
    model_bulk_add(out, span_of(word));
    if (name.data == NULL) {
        model_null_add(out, c->ledger.resp);
    } else {
        model_bulk_add(out, name);
    }
    bytes_printf(out, ":%u\r\n", subs_count(c, kind == SUB_SHARD));
}

static void subscribe(struct session *c, enum sub_kind kind, struct span name)
{
    if (sub_find(c, kind, name) < c->n_subs || name.len >= NAME_MAX) {
        return;
    }
    if (c->n_subs == c->subs_cap) {
        c->subs_cap = c->subs_cap * 2 + 8;
        c->subs = must_grow(c->subs, c->subs_cap * sizeof c->subs[0]);
    }
    struct subscription *s = &c->subs[c->n_subs++];
    *s = (struct subscription){ .kind = kind };
    memcpy(s->name, name.data, name.len);
}

static void sub_drop(struct session *c, size_t i)
{
    c->n_subs--;
    memmove(&c->subs[i], &c->subs[i + 1], (c->n_subs - i) * sizeof c->subs[0]);
}

static void on_subscribe(struct session *c,
                         enum sub_kind kind,
                         const struct model_command *m,
                         struct bytes *out)
{
    for (size_t i = 1; i < m->argc; i++) {
        subscribe(c, kind, m->arg[i]);
        confirm(c, kind, true, m->arg[i], out);
    }
}

/* All of a kind; the youngest first. */
static void unsubscribe_all(struct session *c,
                            enum sub_kind kind,
                            struct bytes *out)
{
    bool any = false;
    for (size_t i = c->n_subs; i-- > 0;) {
        if (c->subs[i].kind == kind) {
            struct subscription gone = c->subs[i];
            sub_drop(c, i);
            confirm(c, kind, false, span_of(gone.name), out);
            any = true;
        }
    }
    if (!any) {
        confirm(c, kind, false, (struct span){ 0 }, out);
    }
}

static void on_unsubscribe(struct session *c,
                           enum sub_kind kind,
                           const struct model_command *m,
                           struct bytes *out)
{
    if (m->argc == 1) {
        unsubscribe_all(c, kind, out);
    }
    for (size_t i = 1; i < m->argc; i++) {
        size_t at = sub_find(c, kind, m->arg[i]);
        if (at < c->n_subs) {
            sub_drop(c, at);
        }
        confirm(c, kind, false, m->arg[i], out);
    }
}

void shards_leave(struct world *w, struct server *s, int slot)
{
    for (struct session *c = s->sessions; c != NULL; c = c->next) {
        for (size_t i = c->n_subs; i-- > 0 && !c->dead;) {
            struct subscription gone = c->subs[i];
            struct bytes out = { 0 };
            if (gone.kind == SUB_SHARD &&
                (slot < 0 || model_slot(span_of(gone.name)) == slot)) {
                sub_drop(c, i);
                confirm(c, SUB_SHARD, false, span_of(gone.name), &out);
                session_send(w, c, &out);
            }
            bytes_fini(&out);
        }
    }
}

/* --- messages ------------------------------------------------------------- */

static bool matches(const struct subscription *s,
                    bool shard,
                    struct span channel)
{
    size_t n = strlen(s->name);
    if ((s->kind == SUB_SHARD) != shard) {
        return false;
    }
    if (s->kind != SUB_PATTERN) {
        return span_equal(span_of(s->name), channel);
    }
    return channel.len >= n - 1 && memcmp(channel.data, s->name, n - 1) == 0;
}

/* What is sent may arrive, or be lost with its connection. */
static void news_add(struct link *l,
                     const struct subscription *s,
                     uint64_t published,
                     struct span message)
{
    struct news n = {
        .end = l->in.delivered + l->in.data.size,
        .published = published,
        .hash = hash_bytes(0, message.data, message.len),
        .kind = (uint8_t)s->kind,
    };
    unsigned channel;
    if (!channel_read(span_of(s->name), &n.client, &channel)) {
        return;
    }
    n.channel = (uint8_t)channel;
    if (l->n_news == l->news_cap) {
        l->news_cap = l->news_cap * 2 + 16;
        l->news = must_grow(l->news, l->news_cap * sizeof l->news[0]);
    }
    l->news[l->n_news++] = n;
}

static void message(struct world *w,
                    struct session *c,
                    const struct subscription *s,
                    struct span channel,
                    struct span payload)
{
    struct bytes out = { 0 };
    struct link *l = c->link;
    bytes_printf(&out, "%c%d\r\n", c->ledger.resp == 3 ? '>' : '*',
                 s->kind == SUB_PATTERN ? 4 : 3);
    model_bulk_add(&out, span_of(message_word(s->kind)));
    if (s->kind == SUB_PATTERN) {
        model_bulk_add(&out, span_of(s->name));
    }
    model_bulk_add(&out, channel);
    model_bulk_add(&out, payload);
    uint64_t before = l == NULL ? 0 : l->in.data.size;
    session_send(w, c, &out);
    if (l != NULL && l->in.data.size > before) {
        news_add(l, s, w->published, bytes_span(&out));
    }
    bytes_fini(&out);
}

static unsigned publish_here(struct world *w,
                             struct server *s,
                             bool shard,
                             struct span channel,
                             struct span payload)
{
    unsigned n = 0;
    for (struct session *c = s->sessions; c != NULL; c = c->next) {
        for (int pass = 0; pass < 2 && !c->dead; pass++) {
            for (size_t i = 0; i < c->n_subs; i++) {
                const struct subscription *sub = &c->subs[i];
                if ((sub->kind == SUB_PATTERN) == (pass == 1) &&
                    matches(sub, shard, channel)) {
                    message(w, c, sub, channel, payload);
                    n++;
                }
            }
        }
    }
    return n;
}

/* Other nodes have it at once: nothing is lost between them. */
static bool hears(const struct node *n, const struct node *at, bool shard)
{
    return n != at && n->member && n->server.up &&
           (!shard || replicates(n, at));
}

/* Nothing goes wrong, or has for long enough. */
static bool is_calm(const struct world *w)
{
    uint64_t calm_us = w->healed_us + w->upstream->deadline_us + 1000000;
    bool faultless = true;
    for (unsigned i = 0; i < FAULT_COUNT; i++) {
        faultless = faultless && w->settings.rate[i] == 0;
    }
    return faultless || (w->healed && w->now_us > calm_us);
}

/* Its subscriptions are about to change. */
static bool is_changing(const struct world *w, const struct client *c)
{
    for (uint32_t i = 0; i < c->n_waiting; i++) {
        const struct request_record *r =
            history_at(w->history, c->waiting[(c->first + i) % CLIENT_WINDOW]);
        if (r->expect == EXPECT_CONFIRM || r->expect == EXPECT_RESET) {
            return true;
        }
    }
    return c->quitting || c->engine_closed;
}

/* Who has subscribed gets it while all is well. */
static void check_heard(struct world *w,
                        bool shard,
                        struct span channel,
                        unsigned n)
{
    uint64_t id;
    unsigned which;
    if (n > 0 || !is_calm(w) || !channel_read(channel, &id, &which)) {
        return;
    }
    for (unsigned i = 0; i < w->n_clients; i++) {
        const struct client *c = w->clients[i];
        bool hears = shard ? c->subs[SUB_SHARD] >> which & 1
                           : (c->subs[SUB_CHANNEL] >> which & 1) ||
                                 (c->subs[SUB_PATTERN] & (1u << which | 1));
        if (c->id == id && hears && !is_changing(w, c)) {
            world_violate(w,
                          "I30: nobody heard a message for client %" PRIu64
                          " although all is well",
                          c->id);
        }
    }
}

unsigned publish(struct world *w,
                 struct server *s,
                 bool shard,
                 struct span channel,
                 struct span payload)
{
    w->published++;
    unsigned n = publish_here(w, s, shard, channel, payload);
    unsigned others = 0;
    for (unsigned i = 0; w->cluster != NULL && i < w->cluster->n_nodes; i++) {
        struct node *other = w->cluster->nodes[i];
        if (hears(other, (struct node *)s, shard)) {
            others += publish_here(w, &other->server, shard, channel, payload);
        }
    }
    check_heard(w, shard, channel, n + others);
    return n;
}

/* --- commands ------------------------------------------------------------- */

static const struct {
    const char *name;
    enum sub_kind kind;
    bool on;
} words[] = {
    { "SUBSCRIBE", SUB_CHANNEL, true },  { "UNSUBSCRIBE", SUB_CHANNEL, false },
    { "PSUBSCRIBE", SUB_PATTERN, true }, { "PUNSUBSCRIBE", SUB_PATTERN, false },
    { "SSUBSCRIBE", SUB_SHARD, true },   { "SUNSUBSCRIBE", SUB_SHARD, false },
};

enum {
    WORDS = sizeof words / sizeof words[0]
};

bool pubsub_allows(const struct model_command *m)
{
    for (size_t i = 0; i < WORDS; i++) {
        if (model_arg_is(m, 0, words[i].name)) {
            return true;
        }
    }
    return model_arg_is(m, 0, "PING");
}

bool pubsub_command(struct world *w,
                    struct session *c,
                    const struct model_command *m,
                    uint32_t request,
                    struct span raw,
                    struct bytes *out)
{
    bool shard = model_arg_is(m, 0, "SPUBLISH");
    if ((shard || model_arg_is(m, 0, "PUBLISH")) && m->argc == 3) {
        unsigned n = publish(w, c->server, shard, m->arg[1], m->arg[2]);
        bytes_printf(out, ":%u\r\n", n);
        command_executed(w, c, request, raw, out);
        return true;
    }
    for (size_t i = 0; i < WORDS; i++) {
        if (model_arg_is(m, 0, words[i].name)) {
            if (words[i].on) {
                on_subscribe(c, words[i].kind, m, out);
            } else {
                on_unsubscribe(c, words[i].kind, m, out);
            }
            return true;
        }
    }
    return false;
}
