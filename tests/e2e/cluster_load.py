"""Load over many slots, and what the servers of a cluster made of it.

A failover may lose what the old primary had acknowledged and not yet passed
on: that is Redis' doing, and no proxy can help it. So it must be counted, and
told from what a proxy loses. The journals of all nodes say it exactly: what
the old primary has executed and the new one never heard of.
"""

import os
import uuid
from collections import Counter
from dataclasses import dataclass, replace

import aof
from cluster import key_slot, tag_of_slot
from history import (INFO, OK, check_aof, check_counter, check_registers)
from wait import wait_until

PER_CLIENT = 10
COMMANDS = ("SET", "GET", "INCR")
WITH_PAIRS = ("SET", "GET", "INCR", "MSET", "SET", "GET", "INCR", "MGET")


class SpreadMix:
    """SET, GET and INCR over keys in many slots (or in the given ones), and
    with pairs=True also MSET and MGET of two keys in one slot. Each client
    has keys and counters of its own, so that each value is known."""

    def __init__(self, slots=(), pairs=False):
        self.run = uuid.uuid4().hex[:8]
        self.tags = [tag_of_slot(slot) for slot in slots]
        self.commands = WITH_PAIRS if pairs else COMMANDS

    def place(self, client, turn):
        """The hash tag of the keys that this turn of the client uses."""
        if not self.tags:
            return f"{client}.{turn % PER_CLIENT}"
        number = client * PER_CLIENT + turn % PER_CLIENT
        return self.tags[number % len(self.tags)]

    def operation(self, client, i):
        turn, step = divmod(i + client, len(self.commands))
        command = self.commands[step]
        kind = {"INCR": "c", "MSET": "p", "MGET": "p"}.get(command, "v")
        key = f"{kind}:{self.run}:{client}:{{{self.place(client, turn)}}}" \
              f":{turn % PER_CLIENT}"
        tag = f"{self.run}:{client}:{i}" if "SET" in command else None
        return command, key, tag


class Journal:
    """What a server has executed since the start: its append-only file as
    it is now, held open, so that it can be read even after the server has
    copied another one's data and thrown its own away."""

    def __init__(self, server):
        wait_until(lambda: self._settled(server), "the AOF to be complete")
        folder = os.path.join(server.folder, "appendonlydir")
        self.files = [open(os.path.join(folder, name), "rb")
                      for name in aof.manifest(folder)]

    @staticmethod
    def _settled(server):
        info = server.call("INFO", "persistence").decode()
        return "aof_rewrite_in_progress:0" in info \
            and "aof_rewrite_scheduled:0" in info \
            and "async_loading:0" in info

    def writes(self, run):
        """[(name, first key, tag)] of this run, in order."""
        found = []
        mark = f":{run}:".encode()
        for file in self.files:
            file.seek(0)
            data = file.read()
            if data.startswith(b"REDIS"):
                continue  # an RDB, from before the run
            for command in aof.drop_open_transactions(
                    aof.read_commands(data)):
                name = command[0].upper()
                if name in (b"SET", b"MSET", b"INCR") and mark in command[1]:
                    tag = command[2] if len(command) > 2 else b""
                    found.append((name.decode(), command[1].decode(),
                                  tag.decode()))
        return found

    def close(self):
        for file in self.files:
            file.close()


def only_here(one, other):
    """What one server executed and the other never heard of: they agree up
    to some point."""
    same = 0
    for a, b in zip(one, other):
        if a != b:
            break
        same += 1
    return one[same:]


@dataclass
class Truth:
    """What was executed: by the primary of now or its forerunner, and by one
    that lost it in a failover."""
    kept: list
    lost: list

    @staticmethod
    def of_shard(final, others):
        """final: writes of the primary of now; others: of the rest of the
        shard. A second replica may have heard of a part of what was lost:
        so only the longest branch counts."""
        branches = [only_here(other, final) for other in others]
        lost = max(branches, key=len, default=[])
        return Truth(final, lost)

    def __add__(self, other):
        return Truth(self.kept + other.kept, self.lost + other.lost)

    @property
    def executed(self):
        return self.kept + self.lost

    def tags(self):
        return Counter(tag for _, _, tag in self.executed if tag)

    def lost_tags(self):
        """Lost, and not written again by a replay."""
        kept = {tag for _, _, tag in self.kept}
        return {tag for _, _, tag in self.lost if tag} - kept

    @staticmethod
    def incrs(writes):
        return Counter(key for name, key, _ in writes if name == "INCR")


def read_finals(call_key, history):
    """{key: value} of all keys used, as the servers have them now."""
    finals = {}
    for op in history:
        names = [op.key + ".a", op.key + ".b"] \
            if op.op in ("MSET", "MGET") else [op.key]
        for name in names:
            if name not in finals:
                value = call_key("GET", name)
                assert value is None or isinstance(value, bytes), value
                finals[name] = value.decode() if value else None
    return finals


def owner_reader(cluster):
    """call_key() over one connection per node."""
    owners = cluster.alive()[0].owners()
    connections = {node.id: node.connect() for node in cluster.primaries()}

    def call_key(command, key):
        return connections[owners[key_slot(key)]].call(command, key)
    return call_key


def as_registers(history):
    """MSET and MGET of a pair as SET and GET of one register; the torn pairs
    in words."""
    ops, torn = [], []
    for op in history:
        if op.op == "MSET":
            op = replace(op, op="SET")
        elif op.op == "MGET" and op.type == OK:
            if op.val[0] != op.val[1]:
                torn.append(f"torn: MGET {op.key} at {op.proc}#{op.idx} says "
                            f"{op.val}")
            op = replace(op, op="GET", val=op.val[0])
        elif op.op == "MGET":
            op = replace(op, op="GET")
        ops.append(op)
    return ops, torn


def judge(result, truth, finals):
    """Every check over a load that has ended. Returns violations."""
    ops, bad = as_registers(result.history)
    lost_tags = truth.lost_tags()
    lost_incrs = truth.incrs(truth.lost)
    executed = truth.incrs(truth.executed)
    bad += check_registers(ops, lost_tags)
    bad += check_aof(ops, truth.tags(), executed)
    bad += check_registers([*ops, *_final_reads(ops, finals)], lost_tags)
    for key in sorted({op.key for op in ops if op.op == "INCR"}):
        value = int(finals[key] or 0)
        if value != executed[key] - lost_incrs[key]:
            bad.append(f"counter {key} is {value}, the servers executed "
                       f"{executed[key]} and lost {lost_incrs[key]}")
    # Where a failover has lost some, the same number is answered again.
    whole = [op for op in ops if op.key not in lost_incrs]
    bad += check_counter(whole, {op.key: int(finals[op.key] or 0)
                                 for op in whole if op.op == "INCR"})
    return list(dict.fromkeys(bad))


def _final_reads(ops, finals):
    """A GET of each register after the end."""
    end = max((op.t_ret for op in ops), default=0) + 1
    last = {op.key: op for op in ops if op.op in ("SET", "GET")}
    reads = []
    for key, op in last.items():
        values = [finals[key]] if key in finals \
            else [finals[key + ".a"], finals[key + ".b"]]
        reads += [replace(op, op="GET", t_inv=end, t_ret=end, type=OK,
                          arg=None, val=value, proc="end") for value in values]
    return reads


def counter_sums(result, truth, finals):
    """(acknowledged, unknown, executed, lost, final) INCR over all keys."""
    incrs = [op for op in result.history if op.op == "INCR"]
    return (sum(op.type == OK for op in incrs),
            sum(op.type == INFO for op in incrs),
            sum(truth.incrs(truth.executed).values()),
            sum(truth.incrs(truth.lost).values()),
            sum(int(finals[key] or 0) for key in {op.key for op in incrs}))


def lost_acknowledged(result, truth):
    """How many of the writes that the failover lost had been acknowledged,
    at least: an INCR has no name, so of those unknown the best is assumed."""
    acknowledged = {op.arg for op in result.history
                    if op.arg and op.type == OK}
    unknown = Counter(op.key for op in result.history
                      if op.op == "INCR" and op.type == INFO)
    return len(truth.lost_tags() & acknowledged) + sum(
        max(0, n - unknown[key])
        for key, n in truth.incrs(truth.lost).items())
