/* One end of an HTTP/2 connection in a gRPC trace: a client, or a server. It
 * does what lines of the trace say, and by itself only what HTTP/2 wants:
 * acknowledge SETTINGS, answer PING, give credit. */
#ifndef TRACE_GRPC_PEER_H
#define TRACE_GRPC_PEER_H

#include "parser/h2.h"
#include "tests/trace/grpc_words.h"

struct stage;
struct player;

enum {
    STREAMS_MAX = 600, /* of one connection, over its life */
};

/* A stream is known by its number: of a client as the trace says, of a server 1
 * for the first one it sees. */
struct peer_stream {
    unsigned number;
    struct h2_stream *stream; /* NULL: over */
    struct bytes out;         /* content that has not left */
    bool ends;                /* ... and then END_STREAM */
    bool has_trailers;        /* ... by these */
    struct pieces trailers;
    bool was_reset; /* by this peer */
    uint64_t owed;  /* credit, of a stingy peer */
};

/* What has arrived and no line has expected yet. */
struct sight {
    enum piece_kind kind;
    unsigned stream;        /* 0: it is about the connection */
    struct h2_block *block; /* of headers: one reference */
    struct bytes data;
    uint32_t code;
    int64_t last;
};

struct grpc_peer {
    struct h2 *h2;
    bool is_client;
    bool stingy;      /* gives no credit for streams by itself */
    bool mute;        /* what it says does not arrive */
    struct bytes out; /* said, not yet delivered */
    struct peer_stream streams[STREAMS_MAX];
    size_t n_streams;
    struct sight *sights; /* owned, n_sights in the order of arrival */
    size_t n_sights, sights_cap;
    size_t frame_left; /* of the frame that the kernel has taken a part of */
    const char *wrong; /* static; the proxy has broken HTTP/2 */
};

struct peer_options {
    bool is_client, stingy, mute;
    uint32_t max_streams, window, header_list;
};

/* words: "max_streams=1 window=100 header_list=4096 stingy mute"; false: it cannot
 * be read. */
bool peer_options_read(const char *words, struct peer_options *out);
struct grpc_peer *peer_new(const struct peer_options *o, struct h2_memory *m);
void peer_free(struct grpc_peer *p);

/* Bytes of the proxy arrive. */
void peer_receive(struct grpc_peer *p, struct span bytes);
/* What the session has to say goes to p->out. */
void peer_flush(struct grpc_peer *p);

/* Say these pieces on a stream, or (0) about the connection. NULL, or why that
 * cannot be. Pieces are taken over in part. */
const char *peer_say(struct grpc_peer *p,
                     unsigned stream,
                     struct pieces *pieces);
/* A stingy client gives the credit that it owes. */
const char *peer_credit(struct grpc_peer *p, unsigned stream);

/* The first thing that has arrived and was not expected on that stream; NULL:
 * nothing. */
struct sight *peer_sight(struct grpc_peer *p, unsigned stream);
void peer_sight_drop(struct grpc_peer *p, struct sight *s);
/* In words. */
void sight_print(const struct sight *s, struct bytes *out);

/* grpc_verbs.c */

/* Let all peers take what has arrived and say what they have to say; false: no
 * one had anything. */
bool peers_act(struct stage *s);
/* Write what no line has expected; false when nothing. */
bool peers_unexpected(const struct stage *s, struct bytes *text);

#endif
