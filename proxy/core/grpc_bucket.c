#include "proxy/core/grpc_bucket.h"

enum {
    S_US = 1000 * 1000
};

bool grpc_bucket_take(uint64_t *tokens,
                      uint64_t *filled_us,
                      uint64_t burst,
                      uint64_t per_s,
                      uint64_t now_us)
{
    uint64_t elapsed = now_us - *filled_us;
    uint64_t more = per_s == 0 ? 0 : elapsed * per_s / S_US;
    if (elapsed > 3600 * (uint64_t)S_US || more >= burst) {
        *tokens = burst;
        *filled_us = now_us;
    } else if (more > 0) {
        *tokens = *tokens + more > burst ? burst : *tokens + more;
        *filled_us += more * S_US / per_s;
    }
    if (*tokens == 0) {
        return false;
    }
    (*tokens)--;
    return true;
}
