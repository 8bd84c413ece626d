#include "proxy/core/input.h"

#include <stdio.h>

#include "parser/command_info.h"
#include "parser/keyslot.h"
#include "proxy/core/learn.h"
#include "proxy/core/state.h"

void input_drop(struct engine *e, struct downstream *d)
{
    if (d->input == NULL) {
        return;
    }
    chain_clear(e->memory, &d->input->partial);
    chain_clear(e->memory, &d->input->unread);
    memory_give(e->memory, d->input);
    d->input = NULL;
}

static struct input *input_of(struct engine *e, struct downstream *d)
{
    if (d->input == NULL) {
        d->input = memory_take(e->memory, sizeof(*d->input));
        if (d->input != NULL) {
            command_scanner_init(&d->input->scanner);
        }
    }
    return d->input;
}

static void input_drop_if_empty(struct engine *e, struct downstream *d)
{
    struct input *in = d->input;
    if (in != NULL && in->partial.head == NULL && in->unread.head == NULL &&
        in->streaming == NULL && !in->discard && in->scanner.bytes == 0) {
        memory_give(e->memory, in);
        d->input = NULL;
    }
}

static void out_of_memory(struct engine *e, struct downstream *d)
{
    e->stats.limit_memory++;
    downstream_close(e, d, "out of memory for its request");
}

static void protocol_error(struct engine *e,
                           struct downstream *d,
                           const char *error)
{
    e->stats.protocol_error_client++;
    if (d->input != NULL && d->input->streaming != NULL) {
        downstream_close(e, d, error); /* half of it has been sent already */
        return;
    }
    struct request *r = request_new(e, d);
    if (r == NULL) {
        out_of_memory(e, d);
        return;
    }
    char text[128];
    snprintf(text, sizeof(text), "-ERR %s\r\n", error);
    list_append(&d->requests, &r->arrival);
    d->n_requests++;
    engine_trace(e, &(struct trace_record){
                        .type = TRACE_CLIENT,
                        .upstream = d->listener->cluster->config->name,
                        .listener = d->listener->config->name,
                        .client = d->conn.id,
                        .to = "closing",
                        .reason = error });
    d->closing = true;
    conn_pause(e, &d->conn, true);
    /* The error takes its turn behind the replies that are still due. */
    downstream_answer_text(e, r, text);
}

enum {
    LINEAR_MAX = 32 * 1024, /* a command in parts up to this is copied */
    WORD_MAX = 64,          /* longest name worth looking up */
};

/* Bytes [offset, offset + len) of r, copied if they lie in parts. */
static struct span request_span(const struct request *r,
                                struct command_arg arg,
                                uint8_t *scratch)
{
    if (arg.offset + arg.len <= r->part.len) {
        return (struct span){ slice_data(&r->part) + arg.offset, arg.len };
    }
    if (arg.len > WORD_MAX || r->part.buf == NULL) {
        return (struct span){ NULL, 0 };
    }
    uint64_t at = 0;
    uint64_t copied = 0;
    for (uint64_t i = arg.offset; i < r->part.len; i++) {
        scratch[copied++] = slice_data(&r->part)[i];
    }
    at = r->part.len;
    for (const struct segment *s = r->more.head; s != NULL && copied < arg.len;
         s = s->next) {
        const uint8_t *data = slice_data(&s->slice);
        for (uint32_t i = 0; i < s->slice.len && copied < arg.len; i++, at++) {
            if (at >= arg.offset) {
                scratch[copied++] = data[i];
            }
        }
    }
    return (struct span){ scratch, copied };
}

static void look_up_parts(const struct cluster *c,
                          struct request *r,
                          const struct command_scanner *s)
{
    uint8_t scratch[2][WORD_MAX];
    struct span name = { NULL, 0 };
    struct span sub = { NULL, 0 };
    if (s->seen > 0) {
        name = request_span(r, s->arg[0], scratch[0]);
    }
    if (s->seen > 1) {
        sub = request_span(r, s->arg[1], scratch[1]);
    }
    r->command = learn_find(c, name, sub);
}

/* Find the row of r's command. A second word, and what servers have told of
 * their commands, matters to few. */
static void look_up(const struct cluster *c,
                    struct request *r,
                    const struct command_scanner *s)
{
    const struct command_arg *name = &s->arg[0];
    if (s->seen == 0 || name->offset + name->len > r->part.len) {
        look_up_parts(c, r, s);
        return;
    }
    const struct span word = { slice_data(&r->part) + name->offset, name->len };
    r->command = command_find(word, (struct span){ NULL, 0 });
    if (command_is_lacking(r->command)) {
        look_up_parts(c, r, s);
    }
}

/* The slot of its first key, while it is known where that lies. */
static void look_for_slot(struct request *r, const struct command_scanner *s)
{
    uint8_t key = r->command != NULL ? r->command->first_key_arg : 0;
    if (key == 0 || key >= COMMAND_ARGS_KEPT || key >= s->seen ||
        s->arg[key].offset + s->arg[key].len > r->part.len) {
        return; /* later, if it matters */
    }
    r->slot = slot_plus(keyslot((struct span){
        slice_data(&r->part) + s->arg[key].offset, s->arg[key].len }));
}

/* The same for a request that is sent as it arrives, by what is here of it. */
static void look_for_slot_early(struct request *r,
                                const struct command_scanner *s)
{
    struct span args[COMMAND_ARGS_KEPT];
    size_t n = 0;
    while (n < COMMAND_ARGS_KEPT && n < s->seen &&
           s->arg[n].offset + s->arg[n].len <= r->part.len) {
        args[n] = (struct span){ slice_data(&r->part) + s->arg[n].offset,
                                 s->arg[n].len };
        n++;
    }
    uint32_t key =
        r->command != NULL ? command_first_key(r->command, args, n) : 0;
    if (key > 0 && key < n) {
        r->slot = slot_plus(keyslot(args[key]));
    }
}

/* Make one contiguous slice of what came in parts. Returns false without
 * memory. */
static bool linearise(struct engine *e,
                      struct request *r,
                      struct chain *parts,
                      const uint8_t *tail,
                      size_t tail_len)
{
    uint32_t size = (uint32_t)(parts->bytes + tail_len);
    struct buf *b = buf_new(e->memory, size);
    if (b == NULL) {
        return false;
    }
    size_t head = chain_copy(parts, b->data, parts->bytes);
    memcpy(b->data + head, tail, tail_len);
    b->len = size;
    r->part = (struct slice){ .buf = b, .len = size };
    chain_clear(e->memory, parts);
    return true;
}

/* r becomes the bytes of parts and then those of tail, which is borrowed. */
static bool assemble(struct engine *e,
                     struct request *r,
                     struct chain *parts,
                     struct slice tail,
                     bool is_inline)
{
    struct buf *b = tail.buf;
    uint32_t offset = tail.offset;
    uint32_t len = tail.len;
    r->size = parts->bytes + len;
    if (parts->head == NULL) {
        buf_ref(b);
        r->part = (struct slice){ .buf = b, .offset = offset, .len = len };
        return true;
    }
    if (r->size <= LINEAR_MAX || is_inline) {
        return linearise(e, r, parts, b->data + offset, len);
    }
    if (len > 0 && !chain_push_part(e->memory, parts, b, offset, len)) {
        return false;
    }
    r->part = parts->head->slice;
    buf_ref(r->part.buf);
    chain_consume(e->memory, parts, r->part.len);
    chain_move(&r->more, parts);
    return true;
}

/* Rewrite an inline command as multibulk. Returns 1, 0 for an empty line, -1
 * for unbalanced quotes, -2 without memory. */
static int rewrite_inline(struct engine *e,
                          const struct cluster *c,
                          struct request *r)
{
    struct span line = { slice_data(&r->part), r->part.len };
    size_t room = 16 * line.len + 64;
    struct buf *b = buf_new(e->memory, (uint32_t)room);
    if (b == NULL) {
        return -2;
    }
    int64_t n = command_from_inline(line, b->data, room);
    if (n <= 0) {
        buf_unref(e->memory, b);
        return (int)n;
    }
    b->len = (uint32_t)n;
    buf_unref(e->memory, r->part.buf);
    r->part = (struct slice){ .buf = b, .len = b->len };
    r->size = b->len;
    struct span words[2] = { { NULL, 0 }, { NULL, 0 } };
    command_split((struct span){ b->data, b->len }, words, 2);
    r->command = learn_find(c, words[0], words[1]);
    return 1;
}

static void take_command(struct engine *e,
                         struct downstream *d,
                         const struct command_scanner *s,
                         struct buf *b,
                         uint32_t offset,
                         uint32_t len)
{
    struct chain none = { 0 };
    struct chain *parts = d->input != NULL ? &d->input->partial : &none;
    if (s->argc == 0) {
        chain_clear(e->memory, parts);
        return;
    }
    const struct slice tail = { .buf = b, .offset = offset, .len = len };
    struct request *r = request_new(e, d);
    if (r == NULL || !assemble(e, r, parts, tail, s->is_inline)) {
        if (r != NULL) {
            request_free(e, r);
        }
        out_of_memory(e, d);
        return;
    }
    if (!s->is_inline) {
        look_up(d->listener->cluster, r, s);
        if (d->listener->cluster->slots != NULL) {
            look_for_slot_early(r, s);
        }
        downstream_take(e, d, r);
        return;
    }
    int words = rewrite_inline(e, d->listener->cluster, r);
    if (words == 1) {
        downstream_take(e, d, r);
        return;
    }
    request_free(e, r);
    if (words == -1) {
        protocol_error(e, d, "Protocol error: unbalanced quotes in request");
    } else if (words == -2) {
        out_of_memory(e, d);
    }
}

/* The common case: one multibulk command, whole, and nothing before it. */
static void take_whole(struct engine *e,
                       struct downstream *d,
                       const struct command_scanner *s,
                       struct buf *b,
                       uint32_t offset,
                       uint32_t len)
{
    struct request *r = request_new(e, d);
    if (r == NULL) {
        out_of_memory(e, d);
        return;
    }
    buf_ref(b);
    r->part = (struct slice){ .buf = b, .offset = offset, .len = len };
    r->size = len;
    look_up(d->listener->cluster, r, s);
    if (d->listener->cluster->slots != NULL) {
        look_for_slot(r, s);
    }
    downstream_take(e, d, r);
}

/* The command being read is too large to be kept: pass on what is here. */
static void begin_stream(struct engine *e, struct downstream *d)
{
    struct input *in = d->input;
    struct request *r = request_new(e, d);
    if (r == NULL) {
        out_of_memory(e, d);
        return;
    }
    r->streaming = true;
    r->incomplete = true;
    r->size = in->partial.bytes;
    r->part = in->partial.head->slice;
    buf_ref(r->part.buf);
    chain_consume(e->memory, &in->partial, r->part.len);
    chain_move(&r->more, &in->partial);
    in->streaming = r;
    d->listener->cluster->stats.requests_streamed++;
    look_up(d->listener->cluster, r, &in->scanner);
    if (d->listener->cluster->slots != NULL) {
        look_for_slot_early(r, &in->scanner);
    }
    downstream_take(e, d, r);
}

/* More bytes of a request that is being streamed. */
static void stream_on(struct engine *e,
                      struct downstream *d,
                      struct buf *b,
                      uint32_t offset,
                      uint32_t len,
                      bool last)
{
    struct request *r = d->input->streaming;
    bool sent = r->state == REQUEST_SENT;
    struct chain *to = sent ? &r->upstream->link->conn.out : &r->more;
    if (len > 0 && !chain_push_part(e->memory, to, b, offset, len)) {
        out_of_memory(e, d);
        return;
    }
    r->size += len;
    r->incomplete = !last;
    if (sent) {
        r->upstream->queued_end += len;
        conn_touch(e, &r->upstream->link->conn);
        if (last) {
            r->sent_end = r->upstream->queued_end;
        }
    }
    if (last) {
        d->input->streaming = NULL;
    }
}

static void keep_partial(struct engine *e,
                         struct downstream *d,
                         struct buf *b,
                         uint32_t offset,
                         uint32_t len)
{
    bool first = d->input == NULL;
    struct input *in = input_of(e, d);
    if (in == NULL) {
        command_scanner_init(&e->scanner); /* it is everybody's */
        out_of_memory(e, d);
        return;
    }
    if (first) {
        in->scanner = e->scanner;
        command_scanner_init(&e->scanner);
    }
    if (in->discard) {
        return;
    }
    if (in->streaming != NULL) {
        stream_on(e, d, b, offset, len, false);
        return;
    }
    if (!chain_push_part(e->memory, &in->partial, b, offset, len)) {
        out_of_memory(e, d);
        return;
    }
    bool raw = d->lane != NULL && d->lane->raw;
    if (in->partial.bytes > d->listener->cluster->config->replay_bytes_max &&
        !raw && !in->scanner.is_inline) {
        begin_stream(e, d);
    }
}

/* Whether more bytes may be looked at now. */
static bool may_read(const struct downstream *d)
{
    if (d->input != NULL && d->input->streaming != NULL) {
        const struct request *r = d->input->streaming;
        return r->state == REQUEST_SENT && upstream_has_room(r->upstream);
    }
    return !downstream_is_full(d);
}

static void ended_command(struct engine *e,
                          struct downstream *d,
                          const struct command_scanner *s,
                          struct buf *b,
                          uint32_t offset,
                          uint32_t len)
{
    if (d->input != NULL && d->input->discard) {
        d->input->discard = false;
    } else if (d->input != NULL && d->input->streaming != NULL) {
        stream_on(e, d, b, offset, len, true);
    } else {
        take_command(e, d, s, b, offset, len);
    }
}

/* Look at bytes of b; returns how many were taken. */
static uint32_t read_bytes(struct engine *e,
                           struct downstream *d,
                           struct buf *b,
                           uint32_t offset,
                           uint32_t len)
{
    const struct listener_config *config = d->listener->config;
    const struct command_limits limits = { .bulk_max = config->proto_max_bulk,
                                           .args_max = config->proto_max_args };
    uint32_t done = 0;
    while (done < len && !d->closing && may_read(d)) {
        struct command_scanner *s =
            d->input != NULL ? &d->input->scanner : &e->scanner;
        size_t used = 0;
        enum scan status = command_scan(s, &limits, b->data + offset + done,
                                        len - done, &used);
        uint32_t at = offset + done;
        done += (uint32_t)used;
        if (status == SCAN_DONE && d->input == NULL && s->argc != 0 &&
            !s->is_inline) {
            take_whole(e, d, s, b, at, (uint32_t)used);
        } else if (status == SCAN_DONE) {
            ended_command(e, d, s, b, at, (uint32_t)used);
        } else if (status == SCAN_MORE) {
            keep_partial(e, d, b, at, (uint32_t)used);
        } else {
            char text[96];
            snprintf(text, sizeof(text), "%s", s->error);
            command_scanner_init(s);
            protocol_error(e, d, text);
        }
    }
    return done;
}

void input_read_on(struct engine *e, struct downstream *d)
{
    while (d->input != NULL && d->input->unread.head != NULL && !d->closing &&
           may_read(d)) {
        struct slice s = d->input->unread.head->slice;
        buf_ref(s.buf);
        uint32_t done = read_bytes(e, d, s.buf, s.offset, s.len);
        buf_unref(e->memory, s.buf);
        if (d->input != NULL) {
            chain_consume(e->memory, &d->input->unread, done);
        }
    }
    if (d->closing) {
        return;
    }
    bool unread = d->input != NULL && d->input->unread.head != NULL;
    if (!unread) {
        input_drop_if_empty(e, d);
    }
    conn_pause(e, &d->conn, unread);
}

static void stop_reading(struct engine *e, struct downstream *d)
{
    const struct listener_config *config = d->listener->config;
    if (d->n_requests >= config->pipeline_max) {
        e->stats.limit_pipeline_max++;
    } else if (downstream_is_full(d)) {
        e->stats.limit_client_buffer_max++;
        downstream_wake_at(e, d, d->progress_us + config->stall_timeout_us);
    }
    conn_pause(e, &d->conn, true);
}

void input_bytes(struct engine *e, struct downstream *d, struct slice s)
{
    uint32_t done = 0;
    if (d->unwritten == 0) {
        d->progress_us = e->now_us;
    }
    if (d->input == NULL || d->input->unread.head == NULL) {
        done = read_bytes(e, d, s.buf, s.offset, s.len);
    }
    if (d->closing || done == s.len) {
        buf_unref(e->memory, s.buf);
        if (!downstream_gone(d) && !d->closing && d->input != NULL) {
            input_drop_if_empty(e, d);
        }
        return;
    }
    s.offset += done;
    s.len -= done;
    struct input *in = input_of(e, d);
    if (in == NULL) {
        buf_unref(e->memory, s.buf);
        out_of_memory(e, d);
        return;
    }
    if (!chain_push(e->memory, &in->unread, s)) {
        out_of_memory(e, d);
        return;
    }
    stop_reading(e, d);
}
