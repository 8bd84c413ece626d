"""The fault relay does what it says; without that, a passed fault test means
nothing."""

import time

import pytest

from relay import FIN, RST, SILENCE, TO_CLIENT, TO_SERVER
from resp import Connection, ConnectionClosed, encode
from wait import wait_until


@pytest.fixture
def relay(redis, make_relay):
    return make_relay(redis.port)


def test_passes_bytes_unchanged(relay):
    with Connection(relay.address) as c:
        value = bytes(range(256)) * 5000
        assert c.call("SET", "k", value) == b"OK"
        assert c.call("GET", "k") == value


@pytest.mark.parametrize("size", [1, 3])
def test_slices(relay, size):
    relay.slice = size
    with Connection(relay.address) as c:
        assert c.call("ECHO", "x" * 1000) == b"x" * 1000


def test_latency_and_join(relay):
    relay.latency = 0.1
    with Connection(relay.address) as c:
        before = time.monotonic()
        assert c.call("PING") == b"PONG"
        assert time.monotonic() - before >= 0.2
        relay.latency, relay.join = 0.0, 0.05
        for i in range(5):
            c.send("ECHO", str(i))
        c.fill()
        assert c.buf.count(b"$1") == 5, "all came in one piece"


@pytest.mark.parametrize("how", [FIN, RST])
@pytest.mark.parametrize("n", [0, 1, 5, 6])
def test_cut_inside_a_reply(relay, how, n):
    with Connection(relay.address) as c:
        assert c.call("PING") == b"PONG"
        cut = relay.cut(TO_CLIENT, n, how)
        c.send("PING")
        with pytest.raises(ConnectionClosed) as closed:
            c.read_bytes(7)
        assert cut.fired.wait(5)
        if how == FIN:
            assert closed.value.rest == b"+PONG\r\n"[:n]


def test_cut_inside_a_request_keeps_it_from_the_server(relay, redis):
    for n in range(len(encode("INCR", "n"))):
        with Connection(relay.address) as c:
            assert c.call("PING") == b"PONG"
            relay.cut(TO_SERVER, n, RST)
            c.send("INCR", "n")
            with pytest.raises(ConnectionClosed):
                c.read()
    assert redis.call("GET", "n") is None


def test_cut_by_silence_and_holding_one_way(relay, redis):
    with Connection(relay.address, 0.3) as c:
        assert c.call("PING") == b"PONG"
        relay.cut(TO_CLIENT, 0, SILENCE)
        c.send("INCR", "n")
        with pytest.raises(TimeoutError):
            c.read()
    assert redis.call("GET", "n") == b"1"
    with Connection(relay.address, 5) as c:
        relay.hold_to_client = True
        c.send("INCR", "n")
        wait_until(lambda: redis.call("GET", "n") == b"2", "the INCR")
        relay.hold_to_client = False
        assert c.read() == 2
        relay.hold_to_server = True
        c.send("INCR", "n")
        c.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            c.read()
        c.socket.settimeout(5)
        assert redis.call("GET", "n") == b"2"
        relay.hold_to_server = False
        assert c.read() == 3


def test_refuse_and_listen_again(relay):
    relay.refuse(True)
    with pytest.raises(ConnectionRefusedError):
        Connection(relay.address)
    relay.refuse(False)
    with Connection(relay.address) as c:
        assert c.call("PING") == b"PONG"
        relay.cut_all(RST)
        with pytest.raises((ConnectionClosed, OSError)):
            c.call("PING")


def test_what_is_held_pushes_back(relay):
    with Connection(relay.address) as c:
        assert c.call("PING") == b"PONG"
        relay.hold_to_server = True
        c.socket.settimeout(1)
        with pytest.raises(TimeoutError):
            c.send_raw(b"x" * (64 << 20))
        assert relay.received[TO_SERVER] < 2 << 20
