"""Verdicts as a person reads them in a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from verdictree.verdict import Verdict

_SHOWN_CATEGORIES = 3
_MAX_TEXT = 48


def table(rows: Iterable[tuple[str, Verdict, float]]) -> Table:
    """A table of (text, verdict, milliseconds): the top categories, each with its three estimates."""
    result = Table(title="marginal / joint / conditional of the top categories", title_justify="left")
    result.add_column("conversation", max_width=_MAX_TEXT)
    result.add_column("P(unsafe)", justify="right")
    result.add_column("top categories")
    result.add_column("unexplored", justify="right")
    result.add_column("ms", justify="right")
    for text, verdict, milliseconds in rows:
        categories = "\n".join(
            f"{score.code:<4}{score.name:<24.24} {score.marginal:.3f} / {score.joint:.3f} / {score.conditional:.3f}"
            for score in verdict.ranked[:_SHOWN_CATEGORIES]
        )
        result.add_row(
            Text(" ".join(text.split())),  # not markup: the text is a stranger's
            f"{verdict.p_unsafe:.3f}",
            categories,
            f"{verdict.unexplored:.4f}",
            f"{milliseconds:.0f}",
            end_section=True,
        )
    return result
