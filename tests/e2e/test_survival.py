"""The scenarios of survival.py, shortened; scenarios.py plays them for as
long as you like."""

import pytest

import survival

pytestmark = pytest.mark.needs_redial
SHORT = {
    "blpop-kill": 8,
    "cas-kill": 8,
    "pubsub-kill": 8,
    "cas-stop": 6,
    "pubsub-stop": 6,
    "cluster-cas-migrate": 8,
    "cluster-pubsub-migrate": 6,
    "cluster-blpop-migrate": 8,
}
LONG = {
    "cas-stop-timeout": 12,
    "blpop-stop": 10,
    "blpop-stop-timeout": 12,
    "pubsub-stop-timeout": 12,
    "sentinel-cas-kill": 16,
    "sentinel-blpop-kill": 16,
    "sentinel-pubsub-kill": 16,
    "cluster-cas-kill": 20,
    "cluster-cas-failover": 12,
    "cluster-cas-stop": 16,
    "cluster-blpop-failover": 12,
    "cluster-blpop-stop": 16,
    "cluster-pubsub-kill": 18,
    "cluster-pubsub-failover": 12,
    "cluster-pubsub-stop": 18,
    "cluster-blpop-kill": 20,
}


@pytest.fixture
def play(make_redial, folder, figure):
    def run(name, seconds):
        outcome = survival.play(name, folder, make_redial, seconds)
        outcome.print_table()
        figure(", ".join(f"{label.strip()} {value}" for label, value
                         in outcome.rows if isinstance(value, int) and value))
        assert outcome.complaints == []
    return run


@pytest.mark.parametrize("name", SHORT)
def test_clients_do_not_notice(play, name):
    play(name, SHORT[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", LONG)
def test_clients_do_not_notice_in_the_end(play, name):
    play(name, LONG[name])


def test_all_scenarios_are_played():
    assert {*SHORT, *LONG} == set(survival.SCENARIOS)
