"""What may differ in a reply although nothing is wrong, command by command.

Each normaliser takes out of a reply what two servers, or two connections of
one, cannot agree on, and nothing else. docs/differential.md lists them by
name. A reply is only normalised where the bytes differ.
"""

import fnmatch
import re
from dataclasses import dataclass
from typing import Callable


@dataclass
class Normaliser:
    name: str
    commands: tuple          # patterns for the words in capitals
    apply: Callable          # bytes -> bytes
    reason: str

    def fits(self, command):
        return any(fnmatch.fnmatchcase(command, p) for p in self.commands)


ALL = []


def normaliser(name, *commands, reason):
    def add(function):
        ALL.append(Normaliser(name, commands, function, reason))
        return function
    return add


def command_text(words):
    return " ".join(w.decode("latin-1").upper() for w in words)


def bulk_free(raw):
    """Without the lengths of bulk strings, which follow from the rest."""
    return re.sub(rb"(?m)^[$=]\d+\r$", b"$\r", raw)


def fields(names, raw):
    """name=value with the value taken out."""
    alternatives = b"|".join(n.encode() for n in names)
    return re.sub(rb"(?<![\w-])(" + alternatives + rb")=[^ \r\n]*",
                  rb"\1=", bulk_free(raw))


@normaliser("hello-id", "*", reason="the id of the connection in HELLO's reply")
def hello_id(raw):
    return re.sub(rb"(\$5\r\nproto\r\n:[23]\r\n\$2\r\nid\r\n):\d+", rb"\1:",
                  raw)


@normaliser("client-id", "CLIENT ID", reason="the id of the connection")
def client_id(raw):
    return re.sub(rb"^:[1-9]\d*\r\n$", b":\r\n", raw)


# A lane's handshake, and what redial says in a client's place. These lines of
# MONITOR are left out on both sides.
MONITOR_HANDSHAKE = re.compile(
    rb'\+\d+\.\d{6} \[\d+ [^\]]*\] "(HELLO|SELECT|PING|COMMAND|ROLE|'
    rb'CLIENT" "(ID|SETNAME" "redial-|REPLY))')


CONNECTION = ("id", "addr", "laddr", "fd", "redir")
BUFFERS = ("qbuf", "qbuf-free", "argv-mem", "multi-mem", "rbs", "rbp", "obl",
           "oll", "omem", "tot-mem", "events")


@normaliser("client-info", "CLIENT INFO", "CLIENT LIST ID*", reason="id, addresses and file of "
            "the connection; buffers, which depend on how much of a pipeline "
            "the server reads at once")
def client_info(raw):
    return fields(CONNECTION + BUFFERS, raw)


@normaliser("monitor-address", "MONITOR", reason="the address of the "
            "connection that a command came over")
def monitor_address(raw):
    return re.sub(rb"^(\+[\d.]+ \[\d+) 127\.0\.0\.1:\d+\]", rb"\1]", raw)


@normaliser("acl-log", "ACL LOG*", reason="the connection of who was refused")
def acl_log(raw):
    return fields(CONNECTION + BUFFERS + ("name",), raw)


@normaliser("slowlog-entry", "SLOWLOG GET*", reason="durations; address and "
            "name of the connection, which may be a shared lane")
def slowlog_entry(raw):
    return re.sub(rb"(?m):\d+(\r\n\*(?:.*\r\n)+?)\$\r\n127\.0\.0\.1:\d+\r\n"
                  rb"\$\r\n.*\r\n", rb":\1", bulk_free(raw))


@normaliser("object-address", "DEBUG OBJECT*", reason="a place in memory")
def object_address(raw):
    return re.sub(rb"at:0x[0-9a-f]+", b"at:", raw)


@normaliser("server-figures", "INFO*", reason="what the server measures: all "
            "fields and sections must be there, their values only for the "
            "keyspace")
def server_figures(raw):
    raw = re.sub(rb"(?m)^((?!db\d)\w+):.*\r$", rb"\1:", bulk_free(raw))
    raw = re.sub(rb"(?m)^(?:cmdstat|errorstat|latency_percentiles_usec)_.*\n",
                 b"", raw)
    return raw


@normaliser("memory-figures", "MEMORY STATS", "MEMORY MALLOC-STATS",
            reason="what the allocator measures: the names must be there")
def memory_figures(raw):
    if b"jemalloc" in raw[:200]:
        return b"jemalloc"
    raw = re.sub(rb"(?m)^[:,][-+.\de]+\r$", b":\r", bulk_free(raw))
    return re.sub(rb"(?m)^-?[\d.]+\r$", b"\r", raw)


@normaliser("port-and-folder", "CONFIG GET*", reason="each server has a port, "
            "a folder and a log file of its own")
def port_and_folder(raw):
    return re.sub(rb"(\$4\r\nport\r\n|\$3\r\ndir\r\n)\$\d+\r\n[^\r]*",
                  rb"\1", raw)


@normaliser("latency-figures", "LATENCY HISTOGRAM*", reason="measured times: "
            "the commands and the numbers of calls must agree")
def latency_figures(raw):
    return re.sub(rb"(histogram_usec\r\n).*?(?=\$|\Z)", rb"\1", raw,
                  flags=re.S)


def agreed(words, direct, redial):
    """The name of the normaliser after which the two are equal, or None.
    words: the command they answer; empty if that is not certain."""
    command = command_text(words or [])
    for one in ALL:
        if one.fits(command) and one.apply(direct) == one.apply(redial):
            return one.name
    return None


def without_kept(raw, kept):
    """Integers that a scene has kept (ids of connections) by their names."""
    for name, value in kept.items():
        if value.isdigit():
            raw = raw.replace(b":%s\r\n" % value, b":%s\r\n" % name.encode())
    return raw


def is_monitor_line(raw):
    return re.match(rb"\+\d+\.\d{6} \[\d+ ", raw) is not None
