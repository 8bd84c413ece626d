/* Replies merged from parts: each element must be what an execution of the
 * part it belongs to answered. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/history.h"
#include "tests/sim/resp_model.h"

static bool starts(struct span reply, const char *text)
{
    size_t n = strlen(text);
    return reply.len >= n && memcmp(reply.data, text, n) == 0;
}

static void not_its_own(struct world *w,
                        const struct request_record *r,
                        const char *what)
{
    world_violate(w,
                  "I3: the reply of request %" PRIu32 " of client %" PRIu64
                  ", which was split, %s",
                  r->index, r->client, what);
}

/* The elements of an array reply; false: it is none of that length. */
static bool elements(struct span reply, unsigned n, struct span *element)
{
    char head[16];
    snprintf(head, sizeof head, "*%u\r\n", n);
    if (!starts(reply, head)) {
        return false;
    }
    size_t at = strlen(head);
    for (unsigned i = 0; i < n; i++) {
        struct span rest = { .data = reply.data + at, .len = reply.len - at };
        size_t size;
        if (model_reply_end(rest, &size) != MODEL_DONE) {
            return false;
        }
        element[i] = (struct span){ .data = rest.data, .len = size };
        at += size;
    }
    return at == reply.len;
}

/* MGET: put the reply of each part together again. */
static void check_values(struct world *w,
                         uint32_t request,
                         struct span reply,
                         struct ledger session)
{
    struct request_record r = *history_at(w->history, request);
    struct span element[SPLIT_KEYS_MAX];
    if (!elements(reply, r.n_split, element)) {
        not_its_own(w, &r, "is no array of the right length");
        return;
    }
    for (unsigned p = 0; p < r.n_parts; p++) {
        struct bytes own = { 0 };
        unsigned n = 0;
        for (unsigned i = 0; i < r.n_split; i++) {
            n += r.part[i] == p;
        }
        bytes_printf(&own, "*%u\r\n", n);
        for (unsigned i = 0; i < r.n_split; i++) {
            if (r.part[i] == p) {
                bytes_add(&own, element[i].data, element[i].len);
            }
        }
        history_part_answered(w, request + 1 + p, bytes_span(&own), session);
        bytes_fini(&own);
    }
}

/* MSET: each part ran, or the OK is a lie. */
static void check_all_ok(struct world *w,
                         uint32_t request,
                         struct span reply,
                         struct ledger session)
{
    struct request_record r = *history_at(w->history, request);
    if (!starts(reply, "+OK\r\n")) {
        not_its_own(w, &r, "is not OK");
        return;
    }
    for (unsigned p = 0; p < r.n_parts; p++) {
        history_part_answered(w, request + 1 + p, reply, session);
    }
}

/* Whether the parts from p on can have answered numbers with that sum. */
static bool sum_fits(struct world *w, uint32_t request, unsigned p, int64_t sum)
{
    const struct request_record *r = history_at(w->history, request);
    if (p == r->n_parts) {
        return sum == 0;
    }
    const struct request_record *part = history_at(w->history, request + 1 + p);
    for (uint32_t i = 0; i < part->executions && i < HASHES_KEPT; i++) {
        if (sum_fits(w, request, p + 1, sum - part->numbers[i])) {
            return true;
        }
    }
    return false;
}

static void check_count(struct world *w,
                        uint32_t request,
                        struct span reply,
                        struct ledger session)
{
    struct request_record r = *history_at(w->history, request);
    (void)session;
    if (!starts(reply, ":") ||
        !sum_fits(w, request, 0,
                  strtoll((const char *)reply.data + 1, NULL, 10))) {
        not_its_own(w, &r, "is not the sum of its parts");
    }
    for (unsigned p = 0; p < r.n_parts; p++) {
        struct request_record *part = history_at(w->history, request + 1 + p);
        part->answer = ANSWER_REPLY;
        if (part->overtaken) {
            world_violate(w,
                          "I5: a part of request %" PRIu32 " of client %" PRIu64
                          " ran for the first time after a later one on the "
                          "same key",
                          r.index, r.client);
        }
    }
}

/* One error for all: some parts may have run, for which NOTAPPLIED is right
 * only when they do not write. */
static void check_error(struct world *w, uint32_t request, struct span reply)
{
    struct request_record *r = history_at(w->history, request);
    bool not_applied = starts(reply, "-NOTAPPLIED");
    bool unknown = starts(reply, "-UNKNOWNOUTCOME");
    uint64_t hash = hash_bytes(0, reply.data, reply.len);
    uint32_t sent = 0;
    bool said = false;
    for (unsigned p = 0; p < r->n_parts; p++) {
        struct request_record *part = history_at(w->history, request + 1 + p);
        sent += part->sent_whole;
        said |= history_has_refusal(part, hash);
        said |= history_has_reply(part, hash);
        if (not_applied && part->writes && part->executions > 0) {
            world_violate(w,
                          "I9: request %" PRIu32 " of client %" PRIu64
                          " was answered NOTAPPLIED, but a part of it ran",
                          r->index, r->client);
        }
        part->answer =
            not_applied && part->writes ? ANSWER_NOT_APPLIED : ANSWER_UNKNOWN;
    }
    r->answer = not_applied ? ANSWER_NOT_APPLIED
                : unknown   ? ANSWER_UNKNOWN
                            : ANSWER_REFUSED;
    if (unknown && sent == 0) {
        world_violate(w,
                      "I9: request %" PRIu32 " of client %" PRIu64
                      " was never sent whole, but answered UNKNOWNOUTCOME",
                      r->index, r->client);
    }
    if (!not_applied && !unknown && !said) {
        not_its_own(w, r, "is an error no part got");
    }
}

void split_answered(struct world *w,
                    uint32_t request,
                    struct span reply,
                    struct ledger session)
{
    struct request_record *r = history_at(w->history, request);
    bool refused =
        starts(reply, "-ERR Can't execute ") || starts(reply, "-CROSSSLOT ");
    if (refused && session.subscribed) {
        r->answer = ANSWER_REFUSED; /* as a whole, where it has subscribed */
        for (uint32_t i = 1; i <= r->n_parts; i++) {
            history_at(w->history, request + i)->answer = ANSWER_REFUSED;
        }
        return;
    }
    if (starts(reply, "-")) {
        check_error(w, request, reply);
        return;
    }
    r->answer = ANSWER_REPLY;
    switch ((enum expect)r->expect) {
    case EXPECT_VALUES: check_values(w, request, reply, session); break;
    case EXPECT_ALL_OK: check_all_ok(w, request, reply, session); break;
    default: check_count(w, request, reply, session); break;
    }
}
