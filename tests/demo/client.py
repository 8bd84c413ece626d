"""One client of the demo: its load, and what it knows to be true.

It is deliberately plain: one connection, no retry of its own, one request at
a time. What a request did not answer for certain is remembered, so that every
later value can be judged.
"""

import socket
import threading
import time

REQUESTS_PER_S = 100
PATIENCE_S = 30.0


class Ledger:
    """What this client was told, and so what the server may hold."""

    def __init__(self):
        self.value = None  # the last SET that was answered
        self.maybe = set()  # SETs since then that may have happened
        self.counter = 0  # the last INCR that was answered
        self.unknown = 0  # INCRs since then that may have happened
        self.acked_total = 0
        self.unknown_total = 0

    def set_done(self, value):
        self.value = value
        self.maybe = set()

    def set_maybe(self, value):
        self.maybe.add(value)

    def get_is_right(self, value):
        return value == self.value or value in self.maybe

    def incr_is_right(self, number):
        """The first INCR that was answered must have counted once; those
        without an answer once or not at all."""
        right = self.counter < number <= self.counter + 1 + self.unknown
        self.counter = number
        self.unknown = 0
        self.acked_total += 1
        return right

    def incr_maybe(self):
        self.unknown += 1
        self.unknown_total += 1

    def final_is_right(self, number):
        return self.acked_total <= number <= self.acked_total + self.unknown_total


class Lost(Exception):
    """The connection ended before the answer."""


class Refused(Exception):
    """There was no connection: the request was certainly not sent."""


class Connection:
    def __init__(self, port):
        self.port = port
        self.file = None
        self.socket = None
        self.lost = 0

    def _open(self):
        try:
            self.socket = socket.create_connection(
                ("127.0.0.1", self.port), PATIENCE_S
            )
        except OSError as error:
            raise Refused(str(error)) from error
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.socket.makefile("rb")

    def close(self):
        if self.socket is not None:
            self.file.close()
            self.socket.close()
            self.socket = None

    def ask(self, *words):
        """The reply: its first byte and its text."""
        if self.socket is None:
            self._open()
        request = f"*{len(words)}\r\n"
        request += "".join(f"${len(w)}\r\n{w}\r\n" for w in words)
        try:
            self.socket.sendall(request.encode())
            return self._reply()
        except (OSError, Lost) as error:
            self.close()
            self.lost += 1
            raise Lost(str(error)) from error

    def _reply(self):
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise Lost("end of stream")
        kind, text = chr(line[0]), line[1:-2].decode()
        if kind == "$" and text != "-1":
            body = self.file.read(int(text) + 2)
            if len(body) != int(text) + 2:
                raise Lost("end of stream")
            return "$", body[:-2].decode()
        return kind, text


class Client(threading.Thread):
    """Asks SET, GET, INCR in turn, on keys of its own, until told to stop."""

    def __init__(self, name, port, stop, offset=0):
        super().__init__(daemon=True)
        self.key = f"demo:{name}"
        self.connection = Connection(port)
        self.stop_event = stop
        self.ledger = Ledger()
        self.offset = offset  # so that not all clients ask the same at once
        self.requests = 0
        self.errors = 0
        self.unknown = 0
        self.wrong = 0
        self.longest_s = 0.0
        self.last_good = None
        self.last_error = ""

    def run(self):
        steps = (self._set, self._get, self._incr)
        due = self.last_good = time.monotonic()
        while not self.stop_event.is_set():
            good = steps[(self.offset + self.requests) % len(steps)]()
            self.requests += 1
            now = time.monotonic()
            if good:
                self.longest_s = max(self.longest_s, now - self.last_good)
                self.last_good = now
            due = max(due + 1 / REQUESTS_PER_S, now)
            self.stop_event.wait(due - now)

    def _ask(self, *words):
        """The reply, or None when it is an error. Says whether the request
        may have been executed all the same."""
        try:
            kind, text = self.connection.ask(*words)
        except Refused as error:
            return self._error(str(error), maybe=False)
        except Lost as error:
            return self._error(f"connection lost: {error}", maybe=True)
        if kind == "-":
            return self._error(text, maybe=text.startswith("UNKNOWNOUTCOME"))
        return (kind, text), False

    def _error(self, text, maybe):
        self.last_error = text
        return None, maybe

    def _set(self):
        value = f"{self.key}-{self.requests}"
        reply, maybe = self._ask("SET", f"{self.key}:value", value)
        if reply == ("+", "OK"):
            self.ledger.set_done(value)
            return True
        if maybe:
            self.ledger.set_maybe(value)
        self.errors += 1
        return False

    def _get(self):
        reply, _ = self._ask("GET", f"{self.key}:value")
        if reply is None:
            self.errors += 1
            return False
        found = reply[1] if reply[0] == "$" and reply[1] != "-1" else None
        if not self.ledger.get_is_right(found):
            self.wrong += 1
        return True

    def _incr(self):
        reply, maybe = self._ask("INCR", f"{self.key}:counter")
        if reply is None:
            if maybe:
                self.ledger.incr_maybe()
            if self.last_error.startswith("UNKNOWNOUTCOME"):
                self.unknown += 1
            else:
                self.errors += 1
            return False
        if reply[0] != ":" or not self.ledger.incr_is_right(int(reply[1])):
            self.wrong += 1
        return True

    def check_final(self, connection):
        """Compare the counter on the server with what was answered."""
        _, text = connection.ask("GET", f"{self.key}:counter")
        if not self.ledger.final_is_right(int(text)):
            self.wrong += 1
