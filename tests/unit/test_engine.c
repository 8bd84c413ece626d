/* The engine without memory: in each conversation each allocation fails once,
 * and each allocation with all behind it. Whatever fails: nothing crashes and
 * nothing leaks; replies come in their order, are right, and say the truth
 * about what was executed; clients are at most closed. When there is memory
 * again, whoever is still connected is answered, and a new client is served.
 *
 * How it fails when the core is broken on purpose (each was tried):
 *
 * - a reply of another, or none: a scanner left in the middle of a command; a
 *   session copied without its user; lanes shared over databases; half a
 *   handshake taken for a whole one; part of a request, of a reply or of a
 *   stream dropped without a word; a request answered before its turn.
 * - an unanswered client: a session change that is neither made nor dropped; a
 *   request given up without an answer; a client forgotten when its lane is
 *   lost.
 * - a second execution: replays that are not judged for lack of memory.
 * - a leak, found by the counting allocator or by the core's own assertions: a
 *   request, an inline command, an address list not given back.
 * - an assertion: half of a large request sent.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine_driver.h"

enum {
    SETS_MAX = 6,
    ALLOCATIONS_MIN = 10, /* fewer, and nothing was played */
    ALLOCATIONS_MAX = 2000,
    CLIENTS_MANY = 20, /* more than the engine's tables begin with */
};

static const uint64_t second_us = 1000000;

/* ---- conversations ---------------------------------------------------------- */

static void a_client_gets_a_value(struct driver *d)
{
    struct peer *c = driver_client(d);
    driver_say(d, c, "GET a");
    driver_run(d);
}

static void a_pipeline_arrives_in_pieces(struct driver *d)
{
    struct peer *c = driver_client(d);
    struct peer *other = driver_client(d);
    d->slice = 7;
    driver_say(d, c, "GET a1");
    driver_say(d, c, "INCR a2");
    driver_say(d, c, "SET a3 v");
    driver_say(d, c, "GET a4");
    driver_say(d, other, "ECHO b1");
    driver_say(d, other, "GET b2");
    driver_run(d);
}

static void a_client_types(struct driver *d)
{
    struct peer *c = driver_client(d);
    d->slice = 5;
    driver_type(d, c, "GET a1");
    driver_type(d, c, "SET a2 v");
    driver_say(d, c, "GET a3");
    driver_run(d);
}

static void a_client_types_nonsense(struct driver *d)
{
    struct peer *c = driver_client(d);
    d->slice = 4;
    driver_type(d, c, "GET a1");
    driver_type(d, c, "");
    driver_type(d, c, "\"GET a2");
    driver_run(d);
}

static void a_client_is_read_no_further(struct driver *d)
{
    struct peer *c = driver_client(d);
    d->slow = true;
    d->blocks = true;
    driver_say(d, c, "GET a1");
    driver_say(d, c, "GET large2");
    driver_say(d, c, "INCR a3");
    driver_say(d, c, "GET a4");
    driver_say(d, c, "GET large5");
    driver_say(d, c, "GET a6");
    driver_run(d);
    d->slow = false;
    driver_run(d);
}

static void a_client_resets(struct driver *d)
{
    struct peer *c = driver_client(d);
    driver_say(d, c, "SELECT 4");
    driver_say(d, c, "WATCH w");
    driver_say(d, c, "GET a1");
    driver_say(d, c, "RESET");
    driver_say(d, c, "GET a2");
    driver_run(d);
}

static void many_clients_come(struct driver *d)
{
    struct peer *clients[CLIENTS_MANY];
    for (size_t i = 0; i < CLIENTS_MANY; i++) {
        char words[] = { 'G', 'E', 'T', ' ', (char)('a' + i), '\0' };
        clients[i] = driver_client(d);
        driver_say(d, clients[i], words);
    }
    driver_run(d);
    for (size_t i = 0; i < CLIENTS_MANY; i += 2) {
        driver_leave(d, clients[i]);
    }
    driver_run(d);
}

static void clients_spread_over_lanes(struct driver *d)
{
    struct peer *a = driver_client(d);
    struct peer *b = driver_client(d);
    struct peer *c = driver_client(d);
    driver_say(d, a, "GET a1");
    driver_say(d, b, "GET b1");
    driver_say(d, c, "SELECT 1");
    driver_say(d, c, "GET c1");
    driver_run(d);
    driver_leave(d, b);
    driver_cut(d, IO_RESET);
    driver_say(d, a, "GET a2");
    driver_say(d, c, "GET c2");
    driver_pass(d, second_us);
}

static void a_client_selects_databases(struct driver *d)
{
    struct peer *c = driver_client(d);
    driver_say(d, c, "SELECT 1");
    driver_say(d, c, "GET a1");
    driver_run(d);
    driver_say(d, c, "SELECT 2");
    driver_say(d, c, "GET a2");
    driver_say(d, c, "SELECT 1");
    driver_say(d, c, "GET a3");
    driver_run(d);
}

static void a_database_is_refused(struct driver *d)
{
    struct peer *c = driver_client(d);
    driver_say(d, c, "SELECT 1");
    driver_run(d);
    d->refuse_session = 1;
    driver_say(d, c, "SELECT 2");
    driver_say(d, c, "GET a1");
    driver_run(d);
}

static void a_client_authenticates(struct driver *d)
{
    struct peer *c = driver_client(d);
    driver_say(d, c, "AUTH anna secret");
    driver_say(d, c, "GET a1");
    driver_run(d);
    d->refuse_session = 1;
    driver_say(d, c, "AUTH bert wrong");
    driver_say(d, c, "GET a2");
    driver_run(d);
}

static void a_password_is_checked_here(struct driver *d)
{
    struct peer *c = driver_client(d);
    driver_say(d, c, "AUTH wrong");
    driver_run(d);
    driver_say(d, c, "AUTH secret");
    driver_say(d, c, "GET a1");
    driver_run(d);
}

static void a_session_changes_on_a_lane_of_its_own(struct driver *d)
{
    struct peer *c = driver_client(d);
    driver_say(d, c, "WATCH w");
    driver_say(d, c, "CLIENT SETNAME app");
    driver_say(d, c, "AUTH anna secret");
    driver_say(d, c, "GET a1");
    driver_run(d);
    d->refuse_session = 1;
    driver_say(d, c, "SELECT 5");
    driver_say(d, c, "GET a2");
    driver_say(d, c, "HELLO 3");
    driver_say(d, c, "GET a3");
    driver_run(d);
}

static void an_authenticated_client_moves(struct driver *d)
{
    struct peer *c = driver_client(d);
    driver_say(d, c, "AUTH anna secret");
    driver_say(d, c, "CLIENT SETNAME app");
    driver_say(d, c, "SELECT 2");
    driver_say(d, c, "GET a1");
    driver_say(d, c, "WATCH w");
    driver_say(d, c, "GET a2");
    driver_say(d, c, "SELECT 3");
    driver_say(d, c, "GET a3");
    driver_run(d);
    driver_cut(d, IO_RESET);
    driver_say(d, c, "GET a4");
    driver_pass(d, second_us);
}

static void a_client_says_hello(struct driver *d)
{
    struct peer *c = driver_client(d);
    driver_say(d, c, "HELLO 3");
    driver_say(d, c, "CLIENT SETNAME app");
    driver_say(d, c, "CLIENT SETINFO LIB-NAME lib");
    driver_say(d, c, "GET a1");
    driver_run(d);
    driver_say(d, c, "HELLO 2");
    driver_say(d, c, "GET a2");
    driver_run(d);
}

static void a_transaction_runs(struct driver *d)
{
    struct peer *c = driver_client(d);
    driver_say(d, c, "WATCH w");
    driver_say(d, c, "MULTI");
    driver_say(d, c, "INCR a1");
    driver_say(d, c, "GET a2");
    driver_say(d, c, "EXEC");
    driver_say(d, c, "GET a3");
    driver_run(d);
}

static void a_transaction_is_broken_here(struct driver *d)
{
    struct peer *c = driver_client(d);
    driver_say(d, c, "MULTI");
    driver_say(d, c, "INCR a1");
    driver_say(d, c, "SUBSCRIBE news");
    driver_say(d, c, "INCR a2");
    driver_say(d, c, "EXEC");
    driver_say(d, c, "GET a3");
    driver_run(d);
}

static void a_transaction_loses_its_lane(struct driver *d)
{
    struct peer *c = driver_client(d);
    driver_say(d, c, "MULTI");
    driver_say(d, c, "INCR a1");
    driver_run(d);
    d->mute = true;
    driver_say(d, c, "INCR a2");
    driver_run(d);
    driver_cut(d, IO_RESET);
    d->mute = false;
    driver_say(d, c, "EXEC");
    driver_say(d, c, "GET a3");
    driver_pass(d, second_us);
}

static void a_block_is_replayed(struct driver *d)
{
    struct peer *c = driver_client(d);
    driver_say(d, c, "MULTI");
    driver_say(d, c, "SET a1 v");
    driver_run(d);
    d->mute = true;
    driver_say(d, c, "SET a2 v");
    driver_say(d, c, "EXEC");
    driver_say(d, c, "multi"); /* another word than the first */
    driver_say(d, c, "INCR a3");
    driver_say(d, c, "exec");
    driver_run(d);
    driver_cut(d, IO_RESET);
    d->mute = false;
    driver_pass(d, second_us);
}

static void a_watch_is_lost(struct driver *d)
{
    struct peer *c = driver_client(d);
    driver_say(d, c, "WATCH w");
    driver_run(d);
    driver_cut(d, IO_RESET);
    driver_pass(d, second_us);
    driver_say(d, c, "MULTI");
    driver_say(d, c, "INCR a1");
    driver_run(d);
    driver_cut(d, IO_RESET);
    driver_say(d, c, "EXEC");
    driver_say(d, c, "GET a2");
    driver_pass(d, second_us);
}

static void a_block_is_refused_for_now(struct driver *d)
{
    struct peer *c = driver_client(d);
    driver_say(d, c, "MULTI");
    driver_say(d, c, "SET a1 v");
    driver_run(d);
    d->refuse = 1;
    driver_say(d, c, "SET a2 v");
    driver_say(d, c, "EXEC");
    driver_pass(d, second_us);
}

static void a_client_subscribes(struct driver *d)
{
    struct peer *c = driver_client(d);
    driver_say(d, c, "GET a1");
    driver_say(d, c, "SUBSCRIBE news weather");
    driver_run(d);
    driver_cut(d, IO_END);
    driver_run(d);
    driver_say(d, c, "UNSUBSCRIBE news");
    driver_say(d, c, "UNSUBSCRIBE");
    driver_say(d, c, "GET a2");
    driver_run(d);
}

static void a_subscription_is_lost_in_flight(struct driver *d)
{
    struct peer *c = driver_client(d);
    driver_say(d, c, "HELLO 3");
    driver_say(d, c, "SUBSCRIBE news");
    driver_run(d);
    d->mute = true;
    driver_say(d, c, "SUBSCRIBE weather sport");
    driver_say(d, c, "GET a1");
    driver_run(d);
    driver_cut(d, IO_RESET);
    d->mute = false;
    driver_pass(d, second_us);
    driver_say(d, c, "RESET");
    driver_say(d, c, "GET a2");
    driver_run(d);
}

static void a_large_request_is_streamed(struct driver *d)
{
    struct peer *c = driver_client(d);
    d->slice = 5000;
    driver_say(d, c, "GET a1");
    driver_say_large(d, c, "SET a2", 60000);
    driver_say(d, c, "GET a3");
    driver_run(d);
}

static void a_large_request_begins_alone(struct driver *d)
{
    struct peer *c = driver_client(d);
    d->slice = 3000;
    driver_say_large(d, c, "SET a1", 20000);
    driver_say(d, c, "GET a2");
    driver_run(d);
}

static void a_large_request_is_replayed(struct driver *d)
{
    struct peer *c = driver_client(d);
    d->slice = 20000;
    d->spare = 1;
    d->mute = true;
    driver_say_large(d, c, "SET a1", 60000);
    driver_say(d, c, "GET a2");
    driver_run(d);
    driver_cut(d, IO_RESET);
    d->mute = false;
    driver_say_large(d, c, "SET a3", 60000);
    driver_say(d, c, "GET a4");
    driver_pass(d, second_us);
}

static void a_large_reply_is_streamed(struct driver *d)
{
    struct peer *c = driver_client(d);
    d->slice = 5000;
    driver_say(d, c, "GET large1");
    driver_say(d, c, "GET a2");
    driver_say(d, c, "GET large3");
    d->slow = true;
    driver_run(d);
    d->slow = false;
    driver_run(d);
    d->slice = 0;
    driver_say(d, c, "GET a4");
    driver_run(d);
}

static void a_lost_lane_is_replayed(struct driver *d)
{
    struct peer *c = driver_client(d);
    struct peer *other = driver_client(d);
    d->mute = true;
    driver_say(d, c, "GET a1");
    driver_say(d, c, "SET a2 v");
    driver_say(d, c, "INCR a3");
    driver_say(d, c, "SET a3 v");
    driver_say(d, other, "GET b1");
    driver_say(d, other, "INCR b2");
    driver_run(d);
    d->deaf = true;
    driver_say(d, c, "INCR a4");
    driver_run(d);
    driver_cut(d, IO_RESET);
    d->deaf = false;
    d->mute = false;
    driver_pass(d, second_us);
}

static void a_blocked_read_waits_on(struct driver *d)
{
    struct peer *c = driver_client(d);
    d->waits = true;
    driver_say(d, c, "XREAD BLOCK 5000 STREAMS s t $ $");
    driver_pass(d, second_us);
    driver_cut(d, IO_RESET);
    driver_pass(d, second_us);
    driver_cut(d, IO_RESET);
    d->waits = false;
    driver_pass(d, second_us);
}

static void many_streams_are_read(struct driver *d)
{
    struct peer *c = driver_client(d);
    struct bytes words = { 0 };
    bytes_add_text(&words, "XREAD BLOCK 500 STREAMS");
    for (unsigned i = 0; i < 80; i++) { /* more than are looked at elsewhere */
        bytes_add_text(&words, i < 40 ? " s" : i < 42 ? " $" : " 0");
    }
    bytes_add(&words, (const uint8_t *)"", 1);
    d->waits = true;
    driver_say(d, c, (const char *)bytes_front(&words));
    driver_run(d);
    driver_cut(d, IO_RESET);
    d->waits = false;
    driver_pass(d, second_us);
    bytes_fini(&words);
}

static void a_blocked_read_has_no_server(struct driver *d)
{
    struct peer *c = driver_client(d);
    d->waits = true;
    driver_say(d, c, "XREAD BLOCK 300 STREAMS s 5-1");
    driver_run(d);
    d->down = true;
    driver_cut(d, IO_RESET);
    driver_pass(d, second_us);
    d->down = false;
    d->waits = false;
    driver_pass(d, second_us);
}

static void a_client_waits_for_replicas(struct driver *d)
{
    struct peer *c = driver_client(d);
    driver_say(d, c, "SET a1 v");
    driver_say(d, c, "WAIT 1 100");
    driver_say(d, c, "GET a2");
    driver_pass(d, second_us);
    driver_cut(d, IO_RESET);
    driver_say(d, c, "WAIT 1 200"); /* refused */
    driver_pass(d, second_us);
}

static void a_cache_is_flushed(struct driver *d)
{
    struct peer *c = driver_client(d);
    driver_say(d, c, "HELLO 3");
    driver_say(d, c, "CLIENT TRACKING ON OPTIN");
    driver_say(d, c, "CLIENT CACHING YES");
    driver_run(d);
    driver_cut(d, IO_RESET);
    driver_say(d, c, "GET a1");
    driver_pass(d, second_us);
    driver_say(d, c, "GET a2");
    driver_run(d);
}

static void a_cache_is_told_by_another(struct driver *d)
{
    struct peer *told = driver_client(d);
    driver_say(d, told, "HELLO 3");
    driver_say(d, told, "CLIENT ID");
    driver_run(d);
    struct peer *c = driver_client(d);
    driver_say(d, c, "CLIENT TRACKING ON REDIRECT 3");
    driver_say(d, c, "GET a1");
    driver_run(d);
    driver_cut(d, IO_RESET);
    driver_pass(d, second_us);
    driver_say(d, c, "CLIENT TRACKING ON NOLOOP REDIRECT 3");
    driver_say(d, c, "GET a2");
    driver_pass(d, second_us);
}

static void a_hung_server_is_fenced_off(struct driver *d)
{
    struct peer *c = driver_client(d);
    driver_say(d, c, "GET a1");
    driver_run(d);
    d->mute = true;
    driver_say(d, c, "SET a2 v");
    driver_say(d, c, "INCR a3");
    driver_run(d);
    driver_cut(d, IO_TIMED_OUT);
    d->mute = false;
    driver_pass(d, second_us);
}

static void a_reply_takes_too_long(struct driver *d)
{
    struct peer *c = driver_client(d);
    d->mute = true;
    driver_say(d, c, "GET a1");
    driver_say(d, c, "INCR a2");
    driver_say(d, c, "BLPOP q 0");
    driver_say(d, c, "GET a3");
    driver_pass(d, second_us);
    d->mute = false;
    driver_pass(d, second_us);
}

static void an_idle_server_is_dead(struct driver *d)
{
    struct peer *c = driver_client(d);
    driver_say(d, c, "GET a1");
    driver_run(d);
    d->mute = true;
    driver_pass(d, 3 * second_us);
    d->mute = false;
    driver_say(d, c, "GET a2");
    driver_pass(d, second_us);
}

static void a_loading_server_is_asked_again(struct driver *d)
{
    struct peer *c = driver_client(d);
    d->refuse = 3;
    driver_say(d, c, "SET a1 v");
    driver_say(d, c, "INCR a2");
    driver_say(d, c, "GET a3");
    driver_say(d, c, "INCR a1");
    driver_run(d);
    driver_say(d, c, "GET a4");
    driver_pass(d, second_us);
}

/* SHA1 of "return(1)". */
#define EVALSHA "EVALSHA 930269f31393d0be681588b6ab08dccee7d6bb67 1 "

static void a_server_loses_its_script(struct driver *d)
{
    struct peer *c = driver_client(d);
    struct peer *other = driver_client(d);
    driver_say(d, c, "SCRIPT LOAD return(1)");
    driver_say(d, c, EVALSHA "a1");
    driver_run(d);
    d->knows_script = false;
    driver_say(d, c, EVALSHA "a2");
    driver_say(d, c, EVALSHA "a3");
    driver_say(d, c, "GET a4");
    driver_say(d, other, EVALSHA "b1");
    driver_run(d);
    d->knows_script = false;
    driver_cut(d, IO_RESET);
    driver_say(d, c, EVALSHA "a5");
    driver_say(d, other, "SCRIPT KILL");
    driver_pass(d, second_us);
    driver_say(d, other, "EVAL return(2) 1 b2");
    driver_say(d, other, "SCRIPT FLUSH");
    driver_pass(d, second_us);
}

static void functions_are_called(struct driver *d)
{
    struct peer *c = driver_client(d);
    driver_say(d, c, "FCALL reads 1 a1");
    driver_run(d);
    driver_say(d, c, "FCALL writes 1 a2");
    driver_say(d, c, "FCALL writes 1 a3");
    driver_run(d);
    d->mute = true;
    driver_say(d, c, "FCALL writes 1 a4");
    driver_run(d);
    d->mute = false;
    driver_cut(d, IO_RESET);
    driver_pass(d, second_us);
}

static void requests_wait_for_a_server(struct driver *d)
{
    d->down = true;
    driver_cut(d, IO_RESET);
    struct peer *c = driver_client(d);
    d->blocks = true;
    driver_say(d, c, "GET a1");
    driver_say(d, c, "INCR a2");
    driver_pass(d, second_us);
    d->down = false;
    driver_pass(d, second_us);
}

static void requests_wait_too_long(struct driver *d)
{
    d->down = true;
    driver_cut(d, IO_RESET);
    struct peer *c = driver_client(d);
    driver_say(d, c, "SELECT 3");
    driver_say(d, c, "INCR a2");
    driver_pass(d, 20 * second_us);
    driver_say(d, c, "MULTI");
    driver_say(d, c, "INCR a3");
    driver_say(d, c, "EXEC");
    driver_pass(d, 20 * second_us);
    d->down = false;
}

static void a_client_quits(struct driver *d)
{
    struct peer *c = driver_client(d);
    driver_say(d, c, "GET a1");
    driver_say(d, c, "QUIT");
    driver_run(d);
    struct peer *other = driver_client(d);
    driver_say(d, other, "SELECT 2");
    driver_say(d, other, "GET b1");
    driver_run(d);
    driver_say(d, other, "GET b2");
    driver_leave(d, other);
    driver_run(d);
}

static void a_half_closed_client_loses_its_own_lane(struct driver *d)
{
    struct peer *c = driver_client(d);
    driver_say(d, c, "WATCH w");
    driver_run(d);
    d->mute = true;
    driver_say(d, c, "GET a1");
    driver_run(d);
    driver_end(d, c);
    driver_cut(d, IO_RESET);
    d->mute = false;
    driver_run(d);
}

static void the_engine_drains(struct driver *d)
{
    struct peer *c = driver_client(d);
    struct peer *other = driver_client(d);
    driver_say(d, c, "GET a1");
    driver_say(d, other, "MULTI");
    driver_run(d);
    d->mute = true;
    driver_say(d, c, "INCR a2");
    driver_say(d, c, "GET a3");
    driver_say(d, other, "INCR b1");
    driver_run(d);
    driver_drain(d);
    driver_pass(d, second_us);
    driver_drain(d);
    driver_run(d);
    d->mute = false;
}

static void sentinels_name_a_primary(struct driver *d)
{
    struct peer *c = driver_client(d);
    driver_say(d, c, "SET a1 v");
    driver_pass(d, second_us);
    driver_say(d, c, "GET a2");
    driver_pass(d, second_us);
}

static void sentinels_name_another_primary(struct driver *d)
{
    struct peer *c = driver_client(d);
    struct peer *other = driver_client(d);
    driver_say(d, c, "GET a1");
    driver_say(d, other, "WATCH w");
    driver_pass(d, second_us);
    d->switched = true;
    driver_say(d, c, "INCR a2");
    driver_cut(d, IO_RESET);
    driver_say(d, c, "SET a3 v");
    driver_say(d, other, "GET b2");
    driver_pass(d, 2 * second_us);
    driver_say(d, c, "GET a4");
    driver_pass(d, second_us);
}

static void a_sentinel_tells_of_a_promotion(struct driver *d)
{
    d->push = true;
    struct peer *c = driver_client(d);
    struct peer *other = driver_client(d);
    driver_say(d, other, "WATCH w");
    driver_say(d, c, "GET a1");
    driver_pass(d, second_us);
    driver_say(d, other, "GET b1");
    driver_say(d, c, "SET a2 v");
    driver_pass(d, 5 * second_us);
}

static void a_server_becomes_a_replica(struct driver *d)
{
    struct peer *c = driver_client(d);
    struct peer *other = driver_client(d);
    driver_say(d, c, "GET a1");
    driver_run(d);
    d->refuse_writes = 1;
    driver_say(d, c, "INCR a2");
    driver_say(d, other, "GET b1");
    driver_pass(d, second_us);
    driver_say(d, c, "SET a3 v");
    driver_pass(d, second_us);
}

/* ---- playing them ------------------------------------------------------------- */

struct conversation {
    void (*play)(struct driver *d);
    const char *url;
    const char *sets[SETS_MAX];
    struct config *config; /* owned */
    bool resp3;
    size_t failing; /* which allocation */
    struct driver driver;
};

static int set_up(void **state)
{
    struct conversation *c = *state;
    struct config_problems problems = { 0 };
    struct config_source source = { .url = c->url, .sets = c->sets };
    while (source.n_sets < SETS_MAX && c->sets[source.n_sets] != NULL) {
        source.n_sets++;
    }
    c->config = config_load(&source, &problems);
    config_problems_fini(&problems);
    return c->config == NULL;
}

static int tear_down(void **state)
{
    struct conversation *c = *state;
    const struct driver *d = &c->driver;
    if (d->engine != NULL) {
        print_error("memory fails at allocation %zu%s\n", c->failing,
                    d->fail_on ? " and behind it" : "");
        driver_forget(&c->driver);
    }
    config_free(c->config);
    return 0;
}

/* There is memory again, and the server is well. */
static void heal(struct driver *d)
{
    d->fail_at = 0;
    driver_pass(d, 15 * second_us);
    driver_check_answered(d);
    d->slice = 0;
    struct peer *c = driver_client(d);
    if (engine_drained(d->engine)) {
        assert_null(c);
        return;
    }
    assert_non_null(c);
    driver_say(d, c, "GET probe");
    driver_pass(d, second_us);
    assert_true(c->open);
    driver_check_answered(d);
    assert_false(c->asks[0].denied);
}

/* Returns whether an allocation has failed. */
static bool play(struct conversation *c, size_t fail_at, bool fail_on)
{
    struct driver *d = &c->driver;
    *d = (struct driver){ .fail_at = fail_at, .fail_on = fail_on };
    c->failing = fail_at;
    if (!driver_open(d, c->config)) {
        return true;
    }
    c->play(d);
    bool failed = fail_at > 0 && d->memory.calls >= fail_at;
    heal(d);
    driver_close(d);
    return failed;
}

/* The connection breaks after each byte of what answers a SUBSCRIBE, and of what
 * answers redial's own one afterwards. */
static void confirmations_break_anywhere(void **state)
{
    struct conversation *c = *state;
    struct driver *d = &c->driver;
    for (size_t n = 0; n < 400; n++) {
        *d = (struct driver){ 0 };
        assert_true(driver_open(d, c->config));
        struct peer *client = driver_client(d);
        if (c->resp3) {
            driver_say(d, client, "HELLO 3");
        }
        driver_say(d, client, "SUBSCRIBE weather");
        driver_run(d);
        d->brief = true;
        d->reply_bytes = n;
        driver_say(d, client, "SUBSCRIBE news weather sport");
        driver_say(d, client, "UNSUBSCRIBE news");
        driver_run(d);
        driver_cut(d, IO_RESET);
        d->brief = false;
        driver_pass(d, second_us);
        assert_int_equal(client->identity.n_channels, 2);
        driver_say(d, client, "UNSUBSCRIBE");
        driver_say(d, client, "GET a1");
        heal(d);
        assert_true(client->open);
        assert_int_equal(client->n_answers, client->n_asks);
        driver_close(d);
    }
}

static void each_allocation_fails(void **state)
{
    struct conversation *c = *state;
    play(c, 0, false);
    for (unsigned fail_on = 0; fail_on < 2; fail_on++) {
        size_t n = 1;
        while (play(c, n, fail_on == 1)) {
            n++;
            assert_true(n < ALLOCATIONS_MAX);
        }
        assert_true(n > ALLOCATIONS_MIN);
    }
}

/* clang-format off */
#define CONVERSATION(name, ...)                                              \
    { #name, each_allocation_fails, set_up, tear_down,                       \
      &(struct conversation){ .play = name, .url = "redis://redis:6379",     \
                              .sets = { __VA_ARGS__ } } }
#define BEHIND_SENTINELS(name, ...)                                          \
    { #name, each_allocation_fails, set_up, tear_down,                       \
      &(struct conversation){ .play = name, .url = sentinels,                \
                              .sets = { __VA_ARGS__ } } }
/* clang-format on */

static const char sentinels[] =
    "redis+sentinel://10.0.0.11:26379,10.0.0.12:26379/mymaster";

int main(void)
{
    const struct CMUnitTest tests[] = {
        CONVERSATION(a_client_gets_a_value, NULL),
        CONVERSATION(a_pipeline_arrives_in_pieces, NULL),
        CONVERSATION(a_client_types, NULL),
        CONVERSATION(a_client_types_nonsense, NULL),
        CONVERSATION(a_client_is_read_no_further, "listener.pipeline_max=2",
                     "listener.client_buffer_max=64KiB"),
        CONVERSATION(a_client_resets, NULL),
        CONVERSATION(many_clients_come, NULL),
        CONVERSATION(clients_spread_over_lanes, "upstream.shared_lanes=4"),
        CONVERSATION(a_client_selects_databases, NULL),
        CONVERSATION(a_database_is_refused, NULL),
        CONVERSATION(a_client_authenticates, "listener.auth=pass"),
        CONVERSATION(a_password_is_checked_here, "listener.auth=own",
                     "listener.password=secret"),
        CONVERSATION(a_session_changes_on_a_lane_of_its_own,
                     "listener.auth=pass"),
        CONVERSATION(an_authenticated_client_moves, "listener.auth=pass"),
        CONVERSATION(a_client_says_hello, NULL),
        CONVERSATION(a_transaction_runs, NULL),
        CONVERSATION(a_transaction_is_broken_here, NULL),
        CONVERSATION(a_transaction_loses_its_lane, NULL),
        CONVERSATION(a_transaction_loses_its_lane,
                     "upstream.block_bytes_max=60"),
        CONVERSATION(a_block_is_replayed, NULL),
        CONVERSATION(a_watch_is_lost, NULL),
        CONVERSATION(a_block_is_refused_for_now, NULL),
        CONVERSATION(a_client_subscribes, NULL),
        CONVERSATION(a_client_subscribes, "listener.subscriptions_max=1"),
        CONVERSATION(a_client_subscribes, "listener.on_pubsub_gap=close"),
        CONVERSATION(a_subscription_is_lost_in_flight, NULL),
        { "confirmations_break_anywhere", confirmations_break_anywhere, set_up,
          tear_down, &(struct conversation){ .url = "redis://redis:6379" } },
        { "confirmations_break_anywhere_with_resp3",
          confirmations_break_anywhere, set_up, tear_down,
          &(struct conversation){ .url = "redis://redis:6379",
                                  .resp3 = true } },
        CONVERSATION(a_large_request_is_streamed,
                     "upstream.replay_bytes_max=4KiB"),
        CONVERSATION(a_large_request_begins_alone,
                     "upstream.replay_bytes_max=4KiB"),
        CONVERSATION(a_large_request_is_replayed, NULL),
        CONVERSATION(a_large_reply_is_streamed, "upstream.reply_hold_max=4KiB"),
        CONVERSATION(a_lost_lane_is_replayed, NULL),
        CONVERSATION(a_blocked_read_waits_on, NULL),
        CONVERSATION(many_streams_are_read, NULL),
        CONVERSATION(a_blocked_read_has_no_server, NULL),
        CONVERSATION(a_client_waits_for_replicas, NULL),
        CONVERSATION(a_cache_is_flushed, NULL),
        CONVERSATION(a_cache_is_told_by_another, NULL),
        CONVERSATION(a_hung_server_is_fenced_off, NULL),
        CONVERSATION(a_reply_takes_too_long, "upstream.attempt_timeout=100ms"),
        CONVERSATION(an_idle_server_is_dead, "upstream.ping_idle=1s",
                     "upstream.ping_timeout=1s"),
        CONVERSATION(a_loading_server_is_asked_again, NULL),
        CONVERSATION(a_server_loses_its_script, NULL),
        CONVERSATION(functions_are_called, NULL),
        CONVERSATION(requests_wait_for_a_server, NULL),
        CONVERSATION(requests_wait_too_long, NULL),
        CONVERSATION(a_client_quits, NULL),
        CONVERSATION(a_half_closed_client_loses_its_own_lane, NULL),
        CONVERSATION(the_engine_drains, NULL),
        CONVERSATION(a_server_becomes_a_replica, NULL),
        BEHIND_SENTINELS(sentinels_name_a_primary,
                         "upstream.sentinel_password=secret"),
        BEHIND_SENTINELS(sentinels_name_another_primary, NULL),
        BEHIND_SENTINELS(a_sentinel_tells_of_a_promotion,
                         "upstream.read_from=prefer_replica"),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
