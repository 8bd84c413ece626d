"""Plays scenes against one side and records every byte that comes back.

The direct side is played first: after each step the player waits until the
server has nothing more to do, so it learns how many messages the step brings
on which connection. On the other side it waits for as many.
"""

import re
import select
import socket
import time
from dataclasses import dataclass, field

import normalise
from resp import NeedMore, message_end

PATIENCE_S = 4.0       # for what should come
LITTLE_S = 0.1         # for what should not come
QUIET_S = 0.04         # scenes in which the server answers nobody
SMALL_WRITE = 4096
BUSY = ("busy",)


class Conn:
    """A client's socket, the messages it has received, and its end."""

    def __init__(self, address):
        self.socket = socket.create_connection(address, 10)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.port = self.socket.getsockname()[1]
        self.buf = bytearray()
        self.messages = []
        self.closed = False
        self.garbled = False

    def send(self, data, cut):
        pieces = [data[i:i + cut] for i in range(0, len(data), cut)] \
            if cut else [data]
        for piece in pieces:
            self._send_all(piece)

    def _send_all(self, data):
        """Also takes what comes, so that nobody waits for the other."""
        view = memoryview(data)
        end = time.monotonic() + PATIENCE_S
        while view and time.monotonic() < end:
            self.drain()
            try:
                view = view[self.socket.send(view):]
            except BlockingIOError:
                select.select([self.socket], [self.socket], [], 0.1)
            except OSError:
                return  # the end of it shows when it is read

    def drain(self):
        """Take what is there. Whether anything was."""
        got = False
        while not self.closed:
            try:
                data = self.socket.recv(1 << 18)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            got = True
            if data:
                self.buf += data
            else:
                self.closed = True
        if got:
            self._split()
        return got

    def _split(self):
        while self.buf and not self.garbled:
            try:
                end = message_end(self.buf)
            except NeedMore:
                return
            except ValueError:
                self.garbled = True
                return
            message = bytes(self.buf[:end])
            if not normalise.MONITOR_HANDSHAKE.match(message):
                self.messages.append(message)
            del self.buf[:end]

    def take(self, count=None):
        """The messages so far, with what is no whole message behind them when
        nothing more can come."""
        count = len(self.messages) if count is None else count
        out, self.messages = self.messages[:count], self.messages[count:]
        if (self.closed or self.garbled) and not self.messages and self.buf:
            out.append(bytes(self.buf))
            self.buf.clear()
        return out

    def shut(self):
        self.socket.close()


@dataclass
class Heard:
    """What one step brought."""
    messages: dict = field(default_factory=dict)    # conn -> [bytes]
    closed: set = field(default_factory=set)        # connections at their end
    waiting: tuple = ()                             # the server's clients
    kept: dict = field(default_factory=dict)        # name -> value

    def count(self, conn):
        return len(self.messages.get(conn, ()))


class Side:
    """One address, and the server that answers there in the end."""

    def __init__(self, side):
        self.side = side
        self.control = side.server.connect()
        self.control.socket.settimeout(PATIENCE_S)
        self.conns, self.variables = {}, {}
        self.sent, self.lost = 0, False

    def start_scene(self):
        self.lost = False
        for conn in self.conns.values():
            conn.shut()
        self.conns, self.variables = {}, {}

    def conn(self, name):
        if name not in self.conns:
            self.conns[name] = Conn(self.side.address)
        return self.conns[name]

    def do(self, step):
        """Let the step's connection do it; nothing is waited for."""
        if step.what == "clock":
            self.side.server.clock.advance(step.seconds)
            self.wait_for_clock()
        elif step.what == "open":
            self.conn(step.conn)
        elif step.what == "close":
            if step.conn in self.conns:
                self.conns.pop(step.conn).shut()
        elif step.what == "end":
            self.conns[step.conn].socket.shutdown(socket.SHUT_WR)
        else:
            data = step.data(self.variables)
            self.sent += len(data)
            self.conn(step.conn).send(data, step.cut)

    def wait_alone(self):
        """Until nobody of the scene before is blocked or subscribed. What is
        left of it, if redial has lost its way in there."""
        end = time.monotonic() + PATIENCE_S
        while self.waiting() != (0, 0) and time.monotonic() < end:
            time.sleep(0.002)
        left = self.waiting()
        if left == BUSY:
            self.control.call("SCRIPT", "KILL")
        return left

    def wait_for_clock(self):
        """The server looks at the clock for what it keeps of it (LRU) only now
        and then. One that is paused does not tell."""
        now = b"lru_clock:%d\r" % (
            self.side.server.clock.now_us // 1_000_000 % (1 << 24))
        self.control.socket.settimeout(0.05)
        try:
            while now not in self.control.call("INFO", "server"):
                time.sleep(0.002)
        except TimeoutError:
            self.control.read()  # what came before the pause was over
        finally:
            self.control.socket.settimeout(PATIENCE_S)

    def end_pause(self):
        """Of a CLIENT PAUSE that nothing in the scene has ended."""
        clock = self.side.server.clock
        now_us = clock.now_us
        clock.advance(1e6)
        time.sleep(0.2)
        clock.set(now_us)

    def drain(self):
        return any([conn.drain() for conn in self.conns.values()])

    def take(self, expected=None):
        heard = Heard()
        for name, conn in self.conns.items():
            messages = conn.take(None if expected is None
                                 else expected.count(name))
            if messages:
                heard.messages[name] = messages
            if conn.closed:
                heard.closed.add(name)
        return heard

    def keep(self, step, heard):
        """Remember the reply under the name the scene gives it."""
        if step.save:
            reply = heard.messages.get(step.conn, [b""])[-1]
            body = reply.split(b"\r\n", 1)
            value = body[0][1:] if reply[:1] in b":+" else \
                body[1].removesuffix(b"\r\n") if len(body) > 1 else b""
            self.variables[step.save] = value
        heard.kept = dict(self.variables)

    def waiting(self):
        """(blocked clients, subscriptions). MONITOR does not show CLIENT LIST.
        BUSY with a script it is."""
        self.control.send("CLIENT", "LIST")
        try:
            rows = self.control.read()
        except TimeoutError:
            self.end_pause()
            rows = self.control.read()
        if not isinstance(rows, bytes):
            return BUSY
        blocked = len(re.findall(rb" flags=\w*b", rows))
        subscribed = sum(int(n) for n in re.findall(
            rb" s?p?s?sub=(\d+)", rows))
        return blocked, subscribed


class DirectSide(Side):
    """Meets the server, and knows by its control connection when the server
    has read and answered everything."""

    def listen(self, step, scene):
        self._wait_idle(self.sent > SMALL_WRITE)
        self.sent = 0
        heard = self.take()
        self.keep(step, heard)
        if not scene.silent():
            heard.waiting = self.waiting()
        return heard

    def _wait_idle(self, large):
        """Twice around the server's loop without a byte. It takes requests in
        one turn and writes the replies at the end of it, so the second reply
        to the control connection comes behind everything else. Of a large
        request it takes only a part in one turn. A command that does not
        exist is answered also by a server that is busy or paused, and leaves
        no trace in MONITOR and SLOWLOG."""
        quiet = 0
        while quiet < (2 if large else 1):
            for _ in range(2):
                self.control.call("NOSUCHCOMMAND")
            busy = self.drain() or (large and self._unread())
            quiet = 0 if busy else quiet + 1

    def _unread(self):
        """Whether bytes of clients wait in the server's sockets, or in front
        of them."""
        port = f":{self.side.server.port:04X}"
        with open("/proc/net/tcp") as table:
            for line in table.readlines()[1:]:
                _, local, remote, state, queues = line.split()[:5]
                sending, receiving = queues.split(":")
                if state == "01" and (
                        local.endswith(port) and receiving != "00000000" or
                        remote.endswith(port) and sending != "00000000"):
                    return True
        return False


class OtherSide(Side):
    """Waits for what the direct side has heard."""

    def listen(self, expected, in_vain):
        """in_vain: it may well be that it does not come."""
        self._wait(lambda: self._has(expected),
                   LITTLE_S if self.lost or in_vain else PATIENCE_S)
        if expected.waiting:
            self._wait(lambda: self.waiting() == expected.waiting,
                       LITTLE_S if self.lost else 1.0)
        return self.take(expected)

    def _has(self, expected):
        for name, conn in self.conns.items():
            if len(conn.messages) < expected.count(name):
                whole = conn.closed or conn.garbled
                if not (whole and conn.buf and
                        len(conn.messages) + 1 == expected.count(name)):
                    return False
            if name in expected.closed and not conn.closed:
                return False
        return True

    def _wait(self, condition, patience):
        end = time.monotonic() + patience
        while True:
            self.drain()
            if condition():
                return True
            if time.monotonic() > end:
                return False
            sockets = [c.socket for c in self.conns.values() if not c.closed]
            select.select(sockets, [], [], 0.005)
