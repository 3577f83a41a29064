"""Verdicts as a person reads them in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich import box
from rich.table import Table
from rich.text import Text

from verdictree.text.visible import shown
from verdictree.verdict import CategoryScore, Verdict

_SHOWN_CATEGORIES = 3
_SHOWN_CHARACTERS = 64
_FLAG, _REVIEW = "⚑ ", "⚐ "


def table(rows: Iterable[tuple[str, Verdict, float]]) -> Table:
    """A table of (text, verdict, milliseconds): the most probable categories with their three estimates.

    What a release flags has a black flag before it, what is in a review band a white one. Below P(unsafe) stands what
    to do, and whether the guard gave no verdict. Below the text of a conversation that was judged part by part stands
    its worst window.
    """
    result = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 0))
    result.add_column("conversation", min_width=12, ratio=1)
    result.add_column("P(unsafe)", justify="right", no_wrap=True, min_width=9)
    result.add_column("category", width=18, no_wrap=True)
    for figure in ("marginal", "joint", "cond.", "unexplored", "ms"):
        result.add_column(figure, justify="right", no_wrap=True, min_width=len(figure))
    for text, verdict, milliseconds in rows:
        top = verdict.ranked[:_SHOWN_CATEGORIES]
        result.add_row(
            Text(shown(text, _SHOWN_CHARACTERS) + _worst_window(verdict)),  # not markup: the text is a stranger's
            "\n".join(_whole(verdict)),
            Text("\n".join(f"{_mark(score)}{shown(f'{score.code} {score.name}')}" for score in top)),
            "\n".join(f"{score.marginal:.3f}" for score in top),
            "\n".join(f"{score.joint:.3f}" for score in top),
            "\n".join(f"{score.conditional:.3f}" for score in top),
            f"{verdict.unexplored:.4f}",
            f"{milliseconds:.0f}",
            end_section=True,
        )
    return result


def _mark(one: Verdict | CategoryScore) -> str:
    if one.flagged:
        return _FLAG
    return _REVIEW if one.action == "review" else ""


def _whole(verdict: Verdict) -> Iterator[str]:
    yield f"{_mark(verdict)}{verdict.p_unsafe:.3f}"
    if verdict.action is not None:
        yield verdict.action
    if verdict.undecided:
        yield "undecided"


def _worst_window(verdict: Verdict) -> str:
    if not verdict.windows:
        return ""
    worst = max(verdict.windows, key=lambda window: window.p_unsafe)
    begin, end = (f"messages[{at.message}] character {at.character}" for at in (worst.begin, worst.end))
    return f"\nworst of {len(verdict.windows)} windows: {begin} to {end}"
