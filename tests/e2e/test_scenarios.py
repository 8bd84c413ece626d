"""The scenarios of scenarios.py, shortened: real load while the server is
hurt, judged by the counter checker, the AOF and the registers."""

import pytest

import scenarios
from history import OK
from servers import Direct

AOF = {"aof": True, "options": ["--aof-use-rdb-preamble", "no"]}


@pytest.fixture
def play(make_redis, direct, request, figure):
    def run(name, seconds=5):
        redis = make_redis(start=name != "late", **AOF)

        def make_proxy(sets):
            if direct:
                return Direct(redis)
            return request.getfixturevalue("make_redial")(redis.url,
                                                          sets=sets)
        result, bad, bounds = scenarios.play(name, redis, make_proxy, seconds,
                                             rate=1000)
        scenarios.print_table(name, "redial", result, bad, bounds)
        figure(f"{result.requests} requests, "
               f"{sum(result.errors.values())} errors, "
               f"{result.drops} drops, "
               f"worst stall {result.worst_stall * 1000:.0f} ms")
        return result, bad
    return run


@pytest.mark.parametrize("name", list(scenarios.SCENARIOS))
def test_clients_do_not_notice(play, name, direct):
    result, bad = play(name)
    assert bad == [], "duplicates, losses or wrong values"
    if not direct:
        assert scenarios.complaints(name, result) == []
        assert sum(op.type == OK for op in result.history) \
            >= result.requests * 0.95
