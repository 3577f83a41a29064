"""A release under construction: its files, until a commit moves them among the releases."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from verdictree.errors import InvalidRelease, NotWritable, ReleaseTaken
from verdictree.releases import VERSION
from verdictree.releases import calibration as calibrations
from verdictree.releases import repository as repositories
from verdictree.releases.adapters import write_adapter
from verdictree.releases.calibration import Calibration
from verdictree.releases.journal import Journal
from verdictree.releases.release import (
    COMPOSING_MODELS,
    FORMAT,
    FORMAT_WITHOUT_EXIT,
    GRAPH_MODEL,
    MANIFEST,
    MARGINALS_MODEL,
    Release,
    sha256,
)
from verdictree.releases.repository import ENSEMBLE

PREFIX = ".release-"  # of a draft's folder, before its number


class Draft:
    """A release under construction; `writer.new` makes one."""

    def __init__(
        self, repository: Path, number: int, action: str, journal: Journal, template: Path | None, patience: float
    ) -> None:
        self._repository = repository
        self._action = action
        self._journal = journal
        self._template = template
        self._patience = patience
        self._copied: list[Path] = []  # of the template, for this draft
        self._directory = draft_folder(repository, number)
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
        with writing(self._directory):
            release = self._finished(release)
            marginals = self.folder(MARGINALS_MODEL)
            calibrations.rebind(fitted or {}, release, marginals)
            calibrations.load(marginals, release)
            with self._journal.lock(self._action, self._patience):
                refuse_taken(self._repository, self.number)
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
        number = FORMAT_WITHOUT_EXIT if release.early_exit is None else FORMAT
        release = msgspec.structs.replace(
            release, number=self.number, files={**release.files, **own}, format=number, software=VERSION
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
        for model in (*(model for model in COMPOSING_MODELS if model != GRAPH_MODEL), GRAPH_MODEL):
            if model == GRAPH_MODEL:
                (self._repository / ENSEMBLE / str(self.number)).mkdir(exist_ok=True)
                if first:
                    repositories.pin(self._repository, self.number)
                    repositories.keep_only_pinned(self._repository)
            target = self._repository / model / str(self.number)
            shutil.rmtree(target, ignore_errors=True)  # a template's, which holds code only
            self.folder(model).rename(target)


def draft_folder(repository: Path, number: int) -> Path:
    """Where the draft of a release lies."""
    return repository / f"{PREFIX}{number}"


def refuse_taken(repository: Path, number: int) -> None:
    """Raise ReleaseTaken where there is a release of this number."""
    if any((repository / model / str(number) / MANIFEST).exists() for model in COMPOSING_MODELS):
        raise ReleaseTaken(
            f"expected a free number, but '{repository}' has a release {number}; leave the number out, or remove that "
            f"release first with `verdictree rollout retire {number} --delete`"
        )


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raise NotWritable, naming the file, for what the operating system refuses in the body."""
    try:
        yield
    except OSError as exc:
        raise NotWritable.of(Path(exc.filename) if isinstance(exc.filename, str) else path, exc) from exc
