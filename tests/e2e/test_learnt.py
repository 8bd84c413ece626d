"""Commands that redial's table lacks: of a module, made here, in a real server.
And its table beside what that server says of itself."""

import os
import re
import shutil
import subprocess

import pytest

from servers import ROOT
from wait import wait_until

HERE = os.path.dirname(os.path.abspath(__file__))


@pytest.fixture(scope="session")
def module(tmp_path_factory):
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    path = str(tmp_path_factory.mktemp("module") / "box.so")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", path,
                    os.path.join(HERE, "module.c")], check=True)
    return path


@pytest.fixture
def with_module(make_redis, module):
    return make_redis(options=("--loadmodule", module))


def learnt(redial):
    return redial.metric("learnt_commands")


def test_commands_of_a_module_are_learnt(with_module, make_redial):
    redial = make_redial(with_module.url)
    with redial.connect() as c:
        assert c.call("box.get", "1", "k") == 3
        assert c.call("BOX.PUT", "k") == 2
        assert learnt(redial) == 4
        assert "learnt 4 commands" in redial.log()
        assert c.call("NOSUCH").startswith("ERR unknown command")


def test_one_that_blocks_keeps_nobody_waiting(with_module, make_redial):
    redial = make_redial(with_module.url)
    with redial.connect() as waits, redial.connect() as other:
        waits.send("BOX.POP", "q")
        wait_until(lambda: any(row["cmd"] == "box.pop"
                               and "b" in row["flags"]
                               for row in with_module.clients()),
                   "the client is blocked")
        assert other.call("SET", "a", "1") == b"OK"
        assert redial.metric("lanes_private") == 1
        assert other.call("BOX.FILL") == b"OK"
        assert waits.read() == b"full"
        assert waits.call("GET", "a") == b"1"


def test_a_server_without_unknown_commands_teaches_nothing(redis, make_redial):
    redial = make_redial(redis.url)
    with redial.connect() as c:
        assert c.call("PING") == b"PONG"
    assert learnt(redial) == 0


def test_a_module_that_is_loaded_later_can_be_used_at_once(
        make_redis, make_redial, module):
    redis = make_redis(options=("--enable-module-command", "yes"))
    redial = make_redial(redis.url)
    with redial.connect() as c:
        assert c.call("BOX.GET", "1", "k").startswith("ERR unknown command")
        assert redis.call("MODULE", "LOAD", module) == b"OK"
        assert c.call("BOX.GET", "1", "k") == 3  # unknown, but passed on
    assert learnt(redial) == 0


def test_a_user_without_permission_learns_nothing(with_module, make_redial):
    assert with_module.call("ACL", "SETUSER", "bob", "on", ">secret", "~*",
                            "&*", "+@all", "-command") == b"OK"
    url = with_module.url.replace("redis://", "redis://bob:secret@")
    redial = make_redial(url)
    with redial.connect() as c:
        assert c.call("BOX.GET", "1", "k") == 3
    assert learnt(redial) == 0
    assert "NOPERM" in redial.log()


# ---- our table beside the server's --------------------------------------------

ROW = re.compile(r'^(?:COMMAND|CONTAINER)\("([^"]+)", (\w+), \w+, \w+, '
                 r'([^,]+), (-?\d+), (-?\d+), (-?\d+), (-?\d+), (\w+), \w+\)$')


def our_rows():
    with open(os.path.join(ROOT, "parser", "commands.def")) as file:
        for line in file:
            match = ROW.match(line.strip())
            if match:
                name, kind, flags, arity, first, last, step, keys = \
                    match.groups()
                yield name, {
                    "class": kind,
                    "flags": {f.strip() for f in flags.split("|")} - {"0"},
                    "arity": int(arity),
                    "range": (int(first), int(last), int(step)),
                    "keys": keys,
                }


def server_rows(redis):
    with redis.connect() as c:
        rows = c.call("COMMAND")
    for row in rows:
        for one in [row, *row[9]]:
            name = one[0].decode().upper().replace("|", " ")
            yield name, {
                "arity": one[1],
                "flags": {flag.decode() for flag in one[2]},
                "range": tuple(one[3:6]),
            }


# Where the table says something else than 7.0 does, and why.
BY_INTENT = {
    "WAIT: blocking",  # it waits; servers say so from 7.2
    # Channels are no keys, though they find their node as keys do (CHANNEL).
    "SPUBLISH: no keys, (1, 1, 1)",
    "SSUBSCRIBE: no keys, (1, -1, 1)",
    "SUNSUBSCRIBE: no keys, (1, -1, 1)",
}


def differences(ours, server):
    read_only = {"R", "RN", "BR"}
    found = []
    for name, theirs in server.items():
        row = ours.get(name)
        if row is None:
            found.append(f"{name}: not in the table")
            continue
        if row["arity"] != theirs["arity"]:
            found.append(f"{name}: arity {row['arity']}, {theirs['arity']}")
        if row["keys"] == "RANGE" and row["range"] != theirs["range"]:
            found.append(f"{name}: keys {row['range']}, {theirs['range']}")
        if row["keys"] == "NONE" and theirs["range"][0] != 0:
            found.append(f"{name}: no keys, {theirs['range']}")
        writes = "write" in theirs["flags"]
        if writes and (row["class"] in read_only or "W" not in row["flags"]):
            found.append(f"{name}: class {row['class']}, and it writes")
        if "readonly" in theirs["flags"] and "W" in row["flags"]:
            found.append(f"{name}: W, and it only reads")
        if ("blocking" in theirs["flags"]) != ("B" in row["flags"]):
            found.append(f"{name}: blocking")
    return sorted(found)


def test_our_table_says_what_the_server_says(redis):
    server = dict(server_rows(redis))
    assert len(server) > 300
    ours = dict(our_rows())
    assert differences(ours, server) == sorted(BY_INTENT)

    # ... and would say so if it did not.
    wrong = {"GET": {"arity": 3}, "SET": {"flags": set()},
             "LPUSH": {"class": "R"}, "BLPOP": {"flags": {"P", "W"}},
             "STRLEN": {"flags": {"W"}}, "MSET": {"range": (1, -1, 1)},
             "APPEND": {"keys": "NONE"}}
    for name, change in wrong.items():
        spoilt = {**ours, name: {**ours[name], **change}}
        assert [text.split(":")[0] for text in differences(spoilt, server)
                if text not in BY_INTENT] == [name]
    del ours["GET"]
    assert "GET: not in the table" in differences(ours, server)
