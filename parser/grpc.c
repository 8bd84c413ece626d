#include "parser/grpc.h"

#include <assert.h>

/* Statuses */

static const char *const names[] = {
    [GRPC_OK] = "OK",
    [GRPC_CANCELLED] = "CANCELLED",
    [GRPC_UNKNOWN] = "UNKNOWN",
    [GRPC_INVALID_ARGUMENT] = "INVALID_ARGUMENT",
    [GRPC_DEADLINE_EXCEEDED] = "DEADLINE_EXCEEDED",
    [GRPC_NOT_FOUND] = "NOT_FOUND",
    [GRPC_ALREADY_EXISTS] = "ALREADY_EXISTS",
    [GRPC_PERMISSION_DENIED] = "PERMISSION_DENIED",
    [GRPC_RESOURCE_EXHAUSTED] = "RESOURCE_EXHAUSTED",
    [GRPC_FAILED_PRECONDITION] = "FAILED_PRECONDITION",
    [GRPC_ABORTED] = "ABORTED",
    [GRPC_OUT_OF_RANGE] = "OUT_OF_RANGE",
    [GRPC_UNIMPLEMENTED] = "UNIMPLEMENTED",
    [GRPC_INTERNAL] = "INTERNAL",
    [GRPC_UNAVAILABLE] = "UNAVAILABLE",
    [GRPC_DATA_LOSS] = "DATA_LOSS",
    [GRPC_UNAUTHENTICATED] = "UNAUTHENTICATED",
};

static_assert(sizeof names / sizeof *names == GRPC_STATUS_COUNT,
              "each status has a name");

const char *grpc_status_name(enum grpc_status s)
{
    assert(s < GRPC_STATUS_COUNT);
    return names[s];
}

bool grpc_status_find(struct span name, enum grpc_status *out)
{
    for (size_t i = 0; i < GRPC_STATUS_COUNT; i++) {
        if (span_is_word(name, names[i])) {
            *out = (enum grpc_status)i;
            return true;
        }
    }
    return false;
}

/* A number of at most so many digits, leading zeros included. Returns false
 * for anything else, also for no digit at all. */
static bool digits_parse(struct span text, size_t digits_max, uint64_t *number)
{
    uint64_t n = 0;

    if (text.len == 0 || text.len > digits_max) {
        return false;
    }
    for (size_t i = 0; i < text.len; i++) {
        unsigned digit = (unsigned)text.data[i] - '0';
        if (digit > 9) {
            return false;
        }
        n = n * 10 + digit;
    }
    *number = n;
    return true;
}

static bool has_leading_zero(struct span text)
{
    return text.len > 1 && text.data[0] == '0';
}

enum grpc_status grpc_status_parse(struct span value)
{
    uint64_t number = 0;

    if (has_leading_zero(value) || !digits_parse(value, 2, &number) ||
        number >= GRPC_STATUS_COUNT) {
        return GRPC_UNKNOWN;
    }
    return (enum grpc_status)number;
}

enum grpc_status grpc_status_of_http(unsigned http)
{
    switch (http) {
    case 400:
    case 431: return GRPC_INTERNAL;
    case 401: return GRPC_UNAUTHENTICATED;
    case 403: return GRPC_PERMISSION_DENIED;
    case 404: return GRPC_UNIMPLEMENTED;
    case 429:
    case 502:
    case 503:
    case 504: return GRPC_UNAVAILABLE;
    default: return GRPC_UNKNOWN;
    }
}

enum grpc_status grpc_status_of_reset(uint32_t code)
{
    /* Numbers of RFC 9113 §7. */
    switch (code) {
    case 0x7: return GRPC_UNAVAILABLE;        /* REFUSED_STREAM */
    case 0x8: return GRPC_CANCELLED;          /* CANCEL */
    case 0xb: return GRPC_RESOURCE_EXHAUSTED; /* ENHANCE_YOUR_CALM */
    case 0xc: return GRPC_PERMISSION_DENIED;  /* INADEQUATE_SECURITY */
    default: return GRPC_INTERNAL;
    }
}

/* Timeouts */

enum {
    TIMEOUT_DIGITS = 8,
    TIMEOUT_MAX = 99999999
};

/* From fine to coarse. Nanoseconds, finer than our clock, are only read. */
static const struct {
    uint8_t letter;
    uint64_t us;
} units[] = {
    { 'u', 1 },
    { 'm', UINT64_C(1000) },
    { 'S', UINT64_C(1000000) },
    { 'M', UINT64_C(60000000) },
    { 'H', UINT64_C(3600000000) },
};

enum {
    UNITS = sizeof units / sizeof *units
};

static uint64_t divided_up(uint64_t n, uint64_t by)
{
    return n / by + (n % by != 0);
}

bool grpc_timeout_parse(struct span value, uint64_t *us)
{
    uint64_t number = 0;
    struct span digits = value;

    if (value.len == 0) {
        return false;
    }
    digits.len--;
    if (!digits_parse(digits, TIMEOUT_DIGITS, &number)) {
        return false;
    }
    uint8_t letter = value.data[digits.len];
    if (letter == 'n') {
        *us = divided_up(number, 1000);
        return true;
    }
    for (size_t i = 0; i < UNITS; i++) {
        if (letter == units[i].letter) {
            *us = number * units[i].us; /* 99999999H is below 2^59 */
            return true;
        }
    }
    return false;
}

size_t grpc_timeout_format(uint64_t us, char text[GRPC_TIMEOUT_TEXT])
{
    size_t unit = 0;
    char digits[TIMEOUT_DIGITS];
    size_t n = 0;

    assert(us > 0);
    while (unit < UNITS - 1 && divided_up(us, units[unit].us) > TIMEOUT_MAX) {
        unit++;
    }
    uint64_t number = divided_up(us, units[unit].us);
    if (number > TIMEOUT_MAX) {
        number = TIMEOUT_MAX; /* eleven thousand years will do */
    }
    for (; number > 0; number /= 10) {
        digits[n++] = (char)('0' + number % 10);
    }
    for (size_t i = 0; i < n; i++) {
        text[i] = digits[n - 1 - i];
    }
    text[n] = (char)units[unit].letter;
    return n + 1;
}

/* What retries are told */

enum grpc_pushback grpc_pushback_parse(struct span value, uint32_t *ms)
{
    uint64_t number = 0;

    if (value.data == NULL) {
        return GRPC_PUSHBACK_NONE;
    }
    /* Negative numbers and nonsense say the same. */
    if (has_leading_zero(value) || !digits_parse(value, 10, &number) ||
        number > INT32_MAX) {
        return GRPC_PUSHBACK_NO;
    }
    *ms = (uint32_t)number;
    return GRPC_PUSHBACK_MS;
}

uint32_t grpc_attempts_parse(struct span value)
{
    uint64_t number = 0;

    return digits_parse(value, 9, &number) ? (uint32_t)number : 0;
}

/* What is valid */

bool grpc_path_is_valid(struct span path)
{
    size_t last = path.len;

    if (path.len < 2 || path.data[0] != '/' || path.data[1] == '/') {
        return false;
    }
    do {
        last--;
    } while (path.data[last] != '/');
    return last > 1 && last + 1 < path.len;
}

bool grpc_content_type_is_valid(struct span value)
{
    static const char type[] = "application/grpc";
    const size_t len = sizeof type - 1;

    if (value.len < len || memcmp(value.data, type, len) != 0) {
        return false;
    }
    return value.len == len || value.data[len] == '+' || value.data[len] == ';';
}

/* Messages of a status */

static bool is_plain(uint8_t c)
{
    return c >= 0x20 && c <= 0x7e && c != '%';
}

static bool is_utf8_continuation(uint8_t c)
{
    return (c & 0xc0) == 0x80;
}

size_t grpc_message_encode(const char *text, char *out, size_t size)
{
    static const char hex[] = "0123456789ABCDEF";
    const uint8_t *p = (const uint8_t *)text;
    size_t n = 0;
    size_t whole = 0; /* where the last character that fits wholly ends */

    for (; *p != '\0'; p++) {
        if (!is_utf8_continuation(*p)) {
            whole = n;
        }
        if (is_plain(*p)) {
            if (n == size) {
                return whole;
            }
            out[n++] = (char)*p;
            continue;
        }
        if (size - n < 3) {
            return whole;
        }
        out[n++] = '%';
        out[n++] = hex[*p >> 4];
        out[n++] = hex[*p & 15];
    }
    return n;
}

/* Messages of a stream */

static uint32_t one_more(uint32_t n)
{
    return n == UINT32_MAX ? n : n + 1;
}

/* The length that a whole prefix tells. */
static uint32_t prefix_length(const uint8_t prefix[5])
{
    return (uint32_t)prefix[1] << 24 | (uint32_t)prefix[2] << 16 |
           (uint32_t)prefix[3] << 8 | prefix[4];
}

bool grpc_messages_scan(struct grpc_messages *m,
                        struct span bytes,
                        uint64_t max,
                        uint64_t *size)
{
    size_t i = 0;

    while (i < bytes.len) {
        if (m->left > 0) {
            uint64_t n = bytes.len - i < m->left ? bytes.len - i : m->left;
            i += (size_t)n;
            m->left -= n;
            if (m->left == 0) {
                m->whole = one_more(m->whole);
            }
            continue;
        }
        m->prefix[m->n_prefix++] = bytes.data[i++];
        if (m->n_prefix < sizeof m->prefix) {
            continue;
        }
        m->n_prefix = 0;
        m->count = one_more(m->count);
        m->left = prefix_length(m->prefix);
        if (m->left > max) {
            *size = m->left;
            return false;
        }
        if (m->left == 0) {
            m->whole = one_more(m->whole);
        }
    }
    return true;
}
