#include "tests/sim/server.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>

#include "tests/sim/cluster_model.h"
#include "tests/sim/server_parts.h"

const char *const server_users[SERVER_USERS] = { "default", "alice", "bob" };
const char *const server_passwords[SERVER_USERS] = { "d0", "a1", "b2" };

/* --- sessions ---------------------------------------------------------- */

void server_init(struct server *s, struct world *w)
{
    s->up = true;
    s->next_id = 3;
    s->data = data_new();
    s->password = w->settings.password;
    s->newer = w->settings.newer;
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
        free(c->subs);
        free(c->tracked);
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
void session_end(struct world *w, struct session *c, bool reset)
{
    if (c->dead) {
        return;
    }
    c->dead = true;
    wait_forget(c);
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

void session_send(struct world *w, struct session *c, struct bytes *reply)
{
    if (c->link != NULL && reply->size > 0) {
        link_send(w, c->link, bytes_front(reply), reply->size);
    }
}

void session_serve(struct world *w, struct session *c)
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
        command_execute(w, c, &m, raw, &reply);
        c->asking = asks; /* for one command */
        uint32_t request = history_find(w->history, raw);
        if (request != NO_REQUEST) {
            c->last_client = history_at(w->history, request)->client;
        }
        history_served(w, c->last_client);
        if (c->link != NULL) {
            c->link->last_client = c->last_client;
        }
        session_send(w, c, &reply);
        bytes_fini(&reply);
        if (!c->dead) {
            bytes_drop(&c->in, m.size);
        }
        if (c->close_after) {
            session_end(w, c, false);
        }
        server_changed(w, c->server);
    }
}

void server_receive(struct world *w, struct link *l, struct span bytes)
{
    struct session *c = l->session;
    if (c == NULL || c->dead) {
        return;
    }
    bytes_add(&c->in, bytes.data, bytes.len);
    if (!c->server->stopped) {
        session_serve(w, c);
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
        session_serve(w, c);
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
    server_force_unblock(
        w, s, -1,
        "-UNBLOCKED force unblock from blocking operation, instance state "
        "changed (master -> replica?)\r\n");
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
