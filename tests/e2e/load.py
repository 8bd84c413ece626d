"""Steady load from clients that hide nothing, and what they saw.

Each client is a thread with one redis-py connection that never retries. It
sends SET, GET and INCR in turn at a fixed rate; when it was held up it
catches up, so the number of requests is always the same. Every operation goes
into a history (history.py), every lost connection is counted.
"""

import threading
import time
from collections import Counter
from dataclasses import dataclass, field

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

import aof
from history import (FAIL, INFO, OK, Op, check_aof, check_counter,
                     check_registers, outcome_of_error)

COUNTERS = 10
COMMANDS = ("SET", "GET", "INCR")


class PlainMix:
    """Which request comes next: SET and GET of the client's own key, INCR of
    a counter it shares with the others."""

    def operation(self, client, i):
        """(command, key, argument) of the client's i-th request."""
        # Shifted, so that a fault meets all kinds of commands.
        command = COMMANDS[(i + client) % len(COMMANDS)]
        if command == "INCR":
            return command, f"c:{(i // 3 + client) % COUNTERS}", None
        tag = f"tag:{client}:{i}" if command == "SET" else None
        return command, f"v:{client}", tag


def plain_client(port, host="127.0.0.1", **options):
    """redis-py as a legacy app uses it, without any retry of its own."""
    options.setdefault("socket_timeout", 30)
    return redis.Redis(host, port, retry=Retry(NoBackoff(), 0),
                       retry_on_timeout=False, single_connection_client=True,
                       **options)


@dataclass
class Result:
    history: list = field(default_factory=list)
    errors: Counter = field(default_factory=Counter)  # (command, kind)
    errors_of_proc: Counter = field(default_factory=Counter)
    drops: int = 0
    requests: int = 0
    worst_stall: float = 0.0
    worst_stall_command: str = ""
    seconds: float = 0.0

    def error_count(self, *commands):
        return sum(n for (command, _), n in self.errors.items()
                   if command in commands)

    def error_kinds(self, *commands):
        return {kind for command, kind in self.errors if command in commands}


class Client(threading.Thread):
    def __init__(self, load, number):
        super().__init__(daemon=True)
        self.load, self.number = load, number
        self.result = Result()
        self.written = 0
        self.generation = 0
        self.failure = None
        self.connection = None

    def run(self):
        try:
            self._run()
        except Exception as error:  # noqa: BLE001 - the test must hear of it
            self.failure = error

    def _run(self):
        load = self.load
        for i in range(load.requests_per_client):
            due = load.start_time + (i + self.number / load.clients) \
                / load.rate_per_client
            pause = due - time.monotonic()
            if pause > 0:
                time.sleep(pause)  # the pace, not a synchronisation
            self._operate(i)
        self._close()

    def _close(self):
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def _send(self, command, key, arg):
        """One request, on a new connection when the last one was lost."""
        if self.connection is None:
            self.connection = self.load.connect()
        if command == "SET":
            return self.connection.set(key, arg)
        if command == "GET":
            return self.connection.get(key)
        if command == "MSET":  # both keys of a pair get the same tag
            return self.connection.mset({key + ".a": arg, key + ".b": arg})
        if command == "MGET":
            return self.connection.mget(key + ".a", key + ".b")
        return self.connection.execute_command("INCR", key)  # not INCRBY

    def _operate(self, i):
        command, key, arg = self.load.mix.operation(self.number, i)
        proc = f"{self.number}.{self.generation}"
        before = time.monotonic()
        type_, value = OK, None
        try:
            value = self._send(command, key, arg)
        except redis.ResponseError as error:
            type_, value = outcome_of_error(str(error)), str(error)
            self._count_error(command, str(error).split(" ", 1)[0])
        except redis.exceptions.BusyLoadingError as error:
            # A ConnectionError to redis-py, but it came as a reply.
            type_, value = FAIL, repr(error)
            self._count_error(command, "LOADING")
            self._close()
        except (redis.ConnectionError, redis.TimeoutError) as error:
            connected = self.connection is not None
            type_, value = INFO if connected else FAIL, repr(error)
            self.result.drops += connected
            self._count_error(command, type(error).__name__)
            self._close()
        except self.load.client_errors as error:
            type_, value = INFO, repr(error)
            self._count_error(command, type(error).__name__)
        after = time.monotonic()
        self.result.requests += 1
        if after - before > self.result.worst_stall:
            self.result.worst_stall = after - before
            self.result.worst_stall_command = command
        self.result.history.append(Op(proc, self.number, i, command, key, arg,
                                      before, after, type_, value))
        if type_ == INFO:
            self.generation += 1

    def _count_error(self, command, kind):
        self.result.errors[command, kind] += 1
        self.result.errors_of_proc[self.number, command] += 1


class Load:
    """load = Load(port, seconds=8).start(); ...hurt the server...
    result = load.join()

    connect() may give another client than a plain one to the port, which may
    raise client_errors too."""

    def __init__(self, port, seconds, clients=20, rate=2000, mix=None,
                 connect=None, client_errors=(), **client_options):
        self.port, self.seconds, self.clients = port, seconds, clients
        self.mix = mix or PlainMix()
        self.connect = connect or self._connect
        self.client_errors = client_errors
        self.rate_per_client = rate / clients
        self.requests_per_client = int(seconds * self.rate_per_client)
        self.client_options = client_options
        self.threads = []
        self.start_time = None

    def _connect(self):
        return plain_client(self.port, decode_responses=True,
                            **self.client_options)

    def start(self):
        self.threads = [Client(self, n) for n in range(self.clients)]
        self.start_time = time.monotonic() + 0.05
        for thread in self.threads:
            thread.start()
        return self

    def elapsed(self):
        return time.monotonic() - self.start_time

    def sleep_until(self, seconds):
        """The script of a scenario: faults come at their time."""
        time.sleep(max(0.0, seconds - self.elapsed()))

    def join(self, timeout=90):
        end = time.monotonic() + timeout
        for thread in self.threads:
            thread.join(max(0.1, end - time.monotonic()))
            if thread.is_alive():
                raise AssertionError(f"client {thread.number} hangs after "
                                     f"{thread.result.requests} requests")
            if thread.failure:
                raise thread.failure
        total = Result(seconds=self.elapsed())
        for thread in self.threads:
            part = thread.result
            total.history += part.history
            total.errors += part.errors
            total.errors_of_proc += part.errors_of_proc
            total.drops += part.drops
            total.requests += part.requests
            if part.worst_stall > total.worst_stall:
                total.worst_stall = part.worst_stall
                total.worst_stall_command = part.worst_stall_command
        return total


def judge(result, server):
    """H2, H4 and the registers over a load that has ended. The server must be
    up, with its AOF on."""
    with server.connect() as c:
        finals = {}
        for i in range(COUNTERS):
            value = c.call("GET", f"c:{i}")
            finals[f"c:{i}"] = int(value or 0)
    commands = aof.load(server.folder)
    tags = aof.count_arguments(commands, lambda a: a.startswith(b"tag:"))
    incrs = aof.count_commands(commands, b"INCR")
    bad = check_counter(result.history, finals)
    bad += check_registers(result.history)
    bad += check_aof(result.history,
                     {tag.decode(): n for tag, n in tags.items()},
                     {key.decode(): n for key, n in incrs.items()})
    return bad


def counter_bounds(result, server):
    """(acknowledged, final, unknown) over all counters."""
    ok = sum(op.op == "INCR" and op.type == OK for op in result.history)
    unknown = sum(op.op == "INCR" and op.type == INFO
                  for op in result.history)
    with server.connect() as c:
        final = sum(int(c.call("GET", f"c:{i}") or 0)
                    for i in range(COUNTERS))
    return ok, final, unknown
