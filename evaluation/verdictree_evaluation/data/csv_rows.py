"""Labelled conversations from CSV with named columns: each record with its line, none lost behind a damaged one."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from verdictree.conversation import MAX_BYTES
from verdictree.text.visible import quoted
from verdictree_evaluation.errors import BadData


@dataclass(frozen=True)
class Columns:
    """The names of a CSV file's columns; all but `text` and `labels` may be missing from the file.

    `role` is user or assistant, whose message the text is; user where there is none.
    """

    text: str = "text"
    labels: str = "labels"
    id: str = "id"
    label_kind: str = "label_kind"
    source: str = "source"
    role: str = "role"


def rows(path: Path, content: bytes, columns: Columns) -> Iterator[tuple[int, dict[str, Any] | BadData]]:
    """The line and the fields of each record, as a labelled row has them, or why it cannot be used.

    Raises BadData for a file that is no CSV, lacks a needed column or names one twice.
    """
    try:
        lines = io.StringIO(content.decode("utf-8-sig"), newline="").readlines()
    except UnicodeDecodeError as exc:
        raise BadData(f"{path}: expected CSV as UTF-8 text, got something else ({exc}); save it as UTF-8") from exc
    csv.field_size_limit(max(csv.field_size_limit(), MAX_BYTES))  # the module's own is a quarter of a request
    records = _records(lines)
    _, header = next(records, (0, []))
    names = _checked_header(path, header, columns)
    for number, record in records:
        if isinstance(record, BadData):
            yield number, record
        elif len(record) != len(names):
            counts = f"expected {len(names)} fields, as the header has, got {len(record)}"
            yield number, BadData(f"{counts}; quote text that holds commas")
        else:
            yield number, _row(dict(zip(names, record, strict=True)), columns, f"{path.stem}-{number}")


def _records(lines: list[str]) -> Iterator[tuple[int, list[str] | BadData]]:
    """Each record with the number of its first line; after a damaged one reading goes on in the next line."""
    at = 0
    while at < len(lines):
        reader, base, start = csv.reader(map(lines.__getitem__, range(at, len(lines))), strict=True), at, at
        try:
            while True:
                start = base + reader.line_num
                record = next(reader)
                if record:
                    yield start + 1, record
        except StopIteration:
            return
        except csv.Error as exc:
            said = f"expected a CSV record, got something else ({exc}); is a quotation mark left open?"
            yield start + 1, BadData(said)
            at = start + 1


def _checked_header(path: Path, header: list[str] | BadData, columns: Columns) -> list[str]:
    if isinstance(header, BadData):
        raise BadData(f"{path}: {header}") from header
    missing = {columns.text, columns.labels} - set(header)
    if missing:
        raise BadData(
            f"{path}: expected columns {columns.text!r} and {columns.labels!r}, got {quoted(', '.join(header), 200)}; "
            "name yours with --csv-text and --csv-labels"
        )
    repeated = [name for name, count in Counter(filter(None, header)).items() if count > 1]
    if repeated:
        raise BadData(f"{path}: expected columns of different names, got {quoted(repeated[0])} twice; rename one")
    return header


def _row(fields: Mapping[str, str], columns: Columns, default_id: str) -> dict[str, Any]:
    return {
        "id": fields.get(columns.id) or default_id,
        "conversation": [{"role": fields.get(columns.role) or "user", "content": fields[columns.text]}],
        "labels": [label for label in re.split(r"[\s,;|]+", fields[columns.labels]) if label],
        "label_kind": fields.get(columns.label_kind) or "complete",
        "source": fields.get(columns.source) or default_id.rsplit("-", 1)[0],
    }
