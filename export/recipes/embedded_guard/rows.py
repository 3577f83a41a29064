"""The moderation rows: one JSON object a line, read and validated."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import click
import msgspec

from verdictree.conversation import Message


class Row(msgspec.Struct, frozen=True):
    """A conversation and what is known of it.

    `label_kind` says what the labels mean: `targeted`, the hazard that the text was written for, other categories are
    unlabelled; `composed`, the hazards of all the parts that the message was joined from, others unlabelled;
    `safe`, no hazard at all.
    """

    id: str
    source: str
    conversation: tuple[Message, ...]
    labels: tuple[str, ...]
    label_kind: Literal["targeted", "composed", "safe"]

    @property
    def text(self) -> str:
        """The judged message."""
        return self.conversation[-1].content

    @property
    def is_safe(self) -> bool:
        """Whether no category is named."""
        return not self.labels


_decoder = msgspec.json.Decoder(Row)


def read_rows(paths: Iterable[Path], codes: Sequence[str]) -> list[Row]:
    """Read JSONL files, in the order given; labels are put into the order of `codes`.

    Raises click.ClickException, naming file and line, for a line that is no row, a conversation without text and a
    label that the policy lacks.
    """
    return [_parse(line, f"{path}:{n}", codes) for path in paths for n, line in _lines(path)]


def write_rows(rows: Iterable[Row], path: Path) -> None:
    """Write JSONL that `read_rows` reads back."""
    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))


def _lines(path: Path) -> Iterable[tuple[int, bytes]]:
    return ((n, line) for n, line in enumerate(path.read_bytes().splitlines(), start=1) if line.strip())


def _parse(line: bytes, place: str, codes: Sequence[str]) -> Row:
    try:
        row = _decoder.decode(line)
    except msgspec.DecodeError as exc:
        raise click.ClickException(f"{place}: {exc}; a row has id, source, conversation, labels, label_kind") from exc
    if not row.conversation or not row.text.strip():
        raise click.ClickException(f"{place}: expected a conversation whose last message has text, got none")
    unknown = [label for label in row.labels if label not in codes]
    if unknown:
        raise click.ClickException(f"{place}: expected labels of the policy ({', '.join(codes)}), got {unknown}")
    if row.is_safe != (row.label_kind == "safe"):
        raise click.ClickException(f"{place}: label_kind {row.label_kind!r} does not go with labels {list(row.labels)}")
    labels = tuple(code for code in codes if code in row.labels)
    return msgspec.structs.replace(row, labels=labels)
