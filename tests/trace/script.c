#include "tests/trace/script.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/resp_model.h"

static void skip_space(const char **line)
{
    while (**line != '\0' && isspace((unsigned char)**line)) {
        (*line)++;
    }
}

bool word_next(const char **line, char word[WORD_MAX])
{
    size_t n = 0;
    skip_space(line);
    while (**line != '\0' && !isspace((unsigned char)**line) &&
           n + 1 < WORD_MAX) {
        word[n++] = *(*line)++;
    }
    word[n] = '\0';
    return n > 0;
}

bool time_read(const char *word, uint64_t *us)
{
    char *end;
    unsigned long long number = strtoull(word, &end, 10);
    uint64_t unit = strcmp(end, "us") == 0   ? 1
                    : strcmp(end, "ms") == 0 ? 1000
                    : strcmp(end, "s") == 0  ? 1000000
                                             : 0;
    *us = number * unit;
    return end != word && unit > 0;
}

/* One character of quoted text. */
static bool character_read(const char **line, uint8_t *c)
{
    const char *at = *line;
    if (*at != '\\') {
        *c = (uint8_t)*at;
        *line = at + 1;
        return *at != '\0';
    }
    at++;
    switch (*at) {
    case 'r': *c = '\r'; break;
    case 'n': *c = '\n'; break;
    case 't': *c = '\t'; break;
    case '"':
    case '\\':
    case '\'': *c = (uint8_t)*at; break;
    case 'x': {
        char digits[3] = { 0 };
        if (!isxdigit((unsigned char)at[1]) ||
            !isxdigit((unsigned char)at[2])) {
            return false;
        }
        memcpy(digits, at + 1, 2);
        *c = (uint8_t)strtoul(digits, NULL, 16);
        at += 2;
        break;
    }
    default: return false;
    }
    *line = at + 1;
    return true;
}

/* One piece in quotes of that kind, with "*count" behind it. */
static bool piece_read(const char **line, char quote, struct bytes *out)
{
    struct bytes piece = { 0 };
    bool good = **line == quote;
    *line += good;
    while (good && **line != quote) {
        uint8_t c;
        good = character_read(line, &c);
        if (good) {
            bytes_add(&piece, &c, 1);
        }
    }
    unsigned long count = 1;
    if (good) {
        (*line)++;
        if (**line == '*') {
            char *end;
            count = strtoul(*line + 1, &end, 10);
            *line = end;
        }
        for (unsigned long i = 0; i < count; i++) {
            bytes_add(out, bytes_front(&piece), piece.size);
        }
    }
    bytes_fini(&piece);
    return good;
}

bool quoted_read(const char **line, struct bytes *out)
{
    skip_space(line);
    if (**line != '"') {
        return false;
    }
    while (**line == '"') {
        if (!piece_read(line, '"', out)) {
            return false;
        }
        skip_space(line);
    }
    return true;
}

bool command_read(const char **line, struct bytes *out)
{
    struct bytes text[MODEL_ARGS_MAX] = { 0 };
    struct span arg[MODEL_ARGS_MAX];
    size_t argc = 0;
    bool good = true;

    for (skip_space(line); good && **line != '\0'; skip_space(line)) {
        char word[WORD_MAX];
        if (argc == MODEL_ARGS_MAX) {
            good = false;
        } else if (**line == '"') {
            good = piece_read(line, '"', &text[argc]);
        } else {
            word_next(line, word);
            bytes_add_text(&text[argc], word);
        }
        argc++;
    }
    for (size_t i = 0; i < argc && good; i++) {
        arg[i] = bytes_span(&text[i]);
    }
    good = good && argc > 0;
    if (good) {
        model_command_add(out, arg, argc);
    }
    for (size_t i = 0; i < argc && i < MODEL_ARGS_MAX; i++) {
        bytes_fini(&text[i]);
    }
    return good;
}

/* The rest of the line is an error's text. */
static void error_read(const char **line, struct bytes *out)
{
    const uint8_t anything = ANYTHING;
    size_t length = strlen(*line);
    while (length > 0 && isspace((unsigned char)(*line)[length - 1])) {
        length--;
    }
    bool open = length >= 3 && strncmp(*line + length - 3, "...", 3) == 0;
    bytes_add(out, *line, open ? length - 3 : length);
    if (open) {
        bytes_add(out, &anything, 1);
    }
    bytes_add_text(out, "\r\n");
    *line += strlen(*line);
}

static bool one_reply_read(const char **line, struct bytes *out)
{
    static const struct {
        const char *word, *bytes;
    } names[] = { { "nil", "$-1\r\n" },
                  { "null", "_\r\n" },
                  { "nilarray", "*-1\r\n" },
                  { ":...", ":\xff\r\n" } };
    char word[WORD_MAX];

    if (**line == '\'') {
        struct bytes text = { 0 };
        bool good = piece_read(line, '\'', &text);
        model_bulk_add(out, bytes_span(&text));
        bytes_fini(&text);
        return good;
    }
    if (**line == '-') {
        error_read(line, out);
        return true;
    }
    word_next(line, word);
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(word, names[i].word) == 0) {
            bytes_add_text(out, names[i].bytes);
            return true;
        }
    }
    bytes_add_text(out, word);
    bytes_add_text(out, "\r\n");
    return strchr("+:$*%>~#,|", word[0]) != NULL;
}

bool reply_read(const char **line, struct bytes *out)
{
    bool good = true;
    size_t n = 0;
    for (skip_space(line); good && **line != '\0'; skip_space(line)) {
        good = one_reply_read(line, out);
        n++;
    }
    return good && n > 0;
}

bool pattern_match(struct span pattern, struct span bytes, size_t *size)
{
    size_t at = 0;
    for (size_t i = 0; i < pattern.len; i++) {
        if (pattern.data[i] == ANYTHING) {
            while (at < bytes.len && bytes.data[at] != '\r') {
                at++;
            }
        } else if (at < bytes.len && bytes.data[at] == pattern.data[i]) {
            at++;
        } else {
            *size = at;
            return false;
        }
    }
    *size = at;
    return true;
}
