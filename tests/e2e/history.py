"""Histories of what clients did, and the checkers that judge them.

Every operation is one Op. Its kind of end is

    ok    the reply came and was no error
    fail  a reply that promises it was not executed (-NOTAPPLIED, or a
          definite error of the server): must have happened 0 times
    info  nobody knows (-UNKNOWNOUTCOME, connection lost, own timeout):
          happened 0 or 1 times, at any time until the end of the run

After an info the client goes on under a new process name.

A checker returns a list of violations in words; empty means nothing found.
Each is proved in test_checkers.py with histories that are wrong on purpose.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any

OK, FAIL, INFO = "ok", "fail", "info"


@dataclass
class Op:
    proc: str
    conn: int
    idx: int
    op: str
    key: Any
    arg: Any
    t_inv: float
    t_ret: float
    type: str
    val: Any = None


def outcome_of_error(text):
    """The type of an operation that ended with this error reply."""
    return INFO if text.startswith("UNKNOWNOUTCOME") else FAIL


def check_append(history, lists, pairs=()):
    """H1. History of RPUSH with unique arg; lists is {key: [elements]} at the
    end. pairs are keys that one MULTI writes together: a block's tag must be
    in both or in none."""
    bad = []
    pushes = [op for op in history if op.op == "RPUSH"]
    for key, elements in lists.items():
        of_key = [op for op in pushes if op.key == key]
        bad += _check_counts(of_key, Counter(elements), f"list {key}")
        bad += _check_order(of_key, elements, key)
    for one, two in pairs:
        torn = set(lists[one]) ^ set(lists[two])
        bad += [f"torn transaction: {tag!r} is in only one of {one}, {two}"
                for tag in sorted(torn)]
    return bad


def _check_counts(ops, counts, where):
    bad = []
    known = set()
    for op in ops:
        known.add(op.arg)
        n = counts.get(op.arg, 0)
        if op.type == OK and n != 1:
            kind = "lost" if n == 0 else "duplicate"
            bad.append(f"{kind}: ok {op.op} of {op.arg!r} is {n} times "
                       f"in {where}")
        elif op.type == FAIL and n != 0:
            bad.append(f"untrue error: failed {op.op} of {op.arg!r} is {n} "
                       f"times in {where}: {op.val!r}")
        elif op.type == INFO and n > 1:
            bad.append(f"duplicate: unknown {op.op} of {op.arg!r} is {n} "
                       f"times in {where}")
    bad += [f"invented: {tag!r} in {where}, nobody sent it"
            for tag in counts if tag not in known]
    return bad


def _check_order(ops, elements, key):
    place = {tag: i for i, tag in enumerate(elements)}
    by_proc = defaultdict(list)
    for op in ops:
        if op.type == OK and op.arg in place:
            by_proc[op.proc].append(op)
    bad = []
    for proc, done in by_proc.items():
        done.sort(key=lambda op: op.idx)
        for before, after in zip(done, done[1:]):
            if place[before.arg] > place[after.arg]:
                bad.append(f"overtaken: {proc} pushed {before.arg!r} before "
                           f"{after.arg!r}, list {key} has them the other "
                           f"way round")
    return bad


def check_counter(history, finals):
    """H2. History of INCR; finals is {key: value} at the end."""
    bad = []
    of_key = _incrs_by_key(history)
    for key, final in finals.items():
        ops = of_key[key]
        ok = [op for op in ops if op.type == OK]
        unknown = sum(op.type == INFO for op in ops)
        if not len(ok) <= final <= len(ok) + unknown:
            bad.append(f"counter {key} is {final}, must be between "
                       f"{len(ok)} and {len(ok) + unknown}")
        for value, times in Counter(op.val for op in ok).items():
            if times > 1:
                bad.append(f"counter {key}: {times} replies say {value}")
        bad += _check_rising(key, ok)
    return bad


def _incrs_by_key(history):
    of_key = defaultdict(list)
    for op in history:
        if op.op == "INCR":
            of_key[op.key].append(op)
    return of_key


def _check_rising(key, ok):
    """An INCR that began after another one's reply answers more."""
    bad = []
    by_return = sorted(ok, key=lambda op: op.t_ret)
    returned, largest = 0, None
    for op in sorted(ok, key=lambda op: op.t_inv):
        while (returned < len(by_return)
               and by_return[returned].t_ret < op.t_inv):
            value = by_return[returned].val
            largest = value if largest is None else max(largest, value)
            returned += 1
        if largest is not None and op.val <= largest:
            bad.append(f"counter {key}: {op.proc}#{op.idx} says {op.val} "
                       f"after {largest} had been answered")
    return bad


def check_registers(history, lost=()):
    """GET of keys that only one client writes, one request at a time: the
    value of the last SET, or of an unknown one since. lost: values that a
    failover has lost with the server they were written to; until the next
    SET nobody knows whether they are read."""
    bad = []
    current = {}
    for op in sorted(history, key=lambda op: op.t_inv):
        if op.op == "SET":
            if op.type == OK and op.arg in lost:
                current.setdefault(op.key, {None}).add(op.arg)
            elif op.type == OK:
                current[op.key] = {op.arg}
            elif op.type == INFO:
                current.setdefault(op.key, {None}).add(op.arg)
        elif op.op == "GET" and op.type == OK:
            allowed = current.get(op.key, {None})
            if op.val not in allowed:
                bad.append(f"wrong value: GET {op.key} at {op.proc}#{op.idx} "
                           f"says {op.val!r}, written was {allowed!r}")
    return bad


def check_aof(history, tag_counts=None, incr_counts=None, once=("RPUSH",)):
    """H4. tag_counts: {tag: executions} from the AOF. The tag of a write is
    its arg. Commands in `once` run at most once; others (SET) may be replayed
    when their answer was ok or unknown, never when it was a failure.
    incr_counts: {key: executions of INCR}."""
    bad = []
    tag_counts = tag_counts or {}
    for op in history:
        if op.op in once:
            bad += _check_counts([op], {op.arg: tag_counts.get(op.arg, 0)},
                                 "the AOF")
        elif op.op == "SET":
            n = tag_counts.get(op.arg, 0)
            if op.type == OK and n == 0:
                bad.append(f"lost: ok SET of {op.arg!r} is not in the AOF")
            elif op.type == FAIL and n:
                bad.append(f"untrue error: failed SET of {op.arg!r} is {n} "
                           f"times in the AOF")
    if incr_counts is None:
        return bad
    of_key = _incrs_by_key(history)
    for key in sorted(set(of_key) | set(incr_counts)):
        ops = of_key[key]
        ok = sum(op.type == OK for op in ops)
        unknown = sum(op.type == INFO for op in ops)
        n = incr_counts.get(key, 0)
        if not ok <= n <= ok + unknown:
            bad.append(f"AOF has {n} INCR of {key}, must be between {ok} "
                       f"and {ok + unknown}")
    return bad


def check_echo(history):
    """H5. History of ECHO with unique arg: each answer is its own. An answer
    that belongs to another request is swapped or late; which, the words say."""
    bad = []
    sender = {op.arg: op for op in history if op.op == "ECHO"}
    seen = Counter(op.val for op in history
                   if op.op == "ECHO" and op.type == OK)
    for op in history:
        if op.op != "ECHO" or op.type != OK or op.val == op.arg:
            continue
        owner = sender.get(op.val)
        if owner is None:
            bad.append(f"changed: {op.arg!r} came back as {op.val!r}")
        elif owner.conn != op.conn:
            bad.append(f"swapped: connection {op.conn} got {op.val!r} of "
                       f"connection {owner.conn}")
        else:
            bad.append(f"late: {op.arg!r} was answered with {op.val!r}")
    bad += [f"twice: {value!r} was answered {n} times"
            for value, n in seen.items() if n > 1]
    return bad
