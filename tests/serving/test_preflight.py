"""Machines that are not fit for a server, named before anything starts."""

from __future__ import annotations

import resource
import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from verdictree_serving.errors import MachineUnfit
from verdictree_serving.server.preflight import check_machine


def free(monkeypatch: pytest.MonkeyPatch, folder: str, megabytes: int) -> None:
    usage = shutil.disk_usage
    monkeypatch.setattr(
        shutil,
        "disk_usage",
        lambda path: SimpleNamespace(free=megabytes << 20) if str(path) == folder else usage(path),
    )


def test_a_fit_machine_passes() -> None:
    """A check that refuses an ordinary machine."""
    check_machine()


def test_little_shared_memory_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container with 4 MB of /dev/shm is ready, and fails requests with words about pools and keys."""
    free(monkeypatch, "/dev/shm", 4)
    with pytest.raises(MachineUnfit, match=r"at least 16 MB free in /dev/shm, .* got 4; .* --shm-size"):
        check_machine()


def test_a_full_temporary_folder_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A traceback out of a copy that found no space."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    free(monkeypatch, str(tmp_path), 1)
    with pytest.raises(MachineUnfit, match="at least 16 MB free in the temporary folder"):
        check_machine()


def test_a_temporary_folder_that_takes_nothing_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A traceback of Python's own tempfile."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    with pytest.raises(MachineUnfit, match="expected a temporary folder to write to, got No such file"):
        check_machine()


def test_a_low_soft_limit_of_files_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """1,024 connections, a usual soft limit, take the last file."""
    limits = {"now": (1024, 4096)}
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits["now"])
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: limits.update(now=wanted))
    check_machine()
    assert limits["now"] == (4096, 4096)
    limits["now"] = (64, 64)
    with pytest.raises(MachineUnfit, match=r"at least 512 open files allowed, got 64; .* ulimit -n"):
        check_machine()
