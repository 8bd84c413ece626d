"""Random conversations of clients that use everything a connection can hold,
while the server ends connections and is killed. Each client has keys of its
own and knows, for each, the values it may have; nothing of another client, of
another database or of the past may show up.

Only faults of the server itself are played here: it drops what it has not
read of a connection it ends, so nothing of an old connection can run late.
"""

import os
import random
import threading

import pytest

from resp import ReplyError
from wait import wait_until

pytestmark = pytest.mark.needs_redial
USERS = ("default", "anna", "bert")
PASSWORD = "pw-of-users"
AOF = {"aof": True, "options": ["--aof-use-rdb-preamble", "no"] + [
    word for user in USERS[1:]
    for word in ("--user", user, "on", f">{PASSWORD}", "~*", "&*", "+@all")]}
# Below reply_hold_max: a larger reply that is cut ends its connection.
SIZES = (5, 5, 5, 5, 300, 20_000, 200_000)
OPEN_CODES = {"UNKNOWNOUTCOME"}
NO_CODES = {"NOTAPPLIED", "EXECABORT"}


class Client:
    def __init__(self, connect, number, seed):
        self.connect, self.number = connect, number
        self.random = random.Random(seed)
        self.db, self.name, self.resp = 0, None, 2
        self.user = USERS[0]
        self.count = 0
        # (db, key) -> the values it may have
        self.values = {}
        self.done = 0
        self.unknown = 0

    def check(self, truth, what):
        assert truth, f"client {self.number}: {what}"

    def possible(self, key):
        return self.values.setdefault((self.db, key), {None})

    def is_error(self, reply, codes=OPEN_CODES | NO_CODES):
        if not isinstance(reply, ReplyError):
            return False
        self.check(reply.code in codes, f"unexpected error: {reply}")
        self.unknown += reply.code in OPEN_CODES
        return True

    def fresh_value(self):
        self.count += 1
        text = f"{self.db}:{self.number}:{self.count}:"
        size = self.random.choice(SIZES)
        return (text + "x" * (size - len(text))).encode()

    # One command each: (words, what to do with the reply)

    def set(self):
        key, value = f"s{self.number}:{self.random.randrange(3)}", \
            self.fresh_value()

        def judge(reply):
            if self.is_error(reply):
                if reply.code in OPEN_CODES:
                    self.possible(key).add(value)
                return
            self.check(reply == b"OK", f"SET: {reply!r:.80}")
            self.values[self.db, key] = {value}
        return ("SET", key, value), judge

    def get(self):
        key = f"s{self.number}:{self.random.randrange(3)}"

        def judge(reply):
            if self.is_error(reply, OPEN_CODES):
                return  # in a pipeline a write may stand behind it
            allowed = self.possible(key)
            self.check(reply in allowed, f"GET {key} in db {self.db}: "
                       f"{reply!r:.60} not in {[repr(v)[:40] for v in allowed]}")
            self.values[self.db, key] = {reply}
        return ("GET", key), judge

    def incr(self):
        key = f"n{self.number}"

        def judge(reply):
            before = {int(v or 0) for v in self.possible(key)}
            if self.is_error(reply):
                if reply.code in OPEN_CODES:
                    self.values[self.db, key] = {
                        str(v + more).encode() for v in before
                        for more in (0, 1)}
                return
            self.check(reply - 1 in before, f"INCR {key}: {reply}, was "
                       f"{sorted(before)}")
            self.values[self.db, key] = {str(reply).encode()}
        return ("INCR", key), judge

    def read_counter(self):
        key = f"n{self.number}"

        def judge(reply):
            if self.is_error(reply, OPEN_CODES):
                return
            allowed = {None if v in (None, b"0") else v
                       for v in self.possible(key)}
            self.check(reply in allowed, f"GET {key}: {reply}, may be "
                       f"{allowed}")
            self.values[self.db, key] = {reply}
        return ("GET", key), judge

    def echo(self):
        value = self.fresh_value()

        def judge(reply):
            self.check(reply == value, f"ECHO: {reply!r:.60}")
        return ("ECHO", value), judge

    # Longer exchanges

    def pipeline(self, c):
        parts = [self.random.choice((self.set, self.get, self.incr,
                                     self.echo))()
                 for _ in range(self.random.randrange(1, 12))]
        for (_, judge), reply in zip(
                parts, c.pipeline([words for words, _ in parts])):
            judge(reply)

    def select(self, c):
        db = self.random.randrange(4)
        if not self.is_error(c.call("SELECT", db), NO_CODES | OPEN_CODES):
            self.db = db

    def rename(self, c):
        name = f"c{self.number}-{self.random.randrange(100)}"
        if not self.is_error(c.call("CLIENT", "SETNAME", name)):
            self.name = name.encode()
        reply = c.call("CLIENT", "GETNAME")
        if not self.is_error(reply):
            self.check(reply == self.name, f"name {reply}, not {self.name}")

    def hello(self, c):
        resp = self.random.choice((2, 3))
        reply = c.call("HELLO", resp)
        if not self.is_error(reply):
            self.resp = resp
        raw = c.call_raw("HGETALL", "none")
        if raw[:1] != b"-":
            self.check(raw == (b"%0\r\n" if self.resp == 3 else b"*0\r\n"),
                       f"RESP{self.resp}: {raw}")

    def login(self, c):
        user = self.random.choice(USERS[1:])
        reply = (c.call("AUTH", user, PASSWORD)
                 if self.random.random() < 0.5 else
                 c.call("HELLO", self.resp, "AUTH", user, PASSWORD))
        if not self.is_error(reply):
            self.user = user

    def who(self, c):
        reply = c.call("ACL", "WHOAMI")
        if not self.is_error(reply):
            self.check(reply == self.user.encode(),
                       f"user {reply}, not {self.user}")

    def transaction(self, c):
        first, second = self.set(), self.incr()
        watch = self.random.random() < 0.5
        if watch:
            self.is_error(c.call("WATCH", first[0][1]))
        one_by_one = self.random.random() < 0.5
        commands = [("MULTI",), first[0], second[0], ("EXEC",)]
        replies = ([c.call(*words) for words in commands] if one_by_one
                   else c.pipeline(commands))
        for reply in replies[:3]:
            self.is_error(reply, NO_CODES | OPEN_CODES)
        last = replies[3]
        if one_by_one and replies[0] != b"OK":
            # MULTI failed, and the client went on all the same: these may
            # have run by themselves, or not at all.
            for (_, judge), reply in zip((first, second), replies[1:3]):
                if reply != b"QUEUED":
                    judge(reply)
            return
        if last is None:
            self.check(watch, "EXEC null without WATCH")
        elif self.is_error(last):
            for _, judge in (first, second):
                judge(last)
        else:
            self.check(len(last) == 2, f"EXEC: {last!r:.80}")
            first[1](last[0])
            second[1](last[1])

    def block(self, c):
        key = f"q{self.number}"
        reply = c.call("BLPOP", key, "0.02")
        if not self.is_error(reply):
            self.check(reply is None, f"BLPOP: {reply}")

    def run(self, stop):
        with self.connect() as c:
            while not stop.is_set():
                step = self.random.choices(
                    (self.pipeline, self.transaction, self.select,
                     self.rename, self.hello, self.login, self.who,
                     self.block), (10, 8, 3, 1, 1, 1, 2, 1))[0]
                step(c)
                self.done += 1
            # Quiet now: what may be, is.
            for db in range(4):
                assert c.call("SELECT", db) == b"OK"
                self.db = db
                for key in range(3):
                    key = f"s{self.number}:{key}"
                    reply = c.call("GET", key)
                    self.check(reply in self.possible(key),
                               f"{key} at the end: {reply!r:.60}")
                words, judge = self.read_counter()
                judge(c.call(*words))


def converse(redis, redial, hurt, seed):
    stop = threading.Event()
    failures = []
    clients = [Client(redial.connect, n, seed * 1000 + n) for n in range(8)]

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

    def steps():
        return sum(client.done for client in clients)
    try:
        hurt(lambda n: wait_until(
            lambda at=steps(): stop.is_set() or steps() >= at + n,
            f"{n} more exchanges", timeout=30), stop)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert failures == [], f"seed {seed}"
    assert not any(thread.is_alive() for thread in threads), f"seed {seed}"
    return clients


def seeds():
    """A fixed one, and one that is new each time and named when it fails."""
    return [1, int.from_bytes(os.urandom(2), "big")]


@pytest.mark.parametrize("seed", seeds(), ids=["fixed", "fresh"])
def test_sessions_survive_a_server_that_ends_connections(make_redis,
                                                         make_redial, seed):
    redis = make_redis(**AOF)
    redial = make_redial(redis.url, sets=["upstream.retries=-1"],
                         secrets=[PASSWORD])

    def hurt(progress, stop):
        for _ in range(60):
            if stop.is_set():
                return
            progress(15)
            redis.call("CLIENT", "KILL", "TYPE", "normal")
    clients = converse(redis, redial, hurt, seed)
    assert sum(client.unknown for client in clients) > 0, "faults were met"


@pytest.mark.parametrize("seed", seeds(), ids=["fixed", "fresh"])
def test_sessions_survive_a_server_that_is_killed(make_redis, make_redial,
                                                  seed):
    redis = make_redis(**AOF)
    redial = make_redial(redis.url, secrets=[PASSWORD])

    def hurt(progress, stop):
        for _ in range(6):
            if stop.is_set():
                return
            progress(60)
            redis.kill9()
            redis.restart()
    converse(redis, redial, hurt, seed)


@pytest.mark.parametrize("sets", [
    ["upstream.lanes=private"],
    ["upstream.shared_lanes=3", "redial.workers=2"],
    ["listener.pipeline_max=3", "listener.client_buffer_max=16KiB",
     "upstream.reply_hold_max=1MiB", "upstream.lane_buffer_max=16KiB"],
], ids=["private", "spread", "tight"])
def test_sessions_survive_with_other_settings(make_redis, make_redial, sets):
    redis = make_redis(**AOF)
    redial = make_redial(redis.url, sets=["upstream.retries=-1", *sets],
                         secrets=[PASSWORD])

    def hurt(progress, stop):
        for _ in range(30):
            if stop.is_set():
                return
            progress(15)
            redis.call("CLIENT", "KILL", "TYPE", "normal")
    converse(redis, redial, hurt, 3)


def test_sessions_need_no_fault_to_be_checked(make_redis, make_redial):
    """Without faults every answer is certain."""
    redis = make_redis(**AOF)
    redial = make_redial(redis.url, secrets=[PASSWORD])
    clients = converse(redis, redial,
                       lambda progress, stop: progress(600), 7)
    assert sum(client.unknown for client in clients) == 0


def test_sessions_catch_a_redial_that_replays_everything(make_redis,
                                                         make_redial):
    redis = make_redis(**AOF)
    redial = make_redial(redis.url, sets=["upstream.replay=all"])

    def hurt(progress, stop):
        for _ in range(300):
            if stop.is_set():
                return
            progress(5)
            redis.call("CLIENT", "KILL", "TYPE", "normal")
    with pytest.raises(AssertionError, match="INCR"):
        converse(redis, redial, hurt, 2)
