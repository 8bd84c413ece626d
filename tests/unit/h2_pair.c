#include "tests/unit/h2_pair.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "parser/h2_memory.h"

const char simple_request[] = ":method: POST\n"
                              ":scheme: http\n"
                              ":path: /s.S/M\n"
                              ":authority: localhost:1\n"
                              "te: trailers\n"
                              "content-type: application/grpc\n";

/* ---- the log ---- */

__attribute__((format(printf, 2, 3))) static void note(struct side *s,
                                                       const char *format,
                                                       ...)
{
    if (s->quiet) {
        return;
    }
    va_list args;
    va_start(args, format);
    const int n =
        vsnprintf(s->log + s->log_len, LOG_BYTES - s->log_len, format, args);
    va_end(args);
    assert(n >= 0 && s->log_len + (size_t)n < LOG_BYTES);
    s->log_len += (size_t)n;
}

bool log_has(const struct side *s, const char *line)
{
    const size_t len = strlen(line);
    for (const char *at = s->log; *at != '\0';) {
        const char *end = strchr(at, '\n');
        if ((size_t)(end - at) == len && memcmp(at, line, len) == 0) {
            return true;
        }
        at = end + 1;
    }
    return false;
}

size_t log_count(const struct side *s, const char *start)
{
    size_t n = 0;
    for (const char *at = s->log; *at != '\0'; at = strchr(at, '\n') + 1) {
        n += strncmp(at, start, strlen(start)) == 0;
    }
    return n;
}

void log_clear(struct side *s)
{
    s->log_len = 0;
    s->log[0] = '\0';
}

/* ---- talks ---- */

static struct side *side_of(struct h2 *h)
{
    return h2_owner(h);
}

static struct talk *talk_new(struct side *s)
{
    for (size_t i = 0; i < TALKS_MAX; i++) {
        struct talk *t = &s->talks[i];
        if (t->stream == NULL && t->block == NULL) {
            *t = (struct talk){ .paused = false };
            return t;
        }
    }
    abort(); /* too many talks */
}

struct talk *talk_of(struct side *s, int32_t id)
{
    for (size_t i = 0; i < TALKS_MAX; i++) {
        if (s->talks[i].stream != NULL && s->talks[i].stream->id == id) {
            return &s->talks[i];
        }
    }
    return NULL;
}

static void talk_end(struct talk *t)
{
    if (t->block != NULL) {
        h2_block_unref(t->block);
    }
    t->block = NULL;
    t->stream = NULL;
}

void talk_credit(struct side *s, struct talk *t)
{
    h2_credit_stream(s->h, t->stream, t->uncredited);
    h2_credit_connection(s->h, t->uncredited);
    s->uncredited -= t->uncredited;
    t->uncredited = 0;
}

size_t fields_of(const char *text, struct h2_field *fields, size_t max)
{
    size_t n = 0;
    for (; *text != '\0'; n++) {
        assert(n < max);
        const bool no_index = *text == '!';
        text += no_index;
        const char *colon = strchr(text + 1, ':');
        const char *end = strchr(colon, '\n');
        fields[n] = (struct h2_field){
            .name = { (const uint8_t *)text, (size_t)(colon - text) },
            .value = { (const uint8_t *)colon + 2, (size_t)(end - colon - 2) },
            .flags =
                (uint8_t)((no_index ? H2_FIELD_NO_INDEX : 0) | H2_FIELD_COPY),
        };
        text = end + 1;
    }
    return n;
}

struct talk *talk_request(struct side *client, const char *text, bool end)
{
    struct h2_field fields[H2_FIELDS_MAX + 16];
    const size_t n = fields_of(text, fields, H2_FIELDS_MAX + 16);
    struct talk *t = talk_new(client);
    bool no_ids = false;
    struct h2_stream *s =
        h2_request(client->h, fields, n, NULL, end, t, &no_ids);
    if (s == NULL) {
        note(client, "no request%s\n", no_ids ? ": no ids" : "");
        return NULL;
    }
    t->stream = s;
    return t;
}

bool talk_respond(struct side *server,
                  struct talk *t,
                  const char *text,
                  bool end)
{
    struct h2_field fields[H2_FIELDS_MAX + 16];
    const size_t n = fields_of(text, fields, H2_FIELDS_MAX + 16);
    return h2_respond(server->h, t->stream, fields, n, NULL, end);
}

/* ---- the handler ---- */

static const char *kind_name(enum h2_headers kind)
{
    return kind == H2_REQUEST    ? "request"
           : kind == H2_RESPONSE ? "response"
                                 : "trailers";
}

static void note_block(struct side *s, const struct h2_block *b)
{
    for (size_t i = 0; i < b->n; i++) {
        const struct h2_field *f = &b->fields[i];
        note(s, " %.*s=%.*s%s", (int)f->name.len, (const char *)f->name.data,
             (int)f->value.len, (const char *)f->value.data,
             (f->flags & H2_FIELD_NO_INDEX) != 0 ? "!" : "");
    }
    note(s, "%s%s", b->too_large ? " (too large)" : "",
         b->too_many ? " (too many)" : "");
    if (b->n_dropped > 0) {
        note(s, " (dropped %d)", b->n_dropped);
    }
}

static void on_headers(struct h2 *h,
                       struct h2_stream *stream,
                       enum h2_headers kind,
                       struct h2_block *block,
                       bool end)
{
    struct side *s = side_of(h);
    struct talk *t = stream->user;
    if (kind == H2_REQUEST) {
        t = talk_new(s);
        t->stream = stream;
        stream->user = t;
    }
    note(s, "%s %d:", kind_name(kind), stream->id);
    note_block(s, block);
    note(s, "%s\n", end ? " end" : "");
    if (t->block != NULL) {
        h2_block_unref(t->block);
    }
    t->block = block;
    if (kind == H2_REQUEST && s->on_request != NULL) {
        s->on_request(s, t);
    }
    if (end && kind == H2_REQUEST && s->on_ended != NULL && t->stream != NULL) {
        s->on_ended(s, t);
    }
}

static void on_data(struct h2 *h, struct h2_stream *stream, struct span bytes)
{
    struct side *s = side_of(h);
    struct talk *t = stream->user;
    for (size_t i = 0; i < bytes.len; i++) {
        t->sum = t->sum * 31 + bytes.data[i];
    }
    t->received += bytes.len;
    t->uncredited += bytes.len;
    s->uncredited += bytes.len;
    if (s->credits) {
        talk_credit(s, t);
    }
}

static void on_ended(struct h2 *h, struct h2_stream *stream)
{
    struct side *s = side_of(h);
    struct talk *t = stream->user;
    note(s, "ended %d content=%" PRIu64 "\n", stream->id, t->received);
    if (s->on_ended != NULL) {
        s->on_ended(s, t);
    }
}

static void on_closed(struct h2 *h, struct h2_stream *stream, uint32_t code)
{
    struct side *s = side_of(h);
    struct talk *t = stream->user;
    note(s, "closed %d %s%s\n", stream->id, h2_code_name(code),
         stream->is_invalid ? " invalid" : "");
    if (t->uncredited > 0) {
        h2_credit_connection(h, t->uncredited);
        s->uncredited -= t->uncredited;
    }
    talk_end(t);
}

static void on_headers_sent(struct h2 *h,
                            struct h2_stream *stream,
                            uint64_t offset,
                            bool end)
{
    struct talk *t = stream->user;
    t->headers_end = offset;
    note(side_of(h), "headers_sent %d%s\n", stream->id, end ? " end" : "");
}

static void on_end_sent(struct h2 *h, struct h2_stream *stream)
{
    struct talk *t = stream->user;
    note(side_of(h), "end_sent %d\n", stream->id);
    if (t->reset_in_end_sent) {
        h2_reset(h, stream, H2_NO_ERROR);
    }
}

static void on_headers_unsent(struct h2 *h,
                              struct h2_stream *stream,
                              enum h2_unsent why)
{
    note(side_of(h), "headers_unsent %d %s\n", stream->id,
         why == H2_UNSENT_GONE        ? "gone"
         : why == H2_UNSENT_TOO_LARGE ? "too large"
                                      : "broken");
}

static size_t on_pull(struct h2 *h,
                      struct h2_stream *stream,
                      size_t max,
                      unsigned *flags)
{
    struct talk *t = stream->user;
    if (t->paused) {
        return 0;
    }
    const size_t left = t->length - t->at;
    const size_t n = left < max ? left : max;
    if (n < left || !t->end) {
        return n;
    }
    if (t->trailers == NULL) {
        *flags = H2_PULL_END;
        return n;
    }
    if (t->trailers_late && left > 0) {
        return n;
    }
    struct h2_field fields[H2_FIELDS_MAX];
    const size_t count = fields_of(t->trailers, fields, H2_FIELDS_MAX);
    if (h2_trailers(h, stream, fields, count, NULL)) {
        *flags = H2_PULL_TRAILERS;
    }
    return n;
}

static void give_out(struct talk *t, uint8_t *out, size_t n)
{
    assert(n <= t->length - t->at);
    for (size_t i = 0; i < n; i++, t->at++) {
        out[i] = (uint8_t)(t->content != NULL ? t->content[t->at]
                                              : 'a' + (int)(t->at % 26));
    }
}

static void on_copy(struct h2 *h,
                    struct h2_stream *stream,
                    uint8_t *out,
                    size_t n)
{
    side_of(h)->copy_calls++;
    give_out(stream->user, out, n);
}

static uint8_t *out_room(struct side *s, size_t n)
{
    if (s->out_len + n > s->out_cap) {
        s->out_cap = 2 * (s->out_len + n);
        s->out = realloc(s->out, s->out_cap);
        assert(s->out != NULL);
    }
    uint8_t *room = s->out + s->out_len;
    s->out_len += n;
    return room;
}

static bool on_pass(struct h2 *h, struct h2_stream *stream, size_t n)
{
    struct side *s = side_of(h);
    s->pass_calls++;
    give_out(stream->user, out_room(s, n), n);
    return true;
}

static bool on_write(struct h2 *h, struct span bytes)
{
    struct side *s = side_of(h);
    if (s->writes_left == 0) {
        return false;
    }
    s->writes_left -= s->writes_left != SIZE_MAX;
    memcpy(out_room(s, bytes.len), bytes.data, bytes.len);
    return true;
}

static void on_settings(struct h2 *h)
{
    note(side_of(h), "settings\n");
}

static void on_settings_acked(struct h2 *h)
{
    note(side_of(h), "settings_acked\n");
}

static void on_ping(struct h2 *h)
{
    note(side_of(h), "ping\n");
}

static void on_pong(struct h2 *h, uint64_t opaque)
{
    note(side_of(h), "pong %" PRIx64 "\n", opaque);
}

static void on_goaway(struct h2 *h,
                      int32_t last_stream,
                      uint32_t code,
                      struct span debug)
{
    note(side_of(h), "goaway %d %s \"%.*s\"\n", last_stream, h2_code_name(code),
         (int)debug.len, (const char *)debug.data);
}

static void on_control(struct h2 *h, bool empty_data)
{
    side_of(h)->controls++;
    side_of(h)->empty_data += empty_data;
}

static void on_rejected(struct h2 *h)
{
    side_of(h)->rejected++;
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
    .settings = on_settings,
    .settings_acked = on_settings_acked,
    .ping = on_ping,
    .pong = on_pong,
    .goaway = on_goaway,
    .control = on_control,
    .rejected = on_rejected,
};

/* ---- the sides ---- */

struct h2_options pair_options(enum h2_role role)
{
    return (struct h2_options){ .role = role,
                                .max_streams = 100,
                                .stream_window = 256 * 1024,
                                .connection_window = 1024 * 1024,
                                .max_header_list_size = 16 * 1024 };
}

static void *side_alloc(void *context, size_t size)
{
    struct side *s = context;
    void *block = failing_alloc(&s->failing, size);
    if (block == NULL && s->fails_once) {
        s->failing.left = SIZE_MAX;
    }
    return block;
}

static void side_free(void *context, void *block)
{
    struct side *s = context;
    failing_free(&s->failing, block);
}

bool side_open(struct side *s, const struct h2_options *options)
{
    const struct side told = *s;
    *s = (struct side){ .failing = told.failing,
                        .fails_once = told.fails_once,
                        .credits = true,
                        .writes_left = SIZE_MAX };
    if (told.failing.left == 0) {
        s->failing.left = SIZE_MAX;
    }
    const struct h2_allocator allocator = { side_alloc, side_free, s };
    s->memory = h2_memory_new(&allocator);
    if (s->memory == NULL) {
        return false;
    }
    struct h2_options all = *options;
    all.handler = &handler;
    all.owner = s;
    all.memory = s->memory;
    s->h = h2_new(&all);
    return s->h != NULL;
}

void side_close(struct side *s)
{
    if (s->h != NULL) {
        h2_free(s->h);
    }
    for (size_t i = 0; i < TALKS_MAX; i++) {
        talk_end(&s->talks[i]); /* blocks may outlive the session */
    }
    if (s->memory != NULL) {
        s->left = h2_memory_used(s->memory);
        /* h2.c leaves a session behind only when this has happened. */
        assert(s->left == 0 || h2_memory_resizes_failed(s->memory) > 0);
        h2_memory_free(s->memory);
    }
    assert(s->failing.live == 0);
    free(s->out);
}

void pair_open_with(struct pair *p,
                    const struct h2_options *client,
                    const struct h2_options *server)
{
    *p = (struct pair){ .piece = 0 };
    const bool ok =
        side_open(&p->client, client) && side_open(&p->server, server);
    assert(ok);
    (void)ok;
    pair_run(p);
    log_clear(&p->client);
    log_clear(&p->server);
}

void pair_open(struct pair *p)
{
    const struct h2_options client = pair_options(H2_CLIENT);
    const struct h2_options server = pair_options(H2_SERVER);
    pair_open_with(p, &client, &server);
}

void pair_close(struct pair *p)
{
    side_close(&p->client);
    side_close(&p->server);
}

void side_discard(struct side *s)
{
    s->out_len = 0;
}

void side_receive(struct side *s, const void *data, size_t len)
{
    const char *error = h2_receive(s->h, (struct span){ data, len });
    if (error != NULL && s->error == NULL) {
        s->error = error;
    }
}

void side_send(struct side *s, size_t limit)
{
    for (;;) {
        const uint64_t before = h2_produced(s->h);
        const char *error = h2_send(s->h, limit == 0 ? SIZE_MAX / 2 : limit);
        if (error != NULL && s->error == NULL) {
            s->error = error;
        }
        if (error != NULL || h2_produced(s->h) == before) {
            return;
        }
    }
}

bool pair_deliver(struct pair *p, struct side *from, struct side *to)
{
    side_send(from, p->limit);
    const size_t len = from->out_len;
    uint8_t *out = from->out;
    from->out = NULL;
    from->out_len = from->out_cap = 0;
    const size_t piece = p->piece == 0 ? len : p->piece;
    for (size_t at = 0; at < len; at += piece) {
        side_receive(to, out + at, len - at < piece ? len - at : piece);
    }
    free(out);
    return len > 0;
}

void pair_run(struct pair *p)
{
    bool more = true;
    while (more) {
        more = pair_deliver(p, &p->client, &p->server);
        more = pair_deliver(p, &p->server, &p->client) || more;
    }
}
