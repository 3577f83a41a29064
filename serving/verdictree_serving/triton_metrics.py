"""A step's metrics in Triton's own, at its metrics port, for callers who ask Triton directly.

Names begin with `verdictree_triton_`, beside the gateway's `verdictree_`: a verdict that passed a gateway is counted by
both. Histograms are counters with a label `le`, since Triton's own take one observation at a time.

Triton 2.51 crashes where two threads of a step hand on at once. So only `execute` does, which Triton calls from one
thread, and what was counted after the last request waits for the next one.
"""

from __future__ import annotations

import time
import traceback
from typing import Any

import triton_python_backend_utils as pb_utils

from verdictree.verdict import Verdict
from verdictree.verdict_metrics import Metric, observations
from verdictree_serving.tally import Cell, Tally

_PREFIX = "verdictree_triton_"
_SECONDS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_OF_STEP = ("release", "step")
REFUSALS = Metric("refusals", "Requests without a verdict, by step and reason.", (*_OF_STEP, "reason"))
STEP_SECONDS = Metric("step_seconds", "What a step took for a request, computing.", _OF_STEP, _SECONDS)
WAITING_SECONDS = Metric("waiting_seconds", "How long a request waited for a step.", _OF_STEP, _SECONDS)


class StepMetrics:
    """What one step of one release counts. A fault in it is written down once, and never costs a verdict."""

    def __init__(self, release: str, step: str) -> None:
        self._labels = (release, step)
        self._tally = Tally()
        self._families: dict[str, Any] = {}
        self._metrics: dict[tuple[str, tuple[str, ...]], Any] = {}
        self._is_broken = False

    def verdict(self, verdict: Verdict) -> None:
        """Count a verdict."""
        for metric, labels, value in observations(verdict):
            self._tally.add(metric, labels, value)

    def refused(self, reason: str) -> None:
        """Count a request without a verdict; `reason` is one of the gateway's outcomes."""
        self._tally.add(REFUSALS, (*self._labels, reason))

    def computed(self, seconds: float) -> None:
        """Count what the step took for a request."""
        self._tally.add(STEP_SECONDS, self._labels, seconds)

    def waited(self, since: float) -> None:
        """Count how long a request waited, since a time of `time.perf_counter`."""
        self._tally.add(WAITING_SECONDS, self._labels, time.perf_counter() - since)

    def hand_on(self, everything: bool = False) -> None:
        """Hand on to Triton what there is time for. From `execute` alone, or after it."""
        if self._is_broken:
            return
        try:
            self._tally.hand_on(self._increment, everything)
        except Exception:
            self._is_broken = True
            pb_utils.Logger.log_error(f"metrics of {self._labels} end here: {traceback.format_exc()}")

    def close(self) -> None:
        """Take the series out of Triton's metrics: first they, then what they are of."""
        self._is_broken = True
        self._metrics.clear()
        self._families.clear()

    def _increment(self, cell: Cell, value: float) -> None:
        name, label_names, labels = cell
        metric = self._metrics.get((name, labels))
        if metric is None:
            metric = self._family(name).Metric(labels=dict(zip(label_names, labels, strict=True)))
            self._metrics[name, labels] = metric
        if value:
            metric.increment(float(value))

    def _family(self, name: str) -> Any:
        family = self._families.get(name)
        if family is None:
            kind = pb_utils.MetricFamily.COUNTER
            family = pb_utils.MetricFamily(name=_PREFIX + name, description="See docs/observability.md.", kind=kind)
            self._families[name] = family
        return family
