/* What arrives from a server: replies are matched with requests, refusals are
 * judged, large replies are passed on as they come. */
#include <assert.h>

#include "parser/redis_error.h"
#include "proxy/core/learn.h"
#include "proxy/core/message.h"
#include "proxy/core/redis_block.h"
#include "proxy/core/redis_blocking.h"
#include "proxy/core/redis_pubsub.h"
#include "proxy/core/sentinel.h"
#include "proxy/core/settle.h"
#include "proxy/core/state.h"

static void break_lane(struct engine *e, struct upstream *u, const char *why)
{
    u->endpoint->cluster->stats.protocol_error_server++;
    upstream_lost(e, u, &(struct upstream_loss){ .why = why, .tell = true });
}

struct span message_head(const struct upstream *u,
                         const struct message *m,
                         uint8_t *scratch)
{
    if (u->partial.head == NULL) {
        return (struct span){ m->buf->data + m->offset, m->len };
    }
    size_t n = chain_copy(&u->partial, scratch, MESSAGE_HEAD_MAX);
    size_t room = MESSAGE_HEAD_MAX - n;
    size_t rest = room < m->len ? room : m->len;
    memcpy(scratch + n, m->buf->data + m->offset, rest);
    return (struct span){ scratch, n + rest };
}

bool message_whole(struct engine *e,
                   const struct upstream *u,
                   const struct message *m,
                   struct span *whole,
                   void **copy)
{
    *copy = NULL;
    *whole = (struct span){ m->buf->data + m->offset, m->len };
    if (u->partial.head == NULL) {
        return true;
    }
    size_t size = u->partial.bytes + m->len;
    uint8_t *bytes = memory_take_raw(e->memory, size);
    if (bytes == NULL) {
        return false;
    }
    size_t n = chain_copy(&u->partial, bytes, size);
    memcpy(bytes + n, m->buf->data + m->offset, m->len);
    *whole = (struct span){ bytes, size };
    *copy = bytes;
    return true;
}

/* A client that does not keep up: its lane is read no further until it has
 * taken half of what it may be owed. As long as others wait behind it more is
 * held instead, but not of a reply that is streamed, which may be of any size.
 * Over several servers, replies that are held wait for one of them, and that
 * one must be read: only what the client itself does not take counts there. */
void redis_slow_down(struct engine *e, struct upstream *u, struct downstream *d)
{
    const struct listener_config *config = d->listener->config;
    uint64_t owed = d->unwritten + d->held;
    if (owed < config->client_buffer_max || downstream_gone(d) ||
        u->stalled_by != NULL || u->link == NULL) {
        return;
    }
    if (d->n_settling > 0 && d->unwritten < config->client_buffer_max) {
        return; /* what is held waits for the rest that u has to say */
    }
    if (d->listener->cluster->slots != NULL &&
        d->unwritten < config->client_buffer_max) {
        struct upstream *head = downstream_head_lane(d);
        if (head == NULL || head == u) {
            return;
        }
    }
    d->large_replies = true;
    bool others = downstream_holds_up_others(d, u);
    if (others && !u->streaming && owed < config->client_overflow_max) {
        return;
    }
    e->stats.limit_client_buffer_max += !others;
    e->stats.limit_client_overflow_max += others;
    downstream_stall(e, d, u);
}

void redis_take_from_flight(struct engine *e,
                            struct upstream *u,
                            struct request *r)
{
    list_remove(&r->place);
    u->endpoint->in_flight--;
    r->upstream = NULL;
    if (r->patience_us > 0 || r->blocking != NULL) {
        upstream_next_due(e, u, r->blocking != NULL);
    }
}

bool message_keep(struct engine *e,
                  struct upstream *u,
                  struct request *r,
                  const struct message *m)
{
    chain_clear(e->memory, &r->reply);
    chain_move(&r->reply, &u->partial);
    return chain_push_part(e->memory, &r->reply, m->buf, m->offset, m->len);
}

void redis_forget_refusal(struct engine *e, struct request *r)
{
    if (r->has_error) {
        chain_clear(e->memory, &r->reply);
        r->has_error = false;
    }
}

static void deliver(struct engine *e,
                    struct upstream *u,
                    struct request *r,
                    const struct message *m)
{
    struct downstream *d = r->downstream;
    d->served_us = e->now_us;
    redis_take_from_flight(e, u, r);
    redis_forget_refusal(e, r);
    if (r->by_subscriber && subscriber_pong(e, u, r, m)) {
        return;
    }
    if (u->partial.head == NULL) {
        downstream_reply(e, r, m->buf, m->offset, m->len);
        redis_slow_down(e, u, d);
        return;
    }
    if (!message_keep(e, u, r, m)) {
        e->stats.limit_memory++;
        downstream_close(e, d, "out of memory for its reply");
        return;
    }
    downstream_answer(e, r);
    redis_slow_down(e, u, d);
}

/* ---- messages ----------------------------------------------------------- */

static void on_sentinel_push(struct engine *e,
                             struct upstream *u,
                             const struct message *m)
{
    struct span whole;
    void *copy;
    if (message_whole(e, u, m, &whole, &copy)) { /* else polling finds out */
        sentinel_push(e, u->endpoint->cluster->topology, u, whole);
        memory_give(e->memory, copy);
    }
    chain_clear(e->memory, &u->partial);
}

/* u is being reset, and what the server has said until then was meant for the
 * client that had it before. */
static bool is_of_the_client_before(const struct upstream *u)
{
    return u->state == UPSTREAM_HANDSHAKE && !u->establishing;
}

static void on_push(struct engine *e, struct upstream *u, struct message *m)
{
    const struct downstream *d = u->owner;
    if (u->endpoint->sentinel) {
        on_sentinel_push(e, u, m);
        return;
    }
    if (d == NULL || is_of_the_client_before(u)) {
        u->endpoint->cluster->stats.pushes_dropped++;
        chain_clear(e->memory, &u->partial);
        return;
    }
    redis_push(e, u, m);
}

static void on_own(struct engine *e,
                   struct upstream *u,
                   struct request *r,
                   struct message *m)
{
    enum request_task task = r->task;
    uint8_t step = r->step;
    uint64_t asked_us = r->arrived_us;
    endpoint_measured(u->endpoint, e->now_us - r->sent_us);
    if (r->pieces_more > 0 && !handshake_subscribes(r)) {
        r->pieces_more--;
    } else { /* confirmations end with an error, too */
        list_remove(&r->place);
        request_free(e, r);
    }
    if (task == TASK_PING || task == TASK_ASIDE) {
        chain_clear(e->memory, &u->partial);
        u->ping_sent = u->ping_sent && task != TASK_PING;
        return;
    }
    size_t size = u->partial.bytes + m->len;
    uint8_t *copy = memory_take(e->memory, size);
    if (copy == NULL) {
        e->stats.limit_memory++;
        break_lane(e, u, "out of memory");
        return;
    }
    size_t n = chain_copy(&u->partial, copy, size);
    memcpy(copy + n, m->buf->data + m->offset, m->len);
    chain_clear(e->memory, &u->partial);
    if (task == TASK_ASK) {
        blocking_told(u, step, (struct span){ copy, size });
    } else if (task == TASK_TOPOLOGY) {
        topology_reply(e, u, asked_us, step, (struct span){ copy, size });
    } else if (task == TASK_FUNCTIONS) {
        redis_functions_reply(e, u, step, (struct span){ copy, size });
    } else if (task == TASK_COMMANDS) {
        learn_reply(e, u, step, (struct span){ copy, size });
    } else {
        handshake_reply(e, u, step, (struct span){ copy, size });
    }
    memory_give(e->memory, copy);
}

static void end_stream(struct engine *e,
                       struct upstream *u,
                       struct request *r,
                       struct message *m)
{
    struct downstream *d = r->downstream;
    u->streaming = false;
    redis_take_from_flight(e, u, r);
    if (d == NULL) {
        request_free(e, r);
        return;
    }
    if (r->own_lane) {
        redis_block_reply(e, u, r, true, (struct span){ NULL, 0 });
    }
    if (r->quiet || downstream_write(e, d, m->buf, m->offset, m->len)) {
        downstream_end_stream(e, r);
    }
}

static bool is_success(uint8_t type)
{
    return type != '-' && type != '!';
}

/* r may concern a transaction, and was answered without error. */
static void tell_block(struct engine *e,
                       struct upstream *u,
                       struct request *r,
                       const struct message *m)
{
    struct span whole = { m->buf->data + m->offset, m->len };
    uint8_t *copy = NULL;
    if (u->partial.head != NULL) {
        size_t before = u->partial.bytes;
        copy =
            r->ends_block ? memory_take_raw(e->memory, before + m->len) : NULL;
        if (copy != NULL) {
            chain_copy(&u->partial, copy, before);
            memcpy(copy + before, whole.data, m->len);
        }
        whole = (struct span){ copy, copy != NULL ? before + m->len : 0 };
    }
    redis_block_reply(e, u, r, true, whole);
    memory_give(e->memory, copy);
}

/* r, which succeeded, is more than a command about keys. */
static void on_uncommon(struct engine *e,
                        struct upstream *u,
                        struct request *r,
                        const struct message *m)
{
    if (r->task != TASK_FORWARD) {
        redis_ledger_reply(e, u, r);
    }
    if (r->own_lane) {
        tell_block(e, u, r, m);
    }
}

static void on_message(struct engine *e, struct upstream *u, struct message *m)
{
    bool heard = (m->type == '>' || u->listens) && !is_of_the_client_before(u);
    if (heard && pubsub_message(e, u, m)) {
        return;
    }
    if (m->type == '>') {
        on_push(e, u, m);
        return;
    }
    if (list_empty(&u->in_flight)) {
        u->endpoint->cluster->stats.unexpected_replies++;
        break_lane(e, u, "the server sent a reply nobody had asked for");
        return;
    }
    struct request *r = CONTAINER_OF(u->in_flight.next, struct request, place);
    if (request_is_own(r)) {
        on_own(e, u, r, m);
        return;
    }
    if (r->sent_end > u->taken && !gather_piece_is_sent(u, r)) {
        u->endpoint->cluster->stats.reply_mismatch += !r->incomplete;
        break_lane(e, u, "the server answered what was not sent yet");
        return;
    }
    u->answered = true;
    if (r->state == REQUEST_COMMITTED) {
        end_stream(e, u, r, m);
        return;
    }
    struct downstream *d = r->downstream;
    if (r->pieces_more > 0) {
        struct gather_message piece = { &u->partial, m->buf, m->offset,
                                        m->len };
        if (gather_piece(e, r, is_success(m->type), &piece)) {
            if (d != NULL) {
                redis_slow_down(e, u, d);
            }
            return;
        }
    }
    if (d == NULL) {
        chain_clear(e->memory, &u->partial);
        redis_take_from_flight(e, u, r);
        request_free(e, r);
        return;
    }
    if (r->task == TASK_ABORT) {
        redis_take_from_flight(e, u, r);
        chain_clear(e->memory, &u->partial);
        redis_block_aborted(e, r);
        return;
    }
    if (r->blocking != NULL && r->blocking->doubtful) {
        redis_take_from_flight(e, u, r);
        chain_clear(e->memory, &u->partial);
        request_give_up(e, r, u->endpoint->cluster, OUTCOME_NOT_APPLIED,
                        GIVE_UP_POLICY,
                        "the server refused what makes its answer be about "
                        "the client's writes");
        return;
    }
    bool script = r->command != NULL && r->command->id >= COMMAND_SCRIPT_CALL;
    if (is_success(m->type)) {
        if (d->n_settling > 0) {
            settle_overtake(e, d, r);
        } else if (d->backoff.failures > 0) {
            backoff_reset(&d->backoff);
        }
        if (script) {
            redis_script_accepted(e, u, r);
        }
        if (r->uncommon != 0) {
            on_uncommon(e, u, r, m);
        }
    } else {
        if (redis_error_reply(e, u, r, m)) {
            return;
        }
        if (r->task == TASK_LEDGER) {
            redis_session_dropped(e, d);
        }
        if (r->task == TASK_SUBSCRIBE) {
            subscriber_answered(e, u, r, false);
        }
        if (r->first_watch && d->n_open == 1) {
            d->watching = false;
        }
        redis_multi_refused(d, r);
        if (r->own_lane) {
            uint8_t scratch[MESSAGE_HEAD_MAX];
            redis_block_reply(e, u, r, false, message_head(u, m, scratch));
        }
    }
    deliver(e, u, r, m);
}

/* ---- replies in parts ---------------------------------------------------- */

/* A reply is larger than reply_hold_max and its turn has come: from now on the
 * client sees it, and it cannot be had from anywhere else. */
static void begin_stream(struct engine *e,
                         struct upstream *u,
                         struct request *r)
{
    struct downstream *d = r->downstream;
    u->streaming = true;
    u->endpoint->cluster->stats.replies_streamed++;
    request_move(r, REQUEST_COMMITTED);
    if (r->command != NULL && r->command->id >= COMMAND_SCRIPT_CALL) {
        redis_script_accepted(e, u, r);
    }
    request_drop_bytes(e, r);
    if (d == NULL || r->quiet) {
        chain_clear(e->memory, &u->partial);
        return;
    }
    d->large_replies = true;
    if (d->unwritten == 0) {
        d->progress_us = e->now_us;
    }
    d->unwritten += u->partial.bytes;
    chain_move(&d->conn.out, &u->partial);
    conn_touch(e, &d->conn);
    redis_slow_down(e, u, d);
}

static void keep_partial(struct engine *e,
                         struct upstream *u,
                         struct buf *b,
                         uint32_t offset,
                         uint32_t len)
{
    struct request *r =
        list_empty(&u->in_flight)
            ? NULL
            : CONTAINER_OF(u->in_flight.next, struct request, place);
    if (u->streaming) {
        assert(r != NULL);
        struct downstream *d = r->downstream;
        if (d != NULL && !r->quiet) {
            downstream_write(e, d, b, offset, len);
            redis_slow_down(e, u, d);
        }
        return;
    }
    if (!chain_push_part(e->memory, &u->partial, b, offset, len)) {
        e->stats.limit_memory++;
        break_lane(e, u, "out of memory for a reply");
        return;
    }
    if (u->partial.bytes <= u->endpoint->cluster->config->reply_hold_max ||
        r == NULL || r->state != REQUEST_SENT || u->scanner.type == '>' ||
        r->gather != NULL || r->pieces_more > 0 || request_is_own(r) ||
        r->sent_end > u->taken || u->listens) {
        return;
    }
    struct downstream *d = r->downstream;
    bool its_turn = d == NULL || d->requests.next == &r->arrival;
    bool is_error = u->scanner.type == '-' || u->scanner.type == '!';
    if (its_turn && !r->has_error && !is_error) {
        begin_stream(e, u, r);
    }
}

static void on_raw(struct engine *e, struct upstream *u, struct slice s)
{
    struct downstream *d = u->owner;
    if (downstream_write(e, d, s.buf, s.offset, s.len)) {
        redis_slow_down(e, u, d);
    }
}

void upstream_bytes(struct engine *e, struct upstream *u, struct slice s)
{
    const struct upstream_config *config = u->endpoint->cluster->config;
    const struct resp_limits limits = {
        .bulk_max = config->reply_bulk_max,
        .elements_max = config->reply_elements_max,
    };
    const struct upstream_conn *link = u->link;
    struct slice rest = s;
    u->active_us = e->now_us;
    u->endpoint->cluster->stats.reply_bytes += s.len;
    /* Anything below may end this connection; then the rest is void. */
    while (rest.len > 0 && u->link == link && u->state != UPSTREAM_CLOSED) {
        if (u->raw && list_empty(&u->in_flight)) {
            on_raw(e, u, rest);
            break;
        }
        if (e->gather_tables != NULL && u->partial.head == NULL &&
            !u->streaming) {
            uint32_t taken = gather_quick(e, u, rest);
            rest.offset += taken;
            rest.len -= taken;
            if (taken > 0) {
                redis_slow_down(e, u,
                                CONTAINER_OF(u->in_flight.next, struct request,
                                             place)
                                    ->downstream);
            }
            if (rest.len == 0) {
                break;
            }
        }
        size_t used = 0;
        enum scan status =
            resp_scan(&u->scanner, &limits, slice_data(&rest), rest.len, &used);
        if (status == SCAN_DONE) {
            struct message m;
            m.buf = rest.buf;
            m.offset = rest.offset;
            m.len = (uint32_t)used;
            m.type = u->scanner.type;
            on_message(e, u, &m);
        } else if (status == SCAN_MORE) {
            keep_partial(e, u, rest.buf, rest.offset, (uint32_t)used);
        } else {
            break_lane(e, u, u->scanner.error);
            break;
        }
        rest.offset += (uint32_t)used;
        rest.len -= (uint32_t)used;
    }
    if (u->renew && u->state == UPSTREAM_UP && list_empty(&u->in_flight)) {
        upstream_renew(e, u);
    }
    buf_unref(e->memory, s.buf);
}
