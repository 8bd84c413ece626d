#include "config/url.h"

#include <ctype.h>
#include <string.h>

#include "config/address.h"

enum {
    REDIS_PORT = 6379
};

/* A piece of the URL, not terminated. */
struct part {
    const char *text;
    size_t len;
};

/* Cut p at the first (or last) c: what is before it is returned, what is
 * behind it stays. Without c nothing is cut, and *found is false. */
static struct part cut(struct part *p, char c, bool last, bool *found)
{
    size_t at = p->len;
    for (size_t i = 0; i < p->len; i++) {
        if (p->text[i] == c) {
            at = i;
            if (!last) {
                break;
            }
        }
    }
    *found = at < p->len;
    if (!*found) {
        return (struct part){ p->text, 0 };
    }
    struct part before = { p->text, at };
    p->text += at + 1;
    p->len -= at + 1;
    return before;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') {
        return c - '0';
    }
    if (c >= 'a' && c <= 'f') {
        return c - 'a' + 10;
    }
    if (c >= 'A' && c <= 'F') {
        return c - 'A' + 10;
    }
    return -1;
}

/* Replace %41 by A. out has URL_PART_MAX + 1 bytes. */
static const char *decode(struct part p, char *out)
{
    size_t used = 0;
    for (size_t i = 0; i < p.len; i++) {
        int c = (unsigned char)p.text[i];
        if (c == '%') {
            int high = i + 2 < p.len ? hex_digit(p.text[i + 1]) : -1;
            int low = high >= 0 ? hex_digit(p.text[i + 2]) : -1;
            if (low < 0) {
                return "behind % the URL needs two hexadecimal digits (% "
                       "itself is written %25)";
            }
            c = high * 16 + low;
            i += 2;
        }
        if (c == '\0') {
            return "the URL has a zero byte (%00)";
        }
        if (used == URL_PART_MAX) {
            return "a part of the URL is longer than 1024 bytes";
        }
        out[used++] = (char)c;
    }
    out[used] = '\0';
    return NULL;
}

static const char *parse_db(struct part p, struct url *url)
{
    static const char wrong[] = "the database is a number, as in /0 or ?db=0";
    uint32_t db = 0;
    if (p.len == 0 || p.len > 9) {
        return wrong;
    }
    for (size_t i = 0; i < p.len; i++) {
        if (p.text[i] < '0' || p.text[i] > '9') {
            return wrong;
        }
        db = db * 10 + (uint32_t)(p.text[i] - '0');
    }
    if (url->has_db) {
        return "the URL names the database twice";
    }
    url->has_db = true;
    url->db = db;
    return NULL;
}

/* Cut key ("db=") off the start of p. */
static bool cut_key(struct part *p, const char *key)
{
    size_t len = strlen(key);
    if (p->len < len || memcmp(p->text, key, len) != 0) {
        return false;
    }
    p->text += len;
    p->len -= len;
    return true;
}

static const char *parse_sentinel_user(struct part p, char *out)
{
    if (out[0] != '\0') {
        return "the URL has the same key twice behind ?";
    }
    if (p.len == 0) {
        return "a user or password for the sentinels is empty in the URL";
    }
    return decode(p, out);
}

static const char *parse_parameter(struct part p, struct url *url)
{
    if (cut_key(&p, "db=")) {
        return parse_db(p, url);
    }
    if (url->type != UPSTREAM_SENTINEL) {
        return "behind ? the URL may have only db=N; other options have keys "
               "of their own";
    }
    if (cut_key(&p, "sentinel_username=")) {
        return parse_sentinel_user(p, url->sentinel_username);
    }
    if (cut_key(&p, "sentinel_password=")) {
        return parse_sentinel_user(p, url->sentinel_password);
    }
    return "behind ? the URL may have only db=N, sentinel_username=U and "
           "sentinel_password=P, with & between; other options have keys of "
           "their own";
}

/* What stands behind "?". */
static const char *parse_query(struct part p, struct url *url)
{
    bool more = true;
    const char *wrong = NULL;
    while (more && wrong == NULL) {
        struct part rest = p;
        struct part first = cut(&rest, '&', false, &more);
        wrong = parse_parameter(more ? first : p, url);
        p = rest;
    }
    return wrong;
}

static const char *parse_user(struct part p, struct url *url)
{
    bool has_password = false;
    struct part user = cut(&p, ':', false, &has_password);
    if (!has_password) {
        return "a user in the URL needs a password: user:password@host; a "
               "password alone is :password@host";
    }
    if (p.len == 0) {
        return "the password in the URL is empty";
    }
    const char *wrong = decode(user, url->username);
    return wrong != NULL ? wrong : decode(p, url->password);
}

/* Cut p into host and port. False: this is no address. */
static bool split_host(struct part p,
                       struct part *host,
                       struct part *port,
                       bool *has_port)
{
    bool closed = false;
    if (p.len > 0 && p.text[0] == '[') {
        struct part before = cut(&p, ']', false, &closed);
        if (!closed || (p.len > 0 && p.text[0] != ':')) {
            return false;
        }
        *host = (struct part){ before.text + 1, before.len - 1 };
        (void)cut(&p, ':', false, has_port);
        *port = p;
        return memchr(host->text, ':', host->len) != NULL;
    }
    *host = cut(&p, ':', false, has_port);
    if (!*has_port) {
        *host = p;
        return true;
    }
    *port = p;
    return memchr(p.text, ':', p.len) == NULL;
}

static const char *parse_host(struct part p, struct url *url)
{
    struct part host;
    struct part port = { NULL, 0 };
    bool has_port = false;
    if (!split_host(p, &host, &port, &has_port)) {
        return "an IPv6 address in the URL looks like [::1]:6379";
    }
    if (host.len == 0) {
        return "the URL has no host";
    }
    const char *wrong = address_set_host(&url->address, host.text, host.len);
    if (wrong != NULL || !has_port) {
        url->address.port = REDIS_PORT;
        return wrong;
    }
    return address_set_port(&url->address, port.text, port.len, false);
}

/* host:port,host:port */
static const char *parse_hosts(struct part p, struct url *url)
{
    if (p.len > URL_NODES_MAX) {
        return "the hosts of the URL are longer than 16 KiB";
    }
    memcpy(url->nodes, p.text, p.len);
    url->nodes[p.len] = '\0';
    if (strcspn(url->nodes, " \t\r\n") != p.len) {
        return "the hosts of the URL have commas between them, and no spaces";
    }
    bool more = true;
    while (more) {
        struct part host = cut(&p, ',', false, &more);
        if ((more ? host.len : p.len) == 0) {
            return "the URL has no host, or one comma too many";
        }
    }
    return NULL;
}

/* What stands behind "/": db, or with sentinels master_name or
 * master_name/db. */
static const char *parse_path(struct part p, struct url *url)
{
    bool has_db = true;
    const char *wrong = NULL;
    if (url->type == UPSTREAM_SENTINEL) {
        struct part name = cut(&p, '/', false, &has_db);
        wrong = decode(has_db ? name : p, url->master_name);
    }
    return wrong != NULL || !has_db || p.len == 0 ? wrong : parse_db(p, url);
}

/* user:password@host:port/path?query */
static const char *parse_tcp(struct part p, struct url *url)
{
    bool found = false;
    const char *wrong = NULL;
    /* Passwords pasted as they are often hold "/" or "?"; the last "@" is
     * behind them, as neither host nor database has one. */
    struct part user = cut(&p, '@', true, &found);
    if (found) {
        wrong = parse_user(user, url);
    }
    struct part rest = p;
    struct part before_query = cut(&rest, '?', false, &found);
    if (found) {
        p = before_query;
        wrong = wrong != NULL ? wrong : parse_query(rest, url);
    }
    rest = p;
    struct part host = cut(&rest, '/', false, &found);
    if (found && rest.len > 0) {
        wrong = wrong != NULL ? wrong : parse_path(rest, url);
    }
    if (wrong != NULL) {
        return wrong;
    }
    host = found ? host : p;
    return url->type == UPSTREAM_STANDALONE ? parse_host(host, url)
                                            : parse_hosts(host, url);
}

/* user:password@/path?db=N; an @ may also be in the path. */
static const char *parse_unix(struct part p, struct url *url)
{
    char path[URL_PART_MAX + 1];
    bool found = false;
    const char *wrong = NULL;
    if (p.len > 0 && p.text[0] != '/') {
        struct part user = cut(&p, '@', false, &found);
        wrong = found ? parse_user(user, url)
                      : "the URL of a Unix socket has three slashes: "
                        "redis+unix:///path";
    }
    struct part rest = p;
    struct part before_query = cut(&rest, '?', false, &found);
    if (found) {
        p = before_query;
        wrong = wrong != NULL ? wrong : parse_query(rest, url);
    }
    wrong = wrong != NULL ? wrong : decode(p, path);
    return wrong != NULL ? wrong
                         : address_set_path(&url->address, path, strlen(path));
}

/* host:port,host:port and no more. */
static const char *parse_grpc(struct part p, struct url *url)
{
    url->type = UPSTREAM_GRPC;
    if (p.len > 0 && p.text[p.len - 1] == '/') {
        p.len--;
    }
    for (size_t i = 0; i < p.len; i++) {
        if (strchr("@/?#", p.text[i]) != NULL) {
            return "a grpc:// URL has only hosts and ports: "
                   "grpc://host:50051,host:50051";
        }
    }
    return parse_hosts(p, url);
}

static const char *parse_grpc_unix(struct part p, struct url *url)
{
    char path[URL_PART_MAX + 1];
    url->type = UPSTREAM_GRPC;
    if (p.len == 0 || p.text[0] != '/') {
        return "the URL of a Unix socket has three slashes: "
               "grpc+unix:///path";
    }
    const char *wrong = decode(p, path);
    if (wrong == NULL) {
        wrong = address_set_path(&url->address, path, strlen(path));
    }
    if (wrong == NULL && strpbrk(path, ", ") != NULL) {
        wrong = "the path of a Unix socket has no commas or spaces here";
    }
    if (wrong == NULL) {
        address_format(&url->address, url->nodes);
    }
    return wrong;
}

/* NOLINTNEXTLINE(readability-function-size): tolower() is a macro */
static bool has_scheme(struct part *p, const char *scheme)
{
    size_t len = strlen(scheme);
    if (p->len < len) {
        return false;
    }
    for (size_t i = 0; i < len; i++) {
        if (tolower((unsigned char)p->text[i]) != scheme[i]) {
            return false;
        }
    }
    p->text += len;
    p->len -= len;
    return true;
}

const char *url_parse(const char *text, struct url *url)
{
    static const struct {
        const char *text;
        enum upstream_type type;
        const char *not_yet; /* why it is refused, or NULL */
    } schemes[] = {
        { "redis://", UPSTREAM_STANDALONE, NULL },
        { "redis+cluster://", UPSTREAM_CLUSTER, NULL },
        { "redis+sentinel://", UPSTREAM_SENTINEL, NULL },
        { "sentinel://", UPSTREAM_SENTINEL, NULL },
        { "rediss://", UPSTREAM_STANDALONE,
          "TLS to the server is not built yet; use redis:// on a trusted "
          "network" },
        { "rediss+cluster://", UPSTREAM_CLUSTER,
          "TLS to the servers is not built yet; use redis+cluster:// on a "
          "trusted network" },
        { "rediss+sentinel://", UPSTREAM_SENTINEL,
          "TLS to the servers is not built yet; use redis+sentinel:// on a "
          "trusted network" },
        { "grpc://", UPSTREAM_GRPC, NULL },
        { "grpcs://", UPSTREAM_GRPC,
          "TLS to the servers is not built yet; use grpc:// on a trusted "
          "network" },
    };
    struct part p = { text, strlen(text) };
    memset(url, 0, sizeof(*url));
    if (has_scheme(&p, "redis+unix://") || has_scheme(&p, "unix://")) {
        return parse_unix(p, url);
    }
    if (has_scheme(&p, "grpc+unix://")) {
        return parse_grpc_unix(p, url);
    }
    for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
        if (has_scheme(&p, schemes[i].text)) {
            url->type = schemes[i].type;
            const char *wrong = url->type == UPSTREAM_GRPC ? parse_grpc(p, url)
                                                           : parse_tcp(p, url);
            return wrong != NULL ? wrong : schemes[i].not_yet;
        }
    }
    return "a URL begins with redis://, redis+cluster://, redis+sentinel://, "
           "redis+unix://, grpc:// or grpc+unix://, such as "
           "redis://127.0.0.1:6379";
}

const char *url_scheme(enum upstream_type type)
{
    switch (type) {
    case UPSTREAM_STANDALONE: return "redis://";
    case UPSTREAM_CLUSTER: return "redis+cluster://";
    case UPSTREAM_SENTINEL: return "redis+sentinel://";
    case UPSTREAM_GRPC: return "grpc://";
    }
    return "redis://";
}
