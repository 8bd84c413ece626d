"""Connections to endpoints and of clients (grpc.md conn-*)."""

import shutil
import signal
import socket
import subprocess
import time

import pytest

from calls import Load
from peer import (CANCEL, ENHANCE_YOUR_CALM, MAX_CONCURRENT_STREAMS, NO_ERROR,
                  SETTINGS_TIMEOUT, PingFrame)
from policies import policy
from servers import HOST, free_port, open_files
from upstream import echo as echo_script, silent

ROUND_ROBIN = ["upstream.lb=round_robin"]
ONE = ["upstream.max_connections_per_endpoint=1"]


def finish(request):
    echo_script(request)


def test_conn_02_closed_before_settings(make_up, front, until):
    """No SETTINGS, no success: the backoff goes on growing."""
    times = []

    def close(sock):
        times.append(time.monotonic())
        sock.close()
    up = make_up(on_connect=close)
    stream = front(up).start(body=b"x")
    until(lambda: len(times) >= 4, "four connections")
    up.on_connect = None
    gaps = [b - a for a, b in zip(times, times[1:])]
    for n, gap in enumerate(gaps[:3]):
        wanted = 0.2 * 1.6 ** n
        assert wanted * 0.8 - 0.02 <= gap <= wanted * 1.2 + 0.15, gaps
    assert stream.wait_over().status == 0


@pytest.fixture
def black_hole():
    """An address whose SYNs get lost: its backlog is full."""
    listener = socket.create_server((HOST, free_port()), backlog=0)
    stuffing = []
    for _ in range(4):
        s = socket.socket()
        s.setblocking(False)
        s.connect_ex(listener.getsockname())
        stuffing.append(s)
    yield f"{HOST}:{listener.getsockname()[1]}"
    for s in [*stuffing, listener]:
        s.close()


def test_conn_03_next_address_after_250_ms(make_up, front, black_hole):
    up = make_up()
    one = front(black_hole, up)
    began = time.monotonic()
    assert one.unary(body=b"x").status == 0
    assert time.monotonic() - began < 0.6


def test_conn_04_round_robin(make_up, front, until):
    ups = [make_up() for _ in range(3)]
    one = front(*ups, sets=ROUND_ROBIN)
    until(lambda: all(up.connections for up in ups), "all connections")
    for up in ups:
        up.connections[0].wait(lambda up=up: up.connections[0].settings_acked,
                               "SETTINGS ACK")
    for n in range(300):
        assert one.unary(body=b"x").status == 0, n
    assert sorted(up.count for up in ups) == [100, 100, 100]
    ups[0].stop()
    before = [up.count for up in ups]
    for n in range(300):
        assert one.unary(body=b"x").status == 0, n
    after = [up.count - b for up, b in zip(ups, before)]
    assert after == [0, 150, 150]


def test_conn_05_least_request(make_up, front, until):
    def slow(stream):
        time.sleep(0.05)
        echo_script(stream)
    ups = [make_up(slow), make_up(), make_up()]
    one = front(*ups, sets=["upstream.lb=least_request"])
    until(lambda: all(up.connections for up in ups), "all connections")
    streams = []
    for n in range(300):
        streams.append(one.start(body=b"x"))
        time.sleep(0.003)
    for stream in streams:
        assert stream.wait_over().status == 0
    assert ups[0].count < 0.6 * min(ups[1].count, ups[2].count), \
        [up.count for up in ups]


def test_conn_07_streams_of_the_endpoint(make_up, front, until):
    up = make_up(silent, settings={MAX_CONCURRENT_STREAMS: 1})
    one = front(up)
    streams = [one.start(f"/test.Svc/{n}", body=b"x") for n in range(10)]
    until(lambda: up.count == 4, "four calls on four connections")
    one.dn.ping_pong()
    time.sleep(0.1)
    assert up.count == 4 and up.accepted == 4
    up.connections[0].change_settings({MAX_CONCURRENT_STREAMS: 4})
    until(lambda: up.count == 7, "three more on the first")
    up.script = echo_script
    for request in list(up.requests):
        finish(request)
    for stream in streams:
        assert stream.wait_over().status == 0
    assert up.count == 10 and up.accepted == 4


def test_conn_07_limit_of_zero_is_full_not_broken(make_up, front, until):
    up = make_up(settings={MAX_CONCURRENT_STREAMS: 0})
    one = front(up, sets=ONE)
    stream = one.start(body=b"x")
    until(lambda: up.accepted, "a connection")
    one.dn.ping_pong()
    time.sleep(0.2)
    assert up.count == 0 and not stream.over
    up.connections[0].change_settings({MAX_CONCURRENT_STREAMS: 5})
    assert stream.wait_over().status == 0
    assert up.accepted == 1


@pytest.mark.slow
def test_conn_08_keepalive(make_up, front, until):
    up = make_up(silent)
    one = front(up, sets=["upstream.keepalive_time=5s",
                          "upstream.keepalive_timeout=1s"])
    assert "keepalive_time" in one.redial.log(), "raised to 10s: a warning"
    stream = one.start(body=b"x")
    until(lambda: up.connections and up.connections[0].pings, "PING", 12)
    peer = up.connections[0]
    sent = peer.pings[0][0] - peer.frames[0][0]
    assert 9.5 < sent < 11, "at 10 s"
    assert not stream.over
    peer.pause_reading()
    began = time.monotonic()
    stream.wait_over(30)
    assert stream.status == 14
    assert stream.grpc_message.endswith("lost: no reply to PING in 1s")
    assert 9.5 < time.monotonic() - began < 13


@pytest.mark.slow
def test_conn_08_no_ping_without_calls(make_up, front):
    up = make_up()
    one = front(up, sets=["upstream.keepalive_time=10s"])
    assert one.unary(body=b"x").status == 0
    time.sleep(12)
    assert up.connections[0].pings == []


@pytest.mark.slow
def test_conn_09_ping_before_headers(make_up, front):
    up = make_up()
    one = front(up, sets=["upstream.keepalive_time=10s",
                          "upstream.idle_probe=off"])
    assert one.unary(body=b"x").status == 0
    time.sleep(11)
    assert one.unary(body=b"x").status == 0
    kinds = [type(frame).__name__ for _, frame in up.connections[0].frames]
    assert "PingFrame" in kinds
    second = [n for n, kind in enumerate(kinds) if kind == "HeadersFrame"][1]
    assert kinds.index("PingFrame") < second


def test_conn_10_too_many_pings(make_up, front, until):
    up = make_up(silent)
    one = front(up, sets=["upstream.keepalive_time=10s"])
    stream = one.start(body=b"x")
    until(lambda: up.count == 1, "the call")
    up.script = echo_script
    up.connections[0].goaway(1, ENHANCE_YOUR_CALM, b"too_many_pings")
    up.connections[0].close()
    stream.wait_over()
    until(lambda: "keepalive_doubled" in one.redial.log(), "the log line")


IDLE = ["upstream.idle_probe=1s", "upstream.idle_probe_timeout=200ms"]


def gone_silently(one, up):
    """The only connection is there, and nobody reads it any more."""
    assert one.unary("/test.Svc/First", body=b"x").status == 0
    up.connections[0].pause_reading()
    time.sleep(1.2)  # idle_probe


def test_conn_11_probe_before_a_call_is_risked(make_up, front):
    up = make_up()
    one = front(up, sets=IDLE)
    gone_silently(one, up)
    began = time.monotonic()
    assert one.unary(body=b"x").status == 0
    assert 0.15 < time.monotonic() - began < 0.8
    assert up.count == 2 and up.accepted == 2, "delivered once, elsewhere"
    assert len([s for s in up.connections[0].streams]) == 1


def test_conn_11_sent_at_once_where_it_may_run_twice(make_up, front):
    up = make_up()
    one = front(up, sets=IDLE, config=policy(3))
    gone_silently(one, up)
    assert one.unary(body=b"x").status == 0
    assert up.requests[-1].get("grpc-previous-rpc-attempts") == "1", \
        "it was sent behind the probe, and retried"


def test_conn_11_another_stream_is_open(make_up, front, until):
    up = make_up(silent)
    one = front(up, sets=IDLE)
    waiting = one.start("/test.Svc/Long", body=b"x")
    until(lambda: up.count == 1 and up.requests[0].ended, "the long call")
    up.connections[0].pause_reading()
    time.sleep(1.2)
    up.script = echo_script
    assert one.unary(body=b"x").status == 0
    assert up.accepted == 2 and not waiting.over
    up.connections[0].paused = False
    finish(up.requests[0])
    assert waiting.wait_over().status == 0, "the old connection was kept"


def test_conn_11_probe_that_is_answered(make_up, front):
    up = make_up()
    one = front(up, sets=IDLE)
    for _ in range(2):
        assert one.unary(body=b"x").status == 0
        time.sleep(1.1)
    assert one.unary(body=b"x").status == 0
    assert up.accepted == 1 and len(up.connections[0].pings) == 2


@pytest.mark.slow
def test_conn_11_real_servers_count_no_strikes(make_server, front,
                                               channel_to):
    from backends import call
    for kind in ("python", "node"):
        server = make_server(f"probe-{kind}", kind=kind)
        one = front(server, sets=IDLE)
        method = call(channel_to(one.port))
        for _ in range(30):
            assert method(b"x", timeout=5) == b"x"
            time.sleep(1.1)
        # Some servers send PINGs of their own, which make a probe needless.
        assert one.metric("grpc_probes") >= 10
        assert one.metric("grpc_goaways") == 0
        assert one.redial.metrics()[
            "grpc_subchannel_connection_attempts_succeeded_total"] == 1


def test_conn_12_max_connection_age_of_servers(make_server, front):
    server = make_server(options=["grpc.max_connection_age_ms=1000",
                                  "grpc.max_connection_age_grace_ms=5000"])
    one = front(server)
    load = Load(f"{HOST}:{one.port}", 3.2, rate=150,
                options=[("grpc.enable_retries", 0)]).start().join()
    assert load.errors() == {}
    assert load.twice(server.executions) == {}
    assert one.metric("grpc_goaways") >= 2
    assert load.worst() < 0.5


def ping(dn):
    dn.send(PingFrame(0, opaque_data=b"pingping"))


def test_conn_13_pings_of_clients(make_up, front):
    one = front(make_up())
    dn = one.new_dn()
    for _ in range(3):  # one is allowed, two are strikes
        ping(dn)
    dn.wait(lambda: dn.pongs.count(b"pingping") == 3, "three ACKs")
    assert not dn.closed
    ping(dn)
    last, code, data = dn.wait_goaway()
    assert (code, data) == (ENHANCE_YOUR_CALM, b"too_many_pings")
    dn.wait_closed()
    assert one.metric("grpc_pings_bad") >= 3


def test_conn_13_calls_forgive(make_up, front):
    dn = front(make_up()).new_dn()
    for _ in range(6):
        ping(dn)
        ping(dn)
        assert dn.unary(body=b"x").status == 0
    assert not dn.closed and not dn.goaways


def test_conn_13_slow_pings_are_fine(make_up, front):
    dn = front(make_up(), sets=["listener.min_recv_ping_interval=50ms"]
               ).new_dn()
    for _ in range(8):
        ping(dn)
        time.sleep(0.07)
    dn.wait(lambda: dn.pongs.count(b"pingping") == 8, "all ACKs")
    assert not dn.closed and not dn.goaways


def test_conn_13_without_calls_not_permitted(make_up, front):
    dn = front(make_up(), sets=[
        "listener.min_recv_ping_interval=10ms",
        "listener.permit_ping_without_calls=no",
        "listener.max_ping_strikes=1"]).new_dn()
    for _ in range(3):
        ping(dn)
        time.sleep(0.03)
    assert dn.wait_goaway()[1:] == (ENHANCE_YOUR_CALM, b"too_many_pings")


def test_conn_14_max_connection_age(make_up, front, echo, figure):
    one = front(echo, sets=["listener.max_connection_age=600ms"])
    load = Load(f"{HOST}:{one.port}", 2, rate=150,
                options=[("grpc.enable_retries", 0)]).start().join()
    assert load.errors() == {}
    assert load.worst() < 0.5
    dn = one.new_dn()
    last, code, _ = dn.wait_goaway(3)
    assert (last, code) == ((1 << 31) - 1, NO_ERROR)
    dn.wait(lambda: len(dn.goaways) >= 2 or dn.closed, "the second GOAWAY")
    assert dn.goaways[1][0] == 0
    dn.wait_closed()


def test_conn_14_max_connection_idle(make_up, front):
    one = front(make_up(), sets=["listener.max_connection_idle=400ms"])
    dn = one.new_dn()
    began = time.monotonic()
    assert dn.unary(body=b"x").status == 0
    assert dn.wait_goaway(3)[1] == NO_ERROR
    assert 0.35 < time.monotonic() - began < 0.9
    dn.wait_closed(3)


@pytest.mark.parametrize("key", ("max_age", "max_idle"))
def test_conn_14_last_goaway_says_why(make_up, front, key):
    """The first one, of the library, can't."""
    name = key.replace("max_", "max_connection_")
    dn = front(make_up(), sets=[f"listener.{name}=300ms"]).new_dn()
    dn.wait(lambda: len(dn.goaways) == 2, "two GOAWAYs", 3)
    assert dn.goaways[1] == (0, NO_ERROR, key.encode())


def test_conn_14_not_idle_while_it_has_a_call(make_up, front, until):
    up = make_up(silent)
    dn = front(up, sets=["listener.max_connection_idle=300ms"]).new_dn()
    stream = dn.start(body=b"x")
    until(lambda: up.count == 1, "the call")
    time.sleep(0.6)
    assert not dn.goaways
    stream.rst(CANCEL)
    dn.wait_goaway(3)


def test_conn_14_dead_client(make_up, front, until):
    up = make_up(silent)
    one = front(up, sets=["listener.server_keepalive_time=300ms",
                          "listener.server_keepalive_timeout=200ms"])
    dn = one.make_dn(one.address, answers=False)
    dn.wait_settings()
    dn.start(body=b"x")
    until(lambda: up.count == 1, "the call")
    dn.wait(lambda: dn.pings, "PING")
    dn.wait_closed(3)
    up.requests[0].wait_reset(2)
    assert up.requests[0].reset == CANCEL


def test_conn_15_sigterm_lets_calls_finish(make_up, front, until):
    up = make_up(silent)
    one = front(up, sets=["redial.drain_timeout=10s"])
    stream = one.start(body=b"x")
    until(lambda: up.count == 1 and up.requests[0].ended, "the call")
    one.redial.signal(signal.SIGTERM)
    assert one.dn.wait_goaway()[:2] == ((1 << 31) - 1, NO_ERROR)
    one.dn.wait(lambda: len(one.dn.goaways) >= 2, "the second GOAWAY")
    assert one.dn.goaways[1][:2] == (stream.id, NO_ERROR)
    assert not stream.over
    finish(up.requests[0])
    assert stream.wait_over().status == 0
    one.dn.wait_closed()
    one.redial.child.wait(5)
    assert one.redial.child.returncode == 0


def test_conn_15_sigterm_under_load(make_redial, echo):
    redial = make_redial(f"grpc://{echo.target}")
    load = Load(f"{HOST}:{redial.port}", 1.2, rate=120, sleep=0.3,
                timeout=5, options=[("grpc.enable_retries", 0)]).start()
    load.sleep_until(0.8)
    redial.signal(signal.SIGTERM)
    signalled = time.monotonic()
    redial.child.wait(10)
    assert redial.child.returncode == 0
    load.join()
    early = [o for o in load.outcomes if o.start < signalled - 0.05]
    assert len(early) > 50
    assert [o for o in early if o.status.value[0] != 0] == []


@pytest.mark.parametrize("how", ("timeout", "twice"))
def test_conn_15_calls_beyond_the_drain(make_up, front, until, how):
    up = make_up(silent)
    one = front(up, sets=[
        f"redial.drain_timeout={'400ms' if how == 'timeout' else '30s'}"])
    stream = one.start(body=b"x")
    until(lambda: up.count == 1, "the call")
    began = time.monotonic()
    one.redial.signal(signal.SIGTERM)
    one.dn.wait_goaway()
    if how == "twice":
        one.redial.signal(signal.SIGTERM)
    assert stream.wait_over().status == 14
    assert stream.grpc_message == "redial: shutting down"
    assert (time.monotonic() - began > 0.35) == (how == "timeout")
    one.redial.child.wait(5)
    assert one.redial.child.returncode == 0


@pytest.mark.parametrize("data, hint", (
    (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP/1"),
    (bytes.fromhex("16030100c8010000c40303") + bytes(40), "TLS"),
), ids=("http1", "tls"))
def test_conn_17_bad_preface(make_up, front, until, data, hint):
    one = front(make_up())
    with socket.create_connection(one.address) as s:
        s.settimeout(5)
        s.sendall(data)
        try:
            while s.recv(65536):
                pass
        except ConnectionResetError:
            pass
    until(lambda: "bad_preface" in one.redial.log(), "the log line")
    line = [row for row in one.redial.log().splitlines()
            if "bad_preface" in row][0]
    assert hint in line, line


@pytest.mark.slow
def test_conn_17_silent_client(make_up, front):
    one = front(make_up())
    began = time.monotonic()
    with socket.create_connection(one.address) as s:
        s.settimeout(15)
        try:
            while s.recv(65536):
                pass
        except ConnectionResetError:
            pass
    assert 9 < time.monotonic() - began < 12


HAPROXY = """
defaults
  mode http
  timeout connect 5s
  timeout client 30s
  timeout server 30s
frontend f
  bind {host}:{front} proto h2
  default_backend b
backend b
  server s {host}:{back} proto h2
"""


@pytest.fixture
def haproxy(folder, until):
    """haproxy(port): a port that leads there through HAProxy."""
    program = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if not program:
        pytest.skip("no haproxy")
    made = []

    def make(back):
        port = free_port()
        path = f"{folder}/haproxy{len(made)}.cfg"
        with open(path, "w") as file:
            file.write(HAPROXY.format(host=HOST, front=port, back=back))
        made.append(subprocess.Popen([program, "-db", "-f", path],
                                     stdout=subprocess.DEVNULL,
                                     stderr=subprocess.DEVNULL))

        def listens():
            with socket.create_connection((HOST, port), 1):
                return True
        until(listens, "haproxy")
        return port
    yield make
    for process in made:
        process.kill()
        process.wait()


def test_conn_18_haproxy_behind_and_before(echo, front, haproxy, channel_to):
    from backends import call
    behind = front(f"{HOST}:{haproxy(echo.port)}")
    before = haproxy(front(echo).port)
    for port in (behind.port, before):
        channel = channel_to(port)
        for n in range(50):
            assert call(channel)(b"%d" % n, timeout=5) == b"%d" % n
        assert list(call(channel, "Bidi")(iter([b"a", b"b"]), timeout=5)) \
            == [b"a", b"b"]


@pytest.mark.slow
def test_conn_19_settings_never_acked(make_up, front):
    up = make_up(silent, answers=False)
    front(up).start(body=b"x")
    began = time.monotonic()
    while not up.connections:
        time.sleep(0.01)
    assert up.connections[0].wait_goaway(15)[1] == SETTINGS_TIMEOUT
    assert 9 < time.monotonic() - began < 12


def test_conn_19_preface_in_one_write(make_up, front):
    """Magic, SETTINGS and WINDOW_UPDATE: one segment on loopback is one
    recv."""
    up = make_up()
    assert front(up).unary(body=b"x").status == 0
    first = up.connections[0].first_read
    types, at = [], 24
    while at + 9 <= len(first):
        types.append(first[at + 3])
        at += 9 + int.from_bytes(first[at:at + 3], "big")
    assert first.startswith(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert types[:2] == [4, 8], types


def test_conn_19_reconnects_when_a_call_wants_it(make_up, front, until):
    up = make_up()
    one = front(up)
    assert one.unary(body=b"x").status == 0
    up.drop_connections()
    assert one.unary(body=b"x").status == 0
    assert up.accepted == 2


def test_conn_20_no_leak_of_files(make_up, front, until):
    up = make_up()
    one = front(up)
    assert one.unary(body=b"x").status == 0
    before = open_files(one.redial.pid)
    for _ in range(50):
        dn = one.new_dn()
        assert dn.unary(body=b"x").status == 0
        dn.close()
    until(lambda: open_files(one.redial.pid) <= before, "all files closed")
