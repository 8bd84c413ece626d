#include "config/address.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* sizeof(sockaddr_un.sun_path) - 1 on Linux */
enum {
    UNIX_PATH_MAX_BYTES = 107
};

static const char example[] =
    "write host:port, [v6]:port or unix:/path, such as 127.0.0.1:6379";

static bool is_name_char(char c)
{
    return isalnum((unsigned char)c) || c == '-' || c == '.' || c == '_';
}

static bool is_v6_char(char c)
{
    return isxdigit((unsigned char)c) || c == ':' || c == '.';
}

/* "fe80::1%eth0": the part behind % is the name of a network card. */
static bool is_v6(const char *host, size_t len)
{
    size_t i = 0;
    bool colon = false;
    for (; i < len && is_v6_char(host[i]); i++) {
        colon = colon || host[i] == ':';
    }
    if (i < len && host[i] == '%' && i + 1 < len) {
        for (i++; i < len && is_name_char(host[i]); i++) {
        }
    }
    return colon && i == len;
}

static bool is_name(const char *host, size_t len)
{
    size_t i = 0;
    while (i < len && is_name_char(host[i])) {
        i++;
    }
    return len > 0 && i == len && host[0] != '.' && host[0] != '-';
}

const char *address_set_host(struct address *a, const char *host, size_t len)
{
    if (len > ADDRESS_HOST_MAX) {
        return "a host name has at most 255 characters";
    }
    if (!is_name(host, len) && !is_v6(host, len)) {
        return "this is not a host name or address";
    }
    memcpy(a->host, host, len);
    a->host[len] = '\0';
    return NULL;
}

const char *address_set_port(struct address *a,
                             const char *port,
                             size_t len,
                             bool any)
{
    unsigned value = 0;
    bool good = len > 0 && len <= 5;
    for (size_t i = 0; good && i < len; i++) {
        good = port[i] >= '0' && port[i] <= '9';
        value = value * 10 + (unsigned)(port[i] - '0');
    }
    if (!good || value > UINT16_MAX || (value == 0 && !any)) {
        return any ? "a port is a number from 0 to 65535"
                   : "a port is a number from 1 to 65535";
    }
    a->port = (uint16_t)value;
    return NULL;
}

const char *address_set_path(struct address *a, const char *path, size_t len)
{
    if (len < 2 || path[0] != '/') {
        return "the path of a Unix socket begins with /";
    }
    if (len > UNIX_PATH_MAX_BYTES) {
        return "the path of a Unix socket has at most 107 bytes";
    }
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)path[i] < 0x20 || path[i] == 0x7f) {
            return "the path of a Unix socket has no control characters";
        }
    }
    a->is_unix = true;
    a->port = 0;
    memcpy(a->host, path, len);
    a->host[len] = '\0';
    return NULL;
}

static const char *parse_v6(const char *text, bool listening, struct address *a)
{
    const char *end = strchr(text, ']');
    if (end == NULL || end[1] != ':' ||
        !is_v6(text + 1, (size_t)(end - text - 1))) {
        return example;
    }
    const char *wrong = address_set_host(a, text + 1, (size_t)(end - text - 1));
    if (wrong != NULL) {
        return wrong;
    }
    return address_set_port(a, end + 2, strlen(end + 2), listening);
}

const char *address_parse(const char *text, bool listening, struct address *a)
{
    memset(a, 0, sizeof(*a));
    if (strncmp(text, "unix:", 5) == 0) {
        return address_set_path(a, text + 5, strlen(text + 5));
    }
    if (text[0] == '/') {
        return address_set_path(a, text, strlen(text));
    }
    if (text[0] == '[') {
        return parse_v6(text, listening, a);
    }
    const char *colon = strrchr(text, ':');
    if (colon == NULL) {
        return example;
    }
    size_t host_len = (size_t)(colon - text);
    if (memchr(text, ':', host_len) != NULL) {
        return "write an IPv6 address in brackets: [::1]:6379";
    }
    const char *wrong = NULL;
    if (listening && (host_len == 0 || strncmp(text, "*:", 2) == 0)) {
        wrong = address_set_host(a, "0.0.0.0", strlen("0.0.0.0"));
    } else if (host_len == 0) {
        wrong = example;
    } else {
        wrong = address_set_host(a, text, host_len);
    }
    if (wrong != NULL) {
        return wrong;
    }
    return address_set_port(a, colon + 1, strlen(colon + 1), listening);
}

void address_format(const struct address *a, char *text)
{
    if (a->is_unix) {
        (void)snprintf(text, ADDRESS_TEXT_MAX, "unix:%s", a->host);
    } else if (strchr(a->host, ':') != NULL) {
        (void)snprintf(text, ADDRESS_TEXT_MAX, "[%s]:%u", a->host,
                       (unsigned)a->port);
    } else {
        (void)snprintf(text, ADDRESS_TEXT_MAX, "%s:%u", a->host,
                       (unsigned)a->port);
    }
}

/* 127.0.0.0/8 in dotted form; "127.example.org" is a name. */
static bool is_loopback_v4(const char *host)
{
    if (strncmp(host, "127.", 4) != 0) {
        return false;
    }
    return host[strspn(host, "0123456789.")] == '\0';
}

static bool is_word(const char *host, const char *word)
{
    size_t i = 0;
    while (host[i] != '\0' && tolower((unsigned char)host[i]) == word[i]) {
        i++;
    }
    return host[i] == '\0' && word[i] == '\0';
}

bool address_is_local(const struct address *a)
{
    return a->is_unix || is_loopback_v4(a->host) ||
           is_word(a->host, "localhost") || strcmp(a->host, "::1") == 0;
}

bool address_equal(const struct address *a, const struct address *b)
{
    return a->is_unix == b->is_unix && a->port == b->port &&
           strcmp(a->host, b->host) == 0;
}
