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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_behind_the_last_goaway_does_not_run),
        cmocka_unit_test(the_goaway_comes_before_its_ping),
        cmocka_unit_test(a_broken_session_is_closed),
        cmocka_unit_test(a_link_that_is_idle_after_a_long_call_ends),
        cmocka_unit_test(headers_count_as_sent_with_their_last_byte),
    };
    (void)answer_ok;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
