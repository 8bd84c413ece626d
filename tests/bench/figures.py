"""What every bench shares: loads in turn, the figures they give, tables."""

import os
import platform
import resource
import statistics
import sys

import measure
import targets

OPERATIONS = ("GET", "SET")


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


class Way:
    """How the load reaches the servers: through a proxy, or directly. servers
    is one Process or several (targets.Servers)."""

    def __init__(self, servers, process=None, client=measure.PLAIN):
        self.servers = servers
        self.process = process
        self.port = (process or servers).port
        self.client = client

    def proxy_ns(self):
        return self.process.cpu_ns() if self.process else 0


def run_load(way, operation, pipeline, requests):
    redis_before = way.servers.cpu_ns()
    before = way.proxy_ns()
    load = measure.load(way.port, operation, pipeline, requests, way.client)
    after = way.proxy_ns()
    redis_after = way.servers.cpu_ns()
    return Sample(load, requests, after - before, redis_after - redis_before)


def throughput(ways, operation, pipeline, requests, rounds):
    """name -> samples. The ways take turns."""
    samples = {name: [] for name in ways}
    for number in range(rounds):
        note(f"load {operation} P={pipeline} round {number + 1}")
        for name, way in ways.items():
            samples[name].append(run_load(way, operation, pipeline, requests))
    return samples


class Figures:
    """Everything that was measured, by target name."""

    def __init__(self, names):
        self.names = names
        self.samples = {}  # (operation, pipeline) -> name -> [Sample]
        self.instructions = {}  # (name, pipeline) -> per request
        self.syscalls = {}
        self.idle = {}
        self.latency = {}  # name -> (bytes, median ns, p99 ns)
        self.big = {}

    def mean(self, name, pipeline, attribute, operations=OPERATIONS):
        """The mean over the operations of the medians."""
        return statistics.mean(
            median_of(self.samples[operation, pipeline][name], attribute)
            for operation in operations
        )

    def ratio(self, name, other, pipeline, attribute, operations=OPERATIONS):
        """The median, over the rounds, of name's value to other's in the same
        round; then the mean of the operations."""
        ratios = []
        for operation in operations:
            ours = self.samples[operation, pipeline][name]
            theirs = self.samples[operation, pipeline][other]
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


def print_loads(f):
    rows = []
    for (operation, pipeline), by_name in f.samples.items():
        for name, samples in by_name.items():
            proxy = median_of(samples, "proxy_us")
            rows.append(
                [
                    f"{operation} P={pipeline}",
                    name,
                    f"{median_of(samples, 'rps'):,.0f}",
                    f"{median_of(samples, 'p50_ms'):.3f}",
                    f"{median_of(samples, 'p99_ms'):.3f}",
                    f"{proxy:.2f}" if proxy else "",
                    f"{median_of(samples, 'redis_us'):.2f}",
                ]
            )
    head = ["load", "through", "req/s", "p50 ms", "p99 ms"]
    table(head + ["proxy CPU s/M req", "redis CPU s/M req"], rows)


def print_goals(goals):
    """goals: (figure, measured, limit, is it a maximum)..."""
    rows = []
    for text, value, limit, is_maximum in goals:
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


def file_limit():
    """Raise the limit of open files as far as allowed; children inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def count(into, tool, function, target, folder, loads):
    """Figures no noise can touch; a tool that is missing leaves them out.
    loads: (pipeline, operations, requests)..., the mean of the operations."""
    if targets.find(tool) is None:
        note(f"{tool} is not installed: its figures are left out")
        return
    for pipeline, operations, requests in loads:
        note(f"{tool} {target.name} {'/'.join(operations)} P={pipeline}")
        try:
            into[target.name, pipeline] = statistics.mean(
                function(target, folder, operation, pipeline, requests)
                for operation in operations
            )
        except RuntimeError as error:
            note(f"left out: {error}")


def print_profiles(target, folder, loads):
    """Where a proxy's instructions go. loads: (operation, pipeline,
    requests)..."""
    for operation, pipeline, requests in loads:
        counts = measure.profile(target, folder, operation, pipeline, requests)
        print(f"{operation} P={pipeline}, instructions per request\n")
        for counter in counts:
            for name, value in counter.most_common(25):
                print(f"{value:8.1f}  {name}")
            print()
