#include "parser/resp.h"

#include <assert.h>

#include "parser/number.h"

/* A simple string, error, number or other one-line value. */
enum {
    RESP_LINE_MAX = 64 * 1024
};

/* Where in a message the next byte is. */
enum state {
    STATE_START,   /* before a message */
    STATE_TYPE,    /* before a value inside a message */
    STATE_LINE,    /* in a line of text; skip counts its bytes */
    STATE_LINE_LF, /* behind its CR */
    STATE_SIZE,    /* in the length of a blob or aggregate */
    STATE_SIZE_LF, /* behind its CR */
    STATE_BODY,    /* in a blob; skip counts down to its CRLF's end */
    STATE_INVALID,
};

void resp_scanner_init(struct resp_scanner *s)
{
    *s = (struct resp_scanner){ .state = STATE_START };
}

/* Note why the stream cannot be followed. Always returns false. */
static bool refuse(struct resp_scanner *s, const char *error)
{
    s->error = error;
    s->state = STATE_INVALID;
    return false;
}

static void message_begin(struct resp_scanner *s)
{
    s->pending = 1;
    s->elements = 0;
    s->bytes = 0;
    s->type = 0;
    s->attribute = false;
    s->state = STATE_TYPE;
}

/* A value that is no attribute begins. The message's own value is the one
 * that begins when nothing else is missing. */
static inline void note_type(struct resp_scanner *s, uint8_t type)
{
    if (s->pending == 1 && s->type == 0) {
        s->type = type;
    }
}

/* The value that begins is not the message itself. */
static inline bool is_inside(const struct resp_scanner *s)
{
    return s->pending > 1 || (s->type != 0 && s->type != '>');
}

/* Count the values inside an aggregate. Returns false when they are too many.
 * An attribute counts as one itself, so that an endless row of empty ones
 * meets the limit too. So does a push inside of something else, which is no
 * member of it: what a transaction of a subscriber publishes to itself comes
 * in the middle of EXEC's reply. */
static bool announce(struct resp_scanner *s,
                     const struct resp_limits *limits,
                     uint8_t type,
                     uint64_t size)
{
    uint64_t each = type == '%' || type == '|' ? 2 : 1;
    bool between = type == '>' && is_inside(s);
    uint64_t own = type == '|' || between ? 1 : 0;
    uint64_t max = limits->elements_max;

    if (max > INT64_MAX) {
        max = INT64_MAX; /* so that pending never overflows */
    }
    if (s->elements > max || max - s->elements < own ||
        size > (max - s->elements - own) / each) {
        return false;
    }
    s->elements += own + size * each;
    s->pending += size * each + (between ? 1 : 0);
    return true;
}

/* ---- the fast path: values that lie wholly in the buffer ---- */

/* Where a line's CRLF ends, or NULL when that is not in the buffer. */
static inline const uint8_t *line_end(const uint8_t *p, const uint8_t *end)
{
    if (end - p > RESP_LINE_MAX) {
        end = p + RESP_LINE_MAX;
    }
    while (p < end && *p != '\r') {
        p++;
    }
    return end - p >= 2 && p[1] == '\n' ? p + 2 : NULL;
}

/* Where a blob ends, or NULL when the fast path cannot tell. */
static inline const uint8_t *blob_end(const uint8_t *p,
                                      const uint8_t *end,
                                      uint64_t bulk_max)
{
    const struct number_line size = number_line(p, end);

    if (size.end == NULL) {
        /* the null of RESP2, the answer to every miss */
        bool null = end - p >= 4 && memcmp(p, "-1\r\n", 4) == 0;
        return null && p[-1] == '$' ? p + 4 : NULL;
    }
    /* at most 18 digits: the sum cannot overflow */
    if (size.number > bulk_max ||
        (uint64_t)(end - size.end) < size.number + 4 || size.end[1] != '\n') {
        return NULL;
    }
    const uint8_t *tail = size.end + 2 + size.number;
    return tail[0] == '\r' && tail[1] == '\n' ? tail + 2 : NULL;
}

/* Pass one value of one line or blob. Returns NULL, changing nothing, when it
 * is anything else or not whole. */
static inline const uint8_t *pass_scalar(const uint8_t *p,
                                         const uint8_t *end,
                                         uint64_t bulk_max)
{
    switch (*p) {
    case '$':
    case '=':
    case '!': return blob_end(p + 1, end, bulk_max);
    case '+':
    case ':':
    case '-':
    case '_':
    case ',':
    case '#':
    case '(': return line_end(p + 1, end);
    default: return NULL;
    }
}

/* Pass as many values as lie wholly in the buffer, aggregates included, as
 * long as they are nothing special. Returns the first byte not passed. */
static const uint8_t *pass_values(struct resp_scanner *s,
                                  const struct resp_limits *limits,
                                  const uint8_t *p,
                                  const uint8_t *end)
{
    while (s->pending > 0 && p < end) {
        uint8_t type = *p;
        bool last = s->pending == 1; /* before it announces its members */
        const uint8_t *next = pass_scalar(p, end, limits->bulk_max);
        if (next == NULL) {
            if (type != '*' && type != '%' && type != '~' && type != '>') {
                break;
            }
            const struct number_line size = number_line(p + 1, end);
            if (size.end == NULL || end - size.end < 2 || size.end[1] != '\n' ||
                !announce(s, limits, type, size.number)) {
                break;
            }
            next = size.end + 2;
        }
        if (last && s->type == 0) {
            s->type = type;
        }
        s->pending--;
        p = next;
    }
    return p;
}

/* ---- the careful path: any byte may be the last one given ---- */

/* The whole value has been read. */
static void value_end(struct resp_scanner *s)
{
    assert(s->pending > 0);
    s->pending--;
    s->state = STATE_TYPE;
}

static bool begin_value(struct resp_scanner *s, uint8_t type)
{
    s->line_type = type;
    s->number = 0;
    s->skip = 0;
    s->digits = 0;
    s->negative = false;

    switch (type) {
    case '+':
    case '-':
    case ':':
    case ',':
    case '#':
    case '_':
    case '(':
        note_type(s, type);
        s->state = STATE_LINE;
        return true;
    case '$':
    case '!':
    case '=':
    case '*':
    case '%':
    case '~':
    case '>':
        note_type(s, type);
        s->state = STATE_SIZE;
        return true;
    case '|':
        s->attribute = s->attribute || s->type == 0;
        s->state = STATE_SIZE;
        return true;
    case ';':
    case '.': return refuse(s, "streamed strings and aggregates are refused");
    default: return refuse(s, "a byte that begins no type");
    }
}

static bool size_byte(struct resp_scanner *s, uint8_t byte)
{
    if (byte >= '0' && byte <= '9') {
        if (s->digits > 0 && s->number == 0) {
            return refuse(s, "a length with a leading zero");
        }
        if (s->digits == NUMBER_DIGITS_MAX) {
            return refuse(s, "a length of too many digits");
        }
        s->number = s->number * 10 + (uint64_t)(byte - '0');
        s->digits++;
        return true;
    }
    if (byte == '-' && s->digits == 0 && !s->negative) {
        s->negative = true;
        return true;
    }
    if (byte == '?' && s->digits == 0 && !s->negative) {
        return refuse(s, "streamed strings and aggregates are refused");
    }
    if (byte != '\r' || s->digits == 0) {
        return refuse(s, "a length that is no number");
    }
    s->state = STATE_SIZE_LF;
    return true;
}

/* The length is known: begin the body or the members. */
static bool size_end(struct resp_scanner *s, const struct resp_limits *limits)
{
    if (s->negative) {
        /* RESP2 has two nulls; nothing else has a negative length */
        if (s->number != 1 || (s->line_type != '$' && s->line_type != '*')) {
            return refuse(s, "a negative length");
        }
        value_end(s);
        return true;
    }
    if (s->line_type == '$' || s->line_type == '!' || s->line_type == '=') {
        if (s->number > limits->bulk_max) {
            return refuse(s, "a string longer than the limit");
        }
        s->skip = s->number + 2;
        s->state = STATE_BODY;
        return true;
    }
    if (!announce(s, limits, s->line_type, s->number)) {
        return refuse(s, "more elements than the limit");
    }
    if (s->line_type == '|') {
        s->state = STATE_TYPE; /* it only precedes a value */
    } else {
        value_end(s);
    }
    return true;
}

/* Pass line text up to its CR. Returns the first byte not passed. */
static const uint8_t *pass_line(struct resp_scanner *s,
                                const uint8_t *p,
                                const uint8_t *end)
{
    const uint8_t *cr = memchr(p, '\r', (size_t)(end - p));
    const uint8_t *stop = cr == NULL ? end : cr;

    s->skip += (uint64_t)(stop - p);
    if (s->skip > RESP_LINE_MAX) {
        refuse(s, "a line longer than the limit");
        return p;
    }
    if (cr == NULL) {
        return end;
    }
    s->state = STATE_LINE_LF;
    return cr + 1;
}

/* Pass as much of a blob and its CRLF as is there. */
static const uint8_t *pass_body(struct resp_scanner *s,
                                const uint8_t *p,
                                const uint8_t *end)
{
    uint64_t left = (uint64_t)(end - p);

    if (s->skip > 2) {
        uint64_t part = s->skip - 2 < left ? s->skip - 2 : left;
        s->skip -= part;
        return p + part;
    }
    if (*p != (s->skip == 2 ? '\r' : '\n')) {
        refuse(s, "a string without CRLF at its end");
        return p;
    }
    s->skip--;
    if (s->skip == 0) {
        value_end(s);
    }
    return p + 1;
}

/* Pass at least one byte, or refuse. */
static const uint8_t *pass_some(struct resp_scanner *s,
                                const struct resp_limits *limits,
                                const uint8_t *p,
                                const uint8_t *end)
{
    switch ((enum state)s->state) {
    case STATE_TYPE: return p + (begin_value(s, *p) ? 1 : 0);
    case STATE_LINE: return pass_line(s, p, end);
    case STATE_SIZE: return p + (size_byte(s, *p) ? 1 : 0);
    case STATE_BODY: return pass_body(s, p, end);
    case STATE_LINE_LF:
    case STATE_SIZE_LF:
        if (*p != '\n') {
            refuse(s, "a CR without its LF");
            return p;
        }
        if (s->state == STATE_LINE_LF) {
            value_end(s);
            return p + 1;
        }
        return p + (size_end(s, limits) ? 1 : 0);
    case STATE_START:
    case STATE_INVALID: break;
    }
    assert(false);
    return p;
}

/* Out of line, so that the way of short replies saves no registers for it. */
__attribute__((noinline)) static enum scan scan_careful(
    struct resp_scanner *s,
    const struct resp_limits *limits,
    const uint8_t *data,
    size_t size,
    size_t *used)
{
    const uint8_t *p = data;
    const uint8_t *end = data + size;

    while (s->pending > 0 && p < end && s->state != STATE_INVALID) {
        if (s->state == STATE_TYPE) {
            p = pass_values(s, limits, p, end);
            if (s->pending == 0 || p == end) {
                break;
            }
        }
        p = pass_some(s, limits, p, end);
    }
    *used = (size_t)(p - data);
    s->bytes += *used;
    if (s->state == STATE_INVALID) {
        return SCAN_INVALID;
    }
    if (s->pending > 0) {
        return SCAN_MORE;
    }
    s->state = STATE_START;
    return SCAN_DONE;
}

enum scan resp_scan(struct resp_scanner *s,
                    const struct resp_limits *limits,
                    const uint8_t *data,
                    size_t size,
                    size_t *used)
{
    if (size == 0 || s->state == STATE_INVALID) {
        *used = 0;
        return size == 0 && s->error == NULL ? SCAN_MORE : SCAN_INVALID;
    }
    if (s->state == STATE_START) {
        const uint8_t *next = pass_scalar(data, data + size, limits->bulk_max);
        if (next != NULL) { /* the whole message: most end here */
            s->type = *data;
            s->attribute = false;
            s->elements = 0;
            s->bytes = (uint64_t)(next - data);
            *used = (size_t)(next - data);
            return SCAN_DONE;
        }
        message_begin(s);
    }
    return scan_careful(s, limits, data, size, used);
}
