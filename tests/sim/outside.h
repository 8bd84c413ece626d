/* Others who speak to the servers directly, not through redial: they change
 * what is watched or cached, publish, and put something into what is waited
 * for. */
#ifndef SIM_OUTSIDE_H
#define SIM_OUTSIDE_H

#include "tests/sim/world.h"

void outside_begin(struct world *w);
void outside_act(struct world *w);
/* How long the stream is that everybody reads from. */
size_t outside_stream_length(struct world *w, uint8_t db);

#endif
