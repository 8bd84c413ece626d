/* Names of gRPC endpoints: when they are asked for, and what becomes of the
 * endpoints (grpc.md Y1 to Y3). The names in brackets are those of the
 * conformance tests in grpc.md §7. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "channel_driver.h"

static void endpoints_come_and_go(void **state) /* [conn-06] */
{
    (void)state;
    struct driver *d = driver_new(LISTENER NAMED "lb = round_robin\n");
    driver_resolve(d, 2, (const unsigned[]){ 0, 1 });
    driver_start(d);
    assert_int_equal(d->channel.n_ready, 2);
    d->servers[1].holds = true;
    struct ticket *t[2] = { driver_call(d), driver_call(d) };
    assert_int_equal(driver_running(t, 2), 1);
    uint32_t number = d->channel.endpoints[0]->number;

    driver_resolve(d, 2, (const unsigned[]){ 2, 0 });
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
    driver_resolve(d, 2, (const unsigned[]){ 0, 1 });
    driver_start(d);
    struct ticket *t[2] = { driver_call(d), driver_call(d) };
    assert_int_equal(driver_running(t, 2), 1); /* keeps the connection to 1 */
    uint32_t number = d->channel.endpoints[1]->number;
    driver_resolve(d, 1, (const unsigned[]){ 0 });
    driver_pass(d, 31 * SECOND);
    assert_int_equal(d->channel.n_endpoints, 1);
    assert_int_equal(driver_running(t, 2), 1);
    driver_resolve(d, 2, (const unsigned[]){ 0, 1 });
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
    driver_resolve(d, 2, (const unsigned[]){ 0, 1 });
    d->servers[0].refuses = true;
    d->servers[1].refuses = true;
    driver_start(d);
    struct ticket *t = driver_call(d);
    driver_pass(d, 4 * SECOND);
    assert_int_equal(d->n_lookups, 1); /* dns_min_interval */
    driver_resolve(d, 1, (const unsigned[]){ 2 });
    driver_pass(d, 2 * SECOND);
    assert_int_equal(d->n_lookups, 2);
    assert_true(t->done);
    driver_free(d);
}

static void a_failure_lasts_until_one_is_ready(void **state) /* Y1 */
{
    (void)state;
    struct driver *d = driver_new(LISTENER NAMED "wait_for_ready = no\n");
    driver_resolve(d, 1, (const unsigned[]){ 0 });
    d->servers[0].refuses = true;
    driver_start(d);
    assert_true(driver_call(d)->failed);
    driver_resolve(d, 2, (const unsigned[]){ 0, 1 });
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
    driver_resolve(d, 1, (const unsigned[]){ 0 });
    driver_pass(d, 30 * SECOND);
    assert_true(driver_call(d)->done);
    driver_free(d);
}

static void names_are_asked_for_again_when_connections_fail(void **state)
{
    (void)state;
    struct driver *d = driver_new(LISTENER NAMED "dns_refresh = 1h\n");
    driver_resolve(d, 1, (const unsigned[]){ 0 });
    driver_start(d);
    assert_true(driver_call(d)->done);
    driver_pass(d, 100 * SECOND);
    assert_int_equal(d->n_lookups, 1);
    d->servers[0].refuses = true; /* it has moved */
    driver_resolve(d, 1, (const unsigned[]){ 1 });
    wire_end(d, driver_wire(d, 0), IO_RESET);
    driver_run(d);
    assert_int_equal(d->n_lookups, 2); /* after a lost connection */
    struct ticket *t = driver_call(d);
    driver_pass(d, 10 * MS);
    assert_true(t->done);
    assert_int_equal(t->port, 1001);
    /* The new one fails: asked again, but not before 5 s. */
    d->servers[1].refuses = true;
    driver_resolve(d, 1, (const unsigned[]){ 2 });
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
    driver_resolve(d, 1, (const unsigned[]){ 0 });
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
    driver_resolve(d, 2, (const unsigned[]){ 0, 1 });
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

int main(void)
{
    const struct CMUnitTest tests[] = {
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
