"""A text in which control tokens stand: texts and control tokens by turns, so that no text is taken for one.

`("", "<|user|>", "hello", "<|end|>", "")` is a message between two control tokens. A text without any is `("hello",)`.
"""

from __future__ import annotations

import re
from functools import cache

MarkedText = tuple[str, ...]
"""Texts at the even places, of which there is one more, and control tokens at the odd ones."""


def apart(text: str, control_tokens: tuple[str, ...]) -> MarkedText:
    """A text of our own, a turn's mark for instance, in which these tokens count."""
    return tuple(_pattern(control_tokens).split(text)) if control_tokens else (text,)


def joined(*texts: MarkedText) -> MarkedText:
    """The texts one after another."""
    whole = [""]
    for first, *others in texts:
        whole[-1] += first
        whole += others
    return tuple(whole)


def starting_at(text: MarkedText, start: int) -> MarkedText:
    """What stands from character `start` on; a control token that is cut there is kept whole."""
    for place, part in enumerate(text):
        if start < len(part):
            is_text = place % 2 == 0
            return (part[start:], *text[place + 1 :]) if is_text else ("", *text[place:])
        start -= len(part)
    return ("",)


@cache
def _pattern(control_tokens: tuple[str, ...]) -> re.Pattern[str]:
    longest_first = sorted(control_tokens, key=len, reverse=True)
    return re.compile(f"({'|'.join(map(re.escape, longest_first))})")
