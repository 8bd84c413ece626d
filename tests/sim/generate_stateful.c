/* What lives in a connection besides transactions: subscriptions, commands that
 * wait, caches; and what others do for them. */
#include <inttypes.h>
#include <stdio.h>

#include "tests/sim/draft.h"
#include "tests/sim/outside.h"
#include "tests/sim/pubsub.h"

enum {
    WAIT_KEY = SHARED_KEY + 64, /* keys others put something into */
};

/* --- subscriptions -------------------------------------------------------- */

static bool will_be_subscribed(const struct client *c)
{
    return c->will_subs[SUB_CHANNEL] != 0 || c->will_subs[SUB_PATTERN] != 0 ||
           c->will_subs[SUB_SHARD] != 0;
}

static void draft_subscription(struct world *w,
                               struct client *c,
                               struct draft *d)
{
    static const char *const words[SUB_KINDS][2] = {
        { "SUBSCRIBE", "UNSUBSCRIBE" },
        { "PSUBSCRIBE", "PUNSUBSCRIBE" },
        { "SSUBSCRIBE", "SUNSUBSCRIBE" },
    };
    enum sub_kind kind = (enum sub_kind)pick(w, 0, SUB_KINDS - 1);
    bool un = chance(w, 1, will_be_subscribed(c) ? 2 : 8);
    bool all = un && chance(w, 1, 2);
    unsigned set = all ? 0 : (unsigned)pick(w, 1, (1u << CHANNELS) - 1);
    draft_word(d, words[kind][un]);
    for (unsigned n = 0; n < CHANNELS; n++) {
        char name[NAME_MAX];
        if (set >> n & 1) {
            channel_name(kind, c->id, n, name, sizeof name);
            draft_word(d, name);
        }
    }
    d->record.class = CLASS_C;
    d->record.expect = EXPECT_CONFIRM;
    d->record.sub_kind = (uint8_t)kind;
    d->record.unsubscribes = un;
    d->record.channels = (uint8_t)set;
    if (!un) {
        c->will_subs[kind] |= (uint8_t)set;
    } else {
        c->will_subs[kind] &= (uint8_t)(all ? 0 : ~set);
    }
}

static void draft_ping(struct draft *d)
{
    draft_word(d, "PING");
    d->record.class = CLASS_R;
    d->record.expect = EXPECT_PONG;
}

/* In a RESP2 connection that has subscribed; false: anything, to be refused. */
static bool draft_subscribed(struct world *w, struct client *c, struct draft *d)
{
    uint64_t kind = pick(w, 0, 19);
    if (kind == 0) {
        return false;
    }
    if (kind == 1 && c->habits & HABIT_RESETS) {
        draft_reset(w, c, d);
    } else if (kind < 12) {
        draft_ping(d);
    } else {
        draft_subscription(w, c, d);
    }
    return true;
}

static void draft_publish(struct world *w, struct client *c, struct draft *d)
{
    const struct client *to = w->clients[pick(w, 0, w->n_clients - 1)];
    bool shard = chance(w, 1, 3);
    char name[NAME_MAX];
    channel_name(shard ? SUB_SHARD : SUB_CHANNEL, to->id,
                 (unsigned)pick(w, 0, CHANNELS - 1), name, sizeof name);
    draft_word(d, shard ? "SPUBLISH" : "PUBLISH");
    draft_word(d, name);
    draft_value(w, d, c);
    d->record.class = CLASS_N;
    d->record.writes = true;
    d->record.tracked = true;
}

/* --- commands that wait --------------------------------------------------- */

static void wait_key(struct draft *d, const char *kind, unsigned n)
{
    char name[24];
    snprintf(name, sizeof name, "{%s}%u", kind, n);
    draft_word(d, name);
    unsigned i = d->record.keys[0] == NO_KEY ? 0 : 1;
    d->record.keys[i] = WAIT_KEY + (uint32_t)kind[0] * 4 + n;
}

static void draft_timeout(struct world *w, struct draft *d, bool seconds)
{
    char text[24];
    uint64_t ms = chance(w, 1, 4) ? 0 : pick(w, 50, 2000);
    if (seconds) {
        snprintf(text, sizeof text, "%" PRIu64 ".%03" PRIu64, ms / 1000,
                 ms % 1000);
    } else {
        snprintf(text, sizeof text, "%" PRIu64, ms);
    }
    draft_word(d, text);
    d->record.wait_us = ms * 1000;
}

static void draft_xread(struct world *w, struct client *c, struct draft *d)
{
    char id[24];
    size_t length = outside_stream_length(w, c->future.db);
    size_t back = (size_t)pick(w, 0, 3);
    draft_word(d, "XREAD");
    draft_word(d, "COUNT");
    draft_number(d, draft_tag(c));
    draft_word(d, "BLOCK");
    draft_timeout(w, d, false);
    draft_word(d, "STREAMS");
    wait_key(d, "st", 0);
    snprintf(id, sizeof id, "%zu-0", length > back ? length - back : 0);
    draft_word(d, w->settings.frozen_ids && chance(w, 1, 2) ? "$" : id);
    d->record.class = CLASS_BR;
}

static void draft_wait(struct world *w, struct client *c, struct draft *d)
{
    uint64_t kind = pick(w, 0, 4);
    d->record.tracked = true;
    d->record.class = CLASS_BN;
    d->record.writes = true;
    if (kind == 4) {
        d->record.writes = false;
        draft_xread(w, c, d);
        return;
    }
    draft_word(d, kind == 0   ? "BLPOP"
                  : kind == 1 ? "BRPOP"
                  : kind == 2 ? "BLMOVE"
                              : "BZPOPMIN");
    wait_key(d, kind == 3 ? "z" : "q", (unsigned)pick(w, 0, 1));
    if (kind != 2 && chance(w, 1, 2)) {
        wait_key(d, kind == 3 ? "z" : "q", 2);
    }
    draft_tag_key(w, d, c);
    if (kind == 2) {
        draft_word(d, "LEFT");
        draft_word(d, "RIGHT");
    }
    draft_timeout(w, d, true);
}

static void draft_supply(struct world *w, struct client *c, struct draft *d)
{
    uint64_t kind = pick(w, 0, 3);
    d->record.tracked = true;
    d->record.class = kind == 2 ? CLASS_S : CLASS_N;
    d->record.writes = true;
    draft_word(d, kind <= 1 ? "RPUSH" : kind == 2 ? "ZADD" : "XADD");
    wait_key(d,
             kind <= 1   ? "q"
             : kind == 2 ? "z"
                         : "st",
             kind == 3 ? 0 : (unsigned)pick(w, 0, 2));
    if (kind == 2) {
        draft_number(d, pick(w, 0, 9999));
    } else if (kind == 3) {
        draft_word(d, "*");
        draft_word(d, "f");
    }
    draft_value(w, d, c);
}

/* --- caches --------------------------------------------------------------- */

static void draft_cached_read(struct world *w,
                              struct client *c,
                              struct draft *d)
{
    d->record.tracked = true;
    d->record.class = CLASS_R;
    d->record.caches = true;
    draft_word(d, "GETRANGE");
    draft_key(w, d, c, (unsigned)pick(w, 0, CACHED_MAX - 1), true);
    draft_word(d, "0");
    draft_number(d, draft_tag(c));
}

/* --- all of it ------------------------------------------------------------ */

/* What was sent in vain is no state to go on from. */
static void look_again(struct client *c)
{
    if (c->n_waiting == 0) {
        c->future = c->session;
        memcpy(c->will_subs, c->subs, sizeof c->will_subs);
    }
}

static bool draft_habit(struct world *w, struct client *c, struct draft *d)
{
    unsigned habit = 1u << pick(w, 0, 5);
    if ((c->habits & habit) == 0) {
        return false;
    }
    switch ((enum habit)habit) {
    case HABIT_TRANSACTS: draft_transaction(w, c, d); break;
    case HABIT_SUBSCRIBES: draft_subscription(w, c, d); break;
    case HABIT_WAITS: draft_wait(w, c, d); break;
    case HABIT_CACHES:
        if (w->cluster != NULL) {
            return false; /* refused: one node knows of its own keys only */
        }
        if (c->future.tracking && chance(w, 3, 4)) {
            draft_cached_read(w, c, d);
        } else {
            draft_tracking(w, c, d);
        }
        break;
    case HABIT_RESETS:
        if (chance(w, 3, 4)) {
            return false;
        }
        draft_reset(w, c, d);
        break;
    case HABIT_NAMES:
    case HABITS_ALL: draft_client_facts(w, c, d); break;
    }
    return true;
}

bool draft_stateful(struct world *w, struct client *c, struct draft *d)
{
    look_again(c);
    if (c->future.resp == 2 && will_be_subscribed(c)) {
        return draft_subscribed(w, c, d);
    }
    if (chance(w, 1, 12)) {
        draft_publish(w, c, d);
        return true;
    }
    if (chance(w, 1, 12)) {
        draft_supply(w, c, d);
        return true;
    }
    return chance(w, 1, 3) && draft_habit(w, c, d);
}
