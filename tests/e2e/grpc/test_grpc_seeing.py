"""What can be seen of gRPC from outside: /channels, /ready, the numbers and the
events (grpc.md §6)."""

import json
import re
import socket

import pytest

from peer import ENHANCE_YOUR_CALM, PROTOCOL_ERROR
from policies import policy
from servers import HOST, free_port
from upstream import echo as echo_script, refuse, silent, trailers_only

pytestmark = pytest.mark.needs_redial

ROUND_ROBIN = ["upstream.lb=round_robin"]


def channel(one):
    status, body = one.redial.http("/channels")
    assert status == 200
    (found,) = json.loads(body)["channels"]
    return found


def events(one, name):
    return [e for e in json.loads(one.redial.http("/events")[1])
            if e["event"] == name]


def test_channels_tell_who_is_ready_and_who_is_not(make_up, front, until):
    up = make_up(silent)
    nobody = f"{HOST}:{free_port()}"
    one = front(up, nobody, sets=ROUND_ROBIN)
    stream = one.start(body=b"x")
    until(lambda: channel(one)["calls"]["active"] == 1, "the call is shown")
    seen = channel(one)
    assert (seen["state"], seen["lb"]) == ("ready", "round_robin")
    assert seen["throttle"]["closed"] is False
    ready, away = seen["endpoints"]
    assert (ready["address"], ready["state"]) == (up.target, "ready")
    assert ready["connections"]["ready"] == 1 and ready["streams"] == 1
    assert (away["address"], away["connections"]["ready"]) == (nobody, 0)
    assert away["failures"] > 0 and away["state"] in ("backoff", "connecting")
    assert away["last_error"] == "connection refused"
    assert ready["last_error"] is None
    assert nobody in seen["last_error"] and "refused" in seen["last_error"]
    stream.rst()
    until(lambda: channel(one)["calls"]["active"] == 0, "its end is, too")
    until(lambda: channel(one)["endpoints"][0]["streams"] == 0, "no stream")


def test_calls_that_wait_are_counted(front, until):
    one = front(f"{HOST}:{free_port()}")
    streams = [one.start(body=b"x") for _ in range(3)]
    until(lambda: channel(one)["calls"]["waiting"] == 3, "three wait")
    assert one.metric("grpc_calls_waiting") == 3
    for stream in streams:
        stream.rst()
    until(lambda: one.metric("grpc_calls_waiting") == 0, "none does")
    assert one.metric("grpc_calls_active") == 0


def test_ready_means_an_endpoint_is(make_up, front, until):
    up = make_up()
    up.stop()
    one = front(up, sets=ROUND_ROBIN)
    status, body = one.redial.http("/ready")
    assert status == 503 and "has no server connection" in body
    up.start()
    until(lambda: one.redial.http("/ready")[0] == 200, "ready")


def test_ready_without_a_call(make_up, front):
    """pick_first opens a connection when a call comes, and not for a probe."""
    one = front(make_up())
    assert one.redial.http("/ready")[0] == 200
    assert channel(one)["endpoints"][0]["state"] == "idle"
    assert one.unary(body=b"x").status == 0
    assert one.redial.http("/ready")[0] == 200


def test_what_an_endpoint_says_is_escaped(make_up, front, until):
    up = make_up(silent)
    one = front(up)
    one.start(body=b"x")
    until(lambda: up.count == 1, "the call is there")
    said = b'too_many\n\x1b[31m"pings"' + b"x" * 500
    up.connections[0].goaway(1, ENHANCE_YOUR_CALM, said)
    until(lambda: events(one, "goaway_received"), "the event")
    (event,) = events(one, "goaway_received")
    assert event["h2_error"] == "ENHANCE_YOUR_CALM"
    assert event["last_stream"] == "1"
    assert event["said"].encode() == said[:200]
    line = next(line for line in one.redial.log().splitlines()
                if "goaway_received" in line)
    assert "\x1b" not in line and r"\x1b[31m" in line


@pytest.mark.parametrize("first, hint", (
    (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", "HTTP/1"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "TLS"),
    (b"x" * 24, "not HTTP/2"),
))
def test_strangers_are_named(make_up, front, until, first, hint):
    one = front(make_up())
    with socket.create_connection(one.address) as s:
        s.sendall(first)
        s.settimeout(5)
        while s.recv(4096):
            pass
    until(lambda: events(one, "bad_preface"), "the event")
    (event,) = events(one, "bad_preface")
    assert hint in event["reason"] and event["level"] == "warn"
    assert re.search(r'redial_grpc_abuse_total\{[^}]*kind="bad_preface"\} 1',
                     one.redial.http("/metrics")[1])


def test_a_client_that_breaks_http2_is_told_and_counted(make_up, front, until):
    one = front(make_up(echo_script))
    assert one.unary(body=b"x").status == 0
    before = one.metric("protocol_error_client")
    one.dn.send_raw(bytes([0, 0, 1, 0, 0, 0, 0, 0, 2, 0]))  # DATA, stream 2
    assert one.dn.wait_goaway()[1] == PROTOCOL_ERROR
    one.dn.wait_closed()
    assert one.metric("protocol_error_client") == before + 1
    until(lambda: events(one, "client"), "the event")
    assert "PROTOCOL_ERROR" in events(one, "client")[0]["reason"]


def test_a_call_that_failed_after_retries_is_a_warning(make_up, front, until):
    one = front(make_up(trailers_only(14)), config=policy(3))
    assert one.unary(body=b"x").status == 14
    until(lambda: events(one, "call_done"), "the event")
    (event,) = events(one, "call_done")
    assert event["method"] == "/test.Svc/Unary"
    assert (event["status"], event["reason"]) == ("UNAVAILABLE", "attempts")
    assert (event["class"], event["attempt"]) == ("F4", 3)
    assert one.unary("/other.Svc/X", body=b"x").status == 14
    assert len(events(one, "call_done")) == 1  # it was not tried again


def test_every_attempt_can_be_followed(make_up, front, until):
    up = make_up([refuse, trailers_only(14), echo_script])
    one = front(up, config=policy(3), sets=["log.level=debug"])
    assert one.unary(body=b"x").status == 0
    until(lambda: "event=call_done" in one.redial.log(), "the last line")
    attempts = [line for line in one.redial.log().splitlines()
                if "event=attempt_done" in line]
    wanted = (("class=F2", "h2_error=REFUSED_STREAM", "verdict=again_now",
               "attempt=1"),
              ("class=F4", "status=UNAVAILABLE", "verdict=again_after",
               "delay_us=", "attempt=2", "refused=1"),
              ("status=OK", "verdict=finish", "reason=ok", "attempt=3"))
    assert len(attempts) == len(wanted)
    for line, words in zip(attempts, wanted):
        for word in (*words, f"address={up.target}", "method=/test.Svc/Unary"):
            assert word in line.split(" ") or word.endswith("=") and \
                word in line, (word, line)
    assert not events(one, "attempt_done")  # too many to be kept


def test_connections_come_and_go(make_up, front, until):
    up = make_up()
    one = front(up)
    assert one.unary(body=b"x").status == 0
    until(lambda: events(one, "connection_ready"), "ready")
    up.stop()
    until(lambda: events(one, "connection_lost"), "lost")
    assert events(one, "connection_lost")[0]["address"] == up.target
    stream = one.start(body=b"x")
    until(lambda: events(one, "connect_failed"), "failed")
    assert "refused" in events(one, "connect_failed")[0]["reason"]
    stream.rst()


SAMPLE = re.compile(
    r'[a-z_]+(\{[a-z_]+="(\\.|[^"\\])*"(,[a-z_]+="(\\.|[^"\\])*")*\})? '
    r'([0-9.e+-]+)')


def test_metrics_are_text_that_prometheus_reads(make_up, front):
    one = front(make_up([trailers_only(14), echo_script]), config=policy(3))
    assert one.unary(body=b"x").status == 0
    described, seen = {}, set()
    for line in one.redial.http("/metrics")[1].splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert name not in described
            described[name] = kind
        elif not line.startswith("# HELP "):
            assert SAMPLE.fullmatch(line), line
            name = re.match(r"[a-z_]+", line)[0]
            family = name if name in described else \
                re.sub(r"_(bucket|sum|count)$", "", name)
            assert family in described, line
            assert line.rsplit(" ", 1)[0] not in seen, line
            seen.add(line.rsplit(" ", 1)[0])
    for name in ("grpc_server_call_duration", "grpc_client_attempt_duration",
                 "grpc_client_call_retries"):
        assert described[name] == "histogram"
        assert any(s.startswith(name + "_bucket") for s in seen), name
