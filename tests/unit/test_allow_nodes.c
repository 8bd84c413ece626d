/* Which addresses told by servers may be used: by seeds, by allow_nodes, and
 * never. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "config/ip.h"
#include "proxy/core/allow_nodes.h"
#include "proxy/core/endpoint.h"

enum {
    SEEDS_MAX = 4,
    ENTRIES_MAX = 4,
    LISTENERS_MAX = 2,
    PORT = 6379
};

/* A cluster with seeds, and a process with listeners. */
struct world {
    struct config config;
    struct listener_config listeners[LISTENERS_MAX];
    struct upstream_config upstream;
    struct allowed_nodes entries[ENTRIES_MAX];
    struct cluster cluster;
    struct endpoint endpoints[SEEDS_MAX];
    struct endpoint *places[SEEDS_MAX + 1]; /* the first one is empty */
    struct address resolved[SEEDS_MAX];
};

static struct address address_of(const char *host, uint16_t port)
{
    struct address a = { .port = port };
    assert_true(strlen(host) < sizeof(a.host));
    memcpy(a.host, host, strlen(host) + 1);
    return a;
}

static void world_init(struct world *w)
{
    memset(w, 0, sizeof(*w));
    w->config.listeners = w->listeners;
    w->upstream.allow_nodes = w->entries;
    w->cluster.config = &w->upstream;
    w->cluster.endpoints = w->places;
    w->cluster.n_endpoints = 1;
}

static void add_seed(struct world *w, const char *host, const char *resolved)
{
    uint32_t i = w->cluster.n_endpoints - 1;
    assert_true(i < SEEDS_MAX);
    struct endpoint *p = &w->endpoints[i];
    p->seed = true;
    p->address = address_of(host, PORT);
    if (resolved != NULL) {
        w->resolved[i] = address_of(resolved, PORT);
        p->resolved = &w->resolved[i];
        p->n_resolved = 1;
    }
    w->places[w->cluster.n_endpoints++] = p;
}

static void add_net(struct world *w, const char *ip, unsigned bits)
{
    struct allowed_nodes *a = &w->entries[w->upstream.n_allow_nodes++];
    assert_true(ip_parse(ip, strlen(ip), a->net));
    a->bits = (uint8_t)bits;
}

static void add_name(struct world *w, char *name)
{
    w->entries[w->upstream.n_allow_nodes++].host = name;
}

static void add_listener(struct world *w, const char *host, uint16_t port)
{
    w->listeners[w->config.n_listeners++].address = address_of(host, port);
}

static const char *refusal(const struct world *w,
                           const char *host,
                           uint16_t port)
{
    struct address a = address_of(host, port);
    return allow_nodes_refusal(&w->config, &w->cluster, &a);
}

static void permits(const struct world *w, const char *host)
{
    const char *why = refusal(w, host, PORT);
    if (why != NULL) {
        fail_msg("%s is refused: %s", host, why);
    }
}

static void refuses(const struct world *w, const char *host, const char *words)
{
    const char *why = refusal(w, host, PORT);
    if (why == NULL) {
        fail_msg("%s is permitted", host);
    } else if (strstr(why, words) == NULL) {
        fail_msg("%s is refused: %s, and not: %s", host, why, words);
    }
}

/* ---- by seeds ------------------------------------------------------------- */

static void a_seed_brings_its_neighbours(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    add_seed(&w, "10.1.2.3", NULL);
    add_seed(&w, "2001:db8:7::1", NULL);
    permits(&w, "10.1.2.3");
    permits(&w, "10.1.255.255");
    permits(&w, "10.1.0.0");
    refuses(&w, "10.0.255.255", "far");
    refuses(&w, "10.2.0.0", "far");
    permits(&w, "::ffff:10.1.9.9");
    permits(&w, "::FFFF:0a01:0909");
    refuses(&w, "::ffff:10.2.9.9", "far");
    permits(&w, "2001:DB8:7:ffff::");
    permits(&w, "2001:db8:7::");
    refuses(&w, "2001:db8:8::1", "far");
    refuses(&w, "2001:db8:6:ffff::1", "far");
    refuses(&w, "redis.example.net", "far");
}

static void a_name_brings_itself_and_what_it_resolves_to(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    add_seed(&w, "Redis.Example.net", "10.1.2.3");
    permits(&w, "redis.example.net");
    permits(&w, "REDIS.EXAMPLE.NET.");
    permits(&w, "10.1.200.1");
    refuses(&w, "10.2.0.1", "far");
    refuses(&w, "a.redis.example.net", "far");
    refuses(&w, "redis.example.ne", "far");
    refuses(&w, "xredis.example.net", "far");
    refuses(&w, "127.0.0.1", "loopback");
}

static void a_seed_counts_also_where_it_could_not_be_told(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    add_seed(&w, "169.254.7.7", NULL);
    add_listener(&w, "0.0.0.0", PORT);
    permits(&w, "169.254.7.7");
    permits(&w, "::ffff:169.254.7.7"); /* the same one */
    refuses(&w, "169.254.7.8", "link-local");
    assert_non_null(refusal(&w, "169.254.7.7", PORT + 1));
}

static void endpoints_that_are_no_seeds_bring_nobody(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    add_seed(&w, "10.1.2.3", NULL);
    add_seed(&w, "10.9.2.3", NULL);
    w.endpoints[1].seed = false; /* learnt */
    refuses(&w, "10.9.2.4", "far");
    refuses(&w, "10.9.2.3", "far");
}

static void loopback_needs_a_seed_on_it(void **state)
{
    (void)state;
    static const char *const seeds[][2] = {
        { "127.0.0.1", NULL },       { "::1", NULL },
        { "localhost", NULL },       { "Redis.LOCALHOST.", NULL },
        { "redis", "127.0.0.1" },    { "redis", "::1" },
        { "::ffff:127.1.1.1", NULL }
    };
    for (size_t i = 0; i < sizeof seeds / sizeof *seeds; i++) {
        struct world w;
        world_init(&w);
        add_seed(&w, seeds[i][0], seeds[i][1]);
        permits(&w, "127.0.0.1");
        permits(&w, "127.8.8.8");
        permits(&w, "::1");
        permits(&w, "localhost");
        permits(&w, "LocalHost.");
        permits(&w, "::ffff:127.0.0.1");
        refuses(&w, "10.0.0.1", "far");
        refuses(&w, "::1:0:0:1", "far");
    }
    struct world w;
    world_init(&w);
    add_seed(&w, "10.0.0.1", NULL);
    refuses(&w, "127.0.0.1", "loopback");
    refuses(&w, "127.255.0.1", "loopback");
    refuses(&w, "::1", "loopback");
    refuses(&w, "0:0:0:0:0:0:0:1", "loopback");
    refuses(&w, "::ffff:7f00:1", "loopback");
    refuses(&w, "localhost", "loopback");
    refuses(&w, "a.localhost", "loopback");
    refuses(&w, "localhost.example.net", "far"); /* an ordinary name */
}

/* ---- by allow_nodes ------------------------------------------------------- */

static void allow_nodes_replaces_the_neighbours(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    add_seed(&w, "10.1.2.3", NULL);
    add_net(&w, "192.168.0.0", IP_V4_BITS + 21);
    add_net(&w, "2001:db8::", 33);
    permits(&w, "10.1.2.3");
    refuses(&w, "10.1.2.4", "allow_nodes");
    permits(&w, "192.168.0.0");
    permits(&w, "192.168.7.255");
    refuses(&w, "192.168.8.0", "allow_nodes");
    permits(&w, "2001:db8:7fff::1");
    refuses(&w, "2001:db8:8000::1", "allow_nodes");
    refuses(&w, "redis.example.net", "allow_nodes");
}

static void allow_nodes_takes_names(void **state)
{
    (void)state;
    struct world w;
    char exact[] = "one.example.net";
    char suffix[] = "*.redis.example.net";
    world_init(&w);
    add_seed(&w, "10.1.2.3", NULL);
    add_name(&w, exact);
    add_name(&w, suffix);
    permits(&w, "one.example.net");
    permits(&w, "One.Example.Net.");
    refuses(&w, "two.example.net", "allow_nodes");
    permits(&w, "a.redis.example.net");
    permits(&w, "A.b.REDIS.example.net.");
    refuses(&w, "redis.example.net", "allow_nodes");
    refuses(&w, ".redis.example.net", "neither");
    refuses(&w, "aredis.example.net", "allow_nodes");
    refuses(&w, "a.redis.example.net.evil.org", "allow_nodes");
    refuses(&w, "10.1.2.9", "allow_nodes");
}

static void a_wide_network_opens_no_loopback(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    add_seed(&w, "10.1.2.3", NULL);
    add_net(&w, "::", 0);
    permits(&w, "192.0.2.1");
    permits(&w, "2001:db8::1");
    refuses(&w, "127.0.0.1", "loopback");
    refuses(&w, "::1", "loopback");
    refuses(&w, "169.254.169.254", "link-local");
    refuses(&w, "224.0.0.1", "multicast");
    add_net(&w, "127.0.0.0", IP_V4_BITS + 8);
    permits(&w, "127.0.0.1");
    refuses(&w, "::1", "loopback");
    add_net(&w, "::1", IP_BITS);
    permits(&w, "::1");
}

/* ---- never ---------------------------------------------------------------- */

static void some_addresses_are_nobodys(void **state)
{
    (void)state;
    static const char *const list[][2] = {
        { "0.0.0.0", "unspecified" },
        { "0.1.2.3", "unspecified" },
        { "::", "unspecified" },
        { "::ffff:0.0.0.0", "unspecified" },
        { "::127.0.0.1", "unspecified" },
        { "::a01:203", "unspecified" },
        { "169.254.0.1", "link-local" },
        { "169.254.169.254", "link-local" },
        { "::ffff:169.254.169.254", "link-local" },
        { "::ffff:a9fe:a9fe", "link-local" },
        { "fe80::1", "link-local" },
        { "FEBF:ffff::1", "link-local" },
        { "224.0.0.1", "multicast" },
        { "239.255.255.255", "multicast" },
        { "255.255.255.255", "multicast" },
        { "ff02::1", "multicast" },
    };
    struct world w;
    world_init(&w);
    add_seed(&w, "10.1.2.3", NULL);
    add_net(&w, "::", 0);
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        refuses(&w, list[i][0], list[i][1]);
    }
    permits(&w, "170.254.0.1");
    permits(&w, "169.253.0.1");
    permits(&w, "223.255.255.255");
    permits(&w, "fec0::1");
    permits(&w, "fe7f::1");
    assert_string_equal(refusal(&w, "10.1.2.4", 0), "its port is 0");
    assert_string_equal(refusal(&w, "10.1.2.3", 0), "its port is 0");
    struct address path = { .is_unix = true, .port = PORT, .host = "/tmp/s" };
    assert_non_null(allow_nodes_refusal(&w.config, &w.cluster, &path));
}

static void spellings_that_resolvers_disagree_about_are_refused(void **state)
{
    (void)state;
    static const char *const list[] = {
        "0177.0.0.1",  "127.1",      "2130706433", "0x7f000001", "0x7f.0.0.1",
        "10.1.2.03",   "10.1.2",     "10.1.2.3.",  "10.1.2.3.4", "10.1.2.256",
        "10.1.2.0X4",  "a.0x",       "127.0.0.1.", "",           ".",
        "a..b",        ".a",         "-a",         "a b",        "a/b",
        "a\nb",        "10.1.2.4\t", "fe80::1%1",  "10.1.2.4%1", "[::1]",
        "10.1.2.4:80", "::g",        "1::2::3",    "host:1",     "a.1",
    };
    struct world w;
    char all[] = "*.b";
    world_init(&w);
    add_seed(&w, "10.1.2.3", NULL);
    add_net(&w, "::", 0);
    add_name(&w, all);
    for (size_t i = 0; i < sizeof list / sizeof *list; i++) {
        refuses(&w, list[i], "neither");
    }
    permits(&w, "1a.b");
    permits(&w, "0x1.b");
}

static void redial_never_connects_to_itself(void **state)
{
    (void)state;
    struct world w;
    world_init(&w);
    add_seed(&w, "127.0.0.1", NULL);
    w.endpoints[0].address.port = 7000;
    add_seed(&w, "10.1.2.3", NULL);
    w.endpoints[1].address.port = 7000;
    add_seed(&w, "side.example.net", NULL);
    w.endpoints[2].address.port = 7000;

    add_listener(&w, "127.0.0.1", PORT);
    refuses(&w, "127.0.0.1", "listener");
    refuses(&w, "::ffff:127.0.0.1", "listener");
    refuses(&w, "localhost", "listener");
    permits(&w, "127.0.0.2"); /* others may listen there */
    assert_null(refusal(&w, "127.0.0.1", PORT + 1));

    w.listeners[0].address = address_of("0.0.0.0", PORT);
    refuses(&w, "127.0.0.1", "listener");
    refuses(&w, "127.9.9.9", "listener");
    refuses(&w, "localhost.", "listener");
    permits(&w, "10.1.2.4"); /* another host's, as far as can be told */
    w.listeners[0].address = address_of("::", PORT);
    refuses(&w, "127.0.0.1", "listener");
    refuses(&w, "::1", "listener");
    w.listeners[0].address = address_of("localhost", PORT);
    refuses(&w, "127.0.0.1", "listener");

    w.listeners[0].address = address_of("10.1.2.4", PORT);
    refuses(&w, "10.1.2.4", "listener");
    w.listeners[0].announce = address_of("side.example.net", PORT);
    refuses(&w, "Side.example.net", "listener");
    permits(&w, "10.1.2.5");

    struct address path = { .is_unix = true, .host = "/run/redial.sock" };
    w.listeners[0] = (struct listener_config){ .address = path };
    permits(&w, "10.1.2.4");
    w.config.process.admin = true;
    w.config.process.admin_address = address_of("127.0.0.1", PORT);
    refuses(&w, "127.0.0.1", "listener");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_seed_brings_its_neighbours),
        cmocka_unit_test(a_name_brings_itself_and_what_it_resolves_to),
        cmocka_unit_test(a_seed_counts_also_where_it_could_not_be_told),
        cmocka_unit_test(endpoints_that_are_no_seeds_bring_nobody),
        cmocka_unit_test(loopback_needs_a_seed_on_it),
        cmocka_unit_test(allow_nodes_replaces_the_neighbours),
        cmocka_unit_test(allow_nodes_takes_names),
        cmocka_unit_test(a_wide_network_opens_no_loopback),
        cmocka_unit_test(some_addresses_are_nobodys),
        cmocka_unit_test(spellings_that_resolvers_disagree_about_are_refused),
        cmocka_unit_test(redial_never_connects_to_itself),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
