/* The admin pages over HTTP: /live /ready /metrics /topology /channels /config
 * /events. Read only: nothing here changes the process. */
#ifndef IO_ADMIN_H
#define IO_ADMIN_H

#include <stdatomic.h>

#include "proxy/io/log.h"
#include "proxy/io/worker.h"

struct admin_options {
    const struct config *config;
    struct log *log;
    struct worker **workers; /* n_workers */
    size_t n_workers;
    const atomic_bool *draining;
    const char *version;
};

struct admin;

/* Serve on fd, a listening socket that is taken over in any case, from a
 * thread of its own. options is copied, what it points to is borrowed until
 * admin_stop(). Returns NULL when that cannot be. */
struct admin *admin_start(const struct admin_options *options, int fd);
void admin_stop(struct admin *a);

#endif
