"""The one writer of releases: whatever makes a release, makes it here.

A draft has its number from the start, by making the folder `.release-N`, and is written in there, for minutes if need
be, while rollouts go on. Only the commit takes the repository's lock. It moves the draft among the releases, the graph
last: a release counts as one when its graph has a manifest. A writer that is killed leaves a folder that nobody holds,
and the next writer clears it away.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from verdictree.errors import ReleaseTaken, RepositoryBusy
from verdictree.files import file_lock, spare_files
from verdictree.releases import repository as repositories
from verdictree.releases.draft import PREFIX, Draft, draft_folder, refuse_taken, writing
from verdictree.releases.journal import FOLDER, Journal, make_folder
from verdictree.releases.release import COMPOSING_MODELS, GRAPH_MODEL, MANIFEST

_HELD = "writer"  # the file in a draft that its writer holds
_DRAFTS_LOCK = "drafts.lock"
_STATE = {_DRAFTS_LOCK, "lock", *spare_files.NAMES}  # what tells nothing of the past
_RESERVE_PATIENCE = 30.0  # seconds; nobody holds the drafts' lock for longer than a folder takes to remove
_COMMIT_PATIENCE = 3600.0  # a rollout that loads a large guard must not cost an export its minutes


@contextlib.contextmanager
def new(
    repository: Path,
    action: str,
    number: int | None = None,
    *,
    journal: Journal | None = None,
    template: Path | None = None,
    patience: float = _COMMIT_PATIENCE,
) -> Iterator[Draft]:
    """A draft of release `number` (None: the next free one), which is gone after the body unless it was committed.

    `action` is what the journal calls it; a commit waits `patience` seconds for another operator's action. With a
    `template`, a folder of configurations, there need be no repository yet; whatever is made for a draft that is not
    committed goes with it.
    Raises ReleaseTaken for a number that is another's, NotWritable where the disk is full or read-only.
    """
    missing = [path for path in (repository, repository / FOLDER) if not path.exists()]
    if template:
        with writing(repository):
            repository.mkdir(parents=True, exist_ok=True)
    taken: int | None = None
    with contextlib.ExitStack() as held:
        try:
            with _drafts(repository):
                taken = _reserved(repository, number)
                held.enter_context(file_lock.locked(draft_folder(repository, taken) / _HELD))
            with writing(repository):
                for model in COMPOSING_MODELS:
                    (draft_folder(repository, taken) / model).mkdir()
            yield Draft(repository, taken, action, journal or Journal(repository), template, patience)
        finally:
            with _drafts(repository):
                if taken is not None:
                    _clear(repository, taken)
                _remove_what_is_empty(missing)


@contextlib.contextmanager
def _drafts(repository: Path) -> Iterator[None]:
    path = repository / FOLDER / _DRAFTS_LOCK
    make_folder(path.parent)
    try:
        with file_lock.locked(path, _RESERVE_PATIENCE):
            yield
    except file_lock.Held:
        raise RepositoryBusy(
            f"expected nobody else to begin a release in '{repository}', but another process does; run this again"
        ) from None


def _reserved(repository: Path, number: int | None) -> int:
    """Make the folder of a draft; the caller holds the drafts' lock."""
    drafts = {int(path.name.removeprefix(PREFIX)): path for path in repository.glob(f"{PREFIX}[0-9]*")}
    live = {number for number, path in drafts.items() if file_lock.is_held(path / _HELD)}
    for dead in drafts.keys() - live:
        _clear(repository, dead)
    if number is None:
        number = max({*live, repositories.next_number(repository) - 1}) + 1
    elif number in live:
        raise ReleaseTaken(f"expected a free number, but another process is writing release {number}; leave it out")
    refuse_taken(repository, number)
    with writing(repository):
        draft_folder(repository, number).mkdir()
    return number


def _clear(repository: Path, number: int) -> None:
    """Remove a draft, and what a commit that was cut off had moved out of it; a whole release stays."""
    if not (repository / GRAPH_MODEL / str(number) / MANIFEST).exists():
        repositories.delete_files(repository, number)
    shutil.rmtree(draft_folder(repository, number), ignore_errors=True)


def _remove_what_is_empty(made: Iterable[Path]) -> None:
    """Remove the folders that were made for a draft, if it left nothing in them but locks."""
    for folder in reversed([*made]):
        if folder.name == FOLDER and {path.name for path in folder.iterdir()} <= _STATE:
            shutil.rmtree(folder)
        with contextlib.suppress(OSError):  # not empty: others use it
            folder.rmdir()
