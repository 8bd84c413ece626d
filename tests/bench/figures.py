"""What every bench shares: loads in turn, the figures they give, tables."""

import os
import platform
import resource
import statistics
import sys
import time

import measure
import targets

OPERATIONS = ("GET", "SET")


def note(text):
    print(f"note: {text}", file=sys.stderr, flush=True)


def median_of(samples, attribute):
    return statistics.median(getattr(s, attribute) for s in samples)


def title(operation, pipeline):
    """A shape of load has a name instead of a number of requests."""
    if isinstance(pipeline, str):
        return f"{operation} {pipeline}"
    return f"{operation} P={pipeline}"


class Sample:
    """One run of the load through one target."""

    def __init__(self, load, requests, proxy_ns, server_ns):
        self.rps = load.rps
        self.p50_ms = load.p50_ms
        self.p99_ms = load.p99_ms
        self.proxy_us = proxy_ns / requests / 1000
        self.server_us = server_ns / requests / 1000


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


def run_load(way, load, operation, pipeline, requests):
    servers_before = way.servers.cpu_ns()
    before = way.proxy_ns()
    seen = load(way.port, operation, pipeline, requests, way.client)
    after = way.proxy_ns()
    servers_ns = way.servers.cpu_ns() - servers_before
    return Sample(seen, requests, after - before, servers_ns)


class Quiet:
    """Waits for moments in which nobody else uses the CPUs, and measures again
    what was disturbed, for at most that many seconds altogether. Whether it
    does depends on the others alone, never on what was measured."""

    OTHERS_MAX = 0.2  # of one CPU
    LOOK_SECONDS = 0.3

    def __init__(self, patience_s):
        self.give_up = time.monotonic() + patience_s
        self.n_taken = 0
        self.n_disturbed = 0  # of these

    def take(self, way, measurement):
        """measurement() of the way, the least disturbed one."""
        best = None
        while best is None or (
            best[1] > self.OTHERS_MAX and time.monotonic() < self.give_up
        ):
            self._wait()
            result, others = self._watched(way, measurement)
            if best is None or others < best[1]:
                best = result, others
        self.n_taken += 1
        self.n_disturbed += best[1] > self.OTHERS_MAX
        return best[0]

    def _watched(self, way, measurement):
        """Its result, and how many CPUs others used meanwhile."""
        began = time.monotonic_ns()
        before = measure.busy_ns() - self._ours_ns(way)
        result = measurement()
        after = measure.busy_ns() - self._ours_ns(way)
        return result, (after - before) / (time.monotonic_ns() - began)

    @staticmethod
    def _ours_ns(way):
        return way.servers.cpu_ns() + way.proxy_ns() + measure.children_ns()

    def _wait(self):
        busy = self.OTHERS_MAX + 1
        while busy > self.OTHERS_MAX and time.monotonic() < self.give_up:
            before = measure.busy_ns()
            time.sleep(self.LOOK_SECONDS)
            busy = (measure.busy_ns() - before) / (self.LOOK_SECONDS * 1e9)


def throughput(
    ways, operation, pipeline, requests, rounds, load=measure.load, quiet=None
):
    """name -> samples. The ways take turns."""
    quiet = quiet or Quiet(0)
    samples = {name: [] for name in ways}
    for number in range(rounds):
        note(f"load {title(operation, pipeline)} round {number + 1}")
        for name, way in ways.items():

            def sample(way=way):
                return run_load(way, load, operation, pipeline, requests)

            samples[name].append(quiet.take(way, sample))
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
                    f"{median_of(samples, 'server_us'):.2f}",
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


def print_checks(checks, unit):
    """checks: (figure, pipeline, values, limit)... Returns the exit status: 1
    when redial needs more of something, or when nothing was measured."""
    rows = []
    failed = 0
    for text, pipeline, values, limit in checks:
        if ("redial", pipeline) not in values:
            continue
        value = values["redial", pipeline]
        failed += value > limit
        rows.append(
            [
                title(text, pipeline),
                f"{values['relay', pipeline]:,.2f}",
                f"{value:,.2f}",
                f"≤ {limit:,}",
                "ok" if value <= limit else "TOO MUCH",
            ]
        )
    table([unit, "relay", "redial", "allowed", ""], rows)
    if not rows:
        note("neither valgrind nor strace: nothing was measured")
    return 1 if failed or not rows else 0


def print_machine(found, text=None):
    model = "unknown CPU"
    with open("/proc/cpuinfo") as f:
        for line in f:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    release = platform.release().split("-")[0]
    text = text or (
        f"{measure.CLIENTS} connections, {measure.VALUE_BYTES}-byte values, "
        f"{measure.KEYS:,} keys"
    )
    print(
        f"{os.cpu_count()} × {model}, Linux {release}. {text}, one worker each."
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
        note(f"{tool} {target.name} {title('/'.join(operations), pipeline)}")
        try:
            into[target.name, pipeline] = statistics.mean(
                function(target, folder, operation, pipeline, requests)
                for operation in operations
            )
        except RuntimeError as error:
            note(f"left out: {error}")


def print_profiles(target, folder, loads, load=measure.load):
    """Where a proxy's instructions go. loads: (operation, pipeline,
    requests)..."""
    for *what, requests in loads:
        counts = measure.profile(target, folder, *what, requests, load)
        print(f"{title(*what)}, instructions per request\n")
        for counter in counts:
            for name, value in counter.most_common(25):
                print(f"{value:8.1f}  {name}")
            print()
