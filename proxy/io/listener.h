/* Listening sockets, and the clients that come in through them. */
#ifndef IO_LISTENER_H
#define IO_LISTENER_H

#include "proxy/io/worker.h"

enum {
    LISTENER_ERROR_MAX = 512
};

struct listener_options {
    const struct address *address;
    const struct process_config *process;
    uint32_t backlog;
    uint32_t unix_mode;
    uint64_t unconfirmed_us; /* TCP_USER_TIMEOUT of its clients; 0: none */
    bool reuse_port;         /* several workers bind the same TCP port */
    const char *option;      /* how to choose another address: "--listen" */
};

/* Bind and listen. Returns a non-blocking handle, or -1 and, in error, one
 * line with place and cure. */
int listener_open(const struct listener_options *options,
                  char error[LISTENER_ERROR_MAX]);

/* One listening socket of one worker. */
struct listener {
    uv_poll_t poll;
    int fd;         /* owned; -1: closed */
    unsigned index; /* into config->listeners */
};

/* Begin to accept. fd is taken over in any case. */
int listener_start(struct worker *w,
                   struct listener *l,
                   unsigned index,
                   int fd);

/* Accept nothing more. */
void listeners_close(struct worker *w);

#endif
