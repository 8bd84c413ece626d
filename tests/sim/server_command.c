/* One command at the model server, in the order in which redis-server looks at
 * it. */
#include <ctype.h>
#include <stdio.h>

#include "tests/sim/cluster_model.h"
#include "tests/sim/server_parts.h"

static void on_ping(const struct session *c,
                    const struct model_command *m,
                    struct bytes *out)
{
    struct span text = m->argc > 1 ? m->arg[1] : span_of("");
    if (c->n_subs > 0 && c->ledger.resp == 2) {
        bytes_add_text(out, "*2\r\n$4\r\npong\r\n");
        model_bulk_add(out, text);
    } else if (m->argc > 1) {
        model_bulk_add(out, text);
    } else {
        bytes_add_text(out, "+PONG\r\n");
    }
}

void command_executed(struct world *w,
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

static void cannot_execute(const struct model_command *m, struct bytes *out)
{
    char name[40] = "";
    size_t n = 0;
    size_t words = model_arg_is(m, 0, "CLIENT") && m->argc > 1 ? 2 : 1;
    for (size_t k = 0; k < words; k++) {
        for (size_t i = 0; i < m->arg[k].len && n + 2 < sizeof name; i++) {
            name[n++] = (char)tolower(m->arg[k].data[i]);
        }
        if (k + 1 < words) {
            name[n++] = '|';
        }
    }
    bytes_printf(out,
                 "-ERR Can't execute '%s': only (P|S)SUBSCRIBE / "
                 "(P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this "
                 "context\r\n",
                 name);
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
    if (c->n_subs > 0 && c->ledger.resp == 2 && !pubsub_allows(m)) {
        cannot_execute(m, out);
        return true;
    }
    static const char *const always[] = {
        "ECHO",         "MULTI",      "EXEC",         "DISCARD",
        "WATCH",        "UNWATCH",    "ROLE",         "SUBSCRIBE",
        "UNSUBSCRIBE",  "PSUBSCRIBE", "PUNSUBSCRIBE", "SSUBSCRIBE",
        "SUNSUBSCRIBE", "PUBLISH",    "SPUBLISH"
    };
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

static bool is_one_of(const struct model_command *m,
                      const char *const *words,
                      size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (model_arg_is(m, 0, words[i])) {
            return true;
        }
    }
    return false;
}

/* Commands that redial says itself, or that no two clients' can be told apart
 * of. */
static bool known_stranger(const struct model_command *m)
{
    static const char *const words[] = {
        "PING",       "MULTI",        "EXEC",       "DISCARD",
        "WATCH",      "UNWATCH",      "SUBSCRIBE",  "UNSUBSCRIBE",
        "PSUBSCRIBE", "PUNSUBSCRIBE", "SSUBSCRIBE", "SUNSUBSCRIBE",
        "ROLE",       "DBSIZE",       "KEYS",       "SCAN",
        "XINFO",
    };
    return is_one_of(m, words, sizeof words / sizeof words[0]);
}

/* What a transaction does not queue. */
static bool acts_at_once(const struct model_command *m)
{
    static const char *const words[] = { "MULTI", "EXEC",  "DISCARD",
                                         "WATCH", "RESET", "QUIT" };
    return is_one_of(m, words, sizeof words / sizeof words[0]);
}

static bool is_known(const struct model_command *m)
{
    return data_knows(m) || known_stranger(m) ||
           model_arg_is(m, 0, "PUBLISH") || model_arg_is(m, 0, "SPUBLISH");
}

static void say_refusal(struct world *w,
                        struct session *c,
                        const struct model_command *m,
                        uint32_t request,
                        const struct bytes *out)
{
    c->multi_failed = c->in_multi;
    if (model_arg_is(m, 0, "EXEC")) {
        block_forget(c); /* redirected: the block is forgotten */
    }
    if (request != NO_REQUEST) {
        history_refused(w, request, bytes_span(out));
    }
}

/* A command that is not about the connection runs. */
static void run(struct world *w,
                struct session *c,
                const struct model_command *m,
                uint32_t request,
                struct span raw,
                struct bytes *out)
{
    if (pubsub_command(w, c, m, request, raw, out)) {
        return;
    }
    if (model_arg_is(m, 0, "ROLE")) {
        on_role(w, c, out);
    } else if (model_arg_is(m, 0, "PING")) {
        on_ping(c, m, out);
        command_executed(w, c, request, raw, out);
    } else if (!wait_begins(w, c, m, request)) {
        data_command(c->server->data, c->ledger, m, out);
        tracking_read(c, m);
        command_executed(w, c, request, raw, out);
    }
}

void command_execute(struct world *w,
                     struct session *c,
                     const struct model_command *m,
                     struct span raw,
                     struct bytes *out)
{
    bool queues = c->in_multi && c->authenticated && !acts_at_once(m);
    bool subscribed = c->n_subs > 0 && c->ledger.resp == 2 &&
                      !model_arg_is(m, 0, "RESET") &&
                      !model_arg_is(m, 0, "QUIT");
    if (!queues && !subscribed && login_command(w, c, m, out)) {
        return;
    }
    if (w->cluster != NULL && c->authenticated && !subscribed &&
        cluster_command(w, c, m, out)) {
        return;
    }
    uint32_t request = history_find(w->history, raw);
    bool login = model_arg_is(m, 0, "CLIENT") || model_arg_is(m, 0, "SELECT") ||
                 model_arg_is(m, 0, "AUTH") || model_arg_is(m, 0, "HELLO");
    if (request == NO_REQUEST && c->authenticated && !known_stranger(m) &&
        !login && !subscribed) {
        world_violate(w, "I4: the server got a command nobody sent: %.*s",
                      (int)(raw.len < 80 ? raw.len : 80),
                      (const char *)raw.data);
    }
    if (refused(w, c, m, out)) {
        say_refusal(w, c, m, request, out);
    } else if (queues && !is_known(m) && !login) {
        data_unknown(m, out);
        say_refusal(w, c, m, request, out);
    } else if (block_command(w, c, m, request, out)) {
        return;
    } else if (queues) {
        bytes_add(&c->queued, raw.data, raw.len);
        c->n_queued++;
        bytes_add_text(out, "+QUEUED\r\n");
    } else {
        run(w, c, m, request, raw, out);
    }
}
