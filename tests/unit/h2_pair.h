/* An HTTP/2 client and a server in one process, in memory. What happens to
 * each is written into its log, one line for each event. */
#ifndef UNIT_H2_PAIR_H
#define UNIT_H2_PAIR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "parser/h2.h"
#include "tests/unit/failing_allocator.h"

enum {
    TALKS_MAX = 64,
    LOG_BYTES = 64 * 1024
};

/* One stream as its owner sees it. */
struct talk {
    struct h2_stream *stream; /* NULL: free, or closed */
    const char *content;      /* borrowed; NULL: the letters a to z */
    size_t length, at;
    bool paused, end;       /* end: nothing more will come */
    const char *trailers;   /* "name: value\n..." instead of END_STREAM */
    uint64_t received;      /* bytes of content */
    uint64_t sum;           /* of these, to compare */
    size_t uncredited;      /* of the stream */
    struct h2_block *block; /* the last that came; a reference */
    uint64_t headers_end;   /* F-b */
    bool reset_in_end_sent; /* Z4 */
    bool trailers_late;     /* not with the last bytes */
};

struct side {
    struct h2 *h;
    struct h2_memory *memory;
    struct failing failing; /* what is told before side_open() stays */
    bool fails_once;        /* one allocation, not all that follow */
    struct talk talks[TALKS_MAX];
    uint8_t *out; /* owned: produced, not delivered */
    size_t out_len, out_cap;
    char log[LOG_BYTES];
    size_t log_len;
    const char *error;
    uint64_t uncredited; /* of the connection */
    bool credits;        /* at once, both kinds */
    bool quiet;          /* no log */
    size_t writes_left;  /* before write() fails; SIZE_MAX: never */
    size_t left;         /* pieces of memory, when it was closed */
    size_t controls, empty_data, rejected;
    size_t pass_calls, copy_calls;
    /* What a server does with each request; NULL: nothing. */
    void (*on_request)(struct side *, struct talk *);
    void (*on_ended)(struct side *, struct talk *);
};

struct pair {
    struct side client, server;
    size_t piece; /* bytes given to h2_receive() at a time; 0: all */
    size_t limit; /* of h2_send(); 0: none */
};

/* What the sides are told unless a test says something else. */
struct h2_options pair_options(enum h2_role role);
void pair_open(struct pair *p);
void pair_open_with(struct pair *p,
                    const struct h2_options *client,
                    const struct h2_options *server);
/* Both sessions are freed; nothing may be left. */
void pair_close(struct pair *p);
/* One side alone, for bytes made by hand. Returns false: no memory. */
bool side_open(struct side *s, const struct h2_options *options);
void side_close(struct side *s);
/* Let the sides talk until both are silent. */
void pair_run(struct pair *p);
/* Bring what `from` has produced to `to`; returns whether there was any. */
bool pair_deliver(struct pair *p, struct side *from, struct side *to);
/* h2_send() until there is nothing. */
void side_send(struct side *s, size_t limit);
void side_receive(struct side *s, const void *data, size_t len);
/* Throw away what is in out. */
void side_discard(struct side *s);

/* "name: value\n..." as fields; a name with '!' in front is not to be indexed.
 * Returns how many. text must last as long as the fields. */
size_t fields_of(const char *text, struct h2_field *fields, size_t max);
/* The request of most tests. */
extern const char simple_request[];
/* Fields are copied. */
struct talk *talk_request(struct side *client, const char *text, bool end);
bool talk_respond(struct side *server,
                  struct talk *t,
                  const char *text,
                  bool end);
/* The talk of a stream, or NULL. */
struct talk *talk_of(struct side *s, int32_t id);
/* Give back what has been received. */
void talk_credit(struct side *s, struct talk *t);

/* Whether the log has this line. */
bool log_has(const struct side *s, const char *line);
/* How many lines begin so. */
size_t log_count(const struct side *s, const char *start);
void log_clear(struct side *s);

#endif
