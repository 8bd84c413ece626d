"""The checkers of survival.py: each is given what is right, and what is wrong
in one way."""

from collections import Counter
from types import SimpleNamespace

import pytest

import survival_blpop as blpop
import survival_cas as cas
import survival_pubsub as pubsub
from lineage import Line, Snapshot, trace
from survival_cas import ACKED, NULL, REFUSED, UNKNOWN, Block


def words(bad):
    return sorted({line.split(":")[0].split(" ")[0] for line in bad})


# -- what was executed, over several servers

@pytest.mark.parametrize("parts, kept, lost, ends", [
    (["abc"], "abc", [], []),
    (["ab", "abcd"], "abcd", [""], [2]),             # a restart
    (["abc", "abd"], "abd", ["c"], [2]),             # c was not passed on
    (["abcde", "cdxy"], "abcdxy", ["e"], [4]),       # copied at c
    (["abc", "abde", "bdf"], "abdf", ["c", "e"], [2, 3]),
    (["", "ab"], "ab", [""], [0]),
    (["abab", "abx"], "ababx", [""], [4]),           # where the least is lost
])
def test_lines(parts, kept, lost, ends):
    line = trace([list(part) for part in parts])
    assert line.kept == list(kept)
    assert line.lost == [list(part) for part in lost]
    assert line.ends == ends


@pytest.mark.parametrize("parts", [["abc", "xy"], ["abc", ""]])
def test_files_that_have_nothing_in_common(parts):
    with pytest.raises(AssertionError):
        trace([list(part) for part in parts])


def test_the_death_after_a_place():
    line = Line(list("abcd"), [[], []], [1, 3])
    assert [line.death_after(place) for place in range(4)] == [0, 1, 1, 2]


# -- compare and set

KEY = "log:r:{0}"


def chain(*tokens, key=KEY):
    """What the file has of these blocks, and what is in the server then."""
    return [event for number, token in enumerate(tokens, 1)
            for event in (("SET", key, token, number),
                          ("RPUSH", key + ":log", token))]


def block(token, number, outcome=ACKED, kind="log", reply=None):
    if reply is None and outcome == ACKED:
        reply = [b"OK", number + 1]
    return Block(kind, KEY, token, number, outcome, reply)


FINE = [block("a", 1), block("b", 2), block("n", 2, NULL),
        block("u", 3, UNKNOWN), block("r", 3, REFUSED)]


@pytest.mark.parametrize("blocks, executed, complaint", [
    (FINE, "ab", []),
    (FINE, "abu", []),
    (FINE, "a", ["lost"]),
    (FINE, "abb", ["duplicate"]),
    (FINE, "abuu", ["duplicate"]),
    (FINE, "abn", ["untrue"]),
    (FINE, "abr", ["untrue"]),
    (FINE, "abx", ["invented"]),
])
def test_tokens(blocks, executed, complaint):
    line = Line(chain(*executed))
    finals = {KEY: (f"{len(executed)}:x", list(executed))}
    assert words(cas.judge_lines(blocks, [line], finals)) == complaint
    if complaint == []:
        assert cas.judge_finals(blocks, finals) == []
    else:
        assert complaint[0] in words(cas.judge_finals(blocks, finals))


def test_a_block_is_whole():
    torn = chain("a", "b")[:-1]
    assert "torn" in words(cas.judge_chain(torn))


def test_numbers_are_one_after_the_other():
    """A SET that is replayed when another client was there."""
    events = [*chain("a", "b"), ("SET", KEY, "a", 1)]
    assert "SET" in words(cas.judge_chain(events))
    assert cas.judge_chain(chain("a", "b")) == []


def test_a_lost_update_shows_without_a_file():
    blocks = [Block("set", KEY, "a", 1, ACKED), Block("set", KEY, "b", 1,
                                                      ACKED)]
    assert "lost update" in " ".join(cas.judge_finals(
        blocks, {"set:r": ("1:b", [])}) + cas.judge_finals(
        [Block("set", "set:r", b.token, 1, ACKED) for b in blocks],
        {"set:r": ("1:b", [])}))


def test_what_a_failover_lost_is_not_lost_by_us():
    line = Line(chain("a"), [chain("a", "b")[2:]], [2])
    assert cas.judge_lines(FINE, [line], {KEY: ("1:a", ["a"])}) == []


def test_executed_again_after_a_failover():
    """On the old server, which lost it, and on the new one: a replay."""
    line = Line(chain("a", "b"), [chain("a", "b")[2:]], [2])
    assert words(cas.judge_lines(FINE, [line], {KEY: ("2:b", ["a", "b"])})) \
        == ["duplicate"]


def test_the_server_has_what_its_file_says():
    line = Line(chain("a", "b"))
    for finals in (("1:a", ["a", "b"]), ("2:b", ["a"])):
        assert cas.judge_lines(FINE, [line], {KEY: finals})


def test_replies_name_the_place():
    blocks = [block("a", 1), block("b", 2, reply=[b"OK", 5])]
    finals = {KEY: ("2:b", ["a", "b"])}
    assert cas.judge_finals(blocks, finals)


@pytest.mark.parametrize("reads, lost, complaint", [
    ([("begin", "begin"), ("0", "0")], (), []),
    ([("begin", "begin"), ("0", "begin")], (), ["torn"]),
    ([("begin", "begin"), ("begin", "begin")], (), ["wrong"]),
    ([("begin", "begin"), ("begin", "begin")], ("0",), []),
])
def test_pairs(reads, lost, complaint):
    blocks = [Block("pair", "p", str(i), outcome=ACKED, read=list(read))
              for i, read in enumerate(reads)]
    assert words(cas.judge_pairs([blocks], set(lost))) == complaint


def test_files_of_blocks_are_read():
    commands = [[b"SET", b"log:r:{0}", b"1:a"], [b"RPUSH", b"log:r:{0}:log",
                                                 b"a"],
                [b"INCR", b"incr:r:{0}"], [b"SET", b"other", b"1"]]
    base = [[b"SET", b"incr:r:{0}", b"6"]]
    assert cas.fold(Snapshot(base, commands), "r") == [
        *chain("a"), ("INCR", "incr:r:{0}", "7")]


# -- blocked consumers

Q = "q:r:{0}"


def push(item, outcome=blpop.ACKED):
    return blpop.Push(Q, item, outcome)


def events(text):
    """"+a -a" is pushed and popped."""
    return [("push" if word[0] == "+" else "pop", Q, word[1:])
            for word in text.split()]


def judged(pushes, delivered, left, unknown, line, deaths=()):
    verdict = blpop.judge_lines(
        pushes, Counter((Q, item) for item in delivered),
        [(Q, item) for item in left],
        [blpop.Lost((Q,), *times) for times in unknown], [line],
        [[SimpleNamespace(at=at) for at in deaths]])
    return verdict, words(verdict.bad)


AB = [push("a"), push("b")]


@pytest.mark.parametrize("pushes, delivered, left, text, complaint", [
    (AB, "ab", "", "+a +b -a -b", []),
    (AB, "a", "b", "+a +b -a", []),
    (AB, "aab", "", "+a +b -a -b", ["duplicate"]),
    (AB, "a", "", "+a +b -a -b", ["lost"]),          # for nobody
    (AB, "a", "", "+a -a", ["lost"]),                # RPUSH not executed
    (AB, "ab", "", "+a +b -a -b +a", ["duplicate"]),
    ([push("a", blpop.REFUSED)], "a", "", "+a -a", ["untrue"]),
    ([push("a", blpop.UNKNOWN)], "", "", "", []),
    (AB, "a", "", "+a +b -a", ["b"]),                # neither popped nor left
])
def test_pops(pushes, delivered, left, text, complaint):
    assert judged(pushes, delivered, left, [], Line(events(text)))[1] \
        == complaint


@pytest.mark.parametrize("unknown, complaint", [
    ([(8, 11)], []),            # it waited when the server died at 10
    ([(11, 12)], ["lost"]),     # it began later
    ([(5, 9)], ["lost"]),       # it had ended
    ([], ["lost"]),
])
def test_an_unknown_pop_explains_one_item(unknown, complaint):
    line = Line(events("+a +b -a -b"), [[]], [4])
    verdict, bad = judged(AB, "a", "", unknown, line, [10])
    assert bad == complaint and len(verdict.undelivered) == 1
    assert judged(AB, "", "", unknown, line, [10])[1] == ["lost"]


def test_a_failover_may_deliver_again():
    """The old primary had popped a, the new one did not hear of it."""
    line = Line(events("+a +b -a -b"), [events("-a")], [2])
    verdict, bad = judged(AB, "aab", "", [], line, [10])
    assert bad == [] and verdict.again == 1
    # But not three times, and not if the pop was not lost.
    assert judged(AB, "aaab", "", [], line, [10])[1] == ["duplicate"]
    # What was popped twice and arrived once needs an explanation.
    assert judged(AB, "ab", "", [], line, [10])[1] == ["lost"]
    assert judged(AB, "ab", "", [(9, 11)], line, [10])[1] == []


def test_a_push_that_a_failover_lost():
    line = Line(events("+a -a"), [events("+b")], [2])
    verdict, bad = judged(AB, "a", "", [], line, [10])
    assert bad == [] and verdict.lost == 1


@pytest.mark.parametrize("delivered, left, complaint", [
    ("ab", "", []), ("a", "b", []), ("a", "", ["lost"]),
    ("aab", "", ["duplicate"]), ("abx", "", ["invented"]),
])
def test_pops_without_a_file(delivered, left, complaint):
    assert words(blpop.judge_state(
        AB, Counter((Q, item) for item in delivered),
        [(Q, item) for item in left])) == complaint


def test_files_of_lists_are_read():
    base = [[b"RPUSH", b"q:r:{0}", b"a", b"b"]]
    stream = [[b"LPOP", b"q:r:{0}"], [b"RPUSH", b"q:r:{0}", b"c"],
              [b"LPOP", b"q:r:{0}", b"2"]]
    assert blpop.fold(Snapshot(base, stream), "r") == \
        events("-a +c -b -c")


# -- subscribers

@pytest.mark.parametrize("got, complaint", [
    ([1, 2, 5], []), ([1, 2, 2], ["twice"]), ([1, 3, 2], ["out"]),
    ([1, 2, 1], ["out", "twice"]), ([1, 8, 7, 9], []), ([7, 8, 7], ["twice"]),
])
def test_order(got, complaint):
    subscriber = SimpleNamespace(got=got, number=0, how="subscribe",
                                 version="2", channel="c")
    assert words(pubsub.judge_order(subscriber, {7})) == complaint


@pytest.mark.parametrize("got, receivers, complaint, full", [
    ([[1, 2], [1, 2]], 2, [], 2),
    ([[1, 2], [1]], 2, ["c"], 2),            # one did not get what was sent
    ([[1, 2], [1]], 1, ["c"], 0),            # one got what was not for it
    ([[1, 2, 3], [1, 2, 3]], 2, ["invented"], 2),
])
def test_receivers(got, receivers, complaint, full):
    sent = [pubsub.Message("c", n, n, receivers, True) for n in (1, 2)]
    assert (words(pubsub.judge_channel("c", sent, got)[0]),
            pubsub.judge_channel("c", sent, got)[1]) == (complaint, full)


def test_only_what_is_sure_counts():
    sent = [pubsub.Message("c", 1, 1, 2, False),   # killed right after
            pubsub.Message("c", 2, 2, -1, False)]  # no answer
    assert pubsub.judge_channel("c", sent, [[], []])[0] == []


def test_all_must_have_what_came_while_all_was_well():
    sent = [pubsub.Message("c", n, n, 0, True) for n in (1, 2)]
    quiet = lambda message: message.at < 2  # noqa: E731
    assert pubsub.judge_channel("c", sent, [[1], [1]], quiet)[0] == []
    assert pubsub.judge_channel("c", sent, [[], [1]], quiet)[0]
