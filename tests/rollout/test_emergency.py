"""What must work when something else does not: a split that cannot be set up, an emergency stop, a full disk."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from verdictree.errors import NotWritable
from verdictree.releases import repository as repositories
from verdictree.releases import startup
from verdictree.releases.journal import Journal
from verdictree.releases.repository import CONFIG, ENSEMBLE, ROUTER
from verdictree_client import GuardClient
from verdictree_client.rollout import ControlFailed, Refused, Rollout, configs

OLD = Path(__file__).parents[1] / "old_releases" / "format_1"
ROUTED = configs.routed
VERDICTREE = str(Path(sys.executable).with_name("verdictree"))


@pytest.fixture
def small(tmp_path) -> Path:
    """A repository of one small release and another that shares its graph."""
    repository = Path(shutil.copytree(OLD, tmp_path / "models"))
    with Rollout(repository, "127.0.0.1:1") as rollout:
        rollout.derive(1, thresholds={None: 0.2})
    return repository


@contextmanager
def serving(repository):
    """`verdictree serve` in a process of its own, whose gRPC address it yields."""
    ports = [f"--{name}-port=0" for name in ("grpc", "http", "metrics", "triton-http")]
    command = [VERDICTREE, "serve", "--repository", str(repository), "--json", *ports]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield json.loads(process.stdout.readline())["triton"]
        finally:
            process.terminate()
            process.wait(60)


def releases_that_answer(server, count=20):
    with GuardClient(server.grpc_address, deadline=60.0) as guard:
        return {guard.classify("hello", routing_key=str(key)).release for key in range(count)}


def edit(repository, model, before, after):
    path = repository / model / CONFIG
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


@pytest.mark.server
def test_one_batch_size_rules(small, start):
    """A canary that ends the service since the router takes fewer requests at once than the guard."""
    edit(small, ENSEMBLE, "max_batch_size: 4", "max_batch_size: 8")
    server = start(small)
    with Rollout(small, server.grpc_address) as rollout:
        rollout.stage(2)
        edit(small, ENSEMBLE, "max_batch_size: 8", "max_batch_size: 16")  # for the next start
        rollout.canary(0.5)
        assert releases_that_answer(server) == {1, 2}
        assert rollout.promote(force=True, reason="test") == 2
        assert rollout.rollback() == 1
        assert releases_that_answer(server) == {1}


@pytest.mark.server
@pytest.mark.parametrize("before", [0.0, 0.5])
def test_a_split_that_cannot_be_set_up_restores_what_was(small, start, monkeypatch, before):
    """An outage, where a canary was wanted, until the server is started anew."""
    server = start(small)
    with Rollout(small, server.grpc_address) as rollout:
        rollout.stage(2)
        if before:
            rollout.canary(before)
        with monkeypatch.context() as context:
            tries = iter([routed_to_nothing(small, 4)])
            context.setattr(configs, "routed", lambda *arguments: next(tries, None) or ROUTED(*arguments))
            with pytest.raises(ControlFailed, match="refused"):
                rollout.canary(0.9)
        found = rollout.status()
        assert (found.canary, found.serving, found.candidate, found.problem) == (before, 1, 2, "")
        assert releases_that_answer(server) == ({1, 2} if before else {1})
        assert Journal(small).entries()[-1].event == "failed"


def routed_to_nothing(repository, batch_size):
    return ROUTED(repository, batch_size).replace(f'"{ROUTER}"', '"no_such_model"')


@pytest.mark.server
def test_rollback_ends_a_canary_first(small, start):
    """An emergency stop that is refused since a canary, the emergency, runs."""
    server = start(small)
    with Rollout(small, server.grpc_address) as rollout:
        rollout.stage(2)
        rollout.canary(1.0)
        assert releases_that_answer(server) == {2}
        assert rollout.rollback(reason="it errs") == 1, "nothing was promoted: the end of the canary is all"
        assert releases_that_answer(server) == {1} and rollout.status().canary == 0
        with pytest.raises(Refused, match="nothing was promoted"):
            rollout.rollback()
        rollout.promote(force=True, reason="test")
        third = rollout.derive(2, thresholds={None: 0.3}).number
        rollout.stage(third)
        rollout.shadow(1.0)
        assert rollout.rollback() == 1
        assert rollout.status().shadow == 0 and releases_that_answer(server) == {1}
        assert rollout.status().problem == ""


@pytest.mark.server
def test_a_shared_graph_is_loaded_once_and_stays(small, start):
    """A second copy of the guard for a threshold, and a graph that goes while somebody needs it."""
    server = start(small)
    with Rollout(small, server.grpc_address) as rollout:
        again = rollout.derive(2, thresholds={None: 0.9}).number
        rollout.stage(again)
        assert rollout._server.ready_versions("guard_lm") == {1} == rollout._server.ready_versions("guard_tokenizer")
        rollout.promote(force=True, reason="test")
        assert releases_that_answer(server) == {again} and rollout.status().loaded == (1, again)
        with pytest.raises(Refused, match="release 2, 3 shares its graph"):
            rollout.retire(1, delete=True)
        rollout.retire(1)
        assert rollout._server.ready_versions("guard_lm") == {1} and rollout.status().loaded == (again,)
        assert releases_that_answer(server) == {again}
        assert rollout.rollback() == 1 and releases_that_answer(server) == {1}
        rollout.retire(again, delete=True)
        assert rollout.status().loaded == (1,) and repositories.releases(small) == (1, 2)
    startup.prepare(small, 2)
    assert startup.prepare(small, None) == 2 and "versions: [ 1 ]" in (small / "guard_lm" / CONFIG).read_text()
    other = start(small)
    assert releases_that_answer(other) == {2}


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a few megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"mount is not permitted: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk):
    with pytest.raises(OSError) as caught, (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    assert caught.value.errno == errno.ENOSPC


def end_on_a_page(repository):
    """Write into the journal until its last page is full, so that no further line fits into what it has."""
    journal, path = Journal(repository), repository / ".rollout" / "journal.jsonl"
    with journal.lock("test"):
        journal.write("test", "done", stable=1, reason="r")
        before = path.stat().st_size
        journal.write("test", "done", stable=1, reason="r")
        line = path.stat().st_size - before - 1
        journal.write("test", "done", stable=1, reason="r" * (-(before + 2 * line + 1) % 4096))
    assert path.stat().st_size % 4096 == 0


@pytest.mark.server
@pytest.mark.parametrize("recorded", [True, False], ids=["a line fits", "no line fits"])
def test_rollback_on_a_full_disk(small, small_disk, start, recorded):
    """A release that lets harm through until somebody has cleaned up a full disk."""
    repository = Path(shutil.copytree(small, small_disk / "models"))
    server = start(repository)
    with Rollout(repository, server.grpc_address) as rollout:
        rollout.stage(2)
        rollout.promote(force=True, reason="test")
        third = rollout.derive(2, thresholds={None: 0.3}).number
        rollout.stage(third)
        rollout.canary(0.5)
        if not recorded:
            end_on_a_page(repository)
        fill(small_disk)
        for refused in (
            lambda: rollout.promote(force=True, reason="test"),
            lambda: rollout.derive(1, thresholds={None: 0.3}),
            lambda: rollout.retire(1),
        ):
            with pytest.raises(NotWritable, match=r"No space left on device; free some space"):
                refused()
        assert releases_that_answer(server) == {2, third}, "live traffic is unharmed"
        assert rollout.rollback() == 1 and bool(rollout.notes) == (not recorded)
        assert releases_that_answer(server) == {1} and repositories.pinned(repository) == 1
        assert Journal(repository).former(1) is None
        assert startup.prepare(repository, None) == 1
        (small_disk / "filler").unlink()
        rollout.stage(2)
        assert rollout.status().problem == "" and len(list(repository.glob(".rollout/spare-*"))) == 6


@pytest.mark.server
@pytest.mark.parametrize("how", ["mounted read-only", "not permitted"])
def test_a_read_only_repository_is_served(small, how):
    """A server that does not start where it has nothing to write."""
    if how == "mounted read-only":
        bound = subprocess.run(["mount", "--bind", "-o", "ro", str(small), str(small)], capture_output=True)
        if bound.returncode:
            pytest.skip(f"mount is not permitted: {bound.stderr.decode().strip()}")
    else:
        for path in (small, *small.rglob("*")):
            path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    try:
        before = {path: path.stat().st_mtime_ns for path in small.rglob("*")}
        with serving(small) as address, GuardClient(address, deadline=60.0) as guard:
            assert guard.classify("hello").release == 1
            if os.getuid() or how == "mounted read-only":
                with Rollout(small, address) as rollout:
                    with pytest.raises(NotWritable, match=r"Read-only file system; mount|Permission denied; run as"):
                        rollout.stage(2)
                    assert rollout.status().problem == ""
                    assert guard.classify("hello").release == 1
                assert {path: path.stat().st_mtime_ns for path in small.rglob("*")} == before
    finally:
        if how == "mounted read-only":
            subprocess.run(["umount", "-l", str(small)], check=True)
