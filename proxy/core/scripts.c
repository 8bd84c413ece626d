#include "proxy/core/scripts.h"

#include <assert.h>
#include <stdio.h>

#include "parser/commands.h"
#include "parser/load.h"
#include "proxy/core/memory.h"

enum {
    BUCKETS = 1024,
    HEAD_MAX = 64, /* of SCRIPT LOAD, up to the body */
};

void scripts_init(struct scripts *s, uint64_t bytes_max)
{
    *s = (struct scripts){ .bytes_max = bytes_max };
    list_init(&s->kept);
    list_init(&s->once);
    list_init(&s->nameless);
}

/* A quarter is for what EVAL has brought once. */
static uint64_t once_max(const struct scripts *s)
{
    return s->bytes_max / 4;
}

static uint64_t kept_max(const struct scripts *s)
{
    return s->bytes_max - once_max(s);
}

static uint64_t size_of(const struct script *script)
{
    return sizeof(*script) + script->text_len;
}

/* Not for safety: what is found by it is compared. */
static uint64_t hash_of(struct span body)
{
    uint64_t hash = 0x9e3779b97f4a7c15u ^ body.len;
    for (size_t i = 0; i < body.len; i += 8) {
        hash = (hash ^ load_part(body.data + i, body.len - i)) *
               0xff51afd7ed558ccdu;
        hash ^= hash >> 32;
    }
    return hash;
}

static struct script **hash_bucket(const struct scripts *s, uint64_t hash)
{
    return &s->by_hash[hash % BUCKETS];
}

static struct script **sha1_bucket(const struct scripts *s,
                                   const struct sha1 *sha1)
{
    return &s->by_sha1[load_u64(sha1->byte) % BUCKETS];
}

static struct span body_of(const struct script *script)
{
    return (struct span){ script->text + script->body_offset,
                          script->body_len };
}

/* ---- lists ------------------------------------------------------------------ */

static void unlink_from(struct script **at, struct script *script, bool by_sha1)
{
    while (*at != script) {
        at = by_sha1 ? &(*at)->next_sha1 : &(*at)->next_hash;
    }
    *at = by_sha1 ? script->next_sha1 : script->next_hash;
}

static void leave_list(struct scripts *s, struct script *script)
{
    list_remove(&script->use);
    uint64_t *bytes = script->kept ? &s->kept_bytes : &s->once_bytes;
    *bytes -= size_of(script);
}

static void drop(struct memory *m, struct scripts *s, struct script *script)
{
    leave_list(s, script);
    unlink_from(hash_bucket(s, script->hash), script, false);
    if (script->named) {
        unlink_from(sha1_bucket(s, &script->sha1), script, true);
    } else {
        list_remove(&script->nameless);
    }
    s->n--;
    memory_give(m, script);
}

/* Make room for so many bytes in one of the lists, which has as much. */
static void evict(struct memory *m,
                  struct scripts *s,
                  struct list_node *list,
                  const uint64_t *bytes,
                  uint64_t bytes_max)
{
    while (*bytes > bytes_max) {
        drop(m, s, CONTAINER_OF(list->next, struct script, use));
        s->evicted++;
    }
}

/* Put script, which is in no list, where it belongs, as the newest. */
static void enter_list(struct memory *m,
                       struct scripts *s,
                       struct script *script,
                       bool kept)
{
    uint64_t size = size_of(script);
    script->kept = kept;
    if (kept) {
        evict(m, s, &s->kept, &s->kept_bytes, kept_max(s) - size);
        list_append(&s->kept, &script->use);
        s->kept_bytes += size;
    } else {
        evict(m, s, &s->once, &s->once_bytes, once_max(s) - size);
        list_append(&s->once, &script->use);
        s->once_bytes += size;
    }
}

void scripts_clear(struct memory *m, struct scripts *s)
{
    while (!list_empty(&s->kept)) {
        drop(m, s, CONTAINER_OF(s->kept.next, struct script, use));
    }
    while (!list_empty(&s->once)) {
        drop(m, s, CONTAINER_OF(s->once.next, struct script, use));
    }
    assert(s->n == 0 && list_empty(&s->nameless));
}

void scripts_fini(struct memory *m, struct scripts *s)
{
    if (s->by_hash != NULL) {
        scripts_clear(m, s);
        memory_give(m, s->by_hash);
    }
    scripts_init(s, 0);
}

/* ---- names ------------------------------------------------------------------ */

static bool contains(struct span text, struct span word)
{
    for (size_t i = 0; i + word.len <= text.len;) {
        const uint8_t *at =
            memchr(text.data + i, word.data[0], text.len - word.len - i + 1);
        if (at == NULL) {
            return false;
        }
        if (memcmp(at, word.data, word.len) == 0) {
            return true;
        }
        i = (size_t)(at - text.data) + 1;
    }
    return false;
}

static void name(struct scripts *s, struct script *script)
{
    struct span body = body_of(script);
    script->sha1 = sha1_of(body);
    script->no_writes = command_script_reads(body);
    script->says_itself = contains(body, span_of("NOSCRIPT"));
    script->named = true;
    list_remove(&script->nameless);
    struct script **bucket = sha1_bucket(s, &script->sha1);
    script->next_sha1 = *bucket;
    *bucket = script;
}

struct script *scripts_find(struct scripts *s, struct span text)
{
    struct sha1 sha1;
    if (s->n == 0 || !sha1_parse(text, &sha1)) {
        return NULL;
    }
    while (!list_empty(&s->nameless)) {
        name(s, CONTAINER_OF(s->nameless.next, struct script, nameless));
    }
    struct script *script = *sha1_bucket(s, &sha1);
    while (script != NULL && !sha1_equal(&script->sha1, &sha1)) {
        script = script->next_sha1;
    }
    return script;
}

void scripts_want(struct scripts *s, struct span text)
{
    struct sha1 sha1;
    if (s->bytes_max == 0 || !sha1_parse(text, &sha1)) {
        return;
    }
    for (size_t i = 0; i < SCRIPTS_WANTED_MAX; i++) {
        if (s->wanted[i].tries > 0 && sha1_equal(&s->wanted[i].sha1, &sha1)) {
            s->wanted[i].tries = SCRIPTS_WANTED_TRIES;
            return;
        }
    }
    uint32_t i = s->wanted_next++ % SCRIPTS_WANTED_MAX;
    s->n_wanted += s->wanted[i].tries == 0;
    s->wanted[i].sha1 = sha1;
    s->wanted[i].tries = SCRIPTS_WANTED_TRIES;
}

/* Whether a client missed this one. Each name is compared with so many bodies
 * only: SHA1 is not to be computed for each new one for ever. */
static bool is_wanted(struct scripts *s, struct script *script)
{
    bool wanted = false;
    if (s->n_wanted == 0) {
        return false;
    }
    name(s, script);
    for (size_t i = 0; i < SCRIPTS_WANTED_MAX; i++) {
        if (s->wanted[i].tries == 0) {
            continue;
        }
        bool same = sha1_equal(&s->wanted[i].sha1, &script->sha1);
        s->wanted[i].tries = same ? 0 : s->wanted[i].tries - 1;
        s->n_wanted -= s->wanted[i].tries == 0;
        wanted = wanted || same;
    }
    return wanted;
}

/* ---- bodies ----------------------------------------------------------------- */

/* A script in no list but those of names; NULL without memory. */
static struct script *script_new(struct memory *m,
                                 struct scripts *s,
                                 struct span body,
                                 uint64_t hash)
{
    char head[HEAD_MAX];
    int n = snprintf(head, sizeof(head),
                     "*3\r\n$6\r\nSCRIPT\r\n$4\r\nLOAD\r\n$%zu\r\n", body.len);
    size_t len = (size_t)n + body.len + 2;
    struct script *script = memory_take_raw(m, sizeof(*script) + len);
    if (script == NULL) {
        return NULL;
    }
    *script = (struct script){ .hash = hash,
                               .body_offset = (uint32_t)n,
                               .body_len = (uint32_t)body.len,
                               .text_len = (uint32_t)len };
    memcpy(script->text, head, (size_t)n);
    if (body.len > 0) {
        memcpy(script->text + n, body.data, body.len);
    }
    memcpy(script->text + len - 2, "\r\n", 2);
    struct script **bucket = hash_bucket(s, hash);
    script->next_hash = *bucket;
    *bucket = script;
    list_append(&s->nameless, &script->nameless);
    s->n++;
    return script;
}

static bool have_tables(struct memory *m, struct scripts *s)
{
    if (s->by_hash == NULL) {
        s->by_hash = memory_take(m, 2 * BUCKETS * sizeof(struct script *));
        s->by_sha1 = s->by_hash == NULL ? NULL : s->by_hash + BUCKETS;
    }
    return s->by_hash != NULL;
}

/* Room for one more, whatever its size. */
static void limit_number(struct memory *m, struct scripts *s)
{
    if (s->n < SCRIPTS_MAX) {
        return;
    }
    struct list_node *list = list_empty(&s->once) ? &s->kept : &s->once;
    drop(m, s, CONTAINER_OF(list->next, struct script, use));
    s->evicted++;
}

void scripts_add(struct memory *m,
                 struct scripts *s,
                 struct span body,
                 bool loaded)
{
    uint64_t most = sizeof(struct script) + HEAD_MAX + body.len;
    if (body.len > UINT32_MAX / 2 || most > kept_max(s) || !have_tables(m, s)) {
        return;
    }
    uint64_t hash = hash_of(body);
    struct script *script = *hash_bucket(s, hash);
    while (script != NULL &&
           (script->hash != hash || !span_equal(body_of(script), body))) {
        script = script->next_hash;
    }
    if (script != NULL) {
        leave_list(s, script);
        enter_list(m, s, script, true);
        return;
    }
    if (!loaded && most > once_max(s)) {
        return;
    }
    limit_number(m, s);
    script = script_new(m, s, body, hash);
    if (script == NULL) {
        return;
    }
    bool wanted = is_wanted(s, script);
    enter_list(m, s, script, wanted || loaded);
}
