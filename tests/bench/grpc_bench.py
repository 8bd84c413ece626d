#!/usr/bin/python3
"""Compare redial with a direct connection, a plain byte relay and other
proxies in front of a gRPC server that answers each message with itself, in one
run on one machine. Prints Markdown for docs/performance.md.

h2load makes unary calls with a message of 64 bytes, in three shapes:
connections × streams at a time on each; and one at a time, for the time that a
call takes. As in bench.py, the targets take turns and no process is bound to a
CPU.
"""

import argparse
import contextlib
import os
import re
import shlex
import statistics
import struct
import subprocess
import sys
import tempfile

import figures
import grpc_targets
import measure
import targets
from figures import note, slashed, table

MESSAGE_BYTES = 64
PREFIX_BYTES = 5
BODY_BYTES = PREFIX_BYTES + MESSAGE_BYTES
METHOD = "/echo.Echo/Echo"
CALL = "call"
CALLS = (CALL,)

SHAPES = ("1 × 100", "10 × 10", "50 × 1")
MIDDLE = "10 × 10"
REQUESTS = 60000
COUNTED = 1500
PROFILED = 20000
LATENCY_REQUESTS = 4000

# What redial has to reach; the smoke test allows twice that.
CPU_MAX_US = {"1 × 100": 6.5, "10 × 10": 7, "50 × 1": 14}
INSTRUCTIONS_MAX = {"1 × 100": 27000, "10 × 10": 27000, "50 × 1": 30000}
P50_MAX_US = 55
RPS_MIN = 0.45
SMOKE_FACTOR = 2
# With one call at a time, each costs one read and one write of both sides,
# and none is paid for what many calls share.
SMOKE_SYSCALLS_MAX = {"1 × 100": 0.5, "50 × 1": 3.5}


def call_options(port, body):
    return [
        "-d", body, "-H", "content-type: application/grpc",
        "-H", "te: trailers", f"http://127.0.0.1:{port}{METHOD}",
    ]  # fmt: skip


class Client:
    """h2load, with the message in a file."""

    def __init__(self, folder):
        self._log = os.path.join(folder, "calls.log")
        self.body = os.path.join(folder, "message")
        with open(self.body, "wb") as f:
            f.write(struct.pack(">BI", 0, MESSAGE_BYTES) + b"x" * MESSAGE_BYTES)

    def command(self, port, shape, requests):
        connections, streams = shape.split(" × ")
        return [
            "h2load", "-n", str(requests), "-c", connections, "-m", streams,
            *call_options(port, self.body),
        ]  # fmt: skip

    def load(self, port, operation, shape, requests, client=None):
        """Every call has to be answered with its own message."""
        return self._run(self.command(port, shape, requests), requests)

    def _run(self, command, requests):
        out = subprocess.run(
            command, capture_output=True, text=True, timeout=600, check=True
        ).stdout
        rate = re.search(r"finished in \S+, ([\d.]+) req/s", out)
        well = re.search(rf"{requests} succeeded, 0 failed, 0 errored", out)
        data = re.search(r"\((\d+)\) data", out)
        if not well or int(data.group(1)) != requests * BODY_BYTES:
            raise RuntimeError(f"h2load: not all calls were answered:\n{out}")
        return measure.Load(float(rate.group(1)), None, None)

    def p50_us(self, port, requests):
        """Of calls that are made one after the other."""
        command = self.command(port, "1 × 1", requests)
        command.insert(1, f"--log-file={self._log}")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._log)  # it would be appended to
        self._run(command, requests)
        with open(self._log) as f:
            return statistics.median(int(line.split()[2]) for line in f)

    def check(self, target, port):
        """Raises unless it gives back the message and the status of a call."""
        ran = subprocess.run(
            ["nghttp", "-v", *call_options(port, self.body)],
            capture_output=True,
            timeout=20,
        )
        out = ran.stdout.decode(errors="replace")
        if "x" * MESSAGE_BYTES not in out or "grpc-status: 0" not in out:
            raise RuntimeError(f"{target.name}: no answer to a call:\n{out}")


class Bench:
    """The server, and what is in front of it."""

    def __init__(self, args, folder, stack):
        self.folder = folder
        self.client = Client(folder)
        self._stack = stack
        self.echo = grpc_targets.echo(args.build)
        self.server = stack.enter_context(self.echo.start(folder))
        self.client.check(self.echo, self.server.port)
        self.ways = {"direct": figures.Way(self.server)}
        self.found = []

    def targets(self, args, report=note):
        """The relay and redial first."""
        found = grpc_targets.proxies(args.build, self.server.port, report)
        if args.only:
            names = {"relay", "redial", *args.only.split(",")}
            found = [t for t in found if t.name in names]
        return found

    def add(self, target):
        process = self._stack.enter_context(target.start(self.folder))
        self.client.check(target, process.port)
        self.ways[target.name] = figures.Way(self.server, process)
        self.found.append(target)

    def measure(self, args):
        f = figures.Figures(list(self.ways))
        quiet = figures.Quiet(args.patience)
        requests = max(1000, int(REQUESTS * args.scale))
        for shape in SHAPES:
            f.samples[CALL, shape] = figures.throughput(
                self.ways, CALL, shape, requests, args.rounds,
                self.client.load, quiet,
            )  # fmt: skip
        f.latency = self._latency(args, quiet)
        f.n_taken = quiet.n_taken
        f.n_disturbed = quiet.n_disturbed
        self.count(f, [self.echo, *self.found], args.scale)
        return f

    def _latency(self, args, quiet):
        """name -> p50 in µs; the ways take turns here too."""
        requests = max(500, int(LATENCY_REQUESTS * args.scale))
        seen = {name: [] for name in self.ways}
        for number in range(2 * args.rounds):
            note(f"one call at a time, round {number + 1}")
            for name, way in self.ways.items():

                def p50_us(way=way):
                    return self.client.p50_us(way.port, requests)

                seen[name].append(quiet.take(way, p50_us))
        return {name: statistics.median(p50s) for name, p50s in seen.items()}

    def count(self, f, found, scale):
        n = max(200, int(COUNTED * scale))
        loads = [(shape, CALLS, n) for shape in SHAPES]
        tools = (
            ("valgrind", measure.instructions, f.instructions),
            ("strace", measure.syscalls, f.syscalls),
        )
        for tool, function, into in tools:

            def counted(*what, function=function):
                return function(*what, self.client.load)

            for target in found:
                figures.count(into, tool, counted, target, self.folder, loads)


def cells(f, name, values, form):
    return slashed((values.get((name, shape)) for shape in SHAPES), form)


def print_overview(f):
    rows = []
    for name in f.names:
        is_direct = name == "direct"
        counted = "echo" if is_direct else name
        cpu = {
            (name, s): f.mean(
                name, s, "server_us" if is_direct else "proxy_us", CALLS
            )
            for s in SHAPES
        }
        rps = {
            (name, s): f.ratio(name, "direct", s, "rps", CALLS) for s in SHAPES
        }
        rows.append(
            [
                "direct (the server)" if is_direct else name,
                cells(f, name, cpu, ".1f"),
                cells(f, counted, f.instructions, ",.0f"),
                cells(f, counted, f.syscalls, ".2f"),
                f"{f.latency[name]:.0f}",
                cells(f, name, rps, ".2f"),
            ]
        )
    shapes = " / ".join(SHAPES)
    head = [
        shapes,
        "CPU µs per call",
        "user instr. per call",
        "syscalls per call",
        "p50 of 1 × 1, µs",
        "req/s ×direct",
    ]
    table(head, rows)


def print_loads(f):
    rows = []
    for (_, shape), by_name in f.samples.items():
        for name, samples in by_name.items():
            proxy = figures.median_of(samples, "proxy_us")
            rows.append(
                [
                    shape,
                    name,
                    f"{figures.median_of(samples, 'rps'):,.0f}",
                    f"{proxy:.2f}" if proxy else "",
                    f"{figures.median_of(samples, 'server_us'):.2f}",
                ]
            )
    head = ["load", "through", "calls/s", "proxy CPU µs", "server CPU µs"]
    table(head, rows)


def goals(f):
    """(figure, measured, limit, is it a maximum)"""
    name = "redial"
    for shape, limit in CPU_MAX_US.items():
        value = f.mean(name, shape, "proxy_us", CALLS)
        yield f"CPU µs, {shape}", value, limit, True
    for shape, limit in INSTRUCTIONS_MAX.items():
        value = f.instructions.get((name, shape))
        if value is not None:
            yield f"user instructions, {shape}", value, limit, True
    yield "p50 of 1 × 1, µs", f.latency[name], P50_MAX_US, True
    value = f.ratio(name, "direct", MIDDLE, "rps", CALLS)
    yield f"req/s ×direct, {MIDDLE}", value, RPS_MIN, False


def print_commands(b, args):
    print("For each target in turn:")
    print()
    print("```")
    requests = int(REQUESTS * args.scale)
    for shape in SHAPES:
        command = shlex.join(b.client.command("PORT", shape, requests))
        command = command.replace(b.client.body, "MESSAGE")
        print(command, f"   # {args.rounds} rounds")
    requests = int(LATENCY_REQUESTS * args.scale)
    print(f"h2load --log-file=FILE -n {requests} -c 1 -m 1 ...   # p50")
    print("valgrind --tool=callgrind PROXY   # n and 5 n calls, difference")
    print("strace -c -f -p PID               # the same")
    print("```")
    print()


def bench(args, folder):
    with contextlib.ExitStack() as stack:
        b = Bench(args, folder, stack)
        for target in b.targets(args):
            b.add(target)
        f = b.measure(args)
    figures.print_machine(b.found, f"Unary calls, {MESSAGE_BYTES}-byte messages")
    print_overview(f)
    print(
        f"In {f.n_disturbed} of {f.n_taken} measurements of time others used "
        f"more than {figures.Quiet.OTHERS_MAX:.0%} of a CPU.\n"
    )
    figures.print_goals(goals(f))
    print_loads(f)
    print_commands(b, args)
    return 0


def smoke(args, folder):
    """Seconds, and a verdict: only figures that do not depend on time."""
    with contextlib.ExitStack() as stack:
        b = Bench(args, folder, stack)
        relay, redial = b.targets(args, lambda text: None)[:2]
        b.add(redial)
        f = figures.Figures([])
        b.count(f, [relay, redial], 0.3)
    checks = [
        ("user instructions", shape, f.instructions, limit * SMOKE_FACTOR)
        for shape, limit in INSTRUCTIONS_MAX.items()
    ]
    for shape, limit in SMOKE_SYSCALLS_MAX.items():
        checks.append(("syscalls", shape, f.syscalls, limit))
    return figures.print_checks(checks, "per call")


def profiles(args, folder):
    """Where redial's instructions go."""
    with contextlib.ExitStack() as stack:
        b = Bench(args, folder, stack)
        redial = b.targets(args)[1]
        loads = [(CALL, shape, PROFILED) for shape in SHAPES]
        figures.print_profiles(redial, folder, loads, b.client.load)
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--only", help="of the others only these: nginx,haproxy")
    parser.add_argument(
        "--patience",
        type=float,
        default=0,
        metavar="SECONDS",
        help="wait that long altogether for moments when the machine is quiet",
    )
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--quick", action="store_true", help="the smoke test")
    mode.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    for program in ("redial", "tests/bench/relay", "tests/bench/grpc_echo"):
        if not os.access(os.path.join(args.build, program), os.X_OK):
            sys.exit(f"bench: no {args.build}/{program}: ./run build first")
    for program in ("h2load", "nghttp"):
        if targets.find(program) is None:
            sys.exit(f"bench: no {program}: install nghttp2-client")
    with tempfile.TemporaryDirectory(prefix="redial-bench.") as folder:
        if args.quick:
            return smoke(args, folder)
        return profiles(args, folder) if args.profile else bench(args, folder)


if __name__ == "__main__":
    sys.exit(main())
