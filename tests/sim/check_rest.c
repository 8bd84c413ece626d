/* What must hold when nobody waits for anything any more: the servers know
 * what the clients believe, and nothing else is left in any connection. */
#include <inttypes.h>
#include <stdio.h>

#include "tests/sim/client.h"
#include "tests/sim/cluster_model.h"
#include "tests/sim/pubsub.h"

static struct server *server_at(const struct world *w, unsigned i)
{
    return w->cluster == NULL ? w->server : &w->cluster->nodes[i]->server;
}

static unsigned servers(const struct world *w)
{
    return w->cluster == NULL ? 1 : w->cluster->n_nodes;
}

static struct client *client_of(const struct world *w, uint64_t id)
{
    for (unsigned i = 0; i < w->n_clients; i++) {
        if (w->clients[i]->id == id) {
            return w->clients[i];
        }
    }
    return NULL;
}

/* How many connections have that subscription. */
static unsigned subscribed(const struct world *w,
                           const struct client *c,
                           enum sub_kind kind,
                           unsigned n)
{
    unsigned count = 0;
    char name[NAME_MAX];
    channel_name(kind, c->id, n, name, sizeof name);
    for (unsigned i = 0; i < servers(w); i++) {
        for (const struct session *s = server_at(w, i)->sessions; s != NULL;
             s = s->next) {
            for (size_t k = 0; k < s->n_subs && !s->dead; k++) {
                count += s->subs[k].kind == kind &&
                         strcmp(s->subs[k].name, name) == 0;
            }
        }
    }
    return count;
}

static void check_subscriptions(struct world *w, const struct client *c)
{
    if (c->due_at != c->n_due && !c->was_reset) {
        world_violate(w, "I30: client %" PRIu64 " did not get %zu messages",
                      c->id, c->n_due - c->due_at);
    }
    for (int kind = 0; kind < SUB_KINDS; kind++) {
        for (unsigned n = 0; n < CHANNELS; n++) {
            unsigned want = c->subs[kind] >> n & 1;
            unsigned have = subscribed(w, c, (enum sub_kind)kind, n);
            if (want != have) {
                world_violate(w,
                              "I30: %u connections have subscribed to channel "
                              "%u of kind %d for client %" PRIu64
                              ", which has subscribed %u times",
                              have, n, kind, c->id, want);
            }
        }
    }
}

static struct server *owner_of(const struct world *w, const char *key)
{
    if (w->cluster == NULL) {
        return w->server;
    }
    uint8_t owner = w->cluster->owner[model_slot(span_of(key))];
    return &w->cluster->nodes[owner]->server;
}

static void check_cache(struct world *w, const struct client *c)
{
    for (unsigned i = 0; i < CACHED_MAX; i++) {
        const struct cached *k = &c->cached[i];
        char key[24];
        struct bytes now = { 0 };
        snprintf(key, sizeof key, "s%u", k->slot);
        struct data *data = owner_of(w, key)->data;
        model_bulk_add(&now, data_text(data_at(data, k->db, span_of(key))));
        if (k->known && k->hash != hash_bytes(0, bytes_front(&now), now.size)) {
            world_violate(w,
                          "I31: client %" PRIu64
                          " holds an old value of %s in db %u and was not told",
                          c->id, key, k->db);
        }
        bytes_fini(&now);
    }
}

/* What is left in a connection must be somebody's who is still there. */
static void check_session(struct world *w, const struct session *s)
{
    for (size_t i = 0; i < s->n_subs; i++) {
        uint64_t id;
        unsigned n;
        if (channel_read(span_of(s->subs[i].name), &id, &n) &&
            client_of(w, id) == NULL) {
            world_violate(w, "I29: a connection has a subscription of a client "
                             "that is gone");
        }
    }
    bool room = w->upstream->held_requests_max >= 1000; /* history_block.c */
    for (unsigned i = 0; i < s->n_watched && room; i++) {
        uint32_t request = s->watched[i].request;
        const struct client *c =
            request == NO_REQUEST
                ? NULL
                : client_of(w, history_at(w->history, request)->client);
        if (request != NO_REQUEST &&
            (c == NULL || (c->n_watches == 0 && !c->may_watch))) {
            const struct request_record *r = history_at(w->history, request);
            world_violate(w,
                          "I29: a connection still has the WATCH that was "
                          "request %" PRIu32 " of client %" PRIu64
                          ", who watches nothing",
                          r->index, r->client);
        }
    }
}

static void check_sessions(struct world *w)
{
    unsigned tracking = 0;
    unsigned blocks = 0;
    unsigned wanted = 0;
    unsigned open = 0;
    for (unsigned i = 0; i < servers(w); i++) {
        for (const struct session *s = server_at(w, i)->sessions; s != NULL;
             s = s->next) {
            if (!s->dead) {
                check_session(w, s);
                tracking += s->ledger.tracking;
                blocks += s->in_multi;
            }
        }
    }
    for (unsigned i = 0; i < w->n_clients; i++) {
        const struct client *c = w->clients[i];
        wanted += c->session.tracking || c->session.unsure || c->never_reads;
        open += c->block != 0 || c->never_reads;
    }
    if (tracking > wanted && w->cluster == NULL) {
        world_violate(w, "I29: %u connections track keys for %u clients",
                      tracking, wanted);
    }
    if (blocks > open) {
        world_violate(w, "I29: %u connections are in a MULTI of %u clients",
                      blocks, open);
    }
}

void rest_check(struct world *w)
{
    for (unsigned i = 0; i < w->n_clients && !world_broken(w); i++) {
        const struct client *c = w->clients[i];
        if (!c->never_reads && !c->quitting && c->link != NULL) {
            check_subscriptions(w, c);
            check_cache(w, c);
        }
    }
    if (!world_broken(w)) {
        check_sessions(w);
    }
}
