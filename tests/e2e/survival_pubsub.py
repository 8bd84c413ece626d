"""20 subscribers, and publishers that go past what is tested and number their
messages.

Four channels, each with five subscribers: SUBSCRIBE and PSUBSCRIBE over RESP2
and RESP3, and redis-py. Those of RESP2 send PING while they are subscribed,
those of RESP3 ordinary commands. In a cluster four more use SSUBSCRIBE.

What is asked: no connection drops, no command fails, and each subscription
gets the messages of its channel in their order and none twice. And PUBLISH
says how many it was given to: if it says n, n of them must have it. That is
the truth about the gap after a fault, when some are subscribed again and some
are not yet. (The last message before a kill is left out: the server may have
died between answering PUBLISH and writing to all.) Between nodes of a cluster
PUBLISH does not count, nor does SPUBLISH at a primary that has become a
replica: there everybody must have what was published while the cluster was
well and all were subscribed.
"""

import itertools
import select
import threading
import time
import uuid
from collections import Counter, defaultdict
from dataclasses import dataclass

import redis

from resp import Connection, ConnectionClosed, Push, ReplyError
from survival_worlds import Actor, Seen, counting_redis
from wait import wait_until

CHANNELS = 4
KINDS = ("subscribe 2", "psubscribe 2", "subscribe 3", "psubscribe 3",
         "redis-py")
PACE = 0.005   # seconds from message to message
ASK = 0.1      # seconds from command to command of a subscriber


@dataclass
class Message:
    channel: str
    number: int
    at: float
    receivers: int = -1   # what PUBLISH said, or -1
    sure: bool = False    # was the next command answered by the same server?
    node: object = None


class Subscriber(Actor):
    """A raw connection that is subscribed, and asks something besides."""

    def __init__(self, load, number, kind, channel):
        super().__init__()
        self.load, self.number, self.channel = load, number, channel
        self.how, self.version = kind.split()
        self.got = []
        self.owed = []     # the answers to come, in order
        self.answers = 0
        self.ready = threading.Event()
        self.closing = threading.Event()

    def act(self):
        self.c = Connection(("127.0.0.1", self.load.port), 30)
        if self.version == "3":
            assert not isinstance(self.c.call("HELLO", "3"), ReplyError)
        self._subscribe()
        try:
            self._listen()
        except (ConnectionClosed, OSError) as error:
            self.load.seen.drop(f"subscriber {self.number} ({self.how} "
                                f"{self.version}): {error!r}")
        self.c.close()

    def _subscribe(self):
        name = self.channel + "*" if self.how == "psubscribe" \
            else self.channel
        reply = self.c.call(self.how.upper(), name)
        assert reply == [self.how.encode(), name.encode(), 1], reply
        self.ready.set()

    def _listen(self):
        due = time.monotonic()
        asked = time.monotonic()
        while True:
            self._read()
            now = time.monotonic()
            if self.owed:
                assert now - asked < 30, f"no answer to {self.owed} in 30 s"
            elif self.closing.is_set():
                return
            elif now >= due:
                self._ask()
                asked, due = now, now + ASK

    def _read(self):
        """What is there, or comes within a moment."""
        if not self.c.buf:
            readable, _, _ = select.select([self.c.socket], [], [], ASK / 2)
            if not readable:
                return
        self._take(self.c.read())

    def _take(self, value):
        kinds = {b"message": 1, b"pmessage": 2, b"smessage": 1}
        if isinstance(value, list) and value and value[0] in kinds \
                and (self.version == "2" or isinstance(value, Push)):
            at = kinds[value[0]]
            self.load.got(self, value[at].decode(), int(value[at + 1]))
        elif isinstance(value, Push):
            self.load.seen.error("push", f"unasked {value}")
        elif not self.owed:
            self.load.seen.error("answer", f"unasked {value}")
        else:
            self._check(self.owed.pop(0), value)

    def _check(self, expected, value):
        self.answers += 1
        if isinstance(value, ReplyError):
            self.load.seen.error("command of a subscriber", value)
        elif value != expected:
            self.load.seen.error("command of a subscriber",
                                 f"answered {value}, not {expected}")

    def _ask(self):
        number = str(self.answers).encode()
        if self.version == "2":
            self.owed.append([b"pong", number])
            self.c.send("PING", number)
            return
        key = f"{self.load.run}:{{{self.load.places[0]}}}:{self.number}"
        self.owed += [b"OK", number]
        self.c.send("SET", key, number)
        self.c.send("GET", key)


class Library(Actor):
    """redis-py's PubSub."""

    def __init__(self, load, number, channel):
        super().__init__()
        self.load, self.number, self.channel = load, number, channel
        self.how, self.version = "subscribe", "redis-py"
        self.got = []
        self.answers = 0
        self.ready = threading.Event()
        self.closing = threading.Event()

    def act(self):
        client = counting_redis(self.load.port, self.load.seen)
        pubsub = client.pubsub()
        pubsub.subscribe(self.channel)
        while not self.closing.is_set():
            try:
                message = pubsub.get_message(timeout=ASK)
            except (redis.RedisError, OSError) as error:
                self.load.seen.drop(f"redis-py: {error!r}")
                continue
            if message and message["type"] == "subscribe":
                self.ready.set()
            elif message and message["type"] == "message":
                self.load.got(self, message["channel"], int(message["data"]))
        pubsub.close()


class Publisher(Actor):
    """Numbers the messages of all channels, and always publishes a channel's
    at one node as long as that lives: only so is their order certain."""

    def __init__(self, load, command, channels):
        super().__init__()
        self.load, self.command, self.channels = load, command, channels
        self.messages = []
        self.connections = {}
        self.last = {}   # node: its last message

    def act(self):
        numbers = {channel: itertools.count(1) for channel in self.channels}
        due = 0.0
        for channel in itertools.cycle(self.channels):
            self.load.clock.sleep_until(due)
            if self.load.clock.over():
                break
            message = Message(channel, next(numbers[channel]),
                              time.monotonic())
            self._publish(message)
            self.messages.append(message)
            due = max(due + PACE, self.load.clock.elapsed())
        for message in self.last.values():
            message.sure = True  # nobody is killed any more
        for connection in self.connections.values():
            connection.close()

    def _publish(self, message):
        node = None
        try:
            node = self.load.node_for(message.channel, self.command)
            if node not in self.connections:
                self.connections[node] = node.connect()
                self.connections[node].socket.settimeout(5)
            reply = self.connections[node].call(
                self.command, message.channel, str(message.number))
        except (OSError, ConnectionClosed, AssertionError):
            if node in self.connections:
                self.connections.pop(node).close()
                self.last.pop(node, None)
            self.load.node_failed(message.channel)
            time.sleep(0.01)  # the pace of trying
            return
        if isinstance(reply, ReplyError):
            # The slot has moved, or the node is loading.
            self.load.node_failed(message.channel)
            return
        message.receivers, message.node = reply, node
        if node in self.last:
            self.last[node].sure = True
        self.last[node] = message


class PubsubLoad:
    def __init__(self, world, port):
        self.world, self.port = world, port
        self.run = uuid.uuid4().hex[:6]
        self.places = world.places(CHANNELS)
        self.alone = not hasattr(world, "cluster")
        self.seen = Seen()
        self.homes = {}
        world.is_back, world.is_whole = self.is_back, self.is_whole
        self.channels = [f"ch:{self.run}:{{{place}}}"
                         for place in self.places]
        self.shard_channels = [] if self.alone else [
            f"sh:{self.run}:{{{place}}}" for place in self.places]

    def start(self, clock):
        self.clock = clock
        self.subscribers = []
        for kind in KINDS:
            for channel in self.channels:
                number = len(self.subscribers)
                self.subscribers.append(
                    Library(self, number, channel) if kind == "redis-py"
                    else Subscriber(self, number, kind, channel))
        for number, channel in enumerate(self.shard_channels):
            self.subscribers.append(Subscriber(
                self, len(self.subscribers), f"ssubscribe {number % 2 + 2}",
                channel))
        for subscriber in self.subscribers:
            subscriber.start()
        for subscriber in self.subscribers:
            if not subscriber.ready.wait(20):
                subscriber.end(1)
                raise AssertionError("a subscriber hears nothing")
        wait_until(self.is_whole, "all to be subscribed")
        self.publishers = [Publisher(self, "PUBLISH", self.channels)]
        if self.shard_channels:
            self.publishers.append(
                Publisher(self, "SPUBLISH", self.shard_channels))
        for publisher in self.publishers:
            publisher.start()

    def stop(self):
        for publisher in self.publishers:
            publisher.end()
        # What was published last may be on its way.
        want = self._wanted_last()
        try:
            wait_until(lambda: all(s.got and s.got[-1] >= want[s.channel]
                                   for s in self.subscribers),
                       "the last messages", 3)
        except AssertionError:
            pass  # judge() says which
        for subscriber in self.subscribers:
            subscriber.closing.set()
        for subscriber in self.subscribers:
            subscriber.end()

    def _wanted_last(self):
        want = Counter()
        for publisher in self.publishers:
            for message in publisher.messages:
                if message.receivers >= 0:
                    want[message.channel] = message.number
        return want

    # -- while it runs

    def got(self, subscriber, channel, number):
        if channel != subscriber.channel:
            self.seen.error("message", f"of {channel} for "
                            f"{subscriber.channel}")
        subscriber.got.append(number)

    def node_for(self, channel, command):
        """Where to publish. A replica takes SPUBLISH, too, but it counts only
        who is subscribed at itself."""
        if self.alone:
            return self.world.server_of(channel)
        if channel not in self.homes:
            if command == "SPUBLISH":
                self.homes[channel] = self.world.server_of(channel)
            else:
                left = self.world.primaries()  # two, while one is dead
                self.homes[channel] = left[
                    self.channels.index(channel) % len(left)]
        return self.homes[channel]

    def node_failed(self, channel):
        self.homes.pop(channel, None)

    def is_whole(self):
        """In a cluster also whether all nodes are linked to each other."""
        return self.is_back() and (self.alone or self._is_linked())

    def is_back(self):
        """Whether all are subscribed, as the servers say."""
        servers = self.world.nodes()
        plain, patterns, sharded = Counter(), 0, Counter()
        for server in servers:
            plain += self._numbers(server, "NUMSUB", self.channels)
            patterns += self._patterns(server)
            if self.shard_channels:
                sharded += self._numbers(server, "SHARDNUMSUB",
                                         self.shard_channels)
        want = Counter((s.how, s.channel) for s in self.subscribers)
        assert patterns == sum(n for (how, _), n in want.items()
                               if how == "psubscribe"), \
            f"{patterns} patterns are subscribed"
        for found, how in ((plain, "subscribe"), (sharded, "ssubscribe")):
            for channel, n in found.items():
                assert n == want[how, channel], f"{n} have {channel}"
            assert sum(found.values()) == sum(
                n for (h, _), n in want.items() if h == how), \
                f"{sum(found.values())} have a channel"
        return True

    @staticmethod
    def _numbers(server, what, channels):
        reply = server.call("PUBSUB", what, *channels)
        assert isinstance(reply, list), reply
        return Counter({name.decode(): n for name, n in
                        zip(reply[0::2], reply[1::2]) if n})

    @staticmethod
    def _patterns(server):
        """Of all clients: PUBSUB NUMPAT counts a pattern of two once."""
        return sum(int(row.get("psub", 0)) for row in server.clients())

    def _is_linked(self):
        for node in self.world.cluster.alive():
            for row in node.ask("CLUSTER", "NODES").decode().splitlines():
                assert row.split()[7] == "connected", row
        return True

    # -- judging

    def judge(self):
        bad = self.seen.complaints()
        messages = [m for p in self.publishers for m in p.messages]
        for subscriber in self.subscribers:
            bad += judge_order(subscriber, {
                m.number for m in messages if m.receivers < 0
                and m.channel == subscriber.channel})
        self.full = 0
        by_channel = defaultdict(list)
        for message in messages:
            by_channel[message.channel].append(message)
        for channel, sent in by_channel.items():
            who = [s for s in self.subscribers if s.channel == channel]
            counted = self.alone or (channel in self.shard_channels
                                     and self.world.counts_shards)
            quiet = None if counted else self._quiet
            missing, full = judge_channel(channel, sent, [s.got for s in who],
                                          quiet)
            bad += missing
            self.full += full
        self.published = sum(m.receivers >= 0 for m in messages)
        if self.full < self.published * 0.4:
            bad.append(f"only {self.full} of {self.published} messages were "
                       "for all")
        gap = self.world.facts.get("longest gap", 0)
        fault = self.world.facts.get("longest failover",
                                     getattr(self.world, "down", 0))
        if gap > fault + 3:
            bad.append(f"the longest gap lasted {gap:.1f} s, the fault "
                       f"{fault:.1f} s")
        return bad

    def _quiet(self, message):
        """Whether it was published while the cluster was well: after the last
        fault was over, and not shortly before the next."""
        return not any(d.at - 0.2 <= message.at <= d.back + 0.05
                       for d in self.world.deaths)

    def rows(self):
        yield "subscribers", len(self.subscribers)
        yield "messages published", self.published
        yield "  for all of a channel", self.full
        yield "  received", sum(len(s.got) for s in self.subscribers)
        yield "other commands answered", sum(s.answers
                                             for s in self.subscribers)
        yield from self.seen.rows()

    def metrics(self, proxy):
        return [("gaps redial has counted",
                 int(proxy.metric("pubsub_gaps")))]


def judge_order(subscriber, doubtful=()):
    """doubtful: messages whose PUBLISH was not answered. A server that hung
    may execute them late."""
    who = f"subscriber {subscriber.number} ({subscriber.how} " \
        f"{subscriber.version})"
    bad = [f"twice: {who} got {number} of {subscriber.channel} {n} times"
           for number, n in Counter(subscriber.got).items() if n > 1]
    certain = [n for n in subscriber.got if n not in doubtful]
    bad += [f"out of order: {who} got {after} of {subscriber.channel} after "
            f"{before}" for before, after in zip(certain, certain[1:])
            if after < before]
    return bad


def judge_channel(channel, sent, got, quiet=None):
    """(complaints, how many messages were for all). got: what each subscriber
    received. quiet(message): whether all must have it; without, PUBLISH has
    said how many."""
    bad, full = [], 0
    times = Counter(number for numbers in got for number in set(numbers))
    for message in sent:
        n = times[message.number]
        if message.receivers < 0 or not message.sure:
            continue
        want = message.receivers if quiet is None else len(got)
        if quiet is not None and not quiet(message):
            continue
        full += want == len(got)
        if n != want:
            bad.append(f"{channel}: message {message.number} was for {want}, "
                       f"{n} got it")
    known = {message.number for message in sent}
    bad += [f"invented: {number} on {channel}" for number in times
            if number not in known]
    return bad, full
