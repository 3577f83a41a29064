"""What is flagged: the one decision, as the server, an evaluation and a comparison take it.

    score     the calibrated marginal, or the raw one where nothing calibrates it or the policy says `calibrated: false`
    threshold the policy's own for the category, or else the fitted one; none where there is neither
    flagged   score ≥ threshold

An answer is flagged where any category is, or P(unsafe) reaches its own threshold, and where it is undecided.
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from verdictree.conversation import Role
from verdictree.policy import Policy
from verdictree.releases.calibration import Array, Calibration
from verdictree.verdict import Verdict

Flags = npt.NDArray[np.bool_]
DEFAULT_THRESHOLD = 0.2  # of a score that nothing sets a threshold for: that of arXiv 2511.22312


class Decision:
    """How the verdicts of one policy are calibrated and flagged."""

    def __init__(self, policy: Policy, calibration: Calibration | None = None, role: Role | None = None) -> None:
        """With a `role`, that of verdicts on its messages: of the categories that are asked about in them."""
        every = (None,) * len(policy.categories) if calibration is None else calibration.categories
        pairs = [
            (category, outcome)
            for category, outcome in zip(policy.categories, every, strict=True)
            if role is None or role in category.roles
        ]
        self._calibration = calibration
        self._fitted = [outcome for _, outcome in pairs]
        self._is_calibrated = [calibration is not None and category.calibrated for category, _ in pairs]
        self.thresholds: tuple[float | None, ...] = tuple(
            category.threshold if category.threshold is not None or outcome is None else outcome.threshold
            for category, outcome in pairs
        )
        self._limits = np.array([np.inf if threshold is None else threshold for threshold in self.thresholds])

    def scores(self, marginal: npt.ArrayLike) -> Array:
        """What the categories are judged by, of raw marginals (…, categories)."""
        raw = np.array(marginal, dtype=np.float64)
        for column, outcome in enumerate(self._fitted):
            if outcome is not None and self._is_calibrated[column]:
                raw[..., column] = outcome.calibrator(raw[..., column])
        return raw

    def flags(self, scores: npt.ArrayLike) -> Flags:
        """Which `scores` (…, categories) are flagged; a category without a threshold never is."""
        return np.asarray(np.asarray(scores) >= self._limits)

    def applied(self, verdict: Verdict) -> Verdict:
        """A raw verdict with its calibrated scores and flags."""
        scores = self.scores([score.marginal for score in verdict.categories])
        flags = self.flags(scores)
        categories = tuple(
            msgspec.structs.replace(
                score,
                calibrated=float(scores[i]) if self._is_calibrated[i] else None,
                flagged=None if self.thresholds[i] is None else bool(flags[i]),
            )
            for i, score in enumerate(verdict.categories)
        )
        known = [score.flagged for score in categories if score.flagged is not None]
        if verdict.undecided:
            known.append(True)
        if self._calibration is None:
            return msgspec.structs.replace(verdict, categories=categories, flagged=any(known) if known else None)
        p_unsafe = float(self._calibration.unsafe.calibrator(verdict.p_unsafe))
        unsafe_flagged = p_unsafe >= self._calibration.unsafe.threshold
        return msgspec.structs.replace(
            verdict,
            categories=categories,
            p_unsafe_calibrated=p_unsafe,
            flagged=any(known) or unsafe_flagged,
            unsafe_flagged=unsafe_flagged,
            calibration=self._calibration.version,
        )


def is_unsafe_flagged(verdict: Verdict) -> bool:
    """Whether P(unsafe) is flagged; by the default threshold where the release has none."""
    return verdict.p_unsafe >= DEFAULT_THRESHOLD if verdict.unsafe_flagged is None else verdict.unsafe_flagged


def is_flagged(verdict: Verdict, code: str) -> bool:
    """Whether a category is flagged; by the default threshold where the release has none."""
    score = verdict[code]
    return score.marginal >= DEFAULT_THRESHOLD if score.flagged is None else score.flagged


def is_anything_flagged(verdict: Verdict) -> bool:
    """Whether the answer is flagged; by the default threshold where the release has none at all."""
    if verdict.flagged is not None:
        return verdict.flagged
    return is_unsafe_flagged(verdict) or any(is_flagged(verdict, score.code) for score in verdict.categories)
