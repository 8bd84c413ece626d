/* What concerns all nodes of a cluster (redis.md §9): DBSIZE, KEYS, FLUSHALL,
 * SCRIPT LOAD, SCAN, RANDOMKEY and the like. */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#include "parser/number.h"
#include "proxy/core/redis_gather.h"
#include "proxy/core/state.h"

enum {
    LINE_MAX = 96, /* the beginning of a reply; a whole number */
};

/* ---- the primaries ------------------------------------------------------------- */

enum {
    LAYOUT_BITS = 6
};

/* How the slots are divided, whoever has them: 1 to 2^LAYOUT_BITS - 1. nodes
 * holds 1 + the lowest slot of each. */
static uint8_t layout_of(const struct gather_tables *t, const struct cluster *c)
{
    uint32_t hash = 0x811c9dc5u;
    for (uint32_t s = 0; s < KEYSLOT_COUNT; s++) {
        hash = (hash ^ t->nodes[c->slots[s]]) * 0x01000193u;
    }
    return (uint8_t)(1 + (hash >> 8) % ((1u << LAYOUT_BITS) - 1));
}

/* List the primaries by the lowest slot that each owns: an order that a failover
 * does not change. NULL without memory. */
static const struct gather_tables *find_primaries(struct engine *e,
                                                  const struct cluster *c)
{
    struct gather_tables *t = gather_tables(e);
    if (t == NULL || (t->cluster == c && t->version == c->version)) {
        return t;
    }
    t->n_primaries = 0;
    t->cluster = c;
    t->version = c->version;
    for (uint32_t s = 0; s < KEYSLOT_COUNT; s++) {
        uint16_t node = c->slots[s];
        if (t->nodes[node] == 0 && !c->endpoints[node]->limbo) {
            t->nodes[node] = (uint16_t)(s + 1);
            t->first_slots[t->n_primaries++] = (uint16_t)s;
        }
    }
    t->layout = layout_of(t, c);
    for (uint32_t i = 0; i < t->n_primaries; i++) {
        t->nodes[c->slots[t->first_slots[i]]] = 0;
    }
    return t;
}

static struct cluster *cluster_of(const struct gather *g)
{
    return g->parent->downstream->listener->cluster;
}

static bool refuse_memory(struct engine *e,
                          struct downstream *d,
                          struct request *r)
{
    e->stats.limit_memory++;
    redis_refuse(e, d, r, "out of memory");
    return true;
}

/* ---- SCAN ------------------------------------------------------------------------ */

/* The cursor a client is given holds the one of a node, the lowest slot of that
 * node, how the slots were divided when the walk began, and a hash of the node's
 * name. When slots have moved meanwhile, another walk follows: keys may have
 * gone from a node to be walked to one that has been. Another node that has taken over these slots has
 * its keys in another order, and is walked from its beginning. In this order, as
 * some libraries make a floating-point number of a cursor: it is exact below
 * 2^53. */
enum {
    HASH_BITS = 10,
    SLOT_BITS = 14,
    LAYOUT_HAS_CHANGED = 0, /* since the walk began */
    NODE_CURSOR_BITS = 33,  /* the sum is below 2^63 */
};

static uint16_t hash_of(const struct endpoint *p)
{
    uint32_t hash = node_hash(p->id, p->address.host, p->address.port);
    return (uint16_t)(1 + (hash >> 8) % ((1u << HASH_BITS) - 1));
}

static uint64_t cursor_join(uint64_t node_cursor,
                            uint16_t slot,
                            uint8_t layout,
                            uint16_t hash)
{
    uint64_t place = (node_cursor << SLOT_BITS | slot) << LAYOUT_BITS | layout;
    return place << HASH_BITS | hash;
}

/* The lowest slot of the node that owns slot now. Unowned: slot itself, which
 * waits for an owner. */
static uint16_t first_slot_of_owner(const struct gather_tables *t,
                                    const struct cluster *c,
                                    uint16_t slot)
{
    for (uint32_t i = 0; i < t->n_primaries; i++) {
        if (c->slots[t->first_slots[i]] == c->slots[slot]) {
            return t->first_slots[i];
        }
    }
    return slot;
}

/* Where an unsigned number of any size ends; *number is it. NULL: none. */
static const uint8_t *read_number(struct span text, uint64_t *number)
{
    size_t i = 0;
    uint64_t n = 0;
    for (; i < text.len && text.data[i] >= '0' && text.data[i] <= '9'; i++) {
        unsigned digit = (unsigned)text.data[i] - '0';
        if (n > (UINT64_MAX - digit) / 10) {
            return NULL;
        }
        n = n * 10 + digit;
    }
    *number = n;
    return i == 0 ? NULL : text.data + i;
}

/* The bytes of r with another cursor. */
static bool write_scan(struct engine *e,
                       struct request *r,
                       const struct request_args *args,
                       struct span all,
                       uint64_t cursor)
{
    char digits[LINE_MAX / 2];
    char head[LINE_MAX];
    const uint8_t *behind = args->list[1].data + args->list[1].len + 2;
    size_t rest = (size_t)(all.data + all.len - behind);
    int n_digits = snprintf(digits, sizeof(digits), "%" PRIu64, cursor);
    int n = snprintf(head, sizeof(head), "*%zu\r\n$4\r\nSCAN\r\n$%d\r\n%s\r\n",
                     args->argc, n_digits, digits);
    size_t size = (size_t)n + rest;
    struct buf *b =
        size > UINT32_MAX ? NULL : buf_new(e->memory, (uint32_t)size);
    if (b == NULL) {
        return false;
    }
    memcpy(b->data, head, (size_t)n);
    memcpy(b->data + n, behind, rest);
    b->len = (uint32_t)size;
    r->part = (struct slice){ .buf = b, .len = b->len };
    r->size = size;
    return true;
}

/* Slots that have moved may have hidden a node from the walk, also when they
 * come back before its end. */
static void note_layout(struct gather *g, const struct gather_tables *t)
{
    if (g->layout != t->layout) {
        g->layout = LAYOUT_HAS_CHANGED;
    }
}

static bool start_scan(struct engine *e,
                       struct downstream *d,
                       struct request *r,
                       const struct request_args *args,
                       uint64_t cursor)
{
    const struct cluster *c = d->listener->cluster;
    const struct gather_tables *t = e->gather_tables;
    uint16_t slot = cursor == 0
                        ? t->first_slots[0]
                        : (uint16_t)(cursor >> (LAYOUT_BITS + HASH_BITS) &
                                     ((1u << SLOT_BITS) - 1));
    /* No node begins there any more: the one that has this slot now may have
     * keys that were not seen yet, and is walked as a whole. */
    uint16_t begins = first_slot_of_owner(t, c, slot);
    bool same = begins == slot;
    struct gather *g = gather_new(e, r, 1, 0);
    if (g == NULL) {
        return refuse_memory(e, d, r);
    }
    g->pieces[0] = (struct gather_piece){ .slot = slot_plus(begins) };
    g->node_hash = hash_of(c->endpoints[c->slots[begins]]);
    g->layout =
        cursor == 0
            ? t->layout
            : (uint8_t)(cursor >> HASH_BITS & ((1u << LAYOUT_BITS) - 1));
    note_layout(g, t);
    if (same && g->node_hash == (cursor & ((1u << HASH_BITS) - 1))) {
        g->cursor = cursor >> (SLOT_BITS + LAYOUT_BITS + HASH_BITS);
    }
    struct span all = { slice_data(&r->part), r->part.len };
    if (args->copy != NULL) {
        all = (struct span){ args->copy, r->size };
    }
    struct request *fragment = gather_add(e, g, 0, 1);
    if (fragment == NULL || !write_scan(e, fragment, args, all, g->cursor)) {
        gather_undo(e, g);
        return refuse_memory(e, d, r);
    }
    gather_start(e, fragment);
    return true;
}

static bool scan(struct engine *e, struct downstream *d, struct request *r)
{
    struct request_args args;
    uint64_t cursor = 0;
    request_args_init(e, &args, r);
    const uint8_t *end =
        args.argc < 2 ? NULL : read_number(args.list[1], &cursor);
    if (end == NULL || end != args.list[1].data + args.list[1].len) {
        redis_submit(e, d, r); /* the server has the words for it */
    } else {
        start_scan(e, d, r, &args, cursor);
    }
    request_args_fini(e, &args);
    return true;
}

/* A reply to SCAN: the cursor in it, and where what follows it begins. */
static bool read_scan(struct span head, uint64_t *cursor, size_t *behind)
{
    static const char begin[] = "*2\r\n$";
    size_t at = sizeof(begin) - 1;
    if (head.len <= at || memcmp(head.data, begin, at) != 0) {
        return false;
    }
    const uint8_t *end = head.data + head.len;
    struct number_line len = number_line(head.data + at, end);
    if (len.end == NULL || (size_t)(end - len.end) < len.number + 4) {
        return false;
    }
    const uint8_t *digits = len.end + 2;
    *behind = (size_t)(digits - head.data) + len.number + 2;
    return read_number((struct span){ digits, len.number }, cursor) ==
           digits + len.number;
}

/* The cursor of the page behind the one that ends at a node's cursor. 0: that
 * was the last. */
static uint64_t next_cursor(struct engine *e,
                            struct gather *g,
                            uint64_t node_cursor)
{
    const struct cluster *c = cluster_of(g);
    const struct gather_tables *t = find_primaries(e, c);
    note_layout(g, t);
    uint16_t slot = (uint16_t)(g->pieces[0].slot - 1);
    const struct endpoint *p = c->endpoints[g->pieces[0].server];
    uint16_t hash = p == NULL ? g->node_hash : hash_of(p);
    if (hash != g->node_hash && g->cursor != 0) {
        return cursor_join(0, slot, g->layout,
                           hash); /* another node's cursor was used */
    }
    if (node_cursor != 0) {
        return cursor_join(node_cursor, slot, g->layout, hash);
    }
    for (uint32_t i = 0; i < t->n_primaries; i++) {
        uint16_t next = t->first_slots[i];
        if (next > slot) {
            return cursor_join(0, next, g->layout,
                               hash_of(c->endpoints[c->slots[next]]));
        }
    }
    if (g->layout != t->layout && t->n_primaries > 0) {
        uint16_t first = t->first_slots[0];
        return cursor_join(0, first, t->layout,
                           hash_of(c->endpoints[c->slots[first]]));
    }
    return 0;
}

static struct gather_message kept(struct gather_piece *p)
{
    return (struct gather_message){ .head = &p->rest,
                                    .buf = p->reply.buf,
                                    .offset = p->reply.offset,
                                    .len = p->reply.len };
}

static bool merge_scan(struct engine *e, struct gather *g, struct chain *out)
{
    uint8_t scratch[LINE_MAX];
    char digits[LINE_MAX / 2];
    char line[LINE_MAX];
    struct gather_message m = kept(&g->pieces[0]);
    uint64_t node_cursor = 0;
    size_t behind = 0;
    read_scan(gather_head(&m, scratch, sizeof(scratch)), &node_cursor, &behind);
    if (node_cursor >> NODE_CURSOR_BITS != 0) {
        return chain_push_copy(
            e->memory, out,
            span_of("-ERR the cursor of the server is too large for redial to "
                    "put a node's number into it\r\n"));
    }
    int n = snprintf(digits, sizeof(digits), "%" PRIu64,
                     next_cursor(e, g, node_cursor));
    snprintf(line, sizeof(line), "*2\r\n$%d\r\n%s\r\n", n, digits);
    return chain_push_copy(e->memory, out, span_of(line)) &&
           gather_share(e, &g->pieces[0], behind, out);
}

/* ---- RANDOMKEY -------------------------------------------------------------------- */

static const char randomkey[] = "*1\r\n$9\r\nRANDOMKEY\r\n";

/* Ask the next node. NULL without memory. */
static struct request *ask_for_any(struct engine *e, struct gather *g)
{
    uint32_t i = (uint32_t)((g->cursor + g->tries) % g->n_pieces);
    struct request *r = gather_add(e, g, i, 1);
    g->tries++;
    return r;
}

static bool is_null(const struct gather_message *m)
{
    uint8_t scratch[2];
    struct span head = gather_head(m, scratch, sizeof(scratch));
    return head.data[0] == '_' || (head.data[0] == '$' && head.data[1] == '-');
}

/* The node that was asked last. */
static struct gather_piece *last_asked(struct gather *g)
{
    return &g->pieces[(g->cursor + g->tries - 1) % g->n_pieces];
}

bool everywhere_goes_on(struct engine *e, struct gather *g)
{
    struct downstream *d = g->parent->downstream;
    if (g->parent->command->route != ROUTE_RANDOM || g->tries >= g->n_pieces) {
        return false;
    }
    struct gather_message m = kept(last_asked(g));
    if (!is_null(&m)) {
        return false;
    }
    gather_drop(e, g, last_asked(g));
    struct chain bytes = { 0 };
    struct request *r = NULL;
    if (chain_push_copy(e->memory, &bytes, span_of(randomkey))) {
        r = ask_for_any(e, g);
    }
    if (r == NULL) {
        chain_clear(e->memory, &bytes);
        e->stats.limit_memory++;
        downstream_close(e, d, "out of memory for its request");
        return true;
    }
    r->part = bytes.head->slice;
    buf_ref(r->part.buf);
    r->size = r->part.len;
    chain_clear(e->memory, &bytes);
    redis_submit(e, d, r);
    return true;
}

/* ---- all of them --------------------------------------------------------------- */

/* The fragment gets the same bytes as its parent. */
static bool share_bytes(struct engine *e,
                        struct request *r,
                        const struct request *parent)
{
    buf_ref(parent->part.buf);
    r->part = parent->part;
    r->size = parent->size;
    return chain_share(e->memory, &r->more, &parent->more);
}

static struct request *add_all(struct engine *e, struct gather *g)
{
    struct request *first = NULL;
    bool any = g->parent->command->route == ROUTE_RANDOM;
    for (uint32_t i = 0; i < (any ? 1 : g->n_pieces); i++) {
        struct request *r = any ? ask_for_any(e, g) : gather_add(e, g, i, 1);
        if (r == NULL || !share_bytes(e, r, g->parent)) {
            return NULL;
        }
        first = first == NULL ? r : first;
    }
    return first;
}

bool redis_everywhere(struct engine *e, struct downstream *d, struct request *r)
{
    const struct gather_tables *t = find_primaries(e, d->listener->cluster);
    if (t == NULL) {
        return refuse_memory(e, d, r);
    }
    if (t->n_primaries == 0) {
        redis_submit(e, d, r); /* it waits, and comes here again */
        return true;
    }
    if (r->command->route == ROUTE_SCAN) {
        return scan(e, d, r);
    }
    struct gather *g = gather_new(e, r, t->n_primaries, 0);
    if (g == NULL) {
        return refuse_memory(e, d, r);
    }
    for (uint32_t i = 0; i < g->n_pieces; i++) {
        g->pieces[i] =
            (struct gather_piece){ .slot = slot_plus(t->first_slots[i]) };
    }
    if (r->command->route == ROUTE_RANDOM) {
        g->cursor = rng_upto(&e->rng, g->n_pieces - 1);
    }
    struct request *first = add_all(e, g);
    if (first == NULL) {
        gather_undo(e, g);
        return refuse_memory(e, d, r);
    }
    gather_start(e, first);
    return true;
}

/* ---- the replies --------------------------------------------------------------- */

/* The first line of an array or set: how many elements, and how long the line
 * is. */
static bool read_list(struct span head, uint64_t *n, size_t *len)
{
    if (head.len < 4 || (head.data[0] != '*' && head.data[0] != '~')) {
        return false;
    }
    struct number_line line = number_line(head.data + 1, head.data + head.len);
    if (line.end == NULL) {
        return false;
    }
    *n = line.number;
    *len = (size_t)(line.end - head.data) + 2;
    return true;
}

static bool is_right(enum command_route route,
                     struct span head,
                     struct gather *g)
{
    uint64_t n = 0;
    size_t len = 0;
    int64_t count = 0;
    switch (route) {
    case ROUTE_ALL_SUM:
        if (head.len < 4 || head.data[0] != ':' ||
            !number_parse((struct span){ head.data + 1, head.len - 3 },
                          &count)) {
            return false;
        }
        g->sum += count;
        return true;
    case ROUTE_ALL_LIST:
    case ROUTE_ALL_AND: return read_list(head, &n, &len);
    case ROUTE_SCAN: return read_scan(head, &n, &len);
    case ROUTE_RANDOM: return head.data[0] == '$' || head.data[0] == '_';
    case ROUTE_ALL_ANY:
    case ROUTE_ALL_OK:
    case ROUTE_NODE:
    case ROUTE_CHANNEL:
    case ROUTE_SLOT:
    case ROUTE_LAST:
    case ROUTE_CONNECTION:
    case ROUTE_VIEW:
    case ROUTE_REFUSED:
    case ROUTE_SPLIT_VALUES:
    case ROUTE_SPLIT_PAIRS:
    case ROUTE_SPLIT_COUNT: break;
    }
    return true;
}

enum gather_take everywhere_take(struct engine *e,
                                 struct gather *g,
                                 uint32_t i,
                                 struct gather_message *m)
{
    enum command_route route = g->parent->command->route;
    uint8_t scratch[LINE_MAX];
    if (!is_right(route, gather_head(m, scratch, sizeof(scratch)), g)) {
        return TAKE_WRONG;
    }
    if (route == ROUTE_ALL_SUM || (route == ROUTE_ALL_OK && i > 0)) {
        return TAKE_DONE;
    }
    return gather_keep(e, g, &g->pieces[i], m) ? TAKE_DONE : TAKE_NO_MEMORY;
}

static bool merge_lists(struct engine *e, struct gather *g, struct chain *out)
{
    uint8_t scratch[LINE_MAX];
    char line[LINE_MAX];
    uint64_t total = 0;
    uint64_t n = 0;
    size_t len = 0;
    char type = '*';
    for (uint32_t i = 0; i < g->n_pieces; i++) {
        struct gather_message m = kept(&g->pieces[i]);
        struct span head = gather_head(&m, scratch, sizeof(scratch));
        read_list(head, &n, &len);
        type = (char)head.data[0];
        total += n;
    }
    snprintf(line, sizeof(line), "%c%" PRIu64 "\r\n", type, total);
    bool made = chain_push_copy(e->memory, out, span_of(line));
    for (uint32_t i = 0; made && i < g->n_pieces; i++) {
        struct gather_message m = kept(&g->pieces[i]);
        read_list(gather_head(&m, scratch, sizeof(scratch)), &n, &len);
        made = gather_share(e, &g->pieces[i], len, out);
        gather_drop(e, g, &g->pieces[i]);
    }
    return made;
}

static size_t bytes_of(const struct gather_piece *p)
{
    return p->reply.buf != NULL ? p->reply.len : p->rest.bytes;
}

/* Arrays of :0 and :1. They are equally long, and differ in digits only. */
static bool merge_and(struct engine *e, struct gather *g, struct chain *out)
{
    size_t size = bytes_of(&g->pieces[0]);
    uint8_t *all = memory_take(e->memory, 2 * size);
    if (all == NULL) {
        return false;
    }
    uint8_t *one = all + size;
    bool alike = true;
    for (uint32_t i = 0; i < g->n_pieces; i++) {
        struct gather_message m = kept(&g->pieces[i]);
        gather_copy(&m, i == 0 ? all : one, size);
        alike = alike && bytes_of(&g->pieces[i]) == size;
        for (size_t k = 0; i > 0 && k < size; k++) {
            alike = alike && (all[k] == one[k] || (all[k] | 1) == (one[k] | 1));
            all[k] = all[k] < one[k] ? all[k] : one[k];
        }
    }
    struct span reply =
        alike
            ? (struct span){ all, size }
            : span_of("-ERR the replies of the nodes do not fit together\r\n");
    bool made = chain_push_copy(e->memory, out, reply);
    memory_give(e->memory, all);
    return made;
}

/* One node was asked twice in place of one that has lost its slots meanwhile:
 * not every node may have been reached. */
static bool asked_twice(struct engine *e, const struct gather *g)
{
    struct gather_tables *t = e->gather_tables;
    bool twice = false;
    for (uint32_t i = 0; i < g->n_pieces; i++) {
        uint16_t *mark = &t->nodes[g->pieces[i].server];
        twice = twice || *mark != 0;
        *mark = 1;
    }
    for (uint32_t i = 0; i < g->n_pieces; i++) {
        t->nodes[g->pieces[i].server] = 0;
    }
    return twice;
}

static bool tell_changed(struct engine *e, struct gather *g, struct chain *out)
{
    const struct command *command = g->parent->command;
    bool writes =
        command_writes(command, command->class) || command->class == CLASS_A;
    char line[200];
    snprintf(line, sizeof(line),
             "-%s %s may not have reached every node: slots have moved from "
             "one to another meanwhile\r\n",
             writes ? "UNKNOWNOUTCOME" : "NOTAPPLIED", command->name);
    cluster_of(g)->stats.unknown_outcome += writes;
    cluster_of(g)->stats.not_applied += !writes;
    return chain_push_copy(e->memory, out, span_of(line));
}

/* The reply of the first node that has one. */
static bool merge_any(struct engine *e, struct gather *g, struct chain *out)
{
    uint32_t i = 0;
    while (!g->pieces[i].answered) {
        i++;
    }
    return gather_share(e, &g->pieces[i], 0, out);
}

bool everywhere_merge(struct engine *e, struct gather *g, struct chain *out)
{
    enum command_route route = g->parent->command->route;
    char line[LINE_MAX];
    if (route == ROUTE_SCAN) {
        return merge_scan(e, g, out);
    }
    if (route == ROUTE_RANDOM) {
        return gather_share(e, last_asked(g), 0, out);
    }
    if (route == ROUTE_ALL_ANY) {
        return merge_any(e, g, out);
    }
    if (asked_twice(e, g)) {
        return tell_changed(e, g, out);
    }
    if (route == ROUTE_ALL_LIST) {
        return merge_lists(e, g, out);
    }
    if (route == ROUTE_ALL_AND) {
        return merge_and(e, g, out);
    }
    if (route == ROUTE_ALL_OK) {
        return gather_share(e, &g->pieces[0], 0, out);
    }
    snprintf(line, sizeof(line), ":%" PRId64 "\r\n", g->sum);
    return chain_push_copy(e->memory, out, span_of(line));
}
