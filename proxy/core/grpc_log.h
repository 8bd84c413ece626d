/* The request bytes of a call, kept so that another attempt can send them again
 * (grpc.md C5 to C7). Bytes count in e->grpc. */
#ifndef CORE_GRPC_LOG_H
#define CORE_GRPC_LOG_H

#include "proxy/core/buf.h"

struct engine;

struct grpc_log {
    struct chain bytes;  /* from base on */
    uint64_t base;       /* bytes dropped from the front; 0: intact */
    uint64_t received;   /* from the client, ever */
    uint64_t sent;       /* by the present attempt */
    uint64_t highest;    /* sent by any attempt: what the client was credited */
    struct segment *at;  /* where the present attempt goes on; NULL: at base +
                            what `sent` says */
    uint32_t at_offset;  /* in *at */
    uint32_t replayable; /* bytes that are kept only for a replay (FL4) */
    bool passing;        /* what is sent is dropped: no replay follows */
};

/* Store bytes; large ones by reference to what is being read. False: no
 * memory. */
bool grpc_log_add(struct engine *e, struct grpc_log *log, struct span bytes);

/* Bytes the present attempt has not sent. */
static inline uint64_t grpc_log_unsent(const struct grpc_log *log)
{
    return log->base + log->bytes.bytes - log->sent;
}

/* Bytes that were received and are kept. */
static inline uint64_t grpc_log_kept(const struct grpc_log *log)
{
    return log->bytes.bytes;
}

/* The next n unsent bytes are sent: copied to out... Returns how many of them
 * no attempt had sent before: the client's credit. */
uint64_t grpc_log_copy(struct engine *e,
                       struct grpc_log *log,
                       uint8_t *out,
                       size_t n);
/* ...or put into a chain, by reference. False: no memory; nothing happened. */
bool grpc_log_pass(struct engine *e,
                   struct grpc_log *log,
                   struct chain *out,
                   size_t n,
                   uint64_t *credit);

/* Another attempt begins at the first byte. The log is intact. */
void grpc_log_restart(struct grpc_log *log);

/* No replay will follow: what is sent is dropped, now and later (C6). */
void grpc_log_pass_through(struct engine *e, struct grpc_log *log);

/* Drop everything. */
void grpc_log_clear(struct engine *e, struct grpc_log *log);

/* Append bytes to a chain of gRPC content: large pieces refer to what is being
 * read, small ones are copied so that they do not pin its block (FL5). */
bool grpc_content_add(struct engine *e, struct chain *c, struct span bytes);

#endif
