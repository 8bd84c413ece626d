#include "tests/sim/client.h"

#include <assert.h>
#include <stdlib.h>

#include "tests/sim/draft.h"
#include "tests/sim/generate.h"
#include "tests/sim/resp_model.h"
#include "tests/sim/server.h"

enum {
    SLOW_READ_US = 20000,
    SLOW_READ_BYTES = 200,
    UNREAD_ENOUGH = 32 * 1024,
    AGAIN_US = 5000,
};

const char *habit_name(unsigned i)
{
    static const char *const names[HABITS] = { "transacts", "subscribes",
                                               "waits",     "caches",
                                               "resets",    "names" };
    return names[i];
}

static struct ledger fresh_session(const struct world *w)
{
    return (struct ledger){
        .resp = 2,
        .user = w->settings.own_auth ? 1 : 0,
    };
}

struct client *client_new(struct world *w, unsigned place)
{
    struct client *c = must_alloc(sizeof *c);
    *c = (struct client){ .id = ++w->next_client, .place = place };
    c->session = fresh_session(w);
    c->future = c->session;
    if (w->settings.stateful) {
        c->habits = (uint8_t)(pick(w, 0, HABITS_ALL) & pick(w, 0, HABITS_ALL) &
                              w->settings.habits);
        c->steps = chance(w, 1, 3);
    }
    c->slow = strikes(w, FAULT_SLOW_READER);
    c->never_reads = w->settings.never_reads && place == 0;
    world_wake(w, pick(w, 0, w->settings.think_us), WAKE_CLIENT, c, 0);
    return c;
}

void client_free(struct client *c)
{
    bytes_fini(&c->in);
    bytes_fini(&c->unread);
    bytes_fini(&c->out);
    free(c->due);
    free(c);
}

/* --- what has arrived -------------------------------------------------- */

static uint32_t waiting_at(const struct client *c, uint32_t i)
{
    return c->waiting[(c->first + i) % CLIENT_WINDOW];
}

/* A request's time starts when the engine has it and it is not behind
 * pipeline_max others. */
static void count_arrivals(struct world *w, struct client *c)
{
    while (c->n_counted < c->n_arrived &&
           c->n_counted < w->listener->pipeline_max) {
        history_at(w->history, waiting_at(c, c->n_counted++))->arrived_us =
            w->now_us;
    }
}

void client_arrived(struct world *w, struct client *c, uint64_t count)
{
    c->arrived_bytes += count;
    while (c->n_arrived < c->n_waiting) {
        struct request_record *r =
            history_at(w->history, waiting_at(c, c->n_arrived));
        if (r->end > c->arrived_bytes) {
            break;
        }
        r->arrived = true;
        r->arrived_us = UINT64_MAX;
        c->n_arrived++;
    }
    count_arrivals(w, c);
}

void client_served_all(struct world *w)
{
    for (unsigned i = 0; i < w->n_clients; i++) {
        w->clients[i]->served_us = w->now_us;
    }
}

/* --- what it is told --------------------------------------------------- */

static void session_change(struct world *w,
                           struct client *c,
                           const struct request_record *r)
{
    if (r->answer == ANSWER_UNKNOWN) {
        c->session.unsure = c->session.unsure || r->sets & SETS_TRACKING;
        if (r->sets & SETS_NO_EVICT) {
            c->session.no_evict = HINT_EITHER;
        }
        if (r->sets & SETS_NO_TOUCH) {
            c->session.no_touch = HINT_EITHER;
        }
    }
    if (r->answer != ANSWER_REPLY) {
        return;
    }
    if (r->sets & SETS_DB) {
        c->session.db = r->next.db;
    }
    if (r->sets & SETS_USER) {
        c->session.user = r->next.user;
    }
    if (r->sets & SETS_RESP) {
        c->session.resp = r->next.resp;
    }
    if (r->sets & SETS_NAME) {
        c->session.name = r->next.name;
    }
    if (r->sets & SETS_NO_EVICT) {
        c->session.no_evict = r->next.no_evict;
    }
    if (r->sets & SETS_NO_TOUCH) {
        c->session.no_touch = r->next.no_touch;
    }
    if (r->sets & SETS_TRACKING) {
        c->session.tracking = r->next.tracking;
        c->session.unsure = false;
        memset(c->cached, 0, sizeof c->cached);
    }
    if (r->expect == EXPECT_RESET) {
        w->state.resets++;
        bool hint = c->session.no_evict != HINT_OFF;
        client_unsubscribed(c);
        c->session = fresh_session(w);
        c->session.no_evict = hint ? HINT_EITHER : HINT_OFF;
    }
}

bool client_gap_ends(const struct world *w, uint64_t id)
{
    bool ends =
        !w->upstream->retry || w->listener->on_pubsub_gap == PUBSUB_GAP_CLOSE;
    for (unsigned i = 0; ends && i < w->n_clients; i++) {
        if (w->clients[i]->id == id) {
            return w->clients[i]->session.subscribed;
        }
    }
    return false;
}

/* Nothing that it watched before counts any more, whatever became of it. */
static void mind_watch(struct world *w,
                       struct client *c,
                       const struct request_record *r,
                       struct span reply)
{
    static const char refusal[] = "-ERR "; /* of the command itself */
    bool refused = reply.len > sizeof refusal &&
                   memcmp(reply.data, refusal, sizeof refusal - 1) == 0;
    bool ended =
        (r->ends_block && r->answer != ANSWER_NOT_APPLIED && !refused) ||
        r->ends_watch || r->expect == EXPECT_RESET ||
        (r->unwatches && r->answer == ANSWER_REPLY);
    for (uint32_t i = 0; i < c->n_waiting && ended; i++) {
        ended = !history_at(w->history, waiting_at(c, i))->is_watch;
    }
    c->may_watch = c->may_watch && !ended;
}

static void answered(struct world *w, struct client *c, struct span reply)
{
    if (c->n_waiting == 0) {
        world_violate(w, "I3: client %llu got a reply it did not ask for",
                      (unsigned long long)c->id);
        return;
    }
    uint32_t request = waiting_at(c, 0);
    bool confirms = history_at(w->history, request)->expect == EXPECT_CONFIRM &&
                    (reply.data[0] == '*' || reply.data[0] == '>');
    if (confirms && !client_confirmed(w, c, request, reply)) {
        return;
    }
    if (reply.data[0] == '>' && !confirms) {
        world_violate(w,
                      "I30: client %llu got a confirmation that it did not ask "
                      "for",
                      (unsigned long long)c->id);
    }
    /* One that was confirmed in part may not be sent again for ever. */
    bool given_up = reply.data[0] == '-' && reply.len > 3 &&
                    (memcmp(reply.data, "-UNK", 4) == 0 ||
                     memcmp(reply.data, "-NOT", 4) == 0);
    if (c->confirmed > 0 && !confirms && given_up) {
        c->confirmed = 0;
    } else if (c->confirmed > 0 && !confirms) {
        world_violate(w, "I30: client %llu got an error behind a confirmation",
                      (unsigned long long)c->id);
    }
    c->first = (c->first + 1) % CLIENT_WINDOW;
    c->n_waiting--;
    c->n_arrived -= c->n_arrived > 0;
    c->n_counted -= c->n_counted > 0;
    history_answered(w, request, reply, c->session);
    struct request_record *r = history_at(w->history, request);
    session_change(w, c, r);
    if (w->cluster != NULL &&
        (r->expect == EXPECT_SCAN || r->expect == EXPECT_ARRAY)) {
        all_keys_answered(w, c, (enum expect)r->expect, reply);
    }
    if (r->begins_block && r->answer != ANSWER_REPLY && r->block == c->block) {
        c->block = 0; /* no transaction: it sends no more of it */
    }
    if (r->ends_block) {
        block_answered(w, request, reply);
    }
    mind_watch(w, c, r, reply);
    client_caches(c, r, reply);
    count_arrivals(w, c);
}

static void consume(struct world *w, struct client *c, struct span bytes)
{
    bytes_add(&c->in, bytes.data, bytes.len);
    while (c->in.size > 0 && !world_broken(w)) {
        size_t size;
        enum model_scan scan = model_reply_end(bytes_span(&c->in), &size);
        if (scan == MODEL_BROKEN) {
            world_violate(w, "I4: client %llu got bytes that are no reply",
                          (unsigned long long)c->id);
        }
        if (scan != MODEL_DONE) {
            return;
        }
        struct span reply = { .data = bytes_front(&c->in), .len = size };
        if (is_message(c, reply)) {
            client_message(w, c, reply);
        } else {
            answered(w, c, reply);
        }
        bytes_drop(&c->in, size);
    }
}

void client_receive(struct world *w, struct client *c, struct span bytes)
{
    if (c->gone) {
        return;
    }
    if (!c->slow && !c->never_reads) {
        consume(w, c, bytes);
        return;
    }
    bytes_add(&c->unread, bytes.data, bytes.len);
    if (!c->reading && !c->never_reads) {
        c->reading = true;
        world_wake(w, SLOW_READ_US, WAKE_READ, c, 0);
    }
}

void client_read(struct world *w, struct client *c)
{
    struct bytes piece = { 0 };
    size_t n = w->healed ? c->unread.size : pick(w, 1, SLOW_READ_BYTES);
    c->reading = false;
    if (c->gone) {
        return;
    }
    n = n < c->unread.size ? n : c->unread.size;
    bytes_add(&piece, bytes_front(&c->unread), n);
    bytes_drop(&c->unread, n);
    consume(w, c, bytes_span(&piece));
    bytes_fini(&piece);
    if (c->unread.size > 0) {
        c->reading = true;
        world_wake(w, SLOW_READ_US, WAKE_READ, c, 0);
    }
    if (c->unread.size < UNREAD_ENOUGH && c->link != NULL) {
        link_pump(w, c->link);
    }
}

/* --- its end ----------------------------------------------------------- */

void client_give_up(struct world *w, struct client *c)
{
    while (c->n_waiting > 0) {
        history_lost(w, waiting_at(c, 0));
        c->first = (c->first + 1) % CLIENT_WINDOW;
        c->n_waiting--;
    }
}

/* It is gone; somebody else takes its place. */
static void leave(struct world *w, struct client *c)
{
    c->gone = true;
    client_give_up(w, c);
    if (c->link != NULL) {
        c->link->client = NULL;
        c->link = NULL;
    }
    w->retired =
        must_grow(w->retired, (w->n_retired + 1) * sizeof(struct client *));
    w->retired[w->n_retired++] = c;
    w->clients[c->place] = client_new(w, c->place);
}

void client_closed(struct world *w, struct client *c)
{
    if (c == NULL || c->gone) {
        return;
    }
    bool excused = client_gap_ends(w, c->id) || c->quitting || w->draining ||
                   w->memory_failed || c->never_reads || c->in.size > 0 ||
                   c->unread.size > 0;
    if (c->engine_closed && !excused) {
        world_violate(w, "I3: redial dropped client %llu",
                      (unsigned long long)c->id);
    }
    c->link->peer_open = false;
    leave(w, c);
}

static void walk_away(struct world *w, struct client *c)
{
    struct link *l = c->link;
    world_note(w, "leaves", l, 0, (struct span){ 0 });
    leave(w, c);
    if (l != NULL && l->peer_open) {
        link_end(w, l, chance(w, 1, 2));
    }
}

/* --- what it does ------------------------------------------------------ */

static void say(struct world *w, struct client *c)
{
    if (c->out.size > 0) {
        link_send(w, c->link, bytes_front(&c->out), c->out.size);
        bytes_clear(&c->out);
    }
}

static void link_remember(struct world *w, const struct client *c)
{
    size_t cap = w->links_of_clients;
    if (c->id >= cap) {
        w->links_of_clients = (c->id + 1) * 2;
        w->link_of_client =
            must_grow(w->link_of_client,
                      w->links_of_clients * sizeof(struct link *));
        memset(w->link_of_client + cap, 0,
               (w->links_of_clients - cap) * sizeof(struct link *));
    }
    w->link_of_client[c->id] = c->link;
}

static bool connect_first(struct world *w, struct client *c)
{
    if (c->link != NULL) {
        return true;
    }
    c->link = net_accept(w, c);
    if (c->link == NULL) {
        world_wake(w, AGAIN_US, WAKE_CLIENT, c, 0);
        return false;
    }
    link_remember(w, c);
    if (w->settings.password && !w->settings.own_auth) {
        generate_login(w, c);
    }
    return true;
}

void client_act(struct world *w, struct client *c)
{
    uint64_t most = c->steps ? 1 : w->settings.depth_max;
    if (c->gone || w->draining || !connect_first(w, c) || c->gone) {
        return;
    }
    if (!w->finished && strikes(w, FAULT_LEAVER)) {
        if (!c->steps || c->n_waiting == 0) {
            generate(w, c);
            say(w, c);
        }
        walk_away(w, c);
        return;
    }
    bool wants = !w->finished && !c->quitting && c->n_waiting < most;
    if (w->finished && c->block != 0) {
        generate_block_end(w, c);
    } else if (wants) {
        uint64_t burst = pick(w, 1, most - c->n_waiting);
        for (uint64_t i = 0; i < burst && !c->quitting; i++) {
            generate(w, c);
        }
    }
    say(w, c);
    uint64_t rest = chance(w, 1, 4) ? 0 : w->settings.think_us;
    world_wake(w, pick(w, rest / 2, rest + 1), WAKE_CLIENT, c, 0);
}
