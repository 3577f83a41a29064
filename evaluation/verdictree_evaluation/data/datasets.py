"""Labelled files: every row checked, every line that cannot be used named with its file and line."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from verdictree.conversation import Conversation, validated
from verdictree.errors import InvalidConversation
from verdictree.text.visible import bounded, quoted
from verdictree_evaluation.data.csv_rows import Columns
from verdictree_evaluation.data.formats import Row, entries
from verdictree_evaluation.errors import BadData


@dataclass(frozen=True)
class Problem:
    """A line that was left out: where it stands, and why."""

    place: str
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


@dataclass
class Dataset:
    """The rows that can be used, in their files' order, and the problems of all others."""

    rows: list[Row] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)


_DEFAULT_COLUMNS = Columns()


def load(
    paths: Iterable[Path], codes: Sequence[str], *, strict: bool = False, columns: Columns = _DEFAULT_COLUMNS
) -> Dataset:
    """Read labelled files; the format is told by `.csv` and, in JSON lines, by the fields.

    A line that cannot be used (invalid, cut off, empty text, a label that is not among `codes`, an id that stood
    before) becomes a problem, or BadData with `strict`. Raises BadData for a file that cannot be read.
    """
    dataset = Dataset()
    seen: dict[str, str] = {}
    for path in paths:
        content = _content(path)
        dataset.files[path.name] = hashlib.sha256(content).hexdigest()
        for place, parse in entries(path, content, columns):
            try:
                row = _checked(parse(), place, codes, seen)
            except (InvalidConversation, BadData, ValueError) as exc:
                problem = Problem(place, str(exc))
                if strict:
                    raise BadData(f"{problem}; correct the line, or run without --strict to leave it out") from exc
                dataset.problems.append(problem)
                continue
            seen[row.id] = place
            dataset.rows.append(row)
    return dataset


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        raise BadData(f"{path}: cannot be read ({exc}); give the path of a JSON lines or CSV file") from exc


def _checked(row: Row, place: str, codes: Sequence[str], seen: dict[str, str]) -> Row:
    unknown = sorted(set(row.labels) - set(codes))
    if unknown:
        found = bounded(", ".join(unknown), 200)
        raise BadData(f"expected labels of the guard's policy ({', '.join(codes)}), got {found}")
    if (row.label_kind == "safe") != (not row.labels) and not (row.label_kind == "complete" and not row.labels):
        raise BadData(f"label_kind {row.label_kind!r} does not go with labels {list(row.labels)}")
    if row.id in seen:
        raise BadData(f"the id {quoted(row.id)} stood at {seen[row.id]} already; ids must differ")
    validated(Conversation(row.conversation))
    labels = tuple(code for code in codes if code in row.labels)
    return msgspec.structs.replace(row, labels=labels, place=place)
