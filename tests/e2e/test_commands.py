"""What lives in a connection: transactions, subscriptions, blocking, names,
databases, reply modes. They work while nothing fails, never reach another
client, and end truthfully when the server dies in them."""

import threading

import pytest

from relay import RST
from resp import Push, ReplyError, encode
from wait import wait_until

TRUTH = ("UNKNOWNOUTCOME", "NOTAPPLIED")


# When nothing fails (these hold for a direct connection too)

def test_transactions(redial):
    with redial.connect() as c, redial.connect() as other:
        assert c.pipeline([("MULTI",), ("INCR", "n"), ("GET", "n"),
                           ("EXEC",)]) == [b"OK", b"QUEUED", b"QUEUED",
                                           [1, b"1"]]
        assert c.call("MULTI") == b"OK"
        assert c.call("SET", "n", "9") == b"QUEUED"
        assert other.call("GET", "n") == b"1"
        assert c.call("DISCARD") == b"OK"
        assert c.call("GET", "n") == b"1"
        assert c.call("WATCH", "n") == b"OK"
        assert other.call("SET", "n", "5") == b"OK"
        assert c.pipeline([("MULTI",), ("SET", "n", "6"), ("EXEC",)]) \
            == [b"OK", b"QUEUED", None]
        assert c.call("GET", "n") == b"5"
        assert c.call("MULTI") == b"OK"
        assert c.call("NOSUCH").startswith("ERR unknown command")
        assert c.call("EXEC").startswith("EXECABORT")
        assert c.call("EXEC") == "ERR EXEC without MULTI"
        assert c.call("MULTI") == b"OK"
        assert c.call("MULTI").startswith("ERR MULTI calls can not be nested")
        assert c.call("WATCH", "x").startswith("ERR WATCH inside MULTI")
        assert c.call("DISCARD") == b"OK"


def test_a_transaction_left_open_harms_nobody(redial, redis):
    with redial.connect() as c:
        assert c.call("MULTI") == b"OK"
        assert c.call("SET", "k", "left") == b"QUEUED"
    with redial.connect() as c:
        assert c.call("SET", "k", "v") == b"OK"
        assert c.call("GET", "k") == b"v"
    wait_until(lambda: all(row["multi"] == "-1" for row in redis.clients()),
               "the open transaction to end")
    assert redis.call("GET", "k") == b"v"


def test_subscriptions(redial):
    with redial.connect() as c, redial.connect() as other:
        assert c.call("SUBSCRIBE", "a", "b") == [b"subscribe", b"a", 1]
        assert c.read() == [b"subscribe", b"b", 2]
        assert c.call("PSUBSCRIBE", "x*") == [b"psubscribe", b"x*", 3]
        assert c.call("GET", "k").startswith("ERR Can't execute 'get'")
        assert c.call("PING") == [b"pong", b""]
        assert other.call("PUBLISH", "a", "1") == 1
        assert other.call("PUBLISH", "xy", "2") == 1
        assert c.read() == [b"message", b"a", b"1"]
        assert c.read() == [b"pmessage", b"x*", b"xy", b"2"]
        left = [c.call("UNSUBSCRIBE"), c.read()]
        assert sorted(x[1] for x in left) == [b"a", b"b"]
        assert [x[2] for x in left] == [2, 1]
        assert c.call("PUNSUBSCRIBE") == [b"punsubscribe", b"x*", 0]
        assert c.call("SET", "k", "v") == b"OK"
        assert c.call("SSUBSCRIBE", "s") == [b"ssubscribe", b"s", 1]
        assert other.call("SPUBLISH", "s", "3") == 1
        assert c.read() == [b"smessage", b"s", b"3"]


def test_subscriptions_of_resp3_share_the_connection_with_commands(redial):
    with redial.connect() as c:
        c.call("HELLO", "3")
        assert c.call("SUBSCRIBE", "a") == [b"subscribe", b"a", 1]
        c.send_raw(encode("SET", "k", "v") + encode("PUBLISH", "a", "m")
                   + encode("GET", "k"))
        got = [c.read() for _ in range(4)]
        assert [x for x in got if isinstance(x, Push)] \
            == [[b"message", b"a", b"m"]]
        assert [x for x in got if not isinstance(x, Push)] \
            == [b"OK", 1, b"v"]


def test_blocking_commands(redial, redis):
    with redial.connect() as c, redial.connect() as d, \
            redial.connect() as other:
        c.send("BLPOP", "q", "10")
        d.send("BLMOVE", "src", "dst", "LEFT", "RIGHT", "10")
        wait_until(lambda: b"blocked_clients:2" in redis.call(
            "INFO", "clients"), "both to block")
        assert other.call("RPUSH", "q", "x") == 1, "others are not blocked"
        assert c.read() == [b"q", b"x"]
        assert other.call("RPUSH", "src", "y") == 1
        assert d.read() == b"y"
        assert c.call("BRPOP", "q", "0.05") is None
        c.send("XREAD", "BLOCK", "10000", "STREAMS", "s", "$")
        wait_until(lambda: b"blocked_clients:1" in redis.call(
            "INFO", "clients"), "XREAD to block")
        assert other.call("XADD", "s", "5-1", "f", "v") == b"5-1"
        assert c.read() == [[b"s", [[b"5-1", [b"f", b"v"]]]]]
        assert c.call("GET", "none") is None


def test_a_client_that_leaves_while_blocked_takes_nothing(redial, redis):
    with redial.connect() as c:
        c.send("BLPOP", "q", "0")
        wait_until(lambda: b"blocked_clients:1" in redis.call(
            "INFO", "clients"), "BLPOP to block")
    wait_until(lambda: b"blocked_clients:0" in redis.call("INFO", "clients"),
               "the server to forget it")
    assert redis.call("RPUSH", "q", "x") == 1
    assert redis.call("LLEN", "q") == 1


@pytest.mark.parametrize("behind", [
    b"QUIT\r\n",
    b"*1\r\n$-1\r\n",
    b"PING\r\n" * 2000,
], ids=["quit", "garbage", "pipeline_max"])
def test_a_blocked_client_that_is_not_read_takes_nothing(
        redial, redis, behind):
    client = redial.connect()
    client.send_raw(b"BLPOP jobs 0\r\n" + behind)
    wait_until(lambda: b"blocked_clients:1" in redis.call("INFO", "clients"),
               "the client is blocked")
    client.close()
    wait_until(lambda: b"blocked_clients:0" in redis.call("INFO", "clients"),
               "the server has noticed")
    redis.call("RPUSH", "jobs", "job")
    assert redis.call("LLEN", "jobs") == 1


def test_client_unblock_and_kill_by_id(redial):
    with redial.connect() as c, redial.connect() as other:
        number = c.call("CLIENT", "ID")
        c.send("BLPOP", "q", "0")
        wait_until(lambda: other.call("CLIENT", "UNBLOCK", number, "ERROR"),
                   "the client to be unblocked")
        assert c.read().startswith("UNBLOCKED client unblocked")


def test_monitor(redial):
    with redial.connect() as c, redial.connect() as other:
        assert c.call("MONITOR") == b"OK"

        def seen():
            other.call("GET", "watched")
            return b'"GET" "watched"' in c.read()
        wait_until(seen, "MONITOR to show a GET")


def test_databases_are_kept_apart(redial):
    clients = [redial.connect() for _ in range(8)]
    for db, c in enumerate(clients):
        assert c.call("SELECT", db) == b"OK"
    for db, c in enumerate(clients):
        assert c.pipeline([("SET", "k", db), ("INCR", "n"), ("GET", "k")]) \
            == [b"OK", 1, str(db).encode()]
    c = clients[0]
    assert c.pipeline([("SELECT", 1), ("GET", "k"), ("SELECT", 2),
                       ("GET", "k"), ("SELECT", 99), ("GET", "k"),
                       ("SELECT", "x")]) \
        == [b"OK", b"1", b"OK", b"2", "ERR DB index is out of range", b"2",
            "ERR value is not an integer or out of range"]
    # In a transaction it holds from there on, and after EXEC.
    assert c.pipeline([("MULTI",), ("SELECT", 3), ("GET", "k"), ("EXEC",),
                       ("GET", "k")])[3:] == [[b"OK", b"3"], b"3"]
    assert c.call("MOVE", "none", 5) == 0
    for c in clients:
        c.close()


def test_client_names(redial):
    with redial.connect() as c, redial.connect() as d:
        assert c.call("CLIENT", "GETNAME") in (None, b"")
        assert c.call("CLIENT", "SETNAME", "me") == b"OK"
        assert c.call("CLIENT", "GETNAME") == b"me"
        assert d.call("CLIENT", "GETNAME") in (None, b"")
        assert c.call("CLIENT", "SETNAME", "a b").startswith("ERR Client name")
        assert c.call("CLIENT", "GETNAME") == b"me"
        assert c.call("CLIENT", "NOSUCH").startswith("ERR unknown subcommand")


def test_client_reply(redial):
    with redial.connect() as c:
        c.send("CLIENT", "REPLY", "OFF")
        for _ in range(10):
            c.send("INCR", "n")
        assert c.call("CLIENT", "REPLY", "ON") == b"OK"
        assert c.call("GET", "n") == b"10"
        c.send("CLIENT", "REPLY", "SKIP")
        c.send("INCR", "n")
        assert c.call("GET", "n") == b"11"
        c.send("CLIENT", "REPLY", "OFF")
        c.send("NOSUCH")
        assert c.pipeline([("CLIENT", "REPLY", "ON"), ("ECHO", "x")]) \
            == [b"OK", b"x"]
        assert c.call("CLIENT", "REPLY", "WHAT").startswith("ERR")


def test_reset_and_quit(redial):
    with redial.connect() as c:
        c.pipeline([("SELECT", 4), ("CLIENT", "SETNAME", "me"),
                    ("SET", "k", "v"), ("MULTI",)])
        assert c.call("RESET") == b"RESET"
        assert c.call("GET", "k") is None
        assert c.call("CLIENT", "GETNAME") in (None, b"")
        assert c.call("EXEC") == "ERR EXEC without MULTI"
        c.send_raw(encode("PING") + encode("QUIT") + encode("PING"))
        assert c.read_to_end() == b"+PONG\r\n+OK\r\n"


def test_cursors_and_scripts(redial):
    with redial.connect() as c:
        c.pipeline([("SET", f"k:{i}", i) for i in range(300)])
        found, cursor = set(), b"0"
        while True:
            cursor, keys = c.call("SCAN", cursor, "COUNT", "20")
            found.update(keys)
            if cursor == b"0":
                break
        assert len(found) == 300
        sha = c.call("SCRIPT", "LOAD", "return redis.call('GET', KEYS[1])")
        assert c.call("EVALSHA", sha, "1", "k:7") == b"7"
        assert c.call("EVALSHA", "0" * 40, "0").startswith("NOSCRIPT")
        assert c.call("FUNCTION", "LOAD", "#!lua name=l\nredis.register_"
                      "function('f', function(k, a) return a[1] end)") == b"l"
        assert c.call("FCALL", "f", "0", "x") == b"x"


def test_many_private_clients_at_once(redial):
    """Private lanes are opened and given back, and stay apart."""
    def work(number, errors):
        try:
            with redial.connect() as c:
                for i in range(20):
                    got = c.pipeline([
                        ("MULTI",), ("SET", f"m:{number}", i),
                        ("GET", f"m:{number}"), ("EXEC",),
                        ("GET", f"m:{number}")])
                    assert got[3:] == [[b"OK", str(i).encode()],
                                       str(i).encode()]
        except Exception as error:  # noqa: BLE001 - told below
            errors.append(error)
    errors = []
    threads = [threading.Thread(target=work, args=(n, errors))
               for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []


# When the server dies in the middle

@pytest.mark.needs_redial
def test_server_dies_in_a_transaction(redis, redial):
    with redial.connect() as c:
        assert c.call("MULTI") == b"OK"
        assert c.call("INCR", "n") == b"QUEUED"
        redis.kill9()
        redis.restart()
        answers = [c.call("INCR", "n"), c.call("EXEC")]
        assert redis.call("GET", "n") in (None, b"2")
        if redis.call("GET", "n") is None:
            assert isinstance(answers[1], ReplyError), answers
            assert answers[1].code in (*TRUTH, "EXECABORT"), answers
        else:
            assert answers == [b"QUEUED", [1, 2]]
        assert c.call("SET", "k", "v") == b"OK", "usable again"
        assert c.pipeline([("MULTI",), ("INCR", "m"), ("EXEC",)])[2] == [1]


@pytest.mark.needs_redial
def test_server_dies_while_a_key_is_watched(redis, redial):
    with redial.connect() as c:
        assert c.call("SET", "w", "1") == b"OK"
        assert c.call("WATCH", "w") == b"OK"
        redis.kill9()
        redis.restart()
        assert redis.call("SET", "w", "other") == b"OK"
        answers = c.pipeline([("MULTI",), ("SET", "w", "mine"), ("EXEC",)])
        assert redis.call("GET", "w") == b"other", answers
        assert answers[2] is None or isinstance(answers[2], ReplyError)
        assert c.call("GET", "w") == b"other"


@pytest.mark.needs_redial
def test_server_dies_under_a_blocked_client(redis, redial):
    with redial.connect() as c:
        c.send("BLPOP", "q", "0")
        wait_until(lambda: b"blocked_clients:1" in redis.call(
            "INFO", "clients"), "BLPOP to block")
        redis.kill9()
        redis.restart()
        answer = c.read()
        assert isinstance(answer, ReplyError) and answer.code in TRUTH, answer
        assert c.call("SET", "k", "v") == b"OK"


@pytest.mark.needs_redial
def test_server_dies_under_a_subscriber(redis, redial):
    """Today a lost subscription is told: by an error or by a close, never by
    silence."""
    with redial.connect() as c:
        assert c.call("SUBSCRIBE", "a") == [b"subscribe", b"a", 1]
        redis.kill9()
        redis.restart()

        def told():
            if c.is_closed_by_peer():
                return "closed"
            if c.buf:
                return c.read()
            redis.call("PUBLISH", "a", "m")
            return None
        answer = wait_until(told, "a sign", timeout=20)
        assert answer == "closed" or isinstance(answer, ReplyError) \
            or answer[0] == b"message", answer
    assert redial.metric("pubsub_gaps") >= 1


@pytest.mark.needs_redial
def test_server_dies_under_monitor_and_tracking(redis, redial):
    for command in (("MONITOR",), ("CLIENT", "TRACKING", "ON")):
        with redial.connect() as c:
            c.call("HELLO", "3")
            assert c.call(*command) == b"OK"
            redis.kill9()
            redis.restart()
            with redial.connect() as other:
                assert other.call("SET", "k", "v") == b"OK"


@pytest.mark.needs_redial
def test_databases_survive_a_restart(redis, redial):
    """I8: SELECT is not forgotten on a new lane."""
    clients = [redial.connect() for _ in range(4)]
    for db, c in enumerate(clients):
        assert c.call("SELECT", db) == b"OK"
        assert c.call("CLIENT", "SETNAME", f"c{db}") == b"OK"
        c.call("GET", "k")
    redis.kill9()
    redis.restart()
    for db, c in enumerate(clients):
        assert c.call("SET", "k", db) == b"OK"
        assert c.call("CLIENT", "GETNAME") == f"c{db}".encode()
    for db, c in enumerate(clients):
        with redis.connect() as check:
            check.call("SELECT", db)
            assert check.call("GET", "k") == str(db).encode()
        c.close()


@pytest.mark.needs_redial
@pytest.mark.parametrize("sent", [
    [("WATCH", "k")],
    [("WATCH", "k"), ("WATCH", "j")],
    [("WATCH", "k"), ("MULTI",), ("SET", "x", "1"), ("EXEC",)]])
def test_a_watch_that_was_not_sent_does_not_outlive_its_exec(
        redis, make_redial, make_relay, sent):
    """WATCH and the loss of the connection arrive at the same moment, so that
    WATCH has not left yet. The next EXEC may be null, the one after it not."""
    relay = make_relay(redis.port)
    redial = make_redial(relay.url)
    with redial.connect() as c:
        assert c.pipeline([("MULTI",), ("EXEC",)]) == [b"OK", []]
        redial.stop_running()
        c.send_raw(b"".join(encode(*words) for words in sent))
        relay.cut_all(RST)
        redial.go_on()
        answers = [c.read() for _ in sent]
        assert answers[0] == b"OK"
        if len(answers) < 4:
            answers = c.pipeline([("MULTI",), ("SET", "x", "1"), ("EXEC",)])
        assert answers[-1] in (None, [b"OK"])
        assert c.pipeline([("SET", "k", "2"), ("SET", "j", "2")]) \
            == [b"OK", b"OK"]
        assert c.pipeline([("MULTI",), ("SET", "x", "1"), ("EXEC",)]) \
            == [b"OK", b"QUEUED", [b"OK"]]


@pytest.mark.needs_redial
def test_a_watch_after_a_lost_one_does_not_outlive_its_exec(
        redis, make_redial, make_relay):
    relay = make_relay(redis.port)
    redial = make_redial(relay.url)
    with redial.connect() as c:
        assert c.call("WATCH", "k") == b"OK"
        relay.cut_all(RST)
        wait_until(lambda: redial.metric("lanes_lost") >= 2, "the loss")
        assert c.call("WATCH", "j") == b"OK"
        block = [("MULTI",), ("SET", "x", "1"), ("EXEC",)]
        assert c.pipeline(block) == [b"OK", b"QUEUED", None]
        assert c.call("SET", "j", "2") == b"OK"
        assert c.pipeline(block) == [b"OK", b"QUEUED", [b"OK"]]
