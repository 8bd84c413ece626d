"""H6, small: hundreds of command forms directly and through redial, RESP2 and
RESP3, one by one and in one pipeline. The replies are the same bytes, with
the exceptions that forms.txt names."""

import codecs
import os
import shlex

import pytest

from resp import NeedMore, encode, message_end, parse

HERE = os.path.dirname(os.path.abspath(__file__))


def forms(name="forms.txt"):
    """[(how, words)]: how is "=", "~", "?" or "!"."""
    out = []
    with open(os.path.join(HERE, name)) as file:
        for line in file:
            line = line.split(" ## ")[0].strip()
            if not line or line.startswith("# ") or line == "#":
                continue
            how = "="
            if line[:2] in ("~ ", "? ", "! "):
                how, line = line[0], line[2:]
            lexer = shlex.shlex(line, posix=True, punctuation_chars=False)
            lexer.whitespace_split, lexer.commenters = True, ""
            lexer.escape = ""
            out.append((how, [codecs.escape_decode(w.encode())[0]
                              for w in lexer]))
    return out


def shape(value):
    """The types of a reply, without its values or the number of elements."""
    if isinstance(value, (list, tuple)):
        return [type(value).__name__, sorted({str(shape(v)) for v in value})]
    return type(value).__name__


def flat(value):
    if isinstance(value, (list, tuple)):
        return sorted(repr(v) for v in value)
    return value


def same(how, one, two):
    if how == "=" or one[:1] == b"-" or two[:1] == b"-":
        return one == two
    one, two = parse(one)[0], parse(two)[0]
    if how == "?":
        return flat(one) == flat(two)
    return shape(one) == shape(two)


def compare(rows):
    bad = [f"{b' '.join(words)[:70]!r}\n   direct: {one[:160]!r}\n"
           f"   redial: {two[:160]!r}"
           for how, words, one, two in rows if not same(how, one, two)]
    assert not bad, f"{len(bad)} of {len(rows)} differ:\n" + "\n".join(bad)


@pytest.fixture
def pair(make_redis, make_redial, request):
    """Connections to two fresh servers, one of them through redial."""
    options = ["--enable-debug-command", "local"]
    direct = make_redis(options=options)
    behind = make_redis(options=options)
    redial = make_redial(behind.url)
    with direct.connect() as one, redial.connect() as two:
        yield one, two


def test_there_are_enough_forms():
    assert len(forms()) >= 300


@pytest.mark.parametrize("protocol", [2, 3])
def test_replies_one_by_one(pair, protocol):
    one, two = pair
    rows = []
    if protocol == 3:
        for c in pair:
            assert dict(c.call("HELLO", "3"))[b"proto"] == 3
    for how, words in forms():
        direct = one.call_raw(*words)
        two.send(*words)
        try:
            rows.append((how, words, direct, two.read_raw()))
        except (TimeoutError, ValueError) as error:
            rows.append((how, words, direct, f"{error} {two.buf[:80]}"
                         .encode()))
            break
        except Exception as error:  # noqa: BLE001 - with the rows so far
            rows.append((how, words, direct, repr(error).encode()))
            break
    compare(rows)


@pytest.mark.parametrize("protocol", [2, 3])
def test_replies_in_one_pipeline(pair, protocol):
    one, two = pair
    all_forms = forms()
    streams = []
    for c in pair:
        if protocol == 3:
            c.call("HELLO", "3")
        c.send_raw(b"".join(encode(*words) for _, words in all_forms)
                   + encode("ECHO", "the-end"))
        replies = []
        for _ in all_forms:
            try:
                replies.append(c.read_raw())
            except Exception as error:  # noqa: BLE001 - compared below
                replies.append(repr(error).encode())
                break
        streams.append(replies)
    rows = [(how, words, a, b) for (how, words), a, b
            in zip(all_forms, *streams)]
    compare(rows)
    assert one.read() == two.read() == b"the-end"


def test_the_comparison_can_fail():
    assert not same("=", b"+OK\r\n", b"+QUEUED\r\n")
    assert not same("~", b":1\r\n", b"+1\r\n")
    assert not same("~", b":1\r\n", b"-ERR\r\n")
    assert not same("?", b"*2\r\n:1\r\n:2\r\n", b"*2\r\n:1\r\n:1\r\n")
    assert same("?", b"*2\r\n:1\r\n:2\r\n", b"*2\r\n:2\r\n:1\r\n")
    with pytest.raises(AssertionError, match="1 of 1 differ"):
        compare([("=", [b"GET"], b"+OK\r\n", b"$2\r\nOK\r\n")])
    with pytest.raises(NeedMore):
        message_end(b"$5\r\nhel")
