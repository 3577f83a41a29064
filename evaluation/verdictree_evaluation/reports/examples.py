"""The worst mistakes, for a person to read: per category, the positives scored lowest and the negatives highest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from verdictree.text.visible import shown
from verdictree_evaluation.data.arrays import Array, Bools, Ints, Scored

MAX_EXAMPLES = 5


@dataclass(frozen=True)
class Example:
    """One mistaken row: its text as it may be shown, its labels, its score and the category that got most."""

    id: str
    place: str
    text: str
    labels: tuple[str, ...]
    score: float
    calibrated: float | None
    p_unsafe: float
    top: str
    top_score: float


@dataclass(frozen=True)
class Mistakes:
    """A category's (or P(unsafe)'s) mistakes at a threshold: how many, and the worst."""

    code: str
    num_missed: int
    num_false: int
    missed: tuple[Example, ...]
    false: tuple[Example, ...]


def category_mistakes(scored: Scored, flags: Bools, *, redact: bool) -> list[Mistakes]:
    """The mistakes of the marginal at `flags` (n, c), over known entries."""
    marginal, raised = scored.estimates["marginal"], scored.calibrated
    return [
        _mistakes(
            scored,
            code,
            marginal[:, column],
            None if raised is None else raised[:, column],
            flags[:, column],
            (scored.truth[:, column], scored.known[:, column]),
            redact,
        )
        for column, code in enumerate(scored.codes)
    ]


def unsafe_mistakes(scored: Scored, flags: Bools, *, redact: bool) -> Mistakes:
    """The mistakes of P(unsafe) at `flags` (n,)."""
    judged = (scored.unsafe, np.ones_like(scored.unsafe))
    return _mistakes(scored, "unsafe", scored.p_unsafe, scored.p_unsafe_calibrated, flags, judged, redact)


def _mistakes(
    scored: Scored,
    code: str,
    scores: Array,
    raised: Array | None,
    flags: Bools,
    judged: tuple[Bools, Bools],
    redact: bool,
) -> Mistakes:
    truth, known = judged
    missed, false = np.flatnonzero(known & truth & ~flags), np.flatnonzero(known & ~truth & flags)

    def worst(rows: Ints, order: Array) -> tuple[Example, ...]:
        chosen = rows[np.argsort(order, kind="stable")][:MAX_EXAMPLES]
        return tuple(_example(scored, int(row), scores, raised, redact) for row in chosen)

    return Mistakes(code, len(missed), len(false), worst(missed, scores[missed]), worst(false, -scores[false]))


def _example(scored: Scored, row: int, scores: Array, raised: Array | None, redact: bool) -> Example:
    one = scored.rows[row]
    marginal = scored.estimates["marginal"][row]
    top = int(np.argmax(marginal))
    return Example(
        id=shown(one.id),
        place=one.place.rpartition("/")[2],
        text=f"[{len(one.text)} characters]" if redact else shown(one.text),
        labels=one.labels,
        score=float(scores[row]),
        calibrated=None if raised is None else float(raised[row]),
        p_unsafe=float(scored.p_unsafe[row]),
        top=scored.codes[top],
        top_score=float(marginal[top]),
    )
