"""Many, large, slow: what one client does, the others must not feel, and
redial's memory neither."""

import hashlib
import socket
import threading
import time

import pytest

from relay import RST, TO_CLIENT, TO_SERVER
from resp import ConnectionClosed, ReplyError, encode
from servers import open_files, raise_file_limit, rss_bytes
from wait import wait_until

pytestmark = pytest.mark.needs_redial
MIB = 1 << 20
SMALL_QUARANTINE = {"ASAN_OPTIONS": "quarantine_size_mb=1:detect_leaks=1"}


def peak_bytes(pid):
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def test_9000_idle_clients(redis, make_redial, asan, figure):
    if not raise_file_limit(9500):
        pytest.skip("the limit of open files is below 9,500")
    redial = make_redial(redis.url)
    with redial.connect() as c:
        assert c.call("PING") == b"PONG"
    before = rss_bytes(redial.pid)
    clients = [redial.connect() for _ in range(9000)]
    try:
        wait_until(lambda: redial.metric("clients") == 9000, "all clients")
        for c in clients[::9]:
            assert c.call("PING") == b"PONG"
        each = (rss_bytes(redial.pid) - before) / 9000
        figure(f"{each:.0f} bytes of RSS per idle connection")
        assert len(redis.clients()) <= 2, "they share lanes"
        if not asan:
            assert each <= 1024
    finally:
        for c in clients:
            c.close()
    wait_until(lambda: redial.metric("clients") == 0, "all to be closed")


def pieces(total, seed=b"redial"):
    """total bytes that differ everywhere, in pieces of 64 KiB."""
    block = hashlib.sha512(seed).digest() * 1024
    for start in range(0, total, len(block)):
        yield (b"%016d" % start + block[16:])[:total - start]


def test_a_huge_value_is_streamed(redis, make_redial, asan, figure):
    """512 MiB (64 with ASan) there and back, in constant memory."""
    size = (64 if asan else 512) * MIB
    redial = make_redial(redis.url, env=SMALL_QUARANTINE)
    with redial.connect(60) as c, redial.connect() as other:
        assert other.call("PING") == b"PONG"
        before = rss_bytes(redial.pid)
        c.send_raw(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n" % size)
        for piece in pieces(size):
            c.send_raw(piece)
        c.send_raw(b"\r\n")
        assert c.read() == b"OK"
        assert redis.call("STRLEN", "k") == size
        c.send("GET", "k")
        head = b"$%d\r\n" % size
        assert c.read_bytes(len(head)) == head
        for piece in pieces(size):
            assert c.read_bytes(len(piece)) == piece
        assert c.read_bytes(2) == b"\r\n"
        grown = peak_bytes(redial.pid) - before
        figure(f"{size // MIB} MiB value, peak RSS grew by "
               f"{grown / MIB:.1f} MiB")
        assert grown < 64 * MIB
        assert c.call("PING") == b"PONG" and other.call("PING") == b"PONG"


def test_a_value_beyond_the_limit_is_refused_in_redis_words(redis,
                                                            make_redial):
    redial = make_redial(redis.url, sets=["listener.proto_max_bulk=1MiB"])
    with redial.connect() as c:
        c.send_raw(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1048577\r\n")
        assert c.read_to_end() \
            == b"-ERR Protocol error: invalid bulk length\r\n"


def ping_times(redial, stop, times, errors):
    try:
        with redial.connect() as c:
            while not stop.is_set():
                before = time.monotonic()
                assert c.call("INCR", "others") > 0
                times.append(time.monotonic() - before)
    except Exception as error:  # noqa: BLE001 - told by the test
        errors.append(error)


class Others:
    """with Others(redial): somebody else's requests; none may be slow."""

    def __init__(self, redial, worst=2.0):
        self.redial, self.worst = redial, worst
        self.stop, self.times, self.errors = threading.Event(), [], []

    def __enter__(self):
        self.thread = threading.Thread(target=ping_times, args=(
            self.redial, self.stop, self.times, self.errors), daemon=True)
        self.thread.start()
        wait_until(lambda: self.times, "the first answer")
        return self

    def go_on_for(self, n):
        start = len(self.times)
        wait_until(lambda: self.errors or len(self.times) >= start + n,
                   f"{n} answers of the others")

    def __exit__(self, *failure):
        self.stop.set()
        self.thread.join(20)
        if failure[0] is None:
            assert not self.thread.is_alive(), "the others hang"
            assert self.errors == []
            assert max(self.times) < self.worst, \
                f"the others waited {max(self.times):.2f} s"


def slow_client(redial):
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.settimeout(20)
    slow.connect(redial.address)
    return slow


def read_all(slow, left):
    """Returns what was missing when the connection ended."""
    while left:
        try:
            data = slow.recv(MIB)
        except ConnectionResetError:
            break
        if not data:
            break
        left -= len(data)
    return left


def test_a_slow_reader_stalls_nobody(redis, make_redial, figure):
    """Row 16: 100 MiB of replies that nobody reads for a while. Requests that
    were sent already can't be taken back, so pipeline_max of them bound what
    is held; no more is sent."""
    redial = make_redial(redis.url, env=SMALL_QUARANTINE,
                         sets=["listener.pipeline_max=200"])
    size, count = 100 * 1024, 1000
    with redial.connect() as setup:
        assert setup.call("SET", "big", b"x" * size) == b"OK"
    before = peak_bytes(redial.pid)
    with slow_client(redial) as slow, Others(redial) as others:
        slow.sendall(encode("GET", "big") * count)
        others.go_on_for(500)
        grown = peak_bytes(redial.pid) - before
        figure(f"peak RSS grew by {grown / MIB:.1f} MiB")
        assert grown < 200 * size + 30 * MIB
        assert read_all(slow, count * (size + len(b"$102400\r\n\r\n"))) == 0
        others.go_on_for(50)
        peak = peak_bytes(redial.pid) - before
        assert peak < 200 * size + 30 * MIB, "nor while it caught up"


def test_a_client_may_pause_for_longer_than_user_timeout(redis, make_redial):
    """To the kernel a peer whose window stays shut confirms nothing. How long
    a client may do without its replies is for stall_timeout to say."""
    redial = make_redial(redis.url, sets=["tcp.user_timeout=100ms",
                                          "listener.stall_timeout=30s"])
    size = 30 * MIB
    with redial.connect() as setup:
        assert setup.call("SET", "big", b"x" * size) == b"OK"
    with slow_client(redial) as slow:
        slow.sendall(encode("GET", "big"))
        time.sleep(2)
        assert read_all(slow, size + len(b"$31457280\r\n\r\n")) == 0


def test_a_slow_reader_of_streams_stalls_nobody(redis, make_redial,
                                                figure):
    """240 MiB that nobody reads for a while. On a shared lane where others
    wait the slow client has to go in the end; one that has had a large reply
    before has its own lane, and all the time of stall_timeout."""
    redial = make_redial(redis.url, env=SMALL_QUARANTINE)
    size, count = 4 * MIB, 30
    with redial.connect() as setup:
        assert setup.call("SET", "big", b"x" * size) == b"OK"
    before = peak_bytes(redial.pid)
    one_reply = size + len(b"$4194304\r\n\r\n")
    with slow_client(redial) as shared, slow_client(redial) as own, \
            Others(redial) as others:
        own.sendall(encode("GET", "big"))
        assert read_all(own, one_reply) == 0
        own.sendall(encode("GET", "big") * count)
        shared.sendall(encode("GET", "big") * count)
        wait_until(lambda: redial.metric("clients_stalled") == 1,
                   "the one on the shared lane to be closed")
        others.go_on_for(500)
        assert read_all(own, count * one_reply) == 0
        assert read_all(shared, count * one_reply) > 0
        grown = peak_bytes(redial.pid) - before
        figure(f"peak RSS grew by {grown / MIB:.1f} MiB")
        assert grown < 120 * MIB, "client_overflow_max is 64 MiB"


def test_a_client_that_never_reads_is_closed(redis, make_redial):
    redial = make_redial(redis.url, sets=["listener.stall_timeout=500ms"])
    with redial.connect() as setup:
        assert setup.call("SET", "big", b"x" * MIB) == b"OK"
        with redial.connect() as c:
            c.send_raw(encode("GET", "big") * 100)
            wait_until(lambda: redial.metric("clients_stalled") >= 1,
                       "the client to be closed")
        assert setup.call("PING") == b"PONG"


def test_half_requests_hurt_nobody(redial, redis):
    """Row 17: a request that never ends, cut at each byte."""
    request = encode("SET", "half", "value")
    open_ones = []
    with Others(redial) as others:
        for n in range(len(request)):
            c = redial.connect()
            c.send_raw(request[:n])
            open_ones.append(c)
        others.go_on_for(100)
        assert redis.call("EXISTS", "half") == 0
        # The second half of each other one comes; the rest leaves.
        for n, c in enumerate(open_ones):
            if n % 2:
                c.send_raw(request[n:])
                assert c.read() == b"OK"
            c.close()
        others.go_on_for(100)
    wait_until(lambda: redial.metric("clients") == 0, "all to be gone")


def test_one_byte_at_a_time(redial):
    with redial.connect() as c:
        for byte in encode("SET", "k", "v\r\n") + b'get "k"\r\n':
            c.send_raw(bytes([byte]))
        assert c.read() == b"OK" and c.read() == b"v\r\n"


def test_a_deep_pipeline_is_answered_in_order(redial):
    """Far beyond pipeline_max: back-pressure, not an error."""
    n = 50000
    with redial.connect() as c:
        sender = threading.Thread(target=lambda: c.send_raw(b"".join(
            encode("ECHO", i) for i in range(n))), daemon=True)
        sender.start()
        expected = b"".join(b"$%d\r\n%d\r\n" % (len(str(i)), i)
                            for i in range(n))
        assert c.read_bytes(len(expected)) == expected
        sender.join(5)
    assert redial.metric("limit_pipeline_max") >= 1


def test_one_greedy_client_does_not_starve_others(redial):
    """A million bytes of PINGs at a time from one client."""
    stop = threading.Event()

    def greedy():
        with redial.connect() as c:
            while not stop.is_set():
                c.send_raw(b"*1\r\n$4\r\nPING\r\n" * 1000)
                assert c.read_bytes(7000) == b"+PONG\r\n" * 1000
    thread = threading.Thread(target=greedy, daemon=True)
    thread.start()
    with Others(redial, worst=1.0) as others:
        others.go_on_for(300)
    stop.set()
    thread.join(10)


def test_a_connection_storm_leaves_nothing_behind(redial, redis):
    with redial.connect() as c:
        assert c.call("PING") == b"PONG"
    wait_until(lambda: redial.metric("clients") == 0, "the first to leave")
    files = open_files(redial.pid)
    errors = []

    def storm():
        try:
            for i in range(250):
                c = redial.connect()
                if i % 3 == 0:
                    assert c.call("INCR", "storm") > 0
                elif i % 3 == 1:
                    c.send("GET", "storm")  # and leaves without the answer
                c.close()
        except Exception as error:  # noqa: BLE001 - told below
            errors.append(error)
    threads = [threading.Thread(target=storm) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert redis.call("GET", "storm") == b"%d" % (8 * 84)
    wait_until(lambda: redial.metric("clients") == 0, "all to be gone")
    wait_until(lambda: open_files(redial.pid) <= files + 2,
               "the file descriptors to be back")


def test_out_of_file_descriptors(redis, make_redial):
    """Row 38: accept pauses, what is open works on, also over a restart."""
    redial = make_redial(redis.url, file_limit=96,
                         sets=["redial.fd_reserve=16"])
    clients = []
    try:
        for _ in range(150):
            clients.append(redial.connect(5))

        def answers(c):
            try:
                return c.call("INCR", "n") > 0
            except (OSError, ConnectionClosed, TypeError):
                return False
        first = clients[0]
        assert answers(first)
        redis.kill9()
        redis.restart()
        assert answers(first), "the reserve is for the server"
        working = [c for c in clients[:30] if answers(c)]
        assert len(working) == 30
    finally:
        for c in clients:
            c.close()

    def works_again():
        with redial.connect(2) as c:
            return c.call("PING") == b"PONG"
    wait_until(works_again, "new clients to be served")
    wait_until(lambda: redial.metric("clients") == 0, "all to be gone")


def test_one_client_too_many(redis, make_redial):
    redial = make_redial(redis.url, sets=["listener.clients_max=3"])
    clients = [redial.connect() for _ in range(3)]
    for c in clients:
        assert c.call("PING") == b"PONG"
    with redial.connect() as c:
        assert c.read_to_end() == b"-ERR max number of clients reached\r\n"
    clients[0].close()

    def served():
        try:
            with redial.connect() as c:
                return c.call("PING") == b"PONG"
        except ConnectionClosed:
            return False
    wait_until(served, "a place to be free")
    for c in clients:
        c.close()
    assert redial.metric("clients_refused") >= 1


def test_held_requests_are_bounded(make_redis, make_redial):
    redis = make_redis(start=False)
    redial = make_redial(redis.url,
                         sets=["upstream.held_requests_max=100"])
    with redial.connect() as c:
        c.send_raw(encode("INCR", "n") * 300)
        wait_until(lambda: redial.metric("limit_held_requests_max") >= 1,
                   "the limit")
        redis.start()
        answers = [c.read() for _ in range(300)]
    ok = [a for a in answers if isinstance(a, int)]
    refused = [a for a in answers if isinstance(a, ReplyError)]
    assert len(ok) >= 100 and refused
    assert {r.code for r in refused} == {"NOTAPPLIED"}
    assert int(redis.call("GET", "n")) == len(ok)


def test_large_requests_lost_on_their_way(redis, make_redial, make_relay):
    """Over replay_bytes_max: sent once, told truthfully."""
    relay = make_relay(redis.port)
    redial = make_redial(relay.url, sets=["upstream.reply_hold_max=256KiB"])
    value = b"y" * (3 * MIB)
    with redial.connect() as c:
        assert c.call("SET", "k", value) == b"OK"
        relay.cut(TO_CLIENT, 0, RST)
        assert c.call("SET", "k", value).code == "UNKNOWNOUTCOME"
        relay.cut(TO_SERVER, MIB, RST)
        answer = c.call("SET", "big2", value)
        assert answer == b"OK" or answer.code in ("NOTAPPLIED",
                                                  "UNKNOWNOUTCOME")
        assert c.call("GET", "k") == value
        # A streamed reply that is lost in the middle ends the connection.
        relay.cut(TO_CLIENT, 2 * MIB, RST)
        c.send("GET", "k")
        rest = c.read_to_end()
        assert (b"$%d\r\n" % len(value) + value).startswith(rest)
    with redial.connect() as c:
        assert c.call("PING") == b"PONG"


def test_replies_around_the_hold_limit(redis, make_redial):
    """Held or streamed, a reply comes whole."""
    redial = make_redial(redis.url, sets=["upstream.reply_hold_max=256KiB"])
    with redial.connect() as c:
        for size in (256 * 1024 - 20, 256 * 1024, 256 * 1024 + 20, 65536):
            value = b"z" * size
            assert c.pipeline([("SET", "k", value), ("GET", "k"),
                               ("ECHO", "after")]) == [b"OK", value, b"after"]
