#include "config/value.h"

#include <assert.h>
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/address.h"
#include "config/arena.h"
#include "config/config.h"
#include "config/problem.h"

struct unit {
    const char *name;
    int64_t factor;
};

/* From the smallest; the last that divides a value is the one to print. */
static const struct unit duration_units[] = {
    { "us", 1 },       { "ms", 1000 },      { "s", 1000000 },
    { "m", 60000000 }, { "h", 3600000000 }, { "d", 86400000000 },
};
static const struct unit size_units[] = {
    { "", 1 },
    { "KiB", 1024 },
    { "MiB", (int64_t)1024 * 1024 },
    { "GiB", (int64_t)1024 * 1024 * 1024 },
    { "TiB", (int64_t)1024 * 1024 * 1024 * 1024 },
};
static const struct unit size_units_read[] = {
    { "B", 1 },        { "kB", 1000 },       { "KB", 1000 },
    { "MB", 1000000 }, { "GB", 1000000000 }, { "TB", 1000000000000 },
    { "kiB", 1024 },
};

#define COUNT_OF(list) (sizeof(list) / sizeof((list)[0]))

static enum value_result bad(char *why, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static enum value_result bad(char *why, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(why, VALUE_TEXT_MAX, format, arguments);
    va_end(arguments);
    return VALUE_BAD;
}

/* A decimal number in millionths is exact for everything we take. */
struct number {
    int64_t whole;
    int64_t millionths;
};

enum {
    NUMBER_DIGITS_MAX = 15,
    FRACTION_DIGITS_MAX = 6
};

/* Read "12" or "1.5" from the start of text. Returns the rest, or NULL when
 * there is no number. */
static const char *read_number(const char *text, struct number *n)
{
    *n = (struct number){ 0 };
    size_t digits = 0;
    for (; *text >= '0' && *text <= '9'; text++) {
        if (++digits > NUMBER_DIGITS_MAX) {
            return NULL;
        }
        n->whole = n->whole * 10 + (*text - '0');
    }
    if (digits == 0 || *text != '.') {
        return digits == 0 ? NULL : text;
    }
    text++;
    digits = 0;
    int64_t scale = 1000000;
    for (; *text >= '0' && *text <= '9'; text++) {
        if (++digits > FRACTION_DIGITS_MAX) {
            return NULL;
        }
        scale /= 10;
        n->millionths += (*text - '0') * scale;
    }
    return digits == 0 ? NULL : text;
}

/* n times factor, when that is a whole number and no overflow. */
static bool scale_number(struct number n, int64_t factor, int64_t *value)
{
    /* The largest factor, a tebibyte, times 999,999 fits. */
    int64_t part = n.millionths * factor;
    if (n.whole > (INT64_MAX - factor) / factor || part % 1000000 != 0) {
        return false;
    }
    *value = n.whole * factor + part / 1000000;
    return true;
}

static const struct unit *find_unit(const struct unit *units,
                                    size_t count,
                                    const char *name)
{
    for (size_t i = 0; i < count; i++) {
        if (strcmp(units[i].name, name) == 0) {
            return &units[i];
        }
    }
    return NULL;
}

static void format_unit(const struct unit *units,
                        size_t count,
                        int64_t v,
                        char *text)
{
    const struct unit *best = &units[0];
    for (size_t i = 1; i < count && v != 0; i++) {
        if (v % units[i].factor == 0) {
            best = &units[i];
        }
    }
    (void)snprintf(text, VALUE_TEXT_MAX, "%lld%s",
                   (long long)(v / best->factor), best->name);
}

static bool is_number_type(enum option_type type)
{
    return type == OPTION_COUNT32 || type == OPTION_COUNT64 ||
           type == OPTION_SIGNED || type == OPTION_DURATION ||
           type == OPTION_DURATION_OFF || type == OPTION_SIZE ||
           type == OPTION_PERCENT || type == OPTION_MODE;
}

static void format_number(enum option_type type, int64_t v, char *text)
{
    if (type == OPTION_DURATION && v == 0) {
        (void)snprintf(text, VALUE_TEXT_MAX, "0s");
    } else if (type == OPTION_DURATION_OFF && v == 0) {
        (void)snprintf(text, VALUE_TEXT_MAX, "off");
    } else if (type == OPTION_DURATION || type == OPTION_DURATION_OFF) {
        format_unit(duration_units, COUNT_OF(duration_units), v, text);
    } else if (type == OPTION_SIZE) {
        format_unit(size_units, COUNT_OF(size_units), v, text);
    } else if (type == OPTION_PERCENT && v % 10 == 0) {
        (void)snprintf(text, VALUE_TEXT_MAX, "%lld%%", (long long)(v / 10));
    } else if (type == OPTION_PERCENT) {
        (void)snprintf(text, VALUE_TEXT_MAX, "%lld.%lld%%", (long long)(v / 10),
                       (long long)(v % 10));
    } else if (type == OPTION_MODE) {
        (void)snprintf(text, VALUE_TEXT_MAX, "%04llo", (unsigned long long)v);
    } else {
        (void)snprintf(text, VALUE_TEXT_MAX, "%lld", (long long)v);
    }
}

static void list_words(const struct word *words, char *text)
{
    size_t used = 0;
    for (const struct word *w = words; w->text != NULL; w++) {
        const char *glue = ", ";
        if (w == words) {
            glue = "";
        } else if (w[1].text == NULL) {
            glue = " or ";
        }
        int n =
            snprintf(text + used, VALUE_TEXT_MAX - used, "%s%s", glue, w->text);
        assert(n > 0 && (size_t)n < VALUE_TEXT_MAX - used);
        used += (size_t)n;
    }
}

void value_range(const struct option *o, char text[VALUE_TEXT_MAX])
{
    text[0] = '\0';
    if (o->words != NULL) {
        list_words(o->words, text);
    } else if (o->type == OPTION_BOOL) {
        (void)snprintf(text, VALUE_TEXT_MAX, "yes or no");
    } else if (o->type == OPTION_SWITCH) {
        (void)snprintf(text, VALUE_TEXT_MAX, "on or off");
    } else if (is_number_type(o->type)) {
        char low[VALUE_TEXT_MAX];
        char high[VALUE_TEXT_MAX];
        format_number(o->type, o->min, low);
        format_number(o->type, o->max, high);
        (void)snprintf(text, VALUE_TEXT_MAX, "%s%.32s to %.32s",
                       o->type == OPTION_DURATION_OFF ? "off, or " : "", low,
                       high);
    }
}

static enum value_result parse_duration(const char *text, int64_t *v, char *why)
{
    if (strcmp(text, "0") == 0) {
        *v = 0;
        return VALUE_OK;
    }
    struct number n;
    const char *rest = read_number(text, &n);
    if (rest != NULL) {
        const struct unit *u =
            find_unit(duration_units, COUNT_OF(duration_units), rest);
        if (u != NULL && scale_number(n, u->factor, v)) {
            return VALUE_OK;
        }
        if (*rest == '\0') {
            return bad(why, "a duration needs a unit: us, ms, s, m, h or d");
        }
    }
    return bad(why, "not a duration; write 250ms, 10s, 1m or 2h");
}

static enum value_result parse_size(const char *text, int64_t *v, char *why)
{
    struct number n;
    const char *rest = read_number(text, &n);
    if (rest != NULL) {
        const struct unit *u =
            find_unit(size_units, COUNT_OF(size_units), rest);
        if (u == NULL) {
            u = find_unit(size_units_read, COUNT_OF(size_units_read), rest);
        }
        if (u != NULL && scale_number(n, u->factor, v)) {
            return VALUE_OK;
        }
    }
    return bad(why, "not a size; write 512 (bytes), 64KiB, 8MiB, 1GiB or 8MB");
}

static enum value_result parse_percent(const char *text, int64_t *v, char *why)
{
    struct number n;
    const char *rest = read_number(text, &n);
    if (rest != NULL && strcmp(rest, "%") == 0 && scale_number(n, 10, v)) {
        return VALUE_OK;
    }
    if (rest != NULL && *rest == '\0' && scale_number(n, 1000, v)) {
        return VALUE_OK;
    }
    return bad(why, "not a share; write 20%% or 0.2, to a tenth of a percent");
}

static enum value_result parse_count(const char *text,
                                     bool negative,
                                     int64_t *v,
                                     char *why)
{
    struct number n;
    bool minus = negative && text[0] == '-';
    const char *rest = read_number(text + (minus ? 1 : 0), &n);
    if (rest == NULL || *rest != '\0' || n.millionths != 0) {
        return bad(why, "not a whole number");
    }
    *v = minus ? -n.whole : n.whole;
    return VALUE_OK;
}

static enum value_result parse_mode(const char *text, int64_t *v, char *why)
{
    size_t len = strspn(text, "01234567");
    if (len == 0 || len > 6 || text[len] != '\0') {
        return bad(why, "not octal permissions; write 0660 or 0600");
    }
    *v = strtol(text, NULL, 8);
    return VALUE_OK;
}

static enum value_result parse_number(const struct option *o,
                                      const char *text,
                                      int64_t *v,
                                      char *why)
{
    enum value_result result = VALUE_BAD;
    if (o->type == OPTION_DURATION_OFF && strcmp(text, "off") == 0) {
        *v = 0;
        return VALUE_OK;
    }
    if (o->type == OPTION_DURATION || o->type == OPTION_DURATION_OFF) {
        result = parse_duration(text, v, why);
    } else if (o->type == OPTION_SIZE) {
        result = parse_size(text, v, why);
    } else if (o->type == OPTION_PERCENT) {
        result = parse_percent(text, v, why);
    } else if (o->type == OPTION_MODE) {
        result = parse_mode(text, v, why);
    } else {
        result = parse_count(text, o->type == OPTION_SIGNED, v, why);
    }
    if (result != VALUE_OK || (o->type == OPTION_DURATION_OFF && *v == 0)) {
        return result;
    }
    if (*v < o->min || *v > o->max) {
        char range[VALUE_TEXT_MAX];
        value_range(o, range);
        return bad(why, "out of range; allowed is %.128s", range);
    }
    return VALUE_OK;
}

static void store_number(const struct option *o, int64_t v, void *field)
{
    if (o->type == OPTION_SIGNED) {
        assert(o->size == sizeof(int64_t));
        *(int64_t *)field = v;
    } else if (o->size == sizeof(uint32_t)) {
        *(uint32_t *)field = (uint32_t)v;
    } else {
        assert(o->size == sizeof(uint64_t));
        *(uint64_t *)field = (uint64_t)v;
    }
}

static int64_t load_number(const struct option *o, const void *field)
{
    if (o->type == OPTION_SIGNED) {
        return *(const int64_t *)field;
    }
    if (o->size == sizeof(uint32_t)) {
        return *(const uint32_t *)field;
    }
    const uint64_t *wide = field;
    return (int64_t)*wide;
}

static enum value_result parse_bool(const char *text, bool *value, char *why)
{
    static const char *const words[] = { "no", "yes",   "off",
                                         "on", "false", "true" };
    for (size_t i = 0; i < COUNT_OF(words); i++) {
        if (strcmp(words[i], text) == 0) {
            *value = i % 2 == 1;
            return VALUE_OK;
        }
    }
    return bad(why, "write yes or no (on, off, true and false will do)");
}

/* The word of len bytes, or NULL. */
static const struct word *find_word(const struct word *words,
                                    const char *text,
                                    size_t len)
{
    for (; words->text != NULL; words++) {
        if (strlen(words->text) == len && memcmp(words->text, text, len) == 0) {
            return words;
        }
    }
    return NULL;
}

static enum value_result bad_word(const struct option *o,
                                  const char *text,
                                  size_t len,
                                  char *why)
{
    char range[VALUE_TEXT_MAX];
    char hint[SUGGESTION_TEXT_MAX];
    struct suggestion s;
    suggestion_init(&s, text, len);
    for (const struct word *w = o->words; w->text != NULL; w++) {
        suggestion_offer(&s, w->text);
    }
    suggestion_format(&s, hint);
    value_range(o, range);
    if (o->type == OPTION_SET) {
        return bad(why, "'%.*s' is not one of %.300s%s",
                   len < 32 ? (int)len : 32, text, range, hint);
    }
    return bad(why, "allowed is %.300s%s", range, hint);
}

enum value_result value_word(const struct option *o,
                             const char *text,
                             unsigned *value,
                             char why[VALUE_TEXT_MAX])
{
    const struct word *w = find_word(o->words, text, strlen(text));
    if (w == NULL) {
        return bad_word(o, text, strlen(text), why);
    }
    *value = w->value;
    return VALUE_OK;
}

static enum value_result parse_enum(const struct option *o,
                                    const char *text,
                                    void *field,
                                    char *why)
{
    unsigned value = 0;
    enum value_result result = value_word(o, text, &value, why);
    if (result == VALUE_OK) {
        assert(o->size == sizeof(value));
        memcpy(field, &value, sizeof(value));
    }
    return result;
}

static enum value_result parse_set(const struct option *o,
                                   const char *text,
                                   uint32_t *field,
                                   char *why)
{
    static const char separators[] = ", \t";
    uint32_t set = 0;
    size_t count = 0;
    bool none = false;
    for (const char *at = text + strspn(text, separators); *at != '\0';) {
        size_t len = strcspn(at, separators);
        const struct word *w = find_word(o->words, at, len);
        if (w != NULL) {
            set |= w->value;
        } else if (len == 4 && memcmp(at, "none", 4) == 0) {
            none = true;
        } else {
            return bad_word(o, at, len, why);
        }
        count++;
        at += len;
        at += strspn(at, separators);
    }
    if (count == 0 || (none && count > 1)) {
        return bad(why, "write a list of words, or none alone");
    }
    *field = set;
    return VALUE_OK;
}

static enum value_result parse_address(const struct option *o,
                                       const char *text,
                                       struct address *field,
                                       char *why)
{
    if (o->type == OPTION_LISTEN_ADDRESS_OFF && strcmp(text, "off") == 0) {
        memset(field, 0, sizeof(*field));
        return VALUE_OK;
    }
    struct address a;
    const char *wrong =
        address_parse(text, o->type != OPTION_CONNECT_ADDRESS, &a);
    if (wrong != NULL) {
        return bad(why, "%s", wrong);
    }
    *field = a;
    return VALUE_OK;
}

const char *value_name_wrong(const char *text, size_t len)
{
    if (len == 0) {
        return "the name is empty";
    }
    if (len > VALUE_NAME_MAX) {
        return "a name has at most 127 bytes";
    }
    for (size_t i = 0; i < len; i++) {
        if (!isalnum((unsigned char)text[i]) &&
            (text[i] == '\0' || strchr("._-:/", text[i]) == NULL)) {
            return "a name has letters, digits, '.', '_', '-', ':' and '/'";
        }
    }
    return NULL;
}

static enum value_result parse_string(const struct option *o,
                                      const char *text,
                                      char **field,
                                      char *why)
{
    size_t len = strlen(text);
    if (len == 0) {
        return bad(why, "empty; leave it out, or give a value");
    }
    if (len > VALUE_STRING_MAX) {
        return bad(why, "longer than %d bytes", (int)VALUE_STRING_MAX);
    }
    if (o->type == OPTION_SECRET && strcmp(text, "***") == 0) {
        return bad(why, "*** stands for a secret that is not shown; write the "
                        "secret, or better ${file:/path}");
    }
    const char *wrong =
        o->type == OPTION_NAME ? value_name_wrong(text, len) : NULL;
    if (wrong != NULL) {
        return bad(why, "%s", wrong);
    }
    for (size_t i = 0; o->type == OPTION_USERNAME && i < len; i++) {
        if ((unsigned char)text[i] <= ' ' || text[i] == 0x7f) {
            return bad(why, "a user name has no spaces or control characters");
        }
    }
    char *copy = text_copy(text, len);
    if (copy == NULL) {
        return VALUE_NO_MEMORY;
    }
    free(*field);
    *field = copy;
    return VALUE_OK;
}

enum value_result value_parse(const struct option *o,
                              const char *text,
                              void *field,
                              char why[VALUE_TEXT_MAX])
{
    assert(o->size > 0);
    why[0] = '\0';
    if (is_number_type(o->type)) {
        int64_t v = 0;
        enum value_result result = parse_number(o, text, &v, why);
        if (result == VALUE_OK) {
            store_number(o, v, field);
        }
        return result;
    }
    if (o->type == OPTION_BOOL || o->type == OPTION_SWITCH) {
        return parse_bool(text, field, why);
    }
    if (o->type == OPTION_ENUM) {
        return parse_enum(o, text, field, why);
    }
    if (o->type == OPTION_SET) {
        return parse_set(o, text, field, why);
    }
    if (o->type == OPTION_USERNAME || o->type == OPTION_SECRET ||
        o->type == OPTION_NAME) {
        return parse_string(o, text, field, why);
    }
    return parse_address(o, text, field, why);
}

static void format_set(const struct option *o, uint32_t set, char *text)
{
    size_t used = 0;
    (void)snprintf(text, VALUE_TEXT_MAX, "none");
    for (const struct word *w = o->words; w->text != NULL; w++) {
        if ((set & w->value) != 0) {
            int n = snprintf(text + used, VALUE_TEXT_MAX - used, "%s%s",
                             used == 0 ? "" : ", ", w->text);
            assert(n > 0 && (size_t)n < VALUE_TEXT_MAX - used);
            used += (size_t)n;
        }
    }
}

void value_format(const struct option *o,
                  const void *field,
                  char text[VALUE_TEXT_MAX])
{
    if (is_number_type(o->type)) {
        format_number(o->type, load_number(o, field), text);
    } else if (o->type == OPTION_BOOL) {
        const char *word = *(const bool *)field ? "yes" : "no";
        (void)snprintf(text, VALUE_TEXT_MAX, "%s", word);
    } else if (o->type == OPTION_SWITCH) {
        const char *word = *(const bool *)field ? "on" : "off";
        (void)snprintf(text, VALUE_TEXT_MAX, "%s", word);
    } else if (o->type == OPTION_ENUM) {
        unsigned value = 0;
        memcpy(&value, field, sizeof(value));
        (void)snprintf(text, VALUE_TEXT_MAX, "%s", word_text(o->words, value));
    } else if (o->type == OPTION_SET) {
        format_set(o, *(const uint32_t *)field, text);
    } else {
        const struct address *a = field;
        if (a->host[0] == '\0') {
            (void)snprintf(text, VALUE_TEXT_MAX, "off");
        } else {
            address_format(a, text);
        }
    }
}
