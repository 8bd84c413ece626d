"""Reads the recorded stream: scenes/*.scene. The language is in README.md."""

import codecs
import glob
import os
import re
import shlex
from dataclasses import dataclass, field

from resp import encode

HERE = os.path.dirname(os.path.abspath(__file__))

STEP = re.compile(r"(?P<conn>\w+)(?P<kind>[>+<])\s?(?P<text>.*)$")
ACTION = re.compile(r"(?P<conn>\w+)\.(?P<what>open|close|end)$")
RANGE = re.compile(r"\{(?P<what>[^{}]+):(?P<low>\d+)\.\.(?P<high>\d+)\}$")
TIMES = re.compile(r"\{(?P<what>[^{}]+?)\*(?P<times>\d+)\}")
VARIABLE = re.compile(rb"\$\{(\w+)\}")


class SceneError(Exception):
    """A line of a scene that makes no sense."""


@dataclass
class Step:
    """What one connection does, or what happens to the clock."""
    where: str                 # file:line
    conn: str = ""
    what: str = "send"         # send, open, close, end, clock
    pieces: list = field(default_factory=list)    # of bytes, or lists of words
    cut: int = 0               # bytes for each write; 0: one write
    save: str = ""             # the name the reply is kept under
    seconds: float = 0.0

    def commands(self):
        return [p for p in self.pieces if isinstance(p, list)]

    def data(self, variables):
        out = b"".join(encode(*p) if isinstance(p, list) else p
                       for p in (fill(p, variables) for p in self.pieces))
        return out

    def text(self):
        if self.what != "send":
            return f"{self.conn}.{self.what} {self.seconds or ''}".strip(". ")
        return f"{self.conn}> " + " | ".join(
            shown(p) for p in self.pieces)


def shown(piece):
    if isinstance(piece, bytes):
        return repr(piece)[1:]
    return " ".join(repr(w)[2:-1] or '""' for w in piece)


def fill(piece, variables):
    def value(match):
        name = match.group(1).decode()
        if name not in variables:
            raise SceneError(f"nothing was kept as {name}")
        return variables[name]

    if isinstance(piece, list):
        return [VARIABLE.sub(value, word) for word in piece]
    return VARIABLE.sub(value, piece)


@dataclass
class Scene:
    name: str
    steps: list = field(default_factory=list)
    options: dict = field(default_factory=dict)

    def commands(self):
        """How many commands clients send in it."""
        return sum(1 if isinstance(p, bytes) else 1
                   for step in self.steps for p in step.pieces)

    def fits(self, resp, upstream="standalone"):
        return self.options.get("resp", str(resp)) == str(resp) \
            and self.options.get("upstream", upstream) == upstream

    def password(self):
        """What the scene's server asks for; None: nothing."""
        return self.options.get("password")

    def silent(self):
        """Whether the player must not ask the server for its clients: it
        would show, or the server is paused and does not answer."""
        return "silent" in self.options

    def plain(self):
        """Whether connections are left as they begin."""
        return "plain" in self.options


def unescape(word):
    """"\\x00" and its like as bytes."""
    return codecs.escape_decode(word.encode("utf-8"))[0]


def expand(word):
    """{x*3} is xxx; {k#,v#:1..2} is the words k1 v1 k2 v2."""
    match = RANGE.match(word)
    if match:
        numbers = range(int(match["low"]), int(match["high"]) + 1)
        return [part.replace("#", str(n)) for n in numbers
                for part in match["what"].split(",")]
    return [TIMES.sub(lambda m: m["what"] * int(m["times"]), word)]


def words(text):
    lexer = shlex.shlex(text, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters, lexer.escape = True, "", ""
    return [unescape(word) for one in lexer for word in expand(one)]


class Reader:
    """Turns lines into scenes."""

    def __init__(self, name):
        self.file, self.number = name, 0
        self.scenes = []
        self.gathered = {}

    def where(self):
        return f"{self.file}:{self.number}"

    def line(self, line):
        self.number += 1
        line = line.strip()
        if not line or line.startswith("#"):
            return
        try:
            self._line(line)
        except (ValueError, SceneError, AssertionError) as error:
            raise SceneError(f"{self.where()}: {error}: {line}") from None

    def _line(self, line):
        if line.startswith("== "):
            self.scenes.append(Scene(line[3:].strip()))
        elif line.startswith(": "):
            name, _, value = line[2:].partition(" ")
            self.scenes[-1].options[name] = value.strip()
        elif line.startswith("each "):
            _, spread, rest = line.split(" ", 2)
            low, high = spread.split("..")
            for n in range(int(low), int(high) + 1):
                self._line(rest.replace("#", str(n)))
        elif line.startswith("clock "):
            self._add(Step(self.where(), what="clock",
                           seconds=float(line.split()[1])))
        elif ACTION.match(line):
            match = ACTION.match(line)
            self._add(Step(self.where(), match["conn"], match["what"]))
        else:
            self._send(line)

    def _add(self, step):
        self.scenes[-1].steps.append(step)

    def _send(self, line):
        cut = 0
        match = re.match(r"(\w+)~(\d+)([><].*)$", line)
        if match:
            cut, line = int(match[2]), match[1] + match[3]
        match = STEP.match(line)
        if not match:
            raise SceneError("not a step")
        conn, text, save = match["conn"], match["text"], ""
        if " => " in text:
            text, _, save = text.rpartition(" => ")
        piece = words(text)
        if match["kind"] == "<":
            piece = b"".join(piece)
        pieces = [*self.gathered.pop(conn, []), piece]
        if match["kind"] == "+":
            self.gathered[conn] = pieces
            return
        self._add(Step(self.where(), conn, "send", pieces, cut, save.strip()))

    def finish(self):
        if self.gathered:
            raise SceneError(f"{self.file}: never sent: {self.gathered}")
        return self.scenes


def read(path):
    reader = Reader(os.path.basename(path))
    with open(path, encoding="utf-8") as file:
        for line in file:
            reader.line(line)
    return reader.finish()


def recorded():
    """All scenes of the recorded stream, in their order."""
    paths = sorted(glob.glob(os.path.join(HERE, "scenes", "*.scene")))
    return [scene for path in paths for scene in read(path)]
