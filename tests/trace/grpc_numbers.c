/* The numbers of an upstream of gRPC in a trace. */
#include <stddef.h>
#include <stdlib.h>

#include "proxy/core/grpc_stats.h"
#include "tests/trace/play.h"

static const struct {
    const char *name;
    size_t offset;
} rows[] = {
#define ROW(name)                { #name, offsetof(struct grpc_stats, name) },
#define GRPC_COUNTER(name, help) ROW(name)
#define GRPC_GAUGE(name, help)   ROW(name)
#define GRPC_FIELD(name)         ROW(name)
#include "proxy/core/grpc_stats.def"
};

static bool one_of(const uint64_t *numbers,
                   int n,
                   const char *(*label)(int),
                   const char *word,
                   uint64_t *value)
{
    for (int i = 0; i < n; i++) {
        if (strcmp(label(i), word) == 0) {
            *value = numbers[i];
            return true;
        }
    }
    return false;
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

/* "reason unsafe", "class F3", "held discarded", "abuse pings", or a number of
 * grpc_stats.def. */
static bool number_find(const struct grpc_stats *s,
                        const char **rest,
                        uint64_t *value)
{
    char kind[WORD_MAX];
    char word[WORD_MAX];
    word_next(rest, kind);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (strcmp(rows[i].name, kind) == 0) {
            memcpy(value, (const char *)s + rows[i].offset, sizeof *value);
            return true;
        }
    }
    word_next(rest, word);
    if (strcmp(kind, "reason") == 0) {
        return one_of(s->not_retried, GRPC_REASON_COUNT, reason_label, word,
                      value);
    }
    if (strcmp(kind, "class") == 0) {
        return one_of(s->attempt_outcomes, GRPC_CLASS_COUNT, class_label, word,
                      value);
    }
    if (strcmp(kind, "held") == 0) {
        return one_of(s->held_headers, GRPC_HELD_RESULTS, held_label, word,
                      value);
    }
    return strcmp(kind, "abuse") == 0 &&
           one_of(s->abuse, GRPC_ABUSE_COUNT, abuse_label, word, value);
}

void grpc_want_count(struct play *p, const char *rest)
{
    struct grpc_stats stats = { 0 };
    char number[WORD_MAX];
    uint64_t value = 0;
    size_t i = 0;
    while (i < p->config->n_upstreams &&
           p->config->upstreams[i].type != UPSTREAM_GRPC) {
        i++;
    }
    if (i == p->config->n_upstreams) {
        complain(p, "there is no upstream of gRPC");
        return;
    }
    engine_grpc_stats(p->stage.engine, i, &stats);
    if (!number_find(&stats, &rest, &value)) {
        complain(p, "no such number");
        return;
    }
    word_next(&rest, number);
    if (value != strtoull(number, NULL, 10)) {
        complain(p, "another number:");
        bytes_printf(&p->complaint, "    it is %llu\n",
                     (unsigned long long)value);
    }
}
