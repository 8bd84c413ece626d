/* Who serves what: recorded answers of real servers, and answers of servers
 * that are old, strange or hostile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "parser/topology.h"

/* ---- replies from words ---- */

enum {
    REPLY_ROOM = 1 << 20
};

static uint8_t wire[REPLY_ROOM];
static size_t wire_len;

static void wire_add(const void *bytes, size_t len)
{
    assert_true(wire_len + len <= sizeof wire);
    memcpy(wire + wire_len, bytes, len);
    wire_len += len;
}

static void wire_head(char type, size_t number)
{
    char head[32];
    int len = snprintf(head, sizeof head, "%c%zu\r\n", type, number);
    wire_add(head, (size_t)len);
}

/* The next word: a bracket, or what has no blank and no bracket in it, or what
 * stands between quotes. Returns NULL at the end. */
static const char *word_next(const char *at, struct span *word)
{
    at += strspn(at, " ");
    size_t len = strcspn(at, " (){}");

    if (*at == '\0') {
        return NULL;
    }
    if (*at == '\'') {
        len = strcspn(at + 1, "'");
        *word = (struct span){ (const uint8_t *)at + 1, len };
        return at + len + 2;
    }
    len = len == 0 ? 1 : len;
    *word = (struct span){ (const uint8_t *)at, len };
    return at + len;
}

/* How many values stand between the bracket before at and its end. */
static size_t count_inside(const char *at)
{
    struct span word = { 0 };
    size_t count = 0;

    for (size_t depth = 0;;) {
        bool quoted = at[strspn(at, " ")] == '\'';
        at = word_next(at, &word);
        assert_non_null(at);
        uint8_t first = quoted || word.len == 0 ? 'x' : word.data[0];
        if (first == ')' || first == '}') {
            if (depth-- == 0) {
                return count;
            }
            continue;
        }
        count += depth == 0 ? 1 : 0;
        depth += first == '(' || first == '{' ? 1 : 0;
    }
}

/* "(0 5 (host 7000 {ip 10.0.0.1}) nil -ERR)": a list of two integers, a list
 * with a map in it, nil and an error. */
static struct span reply_of(const char *words)
{
    struct span word = { 0 };
    const char *at = words;

    wire_len = 0;
    for (;;) {
        bool quoted = at[strspn(at, " ")] == '\'';
        at = word_next(at, &word);
        if (at == NULL) {
            return (struct span){ wire, wire_len };
        }
        uint8_t first = quoted || word.len == 0 ? 'x' : word.data[0];
        size_t digits =
            strspn((const char *)word.data + (first == '-'), "0123456789");
        if (first == '(') {
            wire_head('*', count_inside(at));
        } else if (first == '{') {
            wire_head('%', count_inside(at) / 2);
        } else if (first == ')' || first == '}') {
            continue;
        } else if (!quoted && span_equal(word, span_of("nil"))) {
            wire_add("$-1\r\n", 5);
        } else if (!quoted && digits > 0 &&
                   digits + (first == '-') == word.len) {
            wire_add(":", 1);
            wire_add(word.data, word.len);
            wire_add("\r\n", 2);
        } else if (first == '-') {
            wire_add(word.data, word.len);
            wire_add("\r\n", 2);
        } else {
            wire_head('$', word.len);
            wire_add(word.data, word.len);
            wire_add("\r\n", 2);
        }
    }
}

/* The text of an INFO. */
static struct span info_of(const char *lines)
{
    wire_len = 0;
    wire_head('$', strlen(lines));
    wire_add(lines, strlen(lines));
    wire_add("\r\n", 2);
    return (struct span){ wire, wire_len };
}

/* A reply that a server of version 7.0 gave. They are kept as inputs of the
 * fuzzer, behind the byte that says what they answer. */
static struct span recorded(const char *name)
{
    char path[512];
    int len = snprintf(path, sizeof path,
                       SOURCE_DIR "/tests/fuzz/corpus/topology/%s", name);

    assert_true(len > 0 && (size_t)len < sizeof path);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    wire_len = fread(wire, 1, sizeof wire, file);
    assert_int_equal(fclose(file), 0);
    assert_true(wire_len > 1);
    return (struct span){ wire + 1, wire_len - 1 };
}

/* ---- views as text ---- */

static char text[1 << 16];
static size_t text_len;

__attribute__((format(printf, 1, 2))) static void say(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    int len =
        vsnprintf(text + text_len, sizeof text - text_len, format, arguments);
    va_end(arguments);
    assert_true(len >= 0 && text_len + (size_t)len < sizeof text);
    text_len += (size_t)len;
}

/* Nodes as "id@host:port/shard" with P, R or ? for their role, '!' when not
 * online; then the ranges; then how many were left out. */
static const char *told(struct view *v, const char *error)
{
    text_len = 0;
    if (v == NULL) {
        assert_non_null(error);
        return error;
    }
    assert_null(error);
    for (uint32_t i = 0; i < v->n_nodes; i++) {
        const struct view_node *n = &v->nodes[i];
        say("%s%.4s@%s:%u/%u%c%s", i == 0 ? "" : " ", n->id, n->host,
            (unsigned)n->port, (unsigned)n->shard, "?PR"[n->role],
            n -> online ? "" : "!");
    }
    for (uint32_t i = 0; i < v->n_ranges; i++) {
        const struct view_range *r = &v->ranges[i];
        say(" %u-%u=%u", (unsigned)r->first, (unsigned)r->last,
            (unsigned)r->node);
    }
    if (v->n_left_out > 0) {
        say(" left out %u", (unsigned)v->n_left_out);
    }
    say("%s", "");
    view_free(v);
    return text;
}

static const char *shards(struct span reply)
{
    const char *error = NULL;
    struct view *v = view_from_shards(reply, false, &error);
    return told(v, error);
}

static const char *shards_tls(struct span reply)
{
    const char *error = NULL;
    struct view *v = view_from_shards(reply, true, &error);
    return told(v, error);
}

static const char *slots(struct span reply)
{
    const char *error = NULL;
    struct view *v = view_from_slots(reply, &error);
    return told(v, error);
}

static const char *listed(struct span reply)
{
    const char *error = NULL;
    struct view *v = sentinel_list_parse(reply, &error);
    return told(v, error);
}

/* ---- recorded ---- */

/* The second of each pair was recorded when the replica had arrived. */
static void a_server_s_shards_are_read_in_both_protocols(void **state)
{
    (void)state;
    assert_string_equal(shards(recorded("shards2")),
                        "8995@127.0.0.1:21002/0P 660b@127.0.0.1:21001/1P "
                        "3240@127.0.0.1:21000/2P 9383@127.0.0.1:21003/2R! "
                        "0-5460=2 5461-10922=1 10923-16383=0");
    assert_string_equal(shards(recorded("shards3")),
                        "8995@127.0.0.1:21002/0P 660b@127.0.0.1:21001/1P "
                        "3240@127.0.0.1:21000/2P 9383@127.0.0.1:21003/2R "
                        "0-5460=2 5461-10922=1 10923-16383=0");
}

static void a_server_s_slots_are_read_in_both_protocols(void **state)
{
    (void)state;
    assert_string_equal(slots(recorded("slots2")),
                        "3240@127.0.0.1:21000/0P 660b@127.0.0.1:21001/1P "
                        "8995@127.0.0.1:21002/2P "
                        "0-5460=0 5461-10922=1 10923-16383=2");
    assert_string_equal(slots(recorded("slots3")),
                        "3240@127.0.0.1:21000/0P 9383@127.0.0.1:21003/0R "
                        "660b@127.0.0.1:21001/1P 8995@127.0.0.1:21002/2P "
                        "0-5460=0 5461-10922=2 10923-16383=3");
}

static void a_node_without_its_name_is_called_by_its_address(void **state)
{
    (void)state;
    static const char expected[] =
        "3240@one.example:21000/0P 9383@127.0.0.1:21003/0R "
        "660b@two.example:21001/1P 8995@127.0.0.1:21002/2P "
        "0-5460=0 5461-10922=2 10923-16383=3";

    assert_string_equal(slots(recorded("slots_hostname2")), expected);
    assert_string_equal(slots(recorded("slots_hostname3")), expected);
    assert_string_equal(shards(recorded("shards_hostname2")),
                        "8995@127.0.0.1:21002/0P 660b@two.example:21001/1P "
                        "3240@one.example:21000/2P 9383@127.0.0.1:21003/2R "
                        "0-5460=2 5461-10922=1 10923-16383=0");
    assert_string_equal(shards(recorded("shards_hostname3")),
                        "8995@127.0.0.1:21002/0P 660b@two.example:21001/1P "
                        "3240@one.example:21000/2P 9383@127.0.0.1:21003/2R "
                        "0-5460=2 5461-10922=1 10923-16383=0");
}

static void an_unknown_endpoint_is_the_host_that_was_asked(void **state)
{
    (void)state;
    assert_string_equal(slots(recorded("slots_unknown2")),
                        "3240@:21000/0P 9383@:21003/0R 660b@:21001/1P "
                        "8995@:21002/2P 0-5460=0 5461-10922=2 10923-16383=3");
    assert_string_equal(slots(recorded("slots_unknown3")),
                        "3240@:21000/0P 9383@:21003/0R 660b@:21001/1P "
                        "8995@:21002/2P 0-5460=0 5461-10922=2 10923-16383=3");
    assert_string_equal(shards(recorded("shards_unknown2")),
                        "8995@:21002/0P 660b@:21001/1P 3240@:21000/2P "
                        "9383@:21003/2R 0-5460=2 5461-10922=1 10923-16383=0");
    assert_string_equal(shards(recorded("shards_unknown3")),
                        "8995@:21002/0P 660b@:21001/1P 3240@:21000/2P "
                        "9383@:21003/2R 0-5460=2 5461-10922=1 10923-16383=0");
    assert_string_equal(slots(reply_of("((0 1 ('' 7000 a)))")),
                        "a@:7000/0P 0-1=0");
    assert_string_equal(slots(reply_of("((0 1 (? 7000 a)))")),
                        "a@:7000/0P 0-1=0");
}

static void check_cluster_info(struct span reply)
{
    struct cluster_info info;

    assert_true(cluster_info_parse(reply, &info));
    assert_true(info.ok);
    assert_int_equal(info.current_epoch, 3);
    assert_int_equal(info.my_epoch, 1);
    assert_int_equal(info.slots_assigned, 16384);
    assert_int_equal(info.known_nodes, 4);
    assert_int_equal(info.size, 3);
}

static void cluster_info_is_read(void **state)
{
    (void)state;
    struct cluster_info info;

    check_cluster_info(recorded("cluster_info2"));
    check_cluster_info(recorded("cluster_info3"));
    assert_true(cluster_info_parse(info_of("cluster_state:fail\r\n"
                                           "cluster_size:-4\r\n"
                                           "cluster_known_nodes:99999999999"),
                                   &info));
    assert_false(info.ok);
    assert_int_equal(info.size, 0);
    assert_int_equal(info.known_nodes, UINT32_MAX);
    assert_int_equal(info.my_epoch, 0);
    assert_false(cluster_info_parse(reply_of("-ERR"), &info));
    assert_false(cluster_info_parse(reply_of("nil"), &info));
    assert_false(cluster_info_parse(reply_of("''"), &info));
    assert_false(cluster_info_parse(reply_of("cluster_state:"), &info));
    assert_false(cluster_info_parse(reply_of("xcluster_state:ok"), &info));
    assert_false(cluster_info_parse(span_of("$3\r\nab"), &info));
    assert_false(info.ok);
}

static void check_role(struct span reply, enum node_role role, bool connected)
{
    bool seen = !connected;

    assert_int_equal(role_parse(reply, &seen), role);
    assert_int_equal(seen, connected);
}

static void roles_are_read(void **state)
{
    (void)state;
    check_role(recorded("role_primary"), NODE_PRIMARY, false);
    check_role(recorded("role_replica"), NODE_REPLICA, true);
    check_role(recorded("role_sentinel"), NODE_UNKNOWN, false);
    check_role(reply_of("(slave h 1 connect 5)"), NODE_REPLICA, false);
    check_role(reply_of("(slave h 1)"), NODE_REPLICA, false);
    check_role(reply_of("(slave h 1 7 5)"), NODE_REPLICA, false);
    check_role(reply_of("(master 1 (x) connected)"), NODE_PRIMARY, false);
    check_role(reply_of("()"), NODE_UNKNOWN, false);
    check_role(reply_of("(nil)"), NODE_UNKNOWN, false);
    check_role(reply_of("((master))"), NODE_UNKNOWN, false);
    check_role(reply_of("(-master)"), NODE_UNKNOWN, false);
    check_role(reply_of("-NOPERM"), NODE_UNKNOWN, false);
    check_role(reply_of("master"), NODE_UNKNOWN, false);
    check_role(span_of(""), NODE_UNKNOWN, false);
}

static struct replication_info replication_of(struct span reply)
{
    struct replication_info info;

    assert_true(replication_info_parse(reply, &info));
    return info;
}

static void replication_is_read(void **state)
{
    (void)state;
    struct replication_info info;

    info = replication_of(recorded("replication_primary2"));
    assert_int_equal(info.role, NODE_PRIMARY);
    assert_int_equal(info.offset, 1400);
    assert_int_equal(info.last_io_s, -1);
    assert_false(info.link_up);
    assert_string_equal(info.zone, "");
    info = replication_of(recorded("replication_primary3"));
    assert_int_equal(info.offset, 2472);
    info = replication_of(recorded("replication_replica2"));
    assert_int_equal(info.role, NODE_REPLICA);
    assert_int_equal(info.offset, 1400);
    assert_int_equal(info.last_io_s, 2);
    assert_true(info.link_up);
    info = replication_of(recorded("replication_replica3"));
    assert_int_equal(info.role, NODE_REPLICA);
    assert_int_equal(info.offset, 2754);
    assert_int_equal(info.last_io_s, 1);
    info = replication_of(info_of("# Server\r\navailability_zone:eu-1a\r\n"
                                  "role:slave\nmaster_link_status:down"));
    assert_int_equal(info.role, NODE_REPLICA);
    assert_false(info.link_up);
    assert_int_equal(info.last_io_s, -1);
    assert_int_equal(info.offset, 0);
    assert_string_equal(info.zone, "eu-1a");
    info = replication_of(info_of("role:slave\r\nslave_repl_offset:7\r\n"
                                  "master_repl_offset:8\r\n"));
    assert_int_equal(info.offset, 7);
    info = replication_of(info_of("role:master\r\nslave_repl_offset:7\r\n"
                                  "master_repl_offset:8\r\n"
                                  "master_link_status:up\r\n"
                                  "master_last_io_seconds_ago:1\r\n"));
    assert_int_equal(info.offset, 8);
    assert_false(info.link_up);
    assert_int_equal(info.last_io_s, -1);
    assert_false(replication_info_parse(info_of("role:none\r\n"), &info));
    assert_false(replication_info_parse(info_of("x:1\r\n"), &info));
    assert_false(replication_info_parse(reply_of("-NOAUTH"), &info));
    assert_false(replication_info_parse(reply_of("(role:master)"), &info));
    assert_false(replication_info_parse(span_of("$"), &info));
    assert_int_equal(info.last_io_s, -1);
}

/* ---- shards ---- */

/* A shard of one node. */
#define SHARD(slots_, node_) "{slots (" slots_ ") nodes ({" node_ "})}"

static void a_node_s_fields_are_read(void **state)
{
    (void)state;
    const char *error = NULL;
    struct view *v = view_from_shards(
        reply_of("({slots (0 1) nodes ({id abc port 7000 tls-port 8000"
                 " ip 10.0.0.1 endpoint one.example hostname one.example"
                 " role replica replication-offset 77 health online"
                 " availability-zone eu-central-1/a x-new (1 (2)) } "
                 "{id def tls-port 8001 endpoint [2001:db8::1] role primary})"
                 " x-new {a b}})"),
        true, &error);

    assert_non_null(v);
    assert_int_equal(v->n_nodes, 2);
    assert_string_equal(v->nodes[0].id, "abc");
    assert_string_equal(v->nodes[0].host, "one.example");
    assert_string_equal(v->nodes[0].zone, "eu-central-1/a");
    assert_int_equal(v->nodes[0].port, 8000);
    assert_int_equal(v->nodes[0].tls_port, 8000);
    assert_int_equal(v->nodes[0].role, NODE_REPLICA);
    assert_true(v->nodes[0].online);
    assert_int_equal(v->nodes[0].offset, 77);
    assert_string_equal(v->nodes[1].host, "2001:db8::1");
    assert_string_equal(v->nodes[1].zone, "");
    assert_int_equal(v->nodes[1].port, 8001);
    assert_int_equal(v->nodes[1].role, NODE_PRIMARY);
    assert_true(v->nodes[1].online); /* no health told */
    assert_int_equal(v->nodes[1].offset, 0);
    assert_int_equal(v->n_ranges, 1);
    assert_int_equal(v->ranges[0].node, 1);
    view_free(v);
}

static void the_plain_port_is_taken_without_tls(void **state)
{
    (void)state;
    static const char both[] =
        "(" SHARD("0 1", "id a port 1 tls-port 2 ip h role master") ")";
    static const char plain[] =
        "(" SHARD("0 1", "id a port 1 ip h role master") ")";
    static const char tls[] =
        "(" SHARD("0 1", "id a tls-port 2 ip h role master") ")";

    assert_string_equal(shards(reply_of(both)), "a@h:1/0P 0-1=0");
    assert_string_equal(shards(reply_of(plain)), "a@h:1/0P 0-1=0");
    assert_string_equal(shards(reply_of(tls)), " left out 1");
    assert_string_equal(shards_tls(reply_of(both)), "a@h:2/0P 0-1=0");
    assert_string_equal(shards_tls(reply_of(plain)), "a@h:1/0P 0-1=0");
    assert_string_equal(shards_tls(reply_of(tls)), "a@h:2/0P 0-1=0");
}

static void the_primary_that_is_online_owns_the_slots(void **state)
{
    (void)state;
#define OLD  "{id a port 1 ip h role master health failed}"
#define NEW  "{id b port 2 ip h role master health online}"
#define COPY "{id c port 3 ip h role replica health online}"
    assert_string_equal(shards(reply_of("({slots (0 9) nodes (" OLD NEW COPY
                                        ")})")),
                        "a@h:1/0P! b@h:2/0P c@h:3/0R 0-9=1");
    assert_string_equal(shards(reply_of("({slots (0 9) nodes (" NEW OLD ")})")),
                        "b@h:2/0P a@h:1/0P! 0-9=0");
    assert_string_equal(shards(
                            reply_of("({slots (0 9) nodes (" COPY OLD ")})")),
                        "c@h:3/0R a@h:1/0P! 0-9=1");
    assert_string_equal(shards(reply_of("({slots (0 9) nodes (" COPY ")})")),
                        "c@h:3/0R");
    assert_string_equal(shards(reply_of("({slots () nodes (" COPY ")})")),
                        "c@h:3/0R");
}

static void a_primary_without_an_address_takes_its_slots_along(void **state)
{
    (void)state;
    static const char *const hostile[] = {
        "port 65536 ip h",
        "port 0 ip h",
        "port -1 ip h",
        "port x ip h",
        "port nil ip h",
        "port (1) ip h",
        "port '007' ip h",
        "ip h",
        "port 1 tls-port 65536 ip h",
        "port 1 ip 'a b'",
        "port 1 ip a/b",
        "port 1 ip a%b",
        "port 1 ip user@b",
        "port 1 endpoint []",
        "port 1 endpoint a\rb",
        "port 1 ip h\xc3\xb6st",
    };
    for (size_t i = 0; i < sizeof hostile / sizeof hostile[0]; i++) {
        char words[256];
        int len = snprintf(words, sizeof words,
                           "({slots (0 9) nodes ({id b port 2 ip h role master "
                           "health failed} {id a role master %s})})",
                           hostile[i]);
        assert_true(len > 0 && (size_t)len < sizeof words);
        const char *result = shards(reply_of(words));
        if (strcmp(result, "b@h:2/0P! left out 1") != 0) {
            print_error("%s\n", hostile[i]);
        }
        assert_string_equal(result, "b@h:2/0P! left out 1");
    }
}

static void hosts_have_an_end(void **state)
{
    (void)state;
    char words[512];
    char host[300];
    const char *error = NULL;

    for (size_t len = 254; len <= 257; len++) {
        memset(host, 'h', sizeof host);
        host[len] = '\0';
        int used = snprintf(words, sizeof words, "((0 1 (%s 1 a)))", host);
        assert_true(used > 0 && (size_t)used < sizeof words);
        struct view *v = view_from_slots(reply_of(words), &error);
        assert_non_null(v);
        assert_int_equal(v->n_nodes, len <= NODE_HOST_MAX ? 1 : 0);
        assert_int_equal(v->n_ranges, v->n_nodes);
        if (v->n_nodes == 1) {
            assert_string_equal(v->nodes[0].host, host);
        }
        view_free(v);
    }
    /* a NUL is a byte that no host name has */
    static const char nul[] =
        "*1\r\n*3\r\n:0\r\n:1\r\n*2\r\n$3\r\na\0b\r\n:1\r\n";
    const struct span reply = { (const uint8_t *)nul, sizeof nul - 1 };
    assert_string_equal(slots(reply), " left out 1");
}

static void ids_and_zones_that_do_not_fit_are_not_told(void **state)
{
    (void)state;
    const char *error = NULL;
    struct view *v = view_from_slots(
        reply_of("((0 1 (h 1 x123456789012345678901234567890123456789"
                 " (availability-zone x123456789012345678901234567890123456789"
                 "01234567890123456789012)))"
                 " (2 3 (h 2 x1234567890123456789012345678901234567890"
                 " (availability-zone x123456789012345678901234567890123456789"
                 "012345678901234567890123)))"
                 " (4 5 (h 3 'a\"b' (availability-zone 'a\nb'))))"),
        &error);

    assert_non_null(v);
    assert_int_equal(v->n_nodes, 3);
    assert_int_equal(strlen(v->nodes[0].id), 40);
    assert_int_equal(strlen(v->nodes[0].zone), 63);
    for (size_t i = 1; i < 3; i++) {
        assert_string_equal(v->nodes[i].id, "");
        assert_string_equal(v->nodes[i].zone, "");
    }
    view_free(v);
}

static void of_ranges_that_overlap_the_later_loses(void **state)
{
    (void)state;
#define A "id a port 1 ip h role master"
#define B "id b port 2 ip h role master"
    assert_string_equal(shards(reply_of("(" SHARD("0 100 50 200", A)
                                            SHARD("90 16383", B) ")")),
                        "a@h:1/0P b@h:2/1P 0-200=0 201-16383=1");
    assert_string_equal(
        shards(reply_of("(" SHARD("10 20 30 40", A) SHARD("0 16383", B) ")")),
        "a@h:1/0P b@h:2/1P 0-9=1 10-20=0 21-29=1 30-40=0 41-16383=1");
    assert_string_equal(shards(reply_of("(" SHARD("0 16383", A)
                                            SHARD("5 5 0 16383", B) ")")),
                        "a@h:1/0P b@h:2/1P 0-16383=0");
    /* out of order, and put together */
    assert_string_equal(shards(reply_of("(" SHARD("9 9 3 8 0 2", A) ")")),
                        "a@h:1/0P 0-9=0");
    /* also the slots of one that is left out are taken */
    assert_string_equal(slots(reply_of("((0 9 (h 0)) (5 12 (h 2)))")),
                        "@h:2/1P 10-12=0 left out 1");
}

static void ranges_that_cannot_be_are_an_error(void **state)
{
    (void)state;
    static const char *const hostile[] = {
        "0 16384",
        "16384 16384",
        "5 4",
        "-1 5",
        "0 -1",
        "x 5",
        "0 nil",
        "(0) 5",
        "0 '01'",
        "nil 5",
        "0 '99999999999999999999'",
    };
    char words[256];

    for (size_t i = 0; i < sizeof hostile / sizeof hostile[0]; i++) {
        int len = snprintf(words, sizeof words, "(" SHARD("0 1 %s", A) ")",
                           hostile[i]);
        assert_true(len > 0 && (size_t)len < sizeof words);
        assert_string_equal(shards(reply_of(words)),
                            "a range of slots that cannot be");
        len = snprintf(words, sizeof words, "((%s (h 1 a)))", hostile[i]);
        assert_true(len > 0 && (size_t)len < sizeof words);
        assert_string_equal(slots(reply_of(words)),
                            "a range of slots that cannot be");
    }
    assert_string_equal(slots(reply_of("((0 '5' (h 1 a)))")),
                        "a@h:1/0P 0-5=0"); /* numbers may be texts */
}

static void malformed_shards_are_an_error(void **state)
{
    (void)state;
    static const struct {
        const char *words;
        const char *error;
    } cases[] = {
        { "-ERR", "the server answered an error" },
        { "nil", "not a list" },
        { "7", "not a list" },
        { "text", "not a list" },
        { "(1)", "a shard that is no map" },
        { "(nil)", "a shard that is no map" },
        { "(text)", "a shard that is no map" },
        { "((slots (0 1) nodes))", "a shard that is no map" },
        { "({slots (0 1) nodes 5})", "a shard without nodes or slots" },
        { "({slots (0 1)})", "a shard without nodes or slots" },
        { "({nodes ()})", "a shard without nodes or slots" },
        { "({slots 5 nodes ()})", "a shard without nodes or slots" },
        { "({slots (0 1 2) nodes ()})", "a shard without nodes or slots" },
        { "({slots (0 1) nodes (5)})", "a node that is no map" },
        { "({slots (0 1) nodes ((id))})", "a node that is no map" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_string_equal(shards(reply_of(cases[i].words)), cases[i].error);
    }
    assert_string_equal(shards(reply_of("()")), "");
    assert_string_equal(shards(reply_of("({slots () nodes ()})")), "");
    assert_string_equal(shards(span_of("*1\r\n")),
                        "malformed, too large, or out of memory");
    assert_string_equal(shards(span_of("")),
                        "malformed, too large, or out of memory");
    assert_string_equal(shards(span_of("*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n"
                                       "*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n")),
                        "malformed, too large, or out of memory");
}

/* Fields of wrong types are fields that are not there. */
static void fields_of_wrong_types_are_skipped(void **state)
{
    (void)state;
    assert_string_equal(
        shards(reply_of("({slots (0 1) nodes ({id (1) port 1 ip 5 endpoint 7 "
                        "role (master) health 1 replication-offset x "
                        "availability-zone {a b} 5 5})})")),
        "@:1/0?!");
}

/* ---- slots ---- */

static void old_servers_tell_no_ids(void **state)
{
    (void)state;
    assert_string_equal(slots(reply_of(
                            "((0 5 (10.0.0.1 7000) (10.0.0.2 7001))"
                            " (6 7 (10.0.0.2 7002))"
                            " (8 9 (10.0.0.1 7000) (10.0.0.2 7001)))")),
                        "@10.0.0.1:7000/0P @10.0.0.2:7001/0R @10.0.0.2:7002/1P"
                        " 0-5=0 6-7=2 8-9=0");
}

static void a_node_is_the_same_by_its_id(void **state)
{
    (void)state;
    /* also where it comes first as a replica */
    assert_string_equal(slots(reply_of("((0 5 (h 1 a) (h 2 b) (h 3 c))"
                                       " (6 7 (h 2 b) (h 4 d)))")),
                        "a@h:1/0P b@h:2/0P c@h:3/0R d@h:4/0R 0-5=0 6-7=1");
    /* two of one address are two */
    assert_string_equal(slots(reply_of("((0 5 (h 1 a)) (6 7 (h 1 b)))")),
                        "a@h:1/0P b@h:1/1P 0-5=0 6-7=1");
    assert_string_equal(
        shards(reply_of("({slots () nodes ({id a port 1 ip h role replica})}"
                        " {slots (0 1) nodes ({id a port 1 ip h role "
                        "master})})")),
        "a@h:1/0P 0-1=0");
}

static void more_about_a_node_is_a_list_or_a_map(void **state)
{
    (void)state;
    const char *error = NULL;
    static const char *const forms[] = {
        "((0 1 (? 7000 a (ip 10.0.0.1 availability-zone z1)) ))",
        "((0 1 (? 7000 a {ip 10.0.0.1 availability-zone z1} more (x)) ))",
    };
    for (size_t i = 0; i < 2; i++) {
        struct view *v = view_from_slots(reply_of(forms[i]), &error);
        assert_non_null(v);
        assert_string_equal(v->nodes[0].host, "10.0.0.1");
        assert_string_equal(v->nodes[0].zone, "z1");
        assert_true(v->nodes[0].online);
        assert_int_equal(v->nodes[0].tls_port, 0);
        view_free(v);
    }
    assert_string_equal(slots(reply_of("((0 1 (h 7000 a (ip)))"
                                       " (2 3 (h 7001 b nil))"
                                       " (4 5 (h 7002 c 7)))")),
                        "a@h:7000/0P b@h:7001/1P c@h:7002/2P"
                        " 0-1=0 2-3=1 4-5=2");
}

static void slots_without_an_address_are_nobody_s(void **state)
{
    (void)state;
    assert_string_equal(
        slots(reply_of("((0 1 (h 0) (r 6)) (2 3 (h 65536)) (4 5 (h -1))"
                       " (6 7 (h x)) (8 9 (h)) (10 11 ()) (12 13 (7 1))"
                       " (14 15 ((h) 1)) (16 17 ('a b' 1)) (18 19 (-h 1))"
                       " (20 21 (h 65535)) (22 23 (h '1')) (24 25) )")),
        "@r:6/0R @h:65535/10P @h:1/11P 20-21=1 22-23=2 left out 10");
}

static void malformed_slots_are_an_error(void **state)
{
    (void)state;
    static const struct {
        const char *words;
        const char *error;
    } cases[] = {
        { "-ERR", "the server answered an error" },
        { "nil", "not a list" },
        { "(5)", "a range of slots that cannot be" },
        { "(nil)", "a range of slots that cannot be" },
        { "(())", "a range of slots that cannot be" },
        { "((0))", "a range of slots that cannot be" },
        { "((0 1 h))", "a node that is no list" },
        { "((0 1 nil))", "a node that is no list" },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_string_equal(slots(reply_of(cases[i].words)), cases[i].error);
    }
    assert_string_equal(slots(reply_of("()")), "");
}

/* ---- size ---- */

/* Slot by slot, each with a node of its own. */
static struct span nodes_of(size_t count, size_t ranges)
{
    wire_len = 0;
    wire_head('*', ranges);
    for (size_t i = 0; i < ranges; i++) {
        char words[128];
        int len = snprintf(words, sizeof words,
                           "*3\r\n:%zu\r\n:%zu\r\n*2\r\n$1\r\nh\r\n:%zu\r\n",
                           i % 16384, i % 16384, 1 + i % count);
        wire_add(words, (size_t)len);
    }
    return (struct span){ wire, wire_len };
}

static void thousands_of_nodes_are_too_many(void **state)
{
    (void)state;
    const char *error = NULL;
    struct view *v = view_from_slots(nodes_of(2000, 16384), &error);

    assert_non_null(v);
    assert_int_equal(v->n_nodes, 2000);
    assert_int_equal(v->n_ranges, 16384);
    for (uint32_t i = 0; i < v->n_ranges; i++) {
        assert_int_equal(v->ranges[i].first, i);
        assert_int_equal(v->nodes[v->ranges[i].node].port, 1 + i % 2000);
    }
    view_free(v);
    assert_string_equal(slots(nodes_of(2001, 2001)), "more than 2000 nodes");
    assert_string_equal(slots(nodes_of(1, 16385)), "more ranges than slots");
}

/* ---- sentinels ---- */

static void a_sentinel_names_the_primary(void **state)
{
    (void)state;
    struct view_node n;

    assert_true(sentinel_master_parse(recorded("sentinel_address"), &n));
    assert_string_equal(n.host, "127.0.0.1");
    assert_int_equal(n.port, 21010);
    assert_int_equal(n.role, NODE_PRIMARY);
    assert_true(n.online);
    assert_string_equal(n.id, "");
    assert_true(sentinel_master_parse(reply_of("(::1 6379)"), &n));
    assert_string_equal(n.host, "::1");
    assert_false(sentinel_master_parse(recorded("sentinel_address_none2"), &n));
    assert_false(sentinel_master_parse(recorded("sentinel_address_none3"), &n));
    static const char *const hostile[] = {
        "-ERR",       "()",        "(h)",        "(h 0)",    "(h 65536)",
        "(h x)",      "('' 6379)", "(nil 6379)", "(? 6379)", "(5 6379)",
        "((h) 6379)", "h",         "('a b' 1)",  "(-ERR 1)",
    };
    for (size_t i = 0; i < sizeof hostile / sizeof hostile[0]; i++) {
        assert_false(sentinel_master_parse(reply_of(hostile[i]), &n));
    }
    assert_false(sentinel_master_parse(span_of("*"), &n));
}

static void a_sentinel_lists_servers(void **state)
{
    (void)state;
    const char *error = NULL;

    for (int version = 2; version <= 3; version++) {
        char name[32];
        (void)snprintf(name, sizeof name, "sentinel_replicas%d", version);
        struct view *v = sentinel_list_parse(recorded(name), &error);
        assert_non_null(v);
        assert_int_equal(v->n_nodes, 1);
        assert_int_equal(v->n_ranges, 0);
        assert_string_equal(v->nodes[0].host, "127.0.0.1");
        assert_int_equal(v->nodes[0].port, 21011);
        assert_string_equal(v->nodes[0].id,
                            "b1d70f105f69c7f35bd94f5440a861f9cca3745b");
        assert_int_equal(v->nodes[0].role, NODE_REPLICA);
        assert_true(v->nodes[0].online);
        assert_true(v->nodes[0].offset > 0);
        view_free(v);
        (void)snprintf(name, sizeof name, "sentinel_sentinels%d", version);
        assert_string_equal(listed(recorded(name)), "6f9b@127.0.0.1:21021/0?");
        (void)snprintf(name, sizeof name, "sentinel_masters%d", version);
        assert_string_equal(listed(recorded(name)), "da82@127.0.0.1:21010/0P");
    }
}

static void servers_that_are_down_are_not_online(void **state)
{
    (void)state;
#define REPLICA(flags_, more_) \
    "({ip h port '1' runid a flags " flags_ " " more_ "})"
    assert_string_equal(listed(reply_of(
                            REPLICA("slave", "master-link-status ok"))),
                        "a@h:1/0R");
    assert_string_equal(listed(reply_of(
                            REPLICA("slave", "master-link-status err"))),
                        "a@h:1/0R!");
    assert_string_equal(listed(reply_of(REPLICA("slave", ""))), "a@h:1/0R!");
    static const char *const down[] = { "s_down,slave", "slave,o_down",
                                        "slave,disconnected,x" };
    for (size_t i = 0; i < 3; i++) {
        char words[256];
        int len = snprintf(words, sizeof words,
                           REPLICA("%s", "master-link-status ok"), down[i]);
        assert_true(len > 0 && (size_t)len < sizeof words);
        assert_string_equal(listed(reply_of(words)), "a@h:1/0R!");
    }
    assert_string_equal(listed(reply_of(REPLICA("sentinel,s_down", ""))),
                        "a@h:1/0?!");
    assert_string_equal(listed(reply_of(REPLICA("sentinel", ""))), "a@h:1/0?");
}

static void listed_servers_without_an_address_are_left_out(void **state)
{
    (void)state;
    assert_string_equal(listed(reply_of(
                            "({ip h port 0} {ip '' port 1} {port 1} {ip h}"
                            " {ip 'a b' port 1} {ip h port 65536} {ip ? port 1}"
                            " {} {ip h port '1'} (ip h port '1'))")),
                        "@h:1/0? left out 8");
    assert_string_equal(listed(reply_of("()")), "");
    assert_string_equal(listed(reply_of("(5)")), "a server that is no map");
    assert_string_equal(listed(reply_of("((ip))")), "a server that is no map");
    assert_string_equal(listed(reply_of("-ERR")),
                        "the server answered an error");
}

static void a_switch_names_both_addresses(void **state)
{
    (void)state;
    struct span name = { 0 };
    struct view_node from;
    struct view_node to;

    assert_true(sentinel_switch_parse(
        span_of("mymaster 10.0.0.1 6379 two.example 6380"), &name, &from, &to));
    assert_true(span_equal(name, span_of("mymaster")));
    assert_string_equal(from.host, "10.0.0.1");
    assert_int_equal(from.port, 6379);
    assert_string_equal(to.host, "two.example");
    assert_int_equal(to.port, 6380);
    assert_int_equal(to.role, NODE_PRIMARY);
    static const char *const hostile[] = {
        "",           " ",          "m",         "m h 1 h",     "m h 1 h 2 3",
        "m h 1 h 2 ", "m  h 1 h 2", " h 1 h 2",  "m h 0 h 2",   "m h 1 h 65536",
        "m h 1 h x",  "m h/ 1 h 2", "m h 1 ? 2", "m h 1 h 2\r",
    };
    for (size_t i = 0; i < sizeof hostile / sizeof hostile[0]; i++) {
        if (sentinel_switch_parse(span_of(hostile[i]), &name, &from, &to)) {
            fail_msg("taken: %s", hostile[i]);
        }
    }
    assert_false(sentinel_switch_parse((struct span){ 0 }, &name, &from, &to));
}

#ifdef REPLACE_MALLOC
/* glibc lets a program bring its own allocator; the shared hiredis calls it
 * too. This one fails once, at the allocation told. */
void *__libc_malloc(size_t size);             /* NOLINT */
void *__libc_calloc(size_t n, size_t size);   /* NOLINT */
void *__libc_realloc(void *old, size_t size); /* NOLINT */

static size_t fail_in; /* 0: never */

static bool fails(void)
{
    return fail_in > 0 && --fail_in == 0;
}

void *malloc(size_t size)
{
    return fails() ? NULL : __libc_malloc(size);
}

void *calloc(size_t n, size_t size)
{
    return fails() ? NULL : __libc_calloc(n, size);
}

void *realloc(void *old, size_t size)
{
    return fails() ? NULL : __libc_realloc(old, size);
}

static void memory_that_is_short_is_an_error_and_nothing_worse(void **state)
{
    (void)state;
    struct span reply = nodes_of(20, 40);
    size_t failures = 0;

    for (size_t n = 1;; n++) {
        const char *error = NULL;
        fail_in = n;
        struct view *v = view_from_slots(reply, &error);
        bool all_used = fail_in > 0;
        fail_in = 0;
        if (all_used) { /* more were granted than it needs */
            assert_non_null(v);
            assert_int_equal(v->n_nodes, 20);
            view_free(v);
            break;
        }
        assert_null(v);
        assert_non_null(error);
        assert_non_null(strstr(error, "memory"));
        failures++;
    }
    assert_true(failures > 5);
}
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_server_s_shards_are_read_in_both_protocols),
        cmocka_unit_test(a_server_s_slots_are_read_in_both_protocols),
        cmocka_unit_test(a_node_without_its_name_is_called_by_its_address),
        cmocka_unit_test(an_unknown_endpoint_is_the_host_that_was_asked),
        cmocka_unit_test(cluster_info_is_read),
        cmocka_unit_test(roles_are_read),
        cmocka_unit_test(replication_is_read),
        cmocka_unit_test(a_node_s_fields_are_read),
        cmocka_unit_test(the_plain_port_is_taken_without_tls),
        cmocka_unit_test(the_primary_that_is_online_owns_the_slots),
        cmocka_unit_test(a_primary_without_an_address_takes_its_slots_along),
        cmocka_unit_test(hosts_have_an_end),
        cmocka_unit_test(ids_and_zones_that_do_not_fit_are_not_told),
        cmocka_unit_test(of_ranges_that_overlap_the_later_loses),
        cmocka_unit_test(ranges_that_cannot_be_are_an_error),
        cmocka_unit_test(malformed_shards_are_an_error),
        cmocka_unit_test(fields_of_wrong_types_are_skipped),
        cmocka_unit_test(old_servers_tell_no_ids),
        cmocka_unit_test(a_node_is_the_same_by_its_id),
        cmocka_unit_test(more_about_a_node_is_a_list_or_a_map),
        cmocka_unit_test(slots_without_an_address_are_nobody_s),
        cmocka_unit_test(malformed_slots_are_an_error),
        cmocka_unit_test(thousands_of_nodes_are_too_many),
        cmocka_unit_test(a_sentinel_names_the_primary),
        cmocka_unit_test(a_sentinel_lists_servers),
        cmocka_unit_test(servers_that_are_down_are_not_online),
        cmocka_unit_test(listed_servers_without_an_address_are_left_out),
        cmocka_unit_test(a_switch_names_both_addresses),
#ifdef REPLACE_MALLOC
        cmocka_unit_test(memory_that_is_short_is_an_error_and_nothing_worse),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
