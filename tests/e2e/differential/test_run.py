"""The differential run as a test: no unexplained difference in any cell of
{RESP2, RESP3} x {lanes = shared, private}."""

import os
import sys

import pytest

sys.path[:0] = [os.path.dirname(os.path.abspath(__file__))]

import generated  # noqa: E402
import normalise  # noqa: E402
import run  # noqa: E402
import scenes  # noqa: E402
from compare import Cell, Comparison, exceptions  # noqa: E402
from player import Heard  # noqa: E402
from scenes import Scene, Step  # noqa: E402

# Not played: they end the server, turn it into a replica, or need another one.
NOT_PLAYED = {
    "bgrewriteaof", "bgsave", "migrate", "psync", "replconf", "shutdown",
    "restore-asking", "sync", "slaveof", "module|loadex", "pfdebug",
    "pfselftest", "config|rewrite", "acl|save", "acl|load", "debug",
}

CELLS = [(resp, lanes) for resp in (2, 3) for lanes in run.LANES]


@pytest.fixture(scope="module")
def stream():
    return scenes.recorded()


@pytest.fixture(scope="module")
def player(stream):
    with run.Run(stream) as one:
        yield one
        assert one.complaints == []


@pytest.fixture(scope="module")
def used():
    """The exceptions that were met."""
    return set()


@pytest.mark.needs_redial
@pytest.mark.parametrize("resp,lanes", CELLS)
def test_nothing_differs(player, used, figure, resp, lanes):
    cell = player.cell(resp, lanes)
    used.update(cell.excepted)
    figure(cell.text())
    assert not cell.differences, cell.text() + "\n" + "\n".join(
        d.text() for d in cell.differences)


@pytest.mark.needs_redial
def test_every_exception_is_still_one(used):
    """Runs behind the four above."""
    unused = {row.name for row in exceptions()
              if row.upstream == "standalone"} - used
    assert unused == set()


def test_two_servers_agree(player):
    """Without redial: the players and normalisers do what they should."""
    for resp in (2, 3):
        cell = player.cell(resp, "none")
        assert not cell.differences, "\n".join(
            d.text() for d in cell.differences)
        assert cell.excepted == {}


@pytest.mark.needs_redial
@pytest.mark.parametrize("resp,lanes", CELLS)
def test_a_random_stream(figure, resp, lanes):
    with run.Run(generated.scenes(seed=1, commands=700)) as one:
        cell = one.cell(resp, lanes)
    figure(cell.text())
    assert not cell.differences, "\n".join(
        d.text() for d in cell.differences)
    assert one.complaints == []


def test_every_command_is_played(make_redis):
    """Of all groups: what COMMAND LIST has, the stream plays."""
    played = {name for scene in scenes.recorded() for step in scene.steps
              for words in step.commands() if words
              for name in (words[0].lower(), b"|".join(words[:2]).lower())}
    with make_redis().connect() as c:
        known = {name.decode() for name in c.call("COMMAND", "LIST")}
    missing = {name for name in known if name.encode() not in played}
    assert missing - NOT_PLAYED == set()


def test_the_stream_is_long():
    for resp in (2, 3):
        assert sum(s.commands() for s in scenes.recorded()
                   if s.fits(resp)) >= 3000


# ---- the comparison can fail ----

STEP = Step("x:1", "a", "send", [[b"GET", b"k"]])


def differences(direct, redial, step=STEP, closed=((), ()), known=()):
    cell = Cell(2, "shared")
    Comparison(cell, known).step(
        Scene("s"), step, Heard({"a": direct}, set(closed[0])),
        Heard({"a": redial}, set(closed[1])))
    return len(cell.differences)


def test_the_comparison_can_fail():
    assert differences([b"+OK\r\n"], [b"+OK\r\n"]) == 0
    assert differences([b"+OK\r\n"], [b"+KO\r\n"]) == 1
    assert differences([b"+OK\r\n"], []) == 1
    assert differences([], [b"+OK\r\n"]) == 1
    assert differences([b":1\r\n"], [b":1\r\n"], closed=("a", ())) == 1
    assert differences([b":1\r\n"], [b":1\r\n"], closed=((), "a")) == 1
    assert differences([b":1\r\n"], [b":2\r\n"]) == 1
    client_id = Step("x:1", "a", "send", [[b"CLIENT", b"ID"]])
    assert differences([b":1\r\n"], [b":2\r\n"], client_id) == 0
    assert differences([b":1\r\n"], [b"-ERR\r\n"], client_id) == 1


def test_a_normaliser_takes_nothing_else():
    one = b"$40\r\nid=7 addr=127.0.0.1:1 name=a db=0 sub=1\n\r\n"
    two = one.replace(b"id=7", b"id=12345").replace(b":1 ", b":65535 ")
    info = [b"CLIENT", b"INFO"]
    assert normalise.agreed(info, one, two) == "client-info"
    for old, new in ((b"name=a", b"name=b"), (b"db=0", b"db=1"),
                     (b"sub=1", b"sub=0")):
        assert normalise.agreed(info, one, two.replace(old, new)) is None
    assert normalise.agreed([b"GET", b"x"], one, two) is None


def test_a_byte_that_redial_changes_is_found(stream):
    """A side that answers one byte wrongly, once."""
    few = [s for s in stream if s.name == "strings/set"]
    with run.Run(few) as one:
        one.cell(2, "none")
        (_, record), = one.records[2]
        _, rows = record[0]
        step, heard = next((s, h) for s, h in rows
                           if s.commands()[:1] == [[b"GET", b"k"]])
        raw, = heard.messages["a"]
        heard.messages["a"] = [raw.replace(b"v", b"w")]
        found = one.cell(2, "none").differences
    assert [d.where for d in found] == [step.where]
