/* One trace file being played (README.md): what trace.c, prepare.c, verbs.c and
 * numbers.c share. */
#ifndef TRACE_PLAY_H
#define TRACE_PLAY_H

#include "tests/trace/script.h"
#include "tests/trace/stage.h"

enum {
    SETS_MAX = 64,
};

/* One file being played. */
struct play {
    const char *file;
    unsigned line;
    bool split;
    bool whole; /* not to be played byte by byte */
    bool started;
    uint64_t begin_us;
    const char *url;
    char *sets[SETS_MAX]; /* owned */
    size_t n_sets;
    struct bytes ini;
    struct bytes service; /* the service config of gRPC */
    struct config *config;
    struct servers servers;
    struct stage stage;
    struct bytes complaint; /* what went wrong; empty while nothing did */
};

/* The play ends with these words. */
void complain(struct play *p, const char *text);
/* Nothing that the engine did may be left over from before. */
void settle(struct play *p);

/* prepare.c: a line of the part before the first event; false when that part is
 * over. */
bool prepare_line(struct play *p, const char *line);
/* The first event comes: read the configuration, start the engine. */
void play_start(struct play *p);
/* All servers say this of who serves what from now on. */
void play_topology(struct play *p, const char *rest);
/* A line about a scripted server. */
void play_server(struct play *p, char name, const char *line, const char *rest);

/* verbs.c: what connections do, and are expected to get. */
typedef void verb(struct play *p, struct player *who, const char *rest);

struct verb_row {
    const char *sides;
    const char *name;
    bool event;
    verb *run;
};

/* NULL: there is none with that name for that side. */
const struct verb_row *verb_find(char side, const char *name);

/* grpc_verbs.c: a client of gRPC has connected. */
void grpc_connects(struct play *p, struct player *who, const char *words);
/* A line about gRPC; false: it is about something else. who may be NULL. */
bool grpc_line(struct play *p,
               const char *subject,
               struct player *who,
               const char *name,
               const char *rest);
/* grpc_numbers.c: "count reason unsafe 1", "count goaways 1": of the first upstream of gRPC. */
void grpc_want_count(struct play *p, const char *rest);

/* numbers.c: "stat NAME N": of the first upstream, or of the engine. */
void want_stat(struct play *p, const char *rest);
/* "asked N": for the topology, all servers together. */
void want_asked(struct play *p, const char *rest);

#endif
