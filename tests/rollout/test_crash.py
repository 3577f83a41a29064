"""The server, or the operator, killed at every step of a promote."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys

import load
import pytest
import tritonclient.grpc as triton

from verdictree.releases import journal as journals
from verdictree.releases import repository as repositories
from verdictree.releases import startup
from verdictree.releases.journal import Journal
from verdictree_client.rollout import Rollout, RolloutError
from verdictree_client.rollout.server import Server
from verdictree_serving import TritonServer

pytestmark = pytest.mark.server

# Whatever a promote does that can be seen from outside its process.
STEPS = (
    (journals.Journal, "_append"),
    (repositories, "replace"),
    (Server, "load"),
    (Server, "unload"),
)


def kill_before(patch, step, pid):
    """Have process `pid` killed right before the step with this number; return the names of the steps taken."""
    taken = []

    def wrap(owner, name):
        original = getattr(owner, name)

        def wrapped(*args, **options):
            if name == "replace" and args[0].is_file() and args[0].read_text() == args[1]:
                return original(*args, **options)  # which writes nothing
            if len(taken) == step:
                os.kill(pid, signal.SIGKILL)
            taken.append(name)
            return original(*args, **options)

        patch(owner, name, wrapped)

    for owner, name in STEPS:
        wrap(owner, name)
    return taken


def releases_that_answer(address):
    with triton.InferenceServerClient(address) as client:
        bodies = [client.infer("guard", [load.body(text)]).as_numpy("verdict").item() for text in load.TEXTS]
    return {json.loads(body)["release"] for body in bodies}


def check_journal(repository):
    """Every action that began has one end, in order, and the last end tells the pinned release."""
    entries = [entry for entry in Journal(repository).entries() if entry.action != "export"]  # which is one line
    begun = [entry.number for entry in entries if entry.event == "begun"]
    assert begun == [entry.number for entry in entries if entry.event != "begun"] == sorted(set(begun))
    assert entries[-1].stable == repositories.pinned(repository)


def test_server_killed_at_every_step(repository):
    """A restart that serves nothing, a mixture, or another release than disk and journal say."""
    outcomes, step = [], 0
    while True:
        startup.prepare(repository, None)
        with TritonServer(repository) as server, Rollout(repository, server.grpc_address) as rollout:
            stable = repositories.pinned(repository)
            assert releases_that_answer(server.grpc_address) == {stable}
            if step:
                check_journal(repository)
                outcomes.append(stable)
            if stable == 2:
                assert rollout.rollback() == 1
            rollout.stage(2)
            with pytest.MonkeyPatch.context() as patch:
                taken = kill_before(patch.setattr, step, server.pid)
                with contextlib.suppress(RolloutError):
                    rollout.promote(force=True, reason="test")
            if len(taken) <= step:  # it was through before its turn came
                break
            step += 1
    assert taken == ["_append", "replace", "load", "unload", "unload", "unload", "_append"]
    assert outcomes == [1] + [2] * (step - 1), "once it is decided, the disk says so, whatever becomes of the server"


OPERATOR = """
import os, sys
from test_crash import Rollout, kill_before
with Rollout(sys.argv[1], sys.argv[2], who="victim") as rollout:
    kill_before(setattr, int(sys.argv[3]), os.getpid())
    rollout.promote(force=True, reason="test")
"""


@pytest.mark.parametrize(("step", "stable"), [(1, 1), (2, 2), (3, 2)], ids=["begun", "pinned", "loaded"])
def test_operator_killed(repository, server, rollout, step, stable):
    """A lock that a dead operator keeps, and a server that goes on serving what the disk has left."""
    rollout.stage(2)
    arguments = [sys.executable, "-c", OPERATOR, str(repository), server.grpc_address, str(step)]
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(__file__)}
    assert subprocess.run(arguments, env=environment, timeout=60).returncode == -signal.SIGKILL
    assert repositories.pinned(repository) == stable
    assert "has not ended" in rollout.status().problem
    rollout.stage(3 - stable)
    assert releases_that_answer(server.grpc_address) == {stable} == {rollout.status().serving}
    check_journal(repository)
    assert [entry.event for entry in Journal(repository).entries()][-3:] == ["recovered", "begun", "done"]
