"""The fault relay: a TCP relay that hurts what passes through it.

One thread per relay runs a selector loop. Faults are set from the test's
thread and hold for all connections, or, for a Cut, for the next connection
that reaches it.

    relay = Relay(redis.port)          # listens on relay.port
    relay.latency = 0.05               # seconds, each direction, each chunk
    relay.slice = 1                    # bytes per send
    relay.join = 0.02                  # collect for so long, send in one piece
    relay.hold_to_server = True        # one-way black hole; False delivers
    relay.hold_to_client = True        # what was held, as TCP would
    relay.refuse(True)                 # connection refused
    relay.cut(TO_CLIENT, 17, RST)      # forward 17 bytes from now, then cut
    relay.cut_all(RST)                 # now, every connection

"server" is the side of redis, "client" the side that connected to the relay.
"""

import collections
import heapq
import itertools
import selectors
import socket
import struct
import threading
import time

TO_SERVER, TO_CLIENT = "to_server", "to_client"
FIN, RST, SILENCE = "FIN", "RST", "silence"
_QUEUE_MAX = 1 << 20
_LINGER_RESET = struct.pack("ii", 1, 0)


class Cut:
    """After `after` bytes in one direction, counted over one connection
    since the cut was set, the connection ends. fired tells."""

    def __init__(self, direction, after, how):
        self.direction, self.after, self.how = direction, after, how
        self.fired = threading.Event()


class _Pipe:
    """One direction of one connection."""

    def __init__(self, link, name, source, sink):
        self.link, self.name = link, name
        self.source, self.sink = source, sink
        self.queue = collections.deque()  # (due, bytes)
        self.queued = 0      # bytes in it
        self.paused = False  # too many: the source is not read, as TCP would
        self.ended = False   # the source has closed
        self.closed = False  # and the sink was told
        self.since_cut = 0


class _Link:
    """One relayed connection. dead: silence, nothing moves any more."""

    def __init__(self, client, server):
        self.client, self.server = client, server
        self.pipes = (_Pipe(self, TO_SERVER, client, server),
                      _Pipe(self, TO_CLIENT, server, client))
        self.dead = False
        self.open = True


class Relay:
    def __init__(self, target_port, host="127.0.0.1"):
        self.target = (host, target_port)
        self.host, self.port = host, 0
        self.latency = 0.0
        self.slice = 0
        self.join = 0.0
        self.hold_to_server = False
        self.hold_to_client = False
        self.accepted = 0
        self.received = {TO_SERVER: 0, TO_CLIENT: 0}
        self.bytes = {TO_SERVER: 0, TO_CLIENT: 0}  # passed on
        self._cuts = []
        self._links = set()
        self._calls = collections.deque()
        self._timers = []
        self._order = itertools.count()
        self._selector = selectors.DefaultSelector()
        self._wake_in, self._wake_out = socket.socketpair()
        self._wake_in.setblocking(False)
        self._selector.register(self._wake_in, selectors.EVENT_READ,
                                self._woken)
        self._listener = None
        self._listen()
        self._running = True
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    # -- for the test's thread

    @property
    def url(self):
        return f"redis://{self.host}:{self.port}"

    @property
    def address(self):
        return (self.host, self.port)

    @property
    def connections(self):
        return self._do(lambda: sum(not link.dead for link in self._links))

    def refuse(self, yes):
        self._do(self._unlisten if yes else self._listen)

    def cut(self, direction, after, how):
        cut = Cut(direction, after, how)

        def arm():
            self._cuts.append(cut)
            for link in self._links:
                for pipe in link.pipes:
                    pipe.since_cut = 0
        self._do(arm)
        return cut

    def forget_cuts(self):
        self._do(self._cuts.clear)

    def cut_all(self, how):
        self._do(lambda: [self._end(link, how) for link in list(self._links)])

    def close(self):
        def stop():
            self._unlisten()
            for link in list(self._links):
                self._end(link, FIN)
            self._running = False
        self._do(stop)
        self._thread.join(5)
        self._selector.close()
        self._wake_in.close()
        self._wake_out.close()

    def _do(self, function):
        """Run a function in the relay's thread and return its value."""
        done = threading.Event()
        result = []

        def call():
            result.append(function())
            done.set()
        self._calls.append(call)
        self._wake_out.send(b"x")
        assert done.wait(10), "the relay's thread has died"
        return result[0]

    # -- the relay's thread

    def _run(self):
        while self._running:
            for key, _ in self._selector.select(self._pause()):
                key.data()
            self._pump_all()

    def _pause(self):
        """Until the next queued byte is due."""
        if self.hold_to_server or self.hold_to_client:
            return 0.005  # a hold is lifted by plain assignment
        if not self._timers:
            return 0.05
        return max(0.0, self._timers[0] - time.monotonic())

    def _woken(self):
        self._wake_in.recv(1024)
        while self._calls:
            self._calls.popleft()()

    def _listen(self):
        if self._listener:
            return
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if self.port == 0:
            from servers import free_port
            self.port = free_port()
        self._listener.bind((self.host, self.port))
        self._listener.listen(512)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ,
                                self._accept)

    def _unlisten(self):
        if self._listener:
            self._selector.unregister(self._listener)
            self._listener.close()
            self._listener = None

    def _accept(self):
        if self._listener is None:
            return  # refused since the selector woke us
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        self.accepted += 1
        try:
            server = socket.create_connection(self.target, 5)
        except OSError:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                              _LINGER_RESET)
            client.close()
            return
        link = _Link(client, server)
        self._links.add(link)
        for pipe in link.pipes:
            pipe.source.setblocking(False)
            pipe.source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._watch(pipe)

    def _watch(self, pipe):
        self._selector.register(pipe.source, selectors.EVENT_READ,
                                lambda: self._read(pipe))

    def _unwatch(self, pipe):
        try:
            self._selector.unregister(pipe.source)
        except (KeyError, ValueError):
            pass  # is not watched

    def _read(self, pipe):
        if not pipe.link.open:
            return
        try:
            data = pipe.source.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            self._end(pipe.link, RST)
            return
        if not data:
            pipe.ended = True
            self._unwatch(pipe)
            return
        self.received[pipe.name] += len(data)
        if pipe.link.dead:
            return
        due = time.monotonic() + self.latency + self.join
        pipe.queue.append((due, data))
        pipe.queued += len(data)
        if pipe.queued >= _QUEUE_MAX:
            pipe.paused = True
            self._unwatch(pipe)
        heapq.heappush(self._timers, due)

    def _pump_all(self):
        now = time.monotonic()
        while self._timers and self._timers[0] <= now:
            heapq.heappop(self._timers)
        for link in list(self._links):
            for pipe in link.pipes:
                if link.open:
                    self._pump(pipe, now)
            if link.open and all(pipe.closed for pipe in link.pipes):
                self._end(link, FIN)

    def _pump(self, pipe, now):
        if pipe.link.dead or pipe.closed:
            return
        held = (self.hold_to_server if pipe.name == TO_SERVER
                else self.hold_to_client)
        while pipe.queue and not held and pipe.queue[0][0] <= now:
            data = self._take(pipe, now)
            if not self._forward(pipe, data):
                return
        if pipe.paused and pipe.queued < _QUEUE_MAX:
            pipe.paused = False
            self._watch(pipe)
        if pipe.ended and not pipe.queue:
            pipe.closed = True
            try:
                pipe.sink.shutdown(socket.SHUT_WR)
            except OSError:
                pass

    def _take(self, pipe, now):
        """What is due, in one piece if joined."""
        data = pipe.queue.popleft()[1]
        while self.join and pipe.queue:
            data += pipe.queue.popleft()[1]
        pipe.queued -= len(data)
        return data

    def _forward(self, pipe, data):
        """Send data, or as much as a cut allows; False when it is over."""
        cut = next((c for c in self._cuts if c.direction == pipe.name), None)
        if cut is not None and pipe.since_cut + len(data) >= cut.after:
            self._send(pipe, data[:cut.after - pipe.since_cut])
            self._cuts.remove(cut)
            self._end(pipe.link, cut.how)
            cut.fired.set()
            return False
        pipe.since_cut += len(data)
        return self._send(pipe, data)

    def _send(self, pipe, data):
        step = self.slice or len(data) or 1
        for start in range(0, len(data), step):
            if not self._send_piece(pipe, data[start:start + step]):
                return False
        self.bytes[pipe.name] += len(data)
        return True

    def _send_piece(self, pipe, piece):
        # Blocking is right here: a slow reader must slow the sender down, and
        # tests with a slow reader do not share a relay with others.
        pipe.sink.settimeout(20)
        try:
            pipe.sink.sendall(piece)
            return True
        except OSError:
            self._end(pipe.link, RST)
            return False
        finally:
            if pipe.link.open:
                pipe.sink.setblocking(False)

    def _end(self, link, how):
        """End a connection: on the client's side as told, on the server's
        side by a plain close. Silence keeps both open and moves nothing."""
        if how == SILENCE:
            link.dead = True
            return
        link.open = False
        self._links.discard(link)
        for pipe in link.pipes:
            self._unwatch(pipe)
        if how == RST:
            try:
                link.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                       _LINGER_RESET)
            except OSError:
                pass
        link.client.close()
        link.server.close()
