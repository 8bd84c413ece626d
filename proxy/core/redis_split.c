/* MGET, MSET, DEL, UNLINK, EXISTS, TOUCH over several slots (redis.md §9): one
 * command for each slot, one fragment for each node, one reply. */
#include <assert.h>
#include <stdio.h>

#include "parser/keyslot.h"
#include "parser/number.h"
#include "proxy/core/redis_gather.h"
#include "proxy/core/state.h"

enum {
    LINE_MAX = 32,      /* the beginning of a reply, or a whole number */
    HEADER_MAX = 64,    /* of a command: its length and its name */
    SHARE_MIN = 2048,   /* a value of so many bytes is not copied */
    OUT_MAX = 64 * 1024 /* bytes of copies in one piece */
};

/* ---- the keys of a request --------------------------------------------------- */

/* The whole request in one part. */
struct source {
    const uint8_t *data;
    size_t size;
    uint8_t *copy; /* owned, or NULL */
    struct gather_key *keys;
    struct gather_key *own_keys; /* owned, or NULL */
    uint32_t n_keys;
    uint32_t per_key; /* arguments: 2 with a value */
    uint32_t n_slots;
    uint32_t n_nodes;
    uint64_t bytes; /* of all commands that will be made */
};

static bool source_init(struct engine *e,
                        struct source *s,
                        const struct request *r)
{
    bool pairs = r->command->route == ROUTE_SPLIT_PAIRS;
    *s = (struct source){ .size = r->size, .per_key = pairs ? 2 : 1 };
    s->data = slice_data(&r->part);
    if (r->more.head != NULL) {
        s->copy = memory_take(e->memory, r->size);
        if (s->copy == NULL) {
            return false;
        }
        memcpy(s->copy, s->data, r->part.len);
        chain_copy(&r->more, s->copy + r->part.len, r->size - r->part.len);
        s->data = s->copy;
    }
    return true;
}

static void source_fini(struct engine *e, struct source *s)
{
    struct gather_tables *t = e->gather_tables;
    for (uint32_t i = 0; i < s->n_slots; i++) {
        t->slots[t->found_slots[i].which] = 0;
    }
    for (uint32_t i = 0; i < s->n_nodes; i++) {
        t->nodes[t->found_nodes[i].which] = 0;
    }
    memory_give(e->memory, s->copy);
    memory_give(e->memory, s->own_keys);
}

/* Behind the argument that begins at p; *body is where its bytes begin. NULL:
 * its length is not written plainly. */
static inline const uint8_t *argument_end(const uint8_t *p,
                                          const uint8_t *end,
                                          const uint8_t **body)
{
    struct number_line line = number_line(p + 1, end);
    if (line.end == NULL) {
        return NULL;
    }
    *body = line.end + 2;
    return *body + line.number + 2;
}

static uint32_t slot_found(struct gather_tables *t,
                           struct source *s,
                           uint16_t slot)
{
    if (t->slots[slot] == 0) {
        t->found_slots[s->n_slots] = (struct gather_found){ .which = slot };
        t->slots[slot] = (uint16_t)++s->n_slots;
    }
    return t->slots[slot] - 1u;
}

/* Find all keys and their slots. False: they cannot be told, and the server
 * has the words for it. */
static bool find_keys(struct gather_tables *t, struct source *s)
{
    const uint8_t *end = s->data + s->size;
    struct number_line argc = number_line(s->data + 1, end);
    const uint8_t *body;
    const uint8_t *p =
        argc.end == NULL ? NULL : argument_end(argc.end + 2, end, &body);
    for (uint32_t k = 0; p != NULL && k < s->n_keys; k++) {
        const uint8_t *next = argument_end(p, end, &body);
        if (next == NULL) {
            return false;
        }
        struct span key = { body, (size_t)(next - body) - 2 };
        if (s->per_key == 2) {
            next = argument_end(next, end, &body);
            if (next == NULL) {
                return false;
            }
        }
        uint32_t i = slot_found(t, s, keyslot(key));
        struct gather_found *found = &t->found_slots[i];
        uint32_t len = (uint32_t)(next - p);
        s->keys[k] = (struct gather_key){ (uint32_t)(p - s->data), len, i };
        found->n++;
        found->bytes += len;
        p = next;
    }
    return p == end;
}

/* How many keys there are; 0: the server has the words for it. */
static uint32_t count_keys(const struct source *s)
{
    struct number_line argc = number_line(s->data + 1, s->data + s->size);
    if (argc.end == NULL || argc.number < 2 ||
        (argc.number - 1) % s->per_key != 0 || s->size > UINT32_MAX / 2) {
        return 0;
    }
    return (uint32_t)(argc.number - 1) / s->per_key;
}

/* ---- the commands ------------------------------------------------------------- */

/* The beginning of a command. Most have the same number of arguments. */
struct header {
    const struct command *command;
    uint32_t argc; /* for which it was made; 0: none */
    uint32_t len;
    uint8_t bytes[HEADER_MAX];
};

static uint32_t compose_header(uint8_t *out,
                               const struct command *c,
                               uint32_t argc)
{
    uint8_t digits[LINE_MAX];
    size_t n = 0;
    size_t at = 0;
    for (; argc > 0; argc /= 10) {
        digits[n++] = (uint8_t)('0' + argc % 10);
    }
    out[at++] = '*';
    while (n > 0) {
        out[at++] = digits[--n];
    }
    size_t len = strlen(c->name);
    assert(len < 10);
    out[at++] = '\r';
    out[at++] = '\n';
    out[at++] = '$';
    out[at++] = (uint8_t)('0' + len);
    out[at++] = '\r';
    out[at++] = '\n';
    memcpy(out + at, c->name, len);
    at += len;
    out[at++] = '\r';
    out[at++] = '\n';
    return (uint32_t)at;
}

static inline void header_for(struct header *h, uint32_t argc)
{
    if (h->argc != argc) {
        h->argc = argc;
        h->len = compose_header(h->bytes, h->command, argc);
    }
}

/* Find the nodes of the slots, and put the slots of one behind one another. */
static void find_nodes(struct gather_tables *t,
                       struct source *s,
                       const struct cluster *c)
{
    for (uint32_t i = 0; i < s->n_slots; i++) {
        uint16_t node = c->slots[t->found_slots[i].which];
        if (t->nodes[node] == 0) {
            t->found_nodes[s->n_nodes] = (struct gather_found){ .which = node };
            t->nodes[node] = (uint16_t)++s->n_nodes;
        }
        t->found_slots[i].node = (uint16_t)(t->nodes[node] - 1);
        t->found_nodes[t->found_slots[i].node].n++;
    }
    uint32_t place = 0;
    for (uint32_t i = 0; i < s->n_nodes; i++) {
        t->found_nodes[i].at = place;
        place += t->found_nodes[i].n;
    }
}

/* Describe the pieces. Returns the bytes of all of them. */
static uint64_t lay_out(struct gather_tables *t,
                        const struct source *s,
                        struct gather *g)
{
    struct header h = { .command = g->parent->command };
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < s->n_slots; i++) {
        struct gather_found *found = &t->found_slots[i];
        struct gather_found *node = &t->found_nodes[found->node];
        found->place = (uint16_t)node->at++;
        struct gather_piece *p = &g->pieces[found->place];
        header_for(&h, 1 + found->n * s->per_key);
        *p = (struct gather_piece){ .slot = slot_plus(found->which),
                                    .n_keys = found->n,
                                    .offset = node->bytes,
                                    .len = h.len + found->bytes };
        node->bytes += p->len;
        bytes += p->len;
    }
    return bytes;
}

/* Write the commands: those of one node behind one another. */
static void write_commands(struct gather_tables *t,
                           const struct source *s,
                           struct gather *g,
                           struct buf *b)
{
    struct header h = { .command = g->parent->command };
    uint32_t at = 0;
    for (uint32_t i = 0; i < s->n_nodes; i++) {
        uint32_t bytes = t->found_nodes[i].bytes;
        t->found_nodes[i].at = at; /* of its first byte */
        at += bytes;
    }
    b->len = at;
    for (uint32_t i = 0; i < s->n_slots; i++) {
        struct gather_found *found = &t->found_slots[i];
        found->at =
            t->found_nodes[found->node].at + g->pieces[found->place].offset;
        header_for(&h, 1 + found->n * s->per_key);
        memcpy(b->data + found->at, h.bytes, h.len);
        found->at += h.len;
    }
    for (uint32_t k = 0; k < s->n_keys; k++) {
        const struct gather_key *key = &s->keys[k];
        struct gather_found *found = &t->found_slots[key->found];
        memcpy(b->data + found->at, s->data + key->offset, key->len);
        found->at += key->len;
        g->piece_of_key[k] = found->place;
    }
}

/* One fragment for each node. Returns the first one, or NULL. */
static struct request *make_groups(struct engine *e,
                                   const struct source *s,
                                   struct gather *g,
                                   struct buf *b)
{
    const struct gather_tables *t = e->gather_tables;
    struct request *first = NULL;
    uint32_t piece = 0;
    for (uint32_t i = 0; i < s->n_nodes; i++) {
        const struct gather_found *node = &t->found_nodes[i];
        struct request *r = gather_add(e, g, piece, node->n);
        if (r == NULL) {
            return NULL;
        }
        buf_ref(b);
        r->part =
            (struct slice){ .buf = b, .offset = node->at, .len = node->bytes };
        r->size = node->bytes;
        first = first == NULL ? r : first;
        piece += node->n;
    }
    return first;
}

/* Make all fragments of r. Returns the first one, or NULL without memory. */
static struct request *make_fragments(struct engine *e,
                                      struct request *r,
                                      struct source *s)
{
    const struct cluster *c = r->downstream->listener->cluster;
    struct gather_tables *t = e->gather_tables;
    struct gather *g = gather_new(e, r, s->n_slots, s->n_keys);
    if (g == NULL) {
        return NULL;
    }
    find_nodes(t, s, c);
    uint64_t bytes = lay_out(t, s, g);
    struct buf *b =
        bytes > UINT32_MAX ? NULL : buf_new(e->memory, (uint32_t)bytes);
    struct request *first = NULL;
    if (b != NULL) {
        write_commands(t, s, g, b);
        first = make_groups(e, s, g, b);
        buf_unref(e->memory, b);
    }
    if (first == NULL) {
        gather_undo(e, g);
    }
    return first;
}

static bool refuse_memory(struct engine *e,
                          struct downstream *d,
                          struct request *r)
{
    e->stats.limit_memory++;
    redis_refuse(e, d, r, "out of memory");
    return true;
}

bool redis_split(struct engine *e, struct downstream *d, struct request *r)
{
    struct gather_tables *t = gather_tables(e);
    struct source s;
    if (t == NULL || !source_init(e, &s, r)) {
        return refuse_memory(e, d, r);
    }
    s.n_keys = count_keys(&s);
    s.keys = t->keys;
    if (s.n_keys > GATHER_KEYS_KEPT) {
        s.own_keys = memory_take(e->memory, s.n_keys * sizeof(*s.own_keys));
        s.keys = s.own_keys;
    }
    if (s.keys == NULL) {
        source_fini(e, &s);
        return refuse_memory(e, d, r);
    }
    bool several = s.n_keys > 1 && find_keys(t, &s) && s.n_slots > 1;
    struct request *first = several ? make_fragments(e, r, &s) : NULL;
    source_fini(e, &s);
    if (first != NULL) {
        gather_start(e, first);
    } else if (several) {
        return refuse_memory(e, d, r);
    } else {
        redis_submit(e, d, r); /* the server answers it, or knows the words */
    }
    return true;
}

/* ---- the replies --------------------------------------------------------------- */

static enum gather_take take_count(struct gather *g, struct gather_message *m)
{
    uint8_t scratch[LINE_MAX];
    struct span line = gather_head(m, scratch, sizeof(scratch));
    int64_t count = 0;
    if (line.len < 4 || line.data[0] != ':' ||
        !number_parse((struct span){ line.data + 1, line.len - 3 }, &count)) {
        return TAKE_WRONG;
    }
    g->sum += count;
    return TAKE_DONE;
}

/* Bytes of a kept reply are not needed any more. */
static inline void advance(struct engine *e,
                           struct gather_piece *p,
                           size_t count)
{
    if (p->reply.buf == NULL) {
        chain_consume(e->memory, &p->rest, count);
        return;
    }
    p->reply.offset += (uint32_t)count;
    p->reply.len -= (uint32_t)count;
    if (p->reply.len == 0) {
        buf_unref(e->memory, p->reply.buf);
        p->reply.buf = NULL;
    }
}

/* An array of as many values as there were keys. */
static enum gather_take take_values(struct engine *e,
                                    struct gather *g,
                                    struct gather_piece *p,
                                    struct gather_message *m)
{
    uint8_t scratch[LINE_MAX];
    struct span head = gather_head(m, scratch, sizeof(scratch));
    struct number_line n = { NULL, 0 };
    if (head.len > 3 && head.data[0] == '*') {
        n = number_line(head.data + 1, head.data + head.len);
    }
    if (n.end == NULL || n.number != p->n_keys) {
        return TAKE_WRONG;
    }
    size_t skip = (size_t)(n.end - head.data) + 2;
    if (!gather_keep(e, g, p, m)) {
        return TAKE_NO_MEMORY;
    }
    advance(e, p, skip);
    g->held -= skip;
    g->parent->downstream->gathered -= skip;
    return TAKE_DONE;
}

enum gather_take split_take(struct engine *e,
                            struct gather *g,
                            uint32_t i,
                            struct gather_message *m)
{
    enum command_route route = g->parent->command->route;
    if (route == ROUTE_SPLIT_VALUES) {
        return take_values(e, g, &g->pieces[i], m);
    }
    if (route == ROUTE_SPLIT_COUNT) {
        return take_count(g, m);
    }
    uint8_t scratch = 0;
    uint8_t first = gather_head(m, &scratch, 1).data[0];
    return first == '+' ? TAKE_DONE : TAKE_WRONG;
}

/* Where one value ends that lies in [p, end) as a whole; NULL: it does not, or is
 * no string. */
static inline const uint8_t *value_end(const uint8_t *p, const uint8_t *end)
{
    if (end - p < 5 || p[0] != '$') {
        return NULL;
    }
    if (p[1] == '-') {
        return memcmp(p + 2, "1\r\n", 3) == 0 ? p + 5 : NULL;
    }
    struct number_line n = number_line(p + 1, end);
    if (n.end == NULL || n.number > OUT_MAX ||
        (size_t)(end - n.end) < n.number + 4) {
        return NULL;
    }
    const uint8_t *behind = n.end + 2 + n.number;
    return behind[0] == '\r' && behind[1] == '\n' ? behind + 2 : NULL;
}

size_t split_quick(struct gather *g,
                   uint32_t i,
                   struct buf *b,
                   uint32_t offset,
                   uint32_t len)
{
    struct gather_piece *p = &g->pieces[i];
    const uint8_t *data = b->data + offset;
    const uint8_t *end = data + len;
    if (len < 4 || data[0] != '*' ||
        g->parent->command->route != ROUTE_SPLIT_VALUES) {
        return 0;
    }
    struct number_line n = number_line(data + 1, end);
    if (n.end == NULL || n.number != p->n_keys) {
        return 0;
    }
    const uint8_t *first = n.end + 2;
    const uint8_t *at = first;
    for (uint64_t k = 0; k < n.number; k++) {
        at = value_end(at, end);
        if (at == NULL) {
            return 0;
        }
    }
    uint32_t bytes = (uint32_t)(at - first);
    buf_ref(b);
    p->reply = (struct slice){ b, offset + (uint32_t)(first - data), bytes };
    g->held += bytes;
    return (size_t)(at - data);
}

static const struct resp_limits no_limits = { .bulk_max = UINT64_MAX / 2,
                                              .elements_max = UINT64_MAX / 2 };

/* Bytes of the first of several values that are kept in parts. */
static size_t value_len_in_parts(const struct gather_piece *p)
{
    struct resp_scanner s;
    size_t len = 0;
    enum scan status = SCAN_MORE;
    resp_scanner_init(&s);
    for (const struct segment *g = p->rest.head;
         g != NULL && status == SCAN_MORE; g = g->next) {
        size_t used = 0;
        status = resp_scan(&s, &no_limits, slice_data(&g->slice), g->slice.len,
                           &used);
        len += used;
    }
    return len;
}

/* Bytes of the first value that is kept of p. It is there as a whole: the
 * reply was one message. */
static inline size_t value_len(const struct gather_piece *p)
{
    if (p->n_keys == 1) {
        return p->reply.buf != NULL ? p->reply.len : p->rest.bytes;
    }
    if (p->reply.buf == NULL) {
        return value_len_in_parts(p);
    }
    const uint8_t *data = slice_data(&p->reply);
    if (data[0] == '$') {
        struct number_line n = number_line(data + 1, data + p->reply.len);
        if (n.end != NULL) {
            return (size_t)(n.end - data) + 2 + n.number + 2;
        }
    }
    struct resp_scanner s;
    size_t used = 0;
    resp_scanner_init(&s);
    resp_scan(&s, &no_limits, data, p->reply.len, &used);
    return used;
}

/* Bytes that are being put one behind the other: small ones copied, large ones
 * shared. */
struct out {
    struct chain *chain;
    struct buf *buf; /* owned; NULL: none yet */
    uint32_t begun;  /* what lies in front of it is in the chain */
    uint64_t left;   /* bytes to come, at least about */
};

static bool out_flush(struct engine *e, struct out *o)
{
    if (o->buf == NULL || o->buf->len == o->begun) {
        return true;
    }
    uint32_t at = o->begun;
    o->begun = o->buf->len;
    return chain_push_part(e->memory, o->chain, o->buf, at, o->begun - at);
}

static bool out_fini(struct engine *e, struct out *o)
{
    bool flushed = out_flush(e, o);
    if (o->buf != NULL) {
        buf_unref(e->memory, o->buf);
    }
    return flushed;
}

/* A buf with room for len bytes, fewer than OUT_MAX. */
static bool out_grow(struct engine *e, struct out *o, uint32_t len)
{
    uint64_t cap = o->left > OUT_MAX ? OUT_MAX : o->left;
    bool flushed = out_fini(e, o);
    o->begun = 0;
    o->buf =
        flushed ? buf_new(e->memory, cap < len ? len : (uint32_t)cap) : NULL;
    return o->buf != NULL;
}

/* Room for len bytes; NULL without memory. */
static inline uint8_t *out_room(struct engine *e, struct out *o, uint32_t len)
{
    if ((o->buf == NULL || o->buf->cap - o->buf->len < len) &&
        !out_grow(e, o, len)) {
        return NULL;
    }
    uint8_t *room = o->buf->data + o->buf->len;
    o->buf->len += len;
    o->left -= o->left < len ? o->left : len;
    return room;
}

/* Append the first len bytes that are kept of p. */
static inline bool out_value(struct engine *e,
                             struct out *o,
                             const struct gather_piece *p,
                             size_t len)
{
    if (len < SHARE_MIN) {
        uint8_t *room = out_room(e, o, (uint32_t)len);
        if (room == NULL) {
            return false;
        }
        if (p->reply.buf != NULL) {
            memcpy(room, slice_data(&p->reply), len);
        } else {
            chain_copy(&p->rest, room, len);
        }
        return true;
    }
    o->left -= o->left < len ? o->left : len;
    if (!out_flush(e, o)) {
        return false;
    }
    if (p->reply.buf != NULL) {
        return chain_push_part(e->memory, o->chain, p->reply.buf,
                               p->reply.offset, (uint32_t)len);
    }
    for (const struct segment *s = p->rest.head; len > 0; s = s->next) {
        uint32_t n = len < s->slice.len ? (uint32_t)len : s->slice.len;
        if (!chain_push_part(e->memory, o->chain, s->slice.buf, s->slice.offset,
                             n)) {
            return false;
        }
        len -= n;
    }
    return true;
}

bool split_values(struct engine *e, struct gather *g, struct chain *out)
{
    struct out o = { .chain = out, .left = g->held + LINE_MAX };
    bool made = true;
    if (!g->begun) {
        g->begun = true;
        char line[LINE_MAX];
        int n = snprintf(line, sizeof(line), "*%u\r\n", (unsigned)g->n_keys);
        uint8_t *room = out_room(e, &o, (uint32_t)n);
        made = room != NULL;
        if (made) {
            memcpy(room, line, (size_t)n);
        }
    }
    size_t gone = 0;
    for (; made && g->next_key < g->n_keys; g->next_key++) {
        struct gather_piece *p = &g->pieces[g->piece_of_key[g->next_key]];
        if (!p->answered) {
            break;
        }
        size_t len = value_len(p);
        made = out_value(e, &o, p, len);
        advance(e, p, len);
        p->n_keys--;
        gone += len;
    }
    g->held -= gone;
    g->parent->downstream->gathered -= gone;
    return out_fini(e, &o) && made;
}

bool split_merge(struct engine *e, struct gather *g, struct chain *out)
{
    enum command_route route = g->parent->command->route;
    char line[LINE_MAX];
    if (route == ROUTE_SPLIT_VALUES) {
        return split_values(e, g, out);
    }
    if (route == ROUTE_SPLIT_COUNT) {
        snprintf(line, sizeof(line), ":%lld\r\n", (long long)g->sum);
    } else {
        snprintf(line, sizeof(line), "+OK\r\n");
    }
    return chain_push_copy(e->memory, out, span_of(line));
}
