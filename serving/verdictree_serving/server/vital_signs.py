"""Do a server's processes live? Asked of the kernel, so that no load on the server can change the answer."""

from __future__ import annotations

import time
from collections.abc import Iterable

from verdictree_serving.server.process import TritonProcess

# Triton itself ends the process of a model that it unloads, and waits for it at once.
_SEEN_SECONDS = 0.3
_LOST_SECONDS = 1.0
_STOPPED_SECONDS = 10.0  # somebody may look at it with a debugger


class VitalSigns:
    """Watches one server's processes; what it says rests on having been asked again and again, a few times a second."""

    def __init__(self, process: TritonProcess) -> None:
        self._process = process
        self._dead: dict[int, float] = {}  # model processes that nobody has waited for, since when
        self._stopped: dict[int, float] = {}

    def are_good(self) -> bool:
        """Whether no process is dead or stopped, as far as was seen for some tenths of a second."""
        self._look()
        return not _for_longer((*self._dead.values(), *self._stopped.values()), _SEEN_SECONDS)

    def failure(self) -> str | None:
        """Why the server will not answer again by itself, or None.

        A model's process that died (was killed for want of memory, say) leaves a Triton that goes on with errors only.
        """
        self._look()
        if _for_longer(self._dead.values(), _LOST_SECONDS):
            return "a model's process has died, killed for want of memory perhaps"
        if _for_longer(self._stopped.values(), _STOPPED_SECONDS):
            return f"a process was stopped by a signal and did not go on for {_STOPPED_SECONDS:g} s"
        return None

    def _look(self) -> None:
        now = time.monotonic()
        dead, stopped = self._process.dead_and_stopped()
        self._dead = {pid: self._dead.get(pid, now) for pid in dead}
        self._stopped = {pid: self._stopped.get(pid, now) for pid in stopped}


def _for_longer(since: Iterable[float], seconds: float) -> bool:
    now = time.monotonic()
    return any(now - moment >= seconds for moment in since)
