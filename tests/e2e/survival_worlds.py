"""The worlds in which survival.py plays its loads, and what the loads have in
common.

Each world runs its servers with `appendonly yes` and `appendfsync always`: a
write that was acknowledged survives kill -9, so what is missing afterwards
was lost by a proxy, or by a failover that lost it with the old primary; the
files tell which (lineage.py).
"""

import os
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

import lineage
from cluster import Cluster, key_slot, tag_of_slot
from migrate import move_slots
from resp import ConnectionClosed, ReplyError
from sentinels import SentinelSet
from servers import HOST, RedisServer
from wait import wait_until

PATIENCE = 30.0  # seconds until a client that hears nothing calls it a hang


class Clock:
    """The time of one run."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.began = time.monotonic()

    def elapsed(self):
        return time.monotonic() - self.began

    def over(self):
        return self.elapsed() >= self.seconds

    def sleep_until(self, seconds):
        time.sleep(max(0.0, seconds - self.elapsed()))


class Actor(threading.Thread):
    """A client. What breaks it must be heard of."""

    def __init__(self):
        super().__init__(daemon=True)
        self.broken = None

    def run(self):
        try:
            self.act()
        except Exception as error:  # noqa: BLE001
            self.broken = error

    def end(self, timeout=PATIENCE + 15):
        self.join(timeout)
        assert not self.is_alive(), f"{type(self).__name__} hangs"
        if self.broken:
            raise self.broken


class Seen:
    """What clients saw that they should not have, by step and kind."""

    def __init__(self):
        self.errors = Counter()
        self.samples = {}
        self.drops = 0
        self.first_drop = ""
        self.lock = threading.Lock()

    def error(self, step, text):
        text = str(text)
        kind = text.split(" ", 1)[0] or "?"
        with self.lock:
            self.errors[step, kind] += 1
            self.samples.setdefault((step, kind), text)
        return kind

    def drop(self, why):
        with self.lock:
            self.drops += 1
            self.first_drop = self.first_drop or str(why)

    def count(self, step, kind=None):
        return sum(n for (s, k), n in self.errors.items()
                   if s == step and kind in (None, k))

    def complaints(self, allowed=()):
        """allowed: pairs of step and kind."""
        bad = []
        if self.drops:
            bad.append(f"{self.drops} connections dropped, the first: "
                       f"{self.first_drop}")
        bad += [f"{n} times {step} was answered {kind}: "
                f"{self.samples[step, kind]}"
                for (step, kind), n in sorted(self.errors.items())
                if (step, kind) not in allowed]
        return bad

    def rows(self):
        yield "dropped connections", self.drops
        yield "errors", sum(self.errors.values())
        for (step, kind), n in sorted(self.errors.items()):
            yield f"  {step}", f"{n} × {kind}"


class Refused(Exception):
    """An error reply."""

    def __init__(self, step, reply):
        super().__init__(f"{step}: {reply}")
        self.step, self.reply = step, reply


class Dropped(Exception):
    """The connection is gone, or silent for PATIENCE."""

    def __init__(self, step, why):
        super().__init__(f"at {step}: {why}")
        self.step = step


def call(connection, step, *args):
    """One command on a raw connection, errors as exceptions."""
    try:
        reply = connection.call(*args)
    except (ConnectionClosed, OSError) as error:
        raise Dropped(step, repr(error)) from error
    if isinstance(reply, ReplyError):
        raise Refused(step, reply)
    return reply


def counting_redis(port, seen, **options):
    """redis-py without retries and with one connection. It would connect
    again without a word: each time but the first counts as a drop."""
    first = []

    class Connection(redis.Connection):
        def connect(self):
            if self._sock is None and first:
                seen.drop("redis-py had to connect again")
            first.append(True)
            super().connect()

    pool = redis.ConnectionPool(
        connection_class=Connection, max_connections=1, host=HOST, port=port,
        socket_timeout=PATIENCE, retry=Retry(NoBackoff(), 0),
        decode_responses=True, **options)
    return redis.Redis(connection_pool=pool)


# -- worlds

@dataclass
class Death:
    """A server that was killed, and what it had executed."""
    shard: int
    at: float
    back: float
    snapshot: lineage.Snapshot = None


@dataclass
class World:
    """Servers, and what happens to them. deaths: in their order."""
    folder: str
    deaths: list = field(default_factory=list)
    facts: dict = field(default_factory=dict)
    complaints: list = field(default_factory=list)
    # A load may say when its clients are served as before, asked when a
    # fault is over, and when all is as before, asked when the servers are.
    is_back: object = None
    is_whole: object = None
    # May it tell what was executed? And may a server lose what it had
    # acknowledged?
    has_lines = True
    may_lose = False
    sets = ()  # settings of redial

    def wait_back(self, since):
        """Wait until the clients are served; how long that took."""
        if self.is_back is not None:
            self._wait(self.is_back, "the clients to be served again")
            self.facts["longest gap"] = max(
                time.monotonic() - since, self.facts.get("longest gap", 0.0))

    def wait_whole(self):
        if self.is_whole is not None:
            self._wait(self.is_whole, "all to be as before the fault")

    def _wait(self, condition, what, timeout=20):
        try:
            wait_until(condition, what, timeout)
        except AssertionError as error:
            self.complaints.append(str(error))

    def lines(self, fold):
        """[Line] of each shard. fold(snapshot) gives the events of what was
        executed in it. All must be quiet."""
        found = []
        for number, server in enumerate(self.finals()):
            lineage.wait_settled([server])
            parts = [death.snapshot for death in self.deaths
                     if death.shard == number]
            parts.append(lineage.read(server.folder))
            assert not parts[0].base, "the file does not begin at the start"
            found.append(lineage.trace([fold(part) for part in parts]))
        return found


class Alone(World):
    """One server, kill -9 every few seconds, restarted at once."""
    name = "kill -9 and restart of the server"
    every, down = 3.0, 0.3

    def __enter__(self):
        self.redis = RedisServer(os.path.join(self.folder, "redis"), aof=True,
                                 options=["--aof-use-rdb-preamble", "no"])
        self.redis.start()
        return self

    def __exit__(self, *_):
        if self.redis.running():
            self.redis.kill9()

    @property
    def url(self):
        return self.redis.url

    def places(self, n):
        return [str(i) for i in range(n)]

    def server_of(self, key):
        return self.redis

    def nodes(self):
        return [self.redis]

    def finals(self):
        return [self.redis]

    def hurt(self, clock):
        due = min(2.0, clock.seconds * 0.2)
        while due < clock.seconds - 1:
            clock.sleep_until(due)
            self.redis.kill9()
            at = time.monotonic()
            snapshot = lineage.read(self.redis.folder)
            time.sleep(max(0.0, at + self.down - time.monotonic()))
            self.redis.restart()
            back = time.monotonic()
            self.deaths.append(Death(0, at, back, snapshot))
            self.wait_back(at)
            due = max(due + self.every, clock.elapsed() + 0.5)
        self.facts["kills"] = len(self.deaths)


class Stop(Alone):
    """One server that hangs for 2 s every few seconds: a direct client would
    wait, and that is all that may be seen."""
    name = "SIGSTOP of the server for 2 s"
    every, down = 4.0, 2.0
    deadly = False

    def hurt(self, clock):
        due = min(2.0, clock.seconds * 0.2)
        times = 0
        while due < clock.seconds - 1:
            clock.sleep_until(due)
            self.redis.stop_running()
            at = time.monotonic()
            time.sleep(self.down)
            self.redis.go_on()
            back = time.monotonic()
            self.wait_back(at)
            if self.deadly:
                time.sleep(0.5)  # what it was given before is executed now
                self.deaths.append(Death(0, at, back,
                                         lineage.read(self.redis.folder)))
            times += 1
            due = max(due + self.every, clock.elapsed() + 0.5)
        self.facts["stops"] = times


class StopTimeout(Stop):
    """The same, with connections that are given up after 500 ms: what was
    sent on them may still be executed."""
    name = "SIGSTOP of the server for 2 s, attempt_timeout = 500ms"
    sets = ("upstream.attempt_timeout=500ms",)
    deadly = True


class SentinelKill(World):
    """The primary of a sentinel set is killed; it comes back as a replica of
    its successor, which is killed next."""
    name = "kill -9 of the primary of 3, watched by 3 sentinels"
    every = 8.0
    may_lose = True

    def __enter__(self):
        self.sentinels = SentinelSet(
            os.path.join(self.folder, "sentinels")).start()
        self.now = self.sentinels.primary()
        return self

    def __exit__(self, *_):
        self.sentinels.end()

    @property
    def url(self):
        return self.sentinels.url

    def places(self, n):
        return [str(i) for i in range(n)]

    def server_of(self, key):
        return self.now

    def nodes(self):
        return [self.now]

    def finals(self):
        return [self.now]

    def hurt(self, clock):
        due = min(2.0, clock.seconds * 0.2)
        while due < clock.seconds - 4 or not self.deaths:
            clock.sleep_until(due)
            self._kill()
            due = max(due + self.every, clock.elapsed() + 0.5)
        self.facts["kills"] = len(self.deaths)

    def _kill(self):
        old = self.now
        old.kill9()
        at = time.monotonic()
        snapshot = lineage.read(old.folder)
        self.now = self.sentinels.wait_promoted(old)
        self.sentinels.wait_announced(old)
        took = time.monotonic() - at
        self.facts["longest failover"] = max(
            took, self.facts.get("longest failover", 0.0))
        self.wait_back(at)
        old.restart()
        self.sentinels.wait_ok()
        lineage.wait_settled(self.sentinels.members)
        self.wait_whole()
        self.deaths.append(Death(0, at, time.monotonic(), snapshot))


class _OfCluster(World):
    hung = None  # a node that does not answer
    # Is who publishes to a shard always at its primary?
    counts_shards = True

    def __enter__(self):
        self.cluster = Cluster(os.path.join(self.folder, "cluster")).start()
        return self

    def __exit__(self, *_):
        self.cluster.end()

    @property
    def url(self):
        return self.cluster.url

    def slots(self, n):
        """Spread over the shards."""
        owners = self.cluster.nodes[0].owners()
        of = [[slot for slot, owner in sorted(owners.items())
               if owner == shard.primary.id] for shard in self.cluster.shards]
        return [of[i % len(of)][i // len(of)] for i in range(n)]

    def places(self, n):
        return [tag_of_slot(slot) for slot in self.slots(n)]

    def nodes(self):
        return [node for node in self.cluster.alive() if node is not self.hung]

    def primaries(self):
        """Who owns slots, as one of those who answer sees it."""
        ids = set(self.nodes()[0].owners().values())
        return [node for node in self.nodes() if node.id in ids]

    def server_of(self, key):
        """The owner of its slot, by its own words."""
        slot = key_slot(key)
        for node in self.nodes():
            if node.owners().get(slot) == node.id and node.is_primary():
                return node
        raise AssertionError(f"nobody owns slot {slot}")


class ClusterKill(_OfCluster):
    """A primary of 3 + 3 nodes is killed, comes back as a replica of its
    replica, and then it is the next one's turn."""
    name = "kill -9 of a primary of 3 + 3 nodes"
    every = 8.0
    may_lose = True

    def finals(self):
        return [shard.current_primary() for shard in self.cluster.shards]

    def hurt(self, clock):
        due = min(2.0, clock.seconds * 0.2)
        while due < clock.seconds - 4 or not self.deaths:
            clock.sleep_until(due)
            self._hurt_one(len(self.deaths) % len(self.cluster.shards))
            due = max(due + self.every, clock.elapsed() + 0.5)
        self.facts["kills"] = len(self.deaths)

    def _hurt_one(self, shard):
        old = self.cluster.shards[shard].current_primary()
        held = lineage.Held(old.folder)
        at = time.monotonic()
        self.strike(shard, old)
        took = time.monotonic() - at
        self.facts["longest failover"] = max(
            took, self.facts.get("longest failover", 0.0))
        self.wait_back(at)
        snapshot = self.heal(old, held)
        self.cluster.wait_ok()
        lineage.wait_settled(self.cluster.shards[shard].nodes)
        self.wait_whole()
        self.deaths.append(Death(shard, at, time.monotonic(),
                                 snapshot or held.read()))

    def strike(self, shard, old):
        old.kill9()
        self.cluster.wait_promoted(shard, old)

    def heal(self, old, held):
        """What it had executed, if it is known before it copies the data of
        the others."""
        snapshot = held.read()
        old.restart()
        return snapshot


class ClusterFailover(ClusterKill):
    """CLUSTER FAILOVER of one shard after the other. Nothing dies."""
    counts_shards = False
    name = "CLUSTER FAILOVER in 3 + 3 nodes"
    every = 4.0

    def strike(self, shard, old):
        self.cluster.failover(shard)

    def heal(self, old, held):
        return None


class ClusterStop(ClusterKill):
    """A primary hangs until its replica has taken over, and a little longer;
    then it goes on, and may execute what it had been given before."""
    counts_shards = False
    name = "SIGSTOP of a primary of 3 + 3 nodes"

    def strike(self, shard, old):
        self.hung = old
        old.stop_running()
        self.cluster.wait_promoted(shard, old)

    def heal(self, old, held):
        time.sleep(1.5)  # long enough for all to know who is primary now
        old.go_on()
        self.hung = None


class ClusterMigrate(_OfCluster):
    """The slots in use move from one primary to the next, key by key, and
    on and on."""
    name = "slots that move between 3 + 3 nodes"
    has_lines = False

    def __enter__(self):
        super().__enter__()
        self.moving = []
        return self

    def slots(self, n):
        """All of one shard: so all of them move at a time."""
        owners = self.cluster.nodes[0].owners()
        first = self.cluster.shards[0].primary.id
        self.moving = [slot for slot, owner in sorted(owners.items())
                       if owner == first][:n]
        return self.moving

    def hurt(self, clock):
        primaries = [shard.primary for shard in self.cluster.shards]
        turn, keys = 0, 0
        clock.sleep_until(1.0)
        while turn == 0 or not clock.over():
            source = primaries[turn % len(primaries)]
            target = primaries[(turn + 1) % len(primaries)]
            order = random.sample(self.moving, len(self.moving))
            keys += move_slots(self.cluster, order, source, target,
                               at_once=4, pace=0.02).keys
            turn += 1
            self.wait_back(time.monotonic())
        self.facts["slots moved"] = turn * len(self.moving)
        self.facts["keys moved"] = keys
        self.cluster.wait_ok()
