/* Addresses as the system wants them, and its errors as the core knows them. */
#ifndef IO_SOCKADDR_H
#define IO_SOCKADDR_H

#include <sys/socket.h>

#include "proxy/core/event.h"

struct sockaddr_any {
    struct sockaddr_storage storage;
    socklen_t len;
};

/* Translate a numeric or Unix address. Returns false when the host is a name,
 * or the path too long. */
bool sockaddr_from(const struct address *a, struct sockaddr_any *out);

/* Translate back, as numbers. A Unix socket without a name has an empty
 * host. */
void sockaddr_to(const struct sockaddr *sa, socklen_t len, struct address *out);

/* The address of the other side of a connection. Returns false when it is not
 * connected any more. */
bool sockaddr_of_peer(int fd, struct address *out);

/* The address of our side of it. */
bool sockaddr_of_self(int fd, struct address *out);

/* What an errno value means to the core. */
enum io_error io_error_of(int error);

/* The keepalive of section [tcp], and no delay, for a TCP socket. A listening
 * socket hands them on to the connections it accepts. unconfirmed_us is its
 * TCP_USER_TIMEOUT; 0: none. Failures are not worth a refusal: the connection
 * works without. */
void sockaddr_tune_tcp(int fd,
                       const struct process_config *process,
                       uint64_t unconfirmed_us);

/* Whether a Host header (RFC 9110 7.2), with or without a port, names an IP
 * address or localhost. Anything else may be a web page that had its own name
 * resolved to us. */
bool host_is_literal(const char *host);

#endif
