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
import platform
import resource
import statistics
import sys
import tempfile

import measure
import targets

PIPELINES = (1, 16, 100)
OPERATIONS = ("GET", "SET")
REQUESTS = {1: 60000, 16: 300000, 100: 500000}
PROBE_ROUNDS = 20000
BIG_ROUNDS = 400
IDLE_CONNECTIONS = 9000

# What redial has to reach; the smoke test allows twice that.
INSTRUCTIONS_MAX = {1: 1600, 16: 1300}
SMOKE_FACTOR = 2
# A request costs one read and one write of its client; lanes are shared.
SMOKE_SYSCALLS_MAX = {1: 3.0, 16: 0.4}


def note(text):
    print(f"note: {text}", file=sys.stderr, flush=True)


def median_of(samples, attribute):
    return statistics.median(getattr(s, attribute) for s in samples)


class Sample:
    """One run of the load through one target."""

    def __init__(self, load, requests, proxy_ns, redis_ns):
        self.rps = load.rps
        self.p50_ms = load.p50_ms
        self.p99_ms = load.p99_ms
        self.proxy_us = proxy_ns / requests / 1000
        self.redis_us = redis_ns / requests / 1000


def run_load(process, redis, operation, pipeline, requests):
    """process is None for the direct connection."""
    port = redis.port if process is None else process.port
    redis_before = redis.cpu_ns()
    before = 0 if process is None else process.cpu_ns()
    load = measure.load(port, operation, pipeline, requests)
    after = 0 if process is None else process.cpu_ns()
    redis_after = redis.cpu_ns()
    return Sample(load, requests, after - before, redis_after - redis_before)


def throughput(ways, redis, rounds, scale):
    """(operation, pipeline, name) -> samples. ways: name -> Process or None."""
    samples = {}
    for operation in OPERATIONS:
        for pipeline in PIPELINES:
            requests = max(1000, int(REQUESTS[pipeline] * scale))
            for number in range(rounds):
                note(f"load {operation} P={pipeline} round {number + 1}")
                for name, process in ways.items():
                    sample = run_load(
                        process, redis, operation, pipeline, requests
                    )
                    key = (operation, pipeline, name)
                    samples.setdefault(key, []).append(sample)
    return samples


class Figures:
    """Everything that was measured, by target name."""

    def __init__(self, names):
        self.names = names
        self.samples = {}
        self.instructions = {}  # (name, pipeline) -> per request
        self.syscalls = {}
        self.idle = {}
        self.latency = {}  # name -> (bytes, median ns, p99 ns)
        self.big = {}

    def mean(self, name, pipeline, attribute):
        """The mean over GET and SET of the medians."""
        return statistics.mean(
            median_of(self.samples[operation, pipeline, name], attribute)
            for operation in OPERATIONS
        )

    def ratio(self, name, other, pipeline, attribute):
        """The median, over the rounds, of name's value to other's in the same
        round; then the mean of GET and SET."""
        ratios = []
        for operation in OPERATIONS:
            ours = self.samples[operation, pipeline, name]
            theirs = self.samples[operation, pipeline, other]
            ratios.append(
                statistics.median(
                    getattr(a, attribute) / getattr(b, attribute)
                    for a, b in zip(ours, theirs)
                )
            )
        return statistics.mean(ratios)

    def added_us(self, name):
        return (self.latency[name][1] - self.latency["direct"][1]) / 1000

    def big_mib_s(self, name):
        size, median_ns, _ = self.big[name]
        return size / (1 << 20) / (median_ns / 1e9)


def table(head, rows):
    print("| " + " | ".join(head) + " |")
    print("|" + " --- |" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def slashed(values, form):
    return " / ".join("-" if v is None else format(v, form) for v in values)


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
                    (f.ratio(name, "direct", p, "redis_us") for p in PIPELINES),
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


def print_loads(f):
    rows = []
    for operation in OPERATIONS:
        for pipeline in PIPELINES:
            for name in f.names:
                samples = f.samples[operation, pipeline, name]
                proxy = median_of(samples, "proxy_us")
                rows.append(
                    [
                        f"{operation} P={pipeline}",
                        name,
                        f"{median_of(samples, 'rps'):,.0f}",
                        f"{median_of(samples, 'p50_ms'):.3f}",
                        f"{median_of(samples, 'p99_ms'):.3f}",
                        "" if name == "direct" else f"{proxy:.2f}",
                        f"{median_of(samples, 'redis_us'):.2f}",
                    ]
                )
    head = ["load", "through", "req/s", "p50 ms", "p99 ms"]
    table(head + ["proxy CPU s/M req", "redis CPU s/M req"], rows)


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
    value = f.ratio(name, "direct", 1, "redis_us")
    yield "redis CPU ×direct P=1", value, 0.6, True
    value = f.added_us(name) - f.added_us("relay")
    yield "added p50 over relay, µs", value, 2.0, True
    value = f.big_mib_s(name) / f.big_mib_s("relay")
    yield "1 MiB GET ×relay", value, 0.95, False
    if name in f.idle:
        yield "idle KiB per connection", f.idle[name], 0.56, True


def print_goals(f):
    rows = []
    for text, value, limit, is_maximum in goals(f):
        reached = value <= limit if is_maximum else value >= limit
        rows.append(
            [
                text,
                f"{value:,.2f}",
                f"{'≤' if is_maximum else '≥'} {limit:,}",
                "yes" if reached else "**no**",
            ]
        )
    table(["redial", "measured", "goal", "reached"], rows)


def print_machine(found):
    model = "unknown CPU"
    with open("/proc/cpuinfo") as f:
        for line in f:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    release = platform.release().split("-")[0]
    print(
        f"{os.cpu_count()} × {model}, Linux {release}. "
        f"{measure.CLIENTS} connections, {measure.VALUE_BYTES}-byte values, "
        f"{measure.KEYS:,} keys, one worker each."
    )
    print()
    for target in found:
        print(f"- {target.name}: {target.version}")
    print()


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


def file_limit():
    """Raise the limit of open files as far as allowed; children inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def counted(f, found, folder, operations, scale):
    """Figures no noise can touch; a tool that is missing leaves them out."""
    tools = (
        ("valgrind", measure.instructions, f.instructions, 4000),
        ("strace", measure.syscalls, f.syscalls, 2000),
    )
    for tool, function, into, requests in tools:
        if targets.find(tool) is None:
            note(f"{tool} is not installed: its figures are left out")
            continue
        for target in found:
            for pipeline in (1, 16):
                note(f"{tool} {target.name} P={pipeline}")
                n = max(500, int(requests * scale)) * (4 if pipeline > 1 else 1)
                try:
                    into[target.name, pipeline] = statistics.mean(
                        function(target, folder, operation, pipeline, n)
                        for operation in operations
                    )
                except RuntimeError as error:
                    note(f"left out: {error}")


def bench(args, folder):
    files = file_limit()
    idle = min(IDLE_CONNECTIONS, (files - 1000) // 2)
    with targets.start_redis(folder) as redis, contextlib.ExitStack() as stack:
        measure.fill(redis.port)
        found = targets.proxies(args.build, redis.port, note)
        if args.only:
            names = {"relay", "redial", *args.only.split(",")}
            found = [t for t in found if t.name in names]
        ways = {"direct": None}
        for target in found:
            ways[target.name] = stack.enter_context(target.start(folder))
        f = Figures(list(ways))
        f.samples = throughput(ways, redis, args.rounds, args.scale)

        ports = {n: (p or redis).port for n, p in ways.items()}
        note("latency")
        rounds = max(100, int(PROBE_ROUNDS * args.scale))
        f.latency = measure.probe(args.build, rounds, "key:000000000001", ports)
        rounds = max(20, int(BIG_ROUNDS * args.scale))
        f.big = measure.probe(args.build, rounds, measure.BIG_KEY, ports)
        for target in found:
            note(f"{idle} idle connections: {target.name}")
            f.idle[target.name] = measure.idle_kib(target, folder, idle)
        counted(f, found, folder, OPERATIONS, args.scale)

    print_machine(found)
    print_overview(f)
    print_goals(f)
    print_loads(f)
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
        f = Figures([t.name for t in found])
        counted(f, found, folder, ("GET", "SET"), 0.5)
    checks = []
    for pipeline, limit in INSTRUCTIONS_MAX.items():
        checks.append(
            ("user instructions", pipeline, f.instructions, limit * SMOKE_FACTOR)
        )
    for pipeline, limit in SMOKE_SYSCALLS_MAX.items():
        checks.append(("syscalls", pipeline, f.syscalls, limit))

    rows = []
    failed = 0
    for text, pipeline, values, limit in checks:
        if ("redial", pipeline) not in values:
            continue
        value = values["redial", pipeline]
        failed += value > limit
        rows.append(
            [
                f"{text} P={pipeline}",
                f"{values['relay', pipeline]:,.2f}",
                f"{value:,.2f}",
                f"≤ {limit:,}",
                "ok" if value <= limit else "TOO MUCH",
            ]
        )
    table(["per request", "relay", "redial", "allowed", ""], rows)
    if not rows:
        note("neither valgrind nor strace: nothing was measured")
        return 1
    return 1 if failed else 0


def profiles(args, folder):
    """Where redial's instructions go."""
    with targets.start_redis(folder) as redis:
        measure.fill(redis.port)
        redial = targets.proxies(args.build, redis.port, note)[1]
        for pipeline, requests in ((1, 30000), (16, 100000)):
            counts = measure.profile(redial, folder, "GET", pipeline, requests)
            print(f"GET P={pipeline}, instructions per request\n")
            for counter in counts:
                for name, value in counter.most_common(25):
                    print(f"{value:8.1f}  {name}")
                print()
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
