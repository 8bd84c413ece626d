"""Scripts and functions while servers restart, fail over, and run too long."""

import hashlib
import threading
import time

import pytest
import redis as redis_py

from cluster import Cluster, key_slot
from relay import FIN, TO_CLIENT
from resp import ReplyError, encode
from servers import HOST
from wait import wait_until

pytestmark = pytest.mark.needs_redial

INCR = "return redis.call('INCR', KEYS[1])"
ENDLESS = "while true do end"
READS = "#!lua flags=no-writes\nreturn redis.call('GET', KEYS[1])"
LIBRARY = """#!lua name=shop
redis.register_function{function_name='look', flags={'no-writes'},
  callback=function(keys) return redis.call('GET', keys[1]) end}
redis.register_function('count',
  function(keys) return redis.call('INCR', keys[1]) end)
"""
SHORT = ["--lua-time-limit", "100"]


def name_of(body):
    return hashlib.sha1(body.encode()).hexdigest()


def error(reply):
    assert isinstance(reply, ReplyError), reply
    return str(reply)


def in_background(function):
    result = []
    thread = threading.Thread(target=lambda: result.append(function()),
                              daemon=True)
    thread.start()

    def join(timeout=30):
        thread.join(timeout)
        assert result, "no answer"
        return result[0]
    return join


def is_busy(server):
    with server.connect() as c:
        return str(c.call("PING")).startswith("BUSY")


# Lost scripts

def test_a_restart_between_script_load_and_evalsha(redis, make_redial):
    redial = make_redial(redis.url)
    with redial.connect() as c:
        sha = c.call("SCRIPT", "LOAD", INCR)
        assert sha.decode() == name_of(INCR)
        redis.kill9()
        redis.restart()
        c.send_raw(20 * encode("EVALSHA", sha, 1, "n"))
        assert [c.read() for _ in range(20)] == list(range(1, 21))
        assert c.call("SCRIPT", "EXISTS", sha) == [1]
    assert redial.metric("script_repairs_total") >= 1
    assert redial.metric("scripts") == 1


def test_register_script_of_redis_py_never_hears_of_it(redis, make_redial):
    redial = make_redial(redis.url)
    r = redis_py.Redis(HOST, redial.port)
    script = r.register_script(INCR)
    assert script(keys=["n"]) == 1
    heard = []
    load = r.script_load
    r.script_load = lambda *args: heard.append(args) or load(*args)
    for n in range(3):
        redis.kill9()
        redis.restart()
        assert script(keys=["n"]) == 1, "by the empty server"
        assert script(keys=["n"]) == 2
    assert heard == []
    pipe = r.pipeline(transaction=False)
    redis.kill9()
    redis.restart()
    for _ in range(5):
        pipe.evalsha(script.sha, 1, "n")
    pipe.get("other")
    assert pipe.execute() == [1, 2, 3, 4, 5, None]
    # Where a later command of the pipeline has had the key, it is too late.
    redis.kill9()
    redis.restart()
    pipe.evalsha(script.sha, 1, "n")
    pipe.set("n", 7)
    refused, taken = pipe.execute(raise_on_error=False)
    assert isinstance(refused, redis_py.exceptions.NoScriptError) and taken
    assert r.get("n") == b"7"


def test_a_transaction_is_told(redis, make_redial):
    """Inside of EXEC's array NOSCRIPT is an answer."""
    redial = make_redial(redis.url)
    with redial.connect() as c, redis.connect() as direct:
        sha = c.call("SCRIPT", "LOAD", INCR)
        direct.call("SCRIPT", "FLUSH")
        c.call("MULTI")
        c.call("EVALSHA", sha, 1, "n")
        c.call("INCR", "m")
        replies = c.call("EXEC")
        assert error(replies[0]).startswith("NOSCRIPT") and replies[1] == 1
        assert c.call("EVALSHA", sha, 1, "n") == 1, "flushed past redial"


def test_script_flush_and_what_was_never_seen(redis, make_redial):
    redial = make_redial(redis.url)
    with redial.connect() as c, redis.connect() as direct:
        for connection in (c, direct):
            sha = connection.call("SCRIPT", "LOAD", INCR)
            assert connection.call("SCRIPT", "FLUSH") == b"OK"
            assert error(connection.call("EVALSHA", sha, 1, "n")) == \
                "NOSCRIPT No matching script. Please use EVAL."
            assert connection.call("SCRIPT", "EXISTS", sha) == [0]
        assert error(c.call("EVALSHA", name_of("return 5"), 0)) == \
            "NOSCRIPT No matching script. Please use EVAL."
        # What the server refuses is not remembered.
        bad = "this is no Lua"
        assert error(c.call("EVAL", bad, 0)).startswith("ERR")
        assert error(c.call("EVALSHA", name_of(bad), 0)).startswith("NOSCRIPT")


def test_scripts_of_a_node_that_has_taken_over(folder, make_redial):
    with Cluster(folder) as cluster:
        redial = make_redial(cluster.url)
        wait_until(lambda: redial.http("/ready")[0] == 200, "redial is ready")
        with redial.connect() as c:
            sha = c.call("SCRIPT", "LOAD", INCR)
            counts = {key: c.call("EVALSHA", sha, 1, key)
                      for key in (f"k{i}" for i in range(30))}
            assert set(counts.values()) == {1}
            old = cluster.kill_primary(0)
            cluster.wait_promoted(0, old)
            for key in counts:
                assert c.call("EVALSHA", sha, 1, key) == 2, key
        assert redial.metric("script_repairs_total") >= 1


# What only reads

def lose_reply(redial, relay, *command):
    """The reply to a command whose first answer is lost on the way."""
    with redial.connect() as c:
        cut = relay.cut(TO_CLIENT, 1, FIN)
        c.send(*command)
        assert cut.fired.wait(10), "the server's reply is cut"
        reply = c.read()
        relay.forget_cuts()
        return reply


def test_scripts_that_only_read_are_asked_again(redis, make_redial,
                                                make_relay):
    relay = make_relay(redis.port)
    redial = make_redial(relay.url)
    with redial.connect() as c:
        c.call("SET", "k", "v")
        reads, writes = (c.call("SCRIPT", "LOAD", body)
                         for body in (READS, INCR))
    assert lose_reply(redial, relay, "EVALSHA", reads, 1, "k") == b"v"
    assert lose_reply(redial, relay, "EVAL", READS, 1, "k") == b"v"
    assert error(lose_reply(redial, relay, "EVALSHA", writes, 1, "n")
                 ).startswith("UNKNOWNOUTCOME")
    with redis.connect() as direct:
        assert direct.call("GET", "n") == b"1", "executed, and once"


def test_functions_that_only_read_are_asked_again(redis, make_redial,
                                                  make_relay):
    relay = make_relay(redis.port)
    redial = make_redial(relay.url)

    def learnt(times):
        wait_until(lambda: redial.metric("function_lists_total") >= times,
                   "the functions to be asked for")
        with redial.connect() as c:
            assert c.call("PING") == b"PONG", "behind the answer"

    with redial.connect() as c:
        c.call("SET", "k", "v")
        assert c.call("FUNCTION", "LOAD", LIBRARY) == b"shop"
        assert c.call("FCALL", "look", 1, "k") == b"v"
        learnt(1)
        assert lose_reply(redial, relay, "FCALL", "look", 1, "k") == b"v"
        assert error(lose_reply(redial, relay, "FCALL", "count", 1, "n")
                     ).startswith("UNKNOWNOUTCOME")
        # From now on it writes, and that is known at once.
        writes = LIBRARY.replace("'GET'", "'INCR'").replace(
            ", flags={'no-writes'}", "")
        assert c.call("FUNCTION", "LOAD", "REPLACE", writes) == b"shop"
        assert error(lose_reply(redial, relay, "FCALL", "look", 1, "m")
                     ).startswith("UNKNOWNOUTCOME")
    with redis.connect() as direct:
        assert direct.call("GET", "n") == b"1"
        assert direct.call("GET", "m") == b"1"


def test_a_read_of_a_replica_is_given_its_script(folder, make_redial):
    """Servers do not tell their replicas of scripts."""
    with Cluster(folder, primaries=1) as cluster:
        wait_until(lambda: str(cluster.primaries()[0].ask(
            "CLUSTER", "SHARDS")).count("online") == 2, "both to be online")
        redial = make_redial(cluster.url, sets=["upstream.read_from=replica",
                                                "upstream.replica_max_lag=0"])
        wait_until(lambda: redial.http("/ready")[0] == 200, "redial is ready")
        with redial.connect() as c:
            c.call("SET", "k", "v")
            assert c.call("WAIT", 1, 5000) == 1
            sha = c.call("SCRIPT", "LOAD", READS)
            reads = redial.metric("reads_from_replicas_total")

            def read_there():
                assert c.call("EVALSHA_RO", sha, 1, "k") == b"v"
                return redial.metric("reads_from_replicas_total") > reads
            wait_until(read_there, "a read from the replica")
        assert redial.metric("script_repairs_total") == 1


def test_script_kill_finds_the_node(folder, make_redial):
    with Cluster(folder, replicas=0) as cluster:
        for node in cluster.primaries():
            node.ask("CONFIG", "SET", "lua-time-limit", "100")
        redial = make_redial(cluster.url)
        wait_until(lambda: redial.http("/ready")[0] == 200, "redial is ready")
        with redial.connect() as victim, redial.connect() as killer:
            for key in ("a", "b", "c", "d"):
                owner = cluster.owner(key_slot(key))
                victim.send("EVAL", ENDLESS, 1, key)
                wait_until(lambda: is_busy(owner), "the node to be busy")
                assert killer.call("SCRIPT", "KILL") == b"OK"
                assert "killed by user" in error(victim.read()).lower()
            assert error(killer.call("SCRIPT", "KILL")).startswith("NOTBUSY")


# Servers that are busy

def test_script_kill_through_redial(make_redis, make_redial):
    redis = make_redis(options=SHORT)
    redial = make_redial(redis.url)
    with redial.connect() as victim, redial.connect() as other, \
            redial.connect() as killer:
        assert other.call("SET", "k", "v") == b"OK"
        victim.send("EVAL", ENDLESS, 0)
        wait_until(lambda: is_busy(redis), "the server to be busy")
        other.send("GET", "k")
        waiting = in_background(other.read)
        assert killer.call("SCRIPT", "KILL") == b"OK"
        assert waiting() == b"v"
        assert "killed by user" in error(victim.read()).lower()
        assert error(killer.call("SCRIPT", "KILL")).startswith("NOTBUSY")


def test_lanes_that_are_opened_while_the_server_is_busy(make_redis,
                                                        make_redial):
    """The script is somebody else's; every connection of redial is refused
    but for HELLO. Requests wait; SCRIPT KILL gets through; all is well."""
    redis = make_redis(options=SHORT)
    with redis.connect() as c:
        c.call("SET", "k", "v")
    stuck = redis.connect()
    stuck.send("EVAL", ENDLESS, 0)
    wait_until(lambda: is_busy(redis), "the server to be busy")
    redial = make_redial(redis.url)
    with redial.connect() as shared, redial.connect() as private, \
            redial.connect() as killer:
        shared.send("GET", "k")
        one = in_background(shared.read)
        private.send("CLIENT", "ID")
        two = in_background(private.read)
        wait_until(lambda: redial.metric("requests_held") >= 2, "both to wait")
        assert killer.call("SCRIPT", "KILL") == b"OK"
        assert one() == b"v"
        assert isinstance(two(), int)
    stuck.close()
    names = [row["name"] for row in redis.clients()]
    assert "redial-default" in names, "the lanes have said who they are"


def test_script_kill_by_a_user_of_the_busy_lane(make_redis, make_redial):
    """AUTH and HELLO are answered, too, though the lane of that user carries
    the script, or is only being opened."""
    redis = make_redis(options=SHORT)
    redis.call("ACL", "SETUSER", "bob", "on", ">secret", "~*", "&*", "+@all")
    redial = make_redial(redis.url)
    with redial.connect() as victim:
        assert victim.call("AUTH", "bob", "secret") == b"OK"
        victim.send("EVAL", ENDLESS, 0)
        wait_until(lambda: is_busy(redis), "the server to be busy")
        with redial.connect() as wrong:
            assert error(wrong.call("AUTH", "bob", "guess")
                         ).startswith("WRONGPASS")
        with redial.connect() as killer:
            assert killer.call("AUTH", "bob", "secret") == b"OK"
            assert killer.call("SCRIPT", "KILL") == b"OK"
        assert "killed by user" in error(victim.read()).lower()
        victim.send("EVAL", ENDLESS, 0)
        wait_until(lambda: is_busy(redis), "the server to be busy")
        with redial.connect() as killer:
            hello = killer.call("HELLO", 3)
            assert (b"proto", 3) in hello
            assert killer.call("SCRIPT", "KILL") == b"OK"
            assert killer.call("SET", "k", "v") == b"OK"
        assert "killed by user" in error(victim.read()).lower()


def test_function_kill_and_stats_through_redial(make_redis, make_redial):
    redis = make_redis(options=SHORT)
    redial = make_redial(redis.url)
    library = ("#!lua name=slow\nredis.register_function('spin', "
               "function() while true do end end)")
    with redial.connect() as victim, redial.connect() as killer:
        assert victim.call("FUNCTION", "LOAD", library) == b"slow"
        victim.send("FCALL", "spin", 0)
        wait_until(lambda: is_busy(redis), "the server to be busy")
        stats = killer.call("FUNCTION", "STATS")
        assert b"spin" in stats[1]
        assert error(killer.call("SCRIPT", "KILL")).startswith("BUSY")
        assert killer.call("FUNCTION", "KILL") == b"OK"
        assert "killed by user" in error(victim.read()).lower()


def test_busy_waits_until_the_deadline(make_redis, make_redial):
    redis = make_redis(options=SHORT)
    redial = make_redial(redis.url, sets=["upstream.deadline=1s"])
    stuck = redis.connect()
    with redial.connect() as c:
        c.call("INCR", "n")
        stuck.send("EVAL", ENDLESS, 0)
        wait_until(lambda: is_busy(redis), "the server to be busy")
        before = time.monotonic()
        assert error(c.call("INCR", "n")).startswith("BUSY Redis is busy")
        assert 0.5 < time.monotonic() - before < 3
        waiting_for = in_background(lambda: c.call("INCR", "n"))
        with redis.connect() as direct:
            assert direct.call("SCRIPT", "KILL") == b"OK"
        assert waiting_for() == 2, "the refused one never ran"
    stuck.close()
