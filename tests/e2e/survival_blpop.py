"""50 consumers in BLPOP, and producers that RPUSH items of which each is
unique.

Half of the consumers are redis-py. They wait for one list or for two, with
timeouts of 1 to 5 s or without one.

What proves that nothing is delivered twice and nothing lost: the server's
file says which items were pushed and which were popped. What was delivered
was popped, once. What was popped and not delivered must be one of the pops
that were answered -UNKNOWNOUTCOME: each such item needs an answer of its own,
to a call that named its list and was waiting when that server died. An RPUSH
that was acknowledged was executed once, one that is unknown at most once.
"""

import random
import threading
import time
import uuid
from collections import Counter, defaultdict
from dataclasses import dataclass

import redis

from resp import Connection, ConnectionClosed
from survival_worlds import (Actor, Dropped, Refused, Seen, call,
                             counting_redis)
from wait import wait_until

CONSUMERS, PRODUCERS, ITEMS = 50, 4, 10000
LISTS = 6
TIMEOUTS = (1, 2, 5, 0)
LATE = 11.0  # seconds that a timeout may last longer: the deadline
ALLOWED = {("BLPOP", "UNKNOWNOUTCOME"), ("RPUSH", "UNKNOWNOUTCOME")}
ACKED, UNKNOWN, REFUSED = "acked", "unknown", "refused"


@dataclass
class Push:
    key: str
    item: str
    outcome: str = REFUSED


@dataclass
class Lost:
    """A BLPOP nobody knows about."""
    keys: tuple
    began: float
    ended: float


class Consumer(Actor):
    def __init__(self, load, number):
        super().__init__()
        self.load, self.number = load, number
        self.got = []       # (key, item)
        self.unknown = []
        self.null = 0
        self.worst = 0.0    # seconds that a timeout came too late
        self.early = 0
        first = load.lists[number % LISTS]
        # Two lists only where they lie in one slot.
        self.keys = (first, first + ":2") if number // LISTS % 3 == 0 \
            else (first,)
        self.by_library = number % 2 == 1
        # The library can't be told to leave while it is blocked.
        self.timeout = 2 if self.by_library \
            else TIMEOUTS[number // 2 % len(TIMEOUTS)]

    def act(self):
        self._open()
        while not self.load.ending.is_set():
            began = time.monotonic()
            try:
                reply = self._pop()
            except Refused as error:
                if self.load.seen.error("BLPOP", error.reply) \
                        == "UNKNOWNOUTCOME":
                    self.unknown.append(Lost(self.keys, began,
                                             time.monotonic()))
                continue
            except Dropped as error:
                if self.load.ending.is_set():
                    break
                self.unknown.append(Lost(self.keys, began, time.monotonic()))
                self.load.seen.drop(error)
                self._reopen()
                continue
            if reply is None:
                self._timed_out(time.monotonic() - began)
            else:
                key, item = (w.decode() if isinstance(w, bytes) else w
                             for w in reply)
                self.got.append((key, item))
                time.sleep(random.random() * 0.01)  # it works on it
        self.close()

    def _timed_out(self, seconds):
        assert self.timeout, "null from a BLPOP without a timeout"
        self.null += 1
        self.worst = max(self.worst, seconds - self.timeout)
        self.early += seconds < self.timeout - 0.02

    def _open(self):
        if self.by_library:
            self.redis = counting_redis(self.load.port, self.load.seen)
        else:
            # A little longer than a BLPOP may wait.
            self.c = Connection(("127.0.0.1", self.load.port), 30)

    def _pop(self):
        if not self.by_library:
            if self.timeout == 0:
                self.c.socket.settimeout(None)
            return call(self.c, "BLPOP", "BLPOP", *self.keys, self.timeout)
        try:
            return self.redis.blpop(self.keys, self.timeout)
        except redis.exceptions.BusyLoadingError as error:
            raise Refused("BLPOP", f"LOADING {error}") from error
        except redis.ResponseError as error:
            raise Refused("BLPOP", str(error)) from error
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise Dropped("BLPOP", repr(error)) from error

    def _reopen(self):
        if self.by_library:
            time.sleep(0.05)  # it connects by itself
            return
        self.c.close()
        while not self.load.ending.is_set():
            try:
                self._open()
                return
            except OSError:
                time.sleep(0.05)  # the pace of trying

    def close(self):
        if self.by_library:
            self.redis.connection_pool.disconnect()
        else:
            self.c.close()

    def leave(self):
        """From outside: it leaves while it is blocked."""
        if self.is_alive() and not self.by_library:
            try:
                self.c.socket.shutdown(2)
            except OSError:
                pass


class Producer(Actor):
    def __init__(self, load, number):
        super().__init__()
        self.load, self.number = load, number
        self.pushes = []

    def act(self):
        load = self.load
        c = Connection(("127.0.0.1", load.port), 30)
        for i in range(self.number, ITEMS, PRODUCERS):
            load.clock.sleep_until(i * load.pace)
            key = load.lists[random.randrange(LISTS)]
            if i % 5 == 0:
                key += ":2"
            push = Push(key, f"{load.run}.{i}")
            self.pushes.append(push)
            try:
                call(c, "RPUSH", "RPUSH", key, push.item)
                push.outcome = ACKED
            except Refused as error:
                if load.seen.error("RPUSH", error.reply) == "UNKNOWNOUTCOME":
                    push.outcome = UNKNOWN
            except Dropped as error:
                push.outcome = UNKNOWN
                load.seen.drop(error)
                c = self._again()
        c.close()

    def _again(self):
        while True:
            try:
                return Connection(("127.0.0.1", self.load.port), 30)
            except OSError:
                time.sleep(0.05)  # the pace of trying


class BlpopLoad:
    def __init__(self, world, port):
        self.world, self.port = world, port
        self.run = uuid.uuid4().hex[:6]
        self.lists = [f"q:{self.run}:{{{place}}}"
                      for place in world.places(LISTS)]
        self.seen = Seen()
        self.ending = threading.Event()

    def all_lists(self):
        return [key + more for key in self.lists for more in ("", ":2")]

    def start(self, clock):
        self.clock = clock
        self.pace = clock.seconds * 0.9 / ITEMS
        self.consumers = [Consumer(self, n) for n in range(CONSUMERS)]
        self.producers = [Producer(self, n) for n in range(PRODUCERS)]
        for actor in (*self.consumers, *self.producers):
            actor.start()

    def stop(self):
        for producer in self.producers:
            producer.end(self.clock.seconds + 60)
        try:
            wait_until(lambda: sum(self._lengths()) == 0,
                       "the lists to be empty", 10)
        except AssertionError:
            pass  # what is left counts as left
        self._wait_idle()
        self.ending.set()
        for consumer in self.consumers:
            consumer.leave()
        for consumer in self.consumers:
            consumer.end()

    def _wait_idle(self):
        """Until nobody gets anything any more: all are blocked again."""
        last = -1
        while last != (last := sum(len(c.got) for c in self.consumers)):
            time.sleep(0.3)  # replies are on their way for microseconds

    def _lengths(self):
        for key in self.all_lists():
            with self.world.server_of(key).connect() as c:
                yield c.call("LLEN", key)

    # -- judging

    def judge(self):
        bad = self.seen.complaints(ALLOWED)
        self.pushes = [p for producer in self.producers
                       for p in producer.pushes]
        self.delivered = Counter(got for c in self.consumers for got in c.got)
        self.left = self._left()
        unknown = [u for c in self.consumers for u in c.unknown]
        self.undelivered, self.lost, self.again = [], 0, 0
        if self.world.has_lines:
            lines = self.world.lines(self._fold)
            deaths = [[d for d in self.world.deaths if d.shard == shard]
                      for shard in range(len(lines))]
            verdict = judge_lines(self.pushes, self.delivered, self.left,
                                  unknown, lines, deaths)
            bad += verdict.bad
            self.undelivered = verdict.undelivered
            self.lost, self.again = verdict.lost, verdict.again
        else:
            bad += judge_state(self.pushes, self.delivered, self.left)
            if unknown:
                bad.append(f"{len(unknown)} BLPOPs unknown, nothing died")
        bad += [f"consumer {c.number}: {c.early} timeouts came too early"
                for c in self.consumers if c.early]
        late = max(c.worst for c in self.consumers)
        if late > LATE:
            bad.append(f"a timeout came {late:.1f} s late")
        if self.left:
            bad.append(f"{len(self.left)} items are left, though consumers "
                       "wait for them")
        if len(unknown) > CONSUMERS * len(self.world.deaths):
            bad.append(f"{len(unknown)} BLPOPs unknown, each consumer can "
                       "have had one when a server died")
        return bad

    def _left(self):
        left = []
        for key in self.all_lists():
            with self.world.server_of(key).connect() as c:
                left += [(key, item.decode())
                         for item in c.call("LRANGE", key, 0, -1)]
        return left

    def _fold(self, snapshot):
        return fold(snapshot, self.run)

    def rows(self):
        outcomes = Counter(p.outcome for p in self.pushes)
        yield "consumers", CONSUMERS
        yield "RPUSH acknowledged", outcomes[ACKED]
        yield "RPUSH unknown", outcomes[UNKNOWN]
        yield "items delivered", len(self.delivered)
        yield "  twice, as a failover undid", self.again
        yield "items left", len(self.left)
        yield "popped, not delivered", len(self.undelivered)
        yield "BLPOP unknown", sum(len(c.unknown) for c in self.consumers)
        yield "BLPOP timed out", sum(c.null for c in self.consumers)
        yield "worst delay of a timeout", max(c.worst for c in self.consumers)
        yield "acknowledged, lost by failover", self.lost
        yield from self.seen.rows()

    def metrics(self, proxy):
        return []


def fold(snapshot, run):
    """What a file says was pushed and popped: (what, key, item)."""
    mark = f":{run}:".encode()
    lists, events = defaultdict(list), []
    for args in snapshot.base:
        if args[0].upper() == b"RPUSH" and mark in args[1]:
            lists[args[1]] += args[2:]
    for args in snapshot.stream:
        name = args[0].upper()
        if len(args) < 2 or mark not in args[1]:
            continue
        key = args[1].decode()
        if name == b"RPUSH":
            lists[args[1]] += args[2:]
            events += [("push", key, item.decode()) for item in args[2:]]
        elif name == b"LPOP":
            for _ in range(int(args[2]) if len(args) > 2 else 1):
                events.append(("pop", key, lists[args[1]].pop(0).decode()))
        else:
            assert name == b"DEL" and not lists[args[1]], args
    return events


@dataclass
class Verdict:
    bad: list
    undelivered: list   # (key, item, the death that came next or None)
    lost: int           # acknowledged pushes that a failover has lost
    again: int          # deliveries that a failover has undone


def judge_lines(pushes, delivered, left, unknown, lines, deaths):
    """Where the files tell what was executed. deaths: of each shard."""
    verdict = Verdict([], [], 0, 0)
    kept = Counter(e for line in lines for e in line.kept)
    died = Counter(e for line in lines for e in line.all_lost())
    _judge_pushes(verdict, pushes, kept, died)
    _judge_pops(verdict, delivered, left, kept, died)
    pops = [(event, of[place] if place < len(of) else None)
            for line, of in zip(lines, deaths)
            for event, place in _pops_of(line)]
    # Of an item that was popped twice and delivered once, it is not known
    # which of the two arrived: the one that was not lost, or may be either.
    missing = Counter()
    for event, _ in pops:
        missing[event[1:]] += 1
    missing = {got: n - delivered[got] for got, n in missing.items()
               if n > delivered[got]}
    candidates = defaultdict(list)
    for event, death in pops:
        if event[1:] in missing:
            candidates[event[1:]].append(death)
    verdict.undelivered = [(got, candidates[got]) for got, n
                           in missing.items() for _ in range(n)]
    verdict.bad += _explain(verdict.undelivered, unknown)
    return verdict


def _pops_of(line):
    for place, event in enumerate(line.kept):
        if event[0] == "pop":
            yield event, line.death_after(place)
    for number, part in enumerate(line.lost):
        for event in part:
            if event[0] == "pop":
                yield event, number


def _judge_pushes(verdict, pushes, kept, died):
    for push in pushes:
        event = ("push", push.key, push.item)
        n = kept[event] + died[event]
        what = f"RPUSH of {push.item} ({push.outcome})"
        if n > 1:
            verdict.bad.append(f"duplicate: {what} was executed {n} times")
        elif n and push.outcome == REFUSED:
            verdict.bad.append(f"untrue: {what} was executed")
        elif push.outcome == ACKED and not n:
            verdict.bad.append(f"lost: {what} was not executed")
        elif push.outcome == ACKED and not kept[event]:
            verdict.lost += 1


def _judge_pops(verdict, delivered, left, kept, died):
    for got, n in delivered.items():
        popped = kept["pop", *got] + died["pop", *got]
        if n > popped:
            verdict.bad.append(f"duplicate: {got} was delivered {n} times "
                               f"and popped {popped} times")
        verdict.again += n > 1
        if kept["pop", *got] > 1:
            verdict.bad.append(f"the file has {got} popped twice")
    rest = Counter(left)
    for what, key, item in kept:
        if what == "push":
            n = rest[key, item] + kept["pop", key, item]
            if n != 1:
                verdict.bad.append(f"{item} was pushed once, and popped or "
                                   f"left {n} times")


def _explain(undelivered, unknown):
    """Each needs an unknown BLPOP of its own, that named its list and was
    waiting when the server died (found by augmenting paths)."""
    taken = {}

    def fits(key, deaths, call_):
        return key in call_.keys and any(
            death is not None and
            call_.began <= death.at + 0.5 and death.at <= call_.ended
            for death in deaths)

    def place(i, tried):
        (key, _), deaths = undelivered[i]
        for j, call_ in enumerate(unknown):
            if j not in tried and fits(key, deaths, call_):
                tried.add(j)
                if j not in taken or place(taken[j], tried):
                    taken[j] = i
                    return True
        return False

    return [f"lost: {undelivered[i][0]} was popped and not delivered, and no "
            "BLPOP that was answered UNKNOWNOUTCOME explains it"
            for i in range(len(undelivered)) if not place(i, set())]


def judge_state(pushes, delivered, left):
    """Where no server has lost anything and nothing may be unknown."""
    bad = [f"duplicate: {got} was delivered {n} times"
           for got, n in delivered.items() if n > 1]
    rest = Counter(left)
    for push in pushes:
        got = (push.key, push.item)
        n = delivered[got] + rest[got]
        if push.outcome == ACKED and not n:
            bad.append(f"lost: {push.item} was pushed, not delivered, and is "
                       "not left")
        elif push.outcome == REFUSED and n:
            bad.append(f"untrue: RPUSH of {push.item} was refused")
    known = {(push.key, push.item) for push in pushes}
    bad += [f"invented: {got}" for got in (*delivered, *rest)
            if got not in known]
    return bad
