/* How a new server connection becomes a lane (redis.md §5): HELLO with AUTH,
 * SELECT, CLIENT ID, CLIENT SETNAME, ROLE where only a primary will do, then a
 * PING that must not be refused, and
 * the fence against what an old connection may still deliver (§4 rule 5). */
#include <inttypes.h>
#include <stdio.h>

#include "parser/redis_error.h"
#include "parser/reply.h"
#include "proxy/core/lane_set.h"
#include "proxy/core/learn.h"
#include "proxy/core/redis_block.h"
#include "proxy/core/redis_pubsub.h"
#include "proxy/core/state.h"
#include "proxy/core/words.h"

enum step {
    STEP_HELLO,
    STEP_AUTH,
    STEP_SELECT,
    STEP_ID,
    STEP_ROLE,
    STEP_PING,
    STEP_KILL,
    STEP_RESET,
    STEP_LINE,
    STEP_SUBSCRIBE,
    STEP_BLOCK
};

enum {
    WORDS_MAX = 8
};

static void no_memory(struct engine *e, struct upstream *u)
{
    e->stats.limit_memory++;
    upstream_lost(e, u,
                  &(struct upstream_loss){ .why = "out of memory",
                                           .tell = true });
}

/* Send words as a multibulk command. False: no memory. */
static bool send_words(struct engine *e,
                       struct upstream *u,
                       enum request_task task,
                       enum step step,
                       const struct span *words,
                       size_t n)
{
    struct buf *b = words_pack(e->memory, words, n);
    if (b == NULL) {
        return false;
    }
    bool sent = upstream_send_own(e, u, task, (uint8_t)step,
                                  (struct span){ b->data, b->len });
    memset(b->data, 0, b->len); /* it may hold a password */
    buf_unref(e->memory, b);
    return sent;
}

/* Say it in the handshake. Returns false when the lane is gone. */
static bool say(struct engine *e,
                struct upstream *u,
                enum step step,
                const struct span *words,
                size_t n)
{
    if (send_words(e, u, TASK_HANDSHAKE, step, words, n)) {
        return true;
    }
    no_memory(e, u);
    return false;
}

static void say_hello(struct engine *e, struct upstream *u)
{
    const struct session *s = u->session;
    struct span words[WORDS_MAX] = { span_of("HELLO"),
                                     span_of(s->resp == 3 ? "3" : "2") };
    size_t n = 2;
    if (s->username.data != NULL) {
        words[n++] = span_of("AUTH");
        words[n++] = text_span(&s->username);
        words[n++] = text_span(&s->password);
    }
    say(e, u, STEP_HELLO, words, n);
}

/* A password without a user goes by AUTH, which HELLO's AUTH is not quite: a
 * server without a password refuses the one and takes the other. */
void handshake_begin(struct engine *e, struct upstream *u)
{
    const struct session *s = u->session;
    if (s->password.data == NULL || s->username.data != NULL) {
        say_hello(e, u);
        return;
    }
    struct span words[] = { span_of("AUTH"), text_span(&s->password) };
    say(e, u, STEP_AUTH, words, 2);
}

/* Whether the server must not be a replica: behind sentinels it is the primary
 * only if it says so too; standalone, once it has refused a write. */
static bool must_be_primary(const struct upstream *u)
{
    const struct endpoint *p = u->endpoint;
    const struct cluster *c = p->cluster;
    return c->config->type == UPSTREAM_SENTINEL
               ? p == c->primary
               : c->topology == NULL && p->wants_primary;
}

static void say_ping(struct engine *e, struct upstream *u)
{
    struct span role[] = { span_of("ROLE") };
    struct span ping[] = { span_of("PING") };
    if (!must_be_primary(u) || say(e, u, STEP_ROLE, role, 1)) {
        say(e, u, STEP_PING, ping, 1);
    }
}

/* A client's own connection is called as the client says, by default nothing;
 * renamed: it was called otherwise before. */
static bool tell_name(struct engine *e, struct upstream *u, bool renamed)
{
    char name[80] = "";
    struct span words[] = { span_of("CLIENT"), span_of("SETNAME"), { 0 } };
    bool shared = u->set != NULL;
    if (!shared && u->session->name.data != NULL) {
        words[2] = text_span(&u->session->name);
    } else if (shared || renamed) {
        if (shared) {
            snprintf(name, sizeof(name), "redial-%.64s",
                     u->endpoint->cluster->config->name);
        }
        words[2] = span_of(name);
    } else {
        return true;
    }
    return send_words(e, u, TASK_ASIDE, STEP_HELLO, words, 3);
}

/* What its client's library is called. */
static bool tell_library(struct engine *e, struct upstream *u)
{
    const struct session *s = u->session;
    struct span words[] = { span_of("CLIENT"), span_of("SETINFO"),
                            span_of("LIB-NAME"), text_span(&s->lib_name) };
    if (u->owner == NULL || u->endpoint->version < VERSION_WITH_SETINFO) {
        return true;
    }
    if (s->lib_name.data != NULL &&
        !send_words(e, u, TASK_ASIDE, STEP_HELLO, words, 4)) {
        return false;
    }
    words[2] = span_of("LIB-VER");
    words[3] = text_span(&s->lib_version);
    return s->lib_version.data == NULL ||
           send_words(e, u, TASK_ASIDE, STEP_HELLO, words, 4);
}

/* Only labels: nothing depends on the answers. */
bool handshake_introduce(struct engine *e, struct upstream *u, bool renamed)
{
    return tell_name(e, u, renamed) && tell_library(e, u);
}

/* The identity is accepted: establish the rest in one go. A server in a long
 * script refuses the rest, and what is to end that script must get through. */
static void establish(struct engine *e, struct upstream *u)
{
    if (u->set != NULL && lane_set_is_aside(u->set)) {
        upstream_up(e, u);
        return;
    }
    if (u->session->db != 0) {
        char db[16];
        snprintf(db, sizeof(db), "%" PRIu32, u->session->db);
        struct span words[] = { span_of("SELECT"), span_of(db) };
        if (!say(e, u, STEP_SELECT, words, 2)) {
            return;
        }
    }
    struct span words[] = { span_of("CLIENT"), span_of("ID") };
    if (!say(e, u, STEP_ID, words, 2)) {
        return;
    }
    if (handshake_introduce(e, u, false)) {
        say_ping(e, u);
    } else {
        no_memory(e, u);
    }
}

static bool is_temporary(enum redis_error_kind kind)
{
    return kind == REDIS_ERROR_LOADING || kind == REDIS_ERROR_BUSY ||
           kind == REDIS_ERROR_MASTERDOWN || kind == REDIS_ERROR_MAXCLIENTS;
}

static void fail(struct engine *e, struct upstream *u, struct span reply)
{
    char why[ENDPOINT_ERROR_MAX];
    size_t len = reply.len < 120 ? reply.len : 120;
    while (len > 0 && reply.data[len - 1] < ' ') {
        len--;
    }
    snprintf(why, sizeof(why), "the server answered %.*s", (int)len,
             (const char *)reply.data);
    upstream_lost(e, u, &(struct upstream_loss){ .why = why, .tell = true });
}

static void refused(struct engine *e, struct upstream *u, struct span reply)
{
    if (is_temporary(redis_error_parse(reply).kind)) {
        fail(e, u, reply);
    } else {
        upstream_refused(e, u, reply);
    }
}

/* "7.0.15" -> 70015; 0 when it is not to be found. */
static uint32_t version_of(struct span hello)
{
    struct reply *tree = reply_parse(hello);
    uint32_t version = 0;
    if (tree != NULL) {
        const struct reply *text = reply_get(tree, "version");
        struct span v = text != NULL ? reply_text(text) : (struct span){ 0 };
        uint32_t part = 0;
        unsigned dots = 0;
        for (size_t i = 0; i < v.len && i < 16; i++) {
            if (v.data[i] == '.') {
                version = version * 100 + part;
                part = 0;
                dots++;
            } else if (v.data[i] >= '0' && v.data[i] <= '9') {
                part = part * 10 + (uint32_t)(v.data[i] - '0');
            }
        }
        version = version * 100 + part;
        version = dots == 2 ? version : 0;
    }
    reply_free(tree);
    return version;
}

static void hello_refused(struct engine *e,
                          struct upstream *u,
                          struct span reply)
{
    const struct session *s = u->session;
    enum redis_error_kind kind = redis_error_parse(reply).kind;
    if (u->endpoint->sentinel && s->resp == 3 &&
        (kind == REDIS_ERROR_UNKNOWN_COMMAND || kind == REDIS_ERROR_NOPROTO)) {
        u->session->resp = 2; /* it can't push, and is asked now and then */
        say_hello(e, u);
        return;
    }
    if (kind == REDIS_ERROR_UNKNOWN_COMMAND && s->resp == 2) {
        /* A server before 6.0 has neither HELLO nor users. */
        if (s->username.data == NULL) {
            establish(e, u);
        } else {
            refused(e, u, reply);
        }
        return;
    }
    if (kind == REDIS_ERROR_NOAUTH && s->password.data == NULL &&
        s->resp == 2) {
        /* The server wants a password and the client has not given one yet:
         * let the server tell it so. */
        u->unauthenticated = true;
        upstream_up(e, u);
        return;
    }
    refused(e, u, reply);
}

static void on_hello(struct engine *e, struct upstream *u, struct span reply)
{
    chain_clear(e->memory, &u->hello);
    if (!chain_push_copy(e->memory, &u->hello, reply)) {
        no_memory(e, u);
        return;
    }
    if (reply.data[0] == '-') {
        hello_refused(e, u, reply);
        return;
    }
    u->endpoint->version = version_of(reply);
    establish(e, u);
}

/* The server is in a long script, and would answer HELLO and AUTH: whoever waits
 * for that here hears of it, and may say what ends the script. */
static void ask_aside(struct engine *e, struct upstream *u)
{
    struct list_node *node = u->waiting.next;
    struct endpoint *p = u->endpoint;
    if (u->owner != NULL) {
        /* The first thing that a client says, and nothing lives here yet: it
         * gets another lane when it has been answered. */
        struct downstream *d = u->owner;
        struct request *r = CONTAINER_OF(node, struct request, place);
        if (node != &u->waiting && node->next == &u->waiting &&
            r->task == TASK_LEDGER && r->command->id == COMMAND_HELLO &&
            r->step == 0 && !redis_lane_is_held(d)) {
            upstream_unhold(e, u, r);
            r->task = TASK_SESSION;
            r->own_lane = false;
            downstream_disown(e, d);
            redis_session_aside(e, p, r);
        }
        return;
    }
    while (node != &u->waiting) {
        struct request *r = CONTAINER_OF(node, struct request, place);
        node = node->next;
        bool identity =
            r->command != NULL &&
            (r->command->id == COMMAND_HELLO || r->command->id == COMMAND_AUTH);
        if (r->task == TASK_SESSION && identity) {
            upstream_unhold(e, u, r);
            redis_session_aside(e, p, r);
        }
    }
}

/* The server is there but cannot serve yet: ask again, paced by the backoff. */
static void wait_for_server(struct engine *e,
                            struct upstream *u,
                            struct span reply)
{
    const struct upstream_config *config = u->endpoint->cluster->config;
    char why[64];
    struct redis_error error = redis_error_parse(reply);
    snprintf(why, sizeof(why), "the server answers %s",
             redis_error_name(error.kind));
    endpoint_failed(e, u->endpoint, why);
    uint64_t delay_us =
        backoff_next(&u->backoff, config->backoff, config->backoff_base_us,
                     config->backoff_cap_us, &e->rng);
    uint64_t again_us = e->now_us + delay_us;
    u->deadline_us = again_us + config->handshake_timeout_us;
    timer_set(&e->timers, &u->timer, again_us);
    if (error.kind == REDIS_ERROR_BUSY) {
        ask_aside(e, u);
    }
}

/* A server in a long script has refused the id and the name as well. */
void handshake_again(struct engine *e, struct upstream *u)
{
    timer_set(&e->timers, &u->timer, u->deadline_us);
    if (u->client_id == 0) {
        establish(e, u);
    } else {
        say_ping(e, u);
    }
}

/* All that is established has been, and nothing is unanswered. */
static void be_up_if_done(struct engine *e, struct upstream *u)
{
    if (u->establishing && list_empty(&u->in_flight) &&
        !learn_holds_lane(e, u)) {
        upstream_up(e, u);
    }
}

/* The connection is as a new one; now what its client had on the one before. */
static void establish_ledger(struct engine *e, struct upstream *u)
{
    u->establishing = true;
    if (u->owner == NULL || ledger_establish(e, u)) {
        be_up_if_done(e, u);
    }
}

bool handshake_say_line(struct engine *e, struct upstream *u, struct span line)
{
    if (upstream_send_own(e, u, TASK_HANDSHAKE, STEP_LINE, line)) {
        return true;
    }
    no_memory(e, u);
    return false;
}

bool handshake_subscribe(struct engine *e,
                         struct upstream *u,
                         struct span line,
                         uint32_t n)
{
    if (!upstream_send_own(e, u, TASK_HANDSHAKE, STEP_SUBSCRIBE, line)) {
        no_memory(e, u);
        return false;
    }
    CONTAINER_OF(u->in_flight.prev, struct request, place)->pieces_more = n - 1;
    return true;
}

bool handshake_subscribes(const struct request *r)
{
    return r->task == TASK_HANDSHAKE && r->step == STEP_SUBSCRIBE;
}

void handshake_goes_on(struct engine *e, struct upstream *u)
{
    if (u->state != UPSTREAM_HANDSHAKE) {
        return; /* a shard channel has followed its slot */
    }
    u->deadline_us = e->now_us + upstream_policy(u)->handshake_timeout_us;
    timer_set(&e->timers, &u->timer, u->deadline_us);
    be_up_if_done(e, u);
}

static void on_subscribe(struct engine *e,
                         struct upstream *u,
                         struct span reply)
{
    if (reply.data[0] == '-' && is_temporary(redis_error_parse(reply).kind)) {
        fail(e, u, reply);
        return;
    }
    subscriber_reply(e, u, reply);
    be_up_if_done(e, u);
}

bool handshake_say_words(struct engine *e,
                         struct upstream *u,
                         const struct span *words,
                         size_t n)
{
    return say(e, u, STEP_LINE, words, n);
}

bool handshake_say_block(struct engine *e,
                         struct upstream *u,
                         struct chain *bytes,
                         uint32_t n)
{
    if (n > 0 &&
        upstream_send_own_list(e, u, TASK_HANDSHAKE, STEP_BLOCK, bytes, n)) {
        return true;
    }
    chain_clear(e->memory, bytes);
    no_memory(e, u);
    return false;
}

void handshake_reset(struct engine *e, struct upstream *u)
{
    struct span words[] = { span_of("RESET") };
    text_clear(e, &u->session->name);
    text_clear(e, &u->session->lib_name);
    text_clear(e, &u->session->lib_version);
    upstream_move(e, u, UPSTREAM_HANDSHAKE, "its client has changed it", 0);
    u->deadline_us =
        e->now_us + u->endpoint->cluster->config->handshake_timeout_us;
    timer_set(&e->timers, &u->timer, u->deadline_us);
    if (say(e, u, STEP_RESET, words, 1)) {
        u->dirty = false;
        u->in_multi = false;
        u->in_watch = false;
        handshake_begin(e, u);
    }
}

/* What the client has said before is refused now: it cannot go on as if nothing
 * had happened. */
static void on_line(struct engine *e, struct upstream *u, struct span reply)
{
    if (reply.data[0] != '-') {
        return;
    }
    if (is_temporary(redis_error_parse(reply).kind)) {
        fail(e, u, reply);
        return;
    }
    u->endpoint->cluster->stats.ledger_refused++;
    downstream_close(e, u->owner,
                     "its server connection was lost with state that the "
                     "server refuses to establish again");
}

/* Ready but for the fence: let the server close the connection that was lost,
 * so that nothing it got there can run any more. */
static void fence(struct engine *e, struct upstream *u)
{
    if (!u->fence_needed || u->fence_id == 0 || u->client_id == 0) {
        establish_ledger(e, u);
        return;
    }
    if (u->client_id <= u->fence_id) {
        u->fence_done = true; /* ids started anew: the old process is dead */
        establish_ledger(e, u);
        return;
    }
    char id[24];
    snprintf(id, sizeof(id), "%" PRIu64, u->fence_id);
    struct span words[] = { span_of("CLIENT"), span_of("KILL"), span_of("ID"),
                            span_of(id) };
    say(e, u, STEP_KILL, words, 4);
}

static void on_role(struct engine *e, struct upstream *u, struct span reply)
{
    bool connected = false;
    enum node_role role = role_parse(reply, &connected);
    bool denied = reply.data[0] == '-'; /* then a write will tell */
    if (denied || !must_be_primary(u)) {
        return;
    }
    if (u->endpoint->cluster->topology == NULL) {
        if (role == NODE_PRIMARY) {
            upstream_is_primary(e, u);
        } else {
            upstream_is_replica(e, u);
        }
    } else if (role != NODE_PRIMARY) {
        upstream_lost(e, u,
                      &(struct upstream_loss){
                          .why = "the server says it is not the primary (ROLE)",
                          .tell = true });
    }
}

static void on_ping(struct engine *e, struct upstream *u, struct span reply)
{
    enum redis_error_kind kind = REDIS_ERROR_OTHER;
    if (reply.data[0] == '-') {
        kind = redis_error_parse(reply).kind;
    }
    if (is_temporary(kind)) {
        wait_for_server(e, u, reply);
    } else {
        fence(e, u); /* also when PING is not permitted to this user */
    }
}

static uint64_t integer_of(struct span reply)
{
    uint64_t value = 0;
    for (size_t i = 1; reply.data[0] == ':' && i < reply.len; i++) {
        if (reply.data[i] >= '0' && reply.data[i] <= '9') {
            value = value * 10 + (uint64_t)(reply.data[i] - '0');
        }
    }
    return value;
}

void handshake_reply(struct engine *e,
                     struct upstream *u,
                     uint8_t step,
                     struct span reply)
{
    bool is_error = reply.data[0] == '-';
    switch ((enum step)step) {
    case STEP_HELLO: on_hello(e, u, reply); break;
    case STEP_AUTH:
        if (is_error) {
            refused(e, u, reply);
        } else {
            say_hello(e, u);
        }
        break;
    case STEP_SELECT:
        if (is_error) {
            refused(e, u, reply);
        }
        break;
    case STEP_ID: u->client_id = integer_of(reply); break;
    case STEP_ROLE: on_role(e, u, reply); break;
    case STEP_PING: on_ping(e, u, reply); break;
    case STEP_KILL:
        u->fence_done = !is_error;
        establish_ledger(e, u);
        break;
    case STEP_RESET:
        if (is_error) {
            fail(e, u, reply);
        }
        break;
    case STEP_LINE:
        on_line(e, u, reply);
        be_up_if_done(e, u);
        break;
    case STEP_SUBSCRIBE: on_subscribe(e, u, reply); break;
    case STEP_BLOCK:
        block_log_reply(e, u, reply);
        be_up_if_done(e, u);
        break;
    }
}
