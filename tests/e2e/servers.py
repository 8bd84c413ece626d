"""Real processes: redis-server and redial, started, hurt and ended.

Used by the tests through conftest.py and by scenarios.py on its own.
"""

import itertools
import json
import os
import random
import re
import resource
import signal
import socket
import subprocess
import urllib.request

from resp import Connection, ConnectionClosed
from wait import wait_until

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
HOST = "127.0.0.1"
REDIS_SERVER = os.environ.get("REDIS_SERVER", "redis-server")
REDIS_CLI = os.environ.get("REDIS_CLI", "redis-cli")

# Below the range the kernel takes for outgoing connections, so that no client
# can sit on the port of a server that is down for a moment.
FIRST_PORT, LAST_PORT = (int(port) for port in os.environ.get(
    "E2E_PORTS", "21000-30999").split("-"))
_ports = itertools.count(random.randrange(LAST_PORT - FIRST_PORT))


def free_port():
    """A port nobody listens on, not given out before."""
    while True:
        port = FIRST_PORT + next(_ports) % (LAST_PORT - FIRST_PORT + 1)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port


def redial_path():
    """The binary under test, or None."""
    if "REDIAL" in os.environ:
        return os.environ["REDIAL"]
    for build in ("dev", "release"):
        for name in ("redial", "proxy/redial"):
            path = os.path.join(ROOT, "build", build, name)
            if os.access(path, os.X_OK):
                return path
    return None


def has_asan(path):
    with open(path, "rb") as file:
        return b"__asan_init" in file.read()


def raise_file_limit(wanted):
    """Raise this process' limit of open files; whether it is enough."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY \
            else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        soft = limit
    return soft >= wanted


def rss_bytes(pid):
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    return 0


def open_files(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


class Process:
    """A child process with its output in a file."""

    def __init__(self, log_path):
        self.log_path = log_path
        self.child = None

    def spawn(self, args, env=None, preexec=None, cwd=None):
        with open(self.log_path, "ab") as log:
            self.child = subprocess.Popen(
                args, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=env, preexec_fn=preexec, cwd=cwd)

    @property
    def pid(self):
        return self.child.pid

    def running(self):
        return self.child is not None and self.child.poll() is None

    def log(self):
        try:
            with open(self.log_path, errors="replace") as log:
                return log.read()
        except FileNotFoundError:
            return ""

    def signal(self, number):
        self.child.send_signal(number)

    def stop_running(self):
        """SIGSTOP: the process hangs, its connections stay open."""
        self.signal(signal.SIGSTOP)
        wait_until(lambda: self._state() == "T", "the process to stop")

    def _state(self):
        with open(f"/proc/{self.pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0]

    def go_on(self):
        self.signal(signal.SIGCONT)

    def kill9(self):
        if self.running():
            self.child.kill()
        self.child.wait()

    def end(self, timeout=20):
        """SIGTERM, wait, return the exit code; SIGKILL when it hangs."""
        if self.child is None:
            return None
        if self.running():
            self.go_on()
            self.child.terminate()
            try:
                self.child.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill9()
                raise AssertionError(
                    f"{self.log_path}: no end {timeout} s after SIGTERM")
        return self.child.returncode


class RedisServer(Process):
    """A private redis-server (or, by $REDIS_SERVER, one that speaks like it)
    with its data in a folder of its own. restart() keeps the data."""

    def __init__(self, folder, aof=False, unix=False, options=()):
        os.makedirs(folder, exist_ok=True)
        super().__init__(os.path.join(folder, "redis.log"))
        self.folder = folder
        self.port = free_port()
        self.unix_path = os.path.join(folder, "r.sock") if unix else None
        self.password = None
        self.user = None
        self.options = [
            "--bind", HOST, "--dir", folder, "--save", "",
            "--daemonize", "no", "--protected-mode", "no",
            "--appendonly", "yes" if aof else "no",
            "--appendfsync", "always",
            "--auto-aof-rewrite-percentage", "0",
            "--repl-diskless-sync-delay", "0",
            "--maxclients", "4000", *options]
        if self.unix_path:
            self.options += ["--unixsocket", self.unix_path]

    @property
    def address(self):
        return (HOST, self.port)

    @property
    def url(self):
        return f"redis://{HOST}:{self.port}"

    def launch(self):
        """Start without waiting."""
        self.spawn([REDIS_SERVER, "--port", str(self.port), *self.options])

    def start(self):
        for _ in range(5):
            self.launch()
            try:
                wait_until(self._ready_or_dead, "redis-server to be ready")
            except AssertionError as error:
                raise AssertionError(f"{error}\n{self.log()}") from None
            if self.running():
                return self
            assert "Address already in use" in self.log(), self.log()
            self.port = free_port()
        raise AssertionError("no port for redis-server")

    def _ready_or_dead(self):
        if not self.running():
            return True
        reply = self.ping()
        return reply == b"PONG" or (reply or "").startswith("NOAUTH")

    def ping(self):
        try:
            with Connection(self.address, 2) as c:
                return c.call("PING")
        except (OSError, ConnectionClosed):
            return None

    def restart(self):
        """After kill9(), on the same port with the same data."""
        self.launch()
        wait_until(self._ready_or_dead, "redis-server to be back")
        assert self.running(), self.log()

    def connect(self):
        """A raw connection past redial, logged in if needed."""
        c = Connection(self.address)
        if self.password:
            login = [self.user] if self.user else []
            assert c.call("AUTH", *login, self.password) == b"OK"
        return c

    def call(self, *args):
        with self.connect() as c:
            return c.call(*args)

    def clients(self):
        """CLIENT LIST as dicts, without the connection that asks."""
        with self.connect() as c:
            own = str(c.call("CLIENT", "ID"))
            lines = c.call("CLIENT", "LIST").decode().splitlines()
        rows = [dict(word.split("=", 1) for word in line.split())
                for line in lines]
        return [row for row in rows if row["id"] != own]


# Counters that no run may raise (reliability.md names them; the words after
# "must stay 0" in their help text make the list complete by itself).
MUST_STAY_ZERO = {"redial_late_attempts_total", "redial_reply_mismatch_total",
                  "redial_ledger_mismatch_total"}
SANITIZER = re.compile(r"ERROR: \w+Sanitizer|runtime error:|"
                       r"SUMMARY: \w+Sanitizer|[Aa]ssertion .*failed")


class Redial(Process):
    """redial in front of one upstream, or with a config file."""

    def __init__(self, folder, url=None, sets=(), config=None, listen=None,
                 secrets=(), env=None, file_limit=None, arguments=()):
        os.makedirs(folder, exist_ok=True)
        super().__init__(os.path.join(folder, "redial.log"))
        self.folder = folder
        self.listen = listen
        self.port = None if listen else free_port()
        self.admin_port = free_port()
        self.url, self.sets, self.config = url, list(sets), config
        self.secrets = [s for s in secrets if s]
        self.env = env or {}
        self.file_limit = file_limit
        self.arguments = list(arguments)
        self.checked = False

    @property
    def address(self):
        if self.listen and self.listen.startswith("unix:"):
            return self.listen[5:]
        return (HOST, self.port)

    def launch(self):
        args = [redial_path()]
        if self.config is not None:
            path = os.path.join(self.folder, "redial.ini")
            with open(path, "w") as file:
                file.write(self.config)
            args += ["-c", path]
        else:
            args += ["--listen", self.listen or f"{HOST}:{self.port}"]
        args += ["--admin", f"{HOST}:{self.admin_port}"]
        for setting in self.sets:
            args += ["--set", setting]
        args += self.arguments
        if self.url:
            args.append(self.url)
        env = dict(os.environ, **self.env)
        env.setdefault("ASAN_OPTIONS", "detect_leaks=1:abort_on_error=0")
        env.setdefault("UBSAN_OPTIONS", "print_stacktrace=1:halt_on_error=1")
        self.spawn(args, env, self._limit_files)

    def _limit_files(self):
        if self.file_limit:
            limit = self.file_limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))

    def start(self):
        self.launch()
        try:
            wait_until(lambda: not self.running() or self._live(),
                       "redial to be live")
            assert self.running(), "redial ended at start"
        except AssertionError as error:
            self.kill9()
            raise AssertionError(f"{error}\n{self.log()}") from None
        return self

    def _live(self):
        return self.http("/live")[0] == 200

    def http(self, path):
        """(status, body) of an admin page."""
        request = f"http://{HOST}:{self.admin_port}{path}"
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def metrics(self):
        """{name: sum over all labels}."""
        sums = {}
        for line in self.http("/metrics")[1].splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                name = name.split("{", 1)[0]
                sums[name] = sums.get(name, 0) + float(value)
        return sums

    def metric(self, name):
        metrics = self.metrics()
        for full in (f"redial_{name}_total", f"redial_{name}"):
            if full in metrics:
                return metrics[full]
        raise AssertionError(f"no metric {name}")

    def must_stay_zero(self):
        text = self.http("/metrics")[1]
        # Those are of Redis: in front of gRPC servers only there are none.
        wanted = set() if (self.url or "").startswith("grpc") \
            else MUST_STAY_ZERO
        names = set(wanted)
        names.update(re.findall(r"^# HELP (\S+) .*must stay 0", text, re.M))
        metrics = self.metrics()
        missing = [n for n in wanted if n not in metrics]
        return ([f"metric {n} is missing" for n in missing]
                + [f"{n} is {metrics[n]:g}, must stay 0"
                   for n in sorted(names) if metrics.get(n)])

    def connect(self, timeout=20.0):
        return Connection(self.address, timeout)

    def events(self):
        return json.loads(self.http("/events")[1])

    def finish(self, exit_code=0):
        """What every test asks at its end. Returns complaints in words."""
        if self.checked or self.child is None:
            return []
        self.checked = True
        bad = []
        output = ""
        if self.running():
            try:
                bad += self.must_stay_zero()
                output = "".join(self.http(page)[1] for page in
                                 ("/metrics", "/config", "/events"))
            except (OSError, AssertionError) as error:
                bad.append(f"admin port: {error}")
        try:
            code = self.end()
        except AssertionError as error:
            return bad + [str(error)]
        if code != exit_code:
            bad.append(f"redial ended with {code}, expected {exit_code}")
        log = self.log()
        found = SANITIZER.search(log)
        if found:
            bad.append("sanitizer or assertion: ..."
                       + log[found.start():][:4000])
        bad += [f"secret {secret!r} in logs or admin pages"
                for secret in self.secrets if secret in log + output]
        return bad


class Direct:
    """Stands in for redial with --redial none: clients meet the server
    itself. Proves that the checkers see what redial is there to prevent."""

    def __init__(self, redis):
        self.redis = redis
        self.port = redis.port
        self.address = redis.address

    @property
    def pid(self):
        return self.redis.pid

    def connect(self, timeout=20.0):
        return Connection(self.address, timeout)
