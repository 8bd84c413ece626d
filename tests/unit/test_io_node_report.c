/* What is told of the servers: /topology and the metrics redial_node_*. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/io/node_report.h"

enum {
    UPSTREAMS = 2
};

struct scene {
    struct upstream_config upstreams[UPSTREAMS];
    struct config config;
    struct cluster_state *states;
    struct text out;
};

static char single[] = "default", many[] = "c\"l";

/* A standalone upstream and a cluster. */
static void open_scene(struct scene *s)
{
    memset(s, 0, sizeof(*s));
    s->upstreams[0].name = single;
    s->upstreams[1].name = many;
    s->upstreams[1].type = UPSTREAM_CLUSTER;
    s->config.upstreams = s->upstreams;
    s->config.n_upstreams = UPSTREAMS;
    s->states = node_report_new(&s->config);
    assert_non_null(s->states);
}

static void close_scene(struct scene *s)
{
    node_report_free(&s->config, s->states);
    text_fini(&s->out);
}

static struct node_state *add(struct cluster_state *s, const char *host)
{
    struct node_state *node = &s->nodes[s->n_nodes++];
    node->address.port = 6379;
    memcpy(node->address.host, host, strlen(host) + 1);
    node->role = "primary";
    return node;
}

static void expect(const struct scene *s, const char *text)
{
    const char *found = s->out.data == NULL ? NULL : strstr(s->out.data, text);
    if (found == NULL) {
        fail_msg("missing: %s", text);
    }
}

static void the_page_tells_all_of_a_node(void **state)
{
    (void)state;
    struct scene s;
    open_scene(&s);
    struct node_state *plain = add(&s.states[0], "127.0.0.1");
    plain->role = "unknown";
    plain->configured = true;
    struct cluster_state *c = &s.states[1];
    c->epoch = 7;
    c->changes = 2;
    c->adopted = true;
    c->age_us = 1500000;
    c->slots_unserved = 1;
    memcpy(c->last_error, "a \"b\"\n", 7);
    c->ranges[0] = (struct slot_range){ .first = 0, .last = 9, .next = 3 };
    c->ranges[1] = (struct slot_range){ .first = 10, .last = 10 };
    c->ranges[2] = (struct slot_range){ .first = 11, .last = 11 };
    c->n_ranges = 3;
    struct node_state *node = add(c, "2001:db8::1");
    node->first_range = 1;
    node->known = true;
    node->version = 70015;
    node->lanes_up = 1;
    node->lanes_connecting = 2;
    node->lanes_private = 3;
    node->in_flight = 4;
    node->latency_us = 250;
    node->failures_total = 5;
    memcpy(node->id, "abc", 4);
    struct node_state *away = add(c, "10.0.0.2");
    away->role = "replica";
    away->down_us = 2000001;
    away->lag_known = true;
    away->lag_us = 3000000;
    away->online = true;
    memcpy(away->zone, "z1", 3);
    memcpy(away->last_error, "\x01\xff", 3);
    node_report_json(&s.config, s.states, 2, &s.out);
    assert_string_equal(
        s.out.data,
        "{\"workers\":2,\"upstreams\":[\n"
        " {\"name\":\"default\",\"type\":\"standalone\",\"nodes\":[\n"
        "  {\"address\":\"127.0.0.1:6379\",\"id\":null,\"role\":\"unknown\","
        "\"known\":false,\"online\":false,\"seed\":true,\"zone\":null,"
        "\"server_version\":null,\"lanes\":{\"up\":0,\"connecting\":0,"
        "\"private\":0},\"requests_in_flight\":0,\"latency_seconds\":null,"
        "\"lag_seconds\":null,\"down_seconds\":null,\"failures\":0,"
        "\"last_error\":null}]},\n"
        " {\"name\":\"c\\\"l\",\"type\":\"cluster\",\"epoch\":7,\"changes\":2,"
        "\"age_seconds\":1.500000,\"failures\":0,\"last_error\":\"a "
        "\\\"b\\\"\\n\",\"slots_unserved\":1,\"nodes\":[\n"
        "  {\"address\":\"[2001:db8::1]:6379\",\"id\":\"abc\",\"role\":"
        "\"primary\",\"known\":true,\"online\":false,\"seed\":false,\"zone\":"
        "null,\"server_version\":\"7.0.15\",\"slots\":[\"0-9\",\"11\"],"
        "\"lanes\":{\"up\":1,\"connecting\":2,\"private\":3},"
        "\"requests_in_flight\":4,\"latency_seconds\":0.000250,"
        "\"lag_seconds\":null,\"down_seconds\":null,\"failures\":5,"
        "\"last_error\":null},\n"
        "  {\"address\":\"10.0.0.2:6379\",\"id\":null,\"role\":\"replica\","
        "\"known\":false,\"online\":true,\"seed\":false,\"zone\":\"z1\","
        "\"server_version\":null,\"slots\":[],\"lanes\":{\"up\":0,"
        "\"connecting\":0,\"private\":0},\"requests_in_flight\":0,"
        "\"latency_seconds\":null,\"lag_seconds\":3.000000,"
        "\"down_seconds\":2.000001,\"failures\":0,"
        "\"last_error\":\"\\u0001\\u00ff\"}]}\n]}\n");
    close_scene(&s);
}

static void numbers_carry_upstream_and_node(void **state)
{
    (void)state;
    struct scene s;
    open_scene(&s);
    add(&s.states[0], "h");
    struct node_state *node = add(&s.states[1], "h");
    node->lanes_up = 2;
    node->latency_us = 1500;
    node->n_slots = 16384;
    node_report_metrics(&s.config, s.states, &s.out);
    expect(&s, "# TYPE redial_node_up gauge\n"
               "redial_node_up{upstream=\"default\",node=\"h:6379\"} 0\n"
               "redial_node_up{upstream=\"c\\\"l\",node=\"h:6379\"} 1\n");
    expect(&s, "\nredial_node_latency_seconds{upstream=\"c\\\"l\",node=\""
               "h:6379\"} 0.001500\n");
    /* What a single server can't have is not shown for it. */
    expect(&s, "# TYPE redial_node_slots gauge\n"
               "redial_node_slots{upstream=\"c\\\"l\",node=\"h:6379\"} "
               "16384\n");
    expect(&s, "# TYPE redial_node_primary gauge\n"
               "redial_node_primary{upstream=\"c\\\"l\",node=\"h:6379\"} 1\n");
    close_scene(&s);
}

static void the_number_of_labels_is_limited(void **state)
{
    (void)state;
    struct scene s;
    open_scene(&s);
    for (unsigned i = 0; i < NODES_LABELLED_MAX + 3; i++) {
        char host[32];
        snprintf(host, sizeof(host), "h%u", i);
        struct node_state *node = add(&s.states[1], host);
        node->lanes_up = 1;
        node->n_slots = i;
        node->latency_us = 1000 + i % 258;
    }
    node_report_metrics(&s.config, s.states, &s.out);
    expect(&s, "node=\"h255:6379\"} 255\n");
    assert_null(strstr(s.out.data, "h256"));
    expect(&s, "redial_node_slots{upstream=\"c\\\"l\",node=\"other\"} 771\n");
    expect(&s, "redial_node_up{upstream=\"c\\\"l\",node=\"other\"} 3\n");
    expect(&s, "redial_node_latency_seconds{upstream=\"c\\\"l\",node=\"other\""
               "} 0.001257\n");
    close_scene(&s);
}

/* Two workers may know the nodes in another order, and not the same ones. */
static void workers_are_added_up_by_address(void **state)
{
    (void)state;
    struct scene s, other;
    open_scene(&s);
    open_scene(&other);
    struct node_state *a = add(&s.states[1], "a");
    struct node_state *b = add(&s.states[1], "b");
    a->lanes_up = 1;
    b->failures_total = 1;
    b->latency_us = 10;
    add(&other.states[1], "new")->lanes_up = 100;
    struct node_state *b2 = add(&other.states[1], "b");
    struct node_state *a2 = add(&other.states[1], "a");
    a2->lanes_up = 2;
    a2->lanes_private = 3;
    b2->failures_total = 4;
    b2->in_flight = 5;
    b2->latency_us = 99;
    node_report_add(s.states, other.states, UPSTREAMS);
    assert_int_equal(s.states[1].n_nodes, 2);
    assert_int_equal(a->lanes_up, 3);
    assert_int_equal(a->lanes_private, 3);
    assert_int_equal(b->failures_total, 5);
    assert_int_equal(b->in_flight, 5);
    assert_int_equal(b->latency_us, 10); /* the first one's view */
    close_scene(&s);
    close_scene(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_page_tells_all_of_a_node),
        cmocka_unit_test(numbers_carry_upstream_and_node),
        cmocka_unit_test(the_number_of_labels_is_limited),
        cmocka_unit_test(workers_are_added_up_by_address),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
