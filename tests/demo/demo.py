#!/usr/bin/python3
"""The same load through redial and directly, while redis-server is killed.

Ends by itself with a verdict. Exit code: 0 when the clients behind redial had
no error, no wrong value and no dropped connection; 1 when they had; 2 when the
direct clients noticed nothing either, so that nothing was shown.
"""

import argparse
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

from client import REQUESTS_PER_S, Client, Connection

CLIENTS = 4
SECONDS = 18.0
KILLS_S = (4.0, 10.0)
HANG_S = 0.1
DOWN_S = 1.0
REFRESH_S = 0.2
FIRST_PORT = 22000  # below the ports the kernel gives to clients

ROWS = (
    ("requests", lambda side: f"{side.total('requests'):,}"),
    ("app errors", lambda side: f"{side.total('errors'):,}"),
    ("unknown outcome, said so *", lambda side: f"{side.total('unknown'):,}"),
    ("wrong values", lambda side: f"{side.total('wrong'):,}"),
    ("connections dropped", lambda side: f"{side.dropped():,}"),
    ("longest wait for an answer", lambda side: f"{side.longest_s():.2f} s"),
    ("retries", lambda side: side.retries()),
)

LEGEND = (
    "* An INCR was on its way when the server died. Whether it was executed",
    "  nobody can know; redial says -UNKNOWNOUTCOME instead of guessing, and",
    "  never counts twice. Without redial this is one of the app errors.",
)


def free_port():
    port = FIRST_PORT + os.getpid() % 1000
    while True:
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
                return port
            except OSError:
                port += 1


class Redis:
    """A private redis-server that keeps its data over a kill."""

    def __init__(self, folder):
        self.folder = folder
        self.port = free_port()
        self.process = None

    def start(self):
        command = [
            "redis-server", "--port", str(self.port), "--bind", "127.0.0.1",
            "--dir", self.folder, "--appendonly", "yes", "--save", "",
        ]  # fmt: skip
        with open(os.path.join(self.folder, "redis.log"), "ab") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def wait(self):
        wait_until(lambda: Connection(self.port).ask("PING"), "redis-server")

    def kill9_while_busy(self):
        """It hangs for a moment first, so that requests are on their way when
        it dies: sent, perhaps executed, never answered."""
        self.process.send_signal(signal.SIGSTOP)
        time.sleep(HANG_S)
        self.kill9()

    def kill9(self):
        self.process.kill()
        self.process.wait()

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            self.kill9()


class Redial:
    def __init__(self, program, folder, redis_port):
        self.log = os.path.join(folder, "redial.log")
        self.port = free_port()
        with socket.socket() as taken:  # the admin port is another one
            taken.bind(("127.0.0.1", self.port))
            self.admin = free_port()
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [
                    program,
                    "--listen",
                    f"127.0.0.1:{self.port}",
                    "--admin",
                    f"127.0.0.1:{self.admin}",
                    f"redis://127.0.0.1:{redis_port}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def wait(self):
        wait_until(lambda: self.fetch("/ready"), "redial", self.process)

    def fetch(self, path):
        url = f"http://127.0.0.1:{self.admin}{path}"
        with urllib.request.urlopen(url, timeout=2) as reply:
            return reply.read().decode()

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def wait_until(condition, what, process=None):
    give_up = time.monotonic() + 15
    while time.monotonic() < give_up:
        if process is not None and process.poll() is not None:
            break
        try:
            condition()
            return
        except Exception:  # not there yet, whatever the reason
            time.sleep(0.05)
    raise RuntimeError(f"{what} did not start")


def retries_of(metrics):
    """Sum of the retries that were made, by the metrics page."""
    total = 0
    for line in metrics.splitlines():
        match = re.match(r"redial_retries_total\{(.*)\} (\d+)", line)
        if match and 'verdict="retry' in match[1]:
            total += int(match[2])
    return total


class Side:
    """One column of the table."""

    def __init__(self, title, port, stop, redial=None):
        self.title = title
        self.redial = redial
        self.shown_retries = "-" if redial is None else "0"
        name = "direct" if redial is None else "redial"
        self.clients = [
            Client(f"{name}{i}", port, stop, i) for i in range(CLIENTS)
        ]

    def total(self, attribute):
        return sum(getattr(c, attribute) for c in self.clients)

    def dropped(self):
        return sum(c.connection.lost for c in self.clients)

    def longest_s(self):
        return max(c.longest_s for c in self.clients)

    def retries(self):
        if self.redial is not None:
            try:
                count = retries_of(self.redial.fetch("/metrics"))
                self.shown_retries = f"{count:,}"
            except OSError:
                pass  # keep what was shown
        return self.shown_retries


class Screen:
    """The table: in place on a terminal, one line a second elsewhere."""

    def __init__(self, sides):
        self.sides = sides
        self.in_place = sys.stdout.isatty()
        self.drawn = 0
        self.next_line_s = 0.0

    def _lines(self, status):
        yield f"{'':30}" + "".join(f"{s.title:>18}" for s in self.sides)
        for name, value in ROWS:
            yield f"{name:30}" + "".join(f"{value(s):>18}" for s in self.sides)
        yield ""
        yield status

    def draw(self, status):
        lines = list(self._lines(status))
        if self.drawn:
            print(f"\x1b[{self.drawn}A", end="")
        for line in lines:
            print(f"\x1b[K{line}" if self.in_place else line)
        sys.stdout.flush()
        self.drawn = len(lines) if self.in_place else 0

    def update(self, elapsed_s, status):
        if self.in_place:
            self.draw(f"{elapsed_s:5.1f} s  {status}")
        elif elapsed_s >= self.next_line_s:
            self.next_line_s += 1.0
            parts = [
                f"{s.title}: {s.total('requests')} requests,"
                f" {s.total('errors')} errors, {s.total('wrong')} wrong"
                for s in self.sides
            ]
            print(f"{elapsed_s:5.1f} s  {' | '.join(parts)} | {status}")
            sys.stdout.flush()


class Play:
    """What happens to the server, and when."""

    def __init__(self, redis):
        self.redis = redis
        self.kills = list(KILLS_S)
        self.back_at = None
        self.status = "redis-server is up"

    def step(self, elapsed_s):
        if self.back_at is not None and elapsed_s >= self.back_at:
            self.redis.start()
            self.back_at = None
            self.status = f"redis-server was started again at {elapsed_s:.1f} s"
        elif self.kills and elapsed_s >= self.kills[0]:
            self.kills.pop(0)
            self.redis.kill9_while_busy()
            self.back_at = elapsed_s + DOWN_S
            self.status = f"kill -9 of redis-server at {elapsed_s:.1f} s"


def play(redis, sides, stop):
    screen = Screen(sides)
    story = Play(redis)
    began = time.monotonic()
    for side in sides:
        for client in side.clients:
            client.start()
    while (elapsed := time.monotonic() - began) < SECONDS:
        story.step(elapsed)
        screen.update(elapsed, story.status)
        time.sleep(REFRESH_S)
    stop.set()
    for side in sides:
        for client in side.clients:
            client.join(40)
            if client.is_alive():
                client.errors += 1
                client.last_error = "no answer"
    check = Connection(redis.port)
    for side in sides:
        for client in side.clients:
            client.check_final(check)
    screen.draw("the counters on the server were compared with the answers")


def verdict(redial, direct):
    print()
    for line in LEGEND:
        print(line)
    print()
    errors, wrong = redial.total("errors"), redial.total("wrong")
    dropped = redial.dropped()
    print(
        f"through redial: {errors} app errors, {wrong} wrong values, "
        f"{dropped} connections dropped, {redial.total('unknown')} unknown"
    )
    print(
        f"directly:       {direct.total('errors')} app errors, "
        f"{direct.total('wrong')} wrong values, "
        f"{direct.dropped()} connections dropped"
    )
    if errors or wrong or dropped:
        for client in redial.clients:
            if client.last_error:
                print(f"the last error of {client.key}: {client.last_error}")
        print("verdict: NOT WELL: the app behind redial has noticed")
        return 1
    if direct.total("errors") == 0:
        print("verdict: nothing shown: the direct clients had no error either")
        return 2
    unknown = redial.total("unknown")
    print(
        "verdict: well. The app behind redial noticed a wait"
        + (f", and heard the truth about {unknown} INCRs" if unknown else "")
    )
    return 0


def run(args, folder):
    stop = threading.Event()
    redis = Redis(folder)
    redial = None
    try:
        redis.start()
        redis.wait()
        redial = Redial(args.redial, folder, redis.port)
        redial.wait()
        print(
            f"{CLIENTS} clients through redial, {CLIENTS} directly, each "
            f"{REQUESTS_PER_S} requests/s of SET, GET, INCR; no retries of "
            "their own."
        )
        print(f"redis-server dies {len(KILLS_S)} times, for {DOWN_S:.0f} s.\n")
        sides = (
            Side("through redial", redial.port, stop, redial),
            Side("directly", redis.port, stop),
        )
        play(redis, sides, stop)
        result = verdict(*sides)
        if result == 1:
            with open(redial.log, errors="replace") as log:
                print("the end of redial's log:")
                print("".join(log.readlines()[-20:]))
        return result
    finally:
        stop.set()
        if redial is not None:
            redial.stop()
        redis.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--redial", default="build/release/redial")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = tempfile.mkdtemp(prefix="redial-demo.")
    try:
        return run(args, folder)
    except RuntimeError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
