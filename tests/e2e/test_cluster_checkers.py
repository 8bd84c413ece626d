"""The checkers of clusters: what a failover loses is told from what a proxy
loses. Each is given what is right and what is wrong in one way."""

import pytest

import cluster_load
from cluster import key_slot, tag_of_slot
from cluster_load import Truth, only_here
from history import OK, Op
from load import Result


def write(name, key, tag=""):
    return (name, key, tag)


def result_of(*ops):
    return Result(history=list(ops), requests=len(ops))


A, B, C = (write("SET", "v", tag) for tag in "abc")
I1 = write("INCR", "c")


def test_only_here_finds_the_branch():
    assert only_here([A, B], [A, B, C]) == []
    assert only_here([A, B, I1], [A, C, I1]) == [B, I1]
    assert only_here([A], []) == [A]


def test_the_longest_branch_counts():
    truth = Truth.of_shard([A, C], [[A, B, I1], [A, B]])
    assert truth.lost == [B, I1] and truth.kept == [A, C]
    assert truth.lost_tags() == {"b"}


def test_what_was_replayed_is_not_lost():
    assert Truth.of_shard([A, B], [[B]]).lost_tags() == set()


def sets(*tags, read=None):
    """SETs of these tags one after the other, and a GET that says read."""
    ops = [Op("0", 0, i, "SET", "v", tag, i, i + 0.5, OK, True)
           for i, tag in enumerate(tags)]
    return ops + [Op("0", 0, 99, "GET", "v", None, 99, 99.5, OK, read)]


def incrs(*values, type_=OK):
    return [Op("0", 0, i, "INCR", "c", None, i, i + 0.5, type_, value)
            for i, value in enumerate(values)]


@pytest.mark.parametrize("ops, truth, finals, complaint", [
    (sets("a", "b", read="b"), Truth([A, B], []), {"v": "b"}, None),
    # The failover has lost b: the old value may be read, and stay.
    (sets("a", "b", read="a"), Truth([A], [B]), {"v": "a"}, None),
    # Nobody has lost it but the proxy.
    (sets("a", "b", read="a"), Truth([A, B], []), {"v": "a"}, "wrong value"),
    (sets("a", "b", read="b"), Truth([A], []), {"v": "b"}, "lost"),
    (sets("a", "b", read="b"), Truth([A, B], []), {"v": "a"}, "wrong value"),
    # A failover that has lost another key's value excuses nothing.
    (sets("a", "b", read="a"), Truth([A, B], [write("SET", "w", "x")]),
     {"v": "a"}, "wrong value"),
    (incrs(1, 2), Truth([I1, I1], []), {"c": "2"}, None),
    (incrs(1, 2), Truth([I1], [I1]), {"c": "1"}, None),
    (incrs(1, 2), Truth([I1], []), {"c": "1"}, "must be between 2 and 2"),
    (incrs(1, 2), Truth([I1] * 3, []), {"c": "3"}, "must be between 2"),
    (incrs(1, 2), Truth([I1] * 2, [I1]), {"c": "2"}, "must be between 2"),
    (incrs(1, 2), Truth([I1, I1], []), {"c": "1"}, "executed 2 and lost 0"),
    (incrs(1, 1), Truth([I1, I1], []), {"c": "2"}, "replies say 1"),
])
def test_judge_of_a_cluster(ops, truth, finals, complaint):
    bad = cluster_load.judge(result_of(*ops), truth, finals)
    if complaint is None:
        assert bad == []
    else:
        assert any(complaint in line for line in bad), bad


def test_a_torn_pair_is_seen():
    read = Op("0", 0, 1, "MGET", "p", None, 1, 2, OK, ["a", "b"])
    assert "torn" in cluster_load.as_registers([read])[1][0]
    read.val = ["a", "a"]
    assert cluster_load.as_registers([read])[1] == []


def test_slots_of_keys_and_tags():
    # Known answers, from the documentation of the hash and of CLUSTER KEYSLOT.
    assert key_slot("123456789") == 0x31C3
    assert key_slot("foo{hash_tag}") == 2515 == key_slot("hash_tag")
    assert key_slot("{}a") != key_slot("a")
    for slot in (0, 1, 8191, 16383):
        assert key_slot(f"x{{{tag_of_slot(slot)}}}") == slot
