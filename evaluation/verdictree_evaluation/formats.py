"""The formats of labelled conversations: the shared JSON lines, the paper's JSON lines, and CSV with named columns."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import msgspec

from verdictree.conversation import Message
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


@dataclass(frozen=True)
class Columns:
    """The names of a CSV file's columns; `label_kind`, `source` and `id` may be missing from the file."""

    text: str = "text"
    labels: str = "labels"
    id: str = "id"
    label_kind: str = "label_kind"
    source: str = "source"


def entries(path: Path, content: bytes, columns: Columns) -> Iterator[tuple[str, Callable[[], Row]]]:
    """Each line's place and the call that parses it."""
    if path.suffix.lower() == ".csv":
        yield from _csv_entries(path, content, columns)
        return
    lines = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if line.strip():
            last = number == len(lines)
            yield f"{path}:{number}", partial(_json_row, line, f"{path.stem}-{number}", cut=last)


def _json_row(line: bytes, default_id: str, cut: bool) -> Row:
    try:
        fields = msgspec.json.decode(line, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        ending = "; the file stops in the middle of this line" if cut else ""
        raise BadData(f"expected one JSON object, got something else ({exc}){ending}") from exc
    if "conversation" in fields:
        return _converted(fields)
    labels = [name for name in fields if name.endswith("_categories")]
    if len(labels) == 1 and "unsafe_query" in fields:  # the paper's format: every category was annotated
        turns = [{"role": "user", "content": fields["unsafe_query"]}]
        names = fields[labels[0]]
        found = {"id": fields.get("id", default_id), "conversation": turns, "labels": names}
        return _converted({**found, "label_kind": "complete", "source": "paper"})
    raise BadData(
        f"expected id, conversation, labels, label_kind, or …_categories and unsafe_query, got {', '.join(fields)}"
    )


def _converted(fields: dict[str, Any]) -> Row:
    try:
        return msgspec.convert({key: fields[key] for key in _FIELDS if key in fields}, Row)
    except msgspec.ValidationError as exc:
        raise BadData(f"{exc}; a row has id, conversation, labels, label_kind and source") from exc


def _csv_entries(path: Path, content: bytes, columns: Columns) -> Iterator[tuple[str, Callable[[], Row]]]:
    reader = _csv_reader(path, content, columns)
    while True:
        start = reader.line_num + 1  # a record may span lines
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as exc:
            error = BadData(f"expected a CSV record, got something else ({exc}); is the file cut off?")
            yield f"{path}:{start}", partial(_raise, error)
            return
        yield f"{path}:{start}", partial(_csv_row, fields, columns, f"{path.stem}-{start}")


def _csv_reader(path: Path, content: bytes, columns: Columns) -> csv.DictReader[str]:
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        missing = {columns.text, columns.labels} - set(reader.fieldnames or ())
    except (UnicodeDecodeError, csv.Error) as exc:
        raise BadData(f"{path}: expected CSV as UTF-8 text, got something else ({exc})") from exc
    if missing:
        raise BadData(
            f"{path}: expected columns {columns.text!r} and {columns.labels!r}, got {reader.fieldnames}; "
            "name yours with --csv-text and --csv-labels"
        )
    return reader


def _csv_row(fields: dict[str, Any], columns: Columns, default_id: str) -> Row:
    if None in fields or None in fields.values():
        raise BadData("expected as many fields as the header has, got another number; quote text that holds commas")
    labels = [label for label in re.split(r"[\s,;|]+", fields[columns.labels]) if label]
    return _converted(
        {
            "id": fields.get(columns.id) or default_id,
            "conversation": [{"role": "user", "content": fields[columns.text]}],
            "labels": labels,
            "label_kind": fields.get(columns.label_kind) or "complete",
            "source": fields.get(columns.source) or default_id.rsplit("-", 1)[0],
        }
    )


def _raise(error: BadData) -> Row:
    raise error


_FIELDS = ("id", "conversation", "labels", "label_kind", "source")
