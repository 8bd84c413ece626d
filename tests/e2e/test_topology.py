"""The /topology page of the admin port."""

import json

import pytest

from cluster import SLOTS
from wait import wait_until

pytestmark = pytest.mark.needs_redial


def page(redial):
    status, body = redial.http("/topology")
    assert status == 200, body
    return json.loads(body)


def objects(value):
    """All objects within a JSON value."""
    if isinstance(value, dict):
        yield value
    for part in value.values() if isinstance(value, dict) else \
            value if isinstance(value, list) else ():
        yield from objects(part)


def nodes_by_port(redial):
    """{port: node} of what the page shows of servers."""
    found = {}
    for one in objects(page(redial)):
        port = str(one.get("address", "")).rpartition(":")[2]
        if port.isdigit() and "role" in one:
            found[int(port)] = one
    return found


def slots_of(node):
    """How many slots a node has by the page: "0-5461 5463", or pairs."""
    total = 0
    for part in node["slots"].replace(",", " ").split() \
            if isinstance(node["slots"], str) else node["slots"]:
        first, last = part if isinstance(part, list) else \
            (str(part).split("-") * 2)[:2] if "-" not in str(part) \
            else str(part).split("-")
        total += int(last) - int(first) + 1
    return total


def test_the_page_shows_the_nodes_of_a_cluster(cluster, cluster_redial):
    with cluster_redial.connect() as c:
        c.pipeline([("SET", f"k:{i}", "1") for i in range(50)])
    ports = {node.port for node in cluster.nodes}
    wait_until(lambda: set(nodes_by_port(cluster_redial)) == ports,
               "all nodes to be shown")
    nodes = nodes_by_port(cluster_redial)
    primaries = {node.port for node in cluster.primaries()}
    assert {port for port, node in nodes.items()
            if node["role"] in ("primary", "master")} == primaries
    assert sum(slots_of(nodes[port]) for port in primaries) == SLOTS


def test_the_page_shows_a_failover(cluster, cluster_redial):
    with cluster_redial.connect() as c:
        assert c.call("PING") == b"PONG"
        new = cluster.failover(0)

        def shown():
            c.pipeline([("SET", f"k:{i}", "1") for i in range(50)])
            return nodes_by_port(cluster_redial)[new.port]["role"] \
                in ("primary", "master")
        wait_until(shown, "the new primary to be shown")
        events = [e for e in cluster_redial.events()
                  if "topology" in json.dumps(e)]
        assert events, "no event tells of the change"
