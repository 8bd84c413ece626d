/* The running process: listening sockets, workers, admin pages, signals. */
#ifndef IO_SERVER_H
#define IO_SERVER_H

#include "config/config.h"

enum {
    SERVER_ERROR_MAX = 512
};

/* Serve until a signal ends it. Returns 0, or -1 and one line of error when it
 * could not start. */
int server_run(const struct config *config,
               const char *version,
               char error[SERVER_ERROR_MAX]);

#endif
