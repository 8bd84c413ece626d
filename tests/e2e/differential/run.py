#!/usr/bin/python3
"""Plays one stream of commands directly and through redial, and compares each
byte of each connection.

    python3 tests/e2e/differential/run.py [--resp 2|3] [--lanes shared|private|none]
        [--upstream standalone|cluster] [--scene PATTERN]
        [--seed N [--commands N] [--mood NAME]]

Without --seed the recorded stream (scenes/); with it, a random one.
--lanes none compares two servers without redial: proves the comparison.
"""

import argparse
import fnmatch
import os
import shutil
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.dirname(HERE)]

import generated  # noqa: E402
import scenes as recorded_scenes  # noqa: E402
from compare import Cell, Comparison, exceptions  # noqa: E402
from pair import Direct, ThroughRedial, shared_object  # noqa: E402
from player import DirectSide, OtherSide  # noqa: E402
from scenes import Step  # noqa: E402

LANES = ("shared", "private")


def opening(scene, step, seen, resp):
    """What a connection says first, where the scene leaves that open."""
    if step.what in ("clock", "close", "end") or step.conn in seen:
        return None
    seen.add(step.conn)
    if resp == 2 or scene.plain():
        return None
    return Step(step.where, step.conn, "send", [[b"HELLO", b"3"]])


def steps_of(scene, resp):
    """The scene's steps with what all scenes have around them: an empty
    server before, and a PING on each connection after."""
    if scene.password():
        yield Step("before", "z", "send",
                   [[b"AUTH", scene.password().encode()]])
    for words in ([b"FLUSHALL"], [b"SCRIPT", b"FLUSH"],
                  [b"FUNCTION", b"FLUSH"]):
        yield Step("before", "z", "send", [words])
    yield Step("before", "z", "close")
    seen, last = set(), []
    for step in scene.steps:
        hello = opening(scene, step, seen, resp)
        if hello:
            yield hello
        yield step
        if step.what in ("close", "end"):
            seen.discard(step.conn)
            last = [name for name in last if name != step.conn]
        elif step.conn and step.conn not in last:
            last.append(step.conn)
    for name in last:
        yield Step("after", name, "send", [[b"PING"]])


def play_direct(side, scenes, resp):
    """[(scene, [(step, heard)])]"""
    out = []
    for scene in scenes:
        side.start_scene()
        rows = []
        for step in steps_of(scene, resp):
            if step.where == "after" and side.conns[step.conn].closed:
                continue
            side.do(step)
            rows.append((step, side.listen(step, scene)))
        out.append((scene, rows))
    side.start_scene()
    return out


def play_other(side, record, comparison):
    for scene, rows in record:
        side.start_scene()
        comparison.at_rest(scene, side.wait_alone())
        comparison.cell.scenes += 1
        for step, expected in rows:
            comparison.cell.commands += len(step.pieces)
            side.do(step)
            heard = side.listen(expected, comparison.expects(scene, step))
            side.keep(step, heard)
            if side.lost:
                continue
            side.lost = not comparison.step(scene, step, expected, heard)
    side.start_scene()


class Run:
    """The cells of the matrix that are asked for. Scenes whose server asks
    for a password have servers of their own."""

    def __init__(self, scenes, upstream="standalone", sets=()):
        self.scenes, self.upstream, self.sets = scenes, upstream, sets
        self.folder = tempfile.mkdtemp(prefix="d")
        self.library = shared_object(self.folder)
        self.records, self.complaints, self.servers = {}, [], 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.folder, ignore_errors=True)

    def cell(self, resp, lanes):
        if resp not in self.records:
            self.records[resp] = [
                (password, self._direct(scenes, resp, password))
                for password, scenes in self._groups(resp)]
        cell = Cell(resp, lanes, self.upstream)
        comparison = Comparison(cell, exceptions())
        for password, record in self.records[resp]:
            other = self._other(lanes, password)
            try:
                play_other(OtherSide(other), record, comparison)
            finally:
                self.complaints += other.finish()
        return cell

    def _groups(self, resp):
        groups = {}
        for scene in self.scenes:
            if scene.fits(resp, self.upstream):
                groups.setdefault(scene.password(), []).append(scene)
        return groups.items()

    def _new_folder(self):
        self.servers += 1
        return os.path.join(self.folder, str(self.servers))

    def _direct(self, scenes, resp, password):
        direct = Direct(self._new_folder(), self.library, password)
        try:
            return play_direct(DirectSide(direct), scenes, resp)
        finally:
            direct.finish()

    def _other(self, lanes, password):
        if lanes == "none":
            return Direct(self._new_folder(), self.library, password)
        return ThroughRedial(self._new_folder(), self.library, lanes,
                             self.upstream, password, self.sets)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--resp", type=int, choices=(2, 3))
    parser.add_argument("--lanes", choices=(*LANES, "none"))
    parser.add_argument("--upstream", default="standalone",
                        choices=("standalone", "cluster"))
    parser.add_argument("--scene", default="*", help="only those")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--commands", type=int, default=5000)
    parser.add_argument("--mood", action="append", choices=generated.MOODS,
                        help="only what is about that")
    parser.add_argument("--set", action="append", default=[],
                        help="an option of redial")
    arguments = parser.parse_args()
    if arguments.seed is None:
        scenes = recorded_scenes.recorded()
    else:
        scenes = generated.scenes(arguments.seed, arguments.commands,
                                  arguments.mood or tuple(generated.MOODS))
    scenes = [s for s in scenes if fnmatch.fnmatchcase(s.name,
                                                       arguments.scene)]
    bad = 0
    with Run(scenes, arguments.upstream, arguments.set) as run:
        for resp in [arguments.resp] if arguments.resp else (2, 3):
            for lanes in [arguments.lanes] if arguments.lanes else LANES:
                cell = run.cell(resp, lanes)
                for difference in cell.differences:
                    print(difference.text())
                print(cell.text(), flush=True)
                bad += len(cell.differences)
    for complaint in run.complaints:
        print(complaint)
    return 1 if bad or run.complaints else 0


if __name__ == "__main__":
    sys.exit(main())
