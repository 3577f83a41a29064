"""What is flagged, and what to do: the one decision, as the server, an evaluation and a comparison take it.

    score     the calibrated marginal, or the raw one where nothing calibrates it or the policy says `calibrated: false`
    threshold the policy's own for the category, or else the fitted one; none where there is neither
    flagged   score ≥ threshold
    action    block where flagged, else review where score ≥ the policy's `review`, else allow

P(unsafe), calibrated or else raw, is decided likewise, by the policy's own `threshold` and `review`. An answer is
flagged where any category or P(unsafe) is, and where it is undecided; its action is the worst of theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from verdictree.conversation import Role
from verdictree.policy import UNSAFE, Category, Policy
from verdictree.releases.calibration import Array, Calibration, Outcome
from verdictree.verdict import ACTIONS, Action, Verdict

Flags = npt.NDArray[np.bool_]
DEFAULT_THRESHOLD = 0.2  # of a score that nothing sets a threshold for: that of arXiv 2511.22312


@dataclass(frozen=True)
class Limits:
    """From which scores on something is for people to look at, and is flagged; None where nothing says so."""

    review: float | None = None
    threshold: float | None = None

    @classmethod
    def of(cls, asked: Policy | Category, outcome: Outcome | None) -> Limits:
        """A category's, or a policy's for the whole answer; the policy's own threshold goes before the fitted one."""
        fitted = None if outcome is None else outcome.threshold
        return cls(asked.review, fitted if asked.threshold is None else asked.threshold)

    @property
    def is_band_empty(self) -> bool:
        """Whether a fitted threshold leaves nothing to review: what is flagged is never for review."""
        return self.review is not None and self.threshold is not None and self.review >= self.threshold

    def flagged(self, score: float) -> bool | None:
        """Whether the score reaches the threshold; None without one."""
        return None if self.threshold is None else score >= self.threshold

    def action(self, score: float) -> Action | None:
        """What to do at this score; None where there is neither a threshold nor a band."""
        if self.flagged(score):
            return "block"
        if self.review is not None and score >= self.review:
            return "review"
        return None if self.review is None and self.threshold is None else "allow"


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
        self._codes = [category.code for category, _ in pairs]
        self._limits = [Limits.of(category, outcome) for category, outcome in pairs]
        self._unsafe_limits = Limits.of(policy, None if calibration is None else calibration.unsafe)
        self._thresholds = np.array([np.inf if one.threshold is None else one.threshold for one in self._limits])

    @property
    def empty_bands(self) -> tuple[str, ...]:
        """The codes, `unsafe` for the whole answer, whose threshold leaves no score to review."""
        named = zip((UNSAFE, *self._codes), (self._unsafe_limits, *self._limits), strict=True)
        return tuple(code for code, limits in named if limits.is_band_empty)

    def scores(self, marginal: npt.ArrayLike) -> Array:
        """What the categories are judged by, of raw marginals (…, categories)."""
        raw = np.array(marginal, dtype=np.float64)
        for column, outcome in enumerate(self._fitted):
            if outcome is not None and self._is_calibrated[column]:
                raw[..., column] = outcome.calibrator(raw[..., column])
        return raw

    def flags(self, scores: npt.ArrayLike) -> Flags:
        """Which `scores` (…, categories) are flagged; a category without a threshold never is."""
        return np.asarray(np.asarray(scores) >= self._thresholds)

    def left(self, verdict: Verdict) -> Verdict:
        """A verdict on what left early, which is allowed: that this is right is what the exit's rule was proven for."""
        every = (self._unsafe_limits, *self._limits)
        has_action = [limits.threshold is not None or limits.review is not None for limits in every]
        has_flag = [limits.threshold is not None for limits in every]
        calibration = self._calibration
        return msgspec.structs.replace(
            verdict,
            categories=tuple(
                msgspec.structs.replace(score, flagged=False if flag else None, action="allow" if action else None)
                for score, flag, action in zip(verdict.categories, has_flag[1:], has_action[1:], strict=True)
            ),
            p_unsafe_calibrated=None if calibration is None else float(calibration.unsafe.calibrator(verdict.p_unsafe)),
            flagged=False if any(has_flag) else None,
            unsafe_flagged=False if has_flag[0] else None,
            calibration=None if calibration is None else calibration.version,
            action="allow" if any(has_action) else None,
        )

    def applied(self, verdict: Verdict) -> Verdict:
        """A raw verdict with its calibrated scores, flags and actions."""
        scores = self.scores([score.marginal for score in verdict.categories])
        categories = tuple(
            msgspec.structs.replace(
                score,
                calibrated=float(scores[i]) if self._is_calibrated[i] else None,
                flagged=self._limits[i].flagged(float(scores[i])),
                action=self._limits[i].action(float(scores[i])),
            )
            for i, score in enumerate(verdict.categories)
        )
        calibrated, p_unsafe = None, verdict.p_unsafe
        if self._calibration is not None:
            calibrated = p_unsafe = float(self._calibration.unsafe.calibrator(verdict.p_unsafe))
        unsafe_flagged = self._unsafe_limits.flagged(p_unsafe)
        flags = [unsafe_flagged, *(score.flagged for score in categories)]
        actions = [self._unsafe_limits.action(p_unsafe), *(score.action for score in categories)]
        decided = msgspec.structs.replace(
            verdict,
            categories=categories,
            p_unsafe_calibrated=calibrated,
            flagged=None if set(flags) == {None} else True in flags,
            unsafe_flagged=unsafe_flagged,
            calibration=None if self._calibration is None else self._calibration.version,
            action=max((one for one in actions if one is not None), key=ACTIONS.index, default=None),
        )
        return undecided(decided) if verdict.undecided else decided


def undecided(verdict: Verdict) -> Verdict:
    """The verdict of a guard that answers something else: flagged and blocked, with or without thresholds."""
    return msgspec.structs.replace(verdict, undecided=True, flagged=True, action="block")


def is_unsafe_flagged(verdict: Verdict) -> bool:
    """Whether P(unsafe) is flagged; by the default threshold where the release has none."""
    return verdict.p_unsafe >= DEFAULT_THRESHOLD if verdict.unsafe_flagged is None else verdict.unsafe_flagged


def is_flagged(verdict: Verdict, code: str) -> bool:
    """Whether a category is flagged; by the default threshold where the release has none."""
    score = verdict[code]
    return score.marginal >= DEFAULT_THRESHOLD if score.flagged is None else score.flagged


def is_alert(verdict: Verdict) -> bool:
    """Whether anybody must see the conversation: it is flagged, or in a review band."""
    return is_anything_flagged(verdict) or verdict.action == "review"


def is_anything_flagged(verdict: Verdict) -> bool:
    """Whether the answer is flagged; by the default threshold where the release has none at all."""
    if verdict.flagged is not None:
        return verdict.flagged
    return is_unsafe_flagged(verdict) or any(is_flagged(verdict, score.code) for score in verdict.categories)
