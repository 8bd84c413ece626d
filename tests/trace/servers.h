/* Scripted servers, 'A' to 'Z': they accept connections, answer handshakes and
 * say what the trace tells them to say of their cluster, so that a trace shows
 * only what it is about (README.md). */
#ifndef TRACE_SERVERS_H
#define TRACE_SERVERS_H

#include "tests/trace/view.h"

struct player;
struct stage;

enum {
    OWED_MAX = 256, /* replies that one connection waits for */
    VERSION_MAX = 16,
};

enum server_mode {
    SERVER_SERVES,
    SERVER_REFUSES, /* connections are refused */
    SERVER_HANGS,   /* the kernel accepts connections, nothing is answered */
    SERVER_CUT,     /* connecting takes for ever, nothing is answered */
    SERVER_MANUAL   /* the trace does everything */
};

/* What a connection waits for; all but DATA is answered without the trace. */
enum owed {
    OWED_DATA,
    OWED_HELLO,
    OWED_CLIENT_ID,
    OWED_OK,
    OWED_RESET,
    OWED_NO_SELECT,
    OWED_PONG,
    OWED_MYID,
    OWED_INFO,
    OWED_SHARDS,
    OWED_SLOTS,
    OWED_ROLE,
    OWED_REPLICATION,
    OWED_MASTER,
    OWED_ADDRESS,
    OWED_SENTINELS,
    OWED_REPLICAS,
    OWED_SUBSCRIBE,
    OWED_COUNT
};

struct server {
    enum server_mode mode;
    bool sentinel;
    struct node_view view;
    bool overrides[OWED_COUNT]; /* answers[i] is said instead */
    struct bytes answers[OWED_COUNT];
    unsigned asked; /* for the topology */
};

struct servers {
    struct node_map map;
    struct server of[NODE_NAMES];
    bool cluster;              /* they are nodes of one */
    char version[VERSION_MAX]; /* of Redis; empty: 7.0.15 */
};

/* Read "A=10.0.0.1:6379 B=..."; list receives the addresses, with commas. False
 * when it cannot be read. */
bool servers_declare(struct servers *all,
                     const char *text,
                     bool sentinels,
                     struct bytes *list);
void servers_fini(struct servers *all);

/* The letter of the server at that address; 'u' when it is nobody's. */
char servers_name(const struct servers *all, const struct address *address);
/* Whether the server of that connection answers by itself. */
bool server_acts(const struct stage *s, const struct player *p);
/* Where a server's name leads to. */
void server_resolve(char name, struct address *address);

/* All servers say this of their cluster; false when it cannot be read. */
bool servers_say(struct servers *all, const char *text);
/* How often they were asked for the topology, all of them together. */
unsigned servers_asked(const struct servers *all);
/* Whether there are lines with that verb about servers, not connections. */
bool server_has_line(const char *verb);
/* Such a line: NULL when it is done, else what is wrong with it, in static
 * words. */
const char *server_line(struct stage *s,
                        char name,
                        const char *verb,
                        const char *rest);

/* The trace answers: replies become the next ones that p waits for. Returns
 * whether it waited for so many. */
bool server_replies(struct stage *s, struct player *p, struct span replies);

/* Let the servers answer what they are owed to answer. Returns whether anything
 * happened. */
bool servers_act(struct stage *s);

#endif
