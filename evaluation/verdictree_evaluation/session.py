"""What both commands share: their options, the guard, the labelled rows and their scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verdictree.conversation import Truncate
from verdictree.errors import VerdictreeError
from verdictree_evaluation.data import datasets
from verdictree_evaluation.data.arrays import Scored, gather
from verdictree_evaluation.data.csv_rows import Columns
from verdictree_evaluation.data.datasets import Dataset, Problem
from verdictree_evaluation.data.predictions import PredictionStore
from verdictree_evaluation.errors import BadData, EvaluationError
from verdictree_evaluation.scoring import Guard, InProcess, Served, score_all

Begin = Callable[[str, int, int], Callable[[], None]]


@dataclass(frozen=True)
class Session:
    """One command's options, by name, and its progress bars: `begin(step, total, done)` returns the advance call."""

    options: dict[str, Any]
    begin: Begin

    def guard(self, exact: bool = False) -> InProcess | Served:
        """The guard that the options name; one of a repository with `exact` if no conversation may leave it early."""
        truncate: Truncate | None = self.options["truncate"]
        url, policy = self.options.get("url"), self.options["policy"]
        if url:
            concurrency, tls = self.options["concurrency"], self.options["tls"]
            return Served(url, policy=policy, concurrency=concurrency, truncate=truncate, tls=tls)
        repository, number = self.options["repository"], self.options["number"]
        if number is None:
            from verdictree.releases.repository import pinned

            number = pinned(repository)
        return InProcess(
            repository, number, policy=policy, threads=self.options["threads"], truncate=truncate, exact=exact
        )

    def load(self, paths: Sequence[Path], codes: Sequence[str]) -> Dataset:
        """The labelled rows of the files; BadData where there are none."""
        named = {name: self.options[f"csv_{name}"] for name in ("text", "labels", "id")}
        dataset = datasets.load(paths, codes, strict=self.options["strict"], columns=Columns(**named))
        if not dataset.rows:
            first = f"; the first problem: {dataset.problems[0]}" if dataset.problems else ""
            raise BadData(f"expected labelled rows in {', '.join(map(str, paths))}, got none{first}")
        return dataset

    def score(self, guard: Guard, dataset: Dataset, path: Path, step: str = "scoring") -> tuple[Scored, list[Problem]]:
        """The rows with their verdicts, and a problem for each row that the guard refused."""
        with PredictionStore(path) as store:
            try:
                predictions = score_all(guard, dataset.rows, store, lambda total, done: self.begin(step, total, done))
            except VerdictreeError as exc:
                raise EvaluationError(
                    f"the guard failed ({exc}); what was scored is kept in '{path}': run this again to go on from there"
                ) from exc
        pairs = zip(dataset.rows, predictions, strict=True)
        refused = [
            Problem(row.place, prediction.error or "") for row, prediction in pairs if prediction.verdict is None
        ]
        scored = gather(dataset.rows, predictions, guard.codes)
        if not len(scored):
            raise EvaluationError(f"expected verdicts, got none; the first error: {refused[0]}")
        return scored, refused
