/* How connections to gRPC endpoints are watched, drained and given up (grpc.md
 * §3.1, §3.3, §3.4, §5.5). The names in brackets are those of the conformance
 * tests in grpc.md §7. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "channel_driver.h"

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
    assert_true(wire_place(w, FRAME_PING, before) <
                wire_place(w, FRAME_HEADERS, before));
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
    assert_true(wire_place(w, FRAME_PING, before) <
                wire_place(w, FRAME_HEADERS, before));
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
    assert_int_equal(driver_running(old, 2), 1);
    d->servers[0].frozen = true;
    driver_pass(d, 11 * SECOND);
    for (unsigned i = 0; i < 100; i++) {
        assert_true(driver_call(d)->done); /* the other answers its probe */
        driver_pass(d, 100 * MS);
    }
    assert_int_equal(d->channel.stats.probes_failed, 1);
    assert_int_equal(driver_running(old, 2),
                     1); /* it is K1 that would end it */
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
        driver_pass(d, 29 * MINUTE);
        assert_int_equal(driver_open_wires(d, 0), 1);
        driver_pass(d, 2 * MINUTE);
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

static void what_is_not_http2_is_a_failure(void **state) /* U5 */
{
    (void)state;
    static const struct {
        const char *bytes, *text;
    } replies[] = {
        { "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
          "127.0.0.1:1000: the endpoint speaks HTTP/1, not HTTP/2" },
        { "\x15\x03\x03\x01\x02\x02\x46", /* much as an alert */
          "127.0.0.1:1000: the endpoint speaks TLS" },
        { "+PONG\r\n+PONG\r\n",
          "127.0.0.1:1000: the endpoint does not speak HTTP/2" },
    };
    for (unsigned i = 0; i < sizeof(replies) / sizeof(replies[0]); i++) {
        struct driver *d = driver_new(LISTENER ONE);
        d->servers[0].mute = true;
        driver_start(d);
        struct ticket *t = driver_call(d);
        bytes_add_text(&driver_wire(d, 0)->out, replies[i].bytes);
        driver_run(d);
        assert_int_equal(d->n_ready, 0);
        assert_true(d->channel.stats.connections_failed > 0);
        assert_string_equal(d->channel.last_error, replies[i].text);
        assert_int_equal(t->starts, 0);
        driver_free(d);
    }
}

static void a_broken_connection_is_not_kept_for_the_next_call(void **state)
{
    (void)state;
    struct driver *d = driver_new(LISTENER ONE);
    driver_start(d);
    assert_true(driver_call(d)->done);
    driver_pass(d, SECOND);
    struct wire *w = driver_wire(d, 0);
    wire_frame(w, FRAME_DATA, 0, 0, "x", 1); /* of no stream */
    driver_pass(d, 10 * MS);
    assert_false(w->open);
    assert_int_equal(w->goaway_code, H2_PROTOCOL_ERROR);
    struct ticket *t = driver_call(d);
    assert_true(t->done);
    assert_int_equal(t->starts, 1);
    driver_free(d);
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
    assert_int_equal(d->engine.grpc.withheld, UINT64_C(600) * sizeof(zeros));
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
    assert_int_equal(w->credit - before, UINT64_C(600) * sizeof(zeros));
    driver_free(d);
}

/* Every allocation fails once, and then all from the n-th to the 20th behind
 * it; afterwards everything works again. */
static void without_memory_nothing_breaks(void **state)
{
    (void)state;
    for (size_t n = 0; n < 150; n++) {
        struct driver *d = driver_new(LISTENER NAMED "lb = round_robin\n");
        driver_resolve(d, 2, (const unsigned[]){ 0, 1 });
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
        cmocka_unit_test(what_is_not_http2_is_a_failure),
        cmocka_unit_test(a_broken_connection_is_not_kept_for_the_next_call),
        cmocka_unit_test(a_push_promise_ends_the_connection),
        cmocka_unit_test(what_has_not_left_does_not_leave_with_the_last_words),
        cmocka_unit_test(a_flood_of_frames_ends_the_connection),
        cmocka_unit_test(a_busy_server_is_no_flood),
        cmocka_unit_test(output_that_is_stuck_ends_the_connection),
        cmocka_unit_test(end_reasons_are_told),
        cmocka_unit_test(credit_is_kept_back_while_memory_is_short),
        cmocka_unit_test(without_memory_nothing_breaks),
        cmocka_unit_test(at_the_end_every_link_says_goodbye),
        cmocka_unit_test(last_words_are_not_waited_for_long),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
