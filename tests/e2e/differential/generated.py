"""Random streams: what people would not think of writing down.

A scene is a handful of connections that say what comes to mind: commands of
all types on few keys, right and wrong, in pipelines and one by one, between
MULTI, WATCH, SUBSCRIBE, blocking calls and changes of the session.
"""

import random

from scenes import Scene, Step

KEYS = [b"s1", b"s2", b"n1", b"l1", b"l2", b"h1", b"set1", b"set2", b"z1",
        b"z2", b"x1", b"hll", b"bits", b"none"]
VALUES = [b"", b"0", b"1", b"-1", b"abc", b"3.5", b"a b", b"\x00\xff", b"\r\n",
          b"9223372036854775807", b"v" * 200]
CHANNELS = [b"ch1", b"ch2", b"ch3"]
PATTERNS = [b"ch*", b"*", b"ch?"]

# K: a key, V: a value, N: a number, I: an index, C: a channel, P: a pattern.
DATA = """
SET K V | SET K V NX | SET K V XX GET | SET K V EX 100 | SET K V KEEPTTL
GET K | GETSET K V | GETDEL K | GETEX K EX 50 | GETEX K PERSIST | APPEND K V
STRLEN K | GETRANGE K I I | SETRANGE K N V | INCR K | DECRBY K N | INCRBYFLOAT K 0.5
MGET K K K | MSET K V K V | MSETNX K V K V | SETNX K V | SETEX K 100 V | LCS K K
SETBIT K N 1 | GETBIT K N | BITCOUNT K | BITPOS K 1 | BITOP OR K K K
BITFIELD K INCRBY u8 0 N GET u4 0 | BITFIELD_RO K GET u8 0
DEL K K | UNLINK K | EXISTS K K | TYPE K | TTL K | PTTL K | EXPIRE K 100 | PERSIST K
EXPIRE K N | RENAME K K | RENAMENX K K | COPY K K | COPY K K REPLACE | TOUCH K
OBJECT ENCODING K | OBJECT REFCOUNT K | DUMP K | SORT K | SORT K ALPHA | SORT_RO K ALPHA DESC
KEYS * | DBSIZE | RANDOMKEY | SCAN 0 COUNT 100 | MOVE K 1
HSET K V V V V | HGET K V | HMGET K V V | HGETALL K | HDEL K V | HLEN K | HKEYS K
HVALS K | HEXISTS K V | HINCRBY K V N | HINCRBYFLOAT K V 1.5 | HSETNX K V V
HRANDFIELD K 2 WITHVALUES | HSTRLEN K V | HSCAN K 0
RPUSH K V V | LPUSH K V | LPUSHX K V | LPOP K | RPOP K 2 | LLEN K | LRANGE K I I
LINDEX K I | LSET K I V | LINSERT K BEFORE V V | LREM K N V | LTRIM K I I | LPOS K V
RPOPLPUSH K K | LMOVE K K LEFT RIGHT | LMPOP 2 K K LEFT COUNT 2
SADD K V V V | SREM K V | SMEMBERS K | SCARD K | SISMEMBER K V | SMISMEMBER K V V
SPOP K | SPOP K 2 | SRANDMEMBER K | SRANDMEMBER K -3 | SINTER K K | SUNION K K | SDIFF K K
SINTERSTORE K K K | SUNIONSTORE K K K | SMOVE K K V | SINTERCARD 2 K K | SSCAN K 0
ZADD K N V N V | ZADD K GT CH N V | ZADD K INCR N V | ZINCRBY K N V | ZSCORE K V | ZCARD K
ZRANGE K I I WITHSCORES | ZRANGE K -inf +inf BYSCORE | ZREVRANGE K I I | ZRANK K V
ZCOUNT K -inf N | ZREM K V | ZPOPMIN K | ZPOPMAX K 2 | ZMPOP 1 K MIN | ZRANDMEMBER K 2
ZUNION 2 K K WITHSCORES | ZINTERSTORE K 2 K K | ZDIFF 2 K K | ZRANGESTORE K K 0 1
ZREMRANGEBYRANK K I I | ZREMRANGEBYSCORE K -inf N | ZLEXCOUNT K - + | ZSCAN K 0
XADD K * f V | XADD K N-1 f V | XLEN K | XRANGE K - + | XREVRANGE K + - COUNT 2
XREAD COUNT 2 STREAMS K 0 | XGROUP CREATE K g 0 MKSTREAM | XREADGROUP GROUP g c STREAMS K >
XACK K g N-1 | XPENDING K g | XINFO STREAM K | XINFO GROUPS K | XTRIM K MAXLEN N | XDEL K N-1
XAUTOCLAIM K g c 0 0 | XGROUP DESTROY K g
GEOADD K 13.3 38.1 V | GEOPOS K V | GEOSEARCH K FROMLONLAT 15 37 BYRADIUS 500 km
PFADD K V V | PFCOUNT K K | PFMERGE K K
EVAL "return_redis.call('GET',KEYS[1])" 1 K | EVAL "return_redis.call('SET',KEYS[1],ARGV[1])" 1 K V
EVAL_RO "return_redis.call('TYPE',KEYS[1])" 1 K | EVALSHA V 0
"""
WRONG = """
GET | SET K | NOSUCH K V | HGET K | SET K V V | EXPIRE K x | LPOP K x | ZADD K x V | INCRBY K x
CLIENT NOSUCH | CONFIG NOSUCH | OBJECT NOSUCH K | XADD K | EVAL x | MGET | V K | SELECT 99 | SELECT x
"""
SESSION = """
SELECT 0 | SELECT 1 | CLIENT SETNAME V | CLIENT GETNAME | PING | PING V | ECHO V | HELLO
HELLO 2 | HELLO 3 | RESET | AUTH wrong | CLIENT NO-EVICT on | CLIENT NO-EVICT off | CLIENT TRACKINGINFO
READONLY | ACL WHOAMI | COMMAND COUNT | CONFIG GET maxmemory | SCRIPT EXISTS V | WAIT 0 0 | ROLE
CLIENT REPLY ON | SWAPDB 0 1 | FLUSHDB | FUNCTION LIST | OBJECT HELP | LASTSAVE | TIME | SLOWLOG LEN
"""
BLOCK = """
MULTI | MULTI | EXEC | EXEC | EXEC | DISCARD | WATCH K | WATCH K K | UNWATCH
"""
PUBSUB = """
SUBSCRIBE C | SUBSCRIBE C C | PSUBSCRIBE P | SSUBSCRIBE C | UNSUBSCRIBE C | UNSUBSCRIBE
PUNSUBSCRIBE P | PUNSUBSCRIBE | SUNSUBSCRIBE | PUBLISH C V | PUBLISH C V | SPUBLISH C V
PUBSUB CHANNELS | PUBSUB NUMSUB C C | PUBSUB NUMPAT | PING
"""
BLOCKING = """
BLPOP K 0 | BRPOP K K 1 | BLMOVE K K LEFT LEFT 1 | BLMPOP 1 2 K K LEFT | BZPOPMIN K 1 | BZPOPMAX K K 0
BZMPOP 1 1 K MIN | XREAD BLOCK 1000 STREAMS K $ | XREAD BLOCK 0 STREAMS K 0 | BRPOPLPUSH K K 1
"""
TRACKING = """
CLIENT TRACKING on | CLIENT TRACKING off | CLIENT TRACKING on BCAST | CLIENT TRACKING on NOLOOP
CLIENT TRACKING on OPTIN | CLIENT TRACKING on OPTOUT | CLIENT CACHING YES | CLIENT CACHING NO
CLIENT TRACKING on BCAST PREFIX s PREFIX n | CLIENT GETREDIR | CLIENT TRACKINGINFO
"""


def table(text):
    return [form.split() for line in text.strip().splitlines()
            for form in line.split(" | ")]


TABLES = {name: table(text) for name, text in (
    ("data", DATA), ("wrong", WRONG), ("session", SESSION), ("block", BLOCK),
    ("pubsub", PUBSUB), ("blocking", BLOCKING), ("tracking", TRACKING))}

# What a scene is about: how often each table is asked.
MOODS = {
    "data": {"data": 20, "wrong": 1},
    "multi": {"data": 8, "wrong": 1, "block": 6, "session": 1},
    "pubsub": {"data": 3, "pubsub": 8, "session": 1, "block": 1},
    "blocking": {"data": 9, "blocking": 3, "block": 1, "session": 1},
    "tracking": {"data": 8, "tracking": 3, "block": 1},
    "session": {"data": 6, "session": 5, "wrong": 1, "block": 2},
    "all": {"data": 6, "wrong": 1, "session": 2, "block": 3, "pubsub": 2,
            "blocking": 2, "tracking": 1},
}


class Author:
    """Writes scenes from one seed."""

    def __init__(self, seed):
        self.dice = random.Random(seed)
        self.blocked = None  # the connection that may be blocked

    def word(self, letter):
        dice = self.dice
        if letter == "K":
            return dice.choice(KEYS)
        if letter == "V":
            return dice.choice(VALUES)
        if letter == "N":
            return b"%d" % dice.randint(0, 9)
        if letter == "I":
            return b"%d" % dice.randint(-4, 6)
        if letter == "C":
            return dice.choice(CHANNELS)
        if letter == "P":
            return dice.choice(PATTERNS)
        if letter == "N-1":
            return b"%d-1" % dice.randint(0, 9)
        if letter.startswith('"'):
            return letter.strip('"').replace("_", " ", 1).encode()
        return letter.encode()

    def command(self, mood, conn, in_block):
        """in_block: the connections that have said MULTI. What redial refuses
        there is not said (docs/differential.md)."""
        name = self.dice.choices(list(mood), list(mood.values()))[0]
        form = self.dice.choice(TABLES[name])
        if conn in in_block and (form[0].endswith("SUBSCRIBE")
                                 or form[:2] == ["CLIENT", "REPLY"]):
            form = ["EXEC"]
        if form in TABLES["blocking"]:
            # Of two blocked clients that a moment frees, either may go first.
            if self.blocked not in (None, conn):
                form = ["PING"]
            else:
                self.blocked = conn
        if form[0] == "MULTI":
            in_block.add(conn)
        elif form[0] in ("EXEC", "DISCARD", "RESET"):
            in_block.discard(conn)
        return [self.word(w) for w in form]

    def scene(self, number, mood, length):
        dice = self.dice
        scene = Scene(f"random/{number}")
        self.blocked = None
        conns, in_block = ["a", "b", "c"][:dice.choice((1, 2, 2, 3))], set()
        while length > 0:
            conn, where = dice.choice(conns), f"random:{number}"
            chance = dice.random()
            if chance < (0.15 if "blocking" in mood else 0.02):
                scene.steps.append(Step(where, what="clock",
                                        seconds=dice.choice((0.5, 2, 60))))
            elif chance < 0.03:
                scene.steps.append(Step(where, conn, "close"))
                in_block.discard(conn)
            else:
                # Broadcast invalidations come between the replies of a
                # pipeline wherever the server's loop makes a turn.
                # So do requests behind a blocked one and those that free it.
                alone = "tracking" in mood or self.blocked not in (None, conn)
                count = 1 if alone \
                    else dice.choice((1, 1, 1, 1, 1, 2, 3, 8))
                commands = [self.command(mood, conn, in_block)
                            for _ in range(count)]
                cut = dice.choice((0, 0, 0, 0, 1, 3, 7, 20))
                scene.steps.append(Step(where, conn, "send", commands, cut))
                length -= count
        return scene


def scenes(seed, commands, moods=tuple(MOODS)):
    """Scenes with at least so many commands in all."""
    author, out, left, number = Author(seed), [], commands, 0
    while left > 0:
        length = author.dice.randint(20, 80)
        out.append(author.scene(f"{seed}-{number}",
                                MOODS[moods[number % len(moods)]], length))
        left -= length
        number += 1
    return out
