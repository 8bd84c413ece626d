"""The scenarios of scenarios.py, shortened: real load while a server is hurt.
How long calls stalled is shown, not judged: scenarios.py does that, on a
machine that does nothing else."""

import os

import pytest

import backends
import plays

SECONDS = {"stop": 3.2}
KINDS = {"term": "node"}  # whose SIGTERM loses nothing by itself: server.js


@pytest.fixture
def play(folder, direct, request, figure):
    def run(name, **options):
        kind = KINDS.get(name, "python")
        if kind == "node" and not os.path.isdir(os.path.join(
                os.path.dirname(backends.HERE), "node_modules", "@grpc")):
            pytest.skip("no @grpc/grpc-js: npm ci in tests/e2e")

        def make_proxy(targets, sets):
            return request.getfixturevalue("make_redial")(
                "grpc://" + ",".join(targets), sets=sets)
        seconds = SECONDS.get(name, 2.6)
        result = plays.play(name, folder, None if direct else make_proxy,
                            seconds, kind=kind, **options)
        for label, shown in result.rows:
            print(f"{label:28}{shown}")
        figure(plays.summary(result))
        return result
    return run


@pytest.mark.parametrize("name", [name for name in plays.SCENARIOS
                                  if name != "stream"])
def test_clients_do_not_notice(play, name, direct):
    result = play(name, rate=400 if name != "cancel" else 200)
    if not direct:
        assert result.bad == []
    if "calls" in result.figures:
        assert result.figures["calls"] >= 500


def test_long_stream_needs_no_memory(play, direct, asan):
    """160 MiB through a client that reads 100 MiB/s."""
    result = play("stream", size=160 << 20)
    if not asan:
        assert result.bad == []
    assert result.figures["received"] == 160 << 20
    assert result.figures["memory grew by"] < (96 if asan else 24) << 20


def test_the_log_of_executions_sees_double(folder):
    """The checker itself: a call that ran twice, and one that never did."""
    log = backends.Executions(os.path.join(folder, "x.log"))
    with open(log.path, "w") as file:
        for call, what in (("c1", "run"), ("c1", "end"), ("c2", "run"),
                           ("c2", "run"), ("warm-up", "run")):
            file.write(f"{call} Unary 1 0.5 {what} a\n")
    load = plays.calls.Load("none", 1)
    load.outcomes = [plays.calls.Outcome(f"c{n}", 0.0, 0.1,
                                         plays.grpc.StatusCode.OK, "")
                     for n in (1, 2, 3)]
    assert load.twice(log) == {"c2": 2}
    assert load.lost(log) == ["c3"]
    result = plays.Result()
    plays.judge_load(result, load, log)
    assert result.figures["executed twice"] == 1
    assert any("without an execution" in line for line in result.bad)
