#include "config/ini.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <ini.h>

/* inih cuts long lines and long section names silently, tells only the first
 * bad line, does not report empty sections, and takes ':' for '='. So we split
 * the text into lines, take the section lines ourselves, and give it one line
 * at a time. */

/* A key may hold colons ("replay.prefix.session:"). inih sees this byte
 * instead, which a line can't contain: control characters are refused. */
static const char hidden_colon = '\x01';

struct line {
    const struct ini_sink *sink;
    unsigned number;
    const char *text; /* borrowed, without the end of line */
    size_t len;
    bool given; /* inih has got it */
    bool too_long;
    size_t limit;
};

/* An ini_reader: the line, then the end. size is inih's limit. */
static char *give_line(char *buffer, int size, void *stream)
{
    struct line *l = stream;
    /* inih takes a full buffer without an end of line for a cut one. */
    l->limit = (size_t)size - 2;
    if (l->given) {
        return NULL;
    }
    l->given = true;
    if (l->len > l->limit) {
        l->too_long = true;
        return NULL;
    }
    const char *equals = memchr(l->text, '=', l->len);
    size_t key_len = equals != NULL ? (size_t)(equals - l->text) : l->len;
    for (size_t i = 0; i < l->len; i++) {
        buffer[i] = l->text[i];
        if (i < key_len && l->text[i] == ':') {
            buffer[i] = hidden_colon;
        }
    }
    buffer[l->len] = '\0';
    return buffer;
}

/* An ini_handler. */
static int take_entry(void *user,
                      const char *section,
                      const char *name,
                      const char *value)
{
    struct line *l = user;
    char key[512];
    size_t i = 0;
    (void)section;
    for (; name[i] != '\0' && i < sizeof(key) - 1; i++) {
        key[i] = name[i];
        if (name[i] == hidden_colon) {
            key[i] = ':';
        }
    }
    key[i] = '\0';
    if (i == 0) {
        l->sink->on_problem(l->sink->context, l->number,
                            "there is no key before '='");
    } else {
        l->sink->on_entry(l->sink->context, l->number, key, value);
    }
    return 1;
}

static void problem(const struct line *l, const char *text)
{
    l->sink->on_problem(l->sink->context, l->number, text);
}

static void read_entry(struct line *l)
{
    int bad_line = ini_parse_stream(give_line, l, take_entry, l);
    if (l->too_long) {
        char text[128];
        (void)snprintf(text, sizeof(text),
                       "the line is longer than %zu bytes; long values fit "
                       "into a file: ${file:/path}",
                       l->limit);
        problem(l, text);
    } else if (bad_line != 0) {
        problem(l, "this is no line such as key = value, [section] or # note");
    }
}

/* "[upstream cache]", with nothing but a comment behind. */
static void read_section(const struct line *l)
{
    char name[128];
    const char *start = l->text + 1;
    const char *end = memchr(start, ']', l->len - 1);
    if (end == NULL) {
        problem(l, "the section has no ']'");
        return;
    }
    const char *rest = end + 1;
    size_t rest_len = (size_t)(l->text + l->len - rest);
    while (rest_len > 0 && isspace((unsigned char)*rest)) {
        rest++;
        rest_len--;
    }
    if (rest_len > 0 && *rest != ';' && *rest != '#') {
        problem(l, "there is text behind the section's ']'");
        return;
    }
    size_t len = (size_t)(end - start);
    if (len >= sizeof(name)) {
        problem(l, "the section's name is too long");
        return;
    }
    memcpy(name, start, len);
    name[len] = '\0';
    l->sink->on_section(l->sink->context, l->number, name);
}

static bool has_control(const char *text, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            return true;
        }
    }
    return false;
}

static void read_line(struct line *l)
{
    while (l->len > 0 && isspace((unsigned char)l->text[l->len - 1])) {
        l->len--;
    }
    while (l->len > 0 && isspace((unsigned char)l->text[0])) {
        l->text++;
        l->len--;
    }
    if (l->len == 0 || l->text[0] == ';' || l->text[0] == '#') {
        return;
    }
    if (has_control(l->text, l->len)) {
        problem(l, "there is a control character in this line");
    } else if (l->text[0] == '[') {
        read_section(l);
    } else {
        read_entry(l);
    }
}

void ini_read(const char *text, size_t len, const struct ini_sink *sink)
{
    const char *end = text + len;
    if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
        text += 3;
    }
    for (unsigned number = 1; text < end; number++) {
        const char *newline = memchr(text, '\n', (size_t)(end - text));
        const char *line_end = newline != NULL ? newline : end;
        struct line l = { .sink = sink,
                          .number = number,
                          .text = text,
                          .len = (size_t)(line_end - text) };
        read_line(&l);
        text = newline != NULL ? newline + 1 : end;
    }
}
