#include "config/value_number.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

/* What to do with more digits of a fraction. */
enum fraction {
    FRACTION_EXACT, /* there may be none */
    FRACTION_CUT
};

/* Read "12" or "1.5" from the start of text. Returns the rest, or NULL when
 * there is no number. */
static const char *read_number(const char *text,
                               struct number *n,
                               enum fraction fraction)
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
        if (++digits > FRACTION_DIGITS_MAX && fraction == FRACTION_EXACT) {
            return NULL;
        }
        scale /= 10; /* at last 0 */
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

bool number_is_type(enum option_type type)
{
    return type == OPTION_COUNT32 || type == OPTION_COUNT64 ||
           type == OPTION_SIGNED || type == OPTION_COUNT_UNSET ||
           type == OPTION_DURATION || type == OPTION_DURATION_OFF ||
           type == OPTION_DURATION_INFINITE || type == OPTION_SIZE ||
           type == OPTION_SIZE_INFINITE || type == OPTION_PERCENT ||
           type == OPTION_MILLI || type == OPTION_NUMBER || type == OPTION_MODE;
}

static bool is_duration(enum option_type type)
{
    return type == OPTION_DURATION || type == OPTION_DURATION_OFF ||
           type == OPTION_DURATION_INFINITE;
}

static bool is_size(enum option_type type)
{
    return type == OPTION_SIZE || type == OPTION_SIZE_INFINITE;
}

/* The word that stands for a number, or NULL. */
static const char *word_for(enum option_type type, int64_t v)
{
    if (type == OPTION_DURATION_OFF && v == 0) {
        return "off";
    }
    if ((type == OPTION_DURATION_INFINITE || type == OPTION_SIZE_INFINITE) &&
        v == NUMBER_NONE) {
        return "infinite";
    }
    return type == OPTION_COUNT_UNSET && v == NUMBER_NONE ? "unset" : NULL;
}

/* A fraction of so many digits, without zeros at its end. */
static void format_fraction(int64_t v, int64_t one, int digits, char *text)
{
    int n = snprintf(text, VALUE_TEXT_MAX, "%lld.%0*lld", (long long)(v / one),
                     digits, (long long)(v % one));
    while (text[n - 1] == '0') {
        text[--n] = '\0';
    }
    if (text[n - 1] == '.') {
        text[n - 1] = '\0';
    }
}

void number_format(enum option_type type, int64_t v, char *text)
{
    const char *word = word_for(type, v);
    if (word != NULL) {
        (void)snprintf(text, VALUE_TEXT_MAX, "%s", word);
    } else if (is_duration(type) && v == 0) {
        (void)snprintf(text, VALUE_TEXT_MAX, "0s");
    } else if (is_duration(type)) {
        format_unit(duration_units, COUNT_OF(duration_units), v, text);
    } else if (is_size(type)) {
        format_unit(size_units, COUNT_OF(size_units), v, text);
    } else if (type == OPTION_PERCENT) {
        format_fraction(v, 10, 1, text);
        size_t len = strlen(text);
        (void)snprintf(text + len, VALUE_TEXT_MAX - len, "%%");
    } else if (type == OPTION_MILLI) {
        format_fraction(v, 1000, 3, text);
    } else if (type == OPTION_NUMBER) {
        format_fraction(v, 1000000, FRACTION_DIGITS_MAX, text);
    } else if (type == OPTION_MODE) {
        (void)snprintf(text, VALUE_TEXT_MAX, "%04llo", (unsigned long long)v);
    } else {
        (void)snprintf(text, VALUE_TEXT_MAX, "%lld", (long long)v);
    }
}

void number_range(const struct option *o, char *text)
{
    char low[VALUE_TEXT_MAX];
    char high[VALUE_TEXT_MAX];
    const char *word = word_for(o->type, NUMBER_NONE);
    if (o->type == OPTION_DURATION_OFF) {
        word = "off";
    }
    number_format(o->type == OPTION_DURATION_OFF ? OPTION_DURATION : o->type,
                  o->min, low);
    number_format(o->type, o->max, high);
    (void)snprintf(text, VALUE_TEXT_MAX, "%s%s%.32s to %.32s",
                   word != NULL ? word : "", word != NULL ? ", or " : "", low,
                   high);
}

static enum value_result parse_duration(const char *text, int64_t *v, char *why)
{
    if (strcmp(text, "0") == 0) {
        *v = 0;
        return VALUE_OK;
    }
    struct number n;
    const char *rest = read_number(text, &n, FRACTION_EXACT);
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
    const char *rest = read_number(text, &n, FRACTION_EXACT);
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
    const char *rest = read_number(text, &n, FRACTION_EXACT);
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
    const char *rest = read_number(text + (minus ? 1 : 0), &n, FRACTION_EXACT);
    if (rest == NULL || *rest != '\0' || n.millionths != 0) {
        return bad(why, "not a whole number");
    }
    *v = minus ? -n.whole : n.whole;
    return VALUE_OK;
}

/* In thousandths; what is less is cut off. */
static enum value_result parse_milli(const char *text, int64_t *v, char *why)
{
    struct number n;
    const char *rest = read_number(text, &n, FRACTION_CUT);
    if (rest == NULL || *rest != '\0' || n.whole > INT32_MAX) {
        return bad(why, "not a number; write 10 or 0.1");
    }
    *v = n.whole * 1000 + n.millionths / 1000;
    return VALUE_OK;
}

/* In millionths. */
static enum value_result parse_real(const char *text, int64_t *v, char *why)
{
    struct number n;
    const char *rest = read_number(text, &n, FRACTION_EXACT);
    if (rest == NULL || *rest != '\0' || !scale_number(n, 1000000, v)) {
        return bad(why,
                   "not a number; write 2 or 1.6, with at most %d "
                   "decimals",
                   (int)FRACTION_DIGITS_MAX);
    }
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

static enum value_result parse_any(const struct option *o,
                                   const char *text,
                                   int64_t *v,
                                   char *why)
{
    if (is_duration(o->type)) {
        return parse_duration(text, v, why);
    }
    if (is_size(o->type)) {
        return parse_size(text, v, why);
    }
    if (o->type == OPTION_PERCENT) {
        return parse_percent(text, v, why);
    }
    if (o->type == OPTION_MILLI) {
        return parse_milli(text, v, why);
    }
    if (o->type == OPTION_NUMBER) {
        return parse_real(text, v, why);
    }
    if (o->type == OPTION_MODE) {
        return parse_mode(text, v, why);
    }
    return parse_count(text, o->type == OPTION_SIGNED, v, why);
}

enum value_result number_parse(const struct option *o,
                               const char *text,
                               int64_t *v,
                               char *why)
{
    static const int64_t words[] = { 0, NUMBER_NONE };
    for (size_t i = 0; i < COUNT_OF(words); i++) {
        const char *word = word_for(o->type, words[i]);
        if (word != NULL && strcmp(word, text) == 0) {
            *v = words[i];
            return VALUE_OK;
        }
    }
    enum value_result result = parse_any(o, text, v, why);
    if (result != VALUE_OK || (o->type == OPTION_DURATION_OFF && *v == 0)) {
        return result;
    }
    if (*v < o->min || *v > o->max) {
        char range[VALUE_TEXT_MAX];
        number_range(o, range);
        return bad(why, "out of range; allowed is %.128s", range);
    }
    if (o->type == OPTION_DURATION_INFINITE && *v == 0) {
        *v = NUMBER_NONE;
    }
    return VALUE_OK;
}

void number_store(const struct option *o, int64_t v, void *field)
{
    if (o->type == OPTION_SIGNED || o->type == OPTION_COUNT_UNSET) {
        assert(o->size == sizeof(int64_t));
        *(int64_t *)field = v;
    } else if (o->type == OPTION_NUMBER) {
        assert(o->size == sizeof(double));
        *(double *)field = (double)v / 1e6;
    } else if (o->size == sizeof(uint32_t)) {
        *(uint32_t *)field = (uint32_t)v;
    } else {
        assert(o->size == sizeof(uint64_t));
        *(uint64_t *)field = (uint64_t)v;
    }
}

int64_t number_load(const struct option *o, const void *field)
{
    if (o->type == OPTION_SIGNED || o->type == OPTION_COUNT_UNSET) {
        return *(const int64_t *)field;
    }
    if (o->type == OPTION_NUMBER) {
        return (int64_t)(*(const double *)field * 1e6 + 0.5);
    }
    if (o->size == sizeof(uint32_t)) {
        return *(const uint32_t *)field;
    }
    const uint64_t *wide = field;
    return (int64_t)*wide; /* "infinite" becomes NUMBER_NONE */
}
