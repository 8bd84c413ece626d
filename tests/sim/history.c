#include "tests/sim/history.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#include "tests/sim/client.h"
#include "tests/sim/cluster_model.h"
#include "tests/sim/history_parts.h"

enum {
    KEY_MAPS = 1 << 14
};
struct history *history_new(void)
{
    struct history *h = must_alloc(sizeof *h);
    h->places = 1 << 12;
    h->names = must_alloc(h->places * sizeof h->names[0]);
    h->requests = must_alloc(h->places * sizeof h->requests[0]);
    h->key_places = KEY_MAPS;
    h->keys = must_alloc(h->key_places * sizeof h->keys[0]);
    return h;
}

void history_free(struct history *h)
{
    free(h->records);
    free(h->names);
    free(h->requests);
    free(h->keys);
    free(h);
}

/* --- names ------------------------------------------------------------- */

static size_t place_of(const struct history *h, uint64_t name)
{
    size_t i = name & (h->places - 1);
    while (h->names[i] != 0 && h->names[i] != name) {
        i = (i + 1) & (h->places - 1);
    }
    return i;
}

/* Commands that may wait begin so; others are not looked at any further. */
static bool may_wait(struct span words)
{
    size_t lines = 0;
    size_t i = 0;
    while (i < words.len && i < 12 && lines < 2) {
        lines += words.data[i++] == '\n';
    }
    return i < words.len && (words.data[i] == 'B' || words.data[i] == 'X');
}

/* A request that waits may go out again with the time that is left, and an
 * XREAD with the ids "$" stood for: what of it stays the same. */
static uint64_t name_of_waiting(const struct model_command *m)
{
    size_t last = m->argc - 1;
    size_t first_id = m->argc;
    uint64_t name = m->argc;
    for (size_t i = 0; i < m->argc && model_arg_is(m, 0, "XREAD"); i++) {
        if (model_arg_is(m, i, "BLOCK")) {
            last = i + 1;
        } else if (model_arg_is(m, i, "STREAMS")) {
            first_id = i + 1 + (m->argc - i - 1) / 2;
        }
    }
    for (size_t i = 0; i < m->argc; i++) {
        if (i != last && i < first_id) {
            name = hash_bytes(name, m->arg[i].data, m->arg[i].len);
        }
    }
    return name | 1;
}

static uint64_t name_of(struct span words)
{
    struct model_command m;
    uint64_t timeout_us;
    if (may_wait(words) && model_command_read(words, &m) == MODEL_DONE &&
        model_blocks(&m, &timeout_us)) {
        return name_of_waiting(&m);
    }
    return hash_bytes(0, words.data, words.len) | 1;
}

static void names_grow(struct history *h)
{
    struct history old = *h;
    h->places *= 4;
    h->names = must_alloc(h->places * sizeof h->names[0]);
    h->requests = must_alloc(h->places * sizeof h->requests[0]);
    for (size_t i = 0; i < old.places; i++) {
        if (old.names[i] != 0) {
            size_t place = place_of(h, old.names[i]);
            h->names[place] = old.names[i];
            h->requests[place] = old.requests[i];
        }
    }
    free(old.names);
    free(old.requests);
}

uint32_t history_find(const struct history *h, struct span words)
{
    size_t place = place_of(h, name_of(words));
    return h->names[place] == 0 ? NO_REQUEST : h->requests[place];
}

uint32_t history_add(struct history *h,
                     const struct request_record *r,
                     struct span words)
{
    if (r->tracked && history_find(h, words) != NO_REQUEST) {
        return NO_REQUEST;
    }
    if (h->n == h->cap) {
        h->cap = h->cap * 2 + 1024;
        h->records = must_grow(h->records, h->cap * sizeof h->records[0]);
    }
    uint32_t request = (uint32_t)h->n++;
    h->records[request] = *r;
    if (r->tracked) {
        if (h->n * 2 > h->places) {
            names_grow(h);
        }
        size_t place = place_of(h, name_of(words));
        h->names[place] = name_of(words);
        h->requests[place] = request;
    }
    return request;
}

struct request_record *history_at(struct history *h, uint32_t request)
{
    assert(request < h->n);
    return &h->records[request];
}

size_t history_count(const struct history *h)
{
    return h->n;
}

/* --- order of keys (I5) ------------------------------------------------ */

struct key_order *key_find(struct history *h, uint64_t client, uint32_t key)
{
    uint64_t name = (client << 32 | key) * 0x9e3779b97f4a7c15u | 1;
    size_t i = (name >> 20) & (h->key_places - 1);
    while (h->keys[i].name != 0 && h->keys[i].name != name) {
        i = (i + 1) & (h->key_places - 1);
    }
    if (h->keys[i].name == 0) {
        h->keys[i].name = name;
        h->n_keys++;
    }
    return &h->keys[i];
}

static void keys_grow(struct history *h)
{
    struct key_order *old = h->keys;
    size_t places = h->key_places;
    h->key_places *= 4;
    h->keys = must_alloc(h->key_places * sizeof h->keys[0]);
    for (size_t k = 0; k < places; k++) {
        if (old[k].name == 0) {
            continue;
        }
        size_t i = (old[k].name >> 20) & (h->key_places - 1);
        while (h->keys[i].name != 0) {
            i = (i + 1) & (h->key_places - 1);
        }
        h->keys[i] = old[k];
    }
    free(old);
}

static void check_order(struct world *w, struct request_record *r)
{
    bool unknown = r->answer == ANSWER_UNKNOWN || r->answer == ANSWER_LOST;
    struct history *h = w->history;
    if (h->n_keys * 2 > h->key_places) {
        keys_grow(h);
    }
    for (unsigned i = 0; i < KEYS_PER_REQUEST; i++) {
        if (r->keys[i] == NO_KEY) {
            continue;
        }
        struct key_order *k = key_find(h, r->client, r->keys[i]);
        uint32_t mine = r->index + 1;
        if (r->executions == 0 && k->last_write > mine) {
            r->overtaken = true; /* allowed when its client is not told */
        }
        /* A later read that saw the time before this write is read again,
         * if at all: its first reply is not the measure then. */
        bool unread = r->executions == 0 && k->last_read > mine;
        if (r->writes && (unknown || r->overtaken || unread)) {
            k->disturbed = true;
        }
        uint32_t *last = r->writes ? &k->last_write : &k->last_read;
        if (mine > *last) {
            *last = mine;
        }
    }
}

/* --- the server's side ------------------------------------------------- */

/* Whether the class may run twice at the level in effect. */
static bool may_repeat(const struct world *w, uint8_t class)
{
    enum replay_level level = w->upstream->replay;
    switch ((enum command_class) class) {
    case CLASS_R:
    case CLASS_RN: return true; /* no effect; any number */
    case CLASS_I:
    case CLASS_T: return level >= REPLAY_IDEMPOTENT;
    case CLASS_S: return level >= REPLAY_CONVERGENT;
    case CLASS_D:
    case CLASS_N:
    case CLASS_BN:
    case CLASS_U: return level == REPLAY_ALL;
    default: return false;
    }
}

/* What waits behind a request that a living server takes its time for is not
 * late: a direct connection would let it wait, too. */
static struct client *client_find(struct world *w, uint64_t id)
{
    for (unsigned i = 0; i < w->n_clients; i++) {
        if (w->clients[i]->id == id) {
            return w->clients[i];
        }
    }
    return NULL;
}

void history_served(struct world *w, uint64_t client)
{
    struct client *c = client_find(w, client);
    if (c != NULL) {
        c->served_us = w->now_us;
    }
}

static void check_late(struct world *w, const struct request_record *r)
{
    switch ((enum answer)r->answer) {
    case ANSWER_NOT_APPLIED:
    case ANSWER_REFUSED:
    case ANSWER_DISCARDED:
        world_violate(w,
                      "I9: request %" PRIu32 " of client %" PRIu64
                      " ran although its client was told that it did not",
                      r->index, r->client);
        break;
    case ANSWER_REPLY:
        if (r->writes && (r->expect != EXPECT_QUEUED || r->settled)) {
            world_violate(w,
                          "I7: an old copy of request %" PRIu32
                          " of client %" PRIu64 " ran after its reply",
                          r->index, r->client);
        }
        break;
    case ANSWER_NONE:
    case ANSWER_UNKNOWN:
    case ANSWER_LOST: break;
    }
}

/* Two runs of one request: all but the name, which a lane may lack. */
static bool ledger_agrees(struct ledger a, struct ledger b)
{
    a.name = 0;
    a.no_evict = b.no_evict;
    a.no_touch = b.no_touch;
    return ledger_fits(a, b);
}

/* The request of a client that a part belongs to, or itself. */
static struct request_record *whole_of(struct world *w,
                                       struct request_record *r)
{
    return r->whole == 0 ? r : history_at(w->history, r->whole - 1);
}

void history_lose(struct world *w, uint32_t request)
{
    if (request == NO_REQUEST) {
        return;
    }
    struct request_record *r = history_at(w->history, request);
    world_note(w, "lost", NULL, request, (struct span){ 0 });
    r->lost_runs++;
    for (unsigned i = 0; i < KEYS_PER_REQUEST; i++) {
        if (r->keys[i] != NO_KEY) {
            key_find(w->history, r->client, r->keys[i])->disturbed = true;
        }
    }
}

/* A replica may lag: what a client reads behind its own unanswered write to a
 * key must come from the primary. Said of the write once it is answered. */
static void check_replica(struct world *w, struct request_record *r)
{
    const struct client *c = client_find(w, r->client);
    for (uint32_t i = 0; c != NULL && i < c->n_waiting; i++) {
        uint32_t other = c->waiting[(c->first + i) % CLIENT_WINDOW];
        struct request_record *o = history_at(w->history, other);
        if (o->index >= r->index) {
            break;
        }
        for (unsigned k = 0; o->writes && k < KEYS_PER_REQUEST; k++) {
            for (unsigned j = 0; j < KEYS_PER_REQUEST; j++) {
                if (r->keys[j] != NO_KEY && r->keys[j] == o->keys[k] &&
                    o->executions == 0) {
                    o->overtaken = true;
                }
            }
        }
    }
}

void history_executed(struct world *w,
                      uint32_t request,
                      const struct session *c,
                      struct span reply)
{
    struct request_record *r = history_at(w->history, request);
    struct ledger ledger = c->ledger;
    uint64_t hash = hash_bytes(0, reply.data, reply.len);
    bool doomed = w->cluster != NULL && node_is_doomed(node_of(c));

    world_note(w, "executed", NULL, request, reply);
    history_served(w, r->client);
    bool effect = r->writes && !(r->class == CLASS_BN && reply_is_null(reply));
    if (!doomed && (effect || !r->writes)) {
        check_late(w, r);
    }
    if (w->cluster != NULL && node_of(c)->replica) {
        r->at_replica++;
        if (r->writes && r->keys[0] != NO_KEY) {
            world_violate(w, "I1: a write ran at a replica");
        }
    }
    if (!whole_of(w, r)->arrived && r->answer != ANSWER_LOST) {
        world_violate(w, "I4: a request ran before it had arrived");
    }
    r->effects += effect;
    if (r->effects > 1 && effect && !may_repeat(w, r->class)) {
        world_violate(w,
                      "I1: request %" PRIu32 " of client %" PRIu64
                      ", class %s, ran %" PRIu32 " times",
                      r->index, r->client,
                      command_class_name((enum command_class)r->class),
                      r->effects);
    }
    if (r->executions > 0 && !ledger_agrees(r->ledger, ledger)) {
        world_violate(w,
                      "I8: two copies of a request ran in different sessions");
    }
    if (!doomed) {
        check_order(w, r);
    }
    if (r->executions > 0) {
        w->history->replays++;
    }
    uint32_t place =
        r->executions < HASHES_KEPT ? r->executions : HASHES_KEPT - 1;
    r->hashes[place] = hash;
    if (reply.len > 0 && reply.data[0] == ':') {
        r->numbers[place] = strtoll((const char *)reply.data + 1, NULL, 10);
    }
    r->ledger = ledger;
    r->executions++;
}

void history_refused(struct world *w, uint32_t request, struct span reply)
{
    struct request_record *r = history_at(w->history, request);
    world_note(w, "refused", NULL, request, reply);
    history_served(w, r->client);
    r->reached = true;
    r->refusal_hashes[r->refusals++ % REFUSALS_KEPT] =
        hash_bytes(0, reply.data, reply.len);
}

void history_waits(struct world *w, uint32_t request)
{
    struct request_record *r = history_at(w->history, request);
    world_note(w, "waits", NULL, request, (struct span){ 0 });
    history_served(w, r->client);
    r->reached = true;
    if (r->waits_at_us == 0) {
        r->waits_at_us = w->now_us;
    }
}

/* How long the engine may take to hear that the server has come to it. */
static uint64_t hearing_us(const struct world *w)
{
    const uint32_t *rate = w->settings.rate;
    bool late = rate[FAULT_HOLE_IN] + rate[FAULT_HOLE_BOTH] +
                    rate[FAULT_SLICES] + rate[FAULT_STOP] >
                0;
    return WAIT_SLACK_US + 4 * w->settings.latency_us + (late ? 1000000 : 0);
}

void history_told_to_wait(struct world *w,
                          uint32_t request,
                          uint64_t timeout_us)
{
    struct request_record *r = history_at(w->history, request);
    if (timeout_us == r->wait_us && !r->reached) {
        r->waits_since_us = w->now_us; /* it is with no server yet */
    }
    if ((timeout_us == 0) != (r->wait_us == 0)) {
        world_violate(w,
                      "I10: request %" PRIu32 " of client %" PRIu64
                      " is to wait %" PRIu64 "us and not %" PRIu64,
                      r->index, r->client, timeout_us, r->wait_us);
    }
    if (r->waits_at_us == 0) {
        return; /* its time may begin when one before it is answered */
    }
    uint64_t until_us = r->waits_at_us + r->wait_us + hearing_us(w);
    if (timeout_us > WAIT_SLACK_US && w->now_us + timeout_us > until_us) {
        world_violate(w,
                      "I10: request %" PRIu32 " of client %" PRIu64
                      " is to wait %" PRIu64 "us more, longer than it said",
                      r->index, r->client, timeout_us);
    }
}

bool history_taker_gone(struct world *w, uint32_t request)
{
    const struct request_record *r = history_at(w->history, request);
    const struct link *l = w->link_of_client[r->client];
    return r->answer == ANSWER_LOST && l != NULL && l->heard_turn > 0 &&
           w->turn > l->heard_turn;
}

/* --- the engine's side ------------------------------------------------- */

/* A command that may wait at the server may as well wait for a connection. */
static uint64_t may_be_tried_us(const struct world *w,
                                const struct request_record *r)
{
    uint64_t deadline_us = w->upstream->deadline_us;
    if (w->upstream->private_lanes_max < w->settings.clients) {
        deadline_us *= 2; /* the wait for a lane has a limit of its own */
    }
    if (r->class != CLASS_BN && r->class != CLASS_BR) {
        return deadline_us;
    }
    uint64_t own_us = r->wait_us == 0 ? UINT64_MAX / 4 : r->wait_us;
    if (w->upstream->private_lanes_max < w->settings.clients) {
        return own_us + deadline_us;
    }
    return own_us > deadline_us ? own_us : deadline_us;
}

/* In front of it is one that may wait, for a connection and at the server. */
static bool is_behind_a_wait(struct world *w,
                             const struct client *c,
                             const struct request_record *r)
{
    for (uint32_t i = 0; i < c->n_waiting; i++) {
        const struct request_record *o =
            history_at(w->history, c->waiting[(c->first + i) % CLIENT_WINDOW]);
        if (o->index >= r->index) {
            break;
        }
        if (o->class == CLASS_BN || o->class == CLASS_BR) {
            return true;
        }
    }
    return false;
}

void history_attempt(struct world *w,
                     uint32_t request,
                     const struct session *session)
{
    struct request_record *r = history_at(w->history, request);
    bool may_be_old = session != NULL && session->readonly &&
                      node_of(session)->replica && !r->writes;
    if (may_be_old) { /* a write is refused there, or it is a primary now */
        check_replica(w, r);
    }
    uint64_t deadline_us = may_be_tried_us(w, r);
    uint64_t arrived_us = whole_of(w, r)->arrived_us;
    uint64_t turn_us = arrived_us;
    const struct client *c = client_find(w, r->client);
    if (c != NULL && turn_us < c->served_us + 4 * w->settings.latency_us) {
        turn_us = c->served_us + 4 * w->settings.latency_us;
    }
    bool known =
        c != NULL && whole_of(w, r)->arrived &&
        !whole_of(w, r)->behind_others &&
        (w->cluster == NULL || r->block == 0); /* MULTI went before it */
    bool bound = r->waits_since_us == 0 && r->answer == ANSWER_NONE &&
                 (c == NULL || !is_behind_a_wait(w, c, r));
    if (known && bound && arrived_us < UINT64_MAX &&
        w->now_us > turn_us + deadline_us) {
        world_violate(w,
                      "I10: request %" PRIu32 " of client %" PRIu64
                      " was sent %" PRIu64 "us after it arrived",
                      r->index, r->client, w->now_us - arrived_us);
    }
    /* A block goes out again as often as its connection is lost before EXEC, and
     * so does a WATCH that was not answered. */
    bool queued = r->in_block || (r->expect == EXPECT_QUEUED && !r->settled);
    bool harmless = queued || (r->class == CLASS_X && !r->executes_block);
    w->state.rebuilt += queued && r->sent_whole > 0;
    int64_t replays = (int64_t)r->sent_whole - (int64_t)r->refusals;
    if (w->upstream->retries >= 0 && replays > w->upstream->retries &&
        !harmless) {
        world_violate(w,
                      "I10: request %" PRIu32 " of client %" PRIu64
                      " was replayed more often than retries allows",
                      r->index, r->client);
    }
    if (r->answer != ANSWER_NONE && r->answer != ANSWER_LOST && !queued) {
        world_violate(w, "I3: a request was sent after it was answered");
    }
}

void history_sent(struct world *w, uint32_t request)
{
    history_at(w->history, request)->sent_whole++;
}

/* --- the end ----------------------------------------------------------- */

void history_end(struct world *w)
{
    struct history *h = w->history;
    for (size_t i = 0; i < h->n && !world_broken(w); i++) {
        const struct request_record *r = &h->records[i];
        if (r->answer == ANSWER_REPLY && r->tracked &&
            r->expect == EXPECT_SERVER && r->executions == 0 &&
            r->class != CLASS_BR) {
            world_violate(w,
                          "I2: request %" PRIu32 " of client %" PRIu64
                          " was acknowledged but never ran",
                          r->index, r->client);
        }
        if (r->answer == ANSWER_NONE) {
            world_violate(w,
                          "I14: request %" PRIu32 " of client %" PRIu64
                          " was never answered",
                          r->index, r->client);
        }
    }
}

void history_sum(struct world *w, struct run_result *o)
{
    struct history *h = w->history;
    o->requests = 0;
    o->replays = h->replays;
    o->cluster = w->cluster != NULL;
    o->counts = w->counts;
    o->stateful = w->settings.stateful;
    o->state = w->state;
    for (size_t i = 0; i < h->n; i++) {
        const struct request_record *r = &h->records[i];
        o->counts.lost += r->answer == ANSWER_REPLY && r->writes &&
                          r->executions > 0 && r->lost_runs >= r->executions;
        if (r->whole > 0) {
            continue;
        }
        o->requests++;
        switch ((enum answer)h->records[i].answer) {
        case ANSWER_NONE: break;
        case ANSWER_REPLY:
        case ANSWER_DISCARDED: o->answered++; break;
        case ANSWER_NOT_APPLIED: o->not_applied++; break;
        case ANSWER_UNKNOWN: o->unknown++; break;
        case ANSWER_REFUSED: o->refused++; break;
        case ANSWER_LOST: o->lost++; break;
        }
    }
}
