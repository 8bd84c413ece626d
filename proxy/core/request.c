#include "proxy/core/request.h"

#include <assert.h>

#include "proxy/core/redis_blocking.h"
#include "proxy/core/state.h"
#include "proxy/core/words.h"

#define TO(state) (1u << REQUEST_##state)

/* Read with the diagram in DESIGN.md §4. READY goes back to NEW, or to BACKOFF,
 * when a retry of the same client comes before it; BACKOFF to NEW when its time
 * has come. */
static const unsigned allowed[REQUEST_STATE_COUNT] = {
    [REQUEST_NEW] = TO(SPLIT) | TO(READY) | TO(SENT) | TO(DONE),
    [REQUEST_SPLIT] = TO(COMMITTED) | TO(DONE),
    [REQUEST_READY] = TO(NEW) | TO(SENT) | TO(BACKOFF) | TO(DONE),
    [REQUEST_SENT] = TO(READY) | TO(SETTLING) | TO(COMMITTED) | TO(DONE),
    [REQUEST_SETTLING] = TO(BACKOFF) | TO(DONE),
    [REQUEST_BACKOFF] = TO(NEW) | TO(DONE),
    [REQUEST_COMMITTED] = TO(DONE),
    [REQUEST_DONE] = 0,
};

struct request *request_new(struct engine *e, struct downstream *d)
{
    struct request *r = pool_take(&e->requests);
    if (r == NULL) {
        return NULL;
    }
    *r = (struct request){ .downstream = d, .arrived_us = e->now_us };
    return r;
}

void request_move(struct request *r, enum request_state next)
{
    assert(allowed[r->state] & (1u << next));
    r->state = (uint8_t)next;
}

void request_drop_bytes(struct engine *e, struct request *r)
{
    if (r->part.buf != NULL) {
        buf_unref(e->memory, r->part.buf);
        r->part.buf = NULL;
    }
    if (r->more.head != NULL) {
        chain_clear(e->memory, &r->more);
    }
}

void request_free(struct engine *e, struct request *r)
{
    request_drop_bytes(e, r);
    if (r->reply.head != NULL) {
        chain_clear(e->memory, &r->reply);
    }
    if (r->blocking != NULL) {
        blocking_free(e, r);
    }
    pool_give(&e->requests, r);
}

enum {
    COMPACT_MAX = 4096
};

void request_compact(struct engine *e, struct request *r)
{
    if (r->part.buf == NULL || r->part.len > COMPACT_MAX ||
        r->part.buf->cap <= COMPACT_MAX) {
        return;
    }
    struct buf *b = buf_new(e->memory, r->part.len);
    if (b == NULL) {
        return; /* it only costs memory to go on without */
    }
    memcpy(b->data, slice_data(&r->part), r->part.len);
    b->len = r->part.len;
    buf_unref(e->memory, r->part.buf);
    r->part = (struct slice){ .buf = b, .len = b->len };
}

void request_args_init(struct engine *e,
                       struct request_args *args,
                       const struct request *r)
{
    args->copy = NULL;
    args->argc = 0;
    if (r->part.buf == NULL || r->incomplete) {
        return;
    }
    struct span bytes = { slice_data(&r->part), r->part.len };
    if (r->more.head != NULL) {
        uint8_t *copy = memory_take(e->memory, r->size);
        if (copy == NULL) {
            return;
        }
        memcpy(copy, bytes.data, bytes.len);
        chain_copy(&r->more, copy + bytes.len, r->size - bytes.len);
        args->copy = copy;
        bytes = (struct span){ copy, r->size };
    }
    args->argc = command_split(bytes, args->list, REQUEST_ARGS_MAX);
}

void request_args_fini(struct engine *e, struct request_args *args)
{
    memory_give(e->memory, args->copy);
    args->copy = NULL;
}

bool request_write(struct engine *e,
                   struct request *r,
                   const struct span *words,
                   size_t n)
{
    struct buf *out = words_pack(e->memory, words, n);
    if (out == NULL) {
        return false;
    }
    request_drop_bytes(e, r);
    r->part = (struct slice){ .buf = out, .len = out->len };
    r->size = out->len;
    return true;
}

enum command_class request_class(struct engine *e, const struct request *r)
{
    if (r->command == NULL) {
        return CLASS_U;
    }
    if (r->blocking != NULL) {
        return (enum command_class)r->blocking->class;
    }
    struct request_args args;
    request_args_init(e, &args, r);
    enum command_class class = CLASS_N;
    if (args.argc > 0 && args.argc <= REQUEST_ARGS_MAX) {
        int64_t wall_ms = ((int64_t)e->now_us + e->wall_offset_us) / 1000;
        class = command_class(r->command, args.list, args.argc, wall_ms);
    } else {
        /* Too many arguments to judge options: only what does not depend on
         * them is believed. */
        enum command_class plain = r->command->class;
        class = r->command->rule == 0 ? plain : CLASS_N;
    }
    if (class == CLASS_N && r->command->id == COMMAND_SCRIPT_CALL &&
        redis_script_reads(e, r, &args)) {
        class = CLASS_R;
    }
    request_args_fini(e, &args);
    return class;
}

const char *request_name(const struct request *r)
{
    return r->command != NULL ? r->command->name : "unknown command";
}
