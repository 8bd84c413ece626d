/* Connections as the border knows them: names, what is to be written, and what
 * the shell must be asked to do with them. */
#ifndef CORE_CONN_H
#define CORE_CONN_H

#include "proxy/core/event.h"

struct conn;
struct engine;

enum conn_kind {
    CONN_DOWNSTREAM,  /* a Redis client */
    CONN_UPSTREAM,    /* a lane */
    CONN_GRPC_CLIENT, /* a gRPC client */
    CONN_GRPC_LINK,   /* a connection to a gRPC endpoint */
    CONN_NEWCOMER,    /* a client that has not shown yet what it speaks */
    CONN_KIND_COUNT
};

/* What the owner of a connection does when something happens to it. The events
 * of a connection's opening are NULL for clients. */
struct conn_class {
    void (*accepted)(struct engine *e,
                     struct conn *c,
                     const struct event *event); /* NULL: not a client's */
    void (*bytes)(struct engine *e, struct conn *c, struct slice s); /* owned */
    void (*written)(struct engine *e, struct conn *c, uint64_t count);
    void (*ended)(struct engine *e, struct conn *c);
    void (*left)(struct engine *e, struct conn *c); /* NULL: not interested */
    void (*closed)(struct engine *e, struct conn *c, int error);
    void (*resolved)(struct engine *e,
                     struct conn *c,
                     const struct event *event);
    void (*connected)(struct engine *e, struct conn *c, int error);
    const struct address *(*address)(struct conn *c);
    /* Before c->out is handed to the shell: make output. NULL: it is there
     * already. */
    void (*flush)(struct engine *e, struct conn *c);
    /* So many bytes of c->out are handed over now. NULL: not interested. */
    void (*handed)(struct conn *c, size_t n);
    /* EVENT_DRAIN, for clients: finish; again: end with the truth. */
    void (*drain)(struct engine *e, struct conn *c, bool again);
    /* The engine ends: close. For clients. */
    void (*end)(struct engine *e, struct conn *c);
    /* Free the owner: nothing refers to it any more. */
    void (*release)(struct engine *e, struct conn *c);
};

/* The border's side of one connection; lives inside its owner. */
struct conn {
    conn_id id;        /* 0: not open */
    struct conn *next; /* in the list of connections with something to do */
    struct chain out;  /* produced and not yet handed to the shell */
    uint8_t kind;      /* enum conn_kind */
    bool flush;        /* its owner has output to make */
    bool queued;       /* is in that list */
    bool resolve;      /* ask for ACTION_RESOLVE */
    bool connect;      /* ask for ACTION_CONNECT */
    bool close;        /* ask for ACTION_CLOSE; the owner is given up */
    bool paused;       /* reading should stop */
    bool paused_told;  /* reading was told to stop */
    bool known;        /* the shell has heard of it */
    bool dead;         /* nothing may refer to it any more but the list */
};

struct conn_entry {
    struct conn *conn;   /* NULL: free */
    uint32_t generation; /* of the present or next user */
    uint32_t next_free;  /* 1 + index; 0: none */
};

struct conn_table {
    struct conn_entry *entries; /* owned */
    uint32_t n;                 /* entries ever used */
    uint32_t cap;
    uint32_t free; /* 1 + index of the first free one; 0: none */
};

/* Give c a name. Returns false when memory is short. */
bool conn_open(struct engine *e, struct conn *c, enum conn_kind kind);

/* The open connection of that name, or NULL. */
struct conn *conn_find(const struct engine *e, conn_id id);

/* Make sure the shell is asked for what c wants. */
void conn_touch(struct engine *e, struct conn *c);

void conn_pause(struct engine *e, struct conn *c, bool paused);

/* End c. With tell the shell is asked to close it; without, it already has.
 * The owner is freed by its own module, below, once the shell has been told. */
void conn_close(struct engine *e, struct conn *c, bool tell);

/* Take the next action. Frees owners that are done with. */
bool conn_next_action(struct engine *e, struct action *action);

/* to, just opened and not yet told to the shell, takes over the name of from:
 * the shell sees one connection. from has none afterwards and is not dead. */
void conn_take_over(struct engine *e, struct conn *to, struct conn *from);

/* The class of c; the table is in engine.c. */
const struct conn_class *conn_class_of(const struct conn *c);

extern const struct conn_class downstream_class, upstream_class;

#endif
