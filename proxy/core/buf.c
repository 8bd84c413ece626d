#include "proxy/core/buf.h"

#include <string.h>

struct buf *buf_new(struct memory *m, uint32_t cap)
{
    struct buf *b = memory_take_buf(m, cap == 0 ? BUF_READ_CAP : cap);
    if (b != NULL) {
        b->refs = 1;
        b->len = 0;
    }
    return b;
}

/* Append a segment that takes over the reference of s. */
static bool append(struct memory *m, struct chain *c, struct slice s)
{
    struct segment *last = memory_take_segment(m);
    if (last == NULL) {
        return false;
    }
    last->next = NULL;
    last->slice = s;
    if (c->tail == NULL) {
        c->head = last;
    } else {
        c->tail->next = last;
    }
    c->tail = last;
    c->bytes += s.len;
    return true;
}

bool chain_push_apart(struct memory *m, struct chain *c, struct slice s)
{
    if (s.len > 0 && append(m, c, s)) {
        return true;
    }
    buf_unref(m, s.buf);
    return s.len == 0;
}

bool chain_push_copy(struct memory *m, struct chain *c, struct span bytes)
{
    if (bytes.len == 0) {
        return true;
    }
    if (bytes.len > UINT32_MAX) {
        return false;
    }

    uint32_t len = (uint32_t)bytes.len;
    struct buf *b = buf_new(m, len);
    if (b == NULL) {
        return false;
    }
    memcpy(b->data, bytes.data, len);
    b->len = len;
    return chain_push(m, c, (struct slice){ .buf = b, .len = len });
}

void chain_move(struct chain *c, struct chain *from)
{
    assert(c != from);
    if (from->head == NULL) {
        return;
    }
    if (c->tail == NULL) {
        c->head = from->head;
    } else {
        c->tail->next = from->head;
    }
    c->tail = from->tail;
    c->bytes += from->bytes;
    *from = (struct chain){ 0 };
}

static void segment_drop(struct memory *m, struct segment *s)
{
    buf_unref(m, s->slice.buf);
    memory_give_segment(m, s);
}

/* Drop the end of c, so that its first count bytes remain. */
static void chain_truncate(struct memory *m, struct chain *c, size_t count)
{
    struct chain all = *c;
    *c = (struct chain){ 0 };

    while (all.head != NULL) {
        struct segment *s = all.head;
        all.head = s->next;
        size_t wanted = count - c->bytes;
        if (wanted == 0) {
            segment_drop(m, s);
            continue;
        }
        if (s->slice.len > wanted) {
            s->slice.len = (uint32_t)wanted;
        }
        if (c->tail == NULL) {
            c->head = s;
        } else {
            c->tail->next = s;
        }
        s->next = NULL;
        c->tail = s;
        c->bytes += s->slice.len;
    }
}

bool chain_share(struct memory *m, struct chain *c, const struct chain *from)
{
    assert(c != from);
    size_t before = c->bytes;

    for (const struct segment *s = from->head; s != NULL; s = s->next) {
        const struct slice *slice = &s->slice;
        if (!chain_push_part(m, c, slice->buf, slice->offset, slice->len)) {
            chain_truncate(m, c, before);
            return false;
        }
    }
    return true;
}

bool chain_split(struct memory *m,
                 struct chain *c,
                 struct chain *from,
                 size_t count)
{
    assert(count <= from->bytes);
    while (count > 0) {
        const struct slice *s = &from->head->slice;
        uint32_t part = s->len < count ? s->len : (uint32_t)count;
        if (!chain_push_part(m, c, s->buf, s->offset, part)) {
            return false;
        }
        chain_consume(m, from, part);
        count -= part;
    }
    return true;
}

void chain_consume(struct memory *m, struct chain *c, size_t count)
{
    assert(count <= c->bytes);
    c->bytes -= count;
    if (c->bytes == 0 && c->head == c->tail) {
        /* One slice and all of it: nearly every write. */
        struct segment *only = c->head;
        c->head = NULL;
        c->tail = NULL;
        if (only != NULL) {
            segment_drop(m, only);
        }
        return;
    }

    while (count > 0) {
        struct segment *s = c->head;
        assert(s != NULL); /* bytes is the sum of the lengths */
        if (count < s->slice.len) {
            s->slice.offset += (uint32_t)count;
            s->slice.len -= (uint32_t)count;
            return;
        }
        count -= s->slice.len;
        c->head = s->next;
        if (c->head == NULL) {
            c->tail = NULL;
        }
        segment_drop(m, s);
    }
}

void chain_clear(struct memory *m, struct chain *c)
{
    chain_consume(m, c, c->bytes);
}

size_t chain_copy(const struct chain *c, uint8_t *out, size_t max)
{
    size_t copied = 0;
    for (const struct segment *s = c->head; s != NULL && copied < max;
         s = s->next) {
        size_t part = max - copied;
        if (part > s->slice.len) {
            part = s->slice.len;
        }
        memcpy(out + copied, slice_data(&s->slice), part);
        copied += part;
    }
    return copied;
}
