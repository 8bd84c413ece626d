#include "parser/commands.h"

#include <assert.h>

#include "parser/command_info.h"
#include "parser/command_table.h"
#include "parser/number.h"

/* keys[] and slots[] */
#include "command_slots.inc"

/* The flags as commands.def writes them. */
enum {
    P = COMMAND_PRIVATE,
    B = COMMAND_BLOCKING,
    W = COMMAND_WRITES,
    C = COMMAND_CONTAINER,
    S = COMMAND_SECRET,
    K = COMMAND_ASK_KEYS,
};

/* The argument that is the first key, where the column keys alone says it. A
 * RANGE adds its own first. */
enum {
    FIRST_NONE = 0,
    FIRST_RANGE = 0,
    FIRST_NUM1 = 2,
    FIRST_NUM1_PAIRS = 2,
    FIRST_NUM2 = 3,
    FIRST_SCRIPT = 0,
    FIRST_DEST_NUM2 = 1,
    FIRST_STREAMS = 0,
    FIRST_MIGRATE = 0,
    FIRST_SORT = 1,
    FIRST_GEORADIUS = 1,
    FIRST_UNKNOWN = 0,
};

static const struct command commands[] = {
#define COMMAND(name_, class_, rule_, id_, flags_, arity_, a_, b_, c_, keys_, \
                route_)                                                       \
    { .name = (name_),                                                        \
      .class = CLASS_##class_,                                                \
      .rule = RULE_##rule_,                                                   \
      .id = COMMAND_##id_,                                                    \
      .flags = (flags_),                                                      \
      .arity = (arity_),                                                      \
      .key_first = (a_),                                                      \
      .key_last = (b_),                                                       \
      .key_step = (c_),                                                       \
      .key_rule = KEYS_##keys_,                                               \
      .first_key_arg = FIRST_##keys_ + (a_),                                  \
      .route = ROUTE_##route_ },
#include "parser/commands.def"
};

const char *command_class_name(enum command_class class)
{
    static const char *const names[CLASS_COUNT] = {
        [CLASS_R] = "R",   [CLASS_RN] = "RN", [CLASS_I] = "I",
        [CLASS_T] = "T",   [CLASS_S] = "S",   [CLASS_D] = "D",
        [CLASS_N] = "N",   [CLASS_BR] = "BR", [CLASS_BN] = "BN",
        [CLASS_BW] = "BW", [CLASS_C] = "C",   [CLASS_X] = "X",
        [CLASS_A] = "A",   [CLASS_U] = "U",
    };

    assert((unsigned)class < CLASS_COUNT);
    return names[class];
}

/* ---- lookup ---- */

/* Find a name of more than one word. Out of line, as few are. */
__attribute__((noinline)) static const struct command *find_long(
    struct span name,
    uint32_t container)
{
    if (name.len > COMMAND_NAME_MAX) {
        return NULL;
    }
    struct command_key key = command_key(name, container);
    uint32_t slot = command_slot(&key);

    for (; slots[slot] != 0; slot = (slot + 1) % COMMAND_SLOTS) {
        const struct command_key *k = &keys[slots[slot] - 1];
        if (k->tag == key.tag && k->word[0] == key.word[0] &&
            k->word[1] == key.word[1] && k->word[2] == key.word[2]) {
            return &commands[slots[slot] - 1];
        }
    }
    return NULL;
}

/* Find a name among the top-level commands (container 0) or among the
 * subcommands of a row (that row plus one). */
static inline const struct command *find(struct span name, uint32_t container)
{
    if (name.len > sizeof(uint64_t)) {
        return find_long(name, container);
    }
    uint64_t word = upper_word(load_part(name.data, name.len));
    uint32_t tag = command_tag(name, container);
    uint32_t slot = command_slot_short(word, tag);

    for (; slots[slot] != 0; slot = (slot + 1) % COMMAND_SLOTS) {
        const struct command_key *k = &keys[slots[slot] - 1];
        if (k->word[0] == word && k->tag == tag) {
            return &commands[slots[slot] - 1];
        }
    }
    return NULL;
}

const struct command *command_find(struct span name, struct span sub)
{
    const struct command *c = find(name, 0);

    if (c == NULL || (c->flags & COMMAND_CONTAINER) == 0) {
        return c;
    }
    const struct command *found = find(sub, (uint32_t)(c - commands) + 1);
    return found != NULL ? found : c;
}

/* ---- keys ---- */

/* What a row that a server has told of is part of. */
static const struct command_info *info_of(const struct command *c)
{
    assert((c->flags & COMMAND_LEARNT) != 0);
    return (const struct command_info *)(const void *)c;
}

/* Where the keys that are found go. */
struct keys {
    uint32_t *index;
    size_t max;
    int count;
};

static void key_add(struct keys *k, size_t index)
{
    if ((size_t)k->count < k->max) {
        k->index[k->count] = (uint32_t)index;
    }
    k->count++;
}

/* Returns k->count when found, else COMMAND_KEYS_UNKNOWN. */
static int keys_or_unknown(const struct keys *k, bool found)
{
    return found ? k->count : COMMAND_KEYS_UNKNOWN;
}

static bool keys_range(const struct command *c, size_t argc, struct keys *k)
{
    int64_t last = (int64_t)c->key_last;

    if (last < 0) {
        last += (int64_t)argc;
    }
    for (int64_t i = (int64_t)c->key_first; i <= last && i < (int64_t)argc;
         i += (int64_t)c->key_step) {
        key_add(k, (size_t)i);
    }
    return true;
}

/* Keys behind their number at argument at, one in every step arguments. */
static bool keys_numbered(const struct span *argv,
                          size_t argc,
                          size_t at,
                          size_t step,
                          struct keys *k)
{
    int64_t number = 0;

    if (at >= argc || !number_parse(argv[at], &number) || number < 0 ||
        (uint64_t)number > (argc - at - 1) / step) {
        return false;
    }
    for (size_t i = 0; i < (size_t)number; i++) {
        key_add(k, at + 1 + i * step);
    }
    return true;
}

/* The argument STREAMS of an XREAD or XREADGROUP, or 0. */
static size_t streams_option(const struct span *argv, size_t argc)
{
    size_t i = 1;

    while (i < argc && !span_is_word(argv[i], "STREAMS")) {
        if (span_is_word(argv[i], "GROUP")) {
            i += 3;
        } else if (span_is_word(argv[i], "NOACK")) {
            i += 1;
        } else if (span_is_word(argv[i], "COUNT") ||
                   span_is_word(argv[i], "BLOCK") ||
                   span_is_word(argv[i], "CLAIM")) {
            i += 2;
        } else {
            return 0;
        }
    }
    return i < argc ? i : 0;
}

static bool keys_streams(const struct span *argv, size_t argc, struct keys *k)
{
    size_t i = streams_option(argv, argc);

    if (i == 0 || (argc - i - 1) % 2 != 0) {
        return false;
    }
    size_t count = (argc - i - 1) / 2;
    for (size_t n = 0; n < count; n++) {
        key_add(k, i + 1 + n);
    }
    return true;
}

/* The argument KEYS of a MIGRATE without a key of its own, or 0. */
static size_t migrate_option(const struct span *argv, size_t argc)
{
    size_t i = 6;

    while (i < argc && !span_is_word(argv[i], "KEYS")) {
        i += span_is_word(argv[i], "AUTH2")  ? 3
             : span_is_word(argv[i], "AUTH") ? 2
                                             : 1;
    }
    return i < argc ? i : 0;
}

static bool keys_migrate(const struct span *argv, size_t argc, struct keys *k)
{
    if (argc < 6) {
        return false;
    }
    if (argv[3].len > 0) {
        key_add(k, 3);
        return true;
    }
    size_t i = migrate_option(argv, argc);
    if (i == 0) {
        return false;
    }
    for (i++; i < argc; i++) {
        key_add(k, i);
    }
    return true;
}

/* Whether a pattern of SORT names other keys. */
static bool names_keys(struct span pattern)
{
    return pattern.len > 0 && memchr(pattern.data, '*', pattern.len) != NULL;
}

static bool keys_sort(const struct span *argv, size_t argc, struct keys *k)
{
    if (argc < 2) {
        return false;
    }
    key_add(k, 1);
    for (size_t i = 2; i < argc; i++) {
        bool more = i + 1 < argc;
        if (more &&
            (span_is_word(argv[i], "BY") || span_is_word(argv[i], "GET"))) {
            if (names_keys(argv[++i])) {
                return false;
            }
        } else if (more && span_is_word(argv[i], "STORE")) {
            key_add(k, ++i);
        } else if (span_is_word(argv[i], "LIMIT")) {
            i += 2;
        } else if (!span_is_word(argv[i], "ASC") &&
                   !span_is_word(argv[i], "DESC") &&
                   !span_is_word(argv[i], "ALPHA")) {
            return false;
        }
    }
    return true;
}

static bool keys_georadius(const struct command *c,
                           const struct span *argv,
                           size_t argc,
                           struct keys *k)
{
    /* behind: key, longitude and latitude or a member, radius, unit */
    size_t i = c->rule == RULE_GEORADIUS ? 6 : 5;

    if (argc < i) {
        return false;
    }
    key_add(k, 1);
    for (; i < argc; i++) {
        if (span_is_word(argv[i], "COUNT")) {
            i++;
        } else if (i + 1 < argc && (span_is_word(argv[i], "STORE") ||
                                    span_is_word(argv[i], "STOREDIST"))) {
            key_add(k, ++i);
        }
    }
    return true;
}

int command_keys(const struct command *c,
                 const struct span *argv,
                 size_t argc,
                 uint32_t *index, /* NOLINT(readability-non-const-parameter) */
                 size_t max)
{
    struct keys k = { .index = index, .max = max };

    if (c == NULL) {
        return COMMAND_KEYS_UNKNOWN;
    }
    switch ((enum command_keys_rule)c->key_rule) {
    case KEYS_NONE: return 0;
    case KEYS_RANGE: return keys_or_unknown(&k, keys_range(c, argc, &k));
    case KEYS_NUM1:
        return keys_or_unknown(&k, keys_numbered(argv, argc, 1, 1, &k));
    case KEYS_NUM1_PAIRS:
        return keys_or_unknown(&k, keys_numbered(argv, argc, 1, 2, &k));
    case KEYS_NUM2:
        return keys_or_unknown(&k, keys_numbered(argv, argc, 2, 1, &k));
    case KEYS_SCRIPT: {
        bool found = keys_numbered(argv, argc, 2, 1, &k);
        return keys_or_unknown(&k, found && k.count > 0);
    }
    case KEYS_DEST_NUM2:
        key_add(&k, 1);
        return keys_or_unknown(&k, keys_numbered(argv, argc, 2, 1, &k));
    case KEYS_STREAMS: return keys_or_unknown(&k, keys_streams(argv, argc, &k));
    case KEYS_MIGRATE: return keys_or_unknown(&k, keys_migrate(argv, argc, &k));
    case KEYS_SORT: return keys_or_unknown(&k, keys_sort(argv, argc, &k));
    case KEYS_GEORADIUS:
        return keys_or_unknown(&k, keys_georadius(c, argv, argc, &k));
    case KEYS_SPECS:
        return command_info_keys(info_of(c), argv, argc, index, max);
    case KEYS_UNKNOWN: return COMMAND_KEYS_UNKNOWN;
    }
    return COMMAND_KEYS_UNKNOWN;
}

/* The first key of a call whose row alone does not say it, or 0. */
static size_t first_key_searched(const struct command *c,
                                 const struct span *argv,
                                 size_t argc)
{
    int64_t number = 0;
    size_t option = 0;

    if (c->key_rule == KEYS_SPECS) {
        return command_info_first_key(info_of(c), argv, argc);
    }
    if (c->key_rule == KEYS_SCRIPT) {
        bool some = argc > 2 && number_parse(argv[2], &number) && number > 0;
        return some ? 3 : 0;
    }
    if (c->key_rule == KEYS_STREAMS) {
        option = streams_option(argv, argc);
    } else if (c->key_rule == KEYS_MIGRATE && argc > 3) {
        if (argv[3].len > 0) {
            return 3;
        }
        option = migrate_option(argv, argc);
    }
    return option == 0 ? 0 : option + 1;
}

uint32_t command_first_key(const struct command *c,
                           const struct span *argv,
                           size_t argc)
{
    if (c == NULL) {
        return 0;
    }
    size_t at = c->first_key_arg != 0 ? c->first_key_arg
                                      : first_key_searched(c, argv, argc);
    return at < argc ? (uint32_t)at : 0;
}

/* ---- blocking ---- */

/* The argument behind BLOCK in an XREAD or XREADGROUP, or 0. */
static size_t block_option(const struct span *argv, size_t argc)
{
    for (size_t i = 1; i + 1 < argc; i++) {
        if (span_is_word(argv[i], "STREAMS")) {
            return 0;
        }
        if (span_is_word(argv[i], "BLOCK")) {
            return i + 1;
        }
        if (span_is_word(argv[i], "GROUP")) {
            i += 2; /* names may be any word */
        }
    }
    return 0;
}

static bool blocks_with_option(const struct command *c)
{
    return c->rule == RULE_XREAD || c->rule == RULE_XREADGROUP ||
           c->rule == RULE_TS_READ;
}

bool command_blocks(const struct command *c,
                    const struct span *argv,
                    size_t argc)
{
    if (c == NULL || (c->flags & COMMAND_BLOCKING) == 0) {
        return false;
    }
    return !blocks_with_option(c) || block_option(argv, argc) != 0;
}

/* Whole units and thousandths of "1.5", in thousandths, rounded up as servers
 * do. 0 for what is no plain decimal number, or too large to matter. */
static uint64_t decimal_thousandths(struct span text)
{
    uint64_t value = 0;
    unsigned decimals = 0;
    bool point = false;
    bool more = false;

    if (text.len == 0 || text.len > 15) {
        return 0;
    }
    for (size_t i = 0; i < text.len; i++) {
        uint8_t byte = text.data[i];
        if (byte == '.' && !point) {
            point = true;
        } else if (byte < '0' || byte > '9') {
            return 0;
        } else if (decimals < 3) {
            value = value * 10 + (uint64_t)(byte - '0');
            decimals += point ? 1 : 0;
        } else {
            more = more || byte != '0';
        }
    }
    for (; decimals < 3; decimals++) {
        value *= 10;
    }
    return value + more;
}

uint32_t command_block_arg(const struct command *c,
                           const struct span *argv,
                           size_t argc)
{
    if (!command_blocks(c, argv, argc) || argc < 2 ||
        (c->flags & COMMAND_LEARNT) != 0 || /* servers do not say */
        (c->key_rule == KEYS_UNKNOWN && !blocks_with_option(c))) {
        return 0;
    }
    if (blocks_with_option(c)) {
        return (uint32_t)block_option(argv, argc);
    }
    return c->key_rule == KEYS_NUM2 ? 1 : (uint32_t)argc - 1;
}

bool command_block_in_ms(const struct command *c)
{
    return blocks_with_option(c) || c->class == CLASS_BW;
}

uint64_t command_block_us(const struct command *c,
                          const struct span *argv,
                          size_t argc)
{
    uint32_t at = command_block_arg(c, argv, argc);

    if (at == 0) {
        return 0;
    }
    return decimal_thousandths(argv[at]) * (command_block_in_ms(c) ? 1 : 1000);
}

uint32_t command_stream_ids(const struct command *c,
                            const struct span *argv,
                            size_t argc)
{
    if (c == NULL || c->rule != RULE_XREAD) {
        return 0;
    }
    size_t streams = streams_option(argv, argc);
    size_t n = streams == 0 ? 0 : argc - streams - 1;

    return n == 0 || n % 2 != 0 ? 0 : (uint32_t)(streams + 1 + n / 2);
}

/* ---- effects ---- */

bool command_writes(const struct command *c, enum command_class class)
{
    if (class == CLASS_R || class == CLASS_RN || class == CLASS_BR) {
        return false;
    }
    return c == NULL || (c->flags & COMMAND_WRITES) != 0;
}

bool command_reply_constant(const struct command *c,
                            const struct span *argv,
                            size_t argc)
{
    static const char *const always[] = { "MSET", "SETEX", "PSETEX" };

    if (c == NULL) {
        return false;
    }
    if (c->rule != RULE_SET) {
        for (size_t i = 0; i < sizeof always / sizeof always[0]; i++) {
            if (strcmp(c->name, always[i]) == 0) {
                return true;
            }
        }
        return false;
    }
    for (size_t i = 3; i < argc; i++) {
        if (span_is_word(argv[i], "KEEPTTL")) {
            continue;
        }
        if (!span_is_word(argv[i], "EX") && !span_is_word(argv[i], "PX") &&
            !span_is_word(argv[i], "EXAT") && !span_is_word(argv[i], "PXAT")) {
            return false;
        }
        i++;
    }
    return argc >= 3;
}
