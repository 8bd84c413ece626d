/* Flow control: credit comes back in all cases (FL1, FL2), and windows of the
 * peer are kept. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/h2_pair.h"
#include "tests/unit/h2_raw.h"

enum {
    WINDOW = 1024 * 1024, /* of the connection, as pair_options() says */
    STREAM = 256 * 1024,  /* of a stream */
    FRAME = 16000         /* of content */
};

#define POST ":method: POST\n:scheme: http\n:path: /s.S/M\n"

static struct raw raw;
static uint8_t zeros[20000];

static void open_server(struct side *s, const struct h2_options *options)
{
    const struct h2_options usual = pair_options(H2_SERVER);
    *s = (struct side){ .h = NULL };
    assert_true(side_open(s, options == NULL ? &usual : options));
    s->quiet = true;
    raw.len = 0;
    raw_client_hello(&raw);
    raw_frame(&raw, RAW_SETTINGS, RAW_ACK, 0, NULL, 0);
}

static void give(struct side *s)
{
    side_receive(s, raw.bytes, raw.len);
    raw.len = 0;
    side_send(s, 0);
}

/* How much a peer may still send on the connection, when it has sent that
 * much. The output begins with the session's. */
static int64_t window_left(const struct side *s, uint32_t stream, uint64_t sent)
{
    struct raw_seen seen;
    int64_t window = stream == 0 ? 65535 : STREAM;
    for (size_t at = 0; raw_next(s->out, s->out_len, &at, &seen);) {
        if (seen.type == RAW_WINDOW_UPDATE && seen.stream == stream) {
            window += (int64_t)seen.payload[0] << 24 | seen.payload[1] << 16 |
                      seen.payload[2] << 8 | seen.payload[3];
        }
    }
    return window - (int64_t)sent;
}

/* ---- what we receive ---- */

struct hostile {
    const char *name;
    void (*frames)(uint32_t stream); /* one stream of the peer's */
    size_t charged;                  /* bytes of the connection's window */
};

static void data(uint32_t stream, unsigned flags, size_t len)
{
    raw_frame(&raw, RAW_DATA, flags, stream, zeros, len);
}

static void padded(uint32_t stream)
{
    zeros[0] = 200; /* of padding */
    raw_headers(&raw, stream, POST, false);
    data(stream, RAW_PADDED, 8000);
    data(stream, RAW_PADDED, 201);
    data(stream, RAW_PADDED | RAW_END_STREAM, FRAME - 8201);
    zeros[0] = 0;
}

static void refused_by_us(uint32_t stream)
{
    raw_headers(&raw, stream, POST "connection: close\n", false);
    data(stream, 0, FRAME / 2);
    data(stream, RAW_END_STREAM, FRAME / 2);
}

static void longer_than_told(uint32_t stream)
{
    raw_headers(&raw, stream, POST "content-length: 10\n", false);
    data(stream, 0, FRAME / 2);
    data(stream, RAW_END_STREAM, FRAME / 2);
}

static void reset_by_the_peer(uint32_t stream)
{
    raw_headers(&raw, stream, POST, false);
    data(stream, 0, FRAME / 2);
    raw_u32(&raw, RAW_RST_STREAM, 0, stream, H2_CANCEL);
    data(stream, 0, FRAME / 2); /* of a stream that is closed */
}

static void too_large_a_request(uint32_t stream)
{
    static char text[18000];
    static char value[16300];
    memset(value, 'v', sizeof value - 1);
    snprintf(text, sizeof text, "%sx: %s\n", POST, value);
    raw_headers(&raw, stream, text, false);
    data(stream, RAW_END_STREAM, FRAME);
}

static void plain(uint32_t stream)
{
    raw_headers(&raw, stream, POST, false);
    data(stream, RAW_END_STREAM, FRAME);
}

static const struct hostile hostiles[] = {
    { "plain", plain, FRAME },
    { "padded", padded, FRAME },
    { "a request that breaks the rules", refused_by_us, FRAME },
    { "more than content-length", longer_than_told, FRAME },
    { "reset by the peer", reset_by_the_peer, FRAME },
    { "a block that is too large", too_large_a_request, FRAME },
};

static void finish(struct side *s, struct talk *t)
{
    if (t->stream != NULL) {
        h2_reset(s->h, t->stream, H2_CANCEL);
    }
}

/* Ten windows' worth of streams like that: at least three eighths of the
 * window are always left, so nothing is lost. */
static void play_hostile(const struct hostile *hostile, bool credits)
{
    struct side s;
    open_server(&s, NULL);
    s.credits = credits;
    s.on_ended = finish;
    uint64_t sent = 0;
    for (uint32_t stream = 1; sent < UINT64_C(10) * WINDOW; stream += 2) {
        hostile->frames(stream);
        give(&s);
        struct talk *t = talk_of(&s, (int32_t)stream);
        if (t != NULL) {
            finish(&s, t);
            side_send(&s, 0);
        }
        sent += hostile->charged;
        const int64_t left = window_left(&s, 0, sent);
        if (left < WINDOW * 3 / 8 || left > WINDOW) {
            fail_msg("%s: %d left", hostile->name, (int)left);
        }
    }
    assert_int_equal(s.uncredited, 0);
    assert_int_equal(raw_count(s.out, s.out_len, RAW_GOAWAY, 0), 0);
    side_close(&s);
}

static void credit_of_the_connection_comes_back(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof hostiles / sizeof hostiles[0]; i++) {
        play_hostile(&hostiles[i], true);
        play_hostile(&hostiles[i], false); /* when the stream is closed */
    }
}

static void data_behind_our_reset_is_credited(void **state)
{
    (void)state;
    struct side s;
    open_server(&s, NULL);
    uint64_t sent = 0;
    for (uint32_t stream = 1; sent < (uint64_t)4 * WINDOW; stream += 2) {
        raw_headers(&raw, stream, POST, false);
        side_receive(&s, raw.bytes, raw.len);
        raw.len = 0;
        h2_reset(s.h, talk_of(&s, (int32_t)stream)->stream, H2_CANCEL);
        data(stream, 0, FRAME); /* the reset has not been sent */
        side_receive(&s, raw.bytes, raw.len);
        raw.len = 0;
        side_send(&s, 0);
        data(stream, 0, FRAME); /* it has been */
        give(&s);
        sent += (uint64_t)2 * FRAME;
        assert_in_range(window_left(&s, 0, sent), WINDOW * 3 / 8, WINDOW);
    }
    side_close(&s);
}

static void a_stream_that_is_not_credited_stops(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p);
    p.server.credits = false;
    struct talk *slow = talk_request(&p.client, simple_request, false);
    slow->length = (size_t)2 * WINDOW;
    slow->end = true;
    pair_run(&p);
    struct talk *seen = talk_of(&p.server, 1);
    assert_int_equal(seen->received, STREAM);
    /* The connection's credit is given apart: others go on. */
    h2_credit_connection(p.server.h, STREAM);
    p.server.uncredited -= STREAM;
    p.server.credits = true;
    struct talk *fast = talk_request(&p.client, simple_request, false);
    fast->length = (size_t)4 * WINDOW;
    fast->end = true;
    pair_run(&p);
    assert_true(log_has(&p.server, "ended 3 content=4194304"));
    assert_int_equal(seen->received, STREAM);
    /* Credit for the stream alone lets it go on. */
    while (seen->received < slow->length) {
        const uint64_t before = seen->received;
        const size_t n = seen->uncredited;
        seen->uncredited = 0;
        p.server.credits = false;
        h2_credit_stream(p.server.h, seen->stream, n);
        h2_credit_connection(p.server.h, before == STREAM ? 0 : n);
        pair_run(&p);
        assert_true(seen->received > before);
    }
    assert_true(log_has(&p.server, "ended 1 content=2097152"));
    pair_close(&p);
}

static void small_messages_cost_no_window_updates(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p);
    p.client.quiet = p.server.quiet = true;
    side_discard(&p.server);
    size_t updates = 0;
    uint64_t sent = 0;
    for (size_t i = 0; i < 5000; i++) {
        struct talk *t = talk_request(&p.client, simple_request, false);
        t->length = 100;
        t->end = true;
        pair_deliver(&p, &p.client, &p.server);
        assert_true(talk_respond(&p.server, talk_of(&p.server, t->stream->id),
                                 ":status: 200\n", true));
        side_send(&p.server, 0);
        updates +=
            raw_count(p.server.out, p.server.out_len, RAW_WINDOW_UPDATE, 0);
        pair_run(&p);
        sent += 100;
    }
    assert_true(updates <= sent / (WINDOW / 2) + 1);
    pair_close(&p);
}

static void a_stream_window_is_given_by_halves(void **state)
{
    (void)state;
    struct side s;
    open_server(&s, NULL);
    raw_headers(&raw, 1, POST, false);
    give(&s);
    uint64_t sent = 0;
    for (size_t i = 0; i < 1000; i++) {
        data(1, 0, FRAME);
        give(&s);
        sent += FRAME;
        assert_in_range(window_left(&s, 1, sent), STREAM * 3 / 8, STREAM);
    }
    const size_t updates = raw_count(s.out, s.out_len, RAW_WINDOW_UPDATE, 1);
    assert_in_range(updates, sent / STREAM, sent * 2 / STREAM + 1);
    side_close(&s);
}

static void small_windows_work(void **state)
{
    (void)state;
    const uint32_t windows[] = { 1, 2, 15, 16, 17, 100 };
    for (size_t i = 0; i < sizeof windows / sizeof windows[0]; i++) {
        struct pair p;
        struct h2_options client = pair_options(H2_CLIENT);
        struct h2_options server = pair_options(H2_SERVER);
        server.stream_window = windows[i];
        pair_open_with(&p, &client, &server);
        struct talk *t = talk_request(&p.client, simple_request, false);
        t->length = 500;
        t->end = true;
        pair_run(&p);
        assert_true(log_has(&p.server, "ended 1 content=500"));
        pair_close(&p);
    }
}

static void more_than_the_window_is_an_error(void **state)
{
    (void)state;
    for (size_t streams = 1; streams <= 5; streams += 4) {
        struct side s;
        open_server(&s, NULL);
        s.credits = false;
        for (size_t k = 0; k < streams; k++) {
            raw_headers(&raw, (uint32_t)(2 * k + 1), POST, false);
        }
        give(&s);
        for (size_t i = 0; i < (size_t)WINDOW / FRAME + 1; i++) {
            data((uint32_t)(2 * (i % streams) + 1), 0, FRAME);
            give(&s);
        }
        if (streams == 1) { /* the stream's window */
            assert_int_equal(raw_code(s.out, s.out_len, 1),
                             H2_FLOW_CONTROL_ERROR);
        } else { /* the connection's */
            assert_int_equal(raw_code(s.out, s.out_len, 0),
                             H2_FLOW_CONTROL_ERROR);
            assert_string_equal(h2_complaint(s.h), "FLOW_CONTROL_ERROR");
            assert_true(h2_is_over(s.h));
        }
        side_close(&s);
    }
}

/* ---- what we send ---- */

enum {
    LONG_ANSWER = 100000
};

static void answer_long(struct side *s, struct talk *t)
{
    t->length = LONG_ANSWER;
    t->end = true;
    t->trailers = "grpc-status: 0\n";
    assert_true(talk_respond(s, t, ":status: 200\n", false));
}

static uint64_t content_sent(const struct side *s, uint32_t stream)
{
    struct raw_seen seen;
    uint64_t n = 0;
    for (size_t at = 0; raw_next(s->out, s->out_len, &at, &seen);) {
        if (seen.type == RAW_DATA && seen.stream == stream) {
            for (size_t i = 0; i < seen.len; i++, n++) {
                assert_int_equal(seen.payload[i], 'a' + n % 26);
            }
        }
    }
    return n;
}

/* flow-08: 10, then 0, then 1, then 1 MiB, in the middle of a response. */
static void the_peer_may_change_the_window_in_the_middle(void **state)
{
    (void)state;
    struct side s;
    open_server(&s, NULL);
    s.on_request = answer_long;
    raw_setting(&raw, 4, 10);
    raw_headers(&raw, 1, POST, true);
    give(&s);
    assert_int_equal(content_sent(&s, 1), 10);
    raw_setting(&raw, 4, 0); /* the window is -10 now */
    give(&s);
    raw_u32(&raw, RAW_WINDOW_UPDATE, 0, 1, 10);
    give(&s);
    assert_int_equal(content_sent(&s, 1), 10);
    raw_u32(&raw, RAW_WINDOW_UPDATE, 0, 1, 5);
    give(&s);
    assert_int_equal(content_sent(&s, 1), 15);
    raw_setting(&raw, 4, 1);
    give(&s);
    assert_int_equal(content_sent(&s, 1), 16);
    raw_setting(&raw, 4, 1024 * 1024);
    give(&s);
    assert_int_equal(content_sent(&s, 1), 65535); /* the connection's */
    assert_int_equal(raw_count(s.out, s.out_len, RAW_HEADERS, 1), 1);
    raw_u32(&raw, RAW_WINDOW_UPDATE, 0, 0, 1);
    give(&s);
    assert_int_equal(content_sent(&s, 1), 65536);
    raw_u32(&raw, RAW_WINDOW_UPDATE, 0, 0, 1024 * 1024);
    give(&s);
    assert_int_equal(content_sent(&s, 1), LONG_ANSWER);
    assert_int_equal(raw_count(s.out, s.out_len, RAW_HEADERS, 1), 2);
    side_close(&s);
}

/* flow-06 */
static void trailers_wait_for_the_last_byte(void **state)
{
    (void)state;
    struct side s;
    open_server(&s, NULL);
    s.on_request = answer_long;
    raw_setting(&raw, 4, 1);
    raw_headers(&raw, 1, POST, true);
    give(&s);
    for (uint64_t n = 1; n < 200; n++) {
        assert_int_equal(content_sent(&s, 1), n);
        assert_int_equal(raw_count(s.out, s.out_len, RAW_HEADERS, 1), 1);
        raw_u32(&raw, RAW_WINDOW_UPDATE, 0, 1, 1);
        give(&s);
    }
    side_close(&s);
}

/* Z3: content is given up, and its end needs no window. */
static void trailers_may_leave_instead_of_content(void **state)
{
    (void)state;
    const struct h2_field status = { .name = span_of("grpc-status"),
                                     .value = span_of("4") };
    for (int half_closed = 0; half_closed < 2; half_closed++) {
        struct side s;
        open_server(&s, NULL);
        s.on_request = answer_long;
        raw_setting(&raw, 4, 10);
        raw_headers(&raw, 1, POST, half_closed == 1);
        give(&s);
        assert_int_equal(content_sent(&s, 1), 10);
        struct talk *t = talk_of(&s, 1);
        assert_true(h2_trailers(s.h, t->stream, &status, 1, NULL));
        h2_resume(s.h, t->stream);
        raw_u32(&raw, RAW_WINDOW_UPDATE, 0, 1, 5);
        give(&s);
        assert_int_equal(content_sent(&s, 1), 10);
        assert_int_equal(raw_count(s.out, s.out_len, RAW_HEADERS, 1), 2);
        raw_u32(&raw, RAW_WINDOW_UPDATE, 0, 1, 500);
        give(&s);
        assert_int_equal(content_sent(&s, 1), 10);
        assert_int_equal(raw_count(s.out, s.out_len, RAW_HEADERS, 1), 2);
        assert_null(s.error);
        side_close(&s);
    }
}

static void a_window_that_overflows_resets(void **state)
{
    (void)state;
    struct side s;
    open_server(&s, NULL);
    s.quiet = false;
    raw_headers(&raw, 1, POST, true);
    raw_u32(&raw, RAW_WINDOW_UPDATE, 0, 1, 0x7fffffff);
    give(&s);
    assert_int_equal(raw_code(s.out, s.out_len, 1), H2_FLOW_CONTROL_ERROR);
    assert_true(log_has(&s, "closed 1 FLOW_CONTROL_ERROR invalid"));
    raw_u32(&raw, RAW_WINDOW_UPDATE, 0, 0, 0x7fffffff);
    give(&s);
    assert_int_equal(raw_code(s.out, s.out_len, 0), H2_FLOW_CONTROL_ERROR);
    assert_true(h2_is_over(s.h));
    side_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(credit_of_the_connection_comes_back),
        cmocka_unit_test(data_behind_our_reset_is_credited),
        cmocka_unit_test(a_stream_that_is_not_credited_stops),
        cmocka_unit_test(small_messages_cost_no_window_updates),
        cmocka_unit_test(a_stream_window_is_given_by_halves),
        cmocka_unit_test(small_windows_work),
        cmocka_unit_test(more_than_the_window_is_an_error),
        cmocka_unit_test(the_peer_may_change_the_window_in_the_middle),
        cmocka_unit_test(trailers_wait_for_the_last_byte),
        cmocka_unit_test(trailers_may_leave_instead_of_content),
        cmocka_unit_test(a_window_that_overflows_resets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
