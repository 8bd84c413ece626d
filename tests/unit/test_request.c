/* The life of a request (DESIGN.md §4): every move between two states, those
 * that are allowed and those that are our own mistake and end the process. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "failing_allocator.h"
#include "proxy/core/state.h"

/* Every move there is, and what it is for. */
static const struct {
    enum request_state from;
    enum request_state to;
    const char *when;
} moves[] = {
    { REQUEST_NEW, REQUEST_READY, "no lane yet" },
    { REQUEST_NEW, REQUEST_SENT, "its lane is up" },
    { REQUEST_NEW, REQUEST_DONE, "redial answers it" },
    { REQUEST_NEW, REQUEST_SPLIT, "several nodes answer it" },
    { REQUEST_SPLIT, REQUEST_COMMITTED, "a large reply begins to leave" },
    { REQUEST_SPLIT, REQUEST_DONE, "all of them have" },
    { REQUEST_READY, REQUEST_NEW, "one in front of it must go first" },
    { REQUEST_READY, REQUEST_BACKOFF, "what goes before it was refused" },
    { REQUEST_READY, REQUEST_SENT, "the lane came up" },
    { REQUEST_READY, REQUEST_DONE, "the deadline came first" },
    { REQUEST_SENT, REQUEST_READY, "its lane was lost, it is sent again" },
    { REQUEST_SENT, REQUEST_SETTLING, "the server refused it" },
    { REQUEST_SENT, REQUEST_COMMITTED, "a large reply begins to leave" },
    { REQUEST_SENT, REQUEST_DONE, "answered" },
    { REQUEST_SETTLING, REQUEST_BACKOFF, "it will be tried again" },
    { REQUEST_SETTLING, REQUEST_DONE, "the refusal is the answer" },
    { REQUEST_BACKOFF, REQUEST_NEW, "its time has come" },
    { REQUEST_BACKOFF, REQUEST_DONE, "the deadline came first" },
    { REQUEST_COMMITTED, REQUEST_DONE, "the reply has left" },
};

enum {
    MOVES = sizeof moves / sizeof *moves
};

static bool is_allowed(enum request_state from, enum request_state to)
{
    for (size_t i = 0; i < MOVES; i++) {
        if (moves[i].from == from && moves[i].to == to) {
            return true;
        }
    }
    return false;
}

/* Make the move in a process of its own; returns whether it survives. */
static bool survives(enum request_state from, enum request_state to)
{
    int status = 0;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        struct request r = { .state = (uint8_t)from };
        if (freopen("/dev/null", "w", stderr) == NULL) {
            _exit(2);
        }
        request_move(&r, to);
        _exit(r.state == (uint8_t)to ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    bool moved = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    bool aborted = WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT;
    assert_true(moved || aborted);
    return moved;
}

static void a_request_makes_the_moves_of_the_table_and_no_other(void **state)
{
    (void)state;
    for (unsigned i = 0; i < REQUEST_STATE_COUNT * REQUEST_STATE_COUNT; i++) {
        unsigned from = i / REQUEST_STATE_COUNT;
        unsigned to = i % REQUEST_STATE_COUNT;
        bool expected =
            is_allowed((enum request_state)from, (enum request_state)to);
        bool moved = survives((enum request_state)from, (enum request_state)to);
        if (moved != expected) {
            fail_msg("from %u to %u: %s", from, to,
                     moved ? "allowed" : "forbidden");
        }
    }
}

/* From every state the end can be reached, and nothing leaves it. */
static void every_life_can_end(void **state)
{
    (void)state;
    bool ends[REQUEST_STATE_COUNT] = { [REQUEST_DONE] = true };
    for (unsigned round = 0; round < REQUEST_STATE_COUNT; round++) {
        for (size_t i = 0; i < MOVES; i++) {
            ends[moves[i].from] |= ends[moves[i].to];
            assert_int_not_equal(moves[i].from, REQUEST_DONE);
        }
    }
    for (unsigned s = 0; s < REQUEST_STATE_COUNT; s++) {
        assert_true(ends[s]);
    }
}

/* What was committed cannot be taken back, and a refused request is not sent
 * again without waiting for its turn. */
static void no_way_leads_back_from_a_committed_reply(void **state)
{
    (void)state;
    for (size_t i = 0; i < MOVES; i++) {
        if (moves[i].from == REQUEST_COMMITTED) {
            assert_int_equal(moves[i].to, REQUEST_DONE);
        }
        if (moves[i].to == REQUEST_COMMITTED) {
            assert_true(moves[i].from == REQUEST_SENT ||
                        moves[i].from == REQUEST_SPLIT);
        }
        if (moves[i].from == REQUEST_SETTLING) {
            assert_int_not_equal(moves[i].to, REQUEST_SENT);
        }
    }
}

/* ---- its bytes ------------------------------------------------------------- */

struct fixture {
    struct failing failing;
    struct engine engine;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->failing.left = SIZE_MAX;
    struct allocator allocator = failing_allocator(&f->failing);
    f->engine.memory = memory_new(&allocator);
    assert_non_null(f->engine.memory);
    pool_init(&f->engine.requests, f->engine.memory, sizeof(struct request));
    *state = f;
    return 0;
}

/* pool_fini() and memory_free() assert that everything was given back. */
static int tear_down(void **state)
{
    struct fixture *f = *state;
    pool_fini(&f->engine.requests);
    memory_free(f->engine.memory);
    bool leaked = f->failing.live != 0;
    free(f);
    return leaked;
}

static const char set[] = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$5\r\nvalue\r\n";

/* A SET whose first bytes lie in a read block and the rest, if any, apart. */
static struct request *request_in_parts(struct fixture *f, size_t first)
{
    struct memory *m = f->engine.memory;
    struct request *r = request_new(&f->engine, NULL);
    struct buf *b = buf_new(m, 0);
    assert_non_null(r);
    assert_non_null(b);
    memcpy(b->data + 7, set, first);
    b->len = (uint32_t)(7 + first);
    r->part = (struct slice){ .buf = b, .offset = 7, .len = (uint32_t)first };
    for (size_t i = first; i < sizeof set - 1; i++) {
        struct span byte = { (const uint8_t *)set + i, 1 };
        assert_true(chain_push_copy(m, &r->more, byte));
    }
    r->size = sizeof set - 1;
    r->command = command_find(span_of("SET"), (struct span){ 0 });
    return r;
}

static void a_request_is_split_wherever_its_bytes_lie(void **state)
{
    struct fixture *f = *state;
    for (size_t first = 1; first < sizeof set; first++) {
        struct request *r = request_in_parts(f, first);
        struct request_args args;
        request_args_init(&f->engine, &args, r);
        assert_int_equal(args.argc, 3);
        assert_true(span_equal(args.list[1], span_of("k")));
        assert_true(span_equal(args.list[2], span_of("value")));
        request_args_fini(&f->engine, &args);
        request_args_fini(&f->engine, &args);
        assert_int_equal(request_class(&f->engine, r), CLASS_I);
        request_free(&f->engine, r);
    }
}

/* Without memory nothing is known of its arguments: take it for the worst. */
static void a_request_that_cannot_be_split_is_not_idempotent(void **state)
{
    struct fixture *f = *state;
    struct request *r = request_in_parts(f, 5);
    struct request_args args;
    f->failing.left = 0;
    request_args_init(&f->engine, &args, r);
    assert_int_equal(args.argc, 0);
    request_args_fini(&f->engine, &args);
    assert_int_equal(request_class(&f->engine, r), CLASS_N);
    f->failing.left = SIZE_MAX;
    r->incomplete = true;
    assert_int_equal(request_class(&f->engine, r), CLASS_N);
    r->command = NULL;
    assert_int_equal(request_class(&f->engine, r), CLASS_U);
    request_free(&f->engine, r);
}

static void a_small_request_can_leave_its_block(void **state)
{
    struct fixture *f = *state;
    struct request *r = request_in_parts(f, sizeof set - 1);
    const struct buf *block = r->part.buf;
    f->failing.left = 0;
    request_compact(&f->engine, r);
    assert_ptr_equal(r->part.buf, block);
    f->failing.left = SIZE_MAX;
    request_compact(&f->engine, r);
    assert_ptr_not_equal(r->part.buf, block);
    assert_true(memory_block_bytes(f->engine.memory) < 1024);
    struct span bytes = { slice_data(&r->part), r->part.len };
    assert_true(span_equal(bytes, span_of(set)));
    block = r->part.buf;
    request_compact(&f->engine, r);
    assert_ptr_equal(r->part.buf, block);
    request_drop_bytes(&f->engine, r);
    request_compact(&f->engine, r);
    request_free(&f->engine, r);
}

static void a_request_without_memory_is_not_made(void **state)
{
    struct fixture *f = *state;
    f->failing.left = 0;
    assert_null(request_new(&f->engine, NULL));
    f->failing.left = SIZE_MAX;
    f->engine.now_us = 5;
    struct request *r = request_new(&f->engine, NULL);
    assert_non_null(r);
    assert_int_equal(r->state, REQUEST_NEW);
    assert_int_equal(r->arrived_us, 5);
    assert_string_equal(request_name(r), "unknown command");
    request_free(&f->engine, r);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_makes_the_moves_of_the_table_and_no_other),
        cmocka_unit_test(every_life_can_end),
        cmocka_unit_test(no_way_leads_back_from_a_committed_reply),
        TEST(a_request_is_split_wherever_its_bytes_lie),
        TEST(a_request_that_cannot_be_split_is_not_idempotent),
        TEST(a_small_request_can_leave_its_block),
        TEST(a_request_without_memory_is_not_made),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
