/* Connections as the border knows them: names, what is to be written, and what
 * the shell must be asked to do with them. */
#ifndef CORE_CONN_H
#define CORE_CONN_H

#include "proxy/core/event.h"

struct engine;

enum conn_kind {
    CONN_DOWNSTREAM,
    CONN_UPSTREAM
};

/* The border's side of one connection; lives inside its owner. */
struct conn {
    conn_id id;        /* 0: not open */
    struct conn *next; /* in the list of connections with something to do */
    struct chain out;  /* produced and not yet handed to the shell */
    uint8_t kind;      /* enum conn_kind */
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

/* Free the owner of a dead connection: implemented by the owner's module. */
void downstream_release(struct engine *e, struct conn *c);
void upstream_conn_release(struct engine *e, struct conn *c);

#endif
