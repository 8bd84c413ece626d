#include "proxy/core/settle.h"

#include <assert.h>

#include "proxy/core/redis_blocking.h"
#include "proxy/core/state.h"

bool settle_keys_meet(const struct settle_item *a, const struct settle_item *b)
{
    if (a->gather != NULL && a->gather == b->gather) {
        return false;
    }
    if (a->any_key || b->any_key) {
        return true;
    }
    for (size_t i = 0; i < a->n_keys; i++) {
        for (size_t j = 0; j < b->n_keys; j++) {
            if (a->keys[i] == b->keys[j]) {
                return true;
            }
        }
    }
    return false;
}

void settle_decide(struct settle_item *items, size_t n)
{
    for (size_t i = n; i-- > 0;) {
        struct settle_item *item = &items[i];
        item->replay = item->permitted;
        for (size_t j = i + 1; item->replay && j < n; j++) {
            if (!items[j].writes || !settle_keys_meet(item, &items[j])) {
                continue;
            }
            /* A later write of this key may have run: running this one again
             * is invisible only if that one runs again behind it, and if this
             * one's reply says nothing about the key. */
            item->replay = items[j].replay && item->constant;
        }
    }
}

static uint64_t hash_key(struct span key)
{
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    for (size_t i = 0; i < key.len; i++) {
        hash = (hash ^ key.data[i]) * 0x100000001b3u;
    }
    return hash;
}

void settle_describe(struct engine *e,
                     const struct request *r,
                     struct settle_item *item)
{
    *item = (struct settle_item){ .any_key = true,
                                  .writes = true,
                                  .gather = r->gather };
    if (r->task == TASK_LEDGER || r->task == TASK_SETINFO ||
        r->task == TASK_LINE || r->task == TASK_ID ||
        r->task == TASK_SUBSCRIBE || r->task == TASK_CACHING) {
        item->any_key = false;
        item->writes = false;
        return;
    }
    enum command_class class = request_class(e, r);
    if (class == CLASS_X || class == CLASS_C) {
        return; /* behind MULTI, say, nothing is what it was */
    }
    item->writes = command_writes(r->command, class);
    struct request_args args;
    request_args_init(e, &args, r);
    item->constant = args.argc <= REQUEST_ARGS_MAX &&
                     command_reply_constant(r->command, args.list, args.argc);
    uint32_t index[SETTLE_KEYS_MAX];
    int n = COMMAND_KEYS_UNKNOWN;
    if (args.argc > 0 && args.argc <= REQUEST_ARGS_MAX) {
        n = command_keys(r->command, args.list, args.argc, index,
                         SETTLE_KEYS_MAX);
    }
    if (n != COMMAND_KEYS_UNKNOWN && n <= SETTLE_KEYS_MAX) {
        item->any_key = false;
        item->n_keys = (uint8_t)n;
        for (int i = 0; i < n; i++) {
            item->keys[i] = hash_key(args.list[index[i]]);
        }
    }
    request_args_fini(e, &args);
}

void settle_overtake(struct engine *e,
                     struct downstream *d,
                     const struct request *later)
{
    if (d->n_settling == 0) {
        return;
    }
    struct settle_item behind;
    settle_describe(e, later, &behind);
    LIST_FOR_EACH (node, &d->requests) {
        struct request *r = CONTAINER_OF(node, struct request, arrival);
        if (r == later) {
            return;
        }
        if (r->state == REQUEST_SETTLING && !r->overtaken) {
            struct settle_item item;
            settle_describe(e, r, &item);
            r->overtaken = settle_keys_meet(&item, &behind);
        }
    }
}

/* ---- levels ------------------------------------------------------------ */

enum {
    LEVEL_NEVER = REPLAY_ALL + 1
};

unsigned replay_level_needed(enum command_class class)
{
    switch (class) {
    case CLASS_R:
    case CLASS_RN:
    case CLASS_BR: return REPLAY_READ;
    case CLASS_I:
    case CLASS_T: return REPLAY_IDEMPOTENT;
    case CLASS_S: return REPLAY_CONVERGENT;
    case CLASS_D:
    case CLASS_N:
    case CLASS_U:
    case CLASS_BN: return REPLAY_ALL;
    case CLASS_BW:
    case CLASS_C:
    case CLASS_X:
    case CLASS_A:
    case CLASS_COUNT: break;
    }
    return LEVEL_NEVER;
}

static bool span_has_prefix(struct span text, const char *prefix)
{
    size_t len = strlen(prefix);
    return text.len >= len && memcmp(text.data, prefix, len) == 0;
}

/* All keys are known and begin so. */
static bool keys_begin_with(const struct request *r,
                            const struct request_args *args,
                            const char *prefix)
{
    uint32_t index[SETTLE_KEYS_MAX];
    int n = COMMAND_KEYS_UNKNOWN;
    if (args->argc > 0 && args->argc <= REQUEST_ARGS_MAX) {
        n = command_keys(r->command, args->list, args->argc, index,
                         SETTLE_KEYS_MAX);
    }
    if (n < 1 || n > SETTLE_KEYS_MAX) {
        return false;
    }
    for (int i = 0; i < n; i++) {
        if (!span_has_prefix(args->list[index[i]], prefix)) {
            return false;
        }
    }
    return true;
}

static bool override_matches(const struct replay_override *o,
                             const struct request *r,
                             const struct request_args *args)
{
    switch (o->kind) {
    case OVERRIDE_COMMAND: return strcmp(r->command->name, o->text) == 0;
    case OVERRIDE_SCRIPT: return redis_script_is(r, args, span_of(o->text));
    case OVERRIDE_PREFIX: break;
    }
    return keys_begin_with(r, args, o->text);
}

/* The level that counts for r: an override's, or the configured one. */
static enum replay_level level_for(struct engine *e,
                                   const struct upstream_config *config,
                                   const struct request *r)
{
    static const enum override_kind order[] = { OVERRIDE_PREFIX,
                                                OVERRIDE_SCRIPT,
                                                OVERRIDE_COMMAND };
    enum replay_level level = config->replay;
    if (config->n_overrides == 0 || r->command == NULL) {
        return level;
    }
    struct request_args args;
    request_args_init(e, &args, r);
    bool found = false;
    for (size_t k = 0; !found && k < sizeof(order) / sizeof(order[0]); k++) {
        for (size_t i = 0; !found && i < config->n_overrides; i++) {
            const struct replay_override *o = &config->overrides[i];
            if (o->kind == order[k] && override_matches(o, r, &args)) {
                level = o->level;
                found = true;
            }
        }
    }
    request_args_fini(e, &args);
    return level;
}

bool replay_permitted(struct engine *e,
                      const struct upstream_config *config,
                      const struct request *r,
                      enum command_class class)
{
    if (r->task == TASK_LEDGER || r->task == TASK_SETINFO ||
        r->task == TASK_LINE || r->task == TASK_ID ||
        r->task == TASK_SUBSCRIBE || r->task == TASK_CACHING) {
        return true; /* saying it again changes nothing */
    }
    if (r->streaming || r->in_block || r->part.buf == NULL ||
        r->size > config->replay_bytes_max) {
        return false;
    }
    unsigned needed = replay_level_needed(class);
    if (needed == LEVEL_NEVER) {
        return false;
    }
    return needed <= (unsigned)level_for(e, config, r);
}

/* ---- one client -------------------------------------------------------- */

static bool loss_is_listed(const struct upstream_config *config,
                           const struct upstream_loss *loss)
{
    unsigned kind =
        loss->timeout ? RETRY_ERROR_TIMEOUT : RETRY_ERROR_CONNECTION;
    return (config->retry_on_error & kind) != 0;
}

static enum verdict decide(struct engine *e,
                           const struct upstream *u,
                           const struct upstream_loss *loss,
                           const struct settle_case *c,
                           bool replay_allowed,
                           bool budget_left)
{
    const struct upstream_config *config = u->endpoint->cluster->config;
    return retry_decide(&(struct retry_input){
        .outcome = c->outcome,
        .retry_enabled = config->retry,
        .replay_allowed = replay_allowed,
        .listed = loss_is_listed(config, loss),
        .budget_left = budget_left,
        .replays = c->request->replays,
        .replays_max = config->retries,
        .now_us = e->now_us,
        .deadline_us = c->request->deadline_us,
    });
}

/* What was sent and has not run, or does no harm if it has: it meets nothing. */
static void decide_unsent(struct engine *e,
                          const struct upstream *u,
                          const struct upstream_loss *loss,
                          struct settle_case *c)
{
    bool gone = c->request->streaming || c->in_vain;
    c->class = request_class(e, c->request);
    c->verdict = gone ? GIVE_UP_UNSAFE : decide(e, u, loss, c, false, false);
}

static void describe_case(struct engine *e,
                          struct upstream *u,
                          const struct upstream_loss *loss,
                          struct settle_case *cases,
                          size_t i,
                          struct settle_item *item)
{
    struct settle_case *c = &cases[i];
    bool allowed;
    if (c->outcome == OUTCOME_NOT_SENT) {
        *item = (struct settle_item){ 0 };
        decide_unsent(e, u, loss, c);
        return;
    }
    if (c->request->in_block) {
        allowed =
            settle_block_describe(e, c->request->downstream, cases, i, item);
    } else {
        c->class = request_class(e, c->request);
        settle_describe(e, c->request, item);
        c->writes = command_writes(c->request->command, c->class);
        allowed = replay_permitted(e, u->endpoint->cluster->config, c->request,
                                   c->class);
    }
    c->verdict = decide(e, u, loss, c, allowed, true);
    item->permitted = verdict_is_retry(c->verdict);
}

/* Judge what was sent and not answered. items and cases are parallel. */
static void settle_sent(struct engine *e,
                        struct upstream *u,
                        const struct upstream_loss *loss,
                        struct settle_item *items,
                        struct settle_case *cases,
                        size_t n)
{
    struct cluster *cluster = u->endpoint->cluster;
    for (size_t i = 0; i < n; i++) {
        describe_case(e, u, loss, cases, i, &items[i]);
    }
    settle_decide(items, n);
    bool broke = false;
    for (size_t i = n; i-- > 0;) {
        if (items[i].replay &&
            (broke || !budget_withdraw(&cluster->budget, e->now_us))) {
            broke = true;
            items[i].permitted = false;
            cases[i].verdict = GIVE_UP_BUDGET;
            cluster->stats.budget_empty++;
        } else if (!items[i].replay && items[i].permitted) {
            items[i].permitted = false;
            cases[i].verdict = GIVE_UP_UNSAFE;
        }
    }
    if (!broke) {
        return;
    }
    settle_decide(items, n); /* what rested on a replay that is not paid for */
    for (size_t i = 0; i < n; i++) {
        if (items[i].permitted && !items[i].replay) {
            cases[i].verdict = GIVE_UP_UNSAFE;
        }
    }
}

static size_t collect(struct downstream *d,
                      const struct upstream *u,
                      struct settle_case *cases,
                      uint64_t taken,
                      size_t *n_sent)
{
    size_t n = 0;
    *n_sent = 0;
    LIST_FOR_EACH (node, &d->requests) {
        struct request *r = CONTAINER_OF(node, struct request, arrival);
        if (r->state != REQUEST_SENT || r->upstream != u) {
            continue;
        }
        bool sent = r->sent_end <= taken;
        cases[n++] = (struct settle_case){
            .request = r,
            .outcome = sent ? OUTCOME_AMBIGUOUS : OUTCOME_NOT_SENT,
        };
        *n_sent += sent;
    }
    return n;
}

static void judge(struct engine *e,
                  struct upstream *u,
                  const struct upstream_loss *loss,
                  struct settle_case *cases,
                  size_t n,
                  size_t n_sent)
{
    struct settle_item *items =
        memory_take(e->memory, (n_sent + 1) * sizeof(*items));
    if (items != NULL) {
        settle_sent(e, u, loss, items, cases, n_sent);
        memory_give(e->memory, items);
    } else {
        for (size_t i = 0; i < n_sent; i++) {
            cases[i].verdict = GIVE_UP_UNSAFE;
            cases[i].class = CLASS_N;
        }
    }
    for (size_t i = n_sent; i < n; i++) {
        decide_unsent(e, u, loss, &cases[i]);
    }
}

static void leave_flight(struct upstream *u, struct request *r)
{
    list_remove(&r->place);
    u->endpoint->in_flight--;
    r->upstream = NULL;
}

/* Take r off the lost connection and, if it is to be tried again, into the
 * lane's waiting list. */
static void carry_out(struct engine *e,
                      struct upstream *u,
                      const struct upstream_loss *loss,
                      const struct settle_case *c,
                      struct list_node *front)
{
    struct request *r = c->request;
    struct cluster *cluster = u->endpoint->cluster;
    leave_flight(u, r);
    r->ambiguous = r->ambiguous || c->outcome == OUTCOME_AMBIGUOUS;
    cluster->stats.retries[c->outcome][c->class][c->verdict]++;
    if (!verdict_is_retry(c->verdict)) {
        return;
    }
    if (c->outcome == OUTCOME_AMBIGUOUS) {
        r->replays++;
        r->write_replay = !loss->peer_ended && c->writes;
        cluster->stats.replayed[c->class]++;
    }
    r->node = 0;
    r->asking = false;
    r->hops = 0;
    upstream_hold(e, u, r, front);
    request_trace_retry(e, r, c->outcome, c->verdict, loss->why, 0);
}

static void settle_client(struct engine *e,
                          struct upstream *u,
                          struct downstream *d,
                          const struct upstream_loss *loss,
                          uint64_t taken,
                          struct list_node *front)
{
    struct cluster *cluster = u->endpoint->cluster;
    if (d->ended) {
        downstream_close(e, d, NULL); /* nothing is replayed for it */
        return;
    }
    struct settle_case *cases =
        memory_take(e->memory,
                    (d->n_requests + d->n_fragments + 1) * sizeof(*cases));
    if (cases == NULL) {
        e->stats.limit_memory++;
        downstream_close(e, d, "out of memory while its requests were settled");
        return;
    }
    size_t n_sent;
    size_t n = collect(d, u, cases, taken, &n_sent);
    for (size_t i = 0; i < n_sent; i++) {
        if (cases[i].request->blocking != NULL) {
            blocking_lost(e, cases[i].request);
        }
    }
    settle_block_outcomes(d, loss, cases, n);
    judge(e, u, loss, cases, n, n_sent);
    settle_block_follow(cases, n);
    for (size_t i = 0; i < n_sent; i++) {
        settle_overtake(e, d, cases[i].request);
    }
    for (size_t i = 0; i < n; i++) {
        carry_out(e, u, loss, &cases[i], front);
    }
    if (u->owner != NULL && !u->subscribes) {
        settle_block_state(e, d);
    }
    for (size_t i = 0; i < n && !downstream_gone(d); i++) {
        bool open = cases[i].request->state != REQUEST_DONE;
        if (open && !verdict_is_retry(cases[i].verdict)) {
            request_give_up(e, cases[i].request, cluster, cases[i].outcome,
                            cases[i].verdict, loss->why);
        }
    }
    if (u->owner != NULL && !u->subscribes && !downstream_gone(d)) {
        settle_block_end(e, d, loss);
    }
    memory_give(e->memory, cases);
}

void settle_lane(struct engine *e,
                 struct upstream *u,
                 const struct upstream_loss *loss,
                 uint64_t taken)
{
    /* What is put back goes in front of what waited already, in lane order
     * for each client. */
    struct list_node front;
    gather_explode_lane(e, u);
    list_insert_before(u->waiting.next, &front);
    if (u->owner != NULL && !u->subscribes && list_empty(&u->in_flight) &&
        !downstream_gone(u->owner)) {
        settle_block_state(e, u->owner);
        settle_block_end(e, u->owner, loss);
    }
    while (!list_empty(&u->in_flight)) {
        struct request *r =
            CONTAINER_OF(u->in_flight.next, struct request, place);
        if (r->downstream == NULL) {
            upstream_drop_orphan(e, u, r);
        } else if (downstream_gone(r->downstream)) {
            leave_flight(u, r); /* its client's end frees it */
        } else {
            settle_client(e, u, r->downstream, loss, taken, &front);
        }
    }
    list_remove(&front);
}
