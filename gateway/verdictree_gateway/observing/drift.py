"""Drift: how far the live scores of a release have moved from those that it gave first.

With p_b the share of bucket b in the reference and q_b that in the window, each plus 0.0005 so that none is empty,

    PSI = Σ_b (q_b − p_b) · log(q_b / p_b)          (population stability index; Siddiqi 2006, Credit Risk Scorecards)

Below 0.1 is commonly read as no change, above 0.25 as another population. Equal populations give about
(B − 1) · (1/N + 1/M) by chance alone, for B buckets in use and N and M verdicts.

There are two references, told apart by a label. `first`: the raw scores of the first 1,000 verdicts that this process
gives of a release, policy and role, for as long as the process lives. `calibration`: the scores of the labelled rows
that the release was calibrated on, as its calibration holds them; live scores are then those that are decided by,
calibrated where they are. Labelled rows are seldom mixed as traffic is, so that index is large from the start where
they are not, and its change is what tells.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import numpy.typing as npt
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from verdictree.policy import UNSAFE
from verdictree.releases.score_counts import ScoreCounts
from verdictree.verdict import Verdict
from verdictree.verdict_metrics import OF_VERDICT, SCORE_BUCKETS

NUM_REFERENCE = 1000
NUM_WINDOW = 1000
NUM_LEAST = 300  # verdicts in a window before it is told of: fewer move by chance
SILENT_SECONDS = 3600.0  # without a verdict, after which a release is told of no more

_EPSILON = 5e-4  # half a verdict of a thousand
_EDGES = np.array(SCORE_BUCKETS)
_NUM_BUCKETS = len(SCORE_BUCKETS) + 1
_BOUNDS = SCORE_BUCKETS[:-1]  # lower ones too, of what a calibration counts
_LABELS = (*OF_VERDICT, "category", "reference", "process")
Counts = npt.NDArray[np.int64]
Calibrated = Callable[[int, str], Mapping[str, ScoreCounts] | None]


def psi(reference: npt.ArrayLike, window: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """PSI of counts by bucket, shape [..., B] both; one number for each row, shape [...]."""
    p, q = (_shares(np.asarray(counts, dtype=np.float64)) for counts in (reference, window))
    return np.asarray(((q - p) * np.log(q / p)).sum(axis=-1))


def _shares(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    smoothed = counts / counts.sum(axis=-1, keepdims=True) + _EPSILON
    return np.asarray(smoothed / smoothed.sum(axis=-1, keepdims=True))


def no_scores(release: int, policy: str) -> None:
    """Of releases whose calibrations are not known here."""


class Drift(Collector):
    """PSI of each category's scores, computed when the metrics are read.

    Scores of several processes are not put together: each has a reference and a window of its own, and a label.
    `calibrated` finds the scores that a policy of a release was calibrated on, by code; None where there are none.
    """

    def __init__(
        self,
        process: str = "0",
        clock: Callable[[], float] = time.monotonic,
        calibrated: Calibrated = no_scores,
    ) -> None:
        self._process, self._clock, self._calibrated = process, clock, calibrated
        self._series: dict[tuple[str, str, str], _Series] = {}

    def seen(self, verdict: Verdict) -> None:
        """Take a verdict's scores into the references, or else into the windows."""
        key = (str(verdict.release), verdict.policy, verdict.role)
        codes = (UNSAFE, *[score.code for score in verdict.categories])
        series = self._series.get(key)
        if series is None or series.codes != codes:
            series = self._series[key] = _Series(codes, self._calibrated(verdict.release, verdict.policy))
        series.add(verdict, self._clock())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauge, for every release, policy and role that has a reference and enough of a window."""
        gauge = GaugeMetricFamily("verdictree_drift_psi", "PSI of scores against a reference.", labels=_LABELS)
        now = self._clock()
        for key, series in self._series.items():
            if now - series.last_seconds >= SILENT_SECONDS:
                continue
            for name, reference, window in series.compared():
                for code, value in zip(series.codes, psi(reference, window), strict=True):
                    gauge.add_metric((*key, code, name, self._process), float(value))
        yield gauge


class _Window:
    """The buckets that the last scores of some categories fell into."""

    def __init__(self, num_codes: int) -> None:
        self._rows = np.arange(num_codes)
        self._ring = np.zeros((NUM_WINDOW, num_codes), np.uint8)
        self.num_seen = 0

    def add(self, buckets: npt.NDArray[np.intp]) -> None:
        self._ring[self.num_seen % NUM_WINDOW] = buckets
        self.num_seen += 1

    def counts(self) -> Counts:
        """How many scores fell into each bucket, shape [categories, buckets]."""
        shape = len(self._rows), _NUM_BUCKETS
        places = self._ring[: min(self.num_seen, NUM_WINDOW)] + _NUM_BUCKETS * self._rows
        return np.asarray(np.bincount(places.ravel(), minlength=shape[0] * shape[1]).reshape(shape))


class _Series:
    """The scores of one release, policy and role: the first ones, and windows of the last."""

    def __init__(self, codes: tuple[str, ...], calibrated: Mapping[str, ScoreCounts] | None) -> None:
        self.codes = codes
        self.reference: Counts = np.zeros((len(codes), _NUM_BUCKETS), np.int64)
        self.last_seconds = 0.0
        self._rows = np.arange(len(codes))
        self._num_seen = 0
        self._raw, self._decided = _Window(len(codes)), _Window(len(codes))
        self._calibration: Counts | None = None
        if calibrated is not None and all(code in calibrated for code in codes):
            rows = [[*calibrated[code].within(_BOUNDS), 0] for code in codes]  # none above 1
            self._calibration = np.array(rows, np.int64)

    def add(self, verdict: Verdict, seconds: float) -> None:
        scores = verdict.categories
        buckets = _EDGES.searchsorted([verdict.p_unsafe, *[score.marginal for score in scores]])  # as `le` has it
        if self._num_seen < NUM_REFERENCE:
            self.reference[self._rows, buckets] += 1
        else:
            self._raw.add(buckets)
        self._num_seen += 1
        self.last_seconds = seconds
        if self._calibration is not None:
            calibrated = verdict.p_unsafe_calibrated
            decided = [verdict.p_unsafe if calibrated is None else calibrated]
            decided += [score.marginal if score.calibrated is None else score.calibrated for score in scores]
            self._decided.add(_EDGES[:-1].searchsorted(decided, side="right"))

    def compared(self) -> Iterator[tuple[str, Counts, Counts]]:
        """Each reference that there is, and its window, where that is long enough: name, counts, counts."""
        if self._raw.num_seen >= NUM_LEAST:
            yield "first", self.reference, self._raw.counts()
        if self._calibration is not None and self._decided.num_seen >= NUM_LEAST:
            yield "calibration", self._calibration, self._decided.counts()
