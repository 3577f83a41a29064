"""The figures of a comparison, each with its central 95 % interval.

Shares (agreement, flips, failures) have Wilson's interval for a binomial share; the others the percentile interval of
a paired bootstrap over conversations.

PSI (population stability index) = Σ_b (q_b − p_b) ln(q_b / p_b) over bins b with the share p_b of the live release's
scores and q_b of the candidate's. Bins are the deciles of the live scores, those that differ; half a conversation is
added to each bin, so that an empty one is not infinite. KS (Kolmogorov, Smirnov) = the largest difference between the
two distribution functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from scipy import stats

from verdictree_comparison.arrays import Bools, Floats

NUM_BINS = 10
NUM_RESAMPLES = 300
_SEED = 0


class Figure(msgspec.Struct, frozen=True):
    """A number and the interval that it is known to; both ends are the number where nothing varies."""

    value: float
    low: float
    high: float


def share(flags: Bools) -> Figure:
    """The share of True in `flags` (n,)."""
    count, total = int(np.sum(flags)), len(flags)
    interval = stats.binomtest(count, total).proportion_ci(method="wilson")
    return Figure(count / total, float(interval.low), float(interval.high))


def psi(live: Floats, candidate: Floats) -> Figure:
    """PSI of the candidate's scores against the live ones, both (n,)."""
    edges = np.unique(np.quantile(live, np.linspace(0, 1, NUM_BINS + 1)[1:-1]))

    def shares(scores: Floats) -> Floats:
        # side="left" puts a score that equals an edge below it: a mass point is one bin, not half of two.
        bins = np.searchsorted(edges, scores, side="left")
        counts = np.apply_along_axis(np.bincount, -1, bins, minlength=len(edges) + 1)
        return np.asarray((counts + 0.5) / (scores.shape[-1] + 0.5 * (len(edges) + 1)))

    def statistic(live: Floats, candidate: Floats, axis: int = -1) -> Floats:
        p, q = shares(np.moveaxis(live, axis, -1)), shares(np.moveaxis(candidate, axis, -1))
        return np.asarray(np.sum((q - p) * np.log(q / p), axis=-1))

    return _bootstrapped(statistic, live, candidate, vectorized=True)


def ks(live: Floats, candidate: Floats) -> Figure:
    """The Kolmogorov–Smirnov distance between the scores of the two, both (n,)."""

    def statistic(live: Floats, candidate: Floats) -> float:
        return float(stats.ks_2samp(live, candidate, method="asymp").statistic)

    return _bootstrapped(statistic, live, candidate, vectorized=False)


def mean_abs_difference(live: Floats, candidate: Floats) -> Figure:
    """mean |Δp| over the conversations; both (n,)."""

    def statistic(live: Floats, candidate: Floats, axis: int = -1) -> Floats:
        return np.asarray(np.mean(np.abs(candidate - live), axis=axis))

    return _bootstrapped(statistic, live, candidate, vectorized=True)


def latency_ratio(live_ms: Floats, candidate_ms: Floats) -> Figure:
    """The candidate's median latency over the live release's; both (n,)."""

    def statistic(live: Floats, candidate: Floats, axis: int = -1) -> Floats:
        return np.asarray(np.median(candidate, axis=axis) / np.median(live, axis=axis))

    return _bootstrapped(statistic, live_ms, candidate_ms, vectorized=True)


def _bootstrapped(
    statistic: Callable[..., Any], live: npt.NDArray[Any], candidate: npt.NDArray[Any], *, vectorized: bool
) -> Figure:
    value = float(statistic(live, candidate))
    if len(live) < 2 or np.array_equal(live, candidate):
        return Figure(value, value, value)
    resampled = stats.bootstrap(
        (live, candidate),
        statistic,
        n_resamples=NUM_RESAMPLES,
        batch=50,
        vectorized=vectorized,
        paired=True,
        method="percentile",
        rng=np.random.default_rng(_SEED),
    )
    low, high = resampled.confidence_interval
    # Rows that a resample repeats move a distance away from 0, so its interval can miss the figure: it is widened.
    return Figure(value, min(float(low), value), max(float(high), value))
