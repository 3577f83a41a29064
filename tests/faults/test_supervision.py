"""A server whose processes die, hang or are very busy."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from supervised import TEXTS, wait_until

from verdictree.releases.admin_key import key_file, read_admin_key
from verdictree_client.rollout.server import Server

pytestmark = pytest.mark.server


@pytest.mark.parametrize("victim", ["triton", "guard_tokenizer", "guard_lm", "guard_marginals"])
def test_a_killed_process_is_replaced_and_nothing_is_lost(serve, repository, load, victim):
    """Triton goes on with errors only, for half a minute, and then the service is gone for good."""
    server = serve(repository)
    with load(server) as found:
        killed = server.triton() if victim == "triton" else server.model_process(victim)
        os.kill(killed, signal.SIGKILL)
        assert wait_until(lambda: not server.is_ready(), 3.0)
        assert wait_until(server.is_ready, 60.0)
        time.sleep(1.0)
    assert not found.failed
    assert {len(answers) for answers in found.verdicts.values()} == {1}  # after the restart the same as before
    assert "verdictree_restarts_total 1.0" in server.get("/metrics")[1]
    status, error = server.end()
    assert status == 0
    assert "starting again in" in error and "release 1 is ready again" in error


@pytest.mark.parametrize("victim", ["triton", "guard_lm"])
def test_a_stopped_process_turns_the_light_red(serve, repository, load, victim):
    """A server that answers nobody calls itself ready, and balancers go on sending to it."""
    server = serve(repository)
    with load(server) as found:
        stopped = server.triton() if victim == "triton" else server.model_process(victim)
        os.kill(stopped, signal.SIGSTOP)
        assert wait_until(lambda: not server.is_ready(), 4.0)
        time.sleep(1.0)
        os.kill(stopped, signal.SIGCONT)
        assert wait_until(server.is_ready, 60.0)
    assert not found.failed


def test_a_process_that_stays_stopped_is_replaced(serve, repository, load):
    """Nothing ever heals a model process that hangs."""
    server = serve(repository)
    with load(server, deadline=60.0) as found:
        os.kill(server.model_process("guard_marginals"), signal.SIGSTOP)
        assert wait_until(lambda: not server.is_ready(), 4.0)
        assert wait_until(server.is_ready, 60.0)
    assert not found.failed


def test_a_server_that_dies_again_and_again_is_given_up(serve, repository):
    """A server that cannot live is started for ever, and nobody is told."""
    server = serve(repository)
    for _ in range(5):
        if not wait_until(lambda: server.process.poll() is not None or server.is_ready(), 60.0):
            pytest.fail("neither ready nor given up")
        os.kill(server.triton(), signal.SIGKILL)
        wait_until(lambda: server.process.poll() is not None or not server.is_ready(), 10.0)
    assert wait_until(lambda: server.process.poll() is not None, 60.0)
    _, error = server.process.communicate()
    assert server.process.returncode == 1
    assert error.splitlines()[-1].startswith("Error: the server failed 5 times within 300 s")


def test_a_full_endpoint_is_no_reason_to_kill(serve, repository, load):
    """1,100 idle connections take all of an endpoint, and the supervisor takes that for death."""
    server = serve(repository, "--http-port", "0")
    held = []
    try:
        with load(server) as found:
            for name in ("http", "health", "metrics"):
                host, port = server.said[name].split(":")
                held += [socket.create_connection((host, int(port))) for _ in range(1100)]
            triton = server.triton()
            time.sleep(15.0)
            assert server.process.poll() is None and server.triton() == triton
        assert not found.failed
    finally:
        for one in held:
            one.close()


_SLOW_CONFIG = """
name: "slow"
backend: "python"
input [ { name: "x", data_type: TYPE_INT64, dims: [ 1 ] } ]
output [ { name: "y", data_type: TYPE_INT64, dims: [ 1 ] } ]
instance_group [ { kind: KIND_CPU, count: 1 } ]
"""
_SLOW_MODEL = """
import time

class TritonPythonModel:
    def initialize(self, args):
        time.sleep(30)
"""


def test_a_candidate_that_loads_for_long_endangers_nobody(serve, repository, load):
    """While any model loads Triton calls itself not ready, and the live server was ended for it."""
    (repository / "slow" / "1").mkdir(parents=True)
    (repository / "slow" / "config.pbtxt").write_text(_SLOW_CONFIG)
    (repository / "slow" / "1" / "model.py").write_text(_SLOW_MODEL)
    served = serve(repository)
    server = Server(served.said["triton"], lambda: read_admin_key(key_file(repository)), None)
    with load(served) as found:
        begin, lights = time.monotonic(), []
        loading = threading.Thread(target=server.load, args=("slow",))
        loading.start()
        while loading.is_alive():
            lights.append(served.get("/ready"))
            time.sleep(0.5)
    server.close()
    assert time.monotonic() - begin > 30 and set(lights) == {(200, "ok\n")}
    assert not found.failed and served.process.poll() is None


def test_two_servers_on_one_repository_are_refused(serve, repository):
    """A rollout through one leaves the other on the old release, and the disk tells neither."""
    serve(repository)
    other = serve(repository, ready=False)
    _, error = other.process.communicate(timeout=30)
    assert other.process.returncode == 1 and "expected to be the only server on" in error


def test_requests_at_once_do_not_wait_for_others(serve, repository):
    """A request that lies in a queue, beside an idle machine, until another one comes or half a second has passed."""
    with serve(repository).client() as guard:
        alone = sorted(_seconds(guard, 1) for _ in range(9))[4]
        together = sorted(_seconds(guard, 8) for _ in range(15))[7]
    assert together < 12 * alone + 0.2, (alone, together)


def _seconds(guard, number):
    """Until so many requests that were sent at once are answered."""
    with ThreadPoolExecutor(number) as pool:
        list(pool.map(str, range(number)))  # which starts its threads
        start = time.perf_counter()
        list(pool.map(guard.classify, TEXTS[:number]))
        return time.perf_counter() - start
