"""Is this machine fit for a server? Asked before anything starts: Triton's own errors name consequences."""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from pathlib import Path

from verdictree_serving.errors import MachineUnfit

_MIN_FILES = 512
_MIN_SCRATCH_MB = 16  # Python backend, log
_MIN_SHARED_MB = 16  # a megabyte for each model process to begin with, and what is in flight
_SHARED_MEMORY = Path("/dev/shm")


def check_machine() -> None:
    """Raise `MachineUnfit`, naming the cause and the fix, unless a server can run here.

    Raises the soft limit of open files to the hard one: every connection takes one.
    """
    _check_files()
    _check_scratch()
    _check_shared_memory()


def _check_files() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    if soft != resource.RLIM_INFINITY and soft < _MIN_FILES:
        raise MachineUnfit(
            f"expected at least {_MIN_FILES} open files allowed, got {soft}; raise the limit: ulimit -n 65536"
        )


def _check_scratch() -> None:
    try:
        folder = Path(tempfile.gettempdir())
        with tempfile.TemporaryFile(dir=folder):
            free = shutil.disk_usage(folder).free >> 20
    except OSError as exc:
        raise MachineUnfit(
            f"expected a temporary folder to write to, got {exc.strerror or exc} "
            f"(TMPDIR is {os.environ.get('TMPDIR', 'not set')!r}); set TMPDIR to a folder with space"
        ) from exc
    if free < _MIN_SCRATCH_MB:
        raise MachineUnfit(
            f"expected at least {_MIN_SCRATCH_MB} MB free in the temporary folder {folder}, got {free}; make room, or "
            "set TMPDIR to another folder"
        )


def _check_shared_memory() -> None:
    try:
        free = shutil.disk_usage(_SHARED_MEMORY).free >> 20
    except OSError as exc:
        raise MachineUnfit(
            f"expected shared memory at {_SHARED_MEMORY}, which Triton and its models talk through, got {exc}"
        ) from exc
    if free < _MIN_SHARED_MB:
        raise MachineUnfit(
            f"expected at least {_MIN_SHARED_MB} MB free in {_SHARED_MEMORY}, where Triton and its models meet, "
            f"got {free}; give it more (a container: --shm-size=256m), or remove what lies there"
        )
