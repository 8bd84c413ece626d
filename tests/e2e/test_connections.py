"""What lives in a connection, while the server is killed and restarted, seen
byte by byte: blocked calls, subscriptions, caches, MONITOR."""

import pytest

from resp import Connection, Push, ReplyError
from wait import wait_until

AOF = {"aof": True, "options": ["--aof-use-rdb-preamble", "no"]}
CLIENTS = 200


@pytest.fixture
def redis(make_redis):
    return make_redis(**AOF)


@pytest.fixture
def connect(redial):
    """connect() to redial, closed at the end."""
    made = []

    def make(port=None, version=2):
        made.append(Connection(("127.0.0.1", port or redial.port), 20))
        if version == 3:
            assert not isinstance(made[-1].call("HELLO", 3), ReplyError)
        return made[-1]
    yield make
    for connection in made:
        connection.close()


def blocked(redis):
    """How many clients the server has blocked."""
    lines = redis.call("INFO", "clients").decode().splitlines()
    words = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(words["blocked_clients"])


def wait_blocked(redis, n):
    wait_until(lambda: blocked(redis) == n, f"{n} clients to be blocked")


def kill_and_restart(redis):
    redis.kill9()
    redis.restart()


# Blocked clients

def test_200_blocked_clients_and_a_restart(redis, connect):
    """Nobody knows whether a pop was executed when the server died: so each
    is told, and asks again. Then each is served once."""
    clients = [connect() for _ in range(CLIENTS)]
    for number, client in enumerate(clients):
        client.send("BLPOP", f"q:{number}", "0")
    wait_blocked(redis, CLIENTS)
    kill_and_restart(redis)
    for client in clients:
        reply = client.read()
        assert isinstance(reply, ReplyError), reply
        assert reply.code == "UNKNOWNOUTCOME"
    for number, client in enumerate(clients):
        client.send("BLPOP", f"q:{number}", "0")
    wait_blocked(redis, CLIENTS)
    with redis.connect() as c:
        for number in range(CLIENTS):
            assert c.call("RPUSH", f"q:{number}", number) == 1
    for number, client in enumerate(clients):
        assert client.read() == [f"q:{number}".encode(),
                                 str(number).encode()]
    assert redis.call("DBSIZE") == 0


def test_200_blocked_readers_and_a_restart(redis, connect):
    """A read is asked again, without a word."""
    clients = [connect() for _ in range(CLIENTS)]
    for number, client in enumerate(clients):
        client.send("XREAD", "BLOCK", "0", "STREAMS", "s", "$")
    wait_blocked(redis, CLIENTS)
    kill_and_restart(redis)
    wait_blocked(redis, CLIENTS)
    redis.call("XADD", "s", "1-1", "f", "v")
    for client in clients:
        assert client.read() == [[b"s", [[b"1-1", [b"f", b"v"]]]]]


def test_200_blocked_clients_and_50_connections(redis, make_redial, connect):
    """Who finds no connection of its own waits until one is free: it is not
    refused."""
    redial = make_redial(redis.url, sets=["upstream.private_lanes_max=50"])
    clients = [connect(redial.port) for _ in range(CLIENTS)]
    for client in clients:
        client.send("BLPOP", "q", "9")
    wait_blocked(redis, 50)
    with redis.connect() as c:
        for number in range(CLIENTS):
            c.call("RPUSH", "q", number)
    items = [client.read() for client in clients]
    assert sorted(items, key=lambda pair: int(pair[1])) == [
        [b"q", str(number).encode()] for number in range(CLIENTS)]


def test_a_proof_lets_a_pop_wait_on(redis, connect):
    """-UNBLOCKED says that nothing was popped: the call goes on, for the rest
    of its time."""
    clients = [connect() for _ in range(20)]
    for number, client in enumerate(clients):
        client.send("BLPOP", f"q:{number}", "30")
    wait_blocked(redis, 20)
    redis.call("REPLICAOF", "127.0.0.1", "1")
    wait_blocked(redis, 0)
    redis.call("REPLICAOF", "NO", "ONE")
    wait_blocked(redis, 20)
    for number, client in enumerate(clients):
        redis.call("RPUSH", f"q:{number}", number)
        assert client.read() == [f"q:{number}".encode(),
                                 str(number).encode()]


@pytest.mark.parametrize("command", [
    ("BLPOP", "q", "0"), ("BRPOP", "q", "0"), ("BLMOVE", "q", "other",
                                               "LEFT", "RIGHT", "0"),
    ("BLMPOP", "0", "1", "q", "LEFT"), ("BRPOPLPUSH", "q", "other", "0"),
])
def test_who_left_pops_nothing(redis, connect, command):
    for _ in range(5):
        client = connect()
        client.send(*command)
        wait_blocked(redis, 1)
        client.close()
        wait_blocked(redis, 0)
        assert redis.call("RPUSH", "q", "item") == 1
        assert redis.call("LRANGE", "q", 0, -1) == [b"item"]
        redis.call("DEL", "q")


def test_who_left_while_the_server_was_away_pops_nothing(redis, connect):
    client = connect()
    redis.kill9()
    client.send("BLPOP", "q", "0")
    client.close()
    redis.restart()
    with connect() as other:  # redial is connected again
        assert other.call("PING") == b"PONG"
    assert redis.call("RPUSH", "q", "item") == 1
    assert blocked(redis) == 0
    assert redis.call("LLEN", "q") == 1


# Client-side caches

def read_flush(client):
    """Told to forget when the connection is lost, and again when the server
    tells of changes again: nobody knows what changed meanwhile."""
    for _ in range(2):
        push = client.read()
        assert isinstance(push, Push) and push == [b"invalidate", None]


def test_a_cache_is_told_to_forget(redis, connect):
    client = connect(version=3)
    assert client.call("CLIENT", "TRACKING", "ON") == b"OK"
    assert client.call("SET", "k", "1") == b"OK"
    assert client.call("GET", "k") == b"1"
    for turn in range(2, 5):
        kill_and_restart(redis)
        read_flush(client)
        assert client.call("GET", "k") == str(turn - 1).encode()
        redis.call("SET", "k", turn)
        push = client.read()
        assert isinstance(push, Push) and push == [b"invalidate", [b"k"]]
        assert client.call("GET", "k") == str(turn).encode()


def test_a_cache_that_asks_for_prefixes(redis, connect):
    client = connect(version=3)
    assert client.call("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX",
                       "a:") == b"OK"
    kill_and_restart(redis)
    read_flush(client)
    redis.call("SET", "b:1", "x")
    redis.call("SET", "a:1", "x")
    assert client.read() == [b"invalidate", [b"a:1"]]


# Subscriptions

@pytest.mark.parametrize("version", [2, 3])
def test_all_subscriptions_come_back(redis, connect, version):
    """And nothing is seen of it."""
    client = connect(version=version)
    names = [("SUBSCRIBE", "a"), ("SUBSCRIBE", "b"), ("PSUBSCRIBE", "p*"),
             ("SSUBSCRIBE", "s")]
    counts = [1, 2, 3, 1]
    for (how, name), count in zip(names, counts):
        assert client.call(how, name) == [how.lower().encode(),
                                          name.encode(), count]
    assert client.call("UNSUBSCRIBE", "b") == [b"unsubscribe", b"b", 2]
    for turn in range(3):
        kill_and_restart(redis)
        wait_until(lambda: redis.call("PUBLISH", "a", "x") == 1, "it")
        # The lane is whole before it is used: all are there.
        assert redis.call("PUBLISH", "b", "x") == 0
        assert redis.call("PUBLISH", "pat", "x") == 1
        assert redis.call("SPUBLISH", "s", "x") == 1
        assert client.read() == [b"message", b"a", b"x"]
        assert client.read() == [b"pmessage", b"p*", b"pat", b"x"]
        assert client.read() == [b"smessage", b"s", b"x"]
    client.send("PING", "still")
    assert client.read() == ([b"pong", b"still"] if version == 2
                             else b"still")


def test_who_leaves_its_subscriptions_shares_again(redis, connect):
    client = connect()
    client.call("SUBSCRIBE", "a")
    kill_and_restart(redis)
    assert client.call("UNSUBSCRIBE") == [b"unsubscribe", b"a", 0]
    assert client.call("SET", "k", "v") == b"OK"
    kill_and_restart(redis)
    assert client.call("GET", "k") == b"v"


# MONITOR

def test_monitor_goes_on(redis, connect):
    client = connect()
    assert client.call("MONITOR") == b"OK"
    for turn in range(3):
        redis.call("SET", "k", turn)
        line = client.read()
        while b'"SET"' not in line:
            line = client.read()
        assert line.endswith(b'"SET" "k" "%d"' % turn)
        kill_and_restart(redis)
        wait_until(lambda: any(row.get("flags", "") and "O" in row["flags"]
                               for row in redis.clients()), "a monitor")


# Transactions

def test_a_block_goes_on_after_a_restart(redis, connect):
    """What was queued is queued again: the client sees nothing of it."""
    client = connect()
    assert client.call("MULTI") == b"OK"
    assert client.call("INCR", "n") == b"QUEUED"
    kill_and_restart(redis)
    assert client.call("INCR", "n") == b"QUEUED"
    kill_and_restart(redis)
    assert client.call("EXEC") == [1, 2]


def test_a_watch_that_was_lost(redis, connect):
    client = connect()
    assert client.call("WATCH", "k") == b"OK"
    kill_and_restart(redis)
    assert client.call("GET", "k") is None
    assert client.call("MULTI") == b"OK"
    assert client.call("SET", "k", "v") == b"QUEUED"
    assert client.call("EXEC") is None
    assert redis.call("EXISTS", "k") == 0
    # And then all is as new.
    assert client.call("MULTI") == b"OK"
    assert client.call("SET", "k", "v") == b"QUEUED"
    assert client.call("EXEC") == [b"OK"]
