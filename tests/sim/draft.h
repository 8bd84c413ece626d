/* A request being made. */
#ifndef SIM_DRAFT_H
#define SIM_DRAFT_H

#include "tests/sim/client.h"

enum {
    WORDS_MAX = 2 * SPLIT_KEYS_MAX + 1,
    SHARED_KEYS = 4,
    SHARED_KEY = 1 << 30,
    SIBLING_KEY = 1 << 28, /* of the same slot as the key without this bit */
    BLOCK_KEY = 1 << 27,   /* of a block: all in one slot */
};

struct draft {
    struct bytes word[WORDS_MAX];
    size_t n;
    struct request_record record;
    struct request_record part[PARTS_MAX]; /* when record.n_parts > 0 */
};

void draft_word(struct draft *d, const char *text);
void draft_value(struct world *w, struct draft *d, const struct client *c);
/* Write a key's name; returns its number. */
uint32_t draft_key_name(const struct world *w,
                        const struct client *c,
                        unsigned slot,
                        bool shared,
                        char *text,
                        size_t size);

/* generate_cluster.c: MGET, MSET, DEL, UNLINK, EXISTS or TOUCH of keys in one
 * slot or several; record says whether they are shared. */
void draft_many(struct world *w,
                struct client *c,
                struct draft *d,
                unsigned slot,
                bool shared);
/* SCAN, DBSIZE or KEYS. */
void draft_all_keys(struct world *w, struct client *c, struct draft *d);
/* Enter the parts of a request that was split. */
void parts_add(struct world *w, const struct draft *d, uint32_t request);
/* What a client makes of the answer to one of them. */
void all_keys_answered(struct world *w,
                       struct client *c,
                       enum expect expect,
                       struct span reply);

#endif
