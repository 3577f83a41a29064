"""Files with room of their own, kept for the day on which the disk is full and somebody must roll back.

Only what goes back takes them: whoever goes forward on a full disk is told so, and leaves them for the way back.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

FOLDER = ".rollout"
NAMES = tuple(f"spare-{number}" for number in range(6))  # for the steps, the ensemble and the staged one
_BYTES = 1 << 14


_taken: ContextVar[bool] = ContextVar("taken", default=False)


@contextlib.contextmanager
def taken() -> Iterator[None]:
    """Let `replace` take spare files in the body."""
    token = _taken.set(True)
    try:
        yield
    finally:
        _taken.reset(token)


def keep(repository: Path) -> None:
    """Make the spare files that are missing, as far as the disk has room."""
    for path in _paths(repository):
        if path.exists():
            continue
        try:
            with path.open("wb", buffering=0) as file:
                file.write(bytes(_BYTES))  # written, not only promised
                os.fsync(file.fileno())
        except OSError:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
            return


def replace(repository: Path, path: Path, content: bytes) -> bool:
    """Replace a file in one step by a spare one with this content; whether one may be taken and is large enough."""
    for spare in _paths(repository) if _taken.get() else ():
        if len(content) <= _BYTES and spare.is_file() and spare.stat().st_size == _BYTES:
            with spare.open("r+b", buffering=0) as file:
                file.write(content)
                file.truncate()
                os.fsync(file.fileno())
            spare.replace(path)
            return True
    return False


def _paths(repository: Path) -> list[Path]:
    return [repository / FOLDER / name for name in NAMES]
