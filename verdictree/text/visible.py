"""A stranger's text as it may be shown: nothing in it moves a cursor, turns a line around, or hides."""

from __future__ import annotations

import re
import unicodedata

MAX_CHARACTERS = 280  # of a text in a table or on a page
_HIDDEN_KINDS = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
# What Unicode's Default_Ignorable_Code_Point adds to these; without the variation selectors 15 and 16 of emoji.
_IGNORABLE = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u3164\ufe00-\ufe0d\uffa0\U000e0100-\U000e01ef]")


def is_visible(character: str) -> bool:
    """Whether the character stands for itself: no control, format, surrogate, private or ignorable one."""
    return unicodedata.category(character) not in _HIDDEN_KINDS and not _IGNORABLE.match(character)


def visible(text: str, keep: str = "") -> str:
    r"""The text with `\x1b`, `\u202e` and the like in place of what would not be seen; `keep` stays as it is."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in keep or is_visible(c) else _escaped(c) for c in text)


def bounded(text: str, limit: int) -> str:
    """The text where it has at most `limit` characters, else its beginning and its end with … between them."""
    if len(text) <= limit:
        return text
    end = limit // 3
    return f"{text[: limit - end - 1]}…{text[len(text) - end :]}"


def quoted(value: object, limit: int = 80) -> str:
    """`repr` of a value that a stranger chose, of at most about `limit` characters."""
    if isinstance(value, str):
        cut = f" ({len(value)} characters)" if len(value) > limit else ""
        return visible(repr(bounded(str.__str__(value), limit))) + cut
    return visible(bounded(repr(value), limit))


def shown(text: str, limit: int = MAX_CHARACTERS) -> str:
    """One line of at most `limit` characters; control and direction characters, which could rearrange a page, show."""
    line = " ".join(text.split())
    visible = "".join(c if is_visible(c) else "�" for c in line[: limit + 1])
    return visible if len(visible) <= limit else visible[: limit - 1].rstrip() + "…"


def _escaped(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def seen(value: object) -> object:
    """A value as a page's template prints it: text as `visible` shows it, everything else as it is."""
    return visible(value, keep="\n") if type(value) is str else value  # not Markup, which is a page's own
