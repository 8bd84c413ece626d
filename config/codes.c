#include "config/codes.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "config/option.h"

static bool is_word(const char *word, const char *text, size_t len)
{
    size_t i = 0;
    while (i < len && word[i] != '\0' &&
           toupper((unsigned char)text[i]) == word[i]) {
        i++;
    }
    return i == len && word[i] == '\0';
}

bool code_find(const char *text, size_t len, unsigned *code)
{
    char number[8];
    for (const struct word *w = words_status; w->text != NULL; w++) {
        (void)snprintf(number, sizeof(number), "%u", w->value);
        if (is_word(w->text, text, len) || is_word(number, text, len)) {
            *code = w->value;
            return true;
        }
    }
    return false;
}

bool code_find_name(const char *text, unsigned *code)
{
    for (const struct word *w = words_status; w->text != NULL; w++) {
        if (is_word(w->text, text, strlen(text))) {
            *code = w->value;
            return true;
        }
    }
    return false;
}

const char *code_name(unsigned code)
{
    assert(code <= CODES_MAX);
    return words_status[code].text;
}

const char *codes_parse(const char *text, uint32_t *set, char *why)
{
    *set = 0;
    for (;;) {
        unsigned code = 0;
        text += strspn(text, " \t");
        size_t end = strcspn(text, ",");
        size_t len = end;
        while (len > 0 && (text[len - 1] == ' ' || text[len - 1] == '\t')) {
            len--;
        }
        if (len == 0) {
            return "the list has an empty item";
        }
        if (!code_find(text, len, &code)) {
            (void)snprintf(why, CODES_TEXT_MAX, "\"%.*s\" is not a status code",
                           len < 100 ? (int)len : 100, text);
            return why;
        }
        if (code == 0) {
            return "OK cannot be retried";
        }
        *set |= 1u << code;
        if (text[end] == '\0') {
            return NULL;
        }
        text += end + 1;
    }
}

void codes_format(uint32_t set, char *text)
{
    size_t used = 0;
    text[0] = '\0';
    for (unsigned code = 0; code <= CODES_MAX; code++) {
        if ((set & 1u << code) != 0) {
            int n = snprintf(text + used, CODES_TEXT_MAX - used, "%s%s",
                             used == 0 ? "" : ", ", code_name(code));
            assert(n > 0 && (size_t)n < CODES_TEXT_MAX - used);
            used += (size_t)n;
        }
    }
}
