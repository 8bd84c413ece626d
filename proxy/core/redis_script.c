/* Scripts and functions (redis.md §3 "Scripts"): bodies that pass through are
 * remembered, an EVALSHA whose server has lost its script is mended, and what
 * cannot write is known. */
#include "parser/redis_error.h"
#include "proxy/core/state.h"

static const char function_list[] = "*2\r\n$8\r\nFUNCTION\r\n$4\r\nLIST\r\n";

static struct cluster *cluster_of(const struct request *r)
{
    return r->downstream->listener->cluster;
}

static bool calls_by(const struct request *r, enum script_call how)
{
    return r->command != NULL && r->command->id == COMMAND_SCRIPT_CALL &&
           command_script_call(r->command) == how;
}

/* ---- what is sent ------------------------------------------------------------ */

/* Put SCRIPT LOAD in front of r. Several requests for one script that leave
 * together need one. False: no memory. */
static bool send_load(struct engine *e, struct upstream *u, struct request *r)
{
    struct scripts *scripts = &u->endpoint->cluster->scripts;
    struct request_args args;
    request_args_init(e, &args, r);
    struct script *script =
        args.argc > 1 ? scripts_find(scripts, args.list[1]) : NULL;
    request_args_fini(e, &args);
    if (script == NULL ||
        (script->sent_on == u->link->conn.id && script->sent_us == e->now_us)) {
        return true; /* forgotten meanwhile; or just sent */
    }
    script->sent_on = u->link->conn.id;
    script->sent_us = e->now_us;
    return upstream_send_own(e, u, TASK_ASIDE, 0, script_load(script));
}

bool redis_script_send(struct engine *e, struct upstream *u, struct request *r)
{
    if (r->command->id == COMMAND_FUNCTION_CHANGE) {
        functions_changing(&u->endpoint->cluster->function_changes,
                           r->arrived_us, e->now_us);
    }
    return !r->load_script || send_load(e, u, r);
}

/* ---- what is answered -------------------------------------------------------- */

static void remember_body(struct engine *e,
                          struct cluster *c,
                          const struct request *r)
{
    bool loaded = r->command->id == COMMAND_SCRIPT_LOAD;
    if (c->config->script_cache_bytes == 0 || r->in_block ||
        r->size > c->config->replay_bytes_max) {
        return; /* +QUEUED says nothing of the body */
    }
    struct request_args args;
    request_args_init(e, &args, r);
    if (args.argc > 2) {
        scripts_add(e->memory, &c->scripts, args.list[loaded ? 2 : 1], loaded);
    }
    request_args_fini(e, &args);
}

/* Its functions are called: learn which of them do not write. A question of
 * redial's own must not come between the commands of a transaction. */
static void learn_functions(struct engine *e, struct upstream *u)
{
    struct endpoint *p = u->endpoint;
    const struct function_changes *changes = &p->cluster->function_changes;
    if (u->raw || upstream_is_inside_request(u) ||
        (u->owner != NULL && u->owner->block != BLOCK_NONE)) {
        return;
    }
    if (p->functions == NULL) {
        p->functions = memory_take(e->memory, sizeof(*p->functions));
        if (p->functions == NULL) {
            return;
        }
    }
    uint8_t mark = (uint8_t)(p->functions->mark + 1);
    if (functions_are_due(p->functions, changes, e->now_us, u->up_us) &&
        upstream_send_own(e, u, TASK_FUNCTIONS, mark, span_of(function_list))) {
        functions_asked(p->functions, changes, e->now_us, mark);
        p->cluster->stats.function_lists++;
    }
}

void redis_functions_reply(struct engine *e,
                           struct upstream *u,
                           uint8_t mark,
                           struct span reply)
{
    struct endpoint *p = u->endpoint;
    if (p->functions != NULL) {
        functions_answered(e->memory, p->functions, mark, reply);
    }
}

void redis_script_accepted(struct engine *e,
                           struct upstream *u,
                           const struct request *r)
{
    struct cluster *c = u->endpoint->cluster;
    enum command_id id = r->command->id;
    if (id == COMMAND_SCRIPT_LOAD || calls_by(r, SCRIPT_BODY)) {
        remember_body(e, c, r);
    } else if (id == COMMAND_SCRIPT_FLUSH) {
        /* Whoever says so wants NOSCRIPT from now on. */
        scripts_clear(e->memory, &c->scripts);
    } else if (id == COMMAND_FUNCTION_CHANGE) {
        functions_changed(&c->function_changes, r->arrived_us, r->in_block);
    } else if (calls_by(r, SCRIPT_FUNCTION) && r->command->class != CLASS_R &&
               !r->in_block) {
        learn_functions(e, u);
    }
}

bool redis_script_missing(struct engine *e, struct request *r)
{
    struct cluster *c = cluster_of(r);
    if (!calls_by(r, SCRIPT_SHA1) || r->in_block || r->streaming ||
        r->load_script || r->task != TASK_FORWARD || !c->config->retry) {
        return false;
    }
    struct request_args args;
    request_args_init(e, &args, r);
    const struct script *script = NULL;
    if (args.argc > 1) {
        script = scripts_find(&c->scripts, args.list[1]);
        if (script == NULL) {
            scripts_want(&c->scripts, args.list[1]);
        }
    }
    request_args_fini(e, &args);
    if (script == NULL || script->says_itself) {
        return false;
    }
    c->stats.script_repairs++;
    r->load_script = true;
    r->mended = true;
    return true;
}

/* ---- what it may do ---------------------------------------------------------- */

bool redis_script_reads(struct engine *e,
                        const struct request *r,
                        const struct request_args *args)
{
    if (r->downstream == NULL || args->argc < 2) {
        return false;
    }
    struct cluster *c = cluster_of(r);
    if (calls_by(r, SCRIPT_SHA1)) {
        const struct script *script = scripts_find(&c->scripts, args->list[1]);
        return script != NULL && script->no_writes;
    }
    if (!calls_by(r, SCRIPT_FUNCTION) || r->server >= c->n_endpoints ||
        c->endpoints[r->server] == NULL) {
        return false;
    }
    return functions_read_only(c->endpoints[r->server]->functions,
                               &c->function_changes, args->list[1], e->now_us);
}

bool redis_script_is(const struct request *r,
                     const struct request_args *args,
                     struct span name)
{
    struct sha1 wanted;
    struct sha1 given;
    if (args->argc < 2 || !sha1_parse(name, &wanted)) {
        return false;
    }
    if (calls_by(r, SCRIPT_BODY)) {
        given = sha1_of(args->list[1]);
    } else if (!calls_by(r, SCRIPT_SHA1) ||
               !sha1_parse(args->list[1], &given)) {
        return false;
    }
    return sha1_equal(&given, &wanted);
}
