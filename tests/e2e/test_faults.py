"""What a client sees, request by request, when the server or the path to it
fails. Small and exact; the load is in test_scenarios.py."""

import socket
import threading
import time

import pytest

import aof
from history import (FAIL, INFO, OK, Op, check_aof, check_append,
                     check_counter, check_echo, outcome_of_error)
from relay import FIN, RST, SILENCE, TO_CLIENT, TO_SERVER
from resp import ReplyError, encode
from scripted import ScriptedServer
from servers import free_port
from wait import wait_until

pytestmark = pytest.mark.needs_redial
AOF = {"aof": True, "options": ["--aof-use-rdb-preamble", "no"]}


def in_background(function, *args):
    """Run function in a thread; join() gives its value."""
    result = []
    thread = threading.Thread(target=lambda: result.append(function(*args)),
                              daemon=True)
    thread.start()

    def join(timeout=30):
        thread.join(timeout)
        assert result, "no answer"
        return result[0]
    return join


def has_held(redial, n=1):
    wait_until(lambda: redial.metric("requests_held") >= n,
               f"{n} requests to be held")


# The server is away

def test_a_request_waits_for_the_server_to_come_back(redis, make_redial):
    redial = make_redial(redis.url)
    with redial.connect() as c:
        assert c.call("INCR", "n") == 1
        redis.kill9()
        c.send("INCR", "n")
        has_held(redial)
        redis.restart()
        assert c.read() == 1, "sent once, to the empty server"


def test_a_request_the_kernel_took_in_part_was_not_sent(redis, make_redial,
                                                        make_relay):
    """Half of a large RPUSH is in the kernel's buffers when the connection
    breaks: the server can't have executed it, so it is sent again."""
    relay = make_relay(redis.port)
    redial = make_redial(relay.url, sets=["upstream.replay_bytes_max=64MiB"])
    value = b"x" * (24 << 20)  # more than all buffers on the way hold
    with redial.connect() as c:
        assert c.call("PING") == b"PONG"
        relay.hold_to_server = True
        before = redial.metric("requests_in_flight")
        c.send("RPUSH", "l", value)
        wait_until(lambda: redial.metric("requests_in_flight") > before
                   and relay.received[TO_SERVER] > 1 << 20,
                   "the request to be on its way")
        relay.cut_all(RST)
        relay.hold_to_server = False
        assert c.read() == 1
        assert redis.call("LLEN", "l") == 1
        assert redis.call("STRLEN", "k") == 0


def test_a_server_that_starts_late_is_waited_for(make_redis, make_redial):
    redis = make_redis(start=False)
    redial = make_redial(redis.url)
    assert redial.http("/ready")[0] != 200
    with redial.connect() as c:
        c.send("INCR", "n")
        has_held(redial)
        redis.start()
        assert c.read() == 1
    wait_until(lambda: redial.http("/ready")[0] == 200, "ready")


def test_a_server_that_never_comes_is_told_truthfully(make_redial):
    port = free_port()
    redial = make_redial(f"redis://127.0.0.1:{port}",
                         sets=["upstream.deadline=300ms"])
    with redial.connect() as c:
        before = time.monotonic()
        error = c.call("INCR", "n")
        took = time.monotonic() - before
        assert isinstance(error, ReplyError) and error.code == "NOTAPPLIED"
        assert 0.25 <= took <= 3
        assert str(port) in error or "default" in error, error
        assert "efused" in error, f"the cause in words: {error}"
        assert c.call("GET", "n").code == "NOTAPPLIED"
        assert c.call("CLIENT", "GETNAME") in (None, b""), "still open"
    assert redial.metric("not_applied") >= 2


def test_a_long_outage_fails_fast_and_ends_with_the_first_success(
        make_redis, make_redial):
    redis = make_redis(start=False)
    redial = make_redial(redis.url, sets=["upstream.deadline=200ms",
                                          "upstream.fail_fast_after=500ms"])
    with redial.connect() as c:
        def failed_fast():
            before = time.monotonic()
            assert c.call("GET", "k").code == "NOTAPPLIED"
            return time.monotonic() - before < 0.05
        wait_until(failed_fast, "failing fast")
        assert redial.metric("fail_fast") >= 1
        redis.start()
        wait_until(lambda: c.call("SET", "k", "v") == b"OK", "the recovery")


@pytest.mark.parametrize("command, answer", [
    (("GET", "k"), b"v"), (("SET", "k", "w"), b"OK"), (("INCR", "n"), None),
    (("LPUSH", "l", "x"), None), (("DEL", "k"), None),
    (("EVAL", "return redis.call('incr','n')", "1", "n"), None),
    (("MGET", "k", "n"), [b"v", None]), (("EXPIRE", "k", "100"), 1),
    (("SETNX", "x", "1"), None), (("HSET", "h", "a", "1"), None)])
def test_a_request_lost_on_its_way_is_answered_by_its_class(
        redis, make_redial, make_relay, command, answer):
    """Rows 3 and 4 of the fault matrix: all bytes had left but no reply came,
    and not one byte had."""
    relay = make_relay(redis.port)
    redial = make_redial(relay.url)
    with redial.connect() as c:
        assert c.call("SET", "k", "v") == b"OK"
        cut = relay.cut(TO_CLIENT, 0, RST)
        got = c.call(*command)
        assert cut.fired.wait(5)
        if answer is None:
            assert isinstance(got, ReplyError), got
            assert got.code == "UNKNOWNOUTCOME"
        else:
            assert got == answer
        # One that was never sent waits for the next connection.
        redis.call("FLUSHALL")
        redis.call("SET", "k", "v")
        relay.refuse(True)
        relay.cut_all(RST)
        wait_until(lambda: redial.metric("lanes_up") == 0, "the loss")
        c.send(*command)
        has_held(redial)
        relay.refuse(False)
        got = c.read()
        assert not isinstance(got, ReplyError), got
    if answer is None:
        assert redial.metric("unknown_outcome") == 1


@pytest.mark.parametrize("how", [FIN, RST])
def test_a_cut_at_every_byte_shows_no_partial_and_no_strange_reply(
        redis, make_redial, make_relay, how):
    """Rows 3 to 6 with H5, H1 and H2: a small conversation of two clients,
    cut at each byte in each direction, also inside the handshake."""
    relay = make_relay(redis.port)
    redial = make_redial(relay.url, sets=["upstream.backoff_base=1ms",
                                          "upstream.backoff_cap=5ms",
                                          "upstream.budget_min=1000"])
    history = []
    clients = [redial.connect() for _ in range(2)]
    index = 0

    def converse(tag):
        nonlocal index
        commands = [("ECHO", f"echo:{tag}"), ("INCR", "n"),
                    ("RPUSH", "l", f"p:{tag}"), ("ECHO", f"tail:{tag}")]
        for number, c in enumerate(clients):
            c.send_raw(b"".join(
                encode(*[f"{a}:{number}" if ":" in a else a for a in command])
                for command in commands))
        for number, c in enumerate(clients):
            for command in commands:
                before = time.monotonic()
                value = c.read()
                arg = (f"{command[-1]}:{number}" if ":" in command[-1]
                       else None)
                kind = OK
                if isinstance(value, ReplyError):
                    kind = outcome_of_error(value)
                    assert value.code in ("UNKNOWNOUTCOME", "NOTAPPLIED"), \
                        value
                elif isinstance(value, bytes):
                    value = value.decode()
                key = command[1] if len(command) > 2 or arg is None else None
                history.append(Op(f"c{number}", number, index, command[0],
                                  key, arg, before, time.monotonic(), kind,
                                  value))
                index += 1

    request_bytes = 2 * len(encode("ECHO", "echo:x:999:0") * 4)
    for direction, limit, step in ((TO_SERVER, request_bytes, 7),
                                   (TO_CLIENT, 130, 1)):
        for n in range(0, limit, step):
            cut = relay.cut(direction, n, how)
            converse(f"{direction[3]}:{n}")
            relay.forget_cuts()
            assert n > 80 or cut.fired.wait(5)
    for c in clients:
        assert not c.is_closed_by_peer()
        c.close()
    final = int(redis.call("GET", "n"))
    elements = [e.decode() for e in redis.call("LRANGE", "l", 0, -1)]
    for op in history:
        op.t_inv = op.t_ret = 0  # pipelined: no real-time order
    assert check_echo(history) == []
    assert check_counter(history, {"n": final}) == []
    assert check_append(history, {"l": elements}) == []
    reads = [op for op in history if op.op == "ECHO"]
    assert all(op.type == OK for op in reads), "ECHO can always be replayed"


@pytest.mark.parametrize("direction", [TO_SERVER, TO_CLIENT])
def test_a_cut_inside_the_handshake_is_tried_again(redis, make_redial,
                                                   make_relay, direction):
    relay = make_relay(redis.port)
    cut = relay.cut(direction, 0, FIN)
    redial = make_redial(relay.url, sets=["upstream.backoff_base=1ms",
                                          "upstream.backoff_cap=5ms"])
    with redial.connect() as c:
        assert c.call("SET", "k", "v") == b"OK"
        assert cut.fired.wait(5)
        for n in range(1, 200, 5):
            cut = relay.cut(direction, n, RST)
            relay.cut_all(RST)
            assert c.call("GET", "k") == b"v"
            relay.forget_cuts()


def test_resets_while_many_clients_echo(redis, make_redial, make_relay):
    """H5 under a storm of resets: ten clients with pipelines of 50."""
    relay = make_relay(redis.port)
    redial = make_redial(relay.url, sets=["upstream.backoff_base=1ms",
                                          "upstream.budget_min=1000000",
                                          "upstream.retries=-1"])
    stop = threading.Event()

    def echo(number):
        history = []
        with redial.connect() as c:
            batch = 0
            while not stop.is_set():
                tags = [f"{number}:{batch}:{i}".encode() for i in range(50)]
                for tag, value in zip(tags, c.pipeline(
                        [("ECHO", tag) for tag in tags])):
                    kind = (outcome_of_error(value)
                            if isinstance(value, ReplyError) else OK)
                    history.append(Op(str(number), number, batch, "ECHO",
                                      None, tag, 0, 0, kind, value))
                batch += 1
        return history
    joins = [in_background(echo, number) for number in range(10)]
    for i in range(60):
        wait_until(lambda: relay.connections > 0, "a lane")
        before = relay.bytes[TO_CLIENT]
        wait_until(lambda: relay.bytes[TO_CLIENT] > before + 3000, "traffic")
        relay.cut_all(RST if i % 2 else FIN)
    stop.set()
    history = [op for join in joins for op in join()]
    assert check_echo(history) == []
    assert [op for op in history if op.type != OK] == []
    assert len(history) > 3000


# Slices, joins, latency

@pytest.mark.parametrize("setting", [{"slice": 1}, {"join": 0.01},
                                     {"slice": 3, "latency": 0.005}])
def test_bytes_may_come_in_any_pieces(redis, make_redial, make_relay,
                                      setting):
    relay = make_relay(redis.port)
    for name, value in setting.items():
        setattr(relay, name, value)
    redial = make_redial(relay.url)
    with redial.connect() as c:
        answers = c.pipeline([("SET", "k", "v" * 300), ("GET", "k"),
                              ("LPUSH", "l", "a", "b"), ("LRANGE", "l", 0, -1),
                              ("NOSUCH",), ("HELLO", 3), ("HGETALL", "h")])
        assert answers[:4] == [b"OK", b"v" * 300, 2, [b"b", b"a"]]
        assert answers[4].startswith("ERR unknown command")
        assert dict(answers[5])[b"proto"] == 3 and answers[6] == []


# Hung servers and dead paths

def test_without_attempt_timeout_a_hung_server_is_waited_for(redis,
                                                             make_redial):
    redial = make_redial(redis.url, sets=["upstream.deadline=200ms"])
    with redial.connect() as c:
        assert c.call("INCR", "n") == 1
        redis.stop_running()
        c.send("INCR", "n")
        with redial.connect() as other:
            other.send("GET", "n")
            wait_until(lambda: redial.metric("requests_in_flight") >= 2,
                       "both to be in flight")
            sent = time.monotonic()
            wait_until(lambda: time.monotonic() - sent > 1,
                       "a time longer than the deadline")
            redis.go_on()
            assert c.read() == 2 and other.read() == b"2", \
                "slow is not failed"


def test_attempt_timeout_answers_for_a_hung_server(make_redis, make_redial):
    """Row 20 with H4: the late copy never answers a new request and never
    runs besides a replay."""
    redis = make_redis(**AOF)
    redial = make_redial(redis.url, sets=["upstream.attempt_timeout=200ms"])
    with redial.connect() as incr, redial.connect() as set_:
        assert incr.call("INCR", "n") == 1
        assert set_.call("SET", "k", "old") == b"OK"
        redis.stop_running()
        incr.send("INCR", "n")
        set_.send("SET", "k", "new")
        error = incr.read()
        assert error.code == "UNKNOWNOUTCOME", error
        incr.send("ECHO", "after")
        has_held(redial)
        redis.go_on()
        assert set_.read() == b"OK"
        assert incr.read() == b"after"
        # Nothing of the old copies comes after this.
        assert set_.call("SET", "k", "newest") == b"OK"
        assert set_.call("GET", "k") == b"newest"
    final = int(redis.call("GET", "n"))
    assert final in (1, 2)
    commands = aof.load(redis.folder)
    assert aof.count_commands(commands, b"INCR")[b"n"] == final
    written = [c[2] for c in commands if c[0].upper() == b"SET"]
    assert written[0] == b"old" and written[-1] == b"newest"
    assert redial.metric("attempt_timeouts") >= 1


def test_writes_are_unknown_when_the_fence_is_not_permitted(make_redis,
                                                            make_redial):
    redis = make_redis()
    redis.call("ACL", "SETUSER", "app", "on", ">app-secret-1", "~*", "+@all",
               "-client|kill")
    redial = make_redial(
        f"redis://app:app-secret-1@127.0.0.1:{redis.port}",
        sets=["upstream.attempt_timeout=200ms"], secrets=["app-secret-1"])
    with redial.connect() as c, redial.connect() as reader:
        assert c.call("SET", "k", "old") == b"OK"
        assert reader.call("GET", "k") == b"old"
        redis.stop_running()
        c.send("SET", "k", "new")
        reader.send("GET", "other")
        wait_until(lambda: redial.metric("attempt_timeouts") >= 1,
                   "the attempt timeout")
        redis.go_on()
        assert reader.read() is None, "reads need no fence"
        error = c.read()
        assert isinstance(error, ReplyError), error
        assert error.code == "UNKNOWNOUTCOME"
        assert redial.metric("fence_failed") >= 1


def test_a_silent_path_is_found_by_attempt_timeout(redis, make_redial,
                                                   make_relay):
    """Row 7: half-open, no FIN and no RST."""
    relay = make_relay(redis.port)
    redial = make_redial(relay.url, sets=["upstream.attempt_timeout=200ms"])
    with redial.connect() as c:
        assert c.call("SET", "k", "v") == b"OK"
        relay.cut(TO_CLIENT, 0, SILENCE)
        assert c.call("GET", "k") == b"v"
        relay.cut(TO_SERVER, 0, SILENCE)
        assert c.call("SET", "k", "w") == b"OK"
        relay.cut(TO_CLIENT, 0, SILENCE)
        assert c.call("INCR", "n").code == "UNKNOWNOUTCOME"
        assert c.call("GET", "n") == b"1"


def test_an_idle_lane_on_a_silent_path_is_found_by_ping(redis, make_redial,
                                                        make_relay):
    relay = make_relay(redis.port)
    redial = make_redial(relay.url, sets=["upstream.ping_idle=100ms",
                                          "upstream.ping_timeout=100ms"])
    with redial.connect() as c:
        assert c.call("INCR", "n") == 1
        relay.cut(TO_CLIENT, 0, SILENCE)
        wait_until(lambda: redial.metric("ping_timeouts") >= 1, "the PING")
        assert c.call("INCR", "n") == 2, "found before it could do harm"


# What the server says

def test_loading_is_waited_out(make_redis, make_redial):
    redis = make_redis(options=[
        "--key-load-delay", "2000",
        "--loading-process-events-interval-bytes", "1024"])
    with redis.connect() as c:
        c.pipeline([("SET", f"k:{i}", "x" * 100) for i in range(500)])
        assert c.call("SAVE") == b"OK"
    redial = make_redial(redis.url)
    with redial.connect() as c:
        assert c.call("SET", "k:0", "y") == b"OK"
        redis.kill9()
        redis.launch()
        wait_until(lambda: str(redis.ping()).startswith("LOADING"),
                   "the server to load")
        assert c.call("GET", "k:1") == b"x" * 100
        assert c.call("INCR", "n") == 1


def test_busy_is_waited_out_and_oom_is_passed_on(make_redis, make_redial):
    redis = make_redis(options=["--busy-reply-threshold", "50"])
    redial = make_redial(redis.url)
    with redial.connect() as c, redis.connect() as script, \
            redis.connect() as watcher:
        assert c.call("SET", "k", "v") == b"OK"
        script.send("EVAL", "while true do end", "0")
        wait_until(lambda: "BUSY" in str(watcher.call("GET", "k")),
                   "the script to be slow")
        c.send("INCR", "n")
        wait_until(lambda: redial.metric("requests") >= 2, "the request")
        assert watcher.call("SCRIPT", "KILL") == b"OK"
        assert c.read() == 1
        redis.call("CONFIG", "SET", "maxmemory", "1")
        assert c.call("SET", "k", "v").code == "OOM"
        assert c.call("GET", "n") == b"1"
        redis.call("CONFIG", "SET", "maxmemory", "0")
        assert c.call("SET", "k", "v") == b"OK"


def test_readonly_is_waited_out(redis, make_redial):
    redial = make_redial(redis.url)
    with redial.connect() as c:
        assert c.call("SET", "k", "v") == b"OK"
        redis.call("REPLICAOF", "127.0.0.1", free_port())
        assert redis.call("SET", "k", "w").code == "READONLY"
        c.send("INCR", "n")
        wait_until(lambda: redial.metric("requests") >= 2, "the request")
        redis.call("REPLICAOF", "NO", "ONE")
        assert c.read() == 1


def test_a_server_that_breaks_the_protocol_loses_its_lane_only(make_redial):
    """Row 33."""
    server = ScriptedServer()
    redial = make_redial(server.url, sets=["upstream.retries=2",
                                           "upstream.backoff=none"])
    garbage = [b"?what\r\n", b"$99999999999999999999\r\n",
               b"$9223372036854775808\r\n", b"$-2\r\n", b"*-2\r\n",
               b"$3\r\nabcde", b"HTTP/1.1 200 OK\r\n\r\n", b"\r\n",
               b"*1\r\n" * 10000 + b"*2\r\n?", b"*2x\r\n", b"$1x\r\n",
               b"\x00" * 64]
    with redial.connect() as c, redial.connect() as other:
        for n, bytes_ in enumerate(garbage):
            server.answers["GET"] = bytes_
            assert c.call("SET", "k", "v") == b"OK"
            error = c.call("GET", "k")
            assert isinstance(error, ReplyError), (bytes_[:20], error)
            assert error.code == "UNKNOWNOUTCOME", (bytes_[:20], error)
            server.answers["GET"] = b"$1\r\nv\r\n"
            assert c.call("GET", "k") == b"v", bytes_[:20]
            assert other.call("SET", "k", "v") == b"OK"
            assert redial.metric("protocol_error_server") >= 3 * (n + 1)
    server.close()


# Flapping, and the limits of retrying

def test_flapping_does_not_storm(redis, make_redial, make_relay):
    relay = make_relay(redis.port)
    redial = make_redial(relay.url)
    with redial.connect() as c:
        assert c.call("SET", "k", "v") == b"OK"
        accepted = relay.accepted
        started = time.monotonic()
        for _ in range(10):
            relay.refuse(True)
            relay.cut_all(RST)
            join = in_background(c.call, "GET", "k")
            has_held(redial)
            relay.refuse(False)
            assert join() == b"v"
        took = time.monotonic() - started
        assert relay.accepted - accepted <= 10 + took * 130, \
            "no more connections than the backoff allows"


def test_an_empty_budget_ends_replays(redis, make_redial, make_relay):
    relay = make_relay(redis.port)
    redial = make_redial(relay.url, sets=[
        "upstream.budget_ratio=0%", "upstream.budget_min=0",
        "upstream.budget_burst=1", "upstream.backoff=none"])
    with redial.connect() as c:
        assert c.call("SET", "k", "v") == b"OK"
        answers = []
        for _ in range(3):
            relay.cut(TO_CLIENT, 0, RST)
            answers.append(c.call("GET", "k"))
        errors = [a for a in answers if isinstance(a, ReplyError)]
        assert errors and all(e.code == "UNKNOWNOUTCOME" for e in errors)
        assert "budget" in errors[-1]
        assert redial.metric("budget_empty") >= 1
        assert c.call("GET", "k") == b"v"


def test_retries_zero_replays_nothing(redis, make_redial, make_relay):
    relay = make_relay(redis.port)
    redial = make_redial(relay.url, sets=["upstream.retries=0"])
    with redial.connect() as c:
        assert c.call("SET", "k", "v") == b"OK"
        relay.cut(TO_CLIENT, 0, RST)
        assert c.call("GET", "k").code == "UNKNOWNOUTCOME"
        relay.cut(TO_SERVER, 0, RST)
        assert c.call("INCR", "n") == 1, "not sent is not a replay"


# Histories under the wire faults

def push(redial, stop, number, depth):
    """RPUSH in pipelines of `depth` until told to stop; the history."""
    history, index = [], 0
    with redial.connect() as c:
        while not stop.is_set():
            tags = [f"tag:{number}:{index + i}" for i in range(depth)]
            for i, value in enumerate(c.pipeline(
                    [("RPUSH", "l", tag) for tag in tags])):
                kind = (outcome_of_error(value)
                        if isinstance(value, ReplyError) else OK)
                history.append(Op(f"p{number}", number, index + i, "RPUSH",
                                  "l", tags[i], 0, 0, kind, value))
            index += depth
    return history


def transact(redial, stop, number):
    """RPUSH of one tag to two lists in a transaction, until told to stop."""
    history, index = [], 0
    with redial.connect() as c:
        while not stop.is_set():
            tag = f"tag:{number}:{index}"
            last = c.pipeline([("MULTI",), ("RPUSH", "a", tag),
                               ("RPUSH", "b", tag), ("EXEC",)])[3]
            kind = OK
            if isinstance(last, ReplyError):
                kind = outcome_of_error(last)
            elif last is None or isinstance(last[0], ReplyError):
                kind = FAIL
            for key in "ab":
                history.append(Op(f"p{number}", number, index, "RPUSH", key,
                                  tag, 0, 0, kind, last))
            index += 1
    return history


def judge_histories(redis, redial, hurt):
    """H1 and H4 at pipeline depths 1, 16 and 256, and in transactions over
    two lists, while hurt() is at work."""
    stop = threading.Event()
    joins = [in_background(push, redial, stop, number, depth)
             for number, depth in enumerate((1, 1, 16, 256))]
    joins += [in_background(transact, redial, stop, number)
              for number in (10, 11)]
    hurt()
    stop.set()
    history = [op for join in joins for op in join()]
    lists = {key: [e.decode() for e in redis.call("LRANGE", key, 0, -1)]
             for key in "lab"}
    assert check_append(history, lists, [("a", "b")]) == []
    commands = aof.load(redis.folder)
    for key in "lab":
        counts = aof.count_arguments(
            [c for c in commands if len(c) > 1 and c[1] == key.encode()],
            lambda a: a.startswith(b"tag:"))
        assert check_aof([op for op in history if op.key == key],
                         {tag.decode(): n for tag, n in counts.items()}) == []
    assert sum(op.type == OK for op in history) > 100
    assert all(str(op.val).split(" ")[0] in (
        "NOTAPPLIED", "UNKNOWNOUTCOME", "EXECABORT", "None")
        for op in history if op.type != OK), "no error but redial's own"


def test_histories_hold_while_the_path_is_cut(make_redis, make_redial,
                                              make_relay):
    redis = make_redis(**AOF)
    relay = make_relay(redis.port)
    redial = make_redial(relay.url, sets=["upstream.backoff_base=1ms"])

    def hurt():
        for i in range(40):
            before = relay.bytes[TO_CLIENT]
            wait_until(lambda: relay.bytes[TO_CLIENT] > before + 500,
                       "traffic")
            relay.cut_all(RST if i % 2 else FIN)
    judge_histories(redis, redial, hurt)


def test_the_histories_catch_a_redial_that_replays_everything(
        make_redis, make_redial, make_relay):
    """The same with replay = all, which runs RPUSH twice: proof that the
    checkers would see it."""
    redis = make_redis(**AOF)
    relay = make_relay(redis.port)
    redial = make_redial(relay.url, sets=["upstream.backoff_base=1ms",
                                          "upstream.replay=all"])

    def hurt():
        for _ in range(40):
            before = relay.bytes[TO_CLIENT]
            wait_until(lambda: relay.bytes[TO_CLIENT] > before + 500,
                       "traffic")
            relay.cut_all(RST)
    with pytest.raises(AssertionError, match="duplicate"):
        judge_histories(redis, redial, hurt)


def executed(redis):
    return int(redis.call("LLEN", "l")) + int(redis.call("LLEN", "a"))


def test_histories_hold_while_the_server_is_killed(make_redis, make_redial):
    redis = make_redis(**AOF)
    redial = make_redial(redis.url)

    def hurt():
        for _ in range(4):
            before = executed(redis)
            wait_until(lambda: executed(redis) > before + 100, "traffic")
            redis.kill9()
            redis.restart()
    judge_histories(redis, redial, hurt)


def test_histories_hold_while_the_server_hangs(make_redis, make_redial):
    """The old copies of what was answered unknown run when the server wakes
    up; none may run twice, and none after it was called not applied."""
    redis = make_redis(**AOF)
    redial = make_redial(redis.url, sets=["upstream.attempt_timeout=100ms"])

    def hurt():
        for i in range(4):
            before = executed(redis)
            wait_until(lambda: executed(redis) > before + 100, "traffic")
            redis.stop_running()
            timeouts = redial.metric("attempt_timeouts")
            wait_until(lambda: redial.metric("attempt_timeouts") > timeouts,
                       "the attempt timeout")
            redis.go_on()
    judge_histories(redis, redial, hurt)


def test_histories_hold_while_the_server_ends_connections(make_redis,
                                                          make_redial):
    redis = make_redis(**AOF)
    redial = make_redial(redis.url)

    def hurt():
        for _ in range(40):
            before = executed(redis)
            wait_until(lambda: executed(redis) > before + 20, "traffic")
            redis.call("CLIENT", "KILL", "TYPE", "normal")
    judge_histories(redis, redial, hurt)


class BlackHole:
    """A port where connecting neither succeeds nor fails: its queue is full
    (row 2)."""

    def __init__(self):
        self.listener = socket.socket()
        self.port = free_port()
        self.listener.bind(("127.0.0.1", self.port))
        self.listener.listen(0)
        self.fillers = []
        for _ in range(8):
            filler = socket.socket()
            filler.settimeout(0.2)
            self.fillers.append(filler)
            try:
                filler.connect(("127.0.0.1", self.port))
            except TimeoutError:
                return
        raise AssertionError("the queue is never full")

    def close(self):
        for s in [self.listener, *self.fillers]:
            s.close()


def test_a_connect_black_hole_ends_by_our_timeout(make_redial):
    hole = BlackHole()
    redial = make_redial(f"redis://127.0.0.1:{hole.port}",
                         sets=["upstream.connect_timeout=150ms",
                               "upstream.deadline=500ms"])
    with redial.connect() as c:
        before = time.monotonic()
        error = c.call("GET", "k")
        assert time.monotonic() - before < 3, "not the kernel's two minutes"
        assert error.code == "NOTAPPLIED" and "timed out" in error, error
        assert redial.metric("connect_failures") >= 2
    hole.close()
