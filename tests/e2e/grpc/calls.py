"""A steady load of unary gRPC calls, and what became of each.

Calls start by the clock, however long others take: a stall delays nobody's
start and so cannot hide.
"""

import asyncio
import collections
import json
import threading
import time

import grpc
from grpc import aio

from backends import UNLIMITED

Outcome = collections.namedtuple("Outcome", "id start end status details")
METHOD = "/echo.Echo/Unary"


class Load:
    """rate calls/s over some channels, in a thread of its own."""

    def __init__(self, target, seconds, rate=600, channels=4, sleep=0.01,
                 timeout=None, options=(), prefix="c"):
        self.target, self.seconds, self.rate = target, seconds, rate
        self.channels, self.timeout = channels, timeout
        self.options = [*UNLIMITED, *options]
        self.do = json.dumps({"sleep": sleep})
        self.prefix = prefix
        self.outcomes = []
        self.late = 0.0  # how late the latest start was: is the load honest?
        self.error = None
        self.begun = threading.Event()
        self.started = None
        self.thread = threading.Thread(target=self._run, daemon=True)

    def start(self):
        self.thread.start()
        assert self.begun.wait(30), "the load does not begin"
        return self

    def join(self):
        self.thread.join(self.seconds + 120)
        assert not self.thread.is_alive(), "calls without an end"
        if self.error:
            raise self.error
        return self

    def sleep_until(self, seconds):
        """Until that long after the first call."""
        time.sleep(max(0, self.started + seconds - time.monotonic()))

    def _run(self):
        try:
            asyncio.run(self._play())
        except Exception as error:
            self.error = error
            self.begun.set()

    async def _play(self):
        channels = [aio.insecure_channel(self.target, options=[
            *self.options, ("redial.channel", n)])
            for n in range(self.channels)]
        methods = [c.unary_unary(METHOD) for c in channels]
        # The first calls connect; they are not part of what is measured.
        for method in methods:
            await method(b"", timeout=20, wait_for_ready=True,
                         metadata=[("call-id", "warm-up")])
        self.started = time.monotonic()
        self.begun.set()
        tasks = set()
        for n in range(int(self.seconds * self.rate)):
            due = self.started + n / self.rate
            wait = due - time.monotonic()
            if wait > 0:
                await asyncio.sleep(wait)
            self.late = max(self.late, time.monotonic() - due)
            task = asyncio.create_task(
                self._call(methods[n % len(methods)], f"{self.prefix}{n}"))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        if tasks:
            await asyncio.wait(tasks)
        for channel in channels:
            await channel.close()

    async def _call(self, method, name):
        start = time.monotonic()
        status, details = grpc.StatusCode.OK, ""
        try:
            reply = await method(name.encode(), timeout=self.timeout,
                                 metadata=[("call-id", name),
                                           ("do", self.do)])
            if reply != name.encode():
                status, details = "WRONG", repr(reply[:80])
        except aio.AioRpcError as error:
            status, details = error.code(), error.details()
        self.outcomes.append(
            Outcome(name, start, time.monotonic(), status, details))

    # --- what became of them

    @property
    def real_rate(self):
        if not self.outcomes:
            return 0.0
        starts = [o.start for o in self.outcomes]
        return (len(starts) - 1) / max(1e-9, max(starts) - min(starts))

    def errors(self):
        """{(status, details): how many}."""
        return collections.Counter(
            (getattr(o.status, "name", o.status), o.details)
            for o in self.outcomes if o.status != grpc.StatusCode.OK)

    def error_count(self):
        return sum(self.errors().values())

    def worst(self, since=0.0, until=float("inf")):
        """Seconds of the slowest call of those that began in between."""
        return max((o.end - o.start for o in self.outcomes
                    if since <= o.start < until), default=0.0)

    def first_ok(self, since):
        """Seconds from `since` to the end of the first OK, or None."""
        ends = [o.end for o in self.outcomes
                if o.status == grpc.StatusCode.OK and o.end >= since]
        return min(ends) - since if ends else None

    def twice(self, executions):
        """{call id: executions} of those that ran more than once."""
        return {call: n for call, n in executions.counts().items()
                if n > 1 and call.startswith(self.prefix)}

    def lost(self, executions):
        """Calls that were answered OK without ever having been run."""
        counts = executions.counts()
        return [o.id for o in self.outcomes
                if o.status == grpc.StatusCode.OK and not counts[o.id]]
