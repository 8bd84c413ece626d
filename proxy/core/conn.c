#include "proxy/core/conn.h"

#include <assert.h>

#include "proxy/core/state.h"

static bool table_grow(struct engine *e)
{
    struct conn_table *t = &e->conns;
    uint32_t cap = t->cap == 0 ? 64 : t->cap * 2;
    struct conn_entry *entries = memory_take(e->memory, cap * sizeof(*entries));
    if (entries == NULL) {
        return false;
    }
    if (t->n > 0) {
        memcpy(entries, t->entries, t->n * sizeof(*entries));
    }
    memory_give(e->memory, t->entries);
    t->entries = entries;
    t->cap = cap;
    return true;
}

bool conn_open(struct engine *e, struct conn *c, enum conn_kind kind)
{
    struct conn_table *t = &e->conns;
    uint32_t index;
    if (t->free != 0) {
        index = t->free - 1;
        t->free = t->entries[index].next_free;
    } else {
        if (t->n == t->cap && !table_grow(e)) {
            return false;
        }
        index = t->n++;
        t->entries[index].generation = 1;
    }
    struct conn_entry *entry = &t->entries[index];
    entry->conn = c;
    *c = (struct conn){
        .id = (conn_id)entry->generation << 32 | index,
        .kind = (uint8_t)kind,
    };
    c->known = conn_class_of(c)->accepted != NULL; /* it asked for the name */
    return true;
}

struct conn *conn_find(const struct engine *e, conn_id id)
{
    uint32_t index = conn_index(id);
    if (index >= e->conns.n) {
        return NULL;
    }
    struct conn *c = e->conns.entries[index].conn;
    return c != NULL && c->id == id ? c : NULL;
}

static void forget_name(struct engine *e, struct conn *c)
{
    struct conn_table *t = &e->conns;
    uint32_t index = conn_index(c->id);
    struct conn_entry *entry = &t->entries[index];
    assert(entry->conn == c);
    entry->conn = NULL;
    entry->generation++;
    if (entry->generation == 0) {
        entry->generation = 1; /* an id is never 0 */
    }
    entry->next_free = t->free;
    t->free = index + 1;
}

void conn_take_over(struct engine *e, struct conn *to, struct conn *from)
{
    assert(!to->queued && !to->dead && !from->dead && from->id != 0);
    forget_name(e, to);
    to->id = from->id;
    to->paused_told = from->paused_told;
    e->conns.entries[conn_index(to->id)].conn = to;
    from->id = 0;
    conn_touch(e, to);
}

void conn_touch(struct engine *e, struct conn *c)
{
    if (c->queued) {
        return;
    }
    c->queued = true;
    c->next = NULL;
    if (e->busy_tail != NULL) {
        e->busy_tail->next = c;
    } else {
        e->busy = c;
    }
    e->busy_tail = c;
}

void conn_pause(struct engine *e, struct conn *c, bool paused)
{
    if (c->paused == paused) {
        return;
    }
    c->paused = paused;
    conn_touch(e, c);
}

void conn_close(struct engine *e, struct conn *c, bool tell)
{
    assert(!c->dead);
    chain_clear(e->memory, &c->out);
    tell = tell && c->known;
    c->dead = true;
    c->close = tell;
    c->resolve = false;
    c->connect = false;
    c->paused = c->paused_told;
    if (!tell) {
        forget_name(e, c);
    } else {
        /* The name stays taken until the shell has heard of the end, so that
         * it cannot be given twice; events for it are ignored meanwhile. */
        e->conns.entries[conn_index(c->id)].conn = NULL;
    }
    conn_touch(e, c);
}

/* What c still asks for, one thing at a time. */
static bool take_action(struct engine *e, struct conn *c, struct action *a)
{
    a->conn = c->id;
    if (c->flush) {
        c->flush = false;
        conn_class_of(c)->flush(e, c);
    }
    if (c->out.head != NULL && !c->resolve && !c->connect) {
        a->type = ACTION_WRITE;
        a->bytes = c->out;
        c->out = (struct chain){ 0 };
        if (conn_class_of(c)->handed != NULL) {
            conn_class_of(c)->handed(c, a->bytes.bytes);
        }
        return true;
    }
    if (c->close) {
        c->close = false;
        a->type = ACTION_CLOSE;
        e->conns.entries[conn_index(c->id)].conn = c;
        forget_name(e, c);
        return true;
    }
    if (c->resolve || c->connect) {
        a->type = c->resolve ? ACTION_RESOLVE : ACTION_CONNECT;
        a->address = conn_class_of(c)->address(c);
        c->resolve = false;
        c->connect = false;
        c->known = true;
        return true;
    }
    if (c->paused != c->paused_told) {
        c->paused_told = c->paused;
        a->type = c->paused ? ACTION_PAUSE : ACTION_RESUME;
        return true;
    }
    return false;
}

static void leave_queue(struct engine *e, struct conn *c)
{
    e->busy = c->next;
    if (e->busy == NULL) {
        e->busy_tail = NULL;
    }
    c->queued = false;
}

bool conn_next_action(struct engine *e, struct action *action)
{
    while (e->busy != NULL) {
        struct conn *c = e->busy;
        if (take_action(e, c, action)) {
            if (action->type == ACTION_WRITE && !c->close && !c->dead &&
                !c->flush && c->paused == c->paused_told) {
                leave_queue(e, c); /* it has no more to ask for */
            }
            return true;
        }
        leave_queue(e, c);
        if (c->dead) {
            conn_class_of(c)->release(e, c);
        }
    }
    return false;
}
