"""How long a caller waits: deadlines, and the retries that fit into them."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass

from verdictree.text.visible import quoted
from verdictree_client.errors import GuardError, InvalidSettings, Overloaded, ServerUnavailable

_LONGEST = 365 * 24 * 3600.0  # more than that is no deadline, and overflows what counts it in nanoseconds


def seconds(value: float, name: str) -> float:
    """`value`, or InvalidSettings where it is no time from above 0 to a year: no call waits forever."""
    if not isinstance(value, int | float) or not 0 < value <= _LONGEST:
        raise InvalidSettings(
            f"expected {name} in seconds, above 0 and at most a year, got {quoted(value)}; give a number such as 10.0"
        )
    return value


class Deadline:
    """The time left of a deadline, from now on."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def remaining(self) -> float:
        """Seconds left; 0 when the time is over."""
        return max(0.0, self._end - time.monotonic())


@dataclass(frozen=True)
class Retries:
    """When a call is sent again, within its one deadline; classifying is idempotent.

    Retry n (from 0) follows a pause of min(max_backoff, backoff · 2ⁿ) · U seconds, U uniform on [½, 1].
    ServerUnavailable is retried; Overloaded only if `when_overloaded`, since retries add load; nothing else ever is.
    """

    limit: int = 2
    backoff: float = 0.1
    max_backoff: float = 1.0
    when_overloaded: bool = False

    def __post_init__(self) -> None:
        if self.limit < 0:
            raise InvalidSettings(f"expected a limit of 0 or more retries, got {self.limit}; 0 never retries")
        seconds(self.backoff, "backoff")
        seconds(self.max_backoff, "max_backoff")

    def allow(self, error: GuardError, num_retries: int) -> bool:
        """Whether a call that failed with `error` after `num_retries` retries may be sent once more."""
        retryable = (ServerUnavailable, Overloaded) if self.when_overloaded else ServerUnavailable
        return isinstance(error, retryable) and num_retries < self.limit

    def pause(self, num_retries: int) -> float:
        """Seconds to wait before the next retry."""
        return min(self.max_backoff, self.backoff * 2.0 ** min(num_retries, 64)) * random.uniform(0.5, 1.0)
