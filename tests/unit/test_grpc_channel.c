/* When connections to gRPC endpoints are opened, watched, drained and given up,
 * and which call goes where (grpc.md §1.14, §3.1 to §3.4). The names in brackets
 * are those of the conformance tests in grpc.md §7. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "channel_driver.h"

#define ONE "[upstream u]\ntype = grpc\nnodes = 127.0.0.1:1000\n"
#define TWO \
    "[upstream u]\ntype = grpc\nnodes = 127.0.0.1:1000, 127.0.0.1:1001\n"
#define THREE                                             \
    "[upstream u]\ntype = grpc\nnodes = 127.0.0.1:1000, " \
    "127.0.0.1:1001, 127.0.0.1:1002\n"
#define NAMED "[upstream u]\ntype = grpc\nnodes = backend.test:1000\n"
#define LISTENER                                                \
    "[listener l]\naddress = 127.0.0.1:7000\nprotocol = grpc\n" \
    "upstream = u\n"

/* ---- the first connection -------------------------------------------------- */

static void a_connection_is_opened_when_a_call_wants_it(void **state)
{
    (void)state;
    struct driver *d = driver_new(LISTENER ONE);
    driver_start(d);
    driver_pass(d, 10 * SECOND);
    assert_int_equal(d->servers[0].connects, 0); /* U8, pick_first */
    struct ticket *t = driver_call(d);
    assert_true(t->done);
    assert_int_equal(d->servers[0].connects, 1);
    assert_int_equal(d->channel.state, GRPC_CHANNEL_READY);
    /* [conn-19] magic, SETTINGS and WINDOW_UPDATE in one segment (U6) */
    const struct wire *w = driver_wire(d, 0);
    assert_true(w->first_write > 24 + 9 + 9 + 4);
    assert_int_equal(w->frames[0], FRAME_SETTINGS);
    assert_int_equal(w->frames[1], FRAME_WINDOW_UPDATE);
    driver_free(d);
}

static void the_preface_leaves_in_one_write(void **state)
{
    (void)state;
    struct driver *d = driver_new(LISTENER ONE);
    d->servers[0].mute = true;
    driver_start(d);
    (void)driver_call(d);
    const struct wire *w = driver_wire(d, 0);
    assert_int_equal(w->first_write, w->in.size); /* nothing came after it */
    const uint8_t *p = bytes_front(&w->in);
    size_t at = 24;
    assert_int_equal(p[at + 3], FRAME_SETTINGS);
    at += 9 + (size_t)(p[at + 1] << 8 | p[at + 2]);
    assert_int_equal(p[at + 3], FRAME_WINDOW_UPDATE);
    assert_int_equal(at + 13, w->first_write);
    driver_free(d);
}

static void who_says_no_settings_is_sent_no_call(void **state) /* [safe-17] */
{
    (void)state;
    struct driver *d = driver_new(LISTENER ONE "connect_timeout = 2s\n");
    d->servers[0].mute = true;
    driver_start(d);
    struct ticket *t = driver_call(d);
    driver_pass(d, 1999 * MS);
    assert_int_equal(d->servers[0].connects, 1);
    assert_true(driver_open_wires(d, 0) == 1 && t->waiting);
    driver_pass(d, 10 * MS);
    assert_int_equal(d->servers[0].connects, 2); /* U5: it has failed */
    assert_int_equal(d->channel.stats.connections_failed, 1);
    assert_non_null(strstr(d->channel.last_error, "no SETTINGS"));
    assert_int_equal(t->starts, 0);
    d->servers[0].mute = false;
    driver_pass(d, 3 * SECOND);
    assert_true(t->done);
    assert_int_equal(t->starts, 1);
    driver_free(d);
}

/* ---- backoff --------------------------------------------------------------- */

/* Each attempt follows the one before as U7 says; returns how many there were. */
static unsigned check_pace(const struct server *s,
                           double initial_us,
                           double max_us,
                           double factor,
                           double jitter)
{
    double base_us = initial_us;
    for (unsigned i = 1; i < s->connects; i++) {
        double us = (double)(s->connect_us[i] - s->connect_us[i - 1]);
        assert_true(us >= base_us * (1 - jitter) - 1);
        assert_true(us <= base_us * (1 + jitter) + 1);
        base_us = base_us * factor > max_us ? max_us : base_us * factor;
    }
    return s->connects;
}

static void refused_connections_back_off(void **state) /* [conn-01] */
{
    (void)state;
    struct driver *d = driver_new(LISTENER ONE "lb = round_robin\n");
    d->servers[0].refuses = true;
    driver_start(d);
    driver_pass(d, 60 * SECOND);
    unsigned n = check_pace(&d->servers[0], 200e3, 5e6, 1.6, 0.2);
    assert_in_range(n, 14, 22);
    assert_int_equal(d->channel.stats.connections_failed, n);
    driver_free(d);

    d = driver_new(LISTENER ONE "lb = round_robin\nreconnect_profile = grpc\n");
    d->servers[0].refuses = true;
    driver_start(d);
    driver_pass(d, 60 * SECOND);
    n = check_pace(&d->servers[0], 1e6, 120e6, 1.6, 0.2);
    assert_in_range(n, 6, 9);
    driver_free(d);
}

static void closing_before_settings_is_a_failure(void **state) /* [conn-02] */
{
    (void)state;
    struct driver *d = driver_new(LISTENER ONE "lb = round_robin\n");
    d->servers[0].closes = true;
    driver_start(d);
    driver_pass(d, 60 * SECOND);
    unsigned n = check_pace(&d->servers[0], 200e3, 5e6, 1.6, 0.2);
    assert_in_range(n, 14, 22);
    assert_int_equal(d->n_ready, 0);
    driver_free(d);
}

static void settings_reset_the_backoff(void **state) /* [conn-01] */
{
    (void)state;
    struct driver *d = driver_new(LISTENER ONE "lb = round_robin\n");
    d->servers[0].refuses = true;
    driver_start(d);
    driver_pass(d, 30 * SECOND);
    d->servers[0].refuses = false;
    driver_pass(d, 10 * SECOND);
    assert_int_equal(d->channel.state, GRPC_CHANNEL_READY);
    /* The loss of a connection that lasted is followed at once... */
    unsigned before = d->servers[0].connects;
    d->servers[0].refuses = true;
    wire_end(d, driver_wire(d, 0), IO_RESET);
    driver_run(d);
    assert_int_equal(d->servers[0].connects, before + 1);
    /* ...and then by the first delay. */
    driver_pass(d, 250 * MS);
    assert_int_equal(d->servers[0].connects, before + 2);
    driver_free(d);
}

static void a_connection_that_does_not_last_is_not_followed_at_once(
    void **state)
{
    (void)state;
    struct driver *d = driver_new(LISTENER ONE "lb = round_robin\n");
    driver_start(d);
    for (unsigned i = 0; i < 20; i++) {
        if (driver_open_wires(d, 0) > 0) {
            wire_end(d, driver_wire(d, 0), IO_RESET);
        }
        driver_pass(d, 10 * MS);
    }
    assert_in_range(d->servers[0].connects, 1, 2); /* in 200 ms */
    driver_free(d);
}

/* ---- pick_first ------------------------------------------------------------ */

static void a_black_hole_is_not_waited_for(void **state) /* [conn-03] */
{
    (void)state;
    struct driver *d = driver_new(LISTENER TWO);
    d->servers[0].black_hole = true;
    driver_start(d);
    struct ticket *t = driver_call(d);
    driver_pass(d, 249 * MS);
    assert_int_equal(d->servers[1].connects, 0);
    driver_pass(d, 2 * MS);
    assert_true(t->done);
    assert_int_equal(t->port, 1001);
    assert_int_equal(driver_open_wires(d, 0), 0); /* the loser is cancelled */
    driver_pass(d, 60 * SECOND);
    assert_int_equal(d->servers[0].connects, 1);
    driver_free(d);
}

static void pick_first_goes_on_to_the_next_address(void **state)
{
    (void)state;
    struct driver *d = driver_new(LISTENER THREE);
    d->servers[0].refuses = true;
    d->servers[1].refuses = true;
    driver_start(d);
    struct ticket *t = driver_call(d);
    assert_true(t->done); /* at once: a refusal is not waited for */
    assert_int_equal(t->port, 1002);
    /* All calls go there as long as it lasts. */
    d->servers[0].refuses = false;
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(driver_call(d)->port, 1002);
    }
    /* Then the list begins anew. */
    wire_end(d, driver_wire(d, 2), IO_END);
    driver_pass(d, SECOND);
    t = driver_call(d);
    driver_pass(d, SECOND);
    assert_int_equal(t->port, 1000);
    driver_free(d);
}

static void all_failed_once_is_a_failure(void **state)
{
    (void)state;
    struct driver *d = driver_new(LISTENER THREE);
    for (unsigned i = 0; i < 3; i++) {
        d->servers[i].refuses = true;
    }
    driver_start(d);
    struct ticket *t = driver_call(d);
    assert_int_equal(d->channel.state, GRPC_CHANNEL_FAILING);
    assert_true(t->waiting); /* wait_for_ready */
    driver_pass(d, 5 * SECOND);
    for (unsigned i = 0; i < 3; i++) { /* each has its own backoff */
        assert_in_range(d->servers[i].connects, 4, 9);
        check_pace(&d->servers[i], 200e3, 5e6, 1.6, 0.2);
    }
    d->servers[1].refuses = false;
    driver_pass(d, 5 * SECOND);
    assert_true(t->done);
    assert_int_equal(t->port, 1001);
    assert_int_equal(d->channel.state, GRPC_CHANNEL_READY);
    driver_free(d);
}

/* ---- round_robin and least_request ----------------------------------------- */

static void round_robin_is_fair(void **state) /* [conn-04] */
{
    (void)state;
    struct driver *d = driver_new(LISTENER THREE "lb = round_robin\n");
    driver_start(d);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(d->servers[i].connects, 1); /* eagerly (U8) */
    }
    for (unsigned i = 0; i < 300; i++) {
        assert_true(driver_call(d)->done);
    }
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(d->servers[i].calls, 100);
    }
    d->servers[1].refuses = true;
    wire_end(d, driver_wire(d, 1), IO_RESET);
    for (unsigned i = 0; i < 300; i++) {
        assert_true(driver_call(d)->done);
    }
    assert_int_equal(d->servers[0].calls, 250);
    assert_int_equal(d->servers[1].calls, 100);
    assert_int_equal(d->servers[2].calls, 250);
    driver_free(d);
}

static void unsent_calls_of_a_lost_connection_go_elsewhere(void **state)
{
    (void)state; /* [conn-04] */
    struct driver *d = driver_new(LISTENER TWO "lb = round_robin\n");
    driver_start(d);
    driver_wire(d, 0)->stalled = true; /* nothing leaves our kernel's buffer */
    driver_wire(d, 1)->stalled = true;
    struct ticket *a = driver_call(d), *b = driver_call(d);
    driver_wire(d, 0)->stalled = false;
    driver_wire(d, 1)->stalled = false;
    struct wire *w = driver_wire(d, 0);
    w->untold = 0; /* and never will */
    w->in.size = 0;
    wire_end(d, w, IO_RESET);
    driver_run(d);
    assert_true(a->done && b->done);
    assert_int_equal(a->losses + b->losses, 1);
    assert_int_equal(a->port, b->port);
    driver_free(d);
}

static void a_retry_keeps_off_the_endpoint_that_failed(void **state) /* D2 */
{
    (void)state;
    struct driver *d = driver_new(LISTENER THREE "lb = round_robin\n");
    for (unsigned i = 0; i < 3; i++) {
        d->servers[i].holds = true;
    }
    driver_start(d);
    for (unsigned i = 0; i < 30; i++) {
        struct ticket *t = driver_call(d);
        unsigned first = t->port;
        struct wire *w = driver_wire(d, first - PORT_FIRST);
        wire_reset(w, w->last_stream, H2_REFUSED_STREAM);
        driver_run(d);
        assert_int_equal(t->starts, 2);
        assert_int_not_equal(t->port, first);
        driver_cancel(d, t);
    }
    driver_free(d);
}

static void a_retry_keeps_off_it_also_when_it_is_its_turn(void **state) /* D2 */
{
    (void)state;
    static const char *const balancers[] = { "round_robin", "least_request" };
    for (unsigned b = 0; b < 2; b++) {
        char ini[512];
        snprintf(ini, sizeof(ini), "%slb = %s\n", LISTENER TWO, balancers[b]);
        struct driver *d = driver_new(ini);
        d->servers[0].holds = true;
        d->servers[1].holds = true;
        driver_start(d);
        for (unsigned i = 0; i < 20; i++) {
            struct ticket *t = driver_call(d);
            unsigned first = t->port;
            struct wire *w = driver_wire(d, first - PORT_FIRST);
            int32_t stream = w->last_stream;
            (void)driver_call(d); /* takes the other one's turn */
            wire_reset(w, stream, H2_REFUSED_STREAM);
            driver_run(d);
            assert_int_equal(t->starts, 2);
            assert_int_not_equal(t->port, first);
        }
        driver_free(d);
    }
}

static void the_endpoint_that_failed_is_better_than_none(void **state)
{
    (void)state;
    struct driver *d = driver_new(LISTENER ONE "lb = round_robin\n");
    d->servers[0].holds = true;
    driver_start(d);
    struct ticket *t = driver_call(d);
    struct wire *w = driver_wire(d, 0);
    wire_reset(w, w->last_stream, H2_REFUSED_STREAM);
    driver_run(d);
    assert_int_equal(t->starts, 2);
    driver_free(d);
}

static void least_request_spares_the_slow_one(void **state) /* [conn-05] */
{
    (void)state;
    struct driver *d = driver_new(LISTENER THREE "lb = least_request\n");
    d->servers[2].holds = true;
    driver_start(d);
    for (unsigned i = 0; i < 300; i++) {
        (void)driver_call(d);
    }
    assert_in_range(d->servers[2].calls, 1, 40);
    assert_in_range(d->servers[0].calls, 100, 200);
    assert_in_range(d->servers[1].calls, 100, 200);
    driver_free(d);
}

/* ---- who waits ------------------------------------------------------------- */

static void waiting_ends_in_time(void **state) /* W2, [time-11] */
{
    (void)state;
    struct driver *d = driver_new(LISTENER ONE);
    d->servers[0].refuses = true;
    driver_start(d);
    uint64_t begun_us = d->now_us;
    struct ticket *t = driver_call(d);
    driver_pass(d, 10 * SECOND);
    struct ticket *later = driver_call(d);
    driver_pass(d, 25 * SECOND);
    assert_true(t->failed && t->forced && !later->failed);
    assert_int_equal(t->end_us, begun_us + 30 * SECOND);
    assert_string_equal(t->text, "no connection to cluster u within 30s: "
                                 "127.0.0.1:1000: connection refused");
    driver_pass(d, 10 * SECOND);
    assert_true(later->failed);
    assert_int_equal(later->end_us, begun_us + 40 * SECOND);
    driver_free(d);
}

static void who_does_not_wait_fails_with_the_upstream(void **state) /* W3 */
{
    (void)state;
    struct driver *d = driver_new(LISTENER ONE "wait_for_ready = no\n"
                                               "connect_timeout = 1s\n");
    d->servers[0].black_hole = true;
    driver_start(d);
    struct ticket *t = driver_call(d);
    struct ticket *patient = driver_call(d);
    patient->policy.wait_for_ready = true;
    driver_pass(d, 900 * MS);
    assert_true(t->waiting); /* while it connects, all wait */
    driver_pass(d, 200 * MS);
    assert_true(t->failed && !t->forced && patient->waiting);
    assert_string_equal(t->text, "no connection to cluster u: "
                                 "127.0.0.1:1000: connection timed out");
    t = driver_call(d);
    assert_true(t->failed); /* at once */
    driver_free(d);
}

static void the_line_is_in_order_and_not_endless(void **state) /* W4 */
{
    (void)state;
    struct driver *d = driver_new(LISTENER ONE "max_queued_calls = 3\n");
    d->servers[0].max_streams = 1;
    d->servers[0].holds = true;
    driver_grpc(d)->max_connections_per_endpoint = 1;
    driver_start(d);
    struct ticket *t[5];
    for (unsigned i = 0; i < 5; i++) {
        t[i] = driver_call(d);
    }
    assert_int_equal(t[0]->starts, 1);
    assert_true(t[4]->failed && t[4]->forced);
    assert_string_equal(t[4]->text, "queue of cluster u is full");
    assert_int_equal(d->channel.stats.limit_max_queued_calls, 1);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(t[i]->starts, 1);
        assert_false(t[i]->done);
        wire_answer(driver_wire(d, 0));
        driver_run(d);
        assert_true(t[i]->done);
    }
    driver_free(d);
}

static void where_none_may_wait_a_connection_is_opened_all_the_same(
    void **state) /* W4 */
{
    (void)state;
    struct driver *d = driver_new(LISTENER ONE "max_queued_calls = 0\n");
    driver_start(d);
    assert_true(driver_call(d)->failed);
    assert_true(driver_call(d)->done);
    driver_free(d);
}

/* ---- streams --------------------------------------------------------------- */

static unsigned running(struct ticket *const t[], unsigned n)
{
    unsigned count = 0;
    for (unsigned i = 0; i < n; i++) {
        count += t[i]->call.link != NULL;
    }
    return count;
}

static void streams_are_limited_by_the_peer(void **state) /* [conn-07] */
{
    (void)state;
    struct driver *d = driver_new(LISTENER ONE);
    d->servers[0].max_streams = 1;
    d->servers[0].holds = true;
    driver_start(d);
    struct ticket *t[10];
    for (unsigned i = 0; i < 10; i++) {
        t[i] = driver_call(d);
    }
    driver_pass(d, SECOND);
    assert_int_equal(driver_open_wires(d, 0), 4); /* max_connections_... */
    assert_int_equal(running(t, 10), 4);
    wire_settings(driver_wire(d, 0), 3); /* later raised */
    driver_run(d);
    assert_int_equal(running(t, 10), 6);
    for (unsigned i = 0; i < d->n_wires; i++) {
        wire_settings(d->wires[i], 0); /* full, not broken */
        wire_answer(d->wires[i]);
    }
    driver_pass(d, SECOND);
    assert_int_equal(running(t, 10), 0);
    assert_int_equal(driver_open_wires(d, 0), 4);
    wire_settings(driver_wire(d, 0), 100);
    driver_run(d);
    assert_int_equal(running(t, 10), 4);
    driver_free(d);
}

static void streams_are_limited_by_the_configuration(void **state)
{
    (void)state;
    struct driver *d =
        driver_new(LISTENER ONE "max_streams_per_connection = 5\n"
                                "max_connections_per_endpoint = 2\n");
    d->servers[0].holds = true;
    driver_start(d);
    struct ticket *t[20];
    for (unsigned i = 0; i < 20; i++) {
        t[i] = driver_call(d);
    }
    assert_int_equal(running(t, 20), 10);
    assert_int_equal(driver_open_wires(d, 0), 2);
    driver_free(d);
}

static void a_cancelled_stream_stays_taken_until_it_is_closed(void **state)
{
    (void)state; /* A3 */
    struct driver *d =
        driver_new(LISTENER ONE "max_streams_per_connection = 1\n"
                                "max_connections_per_endpoint = 1\n");
    d->servers[0].holds = true;
    driver_start(d);
    struct ticket *a = driver_call(d), *b = driver_call(d);
    assert_true(a->starts == 1 && b->waiting);
    driver_cancel(d, a); /* our RST_STREAM closes it once it has been made */
    assert_int_equal(b->starts, 1);
    assert_int_equal(d->servers[0].calls, 2);
    driver_free(d);
}

static void a_slot_is_free_also_when_nothing_is_written(void **state) /* A3 */
{
    (void)state;
    struct driver *d =
        driver_new(LISTENER ONE "max_streams_per_connection = 1\n"
                                "max_connections_per_endpoint = 1\n");
    d->servers[0].holds = true;
    driver_start(d);
    struct ticket *a = driver_call(d), *b = driver_call(d);
    driver_wire(d, 0)->stalled = true;
    driver_cancel(d, a); /* no event follows */
    driver_pass(d, MS);
    assert_int_equal(b->starts, 1);
    driver_free(d);
}

static void calls_do_not_queue_behind_much_output(void **state) /* L3 */
{
    (void)state;
    struct driver *d = driver_new(LISTENER ONE);
    d->servers[0].holds = true;
    driver_start(d);
    driver_cancel(d, driver_call(d));
    struct wire *w = driver_wire(d, 0);
    w->stalled = true;
    struct ticket *a = driver_upload(d, 1 << 20);
    struct ticket *b = driver_call(d);
    assert_int_equal(a->starts, 1);
    assert_true(b->waiting);
    assert_int_equal(d->servers[0].connects, 1); /* not full, only busy */
    w->stalled = false;
    driver_run(d);
    assert_int_equal(b->starts, 1);
    driver_free(d);
}

static void high_stream_ids_bring_a_new_connection(void **state) /* [safe-19] */
{
    (void)state;
    struct driver *d = driver_new(LISTENER ONE);
    d->servers[0].holds = true;
    driver_start(d);
    struct ticket *old = driver_call(d);
    struct wire *first = d->wires[0];
    driver_skip_ids(d, first, GRPC_LAST_ID - 3);
    struct ticket *last = driver_call(d);
    driver_pass(d, SECOND);
    assert_int_equal(d->servers[0].connects, 1);
    struct ticket *over = driver_call(d); /* the next id would be too high */
    driver_pass(d, SECOND);
    assert_int_equal(d->servers[0].connects, 2);
    struct ticket *next = driver_call(d);
    assert_int_equal(d->wires[1]->n_streams, 1);
    wire_answer(first);
    wire_answer(d->wires[1]);
    driver_pass(d, SECOND);
    assert_true(old->done && last->done && over->done && next->done);
    assert_true(old->starts + last->starts + over->starts + next->starts == 4);
    assert_false(first->open);
    assert_true(first->said_goodbye);
    driver_free(d);
}

static void a_replacement_that_cannot_be_made_ends_nothing(void **state)
{
    (void)state; /* U10 */
    struct driver *d =
        driver_new(LISTENER ONE "upstream_max_connection_age = 100s\n");
    driver_start(d);
    assert_true(driver_call(d)->done);
    d->servers[0].refuses = true;
    driver_pass(d, 300 * SECOND);
    assert_true(d->servers[0].connects > 10);
    assert_true(driver_call(d)->done); /* on the old one */
    d->servers[0].refuses = false;
    driver_pass(d, 10 * SECOND);
    assert_false(d->wires[0]->open);
    assert_true(driver_call(d)->done);
    driver_free(d);
}

static void connections_grow_old(void **state) /* U10 */
{
    (void)state;
    struct driver *d =
        driver_new(LISTENER ONE "upstream_max_connection_age = 100s\n");
    driver_start(d);
    assert_true(driver_call(d)->done);
    driver_pass(d, 89 * SECOND);
    assert_int_equal(d->servers[0].connects, 1);
    driver_pass(d, 22 * SECOND);
    assert_int_equal(d->servers[0].connects, 2);
    assert_false(d->wires[0]->open);
    assert_int_equal(d->channel.stats.connections_lost, 0);
    driver_free(d);
}

/* ---- PINGs ----------------------------------------------------------------- */

static void a_silent_peer_is_given_up(void **state) /* [conn-08] */
{
    (void)state;
    struct driver *d = driver_new(LISTENER ONE "keepalive_time = 10s\n");
    d->servers[0].holds = true;
    driver_start(d);
    struct ticket *t = driver_call(d);
    uint64_t begun_us = d->now_us;
    d->servers[0].frozen = true;
    driver_pass(d, 29999 * MS);
    assert_true(t->call.link != NULL);
    driver_pass(d, 2 * MS);
    assert_int_equal(t->losses, 1);
    assert_string_equal(t->reason, "no reply to PING in 20s");
    assert_int_equal(t->end_us, begun_us + 30 * SECOND);
    assert_int_equal(d->channel.stats.keepalive_timeouts, 1);
    assert_int_equal(d->channel.stats.connections_lost, 1);
    driver_free(d);
}

static void pings_are_answered_and_nothing_happens(void **state)
{
    (void)state;
    struct driver *d = driver_new(LISTENER ONE "keepalive_time = 10s\n");
    d->servers[0].holds = true;
    driver_start(d);
    struct ticket *t = driver_call(d);
    driver_pass(d, 105 * SECOND);
    assert_int_equal(driver_wire(d, 0)->pings, 10);
    assert_true(t->call.link != NULL);
    driver_free(d);
}

static void without_calls_there_is_no_ping(void **state) /* [conn-08] */
{
    (void)state;
    struct driver *d = driver_new(LISTENER ONE "keepalive_time = 10s\n");
    driver_start(d);
    assert_true(driver_call(d)->done);
    driver_pass(d, 105 * SECOND);
    assert_int_equal(driver_wire(d, 0)->pings, 0);
    driver_free(d);

    d = driver_new(LISTENER ONE "keepalive_time = 10s\n"
                                "keepalive_permit_without_calls = yes\n");
    driver_start(d);
    assert_true(driver_call(d)->done);
    driver_pass(d, 105 * SECOND);
    assert_int_equal(driver_wire(d, 0)->pings, 10);
    driver_free(d);
}

/* The place of the first frame of that type that came, from the at-th on. */
static unsigned place(const struct wire *w, enum frame type, unsigned at)
{
    for (; at < w->n_frames && at < FRAMES_KEPT; at++) {
        if (w->frames[at] == (uint8_t)type) {
            return at;
        }
    }
    fail_msg("no frame of type %u", type);
    return 0;
}

static void an_overdue_ping_precedes_the_call(void **state) /* [conn-09] */
{
    (void)state;
    struct driver *d =
        driver_new(LISTENER ONE "keepalive_time = 10s\nidle_probe = 0\n");
    driver_start(d);
    assert_true(driver_call(d)->done);
    driver_pass(d, 60 * SECOND);
    struct wire *w = driver_wire(d, 0);
    unsigned before = w->n_frames;
    struct ticket *t = driver_call(d);
    assert_true(t->done);
    assert_int_equal(w->pings, 1);
    assert_true(place(w, FRAME_PING, before) < place(w, FRAME_HEADERS, before));
    driver_free(d);
}

static void too_many_pings_double_the_interval(void **state) /* [conn-10] */
{
    (void)state;
    struct driver *d = driver_new(LISTENER ONE "keepalive_time = 10s\n");
    d->servers[0].holds = true;
    driver_start(d);
    (void)driver_call(d);
    driver_pass(d, 11 * SECOND);
    struct wire *w = driver_wire(d, 0);
    assert_int_equal(w->pings, 1);
    wire_goaway(w, INT32_MAX, H2_ENHANCE_YOUR_CALM, "too_many_pings");
    driver_run(d);
    wire_end(d, w, IO_END);
    driver_pass(d, SECOND);
    assert_int_equal(d->n_doubled, 1);
    assert_int_equal(d->channel.keepalive_us, 20 * SECOND);
    (void)driver_call(d);
    driver_pass(d, 18 * SECOND); /* it was opened a second ago */
    assert_int_equal(driver_wire(d, 0)->pings, 0);
    driver_pass(d, 2 * SECOND);
    assert_int_equal(driver_wire(d, 0)->pings, 1);
    driver_free(d);
}

/* ---- the idle probe -------------------------------------------------------- */

/* A connection that has been quiet for so long that it is probed. */
static struct driver *quiet(const char *ini)
{
    struct driver *d = driver_new(ini);
    driver_start(d);
    assert_true(driver_call(d)->done);
    driver_pass(d, 11 * SECOND);
    return d;
}

static void a_quiet_connection_is_probed_first(void **state) /* [conn-11] */
{
    (void)state;
    struct driver *d = quiet(LISTENER ONE);
    struct wire *w = driver_wire(d, 0);
    unsigned before = w->n_frames;
    struct ticket *t = driver_call(d);
    assert_true(t->done);
    assert_true(place(w, FRAME_PING, before) < place(w, FRAME_HEADERS, before));
    assert_int_equal(d->channel.stats.probes, 1);
    assert_true(driver_call(d)->done); /* no second one in this period */
    assert_int_equal(d->channel.stats.probes, 1);
    driver_free(d);
}

static void a_call_is_not_given_to_a_dead_peer(void **state) /* [conn-11] */
{
    (void)state;
    struct driver *d = quiet(LISTENER ONE);
    struct wire *dead = driver_wire(d, 0);
    dead->stalled = false;
    struct server gone = d->servers[0];
    gone.frozen = true;
    dead->server = &gone; /* this one is gone, the next one will be fine */
    struct ticket *t = driver_call(d);
    assert_true(t->waiting);
    driver_pass(d, 999 * MS);
    assert_true(t->waiting);
    driver_pass(d, 2 * MS);
    assert_true(t->done);
    assert_int_equal(t->starts, 1); /* delivered once */
    assert_int_equal(d->servers[0].calls, 2);
    assert_int_equal(d->channel.stats.probes_failed, 1);
    assert_string_equal(d->last_lost, "no reply to PING in 1s");
    dead->server = &d->servers[0];
    driver_free(d);
}

static void a_safe_call_need_not_wait_for_the_probe(void **state)
{
    (void)state; /* [conn-11] */
    struct driver *d = quiet(LISTENER ONE);
    struct wire *dead = driver_wire(d, 0);
    struct server gone = d->servers[0];
    gone.frozen = true;
    dead->server = &gone;
    struct ticket *unknown = driver_call(d);
    struct ticket *safe = driver_safe_call(d);
    assert_true(unknown->waiting);
    assert_int_equal(safe->starts, 1); /* at once behind the PING */
    driver_pass(d, 1001 * MS);
    assert_true(unknown->done && safe->done);
    assert_int_equal(unknown->starts, 1);
    assert_int_equal(safe->starts, 2);
    assert_int_equal(safe->losses, 1);
    dead->server = &d->servers[0];
    driver_free(d);
}

static void a_probe_does_not_end_older_calls(void **state) /* [conn-11] */
{
    (void)state;
    struct driver *d = driver_new(LISTENER ONE);
    d->servers[0].holds = true;
    driver_start(d);
    struct ticket *old = driver_call(d);
    driver_pass(d, 11 * SECOND);
    struct wire *dead = driver_wire(d, 0);
    struct server gone = d->servers[0];
    gone.frozen = true;
    dead->server = &gone;
    d->servers[0].holds = false;
    struct ticket *t = driver_call(d);
    driver_pass(d, 1001 * MS);
    assert_true(t->done); /* on a second connection */
    assert_int_equal(t->starts, 1);
    assert_int_equal(old->losses, 0);
    assert_true(dead->open);
    for (unsigned i = 0; i < 10; i++) {
        assert_true(driver_call(d)->done);
    }
    gone.frozen = false; /* it was not dead after all */
    gone.holds = false;
    assert_int_equal(d->channel.endpoints[0]->n_usable, 1);
    driver_run(d);
    assert_int_equal(d->channel.endpoints[0]->n_usable, 2);
    wire_answer(dead);
    driver_run(d);
    assert_true(old->done);
    assert_true(driver_call(d)->done);
    dead->server = &d->servers[0];
    driver_free(d);
}

static void a_suspect_is_replaced_before_a_call_waits(void **state) /* K5 */
{
    (void)state;
    struct driver *d = driver_new(LISTENER ONE);
    d->servers[0].holds = true;
    driver_start(d);
    (void)driver_call(d);
    driver_pass(d, 11 * SECOND);
    d->servers[0].frozen = true;
    struct ticket *t = driver_safe_call(d);
    driver_pass(d, 1001 * MS);
    assert_int_equal(t->losses, 0); /* stays where it is */
    assert_int_equal(d->servers[0].connects, 2);
    driver_free(d);
}

static void pick_first_stays_with_whom_it_chose(void **state) /* Y2, K5 */
{
    (void)state;
    struct driver *d = driver_new(LISTENER TWO);
    d->servers[0].holds = true;
    driver_start(d);
    struct ticket *old = driver_call(d);
    assert_int_equal(old->port, 1000);
    d->servers[0].frozen = true;
    driver_pass(d, 11 * SECOND);
    struct ticket *t = driver_call(d);
    driver_pass(d, 2 * SECOND);
    assert_true(t->done);
    assert_int_equal(t->port, 1001);
    d->servers[0].frozen = false; /* it is back, with the old call */
    driver_pass(d, SECOND);
    assert_int_equal(driver_call(d)->port, 1001);
    assert_int_equal(driver_open_wires(d, 0), 1);
    wire_answer(driver_wire(d, 0));
    driver_pass(d, SECOND);
    assert_true(old->done);
    assert_int_equal(driver_open_wires(d, 0), 0); /* not needed any more */
    assert_int_equal(driver_call(d)->port, 1001);
    driver_free(d);
}

static void thirty_probes_are_thirty_periods(void **state) /* [conn-11] */
{
    (void)state;
    struct driver *d = quiet(LISTENER ONE);
    for (unsigned i = 1; i <= 30; i++) {
        assert_true(driver_call(d)->done);
        assert_true(driver_call(d)->done);
        assert_int_equal(d->channel.stats.probes, i);
        driver_pass(d, 11 * SECOND);
    }
    assert_int_equal(d->servers[0].connects, 1);
    driver_free(d);
}

/* What a SIGSTOP of one of two servers does. */
static void a_hung_endpoint_is_set_aside(void **state)
{
    (void)state;
    struct driver *d = driver_new(LISTENER TWO "lb = round_robin\n"
                                               "keepalive_time = 10s\n"
                                               "keepalive_timeout = 2s\n");
    driver_start(d);
    for (unsigned i = 0; i < 10; i++) {
        assert_true(driver_call(d)->done);
    }
    d->servers[0].frozen = true;
    uint64_t since_us = d->now_us;
    unsigned stuck = 0;
    for (unsigned i = 0; i < 600; i++) { /* one each 100 ms, for a minute */
        struct ticket *t = driver_call(d);
        stuck += !t->done;
        bool late = d->now_us > since_us + 10 * SECOND;
        assert_true(t->done || !late);
        driver_pass(d, 100 * MS);
    }
    assert_in_range(stuck, 1, 61);
    assert_int_equal(d->channel.stats.keepalive_timeouts, 1);
    d->servers[0].frozen = false;
    driver_pass(d, 10 * SECOND);
    unsigned before = d->servers[0].calls;
    for (unsigned i = 0; i < 10; i++) {
        assert_true(driver_call(d)->done);
    }
    assert_int_equal(d->servers[0].calls, before + 5); /* it is back */
    driver_free(d);
}

static void a_hung_endpoint_is_set_aside_by_the_probe(void **state)
{
    (void)state;
    struct driver *d = driver_new(LISTENER TWO "lb = round_robin\n");
    d->servers[0].holds = true;
    driver_start(d);
    struct ticket *old[2] = { driver_call(d), driver_call(d) };
    assert_int_equal(running(old, 2), 1);
    d->servers[0].frozen = true;
    driver_pass(d, 11 * SECOND);
    for (unsigned i = 0; i < 100; i++) {
        assert_true(driver_call(d)->done); /* the other answers its probe */
        driver_pass(d, 100 * MS);
    }
    assert_int_equal(d->channel.stats.probes_failed, 1);
    assert_int_equal(running(old, 2), 1); /* it is K1 that would end it */
    driver_free(d);
}

/* ---- GOAWAY ---------------------------------------------------------------- */

static void a_goaway_is_followed_by_a_new_connection(void **state) /* K7, K10 */
{
    (void)state;
    struct driver *d = driver_new(LISTENER ONE);
    d->servers[0].holds = true;
    driver_start(d);
    struct ticket *a = driver_call(d), *b = driver_call(d);
    struct wire *old = driver_wire(d, 0);
    driver_pass(d, SECOND);
    wire_goaway(old, 1, H2_NO_ERROR, "max_age"); /* stream 3 is refused */
    driver_run(d);
    assert_int_equal(d->servers[0].connects, 2); /* at once */
    assert_true(b->refused);
    assert_int_equal(b->starts, 2);
    assert_int_equal(a->starts, 1); /* goes on */
    assert_true(old->open);
    struct ticket *c = driver_call(d);
    assert_int_equal(driver_wire(d, 0)->n_streams, 2);
    wire_answer(old);
    wire_answer(driver_wire(d, 0));
    driver_run(d);
    assert_true(a->done && b->done && c->done);
    driver_pass(d, 10 * MS);
    assert_false(old->open); /* K9: after its last stream */
    assert_true(old->said_goodbye);
    assert_int_equal(old->goaway_code, H2_NO_ERROR);
    assert_int_equal(d->channel.stats.goaways, 1);
    assert_int_equal(d->channel.stats.connections_lost, 0);
    driver_free(d);
}

static void a_goaway_in_two_steps(void **state) /* K8 */
{
    (void)state;
    struct driver *d = driver_new(LISTENER ONE);
    d->servers[0].holds = true;
    driver_start(d);
    struct ticket *a = driver_call(d), *b = driver_call(d);
    struct wire *old = driver_wire(d, 0);
    wire_goaway(old, INT32_MAX, H2_NO_ERROR, "max_age");
    driver_pass(d, SECOND);
    assert_true(a->starts == 1 && b->starts == 1 && !b->refused);
    wire_goaway(old, 1, H2_NO_ERROR, "max_age");
    driver_pass(d, SECOND);
    assert_true(b->refused && b->starts == 2);
    assert_true(a->starts == 1 && a->call.link != NULL);
    driver_free(d);
}

static void what_does_not_end_is_cut(void **state) /* K9 */
{
    (void)state;
    struct driver *d = driver_new(LISTENER ONE);
    d->servers[0].holds = true;
    driver_start(d);
    struct ticket *t = driver_call(d);
    struct wire *old = driver_wire(d, 0);
    wire_goaway(old, INT32_MAX, H2_NO_ERROR, "");
    driver_pass(d, 20 * SECOND);
    wire_goaway(old, 1, H2_NO_ERROR, ""); /* the time runs from the last one */
    driver_pass(d, 29 * SECOND);
    assert_true(t->call.link != NULL);
    driver_pass(d, 2 * SECOND);
    assert_int_equal(t->losses, 1);
    assert_false(old->open);
    driver_free(d);
}

static void goaway_and_end_in_one_segment(void **state) /* K9, F-d */
{
    (void)state;
    struct driver *d = driver_new(LISTENER ONE);
    d->servers[0].holds = true;
    driver_start(d);
    struct ticket *a = driver_call(d), *b = driver_call(d);
    struct wire *old = driver_wire(d, 0);
    wire_answer(old);
    old->n_streams = 0;
    wire_goaway(old, 1, H2_NO_ERROR, "");
    wire_end(d, old, IO_END);
    driver_pass(d, SECOND);
    assert_true(a->done); /* its answer was there */
    assert_true(b->done || b->refused);
    assert_int_equal(a->losses, 0);
    driver_free(d);
}

static void a_goaway_of_a_quiet_connection_is_replaced_too(void **state)
{
    (void)state;
    struct driver *d = driver_new(LISTENER ONE);
    driver_start(d);
    assert_true(driver_call(d)->done);
    driver_pass(d, 60 * SECOND);
    wire_goaway(driver_wire(d, 0), INT32_MAX, H2_NO_ERROR, "max_idle");
    driver_pass(d, 10 * MS);
    assert_int_equal(driver_open_wires(d, 0), 1);
    assert_int_equal(d->servers[0].connects, 2);
    assert_false(d->wires[0]->open);
    driver_free(d);
}

/* ---- odd and hostile endpoints --------------------------------------------- */

static void settings_must_be_acknowledged(void **state) /* [conn-19] */
{
    (void)state;
    struct driver *d = driver_new(LISTENER ONE);
    d->servers[0].no_ack = true;
    driver_start(d);
    assert_true(driver_call(d)->done);
    struct wire *w = driver_wire(d, 0);
    driver_pass(d, 9999 * MS);
    assert_true(w->open);
    driver_pass(d, 2 * MS);
    assert_false(w->open);
    assert_int_equal(w->goaway_code, H2_SETTINGS_TIMEOUT);
    driver_free(d);
}

static void an_unused_connection_is_closed(void **state) /* [conn-19], U8 */
{
    (void)state;
    static const char *const balancers[] = { "pick_first", "round_robin" };
    for (unsigned i = 0; i < 2; i++) {
        char ini[512];
        snprintf(ini, sizeof(ini), "%slb = %s\n", LISTENER ONE, balancers[i]);
        struct driver *d = driver_new(ini);
        driver_start(d);
        assert_true(driver_call(d)->done);
        driver_pass(d, 29 * 60 * SECOND);
        assert_int_equal(driver_open_wires(d, 0), 1);
        driver_pass(d, 61 * SECOND);
        assert_int_equal(driver_open_wires(d, 0), 0);
        assert_true(d->wires[0]->said_goodbye);
        driver_pass(d, 3600 * SECOND);
        assert_int_equal(d->servers[0].connects, 1);
        assert_int_equal(d->channel.n_resting, 1);
        assert_true(driver_call(d)->done); /* the next call reconnects */
        assert_int_equal(d->channel.n_resting, 0);
        assert_int_equal(d->servers[0].connects, 2);
        assert_int_equal(d->channel.stats.connections_lost, 0);
        driver_free(d);
    }
}

static void a_push_promise_ends_the_connection(void **state) /* [flow-16] */
{
    (void)state;
    struct driver *d = driver_new(LISTENER ONE);
    d->servers[0].holds = true;
    driver_start(d);
    struct ticket *t = driver_call(d);
    static const uint8_t push[] = { 0, 0, 0, 2, 0x82 };
    struct wire *w = driver_wire(d, 0);
    wire_frame(w, FRAME_PUSH_PROMISE, 4, 1, push, sizeof(push));
    driver_pass(d, 10 * MS);
    assert_false(w->open);
    assert_int_equal(t->losses, 1); /* F3 */
    d->servers[0].holds = false;
    driver_pass(d, SECOND);
    assert_true(driver_call(d)->done); /* the process is fine */
    driver_free(d);
}

static void what_has_not_left_does_not_leave_with_the_last_words(void **state)
{
    (void)state; /* F1 */
    struct driver *d = driver_new(LISTENER ONE);
    d->servers[0].no_ack = true;
    driver_start(d);
    assert_true(driver_call(d)->done);
    driver_pass(d, 9900 * MS);
    struct wire *w = driver_wire(d, 0);
    w->stalled = true;
    struct ticket *t = driver_call(d); /* is in our kernel's way */
    assert_int_equal(t->starts, 1);
    driver_pass(d, 150 * MS); /* SETTINGS_TIMEOUT */
    assert_true(t->done);     /* elsewhere */
    w->stalled = false;
    driver_pass(d, 2 * SECOND);
    assert_false(w->open);
    assert_int_equal(d->servers[0].calls, 2);
    driver_free(d);
}

static void a_flood_of_frames_ends_the_connection(void **state) /* [flow-16] */
{
    (void)state;
    static const uint8_t zeros[8] = { 0 };
    static const struct {
        enum frame type;
        size_t size;
    } floods[] = { { FRAME_SETTINGS, 0 },
                   { FRAME_PING, 8 },
                   { FRAME_PRIORITY, 5 } };
    for (unsigned i = 0; i < sizeof(floods) / sizeof(floods[0]); i++) {
        struct driver *d = driver_new(LISTENER ONE);
        d->servers[0].holds = true;
        driver_start(d);
        struct ticket *t = driver_call(d);
        struct wire *w = driver_wire(d, 0);
        for (unsigned n = 0; n < 100000; n++) {
            wire_frame(w, floods[i].type, 0, i == 2 ? 9 : 0, zeros,
                       floods[i].size);
        }
        driver_pass(d, 10 * MS);
        assert_false(w->open);
        assert_int_equal(t->losses, 1);
        d->servers[0].holds = false;
        driver_pass(d, SECOND);
        assert_true(driver_call(d)->done);
        driver_free(d);
    }
}

static void a_busy_server_is_no_flood(void **state)
{
    (void)state; /* each second 500 PINGs: below the rate */
    static const uint8_t zeros[8] = { 0 };
    struct driver *d = driver_new(LISTENER ONE);
    driver_start(d);
    assert_true(driver_call(d)->done);
    for (unsigned i = 0; i < 60; i++) {
        for (unsigned n = 0; n < 500; n++) {
            wire_frame(driver_wire(d, 0), FRAME_PING, 0, 0, zeros, 8);
            driver_run(d);
        }
        driver_pass(d, SECOND);
    }
    assert_int_equal(d->servers[0].connects, 1);
    driver_free(d);
}

static void output_that_is_stuck_ends_the_connection(void **state) /* FL8 */
{
    (void)state;
    struct driver *d = driver_new(LISTENER ONE);
    driver_start(d);
    assert_true(driver_call(d)->done);
    driver_pass(d, 7 * SECOND);
    struct wire *w = driver_wire(d, 0);
    w->stalled = true;
    uint64_t begun_us = d->now_us;
    struct ticket *t = driver_call(d);
    t->stubborn = false;
    driver_pass(d, 19 * SECOND);
    assert_int_equal(t->losses, 0);
    driver_pass(d, 2 * SECOND);
    assert_int_equal(t->losses, 1);
    assert_int_equal(t->end_us, begun_us + 20 * SECOND);
    driver_free(d);
}

static void end_reasons_are_told(void **state)
{
    (void)state;
    static const struct {
        enum io_error why;
        const char *text;
    } ends[] = { { IO_END, "closed" },
                 { IO_RESET, "reset" },
                 { IO_TIMED_OUT, "timed out" } };
    for (unsigned i = 0; i < 3; i++) {
        struct driver *d = driver_new(LISTENER ONE);
        d->servers[0].holds = true;
        driver_start(d);
        struct ticket *t = driver_call(d);
        wire_end(d, driver_wire(d, 0), ends[i].why);
        assert_string_equal(t->reason, ends[i].text);
        assert_int_equal(d->channel.endpoints[0]->n_streams, 0);
        driver_free(d);
    }
}

/* ---- names ----------------------------------------------------------------- */

static void answer_with(struct driver *d, unsigned n, const unsigned *servers)
{
    static const char *const hosts[] = { "10.0.0.1", "10.0.0.2", "10.0.0.3" };
    d->n_answers = n;
    for (unsigned i = 0; i < n; i++) {
        d->answer[i] = hosts[servers[i]];
        d->answer_port[i] = (uint16_t)(PORT_FIRST + servers[i]);
    }
}

static void endpoints_come_and_go(void **state) /* [conn-06] */
{
    (void)state;
    struct driver *d = driver_new(LISTENER NAMED "lb = round_robin\n");
    answer_with(d, 2, (const unsigned[]){ 0, 1 });
    driver_start(d);
    assert_int_equal(d->channel.n_ready, 2);
    d->servers[1].holds = true;
    struct ticket *t[2] = { driver_call(d), driver_call(d) };
    assert_int_equal(running(t, 2), 1);
    uint32_t number = d->channel.endpoints[0]->number;

    answer_with(d, 2, (const unsigned[]){ 2, 0 });
    driver_pass(d, 31 * SECOND);
    assert_int_equal(d->n_lookups, 2);
    assert_int_equal(d->channel.n_endpoints, 2);
    assert_int_equal(d->servers[0].connects, 1); /* kept */
    assert_int_equal(d->channel.endpoints[1]->number, number);
    assert_int_equal(d->servers[2].connects, 1);  /* added */
    assert_int_equal(driver_open_wires(d, 1), 1); /* drains */
    for (unsigned i = 0; i < 10; i++) {
        assert_true(driver_call(d)->done); /* none goes to the old one */
    }
    wire_answer(driver_wire(d, 1));
    driver_pass(d, 10 * MS);
    assert_int_equal(driver_open_wires(d, 1), 0);
    assert_true(t[0]->done && t[1]->done);
    assert_true(list_empty(&d->channel.leaving));

    d->resolver_fails = true;
    driver_pass(d, 60 * SECOND);
    assert_int_equal(d->channel.n_endpoints, 2); /* the old list is kept */
    d->resolver_fails = false;
    d->n_answers = 0;
    driver_pass(d, 60 * SECOND);
    assert_int_equal(d->channel.n_endpoints, 2); /* as with an empty one */
    assert_int_equal(d->channel.n_ready, 2);
    driver_free(d);
}

static void an_endpoint_that_returns_is_the_same(void **state) /* Y3 */
{
    (void)state;
    struct driver *d = driver_new(LISTENER NAMED "lb = round_robin\n"
                                                 "drain_timeout = 10m\n");
    d->servers[1].holds = true;
    answer_with(d, 2, (const unsigned[]){ 0, 1 });
    driver_start(d);
    struct ticket *t[2] = { driver_call(d), driver_call(d) };
    assert_int_equal(running(t, 2), 1); /* keeps the connection to 1 */
    uint32_t number = d->channel.endpoints[1]->number;
    answer_with(d, 1, (const unsigned[]){ 0 });
    driver_pass(d, 31 * SECOND);
    assert_int_equal(d->channel.n_endpoints, 1);
    assert_int_equal(running(t, 2), 1);
    answer_with(d, 2, (const unsigned[]){ 0, 1 });
    driver_pass(d, 30 * SECOND);
    assert_int_equal(d->channel.n_endpoints, 2);
    assert_int_equal(d->channel.endpoints[1]->number, number);
    assert_int_equal(driver_open_wires(d, 1), 2); /* the old one drains */
    assert_true(list_empty(&d->channel.leaving));
    wire_answer(d->wires[1]);
    driver_pass(d, SECOND);
    assert_true(t[0]->done && t[1]->done);
    assert_int_equal(driver_open_wires(d, 1), 1);
    driver_free(d);
}

static void names_are_asked_for_again_when_all_fail(void **state) /* Y2 */
{
    (void)state;
    struct driver *d = driver_new(LISTENER NAMED "dns_refresh = 1h\n");
    answer_with(d, 2, (const unsigned[]){ 0, 1 });
    d->servers[0].refuses = true;
    d->servers[1].refuses = true;
    driver_start(d);
    struct ticket *t = driver_call(d);
    driver_pass(d, 4 * SECOND);
    assert_int_equal(d->n_lookups, 1); /* dns_min_interval */
    answer_with(d, 1, (const unsigned[]){ 2 });
    driver_pass(d, 2 * SECOND);
    assert_int_equal(d->n_lookups, 2);
    assert_true(t->done);
    driver_free(d);
}

static void a_failure_lasts_until_one_is_ready(void **state) /* Y1 */
{
    (void)state;
    struct driver *d = driver_new(LISTENER NAMED "wait_for_ready = no\n");
    answer_with(d, 1, (const unsigned[]){ 0 });
    d->servers[0].refuses = true;
    driver_start(d);
    assert_true(driver_call(d)->failed);
    answer_with(d, 2, (const unsigned[]){ 0, 1 });
    d->servers[1].black_hole = true; /* has not failed yet */
    driver_pass(d, 31 * SECOND);
    assert_int_equal(d->channel.n_endpoints, 2);
    assert_true(d->servers[1].connects > 0);
    assert_true(driver_call(d)->failed);
    driver_free(d);
}

static void an_upstream_that_was_ready_only_connects(void **state) /* Y1 */
{
    (void)state;
    struct driver *d = driver_new(LISTENER ONE "wait_for_ready = no\n");
    driver_start(d);
    assert_true(driver_call(d)->done);
    driver_pass(d, SECOND);
    d->servers[0].black_hole = true;
    wire_end(d, driver_wire(d, 0), IO_RESET);
    struct ticket *t = driver_call(d);
    driver_pass(d, 4900 * MS);
    assert_true(t->waiting);
    driver_pass(d, 200 * MS);
    assert_true(t->failed);
    driver_free(d);
}

static void lookups_are_paced(void **state) /* Y3 */
{
    (void)state;
    struct driver *d = driver_new(LISTENER NAMED);
    d->resolver_fails = true;
    driver_start(d);
    struct ticket *t = driver_call(d);
    assert_int_equal(d->channel.state, GRPC_CHANNEL_FAILING);
    driver_pass(d, 25 * SECOND);
    for (unsigned i = 1; i < d->n_lookups; i++) {
        uint64_t us = d->lookup_us[i] - d->lookup_us[i - 1];
        assert_in_range(us, 5 * SECOND, 30 * SECOND); /* dns_min_interval */
    }
    assert_in_range(d->n_lookups, 4, 6);
    driver_pass(d, 6 * SECOND);
    assert_true(t->failed);
    assert_string_equal(t->text, "no connection to cluster u within 30s: "
                                 "backend.test:1000: name does not resolve");
    d->resolver_fails = false;
    answer_with(d, 1, (const unsigned[]){ 0 });
    driver_pass(d, 30 * SECOND);
    assert_true(driver_call(d)->done);
    driver_free(d);
}

static void names_are_asked_for_again_when_connections_fail(void **state)
{
    (void)state;
    struct driver *d = driver_new(LISTENER NAMED "dns_refresh = 1h\n");
    answer_with(d, 1, (const unsigned[]){ 0 });
    driver_start(d);
    assert_true(driver_call(d)->done);
    driver_pass(d, 100 * SECOND);
    assert_int_equal(d->n_lookups, 1);
    d->servers[0].refuses = true; /* it has moved */
    answer_with(d, 1, (const unsigned[]){ 1 });
    wire_end(d, driver_wire(d, 0), IO_RESET);
    driver_run(d);
    assert_int_equal(d->n_lookups, 2); /* after a lost connection */
    struct ticket *t = driver_call(d);
    driver_pass(d, 10 * MS);
    assert_true(t->done);
    assert_int_equal(t->port, 1001);
    /* The new one fails: asked again, but not before 5 s. */
    d->servers[1].refuses = true;
    answer_with(d, 1, (const unsigned[]){ 2 });
    wire_end(d, driver_wire(d, 1), IO_RESET);
    t = driver_call(d);
    driver_pass(d, 4 * SECOND);
    assert_int_equal(d->n_lookups, 2);
    driver_pass(d, 2 * SECOND);
    assert_int_equal(d->n_lookups, 3);
    assert_true(t->done);
    driver_free(d);
}

static void a_lookup_that_hangs_is_given_up(void **state)
{
    (void)state;
    struct driver *d = driver_new(LISTENER NAMED);
    d->resolver_hangs = true;
    answer_with(d, 1, (const unsigned[]){ 0 });
    driver_start(d);
    driver_pass(d, 21 * SECOND);
    assert_int_equal(d->channel.state, GRPC_CHANNEL_FAILING);
    d->resolver_hangs = false;
    driver_pass(d, 10 * SECOND);
    assert_true(driver_call(d)->done);
    driver_free(d);
}

static void one_address_is_one_endpoint(void **state)
{
    (void)state;
    struct driver *d =
        driver_new(LISTENER "[upstream u]\ntype = grpc\nlb = round_robin\n"
                            "nodes = 10.0.0.1:1000, backend.test:1000\n");
    answer_with(d, 2, (const unsigned[]){ 0, 1 });
    driver_start(d);
    assert_int_equal(d->channel.n_endpoints, 2);
    assert_int_equal(d->channel.n_ready, 2);
    assert_int_equal(d->servers[0].connects, 1);
    driver_free(d);
}

static void families_take_turns(void **state) /* Y2 */
{
    (void)state;
    struct driver *d = driver_new(LISTENER NAMED);
    static const char *const hosts[] = { "fd00::1", "fd00::2", "fd00::3",
                                         "10.0.0.1" };
    for (unsigned i = 0; i < 4; i++) {
        d->answer[i] = hosts[i];
        d->answer_port[i] = (uint16_t)(PORT_FIRST + i);
    }
    d->n_answers = 4;
    driver_start(d);
    static const unsigned order[] = { 1000, 1003, 1001, 1002 };
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(d->channel.endpoints[i]->address.port, order[i]);
    }
    driver_free(d);
}

/* ---- memory ---------------------------------------------------------------- */

static void credit_is_kept_back_while_memory_is_short(void **state) /* FL3 */
{
    (void)state;
    struct driver *d = driver_new(LISTENER ONE);
    d->servers[0].holds = true;
    driver_start(d);
    (void)driver_call(d);
    struct wire *w = driver_wire(d, 0);
    uint64_t before = w->credit;
    static const uint8_t zeros[16000] = { 0 };
    static const uint8_t head[] = { 0x88 };
    wire_frame(w, FRAME_HEADERS, 4, 1, head, sizeof(head));
    uint64_t high = d->config->process.grpc.memory_high;
    d->engine.grpc.bytes = high + 1;
    for (unsigned i = 0; i < 600; i++) { /* more than half of 16 MiB */
        wire_frame(w, FRAME_DATA, 0, 1, zeros, sizeof(zeros));
        driver_run(d);
    }
    assert_int_equal(w->credit, before);
    assert_int_equal(d->engine.grpc.withheld, 600 * sizeof(zeros));
    d->engine.grpc.bytes = high / 100 * 95;
    grpc_channel_pump_later(&d->engine, &d->channel);
    driver_settle(d);
    driver_run(d);
    assert_int_equal(w->credit, before); /* not at every ebb */
    d->engine.grpc.bytes = high / 10 * 9 - 1;
    grpc_channel_pump_later(&d->engine, &d->channel);
    driver_settle(d);
    driver_run(d);
    assert_int_equal(d->engine.grpc.withheld, 0);
    assert_int_equal(w->credit - before, 600 * sizeof(zeros));
    driver_free(d);
}

/* Every allocation fails once, and then all from the n-th to the 20th behind
 * it; afterwards everything works again. */
static void without_memory_nothing_breaks(void **state)
{
    (void)state;
    for (size_t n = 0; n < 150; n++) {
        struct driver *d = driver_new(LISTENER NAMED "lb = round_robin\n");
        answer_with(d, 2, (const unsigned[]){ 0, 1 });
        assert_true(grpc_channel_init(&d->engine, &d->channel,
                                      &d->config->upstreams[0]));
        d->memory.left = n;
        grpc_channel_start(&d->engine, &d->channel);
        driver_settle(d);
        driver_run(d);
        struct ticket *a = driver_call(d), *b = driver_safe_call(d);
        driver_pass(d, 3 * SECOND);
        d->memory.left = SIZE_MAX;
        driver_pass(d, 20 * SECOND);
        assert_true(a->starts > 0 || a->waiting);
        assert_true(b->starts > 0 || b->waiting);
        driver_pass(d, 20 * SECOND);
        assert_true(driver_call(d)->done);
        driver_free(d);
    }
}

/* ---- the end --------------------------------------------------------------- */

static void at_the_end_every_link_says_goodbye(void **state)
{
    (void)state;
    struct driver *d = driver_new(LISTENER THREE "lb = round_robin\n");
    d->servers[2].black_hole = true;
    driver_start(d);
    assert_true(driver_call(d)->done);
    grpc_channels_shut(&d->engine);
    driver_settle(d);
    driver_run(d);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(driver_open_wires(d, i), 0);
    }
    assert_true(d->wires[0]->said_goodbye && d->wires[1]->said_goodbye);
    driver_pass(d, 100 * SECOND);
    assert_int_equal(d->n_wires, 3); /* nothing is opened any more */
    driver_free(d);
}

static void last_words_are_not_waited_for_long(void **state)
{
    (void)state;
    struct driver *d = driver_new(LISTENER ONE);
    driver_start(d);
    assert_true(driver_call(d)->done);
    driver_wire(d, 0)->stalled = true;
    grpc_channels_shut(&d->engine);
    driver_settle(d);
    driver_run(d);
    assert_int_equal(driver_open_wires(d, 0), 1);
    driver_pass(d, 1001 * MS);
    assert_int_equal(driver_open_wires(d, 0), 0);
    driver_free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_connection_is_opened_when_a_call_wants_it),
        cmocka_unit_test(the_preface_leaves_in_one_write),
        cmocka_unit_test(who_says_no_settings_is_sent_no_call),
        cmocka_unit_test(refused_connections_back_off),
        cmocka_unit_test(closing_before_settings_is_a_failure),
        cmocka_unit_test(settings_reset_the_backoff),
        cmocka_unit_test(
            a_connection_that_does_not_last_is_not_followed_at_once),
        cmocka_unit_test(a_black_hole_is_not_waited_for),
        cmocka_unit_test(pick_first_goes_on_to_the_next_address),
        cmocka_unit_test(all_failed_once_is_a_failure),
        cmocka_unit_test(round_robin_is_fair),
        cmocka_unit_test(unsent_calls_of_a_lost_connection_go_elsewhere),
        cmocka_unit_test(a_retry_keeps_off_the_endpoint_that_failed),
        cmocka_unit_test(a_retry_keeps_off_it_also_when_it_is_its_turn),
        cmocka_unit_test(the_endpoint_that_failed_is_better_than_none),
        cmocka_unit_test(least_request_spares_the_slow_one),
        cmocka_unit_test(waiting_ends_in_time),
        cmocka_unit_test(who_does_not_wait_fails_with_the_upstream),
        cmocka_unit_test(the_line_is_in_order_and_not_endless),
        cmocka_unit_test(
            where_none_may_wait_a_connection_is_opened_all_the_same),
        cmocka_unit_test(streams_are_limited_by_the_peer),
        cmocka_unit_test(streams_are_limited_by_the_configuration),
        cmocka_unit_test(a_cancelled_stream_stays_taken_until_it_is_closed),
        cmocka_unit_test(a_slot_is_free_also_when_nothing_is_written),
        cmocka_unit_test(calls_do_not_queue_behind_much_output),
        cmocka_unit_test(high_stream_ids_bring_a_new_connection),
        cmocka_unit_test(a_replacement_that_cannot_be_made_ends_nothing),
        cmocka_unit_test(connections_grow_old),
        cmocka_unit_test(a_silent_peer_is_given_up),
        cmocka_unit_test(pings_are_answered_and_nothing_happens),
        cmocka_unit_test(without_calls_there_is_no_ping),
        cmocka_unit_test(an_overdue_ping_precedes_the_call),
        cmocka_unit_test(too_many_pings_double_the_interval),
        cmocka_unit_test(a_quiet_connection_is_probed_first),
        cmocka_unit_test(a_call_is_not_given_to_a_dead_peer),
        cmocka_unit_test(a_safe_call_need_not_wait_for_the_probe),
        cmocka_unit_test(a_probe_does_not_end_older_calls),
        cmocka_unit_test(a_suspect_is_replaced_before_a_call_waits),
        cmocka_unit_test(pick_first_stays_with_whom_it_chose),
        cmocka_unit_test(thirty_probes_are_thirty_periods),
        cmocka_unit_test(a_hung_endpoint_is_set_aside),
        cmocka_unit_test(a_hung_endpoint_is_set_aside_by_the_probe),
        cmocka_unit_test(a_goaway_is_followed_by_a_new_connection),
        cmocka_unit_test(a_goaway_in_two_steps),
        cmocka_unit_test(what_does_not_end_is_cut),
        cmocka_unit_test(goaway_and_end_in_one_segment),
        cmocka_unit_test(a_goaway_of_a_quiet_connection_is_replaced_too),
        cmocka_unit_test(settings_must_be_acknowledged),
        cmocka_unit_test(an_unused_connection_is_closed),
        cmocka_unit_test(a_push_promise_ends_the_connection),
        cmocka_unit_test(what_has_not_left_does_not_leave_with_the_last_words),
        cmocka_unit_test(a_flood_of_frames_ends_the_connection),
        cmocka_unit_test(a_busy_server_is_no_flood),
        cmocka_unit_test(output_that_is_stuck_ends_the_connection),
        cmocka_unit_test(end_reasons_are_told),
        cmocka_unit_test(endpoints_come_and_go),
        cmocka_unit_test(an_endpoint_that_returns_is_the_same),
        cmocka_unit_test(names_are_asked_for_again_when_all_fail),
        cmocka_unit_test(a_failure_lasts_until_one_is_ready),
        cmocka_unit_test(an_upstream_that_was_ready_only_connects),
        cmocka_unit_test(lookups_are_paced),
        cmocka_unit_test(names_are_asked_for_again_when_connections_fail),
        cmocka_unit_test(a_lookup_that_hangs_is_given_up),
        cmocka_unit_test(one_address_is_one_endpoint),
        cmocka_unit_test(families_take_turns),
        cmocka_unit_test(credit_is_kept_back_while_memory_is_short),
        cmocka_unit_test(without_memory_nothing_breaks),
        cmocka_unit_test(at_the_end_every_link_says_goodbye),
        cmocka_unit_test(last_words_are_not_waited_for_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
