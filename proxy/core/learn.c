#include "proxy/core/learn.h"

#include <stdio.h>

#include "parser/redis_error.h"
#include "proxy/core/learnt.h"
#include "proxy/core/state.h"

enum step {
    STEP_LIST, /* COMMAND LIST: names */
    STEP_INFO, /* COMMAND INFO of those that are unknown */
    STEP_ALL,  /* COMMAND: before 7.0 there is no LIST */
};

enum {
    VERSION_WITH_LIST = 70000,
    DENIED_MAX = 3, /* users of one server that may not ask */
    LOST_MAX = 3,   /* connections in a row that a question did not survive */
    AGAIN_US = 60 * 1000 * 1000, /* between questions for unknown commands */
};

/* ---- asking ---------------------------------------------------------------- */

static bool say(struct engine *e,
                struct upstream *u,
                enum step step,
                struct span bytes)
{
    if (!upstream_send_own(e, u, TASK_COMMANDS, (uint8_t)step, bytes)) {
        e->stats.limit_memory++;
        return false;
    }
    u->endpoint->commands_out = true;
    return true;
}

static bool ask(struct engine *e, struct upstream *u)
{
    struct endpoint *p = u->endpoint;
    bool old = p->version != 0 && p->version < VERSION_WITH_LIST;
    p->commands_asked = true;
    return old ? say(e, u, STEP_ALL, span_of("*1\r\n$7\r\nCOMMAND\r\n"))
               : say(e, u, STEP_LIST,
                     span_of("*2\r\n$7\r\nCOMMAND\r\n$4\r\nLIST\r\n"));
}

/* Whether p may be asked at all. */
static bool may_ask(const struct endpoint *p)
{
    const struct cluster *c = p->cluster;
    return c->config->learn_commands && !p->sentinel && !p->limbo &&
           !p->commands_out && p->commands_denied < DENIED_MAX &&
           c->questions_lost < LOST_MAX;
}

bool learn_holds_lane(struct engine *e, struct upstream *u)
{
    struct endpoint *p = u->endpoint;
    bool first = !p->cluster->commands_told;
    /* What a lane of one client carries may come in parts, and nothing may be
     * said between them; and what lives there may be a block, or subscriptions:
     * nothing may be said inside of it. */
    bool lived_in = u->owner != NULL && u->owner->ledger != NULL;
    if (p->commands_asked || !may_ask(p) ||
        (u->set == NULL && (!first || lived_in))) {
        return false;
    }
    u->awaits_commands = ask(e, u) && first;
    return u->awaits_commands;
}

/* A lane that can be asked now, or NULL. */
static struct upstream *lane_to_ask(const struct cluster *c)
{
    for (uint32_t i = 0; i < c->n_endpoints; i++) {
        const struct endpoint *p = c->endpoints[i];
        if (p == NULL || !may_ask(p)) {
            continue;
        }
        LIST_FOR_EACH (node, &p->lanes) {
            struct upstream *u =
                CONTAINER_OF(node, struct upstream, endpoint_node);
            if (u->state == UPSTREAM_UP && u->set != NULL && !u->renew &&
                !u->unauthenticated && upstream_has_room(u)) {
                return u;
            }
        }
    }
    return NULL;
}

void learn_unknown(struct engine *e, struct cluster *c)
{
    if (!c->commands_told || e->now_us < c->commands_next_us) {
        return;
    }
    struct upstream *u = lane_to_ask(c);
    if (u != NULL && ask(e, u)) {
        c->commands_next_us = e->now_us + AGAIN_US;
    }
}

/* ---- what was said --------------------------------------------------------- */

static void tell(struct engine *e,
                 const struct endpoint *p,
                 const char *to,
                 const char *why)
{
    engine_trace(e,
                 &(struct trace_record){ .type = TRACE_COMMANDS,
                                         .upstream = p->cluster->config->name,
                                         .address = &p->address,
                                         .to = to,
                                         .reason = why });
}

/* A client that waits for u with a command that is known now, or NULL. */
static struct downstream *waits_for(struct engine *e, const struct upstream *u)
{
    const struct cluster *c = u->endpoint->cluster;
    LIST_FOR_EACH (node, &u->waiting) {
        struct request *r = CONTAINER_OF(node, struct request, place);
        struct downstream *d = r->downstream;
        if (r->command == NULL && !r->in_block && d->block == BLOCK_NONE &&
            !r->write_replay && !downstream_gone(d) &&
            learn_look_again(e, c, r)) {
            r->command = NULL; /* its way is found when it is its turn */
            return d;
        }
    }
    return NULL;
}

/* The same, for any shared lane. */
static struct downstream *waits_unknown(struct engine *e,
                                        const struct cluster *c)
{
    for (uint32_t i = 0; i < c->n_endpoints; i++) {
        if (c->endpoints[i] == NULL) {
            continue;
        }
        LIST_FOR_EACH (node, &c->endpoints[i]->lanes) {
            const struct upstream *u =
                CONTAINER_OF(node, struct upstream, endpoint_node);
            struct downstream *d = u->set != NULL ? waits_for(e, u) : NULL;
            if (d != NULL) {
                return d;
            }
        }
    }
    return NULL;
}

/* What waits for a lane without being known may belong on another one. Without
 * memory a client may end here, and its lane with it: each is looked for
 * anew. */
static void take_back(struct engine *e, const struct cluster *c)
{
    struct downstream *d;
    while ((d = waits_unknown(e, c)) != NULL) {
        downstream_recall(e, d, NULL);
        downstream_later(e, d);
    }
}

/* There was an answer, whatever it was: a lane that waited for it comes up. */
static void conclude(struct engine *e, struct upstream *u)
{
    struct cluster *c = u->endpoint->cluster;
    u->endpoint->commands_out = false;
    c->questions_lost = 0;
    c->commands_told = true;
    c->commands_next_us = e->now_us + AGAIN_US;
    if (u->awaits_commands) {
        u->awaits_commands = false;
        upstream_up(e, u);
    }
}

static void not_told(struct engine *e, struct upstream *u, struct span reply)
{
    char why[120];
    size_t len = reply.len < 100 ? reply.len : 100;
    while (len > 0 && reply.data[len - 1] < ' ') {
        len--;
    }
    snprintf(why, sizeof why, "the server answered %.*s", (int)len,
             (const char *)reply.data);
    tell(e, u->endpoint, "not told", why);
    conclude(e, u);
}

/* ---- COMMAND INFO ---------------------------------------------------------- */

struct adding {
    struct engine *e;
    struct cluster *c;
    uint32_t n_new;
    bool no_room;
};

static void add(void *context, const struct command_info *info)
{
    struct adding *a = context;
    switch (learnt_add(a->e, a->c->learnt, info,
                       a->c->config->learnt_commands_max)) {
    case LEARNT_KNOWN: break;
    case LEARNT_NEW: a->n_new++; break;
    case LEARNT_NO_ROOM:
        a->e->stats.limit_learnt_commands_max++;
        a->no_room = true;
        break;
    case LEARNT_NO_MEMORY: a->e->stats.limit_memory++; break;
    }
}

static void on_info(struct engine *e, struct upstream *u, struct span reply)
{
    struct cluster *c = u->endpoint->cluster;
    struct adding a = { .e = e, .c = c };
    if (c->learnt == NULL) {
        c->learnt = learnt_new(e);
    }
    if (c->learnt == NULL) {
        e->stats.limit_memory++;
        conclude(e, u);
        return;
    }
    if (command_info_read(reply, add, &a) < 0) {
        tell(e, u->endpoint, "not told", "the answer makes no sense");
        conclude(e, u);
        return;
    }
    if (a.no_room) {
        engine_trace_limit(e, c, "learnt_commands_max");
    }
    if (a.n_new > 0) {
        char words[80];
        snprintf(words, sizeof words, "learnt %u command%s", (unsigned)a.n_new,
                 a.n_new == 1 ? "" : "s");
        c->stats.commands_learnt += a.n_new;
        tell(e, u->endpoint, "learnt", words);
        take_back(e, c);
    }
    conclude(e, u);
}

/* ---- COMMAND LIST ---------------------------------------------------------- */

/* The question for the names that are unknown. out is NULL while only its
 * length is wanted. */
struct question {
    char *out;
    size_t len;
    uint32_t names;
    uint32_t names_max;
};

static void put(struct question *q, const char *text, size_t len)
{
    if (q->out != NULL) {
        memcpy(q->out + q->len, text, len);
    }
    q->len += len;
}

static void put_head(struct question *q, char type, size_t number)
{
    char head[32];
    int len = snprintf(head, sizeof head, "%c%zu\r\n", type, number);
    put(q, head, (size_t)len);
}

static void put_name(void *context, struct span name)
{
    struct question *q = context;
    if (q->names < q->names_max) {
        put_head(q, '$', name.len);
        put(q, (const char *)name.data, name.len);
        put(q, "\r\n", 2);
        q->names++;
    }
}

/* Ask what is unknown of a list. False: that is not possible. */
static bool ask_info(struct engine *e,
                     struct upstream *u,
                     struct span list,
                     size_t room,
                     uint32_t names)
{
    static const char head[] = "$7\r\nCOMMAND\r\n$4\r\nINFO\r\n";
    struct question q = { .names_max = names };
    q.out = memory_take_raw(e->memory, room + sizeof head + 32);
    if (q.out == NULL) {
        e->stats.limit_memory++;
        return false;
    }
    put_head(&q, '*', names + (size_t)2);
    put(&q, head, sizeof head - 1);
    command_list_read(list, put_name, &q);
    bool said =
        q.names == names &&
        say(e, u, STEP_INFO, (struct span){ (const uint8_t *)q.out, q.len });
    memory_give(e->memory, q.out);
    return said;
}

static void on_list(struct engine *e, struct upstream *u, struct span reply)
{
    struct question q = {
        .names_max = u->endpoint->cluster->config->learnt_commands_max
    };
    if (command_list_read(reply, put_name, &q) < 0) {
        tell(e, u->endpoint, "not told", "the answer makes no sense");
        conclude(e, u);
    } else if (q.names == 0 || !ask_info(e, u, reply, q.len, q.names)) {
        conclude(e, u);
    }
}

static void on_error(struct engine *e,
                     struct upstream *u,
                     enum step step,
                     struct span reply)
{
    struct endpoint *p = u->endpoint;
    if (redis_error_parse(reply).kind == REDIS_ERROR_NOPERM) {
        p->commands_denied++;
        p->commands_asked = false; /* another user may */
        not_told(e, u, reply);
    } else if (step != STEP_LIST ||
               !say(e, u, STEP_ALL, span_of("*1\r\n$7\r\nCOMMAND\r\n"))) {
        not_told(e, u, reply);
    }
}

void learn_reply(struct engine *e,
                 struct upstream *u,
                 uint8_t step,
                 struct span reply)
{
    if (reply.data[0] == '-') {
        on_error(e, u, (enum step)step, reply);
        return;
    }
    switch ((enum step)step) {
    case STEP_LIST: on_list(e, u, reply); break;
    case STEP_INFO:
    case STEP_ALL: on_info(e, u, reply); break;
    }
}

void learn_no_reply(struct engine *e, struct upstream *u)
{
    struct endpoint *p = u->endpoint;
    (void)e;
    if (p->commands_out) {
        p->commands_out = false;
        p->commands_asked = false;
        p->cluster->questions_lost++;
    }
}

/* ---- looking up ------------------------------------------------------------ */

const struct command *learn_find(const struct cluster *c,
                                 struct span name,
                                 struct span sub)
{
    const struct command *own = command_find(name, sub);
    if (c->learnt == NULL || !command_is_lacking(own)) {
        return own;
    }
    const struct command *learnt = learnt_find(c->learnt, name, sub);
    return learnt != NULL ? learnt : own;
}

bool learn_look_again(struct engine *e,
                      const struct cluster *c,
                      struct request *r)
{
    if (c->learnt == NULL) {
        return false;
    }
    struct request_args args;
    request_args_init(e, &args, r);
    if (args.argc > 0) {
        r->command =
            learn_find(c, args.list[0],
                       args.argc > 1 ? args.list[1] : (struct span){ NULL, 0 });
    }
    request_args_fini(e, &args);
    if (r->command == NULL) {
        return false;
    }
    r->slot = SLOT_NOT_LOOKED_FOR;
    return true;
}
