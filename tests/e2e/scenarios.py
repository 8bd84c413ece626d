#!/usr/bin/python3
"""The scenarios redial was made for, played with real processes.

    python3 tests/e2e/scenarios.py SCENARIO|all [--seconds 20] [--direct]

20 redis-py clients without any retry send 2,000 requests/s of SET, GET and
INCR through redial, or directly with --direct, while redis-server is hurt.
Prints what the clients saw; the exit code is 0 when nothing went wrong.

kill                  kill -9 at 30 % of the time, restart 1 s later, AOF on
stop                  SIGSTOP at 30 %, SIGCONT 2 s later
stop-attempt-timeout  the same with attempt_timeout = 500ms
late                  the server is down at the start and comes 2 s later
clientkill            CLIENT KILL TYPE normal, 150 times, every 20 ms

A cluster of 3 primaries with a replica each; --direct uses redis-py's
RedisCluster:

cluster-kill          kill -9 of a primary at 25 %, restart 6 s later
cluster-failover      CLUSTER FAILOVER, six times
cluster-migrate       200 slots move key by key, with the keys in use
cluster-down          kill -9 of all nodes, restart 5 s later
cluster-cut           packets to and from a primary get lost for 3 s
cluster-refuse        its connections are reset and refused for 3 s
cluster-stop          SIGSTOP of a primary, SIGCONT 6 s later
cluster-resize        a node is added, gets 90 slots, gives them back, goes
cluster-scan          100,000 keys; SCAN must return each, also when the node
                      it is in is killed (no load)

A primary with 2 replicas and 3 sentinels; --direct uses redis-py's Sentinel:

sentinel-kill         kill -9 of the primary at 25 %, restart 6 s later
sentinel-failover     SENTINEL FAILOVER

What lives in a connection (--clients and --rate do not count here):

cas-kill              50 clients WATCH, GET, MULTI, SET or INCR, EXEC; kill -9
                      and restart every 3 s
pubsub-kill           20 subscribers, the same
blpop-kill            50 consumers in BLPOP and 10,000 RPUSHed items, the same
cas-stop              SIGSTOP for 2 s, every 4 s; so pubsub-stop, blpop-stop
cas-stop-timeout      the same with attempt_timeout = 500ms; so
                      pubsub-stop-timeout, blpop-stop-timeout
sentinel-cas-kill     a primary with 2 replicas and 3 sentinels, the primary is
                      killed every 8 s; so sentinel-pubsub-kill,
                      sentinel-blpop-kill
cluster-cas-kill      3 + 3 nodes, a primary is killed every 8 s and comes back
                      as a replica; so cluster-pubsub-kill, cluster-blpop-kill
cluster-cas-stop      SIGSTOP of a primary until its replica has taken over,
                      every 8 s; so cluster-pubsub-stop, cluster-blpop-stop
cluster-cas-failover  CLUSTER FAILOVER, every 4 s; so cluster-pubsub-failover,
                      cluster-blpop-failover
cluster-cas-migrate   the slots in use move on and on; so
                      cluster-pubsub-migrate, cluster-blpop-migrate
"""

import argparse
import os
import shutil
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import cluster_scan  # noqa: E402
import cluster_scenarios  # noqa: E402
import load as loads  # noqa: E402
import survival  # noqa: E402
from servers import Direct, Redial, RedisServer  # noqa: E402


def hurt_kill(load, redis, seconds):
    load.sleep_until(seconds * 0.3)
    redis.kill9()
    load.sleep_until(seconds * 0.3 + 1)
    redis.restart()


def hurt_stop(load, redis, seconds):
    load.sleep_until(seconds * 0.3)
    redis.stop_running()
    load.sleep_until(seconds * 0.3 + 2)
    redis.go_on()


def hurt_late(load, redis, seconds):
    load.sleep_until(min(2, seconds * 0.3))
    redis.start()


def hurt_clientkill(load, redis, seconds, times=150):
    load.sleep_until(seconds * 0.2)
    with redis.connect() as c:
        for i in range(times):
            c.call("CLIENT", "KILL", "TYPE", "normal")
            load.sleep_until(seconds * 0.2 + 0.02 * (i + 1))


SCENARIOS = {
    "kill": (hurt_kill, []),
    "stop": (hurt_stop, []),
    "stop-attempt-timeout": (hurt_stop, ["upstream.attempt_timeout=500ms"]),
    "late": (hurt_late, []),
    "clientkill": (hurt_clientkill, []),
}


def play(name, redis, make_proxy, seconds, clients=20, rate=2000):
    """Play one scenario. make_proxy(sets) gives what clients connect to.
    Returns (result, violations, (acknowledged, final, unknown))."""
    hurt, sets = SCENARIOS[name]
    proxy = make_proxy(sets)
    load = loads.Load(proxy.port, seconds, clients, rate).start()
    hurt(load, redis, seconds)
    result = load.join()
    bad = loads.judge(result, redis)
    return result, bad, loads.counter_bounds(result, redis)


def complaints(name, result):
    """What the clients must not have seen, in words."""
    bad = []
    if result.drops:
        bad.append(f"{result.drops} client connections dropped")
    for command in ("SET", "GET"):
        if result.error_count(command):
            bad.append(f"{result.error_count(command)} errors on {command}")
    allowed = set() if name in ("stop", "late") else {"UNKNOWNOUTCOME"}
    for kind in result.error_kinds("INCR") - allowed:
        bad.append(f"INCR answered {kind}")
    if name in ("kill", "stop-attempt-timeout"):
        bad += [f"client {number} saw {n} errors on INCR, at most 1 was in "
                f"flight" for (number, command), n
                in sorted(result.errors_of_proc.items())
                if command == "INCR" and n > 1]
    return bad


def print_table(name, target, result, bad, bounds):
    ok, final, unknown = bounds
    duplicates = max(0, final - ok - unknown)
    rows = [
        ("scenario", f"{name} through {target}"),
        ("requests", f"{result.requests} in {result.seconds:.1f} s"),
        ("errors", sum(result.errors.values())),
    ]
    rows += [(f"  {command}", f"{n} × {kind}")
             for (command, kind), n in sorted(result.errors.items())]
    rows += [
        ("dropped connections", result.drops),
        ("worst stall", f"{result.worst_stall * 1000:.0f} ms "
                        f"({result.worst_stall_command})"),
        ("INCR acknowledged", ok),
        ("INCR unknown", unknown),
        ("counters, sum", f"{final} (allowed {ok} to {ok + unknown})"),
        ("duplicate INCR", duplicates),
        ("violations", len(bad)),
    ]
    for label, value in rows:
        print(f"{label:24}{value}")
    for line in bad[:20]:
        print(f"  ! {line}")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("scenario", metavar="SCENARIO",
                        choices=[*ALL, "all"])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--rate", type=float, default=2000)
    parser.add_argument("--direct", action="store_true",
                        help="without redial, for comparison")
    parser.add_argument("--keep", action="store_true",
                        help="keep the folder with data and logs")
    options = parser.parse_args()
    names = ALL if options.scenario == "all" else [options.scenario]
    return max(run(name, options) for name in names)


def run(name, options):
    if name in survival.SCENARIOS and options.direct \
            and name.startswith(("cluster-", "sentinel-")):
        sys.exit(f"{name}: its clients know of one server only")
    if name not in SCENARIOS:
        return run_other(name, options)
    folder = tempfile.mkdtemp(prefix="redial-e2e-")
    redis = RedisServer(os.path.join(folder, "redis"), aof=True,
                        options=["--aof-use-rdb-preamble", "no"])
    proxies = []

    def make_proxy(sets):
        if options.direct:
            proxies.append(Direct(redis))
        else:
            proxies.append(Redial(os.path.join(folder, "redial"), redis.url,
                                  sets=sets).start())
        return proxies[-1]
    try:
        if name != "late":
            redis.start()
        result, bad, bounds = play(name, redis, make_proxy, options.seconds,
                                   options.clients, options.rate)
        bad += complaints(name, result)
        if not options.direct:
            bad += proxies[0].finish()
        print_table(name, "a direct connection" if options.direct
                    else "redial", result, bad, bounds)
        print("verdict                 " + ("FAILED" if bad else "passed"))
        print()
        return 1 if bad else 0
    finally:
        if proxies and not options.direct and proxies[0].running():
            proxies[0].kill9()
        if redis.running():
            redis.kill9()
        if options.keep:
            print(f"kept {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def run_other(name, options):
    folder = tempfile.mkdtemp(prefix="redial-e2e-")
    proxies = []

    def make_proxy(url, sets=()):
        if options.direct:
            return None
        proxies.append(Redial(os.path.join(folder, "redial"), url,
                              sets=sets).start())
        return proxies[-1]
    try:
        if name == "cluster-scan":
            shown, bad = [], cluster_scan.play(folder, make_proxy, 100000)
        elif name in survival.SCENARIOS:
            outcome = survival.play(name, folder, make_proxy, options.seconds)
            outcome.print_table()
            shown, bad = outcome.complaints, []
        else:
            outcome = cluster_scenarios.play(
                name, folder, make_proxy, options.seconds, options.clients,
                options.rate)
            outcome.print_table()
            shown, bad = outcome.violations, outcome.complaints()
        for proxy in proxies:
            bad += proxy.finish()
        for line in bad[:20]:
            print(f"  ! {line}")
        bad += shown
        print("verdict                 " + ("FAILED" if bad else "passed"))
        print()
        return 1 if bad else 0
    finally:
        for proxy in proxies:
            if proxy.running():
                proxy.kill9()
        if options.keep:
            print(f"kept {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


ALL = [*SCENARIOS, *cluster_scenarios.SCENARIOS, "cluster-scan",
       *survival.SCENARIOS]

if __name__ == "__main__":
    started = time.monotonic()
    code = main()
    print(f"took {time.monotonic() - started:.1f} s")
    sys.exit(code)
