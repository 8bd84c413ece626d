"""server.py as processes, and what they have executed."""

import collections
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

import grpc  # noqa: E402

from servers import HOST, Process, free_port, redial_path  # noqa: E402
from wait import wait_until  # noqa: E402



def cpp_echo():
    """The program on libgrpc++, built beside redial where the library is
    there; or None."""
    if redial_path() is None:
        return None
    path = os.path.join(os.path.dirname(redial_path()),
                        "tests", "e2e", "grpc", "cpp_echo")
    return path if os.access(path, os.X_OK) else None


PYTHON = "/usr/bin/python3"
SERVERS = {
    "python": [PYTHON, os.path.join(HERE, "server.py")],
    "node": ["node", os.path.join(HERE, "server.js")],
}
if cpp_echo():
    SERVERS["cpp"] = [cpp_echo(), "server"]
UNLIMITED = [("grpc.max_receive_message_length", -1),
             ("grpc.max_send_message_length", -1),
             ("grpc.max_metadata_size", 64 * 1024),
             ("grpc.use_local_subchannel_pool", 1)]


class Executions:
    """The log that all servers of a test append to."""

    def __init__(self, path):
        self.path = path

    def rows(self):
        """(call id, method, pid, time, what, server) of each line."""
        try:
            with open(self.path) as file:
                lines = file.read().splitlines()
        except FileNotFoundError:
            return []
        rows = []
        for line in lines:
            call, method, pid, when, what, name = line.split(" ")
            rows.append((call, method, int(pid), float(when), what, name))
        return rows

    def count(self, call, what="run"):
        return sum(row[0] == call and row[4] == what for row in self.rows())

    def counts(self, what="run"):
        """{call id: how often}."""
        return collections.Counter(
            row[0] for row in self.rows() if row[4] == what)

    def of_servers(self):
        """{name of a server: how many it has run}."""
        return collections.Counter(
            row[5] for row in self.rows() if row[4] == "run")


class EchoServer(Process):
    """kind: python (grpcio), node (@grpc/grpc-js) or cpp (libgrpc++)."""

    def __init__(self, folder, name="a", executions=None, options=(),
                 grace=10, port=None, kind="python"):
        os.makedirs(folder, exist_ok=True)
        super().__init__(os.path.join(folder, f"server-{name}.log"))
        self.name, self.grace, self.kind = name, grace, kind
        self.options = list(options)
        self.port = port or free_port()
        self.executions = executions or Executions(
            os.path.join(folder, "executions.log"))

    @property
    def target(self):
        return f"{HOST}:{self.port}"

    def launch(self, at=None):
        """Start without waiting; listen at a time of the monotonic clock."""
        args = ["--port", str(self.port), "--name", self.name,
                "--log", self.executions.path, "--grace", str(self.grace)]
        for option in self.options:
            args += ["--option", option]
        if at:
            args += ["--at", str(at)]
        self.spawn([*SERVERS[self.kind], *args], cwd=HERE)

    def start(self):
        self.launch()
        self.wait_ready()
        return self

    restart = start

    def wait_ready(self):
        wait_until(lambda: self.listens() or not self.running(),
                   f"server {self.name}", 30, interval=0.002)
        assert self.running(), self.log()

    def listens(self):
        # gRPC listens with IPv6 sockets on IPv4 addresses too.
        wanted = f":{self.port:04X}"
        for family in ("tcp", "tcp6"):
            with open(f"/proc/net/{family}") as table:
                for row in table:
                    words = row.split()
                    if words[3] == "0A" and words[1].endswith(wanted):
                        return True
        return False


def channel(port, *options, host=HOST):
    """A channel that shares no connection with any other."""
    return grpc.insecure_channel(f"{host}:{port}",
                                 options=[*UNLIMITED, *options])


def call(channel, shape="Unary", suffix=""):
    """A multi-callable for bytes."""
    kind = {"Unary": "unary_unary", "ClientStream": "stream_unary",
            "ServerStream": "unary_stream", "Bidi": "stream_stream"}[shape]
    return getattr(channel, kind)(f"/echo.Echo/{shape}{suffix}")
