#include <assert.h>
#include <string.h>

#include "parser/h2_memory.h"
#include "parser/h2_session.h"

enum {
    SUBMITTED_MAX = H2_FIELDS_MAX + 16,
    SETTINGS_MAX = 4,
    CREDIT_STEPS = 16,
    SEND_BLOCK_MIN = 64 * 1024
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

bool h2_lib_ok(struct h2 *h, int rc)
{
    if (rc < 0 && nghttp2_is_fatal(rc) && h->error == NULL) {
        h->error = error_name(rc);
    }
    return rc == 0;
}

void h2_enter(struct h2 *h)
{
    assert(!h->is_busy);
    h->is_busy = true;
    h->resizes_failed = h2_memory_resizes_failed(h->memory);
}

/* When nghttp2 1.52 cannot make its queue of streams longer, it frees what was
 * to be queued, but the stream still points there. nghttp2_session_del() would
 * free it again, so that session stays, until its memory goes as a whole. */
void h2_leave(struct h2 *h)
{
    h->is_busy = false;
    h->is_broken = h->is_broken ||
                   (h->error != NULL &&
                    h->resizes_failed != h2_memory_resizes_failed(h->memory));
}

/* ---- streams ---- */

struct h2_stream *h2_stream_new(struct h2 *h, void *user)
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

void h2_stream_release(struct h2_stream *s)
{
    if (s->held_out != NULL) {
        h2_block_unref(s->held_out);
        s->held_out = NULL;
    }
}

static void stream_free(struct h2 *h, struct h2_stream *s)
{
    if (h->recent == s) {
        h->recent = NULL;
    }
    if (h->reading_of == s) {
        h->reading_of = NULL;
    }
    if (s->in_turn) {
        h2_turn_leave(h, s);
    }
    if (s->next != NULL) {
        s->next->prev = s->prev;
    }
    *(s->prev == NULL ? &h->streams : &s->prev->next) = s->next;
    h2_stream_release(s);
    h2_memory_give(h->memory, s);
}

/* Events come in runs of the same stream. */
struct h2_stream *h2_stream_find(struct h2 *h, int32_t id)
{
    struct h2_stream *s = h->recent;
    if (s == NULL || s->id != id) {
        s = nghttp2_session_get_stream_user_data(h->session, id);
        h->recent = s;
    }
    return s;
}

void h2_stream_close(struct h2 *h, struct h2_stream *s, uint32_t code)
{
    if (s->is_shown) {
        h->handler->closed(h, s, code);
    }
    stream_free(h, s);
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

/* nghttp2 only reads what its types would let it write. */
static uint8_t *mutable_of(const uint8_t *data)
{
    const union {
        const uint8_t *in;
        uint8_t *out;
    } u = { .in = data };
    return u.out;
}

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
        nva[i] = (nghttp2_nv){ .name = mutable_of(name.data),
                               .value = mutable_of(f->value.data),
                               .namelen = name.len,
                               .valuelen = f->value.len,
                               .flags = flags };
    }
}

static void hold(struct h2_stream *s, struct h2_block *block)
{
    if (block != NULL) {
        assert(s->held_out == NULL); /* earlier headers have left */
        h2_block_ref(block);
        s->held_out = block;
    }
}

/* NOLINTNEXTLINE(readability-function-size) */
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
    struct h2_stream *s = h2_stream_new(h, user);
    if (s == NULL) {
        return NULL;
    }
    fill(nva, fields, n, block == NULL);
    const lib_content content = { .source.ptr = s,
                                  .read_callback = h2_read_content };
    const int32_t id =
        lib_request(h->session, nva, n, end ? NULL : &content, s);
    if (id < 0) {
        *no_ids = id == NGHTTP2_ERR_STREAM_ID_NOT_AVAILABLE;
        h2_lib_ok(h, id);
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
    const lib_content content = { .source.ptr = s,
                                  .read_callback = h2_read_content };
    if (!h2_lib_ok(h, lib_respond(h->session, s->id, nva, n,
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
    if (!h2_lib_ok(h, nghttp2_submit_trailer(h->session, s->id, nva, n))) {
        return false;
    }
    hold(s, block);
    s->local_end = true;
    return true;
}

void h2_resume(struct h2 *h, struct h2_stream *s)
{
    if (s->is_deferred && !s->local_end && !s->is_reset && !s->in_turn) {
        s->is_deferred = false;
        h2_lib_ok(h, nghttp2_session_resume_data(h->session, s->id));
    }
}

void h2_reset(struct h2 *h, struct h2_stream *s, enum h2_code code)
{
    if (s->is_reset) {
        return; /* a second one might be of a stream that was never opened */
    }
    s->is_reset = true;
    h2_lib_ok(h, nghttp2_submit_rst_stream(h->session, NGHTTP2_FLAG_NONE, s->id,
                                           code));
}

/* The library is told of a sixteenth of a window at a time; it tells the peer
 * when half of one is used up. */
bool h2_credit_stream(struct h2 *h, struct h2_stream *s, size_t n)
{
    s->credit += n;
    if (s->credit < h->stream_credit_step || s->remote_end || s->is_reset) {
        return false;
    }
    const size_t credit = s->credit;
    s->credit = 0;
    h2_lib_ok(h, nghttp2_session_consume_stream(h->session, s->id, credit));
    return true;
}

bool h2_credit_connection(struct h2 *h, size_t n)
{
    assert(h->uncredited >= n);
    h->uncredited -= n;
    h->credit += n;
    if (h->credit < h->credit_step) {
        return false;
    }
    const size_t credit = h->credit;
    h->credit = 0;
    h2_lib_ok(h, nghttp2_session_consume_connection(h->session, credit));
    return true;
}

uint64_t h2_uncredited(const struct h2 *h)
{
    return h->uncredited;
}

void h2_ping(struct h2 *h, uint64_t opaque)
{
    uint8_t bytes[8];
    if (h->notice_waits && h->notice_ping == 0) {
        h->notice_ping = opaque; /* nghttp2 would let it overtake the GOAWAY */
        return;
    }
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)(opaque >> (56 - 8 * i));
    }
    h2_lib_ok(h, nghttp2_submit_ping(h->session, NGHTTP2_FLAG_NONE, bytes));
}

void h2_shutdown_notice(struct h2 *h)
{
    h->notice_waits = true;
    h2_lib_ok(h, nghttp2_submit_shutdown_notice(h->session));
}

void h2_goaway(struct h2 *h, enum h2_code code, const char *text)
{
    const struct span debug = span_of(text);
    const int32_t last = nghttp2_session_get_last_proc_stream_id(h->session);
    h->own_code = code;
    if (last < h->last_request) { /* else what came since has been ignored */
        h->last_request = last;
    }
    h2_lib_ok(h, nghttp2_submit_goaway(h->session, NGHTTP2_FLAG_NONE,
                                       h->last_request, code, debug.data,
                                       debug.len));
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
    for (unsigned type = NGHTTP2_CONTINUATION + 1; type <= UINT8_MAX; type++) {
        nghttp2_option_set_user_recv_extension_type(o, (uint8_t)type);
    }
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
    h2_receive_callbacks(c);
    h2_send_callbacks(c);
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
        .last_request = INT32_MAX,
        .credit_step = options->connection_window / CREDIT_STEPS,
        .stream_credit_step = options->stream_window / CREDIT_STEPS,
    };
    h2_reading_init(&h->reading, h->memory, options->max_header_list_size);
    h2_sieve_init(&h->sieve);
    if (!session_new(h, options) || !say_hello(h, options)) {
        h2_free(h);
        return NULL;
    }
    return h;
}

void h2_free(struct h2 *h)
{
    assert(!h->is_busy);
    if (!h->is_broken) {
        nghttp2_session_del(h->session);
    }
    while (h->streams != NULL) {
        stream_free(h, h->streams);
    }
    h2_reading_fini(&h->reading);
    h2_memory_give(h->memory, h);
}

void *h2_owner(const struct h2 *h)
{
    return h->owner;
}
