/* What clients that know clusters are told: each reply byte by byte, for both
 * RESP versions, with both settings of cluster_view; and without memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "config/ip.h"
#include "config_loading.h"
#include "failing_allocator.h"
#include "proxy/core/lane_set.h"
#include "proxy/core/slot_ranges.h"
#include "proxy/core/state.h"

enum {
    REPLY_MAX = 64 * 1024,
    FIRST_US = 1000000,
};

struct scene {
    struct failing memory;
    struct config *config;
    struct engine *engine;
    struct cluster *cluster;
    conn_id client;
    char reply[REPLY_MAX];
    size_t len;
};

#define ANNOUNCED "[listener l]\nupstream = c\nannounce = 10.1.2.3:7000\n"
#define CLUSTER   "[upstream c]\ntype = cluster\nnodes = 10.0.0.1:6379\n"
#define ID_A      "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define ID_B      "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
#define ID_R      "cccccccccccccccccccccccccccccccccccccccc"
/* Made of the upstream's name and the address: must never change. */
#define ID_SELF "986de69f929a23c39207be2e515f1c5a3a9ad93a"
/* A node in CLUSTER SLOTS. */
#define AT_REDIAL(id) "*4\r\n$8\r\n10.1.2.3\r\n:7000\r\n$40\r\n" id "\r\n*0\r\n"

static struct config *load(const char *file)
{
    static struct config_problems problems;
    struct config_source source = loaded_source(file);
    struct config *c = config_load(&source, &problems);
    if (c == NULL) {
        fail_msg("%s: %s", problems.list[0].place, problems.list[0].text);
    }
    return c;
}

static void open_scene(struct scene *s, const char *file)
{
    memset(s, 0, sizeof(*s));
    s->memory.left = SIZE_MAX;
    s->config = load(file);
    struct engine_options options = { .config = s->config,
                                      .seed = 1,
                                      .now_us = FIRST_US,
                                      .allocator =
                                          failing_allocator(&s->memory) };
    s->engine = engine_new(&options);
    assert_non_null(s->engine);
    s->cluster = &s->engine->clusters[0];
}

static void drain(struct scene *s)
{
    struct action a;
    while (engine_next(s->engine, &a)) {
        if (a.type != ACTION_WRITE) {
            continue;
        }
        size_t room = sizeof(s->reply) - 1 - s->len;
        if (a.conn == s->client) {
            s->len += chain_copy(&a.bytes, (uint8_t *)s->reply + s->len, room);
        }
        chain_clear(engine_memory(s->engine), &a.bytes);
    }
    s->reply[s->len] = '\0';
}

static void close_scene(struct scene *s)
{
    engine_free(s->engine);
    config_free(s->config);
    assert_int_equal(s->memory.live, 0);
}

static struct downstream *client_of(const struct scene *s)
{
    return CONTAINER_OF(conn_find(s->engine, s->client), struct downstream,
                        conn);
}

/* A client that came to that address (NULL: not told) and speaks that RESP. */
static void connect_to(struct scene *s, const char *ip, uint8_t resp)
{
    s->client = engine_reserve(s->engine, 0);
    assert_true(s->client != 0);
    struct event accepted = { .type = EVENT_ACCEPTED,
                              .now_us = FIRST_US,
                              .conn = s->client };
    if (ip != NULL) {
        accepted.local_port = 6400;
        assert_true(ip_parse(ip, strlen(ip), accepted.local_ip));
    }
    engine_step(s->engine, &accepted);
    struct downstream *d = client_of(s);
    d->session = session_copy(s->engine, s->cluster->fresh);
    assert_non_null(d->session);
    d->session->resp = resp;
}

static void say(struct scene *s, const char *words)
{
    struct memory *m = engine_memory(s->engine);
    size_t len = strlen(words);
    struct buf *b = buf_new(m, (uint32_t)len + 2);
    s->len = 0;
    if (b == NULL) {
        return;
    }
    memcpy(b->data, words, len);
    memcpy(b->data + len, "\r\n", 2);
    b->len = (uint32_t)len + 2;
    struct event bytes = { .type = EVENT_BYTES,
                           .now_us = FIRST_US,
                           .conn = s->client,
                           .bytes = { .buf = b, .len = b->len } };
    engine_step(s->engine, &bytes);
    drain(s);
}

static void expect(struct scene *s, const char *words, const char *reply)
{
    say(s, words);
    assert_string_equal(s->reply, reply);
}

static void expect_begin(const struct scene *s, const char *text)
{
    if (strncmp(s->reply, text, strlen(text)) != 0) {
        fail_msg("not at the beginning: %s\nof: %s", text, s->reply);
    }
}

static struct endpoint *add(struct scene *s, const char *host, const char *id)
{
    struct address a = { .port = 6379 };
    memcpy(a.host, host, strlen(host));
    struct endpoint *p = cluster_find(s->cluster, &a);
    p = p != NULL ? p : cluster_add(s->engine, s->cluster, &a);
    assert_non_null(p);
    memcpy(p->id, id, strlen(id));
    p->known = true;
    p->online = true;
    p->role = NODE_PRIMARY;
    return p;
}

static void give(struct scene *s, struct endpoint *p, int first, int last)
{
    for (int i = first; i <= last; i++) {
        s->cluster->endpoints[s->cluster->slots[i]]->n_slots--;
        s->cluster->slots[i] = (uint16_t)p->index;
        p->n_slots++;
    }
}

/* A: 0-99 and 200; B: 101-199 and 201-16383, with a replica; 100: nobody. */
static void adopt(struct scene *s)
{
    struct topology *t = s->cluster->topology;
    s->cluster->endpoints[0]->n_slots = KEYSLOT_COUNT;
    struct endpoint *a = add(s, "10.0.0.1", ID_A);
    struct endpoint *b = add(s, "10.0.0.2", ID_B);
    struct endpoint *r = add(s, "10.0.0.3", ID_R);
    a->shard = 1;
    b->shard = 2;
    r->shard = 2;
    r->role = NODE_REPLICA;
    give(s, a, 0, 99);
    give(s, b, 101, KEYSLOT_COUNT - 1);
    give(s, a, 200, 200);
    t->primaries = memory_take(s->engine->memory, 2 * sizeof(*t->primaries));
    assert_non_null(t->primaries);
    t->primaries[0] = (uint16_t)a->index;
    t->primaries[1] = (uint16_t)b->index;
    t->n_primaries = 2;
    t->epoch = 9;
}

/* ---- one node ----------------------------------------------------------------- */

static void one_node_owns_all_slots(void **state)
{
    (void)state;
    struct scene s;
    open_scene(&s, ANNOUNCED CLUSTER);
    connect_to(&s, "127.0.0.1", 2); /* what is configured counts */
    expect(&s, "CLUSTER SLOTS",
           "*1\r\n*3\r\n:0\r\n:16383\r\n*4\r\n$8\r\n10.1.2.3\r\n:7000\r\n"
           "$40\r\n" ID_SELF "\r\n*0\r\n");
    expect(&s, "cluster shards",
           "*1\r\n*4\r\n$5\r\nslots\r\n*2\r\n:0\r\n:16383\r\n$5\r\nnodes\r\n"
           "*1\r\n*14\r\n$2\r\nid\r\n$40\r\n" ID_SELF
           "\r\n$4\r\nport\r\n:7000\r\n$2\r\nip\r\n$8\r\n10.1.2.3\r\n"
           "$8\r\nendpoint\r\n$8\r\n10.1.2.3\r\n$4\r\nrole\r\n$6\r\nmaster\r\n"
           "$18\r\nreplication-offset\r\n:0\r\n$6\r\nhealth\r\n$6\r\nonline"
           "\r\n");
    expect(&s, "CLUSTER NODES",
           "$101\r\n" ID_SELF
           " 10.1.2.3:7000@17000 myself,master - 0 0 0 connected 0-16383\n"
           "\r\n");
    expect(&s, "CLUSTER MYID", "$40\r\n" ID_SELF "\r\n");
    expect(&s, "CLUSTER LINKS", "*0\r\n");
    expect(&s, "CLUSTER REPLICAS " ID_SELF, "*0\r\n");
    expect(&s, "CLUSTER SLAVES \"a\\r\\n+b\"", "-ERR Unknown node a??+b\r\n");
    expect(&s, "CLUSTER KEYSLOT foo", ":12182\r\n");
    expect(&s, "CLUSTER KEYSLOT {foo}x", ":12182\r\n");
    close_scene(&s);
}

static void resp3_has_maps_and_verbatim_text(void **state)
{
    (void)state;
    struct scene s;
    open_scene(&s, ANNOUNCED CLUSTER);
    connect_to(&s, NULL, 3);
    expect(&s, "CLUSTER SLOTS",
           "*1\r\n*3\r\n:0\r\n:16383\r\n*4\r\n$8\r\n10.1.2.3\r\n:7000\r\n"
           "$40\r\n" ID_SELF "\r\n%0\r\n");
    say(&s, "CLUSTER SHARDS");
    expect_begin(&s, "*1\r\n%2\r\n$5\r\nslots\r\n*2\r\n");
    assert_non_null(strstr(s.reply, "*1\r\n%7\r\n$2\r\nid\r\n$40\r\n"));
    expect(&s, "CLUSTER NODES",
           "=105\r\ntxt:" ID_SELF
           " 10.1.2.3:7000@17000 myself,master - 0 0 0 connected 0-16383\n"
           "\r\n");
    close_scene(&s);
}

static void the_state_is_ok_when_somebody_serves(void **state)
{
    (void)state;
    struct scene s;
    open_scene(&s, ANNOUNCED CLUSTER);
    connect_to(&s, NULL, 2);
    say(&s, "CLUSTER INFO");
    assert_non_null(strstr(s.reply, "cluster_state:fail\r\n"
                                    "cluster_slots_assigned:0\r\n"));
    adopt(&s);
    say(&s, "CLUSTER INFO");
    assert_non_null(strstr(s.reply, "\r\ncluster_state:ok\r\n"
                                    "cluster_slots_assigned:16384\r\n"));
    assert_non_null(strstr(s.reply, "cluster_known_nodes:1\r\n"
                                    "cluster_size:1\r\n"
                                    "cluster_current_epoch:9\r\n"));
    close_scene(&s);
}

/* A client is told the address that it has come to, unless there is another
 * one to be told. */
static void the_address_is_one_the_client_can_use(void **state)
{
    (void)state;
    static const struct {
        const char *file;
        const char *ip;
        const char *host_and_port;
    } cases[] = {
        { "[listener l]\naddress = 127.0.0.1:6400\n" CLUSTER, NULL,
          "$9\r\n127.0.0.1\r\n:6400\r\n" },
        { "[listener l]\naddress = 0.0.0.0:6400\nbind_public = yes\n" CLUSTER,
          "10.9.8.7", "$8\r\n10.9.8.7\r\n:6400\r\n" },
        { "[listener l]\naddress = [::]:6400\nbind_public = yes\n" CLUSTER,
          "::ffff:10.9.8.7", "$8\r\n10.9.8.7\r\n:6400\r\n" },
        { "[listener l]\naddress = [::]:6400\nbind_public = yes\n" CLUSTER,
          "2001:db8::1", "$11\r\n2001:db8::1\r\n:6400\r\n" },
        { "[listener l]\naddress = 0.0.0.0:6400\nbind_public = yes\n" CLUSTER,
          NULL, "$-1\r\n:0\r\n" },
        { "[listener l]\naddress = unix:/tmp/none\n" CLUSTER, NULL,
          "$-1\r\n:0\r\n" },
        { "[listener l]\nannounce = a.example.net:1\n" CLUSTER, "127.0.0.1",
          "$13\r\na.example.net\r\n:1\r\n" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct scene s;
        open_scene(&s, cases[i].file);
        connect_to(&s, cases[i].ip, 2);
        say(&s, "CLUSTER SLOTS");
        size_t n = strlen(cases[i].host_and_port);
        assert_true(s.len > 30 + n);
        assert_memory_equal(s.reply +
                                strlen("*1\r\n*3\r\n:0\r\n:16383\r\n*4\r\n"),
                            cases[i].host_and_port, n);
        close_scene(&s);
    }
}

static void wrong_calls_get_the_servers_words(void **state)
{
    (void)state;
    struct scene s;
    open_scene(&s, ANNOUNCED CLUSTER);
    connect_to(&s, NULL, 2);
    expect(&s, "CLUSTER KEYSLOT",
           "-ERR wrong number of arguments for 'cluster|keyslot' command\r\n");
    expect(&s, "CLUSTER KEYSLOT a b",
           "-ERR wrong number of arguments for 'cluster|keyslot' command\r\n");
    expect(&s, "CLUSTER SLOTS 1",
           "-ERR wrong number of arguments for 'cluster|slots' command\r\n");
    expect(&s, "CLUSTER REPLICAS",
           "-ERR wrong number of arguments for 'cluster|replicas' command\r\n");
    close_scene(&s);
}

static void nodes_are_not_changed_through_redial(void **state)
{
    (void)state;
    static const char *const commands[] = { "RESET HARD", "FAILOVER",
                                            "ADDSLOTS 1", "FORGET " ID_A,
                                            "SETSLOT 1 NODE " ID_A };
    struct scene s;
    open_scene(&s, ANNOUNCED CLUSTER);
    connect_to(&s, NULL, 2);
    for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
        char line[100], reply[200];
        int word = (int)strcspn(commands[i], " ");
        snprintf(line, sizeof(line), "CLUSTER %s", commands[i]);
        snprintf(reply, sizeof(reply),
                 "-ERR CLUSTER %.*s is not passed on through redial: speak to "
                 "the node itself\r\n",
                 word, commands[i]);
        expect(&s, line, reply);
    }
    close_scene(&s);
}

/* ---- the nodes ------------------------------------------------------------------ */

static void the_real_view_has_all_at_one_address(void **state)
{
    (void)state;
    struct scene s;
    open_scene(&s, ANNOUNCED CLUSTER "cluster_view = real\n");
    connect_to(&s, NULL, 2);
    expect(&s, "CLUSTER SLOTS",
           "-CLUSTERDOWN redial does not know the topology yet\r\n");
    expect(&s, "CLUSTER KEYSLOT foo", ":12182\r\n");
    adopt(&s);
    expect(&s, "CLUSTER SLOTS",
           "*4\r\n"
           "*3\r\n:0\r\n:99\r\n" AT_REDIAL(
               ID_A) "*3\r\n:101\r\n:"
                     "199\r\n" AT_REDIAL(ID_B) "*3\r\n"
                                               ":200\r"
                                               "\n:"
                                               "200\r"
                                               "\n" AT_REDIAL(
                                                   ID_A) "*3\r\n:201\r\n:"
                                                         "16383\r\n" AT_REDIAL(
                                                             ID_B));
    say(&s, "CLUSTER NODES");

    expect_begin(&s, "$206\r\n" ID_A " 10.1.2.3:7000@17000 master - 0 0 9 "
                     "connected 0-99 200\n" ID_B " 10.1.2.3:7000@17000 "
                     "myself,master - 0 0 9 connected 101-199 201-16383\n"
                     "\r\n");
    say(&s, "CLUSTER SHARDS");
    expect_begin(&s, "*2\r\n*4\r\n$5\r\nslots\r\n*4\r\n:0\r\n:99\r\n:200\r\n"
                     ":200\r\n$5\r\nnodes\r\n*1\r\n*14\r\n");
    expect(&s, "CLUSTER REPLICAS " ID_B, "*0\r\n"); /* read_from = primary */
    expect(&s, "CLUSTER REPLICAS " ID_R,
           "-ERR The specified node is not a master\r\n");
    expect(&s, "CLUSTER REPLICAS x", "-ERR Unknown node x\r\n");
    close_scene(&s);
}

static void replicas_are_shown_when_they_are_read(void **state)
{
    (void)state;
    struct scene s;
    open_scene(&s, ANNOUNCED CLUSTER "cluster_view = real\nread_from = any\n");
    connect_to(&s, NULL, 3);
    adopt(&s);
    say(&s, "CLUSTER SLOTS");
    expect_begin(&s, "*4\r\n*3\r\n:0\r\n:99\r\n"); /* A has none */
    assert_non_null(strstr(s.reply, ":101\r\n:199\r\n*4\r\n$8\r\n10.1.2.3\r\n"
                                    ":7000\r\n$40\r\n" ID_B "\r\n%0\r\n*4\r\n"
                                    "$8\r\n10.1.2.3\r\n:7000\r\n$40\r\n" ID_R));
    say(&s, "CLUSTER NODES");
    assert_non_null(strstr(s.reply, "\n" ID_R " 10.1.2.3:7000@17000 slave " ID_B
                                    " 0 0 9 connected\n"));
    say(&s, "CLUSTER SHARDS");
    assert_non_null(strstr(s.reply, "$5\r\nnodes\r\n*2\r\n%7\r\n"));
    assert_non_null(strstr(s.reply, "$7\r\nreplica\r\n"));
    expect(&s, "CLUSTER REPLICAS " ID_B,
           "*1\r\n$123\r\n" ID_R " 10.1.2.3:7000@17000 slave " ID_B
           " 0 0 9 connected\r\n");
    close_scene(&s);
}

/* ---- the map ---------------------------------------------------------------------- */

static void ranges_are_complete_and_linked(void **state)
{
    (void)state;
    struct scene s;
    open_scene(&s, ANNOUNCED CLUSTER);
    assert_int_equal(slot_ranges_count(s.cluster), 1); /* the limbo's */
    adopt(&s);
    struct slot_range ranges[8];
    uint16_t heads[8] = { 7, 7, 7, 7, 7, 7, 7, 7 };
    assert_int_equal(slot_ranges_count(s.cluster), 5);
    assert_int_equal(slot_ranges_list(s.cluster, ranges, 8, heads), 5);
    assert_int_equal(ranges[0].first, 0);
    assert_int_equal(ranges[4].last, KEYSLOT_COUNT - 1);
    for (int i = 1; i < 5; i++) {
        assert_int_equal(ranges[i].first, ranges[i - 1].last + 1);
    }
    assert_int_equal(heads[0], 2); /* slot 100 */
    assert_int_equal(heads[ranges[0].owner], 1);
    assert_int_equal(ranges[0].next, 4);
    assert_int_equal(ranges[3].next, 0);
    assert_int_equal(slot_ranges_list(s.cluster, ranges, 2, heads), 2);
    close_scene(&s);
}

/* The request waits for the node whose slot it names. */
static void a_slots_keys_are_asked_of_its_node(void **state)
{
    (void)state;
    static const struct {
        const char *words;
        int slot; /* -1: none */
    } cases[] = {
        { "CLUSTER COUNTKEYSINSLOT 200", 200 },
        { "CLUSTER GETKEYSINSLOT 150 10", 150 },
        { "CLUSTER COUNTKEYSINSLOT 16384", -1 },
        { "CLUSTER COUNTKEYSINSLOT x", -1 },
        { "CLUSTER COUNTKEYSINSLOT", -1 },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct scene s;
        open_scene(&s, ANNOUNCED CLUSTER);
        adopt(&s);
        connect_to(&s, NULL, 2);
        expect(&s, cases[i].words, "");
        const struct request *r =
            CONTAINER_OF(client_of(&s)->requests.next, struct request, arrival);
        assert_int_equal(r->slot == SLOT_NONE ? -1 : r->slot - 1,
                         cases[i].slot);
        if (cases[i].slot >= 0) {
            const struct endpoint *p =
                s.cluster->endpoints[s.cluster->slots[cases[i].slot]];
            const struct upstream *u = client_of(&s)->shared->lanes[p->index];
            assert_ptr_equal(u->waiting.next, &r->place);
        }
        close_scene(&s);
    }
}

/* ---- without memory ---------------------------------------------------------------- */

static void without_memory_nothing_is_told_by_halves(void **state)
{
    (void)state;
    static const char *const commands[] = { "CLUSTER SLOTS", "CLUSTER SHARDS",
                                            "CLUSTER NODES" };
    for (size_t k = 0; k < sizeof(commands) / sizeof(commands[0]); k++) {
        size_t served = 0, refused = 0, whole = 0;
        for (size_t n = 12; n > 0; n--) {
            struct scene s;
            open_scene(&s, ANNOUNCED CLUSTER "cluster_view = real\n"
                                             "read_from = any\n");
            adopt(&s);
            connect_to(&s, NULL, 2);
            say(&s, "CLUSTER KEYSLOT a"); /* joins its lanes */
            s.memory.left = n - 1;
            say(&s, commands[k]);
            s.memory.left = SIZE_MAX;
            whole = whole == 0 ? s.len : whole;
            bool told = s.reply[0] == '*' || s.reply[0] == '$';
            assert_true(!told || s.len == whole);
            served += told;
            refused += !told; /* or there is no memory even for words */
            close_scene(&s);
        }
        assert_true(served > 0);
        assert_true(refused > 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_node_owns_all_slots),
        cmocka_unit_test(resp3_has_maps_and_verbatim_text),
        cmocka_unit_test(the_state_is_ok_when_somebody_serves),
        cmocka_unit_test(the_address_is_one_the_client_can_use),
        cmocka_unit_test(wrong_calls_get_the_servers_words),
        cmocka_unit_test(nodes_are_not_changed_through_redial),
        cmocka_unit_test(the_real_view_has_all_at_one_address),
        cmocka_unit_test(replicas_are_shown_when_they_are_read),
        cmocka_unit_test(ranges_are_complete_and_linked),
        cmocka_unit_test(a_slots_keys_are_asked_of_its_node),
        cmocka_unit_test(without_memory_nothing_is_told_by_halves),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
