/* What the core tells of a gRPC upstream: its endpoints, its numbers, and the
 * events of connections. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "config_loading.h"
#include "proxy/core/channel_state.h"
#include "proxy/core/engine.h"
#include "proxy/core/grpc_stats.h"
#include "proxy/core/grpc_trace.h"

enum {
    REDIS, /* the upstreams */
    CALLS,
    ENDPOINTS = 2,
    ENDPOINTS_ROOM = 8,
    METHODS_ROOM = 4
};

#define COMMON                                    \
    "[listener r]\naddress = 127.0.0.1:1\n"       \
    "upstream = cache\n"                          \
    "[listener g]\naddress = 127.0.0.1:2\n"       \
    "protocol = grpc\nupstream = calls\n"         \
    "[upstream cache]\naddress = 10.0.0.9:6379\n" \
    "[upstream calls]\ntype = grpc\n"             \
    "nodes = 10.0.0.1:1, 10.0.0.2:2\n"            \
    "throttle_max_tokens = 10\n"
#define S_US UINT64_C(1000000)

static const char pick_first[] = COMMON;
static const char round_robin[] = COMMON "lb = round_robin\n";

/* An engine, and what it has asked for. */
struct scene {
    struct config *config;
    struct engine *engine;
    uint64_t now_us;
    conn_id asked[ENDPOINTS]; /* being opened, by port */
    unsigned n_asked;         /* ever */
    unsigned traces[TRACE_TYPE_COUNT];
    unsigned attempt; /* of the last connect_failed */
    struct channel_endpoint endpoints[ENDPOINTS_ROOM];
    struct channel_state state;
    struct grpc_method_stats methods[METHODS_ROOM];
    struct grpc_stats stats;
};

static void on_trace(void *context, const struct trace_record *r)
{
    struct scene *s = context;
    s->traces[r->type]++;
    if (r->type == TRACE_CONNECT_FAILED) {
        assert_string_equal(r->upstream, "calls");
        assert_string_equal(r->reason, "connection refused");
        s->attempt = r->attempt;
    }
}

static void take_actions(struct scene *s)
{
    struct action a;
    while (engine_next(s->engine, &a)) {
        if (a.type == ACTION_CONNECT && a.address->port <= ENDPOINTS) {
            s->asked[a.address->port - 1] = a.conn;
            s->n_asked++;
        } else if (a.type == ACTION_WRITE) {
            chain_clear(engine_memory(s->engine), &a.bytes);
        }
    }
}

static void step(struct scene *s, struct event event)
{
    event.now_us = s->now_us;
    engine_step(s->engine, &event);
    take_actions(s);
}

static struct scene *open_scene_of(const char *text)
{
    struct scene *s = calloc(1, sizeof(*s));
    assert_non_null(s);
    struct config_problems problems = { .n = 0 };
    struct config_source source = loaded_source(text);
    s->config = config_load(&source, &problems);
    assert_non_null(s->config);
    s->now_us = S_US;
    struct engine_options options = {
        .config = s->config,
        .seed = 1,
        .tracer = { .emit = on_trace, .context = s },
        .now_us = s->now_us,
    };
    s->engine = engine_new(&options);
    assert_non_null(s->engine);
    s->state.endpoints = s->endpoints;
    s->state.endpoints_max = ENDPOINTS_ROOM;
    s->stats.methods = s->methods;
    take_actions(s);
    return s;
}

static struct scene *open_scene(void)
{
    return open_scene_of(round_robin);
}

static void close_scene(struct scene *s)
{
    engine_free(s->engine);
    config_free(s->config);
    free(s);
}

/* Every connection that is being opened is refused. */
static void refuse_all(struct scene *s)
{
    for (unsigned i = 0; i < ENDPOINTS; i++) {
        conn_id id = s->asked[i];
        s->asked[i] = 0;
        if (id != 0) {
            step(s, (struct event){ .type = EVENT_CONNECTED,
                                    .conn = id,
                                    .error = 1 + IO_REFUSED });
        }
    }
}

static void hear(struct scene *s, conn_id id, const uint8_t *bytes, size_t n)
{
    struct buf *b = buf_new(engine_memory(s->engine), (uint32_t)n);
    assert_non_null(b);
    memcpy(b->data, bytes, n);
    b->len = (uint32_t)n;
    step(s, (struct event){ .type = EVENT_BYTES,
                            .conn = id,
                            .bytes = { .buf = b, .len = (uint32_t)n } });
}

/* The first endpoint answers: SETTINGS with room for 100 streams. */
static void answer_first(struct scene *s)
{
    static const uint8_t settings[] = { 0, 0, 6, 4, 0, 0, 0,  0,
                                        0, 0, 3, 0, 0, 0, 100 };
    conn_id id = s->asked[0];
    assert_int_not_equal(id, 0);
    step(s, (struct event){ .type = EVENT_CONNECTED, .conn = id });
    hear(s, id, settings, sizeof(settings));
}

static void look(struct scene *s)
{
    engine_channel_state(s->engine, CALLS, &s->state);
    engine_grpc_stats(s->engine, CALLS, &s->stats);
}

static void endpoints_begin_as_connecting(void **state)
{
    (void)state;
    struct scene *s = open_scene();
    look(s);
    assert_string_equal(s->state.state, "connecting");
    assert_int_equal(s->state.n_endpoints, ENDPOINTS);
    for (uint32_t i = 0; i < ENDPOINTS; i++) {
        const struct channel_endpoint *p = &s->endpoints[i];
        assert_string_equal(p->state, "connecting");
        assert_int_equal(p->address.port, i + 1);
        assert_int_equal(p->links_connecting, 1);
        assert_int_equal(p->failures, 0);
    }
    assert_int_equal(s->state.tokens, 10000);
    assert_int_equal(s->state.tokens_max, 10000);
    assert_int_equal(s->stats.connecting, ENDPOINTS);
    assert_int_equal(s->stats.endpoints, ENDPOINTS);
    assert_int_equal(s->stats.budget_tokens, 10000);
    close_scene(s);
}

static void those_that_fail_show_why_and_when_next(void **state)
{
    (void)state;
    struct scene *s = open_scene();
    refuse_all(s);
    look(s);
    assert_string_equal(s->state.state, "failing");
    assert_non_null(strstr(s->state.last_error, "connection refused"));
    for (uint32_t i = 0; i < ENDPOINTS; i++) {
        const struct channel_endpoint *p = &s->endpoints[i];
        assert_string_equal(p->state, "backoff");
        assert_int_equal(p->failures, 1);
        assert_string_equal(p->last_error, "connection refused");
        assert_int_equal(p->links_connecting, 0);
        assert_in_range(p->backoff_us, 1, 300 * 1000);
    }
    assert_int_equal(s->stats.connections_failed, ENDPOINTS);
    close_scene(s);
}

/* The first failure is news, and then each tenth. */
static void the_log_does_not_tell_of_each_attempt(void **state)
{
    (void)state;
    struct scene *s = open_scene();
    for (unsigned round = 0; round < 25; round++) {
        refuse_all(s);
        s->now_us += 10 * S_US;
        step(s, (struct event){ .type = EVENT_TIMEOUT });
    }
    assert_int_equal(s->n_asked, 26 * ENDPOINTS);
    assert_int_equal(s->traces[TRACE_CONNECT_FAILED], 3 * ENDPOINTS);
    assert_int_equal(s->attempt, 20);
    close_scene(s);
}

static void one_that_is_ready_shows_its_limit_and_age(void **state)
{
    (void)state;
    struct scene *s = open_scene();
    answer_first(s);
    look(s);
    assert_int_equal(s->endpoints[0].backoff_us, 0); /* nothing has failed */
    s->now_us += 3 * S_US;
    step(s, (struct event){ .type = EVENT_TIMEOUT });
    look(s);
    assert_string_equal(s->state.state, "ready");
    const struct channel_endpoint *p = &s->endpoints[0];
    assert_string_equal(p->state, "ready");
    assert_int_equal(p->links_ready, 1);
    assert_int_equal(p->stream_limit, 100);
    assert_int_equal(p->age_us, 3 * S_US);
    assert_int_equal(s->stats.connections, 1);
    assert_int_equal(s->stats.connections_opened, 1);
    assert_int_equal(s->stats.endpoints_ready, 1);
    assert_int_equal(s->traces[TRACE_CONNECTION_READY], 1);
    assert_true(engine_upstream_ready(s->engine, CALLS));
    close_scene(s);
}

static void a_lost_connection_has_a_reason(void **state)
{
    (void)state;
    struct scene *s = open_scene();
    conn_id id = s->asked[0];
    answer_first(s);
    step(s, (struct event){
                .type = EVENT_CLOSED, .conn = id, .error = 1 + IO_RESET });
    look(s);
    assert_int_equal(s->traces[TRACE_CONNECTION_LOST], 1);
    assert_int_equal(s->stats.connections_lost, 1);
    assert_int_equal(s->stats.disconnections[GRPC_DISCONNECT_RESET], 1);
    assert_int_equal(s->stats.connections, 0);
    assert_non_null(strstr(s->state.last_error, "reset"));
    close_scene(s);
}

/* A94: what was seen first is the reason. */
static void a_goaway_is_the_reason_of_the_end_that_follows(void **state)
{
    (void)state;
    static const uint8_t goaway[] = { 0, 0, 12, 7, 0, 0,  0,   0,   0,   0,  0,
                                      0, 0, 0,  0, 0, 11, 'c', 'a', 'l', 'm' };
    struct scene *s = open_scene();
    conn_id id = s->asked[0];
    answer_first(s);
    hear(s, id, goaway, sizeof(goaway));
    step(s, (struct event){
                .type = EVENT_CLOSED, .conn = id, .error = 1 + IO_RESET });
    look(s);
    assert_int_equal(s->traces[TRACE_GOAWAY_RECEIVED], 1);
    assert_int_equal(s->stats.goaways, 1);
    assert_int_equal(s->stats.disconnections[GRPC_DISCONNECT_RESET], 0);
    assert_int_equal(s->stats.disconnections[grpc_disconnect_of(11)], 1);
    close_scene(s);
}

/* pick_first connects when a call comes: a probe that waits for a connection
 * would keep the calls away. */
static void who_is_not_needed_is_ready(void **state)
{
    (void)state;
    struct scene *s = open_scene();
    assert_false(engine_upstream_ready(s->engine, CALLS)); /* still trying */
    refuse_all(s);
    assert_false(engine_upstream_ready(s->engine, CALLS));
    close_scene(s);
    s = open_scene_of(pick_first);
    assert_int_equal(s->n_asked, 0);
    look(s);
    assert_string_equal(s->endpoints[0].state, "idle");
    assert_true(engine_upstream_ready(s->engine, CALLS));
    close_scene(s);
}

static void what_has_no_room_is_counted(void **state)
{
    (void)state;
    struct scene *s = open_scene();
    s->state.endpoints_max = 1;
    look(s);
    assert_int_equal(s->state.n_endpoints, 1);
    assert_int_equal(s->state.n_left_out, 1);
    close_scene(s);
}

/* The reader's room is used for one worker after the other. */
static void old_numbers_do_not_stay(void **state)
{
    (void)state;
    struct scene *s = open_scene();
    s->methods[0].calls_started = 7;
    grpc_ended_add(&s->methods[0].calls[GRPC_OK], 1, 2, 3);
    grpc_ended_add(&s->methods[0].attempts[GRPC_ABORTED], 1, 2, 3);
    look(s);
    assert_int_equal(s->methods[0].calls_started, 0);
    assert_int_equal(s->methods[0].calls[GRPC_OK].duration.count, 0);
    assert_int_equal(s->methods[0].attempts[GRPC_ABORTED].reply_bytes.sum, 0);
    s->stats.methods = NULL; /* not asked for */
    look(s);
    assert_null(s->stats.methods);
    close_scene(s);
}

static void of_redis_there_is_nothing(void **state)
{
    (void)state;
    struct scene *s = open_scene();
    s->state.n_endpoints = 5;
    s->stats.goaways = 6;
    engine_channel_state(s->engine, REDIS, &s->state);
    engine_grpc_stats(s->engine, REDIS, &s->stats);
    assert_int_equal(s->state.n_endpoints, 0);
    assert_int_equal(s->stats.goaways, 6);
    close_scene(s);
}

static void without_grpc_there_is_nothing(void **state)
{
    (void)state;
    struct scene *s = open_scene_of("[upstream cache]\n"
                                    "address = 127.0.0.1:6379\n");
    s->state.n_endpoints = 5;
    s->stats.goaways = 6;
    engine_channel_state(s->engine, 0, &s->state);
    engine_grpc_stats(s->engine, 0, &s->stats);
    assert_int_equal(s->state.n_endpoints, 0);
    assert_int_equal(s->stats.goaways, 6);
    close_scene(s);
}

static void first_bytes_tell_what_a_stranger_speaks(void **state)
{
    (void)state;
    static const struct {
        const char *bytes, *hint;
    } cases[] = {
        { "\x16\x03\x01", "TLS" },    { "GET / HTTP/1.1\r\n", "HTTP/1" },
        { "POST /a.B/C ", "HTTP/1" }, { "*1\r\n$4\r\nPING\r\n", "Redis" },
        { "", "nothing was said" },   { "hello", "not HTTP/2" },
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *hint = grpc_preface_hint(span_of(cases[i].bytes));
        assert_non_null(strstr(hint, cases[i].hint));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(endpoints_begin_as_connecting),
        cmocka_unit_test(those_that_fail_show_why_and_when_next),
        cmocka_unit_test(the_log_does_not_tell_of_each_attempt),
        cmocka_unit_test(one_that_is_ready_shows_its_limit_and_age),
        cmocka_unit_test(a_lost_connection_has_a_reason),
        cmocka_unit_test(a_goaway_is_the_reason_of_the_end_that_follows),
        cmocka_unit_test(who_is_not_needed_is_ready),
        cmocka_unit_test(what_has_no_room_is_counted),
        cmocka_unit_test(old_numbers_do_not_stay),
        cmocka_unit_test(of_redis_there_is_nothing),
        cmocka_unit_test(without_grpc_there_is_nothing),
        cmocka_unit_test(first_bytes_tell_what_a_stranger_speaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
