/* A client of a listener with protocol = auto, until its first bytes show what
 * it speaks: the preface of HTTP/2, or a Redis command. */
#ifndef CORE_NEWCOMER_H
#define CORE_NEWCOMER_H

#include "proxy/core/conn.h"
#include "proxy/core/timers.h"

struct listener;

struct newcomer {
    struct conn conn;
    struct listener *listener; /* borrowed */
    struct event accepted;     /* told again to who it turns out to be */
    struct chain bytes;        /* its first ones: all of them belong to the
                                  preface so far */
    struct timer timer;
};

/* Create one for the listener, or NULL. Its conn has a name. */
struct newcomer *newcomer_new(struct engine *e, struct listener *l);
/* It has been silent, or has stopped in the middle of the preface. */
void newcomer_timeout(struct engine *e, struct newcomer *n);

extern const struct conn_class newcomer_class;

#endif
