"""A RESP client that hides nothing: raw bytes out, raw bytes in.

Real client libraries retry, reconnect and convert; a test that asks what was
on the wire can't use them. This one does none of it.
"""

import socket

CRLF = b"\r\n"


class ReplyError(str):
    """An error reply, as a value."""

    @property
    def code(self):
        return self.split(" ", 1)[0]


class Push(list):
    """An out-of-band push message of RESP3."""


class NeedMore(Exception):
    """The buffer ends inside a message."""


def encode(*args):
    """One command as a multibulk request."""
    out = [b"*%d\r\n" % len(args)]
    for arg in args:
        arg = to_bytes(arg)
        out.append(b"$%d\r\n%s\r\n" % (len(arg), arg))
    return b"".join(out)


def to_bytes(arg):
    if isinstance(arg, bytes):
        return arg
    if isinstance(arg, (int, float)):
        return repr(arg).encode()
    return arg.encode()


def message_end(buf, pos=0):
    """Where the message that begins at pos ends; NeedMore if not here yet."""
    open_items = 1
    while open_items:
        eol = buf.find(CRLF, pos)
        if eol < 0:
            raise NeedMore
        kind = buf[pos:pos + 1]
        open_items -= 1
        if kind in (b"$", b"=", b"!"):
            size = int(buf[pos + 1:eol])
            pos = eol + 2 + (size + 2 if size >= 0 else 0)
            if pos > len(buf):
                raise NeedMore
            continue
        if kind in (b"*", b"~", b">"):
            open_items += max(0, int(buf[pos + 1:eol]))
        elif kind == b"%":
            open_items += 2 * int(buf[pos + 1:eol])
        elif kind == b"|":
            # An attribute stands in front of the value it belongs to.
            open_items += 2 * int(buf[pos + 1:eol]) + 1
        elif kind not in b"+-:_,#(":
            raise ValueError(f"not RESP: {bytes(buf[pos:pos + 40])!r}")
        pos = eol + 2
    return pos


def parse(buf, pos=0):
    """(value, end) of the message at pos. Test data is never nested deeply,
    so recursion is good enough here."""
    eol = buf.find(CRLF, pos)
    if eol < 0:
        raise NeedMore
    kind, line = buf[pos:pos + 1], bytes(buf[pos + 1:eol])
    pos = eol + 2
    if kind == b"+":
        return line, pos
    if kind == b"-":
        return ReplyError(line.decode("utf-8", "replace")), pos
    if kind == b":":
        return int(line), pos
    if kind == b"_":
        return None, pos
    if kind == b"#":
        return line == b"t", pos
    if kind == b",":
        return float(line), pos
    if kind == b"(":
        return int(line), pos
    if kind in (b"$", b"=", b"!"):
        size = int(line)
        if size < 0:
            return None, pos
        if len(buf) < pos + size + 2:
            raise NeedMore
        text = bytes(buf[pos:pos + size])
        if kind == b"!":
            return ReplyError(text.decode("utf-8", "replace")), pos + size + 2
        return (text[4:] if kind == b"=" else text), pos + size + 2
    count = int(line)
    if count < 0:
        return None, pos
    items = []
    for _ in range(count * (2 if kind in (b"%", b"|") else 1)):
        item, pos = parse(buf, pos)
        items.append(item)
    if kind == b"%":
        return list(zip(items[0::2], items[1::2])), pos
    if kind == b"|":
        return parse(buf, pos)
    return (Push(items) if kind == b">" else items), pos


class ConnectionClosed(Exception):
    """The peer closed; rest holds what came without being a whole message."""

    def __init__(self, why, rest=b""):
        super().__init__(f"{why}, unread: {rest[:80]!r}")
        self.rest = rest


class Connection:
    """One socket. address is (host, port) or the path of a Unix socket."""

    def __init__(self, address, timeout=20.0):
        self.buf = bytearray()
        if isinstance(address, str):
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(timeout)
            self.socket.connect(address)
        else:
            self.socket = socket.create_connection(address, timeout)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.timeout = timeout

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def send_raw(self, data):
        self.socket.sendall(data)

    def send(self, *args):
        self.send_raw(encode(*args))

    def fill(self):
        """Read what is there; ConnectionClosed when the peer has closed."""
        try:
            data = self.socket.recv(1 << 18)
        except ConnectionError as error:
            raise ConnectionClosed(str(error), bytes(self.buf)) from error
        if not data:
            raise ConnectionClosed("closed by peer", bytes(self.buf))
        self.buf += data

    def read_raw(self):
        """The bytes of the next message."""
        while True:
            try:
                end = message_end(self.buf)
                break
            except NeedMore:
                self.fill()
        raw = bytes(self.buf[:end])
        del self.buf[:end]
        return raw

    def read(self):
        return parse(self.read_raw())[0]

    def read_bytes(self, n):
        while len(self.buf) < n:
            self.fill()
        raw = bytes(self.buf[:n])
        del self.buf[:n]
        return raw

    def call(self, *args):
        self.send(*args)
        return self.read()

    def call_raw(self, *args):
        self.send(*args)
        return self.read_raw()

    def pipeline(self, commands):
        """Send all in one piece; the replies as values."""
        self.send_raw(b"".join(encode(*c) for c in commands))
        return [self.read() for _ in commands]

    def read_to_end(self):
        """Everything until the peer closes. A reset counts as a close."""
        while True:
            try:
                self.fill()
            except ConnectionClosed as closed:
                self.buf.clear()
                return closed.rest

    def is_closed_by_peer(self):
        """Whether the peer has closed, without waiting and without losing
        what it sent."""
        self.socket.setblocking(False)
        try:
            while True:
                data = self.socket.recv(1 << 16)
                if not data:
                    return True
                self.buf += data
        except BlockingIOError:
            return False
        except ConnectionError:
            return True
        finally:
            self.socket.settimeout(self.timeout)
