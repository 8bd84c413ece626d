"""One measurement each: what is run, and what is read from it."""

import binascii
import collections
import csv
import os
import re
import resource
import signal
import socket
import subprocess
import tempfile
import time

CLIENTS = 50
KEYS = 10000
VALUE_BYTES = 64
BIG_KEY = "big"
BIG_BYTES = 1024 * 1024
MGET_KEYS = 100


class Load:
    """What redis-benchmark saw of one run."""

    def __init__(self, rps, p50_ms, p99_ms):
        self.rps = rps
        self.p50_ms = p50_ms
        self.p99_ms = p99_ms


COMMANDS = {
    "GET": ["GET", "key:__rand_int__"],
    "SET": ["SET", "key:__rand_int__", "x" * VALUE_BYTES],
    "MGET": ["MGET", *["key:__rand_int__"] * MGET_KEYS],
}
# redis-benchmark asks each node for keys of that node only: it puts a tag of
# one of its slots here. One byte longer than the keys above.
CLUSTER_KEYS = KEYS // 3
CLUSTER_COMMANDS = {
    "GET": ["GET", "{tag}__rand_int__"],
    "SET": ["SET", "{tag}__rand_int__", "x" * VALUE_BYTES],
    # What a client of a cluster has to do for keys of a hundred slots.
    "MGET": ["GET", "{tag}__rand_int__"],
}


# What redis-benchmark is run as.
PLAIN = "plain"
THREADS = "threads"  # as many as it takes of a cluster
CLUSTER = "cluster"


def load_command(port, operation, pipeline, requests, client=PLAIN):
    keys = KEYS
    command = COMMANDS[operation]
    form = ["--csv"]
    if client == THREADS:
        form = ["--threads", "3"]
    elif client == CLUSTER:
        keys = CLUSTER_KEYS
        command = CLUSTER_COMMANDS[operation]
        form = ["--cluster"]
        if operation == "MGET":
            pipeline *= MGET_KEYS
            requests *= MGET_KEYS
    return [
        "redis-benchmark", "-h", "127.0.0.1", "-p", str(port),
        "-c", str(CLIENTS), "-P", str(pipeline), "-n", str(requests),
        "-r", str(keys), *form, *command,
    ]  # fmt: skip


def _parse_csv(out):
    rows = list(csv.reader(line for line in out.splitlines() if '"' in line))
    row = dict(zip(rows[0], rows[-1]))
    return Load(
        float(row["rps"]),
        float(row["p50_latency_ms"]),
        float(row["p99_latency_ms"]),
    )


def _parse_progress(out):
    """redis-benchmark's threads look only every 250 ms whether they are done:
    the rate it sums up is too low by that wait. The last line of progress
    before the end is not."""
    progress = re.findall(r"rps=[\d.]+ \(overall: ([\d.]+)\)", out)
    if len(progress) < 2:  # the first comes before anything has happened
        raise RuntimeError("done within 250 ms: take a larger --scale")
    names, values = re.search(
        r"latency summary \(msec\):\s*\n(.*)\n(.*)", out
    ).groups()
    latency = dict(zip(names.split(), values.split()))
    return Load(
        float(progress[-1]), float(latency["p50"]), float(latency["p99"])
    )


def run(command):
    ran = subprocess.run(
        command, capture_output=True, text=True, timeout=600, check=True
    )
    # It ends at an error, but of a cluster it bears some.
    error = re.search("Error from server.*", ran.stdout + ran.stderr)
    if error:
        raise RuntimeError(f"redis-benchmark: {error.group()}")
    return ran.stdout


def load(port, operation, pipeline, requests, client=PLAIN):
    out = run(load_command(port, operation, pipeline, requests, client))
    result = _parse_csv(out) if client == PLAIN else _parse_progress(out)
    if client == CLUSTER and operation == "MGET":
        result.rps /= MGET_KEYS
    return result


def busy_ns():
    """Time that all CPUs were not idle, also for somebody else's machine."""
    with open("/proc/stat") as f:
        user, nice, system, idle, iowait, *rest = f.readline().split()[1:9]
    ticks = sum(int(n) for n in (user, nice, system, *rest))
    return ticks * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def children_ns():
    """Time on a CPU of the clients that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return int((used.ru_utime + used.ru_stime) * 1e9)


def key_name(number):
    return f"key:{number:012d}"


def slot_of(key):
    """The slot of a key without a tag."""
    return binascii.crc_hqx(key.encode(), 0) % 16384


def _bulks(*words):
    text = f"*{len(words)}\r\n"
    return text + "".join(f"${len(w)}\r\n{w}\r\n" for w in words)


def ask(port, text, length):
    """Send it, and wait for so many bytes of answer."""
    with socket.create_connection(("127.0.0.1", port), 20) as s:
        s.sendall(text.encode())
        got = bytearray()
        while len(got) < length:
            data = s.recv(65536)
            if not data:
                raise RuntimeError(f"closed after {bytes(got[:200])}")
            got += data
            if got.startswith(b"-"):
                raise RuntimeError(bytes(got).decode().splitlines()[0])
        return bytes(got)


def fill(port, slots=range(16384)):
    """Give every key of these slots its value, so that GET has something to
    fetch."""
    value = "x" * VALUE_BYTES
    wanted = [(key_name(number), value) for number in range(KEYS)]
    wanted.append((BIG_KEY, "b" * BIG_BYTES))
    wanted = [(key, value) for key, value in wanted if slot_of(key) in slots]
    text = "".join(_bulks("SET", key, value) for key, value in wanted)
    ask(port, text, len(wanted) * len("+OK\r\n"))


def check_mget(port):
    """Raises when a hundred keys are not all answered."""
    keys = [key_name(n) for n in range(0, KEYS, KEYS // MGET_KEYS)]
    value = f"${VALUE_BYTES}\r\n{'x' * VALUE_BYTES}\r\n"
    expected = f"*{len(keys)}\r\n{value * len(keys)}".encode()
    got = ask(port, _bulks("MGET", *keys), len(expected))
    if got != expected:
        raise RuntimeError(f"wrong answer to MGET: {got[:200]}")


def profile(target, folder, operation, pipeline, requests, load=load):
    """User instructions per request, by part (folder or library), by source
    file and by function; the start of the program is among them."""
    out = os.path.join(folder, f"callgrind-{target.name}.out")
    wrapper = [
        "valgrind", "--tool=callgrind", f"--callgrind-out-file={out}",
        f"--log-file={out}.log",
    ]  # fmt: skip
    with target.start(folder, wrapper) as process:
        load(process.port, operation, pipeline, requests)
    text = subprocess.run(
        ["callgrind_annotate", "--show-percs=no", "--auto=no"]
        + ["--threshold=99", out],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    parts = collections.Counter()
    files = collections.Counter()
    functions = collections.Counter()
    for count, file, function, library in re.findall(
        r"^ *([\d,]+)  (\S+?):(\S+)(?: \[(\S+)\])?", text, re.MULTILINE
    ):
        library = os.path.basename(library)
        file = re.sub(r".*/(?=(proxy|parser|config)/)", "", file)
        is_ours = file.startswith(("proxy/", "parser/", "config/"))
        part = os.path.dirname(file) if is_ours else library or target.name
        if file == "???":  # a library without debug information
            file = library
        per_request = int(count.replace(",", "")) / requests
        parts[part] += per_request
        files[file] += per_request
        functions[f"{file}:{function}"] += per_request
    return parts, files, functions


def _instructions_once(target, folder, load, *what):
    log = os.path.join(folder, f"callgrind-{target.name}.log")
    wrapper = [
        "valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null",
        f"--log-file={log}",
    ]  # fmt: skip
    with target.start(folder, wrapper) as process:
        load(process.port, *what)
    with open(log) as f:
        found = re.findall(r"Collected : (\d+)", f.read())
    if not found:
        raise RuntimeError(f"callgrind told nothing: {log}")
    return int(found[-1])


def instructions(target, folder, operation, pipeline, requests, load=load):
    """User instructions per request: the difference of a short and a long
    run, so that starting and connecting do not count."""
    short, long = requests, 5 * requests
    a = _instructions_once(target, folder, load, operation, pipeline, short)
    b = _instructions_once(target, folder, load, operation, pipeline, long)
    return (b - a) / (long - short)


def _syscalls_once(process, load, *what):
    with tempfile.NamedTemporaryFile("r") as out:
        strace = subprocess.Popen(
            ["strace", "-c", "-f", "-U", "calls,name", "-o", out.name]
            + ["-p", str(process.pid)],
            stderr=subprocess.PIPE,
            text=True,
        )
        line = strace.stderr.readline()  # "Process 1 attached"
        if "attached" not in line:
            raise RuntimeError(f"strace: {line.strip()}")
        load(process.port, *what)
        strace.send_signal(signal.SIGINT)
        strace.wait()
        strace.stderr.close()
        for row in out:
            words = row.split()
            if len(words) == 2 and words[1] == "total":
                return int(words[0])
    raise RuntimeError("strace told nothing")


def syscalls(target, folder, operation, pipeline, requests, load=load):
    """System calls per request, as a difference like instructions()."""
    short, long = requests, 5 * requests
    with target.start(folder) as process:
        load(process.port, operation, pipeline, 1000)
        a = _syscalls_once(process, load, operation, pipeline, short)
        b = _syscalls_once(process, load, operation, pipeline, long)
    return (b - a) / (long - short)


def idle_kib(target, folder, connections):
    """Resident memory of a connection that has had one answer and waits."""
    ask = b"*2\r\n$3\r\nGET\r\n$16\r\nkey:000000000001\r\n"
    with target.start(folder) as process:
        load(process.port, "GET", 1, 1000)
        before = process.rss_kib()
        sockets = []
        try:
            for _ in range(connections):
                s = socket.create_connection(("127.0.0.1", process.port))
                sockets.append(s)
                s.sendall(ask)
                if not s.recv(4096).startswith(b"$64"):
                    raise RuntimeError(f"{target.name}: wrong answer")
            time.sleep(0.5)
            return (process.rss_kib() - before) / connections
        finally:
            for s in sockets:
                s.close()


def probe(build, rounds, key, ports):
    """One connection, targets in turn: name -> (bytes, median ns, p99 ns)."""
    command = [os.path.join(build, "tests/bench/probe"), str(rounds), key]
    command += [f"{name}={port}" for name, port in ports.items()]
    out = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=600
    ).stdout
    result = {}
    for line in out.splitlines():
        name, *numbers = line.split()
        result[name] = tuple(int(n) for n in numbers)
    return result
