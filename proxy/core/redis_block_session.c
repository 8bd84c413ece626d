/* What a transaction changes about its client's connection: SELECT, CLIENT
 * SETNAME and others that were queued, and that EXEC has run (redis.md §6). */
#include "parser/number.h"
#include "parser/reply.h"
#include "proxy/core/ledger.h"
#include "proxy/core/redis_block.h"
#include "proxy/core/state.h"

bool redis_changes_session(const struct request *r)
{
    switch (r->command != NULL ? (enum command_id)r->command->id
                               : COMMAND_OTHER) {
    case COMMAND_SELECT:
    case COMMAND_CLIENT_SETNAME:
    case COMMAND_CLIENT_LINE:
    case COMMAND_CLIENT_TRACKING:
    case COMMAND_CLIENT_ID: return true;
    default: return false;
    }
}

/* The session of d as r, SELECT or CLIENT SETNAME, makes it; NULL without
 * memory. */
static struct session *changed_session(struct engine *e,
                                       struct downstream *d,
                                       const struct request *r)
{
    struct session *next = session_copy(e, downstream_session(e, d));
    struct request_args args;
    int64_t db = 0;
    request_args_init(e, &args, r);
    bool select = r->command->id == COMMAND_SELECT;
    bool valid = next != NULL && args.argc == (select ? 2 : 3);
    if (valid && select) {
        valid = number_parse(args.list[1], &db) && db >= 0 && db <= UINT32_MAX;
        next->db = (uint32_t)db;
    } else if (valid) {
        valid = text_set(e, &next->name, args.list[2]);
    }
    request_args_fini(e, &args);
    if (!valid) {
        session_free(e, next);
        next = NULL;
    }
    return next;
}

/* c was executed, and has succeeded. */
static void apply(struct engine *e,
                  struct upstream *u,
                  struct downstream *d,
                  const struct block_command *c)
{
    struct request r = { .downstream = d,
                         .command = c->command,
                         .part = c->bytes,
                         .size = c->bytes.len };
    switch (c->command != NULL ? (enum command_id)c->command->id
                               : COMMAND_OTHER) {
    case COMMAND_SELECT:
    case COMMAND_CLIENT_SETNAME:
        r.task = TASK_LEDGER;
        d->session_next = changed_session(e, d, &r);
        if (d->session_next == NULL) {
            d->session_unknown = true;
            return;
        }
        break;
    case COMMAND_CLIENT_LINE:
    case COMMAND_CLIENT_TRACKING: r.task = TASK_LINE; break;
    case COMMAND_CLIENT_ID: r.task = TASK_ID; break;
    default: return;
    }
    redis_ledger_reply(e, u, &r);
}

static bool was_refused(const struct block_log *log, uint32_t i)
{
    for (uint32_t k = 0; k < log->n_refused; k++) {
        if (log->refused[k] == i) {
            return true;
        }
    }
    return false;
}

void redis_block_session(struct engine *e,
                         struct upstream *u,
                         struct downstream *d,
                         struct span reply)
{
    const struct block_log *log = d->ledger->block;
    struct reply *tree = NULL;
    if (reply.data != NULL && !log->incomplete) {
        tree = reply_parse(reply);
    }
    if (tree == NULL) {
        d->session_unknown = true; /* a new lane would not be the same */
        return;
    }
    size_t at = 0;
    bool executed = reply_type(tree) == REPLY_ARRAY; /* else null */
    for (uint32_t i = 1; executed && i < log->n; i++) {
        if (was_refused(log, i)) {
            continue;
        }
        const struct reply *answer = reply_at(tree, at++);
        if (answer != NULL && reply_type(answer) != REPLY_ERROR) {
            apply(e, u, d, &log->commands[i]);
        }
    }
    reply_free(tree);
}

void redis_block_session_in_doubt(struct downstream *d,
                                  const struct request *exec)
{
    const struct block_log *log = d->ledger != NULL ? d->ledger->block : NULL;
    bool changes = log != NULL && log->about_session && redis_is_in_front(exec);
    for (struct list_node *node = exec->arrival.prev;
         node != &d->requests && !changes; node = node->prev) {
        const struct request *q = CONTAINER_OF(node, struct request, arrival);
        if (!q->in_block || q->opens_block || q->ends_block) {
            break;
        }
        changes = redis_changes_session(q);
    }
    d->session_unknown = d->session_unknown || changes;
}
