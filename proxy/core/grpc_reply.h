/* What the client of a call receives (grpc.md §1.17). */
#ifndef CORE_GRPC_REPLY_H
#define CORE_GRPC_REPLY_H

#include "proxy/core/grpc.h"

struct grpc_refusal;

/* Answer a request that has become no call. */
void grpc_reply_refuse(struct engine *e,
                       struct grpc_client *c,
                       struct h2_stream *s,
                       const struct grpc_refusal *refusal);

/* Give the client the response headers in call->head. False: they do not fit
 * its limit (X6), or there is no memory; nothing was given. */
bool grpc_reply_headers(struct engine *e, struct grpc_call *call);

/* S2: whether the client is to be told not to retry: its own retries would only
 * multiply ours. Of a status that is not OK. */
bool grpc_reply_stops_client(const struct grpc_call *call);

/* There is more content, or its end. */
void grpc_reply_more(struct engine *e, struct grpc_call *call);

/* The call is DONE: give the client its status, the one in call->trailers or,
 * with call->local, redial's own. */
void grpc_reply_finish(struct engine *e, struct grpc_call *call);

/* Of the h2_handler of clients. */
size_t grpc_reply_pull(struct h2 *h,
                       struct h2_stream *s,
                       size_t max,
                       unsigned *flags);
void grpc_reply_copy(struct h2 *h, struct h2_stream *s, uint8_t *out, size_t n);
bool grpc_reply_pass(struct h2 *h, struct h2_stream *s, size_t n);

#endif
