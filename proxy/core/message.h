/* A message that a server has sent, whole: what the redis_*.c files hand each
 * other of it. */
#ifndef CORE_MESSAGE_H
#define CORE_MESSAGE_H

#include "parser/span.h"
#include "proxy/core/buf.h"

struct engine;
struct request;
struct upstream;

/* What was kept of it before is in the lane's partial; this is the rest, a part
 * of a block. */
struct message {
    struct buf *buf; /* borrowed */
    uint32_t offset;
    uint32_t len;
    uint8_t type; /* its first byte */
};

enum {
    MESSAGE_HEAD_MAX = 512 /* bytes of it that are looked at */
};

/* redis_reply.c: its beginning in one piece; scratch has MESSAGE_HEAD_MAX
 * bytes. */
struct span message_head(const struct upstream *u,
                         const struct message *m,
                         uint8_t *scratch);
/* redis_reply.c: all of it in one piece. *copy is what the caller must give
 * back to the memory, or NULL. False: no memory. */
bool message_whole(struct engine *e,
                   const struct upstream *u,
                   const struct message *m,
                   struct span *whole,
                   void **copy);

/* redis_reply.c: it becomes r->reply. False: no memory. */
bool message_keep(struct engine *e,
                  struct upstream *u,
                  struct request *r,
                  const struct message *m);

/* redis_error_reply.c: m, the answer to r, is an error. Returns true when it is
 * dealt with; else it is an answer like any other. */
bool redis_error_reply(struct engine *e,
                       struct upstream *u,
                       struct request *r,
                       const struct message *m);

/* redis_push.c: what a server says unasked goes to the client whose own lane u
 * is, behind the replies that are due. Takes what the lane has kept of it. */
void redis_push(struct engine *e, struct upstream *u, const struct message *m);

#endif
