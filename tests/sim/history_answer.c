/* What clients are told: whether it is true, and their own. */
#include <inttypes.h>

#include "tests/sim/client.h"
#include "tests/sim/cluster_model.h"
#include "tests/sim/history_parts.h"

/* --- the client's side ------------------------------------------------- */

static bool starts(struct span reply, const char *text)
{
    size_t n = strlen(text);
    return reply.len >= n && memcmp(reply.data, text, n) == 0;
}

bool history_has_reply(const struct request_record *r, uint64_t hash)
{
    for (uint32_t i = 0; i < r->executions && i < HASHES_KEPT; i++) {
        if (r->hashes[i] == hash) {
            return true;
        }
    }
    return false;
}

bool history_has_refusal(const struct request_record *r, uint64_t hash)
{
    for (uint32_t i = 0; i < r->refusals && i < REFUSALS_KEPT; i++) {
        if (r->refusal_hashes[i] == hash) {
            return true;
        }
    }
    return false;
}

bool history_hides_replay(struct world *w, const struct request_record *r)
{
    if (!r->private_keys || r->at_replica > 0 ||
        w->upstream->replay > REPLAY_IDEMPOTENT) {
        return false;
    }
    for (unsigned i = 0; i < KEYS_PER_REQUEST; i++) {
        if (r->keys[i] != NO_KEY &&
            key_find(w->history, r->client, r->keys[i])->disturbed) {
            return false;
        }
    }
    return true;
}

/* It has asked for that name. */
static bool will_be_named(struct world *w, uint64_t id, uint32_t name)
{
    for (unsigned k = 0; k < w->n_clients; k++) {
        const struct client *c = w->clients[k];
        for (uint32_t i = 0; c->id == id && i < c->n_waiting; i++) {
            const struct request_record *o =
                history_at(w->history,
                           c->waiting[(c->first + i) % CLIENT_WINDOW]);
            if (o->sets & SETS_NAME && o->next.name == name) {
                return true;
            }
        }
    }
    return false;
}

static void check_session(struct world *w,
                          const struct request_record *r,
                          struct ledger session)
{
    struct ledger ran = r->ledger;
    if (w->cluster != NULL) { /* hints end when a lane goes elsewhere */
        session.no_evict =
            session.no_evict == HINT_OFF ? HINT_OFF : HINT_EITHER;
        session.no_touch =
            session.no_touch == HINT_OFF ? HINT_OFF : HINT_EITHER;
    }
    if (r->refusals > 0) { /* what stood behind it may have run by then */
        ran.no_evict = session.no_evict;
        ran.no_touch = session.no_touch;
        ran.tracking = session.tracking;
    }
    if (will_be_named(w, r->client, ran.name)) {
        ran.name = session.name; /* only a label, and not in its place */
    }
    if (!ledger_fits(ran, session)) {
        world_violate(
            w,
            "I8: request %" PRIu32 " of client %" PRIu64
            " ran as user %u db %u resp %u name %" PRIx32
            " no-evict %u no-touch %u tracking %d; its session says user %u db "
            "%u resp %u name %" PRIx32 " no-evict %u no-touch %u tracking %d",
            r->index, r->client, ran.user, ran.db, ran.resp, ran.name,
            ran.no_evict, ran.no_touch, ran.tracking, session.user, session.db,
            session.resp, session.name, session.no_evict, session.no_touch,
            session.tracking);
    }
    if (session.subscribed && session.resp == 2) {
        world_violate(w,
                      "I8: request %" PRIu32 " of client %" PRIu64
                      " ran although it has subscribed with RESP2",
                      r->index, r->client);
    }
}

static void answer_server(struct world *w,
                          struct request_record *r,
                          struct span reply,
                          struct ledger session)
{
    uint64_t hash = hash_bytes(0, reply.data, reply.len);

    if (r->class == CLASS_BR && reply_is_null(reply)) {
        r->answer = ANSWER_REPLY; /* nobody needs a server to know the time */
        return;
    }
    bool elsewhere = w->cluster != NULL && starts(reply, "-CROSSSLOT ");
    bool subscribed =
        session.subscribed && starts(reply, "-ERR Can't execute ");
    if (w->settings.stateful && r->executions == 0 &&
        (elsewhere || subscribed)) {
        r->answer = ANSWER_REFUSED; /* something holds its lane elsewhere */
        return;
    }
    if (!history_has_reply(r, hash)) {
        bool refusal = history_has_refusal(r, hash);
        if (refusal && r->executions == 0) {
            r->answer = ANSWER_REFUSED;
        } else if (refusal) {
            world_violate(
                w,
                "I9: request %" PRIu32 " of client %" PRIu64
                " ran, but its client was told that the server refused it",
                r->index, r->client);
        } else {
            world_violate(w,
                          "I3: request %" PRIu32 " of client %" PRIu64
                          " got a reply that is not its own (%" PRIu32
                          " executions)",
                          r->index, r->client, r->executions);
        }
        return;
    }
    r->answer = ANSWER_REPLY;
    if (r->overtaken) {
        world_violate(
            w,
            "I5: request %" PRIu32 " of client %" PRIu64
            " (#%td) ran for the first time after a later one on the same key",
            r->index, r->client, r - w->history->records);
    }
    if (hash != r->hashes[0] && history_hides_replay(w, r)) {
        world_violate(w,
                      "I6: the replay of request %" PRIu32 " of client %" PRIu64
                      " shows",
                      r->index, r->client);
    }
    check_session(w, r, session);
    if (r->class == CLASS_BN && r->effects > 0 && reply_is_null(reply) &&
        w->upstream->replay < REPLAY_ALL) {
        world_violate(w,
                      "I26: request %" PRIu32 " of client %" PRIu64
                      " took something, but its client was told that it did "
                      "not",
                      r->index, r->client);
    }
}

static bool says_name(struct span reply, struct ledger session)
{
    struct span name;
    if (session.name == 0) {
        return starts(reply, session.resp == 3 ? "_\r\n" : "$-1\r\n");
    }
    size_t head = 0;
    while (head < reply.len && reply.data[head] != '\n') {
        head++;
    }
    name = (struct span){ reply.data + head + 1,
                          reply.len > head + 3 ? reply.len - head - 3 : 0 };
    return reply.data[0] == '$' &&
           ((uint32_t)hash_bytes(0, name.data, name.len) | 1) == session.name;
}

static bool fits(enum expect expect, struct span reply, struct ledger session)
{
    bool in_array = session.subscribed && session.resp == 2;
    switch (expect) {
    case EXPECT_SERVER: return true;
    case EXPECT_QUEUED: return starts(reply, "+QUEUED\r\n");
    case EXPECT_OK: return starts(reply, "+OK\r\n");
    case EXPECT_PONG:
        return starts(reply, in_array ? "*2\r\n$4\r\npong\r\n$0\r\n\r\n"
                                      : "+PONG\r\n");
    case EXPECT_RESET: return starts(reply, "+RESET\r\n");
    case EXPECT_NAME: return says_name(reply, session);
    case EXPECT_ANY: return true;
    case EXPECT_CONFIRM: return starts(reply, ">") || starts(reply, "*");
    case EXPECT_HELLO: return starts(reply, "%") || starts(reply, "*");
    case EXPECT_INTEGER: return starts(reply, ":");
    case EXPECT_BLOCK:
        return starts(reply, "*") || starts(reply, "_") ||
               starts(reply, "+OK\r\n");
    case EXPECT_ARRAY:
    case EXPECT_SCAN: return starts(reply, "*");
    case EXPECT_VALUES:
    case EXPECT_ALL_OK:
    case EXPECT_COUNT: break;
    }
    return false;
}

/* A later request on one of its keys has run already: it cannot be tried
 * again (redis.md §4 rule 6). */
static bool is_behind(struct world *w, const struct request_record *r)
{
    for (unsigned i = 0; i < KEYS_PER_REQUEST; i++) {
        if (r->keys[i] == NO_KEY) {
            continue;
        }
        const struct key_order *k = key_find(w->history, r->client, r->keys[i]);
        if (k->last_write > r->index + 1 || k->last_read > r->index + 1) {
            return true;
        }
    }
    return false;
}

/* Something that concerns all keys, or keys that are not told apart, was sent
 * behind r: to run r after it would change their order (redis.md §4 rule 6). */
static bool all_keys_behind(const struct world *w,
                            const struct request_record *r)
{
    for (size_t i = 0; i < w->history->n; i++) {
        const struct request_record *q = &w->history->records[i];
        bool later = q->client == r->client && q->index > r->index;
        if (later && (!q->tracked || q->keys[0] == NO_KEY) &&
            q->class != CLASS_C) {
            return true;
        }
    }
    return false;
}

static void answer_error(struct world *w,
                         struct request_record *r,
                         struct span reply)
{
    if (starts(reply, "-NOTAPPLIED")) {
        r->answer = ANSWER_NOT_APPLIED;
        r->passed_by = is_behind(w, r) || all_keys_behind(w, r);
        if (r->executions > 0) {
            world_violate(w,
                          "I9: request %" PRIu32 " of client %" PRIu64
                          " was answered NOTAPPLIED, but it ran",
                          r->index, r->client);
        }
        return;
    }
    r->answer = ANSWER_UNKNOWN;
    if (r->tracked && r->sent_whole == 0 && !client_gap_ends(w, r->client)) {
        world_violate(w,
                      "I9: request %" PRIu32 " of client %" PRIu64
                      " was never sent whole, but answered UNKNOWNOUTCOME",
                      r->index, r->client);
    }
}

void history_part_answered(struct world *w,
                           uint32_t part,
                           struct span reply,
                           struct ledger session)
{
    struct request_record *r = history_at(w->history, part);
    if (starts(reply, "-NOTAPPLIED") || starts(reply, "-UNKNOWNOUTCOME")) {
        answer_error(w, r, reply);
    } else {
        answer_server(w, r, reply, session);
    }
}

/* Where the keys are is not the client's business. */
static void check_redirect_shown(struct world *w,
                                 const struct request_record *r,
                                 struct span reply)
{
    static const char *const passing[] = { "-TRYAGAIN ", "-CLUSTERDOWN ",
                                           "-MASTERDOWN ", "-CROSSSLOT " };
    if (starts(reply, "-MOVED") || starts(reply, "-ASK ")) {
        world_violate(w,
                      "I3: client %" PRIu64 " was shown a redirect for "
                      "request %" PRIu32,
                      r->client, r->index);
    }
    bool late = r->arrived_us < UINT64_MAX &&
                w->now_us + w->upstream->backoff_cap_us >=
                    r->arrived_us + w->upstream->deadline_us;
    bool kept = r->size <= w->upstream->replay_bytes_max; /* to try again */
    bool may = late || w->draining || is_behind(w, r) ||
               all_keys_behind(w, r) || r->n_parts > 0 || !w->upstream->retry ||
               !kept || w->settings.transactions || w->settings.stateful ||
               r->class == CLASS_BN || w->counts.hostile > 0;
    for (size_t i = 0; i < sizeof passing / sizeof passing[0] && !may; i++) {
        if (starts(reply, passing[i])) {
            world_violate(w,
                          "I3: client %" PRIu64 " was shown%s before the "
                          "deadline of request %" PRIu32,
                          r->client, passing[i], r->index);
        }
    }
}

static void check_early(struct world *w,
                        const struct request_record *r,
                        struct span reply)
{
    /* One that was refused ends early when it would be tried again too late. */
    uint64_t early_us =
        WAIT_SLACK_US + (r->refusals > 0 ? w->upstream->backoff_cap_us : 0);
    if (r->waits_since_us > 0 && reply_is_null(reply) &&
        w->now_us + early_us < r->waits_since_us + r->wait_us) {
        world_violate(w,
                      "I10: request %" PRIu32 " of client %" PRIu64
                      " has not waited as long as it was told to",
                      r->index, r->client);
    }
}

void history_answered(struct world *w,
                      uint32_t request,
                      struct span reply,
                      struct ledger session)
{
    struct request_record *r = history_at(w->history, request);
    world_note(w, "answered", NULL, request, reply);
    history_served(w, r->client);
    bool refusal = starts(reply, "-") || starts(reply, "+QUEUED");
    if (!r->arrived && !refusal) { /* a large one may be refused early */
        world_violate(w, "I3: a reply came before its request had arrived");
    }
    if (w->cluster != NULL) {
        check_redirect_shown(w, r, reply);
    }
    if (r->n_parts > 0) {
        if (starts(reply, "-NOTAPPLIED") && all_keys_behind(w, r)) {
            for (uint32_t i = 0; i <= r->n_parts; i++) {
                history_at(w->history, request + i)->passed_by = true;
            }
        }
        split_answered(w, request, reply, session);
    } else if (starts(reply, "-NOTAPPLIED") ||
               starts(reply, "-UNKNOWNOUTCOME")) {
        answer_error(w, r, reply);
    } else if (r->tracked && r->expect == EXPECT_SERVER) {
        answer_server(w, r, reply, session);
        check_early(w, r, reply);
    } else if (fits((enum expect)r->expect, reply, session)) {
        r->answer = ANSWER_REPLY;
        r->ends_watch = r->expect == EXPECT_ANY &&
                        (reply_is_null(reply) || starts(reply, "+OK") ||
                         starts(reply, "-EXECABORT"));
    } else if (starts(reply, "-")) {
        r->answer = ANSWER_REFUSED;
    } else {
        world_violate(w,
                      "I3: request %" PRIu32 " of client %" PRIu64
                      " got a reply of another kind",
                      r->index, r->client);
    }
}

void history_lost(struct world *w, uint32_t request)
{
    struct request_record *r = history_at(w->history, request);
    r->answer = ANSWER_LOST;
    for (uint32_t i = 1; i <= r->n_parts; i++) {
        history_at(w->history, request + i)->answer = ANSWER_LOST;
    }
}
