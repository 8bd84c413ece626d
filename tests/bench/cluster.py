#!/usr/bin/python3
"""Compare redial in front of a cluster of three primaries with redis-benchmark
--cluster, which is a client of the cluster itself, in one run on one machine.
Prints Markdown for docs/performance.md.

redis-benchmark knows no MGET over nodes: a client of a cluster must send the
hundred keys as a hundred GETs, as each is of another slot. That is what
"direct" does here, to one node at a time. twemproxy shards over three servers
that form no cluster. As in bench.py, the ways take turns and no process is
bound to a CPU.

redis-benchmark runs three threads as the client of a cluster, otherwise one.
The goal is for the one; a row more shows redial with three.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time

import figures
import measure
import targets
from figures import OPERATIONS, note, slashed, table

NODES = 3
SLOTS = 16384
PIPELINES = (1, 16)
REQUESTS = {1: 60000, 16: 500000}
MGET_REQUESTS = 12000
COUNTED = 2000
COUNTED_MGET = 200
START_SECONDS = 20

# What redial has to reach.
RPS_MIN = 0.80
INSTRUCTIONS_MAX = {1: 1900, 16: 1500}
MGET_CPU_MAX_US = 25

# Names of the ways.
DIRECT = "direct"
REDIAL = "redial"
ALONE = "one server"
REDIAL_THREADS = "redial, 3 client threads"
REDIAL_ALONE = "redial, one server"


def redis_cli(port, *words):
    out = subprocess.run(
        ["redis-cli", "-p", str(port), *(str(w) for w in words)],
        capture_output=True,
        text=True,
        check=True,
        timeout=START_SECONDS,
    ).stdout.strip()
    if out.startswith(("ERR", "(error)")):
        raise RuntimeError(f"redis-server {port}, {words[:2]}: {out}")
    return out


def slots_of(number):
    return range(number * SLOTS // NODES, (number + 1) * SLOTS // NODES)


def wait_agreed(ports):
    give_up = time.monotonic() + START_SECONDS
    for port in ports:
        while "cluster_state:ok" not in redis_cli(port, "CLUSTER", "INFO"):
            if time.monotonic() > give_up:
                raise RuntimeError(f"the cluster does not form: port {port}")
            time.sleep(0.05)


def start_cluster(stack, folder):
    """Three primaries, a third of the slots each, filled."""
    processes = []
    buses = []
    for number in range(NODES):
        bus = targets.free_port()
        options = ["--cluster-enabled", "yes", "--cluster-port", str(bus)]
        options += ["--cluster-config-file", f"nodes-{number}.conf"]
        process = targets.start_redis(folder, options)
        processes.append(stack.enter_context(process))
        buses.append(bus)
    cluster = targets.Servers(processes)
    for number, port in enumerate(cluster.ports()):
        slots = slots_of(number)
        redis_cli(port, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        redis_cli(port, "CLUSTER", "ADDSLOTSRANGE", slots[0], slots[-1])
    for port, bus in list(zip(cluster.ports(), buses))[1:]:
        redis_cli(cluster.port, "CLUSTER", "MEET", "127.0.0.1", port, bus)
    wait_agreed(cluster.ports())

    for number, port in enumerate(cluster.ports()):
        measure.fill(port, slots_of(number))
    # Keys of random numbers: ten times as many requests leave none out.
    requests = 10 * measure.KEYS
    measure.run(
        measure.load_command(
            cluster.port, "SET", 16, requests, measure.CLUSTER
        )
    )
    return cluster


class Bench:
    """The servers, and what is in front of them."""

    def __init__(self, args, folder, stack):
        self.folder = folder
        self.stack = stack
        self.cluster = start_cluster(stack, folder)
        self.shards = targets.Servers(
            [
                stack.enter_context(targets.start_redis(folder))
                for _ in range(NODES)
            ]
        )
        self.alone = self.shards.processes[0]
        measure.fill(self.alone.port)
        nodes = ",".join(f"127.0.0.1:{p}" for p in self.cluster.ports())
        self.redial = targets.redial(args.build, f"redis+cluster://{nodes}")
        self.ways = {}
        self.found = []

    def add(self, target, servers, prepare=None):
        """Start it and see whether it answers; without it otherwise."""
        try:
            process = self.stack.enter_context(target.start(self.folder))
            if prepare:
                prepare(process.port)
            measure.check_mget(process.port)
        except (RuntimeError, OSError) as error:
            note(f"{target.name} is left out: {error}")
            return
        self.ways[target.name] = figures.Way(servers, process)
        self.found.append(target)

    def add_all(self, args):
        self.ways[DIRECT] = figures.Way(self.cluster, None, measure.CLUSTER)
        self.add(self.redial, self.cluster)
        if REDIAL in self.ways:
            self.ways[REDIAL_THREADS] = figures.Way(
                self.cluster, self.ways[REDIAL].process, measure.THREADS
            )
        url = f"redis://127.0.0.1:{self.alone.port}"
        one = targets.redial(args.build, url, REDIAL_ALONE)
        self.add(one, self.alone)
        program = targets.find("nutcracker")
        if program is None:
            note("nutcracker is not installed: left out")
        else:
            shards = targets.twemproxy(program, self.shards.ports())
            # fill() through it, so that each key is where it looks for it.
            self.add(shards, self.shards, measure.fill)


def print_overview(f):
    rows = []
    for name in f.names:
        if name == DIRECT:
            continue
        rows.append(
            [
                name,
                slashed(
                    (f.instructions.get((name, p)) for p in PIPELINES), ",.0f"
                ),
                slashed(
                    (f.mean(name, p, "proxy_us") for p in PIPELINES), ".2f"
                ),
                slashed(
                    (f.ratio(name, DIRECT, p, "server_us") for p in PIPELINES),
                    ".2f",
                ),
                slashed(
                    (f.ratio(name, DIRECT, p, "rps") for p in PIPELINES), ".2f"
                ),
            ]
        )
    head = [
        "GET and SET",
        "user instr. per request P=1 / 16",
        "proxy CPU µs per request P=1 / 16",
        "redis CPU ×direct P=1 / 16",
        "req/s ×direct P=1 / 16",
    ]
    table(head, rows)


def print_mget(f, instructions):
    mget = ("MGET",)
    rows = []
    for name in f.samples["MGET", 1]:
        proxy = f.mean(name, 1, "proxy_us", mget)
        rows.append(
            [
                name,
                f"{f.mean(name, 1, 'rps', mget):,.0f}",
                f"{f.ratio(name, DIRECT, 1, 'rps', mget):.2f}",
                f"{f.ratio(name, ALONE, 1, 'rps', mget):.2f}",
                f"{proxy:.1f}" if proxy else "",
                f"{f.mean(name, 1, 'server_us', mget):.1f}",
                slashed([instructions.get((name, 1))], ",.0f"),
            ]
        )
    head = [
        f"MGET of {measure.MGET_KEYS} keys",
        "MGET/s",
        "×direct (pipelined GETs)",
        "×one server (one MGET)",
        "proxy CPU µs per MGET",
        "redis CPU µs per MGET",
        "user instr. per MGET",
    ]
    table(head, rows)


def goals(f):
    """(figure, measured, limit, is it a maximum)"""
    yield "req/s ×direct P=1", f.ratio(REDIAL, DIRECT, 1, "rps"), RPS_MIN, False
    for pipeline, limit in INSTRUCTIONS_MAX.items():
        value = f.instructions.get((REDIAL, pipeline))
        if value is not None:
            yield f"user instructions P={pipeline}", value, limit, True
    value = f.mean(REDIAL, 1, "proxy_us", ("MGET",))
    yield "CPU µs per MGET", value, MGET_CPU_MAX_US, True


def print_commands(args):
    print("For each way in turn; `--cluster` and `{tag}` are the direct one:")
    print()
    print("```")
    for pipeline in PIPELINES:
        requests = int(REQUESTS[pipeline] * args.scale)
        for client in (measure.PLAIN, measure.THREADS, measure.CLUSTER):
            command = measure.load_command(
                "PORT", "GET", pipeline, requests, client
            )
            print(" ".join(command), f"   # and SET, {args.rounds} rounds")
    requests = int(MGET_REQUESTS * args.scale)
    command = measure.load_command("PORT", "MGET", 1, requests)
    first = command.index("MGET")
    print(" ".join(command[: first + 2]), f"...   # {measure.MGET_KEYS} keys")
    command = measure.load_command("PORT", "MGET", 1, requests, measure.CLUSTER)
    print(" ".join(command), "  # MGET, direct")
    print("valgrind --tool=callgrind PROXY   # n and 5 n requests, difference")
    print("```")
    print()


def count(f, mget_instructions, b, scale):
    n = max(500, int(COUNTED * scale))
    loads = ((1, OPERATIONS, n), (16, OPERATIONS, 4 * n))
    mget = ((1, ("MGET",), max(50, int(COUNTED_MGET * scale))),)
    tool = ("valgrind", measure.instructions)
    for target in b.found:
        figures.count(f.instructions, *tool, target, b.folder, loads)
        figures.count(mget_instructions, *tool, target, b.folder, mget)


def bench(args, folder):
    figures.file_limit()
    mget_instructions = {}
    with contextlib.ExitStack() as stack:
        b = Bench(args, folder, stack)
        b.add_all(args)
        f = figures.Figures(list(b.ways))
        for operation in OPERATIONS:
            for pipeline in PIPELINES:
                requests = max(1000, int(REQUESTS[pipeline] * args.scale))
                f.samples[operation, pipeline] = figures.throughput(
                    b.ways, operation, pipeline, requests, args.rounds
                )
        ways = {**b.ways, ALONE: figures.Way(b.alone)}
        requests = max(200, int(MGET_REQUESTS * args.scale))
        f.samples["MGET", 1] = figures.throughput(
            ways, "MGET", 1, requests, args.rounds
        )
        count(f, mget_instructions, b, args.scale)

    figures.print_machine(b.found)
    print_overview(f)
    print_mget(f, mget_instructions)
    if REDIAL in f.names:
        figures.print_goals(goals(f))
    figures.print_loads(f)
    print_commands(args)
    if REDIAL not in f.names:
        note("redial was not measured in front of the cluster")
        return 1
    return 0


def profiles(args, folder):
    with contextlib.ExitStack() as stack:
        b = Bench(args, folder, stack)
        b.add(b.redial, b.cluster)
        if not b.found:
            return 1
        loads = (("GET", 1, 30000), ("GET", 16, 100000), ("MGET", 1, 2000))
        figures.print_profiles(b.redial, folder, loads)
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument(
        "--profile", action="store_true", help="where the instructions go"
    )
    args = parser.parse_args()
    if not os.access(os.path.join(args.build, "redial"), os.X_OK):
        sys.exit(f"bench: no {args.build}/redial: ./run build first")
    with tempfile.TemporaryDirectory(prefix="redial-bench.") as folder:
        return profiles(args, folder) if args.profile else bench(args, folder)


if __name__ == "__main__":
    sys.exit(main())
