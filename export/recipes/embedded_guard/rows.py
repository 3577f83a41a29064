"""The moderation rows on disk, read as `verdictree evaluate` reads them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import click
import msgspec

from verdictree_evaluation.data.datasets import load
from verdictree_evaluation.data.formats import Row
from verdictree_evaluation.errors import BadData


def read_rows(paths: Iterable[Path], codes: Sequence[str]) -> list[Row]:
    """Read labelled files, in the order given; click.ClickException, naming file and line, where one cannot be used."""
    try:
        dataset = load(paths, codes)
    except BadData as exc:
        raise click.ClickException(str(exc)) from exc
    if dataset.problems:
        raise click.ClickException(f"{dataset.problems[0]}; correct the line")
    return dataset.rows


def write_rows(rows: Iterable[Row], path: Path) -> None:
    """Write JSON lines that `read_rows` reads back."""
    placeless = (msgspec.structs.replace(row, place="") for row in rows)
    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in placeless))
