/* Lists, sorted sets and streams of the model server, and the commands that may
 * wait for something in them. */
#include <inttypes.h>
#include <stdio.h>

#include "tests/sim/value.h"

/* --- lists -------------------------------------------------------------- */

void on_rpush(struct call *c)
{
    struct value *v = key_of(c, 1);
    v->kind = KIND_LIST;
    v->version++;
    for (size_t i = 2; i < c->m->argc; i++) {
        item_add(v, c->m->arg[i]);
    }
    call_number(c, (int64_t)(v->n_items - v->items_at));
}

void on_lrange(struct call *c)
{
    struct value *v = key_of(c, 1);
    bytes_printf(c->out, "*%zu\r\n", v->n_items - v->items_at);
    for (size_t i = v->items_at; i < v->n_items; i++) {
        model_bulk_add(c->out, bytes_span(&v->items[i]));
    }
}

void on_ltrim(struct call *c)
{
    key_of(c, 1)->version++; /* only ever "keep everything" */
    call_ok(c);
}

void on_llen(struct call *c)
{
    struct value *v = key_of(c, 1);
    call_number(c, (int64_t)(v->n_items - v->items_at));
}

/* Take the first item, or the last one. The caller owns it. */
static struct bytes take(struct value *v, bool last)
{
    struct bytes item = last ? v->items[--v->n_items] : v->items[v->items_at++];
    v->version++;
    if (value_is_empty(v)) {
        value_clear(v);
    }
    return item;
}

/* The first key that has something; NULL: none. */
static struct value *find_full(struct call *c)
{
    for (size_t i = 1; i + 1 < c->m->argc; i++) {
        struct value *v = key_of(c, i);
        if (!value_is_empty(v)) {
            return v;
        }
    }
    return NULL;
}

static void zset_pop(struct call *c, struct value *v)
{
    struct bytes item = take(v, false);
    char score[24];
    int64_t number = 0;
    for (int i = 0; i < SCORE_DIGITS; i++) {
        number = number * 10 + (bytes_front(&item)[i] - '0');
    }
    snprintf(score, sizeof score, "%" PRId64, number);
    bytes_drop(&item, SCORE_DIGITS);
    bytes_add_text(c->out, "*3\r\n");
    model_bulk_add(c->out, bytes_span(&v->key));
    model_bulk_add(c->out, bytes_span(&item));
    if (c->resp == 3) {
        bytes_printf(c->out, ",%s\r\n", score);
    } else {
        model_bulk_add(c->out, span_of(score));
    }
    bytes_fini(&item);
}

void on_pop(struct call *c)
{
    struct value *v = find_full(c);
    if (v == NULL) {
        model_null_array_add(c->out, c->resp);
        return;
    }
    if (v->kind == KIND_ZSET) {
        zset_pop(c, v);
        return;
    }
    struct bytes item = take(v, model_arg_is(c->m, 0, "BRPOP"));
    bytes_add_text(c->out, "*2\r\n");
    model_bulk_add(c->out, bytes_span(&v->key));
    model_bulk_add(c->out, bytes_span(&item));
    bytes_fini(&item);
}

void on_blmove(struct call *c)
{
    struct value *from = key_of(c, 1);
    struct value *to = key_of(c, 2);
    if (value_is_empty(from)) {
        model_null_array_add(c->out, c->resp);
        return;
    }
    struct bytes item = take(from, model_arg_is(c->m, 3, "RIGHT"));
    to->kind = KIND_LIST;
    to->version++;
    item_add(to, bytes_span(&item));
    model_bulk_add(c->out, bytes_span(&item));
    bytes_fini(&item);
}

/* --- sorted sets --------------------------------------------------------- */

static bool comes_before(const struct bytes *a, const struct bytes *b)
{
    size_t n = a->size < b->size ? a->size : b->size;
    int order = memcmp(bytes_front(a), bytes_front(b), n);
    return order != 0 ? order < 0 : a->size < b->size;
}

/* ZADD of members that are not there yet; scores have at most 8 digits. */
void on_zadd(struct call *c)
{
    struct value *v = key_of(c, 1);
    struct bytes item = { 0 };
    bytes_printf(&item, "%0*" PRId64, SCORE_DIGITS,
                 model_arg_number(c->m, 2, 0));
    bytes_add(&item, c->m->arg[3].data, c->m->arg[3].len);
    v->kind = KIND_ZSET;
    v->version++;
    item_add(v, bytes_span(&item));
    bytes_fini(&item);
    for (size_t i = v->n_items - 1;
         i > v->items_at && comes_before(&v->items[i], &v->items[i - 1]); i--) {
        struct bytes swap = v->items[i];
        v->items[i] = v->items[i - 1];
        v->items[i - 1] = swap;
    }
    call_number(c, 1);
}

/* --- streams ------------------------------------------------------------- */

static void id_add(struct bytes *out, size_t n)
{
    char id[24];
    snprintf(id, sizeof id, "%zu-0", n);
    model_bulk_add(out, span_of(id));
}

void on_xadd(struct call *c)
{
    struct value *v = key_of(c, 1);
    v->kind = KIND_STREAM;
    v->version++;
    item_add(v, c->m->arg[4]);
    id_add(c->out, v->n_items);
}

/* "12-0", "12" or "$". */
static size_t id_read(const struct value *v, struct span id)
{
    size_t n = 0;
    if (id.len > 0 && id.data[0] == '$') {
        return v->n_items;
    }
    for (size_t i = 0; i < id.len && id.data[i] != '-'; i++) {
        n = n * 10 + (size_t)(id.data[i] - '0');
    }
    return n;
}

/* XINFO STREAM, as far as anybody asks. */
void on_xinfo(struct call *c)
{
    struct value *v = data_at(c->data, c->db, c->m->arg[2]);
    if (value_is_empty(v)) {
        bytes_add_text(c->out, "-ERR no such key\r\n");
        return;
    }
    model_map_add(c->out, c->resp, 2);
    bytes_printf(c->out, "$6\r\nlength\r\n:%zu\r\n", v->n_items);
    model_bulk_add(c->out, span_of("last-generated-id"));
    id_add(c->out, v->n_items);
}

/* Where the keys of an XREAD begin, and how many there are. */
static size_t xread_keys(const struct model_command *m, size_t *first)
{
    size_t i = 1;
    while (i < m->argc && !model_arg_is(m, i, "STREAMS")) {
        i++;
    }
    *first = i + 1;
    return i < m->argc ? (m->argc - i - 1) / 2 : 0;
}

static size_t news_of(struct call *c, size_t i, size_t n, struct value **v)
{
    *v = key_of(c, i);
    return id_read(*v, c->m->arg[i + n]);
}

void on_xread(struct call *c)
{
    size_t first;
    size_t n = xread_keys(c->m, &first);
    unsigned full = 0;
    struct value *v;
    for (size_t i = 0; i < n; i++) {
        full += news_of(c, first + i, n, &v) < v->n_items;
    }
    if (full == 0) {
        model_null_array_add(c->out, c->resp);
        return;
    }
    bytes_printf(c->out, c->resp == 3 ? "%%%u\r\n" : "*%u\r\n", full);
    for (size_t i = 0; i < n; i++) {
        size_t from = news_of(c, first + i, n, &v);
        if (from >= v->n_items) {
            continue;
        }
        bytes_add_text(c->out, c->resp == 3 ? "" : "*2\r\n");
        model_bulk_add(c->out, bytes_span(&v->key));
        bytes_printf(c->out, "*%zu\r\n", v->n_items - from);
        for (size_t k = from; k < v->n_items; k++) {
            bytes_add_text(c->out, "*2\r\n");
            id_add(c->out, k + 1);
            bytes_add_text(c->out, "*2\r\n$1\r\nf\r\n");
            model_bulk_add(c->out, bytes_span(&v->items[k]));
        }
    }
}

/* --- waiting ------------------------------------------------------------- */

bool data_waits(struct data *d,
                struct ledger ledger,
                const struct model_command *m)
{
    struct call c = { .data = d, .db = ledger.db, .m = m };
    size_t first;
    struct value *v;
    if (model_arg_is(m, 0, "BLMOVE")) {
        return value_is_empty(key_of(&c, 1));
    }
    if (!model_arg_is(m, 0, "XREAD")) {
        return find_full(&c) == NULL;
    }
    size_t n = xread_keys(m, &first);
    for (size_t i = 0; i < n; i++) {
        if (news_of(&c, first + i, n, &v) < v->n_items) {
            return false;
        }
    }
    return true;
}

void data_freeze(struct data *d,
                 struct ledger ledger,
                 const struct model_command *m,
                 struct bytes *words)
{
    struct call c = { .data = d, .db = ledger.db, .m = m };
    struct span arg[MODEL_ARGS_MAX];
    char ids[MODEL_ARGS_MAX][24];
    size_t first;
    size_t n = model_arg_is(m, 0, "XREAD") ? xread_keys(m, &first) : 0;
    memcpy(arg, m->arg, sizeof arg);
    for (size_t i = 0; i < n; i++) {
        struct value *v;
        size_t id = news_of(&c, first + i, n, &v);
        snprintf(ids[i], sizeof ids[i], "%zu-0", id);
        arg[first + i + n] = span_of(ids[i]);
    }
    model_command_add(words, arg, m->argc);
}

bool model_blocks(const struct model_command *m, uint64_t *timeout_us)
{
    static const char *const names[] = { "BLPOP", "BRPOP", "BZPOPMIN",
                                         "BLMOVE" };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (model_arg_is(m, 0, names[i])) {
            *timeout_us = model_seconds(m->arg[m->argc - 1]);
            return true;
        }
    }
    for (size_t i = 1; model_arg_is(m, 0, "XREAD") && i + 1 < m->argc; i++) {
        if (model_arg_is(m, i, "BLOCK")) {
            *timeout_us = (uint64_t)model_arg_number(m, i + 1, 0) * 1000;
            return true;
        }
    }
    return false;
}
