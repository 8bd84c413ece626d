#include "proxy/io/metrics.h"

#include <assert.h>
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "proxy/io/channel_report.h"
#include "proxy/io/grpc_metrics.h"
#include "proxy/io/node_report.h"

/* Structs of counters are added number by number, whatever their names. */
#define IS_ALL_NUMBERS(type) (sizeof(type) % sizeof(uint64_t) == 0)

static void add_numbers(void *to, const void *from, size_t size)
{
    uint64_t *t = to;
    const uint64_t *f = from;
    for (size_t i = 0; i < size / sizeof(*t); i++) {
        t[i] += f[i];
    }
}

void metrics_add(const struct config *config,
                 struct worker_snapshot *sum,
                 const struct worker_snapshot *one)
{
    static_assert(IS_ALL_NUMBERS(struct engine_stats), "counters only");
    static_assert(IS_ALL_NUMBERS(struct upstream_stats), "counters only");
    static_assert(IS_ALL_NUMBERS(struct worker_counters), "counters only");
    add_numbers(&sum->engine, &one->engine, sizeof(sum->engine));
    add_numbers(&sum->counters, &one->counters, sizeof(sum->counters));
    for (size_t i = 0; i < config->n_upstreams; i++) {
        add_numbers(&sum->upstreams[i], &one->upstreams[i],
                    sizeof(sum->upstreams[i]));
        sum->ready[i] = sum->ready[i] || one->ready[i];
    }
    if (sum->states != NULL) {
        node_report_add(sum->states, one->states, config->n_upstreams);
    }
    if (sum->grpc != NULL) {
        grpc_metrics_add(config, sum->grpc, one->grpc);
    }
    if (sum->channels != NULL) {
        channel_report_add(sum->channels, one->channels, config->n_upstreams);
    }
}

/* The second number of the file is the count of pages in memory. */
static uint64_t resident_bytes(void)
{
    FILE *f = fopen("/proc/self/statm", "re");
    if (f == NULL) {
        return 0;
    }
    char line[128] = "";
    const char *got = fgets(line, sizeof(line), f);
    (void)fclose(f);
    const char *second = got == NULL ? NULL : strchr(line, ' ');
    if (second == NULL) {
        return 0;
    }
    return strtoull(second, NULL, 10) * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t open_handles(void)
{
    DIR *d = opendir("/proc/self/fd");
    if (d == NULL) {
        return 0;
    }
    uint64_t n = 0;
    while (readdir(d) != NULL) {
        n++;
    }
    (void)closedir(d);
    return n < 3 ? 0 : n - 3; /* ".", ".." and the directory itself */
}

void metrics_look(struct metrics *m)
{
    m->resident_bytes = resident_bytes();
    m->open_handles = open_handles();
}

static void head(struct text *out,
                 const char *name,
                 const char *help,
                 const char *type)
{
    text_addf(out, "# HELP redial_%s %s\n# TYPE redial_%s %s\n", name, help,
              name, type);
}

/* A label value: the format knows no more escapes than these three, which
 * text_escape() uses; names of sections hold nothing stranger. */
static const char *label(const struct metrics *m, size_t i, char *out)
{
    (void)text_escape(out, ADDRESS_TEXT_MAX, m->config->upstreams[i].name,
                      false);
    return out;
}

/* The next upstream of Redis from i on: gRPC has numbers of its own. */
static size_t next_redis(const struct metrics *m, size_t i)
{
    while (i < m->config->n_upstreams &&
           m->config->upstreams[i].type == UPSTREAM_GRPC) {
        i++;
    }
    return i;
}

/* One number of every upstream of Redis. offset is its place in
 * upstream_stats. */
static void per_upstream(const struct metrics *m,
                         struct text *out,
                         const char *name,
                         size_t offset)
{
    char text[ADDRESS_TEXT_MAX];
    for (size_t i = next_redis(m, 0); i < m->config->n_upstreams;
         i = next_redis(m, i + 1)) {
        uint64_t value = 0;
        memcpy(&value, (const char *)&m->sum.upstreams[i] + offset,
               sizeof(value));
        text_addf(out, "redial_%s{upstream=\"%s\"} %" PRIu64 "\n", name,
                  label(m, i, text), value);
    }
}

static void single(struct text *out,
                   const char *name,
                   const char *help,
                   const char *type,
                   uint64_t value)
{
    head(out, name, help, type);
    text_addf(out, "redial_%s %" PRIu64 "\n", name, value);
}

static void write_table(const struct metrics *m, struct text *out)
{
#define COUNTER(field, help)                     \
    head(out, #field "_total", help, "counter"); \
    per_upstream(m, out, #field "_total",        \
                 offsetof(struct upstream_stats, field));
#define GAUGE(field, help)            \
    head(out, #field, help, "gauge"); \
    per_upstream(m, out, #field, offsetof(struct upstream_stats, field));
#define ENGINE_COUNTER(field, help) \
    single(out, #field "_total", help, "counter", m->sum.engine.field);
#define ENGINE_GAUGE(field, help) \
    single(out, #field, help, "gauge", m->sum.engine.field);
#include "proxy/core/stats.def"
#undef COUNTER
#undef GAUGE
#undef ENGINE_COUNTER
#undef ENGINE_GAUGE
}

/* One upstream's decisions about one class of commands. Most combinations
 * never happen: only those that did are listed. */
static void write_retries_of(const struct upstream_stats *s,
                             const char *upstream,
                             enum command_class class,
                             struct text *out)
{
    for (int o = 0; o < OUTCOME_COUNT; o++) {
        for (int v = 0; v < VERDICT_COUNT; v++) {
            if (s->retries[o][class][v] == 0) {
                continue;
            }
            text_addf(out,
                      "redial_retries_total{upstream=\"%s\",outcome=\"%s\","
                      "class=\"%s\",verdict=\"%s\"} %" PRIu64 "\n",
                      upstream, outcome_name((enum outcome)o),
                      command_class_name(class), verdict_name((enum verdict)v),
                      s->retries[o][class][v]);
        }
    }
}

static void write_retries(const struct metrics *m, struct text *out)
{
    char text[ADDRESS_TEXT_MAX];
    head(out, "retries_total",
         "Decisions about interrupted requests: what was known, the class of "
         "the command, the verdict",
         "counter");
    for (size_t i = next_redis(m, 0); i < m->config->n_upstreams;
         i = next_redis(m, i + 1)) {
        for (int c = 0; c < CLASS_COUNT; c++) {
            write_retries_of(&m->sum.upstreams[i], label(m, i, text),
                             (enum command_class)c, out);
        }
    }
    head(out, "replayed_total",
         "Requests sent a second time although the first may have been "
         "executed",
         "counter");
    for (size_t i = next_redis(m, 0); i < m->config->n_upstreams;
         i = next_redis(m, i + 1)) {
        for (int c = 0; c < CLASS_COUNT; c++) {
            text_addf(out,
                      "redial_replayed_total{upstream=\"%s\",class=\"%s\"} "
                      "%" PRIu64 "\n",
                      label(m, i, text),
                      command_class_name((enum command_class)c),
                      m->sum.upstreams[i].replayed[c]);
        }
    }
}

static void write_histogram(const struct latency_histogram *h,
                            const char *upstream,
                            struct text *out)
{
    uint64_t below = 0;
    for (unsigned i = 0; i + 1 < LATENCY_BUCKETS; i++) {
        below += h->bucket[i];
        text_addf(out,
                  "redial_request_seconds_bucket{upstream=\"%s\",le=\"%.9g\"} "
                  "%" PRIu64 "\n",
                  upstream, (double)(UINT64_C(2) << i) / 1e6, below);
    }
    text_addf(out,
              "redial_request_seconds_bucket{upstream=\"%s\",le=\"+Inf\"} "
              "%" PRIu64 "\n"
              "redial_request_seconds_sum{upstream=\"%s\"} %.6f\n"
              "redial_request_seconds_count{upstream=\"%s\"} %" PRIu64 "\n",
              upstream, h->count, upstream, (double)h->sum_us / 1e6, upstream,
              h->count);
}

static void write_latency(const struct metrics *m, struct text *out)
{
    char text[ADDRESS_TEXT_MAX];
    head(out, "request_seconds", "Time from a request's arrival to its reply",
         "histogram");
    for (size_t i = next_redis(m, 0); i < m->config->n_upstreams;
         i = next_redis(m, i + 1)) {
        write_histogram(&m->sum.upstreams[i].request, label(m, i, text), out);
    }
    head(out, "upstream_ready",
         "Whether a server connection of the upstream is up", "gauge");
    for (size_t i = 0; i < m->config->n_upstreams; i++) {
        text_addf(out, "redial_upstream_ready{upstream=\"%s\"} %d\n",
                  label(m, i, text), m->sum.ready[i] ? 1 : 0);
    }
}

static void write_process(const struct metrics *m, struct text *out)
{
    single(out, "accept_failures_total",
           "Clients turned away for lack of file handles or memory", "counter",
           m->sum.counters.accept_failures);
    single(out, "read_stalls_total",
           "Times reading waited because no block of memory could be had",
           "counter", m->sum.counters.read_stalls);
    single(out, "log_lines_total", "Log lines written", "counter",
           m->log.lines);
    single(out, "log_suppressed_total", "Log lines beyond the rate", "counter",
           m->log.suppressed);
    single(out, "log_failed_total", "Log lines the system did not take",
           "counter", m->log.failed);
    single(out, "workers", "Threads that serve clients", "gauge", m->workers);
    single(out, "resident_bytes", "Memory in use", "gauge", m->resident_bytes);
    single(out, "open_handles", "File handles in use", "gauge",
           m->open_handles);
    single(out, "start_time_seconds", "When the process started", "gauge",
           m->started_s);
    head(out, "build_info", "What is running", "gauge");
    text_addf(out, "redial_build_info{version=\"%s\"} 1\n", m->version);
}

void metrics_write(const struct metrics *m, struct text *out)
{
    write_table(m, out);
    write_retries(m, out);
    write_latency(m, out);
    if (m->sum.states != NULL) {
        node_report_metrics(m->config, m->sum.states, out);
    }
    if (m->sum.grpc != NULL) {
        grpc_metrics_write(m->config, m->sum.grpc, out);
    }
    write_process(m, out);
}
