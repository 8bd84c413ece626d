/* An upstream of type grpc: who waits, what state it is in, and when
 * connections are opened (grpc.md §1.14, §3.1, §3.2). */
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>

#include "proxy/core/grpc_endpoint.h"
#include "proxy/core/state.h"

static bool is_pick_first(const struct grpc_channel *ch)
{
    return ch->config->grpc.lb == GRPC_PICK_FIRST;
}

void grpc_duration_format(uint64_t us, char text[GRPC_DURATION_TEXT])
{
    if (us % 1000000 == 0) {
        snprintf(text, GRPC_DURATION_TEXT, "%" PRIu64 "s", us / 1000000);
    } else {
        snprintf(text, GRPC_DURATION_TEXT, "%" PRIu64 "ms", us / 1000);
    }
}

void grpc_channel_note(struct grpc_channel *ch,
                       const char *where,
                       const char *why)
{
    snprintf(ch->last_error, sizeof(ch->last_error), "%.*s: %s",
             GRPC_TEXT_MAX / 2, where, why);
}

/* ---- state -------------------------------------------------------------------- */

static const char *state_name(enum grpc_channel_state s)
{
    switch (s) {
    case GRPC_CHANNEL_READY: return "ready";
    case GRPC_CHANNEL_CONNECTING: return "connecting";
    case GRPC_CHANNEL_FAILING: return "failing";
    }
    return "";
}

/* Y1; FAILING lasts until an endpoint is READY. */
static enum grpc_channel_state state_of(const struct grpc_channel *ch)
{
    if (ch->n_ready > 0) {
        return GRPC_CHANNEL_READY;
    }
    if (ch->state == GRPC_CHANNEL_FAILING) {
        return GRPC_CHANNEL_FAILING;
    }
    if (ch->n_endpoints == 0) {
        return grpc_names_failed(ch) ? GRPC_CHANNEL_FAILING
                                     : GRPC_CHANNEL_CONNECTING;
    }
    for (uint32_t i = 0; i < ch->n_endpoints; i++) {
        if (ch->endpoints[i]->failures == 0) {
            return GRPC_CHANNEL_CONNECTING; /* or it has not been tried */
        }
    }
    return GRPC_CHANNEL_FAILING;
}

static void update_state(struct engine *e, struct grpc_channel *ch)
{
    enum grpc_channel_state before = ch->state, next = state_of(ch);
    if (next == before) {
        return;
    }
    ch->state = (uint8_t)next;
    ch->turned = next == GRPC_CHANNEL_FAILING;
    engine_trace(e, &(struct trace_record){ .type = TRACE_UPSTREAM,
                                            .upstream = ch->config->name,
                                            .from = state_name(before),
                                            .to = state_name(next),
                                            .reason = next == GRPC_CHANNEL_READY
                                                          ? NULL
                                                          : ch->last_error });
}

static void list_ready(struct grpc_channel *ch)
{
    ch->n_ready = 0;
    for (uint32_t i = 0; i < ch->n_endpoints; i++) {
        if (ch->endpoints[i]->n_usable > 0) {
            ch->ready[ch->n_ready++] = ch->endpoints[i];
        }
    }
    if (ch->chosen != NULL &&
        (ch->chosen->leaving || ch->chosen->n_usable == 0)) {
        ch->chosen = NULL;
    }
    if (ch->chosen == NULL && ch->n_ready > 0) {
        ch->chosen = ch->ready[0];
    }
}

void grpc_channel_changed(struct engine *e, struct grpc_channel *ch)
{
    list_ready(ch);
    update_state(e, ch);
    grpc_channel_pump_later(e, ch);
}

/* ---- who waits ---------------------------------------------------------------- */

static void no_link(struct engine *e,
                    struct grpc_channel *ch,
                    struct grpc_call *call,
                    bool forced)
{
    char text[GRPC_TEXT_MAX * 2], in[GRPC_DURATION_TEXT];
    grpc_duration_format(ch->config->grpc.max_wait_for_ready_us, in);
    const char *why = ch->state == GRPC_CHANNEL_READY
                          ? "all connections are busy"
                      : ch->last_error[0] != '\0' ? ch->last_error
                                                  : "still connecting";
    snprintf(text, sizeof(text), "no connection to cluster %s%s%s: %s",
             ch->config->name, forced ? " within " : "", forced ? in : "", why);
    grpc_call_no_link(e, call, forced, text);
}

/* In the order in which their waits end: one that comes back goes on with the
 * wait it had. */
static void join_line(struct grpc_channel *ch, struct grpc_call *call)
{
    struct list_node *at = &ch->waiting;
    while (at->prev != &ch->waiting &&
           CONTAINER_OF(at->prev, struct grpc_call, place)->wait_us >
               call->wait_us) {
        at = at->prev;
    }
    list_insert_before(at, &call->place);
    ch->n_waiting++;
}

static void leave_line(struct grpc_channel *ch, struct grpc_call *call)
{
    assert(ch->n_waiting > 0);
    list_remove(&call->place);
    ch->n_waiting--;
}

void grpc_channel_withdraw(struct engine *e,
                           struct grpc_channel *ch,
                           struct grpc_call *call)
{
    (void)e;
    leave_line(ch, call);
}

/* Start the call, if there is a link for it. */
static bool start(struct engine *e,
                  struct grpc_channel *ch,
                  struct grpc_call *call)
{
    for (;;) {
        struct grpc_link *l = grpc_pick(e, ch, call);
        if (l == NULL) {
            return false;
        }
        if (grpc_call_start(e, call, l)) {
            return true;
        }
        grpc_link_drain(e, l, "it takes no more calls");
    }
}

/* A call has come: connections that were closed for want of calls are opened
 * again (U8). */
static void wake(struct engine *e, struct grpc_channel *ch)
{
    for (uint32_t i = 0; i < ch->n_endpoints; i++) {
        grpc_endpoint_rest(ch->endpoints[i], false);
    }
    grpc_channel_pump_later(e, ch);
}

void grpc_channel_submit(struct engine *e,
                         struct grpc_channel *ch,
                         struct grpc_call *call)
{
    const struct grpc_config *config = &ch->config->grpc;
    if (ch->n_resting > 0) {
        wake(e, ch);
    }
    /* Others that wait come first, unless they wait for the answer to a probe
     * and this one need not. */
    if ((ch->n_waiting == 0 || ch->n_probing > 0) && start(e, ch, call)) {
        return;
    }
    if (ch->state == GRPC_CHANNEL_FAILING &&
        !call->method.policy->wait_for_ready) {
        no_link(e, ch, call, false);
        return;
    }
    if (ch->n_waiting >= config->max_queued_calls) {
        char text[GRPC_TEXT_MAX];
        snprintf(text, sizeof(text), "queue of cluster %s is full",
                 ch->config->name);
        ch->stats.limit_max_queued_calls++;
        call->stop = true; /* a retry of the client would not help (W4) */
        ch->wanted = true; /* connect also where none may wait */
        grpc_channel_pump_later(e, ch);
        grpc_call_no_link(e, call, true, text);
        return;
    }
    if (call->wait_us == 0) {
        call->wait_us = e->now_us + config->max_wait_for_ready_us;
    }
    join_line(ch, call);
    grpc_channel_pump_later(e, ch);
}

static struct grpc_call *first_waiting(const struct grpc_channel *ch)
{
    return CONTAINER_OF(ch->waiting.next, struct grpc_call, place);
}

static void serve_line(struct engine *e, struct grpc_channel *ch)
{
    while (ch->n_waiting > 0) {
        struct grpc_call *call = first_waiting(ch);
        leave_line(ch, call);
        if (!start(e, ch, call)) {
            list_insert_before(ch->waiting.next, &call->place);
            ch->n_waiting++;
            return;
        }
    }
}

/* All calls wait equally long: the first has waited longest (W2). */
static void expire_line(struct engine *e, struct grpc_channel *ch)
{
    while (ch->n_waiting > 0 && first_waiting(ch)->wait_us <= e->now_us) {
        struct grpc_call *call = first_waiting(ch);
        leave_line(ch, call);
        no_link(e, ch, call, true);
    }
}

/* The upstream has begun to fail: calls that are not to wait for it end (W3). */
static void fail_impatient(struct engine *e, struct grpc_channel *ch)
{
    struct list_node impatient;
    list_init(&impatient);
    for (struct list_node *node = ch->waiting.next, *next; node != &ch->waiting;
         node = next) {
        next = node->next;
        struct grpc_call *call = CONTAINER_OF(node, struct grpc_call, place);
        if (!call->method.policy->wait_for_ready) {
            list_remove(node);
            list_append(&impatient, node); /* may still be withdrawn */
        }
    }
    while (!list_empty(&impatient)) {
        struct grpc_call *call =
            CONTAINER_OF(impatient.next, struct grpc_call, place);
        leave_line(ch, call);
        no_link(e, ch, call, false);
    }
}

/* ---- when connections are opened ---------------------------------------------- */

/* pick_first: the first READY endpoint has won; end the others' attempts. */
static void end_pass(struct engine *e, struct grpc_channel *ch)
{
    ch->passing = false;
    ch->wanted = false;
    for (uint32_t i = 0; i < ch->n_endpoints; i++) {
        struct grpc_endpoint *p = ch->endpoints[i];
        if (p == ch->chosen || (p->n_usable == 0 && p->n_connecting == 0)) {
            continue;
        }
        for (struct list_node *node = p->links.next, *next; node != &p->links;
             node = next) {
            next = node->next;
            struct grpc_link *l = CONTAINER_OF(node, struct grpc_link, node);
            if (l->state == GRPC_LINK_CONNECTING) {
                grpc_link_end(e, l, "another address was faster", true);
            } else if (!l->suspect) {
                grpc_link_drain(e, l, "another address is in use");
            }
        }
    }
}

/* pick_first: try the endpoints, one after the other, 250 ms apart; those that
 * have failed again after their own backoff once each has been tried. Returns
 * when there is more to do. */
static uint64_t drive_pass(struct engine *e, struct grpc_channel *ch)
{
    if (ch->n_ready > 0) {
        end_pass(e, ch);
        return UINT64_MAX;
    }
    if (ch->n_waiting == 0 && !ch->wanted &&
        ch->state != GRPC_CHANNEL_FAILING) {
        return UINT64_MAX; /* nobody wants it */
    }
    if (!ch->passing) {
        ch->passing = true;
        ch->pass_at = 0;
        ch->pass_us = e->now_us;
    }
    while (ch->pass_at < ch->n_endpoints && e->now_us >= ch->pass_us) {
        struct grpc_endpoint *p = ch->endpoints[ch->pass_at++];
        if (grpc_endpoint_may_connect(e, p)) {
            ch->pass_us = e->now_us + GRPC_PASS_US; /* unless it fails */
            grpc_endpoint_connect(e, p);
        }
    }
    if (ch->pass_at < ch->n_endpoints) {
        return ch->pass_us;
    }
    uint64_t next_us = UINT64_MAX;
    for (uint32_t i = 0; i < ch->n_endpoints; i++) {
        struct grpc_endpoint *p = ch->endpoints[i];
        if (grpc_endpoint_may_connect(e, p)) {
            grpc_endpoint_connect(e, p);
        }
        uint64_t due_us = grpc_endpoint_due_us(p);
        if (p->n_connecting == 0 && due_us < next_us) {
            next_us = due_us;
        }
    }
    return next_us;
}

static uint64_t drive_endpoints(struct engine *e, struct grpc_channel *ch)
{
    uint64_t next_us = UINT64_MAX;
    for (uint32_t i = 0; i < ch->n_endpoints; i++) {
        struct grpc_endpoint *p = ch->endpoints[i];
        if (!grpc_endpoint_wants_link(p)) {
            continue;
        }
        if (grpc_endpoint_may_connect(e, p)) {
            grpc_endpoint_connect(e, p);
        }
        uint64_t due_us = grpc_endpoint_due_us(p);
        if (p->n_connecting == 0 && due_us < next_us) {
            next_us = due_us;
        }
    }
    return next_us;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

static void drive(struct engine *e, struct grpc_channel *ch)
{
    grpc_endpoints_collect(e, ch);
    uint64_t next_us = UINT64_MAX;
    if (!ch->shut && !e->ending) {
        next_us = grpc_names_drive(e, ch);
        if (is_pick_first(ch)) {
            next_us = earlier(next_us, drive_pass(e, ch));
        }
        next_us = earlier(next_us, drive_endpoints(e, ch));
    }
    if (ch->n_waiting > 0) {
        next_us = earlier(next_us, first_waiting(ch)->wait_us);
    }
    if (next_us == UINT64_MAX) {
        timer_clear(&e->timers, &ch->timer);
    } else {
        timer_set(&e->timers, &ch->timer, next_us);
    }
}

/* ---- the end of a step -------------------------------------------------------- */

void grpc_channel_pump_later(struct engine *e, struct grpc_channel *ch)
{
    ch->pump = true;
    e->pump = true;
}

static void pump(struct engine *e, struct grpc_channel *ch)
{
    ch->pump = false;
    if (ch->turned) {
        ch->turned = false;
        fail_impatient(e, ch);
    }
    serve_line(e, ch);
    drive(e, ch);
}

void grpc_channels_pump(struct engine *e)
{
    e->pump = false;
    for (size_t i = 0; i < e->config->n_upstreams; i++) {
        if (e->channels[i].pump) {
            pump(e, &e->channels[i]);
        }
    }
    grpc_credit_return(e);
}

void grpc_channel_timeout(struct engine *e, struct grpc_channel *ch)
{
    expire_line(e, ch);
    grpc_channel_pump_later(e, ch);
}

/* ---- begin and end ------------------------------------------------------------ */

bool grpc_channel_init(struct engine *e,
                       struct grpc_channel *ch,
                       const struct upstream_config *config)
{
    *ch = (struct grpc_channel){
        .config = config,
        .engine = e,
        .index = (uint32_t)(config - e->config->upstreams),
        .state = GRPC_CHANNEL_CONNECTING,
        .keepalive_us = config->grpc.keepalive_time_us,
    };
    ch->timer.kind = TIMER_GRPC_CHANNEL;
    list_init(&ch->leaving);
    list_init(&ch->waiting);
    list_init(&ch->closing);
    grpc_budget_init(&ch->budget, config->grpc.throttle_max_millitokens,
                     config->grpc.throttle_ratio_millitokens);
    ch->next = (uint32_t)rng_upto(&e->rng, UINT16_MAX); /* a random start */
    e->n_grpc_timers++;
    size_t labels = grpc_methods_shown(&config->grpc);
    ch->stats.methods =
        memory_take(e->memory, labels * sizeof(*ch->stats.methods));
    return engine_reserve_timer(e) && ch->stats.methods != NULL &&
           grpc_names_init(e, ch);
}

void grpc_channel_start(struct engine *e, struct grpc_channel *ch)
{
    grpc_endpoints_adopt(e, ch);
    pump(e, ch);
}

static void end_closing(struct engine *e, struct grpc_channel *ch)
{
    while (!list_empty(&ch->closing)) {
        grpc_link_end(e, CONTAINER_OF(ch->closing.next, struct grpc_link, node),
                      NULL, true);
    }
}

void grpc_channel_fini(struct engine *e, struct grpc_channel *ch)
{
    if (ch->engine == NULL) {
        return; /* it has never been one */
    }
    ch->shut = true;
    assert(ch->n_waiting == 0);
    if (ch->names != NULL) {
        grpc_endpoints_fini(e, ch);
    }
    grpc_names_fini(e, ch);
    end_closing(e, ch);
    timer_clear(&e->timers, &ch->timer);
    e->n_grpc_timers--;
    memory_give(e->memory, ch->stats.methods);
    *ch = (struct grpc_channel){ 0 };
}

static void shut_endpoint(struct engine *e, struct grpc_endpoint *p)
{
    while (!list_empty(&p->links)) {
        struct grpc_link *l =
            CONTAINER_OF(p->links.next, struct grpc_link, node);
        grpc_link_leave(e, l, H2_NO_ERROR, "shutting down");
    }
}

void grpc_channels_shut(struct engine *e)
{
    for (size_t i = 0; i < e->config->n_upstreams; i++) {
        struct grpc_channel *ch = &e->channels[i];
        if (ch->engine == NULL || ch->shut) {
            continue;
        }
        ch->shut = true;
        for (uint32_t k = 0; k < ch->n_endpoints; k++) {
            shut_endpoint(e, ch->endpoints[k]);
        }
        LIST_FOR_EACH (node, &ch->leaving) {
            shut_endpoint(e, CONTAINER_OF(node, struct grpc_endpoint,
                                          leaving_node));
        }
        grpc_channel_pump_later(e, ch);
    }
}

void grpc_channel_gauges(const struct grpc_channel *ch, struct grpc_stats *out)
{
    out->connections = 0;
    out->connecting = 0;
    for (uint32_t i = 0; i < ch->n_endpoints; i++) {
        out->connections += ch->endpoints[i]->n_usable;
        out->connecting += ch->endpoints[i]->n_connecting;
    }
    out->endpoints = ch->n_endpoints;
    out->endpoints_ready = ch->n_ready;
    out->calls_waiting = ch->n_waiting;
}
