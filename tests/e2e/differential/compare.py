"""Compares what a step brought on the two sides."""

import configparser
import fnmatch
import os
import re
from dataclasses import dataclass, field

import normalise

HERE = os.path.dirname(os.path.abspath(__file__))


@dataclass
class Known:
    """What redial answers differently on purpose: a row of exceptions.ini."""
    name: str
    command: str             # pattern for the words in capitals
    direct: re.Pattern
    redial: re.Pattern
    reason: str
    scene: str = "*"
    upstream: str = "standalone"
    lanes: str = "*"

    def may_fit(self, cell, scene, commands):
        return (fnmatch.fnmatchcase(cell.upstream, self.upstream)
                and fnmatch.fnmatchcase(cell.lanes, self.lanes)
                and fnmatch.fnmatchcase(scene.name, self.scene)
                and any(fnmatch.fnmatchcase(normalise.command_text(words),
                                            self.command)
                        for words in commands))

    def fits(self, cell, scene, commands, direct, redial):
        return (self.may_fit(cell, scene, commands)
                and self.direct.fullmatch(direct) is not None
                and self.redial.fullmatch(redial) is not None)


def exceptions(path=os.path.join(HERE, "exceptions.ini")):
    table = configparser.ConfigParser(interpolation=None)
    with open(path, encoding="utf-8") as file:
        table.read_file(file)
    out = []
    for name in table.sections():
        row = dict(table[name])
        for side in ("direct", "redial"):
            row[side] = re.compile(row[side].encode("latin-1"), re.S)
        out.append(Known(name=name, **row))
    return out


@dataclass
class Cell:
    """One cell of the matrix and what was found in it."""
    resp: int
    lanes: str
    upstream: str = "standalone"
    scenes: int = 0
    commands: int = 0
    messages: int = 0
    bytes: int = 0
    normalised: dict = field(default_factory=dict)
    excepted: dict = field(default_factory=dict)
    differences: list = field(default_factory=list)

    def name(self):
        return f"RESP{self.resp}, lanes = {self.lanes}" + (
            "" if self.upstream == "standalone" else f", {self.upstream}")

    def text(self):
        count = len(self.differences)
        return (f"{self.name()}: {self.commands} commands in {self.scenes} "
                f"scenes, {self.messages} messages with {self.bytes} bytes "
                f"compared, {sum(self.normalised.values())} normalised, "
                f"{sum(self.excepted.values())} excepted, "
                f"{count} unexplained differences")


@dataclass
class Difference:
    where: str
    scene: str
    conn: str
    step: str
    direct: bytes
    redial: bytes

    def text(self):
        def short(raw):
            raw = repr(raw)
            return raw if len(raw) < 400 else raw[:300] + " ... " + raw[-90:]
        return (f"{self.scene} ({self.where}), on {self.conn}:\n"
                f"    {self.step[:200]}\n"
                f"    direct: {short(self.direct)}\n"
                f"    redial: {short(self.redial)}")


CLOSED = b"(closed)"


class Comparison:
    """Fills one cell."""

    def __init__(self, cell, known):
        self.cell, self.known = cell, known

    def step(self, scene, step, direct, redial):
        """Compare what a step brought. False when the two do not stand at the
        same place any more."""
        aligned = True
        for name in sorted(set(direct.messages) | set(redial.messages)
                           | (direct.closed ^ redial.closed)):
            one, two = direct.messages.get(name, []), \
                redial.messages.get(name, [])
            gone = name in direct.closed, name in redial.closed
            self.cell.messages += len(one)
            self.cell.bytes += sum(map(len, one))
            if one == two and gone[0] == gone[1]:
                continue
            aligned &= len(one) == len(two) and gone[0] == gone[1]
            self._judge(scene, step, name, one, two, gone,
                        (direct.kept, redial.kept))
        return aligned

    def expects(self, scene, step):
        """Whether what the direct side has heard may not come at all."""
        return any(row.may_fit(self.cell, scene, step.commands() or [[]])
                   for row in self.known)

    def at_rest(self, scene, waiting):
        """waiting: clients that are blocked or subscribed although everybody
        has left."""
        if waiting != (0, 0):
            self.cell.differences.append(Difference(
                "before", scene.name, "the server", "everybody has left",
                b"(0, 0)", repr(waiting).encode()))

    def _judge(self, scene, step, name, one, two, gone, kept):
        commands = step.commands()
        if gone[0] == gone[1] and len(one) == len(two):
            rows = list(zip(one, two, self._owners(step, name, one)))
        else:
            rows = [(b"".join(one) + CLOSED * gone[0],
                     b"".join(two) + CLOSED * gone[1], None)]
        for direct, redial, owner in rows:
            if direct == redial or self._same(owner, direct, redial, kept):
                continue
            if self._is_known(scene, [owner] if owner else commands or [[]],
                              direct, redial):
                continue
            self.cell.differences.append(Difference(
                step.where, scene.name, name, step.text(), direct, redial))

    def _owners(self, step, name, messages):
        """For each message the command it answers, where that is certain."""
        commands = step.commands()
        if any(normalise.is_monitor_line(m) for m in messages):
            return [[b"MONITOR"] if normalise.is_monitor_line(m) else None
                    for m in messages]
        if name != step.conn:
            return [None] * len(messages)
        if len(commands) == 1:
            return [commands[0]] * len(messages)
        if len(commands) == len(messages):
            return commands
        return [None] * len(messages)

    def _same(self, owner, direct, redial, kept):
        if normalise.without_kept(direct, kept[0]) \
                == normalise.without_kept(redial, kept[1]):
            return self._count("kept-id")
        name = normalise.agreed(owner, direct, redial)
        return name is not None and self._count(name)

    def _count(self, name):
        self.cell.normalised[name] = self.cell.normalised.get(name, 0) + 1
        return True

    def _is_known(self, scene, commands, direct, redial):
        for row in self.known:
            if row.fits(self.cell, scene, commands, direct, redial):
                self.cell.excepted[row.name] = \
                    self.cell.excepted.get(row.name, 0) + 1
                return True
        return False
