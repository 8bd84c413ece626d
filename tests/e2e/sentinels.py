"""A real primary with replicas, watched by real sentinels."""

import os

from cluster import end_with_us
from servers import HOST, REDIS_SERVER, Process, RedisServer, free_port
from resp import Connection, ConnectionClosed
from wait import wait_until

GROUP = "mymaster"


class Member(RedisServer):
    """One of the servers that are watched."""

    def __init__(self, folder, options=()):
        super().__init__(folder, aof=True, options=[
            "--aof-use-rdb-preamble", "no",
            "--repl-timeout", "5",
            "--repl-backlog-size", "32mb", *options])

    def launch(self):
        self.spawn(end_with_us([REDIS_SERVER, "--port", str(self.port),
                                *self.options]))

    def ask(self, *args):
        reply = self.call(*args)
        assert not hasattr(reply, "code"), f"{args}: {reply}"
        return reply

    def role(self):
        return self.ask("ROLE")[0].decode()

    def follows(self, primary):
        role = self.ask("ROLE")
        return role[0] == b"slave" and role[2] == primary.port \
            and role[3] == b"connected"


class Sentinel(Process):
    def __init__(self, folder, primary_port, quorum, down_after,
                 failover_timeout):
        os.makedirs(folder, exist_ok=True)
        super().__init__(os.path.join(folder, "sentinel.log"))
        self.port = free_port()
        self.path = os.path.join(folder, "sentinel.conf")
        with open(self.path, "w") as file:
            file.write(f"port {self.port}\nbind {HOST}\ndir {folder}\n"
                       f"protected-mode no\n"
                       f"sentinel monitor {GROUP} {HOST} {primary_port} "
                       f"{quorum}\n"
                       f"sentinel down-after-milliseconds {GROUP} "
                       f"{down_after}\n"
                       f"sentinel failover-timeout {GROUP} "
                       f"{failover_timeout}\n")

    def launch(self):
        self.spawn(end_with_us([REDIS_SERVER, self.path, "--sentinel"]))

    def call(self, *args):
        with Connection((HOST, self.port), 5) as c:
            reply = c.call(*args)
        assert not hasattr(reply, "code"), f"{args}: {reply}"
        return reply

    def group(self):
        words = [w.decode() for w in self.call("SENTINEL", "MASTER", GROUP)]
        return dict(zip(words[0::2], words[1::2]))

    def primary_port(self):
        return int(self.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME",
                             GROUP)[1])


class SentinelSet:
    """1 primary, 2 replicas, 3 sentinels."""

    def __init__(self, folder, replicas=2, sentinels=3, down_after=1000,
                 failover_timeout=3000):
        self.members = [Member(os.path.join(folder, f"member{i}"))
                        for i in range(1 + replicas)]
        self.sentinels = [
            Sentinel(os.path.join(folder, f"sentinel{i}"),
                     self.members[0].port, sentinels // 2 + 1, down_after,
                     failover_timeout) for i in range(sentinels)]

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.end()

    def start(self):
        try:
            self._start()
        except BaseException:
            self.end()
            raise
        return self

    def _start(self):
        first, *others = self.members
        for member in self.members:
            member.launch()
        for member in self.members:
            wait_until(lambda: member.ping() == b"PONG", "a server")
        for member in others:
            member.ask("REPLICAOF", HOST, first.port)
        # A sentinel asks for replicas at once, then only every 10 s.
        wait_until(lambda: all(m.follows(first) for m in others),
                   "the replicas to follow", 30)
        for sentinel in self.sentinels:
            sentinel.launch()
        self.wait_ok()

    def end(self):
        for process in (*self.sentinels, *self.members):
            if process.running():
                process.kill9()

    @property
    def url(self):
        nodes = ",".join(f"{HOST}:{s.port}" for s in self.sentinels)
        return f"redis+sentinel://{nodes}/{GROUP}"

    def alive(self):
        return [m for m in self.members if m.running()]

    def primary(self):
        """What all sentinels say, and the server too."""
        ports = {s.primary_port() for s in self.sentinels if s.running()}
        assert len(ports) == 1, f"sentinels differ: {ports}"
        member = next(m for m in self.members if m.port in ports)
        assert member.running() and member.role() == "master"
        return member

    def is_ok(self):
        primary = self.primary()
        for member in self.alive():
            assert member is primary or member.follows(primary)
        others = str(len(self.sentinels) - 1)
        for sentinel in self.sentinels:
            group = sentinel.group()
            assert group["flags"] == "master", group["flags"]
            assert group["num-slaves"] == str(len(self.members) - 1)
            assert group["num-other-sentinels"] == others
        return True

    def wait_ok(self, timeout=40):
        wait_until(self.is_ok, "the sentinels to agree", timeout, 0.05)

    def wait_promoted(self, old, timeout=30):
        """Until another server says it is the primary."""
        def promoted():
            for member in self.alive():
                try:
                    if member is not old and member.role() == "master":
                        return member
                except ConnectionClosed:
                    continue
            return None
        return wait_until(promoted, "a replica to be promoted", timeout)

    def wait_announced(self, old, timeout=30):
        """Until a sentinel names another primary: that is when clients can
        know."""
        wait_until(lambda: any(s.primary_port() != old.port
                               for s in self.sentinels if s.running()),
                   "a sentinel to name the new primary", timeout)

    def failover(self):
        """SENTINEL FAILOVER; the new primary."""
        old = self.primary()
        assert self.sentinels[0].call("SENTINEL", "FAILOVER", GROUP) == b"OK"
        return self.wait_promoted(old)
