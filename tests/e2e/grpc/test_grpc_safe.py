"""Attempts that failed without having run, and those that may have
(grpc.md safe-*)."""

import threading

import pytest

from calls import Load
from peer import (INITIAL_WINDOW_SIZE, MAX_CONCURRENT_STREAMS, NO_ERROR,
                  REFUSED_STREAM, GoAwayFrame, message)
from policies import SAFE, blanket, policy
from upstream import (OK_HEADERS, drop, echo as echo_script, refuse, silent,
                      trailers, trailers_only)
from wait import wait_until

ATTEMPTS = "grpc-previous-rpc-attempts"
HUGE = (1 << 31) - 1


def test_safe_01_connection_lost_with_headers_unsent(make_up, front, until):
    """The first call fills the kernel's buffers of a connection nobody
    reads; the second can't have left when the connection dies."""
    up = make_up(silent, settings={INITIAL_WINDOW_SIZE: HUGE})
    one = front(up, sets=["upstream.max_connections_per_endpoint=1"])
    first = one.start("/test.Svc/Big", body=b"x", end=False)
    until(lambda: up.count == 1, "the first call")
    peer = up.connections[0]
    peer.credit(HUGE - 65535)
    peer.pause_reading()
    flood = threading.Thread(target=fill, args=(first,), daemon=True)
    flood.start()
    wait_stuck(first)
    up.script = echo_script
    second = one.start("/test.Svc/Second", body=b"second")
    one.dn.ping_pong()
    peer.close(reset=True)
    assert second.wait_over().status == 0
    assert bytes(second.body) == message(b"second")
    assert up.paths().count("/test.Svc/Second") == 1
    assert dict(up.requests[-1].fields).get(ATTEMPTS) is None
    first.wait_over()
    assert first.status == 14 and "lost" in first.grpc_message
    flood.join(5)


def fill(stream):
    try:
        for _ in range(4096):
            stream.data(bytes(16384))
    except Exception:  # the call ends below us: that is the test
        pass


def wait_stuck(stream):
    """Until the client has had no credit for a while: all buffers between
    are full."""
    seen = []

    def stuck():
        seen.append(stream.window if stream.window < stream.peer.window
                    else stream.peer.window)
        return len(seen) > 30 and len(set(seen[-30:])) == 1
    wait_until(stuck, "the buffers to fill", 30)


def test_safe_04_refused_once(make_up, front):
    up = make_up([refuse, echo_script])
    stream = front(up).unary(body=b"body")
    assert stream.status == 0 and bytes(stream.body) == message(b"body")
    assert up.count == 2 and up.requests[1].get(ATTEMPTS) is None


def test_safe_04_refused_twice_without_policy(make_up, front):
    up = make_up([refuse, refuse, echo_script])
    stream = front(up).unary(body=b"x")
    assert (stream.status, stream.grpc_message) \
        == (14, f"redial: stream refused by {up.target}")
    assert up.count == 2


def test_safe_04_refused_twice_with_policy(make_up, front):
    up = make_up([refuse, refuse, echo_script])
    assert front(up, config=policy(3)).unary(body=b"x").status == 0
    assert [r.get(ATTEMPTS) for r in up.requests] == [None, None, "1"]


def test_safe_05_refused_after_a_failure(make_up, front):
    up = make_up([trailers_only(14), refuse, echo_script])
    assert front(up, config=policy(5)).unary(body=b"x").status == 0
    assert [r.get(ATTEMPTS) for r in up.requests] == [None, "1", "2"]


def test_safe_05_counts_as_attempt(make_up, front):
    up = make_up([trailers_only(14), refuse, echo_script])
    stream = front(up, config=policy(2)).unary(body=b"x")
    assert stream.status == 14 and "refused" in stream.grpc_message
    assert up.count == 2


def open_four(one, up, until):
    """Streams 1, 3, 5, 7 of one connection to the upstream."""
    streams = []
    for n in range(4):
        streams.append(one.start(f"/test.Svc/{n}", body=b"%d" % n))
        until(lambda n=n: up.count == n + 1 and up.requests[n].ended,
              f"call {n}")
    assert [r.id for r in up.requests] == [1, 3, 5, 7]
    return streams


def finish(request):
    request.headers(OK_HEADERS)
    request.data(bytes(request.body))
    request.headers(trailers(), end=True)


def check_four(streams, up):
    for n, stream in enumerate(streams):
        assert stream.wait_over().status == 0, stream
        assert bytes(stream.body) == message(b"%d" % n)
    assert all(r.get(ATTEMPTS) is None for r in up.requests)


def test_safe_06_goaway_in_the_middle(make_up, front, until):
    up = make_up(silent)
    streams = open_four(front(up), up, until)
    up.script = echo_script
    up.connections[0].goaway(3)
    until(lambda: up.count == 6, "the replays")
    for request in up.requests[:2]:
        finish(request)
    check_four(streams, up)
    assert sorted(up.paths()[4:]) == ["/test.Svc/2", "/test.Svc/3"]
    assert up.accepted == 2 and up.count == 6


def test_safe_07_goaway_in_two_steps(make_up, front, until):
    up = make_up(silent)
    streams = open_four(front(up), up, until)
    up.script = echo_script
    up.connections[0].goaway(HUGE)
    up.connections[0].ping_pong()
    assert not any(stream.over for stream in streams)
    up.connections[0].goaway(5)
    until(lambda: up.count == 5, "the replay")
    for request in up.requests[:3]:
        finish(request)
    check_four(streams, up)
    assert up.paths()[4:] == ["/test.Svc/3"]


def test_safe_08_goaway_and_fin(make_up, front, until):
    up = make_up(silent)
    stream = front(up).start(body=b"x")
    until(lambda: up.count == 1 and up.requests[0].ended, "the call")
    up.script = echo_script
    up.connections[0].send_and_close(
        GoAwayFrame(0, last_stream_id=0, error_code=NO_ERROR))
    assert stream.wait_over().status == 0
    assert up.count == 2 and up.requests[1].get(ATTEMPTS) is None


def test_safe_09_trailers_and_fin(make_up, front):
    def script(stream):
        stream.wait_over()
        peer = stream.peer
        peer.send_and_close(
            peer.header_frames(stream.id, OK_HEADERS),
            peer.header_frames(stream.id, trailers(9, "last words"), True))
    up = make_up(script)
    stream = front(up).unary(body=b"x")
    assert (stream.status, stream.grpc_message) == (9, "last words")
    assert up.count == 1


def test_safe_10_goaway_with_calls_waiting(make_up, front, until):
    up = make_up(silent, settings={MAX_CONCURRENT_STREAMS: 1})
    one = front(up, sets=["upstream.max_connections_per_endpoint=1"])
    first = one.start("/test.Svc/First", body=b"1")
    until(lambda: up.count == 1 and up.requests[0].ended, "the first call")
    rest = [one.start(f"/test.Svc/{n}", body=b"x") for n in range(3)]
    one.dn.ping_pong()
    assert up.count == 1
    up.script = echo_script
    up.connections[0].goaway(1)
    for stream in rest:
        assert stream.wait_over().status == 0
    finish(up.requests[0])
    assert first.wait_over().status == 0
    assert up.count == 4 and up.accepted == 2


KILLS = {
    # name: (settings, explicit policy, status, executions)
    "unknown-none": ([], False, 14, 1),
    "unknown-blanket": (blanket(2), False, 14, 1),
    "unknown-explicit": ([], True, 0, 2),
    "safe-blanket": (blanket(2) + SAFE, False, 0, 2),
}


@pytest.mark.parametrize("name", KILLS)
def test_safe_11_connection_lost_in_mid_call(make_up, front, name):
    sets, explicit, status, executions = KILLS[name]
    up = make_up([drop, echo_script])
    one = front(up, sets=sets, config=policy(3) if explicit else None)
    stream = one.unary(body=b"x")
    assert stream.status == status, stream
    assert up.count == executions
    if status:
        assert stream.grpc_message \
            == f"redial: connection to {up.target} lost: reset"


@pytest.mark.parametrize("name", KILLS)
def test_safe_11_real_server_killed_in_mid_call(make_server, front, until,
                                                name):
    sets, explicit, status, executions = KILLS[name]
    server = make_server()
    sets = [s.replace("/test.Svc/", "/echo.Echo/") for s in sets]
    one = front(server, sets=sets,
                config=policy(3, service="echo.Echo") if explicit else None)
    stream = one.start("/echo.Echo/Unary", ("call-id", name),
                       ("do", '{"sleep":1.5}'), body=b"x")
    until(lambda: server.executions.count(name), "the call")
    server.kill9()
    server.restart()
    assert stream.wait_over().status == status, stream
    assert server.executions.count(name) == executions


# ambiguous: (explicit unknown, blanket unknown, blanket safe) may go again
AMBIGUOUS = {"auto": (True, False, True), "policy": (True, True, True),
             "idempotent": (False, False, True),
             "never": (False, False, False)}


@pytest.mark.parametrize("ambiguous", AMBIGUOUS)
def test_safe_12_ambiguous(make_up, front, ambiguous):
    explicit, unknown, safe = AMBIGUOUS[ambiguous]
    up = make_up()
    one = front(up, config=policy(3), sets=[
        *blanket(2), f"upstream.ambiguous={ambiguous}",
        "upstream.idempotent_methods=/safe.Svc/*"])
    for service, again in (("test", explicit), ("other", unknown),
                           ("safe", safe)):
        before = up.count
        up.script = lambda stream, n=before: (
            drop if up.requests.index(stream) == n else echo_script)(stream)
        stream = one.unary(f"/{service}.Svc/Unary", body=b"x")
        assert stream.status == (0 if again else 14), (service, stream)
        assert up.count - before == (2 if again else 1), service


def test_safe_13_header_block_too_long_to_send(make_up, front):
    up = make_up()
    one = front(up, sets=["listener.max_header_list_size=1MiB"])
    fields = [("x%02d" % n, "v" * 8000) for n in range(14)]
    stream = one.unary("/test.Svc/Unary", *fields, body=b"x")
    assert stream.status == 8, stream
    assert up.count == 0
    assert one.unary(body=b"x").status == 0
    assert up.accepted <= 2, "no loop"


def test_safe_15_retries_off(make_up, front):
    up = make_up([refuse, echo_script])
    stream = front(up, config=policy(3), sets=["upstream.retries=off"]).unary(
        body=b"x")
    assert stream.status == 14 and "refused" in stream.grpc_message
    assert up.count == 1


def test_safe_15_transparent_retries_only(make_up, front):
    up = make_up([refuse, trailers_only(14), echo_script])
    one = front(up, config=policy(3), sets=["upstream.retries=transparent"])
    assert one.unary(body=b"x").status == 14
    assert up.count == 2


def test_safe_16_refused_after_held_headers(make_up, front):
    """It has been processed: what follows is an attempt of the policy."""
    def script(stream):
        stream.wait_over()
        stream.headers(OK_HEADERS)
        stream.peer.ping_pong()
        stream.rst(REFUSED_STREAM)
    up = make_up([script, echo_script])
    assert front(up, config=policy(3)).unary(body=b"x").status == 0
    assert [r.get(ATTEMPTS) for r in up.requests] == [None, "1"]


def test_safe_16_not_again_where_it_may_have_run(make_up, front):
    def script(stream):
        stream.wait_over()
        stream.headers(OK_HEADERS)
        stream.peer.ping_pong()
        stream.rst(REFUSED_STREAM)
    up = make_up([script, echo_script])
    assert front(up, sets=blanket(3)).unary(body=b"x").status == 14
    assert up.count == 1


def test_safe_17_endpoint_without_settings(make_up, front, until):
    """TCP alone is no connection: no call may be risked on it."""
    received = []

    def mute(sock):
        received.append(b"")
        at = len(received) - 1
        while True:
            data = sock.recv(65536)
            if not data:
                return
            received[at] += data
    up = make_up(on_connect=mute)
    one = front(up, sets=["upstream.connect_timeout=300ms"])
    stream = one.start(body=b"x")
    until(lambda: up.accepted >= 2, "a second try")
    assert not stream.over
    up.on_connect = None
    assert stream.wait_over().status == 0
    assert up.count == 1
    for data in received:
        assert b"/test.Svc" not in data and frames_of(data) <= {4, 6, 7, 8}


def frames_of(data):
    """The types of the frames behind a preface."""
    at, types = 24, set()
    while at + 9 <= len(data):
        types.add(data[at + 3])
        at += 9 + int.from_bytes(data[at:at + 3], "big")
    return types


def test_safe_18_malformed_response(make_up, front):
    def script(stream):
        stream.wait_over()
        stream.headers([("content-type", "application/grpc")])
        stream.wait_reset()
    up = make_up(script)
    stream = front(up).unary(body=b"x")
    assert (stream.status, stream.grpc_message) \
        == (13, f"redial: invalid response from {up.target}")
    assert up.count == 1
    up.script = echo_script


def test_safe_20_rolling_restart(make_server, front, until):
    """Each server in turn says GOAWAY, ends and is back, under load. (The
    servers are grpc-js, whose GOAWAY loses nothing: see server.js.)"""
    servers = [make_server(kind="node", start=False) for _ in range(3)]
    for server in servers:
        server.launch()
    for server in servers:
        server.wait_ready()
    one = front(*servers, sets=["upstream.lb=round_robin"])
    load = Load(f"127.0.0.1:{one.port}", 4, rate=150, options=[
        ("grpc.enable_retries", 0)]).start()
    for n, server in enumerate(servers):
        load.sleep_until(0.5 + 1.1 * n)
        assert server.end() == 0
        server.restart()
    load.join()
    assert load.errors() == {}
    assert load.twice(servers[0].executions) == {}
    assert load.lost(servers[0].executions) == []
    assert load.real_rate > 100
