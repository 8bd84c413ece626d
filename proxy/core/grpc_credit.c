/* Connection credit while memory is short (grpc.md FL3). */
#include "proxy/core/state.h"

static uint64_t share_of_memory(const struct engine *e)
{
    return e->config->process.grpc.memory_high / e->workers;
}

bool grpc_memory_is_high(const struct engine *e)
{
    return e->grpc.bytes > share_of_memory(e);
}

void grpc_credit(struct engine *e,
                 struct conn *conn,
                 struct h2 *h2,
                 uint64_t *withheld,
                 size_t n)
{
    if (grpc_memory_is_high(e)) {
        *withheld += n;
        e->grpc.withheld += n;
        return;
    }
    if (h2_credit_connection(h2, n)) {
        grpc_touch(e, conn); /* else it is not worth a frame yet */
    }
}

void grpc_credit_fini(struct engine *e, uint64_t *withheld)
{
    e->grpc.withheld -= *withheld;
    *withheld = 0;
}

static void give_back(struct engine *e,
                      struct conn *c,
                      struct h2 *h2,
                      uint64_t *withheld)
{
    if (*withheld == 0) {
        return;
    }
    (void)h2_credit_connection(h2, (size_t)*withheld);
    grpc_credit_fini(e, withheld);
    grpc_touch(e, c);
}

void grpc_credit_return(struct engine *e)
{
    uint64_t share = share_of_memory(e);
    if (e->grpc.withheld == 0 || e->grpc.bytes >= share - share / 10) {
        return;
    }
    for (uint32_t i = 0; i < e->conns.n; i++) {
        struct conn *c = e->conns.entries[i].conn;
        if (c == NULL || c->dead) {
            continue;
        }
        if (c->kind == CONN_GRPC_CLIENT) {
            struct grpc_client *client =
                CONTAINER_OF(c, struct grpc_client, conn);
            give_back(e, c, client->h2, &client->withheld);
        } else if (c->kind == CONN_GRPC_LINK) {
            struct grpc_link *l = CONTAINER_OF(c, struct grpc_link, conn);
            give_back(e, c, l->h2, &l->withheld);
        }
    }
}
