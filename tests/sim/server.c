#include "tests/sim/server.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#include "tests/sim/cluster_model.h"

const char *const server_users[SERVER_USERS] = { "default", "alice", "bob" };
const char *const server_passwords[SERVER_USERS] = { "d0", "a1", "b2" };

/* --- sessions ---------------------------------------------------------- */

void server_init(struct server *s, struct world *w)
{
    s->up = true;
    s->next_id = 3;
    s->data = data_new();
    s->password = w->settings.password;
}

struct server *server_new(struct world *w)
{
    struct server *s = must_alloc(sizeof *s);
    server_init(s, w);
    return s;
}

void server_fini(struct server *s)
{
    while (s->sessions != NULL) {
        struct session *c = s->sessions;
        s->sessions = c->next;
        bytes_fini(&c->in);
        bytes_fini(&c->queued);
        bytes_fini(&c->blocked_words);
        free(c);
    }
    data_free(s->data);
}

void server_free(struct server *s)
{
    server_fini(s);
    free(s);
}

bool server_up(const struct server *s)
{
    return s->up;
}

bool server_stopped(const struct server *s)
{
    return s->stopped;
}

void server_accept(struct world *w, struct server *s, struct link *l)
{
    (void)w;
    struct session *c = must_alloc(sizeof *c);
    *c = (struct session){
        .next = s->sessions,
        .server = s,
        .link = l,
        .id = s->next_id++,
        .authenticated = !s->password,
        .ledger = { .resp = 2 },
        .blocked_request = NO_REQUEST,
    };
    s->sessions = c;
    l->session = c;
}

/* The server is done with a connection. */
static void session_end(struct world *w, struct session *c, bool reset)
{
    if (c->dead) {
        return;
    }
    c->dead = true;
    c->server->n_blocked -= c->blocked;
    c->blocked = false;
    bytes_clear(&c->in);
    struct link *l = c->link;
    c->link = NULL;
    if (l != NULL) {
        l->session = NULL;
        if (l->peer_open) {
            link_end(w, l, reset);
        }
    }
}

void server_hangup(struct world *w, struct link *l, bool reset)
{
    struct session *c = l->session;
    if (c == NULL) {
        return;
    }
    if (reset || !c->server->stopped) {
        l->peer_open = false;
        session_end(w, c, reset);
    } else {
        c->ended = true; /* noticed when it is continued */
    }
}

static void send(struct world *w, struct session *c, struct bytes *reply)
{
    if (c->link != NULL && reply->size > 0) {
        link_send(w, c->link, bytes_front(reply), reply->size);
    }
}

/* --- the commands about the connection --------------------------------- */

static int user_named(struct span name)
{
    for (int i = 0; i < SERVER_USERS; i++) {
        if (span_equal(name, span_of(server_users[i]))) {
            return i;
        }
    }
    return -1;
}

static bool authenticate(struct session *c,
                         struct span name,
                         struct span password,
                         struct bytes *out)
{
    int user = user_named(name);
    if (user < 0 || !span_equal(password, span_of(server_passwords[user]))) {
        bytes_add_text(out, "-WRONGPASS invalid username-password pair or user "
                            "is disabled.\r\n");
        return false;
    }
    c->ledger.user = (uint8_t)user;
    c->authenticated = true;
    return true;
}

static void on_auth(struct session *c,
                    const struct model_command *m,
                    struct bytes *out)
{
    bool named = m->argc == 3;
    struct span name = named ? m->arg[1] : span_of("default");
    if (authenticate(c, name, m->arg[m->argc - 1], out)) {
        bytes_add_text(out, "+OK\r\n");
    }
}

static void on_hello(struct world *w,
                     struct session *c,
                     const struct model_command *m,
                     struct bytes *out)
{
    int64_t resp = m->argc > 1 ? model_arg_number(m, 1, 0) : c->ledger.resp;
    if (resp != 2 && resp != 3) {
        bytes_add_text(out, "-NOPROTO unsupported protocol version\r\n");
        return;
    }
    for (size_t i = 2; i < m->argc; i++) {
        if (model_arg_is(m, i, "AUTH") && i + 2 < m->argc) {
            if (!authenticate(c, m->arg[i + 1], m->arg[i + 2], out)) {
                return;
            }
            i += 2;
        } else if (model_arg_is(m, i, "SETNAME")) {
            i++;
        }
    }
    if (!c->authenticated) {
        bytes_add_text(
            out, "-NOAUTH HELLO must be called with the client already "
                 "authenticated, otherwise the HELLO <proto> AUTH <user> "
                 "<pass> option can be used to authenticate the client and "
                 "select the RESP protocol version at the same time\r\n");
        return;
    }
    c->ledger.resp = (uint8_t)resp;
    model_map_add(out, (int)resp, 7);
    bool cluster = w->cluster != NULL;
    bool old = cluster && node_of(c)->old && node_of(c)->index % 2 == 0;
    bytes_printf(out,
                 "$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n"
                 "%s\r\n",
                 old ? "6.2.14" : "7.0.15");
    bytes_printf(out, "$5\r\nproto\r\n:%d\r\n$2\r\nid\r\n:%" PRIu64 "\r\n",
                 (int)resp, c->id);
    bytes_printf(out, "$4\r\nmode\r\n%s\r\n$4\r\nrole\r\n%s\r\n",
                 cluster ? "$7\r\ncluster" : "$10\r\nstandalone",
                 cluster && node_of(c)->replica ? "$7\r\nreplica"
                                                : "$6\r\nmaster");
    bytes_add_text(out, "$7\r\nmodules\r\n*0\r\n");
}

static void on_select(struct world *w,
                      struct session *c,
                      const struct model_command *m,
                      struct bytes *out)
{
    int64_t db = model_arg_number(m, 1, -1);
    if (w->cluster != NULL && db != 0) {
        bytes_add_text(out, "-ERR SELECT is not allowed in cluster mode\r\n");
        return;
    }
    if (db < 0 || db >= SERVER_DBS) {
        bytes_add_text(out, "-ERR DB index is out of range\r\n");
        return;
    }
    c->ledger.db = (uint8_t)db;
    bytes_add_text(out, "+OK\r\n");
}

static void on_client_kill(struct world *w,
                           struct session *c,
                           const struct model_command *m,
                           struct bytes *out)
{
    if (c->server->deny_fence) {
        bytes_add_text(out, "-NOPERM this user has no permissions to run the "
                            "'client|kill' command\r\n");
        return;
    }
    int64_t id = model_arg_number(m, 3, -1);
    int killed = 0;
    for (struct session *k = c->server->sessions; k != NULL; k = k->next) {
        if ((int64_t)k->id != id || k->dead) {
            continue;
        }
        killed++;
        if (k == c) {
            c->close_after = true;
        } else {
            session_end(w, k, false);
        }
    }
    bytes_printf(out, ":%d\r\n", killed);
}

static void on_client(struct world *w,
                      struct session *c,
                      const struct model_command *m,
                      struct bytes *out)
{
    if (model_arg_is(m, 1, "ID")) {
        bytes_printf(out, ":%" PRIu64 "\r\n", c->id);
    } else if (model_arg_is(m, 1, "KILL") && model_arg_is(m, 2, "ID")) {
        on_client_kill(w, c, m, out);
    } else if (model_arg_is(m, 1, "GETNAME")) {
        model_null_add(out, c->ledger.resp);
    } else {
        bytes_add_text(out, "+OK\r\n");
    }
}

static void on_ping(const struct model_command *m, struct bytes *out)
{
    if (m->argc > 1) {
        model_bulk_add(out, m->arg[1]);
    } else {
        bytes_add_text(out, "+PONG\r\n");
    }
}

/* --- transactions ------------------------------------------------------ */

static void multi_end(struct session *c)
{
    c->in_multi = false;
    c->multi_failed = false;
    c->n_queued = 0;
    bytes_clear(&c->queued);
    c->n_watched = 0;
}

static bool watched_changed(const struct session *c)
{
    for (unsigned i = 0; i < c->n_watched; i++) {
        if (data_version(c->watched[i]) != c->watched_version[i]) {
            return true;
        }
    }
    return false;
}

static void on_watch(struct session *c,
                     const struct model_command *m,
                     struct bytes *out)
{
    for (size_t i = 1; i < m->argc && c->n_watched < WATCHED_MAX; i++) {
        struct value *v = data_at(c->server->data, c->ledger.db, m->arg[i]);
        c->watched[c->n_watched] = v;
        c->watched_version[c->n_watched++] = data_version(v);
    }
    bytes_add_text(out, "+OK\r\n");
}

/* A command ran; of those clients sent, the history is kept. */
static void executed(struct world *w,
                     struct session *c,
                     uint32_t request,
                     struct span words,
                     const struct bytes *reply)
{
    struct model_command m;
    if (request == NO_REQUEST) {
        return;
    }
    history_executed(w, request, c, bytes_span(reply));
    if (w->cluster != NULL && model_command_read(words, &m) == MODEL_DONE &&
        data_writes(&m)) {
        cluster_wrote(w, c, request, words);
    }
}

static void exec_queued(struct world *w, struct session *c, struct bytes *out)
{
    struct bytes queued = c->queued;
    unsigned n = c->n_queued;
    size_t at = 0;
    c->queued = (struct bytes){ 0 };
    multi_end(c);
    bytes_printf(out, "*%u\r\n", n);
    while (at < queued.size) {
        struct span rest = { .data = bytes_front(&queued) + at,
                             .len = queued.size - at };
        struct model_command m;
        struct bytes reply = { 0 };
        if (model_command_read(rest, &m) != MODEL_DONE) {
            abort();
        }
        rest.len = m.size;
        uint32_t request = history_find(w->history, rest);
        data_command(c->server->data, c->ledger, &m, &reply);
        executed(w, c, request, rest, &reply);
        bytes_add(out, bytes_front(&reply), reply.size);
        bytes_fini(&reply);
        at += m.size;
    }
    bytes_fini(&queued);
}

static void on_exec(struct world *w, struct session *c, struct bytes *out)
{
    if (!c->in_multi) {
        bytes_add_text(out, "-ERR EXEC without MULTI\r\n");
    } else if (c->multi_failed || c->server->readonly_until > w->now_us) {
        multi_end(c);
        bytes_add_text(
            out,
            "-EXECABORT Transaction discarded because of previous errors.\r\n");
    } else if (watched_changed(c)) {
        multi_end(c);
        model_null_array_add(out, c->ledger.resp);
    } else {
        exec_queued(w, c, out);
    }
}

/* MULTI and what belongs to it; false for any other command. */
static bool transaction(struct world *w,
                        struct session *c,
                        const struct model_command *m,
                        struct bytes *out)
{
    if (model_arg_is(m, 0, "MULTI")) {
        if (c->in_multi) {
            bytes_add_text(out, "-ERR MULTI calls can not be nested\r\n");
        } else {
            c->in_multi = true;
            bytes_add_text(out, "+OK\r\n");
        }
    } else if (model_arg_is(m, 0, "EXEC")) {
        on_exec(w, c, out);
    } else if (model_arg_is(m, 0, "DISCARD")) {
        bytes_add_text(out, c->in_multi ? "+OK\r\n"
                                        : "-ERR DISCARD without MULTI\r\n");
        multi_end(c);
    } else if (model_arg_is(m, 0, "UNWATCH")) {
        c->n_watched = 0;
        bytes_add_text(out, "+OK\r\n");
    } else {
        return false;
    }
    return true;
}

/* --- one command ------------------------------------------------------- */

/* Commands of the connection; false for any other. */
static bool connection(struct world *w,
                       struct session *c,
                       const struct model_command *m,
                       struct bytes *out)
{
    if (model_arg_is(m, 0, "AUTH")) {
        on_auth(c, m, out);
    } else if (model_arg_is(m, 0, "HELLO")) {
        on_hello(w, c, m, out);
    } else if (!c->authenticated) {
        return false;
    } else if (model_arg_is(m, 0, "SELECT")) {
        on_select(w, c, m, out);
    } else if (model_arg_is(m, 0, "CLIENT")) {
        on_client(w, c, m, out);
    } else {
        return false;
    }
    return true;
}

static bool refused(struct world *w,
                    struct session *c,
                    const struct model_command *m,
                    struct bytes *out)
{
    if (!c->authenticated) {
        bytes_add_text(out, "-NOAUTH Authentication required.\r\n");
        return true;
    }
    struct server *s = c->server;
    if (w->cluster != NULL && cluster_refuses(w, c, m, out)) {
        return true;
    }
    static const char *const always[] = { "ECHO",  "MULTI",   "EXEC", "DISCARD",
                                          "WATCH", "UNWATCH", "ROLE" };
    for (size_t i = 0; i < sizeof always / sizeof always[0]; i++) {
        if (model_arg_is(m, 0, always[i])) {
            return false;
        }
    }
    if (s->loading_until > w->now_us) {
        bytes_add_text(out,
                       "-LOADING Redis is loading the dataset in memory\r\n");
        return true;
    }
    if (s->readonly_until > w->now_us && data_writes(m)) {
        bytes_add_text(
            out, "-READONLY You can't write against a read only replica.\r\n");
        return true;
    }
    return false;
}

static void data_or_block(struct world *w,
                          struct session *c,
                          const struct model_command *m,
                          uint32_t request,
                          struct span raw,
                          struct bytes *out)
{
    if (model_arg_is(m, 0, "BLPOP") && !c->in_multi &&
        data_blpop_waits(c->server->data, c->ledger, m)) {
        int64_t seconds = model_arg_number(m, m->argc - 1, 1);
        c->blocked = true;
        c->server->n_blocked++;
        c->blocked_request = request;
        bytes_clear(&c->blocked_words);
        bytes_add(&c->blocked_words, raw.data, raw.len);
        c->blocked_on = data_at(c->server->data, c->ledger.db, m->arg[1]);
        world_wake(w, (uint64_t)seconds * 1000000, WAKE_UNBLOCK, c,
                   ++c->blocked_turn);
        return;
    }
    data_command(c->server->data, c->ledger, m, out);
    executed(w, c, request, raw, out);
}

/* A server that refuses writes is somebody's replica. */
static void on_role(struct world *w, const struct session *c, struct bytes *out)
{
    if (c->server->readonly_until > w->now_us) {
        bytes_add_text(out, "*5\r\n$5\r\nslave\r\n$8\r\n10.0.0.9\r\n:6379\r\n"
                            "$9\r\nconnected\r\n:1\r\n");
    } else {
        bytes_add_text(out, "*3\r\n$6\r\nmaster\r\n:1\r\n*0\r\n");
    }
}

static bool known_stranger(const struct model_command *m)
{
    static const char *const words[] = { "PING",      "MULTI", "EXEC",
                                         "DISCARD",   "WATCH", "UNWATCH",
                                         "SUBSCRIBE", "ROLE",  "DBSIZE",
                                         "KEYS",      "SCAN" };
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++) {
        if (model_arg_is(m, 0, words[i])) {
            return true;
        }
    }
    return false;
}

static void queue_command(struct session *c, struct span raw, struct bytes *out)
{
    bytes_add(&c->queued, raw.data, raw.len);
    c->n_queued++;
    bytes_add_text(out, "+QUEUED\r\n");
}

static void command(struct world *w,
                    struct session *c,
                    const struct model_command *m,
                    struct span raw,
                    struct bytes *out)
{
    if (connection(w, c, m, out)) {
        return;
    }
    if (w->cluster != NULL && c->authenticated &&
        cluster_command(w, c, m, out)) {
        return;
    }
    uint32_t request = history_find(w->history, raw);
    if (request == NO_REQUEST && c->authenticated && !known_stranger(m)) {
        world_violate(w, "I4: the server got a command nobody sent: %.*s",
                      (int)(raw.len < 80 ? raw.len : 80),
                      (const char *)raw.data);
    }
    if (refused(w, c, m, out)) {
        c->multi_failed = c->in_multi;
        if (model_arg_is(m, 0, "EXEC")) {
            multi_end(c); /* redirected: the block is forgotten */
        }
        if (request != NO_REQUEST) {
            history_refused(w, request, bytes_span(out));
        }
    } else if (transaction(w, c, m, out)) {
        return;
    } else if (c->in_multi) {
        queue_command(c, raw, out);
    } else if (model_arg_is(m, 0, "ROLE")) {
        on_role(w, c, out);
    } else if (model_arg_is(m, 0, "WATCH")) {
        on_watch(c, m, out);
    } else if (model_arg_is(m, 0, "PING")) {
        on_ping(m, out);
        executed(w, c, request, raw, out);
    } else if (model_arg_is(m, 0, "SUBSCRIBE")) {
        bytes_add_text(out, c->ledger.resp == 3 ? ">3\r\n" : "*3\r\n");
        bytes_add_text(out, "$9\r\nsubscribe\r\n");
        model_bulk_add(out, m->arg[1]);
        bytes_add_text(out, ":1\r\n");
    } else {
        data_or_block(w, c, m, request, raw, out);
    }
}

/* A blocked command ends with this reply. */
static void unblock(struct world *w, struct session *c, struct bytes *reply)
{
    c->blocked = false;
    c->server->n_blocked--;
    executed(w, c, c->blocked_request, bytes_span(&c->blocked_words), reply);
    send(w, c, reply);
    world_wake(w, 0, WAKE_UNBLOCK, c, 0); /* go on with what came behind */
}

/* A list has got something: serve who waits for it. */
static void wake_blocked(struct world *w, struct server *s)
{
    if (s->n_blocked == 0) {
        return;
    }
    for (struct session *c = s->sessions; c != NULL; c = c->next) {
        struct bytes reply = { 0 };
        if (c->blocked && data_pop(c->blocked_on, &reply)) {
            unblock(w, c, &reply);
        }
        bytes_fini(&reply);
    }
}

static void serve(struct world *w, struct session *c)
{
    struct model_command m;
    while (!c->dead && !c->blocked && c->in.size > 0 && !world_broken(w)) {
        enum model_scan scan = model_command_read(bytes_span(&c->in), &m);
        if (scan == MODEL_BROKEN) {
            world_violate(w, "I4: the server got something that is no command");
        }
        if (scan != MODEL_DONE) {
            return;
        }
        struct bytes reply = { 0 };
        struct span raw = { .data = bytes_front(&c->in), .len = m.size };
        bool asks = model_arg_is(&m, 0, "ASKING");
        command(w, c, &m, raw, &reply);
        c->asking = asks; /* for one command */
        uint32_t request = history_find(w->history, raw);
        if (request != NO_REQUEST) {
            c->last_client = history_at(w->history, request)->client;
        }
        history_served(w, c->last_client);
        if (c->link != NULL) {
            c->link->last_client = c->last_client;
        }
        send(w, c, &reply);
        bytes_fini(&reply);
        if (!c->dead) {
            bytes_drop(&c->in, m.size);
        }
        if (c->close_after) {
            session_end(w, c, false);
        }
        wake_blocked(w, c->server);
    }
}

void server_force_unblock(struct world *w,
                          struct server *s,
                          int slot,
                          const char *error)
{
    for (struct session *c = s->sessions; c != NULL; c = c->next) {
        struct bytes reply = { 0 };
        if (!c->blocked ||
            (slot >= 0 && model_slot(data_key(c->blocked_on)) != slot)) {
            continue;
        }
        bytes_add_text(&reply, error);
        c->blocked = false;
        s->n_blocked--;
        if (c->blocked_request != NO_REQUEST) {
            history_refused(w, c->blocked_request, bytes_span(&reply));
        }
        send(w, c, &reply);
        bytes_fini(&reply);
        world_wake(w, 0, WAKE_UNBLOCK, c, 0);
    }
}

void server_unblock(struct world *w, struct session *c, uint64_t turn)
{
    struct bytes reply = { 0 };
    if (c->dead) {
        return;
    }
    if (c->server->stopped) {
        world_wake(w, 10000, WAKE_UNBLOCK, c, turn); /* it is asleep, too */
    } else if (turn == 0) {
        serve(w, c);
    } else if (c->blocked && c->blocked_turn == turn) {
        model_null_array_add(&reply, c->ledger.resp);
        unblock(w, c, &reply);
    }
    bytes_fini(&reply);
}

void server_receive(struct world *w, struct link *l, struct span bytes)
{
    struct session *c = l->session;
    if (c == NULL || c->dead) {
        return;
    }
    bytes_add(&c->in, bytes.data, bytes.len);
    if (!c->server->stopped) {
        serve(w, c);
    }
}

/* --- what happens to the server ---------------------------------------- */

void server_kill(struct world *w, struct server *s, uint64_t down_us)
{
    if (!s->up) {
        return;
    }
    s->up = false;
    s->stopped = false;
    s->stops++;
    bool reset = chance(w, 1, 2);
    for (struct session *c = s->sessions; c != NULL; c = c->next) {
        session_end(w, c, reset);
    }
    world_wake(w, down_us, WAKE_RESTART, s, 0);
    if (w->cluster != NULL) {
        cluster_killed(w, (struct node *)s);
    }
}

void server_restart(struct world *w, struct server *s)
{
    if (s->up || (w->cluster != NULL && ((struct node *)s)->left)) {
        return;
    }
    s->up = true;
    s->next_id = 3 + pick(w, 0, 3); /* ids begin anew */
    s->readonly_until = 0;
    if (strikes(w, FAULT_LOADING)) {
        s->loading_until = w->now_us + pick(w, 1000, 400000);
    }
}

void server_stop(struct world *w, struct server *s, uint64_t us)
{
    if (s->up && !s->stopped) {
        s->stopped = true;
        world_wake(w, us, WAKE_CONTINUE, s, ++s->stops);
    }
}

/* Continued after a stop: whose bytes are read first is anybody's guess. */
void server_continue(struct world *w, struct server *s, uint64_t stop)
{
    if (!s->stopped || stop != s->stops) {
        return;
    }
    s->stopped = false;
    struct session *order[64];
    unsigned n = 0;
    for (struct session *c = s->sessions; c != NULL && n < 64; c = c->next) {
        if (!c->dead) {
            order[n++] = c;
        }
    }
    for (unsigned i = n; i > 1; i--) {
        uint64_t k = pick(w, 0, i - 1);
        struct session *swap = order[i - 1];
        order[i - 1] = order[k];
        order[k] = swap;
    }
    for (unsigned i = 0; i < n; i++) {
        struct session *c = order[i];
        serve(w, c);
        if (c->ended && !c->dead) {
            c->link->peer_open = false;
            session_end(w, c, false);
        } else if (!c->dead) {
            link_pump(w, c->link);
        }
    }
}

void server_load(struct world *w, struct server *s, uint64_t us)
{
    s->loading_until = w->now_us + us;
}

void server_readonly(struct world *w, struct server *s, uint64_t us)
{
    s->readonly_until = w->now_us + us;
}

/* Close one connection, as CLIENT KILL by somebody else does. */
void server_kick(struct world *w, struct server *s)
{
    struct session *c = s->sessions;
    uint64_t skip = pick(w, 0, 3);
    while (c != NULL && (c->dead || skip-- > 0)) {
        c = c->next;
    }
    if (c != NULL && !s->stopped) {
        session_end(w, c, chance(w, 1, 2));
    }
}

void server_deny_fence(struct server *s, bool deny)
{
    s->deny_fence = deny;
}

void server_heal(struct world *w, struct server *s)
{
    s->loading_until = 0;
    s->readonly_until = 0;
    server_restart(w, s);
    server_continue(w, s, s->stops);
}
