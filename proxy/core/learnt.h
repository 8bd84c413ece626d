/* The commands that servers have told of and our own table lacks. One such
 * table for each upstream. Rows stay where they are for as long as it lives:
 * requests point to them. */
#ifndef CORE_LEARNT_H
#define CORE_LEARNT_H

#include "parser/command_info.h"

struct engine;
struct learnt;

/* A table without rows, or NULL without memory. The caller owns it. */
struct learnt *learnt_new(struct engine *e);
void learnt_free(struct engine *e, struct learnt *t);

/* How many rows there are; they never become fewer. */
uint32_t learnt_count(const struct learnt *t);

enum learnt_added {
    LEARNT_KNOWN,   /* it is the row in force already */
    LEARNT_NEW,     /* it is from now on */
    LEARNT_NO_ROOM, /* rows_max */
    LEARNT_NO_MEMORY
};

/* Take what a server has said last (copied). */
enum learnt_added learnt_add(struct engine *e,
                             struct learnt *t,
                             const struct command_info *info,
                             uint32_t rows_max);

/* The row in force of a command, as command_find(); NULL: none. */
const struct command *learnt_find(const struct learnt *t,
                                  struct span name,
                                  struct span sub);

#endif
