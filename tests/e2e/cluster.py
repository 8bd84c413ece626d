"""A real Redis Cluster: started, hurt, resharded and ended.

    with Cluster(folder) as cluster:       # 3 primaries, a replica each
        cluster.shards[0].primary.kill9()

Nothing here goes through redial: a test must see the servers as they are.
"""

import binascii
import functools
import os
import random
import shutil

from relay import Relay
from servers import HOST, REDIS_SERVER, RedisServer, free_port
from wait import wait_until

SLOTS = 16384


def key_slot(key):
    """The slot of a key, its {tag} considered."""
    key = key.encode() if isinstance(key, str) else key
    begin = key.find(b"{")
    end = key.find(b"}", begin + 1) if begin >= 0 else -1
    if end > begin + 1:
        key = key[begin + 1:end]
    return binascii.crc_hqx(key, 0) % SLOTS


@functools.lru_cache(maxsize=None)
def _tags():
    tags, number = {}, 0
    while len(tags) < SLOTS:
        tags.setdefault(key_slot(str(number)), str(number))
        number += 1
    return tags


def tag_of_slot(slot):
    """A short word that hashes to the slot: for keys like a{tag}."""
    return _tags()[slot]


def end_with_us(args):
    """The command that ends with the process that starts it, however that
    ends."""
    keeper = shutil.which("setpriv")
    return [keeper, "--pdeathsig", "KILL", *args] if keeper else args


class Node(RedisServer):
    """One redis-server in cluster mode. With relay=True the world is told
    the address of a relay in front of it; the cluster's own bus is not
    relayed."""

    def __init__(self, folder, node_timeout=2000, relay=False, options=()):
        self.bus_port = free_port()
        super().__init__(folder, aof=True, options=[
            "--aof-use-rdb-preamble", "no",
            "--cluster-enabled", "yes",
            "--cluster-config-file", "nodes.conf",
            "--cluster-node-timeout", str(node_timeout),
            "--cluster-port", str(self.bus_port),
            "--repl-timeout", "5",
            "--repl-backlog-size", "32mb",
            *options])
        self.id = None
        self.relay = None
        if relay:
            self.relay = Relay(self.port)
            self.options += ["--cluster-announce-ip", HOST,
                             "--cluster-announce-port", str(self.relay.port),
                             "--cluster-announce-bus-port",
                             str(self.bus_port)]

    @property
    def shown_port(self):
        """The port that the cluster tells clients."""
        return self.relay.port if self.relay else self.port

    def launch(self):
        self.spawn(end_with_us([REDIS_SERVER, "--port", str(self.port),
                                *self.options]))

    def wait_ready(self):
        wait_until(self._ready_or_dead, "a cluster node to be ready")
        assert self.running(), self.log()
        self.id = self.call("CLUSTER", "MYID").decode()

    def ask(self, *args):
        """call() for what must not fail."""
        reply = self.call(*args)
        assert not hasattr(reply, "code"), f"{args}: {reply}"
        return reply

    def cluster_info(self):
        lines = self.ask("CLUSTER", "INFO").decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def replication(self):
        lines = self.ask("INFO", "replication").decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def owners(self):
        """{slot: node id}, as this node sees it."""
        view = {}
        for row in self.ask("CLUSTER", "SLOTS"):
            for slot in range(row[0], row[1] + 1):
                view[slot] = row[2][2].decode()
        return view

    def known(self):
        """{node id: flags}, as this node sees it."""
        rows = self.ask("CLUSTER", "NODES").decode().splitlines()
        words = [row.split() for row in rows]
        return {w[0]: set(w[2].split(",")) for w in words}

    def is_primary(self):
        return self.replication()["role"] == "master"


class Shard:
    """A primary and its replicas, as they were at the start."""

    def __init__(self, primary, replicas):
        self.primary, self.replicas = primary, replicas

    @property
    def nodes(self):
        return [self.primary, *self.replicas]

    def current_primary(self):
        """Who is it now? The one alive with slots and the highest epoch."""
        best = (-1, None)
        for node in self.nodes:
            if not node.running():
                continue
            try:
                if node.is_primary() and node.id in node.owners().values():
                    epoch = int(node.cluster_info()["cluster_my_epoch"])
                    best = max(best, (epoch, node), key=lambda pair: pair[0])
            except (OSError, AssertionError):
                continue
        assert best[1], "the shard has no primary"
        return best[1]


class Cluster:
    def __init__(self, folder, primaries=3, replicas=1, node_timeout=2000,
                 relayed=False, options=()):
        self.folder = folder
        self.node_timeout = node_timeout
        self.options = options
        self.nodes = []
        self.shards = []
        for _ in range(primaries):
            primary = self._new_node(relayed)
            self.shards.append(Shard(
                primary, [self._new_node() for _ in range(replicas)]))

    def _new_node(self, relay=False):
        node = Node(os.path.join(self.folder, f"node{len(self.nodes)}"),
                    self.node_timeout, relay, self.options)
        self.nodes.append(node)
        return node

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.end()

    # -- beginning and end

    def start(self):
        try:
            for node in self.nodes:
                node.launch()
            for node in self.nodes:
                node.wait_ready()
            self._form()
            self.wait_ok()
        except BaseException:
            self.end()
            raise
        return self

    def _form(self):
        """Slots and epochs are dealt before the nodes meet: so they never
        disagree, and nothing has to be moved."""
        share = -(-SLOTS // len(self.shards))
        for number, node in enumerate(self.nodes):
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for number, shard in enumerate(self.shards):
            last = min(SLOTS, (number + 1) * share) - 1
            shard.primary.ask("CLUSTER", "ADDSLOTSRANGE", number * share,
                              last)
        for node in self.nodes:
            self._introduce(node)
        for shard in self.shards:
            for replica in shard.replicas:
                wait_until(lambda: shard.primary.id in replica.known(),
                           "a replica to know its primary")
                replica.ask("CLUSTER", "REPLICATE", shard.primary.id)

    def _introduce(self, node):
        """Let a node meet all others."""
        for other in self.nodes:
            if other is not node:
                node.ask("CLUSTER", "MEET", HOST, other.port, other.bus_port)

    def end(self):
        for node in self.nodes:
            if node.running():
                node.kill9()
            if node.relay:
                node.relay.close()

    # -- looking

    @property
    def seeds(self):
        return [(HOST, shard.primary.shown_port) for shard in self.shards]

    @property
    def url(self):
        return "redis+cluster://" + ",".join(
            f"{host}:{port}" for host, port in self.seeds)

    def alive(self):
        return [node for node in self.nodes if node.running()]

    def node_of(self, node_id):
        return next(node for node in self.nodes if node.id == node_id)

    def primaries(self):
        """The nodes that own slots now."""
        owners = self.alive()[0].owners()
        return [self.node_of(node_id) for node_id in
                sorted(set(owners.values()))]

    def owner(self, slot):
        """The node whose slot it is, by its own words: the view of another
        one may be late."""
        for node in self.alive():
            try:
                if node.owners().get(slot) == node.id and node.is_primary():
                    return node
            except (OSError, AssertionError):
                continue
        raise AssertionError(f"nobody owns slot {slot}")

    def call_key(self, *args, key=None):
        """One command at the owner of its key (the first argument)."""
        return self.owner(key_slot(key or args[1])).call(*args)

    def is_ok(self):
        """All nodes alive agree that all slots are served, by nodes alive,
        and all replicas follow."""
        views = [node.owners() for node in self.alive()]
        assert all(view == views[0] for view in views), "views differ"
        assert len(views[0]) == SLOTS, f"{len(views[0])} slots are served"
        ids = {node.id for node in self.alive()}
        assert set(views[0].values()) <= ids, "a dead node owns slots"
        for node in self.alive():
            info = node.cluster_info()
            assert info["cluster_state"] == "ok", info
            flags = node.known()
            assert ids <= set(flags), "a node is not known"
            bad = {"fail", "fail?", "handshake", "noaddr"}
            assert not any(flags[i] & bad for i in ids), flags
            replication = node.replication()
            if replication["role"] == "slave":
                assert replication["master_link_status"] == "up", replication
        return True

    def wait_ok(self, timeout=30):
        wait_until(self.is_ok, "the cluster to be well", timeout, 0.05)

    def keys(self):
        """All keys, from the owners of their slots."""
        found = []
        for node in self.primaries():
            found += node.ask("KEYS", "*")
        return found

    # -- hurting

    def kill_primary(self, shard=0):
        """kill -9 of the primary of a shard; the node."""
        node = self.shards[shard].current_primary()
        node.kill9()
        return node

    def wait_promoted(self, shard, old, timeout=30):
        """Until another node of the shard serves its slots."""
        def promoted():
            for node in self.shards[shard].nodes:
                if node is not old and node.running() and \
                        node.is_primary() and \
                        node.cluster_info()["cluster_state"] == "ok" and \
                        node.id in node.owners().values():
                    return node
            return None
        return wait_until(promoted, "a replica to be promoted", timeout)

    def failover(self, shard=0, how=None, tries=3):
        """CLUSTER FAILOVER at a replica; the new primary. The servers give
        up after 5 s when one of them was too busy: so it is asked again."""
        old = self.shards[shard].current_primary()
        replica = random.choice([n for n in self.shards[shard].nodes
                                 if n is not old and n.running()])
        for last in range(1 - tries, 1):
            reply = replica.call("CLUSTER", "FAILOVER",
                                 *([how] if how else []))
            try:
                return self.wait_promoted(shard, old, 6)
            except AssertionError as error:
                if last == 0:
                    raise AssertionError(
                        f"{error}; CLUSTER FAILOVER said {reply}\n"
                        + replica.log()[-1500:]) from None
        return None

    # -- growing and shrinking

    def add_node(self):
        """A new primary without slots."""
        node = self._new_node()
        node.launch()
        node.wait_ready()
        self._introduce(node)
        wait_until(lambda: all(node.id in other.known() and
                               "handshake" not in other.known()[node.id]
                               and other.id in node.known()
                               for other in self.alive()),
                   "all to know the new node")
        wait_until(lambda: node.cluster_info()["cluster_state"] == "ok",
                   "the new node to be well")
        self.shards.append(Shard(node, []))
        return node

    def remove_node(self, node):
        """A node without slots: forgotten by all, then ended."""
        for other in self.alive():
            if other is not node:
                other.ask("CLUSTER", "FORGET", node.id)
        node.kill9()
