"""Slots moved from node to node while they are used, key by key, with the
commands that redis-cli --cluster reshard uses."""

import random
import time
from dataclasses import dataclass

from servers import HOST
from wait import wait_until


@dataclass
class Moved:
    slots: int = 0
    keys: int = 0
    seconds: float = 0.0


def move_slots(cluster, slots, source, target, at_once=1, pace=0.0):
    """Move the slots, so many of them at once: each gives away one key in
    turn, in the order of the names, so that all of them stay half moved for a
    while, and pairs of keys stay torn for one turn. pace: seconds per key, at
    least."""
    began = time.monotonic()
    moved = Moved()
    slots = list(slots)
    for first in range(0, len(slots), at_once):
        batch = slots[first:first + at_once]
        for slot in batch:
            target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
            source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
        moved.keys += _move_keys(batch, source, target, pace)
        for slot in batch:
            _give(cluster, slot, source, target)
        moved.slots += len(batch)
    wait_until(lambda: _all_agree(cluster, slots, target),
               "all nodes to know the new owner", interval=0.05)
    moved.seconds = time.monotonic() - began
    return moved


def _move_keys(batch, source, target, pace):
    keys = 0
    due = time.monotonic()
    open_slots = list(batch)
    with source.connect() as c:
        while open_slots:
            random.shuffle(open_slots)
            for slot in list(open_slots):
                found = c.call("CLUSTER", "GETKEYSINSLOT", slot, 100)
                if not found:
                    open_slots.remove(slot)
                    continue
                reply = c.call("MIGRATE", HOST, target.port,
                               min(found), 0, 5000)
                assert reply in (b"OK", b"NOKEY"), reply
                keys += reply == b"OK"
                due += pace
                time.sleep(max(0.0, due - time.monotonic()))  # the pace
    return keys


def _give(cluster, slot, source, target):
    """The target first: it must take what the source no longer does. The
    others may have heard of it; a source that has given away its last slot
    has even become a replica of the target."""
    others = [node for node in cluster.primaries()
              if node is not source and node is not target]
    for node in (target, source, *others):
        reply = node.call("CLUSTER", "SETSLOT", slot, "NODE", target.id)
        assert reply == b"OK" or "only with masters" in reply, reply


def _all_agree(cluster, slots, target):
    for node in cluster.alive():
        owners = node.owners()
        assert all(owners.get(slot) == target.id for slot in slots), \
            f"{node.port} has another view"
    return True
