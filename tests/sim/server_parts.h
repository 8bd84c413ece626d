/* What the server_*.c files offer each other. */
#ifndef SIM_SERVER_PARTS_H
#define SIM_SERVER_PARTS_H

#include "tests/sim/server_data.h"

/* server.c */
void session_end(struct world *w, struct session *c, bool reset);
void session_send(struct world *w, struct session *c, struct bytes *reply);

/* server_command.c: execute one command and append its reply. raw are its
 * bytes. */
void command_execute(struct world *w,
                     struct session *c,
                     const struct model_command *m,
                     struct span raw,
                     struct bytes *out);
/* A command ran; of those clients sent, the history is kept. */
void command_executed(struct world *w,
                      struct session *c,
                      uint32_t request,
                      struct span words,
                      const struct bytes *reply);

/* server_login.c: AUTH, HELLO, SELECT, CLIENT, COMMAND, RESET;
 * false: another one. */
bool login_command(struct world *w,
                   struct session *c,
                   const struct model_command *m,
                   struct bytes *out);

/* server_block.c: MULTI and what belongs to it; false for any other. */
bool block_command(struct world *w,
                   struct session *c,
                   const struct model_command *m,
                   uint32_t request,
                   struct bytes *out);
/* The block is over, and nothing is watched any more. */
void block_forget(struct session *c);

/* server_wait.c */
bool wait_begins(struct world *w,
                 struct session *c,
                 const struct model_command *m,
                 uint32_t request);
void wait_forget(struct session *c);
/* Serve whoever waits for what is there now. */
void wait_serve(struct world *w, struct server *s);
/* server.c: go on with what arrived behind a command that waited. */
void session_serve(struct world *w, struct session *c);

/* server_pubsub.c: false for any other command. */
bool pubsub_command(struct world *w,
                    struct session *c,
                    const struct model_command *m,
                    uint32_t request,
                    struct span raw,
                    struct bytes *out);
/* Such a command is permitted in a RESP2 connection that has subscribed. */
bool pubsub_allows(const struct model_command *m);

/* server_tracking.c: c has read the command's keys. */
void tracking_read(struct session *c, const struct model_command *m);
/* Tell of every key that has changed since it was read. */
void tracking_tell(struct world *w, struct server *s);

#endif
