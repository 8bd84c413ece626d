"""Fixtures. See README.md for how to run and what the options mean."""

import os
import shutil
import sys

import pytest

sys.path.insert(0, os.path.dirname(__file__))

import servers  # noqa: E402
from cluster import Cluster  # noqa: E402
from relay import Relay  # noqa: E402
from wait import wait_until  # noqa: E402


def pytest_addoption(parser):
    parser.addoption("--redial", default="auto", choices=["auto", "none"],
                     help="none: connect to redis-server directly")
    parser.addoption("--slow", action="store_true",
                     help="run the tests marked slow too")


def pytest_configure(config):
    config.addinivalue_line("markers", "slow: takes long; run with --slow")
    config.addinivalue_line("markers",
                            "needs_redial: makes no sense without redial")


def pytest_collection_modifyitems(config, items):
    direct = config.getoption("--redial") == "none"
    if not direct and servers.redial_path() is None:
        raise pytest.UsageError(
            "no redial binary: build one, set REDIAL, or use --redial none")
    for item in items:
        if item.get_closest_marker("slow") \
                and not config.getoption("--slow"):
            item.add_marker(pytest.mark.skip(reason="slow; run with --slow"))
        if direct and (item.get_closest_marker("needs_redial")
                       or "make_redial" in item.fixturenames):
            item.add_marker(pytest.mark.skip(reason="needs redial"))


FIGURES = []


@pytest.fixture
def figure(request):
    """figure(text): shown at the end of the run."""
    return lambda text: FIGURES.append(f"{request.node.name}: {text}")


def pytest_terminal_summary(terminalreporter):
    if FIGURES:
        terminalreporter.section("figures")
        for line in FIGURES:
            terminalreporter.line(line)


@pytest.fixture
def direct(request):
    return request.config.getoption("--redial") == "none"


@pytest.fixture
def asan():
    path = servers.redial_path()
    return path is not None and servers.has_asan(path)


@pytest.fixture
def folder(tmp_path_factory):
    """A short path: Unix sockets have 107 bytes for theirs."""
    path = tmp_path_factory.mktemp("e")
    yield str(path)
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def make_redis(folder):
    made = []

    def make(start=True, **options):
        server = servers.RedisServer(
            os.path.join(folder, f"redis{len(made)}"), **options)
        made.append(server)
        return server.start() if start else server

    yield make
    for server in made:
        if server.running():
            server.kill9()


@pytest.fixture
def redis(make_redis):
    return make_redis()


@pytest.fixture
def make_redial(folder):
    """redial(url, ...): a started redial. When the test ends each one must
    end by SIGTERM with code 0, without a sanitizer report, a counter that
    must stay 0, or a secret in its output."""
    made = []

    def make(*args, start=True, **options):
        redial = servers.Redial(os.path.join(folder, f"redial{len(made)}"),
                                *args, **options)
        made.append(redial)
        return redial.start() if start else redial

    yield make
    bad = []
    for redial in made:
        bad += redial.finish()
    if bad:
        for redial in made:
            print(f"--- {redial.log_path}\n{redial.log()[-6000:]}")
        pytest.fail("\n".join(bad), pytrace=False)


@pytest.fixture
def redial(request, redis, direct):
    """redial with its defaults in front of `redis`; the server itself with
    --redial none."""
    if direct:
        return servers.Direct(redis)
    return request.getfixturevalue("make_redial")(redis.url)


@pytest.fixture(scope="session")
def one_cluster(tmp_path_factory):
    """A cluster of 3 primaries with a replica each, for all tests that do not
    hurt it."""
    path = tmp_path_factory.mktemp("c")
    with Cluster(str(path)) as cluster:
        yield cluster
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def cluster(one_cluster):
    """The same one, empty and well."""
    one_cluster.wait_ok()
    for node in one_cluster.primaries():
        for command in (("FLUSHALL",), ("SCRIPT", "FLUSH"),
                        ("FUNCTION", "FLUSH")):
            node.ask(*command)
    return one_cluster


@pytest.fixture
def cluster_redial(make_redial, cluster):
    """redial with its defaults in front of the cluster, once it knows it
    (before that: test_cluster_start.py)."""
    redial = make_redial(cluster.url)
    wait_until(lambda: redial.http("/ready")[0] == 200, "redial to be ready")
    return redial


@pytest.fixture
def make_relay():
    made = []

    def make(port):
        relay = Relay(port)
        made.append(relay)
        return relay

    yield make
    for relay in made:
        relay.close()
