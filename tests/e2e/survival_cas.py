"""Compare-and-set with WATCH, GET, MULTI and EXEC over a few shared keys.

Each block carries a token of its own, so that what was executed can be told
one by one. Kinds of blocks, each with keys of its own:

    set     WATCH k, GET k, MULTI, SET k "n+1:token", EXEC
    log     the same, and RPUSH k:log token in the block
    incr    WATCH k, GET k, MULTI, INCR k, RPUSH k:log token, EXEC
    tally   MULTI, INCR k, RPUSH k:log token, EXEC, nothing watched
    pair    MULTI, SET a token, SET b token, EXEC on keys of its own, then a
            block that reads both: may be replayed, so no error is allowed

Half of the clients are redis-py, which sends a block in one piece, half send
it command by command and wait a little between them, so that a fault meets
every place in it.

What proves that nothing is lost or duplicated: a token whose EXEC was
acknowledged was executed once; one that is unknown at most once; one whose
EXEC was null, or refused, never. The numbers of a key are 1, 2, 3..., in the
order in which the server executed them, each one once. Both commands of a
block were executed, or none. And the values at the end are those.
"""

import itertools
import random
import time
import uuid
from collections import Counter, defaultdict
from dataclasses import dataclass

import redis

from resp import Connection
from survival_worlds import (Actor, Dropped, Refused, Seen, call,
                             counting_redis)

KINDS = ("set", "log", "incr")
CLIENTS, EXTRA = 50, 6
PLACES = 6
PACE = 0.1  # seconds from block to block of one client
ACKED, NULL, UNKNOWN, REFUSED = "acked", "null", "unknown", "refused"
ALLOWED = {("EXEC", "UNKNOWNOUTCOME")}


@dataclass
class Block:
    kind: str
    key: str
    token: str
    number: int = 0        # what it claims to be, 0 where it can't know
    outcome: str = REFUSED
    reply: object = None
    step: str = ""         # where it was refused
    read: object = None    # of a pair: what was read before the block


class StepByStep:
    """A client that waits for each reply, and a little longer."""

    def __init__(self, port, seen):
        self.address, self.seen = ("127.0.0.1", port), seen
        self.open()

    def open(self):
        self.c = Connection(self.address, 30)

    def reopen(self):
        self.c.close()
        self.open()

    def close(self):
        self.c.close()

    def _call(self, step, *args):
        time.sleep(random.random() * 0.012)
        return call(self.c, step, *args)

    def watch_get(self, key):
        assert self._call("WATCH", "WATCH", key) == b"OK"
        value = self._call("GET", "GET", key)
        return value.decode() if value is not None else None

    def execute(self, commands):
        """The reply of EXEC. One that was refused before leaves no block
        open."""
        began = False
        try:
            assert self._call("MULTI", "MULTI") == b"OK"
            began = True
            for command in commands:
                reply = self._call("QUEUE", *command)
                assert reply == b"QUEUED", reply
        except Refused:
            self._call("DISCARD", *(["DISCARD"] if began else ["UNWATCH"]))
            raise
        return self._call("EXEC", "EXEC")

    def give_up(self):
        self._call("UNWATCH", "UNWATCH")


class OnePiece:
    """redis-py's pipeline."""

    def __init__(self, port, seen):
        self.redis = counting_redis(port, seen)
        self.pipe = self.redis.pipeline()

    def reopen(self):
        self._clear()
        self.redis.connection_pool.disconnect()

    def close(self):
        self._clear()
        self.redis.close()
        self.redis.connection_pool.disconnect()

    def _step(self, step, function, *args):
        try:
            return function(*args)
        except redis.WatchError as error:
            if "onnection" in str(error):  # it says so of a lost one, too
                raise Dropped(step, error) from error
            return None
        except redis.exceptions.BusyLoadingError as error:
            raise Refused(step, f"LOADING {error}") from error
        except redis.ResponseError as error:
            words = str(error)
            if words.startswith("Command # "):
                step = "QUEUE"
                words = words.split("caused error: ", 1)[-1]
            elif " UNWATCH " in words:
                step = "UNWATCH"  # it says that by itself
            self._clear()
            raise Refused(step, words) from error
        except (redis.ConnectionError, redis.TimeoutError) as error:
            raise Dropped(step, repr(error)) from error

    def _clear(self):
        """Its own reset() stops half way when UNWATCH is refused."""
        self.pipe.watching = False
        self.pipe.reset()

    def watch_get(self, key):
        self._step("WATCH", self.pipe.watch, key)
        return self._step("GET", self.pipe.get, key)

    def execute(self, commands):
        if self.pipe.watching:
            self.pipe.multi()
        for command in commands:
            self.pipe.execute_command(*command)
        return self._step("EXEC", self.pipe.execute)

    def give_up(self):
        self._clear()


class Client(Actor):
    def __init__(self, load, number, plain=False):
        super().__init__()
        self.load, self.number, self.plain = load, number, plain
        self.blocks = []
        self.mine = (Client.pair_key(load, number, "a"),
                     Client.pair_key(load, number, "b"))

    @staticmethod
    def pair_key(load, number, name):
        return f"p:{load.run}:{{{load.places[number % PLACES]}}}:" \
               f"{number}:{name}"

    def act(self):
        kind = OnePiece if self.number % 2 else StepByStep
        self.client = kind(self.load.port, self.load.seen)
        due = random.random() * PACE
        for turn in itertools.count():
            self.load.clock.sleep_until(due)
            if self.load.clock.over():
                break
            self._block(turn)
            due = max(due + PACE, self.load.clock.elapsed())
        self.client.close()

    def _block(self, turn):
        load = self.load
        if self.plain:
            kind = ("pair", "tally")[turn % 2]
        else:
            kind = KINDS[(turn + self.number) % len(KINDS)]
        place = load.places[random.randrange(len(load.places))]
        key = self.mine[0] if kind == "pair" \
            else f"{kind}:{load.run}:{{{place}}}"
        block = Block(kind, key, f"{self.number}.{turn}")
        self.blocks.append(block)
        try:
            commands = self._commands(block)
            block.reply = self.client.execute(commands)
            block.outcome = NULL if block.reply is None else ACKED
            self._note_items(block)
        except Refused as error:
            self._refused(block, error)
        except Dropped as error:
            block.step = error.step
            block.outcome = UNKNOWN if error.step == "EXEC" else REFUSED
            load.seen.drop(error)
            self._reopen()

    def _reopen(self):
        try:
            self.client.reopen()
        except (OSError, redis.ConnectionError):
            time.sleep(0.05)  # the pace of trying

    def _commands(self, block):
        key, token = block.key, block.token
        if block.kind == "pair":
            block.read = self.client.execute([("GET", k) for k in self.mine])
            return [("SET", k, token) for k in self.mine]
        if block.kind == "tally":
            return [("INCR", key), ("RPUSH", key + ":log", token)]
        value = self.client.watch_get(key)
        block.number = int((value or "0").split(":")[0]) + 1
        if block.kind == "incr":
            return [("INCR", key), ("RPUSH", key + ":log", token)]
        commands = [("SET", key, f"{block.number}:{token}")]
        if block.kind == "log":
            commands.append(("RPUSH", key + ":log", token))
        return commands

    def _note_items(self, block):
        for item in block.reply or ():
            if isinstance(item, Exception) or hasattr(item, "code"):
                self.load.seen.error("inside EXEC", item)

    def _refused(self, block, error):
        block.step = error.step
        step = f"{block.kind}: EXEC" if block.kind == "pair" else error.step
        kind = self.load.seen.error(step, error.reply)
        if error.step == "UNWATCH" or (error.step == "EXEC" and
                                       kind == "UNKNOWNOUTCOME"):
            block.outcome = UNKNOWN
        if error.step in ("WATCH", "GET"):
            try:
                self.client.give_up()
            except Refused as another:
                self.load.seen.error("UNWATCH", another.reply)


class CasLoad:
    def __init__(self, world, port):
        self.world, self.port = world, port
        self.run = uuid.uuid4().hex[:6]
        self.places = world.places(PLACES)
        self.seen = Seen()
        self._prepare()

    def _keys(self):
        for kind in (*KINDS, "tally"):
            for place in self.places:
                yield kind, f"{kind}:{self.run}:{{{place}}}"

    def _prepare(self):
        """All keys exist before: while a slot moves, a server does not take
        a block that makes new ones."""
        for kind, key in self._keys():
            with self.world.server_of(key).connect() as c:
                assert c.call("SET", key, "0") == b"OK"
                assert c.call("RPUSH", key + ":log", "begin") == 1
        for number in range(CLIENTS, CLIENTS + EXTRA):
            for name in "ab":
                key = Client.pair_key(self, number, name)
                with self.world.server_of(key).connect() as c:
                    assert c.call("SET", key, "begin") == b"OK"

    def start(self, clock):
        self.clock = clock
        self.clients = [Client(self, n, plain=n >= CLIENTS)
                        for n in range(CLIENTS + EXTRA)]
        for client in self.clients:
            client.start()

    def stop(self):
        for client in self.clients:
            client.end()
        self.blocks = [b for c in self.clients for b in c.blocks]

    # -- judging

    def judge(self):
        bad = self.seen.complaints(ALLOWED)
        finals = {}
        for kind, key in self._keys():
            with self.world.server_of(key).connect() as c:
                finals[key] = (c.call("GET", key).decode(), [
                    t.decode() for t in
                    c.call("LRANGE", key + ":log", 1, -1)])
        lost = set()
        if self.world.has_lines:
            lines = self.world.lines(self._fold)
            bad += judge_lines(self.blocks, lines, finals)
            lost = {e[2] for line in lines for e in line.all_lost()}
        if not self.world.may_lose:
            bad += judge_finals(self.blocks, finals)
        self.lost = sum(b.outcome == ACKED and b.token in lost
                        for b in self.blocks)
        bad += judge_pairs([c.blocks for c in self.clients if c.plain], lost)
        for kind in ("tally", "pair"):
            if self.count(NULL, (kind,)):
                bad.append(f"{self.count(NULL, (kind,))} times EXEC was null "
                           f"though nothing was watched ({kind})")
        most = len(self.clients) * len(self.world.deaths)
        if self.count(UNKNOWN) > most:
            bad.append(f"{self.count(UNKNOWN)} blocks unknown, each client "
                       f"can have had one when a server died")
        if self.count(ACKED) < len(self.blocks) * 0.2:
            bad.append(f"only {self.count(ACKED)} of {len(self.blocks)} "
                       "blocks were executed")
        return bad

    def _fold(self, snapshot):
        return fold(snapshot, self.run)

    def count(self, outcome, kinds=(*KINDS, "tally", "pair")):
        return sum(b.outcome == outcome and b.kind in kinds
                   for b in self.blocks)

    def rows(self):
        yield "clients", f"{CLIENTS} compare and set, {EXTRA} do not watch"
        yield "blocks", len(self.blocks)
        for outcome in (ACKED, NULL, UNKNOWN, REFUSED):
            yield f"  {outcome}", self.count(outcome)
        yield from self.seen.rows()
        yield "acknowledged, lost by failover", self.lost

    def metrics(self, proxy):
        return []


def fold(snapshot, run):
    """What a file says was executed: (command, key, token or number), unique
    each. Of its base only the numbers are needed."""
    mark = f":{run}:".encode()
    numbers = {}
    for args in snapshot.base:
        if args[0].upper() == b"SET" and mark in args[1]:
            numbers[args[1]] = args[2].split(b":")[0]
    events = []
    for args in snapshot.stream:
        name = args[0].upper().decode()
        if len(args) < 2 or mark not in args[1]:
            continue
        key = args[1].decode()
        if name == "INCR":
            numbers[args[1]] = int(numbers.get(args[1], 0)) + 1
            events.append((name, key, str(numbers[args[1]])))
        elif name == "SET" and not key.startswith("p:"):
            numbers[args[1]] = args[2].split(b":")[0]
            if args[2] != b"0":
                events.append((name, key, args[2].decode().split(":")[1],
                               int(numbers[args[1]])))
        elif name in ("SET", "RPUSH") and args[2] != b"begin":
            events.append((name, key, args[2].decode()))
    return events


def judge_tokens(blocks, executed, where):
    """executed: how often each token was."""
    bad = []
    for block in blocks:
        n = executed[block.token]
        what = f"{block.kind} {block.token} ({block.outcome}" + \
            (f" at {block.step})" if block.step else ")")
        if block.outcome == ACKED and n == 0:
            bad.append(f"lost: {what} is not in {where}")
        if n > 1:
            bad.append(f"duplicate: {what} is {n} times in {where}")
        if block.outcome in (NULL, REFUSED) and n:
            bad.append(f"untrue: {what} is {n} times in {where}")
    known = {block.token for block in blocks}
    bad += [f"invented: {token} in {where}" for token in executed
            if token not in known]
    return bad


def judge_lines(blocks, lines, finals):
    """Where the files tell what was executed."""
    bad = []
    kept = [e for line in lines for e in line.kept]
    lost = [e for line in lines for e in line.all_lost()]
    counted = [b for b in blocks if b.kind != "pair"]
    for name, kinds in (("SET", ("set", "log")),
                        ("RPUSH", ("log", "incr", "tally"))):
        executed = Counter(e[2] for e in kept + lost
                           if e[0] == name and not e[1].startswith("p:"))
        bad += judge_tokens([b for b in counted if b.kind in kinds],
                            executed, f"the {name}s of the files")
    for line in lines:
        for part in [line.kept] + [line.kept[:end] + died for end, died
                                   in zip(line.ends, line.lost)]:
            bad += judge_chain(part)
    for key, (value, log) in finals.items():
        of_key = [e for e in kept if e[1] == key and e[0] != "RPUSH"]
        tokens = [e[2] for e in kept if e[1] == key + ":log"]
        last = of_key[-1] if of_key else None
        number = 0 if not last else int(last[3] if last[0] == "SET"
                                        else last[2])
        if int(value.split(":")[0]) != number:
            bad.append(f"{key} is {value}, the files say {number}")
        if log != tokens:
            bad.append(f"{key}:log is not what the files say")
    return list(dict.fromkeys(bad))


def judge_chain(events):
    """The numbers of each key are 1, 2, 3... And of a block all was executed,
    or nothing: the list of a key is as long as its number."""
    bad, numbers, lengths = [], Counter(), Counter()
    for event in events:
        name, key = event[:2]
        if name == "RPUSH":
            lengths[key[:-len(":log")]] += 1
        elif not key.startswith("p:"):
            number = int(event[3] if name == "SET" else event[2])
            if number != numbers[key] + 1:
                bad.append(f"{name} {key} to {number} came after "
                           f"{numbers[key]}")
            numbers[key] = number
    bad += [f"torn: {key} has {numbers[key]} numbers and {n} tokens"
            for key, n in lengths.items() if n != numbers[key]]
    return bad


def judge_finals(blocks, finals):
    """Where the values at the end tell it: no server has lost anything."""
    bad = []
    by_key = defaultdict(list)
    for block in blocks:
        if block.kind != "pair":
            by_key[block.key].append(block)
    for key, (value, log) in finals.items():
        mine, final = by_key[key], int(value.split(":")[0])
        acked = [b for b in mine if b.outcome == ACKED]
        unknown = [b for b in mine if b.outcome == UNKNOWN]
        if not len(acked) <= final <= len(acked) + len(unknown):
            bad.append(f"{key} is {final}, must be {len(acked)} to "
                       f"{len(acked) + len(unknown)}")
        for number, n in Counter(b.number for b in acked if b.number).items():
            if n > 1:
                bad.append(f"lost update: {n} blocks were told they made "
                           f"{key} {number}")
        if not key.startswith("set:"):
            bad += judge_tokens(mine, Counter(log), key + ":log")
            bad += _judge_places(key, acked, log)
    return bad


def _judge_places(key, acked, log):
    """The n-th token of a list is that of the block that made it n."""
    place = {token: i + 1 for i, token in enumerate(log)}
    bad = []
    for block in acked:
        said = block.reply[0] if block.kind in ("incr", "tally") \
            else block.number
        if block.number and said != block.number:
            bad.append(f"{key}: {block.token} saw {block.number - 1} and "
                       f"made it {said}")
        # The list began with one element.
        if place.get(block.token) != said or block.reply[-1] != said + 1:
            bad.append(f"{key}: {block.token} made it {said}, its list says "
                       f"{block.reply[-1] - 1} and has it as "
                       f"{place.get(block.token)}")
    return bad


def judge_pairs(clients, lost):
    """Each client reads both of its keys before it writes them again: what
    it wrote last, in both."""
    bad = []
    for blocks in clients:
        may = {"begin"}
        for block in (b for b in blocks if b.kind == "pair"):
            if block.read is not None:
                one, two = (v.decode() if isinstance(v, bytes) else v
                            for v in block.read)
                if one != two:
                    bad.append(f"torn: {block.key} is {one}, its twin {two}")
                elif one not in may and not may & lost:
                    bad.append(f"wrong: {block.key} is {one}, written was "
                               f"{may}")
            elif block.step == "":
                bad.append(f"{block.key}: a block of GETs was answered null")
            if block.outcome == ACKED:
                may = {block.token}
            elif block.outcome == UNKNOWN:
                may = may | {block.token}
    return bad
