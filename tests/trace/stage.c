#include "tests/trace/stage.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    EARLIEST_US = 1000000, /* the clock does not begin at 0 */
    STEPS_WITHOUT_TIME_MAX = 1000,
};

static void *counted_alloc(void *context, size_t size)
{
    struct stage *s = context;
    s->blocks++;
    return malloc(size);
}

static void counted_free(void *context, void *block)
{
    struct stage *s = context;
    s->blocks -= block != NULL;
    free(block);
}

static struct player *player_add(struct stage *s, char side, unsigned number)
{
    size_t at = 0;
    while (at < s->n_players && s->players[at].side != '\0') {
        at++;
    }
    if (at == PLAYERS_MAX) {
        snprintf(s->error, sizeof s->error, "more than %d connections",
                 PLAYERS_MAX);
        return NULL;
    }
    struct player *p = &s->players[at];
    s->n_players += at == s->n_players;
    *p = (struct player){
        .side = side, .number = number, .open = true, .resp = 2
    };
    return p;
}

static struct player *player_of(struct stage *s, conn_id id)
{
    for (size_t i = s->n_players; i > 0; i--) {
        if (s->players[i - 1].id == id) {
            return &s->players[i - 1];
        }
    }
    return NULL;
}

static unsigned count_of(const struct stage *s, char side)
{
    unsigned n = 0;
    for (size_t i = 0; i < s->n_players; i++) {
        n += s->players[i].side == side;
    }
    return n;
}

/* A connection that the engine asks for. */
static struct player *player_open(struct stage *s, const struct action *a)
{
    char side = servers_name(s->servers, a->address);
    struct player *p = player_add(s, side, count_of(s, side) + 1);
    if (p != NULL) {
        p->id = a->conn;
    }
    return p;
}

struct player *stage_find(struct stage *s, char side, unsigned number)
{
    struct player *newest = NULL;
    for (size_t i = 0; i < s->n_players; i++) {
        struct player *p = &s->players[i];
        if (p->side != side || (number != 0 && p->number != number)) {
            continue;
        }
        if (newest == NULL || p->open || !newest->open) {
            newest = p;
        }
    }
    return newest;
}

static void keep_written(struct stage *s, struct player *p, struct chain *chain)
{
    struct memory *m = engine_memory(s->engine);
    struct bytes *to = server_acts(s, p) ? &p->unread : &p->written;
    for (const struct segment *g = chain->head; g != NULL; g = g->next) {
        bytes_add(to, slice_data(&g->slice), g->slice.len);
    }
    p->untaken += chain->bytes;
    chain_clear(m, chain);
}

static void keep_action(struct stage *s, struct action *a)
{
    struct player *p = player_of(s, a->conn);
    bool opens = a->type == ACTION_CONNECT || a->type == ACTION_RESOLVE;
    if (p == NULL && opens) {
        p = player_open(s, a);
        if (p == NULL) {
            return;
        }
    }
    if (p == NULL || !p->open) {
        snprintf(s->error, sizeof s->error,
                 "action %d for a connection that is not open", (int)a->type);
        if (a->type == ACTION_WRITE) {
            chain_clear(engine_memory(s->engine), &a->bytes);
        }
        return;
    }
    if (a->type == ACTION_WRITE) {
        keep_written(s, p, &a->bytes);
        return;
    }
    if (a->type == ACTION_CLOSE) {
        p->open = false;
    }
    p->connecting = p->connecting || a->type == ACTION_CONNECT;
    if (server_acts(s, p) && !p->up) {
        return; /* not of interest before the handshake is over */
    }
    if (s->n_pending == PENDING_MAX) {
        snprintf(s->error, sizeof s->error, "too many actions at once");
        return;
    }
    struct pending *pending = &s->pending[s->n_pending++];
    *pending = (struct pending){ .player = p, .type = a->type };
    if (opens) {
        address_format(a->address, pending->address);
    }
}

/* What needs no asking: an address in digits, or a path. */
static bool resolve_at_once(struct stage *s, const struct action *a)
{
    if (a->type != ACTION_RESOLVE) {
        return false;
    }
    char first = a->address->host[0];
    char name = servers_name(s->servers, a->address);
    bool digits = (first >= '0' && first <= '9') ||
                  strchr(a->address->host, ':') != NULL || a->address->is_unix;
    bool scripted =
        name != 'u' && s->servers->of[name - 'A'].mode != SERVER_MANUAL;
    if (!digits && !scripted) {
        return false;
    }
    struct address copy = *a->address;
    if (!digits) {
        server_resolve(name, &copy);
    }
    if (player_of(s, a->conn) == NULL) {
        (void)player_open(s, a);
    }
    struct event resolved = { .type = EVENT_RESOLVED,
                              .now_us = s->now_us,
                              .conn = a->conn,
                              .resolved = { .list = &copy, .n = 1 } };
    engine_step(s->engine, &resolved);
    return true;
}

/* Take what the engine wants, and tell it what the kernel took of it. */
static void drain(struct stage *s)
{
    bool again = true;
    while (again && s->error[0] == '\0') {
        struct action action;
        while (engine_next(s->engine, &action)) {
            if (!resolve_at_once(s, &action)) {
                keep_action(s, &action);
            }
        }
        again = false;
        for (size_t i = 0; i < s->n_players; i++) {
            struct player *p = &s->players[i];
            if (p->open && !p->holds && p->untaken > 0) {
                struct event taken = { .type = EVENT_WRITTEN,
                                       .now_us = s->now_us,
                                       .conn = p->id,
                                       .count = p->untaken };
                p->untaken = 0;
                engine_step(s->engine, &taken);
                again = true;
            }
        }
    }
}

void stage_serve(struct stage *s)
{
    unsigned rounds = 0;
    if (s->serving) {
        return;
    }
    s->serving = true;
    while (s->error[0] == '\0' && (servers_act(s) || peers_act(s))) {
        if (++rounds > STEPS_WITHOUT_TIME_MAX) {
            snprintf(s->error, sizeof s->error,
                     "the engine asks the servers for ever");
        }
    }
    s->serving = false;
}

bool stage_open(struct stage *s,
                const struct config *config,
                struct servers *servers,
                bool split)
{
    *s = (struct stage){ .now_us = EARLIEST_US,
                         .split = split,
                         .servers = servers };
    struct engine_options options = {
        .config = config,
        .seed = 1,
        .allocator = { .alloc = counted_alloc,
                       .free = counted_free,
                       .context = s },
        .now_us = s->now_us,
        .wall_offset_us = INT64_C(1700000000) * 1000000,
    };
    s->engine = engine_new(&options);
    if (s->engine == NULL) {
        snprintf(s->error, sizeof s->error, "engine_new failed");
        return false;
    }
    drain(s);
    stage_serve(s);
    return s->error[0] == '\0';
}

bool stage_close(struct stage *s)
{
    if (s->engine != NULL) {
        engine_free(s->engine);
        s->engine = NULL;
    }
    for (size_t i = 0; i < s->n_players; i++) {
        bytes_fini(&s->players[i].written);
        bytes_fini(&s->players[i].unread);
        if (s->players[i].peer != NULL) {
            peer_free(s->players[i].peer);
        }
    }
    if (s->h2_memory != NULL) {
        h2_memory_free(s->h2_memory);
    }
    s->n_players = 0;
    if (s->blocks != 0) {
        snprintf(s->error, sizeof s->error, "%ld blocks of memory leaked",
                 s->blocks);
        return false;
    }
    return true;
}

static bool idle(const struct stage *s)
{
    if (s->n_pending > 0 || s->error[0] != '\0' || peers_unexpected(s, NULL)) {
        return false;
    }
    for (size_t i = 0; i < s->n_players; i++) {
        if (s->players[i].written.size > 0 && s->players[i].peer == NULL) {
            return false;
        }
    }
    return true;
}

bool stage_advance(struct stage *s, uint64_t until_us)
{
    unsigned steps = 0;
    while (idle(s)) {
        uint64_t deadline_us = engine_deadline(s->engine);
        if (deadline_us > until_us) {
            s->now_us = until_us > s->now_us ? until_us : s->now_us;
            return false;
        }
        if (deadline_us > s->now_us) {
            s->now_us = deadline_us;
            steps = 0;
        } else if (++steps > STEPS_WITHOUT_TIME_MAX) {
            snprintf(s->error, sizeof s->error,
                     "the engine asks for the same moment for ever");
            return true;
        }
        stage_step(s, (struct event){ .type = EVENT_TIMEOUT });
    }
    return true;
}

struct player *stage_connect(struct stage *s,
                             unsigned number,
                             unsigned listener)
{
    struct player *p = player_add(s, 'c', number);
    if (p == NULL) {
        return NULL;
    }
    p->id = engine_reserve(s->engine, listener);
    if (p->id == 0) {
        p->open = false; /* clients_max */
        return p;
    }
    stage_step(s, (struct event){ .type = EVENT_ACCEPTED,
                                  .conn = p->id,
                                  .listener = listener });
    return p;
}

void stage_step(struct stage *s, struct event event)
{
    struct player *p = player_of(s, event.conn);
    if (p != NULL && event.type == EVENT_CONNECTED) {
        p->connecting = false;
    }
    event.now_us = s->now_us;
    engine_step(s->engine, &event);
    drain(s);
    stage_serve(s);
}

static void bytes_once(struct stage *s, struct player *p, struct span bytes)
{
    struct memory *m = engine_memory(s->engine);
    struct buf *b = buf_new(m, (uint32_t)bytes.len);
    if (b == NULL) {
        snprintf(s->error, sizeof s->error, "no memory for a read");
        return;
    }
    memcpy(b->data, bytes.data, bytes.len);
    b->len = (uint32_t)bytes.len;
    stage_step(s, (struct event){
                      .type = EVENT_BYTES,
                      .conn = p->id,
                      .bytes = { .buf = b, .offset = 0, .len = b->len } });
}

void stage_bytes(struct stage *s, struct player *p, struct span bytes)
{
    if (!s->split) {
        bytes_once(s, p, bytes);
        return;
    }
    for (size_t i = 0; i < bytes.len && s->error[0] == '\0'; i++) {
        bytes_once(s, p, (struct span){ .data = bytes.data + i, .len = 1 });
    }
}

void stage_taken(struct stage *s, struct player *p, uint64_t count)
{
    p->untaken -= count;
    stage_step(s, (struct event){
                      .type = EVENT_WRITTEN, .conn = p->id, .count = count });
}

bool stage_take(struct stage *s,
                const struct player *p,
                enum action_type type,
                char address[ADDRESS_TEXT_MAX])
{
    for (size_t i = 0; i < s->n_pending; i++) {
        if (s->pending[i].player != p || s->pending[i].type != type) {
            continue;
        }
        memcpy(address, s->pending[i].address, ADDRESS_TEXT_MAX);
        s->n_pending--;
        memmove(&s->pending[i], &s->pending[i + 1],
                (s->n_pending - i) * sizeof s->pending[0]);
        return true;
    }
    return false;
}

static const char *action_name(enum action_type type)
{
    switch (type) {
    case ACTION_RESOLVE: return "resolve";
    case ACTION_CONNECT: return "connect";
    case ACTION_WRITE: return "write";
    case ACTION_PAUSE: return "pause";
    case ACTION_RESUME: return "resume";
    case ACTION_CLOSE: return "close";
    }
    return "?";
}

void text_escape(struct bytes *out, struct span raw)
{
    for (size_t i = 0; i < raw.len; i++) {
        uint8_t c = raw.data[i];
        if (c == '\r') {
            bytes_add_text(out, "\\r");
        } else if (c == '\n') {
            bytes_add_text(out, "\\n");
        } else if (c == '"' || c == '\\') {
            bytes_printf(out, "\\%c", c);
        } else if (c < 128 && isprint(c)) {
            bytes_add(out, &c, 1);
        } else {
            bytes_printf(out, "\\x%02x", c);
        }
    }
}

bool stage_unexpected(struct stage *s, struct bytes *text)
{
    if (idle(s)) {
        return false;
    }
    for (size_t i = 0; i < s->n_pending; i++) {
        const struct pending *a = &s->pending[i];
        bytes_printf(text, "    %c%u %s %s\n", a->player->side,
                     a->player->number, action_name(a->type), a->address);
    }
    for (size_t i = 0; i < s->n_players; i++) {
        struct player *p = &s->players[i];
        if (p->written.size > 0 && p->peer == NULL) {
            bytes_printf(text, "    %c%u write \"", p->side, p->number);
            text_escape(text, bytes_span(&p->written));
            bytes_add_text(text, "\"\n");
        }
    }
    (void)peers_unexpected(s, text);
    return true;
}
