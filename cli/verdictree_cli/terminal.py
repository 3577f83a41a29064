"""What commands print: nothing in it that a stranger wrote acts on the terminal, or is read as markup."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from typing import Any

import click
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from verdictree.text.visible import is_visible, visible


class Terminal(Console):
    """A rich console on which text is text: no markup, no emoji codes, and what cannot be seen is escaped."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The renderable's segments; colours are added to them later, as the console's own."""
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else visible(text, keep="\n"), style, control)


def say(text: str, err: bool = False) -> None:
    """Print a line, to standard error with `err`."""
    click.echo(visible(text, keep="\n"), err=err)


def say_json(document: bytes) -> None:
    """Print a JSON document as one line; the same document, with what cannot be seen as JSON escapes."""
    text = document.decode()
    if not (text.isascii() and text.isprintable()):
        text = "".join(c if is_visible(c) else _json_escape(c) for c in text)
    sys.stdout.buffer.write(text.encode() + b"\n")
    sys.stdout.flush()


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be").hex()
    return "".join(f"\\u{unit}" for unit in re.findall("....", units))
