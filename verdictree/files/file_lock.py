"""A lock that the kernel gives back when its holder dies, however that dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from verdictree.errors import NotWritable

_POLL_SECONDS = 0.05


class Held(Exception):
    """Another process holds the lock; `holder` is what it wrote into the file, or empty."""

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder


@contextlib.contextmanager
def locked(path: Path, patience: float = 0.0) -> Iterator[IO[bytes]]:
    """Hold the file `path`, which is created in an existing folder, for the body; Held after `patience` seconds.

    Raises NotWritable where the file system lets no such file be.
    """
    deadline = time.monotonic() + patience
    while (file := _taken(path)) is None:
        if time.monotonic() >= deadline:
            raise Held(_content(path))
        time.sleep(_POLL_SECONDS)
    with file:
        yield file


def is_held(path: Path) -> bool:
    """Whether a live process holds the file; False where there is none."""
    try:
        with path.open("r+b") as file:
            return not _flocked(file)
    except OSError:
        return False


def _taken(path: Path) -> IO[bytes] | None:
    try:
        file = path.open("a+b", buffering=0)
    except OSError as exc:
        raise NotWritable.of(path, exc) from exc
    try:
        # Who waits while the holder removes the file with its folder holds a file that nobody else will ever see.
        if _flocked(file) and path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
    except FileNotFoundError:
        pass
    file.close()
    return None


def _flocked(file: IO[bytes]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _content(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
