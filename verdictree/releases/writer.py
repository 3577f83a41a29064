"""The one writer of releases: whatever makes a release, makes it here.

A draft has its number from the start, by making the folder `.release-N`, and is written in there, for minutes if need
be, while rollouts go on. Only the commit takes the repository's lock. It moves the draft among the releases, the graph
last: a release counts as one when its graph has a manifest. A writer that is killed leaves a folder that nobody holds,
and the next writer clears it away.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from verdictree.errors import InvalidRelease, NotWritable, ReleaseTaken, RepositoryBusy
from verdictree.releases import calibration as calibrations
from verdictree.releases import file_lock, spare_files
from verdictree.releases import repository as repositories
from verdictree.releases.adapters import write_adapter
from verdictree.releases.calibration import Calibration
from verdictree.releases.journal import FOLDER, Journal, make_folder
from verdictree.releases.release import (
    COMPOSING_MODELS,
    FORMAT,
    GRAPH_MODEL,
    MANIFEST,
    MARGINALS_MODEL,
    Release,
    sha256,
)
from verdictree.releases.repository import ENSEMBLE
from verdictree.releases.software import VERSION

_DRAFT = ".release-"
_HELD = "writer"  # the file in a draft that its writer holds
_DRAFTS_LOCK = "drafts.lock"
_STATE = {_DRAFTS_LOCK, "lock", *spare_files.NAMES}  # what tells nothing of the past
_RESERVE_PATIENCE = 30.0  # seconds; nobody holds the drafts' lock for longer than a folder takes to remove
_COMMIT_PATIENCE = 3600.0  # a rollout that loads a large guard must not cost an export its minutes


class Draft:
    """A release under construction; `new` makes one."""

    def __init__(
        self, repository: Path, number: int, action: str, journal: Journal, template: Path | None, patience: float
    ) -> None:
        self._repository = repository
        self._action = action
        self._journal = journal
        self._template = template
        self._patience = patience
        self._copied: list[Path] = []  # of the template, for this draft
        self._directory = _draft(repository, number)
        self.number = number

    def folder(self, model: str) -> Path:
        """Where the release's files of a composing model are to be written."""
        return self._directory / model

    def link(self, base: Release, names: Iterable[str]) -> None:
        """Take over files of another release (`names` as in its manifest) by hard link.

        Raises InvalidRelease where the file system has no hard links.
        """
        try:
            for name in names:
                model, _, *rest = Path(name).parts
                target = self.folder(model).joinpath(*rest)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.hardlink_to(self._repository / name)
        except OSError as exc:
            raise InvalidRelease(
                f"expected a file system with hard links for '{self._directory}', got {exc}; export again"
            ) from exc

    def commit(
        self,
        release: Release,
        fitted: Mapping[str, Calibration] | None = None,
        *,
        reason: str = "",
        details: Mapping[str, Any] | None = None,
    ) -> Release:
        """Make the draft the release: all of it or, whatever is raised, nothing; return it with its files' hashes.

        `fitted` are its calibrations by policy, made for the same guard; `release.files` those of another release that
        it needs too. A repository's first release is pinned.
        Raises InvalidRelease for a calibration that does not fit, ReleaseTaken where the number is another's by now.
        """
        with _writing(self._directory):
            release = self._finished(release)
            marginals = self.folder(MARGINALS_MODEL)
            calibrations.rebind(fitted or {}, release, marginals)
            calibrations.load(marginals, release)
            with self._journal.lock(self._action, self._patience):
                _refuse_taken(self._repository, self.number)
                with contextlib.ExitStack() as undo:
                    undo.callback(self._remove_copied)
                    self._move_in()
                    undo.pop_all()
                stable = repositories.pinned(self._repository)
                self._journal.recover(stable)
                self._journal.write(
                    self._action, "done", stable=stable, release=self.number, reason=reason, details=details
                )
        return release

    def _remove_copied(self) -> None:
        for path in self._copied:
            path.unlink(missing_ok=True)
            with contextlib.suppress(OSError):  # others' files are in it too
                path.parent.rmdir()

    def _finished(self, release: Release) -> Release:
        """The release with its files' hashes, its manifest and adapters written."""
        own = {
            "/".join((model, str(self.number), *path.relative_to(self.folder(model)).parts)): sha256(path)
            for model in COMPOSING_MODELS
            for path in sorted(self.folder(model).rglob("*"))
            if path.is_file()
        }
        release = msgspec.structs.replace(
            release, number=self.number, files={**release.files, **own}, format=FORMAT, software=VERSION
        )
        for model in COMPOSING_MODELS:
            if release.version(model) == self.number:
                write_adapter(model, self.folder(model))  # code, not exported: it changes with the software
            (self.folder(model) / MANIFEST).write_bytes(release.to_json())
        return release

    def _move_in(self) -> None:
        first = not repositories.releases(self._repository)
        if self._template:
            self._copied = repositories.copy_template(self._template, self._repository)
        for model in (*(one for one in COMPOSING_MODELS if one != GRAPH_MODEL), GRAPH_MODEL):
            if model == GRAPH_MODEL:
                (self._repository / ENSEMBLE / str(self.number)).mkdir(exist_ok=True)
                if first:
                    repositories.pin(self._repository, self.number)
                    repositories.keep_only_pinned(self._repository)
            target = self._repository / model / str(self.number)
            shutil.rmtree(target, ignore_errors=True)  # a template's, which holds code only
            self.folder(model).rename(target)


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
        with _writing(repository):
            repository.mkdir(parents=True, exist_ok=True)
    taken: int | None = None
    with contextlib.ExitStack() as held:
        try:
            with _drafts(repository):
                taken = _reserved(repository, number)
                held.enter_context(file_lock.locked(_draft(repository, taken) / _HELD))
            with _writing(repository):
                for model in COMPOSING_MODELS:
                    (_draft(repository, taken) / model).mkdir()
            yield Draft(repository, taken, action, journal or Journal(repository), template, patience)
        finally:
            with _drafts(repository):
                if taken is not None:
                    _clear(repository, taken)
                _remove_what_is_empty(missing)


def _draft(repository: Path, number: int) -> Path:
    return repository / f"{_DRAFT}{number}"


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
    drafts = {int(path.name.removeprefix(_DRAFT)): path for path in repository.glob(f"{_DRAFT}[0-9]*")}
    live = {one for one, path in drafts.items() if file_lock.is_held(path / _HELD)}
    for dead in drafts.keys() - live:
        _clear(repository, dead)
    if number is None:
        number = max({*live, repositories.next_number(repository) - 1}) + 1
    elif number in live:
        raise ReleaseTaken(f"expected a free number, but another process is writing release {number}; leave it out")
    _refuse_taken(repository, number)
    with _writing(repository):
        _draft(repository, number).mkdir()
    return number


def _refuse_taken(repository: Path, number: int) -> None:
    if any((repository / model / str(number) / MANIFEST).exists() for model in COMPOSING_MODELS):
        raise ReleaseTaken(
            f"expected a free number, but '{repository}' has a release {number}; leave the number out, or remove that "
            f"release first with `verdictree rollout retire {number} --delete`"
        )


def _clear(repository: Path, number: int) -> None:
    """Remove a draft, and what a commit that was cut off had moved out of it; a whole release stays."""
    if not (repository / GRAPH_MODEL / str(number) / MANIFEST).exists():
        repositories.delete_files(repository, number)
    shutil.rmtree(_draft(repository, number), ignore_errors=True)


def _remove_what_is_empty(made: Iterable[Path]) -> None:
    """Remove the folders that were made for a draft, if it left nothing in them but locks."""
    for folder in reversed([*made]):
        if folder.name == FOLDER and {path.name for path in folder.iterdir()} <= {
            _DRAFTS_LOCK,
            "lock",
            *spare_files.NAMES,
        }:
            shutil.rmtree(folder)
        with contextlib.suppress(OSError):  # not empty: others use it
            folder.rmdir()


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise NotWritable.of(Path(exc.filename) if isinstance(exc.filename, str) else path, exc) from exc
