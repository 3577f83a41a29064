"""Who runs next: short requests, and the windows of long ones, which are many runs.

Long requests follow one another, so of the runs side by side at most one is theirs, and it computes as much as for any
other request. Between two windows whoever waits has a turn.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from numpy.typing import NDArray

from verdictree.runtime.windows import side_by_side
from verdictree_serving.errors import InferenceFailed, Overloaded
from verdictree_serving.onnxruntime_backend.backend import OnnxModel, Tensors

Answer = Callable[[dict[str, NDArray[Any]] | InferenceFailed], None]
_MAX_WAITING = 8  # each may be many runs: who comes later would wait in vain
_PAUSE_SECONDS = 0.002  # in which Triton hands over who waits there


class Turns:
    """So many runs side by side; who waits for one first is next."""

    def __init__(self, runs: int) -> None:
        self._free = threading.Semaphore(runs)
        self._door = threading.Lock()  # held while waiting: who has just finished cannot overtake who waits

    def take(self) -> None:
        """Wait for a free run, and take it."""
        with self._door:
            self._free.acquire()

    def give(self) -> None:
        """Let another one run."""
        self._free.release()


class LongLane:
    """Runs long requests, one after another, a window or a few at a time."""

    def __init__(self, model: OnnxModel, turns: Turns) -> None:
        self._model, self._turns = model, turns
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="long")
        self._free = threading.Semaphore(_MAX_WAITING)

    def offer(self, windows: Sequence[Tensors], seconds: float, answer: Answer) -> None:
        """Have `answer` called once, with the outputs of all windows side by side or with why there are none.

        `seconds` is how long the request may wait for those before it; 0 as long as it takes.
        """
        if self._free.acquire(blocking=False):
            self._thread.submit(self._work, windows, time.monotonic() + (seconds or float("inf")), answer)
        else:
            answer(Overloaded(f"Exceeds maximum queue size: {_MAX_WAITING} conversations of several windows wait"))

    def close(self) -> None:
        """Answer what was taken."""
        self._thread.shutdown()

    def _work(self, windows: Sequence[Tensors], until: float, answer: Answer) -> None:
        try:
            if time.monotonic() > until:
                answer(Overloaded("Request timeout expired behind other conversations of several windows"))
            else:
                answer(self._outputs(windows))
        finally:
            self._free.release()

    def _outputs(self, windows: Sequence[Tensors]) -> dict[str, NDArray[Any]] | InferenceFailed:
        parts: list[dict[str, NDArray[Any]]] = []
        for start in range(0, len(windows), self._model.windows_at_once):
            for result in self._run(windows[start : start + self._model.windows_at_once]):
                if isinstance(result, InferenceFailed):
                    return result
                parts.append(result)
        return dict(zip(parts[0], side_by_side([list(part.values()) for part in parts]), strict=True))

    def _run(self, windows: Sequence[Tensors]) -> list[dict[str, NDArray[Any]] | InferenceFailed]:
        self._turns.take()
        try:
            return self._model.run(windows)
        finally:
            self._turns.give()
            time.sleep(_PAUSE_SECONDS)
