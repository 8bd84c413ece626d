/* Makes the requests of a model client. */
#ifndef SIM_GENERATE_H
#define SIM_GENERATE_H

#include "tests/sim/client.h"

/* Add a random request to what the client is about to send. */
void generate(struct world *w, struct client *c);
/* AUTH, for a server that wants it. */
void generate_login(struct world *w, struct client *c);
/* EXEC of an open block. */
void generate_block_end(struct world *w, struct client *c);

#endif
