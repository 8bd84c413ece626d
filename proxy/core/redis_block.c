#include "proxy/core/redis_block.h"

#include <stdio.h>

#include "parser/redis_error.h"
#include "proxy/core/redis_tracking.h"
#include "proxy/core/state.h"

static struct cluster *cluster_of(const struct downstream *d)
{
    return d->listener->cluster;
}

static struct block_log *log_of(const struct downstream *d)
{
    return d->ledger != NULL ? d->ledger->block : NULL;
}

/* ---- what the server has taken ----------------------------------------------- */

static void drop_commands(struct engine *e, struct block_log *log)
{
    for (uint32_t i = 0; i < log->n; i++) {
        buf_unref(e->memory, log->commands[i].bytes.buf);
    }
    if (log->tail != NULL) {
        buf_unref(e->memory, log->tail);
    }
    memory_give(e->memory, log->commands);
    log->commands = NULL;
    log->tail = NULL;
    log->n = 0;
    log->room = 0;
    log->bytes = 0;
}

void block_log_free(struct engine *e, struct ledger *l)
{
    if (l->block != NULL) {
        drop_commands(e, l->block);
        memory_give(e->memory, l->block);
        l->block = NULL;
    }
}

bool block_log_is_whole(const struct downstream *d)
{
    const struct block_log *log = log_of(d);
    return log != NULL && !log->incomplete;
}

uint16_t block_log_slot(const struct downstream *d)
{
    const struct block_log *log = log_of(d);
    return log != NULL ? log->slot : (uint16_t)SLOT_NONE;
}

/* Room for one more command. */
static bool grow(struct engine *e, struct block_log *log)
{
    enum {
        FIRST = 8
    };
    if (log->n < log->room) {
        return true;
    }
    uint32_t room = log->room == 0 ? FIRST : log->room * 2;
    struct block_command *more =
        memory_take(e->memory, room * sizeof(struct block_command));
    if (more == NULL) {
        return false;
    }
    if (log->n > 0) {
        memcpy(more, log->commands, log->n * sizeof(struct block_command));
    }
    memory_give(e->memory, log->commands);
    log->commands = more;
    log->room = room;
    return true;
}

/* A copy of r's bytes in one piece, behind that of the command before it. */
static bool copy_bytes(struct engine *e,
                       struct block_log *log,
                       const struct request *r,
                       struct slice *out)
{
    enum {
        FEW_BYTES = 512,
        MANY_BYTES = 8192
    };
    uint32_t len = (uint32_t)r->size;
    struct buf *b = log->tail;
    if (b == NULL || b->cap - b->len < len) {
        uint32_t cap = b == NULL ? FEW_BYTES : MANY_BYTES;
        b = buf_new(e->memory, cap < len ? len : cap);
        if (b == NULL) {
            return false;
        }
        if (log->tail != NULL) {
            buf_unref(e->memory, log->tail);
        }
        log->tail = b;
    }
    uint8_t *to = b->data + b->len;
    memcpy(to, slice_data(&r->part), r->part.len);
    chain_copy(&r->more, to + r->part.len, len - r->part.len);
    *out = (struct slice){ .buf = b, .offset = b->len, .len = len };
    b->len += len;
    buf_ref(b);
    return true;
}

/* Keep r, which the server has taken. False: it cannot be kept. */
static bool keep(struct engine *e,
                 struct block_log *log,
                 const struct request *r,
                 uint64_t bytes_max)
{
    uint64_t cost = r->size + sizeof(struct block_command);
    struct slice bytes;
    if (r->streaming || r->part.buf == NULL) {
        return false; /* larger than replay_bytes_max */
    }
    if (cost > bytes_max || log->bytes > bytes_max - cost) {
        e->stats.limit_block_bytes_max++;
        engine_trace_limit(e, cluster_of(r->downstream), "block_bytes_max");
        return false;
    }
    if (!grow(e, log) || !copy_bytes(e, log, r, &bytes)) {
        e->stats.limit_memory++;
        return false;
    }
    log->commands[log->n++] = (struct block_command){ r->command, bytes };
    log->bytes += cost;
    return true;
}

static void give_it_up(struct engine *e, struct block_log *log)
{
    log->incomplete = true;
    drop_commands(e, log);
}

/* Whether more of the block that r, MULTI, begins is to come: redial may have
 * refused and ended it by now. */
static bool goes_on(const struct request *r)
{
    const struct downstream *d = r->downstream;
    for (struct list_node *node = r->arrival.next; node != &d->requests;
         node = node->next) {
        const struct request *q = CONTAINER_OF(node, struct request, arrival);
        if (q->state == REQUEST_NEW && !q->in_block) {
            break; /* it has not had its turn */
        }
        if (!q->in_block || q->opens_block) {
            return false; /* of another block, or behind it */
        }
        if (q->ends_block) {
            return q->state != REQUEST_DONE;
        }
    }
    return d->block == BLOCK_OPEN;
}

static void begin(struct engine *e, struct request *r)
{
    struct downstream *d = r->downstream;
    struct ledger *l = ledger_get(e, d);
    if (l == NULL || !goes_on(r)) {
        return; /* a block without a log cannot be begun again */
    }
    block_log_free(e, l);
    struct block_log *log = memory_take(e->memory, sizeof(*log));
    if (log == NULL) {
        e->stats.limit_memory++;
        return;
    }
    bool cluster = cluster_of(d)->slots != NULL;
    log->slot = cluster && d->watch_held ? d->watch_slot : (uint16_t)SLOT_NONE;
    log->caching = r->caching;
    l->block = log;
    if (!keep(e, log, r, cluster_of(d)->config->block_bytes_max)) {
        give_it_up(e, log);
    }
}

/* MULTI and WATCH are refused inside of a block, and change nothing about
 * it. */
static bool aborts(const struct request *r)
{
    enum command_id id = r->command != NULL ? r->command->id : COMMAND_OTHER;
    return id != COMMAND_MULTI && id != COMMAND_WATCH;
}

/* r was queued, or refused. */
static void note(struct engine *e, struct request *r, bool queued)
{
    struct downstream *d = r->downstream;
    struct block_log *log = log_of(d);
    if (log == NULL) { /* there was no memory for it */
        d->session_unknown =
            d->session_unknown || (queued && redis_changes_session(r));
        return;
    }
    if (log->slot == SLOT_NONE && cluster_of(d)->slots != NULL) {
        redis_find_slot(e, r);
        log->slot = r->slot;
    }
    log->moves = 0;
    log->about_session =
        log->about_session || (queued && redis_changes_session(r));
    log->aborts = log->aborts || (!queued && aborts(r));
    bool room = queued || log->n_refused < BLOCK_REFUSALS_MAX;
    if (log->incomplete) {
        return;
    }
    if (!room || !keep(e, log, r, cluster_of(d)->config->block_bytes_max)) {
        give_it_up(e, log);
    } else if (!queued) {
        log->refused[log->n_refused++] = log->n - 1;
    }
}

/* ---- answers ------------------------------------------------------------------- */

static bool is_execabort(struct span reply)
{
    return redis_error_parse(reply).kind == REDIS_ERROR_EXECABORT;
}

/* Whether the WATCH r is for an EXEC that has not been answered, or is still to
 * come. */
static bool is_watched(const struct request *r)
{
    const struct downstream *d = r->downstream;
    bool watched = d->watching;
    for (struct list_node *node = r->arrival.next;
         node != &d->requests && !watched; node = node->next) {
        const struct request *q = CONTAINER_OF(node, struct request, arrival);
        watched = q->ends_block && q->watched && q->state != REQUEST_DONE;
    }
    return watched;
}

void redis_watch_given_up(struct engine *e, struct request *r)
{
    struct downstream *d = r->downstream;
    for (struct list_node *node = r->arrival.next; node != &d->requests;
         node = node->next) {
        struct request *q = CONTAINER_OF(node, struct request, arrival);
        bool unwatch = q->command != NULL && !q->in_block && q->open &&
                       q->command->id == COMMAND_UNWATCH;
        if (!q->ends_block && !unwatch) {
            continue;
        }
        if (q->watched && q->state == REQUEST_READY && !q->ambiguous &&
            !redis_block_abort(e, q)) {
            downstream_close(e, d, "out of memory for its transaction");
        }
        return;
    }
    d->watch_lost = true; /* nobody watches: the next EXEC is null */
}

void redis_block_reply(struct engine *e,
                       struct upstream *u,
                       struct request *r,
                       bool success,
                       struct span reply)
{
    struct downstream *d = r->downstream;
    enum command_id id = r->command != NULL ? r->command->id : COMMAND_OTHER;
    if (!r->in_block) {
        bool watches = id == COMMAND_WATCH;
        if (success && (watches || id == COMMAND_UNWATCH)) {
            redis_find_slot(e, r);
            d->watch_held = watches && is_watched(r);
            d->watch_slot = r->slot;
        }
    } else if (r->ends_block) {
        struct block_log *log = log_of(d);
        if (!success && !is_execabort(reply)) {
            u->in_multi = true; /* perhaps: DISCARD does no harm */
        } else if (success) {
            backoff_reset(&u->backoff);
        }
        if (success && id == COMMAND_EXEC && log != NULL &&
            log->about_session) {
            redis_block_session(e, u, d, reply);
        }
        d->watch_held = false;
        if (log != NULL) {
            block_log_free(e, d->ledger);
        }
    } else if (!r->opens_block) {
        note(e, r, success);
    } else if (success) {
        begin(e, r);
    }
}

bool redis_is_in_front(const struct request *r)
{
    const struct downstream *d = r->downstream;
    if (!r->in_block || r->opens_block) {
        return false;
    }
    for (struct list_node *node = r->arrival.prev; node != &d->requests;
         node = node->prev) {
        const struct request *q = CONTAINER_OF(node, struct request, arrival);
        if (q->opens_block) {
            return q->state == REQUEST_DONE;
        }
    }
    return true;
}

struct request *redis_exec_of(const struct request *r)
{
    const struct downstream *d = r->downstream;
    for (struct list_node *node = r->arrival.prev->next; node != &d->requests;
         node = node->next) {
        struct request *q = CONTAINER_OF(node, struct request, arrival);
        if (!q->in_block || (q->opens_block && q != r)) {
            return NULL;
        }
        if (q->ends_block) {
            return q->command->id == COMMAND_EXEC ? q : NULL;
        }
    }
    return NULL;
}

/* ---- begun again ---------------------------------------------------------------- */

/* A block that may have run waits for a fence that has failed; or NULL. */
static struct request *first_unfenced(const struct upstream *u)
{
    LIST_FOR_EACH (node, &u->waiting) {
        struct request *r = CONTAINER_OF(node, struct request, place);
        if (r->ends_block && r->write_replay) {
            return r;
        }
    }
    return NULL;
}

static void give_up_unfenced(struct engine *e, struct upstream *u)
{
    struct cluster *c = u->endpoint->cluster;
    struct request *r;
    while (u->fence_needed && !u->fence_done &&
           (r = first_unfenced(u)) != NULL) {
        c->stats.fence_failed++;
        upstream_unhold(e, u, r);
        request_give_up(e, r, c, OUTCOME_AMBIGUOUS, GIVE_UP_UNSAFE,
                        "the server would not close the old connection "
                        "(CLIENT KILL), which may still deliver it");
    }
}

bool block_log_establish(struct engine *e, struct upstream *u)
{
    struct downstream *d = u->owner;
    give_up_unfenced(e, u);
    struct block_log *log = log_of(d);
    if (log == NULL || downstream_gone(d)) {
        return true;
    }
    if (log->incomplete) {
        return true;
    }
    struct chain bytes = { 0 };
    bool kept = true;
    for (uint32_t i = 0; kept && i < log->n; i++) {
        const struct slice *s = &log->commands[i].bytes;
        kept = chain_push_part(e->memory, &bytes, s->buf, s->offset, s->len);
    }
    static const char yes[] =
        "*3\r\n$6\r\nCLIENT\r\n$7\r\nCACHING\r\n$3\r\nYES\r\n";
    static const char no[] =
        "*3\r\n$6\r\nCLIENT\r\n$7\r\nCACHING\r\n$2\r\nNO\r\n";
    if (kept && log->caching != CACHING_NONE) {
        kept =
            upstream_send_own(e, u, TASK_ASIDE, 0,
                              span_of(log->caching == CACHING_YES ? yes : no));
    }
    log->said = 0;
    u->in_multi = true;
    u->endpoint->cluster->stats.blocks_begun_again++;
    return handshake_say_block(e, u, &bytes, kept ? log->n : 0);
}

/* What the server had said to command i. */
static bool is_as_before(const struct block_log *log,
                         uint32_t i,
                         struct span reply)
{
    for (uint32_t k = 0; k < log->n_refused; k++) {
        if (log->refused[k] == i) {
            return reply.data[0] == '-';
        }
    }
    return span_equal(reply, span_of(i == 0 ? "+OK\r\n" : "+QUEUED\r\n"));
}

/* Whether it may be otherwise in a while, or elsewhere. */
static bool may_pass(const struct cluster *c, enum redis_error_kind kind)
{
    if (c->slots != NULL &&
        (kind == REDIS_ERROR_MOVED || kind == REDIS_ERROR_ASK)) {
        return true; /* following a redirect is no retry */
    }
    return c->config->retry &&
           (c->config->retry_on_error & redis_retry_error_of(kind)) != 0;
}

/* Find out who can, and who is to be asked. False: nobody. */
static bool look_for_server(struct engine *e,
                            struct upstream *u,
                            const struct redis_error *error)
{
    struct cluster *c = u->endpoint->cluster;
    struct downstream *d = u->owner;
    struct block_log *log = log_of(d);
    const char *why = NULL;
    switch (error->kind) {
    case REDIS_ERROR_MOVED:
        if ((log->slot != SLOT_NONE && log->slot != slot_plus(error->slot)) ||
            ++log->moves > c->config->redirects_max ||
            topology_redirect(e, u, error, &why) == NULL) {
            return false;
        }
        log->slot = slot_plus(error->slot);
        c->stats.redirects_moved++;
        break;
    case REDIS_ERROR_ASK:
        /* ASKING does not reach into a block: it waits for the end of the
         * migration. */
        c->stats.redirects_ask++;
        topology_want(e, c, "a transaction was answered ASK");
        break;
    case REDIS_ERROR_READONLY:
        c->stats.redirects_readonly += c->topology != NULL;
        if (c->topology == NULL) {
            upstream_seek_primary(e, u);
        }
        topology_want(e, c, "a server answered READONLY");
        break;
    case REDIS_ERROR_CLUSTERDOWN:
        c->stats.redirects_clusterdown++;
        topology_want(e, c, "a server answered CLUSTERDOWN");
        break;
    case REDIS_ERROR_MASTERDOWN:
        topology_want(e, c, "a server answered MASTERDOWN");
        break;
    case REDIS_ERROR_TRYAGAIN: c->stats.redirects_tryagain++; break;
    default: break;
    }
    return true;
}

void block_log_reply(struct engine *e, struct upstream *u, struct span reply)
{
    struct downstream *d = u->owner;
    struct block_log *log = log_of(d);
    if (log == NULL || log->incomplete) {
        return; /* given up meanwhile: DISCARD follows */
    }
    uint32_t i = log->said++;
    if (is_as_before(log, i, reply)) {
        return;
    }
    struct redis_error error = redis_error_parse(reply);
    if (reply.data[0] == '-' && may_pass(cluster_of(d), error.kind) &&
        look_for_server(e, u, &error)) {
        upstream_begin_again(e, u, "its transaction is refused for now");
        return;
    }
    redis_block_break(e, d,
                      "the server does not take its commands any more as it "
                      "did before the connection was lost");
}

/* "-EXECABORT Transaction discarded because of: READONLY You can't ..." */
static struct redis_error reason_of(const struct request *r,
                                    const struct redis_error *error,
                                    struct span head,
                                    char *text,
                                    size_t max)
{
    static const char because[] =
        "-EXECABORT Transaction discarded because of: ";
    size_t len = sizeof(because) - 1;
    if (!r->ends_block || head.len <= len ||
        memcmp(head.data, because, len) != 0) {
        return *error;
    }
    int n = snprintf(text, max, "-%.*s", (int)(head.len - len),
                     (const char *)head.data + len);
    size_t got = n < 0 ? 0 : (size_t)n < max ? (size_t)n : max - 1;
    return redis_error_parse((struct span){ (const uint8_t *)text, got });
}

/* Nothing but the rest of r's block is in flight behind it: what runs behind a
 * refused block has run before that one, if it begins again. */
static bool is_last_in_flight(const struct upstream *u, const struct request *r)
{
    bool ended = r->ends_block;
    for (struct list_node *node = r->place.next; node != &u->in_flight;
         node = node->next) {
        const struct request *q = CONTAINER_OF(node, struct request, place);
        if (request_is_own(q)) {
            continue;
        }
        if (ended || !q->in_block || q->opens_block || q->streaming) {
            return false;
        }
        ended = q->ends_block;
    }
    return true;
}

bool redis_block_may_begin_again(struct engine *e,
                                 struct upstream *u,
                                 struct request *r,
                                 const struct redis_error *error,
                                 struct span head)
{
    struct downstream *d = r->downstream;
    char text[128];
    if (u->owner != d || r->task != TASK_FORWARD || r->streaming ||
        d->session_unknown || d->ended || downstream_gone(d) ||
        e->now_us >= r->deadline_us || !redis_is_in_front(r) ||
        !block_log_is_whole(d) || log_of(d)->aborts ||
        !is_last_in_flight(u, r)) {
        return false;
    }
    struct redis_error reason = reason_of(r, error, head, text, sizeof(text));
    if (!may_pass(cluster_of(d), reason.kind)) {
        return false;
    }
    return look_for_server(e, u, &reason);
}

/* ---- given up -------------------------------------------------------------------- */

void redis_block_break(struct engine *e, struct downstream *d, const char *why)
{
    struct request *first = NULL;
    bool current = d->block == BLOCK_OPEN && !d->multi_owed;
    if (d->ledger != NULL) {
        block_log_free(e, d->ledger);
    }
    LIST_FOR_EACH (node, &d->requests) {
        struct request *r = CONTAINER_OF(node, struct request, arrival);
        if (r->opens_block && r->state != REQUEST_DONE) {
            current = false; /* another one */
            break;
        }
        if (r->in_block && r->state == REQUEST_READY) {
            first = r;
            break;
        }
    }
    if (first != NULL) {
        upstream_unhold(e, first->upstream, first);
        request_give_up(e, first, cluster_of(d), OUTCOME_NOT_SENT,
                        GIVE_UP_UNSAFE, why);
    } else if (current) {
        d->block = BLOCK_BROKEN;
        d->block_until_us = UINT64_MAX;
    }
}

static const char discard[] = "*1\r\n$7\r\nDISCARD\r\n";

bool redis_block_abort(struct engine *e, struct request *r)
{
    struct chain bytes = { 0 };
    if (!chain_push_copy(e->memory, &bytes, span_of(discard))) {
        e->stats.limit_memory++;
        return false;
    }
    request_drop_bytes(e, r);
    r->part = bytes.head->slice;
    buf_ref(r->part.buf);
    chain_clear(e->memory, &bytes);
    r->size = r->part.len;
    r->task = TASK_ABORT;
    return true;
}
