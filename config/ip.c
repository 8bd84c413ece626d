#include "config/ip.h"

#include <stdio.h>
#include <string.h>

enum {
    V4_BYTES = 4,
    GROUPS = 8,
    GROUP_DIGITS_MAX = 4
};

static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

static bool parse_v4(const char *text, size_t len, uint8_t out[V4_BYTES])
{
    size_t at = 0;
    for (size_t i = 0; i < V4_BYTES; i++) {
        unsigned value = 0;
        size_t start = at;
        for (; at < len && text[at] >= '0' && text[at] <= '9'; at++) {
            /* 010 is eight to some readers and ten to others. */
            if (at - start == 3 || (at > start && text[start] == '0')) {
                return false;
            }
            value = value * 10 + (unsigned)(text[at] - '0');
        }
        bool last = i == V4_BYTES - 1;
        if (at == start || value > UINT8_MAX || (at == len) != last ||
            (!last && text[at] != '.')) {
            return false;
        }
        out[i] = (uint8_t)value;
        at++;
    }
    return true;
}

/* What was read of an IPv6 address. */
struct groups {
    uint8_t bytes[IP_BYTES];
    size_t n; /* bytes */
    bool has_gap;
    size_t gap; /* where "::" stands */
};

static int hex_value(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *at = NULL;
    if (c >= 'A' && c <= 'F') {
        c = (char)(c - 'A' + 'a');
    }
    at = c != '\0' ? strchr(digits, c) : NULL;
    return at != NULL ? (int)(at - digits) : -1;
}

static bool take_group(struct groups *g, const char *text, size_t len)
{
    unsigned value = 0;
    if (len == 0 || len > GROUP_DIGITS_MAX || g->n + 2 > IP_BYTES) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        int digit = hex_value(text[i]);
        if (digit < 0) {
            return false;
        }
        value = value * 16 + (unsigned)digit;
    }
    g->bytes[g->n++] = (uint8_t)(value >> 8);
    g->bytes[g->n++] = (uint8_t)value;
    return true;
}

/* An IPv4 address may stand for the last two groups. */
static bool take_v4(struct groups *g, const char *text, size_t len)
{
    if (g->n + V4_BYTES > IP_BYTES || !parse_v4(text, len, g->bytes + g->n)) {
        return false;
    }
    g->n += V4_BYTES;
    return true;
}

static bool take_groups(struct groups *g, const char *text, size_t len)
{
    size_t at = 0;
    if (len >= 2 && text[0] == ':' && text[1] == ':') {
        g->has_gap = true;
        at = 2;
    }
    while (at < len) {
        const char *colon = memchr(text + at, ':', len - at);
        size_t end = colon != NULL ? (size_t)(colon - text) : len;
        if (memchr(text + at, '.', end - at) != NULL) {
            return end == len && take_v4(g, text + at, end - at);
        }
        if (!take_group(g, text + at, end - at)) {
            return false;
        }
        at = end + 1;
        if (end < len && at < len && text[at] == ':') {
            if (g->has_gap) {
                return false;
            }
            g->has_gap = true;
            g->gap = g->n;
            at++;
        } else if (end < len && at == len) {
            return false; /* one colon at the end */
        }
    }
    return true;
}

static bool parse_v6(const char *text, size_t len, uint8_t ip[IP_BYTES])
{
    struct groups g = { 0 };
    /* "::" stands for at least one group. */
    if (!take_groups(&g, text, len) || (g.n < IP_BYTES) != g.has_gap) {
        return false;
    }
    if (!g.has_gap) {
        memcpy(ip, g.bytes, IP_BYTES);
        return true;
    }
    size_t behind = g.n - g.gap;
    memset(ip, 0, IP_BYTES);
    memcpy(ip, g.bytes, g.gap);
    memcpy(ip + IP_BYTES - behind, g.bytes + g.gap, behind);
    return true;
}

bool ip_parse(const char *text, size_t len, uint8_t ip[IP_BYTES])
{
    uint8_t read[IP_BYTES];
    if (memchr(text, ':', len) != NULL) {
        if (!parse_v6(text, len, read)) {
            return false;
        }
    } else {
        memcpy(read, mapped, sizeof(mapped));
        if (!parse_v4(text, len, read + sizeof(mapped))) {
            return false;
        }
    }
    memcpy(ip, read, IP_BYTES);
    return true;
}

bool ip_is_v4(const uint8_t ip[IP_BYTES])
{
    return memcmp(ip, mapped, sizeof(mapped)) == 0;
}

bool ip_ends_after(const uint8_t ip[IP_BYTES], unsigned bits)
{
    for (unsigned bit = bits; bit < IP_BITS; bit++) {
        if ((ip[bit / 8] & (0x80u >> bit % 8)) != 0) {
            return false;
        }
    }
    return true;
}

static unsigned group_of(const uint8_t ip[IP_BYTES], size_t i)
{
    return (unsigned)ip[2 * i] << 8 | ip[2 * i + 1];
}

/* The first of the longest runs of zeros; one zero alone is no run. */
static size_t longest_run(const uint8_t ip[IP_BYTES], size_t *length)
{
    size_t best = GROUPS;
    *length = 1;
    for (size_t i = 0; i < GROUPS; i++) {
        size_t end = i;
        while (end < GROUPS && group_of(ip, end) == 0) {
            end++;
        }
        if (end - i > *length) {
            best = i;
            *length = end - i;
        }
    }
    return best;
}

void ip_format(const uint8_t ip[IP_BYTES], char text[IP_TEXT_MAX])
{
    if (ip_is_v4(ip)) {
        (void)snprintf(text, IP_TEXT_MAX, "%u.%u.%u.%u", ip[12], ip[13], ip[14],
                       ip[15]);
        return;
    }
    size_t length = 0;
    size_t run = longest_run(ip, &length);
    size_t used = 0;
    for (size_t i = 0; i < GROUPS;) {
        int n = 0;
        if (i == run) {
            n = snprintf(text + used, IP_TEXT_MAX - used, "::");
            i += length;
        } else {
            bool glue = i > 0 && text[used - 1] != ':';
            n = snprintf(text + used, IP_TEXT_MAX - used, "%s%x",
                         glue ? ":" : "", group_of(ip, i));
            i++;
        }
        used += (size_t)n;
    }
}
