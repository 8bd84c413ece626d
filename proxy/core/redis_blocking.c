#include "proxy/core/redis_blocking.h"

#include <inttypes.h>
#include <stdio.h>

#include "parser/redis_error.h"
#include "parser/reply.h"
#include "parser/resp_command.h"
#include "proxy/core/ledger.h"
#include "proxy/core/state.h"

enum {
    STEADY_US = 1000 * 1000, /* who has waited so long has not failed */
    GRACE_US = 1000 * 1000,  /* redis.md §5 attempt_timeout */
    LEAST_US = 2 * 1000,     /* asked for when no time is left: never 0, for
                                 that is for ever, and so is 1 ms before 7.0 */
    VERSION_WITH_DECIMALS = 60000,
    VERSION_WITH_WRITE_OFFSET = 70200,
    TIMEOUT_TEXT_MAX = 32
};

/* ---- what a request says ---------------------------------------------------- */

/* All arguments of a request, however many. */
struct words {
    struct request_args args;
    struct span *list;
    struct span *many; /* owned: when they are too many for args */
    size_t argc;       /* 0: no memory */
};

static void words_fini(struct engine *e, struct words *w)
{
    memory_give(e->memory, w->many);
    request_args_fini(e, &w->args);
}

static void words_init(struct engine *e,
                       struct words *w,
                       const struct request *r)
{
    w->many = NULL;
    request_args_init(e, &w->args, r);
    w->argc = w->args.argc;
    w->list = w->args.list;
    if (w->argc <= REQUEST_ARGS_MAX) {
        return;
    }
    w->many = memory_take(e->memory, w->argc * sizeof(*w->many));
    if (w->many == NULL) {
        w->argc = 0;
        return;
    }
    struct span bytes = { slice_data(&r->part), r->part.len };
    if (w->args.copy != NULL) {
        bytes = (struct span){ w->args.copy, r->size };
    }
    command_split(bytes, w->many, w->argc);
    w->list = w->many;
}

/* "0", "0.0": for ever. */
static bool is_zero(struct span text)
{
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] != '0' && text.data[i] != '.') {
            return false;
        }
    }
    return text.len > 0;
}

/* How many "$" stand among the ids, from the argument `first` on. */
static size_t count_open_ids(const struct words *w, uint32_t first)
{
    size_t n = 0;
    for (uint32_t i = first; first > 0 && i < w->argc; i++) {
        n += span_is_word(w->list[i], "$");
    }
    return n;
}

static struct blocking *describe(struct engine *e,
                                 const struct request *r,
                                 const struct words *w)
{
    const struct command *c = r->command;
    uint32_t first = command_stream_ids(c, w->list, w->argc);
    size_t n = count_open_ids(w, first);
    bool too_many = n > BLOCKING_STREAMS_MAX;
    n = too_many ? 0 : n;
    struct blocking *b =
        memory_take(e->memory, sizeof(*b) + n * sizeof(b->ids[0]));
    if (b == NULL) {
        return NULL;
    }
    b->class = (uint8_t)command_class(c, w->list, w->argc, 0);
    b->in_ms = command_block_in_ms(c);
    b->timeout_arg = command_block_arg(c, w->list, w->argc);
    b->timeout_us = command_block_us(c, w->list, w->argc);
    b->written_us = b->timeout_us;
    b->for_ever = b->timeout_arg != 0 && is_zero(w->list[b->timeout_arg]);
    b->reads = c->class == CLASS_BR;
    for (uint32_t i = first; n > 0 && i < w->argc; i++) {
        if (span_is_word(w->list[i], "$")) {
            b->ids[b->n_ids++].arg = i;
        }
    }
    return b;
}

enum blocks {
    BLOCKS_NOT,
    BLOCKS,
    BLOCKS_NO_MEMORY
};

static enum blocks look_at(struct engine *e, struct request *r)
{
    struct words w;
    words_init(e, &w, r);
    enum blocks blocks = BLOCKS_NO_MEMORY;
    if (w.argc > 0 && !command_blocks(r->command, w.list, w.argc)) {
        blocks = BLOCKS_NOT;
    } else if (w.argc > 0) {
        r->blocking = describe(e, r, &w);
        blocks = r->blocking != NULL ? BLOCKS : BLOCKS_NO_MEMORY;
    }
    words_fini(e, &w);
    return blocks;
}

void blocking_free(struct engine *e, struct request *r)
{
    memory_give(e->memory, r->blocking);
    r->blocking = NULL;
}

/* ---- from its client to its connection -------------------------------------- */

/* Its client has said all it will, and perhaps it is gone: the server would end
 * it here (it reads the end before it would take anything for it). */
static bool end_client(struct engine *e, struct downstream *d)
{
    if (d->n_open > 0) {
        return false;
    }
    downstream_drop_new(e, d);
    downstream_finish(e, d);
    return true;
}

bool redis_blocking(struct engine *e, struct downstream *d, struct request *r)
{
    enum blocks blocks = r->blocking != NULL ? BLOCKS : look_at(e, r);
    if (blocks == BLOCKS_NO_MEMORY) {
        e->stats.limit_memory++;
        redis_refuse(e, d, r, "out of memory");
        return true;
    }
    if (blocks == BLOCKS_NOT) {
        redis_submit(e, d, r);
        return true;
    }
    if (d->ended || d->left) {
        return end_client(e, d);
    }
    enum lane_answer lane = redis_want_private(e, d, r);
    if (lane == LANE_READY) {
        redis_submit(e, d, r);
    }
    return lane != LANE_LATER;
}

uint64_t blocking_deadline_us(const struct request *r,
                              uint64_t from_us,
                              uint64_t deadline_us)
{
    const struct blocking *b = r->blocking;
    if (b->for_ever) {
        return UINT64_MAX;
    }
    return from_us +
           (b->timeout_us > deadline_us ? b->timeout_us : deadline_us);
}

uint64_t blocking_patience_us(const struct request *r)
{
    uint64_t own_us = r->blocking->timeout_us;
    return own_us == 0 ? 0 : own_us + GRACE_US;
}

/* ---- what is left of its time ------------------------------------------------- */

static uint64_t remaining_us(const struct engine *e, const struct blocking *b)
{
    uint64_t end_us = b->since_us + b->timeout_us;
    uint64_t left_us = e->now_us < end_us ? end_us - e->now_us : 0;
    return left_us > LEAST_US ? left_us : LEAST_US;
}

/* As the command wants it; rounded up. */
static struct span timeout_text(const struct upstream *u,
                                const struct blocking *b,
                                uint64_t us,
                                char *text)
{
    uint64_t ms = (us + 999) / 1000;
    int n;
    if (b->in_ms) {
        n = snprintf(text, TIMEOUT_TEXT_MAX, "%" PRIu64, ms);
    } else if (u->endpoint->version < VERSION_WITH_DECIMALS) {
        n = snprintf(text, TIMEOUT_TEXT_MAX, "%" PRIu64, (ms + 999) / 1000);
    } else {
        n = snprintf(text, TIMEOUT_TEXT_MAX, "%" PRIu64 ".%03u", ms / 1000,
                     (unsigned)(ms % 1000));
    }
    return (struct span){ (uint8_t *)text, (size_t)n };
}

/* What stands in place of "$" from now on. */
static void put_ids(const struct blocking *b, struct words *w)
{
    for (uint8_t k = 0; k < b->n_ids; k++) {
        const struct frozen_id *f = &b->ids[k];
        if (f->state == FROZEN_LEARNT) {
            w->list[f->arg] = (struct span){ f->id, f->len };
        }
    }
}

static void forget_learnt(struct blocking *b)
{
    uint8_t n = 0;
    for (uint8_t k = 0; k < b->n_ids; k++) {
        if (b->ids[k].state != FROZEN_LEARNT) {
            b->ids[n++] = b->ids[k];
        }
    }
    b->n_ids = n;
}

static bool knows_ids(const struct blocking *b)
{
    for (uint8_t k = 0; k < b->n_ids; k++) {
        if (b->ids[k].state == FROZEN_LEARNT) {
            return true;
        }
    }
    return false;
}

/* The time that is left, and the ids that are known, instead of what its client
 * said. False: no memory. */
static bool rewrite(struct engine *e, struct upstream *u, struct request *r)
{
    struct blocking *b = r->blocking;
    char text[TIMEOUT_TEXT_MAX];
    struct span timeout = { 0 };
    uint64_t left_us = b->timeout_us;
    if (b->timeout_us > 0) {
        left_us = (remaining_us(e, b) + 999) / 1000 * 1000;
        if (left_us < b->written_us) {
            timeout = timeout_text(u, b, left_us, text);
        }
    }
    if (timeout.len == 0 && !knows_ids(b)) {
        return true;
    }
    struct words w;
    words_init(e, &w, r);
    bool written = w.argc > 0;
    if (written) {
        put_ids(b, &w);
        if (timeout.len > 0) {
            w.list[b->timeout_arg] = timeout;
        }
        written = request_write(e, r, w.list, w.argc);
    }
    words_fini(e, &w);
    if (!written) {
        return false;
    }
    b->written_us = timeout.len > 0 ? left_us : b->written_us;
    forget_learnt(b);
    if (r->patience_us > 0 && b->timeout_us > 0) {
        r->patience_us = left_us + GRACE_US;
    }
    return true;
}

/* ---- what "$" stands for ------------------------------------------------------ */

static bool say_aside(struct engine *e, struct upstream *u, const char *text)
{
    return upstream_send_own(e, u, TASK_ASIDE, 0, span_of(text));
}

/* Ask for the last id of one stream. False: no memory. */
static bool ask_for_id(struct engine *e,
                       struct upstream *u,
                       struct span key,
                       uint8_t index)
{
    static const char head[] = "*3\r\n$5\r\nXINFO\r\n$6\r\nSTREAM\r\n";
    size_t room = sizeof(head) + key.len + 32;
    char *text = memory_take(e->memory, room);
    if (text == NULL) {
        return false;
    }
    size_t len = (size_t)snprintf(text, room, "%s$%zu\r\n", head, key.len);
    memcpy(text + len, key.data, key.len);
    len += key.len;
    text[len++] = '\r';
    text[len++] = '\n';
    bool sent = upstream_send_own(e, u, TASK_ASK, index,
                                  (struct span){ (uint8_t *)text, len });
    memory_give(e->memory, text);
    return sent;
}

/* In front of an XREAD that says "$", in the same write: what does that stand
 * for? Without memory it is as if the server had refused to tell. */
static void ask_for_ids(struct engine *e, struct upstream *u, struct request *r)
{
    struct blocking *b = r->blocking;
    if (b->n_ids == 0) {
        return;
    }
    struct words w;
    words_init(e, &w, r);
    uint32_t first = command_stream_ids(r->command, w.list, w.argc);
    for (uint8_t k = 0; k < b->n_ids; k++) {
        struct frozen_id *f = &b->ids[k];
        f->state = FROZEN_REFUSED;
        bool asked =
            first > 0 && r->caching == 0 && /* that is said in front of it */
            (!r->asking || say_aside(e, u, "*1\r\n$6\r\nASKING\r\n")) &&
            ask_for_id(e, u, w.list[f->arg - (w.argc - first)], k);
        if (asked) {
            f->state = FROZEN_ASKED;
        }
    }
    words_fini(e, &w);
}

static void learn(struct frozen_id *f, struct span reply)
{
    struct reply *tree = reply_parse(reply);
    const struct reply *id =
        tree != NULL ? reply_get(tree, "last-generated-id") : NULL;
    struct span text = id != NULL ? reply_text(id) : (struct span){ 0 };
    if (reply.data[0] == '-') {
        static const char none[] = "-ERR no such key";
        bool missing = reply.len >= sizeof(none) - 1 &&
                       memcmp(reply.data, none, sizeof(none) - 1) == 0;
        text = missing ? span_of("0-0") : text;
    }
    f->state = FROZEN_REFUSED;
    if (text.len > 0 && text.len <= BLOCKING_ID_MAX) {
        memcpy(f->id, text.data, text.len);
        f->len = (uint8_t)text.len;
        f->state = FROZEN_LEARNT;
    }
    reply_free(tree);
}

void blocking_told(struct upstream *u, uint8_t index, struct span reply)
{
    LIST_FOR_EACH (node, &u->in_flight) {
        struct request *r = CONTAINER_OF(node, struct request, place);
        if (request_is_own(r)) {
            continue;
        }
        struct blocking *b = r->blocking;
        if (b != NULL && b->class == CLASS_BW) {
            b->doubtful = b->doubtful || reply.data[0] == '-';
        }
        if (b != NULL && index < b->n_ids &&
            b->ids[index].state == FROZEN_ASKED) {
            learn(&b->ids[index], reply);
        }
        return;
    }
}

/* ---- WAIT ------------------------------------------------------------------------ */

/* Whether the server at the other end of u is the one that has executed its
 * client's last write: another connection of that time is still open. */
static bool is_where_it_wrote(const struct upstream *u,
                              const struct downstream *d)
{
    if (d->wrote_us == 0) {
        return true;
    }
    if (d->wrote_server != u->endpoint->index) {
        return false;
    }
    LIST_FOR_EACH (node, &u->endpoint->lanes) {
        const struct upstream *other =
            CONTAINER_OF(node, struct upstream, endpoint_node);
        if (other->state == UPSTREAM_UP && other->up_us <= d->wrote_us &&
            strcmp(other->address.host, u->address.host) == 0) {
            return true;
        }
    }
    return false;
}

static void refuse_wait(struct engine *e,
                        struct upstream *u,
                        struct request *r,
                        const char *why)
{
    request_give_up(e, r, u->endpoint->cluster, OUTCOME_NOT_SENT,
                    GIVE_UP_POLICY, why);
}

/* A cluster's node counts what went over this connection, and nothing that
 * changes no key makes it count more. Next time it is right. */
static void refuse_first_wait(struct engine *e,
                              struct upstream *u,
                              struct request *r)
{
    struct ledger *l = ledger_get(e, r->downstream);
    if (l != NULL) {
        l->waits_here = true;
    }
    refuse_wait(e, u, r,
                "its last write went over a shared connection, and the server "
                "counts replicas for a connection of its own only, which it "
                "has from now on");
}

/* The server counts replicas that have all that this connection had written when
 * it last executed a command; from 7.2 on, one that was replicated. Let that be
 * now. False: r has been answered. */
static bool prepare_wait(struct engine *e,
                         struct upstream *u,
                         struct request *r)
{
    static const char ping[] = "*1\r\n$4\r\nPING\r\n";
    static const char publish[] =
        "*3\r\n$7\r\nPUBLISH\r\n$11\r\nredial:wait\r\n$0\r\n\r\n";
    const struct downstream *d = r->downstream;
    bool by_write = u->endpoint->version >= VERSION_WITH_WRITE_OFFSET;
    if (!is_where_it_wrote(u, d)) {
        refuse_wait(e, u, r,
                    "the server that has executed its last write was lost, and "
                    "with it how many replicas have that");
        return false;
    }
    if (by_write && (d->wrote_us == 0 || d->wrote_conn == u->link->conn.id)) {
        return true;
    }
    if (by_write && u->endpoint->cluster->slots != NULL) {
        refuse_first_wait(e, u, r);
        return false;
    }
    if (!upstream_send_own(e, u, TASK_ASK, 0,
                           span_of(by_write ? publish : ping))) {
        e->stats.limit_memory++;
        refuse_wait(e, u, r, "out of memory");
        return false;
    }
    return true;
}

/* ---- sent, lost, refused ------------------------------------------------------- */

bool blocking_prepare(struct engine *e, struct upstream *u, struct request *r)
{
    struct downstream *d = r->downstream;
    struct blocking *b = r->blocking;
    if (d->ended || d->left) {
        downstream_close(e, d, NULL);
        return false;
    }
    if (b->class == CLASS_BW && !prepare_wait(e, u, r)) {
        return false;
    }
    if (!b->reached) {
        b->since_us = e->now_us;
    } else if (!rewrite(e, u, r)) {
        e->stats.limit_memory++;
        request_give_up(e, r, u->endpoint->cluster, OUTCOME_NOT_SENT,
                        GIVE_UP_POLICY, "out of memory");
        return false;
    }
    ask_for_ids(e, u, r);
    return true;
}

void blocking_begins(const struct engine *e, struct request *r)
{
    if (!r->blocking->reached) {
        r->blocking->since_us = e->now_us;
    }
}

/* A read that has had its time needs no server to know that it is over. */
static void set_end(struct request *r)
{
    const struct blocking *b = r->blocking;
    if (b->reads && b->timeout_us > 0) {
        r->deadline_us = b->since_us + b->timeout_us;
    }
}

void blocking_lost(const struct engine *e, struct request *r)
{
    struct blocking *b = r->blocking;
    b->reached = true;
    if (e->now_us - r->sent_us >= STEADY_US) {
        r->replays = 0;
    }
    set_end(r);
    if (!b->reads) {
        return;
    }
    b->class = CLASS_BR;
    for (uint8_t k = 0; k < b->n_ids; k++) {
        struct frozen_id *f = &b->ids[k];
        if (f->state == FROZEN_REFUSED) {
            b->class = CLASS_BN; /* asked again, "$" would pass over some */
        } else if (f->state == FROZEN_ASKED) {
            f->state = FROZEN_NOT; /* nobody has seen what it stood for */
        }
    }
}

void blocking_refused(struct request *r)
{
    struct blocking *b = r->blocking;
    b->reached = true;
    set_end(r);
}

bool blocking_time_out(struct engine *e, struct request *r)
{
    const struct blocking *b = r->blocking;
    if (b == NULL || !b->reads || !b->reached || b->timeout_us == 0) {
        return false;
    }
    struct downstream *d = r->downstream;
    d->listener->cluster->stats.local_replies++;
    downstream_answer_text(e, r,
                           downstream_session(e, d)->resp == 3 ? "_\r\n"
                                                               : "*-1\r\n");
    return true;
}
