"""What a repository must be before a server starts on it: one whole release pinned, nothing else loaded."""

from __future__ import annotations

from pathlib import Path

from verdictree.errors import NotWritable, RepositoryBusy
from verdictree.releases import adapters
from verdictree.releases import repository as repositories
from verdictree.releases.journal import Journal
from verdictree.releases.release import Release
from verdictree.releases.repository import ROUTER


def prepare(repository: Path, number: int | None, deadline: float | None = None) -> int:
    """Pin release `number` (None: what is pinned), verified, and return its number.

    `deadline` is how many seconds callers wait at most (None: as configured); see `repository.bound_queues`.
    A candidate, canary or shadow of an earlier server is forgotten, and an action that died with it is ended in the
    journal. Where an operator is at work, the repository is left to them: it can be served at every moment. Raises
    InvalidRelease for a damaged release, and RepositoryBusy where an operator is at work and a release is asked for.
    On a disk that takes nothing the repository is served as it is; NotWritable where another release is asked for.
    """
    stable = repositories.pinned(repository)
    Release.load_verified(repository, number or stable)
    journal = Journal(repository)
    try:
        with journal.lock("serve"):
            journal.recover(repositories.pinned(repository))
            stable = _pin(repository, journal, number)
            repositories.keep_only_pinned(repository)
            repositories.spread_batch_size(repository)
            repositories.bound_queues(repository, deadline)
            repositories.make_room_for_windows(repository)
            adapters.refresh(repository, {**repositories.steps(repository, stable), ROUTER: 1})
    except RepositoryBusy:
        if number is not None:
            raise
    except NotWritable:
        if number not in (None, stable) or deadline is not None:
            raise
    return stable


def _pin(repository: Path, journal: Journal, number: int | None) -> int:
    before = repositories.pinned(repository)
    if number is None or number == before:
        return before
    repositories.pin(repository, number)
    journal.write("serve", "done", stable=number, release=number, details={"before": before})
    return number
