/* The numbers of all workers as Prometheus text. */
#ifndef IO_METRICS_H
#define IO_METRICS_H

#include "proxy/io/log.h"
#include "proxy/io/worker.h"

/* What one look at the process has found. */
struct metrics {
    const struct config *config; /* borrowed */
    const char *version;         /* borrowed */
    struct worker_snapshot sum;  /* of all workers; its arrays are borrowed */
    struct log_counters log;
    uint64_t started_s; /* wall clock */
    uint64_t resident_bytes;
    uint64_t open_handles;
    uint64_t workers;
};

/* Add what a worker says to the sum. */
void metrics_add(const struct config *config,
                 struct worker_snapshot *sum,
                 const struct worker_snapshot *one);

/* Look up what the system knows of this process. */
void metrics_look(struct metrics *m);

void metrics_write(const struct metrics *m, struct text *out);

#endif
