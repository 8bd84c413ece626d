#include "proxy/core/redis_gather.h"

#include <assert.h>
#include <stdio.h>

#include "proxy/core/state.h"

enum {
    HEAD_MAX = 64,               /* bytes of a reply that are looked at */
    IN_ONE_PART_MAX = 16 * 1024, /* a reply up to this is put together */
    TEXT_MAX = 700,
};

static struct cluster *cluster_of(const struct gather *g)
{
    return g->parent->downstream->listener->cluster;
}

struct gather_tables *gather_tables(struct engine *e)
{
    if (e->gather_tables == NULL) {
        e->gather_tables = memory_take(e->memory, sizeof(*e->gather_tables));
    }
    return e->gather_tables;
}

bool redis_gather(struct engine *e, struct downstream *d, struct request *r)
{
    enum command_route route = r->command->route;
    bool split = route == ROUTE_SPLIT_VALUES || route == ROUTE_SPLIT_PAIRS ||
                 route == ROUTE_SPLIT_COUNT;
    return split ? redis_split(e, d, r) : redis_everywhere(e, d, r);
}

/* ---- beginning and end ---------------------------------------------------- */

struct gather *gather_new(struct engine *e,
                          struct request *r,
                          uint32_t n_pieces,
                          uint32_t n_keys)
{
    size_t pieces = n_pieces * sizeof(struct gather_piece);
    struct gather *g =
        memory_take_raw(e->memory,
                        sizeof(*g) + pieces + n_keys * sizeof(uint16_t));
    if (g == NULL) {
        return NULL;
    }
    *g = (struct gather){ .parent = r };
    g->pieces = (struct gather_piece *)(void *)(g + 1);
    g->n_pieces = n_pieces;
    g->piece_of_key = (uint16_t *)(void *)(g->pieces + n_pieces);
    g->n_keys = n_keys;
    r->gather = g;
    request_move(r, REQUEST_SPLIT);
    return g;
}

void gather_drop(struct engine *e, struct gather *g, struct gather_piece *p)
{
    uint64_t bytes = p->rest.bytes;
    if (p->reply.buf != NULL) {
        bytes += p->reply.len;
        buf_unref(e->memory, p->reply.buf);
        p->reply.buf = NULL;
    }
    chain_clear(e->memory, &p->rest);
    g->held -= bytes;
    g->parent->downstream->gathered -= bytes;
}

void gather_free(struct engine *e, struct gather *g)
{
    for (uint32_t i = 0; g->held > 0 && i < g->n_pieces; i++) {
        gather_drop(e, g, &g->pieces[i]);
    }
    chain_clear(e->memory, &g->error);
    g->parent->gather = NULL;
    memory_give(e->memory, g);
}

struct request *gather_add(struct engine *e,
                           struct gather *g,
                           uint32_t first,
                           uint32_t n)
{
    struct request *parent = g->parent;
    struct request *r = request_new(e, parent->downstream);
    if (r == NULL) {
        return NULL;
    }
    r->command = parent->command;
    r->arrived_us = parent->arrived_us;
    r->gather = g;
    r->from_replica = parent->from_replica;
    r->aside = parent->aside;
    r->fragment = true;
    r->judged = true;
    r->piece = first;
    r->pieces_more = n - 1;
    r->slot = g->pieces[first].slot;
    list_insert_before(&parent->arrival, &r->arrival);
    parent->downstream->n_fragments++;
    g->n_open++;
    cluster_of(g)->stats.fragments++;
    return r;
}

void gather_undo(struct engine *e, struct gather *g)
{
    struct request *parent = g->parent;
    struct downstream *d = parent->downstream;
    for (; g->n_open > 0; g->n_open--) {
        struct request *r =
            CONTAINER_OF(parent->arrival.prev, struct request, arrival);
        assert(r->gather == g && r->state == REQUEST_NEW);
        list_remove(&r->arrival);
        d->n_fragments--;
        request_free(e, r);
    }
    gather_free(e, g);
}

void gather_start(struct engine *e, struct request *first)
{
    struct request *parent = first->gather->parent;
    struct downstream *d = first->downstream;
    cluster_of(first->gather)->stats.splits++;
    request_drop_bytes(e, parent); /* the fragments have them */
    for (struct request *r = first; r != parent && !downstream_gone(d);) {
        struct list_node *next = r->arrival.next;
        redis_submit(e, d, r); /* it may be answered, and gone */
        r = CONTAINER_OF(next, struct request, arrival);
    }
}

/* Take r out of its client's list and free it. */
static void forget_fragment(struct engine *e, struct request *r)
{
    struct downstream *d = r->downstream;
    d->n_settling -=
        r->state == REQUEST_SETTLING || r->state == REQUEST_BACKOFF;
    d->n_open -= r->open;
    d->n_replica_open -= r->open && r->from_replica;
    if (d->undispatched == r) {
        d->undispatched =
            CONTAINER_OF(r->arrival.next, struct request, arrival);
    }
    list_remove(&r->arrival);
    d->n_fragments--;
    request_free(e, r);
}

void gather_orphan(struct engine *e, struct request *r)
{
    struct gather *g = r->gather;
    r->gather = NULL;
    if (r->fragment) {
        r->downstream->n_fragments--;
    } else {
        gather_free(e, g);
    }
}

/* ---- replies that are kept -------------------------------------------------- */

size_t gather_copy(const struct gather_message *m, uint8_t *out, size_t max)
{
    size_t n = chain_copy(m->head, out, max);
    size_t rest = max - n;
    rest = m->buf == NULL ? 0 : rest < m->len ? rest : m->len;
    if (rest > 0) {
        memcpy(out + n, m->buf->data + m->offset, rest);
    }
    return n + rest;
}

struct span gather_head(const struct gather_message *m,
                        uint8_t *scratch,
                        size_t max)
{
    if (m->head->head == NULL && m->buf != NULL) {
        return (struct span){ m->buf->data + m->offset,
                              m->len < max ? m->len : max };
    }
    return (struct span){ scratch, gather_copy(m, scratch, max) };
}

/* Put a message that came in parts into one. */
static bool put_together(struct engine *e,
                         struct gather_piece *p,
                         struct gather_message *m,
                         size_t size)
{
    struct buf *b = buf_new(e->memory, (uint32_t)size);
    if (b == NULL) {
        return false;
    }
    b->len = (uint32_t)gather_copy(m, b->data, size);
    chain_clear(e->memory, m->head);
    p->reply = (struct slice){ .buf = b, .len = b->len };
    return true;
}

bool gather_keep(struct engine *e,
                 struct gather *g,
                 struct gather_piece *p,
                 struct gather_message *m)
{
    size_t size = m->head->bytes + (m->buf == NULL ? 0 : m->len);
    bool kept = true;
    if (m->head->head == NULL) {
        buf_ref(m->buf);
        p->reply = (struct slice){ m->buf, m->offset, m->len };
    } else if (size <= IN_ONE_PART_MAX) {
        kept = put_together(e, p, m, size);
    } else {
        chain_move(&p->rest, m->head);
        kept = m->buf == NULL ||
               chain_push_part(e->memory, &p->rest, m->buf, m->offset, m->len);
    }
    size_t bytes = p->rest.bytes + (p->reply.buf != NULL ? p->reply.len : 0);
    g->held += bytes;
    g->parent->downstream->gathered += bytes;
    return kept;
}

bool gather_share(struct engine *e,
                  const struct gather_piece *p,
                  size_t at,
                  struct chain *out)
{
    if (p->reply.buf != NULL) {
        return chain_push_part(e->memory, out, p->reply.buf,
                               p->reply.offset + (uint32_t)at,
                               p->reply.len - (uint32_t)at);
    }
    for (const struct segment *s = p->rest.head; s != NULL; s = s->next) {
        uint32_t skip = at < s->slice.len ? (uint32_t)at : s->slice.len;
        at -= skip;
        if (skip < s->slice.len &&
            !chain_push_part(e->memory, out, s->slice.buf,
                             s->slice.offset + skip, s->slice.len - skip)) {
            return false;
        }
    }
    return true;
}

/* ---- the parent's answer ---------------------------------------------------- */

enum rank {
    RANK_NONE,
    RANK_NOTBUSY, /* SCRIPT KILL: this node runs no script */
    RANK_SERVER,
    RANK_NOTAPPLIED,
    RANK_UNKNOWN,
};

static bool begins(struct span text, const char *with)
{
    size_t len = strlen(with);
    return text.len >= len && memcmp(text.data, with, len) == 0;
}

static enum rank rank_of(struct span head)
{
    return begins(head, "-UNKNOWNOUTCOME ") ? RANK_UNKNOWN
           : begins(head, "-NOTAPPLIED ")   ? RANK_NOTAPPLIED
           : begins(head, "-NOTBUSY ")      ? RANK_NOTBUSY
                                            : RANK_SERVER;
}

/* A fragment has failed for good; the worst error is what its client sees. */
static bool take_error(struct engine *e,
                       struct gather *g,
                       struct gather_message *m)
{
    uint8_t scratch[HEAD_MAX];
    enum rank rank = rank_of(gather_head(m, scratch, sizeof(scratch)));
    if (rank <= g->error_rank) {
        return true;
    }
    g->error_rank = (uint8_t)rank;
    chain_clear(e->memory, &g->error);
    chain_move(&g->error, m->head);
    return m->buf == NULL ||
           chain_push_part(e->memory, &g->error, m->buf, m->offset, m->len);
}

/* Some of it was not applied, and some was: neither word is true of the whole.
 * The rest of the text tells which server, and why. */
static bool tell_half(struct engine *e, struct gather *g)
{
    static const size_t skip = sizeof("-NOTAPPLIED ") - 1;
    char text[TEXT_MAX + 1];
    uint8_t old[TEXT_MAX];
    size_t len = chain_copy(&g->error, old, sizeof(old) - 100);
    while (len > 0 && (old[len - 1] == '\r' || old[len - 1] == '\n')) {
        len--;
    }
    int n = snprintf(text, sizeof(text),
                     "-UNKNOWNOUTCOME %s was executed in part; on one node: "
                     "%.*s\r\n",
                     g->parent->command->name, (int)(len - skip),
                     (const char *)old + skip);
    chain_clear(e->memory, &g->error);
    g->error_rank = RANK_UNKNOWN;
    return chain_push_copy(e->memory, &g->error,
                           (struct span){ (uint8_t *)text, (size_t)n });
}

static void no_memory(struct engine *e, struct downstream *d)
{
    e->stats.limit_memory++;
    downstream_close(e, d, "out of memory for its reply");
}

static bool only_reads(const struct gather *g)
{
    const struct command *c = g->parent->command;
    return c->class != CLASS_A && !command_writes(c, c->class);
}

/* Every fragment has failed, or some have. */
static void answer_error(struct engine *e, struct gather *g)
{
    struct request *parent = g->parent;
    struct downstream *d = parent->downstream;
    if (parent->state == REQUEST_COMMITTED) {
        downstream_close(e, d,
                         "a part of a reply that had begun to leave could not "
                         "be had");
        return;
    }
    bool half = g->error_rank == RANK_NOTAPPLIED && g->n_answered > 0;
    if (half && !only_reads(g) && !tell_half(e, g)) {
        no_memory(e, d);
        return;
    }
    struct cluster *c = cluster_of(g);
    c->stats.unknown_outcome += g->error_rank == RANK_UNKNOWN;
    c->stats.not_applied += g->error_rank == RANK_NOTAPPLIED;
    if (!parent->quiet) {
        chain_move(&parent->reply, &g->error);
    }
    gather_free(e, g);
    downstream_answer(e, parent);
}

static bool is_split(const struct gather *g)
{
    enum command_route route = g->parent->command->route;
    return route == ROUTE_SPLIT_VALUES || route == ROUTE_SPLIT_PAIRS ||
           route == ROUTE_SPLIT_COUNT;
}

static bool has_turn(const struct gather *g)
{
    const struct downstream *d = g->parent->downstream;
    const struct request *first =
        CONTAINER_OF(d->requests.next, struct request, arrival);
    return first == g->parent || (first->fragment && first->gather == g);
}

/* Values that are here leave before the others are, when too much is held. */
static void stream(struct engine *e, struct gather *g)
{
    struct request *parent = g->parent;
    struct downstream *d = parent->downstream;
    struct cluster *c = cluster_of(g);
    bool begun = parent->state == REQUEST_COMMITTED;
    if (parent->command->route != ROUTE_SPLIT_VALUES ||
        (!begun && (g->held <= c->config->reply_hold_max ||
                    g->error_rank != RANK_NONE || !has_turn(g)))) {
        return;
    }
    if (!begun) {
        request_move(parent, REQUEST_COMMITTED);
        c->stats.replies_streamed++;
    }
    struct chain out = { 0 };
    if (!split_values(e, g, &out)) {
        chain_clear(e->memory, &out);
        no_memory(e, d);
        return;
    }
    if (parent->quiet) {
        chain_clear(e->memory, &out);
    } else if (out.head != NULL) {
        if (d->unwritten == 0) {
            d->progress_us = e->now_us;
        }
        d->large_replies = true;
        d->unwritten += out.bytes;
        chain_move(&d->conn.out, &out);
        conn_touch(e, &d->conn);
    }
}

void gather_turn(struct engine *e, struct request *r)
{
    stream(e, r->gather);
}

static void finish(struct engine *e, struct gather *g)
{
    struct request *parent = g->parent;
    struct downstream *d = parent->downstream;
    if (downstream_gone(d)) {
        return; /* its end frees everything */
    }
    bool one_will_do =
        parent->command->route == ROUTE_ALL_ANY && g->n_answered > 0;
    if (g->error_rank != RANK_NONE && !one_will_do) {
        answer_error(e, g);
        return;
    }
    if (parent->state == REQUEST_COMMITTED) {
        stream(e, g);
        if (!downstream_gone(d)) {
            gather_free(e, g);
            downstream_end_stream(e, parent);
        }
        return;
    }
    if (!is_split(g) && everywhere_goes_on(e, g)) {
        return;
    }
    struct chain *out = &parent->reply;
    bool made =
        is_split(g) ? split_merge(e, g, out) : everywhere_merge(e, g, out);
    if (!made) {
        no_memory(e, d);
        return;
    }
    if (parent->quiet) {
        chain_clear(e->memory, out);
    }
    gather_free(e, g);
    downstream_answer(e, parent);
}

/* ---- a fragment's answer ---------------------------------------------------- */

static enum gather_take take(struct engine *e,
                             struct gather *g,
                             uint32_t i,
                             uint16_t server,
                             struct gather_message *m)
{
    enum gather_take taken =
        is_split(g) ? split_take(e, g, i, m) : everywhere_take(e, g, i, m);
    if (taken == TAKE_DONE) {
        g->pieces[i].answered = true;
        g->pieces[i].server = server;
        g->n_answered++;
    }
    return taken;
}

static bool is_error(const struct gather_message *m)
{
    uint8_t scratch = 0;
    uint8_t first = gather_head(m, &scratch, 1).data[0];
    return first == '-' || first == '!';
}

static bool take_wrong(struct engine *e, struct gather *g)
{
    char text[200];
    snprintf(text, sizeof(text),
             "-UNKNOWNOUTCOME %s was executed, but a server's reply is not "
             "what this command answers\r\n",
             g->parent->command->name);
    struct chain chain = { 0 };
    struct gather_message m = { .head = &chain };
    bool taken = chain_push_copy(e->memory, &chain, span_of(text)) &&
                 take_error(e, g, &m);
    chain_clear(e->memory, &chain);
    return taken;
}

/* The last answer to a fragment. False: no memory. */
static bool take_last(struct engine *e,
                      struct request *r,
                      struct gather_message *m)
{
    struct gather *g = r->gather;
    if (is_error(m)) {
        return take_error(e, g, m);
    }
    switch (take(e, g, r->piece, r->server, m)) {
    case TAKE_DONE: return true;
    case TAKE_WRONG: return take_wrong(e, g);
    case TAKE_NO_MEMORY: break;
    }
    return false;
}

void gather_answer(struct engine *e,
                   struct request *r,
                   struct buf *b,
                   uint32_t offset,
                   uint32_t len)
{
    struct gather *g = r->gather;
    struct downstream *d = r->downstream;
    struct gather_message m = { &r->reply, b, offset, len };
    if (!take_last(e, r, &m)) {
        no_memory(e, d);
        return;
    }
    assert(g->n_open > 0);
    g->n_open--;
    forget_fragment(e, r);
    if (g->n_open == 0) {
        finish(e, g);
    } else if (g->held > 0) {
        stream(e, g);
    }
    downstream_later(e, d);
}

/* ---- groups ----------------------------------------------------------------- */

/* The position in the lane's stream behind piece i of r. */
static uint64_t end_of(const struct request *r, uint32_t i)
{
    const struct gather_piece *p = &r->gather->pieces[i];
    return r->sent_end - r->size + p->offset + p->len;
}

bool gather_piece_is_sent(const struct upstream *u, const struct request *r)
{
    return r->pieces_more > 0 &&
           (r->gather == NULL || end_of(r, r->piece) <= u->taken);
}

/* r carries that piece alone from now on. whole is a group it belongs to. */
static void narrow(struct request *r, const struct request *whole, uint32_t i)
{
    const struct gather_piece *p = &whole->gather->pieces[i];
    r->sent_end = end_of(whole, i);
    r->part.offset = whole->part.offset + p->offset;
    r->part.len = p->len;
    r->size = p->len;
    r->slot = p->slot;
    r->piece = i;
    r->pieces_more = 0;
}

/* r, a group that was sent or waits, becomes as many fragments as it has
 * unanswered pieces, in its place. False: no memory, and nothing is changed. */
static bool explode(struct engine *e, struct request *r)
{
    struct downstream *d = r->downstream;
    struct gather *g = r->gather;
    struct list_node fresh;
    struct list_node *behind = r->arrival.next;
    struct list_node *behind_in_lane = r->place.next;
    bool sent = r->state == REQUEST_SENT;
    assert((sent || r->state == REQUEST_READY) && r->part.buf != NULL);
    list_init(&fresh);
    for (uint32_t i = 0; i < r->pieces_more; i++) {
        struct request *more = request_new(e, d);
        if (more != NULL) {
            list_append(&fresh, &more->place);
            continue;
        }
        while (!list_empty(&fresh)) {
            more = CONTAINER_OF(fresh.next, struct request, place);
            list_remove(&more->place);
            request_free(e, more);
        }
        return false;
    }
    const struct request whole = *r;
    for (uint32_t i = whole.piece + 1; i <= whole.piece + whole.pieces_more;
         i++) {
        struct request *more = CONTAINER_OF(fresh.next, struct request, place);
        list_remove(&more->place);
        *more = whole;
        buf_ref(more->part.buf);
        narrow(more, &whole, i);
        list_insert_before(behind, &more->arrival);
        list_insert_before(behind_in_lane, &more->place);
    }
    narrow(r, &whole, whole.piece);
    d->n_open += whole.pieces_more;
    d->n_replica_open += whole.from_replica ? whole.pieces_more : 0;
    d->n_fragments += whole.pieces_more;
    g->n_open += whole.pieces_more;
    struct cluster *c = cluster_of(g);
    whole.upstream->endpoint->in_flight += sent ? whole.pieces_more : 0;
    c->held += sent ? 0 : whole.pieces_more;
    c->stats.fragments += whole.pieces_more;
    c->stats.groups_exploded++;
    return true;
}

/* One reply of a group is taken; the next one is for the next piece. */
static void step_on(struct request *r)
{
    r->piece++;
    r->pieces_more--;
    if (r->pieces_more == 0 && r->gather != NULL) {
        narrow(r, r, r->piece); /* the last one is a fragment like any other */
    }
}

bool gather_piece(struct engine *e,
                  struct request *r,
                  bool success,
                  struct gather_message *m)
{
    struct downstream *d = r->downstream;
    if (d == NULL || downstream_gone(d)) {
        chain_clear(e->memory, m->head);
        step_on(r);
        return true;
    }
    /* While something in front of it is settling, each key must be judged on
     * its own: did it overtake? */
    if (success && d->n_settling == 0) {
        enum gather_take taken = take(e, r->gather, r->piece, r->server, m);
        if (taken != TAKE_WRONG) {
            d->served_us = e->now_us;
            if (d->backoff.failures > 0) {
                backoff_reset(&d->backoff);
            }
            chain_clear(e->memory, m->head);
            step_on(r);
            if (taken == TAKE_NO_MEMORY) {
                no_memory(e, d);
            } else {
                stream(e, r->gather);
            }
            return true;
        }
    }
    if (!explode(e, r)) {
        chain_clear(e->memory, m->head);
        step_on(r);
        no_memory(e, d);
        return true;
    }
    return false;
}

uint32_t gather_quick(struct engine *e, struct upstream *u, struct slice s)
{
    struct request *r =
        list_empty(&u->in_flight)
            ? NULL
            : CONTAINER_OF(u->in_flight.next, struct request, place);
    if (r == NULL || r->pieces_more == 0 || r->gather == NULL) {
        return 0;
    }
    struct downstream *d = r->downstream;
    struct gather *g = r->gather;
    if (downstream_gone(d) || d->n_settling > 0 || d->backoff.failures > 0 ||
        r->sent_end > u->taken) {
        return 0;
    }
    uint64_t before = g->held;
    uint32_t done = 0;
    while (r->pieces_more > 0) {
        size_t used =
            split_quick(g, r->piece, s.buf, s.offset + done, s.len - done);
        if (used == 0) {
            break;
        }
        g->pieces[r->piece].answered = true;
        g->n_answered++;
        step_on(r);
        done += (uint32_t)used;
    }
    if (done > 0) {
        u->answered = true;
        d->served_us = e->now_us;
        d->gathered += g->held - before;
        stream(e, g);
    }
    return done;
}

bool gather_explode_waiting(struct engine *e, struct request *r)
{
    if (r->pieces_more == 0) {
        return true;
    }
    if (!explode(e, r)) {
        e->stats.limit_memory++;
        downstream_close(e, r->downstream,
                         "out of memory while its requests were moved");
        return false;
    }
    return true;
}

void gather_explode_lane(struct engine *e, struct upstream *u)
{
    for (struct list_node *node = u->in_flight.next; node != &u->in_flight;
         node = node->next) {
        struct request *r = CONTAINER_OF(node, struct request, place);
        struct downstream *d = r->downstream;
        if (r->pieces_more == 0 || d == NULL || downstream_gone(d)) {
            continue;
        }
        if (!explode(e, r)) {
            e->stats.limit_memory++;
            downstream_close(e, d,
                             "out of memory while its requests were settled");
        }
    }
}
