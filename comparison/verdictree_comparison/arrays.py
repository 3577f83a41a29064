"""Pairs of verdicts as arrays: one row of scores and flags for each thing that both releases judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verdictree.pair import Pair
from verdictree.policy import UNSAFE
from verdictree.releases.decision import is_anything_flagged, is_flagged, is_unsafe_flagged
from verdictree.verdict import Verdict
from verdictree_comparison.errors import BadPairs

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Scored:
    """What both releases say of one code ("unsafe" or a category), all of shape (n,).

    `live`, `candidate` are scores: calibrated where both releases are, raw otherwise. The flags are each release's own.
    """

    code: str
    live: Floats
    candidate: Floats
    live_flags: Bools
    candidate_flags: Bools


@dataclass(frozen=True)
class Arrays:
    """The judged pairs: `pairs[i]` is row i of every array. `only_live`, `only_candidate` are codes of one release."""

    pairs: tuple[Pair, ...]
    scored: tuple[Scored, ...]
    is_calibrated: bool
    only_live: tuple[str, ...]
    only_candidate: tuple[str, ...]

    @property
    def live_decisions(self) -> Bools:
        """(n,) whether the live release flags anything."""
        return np.array([is_anything_flagged(pair.live) for pair in self.pairs])

    @property
    def candidate_decisions(self) -> Bools:
        """(n,) whether the candidate flags anything."""
        return np.array([pair.candidate is not None and is_anything_flagged(pair.candidate) for pair in self.pairs])


def gather(pairs: Sequence[Pair]) -> Arrays:
    """The pairs that both releases answered; BadPairs where there is none, or their codes change on the way."""
    judged = [(pair, pair.candidate) for pair in pairs if pair.candidate is not None]
    if not judged:
        raise BadPairs("expected verdicts of both releases, got none: the candidate failed on every conversation")
    live, candidate = [pair.live for pair, _ in judged], [verdict for _, verdict in judged]
    live_codes, candidate_codes = _codes(live), _codes(candidate)
    is_calibrated = all(verdict.calibration is not None for verdict in (*live, *candidate))
    scored = tuple(
        Scored(
            code,
            np.array([_score(verdict, code, is_calibrated) for verdict in live]),
            np.array([_score(verdict, code, is_calibrated) for verdict in candidate]),
            np.array([_flag(verdict, code) for verdict in live]),
            np.array([_flag(verdict, code) for verdict in candidate]),
        )
        for code in (UNSAFE, *(code for code in live_codes if code in candidate_codes))
    )
    return Arrays(
        tuple(pair for pair, _ in judged),
        scored,
        is_calibrated,
        tuple(code for code in live_codes if code not in candidate_codes),
        tuple(code for code in candidate_codes if code not in live_codes),
    )


def _codes(verdicts: Sequence[Verdict]) -> tuple[str, ...]:
    """All codes in order; a category may be asked about in messages of one role only."""
    by_role: dict[str, set[tuple[str, ...]]] = {}
    for verdict in verdicts:
        by_role.setdefault(verdict.role, set()).add(tuple(score.code for score in verdict.categories))
    for role, taxonomies in by_role.items():
        if len(taxonomies) != 1:
            raise BadPairs(
                f"expected the same categories in all verdicts of a release on role {role!r}, got {sorted(taxonomies)}"
            )
    return tuple(dict.fromkeys(code for taxonomies in by_role.values() for codes in taxonomies for code in codes))


def _score(verdict: Verdict, code: str, is_calibrated: bool) -> float:
    if code == UNSAFE:
        raw, calibrated = verdict.p_unsafe, verdict.p_unsafe_calibrated
    elif _is_asked(verdict, code):
        raw, calibrated = verdict[code].marginal, verdict[code].calibrated
    else:
        return 0.0
    return calibrated if is_calibrated and calibrated is not None else raw


def _flag(verdict: Verdict, code: str) -> bool:
    if code == UNSAFE:
        return is_unsafe_flagged(verdict)
    return _is_asked(verdict, code) and is_flagged(verdict, code)


def _is_asked(verdict: Verdict, code: str) -> bool:
    return any(score.code == code for score in verdict.categories)
