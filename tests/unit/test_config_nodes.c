/* Upstreams of several servers: their lists, and what fits together. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "config/ip.h"
#include "config/nodes.h"
#include "config_loading.h"

/* Load, or fail the test with the first problem. The caller frees. */
static struct config *load(const struct config_source *source)
{
    struct config_problems p = { 0 };
    struct config *c = config_load(source, &p);
    if (c == NULL) {
        print_message("%s: %s\n", p.list[0].place, p.list[0].text);
    }
    config_problems_fini(&p);
    assert_non_null(c);
    return c;
}

static struct config *load_file(const char *text)
{
    struct config_source source = loaded_source(text);
    return load(&source);
}

/* The source is refused with exactly these problems, one a line. */
static void refuse(const struct config_source *source, const char *expected)
{
    static struct loaded_text told;
    told.len = 0;
    struct config_problems p = { 0 };
    assert_null(config_load(source, &p));
    for (size_t i = 0; i < p.n; i++) {
        loaded_write(&told, p.list[i].place, strlen(p.list[i].place));
        loaded_write(&told, ": ", 2);
        loaded_write(&told, p.list[i].text, strlen(p.list[i].text));
        loaded_write(&told, "\n", 1);
    }
    config_problems_fini(&p);
    assert_string_equal(told.text, expected);
}

static void refuse_file(const char *text, const char *expected)
{
    struct config_source source = loaded_source(text);
    refuse(&source, expected);
}

static void assert_node(const struct upstream_config *u,
                        size_t i,
                        const char *expected)
{
    char text[ADDRESS_TEXT_MAX];
    assert_true(i < u->n_nodes);
    address_format(&u->nodes[i], text);
    assert_string_equal(text, expected);
}

/* Lists --- */

static void nodes_have_the_port_of_their_kind(void **state)
{
    (void)state;
    struct config *c =
        load_file("[listener l]\nupstream = c\n"
                  "[upstream c]\n"
                  "nodes = a, b:1,[::1] ,[2001:db8::2]:2\t10.0.0.1,\n"
                  "type = cluster\n"
                  "[upstream s]\nmaster_name = m\ntype = sentinel\n"
                  "nodes = a, b:1\n");
    const struct upstream_config *u = &c->upstreams[0];
    assert_int_equal(u->type, UPSTREAM_CLUSTER);
    assert_int_equal(u->n_nodes, 5);
    assert_node(u, 0, "a:6379");
    assert_node(u, 1, "b:1");
    assert_node(u, 2, "[::1]:6379");
    assert_node(u, 3, "[2001:db8::2]:2");
    assert_node(u, 4, "10.0.0.1:6379");
    assert_string_equal(u->address.host, "");
    assert_int_equal(u->address.port, 0);
    u = &c->upstreams[1];
    assert_int_equal(u->type, UPSTREAM_SENTINEL);
    assert_int_equal(u->n_nodes, 2);
    assert_node(u, 0, "a:26379");
    assert_node(u, 1, "b:1");
    assert_string_equal(u->master_name, "m");
    config_free(c);
}

static void defaults_of_several_servers_are_those_of_the_table(void **state)
{
    (void)state;
    struct config_source source = { .url = "redis+cluster://a" };
    struct config *c = load(&source);
    const struct upstream_config *u = &c->upstreams[0];
    assert_int_equal(u->read_from, READ_PRIMARY);
    assert_int_equal(u->replica_max_lag_us, 10000000);
    assert_null(u->zone);
    assert_int_equal(u->n_node_zones, 0);
    assert_int_equal(u->cluster_view, CLUSTER_VIEW_SINGLE);
    assert_int_equal(u->n_allow_nodes, 0);
    assert_int_equal(u->topology_refresh_us, 30000000);
    assert_int_equal(u->topology_min_interval_us, 100000);
    assert_int_equal(u->silence_probe_us, 1000000);
    assert_int_equal(u->redirects_max, 5);
    assert_int_equal(u->node_retries, 3);
    assert_int_equal(u->cluster_error_retry_attempts, -1);
    assert_string_equal(c->listeners[0].announce.host, "");
    config_free(c);
}

static void every_value_of_several_servers_is_read(void **state)
{
    (void)state;
    struct config *c = load_file("[upstream c]\ntype = cluster\nnodes = a\n"
                                 "read_from = prefer_replica\n"
                                 "replica_max_lag = off\n"
                                 "zone = z1\n"
                                 "cluster_view = real\n"
                                 "topology_refresh = 1h\n"
                                 "topology_min_interval = 1ms\n"
                                 "silence_probe = off\n"
                                 "redirects_max = 100\n"
                                 "node_retries = 1\n"
                                 "cluster_error_retry_attempts = 1000000\n"
                                 "[upstream default]\ntype = sentinel\n"
                                 "nodes = a\nmaster_name = m\n"
                                 "read_from = replica\ndb = 3\n"
                                 "sentinel_username = u\n"
                                 "sentinel_password = p\n");
    const struct upstream_config *u = &c->upstreams[0];
    assert_int_equal(u->read_from, READ_PREFER_REPLICA);
    assert_int_equal(u->replica_max_lag_us, 0);
    assert_string_equal(u->zone, "z1");
    assert_int_equal(u->cluster_view, CLUSTER_VIEW_REAL);
    assert_int_equal(u->topology_refresh_us, 3600000000);
    assert_int_equal(u->topology_min_interval_us, 1000);
    assert_int_equal(u->silence_probe_us, 0);
    assert_int_equal(u->redirects_max, 100);
    assert_int_equal(u->node_retries, 1);
    assert_int_equal(u->cluster_error_retry_attempts, 1000000);
    u = &c->upstreams[1];
    assert_int_equal(u->read_from, READ_REPLICA);
    assert_string_equal(u->sentinel_username, "u");
    assert_string_equal(u->sentinel_password, "p");
    assert_int_equal(u->db, 3);
    config_free(c);
}

static void lists_of_several_lines_are_one(void **state)
{
    (void)state;
    static const char *const sets[] = { "upstream.nodes=x",
                                        "upstream.nodes=y,z" };
    struct config_source source = loaded_source("[upstream u]\n"
                                                "type = cluster\n"
                                                "nodes = a\n"
                                                "retries = 1\n"
                                                "nodes = b, c\n"
                                                "allow_nodes = 10.0.0.0/8\n"
                                                "nodes = d\n"
                                                "allow_nodes = h\n");
    struct config *c = load(&source);
    const struct upstream_config *u = &c->upstreams[0];
    assert_int_equal(u->n_nodes, 4);
    assert_node(u, 0, "a:6379");
    assert_node(u, 2, "c:6379");
    assert_node(u, 3, "d:6379");
    assert_int_equal(u->n_allow_nodes, 2);
    config_free(c);

    /* --set replaces all of them, and the last one wins. */
    source.sets = sets;
    source.n_sets = 2;
    c = load(&source);
    u = &c->upstreams[0];
    assert_int_equal(u->n_nodes, 2);
    assert_node(u, 0, "y:6379");
    assert_node(u, 1, "z:6379");
    assert_int_equal(u->n_allow_nodes, 2);
    config_free(c);
}

static char *many_nodes(void *context, const char *path)
{
    (void)path;
    unsigned count = *(const unsigned *)context;
    char *text = malloc(count * 16 + 1);
    size_t len = 0;
    assert_non_null(text);
    for (unsigned i = 0; i < count; i++) {
        len +=
            (size_t)snprintf(text + len, 16, "10.0.%u.%u\n", i / 250, i % 250);
    }
    return text;
}

static void a_list_has_at_most_256_entries(void **state)
{
    (void)state;
    unsigned count = 256;
    struct config_source source =
        loaded_source("[upstream u]\ntype = cluster\nnodes = ${file:/x}\n");
    source.read_file = many_nodes;
    source.context = &count;
    struct config *c = load(&source);
    assert_int_equal(c->upstreams[0].n_nodes, 256);
    assert_node(&c->upstreams[0], 255, "10.0.1.5:6379");

    /* Printed, the list takes more lines than one, and loads again. */
    static struct loaded_text text;
    text.len = 0;
    config_print(c, loaded_write, &text);
    config_free(c);
    c = load_file(text.text);
    assert_int_equal(c->upstreams[0].n_nodes, 256);
    assert_node(&c->upstreams[0], 255, "10.0.1.5:6379");
    config_free(c);

    count = 257;
    refuse(&source, "f:3: nodes = ${file:/x}: more than 256 entries\n");
}

static void bad_nodes_are_told(void **state)
{
    (void)state;
    static const struct {
        const char *value;
        const char *why;
    } cases[] = {
        { "a, b:0", "entry 2: a port is a number from 1 to 65535" },
        { "a, b:65536", "entry 2: a port is a number from 1 to 65535" },
        { "a:", "entry 1: a port is a number from 1 to 65535" },
        { "[::1]:", "entry 1: a port is a number from 1 to 65535" },
        { "::1", "entry 1: write an IPv6 address in brackets: [::1]:6379" },
        { "[::1", "entry 1: an IPv6 address looks like [::1]:6379" },
        { "[a]:1", "entry 1: an IPv6 address looks like [::1]:6379" },
        { "[]", "entry 1: an IPv6 address looks like [::1]:6379" },
        { "[::1]1",
          "entry 1: behind the ] of an IPv6 address stands only :port" },
        { "[::x]:1", "entry 1: this is not a host name or address" },
        { ":1", "entry 1: this is not a host name or address" },
        { "a/b", "entry 1: this is not a host name or address" },
        { "redis://a", "entry 1: a port is a number from 1 to 65535" },
        { "a, unix:/x",
          "entry 2: a Unix socket can't be a node; write host:port" },
        { "/x", "entry 1: a Unix socket can't be a node; write host:port" },
        { ",", "empty; leave it out, or give a value" },
        { "", "empty; leave it out, or give a value" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[256];
        char expected[256];
        (void)snprintf(text, sizeof(text),
                       "[upstream u]\ntype = cluster\nnodes = %s\n",
                       cases[i].value);
        (void)snprintf(expected, sizeof(expected), "f:3: nodes = %s: %s\n",
                       cases[i].value, cases[i].why);
        refuse_file(text, expected);
    }
}

static void a_node_twice_is_told(void **state)
{
    (void)state;
    refuse_file("[upstream u]\ntype = cluster\n"
                "nodes = Host, b, host:6379, host:1, [::1], [0:0::1]:6379, b\n"
                "zone = z\nnode_zones = h=1, H=2, h:1=2\n",
                "f:3: host:6379 is listed twice in the nodes\n"
                "f:3: [0:0::1]:6379 is listed twice in the nodes\n"
                "f:3: b:6379 is listed twice in the nodes\n"
                "f:5: H is listed twice in node_zones\n");
    struct config_source source = { .url = "redis+sentinel://a,a:26379/m" };
    refuse(&source, "command line: a:26379 is listed twice in the nodes\n");
}

static void node_zones_are_read(void **state)
{
    (void)state;
    struct config *c = load_file("[upstream u]\ntype = cluster\nnodes = a\n"
                                 "zone = z1\n"
                                 "node_zones = a:1=z1, b=z:2, [::1]:3=z3\n"
                                 "node_zones = [::1]=z4\n");
    const struct upstream_config *u = &c->upstreams[0];
    static const struct {
        const char *host;
        uint16_t port;
        const char *zone;
    } expected[] = { { "a", 1, "z1" },
                     { "b", 0, "z:2" },
                     { "::1", 3, "z3" },
                     { "::1", 0, "z4" } };
    assert_int_equal(u->n_node_zones, 4);
    for (size_t i = 0; i < 4; i++) {
        assert_string_equal(u->node_zones[i].node.host, expected[i].host);
        assert_int_equal(u->node_zones[i].node.port, expected[i].port);
        assert_string_equal(u->node_zones[i].zone, expected[i].zone);
    }
    config_free(c);

    static const char *const bad[][2] = {
        { "a", "write host:port=zone, or host=zone for every port of a host" },
        { "=z", "write host:port=zone, or host=zone for every port of a host" },
        { "a=", "the name is empty" },
        { "a:0=z", "a port is a number from 1 to 65535" },
        { "a=b=c", "a name has letters, digits, '.', '_', '-', ':' and '/'" },
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        char text[256];
        char why[256];
        (void)snprintf(text, sizeof(text),
                       "[upstream u]\ntype = cluster\nnodes = a\nzone = z\n"
                       "node_zones = x=y, %s\n",
                       bad[i][0]);
        (void)snprintf(why, sizeof(why),
                       "f:5: node_zones = x=y, %s: entry 2: %s\n", bad[i][0],
                       bad[i][1]);
        refuse_file(text, why);
    }
}

static void allowed_nodes_are_networks_and_names(void **state)
{
    (void)state;
    static const char loopback[] = "\0\0\0\0\0\0\0\0\0\0\xff\xff\x7f\0\0\1";
    static const char ten[] = "\0\0\0\0\0\0\0\0\0\0\xff\xff\x0a\0\0\0";
    static const char doc[] = "\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\0";
    struct config *c =
        load_file("[upstream u]\ntype = cluster\nnodes = a\n"
                  "allow_nodes = 10.0.0.0/8, 2001:DB8::/32, 127.0.0.1, ::1\n"
                  "allow_nodes = Redis.Example.net, *.Cache.internal\n"
                  "allow_nodes = 0.0.0.0/0, ::/0, ::ffff:10.0.0.0/104\n");
    const struct allowed_nodes *a = c->upstreams[0].allow_nodes;
    assert_int_equal(c->upstreams[0].n_allow_nodes, 9);
    assert_memory_equal(a[0].net, ten, IP_BYTES);
    assert_int_equal(a[0].bits, 104);
    assert_memory_equal(a[1].net, doc, IP_BYTES);
    assert_int_equal(a[1].bits, 32);
    assert_memory_equal(a[2].net, loopback, IP_BYTES);
    assert_int_equal(a[2].bits, 128);
    assert_int_equal(a[3].bits, 128);
    assert_null(a[3].host);
    assert_string_equal(a[4].host, "redis.example.net");
    assert_string_equal(a[5].host, "*.cache.internal");
    assert_int_equal(a[6].bits, 96);
    assert_int_equal(a[7].bits, 0);
    assert_memory_equal(a[8].net, ten, IP_BYTES);
    assert_int_equal(a[8].bits, 104);
    config_free(c);
}

static void bad_allowed_nodes_are_told(void **state)
{
    (void)state;
    static const char number_v4[] =
        "behind the / of a network stands a number from 0 to 32";
    static const char number_v6[] =
        "behind the / of a network stands a number from 0 to 128";
    static const char *const cases[][2] = {
        { "10.0.0.0/33", number_v4 },
        { "10.0.0.0/", number_v4 },
        { "10.0.0.0/-1", number_v4 },
        { "10.0.0.0/8x", number_v4 },
        { "10.0.0.0/0008", number_v4 },
        { "::/129", number_v6 },
        { "10.0.0.1/8", "the address has bits that are not of the network; "
                        "10.0.0.0/8 is right, 10.0.0.1/8 is not" },
        { "2001:db8::1/64", "the address has bits that are not of the network; "
                            "10.0.0.0/8 is right, 10.0.0.1/8 is not" },
        { "10.0.0/8", "this is no network; write 10.0.0.0/8 or 2001:db8::/32" },
        { "a/8", "this is no network; write 10.0.0.0/8 or 2001:db8::/32" },
        { "10.0.0", "this is neither an IP address nor a name" },
        { "10.0.0.256", "this is neither an IP address nor a name" },
        { "h:6379", "write a host without a port" },
        { "[::1]", "write a host without a port" },
        { "*", "a * may only stand for the first parts of a name: "
               "*.example.net" },
        { "*.", "a * may only stand for the first parts of a name: "
                "*.example.net" },
        { "*x.y", "a * may only stand for the first parts of a name: "
                  "*.example.net" },
        { "a.*.b", "a * may only stand for the first parts of a name: "
                   "*.example.net" },
        { "*..a", "this is not a host name or address" },
        { "a@b", "this is not a host name or address" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char text[256];
        char why[256];
        (void)snprintf(text, sizeof(text),
                       "[upstream u]\ntype = cluster\nnodes = a\n"
                       "allow_nodes = x, y, %s\n",
                       cases[i][0]);
        (void)snprintf(why, sizeof(why),
                       "f:4: allow_nodes = x, y, %s: entry 3: %s\n",
                       cases[i][0], cases[i][1]);
        refuse_file(text, why);
    }
}

/* URLs --- */

static void a_url_says_the_type(void **state)
{
    (void)state;
    struct config_source source = { .url = "redis+cluster://u:p@a,b:2/0" };
    struct config *c = load(&source);
    const struct upstream_config *u = &c->upstreams[0];
    assert_int_equal(u->type, UPSTREAM_CLUSTER);
    assert_int_equal(u->n_nodes, 2);
    assert_node(u, 0, "a:6379");
    assert_node(u, 1, "b:2");
    assert_string_equal(u->username, "u");
    assert_string_equal(u->password, "p");
    config_free(c);

    source.url = "sentinel://u:p@a,[::1]:2/m?db=3&sentinel_username=s"
                 "&sentinel_password=t";
    c = load(&source);
    u = &c->upstreams[0];
    assert_int_equal(u->type, UPSTREAM_SENTINEL);
    assert_int_equal(u->n_nodes, 2);
    assert_node(u, 0, "a:26379");
    assert_node(u, 1, "[::1]:2");
    assert_string_equal(u->master_name, "m");
    assert_string_equal(u->username, "u");
    assert_string_equal(u->password, "p");
    assert_string_equal(u->sentinel_username, "s");
    assert_string_equal(u->sentinel_password, "t");
    assert_int_equal(u->db, 3);
    config_free(c);

    /* The type besides, the same; and a name that the URL does not have. */
    c = load_file("[upstream c]\nurl = redis+cluster://a\ntype = cluster\n"
                  "[upstream s]\ntype = sentinel\nurl = redis+sentinel://a\n"
                  "master_name = m\n"
                  "[upstream default]\ntype = standalone\nurl = redis://a\n");
    assert_int_equal(c->upstreams[0].type, UPSTREAM_CLUSTER);
    assert_string_equal(c->upstreams[1].master_name, "m");
    assert_int_equal(c->upstreams[2].type, UPSTREAM_STANDALONE);
    config_free(c);
}

static void a_url_and_its_parts_are_one_thing(void **state)
{
    (void)state;
    refuse_file("[upstream c]\n"
                "url = redis+sentinel://u:p@a/m?db=1&sentinel_username=s"
                "&sentinel_password=hunter2\n"
                "nodes = b\nmaster_name = n\nusername = v\npassword = q\n"
                "sentinel_username = t\nsentinel_password = u\ndb = 2\n",
                "f:3: nodes is also in the url at f:2; keep one of them\n"
                "f:9: db is also in the url at f:2; keep one of them\n"
                "f:5: username is also in the url at f:2; keep one of them\n"
                "f:6: password is also in the url at f:2; keep one of them\n"
                "f:4: master_name is also in the url at f:2; keep one of them\n"
                "f:7: sentinel_username is also in the url at f:2; keep one of "
                "them\n"
                "f:8: sentinel_password is also in the url at f:2; keep one of "
                "them\n");
}

static void a_type_that_is_not_that_of_the_url_is_told(void **state)
{
    (void)state;
    refuse_file("[upstream c]\nurl = redis://a\ntype = cluster\n"
                "[upstream d]\ntype = standalone\nurl = redis+sentinel://a/m\n"
                "[listener l]\nupstream = c\n",
                "f:3: type = cluster, but the url at f:2 is one for "
                "standalone; take the type out, or begin the url with "
                "redis+cluster://\n"
                "f:5: type = standalone, but the url at f:6 is one for "
                "sentinel; take the type out, or begin the url with "
                "redis://\n");
}

static void bad_nodes_of_a_url_are_told_without_showing_it(void **state)
{
    (void)state;
    struct config_source source = { .url = "redis+cluster://:hunter2@a,b:x" };
    refuse(&source, "command line: url: entry 2: a port is a number from 1 to "
                    "65535\n");
    source.url = "redis+cluster://:hunter2@a,::1";
    refuse(&source, "command line: url: entry 2: write an IPv6 address in "
                    "brackets: [::1]:6379\n");
    source.url = "rediss+cluster://:hunter2@a";
    refuse(&source, "command line: url: TLS to the servers is not built yet; "
                    "use redis+cluster:// on a trusted network\n");
    source.url = "redis+cluster://:hunter2@a/1";
    refuse(&source,
           "command line: a cluster has only database 0; take the db out\n");
    source.url = "redis+sentinel://:hunter2@a";
    refuse(&source, "command line: [upstream default] has no master_name; "
                    "write master_name = mymaster, or whatever the sentinels "
                    "call it, or end the url with /mymaster\n");
    source.url = "redis+sentinel://a/m%20n";
    refuse(&source, "command line: url: a name has letters, digits, '.', '_', "
                    "'-', ':' and '/'\n");
    source.url = "redis+sentinel://a/m?sentinel_username=s";
    refuse(&source, "command line: a sentinel_username needs a "
                    "sentinel_password\n");
}

static void a_url_of_the_command_line_replaces_the_server(void **state)
{
    (void)state;
    static const char sentinels[] =
        "[upstream default]\ntype = sentinel\nnodes = a\nnodes = b\n"
        "master_name = m\nusername = u\npassword = p\ndb = 3\n"
        "sentinel_username = s\nsentinel_password = t\nretries = 7\n";
    static const char *const sets[] = { "upstream.password=q",
                                        "upstream.url=redis+cluster://c,d" };
    struct config_source source = loaded_source(sentinels);
    source.url = "redis://h:1";
    struct config *c = load(&source);
    const struct upstream_config *u = &c->upstreams[0];
    assert_int_equal(u->type, UPSTREAM_STANDALONE);
    assert_string_equal(u->address.host, "h");
    assert_int_equal(u->n_nodes, 0);
    assert_null(u->master_name);
    assert_null(u->username);
    assert_null(u->password);
    assert_null(u->sentinel_username);
    assert_null(u->sentinel_password);
    assert_int_equal(u->db, 0);
    assert_int_equal(u->retries, 7);
    config_free(c);

    /* So does --set, but not what is set besides it. */
    source.sets = sets;
    source.n_sets = 2;
    c = load(&source);
    u = &c->upstreams[0];
    assert_int_equal(u->type, UPSTREAM_CLUSTER);
    assert_int_equal(u->n_nodes, 2);
    assert_node(u, 0, "c:6379");
    assert_string_equal(u->address.host, "");
    assert_null(u->username);
    assert_string_equal(u->password, "q");
    assert_null(u->sentinel_password);
    config_free(c);
}

static void set_wins_over_the_nodes_of_a_url(void **state)
{
    (void)state;
    static const char *const sets[] = { "upstream.nodes=c",
                                        "upstream.master_name=n" };
    struct config_source source = { .url = "redis+sentinel://a,b/m",
                                    .sets = sets,
                                    .n_sets = 2 };
    struct config *c = load(&source);
    assert_int_equal(c->upstreams[0].n_nodes, 1);
    assert_node(&c->upstreams[0], 0, "c:26379");
    assert_string_equal(c->upstreams[0].master_name, "n");
    config_free(c);
}

/* What must fit together --- */

static void each_type_needs_its_place(void **state)
{
    (void)state;
    refuse_file("[upstream c]\ntype = cluster\n"
                "[upstream s]\ntype = sentinel\n"
                "[upstream default]\ntype = standalone\n",
                "f:1: [upstream c] has no nodes; write nodes = host:port, "
                "host:port or url = redis+cluster://host:port,host:port\n"
                "f:3: [upstream s] has no nodes; write nodes = host:port, "
                "host:port or url = "
                "redis+sentinel://host:port,host:port/master_name\n"
                "f:4: [upstream s] has no master_name; write master_name = "
                "mymaster, or whatever the sentinels call it, or end the url "
                "with /mymaster\n"
                "f:5: [upstream default] has no address; write address = "
                "host:port or url = redis://host:port, or give a URL on the "
                "command line\n");
}

static void keys_of_other_types_are_told(void **state)
{
    (void)state;
    refuse_file("[upstream default]\nnodes = a\nmaster_name = m\n",
                "f:2: nodes is only for type = cluster or sentinel; [upstream "
                "default] has type = standalone: say which type it is\n"
                "f:3: master_name is only for type = sentinel; [upstream "
                "default] has type = standalone: say which type it is\n");
    refuse_file("[upstream default]\nurl = redis://h\nnodes = a\n"
                "read_from = any\nzone = z\n",
                "f:3: nodes is only for type = cluster or sentinel; [upstream "
                "default] has type = standalone: take it out\n"
                "f:4: read_from is only for type = cluster or sentinel; "
                "[upstream default] has type = standalone: take it out\n"
                "f:5: zone is only for type = cluster or sentinel; [upstream "
                "default] has type = standalone: take it out\n");
    refuse_file("[upstream c]\ntype = cluster\naddress = h:1\n"
                "master_name = m\nsentinel_username = u\n"
                "sentinel_password = p\ndb = 1\n",
                "f:3: address is only for type = standalone; [upstream c] has "
                "type = cluster: its servers stand in nodes = host:port, "
                "host:port\n"
                "f:4: master_name is only for type = sentinel; [upstream c] "
                "has type = cluster: take it out\n"
                "f:5: sentinel_username is only for type = sentinel; [upstream "
                "c] has type = cluster: take it out\n"
                "f:6: sentinel_password is only for type = sentinel; [upstream "
                "c] has type = cluster: take it out\n"
                "f:7: a cluster has only database 0; take the db out\n");
    refuse_file("[upstream s]\nurl = redis+sentinel://a/m\n"
                "cluster_view = real\nredirects_max = 3\nnode_retries = 3\n"
                "cluster_error_retry_attempts = 1\n",
                "f:3: cluster_view is only for type = cluster; [upstream s] "
                "has type = sentinel: take it out\n"
                "f:4: redirects_max is only for type = cluster; [upstream s] "
                "has type = sentinel: take it out\n"
                "f:5: node_retries is only for type = cluster; [upstream s] "
                "has type = sentinel: take it out\n"
                "f:6: cluster_error_retry_attempts is only for type = cluster; "
                "[upstream s] has type = sentinel: take it out\n");
}

static void a_type_that_is_unknown_has_no_other_problems(void **state)
{
    (void)state;
    refuse_file("[upstream default]\ntype = clutser\nnodes = a, a\n"
                "cluster_view = real\n[listener l]\nannounce = a:1\n",
                "f:2: type = clutser: allowed is standalone, cluster, "
                "sentinel or grpc; did you mean 'cluster'?\n");
    refuse_file("[upstream default]\nurl = redis+clutser://a\n"
                "cluster_view = real\n",
                "f:2: url: a URL begins with redis://, redis+cluster://, "
                "redis+sentinel://, redis+unix://, grpc:// or grpc+unix://, "
                "such as redis://127.0.0.1:6379\n");
}

static void zones_of_nodes_need_ones_own(void **state)
{
    (void)state;
    refuse_file("[upstream c]\nurl = redis+cluster://a\nnode_zones = a=b\n",
                "f:3: node_zones need zone, the one that redial runs in\n");
}

static void announce_is_for_clients_of_a_cluster(void **state)
{
    (void)state;
    struct config *c = load_file("[listener l]\nannounce = [2001:db8::1]:7\n"
                                 "[upstream c]\nurl = redis+cluster://a\n");
    assert_string_equal(c->listeners[0].announce.host, "2001:db8::1");
    assert_int_equal(c->listeners[0].announce.port, 7);
    config_free(c);
    refuse_file("[listener l]\nannounce = unix:/x\n"
                "[upstream c]\nurl = redis+cluster://a\n",
                "f:2: announce is what cluster clients are told: host:port, "
                "not a Unix socket\n");
    refuse_file("[listener l]\nannounce = a:1\n"
                "[upstream c]\nurl = redis+sentinel://a/m\n",
                "f:2: announce is only for clients of a cluster; [upstream c] "
                "has type = sentinel; take it out\n");
    refuse_file("[listener l]\nannounce = :1\n"
                "[upstream c]\nurl = redis+cluster://a\n",
                "f:2: announce = :1: write host:port, [v6]:port or unix:/path, "
                "such as 127.0.0.1:6379\n");
}

static void numbers_have_ranges(void **state)
{
    (void)state;
    refuse_file("[upstream c]\nurl = redis+cluster://a\n"
                "read_from = replicas\ncluster_view = both\n"
                "topology_refresh = 99ms\ntopology_min_interval = 2m\n"
                "silence_probe = 1ms\nredirects_max = 0\nnode_retries = 0\n"
                "cluster_error_retry_attempts = -2\n",
                "f:3: read_from = replicas: allowed is primary, "
                "prefer_replica, replica or any; did you mean 'replica'?\n"
                "f:4: cluster_view = both: allowed is single or real\n"
                "f:5: topology_refresh = 99ms: out of range; allowed is 100ms "
                "to 1h\n"
                "f:6: topology_min_interval = 2m: out of range; allowed is 1ms "
                "to 1m\n"
                "f:7: silence_probe = 1ms: out of range; allowed is off, or "
                "10ms to 1h\n"
                "f:8: redirects_max = 0: out of range; allowed is 1 to 100\n"
                "f:9: node_retries = 0: out of range; allowed is 1 to 1000\n"
                "f:10: cluster_error_retry_attempts = -2: out of range; "
                "allowed is -1 to 1000000\n");
}

/* Printing --- */

static void print_to(struct config *c, struct loaded_text *text)
{
    text->len = 0;
    config_print(c, loaded_write, text);
    config_free(c);
}

static void what_is_printed_loads_to_the_same(void **state)
{
    (void)state;
    static struct loaded_text first;
    static struct loaded_text second;
    print_to(load_file("[listener l]\nupstream = c\nannounce = a.b:1\n"
                       "[upstream c]\nurl = redis+cluster://a,[::1]:1,b:2\n"
                       "zone = z\nnode_zones = a=z, [::1]:1=y, [::2]=x\n"
                       "allow_nodes = 10.0.0.0/8, 2001:db8::/32, ::/0, 1.2.3.4,"
                       " ::1, *.A.b, ::ffff:1.2.0.0/112, 0.0.0.0/0\n"
                       "read_from = any\nreplica_max_lag = off\n"
                       "cluster_view = real\nsilence_probe = 90s\n"
                       "[upstream s]\nurl = sentinel://a,b:1/m?db=3\n"
                       "[upstream u]\naddress = h:1\n"),
             &first);
    assert_non_null(strstr(first.text, "announce = a.b:1\n"));
    assert_non_null(strstr(first.text, "type = cluster\nnodes = a:6379, "
                                       "[::1]:1, b:2\n"));
    assert_non_null(strstr(first.text, "type = sentinel\nnodes = a:26379, b:1\n"
                                       "master_name = m\n"));
    assert_non_null(
        strstr(first.text, "node_zones = a=z, [::1]:1=y, [::2]=x\n"));
    assert_non_null(strstr(first.text,
                           "allow_nodes = 10.0.0.0/8, 2001:db8::/32, ::/0, "
                           "1.2.3.4, ::1, *.a.b, 1.2.0.0/16, 0.0.0.0/0\n"));
    const char *sentinel = strstr(first.text, "[upstream s]");
    assert_non_null(sentinel);
    assert_null(strstr(sentinel, "cluster_view")); /* not for this type */
    assert_null(strstr(strstr(first.text, "[upstream c]"), "address = off"));
    print_to(load_file(first.text), &second);
    assert_string_equal(first.text, second.text);
}

static void secrets_of_sentinels_are_not_printed(void **state)
{
    (void)state;
    static struct loaded_text text;
    struct config_source source = {
        .url = "redis+sentinel://a:hunter2@h/m?sentinel_username=b"
               "&sentinel_password=hunter2"
    };
    print_to(load(&source), &text);
    assert_null(strstr(text.text, "hunter2"));
    assert_non_null(strstr(text.text, "username = a\npassword = ***\n"));
    assert_non_null(strstr(text.text, "sentinel_username = b\n"
                                      "sentinel_password = ***\n"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nodes_have_the_port_of_their_kind),
        cmocka_unit_test(defaults_of_several_servers_are_those_of_the_table),
        cmocka_unit_test(every_value_of_several_servers_is_read),
        cmocka_unit_test(lists_of_several_lines_are_one),
        cmocka_unit_test(a_list_has_at_most_256_entries),
        cmocka_unit_test(bad_nodes_are_told),
        cmocka_unit_test(a_node_twice_is_told),
        cmocka_unit_test(node_zones_are_read),
        cmocka_unit_test(allowed_nodes_are_networks_and_names),
        cmocka_unit_test(bad_allowed_nodes_are_told),
        cmocka_unit_test(a_url_says_the_type),
        cmocka_unit_test(a_url_and_its_parts_are_one_thing),
        cmocka_unit_test(a_type_that_is_not_that_of_the_url_is_told),
        cmocka_unit_test(bad_nodes_of_a_url_are_told_without_showing_it),
        cmocka_unit_test(a_url_of_the_command_line_replaces_the_server),
        cmocka_unit_test(set_wins_over_the_nodes_of_a_url),
        cmocka_unit_test(each_type_needs_its_place),
        cmocka_unit_test(keys_of_other_types_are_told),
        cmocka_unit_test(a_type_that_is_unknown_has_no_other_problems),
        cmocka_unit_test(zones_of_nodes_need_ones_own),
        cmocka_unit_test(announce_is_for_clients_of_a_cluster),
        cmocka_unit_test(numbers_have_ranges),
        cmocka_unit_test(what_is_printed_loads_to_the_same),
        cmocka_unit_test(secrets_of_sentinels_are_not_printed),
    };
    return cmocka_run_group_tests_name("config nodes", tests, NULL, NULL);
}
