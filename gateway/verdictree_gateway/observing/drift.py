"""Drift: how far the live scores of a release have moved from those that it gave first.

With p_b the share of bucket b in the reference and q_b that in the window, each plus 0.0005 so that none is empty,

    PSI = Σ_b (q_b − p_b) · log(q_b / p_b)          (population stability index; Siddiqi 2006, Credit Risk Scorecards)

Below 0.1 is commonly read as no change, above 0.25 as another population. Equal populations give about
(B − 1) · (1/N + 1/M) by chance alone, for B buckets in use and N and M verdicts.

A release's calibration holds no distribution of scores. So the reference is the first 1,000 verdicts that this process
gives of a release, policy and role, and lasts as long as the process: traffic that was already another when it started
is what later traffic is compared with.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from verdictree.policy import UNSAFE
from verdictree.verdict import Verdict

# Upper bounds of a score's buckets, in histograms and here.
SCORE_BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97, 0.99, 1.0)
NUM_REFERENCE = 1000
NUM_WINDOW = 1000
NUM_LEAST = 300  # verdicts in a window before it is told of: fewer move by chance
SILENT_SECONDS = 3600.0  # without a verdict, after which a release is told of no more

_EPSILON = 5e-4  # half a verdict of a thousand
_EDGES = np.array(SCORE_BUCKETS)
_NUM_BUCKETS = len(SCORE_BUCKETS) + 1
_LABELS = ("release", "policy", "role", "category", "process")
Counts = npt.NDArray[np.int64]


def psi(reference: npt.ArrayLike, window: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """PSI of counts by bucket, shape [..., B] both; one number for each row, shape [...]."""
    p, q = (_shares(np.asarray(counts, dtype=np.float64)) for counts in (reference, window))
    return np.asarray(((q - p) * np.log(q / p)).sum(axis=-1))


def _shares(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    smoothed = counts / counts.sum(axis=-1, keepdims=True) + _EPSILON
    return np.asarray(smoothed / smoothed.sum(axis=-1, keepdims=True))


class Drift(Collector):
    """PSI of each category's raw scores, computed when the metrics are read.

    Scores of several processes are not put together: each has a reference and a window of its own, and a label.
    """

    def __init__(self, process: str = "0", clock: Callable[[], float] = time.monotonic) -> None:
        self._process, self._clock = process, clock
        self._series: dict[tuple[str, str, str], _Series] = {}

    def seen(self, verdict: Verdict) -> None:
        """Take a verdict's scores into the reference, or else into the window."""
        key = (str(verdict.release), verdict.policy, verdict.role)
        codes = (UNSAFE, *[score.code for score in verdict.categories])
        series = self._series.get(key)
        if series is None or series.codes != codes:
            series = self._series[key] = _Series(codes)
        series.add([verdict.p_unsafe, *[score.marginal for score in verdict.categories]], self._clock())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauge, for every release, policy and role that has a reference and enough of a window."""
        gauge = GaugeMetricFamily("verdictree_drift_psi", "PSI of raw scores against the first ones.", labels=_LABELS)
        now = self._clock()
        for key, series in self._series.items():
            if series.num_in_window >= NUM_LEAST and now - series.last_seconds < SILENT_SECONDS:
                for code, value in zip(series.codes, psi(series.reference, series.window()), strict=True):
                    gauge.add_metric((*key, code, self._process), float(value))
        yield gauge


class _Series:
    """The buckets that the scores of one release, policy and role fell into: first the reference, then a ring."""

    def __init__(self, codes: tuple[str, ...]) -> None:
        self.codes = codes
        self.reference: Counts = np.zeros((len(codes), _NUM_BUCKETS), np.int64)
        self.last_seconds = 0.0
        self._rows = np.arange(len(codes))
        self._ring = np.zeros((NUM_WINDOW, len(codes)), np.uint8)
        self._num_seen = 0

    @property
    def num_in_window(self) -> int:
        return min(max(0, self._num_seen - NUM_REFERENCE), NUM_WINDOW)

    def add(self, scores: list[float], seconds: float) -> None:
        buckets = _EDGES.searchsorted(scores)  # the first whose upper bound is not below the score
        if self._num_seen < NUM_REFERENCE:
            self.reference[self._rows, buckets] += 1
        else:
            self._ring[(self._num_seen - NUM_REFERENCE) % NUM_WINDOW] = buckets
        self._num_seen += 1
        self.last_seconds = seconds

    def window(self) -> Counts:
        """How many scores fell into each bucket, shape [categories, buckets]."""
        places = self._ring[: self.num_in_window] + _NUM_BUCKETS * self._rows
        counts = np.bincount(places.ravel(), minlength=self.reference.size)
        return np.asarray(counts.reshape(self.reference.shape))
