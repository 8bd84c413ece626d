/* What is said on the connections of an engine_driver: a server that answers,
 * and clients that know which replies are due. For engine_driver.c alone. */
#ifndef UNIT_ENGINE_TALK_H
#define UNIT_ENGINE_TALK_H

#include "engine_driver.h"

/* A connection that has just begun. */
void identity_init(struct identity *i);

void talk_bulk(struct bytes *out, struct span text);

/* A client looks at the replies that are complete. */
void client_reads(struct peer *c);

/* The server executes and answers the commands that are complete. */
void server_reads(struct driver *d, struct peer *p);

#endif
