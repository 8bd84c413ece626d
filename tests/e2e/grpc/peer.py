"""One end of an HTTP/2 connection that hides nothing: every frame is seen,
every frame can be sent, also wrong ones. upstream.py and downstream.py build
on it.

hyperframe and hpack do the coding; there is no state machine that would forbid
what a test wants to say. What a decent peer does by itself (ACKs, credit) is
done here and can be turned off.
"""

import ctypes
import socket
import struct
import threading
import time

from hpack import Decoder, Encoder
from hyperframe.exceptions import HyperframeError
from hyperframe.frame import (ContinuationFrame, DataFrame, Frame,
                              GoAwayFrame, HeadersFrame, PingFrame,
                              RstStreamFrame, SettingsFrame,
                              WindowUpdateFrame)

from wait import wait_until

LIBC = ctypes.CDLL(None)
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_FRAME = 16384
DEFAULT_WINDOW = 65535

(NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR,
 SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL,
 COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM, INADEQUATE_SECURITY,
 HTTP_1_1_REQUIRED) = range(14)

MAX_CONCURRENT_STREAMS = SettingsFrame.MAX_CONCURRENT_STREAMS
INITIAL_WINDOW_SIZE = SettingsFrame.INITIAL_WINDOW_SIZE
MAX_HEADER_LIST_SIZE = SettingsFrame.MAX_HEADER_LIST_SIZE


def message(payload=b"", compressed=0):
    """One length-prefixed gRPC message."""
    return struct.pack(">BI", compressed, len(payload)) + payload


def messages(body):
    """The messages of a body; fails when it is not whole."""
    found = []
    while body:
        size = struct.unpack(">I", body[1:5])[0]
        assert len(body) >= 5 + size, "the last message is not whole"
        found.append(bytes(body[5:5 + size]))
        body = body[5 + size:]
    return found


class Gone(Exception):
    """The connection or the stream is over; ends the script of a stream."""


class Stream:
    def __init__(self, peer, number):
        self.peer, self.id = peer, number
        self.blocks = []     # [(fields, end)]: header blocks, in order
        self.events = []     # ("headers", end) ("data", bytes, end)
        #                      ("reset", code), in order
        self.times = []      # when each event arrived
        self.body = bytearray()
        self.received = 0
        self.ended = False
        self.reset = None
        self.sent_end = False
        self.window = peer.peer_initial_window
        self.keep_body = True

    def __repr__(self):
        return (f"<stream {self.id} blocks={self.blocks} "
                f"received={self.received} ended={self.ended} "
                f"reset={self.reset} lost={self.peer.closed}>")

    # --- what has arrived

    @property
    def over(self):
        return self.ended or self.reset is not None or self.peer.closed

    @property
    def fields(self):
        """The first block: request or response headers."""
        return self.blocks[0][0] if self.blocks else []

    @property
    def trailers(self):
        """The last block if it ended the stream."""
        return self.blocks[-1][0] if self.blocks and self.blocks[-1][1] \
            else []

    @property
    def trailers_only(self):
        return len(self.blocks) == 1 and self.blocks[0][1]

    def get(self, name, default=None):
        """A field of the first block."""
        return dict(self.fields).get(name, default)

    def last(self, name, default=None):
        """A field of the last block."""
        return dict(self.blocks[-1][0] if self.blocks else []).get(
            name, default)

    @property
    def status(self):
        """None without a status; text where it is no number."""
        value = dict(self.trailers).get("grpc-status")
        return int(value) if value and value.isdigit() else value

    @property
    def grpc_message(self):
        return dict(self.trailers).get("grpc-message", "")

    @property
    def path(self):
        return self.get(":path")

    def wait(self, condition, what, timeout=15):
        return self.peer.wait(condition, f"{what} of {self!r}", timeout)

    def wait_over(self, timeout=15):
        self.wait(lambda: self.over, "the end", timeout)
        return self

    def wait_headers(self, timeout=15):
        self.wait(lambda: self.blocks or self.over, "the headers", timeout)
        assert self.blocks, f"no headers: {self!r}"
        return self

    def wait_data(self, count=1, timeout=15):
        self.wait(lambda: self.received >= count or self.over, "the data",
                  timeout)
        assert self.received >= count, f"no data: {self!r}"
        return self

    def wait_reset(self, timeout=15):
        self.wait(lambda: self.reset is not None or self.peer.closed,
                  "the RST_STREAM", timeout)
        return self

    # --- what is sent

    def headers(self, fields, end=False, extra_frames=b""):
        self.sent_end = self.sent_end or end
        self.peer.send_headers(self.id, fields, end, extra_frames)

    def data(self, data, end=False, timeout=30):
        """With flow control; waits for credit."""
        data = memoryview(data)
        while True:
            piece = self.peer.take_credit(self, len(data), timeout)
            last = piece == len(data)
            frame = DataFrame(self.id, bytes(data[:piece]))
            if end and last:
                frame.flags.add("END_STREAM")
                self.sent_end = True
            self.peer.send(frame)
            data = data[piece:]
            if last:
                return

    def rst(self, code=CANCEL):
        self.peer.send(RstStreamFrame(self.id, error_code=code))

    def credit(self, count):
        self.peer.send(WindowUpdateFrame(self.id, window_increment=count))


class Peer:
    """is_client: who sends the preface and opens the streams.

    answers: ACK SETTINGS and PING; credits: give back the windows.
    on_stream(stream) is called in the reader thread when a peer opens one.
    """

    def __init__(self, sock, is_client, settings=None, answers=True,
                 credits=True, on_stream=None, greet=True):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1) \
            if sock.family != socket.AF_UNIX else None
        self.sock, self.is_client = sock, is_client
        self.answers, self.credits = answers, credits
        self.on_stream = on_stream
        self.encoder, self.decoder = Encoder(), Decoder()
        self.decoder.max_header_list_size = 1 << 24
        self.changed = threading.Condition(threading.RLock())
        self.write_lock = threading.RLock()
        self.streams = {}
        self.frames = []          # (time, frame) except DATA
        self.goaways = []         # (last stream id, code, debug data)
        self.pings = []           # (time, opaque data), without ACKs
        self.pongs = []           # opaque data of PING ACKs
        self.settings_acked = 0
        self.peer_settings = None  # a dict once the first SETTINGS is here
        self.peer_initial_window = DEFAULT_WINDOW
        self.window = DEFAULT_WINDOW  # what the peer lets us send
        self.own_initial_window = (settings or {}).get(
            INITIAL_WINDOW_SIZE, DEFAULT_WINDOW)
        self.data_received = 0
        self.closed = False
        self.first_read = b""     # the first bytes, as one recv gave them
        self.error = None
        self.next_id = 1
        self._open_block = None
        self._replies = []        # of the reading thread
        hello = b""
        if is_client:
            hello += PREFACE
        if greet:
            hello += SettingsFrame(0, settings=settings or {}).serialize()
        if hello:
            self.send_raw(hello)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    # --- waiting

    def wait(self, condition, what, timeout=15):
        end = time.monotonic() + timeout
        with self.changed:
            while not condition():
                left = end - time.monotonic()
                if left <= 0:
                    raise AssertionError(
                        f"waited {timeout:g} s for {what}; error: "
                        f"{self.error}, goaways: {self.goaways}")
                self.changed.wait(left)
        return True

    def wait_settings(self, timeout=15):
        self.wait(lambda: self.peer_settings is not None or self.closed,
                  "SETTINGS", timeout)
        assert self.peer_settings is not None, "closed before SETTINGS"
        return self

    def wait_closed(self, timeout=15):
        self.wait(lambda: self.closed, "the end of the connection", timeout)
        return self

    def wait_goaway(self, timeout=15):
        self.wait(lambda: self.goaways or self.closed, "GOAWAY", timeout)
        assert self.goaways, "closed without GOAWAY"
        return self.goaways[0]

    def ping_pong(self, timeout=15):
        """When this returns, the peer has read all that was sent before."""
        data = struct.pack(">Q", time.monotonic_ns())
        self.send(PingFrame(0, opaque_data=data))
        self.wait(lambda: data in self.pongs or self.closed, "PING ACK",
                  timeout)
        assert data in self.pongs, "closed before the PING ACK"

    # --- sending

    def send_raw(self, data):
        with self.write_lock:
            try:
                self.sock.sendall(data)
            except OSError as error:
                raise Gone(str(error)) from None

    def send(self, *frames):
        """All in one write."""
        self.send_raw(b"".join(frame.serialize() for frame in frames))

    def header_frames(self, stream_id, fields, end=False):
        block = self.encoder.encode(fields)
        pieces = [block[i:i + MAX_FRAME]
                  for i in range(0, len(block), MAX_FRAME)] or [b""]
        frames = [HeadersFrame(stream_id, pieces[0])]
        frames += [ContinuationFrame(stream_id, p) for p in pieces[1:]]
        frames[-1].flags.add("END_HEADERS")
        if end:
            frames[0].flags.add("END_STREAM")
        return b"".join(frame.serialize() for frame in frames)

    def take_exactly(self, stream, count, timeout=30):
        """Credit for a frame that is sent whole; without a stream only that
        of the connection."""
        with self.changed:
            self.wait(lambda: self.closed or (self.window >= count and (
                stream is None or stream.window >= count)), "credit", timeout)
            self.window -= count
            if stream is not None:
                stream.window -= count

    def send_headers(self, stream_id, fields, end=False, extra_frames=b""):
        with self.write_lock:  # the order of coding is the order on the wire
            self.send_raw(self.header_frames(stream_id, fields, end)
                          + extra_frames)

    def open_stream(self):
        with self.changed:
            stream = Stream(self, self.next_id)
            self.next_id += 2
            self.streams[stream.id] = stream
        return stream

    def take_credit(self, stream, wanted, timeout):
        def ready():
            if self.closed or stream.reset is not None:
                raise Gone(repr(stream))
            return not wanted or (self.window > 0 and stream.window > 0)
        with self.changed:
            self.wait(ready, f"credit for {stream!r}", timeout)
            piece = min(wanted, self.window, stream.window, MAX_FRAME)
            self.window -= piece
            stream.window -= piece
            return piece

    def goaway(self, last, code=NO_ERROR, data=b""):
        self.send(GoAwayFrame(0, last_stream_id=last, error_code=code,
                              additional_data=data))

    def change_settings(self, settings):
        self.send(SettingsFrame(0, settings=settings))

    def credit(self, count):
        self.send(WindowUpdateFrame(0, window_increment=count))

    def close(self, reset=False):
        """FIN, or RST with reset."""
        try:
            if reset:
                # connect(AF_UNSPEC) resets at once, although the reader
                # still holds the socket in recv().
                LIBC.connect(self.sock.fileno(), bytes(16), 16)
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()

    def send_and_close(self, *parts):
        """Bytes or frames, then FIN, so fast that both often share a
        segment."""
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        self.send_raw(b"".join(
            p if isinstance(p, bytes) else p.serialize() for p in parts))
        self.sock.shutdown(socket.SHUT_WR)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)

    # --- reading

    def pause_reading(self):
        """From now on nothing is read, or seen that was read already."""
        self.paused = True

    paused = False

    def _read(self):
        buffer = bytearray()
        preface_left = 0 if self.is_client else len(PREFACE)
        try:
            while True:
                data = self.sock.recv(1 << 18)
                while self.paused:
                    time.sleep(0.01)
                if not data:
                    break
                if not self.first_read:
                    self.first_read = data
                buffer += data
                if preface_left:
                    if len(buffer) < preface_left:
                        continue
                    if buffer[:preface_left] != PREFACE:
                        self.error = f"no preface: {bytes(buffer[:60])}"
                        break
                    del buffer[:preface_left]
                    preface_left = 0
                self._parse(buffer)
        except (OSError, HyperframeError, Gone) as error:
            self.error = self.error or repr(error)
        finally:
            with self.changed:
                self.closed = True
                self.changed.notify_all()
            self.on_closed()

    def on_closed(self):
        pass

    def _parse(self, buffer):
        at = 0
        while len(buffer) - at >= 9:
            size = int.from_bytes(buffer[at:at + 3], "big")
            if len(buffer) - at < 9 + size:
                break
            frame, size = Frame.parse_frame_header(
                memoryview(bytes(buffer[at:at + 9])))
            frame.parse_body(memoryview(bytes(buffer[at + 9:at + 9 + size])))
            at += 9 + size
            self._frame(frame)
        del buffer[:at]

    def _frame(self, frame):
        now = time.monotonic()
        opened = None
        with self.changed:
            if isinstance(frame, DataFrame):
                self._data(frame, now)
            else:
                self.frames.append((now, frame))
                opened = self._other(frame, now)
            self.changed.notify_all()
        # Not under the lock: who opens a stream takes both the other way.
        replies, self._replies = self._replies, []
        if replies:
            self.send(*replies)
        if opened and self.on_stream:
            self.on_stream(opened)

    def _other(self, frame, now):
        if isinstance(frame, (HeadersFrame, ContinuationFrame)):
            return self._headers(frame, now)
        if isinstance(frame, SettingsFrame):
            self._settings(frame)
        elif isinstance(frame, PingFrame):
            if "ACK" in frame.flags:
                self.pongs.append(frame.opaque_data)
            else:
                self.pings.append((now, frame.opaque_data))
                if self.answers:
                    self._replies.append(PingFrame(
                        0, opaque_data=frame.opaque_data, flags=["ACK"]))
        elif isinstance(frame, WindowUpdateFrame):
            if frame.stream_id == 0:
                self.window += frame.window_increment
            elif frame.stream_id in self.streams:
                self.streams[frame.stream_id].window += frame.window_increment
        elif isinstance(frame, RstStreamFrame):
            stream = self.streams.get(frame.stream_id)
            if stream:
                stream.reset = frame.error_code
                self._event(stream, now, "reset", frame.error_code)
        elif isinstance(frame, GoAwayFrame):
            self.goaways.append((frame.last_stream_id, frame.error_code,
                                 bytes(frame.additional_data)))
        return None

    @staticmethod
    def _event(stream, now, *event):
        stream.events.append(event)
        stream.times.append(now)

    def _settings(self, frame):
        if "ACK" in frame.flags:
            self.settings_acked += 1
            return
        new = frame.settings.get(INITIAL_WINDOW_SIZE)
        if new is not None:
            for stream in self.streams.values():
                stream.window += new - self.peer_initial_window
            self.peer_initial_window = new
        if SettingsFrame.HEADER_TABLE_SIZE in frame.settings:
            self.encoder.header_table_size = \
                frame.settings[SettingsFrame.HEADER_TABLE_SIZE]
        self.peer_settings = {**(self.peer_settings or {}), **frame.settings}
        if self.answers:
            self._replies.append(SettingsFrame(0, flags=["ACK"]))

    def _headers(self, frame, now):
        if isinstance(frame, HeadersFrame):
            self._open_block = [frame, bytearray(frame.data)]
        else:
            self._open_block[1] += frame.data
        if "END_HEADERS" not in frame.flags:
            return None
        first, block = self._open_block
        fields = [(name.decode("latin-1"), value.decode("latin-1"))
                  for name, value in self.decoder.decode(bytes(block),
                                                         raw=True)]
        stream = self.streams.get(first.stream_id)
        opened = None
        if stream is None:
            stream = self.streams[first.stream_id] = \
                Stream(self, first.stream_id)
            opened = stream
        end = "END_STREAM" in first.flags
        stream.blocks.append((fields, end))
        stream.ended = stream.ended or end
        self._event(stream, now, "headers", end)
        return opened

    def _data(self, frame, now):
        stream = self.streams.get(frame.stream_id)
        self.data_received += len(frame.data)
        if stream is not None:
            end = "END_STREAM" in frame.flags
            stream.received += len(frame.data)
            if stream.keep_body:
                stream.body += frame.data
                self._event(stream, now, "data", len(frame.data), end)
            stream.ended = stream.ended or end
        count = frame.flow_controlled_length
        if self.credits and count:
            self._replies.append(WindowUpdateFrame(0, window_increment=count))
            if stream is not None and not stream.ended \
                    and stream.reset is None:
                self._replies.append(WindowUpdateFrame(
                    frame.stream_id, window_increment=count))


def wait_count(items, count, what, timeout=15):
    """Wait until a growing list has that many."""
    wait_until(lambda: len(items) >= count, f"{count} {what}", timeout)
    return items
