/* MULTI, EXEC and what is between them (redis.md §6): blocks that go through,
 * blocks that were broken by a lost connection or a refusal, and blocks whose
 * WATCH was lost. */
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
    bool is_exec = r->command->id == COMMAND_EXEC;
    bool null = d->watch_lost;
    d->watch_lost = false;
    if (!is_exec) {
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

static const char discard[] = "*1\r\n$7\r\nDISCARD\r\n";

/* End a broken or sham block. If the server is still inside its MULTI, it must
 * leave it before anything else is sent. */
static void end_broken_block(struct engine *e,
                             struct downstream *d,
                             struct request *r)
{
    d->block = BLOCK_NONE;
    d->watching = false;
    if (!d->block_passed) {
        redis_block_aborted(e, r);
        return;
    }
    struct chain bytes = { 0 };
    if (!chain_push_copy(e->memory, &bytes, span_of(discard))) {
        e->stats.limit_memory++;
        downstream_close(e, d, "out of memory for its request");
        return;
    }
    request_drop_bytes(e, r);
    r->part = bytes.head->slice;
    buf_ref(r->part.buf);
    chain_clear(e->memory, &bytes);
    r->size = r->part.len;
    r->task = TASK_ABORT;
    d->block_passed = false;
    redis_submit(e, d, r);
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
    } else if (d->block == BLOCK_SHAM) {
        downstream_answer_text(e, r, "+QUEUED\r\n");
    } else {
        cluster_of(d)->stats.not_applied++;
        downstream_answer_text(
            e, r,
            "-NOTAPPLIED the transaction was refused or lost its server "
            "connection before EXEC: nothing of it is executed, EXEC will "
            "answer EXECABORT\r\n");
    }
}

void redis_answer_sham(struct engine *e, struct request *r)
{
    struct downstream *d = r->downstream;
    enum command_id id = r->command != NULL ? r->command->id : COMMAND_OTHER;
    if (id == COMMAND_EXEC) {
        d->watch_lost = false;
        downstream_answer_text(e, r, null_array(e, d));
    } else {
        bool ok =
            id == COMMAND_MULTI || id == COMMAND_DISCARD || id == COMMAND_WATCH;
        downstream_answer_text(e, r, ok ? "+OK\r\n" : "+QUEUED\r\n");
    }
}

void redis_multi_refused(struct downstream *d, const struct request *r)
{
    if (r->opens_block && d->block == BLOCK_OPEN && !redis_later_multi(r)) {
        d->block_passed = false;
        d->block = BLOCK_NONE; /* the server did not begin one */
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

/* A command between MULTI and EXEC is the server's to judge. */
bool redis_in_block(struct engine *e, struct downstream *d, struct request *r)
{
    enum command_id id = r->command != NULL ? r->command->id : COMMAND_OTHER;
    if (d->block != BLOCK_OPEN) {
        answer_in_broken_block(e, d, r);
        return true;
    }
    if ((id == COMMAND_EXEC || id == COMMAND_DISCARD) && !redis_is_bare(e, r)) {
        id = COMMAND_OTHER; /* refused by the server, and the block goes on */
    }
    switch (id) {
    case COMMAND_EXEC:
    case COMMAND_DISCARD:
        r->watched = id == COMMAND_EXEC && d->watching;
        r->ends_block = true;
        d->block_passed = false;
        d->block = BLOCK_NONE;
        d->watching = false;
        break;
    case COMMAND_CLIENT_REPLY:
    case COMMAND_SUBSCRIBE:
    case COMMAND_UNSUBSCRIBE:
    case COMMAND_MONITOR:
    case COMMAND_SYNC:
        /* They would change how replies can be told apart. As after any error
         * of a queued command, EXEC aborts. */
        r->in_block = true;
        redis_refuse(e, d, r, "not possible inside MULTI through redial");
        return true;
    case COMMAND_SELECT:
    case COMMAND_AUTH:
    case COMMAND_HELLO:
    case COMMAND_CLIENT_SETNAME:
    case COMMAND_CLIENT_TRACKING: d->session_unknown = true; break;
    case COMMAND_OTHER:
    case COMMAND_QUIT:
    case COMMAND_RESET:
    case COMMAND_MULTI:
    case COMMAND_WATCH:
    case COMMAND_UNWATCH:
    case COMMAND_CLIENT_GETNAME:
    case COMMAND_CLIENT_SETINFO:
    case COMMAND_SCRIPT_CALL: break;
    }
    r->in_block = true;
    redis_submit(e, d, r);
    return true;
}

bool redis_multi(struct engine *e, struct downstream *d, struct request *r)
{
    if (d->watch_lost) {
        /* A watched key may have changed while nobody watched: the block is
         * taken, and EXEC answers null, "somebody changed a watched key". */
        d->block = BLOCK_SHAM;
        downstream_answer_text(e, r, "+OK\r\n");
        return true;
    }
    enum lane_answer lane = redis_want_private(e, d, r);
    if (lane == LANE_READY) {
        d->block = BLOCK_OPEN;
        d->block_passed = true;
        r->in_block = true;
        r->opens_block = true;
        redis_submit(e, d, r);
    }
    return lane != LANE_LATER;
}
