#include "tests/trace/grpc_peer.h"

#include <stdio.h>
#include <stdlib.h>

#include "tests/trace/script.h"

enum {
    DEFAULTS_MAX = 6,
    GOAWAY_HEAD = 9 + 8,
};

/* --- what has arrived -------------------------------------------------- */

static struct sight *sight_add(struct grpc_peer *p,
                               enum piece_kind kind,
                               unsigned stream)
{
    if (p->n_sights == p->sights_cap) {
        p->sights_cap = p->sights_cap * 2 + 16;
        p->sights = must_grow(p->sights, p->sights_cap * sizeof *p->sights);
    }
    struct sight *s = &p->sights[p->n_sights++];
    *s = (struct sight){ .kind = kind, .stream = stream };
    return s;
}

struct sight *peer_sight(struct grpc_peer *p, unsigned stream)
{
    for (size_t i = 0; i < p->n_sights; i++) {
        if (p->sights[i].stream == stream) {
            return &p->sights[i];
        }
    }
    return NULL;
}

void peer_sight_drop(struct grpc_peer *p, struct sight *s)
{
    if (s->block != NULL) {
        h2_block_unref(s->block);
    }
    bytes_fini(&s->data);
    size_t behind = p->n_sights - 1 - (size_t)(s - p->sights);
    memmove(s, s + 1, behind * sizeof *s);
    p->n_sights--;
}

/* Content goes on where it ended. */
static struct sight *data_sight(struct grpc_peer *p, unsigned stream)
{
    for (size_t i = p->n_sights; i > 0; i--) {
        struct sight *s = &p->sights[i - 1];
        if (s->stream == stream) {
            return s->kind == PIECE_DATA ? s : sight_add(p, PIECE_DATA, stream);
        }
    }
    return sight_add(p, PIECE_DATA, stream);
}

void sight_print(const struct sight *s, struct bytes *out)
{
    static const char *const names[] = {
        [PIECE_REQUEST] = "a request",
        [PIECE_HEADERS] = "headers",
        [PIECE_TRAILERS_ONLY] = "trailers-only",
        [PIECE_TRAILERS] = "trailers",
        [PIECE_DATA] = "data",
        [PIECE_END] = "end",
        [PIECE_RESET] = "rst",
        [PIECE_GOAWAY] = "goaway",
        [PIECE_PING] = "ping",
        [PIECE_PONG] = "pong",
    };
    bytes_add_text(out, names[s->kind]);
    if (s->kind == PIECE_GOAWAY) {
        bytes_printf(out, " last=%lld", (long long)s->last);
    }
    if (s->kind == PIECE_RESET || s->kind == PIECE_GOAWAY) {
        bytes_printf(out, " %s", h2_code_name(s->code));
    }
    for (uint16_t i = 0; s->block != NULL && i < s->block->n; i++) {
        const struct h2_field *f = &s->block->fields[i];
        bytes_printf(out, " %.*s=\"%.*s\"", (int)(f->name.len % 100),
                     (const char *)f->name.data,
                     f->value.len > 200 ? 200 : (int)f->value.len,
                     (const char *)f->value.data);
    }
    if (s->data.size > 0) {
        size_t n = s->data.size > 80 ? 80 : s->data.size;
        bytes_printf(out, " (%zu bytes) \"", s->data.size);
        for (size_t i = 0; i < n; i++) {
            uint8_t c = bytes_front(&s->data)[i];
            bytes_printf(out, c >= ' ' && c < 127 ? "%c" : "\\x%02x", c);
        }
        bytes_add_text(out, "\"");
    }
    bytes_add_text(out, "\n");
}

/* --- the handler ------------------------------------------------------- */

static unsigned number_of(const struct h2_stream *s)
{
    const struct peer_stream *st = s->user;
    return st->number;
}

static struct peer_stream *stream_new(struct grpc_peer *p, unsigned number)
{
    if (p->n_streams == STREAMS_MAX) {
        abort();
    }
    struct peer_stream *st = &p->streams[p->n_streams++];
    *st = (struct peer_stream){ .number = number };
    return st;
}

static void on_headers(struct h2 *h,
                       struct h2_stream *s,
                       enum h2_headers kind,
                       struct h2_block *block,
                       bool end)
{
    struct grpc_peer *p = h2_owner(h);
    enum piece_kind seen = PIECE_TRAILERS;
    if (kind == H2_REQUEST) {
        struct peer_stream *st = stream_new(p, (unsigned)p->n_streams + 1);
        st->stream = s;
        s->user = st;
        seen = PIECE_REQUEST;
    } else if (kind == H2_RESPONSE) {
        seen = end ? PIECE_TRAILERS_ONLY : PIECE_HEADERS;
    }
    sight_add(p, seen, number_of(s))->block = block;
    if (kind == H2_REQUEST && end) {
        sight_add(p, PIECE_END, number_of(s));
    }
}

static void on_data(struct h2 *h, struct h2_stream *s, struct span bytes)
{
    struct grpc_peer *p = h2_owner(h);
    struct peer_stream *st = s->user;
    bytes_add(&data_sight(p, st->number)->data, bytes.data, bytes.len);
    h2_credit_connection(h, bytes.len);
    if (p->stingy) {
        st->owed += bytes.len;
    } else {
        h2_credit_stream(h, s, bytes.len);
    }
}

static void on_ended(struct h2 *h, struct h2_stream *s)
{
    sight_add(h2_owner(h), PIECE_END, number_of(s));
}

static void on_closed(struct h2 *h, struct h2_stream *s, uint32_t code)
{
    struct grpc_peer *p = h2_owner(h);
    struct peer_stream *st = s->user;
    bool whole = s->local_end && s->remote_end && code == H2_NO_ERROR;
    if (s->is_invalid) {
        p->wrong = "redial broke the rules of HTTP/2 on a stream";
    }
    if (!whole && !st->was_reset) {
        sight_add(p, PIECE_RESET, st->number)->code = code;
    }
    st->stream = NULL;
}

static size_t on_pull(struct h2 *h,
                      struct h2_stream *s,
                      size_t max,
                      unsigned *flags);

static void on_copy(struct h2 *h, struct h2_stream *s, uint8_t *out, size_t n)
{
    struct peer_stream *st = s->user;
    (void)h;
    if (n > 0) {
        memcpy(out, bytes_front(&st->out), n);
        bytes_drop(&st->out, n);
    }
}

static bool on_pass(struct h2 *h, struct h2_stream *s, size_t n)
{
    struct grpc_peer *p = h2_owner(h);
    struct peer_stream *st = s->user;
    bytes_add(&p->out, bytes_front(&st->out), n);
    bytes_drop(&st->out, n);
    return true;
}

static bool on_write(struct h2 *h, struct span bytes)
{
    struct grpc_peer *p = h2_owner(h);
    bytes_add(&p->out, bytes.data, bytes.len);
    return true;
}

static void on_headers_sent(struct h2 *h,
                            struct h2_stream *s,
                            uint64_t offset,
                            bool end)
{
    (void)h;
    (void)s;
    (void)offset;
    (void)end;
}

static void on_end_sent(struct h2 *h, struct h2_stream *s)
{
    (void)h;
    (void)s;
}

static void on_headers_unsent(struct h2 *h,
                              struct h2_stream *s,
                              enum h2_unsent why)
{
    (void)h;
    (void)s;
    (void)why;
}

static void on_nothing(struct h2 *h)
{
    (void)h;
}

static void on_ping(struct h2 *h)
{
    sight_add(h2_owner(h), PIECE_PING, 0);
}

static void on_pong(struct h2 *h, uint64_t opaque)
{
    (void)opaque;
    sight_add(h2_owner(h), PIECE_PONG, 0);
}

static void on_goaway(struct h2 *h,
                      int32_t last_stream,
                      uint32_t code,
                      struct span debug)
{
    struct sight *s = sight_add(h2_owner(h), PIECE_GOAWAY, 0);
    s->code = code;
    s->last = last_stream == INT32_MAX ? INT64_MAX : (last_stream + 1) / 2;
    bytes_add(&s->data, debug.data, debug.len);
}

static void on_control(struct h2 *h, bool empty_data)
{
    (void)h;
    (void)empty_data;
}

static const struct h2_handler handler = {
    .headers = on_headers,
    .data = on_data,
    .ended = on_ended,
    .closed = on_closed,
    .headers_sent = on_headers_sent,
    .end_sent = on_end_sent,
    .headers_unsent = on_headers_unsent,
    .pull = on_pull,
    .copy = on_copy,
    .pass = on_pass,
    .write = on_write,
    .settings = on_nothing,
    .settings_acked = on_nothing,
    .ping = on_ping,
    .pong = on_pong,
    .goaway = on_goaway,
    .control = on_control,
};

/* --- life -------------------------------------------------------------- */

bool peer_options_read(const char *words, struct peer_options *out)
{
    char word[WORD_MAX];
    out->max_streams = 100;
    out->window = 65535;
    out->header_list = 16384;
    while (word_next(&words, word)) {
        const char *equals = strchr(word, '=');
        uint32_t number =
            equals == NULL ? 0 : (uint32_t)strtoul(equals + 1, NULL, 10);
        if (strcmp(word, "stingy") == 0) {
            out->stingy = true;
        } else if (strcmp(word, "mute") == 0) {
            out->mute = true;
        } else if (strncmp(word, "max_streams=", 12) == 0) {
            out->max_streams = number;
        } else if (strncmp(word, "window=", 7) == 0) {
            out->window = number;
        } else if (strncmp(word, "header_list=", 12) == 0) {
            out->header_list = number;
        } else {
            return false;
        }
    }
    return true;
}

struct grpc_peer *peer_new(const struct peer_options *o, struct h2_memory *m)
{
    struct grpc_peer *p = must_alloc(sizeof *p);
    p->is_client = o->is_client;
    p->stingy = o->stingy;
    p->mute = o->mute;
    const struct h2_options options = {
        .role = o->is_client ? H2_CLIENT : H2_SERVER,
        .handler = &handler,
        .owner = p,
        .memory = m,
        .max_streams = o->max_streams,
        .stream_window = o->window,
        .connection_window = 1 << 20,
        .max_header_list_size = o->header_list,
    };
    p->h2 = h2_new(&options);
    return p;
}

void peer_free(struct grpc_peer *p)
{
    h2_free(p->h2);
    while (p->n_sights > 0) {
        peer_sight_drop(p, &p->sights[p->n_sights - 1]);
    }
    for (size_t i = 0; i < p->n_streams; i++) {
        bytes_fini(&p->streams[i].out);
        pieces_fini(&p->streams[i].trailers);
    }
    free(p->sights);
    bytes_fini(&p->out);
    free(p);
}

void peer_receive(struct grpc_peer *p, struct span bytes)
{
    const char *error = h2_receive(p->h2, bytes);
    if (p->wrong == NULL) {
        p->wrong = error;
    }
}

void peer_flush(struct grpc_peer *p)
{
    const char *error = h2_send(p->h2, SIZE_MAX / 2);
    if (p->wrong == NULL) {
        p->wrong = error != NULL ? error : h2_complaint(p->h2);
    }
}

/* --- saying ------------------------------------------------------------ */

static struct peer_stream *stream_find(struct grpc_peer *p, unsigned number)
{
    for (size_t i = 0; i < p->n_streams; i++) {
        if (p->streams[i].number == number) {
            return &p->streams[i];
        }
    }
    return NULL;
}

struct fields {
    struct h2_field of[FIELDS_MAX + DEFAULTS_MAX];
    size_t n;
};

static bool is_said(const struct piece *piece, const char *name)
{
    for (size_t i = 0; i < piece->n_fields; i++) {
        if (span_equal(bytes_span(&piece->fields[i].name), span_of(name))) {
            return true;
        }
    }
    return false;
}

static void field_put(struct fields *out, struct span name, struct span value)
{
    out->of[out->n++] = (struct h2_field){ .name = name,
                                           .value = value,
                                           .flags = H2_FIELD_COPY };
}

/* What is not said is as usual. Pseudo-headers come first. */
static void fields_of(const struct piece *piece, struct fields *out)
{
    static const struct {
        const char *name, *value;
        bool request;
    } usual[DEFAULTS_MAX] = { { ":method", "POST", true },
                              { ":scheme", "http", true },
                              { ":authority", "svc.test", true },
                              { ":status", "200", false },
                              { "te", "trailers", true },
                              { "content-type", "application/grpc", false } };
    bool request = piece->kind == PIECE_REQUEST;
    out->n = 0;
    for (unsigned round = 0; round < 2; round++) {
        bool pseudo = round == 0;
        for (size_t i = 0; i < DEFAULTS_MAX; i++) {
            bool fits = i == DEFAULTS_MAX - 1 || usual[i].request == request;
            if (fits && piece->kind != PIECE_TRAILERS &&
                (usual[i].name[0] == ':') == pseudo &&
                !is_said(piece, usual[i].name)) {
                field_put(out, span_of(usual[i].name), span_of(usual[i].value));
            }
        }
        for (size_t i = 0; i < piece->n_fields; i++) {
            const struct field_text *f = &piece->fields[i];
            if (!f->absent && (bytes_front(&f->name)[0] == ':') == pseudo) {
                struct span value = bytes_span(&f->value);
                field_put(out, bytes_span(&f->name),
                          value.data == NULL ? span_of("") : value);
            }
        }
    }
}

static size_t on_pull(struct h2 *h,
                      struct h2_stream *s,
                      size_t max,
                      unsigned *flags)
{
    struct peer_stream *st = s->user;
    size_t n = st->out.size < max ? st->out.size : max;
    if (n < st->out.size || !(st->ends || st->has_trailers)) {
        return n;
    }
    *flags = H2_PULL_END;
    if (st->has_trailers) {
        struct fields f;
        fields_of(&st->trailers.of[0], &f);
        if (!h2_trailers(h, s, f.of, f.n, NULL)) {
            abort();
        }
        *flags = H2_PULL_TRAILERS;
    }
    return n;
}

/* Streams of a server are those with odd ids. */
static void say_goaway(struct grpc_peer *p, const struct piece *piece)
{
    uint8_t frame[GOAWAY_HEAD] = { [3] = 7 };
    uint64_t streams = piece->last < 0 ? p->n_streams : (uint64_t)piece->last;
    uint32_t last = piece->last == INT64_MAX ? INT32_MAX
                    : streams == 0           ? 0
                                             : (uint32_t)(2 * streams - 1);
    size_t length = 8 + piece->data.size;
    for (unsigned i = 0; i < 4; i++) {
        frame[9 + i] = (uint8_t)(last >> (24 - 8 * i));
        frame[13 + i] = (uint8_t)(piece->code >> (24 - 8 * i));
    }
    frame[1] = (uint8_t)(length >> 8);
    frame[2] = (uint8_t)length;
    peer_flush(p);
    bytes_add(&p->out, frame, sizeof frame);
    bytes_add(&p->out, bytes_front(&piece->data), piece->data.size);
}

static const char *say_of_connection(struct grpc_peer *p,
                                     const struct piece *piece)
{
    if (piece->kind == PIECE_PING) {
        h2_ping(p->h2, 42);
    } else if (piece->kind == PIECE_GOAWAY) {
        say_goaway(p, piece);
    } else {
        return "which stream?";
    }
    return NULL;
}

static const char *say_headers(struct grpc_peer *p,
                               struct peer_stream *st,
                               const struct piece *piece,
                               bool end)
{
    struct fields f;
    bool no_ids = false;
    fields_of(piece, &f);
    if (piece->kind == PIECE_REQUEST) {
        st->stream = h2_request(p->h2, f.of, f.n, NULL, end, st, &no_ids);
    } else if (!h2_respond(p->h2, st->stream, f.of, f.n, NULL,
                           piece->kind == PIECE_TRAILERS_ONLY)) {
        return "no memory for headers";
    }
    return st->stream == NULL ? "no stream" : NULL;
}

/* One piece on an open stream. */
static const char *say_piece(struct grpc_peer *p,
                             struct peer_stream *st,
                             struct piece *piece,
                             const struct piece *next)
{
    if (st->stream == NULL && piece->kind != PIECE_REQUEST) {
        return "this stream is over";
    }
    switch (piece->kind) {
    case PIECE_REQUEST:
    case PIECE_HEADERS:
    case PIECE_TRAILERS_ONLY:
        return say_headers(p, st, piece,
                           next != NULL && next->kind == PIECE_END);
    case PIECE_DATA:
        bytes_add(&st->out, bytes_front(&piece->data), piece->data.size);
        break;
    case PIECE_END: st->ends = true; break;
    case PIECE_TRAILERS:
        st->trailers.of[0] = *piece;
        st->trailers.n = 1;
        st->has_trailers = true;
        piece->fields = NULL;
        piece->n_fields = 0;
        break;
    case PIECE_RESET:
        peer_flush(p); /* what was said before leaves before */
        st->was_reset = true;
        h2_reset(p->h2, st->stream, (enum h2_code)piece->code);
        return NULL;
    case PIECE_GOAWAY:
    case PIECE_PING:
    case PIECE_PONG: return "this is not about a stream";
    }
    h2_resume(p->h2, st->stream);
    return NULL;
}

const char *peer_say(struct grpc_peer *p,
                     unsigned stream,
                     struct pieces *pieces)
{
    struct peer_stream *st = stream_find(p, stream);
    const char *wrong = NULL;
    if (stream > 0 && st == NULL &&
        (!p->is_client || pieces->of[0].kind != PIECE_REQUEST)) {
        return "there is no such stream";
    }
    if (stream > 0 && st == NULL) {
        st = stream_new(p, stream);
    }
    for (size_t i = 0; i < pieces->n && wrong == NULL; i++) {
        struct piece *piece = &pieces->of[i];
        wrong = stream == 0 ? say_of_connection(p, piece)
                            : say_piece(p, st, piece,
                                        i + 1 < pieces->n ? piece + 1 : NULL);
    }
    peer_flush(p);
    return wrong;
}

const char *peer_credit(struct grpc_peer *p, unsigned stream)
{
    struct peer_stream *st = stream_find(p, stream);
    if (st == NULL || st->stream == NULL) {
        return "there is no such open stream";
    }
    h2_credit_stream(p->h2, st->stream, st->owed);
    st->owed = 0;
    peer_flush(p);
    return NULL;
}
