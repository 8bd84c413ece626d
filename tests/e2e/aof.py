"""What the server has really executed: its append-only file.

With `appendfsync always` a write is in the file before its reply leaves, so
the file is the ground truth that no proxy and no client can colour.
"""

import os


def read_commands(data):
    """All complete commands of one AOF file, as lists of bytes. A cut tail
    (the server was killed while writing) and the annotations (# TS:...) are
    skipped; anything else that is not a command is an error of the caller."""
    pos = 0
    while pos < len(data):
        if data[pos:pos + 1] == b"#":
            end = data.find(b"\n", pos)
            if end < 0:
                return
            pos = end + 1
            continue
        command, pos = _read_command(data, pos)
        if command is None:
            return
        yield command


def _read_command(data, pos):
    if data[pos:pos + 1] != b"*":
        raise ValueError(f"not an AOF command at {pos}: "
                         f"{data[pos:pos + 20]!r}")
    eol = data.find(b"\r\n", pos)
    if eol < 0:
        return None, pos
    count = int(data[pos + 1:eol])
    pos = eol + 2
    args = []
    for _ in range(count):
        eol = data.find(b"\r\n", pos)
        if eol < 0:
            return None, pos
        size = int(data[pos + 1:eol])
        pos = eol + 2
        if len(data) < pos + size + 2:
            return None, pos
        args.append(bytes(data[pos:pos + size]))
        pos += size + 2
    return args, pos


def drop_open_transactions(commands):
    """Without blocks that have no EXEC: the server does not load them."""
    block = None
    for command in commands:
        name = command[0].upper()
        if name == b"MULTI":
            block = []
        elif name == b"EXEC":
            yield from block or []
            block = None
        elif block is not None:
            block.append(command)
        else:
            yield command


def load(directory):
    """All commands in the data directory of a server: the base file and the
    increments of the manifest (7.0), or the one old appendonly.aof.

    Servers must run with aof-use-rdb-preamble no: else the base is an RDB,
    which is only allowed while it is empty."""
    multi = os.path.join(directory, "appendonlydir")
    if os.path.isdir(multi):
        paths = [os.path.join(multi, name) for name in manifest(multi)]
    else:
        paths = [os.path.join(directory, "appendonly.aof")]
    commands = []
    for path in paths:
        with open(path, "rb") as file:
            data = file.read()
        if data.startswith(b"REDIS"):
            if b"appendonly.aof" in path.encode() and len(data) > 200:
                raise ValueError(f"{path} is an RDB with content")
            continue
        commands += drop_open_transactions(read_commands(data))
    return commands


def manifest(directory):
    files = []
    for name in os.listdir(directory):
        if name.endswith(".manifest"):
            with open(os.path.join(directory, name)) as manifest:
                for line in manifest:
                    words = line.split()
                    row = dict(zip(words[0::2], words[1::2]))
                    if row.get("type") in ("b", "i"):
                        files.append((row["type"] == "i", int(row["seq"]),
                                      row["file"]))
    return [name for _, _, name in sorted(files)]


def count_arguments(commands, is_tag):
    """How often each argument for which is_tag(arg) holds was executed."""
    counts = {}
    for command in commands:
        for arg in command[1:]:
            if is_tag(arg):
                counts[arg] = counts.get(arg, 0) + 1
    return counts


def count_commands(commands, name):
    """{key: executions} of one command with the key as first argument."""
    counts = {}
    for command in commands:
        if command[0].upper() == name:
            counts[command[1]] = counts.get(command[1], 0) + 1
    return counts
