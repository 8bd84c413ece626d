"""A client that has set something on its own connection still reaches all
nodes of a cluster."""

import pytest

from cluster import tag_of_slot
from wait import wait_until

pytestmark = pytest.mark.needs_redial
KEYS = [f"k{{{tag_of_slot(slot)}}}" for slot in (100, 6000, 12000)]


@pytest.mark.parametrize("words", [
    ("CLIENT", "NO-EVICT", "off"),
    ("CLIENT", "MAINT_NOTIFICATIONS", "ON"),  # node-redis says so
    ("CLIENT", "NOSUCH"),
])
@pytest.mark.parametrize("resp", ["2", "3"])
def test_blocking_commands_and_blocks_reach_all_nodes(
        make_redial, cluster, words, resp):
    redial = make_redial(cluster.url, sets=["upstream.deadline=1s"])
    with redial.connect() as c:
        c.call("HELLO", resp)
        c.call(*words)
        for key in KEYS:
            assert c.call("BLPOP", key, "0.01") is None
            assert c.call("SET", key, "1") == b"OK"
            assert c.pipeline([("MULTI",), ("INCR", key), ("EXEC",)]) == \
                [b"OK", b"QUEUED", [2]]
            assert c.call("WATCH", key) == b"OK"
            assert c.call("UNWATCH") == b"OK"
            assert c.call("DEL", key) == 1


@pytest.mark.parametrize("options", [(), ("BCAST",)])
def test_tracking_is_refused_or_covers_all_nodes(cluster_redial, options):
    """A client that keeps what it has read must hear of each change: else it
    shows old values for ever."""
    with cluster_redial.connect(2) as c, cluster_redial.connect() as other:
        c.call("HELLO", "3")
        other.pipeline([("SET", key, "0") for key in KEYS])
        reply = c.call("CLIENT", "TRACKING", "ON", *options)
        if hasattr(reply, "code"):
            return
        assert [c.call("GET", key) for key in KEYS] == [b"0"] * 3
        other.pipeline([("SET", key, "1") for key in KEYS])
        heard = [c.read()[1][0].decode() for _ in KEYS]
        assert sorted(heard) == sorted(KEYS)


def test_wait_goes_where_the_last_write_went(cluster_redial):
    with cluster_redial.connect() as c:
        for key in KEYS:
            assert c.call("SET", key, "1") == b"OK"
            assert c.call("GET", KEYS[0]) is not None
            assert c.call("WAIT", "1", "5000") == 1
        assert c.call("WAIT", "2", "20") == 1, "each has one replica"


def test_new_entries_are_read_at_each_node(cluster_redial, cluster):
    def is_blocked():
        return any(b"blocked_clients:1\r" in node.ask("INFO", "clients")
                   for node in cluster.primaries())
    with cluster_redial.connect() as c, cluster_redial.connect() as other:
        for key in KEYS:
            assert other.call("XADD", key, "5-1", "f", "old") == b"5-1"
            c.send("XREAD", "BLOCK", "0", "STREAMS", key, "$")
            wait_until(is_blocked, "the XREAD to block")
            assert other.call("XADD", key, "5-2", "f", "new") == b"5-2"
            assert c.read() == [[key.encode(), [[b"5-2", [b"f", b"new"]]]]]
            assert other.call("DEL", key) == 1
