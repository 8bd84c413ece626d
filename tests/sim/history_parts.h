/* What the history_*.c files share. */
#ifndef SIM_HISTORY_PARTS_H
#define SIM_HISTORY_PARTS_H

#include "tests/sim/history.h"

/* How much later than asked for a wait may end: what is left is rounded. */
enum {
    WAIT_SLACK_US = 2000
};

/* What is known about one key of one client: the youngest request that was
 * executed on it, reads and writes apart. */
struct key_order {
    uint64_t name;                  /* 0: free place */
    uint32_t last_write, last_read; /* 1 + index; 0: none */
    bool disturbed;                 /* by a request whose outcome is unknown */
};

struct history {
    struct request_record *records;
    size_t n, cap;
    uint64_t *names; /* open addressing: hash of the bytes */
    uint32_t *requests;
    size_t places; /* a power of two */
    struct key_order *keys;
    size_t n_keys, key_places;
    uint64_t replays;
};

struct key_order *key_find(struct history *h, uint64_t client, uint32_t key);

static inline bool reply_is_null(struct span reply)
{
    return reply.len > 1 && (reply.data[0] == '_' ||
                             ((reply.data[0] == '*' || reply.data[0] == '$') &&
                              reply.data[1] == '-'));
}

#endif
