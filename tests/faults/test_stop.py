"""How a server stops: it answers what it has, and takes nothing more."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest
from supervised import VERDICTREE, wait_until

pytestmark = pytest.mark.server


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_answers_what_is_in_flight_and_refuses_what_is_new(serve, repository, load, sent):
    """A graceful stop loses every request in flight, and tells new ones that there is no such model."""
    server = serve(repository)
    with load(server, clients=24, retries=0, long=True) as found:
        found.stopped = time.monotonic()
        status, _ = server.end(sent)
    assert status == 0
    answers = found.in_flight()
    assert len(answers) >= 10 and not any(answers)
    refused = {error.partition(":")[0] for error in found.failed}
    assert refused == {"ServerUnavailable"}
    assert not [error for error in found.failed if "NOT_FOUND" in error]


def test_the_light_is_red_before_anything_is_refused(serve, repository, load):
    """A balancer learns of a stop by the errors of its users."""
    server = serve(repository)
    with load(server, clients=2, retries=0) as found:
        found.stopped = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert wait_until(lambda: server.get("/ready") == (503, "draining\n"), 2.0)
        red = time.monotonic()
        assert server.get("/live")[0] == 200
        server.process.wait(timeout=60)
    first_refusal = min(begin for begin, _, error in found.results if error)
    assert red - first_refusal < 0.2


def test_a_second_signal_ends_at_once(serve, repository, load):
    """An operator in a hurry has to find out which process to kill."""
    server = serve(repository)
    with load(server, clients=24, retries=0, long=True) as found:
        triton = server.triton()
        found.stopped = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.1)
        begin = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(timeout=30)
    assert time.monotonic() - begin < 10
    assert server.process.returncode == 1
    assert wait_until(lambda: not os.path.exists(f"/proc/{triton}") or _is_dead(triton), 10.0)


def test_a_stop_ends_a_start(serve, repository):
    """A stop is ignored until the server is ready, and an orchestrator kills it meanwhile."""
    server = serve(repository, ready=False)
    time.sleep(2.0)
    begin = time.monotonic()
    status, _ = server.end()
    assert status == 0 and time.monotonic() - begin < 10


def test_a_bound_drain_ends(serve, repository, load):
    """One request that hangs keeps a server from ending."""
    server = serve(repository, "--drain-seconds", "1")
    with load(server, clients=2, retries=0) as found:
        found.stopped = time.monotonic()
        os.kill(server.model_process("guard_marginals"), signal.SIGSTOP)
        begin = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(timeout=30)
        assert time.monotonic() - begin < 15


def test_a_log_outlives_its_server(repository, tmp_path):
    """The error names a log that is deleted before anybody can read it."""
    log = tmp_path / "triton.log"
    config = repository / "guard_lm" / "config.pbtxt"
    config.write_text(config.read_text().replace("concurrent_runs", "concurrent_walks"))
    command = [VERDICTREE, "serve", "--repository", str(repository), "--grpc-port", "0", "--metrics-port", "0"]
    done = subprocess.run([*command, "--log-file", str(log)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "unknown parameter concurrent_walks" in done.stderr
    assert "concurrent_walks" in log.read_text()
    assert log.stat().st_mode & 0o077 == 0
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "concurrent_walks" in (repository / ".rollout" / "triton.log").read_text()


def _is_dead(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(")")[2].split()[0] == "Z"
