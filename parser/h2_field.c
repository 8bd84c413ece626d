#include "parser/h2_field.h"

#include <string.h>

#define TEXT(words)                                         \
    {                                                       \
        (const uint8_t *)(words), sizeof(words) - (size_t)1 \
    }

static const struct span names[] = {
    [H2_METHOD] = TEXT(":method"),
    [H2_SCHEME] = TEXT(":scheme"),
    [H2_PATH] = TEXT(":path"),
    [H2_AUTHORITY] = TEXT(":authority"),
    [H2_STATUS] = TEXT(":status"),
    [H2_TE] = TEXT("te"),
    [H2_HOST] = TEXT("host"),
    [H2_CONTENT_TYPE] = TEXT("content-type"),
    [H2_CONTENT_LENGTH] = TEXT("content-length"),
    [H2_GRPC_TIMEOUT] = TEXT("grpc-timeout"),
    [H2_GRPC_STATUS] = TEXT("grpc-status"),
    [H2_GRPC_MESSAGE] = TEXT("grpc-message"),
    [H2_GRPC_PUSHBACK] = TEXT("grpc-retry-pushback-ms"),
    [H2_GRPC_ATTEMPTS] = TEXT("grpc-previous-rpc-attempts"),
};

struct span h2_name_text(uint8_t id)
{
    return names[id];
}

static bool is(struct span name, const char *text)
{
    return memcmp(name.data, text, name.len) == 0;
}

static uint8_t of_pseudo(struct span name)
{
    switch (name.len) {
    case 5: return is(name, ":path") ? H2_PATH : H2_PSEUDO_UNKNOWN;
    case 7:
        return is(name, ":method")   ? H2_METHOD
               : is(name, ":scheme") ? H2_SCHEME
               : is(name, ":status") ? H2_STATUS
                                     : H2_PSEUDO_UNKNOWN;
    case 10: return is(name, ":authority") ? H2_AUTHORITY : H2_PSEUDO_UNKNOWN;
    default: return H2_PSEUDO_UNKNOWN;
    }
}

static uint8_t of_twelve(struct span name)
{
    return is(name, "content-type")   ? H2_CONTENT_TYPE
           : is(name, "grpc-timeout") ? H2_GRPC_TIMEOUT
           : is(name, "grpc-message") ? H2_GRPC_MESSAGE
                                      : H2_OTHER;
}

static bool is_of_connection(struct span name)
{
    switch (name.len) {
    case 7: return is(name, "upgrade");
    case 10: return is(name, "connection") || is(name, "keep-alive");
    case 16: return is(name, "proxy-connection");
    case 17: return is(name, "transfer-encoding");
    default: return false;
    }
}

uint8_t h2_name_id(struct span name)
{
    if (name.len > 0 && name.data[0] == ':') {
        return of_pseudo(name);
    }
    switch (name.len) {
    case 2: return is(name, "te") ? H2_TE : H2_OTHER;
    case 4: return is(name, "host") ? H2_HOST : H2_OTHER;
    case 11: return is(name, "grpc-status") ? H2_GRPC_STATUS : H2_OTHER;
    case 12: return of_twelve(name);
    case 14: return is(name, "content-length") ? H2_CONTENT_LENGTH : H2_OTHER;
    case 22:
        return is(name, "grpc-retry-pushback-ms") ? H2_GRPC_PUSHBACK : H2_OTHER;
    case 26:
        return is(name, "grpc-previous-rpc-attempts") ? H2_GRPC_ATTEMPTS
                                                      : H2_OTHER;
    default: return is_of_connection(name) ? H2_FORBIDDEN : H2_OTHER;
    }
}

/* "tchar" of RFC 9110 §5.6.2, without upper case. */
static bool is_name_byte(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || c == '-' || (c >= '0' && c <= '9') ||
           c == '_' || c == '.' ||
           (c > ' ' && c < 0x7f && strchr("!#$%&'*+^`|~", c) != NULL);
}

enum h2_legality h2_name_legality(struct span name)
{
    enum h2_legality legality = name.len == 0 ? H2_ILLEGAL : H2_LEGAL;
    for (size_t i = 0; i < name.len; i++) {
        if (is_name_byte(name.data[i])) {
            continue;
        }
        if (name.data[i] >= 'A' && name.data[i] <= 'Z') {
            return H2_UPPER_CASE;
        }
        legality = H2_ILLEGAL;
    }
    return legality;
}

static bool is_value_byte(uint8_t c)
{
    return (c >= ' ' && c != 0x7f) || c == '\t';
}

/* Whether one of eight bytes is below ' ' or 0x7f. The usual trick: a byte
 * less than n is the one that borrows when n is taken away. May also say yes
 * to what comes after such a byte; never no to one. */
static bool has_control(uint64_t word)
{
    const uint64_t ones = UINT64_C(0x0101010101010101);
    const uint64_t highs = ones * 0x80;
    const uint64_t deletes = word ^ (ones * 0x7f);
    const uint64_t low = (word - ones * ' ') & ~word;
    const uint64_t zero = (deletes - ones) & ~deletes;
    return ((low | zero) & highs) != 0;
}

static bool is_legal_slowly(struct span value)
{
    for (size_t i = 0; i < value.len; i++) {
        if (!is_value_byte(value.data[i])) {
            return false;
        }
    }
    return true;
}

bool h2_value_is_legal(struct span value)
{
    uint64_t word = 0;
    if (value.len < sizeof word) {
        return is_legal_slowly(value);
    }
    /* The last eight bytes are looked at together, twice or not. */
    for (size_t i = 0; i + sizeof word < value.len; i += sizeof word) {
        memcpy(&word, value.data + i, sizeof word);
        if (has_control(word)) {
            return is_legal_slowly(value);
        }
    }
    memcpy(&word, value.data + value.len - sizeof word, sizeof word);
    return !has_control(word) || is_legal_slowly(value);
}

static bool is_blank(uint8_t c)
{
    return c == ' ' || c == '\t';
}

struct span h2_value_trim(struct span value)
{
    while (value.len > 0 && is_blank(value.data[value.len - 1])) {
        value.len--;
    }
    while (value.len > 0 && is_blank(value.data[0])) {
        value.data++;
        value.len--;
    }
    return value;
}

/* ---- the rules ---- */

#define BIT(id) (UINT32_C(1) << (id))

static const uint32_t pseudo_allowed[] = {
    [H2_REQUEST] =
        BIT(H2_METHOD) | BIT(H2_SCHEME) | BIT(H2_PATH) | BIT(H2_AUTHORITY),
    [H2_RESPONSE] = BIT(H2_STATUS),
    [H2_TRAILERS] = 0,
};
static const uint32_t required[] = {
    [H2_REQUEST] = BIT(H2_METHOD) | BIT(H2_SCHEME) | BIT(H2_PATH),
    [H2_RESPONSE] = BIT(H2_STATUS),
    [H2_TRAILERS] = 0,
};

/* 100 to 999, or 0 when it is no such number. */
static uint16_t status_of(struct span value)
{
    unsigned n = 0;
    if (value.len != 3 || value.data[0] == '0') {
        return 0;
    }
    for (size_t i = 0; i < 3; i++) {
        const unsigned digit = value.data[i] - (unsigned)'0';
        if (digit > 9) {
            return 0;
        }
        n = n * 10 + digit;
    }
    return (uint16_t)n;
}

/* Below INT64_MAX, or -1. */
static int64_t length_of(struct span value)
{
    int64_t n = 0;
    for (size_t i = 0; i < value.len; i++) {
        const unsigned digit = value.data[i] - (unsigned)'0';
        if (digit > 9 || n >= INT64_MAX / 10) {
            return -1;
        }
        n = n * 10 + (int64_t)digit;
    }
    return value.len == 0 ? -1 : n;
}

static bool is_trailers(struct span value)
{
    return span_is_word(value, "TRAILERS");
}

static void take_pseudo(struct h2_rules *r,
                        uint8_t id,
                        struct span value,
                        bool value_ok)
{
    if (id == H2_PSEUDO_UNKNOWN) {
        r->broken = true;
        return;
    }
    if (r->regular || !value_ok || (r->seen & BIT(id)) != 0 ||
        (pseudo_allowed[r->kind] & BIT(id)) == 0) {
        r->broken = true;
    }
    r->seen |= BIT(id);
    if (id == H2_STATUS) {
        r->status = status_of(value);
        r->broken |= r->status == 0;
    }
}

static void take_length(struct h2_rules *r, struct span value)
{
    if (r->kind == H2_TRAILERS) {
        return; /* says nothing about this message */
    }
    const int64_t length = length_of(value);
    if (length < 0 || r->length != 0) {
        r->broken = true;
        return;
    }
    r->length = length + 1;
}

void h2_rules_field(struct h2_rules *r,
                    uint8_t id,
                    struct span value,
                    bool value_ok)
{
    switch (id) {
    case H2_METHOD:
    case H2_SCHEME:
    case H2_PATH:
    case H2_AUTHORITY:
    case H2_STATUS:
    case H2_PSEUDO_UNKNOWN: take_pseudo(r, id, value, value_ok); return;
    case H2_FORBIDDEN: r->broken = true; break;
    case H2_TE: r->broken |= !is_trailers(value); break;
    case H2_CONTENT_LENGTH: take_length(r, value); break;
    default: break;
    }
    r->regular = true;
}

bool h2_rules_end(const struct h2_rules *r, bool end)
{
    if (r->broken || (r->seen & required[r->kind]) != required[r->kind]) {
        return false;
    }
    if (r->kind == H2_TRAILERS) {
        return end;
    }
    if (r->status >= 100 && r->status < 200) {
        return !end && r->status != 101; /* §8.1, §8.6 */
    }
    return !end || h2_rules_length(r) <= 0;
}

int64_t h2_rules_length(const struct h2_rules *r)
{
    /* These tell the length of what is not sent. */
    return r->status == 204 || r->status == 304 ? -1 : r->length - 1;
}
