#include "parser/reply.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

#include <hiredis/hiredis.h>

#include "parser/number.h"
#include "parser/resp.h"

/* struct reply is hiredis' own node under a name that keeps hiredis out of
 * our headers. */
static const redisReply *node(const struct reply *r)
{
    return (const redisReply *)(const void *)r;
}

/* ---- RESP3 written as RESP2 ---- */

/* One value of a message that resp_scan() has found to be well formed. */
struct token {
    uint8_t type;
    bool null;        /* "$-1" and "*-1" */
    uint64_t number;  /* members of an aggregate */
    struct span text; /* of a line or blob */
};

static bool is_blob(uint8_t type)
{
    return type == '$' || type == '!' || type == '=';
}

static bool is_aggregate(uint8_t type)
{
    return type == '*' || type == '%' || type == '~' || type == '>' ||
           type == '|';
}

/* Take the next value, or the head of an aggregate, at *p. */
static struct token token_take(const uint8_t **p, const uint8_t *end)
{
    struct token t = { .type = **p };
    const uint8_t *line = *p + 1;
    const uint8_t *cr = memchr(line, '\r', (size_t)(end - line));

    assert(cr != NULL && end - cr >= 2);
    t.text = (struct span){ .data = line, .len = (size_t)(cr - line) };
    *p = cr + 2;
    if (!is_blob(t.type) && !is_aggregate(t.type)) {
        return t;
    }
    int64_t number = 0;
    bool valid = number_parse(t.text, &number);
    assert(valid);
    (void)valid;
    t.null = number < 0;
    t.number = t.null ? 0 : (uint64_t)number;
    if (t.type == '%' || t.type == '|') {
        t.number *= 2;
    }
    if (is_blob(t.type) && !t.null) {
        t.text = (struct span){ .data = *p, .len = (size_t)t.number };
        *p += t.number + 2;
    }
    return t;
}

/* Pass that many values with all that is in them. */
static void values_skip(const uint8_t **p, const uint8_t *end, uint64_t count)
{
    while (count > 0) {
        struct token t = token_take(p, end);
        count += is_aggregate(t.type) ? t.number : 0;
        count -= t.type == '|' ? 0 : 1;
    }
}

/* out is NULL while only the length is wanted. */
struct writer {
    uint8_t *out;
    size_t len;
};

static void write_bytes(struct writer *w, const void *bytes, size_t len)
{
    if (w->out != NULL && len > 0) {
        memcpy(w->out + w->len, bytes, len);
    }
    w->len += len;
}

static void write_head(struct writer *w, char type, uint64_t number)
{
    char head[32];
    int len = snprintf(head, sizeof head, "%c%llu\r\n", type,
                       (unsigned long long)number);

    assert(len > 0 && (size_t)len < sizeof head);
    write_bytes(w, head, (size_t)len);
}

static void write_line(struct writer *w, char type, struct span text)
{
    write_bytes(w, &type, 1);
    for (size_t i = 0; i < text.len; i++) {
        bool breaks = text.data[i] == '\r' || text.data[i] == '\n';
        write_bytes(w, breaks ? (const uint8_t *)" " : text.data + i, 1);
    }
    write_bytes(w, "\r\n", 2);
}

static void write_blob(struct writer *w, struct span text)
{
    write_head(w, '$', text.len);
    write_bytes(w, text.data, text.len);
    write_bytes(w, "\r\n", 2);
}

static void write_token(struct writer *w, const struct token *t)
{
    const size_t prefix = 4; /* "txt:" */
    struct span text = t->text;

    if (t->null || t->type == '_') {
        write_bytes(w, t->type == '*' ? "*-1\r\n" : "$-1\r\n", 5);
        return;
    }
    switch (t->type) {
    case '+':
    case '-':
    case ':': write_line(w, (char)t->type, text); break;
    case '!': write_line(w, '-', text); break;
    case '#':
        write_bytes(w, text.len == 1 && *text.data == 't' ? ":1\r\n" : ":0\r\n",
                    4);
        break;
    case '=':
        if (text.len >= prefix) {
            text.data += prefix;
            text.len -= prefix;
        }
        write_blob(w, text);
        break;
    case '$':
    case ',':
    case '(': write_blob(w, text); break;
    default: write_head(w, '*', t->number); break;
    }
}

/* Write a whole message as RESP2, without its attributes. Returns false when
 * it is nested too deeply. */
static bool write_resp2(struct writer *w, struct span data)
{
    uint64_t missing[REPLY_DEPTH_MAX + 1] = { 1 }; /* values, per level */
    size_t depth = 0;
    const uint8_t *p = data.data;
    const uint8_t *end = p + data.len;

    while (p < end) {
        struct token t = token_take(&p, end);
        if (t.type == '|') {
            values_skip(&p, end, t.number);
            continue;
        }
        write_token(w, &t);
        missing[depth]--;
        if (is_aggregate(t.type) && !t.null) {
            if (depth == REPLY_DEPTH_MAX) {
                return false;
            }
            missing[++depth] = t.number;
        }
        while (depth > 0 && missing[depth] == 0) {
            depth--;
        }
    }
    return true;
}

/* Whether data is exactly one message within the limits. */
static bool is_message(struct span data)
{
    const struct resp_limits limits = { .bulk_max = REPLY_BYTES_MAX,
                                        .elements_max = REPLY_ELEMENTS_MAX };
    struct resp_scanner s;
    size_t used = 0;

    resp_scanner_init(&s);
    return data.len <= REPLY_BYTES_MAX &&
           resp_scan(&s, &limits, data.data, data.len, &used) == SCAN_DONE &&
           used == data.len;
}

static redisReply *read_resp2(const uint8_t *data, size_t len)
{
    redisReader *reader = redisReaderCreate();
    void *tree = NULL;

    if (reader == NULL) {
        return NULL;
    }
    if (redisReaderFeed(reader, (const char *)data, len) != REDIS_OK ||
        redisReaderGetReply(reader, &tree) != REDIS_OK) {
        tree = NULL;
    }
    redisReaderFree(reader);
    return tree;
}

struct reply *reply_parse(struct span data)
{
    struct writer w = { 0 };

    if (!is_message(data) || !write_resp2(&w, data)) {
        return NULL;
    }
    assert(w.len > 0);
    w.out = malloc(w.len);
    if (w.out == NULL) {
        return NULL;
    }
    w.len = 0;
    bool written = write_resp2(&w, data);
    assert(written);
    (void)written;
    redisReply *tree = read_resp2(w.out, w.len);
    free(w.out);
    return (struct reply *)(void *)tree;
}

void reply_free(struct reply *r)
{
    if (r != NULL) {
        freeReplyObject(r);
    }
}

enum reply_type reply_type(const struct reply *r)
{
    switch (node(r)->type) {
    case REDIS_REPLY_STRING:
    case REDIS_REPLY_STATUS: return REPLY_STRING;
    case REDIS_REPLY_ERROR: return REPLY_ERROR;
    case REDIS_REPLY_INTEGER: return REPLY_INTEGER;
    case REDIS_REPLY_ARRAY: return REPLY_ARRAY;
    default: return REPLY_NIL;
    }
}

struct span reply_text(const struct reply *r)
{
    enum reply_type type = reply_type(r);

    if (type != REPLY_STRING && type != REPLY_ERROR) {
        return (struct span){ 0 };
    }
    return (struct span){ .data = (const uint8_t *)node(r)->str,
                          .len = (size_t)node(r)->len };
}

int64_t reply_integer(const struct reply *r)
{
    return reply_type(r) == REPLY_INTEGER ? node(r)->integer : 0;
}

size_t reply_count(const struct reply *r)
{
    return reply_type(r) == REPLY_ARRAY ? (size_t)node(r)->elements : 0;
}

const struct reply *reply_at(const struct reply *r, size_t i)
{
    if (i >= reply_count(r)) {
        return NULL;
    }
    return (const struct reply *)(const void *)node(r)->element[i];
}

const struct reply *reply_get(const struct reply *r, const char *key)
{
    for (size_t i = 0; i + 1 < reply_count(r); i += 2) {
        const struct reply *name = reply_at(r, i);
        if (name != NULL && span_equal(reply_text(name), span_of(key))) {
            return reply_at(r, i + 1);
        }
    }
    return NULL;
}
