"""Does SCAN over a whole cluster return each key?"""

import os
import time
from collections import Counter

from cluster import Cluster, key_slot
from load import plain_client
from resp import Connection
from servers import HOST


def fill(port, count, batch=1000):
    """count keys, spread over all slots; their names."""
    names = [b"scan:%d" % i for i in range(count)]
    with Connection((HOST, port)) as c:
        for first in range(0, count, batch):
            replies = c.pipeline([("SET", name, "x")
                                  for name in names[first:first + batch]])
            assert set(replies) == {b"OK"}, replies[:3]
    return names


def scan(port, *options, between=None):
    """Every key that one full SCAN returns, and how many calls it took.
    between(calls, keys) is called after each."""
    seen, calls, cursor = Counter(), 0, b"0"
    with Connection((HOST, port)) as c:
        while True:
            reply = c.call("SCAN", cursor, *options)
            assert isinstance(reply, list), f"call {calls}: {reply}"
            cursor, keys = reply
            if between:
                between(calls, keys)
            seen.update(keys)
            calls += 1
            if cursor == b"0":
                return seen, calls
            assert int(cursor) < 1 << 64, cursor


def check(names, seen, quiet=True):
    """Violations in words. quiet: nothing changed meanwhile."""
    missing = set(names) - set(seen)
    invented = set(seen) - set(names)
    twice = sum(n > 1 for n in seen.values())
    bad = []
    if missing:
        bad.append(f"{len(missing)} keys are missing: "
                   f"{sorted(missing)[:3]}")
    if invented:
        bad.append(f"{len(invented)} keys are invented: "
                   f"{sorted(invented)[:3]}")
    if twice and quiet:
        # Redis itself returns a key twice only while a table is resized.
        bad.append(f"{twice} keys came twice while nothing changed")
    return bad


def play(folder, make_proxy, count):
    with Cluster(os.path.join(folder, "cluster")) as cluster:
        proxy = make_proxy(cluster.url, ())
        assert proxy, "cluster-scan has no direct form"
        names = fill(proxy.port, count)
        began = time.monotonic()
        seen, calls = scan(proxy.port, "COUNT", 1000)
        took = time.monotonic() - began
        bad = check(names, seen)
        client = plain_client(proxy.port)
        found = set(client.scan_iter(count=1000))
        if found != set(names):
            bad.append(f"redis-py's scan_iter found {len(found)} keys")
        if client.dbsize() != count:
            bad.append(f"DBSIZE says {client.dbsize()}")
        print(f"{'scenario':24}cluster-scan through redial")
        print(f"{'keys':24}{len(seen)} of {count}")
        print(f"{'calls':24}{calls} in {took:.2f} s")
        print(f"{'keys that came twice':24}"
              f"{sum(n > 1 for n in seen.values())}")
        bad += _scan_with_failover(cluster, proxy, names)
        print(f"{'violations':24}{len(bad)}")
        return bad


def _scan_with_failover(cluster, proxy, names):
    """A primary is killed while SCAN is within its keys. Its replica has the
    same keys under other cursors: some may come twice, none may be missing."""
    killed = []

    def between(calls, keys):
        if calls == 50:  # of about 100: within the second node
            owner = cluster.owner(key_slot(keys[0]))
            owner.kill9()
            killed.append(owner)
    seen, _ = scan(proxy.port, "COUNT", 1000, between=between)
    assert killed, "SCAN ended too early"
    print(f"{'with a failover':24}{len(seen)} of {len(names)} keys, "
          f"{sum(n > 1 for n in seen.values())} came twice")
    return [f"with a failover: {line}"
            for line in check(names, seen, quiet=False)]
