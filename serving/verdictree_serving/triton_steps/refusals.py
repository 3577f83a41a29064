"""Refusals that cost the refused: whoever sends what cannot be answered waits, so that others need not."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable

_FACTOR = 20.0  # of the time that a refused request took: refusals get a twentieth of one core, together
_SECONDS_A_BYTE = 5e-9  # what a request took before it came here: read from the network, copied twice
_MAX_DELAY_SECONDS = 1.0
_MAX_WAITING = 256  # requests that are held in memory


class Refusals:
    """Sends refusals, one after another, each later by `_FACTOR` times what it cost.

    A client that sends one refusable request after another is slowed to a rate that takes nothing from the others; one
    that is refused once hardly notices.
    """

    def __init__(self) -> None:
        self._waiting: list[tuple[float, int, Callable[[], None]]] = []
        self._free_at = 0.0
        self._num_offered = 0
        self._ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="refusals", daemon=True)
        self._thread.start()

    def offer(self, send: Callable[[], None], seconds: float, num_bytes: int) -> None:
        """Have `send` called once a request of `num_bytes`, which took `seconds`, has waited for what it cost."""
        now = time.monotonic()
        with self._changed:
            cost = seconds + num_bytes * _SECONDS_A_BYTE
            self._free_at = min(max(self._free_at, now) + _FACTOR * cost, now + _MAX_DELAY_SECONDS)
            if len(self._waiting) < _MAX_WAITING and not self._ended:
                self._num_offered += 1  # keeps the heap from comparing functions
                heapq.heappush(self._waiting, (self._free_at, self._num_offered, send))
                self._changed.notify()
                return
        send()

    def close(self) -> None:
        """Send at once what waits."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._ended:
                    self._changed.wait()
                if not self._waiting:
                    return
                pause = self._waiting[0][0] - time.monotonic()
                if pause > 0 and not self._ended:
                    self._changed.wait(pause)
                    continue
                send = heapq.heappop(self._waiting)[2]
            send()
