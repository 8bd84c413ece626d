/* When connections to gRPC endpoints are opened, which call goes where, and who
 * waits (grpc.md §1.14, §3.1, §3.2). The names in brackets are those of the
 * conformance tests in grpc.md §7. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "channel_driver.h"

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

/* A call that comes in the middle of a long backoff does not wait for its end:
 * the endpoint may be back. Where connecting takes time, it does. */
static void waiting_calls_shorten_the_backoff(void **state)
{
    (void)state;
    struct driver *d = driver_new(LISTENER ONE "lb = round_robin\n");
    d->servers[0].refuses = true;
    driver_start(d);
    driver_pass(d, 30 * SECOND);
    d->servers[0].refuses = false;
    struct ticket *t = driver_call(d);
    driver_pass(d, 240 * MS);
    assert_true(t->done);
    driver_free(d);

    d = driver_new(LISTENER ONE "lb = round_robin\n");
    d->servers[0].closes = true; /* it takes connections, so it is there */
    driver_start(d);
    t = driver_call(d);
    driver_pass(d, 30 * SECOND);
    check_pace(&d->servers[0], 200e3, 5e6, 1.6, 0.2);
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
    for (unsigned i = 0; i < 3; i++) { /* a call waits: no growing gaps */
        assert_in_range(d->servers[i].connects, 20, 32);
        check_pace(&d->servers[i], 200e3, 200e3, 1, 0.2);
    }
    d->servers[1].refuses = false;
    driver_pass(d, 240 * MS);
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
    assert_int_equal(driver_running(t, 10), 4);
    wire_settings(driver_wire(d, 0), 3); /* later raised */
    driver_run(d);
    assert_int_equal(driver_running(t, 10), 6);
    for (unsigned i = 0; i < d->n_wires; i++) {
        wire_settings(d->wires[i], 0); /* full, not broken */
        wire_answer(d->wires[i]);
    }
    driver_pass(d, SECOND);
    assert_int_equal(driver_running(t, 10), 0);
    assert_int_equal(driver_open_wires(d, 0), 4);
    wire_settings(driver_wire(d, 0), 100);
    driver_run(d);
    assert_int_equal(driver_running(t, 10), 4);
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
    assert_int_equal(driver_running(t, 20), 10);
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
        cmocka_unit_test(waiting_calls_shorten_the_backoff),
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
