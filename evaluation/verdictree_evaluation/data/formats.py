"""The formats of labelled conversations: the shared JSON lines, the paper's JSON lines, and CSV with named columns."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec

from verdictree.conversation import Message, without_mark
from verdictree.text.visible import bounded
from verdictree_evaluation.data import csv_rows
from verdictree_evaluation.data.csv_rows import Columns
from verdictree_evaluation.errors import BadData

LabelKind = Literal["targeted", "composed", "safe", "complete"]


class Row(msgspec.Struct, frozen=True, omit_defaults=True):
    """A conversation and what is known of it.

    `label_kind` says what the labels mean. `complete`: every other category is absent; `safe`: all are absent;
    `targeted` (the hazard that the text was written for) and `composed` (those of the parts that it was joined from):
    every other category is unlabelled, neither present nor absent.
    """

    id: str
    conversation: tuple[Message, ...]
    labels: tuple[str, ...]
    label_kind: LabelKind
    source: str = ""
    place: str = ""

    @property
    def text(self) -> str:
        """The judged message."""
        return self.conversation[-1].content

    @property
    def digest(self) -> str:
        """16 hexadecimal digits that change with the conversation."""
        return hashlib.sha256(msgspec.json.encode(self.conversation)).hexdigest()[:16]


def entries(path: Path, content: bytes, columns: Columns) -> Iterator[tuple[str, Callable[[], Row]]]:
    """Each line's place and the call that parses it."""
    if path.suffix.lower() == ".csv":
        for number, fields in csv_rows.rows(path, content, columns):
            yield f"{path}:{number}", partial(_csv_row, fields)
        return
    lines = without_mark(content).split(b"\n")
    for number, line in enumerate(lines, start=1):
        if line.strip():
            last = number == len(lines)
            yield f"{path}:{number}", partial(_json_row, line, f"{path.stem}-{number}", cut=last)


def _json_row(line: bytes, default_id: str, cut: bool) -> Row:
    try:
        fields = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        cause = "; the file stops in the middle of this line" if cut else ""
        raise BadData(f"expected one JSON object, got something else ({exc}){cause}") from exc
    if "conversation" in fields:
        return _converted(fields)
    labels = [name for name in fields if name.endswith("_categories")]
    if len(labels) == 1 and "unsafe_query" in fields:  # the paper's format: every category was annotated
        turns = [{"role": "user", "content": fields["unsafe_query"]}]
        names = fields[labels[0]]
        found = {"id": fields.get("id", default_id), "conversation": turns, "labels": names}
        return _converted({**found, "label_kind": "complete", "source": "paper"})
    known = bounded(", ".join(fields), 200)
    raise BadData(f"expected id, conversation, labels, label_kind, or …_categories and unsafe_query, got {known}")


def _converted(fields: dict[str, Any]) -> Row:
    try:
        return msgspec.convert({key: fields[key] for key in _FIELDS if key in fields}, Row)
    except msgspec.ValidationError as exc:
        raise BadData(f"{bounded(str(exc), 200)}; a row has id, conversation, labels, label_kind and source") from exc


def _csv_row(fields: dict[str, Any] | BadData) -> Row:
    if isinstance(fields, BadData):
        raise fields
    return _converted(fields)


_FIELDS = ("id", "conversation", "labels", "label_kind", "source")
