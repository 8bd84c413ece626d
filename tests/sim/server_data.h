/* The data of the model server, and the commands that use it. */
#ifndef SIM_SERVER_DATA_H
#define SIM_SERVER_DATA_H

#include "tests/sim/server.h"

struct data;
struct value;

struct server {
    bool up;
    bool stopped;
    bool password;   /* clients must authenticate */
    bool deny_fence; /* CLIENT KILL is not permitted */
    uint64_t stops;
    uint64_t loading_until, readonly_until;
    uint64_t next_id;
    unsigned n_blocked;
    struct session *sessions; /* owned, all of the run */
    struct data *data;        /* owned */
};

struct data *data_new(void);
void data_free(struct data *d);

/* The value of a key; made when it is missing. */
struct value *data_at(struct data *d, uint8_t db, struct span key);
uint64_t data_version(const struct value *v);

/* Whether the command may write. */
bool data_writes(const struct model_command *m);
/* Execute a command and append its reply. */
void data_command(struct world *w,
                  struct session *c,
                  const struct model_command *m,
                  struct bytes *out);
/* Whether a BLPOP finds nothing and must wait. */
bool data_blpop_waits(struct world *w,
                      struct session *c,
                      const struct model_command *m);
/* Answer a waiting BLPOP from its list; false when the list is empty. */
bool data_pop(struct value *v, struct bytes *out);

#endif
