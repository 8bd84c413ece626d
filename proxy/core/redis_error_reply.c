/* What an error reply means: refusals that prove that nothing was executed are
 * waited out or followed, the others are answers (redis.md §3, §4 rule 6). */
#include "parser/redis_error.h"
#include "proxy/core/message.h"
#include "proxy/core/redis_block.h"
#include "proxy/core/redis_blocking.h"
#include "proxy/core/state.h"

unsigned redis_retry_error_of(enum redis_error_kind kind)
{
    switch (kind) {
    case REDIS_ERROR_LOADING: return RETRY_ERROR_LOADING;
    case REDIS_ERROR_READONLY:
    case REDIS_ERROR_UNBLOCKED: /* it has become a replica */
        return RETRY_ERROR_READONLY;
    case REDIS_ERROR_MASTERDOWN: return RETRY_ERROR_MASTERDOWN;
    case REDIS_ERROR_CLUSTERDOWN: return RETRY_ERROR_CLUSTERDOWN;
    case REDIS_ERROR_TRYAGAIN: return RETRY_ERROR_TRYAGAIN;
    case REDIS_ERROR_NOREPLICAS: return RETRY_ERROR_NOREPLICAS;
    case REDIS_ERROR_BUSY: return RETRY_ERROR_BUSY;
    case REDIS_ERROR_MAXCLIENTS: return RETRY_ERROR_MAXCLIENTS;
    case REDIS_ERROR_OTHER:
    case REDIS_ERROR_MISCONF:
    case REDIS_ERROR_MOVED:
    case REDIS_ERROR_ASK:
    case REDIS_ERROR_NOSCRIPT:
    case REDIS_ERROR_EXECABORT:
    case REDIS_ERROR_NOAUTH:
    case REDIS_ERROR_NOPERM:
    case REDIS_ERROR_WRONGPASS:
    case REDIS_ERROR_NOPROTO:
    case REDIS_ERROR_UNKNOWN_COMMAND:
    case REDIS_ERROR_OOM:
    case REDIS_ERROR_COUNT: break;
    }
    return 0;
}

/* A script can raise some of these after it has written; the others come from
 * the server before it runs, in its own words. A script that only reads may be
 * missing whatever happened before: clients know what to do then. */
static bool proves_not_applied(const struct request *r,
                               const struct redis_error *error)
{
    enum redis_error_kind kind = error->kind;
    if (!redis_error_not_applied(kind) || r->in_block) {
        return false;
    }
    if (r->command == NULL || r->command->id != COMMAND_SCRIPT_CALL) {
        return true;
    }
    bool redirect = redis_is_redirect(kind) &&
                    r->downstream->listener->cluster->slots != NULL;
    bool missing = kind == REDIS_ERROR_NOSCRIPT &&
                   r->command->class != CLASS_R &&
                   command_script_call(r->command) == SCRIPT_SHA1;
    bool waits = kind == REDIS_ERROR_LOADING || kind == REDIS_ERROR_BUSY;
    return (error->own_words && (waits || missing)) || redirect;
}

/* Let r wait until everything its client has behind it is answered; only then
 * can it be known whether trying again would overtake (rule 6). */
static void begin_settling(struct engine *e,
                           struct upstream *u,
                           struct request *r,
                           const struct message *m)
{
    struct downstream *d = r->downstream;
    redis_take_from_flight(e, u, r);
    if (!message_keep(e, u, r, m)) {
        e->stats.limit_memory++;
        downstream_close(e, d, "out of memory for its reply");
        return;
    }
    r->has_error = true;
    if (r->blocking != NULL) {
        blocking_refused(r);
    }
    request_move(r, REQUEST_SETTLING);
    d->n_settling++;
    redis_refused_begin(d, r);
    downstream_wake_at(e, d, r->deadline_us);
    downstream_recall(e, d, r);
    downstream_later(e, d);
}

/* A blocked command that was sent away can go on waiting elsewhere if it can be
 * told for how long. WAIT is about the server it was at. */
static bool may_ask_again(const struct request *r, enum redis_error_kind kind)
{
    const struct blocking *b = r->blocking;
    return kind != REDIS_ERROR_UNBLOCKED ||
           (b != NULL && b->class != CLASS_BW && b->timeout_arg != 0);
}

/* A block is refused for now: it begins again, on another connection. */
static void begin_again(struct engine *e,
                        struct upstream *u,
                        struct request *r,
                        const struct message *m,
                        enum redis_error_kind kind)
{
    if (!message_keep(e, u, r, m)) {
        e->stats.limit_memory++;
        downstream_close(e, r->downstream, "out of memory for its reply");
        return;
    }
    r->has_error = true;
    if (kind == REDIS_ERROR_MOVED || kind == REDIS_ERROR_ASK) {
        redis_forget_refusal(e, r); /* it is never shown */
    }
    upstream_begin_again(e, u, "its transaction is refused for now");
}

/* An error reply to a part of a block. Returns true when it is dealt with. */
static bool on_error_in_block(struct engine *e,
                              struct upstream *u,
                              struct request *r,
                              const struct message *m,
                              const struct redis_error *error,
                              struct span head)
{
    if (redis_block_may_begin_again(e, u, r, error, head)) {
        begin_again(e, u, r, m, error->kind);
        return true;
    }
    if (!r->ends_block || !r->ambiguous) {
        return false;
    }
    /* It was refused now, but an earlier attempt may have run. */
    struct cluster *c = u->endpoint->cluster;
    c->stats.server_errors++;
    redis_block_reply(e, u, r, false, head);
    redis_take_from_flight(e, u, r);
    chain_clear(e->memory, &u->partial);
    request_give_up(e, r, c, OUTCOME_AMBIGUOUS, GIVE_UP_POLICY,
                    redis_error_name(error->kind));
    return true;
}

bool redis_error_reply(struct engine *e,
                       struct upstream *u,
                       struct request *r,
                       const struct message *m)
{
    struct cluster *c = u->endpoint->cluster;
    uint8_t scratch[MESSAGE_HEAD_MAX];
    struct span head = message_head(u, m, scratch);
    struct redis_error error = redis_error_parse(head);
    if (r->in_block && on_error_in_block(e, u, r, m, &error, head)) {
        return true;
    }
    if (error.kind == REDIS_ERROR_NOSCRIPT && error.own_words &&
        redis_script_missing(e, r)) {
        begin_settling(e, u, r, m);
        return true;
    }
    if (c->topology != NULL) {
        const char *why = NULL;
        switch (redis_redirect(e, u, r, &error, head, &why)) {
        case REDIRECT_NONE: break;
        case REDIRECT_FOLLOW:
            begin_settling(e, u, r, m);
            chain_clear(e->memory, &r->reply); /* it is never shown */
            r->has_error = false;
            return true;
        case REDIRECT_CROSSSLOT:
            redis_block_reply(e, u, r, false, head);
            redis_take_from_flight(e, u, r);
            chain_clear(e->memory, &u->partial);
            c->stats.server_errors++;
            downstream_answer_text(e, r, redis_crossslot);
            return true;
        case REDIRECT_REFUSE:
            redis_take_from_flight(e, u, r);
            chain_clear(e->memory, &u->partial);
            request_give_up(e, r, c, OUTCOME_NOT_APPLIED, GIVE_UP_POLICY, why);
            return true;
        }
    }
    if (c->topology == NULL && (error.kind == REDIS_ERROR_READONLY ||
                                error.kind == REDIS_ERROR_UNBLOCKED)) {
        upstream_seek_primary(e, u);
    }
    if (!proves_not_applied(r, &error)) {
        c->stats.server_errors++;
        return false;
    }
    if (error.kind == REDIS_ERROR_MOVED || error.kind == REDIS_ERROR_ASK) {
        redis_take_from_flight(e, u, r);
        chain_clear(e->memory, &u->partial);
        request_give_up(e, r, c, OUTCOME_NOT_APPLIED, GIVE_UP_POLICY,
                        "the server is a node of a Redis Cluster and the key "
                        "lives on another node (type = cluster)");
        return true;
    }
    bool can_wait = !r->streaming && may_ask_again(r, error.kind) &&
                    (r->task == TASK_FORWARD || r->task == TASK_LINE ||
                     r->task == TASK_ID || r->task == TASK_SUBSCRIBE ||
                     r->task == TASK_CACHING);
    if (can_wait && c->config->retry &&
        (c->config->retry_on_error & redis_retry_error_of(error.kind)) != 0) {
        begin_settling(e, u, r, m);
        return true;
    }
    c->stats.server_errors++;
    if (r->ambiguous) {
        /* This attempt was refused, but an earlier one may have run. */
        redis_take_from_flight(e, u, r);
        chain_clear(e->memory, &u->partial);
        request_give_up(e, r, c, OUTCOME_AMBIGUOUS, GIVE_UP_POLICY,
                        redis_error_name(error.kind));
        return true;
    }
    return false;
}
