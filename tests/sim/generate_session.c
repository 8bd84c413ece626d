/* Requests about the connection itself. */
#include <inttypes.h>
#include <stdio.h>

#include "tests/sim/draft.h"
#include "tests/sim/server.h"

static void expect(struct draft *d, enum expect expect, uint8_t sets)
{
    d->record.class = CLASS_C;
    d->record.expect = (uint8_t)expect;
    d->record.sets = sets;
}

void draft_login(struct draft *d)
{
    draft_word(d, "AUTH");
    draft_word(d, server_users[0]);
    draft_word(d, server_passwords[0]);
    expect(d, EXPECT_OK, SETS_USER);
}

static void draft_auth(struct world *w, struct draft *d)
{
    unsigned user = (unsigned)pick(w, 0, SERVER_USERS - 1);
    bool wrong = chance(w, 1, 6);
    draft_word(d, "AUTH");
    draft_word(d, server_users[user]);
    draft_word(d, wrong ? "wrong" : server_passwords[user]);
    expect(d, EXPECT_OK, SETS_USER);
    d->record.next.user = (uint8_t)user;
}

static void add_name(const struct client *c, struct draft *d)
{
    char name[NAME_MAX];
    snprintf(name, sizeof name, "n%" PRIu64 ".%" PRIu32, c->id, c->made);
    draft_word(d, name);
    d->record.sets |= SETS_NAME;
    d->record.next.name = (uint32_t)hash_bytes(0, name, strlen(name)) | 1;
}

static void draft_hello(struct world *w, struct client *c, struct draft *d)
{
    uint8_t resp = (uint8_t)pick(w, 2, 3);
    bool known = chance(w, 9, 10);
    bool hears = w->cluster != NULL &&
                 (c->will_subs[SUB_CHANNEL] | c->will_subs[SUB_PATTERN] |
                  c->will_subs[SUB_SHARD]) != 0;
    if (c->future.tracking || hears) {
        resp = 3; /* with RESP2 it would be told nothing any more */
    }
    draft_word(d, "HELLO");
    draft_number(d, known ? resp : 4);
    expect(d, EXPECT_HELLO, SETS_RESP);
    d->record.next.resp = resp;
    c->future.resp = known ? resp : c->future.resp;
    if (known && !w->settings.own_auth && chance(w, 1, 3)) {
        unsigned user = (unsigned)pick(w, 0, SERVER_USERS - 1);
        draft_word(d, "AUTH");
        draft_word(d, server_users[user]);
        draft_word(d, server_passwords[user]);
        d->record.sets |= SETS_USER;
        d->record.next.user = (uint8_t)user;
    }
    if (w->settings.stateful && chance(w, 1, 4)) {
        draft_word(d, "SETNAME");
        add_name(c, d);
    }
}

static void draft_setname(const struct client *c, struct draft *d)
{
    draft_word(d, "CLIENT");
    draft_word(d, "SETNAME");
    expect(d, EXPECT_OK, 0);
    add_name(c, d);
}

static void draft_id(struct draft *d)
{
    draft_word(d, "CLIENT");
    draft_word(d, "ID");
    expect(d, EXPECT_INTEGER, 0);
    d->record.class = CLASS_RN;
}

void draft_session(struct world *w, struct client *c, struct draft *d)
{
    switch (pick(w, 0, 6)) {
    case 0:
    case 1: {
        uint8_t db = (uint8_t)(chance(w, 9, 10) ? pick(w, 0, 3) : SERVER_DBS);
        draft_word(d, "SELECT");
        draft_number(d, db);
        expect(d, EXPECT_OK, SETS_DB);
        d->record.next.db = db;
        break;
    }
    case 2: draft_hello(w, c, d); break;
    case 3:
        if (w->settings.own_auth) {
            draft_setname(c, d);
        } else {
            draft_auth(w, d);
        }
        break;
    case 4: draft_setname(c, d); break;
    case 5: draft_id(d); break;
    default:
        draft_word(d, "PING");
        expect(d, EXPECT_PONG, 0);
        d->record.class = CLASS_R;
        break;
    }
}

static void draft_hint(struct world *w, struct draft *d, bool evict)
{
    bool on = chance(w, 1, 2);
    draft_word(d, "CLIENT");
    draft_word(d, evict ? "NO-EVICT" : "NO-TOUCH");
    draft_word(d, on ? "ON" : "OFF");
    expect(d, EXPECT_OK, evict ? SETS_NO_EVICT : SETS_NO_TOUCH);
    d->record.next.no_evict = on ? HINT_ON : HINT_OFF;
    d->record.next.no_touch = d->record.next.no_evict;
}

void draft_client_facts(struct world *w, struct client *c, struct draft *d)
{
    switch (pick(w, 0, 4)) {
    case 0: draft_setname(c, d); break;
    case 1:
        draft_word(d, "CLIENT");
        draft_word(d, "GETNAME");
        expect(d, EXPECT_NAME, 0);
        d->record.class = CLASS_RN;
        break;
    case 2: draft_id(d); break;
    case 3: draft_hint(w, d, true); break;
    default: draft_hint(w, d, false); break;
    }
}

void draft_reset(struct world *w, struct client *c, struct draft *d)
{
    draft_word(d, "RESET");
    expect(d, EXPECT_RESET, 0);
    if (c->block != 0) {
        d->record.ends_block = true;
        d->record.block = c->block;
        c->block = 0;
        c->blocks_made++;
    }
    c->n_watches = 0;
    memset(c->will_subs, 0, sizeof c->will_subs);
    c->future = (struct ledger){ .resp = 2 };
    c->login_due = w->settings.password && !w->settings.own_auth;
}

/* CLIENT TRACKING, for which RESP3 must be spoken. */
void draft_tracking(struct world *w, struct client *c, struct draft *d)
{
    bool on = chance(w, 3, 4);
    if (c->future.resp != 3) {
        draft_word(d, "HELLO");
        draft_word(d, "3");
        expect(d, EXPECT_HELLO, SETS_RESP);
        d->record.next.resp = 3;
        c->future.resp = 3;
        return;
    }
    draft_word(d, "CLIENT");
    draft_word(d, "TRACKING");
    draft_word(d, on ? "ON" : "OFF");
    expect(d, EXPECT_OK, SETS_TRACKING);
    d->record.next.tracking = on;
    c->future.tracking = on;
}
