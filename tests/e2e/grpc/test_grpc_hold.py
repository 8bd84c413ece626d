"""Held headers, commit, and what is kept to be sent again (grpc.md hold-*)."""

import threading
import time

import pytest

from peer import CANCEL, INITIAL_WINDOW_SIZE, Gone, message
from policies import policy
from upstream import (OK_HEADERS, echo as echo_script, headers_then_trailers,
                      refuse, silent, trailers, trailers_only)

KIB = 1024


def test_hold_01_status_after_headers_is_retried(make_up, front):
    up = make_up([headers_then_trailers(14), echo_script])
    stream = front(up, config=policy(3)).unary(body=b"x")
    assert stream.status == 0
    assert [end for _, end in stream.blocks] == [False, True], "one response"
    assert up.count == 2


def headers_then_silence(stream):
    stream.wait_data(5)
    stream.headers(OK_HEADERS)
    stream.wait(lambda: stream.over and stream.reset is not None, "the end",
                60)


@pytest.mark.parametrize("name, sets, config, half_closed", (
    ("no-policy", [], None, True),
    ("client-streaming", [], policy(3), False),
    ("hold-off", ["upstream.hold_headers=off"], policy(3), True),
), ids=lambda value: value if isinstance(value, str) else "")
def test_hold_02_not_held(make_up, front, name, sets, config, half_closed):
    up = make_up(headers_then_silence)
    one = front(up, sets=sets, config=config)
    began = time.monotonic()
    stream = one.start(body=b"x", end=half_closed).wait_headers()
    assert time.monotonic() - began < 0.8, "before hold_headers_max"
    stream.rst(CANCEL)
    up.requests[0].wait_reset()


def test_hold_03_released_by_data(make_up, front):
    def script(stream):
        stream.wait_over()
        stream.headers(OK_HEADERS + [("x-h", "1")])
        time.sleep(0.3)
        stream.data(message(b"body"))
        stream.headers(trailers(), end=True)
    stream = front(make_up(script), config=policy(3)).unary(body=b"x")
    assert stream.status == 0 and bytes(stream.body) == message(b"body")
    assert stream.blocks[0][0] == OK_HEADERS + [("x-h", "1")]
    assert stream.times[1] - stream.times[0] < 0.2, "headers with the data"


def test_hold_04_released_by_the_timer(make_up, front, until):
    up = make_up(headers_then_silence)
    one = front(up, config=policy(3))
    began = time.monotonic()
    stream = one.start(body=b"x").wait_headers()
    assert 0.9 < time.monotonic() - began < 1.5
    up.requests[0].headers(trailers(14, "late"), end=True)
    assert stream.wait_over().status == 14
    assert up.count == 1, "committed"
    up.requests[0].reset = 0


@pytest.mark.parametrize("how", ("reset", "status"))
def test_hold_05_nothing_follows_data(make_up, front, how):
    def script(stream):
        stream.wait_over()
        stream.headers(OK_HEADERS)
        stream.data(message(b"whole") + message(b"torn")[:6])
        stream.peer.ping_pong()
        if how == "reset":
            stream.rst(2)
        else:
            stream.headers(trailers(14, "late"), end=True)
    up = make_up(script)
    stream = front(up, config=policy(3)).unary(body=b"x")
    assert stream.status == (13 if how == "reset" else 14)
    assert message(b"whole") in bytes(stream.body)
    assert [end for _, end in stream.blocks] == [False, True]
    assert stream.reset is None and up.count == 1


def test_hold_06_no_deadlock_of_bidi(echo_port, channel_to):
    """Ping-pong: each side waits for the other's message; and a client that
    waits for headers before it sends anything."""
    from backends import call
    channel = channel_to(echo_port)
    sent, received = [], []
    replies = None

    def requests():
        for n in range(50):
            while len(received) < n:
                time.sleep(0.001)
            sent.append(n)
            yield b"%d" % n
    replies = call(channel, "Bidi")(requests(), timeout=20)
    for reply in replies:
        received.append(reply)
    assert received == [b"%d" % n for n in range(50)]

    gate = threading.Event()

    def later():
        gate.wait(20)
        yield b"x"
    replies = call(channel, "Bidi")(later(), timeout=20, metadata=[
        ("do", '{"first":true}')])
    assert replies.initial_metadata() is not None
    gate.set()
    assert list(replies) == [b"x"]


def test_hold_06_server_speaks_first_under_a_policy(make_up, front):
    def script(stream):
        stream.headers(OK_HEADERS)
        echo_like(stream)
    up = make_up(script)
    stream = front(up, config=policy(3)).start(body=None, end=False)
    stream.wait_headers(5)
    stream.data(message(b"x"), end=True)
    assert stream.wait_over().status == 0


def echo_like(stream):
    stream.wait_over()
    stream.data(bytes(stream.body))
    stream.headers(trailers(), end=True)


def test_hold_07_last_attempt_fails_after_headers(make_up, front):
    up = make_up(headers_then_trailers(14, "no"))
    stream = front(up, config=policy(2)).unary(body=b"x")
    assert up.count == 2
    assert [end for _, end in stream.blocks] == [False, True]
    assert stream.fields == OK_HEADERS
    assert (stream.status, stream.grpc_message) == (14, "no")


@pytest.mark.parametrize("extra, retried", ((-1, True), (0, True),
                                            (1, False)))
def test_hold_08_limit_of_the_log(make_up, front, extra, retried):
    """The whole request counts, prefix included."""
    size = 64 * KIB + extra
    up = make_up([trailers_only(14), echo_script])
    one = front(up, config=policy(3),
                sets=["upstream.retry_buffer_per_call=64KiB"])
    stream = one.unary(body=bytes(size - 5), timeout=10)
    assert stream.status == (0 if retried else 14), stream
    assert up.count == (2 if retried else 1)
    assert all(r.received == size for r in up.requests)
    if not retried:
        assert one.metric("grpc_log_overflow") == 1


def test_hold_09_client_stops_while_no_endpoint_is_up(make_up, front, until):
    up = make_up(start=False)
    one = front(up, sets=["upstream.retry_buffer_per_call=64KiB"])
    one.dn.change_settings({INITIAL_WINDOW_SIZE: 1 << 20})
    stream = one.start(body=None, end=False)
    payload = bytes(range(256)) * (10 * 4 * KIB)
    errors = []

    def send():
        try:
            stream.data(message(payload), end=True)
        except (Gone, AssertionError) as error:
            errors.append(error)
    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    until(lambda: stream.window == 0, "the client to stop")
    time.sleep(0.2)  # redial gives no credit for what only waits
    assert stream.window == 0
    up.start()
    assert stream.wait_over(30).status == 0
    thread.join(5)
    assert errors == [] and up.count == 1
    assert bytes(up.requests[0].body) == message(payload)


def test_hold_10_overflow_during_the_second_attempt(make_up, front, until):
    """The first attempt takes little and fails; the rest comes while the
    second one is running and no longer fits."""
    def fail_early(stream):
        stream.wait_data(20 * KIB)
        stream.headers(OK_HEADERS + trailers(14), end=True)
    up = make_up([fail_early, echo_script])
    one = front(up, config=policy(3),
                sets=["upstream.retry_buffer_per_call=64KiB"])
    payload = bytes(range(256)) * 4 * KIB
    body = message(payload)
    stream = one.start(body=None, end=False)
    stream.data(body[:40 * KIB])
    until(lambda: up.count == 2, "the second attempt")
    stream.data(body[40 * KIB:], end=True)
    assert stream.wait_over(30).status == 0
    assert up.count == 2
    assert bytes(up.requests[1].body) == body
    assert bytes(stream.body) == body


def test_hold_11_total_of_all_logs(make_up, front, until):
    """1 MiB for all: eight calls of 200 KiB can't all be kept."""
    up = make_up(silent)
    one = front(up, config=policy(3), sets=["grpc.retry_buffer_total=1MiB"])
    streams = [one.start(f"/test.Svc/{n}", body=bytes(200 * KIB))
               for n in range(8)]
    until(lambda: up.count == 8 and all(r.ended for r in up.requests),
          "all requests")
    up.script = echo_script
    for request in up.requests[:8]:
        request.headers(OK_HEADERS + trailers(14), end=True)
    for stream in streams:
        stream.wait_over()
    statuses = [stream.status for stream in streams]
    assert statuses.count(0) >= 3 and statuses.count(14) >= 2, statuses
    assert one.metric("grpc_log_overflow") == statuses.count(14)
    assert one.unary(body=bytes(200 * KIB)).status == 0, "new calls work"


def test_hold_12_no_mix_of_bodies(make_up, front):
    """100 calls at once; each fails once after its body has arrived."""
    seen, lock = set(), threading.Lock()

    def script(stream):
        stream.wait_over()
        with lock:
            first = stream.path not in seen
            seen.add(stream.path)
        (trailers_only(14) if first else echo_script)(stream)
    up = make_up(script)
    one = front(up, config=policy(3), sets=[
        "upstream.max_concurrent_retries=1000",
        "upstream.throttle_max_tokens=0"])
    bodies = [b"%d " % n * (n * 20 + 1) for n in range(100)]
    streams = [one.start(f"/test.Svc/{n}", body=bodies[n])
               for n in range(100)]
    for n, stream in enumerate(streams):
        assert stream.wait_over(30).status == 0, stream
        assert bytes(stream.body) == message(bodies[n]), n
    assert up.count == 200
    for request in up.requests:
        n = int(request.path.rsplit("/", 1)[1])
        assert bytes(request.body) == message(bodies[n]), n


def test_hold_13_refused_in_the_middle_of_the_body(make_up, front, until):
    payload = bytes(range(256)) * 800

    def half(stream):
        stream.wait_data(100 * KIB)
        refuse(stream)
    up = make_up([half, echo_script])
    stream = front(up).unary(body=payload)
    assert stream.status == 0
    assert bytes(up.requests[1].body) == message(payload)
    assert bytes(stream.body) == message(payload)
    assert up.count == 2
