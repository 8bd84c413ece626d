/* What the shell is told of gRPC upstreams. */
#include <assert.h>

#include "proxy/core/channel_state.h"
#include "proxy/core/grpc_endpoint.h"
#include "proxy/core/state.h"

/* ---- numbers -------------------------------------------------------------- */

/* Most statuses never happen, and their pages are not even there: they are
 * looked at only where something has been counted. */
static void copy_ended(const struct grpc_ended_stats *from,
                       struct grpc_ended_stats *to)
{
    for (unsigned i = 0; i < GRPC_STATUS_COUNT; i++) {
        if (from[i].duration.count != 0 || to[i].duration.count != 0) {
            to[i] = from[i];
        }
    }
}

static void copy_method(const struct grpc_method_stats *from,
                        struct grpc_method_stats *to)
{
    if (from->calls_started == 0 && to->calls_started == 0) {
        return;
    }
    to->calls_started = from->calls_started;
    to->attempts_started = from->attempts_started;
    to->retries = from->retries;
    to->transparent_retries = from->transparent_retries;
    to->retry_delay = from->retry_delay;
    copy_ended(from->calls, to->calls);
    copy_ended(from->attempts, to->attempts);
}

/* NULL: the upstream is not one of gRPC. Without any there is no table. */
static const struct grpc_channel *channel_at(const struct engine *e, size_t i)
{
    if (e->channels == NULL || e->channels[i].config == NULL) {
        return NULL;
    }
    return &e->channels[i];
}

void engine_grpc_stats(const struct engine *e,
                       size_t upstream,
                       struct grpc_stats *out)
{
    const struct grpc_channel *ch = channel_at(e, upstream);
    if (ch == NULL) {
        return;
    }
    struct grpc_method_stats *methods = out->methods;
    *out = ch->stats;
    out->methods = methods;
    grpc_channel_gauges(ch, out);
    out->budget_tokens = ch->budget.max == 0 ? 0 : ch->budget.tokens;
    out->retries_active = ch->budget.retries;
    out->calls_active = ch->budget.calls;
    out->log_bytes = e->grpc.log_bytes;
    out->memory_bytes = e->grpc.bytes;
    if (methods == NULL) {
        return;
    }
    size_t shown = grpc_methods_shown(&ch->config->grpc);
    for (size_t i = 0; i < shown; i++) {
        copy_method(&ch->stats.methods[i], &methods[i]);
    }
}

/* With pick_first, and after a long rest, connections are opened when a call
 * comes (U8). To say "not ready" until then would keep the calls away. */
bool grpc_channel_serves(const struct grpc_channel *ch)
{
    if (ch->n_ready > 0) {
        return true;
    }
    if (ch->state != GRPC_CHANNEL_CONNECTING || ch->n_waiting > 0) {
        return false;
    }
    for (uint32_t i = 0; i < ch->n_endpoints; i++) {
        const struct grpc_endpoint *p = ch->endpoints[i];
        if (p->n_connecting > 0 || p->failures > 0) {
            return false;
        }
    }
    return ch->n_endpoints > 0;
}

/* ---- endpoints ------------------------------------------------------------ */

static void add_link(const struct engine *e,
                     const struct grpc_link *l,
                     struct channel_endpoint *out)
{
    switch ((enum grpc_link_state)l->state) {
    case GRPC_LINK_CONNECTING: out->links_connecting++; break;
    case GRPC_LINK_READY:
        out->links_ready++;
        out->stream_limit = h2_peer_max_streams(l->h2);
        if (e->now_us - l->ready_us > out->age_us) {
            out->age_us = e->now_us - l->ready_us;
        }
        break;
    case GRPC_LINK_DRAINING: out->links_draining++; break;
    case GRPC_LINK_RESOLVING:
    case GRPC_LINK_CLOSED:
    case GRPC_LINK_STATE_COUNT: break;
    }
    out->streams += l->n_streams;
}

static const char *state_of(const struct grpc_endpoint *p, uint64_t backoff_us)
{
    if (p->n_usable > 0) {
        return "ready";
    }
    if (p->n_connecting > 0) {
        return "connecting";
    }
    return p->failures > 0 && backoff_us > 0 ? "backoff" : "idle";
}

static void copy_endpoint(const struct engine *e,
                          const struct grpc_endpoint *p,
                          struct channel_state *out)
{
    if (out->n_endpoints == out->endpoints_max) {
        out->n_left_out++;
        return;
    }
    struct channel_endpoint *to = &out->endpoints[out->n_endpoints++];
    *to = (struct channel_endpoint){
        .address = p->address,
        .leaving = p->leaving,
        .failures = p->failures,
    };
    if (p->failures > 0 && p->retry_us > e->now_us) {
        to->backoff_us = p->retry_us - e->now_us;
    }
    static_assert(sizeof(to->last_error) >= sizeof(p->last_error), "copied");
    memcpy(to->last_error, p->last_error, sizeof(p->last_error));
    LIST_FOR_EACH (node, &p->links) {
        add_link(e, CONTAINER_OF(node, struct grpc_link, node), to);
    }
    to->state = state_of(p, to->backoff_us);
}

static const char *channel_state_name(enum grpc_channel_state s)
{
    switch (s) {
    case GRPC_CHANNEL_READY: return "ready";
    case GRPC_CHANNEL_CONNECTING: return "connecting";
    case GRPC_CHANNEL_FAILING: return "failing";
    }
    return NULL;
}

void engine_channel_state(const struct engine *e,
                          size_t upstream,
                          struct channel_state *out)
{
    static_assert((int)CHANNEL_ENDPOINTS_MAX >= (int)GRPC_ENDPOINTS_MAX,
                  "all of the names can be shown");
    const struct grpc_channel *ch = channel_at(e, upstream);
    out->n_endpoints = 0;
    out->n_left_out = 0;
    if (ch == NULL) {
        return;
    }
    out->state = channel_state_name((enum grpc_channel_state)ch->state);
    out->calls = ch->budget.calls;
    out->waiting = ch->n_waiting;
    out->retries = ch->budget.retries;
    out->tokens = ch->budget.tokens;
    out->tokens_max = ch->budget.max;
    static_assert(sizeof(out->last_error) == sizeof(ch->last_error), "copied");
    memcpy(out->last_error, ch->last_error, sizeof(out->last_error));
    for (uint32_t i = 0; i < ch->n_endpoints; i++) {
        copy_endpoint(e, ch->endpoints[i], out);
    }
    LIST_FOR_EACH (node, &ch->leaving) {
        copy_endpoint(e, CONTAINER_OF(node, struct grpc_endpoint, leaving_node),
                      out);
    }
}
