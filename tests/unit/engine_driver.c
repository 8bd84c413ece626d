#include "engine_driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "engine_talk.h"
#include "parser/resp_command.h"
#include "proxy/core/state.h"

enum {
    EARLIEST_US = 1000000, /* the clock does not begin at 0 */
    STEPS_WITHOUT_TIME_MAX = 1000,
    ROUNDS_MAX = 10000,
};

/* ---- memory --------------------------------------------------------------- */

static void *driver_alloc(void *context, size_t size)
{
    struct driver *d = context;
    if (d->starving) {
        return NULL;
    }
    size_t call = d->memory.calls + 1;
    bool fails = d->fail_at > 0 &&
                 (call == d->fail_at || (d->fail_on && call > d->fail_at));
    d->memory.left = fails ? 0 : SIZE_MAX;
    return failing_alloc(&d->memory, size);
}

static void driver_free(void *context, void *block)
{
    struct driver *d = context;
    failing_free(&d->memory, block);
}

/* Take what is in the engine's free lists: they would hide that it needs
 * memory. */
static void starve(struct driver *d)
{
    struct segment *s;
    struct starved *r;
    d->starving = true;
    while ((s = memory_take_segment(d->engine->memory)) != NULL) {
        s->next = d->segments;
        d->segments = s;
    }
    for (unsigned i = 0; i < d->spare && d->segments != NULL; i++) {
        s = d->segments;
        d->segments = s->next;
        memory_give_segment(d->engine->memory, s);
    }
    while ((r = pool_take(&d->engine->requests)) != NULL) {
        r->next = d->requests;
        d->requests = r;
    }
    d->starving = false;
}

static void feed(struct driver *d)
{
    while (d->segments != NULL) {
        struct segment *s = d->segments;
        d->segments = s->next;
        memory_give_segment(d->engine->memory, s);
    }
    while (d->requests != NULL) {
        struct starved *r = d->requests;
        d->requests = r->next;
        pool_give(&d->engine->requests, r);
    }
}

/* ---- peers ------------------------------------------------------------------ */

static void peer_fini(struct peer *p)
{
    bytes_fini(&p->unread);
    bytes_fini(&p->arriving);
    for (size_t i = 0; i < p->n_asks; i++) {
        bytes_fini(&p->asks[i].raw);
    }
}

/* A new one, or one of a server connection that is closed. */
static struct peer *peer_add(struct driver *d, conn_id id, bool client)
{
    struct peer *p = NULL;
    for (size_t i = 0; i < d->n_peers && p == NULL; i++) {
        if (!d->peers[i]->client && !d->peers[i]->open) {
            p = d->peers[i];
            peer_fini(p);
        }
    }
    if (p == NULL) {
        assert_true(d->n_peers < PEERS_MAX);
        p = must_alloc(sizeof *p);
        d->peers[d->n_peers++] = p;
    }
    *p = (struct peer){ .id = id, .client = client, .open = true };
    identity_init(&p->identity);
    return p;
}

static struct peer *peer_of(struct driver *d, conn_id id)
{
    for (size_t i = 0; i < d->n_peers; i++) {
        if (d->peers[i]->id == id) {
            return d->peers[i];
        }
    }
    return NULL;
}

static void step(struct driver *d, struct event event)
{
    event.now_us = d->now_us;
    starve(d);
    engine_step(d->engine, &event);
}

/* The connection is gone, and the engine hears of it. */
static void peer_break(struct driver *d, struct peer *p, enum io_error error)
{
    p->open = false;
    step(d, (struct event){
                .type = EVENT_CLOSED, .conn = p->id, .error = 1 + (int)error });
}

/* ---- the network ------------------------------------------------------------------ */

/* What the shell reads into; a second try when there is no memory. */
static struct buf *read_buf(struct driver *d, size_t size)
{
    struct memory *m = engine_memory(d->engine);
    uint32_t cap = d->blocks ? 0 : (uint32_t)size;
    struct buf *b = buf_new(m, cap);
    return b != NULL ? b : buf_new(m, cap);
}

/* Returns whether there was something. */
static bool deliver(struct driver *d, struct peer *p)
{
    size_t n = p->arriving.size;
    if (!p->open || p->paused || n == 0) {
        return false;
    }
    n = d->slice > 0 && n > d->slice ? d->slice : n;
    n = d->blocks && n > BUF_READ_CAP ? BUF_READ_CAP : n;
    struct buf *b = read_buf(d, n);
    if (b == NULL) {
        peer_break(d, p, IO_NO_RESOURCES);
        return true;
    }
    memcpy(b->data, bytes_front(&p->arriving), n);
    b->len = (uint32_t)n;
    bytes_drop(&p->arriving, n);
    step(d, (struct event){ .type = EVENT_BYTES,
                            .conn = p->id,
                            .bytes = { .buf = b, .len = (uint32_t)n } });
    return true;
}

/* The kernel takes what was written, and the other end reads it. */
static bool take(struct driver *d, struct peer *p)
{
    if (!p->open || p->untaken == 0 || (p->client ? d->slow : d->deaf)) {
        return false;
    }
    struct event event = { .type = EVENT_WRITTEN,
                           .conn = p->id,
                           .count = p->untaken };
    p->untaken = 0;
    if (p->client) {
        client_reads(p);
    } else {
        server_reads(d, p);
    }
    step(d, event);
    return true;
}

static void on_resolve(struct driver *d, conn_id id)
{
    static const struct address list[] = {
        { .port = 6379, .host = "10.0.0.1" },
        { .port = 6379, .host = "10.0.0.2" },
    };
    step(d, (struct event){ .type = EVENT_RESOLVED,
                            .conn = id,
                            .resolved = { .list = list, .n = 2 } });
}

static void on_connect(struct driver *d, struct peer *p)
{
    p->open = !d->down;
    p->connected = true;
    step(d, (struct event){ .type = EVENT_CONNECTED,
                            .conn = p->id,
                            .error = d->down ? 1 + IO_REFUSED : 0 });
}

static void on_write(struct driver *d, struct peer *p, struct chain *chain)
{
    for (const struct segment *g = chain->head; g != NULL; g = g->next) {
        bytes_add(&p->unread, slice_data(&g->slice), g->slice.len);
    }
    p->untaken += chain->bytes;
    chain_clear(engine_memory(d->engine), chain);
}

static void on_action(struct driver *d, struct action *a)
{
    struct peer *p = peer_of(d, a->conn);
    if (p == NULL) {
        assert_true(a->type == ACTION_RESOLVE || a->type == ACTION_CONNECT);
        p = peer_add(d, a->conn, false);
    }
    assert_true(p->open);
    assert_true(a->type != ACTION_WRITE || p->client || p->connected);
    switch (a->type) {
    case ACTION_RESOLVE: on_resolve(d, p->id); break;
    case ACTION_CONNECT: on_connect(d, p); break;
    case ACTION_WRITE: on_write(d, p, &a->bytes); break;
    case ACTION_PAUSE: p->paused = true; break;
    case ACTION_RESUME: p->paused = false; break;
    case ACTION_CLOSE: p->open = false; break;
    }
}

static void act(struct driver *d)
{
    struct action action;
    while (engine_next(d->engine, &action)) {
        on_action(d, &action);
    }
}

void driver_run(struct driver *d)
{
    bool again = true;
    act(d);
    for (unsigned rounds = 0; again; rounds++) {
        assert_true(rounds < ROUNDS_MAX);
        again = false;
        for (size_t i = 0; i < d->n_peers; i++) {
            again |= take(d, d->peers[i]);
            act(d);
            again |= deliver(d, d->peers[i]);
            act(d);
        }
    }
}

void driver_pass(struct driver *d, uint64_t us)
{
    uint64_t until_us = d->now_us + us;
    unsigned steps = 0;
    driver_run(d);
    while (engine_deadline(d->engine) <= until_us) {
        if (engine_deadline(d->engine) > d->now_us) {
            d->now_us = engine_deadline(d->engine);
            steps = 0;
        }
        assert_true(steps++ < STEPS_WITHOUT_TIME_MAX);
        step(d, (struct event){ .type = EVENT_TIMEOUT });
        driver_run(d);
    }
    d->now_us = until_us;
}

/* ---- the script -------------------------------------------------------------------- */

bool driver_open(struct driver *d, const struct config *config)
{
    d->now_us = EARLIEST_US;
    struct engine_options options = {
        .config = config,
        .seed = 1,
        .allocator = { .alloc = driver_alloc,
                       .free = driver_free,
                       .context = d },
        .now_us = d->now_us,
        .wall_offset_us = INT64_C(1700000000) * 1000000,
    };
    d->engine = engine_new(&options);
    if (d->engine == NULL) {
        assert_int_equal(d->memory.live, 0);
        return false;
    }
    driver_run(d);
    return true;
}

void driver_close(struct driver *d)
{
    feed(d);
    engine_free(d->engine);
    d->engine = NULL;
    driver_forget(d);
    assert_int_equal(d->memory.live, 0);
}

void driver_forget(struct driver *d)
{
    for (size_t i = 0; i < d->n_peers; i++) {
        peer_fini(d->peers[i]);
        free(d->peers[i]);
    }
    d->n_peers = 0;
}

struct peer *driver_client(struct driver *d)
{
    conn_id id = engine_reserve(d->engine, 0);
    if (id == 0) {
        return NULL;
    }
    struct peer *c = peer_add(d, id, true);
    step(d, (struct event){ .type = EVENT_ACCEPTED, .conn = id });
    return c;
}

/* Note what is asked; returns NULL when there is nobody to ask. */
static struct ask *ask_add(struct peer *c, const char *words, size_t large)
{
    if (c == NULL || !c->open) {
        return NULL;
    }
    assert_true(c->n_asks < ASKS_MAX);
    struct ask *a = &c->asks[c->n_asks++];
    struct bytes body = { 0 };
    size_t argc = 0;
    for (const char *at = words; *at != '\0'; argc++) {
        size_t len = strcspn(at, " ");
        talk_bulk(&body, (struct span){ (const uint8_t *)at, len });
        at += len + (at[len] == ' ');
    }
    if (large > 0) {
        uint8_t *filler = must_alloc(large);
        memset(filler, 'x', large);
        talk_bulk(&body, (struct span){ filler, large });
        free(filler);
        argc++;
    }
    bytes_printf(&a->raw, "*%zu\r\n", argc);
    bytes_add(&a->raw, body.data, body.size);
    bytes_fini(&body);
    a->argc = command_split(bytes_span(&a->raw), a->argv, ASK_ARGS_MAX);
    assert_int_equal(a->argc, argc);
    return a;
}

static void say(struct peer *c, const char *words, size_t large)
{
    const struct ask *a = ask_add(c, words, large);
    if (a != NULL) {
        bytes_add(&c->arriving, bytes_front(&a->raw), a->raw.size);
    }
}

void driver_say(struct driver *d, struct peer *c, const char *words)
{
    (void)d;
    say(c, words, 0);
}

void driver_type(struct driver *d, struct peer *c, const char *words)
{
    (void)d;
    bool empty = words[0] == '\0'; /* nothing is answered */
    if (c != NULL && (empty || ask_add(c, words, 0) != NULL)) {
        bytes_printf(&c->arriving, "%s\r\n", words);
    }
}

void driver_say_large(struct driver *d,
                      struct peer *c,
                      const char *words,
                      size_t size)
{
    (void)d;
    say(c, words, size);
}

/* What c watches is lost with the connections to the server. */
static void lose_watches(struct peer *c)
{
    for (size_t k = 0; k < c->n_answers; k++) {
        bool watch = span_is_word(c->asks[k].argv[0], "WATCH");
        c->identity.watch_failed = c->identity.watch_failed || watch;
    }
}

void driver_cut(struct driver *d, enum io_error error)
{
    for (size_t i = 0; i < d->n_peers; i++) {
        struct peer *p = d->peers[i];
        if (p->client) {
            lose_watches(p);
        }
        if (!p->client && p->open && p->connected) {
            peer_break(d, p, error);
            act(d);
        }
    }
}

void driver_end(struct driver *d, struct peer *c)
{
    if (c != NULL && c->open) {
        step(d, (struct event){ .type = EVENT_ENDED, .conn = c->id });
        act(d);
    }
}

void driver_leave(struct driver *d, struct peer *c)
{
    if (c != NULL && c->open) {
        peer_break(d, c, IO_RESET);
        act(d);
    }
}

void driver_drain(struct driver *d)
{
    step(d, (struct event){ .type = EVENT_DRAIN });
    act(d);
}

void driver_check_answered(const struct driver *d)
{
    for (size_t i = 0; i < d->n_peers; i++) {
        const struct peer *p = d->peers[i];
        if (p->client && p->open && p->n_answers < p->n_asks) {
            fail_msg("%zu of %zu requests are answered", p->n_answers,
                     p->n_asks);
        }
    }
}
