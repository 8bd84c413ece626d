/* The bodies of Lua scripts that have passed through, by their SHA1: what an
 * EVALSHA needs when its server has lost the script (redis.md §3 "Scripts").
 * Bounded; pure but for memory.
 *
 * Two lists, each with its own share of the bytes, forget what was not used for
 * longest: what SCRIPT LOAD brought, was seen twice, or was missed, and what EVAL
 * has brought once. So bodies that change with each call push out each other,
 * and nothing else. Their SHA1 is computed only when somebody asks for one. */
#ifndef CORE_SCRIPTS_H
#define CORE_SCRIPTS_H

#include "parser/sha1.h"
#include "proxy/core/list.h"

struct memory;

enum {
    SCRIPTS_MAX = 4096,        /* bodies, whatever their size */
    SCRIPTS_WANTED_MAX = 8,    /* names that clients asked for in vain */
    SCRIPTS_WANTED_TRIES = 64, /* new bodies that each is compared with */
};

struct script {
    struct list_node use;      /* in scripts->kept or ->once, oldest first */
    struct list_node nameless; /* in scripts->nameless while !named */
    struct script *next_hash;  /* of the same bucket */
    struct script *next_sha1;  /* named: of the same bucket */
    uint64_t hash;             /* of the body */
    uint32_t body_offset;      /* within text */
    uint32_t body_len;
    uint32_t text_len;
    bool kept;
    bool named;       /* sha1 and what follows it are set */
    bool no_writes;   /* the server lets it write nothing */
    bool says_itself; /* NOSCRIPT may be its own word */
    struct sha1 sha1;
    uint64_t sent_on; /* the connection it was last loaded on; see conn_id */
    uint64_t sent_us; /* and when */
    uint8_t text[];   /* SCRIPT LOAD with the body */
};

struct scripts {
    uint64_t bytes_max;      /* 0: nothing is remembered */
    struct script **by_hash; /* owned, with by_sha1; NULL: nothing yet */
    struct script **by_sha1;
    struct list_node kept;
    struct list_node once;
    struct list_node nameless;
    uint64_t kept_bytes;
    uint64_t once_bytes;
    uint32_t n;
    uint64_t evicted; /* bodies that had to make room, ever */
    uint32_t n_wanted;
    uint32_t wanted_next; /* the place that is used next */
    struct {
        struct sha1 sha1;
        uint32_t tries; /* left; 0: free */
    } wanted[SCRIPTS_WANTED_MAX];
};

void scripts_init(struct scripts *s, uint64_t bytes_max);
/* Forget everything. */
void scripts_clear(struct memory *m, struct scripts *s);
/* The same, and give back the tables. */
void scripts_fini(struct memory *m, struct scripts *s);

/* The server has accepted this body: by SCRIPT LOAD, or by EVAL. Without memory
 * it is not remembered. body is borrowed. */
void scripts_add(struct memory *m,
                 struct scripts *s,
                 struct span body,
                 bool loaded);

/* The script of that name (40 digits), or NULL. Borrowed until the next call
 * with the same s. */
struct script *scripts_find(struct scripts *s, struct span name);

/* A client was told that the server knows no script of that name, and redial
 * does not either: it will most likely say EVAL next. */
void scripts_want(struct scripts *s, struct span name);

/* "SCRIPT LOAD body". */
static inline struct span script_load(const struct script *script)
{
    return (struct span){ script->text, script->text_len };
}

#endif
