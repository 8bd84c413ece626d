"""Commands that wait at the server, WAIT, and client-side caching, while the
server is killed, hung, or becomes a replica."""

import threading
import time

import pytest

from resp import Push
from wait import wait_until

INVALIDATE_ALL = b">2\r\n$10\r\ninvalidate\r\n_\r\n"
FORGET_ALL = [b"message", b"__redis__:invalidate", None]


def blocked(redis, n):
    wait_until(lambda: b"blocked_clients:%d\r" % n in redis.call(
        "INFO", "clients"), f"{n} clients to be blocked")


def crash(redis):
    redis.kill9()
    redis.restart()


def read_in_background(client):
    got = []
    thread = threading.Thread(target=lambda: got.append(client.read()))
    thread.start()
    return thread, got


def read_forgotten(client):
    """What comes behind the words to forget all, which must come."""
    assert client.read() == FORGET_ALL
    while True:
        got = client.read()
        if got != FORGET_ALL:
            return got


def replica_of(make_redis, redis):
    replica = make_redis(options=("--replicaof",
                                  f"127.0.0.1 {redis.address[1]}"))
    wait_until(lambda: b"master_link_status:up" in replica.call(
        "INFO", "replication"), "the replica to be in step")
    wait_until(lambda: b"state=online" in redis.call(
        "INFO", "replication"), "the primary to see it")
    return replica


# Blocked while the server dies

@pytest.mark.needs_redial
def test_a_read_of_new_entries_outlives_its_server(make_redis, make_redial):
    redis = make_redis(aof=True)
    redial = make_redial(redis.url)
    with redial.connect() as c, redial.connect() as other:
        assert other.call("XADD", "s", "5-1", "f", "old") == b"5-1"
        c.send("XREAD", "BLOCK", "0", "STREAMS", "s", "none", "$", "$")
        blocked(redis, 1)
        redis.kill9()
        thread, got = read_in_background(c)
        redis.start()
        # What comes before the read is back is not passed over.
        assert redis.call("XADD", "s", "5-2", "f", "new") == b"5-2"
        thread.join(15)
        assert got == [[[b"s", [[b"5-2", [b"f", b"new"]]]]]]
        assert c.call("PING") == b"PONG"


@pytest.mark.needs_redial
def test_a_read_waits_for_its_own_time_in_all(make_redis, make_redial):
    redis = make_redis()
    redial = make_redial(redis.url)
    with redial.connect() as c:
        begin = time.monotonic()
        c.send("XREAD", "BLOCK", "3000", "STREAMS", "s", "0")
        blocked(redis, 1)
        crash(redis)
        blocked(redis, 1)
        assert c.read() is None
        assert 2.9 < time.monotonic() - begin < 6


@pytest.mark.needs_redial
def test_a_pop_waits_for_a_server_longer_than_the_deadline(
        make_redis, make_redial):
    redis = make_redis()
    redial = make_redial(redis.url, ["upstream.deadline=200ms"])
    with redial.connect() as c, redial.connect() as d:
        assert c.call("PING") == b"PONG"
        redis.kill9()
        c.send("BLPOP", "q", "0")
        d.send("BLPOP", "q", "0.1")
        assert d.read().startswith("NOTAPPLIED BLPOP was not executed")
        redis.start()
        blocked(redis, 1)
        assert redis.call("RPUSH", "q", "x") == 1
        assert c.read() == [b"q", b"x"]


def test_a_pop_goes_on_when_its_server_is_a_replica_for_a_while(
        make_redis, make_redial):
    redis = make_redis()
    redial = make_redial(redis.url)
    with redial.connect() as c:
        c.send("BLPOP", "q", "0")
        blocked(redis, 1)
        assert redis.call("REPLICAOF", "127.0.0.1", "1") == b"OK"
        blocked(redis, 0)
        assert redis.call("REPLICAOF", "NO", "ONE") == b"OK"
        blocked(redis, 1)
        assert redis.call("RPUSH", "q", "x") == 1
        assert c.read() == [b"q", b"x"]


def test_clients_are_served_in_the_order_in_which_they_came(redial, redis):
    clients = [redial.connect() for _ in range(20)]
    for n, c in enumerate(clients):
        c.send("BLPOP", "q", "0")
        blocked(redis, n + 1)
    assert redis.call("RPUSH", "q", *range(20)) == 20
    for n, c in enumerate(clients):
        assert c.read() == [b"q", b"%d" % n]
        c.close()


@pytest.mark.parametrize("timeout", ["0.0004", "0.05", "1e-2"])
def test_small_timeouts_end(redial, timeout):
    with redial.connect() as c:
        assert c.call("BLPOP", "q", timeout) is None


# WAIT

def test_wait_is_about_the_clients_writes(redial, make_redis, redis):
    replica = replica_of(make_redis, redis)
    with redial.connect() as c:
        assert c.call("SET", "k", "1") == b"OK"
        assert c.call("WAIT", "1", "5000") == 1
        replica.stop_running()
        assert c.call("SET", "k", "2") == b"OK"
        assert c.call("WAIT", "1", "300") == 0
        assert c.call("GET", "k") == b"2"
        assert c.call("WAIT", "1", "300") == 0
        replica.go_on()
        assert c.call("WAIT", "1", "5000") == 1


@pytest.mark.needs_redial
def test_wait_does_not_count_at_another_server(redial, make_redis, redis):
    with redial.connect() as c:
        assert c.call("SET", "k", "1") == b"OK"
        crash(redis)
        assert c.call("GET", "k") is None
        assert c.call("WAIT", "0", "100").startswith("NOTAPPLIED WAIT")
        assert c.call("SET", "k", "1") == b"OK"
        assert c.call("WAIT", "0", "100") == 0


# Client-side caching

@pytest.mark.needs_redial
def test_a_cache_is_told_to_forget_all_when_its_server_dies(redial, redis):
    with redial.connect() as c, redial.connect() as other:
        c.call("HELLO", "3")
        assert c.call("CLIENT", "TRACKING", "ON") == b"OK"
        assert c.call("GET", "k") is None
        assert other.call("FLUSHALL") == b"OK"
        assert c.read_raw() == INVALIDATE_ALL, "a server's own words"
        crash(redis)
        assert c.read_raw() == INVALIDATE_ALL
        assert c.read_raw() == INVALIDATE_ALL
        assert c.call("GET", "k") is None
        assert other.call("SET", "k", "2") == b"OK"
        assert c.read() == Push([b"invalidate", [b"k"]])
        assert c.call("GET", "k") == b"2"
    assert redial.metric("cache_flushes") == 2


@pytest.mark.needs_redial
def test_modes_and_prefixes_are_said_again(redial, redis):
    with redial.connect() as c, redial.connect() as other:
        c.call("HELLO", "3")
        for prefix in ("a:", "b:"):
            assert c.call("CLIENT", "TRACKING", "ON", "BCAST", "NOLOOP",
                          "PREFIX", prefix) == b"OK"
        crash(redis)
        assert c.read_raw() == c.read_raw() == INVALIDATE_ALL
        wait_until(lambda: other.call("SET", "a:1", "1") == b"OK", "a server")
        assert other.call("SET", "c:1", "1") == b"OK"
        assert other.call("SET", "b:1", "1") == b"OK"
        assert c.read() == [b"invalidate", [b"a:1"]]
        assert c.read() == [b"invalidate", [b"b:1"]]
        assert c.call("SET", "a:2", "own") == b"OK", "NOLOOP"
        assert c.call("CLIENT", "TRACKING", "OFF") == b"OK"
        assert other.call("SET", "a:1", "1") == b"OK"
        assert c.call("ECHO", "nothing in between") == b"nothing in between"


@pytest.mark.needs_redial
def test_caching_is_about_the_next_command_on_any_connection(redial, redis):
    with redial.connect() as c, redial.connect() as other:
        c.call("HELLO", "3")
        assert c.call("CLIENT", "TRACKING", "ON", "OPTIN") == b"OK"
        assert c.call("CLIENT", "CACHING", "YES") == b"OK"
        crash(redis)
        assert c.read_raw() == c.read_raw() == INVALIDATE_ALL
        assert c.call("GET", "cached") is None
        assert c.call("GET", "not") is None
        assert other.call("SET", "not", "1") == b"OK"
        assert other.call("SET", "cached", "1") == b"OK"
        assert c.read() == [b"invalidate", [b"cached"]]


@pytest.mark.needs_redial
def test_redirected_tracking_outlives_its_server(make_redial, redis):
    redial = make_redial(redis.url, ["redial.workers=1"])
    with redial.connect() as told, redial.connect() as c, \
            redial.connect() as other:
        number = told.call("CLIENT", "ID")
        assert told.call("SUBSCRIBE", "__redis__:invalidate") \
            == [b"subscribe", b"__redis__:invalidate", 1]
        assert c.call("CLIENT", "TRACKING", "ON", "REDIRECT", number) == b"OK"
        assert c.call("GET", "k") is None
        assert other.call("FLUSHALL") == b"OK"
        assert told.read() == FORGET_ALL, "a server's own words"
        for _ in range(3):
            crash(redis)
            assert c.call("GET", "k") is None
            assert other.call("SET", "k", "1") == b"OK"
            assert read_forgotten(told) == [
                b"message", b"__redis__:invalidate", [b"k"]]
            assert other.call("DEL", "k") == 1
        # Only the one that is told loses its connection.
        wait_until(lambda: other.call("CLIENT", "KILL", "TYPE", "pubsub"),
                   "the subscriber to be cut")
        for _ in "lost", "there again", "redirected to":
            assert told.read() == FORGET_ALL
        assert c.call("GET", "k2") is None
        assert other.call("SET", "k2", "1") == b"OK"
        assert told.read() == [b"message", b"__redis__:invalidate", [b"k2"]]
