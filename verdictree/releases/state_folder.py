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
