"""The audit log: one JSON line a verdict, for who must be able to look back. Off unless a file is named.

Each process of a gateway writes a file of its own: of `audit.jsonl` process 0 writes `audit.0.jsonl`. Above 64 MiB it
is renamed to `audit.0.jsonl.1`, what was there to `.2`, and so on up to `.8`. Files are their owner's alone (0600),
locked, and appended to, a write a line. What cannot be written is lost and counted; no request fails by it.

Without texts a line has an HMAC-SHA-256 of the last message. Its key is random, never written, and ends with the
process: equal messages show as equal, and who has the file cannot try what a message may have been.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import random
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from verdictree.conversation import Conversation
from verdictree.policy import UNSAFE
from verdictree.verdict import Verdict
from verdictree_gateway.observing.caller import Caller
from verdictree_gateway.observing.log_lines import utc
from verdictree_gateway.observing.redaction import redacted
from verdictree_gateway.settings import Settings

MAX_FILE_BYTES = 64 << 20
NUM_OLD_FILES = 8
WRITTEN, LOST = "written", "lost"


class Audit:
    """The audit log of one process; `count` is told what became of each line."""

    def __init__(self, settings: Settings, process: str, count: Callable[[str], None]) -> None:
        self._file = LinesFile(file_of(settings.audit_file, process)) if settings.audit_file else None
        self._share, self._with_texts = settings.audit_sample, settings.audit_texts
        self._key = secrets.token_bytes(32)
        self._count = count

    def verdict(self, caller: Caller, conversation: Conversation, verdict: Verdict) -> None:
        """Write a line of a verdict, if it is drawn."""
        if self._file is None or random.random() >= self._share:
            return
        line = {
            "time": utc(time.time()),
            "request_id": caller.request_id,
            "tenant": caller.account.tenant.name,
            "port": caller.port,
            "release": verdict.release,
            "policy": verdict.policy,
            "role": verdict.role,
            "action": verdict.action,
            "flagged": verdict.flagged,
            "undecided": verdict.undecided,
            "scores": _scores(verdict),
            **self._last_message(conversation.messages[-1].content),
        }
        try:
            self._file.append(json.dumps(line, ensure_ascii=True).encode())
        except OSError:
            self._count(LOST)
        else:
            self._count(WRITTEN)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _last_message(self, text: str) -> dict[str, Any]:
        if self._with_texts:
            return {"text": redacted(text)}
        return {"text_hmac": hmac.digest(self._key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hex()}


def file_of(name: str, process: str) -> Path:
    """The file of a process."""
    path = Path(name)
    return path.with_name(f"{path.stem}.{process}{path.suffix}")


def _scores(verdict: Verdict) -> dict[str, dict[str, float]]:
    """By category, and of the whole answer: the raw probability, and the calibrated one where there is one."""
    pairs = [(UNSAFE, verdict.p_unsafe, verdict.p_unsafe_calibrated)]
    pairs += [(score.code, score.marginal, score.calibrated) for score in verdict.categories]
    return {
        code: {"raw": raw} if calibrated is None else {"raw": raw, "calibrated": calibrated}
        for code, raw, calibrated in pairs
    }


class LinesFile:
    """A file of lines that nobody else writes: appended to, and put aside when it has grown too large."""

    def __init__(self, path: Path, max_bytes: int = MAX_FILE_BYTES, num_old: int = NUM_OLD_FILES) -> None:
        self._path, self._max_bytes, self._num_old = path, max_bytes, num_old
        self._file: int | None = None
        self._num_bytes = 0

    def append(self, line: bytes) -> None:
        """Write a line, whole or not at all; OSError where it cannot be."""
        if self._file is None:
            self._open()
        if self._num_bytes and self._num_bytes + len(line) >= self._max_bytes:
            self._put_aside()
        assert self._file is not None
        content = line + b"\n"
        written = 0
        try:
            written = os.write(self._file, content)
            if written < len(content):
                raise OSError(f"{written} of {len(content)} bytes were written")
        except OSError:
            if written:  # half a line would spoil the next one
                os.ftruncate(self._file, self._num_bytes)
            raise
        self._num_bytes += len(content)

    def close(self) -> None:
        """Close it; another line would open it again."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        file = os.open(self._path, flags, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # another gateway's file is not ours to rename
            os.fchmod(file, 0o600)
            self._num_bytes = os.fstat(file).st_size
        except OSError:
            os.close(file)
            raise
        self._file = file

    def _put_aside(self) -> None:
        self.close()
        for number in range(self._num_old, 0, -1):
            older = self._path if number == 1 else self._old(number - 1)
            with contextlib.suppress(FileNotFoundError):
                older.replace(self._old(number))
        self._open()

    def _old(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")
