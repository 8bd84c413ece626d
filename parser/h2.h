/* One HTTP/2 session: received bytes become events, what is submitted becomes
 * bytes (grpc.md §5). The only user of nghttp2. No policy: what is allowed of
 * HTTP is checked here, what is done about it is decided by the owner.
 *
 * An event handler may submit, reset, resume and give credit, to this session
 * and to others; it must not call h2_receive(), h2_send() or h2_free() of any
 * session (N6). */
#ifndef PARSER_H2_H
#define PARSER_H2_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "parser/span.h"

struct h2;

enum h2_role {
    H2_SERVER, /* of a client's connection */
    H2_CLIENT  /* of a connection to an endpoint */
};

/* RFC 9113 §7 */
enum h2_code {
    H2_NO_ERROR,
    H2_PROTOCOL_ERROR,
    H2_INTERNAL_ERROR,
    H2_FLOW_CONTROL_ERROR,
    H2_SETTINGS_TIMEOUT,
    H2_STREAM_CLOSED,
    H2_FRAME_SIZE_ERROR,
    H2_REFUSED_STREAM,
    H2_CANCEL,
    H2_COMPRESSION_ERROR,
    H2_CONNECT_ERROR,
    H2_ENHANCE_YOUR_CALM,
    H2_INADEQUATE_SECURITY,
    H2_HTTP_1_1_REQUIRED
};
/* "CANCEL"; "unknown" for what is not in the list. Static. */
const char *h2_code_name(uint32_t code);

/* Names that redial looks at or replaces. */
enum h2_name {
    H2_OTHER,
    H2_METHOD, /* :method */
    H2_SCHEME,
    H2_PATH,
    H2_AUTHORITY,
    H2_STATUS,
    H2_TE,
    H2_HOST,
    H2_CONTENT_TYPE,
    H2_CONTENT_LENGTH,
    H2_GRPC_TIMEOUT,
    H2_GRPC_STATUS,
    H2_GRPC_MESSAGE,
    H2_GRPC_PUSHBACK, /* grpc-retry-pushback-ms */
    H2_GRPC_ATTEMPTS, /* grpc-previous-rpc-attempts */
    H2_NAME_COUNT
};

enum h2_field_flag {
    H2_FIELD_NO_INDEX = 1, /* the peer's table is not to keep it */
    H2_FIELD_COPY = 2,     /* submitting: the spans end with the call */
};

struct h2_field {
    struct span name, value;
    uint8_t id;    /* enum h2_name */
    uint8_t flags; /* enum h2_field_flag */
};

/* A received header block. Fields in the order of arrival, pseudo-headers
 * included; white space around values is gone. */
struct h2_block {
    uint32_t refs;
    uint16_t n, cap;
    uint16_t n_dropped; /* fields with illegal characters (V11) */
    bool too_large;     /* more than max_header_list_size: n is cut (V6) */
    bool too_many;      /* more than H2_FIELDS_MAX */
    uint32_t size;      /* sum of name + value + 32, of all that arrived */
    uint16_t first[H2_NAME_COUNT]; /* 1 + index in fields; 0: absent */
    uint8_t twice[H2_NAME_COUNT];  /* how often after the first */
    struct h2_field *fields;       /* in the same memory */
};

enum {
    H2_FIELDS_MAX = 256, /* of one block (V6) */
    H2_FRAME_BYTES = 16384,
};

void h2_block_ref(struct h2_block *b);
void h2_block_unref(struct h2_block *b);
/* The value of the first field of that name, or { NULL, 0 }. */
static inline struct span h2_block_value(const struct h2_block *b,
                                         enum h2_name name)
{
    return b->first[name] == 0 ? (struct span){ NULL, 0 }
                               : b->fields[b->first[name] - 1].value;
}

/* One stream. Valid from the request (server: its `headers` event; client:
 * h2_request()) to its `closed` event. */
struct h2_stream {
    void *user;      /* the owner's; NULL: nobody is interested any more */
    int32_t id;      /* client: 0 until the library has given one */
    bool is_invalid; /* the peer broke the rules of HTTP here; closed follows */
    /* the rest belongs to h2.c */
    bool is_shown;    /* the owner knows of it */
    bool is_deferred; /* nghttp2 waits for h2_resume() */
    bool is_reset;    /* RST_STREAM has been submitted */
    bool got_final;   /* client: response headers that are not 1xx */
    bool remote_end, local_end;
    bool in_turn;              /* lets others go first */
    uint32_t turn_bytes;       /* sent in its turn */
    size_t credit;             /* not yet given to nghttp2 */
    int64_t length_left;       /* of content-length; -1: not told */
    struct h2_block *held_out; /* referenced by queued HEADERS */
    struct h2_stream *prev, *next, *next_turn;
};

enum h2_headers {
    H2_REQUEST,
    H2_RESPONSE, /* never 1xx */
    H2_TRAILERS
};

/* What pull() said. */
enum h2_pull_flag {
    H2_PULL_END = 1,      /* these are the last bytes, and the last frame */
    H2_PULL_TRAILERS = 2, /* these are the last bytes; h2_trailers() has been
                             called */
};

enum h2_unsent {
    H2_UNSENT_GONE,      /* GOAWAY, closing or closed: it never left (F1) */
    H2_UNSENT_TOO_LARGE, /* FRAME_SIZE_ERROR (F-c) */
    H2_UNSENT_BROKEN     /* HEADER_COMP (F-c) */
};

/* What the owner of a session does when something happens. All are set. */
struct h2_handler {
    /* A whole header block. One reference to it is the handler's; it may be the
     * block of other streams, too, and must not be changed. end: END_STREAM. */
    void (*headers)(struct h2 *h,
                    struct h2_stream *s,
                    enum h2_headers kind,
                    struct h2_block *block,
                    bool end);
    /* Part of the content; bytes lie in what h2_receive() was given. Each byte
     * must be credited: to the connection, and, while it is open, to the
     * stream. */
    void (*data)(struct h2 *h, struct h2_stream *s, struct span bytes);
    /* END_STREAM by a DATA frame or by request trailers (V8: these are
     * dropped). */
    void (*ended)(struct h2 *h, struct h2_stream *s);
    /* The stream is over; code is why (H2_NO_ERROR: both sides have ended).
     * s is gone afterwards. */
    void (*closed)(struct h2 *h, struct h2_stream *s, uint32_t code);
    /* A HEADERS frame of ours is in the output: its last byte is byte number
     * `offset` of all that this session has produced (F-b). */
    void (*headers_sent)(struct h2 *h,
                         struct h2_stream *s,
                         uint64_t offset,
                         bool end);
    /* END_STREAM of ours is in the output, by whatever frame (Z4). */
    void (*end_sent)(struct h2 *h, struct h2_stream *s);
    /* A HEADERS frame of ours will never leave. */
    void (*headers_unsent)(struct h2 *h,
                           struct h2_stream *s,
                           enum h2_unsent why);
    /* Up to max bytes of content may leave now: how many are there? 0 without
     * a flag: none yet; h2_resume() tells of more. */
    size_t (*pull)(struct h2 *h,
                   struct h2_stream *s,
                   size_t max,
                   unsigned *flags);
    /* The n bytes that pull() promised: copied to out... */
    void (*copy)(struct h2 *h, struct h2_stream *s, uint8_t *out, size_t n);
    /* ...or put behind what write() was given, by reference. False: no memory;
     * the session is lost. */
    bool (*pass)(struct h2 *h, struct h2_stream *s, size_t n);
    /* Output. False: no memory; the session is lost. */
    bool (*write)(struct h2 *h, struct span bytes);
    void (*settings)(struct h2 *h); /* the peer's, in force from now on */
    void (*settings_acked)(struct h2 *h);
    void (*ping)(struct h2 *h); /* has been answered already */
    void (*pong)(struct h2 *h, uint64_t opaque);
    void (*goaway)(struct h2 *h,
                   int32_t last_stream,
                   uint32_t code,
                   struct span debug);
    /* A PING, SETTINGS, PRIORITY, WINDOW_UPDATE, RST_STREAM or unknown frame
     * arrived, or an empty DATA frame without END_STREAM: floods. s may be
     * NULL. */
    void (*control)(struct h2 *h, bool empty_data);
    /* Server: a request that broke the rules of HTTP was reset before it was
     * shown. NULL: nobody asks. */
    void (*rejected)(struct h2 *h);
};

/* Where memory comes from. alloc returns NULL when there is none; free accepts
 * what alloc gave. */
struct h2_allocator {
    void *(*alloc)(void *context, size_t size);
    void (*free)(void *context, void *block);
    void *context;
};

/* The memory of all sessions of one engine: small pieces come from free lists,
 * in slabs that stay until the end; large ones from the allocator itself. */
struct h2_memory;
/* allocator is copied; NULL means malloc and free. NULL: no memory. */
struct h2_memory *h2_memory_new(const struct h2_allocator *allocator);
/* After the last session has been freed and the last block given back. */
void h2_memory_free(struct h2_memory *m);

struct h2_options {
    enum h2_role role;
    const struct h2_handler *handler; /* borrowed, static */
    void *owner;                      /* h2_owner() */
    struct h2_memory *memory;         /* borrowed */
    uint32_t max_streams;             /* server: of the peer */
    uint32_t stream_window, connection_window;
    uint32_t max_header_list_size;
    uint32_t reset_burst, reset_rate; /* server: stream_reset_rate_limit; 0:
                                         off (simulator) */
};

/* A session whose first bytes (server: SETTINGS; client: magic and SETTINGS;
 * both: the connection's WINDOW_UPDATE) wait for h2_send(). NULL: no memory. */
struct h2 *h2_new(const struct h2_options *options);
/* No events. Streams that are still open are forgotten: end them before. */
void h2_free(struct h2 *h);
void *h2_owner(const struct h2 *h);

/* Take all bytes. NULL, or why the session cannot go on (static words, such as
 * "BAD_CLIENT_MAGIC"): h2_send() may still have a GOAWAY to say. */
const char *h2_receive(struct h2 *h, struct span bytes);

/* Produce output until there is none or limit bytes are out. NULL, or why the
 * session is lost. */
const char *h2_send(struct h2 *h, size_t limit);
/* Whether h2_send() would have something to do, as far as is known. */
bool h2_wants_send(const struct h2 *h);
/* Nothing will come or go any more: close when the output has left. */
bool h2_is_over(const struct h2 *h);
/* Bytes produced so far. */
uint64_t h2_produced(const struct h2 *h);
/* Why this side has ended the session because of what the peer did, once the
 * GOAWAY that says so is in the output: "PROTOCOL_ERROR". NULL: it has not. */
const char *h2_complaint(const struct h2 *h);

/* Client: a request. fields are sent as given; those without H2_FIELD_COPY lie
 * in block, which is referenced until the frame has left. end: no content.
 * NULL, with *no_ids: the connection has no stream ids left; else no memory. */
struct h2_stream *h2_request(struct h2 *h,
                             const struct h2_field *fields,
                             size_t n,
                             struct h2_block *block,
                             bool end,
                             void *user,
                             bool *no_ids);
/* Server: the response headers; end: and nothing else. block as above, NULL:
 * every field is copied. False: no memory. */
bool h2_respond(struct h2 *h,
                struct h2_stream *s,
                const struct h2_field *fields,
                size_t n,
                struct h2_block *block,
                bool end);
/* Trailers. Inside pull(): behind the content. Elsewhere, with block NULL:
 * instead of all content that has not left, whatever the peer's window; pull()
 * is not asked any more. */
bool h2_trailers(struct h2 *h,
                 struct h2_stream *s,
                 const struct h2_field *fields,
                 size_t n,
                 struct h2_block *block);
/* More content, or its end, is there for pull(). */
void h2_resume(struct h2 *h, struct h2_stream *s);
/* RST_STREAM. Discards what of the stream is queued (N12). */
void h2_reset(struct h2 *h, struct h2_stream *s, enum h2_code code);

/* The receiver's credit (FL1). Returns whether there may be something to send
 * now; small credit is gathered. */
bool h2_credit_stream(struct h2 *h, struct h2_stream *s, size_t n);
bool h2_credit_connection(struct h2 *h, size_t n);
/* Content that arrived and for which the connection was given no credit: what
 * the owner keeps back. More is lost for good (FL2). */
uint64_t h2_uncredited(const struct h2 *h);

void h2_ping(struct h2 *h, uint64_t opaque);
/* GOAWAY 2^31-1: more is still accepted for a moment. The next PING leaves
 * behind it: its answer tells that the GOAWAY was seen. */
void h2_shutdown_notice(struct h2 *h);
/* GOAWAY: streams that have begun go on; none that begins from now on is told
 * of, for its client will begin it again elsewhere. */
void h2_goaway(struct h2 *h, enum h2_code code, const char *text);
/* GOAWAY, and the session is over once it is in the output. Nothing more is
 * received; no events come for the streams that are open. */
void h2_terminate(struct h2 *h, enum h2_code code, const char *text);

/* What the peer's SETTINGS say. */
uint32_t h2_peer_max_streams(const struct h2 *h);
uint32_t h2_peer_header_list_max(const struct h2 *h); /* UINT32_MAX: any */
/* The id the next request would have. */
uint32_t h2_next_id(const struct h2 *h);

#endif
