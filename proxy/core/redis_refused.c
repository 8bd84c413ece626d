/* What becomes of requests that a server has refused as not applied (rule 6 of
 * redis.md §4): they wait until it is known that nothing has overtaken them, and
 * are tried again where they belong, or end with the refusal. */
#include "parser/redis_error.h"
#include "proxy/core/state.h"

static enum verdict judge_refused(struct engine *e,
                                  const struct downstream *d,
                                  const struct request *r,
                                  uint64_t delay_us)
{
    const struct upstream_config *config = d->listener->cluster->config;
    if (r->overtaken) {
        return GIVE_UP_UNSAFE;
    }
    return retry_decide(&(struct retry_input){
        .outcome = OUTCOME_NOT_APPLIED,
        /* Following a redirect is no retry: it is how the key is found. */
        .retry_enabled = config->retry || r->hops > 0,
        .listed = true,
        .replays_max = config->retries,
        .now_us = e->now_us,
        .deadline_us = r->deadline_us,
        .backoff_us = delay_us,
    });
}

/* Send a BACKOFF request again. */
static void try_again(struct engine *e, struct downstream *d, struct request *r)
{
    request_move(r, REQUEST_NEW);
    r->mended = false;
    d->n_settling--;
    if (redis_follow(e, d, r)) {
        redis_send(e, d, r);
    }
}

static struct request *first_in(struct downstream *d, enum request_state state)
{
    LIST_FOR_EACH (node, &d->requests) {
        struct request *r = CONTAINER_OF(node, struct request, arrival);
        if (r->state == (uint8_t)state) {
            return r;
        }
    }
    return NULL;
}

/* When the next retries of d are due; begins a new wait if there is none. */
static uint64_t retry_time(struct engine *e, struct downstream *d)
{
    const struct upstream_config *config = d->listener->cluster->config;
    if (d->retry_at_us == 0) {
        d->retry_at_us =
            e->now_us + backoff_next(&d->backoff, config->backoff,
                                     config->backoff_base_us,
                                     config->backoff_cap_us, &e->rng);
    }
    downstream_wake_at(e, d, d->retry_at_us);
    return d->retry_at_us;
}

/* r becomes BACKOFF, until at_us, or is answered with the server's refusal.
 * Returns whether it is to be tried again; if not, it may be gone. */
static bool settle_one(struct engine *e,
                       struct downstream *d,
                       struct request *r,
                       uint64_t at_us)
{
    struct cluster *c = d->listener->cluster;
    uint64_t delay_us = at_us > e->now_us ? at_us - e->now_us : 0;
    enum verdict verdict = judge_refused(e, d, r, delay_us);
    enum command_class class = request_class(e, r);
    c->stats.retries[OUTCOME_NOT_APPLIED][class][verdict]++;
    if (!verdict_is_retry(verdict)) {
        request_give_up(e, r, c, OUTCOME_NOT_APPLIED, verdict,
                        "refused by the server");
        return false;
    }
    request_move(r, REQUEST_BACKOFF);
    if (delay_us > 0) {
        request_trace_retry(e, r, OUTCOME_NOT_APPLIED, verdict,
                            "refused by the server", delay_us);
    }
    return true;
}

/* ---- one server ------------------------------------------------------------ */

/* What the SETTLING ones of d were refused for has been seen to, for all of
 * them. */
static bool all_mended(const struct downstream *d)
{
    LIST_FOR_EACH (node, &d->requests) {
        const struct request *r = CONTAINER_OF(node, struct request, arrival);
        if (r->state == REQUEST_SETTLING && !r->mended) {
            return false;
        }
    }
    return true;
}

/* Every SETTLING request becomes BACKOFF or is answered. Returns whether there
 * is one that must wait. */
static bool settle_all(struct engine *e, struct downstream *d)
{
    struct request *r = first_in(d, REQUEST_SETTLING);
    if (r == NULL) {
        return false;
    }
    bool mended = all_mended(d);
    d->retry_at_us = 0;
    uint64_t at_us = mended ? e->now_us : retry_time(e, d);
    for (; r != NULL && !downstream_gone(d);
         r = first_in(d, REQUEST_SETTLING)) {
        settle_one(e, d, r, at_us);
    }
    return !mended;
}

/* All that d has open is settling. */
static void settle_on_one_server(struct engine *e, struct downstream *d)
{
    if (!settle_all(e, d) && d->retry_at_us == 0) {
        /* The first one got through: so may the others, in their order. */
        struct request *r;
        while (!downstream_gone(d) &&
               (r = first_in(d, REQUEST_BACKOFF)) != NULL) {
            try_again(e, d, r);
        }
    }
}

/* ---- several servers -------------------------------------------------------- */

static bool waits(const struct request *r)
{
    return r->state == REQUEST_SETTLING || r->state == REQUEST_BACKOFF;
}

/* Whether q and r may touch the same key, as far as their slots tell. */
static bool slots_meet(const struct request *q, const struct request *r)
{
    bool any =
        q->pieces_more > 0 || q->command == NULL || redis_wants_all_nodes(q) ||
        redis_wants_all_nodes(r) || r->slot == SLOT_NONE || r->own_lane ||
        (q->slot == SLOT_NONE && (q->command->flags & COMMAND_WRITES) != 0);
    return any || q->slot == r->slot;
}

/* Keys that cannot be told may be any. */
static bool may_touch_any(const struct request *r)
{
    return r->command == NULL || redis_wants_all_nodes(r) ||
           (r->slot == SLOT_NONE && (r->command->flags & COMMAND_WRITES) != 0);
}

static bool succeeded(const struct request *r)
{
    uint8_t first = 0;
    chain_copy(&r->reply, &first, 1);
    return r->state == REQUEST_DONE && first != '-' && first != '!';
}

void redis_refused_begin(struct downstream *d, struct request *r)
{
    if (d->listener->cluster->slots == NULL) {
        return; /* one connection answers in order */
    }
    for (struct list_node *node = r->arrival.next; node != &d->requests;
         node = node->next) {
        const struct request *q = CONTAINER_OF(node, struct request, arrival);
        bool meet = may_touch_any(q) || may_touch_any(r) ||
                    (q->slot == r->slot && r->slot != SLOT_NONE);
        r->overtaken = r->overtaken || (meet && succeeded(q));
    }
}

/* It waits for the map as a whole, to be taken apart then. */
static bool is_whole(const struct request *r)
{
    return redis_wants_all_nodes(r) && !r->fragment;
}

bool redis_refused_minds(const struct downstream *d, const struct request *r)
{
    if (d->listener->cluster->slots == NULL || is_whole(r) || r->in_block) {
        return false;
    }
    for (struct list_node *node = r->arrival.next; node != &d->requests;
         node = node->next) {
        const struct request *q = CONTAINER_OF(node, struct request, arrival);
        bool sibling = r->fragment && q->gather == r->gather;
        bool meet = q->pieces_more > 0 || slots_meet(r, q);
        if (q->open && !sibling && meet) {
            return true;
        }
    }
    return false;
}

/* Whether r must wait for another request of its client for the same slot: one
 * that is on its way, or one in front that waits, too. One in front on the very
 * lane that r will take keeps in front of it. */
static bool must_wait(struct engine *e, struct downstream *d, struct request *r)
{
    uint32_t to = redis_endpoint(e, d, r)->index;
    bool behind = false;
    LIST_FOR_EACH (node, &d->requests) {
        const struct request *q = CONTAINER_OF(node, struct request, arrival);
        if (q == r) {
            behind = true;
            continue;
        }
        bool leads = !behind && !waits(q) && q->server == to && !q->own_lane &&
                     !r->own_lane;
        bool follows = behind && waits(q);
        if (q->open && !leads && !follows && slots_meet(q, r)) {
            return true;
        }
    }
    return false;
}

/* The first request that waits and need not, or NULL. */
static struct request *free_to_go(struct engine *e, struct downstream *d)
{
    LIST_FOR_EACH (node, &d->requests) {
        struct request *r = CONTAINER_OF(node, struct request, arrival);
        bool due = r->state == REQUEST_SETTLING ||
                   (r->state == REQUEST_BACKOFF && d->retry_at_us == 0);
        if (due && !must_wait(e, d, r)) {
            return r;
        }
    }
    return NULL;
}

/* A redirect is followed at once; other refusals are waited out. */
static void settle_on_several_servers(struct engine *e, struct downstream *d)
{
    struct request *r;
    while (!downstream_gone(d) && (r = free_to_go(e, d)) != NULL) {
        if (r->state == REQUEST_BACKOFF) {
            try_again(e, d, r);
        } else if (r->hops > 0 || r->mended) {
            if (settle_one(e, d, r, 0)) {
                try_again(e, d, r);
            }
        } else {
            settle_one(e, d, r, retry_time(e, d));
        }
    }
}

void redis_refused_settle(struct engine *e, struct downstream *d)
{
    if (d->listener->cluster->slots != NULL) {
        settle_on_several_servers(e, d);
    } else if (d->n_open == d->n_settling) {
        settle_on_one_server(e, d);
    } else {
        return; /* something may still overtake them */
    }
    if (d->n_settling == 0) {
        d->retry_at_us = 0;
    }
}

void redis_refused_retry(struct engine *e, struct downstream *d)
{
    d->retry_at_us = 0;
    if (d->listener->cluster->slots != NULL) {
        settle_on_several_servers(e, d);
        return;
    }
    struct request *r = first_in(d, REQUEST_BACKOFF);
    if (r != NULL) {
        try_again(e, d, r);
    }
}
