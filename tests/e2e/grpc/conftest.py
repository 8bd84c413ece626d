"""Fixtures of the gRPC tests; make_redial and folder are those above.

front(up, ...) is redial in front of scripted upstreams or real servers, with
clients; when a test ends, no script may have broken, no client may have seen
REFUSED_STREAM, and redial must hold no call any more.
"""

import json
import os
import shutil
import subprocess
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
# First of all: its namesake in this folder must not stand in for it.
import scenarios  # noqa: E402, F401

sys.path.insert(0, HERE)

import backends  # noqa: E402
from downstream import Downstream  # noqa: E402
from peer import REFUSED_STREAM  # noqa: E402
from servers import HOST  # noqa: E402
from upstream import Upstream  # noqa: E402
from wait import wait_until  # noqa: E402


@pytest.fixture
def make_up():
    """make_up(script, ...): a scripted upstream."""
    made = []

    def make(*args, **options):
        made.append(Upstream(*args, **options))
        return made[-1]
    yield make
    for up in made:
        up.stop()
    assert [error for up in made for error in up.errors] == []


@pytest.fixture
def make_dn():
    """make_dn(address, ...): a scripted client."""
    made = []

    def make(*args, **options):
        made.append(Downstream(*args, **options))
        return made[-1]
    make.made = made
    yield make
    refused = [stream for dn in made for stream in dn.streams.values()
               if stream.reset == REFUSED_STREAM]
    for dn in made:
        dn.close()
    assert refused == [], "a client may never see REFUSED_STREAM"


class Front:
    """redial, and scripted clients of it."""

    def __init__(self, redial, make_dn):
        self.redial, self.make_dn = redial, make_dn
        self.port = redial.port
        self._dn = None

    @property
    def address(self):
        return self.redial.address

    @property
    def dn(self):
        """A client that all calls of a test may share."""
        if self._dn is None:
            self._dn = self.new_dn()
        return self._dn

    def new_dn(self, **options):
        return self.make_dn(self.address, **options).wait_settings()

    def unary(self, *args, **options):
        return self.dn.unary(*args, **options)

    def start(self, *args, **options):
        return self.dn.start(*args, **options)

    def metric(self, name):
        return self.redial.metric(name)


LEFT = ("calls_active", "calls_waiting", "retries_active", "log_bytes")


def nothing_left(redial):
    metrics = redial.metrics()
    left = {name: metrics[f"redial_grpc_{name}"] for name in LEFT
            if metrics[f"redial_grpc_{name}"]}
    assert not left, left
    return True


def target_of(place):
    return place if isinstance(place, str) else place.target


@pytest.fixture
def front(make_redial, make_dn, folder):
    """front(upstream or server or "host:port", ..., sets=[...],
    config={service config})."""
    made = []

    def make(*places, sets=(), config=None, url=None, **options):
        sets = list(sets)
        if config is not None:
            path = os.path.join(folder, f"service{len(made)}.json")
            with open(path, "w") as file:
                json.dump(config, file)
            sets.append(f"upstream.service_config={path}")
        url = url or "grpc://" + ",".join(map(target_of, places))
        made.append(Front(make_redial(url, sets=sets, **options), make_dn))
        return made[-1]
    yield make
    for dn in make_dn.made:
        dn.close()
    for one in made:
        if one.redial.running():
            wait_until(lambda one=one: nothing_left(one.redial),
                       "redial to hold no call", 5)


@pytest.fixture
def make_server(folder):
    """make_server(name="a", kind=..., ...): a started server.py."""
    made = []

    def make(name=None, start=True, **options):
        options.setdefault("executions", made[0].executions if made else None)
        server = backends.EchoServer(
            folder, name or chr(ord("a") + len(made)), **options)
        made.append(server)
        if start:
            server.start()
        return server
    yield make
    for server in made:
        if server.child is not None and server.running():
            server.kill9()


@pytest.fixture(scope="session")
def echo(tmp_path_factory):
    """One real server for all tests that do not hurt it."""
    server = backends.EchoServer(str(tmp_path_factory.mktemp("g")), "echo")
    server.start()
    yield server
    server.kill9()


@pytest.fixture
def echo_port(request, echo, direct):
    """Where a real client connects: redial in front of echo, or echo."""
    if direct:
        return echo.port
    return request.getfixturevalue("front")(echo).port


@pytest.fixture
def channel_to():
    made = []

    def make(port, *options):
        made.append(backends.channel(port, *options, host=HOST))
        return made[-1]
    yield make
    for one in made:
        one.close()


@pytest.fixture
def until():
    return wait_until


@pytest.fixture(scope="session")
def node():
    """node(mode, port, ...): what client.js printed."""
    program = shutil.which("node")
    if not program or not os.path.isdir(
            os.path.join(os.path.dirname(HERE), "node_modules", "@grpc")):
        pytest.skip("no node, or no @grpc/grpc-js: npm ci in tests/e2e")

    def run(*arguments, timeout=60):
        done = subprocess.run(
            [program, os.path.join(HERE, "client.js"),
             *map(str, arguments)],
            stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=timeout)
        assert done.stdout, done.stderr
        outcome = json.loads(done.stdout.splitlines()[-1])
        assert "error" not in outcome, outcome["error"]
        return outcome
    return run
