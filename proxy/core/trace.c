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
    switch (type) {
    case TRACE_LANE: return "lane";
    case TRACE_RETRY: return "retry";
    case TRACE_GIVE_UP: return "give_up";
    case TRACE_CLIENT: return "client";
    case TRACE_UPSTREAM: return "upstream";
    case TRACE_LIMIT: return "limit";
    case TRACE_DRAIN: return "drain";
    case TRACE_TOPOLOGY: return "topology";
    }
    assert(0 && "not a trace_type");
    return NULL;
}
