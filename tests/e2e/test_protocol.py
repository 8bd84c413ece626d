"""Malformed and unusual requests: redial says what the server says, byte for
byte, and closes when the server closes."""

import socket

import pytest

from resp import Connection, encode

# (bytes a client sends, whether the server closes). The server itself is the
# reference for the answers; the second column says what to wait for.
CORPUS = [
    # Inline commands
    (b"PING\r\n", False),
    (b"PING\n", False),
    (b"ping hello\r\n", False),
    (b"  PING  \r\n", False),
    (b"\r\n", False),
    (b"\r\n\r\n\n\nPING\r\n", False),
    (b"   \r\nPING\r\n", False),
    (b"SET a \"b c\"\r\nGET a\r\n", False),
    (b"SET a 'it''s'\r\n", True),
    (b"SET a 'it\\'s'\r\nGET a\r\n", False),
    (b"SET a \"\\x41\\n\\t\\\"\\\\\"\r\nGET a\r\n", False),
    (b"SET a \"\\x4\"\r\nGET a\r\n", False),
    (b"SET a \"\\q\"\r\nGET a\r\n", False),
    (b"GET \"x\\x4\"\r\n", False),
    (b"GET \"unbalanced\r\n", True),
    (b"GET 'unbalanced\r\n", True),
    (b"GET \"a\"b\r\n", True),
    (b"GET a\"b\"\r\n", False),
    (b"GET \"\\\r\n", True),
    (b"ECHO \"\"\r\n", False),
    (b"ECHO ''\r\n", False),
    (b"\"PING\"\r\n", False),
    (b"NOSUCH a b\r\n", False),
    (b"NOSUCH \"a\\r\\nb\"\r\n", False),
    (b"GET\r\n", False),
    (b"GET a b\r\n", False),
    (b"GET\ta\r\n", False),
    (b"\x00\x01\x02\r\nPING\r\n", False),
    (b"\xff\xfe\r\nPING\r\n", False),
    (b"GET a\x00b\r\nPING\r\n", False),
    (b"x" * 65535, False),
    (b"x" * 70000, True),
    (b"ECHO " + b"y" * 60000 + b"\r\n", False),
    # Multibulk
    (b"*1\r\n$4\r\nPING\r\n", False),
    (b"*0\r\nPING\r\n", False),
    (b"*-1\r\nPING\r\n", False),
    (b"*-5\r\nPING\r\n", False),
    (b"*\r\n", True),
    (b"*x\r\n", True),
    (b"*1x\r\n", True),
    (b"* 1\r\n", True),
    (b"*+1\r\n", True),
    (b"*01\r\n$4\r\nPING\r\n", True),
    (b"*99999999999999999999\r\n", True),
    (b"*9223372036854775807\r\n", True),
    (b"*2147483648\r\n", True),
    (b"*" + b"1" * 70000, True),
    (b"*1\r\n" + b"$" + b"1" * 70000, True),
    (b"*1\r\nPING\r\n", True),
    (b"*1\r\n+PING\r\n", True),
    (b"*1\r\n:1\r\n", True),
    (b"*1\r\n*1\r\n$4\r\nPING\r\n", True),
    (b"*1\r\n\r\n", True),
    (b"*1\r\n\x00\r\n", None),
    (b"*1\r\n$\r\n", True),
    (b"*1\r\n$x\r\n", True),
    (b"*1\r\n$-1\r\n", True),
    (b"*1\r\n$-5\r\n", True),
    (b"*1\r\n$536870913\r\n", True),
    (b"*1\r\n$99999999999999999999\r\n", True),
    (b"*1\r\n$4x\r\nPING\r\n", True),
    (b"*1\r\n$04\r\nPING\r\n", True),
    (b"*1\r\n$4\r\nPINGxx", False),
    (b"*1\r\n$4\r\nPINGxx*1\r\n$4\r\nPING\r\n", False),
    (b"*1\r\n$0\r\n\r\n", False),
    (b"*2\r\n$3\r\nGET\r\n$0\r\n\r\n", False),
    (b"*2\r\n$3\r\nGET\r\n$3\r\na\r\n\r\n", False),
    (b"*1\n$4\nPING\n", None),
    (b"*1\rX$4\r\nPING\r\n", None),
    (b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\nPING\r\n", False),
    (b"*1\r\n$4\r\nPING\r\n*1\r\n$x\r\n", True),
    (b"PING\r\n*1\r\n$4\r\nPING\r\n\"\r\n", True),
    (b"*1\r\n$4\r\nPING\r\n*2\r\n$3\r\nGET\r\n", False),
    # RESP3 types are not requests
    (b"%1\r\n$1\r\na\r\n$1\r\nb\r\n", False),
    (b"~1\r\n$4\r\nPING\r\n", False),
    (b"_\r\n", False),
    # Other protocols
    (b"GET / HTTP/1.1\r\nAccept: x\r\n\r\n", False),
    (b"POST / HTTP/1.1\r\nHost: localhost\r\n\r\n", True),
    (b"Host: localhost\r\nPING\r\n", True),
    (b"*1\r\n$4\r\nPOST\r\n*1\r\n$4\r\nPING\r\n", True),
    (b"*1\r\n$5\r\nhost:\r\n*1\r\n$4\r\nPING\r\n", True),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n", False),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", False),
    (b"SSH-2.0-x\r\n", False),
    # Ends of a conversation
    (b"QUIT\r\nPING\r\n", True),
    (b"*1\r\n$4\r\nqUiT\r\n*1\r\n$4\r\nPING\r\n", True),
    (b"*2\r\n$4\r\nQUIT\r\n$1\r\nx\r\n", None),
    # Odd arguments to what redial answers itself
    (b"HELLO 1\r\n", False),
    (b"HELLO x\r\n", False),
    (b"HELLO 3 AUTH\r\n", False),
    (b"HELLO 3 SETNAME\r\n", False),
    (b"HELLO 3 SETNAME \"a b\"\r\n", False),
    (b"HELLO 3 NOSUCH x\r\n", False),
    (b"HELLO 3 AUTH a b\r\n", False),
    (b"AUTH\r\nAUTH a b c\r\nAUTH a\r\nAUTH a b\r\nAUTH default x\r\n",
     False),
    (b"SELECT\r\nSELECT x\r\nSELECT -1\r\nSELECT 16\r\nSELECT 1 2\r\n"
     b"SELECT 99999999999999999999\r\nSELECT 1.0\r\nSELECT \"\"\r\n", False),
    (b"CLIENT\r\nCLIENT NOSUCH\r\nCLIENT SETNAME\r\nCLIENT SETNAME a b\r\n"
     b"CLIENT GETNAME x\r\nCLIENT REPLY\r\nCLIENT REPLY x\r\n"
     b"CLIENT SETINFO\r\nCLIENT SETINFO LIB-NAME x\r\nCLIENT ID x\r\n",
     False),
    (b"CLIENT SETNAME \"\"\r\nCLIENT GETNAME\r\nCLIENT SETNAME a\r\n"
     b"CLIENT SETNAME \"a\\nb\"\r\nCLIENT GETNAME\r\n", False),
    (b"READONLY\r\nREADWRITE\r\nASKING\r\nREADONLY x\r\n", False),
    (b"RESET\r\nRESET x\r\nQUIT\r\n", True),
    (b"MULTI x\r\nEXEC\r\nDISCARD\r\nWATCH\r\nUNWATCH x\r\n", False),
    (b"MULTI\r\nMULTI\r\nSELECT x\r\nHELLO 9\r\nAUTH x\r\nRESET\r\n"
     b"EXEC\r\n", False),
    (b"MULTI\r\nSELECT 1\r\nCLIENT SETNAME x\r\nHELLO 3\r\nEXEC\r\n"
     b"CLIENT GETNAME\r\n", None),
    (b"SUBSCRIBE\r\nUNSUBSCRIBE\r\nUNSUBSCRIBE a b\r\nPUNSUBSCRIBE\r\n"
     b"SUNSUBSCRIBE\r\n", False),
    (b"BLPOP a\r\nBLPOP a x\r\nBLPOP a -1\r\nBLPOP a 0.01\r\n", False),
]


def answer_of(address, data):
    """All bytes and whether the peer closed by itself. The client closes its
    half, so there is an end to wait for."""
    with Connection(address, 20) as c:
        try:
            c.send_raw(data)
            c.socket.shutdown(socket.SHUT_WR)
        except ConnectionError:
            pass  # closed while we were still sending
        return c.read_to_end()


def hello_without_id(raw):
    """HELLO names the connection; that is not the same twice."""
    head, found, tail = raw.partition(b"$2\r\nid\r\n:")
    return head + found + tail.partition(b"\r\n")[2] if found else raw


@pytest.mark.needs_redial
def test_odd_requests_are_answered_as_by_the_server(make_redis, make_redial):
    """Row 34. Told at once for the whole corpus, so that one run shows all
    differences."""
    direct, behind = make_redis(), make_redis()
    redial = make_redial(behind.url)
    bad = []
    with redial.connect() as other:
        for data, closes in CORPUS:
            expected = hello_without_id(answer_of(direct.address, data))
            with redial.connect(5) as c:
                got, closed = converse(c, data, expected, closes)
            if hello_without_id(got) != expected:
                bad.append(f"{data[:60]!r}: expected {expected[:200]!r}, "
                           f"got {got[:200]!r}")
            elif closes is not None and closed != closes:
                bad.append(f"{data[:60]!r}: {'not ' if closes else ''}"
                           f"closed")
            assert other.call("PING") == b"PONG", data[:60]
    assert not bad, f"{len(bad)} of {len(CORPUS)}:\n" + "\n".join(bad)


def converse(c, data, expected, closes):
    """Send data and wait for as much as the server said, without closing our
    half: an app does not either. What is more shows up with the next
    answer, that of ECHO."""
    try:
        c.send_raw(data)
    except ConnectionError:
        pass
    if closes:
        try:
            return c.read_to_end(), True
        except TimeoutError:
            return bytes(c.buf), False
    try:
        while len(hello_without_id(bytes(c.buf))) < len(expected):
            c.fill()
    except TimeoutError:
        return bytes(c.buf), False
    except Exception as closed:  # noqa: BLE001
        return getattr(closed, "rest", b""), True
    return bytes(c.buf), c.is_closed_by_peer()


@pytest.mark.needs_redial
def test_what_redial_refuses_inside_a_transaction(redial):
    """The known difference: these would change how replies are told apart, so
    redial says at once that they were not executed."""
    with redial.connect() as c:
        assert c.call("MULTI") == b"OK"
        for command in (("SUBSCRIBE", "a"), ("MONITOR",),
                        ("CLIENT", "REPLY", "OFF")):
            assert c.call(*command).code == "NOTAPPLIED"
        assert c.call("DISCARD") == b"OK"
        assert c.call("PING") == b"PONG"


@pytest.mark.needs_redial
def test_a_client_that_closes_its_half_gets_its_answers(redis, redial):
    """printf 'PING\\r\\n' | nc -N works with the server."""
    for data in (b"PING\r\n", encode("INCR", "n") * 3,
                 encode("SET", "k", b"x" * 100000) + encode("STRLEN", "k"),
                 encode("MULTI") + encode("INCR", "m") + encode("EXEC")):
        redis.call("FLUSHALL")
        expected = answer_of(redis.address, data)
        redis.call("FLUSHALL")
        assert answer_of(redial.address, data) == expected


@pytest.mark.needs_redial
def test_odd_requests_do_not_touch_other_clients(redis, redial):
    """POST and Host: make a server close the connection they came on; on a
    shared lane that would be everybody's."""
    with redial.connect() as other:
        assert other.call("INCR", "n") == 1
        lost = redial.metric("lanes_lost")
        for data in (b"POST / HTTP/1.1\r\n\r\n", b"Host: x\r\n",
                     encode("POST", "/"), encode("host:", "x"), b"QUIT\r\n",
                     encode("SHUTDOWN", "NOSUCH")):
            with redial.connect() as c:
                c.send_raw(data)
                assert other.call("INCR", "n") > 1
        assert redial.metric("lanes_lost") == lost


def test_the_corpus_says_what_the_server_does(redis):
    """The second column is checked against the server itself."""
    bad = []
    for data, closes in CORPUS:
        if closes is None:
            continue
        with Connection(redis.address, 20) as c:
            try:
                c.send_raw(data)
            except ConnectionError:
                pass
            # Redis answers in order: a client it has closed is gone from its
            # list by the time another one is answered.
            local = "%s:%d" % c.socket.getsockname() if not c_closed(c) else ""
            alive = local and any(row["addr"] == local
                                  for row in settled(redis))
        if bool(alive) == closes:
            bad.append(f"{data[:60]!r}: closes should be {not closes}")
    assert not bad, "\n".join(bad)


def c_closed(c):
    try:
        c.socket.getpeername()
        return False
    except OSError:
        return True


def settled(redis):
    """CLIENT LIST after the server has read everything it was sent."""
    redis.call("PING")
    return redis.clients()
