"""What the scenarios do: real servers are hurt under load, and the calls and
executions are counted."""

import json
import os
import random
import re
import signal
import threading
import time

import grpc

import calls
from backends import EchoServer, Executions, call, channel
from servers import HOST, rss_bytes
from wait import wait_until

ROUND_ROBIN = ["upstream.lb=round_robin"]
# The first backoff is by default as long as the worst stall may be. A client
# on a busy machine has more than ten calls in flight at once.
RETRY = ["upstream.max_retry_attempts=3",
         "upstream.retryable_status_codes=UNAVAILABLE",
         "upstream.initial_backoff=20ms",
         "upstream.max_concurrent_retries=200",
         "upstream.throttle_max_tokens=1000"]
IDEMPOTENT = ["upstream.idempotent_methods=/echo.Echo/*"]
PROBE = ["upstream.keepalive_time=10s", "upstream.keepalive_timeout=200ms",
         "upstream.idle_probe=1s", "upstream.idle_probe_timeout=100ms"]

# name: (what it does, servers, settings of redial)
SCENARIOS = {
    "kill-idempotent": ("one of two killed, back after 1 s; methods marked "
                        "idempotent", 2, ROUND_ROBIN + RETRY + IDEMPOTENT),
    "kill": ("the same, methods not marked", 2, ROUND_ROBIN + RETRY),
    "kill-only": ("the only one killed, back after 1 s; waitForReady", 1,
                  RETRY + IDEMPOTENT),
    "stop": ("one of two stopped for 2 s, keepalive", 2,
             ROUND_ROBIN + RETRY + IDEMPOTENT + PROBE),
    "term": ("SIGTERM of one of two, back after 1 s", 2, ROUND_ROBIN),
    "cancel": ("the client cancels calls at random", 2, ROUND_ROBIN),
    "stream": ("a long server stream through a slow client", 1, []),
}

# The same for grpcio itself, to compare with.
DIRECT_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [{
        "name": [{}], "waitForReady": True,
        "retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.1s",
                        "maxBackoff": "2s", "backoffMultiplier": 2,
                        "retryableStatusCodes": ["UNAVAILABLE"]}}],
}


class Result:
    """What was seen: rows to print, and complaints. Those about time are kept
    apart: on a busy machine they say little about redial."""

    def __init__(self):
        self.rows = []
        self.bad = []
        self.late = []
        self.figures = {}

    def add(self, name, value, shown=None):
        self.figures[name] = value
        self.rows.append((name, value if shown is None else shown))

    def complain(self, condition, text):
        if condition:
            self.bad.append(text)

    def complain_late(self, condition, text):
        if condition:
            self.late.append(text)


def ms(seconds):
    return "never" if seconds is None else f"{seconds * 1000:.0f} ms"


class Stage:
    """Servers and what calls go to: redial, or the servers themselves.
    make_proxy(targets, sets) starts redial; None: directly."""

    def __init__(self, folder, name, make_proxy, kind="python"):
        _, count, sets = SCENARIOS[name]
        self.name, self.direct = name, make_proxy is None
        os.makedirs(folder, exist_ok=True)
        self.executions = Executions(os.path.join(folder, "executions.log"))
        self.servers = [EchoServer(folder, chr(ord("a") + n),
                                   self.executions, kind=kind)
                        for n in range(count)]
        targets = [server.target for server in self.servers]
        try:
            for server in self.servers:
                server.launch()
            for server in self.servers:
                server.wait_ready()
            self.redial = None if self.direct else make_proxy(targets, sets)
        except BaseException:
            self.close()
            raise
        self.target = "ipv4:" + ",".join(targets) if self.direct \
            else f"{HOST}:{self.redial.port}"

    def options(self):
        return [("grpc.service_config", json.dumps(DIRECT_CONFIG))] \
            if self.direct else [("grpc.enable_retries", 0)]

    def load(self, seconds, rate, **more):
        return calls.Load(self.target, seconds, rate,
                          options=self.options(), **more)

    def close(self):
        for server in self.servers:
            if server.child is not None and server.running():
                server.kill9()


def judge_load(result, load, executions):
    twice = load.twice(executions)
    result.add("calls", len(load.outcomes))
    result.add("real rate", load.real_rate,
               f"{load.real_rate:.0f}/s, latest start "
               f"{load.late * 1000:.0f} ms late")
    result.add("errors", load.error_count())
    for (status, details), n in sorted(load.errors().items()):
        result.rows.append((f"  {status}", f"{n} × {details[:120]}"))
    result.add("worst stall", load.worst(), ms(load.worst()))
    result.add("executed twice", len(twice))
    wrong = [o for o in load.outcomes if o.status == "WRONG"]
    result.complain(wrong, f"{len(wrong)} wrong answers, {wrong[:1]}")
    lost = load.lost(executions)
    result.complain(lost, f"{len(lost)} OK without an execution: {lost[:3]}")
    result.complain_late(load.real_rate < load.rate * 0.95,
                         f"only {load.real_rate:.0f} calls/s were begun")


def play_kill(stage, seconds, rate, stop=signal.SIGKILL, down=1.0):
    """One server ends at 30 % of the time and is back `down` later."""
    result = Result()
    load = stage.load(seconds, rate).start()
    server = stage.servers[0]
    load.sleep_until(seconds * 0.3)
    calm = load.worst(until=time.monotonic() - 0.2)
    in_flight = in_flight_of(stage, server)
    back = time.monotonic() + down
    old = server.child
    server.signal(stop)
    if stop == signal.SIGKILL:
        old.wait()
        result.figures["dead at"] = time.monotonic()
    else:
        wait_until(lambda: old.poll() is not None, "the end of the server",
                   20)
    server.launch(at=back)
    server.wait_ready()
    returned = time.monotonic()
    load.join()
    judge_load(result, load, stage.executions)
    result.add("worst stall before", calm, ms(calm))
    result.add("in flight when hurt", in_flight)
    result.add("back after", returned - back + down,
               f"{returned - back + down:.2f} s")
    again = [row[3] for row in stage.executions.rows()
             if row[2] == server.pid and row[4] == "run"]
    first_run = min(again) - returned if again else None
    result.add("first run after return", first_run, ms(first_run))
    if len(stage.servers) == 1:
        first_ok = load.first_ok(returned)
        result.add("first OK after return", first_ok, ms(first_ok))
        result.complain(first_ok is None, "no call after the return")
        result.complain_late((first_ok or 0) > 0.3,
                             f"first OK {ms(first_ok)} after the return")
    else:
        result.complain_late(first_run is None,
                             "the server that came back got no call")
    return result, load


def in_flight_of(stage, server):
    runs, ends = set(), set()
    for row in stage.executions.rows():
        if row[2] == server.pid:
            (runs if row[4] == "run" else ends).add(row[0])
    return len(runs - ends)


def scenario_kill_idempotent(stage, seconds, rate, _):
    result, load = play_kill(stage, seconds, rate)
    result.complain(load.error_count(), f"{load.error_count()} errors")
    result.complain_late(load.worst() > 0.1, f"stall of {ms(load.worst())}")
    return result


def scenario_kill(stage, seconds, rate, _):
    result, load = play_kill(stage, seconds, rate)
    figures = result.figures
    result.complain(figures["executed twice"],
                    f"{figures['executed twice']} executed twice")
    # Only what was in flight when the server died may fail.
    failed = [o for o in load.outcomes if o.status != grpc.StatusCode.OK]
    after = sum(o.start > figures["dead at"] + 0.05 for o in failed)
    result.complain(after, f"{after} errors of calls that began later")
    result.complain(set(s for s, _ in load.errors()) - {"UNAVAILABLE"},
                    f"errors: {dict(load.errors())}")
    result.complain_late(load.worst() > 0.1, f"stall of {ms(load.worst())}")
    return result


def scenario_kill_only(stage, seconds, rate, _):
    result, load = play_kill(stage, seconds, rate)
    result.complain(load.error_count(), f"{load.error_count()} errors")
    return result


def scenario_term(stage, seconds, rate, _):
    result, load = play_kill(stage, seconds, rate, signal.SIGTERM)
    result.complain(load.error_count(), f"{load.error_count()} errors")
    result.complain(result.figures["executed twice"], "executed twice")
    result.complain_late(load.worst() > 0.1, f"stall of {ms(load.worst())}")
    return result


def scenario_stop(stage, seconds, rate, _):
    """SIGSTOP for 2 s. A stopped server can't be told from a slow one until
    a PING is not answered: only calls after that must not stall."""
    result = Result()
    load = stage.load(seconds, rate).start()
    server = stage.servers[0]
    load.sleep_until(seconds * 0.3)
    server.stop_running()
    stopped = time.monotonic()
    found = stopped + 1.2  # idle_probe + idle_probe_timeout, and a step
    load.sleep_until(seconds * 0.3 + 2)
    woken = time.monotonic()
    server.go_on()
    load.join()
    judge_load(result, load, stage.executions)
    after = load.worst(found, woken)
    before = [o for o in load.outcomes
              if stopped <= o.start < found and o.end - o.start > 0.1]
    result.add("stalled before it was found", len(before))
    result.add("worst stall afterwards", after, ms(after))
    # Once it goes on it works off what has piled up.
    result.add("worst after SIGCONT", load.worst(woken),
               ms(load.worst(woken)))
    result.complain(load.error_count(), f"{load.error_count()} errors")
    result.complain_late(after > 0.1,
                         f"stall of {ms(after)} after it was found")
    return result


def scenario_cancel(stage, seconds, rate, _):
    """Each call would take 30 s; all are cancelled within 50 ms."""
    result = Result()
    rng = random.Random(4)
    rate = min(rate, 200)
    total = int(seconds * rate)
    with channel(int(stage.target.rsplit(":", 1)[1])) as c:
        method = call(c)
        method(b"", timeout=20, metadata=[("call-id", "warm-up")])
        cancelled = {}
        timers = []
        began = time.monotonic()
        for n in range(total):
            time.sleep(max(0, began + n / rate - time.monotonic()))
            future = method.future(
                b"", metadata=[("call-id", f"c{n}"), ("do", '{"sleep":30}')])

            def cancel(future=future, n=n):
                cancelled[f"c{n}"] = time.monotonic()
                future.cancel()
            timer = threading.Timer(rng.random() * 0.05, cancel)
            timer.start()
            timers.append(timer)
        for timer in timers:
            timer.join()

        def all_ended():
            ended = stage.executions.counts("cancelled")
            return all(ended[call_id] for call_id
                       in stage.executions.counts() if call_id != "warm-up")
        ended = True
        try:
            wait_until(all_ended, "all cancels at the servers", 10)
        except AssertionError:
            ended = False
    rows = stage.executions.rows()
    arrived = {row[0]: row[3] for row in rows if row[4] == "cancelled"}
    ran = [call_id for call_id in stage.executions.counts()
           if call_id != "warm-up"]
    slowest = max((arrived[i] - cancelled[i] for i in ran if i in arrived),
                  default=0.0)
    result.add("calls", total)
    result.add("reached a server", len(ran))
    result.add("cancelled there", sum(i in arrived for i in ran))
    result.add("slowest cancel", slowest, ms(slowest))
    result.complain(not ended, "cancels that reached no server")
    result.complain_late(slowest > 0.1, f"a cancel took {ms(slowest)}")
    result.complain(len(ran) < total / 4, "too few calls reached a server")
    return result


def scenario_stream(stage, seconds, rate, size):
    """1 MiB messages; the client reads 100 MiB/s at most."""
    result = Result()
    piece = 1 << 20
    count = max(1, size // piece)
    peak, base, ended = [0], [0], threading.Event()
    watched = stage.redial.pid if stage.redial else stage.servers[0].pid

    def watch():
        while not ended.wait(0.05):
            peak[0] = max(peak[0], rss_bytes(watched))
    with channel(int(stage.target.rsplit(":", 1)[1])) as c:
        call(c)(b"", timeout=20)
        base[0] = rss_bytes(watched)
        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        began, received = time.monotonic(), 0
        for part in call(c, "ServerStream")(
                b"", metadata=[("do", json.dumps({"size": piece,
                                                  "count": count}))]):
            received += len(part)
            time.sleep(max(0, began + received / (100 << 20)
                           - time.monotonic()))
        took = time.monotonic() - began
        ended.set()
        thread.join()
    grown = max(0, peak[0] - base[0])
    result.add("received", received, f"{received / (1 << 20):.0f} MiB in "
               f"{took:.1f} s")
    result.add("memory before", base[0], f"{base[0] / (1 << 20):.1f} MiB")
    result.add("memory grew by", grown, f"{grown / (1 << 20):.1f} MiB")
    result.complain(received != count * piece, f"{received} bytes")
    result.complain(stage.redial and grown > 24 << 20,
                    f"memory grew by {grown >> 20} MiB")
    return result


PLAYS = {name: globals()["scenario_" + name.replace("-", "_")]
         for name in SCENARIOS}


def counters(redial, name, label):
    """{value of a label: count} of a metric, without what is 0."""
    found = re.findall(rf'^redial_grpc_{name}_total{{.*{label}="(.*)"}} (\d+)',
                       redial.http("/metrics")[1], re.M)
    return ", ".join(f"{value} {count}" for value, count in found
                     if count != "0") or "none"


def play(name, folder, make_proxy, seconds=10, rate=600, size=1 << 30,
         kind="python"):
    """Returns the Result; redial is left running."""
    stage = Stage(folder, name, make_proxy, kind)
    try:
        result = PLAYS[name](stage, seconds, rate, size)
        if stage.redial:
            result.rows.append(("attempts by class", counters(
                stage.redial, "attempt_outcomes", "class")))
            result.rows.append(("calls by reason", counters(
                stage.redial, "not_retried", "reason")))
        return result
    finally:
        stage.close()


def summary(result):
    """One line."""
    return ", ".join(f"{shown} {name}" if isinstance(shown, int)
                     else f"{name} {shown}"
                     for name, shown in result.rows
                     if not name.startswith("  "))


