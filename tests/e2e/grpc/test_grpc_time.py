"""Deadlines, and waiting for a connection (grpc.md time-*)."""

import socket
import threading
import time

import pytest

from peer import CANCEL, message
from policies import blanket, policy
from servers import HOST, free_port
from upstream import (OK_HEADERS, echo as echo_script, silent,
                      trailers_only)

TIMEOUT = "grpc-timeout"
UNITS = {"H": 3600, "M": 60, "S": 1, "m": 1e-3, "u": 1e-6, "n": 1e-9}


def seconds(text):
    return int(text[:-1]) * UNITS[text[-1]]


def call(one, *extra, timeout=15, **options):
    """(stream, seconds it took)."""
    began = time.monotonic()
    stream = one.dn.start("/test.Svc/Unary", *extra, body=b"x", **options)
    stream.wait_over(timeout)
    return stream, stream.times[-1] - began


@pytest.mark.parametrize("value", ("1S", "100m", "99999999H", "00000001S",
                                   "5M", "1u", "1n"))
def test_time_01_legal_timeouts(make_up, front, value):
    up = make_up()
    stream, _ = call(front(up), (TIMEOUT, value))
    assert stream.status in ((0, 4) if value in ("1u", "1n") else (0,))
    if stream.status == 0:
        sent = up.requests[0].get(TIMEOUT)
        assert seconds(sent) <= seconds(value) + 1e-6
        assert seconds(sent) > seconds(value) * 0.5
        assert len(sent) <= 9
        if value == "1S":
            assert sent[-1] == "u", "the finest unit that fits"


BAD = ("1x", "S", "123456789S", " 1 S", "-1S", "", "1.5S", "+1S")


def test_time_02_malformed(make_up, front):
    up = make_up()
    one = front(up)
    for value in BAD:
        stream, _ = call(one, (TIMEOUT, value))
        assert (stream.status, stream.grpc_message) \
            == (13, "redial: malformed grpc-timeout"), repr(value)
    stream, _ = call(one, (TIMEOUT, "1S"), (TIMEOUT, "1S"))
    assert (stream.status, stream.grpc_message) \
        == (13, "redial: malformed grpc-timeout")
    stream, _ = call(one, (TIMEOUT, "0S"))
    assert (stream.status, stream.grpc_message) \
        == (4, "redial: deadline exceeded before the call began")
    assert up.count == 0


def test_time_03_one_deadline_over_all_attempts(make_up, front):
    up = make_up([trailers_only(14), trailers_only(14), echo_script])
    stream, _ = call(front(up, config=policy(3, backoff="0.1s")),
                     (TIMEOUT, "2S"))
    assert stream.status == 0
    left = [seconds(r.get(TIMEOUT)) for r in up.requests]
    starts = [r.times[0] for r in up.requests]
    assert left[0] <= 2
    for n in (1, 2):
        elapsed = starts[n] - starts[0]
        assert abs(left[0] - left[n] - elapsed) < 0.05, (left, starts)


def test_time_04_no_wait_beyond_the_deadline(make_up, front):
    up = make_up(trailers_only(14, "its own"))
    stream, took = call(front(up, config=policy(3, backoff="0.4s")),
                        (TIMEOUT, "150m"))
    assert (stream.status, stream.grpc_message) == (14, "its own")
    assert took < 0.12 and up.count == 1


def test_time_05_deadline_before_the_answer(make_up, front):
    up = make_up(silent)
    stream, took = call(front(up), (TIMEOUT, "200m"))
    assert stream.status == 4
    assert stream.grpc_message \
        == "redial: deadline exceeded after 1 attempt"
    assert 0.19 < took < 0.35
    up.requests[0].wait_reset(1)
    assert up.requests[0].reset == CANCEL


def test_time_05_names_the_last_failure(make_up, front):
    up = make_up([trailers_only(14, "its own"), silent])
    stream, _ = call(front(up, config=policy(3)), (TIMEOUT, "400m"))
    assert stream.status == 4
    assert stream.grpc_message == ("redial: deadline exceeded after 2 "
                                   "attempts; last: UNAVAILABLE: its own")


def test_time_06_deadline_after_headers(make_up, front):
    def script(stream):
        stream.wait_over()
        stream.headers(OK_HEADERS)
        stream.data(message(b"part"))
        stream.wait_reset()
    up = make_up(script)
    stream, took = call(front(up), (TIMEOUT, "300m"))
    assert [end for _, end in stream.blocks] == [False, True]
    assert stream.status == 4 and 0.28 < took < 0.5
    up.requests[0].wait_reset(1)
    assert up.requests[0].reset == CANCEL


@pytest.mark.parametrize("client, wanted", (("5S", 1.0), ("500m", 0.5),
                                            (None, 1.0)))
def test_time_07_timeout_of_the_config(make_up, front, client, wanted):
    up = make_up(silent)
    config = {"methodConfig": [{"name": [{"service": "test.Svc"}],
                                "timeout": "1s"}]}
    stream, took = call(front(up, config=config),
                        *([(TIMEOUT, client)] if client else []))
    assert stream.status == 4
    assert wanted - 0.02 < took < wanted + 0.25
    assert seconds(up.requests[0].get(TIMEOUT)) <= wanted


def test_time_08_attempt_that_hangs(make_up, front):
    up = make_up([silent, echo_script])
    stream, took = call(front(up, sets=blanket(2) + [
        "upstream.per_attempt_timeout=100ms",
        "upstream.idempotent_methods=/test.Svc/*"]))
    assert stream.status == 0 and 0.09 < took < 0.4
    up.requests[0].wait_reset(1)
    assert up.requests[0].reset == CANCEL


def test_time_08_attempt_that_hangs_and_may_have_run(make_up, front):
    up = make_up([silent, echo_script])
    stream, _ = call(front(up, sets=blanket(2) + [
        "upstream.per_attempt_timeout=100ms"]))
    assert (stream.status, stream.grpc_message) \
        == (14, "redial: attempt timed out after 100 ms")
    assert up.count == 1


def test_time_09_endpoint_cancels(make_up, front):
    def script(stream):
        stream.wait_over()
        stream.rst(CANCEL)
    stream, _ = call(front(make_up(script)), (TIMEOUT, "5S"))
    assert stream.status == 1


def test_time_10_call_waits_for_the_endpoint(make_up, front):
    up = make_up(start=False)
    one = front(up)
    stream = one.start(body=b"x")
    time.sleep(1)  # the endpoint is down for so long
    assert not stream.over
    began = time.monotonic()
    up.start()
    assert stream.wait_over().status == 0
    assert up.count == 1
    assert time.monotonic() - began < 1.5


def test_time_11_no_endpoint_before_the_deadline(front):
    one = front(f"{HOST}:{free_port()}")
    stream, took = call(one, (TIMEOUT, "500m"))
    assert stream.status == 4 and 0.48 < took < 0.8
    assert stream.grpc_message.startswith("redial: deadline exceeded after 0 "
                                          "attempts")


def test_time_11_no_endpoint_at_all(front):
    one = front(f"{HOST}:{free_port()}",
                sets=["upstream.max_wait_for_ready=700ms"])
    stream, took = call(one)
    assert stream.status == 14 and 0.68 < took < 1.2
    assert stream.grpc_message.startswith("redial: no connection to cluster ")
    assert "within 700ms" in stream.grpc_message
    assert "refused" in stream.grpc_message


def test_time_11_nonsense_prolongs_no_wait(front):
    """An endpoint says hello, takes no call, and breaks the protocol."""
    listener = socket.create_server((HOST, 0))
    taken = []

    def talk_nonsense():
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            taken.append(peer)
            peer.sendall(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]) + b"\xff" * 400)

    threading.Thread(target=talk_nonsense, daemon=True).start()
    one = front(f"{HOST}:{listener.getsockname()[1]}",
                sets=["upstream.max_wait_for_ready=700ms"])
    stream, took = call(one)
    listener.close()
    assert stream.status == 14 and 0.68 < took < 1.5
    assert "within 700ms" in stream.grpc_message
    assert len(taken) > 1
    for peer in taken:
        peer.close()


@pytest.mark.slow
def test_time_11_thirty_seconds(front):
    stream, took = call(front(f"{HOST}:{free_port()}"), timeout=40)
    assert stream.status == 14 and 29.5 < took < 31.5
    assert "within 30s" in stream.grpc_message


def test_time_12_fail_fast(make_up, front, until):
    port = free_port()
    one = front(f"{HOST}:{port}", sets=["upstream.wait_for_ready=no"])

    def failed():
        return call(one)[0].status == 14
    until(failed, "TRANSIENT_FAILURE")
    stream, took = call(one)
    assert stream.status == 14 and took < 0.1
    assert stream.grpc_message.startswith("redial: no connection to cluster ")
    assert "refused" in stream.grpc_message


def test_time_12_fail_fast_waits_while_connecting(make_up, front, until):
    def mute(sock):
        while sock.recv(65536):
            pass
    up = make_up(on_connect=mute)
    one = front(up, sets=["upstream.wait_for_ready=no",
                          "upstream.connect_timeout=600ms"])
    stream, took = call(one)
    assert stream.status == 14 and 0.3 < took < 1.2


def test_time_12_fail_fast_with_a_policy(front, until):
    """Each pick that fails is an attempt: 3 with 0.2 and 0.4 s between."""
    one = front(f"{HOST}:{free_port()}", config=policy(3, backoff="0.2s"),
                sets=["upstream.wait_for_ready=no"])
    until(lambda: call(one)[0].status == 14, "TRANSIENT_FAILURE")
    stream, took = call(one)
    assert stream.status == 14 and 0.45 < took < 1.0


def test_time_13_queue_is_full(front):
    one = front(f"{HOST}:{free_port()}",
                sets=["upstream.max_queued_calls=2"])
    waiting = [one.start(body=b"x") for _ in range(2)]
    one.dn.ping_pong()
    stream, took = call(one)
    assert stream.status == 14 and took < 0.2
    assert stream.grpc_message.startswith("redial: queue of cluster ")
    assert stream.grpc_message.endswith(" is full")
    assert stream.last("grpc-retry-pushback-ms") == "-1"
    assert not any(s.over for s in waiting)


def test_time_14_max_call_duration(make_up, front):
    up = make_up(silent)
    stream, took = call(front(up, sets=["upstream.max_call_duration=500ms"]))
    assert stream.status == 4 and 0.48 < took < 0.8
    assert 0.3 < seconds(up.requests[0].get(TIMEOUT)) <= 0.5
