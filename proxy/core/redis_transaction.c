/* MULTI, EXEC and what is between them (redis.md §6): blocks that go through,
 * blocks that were broken by a refusal or by a lost connection and cannot be
 * begun again. */
#include "proxy/core/ledger.h"
#include "proxy/core/redis_block.h"
#include "proxy/core/state.h"

static struct cluster *cluster_of(const struct downstream *d)
{
    return d->listener->cluster;
}

static const char *null_array(const struct engine *e,
                              const struct downstream *d)
{
    return downstream_session(e, d)->resp == 3 ? "_\r\n" : "*-1\r\n";
}

void redis_block_aborted(struct engine *e, struct request *r)
{
    struct downstream *d = r->downstream;
    struct ledger *l = d->ledger;
    bool refused = l != NULL && l->block != NULL && l->block->aborts;
    if (l != NULL && redis_is_in_front(r)) {
        block_log_free(e, l);
    }
    downstream_answer_text(
        e, r,
        refused ? "-EXECABORT Transaction discarded because of previous "
                  "errors.\r\n"
                : null_array(e, d));
}

/* EXEC or DISCARD of a broken block. If the server is inside of one, it is told
 * to leave it before anything else is sent there. */
static void end_broken_block(struct engine *e,
                             struct downstream *d,
                             struct request *r)
{
    bool null = d->watch_lost;
    d->block = BLOCK_NONE;
    d->multi_owed = false;
    d->watch_lost = false;
    if (d->lane == NULL || d->lane->in_multi) {
        d->watching = false; /* else the next block is watched by it, too */
        d->watch_held = false;
    }
    if (r->command->id != COMMAND_EXEC) {
        downstream_answer_text(e, r, "+OK\r\n");
    } else if (null) {
        downstream_answer_text(e, r, null_array(e, d));
    } else {
        downstream_answer_text(
            e, r,
            "-EXECABORT Transaction discarded because it was refused or its "
            "server connection was lost before EXEC: nothing was executed\r\n");
    }
}

/* Nothing of the block was or will be executed, and nothing of it may be
 * executed outside of it. */
static void answer_in_broken_block(struct engine *e,
                                   struct downstream *d,
                                   struct request *r)
{
    enum command_id id = r->command != NULL ? r->command->id : COMMAND_OTHER;
    if (id == COMMAND_EXEC || id == COMMAND_DISCARD) {
        end_broken_block(e, d, r);
    } else if (id == COMMAND_MULTI) {
        downstream_answer_text(e, r, "-ERR MULTI calls can not be nested\r\n");
    } else {
        cluster_of(d)->stats.not_applied++;
        downstream_answer_text(
            e, r,
            "-NOTAPPLIED the transaction was refused or lost its server "
            "connection before EXEC: nothing of it is executed, EXEC will "
            "answer EXECABORT\r\n");
    }
}

void redis_multi_refused(struct downstream *d, const struct request *r)
{
    if (r->opens_block && d->block == BLOCK_OPEN && !redis_later_multi(r)) {
        /* The server did not begin one. A client that thinks so must not have
         * its commands executed one by one. */
        d->block = r->owed ? BLOCK_BROKEN : BLOCK_NONE;
        d->block_until_us = UINT64_MAX;
    }
}

bool redis_later_multi(const struct request *r)
{
    for (struct list_node *node = r->arrival.next;
         node != &r->downstream->requests; node = node->next) {
        const struct request *next =
            CONTAINER_OF(node, struct request, arrival);
        if (next->opens_block) {
            return true;
        }
    }
    return false;
}

/* ---- a cluster: MULTI waits for the block's first key ---------------------- */

/* The slot of the block that r begins: of the first command that has a key, as
 * far as they are here already. */
static uint16_t slot_of_block(struct engine *e,
                              const struct downstream *d,
                              struct request *r)
{
    for (struct list_node *node = &r->arrival; node != &d->requests;
         node = node->next) {
        struct request *next = CONTAINER_OF(node, struct request, arrival);
        if (next->command != NULL && (next->command->id == COMMAND_EXEC ||
                                      next->command->id == COMMAND_DISCARD)) {
            break;
        }
        redis_find_slot(e, next);
        if (next->slot != SLOT_NONE) {
            return next->slot;
        }
    }
    return SLOT_NONE;
}

/* The MULTI that was owed has been sent and not answered. */
static bool waits_for_multi(const struct downstream *d)
{
    LIST_FOR_EACH (node, &d->requests) {
        const struct request *r = CONTAINER_OF(node, struct request, arrival);
        if (r->owed && r->state != REQUEST_DONE) {
            return true;
        }
    }
    return false;
}

static const char multi[] = "*1\r\n$5\r\nMULTI\r\n";

/* The MULTI that is owed, in front of r; NULL without memory. */
static struct request *new_multi(struct engine *e,
                                 struct downstream *d,
                                 struct request *r)
{
    struct chain bytes = { 0 };
    struct request *m = request_new(e, d);
    if (m == NULL) {
        return NULL;
    }
    if (!chain_push_copy(e->memory, &bytes, span_of(multi))) {
        request_free(e, m);
        return NULL;
    }
    m->part = bytes.head->slice;
    buf_ref(m->part.buf);
    chain_clear(e->memory, &bytes);
    m->size = m->part.len;
    m->command = command_find(span_of("MULTI"), (struct span){ NULL, 0 });
    m->slot = SLOT_NONE;
    m->own_lane = true;
    m->quiet = true;
    m->owed = true;
    m->judged = true;
    m->in_block = true;
    m->opens_block = true;
    list_insert_before(&r->arrival, &m->arrival);
    d->n_requests++;
    return m;
}

/* Open the block at its node. Returns false: r waits for the answer. */
static bool send_owed_multi(struct engine *e,
                            struct downstream *d,
                            struct request *r)
{
    uint16_t own = r->slot;
    r->slot = slot_of_block(e, d, r);
    r->in_block = true; /* when it is refused, so is the block */
    enum lane_answer lane = redis_want_private(e, d, r);
    if (lane == LANE_REFUSED) {
        d->multi_owed = false;
        return true;
    }
    r->in_block = false;
    struct request *m = lane == LANE_READY ? new_multi(e, d, r) : NULL;
    if (lane == LANE_READY && m == NULL) {
        e->stats.limit_memory++;
        downstream_close(e, d, "out of memory for its transaction");
        return true;
    }
    if (m != NULL) {
        m->slot = r->slot;
        d->multi_owed = false;
        redis_submit(e, d, m);
    }
    r->slot = own;
    return false;
}

/* A block of which the server has heard nothing yet. Returns whether r is
 * taken. */
static bool in_owed_block(struct engine *e,
                          struct downstream *d,
                          struct request *r)
{
    enum command_id id = r->command != NULL ? r->command->id : COMMAND_OTHER;
    if (d->n_open > 0) {
        return false; /* what is refused on another lane must not be tried again
                         inside of the block */
    }
    if ((id != COMMAND_EXEC && id != COMMAND_DISCARD) || !redis_is_bare(e, r)) {
        return send_owed_multi(e, d, r);
    }
    bool null = d->watch_lost;
    d->multi_owed = false;
    d->watch_lost = false;
    d->block = BLOCK_NONE;
    cluster_of(d)->stats.local_replies++;
    downstream_answer_text(e, r,
                           id != COMMAND_EXEC ? "+OK\r\n"
                           : null             ? null_array(e, d)
                                              : "*0\r\n");
    return true;
}

/* EXEC or DISCARD, or an EXEC with arguments, which ends the block, too. */
static bool end_block(struct engine *e, struct downstream *d, struct request *r)
{
    bool is_exec = r->command->id == COMMAND_EXEC;
    r->watched = is_exec && d->watching;
    r->ends_block = true;
    d->block = BLOCK_NONE;
    d->watching = false;
    if (is_exec && d->watch_lost && !redis_block_abort(e, r)) {
        downstream_close(e, d, "out of memory for its transaction");
        return false;
    }
    d->watch_lost = false;
    return true;
}

/* Why redial does not pass r on inside of a block, or NULL. */
static const char *refusal_in_block(const struct downstream *d,
                                    const struct request *r)
{
    if (r->command == NULL) {
        return NULL;
    }
    if (r->command->route == ROUTE_REFUSED && cluster_of(d)->slots != NULL) {
        return "it changes a node: speak to the node itself";
    }
    if (r->command->id == COMMAND_CLIENT_TRACKING &&
        cluster_of(d)->slots != NULL) {
        return "not possible in a cluster through redial";
    }
    bool old = d->lane != NULL && d->lane->endpoint->version < VERSION_NO_MULTI;
    switch ((enum command_id)r->command->id) {
    case COMMAND_CLIENT_REPLY:
    case COMMAND_SUBSCRIBE:
    case COMMAND_UNSUBSCRIBE:
        /* EXEC's array would have more or fewer elements than it says. */
        return "not possible inside MULTI through redial";
    case COMMAND_MONITOR:
    case COMMAND_SYNC:
        return old ? "not possible inside MULTI through redial" : NULL;
    default: return NULL;
    }
}

/* A command between MULTI and EXEC is the server's to judge. */
bool redis_in_block(struct engine *e, struct downstream *d, struct request *r)
{
    enum command_id id = r->command != NULL ? r->command->id : COMMAND_OTHER;
    if (d->block != BLOCK_OPEN) {
        answer_in_broken_block(e, d, r);
        return true;
    }
    if (d->multi_owed) {
        return in_owed_block(e, d, r);
    }
    if (d->n_open > 0 && waits_for_multi(d)) {
        return false;
    }
    r->in_block = true;
    const char *why = refusal_in_block(d, r);
    if (why != NULL) {
        redis_refuse(e, d, r, why); /* as after any refused command, EXEC
                                       aborts */
        return true;
    }
    if (id == COMMAND_EXEC || (id == COMMAND_DISCARD && redis_is_bare(e, r))) {
        if (!end_block(e, d, r)) {
            return true;
        }
    }
    if (id == COMMAND_AUTH || id == COMMAND_HELLO ||
        id == COMMAND_CLIENT_CACHING) {
        d->session_unknown = true; /* once EXEC has run it */
    }
    r->own_lane = true;
    redis_submit(e, d, r);
    return true;
}

bool redis_multi(struct engine *e, struct downstream *d, struct request *r)
{
    if (ledger_get(e, d) == NULL) {
        redis_refuse(e, d, r, "out of memory");
        return true;
    }
    if (!redis_is_bare(e, r)) {
        redis_submit(e, d, r); /* the server has the words for it */
        return true;
    }
    if (cluster_of(d)->slots != NULL && !d->watching &&
        !redis_unauthenticated(d)) {
        d->block = BLOCK_OPEN;
        d->multi_owed = true;
        cluster_of(d)->stats.local_replies++;
        downstream_answer_text(e, r, "+OK\r\n");
        return true;
    }
    if (cluster_of(d)->slots != NULL && d->n_open > 0) {
        return false;
    }
    enum lane_answer lane = redis_want_private(e, d, r);
    if (lane == LANE_READY) {
        d->block = BLOCK_OPEN;
        r->in_block = true;
        r->opens_block = true;
        r->watched = d->watching;
        redis_submit(e, d, r);
    }
    return lane != LANE_LATER;
}
