"""UP: an HTTP/2 server that does what a test's script says, frame by frame.

    up = Upstream(script)           # script(stream), in a thread per stream
    up = Upstream([refuse, echo])   # one script per request, the last repeats

Every request is kept in up.requests in the order of arrival: headers in
order, body, how it ended.
"""

import socket
import threading

from peer import REFUSED_STREAM, Gone, Peer, message
from servers import HOST, free_port

OK_HEADERS = [(":status", "200"), ("content-type", "application/grpc")]


def trailers(status=0, text=None, *extra):
    fields = [("grpc-status", str(status))]
    if text is not None:
        fields.append(("grpc-message", text))
    return fields + list(extra)


# --- ready scripts

def echo(stream):
    """Wait for the whole request, then send its body back."""
    stream.wait_over()
    if not stream.ended:
        return
    stream.headers(OK_HEADERS)
    stream.data(bytes(stream.body))
    stream.headers(trailers(), end=True)


def answer(payload=b"", status=0, text=None, *extra):
    def script(stream):
        stream.wait_over()
        stream.headers(OK_HEADERS)
        stream.data(message(payload))
        stream.headers(trailers(status, text, *extra), end=True)
    return script


def trailers_only(status=14, text="scripted", *extra):
    def script(stream):
        stream.wait_over()
        stream.headers(OK_HEADERS + trailers(status, text, *extra), end=True)
    return script


def headers_then_trailers(status=14, text="scripted", *extra):
    def script(stream):
        stream.wait_over()
        stream.headers(OK_HEADERS)
        stream.headers(trailers(status, text, *extra), end=True)
    return script


def reset(code):
    def script(stream):
        stream.wait_over()
        stream.rst(code)
    return script


def refuse(stream):
    """Before anything else: not processed."""
    stream.rst(REFUSED_STREAM)


def silent(stream):
    """Never an answer."""


def drop(stream):
    """The whole connection is lost once the request is there."""
    stream.wait_over()
    stream.peer.close(reset=True)


class Connection(Peer):
    def __init__(self, up, sock, **options):
        self.up = up
        super().__init__(sock, False, **options)


class Upstream:
    """settings: of its SETTINGS frame. on_connect(sock): instead of HTTP/2,
    for servers that say something else, or nothing."""

    def __init__(self, script=echo, settings=None, on_connect=None,
                 start=True, **options):
        self.script = script
        self.settings = {} if settings is None else settings
        self.on_connect = on_connect
        self.options = options
        self.requests = []
        self.connections = []
        self.accepted = 0
        self.errors = []
        self.lock = threading.Lock()
        self.listener = None
        self.port = free_port()
        if start:
            self.start()

    @property
    def target(self):
        return f"{HOST}:{self.port}"

    @property
    def count(self):
        return len(self.requests)

    def paths(self):
        return [request.path for request in list(self.requests)]

    def start(self):
        self.listener = socket.create_server((HOST, self.port), backlog=128)
        threading.Thread(target=self._accept, args=(self.listener,),
                         daemon=True).start()
        return self

    def refuse_connections(self):
        """Stop listening; open connections stay."""
        listener, self.listener = self.listener, None
        if listener:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def drop_connections(self, reset=False):
        for connection in list(self.connections):
            if not connection.closed:
                connection.close(reset)

    def stop(self):
        self.refuse_connections()
        self.drop_connections()

    def _accept(self, listener):
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            self.accepted += 1
            if self.on_connect:
                threading.Thread(target=self._raw, args=(sock,),
                                 daemon=True).start()
                continue
            try:
                self.connections.append(Connection(
                    self, sock, settings=self.settings,
                    on_stream=self._stream, **self.options))
            except Gone:
                pass

    def _raw(self, sock):
        try:
            self.on_connect(sock)
        except OSError:
            pass

    def _stream(self, stream):
        with self.lock:
            number = len(self.requests)
            self.requests.append(stream)
        script = self.script
        if isinstance(script, (list, tuple)):
            script = script[min(number, len(script) - 1)]
        threading.Thread(target=self._play, args=(script, stream),
                         daemon=True).start()

    def _play(self, script, stream):
        try:
            script(stream)
        except Gone:
            pass
        except Exception as error:  # a broken script must fail the test
            self.errors.append(repr(error))
            raise
