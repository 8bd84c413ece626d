#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/h2_pair.h"

static const char ok_headers[] = ":status: 200\n"
                                 "content-type: application/grpc\n";

static void answer(struct side *s, struct talk *t)
{
    t->content = "hello";
    t->length = 5;
    t->end = true;
    t->trailers = "grpc-status: 0\n";
    assert_true(talk_respond(s, t, ok_headers, false));
}

static void a_unary_call_passes(void **state)
{
    (void)state;
    struct pair p;
    pair_open(&p);
    p.server.on_ended = answer;

    struct talk *t = talk_request(&p.client, simple_request, false);
    t->content = "hi";
    t->length = 2;
    t->end = true;
    pair_run(&p);

    assert_string_equal(p.server.log,
                        "request 1: :method=POST :scheme=http :path=/s.S/M "
                        ":authority=localhost:1 te=trailers "
                        "content-type=application/grpc\n"
                        "ended 1 content=2\n"
                        "headers_sent 1\n"
                        "headers_sent 1 end\n"
                        "end_sent 1\n"
                        "closed 1 NO_ERROR\n");
    assert_string_equal(p.client.log, "headers_sent 1\n"
                                      "end_sent 1\n"
                                      "response 1: :status=200 "
                                      "content-type=application/grpc\n"
                                      "trailers 1: grpc-status=0 end\n"
                                      "closed 1 NO_ERROR\n");
    assert_null(p.client.error);
    assert_null(p.server.error);
    pair_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_unary_call_passes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
