"""Disjoint, deterministic splits: whole sources held out, and no row that is nearly another one."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from verdictree_evaluation.data.formats import Row

# Short questions on both sides, from other writers than the training rows: length and source are no cue.
HELD_OUT_SOURCES = frozenset({"simplesafetytests", "coconot"})

_SHINGLE_WORDS = 3
_NEAR_DUPLICATE = 0.5
_TEST_SHARE, _VALIDATION_SHARE = 0.15, 0.10


@dataclass(frozen=True)
class Splits:
    """Rows for training, for choosing thresholds, and for the figures."""

    train: tuple[Row, ...]
    validation: tuple[Row, ...]
    test: tuple[Row, ...]


def split_rows(rows: Sequence[Row], seed: int) -> Splits:
    """Assign each row to a split; of near duplicates, across and within splits, only one is kept.

    Held-out sources go to the test split whole. Of the others a seeded 15 % of each source and label goes to the test
    split and 10 % to the validation split. A row that has a near duplicate is kept in the split named first:
    test, validation, train.
    """
    drawn: dict[str, list[Row]] = {"test": [], "validation": [], "train": []}
    strata: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for row in rows:
        strata[row.source, *row.labels].append(row)
    for key in sorted(strata):
        members = sorted(strata[key], key=lambda row: row.id)
        random.Random(f"{seed}/{key}").shuffle(members)
        if key[0] in HELD_OUT_SOURCES:
            drawn["test"] += members
            continue
        num_test, num_validation = (round(len(members) * share) for share in (_TEST_SHARE, _VALIDATION_SHARE))
        drawn["test"] += members[:num_test]
        drawn["validation"] += members[num_test : num_test + num_validation]
        drawn["train"] += members[num_test + num_validation :]
    kept = _without_near_duplicates([*drawn["test"], *drawn["validation"], *drawn["train"]])
    return Splits(**{name: tuple(row for row in drawn[name] if id(row) in kept) for name in drawn})


def _without_near_duplicates(rows: Sequence[Row]) -> set[int]:
    kept: set[int] = set()
    sizes: list[int] = []
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for row in rows:
        shingles = _shingles(row.text)
        shared = Counter(index for shingle in shingles for index in holders[shingle])
        if any(n / (len(shingles) + sizes[index] - n) >= _NEAR_DUPLICATE for index, n in shared.items()):
            continue
        for shingle in shingles:
            holders[shingle].append(len(sizes))
        sizes.append(len(shingles))
        kept.add(id(row))
    return kept


def _shingles(text: str) -> frozenset[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower()) or [text.strip()]
    return frozenset(tuple(words[i : i + _SHINGLE_WORDS]) for i in range(max(1, len(words) - _SHINGLE_WORDS + 1)))
