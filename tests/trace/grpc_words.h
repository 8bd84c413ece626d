/* What a line of a gRPC trace says of HTTP/2 (README.md): pieces that leave one
 * after another, or are expected so. */
#ifndef TRACE_GRPC_WORDS_H
#define TRACE_GRPC_WORDS_H

#include "tests/sim/bytes.h"

enum {
    PIECES_MAX = 16,  /* of one line */
    FIELDS_MAX = 400, /* of one header block */
};

enum piece_kind {
    PIECE_REQUEST,
    PIECE_HEADERS,
    PIECE_TRAILERS_ONLY,
    PIECE_TRAILERS,
    PIECE_DATA,
    PIECE_END, /* END_STREAM that no trailers carry */
    PIECE_RESET,
    PIECE_GOAWAY,
    PIECE_PING,
    PIECE_PONG
};

/* value.data NULL: the field is not there. */
struct field_text {
    struct bytes name, value;
    bool absent;
};

struct piece {
    enum piece_kind kind;
    struct field_text *fields; /* owned, n_fields */
    size_t n_fields;
    struct bytes data; /* DATA; the debug data of GOAWAY */
    uint32_t code;     /* RESET, GOAWAY */
    int64_t last;      /* GOAWAY: the number of the last stream; -1: not said */
};

struct pieces {
    struct piece of[PIECES_MAX];
    size_t n;
};

/* "headers x-a=1 message "hello" trailers status=0". False: the line cannot be
 * read. Free with pieces_fini() in any case. */
bool pieces_read(const char *line, struct pieces *out);
void pieces_fini(struct pieces *p);

#endif
