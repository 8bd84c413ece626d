/* Output of an HTTP/2 session on its way to the kernel. Frames of all sessions
 * are packed into one block of the engine; content goes by reference. */
#ifndef CORE_GRPC_OUTPUT_H
#define CORE_GRPC_OUTPUT_H

#include "parser/h2.h"
#include "proxy/core/conn.h"

enum {
    GRPC_OUT_HIGH = 64 * 1024, /* unwritten: no more is made (FL6) */
    GRPC_OUT_LOW = 32 * 1024,  /* and from here on again */
};

/* Inside a client and a link. */
struct grpc_output {
    uint64_t handed;      /* bytes handed to the shell, ever */
    uint64_t written;     /* of these, taken by the kernel: exact (F-a) */
    uint64_t progress_us; /* when it last took some, or there was none */
    uint64_t counted;     /* of e->grpc.bytes */
    bool blocked;         /* GRPC_OUT_HIGH was reached */
};

/* The session has something to say: its owner's flush() will be called before
 * the shell takes what there is. */
void grpc_touch(struct engine *e, struct conn *conn);

/* Give a session received bytes; s is owned. NULL, or why the session cannot go
 * on (h2_receive()). */
const char *grpc_receive(struct engine *e, struct h2 *h2, struct slice s);

/* h2's write(): frames, copied behind conn->out. False: no memory. */
bool grpc_output_write(struct engine *e, struct conn *conn, struct span bytes);

/* In flush(): let h2 produce as much as there is room for. NULL, or why the
 * session is lost. */
const char *grpc_output_make(struct engine *e,
                             struct conn *conn,
                             struct grpc_output *o,
                             struct h2 *h2);

/* EVENT_WRITTEN. */
void grpc_output_written(struct engine *e,
                         struct conn *conn,
                         struct grpc_output *o,
                         uint64_t count);

/* The session is given up. */
void grpc_output_fini(struct engine *e, struct grpc_output *o);

/* Bytes the kernel has not taken. */
static inline uint64_t grpc_output_waiting(const struct grpc_output *o,
                                           const struct conn *conn)
{
    return o->handed - o->written + conn->out.bytes;
}

#endif
