/* The whole engine between a client, a server and a shell that do whatever the
 * input says. The input is a list of moves, one operation byte each with its
 * arguments. Whatever happens: no crash, no leak, actions only for connections
 * that are open, never more replies than requests, no memory or output out of
 * proportion to what came in. */
#include "config/config.h"
#include "fuzz.h"
#include "parser/resp_command.h"
#include "proxy/core/engine.h"

enum {
    CLIENTS_MAX = 16,
    CONNS_MAX = 128, /* with their lanes */
    MOVES_MAX = 2000,
    MEMORY_FACTOR = 100,
    MEMORY_FLOOR = 32 * 1024 * 1024, /* tables and free lists */
    OUTPUT_FACTOR = 100,
    OUTPUT_FLOOR = 1024 * 1024,
    TIMEOUTS_AT_ONCE = 1000,
    RECENT = 32,
};

/* A connection as the shell would know it. */
struct conn {
    conn_id id;
    bool open;
    bool client;
    bool connecting; /* the engine waits for the name or the connection */
    bool resolving;
    bool paused;
    uint64_t unwritten; /* the kernel has not taken it yet */
    struct command_scanner asking;
    struct resp_scanner answering;
    uint64_t asked, answered; /* a client's commands and their replies */
    bool talks_alone;         /* subscriptions: replies nobody asked for */
    bool broken;              /* its stream can't be followed */
    char recent[RECENT];      /* what it sent last, in lower case */
};

struct input {
    const uint8_t *data;
    size_t size;
};

struct fuzz {
    struct engine *engine;
    uint64_t now_us;
    struct conn conns[CONNS_MAX];
    size_t n_conns;
    size_t memory;
    uint64_t received, written;
    uint32_t fail_every; /* every n-th allocation fails; 0: none */
    uint32_t allocations;
};

/* --- memory ------------------------------------------------------------ */

enum {
    HEADER = 16
};

static void *fuzz_alloc(void *context, size_t size)
{
    struct fuzz *f = context;
    f->allocations++;
    if (f->fail_every > 0 && f->allocations % f->fail_every == 0) {
        return NULL;
    }
    char *block = malloc(size + HEADER);
    REQUIRE(block != NULL);
    memcpy(block, &size, sizeof size);
    f->memory += size;
    REQUIRE(f->memory <= MEMORY_FLOOR + MEMORY_FACTOR * f->received);
    return block + HEADER;
}

static void fuzz_free(void *context, void *block)
{
    struct fuzz *f = context;
    size_t size;
    if (block == NULL) {
        return;
    }
    memcpy(&size, (char *)block - HEADER, sizeof size);
    REQUIRE(f->memory >= size);
    f->memory -= size;
    free((char *)block - HEADER);
}

/* --- what the engine does ---------------------------------------------- */

static struct conn *conn_of(struct fuzz *f, conn_id id)
{
    for (size_t i = f->n_conns; i > 0; i--) {
        if (f->conns[i - 1].id == id) {
            return &f->conns[i - 1];
        }
    }
    return NULL;
}

/* Room for one more; the oldest closed one makes place. */
static struct conn *conn_add(struct fuzz *f, conn_id id, bool client)
{
    struct conn *c = NULL;
    for (size_t i = 0; i < f->n_conns && c == NULL; i++) {
        if (!f->conns[i].open) {
            c = &f->conns[i];
        }
    }
    if (c == NULL && f->n_conns < CONNS_MAX) {
        c = &f->conns[f->n_conns++];
    }
    if (c != NULL) {
        *c = (struct conn){ .id = id, .open = true, .client = client };
        command_scanner_init(&c->asking);
        resp_scanner_init(&c->answering);
        memset(c->recent, '.', RECENT - 1);
    }
    return c;
}

/* --- replies and requests (I3) ----------------------------------------- */

/* Commands that make a server talk without being asked. */
static void watch_words(struct conn *c, uint8_t byte)
{
    static const char *const words[] = { "subscribe", "monitor", "sync",
                                         "tracking" };
    memmove(c->recent, c->recent + 1, RECENT - 2);
    c->recent[RECENT - 2] = (char)(byte >= 'A' && byte <= 'Z' ? byte + 32
                                   : byte == 0                ? '.'
                                                              : byte);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (strstr(c->recent, words[i]) != NULL) {
            c->talks_alone = true;
        }
    }
}

static void count_asked(struct conn *c, const uint8_t *data, size_t n)
{
    static const struct command_limits limits = { .bulk_max = UINT64_C(512)
                                                              << 20,
                                                  .args_max = 1 << 20 };
    size_t used = 0;
    for (size_t i = 0; i < n; i++) {
        watch_words(c, data[i]);
    }
    while (n > 0 && !c->broken) {
        enum scan scan = command_scan(&c->asking, &limits, data, n, &used);
        c->broken = scan == SCAN_INVALID;
        c->asked +=
            scan == SCAN_INVALID || (scan == SCAN_DONE && c->asking.argc > 0);
        data += used;
        n -= used;
    }
}

static void count_answered(struct conn *c, const uint8_t *data, size_t n)
{
    static const struct resp_limits limits = { .bulk_max = UINT64_C(1) << 40,
                                               .elements_max = UINT64_C(1)
                                                               << 40 };
    if (c->talks_alone) {
        return; /* the server's bytes, whatever they are */
    }
    size_t used = 0;
    while (n > 0) {
        enum scan scan = resp_scan(&c->answering, &limits, data, n, &used);
        REQUIRE(scan != SCAN_INVALID);
        c->answered += scan == SCAN_DONE && c->answering.type != '>';
        data += used;
        n -= used;
    }
    /* One more when a large request is refused before its end. */
    REQUIRE(c->answered <= c->asked + (c->asking.seen > 0));
}

static void on_write(struct fuzz *f, struct conn *c, struct chain *chain)
{
    REQUIRE(!c->connecting && !c->resolving);
    REQUIRE(chain->bytes > 0);
    size_t sum = 0;
    for (const struct segment *s = chain->head; s != NULL; s = s->next) {
        REQUIRE(s->slice.len > 0);
        REQUIRE(s->slice.offset + s->slice.len <= s->slice.buf->len);
        sum += s->slice.len;
        if (c->client) {
            count_answered(c, slice_data(&s->slice), s->slice.len);
        }
    }
    REQUIRE(sum == chain->bytes);
    c->unwritten += chain->bytes;
    f->written += chain->bytes;
    REQUIRE(f->written <= OUTPUT_FLOOR + OUTPUT_FACTOR * f->received);
    chain_clear(engine_memory(f->engine), chain);
}

static void on_open(struct fuzz *f, const struct action *a)
{
    struct conn *c = conn_of(f, a->conn);
    if (c == NULL || !c->open) {
        c = conn_add(f, a->conn, false);
    }
    REQUIRE(a->address != NULL && c != NULL);
    c->resolving = a->type == ACTION_RESOLVE;
    c->connecting = a->type == ACTION_CONNECT;
}

static void drain(struct fuzz *f)
{
    struct action a;
    while (engine_next(f->engine, &a)) {
        struct conn *c = conn_of(f, a.conn);
        if (a.type == ACTION_CONNECT || a.type == ACTION_RESOLVE) {
            on_open(f, &a);
            continue;
        }
        REQUIRE(c != NULL && c->open);
        switch (a.type) {
        case ACTION_WRITE: on_write(f, c, &a.bytes); break;
        case ACTION_PAUSE: c->paused = true; break;
        case ACTION_RESUME: c->paused = false; break;
        case ACTION_CLOSE: c->open = false; break;
        case ACTION_RESOLVE:
        case ACTION_CONNECT: break;
        }
    }
}

static void step(struct fuzz *f, struct event event)
{
    event.now_us = f->now_us;
    engine_step(f->engine, &event);
    drain(f);
}

/* --- moves ------------------------------------------------------------- */

static uint8_t take(struct input *in)
{
    if (in->size == 0) {
        return 0;
    }
    in->size--;
    return *in->data++;
}

static struct conn *choose(struct fuzz *f, struct input *in, bool client)
{
    size_t open = 0;
    uint8_t choice = take(in);
    for (size_t i = 0; i < f->n_conns; i++) {
        open += f->conns[i].open && f->conns[i].client == client;
    }
    if (open == 0) {
        return NULL;
    }
    size_t skip = choice % open;
    for (size_t i = 0; i < f->n_conns; i++) {
        struct conn *c = &f->conns[i];
        if (c->open && c->client == client && skip-- == 0) {
            return c;
        }
    }
    return NULL;
}

static void move_bytes(struct fuzz *f,
                       struct conn *c,
                       const uint8_t *data,
                       size_t n)
{
    if (c == NULL || c->connecting || c->resolving || c->paused || n == 0) {
        return;
    }
    struct memory *m = engine_memory(f->engine);
    struct buf *b = buf_new(m, (uint32_t)n);
    if (b == NULL) {
        return;
    }
    memcpy(b->data, data, n);
    b->len = (uint32_t)n;
    f->received += n;
    if (c->client) {
        count_asked(c, data, n);
    }
    step(f,
         (struct event){ .type = EVENT_BYTES,
                         .conn = c->id,
                         .bytes = { .buf = b, .offset = 0, .len = b->len } });
}

static void move_soup(struct fuzz *f, struct input *in, bool client)
{
    struct conn *c = choose(f, in, client);
    size_t n = take(in);
    n = n < in->size ? n : in->size;
    move_bytes(f, c, in->data, n);
    in->data += n;
    in->size -= n;
}

/* Whole commands and replies, so that the input gets deep quickly. */
static void move_phrase(struct fuzz *f, struct input *in, bool client)
{
    static const char *const commands[] = {
        "*2\r\n$3\r\nGET\r\n$1\r\na\r\n",
        "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\n1\r\n",
        "*2\r\n$4\r\nINCR\r\n$1\r\na\r\n",
        "*1\r\n$5\r\nMULTI\r\n",
        "*1\r\n$4\r\nEXEC\r\n",
        "*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n",
        "*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n",
        "*3\r\n$4\r\nAUTH\r\n$1\r\nu\r\n$1\r\np\r\n",
        "*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$4\r\nSKIP\r\n",
        "*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$3\r\nOFF\r\n",
        "*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\nc\r\n",
        "*3\r\n$5\r\nBLPOP\r\n$1\r\na\r\n$1\r\n1\r\n",
        "PING\r\n",
        "*1\r\n$5\r\nRESET\r\n",
        "*1\r\n$4\r\nQUIT\r\n",
        "*2\r\n$5\r\nWATCH\r\n$1\r\na\r\n",
        "*3\r\n$3\r\nSET\r\n$1\r\na\r\n$200\r\n",
    };
    static const char *const replies[] = {
        "+OK\r\n",
        "+PONG\r\n",
        "+QUEUED\r\n",
        ":7\r\n",
        "$1\r\n1\r\n",
        "$-1\r\n",
        "*0\r\n",
        "_\r\n",
        "-ERR no\r\n",
        "-LOADING Redis is loading the dataset in memory\r\n",
        "-READONLY You can't write against a read only replica.\r\n",
        "-NOAUTH Authentication required.\r\n",
        "-WRONGPASS no\r\n",
        "-NOPERM no\r\n",
        "%1\r\n$5\r\nproto\r\n:3\r\n",
        ">2\r\n+message\r\n+x\r\n",
        "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n",
        "+OK\r\n:7\r\n+OK\r\n+PONG\r\n",
        "%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n7.0."
        "15\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:5\r\n$4\r\nmode\r\n$"
        "10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*"
        "0\r\n",
        "$400\r\n",
    };
    struct conn *c = choose(f, in, client);
    uint8_t choice = take(in);
    const char *text =
        client ? commands[choice % (sizeof commands / sizeof commands[0])]
               : replies[choice % (sizeof replies / sizeof replies[0])];
    move_bytes(f, c, (const uint8_t *)text, strlen(text));
}

static void move_open(struct fuzz *f)
{
    size_t clients = 0;
    for (size_t i = 0; i < f->n_conns; i++) {
        clients += f->conns[i].open && f->conns[i].client;
    }
    conn_id id = clients < CLIENTS_MAX ? engine_reserve(f->engine, 0) : 0;
    if (id == 0) {
        return;
    }
    REQUIRE(conn_of(f, id) == NULL || !conn_of(f, id)->open);
    REQUIRE(conn_add(f, id, true) != NULL);
    step(f, (struct event){ .type = EVENT_ACCEPTED, .conn = id });
}

/* The network answers a connection attempt. */
static void move_connect(struct fuzz *f, struct input *in)
{
    static const struct address address = { .port = 6379, .host = "10.0.0.1" };
    struct conn *c = choose(f, in, false);
    uint8_t how = take(in);
    if (c == NULL || (!c->connecting && !c->resolving)) {
        return;
    }
    struct event event = { .type =
                               c->resolving ? EVENT_RESOLVED : EVENT_CONNECTED,
                           .conn = c->id };
    if (how % 4 == 0) {
        event.error = 1 + how / 4 % IO_ERROR_COUNT;
        c->open = c->resolving;
    } else if (c->resolving) {
        event.resolved.list = &address;
        event.resolved.n = 1;
    }
    c->resolving = false;
    c->connecting = false;
    step(f, event);
}

static void move_close(struct fuzz *f, struct input *in, bool client)
{
    struct conn *c = choose(f, in, client);
    uint8_t how = take(in);
    if (c == NULL || c->connecting || c->resolving) {
        return;
    }
    if (how & 0x80) {
        step(f, (struct event){ .type = EVENT_ENDED, .conn = c->id });
        return;
    }
    c->open = false;
    step(f, (struct event){ .type = EVENT_CLOSED,
                            .conn = c->id,
                            .error = 1 + how % IO_ERROR_COUNT });
}

static void move_written(struct fuzz *f, struct input *in, bool client)
{
    struct conn *c = choose(f, in, client);
    uint64_t count = take(in);
    if (c == NULL || c->unwritten == 0) {
        return;
    }
    if (count == 0 || count > c->unwritten) {
        count = c->unwritten;
    }
    c->unwritten -= count;
    step(f, (struct event){
                .type = EVENT_WRITTEN, .conn = c->id, .count = count });
}

static void move_time(struct fuzz *f, struct input *in)
{
    uint64_t until_us = f->now_us + (UINT64_C(1) << take(in) % 26);
    unsigned at_once = 0;
    while (engine_deadline(f->engine) <= until_us) {
        uint64_t deadline_us = engine_deadline(f->engine);
        at_once = deadline_us > f->now_us ? 0 : at_once + 1;
        REQUIRE(at_once < TIMEOUTS_AT_ONCE);
        f->now_us = deadline_us > f->now_us ? deadline_us : f->now_us;
        step(f, (struct event){ .type = EVENT_TIMEOUT });
    }
    f->now_us = until_us;
}

/* Return false at the end of the input. */
static bool move(struct fuzz *f, struct input *in)
{
    if (in->size == 0) {
        return false;
    }
    uint8_t op = take(in);
    switch (op % 16) {
    case 0: move_open(f); break;
    case 1:
    case 2: move_soup(f, in, true); break;
    case 3:
    case 4: move_soup(f, in, false); break;
    case 5:
    case 6: move_phrase(f, in, true); break;
    case 7:
    case 8: move_phrase(f, in, false); break;
    case 9: move_connect(f, in); break;
    case 10: move_written(f, in, false); break;
    case 11: move_written(f, in, true); break;
    case 12: move_close(f, in, op & 16); break;
    case 13: move_time(f, in); break;
    case 14: f->fail_every = take(in) % 16; break;
    default:
        if (take(in) == 'D') {
            step(f, (struct event){ .type = EVENT_DRAIN });
        }
        break;
    }
    return true;
}

/* Small limits are met often. */
static struct config *load(uint8_t choice)
{
    static const char *const few[] = { "listener.pipeline_max=3",
                                       "upstream.reply_hold_max=16",
                                       "upstream.replay_bytes_max=64",
                                       "upstream.attempt_timeout=50ms" };
    static const char *const many[] = { "upstream.replay=all",
                                        "upstream.shared_lanes=2",
                                        "upstream.held_requests_max=4",
                                        "upstream.private_lanes_max=1",
                                        "upstream.deadline=200ms" };
    struct config_problems problems = { 0 };
    struct config_source source = { .url = choice & 4
                                               ? "redis://u:p@redis.test/2"
                                               : "redis://10.0.0.1" };
    if (choice % 4 == 1) {
        source.sets = few;
        source.n_sets = sizeof few / sizeof few[0];
    } else if (choice % 4 == 2) {
        source.sets = many;
        source.n_sets = sizeof many / sizeof many[0];
    }
    struct config *config = config_load(&source, &problems);
    REQUIRE(config != NULL);
    config_problems_fini(&problems);
    return config;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = { .data = data, .size = size };
    uint8_t choice = take(&in);
    struct config *config = load(choice);
    struct fuzz *f = calloc(1, sizeof *f);
    REQUIRE(f != NULL);
    f->now_us = 1000000;
    struct engine_options options = {
        .config = config,
        .seed = choice,
        .allocator = { .alloc = fuzz_alloc, .free = fuzz_free, .context = f },
        .now_us = f->now_us,
    };
    f->engine = engine_new(&options);
    REQUIRE(f->engine != NULL);
    drain(f);
    for (unsigned i = 0; i < MOVES_MAX && move(f, &in); i++) {
    }
    engine_free(f->engine);
    REQUIRE(f->memory == 0);
    free(f);
    config_free(config);
    return 0;
}
