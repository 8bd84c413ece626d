"""Requests that come before redial knows the cluster wait for it, whatever
they are."""

import pytest

from wait import wait_until

pytestmark = pytest.mark.needs_redial

FIRST = {
    "GET": (("GET", "a"), None),
    "MGET": (("MGET", "a", "b", "c"), [None] * 3),
    "MSET": (("MSET", "a", "1", "b", "2"), b"OK"),
    "DBSIZE": (("DBSIZE",), 0),
    "KEYS": (("KEYS", "*"), []),
    "RANDOMKEY": (("RANDOMKEY",), None),
    "SCAN": (("SCAN", "0", "COUNT", "10"), None),
    "FLUSHALL": (("FLUSHALL",), b"OK"),
    "SCRIPT LOAD": (("SCRIPT", "LOAD", "return 1"),
                    b"e0e1f9fabfc9d4800c877a703b823ac0578ff8db"),
    "PING": (("PING",), b"PONG"),
    "BLPOP": (("BLPOP", "a", "0.01"), None),
    "MULTI": (("MULTI",), b"OK"),
    "SUBSCRIBE": (("SUBSCRIBE", "c"), [b"subscribe", b"c", 1]),
    "CLUSTER KEYSLOT": (("CLUSTER", "KEYSLOT", "123456789"), 0x31C3),
}


@pytest.mark.parametrize("name", FIRST)
def test_the_first_request_waits_for_the_topology(cluster, make_redial, name):
    command, expected = FIRST[name]
    for node in cluster.nodes:
        node.stop_running()
    try:
        redial = make_redial(cluster.url)
        with redial.connect() as c:
            c.send(*command)
            # redial has it, and can know of no node yet.
            wait_until(lambda: redial.metric("requests") >= 1,
                       "the request to arrive")
            for node in cluster.nodes:
                node.go_on()
            reply = c.read()
    finally:
        for node in cluster.nodes:
            node.go_on()
    assert not hasattr(reply, "code"), reply
    if name != "SCAN":
        assert reply == expected
