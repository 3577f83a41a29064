"""Who may change the server, and one at a time."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from verdictree.errors import InvalidAdminKey, RepositoryBusy
from verdictree.releases import repository as repositories
from verdictree.releases.journal import Journal
from verdictree_client import GuardClient
from verdictree_client.rollout import NotPermitted, Refused, Rollout, ServerAway, stage

VERDICTREE = str(Path(sys.executable).with_name("verdictree"))


@pytest.mark.server
def test_second_operator_is_refused(rollout, repository, server, monkeypatch):
    """Two rollouts that interleave."""
    holding, go_on = threading.Event(), threading.Event()
    original = stage.stage

    def slow(*arguments):
        holding.set()
        assert go_on.wait(30)
        original(*arguments)

    monkeypatch.setattr(stage, "stage", slow)
    first = threading.Thread(target=rollout.stage, args=(2,))
    first.start()
    assert holding.wait(30)
    try:
        with (
            Rollout(repository, server.grpc_address, who="second") as second,
            pytest.raises(RepositoryBusy, match=r"only operator, but tester \(process \d+, `stage`\) is at work"),
        ):
            second.promote(force=True, reason="in a hurry")
    finally:
        go_on.set()
        first.join()
    assert rollout.status().candidate == 2
    assert {entry.who for entry in Journal(repository).entries() if entry.action == "stage"} == {"tester"}


@pytest.mark.server
def test_a_guard_that_is_slow_for_its_callers_is_staged(repository, start):
    """The warm-up expires in queues that were made for callers in a hurry, and a sound release is refused."""
    repositories.bound_queues(repository, deadline=0.002)
    server = start(repository)
    with Rollout(repository, server.grpc_address) as rollout:
        rollout.stage(2)
        assert rollout.status().candidate == 2


def test_admin_key_locks_control_but_not_inference(repository, tmp_path):
    """Anyone who reaches the server loading and unloading models, over gRPC or HTTP."""
    key = tmp_path / "key"
    key.write_text("k" * 32 + "\n")
    ports = [f"--{name}-port=0" for name in ("grpc", "http", "metrics", "triton-http")]
    command = [VERDICTREE, "serve", "--repository", str(repository), "--json", "--admin-key-file", str(key), *ports]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            said = json.loads(process.stdout.readline())
            with GuardClient(said["grpc"]) as guard:
                assert guard.classify("hello").release == 1 and guard.health().ready
            for wrong in (None, "x" * 32):
                with Rollout(repository, said["triton"], admin_key=wrong) as rollout:
                    for action in (rollout.status, lambda one=rollout: one.stage(2)):
                        with pytest.raises(NotPermitted, match="give --admin-key-file"):
                            action()
            connection = http.client.HTTPConnection(said["triton_http"], timeout=10)
            connection.request("POST", "/v2/repository/models/guard/unload")
            assert connection.getresponse().status == 403
            connection.close()
            with Rollout(repository, said["triton"], admin_key="k" * 32) as rollout:
                rollout.stage(2)
                assert rollout.status().candidate == 2
        finally:
            process.terminate()
            assert process.wait(60) == 0


def test_server_that_is_away(repository):
    """A traceback, and a status that hides what the disk knows."""
    with Rollout(repository, "127.0.0.1:1") as rollout:
        with pytest.raises(ServerAway, match="start it with `verdictree serve`"):
            rollout.stage(2)
        found = rollout.status()
    assert (found.stable, found.serving) == (1, None) and "127.0.0.1:1" in found.problem


def test_force_needs_a_reason(repository):
    """A promotion that nobody can explain afterwards."""
    with Rollout(repository, "127.0.0.1:1") as rollout, pytest.raises(Refused, match="expected a reason"):
        rollout.promote(force=True, reason=" ")


@pytest.mark.parametrize("content", ["", "short", "k" * 32 + "=", "k" * 16 + " " + "k" * 16])
def test_admin_key_that_is_none(tmp_path, content):
    """A server that is locked with a key that Triton cannot read, or anyone can guess."""
    from verdictree.releases.admin_key import read_admin_key

    (tmp_path / "key").write_text(content)
    with pytest.raises(InvalidAdminKey, match="openssl rand"):
        read_admin_key(tmp_path / "key")
    with pytest.raises(InvalidAdminKey, match="cannot be read"):
        read_admin_key(tmp_path / "no-such-file")
