/* What a lane is given to carry: sent at once, or held until it can be. */
#include <assert.h>

#include "proxy/core/ledger.h"
#include "proxy/core/redis_blocking.h"
#include "proxy/core/redis_pubsub.h"
#include "proxy/core/redis_tracking.h"
#include "proxy/core/state.h"

bool upstream_has_room(const struct upstream *u)
{
    return u->queued_end - u->taken < upstream_policy(u)->lane_buffer_max;
}

enum {
    COPY_MAX = 256 /* bytes of a request that are cheaper copied than listed */
};

/* Copy a small request behind the last one, so that what goes to one server
 * lies in one piece although its neighbours where it was read go elsewhere.
 * False: there is no memory, and nothing has happened. */
static bool push_copy(struct engine *e,
                      struct upstream *u,
                      const struct slice *part)
{
    struct buf *b = u->outbuf;
    if (b == NULL || b->cap - b->len < part->len) {
        b = buf_new(e->memory, 0);
        if (b == NULL) {
            return false;
        }
        if (u->outbuf != NULL) {
            buf_unref(e->memory, u->outbuf);
        }
        u->outbuf = b;
    }
    uint32_t offset = b->len;
    memcpy(b->data + offset, slice_data(part), part->len);
    b->len += part->len;
    if (chain_push_part(e->memory, &u->link->conn.out, b, offset, part->len)) {
        return true;
    }
    b->len = offset;
    return false;
}

static bool push_bytes(struct engine *e, struct upstream *u, struct request *r)
{
    struct chain *out = &u->link->conn.out;
    if (u->copies && r->more.head == NULL && r->part.len <= COPY_MAX) {
        if (chain_extend(out, r->part.buf, r->part.offset, r->part.len) ||
            push_copy(e, u, &r->part)) {
            return true;
        }
    }
    if (r->more.head == NULL) {
        return chain_push_part(e->memory, out, r->part.buf, r->part.offset,
                               r->part.len);
    }
    struct chain whole = { 0 };
    if (!chain_push_part(e->memory, &whole, r->part.buf, r->part.offset,
                         r->part.len) ||
        !chain_share(e->memory, &whole, &r->more)) {
        chain_clear(e->memory, &whole);
        return false;
    }
    chain_move(out, &whole);
    return true;
}

static bool deadline_passed(const struct engine *e, const struct request *r)
{
    return e->now_us >= r->deadline_us;
}

/* Behind this one the server's bytes are not told apart any more. */
static void sent_raw(struct engine *e, struct upstream *u, struct request *r)
{
    u->raw = true;
    u->queued_end += r->size;
    conn_touch(e, &u->link->conn);
    downstream_answer(e, r); /* with nothing: the server's words follow */
}

/* For WAIT, which is about it. */
static void note_write(const struct engine *e,
                       const struct upstream *u,
                       struct downstream *d)
{
    d->wrote_us = e->now_us;
    d->wrote_conn = u->link->conn.id;
    d->wrote_server = (uint16_t)u->endpoint->index;
}

/* Say in front of r what its client has not: DISCARD or UNWATCH. */
static bool say_before(struct engine *e, struct upstream *u, const char *bytes)
{
    return upstream_send_own(e, u, TASK_ASIDE, 0, span_of(bytes));
}

static bool give_up_unsent(struct engine *e, struct request *r, const char *why)
{
    request_give_up(e, r, r->downstream->listener->cluster, OUTCOME_NOT_SENT,
                    GIVE_UP_POLICY, why);
    return false;
}

/* Nothing is sent into a block that it is no part of, no part of a block outside
 * of it, and no block runs with a watch that is not its own. False: r has been
 * answered. */
static bool keep_apart(struct engine *e, struct upstream *u, struct request *r)
{
    bool part = r->in_block && !r->opens_block;
    if (part && !u->in_multi) {
        u->endpoint->cluster->stats.ledger_mismatch++;
        return give_up_unsent(e, r, "its transaction is not open there");
    }
    bool said = true;
    if (!part && u->in_multi) {
        said = say_before(e, u, "*1\r\n$7\r\nDISCARD\r\n");
        u->in_watch = false;
    }
    if (said && r->opens_block && u->in_watch && !r->watched) {
        said = say_before(e, u, "*1\r\n$7\r\nUNWATCH\r\n");
        u->in_watch = false;
    }
    if (!said) {
        e->stats.limit_memory++;
        return give_up_unsent(e, r, "out of memory");
    }
    u->in_multi = r->in_block && !r->ends_block;
    bool forgets = r->ends_block || (!r->in_block && r->command != NULL &&
                                     r->command->id == COMMAND_UNWATCH);
    u->in_watch = r->watches || (u->in_watch && !forgets);
    return true;
}

/* False: r has been answered. */
static bool may_be_sent(struct engine *e, struct upstream *u, struct request *r)
{
    if ((r->in_block || r->watches || u->in_multi || u->in_watch) &&
        !keep_apart(e, u, r)) {
        return false;
    }
    if (r->task == TASK_LINE && !tracking_send(e, r)) {
        return false;
    }
    return r->blocking == NULL || blocking_prepare(e, u, r);
}

/* What redial itself has to say in front of r. False: no memory. */
static bool say_in_front(struct engine *e,
                         struct upstream *u,
                         struct request *r)
{
    bool script = r->command != NULL && r->command->id >= COMMAND_SCRIPT_CALL;
    bool caching = r->caching != CACHING_NONE || r->task == TASK_CACHING;
    return (!script || redis_script_send(e, u, r)) &&
           (!caching || tracking_prepare(e, u, r)) &&
           (!r->asking || say_before(e, u, "*1\r\n$6\r\nASKING\r\n"));
}

void upstream_send(struct engine *e, struct upstream *u, struct request *r)
{
    struct cluster *c = u->endpoint->cluster;
    const struct command *command = r->command;
    bool script = command != NULL && command->id >= COMMAND_SCRIPT_CALL;
    bool common = r->uncommon == 0 && u->owner == NULL && !script;
    if (!common && !may_be_sent(e, u, r)) {
        return;
    }
    if ((!common && !say_in_front(e, u, r)) || !push_bytes(e, u, r)) {
        u->in_multi = u->in_multi || r->in_block; /* it was not sent */
        e->stats.limit_memory++;
        request_give_up(e, r, c, OUTCOME_NOT_SENT, GIVE_UP_POLICY,
                        "out of memory");
        return;
    }
    if (r->task == TASK_RAW) {
        sent_raw(e, u, r);
        return;
    }
    if (command == NULL || (command->flags & COMMAND_WRITES) != 0) {
        note_write(e, u, r->downstream);
    }
    if (r->attempts == 0) {
        budget_deposit(&c->budget);
    }
    r->attempts++;
    r->upstream = u;
    r->server = (uint16_t)u->endpoint->index;
    r->sent_us = e->now_us;
    u->queued_end += r->size;
    r->sent_end = r->incomplete ? UINT64_MAX : u->queued_end;
    c->stats.late_attempts += deadline_passed(e, r);
    if (r->task == TASK_SUBSCRIBE) {
        subscriber_sent(e, u, r);
    }
    request_move(r, REQUEST_SENT);
    list_append(&u->in_flight, &r->place);
    u->endpoint->in_flight++;
    conn_touch(e, &u->link->conn);
    if (r->patience_us > 0) {
        upstream_wake_at(e, u, e->now_us + r->patience_us);
    }
    if (r->streaming) {
        request_drop_bytes(e, r); /* too large to keep */
    }
}

bool upstream_abandon(struct engine *e, struct request *r)
{
    struct request *stand_in = request_new(e, NULL);
    if (stand_in == NULL) {
        return false;
    }
    stand_in->upstream = r->upstream;
    stand_in->sent_us = r->sent_us;
    stand_in->sent_end = r->sent_end;
    stand_in->size = r->size;
    stand_in->pieces_more = r->pieces_more;
    request_move(stand_in, REQUEST_SENT);
    list_insert_before(&r->place, &stand_in->place);
    list_remove(&r->place);
    r->upstream = NULL;
    return true;
}

bool upstream_is_idle(const struct upstream *u)
{
    LIST_FOR_EACH (node, &u->in_flight) {
        if (!request_is_own(CONTAINER_OF(node, struct request, place))) {
            return false;
        }
    }
    return list_empty(&u->waiting);
}

bool upstream_is_inside_request(const struct upstream *u)
{
    return !list_empty(&u->in_flight) &&
           CONTAINER_OF(u->in_flight.prev, struct request, place)->incomplete;
}

bool upstream_send_own(struct engine *e,
                       struct upstream *u,
                       enum request_task task,
                       uint8_t step,
                       struct span bytes)
{
    struct chain copy = { 0 };
    if (!chain_push_copy(e->memory, &copy, bytes)) {
        return false;
    }
    if (!upstream_send_own_list(e, u, task, step, &copy, 1)) {
        chain_clear(e->memory, &copy);
        return false;
    }
    return true;
}

bool upstream_send_own_list(struct engine *e,
                            struct upstream *u,
                            enum request_task task,
                            uint8_t step,
                            struct chain *bytes,
                            uint32_t n)
{
    assert(!upstream_is_inside_request(u));
    struct request *r = request_new(e, NULL);
    if (r == NULL) {
        return false;
    }
    if (u->owner != NULL && u->owner->ledger != NULL) {
        u->owner->ledger->caching_conn = 0; /* that was about this one */
    }
    r->task = (uint8_t)task;
    r->step = step;
    r->size = bytes->bytes;
    r->pieces_more = n - 1;
    r->upstream = u;
    r->sent_us = e->now_us;
    u->queued_end += r->size;
    r->sent_end = u->queued_end;
    chain_move(&u->link->conn.out, bytes);
    request_move(r, REQUEST_SENT);
    list_append(&u->in_flight, &r->place);
    conn_touch(e, &u->link->conn);
    return true;
}

void upstream_unhold(struct engine *e, struct upstream *u, struct request *r)
{
    (void)e;
    assert(r->state == REQUEST_READY && r->upstream == u);
    list_remove(&r->place);
    r->upstream = NULL;
    u->endpoint->cluster->held--;
}

void upstream_hold(struct engine *e,
                   struct upstream *u,
                   struct request *r,
                   struct list_node *before)
{
    request_compact(e, r);
    request_move(r, REQUEST_READY);
    r->upstream = u;
    r->server = (uint16_t)u->endpoint->index;
    list_insert_before(before, &r->place);
    u->endpoint->cluster->held++;
    downstream_wake_at(e, r->downstream, r->deadline_us);
}

/* What comes behind a MULTI that was taken: without its EXEC the block would
 * stay open at the server, and swallow what follows. */
static bool is_rest_of_block(const struct request *r)
{
    return r->in_block &&
           (r->command == NULL || r->command->id != COMMAND_MULTI);
}

/* Why r can't wait for the lane, or NULL. */
static const char *refusal_to_hold(struct engine *e,
                                   struct upstream *u,
                                   const struct request *r)
{
    struct cluster *c = u->endpoint->cluster;
    const struct upstream_config *config = c->config;
    if (is_rest_of_block(r)) {
        return NULL;
    }
    if (u->state != UPSTREAM_UP && !r->ambiguous &&
        endpoint_fails_fast(e, u->endpoint)) {
        c->stats.fail_fast++;
        return u->endpoint->last_error;
    }
    if (!config->retry &&
        (u->state == UPSTREAM_WAITING || u->endpoint->limbo)) {
        return u->endpoint->last_error;
    }
    if (c->held >= config->held_requests_max) {
        e->stats.limit_held_requests_max++;
        engine_trace_limit(e, c, "held_requests_max");
        return "held_requests_max requests wait already";
    }
    return NULL;
}

static void hold_new(struct engine *e, struct upstream *u, struct request *r)
{
    struct cluster *c = u->endpoint->cluster;
    const char *why = refusal_to_hold(e, u, r);
    if (why != NULL) {
        redis_forget_refusal(e, r); /* that is not why */
        upstream_want(e, u);        /* so that it is noticed when it is back */
        request_give_up(e, r, c, OUTCOME_NOT_SENT, GIVE_UP_POLICY, why);
        return;
    }
    e->stats.limit_lane_buffer_max +=
        u->state == UPSTREAM_UP && !u->renew && list_empty(&u->waiting);
    upstream_hold(e, u, r, &u->waiting);
    upstream_want(e, u);
    if (u->endpoint->down_since_us != 0 && !u->endpoint->limbo) {
        topology_want(e, c, "requests wait for a server out of reach");
    }
}

void upstream_submit(struct engine *e, struct upstream *u, struct request *r)
{
    if (deadline_passed(e, r)) {
        request_give_up(e, r, u->endpoint->cluster, OUTCOME_NOT_SENT,
                        GIVE_UP_DEADLINE, "waited for what came before it");
        return;
    }
    if (u->state != UPSTREAM_UP || u->renew || !list_empty(&u->waiting) ||
        !upstream_has_room(u)) {
        hold_new(e, u, r);
    } else if (r->task != TASK_SESSION && r->task != TASK_SETINFO) {
        upstream_send(e, u, r);
    } else {
        upstream_hold(e, u, r, &u->waiting);
        upstream_flush(e, u);
    }
}

/* The lane has the database, user and protocol of r's client (reliability.md
 * I8). */
static bool lane_fits(const struct engine *e,
                      const struct upstream *u,
                      const struct request *r)
{
    const struct downstream *d = r->downstream;
    /* One that changes the session, and goes to a shared lane that has it. */
    bool ahead =
        r->task == TASK_SESSION || (r->task == TASK_LEDGER && u->owner == NULL);
    const struct session *s =
        ahead ? d->session_next : downstream_session(e, d);
    return session_same_lane(u->session, s);
}

/* Send one that has waited, or end it. */
static void send_held(struct engine *e, struct upstream *u, struct request *r)
{
    struct cluster *c = u->endpoint->cluster;
    upstream_unhold(e, u, r);
    if (deadline_passed(e, r)) {
        request_give_up(e, r, c, OUTCOME_NOT_SENT, GIVE_UP_DEADLINE,
                        u->endpoint->last_error);
        return;
    }
    if (r->write_replay && u->fence_needed && !u->fence_done) {
        c->stats.fence_failed++;
        request_give_up(e, r, c, OUTCOME_AMBIGUOUS, GIVE_UP_UNSAFE,
                        "the server would not close the old connection "
                        "(CLIENT KILL), which may still deliver it");
        return;
    }
    r->write_replay = false;
    if (!lane_fits(e, u, r)) {
        c->stats.ledger_mismatch++;
        request_give_up(e, r, c, OUTCOME_NOT_SENT, GIVE_UP_POLICY,
                        "its lane has another session");
        return;
    }
    if (r->task == TASK_SESSION || r->task == TASK_SETINFO) {
        redis_session_accepted(e, u, r);
        return;
    }
    upstream_send(e, u, r);
}

void upstream_flush(struct engine *e, struct upstream *u)
{
    while (u->state == UPSTREAM_UP && !u->renew && !list_empty(&u->waiting) &&
           upstream_has_room(u)) {
        send_held(e, u, CONTAINER_OF(u->waiting.next, struct request, place));
    }
}
