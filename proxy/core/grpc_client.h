/* Inside of a gRPC client's connection: what grpc_client.c (how it begins and
 * ends, its times) and grpc_client_session.c (what it says) ask of each
 * other. */
#ifndef CORE_GRPC_CLIENT_H
#define CORE_GRPC_CLIENT_H

#include "proxy/core/grpc.h"
#include "proxy/core/state.h"

enum {
    GRPC_LINGER_US = 1000 * 1000, /* for the client's FIN, once all is said */
    GRPC_DRAIN_PING = 1,          /* opaque: behind the first GOAWAY */
    GRPC_ALIVE_PING = 2,
};

static inline struct engine *grpc_client_engine(const struct grpc_client *c)
{
    return c->listener->channel->engine;
}

static inline const struct grpc_listener_config *grpc_client_rules(
    const struct grpc_client *c)
{
    return &c->listener->config->grpc;
}

/* What its session tells of: grpc_client_session.c. */
extern const struct h2_handler grpc_client_handler;

/* It is closed after that time at the latest. */
void grpc_client_close_before(struct engine *e,
                              struct grpc_client *c,
                              uint64_t us);
/* The server's own keepalive (K13). */
void grpc_client_check_alive(struct engine *e, struct grpc_client *c);
/* The GOAWAY that counts. */
void grpc_client_finish_drain(struct engine *e, struct grpc_client *c);

#endif
