"""The scenarios with several servers: clusters and sentinel sets, hurt under
load. scenarios.py runs them by hand, test_cluster_faults.py shortened.

A scenario is a function hurt(play): it does what it does to play.cluster (or
play.sentinels) while play.load runs, and notes in play.facts what the table
is to show.
"""

import contextlib
import logging
import os
import re
import time
from dataclasses import dataclass, field

from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import RedisClusterException, RedisError
from redis.sentinel import Sentinel

import cluster_load as cl
from cluster import Cluster
from load import Load
from migrate import move_slots
from relay import RST
from sentinels import GROUP, SentinelSet
from servers import HOST

# What redis-py's own clients say when they give up; 4.3.4 has a bug for which
# it says AttributeError.
CLIENT_ERRORS = (RedisError, RedisClusterException, AttributeError)
SEEDS_DOWN = 5.0  # seconds that all nodes are down
KILLED = 6.0      # seconds until the killed primary comes back


@dataclass
class Play:
    """One scenario while it is played."""
    name: str
    seconds: float
    cluster: Cluster = None
    sentinels: SentinelSet = None
    load: Load = None
    journals: list = field(default_factory=list)  # [[(server, Journal)]]
    facts: dict = field(default_factory=dict)

    def at(self, share):
        """Wait until this share of the time has passed."""
        self.load.sleep_until(self.seconds * share)

    def later(self, began, seconds):
        """Wait until so long after began."""
        time.sleep(max(0.0, began + seconds - time.monotonic()))

    def keep_journal(self, group, server):
        self.journals[group].append((server, cl.Journal(server)))

    @contextlib.contextmanager
    def timed(self, what):
        began = time.monotonic()
        yield began
        self.facts[what] = time.monotonic() - began


# -- what is done to a cluster

def hurt_kill(play):
    play.at(0.25)
    with play.timed("failover") as began:
        old = play.cluster.kill_primary(0)
        play.cluster.wait_promoted(0, old)
    play.later(began, min(KILLED, play.seconds * 0.5))
    old.restart()


def hurt_failover(play):
    """All shards, one after the other, and back."""
    times = [0.2, 0.3, 0.4, 0.55, 0.65, 0.75]
    for number, share in enumerate(times):
        play.at(share)
        play.cluster.failover(number % 3)
        play.cluster.wait_ok()
    play.facts["failovers"] = len(times)


def hurt_migrate(play, slots=200, at_once=25):
    play.at(0.1)
    moving = play.cluster.moving[:slots]
    source, target = (play.cluster.shards[i].primary for i in (0, 1))
    share = play.seconds * 0.7 / slots  # of the time, per slot
    moved = move_slots(play.cluster, moving, source, target, at_once,
                       pace=share / play.cluster.keys_per_slot)
    play.facts["slots moved"] = moved.slots
    play.facts["keys moved"] = moved.keys


def hurt_down(play):
    play.at(0.2)
    nodes = play.cluster.nodes
    with play.timed("down"):
        began = time.monotonic()
        for node in nodes:
            node.kill9()
        play.later(began, min(SEEDS_DOWN, play.seconds * 0.3))
        for node in nodes:
            node.launch()
        for node in nodes:
            node.wait_ready()
        play.cluster.wait_ok()


def hurt_cut(play):
    """Packets are lost for 3 s, both ways; then TCP delivers them."""
    relay = play.cluster.shards[0].primary.relay
    play.at(0.3)
    with play.timed("cut"):
        relay.hold_to_server = relay.hold_to_client = True
        play.load.sleep_until(play.seconds * 0.3 + 3)
        relay.hold_to_server = relay.hold_to_client = False


def hurt_refuse(play):
    """Connections are reset, and new ones refused for 3 s."""
    relay = play.cluster.shards[0].primary.relay
    play.at(0.3)
    with play.timed("cut"):
        relay.refuse(True)
        relay.cut_all(RST)
        play.load.sleep_until(play.seconds * 0.3 + 3)
        relay.refuse(False)


def hurt_stop(play):
    play.at(0.25)
    old = play.cluster.shards[0].current_primary()
    with play.timed("failover") as began:
        old.stop_running()
        play.cluster.wait_promoted(0, old)
    play.later(began, min(KILLED, play.seconds * 0.5))
    old.go_on()


def hurt_resize(play, slots=30):
    """A node is added, gets slots of each of the others, and goes again."""
    play.at(0.1)
    cluster = play.cluster
    old = [shard.primary for shard in cluster.shards]
    new = cluster.add_node()
    play.journals.append([])
    play.keep_journal(-1, new)
    moving = [[slot for slot in cluster.moving if cluster.owner_was(slot, n)]
              [:slots] for n in old]
    keys = 0
    for node, batch in zip(old, moving):
        keys += move_slots(cluster, batch, node, new, at_once=10).keys
    play.at(0.6)
    for node, batch in zip(old, moving):
        keys += move_slots(cluster, batch, new, node, at_once=10).keys
    play.facts["keys moved"] = keys
    cluster.remove_node(new)


# -- and to a sentinel set

def hurt_sentinel_kill(play):
    play.at(0.25)
    old = play.sentinels.primary()
    with play.timed("failover") as began:
        old.kill9()
        with play.timed("promoted"):
            play.sentinels.wait_promoted(old)
        play.sentinels.wait_announced(old)
    play.later(began, min(KILLED, play.seconds * 0.5))
    old.restart()


def hurt_sentinel_failover(play):
    play.at(0.3)
    with play.timed("failover"):
        play.sentinels.failover()


@dataclass
class Scenario:
    hurt: object
    # "all", "three" (30 slots of each node) or "first" (200 of the first)
    keys: str = "all"
    pairs: bool = False
    relayed: bool = False
    # May an INCR end as unknown? Only where a connection is lost with it.
    unknown: bool = False
    # Is the worst stall bounded by the failover?
    bounded: bool = False
    sets: tuple = ()


CLUSTER = {
    "cluster-kill": Scenario(hurt_kill, unknown=True, bounded=True),
    "cluster-failover": Scenario(hurt_failover, pairs=True),
    "cluster-migrate": Scenario(hurt_migrate, keys="first", pairs=True),
    "cluster-down": Scenario(hurt_down, unknown=True),
    "cluster-cut": Scenario(hurt_cut, relayed=True),
    "cluster-refuse": Scenario(hurt_refuse, relayed=True, unknown=True),
    "cluster-stop": Scenario(hurt_stop, unknown=True),
    "cluster-resize": Scenario(hurt_resize, keys="three", pairs=True),
}
SENTINEL = {
    "sentinel-kill": Scenario(hurt_sentinel_kill, unknown=True, bounded=True),
    "sentinel-failover": Scenario(hurt_sentinel_failover, unknown=True),
}
SCENARIOS = {**CLUSTER, **SENTINEL}


# -- playing

def play(name, folder, make_proxy, seconds, clients=20, rate=2000, slots=200):
    """Play one scenario with servers of its own. make_proxy(url, sets) gives
    what the clients connect to, or None: then they connect directly with a
    client that knows clusters (or sentinels). Returns an Outcome."""
    scenario = SCENARIOS[name]
    if name in CLUSTER:
        servers = Cluster(os.path.join(folder, "cluster"),
                          relayed=scenario.relayed)
    else:
        servers = SentinelSet(os.path.join(folder, "sentinels"))
    with servers:
        return _play(name, scenario, servers, make_proxy, seconds, clients,
                     rate, slots)


def _play(name, scenario, servers, make_proxy, seconds, clients, rate, slots):
    of_cluster = name in CLUSTER
    now = Play(name, seconds, **{"cluster" if of_cluster else "sentinels":
                                 servers})
    mix = _mix(scenario, servers, slots, clients) if of_cluster \
        else cl.SpreadMix(pairs=scenario.pairs)
    groups = [shard.nodes for shard in servers.shards] if of_cluster \
        else [servers.members]
    for number, group in enumerate(groups):
        now.journals.append([])
        for server in group:
            now.keep_journal(number, server)
    proxy = make_proxy(servers.url, scenario.sets)
    direct = proxy is None
    now.load = Load(None if direct else proxy.port, seconds, clients, rate,
                    mix=mix, connect=_connector(servers) if direct else None,
                    client_errors=CLIENT_ERRORS if direct else ())
    now.load.start()
    scenario.hurt(now)
    result = now.load.join()
    truth, finals = _truth(now, mix, result)
    for group in now.journals:
        for _, journal in group:
            journal.close()
    outcome = Outcome(name, direct, result, truth, finals, now.facts)
    outcome.violations = cl.judge(result, truth, finals)
    if not direct and proxy.running():
        outcome.redirects = redirects(proxy)
    elif not direct:
        outcome.violations.append("redial ended: ..." + proxy.log()[-2000:])
    return outcome


def _mix(scenario, cluster, slots, clients):
    """The keys of the load, and for what moves the slots which they are."""
    owners = cluster.nodes[0].owners()
    of_primary = [[slot for slot, owner in sorted(owners.items())
                   if owner == shard.primary.id] for shard in cluster.shards]
    cluster.owner_was = lambda slot, node: owners[slot] == node.id
    if scenario.keys == "all":
        return cl.SpreadMix(pairs=scenario.pairs)
    if scenario.keys == "first":
        cluster.moving = of_primary[0][:slots]
    else:
        share = min(30, slots // 3)
        cluster.moving = [slot for part in of_primary
                          for slot in part[:share]]
    # A register, a counter and a pair for each client and turn.
    cluster.keys_per_slot = max(1, clients * cl.PER_CLIENT
                                / len(cluster.moving)) * 4
    return cl.SpreadMix(cluster.moving, pairs=scenario.pairs)


def _connector(servers):
    """What an app without redial would use, with its defaults."""
    logging.disable(logging.CRITICAL)  # it logs each error with its stack
    if isinstance(servers, Cluster):
        nodes = [ClusterNode(*seed) for seed in servers.seeds]
        return lambda: RedisCluster(startup_nodes=list(nodes),
                                    decode_responses=True, socket_timeout=5)
    addresses = [(HOST, s.port) for s in servers.sentinels]
    return lambda: Sentinel(addresses, socket_timeout=5).master_for(
        GROUP, decode_responses=True)


def _truth(now, mix, result):
    """What the servers executed, lost, and have now."""
    if now.cluster:
        now.cluster.wait_ok()
        final_of = [shard.current_primary().port if shard.primary.running()
                    or shard.replicas else shard.primary.port
                    for shard in now.cluster.shards]
        call_key = cl.owner_reader(now.cluster)
    else:
        primary = now.sentinels.primary()
        final_of = [primary.port]
        call_key = primary.connect().call
    truth = cl.Truth([], [])
    for port, group in zip(final_of, now.journals):
        final = next(journal for server, journal in group
                     if server.port == port)
        others = [journal.writes(mix.run) for _, journal in group
                  if journal is not final]
        truth += cl.Truth.of_shard(final.writes(mix.run), others)
    return truth, cl.read_finals(call_key, result.history)


def redirects(proxy):
    """{kind: count}: what redial has answered inside of itself."""
    found = {}
    for name, value in proxy.metrics().items():
        match = re.fullmatch("redial_redirects_(.*)_total", name)
        if match:
            found[match[1]] = int(value)
    return found


# -- judging and showing

@dataclass
class Outcome:
    name: str
    direct: bool
    result: object
    truth: object
    finals: dict
    facts: dict
    violations: list = field(default_factory=list)
    redirects: dict = field(default_factory=dict)

    def failover_ms(self):
        return self.facts.get("failover", 0) * 1000

    def stall_ms(self):
        return self.result.worst_stall * 1000

    def complaints(self, stall_over=300, least_ask=1000, least_tryagain=50):
        """What the clients must not have seen, in words. stall_over: how
        many ms a request may wait longer than the failover took. least_...:
        how many such answers a migration must have met to prove anything."""
        scenario, result = SCENARIOS[self.name], self.result
        bad = []
        if result.drops:
            bad.append(f"{result.drops} client connections dropped")
        for command in ("SET", "GET", "MSET", "MGET"):
            if result.error_count(command):
                bad.append(f"{result.error_count(command)} errors on "
                           f"{command}: {result.error_kinds(command)}")
        allowed = {"UNKNOWNOUTCOME"} if scenario.unknown else set()
        for kind in sorted(result.error_kinds("INCR") - allowed):
            bad.append(f"INCR answered {kind}")
        bad += [f"client {number} saw {n} errors on INCR, at most 1 was in "
                f"flight" for (number, command), n
                in sorted(result.errors_of_proc.items())
                if command == "INCR" and n > 1]
        if scenario.bounded and \
                self.stall_ms() > self.failover_ms() + stall_over:
            bad.append(f"stalled {self.stall_ms():.0f} ms, the failover took "
                       f"{self.failover_ms():.0f} ms")
        # One who asks for a failover loses nothing: the old primary must be
        # left before it is replaced. A sentinel gives 100 ms for that.
        lost = cl.lost_acknowledged(result, self.truth)
        if "failover" in self.name and lost > 20:
            bad.append(f"{lost} acknowledged writes went to the old primary")
        if self.name == "cluster-migrate" and not self.direct:
            bad += [f"only {self.redirects.get(kind, 0)} {kind}"
                    for kind, least in (("ask", least_ask),
                                        ("tryagain", least_tryagain))
                    if self.redirects.get(kind, 0) < least]
        return bad

    def rows(self):
        ok, unknown, executed, lost, final = cl.counter_sums(
            self.result, self.truth, self.finals)
        result = self.result
        target = "a client of its own" if self.direct else "redial"
        yield "scenario", f"{self.name} through {target}"
        yield "requests", f"{result.requests} in {result.seconds:.1f} s"
        yield "errors", sum(result.errors.values())
        for (command, kind), n in sorted(result.errors.items()):
            yield f"  {command}", f"{n} × {kind}"
        yield "dropped connections", result.drops
        yield "worst stall", (f"{self.stall_ms():.0f} ms "
                              f"({result.worst_stall_command})")
        for what, value in self.facts.items():
            yield what, (f"{value * 1000:.0f} ms" if isinstance(value, float)
                         else value)
        for kind, n in sorted(self.redirects.items()):
            yield f"  {kind}", n
        yield "INCR acknowledged", ok
        yield "INCR unknown", unknown
        yield "INCR executed", f"{executed} (allowed {ok} to {ok + unknown})"
        yield "duplicate INCR", max(0, executed - ok - unknown)
        yield "counters, sum", f"{final} ({lost} lost by the failover)"
        yield "lost by the failover", (
            f"{cl.lost_acknowledged(result, self.truth)} acknowledged writes")
        yield "violations", len(self.violations)

    def print_table(self):
        for label, value in self.rows():
            print(f"{label:24}{value}")
        for line in self.violations[:20]:
            print(f"  ! {line}")

