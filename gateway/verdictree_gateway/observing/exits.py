"""The early exit, watched: a share of what left is judged in full after its answer; if too much is missed, exits end.

    of requests that left    checked k, of them alerts in full m: a share m / k was missed
    of all alerts            missed share = m/k · left / (m/k · left + alerts among those that stayed)

What is missed of all alerts is what a release's rule was proven for (`releases.early_exit`), on other conversations:
traffic of another kind shows here first. When even the lower limit of the missed share is above what is allowed, every
request is judged in full from then on, until the gateway is started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry, Counter, Gauge

from verdictree.conversation import Conversation
from verdictree.errors import VerdictreeError
from verdictree.releases import repository as repositories
from verdictree.releases.decision import is_alert
from verdictree.releases.journal import Journal
from verdictree.verdict import Verdict
from verdictree_gateway.refused import Refused
from verdictree_gateway.settings import Settings

_SECONDS = 30.0  # for an answer that nobody waits for
_MOST_AT_ONCE = 4
_NORMAL_QUANTILE = 1.645  # one-sided, 95 %
_LOOK_SECONDS = 1.0
log = logging.getLogger("verdictree.exits")

Ask = Callable[[Conversation, float], Awaitable[tuple[Verdict, bytes]]]


class Exits:
    """What is known of the early exits of one gateway process."""

    def __init__(
        self, settings: Settings, ask: Ask, registry: CollectorRegistry, switch: Path, process: str = "0"
    ) -> None:
        """`switch` is a file that all processes share: exits are off while it is there."""
        self._settings, self._ask, self._switch, self._process = settings, ask, switch, process
        self._random = random.Random()
        self._tasks: set[asyncio.Task[None]] = set()
        self._left = self._checked = self._missed = self._alerts = 0
        self._is_off, self._looked = False, -math.inf
        names = ("agreed", "missed", "unanswered")
        checks = Counter("verdictree_exit_checks", "Early exits judged in full.", ["outcome"], registry=registry)
        self._checks = {name: checks.labels(name) for name in names}
        self._share = Gauge(
            "verdictree_exit_missed_share",
            "Of all alerts, what share left early.",
            ["process", "limit"],
            registry=registry,
        )
        self._off = Gauge("verdictree_exit_off", "Whether early exits are switched off.", registry=registry)

    def asked(self, conversation: Conversation) -> Conversation:
        """The conversation as the guard is to judge it: in full while exits are off."""
        return msgspec.structs.replace(conversation, exact=True) if self.is_off else conversation

    @property
    def is_off(self) -> bool:
        """Whether this process, or another, has switched exits off."""
        now = time.monotonic()
        if not self._is_off and now > self._looked + _LOOK_SECONDS:
            self._looked, self._is_off = now, self._switch.exists()
            self._off.set(self._is_off)
        return self._is_off

    def answered(self, conversation: Conversation, verdict: Verdict) -> None:
        """Count a verdict, and have some of those that left judged in full."""
        if verdict.exit_layer is None:
            self._alerts += is_alert(verdict)
            return
        self._left += 1
        if len(self._tasks) < _MOST_AT_ONCE and self._random.random() < self._settings.exit_check_share:
            task = asyncio.get_running_loop().create_task(self._check(conversation))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _check(self, conversation: Conversation) -> None:
        try:
            verdict, _ = await self._ask(msgspec.structs.replace(conversation, exact=True), _SECONDS)
        except Refused:
            self._checks["unanswered"].inc()
            return
        self._checked += 1
        self._missed += is_alert(verdict)
        self._checks["missed" if is_alert(verdict) else "agreed"].inc()
        low, high = wilson(self._missed, self._checked)
        shares = {"lower": low, "estimate": self._missed / self._checked, "upper": high}
        for name, share in shares.items():
            self._share.labels(self._process, name).set(self._of_alerts(share))
        if self._of_alerts(low) > self._settings.exit_max_missed and not self.is_off:
            await asyncio.to_thread(self._end, self._of_alerts(low))

    def _of_alerts(self, share: float) -> float:
        missed = share * self._left
        return missed / (missed + self._alerts) if missed else 0.0

    def _end(self, low: float) -> None:
        """Switch exits off, here and in the other processes, and write down why."""
        self._is_off = True
        self._off.set(1)
        why = f"at least {low:.2%} of alerts left early, {self._settings.exit_max_missed:.2%} are allowed"
        log.error("early exits are switched off: %s; every request is judged in full", why)
        with contextlib.suppress(OSError):
            self._switch.touch()
        if self._settings.repository is not None:
            repository = Path(self._settings.repository)
            with contextlib.suppress(VerdictreeError, OSError):  # the journal may be locked, or the disk full
                journal, stable = Journal(repository, "gateway"), repositories.pinned(repository)
                with journal.lock("early-exit off"):
                    journal.write("early-exit off", "done", stable=stable, reason=why)


def wilson(count: int, of: int) -> tuple[float, float]:
    """Lower and upper limit of a share of which `count` of `of` were seen, each with 95 % confidence (Wilson, 1927)."""
    z, share = _NORMAL_QUANTILE, count / of
    middle, spread = share + z * z / (2 * of), z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    scale = 1 + z * z / of
    return max(0.0, (middle - spread) / scale) if count else 0.0, min(1.0, (middle + spread) / scale)
