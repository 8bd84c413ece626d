"""A script of an app that knows nothing of clusters, on one plain server and
through redial on a cluster. What differs is listed in cluster_forms.txt."""

import pytest

from resp import encode
from test_differential import compare, forms

pytestmark = pytest.mark.needs_redial


def cluster_forms():
    """[(how, code, words)]; code: of the error that a cluster answers."""
    for how, words in forms("cluster_forms.txt"):
        if how == "!":
            yield how, words[0].decode(), words[1:]
        else:
            yield how, None, words


def judge(rows):
    """rows: (how, code, words, direct, through redial)."""
    compare([(how, words, one, two) for how, _, words, one, two in rows
             if how != "!"])
    bad = [(words, one[:80], two[:80]) for how, code, words, one, two in rows
           if how == "!" and (one.startswith(b"-")
                              or not two.startswith(b"-" + code.encode()))]
    assert bad == [], "exceptions that are none"


@pytest.fixture
def pair(make_redis, cluster_redial):
    with make_redis().connect() as one, cluster_redial.connect() as two:
        yield one, two


def test_there_are_enough_forms():
    how = [how for how, _, _ in cluster_forms()]
    assert len(how) >= 200 and how.count("=") >= 170


@pytest.mark.parametrize("protocol", [2, 3])
def test_replies_one_by_one(pair, protocol):
    one, two = pair
    if protocol == 3:
        for c in pair:
            c.call("HELLO", "3")
    judge([(how, code, words, one.call_raw(*words), two.call_raw(*words))
           for how, code, words in cluster_forms()])


def test_replies_in_one_pipeline(pair):
    rows = list(cluster_forms())
    replies = []
    for c in pair:
        c.send_raw(b"".join(encode(*words) for _, _, words in rows)
                   + encode("ECHO", "the-end"))
        replies.append([c.read_raw() for _ in rows])
        assert c.read() == b"the-end"
    judge([(*row, a, b) for row, a, b in zip(rows, *replies)])


def test_the_comparison_can_fail():
    judge([("!", "CROSSSLOT", [b"x"], b"+OK\r\n", b"-CROSSSLOT k\r\n")])
    for one, two in ((b"+OK\r\n", b"+OK\r\n"),
                     (b"-ERR\r\n", b"-CROSSSLOT k\r\n"),
                     (b"+OK\r\n", b"-ERR k\r\n")):
        with pytest.raises(AssertionError, match="that are none"):
            judge([("!", "CROSSSLOT", [b"x"], one, two)])
    with pytest.raises(AssertionError, match="1 of 1 differ"):
        judge([("=", None, [b"x"], b"+OK\r\n", b"+KO\r\n")])
