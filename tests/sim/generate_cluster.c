/* Requests that only a cluster makes interesting: several keys in one slot or
 * in many, and walks over all keys. */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "proxy/core/node_state.h"
#include "tests/sim/cluster_model.h"
#include "tests/sim/draft.h"

enum {
    GROUPS_MAX = 3,
    NAME_MAX_BYTES = 96,
};

/* --- several keys ------------------------------------------------------ */

struct chosen {
    char name[NAME_MAX_BYTES];
    uint32_t key; /* NO_KEY: one that only tells requests apart */
};

struct choice {
    struct chosen key[SPLIT_KEYS_MAX];
    unsigned n;
};

static void choose(struct choice *o, const char *name, uint32_t key)
{
    assert(o->n < SPLIT_KEYS_MAX);
    struct chosen *k = &o->key[o->n++];
    snprintf(k->name, sizeof k->name, "%s", name);
    k->key = key;
}

/* Keys of one slot: a key, maybe one beside it, and one that is no other
 * request's. */
static void choose_group(struct world *w,
                         const struct client *c,
                         struct choice *o,
                         unsigned slot,
                         bool shared,
                         bool tagged)
{
    char base[NAME_MAX_BYTES / 2];
    char name[NAME_MAX_BYTES];
    uint32_t key = draft_key_name(w, c, slot, shared, base, sizeof base);
    bool braced = strchr(base, '{') != NULL;
    choose(o, base, key);
    if (chance(w, 1, 2)) {
        snprintf(name, sizeof name, braced ? "%sb" : "{%s}b", base);
        choose(o, name, key | SIBLING_KEY);
    }
    if (tagged) {
        snprintf(name, sizeof name,
                 braced ? "%st%" PRIu64 ".%" PRIu32
                        : "{%s}t%" PRIu64 ".%" PRIu32,
                 base, c->id, c->made);
        choose(o, name, NO_KEY);
    }
}

static void shuffle(struct world *w, struct choice *o)
{
    for (unsigned i = o->n; i > 1; i--) {
        uint64_t k = pick(w, 0, i - 1);
        struct chosen swap = o->key[i - 1];
        o->key[i - 1] = o->key[k];
        o->key[k] = swap;
    }
}

static void key_enter(struct request_record *r, uint32_t key)
{
    for (unsigned i = 0; i < KEYS_PER_REQUEST; i++) {
        if (r->keys[i] == NO_KEY || r->keys[i] == key) {
            r->keys[i] = key;
            return;
        }
    }
    assert(false);
}

/* Which part each key belongs to; all in one slot: no parts. */
static void split(struct draft *d, const struct choice *o)
{
    uint16_t slots[PARTS_MAX];
    unsigned n = 0;
    for (unsigned i = 0; i < o->n; i++) {
        uint16_t slot = model_slot(span_of(o->key[i].name));
        unsigned p = 0;
        while (p < n && slots[p] != slot) {
            p++;
        }
        if (p == n) {
            slots[n] = slot;
            d->part[n++] = d->record;
        }
        d->record.part[i] = (uint8_t)p;
        if (o->key[i].key != NO_KEY) {
            key_enter(&d->part[p], o->key[i].key);
        }
    }
    for (unsigned i = 0; i < o->n; i++) {
        if (o->key[i].key != NO_KEY) {
            key_enter(&d->record, o->key[i].key);
        }
    }
    d->record.n_split = (uint8_t)o->n;
    if (n > 1) {
        d->record.n_parts = (uint8_t)n;
        d->record.tracked = false; /* it never runs as it is */
    }
}

void draft_many(struct world *w,
                struct client *c,
                struct draft *d,
                unsigned slot,
                bool shared)
{
    static const struct {
        const char *name;
        enum command_class class;
        bool writes;
        enum expect expect;
    } kinds[] = {
        { "MGET", CLASS_R, false, EXPECT_VALUES },
        { "MGET", CLASS_R, false, EXPECT_VALUES },
        { "MSET", CLASS_I, true, EXPECT_ALL_OK },
        { "MSET", CLASS_I, true, EXPECT_ALL_OK },
        { "DEL", CLASS_S, true, EXPECT_COUNT },
        { "UNLINK", CLASS_S, true, EXPECT_COUNT },
        { "EXISTS", CLASS_R, false, EXPECT_COUNT },
        { "TOUCH", CLASS_R, false, EXPECT_COUNT },
    };
    uint64_t kind = pick(w, 0, sizeof kinds / sizeof kinds[0] - 1);
    uint64_t groups = c->block != 0 || !w->settings.splits || chance(w, 1, 2)
                          ? 1
                          : pick(w, 2, GROUPS_MAX);
    bool pairs = kinds[kind].expect == EXPECT_ALL_OK;
    struct choice o = { 0 };
    for (unsigned g = 0; g < groups; g++) {
        choose_group(w, c, &o, (slot + g) % 3, shared, !pairs);
    }
    shuffle(w, &o);
    d->record.class = (uint8_t)kinds[kind].class;
    d->record.writes = kinds[kind].writes;
    d->record.private_keys = !shared;
    split(d, &o);
    if (d->record.n_parts > 0) {
        d->record.expect = (uint8_t)kinds[kind].expect;
        w->counts.split++;
    }
    draft_word(d, kinds[kind].name);
    for (unsigned i = 0; i < o.n; i++) {
        draft_word(d, o.key[i].name);
        if (pairs) {
            draft_value(w, d, c);
        }
    }
}

void parts_add(struct world *w, const struct draft *d, uint32_t request)
{
    unsigned step = d->record.expect == EXPECT_ALL_OK ? 2 : 1;
    for (unsigned p = 0; p < d->record.n_parts; p++) {
        struct request_record r = d->part[p];
        struct span arg[WORDS_MAX] = { bytes_span(&d->word[0]) };
        struct bytes words = { 0 };
        size_t n = 1;
        for (unsigned i = 0; i < d->record.n_split; i++) {
            for (unsigned k = 0; k < step && d->record.part[i] == p; k++) {
                arg[n++] = bytes_span(&d->word[1 + i * step + k]);
            }
        }
        model_command_add(&words, arg, n);
        r.client = d->record.client;
        r.index = d->record.index;
        r.size = d->record.size;
        r.whole = request + 1;
        r.tracked = true;
        if (history_add(w->history, &r, bytes_span(&words)) == NO_REQUEST) {
            world_violate(w, "the model made two equal parts");
        }
        bytes_fini(&words);
    }
}

/* --- all keys ---------------------------------------------------------- */

/* Whether the engine has heard who owns the slots now, or has heard of nothing
 * yet and will wait for it. Of a node that it does not know of no walk returns
 * keys. */
static bool engine_knows_owners(const struct world *w)
{
    struct node_state known[SERVERS_SHOWN];
    struct cluster_state state = { .nodes = known, .nodes_max = SERVERS_SHOWN };
    const struct cluster_model *cl = w->cluster;
    uint32_t owned[NODES_MAX] = { 0 };
    for (unsigned slot = 0; slot < CLUSTER_SLOTS; slot++) {
        owned[cl->owner[slot]]++;
    }
    engine_cluster_state(w->engine, 0, &state);
    uint32_t right = 0;
    for (uint32_t i = 0; i < state.n_nodes; i++) {
        for (unsigned k = 0; k < cl->n_nodes; k++) {
            bool same = strcmp(known[i].id, cl->nodes[k]->id) == 0;
            right += same && known[i].n_slots == owned[k] ? owned[k] : 0;
        }
    }
    return right == CLUSTER_SLOTS || !state.adopted;
}

static void draft_scan(struct world *w, struct client *c, struct draft *d)
{
    struct cluster_model *cl = w->cluster;
    bool quiet = cluster_is_quiet(cl) && engine_knows_owners(w);
    if (!c->scanning) {
        c->scanning = true;
        c->scan_seen = 0;
        /* While slots are on their way a walk may miss keys. */
        c->scan_upheavals = quiet ? cl->upheavals : UINT64_MAX;
        snprintf(c->scan_cursor, sizeof c->scan_cursor, "0");
    }
    c->scan_waits = true;
    draft_word(d, "SCAN");
    draft_word(d, c->scan_cursor);
    d->record.expect = EXPECT_SCAN;
}

void draft_all_keys(struct world *w, struct client *c, struct draft *d)
{
    d->record.class = CLASS_RN;
    if (!c->scan_waits && chance(w, 4, 5)) {
        draft_scan(w, c, d);
    } else if (chance(w, 1, 2)) {
        draft_word(d, "DBSIZE");
        d->record.expect = EXPECT_INTEGER;
    } else {
        draft_word(d, "KEYS");
        draft_word(d, "*");
        d->record.expect = EXPECT_ARRAY;
    }
}

static void see(struct client *c, struct span key)
{
    for (unsigned i = 0; i < FIXTURES; i++) {
        char name[16];
        snprintf(name, sizeof name, "fix%u", i);
        if (span_equal(key, span_of(name))) {
            c->scan_seen |= 1u << i;
        }
    }
}

/* "$<n>\r\n<text>\r\n" at the front of rest. */
static bool bulk_take(struct span *rest, struct span *text)
{
    size_t size;
    if (model_reply_end(*rest, &size) != MODEL_DONE || rest->data[0] != '$') {
        return false;
    }
    const uint8_t *begin = memchr(rest->data, '\n', size);
    *text = (struct span){ .data = begin + 1,
                           .len = size - 3 - (size_t)(begin - rest->data) };
    rest->data += size;
    rest->len -= size;
    return true;
}

static bool head_take(struct span *rest, unsigned *n)
{
    size_t i = 0;
    while (i < rest->len && rest->data[i] != '\n') {
        i++;
    }
    if (i == rest->len || rest->data[0] != '*') {
        return false;
    }
    *n = (unsigned)strtoul((const char *)rest->data + 1, NULL, 10);
    rest->data += i + 1;
    rest->len -= i + 1;
    return true;
}

static void scan_end(struct world *w, struct client *c)
{
    struct cluster_model *cl = w->cluster;
    c->scanning = false;
    if (c->scan_upheavals != cl->upheavals) {
        return;
    }
    w->counts.scanned++;
    if (c->scan_seen != (1u << FIXTURES) - 1) {
        world_violate(w,
                      "SCAN of client %" PRIu64
                      " missed keys that were there all the time (%x)",
                      c->id, c->scan_seen);
    }
}

static void scan_answered(struct world *w, struct client *c, struct span reply)
{
    struct span cursor;
    struct span key;
    unsigned n = 0;
    c->scan_waits = false;
    if (reply.data[0] == '-') {
        c->scanning = false; /* it was told */
        return;
    }
    if (!head_take(&reply, &n) || n != 2 || !bulk_take(&reply, &cursor) ||
        cursor.len == 0 || cursor.len > 20 || !head_take(&reply, &n)) {
        world_violate(w, "I3: the reply to SCAN is none");
        return;
    }
    snprintf(c->scan_cursor, sizeof c->scan_cursor, "%.*s", (int)cursor.len,
             (const char *)cursor.data);
    while (n-- > 0 && bulk_take(&reply, &key)) {
        see(c, key);
    }
    if (strcmp(c->scan_cursor, "0") == 0) {
        scan_end(w, c);
    }
}

void all_keys_answered(struct world *w,
                       struct client *c,
                       enum expect expect,
                       struct span reply)
{
    uint64_t upheavals = w->cluster->upheavals;
    unsigned least = upheavals == 0 ? FIXTURES : 0;
    if (expect == EXPECT_SCAN) {
        scan_answered(w, c, reply);
    } else if (reply.data[0] == ':' || reply.data[0] == '*') {
        uint64_t n = strtoull((const char *)reply.data + 1, NULL, 10);
        if (n < least) {
            world_violate(w,
                          "a count or list of all keys is too short: %" PRIu64,
                          n);
        }
    }
}
