"""A client that has set something on its own connection still reaches all
nodes of a cluster."""

import pytest

from cluster import tag_of_slot

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
