"""A plain client and a primary that sentinels watch, while nothing fails.
(Faults: test_cluster_faults.py.)"""

import pytest

from load import plain_client
from sentinels import SentinelSet
from wait import wait_until

pytestmark = pytest.mark.needs_redial


@pytest.fixture(scope="module")
def sentinel_set(tmp_path_factory):
    with SentinelSet(str(tmp_path_factory.mktemp("s"))) as servers:
        yield servers


@pytest.fixture
def sentinel_redial(make_redial, sentinel_set):
    sentinel_set.primary().ask("FLUSHALL")
    return make_redial(sentinel_set.url)


def test_all_goes_to_the_primary(sentinel_set, sentinel_redial):
    client = plain_client(sentinel_redial.port, decode_responses=True)
    for i in range(100):
        assert client.set(f"k:{i}", i)
        assert client.get(f"k:{i}") == str(i)
    primary = sentinel_set.primary()
    assert primary.ask("DBSIZE") == client.dbsize() == 100
    assert client.execute_command("ROLE")[0] == "master"
    for member in sentinel_set.members:
        lanes = [row for row in member.clients()
                 if row["name"].startswith("redial") and row["flags"] == "N"
                 and row["cmd"] in ("get", "set", "dbsize", "role")]
        assert bool(lanes) == (member is primary)


def test_what_needs_one_server_works(sentinel_redial):
    """It is one server: nothing of a cluster's limits holds."""
    with sentinel_redial.connect() as c:
        assert c.call("MSETNX", "a", "1", "b", "2") == 1
        assert c.call("RENAME", "a", "c") == b"OK"
        assert c.call("SELECT", "1") == b"OK"
        assert c.call("DBSIZE") == 0
        assert c.call("SELECT", "0") == b"OK"
        assert c.pipeline([("MULTI",), ("GET", "b"), ("GET", "c"),
                           ("EXEC",)])[3] == [b"2", b"1"]


def test_a_sentinel_that_is_down_is_passed_over(sentinel_set, make_redial):
    down = sentinel_set.sentinels[0]
    down.kill9()
    try:
        redial = make_redial(sentinel_set.url)
        with redial.connect() as c:
            assert c.call("SET", "a", "1") == b"OK"
    finally:
        down.launch()
        wait_until(lambda: down.primary_port() ==
                   sentinel_set.primary().port, "the sentinel to be back")


def test_a_group_without_a_name_is_told(sentinel_set, make_redial):
    url = sentinel_set.url.replace("/mymaster", "/other")
    redial = make_redial(url, sets=["upstream.deadline=1s"])
    with redial.connect() as c:
        reply = c.call("GET", "a")
        assert reply.code == "NOTAPPLIED" and "master_name" in reply, reply
