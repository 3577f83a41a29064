"""Is what a running server answers still what was exported? Asked again and again, of its files and of its guard."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from verdictree import verdict, wire
from verdictree.errors import VerdictreeError
from verdictree.releases import repository
from verdictree.releases.release import MARGINALS_MODEL, Release, sha256
from verdictree.runtime import golden_check
from verdictree_serving.supervision.health import Health

if TYPE_CHECKING:
    from verdictree_serving.server.launcher import TritonServer

_POLL_SECONDS = 1.0
_ASK_SECONDS = 30.0
_FLIP_SECONDS = 3.0  # the pin on disk changes before the server does
_MICROSECONDS = 1_000_000
_INTERNAL = "/infer: 500 "


class SelfCheck:
    """Watches the pinned release's files once a second, and asks one golden conversation every so many seconds.

    What is found lies in `fault`. A damaged release closes the server's gate, since what it answers means nothing;
    another release that is pinned opens it again. 0 seconds ask nothing.
    """

    def __init__(self, model_repository: Path, health: Health, every_seconds: float) -> None:
        self._repository = model_repository
        self._health = health
        self._every = every_seconds
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self.fault = ""

    def begin(self, server: TritonServer, number: int) -> None:
        """Check this server, which serves release `number`, from now on."""
        self._ended, self.fault = threading.Event(), ""
        self._health.damaged.set(0)
        self._thread = threading.Thread(
            target=self._work, args=(server, number, self._ended), name="self-check", daemon=True
        )
        self._thread.start()

    def end(self) -> None:
        """Stop checking; a question that is asked just now is not waited for."""
        self._ended.set()

    def _work(self, server: TritonServer, number: int, ended: threading.Event) -> None:
        files = _Files(self._repository, number)
        asked, num_asked = time.monotonic(), 0
        while not ended.wait(_POLL_SECONDS):
            pinned = _pinned(self._repository) or number
            if pinned != number:
                number, files, self.fault = pinned, _Files(self._repository, pinned), ""
                # Its files may have changed since it was staged: the guard is asked as soon as it surely answers.
                asked = time.monotonic() + _FLIP_SECONDS - self._every
                self._health.damaged.set(0)
                server.gate.open()
            if self.fault:
                continue
            fault = files.fault()
            if not fault and self._every and time.monotonic() - asked >= self._every:
                asked, num_asked = time.monotonic(), num_asked + 1
                fault = self._ask_twice(server, number, num_asked)
            if fault and not ended.is_set() and _pinned(self._repository) in (number, None):
                self.fault = f"release {number} is damaged: {fault}"
                self._health.damaged.set(1)
                server.gate.close(f"{self.fault}; roll back, or export it again and start the server anew")

    def _ask_twice(self, server: TritonServer, number: int, turn: int) -> str:
        """What is wrong with the answer to the golden conversation whose turn it is, if it is wrong twice."""
        fault = self._ask(server, number, turn)
        fault = fault and self._ask(server, number, turn)
        self._health.self_checks.labels("failed" if fault else "passed" if fault == "" else "unanswered").inc()
        return fault or ""

    def _ask(self, server: TritonServer, number: int, turn: int) -> str | None:
        """What is wrong with the answer; empty where nothing is, None where there is none."""
        release = _manifest(self._repository, number)
        if release is None or not release.golden:
            return None
        golden = release.golden[turn % len(release.golden)]
        # The routing key makes the request another one to the response cache, which would answer it for ever.
        # Whichever release answers, an early exit has no scores to compare.
        key = f"self-check {time.time_ns()}"
        request = {"messages": msgspec.to_builtins(golden.messages), "routing_key": key, "exact": True}
        tensor = {"name": wire.REQUEST, "shape": [1, 1], "datatype": "BYTES", "data": [json.dumps(request)]}
        body = {"inputs": [tensor], "parameters": {"timeout": int(_ASK_SECONDS * _MICROSECONDS)}}
        try:
            answer = server.private_http.post("/v2/models/guard/infer", body, _ASK_SECONDS)
        except OSError as exc:
            return str(exc).partition(_INTERNAL)[2] or None
        said = verdict.parse(answer["outputs"][0]["data"][0])
        answering = release if said.release == number else _manifest(self._repository, said.release)
        if answering is None:
            return f"release {said.release} answers"
        return golden_check.fault(said, golden_check.matching(answering, golden), answering, said.calibration) or ""


class _Files:
    """The files of a release: whether one was changed in place, which a server that maps them would serve."""

    def __init__(self, model_repository: Path, number: int) -> None:
        self._repository = model_repository
        release = _manifest(model_repository, number)
        self._hashes: Mapping[str, str] = release.files if release else {}
        self._seen = {name: _signature(model_repository / name) for name in self._hashes}

    def fault(self) -> str:
        """What was changed; empty where nothing was. Files are read only where the file system says they changed."""
        for name, expected in self._hashes.items():
            path = self._repository / name
            signature = _signature(path)
            if signature is None or signature == self._seen[name]:
                continue  # a file that is removed stays what it was to those who opened it
            self._seen[name] = signature
            if sha256(path) != expected:
                return f"its file {name} was changed on disk"
        return ""


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _pinned(model_repository: Path) -> int | None:
    try:
        return repository.pinned(model_repository)
    except (VerdictreeError, OSError):
        return None


def _manifest(model_repository: Path, number: int) -> Release | None:
    try:
        return Release.load(model_repository / MARGINALS_MODEL / str(number))
    except VerdictreeError:
        return None
