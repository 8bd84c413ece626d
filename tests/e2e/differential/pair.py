"""The servers of a differential run: redis-servers that answer the same bytes
to the same commands, one met directly, one behind redial.

Their wall clock stands still and their chance is constant (determined.c), so
that expiry, timeouts, ids of streams and the order of hash tables are no
excuse for a difference.
"""

import os
import struct
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

import servers  # noqa: E402
from wait import wait_until  # noqa: E402

BEGIN_US = 1_800_000_000_000_000  # any time; no test names it


def shared_object(folder):
    """determined.c, compiled into the folder."""
    path = os.path.join(folder, "determined.so")
    if not os.path.exists(path):
        subprocess.run([os.environ.get("CC", "cc"), "-O1", "-shared", "-fPIC",
                        "-o", path + ".new",
                        os.path.join(HERE, "determined.c"), "-ldl"],
                       check=True)
        os.rename(path + ".new", path)
    return path


class Clock:
    """What the server takes for the time."""

    def __init__(self, path):
        self.path, self.now_us = path, BEGIN_US
        with open(path + ".seed", "wb") as seed:
            seed.write(bytes(range(1, 255)) * 32)
        self.file = open(path, "w+b", buffering=0)
        self.set(BEGIN_US)

    def set(self, now_us):
        self.now_us = now_us
        os.pwrite(self.file.fileno(), struct.pack("=q", now_us), 0)

    def advance(self, seconds):
        self.set(self.now_us + int(seconds * 1_000_000))


class DeterminedServer(servers.RedisServer):
    """options: more of them, after those that make it determined."""

    def __init__(self, folder, library, options=(), password=None):
        super().__init__(folder, options=[
            "--enable-debug-command", "local", "--hz", "100",
            "--activerehashing", "no", "--lfu-decay-time", "0", *options])
        self.library = library
        if password:
            self.password = password
            self.options += ["--requirepass", password]
        self.clock = Clock(os.path.join(folder, "clock"))

    def launch(self):
        env = dict(os.environ, LD_PRELOAD=self.library,
                   DETERMINED_CLOCK=self.clock.path)
        self.spawn([servers.REDIS_SERVER, "--port", str(self.port),
                    *self.options], env=env)

    def start(self):
        super().start()
        # Only what is touched expires: when else it does is chance.
        assert self.call("DEBUG", "SET-ACTIVE-EXPIRE", "0") == b"OK"
        return self


class ClusterServer(DeterminedServer):
    """A cluster of one node that owns all slots."""

    def __init__(self, folder, library):
        super().__init__(folder, library, ["--cluster-enabled", "yes"])

    def start(self):
        super().start()
        assert self.call("CLUSTER", "ADDSLOTSRANGE", "0", "16383") == b"OK"
        self.clock.advance(10)  # a node takes its time before it serves
        wait_until(lambda: b"cluster_state:ok" in
                   self.call("CLUSTER", "INFO"), "the cluster to be ok")
        self.clock.set(BEGIN_US)
        return self


class Direct:
    """A side of the comparison: clients meet the server."""

    def __init__(self, folder, library, password=None):
        self.server = DeterminedServer(folder, library,
                                       password=password).start()
        self.address = self.server.address

    def finish(self):
        self.server.kill9()
        return []


class ThroughRedial:
    """The other side."""

    def __init__(self, folder, library, lanes, upstream="standalone",
                 password=None, sets=()):
        if upstream == "cluster":
            self.server = ClusterServer(folder, library).start()
            url = f"redis+cluster://{servers.HOST}:{self.server.port}"
        else:
            self.server = DeterminedServer(folder, library,
                                           password=password).start()
            url = self.server.url
        self.redial = servers.Redial(
            os.path.join(folder, "redial"), url,
            sets=[f"upstream.lanes={lanes}", *sets]).start()
        if not password:  # else redial knows none that the server would take
            wait_until(lambda: self.redial.http("/ready")[0] == 200,
                       "redial to be ready")
        self.address = self.redial.address

    def finish(self):
        """Complaints about how redial ended, in words."""
        bad = self.redial.finish()
        self.server.kill9()
        return bad
