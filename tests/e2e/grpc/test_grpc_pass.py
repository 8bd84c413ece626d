"""What passes through, and what is answered without passing (grpc.md pass-*)."""

import json
import os
import signal
import subprocess
import sys
import time

import grpc
import pytest

from backends import call
from downstream import request_fields
from peer import (CANCEL, MAX_HEADER_LIST_SIZE, NO_ERROR, PROTOCOL_ERROR,
                  message, messages)
from policies import policy
from servers import HOST
from upstream import (OK_HEADERS, echo as echo_script, silent, trailers,
                      trailers_only)

SHAPES = ("Unary", "ClientStream", "ServerStream", "Bidi")
SIZES = (0, 1, 1 << 20)


def talk(channel, shape, parts, **options):
    """What came back, as a list."""
    method = call(channel, shape)
    single = shape in ("Unary", "ServerStream")
    reply = method(parts[0] if single else iter(parts), timeout=60, **options)
    return [reply] if shape in ("Unary", "ClientStream") else list(reply)


def expected(shape, parts):
    if shape == "ClientStream":
        return [b"".join(parts)]
    return parts if shape == "Bidi" else parts[:1]


@pytest.mark.parametrize("gzip", (False, True), ids=("plain", "gzip"))
@pytest.mark.parametrize("shape", SHAPES)
def test_pass_01_same_bytes(echo, echo_port, channel_to, shape, gzip):
    channel = channel_to(echo_port)
    for size in SIZES:
        part = os.urandom(size // 2) + bytes(size - size // 2)
        parts = [part, b"", part[:7]]
        name = f"pass-01-{shape}-{gzip}-{size}"
        do = {"gzip": gzip}
        got = talk(channel, shape, parts,
                   metadata=[("call-id", name), ("do", json.dumps(do))],
                   compression=grpc.Compression.Gzip if gzip else None)
        assert got == expected(shape, parts), f"{shape} of {size}"
        assert echo.executions.count(name) == 1


def test_pass_02_metadata_of_real_clients(echo_port, channel_to):
    channel = channel_to(echo_port)
    sent = [("x-a", "1"), ("x-b-bin", b"\0,\xff,"), ("x-a", "2, 3"),
            ("x-c", ""), ("x-a", "1"), ("x-b-bin", b"")]
    reply, seen = call(channel).with_call(
        b"", timeout=20,
        metadata=[*sent, ("do", '{"echo":"both"}')])
    for place in (seen.initial_metadata(), seen.trailing_metadata()):
        back = [pair for pair in place if pair[0].startswith("x-")]
        for key in ("x-a", "x-b-bin", "x-c"):
            assert [v for k, v in back if k == key] \
                == [v for k, v in sent if k == key], key
    text = "na\u00efve % \u2603\n\u65e5\u672c"
    with pytest.raises(grpc.RpcError) as error:
        call(channel)(b"", timeout=20, metadata=[
            ("do", json.dumps({"status": 9, "message": text}))])
    assert error.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert error.value.details() == text


def test_pass_02_order_and_unknown_names(make_up, front):
    up = make_up()
    extra = [("user-agent", "x/1"), ("b", "2"), ("grpc-x", "u"), ("a", "1"),
             ("b", "1"), ("grpc-encoding", "identity"), ("k-bin", "AP8")]
    stream = front(up).unary("/test.Svc/Unary", ("grpc-timeout", "5S"),
                             *extra, authority="db.test", body=b"x")
    assert stream.status == 0
    fields = up.requests[0].fields
    assert [name for name, _ in fields[:7]] \
        == [":method", ":scheme", ":path", ":authority", "te", "grpc-timeout",
            "content-type"]
    assert fields[:4] == [(":method", "POST"), (":scheme", "http"),
                          (":path", "/test.Svc/Unary"),
                          (":authority", "db.test")]
    assert fields[7:] == extra, "in the received order, nothing added"


def test_pass_03_trailers_only_stays_one_block(make_up, front):
    extra = [("x-one", "1"), ("grpc-status-details-bin", "CAU"),
             ("x-one", "2")]
    up = make_up(trailers_only(5, "no such %E2%98%83 thing", *extra))
    stream = front(up).unary(body=b"x")
    assert stream.trailers_only, stream
    assert stream.fields == OK_HEADERS + trailers(
        5, "no such %E2%98%83 thing", *extra)


def test_pass_04_two_blocks_in_order(make_up, front):
    def script(stream):
        stream.wait_over()
        stream.headers(OK_HEADERS + [("x-h", "1")])
        stream.data(message(b"one"))
        stream.data(message(b"two"))
        stream.headers(trailers(3, "bad", ("grpc-status-details-bin", "CAM"),
                                ("x-t", "1")), end=True)
    stream = front(make_up(script)).unary(body=b"x")
    assert [fields for fields, _ in stream.blocks] == [
        OK_HEADERS + [("x-h", "1")],
        trailers(3, "bad", ("grpc-status-details-bin", "CAM"), ("x-t", "1"))]
    assert messages(stream.body) == [b"one", b"two"]
    kinds = [event[0] for event in stream.events]
    assert kinds[0] == kinds[-1] == "headers" and "headers" not in kinds[1:-1]


def test_pass_05_informational_blocks_are_dropped(make_up, front):
    def script(stream):
        stream.wait_over()
        stream.headers([(":status", "103"), ("link", "</x>")])
        stream.headers([(":status", "100")])
        echo_script(stream)
    stream = front(make_up(script)).unary(body=b"x")
    assert stream.status == 0 and stream.get(":status") == "200"
    assert len(stream.blocks) == 2 and stream.get("link") is None


@pytest.mark.parametrize("options, http, text", (
    ({"method": "GET"}, "405", "redial: method must be POST"),
    ({"content_type": "text/plain"}, "415",
     "redial: unsupported content-type"),
    ({"content_type": "application/grpc-web"}, "415",
     "redial: unsupported content-type"),
    ({"content_type": None}, "415", "redial: unsupported content-type"),
), ids=("get", "plain", "web", "absent"))
def test_pass_06_not_grpc(make_up, front, options, http, text):
    up = make_up()
    stream = front(up).unary(body=b"x", **options)
    assert stream.get(":status") == http
    assert (stream.status, stream.grpc_message) == (13, text)
    assert stream.trailers_only and up.count == 0


@pytest.mark.parametrize("kind", ("application/grpc+json",
                                  "application/grpc;x=1"))
def test_pass_06_other_grpc(make_up, front, kind):
    up = make_up()
    stream = front(up).unary(content_type=kind, body=b"x")
    assert stream.status == 0
    assert up.requests[0].get("content-type") == kind


def test_pass_06_open_request_is_reset_after_the_answer(make_up, front):
    stream = front(make_up()).start(method="GET", body=b"x", end=False)
    stream.wait_reset()
    assert stream.events == [("headers", True), ("reset", NO_ERROR)]


@pytest.mark.parametrize("path", ("/a", "//a/b", "/a/", "/"))
def test_pass_07_malformed_path(make_up, front, path):
    up = make_up()
    stream = front(up).unary(path, body=b"x")
    assert (stream.status, stream.grpc_message) \
        == (12, "redial: malformed method path")
    assert up.count == 0


def test_pass_07_other_paths(make_up, front):
    up = make_up()
    one = front(up)
    assert one.start("a/b", body=b"x").wait_over().reset == PROTOCOL_ERROR
    assert one.unary("/a/b/m", body=b"x").status == 0
    assert up.paths() == ["/a/b/m"]


def size_of(fields):
    return sum(len(name) + len(value) + 32 for name, value in fields)


def test_pass_08_header_limits(make_up, front):
    up = make_up()
    one = front(up, sets=["listener.max_header_list_size=4KiB"])
    plain = request_fields()

    def padded(size):
        return plain + [("x", "v" * (size - size_of(plain) - 33))]
    assert size_of(padded(4096)) == 4096
    assert one.start(fields=padded(4096), body=b"").wait_over().status == 0
    over = one.start(fields=padded(4097), body=b"").wait_over()
    assert (over.status, over.grpc_message) \
        == (8, "redial: request headers exceed 4096 bytes")
    far = one.start(fields=padded(60000), body=b"").wait_over()
    assert far.status == 8
    assert one.unary(body=b"x").status == 0, "the next stream works"
    assert up.count == 2


def test_pass_08_field_limits(make_up, front):
    up = make_up()
    one = front(up)
    plain = request_fields()
    many = [(f"x{n:03}", "") for n in range(300)]
    assert one.start(fields=plain + many[:256 - len(plain)],
                     body=b"").wait_over().status == 0
    over = one.start(fields=plain + many[:257 - len(plain)],
                     body=b"").wait_over()
    assert (over.status, over.grpc_message) \
        == (8, "redial: request headers exceed 256 fields")
    assert one.unary(body=b"x").status == 0, "the next stream works"
    assert up.count == 2


def test_pass_09_te_host_and_bad_values(make_up, front):
    up = make_up()
    one = front(up)
    assert one.unary(te=None, body=b"").status == 0
    assert up.requests[-1].get("te") == "trailers"
    assert one.unary("/test.Svc/Host", ("host", "db.test"), authority=None,
                     body=b"").status == 0
    assert up.requests[-1].get(":authority") == "db.test"
    assert up.requests[-1].get("host") is None
    assert one.unary("/test.Svc/Bad", ("x-bad", "a\x01b"), ("x-good", "1"),
                     body=b"").status == 0
    assert up.requests[-1].get("x-bad") is None
    assert up.requests[-1].get("x-good") == "1"
    assert one.unary("/test.Svc/Trim", ("x-t", "  a b \t"),
                     body=b"").status == 0
    assert up.requests[-1].get("x-t") == "a b"
    assert one.unary("/test.Svc/Length", ("content-length", "5"),
                     body=b"").status == 0
    assert up.requests[-1].get("content-length") is None


@pytest.mark.parametrize("extra, options", (
    ([("connection", "x")], {}), ([], {"authority": None}),
    ([("X-Upper", "1")], {}), ([(":late", "1")], {}),
), ids=("connection", "no-authority", "upper-case", "late-pseudo"))
def test_pass_09_reset(make_up, front, extra, options):
    up = make_up()
    one = front(up)
    stream = one.start("/test.Svc/Unary", *extra, body=None, **options)
    assert stream.wait_over().reset == PROTOCOL_ERROR, stream
    assert one.unary(body=b"x").status == 0
    assert up.count == 1


def test_pass_10_unix_listener(make_up, front, folder):
    up = make_up()
    one = front(up, listen=f"unix:{folder}/s")
    for authority in ("/run/x.sock", "%2frun%2fx.sock", "localhost"):
        stream = one.unary(authority=authority, body=b"x")
        assert stream.status == 0, stream
        assert up.requests[-1].get(":authority") in ("localhost", up.target)
    count = up.count
    for fields in (
            [("te", "trailers")] + request_fields(),
            request_fields() + [(":path", "/a/b")],
            [(k, v) for k, v in request_fields() if k != ":scheme"],
            request_fields() + [("connection", "close")],
            request_fields() + [("Upper", "1")],
            [(":x", "1")] + request_fields()):
        stream = one.start(fields=fields).wait_over()
        assert stream.reset == PROTOCOL_ERROR, (fields, stream)
    assert one.unary(body=b"x").status == 0
    assert up.count == count + 1


def test_pass_11_authority(make_up, front):
    up = make_up()

    def seen(one, authority):
        assert one.unary(authority=authority, body=b"").status == 0
        return up.requests[-1].get(":authority")
    auto = front(url=f"grpc://localhost:{up.port}")
    assert seen(auto, "localhost:9") == f"localhost:{up.port}"
    assert seen(auto, "127.0.0.1:9") == f"localhost:{up.port}"
    assert seen(auto, "[::1]:9") == f"localhost:{up.port}"
    assert seen(auto, "db.test") == "db.test"
    assert seen(auto, "db.test:77") == "db.test:77"
    assert seen(front(up, sets=["upstream.authority=pass"]),
                "localhost:9") == "localhost:9"
    assert seen(front(up, sets=["upstream.authority=fixed.test:1"]),
                "db.test") == "fixed.test:1"


def test_pass_12_endpoint_takes_small_headers_only(make_up, front):
    up = make_up(settings={MAX_HEADER_LIST_SIZE: 200})
    stream = front(up).unary("/test.Svc/Unary", ("x", "v" * 400), body=b"")
    assert stream.status == 8
    assert stream.grpc_message \
        == "redial: request headers exceed the endpoint's limit"
    assert up.count == 0


def test_pass_12_client_takes_small_headers_only(make_up, front):
    def script(stream):
        stream.wait_over()
        stream.headers(OK_HEADERS + [("x", "v" * 400)])
        stream.headers(trailers(), end=True)
    up = make_up(script)
    dn = front(up).new_dn(settings={MAX_HEADER_LIST_SIZE: 300})
    stream = dn.unary(body=b"")
    assert stream.status == 8
    assert stream.grpc_message \
        == "redial: response headers exceed the client's limit"


@pytest.mark.parametrize("pad, text", (
    ([("x", "v" * 9000)], "redial: response headers exceed 4096 bytes"),
    ([("x", "")] * 300, "redial: response headers exceed 256 fields"),
), ids=("bytes", "fields"))
def test_pass_13_response_headers_over_the_limit(make_up, front, pad, text):
    def script(stream):
        stream.wait_over()
        stream.headers(OK_HEADERS + pad)
        stream.wait_reset()
    up = make_up(script)
    kib = 4 if "bytes" in text else 64
    one = front(up, sets=[f"upstream.max_header_list_size={kib}KiB"])
    stream = one.unary(body=b"")
    assert (stream.status, stream.grpc_message) == (8, text)
    up.requests[0].wait_reset()
    assert up.requests[0].reset == CANCEL
    up.script = echo_script
    assert one.unary(body=b"x").status == 0, "the connection goes on"
    assert up.accepted == 1


@pytest.mark.parametrize("value", ("00", "17", "x", "-1", "", "0 ", "+1"))
def test_pass_14_bad_grpc_status(make_up, front, value):
    def script(stream):
        stream.wait_over()
        stream.headers(OK_HEADERS)
        stream.headers([("grpc-status", value)], end=True)
    stream = front(make_up(script)).unary(body=b"")
    if value == "0 ":  # white space around a value is no part of it
        assert stream.status == 0
    else:
        assert stream.status == 2


def test_pass_14_absent_grpc_status(make_up, front):
    def script(stream):
        stream.wait_over()
        stream.headers(OK_HEADERS)
        stream.headers([("x", "1")], end=True)
    up = make_up(script)
    stream = front(up).unary(body=b"")
    assert stream.status == 2
    assert "without grpc-status" in stream.grpc_message
    assert up.target in stream.grpc_message


def status_then_empty_data(status):
    def script(stream):
        stream.wait_over()
        stream.headers(OK_HEADERS + trailers(status, "early"))
        stream.data(b"", end=True)
    return script


def test_pass_15_status_in_headers_then_empty_data(make_up, front):
    stream = front(make_up(status_then_empty_data(5))).unary(body=b"")
    assert (stream.last("grpc-status"), stream.last("grpc-message")) \
        == ("5", "early")


def test_pass_15_counts_as_trailers_only(make_up, front):
    up = make_up([status_then_empty_data(14), echo_script])
    assert front(up, config=policy(3)).unary(body=b"x").status == 0
    assert up.count == 2


def test_pass_16_grpc_status_wins(make_up, front):
    def script(stream):
        stream.wait_over()
        stream.headers([(":status", "503"),
                        ("content-type", "application/grpc"),
                        ("grpc-status", "5")], end=True)
    assert front(make_up(script)).unary(body=b"").status == 5


HTTP_STATUS = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 431: 13, 500: 2,
               502: 14, 503: 14, 504: 14, 200: 2, 418: 2}


def test_pass_17_html(make_up, front):
    def script(stream):
        stream.wait_over()
        code = stream.path.rsplit("/", 1)[1]
        stream.headers([(":status", code), ("content-type", "text/html")])
        stream.data(b"<h1>secret</h1>", end=True)
    up = make_up(script)
    one = front(up)
    for http, status in HTTP_STATUS.items():
        stream = one.unary(f"/test.Svc/{http}", body=b"")
        assert stream.status == status, http
        assert stream.get(":status") == "200"
        assert stream.trailers_only and not stream.body, stream
        wanted = 'content-type "text/html"' if http == 200 \
            else f"HTTP status {http}"
        assert stream.grpc_message == f"redial: {wanted} from {up.target}"
    assert up.count == len(HTTP_STATUS)


RESET_STATUS = {8: 1, 11: 8, 12: 7}
RESET_NAMES = ("NO_ERROR PROTOCOL_ERROR INTERNAL_ERROR FLOW_CONTROL_ERROR "
               "SETTINGS_TIMEOUT STREAM_CLOSED FRAME_SIZE_ERROR "
               "REFUSED_STREAM CANCEL COMPRESSION_ERROR CONNECT_ERROR "
               "ENHANCE_YOUR_CALM INADEQUATE_SECURITY "
               "HTTP_1_1_REQUIRED").split()


def test_pass_18_reset_by_the_endpoint(make_up, front):
    def script(stream):
        stream.wait_over()
        stream.rst(int(stream.path.rsplit("/", 1)[1]))
    up = make_up(script)
    one = front(up)
    codes = [code for code in range(14) if code != 7]
    for code in codes:
        stream = one.unary(f"/test.Svc/{code}", body=b"")
        assert stream.status == RESET_STATUS.get(code, 13), code
        assert stream.grpc_message == \
            f"redial: stream reset by {up.target}: {RESET_NAMES[code]}"
    assert one.unary("/test.Svc/99", body=b"").status == 13
    assert up.count == len(codes) + 1, "each ran once"


def test_pass_19_response_before_the_request_ends(make_up, front):
    def script(stream):
        stream.wait_data(1)
        stream.headers(OK_HEADERS)
        stream.data(message(b"early"))
        stream.headers(trailers(0), end=True)
        stream.wait_reset()
    up = make_up(script)
    stream = front(up).start(body=b"part", end=False).wait_reset()
    assert messages(stream.body) == [b"early"]
    assert stream.status == 0
    assert stream.events[-2:] == [("headers", True), ("reset", NO_ERROR)]
    up.requests[0].wait_reset()
    assert up.requests[0].reset == NO_ERROR


def test_pass_20_request_trailers(make_up, front):
    up = make_up()
    stream = front(up).start(body=b"x", end=False)
    stream.headers([("x-trailer", "1")], end=True)
    assert stream.wait_over().status == 0
    request = up.requests[0]
    assert request.ended and len(request.blocks) == 1
    assert messages(request.body) == [b"x"]


# --- cancellation

def test_pass_21_cancel_while_queued(make_up, front, until):
    up = make_up(start=False)
    one = front(up)
    stream = one.start(body=b"never")
    one.dn.ping_pong()
    stream.rst(CANCEL)
    one.dn.ping_pong()
    up.start()
    assert one.unary("/test.Svc/Next", body=b"x").status == 0
    assert up.paths() == ["/test.Svc/Next"]


def test_pass_21_cancel_before_the_response(make_up, front, until):
    up = make_up(silent)
    one = front(up)
    for half_closed in (True, False):
        stream = one.start(body=b"x", end=half_closed)
        until(lambda: up.count and up.requests[-1].body, "the request")
        stream.rst(CANCEL)
        up.requests[-1].wait_reset(1)
        assert up.requests[-1].reset == CANCEL


def test_pass_21_cancel_during_the_response(make_up, front):
    def script(stream):
        stream.wait_over()
        stream.headers(OK_HEADERS)
        stream.data(message(b"first"))
        stream.wait_reset()
    up = make_up(script)
    one = front(up)
    stream = one.start(body=b"x").wait_data(10)
    stream.rst(CANCEL)
    up.requests[0].wait_reset(1)
    assert up.requests[0].reset == CANCEL
    up.script = echo_script
    assert one.unary(body=b"x").status == 0
    assert up.accepted == 1


def test_pass_21_cancel_in_backoff(make_up, front, until):
    up = make_up([trailers_only(14), echo_script])
    one = front(up, config=policy(3, backoff="0.5s"))
    stream = one.start(body=b"x")
    until(lambda: up.count == 1, "the first attempt")
    up.requests[0].peer.ping_pong()
    stream.rst(CANCEL)
    one.dn.ping_pong()
    time.sleep(0.8)  # longer than the backoff: nothing may follow
    assert up.count == 1


def test_pass_21_client_is_killed(make_up, front, until):
    up = make_up(silent)
    one = front(up)
    child = subprocess.Popen(
        [sys.executable, "-c", f"""
import grpc
c = grpc.insecure_channel("{HOST}:{one.port}")
c.unary_unary("/test.Svc/Unary")(b"x")
"""])
    until(lambda: up.count == 1, "the call")
    child.send_signal(signal.SIGKILL)
    child.wait()
    up.requests[0].wait_reset(2)
    assert up.requests[0].reset == CANCEL


def test_pass_21_fin_after_the_request(make_up, front, until):
    up = make_up(silent)
    dn = front(up).new_dn()
    dn.start(body=b"x")
    until(lambda: up.count == 1, "the call")
    dn.sock.shutdown(1)
    up.requests[0].wait_reset(2)
    assert up.requests[0].reset == CANCEL
    dn.wait_closed()


def test_pass_21_real_client_cancels(echo, echo_port, channel_to, until):
    channel = channel_to(echo_port)
    future = call(channel).future(b"", metadata=[
        ("call-id", "pass-21"), ("do", '{"sleep":30}')])
    until(lambda: echo.executions.count("pass-21"), "the call")
    future.cancel()
    until(lambda: echo.executions.count("pass-21", "cancelled"),
          "the cancel", 2)


def test_pass_22_too_many_calls(make_up, front, until):
    up = make_up(silent)
    one = front(up, sets=["grpc.max_calls=2"])
    waiting = [one.start(body=b"x") for _ in range(2)]
    until(lambda: up.count == 2, "both calls")
    stream = one.unary(body=b"x")
    assert (stream.status, stream.grpc_message) \
        == (14, "redial: too many calls")
    assert stream.last("grpc-retry-pushback-ms") == "-1"
    waiting[0].rst(CANCEL)
    up.requests[0].wait_reset()
    up.script = echo_script
    assert one.unary(body=b"x").status == 0
