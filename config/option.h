/* The rows of options.def as a table in memory. */
#ifndef CONFIG_OPTION_H
#define CONFIG_OPTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum section_kind {
#define SECTION(id, name, named, help) SECTION_##id,
#define OPTION(...)
#define OPTION_FOR(...)
#include "config/options.def"
#undef OPTION_FOR
#undef OPTION
#undef SECTION
    SECTION_COUNT
};

enum option_type {
    OPTION_COUNT32,            /* uint32_t */
    OPTION_COUNT64,            /* uint64_t */
    OPTION_SIGNED,             /* int64_t */
    OPTION_COUNT_UNSET,        /* the same; -1 is "unset" */
    OPTION_BOOL,               /* bool, written yes or no */
    OPTION_SWITCH,             /* bool, written on or off */
    OPTION_DURATION,           /* uint64_t, microseconds */
    OPTION_DURATION_OFF,       /* the same; 0 is "off" */
    OPTION_DURATION_INFINITE,  /* the same; UINT64_MAX is "infinite" */
    OPTION_SIZE,               /* uint64_t, bytes */
    OPTION_SIZE_INFINITE,      /* the same; UINT64_MAX is "infinite" */
    OPTION_PERCENT,            /* uint32_t, thousandths */
    OPTION_MILLI,              /* uint32_t, thousandths */
    OPTION_NUMBER,             /* double; range in millionths */
    OPTION_MODE,               /* uint32_t, octal */
    OPTION_ENUM,               /* an enum; words */
    OPTION_EITHER,             /* bool; two words */
    OPTION_SET,                /* uint32_t, bits; words */
    OPTION_CODES,              /* uint32_t, 1 << word; names in any case, or
                                  numbers */
    OPTION_LISTEN_ADDRESS,     /* struct address */
    OPTION_LISTEN_ADDRESS_OFF, /* the same; an empty host is "off" */
    OPTION_CONNECT_ADDRESS,    /* struct address */
    OPTION_USERNAME,           /* char *, owned */
    OPTION_SECRET,             /* char *, owned, never shown */
    OPTION_NAME,               /* char *, owned; one plain word */
    OPTION_AUTHORITY,          /* char *, owned; host:port, or a word */
    OPTION_FILE_NAME,          /* char *, owned */
    OPTION_REFERENCE,          /* an upstream, by name */
    OPTION_NODES,              /* a list; these three have no field of one */
    OPTION_NODE_ZONES,         /* type, see nodes.h */
    OPTION_ALLOW_NODES,
    OPTION_TARGET, /* the same list as nodes, written as gRPC does */
    OPTION_GLOBS,  /* struct grpc_glob *, see nodes.h */
    OPTION_URL,    /* no field: sets those of other options */
    OPTION_OVERRIDE_BY_PREFIX, /* no field; these take any key that begins */
    OPTION_OVERRIDE_BY_SCRIPT, /* with the part before "<" */
    OPTION_OVERRIDE_BY_COMMAND
};

/* A word of an enum or set. The last of a list has text NULL. */
struct word {
    const char *text;
    unsigned value;
    const char *help; /* NULL: the word says it */
};

/* All static. */
struct option {
    enum section_kind section;
    enum option_type type;
    unsigned upstream_types; /* a set: 1 << enum upstream_type */
    const char *key;
    size_t offset;        /* of the field in the section's struct */
    size_t size;          /* of the field; 0: no field */
    const char *fallback; /* the default as text; NULL: none */
    int64_t min;
    int64_t max;
    const struct word *words;
    const char *alias; /* what others call it, or NULL */
    const char *help;
};

struct section {
    const char *name;
    bool named; /* [name NAME], any number of them */
    const char *help;
};

enum {
    OPTION_NAME_MAX = 63
};

const struct section *section_get(enum section_kind kind);
/* Find a section by name. Returns SECTION_COUNT when there is none. */
enum section_kind section_find(const char *name, size_t len);

size_t option_count(void);
const struct option *option_get(size_t index);
/* Find the option for a key; a key such as "replay.INCR" finds the row
 * "replay.<COMMAND>". Returns NULL when there is none. */
const struct option *option_find(enum section_kind section, const char *key);
/* The same, of the rows that an upstream of this type takes. */
const struct option *option_find_for(enum section_kind section,
                                     const char *key,
                                     unsigned upstream_type);
/* The same for what may stand in a section: in [grpc], also what is shared by
 * upstreams. */
const struct option *option_find_in(enum section_kind section, const char *key);
/* The length of the fixed part of the key: up to "<". */
size_t option_key_fixed(const struct option *o);
/* Spell the open part of a key in one way, so that the same key twice is
 * found: commands in upper case, "XGROUP|CREATE" as "XGROUP CREATE", script
 * hashes in lower case. */
void option_spell_key(const struct option *o, char *key);
/* What is wrong with the open part of a key, or NULL. */
const char *option_key_wrong(const struct option *o, const char *key);
/* Whether the key has a part that the user chooses. */
bool option_is_open(const struct option *o);
bool option_is_override(const struct option *o);
/* Whether the same key may come several times, each adding to the list. */
bool option_is_list(const struct option *o);
/* Whether the field is a char *. */
bool option_is_string(const struct option *o);
/* Whether an upstream of this type (enum upstream_type) takes the option. */
bool option_is_for(const struct option *o, unsigned upstream_type);
bool option_is_only_grpc(const struct option *o);
/* The row with the key of o that an upstream of this type takes; o itself when
 * none does. NULL: the type is not known, and the key has several rows. */
const struct option *option_for_type(const struct option *o,
                                     unsigned upstream_type);
/* Whether the key may also stand in [grpc], for all upstreams of its type. */
bool option_is_shared(const struct option *o);

const char *word_text(const struct word *words, unsigned value);

extern const struct word words_log_format[];
extern const struct word words_log_level[];
extern const struct word words_auth[];
extern const struct word words_upstream_type[];
extern const struct word words_protocol[];
extern const struct word words_read_from[];
extern const struct word words_cluster_view[];
extern const struct word words_lanes[];
extern const struct word words_pubsub_gap[];
extern const struct word words_replay[];
extern const struct word words_retry_error[];
extern const struct word words_backoff[];
extern const struct word words_grpc_retries[];
extern const struct word words_grpc_ambiguous[];
extern const struct word words_grpc_hold[];
extern const struct word words_grpc_stop_client[];
extern const struct word words_grpc_stacked[];
extern const struct word words_grpc_lb[];
extern const struct word words_grpc_reconnect[];
extern const struct word words_grpc_mode[];
extern const struct word words_status[];

#endif
