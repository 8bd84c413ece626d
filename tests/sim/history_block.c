#include "tests/sim/history_block.h"

#include <assert.h>
#include <inttypes.h>

#include "tests/sim/history_parts.h"

uint32_t block_new(struct world *w, uint64_t client)
{
    if (w->n_multis == w->multis_cap) {
        w->multis_cap = w->multis_cap * 2 + 64;
        w->multis = must_grow(w->multis, w->multis_cap * sizeof w->multis[0]);
    }
    w->multis[w->n_multis++] = (struct block){
        .client = client,
        .begin = (uint32_t)history_count(w->history),
        .end = NO_REQUEST,
    };
    return w->n_multis;
}

struct block *block_at(struct world *w, uint32_t block)
{
    assert(block > 0 && block <= w->n_multis);
    return &w->multis[block - 1];
}

/* --- at a server ---------------------------------------------------------- */

/* All commands of the block, and no other. */
static void check_whole(struct world *w,
                        const struct block *b,
                        uint32_t block,
                        const uint32_t *request,
                        unsigned n)
{
    unsigned at = 0;
    for (uint32_t i = b->begin; i < b->end; i++) {
        const struct request_record *r = history_at(w->history, i);
        if (r->block != block || r->expect != EXPECT_QUEUED) {
            continue;
        }
        if (at >= n || request[at] != i) {
            world_violate(w,
                          "I27: transaction %" PRIu32 " of client %" PRIu64
                          " ran without its command %" PRIu32,
                          block, b->client, r->index);
            return;
        }
        at++;
    }
    if (at != n) {
        world_violate(w,
                      "I27: transaction %" PRIu32 " of client %" PRIu64
                      " ran with %u commands instead of %u",
                      block, b->client, n, at);
    }
}

/* Behind the WATCH its client sent an EXEC or DISCARD that did not belong there,
 * and which may have ended what it watched all the same. */
static bool is_used_up(struct world *w, const struct block *b, uint32_t watch)
{
    for (uint32_t i = watch + 1; i < b->begin; i++) {
        const struct request_record *r = history_at(w->history, i);
        if (r->client == b->client && r->expect == EXPECT_ANY &&
            (r->ends_watch || r->answer == ANSWER_NONE)) {
            return true;
        }
    }
    return false;
}

/* Each WATCH that its client believes in counts on the connection that EXEC
 * came from; else a change may have been missed. */
static void check_watches(struct world *w,
                          const struct block *b,
                          const struct watched *watched,
                          unsigned n)
{
    for (unsigned i = 0; i < b->n_watches; i++) {
        const struct request_record *r = history_at(w->history, b->watch[i]);
        bool believed = r->answer == ANSWER_REPLY || r->answer == ANSWER_NONE;
        bool stands = !believed || is_used_up(w, b, b->watch[i]);
        for (unsigned k = 0; k < n; k++) {
            stands = stands || watched[k].request == b->watch[i];
        }
        if (!stands) {
            world_violate(w,
                          "I28: a transaction of client %" PRIu64
                          " ran where its WATCH (request %" PRIu32
                          ") does not count",
                          b->client, r->index);
        }
    }
}

static void check_strangers(struct world *w,
                            const struct block *b,
                            const struct watched *watched,
                            unsigned n)
{
    for (unsigned k = 0; k < n; k++) {
        if (watched[k].request != NO_REQUEST &&
            history_at(w->history, watched[k].request)->client != b->client) {
            world_violate(w,
                          "I29: a transaction of client %" PRIu64
                          " ran with a WATCH of somebody else",
                          b->client);
        }
    }
}

void block_ran(struct world *w,
               const uint32_t *request,
               unsigned n,
               const struct watched *watched,
               unsigned n_watched,
               struct span reply)
{
    if (n == 0) {
        return; /* whose it is cannot be told */
    }
    uint32_t block = history_at(w->history, request[0])->block;
    if (block == 0) {
        world_violate(w, "I29: a command ran inside of a MULTI that is not its "
                         "client's");
        return;
    }
    struct block *b = block_at(w, block);
    world_note(w, "block ran", NULL, block, reply);
    if (b->end == NO_REQUEST ||
        !history_at(w->history, b->end)->executes_block) {
        world_violate(w,
                      "I27: a transaction of client %" PRIu64
                      " ran without its EXEC",
                      b->client);
        return;
    }
    check_whole(w, b, block, request, n);
    check_watches(w, b, watched, n_watched);
    check_strangers(w, b, watched, n_watched);
    b->hashes[b->runs % HASHES_KEPT] = hash_bytes(0, reply.data, reply.len);
    b->runs++;
    w->state.blocks++;
}

/* --- at its client -------------------------------------------------------- */

static void settle_command(struct world *w,
                           uint32_t request,
                           enum answer answer,
                           bool done)
{
    struct request_record *r = history_at(w->history, request);
    bool queued = r->answer == ANSWER_REPLY;
    if (answer == ANSWER_REPLY && done && queued && r->executions == 0) {
        world_violate(w,
                      "I9: EXEC was answered, but request %" PRIu32
                      " of client %" PRIu64 " did not run",
                      r->index, r->client);
    }
    if (answer == ANSWER_REPLY && !done && r->executions > 0) {
        world_violate(w,
                      "I9: EXEC was refused, but request %" PRIu32
                      " of client %" PRIu64 " ran",
                      r->index, r->client);
    }
    if (answer == ANSWER_NOT_APPLIED && r->executions > 0) {
        world_violate(w,
                      "I9: EXEC was answered NOTAPPLIED, but request %" PRIu32
                      " of client %" PRIu64 " ran",
                      r->index, r->client);
    }
    r->settled = true;
    r->answer =
        (uint8_t)(answer == ANSWER_REPLY && !done ? ANSWER_DISCARDED : answer);
}

/* The reply of EXEC is that of one execution of this very block, and of the
 * first one as far as nobody else could tell. */
static void check_reply(struct world *w,
                        const struct block *b,
                        bool invisible,
                        struct span reply)
{
    uint64_t hash = hash_bytes(0, reply.data, reply.len);
    bool own = false;
    for (uint32_t i = 0; i < b->runs && i < HASHES_KEPT; i++) {
        own = own || b->hashes[i] == hash;
    }
    if (!own) {
        world_violate(w,
                      "I27: EXEC of client %" PRIu64
                      " was answered with what no execution of it has "
                      "answered (%" PRIu32 " executions)",
                      b->client, b->runs);
    } else if (invisible && hash != b->hashes[0]) {
        world_violate(w,
                      "I6: the replay of a transaction of client %" PRIu64
                      " shows",
                      b->client);
    }
}

void block_answered(struct world *w, uint32_t request, struct span reply)
{
    struct request_record end = *history_at(w->history, request);
    const struct block *b = block_at(w, end.block);
    bool null = reply_is_null(reply);
    bool done = end.executes_block && reply.data[0] == '*' && !null;
    bool invisible = true;
    unsigned n = 0;
    enum answer answer = end.answer == ANSWER_UNKNOWN       ? ANSWER_UNKNOWN
                         : end.answer == ANSWER_NOT_APPLIED ? ANSWER_NOT_APPLIED
                                                            : ANSWER_REPLY;
    for (uint32_t i = b->begin; i < request; i++) {
        const struct request_record *r = history_at(w->history, i);
        if (r->block == end.block && r->expect == EXPECT_QUEUED) {
            invisible = invisible && history_hides_replay(w, r);
            n++;
        }
    }
    w->state.null += null && end.executes_block;
    if (done && n > 0) {
        check_reply(w, b, invisible, reply);
    }
    /* A MULTI that finds no place may leave a WATCH in front of it behind. */
    bool room = w->upstream->held_requests_max >= 1000;
    if (null && end.executes_block && b->n_watches == 0 && !b->may_watch &&
        room) {
        world_violate(w,
                      "I28: EXEC of client %" PRIu64
                      " is null although nothing was watched",
                      b->client);
    }
    for (uint32_t i = b->begin; i < request; i++) {
        const struct request_record *r = history_at(w->history, i);
        if (r->block == end.block && r->expect == EXPECT_QUEUED) {
            settle_command(w, i, answer, done);
        }
    }
}
