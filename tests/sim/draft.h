/* A request being made. */
#ifndef SIM_DRAFT_H
#define SIM_DRAFT_H

#include "tests/sim/client.h"

enum {
    WORDS_MAX = 2 * SPLIT_KEYS_MAX + 1,
    SHARED_KEYS = 4,
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
void draft_number(struct draft *d, uint64_t number);
/* A number no other request has. */
uint64_t draft_tag(const struct client *c);
/* A key that exists only to make a request unlike any other; in a cluster it
 * lies beside the key before it. */
void draft_tag_key(const struct world *w,
                   struct draft *d,
                   const struct client *c);
void draft_key(const struct world *w,
               struct draft *d,
               const struct client *c,
               unsigned slot,
               bool shared);
/* Any command on keys. */
void draft_data(struct world *w, struct client *c, struct draft *d);

/* generate_session.c */
void draft_session(struct world *w, struct client *c, struct draft *d);
void draft_login(struct draft *d);
/* CLIENT SETNAME, NO-EVICT and the like. */
void draft_client_facts(struct world *w, struct client *c, struct draft *d);
void draft_reset(struct world *w, struct client *c, struct draft *d);
void draft_tracking(struct world *w, struct client *c, struct draft *d);

/* generate_block.c: WATCH, UNWATCH, MULTI, or one of them at the wrong time. */
void draft_transaction(struct world *w, struct client *c, struct draft *d);
void draft_in_block(struct world *w, struct client *c, struct draft *d);
void draft_block_end(struct world *w, struct client *c, struct draft *d);
/* The key that others change while the client watches it. */
void watch_key_name(const struct world *w,
                    const struct client *c,
                    char *text,
                    size_t size);

/* generate_stateful.c: what lives in a connection; false: nothing now. */
bool draft_stateful(struct world *w, struct client *c, struct draft *d);

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
