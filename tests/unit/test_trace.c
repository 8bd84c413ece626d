/* Words for people: each value has its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "proxy/core/trace.h"

static void every_io_error_has_words_of_its_own(void **state)
{
    (void)state;
    for (unsigned a = 0; a < IO_ERROR_COUNT; a++) {
        const char *text = io_error_text((enum io_error)a);
        assert_non_null(text);
        /* It becomes part of a RESP error and of a log line. */
        assert_null(strpbrk(text, "\r\n\"="));
        for (unsigned b = 0; b < a; b++) {
            assert_string_not_equal(text, io_error_text((enum io_error)b));
        }
    }
    assert_string_equal(io_error_text(IO_REFUSED), "connection refused");
}

static void every_trace_type_has_a_name_of_its_own(void **state)
{
    (void)state;
    for (unsigned a = 0; a < TRACE_TYPE_COUNT; a++) {
        const char *name = trace_type_name((enum trace_type)a);
        assert_non_null(name);
        for (unsigned b = 0; b < a; b++) {
            assert_string_not_equal(name, trace_type_name((enum trace_type)b));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_io_error_has_words_of_its_own),
        cmocka_unit_test(every_trace_type_has_a_name_of_its_own),
    };
    return cmocka_run_group_tests_name("trace", tests, NULL, NULL);
}
