"""Retries that a policy asks for (grpc.md retry-*)."""

import json
import time

import grpc
import pytest

from peer import message
from policies import SAFE, blanket, policy
from upstream import (OK_HEADERS, echo as echo_script, silent, trailers,
                      trailers_only)

ATTEMPTS = "grpc-previous-rpc-attempts"
PUSHBACK = "grpc-retry-pushback-ms"
CODES = ("CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND "
         "ALREADY_EXISTS PERMISSION_DENIED RESOURCE_EXHAUSTED "
         "FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL "
         "UNAVAILABLE DATA_LOSS UNAUTHENTICATED").split()


def attempts_seen(up):
    return [request.get(ATTEMPTS) for request in up.requests]


@pytest.mark.parametrize("fails", (1, 2, 3, 4))
def test_retry_01_after_failures(make_up, front, fails):
    up = make_up([trailers_only(14)] * fails + [echo_script])
    stream = front(up, config=policy(5)).unary(body=b"body")
    assert stream.status == 0 and bytes(stream.body) == message(b"body")
    assert attempts_seen(up) == [None] + [str(n + 1) for n in range(fails)]
    assert all(bytes(r.body) == message(b"body") for r in up.requests)


def test_retry_02_exhausted(make_up, front):
    up = make_up(trailers_only(14, "no%0A", ("x-detail", "1")))
    stream = front(up, config=policy(5)).unary(body=b"x")
    assert up.count == 5
    assert stream.trailers_only
    assert stream.fields == OK_HEADERS + trailers(
        14, "no%0A", ("x-detail", "1")) + [(PUSHBACK, "-1")]


@pytest.mark.parametrize("cap, count", ((None, 5), (10, 10), (2, 2)))
def test_retry_03_cap(make_up, front, cap, count):
    up = make_up(trailers_only(14))
    one = front(up, config=policy(10, backoff="0.001s"),
                sets=[f"upstream.max_attempts_cap={cap}"] if cap else [])
    assert one.unary(body=b"x").status == 14
    assert up.count == count


def test_retry_04_each_code_listed_and_not(make_up, front):
    def script(stream):
        number = stream.path.rsplit("/", 1)[1].split("-")[0]
        trailers_only(int(number))(stream)
    up = make_up(script)
    config = {"methodConfig": []}
    for number, code in enumerate(CODES, 1):
        for listed in (True, False):
            codes = [code] if listed else [c for c in CODES if c != code]
            config["methodConfig"] += policy(
                2, codes, "0.001s", name={
                    "service": "test.Svc",
                    "method": f"{number}-{'yes' if listed else 'no'}"}
            )["methodConfig"]
    one = front(up, config=config, sets=["upstream.throttle_max_tokens=0"])
    for number in range(1, 17):
        for word, count in (("yes", 2), ("no", 1)):
            path = f"/test.Svc/{number}-{word}"
            assert one.unary(path, body=b"x").status == number, path
            assert up.paths().count(path) == count, path


@pytest.mark.parametrize("retries, with_json, count", (
    (0, False, 1), (1, False, 2), (3, False, 4), (0, True, 1)))
def test_retry_05_ini_attempts(make_up, front, retries, with_json, count):
    up = make_up(trailers_only(14))
    one = front(up, sets=blanket(retries),
                config=policy(3) if with_json else None)
    assert one.unary(body=b"x").status == 14
    assert up.count == count


def test_retry_06_blanket_single_and_stream(make_up, front):
    sets = blanket(2, "UNAVAILABLE,ABORTED")
    up = make_up([trailers_only(10), echo_script])
    assert front(up, sets=sets).unary(body=b"x").status == 0
    assert up.count == 2

    def two_messages(up, **options):
        stream = front(up, **options).start(body=None, end=False)
        stream.data(message(b"a") + message(b"b"), end=True)
        return stream.wait_over()
    up = make_up([trailers_only(10), echo_script])
    assert two_messages(up, sets=sets).status == 10
    assert up.count == 1, "a stream needs an explicit policy"


def test_retry_06_explicit_bidi_before_headers(make_up, front, until):
    def fail_early(stream):
        stream.wait_data(6)
        stream.headers(OK_HEADERS + trailers(14, "early"), end=True)
    up = make_up([fail_early, echo_script])
    stream = front(up, config=policy(3)).start(body=b"a", end=False)
    until(lambda: up.count == 2, "the second attempt")
    stream.data(message(b"b"), end=True)
    assert stream.wait_over().status == 0
    assert bytes(stream.body) == message(b"a") + message(b"b")


def with_pushback(value, status=14):
    return trailers_only(status, "later", *[
        (PUSHBACK, v) for v in (value if isinstance(value, tuple)
                                else (value,))])


def gap(up):
    """Seconds between the first attempt's end and the second one's start."""
    return up.requests[1].times[0] - up.requests[0].times[-1]


@pytest.mark.parametrize("value, low, high", (("0", 0, 0.1),
                                              ("150", 0.148, 0.25)))
def test_retry_08_pushback_is_the_delay(make_up, front, value, low, high):
    up = make_up([with_pushback(value), echo_script])
    one = front(up, config=policy(3, backoff="1s"))
    assert one.unary(body=b"x").status == 0
    assert low <= gap(up) <= high


NO_RETRY = ("-1", "-0", "01", "+5", "abc", "2147483648", ("1", "2"), "",
            "5 5", "0x1")


def test_retry_08_pushback_says_no(make_up, front):
    up = make_up()
    one = front(up, config=policy(3))
    for value in NO_RETRY:
        before = up.count
        up.script = with_pushback(value)
        stream = one.unary(body=b"x")
        assert stream.status == 14 and up.count == before + 1, value
        assert [v for k, v in stream.fields if k == PUSHBACK] \
            == list(value if isinstance(value, tuple) else (value,)), \
            "its own is passed on"


def test_retry_09_backoff_begins_anew_after_pushback(make_up, front):
    up = make_up([trailers_only(14), trailers_only(14), with_pushback("150"),
                  trailers_only(14), echo_script])
    one = front(up, config=policy(5, backoff="0.1s"))
    assert one.unary(body=b"x").status == 0
    gaps = [b.times[0] - a.times[-1]
            for a, b in zip(up.requests, up.requests[1:])]
    assert 0.075 <= gaps[0] <= 0.2
    assert 0.155 <= gaps[1] <= 0.32
    assert 0.148 <= gaps[2] <= 0.25
    assert 0.075 <= gaps[3] <= 0.15, "the exponent begins anew"


@pytest.mark.parametrize("name, script, config", (
    ("unlisted", with_pushback("150", 5), policy(3)),
    ("last", with_pushback("150"), None),
    ("too-long", with_pushback("61000"), policy(3)),
), ids=lambda value: value if isinstance(value, str) else "")
def test_retry_10_pushback_that_changes_nothing(make_up, front, name, script,
                                                config):
    up = make_up(script)
    if name == "last":
        up.script = [trailers_only(14), script]
        config = policy(2)
    stream = front(up, config=config).unary(body=b"x")
    assert stream.status in (5, 14)
    assert up.count == (2 if name == "last" else 1)


def test_retry_11_throttle(make_up, front):
    """10 tokens, ratio 0.1: every failed attempt takes one, and retries need
    more than half."""
    up = make_up()
    config = {**policy(2, backoff="0.001s"),
              "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1}}
    one = front(up, config=config)
    # Two attempts each: 10 -> 8 -> 6 -> then 5 and no retry.
    up.script = trailers_only(14)
    counts = []
    for _ in range(4):
        before = up.count
        assert one.unary(body=b"x").status == 14
        counts.append(up.count - before)
    assert counts == [2, 2, 1, 1]


def test_retry_11_success_gives_back(make_up, front):
    """Pushback -1 takes a token without a retry: 9, 8, 7, 6 may go on, 5 may
    not; one success makes it 5.1."""
    up = make_up()
    config = {**policy(2, backoff="0.001s"),
              "retryThrottling": {"maxTokens": 10, "tokenRatio": 0.1}}
    one = front(up, config=config)
    up.script = with_pushback("-1")
    for _ in range(5):
        one.unary(body=b"x")
    assert up.count == 5
    # 5000 milli-tokens now; eleven successes: 6.1, and a failure leaves 5.1.
    up.script = echo_script
    for _ in range(11):
        assert one.unary(body=b"x").status == 0
    before = up.count
    up.script = [None] * before + [trailers_only(14), echo_script]
    assert one.unary(body=b"x").status == 0
    assert up.count == before + 2


def test_retry_13_committed_failure_is_charged(make_up, front):
    def late(stream):
        stream.wait_over()
        stream.headers(OK_HEADERS)
        stream.data(message(b"part"))
        stream.headers(trailers(14), end=True)
    up = make_up(late)
    config = {**policy(2, backoff="0.001s"),
              "retryThrottling": {"maxTokens": 4, "tokenRatio": 0.1}}
    one = front(up, config=config)
    assert one.unary(body=b"x").status == 14
    assert up.count == 1
    up.script = trailers_only(14)  # 3 tokens: this one leaves 2
    assert one.unary(body=b"x").status == 14
    assert up.count == 2, "throttled"


def test_retry_15_many_fail_together(make_up, front, until):
    up = make_up(silent)
    one = front(up, config=policy(3), sets=[
        "upstream.max_concurrent_retries=10",
        "upstream.max_concurrent_retry_percent=20",
        "upstream.throttle_max_tokens=0"])
    streams = [one.start(body=b"x") for _ in range(20)]
    until(lambda: up.count == 20 and all(r.ended for r in up.requests),
          "all calls")
    peer = up.requests[0].peer
    peer.send_raw(b"".join(
        peer.header_frames(r.id, OK_HEADERS + trailers(14), True)
        for r in up.requests[:20]))
    until(lambda: up.count + sum(s.over for s in streams) >= 40,
          "retries or ends of all")
    retried = up.count - 20
    assert 10 <= retried <= 14
    ended = [s for s in streams if s.over]
    assert len(ended) == 20 - retried
    assert all(s.status == 14 for s in ended)
    assert one.metric("grpc_not_retried") >= len(ended)


def test_retry_16_attempts_of_the_client_count(make_up, front):
    up = make_up(trailers_only(14))
    stream = front(up, config=policy(5)).unary(
        "/test.Svc/Unary", (ATTEMPTS, "2"), body=b"x")
    assert stream.status == 14
    assert attempts_seen(up) == ["2", "3", "4"]


@pytest.mark.parametrize("value, seen", (
    ("x", [None, "1", "2", "3", "4"]), ("7", ["7"]),
    ("-1", [None, "1", "2", "3", "4"]), ("1234567890",
                                         [None, "1", "2", "3", "4"])))
def test_retry_17_attempts_header_of_the_client(make_up, front, value, seen):
    up = make_up(trailers_only(14))
    front(up, config=policy(5)).unary("/test.Svc/Unary", (ATTEMPTS, value),
                                      body=b"x")
    assert attempts_seen(up) == seen


def test_retry_17_ignored_when_so_asked(make_up, front):
    up = make_up(trailers_only(14))
    front(up, config=policy(3), sets=["upstream.stacked_attempts=ignore"]
          ).unary("/test.Svc/Unary", (ATTEMPTS, "7"), body=b"x")
    assert attempts_seen(up) == ["7", "8", "9"]


def test_retry_18_c_core_behind_a_policy(make_up, front, channel_to):
    up = make_up(trailers_only(14))
    one = front(up, config=policy(3))
    channel = channel_to(one.port, ("grpc.enable_retries", 1), (
        "grpc.service_config", json.dumps(policy(3))))
    with pytest.raises(grpc.RpcError) as error:
        channel.unary_unary("/test.Svc/Unary")(b"x", timeout=20)
    assert error.value.code() == grpc.StatusCode.UNAVAILABLE
    time.sleep(0.3)  # longer than all backoffs: nothing may follow
    assert up.count <= 3


def test_retry_18_grpc_js_behind_a_policy(make_up, front, node):
    up = make_up(trailers_only(14))
    one = front(up, config=policy(3))
    outcome = node("retry", one.port, json.dumps(policy(3)))
    assert outcome["code"] == 14
    assert up.count <= 3


def test_retry_19_own_pushback_at_exhaustion(make_up, front):
    up = make_up([trailers_only(14), with_pushback("500")])
    stream = front(up, config=policy(2)).unary(body=b"x")
    assert [v for k, v in stream.fields if k == PUSHBACK] == ["500"]


@pytest.mark.parametrize("word, values", (("never", []), ("always", ["-1"])))
def test_retry_19_stop_client_retries(make_up, front, word, values):
    up = make_up(trailers_only(5))
    stream = front(up, config=policy(2, ["NOT_FOUND"]), sets=[
        f"upstream.stop_client_retries={word}"]).unary(body=b"x")
    assert up.count == 2
    assert [v for k, v in stream.fields if k == PUSHBACK] == values


def test_retry_20_another_endpoint(make_up, front):
    bad, good = make_up(trailers_only(14)), make_up()
    one = front(bad, good, config=policy(2, backoff="0.001s"),
                sets=["upstream.lb=round_robin",
                      "upstream.throttle_max_tokens=0"])
    one.unary(body=b"x")
    for n in range(10):
        assert one.unary(body=b"x").status == 0, n
    assert bad.count >= 4, "round robin does go there"


def html_503(stream):
    stream.wait_over()
    stream.headers([(":status", "503"), ("content-type", "text/html")])
    stream.data(b"<h1>no</h1>", end=True)


@pytest.mark.parametrize("sets, config, status", (
    (blanket(2), None, 14), ([], policy(3), 0), (blanket(2) + SAFE, None, 0),
), ids=("unknown-blanket", "unknown-explicit", "safe-blanket"))
def test_retry_21_html_of_a_proxy(make_up, front, sets, config, status):
    up = make_up([html_503, echo_script])
    assert front(up, sets=sets, config=config).unary(
        body=b"x").status == status
    assert up.count == (1 if status else 2)
