/* The whole engine between HTTP/2 sessions in memory: that nothing runs twice,
 * that each call ends once, and that nothing is left behind. The names in
 * brackets are those of the conformance tests in grpc.md §7. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "grpc_driver.h"
#include "h2_raw.h"

#define LISTENER                                                \
    "[listener l]\naddress = 127.0.0.1:7000\nprotocol = grpc\n" \
    "upstream = u\n"
#define ONE  "[upstream u]\ntype = grpc\nnodes = 127.0.0.1:1000\n"
#define PATH "/s.S/M"

enum {
    ALLOCATIONS = 900,
};

/* The talk of a server that came as the i-th of those still open. */
static struct talk *asked(struct peer *server, int32_t id)
{
    struct talk *t = talk_of(&server->side, id);
    if (t == NULL) {
        fail_msg("no stream %d in:\n%s", id, server->side.log);
    }
    return t;
}

static void answer_ok(struct side *s, struct talk *t)
{
    reply_ok(s, t);
}

/* ---- clients that leave, or are sent away ---------------------------------- */

/* The client's output is stuck behind a large response, so that the GOAWAYs are
 * late; a request that comes meanwhile is behind the last one, which was said
 * before, and its client will send it again, elsewhere (S3). */
static void a_stream_behind_the_last_goaway_does_not_run(void **state)
{
    (void)state;
    struct driver *d = driver_new(LISTENER ONE, 0);
    struct peer *c = driver_client(d, 0);
    (void)call_unary(c, PATH, 10, NULL);
    driver_run(d);
    struct peer *s = driver_server(d, 1000);
    c->takes = 0;
    reply_head(&s->side, asked(s, 1));
    reply_data(&s->side, asked(s, 1), 200000);
    driver_run(d);
    driver_drain(d);
    driver_pass(d, 2 * SECOND);
    (void)call_unary(c, PATH, 10, NULL);
    driver_run(d);
    c->takes = UINT64_MAX;
    driver_run(d);
    assert_true(said(c, "goaway 1 NO_ERROR"));
    assert_true(said(c, "closed 3 REFUSED_STREAM"));
    assert_int_equal(log_count(&s->side, "request"), 1);
    reply_trailers(&s->side, asked(s, 1), "grpc-status: 0\n");
    driver_run(d);
    assert_true(said(c, "trailers 1: grpc-status=0"));
    driver_free(d);
}

static void the_goaway_comes_before_its_ping(void **state)
{
    (void)state; /* §3.9: the answer proves that it was seen */
    struct driver *d = driver_new(LISTENER ONE, 0);
    struct peer *c = driver_client(d, 0);
    (void)call_unary(c, PATH, 10, NULL);
    driver_run(d);
    log_clear(&c->side);
    driver_drain(d);
    driver_run(d);
    const char *goaway = strstr(c->side.log, "goaway 2147483647");
    const char *ping = strstr(c->side.log, "ping\n");
    assert_true(goaway != NULL && ping != NULL && goaway < ping);
    driver_free(d);
}

static void a_broken_session_is_closed(void **state)
{
    (void)state;
    struct driver *d = driver_new(LISTENER ONE, 0);
    struct peer *c = driver_client(d, 0);
    (void)call_unary(c, PATH, 10, NULL);
    driver_run(d);
    static struct raw raw;
    raw = (struct raw){ .len = 0 };
    raw_headers(&raw, 2, simple_request, true); /* an even id */
    peer_raw(c, raw.bytes, raw.len);
    driver_run(d);
    assert_true(said(c, "goaway 1 PROTOCOL_ERROR"));
    driver_pass(d, 2 * SECOND);
    assert_false(c->open);
    driver_run(d);
    assert_true(said(driver_server(d, 1000), "closed 1 CANCEL")); /* A1 */
    driver_free(d);
}

/* ---- links ------------------------------------------------------------------ */

static void a_link_that_is_idle_after_a_long_call_ends(void **state)
{
    (void)state; /* U8, conn-19 */
    struct driver *d = driver_new(LISTENER ONE, 0);
    struct peer *c = driver_client(d, 0);
    (void)call_unary(c, PATH, 10, NULL);
    driver_pass(d, 31 * 60 * SECOND);
    struct peer *s = driver_server(d, 1000);
    assert_non_null(s);
    reply_ok(&s->side, asked(s, 1));
    driver_pass(d, 29 * 60 * SECOND);
    assert_true(s->open);
    driver_pass(d, 2 * 60 * SECOND);
    assert_false(s->open);
    driver_free(d);
}

/* ---- what has been sent ------------------------------------------------------ */

/* [safe-01, safe-02] The connection dies when the kernel has taken all but
 * `less` bytes of the headers. */
static void die_with(uint64_t less, bool again)
{
    struct driver *d = driver_new(LISTENER ONE, 0);
    struct peer *c = driver_client(d, 0);
    (void)call_unary(c, PATH, 10, NULL);
    driver_run(d);
    struct peer *s = driver_server(d, 1000);
    reply_ok(&s->side, asked(s, 1));
    driver_run(d);
    /* How long the headers of the second call are is seen on the wire. */
    s->takes = 0;
    (void)call_unary(c, PATH, 10, NULL);
    driver_run(d);
    const uint8_t *p = bytes_front(&s->untaken);
    uint64_t size = 0;
    while (p[size + 3] != RAW_HEADERS) {
        size += 9 + (uint64_t)(p[size] << 16 | p[size + 1] << 8 | p[size + 2]);
    }
    size += 9 + (uint64_t)(p[size] << 16 | p[size + 1] << 8 | p[size + 2]);
    s->takes = size - less;
    driver_run(d);
    peer_end(s, IO_RESET);
    driver_pass(d, SECOND);
    if (again) {
        struct peer *next = driver_server(d, 1000);
        assert_non_null(next);
        assert_int_equal(log_count(&s->side, "request 3"), 0);
        reply_ok(&next->side, asked(next, 1));
        driver_run(d);
        assert_true(said(c, "trailers 3: grpc-status=0"));
    } else {
        assert_int_equal(log_count(&s->side, "request 3"), 1);
        assert_true(said(c, "grpc-status=14"));
    }
    driver_free(d);
}

static void headers_count_as_sent_with_their_last_byte(void **state)
{
    (void)state;
    die_with(1, true);
    die_with(0, false);
}

/* ---- memory ------------------------------------------------------------------- */

/* A bit of everything: a retry, an upload, a download, an answer too early, a
 * cancelled call, a lost connection, a drain. */
static void play(size_t fail_at)
{
    struct driver *d =
        driver_new(LISTENER ONE
                   "max_retry_attempts = 2\nidempotent_methods = /s.S/M\n"
                   "initial_backoff = 10ms\nidle_probe = 10s\n",
                   fail_at);
    if (d == NULL) {
        return;
    }
    struct peer *c = driver_client(d, 0);
    if (c == NULL) {
        driver_free(d);
        return;
    }
    struct talk *one = call_unary(c, PATH, 100, "x-key: value\n");
    struct talk *two = call_open(c, "/s.S/Stream", NULL);
    driver_pass(d, SECOND);
    if (two != NULL && two->stream != NULL) {
        call_send(c, two, 100000, false);
    }
    driver_pass(d, SECOND);
    struct peer *s = driver_server(d, 1000);
    for (int32_t id = 1; s != NULL && id < 5; id += 2) {
        struct talk *t = talk_of(&s->side, id);
        if (t != NULL && id == 1) {
            reply_only(&s->side, t, "grpc-status: 14\n");
        } else if (t != NULL) {
            reply_head(&s->side, t);
            reply_data(&s->side, t, 150000);
        }
    }
    driver_pass(d, SECOND);
    s = driver_server(d, 1000);
    struct talk *again = s == NULL ? NULL : talk_of(&s->side, 5);
    if (again != NULL) {
        reply_ok(&s->side, again);
    }
    driver_pass(d, 11 * SECOND);
    if (c->open) {
        (void)call_unary(c, PATH, 3000, NULL);
    }
    driver_pass(d, 2 * SECOND);
    s = driver_server(d, 1000);
    if (s != NULL) {
        peer_end(s, fail_at % 2 == 0 ? IO_END : IO_RESET);
    }
    driver_pass(d, SECOND);
    driver_drain(d);
    driver_pass(d, 2 * SECOND);
    if (fail_at % 3 == 0) {
        driver_drain(d);
        driver_pass(d, 2 * SECOND);
    }
    (void)one;
    driver_free(d);
}

/* §5.5: frames with one byte each. The block they were read in is counted
 * while they are referred to, so the engine's own memory is looked at. */
static void tiny_frames_take_no_more_than_they_say(void **state)
{
    (void)state;
    enum {
        FRAMES = 100000
    };
    struct driver *d = driver_new(LISTENER ONE, 0);
    d->refuses[0] = true;
    struct peer *c = driver_client(d, 0);
    (void)call_open(c, PATH, NULL);
    driver_run(d);
    struct engine_stats stats;
    struct upstream_stats upstreams[1];
    size_t live = d->memory.live;
    engine_stats(d->engine, &stats, upstreams);
    uint64_t before = stats.block_bytes;
    static struct raw raw;
    for (unsigned i = 0; i < FRAMES; i += 1000) {
        raw = (struct raw){ .len = 0 };
        for (unsigned k = 0; k < 1000; k++) {
            raw_frame(&raw, RAW_DATA, 0, 1, i + k == 0 ? "\0" : "x", 1);
        }
        peer_raw(c, raw.bytes, raw.len);
        driver_run(d);
    }
    engine_stats(d->engine, &stats, upstreams);
    assert_in_range(stats.block_bytes - before, FRAMES, 2 * FRAMES);
    assert_true(d->memory.live - live < FRAMES / 100);
    driver_free(d);
}

/* [flow-09] */
static void any_allocation_may_fail(void **state)
{
    (void)state;
    for (size_t n = 1; n <= ALLOCATIONS; n++) {
        play(n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_behind_the_last_goaway_does_not_run),
        cmocka_unit_test(the_goaway_comes_before_its_ping),
        cmocka_unit_test(a_broken_session_is_closed),
        cmocka_unit_test(a_link_that_is_idle_after_a_long_call_ends),
        cmocka_unit_test(headers_count_as_sent_with_their_last_byte),
        cmocka_unit_test(tiny_frames_take_no_more_than_they_say),
        cmocka_unit_test(any_allocation_may_fail),
    };
    (void)answer_ok;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
