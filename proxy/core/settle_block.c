/* Transactions whose connection was lost (redis.md §6): what has certainly not
 * run, what an EXEC in doubt may do a second time, and lost watches. */
#include "proxy/core/redis_block.h"
#include "proxy/core/settle.h"
#include "proxy/core/state.h"

static bool is_exec(const struct request *r)
{
    return r->ends_block && r->task != TASK_ABORT &&
           r->command->id == COMMAND_EXEC;
}

/* Saying it again changes nothing, as long as nothing behind it was
 * answered. */
static bool is_watch(const struct request *r)
{
    return !r->in_block && r->command != NULL &&
           (r->command->id == COMMAND_WATCH ||
            r->command->id == COMMAND_UNWATCH);
}

/* The end of the block that begins, or goes on, at cases[first]: behind its
 * last case. */
static size_t end_of_block(const struct settle_case *cases,
                           size_t first,
                           size_t n)
{
    size_t end = first;
    while (end < n && cases[end].request->in_block &&
           (end == first || !cases[end].request->opens_block)) {
        if (cases[end++].request->ends_block) {
            break;
        }
    }
    return end;
}

void settle_block_outcomes(struct downstream *d,
                           const struct upstream_loss *loss,
                           struct settle_case *cases,
                           size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (is_watch(cases[i].request)) {
            cases[i].request->ambiguous = cases[i].request->ambiguous ||
                                          cases[i].outcome == OUTCOME_AMBIGUOUS;
            cases[i].outcome = OUTCOME_NOT_SENT;
        }
        if (!cases[i].request->in_block) {
            continue;
        }
        size_t end = end_of_block(cases, i, n);
        bool stuck = !cases[i].request->opens_block && !block_log_is_whole(d);
        for (size_t k = i; k < end; k++) {
            stuck = stuck || cases[k].request->streaming;
        }
        for (size_t k = i; k < end; k++) {
            bool ran = is_exec(cases[k].request) && !loss->refused;
            cases[k].in_vain = stuck;
            if (!ran) {
                cases[k].outcome = OUTCOME_NOT_SENT;
            }
        }
        i = end - 1;
    }
}

/* ---- an EXEC in doubt ------------------------------------------------------------ */

/* The keys of commands whose replies tell of them. */
struct key_set {
    uint64_t *keys; /* n of room, open addressing; 0: free */
    size_t n;
    size_t room;
    bool any; /* also of keys that are not known */
};

/* Everything about a block that is being judged. */
struct block_view {
    struct engine *e;
    const struct upstream_config *config;
    struct key_set told;
    enum command_class class; /* the strongest */
    bool permitted;           /* every command */
    bool same;                /* every command would answer the same */
    struct settle_item *item;
};

static size_t place_of(const struct key_set *s, uint64_t key)
{
    size_t at = (size_t)key & (s->room - 1);
    while (s->keys[at] != 0 && s->keys[at] != key) {
        at = (at + 1) & (s->room - 1);
    }
    return at;
}

static bool has_key(const struct key_set *s, uint64_t key)
{
    return s->n > 0 && s->keys[place_of(s, key)] != 0;
}

/* False: no memory. */
static bool add_key(struct engine *e, struct key_set *s, uint64_t key)
{
    enum {
        FIRST = 64
    };
    if (s->n * 2 >= s->room) {
        struct key_set more = { .room = s->room == 0 ? FIRST : s->room * 2 };
        more.keys = memory_take(e->memory, more.room * sizeof(uint64_t));
        if (more.keys == NULL) {
            return false;
        }
        for (size_t i = 0; i < s->room; i++) {
            if (s->keys[i] != 0) {
                more.keys[place_of(&more, s->keys[i])] = s->keys[i];
            }
        }
        memory_give(e->memory, s->keys);
        s->keys = more.keys;
        s->room = more.room;
    }
    size_t at = place_of(s, key);
    s->n += s->keys[at] == 0;
    s->keys[at] = key;
    return true;
}

/* Whether a command that writes so would change what one in front of it has
 * told. */
static bool meets_told(const struct key_set *told,
                       const struct settle_item *command)
{
    if (!command->writes) {
        return false;
    }
    bool meets = told->any || (command->any_key && told->n > 0);
    for (size_t i = 0; !meets && i < command->n_keys; i++) {
        meets = has_key(told, command->keys[i]);
    }
    return meets;
}

/* The keys of a block are those of all its commands, as far as there is room. */
static void add_to_item(struct settle_item *item,
                        const struct settle_item *command)
{
    item->writes = item->writes || command->writes;
    item->constant = item->constant && command->constant;
    item->any_key = item->any_key || command->any_key;
    for (size_t i = 0; i < command->n_keys && !item->any_key; i++) {
        bool known = false;
        for (size_t k = 0; k < item->n_keys; k++) {
            known = known || item->keys[k] == command->keys[i];
        }
        item->any_key = !known && item->n_keys == SETTLE_KEYS_MAX;
        if (!known && !item->any_key) {
            item->keys[item->n_keys++] = command->keys[i];
        }
    }
}

static bool is_stronger(enum command_class a, enum command_class b)
{
    return replay_level_needed(a) > replay_level_needed(b) ||
           (replay_level_needed(a) == replay_level_needed(b) && a > b);
}

/* One more command of the block, in its order. */
static void add_command(struct block_view *v, const struct request *r)
{
    struct request alone = *r;
    struct settle_item item;
    alone.in_block = false;
    enum command_class class = request_class(v->e, &alone);
    v->permitted =
        v->permitted && replay_permitted(v->e, v->config, &alone, class);
    v->class = is_stronger(class, v->class) ? class : v->class;
    if (!v->permitted) {
        v->item->any_key = true;
        v->item->writes = true;
        return; /* nothing else matters */
    }
    settle_describe(v->e, &alone, &item);
    v->same = v->same && !meets_told(&v->told, &item);
    add_to_item(v->item, &item);
    if (item.constant) {
        return;
    }
    v->told.any = v->told.any || item.any_key;
    for (size_t i = 0; i < item.n_keys; i++) {
        v->same = v->same &&
                  add_key(v->e, &v->told, item.keys[i] == 0 ? 1 : item.keys[i]);
    }
}

/* What the server had taken of it. */
static void add_log(struct block_view *v, const struct block_log *log)
{
    for (uint32_t i = 1; i < log->n; i++) {
        const struct block_command *c = &log->commands[i];
        add_command(v, &(struct request){ .command = c->command,
                                          .part = c->bytes,
                                          .size = c->bytes.len });
    }
}

bool settle_block_describe(struct engine *e,
                           struct downstream *d,
                           struct settle_case *cases,
                           size_t exec,
                           struct settle_item *item)
{
    struct settle_case *c = &cases[exec];
    size_t first = exec;
    while (first > 0 && cases[first - 1].request->in_block &&
           !cases[first].request->opens_block &&
           !cases[first - 1].request->ends_block) {
        first--;
    }
    struct block_view v = {
        .e = e,
        .config = d->listener->cluster->config,
        .class = CLASS_R,
        .permitted = !c->request->watched && !c->in_vain,
        .same = true,
        .item = item,
    };
    *item = (struct settle_item){ .constant = true };
    if (!cases[first].request->opens_block && block_log_is_whole(d)) {
        add_log(&v, d->ledger->block);
    }
    for (size_t i = first; i < exec; i++) {
        if (!cases[i].request->opens_block) {
            add_command(&v, cases[i].request);
        }
    }
    memory_give(e->memory, v.told.keys);
    if (c->in_vain) { /* what the server had taken is not known any more */
        v.class = CLASS_N;
        item->any_key = true;
        item->writes = true;
    }
    c->class = v.class;
    c->writes = item->writes;
    c->request->block_class = (uint8_t)(1 + v.class);
    return v.permitted && v.same;
}

void settle_block_follow(struct settle_case *cases, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!cases[i].request->in_block) {
            continue;
        }
        size_t end = end_of_block(cases, i, n);
        const struct settle_case *last = &cases[end - 1];
        for (size_t k = i; k + 1 < end; k++) {
            if (last->outcome == OUTCOME_AMBIGUOUS ||
                !verdict_is_retry(last->verdict)) {
                cases[k].verdict = last->verdict;
            }
        }
        i = end - 1;
    }
}

/* ---- what lived at the server ------------------------------------------------------ */

/* Whether r is still to be answered, and has had its turn. */
static bool is_open(const struct request *r)
{
    return r->state != REQUEST_DONE && (r->state != REQUEST_NEW || r->in_block);
}

void settle_block_state(struct engine *e, struct downstream *d)
{
    bool lost = d->watch_held;
    bool again = false; /* WATCH will be said again */
    d->watch_held = false;
    LIST_FOR_EACH (node, &d->requests) {
        struct request *r = CONTAINER_OF(node, struct request, arrival);
        if (!is_open(r)) {
            continue;
        }
        if (r->ends_block) {
            if (lost && r->watched && is_exec(r) && r->state == REQUEST_READY &&
                !r->ambiguous && !redis_block_abort(e, r)) {
                downstream_close(e, d, "out of memory for its transaction");
                return;
            }
            lost = false;
            again = false;
        } else if (is_watch(r)) {
            again = r->command->id == COMMAND_WATCH;
            lost = lost && again;
        }
    }
    d->watch_lost = d->watch_lost || lost;
    d->watching = again;
}

void settle_block_end(struct engine *e,
                      struct downstream *d,
                      const struct upstream_loss *loss)
{
    if (!d->listener->cluster->config->retry || !block_log_is_whole(d)) {
        redis_block_break(e, d, loss->why);
    }
    downstream_later(e, d); /* perhaps it needs no lane of its own any more */
}
