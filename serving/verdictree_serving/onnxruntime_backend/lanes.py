"""Who runs next: short requests, and the windows of long ones, which are many runs.

Long requests follow one another, so of the runs side by side at most one is theirs, and it computes as much as for any
other request. Between two windows whoever waits has a turn.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from numpy.typing import NDArray

from verdictree.runtime.windows import side_by_side
from verdictree_serving.errors import InferenceFailed, Overloaded
from verdictree_serving.onnxruntime_backend.backend import OnnxModel, Tensors
from verdictree_serving.waiting_line import Limits, WaitingLine

Answer = Callable[[dict[str, NDArray[Any]] | InferenceFailed], None]
_MAX_WAITING = 8  # each may be many runs: who comes later would wait in vain


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
    """Runs long requests, one after another, a window or a few at a time; each waits `seconds` for its turn at most."""

    def __init__(self, model: OnnxModel, turns: Turns, seconds: float) -> None:
        self._model, self._turns = model, turns
        self._line = WaitingLine[tuple[Sequence[Tensors], Answer]](Limits(_MAX_WAITING, seconds), _refuse)
        self._thread = threading.Thread(target=self._work, name="long")
        self._thread.start()

    def offer(self, windows: Sequence[Tensors], seconds: float, answer: Answer) -> None:
        """Have `answer` called once, with the outputs of all windows side by side or with why there are none.

        `seconds` is how long the request may wait for those before it, where that is shorter; 0 says nothing.
        """
        self._line.join((windows, answer), seconds)

    def close(self) -> None:
        """Answer what was taken."""
        self._line.close()
        self._thread.join()

    def _work(self) -> None:
        while self._line.wait():
            for windows, answer in self._line.take():
                answer(self._outputs(windows))

    def _outputs(self, windows: Sequence[Tensors]) -> dict[str, NDArray[Any]] | InferenceFailed:
        parts: list[dict[str, NDArray[Any]]] = []
        for start in range(0, len(windows), self._model.requests_at_once):
            for result in self._run(windows[start : start + self._model.requests_at_once]):
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


def _refuse(asked: tuple[Sequence[Tensors], Answer], why: str) -> None:
    asked[1](Overloaded(why))
