"""What every action has in common: the lock, the journal, a server in line with the disk; and the change of the pin."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from verdictree.errors import NotWritable
from verdictree.files import spare_files
from verdictree.releases import repository as repositories
from verdictree.releases.journal import Event, Journal
from verdictree_client.rollout import stage, traffic
from verdictree_client.rollout.errors import ControlFailed
from verdictree_client.rollout.server import Server


class Actions:
    """The actions on one repository and its server."""

    def __init__(self, repository: Path, server: Server, journal: Journal) -> None:
        self._repository = repository
        self._server = server
        self._journal = journal
        self.notes: list[str] = []

    @contextmanager
    def begun(
        self, action: str, release: int | None, reason: str, *, unrecorded: bool = False
    ) -> Iterator[dict[str, Any]]:
        """Lock, recover, write `begun`; after the body, `done` with what it put into the dictionary, or `failed`.

        With `unrecorded` a journal that takes no more lines, on a full disk, is no reason not to act: it is noted.
        """
        with self._journal.lock(action):
            before = repositories.pinned(self._repository)
            with self._noted(unrecorded):
                self._journal.recover(before)
                self._journal.write(action, "begun", stable=before, release=release, reason=reason)
            details: dict[str, Any] = {"before": before}
            event: Event = "failed"
            try:
                self._bring_in_line()
                yield details
                event = "done"
            except BaseException as exc:
                details["error"] = str(exc) or type(exc).__name__
                raise
            finally:
                stable = repositories.pinned(self._repository)
                with self._noted(unrecorded):
                    self._journal.write(action, event, stable=stable, release=release, reason=reason, details=details)

    @contextmanager
    def _noted(self, unrecorded: bool) -> Iterator[None]:
        try:
            yield
        except NotWritable as exc:
            if not unrecorded:
                raise
            self.notes.append(f"the journal lacks a line of this: {exc}")

    def _bring_in_line(self) -> None:
        served = traffic.served(self._server)
        if served is None or served.release != repositories.pinned(self._repository):
            traffic.serve_pinned(self._repository, self._server)

    def pin(self, number: int) -> None:
        """Serve release `number`, which is loaded, from now on; nothing is staged or split afterwards."""
        before = repositories.pinned(self._repository)
        repositories.pin(self._repository, number)  # from here on a server that starts serves `number`
        try:
            traffic.serve_pinned(self._repository, self._server)
        except ControlFailed:
            with spare_files.taken():
                repositories.pin(self._repository, before)
            traffic.serve_pinned(self._repository, self._server)
            raise
        stage.drop_candidate(self._repository, self._server)
