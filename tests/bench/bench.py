#!/usr/bin/python3
"""Compare redial with a direct connection, a plain byte relay and other
proxies, in one run on one machine. Prints Markdown for docs/performance.md.

Targets take turns (A B C A B C) and medians are reported, so that a busy
moment of the machine meets all of them. No process is bound to a CPU: client,
proxy and server are three on what may be two cores, and a binding would decide
the result instead of measuring it.
"""

import argparse
import contextlib
import os
import sys
import tempfile

import figures
import measure
import targets
from figures import OPERATIONS, note, slashed, table

PIPELINES = (1, 16, 100)
REQUESTS = {1: 60000, 16: 300000, 100: 500000}
PROBE_ROUNDS = 20000
BIG_ROUNDS = 400
IDLE_CONNECTIONS = 9000

# What redial has to reach; the smoke test allows twice that.
INSTRUCTIONS_MAX = {1: 1600, 16: 1300}
SMOKE_FACTOR = 2
# A request costs one read and one write of its client; lanes are shared.
SMOKE_SYSCALLS_MAX = {1: 3.0, 16: 0.4}


def print_overview(f):
    rows = []
    for name in f.names:
        if name == "direct":
            continue
        rows.append(
            [
                name,
                slashed(
                    (f.instructions.get((name, p)) for p in (1, 16)), ",.0f"
                ),
                slashed((f.syscalls.get((name, p)) for p in (1, 16)), ".2f"),
                slashed(
                    (f.ratio(name, "relay", p, "proxy_us") for p in PIPELINES),
                    ".2f",
                ),
                slashed(
                    (f.ratio(name, "direct", p, "server_us") for p in PIPELINES),
                    ".2f",
                ),
                slashed(
                    (f.ratio(name, "direct", p, "rps") for p in PIPELINES),
                    ".2f",
                ),
                f"{f.added_us(name):.1f}",
                f"{f.big_mib_s(name):,.0f}",
                slashed([f.idle.get(name)], ".2f"),
            ]
        )
    head = [
        "",
        "user instr. per request P=1 / 16",
        "syscalls per request P=1 / 16",
        "proxy CPU ×relay P=1 / 16 / 100",
        "redis CPU ×direct P=1 / 16 / 100",
        "req/s ×direct P=1 / 16 / 100",
        "added p50, 1 client, µs",
        "1 MiB GET, MiB/s",
        "idle KiB/conn",
    ]
    table(head, rows)


def print_latency(f):
    rows = []
    for name in f.names:
        _, median_ns, p99_ns = f.latency[name]
        rows.append(
            [
                name,
                f"{median_ns / 1000:.1f}",
                f"{p99_ns / 1000:.1f}",
                f"{f.big_mib_s(name):,.0f}",
            ]
        )
    table(["1 connection", "p50 µs", "p99 µs", "1 MiB GET, MiB/s"], rows)


def goals(f):
    """What redial has to reach: (figure, measured, limit, is it a maximum)."""
    name = "redial"
    for pipeline, limit in INSTRUCTIONS_MAX.items():
        value = f.instructions.get((name, pipeline))
        if value is not None:
            yield f"user instructions P={pipeline}", value, limit, True
    for pipeline, limit in {1: 0.80, 16: 1.2, 100: 2.5}.items():
        value = f.ratio(name, "relay", pipeline, "proxy_us")
        yield f"CPU ×relay P={pipeline}", value, limit, True
    for pipeline, limit in {1: 0.80, 16: 0.75}.items():
        value = f.ratio(name, "direct", pipeline, "rps")
        yield f"req/s ×direct P={pipeline}", value, limit, False
    value = f.ratio(name, "direct", 1, "server_us")
    yield "redis CPU ×direct P=1", value, 0.6, True
    value = f.added_us(name) - f.added_us("relay")
    yield "added p50 over relay, µs", value, 2.0, True
    value = f.big_mib_s(name) / f.big_mib_s("relay")
    yield "1 MiB GET ×relay", value, 0.95, False
    if name in f.idle:
        yield "idle KiB per connection", f.idle[name], 0.56, True


def print_commands(rounds, scale):
    print("The commands, for each target in turn:")
    print()
    print("```")
    for pipeline in PIPELINES:
        requests = int(REQUESTS[pipeline] * scale)
        command = measure.load_command("PORT", "GET", pipeline, requests)
        print(" ".join(command), f"   # and SET, {rounds} rounds")
    print(f"probe {PROBE_ROUNDS} key:000000000001 NAME=PORT...   # latency")
    print(f"probe {BIG_ROUNDS} {measure.BIG_KEY} NAME=PORT...   # 1 MiB GET")
    print("valgrind --tool=callgrind PROXY   # n and 5 n requests, difference")
    print("strace -c -f -p PID               # the same")
    print("```")
    print()


def counted(f, found, folder, scale):
    tools = (
        ("valgrind", measure.instructions, f.instructions, 4000),
        ("strace", measure.syscalls, f.syscalls, 2000),
    )
    for tool, function, into, requests in tools:
        n = max(500, int(requests * scale))
        loads = ((1, OPERATIONS, n), (16, OPERATIONS, 4 * n))
        for target in found:
            figures.count(into, tool, function, target, folder, loads)


def bench(args, folder):
    files = figures.file_limit()
    idle = min(IDLE_CONNECTIONS, (files - 1000) // 2)
    with targets.start_redis(folder) as redis, contextlib.ExitStack() as stack:
        measure.fill(redis.port)
        found = targets.proxies(args.build, redis.port, note)
        if args.only:
            names = {"relay", "redial", *args.only.split(",")}
            found = [t for t in found if t.name in names]
        ways = {"direct": figures.Way(redis)}
        for target in found:
            process = stack.enter_context(target.start(folder))
            ways[target.name] = figures.Way(redis, process)
        f = figures.Figures(list(ways))
        for operation in OPERATIONS:
            for pipeline in PIPELINES:
                requests = max(1000, int(REQUESTS[pipeline] * args.scale))
                f.samples[operation, pipeline] = figures.throughput(
                    ways, operation, pipeline, requests, args.rounds
                )

        ports = {name: way.port for name, way in ways.items()}
        note("latency")
        rounds = max(100, int(PROBE_ROUNDS * args.scale))
        f.latency = measure.probe(args.build, rounds, "key:000000000001", ports)
        rounds = max(20, int(BIG_ROUNDS * args.scale))
        f.big = measure.probe(args.build, rounds, measure.BIG_KEY, ports)
        for target in found:
            note(f"{idle} idle connections: {target.name}")
            f.idle[target.name] = measure.idle_kib(target, folder, idle)
        counted(f, found, folder, args.scale)

    figures.print_machine(found)
    print_overview(f)
    figures.print_goals(goals(f))
    figures.print_loads(f)
    print_latency(f)
    if idle < IDLE_CONNECTIONS:
        print(f"Only {idle} idle connections: the limit of files is {files}.\n")
    print_commands(args.rounds, args.scale)
    return 0


def smoke(args, folder):
    """Seconds, and a verdict: only figures that do not depend on time."""
    with targets.start_redis(folder) as redis:
        measure.fill(redis.port)
        found = targets.proxies(args.build, redis.port, lambda text: None)[:2]
        f = figures.Figures([t.name for t in found])
        counted(f, found, folder, 0.5)
    checks = []
    for pipeline, limit in INSTRUCTIONS_MAX.items():
        checks.append(
            ("user instructions", pipeline, f.instructions, limit * SMOKE_FACTOR)
        )
    for pipeline, limit in SMOKE_SYSCALLS_MAX.items():
        checks.append(("syscalls", pipeline, f.syscalls, limit))

    return figures.print_checks(checks, "per request")


def profiles(args, folder):
    """Where redial's instructions go."""
    with targets.start_redis(folder) as redis:
        measure.fill(redis.port)
        redial = targets.proxies(args.build, redis.port, note)[1]
        loads = (("GET", 1, 30000), ("GET", 16, 100000))
        figures.print_profiles(redial, folder, loads)
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--only", help="of the others only these: nginx,haproxy")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--quick", action="store_true", help="the smoke test")
    mode.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    for program in ("redial", "tests/bench/relay", "tests/bench/probe"):
        if not os.access(os.path.join(args.build, program), os.X_OK):
            sys.exit(f"bench: no {args.build}/{program}: ./run build first")
    with tempfile.TemporaryDirectory(prefix="redial-bench.") as folder:
        if args.quick:
            return smoke(args, folder)
        return profiles(args, folder) if args.profile else bench(args, folder)


if __name__ == "__main__":
    sys.exit(main())
