"""Below which log-odds conversations leave, proven: of those that must not, at most a share α does.

For each threshold λ of a sequence that is fixed beforehand, from the most careful on, the hypothesis "more than α of
the alerts leave" is tested by the number m of n alerts that do, p(λ) = P(Binomial(n, α) ≤ m). The last threshold before
the first that cannot be rejected at level δ is taken: with probability 1 − δ no more than α leaves there ("learn then
test" by fixed-sequence testing, Angelopoulos et al., arXiv 2110.01052, sections 2 and 4).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats

from verdictree.releases.early_exit import ExitBound

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

COVERAGE = 0.99
"""Of conversations that left, what share has P(unsafe) within its bound: a split-conformal quantile, group by group
(Vovk et al., "Algorithmic Learning in a Random World", 2005; arXiv 2107.07511, section 4.1)."""

_LEAST_IN_GROUP = math.ceil(1 / (1 - COVERAGE))  # fewer have no such quantile
_MAX_GROUPS = 10


def alerts_needed(max_missed: float, confidence: float) -> int:
    """The least number of alerts by which anything can be proven: of so many none may leave."""
    return math.ceil(math.log(1 - confidence) / math.log1p(-max_missed))


def proven_threshold(
    log_odds: Array, alert: Flags, candidates: Sequence[float], max_missed: float, confidence: float
) -> float | None:
    """The last of the rising `candidates` for which "at most `max_missed` of the alerts lie below" is proven.

    `log_odds` and `alert` (n,) are of conversations that neither the probe nor the candidates were made from. None
    where not even the first is proven.
    """
    alerts, proven = np.sort(log_odds[alert]), None
    for candidate in candidates:
        missed = int(np.searchsorted(alerts, candidate, side="left"))
        if not stats.binom.cdf(missed, len(alerts), max_missed) <= 1 - confidence:
            break
        proven = candidate
    return proven


def upper_limit(count: int, of: int, confidence: float) -> float:
    """The upper limit of a share of which `count` of `of` were seen (Clopper and Pearson, one-sided)."""
    return 1.0 if count >= of else float(stats.beta.ppf(confidence, count + 1, of - count))


def bounds(log_odds: Array, top: Array, threshold: float) -> tuple[ExitBound, ...]:
    """Limits of P(unsafe) by the log-odds below `threshold`, rising with them.

    The conversations that leave are grouped by their log-odds, in groups of a hundred or more; a group's limit is the
    quantile by which `COVERAGE` of new ones lie below it. Where fewer leave, all that is said is 1.
    """
    leaving = log_odds < threshold
    order = np.argsort(log_odds[leaving], kind="stable")
    odds, tops = log_odds[leaving][order], top[leaving][order]
    groups = min(_MAX_GROUPS, len(odds) // _LEAST_IN_GROUP)
    if not groups:
        return (ExitBound(threshold, 1.0),)
    found, largest = [], 0.0
    for rows in np.array_split(np.arange(len(odds)), groups):
        rank = math.ceil(COVERAGE * (len(rows) + 1))
        largest = max(largest, float(np.sort(tops[rows])[min(rank, len(rows)) - 1]))
        found.append(ExitBound(float(odds[rows[-1]]), min(largest, 1.0)))
    return (*found[:-1], ExitBound(threshold, found[-1].p_unsafe))
