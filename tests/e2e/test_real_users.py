"""Job queues, locks and subscribers of real libraries, unchanged, while the
server is killed with -9 and restarted again and again. The server keeps
what it acknowledged (appendonly yes, appendfsync always)."""

import contextlib
import importlib.util
import json
import os
import select
import shutil
import subprocess
import threading
import time
from collections import defaultdict

import pytest
import redis as redis_py

from servers import HOST, Process
from survival_worlds import Seen, counting_redis
from wait import wait_until

HERE = os.path.dirname(os.path.abspath(__file__))
AOF = {"aof": True, "options": ["--aof-use-rdb-preamble", "no"]}
PYTHON = "/usr/bin/python3"
needs_node = pytest.mark.skipif(
    shutil.which("node") is None
    or not os.path.isdir(os.path.join(HERE, "node_modules")),
    reason="no node, or no node_modules: npm ci in tests/e2e")


def needs(module):
    return pytest.mark.skipif(importlib.util.find_spec(module) is None,
                              reason=f"no python3-{module}")


@contextlib.contextmanager
def restarts(redis, times, every=1.5, down=0.3):
    """Kill and restart the server so many times while the block runs; then
    wait until the last one is over."""
    broken = []

    def hurt():
        try:
            for _ in range(times):
                time.sleep(every)  # the rhythm of the faults
                redis.kill9()
                time.sleep(down)
                redis.restart()
        except AssertionError as error:
            broken.append(error)
    thread = threading.Thread(target=hurt)
    thread.start()
    try:
        yield
    finally:
        thread.join()
        assert not broken, broken


@pytest.fixture
def redis(make_redis):
    return make_redis(**AOF)


class Node:
    """A program for Node.js, and the lines it prints."""

    def __init__(self, *args):
        self.child = subprocess.Popen(["node", *map(str, args)], cwd=HERE,
                                      stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.kill()
        self.child.wait()

    def line(self, timeout=30):
        """The next line; each is written at once."""
        readable, _, _ = select.select([self.child.stdout], [], [], timeout)
        assert readable, f"no line in {timeout} s"
        return self.child.stdout.readline().strip()


# Job queues

@needs_node
def test_bullmq_completes_every_job(redis, redial, figure):
    """200 jobs with delays and retries, four workers. Each is completed, and
    none processed twice at the same time. What UNKNOWNOUTCOME leaves open -
    was the job taken, was it completed? - BullMQ finds out by its locks: then
    it says that one is missing."""
    with Node("bullmq_jobs.js", redial.port, 200) as client:
        assert client.line() == "running"
        with restarts(redis, 4):
            pass
        result = json.loads(client.line(90))
        assert client.child.wait(30) == 0
    figure(json.dumps(result))
    assert result["drops"] == 0
    assert result["completed"] == 200 and result["failed"] == 0
    assert result["overlaps"] == 0
    assert result["events"] == 200
    # XREAD BLOCK of its events only reads: it goes on.
    assert set(result["errors"]) <= {
        "UNKNOWNOUTCOME EVALSHA", "UNKNOWNOUTCOME EVAL",
        "UNKNOWNOUTCOME BZPOPMIN", "UNKNOWNOUTCOME EXEC", "Missing lock"}


class Workers(threading.Thread):
    """A worker, started again when it ends, as a service manager does."""

    def __init__(self, folder, port, args):
        super().__init__(daemon=True)
        self.args = args
        self.log = os.path.join(folder, "jobs.log")
        self.env = dict(os.environ, JOB_LOG=self.log, JOB_PORT=str(port),
                        PYTHONPATH=HERE)
        self.process = Process(os.path.join(folder, "worker.log"))
        self.ending = False
        self.starting = threading.Lock()
        self.starts = 0

    def run(self):
        while True:
            with self.starting:
                if self.ending:
                    return
                self.starts += 1
                self.process.spawn(self.args, env=self.env, cwd=HERE)
            self.process.child.wait()

    def end(self):
        with self.starting:
            self.ending = True
        self.process.end()
        self.join()

    def runs(self):
        """{job: [(began, ended or None)]}"""
        runs = defaultdict(list)
        try:
            with open(self.log) as file:
                lines = file.read().splitlines()
        except FileNotFoundError:
            return runs
        for line in lines:
            when, what, job = line.split()
            if what == "begin":
                runs[int(job)].append([float(when), None])
            else:
                open_runs = [r for r in runs[int(job)] if r[1] is None]
                open_runs[0][1] = float(when)
        return runs

    def done(self):
        return {job for job, runs in self.runs().items()
                if any(ended for _, ended in runs)}


def overlaps(runs):
    return [job for job, times in runs.items()
            for one, two in zip(sorted(times), sorted(times)[1:])
            if one[1] is None or two[0] < one[1]]


def play_queue(redis, workers, add, jobs, times=3,
               unknown_errors=(redis_py.ResponseError,)):
    """Add jobs through restarts, until each is done. What is not done in
    3 s without any progress is added again, as an app would that waits for
    the result: Redis' lists lose what was popped for a connection that died.
    Returns (how many UNKNOWNOUTCOME, which were added again)."""
    unknown, again = 0, []
    with restarts(redis, times):
        for job in range(jobs):
            while True:
                try:
                    add(job)
                    break
                except unknown_errors as error:
                    assert str(error).startswith("UNKNOWNOUTCOME"), error
                    unknown += 1
            time.sleep(times * 1.8 / jobs)  # the pace
    end = time.monotonic() + 60
    while len(workers.done()) < jobs and time.monotonic() < end:
        before = len(workers.done())
        with contextlib.suppress(AssertionError):
            wait_until(lambda: len(workers.done()) > before, "a job", 3)
        if len(workers.done()) == before:
            for job in set(range(jobs)) - workers.done():
                again.append(job)
                add(job)
    assert workers.done() == set(range(jobs))
    assert overlaps(workers.runs()) == []
    return unknown, again


@needs("rq")
def test_rq_does_every_job(redis, redial, folder, figure):
    """The worker of RQ 1.13 ends when BLPOP, or a write of its own, is
    answered UNKNOWNOUTCOME, and so needs its service manager."""
    import rq

    from queue_jobs import work
    queue = rq.Queue("q", connection=redis_py.Redis(HOST, redial.port))
    workers = Workers(folder, redial.port,
                      [PYTHON, "-m", "rq.cli", "worker", "--url",
                       f"redis://{HOST}:{redial.port}", "q"])
    workers.start()
    try:
        unknown, again = play_queue(
            redis, workers,
            lambda job: queue.enqueue(work, job, job_id=f"job-{job}"), 8)
    finally:
        workers.end()
    figure(f"{unknown} unknown, {len(again)} added again, the worker was "
           f"started {workers.starts} times")
    assert len(again) <= 3


@needs("celery")
def test_celery_does_every_job(redis, make_redial, folder, figure,
                               monkeypatch):
    """The worker of Celery 5.2 ends when BRPOP is answered UNKNOWNOUTCOME.
    With replay.BRPOP = all it is asked again: a job popped for the connection
    that died is lost, as it is without redial. What is left are its own
    transactions: when one of them is UNKNOWNOUTCOME it ends, too."""
    redial = make_redial(redis.url, sets=["upstream.replay.BRPOP=all"])
    workers = Workers(folder, redial.port, [
        PYTHON, "-m", "celery", "-A", "queue_jobs", "worker", "-c", "2",
        "--without-mingle", "--without-gossip", "-l", "INFO"])
    monkeypatch.setenv("JOB_PORT", str(redial.port))
    import kombu.exceptions
    import queue_jobs
    queue_jobs.app.conf.broker_url = f"redis://{HOST}:{redial.port}/0"
    queue_jobs.app.conf.result_backend = f"redis://{HOST}:{redial.port}/0"
    workers.start()
    try:
        unknown, again = play_queue(
            redis, workers, lambda job: queue_jobs.task.apply_async(
                (job,), task_id=f"job-{job}", retry=False), 60,
            unknown_errors=(kombu.exceptions.OperationalError,))
    finally:
        workers.end()
    figure(f"{unknown} unknown, {len(again)} added again, the worker was "
           f"started {workers.starts} times")
    assert len(again) <= 3 and workers.starts <= 4


# Locks

def test_a_lock_excludes(redis, redial, figure):
    """redis-py's Lock: SET NX PX to take it, a script to give it back. When
    one of them is UNKNOWNOUTCOME the lock may be held by nobody, until it
    expires; it is never held by two."""
    seen, inside, sections, broken = Seen(), [], [], []
    guard = threading.Lock()
    stop = time.monotonic() + 12

    def work(number):
        client = counting_redis(redial.port, seen)
        while time.monotonic() < stop:
            lock = client.lock("lock", timeout=3, sleep=0.02)
            try:
                lock.acquire()
            except redis_py.ResponseError as error:
                seen.error("acquire", error)
                continue
            began = time.monotonic()
            with guard:
                inside.append(number)
                if len(inside) > 1:
                    broken.append(list(inside))
            n = int(client.get("n") or 0)
            time.sleep(0.01)
            client.set("n", n + 1)
            with guard:
                inside.remove(number)
            sections.append(time.monotonic() - began)
            try:
                lock.release()
            except redis_py.ResponseError as error:
                seen.error("release", error)
    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    with restarts(redis, 4, every=1.8):
        pass
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    figure(f"{len(sections)} sections, {dict(seen.errors)}")
    assert max(sections) < 2.9, "too slow: a lock has expired in its section"
    assert broken == []
    assert int(redis.call("GET", "n")) == len(sections) > 30
    assert seen.complaints({("acquire", "UNKNOWNOUTCOME"),
                            ("release", "UNKNOWNOUTCOME")}) == []


# Subscribers

def publish_all(redis, channel, count, receivers, first=0):
    """Once all are subscribed, so many messages."""
    with redis.connect() as c:
        wait_until(lambda: c.call("PUBSUB", "NUMSUB", channel)[1]
                   == receivers, "all to be subscribed")
        for number in range(first, first + count):
            assert c.call("PUBLISH", channel, number) == receivers


def test_redis_py_subscriber(redis, redial):
    """A thread of redis-py's PubSub."""
    seen, got = Seen(), []
    client = counting_redis(redial.port, seen)
    pubsub = client.pubsub()
    pubsub.subscribe(news=lambda message: got.append(int(message["data"])))
    thread = pubsub.run_in_thread(sleep_time=0.1)
    try:
        for turn in range(3):
            publish_all(redis, "news", 20, 1, first=turn * 20)
            wait_until(lambda: len(got) == (turn + 1) * 20, "the messages")
            redis.kill9()
            redis.restart()
        publish_all(redis, "news", 20, 1, first=60)
        wait_until(lambda: len(got) == 80, "the messages")
    finally:
        thread.stop()
        thread.join()
    assert got == list(range(80)) and seen.drops == 0


@needs_node
def test_ioredis_subscriber(redis, redial):
    """ioredis, with a pattern and a channel, that never reconnects."""
    script = """
        const Redis = require('ioredis');
        const client = new Redis({ host: '127.0.0.1', port: %d,
          retryStrategy: null });
        const got = [];
        client.on('error', (e) => console.log('error', e.message));
        client.on('close', () => console.log('closed'));
        const note = (text) => {
          got.push(Number(text));
          if (text === 'end') { console.log(JSON.stringify(got));
            process.exit(0); }
        };
        client.on('message', (_, text) => note(text));
        client.on('pmessage', (_, __, text) => note(text));
        client.subscribe('news', 'more').then(() => client.psubscribe('pat*'))
          .then(() => console.log('ready'));
        """ % redial.port
    with Node("-e", script) as client:
        assert client.line() == "ready"
        for turn in range(3):
            publish_all(redis, "news", 10, 1, first=turn * 20)
            with redis.connect() as c:
                wait_until(lambda: c.call("PUBSUB", "NUMPAT") == 1, "it")
                for number in range(turn * 20 + 10, turn * 20 + 20):
                    assert c.call("PUBLISH", "pattern", number) == 1
            time.sleep(0.1)  # what was published is on its way
            redis.kill9()
            redis.restart()
        publish_all(redis, "more", 0, 1)
        assert redis.call("PUBLISH", "more", "end") == 1
        assert json.loads(client.line())[:-1] == list(range(60))
