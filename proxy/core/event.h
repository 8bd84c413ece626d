/* What the shell tells the core, and what the core asks the shell to do
 * (DESIGN.md §1). */
#ifndef CORE_EVENT_H
#define CORE_EVENT_H

#include <stdbool.h>
#include <stdint.h>

#include "config/config.h"
#include "proxy/core/buf.h"

/* Names one connection across the boundary: the lower half is an index that
 * small tables may use, the upper half a generation, so that a late callback
 * for a closed connection finds nothing instead of a stranger. Never 0. */
typedef uint64_t conn_id;

static inline uint32_t conn_index(conn_id id)
{
    return (uint32_t)id;
}

enum event_type {
    EVENT_ACCEPTED,  /* conn (from engine_reserve): a client connected to
                        listener */
    EVENT_RESOLVED,  /* conn: resolved, or error */
    EVENT_CONNECTED, /* conn: error is 0, or why it failed (then conn is gone) */
    EVENT_BYTES,     /* conn: bytes arrived */
    EVENT_WRITTEN,   /* conn: count more bytes were taken by the kernel */
    EVENT_ENDED,     /* conn: the peer sends no more (FIN), but may still read;
                        the core will ask for ACTION_CLOSE */
    EVENT_LEFT,      /* conn, a client that is paused: the same, seen although
                        nothing is read; bytes may be left in front of that,
                        and EVENT_ENDED follows when they have been read */
    EVENT_CLOSED,    /* conn: gone; error says why, 0 for end of stream */
    EVENT_TIMEOUT,   /* engine_deadline() has passed */
    EVENT_CONFIG,    /* a new, already validated config */
    EVENT_DRAIN,     /* finish what is in flight, accept nothing new */
};

/* Why a connection failed or ended. The shell maps what the system reports;
 * the core needs to know only what it can decide by. */
enum io_error {
    IO_END,          /* the peer sent FIN: end of stream */
    IO_RESET,        /* the peer sent RST: ECONNRESET, EPIPE */
    IO_REFUSED,      /* ECONNREFUSED, ENOENT of a Unix socket */
    IO_TIMED_OUT,    /* ETIMEDOUT: keepalive or TCP_USER_TIMEOUT */
    IO_UNREACHABLE,  /* EHOSTUNREACH, ENETUNREACH */
    IO_NO_NAME,      /* the name does not resolve */
    IO_NO_RESOURCES, /* EMFILE, ENOBUFS, ENOMEM, EADDRNOTAVAIL */
    IO_OTHER,
    IO_ERROR_COUNT
};

/* Words for a log line or an error reply. */
const char *io_error_text(enum io_error error);

struct event {
    enum event_type type;
    uint64_t now_us; /* monotonic; the core's only clock */
    conn_id conn;
    int error; /* 0, or 1 + enum io_error (so that 0 means success); CLOSED
                  carries 1 + IO_END for end of stream */
    union {
        struct slice bytes;       /* BYTES: owned by the core from here on */
        uint64_t count;           /* WRITTEN */
        struct {                  /* ACCEPTED */
            unsigned listener;    /* index into config->listeners */
            uint16_t local_port;  /* where the client connected to; 0: not
                                     told */
            uint8_t local_ip[16]; /* as of ip_parse() */
        };
        struct {
            const struct address *list; /* borrowed during the step */
            unsigned n;
        } resolved;                  /* RESOLVED: numeric addresses */
        const struct config *config; /* CONFIG: must outlive the engine */
    };
};

enum action_type {
    ACTION_RESOLVE, /* address (a name) -> EVENT_RESOLVED for conn */
    ACTION_CONNECT, /* address (numeric or Unix) -> EVENT_CONNECTED */
    ACTION_WRITE,   /* bytes -> EVENT_WRITTEN, once for each write the kernel
                       took something of */
    ACTION_PAUSE,   /* stop reading: the other side is slower */
    ACTION_RESUME,
    ACTION_CLOSE, /* close now, drop what is unwritten; no event follows */
};

struct action {
    enum action_type type;
    conn_id conn;
    const struct address *address; /* RESOLVE, CONNECT: borrowed until the next
                                      engine_step() */
    struct chain bytes;            /* WRITE: owned by the shell from here on */
};

#endif
