#include "parser/command_info.h"

#include "parser/command_table.h"
#include "parser/number.h"
#include "parser/reply.h"

void command_info_copy(struct command_info *to, const struct command_info *from)
{
    *to = *from;
    to->row.name = to->name;
}

static bool spec_equal(const struct key_spec *a, const struct key_spec *b)
{
    return strcmp(a->word, b->word) == 0 && a->from == b->from &&
           a->numbered == b->numbered && a->last == b->last &&
           a->limit == b->limit && a->number == b->number &&
           a->first == b->first && a->step == b->step;
}

bool command_info_equal(const struct command_info *a,
                        const struct command_info *b)
{
    const struct command *x = &a->row;
    const struct command *y = &b->row;
    bool equal = strcmp(a->name, b->name) == 0 && x->class == y->class &&
                 x->rule == y->rule && x->id == y->id && x->flags == y->flags &&
                 x->arity == y->arity && x->key_first == y->key_first &&
                 x->key_last == y->key_last && x->key_step == y->key_step &&
                 x->key_rule == y->key_rule &&
                 x->first_key_arg == y->first_key_arg && x->route == y->route &&
                 a->n_specs == b->n_specs;

    for (unsigned i = 0; equal && i < a->n_specs; i++) {
        equal = spec_equal(&a->specs[i], &b->specs[i]);
    }
    return equal;
}

/* ---- names ----------------------------------------------------------------- */

/* "config|get" is two words. */
struct words {
    struct span name;
    struct span sub; /* empty: there is none */
};

static struct words words_of(struct span full)
{
    struct words w = { .name = full };
    const uint8_t *bar = full.len > 0 ? memchr(full.data, '|', full.len) : NULL;

    if (bar != NULL) {
        w.name.len = (size_t)(bar - full.data);
        w.sub = (struct span){ bar + 1, full.len - w.name.len - 1 };
    }
    return w;
}

/* A name that can be a word of a request, and of a log line. */
static bool is_name(struct span full)
{
    for (size_t i = 0; i < full.len; i++) {
        if (full.data[i] <= ' ' || full.data[i] > '~') {
            return false;
        }
    }
    return full.len > 0 && full.len <= COMMAND_INFO_NAME_MAX;
}

static char upper(uint8_t c)
{
    return (char)(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
}

/* What our own table says of these words, and how far that goes. */
enum known {
    KNOWN,      /* a row of its own */
    KNOWN_KEYS, /* but for its keys */
    KNOWN_NAME, /* only its container has one */
    UNKNOWN
};

static enum known known(struct words w, const struct command **own)
{
    *own = command_find(w.name, w.sub);
    if (*own == NULL) {
        return UNKNOWN;
    }
    if (((*own)->flags & COMMAND_ASK_KEYS) != 0) {
        return KNOWN_KEYS;
    }
    bool stands_in = ((*own)->flags & COMMAND_CONTAINER) != 0 && w.sub.len > 0;
    return stands_in ? KNOWN_NAME : KNOWN;
}

/* ---- flags ----------------------------------------------------------------- */

/* Whether one of a list of words is this one. Servers write them in lower
 * case, and so do we. */
static bool has_word(const struct reply *list, const char *word)
{
    for (size_t i = 0; list != NULL && i < reply_count(list); i++) {
        if (span_equal(reply_text(reply_at(list, i)), span_of(word))) {
            return true;
        }
    }
    return false;
}

enum {
    /* elements of one command */
    AT_NAME,
    AT_ARITY,
    AT_FLAGS,
    AT_FIRST,
    AT_LAST,
    AT_STEP,
    AT_CATEGORIES, /* from 6.2 */
    AT_TIPS,       /* from 7.0, as those below */
    AT_SPECS,
    AT_SUBCOMMANDS,
    ELEMENTS_LEAST = AT_STEP + 1
};

/* Replies to others must not wait behind a command that waits itself, and must
 * not be mistaken for what a subscription sends: such commands get a
 * connection of their own. Before 7.0 servers do not say which commands block.
 * What may not run in a script often does. */
static bool needs_own_connection(const struct reply *command)
{
    const struct reply *flags = reply_at(command, AT_FLAGS);
    const struct reply *categories = reply_at(command, AT_CATEGORIES);
    bool odd = has_word(flags, "noscript") && !has_word(flags, "admin");

    return odd || has_word(flags, "pubsub") ||
           has_word(categories, "@pubsub") ||
           has_word(categories, "@connection") ||
           has_word(categories, "@transaction");
}

static void read_flags(struct command *row, const struct reply *command)
{
    const struct reply *flags = reply_at(command, AT_FLAGS);
    const struct reply *categories = reply_at(command, AT_CATEGORIES);
    bool reads = has_word(flags, "readonly") && !has_word(flags, "write");

    if (needs_own_connection(command)) {
        row->flags |= COMMAND_PRIVATE;
    }
    if (has_word(flags, "skip_monitor") || has_word(flags, "skip_slowlog")) {
        row->flags |= COMMAND_SECRET;
    }
    if (reads) {
        row->class = CLASS_R;
        row->flags &= (uint8_t)~COMMAND_WRITES;
    } else if (has_word(flags, "write")) {
        row->class = CLASS_N;
        row->flags |= COMMAND_WRITES;
    }
    if (has_word(flags, "blocking") || has_word(categories, "@blocking")) {
        /* What it waits for, and for how long, is not told: what was lost may
         * have taken something. */
        row->class = CLASS_BN;
        row->flags |= COMMAND_BLOCKING | COMMAND_PRIVATE;
    }
}

/* ---- keys ------------------------------------------------------------------ */

enum {
    ARGUMENT_MAX = 1000 /* beyond, no rule is believed */
};

/* A number in a map of a rule. False: there is none, or it is out of bounds. */
static bool spec_number(const struct reply *map, const char *key, int16_t *to)
{
    const struct reply *value = map == NULL ? NULL : reply_get(map, key);

    if (value == NULL || reply_type(value) != REPLY_INTEGER) {
        return false;
    }
    int64_t number = reply_integer(value);
    *to = (int16_t)number;
    return number >= -ARGUMENT_MAX && number <= ARGUMENT_MAX;
}

static struct span spec_type(const struct reply *part)
{
    const struct reply *type = part == NULL ? NULL : reply_get(part, "type");

    return type == NULL ? (struct span){ 0 } : reply_text(type);
}

/* Where the keys of a rule begin. */
static bool read_begin(struct key_spec *s, const struct reply *begin)
{
    const struct reply *map = begin == NULL ? NULL : reply_get(begin, "spec");
    struct span type = spec_type(begin);

    if (span_equal(type, span_of("index"))) {
        return spec_number(map, "index", &s->from) && s->from > 0;
    }
    if (map == NULL || !span_equal(type, span_of("keyword"))) {
        return false;
    }
    const struct reply *word = reply_get(map, "keyword");
    struct span text = word == NULL ? (struct span){ 0 } : reply_text(word);
    if (!is_name(text) || text.len >= COMMAND_SPEC_WORD_MAX) {
        return false;
    }
    for (size_t i = 0; i < text.len; i++) {
        s->word[i] = upper(text.data[i]);
    }
    return spec_number(map, "startfrom", &s->from) && s->from != 0;
}

/* How they go on from there. */
static bool read_find(struct key_spec *s, const struct reply *find)
{
    const struct reply *map = find == NULL ? NULL : reply_get(find, "spec");
    struct span type = spec_type(find);

    if (span_equal(type, span_of("keynum"))) {
        s->numbered = true;
        return spec_number(map, "keynumidx", &s->number) &&
               spec_number(map, "firstkey", &s->first) &&
               spec_number(map, "keystep", &s->step) && s->number >= 0 &&
               s->first > s->number && s->step > 0;
    }
    return span_equal(type, span_of("range")) &&
           spec_number(map, "lastkey", &s->last) &&
           spec_number(map, "keystep", &s->step) &&
           spec_number(map, "limit", &s->limit) && s->step > 0 &&
           s->limit >= 0 && (s->limit < 2 || s->last == -1);
}

/* Read all rules. False: they do not tell every key. */
static bool read_specs(struct command_info *info, const struct reply *specs)
{
    size_t n = specs == NULL ? 0 : reply_count(specs);

    if (n == 0 || n > COMMAND_SPECS_MAX) {
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        const struct reply *spec = reply_at(specs, i);
        struct key_spec *s = &info->specs[i];
        if (has_word(reply_get(spec, "flags"), "incomplete") ||
            !read_begin(s, reply_get(spec, "begin_search")) ||
            !read_find(s, reply_get(spec, "find_keys"))) {
            return false;
        }
    }
    info->n_specs = (uint8_t)n;
    return true;
}

/* One range at an argument: what the three old columns can say as well. */
static bool is_plain(const struct key_spec *s)
{
    return s->word[0] == '\0' && !s->numbered && s->limit < 2;
}

static bool small(int64_t number)
{
    return number >= INT8_MIN && number <= INT8_MAX;
}

/* The three columns that every version has. False: they name no key, or make
 * no sense. */
static bool read_columns(struct command *row, const struct reply *command)
{
    int64_t first = reply_integer(reply_at(command, AT_FIRST));
    int64_t last = reply_integer(reply_at(command, AT_LAST));
    int64_t step = reply_integer(reply_at(command, AT_STEP));

    if (first < 1 || step < 1 || !small(first) || !small(last) ||
        !small(step) || (last >= 0 && last < first)) {
        return false;
    }
    row->key_rule = KEYS_RANGE;
    row->key_first = (int8_t)first;
    row->key_last = (int8_t)last;
    row->key_step = (int8_t)step;
    row->first_key_arg = (uint8_t)first;
    return true;
}

/* Where the keys are. Where nothing is said they are unknown, and not none: a
 * command without declared keys may look at any (TS.MRANGE does). */
static void read_keys(struct command_info *info, const struct reply *command)
{
    struct command *row = &info->row;
    bool moves = has_word(reply_at(command, AT_FLAGS), "movablekeys");
    bool columns = read_columns(row, command);
    bool plain = true;

    if (read_specs(info, reply_at(command, AT_SPECS))) {
        for (unsigned i = 0; i < info->n_specs; i++) {
            plain = plain && is_plain(&info->specs[i]);
        }
        /* Keys that move, and rules by which they do not: a function of the
         * module finds them. */
        if (!(moves && plain) && !(columns && plain && info->n_specs == 1)) {
            row->key_rule = KEYS_SPECS;
            row->first_key_arg =
                is_plain(&info->specs[0]) && info->specs[0].from <= INT8_MAX
                    ? (uint8_t)info->specs[0].from
                    : 0;
            return;
        }
    }
    memset(info->specs, 0, sizeof info->specs);
    info->n_specs = 0;
    if (moves || !columns) {
        row->key_rule = KEYS_UNKNOWN; /* but the first one may well be known */
        row->key_first = row->key_last = row->key_step = 0;
    }
}

static bool spec_begin(const struct key_spec *s,
                       const struct span *argv,
                       size_t argc,
                       size_t *begin)
{
    if (s->word[0] == '\0') {
        *begin = (size_t)s->from;
        return true;
    }
    bool back = s->from < 0;
    int64_t i = back ? (int64_t)argc + s->from : s->from;
    for (; i > 0 && i < (int64_t)argc; i += back ? -1 : 1) {
        if (span_is_word(argv[i], s->word)) {
            *begin = (size_t)i + 1;
            return true;
        }
    }
    return false;
}

/* The first and the last key of a rule whose keys begin at an argument. False:
 * the server would refuse the call, or does not find them itself. */
static bool spec_range(const struct key_spec *s,
                       const struct span *argv,
                       size_t argc,
                       size_t begin,
                       int64_t *first,
                       int64_t *last)
{
    int64_t number = 0;

    *first = (int64_t)begin;
    if (!s->numbered) {
        int64_t left = (int64_t)argc - *first;
        *last = s->last >= 0   ? *first + s->last
                : s->limit < 2 ? (int64_t)argc + s->last
                               : *first + left / s->limit + s->last;
    } else {
        size_t at = begin + (size_t)s->number;
        if (at >= argc || !number_parse(argv[at], &number) || number < 1 ||
            number > (int64_t)argc) {
            return false;
        }
        *first += s->first;
        *last = *first + (number - 1) * s->step;
    }
    return *first <= *last && *last < (int64_t)argc;
}

int command_info_keys(const struct command_info *info,
                      const struct span *argv,
                      size_t argc,
                      uint32_t *index,
                      size_t max)
{
    int count = 0;

    for (unsigned n = 0; n < info->n_specs; n++) {
        const struct key_spec *s = &info->specs[n];
        size_t begin = 0;
        int64_t first = 0;
        int64_t last = 0;
        if (!spec_begin(s, argv, argc, &begin)) {
            continue; /* an option that was not given */
        }
        if (!spec_range(s, argv, argc, begin, &first, &last)) {
            return COMMAND_KEYS_UNKNOWN;
        }
        for (int64_t i = first; i <= last; i += s->step) {
            if ((size_t)count < max) {
                index[count] = (uint32_t)i;
            }
            count++;
        }
    }
    return count > 0 ? count : COMMAND_KEYS_UNKNOWN;
}

uint32_t command_info_first_key(const struct command_info *info,
                                const struct span *argv,
                                size_t argc)
{
    for (unsigned n = 0; n < info->n_specs; n++) {
        const struct key_spec *s = &info->specs[n];
        size_t begin = 0;
        int64_t number = 0;
        if (!spec_begin(s, argv, argc, &begin)) {
            continue;
        }
        if (!s->numbered) {
            return begin < argc ? (uint32_t)begin : 0;
        }
        size_t at = begin + (size_t)s->number;
        if (at < argc && number_parse(argv[at], &number) && number > 0) {
            size_t key = begin + (size_t)s->first;
            return key < argc ? (uint32_t)key : 0;
        }
    }
    return 0;
}

/* ---- replies --------------------------------------------------------------- */

static void write_name(struct command_info *info, struct span full)
{
    for (size_t i = 0; i < full.len; i++) {
        info->name[i] = full.data[i] == '|' ? ' ' : upper(full.data[i]);
    }
    info->row.name = info->name;
}

/* The row of a command that our own table lacks, or lacks the keys of. False:
 * what the server says adds nothing. */
static bool make_row(struct command_info *info,
                     enum known how,
                     const struct command *own,
                     const struct reply *command)
{
    int64_t arity = reply_integer(reply_at(command, AT_ARITY));
    struct command *row = &info->row;

    if (own != NULL) {
        /* Of what has a row, or a container that has one, that counts. */
        const char *name = row->name;
        *row = *own;
        row->name = name;
        row->flags &= (uint8_t) ~(COMMAND_CONTAINER | COMMAND_ASK_KEYS);
    } else {
        row->class = CLASS_U;
        row->flags = COMMAND_WRITES;
    }
    row->flags |= COMMAND_LEARNT;
    row->arity = small(arity) ? (int8_t)arity : 0;
    read_keys(info, command);
    if (own != NULL && row->key_rule == KEYS_UNKNOWN &&
        row->first_key_arg == 0) {
        row->key_rule = own->key_rule;
    }
    if (how == KNOWN_KEYS) {
        return row->key_rule != KEYS_UNKNOWN;
    }
    read_flags(row, command);
    const struct reply *subcommands = reply_at(command, AT_SUBCOMMANDS);
    if (own == NULL && subcommands != NULL && reply_count(subcommands) > 0) {
        row->flags |= COMMAND_CONTAINER;
    }
    return true;
}

struct reading {
    void (*take)(void *context, const struct command_info *info);
    void *context;
    int count;
};

/* Read one command; full is its name. */
static void read_command(struct reading *reading,
                         struct span full,
                         const struct reply *command)
{
    struct command_info info = { 0 };
    const struct command *own = NULL;
    enum known how = known(words_of(full), &own);

    if (how == KNOWN) {
        return;
    }
    write_name(&info, full);
    if (make_row(&info, how, own, command)) {
        reading->take(reading->context, &info);
    }
}

/* The name of a command, or an empty span when it makes no sense. Inside of
 * its container's, a name may come without it. */
static struct span name_of(const struct reply *command,
                           struct span container,
                           char *joined)
{
    const struct span none = { 0 };

    if (command == NULL || reply_count(command) < ELEMENTS_LEAST) {
        return none;
    }
    struct span name = reply_text(reply_at(command, AT_NAME));
    if (!is_name(name)) {
        return none;
    }
    if (container.len == 0 || memchr(name.data, '|', name.len) != NULL) {
        return name;
    }
    size_t len = container.len + 1 + name.len;
    if (len > COMMAND_INFO_NAME_MAX) {
        return none;
    }
    memcpy(joined, container.data, container.len);
    joined[container.len] = '|';
    memcpy(joined + container.len + 1, name.data, name.len);
    return (struct span){ (const uint8_t *)joined, len };
}

static void read_with_subcommands(struct reading *reading,
                                  const struct reply *command)
{
    char joined[COMMAND_INFO_NAME_MAX];
    struct span name = name_of(command, (struct span){ 0 }, joined);

    if (name.len == 0) {
        return; /* also nil: the server does not know that one */
    }
    reading->count++;
    read_command(reading, name, command);
    const struct reply *subcommands = reply_at(command, AT_SUBCOMMANDS);
    for (size_t i = 0; subcommands != NULL && i < reply_count(subcommands);
         i++) {
        const struct reply *sub = reply_at(subcommands, i);
        struct span full = name_of(sub, name, joined);
        if (full.len > 0) {
            read_command(reading, full, sub);
        }
    }
}

int command_info_read(struct span reply,
                      void (*take)(void *context,
                                   const struct command_info *info),
                      void *context)
{
    struct reading reading = { .take = take, .context = context };
    struct reply *tree = reply_parse(reply);

    if (tree == NULL || reply_type(tree) != REPLY_ARRAY) {
        reply_free(tree);
        return -1;
    }
    for (size_t i = 0; i < reply_count(tree); i++) {
        read_with_subcommands(&reading, reply_at(tree, i));
    }
    reply_free(tree);
    return reading.count;
}

int command_list_read(struct span reply,
                      void (*take)(void *context, struct span name),
                      void *context)
{
    struct reply *tree = reply_parse(reply);
    int count = 0;

    if (tree == NULL || reply_type(tree) != REPLY_ARRAY) {
        reply_free(tree);
        return -1;
    }
    for (size_t i = 0; i < reply_count(tree); i++) {
        struct span name = reply_text(reply_at(tree, i));
        const struct command *own = NULL;
        if (!is_name(name)) {
            continue;
        }
        count++;
        struct words w = words_of(name);
        enum known how = known(w, &own);
        /* Subcommands come with their container, if that is unknown too. */
        if (how != KNOWN && (how != UNKNOWN || w.sub.len == 0)) {
            take(context, name);
        }
    }
    reply_free(tree);
    return count;
}
