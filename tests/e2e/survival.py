"""What lives in a connection, while servers die and slots move.

    cas      compare-and-set with WATCH, MULTI and EXEC
    pubsub   subscribers
    blpop    blocked consumers

scenarios.py plays them by hand, test_survival.py shortened.
"""

from dataclasses import dataclass

from survival_blpop import BlpopLoad
from survival_cas import CasLoad
from survival_pubsub import PubsubLoad
from survival_worlds import (Alone, Clock, ClusterFailover, ClusterKill,
                             ClusterMigrate, ClusterStop, SentinelKill, Stop,
                             StopTimeout)

LOADS = {"cas": CasLoad, "pubsub": PubsubLoad, "blpop": BlpopLoad}
WORLDS = {
    "kill": Alone,
    "stop": Stop,
    "stop-timeout": StopTimeout,
    "sentinel-kill": SentinelKill,
    "cluster-kill": ClusterKill,
    "cluster-stop": ClusterStop,
    "cluster-failover": ClusterFailover,
    "cluster-migrate": ClusterMigrate,
}


def _name(world, load):
    """cluster-kill and cas: cluster-cas-kill."""
    before, _, fault = world.rpartition("-") \
        if world.startswith(("sentinel-", "cluster-")) else ("", "", world)
    return f"{before}-{load}-{fault}".strip("-")


SCENARIOS = {_name(world, load): (WORLDS[world], LOADS[load])
             for world in WORLDS for load in LOADS}


@dataclass
class Outcome:
    name: str
    target: str
    rows: list
    complaints: list

    def print_table(self):
        print(f"{'scenario':28}{self.name} through {self.target}")
        for label, value in self.rows:
            if isinstance(value, float):
                value = f"{value * 1000:.0f} ms"
            print(f"{label:28}{value}")
        for line in self.complaints[:20]:
            print(f"  ! {line}")
        if len(self.complaints) > 20:
            print(f"  ! and {len(self.complaints) - 20} more")


def play(name, folder, make_proxy, seconds):
    """Play one scenario. make_proxy(url, sets=) gives what the clients connect
    to, or None: then they connect to the server itself. Returns an Outcome."""
    make_world, make_load = SCENARIOS[name]
    with make_world(folder) as world:
        proxy = make_proxy(world.url, sets=world.sets)
        port = world.redis.port if proxy is None else proxy.port
        load = make_load(world, port)
        clock = Clock(seconds)
        load.start(clock)
        world.hurt(clock)
        clock.sleep_until(seconds)
        load.stop()
        complaints = [*world.complaints, *load.judge()]
        rows = [("world", world.name), *world.facts.items(), *load.rows()]
        if proxy is not None and not proxy.running():
            complaints.append("redial ended: ..." + proxy.log()[-2000:])
        elif proxy is not None:
            rows += load.metrics(proxy)
    rows.append(("complaints", len(complaints)))
    return Outcome(name, "a direct connection" if proxy is None else "redial",
                   rows, complaints)
