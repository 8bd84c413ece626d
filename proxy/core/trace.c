#include "proxy/core/trace.h"

#include <assert.h>
#include <stddef.h>

const char *io_error_text(enum io_error error)
{
    switch (error) {
    case IO_END: return "connection closed by peer";
    case IO_RESET: return "connection reset by peer";
    case IO_REFUSED: return "connection refused";
    case IO_TIMED_OUT: return "connection timed out";
    case IO_UNREACHABLE: return "host or network unreachable";
    case IO_NO_NAME: return "name does not resolve";
    case IO_NO_RESOURCES: return "out of sockets, ports or memory";
    case IO_OTHER: return "input/output error";
    case IO_ERROR_COUNT: break;
    }
    assert(0 && "not an io_error");
    return NULL;
}

const char *trace_type_name(enum trace_type type)
{
    static const char *const names[TRACE_TYPE_COUNT] = {
        [TRACE_LANE] = "lane",
        [TRACE_RETRY] = "retry",
        [TRACE_GIVE_UP] = "give_up",
        [TRACE_CLIENT] = "client",
        [TRACE_UPSTREAM] = "upstream",
        [TRACE_LIMIT] = "limit",
        [TRACE_DRAIN] = "drain",
        [TRACE_TOPOLOGY] = "topology",
        [TRACE_PUBSUB] = "pubsub",
        [TRACE_COMMANDS] = "commands",
        [TRACE_CALL_DONE] = "call_done",
        [TRACE_ATTEMPT_DONE] = "attempt_done",
        [TRACE_CALL_COMMITTED] = "call_committed",
        [TRACE_CONNECT_FAILED] = "connect_failed",
        [TRACE_CONNECTION_READY] = "connection_ready",
        [TRACE_CONNECTION_LOST] = "connection_lost",
        [TRACE_GOAWAY_RECEIVED] = "goaway_received",
        [TRACE_KEEPALIVE_DOUBLED] = "keepalive_doubled",
        [TRACE_ENDPOINT_REMOVED] = "endpoint_removed",
        [TRACE_RESOLVE_FAILED] = "resolve_failed",
        [TRACE_THROTTLE_CLOSED] = "throttle_closed",
        [TRACE_THROTTLE_OPENED] = "throttle_opened",
        [TRACE_ABUSE] = "abuse",
        [TRACE_BAD_PREFACE] = "bad_preface",
        [TRACE_WRITE_STALLED] = "write_stalled",
    };
    assert((unsigned)type < TRACE_TYPE_COUNT);
    return names[type];
}
