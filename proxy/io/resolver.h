/* Names to addresses, off the loop's thread. */
#ifndef IO_RESOLVER_H
#define IO_RESOLVER_H

#include "proxy/io/worker.h"

/* ACTION_RESOLVE: EVENT_RESOLVED follows, perhaps before this returns. */
void resolver_start(struct worker *w,
                    conn_id id,
                    const struct address *address);

/* ACTION_CLOSE: the answer for id is not wanted any more. */
void resolver_cancel(struct worker *w, conn_id id);

/* No answer is wanted any more. */
void resolver_stop(struct worker *w);

#endif
