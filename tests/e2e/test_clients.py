"""Client programs and libraries, unchanged, against redial's port."""

import json
import os
import re
import shutil
import subprocess
import threading

import pytest
import redis as redis_py

from load import plain_client
from resp import Connection
from servers import HOST, REDIS_CLI, RedisServer
from wait import wait_until

HERE = os.path.dirname(os.path.abspath(__file__))
needs_node = pytest.mark.skipif(
    shutil.which("node") is None
    or not os.path.isdir(os.path.join(HERE, "node_modules")),
    reason="no node, or no node_modules: npm ci in tests/e2e")
AOF = {"aof": True, "options": ["--aof-use-rdb-preamble", "no"]}


def run(*args, text=None, timeout=60):
    done = subprocess.run([str(a) for a in args], input=text, text=True,
                          capture_output=True, timeout=timeout)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


# redis-cli

@pytest.mark.parametrize("protocol", ["-2", "-3"])
def test_redis_cli_speaks_as_to_the_server(redial, protocol):
    cli = [REDIS_CLI, protocol, "-p", redial.port]
    assert run(*cli, "SET", "k", "v") == "OK\n"
    assert run(*cli, "GET", "k") == "v\n"
    assert run(*cli, "-n", "3", "GET", "k") == "\n"
    talk = run(*cli, text="MULTI\nINCR n\nINCR n\nEXEC\nHSET h a 1\n"
                          "HGETALL h\nEVAL 'return 7' 0\n")
    assert talk.split() == ["OK", "QUEUED", "QUEUED", "1", "2", "1", "a",
                            "1", "7"]
    assert run(*cli, "NOSUCH").startswith("ERR unknown command")


def test_redis_cli_modes_that_use_the_connection(redial):
    cli = [REDIS_CLI, "-p", redial.port]
    run(*cli, "MSET", *[f"k:{i // 2}" for i in range(100)])
    assert len(run(*cli, "--scan").split()) == 50
    run(*cli, "--bigkeys")
    # The connection is redial's, and a bulk load keeps its count.
    pipe = "".join(f"*3\r\n$3\r\nSET\r\n${len(str(i)) + 2}\r\np:{i}\r\n"
                   f"$1\r\nx\r\n" for i in range(5000))
    assert "errors: 0, replies: 5000" in run(*cli, "--pipe", text=pipe)
    assert "redis_version" in run(*cli, "INFO", "server")


def test_redis_cli_monitor_and_subscribe(redial):
    for args, trigger, expected in (
            (["SUBSCRIBE", "news"], ("PUBLISH", "news", "hello"), "hello"),
            (["MONITOR"], ("GET", "seen"), '"GET" "seen"')):
        child = subprocess.Popen([REDIS_CLI, "-p", str(redial.port), *args],
                                 stdout=subprocess.PIPE, text=True)
        try:
            seen = []
            reader = threading.Thread(
                target=lambda: seen.extend(iter(child.stdout.readline, "")))
            reader.start()
            with redial.connect() as c:
                def heard():
                    c.call(*trigger)
                    return expected in "".join(seen)
                wait_until(heard, f"{args[0]} to show {expected}")
        finally:
            child.terminate()
            child.wait()
            reader.join(5)


# Other servers as clients

def test_redis_cli_fetches_a_snapshot(redial, folder):
    with redial.connect() as c:
        c.pipeline([("SET", f"k:{i}", "x" * 100) for i in range(2000)])
    path = os.path.join(folder, "copy.rdb")
    run(REDIS_CLI, "-p", redial.port, "--rdb", path)
    with open(path, "rb") as file:
        snapshot = file.read()
    assert snapshot.startswith(b"REDIS") and len(snapshot) > 10000


def test_a_replica_follows_through_redial(redis, redial, make_redis):
    primary, replica = redis, make_redis()
    primary.call("SET", "before", "1")
    assert replica.call("REPLICAOF", HOST, redial.port) == b"OK"
    wait_until(lambda: replica.call("GET", "before") == b"1", "the snapshot")
    primary.call("SET", "after", "2")
    wait_until(lambda: replica.call("GET", "after") == b"2", "the stream")
    replica.call("REPLICAOF", "NO", "ONE")


def test_a_key_migrates_through_redial(redis, redial, make_redis):
    other = make_redis()
    other.call("SET", "m", "1")
    assert other.call("MIGRATE", HOST, redial.port, "m", 0, 5000) == b"OK"
    assert redis.call("GET", "m") == b"1"


# redis-benchmark

@pytest.mark.parametrize("pipeline", [1, 16])
def test_redis_benchmark(redial, pipeline):
    out = run("redis-benchmark", "-p", redial.port, "-P", pipeline, "-c", 20,
              "-n", 8000, "-r", 1000, "--csv", "-t",
              "ping,set,get,incr,lpush,rpop,sadd,hset,spop,zadd,lrange_100,"
              "mset", timeout=120)
    lines = [line for line in out.splitlines() if line.startswith('"')]
    assert len(lines) >= 14, out
    assert "rror" not in out.replace("error rate", "")


# redis-py

def test_redis_py_speaks_as_to_the_server(redial):
    r = plain_client(redial.port, decode_responses=True)
    assert r.ping() and r.set("k", "v", ex=100) and r.get("k") == "v"
    assert r.incr("n") == 1
    with r.pipeline(transaction=False) as p:
        assert p.set("a", 1).incr("a").get("a").execute() == [True, 2, "2"]
    with r.pipeline(transaction=True) as p:
        p.watch("a")
        value = int(p.get("a"))
        p.multi()
        p.set("a", value + 1)
        assert p.execute() == [True]
    assert r.register_script("return {KEYS[1], ARGV[1]}")(["k"], ["x"]) \
        == ["k", "x"]
    with pytest.raises(redis_py.ResponseError, match="WRONGTYPE"):
        r.lpush("k", 1)
    with r.lock("lock", timeout=5):
        assert r.exists("lock")
    r.xadd("s", {"f": 1}, id="1-1")
    assert r.xread({"s": 0}) == [["s", [("1-1", {"f": "1"})]]]
    r.mset({f"m:{i}": i for i in range(100)})
    assert len(list(r.scan_iter("m:*", count=10))) == 100
    r.select(5)
    assert r.get("k") is None
    r.close()


def test_redis_py_watch_sees_a_change(redial):
    r = plain_client(redial.port)
    other = plain_client(redial.port)
    with r.pipeline() as p:
        p.watch("w")
        other.set("w", 2)
        p.multi()
        p.set("w", 3)
        with pytest.raises(redis_py.WatchError):
            p.execute()
    assert r.get("w") == b"2"


def test_redis_py_pubsub_and_blocking_pop(redial):
    r = redis_py.Redis(HOST, redial.port, decode_responses=True)
    with r.pubsub() as p:
        p.subscribe("a")
        p.psubscribe("b*")
        assert [p.get_message(timeout=5)["type"] for _ in range(2)] \
            == ["subscribe", "psubscribe"]
        assert r.publish("a", "1") == 1 and r.publish("bc", "2") == 1
        got = [p.get_message(timeout=5)["data"] for _ in range(2)]
        assert got == ["1", "2"]
        p.unsubscribe("a")
        assert p.get_message(timeout=5)["type"] == "unsubscribe"
    popped = []
    waiter = threading.Thread(
        target=lambda: popped.append(r.blpop("q", timeout=10)))
    waiter.start()
    wait_until(lambda: "cmd=blpop" in str(r.execute_command(
        "CLIENT", "LIST")) or "blpop" in str(r.client_list()),
        "the server to see BLPOP")
    r.rpush("q", "x")
    waiter.join(10)
    assert popped == [("q", "x")]


# RESP3 by hand: the redis-py of Debian 12 does not know it

def test_resp3_hello_and_types(redial):
    with redial.connect() as c:
        hello = dict(c.call("HELLO", "3"))
        assert hello[b"proto"] == 3 and hello[b"server"] == b"redis"
        c.call("HSET", "h", "a", "1")
        assert c.call_raw("HGETALL", "h") \
            == b"%1\r\n$1\r\na\r\n$1\r\n1\r\n"
        assert c.call_raw("GET", "none") == b"_\r\n"
        c.call("ZADD", "z", "1.5", "m")
        assert c.call_raw("ZSCORE", "z", "m") == b",1.5\r\n"
        assert c.call_raw("SUBSCRIBE", "ch") \
            == b">3\r\n$9\r\nsubscribe\r\n$2\r\nch\r\n:1\r\n"
        assert c.call_raw("GET", "none") == b"_\r\n", \
            "RESP3 keeps the connection usable while subscribed"
        assert c.call_raw("UNSUBSCRIBE") \
            == b">3\r\n$11\r\nunsubscribe\r\n$2\r\nch\r\n:0\r\n"
        assert c.call_raw("HELLO", "2")[:1] == b"*"
        assert c.call_raw("GET", "none") == b"$-1\r\n"
        assert c.call("HELLO", "4").startswith("NOPROTO")


def test_resp3_client_side_caching(redial):
    with redial.connect() as c, redial.connect() as other:
        c.call("HELLO", "3")
        assert c.call("CLIENT", "TRACKING", "ON") == b"OK"
        c.call("SET", "t", "1")
        assert c.call("GET", "t") == b"1"
        assert other.call("SET", "t", "2") == b"OK"
        assert c.read() == [b"invalidate", [b"t"]]


# Node.js

@needs_node
@pytest.mark.parametrize("library", ["ioredis", "node-redis"])
def test_node_library_speaks_as_to_the_server(redial, library):
    out = run("node", os.path.join(HERE, "node_client.js"), library, "talk",
              redial.port)
    assert json.loads(out)["ok"]


@needs_node
@pytest.mark.needs_redial
@pytest.mark.parametrize("library", ["ioredis", "node-redis"])
def test_node_library_does_not_notice_a_restart(make_redis, make_redial,
                                                library):
    redis = make_redis(**AOF)
    redial = make_redial(redis.url)
    child = subprocess.Popen(
        ["node", os.path.join(HERE, "node_client.js"), library, "load",
         str(redial.port), "6000"], stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "running\n"
    wait_until(lambda: int(redis.call("GET", "n:count") or 0) > 300,
               "some load")
    redis.kill9()
    redis.restart()
    out, _ = child.communicate(timeout=60)
    seen = json.loads(out)
    assert seen["requests"] == 6000 and seen["drops"] == 0, seen
    assert seen["wrong"] == 0, seen
    assert set(seen["errors"]) <= {"INCR UNKNOWNOUTCOME"}, seen
    assert seen["incrUnknown"] <= 10, seen
    final = int(redis.call("GET", "n:count"))
    assert seen["incrOk"] <= final <= seen["incrOk"] + seen["incrUnknown"]


# Other servers: the tests run with any server that speaks like Redis, by
# REDIS_SERVER=/path/to/valkey-server. Debian 12 has none but Redis.

def test_server_under_test_is_named(redis):
    info = redis.call("INFO", "server").decode()
    assert re.search(r"^(redis|valkey)_version:", info, re.M)
    assert isinstance(redis, RedisServer)
    with Connection(redis.address) as c:
        assert c.call("PING") == b"PONG"
