#include "config/nodes.h"

#include <assert.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config/address.h"
#include "config/arena.h"
#include "config/ip.h"

enum {
    REDIS_PORT = 6379,
    SENTINEL_PORT = 26379
};

static const char no_memory[] = "";

/* The functions that read one entry return NULL, what is wrong with it in
 * words, or no_memory. */

static const char *parse_node(const char *text, size_t len, struct address *a)
{
    *a = (struct address){ 0 };
    if (text[0] == '/' || (len >= 5 && memcmp(text, "unix:", 5) == 0)) {
        return "a Unix socket can't be a node; write host:port";
    }
    const char *host = text;
    const char *end = memchr(text, text[0] == '[' ? ']' : ':', len);
    size_t host_len = end != NULL ? (size_t)(end - text) : len;
    if (text[0] == '[') {
        host++;
        host_len--;
        if (end == NULL || memchr(host, ':', host_len) == NULL) {
            return "an IPv6 address looks like [::1]:6379";
        }
        end++;
    }
    size_t rest = end != NULL ? len - (size_t)(end - text) : 0;
    if (text[0] != '[' && rest > 1 && memchr(end + 1, ':', rest - 1) != NULL) {
        return "write an IPv6 address in brackets: [::1]:6379";
    }
    if (rest > 0 && *end != ':') {
        return "behind the ] of an IPv6 address stands only :port";
    }
    const char *wrong = address_set_host(a, host, host_len);
    return wrong != NULL || rest == 0
               ? wrong
               : address_set_port(a, end + 1, rest - 1, false);
}

/* A server of gRPC: unix:/path, or host:port with both. */
static const char *parse_endpoint(const char *text,
                                  size_t len,
                                  struct address *a)
{
    bool is_unix = len >= 5 && memcmp(text, "unix:", 5) == 0;
    *a = (struct address){ 0 };
    if (is_unix || text[0] == '/') {
        size_t start = is_unix ? 5 : 0;
        /* gRPC writes unix:///path for an absolute path, too. */
        if (is_unix && len >= 8 && memcmp(text + 5, "///", 3) == 0) {
            start = 7;
        }
        return address_set_path(a, text + start, len - start);
    }
    const char *wrong = parse_node(text, len, a);
    if (wrong == NULL && a->port == 0) {
        return "there is no port; write host:port, as gRPC has no usual one";
    }
    return wrong;
}

static const char zone_form[] =
    "write host:port=zone, or host=zone for every port of a host";

static const char *parse_zone(const char *text, size_t len, struct node_zone *z)
{
    const char *equals = memchr(text, '=', len);
    if (equals == NULL || equals == text) {
        return zone_form;
    }
    size_t zone_len = len - (size_t)(equals + 1 - text);
    const char *wrong = parse_node(text, (size_t)(equals - text), &z->node);
    if (wrong == NULL) {
        wrong = value_name_wrong(equals + 1, zone_len);
    }
    if (wrong != NULL) {
        return wrong;
    }
    z->zone = text_copy(equals + 1, zone_len);
    return z->zone != NULL ? NULL : no_memory;
}

/* "10.0.0.0/8", or one address. */
static const char *parse_net(const char *text,
                             size_t len,
                             struct allowed_nodes *a)
{
    const char *slash = memchr(text, '/', len);
    size_t ip_len = slash != NULL ? (size_t)(slash - text) : len;
    if (!ip_parse(text, ip_len, a->net)) {
        return "this is no network; write 10.0.0.0/8 or 2001:db8::/32";
    }
    bool is_v6 = memchr(text, ':', ip_len) != NULL;
    unsigned before = is_v6 ? 0 : IP_V4_BITS;
    unsigned bits = IP_BITS - before;
    if (slash != NULL) {
        size_t digits = len - ip_len - 1;
        unsigned value = 0;
        bool good = digits > 0 && digits <= 3;
        for (size_t i = 0; good && i < digits; i++) {
            good = isdigit((unsigned char)slash[1 + i]) != 0;
            value = value * 10 + (unsigned)(slash[1 + i] - '0');
        }
        if (!good || value > bits) {
            return before != 0 ? "behind the / of a network stands a number "
                                 "from 0 to 32"
                               : "behind the / of a network stands a number "
                                 "from 0 to 128";
        }
        bits = value;
    }
    a->bits = (uint8_t)(before + bits);
    if (!ip_ends_after(a->net, a->bits)) {
        return "the address has bits that are not of the network; 10.0.0.0/8 "
               "is right, 10.0.0.1/8 is not";
    }
    return NULL;
}

/* "redis.example.net" or "*.example.net". */
static const char *parse_name(const char *text,
                              size_t len,
                              struct allowed_nodes *a)
{
    struct address checked = { 0 };
    size_t star = len > 2 && memcmp(text, "*.", 2) == 0 ? 2 : 0;
    if (memchr(text + star, '*', len - star) != NULL) {
        return "a * may only stand for the first parts of a name: "
               "*.example.net";
    }
    const char *colon = memchr(text, ':', len);
    if (colon != NULL) {
        return "write a host without a port";
    }
    const char *wrong = address_set_host(&checked, text + star, len - star);
    if (wrong != NULL) {
        return wrong;
    }
    if (checked.host[strspn(checked.host, "0123456789.")] == '\0') {
        return "this is neither an IP address nor a name";
    }
    a->host = text_copy(text, len);
    if (a->host == NULL) {
        return no_memory;
    }
    for (char *c = a->host; *c != '\0'; c++) {
        *c = (char)tolower((unsigned char)*c);
    }
    return NULL;
}

static const char *parse_allowed(const char *text,
                                 size_t len,
                                 struct allowed_nodes *a)
{
    uint8_t ip[IP_BYTES];
    bool is_net = memchr(text, '/', len) != NULL || ip_parse(text, len, ip);
    return is_net ? parse_net(text, len, a) : parse_name(text, len, a);
}

/* Lists --- */

/* Make room for one more, which is set to zero. */
static bool grow(void *list, size_t n, size_t size, void **grown)
{
    *grown = realloc(list, (n + 1) * size);
    if (*grown == NULL) {
        return false;
    }
    memset((char *)*grown + n * size, 0, size);
    return true;
}

/* There are two lists of globs. */
static bool is_no_retry(const struct option *o)
{
    assert(o->type == OPTION_GLOBS);
    return o->offset == offsetof(struct upstream_config, grpc.no_retry_methods);
}

static const char *add_glob(const struct option *o,
                            const char *text,
                            size_t len,
                            struct grpc_config *c)
{
    bool no_retry = is_no_retry(o);
    size_t *n = no_retry ? &c->n_no_retry_methods : &c->n_idempotent_methods;
    struct grpc_glob **globs =
        no_retry ? &c->no_retry_methods : &c->idempotent_methods;
    void *grown = NULL;
    if (!grpc_glob_is_valid((struct span){ (const uint8_t *)text, len })) {
        return "it is not of the form /service/method";
    }
    if (!grow(*globs, *n, sizeof(**globs), &grown)) {
        return no_memory;
    }
    *globs = grown;
    (*globs)[*n].text = text_copy(text, len);
    if ((*globs)[*n].text == NULL) {
        return no_memory;
    }
    (*n)++;
    return NULL;
}

static const char *add_one(const struct option *o,
                           const char *text,
                           size_t len,
                           struct upstream_config *u)
{
    void *grown = NULL;
    const char *wrong = NULL;
    if (o->type == OPTION_GLOBS) {
        return add_glob(o, text, len, &u->grpc);
    }
    if (o->type == OPTION_NODES || o->type == OPTION_TARGET) {
        if (!grow(u->nodes, u->n_nodes, sizeof(*u->nodes), &grown)) {
            return no_memory;
        }
        u->nodes = grown;
        wrong = option_is_only_grpc(o)
                    ? parse_endpoint(text, len, &u->nodes[u->n_nodes])
                    : parse_node(text, len, &u->nodes[u->n_nodes]);
        u->n_nodes += wrong == NULL ? 1 : 0;
    } else if (o->type == OPTION_NODE_ZONES) {
        if (!grow(u->node_zones, u->n_node_zones, sizeof(*u->node_zones),
                  &grown)) {
            return no_memory;
        }
        u->node_zones = grown;
        wrong = parse_zone(text, len, &u->node_zones[u->n_node_zones]);
        u->n_node_zones += wrong == NULL ? 1 : 0;
    } else {
        assert(o->type == OPTION_ALLOW_NODES);
        if (!grow(u->allow_nodes, u->n_allow_nodes, sizeof(*u->allow_nodes),
                  &grown)) {
            return no_memory;
        }
        u->allow_nodes = grown;
        wrong = parse_allowed(text, len, &u->allow_nodes[u->n_allow_nodes]);
        u->n_allow_nodes += wrong == NULL ? 1 : 0;
    }
    return wrong;
}

/* What stands behind the scheme of a target, and which scheme it is. NULL: this
 * is none that we know. */
static const char *target_rest(const char *text, char *kind)
{
    static const struct {
        const char *scheme;
        char kind; /* '4', '6': addresses of that kind; 'd': one name; 'u' */
    } schemes[] = {
        { "dns:///", 'd' }, { "dns:", 'd' },  { "ipv4:", '4' },
        { "ipv6:", '6' },   { "unix:", 'u' },
    };
    for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
        size_t len = strlen(schemes[i].scheme);
        if (strncmp(text, schemes[i].scheme, len) == 0) {
            *kind = schemes[i].kind;
            return *kind == 'u' ? text : text + len;
        }
    }
    *kind = 'd';
    return strstr(text, "//") != NULL ? NULL : text;
}

/* gRPC's "Name Resolution": what it calls a target, as a list of nodes. */
static bool target_is_valid(const char *text, const char **rest)
{
    char kind = '\0';
    *rest = target_rest(text, &kind);
    if (*rest == NULL || **rest == '\0' || strpbrk(*rest, " \t") != NULL ||
        (strchr(*rest, ',') != NULL && kind != '4' && kind != '6')) {
        return false;
    }
    for (const char *at = *rest; *at != '\0';) {
        struct address a = { 0 };
        uint8_t ip[IP_BYTES];
        size_t len = strcspn(at, ",");
        if (len == 0 || parse_endpoint(at, len, &a) != NULL ||
            a.is_unix != (kind == 'u')) {
            return false;
        }
        bool is_v6 = strchr(a.host, ':') != NULL;
        if ((kind == '4' || kind == '6') &&
            (!ip_parse(a.host, strlen(a.host), ip) || is_v6 != (kind == '6'))) {
            return false;
        }
        if (at[len] == ',' && at[len + 1] == '\0') {
            return false;
        }
        at += len + (at[len] == ',' ? 1 : 0);
    }
    return true;
}

enum value_result nodes_add(const struct option *o,
                            const char *text,
                            struct upstream_config *u,
                            char why[VALUE_TEXT_MAX])
{
    if (o->type == OPTION_TARGET && !target_is_valid(text, &text)) {
        (void)snprintf(why, VALUE_TEXT_MAX,
                       "not a target such as dns:///host:443");
        return VALUE_BAD;
    }
    static const char separators[] = ", \t\r\n";
    size_t before = nodes_count(o, u);
    for (const char *at = text + strspn(text, separators); *at != '\0';) {
        size_t len = strcspn(at, separators);
        const char *wrong = NULL;
        if (nodes_count(o, u) == NODES_MAX) {
            (void)snprintf(why, VALUE_TEXT_MAX, "more than %d entries",
                           (int)NODES_MAX);
            return VALUE_BAD;
        }
        wrong = add_one(o, at, len, u);
        if (wrong == no_memory) {
            return VALUE_NO_MEMORY;
        }
        if (wrong != NULL) {
            /* The entry is not repeated: it may come from a secret file. */
            (void)snprintf(why, VALUE_TEXT_MAX, "entry %zu: %s",
                           nodes_count(o, u) - before + 1, wrong);
            return VALUE_BAD;
        }
        at += len;
        at += strspn(at, separators);
    }
    if (nodes_count(o, u) == before) {
        (void)snprintf(why, VALUE_TEXT_MAX,
                       "empty; leave it out, or give a value");
        return VALUE_BAD;
    }
    return VALUE_OK;
}

size_t nodes_count(const struct option *o, const struct upstream_config *u)
{
    if (o->type == OPTION_NODES || o->type == OPTION_TARGET) {
        return u->n_nodes;
    }
    if (o->type == OPTION_GLOBS) {
        return is_no_retry(o) ? u->grpc.n_no_retry_methods
                              : u->grpc.n_idempotent_methods;
    }
    return o->type == OPTION_NODE_ZONES ? u->n_node_zones : u->n_allow_nodes;
}

/* Writing --- */

static void format_node(const struct address *a, char text[ADDRESS_TEXT_MAX])
{
    if (a->port != 0 || a->is_unix) {
        address_format(a, text);
    } else if (strchr(a->host, ':') != NULL) {
        (void)snprintf(text, ADDRESS_TEXT_MAX, "[%s]", a->host);
    } else {
        (void)snprintf(text, ADDRESS_TEXT_MAX, "%s", a->host);
    }
}

static void format_allowed(const struct allowed_nodes *a,
                           char text[NODES_TEXT_MAX])
{
    char ip[IP_TEXT_MAX];
    if (a->host != NULL) {
        (void)snprintf(text, NODES_TEXT_MAX, "%s", a->host);
        return;
    }
    ip_format(a->net, ip);
    if (a->bits == IP_BITS) {
        (void)snprintf(text, NODES_TEXT_MAX, "%s", ip);
    } else {
        bool is_v4 = ip_is_v4(a->net) && a->bits >= IP_V4_BITS;
        (void)snprintf(text, NODES_TEXT_MAX, "%s/%u", ip,
                       a->bits - (is_v4 ? (unsigned)IP_V4_BITS : 0));
    }
}

void nodes_format(const struct option *o,
                  const struct upstream_config *u,
                  size_t i,
                  char text[NODES_TEXT_MAX])
{
    assert(i < nodes_count(o, u));
    if (o->type == OPTION_NODES) {
        format_node(&u->nodes[i], text);
    } else if (o->type == OPTION_GLOBS) {
        const struct grpc_glob *globs = is_no_retry(o)
                                            ? u->grpc.no_retry_methods
                                            : u->grpc.idempotent_methods;
        (void)snprintf(text, NODES_TEXT_MAX, "%s", globs[i].text);
    } else if (o->type == OPTION_NODE_ZONES) {
        char node[ADDRESS_TEXT_MAX];
        format_node(&u->node_zones[i].node, node);
        (void)snprintf(text, NODES_TEXT_MAX, "%s=%s", node,
                       u->node_zones[i].zone);
    } else {
        format_allowed(&u->allow_nodes[i], text);
    }
}

void nodes_set_ports(struct upstream_config *u)
{
    for (size_t i = 0; i < u->n_nodes; i++) {
        if (u->nodes[i].port == 0 && u->type != UPSTREAM_GRPC) {
            u->nodes[i].port =
                u->type == UPSTREAM_SENTINEL ? SENTINEL_PORT : REDIS_PORT;
        }
    }
}

bool node_equal(const struct address *a, const struct address *b)
{
    uint8_t a_ip[IP_BYTES];
    uint8_t b_ip[IP_BYTES];
    size_t i = 0;
    if (a->port != b->port || a->is_unix != b->is_unix) {
        return false;
    }
    if (a->is_unix) {
        return strcmp(a->host, b->host) == 0;
    }
    if (ip_parse(a->host, strlen(a->host), a_ip) &&
        ip_parse(b->host, strlen(b->host), b_ip)) {
        return memcmp(a_ip, b_ip, IP_BYTES) == 0;
    }
    while (a->host[i] != '\0' && tolower((unsigned char)a->host[i]) ==
                                     tolower((unsigned char)b->host[i])) {
        i++;
    }
    return a->host[i] == b->host[i];
}

static void free_globs(struct grpc_glob *globs, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(globs[i].text);
    }
    free(globs);
}

void nodes_free(struct upstream_config *u)
{
    for (size_t i = 0; i < u->n_node_zones; i++) {
        free(u->node_zones[i].zone);
    }
    for (size_t i = 0; i < u->n_allow_nodes; i++) {
        free(u->allow_nodes[i].host);
    }
    free_globs(u->grpc.idempotent_methods, u->grpc.n_idempotent_methods);
    free_globs(u->grpc.no_retry_methods, u->grpc.n_no_retry_methods);
    free(u->nodes);
    free(u->node_zones);
    free(u->allow_nodes);
}
