/* Peers that break the protocol, or use it to harm (grpc.md §5.5). */
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

#define POST ":method: POST\n:scheme: http\n:path: /s.S/M\n"

static struct raw raw;
static const uint8_t zeros[20000];

static void open_side(struct side *s, enum h2_role role)
{
    const struct h2_options options = pair_options(role);
    *s = (struct side){ .h = NULL };
    assert_true(side_open(s, &options));
    raw.len = 0;
    if (role == H2_SERVER) {
        raw_client_hello(&raw);
    } else {
        raw_server_hello(&raw);
    }
    side_receive(s, raw.bytes, raw.len);
    side_send(s, 0);
    side_discard(s);
    raw.len = 0;
    s->controls = 0;
    log_clear(s);
}

static void give(struct side *s)
{
    side_receive(s, raw.bytes, raw.len);
    raw.len = 0;
    side_send(s, 0);
}

static void what_is_no_http2_is_named(void **state)
{
    (void)state;
    static const char *const starts[] = {
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 TLS, that is",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\rX",
        "*1\r\n$4\r\nPING\r\n",
    };
    for (size_t i = 0; i < sizeof starts / sizeof starts[0]; i++) {
        struct side s = { .h = NULL };
        const struct h2_options options = pair_options(H2_SERVER);
        assert_true(side_open(&s, &options));
        for (const char *at = starts[i]; *at != '\0'; at++) {
            side_receive(&s, at, 1);
        }
        assert_string_equal(s.error, "BAD_CLIENT_MAGIC");
        assert_true(h2_is_over(s.h));
        assert_false(h2_wants_send(s.h));
        side_close(&s);
    }
}

static void settings_come_first(void **state)
{
    (void)state;
    struct side s = { .h = NULL };
    const struct h2_options options = pair_options(H2_CLIENT);
    assert_true(side_open(&s, &options));
    side_receive(&s, "HTTP/1.1 400 Bad Request\r\n\r\n", 28);
    side_send(&s, 0);
    assert_true(h2_is_over(s.h));
    assert_non_null(h2_complaint(s.h));
    side_close(&s);
}

static void a_push_promise_ends_the_connection(void **state)
{
    (void)state;
    for (size_t acked = 0; acked < 2; acked++) {
        struct side s;
        open_side(&s, H2_CLIENT);
        talk_request(&s, simple_request, true);
        side_send(&s, 0);
        side_discard(&s);
        if (acked == 1) {
            raw_frame(&raw, RAW_SETTINGS, RAW_ACK, 0, NULL, 0);
        }
        struct raw block = { .len = 0 };
        raw_bytes(&block, "\0\0\0\2", 4);
        raw_block(&block, POST);
        raw_frame(&raw, RAW_PUSH_PROMISE, RAW_END_HEADERS, 1, block.bytes,
                  block.len);
        raw_headers(&raw, 1, ":status: 200\n", false);
        give(&s);
        assert_int_equal(raw_code(s.out, s.out_len, 0), H2_PROTOCOL_ERROR);
        assert_true(h2_is_over(s.h));
        assert_non_null(h2_complaint(s.h));
        assert_int_equal(log_count(&s, "response"), 0);
        side_close(&s);
    }
}

struct violation {
    const char *name;
    void (*frames)(void);
    int64_t code; /* of the GOAWAY */
};

static void data_on_idle(void)
{
    raw_frame(&raw, RAW_DATA, 0, 5, "abc", 3);
}

static void reset_of_even_idle(void)
{
    raw_u32(&raw, RAW_RST_STREAM, 0, 6, H2_CANCEL);
}

static void reset_of_odd_size(void)
{
    raw_frame(&raw, RAW_RST_STREAM, 0, 5, zeros, 5);
}

static void an_even_stream(void)
{
    raw_headers(&raw, 2, POST, true);
}

static void headers_of_the_connection(void)
{
    raw_headers(&raw, 0, POST, true);
}

static void a_frame_too_large(void)
{
    raw_headers(&raw, 1, POST, false);
    raw_frame(&raw, RAW_DATA, 0, 1, zeros, 16385);
}

static void a_broken_table_index(void)
{
    raw_frame(&raw, RAW_HEADERS, RAW_END_HEADERS, 1, "\xff\xff\xff\x7f", 4);
}

static void settings_of_odd_size(void)
{
    raw_frame(&raw, RAW_SETTINGS, 0, 0, zeros, 5);
}

static void a_window_update_of_nothing(void)
{
    raw_u32(&raw, RAW_WINDOW_UPDATE, 0, 0, 0);
}

static void a_continuation_of_nothing(void)
{
    raw_frame(&raw, RAW_CONTINUATION, RAW_END_HEADERS, 1, "", 0);
}

static void something_inside_a_block(void)
{
    raw_frame(&raw, RAW_HEADERS, 0, 1, "", 0);
    raw_frame(&raw, RAW_PING, 0, 0, zeros, 8);
}

static void padding_beyond_the_frame(void)
{
    raw_headers(&raw, 1, POST, false);
    raw_frame(&raw, RAW_DATA, RAW_PADDED, 1,
              "\xc8"
              "12",
              3);
}

static void headers_after_the_end(void)
{
    raw_headers(&raw, 1, POST, true);
    raw_headers(&raw, 1, "a: b\n", true);
}

static const struct violation violations[] = {
    { "DATA on an idle stream", data_on_idle, H2_PROTOCOL_ERROR },
    { "RST_STREAM of a stream of ours", reset_of_even_idle, H2_PROTOCOL_ERROR },
    { "odd RST_STREAM", reset_of_odd_size, H2_FRAME_SIZE_ERROR },
    { "an even stream", an_even_stream, H2_PROTOCOL_ERROR },
    { "HEADERS of stream 0", headers_of_the_connection, H2_PROTOCOL_ERROR },
    { "a large frame", a_frame_too_large, H2_FRAME_SIZE_ERROR },
    { "a broken block", a_broken_table_index, H2_COMPRESSION_ERROR },
    { "odd SETTINGS", settings_of_odd_size, H2_FRAME_SIZE_ERROR },
    { "WINDOW_UPDATE 0", a_window_update_of_nothing, H2_PROTOCOL_ERROR },
    { "a lone CONTINUATION", a_continuation_of_nothing, H2_PROTOCOL_ERROR },
    { "a frame inside a block", something_inside_a_block, H2_PROTOCOL_ERROR },
    { "too much padding", padding_beyond_the_frame, H2_PROTOCOL_ERROR },
    { "HEADERS after the end", headers_after_the_end, H2_STREAM_CLOSED },
};

static void violations_end_the_connection(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof violations / sizeof violations[0]; i++) {
        struct side s;
        open_side(&s, H2_SERVER);
        violations[i].frames();
        raw_headers(&raw, 101, POST, true);
        give(&s);
        const int64_t code = raw_code(s.out, s.out_len, 0);
        if (code != violations[i].code || !h2_is_over(s.h)) {
            fail_msg("%s: %d", violations[i].name, (int)code);
        }
        assert_string_equal(h2_complaint(s.h), h2_code_name((uint32_t)code));
        assert_int_equal(log_count(&s, "request 101"), 0);
        side_close(&s);
    }
}

/* C core sends them for calls that ended before their HEADERS had left. The
 * stream may still begin, and so may later ones. */
static void resets_of_what_never_was_are_left_out(void **state)
{
    (void)state;
    for (size_t step = 1; step <= 40; step++) {
        struct side s;
        open_side(&s, H2_SERVER);
        raw_u32(&raw, RAW_RST_STREAM, 0, 5, H2_CANCEL);
        raw_headers(&raw, 1, POST, false);
        raw_u32(&raw, RAW_RST_STREAM, 0, 3, H2_CANCEL);
        raw_u32(&raw, RAW_RST_STREAM, 0, 9, H2_CANCEL);
        raw_frame(&raw, RAW_DATA, RAW_END_STREAM, 1, "abc", 3);
        raw_headers(&raw, 5, POST, false);
        raw_u32(&raw, RAW_RST_STREAM, 0, 5, H2_CANCEL);
        raw_headers(&raw, 7, POST, true);
        raw_u32(&raw, RAW_RST_STREAM, 0, 11, H2_CANCEL);
        for (size_t at = 0; at < raw.len; at += step) {
            const size_t left = raw.len - at;
            side_receive(&s, raw.bytes + at, left < step ? left : step);
        }
        side_send(&s, 0);
        raw.len = 0;
        assert_null(s.error);
        assert_int_equal(raw_code(s.out, s.out_len, 0), -1);
        assert_int_equal(log_count(&s, "request 1"), 1);
        assert_int_equal(log_count(&s, "request 5"), 1);
        assert_int_equal(log_count(&s, "request 7"), 1);
        assert_int_equal(s.controls, 5); /* all resets are charged */
        side_close(&s);
    }
}

static void continuations_are_counted(void **state)
{
    (void)state;
    for (size_t n = 8; n <= 9; n++) {
        struct side s;
        open_side(&s, H2_SERVER);
        struct raw block = { .len = 0 };
        raw_block(&block, POST);
        raw_frame(&raw, RAW_HEADERS, 0, 1, block.bytes, block.len);
        for (size_t i = 1; i <= n; i++) {
            raw_frame(&raw, RAW_CONTINUATION, i == n ? RAW_END_HEADERS : 0, 1,
                      "", 0);
        }
        give(&s);
        if (n == 8) {
            assert_null(s.error);
            assert_int_equal(log_count(&s, "request 1"), 1);
        } else {
            assert_string_equal(s.error, "TOO_MANY_CONTINUATIONS");
        }
        side_close(&s);
    }
}

static void what_must_be_answered_is_limited(void **state)
{
    (void)state;
    for (size_t how = 0; how < 2; how++) {
        struct side s;
        open_side(&s, H2_SERVER);
        s.quiet = true;
        for (size_t i = 0; i < 1000; i++) {
            if (how == 0) {
                raw_frame(&raw, RAW_PING, 0, 0, zeros, 8);
            } else {
                raw_setting(&raw, 4, (uint32_t)i);
            }
        }
        side_receive(&s, raw.bytes, raw.len); /* nothing is sent meanwhile */
        assert_string_equal(s.error, "FLOODED");
        assert_true(s.controls > 200);
        side_close(&s);
    }
}

static void settings_with_many_entries_are_refused(void **state)
{
    (void)state;
    struct side s;
    open_side(&s, H2_SERVER);
    const uint8_t entry[] = { 0, 4, 0, 0, 1, 0 };
    struct raw entries = { .len = 0 };
    for (size_t i = 0; i < 17; i++) {
        raw_bytes(&entries, entry, sizeof entry);
    }
    raw_frame(&raw, RAW_SETTINGS, 0, 0, entries.bytes, entries.len);
    give(&s);
    assert_int_equal(raw_code(s.out, s.out_len, 0), H2_ENHANCE_YOUR_CALM);
    side_close(&s);
}

static void unknown_frames_are_skipped_and_charged(void **state)
{
    (void)state;
    struct side s;
    open_side(&s, H2_SERVER);
    raw_headers(&raw, 1, POST, false);
    for (unsigned type = 10; type < 256; type++) {
        raw_frame(&raw, type, 0xff, type % 3, zeros, type);
    }
    raw_frame(&raw, RAW_DATA, RAW_END_STREAM, 1, "abc", 3);
    give(&s);
    assert_null(s.error);
    assert_int_equal(s.controls, 246);
    assert_true(log_has(&s, "ended 1 content=3"));
    assert_int_equal(s.out_len, 0);
    side_close(&s);
}

static void control_frames_are_charged(void **state)
{
    (void)state;
    struct side s;
    open_side(&s, H2_SERVER);
    raw_headers(&raw, 1, POST, false);
    give(&s);
    assert_int_equal(s.controls, 0);
    raw_frame(&raw, RAW_PRIORITY, 0, 3, "\0\0\0\0\1", 5);
    raw_frame(&raw, RAW_PING, RAW_ACK, 0, zeros, 8);
    raw_frame(&raw, RAW_PING, 0, 0, zeros, 8);
    raw_frame(&raw, RAW_SETTINGS, 0, 0, "", 0);
    raw_u32(&raw, RAW_WINDOW_UPDATE, 0, 0, 1);
    raw_u32(&raw, RAW_WINDOW_UPDATE, 0, 1, 1);
    give(&s);
    assert_int_equal(s.controls, 6);
    assert_int_equal(s.empty_data, 0);
    raw_frame(&raw, RAW_DATA, 0, 1, "", 0);
    raw_frame(&raw, RAW_DATA, RAW_PADDED, 1, zeros, 1);
    raw_frame(&raw, RAW_DATA, RAW_PADDED, 1,
              "\5"
              "12345",
              6);
    give(&s);
    assert_int_equal(s.empty_data, 3);
    assert_int_equal(s.controls, 9);
    raw_frame(&raw, RAW_DATA, 0, 1, "a", 1);
    raw_frame(&raw, RAW_DATA, RAW_PADDED, 1,
              "\1"
              "ab",
              3);
    raw_frame(&raw, RAW_DATA, RAW_END_STREAM, 1, "", 0);
    give(&s);
    assert_int_equal(s.controls, 9);
    raw_u32(&raw, RAW_RST_STREAM, 0, 1, H2_CANCEL);
    give(&s);
    assert_int_equal(s.controls, 10);
    assert_true(log_has(&s, "closed 1 CANCEL"));
    side_close(&s);
}

static void streams_beyond_the_limit_are_refused(void **state)
{
    (void)state;
    struct side s;
    open_side(&s, H2_SERVER);
    for (uint32_t i = 0; i < 103; i++) {
        raw_headers(&raw, 2 * i + 1, POST, false);
    }
    s.quiet = true;
    s.on_request = NULL;
    /* Fewer talks than streams: let the first ones go. */
    const size_t half = raw.len;
    struct raw_seen seen;
    size_t at = 0;
    size_t shown = 0;
    while (raw_next(raw.bytes, half, &at, &seen) && shown < TALKS_MAX) {
        side_receive(&s, seen.payload - 9, seen.len + 9);
        shown++;
    }
    assert_int_equal(s.controls, 0);
    side_close(&s);

    const struct h2_options few = { .role = H2_SERVER,
                                    .max_streams = 3,
                                    .stream_window = 65535,
                                    .connection_window = 65535,
                                    .max_header_list_size = 8192 };
    s = (struct side){ .h = NULL };
    assert_true(side_open(&s, &few));
    raw.len = 0;
    raw_client_hello(&raw);
    for (uint32_t i = 0; i < 5; i++) {
        raw_headers(&raw, 2 * i + 1, POST, false);
    }
    give(&s);
    assert_int_equal(log_count(&s, "request"), 3);
    assert_int_equal(raw_code(s.out, s.out_len, 7), H2_REFUSED_STREAM);
    assert_int_equal(raw_code(s.out, s.out_len, 9), H2_REFUSED_STREAM);
    assert_int_equal(raw_code(s.out, s.out_len, 0), -1);
    side_close(&s);
}

static void many_resets_end_the_connection_when_told_so(void **state)
{
    (void)state;
    for (size_t how = 0; how < 2; how++) {
        struct side s = { .h = NULL };
        struct h2_options options = pair_options(H2_SERVER);
        options.reset_burst = how == 0 ? 0 : 10;
        options.reset_rate = how == 0 ? 0 : 1;
        assert_true(side_open(&s, &options));
        s.quiet = true;
        raw.len = 0;
        raw_client_hello(&raw);
        for (uint32_t i = 0; i < 2000; i++) {
            raw_headers(&raw, 2 * i + 1, POST, false);
            raw_u32(&raw, RAW_RST_STREAM, 0, 2 * i + 1, H2_CANCEL);
        }
        give(&s);
        assert_int_equal(raw_count(s.out, s.out_len, RAW_GOAWAY, 0), how);
        side_close(&s);
    }
}

/* ---- random bytes ---- */

static uint64_t random_state;

static uint32_t draw(uint32_t below)
{
    random_state = random_state * UINT64_C(6364136223846793005) + 1442695041;
    return (uint32_t)(random_state >> 33) % below;
}

static void put_random_frame(void)
{
    static uint8_t payload[300];
    const uint32_t len = draw(4) == 0 ? draw(300) : draw(12);
    for (uint32_t i = 0; i < len; i++) {
        payload[i] = (uint8_t)(draw(3) == 0 ? draw(256) : draw(4));
    }
    switch (draw(6)) {
    case 0: raw_headers(&raw, draw(9), POST, draw(2) != 0); break;
    case 1: raw_headers(&raw, draw(9), ":status: 200\n", draw(2) != 0); break;
    case 2: raw_u32(&raw, draw(10), draw(64), draw(9), draw(100000)); break;
    default: raw_frame(&raw, draw(11), draw(64), draw(9), payload, len); break;
    }
}

static void respond_sometimes(struct side *s, struct talk *t)
{
    switch (draw(4)) {
    case 0:
        t->length = draw(100000);
        t->end = draw(2) != 0;
        t->trailers = draw(2) != 0 ? "grpc-status: 0\n" : NULL;
        talk_respond(s, t, ":status: 200\n", false);
        break;
    case 1: talk_respond(s, t, ":status: 200\ngrpc-status: 1\n", true); break;
    case 2: h2_reset(s->h, t->stream, H2_CANCEL); break;
    default: break;
    }
}

static void nonsense_does_no_harm(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3000; seed++) {
        random_state = seed * UINT64_C(0x9e3779b97f4a7c15);
        const enum h2_role role = seed % 2 == 0 ? H2_SERVER : H2_CLIENT;
        struct side s;
        open_side(&s, role);
        s.quiet = true;
        s.credits = draw(2) != 0;
        s.on_request = respond_sometimes;
        if (role == H2_CLIENT) {
            for (size_t i = 0; i < 4; i++) {
                struct talk *t = talk_request(&s, simple_request, draw(2) != 0);
                t->length = draw(50000);
                t->end = draw(2) != 0;
            }
        }
        for (size_t i = 0; i < 30; i++) {
            put_random_frame();
            if (draw(3) == 0) {
                give(&s);
                side_discard(&s);
            }
        }
        give(&s);
        side_close(&s);
    }
}

static void codes_have_names(void **state)
{
    (void)state;
    assert_string_equal(h2_code_name(H2_NO_ERROR), "NO_ERROR");
    assert_string_equal(h2_code_name(H2_CANCEL), "CANCEL");
    assert_string_equal(h2_code_name(H2_HTTP_1_1_REQUIRED),
                        "HTTP_1_1_REQUIRED");
    assert_string_equal(h2_code_name(14), "unknown");
    assert_string_equal(h2_code_name(UINT32_MAX), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_no_http2_is_named),
        cmocka_unit_test(settings_come_first),
        cmocka_unit_test(a_push_promise_ends_the_connection),
        cmocka_unit_test(violations_end_the_connection),
        cmocka_unit_test(resets_of_what_never_was_are_left_out),
        cmocka_unit_test(continuations_are_counted),
        cmocka_unit_test(what_must_be_answered_is_limited),
        cmocka_unit_test(settings_with_many_entries_are_refused),
        cmocka_unit_test(unknown_frames_are_skipped_and_charged),
        cmocka_unit_test(control_frames_are_charged),
        cmocka_unit_test(streams_beyond_the_limit_are_refused),
        cmocka_unit_test(many_resets_end_the_connection_when_told_so),
        cmocka_unit_test(nonsense_does_no_harm),
        cmocka_unit_test(codes_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
