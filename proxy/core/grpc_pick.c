/* Which link a call goes out on (grpc.md Y2, U9, D2). */
#include "proxy/core/grpc_endpoint.h"
#include "proxy/core/state.h"

/* The link of p with the fewest streams that has room for one more; one that
 * retires only if there is no other. */
static struct grpc_link *best_link(const struct grpc_endpoint *p, bool *full)
{
    struct grpc_link *best = NULL;
    *full = true;
    LIST_FOR_EACH (node, &p->links) {
        struct grpc_link *l = CONTAINER_OF(node, struct grpc_link, node);
        if (l->state != GRPC_LINK_READY || l->suspect || l->doom != NULL ||
            grpc_link_room(l) == 0) {
            continue;
        }
        *full = false;
        if (l->output.blocked) {
            continue; /* what waits would be sent too late (L3) */
        }
        bool better =
            best == NULL || (best->retiring && !l->retiring) ||
            (best->retiring == l->retiring && l->n_streams < best->n_streams);
        best = better ? l : best;
    }
    return best;
}

static struct grpc_link *offer(struct engine *e,
                               struct grpc_endpoint *p,
                               const struct grpc_call *call)
{
    bool full;
    struct grpc_link *l = best_link(p, &full);
    if (full && p->n_usable > 0 && !p->crowded) {
        p->crowded = true;
        if (grpc_endpoint_wants_link(p)) {
            grpc_channel_pump_later(e, p->channel);
        }
    }
    return l != NULL && grpc_link_admits(e, l, call) ? l : NULL;
}

/* The READY endpoints in turn from start on; the one on which the call has
 * failed comes last. Returns NULL, or a link; *at is then its place. */
static struct grpc_link *in_turn(struct engine *e,
                                 struct grpc_channel *ch,
                                 const struct grpc_call *call,
                                 uint32_t start,
                                 uint32_t *at)
{
    uint32_t n = ch->n_ready, shunned = UINT32_MAX;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t k = (start + i) % n;
        if (n > 1 && ch->ready[k]->number == call->last_endpoint) {
            shunned = k;
            continue;
        }
        struct grpc_link *l = offer(e, ch->ready[k], call);
        if (l != NULL) {
            *at = k;
            return l;
        }
    }
    if (shunned == UINT32_MAX) {
        return NULL;
    }
    *at = shunned;
    return offer(e, ch->ready[shunned], call);
}

static struct grpc_link *round_robin(struct engine *e,
                                     struct grpc_channel *ch,
                                     const struct grpc_call *call)
{
    uint32_t at;
    struct grpc_link *l = in_turn(e, ch, call, ch->next % ch->n_ready, &at);
    if (l != NULL) {
        ch->next = at + 1;
    }
    return l;
}

static struct grpc_link *least_request(struct engine *e,
                                       struct grpc_channel *ch,
                                       const struct grpc_call *call)
{
    uint32_t n = ch->n_ready, best = UINT32_MAX;
    for (uint32_t i = 0; i < ch->config->grpc.lb_choices; i++) {
        uint32_t k = (uint32_t)rng_upto(&e->rng, n - 1);
        if (n > 1 && ch->ready[k]->number == call->last_endpoint) {
            k = (k + 1) % n;
        }
        if (best == UINT32_MAX ||
            ch->ready[k]->n_streams < ch->ready[best]->n_streams) {
            best = k;
        }
    }
    struct grpc_link *l = offer(e, ch->ready[best], call);
    uint32_t at;
    return l != NULL ? l : in_turn(e, ch, call, (best + 1) % n, &at);
}

struct grpc_link *grpc_pick(struct engine *e,
                            struct grpc_channel *ch,
                            struct grpc_call *call)
{
    if (ch->n_ready == 0) {
        return NULL;
    }
    switch (ch->config->grpc.lb) {
    case GRPC_PICK_FIRST: return offer(e, ch->chosen, call);
    case GRPC_ROUND_ROBIN: return round_robin(e, ch, call);
    case GRPC_LEAST_REQUEST: return least_request(e, ch, call);
    }
    return NULL;
}
