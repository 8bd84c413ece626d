#include "tests/sim/server_data.h"

#include <inttypes.h>
#include <stdlib.h>

#include "tests/sim/value.h"

enum {
    BUCKETS = 1 << 12
};

struct data {
    struct value *bucket[BUCKETS];
};

struct data *data_new(void)
{
    return must_alloc(sizeof(struct data));
}

void value_clear(struct value *v)
{
    for (size_t i = v->items_at; i < v->n_items; i++) {
        bytes_fini(&v->items[i]);
    }
    v->n_items = 0;
    v->items_at = 0;
    bytes_clear(&v->text);
    v->kind = KIND_NONE;
    v->version++;
}

void item_add(struct value *v, struct span text)
{
    if (v->n_items == v->items_cap) {
        v->items_cap = v->items_cap * 2 + 8;
        v->items = must_grow(v->items, v->items_cap * sizeof v->items[0]);
    }
    v->items[v->n_items] = (struct bytes){ 0 };
    bytes_add(&v->items[v->n_items++], text.data, text.len);
}

void data_free(struct data *d)
{
    for (size_t i = 0; i < BUCKETS; i++) {
        while (d->bucket[i] != NULL) {
            struct value *v = d->bucket[i];
            d->bucket[i] = v->next;
            value_clear(v);
            bytes_fini(&v->text);
            bytes_fini(&v->key);
            free(v->items);
            free(v);
        }
    }
    free(d);
}

struct value *data_at(struct data *d, uint8_t db, struct span key)
{
    size_t i = hash_bytes(db, key.data, key.len) % BUCKETS;
    for (struct value *v = d->bucket[i]; v != NULL; v = v->next) {
        if (v->db == db && span_equal(bytes_span(&v->key), key)) {
            return v;
        }
    }
    struct value *v = must_alloc(sizeof *v);
    v->db = db;
    bytes_add(&v->key, key.data, key.len);
    v->next = d->bucket[i];
    d->bucket[i] = v;
    return v;
}

uint64_t data_version(const struct value *v)
{
    return v->version;
}

bool data_has(const struct value *v)
{
    return v->kind != KIND_NONE;
}

struct span data_key(const struct value *v)
{
    return bytes_span(&v->key);
}

struct value *data_next(struct data *d, struct value *v)
{
    size_t i = 0;
    if (v != NULL && v->next != NULL) {
        return v->next;
    }
    if (v != NULL) {
        i = hash_bytes(v->db, bytes_front(&v->key), v->key.size) % BUCKETS + 1;
    }
    while (i < BUCKETS && d->bucket[i] == NULL) {
        i++;
    }
    return i < BUCKETS ? d->bucket[i] : NULL;
}

void data_copy(struct data *to, struct data *from)
{
    for (struct value *v = data_next(to, NULL); v != NULL;
         v = data_next(to, v)) {
        value_clear(v);
    }
    for (struct value *v = data_next(from, NULL); v != NULL;
         v = data_next(from, v)) {
        struct value *copy = data_at(to, v->db, bytes_span(&v->key));
        copy->kind = v->kind;
        bytes_add(&copy->text, bytes_front(&v->text), v->text.size);
        for (size_t i = v->items_at; i < v->n_items; i++) {
            item_add(copy, bytes_span(&v->items[i]));
        }
    }
}

void data_dump(const struct value *v, struct bytes *commands)
{
    struct span key = bytes_span(&v->key);
    if (v->kind == KIND_STRING) {
        struct span set[] = { span_of("SET"), key, bytes_span(&v->text) };
        model_command_add(commands, set, 3);
    }
    for (size_t i = v->items_at; i < v->n_items; i++) {
        struct span item = bytes_span(&v->items[i]);
        if (v->kind == KIND_LIST) {
            struct span push[] = { span_of("RPUSH"), key, item };
            model_command_add(commands, push, 3);
        } else if (v->kind == KIND_ZSET) {
            struct span add[] = { span_of("ZADD"),
                                  key,
                                  { item.data, SCORE_DIGITS },
                                  { item.data + SCORE_DIGITS,
                                    item.len - SCORE_DIGITS } };
            model_command_add(commands, add, 4);
        } else {
            struct span add[] = { span_of("XADD"), key, span_of("*"),
                                  span_of("f"), item };
            model_command_add(commands, add, 5);
        }
    }
}

/* --- one call ---------------------------------------------------------- */

static void string_put(struct value *v, struct span text)
{
    value_clear(v);
    v->kind = KIND_STRING;
    bytes_add(&v->text, text.data, text.len);
}

static void string_say(struct call *c, const struct value *v)
{
    if (v->kind != KIND_STRING) {
        model_null_add(c->out, c->resp);
    } else {
        model_bulk_add(c->out, bytes_span(&v->text));
    }
}

void call_ok(struct call *c)
{
    bytes_add_text(c->out, "+OK\r\n");
}

void call_number(struct call *c, int64_t n)
{
    bytes_printf(c->out, ":%" PRId64 "\r\n", n);
}

static void on_set(struct call *c)
{
    struct value *v = key_of(c, 1);
    for (size_t i = 3; i < c->m->argc; i++) {
        if (model_arg_is(c->m, i, "NX") && v->kind != KIND_NONE) {
            model_null_add(c->out, c->resp);
            return;
        }
        if (model_arg_is(c->m, i, "GET")) {
            string_say(c, v);
            string_put(v, c->m->arg[2]);
            return;
        }
    }
    string_put(v, c->m->arg[2]);
    call_ok(c);
}

static void on_setex(struct call *c)
{
    string_put(key_of(c, 1), c->m->arg[3]);
    call_ok(c);
}

static void on_setnx(struct call *c)
{
    struct value *v = key_of(c, 1);
    bool fresh = v->kind == KIND_NONE;
    if (fresh) {
        string_put(v, c->m->arg[2]);
    }
    call_number(c, fresh);
}

static void on_getset(struct call *c)
{
    struct value *v = key_of(c, 1);
    string_say(c, v);
    string_put(v, c->m->arg[2]);
}

static void on_append(struct call *c)
{
    struct value *v = key_of(c, 1);
    v->kind = KIND_STRING;
    v->version++;
    bytes_add(&v->text, c->m->arg[2].data, c->m->arg[2].len);
    call_number(c, (int64_t)v->text.size);
}

static void on_get(struct call *c)
{
    string_say(c, key_of(c, 1));
}

static void on_strlen(struct call *c)
{
    call_number(c, (int64_t)key_of(c, 1)->text.size);
}

static void on_getrange(struct call *c)
{
    struct value *v = key_of(c, 1);
    int64_t last = model_arg_number(c->m, 3, 0);
    size_t size = v->text.size;
    if (last >= 0 && (uint64_t)last + 1 < size) {
        size = (size_t)last + 1;
    }
    model_bulk_add(c->out,
                   (struct span){ .data = bytes_front(&v->text), .len = size });
}

static void on_mget(struct call *c)
{
    bytes_printf(c->out, "*%zu\r\n", c->m->argc - 1);
    for (size_t i = 1; i < c->m->argc; i++) {
        string_say(c, key_of(c, i));
    }
}

static void on_mset(struct call *c)
{
    for (size_t i = 1; i + 1 < c->m->argc; i += 2) {
        string_put(key_of(c, i), c->m->arg[i + 1]);
    }
    call_ok(c);
}

static void on_exists(struct call *c)
{
    int64_t n = 0;
    for (size_t i = 1; i < c->m->argc; i++) {
        n += key_of(c, i)->kind != KIND_NONE;
    }
    call_number(c, n);
}

static void on_del(struct call *c)
{
    int64_t n = 0;
    for (size_t i = 1; i < c->m->argc; i++) {
        struct value *v = key_of(c, i);
        n += v->kind != KIND_NONE;
        value_clear(v);
    }
    call_number(c, n);
}

static void on_expire(struct call *c)
{
    struct value *v = key_of(c, 1); /* never runs out here */
    v->version++;
    call_number(c, v->kind != KIND_NONE);
}

static void on_incr(struct call *c)
{
    struct value *v = key_of(c, 1);
    struct model_command text = { .argc = 1, .arg = { bytes_span(&v->text) } };
    int64_t n = model_arg_number(&text, 0, 0) + model_arg_number(c->m, 2, 1);
    struct bytes written = { 0 };
    bytes_printf(&written, "%" PRId64, n);
    string_put(v, bytes_span(&written));
    bytes_fini(&written);
    call_number(c, n);
}

static void on_echo(struct call *c)
{
    model_bulk_add(c->out, c->m->arg[1]);
}

static const struct {
    const char *name;
    size_t argc_min;
    bool writes;
    void (*run)(struct call *c);
} commands[] = {
    { "SET", 3, true, on_set },        { "SETEX", 4, true, on_setex },
    { "SETNX", 3, true, on_setnx },    { "GETSET", 3, true, on_getset },
    { "APPEND", 3, true, on_append },  { "GET", 2, false, on_get },
    { "STRLEN", 2, false, on_strlen }, { "GETRANGE", 4, false, on_getrange },
    { "MGET", 2, false, on_mget },     { "MSET", 3, true, on_mset },
    { "EXISTS", 2, false, on_exists }, { "DEL", 2, true, on_del },
    { "EXPIRE", 3, true, on_expire },  { "INCR", 2, true, on_incr },
    { "INCRBY", 3, true, on_incr },    { "RPUSH", 3, true, on_rpush },
    { "LRANGE", 4, false, on_lrange }, { "LTRIM", 4, true, on_ltrim },
    { "LLEN", 2, false, on_llen },     { "BLPOP", 3, true, on_pop },
    { "ECHO", 2, false, on_echo },     { "UNLINK", 2, true, on_del },
    { "TOUCH", 2, false, on_exists },  { "BRPOP", 3, true, on_pop },
    { "BLMOVE", 6, true, on_blmove },  { "BZPOPMIN", 3, true, on_pop },
    { "ZADD", 4, true, on_zadd },      { "XADD", 5, true, on_xadd },
    { "XREAD", 4, false, on_xread },   { "XINFO", 3, false, on_xinfo },
};

enum {
    COMMANDS = sizeof commands / sizeof commands[0]
};

static size_t command_index(const struct model_command *m)
{
    for (size_t i = 0; i < COMMANDS; i++) {
        if (model_arg_is(m, 0, commands[i].name) &&
            m->argc >= commands[i].argc_min) {
            return i;
        }
    }
    return COMMANDS;
}

bool data_writes(const struct model_command *m)
{
    size_t i = command_index(m);
    return i < COMMANDS && commands[i].writes;
}

bool data_knows(const struct model_command *m)
{
    return command_index(m) < COMMANDS;
}

void data_unknown(const struct model_command *m, struct bytes *out)
{
    for (size_t i = 0; i < COMMANDS; i++) {
        if (model_arg_is(m, 0, commands[i].name)) {
            bytes_printf(out,
                         "-ERR wrong number of arguments for '%s' command\r\n",
                         commands[i].name);
            return;
        }
    }
    bytes_printf(out,
                 "-ERR unknown command '%.*s', with args beginning with: \r\n",
                 (int)(m->arg[0].len < 100 ? m->arg[0].len : 100),
                 (const char *)m->arg[0].data);
}

struct span data_text(const struct value *v)
{
    return bytes_span(&v->text);
}

size_t data_length(const struct value *v)
{
    return v->n_items - v->items_at;
}

void data_command(struct data *d,
                  struct ledger ledger,
                  const struct model_command *m,
                  struct bytes *out)
{
    struct call call = {
        .data = d, .db = ledger.db, .resp = ledger.resp, .m = m, .out = out
    };
    size_t i = command_index(m);
    if (i < COMMANDS) {
        commands[i].run(&call);
    } else {
        data_unknown(m, out);
    }
}
