/* What HTTP demands of header blocks (V6, V8 to V13, X5, X7). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "parser/h2_field.h"
#include "tests/unit/h2_pair.h"
#include "tests/unit/h2_raw.h"

#define POST ":method: POST\n:scheme: http\n:path: /s.S/M\n"

static struct raw raw; /* cleared by whoever begins */

static void open_server(struct side *s)
{
    const struct h2_options options = pair_options(H2_SERVER);
    *s = (struct side){ .h = NULL };
    assert_true(side_open(s, &options));
    raw.len = 0;
    raw_client_hello(&raw);
    side_receive(s, raw.bytes, raw.len);
    side_send(s, 0);
    side_discard(s);
    log_clear(s);
    s->controls = 0;
    raw.len = 0;
}

/* With one request on stream 1. */
static struct talk *open_client(struct side *s)
{
    const struct h2_options options = pair_options(H2_CLIENT);
    *s = (struct side){ .h = NULL };
    assert_true(side_open(s, &options));
    raw.len = 0;
    raw_server_hello(&raw);
    side_receive(s, raw.bytes, raw.len);
    struct talk *t = talk_request(s, simple_request, false);
    side_send(s, 0);
    side_discard(s);
    log_clear(s);
    s->controls = 0;
    raw.len = 0;
    return t;
}

static void give(struct side *s)
{
    side_receive(s, raw.bytes, raw.len);
    raw.len = 0;
    side_send(s, 0);
}

/* ---- requests ---- */

struct request_case {
    const char *name, *fields;
    const char *line; /* of the log; NULL: RST_STREAM(PROTOCOL_ERROR) */
};

#define SEEN "request 1: :method=POST :scheme=http :path=/s.S/M"

static const struct request_case requests[] = {
    { "all that is needed", POST, SEEN },
    { "an authority", POST ":authority: a\n", SEEN " :authority=a" },
    { "any authority", POST ":authority: %2frun%2fa b/\n",
      SEEN " :authority=%2frun%2fa b/" },
    { "host instead", POST "host: a\n", SEEN " host=a" },
    { "fields", POST "a: b\nte: trailers\n", SEEN " a=b te=trailers" },
    { "TE in capitals", POST "te: Trailers\n", SEEN " te=Trailers" },
    { "white space", POST "a:  \t b c\t \n", SEEN " a=b c" },
    { "an empty value", POST "a: \nb:   \n", SEEN " a= b=" },
    { "utf-8", POST "a: \xc3\xa4\xff\n", SEEN " a=\xc3\xa4\xff" },
    { "no method", ":scheme: http\n:path: /s.S/M\n", NULL },
    { "no scheme", ":method: POST\n:path: /s.S/M\n", NULL },
    { "no path", ":method: POST\n:scheme: http\n", NULL },
    { "CONNECT", ":method: CONNECT\n:authority: a\n", NULL },
    { "two methods", POST ":method: POST\n", NULL },
    { "two schemes", POST ":scheme: http\n", NULL },
    { "two paths", POST ":path: /\n", NULL },
    { "two authorities", POST ":authority: a\n:authority: a\n", NULL },
    { "a status", POST ":status: 200\n", NULL },
    { "an unknown pseudo-header", POST ":protocol: x\n", NULL },
    { "a pseudo-header that is only a colon", POST ":: x\n", NULL },
    { "a pseudo-header behind a field", POST "a: b\n:authority: a\n", NULL },
    { "a pseudo-header behind a dropped field", POST "a b: c\n:authority: a\n",
      NULL },
    { "capitals", POST "Abc: d\n", NULL },
    { "a capital at the end", POST "abC: d\n", NULL },
    { "a capital among illegal bytes", POST "a (C: d\n", NULL },
    { "capitals in a pseudo-header", POST ":Authority: d\n", NULL },
    { "connection", POST "connection: close\n", NULL },
    { "keep-alive", POST "keep-alive: 1\n", NULL },
    { "proxy-connection", POST "proxy-connection: 1\n", NULL },
    { "transfer-encoding", POST "transfer-encoding: chunked\n", NULL },
    { "upgrade", POST "upgrade: h2c\n", NULL },
    { "almost upgrade", POST "upgrada: h2c\n", SEEN " upgrada=h2c" },
    { "te gzip", POST "te: gzip\n", NULL },
    { "te trailers and more", POST "te: trailers, gzip\n", NULL },
    { "te without value", POST "te: \n", NULL },
    { "a control byte in a value",
      POST "a: b\x01"
           "c\nd: e\n",
      SEEN " d=e (dropped 1)" },
    { "a NUL is tested elsewhere; DEL", POST "a: b\x7f\nd: e\n",
      SEEN " d=e (dropped 1)" },
    { "a tab inside", POST "a: b\tc\n", SEEN " a=b\tc" },
    { "a space in a name", POST "a b: c\nd: e\n", SEEN " d=e (dropped 1)" },
    { "a bracket in a name", POST "a(: c\nd: e\nf\x80: g\n",
      SEEN " d=e (dropped 2)" },
    { "a control byte in a path",
      ":method: POST\n:scheme: http\n"
      ":path: /\x01\n",
      NULL },
    { "a control byte in an authority", POST ":authority: a\x02\n", NULL },
    { "a content-length", POST "content-length: 5\n",
      SEEN " content-length=5" },
    { "two content-lengths", POST "content-length: 5\ncontent-length: 5\n",
      NULL },
    { "no number", POST "content-length: x\n", NULL },
    { "a negative length", POST "content-length: -1\n", NULL },
    { "an empty length", POST "content-length: \n", NULL },
    { "a list of lengths", POST "content-length: 5, 5\n", NULL },
    { "a length with a control byte", POST "content-length: 5\x01\n", NULL },
    { "the largest length", POST "content-length: 922337203685477579\n",
      SEEN " content-length=922337203685477579" },
    { "a length beyond 64 bits", POST "content-length: 18446744073709551617\n",
      NULL },
    { "repeated fields", POST "a: 1\nb: 2\na: 3\n", SEEN " a=1 b=2 a=3" },
};

static void requests_are_checked(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof requests / sizeof requests[0]; i++) {
        const struct request_case *c = &requests[i];
        struct side s;
        open_server(&s);
        raw_headers(&raw, 1, c->fields, false);
        raw_headers(&raw, 3, POST, true);
        give(&s);
        const bool ok = c->line != NULL;
        const int64_t code = raw_code(s.out, s.out_len, 1);
        if ((ok && !log_has(&s, c->line)) ||
            code != (ok ? -1 : H2_PROTOCOL_ERROR)) {
            fail_msg("%s: code %d, %s", c->name, (int)code, s.log);
        }
        /* What the owner has not seen it does not hear of; it is charged. */
        assert_int_equal(log_count(&s, "request 1"), ok);
        assert_int_equal(log_count(&s, "closed 1"), 0);
        assert_int_equal(s.controls, ok ? 0 : 1);
        assert_int_equal(s.rejected, ok ? 0 : 1);
        assert_int_equal(log_count(&s, "request 3"), 1);
        assert_null(s.error);
        side_close(&s);
    }
}

static void a_nul_in_a_value_is_illegal(void **state)
{
    (void)state;
    struct side s;
    open_server(&s);
    struct raw block = { .len = 0 };
    raw_block(&block, POST);
    raw_field(&block, "a", 1, "b\0c", 3);
    raw_field(&block, "", 0, "x", 1);
    raw_field(&block, "d\0", 2, "x", 1);
    raw_frame(&raw, RAW_HEADERS, RAW_END_HEADERS, 1, block.bytes, block.len);
    give(&s);
    assert_true(log_has(&s, SEEN " (dropped 3)"));
    side_close(&s);
}

static void every_byte_is_judged_anywhere_in_a_value(void **state)
{
    (void)state;
    uint8_t text[40];
    for (size_t len = 1; len < sizeof text; len++) {
        for (size_t at = 0; at < len; at++) {
            for (unsigned byte = 0; byte < 256; byte++) {
                memset(text, 'x', sizeof text);
                text[at] = (uint8_t)byte;
                const bool legal =
                    byte == '\t' || (byte >= 0x20 && byte != 0x7f);
                assert_int_equal(h2_value_is_legal((struct span){ text, len }),
                                 legal);
                text[len] = 0; /* is not looked at */
                text[at == 0 ? len - 1 : 0] = 0xff;
                assert_int_equal(h2_value_is_legal((struct span){ text, len }),
                                 legal || (len == 1));
            }
        }
    }
}

static void every_byte_of_a_name_is_judged(void **state)
{
    (void)state;
    for (unsigned byte = 0; byte < 256; byte++) {
        const uint8_t name[] = { 'a', (uint8_t)byte, 'b' };
        const bool is_upper = byte >= 'A' && byte <= 'Z';
        const bool legal =
            (byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9') ||
            (byte != 0 && strchr("!#$%&'*+-.^_`|~", (int)byte) != NULL);
        assert_int_equal(h2_name_legality((struct span){ name, 3 }),
                         legal      ? H2_LEGAL
                         : is_upper ? H2_UPPER_CASE
                                    : H2_ILLEGAL);
    }
    assert_int_equal(h2_name_legality((struct span){ NULL, 0 }), H2_ILLEGAL);
}

static void names_are_recognised(void **state)
{
    (void)state;
    for (unsigned number = H2_METHOD; number < H2_NAME_COUNT; number++) {
        const uint8_t id = (uint8_t)number;
        uint8_t text[40];
        const struct span name = h2_name_text(id);
        assert_in_range(name.len, 2, sizeof text - 2);
        assert_int_equal(h2_name_id(name), id);
        /* One byte different, or one more, or one less: another name. */
        for (size_t i = 0; i < name.len; i++) {
            memcpy(text, name.data, name.len);
            text[i] ^= 2;
            assert_int_not_equal(h2_name_id((struct span){ text, name.len }),
                                 id);
        }
        memcpy(text, name.data, name.len);
        text[name.len] = 'x';
        assert_int_not_equal(h2_name_id((struct span){ text, name.len + 1 }),
                             id);
        assert_int_not_equal(h2_name_id((struct span){ text, name.len - 1 }),
                             id);
    }
    assert_int_equal(h2_name_id(span_of("x")), H2_OTHER);
    assert_int_equal(h2_name_id(span_of("")), H2_OTHER);
    assert_int_equal(h2_name_id(span_of(":")), H2_PSEUDO_UNKNOWN);
}

/* ---- limits (V6) ---- */

static size_t put_request(struct raw *block, size_t fields, size_t value_len)
{
    static uint8_t value[20000];
    memset(value, 'v', sizeof value);
    block->len = 0;
    raw_block(block, POST);
    for (size_t i = 3; i < fields; i++) {
        raw_field(block, "x", 1, value, value_len);
    }
    return block->len;
}

/* In frames of at most 16 KiB. */
static void put_block(struct raw *r, const struct raw *block, uint32_t stream)
{
    for (size_t at = 0; at < block->len; at += 16384) {
        const size_t left = block->len - at;
        const size_t n = left < 16384 ? left : 16384;
        raw_frame(r, at == 0 ? RAW_HEADERS : RAW_CONTINUATION,
                  (at == 0 ? RAW_END_STREAM : 0U) |
                      (n == left ? RAW_END_HEADERS : 0U),
                  stream, block->bytes + at, n);
    }
}

static void too_many_fields_are_cut(void **state)
{
    (void)state;
    static struct raw block;
    for (size_t n = H2_FIELDS_MAX - 1; n <= H2_FIELDS_MAX + 50; n++) {
        struct side s;
        open_server(&s);
        put_request(&block, n, 1);
        put_block(&raw, &block, 1);
        raw_headers(&raw, 3, POST "y: z\n", true);
        give(&s);
        const struct h2_block *b = talk_of(&s, 1)->block;
        assert_int_equal(b->n, n < H2_FIELDS_MAX ? n : H2_FIELDS_MAX);
        assert_int_equal(b->too_many, n > H2_FIELDS_MAX);
        assert_false(b->too_large);
        assert_true(log_has(
            &s, "request 3: :method=POST :scheme=http :path=/s.S/M y=z end"));
        side_close(&s);
    }
}

static void a_block_beyond_the_limit_is_cut(void **state)
{
    (void)state;
    static struct raw block;
    const size_t limit = 16384; /* as pair_options() says */
    const size_t first = 11 + 11 + 11 + (size_t)3 * 32;
    for (size_t i = 0; i < 3; i++) {
        const size_t value = limit - first - 33 + i - 1;
        for (size_t more = 4; more < 100; more += 60) {
            struct side s;
            open_server(&s);
            put_request(&block, 4, value);
            for (size_t k = 4; k < more; k++) {
                raw_field(&block, "y", 1, "", 0);
            }
            put_block(&raw, &block, 1);
            raw_headers(&raw, 3, POST, true);
            give(&s);
            const struct h2_block *b = talk_of(&s, 1)->block;
            const bool too_large = i == 2 || more > 4;
            assert_int_equal(b->too_large, too_large);
            assert_int_equal(b->n, i == 2 ? 3 : 4);
            assert_int_equal(b->size, limit + i - 1 + (more - 4) * (size_t)33);
            assert_int_equal(log_count(&s, "request 3"), 1);
            side_close(&s);
        }
    }
}

/* A small block that becomes large: each byte is a field of 4 KiB. */
static void a_compression_bomb_takes_no_memory(void **state)
{
    (void)state;
    static uint8_t value[4000];
    struct side s;
    open_server(&s);
    static struct raw block;
    block.len = 0;
    raw_block(&block, POST);
    const size_t at = block.len;
    memset(value, 'v', sizeof value);
    raw_field(&block, "x", 1, value, sizeof value);
    block.bytes[at] = 0x40; /* keep it in the table: index 62 */
    const uint8_t again = 0x80 | 62;
    for (size_t i = 0; i < 11000; i++) {
        raw_bytes(&block, &again, 1);
    }
    put_block(&raw, &block, 1);
    give(&s);
    const struct h2_block *b = talk_of(&s, 1)->block;
    assert_true(b->too_large);
    assert_int_equal(b->n, 3 + 4);
    assert_true(b->size > 44 * 1000 * 1000);
    side_close(&s);
}

/* ---- lengths (V10) and request trailers (V8) ---- */

static void content_must_have_its_length(void **state)
{
    (void)state;
    /* Sent, in two frames, with a length of 5; the end in a third or not. */
    for (size_t n = 0; n <= 8; n++) {
        for (size_t how = 0; how < 3; how++) {
            struct side s;
            open_server(&s);
            raw_headers(&raw, 1, POST "content-length: 5\n", false);
            raw_frame(&raw, RAW_DATA, 0, 1, "12345678", n / 2);
            raw_frame(&raw, RAW_DATA, how == 0 ? RAW_END_STREAM : 0, 1,
                      "12345678", n - n / 2);
            if (how == 1) {
                raw_frame(&raw, RAW_DATA, RAW_END_STREAM, 1, "", 0);
            } else if (how == 2) {
                raw_headers(&raw, 1, "a: b\n", true);
            }
            give(&s);
            assert_int_equal(log_count(&s, "request 1"), 1);
            assert_int_equal(log_count(&s, "ended 1 content=5"), n == 5);
            assert_int_equal(log_count(&s, "closed 1 PROTOCOL_ERROR invalid"),
                             n != 5);
            side_close(&s);
        }
    }
}

static void no_content_has_no_length(void **state)
{
    (void)state;
    struct side s;
    open_server(&s);
    raw_headers(&raw, 1, POST "content-length: 1\n", true);
    raw_headers(&raw, 3, POST "content-length: 0\n", true);
    give(&s);
    assert_int_equal(log_count(&s, "request 1"), 0);
    assert_int_equal(raw_code(s.out, s.out_len, 1), H2_PROTOCOL_ERROR);
    assert_int_equal(log_count(&s, "request 3"), 1);
    side_close(&s);
}

static void request_trailers_are_the_end(void **state)
{
    (void)state;
    static const struct {
        const char *fields;
        bool end, ok;
    } cases[] = {
        { "a: b\n", true, true },   { "", true, true },
        { "a b: c\n", true, true }, { "content-length: 77\n", true, true },
        { "a: b\n", false, false }, { ":path: /\n", true, false },
        { "A: b\n", true, false },  { "connection: close\n", true, false },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct side s;
        open_server(&s);
        raw_headers(&raw, 1, POST, false);
        raw_frame(&raw, RAW_DATA, 0, 1, "abc", 3);
        raw_headers(&raw, 1, cases[i].fields, cases[i].end);
        give(&s);
        assert_int_equal(log_count(&s, "ended 1 content=3"), cases[i].ok);
        assert_int_equal(log_count(&s, "closed 1 PROTOCOL_ERROR invalid"),
                         !cases[i].ok);
        assert_int_equal(log_count(&s, "trailers"), 0);
        side_close(&s);
    }
}

/* ---- responses ---- */

static const struct request_case responses[] = {
    { "a status", ":status: 200\n", "response 1: :status=200" },
    { "another", ":status: 503\na: b\n", "response 1: :status=503 a=b" },
    { "the largest", ":status: 999\n", "response 1: :status=999" },
    { "no status", "a: b\n", NULL },
    { "nothing", "", NULL },
    { "two of them", ":status: 200\n:status: 200\n", NULL },
    { "two digits", ":status: 20\n", NULL },
    { "four digits", ":status: 2000\n", NULL },
    { "letters", ":status: 2x0\n", NULL },
    { "below 100", ":status: 099\n", NULL },
    { "101", ":status: 101\n", NULL },
    { "a path", ":status: 200\n:path: /\n", NULL },
    { "behind a field", "a: b\n:status: 200\n", NULL },
    { "connection", ":status: 200\nconnection: close\n", NULL },
    { "a dropped field", ":status: 200\na: \x02\nb: c\n",
      "response 1: :status=200 b=c (dropped 1)" },
};

static void responses_are_checked(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof responses / sizeof responses[0]; i++) {
        const struct request_case *c = &responses[i];
        struct side s;
        open_client(&s);
        raw_headers(&raw, 1, c->fields, false);
        give(&s);
        const bool shown = log_count(&s, "response") > 0;
        if (shown != (c->line != NULL) ||
            !log_has(&s, shown ? c->line : "closed 1 PROTOCOL_ERROR invalid")) {
            fail_msg("%s: %s", c->name, s.log);
        }
        side_close(&s);
    }
}

static void interim_responses_are_dropped(void **state)
{
    (void)state;
    struct side s;
    open_client(&s);
    raw_headers(&raw, 1, ":status: 100\n", false);
    raw_headers(&raw, 1, ":status: 103\nlink: x\n", false);
    raw_headers(&raw, 1, ":status: 103\nlink: x\n", false);
    raw_headers(&raw, 1, ":status: 200\n", false);
    raw_headers(&raw, 1, "grpc-status: 0\n", true);
    give(&s);
    assert_string_equal(s.log, "response 1: :status=200\n"
                               "trailers 1: grpc-status=0 end\n");
    assert_int_equal(s.controls, 3); /* nothing else limits them */
    side_close(&s);
}

static void an_interim_response_is_not_the_end(void **state)
{
    (void)state;
    for (size_t how = 0; how < 2; how++) {
        struct side s;
        open_client(&s);
        raw_headers(&raw, 1, ":status: 100\n", how == 0);
        if (how == 1) {
            raw_frame(&raw, RAW_DATA, 0, 1, "abc", 3);
        }
        give(&s);
        assert_true(log_has(&s, "closed 1 PROTOCOL_ERROR invalid"));
        side_close(&s);
    }
}

static void response_trailers_are_checked(void **state)
{
    (void)state;
    static const struct {
        const char *fields;
        bool end, ok;
    } cases[] = {
        { "grpc-status: 0\n", true, true },   { "", true, true },
        { "grpc-status: 0\n", false, false }, { ":status: 200\n", true, false },
        { "Grpc-Status: 0\n", true, false },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct side s;
        open_client(&s);
        raw_headers(&raw, 1, ":status: 200\n", false);
        raw_headers(&raw, 1, cases[i].fields, cases[i].end);
        give(&s);
        assert_int_equal(log_count(&s, "trailers 1"), cases[i].ok);
        assert_int_equal(log_count(&s, "closed 1 PROTOCOL_ERROR invalid"),
                         !cases[i].ok);
        side_close(&s);
    }
}

static void responses_without_content_may_tell_a_length(void **state)
{
    (void)state;
    static const struct {
        const char *fields;
        bool ok;
    } cases[] = {
        { ":status: 304\ncontent-length: 10\n", true },
        { ":status: 204\ncontent-length: 10\n", true },
        { ":status: 200\ncontent-length: 10\n", false },
        { ":status: 200\ncontent-length: 0\n", true },
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct side s;
        open_client(&s);
        raw_headers(&raw, 1, cases[i].fields, true);
        give(&s);
        assert_int_equal(log_count(&s, "response 1"), cases[i].ok);
        side_close(&s);
    }
}

static void a_response_beyond_the_limit_is_cut(void **state)
{
    (void)state;
    static uint8_t value[16 * 1024];
    struct side s;
    open_client(&s);
    static struct raw block;
    block.len = 0;
    memset(value, 'v', sizeof value);
    raw_block(&block, ":status: 200\n");
    raw_field(&block, "x", 1, value, sizeof value);
    raw_frame(&raw, RAW_HEADERS, 0, 1, block.bytes, 1000);
    raw_frame(&raw, RAW_CONTINUATION, RAW_END_HEADERS, 1, block.bytes + 1000,
              block.len - 1000);
    give(&s);
    assert_true(log_has(&s, "response 1: :status=200 (too large)"));
    side_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_are_checked),
        cmocka_unit_test(a_nul_in_a_value_is_illegal),
        cmocka_unit_test(every_byte_is_judged_anywhere_in_a_value),
        cmocka_unit_test(every_byte_of_a_name_is_judged),
        cmocka_unit_test(names_are_recognised),
        cmocka_unit_test(too_many_fields_are_cut),
        cmocka_unit_test(a_block_beyond_the_limit_is_cut),
        cmocka_unit_test(a_compression_bomb_takes_no_memory),
        cmocka_unit_test(content_must_have_its_length),
        cmocka_unit_test(no_content_has_no_length),
        cmocka_unit_test(request_trailers_are_the_end),
        cmocka_unit_test(responses_are_checked),
        cmocka_unit_test(interim_responses_are_dropped),
        cmocka_unit_test(an_interim_response_is_not_the_end),
        cmocka_unit_test(response_trailers_are_checked),
        cmocka_unit_test(responses_without_content_may_tell_a_length),
        cmocka_unit_test(a_response_beyond_the_limit_is_cut),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
