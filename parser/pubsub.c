#include "parser/pubsub.h"

/* Bytes that are still to be looked at. */
struct cursor {
    const uint8_t *at;
    const uint8_t *end;
};

static bool take(struct cursor *c, char expected)
{
    if (c->at == c->end || *c->at != (uint8_t)expected) {
        return false;
    }
    c->at++;
    return true;
}

static bool take_line_end(struct cursor *c)
{
    return take(c, '\r') && take(c, '\n');
}

/* A number without a sign and the end of its line. */
static bool take_number(struct cursor *c, uint64_t *number)
{
    const uint8_t *first = c->at;
    *number = 0;
    while (c->at < c->end && *c->at >= '0' && *c->at <= '9' &&
           c->at - first < 18) {
        *number = *number * 10 + (uint64_t)(*c->at++ - '0');
    }
    return c->at > first && take_line_end(c);
}

static bool take_bulk(struct cursor *c, struct span *out)
{
    uint64_t len = 0;
    if (!take(c, '$') || !take_number(c, &len) ||
        len > (uint64_t)(c->end - c->at)) {
        return false;
    }
    *out = (struct span){ c->at, (size_t)len };
    c->at += len;
    return take_line_end(c);
}

/* Where an array, or a push, of so many elements begins. */
static bool take_array(struct cursor *c, uint64_t *n)
{
    return (take(c, '*') || take(c, '>')) && take_number(c, n);
}

struct pubsub_word pubsub_look(struct span head)
{
    static const struct {
        const char *word;
        uint8_t elements;
        uint8_t type; /* enum pubsub_type */
        uint8_t kind; /* enum subscription_kind */
    } words[] = {
        { "message", 3, PUBSUB_MESSAGE, SUBSCRIPTION_CHANNEL },
        { "pmessage", 4, PUBSUB_MESSAGE, SUBSCRIPTION_PATTERN },
        { "smessage", 3, PUBSUB_MESSAGE, SUBSCRIPTION_SHARD },
        { "subscribe", 3, PUBSUB_SUBSCRIBED, SUBSCRIPTION_CHANNEL },
        { "psubscribe", 3, PUBSUB_SUBSCRIBED, SUBSCRIPTION_PATTERN },
        { "ssubscribe", 3, PUBSUB_SUBSCRIBED, SUBSCRIPTION_SHARD },
        { "unsubscribe", 3, PUBSUB_UNSUBSCRIBED, SUBSCRIPTION_CHANNEL },
        { "punsubscribe", 3, PUBSUB_UNSUBSCRIBED, SUBSCRIPTION_PATTERN },
        { "sunsubscribe", 3, PUBSUB_UNSUBSCRIBED, SUBSCRIPTION_SHARD },
    };
    struct pubsub_word other = { PUBSUB_OTHER, SUBSCRIPTION_CHANNEL };
    struct cursor c = { head.data, head.data + head.len };
    struct span first = { 0 };
    uint64_t n = 0;
    if (head.len == 0 || !take_array(&c, &n) || !take_bulk(&c, &first)) {
        return other;
    }
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (n == words[i].elements &&
            span_equal(first, span_of(words[i].word))) {
            return (
                struct pubsub_word){ (enum pubsub_type)words[i].type,
                                     (enum subscription_kind)words[i].kind };
        }
    }
    return other;
}

/* RESP2 "$-1", RESP3 "_". */
static bool take_nil(struct cursor *c)
{
    if (take(c, '_')) {
        return take_line_end(c);
    }
    return c->end - c->at >= 5 && take(c, '$') && take(c, '-') &&
           take(c, '1') && take_line_end(c);
}

bool pubsub_confirmation_parse(struct span whole,
                               struct pubsub_confirmation *out)
{
    struct cursor c = { whole.data, whole.data + whole.len };
    struct span word;
    uint64_t n = 0;
    *out = (struct pubsub_confirmation){ 0 };
    if (whole.len == 0 || !take_array(&c, &n) || n != 3 ||
        !take_bulk(&c, &word)) {
        return false;
    }
    struct cursor before = c;
    if (!take_bulk(&c, &out->name)) {
        c = before;
        out->name = (struct span){ NULL, 0 };
        if (!take_nil(&c)) {
            return false;
        }
    }
    return take(&c, ':') && take_number(&c, &out->count) && c.at == c.end;
}

static bool take_digits(struct cursor *c)
{
    const uint8_t *first = c->at;
    while (c->at < c->end && *c->at >= '0' && *c->at <= '9') {
        c->at++;
    }
    return c->at > first;
}

bool pubsub_is_monitor_line(struct span head)
{
    struct cursor c = { head.data, head.data + head.len };
    return head.len > 0 && take(&c, '+') && take_digits(&c) && take(&c, '.') &&
           take_digits(&c) && take(&c, ' ') && take(&c, '[');
}
