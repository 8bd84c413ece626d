"""DN: an HTTP/2 client that sends what a test says, frame by frame."""

import socket

from peer import Gone, Peer, message

PATH = "/test.Svc/Unary"


def request_fields(path=PATH, *extra, method="POST", authority="localhost",
                   content_type="application/grpc", te="trailers"):
    fields = [(":method", method), (":scheme", "http"), (":path", path)]
    if authority is not None:
        fields.append((":authority", authority))
    if te is not None:
        fields.append(("te", te))
    if content_type is not None:
        fields.append(("content-type", content_type))
    return fields + list(extra)


class Downstream(Peer):
    def __init__(self, address, settings=None, **options):
        if isinstance(address, str):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(address)
        else:
            sock = socket.create_connection(address, 10)
            sock.settimeout(None)
        super().__init__(sock, True, settings=settings, **options)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def start(self, path=PATH, *extra, body=None, end=True, fields=None,
              **options):
        """Open a stream; body is sent as one message."""
        with self.write_lock:  # streams open in the order of their numbers
            stream = self.open_stream()
            stream.headers(fields if fields is not None else
                           request_fields(path, *extra, **options),
                           end=end and body is None)
        if body is not None:
            try:
                stream.data(message(body), end=end)
            except Gone:
                if not stream.over:  # answered before it was whole
                    raise
        return stream

    def unary(self, path=PATH, *extra, body=b"", timeout=15, **options):
        """A whole call; returns its stream when it is over."""
        return self.start(path, *extra, body=body, **options).wait_over(
            timeout)
