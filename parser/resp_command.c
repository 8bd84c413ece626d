#include "parser/resp_command.h"

#include <assert.h>
#include <stdio.h>

#include "parser/number.h"

/* A length line may be this long before Redis gives up on it. */
enum {
    LENGTH_LINE_MAX = 64 * 1024
};

/* digits has this value when the line cannot be a number any more. Redis
 * complains only at the line's end, and so do we. */
enum {
    DIGITS_BAD = UINT8_MAX
};

/* Where in a command the next byte is. */
enum state {
    STATE_START,    /* before a command */
    STATE_COUNT,    /* in the number of arguments, behind '*' */
    STATE_COUNT_LF, /* behind its CR */
    STATE_MARK,     /* before the '$' of an argument */
    STATE_LENGTH,   /* in the length of an argument */
    STATE_LENGTH_LF,
    STATE_BODY, /* in an argument; skip counts down to its CRLF's end */
    STATE_INLINE,
    STATE_INVALID,
};

void command_scanner_init(struct command_scanner *s)
{
    s->state = STATE_START;
    s->bytes = 0;
    s->skip = 0;
    s->argc = 0;
    s->seen = 0;
    s->is_inline = false;
    s->error = NULL;
    s->error_text[0] = '\0';
}

/* Note Redis' words for what is wrong. */
static void refuse(struct command_scanner *s, const char *error)
{
    s->error = error;
    s->state = STATE_INVALID;
}

static void line_begin(struct command_scanner *s, enum state state)
{
    s->number = 0;
    s->line = 0;
    s->digits = 0;
    s->negative = false;
    s->state = (uint8_t)state;
}

/* ---- the fast path: a command that lies wholly in the buffer ---- */

/* Pass a whole, ordinary multibulk command. Returns its end, or NULL when the
 * careful path must look at it. */
static const uint8_t *pass_whole(struct command_scanner *s,
                                 const struct command_limits *limits,
                                 const uint8_t *data,
                                 const uint8_t *end)
{
    const struct number_line argc = number_line(data + 1, end);
    const uint8_t *p = argc.end;

    if (p == NULL || argc.number == 0 || argc.number > limits->args_max ||
        argc.number > INT32_MAX) {
        return NULL;
    }
    p += 2;
    for (uint64_t i = 0; i < argc.number; i++) {
        if (end - p < 6 || *p != '$') {
            return NULL;
        }
        const struct number_line len = number_line(p + 1, end);
        /* at most 18 digits: the sum cannot overflow */
        if (len.end == NULL || len.number > limits->bulk_max ||
            (uint64_t)(end - len.end) < len.number + 4) {
            return NULL;
        }
        p = len.end + 2;
        if (i < COMMAND_ARGS_KEPT) {
            s->arg[i].offset = (uint64_t)(p - data);
            s->arg[i].len = len.number;
        }
        p += len.number + 2;
    }
    s->argc = (uint32_t)argc.number;
    s->seen = (uint32_t)argc.number;
    s->bytes = (uint64_t)(p - data);
    return p;
}

/* ---- the careful path: any byte may be the last one given ---- */

static void length_digit(struct command_scanner *s, uint8_t byte)
{
    bool leading_zero = s->digits > 0 && s->number == 0;
    bool digit = byte >= '0' && byte <= '9';

    if (s->digits == DIGITS_BAD) {
        return;
    }
    if (byte == '-' && s->digits == 0 && !s->negative) {
        s->negative = true;
    } else if (!digit || leading_zero || s->digits == NUMBER_DIGITS_MAX ||
               (byte == '0' && s->negative && s->digits == 0)) {
        s->digits = DIGITS_BAD;
    } else {
        s->number = s->number * 10 + (uint64_t)(byte - '0');
        s->digits++;
    }
}

/* Take one byte of a length line. */
static void length_byte(struct command_scanner *s, uint8_t byte)
{
    bool count = s->state == STATE_COUNT;

    if (byte == '\r') {
        s->state = count ? STATE_COUNT_LF : STATE_LENGTH_LF;
        return;
    }
    s->line++;
    if (s->line >= LENGTH_LINE_MAX) {
        refuse(s, count ? "Protocol error: too big mbulk count string"
                        : "Protocol error: too big bulk count string");
        return;
    }
    length_digit(s, byte);
}

/* Whether the line held a number. */
static bool length_valid(const struct command_scanner *s)
{
    return s->digits != DIGITS_BAD && s->digits > 0 && s->number <= INT64_MAX;
}

/* An argument's first byte. What is wrong with it is said at the line's end,
 * as Redis does. */
static void mark_byte(struct command_scanner *s, uint8_t byte)
{
    line_begin(s, STATE_LENGTH);
    if (byte == '$') {
        return;
    }
    char shown = (char)(byte == '\r' || byte == '\n' ? ' ' : byte);
    (void)snprintf(s->error_text, sizeof s->error_text,
                   "Protocol error: expected '$', got '%c'", shown);
    s->digits = DIGITS_BAD;
    if (byte == '\r') {
        s->state = STATE_LENGTH_LF;
    }
}

/* The number of arguments is known. Returns whether the command ends here. */
static bool count_end(struct command_scanner *s,
                      const struct command_limits *limits)
{
    if (!length_valid(s) || (!s->negative && (s->number > limits->args_max ||
                                              s->number > INT32_MAX))) {
        refuse(s, "Protocol error: invalid multibulk length");
        return false;
    }
    s->argc = s->negative ? 0 : (uint32_t)s->number;
    s->state = STATE_MARK;
    return s->argc == 0;
}

/* An argument's length is known. */
static void length_end(struct command_scanner *s,
                       const struct command_limits *limits)
{
    if (s->error_text[0] != '\0') {
        refuse(s, s->error_text);
        return;
    }
    if (!length_valid(s) || s->negative || s->number > limits->bulk_max) {
        refuse(s, "Protocol error: invalid bulk length");
        return;
    }
    if (s->seen < COMMAND_ARGS_KEPT) {
        s->arg[s->seen].offset = s->bytes + 1;
        s->arg[s->seen].len = s->number;
    }
    s->seen++;
    s->skip = s->number + 2;
    s->state = STATE_BODY;
}

/* Pass inline text. Redis looks for the end of the line with strchr(), which
 * stops at a NUL: behind one there is no end. negative remembers it, number
 * the first byte. */
static size_t pass_inline(struct command_scanner *s,
                          const uint8_t *p,
                          size_t size,
                          bool *done)
{
    const uint8_t *lf = s->negative ? NULL : memchr(p, '\n', size);
    size_t text = lf == NULL ? size : (size_t)(lf - p);

    if (memchr(p, '\0', text) != NULL) {
        s->negative = true;
        lf = NULL;
        text = size;
    }
    if (text > COMMAND_INLINE_MAX - s->line) {
        refuse(s, "Protocol error: too big inline request");
        return 0;
    }
    if (s->line == 0) {
        s->number = *p;
    }
    s->line += (uint32_t)text;
    *done = lf != NULL;
    if (*done && (s->line == 0 || (s->line == 1 && s->number == '\r'))) {
        s->argc = 0;
        s->seen = 0;
    }
    return text + (lf != NULL ? 1 : 0);
}

/* Pass some of a multibulk command; at least one byte. */
static size_t pass_multibulk(struct command_scanner *s,
                             const struct command_limits *limits,
                             const uint8_t *p,
                             size_t size,
                             bool *done)
{
    switch ((enum state)s->state) {
    case STATE_START: line_begin(s, STATE_COUNT); return 1;
    case STATE_COUNT:
    case STATE_LENGTH: length_byte(s, *p); return 1;
    case STATE_COUNT_LF: *done = count_end(s, limits); return 1;
    case STATE_LENGTH_LF: length_end(s, limits); return 1;
    case STATE_MARK: mark_byte(s, *p); return 1;
    case STATE_BODY: {
        size_t part = s->skip < size ? (size_t)s->skip : size;
        s->skip -= part;
        if (s->skip == 0) {
            s->state = STATE_MARK;
            *done = s->seen == s->argc;
        }
        return part;
    }
    case STATE_INLINE:
    case STATE_INVALID: break;
    }
    assert(false);
    return size;
}

/* Continue where the last call stopped. Out of line, so that the way of whole
 * commands saves no registers for it. */
__attribute__((noinline)) static enum scan scan_careful(
    struct command_scanner *s,
    const struct command_limits *limits,
    const uint8_t *data,
    size_t size,
    size_t *used)
{
    bool done = false;

    *used = 0;
    while (*used < size && !done && s->state != STATE_INVALID) {
        const uint8_t *p = data + *used;
        size_t left = size - *used;
        size_t part = s->state == STATE_INLINE
                          ? pass_inline(s, p, left, &done)
                          : pass_multibulk(s, limits, p, left, &done);
        *used += part;
        s->bytes += part;
    }
    if (s->state == STATE_INVALID) {
        return SCAN_INVALID;
    }
    if (!done) {
        return SCAN_MORE;
    }
    s->state = STATE_START;
    return SCAN_DONE;
}

enum scan command_scan(struct command_scanner *s,
                       const struct command_limits *limits,
                       const uint8_t *data,
                       size_t size,
                       size_t *used)
{
    if (size == 0 || s->state == STATE_INVALID) {
        *used = 0;
        return s->state == STATE_INVALID ? SCAN_INVALID : SCAN_MORE;
    }
    if (s->state != STATE_START) {
        return scan_careful(s, limits, data, size, used);
    }
    if (*data == '*') {
        const uint8_t *end = pass_whole(s, limits, data, data + size);
        if (end != NULL) {
            s->is_inline = false;
            *used = (size_t)(end - data);
            return SCAN_DONE;
        }
    }
    command_scanner_init(s);
    if (*data != '*') {
        s->is_inline = true;
        s->argc = 1;
        s->seen = 1;
        line_begin(s, STATE_INLINE);
    }
    return scan_careful(s, limits, data, size, used);
}

/* ---- splitting ---- */

size_t command_split(struct span data, struct span *args, size_t max)
{
    const uint8_t *end = data.data + data.len;

    if (data.len < 4 || *data.data != '*') {
        return 0;
    }
    const struct number_line argc = number_line(data.data + 1, end);
    if (argc.end == NULL || end - argc.end < 2) {
        return 0;
    }
    const uint8_t *p = argc.end + 2;
    for (uint64_t i = 0; i < argc.number; i++) {
        if (end - p < 6 || *p != '$') {
            return 0;
        }
        const struct number_line len = number_line(p + 1, end);
        if (len.end == NULL || (uint64_t)(end - len.end) < len.number + 4) {
            return 0;
        }
        p = len.end + 2;
        if (i < max) {
            args[i] = (struct span){ .data = p, .len = (size_t)len.number };
        }
        p += len.number + 2;
    }
    return p == end ? (size_t)argc.number : 0;
}

/* ---- inline commands ---- */

/* Where the rewritten command grows. Lengths are known only behind a word, so
 * a word is written with room for its header and then moved up to it. */
struct writer {
    uint8_t *out;
    size_t len;
    size_t max;
    bool full;
};

static void write_bytes(struct writer *w, const void *bytes, size_t len)
{
    if (len > w->max - w->len) {
        w->full = true;
        return;
    }
    memcpy(w->out + w->len, bytes, len);
    w->len += len;
}

static void write_byte(struct writer *w, uint8_t byte)
{
    write_bytes(w, &byte, 1);
}

/* Put "<mark><number>\r\n" before what was written since from. */
static void write_header(struct writer *w,
                         size_t from,
                         char mark,
                         size_t number)
{
    char header[32];
    int len = snprintf(header, sizeof header, "%c%zu\r\n", mark, number);
    size_t body = w->len - from;

    assert(len > 0 && (size_t)len < sizeof header);
    if ((size_t)len > w->max - w->len) {
        w->full = true;
        return;
    }
    memmove(w->out + from + len, w->out + from, body);
    memcpy(w->out + from, header, (size_t)len);
    w->len += (size_t)len;
}

/* As isspace() in the C locale. */
static bool is_space(uint8_t c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

/* A bare word ends at fewer bytes than may stand between words. */
static bool ends_word(uint8_t c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static int hex_value(uint8_t c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Undo one escape of a double-quoted word; p is behind the backslash. Returns
 * the bytes it took. */
static size_t unescape(const uint8_t *p, const uint8_t *end, struct writer *w)
{
    if (end - p >= 3 && *p == 'x' && hex_value(p[1]) >= 0 &&
        hex_value(p[2]) >= 0) {
        write_byte(w, (uint8_t)(hex_value(p[1]) * 16 + hex_value(p[2])));
        return 3;
    }
    switch (*p) {
    case 'n': write_byte(w, '\n'); break;
    case 'r': write_byte(w, '\r'); break;
    case 't': write_byte(w, '\t'); break;
    case 'b': write_byte(w, '\b'); break;
    case 'a': write_byte(w, '\a'); break;
    default: write_byte(w, *p); break;
    }
    return 1;
}

/* Copy a quoted part of a word; p is behind the opening quote. Returns what
 * is behind the closing one, or NULL when there is none or when something
 * other than a space follows it. */
static const uint8_t *copy_quoted(const uint8_t *p,
                                  const uint8_t *end,
                                  uint8_t quote,
                                  struct writer *w)
{
    while (p < end && *p != quote) {
        if (*p == '\\' && quote == '"' && end - p >= 2) {
            p += 1 + unescape(p + 1, end, w);
        } else if (*p == '\\' && quote == '\'' && end - p >= 2 &&
                   p[1] == '\'') {
            write_byte(w, '\'');
            p += 2;
        } else {
            write_byte(w, *p++);
        }
    }
    if (p == end || (p + 1 < end && !is_space(p[1]))) {
        return NULL;
    }
    return p + 1;
}

/* Copy one word. Returns what is behind it, or NULL for unbalanced quotes. */
static const uint8_t *copy_word(const uint8_t *p,
                                const uint8_t *end,
                                struct writer *w)
{
    while (p < end && !ends_word(*p)) {
        if (*p == '"' || *p == '\'') {
            return copy_quoted(p + 1, end, *p, w);
        }
        write_byte(w, *p++);
    }
    return p;
}

/* The text of an inline command: up to its line end or its first NUL. */
static const uint8_t *inline_end(struct span line)
{
    size_t len = line.len;

    if (len > 0 && line.data[len - 1] == '\n') {
        len--;
        if (len > 0 && line.data[len - 1] == '\r') {
            len--;
        }
    }
    const uint8_t *nul = len == 0 ? NULL : memchr(line.data, '\0', len);
    return nul == NULL ? line.data + len : nul;
}

/* NOLINTNEXTLINE(readability-non-const-parameter): w writes to out */
int64_t command_from_inline(struct span line, uint8_t *out, size_t out_max)
{
    struct writer w = { .out = out, .max = out_max };
    const uint8_t *p = line.data;
    const uint8_t *end = inline_end(line);
    size_t argc = 0;

    for (;;) {
        while (p < end && is_space(*p)) {
            p++;
        }
        if (p == end) {
            break;
        }
        size_t from = w.len;
        p = copy_word(p, end, &w);
        if (p == NULL) {
            return -1;
        }
        write_header(&w, from, '$', w.len - from);
        write_bytes(&w, "\r\n", 2);
        argc++;
    }
    if (argc > 0) {
        write_header(&w, 0, '*', argc);
    }
    assert(!w.full);
    return (int64_t)w.len;
}
