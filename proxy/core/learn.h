/* When servers are asked which commands they know that redial does not, and
 * what is made of the answers (redis.md §3, class U). */
#ifndef CORE_LEARN_H
#define CORE_LEARN_H

#include "parser/span.h"

struct cluster;
struct command;
struct downstream;
struct engine;
struct request;
struct upstream;

/* The handshake of u is complete. The first lane to a server asks; if nothing
 * is known yet it is not used before the answer is there: true, and the lane
 * comes up then. */
bool learn_holds_lane(struct engine *e, struct upstream *u);

/* The answer to a question of this module (TASK_COMMANDS). */
void learn_reply(struct engine *e,
                 struct upstream *u,
                 uint8_t step,
                 struct span reply);
/* It will not come: the connection was lost. */
void learn_no_reply(struct engine *e, struct upstream *u);

/* A client has sent a command nobody has told of: ask again, if that was not
 * done lately (MODULE LOAD). */
void learn_unknown(struct engine *e, struct cluster *c);

/* The row of a command, ours or learnt; NULL: there is none. */
const struct command *learn_find(const struct cluster *c,
                                 struct span name,
                                 struct span sub);

/* r was unknown when it arrived. True: it is not any more, and has its row. */
bool learn_look_again(struct engine *e,
                      const struct cluster *c,
                      struct request *r);

#endif
