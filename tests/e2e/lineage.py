"""What a shard has executed over several failovers, from the append-only
files of its servers.

Each server that is killed is read while it is dead, before it comes back and
throws its file away to copy another one's data; one that lives is held open;
the last primary is read at the end. Events of a load are unique, so the files can be laid over each
other: what the next primary shares with the dead one is the line, what only
the dead one had is lost by that failover.
"""

import os
from dataclasses import dataclass, field

import aof
from wait import wait_until


@dataclass
class Snapshot:
    """One server's file: what it began with, and what it executed since."""
    base: list
    stream: list


class Held:
    """The file of a server, held open: it can be read even after the server
    has copied another one's data and thrown its own away. Servers must run
    with aof-use-rdb-preamble no and appendfsync always."""

    def __init__(self, folder):
        folder = os.path.join(folder, "appendonlydir")
        self.files = [(name, open(os.path.join(folder, name), "rb"))
                      for name in aof.manifest(folder)]

    def read(self):
        """What is in it now; it is closed."""
        snapshot = Snapshot([], [])
        for name, file in self.files:
            with file:
                data = file.read()
            if data.startswith(b"REDIS"):
                assert len(data) < 200, f"{name} is an RDB with content"
                continue
            part = snapshot.base if ".base." in name else snapshot.stream
            part += aof.drop_open_transactions(aof.read_commands(data))
        return snapshot


def read(folder):
    """The file of a server that is dead, or quiet."""
    return Held(folder).read()


def is_settled(server):
    """Whether its file has all it was given: none is being rewritten."""
    info = server.call("INFO", "persistence").decode()
    return "aof_rewrite_in_progress:0" in info \
        and "aof_rewrite_scheduled:0" in info and "async_loading:0" in info


def wait_settled(servers):
    for server in servers:
        wait_until(lambda: is_settled(server), "the AOF to be complete")


@dataclass
class Line:
    kept: list = field(default_factory=list)
    # Of each death: what died with the server, and how long the line was.
    lost: list = field(default_factory=list)
    ends: list = field(default_factory=list)

    def all_lost(self):
        return [event for part in self.lost for event in part]

    def death_after(self, place):
        """The number of the death that came next after kept[place]."""
        return next((number for number, end in enumerate(self.ends)
                     if place < end), len(self.ends))


def trace(parts):
    """parts: [[event]], one of each server in the order in which they were
    primary; events can be told from each other. Of a server that
    became a replica later only what it executed since then."""
    line = Line(list(parts[0]))
    for part in parts[1:]:
        begin, shared = _overlap(line.kept, part)
        fork = begin + shared
        line.lost.append(line.kept[fork:])
        line.ends.append(fork)
        line.kept = line.kept[:fork] + part[shared:]
    return line


def _overlap(kept, part):
    """(where part begins in kept, how many events they then share)."""
    if not kept:
        return 0, 0
    assert part, "the new primary has executed nothing of it"
    best = (0, 0)
    for begin in (i for i, event in enumerate(kept) if event == part[0]):
        shared = 0
        for one, other in zip(kept[begin:], part):
            if one != other:
                break
            shared += 1
        # Of two that are as long, the one that loses less.
        best = max(best, (begin, shared), key=lambda pair: pair[::-1])
    assert best[1], "the file of the new primary begins with what the old " \
        "one never had"
    return best
