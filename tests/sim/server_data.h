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
    bool newer;      /* 7.2, else 7.0 */
    uint64_t stops;
    uint64_t loading_until, readonly_until;
    uint64_t next_id;
    unsigned n_blocked;
    uint64_t waits;           /* commands that had to wait, so far */
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
/* Whether it is a command of data, with arguments enough. */
bool data_knows(const struct model_command *m);
/* What is said of any other. */
void data_unknown(const struct model_command *m, struct bytes *out);
/* What a string holds; empty for anything else. */
struct span data_text(const struct value *v);
/* How many items a list, sorted set or stream has. */
size_t data_length(const struct value *v);

/* server_queues.c: whether the command may wait, and how long; 0: for ever. */
bool model_blocks(const struct model_command *m, uint64_t *timeout_us);
/* Whether such a command finds nothing. */
bool data_waits(struct data *d,
                struct ledger ledger,
                const struct model_command *m);
/* Append the command as it is remembered while it waits: of an XREAD, "$" is
 * what comes after this moment. */
void data_freeze(struct data *d,
                 struct ledger ledger,
                 const struct model_command *m,
                 struct bytes *words);

#endif
