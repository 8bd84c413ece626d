#include "proxy/core/node_state.h"

#include <assert.h>

#include "parser/keyslot.h"
#include "proxy/core/state.h"

static const char *role_of(const struct cluster *c, const struct endpoint *p)
{
    if (p->sentinel) {
        return "sentinel";
    }
    if (c->topology == NULL) {
        return "unknown"; /* nobody has asked */
    }
    return p->role == NODE_PRIMARY   ? "primary"
           : p->role == NODE_REPLICA ? "replica"
                                     : "unknown";
}

static void copy_node(const struct engine *e,
                      const struct endpoint *p,
                      struct node_state *out)
{
    *out = (struct node_state){
        .address = p->address,
        .role = role_of(p->cluster, p),
        .version = p->version,
        .n_slots = p->n_slots,
        .configured = p->seed || p->cluster->topology == NULL,
        .known = p->known,
        .online = p->online,
        .lag_known = p->lag_known,
        .lag_us = p->lag_us,
        .lanes_up = p->lanes_up,
        .lanes_connecting = p->lanes_connecting,
        .lanes_private = p->lanes_private,
        .in_flight = p->in_flight,
        .failures_total = p->failures_total,
        .latency_us = p->latency_us,
        .down_us = p->down_since_us == 0 ? 0 : e->now_us - p->down_since_us + 1,
    };
    memcpy(out->id, p->id, sizeof(out->id));
    static_assert(sizeof(out->zone) == sizeof(p->zone), "copied");
    memcpy(out->zone, p->zone, sizeof(out->zone));
    memcpy(out->last_error, p->last_error, sizeof(out->last_error));
}

static void copy_topology(const struct engine *e,
                          const struct cluster *c,
                          struct cluster_state *out)
{
    const struct topology *t = c->topology;
    out->epoch = t->epoch;
    out->changes = c->version;
    out->adopted = t->adopted_us != 0;
    out->age_us = out->adopted ? e->now_us - t->adopted_us : 0;
    out->failures = t->failures;
    if (c->slots != NULL) {
        out->slots_unserved =
            out->adopted ? c->endpoints[0]->n_slots : KEYSLOT_COUNT;
    }
    memcpy(out->last_error, t->last_error, sizeof(out->last_error));
}

void engine_cluster_state(const struct engine *e,
                          size_t i,
                          struct cluster_state *out)
{
    const struct cluster *c = &e->clusters[i];
    uint16_t *heads = NULL;
    out->n_nodes = 0;
    out->n_ranges = 0;
    if (c->topology != NULL) {
        copy_topology(e, c, out);
    }
    if (c->slots != NULL && out->adopted) {
        heads = memory_take(e->memory, c->n_endpoints * sizeof(*heads));
    }
    if (heads != NULL) {
        out->n_ranges =
            slot_ranges_list(c, out->ranges, out->ranges_max, heads);
    }
    for (uint32_t k = 0; k < c->n_endpoints && out->n_nodes < out->nodes_max;
         k++) {
        const struct endpoint *p = c->endpoints[k];
        if (p == NULL || p->limbo) {
            continue;
        }
        struct node_state *node = &out->nodes[out->n_nodes++];
        copy_node(e, p, node);
        node->first_range = heads == NULL ? 0 : heads[k];
    }
    memory_give(e->memory, heads);
}
