"""A long text in pieces that are encoded one by one."""

from __future__ import annotations

import re
from collections.abc import Iterator

# Tokenizers split words at a space between two letters, whatever comes before or after.
WORD_BORDER = re.compile(r"(?<=[A-Za-z]) (?=[A-Za-z])")


def pieces(text: str, size: int) -> Iterator[tuple[str, bool]]:
    """A text in pieces of `size` to 2 · `size` characters, each with whether it ends where tokens end too."""
    start = 0
    while start < len(text):
        border = WORD_BORDER.search(text, start + size, start + 2 * size)
        end = border.start() if border else start + 2 * size
        yield text[start:end], border is not None or end >= len(text)
        start = end
