#include "proxy/io/grpc_metrics.h"

#include <assert.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    LABEL_MAX = 512 /* after escaping */
};

/* What is being written: borrowed. */
struct page {
    const struct config *config;
    const struct grpc_stats *stats;
    struct text *out;
};

/* ---- room, and sums ------------------------------------------------------- */

struct grpc_stats *grpc_metrics_new(const struct config *config)
{
    size_t n = config->n_upstreams;
    struct grpc_stats *stats = calloc(n + 1, sizeof(*stats));
    for (size_t i = 0; stats != NULL && i < n; i++) {
        const struct upstream_config *u = &config->upstreams[i];
        if (u->type != UPSTREAM_GRPC) {
            continue;
        }
        stats[i].methods =
            calloc(grpc_methods_shown(&u->grpc), sizeof(*stats[i].methods));
        if (stats[i].methods == NULL) {
            grpc_metrics_free(config, stats);
            return NULL;
        }
    }
    return stats;
}

void grpc_metrics_free(const struct config *config, struct grpc_stats *stats)
{
    for (size_t i = 0; stats != NULL && i < config->n_upstreams; i++) {
        free(stats[i].methods);
    }
    free(stats);
}

/* Structs of counters are added number by number, whatever their names. */
static void add_numbers(void *to, const void *from, size_t size)
{
    uint64_t *t = to;
    const uint64_t *f = from;
    for (size_t i = 0; i < size / sizeof(*t); i++) {
        t[i] += f[i];
    }
}

void grpc_metrics_add(const struct config *config,
                      struct grpc_stats *sum,
                      const struct grpc_stats *one)
{
    static_assert(offsetof(struct grpc_stats, methods) +
                          sizeof(struct grpc_method_stats *) ==
                      sizeof(struct grpc_stats),
                  "counters, and then the methods");
    for (size_t i = 0; i < config->n_upstreams; i++) {
        const struct upstream_config *u = &config->upstreams[i];
        if (u->type != UPSTREAM_GRPC) {
            continue;
        }
        add_numbers(&sum[i], &one[i], offsetof(struct grpc_stats, methods));
        for (size_t k = 0; k < grpc_methods_shown(&u->grpc); k++) {
            grpc_method_add(&sum[i].methods[k], &one[i].methods[k]);
        }
    }
}

/* ---- one number for each upstream ----------------------------------------- */

static void head(const struct page *p,
                 const char *name,
                 const char *help,
                 const char *type)
{
    text_addf(p->out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* The next upstream of gRPC from i on. */
static size_t next_channel(const struct page *p, size_t i)
{
    while (i < p->config->n_upstreams &&
           p->config->upstreams[i].type != UPSTREAM_GRPC) {
        i++;
    }
    return i;
}

static const char *target(const struct page *p, size_t i, char *out)
{
    (void)text_escape(out, LABEL_MAX, p->config->upstreams[i].name, false);
    return out;
}

static uint64_t number_at(const struct page *p, size_t i, size_t offset)
{
    uint64_t value = 0;
    memcpy(&value, (const char *)&p->stats[i] + offset, sizeof(value));
    return value;
}

/* offset is the number's place in struct grpc_stats. */
static void per_channel(const struct page *p,
                        const char *name,
                        const char *help,
                        const char *type,
                        size_t offset)
{
    char text[LABEL_MAX];
    head(p, name, help, type);
    for (size_t i = next_channel(p, 0); i < p->config->n_upstreams;
         i = next_channel(p, i + 1)) {
        text_addf(p->out, "%s{grpc_target=\"%s\"} %" PRIu64 "\n", name,
                  target(p, i, text), number_at(p, i, offset));
    }
}

static const char *class_label(int i)
{
    return grpc_class_name((enum grpc_class)i);
}

static const char *reason_label(int i)
{
    return grpc_reason_name((enum grpc_reason)i);
}

static const char *held_label(int i)
{
    return grpc_held_name((enum grpc_held)i);
}

static const char *abuse_label(int i)
{
    return grpc_abuse_name((enum grpc_abuse)i);
}

static const char *disconnect_label(int i)
{
    return grpc_disconnect_name((enum grpc_disconnect)i);
}

static const char *scope_label(int i)
{
    return i == 0 ? "call" : "total";
}

/* Numbers side by side, told apart by a label. */
struct labelled {
    const char *name;
    const char *help;
    size_t offset; /* of the first one, in struct grpc_stats */
    const char *label;
    int n;
    const char *(*value)(int);
};

#define PLACE(field) offsetof(struct grpc_stats, field)

static const struct labelled labelled[] = {
    { "grpc_subchannel_disconnections_total",
      "Connections to endpoints that were ready and are no more",
      PLACE(disconnections), "grpc_disconnect_error", GRPC_DISCONNECT_COUNT,
      disconnect_label },
    { "redial_grpc_attempt_outcomes_total",
      "How attempts ended: classes of docs/grpc.md", PLACE(attempt_outcomes),
      "class", GRPC_CLASS_COUNT, class_label },
    { "redial_grpc_not_retried_total",
      "Finished calls by the reason for which no attempt followed",
      PLACE(not_retried), "reason", GRPC_REASON_COUNT, reason_label },
    { "redial_grpc_held_headers_total",
      "What became of response headers that were held", PLACE(held_headers),
      "result", GRPC_HELD_RESULTS, held_label },
    { "redial_grpc_log_overflow_total",
      "Calls that no retry could follow because a buffer was full",
      PLACE(log_overflow_call), "scope", 2, scope_label },
    { "redial_grpc_abuse_total", "Clients closed for what they did",
      PLACE(abuse), "kind", GRPC_ABUSE_COUNT, abuse_label },
};

static void write_values(const struct page *p,
                         const struct labelled *l,
                         size_t i)
{
    char text[LABEL_MAX];
    for (int k = 0; k < l->n; k++) {
        text_addf(p->out, "%s{grpc_target=\"%s\",%s=\"%s\"} %" PRIu64 "\n",
                  l->name, target(p, i, text), l->label, l->value(k),
                  number_at(p, i, l->offset + (size_t)k * sizeof(uint64_t)));
    }
}

/* Most combinations never happen: only those that did are listed. */
static void write_local(const struct page *p)
{
    static const char name[] = "redial_grpc_local_status_total";
    char text[LABEL_MAX];
    head(p, name,
         "Statuses that redial has made up, and how the last attempt ended",
         "counter");
    for (size_t i = next_channel(p, 0); i < p->config->n_upstreams;
         i = next_channel(p, i + 1)) {
        for (int k = 0; k < GRPC_STATUS_COUNT * GRPC_CAUSE_COUNT; k++) {
            int status = k / GRPC_CAUSE_COUNT, cause = k % GRPC_CAUSE_COUNT;
            uint64_t n = p->stats[i].local_status[status][cause];
            if (n != 0) {
                text_addf(p->out,
                          "%s{grpc_target=\"%s\",grpc_status=\"%s\","
                          "cause=\"%s\"} %" PRIu64 "\n",
                          name, target(p, i, text),
                          grpc_status_name((enum grpc_status)status),
                          grpc_cause_name(cause), n);
            }
        }
    }
}

static void write_labelled(const struct page *p)
{
    static_assert(PLACE(log_overflow_total) ==
                      PLACE(log_overflow_call) + sizeof(uint64_t),
                  "side by side");
    for (size_t k = 0; k < sizeof(labelled) / sizeof(labelled[0]); k++) {
        const struct labelled *l = &labelled[k];
        head(p, l->name, l->help, "counter");
        for (size_t i = next_channel(p, 0); i < p->config->n_upstreams;
             i = next_channel(p, i + 1)) {
            write_values(p, l, i);
        }
    }
}

/* Counted in thousandths. */
static void write_tokens(const struct page *p)
{
    static const char name[] = "redial_grpc_budget_tokens";
    char text[LABEL_MAX];
    head(p, name,
         "Retry throttle: tokens left; with half of them none is retried",
         "gauge");
    for (size_t i = next_channel(p, 0); i < p->config->n_upstreams;
         i = next_channel(p, i + 1)) {
        text_addf(p->out, "%s{grpc_target=\"%s\"} %" PRIu64 ".%03u\n", name,
                  target(p, i, text), p->stats[i].budget_tokens / 1000,
                  (unsigned)(p->stats[i].budget_tokens % 1000));
    }
}

static void write_table(const struct page *p)
{
    per_channel(p, "grpc_subchannel_open_connections",
                "Connections to endpoints that are ready", "gauge",
                PLACE(connections));
    per_channel(p, "grpc_subchannel_connection_attempts_succeeded_total",
                "Connections to endpoints that became ready", "counter",
                PLACE(connections_opened));
    per_channel(p, "grpc_subchannel_connection_attempts_failed_total",
                "Connection attempts that failed", "counter",
                PLACE(connections_failed));
    write_tokens(p);
#define GRPC_COUNTER(name, help) \
    per_channel(p, "redial_grpc_" #name "_total", help, "counter", PLACE(name));
#define GRPC_GAUGE(name, help) \
    per_channel(p, "redial_grpc_" #name, help, "gauge", PLACE(name));
#define GRPC_FIELD(name)
#include "proxy/core/grpc_stats.def"
#undef GRPC_COUNTER
#undef GRPC_GAUGE
#undef GRPC_FIELD
}

/* ---- methods -------------------------------------------------------------- */

/* Where a number of a method's is: calls or attempts, by status. */
struct series {
    const char *name;
    const char *help;
    bool attempts;
    bool seconds;  /* a duration; else a size */
    size_t offset; /* in struct grpc_ended_stats */
};

#define ENDED(field) offsetof(struct grpc_ended_stats, field)

static const struct series series[] = {
    { "grpc_server_call_duration",
      "Seconds from a call's arrival to its status, as a client sees it", false,
      true, ENDED(duration) },
    { "grpc_server_call_sent_total_compressed_message_size",
      "Bytes of messages sent to a client in a call", false, false,
      ENDED(reply_bytes) },
    { "grpc_server_call_rcvd_total_compressed_message_size",
      "Bytes of messages received from a client in a call", false, false,
      ENDED(request_bytes) },
    { "grpc_client_call_duration",
      "Seconds of a call with all its attempts and waits", false, true,
      ENDED(duration) },
    { "grpc_client_attempt_duration", "Seconds of one attempt", true, true,
      ENDED(duration) },
    { "grpc_client_attempt_sent_total_compressed_message_size",
      "Bytes of messages sent to an endpoint in an attempt", true, false,
      ENDED(request_bytes) },
    { "grpc_client_attempt_rcvd_total_compressed_message_size",
      "Bytes of messages received from an endpoint in an attempt", true, false,
      ENDED(reply_bytes) },
};

/* "pkg.Svc/Method", or "other". methods[0] of the statistics are those that
 * are not configured. */
static const char *method_of(const struct page *p,
                             size_t i,
                             size_t label,
                             char *out)
{
    if (label == GRPC_LABEL_OTHER) {
        return "other";
    }
    const char *path = p->config->upstreams[i].grpc.methods[label - 1].path;
    (void)text_escape(out, LABEL_MAX, path + (path[0] == '/'), false);
    return out;
}

/* Upper bounds, as the text shows them: seconds, or plain numbers. */
static void add_bound(struct text *out, uint64_t bound, bool seconds)
{
    if (seconds) {
        text_addf(out, "le=\"%.9g\"", (double)bound / 1e6);
    } else {
        text_addf(out, "le=\"%" PRIu64 "\"", bound);
    }
}

/* Any of the three kinds of histograms. */
struct histogram {
    const uint64_t *bucket;
    const uint64_t *bounds;
    size_t n; /* of bounds; one bucket more */
    uint64_t sum, count;
    bool seconds;
};

static struct histogram of_durations(const struct grpc_durations *d)
{
    return (
        struct histogram){ d->bucket, grpc_bucket_us, GRPC_DURATION_BUCKETS - 1,
                           d->sum_us, d->count,       true };
}

static struct histogram of_sizes(const struct grpc_sizes *s)
{
    return (
        struct histogram){ s->bucket, grpc_bucket_bytes, GRPC_SIZE_BUCKETS - 1,
                           s->sum,    s->count,          false };
}

/* bounds: how many of them are shown. */
static struct histogram of_counts(const struct grpc_counts *c, size_t bounds)
{
    return (struct histogram){ c->bucket, grpc_bucket_counts, bounds,
                               c->sum,    c->count,           false };
}

/* labels: without braces. */
static void add_histogram(struct text *out,
                          const char *name,
                          const char *labels,
                          const struct histogram *h)
{
    uint64_t below = 0;
    for (size_t i = 0; i < h->n; i++) {
        below += h->bucket[i];
        text_addf(out, "%s_bucket{%s,", name, labels);
        add_bound(out, h->bounds[i], h->seconds);
        text_addf(out, "} %" PRIu64 "\n", below);
    }
    text_addf(out, "%s_bucket{%s,le=\"+Inf\"} %" PRIu64 "\n", name, labels,
              h->count);
    if (h->seconds) {
        text_addf(out, "%s_sum{%s} %" PRIu64 ".%06u\n", name, labels,
                  h->sum / 1000000, (unsigned)(h->sum % 1000000));
    } else {
        text_addf(out, "%s_sum{%s} %" PRIu64 "\n", name, labels, h->sum);
    }
    text_addf(out, "%s_count{%s} %" PRIu64 "\n", name, labels, h->count);
}

/* Methods and statuses that nobody has met are not listed. */
static void write_ended(const struct page *p,
                        const struct series *s,
                        size_t i,
                        size_t label)
{
    char method[LABEL_MAX], text[LABEL_MAX], labels[3 * LABEL_MAX];
    const struct grpc_method_stats *m = &p->stats[i].methods[label];
    for (int k = 0; k < GRPC_STATUS_COUNT; k++) {
        const struct grpc_ended_stats *ended =
            s->attempts ? &m->attempts[k] : &m->calls[k];
        if (ended->duration.count == 0) {
            continue;
        }
        const void *numbers = (const char *)ended + s->offset;
        struct histogram h =
            s->seconds ? of_durations(numbers) : of_sizes(numbers);
        (void)snprintf(labels, sizeof(labels),
                       "grpc_method=\"%s\",grpc_target=\"%s\","
                       "grpc_status=\"%s\"",
                       method_of(p, i, label, method), target(p, i, text),
                       grpc_status_name((enum grpc_status)k));
        add_histogram(p->out, s->name, labels, &h);
    }
}

static void write_methods(const struct page *p)
{
    for (size_t k = 0; k < sizeof(series) / sizeof(series[0]); k++) {
        head(p, series[k].name, series[k].help, "histogram");
        for (size_t i = next_channel(p, 0); i < p->config->n_upstreams;
             i = next_channel(p, i + 1)) {
            size_t n = grpc_methods_shown(&p->config->upstreams[i].grpc);
            for (size_t label = 0; label < n; label++) {
                write_ended(p, &series[k], i, label);
            }
        }
    }
}

/* What is counted when something begins, and how often it was repeated. */
enum plain {
    CALLS_STARTED,
    ATTEMPTS_STARTED,
    RETRIES,
    TRANSPARENT_RETRIES,
    RETRY_DELAY,
    PLAIN_COUNT
};

static const struct {
    const char *name;
    const char *help;
    const char *type;
} plains[PLAIN_COUNT] = {
    [CALLS_STARTED] = { "grpc_server_call_started_total", "Calls that began",
                        "counter" },
    [ATTEMPTS_STARTED] = { "grpc_client_attempt_started_total",
                           "Attempts that began", "counter" },
    [RETRIES] = { "grpc_client_call_retries",
                  "Retries of a call, if it had any", "histogram" },
    [TRANSPARENT_RETRIES] = { "grpc_client_call_transparent_retries",
                              "Retries of a call that cost nothing, if it had "
                              "any",
                              "histogram" },
    [RETRY_DELAY] = { "grpc_client_call_retry_delay",
                      "Seconds of a call without an attempt, if there were any",
                      "histogram" },
};

static void write_plain(const struct page *p,
                        enum plain what,
                        size_t i,
                        size_t label)
{
    char method[LABEL_MAX], text[LABEL_MAX], labels[3 * LABEL_MAX];
    const struct grpc_method_stats *m = &p->stats[i].methods[label];
    const char *name = plains[what].name;
    struct histogram h = { .count = 0 };
    (void)snprintf(labels, sizeof(labels),
                   "grpc_method=\"%s\",grpc_target=\"%s\"",
                   method_of(p, i, label, method), target(p, i, text));
    switch (what) {
    case CALLS_STARTED:
        text_addf(p->out, "%s{%s} %" PRIu64 "\n", name, labels,
                  m->calls_started);
        return;
    case ATTEMPTS_STARTED:
        text_addf(p->out, "%s{%s} %" PRIu64 "\n", name, labels,
                  m->attempts_started);
        return;
    case RETRIES: h = of_counts(&m->retries, GRPC_COUNT_BUCKETS - 2); break;
    case TRANSPARENT_RETRIES:
        h = of_counts(&m->transparent_retries, GRPC_COUNT_BUCKETS - 1);
        break;
    case RETRY_DELAY: h = of_durations(&m->retry_delay); break;
    case PLAIN_COUNT: return;
    }
    if (h.count != 0) {
        add_histogram(p->out, name, labels, &h);
    }
}

static void write_plains(const struct page *p)
{
    for (int what = 0; what < PLAIN_COUNT; what++) {
        head(p, plains[what].name, plains[what].help, plains[what].type);
        for (size_t i = next_channel(p, 0); i < p->config->n_upstreams;
             i = next_channel(p, i + 1)) {
            size_t n = grpc_methods_shown(&p->config->upstreams[i].grpc);
            for (size_t label = 0; label < n; label++) {
                write_plain(p, (enum plain)what, i, label);
            }
        }
    }
}

/* Memory is that of the process, whichever upstream is asked. */
static void write_memory(const struct page *p)
{
    size_t i = next_channel(p, 0);
    head(p, "redial_grpc_log_bytes", "Request bytes kept only for replay",
         "gauge");
    text_addf(p->out, "redial_grpc_log_bytes %" PRIu64 "\n",
              p->stats[i].log_bytes);
    head(p, "redial_grpc_memory_bytes",
         "Bytes of messages and of unwritten output in memory", "gauge");
    text_addf(p->out, "redial_grpc_memory_bytes %" PRIu64 "\n",
              p->stats[i].memory_bytes);
}

void grpc_metrics_write(const struct config *config,
                        const struct grpc_stats *stats,
                        struct text *out)
{
    const struct page p = { .config = config, .stats = stats, .out = out };
    if (next_channel(&p, 0) == config->n_upstreams) {
        return;
    }
    write_plains(&p);
    write_methods(&p);
    write_table(&p);
    write_labelled(&p);
    write_local(&p);
    write_memory(&p);
}
