/* What a server says unasked - messages, invalidations - goes to its client
 * between replies, in the order in which the server said it. */
#include "proxy/core/ledger.h"
#include "proxy/core/message.h"
#include "proxy/core/state.h"

/* A reply of another server has begun to leave, and nothing may come in
 * between. */
static bool is_inside_reply(const struct downstream *d)
{
    if (list_empty(&d->requests)) {
        return false;
    }
    const struct request *r =
        CONTAINER_OF(d->requests.next, struct request, arrival);
    if (r->fragment) {
        r = r->gather->parent;
    }
    return r->state == REQUEST_COMMITTED;
}

static bool keep(struct engine *e,
                 struct downstream *d,
                 struct chain *head,
                 const struct message *m)
{
    struct ledger *l = ledger_get(e, d);
    if (l == NULL) {
        return false;
    }
    size_t before = l->late.bytes;
    chain_move(&l->late, head);
    if (!chain_push_part(e->memory, &l->late, m->buf, m->offset, m->len)) {
        return false;
    }
    d->held += l->late.bytes - before;
    return true;
}

static void write(struct engine *e, struct downstream *d, struct chain *bytes)
{
    if (d->unwritten == 0) {
        d->progress_us = e->now_us;
    }
    d->unwritten += bytes->bytes;
    chain_move(&d->conn.out, bytes);
    conn_touch(e, &d->conn);
}

void redis_push(struct engine *e, struct upstream *u, const struct message *m)
{
    struct downstream *d = u->owner;
    if (downstream_gone(d) || (d->closing && list_empty(&d->requests))) {
        chain_clear(e->memory, &u->partial); /* as behind QUIT */
        return;
    }
    downstream_flush(e, d);
    if (!is_inside_reply(d)) {
        write(e, d, &u->partial);
        downstream_write(e, d, m->buf, m->offset, m->len);
    } else if (!keep(e, d, &u->partial, m)) {
        e->stats.limit_memory++;
        downstream_close(e, d, "out of memory for a message");
    }
    redis_slow_down(e, u, d);
}

bool redis_push_own(struct engine *e, struct downstream *d, struct span text)
{
    struct buf *b = buf_new(e->memory, (uint32_t)text.len);
    if (b == NULL) {
        return false;
    }
    memcpy(b->data, text.data, text.len);
    b->len = (uint32_t)text.len;
    struct chain none = { 0 };
    struct message m = { .buf = b, .len = b->len, .type = text.data[0] };
    downstream_flush(e, d);
    bool pushed = is_inside_reply(d)
                      ? keep(e, d, &none, &m)
                      : downstream_write(e, d, m.buf, m.offset, m.len);
    buf_unref(e->memory, b);
    return pushed;
}

void redis_push_late(struct engine *e, struct downstream *d)
{
    struct ledger *l = d->ledger;
    if (l->late.head != NULL && !is_inside_reply(d)) {
        d->held -= l->late.bytes;
        write(e, d, &l->late);
    }
}
