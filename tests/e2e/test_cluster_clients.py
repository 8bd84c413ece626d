"""Client programs and libraries, unchanged, with a cluster behind redial:
those that know nothing of clusters, and those that ask for its topology and
are shown one node."""

import json
import os

import pytest
from redis.cluster import ClusterNode, RedisCluster

from load import plain_client
from servers import HOST, REDIS_CLI
from test_clients import HERE, needs_node, run

pytestmark = pytest.mark.needs_redial


@needs_node
@pytest.mark.parametrize("library", [
    "ioredis", "glide",
    "ioredis-cluster", "node-redis-cluster", "glide-cluster"])
def test_node_library_speaks_as_to_one_server(cluster_redial, library):
    out = run("node", os.path.join(HERE, "node_client.js"), library, "talk",
              cluster_redial.port)
    assert json.loads(out.splitlines()[-1])["ok"]


def everything_common(client):
    keys = [f"k:{i}" for i in range(60)]
    for i, key in enumerate(keys):
        assert client.set(key, i)
        assert client.get(key) == str(i)
    with client.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.incr(key)
        assert pipe.execute() == list(range(1, 61))
    assert client.exists(*keys) == 60
    assert client.delete(*keys) == 60
    assert client.eval("return ARGV[1]", 0, "lua") == "lua"
    script = client.register_script("return redis.call('get', KEYS[1])")
    client.set("s", "1")
    assert script(keys=["s"]) == "1"
    assert client.blpop("empty", 0.05) is None


def test_redis_py(cluster_redial):
    client = plain_client(cluster_redial.port, decode_responses=True)
    everything_common(client)
    client.mset({f"m:{i}": i for i in range(50)})
    assert client.mget([f"m:{i}" for i in range(50)]) == \
        [str(i) for i in range(50)]
    assert sum(1 for _ in client.scan_iter("m:*")) == 50
    with client.pipeline() as block:
        block.watch("m:1")
        block.multi()
        block.incr("m:1")
        assert block.execute() == [2]
    with client.lock("lock", timeout=5):
        assert client.exists("lock") == 1


def test_redis_py_cluster(cluster_redial):
    client = RedisCluster(
        startup_nodes=[ClusterNode(HOST, cluster_redial.port)],
        decode_responses=True)
    (node,) = client.get_nodes()
    assert (node.host, node.port) == (HOST, cluster_redial.port)
    everything_common(client)
    client.mset_nonatomic({f"m:{i}": i for i in range(50)})
    assert client.mget_nonatomic([f"m:{i}" for i in range(50)]) == \
        [str(i) for i in range(50)]
    assert sum(1 for _ in client.scan_iter("m:*")) == 50
    assert client.dbsize() == 51
    client.close()


@pytest.mark.parametrize("options", [["-2"], ["-3"], ["-c"]])
def test_redis_cli(cluster_redial, options):
    cli = [REDIS_CLI, *options, "-p", cluster_redial.port]
    for i in range(10):
        assert run(*cli, "SET", f"k:{i}", i) == "OK\n"
        assert run(*cli, "GET", f"k:{i}") == f"{i}\n"
    # No "Redirected": all of it is the one node's.
    talk = run(*cli, text="".join(f"GET k:{i}\n" for i in range(10)))
    assert talk.split() == [str(i) for i in range(10)]
    assert len(run(*cli, "--scan").split()) == 10


def test_redis_cli_checks_the_one_node(cluster_redial):
    out = run(REDIS_CLI, "--cluster", "check",
              f"{HOST}:{cluster_redial.port}")
    assert "All 16384 slots covered" in out, out


def test_redis_benchmark(cluster_redial):
    """Without --cluster: with it, redis-benchmark wants more than one
    node."""
    out = run("redis-benchmark", "-p", cluster_redial.port, "-P", 4,
              "-c", 10, "-n", 3000, "-r", 1000, "--csv", "-t",
              "set,get,incr,lpush,sadd,hset,spop,zadd", timeout=120)
    lines = [line for line in out.splitlines() if line.startswith('"')]
    assert len(lines) >= 8, out
