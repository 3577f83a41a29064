"""The journal of a repository: every action on its releases, appended, never changed; and the lock that keeps two
operators apart.

A line is one JSON object. An action is two lines with its number in common: `begun`, and how it ended. The ending
`recovered` is written by whoever comes next, where the operator's process or machine died in between. The history of
the pinned release, which `rollback` goes back along, is read from the endings.
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from verdictree.errors import NotWritable, RepositoryBusy
from verdictree.files import file_lock, spare_files

FOLDER = spare_files.FOLDER
Event = Literal["begun", "done", "failed", "recovered"]


class Entry(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One line: who did what when and why; `stable` is the pinned release at that moment.

    `release` is the release that the action is about, `details` what it found or was told; an ending's details hold
    the release that was pinned `before`.
    """

    number: int
    time: str
    who: str
    action: str
    event: Event
    stable: int
    release: int | None = None
    reason: str = ""
    details: dict[str, Any] = {}


_decoder = msgspec.json.Decoder(Entry)


def operator() -> str:
    """Who is at work, where nothing else is said: user@host."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


class Journal:
    """The journal of one model repository, in the folder `.rollout` beside its models."""

    def __init__(self, repository: Path, who: str | None = None) -> None:
        """`who` is named in every line that this journal writes (None: user@host)."""
        self._folder = repository / FOLDER
        self._path = self._folder / "journal.jsonl"
        self._who = who or operator()

    def entries(self) -> list[Entry]:
        """All whole lines, oldest first; a last line that a crash cut off is none."""
        if not self._path.is_file():
            return []
        return [_decoder.decode(line) for line in self._path.read_bytes().split(b"\n")[:-1]]

    def unfinished(self) -> Entry | None:
        """The last action, if it began and has not ended."""
        last = next(reversed(self.entries()), None)
        return last if last and last.event == "begun" else None

    def former(self, stable: int) -> int | None:
        """The release that `rollback` returns to from `stable`: the one that was pinned when `stable` was promoted."""
        history: list[int] = []
        for entry in self.entries():
            before = entry.details.get("before", entry.stable)
            if entry.event == "begun" or before == entry.stable:
                continue
            if entry.action == "rollback" and history and history[-1] == entry.stable:
                history.pop()
            else:
                history.append(before)
        # A full disk may have kept a rollback out of the journal: it went to what stands last.
        while history and history[-1] == stable:
            history.pop()
        return history[-1] if history else None

    def write(
        self,
        action: str,
        event: Event,
        *,
        stable: int,
        release: int | None = None,
        reason: str = "",
        details: Mapping[str, Any] | None = None,
    ) -> None:
        """Append a line that outlives a power cut; the caller holds the lock."""
        entries = self.entries()
        is_new = not entries or event == "begun" or entries[-1].event != "begun"
        self._append(
            Entry(
                number=(entries[-1].number if entries else 0) + is_new,
                time=datetime.now(UTC).isoformat(timespec="milliseconds"),
                who=self._who,
                action=action,
                event=event,
                stable=stable,
                release=release,
                reason=reason,
                details=dict(details or {}),
            )
        )

    def recover(self, stable: int) -> None:
        """End an action that died, as the disk says that it ended; the caller holds the lock."""
        begun = self.unfinished()
        if begun:
            details = {"before": begun.stable, "begun_by": begun.who}
            self.write(
                begun.action, "recovered", stable=stable, release=begun.release, reason=begun.reason, details=details
            )

    @contextmanager
    def lock(self, action: str, patience: float = 0.0) -> Iterator[None]:
        """Hold the repository for one action; RepositoryBusy, saying who has it, where another does after `patience` s.

        The kernel gives the lock back when its holder dies, however that dies.
        Raises NotWritable where the repository's disk is read-only.
        """
        make_folder(self._folder)
        try:
            with file_lock.locked(self._folder / "lock", patience) as file:
                with suppress(OSError):  # on a full disk it is not said who holds it
                    file.truncate(0)
                    file.write(f"{self._who} (process {os.getpid()}, `{action}`)\n".encode())
                spare_files.keep(self._folder.parent)
                yield
                with suppress(OSError):
                    file.truncate(0)
        except file_lock.Held as exc:
            holder = exc.holder or "another process"
            raise RepositoryBusy(
                f"expected to be the only operator, but {holder} is at work; wait for its end"
            ) from None

    def _append(self, entry: Entry) -> None:
        try:
            with self._path.open("a+b") as file:
                file.seek(0)
                file.truncate(file.read().rfind(b"\n") + 1)  # what a crash or a full disk cut off
                file.write(msgspec.json.encode(entry) + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as exc:
            raise NotWritable.of(self._path, exc) from exc


def make_folder(folder: Path) -> None:
    """Make the repository's folder of state, in a repository that is there; NotWritable where that cannot be."""
    try:
        folder.mkdir(mode=0o755, exist_ok=True)
    except OSError as exc:
        raise NotWritable.of(folder, exc) from exc
