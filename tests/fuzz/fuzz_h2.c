/* A session with a client and one with a server, whose peers and whose owner do
 * whatever the input says: a list of moves, one operation byte each with its
 * arguments. Whatever happens: no crash, no leak; events come in an order that
 * makes sense, for streams that are open; what is promised is sent; the offsets
 * of header blocks are those of the output. */
#include "fuzz.h"
#include "parser/h2.h"

enum {
    TALKS_MAX = 32,
    MOVES_MAX = 500,
    CONTENT_MAX = 200000,
    MEMORY_MAX = 64 * 1024 * 1024,
    HEADER = 16
};

struct party;

/* A stream, as its owner knows it. */
struct talk {
    struct party *party;
    struct h2_stream *stream; /* NULL: this place is free */
    struct h2_block *block;
    size_t left, promised;
    size_t uncredited;
    bool end, trailers; /* how the content ends */
    bool responded, remote_end, local_end, headers_out;
    bool ended; /* END_STREAM or trailers have been submitted */
    bool cut;   /* trailers have taken the place of its content */
};

struct party {
    struct h2 *h;
    enum h2_role role;
    struct talk talks[TALKS_MAX];
    uint64_t written;
    uint64_t last_offset;
    size_t uncredited; /* of the connection */
    bool lost;
};

static struct party server, client;
static struct h2_memory *memory;
static size_t memory_used;
static uint32_t fail_every, allocations;

struct input {
    const uint8_t *data;
    size_t size;
};

static uint8_t next(struct input *in)
{
    if (in->size == 0) {
        return 0;
    }
    in->size--;
    return *in->data++;
}

/* ---- memory ---- */

static void *take(void *context, size_t size)
{
    (void)context;
    if (fail_every != 0 && ++allocations % fail_every == 0) {
        return NULL;
    }
    REQUIRE(memory_used + size <= MEMORY_MAX);
    uint8_t *block = malloc(size + HEADER);
    REQUIRE(block != NULL);
    memcpy(block, &size, sizeof size);
    memory_used += size;
    return block + HEADER;
}

static void give(void *context, void *block)
{
    size_t size = 0;
    (void)context;
    memcpy(&size, (uint8_t *)block - HEADER, sizeof size);
    memory_used -= size;
    free((uint8_t *)block - HEADER);
}

/* ---- events ---- */

static struct talk *talk_of(struct h2 *h, struct h2_stream *s)
{
    struct talk *t = s->user;
    REQUIRE(t != NULL && t->stream == s);
    REQUIRE(t->party == h2_owner(h));
    return t;
}

static struct talk *talk_free(struct party *p)
{
    for (size_t i = 0; i < TALKS_MAX; i++) {
        if (p->talks[i].stream == NULL) {
            p->talks[i] = (struct talk){ .party = p };
            return &p->talks[i];
        }
    }
    return NULL;
}

static void read_block(const struct h2_block *b)
{
    volatile uint8_t sum = 0;
    REQUIRE(b->n <= b->cap && b->n <= H2_FIELDS_MAX);
    for (size_t i = 0; i < b->n; i++) {
        const struct h2_field *f = &b->fields[i];
        REQUIRE(f->id < H2_NAME_COUNT && f->name.len > 0);
        for (size_t k = 0; k < f->name.len; k++) {
            REQUIRE(f->name.data[k] > ' ' && f->name.data[k] < 0x7f);
        }
        for (size_t k = 0; k < f->value.len; k++) {
            const uint8_t c = f->value.data[k];
            REQUIRE((c >= ' ' || c == '\t') && c != 0x7f);
            sum = (uint8_t)(sum + c);
        }
    }
    for (size_t id = 1; id < H2_NAME_COUNT; id++) {
        REQUIRE(b->first[id] <= b->n);
        REQUIRE(b->first[id] == 0 || b->fields[b->first[id] - 1].id == id);
    }
}

static void on_headers(struct h2 *h,
                       struct h2_stream *s,
                       enum h2_headers kind,
                       struct h2_block *block,
                       bool end)
{
    struct party *p = h2_owner(h);
    struct talk *t = NULL;
    read_block(block);
    if (kind == H2_REQUEST) {
        REQUIRE(p->role == H2_SERVER && s->user == NULL);
        REQUIRE(block->too_large || block->first[H2_PATH] != 0);
        t = talk_free(p);
        if (t == NULL) {
            h2_block_unref(block);
            h2_reset(h, s, H2_REFUSED_STREAM);
            return;
        }
        t->stream = s;
        s->user = t;
    } else {
        REQUIRE(p->role == H2_CLIENT);
        t = talk_of(h, s);
        REQUIRE(!t->remote_end && t->responded == (kind == H2_TRAILERS));
        t->responded = true;
    }
    REQUIRE(kind != H2_TRAILERS || end);
    t->remote_end = end;
    if (t->block != NULL) {
        h2_block_unref(t->block);
    }
    t->block = block;
}

static void on_data(struct h2 *h, struct h2_stream *s, struct span bytes)
{
    struct party *p = h2_owner(h);
    if (s->user == NULL) { /* refused */
        h2_credit_connection(h, bytes.len);
        return;
    }
    struct talk *t = talk_of(h, s);
    REQUIRE(!t->remote_end && bytes.len > 0);
    REQUIRE(p->role == H2_SERVER || t->responded);
    t->uncredited += bytes.len;
    p->uncredited += bytes.len;
}

static void on_ended(struct h2 *h, struct h2_stream *s)
{
    if (s->user != NULL) {
        struct talk *t = talk_of(h, s);
        REQUIRE(!t->remote_end);
        t->remote_end = true;
    }
}

static void talk_end(struct talk *t)
{
    if (t->block != NULL) {
        h2_block_unref(t->block);
    }
    t->block = NULL;
    t->stream = NULL;
}

static void on_closed(struct h2 *h, struct h2_stream *s, uint32_t code)
{
    (void)code;
    if (s->user != NULL) {
        talk_end(talk_of(h, s));
    }
}

static void on_headers_sent(struct h2 *h,
                            struct h2_stream *s,
                            uint64_t offset,
                            bool end)
{
    struct party *p = h2_owner(h);
    struct talk *t = talk_of(h, s);
    REQUIRE(offset == p->written && offset > p->last_offset);
    REQUIRE(!t->local_end && (end || !t->headers_out));
    p->last_offset = offset;
    t->headers_out = true;
}

static void on_end_sent(struct h2 *h, struct h2_stream *s)
{
    struct talk *t = talk_of(h, s);
    REQUIRE(!t->local_end && t->headers_out);
    t->local_end = true;
    if (t->party->role == H2_SERVER && !t->remote_end) {
        h2_reset(h, s, H2_NO_ERROR);
    }
}

static void on_unsent(struct h2 *h, struct h2_stream *s, enum h2_unsent why)
{
    (void)why;
    if (s->user != NULL) {
        REQUIRE(!talk_of(h, s)->local_end);
    }
}

static const struct h2_field status_field = {
    .name = { (const uint8_t *)"grpc-status", 11 },
    .value = { (const uint8_t *)"0", 1 },
    .id = H2_GRPC_STATUS,
};

static size_t on_pull(struct h2 *h,
                      struct h2_stream *s,
                      size_t max,
                      unsigned *flags)
{
    struct talk *t = talk_of(h, s);
    REQUIRE(max > 0 && t->promised == 0 && !t->local_end && t->headers_out);
    REQUIRE(!t->cut);
    const size_t n = t->left < max ? t->left : max;
    if (n == t->left && t->end) {
        if (!t->trailers) {
            *flags = H2_PULL_END;
        } else if (h2_trailers(h, s, &status_field, 1, t->block)) {
            *flags = H2_PULL_TRAILERS;
        }
        t->ended = *flags != 0;
    }
    t->left -= n;
    t->promised = n;
    return n;
}

static void on_copy(struct h2 *h, struct h2_stream *s, uint8_t *out, size_t n)
{
    struct talk *t = talk_of(h, s);
    REQUIRE(t->promised == n);
    t->promised = 0;
    memset(out, 'c', n);
}

static bool on_pass(struct h2 *h, struct h2_stream *s, size_t n)
{
    struct talk *t = talk_of(h, s);
    REQUIRE(t->promised == n && n > 0);
    t->promised = 0;
    t->party->written += n;
    return true;
}

static bool on_write(struct h2 *h, struct span bytes)
{
    struct party *p = h2_owner(h);
    volatile uint8_t sum = 0;
    for (size_t i = 0; i < bytes.len; i++) {
        sum = (uint8_t)(sum + bytes.data[i]);
    }
    p->written += bytes.len;
    return true;
}

static void nothing(struct h2 *h)
{
    (void)h;
}

static void on_pong(struct h2 *h, uint64_t opaque)
{
    (void)h;
    (void)opaque;
}

static void on_goaway(struct h2 *h, int32_t last, uint32_t code, struct span d)
{
    volatile uint8_t sum = 0;
    (void)h;
    (void)last;
    (void)code;
    for (size_t i = 0; i < d.len; i++) {
        sum = (uint8_t)(sum + d.data[i]);
    }
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
    .headers_unsent = on_unsent,
    .pull = on_pull,
    .copy = on_copy,
    .pass = on_pass,
    .write = on_write,
    .settings = nothing,
    .settings_acked = nothing,
    .ping = nothing,
    .pong = on_pong,
    .goaway = on_goaway,
    .control = on_control,
};

/* ---- what the peers send ---- */

static void receive(struct party *p, const uint8_t *data, size_t size)
{
    /* A copy of its own, so that reading beyond it is seen. */
    uint8_t *copy = malloc(size + 1);
    REQUIRE(copy != NULL);
    memcpy(copy, data, size);
    const char *error = h2_receive(p->h, (struct span){ copy, size });
    p->lost = p->lost || error != NULL;
    free(copy);
}

static void receive_some(struct party *p, struct input *in, size_t size)
{
    if (size > in->size) {
        size = in->size;
    }
    receive(p, in->data, size);
    in->data += size;
    in->size -= size;
}

static void receive_head(struct party *p, const uint8_t head[4], size_t size)
{
    const uint8_t bytes[] = { 0,
                              (uint8_t)(size >> 8),
                              (uint8_t)size,
                              head[0],
                              head[1],
                              0,
                              0,
                              head[2],
                              head[3] };
    receive(p, bytes, sizeof bytes);
}

static void receive_frame(struct party *p, struct input *in)
{
    uint8_t head[5];
    for (size_t i = 0; i < sizeof head; i++) {
        head[i] = next(in);
    }
    head[2] = 0;
    const size_t size = head[4] < in->size ? head[4] : in->size;
    receive_head(p, head, size);
    receive_some(p, in, size);
}

/* A block that is right, with one more field from the input. */
static void receive_headers(struct party *p, struct input *in)
{
    /* :method POST, :scheme http, :path /; or :status 200 */
    static const uint8_t request[] = { 0x83, 0x86, 0x84 };
    static const uint8_t response[] = { 0x88 };
    const bool is_request = p->role == H2_SERVER;
    const uint8_t how = next(in);
    const uint8_t stream = next(in) | 1;
    size_t size = (how & 0x02) != 0 ? next(in) % 64 : 0;
    size = size < in->size ? size : in->size;
    const size_t start = (how & 0x04) != 0 ? 0
                         : is_request      ? sizeof request
                                           : sizeof response;
    const uint8_t head[] = { 1, (uint8_t)(4 | (how & 1)), 0, stream };
    receive_head(p, head, start + size);
    receive(p, is_request ? request : response, start);
    receive_some(p, in, size);
}

/* ---- what the owner does ---- */

static struct talk *choose(struct party *p, struct input *in)
{
    struct talk *t = &p->talks[next(in) % TALKS_MAX];
    return t->stream == NULL ? NULL : t;
}

static void make_request(struct party *p, struct input *in)
{
    struct talk *t = talk_free(p);
    if (p->role != H2_CLIENT || t == NULL || p->lost) {
        return;
    }
    const uint8_t how = next(in);
    struct h2_field fields[] = {
        { { (const uint8_t *)":method", 7 },
          { (const uint8_t *)"POST", 4 },
          H2_METHOD,
          0 },
        { { (const uint8_t *)":path", 5 },
          { (const uint8_t *)"/a/b", 4 },
          H2_PATH,
          H2_FIELD_COPY },
        { { (const uint8_t *)"x", 1 },
          { in->data, in->size < how ? in->size : how },
          H2_OTHER,
          H2_FIELD_COPY | H2_FIELD_NO_INDEX },
    };
    bool no_ids = false;
    t->left = (size_t)how * (CONTENT_MAX / 256);
    t->end = (how & 1) != 0;
    struct h2_block *block = p->talks[0].block;
    t->stream = h2_request(p->h, fields, 2 + (size_t)(how > 128), block,
                           (how & 2) != 0, t, &no_ids);
}

static void respond(struct party *p, struct input *in)
{
    struct talk *t = choose(p, in);
    if (p->role != H2_SERVER || t == NULL || t->responded || p->lost) {
        return;
    }
    static const struct h2_field status = {
        .name = { (const uint8_t *)":status", 7 },
        .value = { (const uint8_t *)"200", 3 },
        .id = H2_STATUS,
    };
    const uint8_t how = next(in);
    t->left = (size_t)how * (CONTENT_MAX / 256);
    t->end = (how & 1) != 0;
    t->trailers = (how & 2) != 0;
    t->responded = true;
    t->ended = (how & 4) != 0;
    if (!h2_respond(p->h, t->stream, &status, 1, t->block, (how & 4) != 0)) {
        h2_reset(p->h, t->stream, H2_INTERNAL_ERROR);
    }
}

/* Trailers instead of what has not left (Z3). */
static void cut(struct party *p, struct input *in)
{
    struct talk *t = choose(p, in);
    if (p->role == H2_SERVER && t != NULL && t->responded && !t->ended &&
        !t->cut && !p->lost) {
        t->cut = h2_trailers(p->h, t->stream, &status_field, 1, NULL);
    }
}

static void go_on(struct party *p, struct input *in)
{
    struct talk *t = choose(p, in);
    if (t != NULL) {
        t->end = t->end || (next(in) & 1) != 0;
        t->left += t->left < CONTENT_MAX ? (size_t)next(in) * 500 : 0;
        h2_resume(p->h, t->stream);
    }
}

static void credit(struct party *p, struct input *in)
{
    struct talk *t = choose(p, in);
    if (t != NULL) {
        h2_credit_stream(p->h, t->stream, t->uncredited);
        t->uncredited = 0;
    }
    h2_credit_connection(p->h, p->uncredited);
    p->uncredited = 0;
}

static void produce(struct party *p, struct input *in)
{
    const char *error = h2_send(p->h, (size_t)next(in) * 1000 + 1);
    p->lost = p->lost || error != NULL;
    REQUIRE(p->lost || h2_produced(p->h) == p->written);
}

static void connection_thing(struct party *p, struct input *in)
{
    switch (next(in) % 5) {
    case 0: h2_ping(p->h, 7); break;
    case 1: h2_shutdown_notice(p->h); break;
    case 2: h2_goaway(p->h, H2_NO_ERROR, "bye"); break;
    case 3: h2_terminate(p->h, H2_ENHANCE_YOUR_CALM, "too_many"); break;
    default:
        (void)h2_is_over(p->h);
        (void)h2_wants_send(p->h);
        (void)h2_next_id(p->h);
        break;
    }
}

static void move(struct input *in)
{
    const uint8_t op = next(in);
    struct party *p = (op & 0x80) != 0 ? &client : &server;
    struct talk *t = NULL;
    switch (op & 0x0f) {
    case 0: receive_frame(p, in); break;
    case 1: receive_some(p, in, next(in)); break;
    case 2: receive_headers(p, in); break;
    case 3: make_request(p, in); break;
    case 4: respond(p, in); break;
    case 5: go_on(p, in); break;
    case 6:
        t = choose(p, in);
        if (t != NULL) {
            h2_reset(p->h, t->stream, H2_CANCEL);
        }
        break;
    case 7: credit(p, in); break;
    case 8: connection_thing(p, in); break;
    case 9: cut(p, in); break;
    default: produce(p, in); break;
    }
}

/* ---- the whole ---- */

static bool party_open(struct party *p, enum h2_role role, uint8_t how)
{
    static const uint8_t hello[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
                                   "\0\0\0\4\0\0\0\0\0";
    /* INITIAL_WINDOW_SIZE and WINDOW_UPDATE: 1 MiB */
    static const uint8_t windows[] = "\0\0\6\4\0\0\0\0\0\0\4\0\20\0\0"
                                     "\0\0\4\10\0\0\0\0\0\0\20\0\0";
    *p = (struct party){ .role = role };
    p->h = h2_new(&(struct h2_options){
        .role = role,
        .handler = &handler,
        .owner = p,
        .memory = memory,
        .max_streams = 20,
        .stream_window = (how & 1) != 0 ? 1000 : 65535,
        .connection_window = (how & 2) != 0 ? 65535 : 1024 * 1024,
        .max_header_list_size = (how & 4) != 0 ? 300 : 8192 });
    if (p->h == NULL) {
        return false;
    }
    const size_t magic = role == H2_SERVER ? 0 : 24;
    if ((how & 8) == 0) {
        receive(p, hello + magic, sizeof hello - 1 - magic);
        if ((how & 2) == 0) {
            receive(p, windows, sizeof windows - 1);
        }
    }
    return true;
}

static void party_close(struct party *p)
{
    if (p->h != NULL) {
        h2_free(p->h);
    }
    for (size_t i = 0; i < TALKS_MAX; i++) {
        talk_end(&p->talks[i]);
    }
    p->h = NULL;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = { data, size };
    const struct h2_allocator allocator = { take, give, NULL };
    fail_every = 0;
    const uint8_t how = next(&in);
    memory = h2_memory_new(&allocator);
    REQUIRE(memory != NULL);
    server.h = client.h = NULL;
    if (party_open(&server, H2_SERVER, how) &&
        party_open(&client, H2_CLIENT, (uint8_t)(how >> 4))) {
        const uint8_t fails = next(&in);
        fail_every = fails < 128 ? 0 : (uint32_t)fails - 120;
        for (size_t i = 0; i < MOVES_MAX && in.size > 0; i++) {
            move(&in);
        }
    }
    party_close(&server);
    party_close(&client);
    h2_memory_free(memory);
    REQUIRE(memory_used == 0);
    return 0;
}
