#include "proxy/core/grpc_log.h"

#include <assert.h>

#include "proxy/core/state.h"

enum {
    /* Bytes of small pieces in one buf. */
    TOGETHER = 2 * GRPC_COPY_BELOW - (int)sizeof(struct buf),
};

/* Copy a small piece: the first one alone, those that follow together, so that
 * content that comes in tiny frames takes no more memory than is counted. */
static bool add_copy(struct memory *m, struct chain *c, struct span bytes)
{
    const struct segment *tail = c->tail;
    if (tail == NULL || bytes.len == 0 || bytes.len >= GRPC_COPY_BELOW) {
        return chain_push_copy(m, c, bytes);
    }
    /* A buf of that size is this chain's own, and nobody else adds to it. */
    struct buf *b = tail->slice.buf;
    bool own = b->cap == TOGETHER && b->cap - b->len >= bytes.len &&
               tail->slice.offset + tail->slice.len == b->len;
    if (!own) {
        b = buf_new(m, TOGETHER);
        if (b == NULL) {
            return false;
        }
    }
    uint32_t at = b->len;
    memcpy(b->data + at, bytes.data, bytes.len);
    b->len += (uint32_t)bytes.len;
    if (own) {
        (void)chain_extend(c, b, at, (uint32_t)bytes.len);
        return true;
    }
    return chain_push(m, c,
                      (struct slice){
                          .buf = b, .offset = at, .len = (uint32_t)bytes.len });
}

bool grpc_content_add(struct engine *e, struct chain *c, struct span bytes)
{
    struct buf *b = e->grpc_reading;
    if (bytes.len >= GRPC_COPY_BELOW && b != NULL && bytes.data >= b->data &&
        bytes.data + bytes.len <= b->data + b->len) {
        return chain_push_part(e->memory, c, b,
                               (uint32_t)(bytes.data - b->data),
                               (uint32_t)bytes.len);
    }
    return add_copy(e->memory, c, bytes);
}

bool grpc_log_add(struct engine *e, struct grpc_log *log, struct span bytes)
{
    if (!grpc_content_add(e, &log->bytes, bytes)) {
        return false;
    }
    log->received += bytes.len;
    e->grpc.bytes += bytes.len;
    return true;
}

static void drop_sent(struct engine *e, struct grpc_log *log)
{
    uint64_t n = log->sent - log->base;
    chain_consume(e->memory, &log->bytes, n);
    log->base = log->sent;
    log->at = NULL;
    e->grpc.bytes -= n;
}

/* Where the next unsent byte lies. There is one. */
static void find_place(struct grpc_log *log)
{
    if (log->at == NULL) {
        uint64_t skip = log->sent - log->base;
        log->at = log->bytes.head;
        while (skip >= log->at->slice.len) {
            skip -= log->at->slice.len;
            log->at = log->at->next;
        }
        log->at_offset = (uint32_t)skip;
    } else if (log->at_offset == log->at->slice.len) {
        log->at = log->at->next;
        log->at_offset = 0;
    }
}

/* n bytes have been sent. */
static uint64_t count_sent(struct engine *e, struct grpc_log *log, size_t n)
{
    log->sent += n;
    uint64_t fresh = 0;
    if (log->sent > log->highest) {
        fresh = log->sent - log->highest;
        log->highest = log->sent;
    }
    if (log->passing) {
        drop_sent(e, log);
    } else {
        log->replayable += (uint32_t)fresh;
        e->grpc.log_bytes += fresh;
    }
    return fresh;
}

uint64_t grpc_log_copy(struct engine *e,
                       struct grpc_log *log,
                       uint8_t *out,
                       size_t n)
{
    assert(n <= grpc_log_unsent(log));
    for (size_t done = 0; done < n;) {
        find_place(log);
        const struct slice *s = &log->at->slice;
        size_t part = s->len - log->at_offset;
        part = part < n - done ? part : n - done;
        memcpy(out + done, slice_data(s) + log->at_offset, part);
        log->at_offset += (uint32_t)part;
        done += part;
    }
    return count_sent(e, log, n);
}

bool grpc_log_pass(struct engine *e,
                   struct grpc_log *log,
                   struct chain *out,
                   size_t n,
                   uint64_t *credit)
{
    assert(n <= grpc_log_unsent(log));
    for (size_t done = 0; done < n;) {
        find_place(log);
        const struct slice *s = &log->at->slice;
        size_t part = s->len - log->at_offset;
        part = part < n - done ? part : n - done;
        if (!chain_push_part(e->memory, out, s->buf, s->offset + log->at_offset,
                             (uint32_t)part)) {
            return false;
        }
        log->at_offset += (uint32_t)part;
        done += part;
    }
    *credit = count_sent(e, log, n);
    return true;
}

void grpc_log_restart(struct grpc_log *log)
{
    assert(log->base == 0);
    log->sent = 0;
    log->at = NULL;
}

static void uncount(struct engine *e, struct grpc_log *log)
{
    e->grpc.log_bytes -= log->replayable;
    log->replayable = 0;
}

void grpc_log_pass_through(struct engine *e, struct grpc_log *log)
{
    if (!log->passing) {
        log->passing = true;
        uncount(e, log);
        drop_sent(e, log);
    }
}

void grpc_log_clear(struct engine *e, struct grpc_log *log)
{
    uncount(e, log);
    e->grpc.bytes -= log->bytes.bytes;
    chain_clear(e->memory, &log->bytes);
    log->at = NULL;
    log->base = log->received;
    log->sent = log->received;
}
