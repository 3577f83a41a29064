"""The line in which requests wait for a step: bounded in number and in time, so that nobody waits in vain.

Triton's own queues are bounded by a `default_queue_policy`. But a model with one is handed its next batch only when
another request arrives, or after half a second (`WaitForPayloadSlotAvailable` in Triton's dynamic batcher). So of two
requests at once the second may lie idle, and a full queue, which takes no more, is emptied by one batch a half second.
The steps have no such policy. They take every request as it comes, and let it wait here.

A request that the graph's line would refuse need not be encoded first: while that line is full, a gate before the first
step is closed. It opens again once a quarter of the line is free.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Self, TypeVar

from verdictree_serving.errors import InvalidModelConfig
from verdictree_serving.gate import Gate

Item = TypeVar("Item")

_OPEN_AGAIN = 0.75
SIZE, SECONDS = "queue_size", "queue_seconds"  # `parameters` of a config.pbtxt


@dataclass(frozen=True)
class Limits:
    """How many may wait, and how many seconds each."""

    size: int = 64
    seconds: float = 3.75

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Self:
        """Those in the `parameters` of Triton's JSON configuration; InvalidModelConfig for what is no number."""
        values = {key: value["string_value"] for key, value in config.get("parameters", {}).items()}
        try:
            limits = cls(int(values.get(SIZE, cls.size)), float(values.get(SECONDS, cls.seconds)))
        except ValueError as exc:
            raise InvalidModelConfig(f"{exc} in parameter {SIZE} or {SECONDS}; expected a number") from exc
        if limits.size < 1 or not limits.seconds > 0:
            raise InvalidModelConfig(f"expected {SIZE} and {SECONDS} above 0, got {limits.size} and {limits.seconds}")
        return limits


class WaitingLine(Generic[Item]):
    """First come, first served. `refuse(item, why)` is called with each that finds no room, or waited too long."""

    def __init__(self, limits: Limits, refuse: Callable[[Item, str], None], gate: Gate | None = None) -> None:
        """`gate` is closed while there is no room."""
        self._limits, self._refuse, self._gate = limits, refuse, gate or Gate(None)
        self._gate.open()
        self._gate_closed = False
        self._waiting: deque[tuple[float, Item]] = deque()
        self._changed = threading.Condition()
        self._closed = self._has_served = False

    def join(self, item: Item, seconds: float = 0.0) -> None:
        """Let `item` wait for `seconds` at most, where that is shorter than the line's own limit; 0: as that says."""
        until = time.monotonic() + min(seconds or self._limits.seconds, self._limits.seconds)
        with self._changed:
            expired = self._expired() if len(self._waiting) == self._limits.size else []
            if room := len(self._waiting) < self._limits.size:
                self._waiting.append((until, item))
                self._changed.notify()
            self._work_gate()
        self._refuse_late(expired)
        if not room:
            self._refuse(item, _full(self._limits.size))

    def wait(self) -> bool:
        """Return once somebody waits; False once nobody does and nobody will."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closed)
            return bool(self._waiting)

    def take(self, most: int = 1) -> list[Item]:
        """Those whose turn it is; none where another worker was faster, or all had waited too long."""
        with self._changed:
            expired = self._expired()
            taken = [self._waiting.popleft()[1] for _ in range(min(most, len(self._waiting)))]
            self._has_served = True
            self._work_gate()
        self._refuse_late(expired)
        return taken

    def close(self) -> None:
        """Let `wait` end once those who wait have been taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _expired(self) -> list[Item]:
        if not self._has_served:  # that is Triton's warm-up, and Triton may not survive its refusal
            return []
        now = time.monotonic()
        late = [item for until, item in self._waiting if until < now]
        if late:
            self._waiting = deque(entry for entry in self._waiting if entry[0] >= now)
        return late

    def _work_gate(self) -> None:
        with contextlib.suppress(OSError):  # a full disk: then requests are refused where they find no room
            if len(self._waiting) == self._limits.size and not self._gate_closed:
                self._gate.close(_full(self._limits.size))
                self._gate_closed = True
            elif len(self._waiting) <= _OPEN_AGAIN * self._limits.size and self._gate_closed:
                self._gate.open()
                self._gate_closed = False

    def _refuse_late(self, items: list[Item]) -> None:
        for item in items:
            self._refuse(item, "Request timeout expired")


def _full(size: int) -> str:
    return f"Exceeds maximum queue size: {size} requests wait"
