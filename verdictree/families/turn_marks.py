r"""Turn marks that are plain words, such as `User:`, in a message's own text: quoted, so that no message forges a turn.

A line of a message that begins like a mark gets `> ` before it, as people quote:

    ok                                ok
    Agent: I cannot help with that.   > Agent: I cannot help with that.

A line begins like a mark if, after white space and quotation signs, it spells one in any case, in full-width,
mathematical, circled or accented letters, with anything invisible between them. So a quoted line is quoted again, and
no two texts become one. Letters of other scripts that only look alike (Cyrillic, Greek) have other tokens and are left.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache

QUOTE = "> "
# Where str.splitlines ends a line.
_BREAKS = "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029"
_UNSEEN = (
    "\u0300-\u036f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\u20d0-\u20ff\u3164\ufe00-\ufe0f\ufeff\uffa0\U000e0000-\U000e0fff\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"
)
_BLANK = rf"(?:[^\S{_BREAKS}]|[{_UNSEEN}])"
_COLONS = ":\uff1a\ufe55\ufe13\u02d0\u2236\u05c3\ua789\ufe30"
_FOLDED = (range(0x80, 0x3000), range(0xFB00, 0xFB07), range(0xFF00, 0xFFF0), range(0x1D400, 0x1D800))
_ENCLOSED = range(0x1F110, 0x1F18A)


def quote(text: str, marks: Sequence[str]) -> str:
    """The text with each line quoted that begins like one of `marks`, what stands before the content of a turn.

    The first line counts where a mark ends with a line break; else it stands behind the mark, not below it.
    """
    pattern = _pattern_of(text, marks)
    return text if pattern is None else pattern.sub(lambda line: line[1] + QUOTE + line[2], text)


def quoted_at(text: str, marks: Sequence[str]) -> list[int]:
    """Where `quote` puts a sign of quotation: the places of the characters before which it stands."""
    pattern = _pattern_of(text, marks)
    return [] if pattern is None else [line.start(2) for line in pattern.finditer(text)]


def _pattern_of(text: str, marks: Sequence[str]) -> re.Pattern[str] | None:
    pattern = _pattern(tuple(dict.fromkeys(mark for mark in marks if mark.strip())))
    return pattern if _COLON.search(text) else None


@cache
def _pattern(marks: tuple[str, ...]) -> re.Pattern[str] | None:
    if not marks:
        return None
    # A class at the begin, since what follows one is searched for fast.
    begin = rf"[{_BREAKS}](?![{_BREAKS}])" + ("|\\A" if any(mark[-1] in _BREAKS for mark in marks) else "")
    spelled = "|".join(_spelled(mark.strip()) for mark in marks)
    return re.compile(rf"({begin})((?:{_BLANK}|>)*+(?:{spelled}))")


def _spelled(mark: str) -> str:
    """A pattern of everything that reads as the mark."""
    if not mark:
        return ""
    if mark[0].isspace():
        rest = mark.lstrip()
        is_broken = any(space in _BREAKS for space in mark[: len(mark) - len(rest)])
        return (rf"[\s{_UNSEEN}]*+" if is_broken else "") + _spelled(rest)
    letter, rest = _alike(mark[0].casefold()), _spelled(mark[1:])
    joined = f"[{letter}]{_BLANK}*+{rest}"
    pair = _alike(mark[:2].casefold()) if len(mark) > 1 else ""
    return f"(?:{joined}|[{pair}]{_BLANK}*+{_spelled(mark[2:])})" if pair else joined


def _alike(text: str) -> str:
    """The characters, for a class in a pattern, that fold to `text`; what is no letter is itself."""
    if text == ":":
        return _COLONS
    folds = "".join(re.escape(character) for character in _folds().get(text, ""))
    return folds or (re.escape(text) if len(text) == 1 else "")


@cache
def _folds() -> dict[str, str]:
    """Which characters fold to each text of one or two letters."""
    folds: dict[str, str] = {}
    for number in (*range(0x80), *(number for numbers in (*_FOLDED, _ENCLOSED) for number in numbers)):
        character = chr(number)
        plain = unicodedata.normalize("NFKD", character)
        folded = "".join(c for c in plain if not unicodedata.combining(c)).strip("()").casefold()
        if 0 < len(folded) <= 2 and folded.isascii() and folded.isalpha():
            folds[folded] = folds.get(folded, "") + character
    return folds


_COLON = re.compile(f"[{_COLONS}]")
