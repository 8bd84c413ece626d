/* Every call, what became of it, and whether that was allowed. The rules are
 * those of grpc.md §1.7, stated once more and without the core's code. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/grpc_model.h"

const struct method methods[METHODS] = {
    { "/sim.Safe/Get", true, false, false },
    { "/sim.Own/Put", false, true, false },
    { "/sim.Other/Do", false, false, false },
    { "/sim.Never/Do", false, false, true },
};

struct call *ledger_call_new(struct world *w)
{
    struct grpc_world *g = w->grpc;
    if (g->n_calls == g->calls_cap) {
        g->calls_cap = g->calls_cap * 2 + 64;
        g->calls = must_grow(g->calls, g->calls_cap * sizeof(struct call *));
    }
    struct call *c = must_alloc(sizeof *c);
    c->id = g->n_calls;
    c->status = NEVER_SAID;
    g->calls[g->n_calls++] = c;
    return c;
}

void grpc_ledger_free(struct grpc_world *g)
{
    for (uint32_t i = 0; i < g->n_calls; i++) {
        free(g->calls[i]->runs);
        free(g->calls[i]);
    }
    free(g->calls);
}

/* ---- what may run again ---- */

static bool has_policy(const struct grpc_settings *s, const struct method *m)
{
    return !m->no_retry && !s->disabled && s->retries == GRPC_RETRIES_FULL &&
           ((m->is_explicit && s->has_explicit) || s->blanket);
}

static bool is_own(const struct grpc_settings *s, const struct method *m)
{
    return m->is_explicit && s->has_explicit;
}

static bool is_listed(const struct grpc_settings *s,
                      const struct method *m,
                      unsigned status)
{
    return ((is_own(s, m) ? s->own_codes : s->codes) >> status & 1) != 0;
}

/* Whether the client may have half-closed behind one message. */
static bool may_be_single(const struct call *c)
{
    return c->half_sent && c->body.n == 1;
}

/* Columns F4 and F5. */
static bool status_may_retry(const struct grpc_settings *s,
                             const struct call *c,
                             unsigned status)
{
    const struct method *m = &methods[c->method];
    return has_policy(s, m) && is_listed(s, m, status) &&
           (m->safe || is_own(s, m) || may_be_single(c));
}

/* Columns F3 and F8. */
static bool lost_may_retry(const struct grpc_settings *s,
                           const struct call *c,
                           unsigned status)
{
    const struct method *m = &methods[c->method];
    if (!has_policy(s, m) || !is_listed(s, m, status) ||
        s->ambiguous == GRPC_AMBIGUOUS_NEVER) {
        return false;
    }
    if (m->safe) {
        return true;
    }
    if (s->ambiguous == GRPC_AMBIGUOUS_IDEMPOTENT) {
        return false;
    }
    return is_own(s, m) ||
           (s->ambiguous == GRPC_AMBIGUOUS_POLICY && may_be_single(c));
}

/* Whether what a run looked like, from here or from redial, which may have lost
 * its end, permits another one. */
static bool may_run_again(const struct grpc_settings *s,
                          const struct call *c,
                          const struct run_record *r)
{
    if (lost_may_retry(s, c, GRPC_UNAVAILABLE)) {
        return true; /* the connection, or the attempt's time */
    }
    if (r->pad > 0 && lost_may_retry(s, c, GRPC_RESOURCE_EXHAUSTED)) {
        return true; /* X7 */
    }
    if (r->was_reset) {
        return lost_may_retry(s, c, grpc_status_of_reset(r->reset_code));
    }
    if (r->not_grpc) {
        return lost_may_retry(s, c, grpc_status_of_http(r->http));
    }
    if (r->no_status) {
        return lost_may_retry(s, c, GRPC_UNKNOWN);
    }
    return r->said > 0 && r->pushback != GRPC_PUSHBACK_NO &&
           status_may_retry(s, c, (unsigned)r->said);
}

/* Without memory a response is taken for an invalid one. */
static bool lost_to_memory(const struct world *w, const struct call *c)
{
    const struct grpc_settings *s = &w->grpc->s;
    return w->memory_failed && (lost_may_retry(s, c, GRPC_INTERNAL) ||
                                lost_may_retry(s, c, GRPC_RESOURCE_EXHAUSTED));
}

static unsigned runs_max(const struct grpc_settings *s, const struct call *c)
{
    const struct method *m = &methods[c->method];
    unsigned attempts = is_own(s, m) ? s->own_attempts : s->attempts;
    unsigned before = s->share ? c->before : 0;
    if (!has_policy(s, m) || attempts <= before) {
        return 1;
    }
    return attempts - before;
}

/* The runs next to an attempt, by what their headers say of those before. Runs
 * may come late and in any order: a stopped host reads what was sent to it long
 * ago. */
struct neighbours {
    const struct run_record *before, *same, *after;
};

static struct neighbours neighbours_of(const struct call *c, uint32_t attempts)
{
    struct neighbours n = { NULL, NULL, NULL };
    for (unsigned i = 0; i < c->n_runs; i++) {
        const struct run_record *r = &c->runs[i];
        if (r->attempts == attempts) {
            n.same = r;
        } else if (r->attempts < attempts &&
                   (n.before == NULL || r->attempts > n.before->attempts)) {
            n.before = r;
        } else if (r->attempts > attempts) {
            n.after = r;
        }
    }
    return n;
}

static void check_again(struct world *w, struct call *c, uint32_t attempts)
{
    const struct grpc_settings *s = &w->grpc->s;
    const struct neighbours n = neighbours_of(c, attempts);
    bool after_commit = c->got_headers && c->run_seen > 0 &&
                        c->runs[c->run_seen - 1].attempts < attempts;
    if (c->n_runs >= runs_max(s, c)) {
        world_violate(w, "I2: call %" PRIu32 " runs %u times, allowed are %u",
                      c->id, c->n_runs + 1, runs_max(s, c));
    } else if (n.same != NULL) {
        world_violate(w,
                      "I2: call %" PRIu32 " runs twice in what redial takes "
                      "for one attempt, the one after %" PRIu32,
                      c->id, attempts);
    } else if (n.before != NULL && !may_run_again(s, c, n.before) &&
               !lost_to_memory(w, c)) {
        world_violate(w,
                      "I2: call %" PRIu32 " runs again, which neither its "
                      "policy nor its last end allows",
                      c->id);
    } else if (n.after != NULL && !lost_may_retry(s, c, GRPC_UNAVAILABLE)) {
        world_violate(w,
                      "I2: call %" PRIu32 " was tried again although this "
                      "attempt could still run",
                      c->id);
    } else if (after_commit) {
        world_violate(w, "C1: call %" PRIu32 " runs again after the commit",
                      c->id);
    }
}

struct run_record *ledger_run(struct world *w,
                              struct call *c,
                              uint32_t attempts)
{
    if (c->never_runs) {
        world_violate(w,
                      "S3: call %" PRIu32 " runs, but its client was told that "
                      "nobody had seen it",
                      c->id);
    }
    if (c->n_runs > 0) {
        check_again(w, c, attempts);
    } else if (attempts < c->before) {
        world_violate(w, "S1: call %" PRIu32 " lost its client's attempts",
                      c->id);
    }
    if (c->deadline_us != 0 && c->arrived_us != 0 &&
        w->now_us > c->deadline_us + 60000000) {
        world_violate(w, "I5: call %" PRIu32 " begins a minute late", c->id);
    }
    if (c->n_runs == c->runs_cap) {
        c->runs_cap = c->runs_cap * 2 + 2;
        c->runs = must_grow(c->runs, c->runs_cap * sizeof c->runs[0]);
    }
    struct run_record *r = &c->runs[c->n_runs++];
    *r = (struct run_record){ .said = NEVER_SAID, .attempts = attempts };
    r->body.key = ((uint64_t)c->id * 1000 + c->n_runs) << 40;
    if (attempts > c->attempts_seen) {
        c->attempts_seen = attempts;
    }
    return r;
}

/* ---- what the client is told ---- */

static bool is_local_status(int status)
{
    static const int local[] = { 1, 2, 4, 7, 8, 12, 13, 14, 16 };
    for (size_t i = 0; i < sizeof local / sizeof local[0]; i++) {
        if (local[i] == status) {
            return true;
        }
    }
    return false;
}

static void check_from_host(struct world *w, const struct call *c)
{
    const struct run_record *r = &c->runs[c->run_seen - 1];
    bool late = c->deadline_us != 0 && w->now_us >= c->deadline_us;
    bool same =
        r->said == c->status || (late && r->said == GRPC_CANCELLED &&
                                 c->status == GRPC_DEADLINE_EXCEEDED); /* L6 */
    if (!same) {
        world_violate(w, "call %" PRIu32 " ends with %d, its host said %d",
                      c->id, c->status, r->said);
    } else if (c->status == GRPC_OK && c->got != body_total(&r->body)) {
        world_violate(w,
                      "I3: call %" PRIu32 " is OK, but of %" PRIu64
                      " bytes its client has %" PRIu64,
                      c->id, body_total(&r->body), c->got);
    }
}

/* S2: after retries of ours the client is told not to begin anew. */
static void check_stop(struct world *w, const struct call *c)
{
    const struct grpc_settings *s = &w->grpc->s;
    bool retried = c->attempts_seen > c->before;
    bool own = !c->from_redial &&
               c->runs[c->run_seen - 1].pushback != GRPC_PUSHBACK_NONE;
    if (c->status == GRPC_OK || own) {
        return;
    }
    if (s->stop != GRPC_STOP_NEVER && retried && !c->told_to_stop) {
        world_violate(w,
                      "S2: call %" PRIu32 " was retried, and its client is not "
                      "told to stop",
                      c->id);
    }
    if (s->stop == GRPC_STOP_NEVER && c->told_to_stop &&
        c->status != GRPC_UNAVAILABLE) {
        world_violate(w, "S2: the client of call %" PRIu32 " is told to stop",
                      c->id);
    }
}

void ledger_status(struct world *w, struct call *c, struct span message)
{
    static const char mark[] = "redial: ";
    bool marked = message.len >= sizeof mark - 1 &&
                  memcmp(message.data, mark, sizeof mark - 1) == 0;
    if (c->ending == CALL_STATUS) {
        world_violate(w, "I1: call %" PRIu32 " ends twice", c->id);
        return;
    }
    if (c->from_redial && !marked && !w->memory_failed) {
        world_violate(w, "call %" PRIu32 " ends with %d, of which nobody knows",
                      c->id, c->status);
    } else if (c->from_redial && !is_local_status(c->status)) {
        world_violate(w, "A54: redial itself ends call %" PRIu32 " with %d",
                      c->id, c->status);
    } else if (!c->from_redial) {
        check_from_host(w, c);
    }
    check_stop(w, c);
    c->ending = CALL_STATUS;
}

/* ---- at the end ---- */

void ledger_end(struct world *w)
{
    const struct grpc_world *g = w->grpc;
    for (uint32_t i = 0; i < g->n_calls; i++) {
        const struct call *c = g->calls[i];
        if (c->ending == CALL_OPEN) {
            world_violate(w, "I1: call %" PRIu32 " has no end", c->id);
        }
    }
}
