#include "parser/redis_error.h"

#include <assert.h>

#include "parser/keyslot.h"
#include "parser/number.h"

/* First words that name a kind by themselves. */
static const char *const words[REDIS_ERROR_COUNT] = {
    [REDIS_ERROR_LOADING] = "LOADING",
    [REDIS_ERROR_READONLY] = "READONLY",
    [REDIS_ERROR_MASTERDOWN] = "MASTERDOWN",
    [REDIS_ERROR_MISCONF] = "MISCONF",
    [REDIS_ERROR_NOREPLICAS] = "NOREPLICAS",
    [REDIS_ERROR_BUSY] = "BUSY",
    [REDIS_ERROR_CLUSTERDOWN] = "CLUSTERDOWN",
    [REDIS_ERROR_TRYAGAIN] = "TRYAGAIN",
    [REDIS_ERROR_MOVED] = "MOVED",
    [REDIS_ERROR_ASK] = "ASK",
    [REDIS_ERROR_UNBLOCKED] = "UNBLOCKED",
    [REDIS_ERROR_NOSCRIPT] = "NOSCRIPT",
    [REDIS_ERROR_EXECABORT] = "EXECABORT",
    [REDIS_ERROR_NOAUTH] = "NOAUTH",
    [REDIS_ERROR_NOPERM] = "NOPERM",
    [REDIS_ERROR_WRONGPASS] = "WRONGPASS",
    [REDIS_ERROR_NOPROTO] = "NOPROTO",
    [REDIS_ERROR_OOM] = "OOM",
};

/* What the two kinds are called that begin with "ERR". */
static const char max_clients[] = "max number of clients reached";
static const char unknown_command[] = "unknown command";
/* What makes an UNBLOCKED a proof. */
static const char state_changed[] = "instance state changed";

/* What servers say behind the words that scripts use for their own ends. */
static const char loading[] = " is loading the dataset in memory";
static const char busy[] = " is busy running a ";
static const char no_script[] = "No matching script";

/* Take the text up to the next space, and that space. */
static struct span take_word(struct span *text)
{
    const uint8_t *space =
        text->len == 0 ? NULL : memchr(text->data, ' ', text->len);
    struct span word = *text;

    if (space == NULL) {
        *text = (struct span){ 0 };
        return word;
    }
    word.len = (size_t)(space - text->data);
    text->data += word.len + 1;
    text->len -= word.len + 1;
    return word;
}

static bool begins_with(struct span text, const char *prefix)
{
    size_t len = strlen(prefix);

    assert(len > 0);
    return text.len >= len && memcmp(text.data, prefix, len) == 0;
}

static bool contains(struct span text, const char *part)
{
    size_t len = strlen(part);

    for (size_t i = 0; i + len <= text.len; i++) {
        if (memcmp(text.data + i, part, len) == 0) {
            return true;
        }
    }
    return false;
}

/* The text of an error reply, without its framing. */
static struct span error_text(struct span reply)
{
    const uint8_t *begin = reply.data + 1;
    const uint8_t *end = reply.data + reply.len;

    if (reply.len < 3 || end[-2] != '\r' || end[-1] != '\n') {
        return (struct span){ 0 };
    }
    if (*reply.data == '!') {
        begin = memchr(begin, '\n', (size_t)(end - begin));
        begin++; /* there is one: the reply ends with it */
    } else if (*reply.data != '-') {
        return (struct span){ 0 };
    }
    if (end - begin < 2) {
        return (struct span){ 0 };
    }
    return (struct span){ .data = begin, .len = (size_t)(end - begin) - 2 };
}

/* Split "host:port" at its last colon; an IPv6 host may have brackets. */
static bool read_address(struct span text, struct redis_error *e)
{
    size_t colon = text.len;
    int64_t port = 0;

    while (colon > 0 && text.data[colon - 1] != ':') {
        colon--;
    }
    if (colon == 0) {
        return false;
    }
    struct span digits = { .data = text.data + colon, .len = text.len - colon };
    struct span host = { .data = text.data, .len = colon - 1 };
    if (!number_parse(digits, &port) || port < 1 || port > UINT16_MAX) {
        return false;
    }
    if (host.len >= 2 && host.data[0] == '[' &&
        host.data[host.len - 1] == ']') {
        host.data++;
        host.len -= 2;
    }
    e->host = host;
    e->port = (uint16_t)port;
    return true;
}

/* "slot host:port" behind MOVED or ASK. */
static bool read_redirection(struct span text, struct redis_error *e)
{
    int64_t slot = 0;

    if (!number_parse(take_word(&text), &slot) || slot < 0 ||
        slot >= KEYSLOT_COUNT) {
        return false;
    }
    e->slot = (uint16_t)slot;
    return read_address(take_word(&text), e);
}

static bool is_of_the_server(enum redis_error_kind kind, struct span text)
{
    return (kind == REDIS_ERROR_LOADING && contains(text, loading)) ||
           (kind == REDIS_ERROR_BUSY && contains(text, busy)) ||
           (kind == REDIS_ERROR_NOSCRIPT && begins_with(text, no_script));
}

struct redis_error redis_error_parse(struct span reply)
{
    const struct redis_error other = { .kind = REDIS_ERROR_OTHER };
    struct redis_error e = other;
    struct span text = error_text(reply);
    struct span word = take_word(&text);

    if (begins_with(word, "ERR") && word.len == 3) {
        e.kind = begins_with(text, max_clients) ? REDIS_ERROR_MAXCLIENTS
                 : begins_with(text, unknown_command)
                     ? REDIS_ERROR_UNKNOWN_COMMAND
                     : REDIS_ERROR_OTHER;
        return e;
    }
    for (int kind = 0; kind < REDIS_ERROR_COUNT; kind++) {
        if (words[kind] != NULL && span_equal(word, span_of(words[kind]))) {
            e.kind = (enum redis_error_kind)kind;
        }
    }
    e.own_words = is_of_the_server(e.kind, text);
    if (e.kind == REDIS_ERROR_UNBLOCKED && !contains(text, state_changed)) {
        return other;
    }
    if ((e.kind == REDIS_ERROR_MOVED || e.kind == REDIS_ERROR_ASK) &&
        !read_redirection(text, &e)) {
        return other;
    }
    return e;
}

const char *redis_error_name(enum redis_error_kind kind)
{
    assert((unsigned)kind < REDIS_ERROR_COUNT);
    switch (kind) {
    case REDIS_ERROR_MAXCLIENTS: return "MAXCLIENTS";
    case REDIS_ERROR_UNKNOWN_COMMAND: return "UNKNOWN_COMMAND";
    default: return words[kind] != NULL ? words[kind] : "ERR";
    }
}

bool redis_error_not_applied(enum redis_error_kind kind)
{
    assert((unsigned)kind < REDIS_ERROR_COUNT);
    return kind != REDIS_ERROR_OTHER;
}
