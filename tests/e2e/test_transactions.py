"""Random conversations of transactions in every order a client can think of:
compared byte by byte with a server of its own, and played while the server is
killed, where each block is judged by what EXEC said of it.
"""

import itertools
import os
import random
import threading
import time

import pytest

from resp import Connection, ReplyError, encode
from wait import wait_until

pytestmark = pytest.mark.needs_redial
KEYS = [f"k{i}" for i in range(4)]


def seeds(n):
    """Fixed ones, and one that is new each time and named when it fails."""
    return [*range(1, n), int.from_bytes(os.urandom(2), "big")]


# ---- without faults ------------------------------------------------------

ODD = [("MULTI",), ("EXEC",), ("DISCARD",), ("WATCH", "k0"), ("WATCH",),
       ("UNWATCH",), ("UNWATCH", "x"), ("EXEC", "x"), ("DISCARD", "x"),
       ("MULTI", "x"), ("NOSUCH", "a"), ("GET",), ("SELECT", "3"),
       ("SELECT", "99"), ("SELECT", "0"), ("CLIENT", "SETNAME", "n"),
       ("CLIENT", "GETNAME"), ("RESET",), ("BLPOP", "list", "0.01"),
       ("WAIT", "0", "1"), ("PING",), ("MONITOR",), ("SYNC",),
       ("EVAL", "return redis.call('incr', KEYS[1])", "1", "k1"),
       ("HELLO", "3"), ("HELLO", "2"), ("AUTH", "x"), ("INCRBY", "k2", "x")]


def odd_command(rnd):
    """MONITOR and SYNC only inside of a block, where they are harmless."""
    kind = rnd.random()
    if kind < 0.28:
        return rnd.choice(ODD[:3])
    if kind < 0.6:
        return rnd.choice(ODD)
    key = rnd.choice(KEYS)
    return rnd.choice([("SET", key, str(rnd.randrange(99))), ("INCR", key),
                       ("GET", key), ("DEL", key), ("APPEND", key, "x"),
                       ("LPUSH", "list", "v")])


def conversation(rnd, length):
    """Commands, and whether a client waits for its replies before the next.
    Keeps track of MULTI, for what is harmless inside of it only."""
    open_block = False
    for _ in range(length):
        words = odd_command(rnd)
        if words[0] in ("MONITOR", "SYNC") and not open_block:
            continue
        if words == ("MULTI",):
            open_block = True
        elif words[0] in ("EXEC", "RESET") or words == ("DISCARD",):
            open_block = False
        yield words, rnd.random() < 0.5


def stable(reply):
    """HELLO tells the id of the connection."""
    at = reply.find(b"$2\r\nid\r\n:")
    if at < 0:
        return reply
    end = reply.index(b"\r\n", at + 9)
    return reply[:at + 9] + b"N" + reply[end:]


@pytest.mark.parametrize("seed", seeds(6))
@pytest.mark.parametrize("lanes", ["shared", "private"])
def test_odd_orders_are_answered_as_by_the_server(make_redis, make_redial,
                                                  seed, lanes):
    redis, twin = make_redis(), make_redis()
    redial = make_redial(redis.url, sets=[f"upstream.lanes={lanes}"])
    for n in range(12):
        rnd = random.Random(seed * 100 + n)
        said = list(conversation(rnd, 60))
        with Connection(redial.address) as a, Connection(twin.address) as b:
            waiting = []
            for words, wait in said + [(("PING",), True)]:
                a.send_raw(encode(*words))
                b.send_raw(encode(*words))
                waiting.append(words)
                while wait and waiting:
                    got, want = a.read_raw(), b.read_raw()
                    assert stable(got) == stable(want), \
                        f"seed {seed}, {n}: {waiting[0]} of {said}"
                    waiting.pop(0)
        redis.call("FLUSHALL")
        twin.call("FLUSHALL")


# ---- with faults ------------------------------------------------------------

class Client:
    """Blocks with tokens of their own; log holds each that was executed."""

    def __init__(self, address, number, seed):
        self.address, self.number = address, number
        self.random = random.Random(seed * 97 + number)
        self.tokens = itertools.count()
        self.ran, self.never, self.perhaps = set(), set(), set()
        self.done = 0

    def block(self):
        """One block: its commands, and whether it ends in EXEC."""
        key, log = f"c{self.number}", f"log{self.number}"
        tokens = [f"{self.number}.{next(self.tokens)}"
                  for _ in range(self.random.randrange(1, 5))]
        middle = [("RPUSH", log, token) for token in tokens]
        for extra in self.random.sample([("GET", key), ("UNWATCH",),
                                         ("MULTI",), ("WATCH", key),
                                         ("ECHO", "x")], 2):
            if self.random.random() < 0.3:
                middle.insert(self.random.randrange(len(middle) + 1), extra)
        bad = self.random.random() < 0.15
        if bad:
            middle.insert(self.random.randrange(len(middle) + 1), ("NOSUCH",))
        end = ("EXEC",) if self.random.random() < 0.85 else ("DISCARD",)
        watch = [("WATCH", key)] if self.random.random() < 0.3 else []
        return watch + [("MULTI",), *middle, end], tokens, bad

    def judge(self, commands, replies, tokens, bad):
        for words, reply in zip(commands[:-1], replies):
            if words[0] in ("NOSUCH",) or words in (("MULTI",), ("WATCH",)):
                continue
            if words[0] == "WATCH" and isinstance(reply, ReplyError):
                assert reply.startswith("ERR WATCH inside"), reply
                continue
            assert reply in (b"OK", b"QUEUED"), (commands, replies)
        last = replies[-1]
        if isinstance(last, list):
            assert not bad and commands[-1] == ("EXEC",), (commands, replies)
            self.ran.update(tokens)
        elif isinstance(last, ReplyError) and last.code == "UNKNOWNOUTCOME":
            assert commands[-1] == ("EXEC",), (commands, replies)
            self.perhaps.add(tuple(tokens))
        else:
            assert (last is None and commands[0][0] == "WATCH") or \
                (bad and getattr(last, "code", "") == "EXECABORT") or \
                commands[-1] == ("DISCARD",), (commands, replies)
            self.never.update(tokens)

    def run(self, stop):
        with Connection(self.address, 30) as c:
            while not stop.is_set():
                commands, tokens, bad = self.block()
                if self.random.random() < 0.5:
                    for words in commands:
                        c.send_raw(encode(*words))
                    replies = [c.read() for _ in commands]
                else:
                    replies = []
                    for words in commands:
                        time.sleep(self.random.random() * 0.004)
                        replies.append(c.call(*words))
                self.judge(commands, replies, tokens, bad)
                self.done += 1


@pytest.mark.parametrize("how", ["kill9", "clientkill"])
@pytest.mark.parametrize("seed", seeds(2))
def test_blocks_survive(make_redis, make_redial, seed, how):
    redis = make_redis(aof=True)
    redial = make_redial(redis.url)
    clients = [Client(redial.address, n, seed) for n in range(12)]
    stop, failures = threading.Event(), []

    def work(client):
        try:
            client.run(stop)
        except Exception as error:  # noqa: BLE001 - told below
            failures.append(f"{type(error).__name__}: {error}")
            stop.set()
    threads = [threading.Thread(target=work, args=(client,), daemon=True)
               for client in clients]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5 if how == "kill9" else 60):
            at = sum(client.done for client in clients)
            wait_until(lambda at=at: stop.is_set() or at + 40 <=
                       sum(client.done for client in clients),
                       "40 more blocks", timeout=30)
            if stop.is_set():
                break
            if how == "kill9":
                redis.kill9()
                redis.restart()
            else:
                redis.call("CLIENT", "KILL", "TYPE", "normal")
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert failures == [], f"seed {seed}"
    for client in clients:
        log = [t.decode() for t in
               redis.call("LRANGE", f"log{client.number}", 0, -1)]
        assert len(log) == len(set(log)), "a block ran twice"
        assert client.ran <= set(log), "an acknowledged block did not run"
        assert not client.never & set(log), "a refused block ran"
        for tokens in client.perhaps:
            assert sum(t in log for t in tokens) in (0, len(tokens)), \
                "a block ran in part"
    assert sum(len(client.ran) for client in clients) > 0
