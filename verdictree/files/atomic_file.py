"""Files that are replaced in one step, or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from verdictree.errors import NotWritable
from verdictree.files import spare_files


def replace(path: Path, text: str) -> None:
    """Replace a file in one step that also outlives a power cut; one that is the same already stays as it is.

    Raises NotWritable where the disk takes nothing; inside `spare_files.taken`, a full one takes what is kept for that.
    """
    if path.is_file() and path.read_text() == text:
        return
    try:
        _write(path, text.encode())
        _sync(path.parent)
    except OSError as exc:
        raise NotWritable.of(path, exc) from exc


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(".tmp")
    try:
        with temporary.open("wb", buffering=0) as file:
            file.write(content)
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as exc:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        is_full = exc.errno in (errno.ENOSPC, errno.EDQUOT)
        if not (is_full and spare_files.replace(path.parents[1], path, content)):
            raise


def _sync(folder: Path) -> None:
    directory = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
