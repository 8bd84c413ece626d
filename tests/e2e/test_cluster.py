"""A plain client sees a whole cluster as one server, while nothing fails.
(Faults: test_cluster_faults.py; libraries: test_cluster_clients.py.)"""

import random
import threading
import time

import pytest

import cluster_scan
from cluster_scenarios import redirects
from cluster import SLOTS, key_slot, tag_of_slot
from load import plain_client
from resp import Push
from servers import HOST
from wait import wait_until

pytestmark = pytest.mark.needs_redial


def spread(cluster, prefix, per_node=3):
    """Keys on all nodes, as many on each, in mixed order."""
    third = SLOTS // 3
    return [f"{prefix}{i}{{{tag_of_slot(n * third + 100 + i)}}}"
            for i in range(per_node) for n in range(3)]


@pytest.fixture
def client(cluster_redial):
    client = plain_client(cluster_redial.port, decode_responses=True)
    yield client
    client.close()


@pytest.fixture
def raw(cluster_redial):
    with cluster_redial.connect() as connection:
        yield connection


def test_keys_lie_where_they_belong(cluster, client):
    for i in range(300):
        assert client.set(f"k:{i}", i)
        assert client.incr(f"n:{i}") == 1
        client.rpush(f"l:{i}", i, i + 1)
        client.hset(f"h:{i}", mapping={"a": i})
    for i in range(300):
        assert client.get(f"k:{i}") == str(i)
        assert client.lrange(f"l:{i}", 0, -1) == [str(i), str(i + 1)]
        assert client.hgetall(f"h:{i}") == {"a": str(i)}
    counts = [node.ask("DBSIZE") for node in cluster.primaries()]
    assert sum(counts) == 1200 and min(counts) > 200, counts


def test_a_pipeline_keeps_its_order(raw):
    rng = random.Random(1)
    model, commands, expected = {}, [], []
    for i in range(2000):
        key = f"o:{rng.randrange(50)}"
        if rng.random() < 0.5:
            model[key] = f"{i}"
            commands.append(("SET", key, model[key]))
            expected.append(b"OK")
        else:
            commands.append(("GET", key))
            value = model.get(key)
            expected.append(value.encode() if value else None)
    assert raw.pipeline(commands) == expected


# -- several keys

def test_mset_and_mget_over_all_slots(raw):
    keys = [f"m:{i}" for i in range(200)]
    pairs = [word for i, key in enumerate(keys) for word in (key, f"v{i}")]
    assert raw.call("MSET", *pairs) == b"OK"
    order = random.Random(2).choices(keys + ["none:1", "none:2"], k=500)
    assert raw.call("MGET", *order) == [
        None if key.startswith("none") else b"v%d" % keys.index(key)
        for key in order]
    raw.call("LPUSH", "list", "x")
    assert raw.call("MGET", "m:1", "list", "m:2") == [b"v1", None, b"v2"]


def test_the_last_of_two_values_for_one_key_wins(raw):
    assert raw.call("MSET", "a", "1", "b", "2", "a", "3") == b"OK"
    assert raw.call("MGET", "a", "a", "b") == [b"3", b"3", b"2"]


@pytest.mark.parametrize("command", ["DEL", "UNLINK", "EXISTS", "TOUCH"])
def test_counts_are_summed(raw, command):
    keys = [f"d:{i}" for i in range(100)]
    raw.pipeline([("SET", key, "x") for key in keys])
    named = [*keys, "none", *keys[:10]]
    removes = command in ("DEL", "UNLINK")
    # EXISTS and TOUCH count a key that is named twice twice.
    assert raw.call(command, *named) == (100 if removes else 110)
    assert raw.call("EXISTS", *keys) == (0 if removes else 100)


@pytest.mark.parametrize("words", [
    ("MSETNX", "a", "1", "b", "2"),
    ("RENAME", "a", "b"),
    ("SUNION", "a", "b"),
    ("EVAL", "return 1", "2", "a", "b"),
    ("BLPOP", "a", "b", "1"),
    ("COPY", "a", "b"),
    ("PFCOUNT", "a", "b"),
])
def test_others_over_slots_get_the_words_of_the_server(raw, words):
    assert raw.call(*words) == \
        "CROSSSLOT Keys in request don't hash to the same slot"
    assert raw.call("PING") == b"PONG"


def test_others_in_one_slot_work(raw):
    assert raw.call("MSETNX", "a{t}", "1", "b{t}", "2") == 1
    assert raw.call("RENAME", "a{t}", "c{t}") == b"OK"
    assert raw.call("EVAL", "return redis.call('mget', KEYS[1], KEYS[2])",
                    "2", "b{t}", "c{t}") == [b"2", b"1"]


def test_wrong_arguments_get_the_words_of_the_server(raw):
    wrong = "ERR wrong number of arguments for '{}' command"
    assert raw.call("MSET", "a") == wrong.format("mset")
    assert raw.call("MSET", "a", "1", "a") == wrong.format("mset")
    assert raw.call("MGET") == wrong.format("mget")
    assert raw.call("DEL") == wrong.format("del")
    assert raw.call("GET") == wrong.format("get")


# -- the whole cluster

@pytest.mark.parametrize("options", [
    (), ("COUNT", "1000"), ("MATCH", "scan:*", "COUNT", "1000"),
    ("TYPE", "string", "COUNT", "1000")])
def test_scan_returns_each_key(cluster_redial, options):
    count = 20000 if "COUNT" in options else 2000
    names = cluster_scan.fill(cluster_redial.port, count)
    seen, _ = cluster_scan.scan(cluster_redial.port, *options)
    assert cluster_scan.check(names, seen) == []


def test_the_check_of_scan_can_fail():
    assert cluster_scan.check([b"a"], {}) != []
    assert cluster_scan.check([b"a"], {b"a": 1, b"b": 1}) != []
    assert cluster_scan.check([b"a"], {b"a": 2}) != []
    assert cluster_scan.check([b"a"], {b"a": 1}) == []


def test_dbsize_keys_and_randomkey_see_all_nodes(cluster, raw):
    keys = spread(cluster, "w")
    assert raw.call("DBSIZE") == 0
    assert raw.call("RANDOMKEY") is None
    assert raw.call("KEYS", "*") == []
    raw.pipeline([("SET", key, "x") for key in keys])
    raw.call("SET", "other", "x")
    assert raw.call("DBSIZE") == 10
    assert sorted(raw.call("KEYS", "w*")) == sorted(k.encode() for k in keys)
    seen = set()

    def random_of_all():
        seen.add(raw.call("RANDOMKEY"))
        return len({key_slot(key) // (SLOTS // 3 + 1) for key in seen}) == 3
    wait_until(random_of_all, "RANDOMKEY to name keys of each node")


def test_randomkey_finds_the_only_key(raw):
    raw.call("SET", "only", "x")
    assert {raw.call("RANDOMKEY") for _ in range(20)} == {b"only"}


@pytest.mark.parametrize("command", ["FLUSHALL", "FLUSHDB"])
def test_flush_empties_all_nodes(cluster, raw, command):
    raw.pipeline([("SET", key, "x") for key in spread(cluster, "f")])
    assert raw.call(command) == b"OK"
    assert [n.ask("DBSIZE") for n in cluster.primaries()] == [0, 0, 0]


def test_scripts_are_known_everywhere(cluster, raw):
    sha = raw.call("SCRIPT", "LOAD", "return redis.call('incr', KEYS[1])")
    assert raw.call("SCRIPT", "EXISTS", sha, "0" * 40) == [1, 0]
    for key in spread(cluster, "s"):
        assert raw.call("EVALSHA", sha, "1", key) == 1
    assert raw.call("SCRIPT", "FLUSH") == b"OK"
    for key in spread(cluster, "s"):
        assert raw.call("EVALSHA", sha, "1", key).code == "NOSCRIPT"


def test_functions_are_known_everywhere(cluster, raw):
    code = "#!lua name=lib\nredis.register_function('f', " \
           "function(keys) return redis.call('incr', keys[1]) end)"
    assert raw.call("FUNCTION", "LOAD", code) == b"lib"
    for key in spread(cluster, "s"):
        assert raw.call("FCALL", "f", "1", key) == 1
    assert raw.call("FUNCTION", "DELETE", "lib") == b"OK"
    for node in cluster.primaries():
        assert node.ask("FUNCTION", "LIST") == []


def test_other_databases_are_refused_as_by_the_server(raw):
    assert raw.call("SELECT", "0") == b"OK"
    assert raw.call("SELECT", "1") == "ERR SELECT is not allowed in " \
                                      "cluster mode"
    assert raw.call("SET", "a", "1") == b"OK"


def test_wait_counts_the_replicas(cluster, raw):
    for key in spread(cluster, "w", 1):
        assert raw.call("SET", key, "1") == b"OK"
        assert raw.call("WAIT", "1", "5000") == 1


# -- transactions, blocking, messages

def test_a_transaction_in_one_slot(cluster, client):
    for key in spread(cluster, "t"):
        with client.pipeline(transaction=True) as block:
            block.set(key, 1)
            block.incr(key)
            block.get(key)
            assert block.execute() == [True, 2, "2"]


def test_watch_sees_a_change(cluster, cluster_redial):
    for key in spread(cluster, "t", 1):
        with cluster_redial.connect() as c, cluster_redial.connect() as other:
            assert c.call("WATCH", key) == b"OK"
            assert other.call("SET", key, "2") == b"OK"
            assert c.pipeline([("MULTI",), ("SET", key, "3"), ("EXEC",)]) \
                == [b"OK", b"QUEUED", None]
            assert c.call("WATCH", key) == b"OK"
            assert c.pipeline([("MULTI",), ("INCR", key), ("EXEC",)]) \
                == [b"OK", b"QUEUED", [3]]


def test_a_transaction_over_slots_is_refused_whole(cluster, raw):
    one, two = spread(cluster, "t", 1)[:2]
    replies = raw.pipeline([("MULTI",), ("SET", one, "1"), ("SET", two, "1"),
                            ("EXEC",)])
    assert replies[:2] == [b"OK", b"QUEUED"]
    assert {reply.code for reply in replies[2:] if reply != b"QUEUED"} \
        <= {"CROSSSLOT", "NOTAPPLIED", "EXECABORT"}, replies
    assert hasattr(replies[3], "code"), replies
    assert raw.call("EXISTS", one, two) == 0


def test_a_blocking_pop_meets_its_push(cluster, cluster_redial):
    for key in spread(cluster, "b", 1):
        with cluster_redial.connect() as waiter, \
                cluster_redial.connect() as pusher:
            waiter.send("BLPOP", key, "20")
            blocked = cluster.owner(key_slot(key))
            wait_until(lambda: any("b" in row["flags"] for row in
                                   blocked.clients()), "BLPOP to wait")
            assert pusher.call("RPUSH", key, "x") == 1
            assert waiter.read() == [key.encode(), b"x"]


def test_messages_reach_subscribers(cluster_redial):
    with cluster_redial.connect() as sub, cluster_redial.connect() as pub:
        assert sub.call("SUBSCRIBE", "news") == [b"subscribe", b"news", 1]
        # A message to another node of the cluster comes over its bus.
        for i in range(50):
            pub.call("PUBLISH", "news", i)
        for i in range(50):
            assert sub.read() == [b"message", b"news", b"%d" % i]


def test_sharded_messages_reach_subscribers(cluster, cluster_redial):
    for channel in spread(cluster, "ch", 1):
        with cluster_redial.connect() as sub, cluster_redial.connect() as pub:
            assert sub.call("SSUBSCRIBE", channel) == \
                [b"ssubscribe", channel.encode(), 1]
            assert pub.call("SPUBLISH", channel, "hello") == 1
            assert sub.read() == [b"smessage", channel.encode(), b"hello"]


def test_resp3_as_well(cluster_redial, raw):
    assert dict(raw.call("HELLO", "3"))[b"proto"] == 3
    raw.call("HSET", "h", "a", "1")
    assert raw.call("HGETALL", "h") == [(b"a", b"1")]
    assert raw.call("MGET", "h", "none") == [None, None]
    assert raw.call("SUBSCRIBE", "c") == Push([b"subscribe", b"c", 1])


# -- what clients are shown of the cluster

def test_one_node_owns_all_slots(cluster_redial, raw):
    rows = raw.call("CLUSTER", "SLOTS")
    assert len(rows) == 1 and rows[0][:2] == [0, SLOTS - 1]
    host, port, node_id = rows[0][2][:3]
    assert (host.decode(), port) == (HOST, cluster_redial.port)
    assert raw.call("CLUSTER", "MYID") == node_id
    shards = raw.call("CLUSTER", "SHARDS")
    assert len(shards) == 1
    shard = dict(zip(shards[0][0::2], shards[0][1::2]))
    assert shard[b"slots"] == [0, SLOTS - 1]
    (node,) = shard[b"nodes"]
    node = dict(zip(node[0::2], node[1::2]))
    assert node[b"port"] == cluster_redial.port and node[b"role"] == b"master"
    (line,) = raw.call("CLUSTER", "NODES").decode().splitlines()
    assert line.split()[0] == node_id.decode()
    assert line.split()[1].startswith(f"{HOST}:{cluster_redial.port}@")
    assert line.endswith(f"0-{SLOTS - 1}") and "myself,master" in line
    info = raw.call("CLUSTER", "INFO").decode()
    for words in ("cluster_state:ok", f"cluster_slots_assigned:{SLOTS}",
                  "cluster_known_nodes:1", "cluster_size:1"):
        assert words in info


def test_slots_of_keys(cluster, raw):
    assert raw.call("CLUSTER", "KEYSLOT", "foo{bar}") == key_slot("bar")
    for key in spread(cluster, "s", 1):
        raw.call("SET", key, "1")
        assert raw.call("CLUSTER", "COUNTKEYSINSLOT", key_slot(key)) == 1


def test_nothing_is_asked_twice_of_a_quiet_cluster(cluster_redial, raw):
    """Without faults no request is redirected once the slots are known."""
    raw.pipeline([("SET", f"q:{i}", i) for i in range(100)])
    before = redirects(cluster_redial)
    raw.pipeline([("SET", f"q:{i}", i) for i in range(3000)])
    assert redirects(cluster_redial) == before
    assert {"moved", "ask", "tryagain"} <= set(before)


def test_many_clients_at_once(cluster, cluster_redial):
    bad = []

    def work(number):
        with cluster_redial.connect() as c:
            for i in range(200):
                key = f"many:{number}:{i % 20}"
                if c.call("SET", key, i) != b"OK" or \
                        c.call("GET", key) != b"%d" % i:
                    bad.append((number, i))
    began = time.monotonic()
    threads = [threading.Thread(target=work, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert bad == [] and time.monotonic() - began < 60
    lanes = [len([row for row in node.clients()
                  if row["name"].startswith("redial")])
             for node in cluster.primaries()]
    assert all(1 <= n <= 8 for n in lanes), lanes
