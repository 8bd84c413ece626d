#include "config/value.h"

#include <assert.h>
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/address.h"
#include "config/arena.h"
#include "config/codes.h"
#include "config/config.h"
#include "config/problem.h"
#include "config/value_number.h"

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
    if (o->type == OPTION_CODES) {
        (void)snprintf(text, VALUE_TEXT_MAX, "names or 1 to %d",
                       (int)CODES_MAX);
    } else if (o->words != NULL) {
        list_words(o->words, text);
    } else if (o->type == OPTION_BOOL) {
        (void)snprintf(text, VALUE_TEXT_MAX, "yes or no");
    } else if (o->type == OPTION_SWITCH) {
        (void)snprintf(text, VALUE_TEXT_MAX, "on or off");
    } else if (number_is_type(o->type)) {
        number_range(o, text);
    }
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

static enum value_result parse_either(const struct option *o,
                                      const char *text,
                                      bool *field,
                                      char *why)
{
    unsigned value = 0;
    enum value_result result = value_word(o, text, &value, why);
    if (result == VALUE_OK) {
        *field = value != 0;
    }
    return result;
}

static enum value_result parse_codes(const char *text,
                                     uint32_t *field,
                                     char *why)
{
    uint32_t set = 0;
    char room[CODES_TEXT_MAX];
    const char *wrong = codes_parse(text, &set, room);
    if (wrong != NULL) {
        return bad(why, "%s", wrong);
    }
    *field = set;
    return VALUE_OK;
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

/* RFC 3986 without user information. */
static const char *authority_wrong(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (!isalnum((unsigned char)text[i]) &&
            strchr("-._~!$&'()*+,;=:[]%", text[i]) == NULL) {
            return "not an authority; write auto, pass, or a text such as "
                   "calls.example.net:443";
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
    const char *wrong = NULL;
    if (o->type == OPTION_NAME) {
        wrong = value_name_wrong(text, len);
    } else if (o->type == OPTION_AUTHORITY) {
        wrong = authority_wrong(text, len);
    }
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
    if (o->type == OPTION_CODES) {
        return parse_codes(text, field, why);
    }
    if (number_is_type(o->type)) {
        int64_t v = 0;
        enum value_result result = number_parse(o, text, &v, why);
        if (result == VALUE_OK) {
            number_store(o, v, field);
        }
        return result;
    }
    if (o->type == OPTION_BOOL || o->type == OPTION_SWITCH) {
        return parse_bool(text, field, why);
    }
    if (o->type == OPTION_ENUM) {
        return parse_enum(o, text, field, why);
    }
    if (o->type == OPTION_EITHER) {
        return parse_either(o, text, field, why);
    }
    if (o->type == OPTION_SET) {
        return parse_set(o, text, field, why);
    }
    if (option_is_string(o)) {
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
    if (number_is_type(o->type)) {
        number_format(o->type, number_load(o, field), text);
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
    } else if (o->type == OPTION_EITHER) {
        const char *word = word_text(o->words, *(const bool *)field ? 1 : 0);
        (void)snprintf(text, VALUE_TEXT_MAX, "%s", word);
    } else if (o->type == OPTION_CODES) {
        codes_format(*(const uint32_t *)field, text);
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
