"""Conversations that the two releases decide differently, for a person to read."""

from __future__ import annotations

import msgspec
import numpy as np

from verdictree.text.visible import shown
from verdictree.verdict import Verdict
from verdictree_comparison.arrays import Arrays, Bools

MAX_EXAMPLES = 10


class Side(msgspec.Struct, frozen=True):
    """What one release said: P(unsafe), what it flagged, and its most probable category."""

    p_unsafe: float
    flagged: tuple[str, ...]
    top: str
    top_score: float


class Flip(msgspec.Struct, frozen=True):
    """One conversation and the two verdicts on it; `text` is its last message as it may be shown, or a note."""

    text: str
    live: Side
    candidate: Side


def examples(arrays: Arrays, flips: Bools) -> tuple[Flip, ...]:
    """The flips, (n,) of which, whose P(unsafe) moved most."""
    unsafe = arrays.scored[0]
    moved = np.abs(unsafe.candidate - unsafe.live)
    rows = np.flatnonzero(flips)
    return tuple(_flip(arrays, int(row)) for row in rows[np.argsort(-moved[rows], kind="stable")][:MAX_EXAMPLES])


def _flip(arrays: Arrays, row: int) -> Flip:
    pair = arrays.pairs[row]
    text = shown(pair.conversation.messages[-1].content) if pair.conversation else "[text not recorded]"
    live = tuple(scored.code for scored in arrays.scored if scored.live_flags[row])
    candidate = tuple(scored.code for scored in arrays.scored if scored.candidate_flags[row])
    return Flip(text, _side(pair.live, live), _side(pair.candidate or pair.live, candidate))


def _side(verdict: Verdict, flagged: tuple[str, ...]) -> Side:
    top = verdict.ranked[0]
    return Side(verdict.p_unsafe, flagged, top.code, top.marginal)
