"""One measurement each: what is run, and what is read from it."""

import collections
import csv
import os
import re
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


class Load:
    """What redis-benchmark saw of one run."""

    def __init__(self, rps, p50_ms, p99_ms):
        self.rps = rps
        self.p50_ms = p50_ms
        self.p99_ms = p99_ms


def load_command(port, operation, pipeline, requests):
    command = {
        "GET": ["GET", "key:__rand_int__"],
        "SET": ["SET", "key:__rand_int__", "x" * VALUE_BYTES],
    }[operation]
    return [
        "redis-benchmark", "-h", "127.0.0.1", "-p", str(port),
        "-c", str(CLIENTS), "-P", str(pipeline), "-n", str(requests),
        "-r", str(KEYS), "--csv", *command,
    ]  # fmt: skip


def load(port, operation, pipeline, requests):
    out = subprocess.run(
        load_command(port, operation, pipeline, requests),
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    ).stdout
    rows = list(csv.reader(line for line in out.splitlines() if '"' in line))
    row = dict(zip(rows[0], rows[-1]))
    return Load(
        float(row["rps"]),
        float(row["p50_latency_ms"]),
        float(row["p99_latency_ms"]),
    )


def fill(port):
    """Give every key its value, so that GET has something to fetch."""
    value = "x" * VALUE_BYTES
    text = "".join(
        f"*3\r\n$3\r\nSET\r\n$16\r\nkey:{i:012d}\r\n${VALUE_BYTES}\r\n{value}\r\n"
        for i in range(KEYS)
    )
    text += f"*3\r\n$3\r\nSET\r\n${len(BIG_KEY)}\r\n{BIG_KEY}\r\n"
    text += f"${BIG_BYTES}\r\n{'b' * BIG_BYTES}\r\n"
    expected = (KEYS + 1) * len("+OK\r\n")
    with socket.create_connection(("127.0.0.1", port)) as s:
        s.sendall(text.encode())
        got = 0
        while got < expected:
            data = s.recv(65536)
            if not data:
                raise RuntimeError("the server closed while it was filled")
            got += len(data)


def profile(target, folder, operation, pipeline, requests):
    """User instructions per request, by source file and by function; the
    start of the program is among them."""
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
    files = collections.Counter()
    functions = collections.Counter()
    for count, file, function in re.findall(
        r"^ *([\d,]+)  (\S+?):(\S+)", text, re.MULTILINE
    ):
        file = re.sub(r".*/(?=(proxy|parser|config)/)", "", file)
        per_request = int(count.replace(",", "")) / requests
        files[file] += per_request
        functions[f"{file}:{function}"] += per_request
    return files, functions


def _instructions_once(target, folder, operation, pipeline, requests):
    log = os.path.join(folder, f"callgrind-{target.name}.log")
    wrapper = [
        "valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null",
        f"--log-file={log}",
    ]  # fmt: skip
    with target.start(folder, wrapper) as process:
        load(process.port, operation, pipeline, requests)
    with open(log) as f:
        found = re.findall(r"Collected : (\d+)", f.read())
    if not found:
        raise RuntimeError(f"callgrind told nothing: {log}")
    return int(found[-1])


def instructions(target, folder, operation, pipeline, requests):
    """User instructions per request: the difference of a short and a long
    run, so that starting and connecting do not count."""
    short, long = requests, 5 * requests
    a = _instructions_once(target, folder, operation, pipeline, short)
    b = _instructions_once(target, folder, operation, pipeline, long)
    return (b - a) / (long - short)


def _syscalls_once(process, operation, pipeline, requests):
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
        load(process.port, operation, pipeline, requests)
        strace.send_signal(signal.SIGINT)
        strace.wait()
        strace.stderr.close()
        for row in out:
            words = row.split()
            if len(words) == 2 and words[1] == "total":
                return int(words[0])
    raise RuntimeError("strace told nothing")


def syscalls(target, folder, operation, pipeline, requests):
    """System calls per request, as a difference like instructions()."""
    short, long = requests, 5 * requests
    with target.start(folder) as process:
        load(process.port, operation, pipeline, 1000)
        a = _syscalls_once(process, operation, pipeline, short)
        b = _syscalls_once(process, operation, pipeline, long)
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
