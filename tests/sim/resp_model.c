#include "tests/sim/resp_model.h"

#include <assert.h>
#include <inttypes.h>

/* Read "<type><number>\r\n" at data[*at]. */
static enum model_scan head_read(struct span data,
                                 size_t *at,
                                 uint8_t *type,
                                 int64_t *number)
{
    size_t i = *at;
    while (i + 1 < data.len &&
           !(data.data[i] == '\r' && data.data[i + 1] == '\n')) {
        i++;
    }
    if (i + 1 >= data.len) {
        return MODEL_MORE;
    }
    *type = data.data[*at];
    int64_t value = 0;
    bool negative = false;
    for (size_t k = *at + 1; k < i; k++) {
        uint8_t c = data.data[k];
        if (c == '-' && k == *at + 1) {
            negative = true;
        } else if (c >= '0' && c <= '9' && value < INT64_MAX / 100) {
            value = value * 10 + (c - '0');
        } else {
            value = 0; /* a line of text, not a number */
            negative = false;
            break;
        }
    }
    *number = negative ? -value : value;
    *at = i + 2;
    return MODEL_DONE;
}

enum model_scan model_command_read(struct span data, struct model_command *c)
{
    size_t at = 0;
    uint8_t type;
    int64_t number;

    if (data.len == 0) {
        return MODEL_MORE;
    }
    if (data.data[0] != '*') {
        return MODEL_BROKEN;
    }
    if (head_read(data, &at, &type, &number) != MODEL_DONE) {
        return MODEL_MORE;
    }
    if (number < 1 || number > MODEL_ARGS_MAX) {
        return MODEL_BROKEN;
    }
    c->argc = (size_t)number;
    for (size_t i = 0; i < c->argc; i++) {
        if (at >= data.len) {
            return MODEL_MORE;
        }
        if (head_read(data, &at, &type, &number) != MODEL_DONE) {
            return MODEL_MORE;
        }
        if (type != '$' || number < 0) {
            return MODEL_BROKEN;
        }
        if (at + (size_t)number + 2 > data.len) {
            return MODEL_MORE;
        }
        c->arg[i] =
            (struct span){ .data = data.data + at, .len = (size_t)number };
        at += (size_t)number + 2;
    }
    c->size = at;
    return MODEL_DONE;
}

enum model_scan model_reply_end(struct span data, size_t *size)
{
    size_t at = 0;
    int64_t missing = 1;

    while (missing > 0) {
        uint8_t type;
        int64_t number;
        if (at >= data.len ||
            head_read(data, &at, &type, &number) != MODEL_DONE) {
            return MODEL_MORE;
        }
        missing--;
        switch (type) {
        case '+':
        case '-':
        case ':':
        case '_':
        case ',':
        case '#':
        case '(': break;
        case '$':
        case '=':
        case '!':
            if (number >= 0) {
                at += (size_t)number + 2;
            }
            break;
        case '*':
        case '~':
        case '>': missing += number > 0 ? number : 0; break;
        case '%': missing += 2 * number; break;
        case '|': missing += 2 * number + 1; break;
        default: return MODEL_BROKEN;
        }
    }
    *size = at;
    return at <= data.len ? MODEL_DONE : MODEL_MORE;
}

void model_bulk_add(struct bytes *out, struct span text)
{
    bytes_printf(out, "$%zu\r\n", text.len);
    bytes_add(out, text.data, text.len);
    bytes_add(out, "\r\n", 2);
}

void model_command_add(struct bytes *out, const struct span *arg, size_t argc)
{
    bytes_printf(out, "*%zu\r\n", argc);
    for (size_t i = 0; i < argc; i++) {
        model_bulk_add(out, arg[i]);
    }
}

void model_null_add(struct bytes *out, int resp)
{
    bytes_add_text(out, resp == 3 ? "_\r\n" : "$-1\r\n");
}

void model_null_array_add(struct bytes *out, int resp)
{
    bytes_add_text(out, resp == 3 ? "_\r\n" : "*-1\r\n");
}

void model_map_add(struct bytes *out, int resp, unsigned pairs)
{
    if (resp == 3) {
        bytes_printf(out, "%%%u\r\n", pairs);
    } else {
        bytes_printf(out, "*%u\r\n", pairs * 2);
    }
}

bool model_arg_is(const struct model_command *c, size_t i, const char *word)
{
    return i < c->argc && span_is_word(c->arg[i], word);
}

int64_t model_arg_number(const struct model_command *c,
                         size_t i,
                         int64_t fallback)
{
    if (i >= c->argc || c->arg[i].len == 0 || c->arg[i].len > 18) {
        return fallback;
    }
    const uint8_t *text = c->arg[i].data;
    size_t k = text[0] == '-' ? 1 : 0;
    int64_t value = 0;
    for (; k < c->arg[i].len; k++) {
        if (text[k] < '0' || text[k] > '9') {
            return fallback;
        }
        value = value * 10 + (text[k] - '0');
    }
    return text[0] == '-' ? -value : value;
}

uint64_t model_seconds(struct span text)
{
    uint64_t us = 0;
    uint64_t unit = 0; /* of the last digit; 0: in front of the dot */
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] == '.' && unit == 0) {
            unit = 1000000;
        } else if (text.data[i] < '0' || text.data[i] > '9') {
            return 0;
        } else if (unit == 0) {
            us = us * 10 + (uint64_t)(text.data[i] - '0') * 1000000;
        } else {
            unit /= 10;
            us += (uint64_t)(text.data[i] - '0') * unit;
            unit += unit == 0; /* digits beyond: as if they were 0 */
        }
    }
    return us;
}

size_t model_parts(struct span reply, struct span *part, size_t max)
{
    size_t at = 0;
    uint8_t type;
    int64_t n;
    if (head_read(reply, &at, &type, &n) != MODEL_DONE || n < 1 ||
        (size_t)n > max || (type != '*' && type != '>')) {
        return 0;
    }
    for (int64_t i = 0; i < n; i++) {
        size_t begin = at + 1;
        int64_t size;
        if (at >= reply.len ||
            head_read(reply, &at, &type, &size) != MODEL_DONE) {
            return 0;
        }
        part[i] = (struct span){ reply.data + begin, at - 2 - begin };
        if (type == '_' || (type == '$' && size < 0)) {
            part[i] = (struct span){ 0 };
        } else if (type == '$') {
            part[i] = (struct span){ reply.data + at, (size_t)size };
            at += (size_t)size + 2;
        } else if (type != ':' && type != '+') {
            return 0;
        }
    }
    return (size_t)n;
}
