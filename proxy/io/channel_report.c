#include "proxy/io/channel_report.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "proxy/io/json.h"

/* ---- room, and sums ------------------------------------------------------- */

struct channel_state *channel_report_new(const struct config *config)
{
    size_t n = config->n_upstreams;
    struct channel_state *states = calloc(n + 1, sizeof(*states));
    for (size_t i = 0; states != NULL && i < n; i++) {
        if (config->upstreams[i].type != UPSTREAM_GRPC) {
            continue;
        }
        struct channel_state *s = &states[i];
        s->state = "connecting";
        s->endpoints_max = CHANNEL_ENDPOINTS_MAX;
        s->endpoints = calloc(s->endpoints_max, sizeof(*s->endpoints));
        if (s->endpoints == NULL) {
            channel_report_free(config, states);
            return NULL;
        }
    }
    return states;
}

void channel_report_free(const struct config *config,
                         struct channel_state *states)
{
    for (size_t i = 0; states != NULL && i < config->n_upstreams; i++) {
        free(states[i].endpoints);
    }
    free(states);
}

static bool same_address(const struct address *a, const struct address *b)
{
    return a->port == b->port && strcmp(a->host, b->host) == 0;
}

/* Workers mostly know the same endpoints in the same order: guess is looked at
 * first. */
static const struct channel_endpoint *find(const struct channel_state *s,
                                           const struct address *address,
                                           uint32_t guess)
{
    for (uint32_t i = 0; i < s->n_endpoints; i++) {
        const struct channel_endpoint *p =
            &s->endpoints[(guess + i) % s->n_endpoints];
        if (same_address(&p->address, address)) {
            return p;
        }
    }
    return NULL;
}

static void add_endpoint(struct channel_endpoint *sum,
                         const struct channel_endpoint *one)
{
    sum->links_ready += one->links_ready;
    sum->links_connecting += one->links_connecting;
    sum->links_draining += one->links_draining;
    sum->streams += one->streams;
}

void channel_report_add(struct channel_state *sum,
                        const struct channel_state *one,
                        size_t n_upstreams)
{
    for (size_t i = 0; i < n_upstreams; i++) {
        sum[i].calls += one[i].calls;
        sum[i].waiting += one[i].waiting;
        sum[i].retries += one[i].retries;
        sum[i].tokens += one[i].tokens;
        sum[i].tokens_max += one[i].tokens_max;
        for (uint32_t k = 0; k < sum[i].n_endpoints; k++) {
            struct channel_endpoint *to = &sum[i].endpoints[k];
            const struct channel_endpoint *from =
                find(&one[i], &to->address, k);
            if (from != NULL) {
                add_endpoint(to, from);
            }
        }
    }
}

/* ---- JSON ----------------------------------------------------------------- */

static void add_json_endpoint(struct text *out,
                              const struct channel_endpoint *p)
{
    char address[ADDRESS_TEXT_MAX];
    address_format(&p->address, address);
    text_addf(out, "{");
    json_string(out, "address", address);
    text_addf(
        out,
        ",\"state\":\"%s\",\"leaving\":%s,\"connections\":{\"ready\":%" PRIu64
        ",\"connecting\":%" PRIu64 ",\"draining\":%" PRIu64
        "},\"streams\":%" PRIu64 ",",
        p->state, p->leaving ? "true" : "false", p->links_ready,
        p->links_connecting, p->links_draining, p->streams);
    if (p->stream_limit == 0 || p->stream_limit >= UINT32_MAX) {
        text_addf(out, "\"stream_limit\":null,");
    } else {
        text_addf(out, "\"stream_limit\":%" PRIu64 ",", p->stream_limit);
    }
    json_seconds(out, "age_seconds", p->links_ready != 0, p->age_us);
    text_addf(out, ",\"failures\":%" PRIu64 ",", p->failures);
    json_seconds(out, "backoff_seconds", p->backoff_us != 0, p->backoff_us);
    text_addf(out, ",");
    json_words(out, "last_error", p->last_error);
    text_addf(out, "}");
}

static const char *balancer_name(enum grpc_lb lb)
{
    switch (lb) {
    case GRPC_PICK_FIRST: return "pick_first";
    case GRPC_ROUND_ROBIN: return "round_robin";
    case GRPC_LEAST_REQUEST: return "least_request";
    }
    return "";
}

/* Thousandths of a token; with more than half of them retries are allowed. */
static void add_throttle(struct text *out, const struct channel_state *s)
{
    if (s->tokens_max == 0) {
        text_addf(out, "\"throttle\":null,");
    } else {
        text_addf(out,
                  "\"throttle\":{\"tokens\":%" PRIu64 ".%03u,\"max\":%" PRIu64
                  ".%03u,\"closed\":%s},",
                  s->tokens / 1000, (unsigned)(s->tokens % 1000),
                  s->tokens_max / 1000, (unsigned)(s->tokens_max % 1000),
                  s->tokens > s->tokens_max / 2 ? "false" : "true");
    }
}

static void add_json_channel(struct text *out,
                             const struct upstream_config *config,
                             const struct channel_state *s)
{
    text_addf(out, "{");
    json_string(out, "name", config->name);
    text_addf(out,
              ",\"state\":\"%s\",\"lb\":\"%s\",\"calls\":{\"active\":%" PRIu64
              ",\"waiting\":%" PRIu64 ",\"retrying\":%" PRIu64 "},",
              s->state, balancer_name(config->grpc.lb), s->calls, s->waiting,
              s->retries);
    add_throttle(out, s);
    json_words(out, "last_error", s->last_error);
    text_addf(out, ",\"endpoints_left_out\":%" PRIu32 ",\"endpoints\":[",
              s->n_left_out);
    for (uint32_t i = 0; i < s->n_endpoints; i++) {
        text_addf(out, i == 0 ? "\n  " : ",\n  ");
        add_json_endpoint(out, &s->endpoints[i]);
    }
    text_addf(out, "]}");
}

void channel_report_json(const struct config *config,
                         const struct channel_state *states,
                         uint64_t workers,
                         struct text *out)
{
    bool first = true;
    text_addf(out, "{\"workers\":%" PRIu64 ",\"channels\":[", workers);
    for (size_t i = 0; i < config->n_upstreams; i++) {
        if (config->upstreams[i].type == UPSTREAM_GRPC) {
            text_addf(out, first ? "\n " : ",\n ");
            add_json_channel(out, &config->upstreams[i], &states[i]);
            first = false;
        }
    }
    text_addf(out, "\n]}\n");
}
