"""Clients that say anything in any order, cut in the middle, while the server is
killed, stopped and told to drop them. No reply is looked at: redial must stay
alive, sane (sanitizers, counters that must stay 0) and, in the end, empty."""

import random
import signal
import threading
import time

from resp import Connection, encode
from wait import wait_until

CLIENTS = 40
SECONDS = 6
COMMANDS = [words.split() for words in """
MULTI|EXEC|DISCARD|WATCH a|UNWATCH|SET a b|INCR n|RESET|QUIT|PING|HELLO 2|HELLO 3|AUTH x
SUBSCRIBE x|UNSUBSCRIBE|PSUBSCRIBE *|PUNSUBSCRIBE|SSUBSCRIBE s|SUNSUBSCRIBE|PUBLISH x m|MONITOR
BLPOP q 0.05|RPUSH q 1|XREAD BLOCK 30 STREAMS s $|XADD s * f v|WAIT 0 10|EVAL return(1) 0
CLIENT TRACKING ON|CLIENT TRACKING OFF|CLIENT CACHING YES|CLIENT NO-EVICT ON|CLIENT ID
CLIENT REPLY OFF|CLIENT REPLY SKIP|CLIENT REPLY ON|CLIENT SETNAME me|CLIENT LIST
CLIENT KILL TYPE pubsub|CLIENT PAUSE 5|SELECT 0|SELECT 1|SCRIPT KILL
""".strip().replace("\n", "|").split("|")]


def talk(port, seed, end):
    """One client after another, of random batches."""
    rng = random.Random(seed)
    while time.monotonic() < end:
        try:
            client = Connection(("127.0.0.1", port), 5)
            for _ in range(rng.randint(1, 6)):
                batch = b"".join(encode(*rng.choice(COMMANDS))
                                 for _ in range(rng.randint(1, 8)))
                if rng.random() < .1:
                    batch = batch[:rng.randrange(len(batch))]
                client.send_raw(batch)
                if rng.random() < .5:
                    time.sleep(rng.random() * .05)
            client.close()
        except OSError:
            pass  # it has quit, or was killed: the next one


def hurt(redis, rng):
    time.sleep(rng.random())
    what = rng.random()
    if what < .6:
        redis.kill9()
        redis.restart()
    elif what < .8:
        redis.child.send_signal(signal.SIGSTOP)
        time.sleep(.3)
        redis.child.send_signal(signal.SIGCONT)
    else:
        redis.call("CLIENT", "KILL", "TYPE", "normal")


def test_anything_in_any_order_while_the_server_is_hurt(redis, make_redial):
    redial = make_redial(redis.url, sets=["upstream.private_lanes_max=20",
                                          "upstream.replay=all"])
    rng = random.Random(9)
    end = time.monotonic() + SECONDS
    clients = [threading.Thread(target=talk, args=(redial.port, seed, end))
               for seed in range(CLIENTS)]
    for client in clients:
        client.start()
    while time.monotonic() < end:
        hurt(redis, rng)
    for client in clients:
        client.join()
    assert redial.running(), redial.log()[-4000:]
    for name in ("clients", "requests_held", "requests_in_flight",
                 "lane_waiters"):
        wait_until(lambda: redial.metric(name) == 0, f"{name} to be 0", 30)
