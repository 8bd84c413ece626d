/* Transactions: WATCH, MULTI, what is between it and EXEC, and all of them where
 * they do not belong. */
#include <inttypes.h>
#include <stdio.h>

#include "tests/sim/draft.h"
#include "tests/sim/server.h"

enum {
    COMMANDS_MAX = 5,
    STRING_SLOTS = 3,
};

static void control(struct draft *d, const char *word, enum expect expect)
{
    draft_word(d, word);
    d->record.class = CLASS_X;
    d->record.expect = (uint8_t)expect;
}

void watch_key_name(const struct world *w,
                    const struct client *c,
                    char *text,
                    size_t size)
{
    if (w->cluster != NULL) {
        snprintf(text, size, "{b%" PRIu64 ".%" PRIu32 "}w", c->id,
                 c->blocks_made);
    } else {
        snprintf(text, size, "w%" PRIu64, c->id);
    }
}

/* WATCH of a key that others change, and maybe one of its own. */
static void draft_watch(struct world *w, struct client *c, struct draft *d)
{
    char text[64];
    uint64_t kind = w->settings.stateful ? pick(w, 0, 3) : 3;
    control(d, "WATCH", EXPECT_OK);
    d->record.is_watch = true;
    d->record.tracked = true;
    if (kind <= 1 || w->cluster != NULL) {
        watch_key_name(w, c, text, sizeof text);
        draft_word(d, text);
    }
    if (kind >= 1 && w->cluster == NULL) {
        unsigned slot = (unsigned)pick(w, 0, STRING_SLOTS - 1);
        draft_key_name(w, c, slot, kind == 2, text, sizeof text);
        draft_word(d, text);
    }
    draft_tag_key(w, d, c);
}

static void draft_multi(struct world *w, struct client *c, struct draft *d)
{
    control(d, "MULTI", EXPECT_OK);
    c->block = block_new(w, c->id);
    struct block *b = block_at(w, c->block);
    b->n_watches = c->n_watches;
    b->may_watch = c->may_watch;
    memcpy(b->watch, c->watches, sizeof b->watch);
    d->record.begins_block = true;
    d->record.block = c->block;
    c->block_left = (uint32_t)pick(w, chance(w, 1, 10) ? 0 : 1, COMMANDS_MAX);
}

void draft_transaction(struct world *w, struct client *c, struct draft *d)
{
    bool watches = w->cluster == NULL || w->settings.stateful;
    if (w->settings.stateful && chance(w, 1, 20)) {
        control(d, chance(w, 1, 2) ? "EXEC" : "DISCARD", EXPECT_ANY);
    } else if (c->n_watches > 0 && chance(w, 1, 8)) {
        control(d, "UNWATCH", EXPECT_OK);
        d->record.unwatches = true;
        c->n_watches = 0;
    } else if (watches && c->n_watches < WATCHES_MAX && chance(w, 1, 3)) {
        draft_watch(w, c, d);
    } else {
        draft_multi(w, c, d);
    }
}

void draft_block_end(struct world *w, struct client *c, struct draft *d)
{
    bool executes = chance(w, 5, 6);
    control(d, executes ? "EXEC" : "DISCARD", EXPECT_BLOCK);
    d->record.ends_block = true;
    d->record.executes_block = executes;
    d->record.block = c->block;
    c->block = 0;
    c->blocks_made++;
    c->n_watches = 0;
}

/* What the server refuses to queue; only an unknown command spoils the block. */
static void draft_refused(struct world *w, struct client *c, struct draft *d)
{
    switch (pick(w, 0, 3)) {
    case 0: control(d, "MULTI", EXPECT_ANY); break;
    case 1:
        control(d, "WATCH", EXPECT_ANY);
        d->record.tracked = true;
        d->record.in_block = true;
        draft_tag_key(w, d, c);
        break;
    default:
        draft_word(d, "NOSUCH");
        draft_tag_key(w, d, c);
        d->record.tracked = true;
        d->record.class = CLASS_U;
        d->record.writes = true;
        d->record.expect = EXPECT_QUEUED;
        d->record.block = c->block;
        break;
    }
}

void draft_in_block(struct world *w, struct client *c, struct draft *d)
{
    if (w->settings.stateful && c->habits & HABIT_RESETS && chance(w, 1, 30)) {
        draft_reset(w, c, d);
        return;
    }
    if (c->block_left == 0) {
        draft_block_end(w, c, d);
        return;
    }
    c->block_left--;
    if (w->settings.stateful && chance(w, 1, 15)) {
        draft_refused(w, c, d);
        return;
    }
    draft_data(w, c, d);
    d->record.expect = EXPECT_QUEUED;
    d->record.block = c->block;
}
