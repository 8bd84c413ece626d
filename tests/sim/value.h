/* Values of the model server, and what its commands share. */
#ifndef SIM_VALUE_H
#define SIM_VALUE_H

#include "tests/sim/server_data.h"

enum {
    KIND_NONE,
    KIND_STRING,
    KIND_LIST,
    KIND_ZSET,  /* items in the order of their scores */
    KIND_STREAM /* the n-th item has the id n-0; none is ever deleted */
};

enum {
    SCORE_DIGITS = 8 /* an item of a zset begins with its score */
};

struct value {
    struct value *next;
    struct bytes key;
    uint64_t version;
    uint8_t db;
    uint8_t kind;
    struct bytes text;   /* of a string */
    struct bytes *items; /* of the others; owned */
    size_t n_items, items_cap, items_at;
};

struct call {
    struct data *data;
    uint8_t db;
    int resp;
    const struct model_command *m;
    struct bytes *out;
};

static inline struct value *key_of(struct call *c, size_t i)
{
    return data_at(c->data, c->db, c->m->arg[i]);
}

static inline bool value_is_empty(const struct value *v)
{
    return v->items_at == v->n_items;
}

void value_clear(struct value *v);
void item_add(struct value *v, struct span text);
void call_number(struct call *c, int64_t n);
void call_ok(struct call *c);

/* server_queues.c: lists, sorted sets and streams. */
void on_rpush(struct call *c);
void on_lrange(struct call *c);
void on_ltrim(struct call *c);
void on_llen(struct call *c);
void on_pop(struct call *c); /* BLPOP, BRPOP, BZPOPMIN */
void on_blmove(struct call *c);
void on_zadd(struct call *c);
void on_xadd(struct call *c);
void on_xread(struct call *c);
void on_xinfo(struct call *c);

#endif
