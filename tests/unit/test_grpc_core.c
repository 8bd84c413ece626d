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
    ALLOCATIONS = 300, /* there are fewer */
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

/* A session that the library has ended, for what the endpoint did, takes no
 * more calls: in the same moment another one gets its turn. */
static void no_call_goes_to_a_session_that_has_ended(void **state)
{
    (void)state;
    struct driver *d =
        driver_new(LISTENER ONE "max_connections_per_endpoint = 1\n", 0);
    d->server_streams = 3;
    struct peer *c = driver_client(d, 0);
    for (unsigned i = 0; i < 4; i++) {
        (void)call_unary(c, PATH, 10, NULL);
    }
    driver_run(d);
    struct peer *s = NULL;
    for (size_t i = 0; i < d->n_peers && s == NULL; i++) {
        s = d->peers[i]->client ? NULL : d->peers[i];
    }
    for (int32_t id = 1; id < 6; id += 2) {
        reply_ok(&s->side, asked(s, id));
    }
    static struct raw raw;
    raw = (struct raw){ .len = 0 };
    raw_frame(&raw, RAW_DATA, 0, 0, "x", 1); /* stream 0 */
    peer_raw(s, raw.bytes, raw.len);
    driver_pass(d, SECOND);
    assert_true(said(c, "trailers 1: grpc-status=0"));
    assert_in_range(driver_stats(d).attempt_outcomes[GRPC_F1_UNSENT], 0, 1);
    assert_false(said(c, "grpc-status=14"));
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

/* ---- GOAWAY and refused streams ------------------------------------------------ */

static void wait_connected(struct driver *d)
{
    driver_pass(d, SECOND);
}

/* What an endpoint's session would say of itself: GOAWAY. */
static void say_goaway(struct peer *s, int32_t last, uint32_t code)
{
    static struct raw raw;
    raw = (struct raw){ .len = 0 };
    uint8_t payload[8] = { (uint8_t)(last >> 24),
                           (uint8_t)(last >> 16),
                           (uint8_t)(last >> 8),
                           (uint8_t)last,
                           0,
                           0,
                           0,
                           (uint8_t)code };
    raw_frame(&raw, RAW_GOAWAY, 0, 0, payload, sizeof(payload));
    peer_raw(s, raw.bytes, raw.len);
}

static void streams_behind_a_goaway_go_elsewhere_once(void **state)
{
    (void)state; /* [safe-06, safe-07] */
    struct driver *d = driver_new(LISTENER ONE, 0);
    struct peer *c = driver_client(d, 0);
    for (unsigned i = 0; i < 4; i++) {
        (void)call_unary(c, PATH, 10, NULL);
    }
    wait_connected(d);
    struct peer *s = driver_server(d, 1000);
    say_goaway(s, INT32_MAX, 0);
    driver_run(d);
    struct peer *next = driver_server(d, 1000);
    assert_ptr_not_equal(next, s);
    assert_int_equal(log_count(&next->side, "request"), 0);
    say_goaway(s, 3, 0);
    driver_run(d);
    assert_int_equal(log_count(&next->side, "request"), 2);
    reply_ok(&s->side, asked(s, 1));
    reply_ok(&s->side, asked(s, 3));
    reply_ok(&next->side, asked(next, 1));
    reply_ok(&next->side, asked(next, 3));
    driver_run(d);
    assert_int_equal(log_count(&c->side, "trailers"), 4);
    assert_false(s->open); /* K9 */
    driver_free(d);
}

static void what_comes_with_the_fin_counts(void **state)
{
    (void)state; /* [safe-08, safe-09], F-d */
    struct driver *d = driver_new(LISTENER ONE, 0);
    struct peer *c = driver_client(d, 0);
    (void)call_unary(c, PATH, 10, NULL);
    (void)call_unary(c, PATH, 10, NULL);
    wait_connected(d);
    struct peer *s = driver_server(d, 1000);
    reply_ok(&s->side, asked(s, 1));
    say_goaway(s, 1, 0);
    peer_end(s, IO_END);
    driver_pass(d, SECOND);
    assert_true(said(c, "trailers 1: grpc-status=0"));
    struct peer *next = driver_server(d, 1000);
    reply_ok(&next->side, asked(next, 1));
    driver_run(d);
    assert_true(said(c, "trailers 3: grpc-status=0"));
    driver_free(d);
}

static void queued_requests_leave_a_draining_link(void **state)
{
    (void)state; /* [safe-10] */
    struct driver *d = driver_new(LISTENER ONE, 0);
    struct peer *c = driver_client(d, 0);
    struct talk *up = call_open(c, PATH, NULL);
    wait_connected(d);
    struct peer *s = driver_server(d, 1000);
    s->takes = 0;
    call_send(c, up, 60000, false);
    driver_run(d);
    for (unsigned i = 0; i < 300 && s->untaken.size < 65536; i++) {
        (void)call_unary(c, PATH, 1000, NULL);
        driver_run(d);
        if (log_count(&c->side, "headers_sent") > 50) {
            break;
        }
    }
    say_goaway(s, 1, 0);
    driver_pass(d, SECOND);
    struct peer *next = driver_server(d, 1000);
    assert_ptr_not_equal(next, s);
    assert_true(log_count(&next->side, "request") > 5);
    assert_int_equal(log_count(&next->side, "request") + 1,
                     log_count(&c->side, "headers_sent"));
    s->takes = UINT64_MAX;
    driver_run(d);
    /* What of them had been serialized already is above the last id. */
    for (int32_t id = 1; id < 200; id += 2) {
        struct talk *t = talk_of(&next->side, id);
        if (t != NULL) {
            reply_ok(&next->side, t);
        }
    }
    driver_run(d);
    assert_int_equal(log_count(&c->side, "trailers"),
                     log_count(&next->side, "request"));
    driver_free(d);
}

#define RETRY                                                            \
    ONE "max_retry_attempts = 3\nretryable_status_codes = UNAVAILABLE\n" \
        "initial_backoff = 100ms\n"

static void refused_after_a_failure_is_a_failure(void **state)
{
    (void)state; /* [safe-05], T2 */
    struct driver *d = driver_new(LISTENER RETRY, 0);
    struct peer *c = driver_client(d, 0);
    (void)call_unary(c, PATH, 10, NULL);
    wait_connected(d);
    struct peer *s = driver_server(d, 1000);
    reply_only(&s->side, asked(s, 1), "grpc-status: 14\n");
    driver_pass(d, SECOND);
    for (int32_t id = 3; id <= 7; id += 2) {
        h2_reset(s->side.h, asked(s, id)->stream, H2_REFUSED_STREAM);
        driver_pass(d, SECOND);
    }
    assert_true(said(c, "grpc-status=14"));
    assert_true(said(c, "stream refused by 127.0.0.1:1000"));
    assert_true(said(s, "grpc-previous-rpc-attempts=3"));
    assert_int_equal(log_count(&s->side, "request"), 4);
    driver_free(d);
}

static void refused_behind_held_headers_is_ambiguous(void **state)
{
    (void)state; /* [safe-16] */
    struct driver *d = driver_new(LISTENER RETRY, 0);
    struct peer *c = driver_client(d, 0);
    (void)call_unary(c, PATH, 10, NULL);
    wait_connected(d);
    struct peer *s = driver_server(d, 1000);
    reply_head(&s->side, asked(s, 1));
    driver_run(d);
    assert_false(said(c, "response"));
    h2_reset(s->side.h, asked(s, 1)->stream, H2_REFUSED_STREAM);
    driver_pass(d, SECOND);
    assert_int_equal(log_count(&s->side, "request"), 1);
    assert_true(said(c, "grpc-status=14"));
    assert_int_equal(driver_stats(d).not_retried[GRPC_REASON_UNSAFE], 1);
    driver_free(d);
}

static void headers_nobody_can_send_end_the_call(void **state)
{
    (void)state; /* [safe-13], F-c */
    struct driver *d =
        driver_new("[listener l]\naddress = 127.0.0.1:7000\nprotocol = grpc\n"
                   "upstream = u\nmax_header_list_size = 128KiB\n" ONE,
                   0);
    struct peer *c = driver_client(d, 0);
    static struct raw raw;
    raw = (struct raw){ .len = 0 };
    static uint8_t value[45000];
    memset(value, 'v', sizeof(value));
    raw_block(&raw, simple_request);
    raw_field(&raw, "x-large", 7, value, sizeof(value));
    raw_field(&raw, "x-large", 7, value, sizeof(value));
    static struct raw frames;
    frames = (struct raw){ .len = 0 };
    for (size_t at = 0; at < raw.len; at += 16384) {
        size_t n = raw.len - at < 16384 ? raw.len - at : 16384;
        raw_frame(&frames, at == 0 ? RAW_HEADERS : RAW_CONTINUATION,
                  (at == 0 ? RAW_END_STREAM : 0U) |
                      (at + n == raw.len ? RAW_END_HEADERS : 0U),
                  1, raw.bytes + at, n);
    }
    peer_raw(c, frames.bytes, frames.len);
    driver_pass(d, 5 * SECOND);
    assert_int_equal(d->connects, 1);
    assert_int_equal(driver_stats(d).not_retried[GRPC_REASON_LOCAL], 1);
    driver_free(d);
}

static void no_retries_at_all(void **state)
{
    (void)state; /* [safe-15] */
    struct driver *d = driver_new(LISTENER RETRY "retries = off\n", 0);
    struct peer *c = driver_client(d, 0);
    (void)call_unary(c, PATH, 10, NULL);
    wait_connected(d);
    struct peer *s = driver_server(d, 1000);
    h2_reset(s->side.h, asked(s, 1)->stream, H2_REFUSED_STREAM);
    driver_pass(d, SECOND);
    assert_int_equal(log_count(&s->side, "request"), 1);
    assert_true(said(c, "grpc-status=14"));
    driver_free(d);

    d = driver_new(LISTENER RETRY "retries = transparent\n", 0);
    c = driver_client(d, 0);
    (void)call_unary(c, PATH, 10, NULL);
    wait_connected(d);
    s = driver_server(d, 1000);
    h2_reset(s->side.h, asked(s, 1)->stream, H2_REFUSED_STREAM);
    driver_run(d);
    reply_only(&s->side, asked(s, 3), "grpc-status: 14\n");
    driver_pass(d, SECOND);
    assert_int_equal(log_count(&s->side, "request"), 2);
    assert_int_equal(driver_stats(d).not_retried[GRPC_REASON_DISABLED], 1);
    driver_free(d);
}

/* ---- policy retries ------------------------------------------------------------ */

static void streams_are_not_retried_by_blanket(void **state)
{
    (void)state; /* [retry-06] */
    struct driver *d = driver_new(LISTENER RETRY, 0);
    struct peer *c = driver_client(d, 0);
    (void)call_open(c, PATH, NULL);
    wait_connected(d);
    struct peer *s = driver_server(d, 1000);
    reply_only(&s->side, asked(s, 1), "grpc-status: 14\n");
    driver_pass(d, SECOND);
    assert_int_equal(log_count(&s->side, "request"), 1);
    assert_int_equal(driver_stats(d).not_retried[GRPC_REASON_UNSAFE], 1);
    assert_true(said(c, "closed 1 NO_ERROR")); /* Z4 */
    driver_free(d);
}

static void pushback_starts_the_backoff_anew(void **state)
{
    (void)state; /* [retry-09] */
    struct driver *d = driver_new(LISTENER RETRY, 0);
    struct peer *c = driver_client(d, 0);
    (void)call_unary(c, PATH, 10, NULL);
    wait_connected(d);
    struct peer *s = driver_server(d, 1000);
    reply_only(&s->side, asked(s, 1), "grpc-status: 14\n");
    driver_pass(d, 120 * MS);
    reply_only(&s->side, asked(s, 3),
               "grpc-status: 14\ngrpc-retry-pushback-ms: 150\n");
    driver_run(d);
    driver_pass(d, 149 * MS);
    assert_int_equal(log_count(&s->side, "request"), 2);
    driver_pass(d, 1 * MS);
    assert_int_equal(log_count(&s->side, "request"), 3);
    reply_only(&s->side, asked(s, 5), "grpc-status: 14\n");
    driver_run(d);
    driver_pass(d, 79 * MS);
    assert_int_equal(log_count(&s->side, "request"), 3);
    driver_pass(d, 41 * MS);
    assert_int_equal(log_count(&s->side, "request"), 4);
    reply_only(&s->side, asked(s, 7),
               "grpc-status: 14\ngrpc-retry-pushback-ms: 500\n");
    driver_pass(d, SECOND);
    assert_true(said(c, "grpc-retry-pushback-ms=500")); /* [retry-19] */
    assert_false(said(c, "grpc-retry-pushback-ms=-1"));
    driver_free(d);
}

static void retries_at_once_have_a_cap(void **state)
{
    (void)state; /* [retry-15], Q7 */
    struct driver *d = driver_new(LISTENER RETRY, 0);
    struct peer *c = driver_client(d, 0);
    for (unsigned i = 0; i < 20; i++) {
        (void)call_unary(c, PATH, 10, NULL);
    }
    wait_connected(d);
    struct peer *s = driver_server(d, 1000);
    for (int32_t id = 1; id < 40; id += 2) {
        reply_only(&s->side, asked(s, id), "grpc-status: 14\n");
    }
    driver_pass(d, SECOND);
    uint64_t retried = log_count(&s->side, "request") - 20;
    struct grpc_stats stats = driver_stats(d);
    assert_in_range(retried, 10, 14);
    assert_int_equal(stats.not_retried[GRPC_REASON_RETRY_OVERFLOW],
                     20 - retried);
    for (int32_t id = 41; id < 41 + 2 * (int32_t)retried; id += 2) {
        reply_ok(&s->side, asked(s, id));
    }
    driver_run(d);
    assert_int_equal(driver_stats(d).not_retried[GRPC_REASON_OK], retried);
    driver_free(d);
}

/* ---- commit, hold, log --------------------------------------------------------- */

static void held_headers_are_dropped_by_a_retry(void **state)
{
    (void)state; /* [hold-01, hold-07] */
    struct driver *d = driver_new(LISTENER RETRY, 0);
    struct peer *c = driver_client(d, 0);
    (void)call_unary(c, PATH, 10, NULL);
    wait_connected(d);
    struct peer *s = driver_server(d, 1000);
    for (int32_t id = 1; id <= 7; id += 2) {
        reply_head(&s->side, asked(s, id));
        driver_run(d);
        reply_trailers(&s->side, asked(s, id),
                       "grpc-status: 14\ngrpc-message: no\n");
        driver_run(d);
        assert_int_equal(log_count(&c->side, "response"), id == 7);
        driver_pass(d, SECOND);
    }
    assert_int_equal(log_count(&s->side, "request"), 4);
    assert_int_equal(log_count(&c->side, "response"), 1);
    assert_true(said(c, "trailers 1: grpc-status=14 grpc-message=no"));
    driver_free(d);
}

static void headers_are_not_held_in_vain(void **state)
{
    (void)state; /* [hold-02] */
    static const char *const more[] = { "", "hold_headers = off\n",
                                        "max_retry_attempts = 3\n" };
    for (unsigned i = 0; i < 3; i++) {
        char ini[1024];
        snprintf(ini, sizeof(ini), "%s%s%s", LISTENER, ONE, more[i]);
        struct driver *d = driver_new(ini, 0);
        struct peer *c = driver_client(d, 0);
        if (i == 2) {
            (void)call_open(c, PATH, NULL);
        } else {
            (void)call_unary(c, PATH, 10, NULL);
        }
        wait_connected(d);
        struct peer *s = driver_server(d, 1000);
        reply_head(&s->side, asked(s, 1));
        driver_run(d);
        assert_true(said(c, "response 1"));
        driver_free(d);
    }
}

static void held_headers_leave_with_data_or_time(void **state)
{
    (void)state; /* [hold-03, hold-04, hold-05] */
    struct driver *d = driver_new(LISTENER RETRY, 0);
    struct peer *c = driver_client(d, 0);
    (void)call_unary(c, PATH, 10, NULL);
    wait_connected(d);
    struct peer *s = driver_server(d, 1000);
    reply_head(&s->side, asked(s, 1));
    driver_run(d);
    driver_pass(d, 300 * MS);
    assert_false(said(c, "response"));
    reply_data(&s->side, asked(s, 1), 100);
    driver_run(d);
    assert_true(said(c, "response 1"));
    assert_int_equal(talk_of(&c->side, 1)->received, 100);
    h2_reset(s->side.h, asked(s, 1)->stream, H2_INTERNAL_ERROR);
    driver_pass(d, SECOND);
    assert_true(said(c, "trailers 1: grpc-status=13"));
    assert_int_equal(log_count(&s->side, "request"), 1);

    (void)call_unary(c, PATH, 10, NULL);
    driver_run(d);
    reply_head(&s->side, asked(s, 3));
    driver_run(d);
    driver_pass(d, 999 * MS);
    assert_false(said(c, "response 3"));
    driver_pass(d, 1 * MS);
    assert_true(said(c, "response 3"));
    reply_trailers(&s->side, asked(s, 3), "grpc-status: 14\n");
    driver_pass(d, SECOND);
    assert_true(said(c, "trailers 3: grpc-status=14"));
    assert_int_equal(log_count(&s->side, "request"), 2);
    driver_free(d);
}

/* [hold-08] A request of n bytes, prefix included, and its failure behind it. */
static uint64_t requests_for(size_t n)
{
    struct driver *d = driver_new(LISTENER RETRY, 0);
    struct peer *c = driver_client(d, 0);
    (void)call_unary(c, PATH, n - 5, NULL);
    wait_connected(d);
    struct peer *s = driver_server(d, 1000);
    assert_int_equal(asked(s, 1)->received, n);
    uint64_t sum = asked(s, 1)->sum;
    reply_only(&s->side, asked(s, 1), "grpc-status: 14\n");
    driver_pass(d, SECOND);
    uint64_t requests = log_count(&s->side, "request");
    if (requests == 2) {
        assert_int_equal(asked(s, 3)->received, n);
        assert_int_equal(asked(s, 3)->sum, sum);
        assert_true(said(s, "ended 3"));
    } else {
        assert_true(said(c, "grpc-status=14"));
    }
    driver_free(d);
    return requests;
}

static void what_fits_the_log_is_retried(void **state)
{
    (void)state;
    assert_int_equal(requests_for(256 * 1024 - 1), 2);
    assert_int_equal(requests_for(256 * 1024), 2);
    assert_int_equal(requests_for(256 * 1024 + 1), 1);
}

static void a_client_stops_at_its_window(void **state)
{
    (void)state; /* [hold-09] */
    struct driver *d = driver_new(LISTENER ONE, 0);
    d->refuses[0] = true;
    struct peer *c = driver_client(d, 0);
    (void)call_unary(c, PATH, 3000000, NULL);
    driver_pass(d, 5 * SECOND);
    assert_int_equal(talk_of(&c->side, 1)->at, 256 * 1024);
    d->refuses[0] = false;
    driver_pass(d, 5 * SECOND);
    struct peer *s = driver_server(d, 1000);
    assert_int_equal(asked(s, 1)->received, 3000005);
    reply_ok(&s->side, asked(s, 1));
    driver_run(d);
    assert_true(said(c, "trailers 1: grpc-status=0"));
    assert_int_equal(driver_stats(d).limit_memory, 0);
    driver_free(d);
}

/* [hold-10, hold-13] The first attempt has had part of the request; the rest
 * comes while the second one runs, and is more than may be kept. */
static void a_replay_may_overflow(void **state)
{
    (void)state;
    struct driver *d = driver_new(LISTENER ONE, 0);
    struct peer *c = driver_client(d, 0);
    struct talk *t = call_open(c, PATH, NULL);
    wait_connected(d);
    call_send(c, t, 200000, false);
    driver_run(d);
    struct peer *s = driver_server(d, 1000);
    assert_int_equal(asked(s, 1)->received, 200000);
    h2_reset(s->side.h, asked(s, 1)->stream, H2_REFUSED_STREAM);
    driver_run(d);
    assert_int_equal(asked(s, 3)->received, 200000);
    uint64_t sum = asked(s, 3)->sum;
    call_send(c, t, 500000, true);
    driver_run(d);
    assert_int_equal(asked(s, 3)->received, 700000);
    assert_int_not_equal(asked(s, 3)->sum, sum);
    h2_reset(s->side.h, asked(s, 3)->stream, H2_REFUSED_STREAM);
    driver_pass(d, SECOND);
    assert_true(said(c, "grpc-status=14"));
    assert_int_equal(log_count(&s->side, "request"), 2);
    driver_free(d);
}

static void the_total_of_logs_has_a_limit(void **state)
{
    (void)state; /* [hold-11], FL4 */
    struct driver *d =
        driver_new("[grpc]\nretry_buffer_total = 1MiB\n" LISTENER RETRY, 0);
    struct peer *c = driver_client(d, 0);
    for (unsigned i = 0; i < 10; i++) {
        (void)call_unary(c, PATH, 200000, NULL);
    }
    wait_connected(d);
    struct peer *s = driver_server(d, 1000);
    struct grpc_stats stats = driver_stats(d);
    assert_in_range(stats.log_overflow_total, 4, 6);
    for (int32_t id = 1; id < 20; id += 2) {
        reply_only(&s->side, asked(s, id), "grpc-status: 14\n");
    }
    driver_pass(d, SECOND);
    assert_int_equal(log_count(&s->side, "request"),
                     20 - stats.log_overflow_total);
    driver_free(d);
}

/* ---- deadlines ------------------------------------------------------------------ */

static void a_retry_too_late_is_none(void **state)
{
    (void)state; /* [time-04] */
    struct driver *d = driver_new(LISTENER ONE "max_retry_attempts = 3\n"
                                               "initial_backoff = 400ms\n",
                                  0);
    struct peer *c = driver_client(d, 0);
    (void)call_unary(c, PATH, 10, NULL);
    wait_connected(d);
    (void)call_unary(c, PATH, 10, "grpc-timeout: 150m\n");
    driver_run(d);
    struct peer *s = driver_server(d, 1000);
    reply_only(&s->side, asked(s, 3), "grpc-status: 14\n");
    driver_run(d);
    assert_true(said(c, "response 3: :status=200 content-type=application/grpc "
                        "grpc-status=14"));
    driver_free(d);
}

static void the_deadline_ends_a_call_in_any_state(void **state)
{
    (void)state; /* [time-05, time-06], L4 */
    struct driver *d = driver_new(LISTENER ONE, 0);
    struct peer *c = driver_client(d, 0);
    (void)call_unary(c, PATH, 10, "grpc-timeout: 200m\n");
    (void)call_unary(c, PATH, 10, "grpc-timeout: 200m\n");
    driver_run(d);
    struct peer *s = driver_server(d, 1000);
    reply_head(&s->side, asked(s, 3));
    reply_data(&s->side, asked(s, 3), 50);
    driver_run(d);
    driver_pass(d, 199 * MS);
    assert_false(said(c, "grpc-status"));
    driver_pass(d, 1 * MS);
    assert_true(said(c, "grpc-status=4 grpc-message=redial: deadline exceeded "
                        "after 1 attempt! end"));
    assert_true(said(c, "trailers 3: grpc-status=4"));
    assert_true(said(s, "closed 1 CANCEL"));
    assert_true(said(s, "closed 3 CANCEL"));
    driver_free(d);
}

static void a_cancel_after_the_deadline_is_the_deadline(void **state)
{
    (void)state; /* [time-09], L6 */
    struct driver *d = driver_new(LISTENER ONE, 0);
    struct peer *c = driver_client(d, 0);
    (void)call_unary(c, PATH, 10, "grpc-timeout: 200m\n");
    (void)call_unary(c, PATH, 10, "grpc-timeout: 200m\n");
    driver_run(d);
    struct peer *s = driver_server(d, 1000);
    h2_reset(s->side.h, asked(s, 1)->stream, H2_CANCEL);
    driver_run(d);
    assert_true(said(c, "grpc-status=1 "));
    h2_reset(s->side.h, asked(s, 3)->stream, H2_CANCEL);
    d->now_us += 200 * MS;
    driver_run(d);
    assert_true(said(c, "grpc-status=4 "));
    driver_free(d);
}

static void an_attempt_may_take_only_so_long(void **state)
{
    (void)state; /* [time-08], L5 */
    struct driver *d =
        driver_new(LISTENER RETRY "per_attempt_timeout = 100ms\n"
                                  "idempotent_methods = /s.S/*\n",
                   0);
    struct peer *c = driver_client(d, 0);
    (void)call_unary(c, PATH, 10, NULL);
    driver_run(d);
    struct peer *s = driver_server(d, 1000);
    driver_pass(d, 99 * MS);
    assert_false(said(s, "closed"));
    driver_pass(d, 1 * MS);
    assert_true(said(s, "closed 1 CANCEL"));
    driver_pass(d, 120 * MS);
    reply_head(&s->side, asked(s, 3)); /* held: the attempt goes on */
    driver_pass(d, 100 * MS);
    assert_true(said(s, "closed 3 CANCEL"));
    driver_pass(d, 250 * MS);
    reply_ok(&s->side, asked(s, 5));
    driver_run(d);
    assert_true(said(c, "trailers 1: grpc-status=0"));
    assert_int_equal(log_count(&c->side, "response"), 1);
    driver_free(d);
}

/* ---- flow control ---------------------------------------------------------------- */

static void cancelled_calls_give_their_credit_back(void **state)
{
    (void)state; /* [flow-03], FL2 */
    struct driver *d =
        driver_new(LISTENER ONE "upstream_connection_window = 64KiB\n"
                                "upstream_stream_window = 64KiB\n",
                   0);
    struct peer *c = driver_client(d, 0);
    d->quiet = true;
    c->side.quiet = true;
    for (unsigned i = 0; i < 300; i++) {
        struct talk *t = call_unary(c, PATH, 10, NULL);
        driver_run(d);
        struct peer *s = driver_server(d, 1000);
        int32_t id = 1 + 2 * (int32_t)i;
        reply_head(&s->side, asked(s, id));
        reply_data(&s->side, asked(s, id), 30000);
        h2_reset(c->side.h, t->stream, H2_CANCEL);
        driver_run(d);
        driver_pass(d, MS);
    }
    struct talk *t = call_unary(c, PATH, 10, NULL);
    driver_run(d);
    struct peer *s = driver_server(d, 1000);
    struct talk *last = asked(s, 601);
    reply_head(&s->side, last);
    reply_data(&s->side, last, 2000000);
    driver_run(d);
    assert_int_equal(t->received, 2000000);
    reply_trailers(&s->side, last, "grpc-status: 0\n");
    driver_run(d);
    driver_free(d);
}

static void credit_is_kept_back_while_memory_is_short(void **state)
{
    (void)state; /* [flow-05], FL3 */
    struct driver *d = driver_new("[grpc]\nmemory_high = 16MiB\n" LISTENER ONE
                                  "retry_buffer_per_call = 4MiB\n",
                                  0);
    d->refuses[0] = true;
    struct peer *c = driver_client(d, 0);
    struct talk *t[10];
    for (unsigned i = 0; i < 10; i++) {
        t[i] = call_unary(c, PATH, 3000000, NULL);
    }
    driver_pass(d, SECOND);
    uint64_t sent = 0;
    for (unsigned i = 0; i < 10; i++) {
        sent += t[i]->at;
    }
    assert_in_range(sent, 16 << 20, (16 << 20) + (17 << 20));
    (void)call_unary(c, PATH, 10, NULL); /* V7 */
    driver_run(d);
    assert_true(said(c, "too many calls"));
    d->refuses[0] = false;
    driver_pass(d, 5 * SECOND);
    struct peer *s = driver_server(d, 1000);
    for (int32_t id = 1; id < 20; id += 2) {
        assert_int_equal(asked(s, id)->received, 3000005);
        reply_ok(&s->side, asked(s, id));
    }
    driver_run(d);
    assert_int_equal(log_count(&c->side, "trailers"), 10);
    driver_free(d);
}

static void trailers_follow_content_through_a_small_window(void **state)
{
    (void)state; /* [flow-06], N11 */
    struct driver *d = driver_new(LISTENER ONE, 0);
    d->client_window = 16;
    struct peer *c = driver_client(d, 0);
    struct talk *t = call_unary(c, PATH, 10, NULL);
    driver_run(d);
    struct peer *s = driver_server(d, 1000);
    reply_head(&s->side, asked(s, 1));
    reply_data(&s->side, asked(s, 1), 5000);
    reply_trailers(&s->side, asked(s, 1), "grpc-status: 0\n");
    uint64_t received = 0;
    for (unsigned i = 0; i < 2000 && t->stream != NULL; i++) {
        driver_run(d);
        received = t->stream == NULL ? received : t->received;
    }
    assert_true(said(c, "trailers 1: grpc-status=0"));
    driver_free(d);
}

/* ---- answers that are too early -------------------------------------------------- */

static void an_answer_before_the_request_is_complete_ends_it(void **state)
{
    (void)state; /* C8, Z4 */
    struct driver *d = driver_new(LISTENER RETRY, 0);
    struct peer *c = driver_client(d, 0);
    struct talk *t = call_open(c, PATH, NULL);
    driver_run(d);
    call_send(c, t, 5000, false);
    driver_run(d);
    struct peer *s = driver_server(d, 1000);
    reply_ok(&s->side, asked(s, 1));
    driver_run(d);
    assert_true(said(c, "trailers 1: grpc-status=0 end\n"));
    assert_true(said(c, "closed 1 NO_ERROR"));
    assert_true(said(s, "closed 1 NO_ERROR"));
    driver_free(d);
}

/* An endpoint says OK behind content that was not passed on, because it did not
 * look like gRPC: the client must not take that for the whole answer. */
static void ok_without_its_content_is_no_answer(void **state)
{
    (void)state;
    static const char *const heads[] = {
        ":status: 500\ncontent-type: application/grpc\n",
        ":status: 200\ncontent-type: application/grpc\ngrpc-status: 0\n",
    };
    for (unsigned i = 0; i < 2; i++) {
        struct driver *d = driver_new(LISTENER ONE, 0);
        struct peer *c = driver_client(d, 0);
        (void)call_unary(c, PATH, 10, NULL);
        driver_run(d);
        struct peer *s = driver_server(d, 1000);
        struct talk *t = asked(s, 1);
        t->paused = true;
        (void)talk_respond(&s->side, t, heads[i], false);
        reply_data(&s->side, t, 10);
        reply_trailers(&s->side, t, "grpc-status: 0\n");
        driver_run(d);
        assert_true(said(c, "grpc-status=13"));
        assert_true(said(c, "invalid response from 127.0.0.1:1000"));
        assert_false(said(c, "grpc-status=0"));
        driver_free(d);
    }
}

/* A listener for both protocols: who speaks HTTP/2 is handed over. */
static void a_newcomer_becomes_a_client(void **state)
{
    (void)state;
    for (size_t piece = 1; piece < 40; piece += 3) {
        struct driver *d = driver_new(
            "[listener l]\naddress = 127.0.0.1:7000\nprotocol = auto\n"
            "upstream = r\ngrpc_upstream = u\n"
            "[upstream r]\nurl = redis://127.0.0.1:1003\n" ONE,
            0);
        d->piece = piece;
        struct peer *c = driver_client(d, 0);
        (void)call_unary(c, PATH, 10, NULL);
        driver_run(d);
        struct peer *s = driver_server(d, 1000);
        reply_ok(&s->side, asked(s, 1));
        driver_run(d);
        assert_true(said(c, "trailers 1: grpc-status=0"));
        driver_drain(d);
        driver_pass(d, 2 * SECOND);
        assert_false(c->open);
        assert_true(engine_drained(d->engine));
        driver_free(d);
    }
}

/* §5.5: a client that gives credit for each DATA frame floods nobody. */
static void credit_for_each_frame_is_no_flood(void **state)
{
    (void)state;
    enum {
        FRAMES = 6000
    };
    struct driver *d = driver_new(LISTENER ONE, 0);
    struct peer *c = driver_client(d, 0);
    struct talk *t = call_unary(c, PATH, 10, NULL);
    driver_run(d);
    struct peer *s = driver_server(d, 1000);
    struct talk *up = asked(s, 1);
    reply_head(&s->side, up);
    static struct raw raw;
    raw = (struct raw){ .len = 0 };
    raw_u32(&raw, RAW_WINDOW_UPDATE, 0, 0, 1);
    raw_u32(&raw, RAW_WINDOW_UPDATE, 0, 1, 1);
    for (unsigned i = 0; i < FRAMES; i++) {
        reply_data(&s->side, up, 10);
        driver_run(d);
        peer_raw(c, raw.bytes, raw.len);
    }
    driver_run(d);
    assert_false(said(c, "goaway"));
    assert_int_equal(t->received, 10 * FRAMES);
    reply_trailers(&s->side, up, "grpc-status: 0\n");
    driver_run(d);
    assert_true(said(c, "trailers 1: grpc-status=0"));
    driver_free(d);
}

/* [X6] What the client would not take is not sent. */
static void headers_too_large_for_the_client(void **state)
{
    (void)state;
    static const char big[] =
        "x-big: 0123456789012345678901234567890123456789012345678901234567890\n"
        "x-big: 0123456789012345678901234567890123456789012345678901234567890\n"
        "x-big: 0123456789012345678901234567890123456789012345678901234567890\n"
        "grpc-status: 5\n";
    for (unsigned i = 0; i < 3; i++) {
        struct driver *d = driver_new(LISTENER RETRY, 0);
        d->client_headers = 250;
        struct peer *c = driver_client(d, 0);
        (void)call_unary(c, PATH, 10, NULL);
        driver_run(d);
        struct peer *s = driver_server(d, 1000);
        struct talk *t = asked(s, 1);
        if (i == 0) {
            reply_only(&s->side, t, big);
        } else {
            reply_head(&s->side, t);
            if (i == 2) {
                reply_data(&s->side, t, 10);
            }
            reply_trailers(&s->side, t, big);
        }
        driver_run(d);
        assert_true(said(c, "grpc-status=8 grpc-message=redial: response "
                            "headers exceed the client's limit"));
        driver_free(d);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stream_behind_the_last_goaway_does_not_run),
        cmocka_unit_test(the_goaway_comes_before_its_ping),
        cmocka_unit_test(a_broken_session_is_closed),
        cmocka_unit_test(a_link_that_is_idle_after_a_long_call_ends),
        cmocka_unit_test(no_call_goes_to_a_session_that_has_ended),
        cmocka_unit_test(headers_count_as_sent_with_their_last_byte),
        cmocka_unit_test(tiny_frames_take_no_more_than_they_say),
        cmocka_unit_test(streams_behind_a_goaway_go_elsewhere_once),
        cmocka_unit_test(what_comes_with_the_fin_counts),
        cmocka_unit_test(queued_requests_leave_a_draining_link),
        cmocka_unit_test(refused_after_a_failure_is_a_failure),
        cmocka_unit_test(refused_behind_held_headers_is_ambiguous),
        cmocka_unit_test(headers_nobody_can_send_end_the_call),
        cmocka_unit_test(no_retries_at_all),
        cmocka_unit_test(streams_are_not_retried_by_blanket),
        cmocka_unit_test(pushback_starts_the_backoff_anew),
        cmocka_unit_test(retries_at_once_have_a_cap),
        cmocka_unit_test(held_headers_are_dropped_by_a_retry),
        cmocka_unit_test(headers_are_not_held_in_vain),
        cmocka_unit_test(held_headers_leave_with_data_or_time),
        cmocka_unit_test(what_fits_the_log_is_retried),
        cmocka_unit_test(a_client_stops_at_its_window),
        cmocka_unit_test(a_replay_may_overflow),
        cmocka_unit_test(the_total_of_logs_has_a_limit),
        cmocka_unit_test(a_retry_too_late_is_none),
        cmocka_unit_test(the_deadline_ends_a_call_in_any_state),
        cmocka_unit_test(a_cancel_after_the_deadline_is_the_deadline),
        cmocka_unit_test(an_attempt_may_take_only_so_long),
        cmocka_unit_test(cancelled_calls_give_their_credit_back),
        cmocka_unit_test(credit_is_kept_back_while_memory_is_short),
        cmocka_unit_test(trailers_follow_content_through_a_small_window),
        cmocka_unit_test(an_answer_before_the_request_is_complete_ends_it),
        cmocka_unit_test(ok_without_its_content_is_no_answer),
        cmocka_unit_test(a_newcomer_becomes_a_client),
        cmocka_unit_test(credit_for_each_frame_is_no_flood),
        cmocka_unit_test(headers_too_large_for_the_client),
        cmocka_unit_test(any_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
