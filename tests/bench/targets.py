"""The servers that are compared: how each is started, and what the kernel
tells about it. Every configuration is written to a temporary folder."""

import contextlib
import glob
import os
import shutil
import signal
import socket
import subprocess
import time

CONNECTIONS_MAX = 9500
STOP_SECONDS = 30
NGINX_STREAM = "/usr/lib/nginx/modules/ngx_stream_module.so"

HAPROXY = """\
global
    nbthread 1
    maxconn {connections}
defaults
    mode tcp
    timeout connect 5s
    timeout client 1h
    timeout server 1h
frontend redis_in
    bind 127.0.0.1:{port} backlog 4096
    default_backend redis_out
backend redis_out
    server redis 127.0.0.1:{redis_port}
"""

NGINX = """\
{load_module}
daemon off;
master_process off;
pid {folder}/nginx-{port}.pid;
error_log {folder}/nginx-{port}.log;
worker_rlimit_nofile {files};
events {{ worker_connections {files}; }}
stream {{
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        proxy_pass 127.0.0.1:{redis_port};
        proxy_timeout 1h;
    }}
}}
"""

NUTCRACKER = """\
redis:
  listen: 127.0.0.1:{port}
  redis: true
  hash: fnv1a_64
  distribution: modula
  backlog: 4096
  servers:
{servers}
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def find(name):
    return shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")


class Process:
    """One server, started and listening."""

    def __init__(self, command, port, folder, name, wrapper=()):
        self.port = port
        self.log = os.path.join(folder, name + ".out")
        with open(self.log, "ab") as log:
            self.popen = subprocess.Popen(
                [*wrapper, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.pid = self.popen.pid
        self._wait_listening(name)

    def _wait_listening(self, name):
        give_up = time.monotonic() + 20
        while time.monotonic() < give_up:
            if self.popen.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.02)
        with open(self.log, errors="replace") as log:
            text = log.read()[-2000:]
        self.stop()
        raise RuntimeError(f"{name} did not start:\n{text}")

    def cpu_ns(self):
        """Time on a CPU of all threads, user and kernel."""
        total = 0
        for path in glob.glob(f"/proc/{self.pid}/task/*/schedstat"):
            with open(path) as f:
                total += int(f.read().split()[0])
        return total

    def rss_kib(self):
        with open(f"/proc/{self.pid}/status") as f:
            for line in f:
                if line.startswith("VmRSS:"):
                    return int(line.split()[1])
        raise RuntimeError("no VmRSS")

    def stop(self):
        # Asked again and again: a server that looks at the request only
        # between two waits (nginx) misses one that comes just before a wait.
        for _ in range(STOP_SECONDS):
            if self.popen.poll() is not None:
                return
            self.popen.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(1)
        self.popen.kill()
        self.popen.wait()

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.stop()


class Target:
    """A way from the client to the server. Can be started many times,
    also under a wrapper (valgrind)."""

    def __init__(self, name, version, command):
        self.name = name
        self.version = version
        self._command = command  # function of (port, folder) -> argv

    def start(self, folder, wrapper=()):
        port = free_port()
        return Process(
            self._command(port, folder), port, folder, self.name, wrapper
        )


def start_redis(folder, options=()):
    port = free_port()
    command = [
        "redis-server", "--port", str(port), "--bind", "127.0.0.1",
        "--dir", folder, "--save", "", "--appendonly", "no",
        "--maxclients", "19000", "--tcp-backlog", "4096", *options,
    ]  # fmt: skip
    return Process(command, port, folder, f"redis-server-{port}")


class Servers:
    """Several that are measured as one."""

    def __init__(self, processes):
        self.processes = processes
        self.port = processes[0].port

    def ports(self):
        return [process.port for process in self.processes]

    def cpu_ns(self):
        return sum(process.cpu_ns() for process in self.processes)


def write(folder, name, text):
    path = os.path.join(folder, name)
    with open(path, "w") as f:
        f.write(text)
    return path


def first_line(command):
    out = subprocess.run(command, capture_output=True, text=True)
    lines = (out.stdout + out.stderr).strip().splitlines()
    return lines[0] if lines else "?"


def _haproxy(program, redis_port):
    def command(port, folder):
        text = HAPROXY.format(
            port=port, redis_port=redis_port, connections=CONNECTIONS_MAX
        )
        return [program, "-db", "-f", write(folder, f"haproxy-{port}.cfg", text)]

    return Target("haproxy", first_line([program, "-v"]), command)


def _nginx(program, redis_port):
    load = f"load_module {NGINX_STREAM};" if os.path.exists(NGINX_STREAM) else ""

    def command(port, folder):
        text = NGINX.format(
            port=port,
            redis_port=redis_port,
            folder=folder,
            files=2 * CONNECTIONS_MAX,
            load_module=load,
        )
        path = write(folder, f"nginx-{port}.conf", text)
        return [program, "-p", folder, "-c", path]

    return Target("nginx", first_line([program, "-v"]), command)


def twemproxy(program, redis_ports):
    servers = "\n".join(f"    - 127.0.0.1:{port}:1" for port in redis_ports)

    def command(port, folder):
        text = NUTCRACKER.format(port=port, servers=servers)
        path = write(folder, f"nutcracker-{port}.yml", text)
        stats = ["-s", str(free_port()), "-a", "127.0.0.1", "-i", "3600000"]
        return [program, "-c", path, *stats]

    return Target("twemproxy", first_line([program, "-V"]), command)


def _nutcracker(program, redis_port):
    return twemproxy(program, [redis_port])


def redial(build, url, name="redial"):
    program = os.path.join(build, "redial")

    def command(port, folder):
        return [program, "--listen", f"127.0.0.1:{port}", url]

    return Target(name, first_line([program, "--version"]), command)


def proxies(build, redis_port, note):
    """Every proxy this machine has, the relay first."""
    relay = os.path.join(build, "tests/bench/relay")
    found = [
        Target(
            "relay",
            "tests/bench/relay.c",
            lambda port, folder: [relay, str(port), str(redis_port)],
        ),
        redial(build, f"redis://127.0.0.1:{redis_port}"),
    ]
    others = {"nutcracker": _nutcracker, "haproxy": _haproxy, "nginx": _nginx}
    for name, make in others.items():
        program = find(name)
        if program is None:
            note(f"{name} is not installed: left out")
        else:
            found.append(make(program, redis_port))
    return found
