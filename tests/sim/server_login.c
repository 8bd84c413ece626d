/* Commands about the connection itself. */
#include <inttypes.h>
#include <stdio.h>

#include "tests/sim/cluster_model.h"
#include "tests/sim/server_parts.h"

static void set_name(struct session *c, struct span name)
{
    size_t n = name.len < NAME_MAX - 1 ? name.len : NAME_MAX - 1;
    if (n > 0) {
        memcpy(c->name, name.data, n);
    }
    c->name[n] = '\0';
    bool own =
        strncmp(c->name, "redial-", 7) == 0; /* a lane's, not a client's */
    c->ledger.name =
        own || n == 0 ? 0 : (uint32_t)hash_bytes(0, c->name, n) | 1;
}

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
        } else if (model_arg_is(m, i, "SETNAME") && i + 1 < m->argc) {
            set_name(c, m->arg[++i]);
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
                 old                 ? "6.2.14"
                 : w->settings.newer ? "7.2.10"
                                     : "7.0.15");
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

static bool on_off(const struct model_command *m, bool *flag, struct bytes *out)
{
    if (m->argc != 3 ||
        (!model_arg_is(m, 2, "ON") && !model_arg_is(m, 2, "OFF"))) {
        bytes_add_text(out, "-ERR syntax error\r\n");
        return false;
    }
    *flag = model_arg_is(m, 2, "ON");
    bytes_add_text(out, "+OK\r\n");
    return true;
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
    } else if (model_arg_is(m, 1, "GETNAME") && c->name[0] == '\0') {
        model_null_add(out, c->ledger.resp);
    } else if (model_arg_is(m, 1, "GETNAME")) {
        model_bulk_add(out, span_of(c->name));
    } else if (model_arg_is(m, 1, "SETNAME") && m->argc == 3) {
        set_name(c, m->arg[2]);
        bytes_add_text(out, "+OK\r\n");
    } else if (model_arg_is(m, 1, "NO-EVICT")) {
        bool on = c->ledger.no_evict != HINT_OFF;
        on_off(m, &on, out);
        c->ledger.no_evict = on ? HINT_ON : HINT_OFF;
    } else if (model_arg_is(m, 1, "NO-TOUCH") && w->settings.newer) {
        bool on = c->ledger.no_touch != HINT_OFF;
        on_off(m, &on, out);
        c->ledger.no_touch = on ? HINT_ON : HINT_OFF;
    } else if (model_arg_is(m, 1, "TRACKING")) {
        if (on_off(m, &c->ledger.tracking, out) && !c->ledger.tracking) {
            c->n_tracked = 0;
        }
    } else if (model_arg_is(m, 1, "SETINFO") && w->settings.newer) {
        bytes_add_text(out, "+OK\r\n");
    } else {
        bytes_printf(out,
                     "-ERR unknown subcommand '%.*s'. Try CLIENT HELP.\r\n",
                     m->argc > 1 ? (int)m->arg[1].len : 0,
                     m->argc > 1 ? (const char *)m->arg[1].data : "");
    }
}

/* What redis-server 7.0 makes of it: CLIENT NO-EVICT stays as it was. */
static void on_reset(struct session *c, struct bytes *out)
{
    uint8_t no_evict = c->server->newer ? HINT_OFF : c->ledger.no_evict;
    block_forget(c);
    c->ledger = (struct ledger){ .resp = 2, .no_evict = no_evict };
    c->authenticated = !c->server->password;
    c->n_subs = 0;
    c->n_tracked = 0;
    c->name[0] = '\0';
    c->readonly = false;
    bytes_add_text(out, "+RESET\r\n");
}

/* What it says of its commands. NOSUCH is one that redial does not know, and
 * gives a lane of its own from then on; when it is called it is not there, and
 * that is the server's right. Every third connection is to a server too old for
 * COMMAND LIST, every third one is of a user who may not ask. */
static void on_commands(const struct session *c,
                        const struct model_command *m,
                        struct bytes *out)
{
    static const char info[] = "*6\r\n$6\r\nnosuch\r\n:-1\r\n*1\r\n"
                               "+noscript\r\n:0\r\n:0\r\n:0\r\n";
    static const char get[] = "*6\r\n$3\r\nget\r\n:2\r\n*1\r\n+readonly\r\n"
                              ":1\r\n:1\r\n:1\r\n";
    uint64_t mood = c->id % 3;
    if (mood == 2) {
        bytes_add_text(out, "-NOPERM this user has no permissions to run the "
                            "'command' command\r\n");
    } else if (model_arg_is(m, 1, "LIST")) {
        bytes_add_text(out, mood == 1 ? "-ERR Unknown subcommand 'LIST'\r\n"
                                      : "*2\r\n$3\r\nget\r\n"
                                        "$6\r\nnosuch\r\n");
    } else if (model_arg_is(m, 1, "INFO")) {
        bytes_add_text(out, "*1\r\n");
        bytes_add_text(out, info);
    } else {
        bytes_add_text(out, "*2\r\n");
        bytes_add_text(out, get);
        bytes_add_text(out, info);
    }
}

bool login_command(struct world *w,
                   struct session *c,
                   const struct model_command *m,
                   struct bytes *out)
{
    if (model_arg_is(m, 0, "RESET")) {
        on_reset(c, out);
    } else if (model_arg_is(m, 0, "AUTH")) {
        on_auth(c, m, out);
    } else if (model_arg_is(m, 0, "HELLO")) {
        on_hello(w, c, m, out);
    } else if (model_arg_is(m, 0, "QUIT")) {
        bytes_add_text(out, "+OK\r\n");
        c->close_after = true;
    } else if (!c->authenticated) {
        return false;
    } else if (model_arg_is(m, 0, "SELECT")) {
        on_select(w, c, m, out);
    } else if (model_arg_is(m, 0, "CLIENT")) {
        on_client(w, c, m, out);
    } else if (model_arg_is(m, 0, "COMMAND")) {
        on_commands(c, m, out);
    } else {
        return false;
    }
    return true;
}
