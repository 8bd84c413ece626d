#include "proxy/core/redis_block.h"

#include "proxy/core/state.h"

void block_log_free(struct engine *e, struct ledger *l)
{
    (void)e;
    (void)l;
}

bool block_log_establish(struct engine *e, struct upstream *u)
{
    (void)e;
    (void)u;
    return true;
}

void block_log_reply(struct engine *e, struct upstream *u, struct span reply)
{
    (void)e;
    (void)u;
    (void)reply;
}
