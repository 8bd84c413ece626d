#include "proxy/io/sockaddr.h"

#include <arpa/inet.h>
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <string.h>
#include <strings.h>
#include <sys/un.h>

bool sockaddr_from(const struct address *a, struct sockaddr_any *out)
{
    *out = (struct sockaddr_any){ .len = 0 };
    if (a->is_unix) {
        struct sockaddr_un un = { .sun_family = AF_UNIX };
        size_t len = strlen(a->host);
        if (len == 0 || len >= sizeof(un.sun_path)) {
            return false;
        }
        memcpy(un.sun_path, a->host, len);
        memcpy(&out->storage, &un, sizeof(un));
        out->len = sizeof(un);
        return true;
    }

    struct sockaddr_in in = { .sin_family = AF_INET,
                              .sin_port = htons(a->port) };
    if (inet_pton(AF_INET, a->host, &in.sin_addr) == 1) {
        memcpy(&out->storage, &in, sizeof(in));
        out->len = sizeof(in);
        return true;
    }
    struct sockaddr_in6 in6 = { .sin6_family = AF_INET6,
                                .sin6_port = htons(a->port) };
    if (inet_pton(AF_INET6, a->host, &in6.sin6_addr) == 1) {
        memcpy(&out->storage, &in6, sizeof(in6));
        out->len = sizeof(in6);
        return true;
    }
    return false;
}

static void unix_to(const struct sockaddr *sa,
                    socklen_t len,
                    struct address *out)
{
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    memcpy(&un, sa, len < sizeof(un) ? len : sizeof(un));
    out->is_unix = true;
    size_t n = strnlen(un.sun_path, sizeof(un.sun_path));
    memcpy(out->host, un.sun_path, n);
}

void sockaddr_to(const struct sockaddr *sa, socklen_t len, struct address *out)
{
    *out = (struct address){ .is_unix = false };
    if (sa->sa_family == AF_INET && len >= sizeof(struct sockaddr_in)) {
        struct sockaddr_in in;
        memcpy(&in, sa, sizeof(in));
        out->port = ntohs(in.sin_port);
        inet_ntop(AF_INET, &in.sin_addr, out->host, sizeof(out->host));
    } else if (sa->sa_family == AF_INET6 &&
               len >= sizeof(struct sockaddr_in6)) {
        struct sockaddr_in6 in6;
        memcpy(&in6, sa, sizeof(in6));
        out->port = ntohs(in6.sin6_port);
        inet_ntop(AF_INET6, &in6.sin6_addr, out->host, sizeof(out->host));
    } else if (sa->sa_family == AF_UNIX) {
        unix_to(sa, len, out);
    }
}

bool sockaddr_of_peer(int fd, struct address *out)
{
    struct sockaddr_any peer = { .len = sizeof(peer.storage) };
    struct sockaddr *sa = (struct sockaddr *)&peer.storage;
    if (getpeername(fd, sa, &peer.len) != 0) {
        return false;
    }
    sockaddr_to(sa, peer.len, out);
    return true;
}

bool sockaddr_of_self(int fd, struct address *out)
{
    struct sockaddr_any own = { .len = sizeof(own.storage) };
    struct sockaddr *sa = (struct sockaddr *)&own.storage;
    if (getsockname(fd, sa, &own.len) != 0) {
        return false;
    }
    sockaddr_to(sa, own.len, out);
    return true;
}

enum io_error io_error_of(int error)
{
    switch (error) {
    case ECONNRESET:
    case ECONNABORTED:
    case EPIPE: return IO_RESET;
    case ECONNREFUSED:
    case ENOENT: return IO_REFUSED;
    case ETIMEDOUT: return IO_TIMED_OUT;
    case EHOSTUNREACH:
    case EHOSTDOWN:
    case ENETUNREACH:
    case ENETDOWN: return IO_UNREACHABLE;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
    case EAGAIN: /* connect(): the backlog of a Unix socket is full */
    case EADDRNOTAVAIL: return IO_NO_RESOURCES;
    default: return IO_OTHER;
    }
}

static void set_int(int fd, int level, int option, uint64_t value)
{
    int v = value > INT_MAX ? INT_MAX : (int)value;
    (void)setsockopt(fd, level, option, &v, sizeof(v));
}

/* Keepalive counts in seconds; less than one means one. */
static uint64_t whole_seconds(uint64_t us)
{
    return us < 1000000 ? 1 : us / 1000000;
}

void sockaddr_tune_tcp(int fd,
                       const struct process_config *process,
                       uint64_t unconfirmed_us)
{
    set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    if (process->keepalive_idle_us > 0) {
        set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
        set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE,
                whole_seconds(process->keepalive_idle_us));
        set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL,
                whole_seconds(process->keepalive_interval_us));
        set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, process->keepalive_probes);
    }
    if (unconfirmed_us > 0) {
        set_int(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, unconfirmed_us / 1000);
    }
}

static bool is_number(const char *text)
{
    return *text != '\0' && strspn(text, "0123456789") == strlen(text);
}

bool host_is_literal(const char *host)
{
    char name[INET6_ADDRSTRLEN + 16];
    if (strlen(host) >= sizeof(name)) {
        return false;
    }
    memcpy(name, host, strlen(host) + 1);

    unsigned char binary[sizeof(struct in6_addr)];
    if (name[0] == '[') {
        char *end = strchr(name, ']');
        if (end == NULL ||
            (end[1] != '\0' && (end[1] != ':' || !is_number(end + 2)))) {
            return false;
        }
        *end = '\0';
        return inet_pton(AF_INET6, name + 1, binary) == 1;
    }
    char *colon = strchr(name, ':');
    if (colon != NULL) {
        if (!is_number(colon + 1)) {
            return false;
        }
        *colon = '\0';
    }
    return strcasecmp(name, "localhost") == 0 ||
           inet_pton(AF_INET, name, binary) == 1;
}
