"""A server that says what a test tells it to say.

It knows just enough to let redial connect; answers["GET"] = bytes, or a
function of the arguments, replaces the answer to a command. None answers
nothing, CLOSE closes.
"""

import socket
import threading

from resp import NeedMore, parse
from servers import HOST, free_port

CLOSE = object()
HELLO3 = (b"%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n"
          b"7.0.15\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:7\r\n$4\r\nmode\r\n"
          b"$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n"
          b"$7\r\nmodules\r\n*0\r\n")


class ScriptedServer:
    def __init__(self):
        self.answers = {"PING": b"+PONG\r\n", "HELLO": self._hello,
                        "CLIENT": self._client}
        self.requests = []  # all commands, in order, as lists of bytes
        self.accepted = 0
        self.port = free_port()
        self.url = f"redis://{HOST}:{self.port}"
        self._listener = socket.create_server((HOST, self.port), backlog=128)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self):
        # shutdown wakes the thread in accept(); close alone does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def count(self, name):
        return sum(request[0].upper() == name.encode()
                   for request in list(self.requests))

    @staticmethod
    def _hello(args):
        return (HELLO3 if args[1:2] == [b"3"]
                else b"*14" + HELLO3[2:].replace(b":3\r\n", b":2\r\n", 1))

    @staticmethod
    def _client(args):
        return b":7\r\n" if args[1].upper() == b"ID" else b"+OK\r\n"

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._serve, args=(client,),
                             daemon=True).start()

    def _serve(self, client):
        buf = bytearray()
        with client:
            while True:
                try:
                    args, end = parse(buf)
                    del buf[:end]
                except NeedMore:
                    try:
                        data = client.recv(1 << 16)
                    except OSError:
                        return
                    if not data:
                        return
                    buf += data
                    continue
                self.requests.append(args)
                answer = self.answers.get(args[0].decode().upper(),
                                          b"+OK\r\n")
                if callable(answer):
                    answer = answer(args)
                if answer is CLOSE:
                    return
                if answer:
                    try:
                        client.sendall(answer)
                    except OSError:
                        return
