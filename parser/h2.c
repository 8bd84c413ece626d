#include "parser/h2.h"

#include <assert.h>
#include <string.h>

#include <nghttp2/nghttp2.h>

#include "parser/h2_field.h"
#include "parser/h2_memory.h"

/* nghttp2 1.60 has new names for what used ssize_t. */
#if NGHTTP2_VERSION_NUM >= 0x013c00
typedef nghttp2_ssize lib_ssize;
typedef nghttp2_data_provider2 lib_data_provider;
#define lib_mem_recv        nghttp2_session_mem_recv2
#define lib_mem_send        nghttp2_session_mem_send2
#define lib_submit_request  nghttp2_submit_request2
#define lib_submit_response nghttp2_submit_response2
#else
typedef ssize_t lib_ssize;
typedef nghttp2_data_provider lib_data_provider;
#define lib_mem_recv        nghttp2_session_mem_recv
#define lib_mem_send        nghttp2_session_mem_send
#define lib_submit_request  nghttp2_submit_request
#define lib_submit_response nghttp2_submit_response
#endif

enum {
    COPY_MAX = 2048,        /* larger pieces of content leave by reference */
    TURN_BYTES = 64 * 1024, /* of one stream before another has its turn */
    REQUEST_FIELDS = 16,    /* room at first */
    RESPONSE_FIELDS = 8,
    SUBMITTED_MAX = H2_FIELDS_MAX + 16,
    SETTINGS_MAX = 4,
    SEND_BLOCK_MIN = 64 * 1024
};

/* The references that keep a field's bytes. */
struct held {
    nghttp2_rcbuf *name, *value;
};

/* One piece of memory: this, the fields, the references. */
struct kept_block {
    struct h2_block block; /* first */
    struct h2_memory *memory;
    struct held *held;
};

/* The header block that is arriving. */
struct reading {
    struct h2_stream *stream; /* NULL: of no interest */
    struct h2_block *block;   /* owned; NULL: fields are not kept */
    struct h2_rules rules;
};

/* A HEADERS frame that the running lib_mem_send() is about to return. */
struct leaving {
    struct h2_stream *stream;
    bool end;
    bool is_closed; /* the stream, by this very frame */
    uint32_t code;
};

struct h2 {
    nghttp2_session *session;
    const struct h2_handler *handler;
    void *owner;
    struct h2_memory *memory;
    enum h2_role role;
    uint32_t max_header_list_size;

    struct h2_stream *streams; /* all of them, owned */
    struct h2_stream *turn_first, *turn_last;
    struct reading reading;
    struct leaving leaving;
    struct h2_block
        *before[H2_TRAILERS + 1]; /* the last of each kind; shared */

    uint64_t produced, limit;
    const char *error;     /* the session is lost */
    const char *complaint; /* h2_complaint() */
    uint32_t own_code;     /* of the last GOAWAY of the owner */
    bool is_terminating, is_over;
    bool is_busy; /* inside the library: N6 */
};

/* ---- words ---- */

const char *h2_code_name(uint32_t code)
{
    static const char *const names[] = {
        [H2_NO_ERROR] = "NO_ERROR",
        [H2_PROTOCOL_ERROR] = "PROTOCOL_ERROR",
        [H2_INTERNAL_ERROR] = "INTERNAL_ERROR",
        [H2_FLOW_CONTROL_ERROR] = "FLOW_CONTROL_ERROR",
        [H2_SETTINGS_TIMEOUT] = "SETTINGS_TIMEOUT",
        [H2_STREAM_CLOSED] = "STREAM_CLOSED",
        [H2_FRAME_SIZE_ERROR] = "FRAME_SIZE_ERROR",
        [H2_REFUSED_STREAM] = "REFUSED_STREAM",
        [H2_CANCEL] = "CANCEL",
        [H2_COMPRESSION_ERROR] = "COMPRESSION_ERROR",
        [H2_CONNECT_ERROR] = "CONNECT_ERROR",
        [H2_ENHANCE_YOUR_CALM] = "ENHANCE_YOUR_CALM",
        [H2_INADEQUATE_SECURITY] = "INADEQUATE_SECURITY",
        [H2_HTTP_1_1_REQUIRED] = "HTTP_1_1_REQUIRED",
    };
    return code < sizeof names / sizeof names[0] ? names[code] : "unknown";
}

static const char *error_name(int rc)
{
    switch (rc) {
    case NGHTTP2_ERR_NOMEM: return "NOMEM";
    case NGHTTP2_ERR_CALLBACK_FAILURE: return "CALLBACK_FAILURE";
    case NGHTTP2_ERR_BAD_CLIENT_MAGIC: return "BAD_CLIENT_MAGIC";
    case NGHTTP2_ERR_FLOODED: return "FLOODED";
    case -905: return "TOO_MANY_CONTINUATIONS"; /* nghttp2 1.61 */
    default: return "UNEXPECTED";
    }
}

/* Remember that the session is lost, when rc says so. Returns rc == 0. */
static bool lib_ok(struct h2 *h, int rc)
{
    if (rc < 0 && nghttp2_is_fatal(rc) && h->error == NULL) {
        h->error = error_name(rc);
    }
    return rc == 0;
}

/* ---- blocks ---- */

static struct h2_block *block_new(struct h2_memory *m, uint16_t cap)
{
    const size_t fields = cap * sizeof(struct h2_field);
    struct kept_block *k =
        h2_memory_take(m, sizeof *k + fields + cap * sizeof(struct held));
    if (k == NULL) {
        return NULL;
    }
    memset(k, 0, sizeof *k);
    k->memory = m;
    k->block.refs = 1;
    k->block.cap = cap;
    k->block.fields = (void *)(k + 1);
    k->held = (void *)((unsigned char *)(k + 1) + fields);
    return &k->block;
}

static struct kept_block *kept_of(struct h2_block *b)
{
    return (struct kept_block *)b;
}

void h2_block_ref(struct h2_block *b)
{
    b->refs++;
}

void h2_block_unref(struct h2_block *b)
{
    assert(b->refs > 0);
    if (--b->refs > 0) {
        return;
    }
    struct kept_block *k = kept_of(b);
    for (size_t i = 0; i < b->n; i++) {
        nghttp2_rcbuf_decref(k->held[i].name);
        nghttp2_rcbuf_decref(k->held[i].value);
    }
    h2_memory_give(k->memory, k);
}

static void block_drop(struct h2_block **b)
{
    if (*b != NULL) {
        h2_block_unref(*b);
        *b = NULL;
    }
}

/* Twice the room. Returns false when there is no memory. */
static bool block_grow(struct h2_block **b)
{
    struct h2_block *old = *b;
    const uint16_t cap = (uint16_t)(old->cap * 2);
    struct h2_block *grown = block_new(kept_of(old)->memory, cap);
    if (grown == NULL) {
        return false;
    }
    struct h2_field *fields = grown->fields;
    *grown = *old;
    grown->cap = cap;
    grown->fields = fields;
    memcpy(fields, old->fields, old->n * sizeof *fields);
    memcpy(kept_of(grown)->held, kept_of(old)->held,
           old->n * sizeof(struct held));
    h2_memory_give(kept_of(old)->memory, old);
    *b = grown;
    return true;
}

/* There is room. */
static void block_add(struct h2_block *b,
                      const struct h2_field *field,
                      struct held held)
{
    nghttp2_rcbuf_incref(held.name);
    nghttp2_rcbuf_incref(held.value);
    kept_of(b)->held[b->n] = held;
    b->fields[b->n++] = *field;
    if (field->id == H2_OTHER) {
        return;
    }
    if (b->first[field->id] == 0) {
        b->first[field->id] = b->n;
    } else if (b->twice[field->id] < UINT8_MAX) {
        b->twice[field->id]++;
    }
}

/* ---- streams ---- */

static struct h2_stream *stream_new(struct h2 *h, void *user)
{
    struct h2_stream *s = h2_memory_take(h->memory, sizeof *s);
    if (s == NULL) {
        return NULL;
    }
    *s = (struct h2_stream){ .user = user,
                             .length_left = -1,
                             .next = h->streams };
    if (s->next != NULL) {
        s->next->prev = s;
    }
    h->streams = s;
    return s;
}

static void leave_turn(struct h2 *h, struct h2_stream *s)
{
    struct h2_stream *before = NULL;
    for (struct h2_stream *at = h->turn_first; at != s; at = at->next_turn) {
        before = at;
    }
    *(before == NULL ? &h->turn_first : &before->next_turn) = s->next_turn;
    if (h->turn_last == s) {
        h->turn_last = before;
    }
    s->in_turn = false;
}

static void stream_free(struct h2 *h, struct h2_stream *s)
{
    if (s->in_turn) {
        leave_turn(h, s);
    }
    if (s->next != NULL) {
        s->next->prev = s->prev;
    }
    *(s->prev == NULL ? &h->streams : &s->prev->next) = s->next;
    block_drop(&s->held_out);
    h2_memory_give(h->memory, s);
}

static struct h2_stream *stream_of(nghttp2_session *session, int32_t id)
{
    return nghttp2_session_get_stream_user_data(session, id);
}

static void reset_stream(struct h2 *h, struct h2_stream *s, uint32_t code)
{
    if (s->is_reset) {
        return; /* a second one would be for a stream that was never opened */
    }
    s->is_reset = true;
    lib_ok(h, nghttp2_submit_rst_stream(h->session, NGHTTP2_FLAG_NONE, s->id,
                                        code));
}

/* The peer broke a rule that nghttp2 does not look at. */
static void reset_invalid(struct h2 *h, struct h2_stream *s)
{
    s->is_invalid = true;
    reset_stream(h, s, H2_PROTOCOL_ERROR);
    if (!s->is_shown) {
        h->handler->control(h, false);
    }
}

/* ---- a header block arrives ---- */

static enum h2_headers kind_of(const struct h2 *h, const struct h2_stream *s)
{
    return h->role == H2_SERVER ? (s->is_shown ? H2_TRAILERS : H2_REQUEST)
                                : (s->got_final ? H2_TRAILERS : H2_RESPONSE);
}

static int on_begin_headers(nghttp2_session *session,
                            const nghttp2_frame *frame,
                            void *context)
{
    struct h2 *h = context;
    struct h2_stream *s = NULL;
    h->reading.stream = NULL;
    block_drop(&h->reading.block);

    if (frame->hd.type != NGHTTP2_HEADERS) { /* before our SETTINGS arrived */
        h2_terminate(h, H2_PROTOCOL_ERROR, "PUSH_PROMISE");
        h->complaint = "PUSH_PROMISE";
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    if (frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
        s = stream_new(h, NULL);
        if (s == NULL) {
            return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
        }
        s->id = frame->hd.stream_id;
        nghttp2_session_set_stream_user_data(session, s->id, s);
    } else {
        s = stream_of(session, frame->hd.stream_id);
        if (s == NULL) {
            return 0;
        }
    }
    const enum h2_headers kind = kind_of(h, s);
    h->reading.stream = s;
    h->reading.rules = (struct h2_rules){ .kind = kind };
    if (h->role == H2_SERVER && kind == H2_TRAILERS) {
        return 0; /* dropped (V8), but checked */
    }
    h->reading.block =
        block_new(h->memory,
                  kind == H2_REQUEST ? REQUEST_FIELDS : RESPONSE_FIELDS);
    return h->reading.block == NULL ? NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE : 0;
}

static struct span span_of_rcbuf(nghttp2_rcbuf *b)
{
    const nghttp2_vec v = nghttp2_rcbuf_get_buf(b);
    return (struct span){ v.base, v.len };
}

/* The same name and value as in the last block, at the same place: most fields
 * of most calls. Their bytes are the same bytes, and have been looked at. */
static const struct h2_field *known_field(struct h2 *h, struct held held)
{
    struct h2_block *before = h->before[h->reading.rules.kind];
    const struct h2_block *b = h->reading.block;
    if (before == NULL || b == NULL || b->n >= before->n) {
        return NULL;
    }
    const struct held *h2 = &kept_of(before)->held[b->n];
    return h2->name == held.name && h2->value == held.value
               ? &before->fields[b->n]
               : NULL;
}

/* Look at a field. Returns whether it is to be kept. */
static bool examine(struct reading *r, struct h2_field *f)
{
    bool legal = true;
    f->id = h2_name_id(f->name);
    if (f->id == H2_OTHER) {
        const enum h2_legality legality = h2_name_legality(f->name);
        r->rules.broken |= legality == H2_UPPER_CASE;
        legal = legality == H2_LEGAL;
    } else if (f->id < H2_NAME_COUNT) {
        f->name = h2_name_text(f->id);
    }
    f->value = h2_value_trim(f->value);
    legal = legal && h2_value_is_legal(f->value);
    h2_rules_field(&r->rules, f->id, f->value, legal);
    if (!legal && r->block != NULL && r->block->n_dropped < UINT16_MAX) {
        r->block->n_dropped++;
    }
    return legal && !r->rules.broken;
}

/* Count the field's size. Returns whether there is room for it. */
static bool measure(struct h2 *h,
                    struct h2_block *b,
                    struct span name,
                    struct span value)
{
    const size_t size = name.len + value.len + 32;
    b->size =
        size > UINT32_MAX - b->size ? UINT32_MAX : b->size + (uint32_t)size;
    b->too_large |= b->size > h->max_header_list_size;
    b->too_many |= b->n >= H2_FIELDS_MAX;
    return !b->too_large && !b->too_many;
}

static int on_header(nghttp2_session *session,
                     const nghttp2_frame *frame,
                     nghttp2_rcbuf *name,
                     nghttp2_rcbuf *value,
                     uint8_t flags,
                     void *context)
{
    struct h2 *h = context;
    struct reading *r = &h->reading;
    (void)session;
    (void)frame;
    if (r->stream == NULL || r->rules.broken) {
        return 0;
    }
    const struct held held = { name, value };
    struct h2_field field = { .name = span_of_rcbuf(name),
                              .value = span_of_rcbuf(value) };
    bool room =
        r->block != NULL && measure(h, r->block, field.name, field.value);
    const struct h2_field *known = known_field(h, held);
    if (known != NULL) {
        field = *known;
        h2_rules_field(&r->rules, field.id, field.value, true);
    } else if (!examine(r, &field)) {
        return 0;
    }
    field.flags =
        (flags & NGHTTP2_NV_FLAG_NO_INDEX) != 0 ? H2_FIELD_NO_INDEX : 0;
    if (!room || r->rules.broken) {
        return 0;
    }
    if (r->block->n == r->block->cap && !block_grow(&r->block)) {
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    block_add(r->block, &field, held);
    return 0;
}

/* The block is whole. */
static void headers_end(struct h2 *h, bool end)
{
    struct h2_stream *s = h->reading.stream;
    struct h2_block *block = h->reading.block;
    const struct h2_rules *rules = &h->reading.rules;
    h->reading.stream = NULL;
    h->reading.block = NULL;
    if (s == NULL || s->is_reset) {
        block_drop(&block);
        return;
    }
    if (!h2_rules_end(rules, end) ||
        (rules->kind == H2_TRAILERS && s->length_left > 0)) {
        block_drop(&block);
        reset_invalid(h, s);
        return;
    }
    if (rules->kind == H2_RESPONSE && rules->status < 200) {
        block_drop(&block);
        h->handler->control(h, false); /* there may be any number of them */
        return;
    }
    s->remote_end = end;
    if (block == NULL) { /* of a request: dropped (V8) */
        h->handler->ended(h, s);
        return;
    }
    if (rules->kind != H2_TRAILERS) {
        s->length_left = h2_rules_length(rules);
        s->got_final = true;
        s->is_shown = true;
    }
    block_drop(&h->before[rules->kind]);
    h->before[rules->kind] = block;
    h2_block_ref(block);
    h->handler->headers(h, s, rules->kind, block, end);
}

/* ---- other frames arrive ---- */

static int on_begin_frame(nghttp2_session *session,
                          const nghttp2_frame_hd *hd,
                          void *context)
{
    struct h2 *h = context;
    (void)session;
    switch (hd->type) {
    case NGHTTP2_DATA:
    case NGHTTP2_HEADERS:
    case NGHTTP2_CONTINUATION:
    case NGHTTP2_GOAWAY: break;
    default: h->handler->control(h, false); break;
    }
    return 0;
}

static int on_data_chunk(nghttp2_session *session,
                         uint8_t flags,
                         int32_t id,
                         const uint8_t *data,
                         size_t len,
                         void *context)
{
    struct h2 *h = context;
    struct h2_stream *s = stream_of(session, id);
    (void)flags;
    if (s == NULL || s->is_reset || !s->got_final ||
        (s->length_left >= 0 && (uint64_t)s->length_left < len)) {
        if (s != NULL && !s->is_reset) {
            reset_invalid(h, s);
        }
        h2_credit_connection(h, len);
        return 0;
    }
    if (s->length_left >= 0) {
        s->length_left -= (int64_t)len;
    }
    h->handler->data(h, s, (struct span){ data, len });
    return 0;
}

static void data_end(struct h2 *h, const nghttp2_frame *frame)
{
    const bool end = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    if (!end) {
        if (frame->hd.length == frame->data.padlen) {
            h->handler->control(h, true);
        }
        return;
    }
    struct h2_stream *s = stream_of(h->session, frame->hd.stream_id);
    if (s == NULL || s->is_reset) {
        return;
    }
    if (s->length_left > 0 || !s->got_final) {
        reset_invalid(h, s);
        return;
    }
    s->remote_end = true;
    h->handler->ended(h, s);
}

static void got_ping(struct h2 *h, const nghttp2_frame *frame)
{
    uint64_t opaque = 0;
    if ((frame->hd.flags & NGHTTP2_FLAG_ACK) == 0) {
        h->handler->ping(h);
        return;
    }
    for (size_t i = 0; i < sizeof frame->ping.opaque_data; i++) {
        opaque = opaque << 8 | frame->ping.opaque_data[i];
    }
    h->handler->pong(h, opaque);
}

static int on_frame_recv(nghttp2_session *session,
                         const nghttp2_frame *frame,
                         void *context)
{
    struct h2 *h = context;
    (void)session;
    switch (frame->hd.type) {
    case NGHTTP2_DATA: data_end(h, frame); break;
    case NGHTTP2_HEADERS:
        headers_end(h, (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0);
        break;
    case NGHTTP2_SETTINGS:
        if ((frame->hd.flags & NGHTTP2_FLAG_ACK) != 0) {
            h->handler->settings_acked(h);
        } else {
            h->handler->settings(h);
        }
        break;
    case NGHTTP2_PING: got_ping(h, frame); break;
    case NGHTTP2_GOAWAY:
        h->handler->goaway(h, frame->goaway.last_stream_id,
                           frame->goaway.error_code,
                           (struct span){ frame->goaway.opaque_data,
                                          frame->goaway.opaque_data_len });
        break;
    default: break;
    }
    return 0;
}

static int on_invalid_frame(nghttp2_session *session,
                            const nghttp2_frame *frame,
                            int error,
                            void *context)
{
    struct h2 *h = context;
    (void)error;
    struct h2_stream *s = stream_of(session, frame->hd.stream_id);
    if (s != NULL) {
        s->is_invalid = true;
    }
    h->handler->control(h, false);
    return 0;
}

static void close_stream(struct h2 *h, struct h2_stream *s, uint32_t code)
{
    if (h->reading.stream == s) {
        h->reading.stream = NULL;
    }
    if (s->is_shown) {
        h->handler->closed(h, s, code);
    }
    stream_free(h, s);
}

static int on_stream_close(nghttp2_session *session,
                           int32_t id,
                           uint32_t code,
                           void *context)
{
    struct h2 *h = context;
    struct h2_stream *s = stream_of(session, id);
    if (s == NULL) {
        return 0;
    }
    if (h->leaving.stream == s) {
        h->leaving.is_closed = true;
        h->leaving.code = code;
        return 0;
    }
    close_stream(h, s, code);
    return 0;
}

/* ---- output ---- */

static bool put(struct h2 *h, const uint8_t *data, size_t len)
{
    h->produced += len;
    return h->handler->write(h, (struct span){ data, len });
}

/* Let other streams go first. nghttp2 would send the oldest one until its
 * window is used up. */
static lib_ssize pass_turn(struct h2 *h, struct h2_stream *s)
{
    s->turn_bytes = 0;
    s->is_deferred = true;
    s->in_turn = true;
    s->next_turn = NULL;
    *(h->turn_last == NULL ? &h->turn_first : &h->turn_last->next_turn) = s;
    h->turn_last = s;
    return NGHTTP2_ERR_DEFERRED;
}

static void next_turn(struct h2 *h)
{
    while (h->turn_first != NULL) {
        struct h2_stream *s = h->turn_first;
        leave_turn(h, s);
        h2_resume(h, s);
    }
}

static lib_ssize on_read(nghttp2_session *session,
                         int32_t id,
                         uint8_t *out,
                         size_t max,
                         uint32_t *data_flags,
                         nghttp2_data_source *source,
                         void *context)
{
    struct h2 *h = context;
    struct h2_stream *s = source->ptr;
    unsigned flags = 0;
    (void)session;
    (void)id;
    if (s->turn_bytes >= TURN_BYTES && !s->in_turn) {
        return pass_turn(h, s);
    }
    const size_t n = h->handler->pull(h, s, max, &flags);
    assert(n <= max);
    s->local_end = flags != 0;
    if (n == 0 && (flags & H2_PULL_END) == 0) {
        /* No DATA frame, also not in front of trailers: those are queued. */
        s->is_deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    if (flags != 0) {
        *data_flags |= NGHTTP2_DATA_FLAG_EOF;
    }
    if ((flags & H2_PULL_TRAILERS) != 0) {
        *data_flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
    }
    s->turn_bytes += (uint32_t)n;
    if (n <= COPY_MAX) {
        h->handler->copy(h, s, out, n);
    } else {
        *data_flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    }
    return (lib_ssize)n;
}

static int on_send_data(nghttp2_session *session,
                        nghttp2_frame *frame,
                        const uint8_t *head,
                        size_t length,
                        nghttp2_data_source *source,
                        void *context)
{
    enum {
        HEAD_BYTES = 9
    };
    struct h2 *h = context;
    (void)session;
    assert(frame->data.padlen == 0);
    if (!put(h, head, HEAD_BYTES) ||
        !h->handler->pass(h, source->ptr, length)) {
        h->error = "NOMEM";
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    h->produced += length;
    return h->produced >= h->limit ? NGHTTP2_ERR_PAUSE : 0;
}

static void goaway_sent(struct h2 *h, uint32_t code)
{
    if (code == h->own_code) {
        h->is_over |= h->is_terminating;
    } else if (code != H2_NO_ERROR) {
        h->complaint = h2_code_name(code);
    }
}

static int on_frame_send(nghttp2_session *session,
                         const nghttp2_frame *frame,
                         void *context)
{
    struct h2 *h = context;
    struct h2_stream *s = NULL;
    const bool end = (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
    switch (frame->hd.type) {
    case NGHTTP2_DATA:
        s = end ? stream_of(session, frame->hd.stream_id) : NULL;
        if (s != NULL) {
            h->handler->end_sent(h, s);
        }
        break;
    case NGHTTP2_HEADERS:
        s = stream_of(session, frame->hd.stream_id);
        if (s != NULL) {
            block_drop(&s->held_out);
            h->leaving = (struct leaving){ .stream = s, .end = end };
        }
        break;
    case NGHTTP2_GOAWAY: goaway_sent(h, frame->goaway.error_code); break;
    default: break;
    }
    return 0;
}

static int on_frame_not_send(nghttp2_session *session,
                             const nghttp2_frame *frame,
                             int error,
                             void *context)
{
    struct h2 *h = context;
    if (frame->hd.type != NGHTTP2_HEADERS) {
        return 0;
    }
    struct h2_stream *s = stream_of(session, frame->hd.stream_id);
    if (s == NULL) {
        return 0;
    }
    block_drop(&s->held_out);
    h->handler->headers_unsent(h, s,
                               error == NGHTTP2_ERR_FRAME_SIZE_ERROR
                                   ? H2_UNSENT_TOO_LARGE
                               : error == NGHTTP2_ERR_HEADER_COMP
                                   ? H2_UNSENT_BROKEN
                                   : H2_UNSENT_GONE);
    return 0;
}

/* Tell of the HEADERS frame whose last bytes have been counted. */
static void report_leaving(struct h2 *h)
{
    const struct leaving l = h->leaving;
    if (l.stream == NULL) {
        return;
    }
    h->leaving.stream = NULL;
    h->handler->headers_sent(h, l.stream, h->produced, l.end);
    if (l.end) {
        h->handler->end_sent(h, l.stream);
    }
    if (l.is_closed) {
        close_stream(h, l.stream, l.code);
    }
}

const char *h2_receive(struct h2 *h, struct span bytes)
{
    assert(!h->is_busy);
    if (h->error != NULL || h->is_terminating) {
        return h->error;
    }
    h->is_busy = true;
    const lib_ssize n = lib_mem_recv(h->session, bytes.data, bytes.len);
    h->is_busy = false;
    if (n < 0) {
        lib_ok(h, (int)n);
    }
    return h->error;
}

const char *h2_send(struct h2 *h, size_t limit)
{
    assert(!h->is_busy);
    h->is_busy = true;
    h->limit = h->produced + limit;
    while (h->error == NULL && !h->is_over && h->produced < h->limit) {
        const uint8_t *data = NULL;
        const lib_ssize n = lib_mem_send(h->session, &data);
        if (n < 0) {
            lib_ok(h, (int)n);
        } else if (n > 0) {
            if (!put(h, data, (size_t)n)) {
                h->error = "NOMEM";
            }
            report_leaving(h);
        } else if (h->turn_first == NULL) {
            break;
        } else if (h->produced < h->limit) {
            next_turn(h);
        }
    }
    h->is_busy = false;
    return h->error;
}

bool h2_wants_send(const struct h2 *h)
{
    return h->error == NULL && !h->is_over &&
           (h->turn_first != NULL ||
            nghttp2_session_want_write(h->session) != 0);
}

bool h2_is_over(const struct h2 *h)
{
    return h->is_over || h->error != NULL ||
           (nghttp2_session_want_read(h->session) == 0 &&
            nghttp2_session_want_write(h->session) == 0);
}

uint64_t h2_produced(const struct h2 *h)
{
    return h->produced;
}

const char *h2_complaint(const struct h2 *h)
{
    return h->complaint;
}

/* ---- submitting ---- */

/* nghttp2 makes the copies. A name that we know needs none. */
static void fill(nghttp2_nv *nva,
                 const struct h2_field *fields,
                 size_t n,
                 bool copy_all)
{
    for (size_t i = 0; i < n; i++) {
        const struct h2_field *f = &fields[i];
        uint8_t flags =
            NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE;
        struct span name = f->name;
        if (copy_all || (f->flags & H2_FIELD_COPY) != 0) {
            flags = 0;
            if (f->id != H2_OTHER) {
                name = h2_name_text(f->id);
                flags = NGHTTP2_NV_FLAG_NO_COPY_NAME;
            }
        }
        if ((f->flags & H2_FIELD_NO_INDEX) != 0) {
            flags |= NGHTTP2_NV_FLAG_NO_INDEX;
        }
        /* The library reads them only; its types say less. */
        nva[i] = (nghttp2_nv){ .name = (uint8_t *)(uintptr_t)name.data,
                               .value = (uint8_t *)(uintptr_t)f->value.data,
                               .namelen = name.len,
                               .valuelen = f->value.len,
                               .flags = flags };
    }
}

static void hold(struct h2_stream *s, struct h2_block *block)
{
    block_drop(&s->held_out);
    if (block != NULL) {
        h2_block_ref(block);
        s->held_out = block;
    }
}

struct h2_stream *h2_request(struct h2 *h,
                             const struct h2_field *fields,
                             size_t n,
                             struct h2_block *block,
                             bool end,
                             void *user,
                             bool *no_ids)
{
    nghttp2_nv nva[SUBMITTED_MAX];
    assert(h->role == H2_CLIENT && n <= SUBMITTED_MAX);
    *no_ids = false;
    struct h2_stream *s = stream_new(h, user);
    if (s == NULL) {
        return NULL;
    }
    fill(nva, fields, n, block == NULL);
    const lib_data_provider content = { .source.ptr = s,
                                        .read_callback = on_read };
    const int32_t id =
        lib_submit_request(h->session, NULL, nva, n, end ? NULL : &content, s);
    if (id < 0) {
        *no_ids = id == NGHTTP2_ERR_STREAM_ID_NOT_AVAILABLE;
        lib_ok(h, id);
        stream_free(h, s);
        return NULL;
    }
    s->id = id;
    s->is_shown = true;
    s->local_end = end;
    hold(s, block);
    return s;
}

bool h2_respond(struct h2 *h,
                struct h2_stream *s,
                const struct h2_field *fields,
                size_t n,
                struct h2_block *block,
                bool end)
{
    nghttp2_nv nva[SUBMITTED_MAX];
    assert(h->role == H2_SERVER && n <= SUBMITTED_MAX);
    fill(nva, fields, n, block == NULL);
    const lib_data_provider content = { .source.ptr = s,
                                        .read_callback = on_read };
    if (!lib_ok(h, lib_submit_response(h->session, s->id, nva, n,
                                       end ? NULL : &content))) {
        return false;
    }
    s->local_end = end;
    hold(s, block);
    return true;
}

bool h2_trailers(struct h2 *h,
                 struct h2_stream *s,
                 const struct h2_field *fields,
                 size_t n,
                 struct h2_block *block)
{
    nghttp2_nv nva[SUBMITTED_MAX];
    assert(h->role == H2_SERVER && n <= SUBMITTED_MAX);
    fill(nva, fields, n, block == NULL);
    if (!lib_ok(h, nghttp2_submit_trailer(h->session, s->id, nva, n))) {
        return false;
    }
    hold(s, block);
    return true;
}

void h2_resume(struct h2 *h, struct h2_stream *s)
{
    if (s->is_deferred && !s->local_end && !s->is_reset && !s->in_turn) {
        s->is_deferred = false;
        lib_ok(h, nghttp2_session_resume_data(h->session, s->id));
    }
}

void h2_reset(struct h2 *h, struct h2_stream *s, enum h2_code code)
{
    reset_stream(h, s, code);
}

void h2_credit_stream(struct h2 *h, struct h2_stream *s, size_t n)
{
    if (!s->remote_end && !s->is_reset) {
        lib_ok(h, nghttp2_session_consume_stream(h->session, s->id, n));
    }
}

void h2_credit_connection(struct h2 *h, size_t n)
{
    lib_ok(h, nghttp2_session_consume_connection(h->session, n));
}

void h2_ping(struct h2 *h, uint64_t opaque)
{
    uint8_t bytes[8];
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)(opaque >> (56 - 8 * i));
    }
    lib_ok(h, nghttp2_submit_ping(h->session, NGHTTP2_FLAG_NONE, bytes));
}

void h2_shutdown_notice(struct h2 *h)
{
    lib_ok(h, nghttp2_submit_shutdown_notice(h->session));
}

void h2_goaway(struct h2 *h, enum h2_code code, const char *text)
{
    const struct span debug = span_of(text);
    h->own_code = code;
    lib_ok(h, nghttp2_submit_goaway(h->session, NGHTTP2_FLAG_NONE,
                                    nghttp2_session_get_last_proc_stream_id(
                                        h->session),
                                    code, debug.data, debug.len));
}

void h2_terminate(struct h2 *h, enum h2_code code, const char *text)
{
    if (!h->is_terminating) {
        h->is_terminating = true;
        h2_goaway(h, code, text);
    }
}

uint32_t h2_peer_max_streams(const struct h2 *h)
{
    return nghttp2_session_get_remote_settings(
        h->session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
}

uint32_t h2_peer_header_list_max(const struct h2 *h)
{
    return nghttp2_session_get_remote_settings(
        h->session, NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE);
}

uint32_t h2_next_id(const struct h2 *h)
{
    return nghttp2_session_get_next_stream_id(h->session);
}

/* ---- life ---- */

static void *lib_malloc(size_t size, void *memory)
{
    return h2_memory_take(memory, size);
}

static void lib_free(void *piece, void *memory)
{
    h2_memory_give(memory, piece);
}

static void *lib_calloc(size_t n, size_t size, void *memory)
{
    if (size != 0 && n > SIZE_MAX / size) {
        return NULL;
    }
    void *piece = h2_memory_take(memory, n * size);
    if (piece != NULL) {
        memset(piece, 0, n * size);
    }
    return piece;
}

static void *lib_realloc(void *piece, size_t size, void *memory)
{
    return h2_memory_resize(memory, piece, size);
}

/* The library's own limits are a second line behind those of the owner
 * (grpc.md §5.2). Those that read the clock can be put out of reach. */
static void set_rates(nghttp2_option *o, const struct h2_options *options)
{
    enum {
        OUT_OF_REACH = 1 << 30
    };
    const bool is_server = options->role == H2_SERVER;
    const bool is_off = options->reset_burst == 0;
    if (is_server) {
        nghttp2_option_set_stream_reset_rate_limit(
            o, is_off ? OUT_OF_REACH : options->reset_burst,
            is_off ? OUT_OF_REACH : options->reset_rate);
    }
#ifdef HAVE_GLITCH_RATE_LIMIT
    const uint64_t burst = is_server ? 20000 : 10000;
    const uint64_t rate = is_server ? 4000 : 330;
    nghttp2_option_set_glitch_rate_limit(o, is_off ? OUT_OF_REACH : burst,
                                         is_off ? OUT_OF_REACH : rate);
#endif
}

static nghttp2_option *options_new(const struct h2_options *options)
{
    nghttp2_option *o = NULL;
    if (nghttp2_option_new(&o) != 0) {
        return NULL;
    }
    const bool is_server = options->role == H2_SERVER;
    const size_t twice = 2 * (size_t)options->max_header_list_size;
    nghttp2_option_set_no_auto_window_update(o, 1);
    nghttp2_option_set_no_closed_streams(o, 1);
    nghttp2_option_set_no_http_messaging(o, 1);
    nghttp2_option_set_no_rfc9113_leading_and_trailing_ws_validation(o, 1);
    nghttp2_option_set_max_outbound_ack(o, 256);
    nghttp2_option_set_max_settings(o, is_server ? 16 : 32);
    nghttp2_option_set_max_continuations(o, 8);
    nghttp2_option_set_max_send_header_block_length(o, twice > SEND_BLOCK_MIN
                                                           ? twice
                                                           : SEND_BLOCK_MIN);
    nghttp2_option_set_max_deflate_dynamic_table_size(o, 4096);
#ifdef HAVE_MAX_OUTBOUND_QUEUE_SIZE
    nghttp2_option_set_max_outbound_queue_size(o, 5000);
#endif
    set_rates(o, options);
    return o;
}

static nghttp2_session_callbacks *callbacks_new(void)
{
    nghttp2_session_callbacks *c = NULL;
    if (nghttp2_session_callbacks_new(&c) != 0) {
        return NULL;
    }
    nghttp2_session_callbacks_set_on_begin_headers_callback(c,
                                                            on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback2(c, on_header);
    nghttp2_session_callbacks_set_on_begin_frame_callback(c, on_begin_frame);
    nghttp2_session_callbacks_set_on_frame_recv_callback(c, on_frame_recv);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(
        c, on_invalid_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(c, on_data_chunk);
    nghttp2_session_callbacks_set_on_stream_close_callback(c, on_stream_close);
    nghttp2_session_callbacks_set_send_data_callback(c, on_send_data);
    nghttp2_session_callbacks_set_on_frame_send_callback(c, on_frame_send);
    nghttp2_session_callbacks_set_on_frame_not_send_callback(c,
                                                             on_frame_not_send);
    return c;
}

static bool session_new(struct h2 *h, const struct h2_options *options)
{
    nghttp2_mem mem = { .mem_user_data = h->memory,
                        .malloc = lib_malloc,
                        .free = lib_free,
                        .calloc = lib_calloc,
                        .realloc = lib_realloc };
    nghttp2_option *o = options_new(options);
    nghttp2_session_callbacks *c = callbacks_new();
    bool ok = o != NULL && c != NULL;
    if (ok) {
        ok = (h->role == H2_SERVER
                  ? nghttp2_session_server_new3(&h->session, c, h, o, &mem)
                  : nghttp2_session_client_new3(&h->session, c, h, o, &mem)) ==
             0;
    }
    nghttp2_option_del(o);
    nghttp2_session_callbacks_del(c);
    return ok;
}

static bool say_hello(struct h2 *h, const struct h2_options *options)
{
    const nghttp2_settings_entry settings[SETTINGS_MAX] = {
        h->role == H2_SERVER
            ? (nghttp2_settings_entry){ NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS,
                                        options->max_streams }
            : (nghttp2_settings_entry){ NGHTTP2_SETTINGS_ENABLE_PUSH, 0 },
        { NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, options->stream_window },
        { NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE,
          options->max_header_list_size },
        { NGHTTP2_SETTINGS_NO_RFC7540_PRIORITIES, 1 },
    };
    return nghttp2_submit_settings(h->session, NGHTTP2_FLAG_NONE, settings,
                                   SETTINGS_MAX) == 0 &&
           nghttp2_session_set_local_window_size(
               h->session, NGHTTP2_FLAG_NONE, 0,
               (int32_t)options->connection_window) == 0;
}

struct h2 *h2_new(const struct h2_options *options)
{
    struct h2 *h = h2_memory_take(options->memory, sizeof *h);
    if (h == NULL) {
        return NULL;
    }
    *h = (struct h2){
        .handler = options->handler,
        .owner = options->owner,
        .memory = options->memory,
        .role = options->role,
        .max_header_list_size = options->max_header_list_size,
    };
    if (!session_new(h, options) || !say_hello(h, options)) {
        h2_free(h);
        return NULL;
    }
    return h;
}

void h2_free(struct h2 *h)
{
    assert(!h->is_busy);
    nghttp2_session_del(h->session);
    while (h->streams != NULL) {
        stream_free(h, h->streams);
    }
    block_drop(&h->reading.block);
    for (size_t i = 0; i <= H2_TRAILERS; i++) {
        block_drop(&h->before[i]);
    }
    h2_memory_give(h->memory, h);
}

void *h2_owner(const struct h2 *h)
{
    return h->owner;
}
