"""Real clients against real servers: grpcio, grpc-js, libgrpc++. What
test_grpc_pass.py does not have yet: what is large, many, or slow."""

import json
import os
import subprocess
import threading
import time

import grpc
import pytest

from backends import call, cpp_echo
from servers import rss_bytes

MIB = 1 << 20
needs_cpp = pytest.mark.skipif(cpp_echo() is None,
                               reason="built without libgrpc++")


def test_grpc_js_talks(echo_port, node):
    node("talk", echo_port)


def test_grpc_js_to_a_grpc_js_server(make_server, front, node, direct):
    server = make_server(kind="node")
    node("talk", server.port if direct else front(server).port)


def test_grpc_js_1000_calls_at_once(echo_port, node):
    node("many", echo_port)


def test_grpc_js_large_messages(echo_port, node):
    node("large", echo_port, timeout=120)


def test_c_core_1000_calls_at_once(echo, echo_port, channel_to):
    method = call(channel_to(echo_port))
    futures = [method.future(b"%d" % n, timeout=30, metadata=[
        ("call-id", f"many-{n}"), ("do", '{"sleep":0.2}')])
        for n in range(1000)]
    for n, future in enumerate(futures):
        assert future.result() == b"%d" % n
    counts = echo.executions.counts()
    assert all(counts[f"many-{n}"] == 1 for n in range(1000))


@pytest.mark.parametrize("shape", ("Unary", "Bidi"))
def test_c_core_64_mib_messages(echo_port, channel_to, shape):
    method = call(channel_to(echo_port), shape)
    data = os.urandom(MIB) * 64
    if shape == "Unary":
        assert method(data, timeout=60) == data
    else:
        assert list(method(iter([data]), timeout=60)) == [data]


def test_c_core_slow_reader(echo_port, channel_to):
    """64 MiB, 1 MiB each 10 ms; another client is not held up."""
    stream = call(channel_to(echo_port), "ServerStream")(
        b"", timeout=60, metadata=[
            ("do", json.dumps({"size": MIB, "count": 64}))])
    other = call(channel_to(echo_port))
    slowest, ended = [0.0], threading.Event()

    def others():
        while not ended.is_set():
            began = time.monotonic()
            assert other(b"x", timeout=10) == b"x"
            slowest[0] = max(slowest[0], time.monotonic() - began)
    thread = threading.Thread(target=others)
    thread.start()
    received = 0
    try:
        for part in stream:
            received += len(part)
            time.sleep(0.01)
    finally:
        ended.set()
        thread.join()
    assert received == 64 * MIB
    assert slowest[0] < 1


def test_c_core_deadlines(echo, echo_port, channel_to):
    method = call(channel_to(echo_port))
    for n in range(10):
        began = time.monotonic()
        with pytest.raises(grpc.RpcError) as error:
            method(b"", timeout=0.1, metadata=[("do", '{"sleep":5}')])
        assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert time.monotonic() - began < 0.5


def test_c_core_cancels_in_a_flood(echo, echo_port, channel_to, until):
    """2,000 calls, each cancelled: the last one works."""
    method = call(channel_to(echo_port))
    for n in range(2000):
        method.future(b"", metadata=[("call-id", f"flood-{n}"),
                                     ("do", '{"sleep":30}')]).cancel()
    assert method(b"x", timeout=10) == b"x"

    def settled():
        runs = {r[0] for r in echo.executions.rows()
                if r[0].startswith("flood-") and r[4] == "run"}
        ends = {r[0] for r in echo.executions.rows() if r[4] == "cancelled"}
        return runs <= ends
    until(settled, "the cancels at the server")


def test_memory_is_given_back(front, echo, channel_to, asan):
    """Four rounds of 4 x 16 MiB: the last needs no more than the second."""
    one = front(echo)
    method = call(channel_to(one.port))
    data = bytes(16 * MIB)

    def round_of_calls():
        for future in [method.future(data, timeout=60) for _ in range(4)]:
            assert len(future.result()) == len(data)
        return rss_bytes(one.redial.pid)
    sizes = [round_of_calls() for _ in range(4)]
    assert sizes[-1] - sizes[1] < (128 if asan else 8) * MIB, sizes


@needs_cpp
def test_cpp_client(echo_port):
    done = subprocess.run([cpp_echo(), "client", str(echo_port)],
                          stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done


@needs_cpp
def test_cpp_client_and_server(make_server, front, direct, channel_to):
    server = make_server(kind="cpp")
    port = server.port if direct else front(server).port
    done = subprocess.run([cpp_echo(), "client", str(port)],
                          stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "ok\n"), done
    assert server.executions.count("cpp") == 8
    assert call(channel_to(port))(b"x", timeout=5) == b"x"
