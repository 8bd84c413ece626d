/* What is told of gRPC endpoints: the page /channels. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/io/channel_report.h"

enum {
    UPSTREAMS = 2,
    GRPC = 1 /* which of them */
};

struct scene {
    struct upstream_config upstreams[UPSTREAMS];
    struct config config;
    struct channel_state *states;
    struct text out;
};

static char redis[] = "cache", calls[] = "ca\"lls";

static void open_scene(struct scene *s)
{
    memset(s, 0, sizeof(*s));
    s->upstreams[0].name = redis;
    s->upstreams[GRPC].name = calls;
    s->upstreams[GRPC].type = UPSTREAM_GRPC;
    s->upstreams[GRPC].grpc.lb = GRPC_ROUND_ROBIN;
    s->config.upstreams = s->upstreams;
    s->config.n_upstreams = UPSTREAMS;
    s->states = channel_report_new(&s->config);
    assert_non_null(s->states);
}

static void close_scene(struct scene *s)
{
    channel_report_free(&s->config, s->states);
    text_fini(&s->out);
}

static struct channel_endpoint *add(struct channel_state *s, const char *host)
{
    assert_true(s->n_endpoints < s->endpoints_max);
    struct channel_endpoint *p = &s->endpoints[s->n_endpoints++];
    p->address.port = 50051;
    memcpy(p->address.host, host, strlen(host) + 1);
    p->state = "ready";
    return p;
}

static const char *find(const struct scene *s, const char *text)
{
    return s->out.data == NULL ? NULL : strstr(s->out.data, text);
}

static void the_page_tells_all_of_an_endpoint(void **state)
{
    (void)state;
    struct scene s;
    open_scene(&s);
    struct channel_state *c = &s.states[GRPC];
    c->state = "ready";
    c->calls = 9;
    c->waiting = 2;
    c->retries = 1;
    c->tokens = 5100;
    c->tokens_max = 10000;
    memcpy(c->last_error, "a\n", 3);
    struct channel_endpoint *p = add(c, "10.0.0.1");
    p->links_ready = 2;
    p->links_connecting = 1;
    p->links_draining = 3;
    p->streams = 7;
    p->stream_limit = 100;
    p->age_us = 1500000;
    struct channel_endpoint *q = add(c, "10.0.0.2");
    q->state = "backoff";
    q->leaving = true;
    q->failures = 4;
    q->backoff_us = 200000;
    q->stream_limit = UINT32_MAX;
    memcpy(q->last_error, "connection \"refused\"\x01", 22);
    channel_report_json(&s.config, s.states, 2, &s.out);
    assert_false(s.out.failed);
    assert_string_equal(
        s.out.data,
        "{\"workers\":2,\"channels\":[\n"
        " {\"name\":\"ca\\\"lls\",\"state\":\"ready\",\"lb\":\"round_robin\","
        "\"calls\":{\"active\":9,\"waiting\":2,\"retrying\":1},"
        "\"throttle\":{\"tokens\":5.100,\"max\":10.000,\"closed\":false},"
        "\"last_error\":\"a\\n\",\"endpoints_left_out\":0,\"endpoints\":[\n"
        "  {\"address\":\"10.0.0.1:50051\",\"state\":\"ready\",\"leaving\":"
        "false,\"connections\":{\"ready\":2,\"connecting\":1,\"draining\":3},"
        "\"streams\":7,\"stream_limit\":100,\"age_seconds\":1.500000,"
        "\"failures\":0,\"backoff_seconds\":null,\"last_error\":null},\n"
        "  {\"address\":\"10.0.0.2:50051\",\"state\":\"backoff\",\"leaving\":"
        "true,\"connections\":{\"ready\":0,\"connecting\":0,\"draining\":0},"
        "\"streams\":0,\"stream_limit\":null,\"age_seconds\":null,"
        "\"failures\":4,\"backoff_seconds\":0.200000,"
        "\"last_error\":\"connection \\\"refused\\\"\\u0001\"}]}\n]}\n");
    close_scene(&s);
}

/* At half of the tokens retries end; without a throttle they never do. */
static void a_closed_throttle_is_shown(void **state)
{
    (void)state;
    struct scene s;
    open_scene(&s);
    struct channel_state *c = &s.states[GRPC];
    channel_report_json(&s.config, s.states, 1, &s.out);
    assert_non_null(find(&s, "\"throttle\":null,"));
    text_fini(&s.out);
    c->tokens = 5000;
    c->tokens_max = 10000;
    channel_report_json(&s.config, s.states, 1, &s.out);
    assert_non_null(find(&s, "\"closed\":true"));
    close_scene(&s);
}

/* Two workers may know the endpoints in another order, and not the same. */
static void workers_are_added_up_by_address(void **state)
{
    (void)state;
    struct scene s, other;
    open_scene(&s);
    open_scene(&other);
    struct channel_endpoint *a = add(&s.states[GRPC], "a");
    struct channel_endpoint *b = add(&s.states[GRPC], "b");
    a->links_ready = 1;
    a->age_us = 10;
    add(&other.states[GRPC], "new")->links_ready = 100;
    struct channel_endpoint *b2 = add(&other.states[GRPC], "b");
    struct channel_endpoint *a2 = add(&other.states[GRPC], "a");
    a2->links_ready = 2;
    a2->links_draining = 3;
    a2->streams = 4;
    a2->age_us = 99;
    b2->links_connecting = 5;
    other.states[GRPC].calls = 6;
    other.states[GRPC].waiting = 7;
    other.states[GRPC].retries = 8;
    channel_report_add(s.states, other.states, UPSTREAMS);
    assert_int_equal(s.states[GRPC].n_endpoints, 2);
    assert_int_equal(s.states[GRPC].calls, 6);
    assert_int_equal(s.states[GRPC].waiting, 7);
    assert_int_equal(s.states[GRPC].retries, 8);
    assert_int_equal(a->links_ready, 3);
    assert_int_equal(a->links_draining, 3);
    assert_int_equal(a->streams, 4);
    assert_int_equal(a->age_us, 10); /* the first one's view */
    assert_int_equal(b->links_connecting, 5);
    close_scene(&s);
    close_scene(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_page_tells_all_of_an_endpoint),
        cmocka_unit_test(a_closed_throttle_is_shown),
        cmocka_unit_test(workers_are_added_up_by_address),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
