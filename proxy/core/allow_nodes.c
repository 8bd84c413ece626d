#include "proxy/core/allow_nodes.h"

#include <ctype.h>
#include <string.h>

#include "config/ip.h"
#include "config/nodes.h"
#include "proxy/core/endpoint.h"

enum {
    NEIGHBOURS_V4 = IP_V4_BITS + 16, /* bits that IPs of one site share */
    NEIGHBOURS_V6 = 48,
    LOOPBACK_V4 = IP_V4_BITS + 8
};

/* A host: an IP address, or a name. */
struct place {
    uint8_t ip[IP_BYTES];
    bool is_ip;
    const char *name;
    size_t name_len; /* without the dot at its end */
};

static struct place place_of(const char *host)
{
    struct place p = { .name = host, .name_len = strlen(host) };
    p.is_ip = ip_parse(host, p.name_len, p.ip);
    if (p.name_len > 0 && host[p.name_len - 1] == '.') {
        p.name_len--;
    }
    return p;
}

/* ---- names ---------------------------------------------------------------- */

static bool same_letters(const char *a, const char *b, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (tolower((unsigned char)a[i]) != tolower((unsigned char)b[i])) {
            return false;
        }
    }
    return true;
}

static bool same_name(const struct place *a, const struct place *b)
{
    return a->name_len == b->name_len &&
           same_letters(a->name, b->name, a->name_len);
}

/* Whether p is below what tail says: ".example.net". */
static bool is_below(const struct place *p, const char *tail, size_t len)
{
    return p->name_len > len &&
           same_letters(p->name + p->name_len - len, tail, len);
}

static bool is_localhost(const struct place *p)
{
    static const char tail[] = ".localhost";
    size_t len = strlen(tail);
    return (p->name_len == len - 1 &&
            same_letters(p->name, tail + 1, len - 1)) ||
           is_below(p, tail, len);
}

/* Whether a resolver may read the name as an IP address: its last part is a
 * number, also an octal or hexadecimal one. */
static bool ends_in_number(const struct place *p)
{
    size_t begin = p->name_len;
    while (begin > 0 && p->name[begin - 1] != '.') {
        begin--;
    }
    const char *part = p->name + begin;
    size_t len = p->name_len - begin;
    bool hex = len >= 2 && part[0] == '0' && tolower(part[1]) == 'x';
    for (size_t i = hex ? 2 : 0; i < len; i++) {
        unsigned char c = (unsigned char)part[i];
        if (hex ? !isxdigit(c) : !isdigit(c)) {
            return false;
        }
    }
    return true;
}

static bool is_name(const struct place *p)
{
    bool dot = true; /* a part of a name has a character at least */
    for (size_t i = 0; i < p->name_len; i++) {
        unsigned char c = (unsigned char)p->name[i];
        if (c == '.' ? dot : !isalnum(c) && c != '-' && c != '_') {
            return false;
        }
        dot = c == '.';
    }
    return !dot && p->name[0] != '-' && !ends_in_number(p);
}

/* ---- IP addresses --------------------------------------------------------- */

static bool in_network(const uint8_t ip[IP_BYTES],
                       const uint8_t net[IP_BYTES],
                       unsigned bits)
{
    unsigned whole = bits / 8;
    unsigned rest = bits % 8;
    if (memcmp(ip, net, whole) != 0) {
        return false;
    }
    unsigned mask = 0xff00u >> rest & 0xff;
    return rest == 0 || ((ip[whole] ^ net[whole]) & mask) == 0;
}

static const uint8_t v6_loopback[IP_BYTES] = { [15] = 1 };

static bool is_loopback(const struct place *p)
{
    if (!p->is_ip) {
        return is_localhost(p);
    }
    return ip_is_v4(p->ip) ? p->ip[12] == 127
                           : memcmp(p->ip, v6_loopback, IP_BYTES) == 0;
}

static const char unspecified[] = "it is unspecified";
static const char multicast[] = "it is a multicast or broadcast address";
static const char link_local[] = "it is a link-local address";

static const char *v4_refusal(const uint8_t v4[4])
{
    static const uint8_t everybody[] = { 255, 255, 255, 255 };
    if (v4[0] == 0) {
        return unspecified;
    }
    if (v4[0] == 169 && v4[1] == 254) {
        return link_local;
    }
    bool many = (v4[0] & 0xf0) == 224 || memcmp(v4, everybody, 4) == 0;
    return many ? multicast : NULL;
}

/* What no server can be at, whatever the configuration. */
static const char *ip_refusal(const uint8_t ip[IP_BYTES])
{
    static const uint8_t zero[IP_BYTES] = { 0 };
    if (ip_is_v4(ip)) {
        return v4_refusal(ip + IP_V4_BITS / 8);
    }
    if (in_network(ip, zero, IP_V4_BITS) &&
        memcmp(ip, v6_loopback, IP_BYTES) != 0) {
        return unspecified; /* also ::127.0.0.1, once IPv4 in IPv6 */
    }
    if (ip[0] == 0xfe && (ip[1] & 0xc0) == 0x80) {
        return link_local;
    }
    return ip[0] == 0xff ? multicast : NULL;
}

/* ---- listeners ------------------------------------------------------------ */

static bool is_any(const struct place *p)
{
    static const uint8_t zero[IP_BYTES] = { 0 };
    return p->is_ip && (in_network(p->ip, zero, IP_BITS) ||
                        (ip_is_v4(p->ip) && ip_ends_after(p->ip, IP_V4_BITS)));
}

/* Whether a connection to that place and port arrives at that listener, as far
 * as can be told without asking for the addresses of this host. */
static bool reaches(const struct place *to,
                    uint16_t port,
                    const struct address *listener)
{
    if (listener->is_unix || listener->port != port ||
        listener->host[0] == '\0') {
        return false;
    }
    struct place at = place_of(listener->host);
    if (at.is_ip && to->is_ip && memcmp(at.ip, to->ip, IP_BYTES) == 0) {
        return true;
    }
    if (!at.is_ip && !to->is_ip && same_name(&at, to)) {
        return true;
    }
    bool by_name = !at.is_ip || !to->is_ip;
    return is_loopback(to) && (is_any(&at) || (by_name && is_loopback(&at)));
}

static bool is_own_listener(const struct config *config,
                            const struct place *to,
                            uint16_t port)
{
    if (config->process.admin &&
        reaches(to, port, &config->process.admin_address)) {
        return true;
    }
    for (size_t i = 0; i < config->n_listeners; i++) {
        const struct listener_config *l = &config->listeners[i];
        if (reaches(to, port, &l->address) || reaches(to, port, &l->announce)) {
            return true;
        }
    }
    return false;
}

/* ---- what is permitted ------------------------------------------------------ */

static bool is_seed(const struct cluster *c, const struct address *address)
{
    for (uint32_t i = 0; i < c->n_endpoints; i++) {
        const struct endpoint *p = c->endpoints[i];
        if (p != NULL && p->seed && node_equal(&p->address, address)) {
            return true;
        }
    }
    return false;
}

/* What seeds permit that is none of them. */
enum kinship {
    KIN_LOOPBACK, /* the seed is on loopback */
    KIN_NEIGHBOUR /* the same name, or an IP address of the same site */
};

static bool is_kin(const struct place *to,
                   const char *seed,
                   enum kinship kinship)
{
    struct place at = place_of(seed);
    if (kinship == KIN_LOOPBACK) {
        return is_loopback(&at);
    }
    if (!at.is_ip || !to->is_ip) {
        return !at.is_ip && !to->is_ip && same_name(&at, to);
    }
    bool is_v4 = ip_is_v4(at.ip);
    return is_v4 == ip_is_v4(to->ip) && !is_loopback(&at) &&
           in_network(to->ip, at.ip, is_v4 ? NEIGHBOURS_V4 : NEIGHBOURS_V6);
}

/* Whether any seed, or an address it has resolved to, is so to it. */
static bool has_kin(const struct cluster *c,
                    const struct place *to,
                    enum kinship kinship)
{
    for (uint32_t i = 0; i < c->n_endpoints; i++) {
        const struct endpoint *p = c->endpoints[i];
        if (p == NULL || !p->seed) {
            continue;
        }
        if (is_kin(to, p->address.host, kinship)) {
            return true;
        }
        for (unsigned k = 0; k < p->n_resolved; k++) {
            if (is_kin(to, p->resolved[k].host, kinship)) {
                return true;
            }
        }
    }
    return false;
}

static bool entry_permits(const struct allowed_nodes *a, const struct place *to)
{
    if (a->host == NULL) {
        unsigned loopback = ip_is_v4(to->ip) ? LOOPBACK_V4 : IP_BITS;
        return to->is_ip && in_network(to->ip, a->net, a->bits) &&
               (!is_loopback(to) || a->bits >= loopback);
    }
    if (to->is_ip) {
        return false;
    }
    if (a->host[0] == '*') {
        struct place tail = place_of(a->host + 1);
        return is_below(to, tail.name, tail.name_len);
    }
    struct place name = place_of(a->host);
    return same_name(&name, to);
}

static bool list_permits(const struct upstream_config *config,
                         const struct place *to)
{
    for (size_t i = 0; i < config->n_allow_nodes; i++) {
        if (entry_permits(&config->allow_nodes[i], to)) {
            return true;
        }
    }
    return false;
}

const char *allow_nodes_refusal(const struct config *config,
                                const struct cluster *c,
                                const struct address *address)
{
    if (address->is_unix) {
        return "it is a Unix socket";
    }
    if (address->port == 0) {
        return "its port is 0";
    }
    if (is_seed(c, address)) {
        return NULL;
    }
    struct place to = place_of(address->host);
    const char *why = to.is_ip ? ip_refusal(to.ip) : NULL;
    if (why != NULL) {
        return why;
    }
    if (!to.is_ip && !is_name(&to)) {
        return "its host is neither a name nor an IP address";
    }
    if (is_own_listener(config, &to, address->port)) {
        return "it is a listener of redial's own";
    }
    if (c->config->n_allow_nodes > 0 && list_permits(c->config, &to)) {
        return NULL;
    }
    if (is_loopback(&to)) {
        return has_kin(c, &to, KIN_LOOPBACK)
                   ? NULL
                   : "it is on loopback, and no configured node is";
    }
    if (c->config->n_allow_nodes > 0) {
        return "allow_nodes does not permit it";
    }
    return has_kin(c, &to, KIN_NEIGHBOUR)
               ? NULL
               : "it is far from all configured nodes (allow_nodes)";
}
