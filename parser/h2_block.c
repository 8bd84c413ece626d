#include "parser/h2_block.h"

#include <assert.h>
#include <string.h>

#include "parser/h2_memory.h"

enum {
    REQUEST_FIELDS = 16, /* room at first */
    RESPONSE_FIELDS = 8
};

/* What keeps a field's bytes. */
struct held {
    nghttp2_rcbuf *name, *value;
    size_t size; /* as SETTINGS_MAX_HEADER_LIST_SIZE counts */
};

/* One piece of memory: this, the fields, what holds them. */
struct kept_block {
    struct h2_block block; /* first */
    struct h2_memory *memory;
    struct held *held;
};

static struct kept_block *kept_of(struct h2_block *b)
{
    return (struct kept_block *)b;
}

static struct h2_block *block_new(struct h2_memory *m, uint16_t cap)
{
    const size_t fields = cap * sizeof(struct h2_field);
    struct kept_block *k =
        h2_memory_take(m, sizeof *k + fields + cap * sizeof(struct held));
    if (k == NULL) {
        return NULL;
    }
    memset(k, 0, sizeof *k);
    k->memory = m;
    k->block.refs = 1;
    k->block.cap = cap;
    k->block.fields = (void *)(k + 1);
    k->held = (void *)((unsigned char *)(k + 1) + fields);
    return &k->block;
}

void h2_block_ref(struct h2_block *b)
{
    b->refs++;
}

void h2_block_unref(struct h2_block *b)
{
    assert(b->refs > 0);
    if (--b->refs > 0) {
        return;
    }
    struct kept_block *k = kept_of(b);
    for (size_t i = 0; i < b->n; i++) {
        nghttp2_rcbuf_decref(k->held[i].name);
        nghttp2_rcbuf_decref(k->held[i].value);
    }
    h2_memory_give(k->memory, k);
}

static void block_drop(struct h2_block **b)
{
    if (*b != NULL) {
        h2_block_unref(*b);
        *b = NULL;
    }
}

/* Twice the room. Returns false when there is no memory. */
static bool block_grow(struct h2_block **b)
{
    struct kept_block *old = kept_of(*b);
    const uint16_t n = old->block.n;
    struct h2_block *grown =
        block_new(old->memory, (uint16_t)(old->block.cap * 2));
    if (grown == NULL) {
        return false;
    }
    const struct h2_block empty = *grown;
    *grown = old->block;
    grown->cap = empty.cap;
    grown->fields = empty.fields;
    memcpy(grown->fields, old->block.fields, n * sizeof *grown->fields);
    memcpy(kept_of(grown)->held, old->held, n * sizeof *old->held);
    h2_memory_give(old->memory, old);
    *b = grown;
    return true;
}

/* Count a field that has arrived. Returns whether it is to be stored. */
static bool block_count(struct h2_block *b, size_t size, uint32_t size_max)
{
    b->size =
        size > UINT32_MAX - b->size ? UINT32_MAX : b->size + (uint32_t)size;
    b->too_large = b->too_large || b->size > size_max;
    b->too_many = b->too_many || b->n == H2_FIELDS_MAX;
    return !b->too_large && !b->too_many;
}

/* Returns false when there is no memory. */
static bool block_add(struct h2_block **block,
                      const struct h2_field *field,
                      const struct held *held)
{
    if ((*block)->n == (*block)->cap && !block_grow(block)) {
        return false;
    }
    struct h2_block *b = *block;
    nghttp2_rcbuf_incref(held->name);
    nghttp2_rcbuf_incref(held->value);
    kept_of(b)->held[b->n] = *held;
    b->fields[b->n++] = *field;
    if (field->id == H2_OTHER) {
        return true;
    }
    if (b->first[field->id] == 0) {
        b->first[field->id] = b->n;
    } else if (b->twice[field->id] < UINT8_MAX) {
        b->twice[field->id]++;
    }
    return true;
}

/* ---- the block that is arriving ---- */

void h2_reading_init(struct h2_reading *r,
                     struct h2_memory *memory,
                     uint32_t size_max)
{
    *r = (struct h2_reading){ .memory = memory, .size_max = size_max };
}

void h2_reading_fini(struct h2_reading *r)
{
    block_drop(&r->block);
    for (size_t i = 0; i <= H2_TRAILERS; i++) {
        block_drop(&r->patterns[i].block);
    }
}

void h2_reading_begin(struct h2_reading *r, enum h2_headers kind, bool keep)
{
    block_drop(&r->block); /* of a block that never became whole */
    r->keep = keep;
    r->same = keep;
    r->at = 0;
    r->rules = (struct h2_rules){ .kind = kind };
}

static struct h2_block *pattern_of(const struct h2_reading *r)
{
    return r->patterns[r->rules.kind].block;
}

/* The block is another one than the pattern: begin it with the fields that
 * are the same. Returns false when there is no memory. */
static bool differ(struct h2_reading *r)
{
    struct h2_block *pattern = pattern_of(r);
    r->same = false;
    r->block =
        block_new(r->memory, r->rules.kind == H2_REQUEST ? REQUEST_FIELDS
                                                         : RESPONSE_FIELDS);
    bool ok = r->block != NULL;
    for (size_t i = 0; ok && i < r->at; i++) {
        const struct held *held = &kept_of(pattern)->held[i];
        const struct h2_field *field = &pattern->fields[i];
        block_count(r->block, held->size, r->size_max);
        h2_rules_field(&r->rules, field->id, field->value, true);
        ok = block_add(&r->block, field, held);
    }
    return ok;
}

static bool is_equal(nghttp2_rcbuf *a, nghttp2_rcbuf *b)
{
    if (a == b) {
        return true; /* an entry of the compression table */
    }
    const nghttp2_vec x = nghttp2_rcbuf_get_buf(a);
    const nghttp2_vec y = nghttp2_rcbuf_get_buf(b);
    return x.len == y.len && memcmp(x.base, y.base, x.len) == 0;
}

/* Whether the next field of the pattern is this one. */
static bool is_next(const struct h2_reading *r,
                    const struct held *new,
                    uint8_t flags)
{
    struct h2_block *pattern = pattern_of(r);
    if (pattern == NULL || r->at == pattern->n) {
        return false;
    }
    const struct held *held = &kept_of(pattern)->held[r->at];
    return pattern->fields[r->at].flags == flags &&
           is_equal(held->name, new->name) && is_equal(held->value, new->value);
}

/* Find a field in the pattern: there it comes next, or one is left out. If it
 * is there it is known to be legal. Returns NULL when it is not. */
static const struct h2_field *find_known(struct h2_reading *r,
                                         struct held *held)
{
    struct h2_block *pattern = pattern_of(r);
    if (!r->keep || pattern == NULL) {
        return NULL;
    }
    for (uint16_t i = r->at; i < pattern->n && i < r->at + 2; i++) {
        const struct held *known = &kept_of(pattern)->held[i];
        if (is_equal(known->name, held->name)) {
            r->at = (uint16_t)(i + 1);
            if (!is_equal(known->value, held->value)) {
                return NULL;
            }
            *held = *known;
            return &pattern->fields[i];
        }
    }
    return NULL;
}

static struct span span_of_rcbuf(nghttp2_rcbuf *b)
{
    const nghttp2_vec v = nghttp2_rcbuf_get_buf(b);
    return (struct span){ v.base, v.len };
}

/* Look at a field that is new. Returns whether it may be kept. */
static bool examine(struct h2_reading *r, struct h2_field *f)
{
    bool legal = true;
    f->id = h2_name_id(f->name);
    if (f->id == H2_OTHER) {
        const enum h2_legality legality = h2_name_legality(f->name);
        r->rules.broken = r->rules.broken || legality == H2_UPPER_CASE;
        legal = legality == H2_LEGAL;
    } else if (f->id < H2_NAME_COUNT) {
        f->name = h2_name_text(f->id);
    }
    f->value = h2_value_trim(f->value);
    legal = legal && h2_value_is_legal(f->value);
    h2_rules_field(&r->rules, f->id, f->value, legal);
    if (!legal && r->block != NULL && r->block->n_dropped < UINT16_MAX) {
        r->block->n_dropped++;
    }
    return legal;
}

bool h2_reading_field(struct h2_reading *r,
                      nghttp2_rcbuf *name,
                      nghttp2_rcbuf *value,
                      uint8_t flags)
{
    struct held held = { name, value, 0 };
    flags = (flags & NGHTTP2_NV_FLAG_NO_INDEX) != 0 ? H2_FIELD_NO_INDEX : 0;
    if (r->rules.broken) {
        return true;
    }
    if (r->same) {
        if (is_next(r, &held, flags)) {
            r->at++;
            return true;
        }
        if (!differ(r)) {
            return false;
        }
    }
    struct h2_field field;
    bool legal = true;
    const struct h2_field *known = find_known(r, &held);
    if (known != NULL) {
        field = *known;
        h2_rules_field(&r->rules, field.id, field.value, true);
    } else {
        field = (struct h2_field){ .name = span_of_rcbuf(name),
                                   .value = span_of_rcbuf(value) };
        held.size = field.name.len + field.value.len + 32;
        legal = examine(r, &field);
    }
    field.flags = flags;
    return !r->keep || !block_count(r->block, held.size, r->size_max) ||
           !legal || r->rules.broken || block_add(&r->block, &field, &held);
}

/* The next block of this kind is compared with this one. */
static void learn(struct h2_reading *r, struct h2_block *b)
{
    const bool is_interim = r->rules.status != 0 && r->rules.status < 200;
    if (b->too_large || b->too_many || b->n_dropped > 0 || is_interim) {
        return;
    }
    struct h2_pattern *pattern = &r->patterns[r->rules.kind];
    block_drop(&pattern->block);
    h2_block_ref(b);
    *pattern = (struct h2_pattern){ .block = b, .rules = r->rules };
}

enum h2_reading_result h2_reading_end(struct h2_reading *r,
                                      bool end,
                                      struct h2_block **block)
{
    const struct h2_pattern *pattern = &r->patterns[r->rules.kind];
    *block = NULL;
    if (r->same) {
        if (pattern->block != NULL && r->at == pattern->block->n) {
            r->rules = pattern->rules;
        } else if (!differ(r)) {
            return H2_READ_NO_MEMORY;
        }
    }
    if (!h2_rules_end(&r->rules, end)) {
        block_drop(&r->block);
        return H2_READ_INVALID;
    }
    if (r->same) {
        *block = pattern->block;
        h2_block_ref(*block);
    } else if (r->keep) {
        *block = r->block;
        r->block = NULL;
        learn(r, *block);
    }
    return H2_READ_OK;
}
