"""Records what the candidate of a rollout says, beside the live traffic and never in its way."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable
from pathlib import Path

import msgspec

from verdictree.pair import Pair

MAX_WAITING = 64
_PATIENCE = 10.0  # seconds that a stop waits for what is still to be recorded


class ShadowLog:
    """One thread that asks the candidate and appends to a file; what does not fit into its queue is dropped, counted.

    One thread, so that the candidate takes at most one request's share of the machine from the live traffic. The file
    is readable by its owner only: it quotes what users wrote. Several servers may append to one file.
    """

    def __init__(self, path: Path, max_waiting: int = MAX_WAITING) -> None:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._waiting: queue.Queue[Callable[[], Pair] | None] = queue.Queue(max_waiting)
        self._num_dropped = 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)
        self._thread.start()

    def offer(self, work: Callable[[], Pair]) -> None:
        """Have a pair made and recorded some time, or drop it; returns at once."""
        try:
            self._waiting.put_nowait(work)
        except queue.Full:
            self._drop()

    def record(self, pair: Pair) -> None:
        """Append a pair; one that the file system refuses counts as dropped."""
        line = msgspec.json.encode(msgspec.structs.replace(pair, num_dropped=self._num_dropped)) + b"\n"
        try:
            os.write(self._file, line)  # one call a line, so that lines of several writers do not mix
        except OSError:
            self._drop()

    def close(self) -> None:
        """Record what waits, for a few seconds at most, and stop."""
        self._waiting.put(None)
        self._thread.join(_PATIENCE)
        if not self._thread.is_alive():
            os.close(self._file)

    def _work(self) -> None:
        while (work := self._waiting.get()) is not None:
            try:
                pair = work()
            except Exception:  # whatever the candidate answered, the next request's shadow must go on
                self._drop()
            else:
                self.record(pair)

    def _drop(self) -> None:
        with self._lock:
            self._num_dropped += 1
