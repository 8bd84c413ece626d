/* The simulator's command line (README.md). */
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/client.h"

enum {
    REQUESTS_DEFAULT = 1000,
    FAILURES_SHOWN = 5,
    CLUSTER_EVERY = 3,     /* every third seed is a cluster */
    STATEFUL_EVERY = 2,    /* two seeds with --stateful, two without */
    GRPC_EVERY = 4,        /* every fourth one is gRPC, whatever else it is */
    GRPC_ENOUGH = 300,     /* to demand that every outcome happened */
    UNASKED_RARE = 20,     /* one of so many ASK */
    CLUSTERS_ENOUGH = 300, /* to demand that everything happened */
};

struct arguments {
    uint64_t from, to;
    uint64_t requests;
    uint64_t total; /* stop after so many requests; 0: after the last seed */
    uint32_t faults, habits;
    bool trace, quiet, twice;
    bool stateful, plain; /* every seed, no seed; else every second one */
    enum {
        SINGLES, /* the default until the core keeps I5 in a cluster */
        CLUSTERS,
        GRPCS,
        MIXED
    } kind;
};

static void usage(void)
{
    fprintf(
        stderr,
        "usage: sim [--seeds COUNT | --seeds FROM-TO | --seed N] "
        "[--requests N] [--total N]\n"
        "           [--faults NAME,NAME...|none] [--habits NAME,...] [--trace] "
        "[--quiet] [--twice] [--stateful | --plain] [--single | --cluster | "
        "--grpc | --mixed]\n"
        "faults:");
    for (int i = 0; i < FAULT_COUNT; i++) {
        fprintf(stderr, " %s", fault_name((enum fault)i));
    }
    fprintf(stderr, "\nhabits of --stateful clients:");
    for (unsigned i = 0; i < HABITS; i++) {
        fprintf(stderr, " %s", habit_name(i));
    }
    fputc('\n', stderr);
}

static const char *fault_at(unsigned i)
{
    return fault_name((enum fault)i);
}

/* Names, or "none", as a set. */
static bool names_read(const char *text,
                       const char *(*name_of)(unsigned i),
                       unsigned count,
                       uint32_t *set)
{
    char name[32];
    *set = 0;
    if (strcmp(text, "none") == 0) {
        return true;
    }
    while (*text != '\0') {
        size_t n = strcspn(text, ",");
        bool found = false;
        snprintf(name, sizeof name, "%.*s", (int)(n < 31 ? n : 31), text);
        for (unsigned i = 0; i < count; i++) {
            if (strcmp(name, name_of(i)) == 0) {
                *set |= 1u << i;
                found = true;
            }
        }
        if (!found) {
            return false;
        }
        text += n + (text[n] == ',');
    }
    return true;
}

/* "5-9", or a number: that many seeds, or that one. */
static bool seeds_read(const char *text, bool many, struct arguments *a)
{
    char *end;
    a->from = strtoull(text, &end, 10);
    a->to = a->from;
    if (many && *end == '\0') {
        a->from = 1;
    } else if (*end == '-') {
        a->to = strtoull(end + 1, &end, 10);
    }
    return *end == '\0' && a->to >= a->from;
}

static bool arguments_read(int argc, char **argv, struct arguments *a)
{
    *a = (struct arguments){ .from = 1,
                             .to = 100,
                             .requests = REQUESTS_DEFAULT,
                             .kind = MIXED,
                             .faults = UINT32_MAX,
                             .habits = HABITS_ALL };
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        bool good = true;
        if (strcmp(argv[i], "--trace") == 0) {
            a->trace = true;
            continue;
        } else if (strcmp(argv[i], "--stateful") == 0) {
            a->stateful = true;
            continue;
        } else if (strcmp(argv[i], "--plain") == 0) {
            a->plain = true;
            continue;
        } else if (strcmp(argv[i], "--quiet") == 0) {
            a->quiet = true;
            continue;
        } else if (strcmp(argv[i], "--twice") == 0) {
            a->twice = true;
            continue;
        } else if (strcmp(argv[i], "--cluster") == 0) {
            a->kind = CLUSTERS;
            continue;
        } else if (strcmp(argv[i], "--grpc") == 0) {
            a->kind = GRPCS;
            continue;
        } else if (strcmp(argv[i], "--mixed") == 0) {
            a->kind = MIXED;
            continue;
        } else if (strcmp(argv[i], "--single") == 0) {
            a->kind = SINGLES;
            continue;
        } else if (strcmp(argv[i], "--seeds") == 0 ||
                   strcmp(argv[i], "--seed") == 0) {
            good = seeds_read(value, argv[i][6] == 's', a);
        } else if (strcmp(argv[i], "--requests") == 0) {
            a->requests = strtoull(value, NULL, 10);
        } else if (strcmp(argv[i], "--total") == 0) {
            a->total = strtoull(value, NULL, 10);
        } else if (strcmp(argv[i], "--faults") == 0) {
            good = names_read(value, fault_at, FAULT_COUNT, &a->faults);
        } else if (strcmp(argv[i], "--habits") == 0) {
            good = names_read(value, habit_name, HABITS, &a->habits);
        } else {
            good = false;
        }
        i++;
        if (!good || i >= argc) {
            return false;
        }
    }
    return true;
}

static const struct {
    const char *name;
    size_t offset;
    bool must; /* happens in any large set of seeds, or a model is broken */
} counts[] = {
#define COUNT(name, must)                                  \
    {                                                      \
#name, offsetof(struct cluster_counts, name), must \
    }
    COUNT(moved, true),    COUNT(ask, true),       COUNT(asked, true),
    COUNT(tryagain, true), COUNT(down, true),      COUNT(masterdown, false),
    COUNT(hostile, true),  COUNT(failovers, true), COUNT(migrations, true),
    COUNT(lost, true),     COUNT(split, true),     COUNT(from_replica, false),
    COUNT(scanned, false), COUNT(unasked, false),
#undef COUNT
};

static uint64_t *count_of(struct cluster_counts *c, size_t i)
{
    return (uint64_t *)(void *)((char *)c + counts[i].offset);
}

static void counts_print(const struct run_result *r)
{
    struct cluster_counts c = r->counts;
    printf("   cluster:");
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        printf(" %s=%" PRIu64, counts[i].name, *count_of(&c, i));
    }
    printf("\n");
}

/* What never happened was not tested; returns how many such there are. */
static unsigned counts_missing(const struct run_result *r)
{
    struct cluster_counts c = r->counts;
    unsigned missing = 0;
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        if (counts[i].must && *count_of(&c, i) == 0) {
            fprintf(stderr, "no cluster had any: %s\n", counts[i].name);
            missing++;
        }
    }
    if (c.unasked * UNASKED_RARE > c.ask) {
        fprintf(stderr,
                "no cluster is asked without ASKING that often: %" PRIu64
                " times\n",
                c.unasked);
        missing++;
    }
    return missing;
}

static void calls_print(const struct run_result *r)
{
    printf("   grpc:");
    for (unsigned i = 0; i < GRPC_CLASS_COUNT; i++) {
        printf(" %s=%" PRIu64, grpc_class_name((enum grpc_class)i),
               r->calls.outcome[i]);
    }
    for (unsigned i = 0; i < GRPC_REASON_COUNT; i++) {
        printf(" %s=%" PRIu64, grpc_reason_name((enum grpc_reason)i),
               r->calls.reason[i]);
    }
    for (unsigned i = 0; i < GRPC_HELD_RESULTS; i++) {
        printf(" %s=%" PRIu64, grpc_held_name((enum grpc_held)i),
               r->calls.held[i]);
    }
    printf(" overflow=%" PRIu64 "\n", r->calls.overflow);
}

static const struct {
    const char *name;
    size_t offset;
} states[] = {
#define STATE(name)                                \
    {                                              \
#name, offsetof(struct state_counts, name) \
    }
    STATE(blocks),  STATE(null),   STATE(rebuilt), STATE(messages),
    STATE(waits),   STATE(served), STATE(gone),    STATE(invalidations),
    STATE(flushes), STATE(resets),
#undef STATE
};

static uint64_t *state_of(struct state_counts *c, size_t i)
{
    return (uint64_t *)(void *)((char *)c + states[i].offset);
}

static void states_print(const struct run_result *r)
{
    struct state_counts c = r->state;
    printf("   connections:");
    for (size_t i = 0; i < sizeof states / sizeof states[0]; i++) {
        printf(" %s=%" PRIu64, states[i].name, *state_of(&c, i));
    }
    printf("\n");
}

/* The same as counts_missing(). */
static unsigned calls_missing(const struct run_result *r)
{
    unsigned missing = r->calls.overflow == 0;
    for (unsigned i = 0; i < GRPC_CLASS_COUNT; i++) {
        if (r->calls.outcome[i] == 0) {
            fprintf(stderr, "no attempt ended as %s\n",
                    grpc_class_name((enum grpc_class)i));
            missing++;
        }
    }
    for (unsigned i = 0; i < GRPC_REASON_COUNT; i++) {
        if (r->calls.reason[i] == 0) {
            fprintf(stderr, "no call ended because of %s\n",
                    grpc_reason_name((enum grpc_reason)i));
            missing++;
        }
    }
    for (unsigned i = 0; i < GRPC_HELD_RESULTS; i++) {
        missing += r->calls.held[i] == 0;
    }
    return missing;
}

static void grpc_line_print(uint64_t seed, const struct run_result *r)
{
    printf("seed %" PRIu64 ": gRPC: %" PRIu64 " calls: %" PRIu64 " OK, %" PRIu64
           " other statuses of hosts, %" PRIu64 " of redial, %" PRIu64
           " without; %" PRIu64 " more executions; %.1f s; hash %016" PRIx64
           "\n",
           seed, r->requests, r->answered, r->refused, r->not_applied, r->lost,
           r->replays, (double)r->virtual_us / 1e6, r->hash);
    calls_print(r);
}

static void line_print(uint64_t seed, const struct run_result *r)
{
    if (r->grpc) {
        grpc_line_print(seed, r);
        return;
    }
    printf("seed %" PRIu64 ": %" PRIu64 " requests: %" PRIu64
           " answered, %" PRIu64 " NOTAPPLIED, %" PRIu64
           " UNKNOWNOUTCOME, %" PRIu64 " refused, %" PRIu64
           " lost with their client; %" PRIu64
           " replays; %.1f s; hash %016" PRIx64 "\n",
           seed, r->requests, r->answered, r->not_applied, r->unknown,
           r->refused, r->lost, r->replays, (double)r->virtual_us / 1e6,
           r->hash);
    printf("   faults:");
    for (unsigned i = 0; i < FAULT_COUNT; i++) {
        if (r->fired[i] > 0) {
            printf(" %s=%" PRIu64, fault_name((enum fault)i), r->fired[i]);
        }
    }
    printf("\n");
    if (r->cluster) {
        counts_print(r);
    }
    if (r->stateful) {
        states_print(r);
    }
}

static void sum(struct run_result *total, const struct run_result *r)
{
    total->hash = hash_number(total->hash, r->hash);
    total->events += r->events;
    total->requests += r->requests;
    total->answered += r->answered;
    total->not_applied += r->not_applied;
    total->unknown += r->unknown;
    total->refused += r->refused;
    total->lost += r->lost;
    total->replays += r->replays;
    total->virtual_us += r->virtual_us;
    if (r->memory_peak > total->memory_peak) {
        total->memory_peak = r->memory_peak;
    }
    for (unsigned i = 0; i < FAULT_COUNT; i++) {
        total->fired[i] += r->fired[i];
    }
    struct cluster_counts add = r->counts;
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        *count_of(&total->counts, i) += *count_of(&add, i);
    }
    struct state_counts more = r->state;
    for (size_t i = 0; i < sizeof states / sizeof states[0]; i++) {
        *state_of(&total->state, i) += *state_of(&more, i);
    }
    for (unsigned i = 0; i < GRPC_CLASS_COUNT; i++) {
        total->calls.outcome[i] += r->calls.outcome[i];
    }
    for (unsigned i = 0; i < GRPC_REASON_COUNT; i++) {
        total->calls.reason[i] += r->calls.reason[i];
    }
    for (unsigned i = 0; i < GRPC_HELD_RESULTS; i++) {
        total->calls.held[i] += r->calls.held[i];
    }
    total->calls.overflow += r->calls.overflow;
}

static void total_print(uint64_t runs,
                        uint64_t failures,
                        const struct run_result *t)
{
    printf("%" PRIu64 " runs, %" PRIu64 " broken: %" PRIu64
           " requests, %" PRIu64 " events, %.0f s of virtual time\n",
           runs, failures, t->requests, t->events, (double)t->virtual_us / 1e6);
    printf("   %" PRIu64 " answered, %" PRIu64 " NOTAPPLIED, %" PRIu64
           " UNKNOWNOUTCOME, %" PRIu64 " refused by the server, %" PRIu64
           " lost with their client\n",
           t->answered, t->not_applied, t->unknown, t->refused, t->lost);
    printf("   %" PRIu64 " executions more than once, at most %zu KiB held by "
           "the engine\n   faults:",
           t->replays, t->memory_peak / 1024);
    for (unsigned i = 0; i < FAULT_COUNT; i++) {
        printf(" %s=%" PRIu64, fault_name((enum fault)i), t->fired[i]);
    }
    printf("\n");
    counts_print(t);
    states_print(t);
    calls_print(t);
    printf("   hash of all runs: %016" PRIx64 "\n", t->hash);
}

/* One seed; with --twice once more, and both must be the same (I23). */
static bool seed_run(const struct arguments *a,
                     uint64_t seed,
                     struct run_result *r)
{
    bool mixed = a->kind == MIXED;
    bool grpc = a->kind == GRPCS || (mixed && seed % GRPC_EVERY == 0);
    struct run_options options = {
        .seed = seed,
        .requests = a->requests,
        .faults = a->faults,
        .habits = a->habits,
        .trace = a->trace,
        .stateful = !grpc && !a->plain &&
                    (a->stateful || seed / STATEFUL_EVERY % 2 == 0),
        .grpc = grpc,
        .cluster = !grpc && (a->kind == CLUSTERS ||
                             (mixed && seed % CLUSTER_EVERY == 0)),
    };
    *r = world_run(&options);
    if (r->broken || !a->twice) {
        return !r->broken;
    }
    struct run_result again = world_run(&options);
    if (again.hash != r->hash) {
        fprintf(stderr,
                "seed %" PRIu64 ": I23: two runs differ: %016" PRIx64
                " and %016" PRIx64 "\n",
                seed, r->hash, again.hash);
        return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    struct arguments a;
    struct run_result total = { 0 };
    uint64_t runs = 0;
    uint64_t failures = 0;
    uint64_t clusters = 0;
    uint64_t grpcs = 0;

    if (!arguments_read(argc, argv, &a)) {
        usage();
        return 2;
    }
    for (uint64_t seed = a.from; seed <= a.to && failures < FAILURES_SHOWN;
         seed++) {
        struct run_result r;
        failures += !seed_run(&a, seed, &r);
        runs++;
        clusters += r.cluster;
        grpcs += r.grpc;
        sum(&total, &r);
        if (!a.quiet) {
            line_print(seed, &r);
        }
        if (a.total > 0 && total.requests >= a.total) {
            break;
        }
    }
    total_print(runs, failures, &total);
    if (clusters >= CLUSTERS_ENOUGH && a.faults == UINT32_MAX) {
        failures += counts_missing(&total);
    }
    if (grpcs >= GRPC_ENOUGH && a.faults == UINT32_MAX) {
        failures += calls_missing(&total);
    }
    return failures > 0;
}
