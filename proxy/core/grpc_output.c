#include "proxy/core/grpc_output.h"

#include "proxy/core/state.h"

enum {
    PACKED_MIN = 4096, /* a block with less room is given up for a new one */
};

void grpc_touch(struct engine *e, struct conn *conn)
{
    conn->flush = true;
    conn_touch(e, conn);
}

const char *grpc_receive(struct engine *e, struct h2 *h2, struct slice s)
{
    e->grpc_reading = s.buf;
    const char *error = h2_receive(h2, (struct span){ slice_data(&s), s.len });
    e->grpc_reading = NULL;
    buf_unref(e->memory, s.buf);
    return error;
}

/* The engine's block, with some room. A block that nobody refers to any more
 * starts again. */
static struct buf *packed(struct engine *e)
{
    struct buf *b = e->grpc_packed;
    if (b != NULL) {
        if (b->refs == 1) {
            b->len = 0;
            return b;
        }
        if (b->cap - b->len >= PACKED_MIN) {
            return b;
        }
        buf_unref(e->memory, b);
    }
    e->grpc_packed = buf_new(e->memory, 0);
    return e->grpc_packed;
}

bool grpc_output_write(struct engine *e, struct conn *conn, struct span bytes)
{
    while (bytes.len > 0) {
        struct buf *b = packed(e);
        if (b == NULL) {
            return false;
        }
        uint32_t room = b->cap - b->len;
        uint32_t n = bytes.len < room ? (uint32_t)bytes.len : room;
        uint32_t at = b->len;
        memcpy(b->data + at, bytes.data, n);
        b->len += n;
        if (!chain_push_part(e->memory, &conn->out, b, at, n)) {
            return false;
        }
        bytes.data += n;
        bytes.len -= n;
    }
    return true;
}

/* Memory that waits for the kernel counts, too (FL3). */
static void count_memory(struct engine *e,
                         struct grpc_output *o,
                         uint64_t waiting)
{
    e->grpc.bytes += waiting;
    e->grpc.bytes -= o->counted;
    o->counted = waiting;
}

void grpc_output_fini(struct engine *e, struct grpc_output *o)
{
    count_memory(e, o, 0);
}

const char *grpc_output_make(struct engine *e,
                             struct conn *conn,
                             struct grpc_output *o,
                             struct h2 *h2)
{
    uint64_t waiting = grpc_output_waiting(o, conn);
    if (waiting == 0) {
        o->progress_us = e->now_us; /* so far nothing was owed */
    }
    if (waiting >= GRPC_OUT_HIGH) {
        o->blocked = true;
        return NULL;
    }
    const char *error = h2_send(h2, GRPC_OUT_HIGH - (size_t)waiting);
    waiting = grpc_output_waiting(o, conn);
    count_memory(e, o, waiting);
    o->blocked = waiting >= GRPC_OUT_HIGH;
    return error;
}

void grpc_output_written(struct engine *e,
                         struct conn *conn,
                         struct grpc_output *o,
                         uint64_t count)
{
    o->written += count;
    o->progress_us = e->now_us;
    uint64_t waiting = grpc_output_waiting(o, conn);
    count_memory(e, o, waiting);
    if (o->blocked && waiting <= GRPC_OUT_LOW) {
        o->blocked = false;
        grpc_touch(e, conn);
    }
}
