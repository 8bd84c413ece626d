"""How redial is reached and how it reaches the server: names, sockets,
passwords, and what it says when that fails."""

import os
import stat

import pytest

from resp import Connection, ReplyError
from servers import HOST, free_port
from wait import wait_until

pytestmark = pytest.mark.needs_redial
FAST = ["upstream.deadline=500ms"]


def test_dns_name(redis, make_redial):
    redial = make_redial(f"redis://localhost:{redis.port}")
    with redial.connect() as c:
        assert c.call("SET", "k", "v") == b"OK"
        redis.kill9()
        redis.restart()
        assert c.call("GET", "k") is None, "resolved again"


def test_dns_name_that_does_not_exist(make_redial):
    redial = make_redial("redis://no-such-host.invalid:6379", sets=FAST)
    with redial.connect() as c:
        error = c.call("GET", "k")
        assert error.code == "NOTAPPLIED"
        assert "no-such-host.invalid" in error, error


def test_wrong_port_is_named_in_the_error(make_redial):
    port = free_port()
    redial = make_redial(f"redis://{HOST}:{port}", sets=FAST)
    with redial.connect() as c:
        error = c.call("SET", "k", "v")
        assert error.code == "NOTAPPLIED" and f":{port}" in error, error
        assert "efused" in error, error


def test_unix_sockets_on_both_sides(make_redis, make_redial, folder):
    redis = make_redis(unix=True)
    path = os.path.join(folder, "l.sock")
    redial = make_redial(f"redis+unix://{redis.unix_path}?db=2",
                         listen=f"unix:{path}")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
    with Connection(path) as c:
        assert c.call("SET", "k", "v") == b"OK"
        redis.kill9()
        redis.restart()
        assert c.call("SET", "k", "w") == b"OK"
    with redis.connect() as c:
        c.call("SELECT", 2)
        assert c.call("GET", "k") == b"w"
    # A socket file left by a crash does not prevent the next start.
    redial.checked = True
    redial.kill9()
    again = make_redial(f"redis+unix://{redis.unix_path}",
                        listen=f"unix:{path}")
    with Connection(path) as c:
        assert c.call("PING") == b"PONG"
    assert again.running()


def test_database_of_the_url(redis, make_redial):
    redial = make_redial(f"{redis.url}/7")
    with redial.connect() as c:
        c.call("SET", "k", "v")
        assert c.call("SELECT", 0) == b"OK"
        assert c.call("GET", "k") is None
    with redis.connect() as c:
        c.call("SELECT", 7)
        assert c.call("GET", "k") == b"v"


# Passwords

@pytest.fixture
def locked(make_redis):
    redis = make_redis(start=False,
                       options=["--requirepass", "pw-of-default"])
    redis.password = "pw-of-default"
    redis.start()
    redis.call("ACL", "SETUSER", "app", "on", ">pw-of-app", "~app:*", "+@all",
               "&*")
    return redis


SECRETS = ["pw-of-default", "pw-of-app", "wrong-secret-9"]


def test_password_in_the_url(locked, make_redial):
    redial = make_redial(f"redis://:pw-of-default@{HOST}:{locked.port}",
                         secrets=SECRETS)
    with redial.connect() as c:
        assert c.call("SET", "k", "v") == b"OK"
        locked.kill9()
        locked.restart()
        assert c.call("SET", "k", "v") == b"OK", "logged in again"


def test_user_in_the_url(locked, make_redial):
    redial = make_redial(f"redis://app:pw-of-app@{HOST}:{locked.port}",
                         secrets=SECRETS)
    with redial.connect() as c:
        assert c.call("ACL", "WHOAMI") == b"app"
        assert c.call("SET", "app:k", "v") == b"OK"
        assert c.call("SET", "k", "v").code == "NOPERM"


def test_password_from_the_environment_and_a_file(locked, make_redial,
                                                  folder):
    path = os.path.join(folder, "secret")
    with open(path, "w") as file:
        file.write("pw-of-app\n")
    os.chmod(path, 0o600)
    for password, env in (("${REDIAL_TEST_PW}",
                           {"REDIAL_TEST_PW": "pw-of-app"}),
                          ("${file:%s}" % path, {})):
        redial = make_redial(f"redis://{HOST}:{locked.port}", env=env,
                             sets=["upstream.username=app",
                                   f"upstream.password={password}"],
                             secrets=SECRETS)
        with redial.connect() as c:
            assert c.call("ACL", "WHOAMI") == b"app"


@pytest.mark.parametrize("login", [":wrong-secret-9@", "app:wrong-secret-9@"])
def test_wrong_password_is_told_without_a_storm(locked, make_redial, login):
    redial = make_redial(f"redis://{login}{HOST}:{locked.port}", sets=FAST,
                         secrets=SECRETS)
    with redial.connect() as c:
        error = c.call("GET", "k")
        assert isinstance(error, ReplyError), error
        assert "WRONGPASS" in error or "password" in error, error
        assert error.code in ("NOTAPPLIED", "WRONGPASS", "NOAUTH"), error
    info = locked.call("INFO", "stats").decode()
    received = int(info.split("total_connections_received:")[1].split()[0])
    assert received < 200
    assert redial.metric("connect_failures") >= 1


def test_a_client_logs_in_by_itself(locked, make_redial):
    """auth = pass: identities do not mix on shared lanes."""
    redial = make_redial(f"redis://{HOST}:{locked.port}", secrets=SECRETS)
    with redial.connect() as default, redial.connect() as app, \
            redial.connect() as nobody:
        assert nobody.call("GET", "k").startswith("NOAUTH")
        assert default.call("AUTH", "wrong-secret-9").startswith("WRONGPASS")
        assert default.call("GET", "k").startswith("NOAUTH")
        assert default.call("AUTH", "pw-of-default") == b"OK"
        assert app.call("AUTH", "app", "pw-of-app") == b"OK"
        assert default.call("ACL", "WHOAMI") == b"default"
        assert app.call("ACL", "WHOAMI") == b"app"
        assert app.call("GET", "k").startswith("NOPERM")
        assert default.call("SET", "k", "v") == b"OK"
        assert nobody.call("GET", "k").startswith("NOAUTH")
        assert app.call("AUTH", "app", "wrong-secret-9") \
            .startswith("WRONGPASS")
        assert app.call("ACL", "WHOAMI") == b"app", "as on the server"
        locked.kill9()
        locked.restart()
        locked.call("ACL", "SETUSER", "app", "on", ">pw-of-app", "~*", "+@all")
        assert default.call("ACL", "WHOAMI") == b"default"
        assert app.call("ACL", "WHOAMI") == b"app"


def test_a_client_logs_in_with_hello(locked, make_redial):
    redial = make_redial(f"redis://{HOST}:{locked.port}", secrets=SECRETS)
    with redial.connect() as c:
        assert c.call("HELLO", "3").startswith("NOAUTH")
        assert c.call("HELLO", "3", "AUTH", "app", "wrong-secret-9") \
            .startswith("WRONGPASS")
        hello = c.call("HELLO", "3", "AUTH", "app", "pw-of-app", "SETNAME",
                       "me")
        assert dict(hello)[b"proto"] == 3
        assert c.call("CLIENT", "GETNAME") == b"me"
        assert c.call("ACL", "WHOAMI") == b"app"


def test_credentials_of_redial_s_own(locked, make_redial):
    """auth = own: the app's password is not the server's."""
    redial = make_redial(f"redis://app:pw-of-app@{HOST}:{locked.port}",
                         sets=["listener.password=pw-for-redial"],
                         secrets=SECRETS + ["pw-for-redial"])
    with redial.connect() as c:
        assert c.call("GET", "app:k").startswith("NOAUTH")
        assert c.call("AUTH", "wrong-secret-9").startswith("WRONGPASS")
        assert c.call("AUTH", "pw-for-redial") == b"OK"
        assert c.call("ACL", "WHOAMI") == b"app"
    with redial.connect() as c:
        hello = c.call("HELLO", "3", "AUTH", "default", "pw-for-redial")
        assert dict(hello)[b"proto"] == 3


def test_auth_without_any_password(redial):
    with redial.connect() as c:
        assert c.call("AUTH", "x").startswith(
            "ERR AUTH <password> called without any password configured")


def test_a_password_that_is_changed_on_the_server(locked, make_redial):
    """Row 32: lanes that are up stay; new ones fail in words, no storm."""
    redial = make_redial(f"redis://:pw-of-default@{HOST}:{locked.port}",
                         sets=FAST, secrets=SECRETS + ["pw-changed"])
    with redial.connect() as c:
        assert c.call("SET", "k", "v") == b"OK"
        locked.call("CONFIG", "SET", "requirepass", "pw-changed")
        locked.password = "pw-changed"
        assert c.call("GET", "k") == b"v"
        locked.call("CLIENT", "KILL", "TYPE", "normal")
        error = c.call("GET", "k")
        assert isinstance(error, ReplyError), error
        locked.call("CONFIG", "SET", "requirepass", "pw-of-default")
        locked.password = "pw-of-default"
        wait_until(lambda: c.call("GET", "k") == b"v", "the old password")


# Config file

def test_two_listeners_and_two_upstreams(make_redis, make_redial, folder):
    one, two = make_redis(), make_redis(unix=True)
    ports = free_port(), free_port()
    path = os.path.join(folder, "b.sock")
    redial = make_redial(config=f"""
[listener a]
address = {HOST}:{ports[0]}
upstream = one
[listener b]
address = {HOST}:{ports[1]}
upstream = two
[listener c]
address = unix:{path}
upstream = two
[upstream one]
address = {HOST}:{one.port}
[upstream two]
address = unix:{two.unix_path}
deadline = 300ms
""")
    with Connection((HOST, ports[0])) as a, Connection((HOST, ports[1])) as b:
        assert a.call("SET", "k", "one") == b"OK"
        assert b.call("SET", "k", "two") == b"OK"
        with Connection(path) as c:
            assert c.call("GET", "k") == b"two"
        assert one.call("GET", "k") == b"one"
        assert two.call("GET", "k") == b"two"
        two.kill9()
        assert b.call("GET", "k").code == "NOTAPPLIED"
        assert a.call("GET", "k") == b"one", "the other one is not touched"
    metrics = redial.http("/metrics")[1]
    assert 'upstream="one"' in metrics and 'upstream="two"' in metrics


def test_several_workers(redis, make_redial):
    redial = make_redial(redis.url, sets=["redial.workers=2"])
    clients = [redial.connect() for _ in range(40)]
    for i, c in enumerate(clients):
        assert c.call("SET", f"k:{i}", i) == b"OK"
    assert redial.metric("clients") == 40, "all workers are counted"
    assert len({row["id"] for row in redis.clients()}) >= 2
    redis.kill9()
    redis.restart()
    for i, c in enumerate(clients):
        assert c.call("INCR", f"n:{i}") == 1
        c.close()


def test_plain_proxy_with_retry_off(redis, make_redial):
    redial = make_redial(redis.url, sets=["upstream.retry=off"])
    with redial.connect() as c:
        assert c.call("SET", "k", "v") == b"OK"
        redis.kill9()
        assert isinstance(c.call("GET", "k"), ReplyError)
        redis.restart()
        wait_until(lambda: c.call("SET", "k", "v") == b"OK", "the server")


def test_private_lanes(redis, make_redial):
    redial = make_redial(redis.url, sets=["upstream.lanes=private"])
    clients = [redial.connect() for _ in range(5)]
    ids = {c.call("CLIENT", "ID") for c in clients}
    assert len(ids) == 5
    redis.kill9()
    redis.restart()
    for c in clients:
        assert c.call("SET", "k", "v") == b"OK"
        c.close()
    wait_until(lambda: len(redis.clients()) <= 1, "the lanes to be closed")
