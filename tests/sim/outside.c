#include "tests/sim/outside.h"

#include <inttypes.h>
#include <stdio.h>

#include "tests/sim/cluster_model.h"
#include "tests/sim/draft.h"
#include "tests/sim/pubsub.h"

enum {
    EVERY_US = 20000,
    WORDS = 8
};

/* Whether the server takes a write on that key now, from anybody. */
static bool serves(const struct world *w, const struct server *s, unsigned slot)
{
    if (!s->up || s->stopped || s->loading_until > w->now_us ||
        s->readonly_until > w->now_us) {
        return false;
    }
    if (w->cluster == NULL) {
        return true;
    }
    const struct node *n = (const struct node *)s;
    return n->member && !n->replica && !n->doomed &&
           n->down_until <= w->now_us && n->owner[slot] == n->index &&
           move_of(w->cluster, slot) == NULL;
}

/* The server that serves a key; NULL: none now. */
static struct server *server_for(struct world *w, struct span key)
{
    unsigned slot = w->cluster == NULL ? 0 : model_slot(key);
    struct server *s =
        w->cluster == NULL
            ? w->server
            : &w->cluster->nodes[w->cluster->owner[slot]]->server;
    return serves(w, s, slot) ? s : NULL;
}

static void execute(struct world *w,
                    struct server *s,
                    uint8_t db,
                    const struct span *words,
                    size_t n)
{
    struct bytes command = { 0 };
    struct bytes reply = { 0 };
    struct model_command m;
    model_command_add(&command, words, n);
    if (model_command_read(bytes_span(&command), &m) == MODEL_DONE) {
        world_note(w, "others", NULL, db, bytes_span(&command));
        data_command(s->data, (struct ledger){ .resp = 2, .db = db }, &m,
                     &reply);
        if (w->cluster != NULL) {
            effect_add(w, (struct node *)s, NO_REQUEST, bytes_span(&command));
        }
        server_changed(w, s);
    }
    bytes_fini(&command);
    bytes_fini(&reply);
}

/* A text that nobody has used before. */
static void fresh_value(struct world *w, char *text, size_t size)
{
    snprintf(text, size, "o%" PRIu64, ++w->outside);
}

static void set(struct world *w, uint8_t db, const char *key)
{
    char value[32];
    struct server *s = server_for(w, span_of(key));
    fresh_value(w, value, sizeof value);
    struct span words[] = { span_of("SET"), span_of(key), span_of(value) };
    if (s != NULL) {
        execute(w, s, db, words, 3);
    }
}

/* --- what they do --------------------------------------------------------- */

static void change_watched(struct world *w, const struct client *c)
{
    char key[64];
    watch_key_name(w, c, key, sizeof key);
    if (c->n_watches > 0) {
        set(w, c->session.db, key);
    }
}

static void change_cached(struct world *w, const struct client *c)
{
    char key[16];
    snprintf(key, sizeof key, "s%u", (unsigned)pick(w, 0, CACHED_MAX - 1));
    if (c->session.tracking) {
        set(w, c->session.db, key);
    }
}

static void tell(struct world *w, const struct client *c)
{
    char channel[NAME_MAX];
    char payload[32];
    bool shard = chance(w, 1, 3);
    channel_name(shard ? SUB_SHARD : SUB_CHANNEL, c->id,
                 (unsigned)pick(w, 0, CHANNELS - 1), channel, sizeof channel);
    struct server *s = server_for(w, span_of(channel));
    if (s == NULL || !c->session.subscribed) {
        return;
    }
    fresh_value(w, payload, sizeof payload);
    world_note(w, "publish", NULL, 0, span_of(channel));
    publish(w, s, shard, span_of(channel), span_of(payload));
}

/* Put something where a session waits. */
static void feed(struct world *w, struct session *c)
{
    struct model_command m;
    char value[32];
    if (model_command_read(bytes_span(&c->blocked_words), &m) != MODEL_DONE) {
        return;
    }
    bool stream = model_arg_is(&m, 0, "XREAD");
    bool zset = model_arg_is(&m, 0, "BZPOPMIN");
    struct span key = m.arg[stream ? m.argc - 2 : 1];
    struct server *s = server_for(w, key);
    fresh_value(w, value, sizeof value);
    struct span push[] = { span_of("RPUSH"), key, span_of(value) };
    struct span zadd[] = { span_of("ZADD"), key, span_of("5"), span_of(value) };
    struct span xadd[] = { span_of("XADD"), key, span_of("*"), span_of("f"),
                           span_of(value) };
    struct bytes copy = { 0 };
    if (s != NULL && s == c->server) {
        /* the words above lie in what is freed when it is served */
        bytes_add(&copy, key.data, key.len);
        push[1] = zadd[1] = xadd[1] = bytes_span(&copy);
        execute(w, s, c->ledger.db,
                stream ? xadd
                : zset ? zadd
                       : push,
                stream ? 5
                : zset ? 4
                       : 3);
        bytes_fini(&copy);
    }
}

static struct server *server_at(const struct world *w, unsigned i)
{
    return w->cluster == NULL ? w->server : &w->cluster->nodes[i]->server;
}

/* Once clients ask for nothing more, nobody is left to wait. */
static void feed_some(struct world *w)
{
    unsigned n = w->cluster == NULL ? 1 : w->cluster->n_nodes;
    for (unsigned i = 0; i < n; i++) {
        struct server *s = server_at(w, i);
        for (struct session *c = s->sessions; c != NULL; c = c->next) {
            if (c->blocked && (w->finished || chance(w, 1, 10))) {
                feed(w, c);
            }
        }
    }
}

void outside_act(struct world *w)
{
    const struct client *c = w->clients[pick(w, 0, w->n_clients - 1)];
    world_wake(w, EVERY_US, WAKE_OUTSIDE, NULL, 0);
    feed_some(w);
    if (w->at_rest) {
        return;
    }
    switch (pick(w, 0, 5)) {
    case 0: change_watched(w, c); break;
    case 1: change_cached(w, c); break;
    case 2:
    case 3: tell(w, c); break;
    default: break;
    }
}

void outside_begin(struct world *w)
{
    if (w->settings.stateful) {
        world_wake(w, EVERY_US, WAKE_OUTSIDE, NULL, 0);
    }
}

size_t outside_stream_length(struct world *w, uint8_t db)
{
    static const char key[] = "{st}0";
    unsigned slot = w->cluster == NULL ? 0 : model_slot(span_of(key));
    struct server *s =
        w->cluster == NULL
            ? w->server
            : &w->cluster->nodes[w->cluster->owner[slot]]->server;
    return data_length(data_at(s->data, db, span_of(key)));
}
