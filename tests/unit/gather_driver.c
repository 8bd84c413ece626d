#include "gather_driver.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "config_loading.h"
#include "parser/keyslot.h"
#include "parser/resp_command.h"
#include "proxy/core/state.h"

enum {
    ARGS_MAX = 256,
    ROUNDS_MAX = 100000,
};

/* ---- memory -------------------------------------------------------------------- */

struct free_thing {
    struct free_thing *next;
};

static void *world_alloc(void *context, size_t size)
{
    struct world *w = context;
    if (w->starving) {
        return NULL;
    }
    size_t call = w->memory.calls + 1;
    bool fails = w->fail_at > 0 &&
                 (call == w->fail_at || (w->fail_on && call > w->fail_at));
    w->memory.left = fails ? 0 : SIZE_MAX;
    return failing_alloc(&w->memory, size);
}

static void world_free(void *context, void *block)
{
    struct world *w = context;
    failing_free(&w->memory, block);
}

/* Free lists would hide that memory is needed. */
static void starve(struct world *w)
{
    if (w->fail_at == 0) {
        return;
    }
    struct segment *s;
    struct free_thing *r;
    w->starving = true;
    while ((s = memory_take_segment(w->engine->memory)) != NULL) {
        s->next = w->segments;
        w->segments = s;
    }
    while ((r = pool_take(&w->engine->requests)) != NULL) {
        r->next = w->requests;
        w->requests = r;
    }
    w->starving = false;
}

static void feed(struct world *w)
{
    while (w->segments != NULL) {
        struct segment *s = w->segments;
        w->segments = s->next;
        memory_give_segment(w->engine->memory, s);
    }
    while (w->requests != NULL) {
        struct free_thing *r = w->requests;
        w->requests = r->next;
        pool_give(&w->engine->requests, r);
    }
}

static void step(struct world *w, struct event event)
{
    event.now_us = w->now_us;
    starve(w);
    engine_step(w->engine, &event);
}

/* ---- nodes --------------------------------------------------------------------- */

uint16_t slot_of(const char *key)
{
    return keyslot(span_of(key));
}

static int node_of_slot(uint16_t slot)
{
    return slot * NODES / KEYSLOT_COUNT;
}

int node_of(const char *key)
{
    return node_of_slot(slot_of(key));
}

static void add_bulk(struct bytes *out, struct span text)
{
    bytes_printf(out, "$%zu\r\n", text.len);
    bytes_add(out, text.data, text.len);
    bytes_add_text(out, "\r\n");
}

static void say_value(struct bytes *out, struct span key)
{
    if (key.data[0] == 'n') {
        bytes_add_text(out, "$-1\r\n");
        return;
    }
    struct bytes value = { 0 };
    bytes_printf(&value, "v-%.*s", (int)key.len, (const char *)key.data);
    while (key.data[0] == 'b' && value.size < BIG_BYTES) {
        bytes_printf(&value, "%zu,", value.size);
    }
    add_bulk(out, bytes_span(&value));
    bytes_fini(&value);
}

static void say_slots(struct bytes *out)
{
    bytes_printf(out, "*%d\r\n", (int)NODES);
    int first = 0;
    for (int node = 0; node < NODES; node++) {
        int last = first;
        while (last + 1 < KEYSLOT_COUNT &&
               node_of_slot((uint16_t)(last + 1)) == node) {
            last++;
        }
        bytes_printf(out, "*3\r\n:%d\r\n:%d\r\n*3\r\n", first, last);
        bytes_printf(out, "$8\r\n10.0.0.%d\r\n:6379\r\n$40\r\n", node + 1);
        for (int i = 0; i < 40; i++) {
            bytes_printf(out, "%c", 'a' + node);
        }
        bytes_add_text(out, "\r\n");
        first = last + 1;
    }
}

static bool is(struct span a, const char *word)
{
    return span_is_word(a, word);
}

static void serve_cluster(struct bytes *out, int node, struct span what)
{
    if (is(what, "MYID")) {
        bytes_add_text(out, "$40\r\n");
        for (int i = 0; i < 40; i++) {
            bytes_printf(out, "%c", 'a' + node);
        }
        bytes_add_text(out, "\r\n");
    } else if (is(what, "INFO")) {
        add_bulk(out, span_of("cluster_state:ok\r\n"
                              "cluster_current_epoch:3\r\n"
                              "cluster_my_epoch:1\r\n"));
    } else if (is(what, "SLOTS")) {
        say_slots(out);
    } else {
        bytes_add_text(out, "-ERR unknown subcommand\r\n");
    }
}

/* What redial says for itself. */
static bool serve_lane(struct link *l, const struct span *argv, size_t argc)
{
    struct bytes *out = &l->replies;
    if (is(argv[0], "HELLO")) {
        bytes_add_text(out, "*4\r\n$6\r\nserver\r\n$5\r\nredis\r\n"
                            "$7\r\nversion\r\n$5\r\n6.2.0\r\n");
    } else if (is(argv[0], "PING")) {
        bytes_add_text(out, "+PONG\r\n");
    } else if (is(argv[0], "CLIENT") && is(argv[1], "ID")) {
        bytes_add_text(out, ":7\r\n");
    } else if (is(argv[0], "CLIENT") || is(argv[0], "READONLY")) {
        bytes_add_text(out, "+OK\r\n");
    } else if (is(argv[0], "ASKING")) {
        l->asking = true;
        bytes_add_text(out, "+OK\r\n");
    } else if (is(argv[0], "CLUSTER") && argc > 1) {
        serve_cluster(out, l->node, argv[1]);
    } else {
        return false;
    }
    return true;
}

static int owner_of(const struct world *w, uint16_t slot)
{
    return w->slot_moved == 1 + slot ? w->moved_to : node_of_slot(slot);
}

/* The node does not have that slot, or not any more. */
static bool serve_redirect(struct world *w, struct link *l, uint16_t slot)
{
    int owner = owner_of(w, slot);
    bool asking = l->asking;
    l->asking = false;
    if (owner == l->node) {
        if (w->moves && w->slot_moved == 1 + slot && !asking) {
            bytes_printf(&l->replies, "-MOVED %u 10.0.0.%d:6379\r\n",
                         (unsigned)slot, node_of_slot(slot) + 1);
            return true;
        }
        return false;
    }
    bytes_printf(&l->replies, "-%s %u 10.0.0.%d:6379\r\n",
                 w->moves && l->node == node_of_slot(slot) ? "ASK" : "MOVED",
                 (unsigned)slot, owner + 1);
    return true;
}

static void execute_keys(struct world *w,
                         const struct span *argv,
                         size_t argc,
                         size_t step_by)
{
    for (size_t i = 1; i < argc; i += step_by) {
        unsigned k = 0;
        for (size_t c = 1; argv[i].data[0] == 'k' && c < argv[i].len; c++) {
            k = k * 10 + (unsigned)(argv[i].data[c] - '0');
        }
        assert_true(k < KEYS_MAX);
        w->executed[k]++;
    }
}

static void serve_everywhere(struct world *w,
                             struct link *l,
                             const struct span *argv,
                             size_t argc)
{
    struct bytes *out = &l->replies;
    w->flushed[l->node]++;
    if (is(argv[0], "DBSIZE")) {
        bytes_printf(out, ":%d\r\n", 10 + l->node);
    } else if (is(argv[0], "KEYS")) {
        bytes_printf(out, "*2\r\n$2\r\nx%d\r\n$2\r\ny%d\r\n", l->node, l->node);
    } else if (is(argv[0], "SCAN")) {
        /* two pages: the second one with the cursor 5 */
        bool second = argc > 1 && argv[1].len == 1 && argv[1].data[0] == '5';
        bytes_printf(out, "*2\r\n$1\r\n%c\r\n*1\r\n$2\r\n%c%d\r\n",
                     second ? '0' : '5', second ? 't' : 's', l->node);
    } else if (is(argv[0], "RANDOMKEY")) {
        bytes_add_text(out, l->node == 1 ? "$2\r\nrk\r\n" : "$-1\r\n");
    } else if (is(argv[0], "SCRIPT") && is(argv[1], "EXISTS")) {
        bytes_printf(out, "*2\r\n:%d\r\n:1\r\n", l->node == 2 ? 0 : 1);
    } else {
        bytes_add_text(out, "+OK\r\n");
    }
}

static void serve_keys(struct world *w,
                       struct link *l,
                       const struct span *argv,
                       size_t argc)
{
    struct bytes *out = &l->replies;
    bool pairs = is(argv[0], "MSET");
    uint16_t slot = keyslot(argv[1]);
    for (size_t i = 1; i < argc; i += pairs ? 2 : 1) {
        assert_int_equal(keyslot(argv[i]), slot);
        if (is(argv[0], "GET") || is(argv[0], "SET")) {
            break;
        }
    }
    if (serve_redirect(w, l, slot)) {
        return;
    }
    if (is(argv[0], "MGET")) {
        bytes_printf(out, "*%zu\r\n", argc - 1);
        for (size_t i = 1; i < argc; i++) {
            say_value(out, argv[i]);
        }
    } else if (is(argv[0], "GET")) {
        say_value(out, argv[1]);
    } else if (pairs || is(argv[0], "SET")) {
        execute_keys(w, argv, argc, 2);
        bytes_add_text(out, "+OK\r\n");
    } else {
        execute_keys(w, argv, argc, 1);
        bytes_printf(out, ":%zu\r\n", argc - 1);
    }
}

static void serve(struct world *w,
                  struct link *l,
                  const struct span *argv,
                  size_t argc)
{
    static const char *const with_keys[] = { "MGET",   "MSET",  "DEL", "UNLINK",
                                             "EXISTS", "TOUCH", "GET", "SET" };
    if (serve_lane(l, argv, argc)) {
        return;
    }
    l->used = true;
    if (l->node == w->error_node && w->errors > 0) {
        if (w->error_after == 0) {
            w->errors--;
            l->asking = false;
            bytes_add_text(&l->replies, w->error);
            return;
        }
        w->error_after--;
    }
    for (size_t i = 0; i < sizeof with_keys / sizeof *with_keys; i++) {
        if (is(argv[0], with_keys[i])) {
            serve_keys(w, l, argv, argc);
            return;
        }
    }
    serve_everywhere(w, l, argv, argc);
}

/* Look at the commands that are complete. Returns how many there were. */
static size_t look(struct world *w, struct link *l)
{
    static const struct command_limits limits = { .bulk_max = UINT32_MAX,
                                                  .args_max = ARGS_MAX };
    size_t n = 0;
    while (l->taken.size > 0) {
        struct command_scanner s;
        size_t used = 0;
        command_scanner_init(&s);
        enum scan scan = command_scan(&s, &limits, bytes_front(&l->taken),
                                      l->taken.size, &used);
        assert_true(scan != SCAN_INVALID);
        if (scan == SCAN_MORE) {
            break;
        }
        struct span argv[ARGS_MAX];
        size_t argc =
            command_split((struct span){ bytes_front(&l->taken), used }, argv,
                          ARGS_MAX);
        serve(w, l, argv, argc);
        bytes_drop(&l->taken, used);
        n++;
    }
    return n;
}

/* ---- the network --------------------------------------------------------------- */

static struct link *link_of(struct world *w, conn_id id)
{
    for (size_t i = 0; i < w->n_links; i++) {
        if (w->links[i].id == id) {
            return &w->links[i];
        }
    }
    return NULL;
}

static void link_fini(struct link *l)
{
    bytes_fini(&l->written);
    bytes_fini(&l->taken);
    bytes_fini(&l->replies);
}

static void on_connect(struct world *w, const struct action *a)
{
    struct link *l = NULL;
    for (size_t i = 0; i < w->n_links && l == NULL; i++) {
        l = w->links[i].open ? NULL : &w->links[i];
    }
    if (l == NULL) {
        assert_true(w->n_links < LINKS_MAX);
        l = &w->links[w->n_links++];
    }
    link_fini(l);
    *l = (struct link){ .id = a->conn,
                        .open = true,
                        .node = a->address->host[strlen("10.0.0.")] - '1' };
    step(w, (struct event){ .type = EVENT_CONNECTED, .conn = a->conn });
}

static void on_write(struct world *w, struct action *a)
{
    struct bytes *out = &w->got;
    if (a->conn != w->client) {
        out = &link_of(w, a->conn)->written;
    }
    uint64_t count = a->bytes.bytes;
    for (const struct segment *s = a->bytes.head; s != NULL; s = s->next) {
        bytes_add(out, slice_data(&s->slice), s->slice.len);
    }
    chain_clear(engine_memory(w->engine), &a->bytes);
    if (a->conn == w->client) {
        step(w, (struct event){
                    .type = EVENT_WRITTEN, .conn = a->conn, .count = count });
    }
}

static void act(struct world *w)
{
    struct action a;
    while (engine_next(w->engine, &a)) {
        switch (a.type) {
        case ACTION_CONNECT: on_connect(w, &a); break;
        case ACTION_WRITE: on_write(w, &a); break;
        case ACTION_CLOSE:
            if (a.conn == w->client) {
                w->client = 0;
            } else {
                link_of(w, a.conn)->open = false;
            }
            break;
        case ACTION_RESOLVE:
            step(w,
                 (struct event){ .type = EVENT_RESOLVED,
                                 .conn = a.conn,
                                 .resolved = { .list = a.address, .n = 1 } });
            break;
        case ACTION_PAUSE:
        case ACTION_RESUME: break;
        }
    }
}

static void deliver(struct world *w, struct link *l, size_t n)
{
    struct buf *b = buf_new(engine_memory(w->engine), (uint32_t)n);
    if (b == NULL) {
        b = buf_new(engine_memory(w->engine), (uint32_t)n);
    }
    if (b == NULL) {
        l->open = false;
        step(w, (struct event){ .type = EVENT_CLOSED,
                                .conn = l->id,
                                .error = 1 + IO_NO_RESOURCES });
        return;
    }
    memcpy(b->data, bytes_front(&l->replies), n);
    b->len = (uint32_t)n;
    bytes_drop(&l->replies, n);
    step(w, (struct event){ .type = EVENT_BYTES,
                            .conn = l->id,
                            .bytes = { .buf = b, .len = (uint32_t)n } });
}

static void take(struct world *w, struct link *l, size_t n)
{
    bytes_add(&l->taken, bytes_front(&l->written), n);
    bytes_drop(&l->written, n);
    step(w, (struct event){ .type = EVENT_WRITTEN, .conn = l->id, .count = n });
}

static size_t bytes_of_replies(const struct bytes *replies, size_t n)
{
    static const struct resp_limits limits = { .bulk_max = UINT32_MAX,
                                               .elements_max = UINT32_MAX };
    size_t at = 0;
    for (; n > 0; n--) {
        struct resp_scanner s;
        size_t used = 0;
        resp_scanner_init(&s);
        if (resp_scan(&s, &limits, bytes_front(replies) + at,
                      replies->size - at, &used) != SCAN_DONE) {
            break;
        }
        at += used;
    }
    return at;
}

/* The connection breaks as the script says. */
static void cut(struct world *w, struct link *l)
{
    size_t n = l->written.size;
    w->cut_bytes = n;
    n = n > w->cut_after ? w->cut_after : n;
    if (n > 0) {
        take(w, l, n);
    }
    w->cut_executed = look(w, l);
    n = bytes_of_replies(&l->replies, w->cut_replies);
    w->cut_node = -1;
    if (n > 0) {
        deliver(w, l, n);
        act(w);
    }
    l->open = false;
    step(w, (struct event){
                .type = EVENT_CLOSED, .conn = l->id, .error = 1 + IO_RESET });
}

static bool move_bytes(struct world *w, struct link *l)
{
    if (!l->open || l->node == w->deaf_node) {
        return false;
    }
    if (l->written.size > 0) {
        if (l->node == w->cut_node) {
            cut(w, l);
            return true;
        }
        take(w, l, l->written.size);
        look(w, l);
        return true;
    }
    size_t n = l->replies.size;
    if (n == 0) {
        return false;
    }
    deliver(w, l, w->slice > 0 && n > w->slice ? w->slice : n);
    return true;
}

void world_run(struct world *w)
{
    bool again = true;
    act(w);
    for (unsigned rounds = 0; again; rounds++) {
        assert_true(rounds < ROUNDS_MAX);
        again = false;
        for (size_t i = 0; i < w->n_links; i++) {
            again |= move_bytes(w, &w->links[i]);
            act(w);
        }
    }
}

void world_pass(struct world *w, uint64_t us)
{
    uint64_t until_us = w->now_us + us;
    world_run(w);
    while (engine_deadline(w->engine) <= until_us) {
        if (engine_deadline(w->engine) > w->now_us) {
            w->now_us = engine_deadline(w->engine);
        }
        step(w, (struct event){ .type = EVENT_TIMEOUT });
        world_run(w);
    }
    w->now_us = until_us;
}

/* ---- the script ------------------------------------------------------------------ */

bool world_open(struct world *w, const char *more)
{
    static struct config_problems problems;
    char file[2000];
    snprintf(file, sizeof(file),
             "[listener l]\naddress = 127.0.0.1:6400\nupstream = c\n"
             "[upstream c]\ntype = cluster\nbackoff = constant\n"
             "learn_commands = no\n"
             "nodes = 10.0.0.1:6379, 10.0.0.2:6379, 10.0.0.3:6379\n%s",
             more == NULL ? "" : more);
    struct config_source source = loaded_source(file);
    w->config = config_load(&source, &problems);
    if (w->config == NULL) {
        fail_msg("%s: %s", problems.list[0].place, problems.list[0].text);
    }
    w->now_us = 1000000;
    w->memory.left = SIZE_MAX;
    w->error_node = w->cut_node = w->deaf_node = -1;
    struct engine_options options = {
        .config = w->config,
        .seed = 1,
        .now_us = w->now_us,
        .allocator = { .alloc = world_alloc, .free = world_free, .context = w }
    };
    w->engine = engine_new(&options);
    if (w->engine == NULL) {
        config_free(w->config);
        return false;
    }
    world_pass(w, 2000000);
    return true;
}

void world_close(struct world *w)
{
    feed(w);
    engine_free(w->engine);
    config_free(w->config);
    for (size_t i = 0; i < w->n_links; i++) {
        link_fini(&w->links[i]);
    }
    bytes_fini(&w->got);
    assert_int_equal(w->memory.live, 0);
}

void world_client(struct world *w)
{
    w->client = engine_reserve(w->engine, 0);
    if (w->client != 0) {
        step(w, (struct event){ .type = EVENT_ACCEPTED, .conn = w->client });
        act(w);
    }
}

void world_leave(struct world *w)
{
    conn_id id = w->client;
    w->client = 0;
    if (id != 0) {
        step(w, (struct event){
                    .type = EVENT_CLOSED, .conn = id, .error = 1 + IO_RESET });
        act(w);
    }
}

void world_say(struct world *w, const char *words)
{
    struct bytes body = { 0 };
    struct bytes raw = { 0 };
    size_t argc = 0;
    for (const char *at = words; *at != '\0'; argc++) {
        size_t len = strcspn(at, " ");
        add_bulk(&body, (struct span){ (const uint8_t *)at, len });
        at += len + (at[len] == ' ');
    }
    bytes_printf(&raw, "*%zu\r\n", argc);
    bytes_add(&raw, body.data, body.size);
    struct buf *b = w->client == 0
                        ? NULL
                        : buf_new(engine_memory(w->engine), (uint32_t)raw.size);
    if (b != NULL) {
        memcpy(b->data, bytes_front(&raw), raw.size);
        b->len = (uint32_t)raw.size;
        step(w, (struct event){ .type = EVENT_BYTES,
                                .conn = w->client,
                                .bytes = { .buf = b, .len = b->len } });
        act(w);
    }
    bytes_fini(&body);
    bytes_fini(&raw);
}

const char *world_got(struct world *w)
{
    bytes_add(&w->got, "", 1);
    w->got.size--;
    return w->got.data == NULL ? "" : (const char *)bytes_front(&w->got);
}

void world_forget(struct world *w)
{
    bytes_clear(&w->got);
}

struct upstream_stats world_stats(const struct world *w)
{
    struct engine_stats engine;
    struct upstream_stats stats;
    engine_stats(w->engine, &engine, &stats);
    return stats;
}
