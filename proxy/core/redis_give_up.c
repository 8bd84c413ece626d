/* What redial says when it gives a request up (DESIGN.md §4): the truth, with
 * the upstream, the cause in words, attempts and time. */
#include <assert.h>
#include <stdio.h>

#include "proxy/core/ledger.h"
#include "proxy/core/redis_block.h"
#include "proxy/core/redis_blocking.h"
#include "proxy/core/state.h"

enum {
    ERROR_TEXT_MAX = 640
};

static double seconds(uint64_t us)
{
    return (double)us / 1e6;
}

static void verdict_words(const struct request *r,
                          const struct cluster *c,
                          enum verdict verdict,
                          enum command_class class,
                          char *out,
                          size_t max)
{
    switch (verdict) {
    case GIVE_UP_UNSAFE:
        snprintf(out, max, "not replayed: class %s, replay = %s",
                 command_class_name(class),
                 replay_level_name(c->config->replay));
        return;
    case GIVE_UP_ATTEMPTS:
        snprintf(out, max, "replayed %u times (retries)", (unsigned)r->replays);
        return;
    case GIVE_UP_BUDGET:
        snprintf(out, max, "the retry budget is empty (budget_ratio)");
        return;
    case GIVE_UP_DEADLINE:
        snprintf(out, max, "deadline of %.3g s%s",
                 seconds(c->config->deadline_us),
                 r->blocking != NULL ? ", and its own timeout" : "");
        return;
    case GIVE_UP_POLICY:
        snprintf(out, max, "%s",
                 c->config->retry ? "not retried" : "retry = off");
        return;
    case RETRY_NOW:
    case RETRY_LATER:
    case VERDICT_COUNT: break;
    }
    snprintf(out, max, "not retried");
}

/* Why a request is given up. */
struct give_up {
    enum outcome outcome;
    enum verdict verdict;
    const char *cause; /* words; may be empty */
};

/* The server r was last given to. */
static const struct endpoint *server_of(const struct cluster *c,
                                        const struct request *r)
{
    const struct endpoint *p =
        r->server < c->n_endpoints ? c->endpoints[r->server] : NULL;
    return p != NULL ? p : c->endpoints[0];
}

/* Write the error reply into text, which has ERROR_TEXT_MAX bytes. */
static void compose(struct engine *e,
                    const struct request *r,
                    const struct cluster *c,
                    const struct give_up *why,
                    char *text)
{
    char address[ADDRESS_TEXT_MAX + 1] = "";
    char words[96];
    bool unknown = why->outcome == OUTCOME_AMBIGUOUS;
    const char *code = unknown ? "UNKNOWNOUTCOME" : "NOTAPPLIED";
    const char *what = unknown ? "may have been executed" : "was not executed";
    if (!unknown && r->ends_block && r->command->id == COMMAND_EXEC) {
        code = "EXECABORT";
        what = "executed nothing, the transaction is discarded";
    }
    const struct endpoint *p = server_of(c, r);
    if (!p->limbo) {
        address[0] = ' ';
        address_format(&p->address, address + 1);
    }
    enum command_class class = r->block_class != 0
                                   ? (enum command_class)(r->block_class - 1)
                                   : request_class(e, r);
    verdict_words(r, c, why->verdict, class, words, sizeof(words));
    snprintf(text, ERROR_TEXT_MAX - 2,
             "-%s %s %s: upstream '%s'%s: %s; sent %u times, %u connection "
             "attempts failed, %.3f s; %s",
             code, request_name(r), what, c->config->name, address,
             why->cause[0] != '\0' ? why->cause : "no connection yet",
             (unsigned)r->attempts, (unsigned)p->failures,
             seconds(e->now_us - r->arrived_us), words);
    char *end = text;
    for (; *end != '\0'; end++) {
        if ((unsigned char)*end < ' ') {
            *end = '?'; /* it is one line, whatever a server has said */
        }
    }
    end[0] = '\r';
    end[1] = '\n';
    end[2] = '\0';
}

/* What retries and their end have in common. */
static struct trace_record record_of(struct engine *e, const struct request *r)
{
    const struct downstream *d = r->downstream;
    const struct cluster *c = d->listener->cluster;
    const struct endpoint *p = server_of(c, r);
    return (struct trace_record){
        .upstream = c->config->name,
        .listener = d->listener->config->name,
        .address = p->limbo ? NULL : &p->address,
        .client = d->conn.id,
        .command = request_name(r),
        .class = command_class_name(request_class(e, r)),
        .attempt = r->attempts,
        .elapsed_us = e->now_us - r->arrived_us,
    };
}

static void trace_give_up(struct engine *e,
                          const struct request *r,
                          const struct give_up *why)
{
    if (e->tracer.emit == NULL) {
        return;
    }
    struct trace_record record = record_of(e, r);
    record.type = TRACE_GIVE_UP;
    record.outcome = outcome_name(why->outcome);
    record.verdict = verdict_name(why->verdict);
    record.reason = why->cause;
    engine_trace(e, &record);
}

void request_trace_retry(struct engine *e,
                         const struct request *r,
                         enum outcome outcome,
                         enum verdict verdict,
                         const char *why,
                         uint64_t delay_us)
{
    if (e->tracer.emit == NULL) {
        return;
    }
    struct trace_record record = record_of(e, r);
    record.type = TRACE_RETRY;
    record.outcome = outcome_name(outcome);
    record.verdict = verdict_name(verdict);
    record.reason = why;
    record.delay_us = delay_us;
    engine_trace(e, &record);
}

static void answer(struct engine *e,
                   struct request *r,
                   struct cluster *c,
                   const struct give_up *cause)
{
    struct downstream *d = r->downstream;
    struct give_up why = *cause;
    if (r->ambiguous) {
        why.outcome = OUTCOME_AMBIGUOUS; /* once unknown, always unknown */
    }
    bool unknown = why.outcome == OUTCOME_AMBIGUOUS;
    trace_give_up(e, r, &why);
    if (r->task == TASK_SESSION || r->task == TASK_LEDGER) {
        redis_session_dropped(e, d);
        if (downstream_gone(d)) {
            return;
        }
    }
    if (r->has_error && !unknown) {
        c->stats.server_errors++;
        downstream_answer(e, r); /* the server's own words, kept in reply */
        return;
    }
    char text[ERROR_TEXT_MAX + 1];
    compose(e, r, c, &why, text);
    if (!r->fragment) { /* else its parent counts */
        c->stats.unknown_outcome += unknown;
        c->stats.not_applied += !unknown;
    }
    downstream_answer_text(e, r, text);
}

/* The next request behind r that belongs to its MULTI block and waits for the
 * lane. It must not run without what was in front of it. */
static struct request *next_of_block(const struct request *r)
{
    struct downstream *d = r->downstream;
    for (struct list_node *node = r->arrival.next; node != &d->requests;
         node = node->next) {
        struct request *next = CONTAINER_OF(node, struct request, arrival);
        if (!next->in_block || next->opens_block) {
            return NULL;
        }
        if (next->state == REQUEST_READY) {
            return next;
        }
    }
    return NULL;
}

/* What a transaction loses with r. When MULTI itself is refused, the rest of
 * its block may be on its way: it must not run outside of a block. A client
 * that has seen the error first sends no more of it, so this ends by itself. */
static void mind_block(struct engine *e, struct request *r)
{
    struct downstream *d = r->downstream;
    if (r->ends_block && r->ambiguous) {
        redis_block_session_in_doubt(d, r);
    }
    if (d->ledger != NULL && redis_is_in_front(r)) {
        block_log_free(e, d->ledger);
    }
    enum command_id id = r->command != NULL ? r->command->id : COMMAND_OTHER;
    bool current = r->in_block && !redis_later_multi(r);
    bool open = current && d->block == BLOCK_OPEN;
    bool broken = current && d->block == BLOCK_BROKEN;
    bool refused = id == COMMAND_MULTI && !r->in_block;
    if (refused || ((open || broken) && r->opens_block)) {
        d->block = BLOCK_BROKEN;
        d->block_until_us = UINT64_MAX;
        r->refused_block = !r->owed; /* the end comes with its error */
    } else if (open) {
        d->block = BLOCK_BROKEN;
        d->block_until_us = UINT64_MAX;
    }
    if (id == COMMAND_WATCH && !r->in_block) {
        redis_watch_given_up(e, r);
    }
}

/* What waits of the block in front of its EXEC, of which nobody knows whether it
 * has run: that these were queued promises nothing. */
static void answer_as_queued(struct engine *e, struct request *exec)
{
    const struct downstream *d = exec->downstream;
    for (struct list_node *node = exec->arrival.prev;
         node != &d->requests && !downstream_gone(d); node = node->prev) {
        struct request *r = CONTAINER_OF(node, struct request, arrival);
        if (!r->in_block || r->ends_block) {
            break;
        }
        bool waits = r->state == REQUEST_READY && r->upstream != NULL;
        if (waits) {
            upstream_unhold(e, r->upstream, r);
        }
        bool lost = r->state == REQUEST_SENT && r->upstream == NULL;
        if (waits || lost || r->state == REQUEST_READY) {
            downstream_answer_text(e, r,
                                   r->opens_block ? "+OK\r\n" : "+QUEUED\r\n");
        }
        if (r->opens_block) {
            break;
        }
    }
    if (exec->state == REQUEST_READY && exec->upstream != NULL) {
        upstream_unhold(e, exec->upstream, exec);
    }
}

static void answer_in_block(struct engine *e,
                            struct request *r,
                            struct cluster *c,
                            const struct give_up *why)
{
    if (r->task == TASK_ABORT) {
        redis_block_aborted(e, r);
    } else if (r->ends_block && r->command->id == COMMAND_DISCARD) {
        downstream_answer_text(e, r, "+OK\r\n"); /* nothing of it will run */
    } else {
        answer(e, r, c, why);
    }
}

void request_give_up(struct engine *e,
                     struct request *r,
                     struct cluster *c,
                     enum outcome outcome,
                     enum verdict verdict,
                     const char *cause)
{
    struct downstream *d = r->downstream;
    if (r->task == TASK_ABORT) {
        redis_block_aborted(e, r); /* the block has gone with its connection */
        return;
    }
    if (verdict == GIVE_UP_DEADLINE && r->blocking != NULL &&
        blocking_time_out(e, r)) {
        return;
    }
    char copy[ENDPOINT_ERROR_MAX]; /* cause may change under our hands */
    snprintf(copy, sizeof(copy), "%s", cause != NULL ? cause : "");
    struct request *exec = r->in_block ? redis_exec_of(r) : NULL;
    if (exec != NULL && exec != r && exec->ambiguous) {
        answer_as_queued(e, exec);
        outcome = OUTCOME_AMBIGUOUS;
        r = exec;
    } else if (exec == r && exec != NULL &&
               (r->ambiguous || outcome == OUTCOME_AMBIGUOUS)) {
        answer_as_queued(e, exec);
    }
    mind_block(e, r);
    const struct give_up why = { outcome, verdict, copy };
    const struct give_up with_it = { OUTCOME_NOT_SENT, verdict, copy };
    struct request *rest = NULL;
    while (r->in_block && (rest = next_of_block(r)) != NULL) {
        upstream_unhold(e, rest->upstream, rest);
        request_move(rest, REQUEST_NEW);
        answer_in_block(e, rest, c, &with_it);
        if (downstream_gone(d)) {
            return;
        }
    }
    answer_in_block(e, r, c, &why);
}
