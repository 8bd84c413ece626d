"""The demo's judgement, with answers made up: it must be able to fail."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from client import Client, Ledger  # noqa: E402


class Scripted:
    """A connection whose server answers what the test says."""

    def __init__(self, replies):
        self.replies = list(replies)
        self.lost = 0

    def ask(self, *words):
        reply = self.replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply


def client_with(*replies):
    client = Client("test", 0, None)
    client.connection = Scripted(replies)
    return client


def test_a_counter_that_skips_is_wrong():
    client = client_with((":", "1"), (":", "3"))
    client._incr()
    client._incr()
    assert client.wrong == 1


def test_a_counter_that_repeats_is_wrong():
    client = client_with((":", "1"), (":", "1"))
    client._incr()
    client._incr()
    assert client.wrong == 1


def test_an_unknown_outcome_allows_one_more_and_is_told():
    client = client_with((":", "1"), ("-", "UNKNOWNOUTCOME lost"), (":", "3"))
    for _ in range(3):
        client._incr()
    assert (client.wrong, client.errors, client.unknown) == (0, 0, 1)


def test_not_applied_does_not_allow_one_more():
    client = client_with((":", "1"), ("-", "NOTAPPLIED down"), (":", "3"))
    for _ in range(3):
        client._incr()
    assert (client.wrong, client.errors) == (1, 1)


def test_an_old_value_is_wrong():
    client = client_with(("+", "OK"), ("$", "something else"))
    client._set()
    client._get()
    assert client.wrong == 1


def test_a_value_that_vanished_is_wrong():
    client = client_with(("+", "OK"), ("$", "-1"))
    client._set()
    client._get()
    assert client.wrong == 1


def test_an_unknown_set_is_an_error():
    client = client_with(("-", "UNKNOWNOUTCOME lost"))
    client._set()
    assert (client.errors, client.unknown) == (1, 0)


def test_the_final_counter_has_two_limits():
    ledger = Ledger()
    for number in (1, 2, 3):
        assert ledger.incr_is_right(number)
    ledger.incr_maybe()
    assert not ledger.final_is_right(2)
    assert ledger.final_is_right(3)
    assert ledger.final_is_right(4)
    assert not ledger.final_is_right(5)
