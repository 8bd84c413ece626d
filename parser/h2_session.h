/* What the files of HTTP/2 sessions share: h2.c (life, submitting),
 * h2_receive.c and h2_send.c. Nobody else includes it. */
#ifndef PARSER_H2_SESSION_H
#define PARSER_H2_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include <nghttp2/nghttp2.h>

#include "parser/h2.h"
#include "parser/h2_block.h"
#include "parser/h2_sieve.h"

/* nghttp2 1.60 has new names for what used ssize_t. */
#if NGHTTP2_VERSION_NUM >= 0x013c00
typedef nghttp2_ssize lib_ssize;
typedef nghttp2_data_provider2 lib_content;

static inline lib_ssize lib_receive(nghttp2_session *session, struct span in)
{
    return nghttp2_session_mem_recv2(session, in.data, in.len);
}

static inline lib_ssize lib_send(nghttp2_session *session, const uint8_t **data)
{
    return nghttp2_session_mem_send2(session, data);
}

static inline int32_t lib_request(nghttp2_session *session,
                                  const nghttp2_nv *nva,
                                  size_t n,
                                  const lib_content *content,
                                  void *user)
{
    return nghttp2_submit_request2(session, NULL, nva, n, content, user);
}

static inline int lib_respond(nghttp2_session *session,
                              int32_t id,
                              const nghttp2_nv *nva,
                              size_t n,
                              const lib_content *content)
{
    return nghttp2_submit_response2(session, id, nva, n, content);
}
#else
typedef ssize_t lib_ssize;
typedef nghttp2_data_provider lib_content;

static inline lib_ssize lib_receive(nghttp2_session *session, struct span in)
{
    return nghttp2_session_mem_recv(session, in.data, in.len);
}

static inline lib_ssize lib_send(nghttp2_session *session, const uint8_t **data)
{
    return nghttp2_session_mem_send(session, data);
}

static inline int32_t lib_request(nghttp2_session *session,
                                  const nghttp2_nv *nva,
                                  size_t n,
                                  const lib_content *content,
                                  void *user)
{
    return nghttp2_submit_request(session, NULL, nva, n, content, user);
}

static inline int lib_respond(nghttp2_session *session,
                              int32_t id,
                              const nghttp2_nv *nva,
                              size_t n,
                              const lib_content *content)
{
    return nghttp2_submit_response(session, id, nva, n, content);
}
#endif

/* A HEADERS frame that the running lib_send() is about to return. */
struct h2_leaving {
    struct h2_stream *stream; /* NULL: none */
    bool end;
    bool is_closed; /* the stream, by this very frame */
    uint32_t code;
};

struct h2 {
    nghttp2_session *session;
    const struct h2_handler *handler;
    void *owner;
    struct h2_memory *memory;
    enum h2_role role;

    struct h2_stream *streams; /* all of them; owned */
    struct h2_stream *recent;  /* the last one looked for; may be NULL */
    struct h2_stream *turn_first, *turn_last; /* wait for their turn */

    struct h2_stream *reading_of; /* NULL: the block is of no interest */
    struct h2_reading reading;
    struct h2_sieve sieve; /* server: before the library */
    struct h2_leaving leaving;

    size_t credit;       /* of the connection, not yet given */
    uint64_t uncredited; /* content the owner has not given credit for */
    uint32_t credit_step, stream_credit_step;
    uint64_t produced, limit;
    const char *error;     /* the session is lost */
    const char *complaint; /* h2_complaint() */
    uint32_t own_code;     /* of the owner's last GOAWAY */
    int32_t last_request;  /* server: that GOAWAY's last stream id */
    uint64_t notice_ping;  /* leaves behind that GOAWAY; 0: none */
    bool notice_waits;     /* the GOAWAY of h2_shutdown_notice() */
    bool is_terminating, is_over;
    bool is_busy;   /* inside the library (N6) */
    bool is_broken; /* what the library has allocated must not be touched */
    size_t resizes_failed; /* before the library was called */
};

/* ---- h2.c ---- */

/* Remember that the session is lost, when rc says so. Returns rc == 0. */
bool h2_lib_ok(struct h2 *h, int rc);
/* Around what calls handlers. */
void h2_enter(struct h2 *h);
void h2_leave(struct h2 *h);
/* NULL: no memory. */
struct h2_stream *h2_stream_new(struct h2 *h, void *user);
/* The stream of that id that the library knows, or NULL. */
struct h2_stream *h2_stream_find(struct h2 *h, int32_t id);
/* Tell the owner, if it knows of the stream, and free it. */
void h2_stream_close(struct h2 *h, struct h2_stream *s, uint32_t code);
void h2_stream_release(struct h2_stream *s); /* its queued HEADERS */

/* ---- h2_receive.c, h2_send.c ---- */

void h2_receive_callbacks(nghttp2_session_callbacks *c);
void h2_send_callbacks(nghttp2_session_callbacks *c);
/* Reads the content of a stream. */
lib_ssize h2_read_content(nghttp2_session *session,
                          int32_t id,
                          uint8_t *out,
                          size_t max,
                          uint32_t *data_flags,
                          nghttp2_data_source *source,
                          void *context);
/* Take a stream from those that wait for their turn. */
void h2_turn_leave(struct h2 *h, struct h2_stream *s);

#endif
