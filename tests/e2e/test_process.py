"""redial as a process: start, drain, end, and what it shows of itself."""

import json
import re
import signal
import socket
import subprocess
import time

import pytest

from relay import RST, TO_CLIENT
from resp import ReplyError
from servers import HOST, free_port, redial_path
from wait import wait_until

pytestmark = pytest.mark.needs_redial


def refused(address):
    with socket.socket() as s:
        return s.connect_ex(address) != 0


def test_sigterm_finishes_what_is_in_flight(redis, make_redial, make_relay):
    relay = make_relay(redis.port)
    redial = make_redial(relay.url)
    busy, idle = redial.connect(), redial.connect()
    assert idle.call("PING") == b"PONG"
    assert busy.call("PING") == b"PONG"
    relay.hold_to_client = True
    busy.send("INCR", "n")
    wait_until(lambda: redis.call("GET", "n") == b"1", "the INCR")
    redial.signal(signal.SIGTERM)
    assert idle.read_to_end() == b"", "idle clients are closed"
    assert redial.running()
    assert refused(redial.address), "no new ones"
    relay.hold_to_client = False
    assert busy.read() == 1
    assert busy.read_to_end() == b""
    redial.child.wait(10)
    assert redial.child.returncode == 0


def test_sigterm_waits_no_longer_than_drain_timeout(redis, make_redial):
    redial = make_redial(redis.url, sets=["redial.drain_timeout=400ms"])
    with redial.connect() as c:
        assert c.call("PING") == b"PONG"
        redis.stop_running()
        c.send("INCR", "n")
        wait_until(lambda: redial.metric("requests_in_flight") >= 1,
                   "the INCR to be sent")
        started = time.monotonic()
        redial.signal(signal.SIGTERM)
        error = c.read()
        assert isinstance(error, ReplyError)
        assert error.code == "UNKNOWNOUTCOME", error
        assert c.read_to_end() == b""
        redial.child.wait(10)
        assert 0.3 < time.monotonic() - started < 5
        assert redial.child.returncode == 0
        redis.go_on()


def test_sigterm_while_the_server_is_away(make_redis, make_redial):
    redis = make_redis(start=False)
    redial = make_redial(redis.url, sets=["redial.drain_timeout=300ms"])
    with redial.connect() as c:
        c.send("INCR", "n")
        wait_until(lambda: redial.metric("requests_held") >= 1, "the INCR")
        redial.signal(signal.SIGTERM)
        error = c.read()
        assert isinstance(error, ReplyError) and error.code == "NOTAPPLIED"
        redial.child.wait(10)
        assert redial.child.returncode == 0


def test_sigint_and_a_second_signal_end_it_too(redis, make_redial):
    redial = make_redial(redis.url)
    redial.signal(signal.SIGINT)
    redial.child.wait(10)
    assert redial.child.returncode == 0
    redial = make_redial(redis.url)
    with redial.connect() as c:
        assert c.call("PING") == b"PONG"
        redis.stop_running()
        c.send("GET", "k")
        wait_until(lambda: redial.metric("requests_in_flight") >= 1, "GET")
        redial.signal(signal.SIGTERM)
        wait_until(lambda: refused(redial.address), "the drain to begin")
        redial.signal(signal.SIGTERM)
        redial.child.wait(8)
        redial.checked = True  # its exit code is not promised
        redis.go_on()


def run(*args):
    return subprocess.run([redial_path(), *args], capture_output=True,
                          text=True, timeout=20)


def test_version_and_help():
    assert re.search(r"\d+\.\d+\.\d+", run("--version").stdout)
    help_ = run("--help")
    assert help_.returncode == 0 and "--listen" in help_.stdout
    options = run("--help-config")
    assert options.returncode == 0 and "attempt_timeout" in options.stdout


def test_check_prints_all_errors(tmp_path):
    path = tmp_path / "bad.ini"
    path.write_text("[upstream default]\naddress = 127.0.0.1:6379\n"
                    "retris = 3\ndeadline = soon\n[listner a]\n")
    done = run("--check", "-c", str(path))
    words = done.stdout + done.stderr
    assert done.returncode != 0
    assert all(f"bad.ini:{line}" in words for line in (3, 4, 5)), words
    assert "retries" in words, "a suggestion"
    path.write_text("[upstream default]\naddress = 127.0.0.1:6379\n")
    assert run("--check", "-c", str(path)).returncode == 0


def test_an_address_in_use_is_told(redis):
    done = run("--listen", f"{HOST}:{redis.port}", redis.url)
    assert done.returncode != 0
    assert f":{redis.port}" in done.stderr and "use" in done.stderr


def test_a_public_address_must_be_meant(redis):
    done = run("--listen", f"0.0.0.0:{free_port()}", redis.url)
    assert done.returncode != 0 and "bind_public" in done.stderr


def test_metrics_are_prometheus_text(redis, make_redial):
    redial = make_redial(redis.url)
    with redial.connect() as c:
        c.pipeline([("SET", "k", "v"), ("GET", "k"), ("NOSUCH",)] * 10)
    status, text = redial.http("/metrics")
    assert status == 200
    types, seen = {}, set()
    sample = re.compile(r'^([a-z_]+)(\{([a-z_]+="[^"]*",?)*\})? '
                        r'(-?\d+(\.\d+)?(e[+-]?\d+)?|\+Inf|NaN)$')
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in types, f"{name} twice"
            types[name] = kind
            continue
        if line.startswith("# HELP ") or not line:
            continue
        match = sample.match(line)
        assert match, line
        assert match.group(1, 2) not in seen, f"{line} twice"
        seen.add(match.group(1, 2))
        base = re.sub(r"_(bucket|sum|count)$", "", match.group(1))
        assert match.group(1) in types or base in types, line
    assert "histogram" in types.values()
    assert redial.metric("requests") == 30
    assert redial.metric("server_errors") == 10


def test_live_ready_config_and_events(make_redis, make_redial):
    redis = make_redis(start=False)
    redial = make_redial(redis.url)
    assert redial.http("/live")[0] == 200
    assert redial.http("/ready")[0] == 503
    redis.start()
    wait_until(lambda: redial.http("/ready")[0] == 200, "ready")
    status, text = redial.http("/config")
    assert status == 200 and "attempt_timeout" in text
    with redial.connect() as c:
        assert c.call("PING") == b"PONG"
    events = json.loads(redial.http("/events")[1])
    assert events, "state changes are events"
    assert redial.http("/no-such-page")[0] == 404


def test_retries_are_logged_without_keys_and_values(redis, make_redial,
                                                    make_relay):
    relay = make_relay(redis.port)
    for form in ("logfmt", "json"):
        redial = make_redial(relay.url, sets=[f"log.format={form}"],
                             secrets=["key-of-app", "value-of-app"])
        with redial.connect() as c:
            assert c.call("SET", "key-of-app", "value-of-app") == b"OK"
            relay.cut(TO_CLIENT, 0, RST)
            assert c.call("GET", "key-of-app") == b"value-of-app"
            relay.cut(TO_CLIENT, 0, RST)
            assert c.call("APPEND", "key-of-app", "value-of-app").code \
                == "UNKNOWNOUTCOME"
        wait_until(lambda: "APPEND" in redial.log().upper(), "the log lines")
        log = redial.log()
        assert "GET" in log.upper()
        if form == "json":
            for line in log.splitlines():
                json.loads(line)


def test_redis_cli_authentication_is_not_logged(make_redis, make_redial):
    redis = make_redis(start=False, options=["--requirepass", "pw-secret-3"])
    redis.password = "pw-secret-3"
    redis.start()
    redial = make_redial(f"redis://{HOST}:{redis.port}",
                         sets=["log.level=debug"],
                         secrets=["pw-secret-3", "pw-typo-4", "pw-new-5"])
    with redial.connect() as c:
        assert c.call("AUTH", "pw-typo-4").startswith("WRONGPASS")
        assert c.call("AUTH", "pw-secret-3") == b"OK"
        assert c.call("ACL", "SETUSER", "x", "on", ">pw-new-5") == b"OK"
        assert c.call("CONFIG", "SET", "masterauth", "pw-new-5") == b"OK"
        redis.kill9()
        redis.restart()
        assert c.call("GET", "k") is None
