"""A checker counts once it has failed: each one is given a history that is
right and histories that are wrong in one way."""

import os

import redis as redis_py
from redis.backoff import NoBackoff
from redis.retry import Retry

import aof
from history import (FAIL, INFO, OK, Op, check_aof, check_append,
                     check_counter, check_echo, check_registers)
from relay import RST, TO_CLIENT
from resp import encode


def op(name, key, arg, type=OK, val=None, proc="p1", idx=0, t=0.0, conn=1):
    return Op(proc, conn, idx, name, key, arg, t, t + 0.5, type, val)


def pushes(*rows):
    return [op("RPUSH", "k", tag, type, proc=tag.split(":")[0],
               idx=int(tag.split(":")[1]), t=float(i))
            for i, (tag, type) in enumerate(rows)]


def has(violations, word):
    return any(word in v for v in violations)


GOOD = pushes(("p1:0", OK), ("p2:0", INFO), ("p1:1", OK), ("p3:0", FAIL))


def test_append_accepts_what_is_right():
    assert check_append(GOOD, {"k": ["p1:0", "p1:1"]}) == []
    assert check_append(GOOD, {"k": ["p1:0", "p1:1", "p2:0"]}) == []


def test_append_finds_a_replayed_push():
    assert has(check_append(GOOD, {"k": ["p1:0", "p1:1", "p1:1"]}),
               "duplicate: ok")
    assert has(check_append(GOOD, {"k": ["p1:0", "p2:0", "p2:0", "p1:1"]}),
               "duplicate: unknown")


def test_append_finds_a_lost_push():
    assert has(check_append(GOOD, {"k": ["p1:0"]}), "lost")


def test_append_finds_a_false_not_applied():
    assert has(check_append(GOOD, {"k": ["p1:0", "p1:1", "p3:0"]}),
               "untrue error")


def test_append_finds_overtaking():
    assert has(check_append(GOOD, {"k": ["p1:1", "p1:0"]}), "overtaken")


def test_append_finds_an_invented_element():
    assert has(check_append(GOOD, {"k": ["p1:0", "p1:1", "x:9"]}), "invented")


def test_append_finds_a_torn_transaction():
    both = [op("RPUSH", key, "p1:0", INFO) for key in ("a", "b")]
    pairs = [("a", "b")]
    assert check_append(both, {"a": [], "b": []}, pairs) == []
    assert check_append(both, {"a": ["p1:0"], "b": ["p1:0"]}, pairs) == []
    assert has(check_append(both, {"a": ["p1:0"], "b": []}, pairs), "torn")


def incrs(*rows):
    return [op("INCR", "c", None, type, val, idx=i, t=float(i))
            for i, (type, val) in enumerate(rows)]


def test_counter_accepts_what_is_right():
    history = incrs((OK, 1), (INFO, None), (OK, 3), (FAIL, None))
    assert check_counter(history, {"c": 3}) == []
    assert check_counter(incrs((OK, 1), (INFO, None), (OK, 2)), {"c": 3}) == []


def test_counter_finds_a_replayed_increment():
    assert has(check_counter(incrs((OK, 1), (OK, 3)), {"c": 3}), "must be")


def test_counter_finds_a_lost_increment():
    assert has(check_counter(incrs((OK, 1), (OK, 2)), {"c": 1}), "must be")


def test_counter_finds_a_reply_given_twice():
    assert has(check_counter(incrs((OK, 1), (OK, 1)), {"c": 2}),
               "2 replies say 1")


def test_counter_finds_a_stale_reply():
    assert has(check_counter(incrs((OK, 2), (OK, 1)), {"c": 2}),
               "after 2 had been answered")


def test_counter_allows_any_order_of_concurrent_increments():
    overlapping = [Op(f"p{v}", v, 0, "INCR", "c", None, 0.0, 1.0, OK, v)
                   for v in (2, 1)]
    assert check_counter(overlapping, {"c": 2}) == []


def test_registers_find_a_wrong_and_accept_an_unknown_value():
    def run(middle, value):
        return [op("SET", "v", "1", t=0), op("SET", "v", "2", middle, t=1),
                op("GET", "v", None, val=value, t=2)]
    assert check_registers(run(OK, "2")) == []
    assert check_registers(run(INFO, "1")) == []
    assert check_registers(run(INFO, "2")) == []
    assert has(check_registers(run(OK, "1")), "wrong value")
    assert has(check_registers(run(FAIL, "2")), "wrong value")
    assert has(check_registers(run(INFO, None)), "wrong value")


def test_echo_finds_swapped_late_changed_and_repeated_answers():
    def run(*values):
        return [op("ECHO", None, arg, val=val, conn=conn)
                for (conn, arg), val in zip(
                    [(1, "1:0"), (1, "1:1"), (2, "2:0")], values)]
    assert check_echo(run("1:0", "1:1", "2:0")) == []
    assert has(check_echo(run("2:0", "1:1", "1:0")), "swapped")
    assert has(check_echo(run("1:1", "1:0", "2:0")), "late")
    assert has(check_echo(run("1:x", "1:1", "2:0")), "changed")
    assert has(check_echo(run("1:0", "1:0", "2:0")), "twice")


def test_aof_is_the_ground_truth(tmp_path):
    folder = tmp_path / "appendonlydir"
    os.mkdir(folder)
    (folder / "appendonly.aof.manifest").write_text(
        "file appendonly.aof.1.base.rdb seq 1 type b\n"
        "file appendonly.aof.1.incr.aof seq 1 type i\n")
    (folder / "appendonly.aof.1.base.rdb").write_bytes(b"REDIS0010....")
    (folder / "appendonly.aof.1.incr.aof").write_bytes(
        b"#TS:1700000000\r\n" + encode("SELECT", 0)
        + encode("RPUSH", "k", "t:1") + encode("INCR", "c")
        + encode("RPUSH", "k", "t:2") + encode("RPUSH", "k", "t:2")
        + encode("MULTI") + encode("RPUSH", "k", "t:3") + encode("EXEC")
        + encode("MULTI") + encode("RPUSH", "k", "t:4")
        + encode("RPUSH", "k", "t:5")[:-4])
    commands = aof.load(str(tmp_path))
    counts = aof.count_arguments(commands, lambda a: a.startswith(b"t:"))
    assert counts == {b"t:1": 1, b"t:2": 2, b"t:3": 1}
    incrs_done = aof.count_commands(commands, b"INCR")
    assert incrs_done == {b"c": 1}

    def push(tag, type=OK):
        return op("RPUSH", "k", tag, type)
    assert check_aof([push(b"t:1"), push(b"t:3", INFO)], counts) == []
    assert has(check_aof([push(b"t:2")], counts), "duplicate")
    assert has(check_aof([push(b"t:2", INFO)], counts), "duplicate")
    assert has(check_aof([push(b"t:4")], counts), "lost")
    assert has(check_aof([push(b"t:1", FAIL)], counts), "untrue error")
    incr = [op("INCR", b"c", None)]
    assert check_aof(incr, incr_counts=incrs_done) == []
    assert has(check_aof(incr * 2, incr_counts=incrs_done), "must be")
    assert has(check_aof([op("INCR", b"c", None, FAIL)],
                         incr_counts=incrs_done), "must be")
    sets = {b"t:9": 2}
    assert check_aof([op("SET", "k", b"t:9")], sets) == []
    assert has(check_aof([op("SET", "k", b"t:9", FAIL)], sets), "untrue")
    assert has(check_aof([op("SET", "k", b"t:8")], sets), "lost")


def test_the_checkers_catch_a_client_that_retries(make_redis, make_relay):
    """The same checkers, end to end, on a client that replays INCR: proof
    that a duplicate would be seen."""
    redis = make_redis(aof=True,
                       options=["--aof-use-rdb-preamble", "no"])
    relay = make_relay(redis.port)
    careless = redis_py.Redis("127.0.0.1", relay.port,
                              retry=Retry(NoBackoff(), 3),
                              retry_on_error=[redis_py.ConnectionError])
    history = []
    for i in range(3):
        if i == 1:
            relay.cut(TO_CLIENT, 0, RST)
        value = careless.execute_command("INCR", "n")
        history.append(Op("p", 0, i, "INCR", "n", None, i, i + .5, OK, value))
    final = int(redis.call("GET", "n"))
    incrs = {k.decode(): n for k, n in aof.count_commands(
        aof.load(redis.folder), b"INCR").items()}
    assert final == 4
    assert check_counter(history, {"n": final}) != []
    assert check_aof(history, incr_counts=incrs) != []
