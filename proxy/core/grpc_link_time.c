/* The times of a link: is the peer still there, and is the link still wanted
 * (grpc.md §3.3, U6, U8, U10, FL8). */
#include <stdio.h>

#include "proxy/core/grpc_endpoint.h"
#include "proxy/core/state.h"

void grpc_link_wake_at(struct engine *e, struct grpc_link *l, uint64_t at_us)
{
    if (at_us == UINT64_MAX) {
        return;
    }
    if (l->timer.place == TIMER_OFF || l->timer.at_us > at_us) {
        timer_set(&e->timers, &l->timer, at_us);
    }
}

static const struct grpc_config *config_of(const struct grpc_link *l)
{
    return &l->channel->config->grpc;
}

static uint64_t earlier(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

/* a + b, or never. */
static uint64_t later_by(uint64_t a_us, uint64_t b_us)
{
    return a_us > UINT64_MAX - b_us ? UINT64_MAX : a_us + b_us;
}

/* A PING is due, or its answer (K1). */
static uint64_t keepalive_due(const struct grpc_link *l)
{
    if (l->pinged_us != 0) {
        return l->pinged_us + config_of(l)->keepalive_timeout_us;
    }
    bool wanted =
        l->n_streams > 0 || config_of(l)->keepalive_permit_without_calls;
    return wanted && l->ready_us != 0 ? later_by(l->read_us, l->keepalive_us)
                                      : UINT64_MAX;
}

static uint64_t probe_due(const struct grpc_link *l)
{
    return l->probed_us != 0
               ? l->probed_us + config_of(l)->idle_probe_timeout_us
               : UINT64_MAX;
}

static uint64_t settings_due(const struct grpc_link *l)
{
    return l->settings_us != 0 ? l->settings_us + GRPC_SETTINGS_US : UINT64_MAX;
}

static uint64_t stall_due(const struct grpc_link *l)
{
    return grpc_output_waiting(&l->output, &l->conn) > 0
               ? l->output.progress_us + GRPC_STALL_US
               : UINT64_MAX;
}

/* READY, and nobody needs it, or nobody should (U8, U10). */
static uint64_t idle_due(const struct grpc_link *l)
{
    bool may_end = l->state == GRPC_LINK_READY && l->n_streams == 0 &&
                   !config_of(l)->keepalive_permit_without_calls;
    return may_end ? l->idle_us + GRPC_IDLE_US : UINT64_MAX;
}

static uint64_t age_due(const struct grpc_link *l)
{
    return l->state == GRPC_LINK_READY && !l->retiring ? l->age_us : UINT64_MAX;
}

void grpc_link_schedule(struct engine *e, struct grpc_link *l)
{
    uint64_t at_us = UINT64_MAX;
    if (l->state == GRPC_LINK_CONNECTING) {
        at_us = l->connect_deadline_us;
    } else if (l->state == GRPC_LINK_DRAINING) {
        at_us = l->drain_us;
    }
    if (l->h2 != NULL) {
        at_us = earlier(at_us, settings_due(l));
        at_us = earlier(at_us, keepalive_due(l));
        at_us = earlier(at_us, probe_due(l));
        at_us = earlier(at_us, stall_due(l));
        at_us = earlier(at_us, idle_due(l));
        at_us = earlier(at_us, age_due(l));
    }
    grpc_link_wake_at(e, l, at_us);
}

void grpc_link_retire(struct engine *e, struct grpc_link *l)
{
    l->retiring = true;
    grpc_endpoint_count(l->endpoint);
    grpc_channel_pump_later(e, l->channel); /* open another one */
}

/* ---- PINGs -------------------------------------------------------------------- */

static void send_ping(struct engine *e, struct grpc_link *l)
{
    h2_ping(l->h2, ++l->ping_number);
    grpc_touch(e, &l->conn);
}

static void keepalive(struct engine *e, struct grpc_link *l)
{
    if (l->probed_us != 0) {
        l->pinged_us = l->probed_us; /* one PING serves both */
    } else {
        l->pinged_us = e->now_us;
        send_ping(e, l);
    }
}

static void probe(struct engine *e, struct grpc_link *l)
{
    l->channel->stats.probes++;
    l->channel->n_probing++;
    l->probed_us = e->now_us;
    if (l->pinged_us == 0) { /* else its answer tells as much */
        send_ping(e, l);
    }
    grpc_link_wake_at(e, l, probe_due(l));
}

/* Whether the call would be tried again if the link turned out to be dead
 * after it went out (F3). */
static bool may_be_lost(const struct engine *e, const struct grpc_call *call)
{
    struct grpc_ended ended = {
        .class = GRPC_F3_AMBIGUOUS,
        .status = GRPC_UNAVAILABLE,
        .committed = call->committed,
        .log_intact = call->log.base == 0,
        .single = call->half_closed && grpc_messages_single(&call->asked),
        .now_us = e->now_us,
        .deadline_us = call->deadline_us,
    };
    struct grpc_attempts attempts = call->attempts;
    struct grpc_budget budget = call->channel->budget;
    struct rng rng = e->rng;
    return grpc_decide(&call->channel->config->grpc, &call->method, &ended,
                       &attempts, &budget, &rng)
               .step != GRPC_FINISH;
}

bool grpc_link_admits(struct engine *e,
                      struct grpc_link *l,
                      const struct grpc_call *call)
{
    uint64_t quiet_us = e->now_us - l->read_us;
    uint64_t probe_us = config_of(l)->idle_probe_us;
    if (l->probed_us == 0 && probe_us != 0 && quiet_us >= probe_us) {
        probe(e, l);
    }
    if (l->pinged_us == 0 && quiet_us >= l->keepalive_us) {
        keepalive(e, l); /* K2 */
        grpc_link_schedule(e, l);
    }
    return l->probed_us == 0 || may_be_lost(e, call);
}

/* ---- the timer ---------------------------------------------------------------- */

static void no_pong(struct engine *e, struct grpc_link *l, uint64_t in_us)
{
    char text[GRPC_DURATION_TEXT], why[64];
    grpc_duration_format(in_us, text);
    snprintf(why, sizeof(why), "no reply to PING in %s", text);
    grpc_link_lost(e, l, GRPC_DISCONNECT_TIMED_OUT, why, true);
}

/* Calls that went out before the probe wait for an answer still. */
static bool has_older_calls(const struct grpc_link *l)
{
    LIST_FOR_EACH (node, &l->calls) {
        const struct grpc_call *call =
            CONTAINER_OF(node, struct grpc_call, place);
        if (call->attempt_us < l->probed_us) {
            return true;
        }
    }
    return false;
}

/* K5. Returns whether the link has ended. */
static bool probe_failed(struct engine *e, struct grpc_link *l)
{
    l->channel->stats.probes_failed++;
    if (!has_older_calls(l)) {
        no_pong(e, l, config_of(l)->idle_probe_timeout_us);
        return true;
    }
    l->suspect = true; /* K1 judges it; new calls take another one */
    l->probed_us = 0;
    l->channel->n_probing--;
    l->channel->wanted = true;
    engine_trace(e, &(struct trace_record){
                        .type = TRACE_LANE,
                        .upstream = l->channel->config->name,
                        .address = &l->address,
                        .lane = l->conn.id,
                        .from = "ready",
                        .to = "suspect",
                        .reason = "no reply to a probe, and calls wait" });
    grpc_endpoint_count(l->endpoint);
    grpc_channel_changed(e, l->channel);
    return false;
}

/* The peer is gone, or does not do what it must. Returns whether the link has
 * ended. */
static bool check_peer(struct engine *e, struct grpc_link *l)
{
    if (e->now_us >= settings_due(l)) {
        h2_terminate(l->h2, H2_SETTINGS_TIMEOUT, "");
        grpc_link_give_up(e, l, GRPC_DISCONNECT_TIMED_OUT,
                          "no answer to SETTINGS in 10s");
        return true;
    }
    if (e->now_us >= keepalive_due(l)) {
        if (l->pinged_us != 0) {
            l->channel->stats.keepalive_timeouts++;
            no_pong(e, l, config_of(l)->keepalive_timeout_us);
            return true;
        }
        keepalive(e, l);
    }
    if (e->now_us >= probe_due(l) && probe_failed(e, l)) {
        return true;
    }
    if (e->now_us >= stall_due(l)) {
        grpc_link_lost(e, l, GRPC_DISCONNECT_TIMED_OUT,
                       "output stalled for 20s", true);
        return true;
    }
    return false;
}

/* Nobody needs the link any more. Returns whether it has ended. */
static bool check_need(struct engine *e, struct grpc_link *l)
{
    if (l->state == GRPC_LINK_DRAINING && l->n_streams == 0) {
        grpc_link_leave(e, l, H2_NO_ERROR, "its last call has ended");
        return true;
    }
    if (l->state == GRPC_LINK_DRAINING && e->now_us >= l->drain_us) {
        l->channel->stats.connections_lost++;
        grpc_link_leave(e, l, H2_NO_ERROR, "drain_timeout has passed");
        return true;
    }
    if (l->suspect && l->n_streams == 0) {
        grpc_link_lost(e, l, GRPC_DISCONNECT_TIMED_OUT, "no reply to PING",
                       true);
        return true;
    }
    if (e->now_us >= idle_due(l)) {
        grpc_endpoint_rest(l->endpoint, true);
        grpc_link_leave(e, l, H2_NO_ERROR, "no calls for 30 minutes");
        return true;
    }
    if (e->now_us >= age_due(l)) {
        grpc_link_retire(e, l);
    }
    return false;
}

void grpc_link_timeout(struct engine *e, struct grpc_link *l)
{
    if (l->state == GRPC_LINK_RESOLVING) {
        grpc_name_timeout(e, l);
        return;
    }
    if (l->state == GRPC_LINK_CLOSED) {
        grpc_link_end(e, l, NULL, true);
        return;
    }
    if (check_need(e, l)) {
        return;
    }
    if (l->doom != NULL) {
        grpc_link_give_up(e, l, GRPC_DISCONNECT_UNKNOWN, l->doom);
        return;
    }
    if (l->state == GRPC_LINK_CONNECTING &&
        e->now_us >= l->connect_deadline_us) {
        grpc_link_lost(e, l, GRPC_DISCONNECT_TIMED_OUT,
                       l->h2 == NULL ? "connection timed out"
                                     : "no SETTINGS in connect_timeout (is the "
                                       "server hung?)",
                       true);
        return;
    }
    if (l->h2 != NULL && check_peer(e, l)) {
        return;
    }
    grpc_link_schedule(e, l);
}
