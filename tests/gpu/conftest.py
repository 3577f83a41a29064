"""What was counted is written down, for docs/gpu.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pytest
from recorded_pass import REPORT

_HEAD = (
    "| guard | precision | waits: safe, 1, 2, 3 depths | launches, 2 layers | launches a layer | nodes on the CPU |",
    "|---|---|---|---|---|---|",
)


@pytest.fixture(scope="session")
def counted() -> Iterator[Callable[..., None]]:
    """Call it with a row: the guard, its precision, then the figures of each batch."""
    rows: list[str] = []

    def count(guard: str, precision: str, *figures: Sequence[float]) -> None:
        cells = [guard, precision, *(", ".join(f"{figure:.0f}" for figure in one) for one in figures)]
        rows.append(f"| {' | '.join(cells)} |")

    yield count
    REPORT.write_text("\n".join([*_HEAD, *rows]) + "\n")
