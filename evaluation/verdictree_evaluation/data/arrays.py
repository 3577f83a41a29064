"""Scored rows as arrays, and which of their entries are judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from verdictree.verdict import CategoryScore
from verdictree_evaluation.data.formats import Row
from verdictree_evaluation.data.predictions import Prediction

Array = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.intp]

ESTIMATORS = ("conditional", "joint", "marginal")


@dataclass(frozen=True)
class Scored:
    """n rows with their verdicts over c categories.

    truth, known   (n, c) the row holds the category; the row says whether it does, and the guard was asked about it
    unsafe         (n,) the row holds any category; always known
    p_unsafe       (n,) and p_safe (n,) raw
    estimates      the paper's three estimates by name, each (n, c)
    greedy         (n, c) the greedy verdict names the category
    label_logits   (n, c) at the forced prefix, 0 where the guard computed none; None where it showed none of any row
    calibrated     (n, c) marginals, and p_unsafe_calibrated (n,), or None
    served_flags   (n, c) what the release's own calibration flags, or None where it has none
    """

    rows: tuple[Row, ...]
    codes: tuple[str, ...]
    truth: Bools
    known: Bools
    p_unsafe: Array
    p_safe: Array
    estimates: dict[str, Array]
    greedy: Bools
    label_logits: Array | None
    calibrated: Array | None
    p_unsafe_calibrated: Array | None
    served_flags: Bools | None
    unexplored: Array

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def unsafe(self) -> Bools:
        return np.asarray(self.truth.any(axis=1))

    @cached_property
    def greedy_unsafe(self) -> Bools:
        """(n,) the guard finds the row rather unsafe than safe."""
        return np.asarray(self.p_unsafe > self.p_safe)

    def closed(self) -> Scored:
        """The same rows where what is unlabelled counts as absent: too strict, but it can see confusions."""
        return replace(self, known=np.ones_like(self.known))

    def select(self, chosen: Bools | Ints) -> Scored:
        """The rows of a mask or of indices, (n,)."""
        index = np.flatnonzero(chosen) if chosen.dtype == bool else chosen

        def part(values: npt.NDArray[np.float64] | None) -> Array | None:
            return None if values is None else values[index]

        return Scored(
            rows=tuple(self.rows[i] for i in index),
            codes=self.codes,
            truth=self.truth[index],
            known=self.known[index],
            p_unsafe=self.p_unsafe[index],
            p_safe=self.p_safe[index],
            estimates={name: values[index] for name, values in self.estimates.items()},
            greedy=self.greedy[index],
            label_logits=part(self.label_logits),
            calibrated=part(self.calibrated),
            p_unsafe_calibrated=part(self.p_unsafe_calibrated),
            served_flags=None if self.served_flags is None else self.served_flags[index],
            unexplored=self.unexplored[index],
        )

    def of_kind(self, kind: str) -> Bools:
        """(n,) the rows of this label kind."""
        return np.array([row.label_kind == kind for row in self.rows], dtype=bool)

    def folds(self, count: int, seed: int) -> Ints:
        """(n,) a fold for each row, 0 … count − 1; each first label, and the safe rows, are spread evenly."""
        rng = np.random.default_rng(seed)
        group = np.array([row.labels[0] if row.labels else "" for row in self.rows])
        order = rng.permutation(len(self))
        order = order[np.argsort(group[order], kind="stable")]
        folds = np.empty(len(self), dtype=np.intp)
        folds[order] = np.arange(len(self)) % count
        return folds


def gather(rows: Sequence[Row], predictions: Sequence[Prediction], codes: Sequence[str]) -> Scored:
    """Rows and their predictions, in the same order, as arrays; rows without a verdict are left out."""
    pairs = [
        (row, prediction.verdict, prediction.label_logits)
        for row, prediction in zip(rows, predictions, strict=True)
        if prediction.verdict is not None
    ]
    shape = (len(pairs), len(codes))
    by_code = [{score.code: score for score in verdict.categories} for _, verdict, _ in pairs]
    scores = [[given.get(code, _not_asked(code)) for code in codes] for given in by_code]
    asked = np.array([[code in given for code in codes] for given in by_code], dtype=bool).reshape(shape)
    truth = np.array([[code in row.labels for code in codes] for row, _, _ in pairs], dtype=bool).reshape(shape)
    whole = np.array([row.label_kind in ("safe", "complete") for row, _, _ in pairs], dtype=bool)
    has_logits = any(logits is not None for _, _, logits in pairs)
    has_calibrated = bool(pairs) and all(verdict.calibration is not None for _, verdict, _ in pairs)
    return Scored(
        rows=tuple(row for row, _, _ in pairs),
        codes=tuple(codes),
        truth=truth,
        known=(truth | whole[:, None]) & asked,
        p_unsafe=np.array([verdict.p_unsafe for _, verdict, _ in pairs], dtype=np.float64),
        p_safe=np.array([verdict.p_safe for _, verdict, _ in pairs], dtype=np.float64),
        estimates={
            name: np.array([[getattr(score, name) for score in row] for row in scores], np.float64).reshape(shape)
            for name in ESTIMATORS
        },
        greedy=np.array([[c in verdict.greedy.labels for c in codes] for _, verdict, _ in pairs], bool).reshape(shape),
        label_logits=np.array([logits or [0.0] * len(codes) for _, _, logits in pairs]) if has_logits else None,
        calibrated=np.array([[_calibrated(score) for score in row] for row in scores], float)
        if has_calibrated
        else None,
        p_unsafe_calibrated=(
            np.array([verdict.p_unsafe_calibrated for _, verdict, _ in pairs], float) if has_calibrated else None
        ),
        served_flags=np.array([[score.flagged for score in row] for row in scores], bool) if has_calibrated else None,
        unexplored=np.array([verdict.unexplored for _, verdict, _ in pairs], dtype=np.float64),
    )


def _not_asked(code: str) -> CategoryScore:
    """In place of a category that the policy does not ask about in messages of the row's role; never known there."""
    return CategoryScore(code, code, marginal=0.0, joint=0.0, conditional=0.0)


def _calibrated(score: CategoryScore) -> float:
    # A category that its policy leaves uncalibrated is judged by its raw score.
    return score.marginal if score.calibrated is None else score.calibrated
