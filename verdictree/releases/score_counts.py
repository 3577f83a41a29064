"""How the scores of labelled rows are spread: counts by bucket, from which every threshold's outcome follows.

A calibration keeps them for who looks for another threshold, and for who compares live scores with those that it was
fitted on. They hold no text, and no row's score.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import msgspec
import numpy as np
import numpy.typing as npt

# Lower bounds of buckets, those of every score: the edges of its own counts hold its threshold too.
EDGES = (0.0, 0.001, 0.003, *(number / 100 for number in range(1, 100)), 0.995, 0.999)


class ScoreCounts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many rows that have, and have not, what a score is of, fall into each bucket.

    Bucket i holds edges[i] ≤ score < edges[i + 1], the last one all above. So a score that reaches edges[i] as its
    threshold is in bucket i or a later one.
    """

    edges: tuple[float, ...]
    positives: tuple[int, ...]
    negatives: tuple[int, ...]

    @classmethod
    def of(cls, scores: npt.ArrayLike, truth: npt.ArrayLike, threshold: float = 0.0) -> Self:
        """Count `scores` (n,), in [0, 1], of rows for which `truth` (n,) says whether they have it.

        One bucket begins at `threshold`: calibrated scores may be crowded around it, between two EDGES.
        """
        edges = sorted({*EDGES, threshold} if 0 <= threshold <= 1 else EDGES)
        buckets = np.searchsorted(edges, np.asarray(scores, dtype=np.float64), side="right") - 1
        has_it = np.asarray(truth, dtype=bool)
        positives, negatives = (np.bincount(buckets[part], minlength=len(edges)) for part in (has_it, ~has_it))
        return cls(tuple(edges), tuple(positives.tolist()), tuple(negatives.tolist()))

    def fault(self, num_positives: int, num_negatives: int) -> str | None:
        """Why these are not the counts of so many rows, or None."""
        if not set(EDGES) <= set(self.edges) or min(np.diff(self.edges)) <= 0:
            return "the edges do not increase, or not all are there"
        for counts, expected in ((self.positives, num_positives), (self.negatives, num_negatives)):
            if len(counts) != len(self.edges) or min(counts) < 0 or sum(counts) != expected:
                got = f"{sum(counts)} in {len(counts)}"
                return f"expected counts of {expected} rows in {len(self.edges)} buckets, got {got}"
        return None

    def within(self, bounds: Sequence[float]) -> npt.NDArray[np.int64]:
        """Counts of all rows between `bounds`, which are of EDGES and increase: shape [bounds + 1], by lower bound."""
        places = np.searchsorted(bounds, self.edges, side="right")
        both = np.add(self.positives, self.negatives)
        return np.bincount(places, weights=both, minlength=len(bounds) + 1).astype(np.int64)
