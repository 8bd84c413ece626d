/* One thread, one loop, one engine (DESIGN.md §6). The other files of this
 * folder carry what the engine asks for; a worker is what they share. */
#ifndef IO_WORKER_H
#define IO_WORKER_H

#include <uv.h>

#include "proxy/core/engine.h"
#include "proxy/io/log.h"

struct socket;
struct listener;
struct resolution;

/* What only the shell can count. */
struct worker_counters {
    uint64_t accept_failures; /* no file handles or memory for a client */
    uint64_t read_stalls;     /* reading waited for a free block */
};

/* A worker's numbers at one moment. */
struct worker_snapshot {
    struct engine_stats engine;
    struct upstream_stats *upstreams; /* room for config->n_upstreams */
    bool *ready;                      /* the same */
    struct worker_counters counters;
    struct cluster_state *states;   /* node_report_new(); NULL: not asked for */
    struct grpc_stats *grpc;        /* grpc_metrics_new(); the same */
    struct channel_state *channels; /* channel_report_new(); the same */
};

struct worker {
    uv_loop_t loop; /* loop.data is the worker */
    uv_prepare_t prepare;
    uv_check_t check;
    uv_timer_t timer;        /* engine_deadline() */
    uv_timer_t read_timer;   /* sockets that wait for a block read again */
    uv_timer_t accept_timer; /* listeners that wait for handles go on */
    uv_timer_t drain_timer;  /* the end of drain_timeout */
    uv_async_t async;        /* somebody left a message below */

    const struct config *config; /* borrowed */
    struct log *log;             /* shared by all workers */
    struct engine *engine;       /* owned */
    struct memory *memory;       /* borrowed from engine */
    struct buf *block;           /* owned reference: where reads go */
    uint64_t now_us;             /* of this loop iteration; 0: not asked yet */
    uint64_t timer_at_us;        /* what timer is set to; UINT64_MAX: off */
    bool has_work;               /* the engine may have actions */
    bool draining, hurried;
    bool stopping;

    struct socket **sockets; /* owned, by conn_index(); NULL where none is */
    uint32_t n_sockets;
    struct listener *listeners;     /* owned, config->n_listeners */
    struct resolution *resolutions; /* owned list of what is being resolved */
    int *spares;                    /* owned handles kept for hard times */
    uint32_t n_spares, spares_max;
    struct worker_counters counters;

    uv_mutex_t mutex; /* guards the messages below */
    uv_cond_t answered;
    bool drain_asked, hurry_asked;
    struct worker_snapshot *question; /* borrowed until answered or given up */
};

/* Create one of config->process.workers. fds are its listening
 * sockets, one for each listener, taken over in any case. Returns NULL when
 * out of memory or handles. */
struct worker *worker_new(const struct config *config,
                          struct log *log,
                          const int *fds);

/* Run until drained. Call once, on the worker's thread. */
void worker_run(struct worker *w);

/* Returns false when a name is still being resolved on another thread: then
 * the worker's memory stays, and the process must end without waiting. */
bool worker_free(struct worker *w);

/* From any thread: finish what is in flight, then leave worker_run(). */
void worker_drain(struct worker *w);
/* The same, after that: give what is in flight no more time. */
void worker_hurry(struct worker *w);

/* From any thread but the worker's, one at a time: wait at most a second for
 * its numbers. Returns false when the worker does not answer. */
bool worker_ask(struct worker *w, struct worker_snapshot *snapshot);

/* For the files of this folder, on the worker's thread. */

/* The time of this loop iteration. */
uint64_t worker_now(struct worker *w);

/* Let the engine know; now_us is filled in. Its actions are carried out at the
 * end of the iteration. */
void worker_step(struct worker *w, struct event *event);

/* The socket of a connection, or NULL when it is gone. */
struct socket *worker_find(const struct worker *w, conn_id id);

/* Enter a socket under its id. Returns false when out of memory. */
bool worker_enter(struct worker *w, conn_id id, struct socket *s);
void worker_leave(struct worker *w, conn_id id);

/* Close one handle of the reserve so that the caller can have it. Returns
 * false when none is left. */
bool worker_spare(struct worker *w);
/* Fill the reserve again, as far as possible. */
void worker_refill(struct worker *w);

static inline struct worker *worker_of(const uv_handle_t *handle)
{
    return handle->loop->data;
}

#endif
