#include "tests/sim/generate.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/draft.h"
#include "tests/sim/resp_model.h"
#include "tests/sim/server.h"

enum {
    KEY_USES_MAX = 12,  /* then the client takes a new key */
    TAG_BASE = 1000000, /* numbers that are tags begin here */
    VALUE_MAX = 60,
    BIG_VALUE_MAX = 90000,
    BLPOP_DEADLINE_MIN_US = 10000000,
};

void draft_word(struct draft *d, const char *text)
{
    assert(d->n < WORDS_MAX);
    bytes_add_text(&d->word[d->n++], text);
}

static void add(struct draft *d, const char *text)
{
    draft_word(d, text);
}

/* A command's name; its case tells equal requests apart. */
static void add_name(struct draft *d, const char *name, uint64_t variant)
{
    char text[16];
    size_t i = 0;
    for (; name[i] != '\0'; i++) {
        bool lower = variant >> i & 1;
        text[i] = lower ? (char)(name[i] - 'A' + 'a') : name[i];
    }
    text[i] = '\0';
    add(d, text);
}

void draft_number(struct draft *d, uint64_t number)
{
    char text[24];
    snprintf(text, sizeof text, "%" PRIu64, number);
    add(d, text);
}

/* A number no other request has. */
uint64_t draft_tag(const struct client *c)
{
    return c->id * 1000000 + TAG_BASE + c->made;
}

void draft_value(struct world *w, struct draft *d, const struct client *c)
{
    char text[64];
    uint64_t size = w->settings.big_values && chance(w, 1, 40)
                        ? pick(w, 500, BIG_VALUE_MAX)
                        : pick(w, 0, VALUE_MAX);
    snprintf(text, sizeof text, "v%" PRIu64 ".%" PRIu32 ".", c->id, c->made);
    add(d, text);
    struct bytes *word = &d->word[d->n - 1];
    static const char padding[] = "0123456789\r\n$abc*+-:%_\"' xyz";
    while (word->size < size) {
        size_t n = size - word->size;
        bytes_add(word, padding, n < sizeof padding ? n : sizeof padding);
    }
}

/* A key that exists only to make a request unlike any other; in a cluster it
 * lies beside the key before it. */
void draft_tag_key(const struct world *w,
                   struct draft *d,
                   const struct client *c)
{
    char text[48];
    snprintf(text, sizeof text, "t%" PRIu64 ".%" PRIu32, c->id, c->made);
    if (w->cluster == NULL || d->n < 2) {
        add(d, text);
        return;
    }
    struct span key = bytes_span(&d->word[d->n - 1]);
    bool braced = key.len > 0 && key.data[0] == '{';
    add(d, braced ? "" : "{");
    struct bytes *word = &d->word[d->n - 1];
    bytes_add(word, key.data, key.len);
    bytes_add_text(word, braced ? "" : "}");
    bytes_add_text(word, text);
}

uint32_t draft_key_name(const struct world *w,
                        const struct client *c,
                        unsigned slot,
                        bool shared,
                        char *text,
                        size_t size)
{
    if (w->cluster != NULL && c->block != 0) {
        snprintf(text, size, "{b%" PRIu64 ".%" PRIu32 "}%u", c->id,
                 c->blocks_made, slot);
        return BLOCK_KEY + c->blocks_made * CLIENT_KEYS + slot;
    }
    if (shared) {
        snprintf(text, size, "s%u", slot);
        return SHARED_KEY + slot;
    }
    snprintf(text, size, "p%" PRIu64 ".%u.%" PRIu32, c->id, slot,
             c->epoch[slot]);
    return 1 + slot + CLIENT_KEYS * c->epoch[slot];
}

void draft_key(const struct world *w,
               struct draft *d,
               const struct client *c,
               unsigned slot,
               bool shared)
{
    char text[64];
    uint32_t name = draft_key_name(w, c, slot, shared, text, sizeof text);
    d->record.private_keys = d->record.private_keys && !shared;
    add(d, text);
    unsigned i = d->record.keys[0] == NO_KEY ? 0 : 1;
    d->record.keys[i] = name;
}

static void is(struct draft *d, enum command_class class, bool writes)
{
    d->record.class = (uint8_t) class;
    d->record.writes = writes;
}

static enum key_kind kind_of(unsigned slot)
{
    return slot < 3 ? KEY_STRING : slot == 3 ? KEY_COUNTER : KEY_LIST;
}

/* --- commands on one key of each kind ---------------------------------- */

static void draft_string(struct world *w,
                         struct client *c,
                         struct draft *d,
                         unsigned slot,
                         bool shared)
{
    /* what has no tag of its own comes last and is for private keys */
    uint64_t kind = pick(w, 0, shared ? 9 : 13);
    if (w->cluster != NULL && (kind == 6 || kind == 8 || kind == 9)) {
        draft_many(w, c, d, slot, shared);
        return;
    }
    switch (kind) {
    case 0:
        add(d, "SET");
        is(d, CLASS_I, true);
        break;
    case 1:
        add(d, "set");
        is(d, CLASS_T, true);
        break;
    case 2:
        add(d, "SETEX");
        is(d, CLASS_T, true);
        break;
    case 3:
        add(d, "SETNX");
        is(d, CLASS_D, true);
        break;
    case 4:
        add(d, "GETSET");
        is(d, CLASS_D, true);
        break;
    case 5:
        add(d, "SET");
        is(d, CLASS_D, true);
        break;
    case 6:
        add(d, "MSET");
        is(d, CLASS_I, true);
        break;
    case 7:
        add(d, "GETRANGE");
        is(d, CLASS_R, false);
        break;
    case 8:
        add(d, "MGET");
        is(d, CLASS_R, false);
        break;
    case 9:
        add(d, "DEL");
        is(d, CLASS_S, true);
        break;
    case 10:
        add(d, "APPEND");
        is(d, CLASS_N, true);
        break;
    case 11:
        add(d, "EXPIRE");
        is(d, CLASS_T, true);
        break;
    case 12:
        add_name(d, "STRLEN", pick(w, 0, 63));
        is(d, CLASS_R, false);
        break;
    default:
        add_name(d, "GET", pick(w, 0, 7));
        is(d, CLASS_R, false);
        break;
    }
    draft_key(w, d, c, slot, shared);
    switch (kind) {
    case 0:
    case 3:
    case 4:
    case 10: draft_value(w, d, c); break;
    case 1:
        draft_value(w, d, c);
        add(d, "PX");
        add(d, "99999999");
        break;
    case 2:
        add(d, "99999");
        draft_value(w, d, c);
        break;
    case 5:
        draft_value(w, d, c);
        add(d, chance(w, 1, 2) ? "NX" : "GET");
        break;
    case 6:
        draft_value(w, d, c);
        if (!shared) {
            draft_key(w, d, c, (slot + 1) % 3, false);
            draft_value(w, d, c);
        }
        break;
    case 7:
        add(d, "0");
        draft_number(d, draft_tag(c));
        break;
    case 8:
    case 9: draft_tag_key(w, d, c); break;
    case 11: draft_number(d, draft_tag(c)); break;
    default: break;
    }
}

static void draft_counter(struct world *w,
                          struct client *c,
                          struct draft *d,
                          unsigned slot,
                          bool shared)
{
    switch (pick(w, 0, shared ? 1 : 3)) {
    case 0:
    case 1:
        add(d, "INCRBY");
        is(d, CLASS_N, true);
        draft_key(w, d, c, slot, shared);
        draft_number(d, draft_tag(c));
        break;
    case 2:
        add_name(d, "INCR", pick(w, 0, 15));
        is(d, CLASS_N, true);
        draft_key(w, d, c, slot, false);
        break;
    default:
        add_name(d, "GET", pick(w, 0, 7));
        is(d, CLASS_R, false);
        draft_key(w, d, c, slot, false);
        break;
    }
}

static void draft_list(struct world *w,
                       struct client *c,
                       struct draft *d,
                       unsigned slot,
                       bool shared)
{
    uint64_t kind = pick(w, 0, shared ? 1 : 4);
    /* What waits behind a BLPOP must not come near the deadline. */
    bool patient = w->upstream->deadline_us >= BLPOP_DEADLINE_MIN_US;
    if (kind == 4 && (!patient || c->block != 0 || chance(w, 3, 4))) {
        kind = 0;
    }
    switch (kind) {
    case 0:
        add(d, "RPUSH");
        is(d, CLASS_N, true);
        draft_key(w, d, c, slot, shared);
        draft_value(w, d, c);
        break;
    case 1:
        add(d, shared ? "EXISTS" : "LRANGE");
        is(d, CLASS_R, false);
        draft_key(w, d, c, slot, shared);
        if (shared) {
            draft_tag_key(w, d, c);
        } else {
            add(d, "0");
            draft_number(d, draft_tag(c));
        }
        break;
    case 2:
        add(d, "LTRIM");
        is(d, CLASS_I, true);
        draft_key(w, d, c, slot, false);
        add(d, "0");
        draft_number(d, draft_tag(c));
        break;
    case 3:
        add_name(d, "LLEN", pick(w, 0, 15));
        is(d, CLASS_R, false);
        draft_key(w, d, c, slot, false);
        break;
    default:
        add(d, "BLPOP");
        is(d, CLASS_BN, true);
        draft_key(w, d, c, slot, false);
        draft_tag_key(w, d, c);
        d->record.wait_us = pick(w, 1, 2) * 1000000;
        draft_number(d, d->record.wait_us / 1000000);
        break;
    }
}

void draft_data(struct world *w, struct client *c, struct draft *d)
{
    bool shared = chance(w, 1, 8);
    unsigned slot = (unsigned)pick(w, 0, CLIENT_KEYS - 1);
    d->record.tracked = true;
    d->record.private_keys = true;
    if (shared) {
        slot %= SHARED_KEYS;
    } else if (++c->uses[slot] > KEY_USES_MAX) {
        c->uses[slot] = 0;
        c->epoch[slot]++;
    }
    if (chance(w, 1, 30)) {
        add(d, chance(w, 3, 4) ? "ECHO" : "NOSUCH");
        bool echo = d->word[0].data[0] == 'E';
        is(d, echo ? CLASS_R : CLASS_U, !echo);
        draft_tag_key(w, d, c);
        return;
    }
    switch (kind_of(slot)) {
    case KEY_STRING: draft_string(w, c, d, slot, shared); break;
    case KEY_COUNTER: draft_counter(w, c, d, slot, shared); break;
    case KEY_LIST:
    case KEY_KINDS: draft_list(w, c, d, slot, shared); break;
    }
}

/* --- putting it into words --------------------------------------------- */

static void encode_inline(struct world *w,
                          const struct draft *d,
                          struct bytes *out)
{
    for (size_t i = 0; i < d->n; i++) {
        bool quoted = chance(w, 1, 4);
        bytes_add_text(out, quoted ? "\"" : "");
        bytes_add(out, bytes_front(&d->word[i]), d->word[i].size);
        bytes_add_text(out, quoted ? "\"" : "");
        bytes_add_text(out, i + 1 < d->n      ? " "
                            : chance(w, 1, 2) ? "\r\n"
                                              : "\n");
    }
}

static bool fits_a_line(const struct draft *d)
{
    for (size_t i = 0; i < d->n; i++) {
        for (size_t k = 0; k < d->word[i].size; k++) {
            uint8_t byte = bytes_front(&d->word[i])[k];
            if (byte <= ' ' || byte == '"' || byte == '\'' || byte > '~') {
                return false;
            }
        }
        if (d->word[i].size == 0 || d->word[i].size > 200) {
            return false;
        }
    }
    return true;
}

static void draft_fini(struct draft *d)
{
    for (size_t i = 0; i < d->n; i++) {
        bytes_fini(&d->word[i]);
    }
    d->n = 0;
}

/* When such a request is served cannot be seen. */
static bool waits_for_untracked(struct world *w, const struct client *c)
{
    for (uint32_t i = 0; i < c->n_waiting; i++) {
        uint32_t request = c->waiting[(c->first + i) % CLIENT_WINDOW];
        if (!history_at(w->history, request)->tracked) {
            return true;
        }
    }
    return false;
}

/* Enter the draft and send it; false when it is equal to an earlier one. */
static bool commit(struct world *w, struct client *c, struct draft *d)
{
    struct span arg[WORDS_MAX];
    struct bytes words = { 0 };
    size_t before = c->out.size;
    for (size_t i = 0; i < d->n; i++) {
        arg[i] = bytes_span(&d->word[i]);
    }
    model_command_add(&words, arg, d->n);
    if (fits_a_line(d) && chance(w, 1, 20)) {
        encode_inline(w, d, &c->out);
    } else {
        bytes_add(&c->out, bytes_front(&words), words.size);
    }
    d->record.client = c->id;
    d->record.index = c->made;
    d->record.behind_others = waits_for_untracked(w, c);
    d->record.size = c->out.size - before;
    d->record.end = c->sent_bytes + d->record.size;
    uint32_t request = history_add(w->history, &d->record, bytes_span(&words));
    world_tell(w, "made", request, bytes_span(&words));
    bytes_fini(&words);
    if (request == NO_REQUEST) {
        c->out.size = before;
        return false;
    }
    parts_add(w, d, request);
    if (d->record.is_watch && c->n_watches < WATCHES_MAX) {
        c->watches[c->n_watches++] = request;
        c->may_watch = true;
    }
    if (d->record.ends_block) {
        block_at(w, d->record.block)->end = request;
    }
    c->sent_bytes = d->record.end;
    c->made++;
    c->waiting[(c->first + c->n_waiting) % CLIENT_WINDOW] = request;
    c->n_waiting++;
    w->sent++;
    return true;
}

static void draft_one(struct world *w, struct client *c, struct draft *d)
{
    const struct settings *s = &w->settings;
    *d = (struct draft){ 0 };
    if (c->login_due) {
        c->login_due = false;
        draft_login(d);
    } else if (c->block != 0) {
        draft_in_block(w, c, d);
    } else if (s->stateful && draft_stateful(w, c, d)) {
        return;
    } else if (s->scans && chance(w, 1, c->scanning ? 4 : 20)) {
        draft_all_keys(w, c, d);
    } else if (s->transactions && chance(w, 1, 25)) {
        draft_transaction(w, c, d);
    } else if (s->sessions && chance(w, 1, 15)) {
        draft_session(w, c, d);
    } else if (chance(w, 1, 400)) {
        add(d, "QUIT");
        d->record.class = CLASS_C;
        d->record.expect = EXPECT_OK;
        c->quitting = true;
    } else {
        draft_data(w, c, d);
    }
}

void generate(struct world *w, struct client *c)
{
    struct draft d;
    bool done = false;
    if (c->n_waiting == CLIENT_WINDOW) {
        return;
    }
    while (!done) {
        draft_one(w, c, &d);
        done = commit(w, c, &d);
        if (!done && c->block != 0) {
            c->block_left++;
        }
        draft_fini(&d);
    }
}

void generate_login(struct world *w, struct client *c)
{
    struct draft d = { 0 };
    draft_login(&d);
    commit(w, c, &d);
    draft_fini(&d);
}

void generate_block_end(struct world *w, struct client *c)
{
    struct draft d = { 0 };
    draft_block_end(w, c, &d);
    commit(w, c, &d);
    draft_fini(&d);
}
