/* Commands that change what a connection is: HELLO, AUTH, SELECT, CLIENT
 * SETNAME, GETNAME, SETINFO (redis.md §2). They choose the lane; they are
 * answered only after a server has accepted them. */
#include <stdio.h>

#include "parser/redis_error.h"
#include "proxy/core/lane_set.h"
#include "proxy/core/ledger.h"
#include "proxy/core/redis_pubsub.h"
#include "proxy/core/redis_tracking.h"
#include "proxy/core/state.h"
#include "proxy/core/words.h"

enum {
    STEP_PASSWORD = 1 /* of a TASK_SESSION: it gives a password */
};

static struct cluster *cluster_of(const struct downstream *d)
{
    return d->listener->cluster;
}

static bool is_private(const struct downstream *d)
{
    return d->lane != NULL;
}

static bool answer_here(struct engine *e, struct request *r, const char *text)
{
    cluster_of(r->downstream)->stats.local_replies++;
    downstream_answer_text(e, r, text);
    return true;
}

static bool forward(struct engine *e, struct downstream *d, struct request *r)
{
    redis_submit(e, d, r);
    return true;
}

static bool no_memory(struct engine *e, struct downstream *d, struct request *r)
{
    e->stats.limit_memory++;
    request_give_up(e, r, cluster_of(d), OUTCOME_NOT_SENT, GIVE_UP_POLICY,
                    "out of memory");
    return true;
}

/* ---- changing the session -------------------------------------------------- */

/* Ask for the session `next` (taken over): on a private lane by the command
 * itself, on shared lanes by moving to a lane that has it. */
static bool change_session(struct engine *e,
                           struct downstream *d,
                           struct request *r,
                           struct session *next)
{
    d->session_next = next;
    if (is_private(d)) {
        r->task = TASK_LEDGER;
        r->own_lane = true;
        return forward(e, d, r);
    }
    struct lane_set *set = lane_set_get(e, cluster_of(d), next, d);
    if (set == NULL) {
        redis_session_dropped(e, d);
        return no_memory(e, d, r);
    }
    downstream_join(e, d, set);
    r->task = TASK_SESSION;
    return forward(e, d, r);
}

void redis_session_dropped(struct engine *e, struct downstream *d)
{
    session_free(e, d->session_next);
    d->session_next = NULL;
    if (is_private(d) || downstream_gone(d)) {
        return;
    }
    if (!redis_bind_shared(e, d)) {
        downstream_close(e, d, "out of memory");
    }
}

static void commit_session(struct engine *e, struct downstream *d)
{
    session_free(e, d->session);
    d->session = d->session_next;
    d->session_next = NULL;
}

static const char *refusal_without_password(const struct request *r)
{
    return r->command->id == COMMAND_HELLO
               ? "-NOAUTH HELLO must be called with the client already "
                 "authenticated, otherwise the HELLO <proto> AUTH <user> "
                 "<pass> option can be used to authenticate the client and "
                 "select the RESP protocol version at the same time\r\n"
               : "-NOAUTH Authentication required.\r\n";
}

static void answer_hello(struct engine *e,
                         struct upstream *u,
                         struct request *r)
{
    uint8_t first = 0;
    chain_copy(&u->hello, &first, 1);
    if (!chain_share(e->memory, &r->reply, &u->hello)) {
        downstream_close(e, r->downstream, "out of memory for its reply");
        return;
    }
    if (first == '-') {
        /* A server before 6.0, or one that wants a password. */
        redis_session_dropped(e, r->downstream);
    } else {
        commit_session(e, r->downstream);
    }
    if (!downstream_gone(r->downstream)) {
        downstream_answer(e, r);
    }
}

static void accept_setinfo(struct engine *e,
                           struct upstream *u,
                           struct request *r);

/* u has long had this identity, but whether the password is right, only the
 * server can say, each time anew: the words go there. Its answer decides. */
static void verify(struct engine *e, struct upstream *u, struct request *r)
{
    const struct session *s = r->downstream->session_next;
    if (r->command->id ==
        COMMAND_HELLO) { /* without a name: u is everybody's */
        struct span words[] = { span_of("HELLO"),
                                span_of(s->resp == 3 ? "3" : "2"),
                                span_of("AUTH"), text_span(&s->username),
                                text_span(&s->password) };
        struct buf *b = words_pack(e->memory, words, 5);
        if (b == NULL) {
            no_memory(e, r->downstream, r);
            return;
        }
        request_drop_bytes(e, r);
        r->part = (struct slice){ .buf = b, .len = b->len };
        r->size = b->len;
    }
    r->task = TASK_LEDGER;
    upstream_send(e, u, r);
}

/* As long as the server executes it, it reads nothing else from there. */
static bool carries_script(const struct upstream *u)
{
    LIST_FOR_EACH (node, &u->in_flight) {
        const struct request *r = CONTAINER_OF(node, struct request, place);
        if (r->command != NULL && r->command->id == COMMAND_SCRIPT_CALL) {
            return true;
        }
    }
    return false;
}

void redis_session_aside(struct engine *e,
                         struct endpoint *p,
                         struct request *r)
{
    struct cluster *c = p->cluster;
    struct lane_set *set = lane_set_aside(e, c, r->downstream->session_next);
    struct upstream *aside = set == NULL ? NULL : lane_set_lane(e, set, p);
    if (r->state != REQUEST_NEW) {
        request_move(r, REQUEST_NEW);
    }
    if (aside == NULL) {
        e->stats.limit_memory++;
        request_give_up(e, r, c, OUTCOME_NOT_SENT, GIVE_UP_POLICY,
                        "out of memory");
        return;
    }
    upstream_submit(e, aside, r);
}

void redis_session_accepted(struct engine *e,
                            struct upstream *u,
                            struct request *r)
{
    struct downstream *d = r->downstream;
    if (r->task == TASK_SETINFO) {
        accept_setinfo(e, u, r);
        return;
    }
    if (r->step == STEP_PASSWORD && !u->unauthenticated &&
        u->up_us < r->arrived_us) {
        if (carries_script(u)) {
            redis_session_aside(e, u->endpoint, r);
        } else {
            verify(e, u, r);
        }
        return;
    }
    cluster_of(d)->stats.local_replies++;
    if (u->unauthenticated && r->command->id != COMMAND_HELLO) {
        const char *text = refusal_without_password(r);
        redis_session_dropped(e, d);
        if (!downstream_gone(d)) {
            downstream_answer_text(e, r, text);
        }
        return;
    }
    if (r->command->id == COMMAND_HELLO) {
        answer_hello(e, u, r);
        return;
    }
    commit_session(e, d);
    downstream_answer_text(e, r, "+OK\r\n");
}

void redis_session_refused(struct engine *e,
                           struct request *r,
                           struct span text)
{
    struct downstream *d = r->downstream;
    cluster_of(d)->stats.server_errors++;
    redis_session_dropped(e, d);
    if (!downstream_gone(d)) {
        downstream_answer_span(e, r, text);
    }
}

/* A session command that went to a private lane was accepted. */
void redis_ledger_reply(struct engine *e, struct upstream *u, struct request *r)
{
    struct downstream *d = r->downstream;
    if (r->task == TASK_LINE) {
        /* RESET keeps NO-EVICT and its like. After TRACKING the server goes on
         * to tell the connection of keys that this client has read. */
        u->spoilt = true;
        if (cluster_of(d)->slots != NULL) {
            return; /* a hint to one node */
        }
        d->session_unknown = !ledger_note(e, d, r) || d->session_unknown;
        if (d->ledger != NULL && r->command->id == COMMAND_CLIENT_TRACKING) {
            tracking_accepted(e, d, r);
        }
        return;
    }
    if (r->task == TASK_CACHING) {
        return;
    }
    if (r->task == TASK_SUBSCRIBE) {
        subscriber_answered(e, u, r, true);
        return;
    }
    if (r->task == TASK_ID) {
        struct ledger *l = ledger_get(e, d);
        if (l != NULL) {
            l->id_told = true;
            l->told_id = u->client_id;
        }
        u->spoilt = true;
        return;
    }
    if (d->session_next == NULL) {
        return;
    }
    struct session *copy =
        u->owner != NULL ? session_copy(e, d->session_next) : NULL;
    if (u->owner == NULL) {
        commit_session(e, d); /* it is on a lane of that session already */
        return;
    }
    if (copy == NULL) {
        e->stats.limit_memory++;
        d->session_unknown = true; /* a new lane would not be the same */
    } else {
        session_free(e, u->session);
        u->session = copy;
    }
    commit_session(e, d);
    subscriber_mind(e, d);
    /* What goes to other nodes goes in the new session, too. */
    if (d->shared != NULL && !redis_bind_shared(e, d)) {
        downstream_close(e, d, "out of memory for its session");
    }
}

/* ---- commands --------------------------------------------------------------- */

static bool parse_db(struct span text, uint32_t *db)
{
    uint64_t value = 0;
    if (text.len == 0 || text.len > 9 ||
        (text.len > 1 && text.data[0] == '0')) {
        return false;
    }
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] < '0' || text.data[i] > '9') {
            return false;
        }
        value = value * 10 + (uint64_t)(text.data[i] - '0');
    }
    *db = (uint32_t)value;
    return true;
}

bool redis_select(struct engine *e, struct downstream *d, struct request *r)
{
    if (d->n_open > 0) {
        return false;
    }
    struct request_args args;
    uint32_t db = 0;
    request_args_init(e, &args, r);
    bool valid = args.argc == 2 && parse_db(args.list[1], &db);
    request_args_fini(e, &args);
    if (!valid) {
        return forward(e, d, r); /* the server says what is wrong with it */
    }
    struct session *next = session_copy(e, downstream_session(e, d));
    if (next == NULL) {
        return no_memory(e, d, r);
    }
    next->db = db;
    return change_session(e, d, r, next);
}

/* auth = own: what the listener says of a user and password. */
static bool own_password_ok(const struct listener_config *config,
                            struct span user,
                            struct span password)
{
    if (config->password == NULL) {
        return user.data != NULL && span_equal(user, span_of("default"));
    }
    const char *expected =
        config->username != NULL ? config->username : "default";
    struct span want = span_of(config->password);
    /* Compared whole, so that the time tells nothing of where it differs. */
    uint8_t difference = password.len != want.len;
    for (size_t i = 0; i < password.len; i++) {
        difference |=
            want.len == 0
                ? 1
                : (uint8_t)(password.data[i] ^ want.data[i % want.len]);
    }
    bool user_ok = user.data == NULL || config->username == NULL
                       ? true
                       : span_equal(user, span_of(expected));
    return difference == 0 && user_ok;
}

static bool auth_own(struct engine *e,
                     struct downstream *d,
                     struct request *r,
                     struct span user,
                     struct span password)
{
    const struct listener_config *config = d->listener->config;
    if (config->password == NULL && user.data == NULL) {
        return answer_here(
            e, r,
            "-ERR AUTH <password> called without any password configured for "
            "the default user. Are you sure your configuration is correct?"
            "\r\n");
    }
    if (!own_password_ok(config, user, password)) {
        return answer_here(
            e, r,
            "-WRONGPASS invalid username-password pair or user is disabled."
            "\r\n");
    }
    if (d->session == NULL) {
        d->session = session_copy(e, downstream_session(e, d));
        if (d->session == NULL) {
            return no_memory(e, d, r);
        }
    }
    d->session->authenticated = true;
    return answer_here(e, r, "+OK\r\n");
}

/* A copy of the client's session with other credentials, or NULL. */
static struct session *session_with(struct engine *e,
                                    struct downstream *d,
                                    struct span user,
                                    struct span password)
{
    struct session *next = session_copy(e, downstream_session(e, d));
    if (next == NULL) {
        return NULL;
    }
    text_clear(e, &next->username);
    if ((user.data == NULL || text_set(e, &next->username, user)) &&
        text_set(e, &next->password, password)) {
        return next;
    }
    session_free(e, next);
    return NULL;
}

bool redis_auth(struct engine *e, struct downstream *d, struct request *r)
{
    if (d->n_open > 0) {
        return false;
    }
    struct request_args args;
    request_args_init(e, &args, r);
    bool taken = true;
    struct span user = { 0 };
    struct span password = { 0 };
    if (args.argc == 2) {
        password = args.list[1];
    } else if (args.argc == 3) {
        user = args.list[1];
        password = args.list[2];
    }
    if (args.argc != 2 && args.argc != 3) {
        taken = forward(e, d, r);
    } else if (d->listener->config->auth != AUTH_PASS) {
        taken = auth_own(e, d, r, user, password);
    } else {
        struct session *next = session_with(e, d, user, password);
        r->step = STEP_PASSWORD;
        taken =
            next != NULL ? change_session(e, d, r, next) : no_memory(e, d, r);
    }
    request_args_fini(e, &args);
    return taken;
}

/* What a HELLO asks for. */
struct hello {
    uint8_t resp; /* 0: not said */
    bool auth;
    struct span user;
    struct span password;
    bool setname;
    struct span name;
};

/* Returns NULL, or the error as Redis words it. text is room for it. */
static const char *parse_hello(const struct request_args *args,
                               struct hello *h,
                               char *text,
                               size_t max)
{
    *h = (struct hello){ 0 };
    if (args->argc == 1) {
        return NULL;
    }
    uint32_t version = 0;
    if (!parse_db(args->list[1], &version)) {
        return "-ERR Protocol version is not an integer or out of range\r\n";
    }
    if (version != 2 && version != 3) {
        return "-NOPROTO unsupported protocol version\r\n";
    }
    h->resp = (uint8_t)version;
    for (size_t i = 2; i < args->argc && i < REQUEST_ARGS_MAX; i++) {
        size_t more = args->argc - 1 - i;
        if (more >= 2 && span_is_word(args->list[i], "AUTH")) {
            h->auth = true;
            h->user = args->list[i + 1];
            h->password = args->list[i + 2];
            i += 2;
        } else if (more >= 1 && span_is_word(args->list[i], "SETNAME")) {
            h->setname = true;
            h->name = args->list[i + 1];
            i += 1;
        } else {
            snprintf(text, max, "-ERR Syntax error in HELLO option '%.*s'\r\n",
                     (int)(args->list[i].len < 64 ? args->list[i].len : 64),
                     (const char *)args->list[i].data);
            return text;
        }
    }
    return NULL;
}

static bool name_is_valid(struct span name)
{
    for (size_t i = 0; i < name.len; i++) {
        if (name.data[i] < '!' || name.data[i] > '~') {
            return false;
        }
    }
    return true;
}

static const char bad_name[] = "-ERR Client names cannot contain spaces, "
                               "newlines or special characters.\r\n";

static bool apply_hello(struct engine *e,
                        struct downstream *d,
                        struct request *r,
                        const struct hello *h)
{
    const struct listener_config *config = d->listener->config;
    bool pass = config->auth == AUTH_PASS;
    if (h->setname && !name_is_valid(h->name)) {
        return answer_here(e, r, bad_name);
    }
    bool known = downstream_session(e, d)->authenticated ||
                 config->auth != AUTH_OWN || config->password == NULL;
    if (!pass && h->auth && !own_password_ok(config, h->user, h->password)) {
        return answer_here(
            e, r,
            "-WRONGPASS invalid username-password pair or user is disabled."
            "\r\n");
    }
    if (!pass && !h->auth && !known) {
        return answer_here(e, r, refusal_without_password(r));
    }
    struct session *next = h->auth && pass
                               ? session_with(e, d, h->user, h->password)
                               : session_copy(e, downstream_session(e, d));
    if (next == NULL || (h->setname && !text_set(e, &next->name, h->name))) {
        session_free(e, next);
        return no_memory(e, d, r);
    }
    next->authenticated = next->authenticated || h->auth;
    r->step = h->auth && pass ? STEP_PASSWORD : 0;
    if (h->resp != 0) {
        next->resp = h->resp;
    }
    return change_session(e, d, r, next);
}

bool redis_hello(struct engine *e, struct downstream *d, struct request *r)
{
    if (d->n_open > 0) {
        return false;
    }
    struct request_args args;
    struct hello hello;
    char text[128];
    request_args_init(e, &args, r);
    bool taken = true;
    if (args.argc == 0) {
        taken = no_memory(e, d, r);
    } else {
        const char *error = parse_hello(&args, &hello, text, sizeof(text));
        taken = error != NULL ? answer_here(e, r, error)
                              : apply_hello(e, d, r, &hello);
    }
    request_args_fini(e, &args);
    return taken;
}

/* The client's own session, made when it first says something. */
static struct session *own_session(struct engine *e, struct downstream *d)
{
    if (d->session == NULL) {
        d->session = session_copy(e, downstream_session(e, d));
    }
    return d->session;
}

bool redis_setname(struct engine *e, struct downstream *d, struct request *r)
{
    if (is_private(d) && d->n_open > 0) {
        return false;
    }
    struct request_args args;
    request_args_init(e, &args, r);
    bool taken = true;
    if (args.argc != 3 || !name_is_valid(args.list[2]) ||
        redis_unauthenticated(d)) {
        taken = forward(e, d, r);
    } else if (is_private(d)) {
        struct session *next = session_copy(e, downstream_session(e, d));
        if (next != NULL && text_set(e, &next->name, args.list[2])) {
            taken = change_session(e, d, r, next);
        } else {
            session_free(e, next);
            taken = no_memory(e, d, r);
        }
    } else {
        struct session *s = own_session(e, d);
        if (s == NULL || !text_set(e, &s->name, args.list[2])) {
            taken = no_memory(e, d, r);
        } else {
            taken = answer_here(e, r, "+OK\r\n");
        }
    }
    request_args_fini(e, &args);
    return taken;
}

bool redis_getname(struct engine *e, struct downstream *d, struct request *r)
{
    const struct session *s = downstream_session(e, d);
    struct request_args args;
    request_args_init(e, &args, r);
    bool plain = args.argc == 2;
    request_args_fini(e, &args);
    if (!plain || redis_unauthenticated(d) || is_private(d)) {
        r->own_lane = is_private(d);
        return forward(e, d, r);
    }
    if (s->name.data == NULL || s->name.len == 0) {
        return answer_here(e, r, s->resp == 3 ? "_\r\n" : "$-1\r\n");
    }
    char head[32];
    snprintf(head, sizeof(head), "$%zu\r\n", s->name.len);
    if (!chain_push_copy(e->memory, &r->reply, span_of(head)) ||
        !chain_push_copy(e->memory, &r->reply, text_span(&s->name)) ||
        !chain_push_copy(e->memory, &r->reply, span_of("\r\n"))) {
        downstream_close(e, d, "out of memory for its reply");
        return true;
    }
    cluster_of(d)->stats.local_replies++;
    downstream_answer(e, r);
    return true;
}

/* The lane is up: the server's version tells whether it would take it. */
static void accept_setinfo(struct engine *e,
                           struct upstream *u,
                           struct request *r)
{
    struct downstream *d = r->downstream;
    struct request_args args;
    request_args_init(e, &args, r);
    struct span value = args.argc == 4 ? args.list[3] : (struct span){ 0 };
    bool name = args.argc == 4 && span_is_word(args.list[2], "LIB-NAME");
    bool version = args.argc == 4 && span_is_word(args.list[2], "LIB-VER");
    bool plain = (name || version) && name_is_valid(value) &&
                 !u->unauthenticated && !is_private(d) &&
                 u->endpoint->version >= VERSION_WITH_SETINFO;
    struct session *s = plain ? own_session(e, d) : NULL;
    bool kept =
        s != NULL && text_set(e, name ? &s->lib_name : &s->lib_version, value);
    request_args_fini(e, &args);
    if (kept) {
        answer_here(e, r, "+OK\r\n");
    } else {
        r->task = TASK_FORWARD; /* it is refused, and changes nothing */
        upstream_send(e, u, r);
    }
}

bool redis_setinfo(struct engine *e, struct downstream *d, struct request *r)
{
    r->task = is_private(d) ? TASK_FORWARD : TASK_SETINFO;
    r->own_lane = is_private(d);
    return forward(e, d, r);
}
