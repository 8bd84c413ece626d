#include "proxy/io/node_report.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "parser/keyslot.h"
#include "proxy/io/json.h"

enum {
    ESCAPED_MAX = 1024
};

/* ---- room, and sums ------------------------------------------------------- */

struct cluster_state *node_report_new(const struct config *config)
{
    size_t n = config->n_upstreams;
    struct cluster_state *states = calloc(n + 1, sizeof(*states));
    for (size_t i = 0; states != NULL && i < n; i++) {
        struct cluster_state *s = &states[i];
        enum upstream_type type = config->upstreams[i].type;
        s->nodes_max = type == UPSTREAM_STANDALONE || type == UPSTREAM_GRPC
                           ? 1
                           : CLUSTER_ENDPOINTS_MAX;
        s->ranges_max = type == UPSTREAM_CLUSTER ? KEYSLOT_COUNT : 0;
        s->nodes = calloc(s->nodes_max, sizeof(*s->nodes));
        s->ranges = calloc((size_t)s->ranges_max + 1, sizeof(*s->ranges));
        if (s->nodes == NULL || s->ranges == NULL) {
            node_report_free(config, states);
            return NULL;
        }
    }
    return states;
}

void node_report_free(const struct config *config, struct cluster_state *states)
{
    for (size_t i = 0; states != NULL && i < config->n_upstreams; i++) {
        free(states[i].nodes);
        free(states[i].ranges);
    }
    free(states);
}

static bool same_address(const struct address *a, const struct address *b)
{
    return a->port == b->port && strcmp(a->host, b->host) == 0;
}

/* Workers mostly know the same nodes in the same order: guess is looked at
 * first. */
static const struct node_state *find(const struct cluster_state *s,
                                     const struct address *address,
                                     uint32_t guess)
{
    for (uint32_t i = 0; i < s->n_nodes; i++) {
        const struct node_state *node = &s->nodes[(guess + i) % s->n_nodes];
        if (same_address(&node->address, address)) {
            return node;
        }
    }
    return NULL;
}

static void add_node(struct node_state *sum, const struct node_state *one)
{
    sum->lanes_up += one->lanes_up;
    sum->lanes_connecting += one->lanes_connecting;
    sum->lanes_private += one->lanes_private;
    sum->in_flight += one->in_flight;
    sum->failures_total += one->failures_total;
}

void node_report_add(struct cluster_state *sum,
                     const struct cluster_state *one,
                     size_t n_upstreams)
{
    for (size_t i = 0; i < n_upstreams; i++) {
        for (uint32_t k = 0; k < sum[i].n_nodes; k++) {
            struct node_state *to = &sum[i].nodes[k];
            const struct node_state *from = find(&one[i], &to->address, k);
            if (from != NULL) {
                add_node(to, from);
            }
        }
    }
}

/* ---- JSON ------------------------------------------------------------------ */

static void add_slots(struct text *out,
                      const struct cluster_state *s,
                      const struct node_state *node)
{
    text_addf(out, "\"slots\":[");
    for (uint32_t k = node->first_range; k != 0; k = s->ranges[k - 1].next) {
        const struct slot_range *range = &s->ranges[k - 1];
        text_addf(out, range->first == range->last ? "%s\"%u\"" : "%s\"%u-%u\"",
                  k == node->first_range ? "" : ",", range->first, range->last);
    }
    text_addf(out, "]");
}

static void add_json_node(struct text *out,
                          const struct cluster_state *s,
                          const struct node_state *node,
                          bool cluster)
{
    char address[ADDRESS_TEXT_MAX], version[32] = "";
    address_format(&node->address, address);
    if (node->version != 0) {
        (void)snprintf(version, sizeof(version), "%u.%u.%u",
                       node->version / 10000, node->version / 100 % 100,
                       node->version % 100);
    }
    text_addf(out, "{");
    json_string(out, "address", address);
    text_addf(out, ",");
    json_words(out, "id", node->id);
    text_addf(out, ",\"role\":\"%s\",\"known\":%s,\"online\":%s,\"seed\":%s,",
              node->role, node->known ? "true" : "false",
              node->online ? "true" : "false",
              node->configured ? "true" : "false");
    json_words(out, "zone", node->zone);
    text_addf(out, ",");
    json_words(out, "server_version", version);
    if (cluster) {
        text_addf(out, ",");
        add_slots(out, s, node);
    }
    text_addf(out,
              ",\"lanes\":{\"up\":%" PRIu64 ",\"connecting\":%" PRIu64
              ",\"private\":%" PRIu64 "},\"requests_in_flight\":%" PRIu64 ",",
              node->lanes_up, node->lanes_connecting, node->lanes_private,
              node->in_flight);
    json_seconds(out, "latency_seconds", node->latency_us != 0,
                 node->latency_us);
    text_addf(out, ",");
    json_seconds(out, "lag_seconds", node->lag_known, node->lag_us);
    text_addf(out, ",");
    json_seconds(out, "down_seconds", node->down_us != 0, node->down_us);
    text_addf(out, ",\"failures\":%" PRIu64 ",", node->failures_total);
    json_words(out, "last_error", node->last_error);
    text_addf(out, "}");
}

static const char *type_name(enum upstream_type type)
{
    switch (type) {
    case UPSTREAM_STANDALONE: return "standalone";
    case UPSTREAM_CLUSTER: return "cluster";
    case UPSTREAM_SENTINEL: return "sentinel";
    case UPSTREAM_GRPC: return "grpc";
    }
    return "";
}

static void add_json_upstream(struct text *out,
                              const struct upstream_config *config,
                              const struct cluster_state *s)
{
    bool cluster = config->type == UPSTREAM_CLUSTER;
    text_addf(out, "{");
    json_string(out, "name", config->name);
    text_addf(out, ",\"type\":\"%s\"", type_name(config->type));
    if (config->type != UPSTREAM_STANDALONE) {
        text_addf(out, ",\"epoch\":%" PRIu64 ",\"changes\":%" PRIu64 ",",
                  s->epoch, s->changes);
        json_seconds(out, "age_seconds", s->adopted, s->age_us);
        text_addf(out, ",\"failures\":%" PRIu32 ",", s->failures);
        json_words(out, "last_error", s->last_error);
    }
    if (cluster) {
        text_addf(out, ",\"slots_unserved\":%" PRIu32, s->slots_unserved);
    }
    text_addf(out, ",\"nodes\":[");
    for (uint32_t i = 0; i < s->n_nodes; i++) {
        text_addf(out, i == 0 ? "\n  " : ",\n  ");
        add_json_node(out, s, &s->nodes[i], cluster);
    }
    text_addf(out, "]}");
}

void node_report_json(const struct config *config,
                      const struct cluster_state *states,
                      uint64_t workers,
                      struct text *out)
{
    bool first = true;
    text_addf(out, "{\"workers\":%" PRIu64 ",\"upstreams\":[", workers);
    for (size_t i = 0; i < config->n_upstreams; i++) {
        if (config->upstreams[i].type != UPSTREAM_GRPC) { /* see /channels */
            text_addf(out, first ? "\n " : ",\n ");
            add_json_upstream(out, &config->upstreams[i], &states[i]);
            first = false;
        }
    }
    text_addf(out, "\n]}\n");
}

/* ---- metrics ---------------------------------------------------------------- */

enum node_metric {
    NODE_UP,
    NODE_LANES_UP,
    NODE_IN_FLIGHT,
    NODE_IS_PRIMARY,
    NODE_SLOTS,
    NODE_LATENCY,
    NODE_FAILURES,
    NODE_METRIC_COUNT
};

static const struct {
    const char *name;
    const char *help;
    const char *type;
} metrics[] = {
    [NODE_UP] = { "node_up", "Whether a connection to the server is up",
                  "gauge" },
    [NODE_LANES_UP] = { "node_lanes_up", "Connections to the server in use",
                        "gauge" },
    [NODE_IN_FLIGHT] = { "node_requests_in_flight",
                         "Requests sent to the server and not yet answered",
                         "gauge" },
    [NODE_IS_PRIMARY] = { "node_primary",
                          "Whether the server is known to be a primary",
                          "gauge" },
    [NODE_SLOTS] = { "node_slots", "Slots of the cluster that it serves",
                     "gauge" },
    [NODE_LATENCY] = { "node_latency_seconds",
                       "Time to answer redial's own questions, smoothed",
                       "gauge" },
    [NODE_FAILURES] = { "node_failures_total",
                        "Connections to the server that failed or were lost",
                        "counter" },
};

static uint64_t value_of(const struct node_state *node, enum node_metric metric)
{
    switch (metric) {
    case NODE_UP: return node->lanes_up > 0;
    case NODE_LANES_UP: return node->lanes_up;
    case NODE_IN_FLIGHT: return node->in_flight;
    case NODE_IS_PRIMARY: return strcmp(node->role, "primary") == 0;
    case NODE_SLOTS: return node->n_slots;
    case NODE_LATENCY: return node->latency_us;
    case NODE_FAILURES: return node->failures_total;
    case NODE_METRIC_COUNT: break;
    }
    return 0;
}

static void add_sample(struct text *out,
                       enum node_metric metric,
                       const char *upstream,
                       const char *node,
                       uint64_t value)
{
    text_addf(out, "redial_%s{upstream=\"%s\",node=\"%s\"} ",
              metrics[metric].name, upstream, node);
    if (metric == NODE_LATENCY) {
        text_addf(out, "%.6f\n", (double)value / 1e6);
    } else {
        text_addf(out, "%" PRIu64 "\n", value);
    }
}

/* One label for each node, and one for all that are too many: their sum, or
 * the longest time. */
static void add_samples(struct text *out,
                        enum node_metric metric,
                        const struct upstream_config *config,
                        const struct cluster_state *s)
{
    char upstream[ESCAPED_MAX], node[ESCAPED_MAX], address[ADDRESS_TEXT_MAX];
    uint64_t others = 0;
    (void)text_escape(upstream, sizeof(upstream), config->name, false);
    for (uint32_t i = 0; i < s->n_nodes; i++) {
        uint64_t value = value_of(&s->nodes[i], metric);
        if (i < NODES_LABELLED_MAX) {
            address_format(&s->nodes[i].address, address);
            (void)text_escape(node, sizeof(node), address, false);
            add_sample(out, metric, upstream, node, value);
        } else if (metric != NODE_LATENCY) {
            others += value;
        } else if (value > others) {
            others = value;
        }
    }
    if (s->n_nodes > NODES_LABELLED_MAX) {
        add_sample(out, metric, upstream, "other", others);
    }
}

/* A server that nobody has asked for its role has none to show, nor slots.
 * Endpoints of gRPC have metrics of their own. */
static bool applies(enum node_metric metric, enum upstream_type type)
{
    return type != UPSTREAM_GRPC &&
           (metric != NODE_SLOTS || type == UPSTREAM_CLUSTER) &&
           (metric != NODE_IS_PRIMARY || type != UPSTREAM_STANDALONE);
}

void node_report_metrics(const struct config *config,
                         const struct cluster_state *states,
                         struct text *out)
{
    for (enum node_metric m = 0; m < NODE_METRIC_COUNT; m++) {
        text_addf(out, "# HELP redial_%s %s\n# TYPE redial_%s %s\n",
                  metrics[m].name, metrics[m].help, metrics[m].name,
                  metrics[m].type);
        for (size_t i = 0; i < config->n_upstreams; i++) {
            if (applies(m, config->upstreams[i].type)) {
                add_samples(out, m, &config->upstreams[i], &states[i]);
            }
        }
    }
}
