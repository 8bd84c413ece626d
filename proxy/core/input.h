/* From a client's bytes to its requests: whole commands, commands in parts, and
 * commands so large that they are passed on while they arrive (DESIGN.md §4,
 * §7). */
#ifndef CORE_INPUT_H
#define CORE_INPUT_H

#include "parser/resp_command.h"
#include "proxy/core/buf.h"

struct downstream;
struct engine;
struct request;

/* What is only there while a client has sent half a command or more than may
 * be taken: an idle client has none. */
struct input {
    struct command_scanner scanner;
    struct chain partial;      /* of the command being scanned */
    struct chain unread;       /* received, not yet looked at */
    struct request *streaming; /* a large request on its way; or NULL */
    bool discard;              /* drop the rest of that request */
};

/* Bytes have arrived; s is owned. */
void input_bytes(struct engine *e, struct downstream *d, struct slice s);

/* Look at bytes that had to wait, if there is room now. */
void input_read_on(struct engine *e, struct downstream *d);

/* Forget what is half read. */
void input_drop(struct engine *e, struct downstream *d);

#endif
