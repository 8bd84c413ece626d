#include "proxy/core/learnt.h"

#include "proxy/core/state.h"

enum {
    BUCKETS = 512
};

struct row {
    struct row *next; /* in the same bucket; of one name the one in force is
                         in front */
    struct command_info info;
};

struct learnt {
    uint32_t n_rows;
    struct row *buckets[BUCKETS]; /* owned */
};

struct learnt *learnt_new(struct engine *e)
{
    return memory_take(e->memory, sizeof(struct learnt));
}

void learnt_free(struct engine *e, struct learnt *t)
{
    for (unsigned i = 0; t != NULL && i < BUCKETS; i++) {
        while (t->buckets[i] != NULL) {
            struct row *row = t->buckets[i];
            t->buckets[i] = row->next;
            memory_give(e->memory, row);
        }
    }
    memory_give(e->memory, t);
}

uint32_t learnt_count(const struct learnt *t)
{
    return t == NULL ? 0 : t->n_rows;
}

/* The bucket of a name in upper case. */
static unsigned bucket_of(const char *name)
{
    uint32_t hash = 0x811c9dc5u; /* FNV-1a */
    for (const char *c = name; *c != '\0'; c++) {
        hash = (hash ^ (uint8_t)*c) * 0x01000193u;
    }
    return (hash ^ hash >> 16) % BUCKETS;
}

/* Behind row in its bucket, or from the beginning: the next of that name. */
static struct row *next_of(struct row *row, const char *name)
{
    while (row != NULL && strcmp(row->info.name, name) != 0) {
        row = row->next;
    }
    return row;
}

/* Servers of an upstream may disagree while they are upgraded one by one. What
 * they say is kept once each. */
static struct row *said_before(const struct learnt *t,
                               unsigned bucket,
                               const struct command_info *info)
{
    struct row *row = next_of(t->buckets[bucket], info->name);
    while (row != NULL && !command_info_equal(&row->info, info)) {
        row = next_of(row->next, info->name);
    }
    return row;
}

static void bring_to_front(struct learnt *t, unsigned bucket, struct row *row)
{
    struct row **link = &t->buckets[bucket];
    while (*link != row) {
        link = &(*link)->next;
    }
    *link = row->next;
    row->next = t->buckets[bucket];
    t->buckets[bucket] = row;
}

enum learnt_added learnt_add(struct engine *e,
                             struct learnt *t,
                             const struct command_info *info,
                             uint32_t rows_max)
{
    unsigned bucket = bucket_of(info->name);
    struct row *in_force = next_of(t->buckets[bucket], info->name);
    struct row *row = said_before(t, bucket, info);
    if (row != NULL) {
        bring_to_front(t, bucket, row);
        return row == in_force ? LEARNT_KNOWN : LEARNT_NEW;
    }
    if (t->n_rows >= rows_max) {
        return LEARNT_NO_ROOM;
    }
    row = memory_take(e->memory, sizeof(*row));
    if (row == NULL) {
        return LEARNT_NO_MEMORY;
    }
    command_info_copy(&row->info, info);
    row->next = t->buckets[bucket];
    t->buckets[bucket] = row;
    t->n_rows++;
    return LEARNT_NEW;
}

/* Append a word in upper case. False: no row has a name so long, or so odd. */
static bool put_word(char *name, size_t *len, struct span word)
{
    if (word.len == 0 || *len + word.len > COMMAND_INFO_NAME_MAX) {
        return false;
    }
    for (size_t i = 0; i < word.len; i++) {
        uint8_t c = word.data[i];
        bool lower = c >= 'a' && c <= 'z';
        if (c <= ' ') {
            return false;
        }
        name[*len + i] = (char)(c - (lower ? 'a' - 'A' : 0));
    }
    *len += word.len;
    name[*len] = '\0';
    return true;
}

static const struct command *find(const struct learnt *t, const char *name)
{
    const struct row *row = next_of(t->buckets[bucket_of(name)], name);
    return row == NULL ? NULL : &row->info.row;
}

const struct command *learnt_find(const struct learnt *t,
                                  struct span name,
                                  struct span sub)
{
    char text[COMMAND_INFO_NAME_MAX + 2];
    size_t len = 0;
    if (t == NULL || !put_word(text, &len, name)) {
        return NULL;
    }
    const struct command *container = find(t, text);
    text[len++] = ' ';
    if (!put_word(text, &len, sub)) {
        return container;
    }
    const struct command *found = find(t, text);
    return found != NULL ? found : container;
}
