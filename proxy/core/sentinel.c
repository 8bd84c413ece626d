#include "proxy/core/sentinel.h"

bool sentinel_init(struct engine *e, struct cluster *c)
{
    (void)e;
    (void)c;
    return true;
}
void sentinel_start(struct engine *e, struct topology *t)
{
    (void)e;
    (void)t;
}
void sentinel_fini(struct engine *e, struct topology *t)
{
    (void)e;
    (void)t;
}
void sentinel_timeout(struct engine *e, struct topology *t)
{
    (void)e;
    (void)t;
}
void sentinel_lane_up(struct engine *e, struct topology *t, struct upstream *u)
{
    (void)e;
    (void)t;
    (void)u;
}
void sentinel_reply(struct engine *e,
                    struct topology *t,
                    struct upstream *u,
                    uint8_t step,
                    struct span reply)
{
    (void)e;
    (void)t;
    (void)u;
    (void)step;
    (void)reply;
}
void sentinel_push(struct engine *e,
                   struct topology *t,
                   struct upstream *u,
                   struct span message)
{
    (void)e;
    (void)t;
    (void)u;
    (void)message;
}
