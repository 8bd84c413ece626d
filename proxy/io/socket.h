/* One connection: its handle, and what the kernel did not take yet. */
#ifndef IO_SOCKET_H
#define IO_SOCKET_H

#include "proxy/io/worker.h"

/* Small on purpose: there is one for each idle client. */
struct socket {
    uv_poll_t poll; /* data is the socket, loop->data the worker */
    conn_id id;
    struct chain unsent; /* owned */
    int fd;              /* owned */
    uint8_t watched;     /* UV_READABLE, ...: what poll waits for */
    bool connecting : 1;
    bool paused : 1;  /* the core does not want bytes */
    bool ended : 1;   /* the peer sends no more */
    bool starved : 1; /* there was no block to read into */
    bool client : 1;  /* it was accepted */
    bool left : 1;    /* a client's end was seen while it was paused */
};

/* Make a socket of an accepted connection. fd is taken over in any case.
 * Returns false when memory or the kernel's tables are full: the connection is
 * closed then. */
bool socket_adopt(struct worker *w, conn_id id, int fd);

/* ACTION_CONNECT: begin; EVENT_CONNECTED says how it ended, perhaps before
 * this returns. */
void socket_connect(struct worker *w,
                    conn_id id,
                    const struct address *address);

/* ACTION_WRITE: takes over bytes. */
void socket_write(struct worker *w, struct socket *s, struct chain *bytes);

/* ACTION_PAUSE and ACTION_RESUME. */
void socket_pause(struct socket *s, bool paused);

/* Read again after waiting for a block. */
void socket_feed(struct socket *s);

/* Close now. The core is not told. */
void socket_close(struct worker *w, struct socket *s);

#endif
