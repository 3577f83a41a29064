"""Worked examples: text that real code draws, and that a module's docstring must show word for word."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from types import ModuleType


def shown(text: str) -> str:
    """A token's text on paper: a space as ␣, a line break as ⏎."""
    return text.replace("\n", "⏎").replace(" ", "␣")


def table(rows: Iterable[Sequence[str]], gap: int = 2) -> str:
    """Rows of columns, each as wide as its widest entry."""
    rows = [[str(entry) for entry in row] for row in rows]
    widths = [max(len(row[column]) for row in rows if column < len(row)) for column in range(max(map(len, rows)))]
    lines = ((" " * gap).join(entry.ljust(width) for entry, width in zip(row, widths, strict=False)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def stands_in(module: ModuleType, drawing: str) -> None:
    """Fail, showing what to paste, unless the module's docstring shows the drawing."""
    expected = textwrap.indent(drawing.strip("\n"), "    ")
    assert expected in (module.__doc__ or ""), (
        f"the worked example in the docstring of {module.__name__} is not what the code does; expected\n\n{expected}\n"
    )
