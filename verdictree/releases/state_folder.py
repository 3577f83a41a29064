"""Where a repository's state lies that is no release: key, logs, locks."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from verdictree.errors import RepositoryBusy
from verdictree.releases.journal import FOLDER

_ADDRESS_FILE = "triton-address"


def state_folder(repository: Path) -> Path:
    """The folder `.rollout` of a repository; where that cannot be written to, one of this user's own for it.

    It is created, for this user only, where it is missing.
    """
    folder = repository.resolve() / FOLDER
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:  # a read-only file system, say
        pass
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    own = Path(home) / "verdictree" / hashlib.sha256(str(repository.resolve()).encode()).hexdigest()[:16]
    own.mkdir(mode=0o700, parents=True, exist_ok=True)
    return own


def publish_address(repository: Path, address: str) -> None:
    """Say where the server on a repository listens for `verdictree rollout`, if the disk takes it."""
    with contextlib.suppress(OSError):
        path = state_folder(repository) / _ADDRESS_FILE
        temporary = path.with_suffix(".tmp")
        temporary.write_text(address)
        temporary.replace(path)


def published_address(repository: Path) -> str | None:
    """Where the last server on a repository of this machine listened; None where there was none."""
    try:
        return (state_folder(repository) / _ADDRESS_FILE).read_text() if repository.is_dir() else None
    except (OSError, UnicodeDecodeError):
        return None


@contextlib.contextmanager
def only_server(repository: Path) -> Iterator[None]:
    """Be the only server on a repository of this machine; RepositoryBusy where there is one.

    Two would come apart at the first rollout, which changes the one and the disk. The folder itself is locked, which a
    read-only one can be too; the kernel gives it back when its holder dies.
    """
    try:
        folder = os.open(repository, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield  # no repository: whoever reads it says so
        return
    try:
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        raise RepositoryBusy(
            f"expected to be the only server on '{repository}', but another one runs on it; stop that, or give each "
            "replica a copy of its own"
        ) from exc
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        os.close(folder)
