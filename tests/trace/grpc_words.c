#include "tests/trace/grpc_words.h"

#include <ctype.h>
#include <stdlib.h>

#include "parser/h2.h"
#include "tests/trace/script.h"

static void skip_space(const char **line)
{
    while (isspace((unsigned char)**line)) {
        (*line)++;
    }
}

/* --- header fields ----------------------------------------------------- */

static const char *long_name(const char *name)
{
    static const struct {
        const char *brief, *name;
    } names[] = { { "status", "grpc-status" },
                  { "message", "grpc-message" },
                  { "timeout", "grpc-timeout" },
                  { "attempts", "grpc-previous-rpc-attempts" },
                  { "pushback", "grpc-retry-pushback-ms" } };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (strcmp(names[i].brief, name) == 0) {
            return names[i].name;
        }
    }
    return name;
}

static struct field_text *field_add(struct piece *piece, const char *name)
{
    if (piece->fields == NULL) {
        piece->fields = must_alloc(FIELDS_MAX * sizeof *piece->fields);
    }
    if (piece->n_fields == FIELDS_MAX) {
        return NULL;
    }
    struct field_text *f = &piece->fields[piece->n_fields++];
    bytes_add_text(&f->name, long_name(name));
    return f;
}

/* "fields=300": so many of them. */
static bool many_fields(struct piece *piece, unsigned long n)
{
    for (unsigned long i = 0; i < n; i++) {
        struct field_text *f = field_add(piece, "");
        if (f == NULL) {
            return false;
        }
        bytes_printf(&f->name, "x-%lu", i);
        bytes_add_text(&f->value, "1");
    }
    return true;
}

/* name=value, name="value", -name; false: the next word is none of them. */
static bool field_read(const char **line, struct piece *piece, bool *good)
{
    char word[WORD_MAX];
    size_t n = 0;
    const char *at = *line;
    while (at[n] != '\0' && !isspace((unsigned char)at[n]) && at[n] != '=' &&
           n + 1 < WORD_MAX) {
        word[n] = at[n];
        n++;
    }
    word[n] = '\0';
    bool absent = word[0] == '-';
    if (at[n] != '=' && !absent) {
        return false;
    }
    *line = at + n + (at[n] == '=');
    if (strcmp(word, "fields") == 0) {
        word_next(line, word);
        *good = many_fields(piece, strtoul(word, NULL, 10));
        return true;
    }
    struct field_text *f = field_add(piece, word + absent);
    if (f == NULL) {
        *good = false;
        return true;
    }
    f->absent = absent;
    if (!absent && **line == '"') {
        *good = quoted_read(line, &f->value);
    } else if (!absent && !isspace((unsigned char)**line) && **line != '\0') {
        word_next(line, word);
        bytes_add_text(&f->value, word);
    }
    return true;
}

/* --- pieces ------------------------------------------------------------ */

static bool code_read(const char *word, uint32_t *code)
{
    for (uint32_t i = 0; i <= H2_HTTP_1_1_REQUIRED; i++) {
        if (strcmp(word, h2_code_name(i)) == 0) {
            *code = i;
            return true;
        }
    }
    return false;
}

/* goaway [last=N] [CODE] ["debug"] */
static bool goaway_read(const char **line, struct piece *piece)
{
    char word[WORD_MAX];
    const char *at = *line;
    piece->last = -1;
    while (word_next(&at, word) && word[0] != '"') {
        if (strncmp(word, "last=", 5) == 0) {
            piece->last = strcmp(word + 5, "max") == 0
                              ? INT64_MAX
                              : strtoll(word + 5, NULL, 10);
        } else if (!code_read(word, &piece->code)) {
            return true; /* the next piece */
        }
        *line = at;
    }
    skip_space(line);
    return **line != '"' || quoted_read(line, &piece->data);
}

/* A message with its prefix. */
static bool message_read(const char **line, struct bytes *out)
{
    struct bytes text = { 0 };
    bool good = quoted_read(line, &text);
    uint8_t prefix[5] = { 0 };
    for (unsigned i = 0; i < 4; i++) {
        prefix[1 + i] = (uint8_t)(text.size >> (24 - 8 * i));
    }
    bytes_add(out, prefix, sizeof prefix);
    bytes_add(out, bytes_front(&text), text.size);
    bytes_fini(&text);
    return good;
}

static bool kind_named(const char *word, enum piece_kind *kind)
{
    static const struct {
        const char *word;
        enum piece_kind kind;
    } kinds[] = { { "headers", PIECE_HEADERS },
                  { "trailers-only", PIECE_TRAILERS_ONLY },
                  { "trailers", PIECE_TRAILERS },
                  { "message", PIECE_DATA },
                  { "data", PIECE_DATA },
                  { "end", PIECE_END },
                  { "rst", PIECE_RESET },
                  { "goaway", PIECE_GOAWAY },
                  { "ping", PIECE_PING },
                  { "pong", PIECE_PONG } };
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        if (strcmp(kinds[i].word, word) == 0) {
            *kind = kinds[i].kind;
            return true;
        }
    }
    *kind = PIECE_REQUEST;
    return word[0] == '/';
}

static bool piece_read(const char **line, struct piece *piece)
{
    char word[WORD_MAX];
    word_next(line, word);
    bool good = kind_named(word, &piece->kind);
    if (!good) {
        return false;
    }
    switch (piece->kind) {
    case PIECE_REQUEST:
        bytes_add_text(&field_add(piece, ":path")->value, word);
        break;
    case PIECE_DATA:
        good = word[0] == 'm' ? message_read(line, &piece->data)
                              : quoted_read(line, &piece->data);
        break;
    case PIECE_RESET:
        good = word_next(line, word) && code_read(word, &piece->code);
        break;
    case PIECE_GOAWAY: good = goaway_read(line, piece); break;
    case PIECE_HEADERS:
    case PIECE_TRAILERS_ONLY:
    case PIECE_TRAILERS:
    case PIECE_END:
    case PIECE_PING:
    case PIECE_PONG: break;
    }
    return good;
}

bool pieces_read(const char *line, struct pieces *out)
{
    bool good = true;
    *out = (struct pieces){ 0 };
    for (skip_space(&line); good && *line != '\0'; skip_space(&line)) {
        bool has_fields =
            out->n > 0 && out->of[out->n - 1].kind <= PIECE_TRAILERS;
        if (has_fields && field_read(&line, &out->of[out->n - 1], &good)) {
            continue;
        }
        good = good && out->n < PIECES_MAX &&
               piece_read(&line, &out->of[out->n++]);
    }
    return good && out->n > 0;
}

void pieces_fini(struct pieces *p)
{
    for (size_t i = 0; i < p->n; i++) {
        struct piece *piece = &p->of[i];
        for (size_t k = 0; k < piece->n_fields; k++) {
            bytes_fini(&piece->fields[k].name);
            bytes_fini(&piece->fields[k].value);
        }
        free(piece->fields);
        bytes_fini(&piece->data);
    }
    p->n = 0;
}
