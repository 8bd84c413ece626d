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
/* Whether a key is there. Making it with data_at() does not count. */
bool data_has(const struct value *v);
struct span data_key(const struct value *v);
/* One after the other, in no order; NULL begins and ends. */
struct value *data_next(struct data *d, struct value *v);
/* Forget everything and take over what another has. */
void data_copy(struct data *to, struct data *from);
/* Append the commands that make the value what it is. */
void data_dump(const struct value *v, struct bytes *commands);

/* Whether the command may write. */
bool data_writes(const struct model_command *m);
/* Execute a command and append its reply. */
void data_command(struct data *d,
                  struct ledger ledger,
                  const struct model_command *m,
                  struct bytes *out);
/* Whether a BLPOP finds nothing and must wait. */
bool data_blpop_waits(struct data *d,
                      struct ledger ledger,
                      const struct model_command *m);
/* Answer a waiting BLPOP from its list; false when the list is empty. */
bool data_pop(struct value *v, struct bytes *out);

#endif
