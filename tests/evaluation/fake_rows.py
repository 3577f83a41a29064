"""Scored rows that no model made: their scores are set by the test."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from verdictree import CategoryScore, GreedyVerdict, Message, Verdict
from verdictree_evaluation.data.arrays import Scored, gather
from verdictree_evaluation.data.formats import LabelKind, Row
from verdictree_evaluation.data.predictions import Prediction

CODES = ("S1", "S2", "S10")


def row(name: str, labels: Sequence[str] = (), kind: LabelKind | None = None, text: str = "text") -> Row:
    found: LabelKind = kind or ("targeted" if labels else "safe")
    return Row(name, (Message("user", f"{text} {name}"),), tuple(labels), found, source="fake")


def verdict(marginal: Sequence[float], p_unsafe: float = 0.5, named: Sequence[str] = ()) -> Verdict:
    scores = tuple(CategoryScore(code, code, p, p / 2, p / 3) for code, p in zip(CODES, marginal, strict=True))
    greedy = GreedyVerdict("", tuple(named), True)
    return Verdict(1, "toy", "user", p_unsafe, 1 - p_unsafe, scores, 0.0, 0.0, greedy, 3, 0)


def scored(rows: Sequence[Row], marginal: Any, p_unsafe: Any = None, logits: Any = None) -> Scored:
    """`marginal` (n, 3); `p_unsafe` (n,) its largest by default."""
    highest = np.max(marginal, axis=1) if p_unsafe is None else p_unsafe
    predictions = [
        Prediction(
            id=one.id,
            digest=one.digest,
            release="r",
            verdict=verdict(scores, float(p)),
            label_logits=None if logits is None else tuple(logits[index]),
        )
        for index, (one, scores, p) in enumerate(zip(rows, marginal, highest, strict=True))
    ]
    return gather(rows, predictions, CODES)


def skilled(count: int, seed: int = 0, sharpness: float = 1.0) -> Scored:
    """`count` rows, half safe, whose marginals know the truth with noise; overconfident where `sharpness` > 1."""
    rng = np.random.default_rng(seed)
    rows = [row(f"r{i}", (CODES[i % 3],) if i % 2 else (), "complete" if i % 2 else "safe") for i in range(count)]
    truth = np.array([[code in one.labels for code in CODES] for one in rows])
    z = rng.normal(np.where(truth, 1.2, -1.2), 1.5)
    logits = rng.normal(np.where(truth, 12.0, 9.0), 1.0)
    return scored(rows, 1 / (1 + np.exp(-sharpness * z)), logits=logits)


class CountingGuard:
    """Answers every row alike and keeps the ids that it was asked; `stop_after` rows it fails like a killed run."""

    release, codes, names = "r", CODES, CODES

    def __init__(self, stop_after: int | None = None, release: str = "r") -> None:
        self.release = release
        self.asked: list[str] = []
        self._stop_after = stop_after

    def score(self, rows: Iterable[Row]) -> Iterator[Prediction]:
        for one in rows:
            if len(self.asked) == self._stop_after:
                raise KeyboardInterrupt
            self.asked.append(one.id)
            yield Prediction(id=one.id, digest=one.digest, release=self.release, verdict=verdict((0.1, 0.2, 0.3)))
