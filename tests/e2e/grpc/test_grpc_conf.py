"""The configuration as its user meets it, and what can be seen from outside
(grpc.md conf-*)."""

import json
import os
import re
import subprocess

import pytest

from peer import message
from policies import blanket, policy
from servers import HOST, free_port, redial_path
from upstream import (OK_HEADERS, drop, echo as echo_script, refuse, silent,
                      trailers, trailers_only)

pytestmark = pytest.mark.needs_redial


def check(*arguments):
    """(exit code, what it printed) of redial --check."""
    done = subprocess.run(
        [redial_path(), "--check", *arguments, f"grpc://{HOST}:1"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, timeout=30)
    return done.returncode, done.stdout


@pytest.mark.parametrize("setting, accepted", (
    ("upstream.max_retry_attempts=0", True),
    ("upstream.max_retry_attempts=99", True),
    ("upstream.max_retry_attempts=100", False),
    ("upstream.max_retry_attempts=x", False),
    ("upstream.retryable_status_codes=unavailable,10", True),
    ("upstream.retryable_status_codes=OK", False),
    ("upstream.retryable_status_codes=17", False),
    ("upstream.retryable_status_codes=NOPE", False),
    ("upstream.retryable_status_codes=UNAVAILABLE,,ABORTED", False),
    ("upstream.initial_backoff=1ms", True),
    ("upstream.initial_backoff=1h", True),
    ("upstream.initial_backoff=2h", False),
    ("upstream.initial_backoff=5", False),
    ("upstream.backoff_multiplier=0", False),
    ("upstream.backoff_multiplier=0.5", True),
    ("upstream.backoff_multiplier=101", False),
    ("upstream.idempotent_methods=/a.B/Get*,/a.B/List", True),
    ("upstream.idempotent_methods=Get", False),
    ("upstream.lb=least_request", True),
    ("upstream.lb=random", False),
    ("upstream.lb_choices=1", False),
    ("upstream.keepalive_time=infinite", True),
    ("upstream.keepalive_timeout=50ms", False),
    ("upstream.retry_buffer_per_call=15KiB", False),
    ("upstream.retry_buffer_per_call=16MiB", True),
    ("grpc.retry_buffer_total=1KiB", False),
    ("grpc.max_calls=0", False),
    ("listener.max_header_list_size=1KiB", False),
    ("listener.max_retry_attempts=1", False),
    ("upstream.max_calls=1", False),
    ("upstream.max_retry_atempts=1", False),
))
def test_conf_01_rows_of_the_ini_table(setting, accepted):
    code, text = check("--set", setting)
    assert code == (0 if accepted else 2), text
    if not accepted:
        key = setting.split("=")[0].split(".")[1]
        assert key in text


def test_conf_01_misspelt_key_is_named():
    assert "max_retry_attempts" in check(
        "--set", "upstream.max_retry_atempts=1")[1]


def retry(**changes):
    """A valid retryPolicy but for the changes; None removes."""
    made = {"maxAttempts": 3, "initialBackoff": "0.1s", "maxBackoff": "1s",
            "backoffMultiplier": 2, "retryableStatusCodes": ["UNAVAILABLE"]}
    made.update(changes)
    return {k: v for k, v in made.items() if v is not None}


def method(**fields):
    return {"methodConfig": [{"name": [{"service": "a.B"}], **fields}]}


def with_retry(**changes):
    return method(retryPolicy=retry(**changes))


M = "methodConfig[0]"
R = f"{M}.retryPolicy"
H = f"{M}.hedgingPolicy"
DURATION = 'must be a duration such as "1.5s"'
RETRY_DURATION = 'must be a duration such as "0.1s"'
UINT32 = "must be an integer from 0 to 4294967295"
BROKEN = (
    ([], None, "must be an object"),
    ({"methodConfig": {}}, "methodConfig", "must be an array of objects"),
    ({"methodConfig": [1]}, "methodConfig", "must be an array of objects"),
    ({"methodConfig": [{"name": {}}]}, f"{M}.name",
     "must be an array of objects"),
    ({"methodConfig": [{"name": [{"service": 1}]}]},
     f"{M}.name[0].service", "must be a string"),
    ({"methodConfig": [{"name": [{"service": "a.B", "method": 1}]}]},
     f"{M}.name[0].method", "must be a string"),
    ({"methodConfig": [{"name": [{"method": "x"}]}]}, f"{M}.name[0]",
     "method without service"),
    ({"methodConfig": [{"name": [{"service": "S", "method": "M"}]},
                       {"name": [{"service": "S", "method": "M"}]}]},
     "methodConfig[1].name[0]",
     'duplicate name "/S/M", first used in methodConfig[0]'),
    (method(timeout="1"), f"{M}.timeout", DURATION),
    (method(timeout=1), f"{M}.timeout", DURATION),
    (method(timeout="01s"), f"{M}.timeout", DURATION),
    (method(timeout="1.1234567890s"), f"{M}.timeout", DURATION),
    (method(timeout="-1s"), f"{M}.timeout", "must not be negative"),
    (method(waitForReady="yes"), f"{M}.waitForReady",
     "must be true or false"),
    (method(maxRequestMessageBytes=-1), f"{M}.maxRequestMessageBytes",
     UINT32),
    (method(maxRequestMessageBytes="5"), f"{M}.maxRequestMessageBytes",
     UINT32),
    (method(maxResponseMessageBytes=1 << 32),
     f"{M}.maxResponseMessageBytes", UINT32),
    (method(maxResponseMessageBytes=1.5),
     f"{M}.maxResponseMessageBytes", UINT32),
    (method(retryPolicy=retry(), hedgingPolicy={"maxAttempts": 2}), M,
     "retryPolicy and hedgingPolicy exclude each other"),
    (with_retry(maxAttempts=None), f"{R}.maxAttempts", "is required"),
    (with_retry(maxAttempts=1), f"{R}.maxAttempts",
     "must be an integer of at least 2"),
    (with_retry(maxAttempts="3"), f"{R}.maxAttempts",
     "must be an integer of at least 2"),
    (with_retry(maxAttempts=2.5), f"{R}.maxAttempts",
     "must be an integer of at least 2"),
    (with_retry(initialBackoff=None), f"{R}.initialBackoff", "is required"),
    (with_retry(initialBackoff="x"), f"{R}.initialBackoff", RETRY_DURATION),
    (with_retry(initialBackoff="0s"), f"{R}.initialBackoff",
     "must be greater than 0"),
    (with_retry(maxBackoff=None), f"{R}.maxBackoff", "is required"),
    (with_retry(maxBackoff="1m"), f"{R}.maxBackoff", RETRY_DURATION),
    (with_retry(maxBackoff="0s"), f"{R}.maxBackoff",
     "must be greater than 0"),
    (with_retry(backoffMultiplier=None), f"{R}.backoffMultiplier",
     "is required"),
    (with_retry(backoffMultiplier=0), f"{R}.backoffMultiplier",
     "must be a number greater than 0"),
    (with_retry(backoffMultiplier="2"), f"{R}.backoffMultiplier",
     "must be a number greater than 0"),
    (with_retry(retryableStatusCodes=None), f"{R}.retryableStatusCodes",
     "is required"),
    (with_retry(retryableStatusCodes=[]), f"{R}.retryableStatusCodes",
     "must be a non-empty array"),
    (with_retry(retryableStatusCodes="UNAVAILABLE"),
     f"{R}.retryableStatusCodes", "must be a non-empty array"),
    (with_retry(retryableStatusCodes=["X"]), f"{R}.retryableStatusCodes",
     '"X" is not a status code'),
    (with_retry(retryableStatusCodes=["OK"]), f"{R}.retryableStatusCodes",
     "OK cannot be retried"),
    (with_retry(retryableStatusCodes=[0]), f"{R}.retryableStatusCodes",
     "OK cannot be retried"),
    ({"retryThrottling": {"tokenRatio": 1}}, "retryThrottling.maxTokens",
     "is required"),
    ({"retryThrottling": {"maxTokens": 0, "tokenRatio": 1}},
     "retryThrottling.maxTokens",
     "must be greater than 0 and at most 1000"),
    ({"retryThrottling": {"maxTokens": 1001, "tokenRatio": 1}},
     "retryThrottling.maxTokens",
     "must be greater than 0 and at most 1000"),
    ({"retryThrottling": {"maxTokens": 10}}, "retryThrottling.tokenRatio",
     "is required"),
    ({"retryThrottling": {"maxTokens": 10, "tokenRatio": 0.0004}},
     "retryThrottling.tokenRatio", "must be at least 0.001"),
    ({"loadBalancingConfig": {}}, "loadBalancingConfig",
     "must be an array of objects with one key"),
    ({"loadBalancingConfig": [{"a": {}, "b": {}}]}, "loadBalancingConfig",
     "must be an array of objects with one key"),
    ({"loadBalancingConfig": [{"xds": {}}]}, "loadBalancingConfig",
     "no known policy"),
    ({"loadBalancingConfig": [{"pick_first": {"shuffleAddressList": 1}}]},
     None, "must be true or false"),
    ({"loadBalancingConfig": [{"least_request": {"choiceCount": 11}}]},
     None, "must be an integer from 2 to 10"),
    ({"loadBalancingPolicy": "xds"}, "loadBalancingPolicy",
     'unknown policy "xds"'),
    ({"healthCheckConfig": {"serviceName": 1}},
     "healthCheckConfig.serviceName", "must be a string"),
    ({"connectionScaling": {"maxConnectionsPerSubchannel": -1}},
     "connectionScaling.maxConnectionsPerSubchannel", UINT32),
)


def check_config(folder, document, *more):
    path = os.path.join(folder, "service.json")
    with open(path, "w") as file:
        file.write(document if isinstance(document, str)
                   else json.dumps(document))
    code, text = check("--set", f"upstream.service_config={path}", *more)
    return code, text, path


@pytest.mark.parametrize("document, where, words", BROKEN, ids=[
    f"{n:02}-{where or 'document'}" for n, (_, where, _) in
    enumerate(BROKEN)])
def test_conf_02_broken_service_config(folder, document, where, words):
    code, text, path = check_config(folder, document)
    assert code == 2, text
    lines = [line for line in text.splitlines() if path in line]
    assert len(lines) == 1, text
    wanted = f"{path}: {where}: {words}" if where else words
    assert wanted in lines[0], text


VALID = (
    {}, {"methodConfig": None}, {"methodConfig": []},
    method(timeout="0s"), method(timeout="1.5s", waitForReady=True,
                                 maxRequestMessageBytes=0,
                                 maxResponseMessageBytes=4294967295),
    with_retry(maxAttempts=5.0), with_retry(initialBackoff="3s"),
    with_retry(backoffMultiplier=0.5),
    with_retry(retryableStatusCodes=[14, "aborted", "Internal"]),
    {"retryThrottling": {"maxTokens": 1000, "tokenRatio": 0.5466}},
    {"loadBalancingConfig": [{"xds": {}}, {"round_robin": {}}]},
    {"loadBalancingConfig": [{"least_request_experimental":
                              {"choiceCount": 3}}]},
    {"loadBalancingPolicy": "round_robin", "unknown": {"a": [1]}},
    {"connectionScaling": {"maxConnectionsPerSubchannel": 11}},
)


@pytest.mark.parametrize("document", VALID, ids=range(len(VALID)))
def test_conf_02_valid_service_config(folder, document):
    code, text, _ = check_config(folder, document)
    assert code == 0, text


@pytest.mark.parametrize("document, more, word", (
    (with_retry(maxAttempts=9), (), "maxAttempts"),
    (with_retry(retryableStatusCodes=["INTERNAL"]), (), "INTERNAL"),
    ({}, ("--set", "upstream.max_retry_attempts=1", "--set",
          "upstream.initial_backoff=5s"), "initial_backoff"),
    ({"methodConfig": [{"timeout": "1s"}]}, (), "name"),
    ({}, ("--set", "upstream.keepalive_time=5s"), "keepalive_time"),
    ({}, ("--set", "upstream.initial_backoff=5s"), "max_retry_attempts"),
    ({}, ("--set", "upstream.ambiguous=policy"), "ambiguous"),
), ids=("cap", "aip-194", "initial-above-max", "no-name", "keepalive",
        "no-attempts", "ambiguous"))
def test_conf_02_warnings(folder, document, more, word):
    code, text, _ = check_config(folder, document, *more)
    assert code == 0, text
    assert any("warn" in line and word in line
               for line in text.splitlines()), text


def test_conf_03_strange_documents(folder):
    code, text, path = check_config(folder, '{"a": 1,\n "b": }')
    assert code == 2 and re.search(re.escape(path) + r":2:\d+: ", text), text
    code, text, path = check_config(folder, '{"a": 1, "a": 2}')
    assert code == 2 and path in text
    code, text, path = check_config(folder, "[" * 5000)
    assert code == 2 and path in text
    blank = " " * ((1 << 20) - 2)
    assert check_config(folder, "{" + blank + "}")[0] == 0
    code, text, _ = check_config(folder, "{" + blank + " }")
    assert code == 2 and "file is larger than 1 MiB" in text
    code, text = check("--set", f"upstream.service_config={folder}/none")
    assert code == 2 and "cannot read" in text


def attempts(up, one, path):
    before = up.count
    one.unary(path, body=b"x")
    return up.count - before


def test_conf_04_most_specific_name(make_up, front):
    up = make_up(trailers_only(14))
    config = {"methodConfig": [
        *policy(2, name={})["methodConfig"],
        *policy(3, name={"service": "a.B"})["methodConfig"],
        *policy(4, name={"service": "a.B", "method": "M"})["methodConfig"],
        {"name": [{"service": "a.B", "method": "None"}], "timeout": "5s"}]}
    one = front(up, config=config, sets=["upstream.throttle_max_tokens=0"])
    assert attempts(up, one, "/x.Y/Z") == 2
    assert attempts(up, one, "/a.B/Other") == 3
    assert attempts(up, one, "/a.B/M") == 4
    assert attempts(up, one, "/a.B/None") == 1, "levels do not merge"


def test_conf_05_precedence(make_up, front):
    up = make_up(trailers_only(14))
    config = {"methodConfig": [
        *policy(3, name={"service": "a.B"})["methodConfig"],
        {"name": [{"service": "a.B", "method": "Plain"}], "timeout": "5s"}]}
    one = front(up, config=config, sets=blanket(4) + [
        "upstream.throttle_max_tokens=0",
        "upstream.no_retry_methods=/a.B/No*"])
    assert attempts(up, one, "/a.B/M") == 3, "the file wins"
    assert attempts(up, one, "/a.B/Plain") == 5, "INI where it is silent"
    assert attempts(up, one, "/x.Y/Z") == 5
    assert attempts(up, one, "/a.B/NoMore") == 1
    off = front(up, config=config, sets=["upstream.retries=transparent"])
    assert attempts(up, off, "/a.B/M") == 1, "the user can always disable"


def test_conf_06_gapic_mode(folder):
    document = with_retry(maxAttempts=None)
    code, text, path = check_config(folder, document)
    assert code == 2 and f"{path}: {R}.maxAttempts: is required" in text
    code, text, path = check_config(
        folder, document, "--set", "upstream.service_config_mode=gapic")
    assert code == 0 and "warn" in text, text


@pytest.mark.parametrize("source", ("file", "ini"))
def test_conf_08_message_limits(make_up, front, source):
    up = make_up()
    if source == "file":
        one = front(up, config={"methodConfig": [{
            "name": [{}], "maxRequestMessageBytes": 100,
            "maxResponseMessageBytes": 50}]})
    else:
        one = front(up, sets=["upstream.max_request_message_bytes=100",
                              "upstream.max_response_message_bytes=50"])
    assert one.unary(body=bytes(50)).status == 0
    over = one.unary(body=bytes(51))
    assert (over.status, over.grpc_message) == (
        8, "redial: response message of 51 bytes exceeds 50")
    over = one.unary(body=bytes(101))
    assert (over.status, over.grpc_message) == (
        8, "redial: request message of 101 bytes exceeds 100")
    up.script = lambda stream: (stream.wait_over(), stream.headers(
        OK_HEADERS + trailers(), end=True))
    assert one.unary(body=bytes(100)).status == 0


def test_conf_08_limit_in_a_stream(make_up, front):
    def script(stream):
        stream.wait_over()
        stream.headers(OK_HEADERS)
        for size in (10, 50, 51, 10):
            stream.data(message(bytes(size)))
        stream.headers(trailers(), end=True)
    up = make_up(script)
    one = front(up, sets=["upstream.max_response_message_bytes=50"])
    stream = one.unary(body=b"x")
    assert stream.status == 8
    assert stream.grpc_message \
        == "redial: response message of 51 bytes exceeds 50"
    assert stream.received <= 15 + 55 + 5 + 51


def test_conf_08_only_empty_messages(make_up, front):
    one = front(make_up(), config={"methodConfig": [{
        "name": [{}], "maxRequestMessageBytes": 0}]})
    assert one.unary(body=b"").status == 0
    assert one.unary(body=b"x").status == 8


def labelled(one, name):
    """{labels: value} of one metric."""
    found = {}
    for line in one.redial.http("/metrics")[1].splitlines():
        match = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
        if match:
            found[match[1] or ""] = float(match[2])
    return found


def reasons(one):
    return {re.search(r'reason="([^"]*)"', labels)[1]: value
            for labels, value in labelled(
                one, "redial_grpc_not_retried_total").items() if value}


REASONS = {
    # reason: (script, sets, policy)
    "ok": (echo_script, [], None),
    "no_policy": (trailers_only(14), [], None),
    "disabled": (trailers_only(14), ["upstream.retries=transparent"],
                 policy(3)),
    "pushback": (trailers_only(14, "x", ("grpc-retry-pushback-ms", "-1")), [],
                 policy(3)),
    "code": (trailers_only(5), [], policy(3)),
    "unsafe": (drop, blanket(2), None),
    "attempts": (trailers_only(14), [], policy(2)),
    "throttled": (trailers_only(14), ["upstream.throttle_max_tokens=1"],
                  policy(3)),
    "retry_overflow": (trailers_only(14), [
        "upstream.max_concurrent_retries=0",
        "upstream.max_concurrent_retry_percent=0"], policy(3)),
    "pushback_too_long": (trailers_only(
        14, "x", ("grpc-retry-pushback-ms", "61000")), [], policy(3)),
}


@pytest.mark.parametrize("reason", REASONS)
def test_conf_10_reasons(make_up, front, reason):
    script, sets, config = REASONS[reason]
    one = front(make_up(script), sets=sets, config=config)
    one.unary(body=b"x")
    assert reasons(one) == {reason: 1}


def test_conf_10_other_reasons(make_up, front):
    def late(stream):
        stream.wait_over()
        stream.headers(OK_HEADERS)
        stream.data(message(b"x"))
        stream.headers(trailers(14), end=True)
    one = front(make_up(late), config=policy(3))
    one.unary(body=b"x")
    assert reasons(one) == {"committed": 1}
    one = front(make_up(silent), config=policy(3))
    one.unary("/test.Svc/Unary", ("grpc-timeout", "100m"), body=b"x")
    assert reasons(one) == {"local": 1}
    one = front(make_up(trailers_only(14)), config=policy(3, backoff="1s"))
    one.unary("/test.Svc/Unary", ("grpc-timeout", "300m"), body=b"x")
    assert reasons(one) == {"deadline": 1}
    one = front(f"{HOST}:{free_port()}",
                sets=["upstream.max_wait_for_ready=300ms"])
    one.unary(body=b"x")
    assert reasons(one) == {"no_connection": 1}


def test_conf_11_retries_of_a_call(make_up, front):
    up = make_up([refuse, trailers_only(14), trailers_only(14), echo_script])
    one = front(up, config=policy(5, backoff="0.1s"))
    assert one.unary(body=b"x").status == 0

    def total(name):
        values = [v for metric in (f"{name}_sum", f"redial_{name}_sum")
                  for v in labelled(one, metric).values()]
        return sum(values)
    assert total("grpc_client_call_retries") == 2
    assert total("grpc_client_call_transparent_retries") == 1
    gaps = sum(up.requests[n + 1].times[0] - up.requests[n].times[-1]
               for n in (1, 2))
    assert abs(total("grpc_client_call_retry_delay") - gaps) < 0.08


def test_conf_12_unknown_methods_are_one_label(make_up, front):
    one = front(make_up(), config=policy(2, service="named.Svc"))
    for n in range(100):
        assert one.unary(f"/test.Svc/M{n}", body=b"").status == 0
    text = one.redial.http("/metrics")[1]
    assert 'method="other"' in text
    assert "test.Svc" not in text


def test_conf_13_secrets_and_control_bytes(make_up, front):
    secret = "hunter2-correct-horse"
    up = make_up([drop, echo_script])
    one = front(up, secrets=[secret], sets=["log.level=debug"])
    one.unary("/test.Svc/Unary", ("authorization", f"Bearer {secret}"),
              ("x-key", secret), body=secret.encode())
    one.unary("/test.Svc/a\x7fb%0a\"", ("x-key", secret), body=b"x")
    log = one.redial.log()
    assert "\x7f" not in log
    assert secret not in log and secret not in one.redial.http("/events")[1]
