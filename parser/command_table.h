/* What the files about commands share: the columns of commands.def and the
 * key under which a row is found. Private to the parser. */
#ifndef PARSER_COMMAND_TABLE_H
#define PARSER_COMMAND_TABLE_H

#include "parser/commands.h"
#include "parser/load.h"

/* Which argument rule of redis.md §3 decides the class of a call. */
enum command_rule {
    RULE_NONE,
    RULE_BITFIELD,
    RULE_BITOP,
    RULE_COPY,
    RULE_EVAL,
    RULE_EXPIRE,
    RULE_EXPIREAT,
    RULE_FT_AGGREGATE,
    RULE_FT_SUGADD,
    RULE_FUNCTION_LOAD,
    RULE_FUNCTION_RESTORE,
    RULE_GEOADD,
    RULE_GEORADIUS,
    RULE_GEORADIUSBYMEMBER,
    RULE_GEOSEARCHSTORE,
    RULE_GETEX,
    RULE_HEXPIRE,
    RULE_HEXPIREAT,
    RULE_HGETEX,
    RULE_HPEXPIREAT,
    RULE_HSETEX,
    RULE_JSON_ARRTRIM,
    RULE_JSON_DEL,
    RULE_JSON_SET,
    RULE_LOG_RESET,
    RULE_LREM,
    RULE_LTRIM,
    RULE_MERGE,
    RULE_MSETEX,
    RULE_PEXPIREAT,
    RULE_RESTORE,
    RULE_SCAN,
    RULE_SDIFFSTORE,
    RULE_SET,
    RULE_SORT,
    RULE_TS_ADD,
    RULE_TS_MADD,
    RULE_TS_READ,
    RULE_XADD,
    RULE_XAUTOCLAIM,
    RULE_XCLAIM,
    RULE_XGROUP_SETID,
    RULE_XREAD,
    RULE_XREADGROUP,
    RULE_ZADD,
    RULE_ZDIFFSTORE,
    RULE_ZRANGESTORE,
    RULE_ZREMRANGEBYRANK,
    RULE_ZSTORE,
    RULE_COUNT
};

/* Where the keys of a call are. "The number" is the argument that says how
 * many keys there are. */
enum command_keys_rule {
    KEYS_NONE,
    KEYS_RANGE,      /* first, last, step */
    KEYS_NUM1,       /* the number, keys */
    KEYS_NUM1_PAIRS, /* the number, keys and values in turn */
    KEYS_NUM2,       /* something, the number, keys */
    KEYS_SCRIPT,     /* as NUM2; without keys it may touch any */
    KEYS_DEST_NUM2,  /* a key, the number, keys */
    KEYS_STREAMS,    /* the first half of what follows STREAMS */
    KEYS_MIGRATE,    /* argument 3, or what follows KEYS */
    KEYS_SORT,       /* a key, and the one behind STORE */
    KEYS_GEORADIUS,  /* a key, and those behind STORE and STOREDIST */
    KEYS_UNKNOWN,
    KEYS_SPECS /* by the rules of a server: command_info.h. No row of the table
                  has it */
};

/* A name in upper case, packed into words so that it is compared at once. They
 * are the same on every machine, as the table may be built on another. The tag
 * holds its length and the row of its container plus one. */
enum {
    COMMAND_NAME_WORDS = 3,
    COMMAND_NAME_MAX = 8 * COMMAND_NAME_WORDS
};

struct command_key {
    uint64_t word[COMMAND_NAME_WORDS];
    uint32_t tag;
};

enum {
    COMMAND_SLOT_BITS = 12,
    COMMAND_SLOTS = 1 << COMMAND_SLOT_BITS
};

/* Raise the ASCII letters among eight bytes to upper case, all at once: a
 * byte's high bit in is_lower says that it is one of a to z. */
static inline uint64_t upper_word(uint64_t word)
{
    const uint64_t ones = 0x0101010101010101u;
    uint64_t low = word & (0x7f * ones);
    uint64_t from_a = low + (0x80 - 'a') * ones;
    uint64_t behind_z = low + (0x7f - 'z') * ones;
    uint64_t is_lower = (from_a ^ behind_z) & ~word & (0x80 * ones);

    return word - (is_lower >> 2);
}

static inline uint32_t command_tag(struct span name, uint32_t container)
{
    return (uint32_t)name.len | container << 8;
}

/* The key of a name of at most COMMAND_NAME_MAX bytes; container is the row
 * of its container plus one, or 0. */
static inline struct command_key command_key(struct span name,
                                             uint32_t container)
{
    struct command_key key = { .tag = command_tag(name, container) };

    key.word[0] = upper_word(load_part(name.data, name.len));
    if (name.len > 8) {
        key.word[1] = upper_word(load_part(name.data + 8, name.len - 8));
    }
    if (name.len > 16) {
        key.word[2] = upper_word(load_part(name.data + 16, name.len - 16));
    }
    return key;
}

/* Where the search for a name of one word begins, and where for any other. */
static inline uint32_t command_slot_short(uint64_t word, uint32_t tag)
{
    uint64_t hash = word ^ ((uint64_t)tag << 20);

    return (uint32_t)((hash * 0x9e3779b97f4a7c15u) >> (64 - COMMAND_SLOT_BITS));
}

static inline uint32_t command_slot(const struct command_key *key)
{
    uint64_t rest =
        key->word[1] * 0xff51afd7ed558ccdu ^ key->word[2] * 0xc4ceb9fe1a85ec53u;

    return command_slot_short(key->word[0] ^ rest, key->tag);
}

#endif
